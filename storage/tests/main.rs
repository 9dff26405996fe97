//! The engine's tests as one binary: each module is one concern.

mod basics;
mod compatibility;
mod corruption;
mod crash;
mod damage;
mod faults;
mod harness;
mod inspection;
mod model;
