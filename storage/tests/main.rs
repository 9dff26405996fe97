//! The engine's tests as one binary: each module is one concern.

mod basics;
