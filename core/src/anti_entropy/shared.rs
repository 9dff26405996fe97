//! Which slots two nodes both hold as primaries.
//!
//! In: the ring. Out: a set of slots for each peer and number of replicas, worked out once. Absent: what is in them.

use super::tree::slots_of;
use crate::id::{KeyspaceId, NodeId};
use crate::ring::{Ring, Slot};
use crate::storage_key;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Slots that follow one another: what is compared at once where much differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The first of them.
    pub first: Slot,
    /// The last, included.
    pub last: Slot,
}

/// Slots of a stretch.
pub(super) const STRETCH_SLOTS_MAX: u16 = 16;

impl Stretch {
    /// A single one.
    pub(crate) fn one(slot: Slot) -> Stretch {
        Stretch { first: slot, last: slot }
    }

    /// From one to another; None: not in that order, or too many.
    pub(crate) fn between(first: Slot, last: Slot) -> Option<Stretch> {
        let more = last.0.checked_sub(first.0)?;
        (more < STRETCH_SLOTS_MAX).then_some(Stretch { first, last })
    }

    /// The slot, if it is only one.
    pub(crate) fn only(self) -> Option<Slot> {
        (self.first == self.last).then_some(self.first)
    }

    /// One slot longer, if that is its next and there is room.
    pub(crate) fn and(self, next: Slot) -> Option<Stretch> {
        let follows = self.last.0.checked_add(1) == Some(next.0);
        Stretch::between(self.first, next).filter(|_| follows)
    }

    /// The storage keys of its objects: from the first to before the second.
    pub(crate) fn objects(self, keyspace: KeyspaceId) -> (Bytes, Bytes) {
        (storage_key::object_range(keyspace, self.first).0, storage_key::object_range(keyspace, self.last).1)
    }
}

/// Words of a set.
const WORDS: usize = 1 << 10;

/// Some of all slots.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SlotSet(Box<[u64; WORDS]>);

impl SlotSet {
    fn new() -> SlotSet {
        SlotSet(Box::new([0; WORDS]))
    }

    /// All from one to another, included.
    fn insert_all(&mut self, first: Slot, last: Slot) {
        let (from, to) = (usize::from(first.0 >> 6), usize::from(last.0 >> 6));
        for word in from..=to {
            let after_first = if word == from { u64::MAX << (first.0 & 63) } else { u64::MAX };
            let up_to_last = if word == to { u64::MAX >> (63 - (last.0 & 63)) } else { u64::MAX };
            self.0[word] |= after_first & up_to_last;
        }
    }

    /// Whether it is one of them.
    pub(crate) fn contains(&self, slot: Slot) -> bool {
        self.0[usize::from(slot.0 >> 6)] >> (slot.0 & 63) & 1 == 1
    }

    /// Whether all of a stretch are.
    pub(crate) fn contains_all(&self, slots: Stretch) -> bool {
        (slots.first.0..=slots.last.0).all(|slot| self.contains(Slot(slot)))
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
                sets.entry(peer).or_insert_with(SlotSet::new).insert_all(first, last);
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
    fn a_stretch_grows_by_its_next_slot_only_and_not_for_ever() {
        let mut stretch = Stretch::one(Slot(7));
        assert_eq!((stretch.only(), stretch.and(Slot(9)), stretch.and(Slot(7))), (Some(Slot(7)), None, None));
        let mut slots = 1;
        while let Some(longer) = stretch.and(Slot(stretch.last.0 + 1)) {
            stretch = longer;
            slots += 1;
        }
        assert_eq!((slots, stretch.only()), (STRETCH_SLOTS_MAX, None));
        assert_eq!(Stretch::one(Slot(u16::MAX)).and(Slot(0)), None);
        assert_eq!(Stretch::between(Slot(3), Slot(2)), None);
    }

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
