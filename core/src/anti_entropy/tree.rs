//! A keyspace's tree in memory: 256 branches of 256 leaves, a leaf for each slot.
//!
//! ```text
//!   a write:   change ─▶ (record for its batch) ─▶ storage ─▶ done
//!   a rescan:  begin ─▶ the slot's keys are read ─▶ settle ─▶ (record) ─▶ storage ─▶ done
//! ```
//!
//! A fresh leaf is the sum over what the disk holds once all writes under way are done. A leaf turns
//! stale by a write whose old state nobody knows (a register's) or by one that failed. A rescan counts only if no write of the leaf
//! was under way when it began and none came meanwhile: then what it read is exactly what the leaf stands for.
//!
//! In: writes, outcomes, rescans. Out: records for the disk, sums. Absent: keys, tickets, peers.

use super::leaf::{LeafRecord, Sum};
use crate::ring::Slot;

/// Leaves under one branch.
pub(crate) const LEAVES: usize = 256;
/// Branches under the root.
pub(crate) const BRANCHES: usize = 256;

/// One keyspace's tree.
pub(crate) struct Tree {
    branches: Vec<Option<Box<Branch>>>,
}

/// Leaves, what they add up to, and how many of them are stale.
struct Branch {
    leaves: [Leaf; LEAVES],
    sum: Sum,
    stale: usize,
}

#[derive(Clone, Copy, Default)]
struct Leaf {
    sum: Sum,
    /// Writes submitted so far.
    writes: u64,
    /// Of them, not yet done.
    under_way: u32,
    stale: bool,
    /// The disk knows that it is stale, or will before anything that is written from now on.
    marked: bool,
}

/// A write's part in a leaf, until storage is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeafWrite {
    pub(crate) slot: Slot,
    kind: WriteKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteKind {
    /// Adds to the sum.
    Adds(Sum),
    /// Says that the leaf is stale.
    Marks,
    /// Of a leaf that the disk knows to be stale.
    Silent,
    /// Stores what a rescan found.
    Settles,
}

/// How a rescan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// The leaf was fresh and right.
    AsKnown,
    /// It was stale.
    Fresh(LeafRecord, LeafWrite),
    /// It was fresh and wrong: a bug, or a disk that is not what it was.
    Corrected(LeafRecord, LeafWrite),
    /// Writes came meanwhile.
    Disturbed,
}

impl Tree {
    pub(crate) fn new() -> Tree {
        Tree { branches: (0..BRANCHES).map(|_| None).collect() }
    }

    fn leaf(&self, slot: Slot) -> Option<&Leaf> {
        let branch = self.branches[usize::from(branch_of(slot))].as_ref();
        branch.map(|branch| &branch.leaves[usize::from(slot.0) % LEAVES])
    }

    /// The leaf, and what its branch knows of all of them, to be kept in step by [`Leaf::set`].
    fn leaf_mut(&mut self, slot: Slot) -> (&mut Leaf, Whole<'_>) {
        let branch = self.branches[usize::from(branch_of(slot))].get_or_insert_with(|| {
            Box::new(Branch { leaves: [Leaf::default(); LEAVES], sum: Sum::default(), stale: 0 })
        });
        let Branch { leaves, sum, stale } = &mut **branch;
        (&mut leaves[usize::from(slot.0) % LEAVES], Whole { sum, stale })
    }

    /// What a leaf stands for: all of its keys, once all writes are done. None: stale.
    pub(crate) fn sum(&self, slot: Slot) -> Option<Sum> {
        self.leaf(slot).map_or(Some(Sum::default()), |leaf| (!leaf.stale).then_some(leaf.sum))
    }

    /// What all leaves of a branch stand for. None: one of them is stale.
    pub(crate) fn branch_sum(&self, branch: u8) -> Option<Sum> {
        let branch = self.branches[usize::from(branch)].as_ref();
        branch.map_or(Some(Sum::default()), |branch| (branch.stale == 0).then_some(branch.sum))
    }

    /// How many leaves are stale.
    pub(crate) fn stale(&self) -> usize {
        self.branches.iter().flatten().map(|branch| branch.stale).sum()
    }

    /// What the disk says at the start.
    pub(crate) fn load(&mut self, slot: Slot, record: LeafRecord) {
        let (leaf, whole) = self.leaf_mut(slot);
        if leaf.stale {
            // Written before it was loaded, and marked by that.
            leaf.writes = leaf.writes.max(record.to);
            return;
        }
        leaf.writes = record.to;
        leaf.marked = record.stale;
        leaf.set(whole, record.sum, record.stale || record.from != 0);
    }

    /// A write of a key of `slot` is submitted; `change` is None where its old state is not known.
    /// Answers the record that goes into the write's own batch, as a merge.
    pub(crate) fn change(&mut self, slot: Slot, change: Option<Sum>) -> (Option<LeafRecord>, LeafWrite) {
        let (leaf, whole) = self.leaf_mut(slot);
        let from = leaf.writes;
        leaf.writes += 1;
        leaf.under_way += 1;
        if change.is_none() {
            leaf.set(whole, leaf.sum, true);
        }
        let to = leaf.writes;
        let (record, kind) = match change.filter(|_| !leaf.stale) {
            Some(sum) => (Some(LeafRecord { from, to, sum, stale: false }), WriteKind::Adds(sum)),
            None if leaf.marked => (None, WriteKind::Silent),
            None => (Some(LeafRecord { from, to, sum: Sum::default(), stale: true }), WriteKind::Marks),
        };
        (record, LeafWrite { slot, kind })
    }

    /// Storage is done with a write.
    pub(crate) fn done(&mut self, write: LeafWrite, is_ok: bool) {
        let (leaf, whole) = self.leaf_mut(write.slot);
        assert!(leaf.under_way > 0, "a write of a leaf is done once");
        leaf.under_way -= 1;
        match (write.kind, is_ok) {
            (WriteKind::Adds(sum), true) => {
                let mut all = leaf.sum;
                all.join(sum);
                leaf.set(whole, all, leaf.stale);
            }
            (WriteKind::Marks, true) => leaf.marked = leaf.stale,
            (WriteKind::Silent, true) | (WriteKind::Settles, _) => {}
            // Later writes may have counted on this one.
            (_, false) => {
                leaf.marked = false;
                leaf.set(whole, leaf.sum, true);
            }
        }
    }

    /// The bug of a write that the sum lacks (see `Mutant::TreeForgetsAWrite`).
    pub(crate) fn forget(&mut self, write: LeafWrite) {
        let (leaf, _) = self.leaf_mut(write.slot);
        leaf.under_way -= 1;
    }

    /// Whether it stands for no keys, as a leaf without a record does.
    pub(crate) fn is_blank(&self, slot: Slot) -> bool {
        let is_blank = |leaf: &Leaf| !leaf.stale && leaf.under_way == 0 && leaf.sum == Sum::default();
        self.leaf(slot).is_none_or(is_blank)
    }

    /// The sum is not trusted any more.
    pub(crate) fn doubt(&mut self, slot: Slot) {
        let (leaf, whole) = self.leaf_mut(slot);
        if !leaf.stale {
            leaf.marked = false;
            leaf.set(whole, leaf.sum, true);
        }
    }

    /// A rescan may begin now; answers what [`Tree::settle`] wants to know of it.
    pub(crate) fn begin_rescan(&self, slot: Slot) -> Option<u64> {
        match self.leaf(slot) {
            None => Some(0),
            Some(leaf) => (leaf.under_way == 0).then_some(leaf.writes),
        }
    }

    /// All keys of the slot have been read.
    pub(crate) fn settle(&mut self, slot: Slot, begun: u64, found: Sum) -> Settled {
        let (leaf, whole) = self.leaf_mut(slot);
        if leaf.writes != begun || leaf.under_way > 0 {
            return Settled::Disturbed;
        }
        if !leaf.stale && leaf.sum == found {
            return Settled::AsKnown;
        }
        let was_stale = leaf.stale;
        leaf.marked = false;
        leaf.set(whole, found, false);
        leaf.under_way += 1;
        // It takes the place of all records before it: those say nothing that it does not.
        let record = LeafRecord { from: 0, to: leaf.writes, sum: found, stale: false };
        let write = LeafWrite { slot, kind: WriteKind::Settles };
        if was_stale { Settled::Fresh(record, write) } else { Settled::Corrected(record, write) }
    }
}

/// What a branch knows of all of its leaves.
struct Whole<'a> {
    sum: &'a mut Sum,
    stale: &'a mut usize,
}

impl Leaf {
    /// Changes what it stands for, and what its branch knows.
    fn set(&mut self, whole: Whole<'_>, sum: Sum, stale: bool) {
        whole.sum.join(sum.without(self.sum));
        *whole.stale = *whole.stale + usize::from(stale) - usize::from(self.stale);
        (self.sum, self.stale) = (sum, stale);
    }
}

/// The branch of a slot.
pub(crate) fn branch_of(slot: Slot) -> u8 {
    (slot.0 >> 8) as u8
}

/// The slots of a branch.
pub(crate) fn slots_of(branch: u8) -> impl Iterator<Item = Slot> {
    (0..LEAVES as u16).map(move |leaf| Slot(u16::from(branch) << 8 | leaf))
}

#[cfg(test)]
#[path = "tree_test.rs"]
mod tree_test;
