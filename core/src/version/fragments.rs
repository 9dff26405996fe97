//! The state of a key in lattice keyspaces: joined values, each with the dots it contains (R5).
//!
//! Normally one fragment, the join of every put. Where the plugin fails there are several,
//! pairwise concurrent, that travel and sync as a set until a later join succeeds: a fragment
//! whose claim another's contains goes. `removed` covers what deletes saw: with update-wins a
//! fragment goes once all of its dots are removed, and survives whole if one was not seen (R8).
//! With delete-wins a delete begins a new `epoch` and everything of an older one goes.
//!
//! In: puts, joins, deletes, states of other replicas. Out: the least upper bound, with no plugin
//! called. Absent: the plugin; [`Fragments::joined`] takes its answer.

use super::{DotSet, Stamp};
use crate::id::Dot;
use bytes::Bytes;

/// A joined value and exactly the dots whose values it contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// What it contains.
    pub claim: DotSet,
    /// In the plugin's encoding.
    pub value: Bytes,
}

/// Fragments by claim, none within another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fragments {
    /// Raised by each delete under delete-wins; only the highest counts.
    pub epoch: u64,
    /// What deletes saw, and their own dots.
    pub removed: DotSet,
    /// The highest stamp of any put or delete.
    pub stamp: Stamp,
    fragments: Vec<Fragment>,
}

impl Fragments {
    /// From decoded parts; None unless in canonical form.
    pub fn from_parts(
        epoch: u64,
        removed: DotSet,
        stamp: Stamp,
        fragments: Vec<Fragment>,
    ) -> Option<Fragments> {
        let state = Fragments { epoch, removed, stamp, fragments };
        let mut canonical = state.clone();
        canonical.settle();
        (canonical.fragments.len() == state.fragments.len() && canonical == state).then_some(state)
    }

    /// By claim.
    pub fn iter(&self) -> impl Iterator<Item = &Fragment> {
        self.fragments.iter()
    }

    /// How many; 1 where every join succeeded.
    pub fn len(&self) -> usize {
        self.fragments.len()
    }

    /// No value: deleted, or never written.
    pub fn is_empty(&self) -> bool {
        self.fragments.is_empty()
    }

    /// Never written.
    pub fn is_unwritten(&self) -> bool {
        self.fragments.is_empty() && self.removed.is_empty()
    }

    /// All dots this has seen.
    pub fn seen(&self) -> DotSet {
        let mut seen = self.removed.clone();
        self.fragments.iter().for_each(|fragment| seen.join(&fragment.claim));
        seen
    }

    /// Whether `dot` is in a fragment, or was deleted or reset.
    pub fn covers(&self, dot: Dot) -> bool {
        self.removed.contains(dot) || self.fragments.iter().any(|fragment| fragment.claim.contains(dot))
    }

    /// A put as an operand of its own; its dot's span begins after `previous`.
    pub fn put(&mut self, dot: Dot, previous: u64, stamp: Stamp, value: Bytes) {
        self.fragments.push(Fragment { claim: DotSet::single(dot, previous), value });
        self.stamp = self.stamp.max(stamp);
        self.settle();
    }

    /// An operation: its result contains the one fragment there was, and the operation's dot.
    pub fn applied(&mut self, dot: Dot, previous: u64, stamp: Stamp, value: Bytes) {
        assert!(self.fragments.len() <= 1, "an operation needs one joined state");
        let mut claim = DotSet::single(dot, previous);
        if let Some(only) = self.fragments.first() {
            claim.join(&only.claim);
        }
        self.fragments = vec![Fragment { claim, value }];
        self.stamp = self.stamp.max(stamp);
        self.settle();
    }

    /// The bug of a put that replaces the state (see `Mutant::LatticeOverwrite`).
    pub(crate) fn applied_over(&mut self, dot: Dot, previous: u64, stamp: Stamp, value: Bytes) {
        self.fragments.truncate(1);
        self.applied(dot, previous, stamp, value);
    }

    /// A delete that had seen `context`, with a dot of its own. With `reset` it wins against
    /// everything concurrent.
    pub fn delete(&mut self, context: &DotSet, dot: Dot, previous: u64, stamp: Stamp, reset: bool) {
        if reset {
            self.epoch += 1;
            self.removed.join(&self.seen());
            self.fragments.clear();
        }
        self.removed.join(context);
        self.removed.join(&DotSet::single(dot, previous));
        self.stamp = self.stamp.max(stamp);
        self.settle();
    }

    /// The least upper bound with `other`. Equal claims with different bytes: the local ones stay.
    pub fn sync(&mut self, other: &Fragments) {
        let (mine, theirs) = (self.seen(), other.seen());
        if other.epoch > self.epoch {
            self.fragments.clone_from(&other.fragments);
            self.removed.join(&mine);
            self.epoch = other.epoch;
        } else if other.epoch == self.epoch {
            self.fragments.extend(other.fragments.iter().cloned());
        } else {
            self.removed.join(&theirs);
        }
        self.removed.join(&other.removed);
        self.stamp = self.stamp.max(other.stamp);
        self.settle();
    }

    /// The plugin's join of the fragments that there were when it was asked: it takes the place
    /// of those that are still there.
    pub fn joined(&mut self, operands: &[DotSet], value: Bytes) {
        let mut claim = DotSet::new();
        operands.iter().for_each(|operand| claim.join(operand));
        self.fragments.push(Fragment { claim, value });
        self.settle();
    }

    /// Canonical form: by claim, none removed, none within another, the earlier of two equal.
    fn settle(&mut self) {
        let removed = &self.removed;
        self.fragments.retain(|fragment| !fragment.claim.within(removed));
        let mut kept: Vec<Fragment> = Vec::with_capacity(self.fragments.len());
        for fragment in std::mem::take(&mut self.fragments) {
            if kept.iter().any(|other| fragment.claim.within(&other.claim)) {
                continue;
            }
            kept.retain(|other| !other.claim.within(&fragment.claim));
            kept.push(fragment);
        }
        kept.sort_by(|a, b| a.claim.cmp(&b.claim));
        self.fragments = kept;
    }
}
