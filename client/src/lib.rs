//! The client: what a program imports to talk to a Merganser cluster.
//!
//! ```no_run
//! # async fn example() -> Result<(), merganser_client::Error> {
//! let client = merganser_client::Client::connect(["127.0.0.1:7401"]).await?;
//! let carts = client.keyspace("carts");
//!
//! let mut cart = carts.get("alice").await?; //  an Entry: value or siblings, and their context
//! cart.put("3 apples").await?; //               writes with that context, and keeps the new one
//! cart.put("4 apples").await?; //               so no read is needed in between
//! # Ok(()) }
//! ```
//!
//! ```text
//!  Keyspace ── request ──▶ client (deadline, retries) ──▶ link (one node) ──▶ gRPC
//!     │                       │ who next? when?             └ unary calls, or one pipeline
//!     ▼                       ▼
//!   Entry                  routing · retry · hedge    pure decisions, tested as tables
//!   (keeps the context)       ▲
//!                          topology           follows the ring of the cluster
//! ```
//!
//! In: addresses of any nodes, keys, values. Out: entries, written contexts, and one [`Error`]
//! whose variants say what to do. A request goes straight to a replica of its key, which the
//! client finds with the ring of `merganser-core` (docs/decisions/client-imports-ring.md).
//! Absent on purpose: caches, transactions, merging (siblings are shown, never settled here),
//! and any way to make a causal context up.

mod admin;
mod batch;
mod builder;
mod client;
mod context;
mod entry;
mod error;
mod hedge;
mod keyspace;
mod link;
mod node_time;
mod pipeline;
mod retry;
mod routing;
mod topology;

pub use admin::{Admin, UploadProgress};
pub use batch::Write;
pub use builder::Builder;
pub use client::Client;
pub use context::Context;
pub use entry::{Content, Entry, Resolution, Sibling, State, Written};
pub use error::{Error, Uncertain};
pub use keyspace::{Keyspace, Queried, Quorum, Strictness};
pub use merganser_core::id::{ActorId, Dot};
/// The messages of the wire, for the plain data that admin calls carry.
pub use merganser_proto::v1 as proto;
pub use routing::{Member, Topology};

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 256;
/// Largest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
