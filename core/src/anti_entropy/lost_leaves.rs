//! Leaves whose records cannot be read: which of them stood for any keys?
//!
//! ```text
//!   at the start: ranges of records ─▶ the keys of their slots, heads only ─▶ each slot with a key: stale ─▶ loaded
//!   while it runs: memory knows
//! ```
//!
//! A slot without a record has no keys, so nothing is lost of a leaf that stood for none; a range of sparse records spans thousands of those.
//! Keys that cannot be read themselves turn their leaves stale when they are written anew.
//!
//! In: ranges, pages. Out: leaves that are stale. Absent: how those are worked out anew; see `rescans`.

use super::tree::Tree;
use super::upkeep::{LOAD_RETRY_MS, PAGE_BYTES, PAGE_RECORDS};
use crate::event::{Effects, ScanPage, StorageFailure};
use crate::id::{KeyspaceId, Millis};
use crate::node::{Node, PageSize, ScanFor, Timer};
use crate::ring::Slot;
use crate::storage_key;
use bytes::Bytes;

/// Slots of one keyspace, whose keys are being read.
pub(crate) struct LostLeaves {
    keyspace: KeyspaceId,
    /// The storage key after the last one.
    to: Bytes,
    /// Of other keyspaces: yet to be read.
    todo: Vec<(KeyspaceId, Slot, Slot)>,
}

impl Node {
    /// All leaves that can be read are loaded: now for the others.
    pub(super) fn doubt_lost_leaves(&mut self, effects: &mut Effects) {
        let ranges = std::mem::take(&mut self.anti_entropy.lost_leaves);
        let mut todo = Vec::new();
        for keyspace in self.catalog().keyspaces.values().map(|entry| entry.id) {
            for (from, to) in &ranges {
                let mut slots = Slot::all().filter(|slot| {
                    let key = storage_key::leaf(keyspace, *slot);
                    *from <= key && key < *to
                });
                if let Some(first) = slots.next() {
                    todo.push((keyspace, first, slots.last().unwrap_or(first)));
                }
            }
        }
        self.next_lost_leaves(todo, effects);
    }

    fn next_lost_leaves(&mut self, mut todo: Vec<(KeyspaceId, Slot, Slot)>, effects: &mut Effects) {
        let Some((keyspace, first, last)) = todo.pop() else {
            self.anti_entropy.loaded = true;
            return;
        };
        let from = storage_key::object_range(keyspace, first).0;
        let to = storage_key::object_range(keyspace, last).1;
        self.scan_lost_leaves(from, LostLeaves { keyspace, to, todo }, effects);
    }

    fn scan_lost_leaves(&mut self, from: Bytes, lost: LostLeaves, effects: &mut Effects) {
        let to = lost.to.clone();
        let page = PageSize::heads(PAGE_RECORDS, PAGE_BYTES);
        self.scan(ScanFor::LostLeaves(lost), (from, to), page, effects);
    }

    /// Some keys of the slots have come.
    pub(crate) fn lost_leaves_scanned(
        &mut self,
        now: Millis,
        lost: LostLeaves,
        result: Result<ScanPage, StorageFailure>,
        effects: &mut Effects,
    ) {
        let Ok(page) = result else {
            // From the start: leaves that are loaded twice are the same.
            self.set_timer(now.after(LOAD_RETRY_MS), Timer::LoadLeaves);
            return;
        };
        let tree = self.anti_entropy.trees.entry(lost.keyspace).or_insert_with(Tree::new);
        page.entries
            .iter()
            .filter_map(|(key, _)| storage_key::slot_of(key))
            .for_each(|slot| tree.doubt(slot));
        match page.next {
            Some(next) => self.scan_lost_leaves(next, lost, effects),
            None => self.next_lost_leaves(lost.todo, effects),
        }
    }

    /// Leaves of this range of records are about to be lost. Answers the storage keys of those that stand for keys: they are stale.
    pub(super) fn doubt_leaves(&mut self, from: &Bytes, to: &Bytes) -> Vec<Bytes> {
        let mut doubted = Vec::new();
        for (keyspace, tree) in &mut self.anti_entropy.trees {
            for slot in Slot::all().filter(|slot| !tree.is_blank(*slot)).collect::<Vec<_>>() {
                let key = storage_key::leaf(*keyspace, slot);
                if *from <= key && key < *to {
                    tree.doubt(slot);
                    doubted.push(key);
                }
            }
        }
        doubted
    }
}
