//! What is known in memory of the hints kept for one node: which, how large, since when, and what is
//! under way with each.
//!
//! A hint may be removed only if the target holds all of it. So whatever is stored of a key from the
//! moment at which its hint was last read from disk, or was still being stored then, keeps it:
//!
//! ```text
//!            page asked for       sent          arrived      removal      removed
//!   ────────────┬─────────────────┬──────────────┬────────────┬────────────┬─────▶
//!    a store in flight or begun here: not sent,  │            │ begun here: after the removal
//!    stays for the next pass      └ here: stays ─┘            └ in the log, the hint is a new one
//! ```
//!
//! In: stores, pages, acknowledgements. Out: whether a hint may be sent, and removed. Absent:
//! effects; see `keep` and `home`.

use crate::id::{Millis, NodeId};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Memory and disk that a hint takes beside its state.
const OVERHEAD_BYTES: u64 = 96;
const MINUTE_MS: u64 = 60_000;

/// By which a hint is known here: a hash of its object's storage key, since of a million keys the
/// names alone would be too much. Cut to 128 bits: two keys never meet in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HintId(u128);

impl HintId {
    pub(super) fn of(object: &Bytes) -> HintId {
        let mut first = [0; 16];
        first.copy_from_slice(&blake3::hash(object).as_bytes()[..16]);
        HintId(u128::from_be_bytes(first))
    }
}

#[derive(Clone, Copy)]
struct Held {
    bytes: u32,
    minute: u32,
}

/// A hint on its way.
#[derive(Clone, Copy, Default)]
struct Leaving {
    removing: bool,
    /// Something of the key was stored meanwhile.
    changed: bool,
}

/// The hints for one node.
#[derive(Default)]
pub(super) struct Shelf {
    held: BTreeMap<HintId, Held>,
    bytes: u64,
    /// How many hints are from which minute.
    minutes: BTreeMap<u32, u64>,
    /// Stores whose write is under way.
    storing: BTreeMap<HintId, u32>,
    /// Stores begun or done since the page under way was asked for; None: no page is.
    stored_lately: Option<BTreeSet<HintId>>,
    stored_this_pass: bool,
    leaving: BTreeMap<HintId, Leaving>,
    /// Not kept for want of room.
    pub(super) dropped: u64,
}

impl Shelf {
    pub(super) fn count(&self) -> u64 {
        self.held.len() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Since when, to the minute.
    pub(super) fn oldest(&self) -> Option<Millis> {
        self.minutes.keys().next().map(|minute| Millis(u64::from(*minute) * MINUTE_MS))
    }

    pub(super) fn holds(&self, id: HintId) -> bool {
        self.held.contains_key(&id) || self.storing.contains_key(&id)
    }

    /// Whether there is room for a state of this size.
    pub(super) fn has_room(&self, id: HintId, size_bytes: u64, bytes_max: u64) -> bool {
        let before = self.held.get(&id).map_or(0, |held| u64::from(held.bytes));
        self.bytes - before + size_bytes + OVERHEAD_BYTES <= bytes_max
    }

    /// It is on disk, or will be.
    pub(super) fn count_in(&mut self, id: HintId, size_bytes: u64, since: Millis) {
        let bytes = u32::try_from(size_bytes + OVERHEAD_BYTES).unwrap_or(u32::MAX);
        let minute = u32::try_from(since.0 / MINUTE_MS).unwrap_or(u32::MAX);
        // The oldest time of a key stays, as on disk.
        let minute = self.held.get(&id).map_or(minute, |held| held.minute.min(minute));
        self.count_out(id);
        self.held.insert(id, Held { bytes, minute });
        self.bytes += u64::from(bytes);
        *self.minutes.entry(minute).or_default() += 1;
    }

    fn count_out(&mut self, id: HintId) {
        let Some(Held { bytes, minute }) = self.held.remove(&id) else { return };
        self.bytes -= u64::from(bytes);
        if let Some(count) = self.minutes.get_mut(&minute) {
            *count -= 1;
            if *count == 0 {
                self.minutes.remove(&minute);
            }
        }
    }

    /// A store begins.
    pub(super) fn store(&mut self, id: HintId, size_bytes: u64, since: Millis) {
        self.touch(id);
        self.count_in(id, size_bytes, since);
        *self.storing.entry(id).or_default() += 1;
    }

    /// It is done, or has failed.
    pub(super) fn stored(&mut self, id: HintId) {
        self.touch(id);
        if let Some(count) = self.storing.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.storing.remove(&id);
            }
        }
    }

    /// A marker is wanted. Whether it must be written: a marker that is there says it already.
    pub(super) fn wants_marker(&mut self, id: HintId) -> bool {
        self.touch(id);
        !self.held.contains_key(&id) || self.leaving.get(&id).is_some_and(|leaving| leaving.removing)
    }

    fn touch(&mut self, id: HintId) {
        self.stored_this_pass = true;
        if let Some(stored_lately) = &mut self.stored_lately {
            stored_lately.insert(id);
        }
        if let Some(leaving) = self.leaving.get_mut(&id) {
            leaving.changed = true;
        }
    }

    /// All hints are about to be looked at, page by page.
    pub(super) fn pass_begins(&mut self) {
        self.stored_this_pass = false;
    }

    /// A page is asked for.
    pub(super) fn page_begins(&mut self) {
        self.stored_lately = Some(BTreeSet::new());
    }

    /// Every hint of the page was sent, or will not be.
    pub(super) fn page_ends(&mut self) {
        self.stored_lately = None;
    }

    /// A hint read with the last page is about to be sent: whether what was read is all there is.
    pub(super) fn leave(&mut self, id: HintId) -> bool {
        // One that is not held was removed after the page was read.
        let settled = self.held.contains_key(&id)
            && !self.storing.contains_key(&id)
            && self.stored_lately.as_ref().is_some_and(|stored| !stored.contains(&id))
            && !self.leaving.contains_key(&id);
        if settled {
            self.leaving.insert(id, Leaving::default());
        }
        settled
    }

    /// It was not taken in.
    pub(super) fn stay(&mut self, id: HintId) {
        self.leaving.remove(&id);
    }

    /// It has arrived and is about to be removed: whether it may be.
    pub(super) fn remove(&mut self, id: HintId) -> bool {
        match self.leaving.get_mut(&id) {
            Some(leaving) if !leaving.changed => {
                leaving.removing = true;
                true
            }
            _ => {
                self.leaving.remove(&id);
                false
            }
        }
    }

    /// Its removal is durable, or has failed.
    pub(super) fn removed(&mut self, id: HintId, is_durable: bool) {
        if self.leaving.remove(&id).is_some_and(|leaving| is_durable && !leaving.changed) {
            self.count_out(id);
        }
    }

    /// A pass found nothing on disk: unless something was stored meanwhile, what is counted here are
    /// writes that failed.
    pub(super) fn found_empty(&mut self) {
        if !self.stored_this_pass && self.storing.is_empty() && self.leaving.is_empty() {
            self.held.clear();
            self.minutes.clear();
            self.bytes = 0;
        }
    }
}

/// All shelves, by target.
pub(super) type Shelves = BTreeMap<NodeId, Shelf>;
