//! Looking for what is to be collected: heads only, a page at a time, in the order of slots.
//!
//! In: slots that are due, pages of heads. Out: a batch of keys for a round, and what is left in the
//! slots that were looked at. Absent: values; they are never read for this.

use super::RETIRE_FROM;
use super::index::{Noted, Place};
use super::message::{Fate, KEYS_MAX, Subject};
use super::owner::Stage;
use crate::catalog::KeyspaceEntry;
use crate::event::{Effects, ScanPage, StorageFailure};
use crate::id::{KeyspaceId, Millis};
use crate::node::{Node, PageSize, ScanFor};
use crate::ring::Slot;
use crate::storage_key;
use crate::target::Target;
use crate::version::codec;
use bytes::Bytes;
use std::collections::BTreeSet;

/// A page of one slot.
const PAGE_RECORDS_MAX: usize = 512;
const PAGE_BYTES_MAX: usize = 128 << 10;
/// Pages looked at for one batch.
const PAGES_MAX: u32 = 128;
/// Bytes of a batch.
const BATCH_BYTES_MAX: usize = 48 << 10;
/// What a key that still has a value weighs in a batch: every replica reads it once.
const VALUE_WEIGHT_BYTES: usize = 2 << 10;
/// A page of the walk after a boot, one a period.
const BOOT_RECORDS_MAX: usize = 1_024;
const BOOT_BYTES_MAX: usize = 256 << 10;
/// When a slot that a round was held for is looked at again, in periods.
const REST_PERIODS: u64 = 5;

/// What a page of heads is for.
pub(crate) enum FenceScan {
    /// A slot, for a batch.
    Slot(KeyspaceId, Slot),
    /// All keys of a keyspace, after a boot.
    Boot(KeyspaceId),
}

/// A batch being gathered, all of one keyspace.
pub(super) struct Looking {
    keyspace: Option<KeyspaceId>,
    subjects: Vec<Subject>,
    bytes: usize,
    places: BTreeSet<Place>,
    pages: u32,
    /// The slot being looked at: what it holds so far.
    found: Noted,
    pub(super) until: Millis,
}

impl Looking {
    pub(super) fn new(until: Millis) -> Looking {
        Looking {
            keyspace: None,
            subjects: Vec::new(),
            bytes: 0,
            places: BTreeSet::new(),
            pages: 0,
            found: nothing(),
            until,
        }
    }

    fn is_full(&self) -> bool {
        self.subjects.len() >= KEYS_MAX || self.bytes >= BATCH_BYTES_MAX
    }
}

fn nothing() -> Noted {
    Noted { due: Millis(u64::MAX), keys: 0, since: None }
}

impl Node {
    /// Looks at the next slot that is due, or begins a round with what was found.
    pub(super) fn look_on(&mut self, now: Millis, effects: &mut Effects) {
        loop {
            let Stage::Looking(looking) = &mut self.fence.owner.stage else { return };
            let done = looking.is_full() || looking.pages >= PAGES_MAX;
            let next = if done { None } else { self.fence.index.next(now) };
            let Stage::Looking(looking) = &mut self.fence.owner.stage else { return };
            let again = next.is_some_and(|place| looking.places.contains(&place));
            let other =
                next.is_some_and(|(keyspace, _)| looking.keyspace.is_some_and(|mine| mine != keyspace));
            let Some(place) = next.filter(|_| !again && !other) else {
                return self.looked(now, effects);
            };
            if self.keyspaces.by_id(place.0).is_none() {
                self.fence.index.looked_at(place, None);
                continue;
            }
            looking.found = nothing();
            looking.places.insert(place);
            let from = storage_key::object_range(place.0, place.1).0;
            return self.look_at(place, from, effects);
        }
    }

    fn look_at(&mut self, place: Place, from: Bytes, effects: &mut Effects) {
        if let Stage::Looking(looking) = &mut self.fence.owner.stage {
            looking.pages += 1;
        }
        let to = storage_key::object_range(place.0, place.1).1;
        let page = PageSize::heads(PAGE_RECORDS_MAX, PAGE_BYTES_MAX);
        self.scan(ScanFor::Fence(FenceScan::Slot(place.0, place.1)), (from, to), page, effects);
    }

    /// The batch is as large as it gets.
    fn looked(&mut self, now: Millis, effects: &mut Effects) {
        let Stage::Looking(looking) = std::mem::take(&mut self.fence.owner.stage) else { return };
        match looking.keyspace {
            Some(keyspace) => {
                self.begin_fence_round(now, keyspace, looking.subjects, looking.places, effects)
            }
            None => self.fence.owner.waiting_for.clear(),
        }
    }

    /// A page of heads has come.
    pub(crate) fn fence_scanned(
        &mut self,
        now: Millis,
        scan: FenceScan,
        result: Result<ScanPage, StorageFailure>,
        effects: &mut Effects,
    ) {
        match scan {
            FenceScan::Slot(keyspace, slot) => self.slot_scanned(now, (keyspace, slot), result, effects),
            FenceScan::Boot(keyspace) => self.boot_scanned(now, keyspace, result),
        }
    }

    fn slot_scanned(
        &mut self,
        now: Millis,
        place: Place,
        result: Result<ScanPage, StorageFailure>,
        effects: &mut Effects,
    ) {
        let (Some(entry), Ok(page)) = (self.keyspaces.by_id(place.0), result) else {
            self.rest_places(now, &BTreeSet::from([place]));
            return self.look_on(now, effects);
        };
        let Stage::Looking(mut looking) = std::mem::take(&mut self.fence.owner.stage) else { return };
        let mut unseen = page.next;
        for (storage_key, record) in page.entries {
            if looking.is_full() {
                unseen = Some(storage_key);
                break;
            }
            self.consider(now, &entry, &storage_key, &record.head, &mut looking);
        }
        let more = unseen.filter(|_| !looking.is_full() && looking.pages < PAGES_MAX);
        if let Some(from) = more {
            self.fence.owner.stage = Stage::Looking(looking);
            return self.look_at(place, from, effects);
        }
        let mut found = looking.found;
        self.fence.owner.stage = Stage::Looking(looking);
        let cut_short = page_was_cut(&self.fence.owner.stage);
        // A slot not looked at to its end is due again; so is one with something in it, a little later.
        if found.keys > 0 || cut_short {
            found.due = self.rested(now);
        }
        let any = found.keys > 0 || found.due < Millis(u64::MAX);
        self.fence.index.looked_at(place, any.then_some(found));
        self.look_on(now, effects);
    }

    /// Is a key to be collected, now or later?
    fn consider(
        &self,
        now: Millis,
        entry: &std::sync::Arc<KeyspaceEntry>,
        storage_key: &Bytes,
        head: &Bytes,
        looking: &mut Looking,
    ) {
        let Some((keyspace, key)) = storage_key::parse_object(storage_key) else { return };
        let Ok(state) = codec::outline(head) else { return };
        let target = Target::new(entry.clone(), &key);
        if state.kind() != entry.settings.policy.kind() || !self.collects(&target) {
            return;
        }
        let fate = match state.gone_at() {
            Some(at) if at <= now => {
                looking.found.keys += 1;
                let since = at.max(Millis(state.stamp().millis));
                looking.found.since = looking.found.since.min(Some(since)).or(Some(since));
                Fate::Reap
            }
            later => {
                if let Some(at) = later {
                    looking.found.due = looking.found.due.min(at);
                }
                let dead = state.retirable(|actor| self.is_dead_actor(actor));
                if dead.len() < RETIRE_FROM {
                    return;
                }
                looking.found.due = looking.found.due.min(self.rested(now));
                Fate::Retire(dead)
            }
        };
        looking.keyspace = Some(keyspace);
        let outline = codec::record(&state);
        looking.bytes += key.len() + outline.head.len();
        if state.has_values() {
            looking.bytes += VALUE_WEIGHT_BYTES;
        }
        looking.subjects.push(Subject { key, outline, fate });
    }

    /// When a slot that something was found in is looked at again.
    pub(super) fn rested(&self, now: Millis) -> Millis {
        now.after(REST_PERIODS * self.config.collect_period_ms)
    }

    pub(super) fn rest_places(&mut self, now: Millis, places: &BTreeSet<Place>) {
        let until = self.rested(now);
        places.iter().for_each(|place| self.fence.index.rest(*place, until));
    }

    /// One more page of the walk after a boot.
    pub(super) fn boot_walk(&mut self, now: Millis, effects: &mut Effects) {
        let Some(walk) = self.fence.boot.as_ref().filter(|_| !self.fence.booting) else { return };
        let Some(keyspace) = walk.keyspaces.last().copied() else {
            self.fence.boot = None;
            return self.walk_ended(now, effects);
        };
        let from = walk.from.clone().unwrap_or_else(|| storage_key::object_range(keyspace, Slot(0)).0);
        let to = storage_key::object_range(keyspace, Slot(u16::MAX)).1;
        self.fence.booting = true;
        let page = PageSize::heads(BOOT_RECORDS_MAX, BOOT_BYTES_MAX);
        self.scan(ScanFor::Fence(FenceScan::Boot(keyspace)), (from, to), page, effects);
    }

    fn boot_scanned(&mut self, now: Millis, keyspace: KeyspaceId, result: Result<ScanPage, StorageFailure>) {
        self.fence.booting = false;
        let (Some(entry), Ok(page)) = (self.keyspaces.by_id(keyspace), result) else { return };
        if !page.damaged.is_empty() {
            self.fence.roll.walked(None);
        }
        for (storage_key, record) in page.entries {
            let parsed = storage_key::parse_object(&storage_key);
            let (Some((_, key)), Ok(state)) = (parsed, codec::outline(&record.head)) else {
                self.fence.roll.walked(None);
                continue;
            };
            self.fence.roll.walked(Some(&state));
            self.note_collectable(now, &Target::new(entry.clone(), &key), &state);
        }
        let Some(walk) = self.fence.boot.as_mut() else { return };
        if walk.keyspaces.last() != Some(&keyspace) {
            return;
        }
        walk.from = page.next;
        if walk.from.is_none() {
            walk.keyspaces.pop();
        }
    }
}

/// Whether a batch was full before its last slot was looked at to the end.
fn page_was_cut(stage: &Stage) -> bool {
    matches!(stage, Stage::Looking(looking) if looking.is_full() || looking.pages >= PAGES_MAX)
}
