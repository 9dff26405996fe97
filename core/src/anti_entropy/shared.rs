//! Which slots two nodes both hold as primaries.
//!
//! In: the ring. Out: a set of slots for each peer and number of replicas, worked out once. Absent: what is in them.

use super::tree::slots_of;
use crate::id::NodeId;
use crate::ring::{Ring, Slot};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Words of a set.
const WORDS: usize = 1 << 10;

/// Some of all slots.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SlotSet(Box<[u64; WORDS]>);

impl SlotSet {
    fn new() -> SlotSet {
        SlotSet(Box::new([0; WORDS]))
    }

    fn insert(&mut self, slot: Slot) {
        self.0[usize::from(slot.0 >> 6)] |= 1 << (slot.0 & 63);
    }

    /// Whether it is one of them.
    pub(crate) fn contains(&self, slot: Slot) -> bool {
        self.0[usize::from(slot.0 >> 6)] >> (slot.0 & 63) & 1 == 1
    }

    /// Those of a branch.
    pub(crate) fn of_branch(&self, branch: u8) -> impl Iterator<Item = Slot> + '_ {
        slots_of(branch).filter(|slot| self.contains(*slot))
    }

    /// Branches with any of them.
    pub(crate) fn branches(&self) -> impl Iterator<Item = u8> + '_ {
        (0..=u8::MAX).filter(|branch| self.words(*branch).iter().any(|word| *word != 0))
    }

    /// Whether all of a branch are.
    pub(crate) fn has_all(&self, branch: u8) -> bool {
        self.words(branch).iter().all(|word| *word == u64::MAX)
    }

    fn words(&self, branch: u8) -> &[u64] {
        &self.0[usize::from(branch) * (WORDS / 256)..][..WORDS / 256]
    }
}

/// The sets of one node with its peers, by number of replicas.
#[derive(Default)]
pub(crate) struct Shared(BTreeMap<usize, BTreeMap<NodeId, Arc<SlotSet>>>);

impl Shared {
    /// The slots that `own` and `peer` both hold where there are `n` replicas; None: not one.
    pub(crate) fn with(&mut self, ring: &Ring, own: NodeId, peer: NodeId, n: usize) -> Option<Arc<SlotSet>> {
        self.0.entry(n).or_insert_with(|| sets(ring, own, n)).get(&peer).cloned()
    }

    /// The peers with which any slot is shared where there are `n` replicas.
    pub(crate) fn peers(&mut self, ring: &Ring, own: NodeId, n: usize) -> Vec<NodeId> {
        self.0.entry(n).or_insert_with(|| sets(ring, own, n)).keys().copied().collect()
    }
}

fn sets(ring: &Ring, own: NodeId, n: usize) -> BTreeMap<NodeId, Arc<SlotSet>> {
    let mut sets: BTreeMap<NodeId, SlotSet> = BTreeMap::new();
    for (first, last, primaries) in ring.stretches(n) {
        if primaries.contains(&own) {
            for peer in primaries.into_iter().filter(|peer| *peer != own) {
                let set = sets.entry(peer).or_insert_with(SlotSet::new);
                (first.0..=last.0).for_each(|slot| set.insert(Slot(slot)));
            }
        }
    }
    sets.into_iter().map(|(peer, set)| (peer, Arc::new(set))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::RingNode;

    #[test]
    fn a_slot_is_shared_with_each_of_its_other_primaries_and_nobody_else() {
        let node = |i: u64| RingNode { id: NodeId(i), zone: String::new(), weight: 1.0, vnodes: 16 };
        let ring = Ring::new((1..=5).map(node).collect());
        let mut shared = Shared::default();
        let own = NodeId(2);
        assert_eq!(shared.peers(&ring, own, 3), [1, 3, 4, 5].map(NodeId));
        for slot in Slot::all() {
            let primaries = ring.primaries(slot.first_token(), 3);
            for peer in [1, 3, 4, 5].map(NodeId) {
                let both = primaries.contains(&own) && primaries.contains(&peer);
                let set = shared.with(&ring, own, peer, 3).unwrap();
                assert_eq!(set.contains(slot), both);
                if both {
                    assert!(set.branches().any(|branch| set.of_branch(branch).any(|other| other == slot)));
                }
            }
        }
        assert!(shared.with(&ring, own, NodeId(1), 1).is_none());
    }
}
