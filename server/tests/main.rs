//! The server as its clients and peers meet it: real nodes in this process, on loopback, with
//! real files. What the cluster promises under faults is the simulator's business, not this one's.

mod cluster;
mod kv;
mod lifecycle;
mod limits;
mod links;
mod operators;
mod simulated;
