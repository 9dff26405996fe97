//! What an operator sees of collection.
//!
//! In: the fence's state. Out: plain data. Absent: its presentation.

use crate::id::{Millis, NodeId};
use crate::node::Node;

/// How collection goes, as this node knows it: of the slots whose first primary it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectionView {
    /// Keys of which nothing is live, about: as of the last look at each slot, and since.
    pub tombstones_known: u64,
    /// How long the oldest of them has been so.
    pub oldest_ms: Option<u64>,
    /// Members whose word is missing: collection waits for them, or until they are forgotten.
    pub waiting_for: Vec<NodeId>,
    /// Rounds begun.
    pub rounds: u64,
    /// Rounds given up, and periods in which none could begin.
    pub blocked: u64,
    /// Keys that all members confirmed, in this node's rounds.
    pub confirmed: u64,
    /// Keys of this node's disk that were collected, in anybody's rounds.
    pub reaped: u64,
    /// Contexts of this node's disk from which dead actors were retired.
    pub retired: u64,
    /// States that came in although they had been collected, and were refused.
    pub refused: u64,
    /// How long ago a round last came to its end.
    pub last_round_ms: Option<u64>,
    /// Collected keys that are still remembered.
    pub graves: u64,
    /// Actors in the largest context written lately.
    pub largest_context: u64,
    /// Keys from before the last boot are still being looked for.
    pub looking_back: bool,
    /// By keyspace.
    pub keyspaces: Vec<CollectionProgress>,
}

/// How far collection is in a keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionProgress {
    /// Its name.
    pub keyspace: String,
    /// Slots with something to collect, now or later.
    pub slots: u64,
    /// Keys of which nothing is live, about.
    pub keys: u64,
}

impl Node {
    /// How collection goes.
    pub fn collection(&self, now: Millis) -> CollectionView {
        let fence = &self.fence;
        let mut keyspaces: Vec<CollectionProgress> = Vec::new();
        let (mut tombstones_known, mut oldest) = (0, None::<Millis>);
        for ((keyspace, _), noted) in fence.index.iter() {
            let Some(entry) = self.keyspaces.by_id(*keyspace) else { continue };
            if keyspaces.last().is_none_or(|progress| progress.keyspace != entry.name) {
                let keyspace = entry.name.clone();
                keyspaces.push(CollectionProgress { keyspace, slots: 0, keys: 0 });
            }
            if let Some(progress) = keyspaces.last_mut() {
                progress.slots += 1;
                progress.keys += noted.keys;
            }
            tombstones_known += noted.keys;
            if let Some(since) = noted.since.filter(|_| noted.keys > 0) {
                oldest = Some(oldest.map_or(since, |oldest| oldest.min(since)));
            }
        }
        let (owner, member) = (&fence.owner, &fence.member);
        CollectionView {
            tombstones_known,
            oldest_ms: oldest.map(|oldest| now.since(oldest)),
            waiting_for: owner.waiting_for.clone(),
            rounds: owner.counts.rounds,
            blocked: owner.counts.blocked,
            confirmed: owner.counts.confirmed,
            reaped: member.counts.reaped,
            retired: member.counts.retired,
            refused: member.counts.refused,
            last_round_ms: owner.last_round.map(|at| now.since(at)),
            graves: fence.graves.len() as u64,
            largest_context: fence.largest.iter().copied().max().unwrap_or(0) as u64,
            looking_back: fence.boot.is_some(),
            keyspaces,
        }
    }
}
