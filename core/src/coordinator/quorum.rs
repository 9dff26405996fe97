//! Counting acknowledgements: distinct nodes, never messages (semantics §3).
//!
//! In: who has answered. Out: whether it is enough. Absent: what they answered.

use crate::id::NodeId;
use crate::request::Acks;

/// A tally of distinct replicas.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    acks: Acks,
}

impl Tally {
    /// Of none yet; `needed` will be enough.
    pub(crate) fn new(needed: u32) -> Tally {
        assert!(needed > 0, "a quorum of nobody is none");
        Tally { acks: Acks { needed, ..Acks::default() } }
    }

    /// Counts `node`, once.
    pub(crate) fn add(&mut self, node: NodeId) {
        if !self.acks.replicas.contains(&node) {
            self.acks.replicas.push(node);
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
        tally.add(NodeId(1));
        tally.add(NodeId(1));
        assert!(!tally.is_met());
        tally.add(NodeId(2));
        assert!(tally.is_met());
        assert_eq!(tally.acks().replicas, [NodeId(1), NodeId(2)]);
    }
}
