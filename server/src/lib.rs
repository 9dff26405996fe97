//! The I/O shell of a node: everything that waits, around a core that never does.
//!
//! ```text
//!   gRPC clients ──▶ grpc ──┐                  ┌──▶ replies
//!   peers ─────────▶ peers ─┤   driver:        ├──▶ peers' outboxes, one push each
//!   storage ───────▶ store ─┼─▶ one task owns ─┼──▶ storage, one hand-over
//!   plugins ───────▶ resolve┤   the Node       ├──▶ plugin pool
//!   clock ──────────────────┘                  └──▶ topology, log lines
//! ```
//!
//! In reading order: [`Config`] (what an operator says) · `run` (start and stop, in order) ·
//! `driver` (the hall) · `store`, `resolve`, `peers`, `grpc` (what surrounds it) · `surroundings`
//! (what all of it stands on) · `accept`, `clock`, `metrics`, `telemetry`.
//!
//! In: a configuration. Out: a node that serves until it is told to stop. Absent on purpose: any
//! decision about keys, replicas or conflicts; that is `merganser-core`'s.

mod accept;
mod clock;
mod config;
mod descriptors;
mod driver;
mod error;
mod grpc;
mod metrics;
mod niceness;
mod owner;
mod peers;
mod resolve;
mod run;
mod set_aside;
mod signals;
mod store;
mod surroundings;
mod telemetry;
mod verify;

pub use config::{
    Cluster, Config, ConfigError, KEYS, Key, Limits, Listen, Log, LogFormat, Member, Node, Secret, Storage,
};
pub use error::Error;
pub use resolve::COMPILE_COMMAND;
pub use run::{Running, run_within, serve, start};
pub use set_aside::NotSetAside;
pub use surroundings::{Network, Surroundings};
