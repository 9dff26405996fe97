//! Counting acknowledgements: distinct nodes, never messages (semantics §3), and of a primary and those
//! who stand in for it, one.
//!
//! In: who has answered. Out: whether it is enough. Absent: what they answered.

use crate::id::NodeId;
use crate::request::Acks;

/// A tally of distinct replicas.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    acks: Acks,
    /// Whose place each of them takes.
    places: Vec<NodeId>,
}

impl Tally {
    /// Of none yet; `needed` will be enough.
    pub(crate) fn new(needed: u32) -> Tally {
        assert!(needed > 0, "a quorum of nobody is none");
        Tally { acks: Acks { needed, ..Acks::default() }, places: Vec::new() }
    }

    /// Counts `node` for `place`, once each: what a stand-in holds ends up where its primary holds it.
    pub(crate) fn add_for(&mut self, place: NodeId, node: NodeId, stands_in: bool) {
        if !self.acks.replicas.contains(&node) && !self.places.contains(&place) {
            self.acks.replicas.push(node);
            self.places.push(place);
            self.acks.sloppy |= stands_in;
        }
    }

    /// The bug of counting messages (see `Mutant::DuplicateAcksCounted`).
    pub(crate) fn add_again(&mut self, node: NodeId) {
        self.acks.replicas.push(node);
    }

    /// How many have answered.
    pub(crate) fn count(&self) -> u32 {
        self.acks.replicas.len() as u32
    }

    /// Enough have answered.
    pub(crate) fn is_met(&self) -> bool {
        self.count() >= self.acks.needed
    }

    /// For the reply.
    pub(crate) fn acks(&self) -> Acks {
        self.acks.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_answers_twice_counts_once() {
        let mut tally = Tally::new(2);
        tally.add_for(NodeId(1), NodeId(1), false);
        tally.add_for(NodeId(1), NodeId(1), false);
        assert!(!tally.is_met());
        tally.add_for(NodeId(2), NodeId(2), false);
        assert!(tally.is_met());
        assert_eq!(tally.acks().replicas, [NodeId(1), NodeId(2)]);
    }

    #[test]
    fn a_primary_and_its_stand_in_count_once_and_a_stand_in_makes_it_sloppy() {
        let mut tally = Tally::new(2);
        tally.add_for(NodeId(1), NodeId(1), false);
        assert!(!tally.acks().sloppy);
        tally.add_for(NodeId(2), NodeId(9), true);
        tally.add_for(NodeId(2), NodeId(2), false);
        assert_eq!((tally.acks().replicas, tally.acks().sloppy), (vec![NodeId(1), NodeId(9)], true));
        let mut tally = Tally::new(2);
        tally.add_for(NodeId(2), NodeId(9), true);
        tally.add_for(NodeId(3), NodeId(9), true);
        assert!(!tally.is_met());
    }
}
