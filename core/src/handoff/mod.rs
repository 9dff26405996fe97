//! Hinted handoff: what is kept for a node that cannot be reached, and brought home when it can be.
//!
//! ```text
//!   a primary is down or silent ─▶ its stand-in, the next node of the walk, keeps the whole raw
//!                                  state for it as a hint, durable before it counts     keep
//!   no stand-in is left         ─▶ the coordinator, a primary itself, keeps a marker
//!   no primary is reachable     ─▶ a stand-in coordinates; its copy is its hints        gather
//!   the primary is back         ─▶ hints go home, and are removed once they are durable there   home
//! ```
//!
//! A hint is never the last word about a key and never older news that wins: it arrives as any
//! replicated state does and is synced (riak_kv#847). In: states of coordinators, time, answers of
//! storage and targets. Out: durable hints, and their way home. Absent: who stands in when; that is
//! the coordinator's.

mod gather;
mod home;
mod keep;
mod record;
mod shelf;

pub(crate) use gather::Wanted;
pub(crate) use home::PassOf;
pub(crate) use record::fold;
pub use record::{Hint, hint, record};
pub(crate) use shelf::HintId;

use crate::budget::Budget;
use crate::event::{Effects, Record, ScanPage, StorageFailure};
use crate::id::{Millis, NodeId, OpId};
use crate::node::{Node, PageSize, ScanFor};
use crate::storage_key;
use crate::target::Target;
use bytes::Bytes;
use gather::Gather;
use home::{Leaving, Pass};
use shelf::Shelves;
use std::collections::BTreeMap;

/// Heads of a page while hints are counted at the start.
const COUNT_RECORDS_MAX: usize = 4_096;
const COUNT_BYTES_MAX: usize = 4 << 20;

/// All that a node knows of the hints it keeps.
#[derive(Default)]
pub(crate) struct Hints {
    shelves: Shelves,
    /// Those from before the start are counted.
    counted: bool,
    is_counting: bool,
    /// Of those that are being counted some cannot be read.
    is_damaged: bool,
    passes: BTreeMap<NodeId, Pass>,
    passes_begun: u64,
    /// When a target is next looked at.
    rests: BTreeMap<NodeId, Millis>,
    leaving: BTreeMap<OpId, Leaving>,
    budget: Budget,
    wake_at: Option<Millis>,
    gathers: BTreeMap<OpId, Gather>,
    /// The last dots issued as a stand-in, by object: see [`Node::previous_as_stand_in`].
    last_dots: BTreeMap<Bytes, u64>,
    /// Hints that their target cannot take in with what it holds, and until when they are not sent again.
    too_large: BTreeMap<(NodeId, HintId), Millis>,
}

/// What an answer of storage is for.
pub(crate) enum HintTask {
    /// One target's hint of a key, of those gathered.
    Part(OpId),
    /// What a marker stands for.
    Own(OpId, Box<Target>),
    /// Hints that went home.
    Removed(NodeId, Vec<HintId>),
}

/// The hints kept for one node, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HintView {
    /// For whom.
    pub target: NodeId,
    /// Keys.
    pub count: u64,
    /// About what they take, on disk and in memory.
    pub bytes: u64,
    /// Age of the oldest, to the minute.
    pub oldest_ms: Option<u64>,
    /// What becomes of them.
    pub state: HintState,
    /// Hints that there was no room for since the start; repair takes over.
    pub dropped: u64,
}

/// What becomes of hints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HintState {
    /// For the target to come back.
    Waiting,
    /// They are on their way.
    GoingHome,
}

impl Node {
    /// The hints that this node keeps, by target.
    pub fn hints(&self, now: Millis) -> Vec<HintView> {
        let view = |(target, shelf): (&NodeId, &shelf::Shelf)| HintView {
            target: *target,
            count: shelf.count(),
            bytes: shelf.bytes(),
            oldest_ms: shelf.oldest().map(|oldest| now.since(oldest)),
            state: match self.hints.passes.contains_key(target) && self.is_reachable(*target) {
                true => HintState::GoingHome,
                false => HintState::Waiting,
            },
            dropped: shelf.dropped,
        };
        let told = |shelf: &shelf::Shelf| !shelf.is_empty() || shelf.dropped > 0;
        self.hints.shelves.iter().filter(|(_, shelf)| told(shelf)).map(view).collect()
    }

    /// Hints kept for all nodes together.
    pub(crate) fn hint_totals(&self) -> (u64, u64) {
        let shelves = self.hints.shelves.values();
        shelves.fold((0, 0), |(count, bytes), shelf| (count + shelf.count(), bytes + shelf.bytes()))
    }

    /// Whether this node may hold a hint of an object, for whomever. Never false while one is on disk
    /// or on its way there; true for all until those from before the start are counted.
    pub(crate) fn holds_hint(&self, object: &Bytes) -> bool {
        let id = HintId::of(object);
        !self.hints.counted || self.hints.shelves.values().any(|shelf| shelf.holds(id))
    }

    /// Whether it may be keeping any hint at all.
    pub(crate) fn keeps_any_hint(&self) -> bool {
        !self.hints.counted || self.hints.shelves.values().any(|shelf| !shelf.is_empty())
    }

    /// Storage has read something of hints.
    pub(crate) fn hint_task_read(
        &mut self,
        now: Millis,
        task: HintTask,
        result: Result<Option<Record>, StorageFailure>,
        effects: &mut Effects,
    ) {
        match task {
            HintTask::Part(gather) => self.hint_part_read(now, gather, result, effects),
            HintTask::Own(op, of) => self.marker_read(now, op, &of, result, effects),
            HintTask::Removed(..) => {}
        }
    }

    /// Counts what is kept from before the start; then hints may go home.
    pub(crate) fn count_hints(&mut self, from: Option<Bytes>, effects: &mut Effects) {
        let (first, to) = storage_key::hints_all();
        self.hints.is_damaged &= from.is_some();
        let from = from.unwrap_or(first);
        self.hints.is_counting = true;
        let page = PageSize::heads(COUNT_RECORDS_MAX, COUNT_BYTES_MAX);
        self.scan(ScanFor::HintCount, (from, to), page, effects);
    }

    /// A page of heads has come.
    pub(crate) fn hints_counted(
        &mut self,
        now: Millis,
        result: Result<ScanPage, StorageFailure>,
        effects: &mut Effects,
    ) {
        self.hints.is_counting = false;
        let Ok(page) = result else { return self.wake_hints(now.after(self.config.hint_period_ms)) };
        for (storage_key, Record { head, .. }) in page.entries {
            let Some((target, object)) = storage_key::parse_hint(&storage_key) else { continue };
            // What does not decode is counted too: it is dropped, and said so, on its way home.
            let (size_bytes, since) =
                record::facts(&head).map_or((0, now), |facts| (facts.size_bytes, facts.since));
            let shelf = self.hints.shelves.entry(target).or_default();
            shelf.count_in(HintId::of(&object), size_bytes + object.len() as u64, since);
        }
        // Hints that are newer than the damage may be hidden by it: once it is given up, all are counted again.
        self.hints.is_damaged |= !page.damaged.is_empty();
        self.damage_told(now, page.damaged.clone());
        self.report_damaged(page.damaged, effects);
        match page.next {
            Some(next) => self.count_hints(Some(next), effects),
            None => {
                self.hints.counted = !self.hints.is_damaged;
                let at = if self.hints.counted { now } else { now.after(self.config.hint_period_ms) };
                self.wake_hints(at);
            }
        }
    }

    /// Hints in a damaged range are gone; repair finds what they were for.
    pub(crate) fn report_damaged(&mut self, damaged: Vec<(Bytes, Bytes)>, effects: &mut Effects) {
        for (from, to) in damaged {
            self.corrupt_record(from, format!("hints up to {} cannot be read", to.escape_ascii()), effects);
        }
    }
}

#[cfg(test)]
mod handoff_test;
