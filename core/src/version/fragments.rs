//! The state of a key in lattice keyspaces: joined values, each with the dots it contains (R5).
//!
//! Normally one fragment, the join of every put. Where the plugin fails there are several,
//! pairwise concurrent, that travel and sync as a set until a later join succeeds: a fragment
//! whose claim another's contains goes. Each has a [`Standing`]: only those that the plugin vouches for
//! are joined. `removed` covers what deletes saw: with update-wins a
//! fragment goes once all of its dots are removed, and survives whole if one was not seen (R8).
//! With delete-wins a delete begins a new `epoch` and everything of an older one goes.
//!
//! In: puts, joins, verdicts, deletes, states of other replicas. Out: the least upper bound, with no plugin
//! called. Absent: the plugin; [`Fragments::joined`] takes its answer.

use super::antichain::within_another;
use super::{DotSet, Stamp, Standing};
use crate::id::Dot;
use bytes::Bytes;

/// A joined value and exactly the dots whose values it contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// What it contains.
    pub claim: DotSet,
    /// In the plugin's encoding.
    pub value: Bytes,
    /// Whether the plugin vouches for it.
    pub standing: Standing,
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
        let ascending = fragments.windows(2).all(|pair| pair[0].claim < pair[1].claim);
        let live = fragments.iter().all(|fragment| !fragment.claim.within(&removed));
        if !(ascending && live) {
            return None;
        }
        let claims: Vec<&DotSet> = fragments.iter().map(|fragment| &fragment.claim).collect();
        let apart = !within_another(&claims).contains(&true);
        apart.then_some(Fragments { epoch, removed, stamp, fragments })
    }

    /// By claim.
    pub fn iter(&self) -> impl Iterator<Item = &Fragment> {
        self.fragments.iter()
    }

    /// Those that the plugin vouches for: what is joined.
    pub fn valid(&self) -> impl Iterator<Item = &Fragment> {
        self.fragments.iter().filter(|fragment| fragment.standing.is_valid())
    }

    /// Those that are joined with nothing: not validated yet, or set aside.
    pub fn unjoined(&self) -> impl Iterator<Item = &Fragment> {
        self.fragments.iter().filter(|fragment| !fragment.standing.is_valid())
    }

    /// Whether it is not empty and all that `context` covers of the values is operands that are joined with nothing.
    pub fn is_of_unjoined(&self, context: &DotSet) -> bool {
        let touches = |fragment: &Fragment| fragment.claim.minus(context) != fragment.claim;
        self.unjoined().any(touches) && !self.valid().any(touches)
    }

    /// How many bytes its values have.
    pub fn size_bytes(&self) -> usize {
        self.fragments.iter().map(|fragment| fragment.value.len()).sum()
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
        let claims = self.fragments.iter().map(|fragment| &fragment.claim);
        DotSet::union(std::iter::once(&self.removed).chain(claims))
    }

    /// Whether `dot` is in a fragment, or was deleted or reset.
    pub fn covers(&self, dot: Dot) -> bool {
        self.removed.contains(dot) || self.fragments.iter().any(|fragment| fragment.claim.contains(dot))
    }

    /// A put as an operand of its own; its dot's span begins after `previous`.
    pub fn put(&mut self, dot: Dot, previous: u64, stamp: Stamp, value: Bytes, standing: Standing) {
        self.fragments.push(Fragment { claim: DotSet::single(dot, previous), value, standing });
        self.stamp = self.stamp.max(stamp);
        self.settle();
    }

    /// An operation, applied to the fragment that claimed `base` (None: to no state): its result contains what that one
    /// contained, and the operation's dot. What came in meanwhile stays beside it.
    pub fn applied(
        &mut self,
        base: Option<&DotSet>,
        dot: Dot,
        previous: u64,
        stamp: Stamp,
        value: Bytes,
        standing: Standing,
    ) {
        let mut claim = DotSet::single(dot, previous);
        if let Some(base) = base {
            claim.join(base);
        }
        self.fragments.push(Fragment { claim, value, standing });
        self.stamp = self.stamp.max(stamp);
        self.settle();
    }

    /// The bug of a put that replaces the state (see `Mutant::LatticeOverwrite`).
    pub(crate) fn put_over(
        &mut self,
        dot: Dot,
        previous: u64,
        stamp: Stamp,
        value: Bytes,
        standing: Standing,
    ) {
        let claims = DotSet::union(self.fragments.iter().map(|fragment| &fragment.claim));
        self.fragments.clear();
        self.applied(Some(&claims), dot, previous, stamp, value, standing);
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
    pub fn joined(&mut self, operands: &[DotSet], value: Bytes, standing: Standing) {
        let claim = DotSet::union(operands.iter());
        self.fragments.push(Fragment { claim, value, standing });
        self.settle();
    }

    /// A verdict on the fragment that claims exactly `claim`, if it is there and has no greater one. Whether it changed.
    pub fn judge(&mut self, claim: &DotSet, standing: Standing) -> bool {
        let Ok(at) = self.fragments.binary_search_by(|fragment| fragment.claim.cmp(claim)) else {
            return false;
        };
        let changes = self.fragments[at].standing < standing;
        if changes {
            self.fragments[at].standing = standing;
        }
        changes
    }

    /// Dots that were issued and that no write has: nobody waits for them, and contexts stay whole.
    pub fn fill(&mut self, dots: &DotSet) {
        self.removed.join(dots);
        self.settle();
    }

    /// Canonical form: by claim, none removed, none within another; of two equal claims the earlier bytes and the greater
    /// standing.
    fn settle(&mut self) {
        let removed = &self.removed;
        self.fragments.retain(|fragment| !fragment.claim.within(removed));
        // Stable: of two equal claims the earlier stays before.
        self.fragments.sort_by(|a, b| a.claim.cmp(&b.claim));
        self.fragments.dedup_by(|later, earlier| {
            let equal = later.claim == earlier.claim;
            if equal && later.standing > earlier.standing {
                std::mem::swap(&mut earlier.standing, &mut later.standing);
            }
            equal
        });
        let claims: Vec<&DotSet> = self.fragments.iter().map(|fragment| &fragment.claim).collect();
        let mut within = within_another(&claims).into_iter();
        self.fragments.retain(|_| !within.next().unwrap_or(false));
    }
}

#[cfg(test)]
mod fragments_test;
