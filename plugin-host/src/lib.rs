//! Runs merge functions written by users, in wasmtime, so that they cannot hurt (P7) and answer alike everywhere (P8).
//!
//! ```text
//!   upload ──► compile: scan, validate, native code ──► load ──► component, by BLAKE3 hash
//!                              │
//!   Call ──► Host::call ──► fresh instance ──► Answer | Failure, and Stats
//!                              │ fuel, memory, watchdog, bounded log
//! ```
//!
//! In come uploads and questions as plain data; out go answers or typed failures. A failure is never turned into a
//! value here or anywhere (R7). Deliberately absent: threads to run calls on, files, the network, and the knowledge
//! of keyspaces, quorums and causality: the server has those.
//!
//! Reading order: [`Limits`], [`Call`], [`Host`], then `admission`, `compile`, `engine`, `load`, `sandbox`; then [`laws`].

mod admission;
mod bindings;
mod breaker;
mod built_in;
mod call;
mod compile;
mod convert;
mod engine;
mod error;
mod host;
pub mod laws;
mod limits;
mod load;
mod log_rate;
mod plugin;
mod sandbox;
mod text;

pub use breaker::{Breaker, BreakerOptions, Change, Permit};
pub use built_in::{BuiltIn, TEMPLATE_CART, built_in};
pub use call::{Answer, Call, Failure, KeyInfo, Operation, RejectionKind, Sibling, Span, Stats};
pub use compile::{Cache, Compiler, child_main};
pub use error::Error;
pub use host::Host;
pub use limits::Limits;
pub use plugin::{Description, Loaded, NotAHash, PluginHash, World};
pub use text::printable;
