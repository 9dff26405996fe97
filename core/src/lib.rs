//! Every decision of the cluster, and no I/O.
//!
//! One door, [`Node::handle`]: an [`event::Event`] comes in, [`event::Effect`]s go out. Time and
//! randomness come in too, so the same events give the same effects everywhere; the simulator
//! runs this very code.
//!
//! In reading order: [`id`] · [`ring`] (who holds a key) · [`version`] (what a key holds) ·
//! [`request`], [`message`], [`event`], [`plugin`], [`admin`] (what is said at the door) · [`Node`] (who routes it)
//! · `coordinator` (puts and gets at a quorum) · `replica` (a node's own copy) · [`fence`] (what deletes
//! leave) · [`membership`] (who is there) · [`handoff`] (what is kept for a node that is away) · [`catalog`], `keyspaces` (policies and
//! plugins) · [`boot`], `identity` (who this node is) · [`storage_key`], [`fold`], [`wire`].
//!
//! Absent on purpose: clocks, threads, files, sockets, Wasm, randomly seeded maps (see
//! `clippy.toml`), and any other room of this project.
#![forbid(unsafe_code)]

pub mod admin;
pub mod anti_entropy;
pub mod boot;
mod budget;
pub mod catalog;
pub mod config;
mod coordinator;
pub mod event;
pub mod fence;
pub mod fold;
pub mod handoff;
pub mod hot_keys;
pub mod id;
mod identity;
mod keyspaces;
pub mod limits;
pub mod membership;
pub mod message;
pub mod moment;
pub mod mutant;
mod node;
pub mod plugin;
mod recent;
mod replica;
pub mod request;
pub mod ring;
pub mod storage_key;
#[cfg(test)]
mod story;
mod target;
pub mod version;
pub mod wire;

pub use node::{Node, Status};
