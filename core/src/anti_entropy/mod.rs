//! Anti-entropy: silent differences between replicas are found and repaired, always (R10).
//!
//! ```text
//!   a write ─▶ its leaf, in the same batch                            leaf, tree, upkeep, rescans, lost_leaves
//!   a period ─▶ a round with a peer ─▶ root ─▶ branches ─▶ leaves     schedule, shared, round
//!            ─▶ keys of the slots that differ ─▶ who lacks what       slot_work, compare
//!            ─▶ raw states to the side that lacks them, at a pace     take
//!   a peer's question ─▶ an answer                                    exchange, answer
//!   values, slowly ─▶ their digests, and another replica's ─▶ rot and divergences    scrub
//! ```
//!
//! The tree of a keyspace stands over all slots, whoever holds them; with each peer the sums of those slots are compared that
//! both hold, so a change of the layout rebuilds nothing. In: writes, time, peers' messages, pages of scans. Out:
//! leaves, messages, states taken in as replication takes them. Absent: what a state means, which is `version`'s.

mod answer;
mod compare;
mod exchange;
pub mod leaf;
mod lost_leaves;
mod rescans;
mod round;
mod schedule;
pub mod scrub;
mod shared;
mod slot_work;
mod take;
mod tree;
mod upkeep;

pub(crate) use answer::{KeysAsked, StatesAsked};
pub use exchange::Exchange;
pub(crate) use lost_leaves::LostLeaves;
pub use schedule::RepairView;
pub use shared::Stretch;
pub(crate) use slot_work::WorkScan;
pub(crate) use upkeep::{Rescan, TreeWrite};

use crate::budget::Budget;
use crate::id::{KeyspaceId, Millis, NodeId};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// What a node knows of its own data and of others'.
#[derive(Default)]
pub(crate) struct AntiEntropy {
    trees: BTreeMap<KeyspaceId, tree::Tree>,
    /// Leaves have been read from the disk; until then none is fresh.
    loaded: bool,
    /// Storage keys of leaves that could not be read at the start: ranges.
    lost_leaves: Vec<(Bytes, Bytes)>,
    rescans: rescans::Rescans,
    shared: shared::Shared,
    /// When each peer was last asked.
    asked: BTreeMap<NodeId, Millis>,
    /// This node's own round.
    round: Option<round::Round>,
    takings: take::Takings,
    /// Scans under way for peers.
    serving: usize,
    proofs: schedule::Proofs,
    /// States that wait for the budget.
    outbox: VecDeque<(NodeId, Exchange)>,
    budget: Budget,
    /// Of own heads that are read again.
    scan_budget: Budget,
    /// Values held against digests.
    pub(crate) scrub: scrub::Scrub,
}

#[cfg(test)]
mod anti_entropy_test;
