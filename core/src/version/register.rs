//! The state of a key in `lww` keyspaces: the version with the highest (stamp, dot) (R15).
//!
//! In: writes, states of other replicas. Out: the maximum. Absent: siblings; here an
//! acknowledged write may be overwritten by one that never saw it, and the documents say so.

use super::{DotSet, Stamp, Version};
use crate::id::Dot;

/// The winner so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Register {
    /// None: never written.
    pub winner: Option<(Dot, Version)>,
}

impl Register {
    /// A single write.
    pub fn of(dot: Dot, version: Version) -> Register {
        Register { winner: Some((dot, version)) }
    }

    /// By what versions are ordered.
    pub fn order(&self) -> Option<(Stamp, Dot)> {
        self.winner.as_ref().map(|(dot, version)| (version.stamp, *dot))
    }

    /// Keeps the higher of the two.
    pub fn sync(&mut self, other: &Register) {
        if other.order() > self.order() {
            self.winner.clone_from(&other.winner);
        } else if other.order() == self.order()
            && let (Some((_, mine)), Some((_, theirs))) = (&mut self.winner, &other.winner)
        {
            mine.take_bytes(theirs);
        }
    }

    /// Whether the write is here, or one that beats it.
    pub fn covers(&self, dot: Dot, stamp: Stamp) -> bool {
        self.order() >= Some((stamp, dot))
    }

    /// The winner's dot.
    pub fn seen(&self) -> DotSet {
        self.winner.as_ref().map(|(dot, _)| DotSet::single(*dot, 0)).unwrap_or_default()
    }

    /// The winner's stamp.
    pub fn stamp(&self) -> Stamp {
        self.winner.as_ref().map(|(_, version)| version.stamp).unwrap_or_default()
    }

    /// Never written.
    pub fn is_empty(&self) -> bool {
        self.winner.is_none()
    }
}
