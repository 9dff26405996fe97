//! Proves that the cluster keeps its promises: a simulator over the production core and the
//! production storage, and the properties that it watches.
//!
//! ```text
//!   sim/       the world: nodes, network, disks, plugins, clients, faults; one clock, one seed
//!   history    what clients asked and were told; what states showed
//!   models     what the state of a shipped type must mean
//!   losses     what machines lost, and what that excuses
//!   properties what must hold, one file each
//!   scenarios  bugs of others, each as a story
//!   small_model/ every order of a few steps of three replicas
//!   anti_entropy_cost what repair costs over ten million keys
//!   bin/sim    many seeds, one seed with its trace, the known bugs
//! ```
//!
//! How to run and read it: `docs/testing.md`. Absent: server, gRPC and Wasm, so that a run is one
//! thread and one seed; real processes are tested apart.
#![forbid(unsafe_code)]

pub mod anti_entropy_cost;
pub mod history;
pub mod losses;
pub mod models;
pub mod properties;
pub mod scenarios;
pub mod sim;
pub mod small_model;
