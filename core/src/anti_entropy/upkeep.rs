//! The trees kept up to date: by every write, by a scan of all leaves at the start, by rescans of leaves
//! that are stale.
//!
//! In: writes of objects and what became of them, pages of scans. Out: the records of leaves that go with
//! the objects. Absent: what is compared with whom; see `exchange`.

use super::leaf::{LeafRecord, Share, Sum};
use super::shared::Stretch;
use super::tree::{LeafWrite, Settled, Tree};
use crate::event::{Durability, Effect, Effects, Notice, ScanPage, StorageFailure, WriteOp};
use crate::id::{KeyspaceId, Millis};
use crate::mutant::Mutant;
use crate::node::{Node, PageSize, Purpose, ScanFor, Timer};
use crate::ring::Slot;
use crate::storage_key;
use crate::target::Target;
use crate::version::codec;
use bytes::Bytes;

/// What a scan weighs beside the heads that it reads.
const SCAN_COST_BYTES: usize = 1 << 10;
/// Records of a page of leaves, or of heads for a rescan: some hundreds of microseconds of this node's time.
pub(super) const PAGE_RECORDS: usize = 512;
pub(super) const PAGE_BYTES: usize = 256 << 10;
/// How often a rescan that writes disturbed begins anew at once.
const RESCANS_MAX: u32 = 3;
/// How long after a failed scan of the leaves it is tried again.
pub(super) const LOAD_RETRY_MS: u64 = 1_000;

/// A leaf's part in a batch, until storage is done with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TreeWrite {
    keyspace: KeyspaceId,
    write: LeafWrite,
}

/// The keys of some slots being read anew, in one scan.
pub(crate) struct Rescan {
    keyspace: KeyspaceId,
    /// In order; when each was begun, and what its keys add up to so far.
    slots: Vec<(Slot, u64, Sum)>,
    tries: u32,
    to: Bytes,
}

impl Node {
    /// A write of a key is about to be submitted, which takes it from `old` to `new`. Answers what goes into
    /// the same batch, and what [`Node::tree_written`] is told when storage is done with it.
    pub(crate) fn tree_change(
        &mut self,
        target: &Target,
        old: Share,
        new: Share,
    ) -> (Option<WriteOp>, TreeWrite) {
        self.tree_writes(target, Some(Sum::change(old, new)))
    }

    /// As [`Node::tree_change`], where nobody knows what the key was before: its leaf turns stale.
    pub(crate) fn tree_change_unread(&mut self, target: &Target) -> (Option<WriteOp>, TreeWrite) {
        self.tree_writes(target, None)
    }

    fn tree_writes(&mut self, target: &Target, change: Option<Sum>) -> (Option<WriteOp>, TreeWrite) {
        let (keyspace, slot) = (target.entry.id, target.token.slot());
        let tree = self.anti_entropy.trees.entry(keyspace).or_insert_with(Tree::new);
        if !self.anti_entropy.loaded {
            tree.doubt(slot);
        }
        let (record, write) = tree.change(slot, change);
        (record.map(|leaf| merge_leaf(keyspace, slot, leaf)), TreeWrite { keyspace, write })
    }

    /// The leaf of a slot turns stale, on the disk, too, though no key of it is written. None: it was so, or stands for
    /// no keys.
    pub(super) fn tree_doubt(&mut self, keyspace: KeyspaceId, slot: Slot) -> Option<(WriteOp, TreeWrite)> {
        let tree = self.anti_entropy.trees.entry(keyspace).or_insert_with(Tree::new);
        if !self.anti_entropy.loaded {
            tree.doubt(slot);
        } else if tree.is_blank(slot) {
            return None;
        }
        let (record, write) = tree.change(slot, None);
        let Some(leaf) = record else {
            tree.done(write, true);
            return None;
        };
        Some((merge_leaf(keyspace, slot, leaf), TreeWrite { keyspace, write }))
    }

    /// Storage is done with a batch.
    pub(crate) fn tree_written(&mut self, write: TreeWrite, is_ok: bool) {
        if self.mutant(Mutant::TreeForgetsAWrite) && write.write.slot.0.is_multiple_of(3) {
            return self.tree_forgets(write);
        }
        if let Some(tree) = self.anti_entropy.trees.get_mut(&write.keyspace) {
            tree.done(write.write, is_ok);
        }
    }

    /// The bug of a write that the tree does not hear of (see `Mutant::TreeForgetsAWrite`).
    fn tree_forgets(&mut self, write: TreeWrite) {
        if let Some(tree) = self.anti_entropy.trees.get_mut(&write.keyspace) {
            tree.forget(write.write);
        }
    }

    /// What this node's tree says of a slot; None if it does not know at this moment. For checks.
    pub fn leaf(&self, keyspace: KeyspaceId, slot: Slot) -> Option<Sum> {
        if !self.anti_entropy.loaded {
            return None;
        }
        self.anti_entropy.trees.get(&keyspace).map_or(Some(Sum::default()), |tree| tree.sum(slot))
    }

    /// Leaves whose sum is not known.
    pub(crate) fn stale_leaves(&self) -> usize {
        self.anti_entropy.trees.values().map(Tree::stale).sum()
    }

    /// Reads the leaves that the disk has.
    pub(crate) fn load_leaves(&mut self, effects: &mut Effects) {
        let (from, to) = storage_key::leaves();
        self.scan_leaves(from, to, effects);
    }

    fn scan_leaves(&mut self, from: Bytes, to: Bytes, effects: &mut Effects) {
        let page = PageSize::heads(PAGE_RECORDS, PAGE_BYTES);
        self.scan(ScanFor::Leaves { to: to.clone() }, (from, to), page, effects);
    }

    /// Some leaves have come.
    pub(crate) fn leaves_scanned(
        &mut self,
        now: Millis,
        to: Bytes,
        result: Result<ScanPage, StorageFailure>,
        effects: &mut Effects,
    ) {
        let Ok(page) = result else {
            self.set_timer(now.after(LOAD_RETRY_MS), Timer::LoadLeaves);
            return;
        };
        for (key, record) in &page.entries {
            let Some((keyspace, slot)) = storage_key::parse_leaf(key) else { continue };
            let tree = self.anti_entropy.trees.entry(keyspace).or_insert_with(Tree::new);
            match LeafRecord::decode(record) {
                Ok(leaf) => tree.load(slot, leaf),
                Err(malformed) => {
                    tree.doubt(slot);
                    self.corrupt_record(key.clone(), malformed.to_string(), effects);
                }
            }
        }
        self.anti_entropy.lost_leaves.extend(page.damaged);
        match page.next {
            Some(from) => self.scan_leaves(from, to, effects),
            None => self.doubt_lost_leaves(effects),
        }
    }

    /// Reads the keys of slots, which are in order, to know what their leaves stand for. Answers for which it
    /// has begun; under the others writes are under way.
    pub(super) fn rescan(
        &mut self,
        keyspace: KeyspaceId,
        slots: &[Slot],
        tries: u32,
        effects: &mut Effects,
    ) -> Vec<Slot> {
        let tree = self.anti_entropy.trees.entry(keyspace).or_insert_with(Tree::new);
        let begun = |slot: &Slot| Some((*slot, tree.begin_rescan(*slot)?, Sum::default()));
        let slots: Vec<_> = slots.iter().filter_map(begun).collect();
        let began = slots.iter().map(|(slot, ..)| *slot).collect();
        if let (Some((first, ..)), Some((last, ..))) = (slots.first(), slots.last()) {
            let (from, to) = Stretch { first: *first, last: *last }.objects(keyspace);
            self.rescan_from(from, Rescan { keyspace, slots, tries, to }, effects);
        }
        began
    }

    fn rescan_from(&mut self, from: Bytes, rescan: Rescan, effects: &mut Effects) {
        let to = rescan.to.clone();
        let page = PageSize::heads(PAGE_RECORDS, PAGE_BYTES);
        self.scan(ScanFor::Leaf(rescan), (from, to), page, effects);
    }

    /// Some keys of slots have come.
    pub(crate) fn leaf_scanned(
        &mut self,
        now: Millis,
        mut rescan: Rescan,
        result: Result<ScanPage, StorageFailure>,
        effects: &mut Effects,
    ) {
        let page = match result {
            Ok(page) if page.damaged.is_empty() => page,
            // The sum of what can be read stands for nothing.
            _ => {
                let slots: Vec<Slot> = rescan.slots.iter().map(|(slot, ..)| *slot).collect();
                return self.rescanned(now, rescan.keyspace, &slots, effects);
            }
        };
        let bytes: usize = page.entries.iter().map(|(key, record)| key.len() + record.head.len()).sum();
        self.anti_entropy.scan_budget.spend(bytes + SCAN_COST_BYTES);
        for (storage_key, record) in &page.entries {
            let slot = storage_key::slot_of(storage_key);
            let sum = rescan.slots.iter_mut().find(|(of, ..)| Some(*of) == slot).map(|(.., sum)| sum);
            match (storage_key::parse_object(storage_key), codec::outline(&record.head), sum) {
                (Some((_, key)), Ok(state), Some(sum)) => sum.add(Share::of(&key, &state)),
                (_, Err(malformed), _) => {
                    self.corrupt_record(storage_key.clone(), malformed.to_string(), effects);
                }
                _ => {}
            }
        }
        if let Some(next) = page.next {
            return self.rescan_from(next, rescan, effects);
        }
        let Rescan { keyspace, slots, tries, .. } = rescan;
        let (mut done, mut disturbed) = (Vec::new(), Vec::new());
        for (slot, begun, sum) in slots {
            let settled = self.settle_leaf(keyspace, slot, begun, sum, effects);
            if settled || tries >= RESCANS_MAX { done.push(slot) } else { disturbed.push(slot) }
        }
        let again = self.rescan(keyspace, &disturbed, tries + 1, effects);
        done.extend(disturbed.into_iter().filter(|slot| !again.contains(slot)));
        self.rescanned(now, keyspace, &done, effects);
    }

    /// What the keys of a slot add up to; whether that counts.
    pub(super) fn settle_leaf(
        &mut self,
        keyspace: KeyspaceId,
        slot: Slot,
        begun: u64,
        sum: Sum,
        effects: &mut Effects,
    ) -> bool {
        let Some(tree) = self.anti_entropy.trees.get_mut(&keyspace) else { return false };
        let (record, write) = match tree.settle(slot, begun, sum) {
            Settled::AsKnown => return true,
            Settled::Disturbed => return false,
            Settled::Fresh(record, write) => (record, write),
            Settled::Corrected(record, write) => {
                effects.push(Effect::Notice(Notice::LeafCorrected { keyspace, slot }));
                (record, write)
            }
        };
        self.counters.leaves_rescanned += 1;
        let op = WriteOp::Put { key: storage_key::leaf(keyspace, slot), record: record.record() };
        let ticket = self.ticket(Purpose::Leaf(TreeWrite { keyspace, write }));
        effects.push(Effect::Write { ticket, ops: vec![op], durability: Durability::None });
        true
    }
}

fn merge_leaf(keyspace: KeyspaceId, slot: Slot, leaf: LeafRecord) -> WriteOp {
    WriteOp::Merge { key: storage_key::leaf(keyspace, slot), record: leaf.record() }
}
