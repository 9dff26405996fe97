//! Hints go home.
//!
//! ```text
//!   target reachable ─▶ page of hints ─▶ Replicate{op} ─▶ durable there ─▶ removed, durably
//!                          ▲   within a window and at a pace ┘                 │
//!                          └────────────── next page, next pass ◀──────────────┘
//! ```
//!
//! A hint that is too old goes to all other primaries instead, one after the other, and then they are the
//! ones to repair the target: a state may be one of few copies of an acknowledged write, so it is never just
//! dropped. In:
//! time, pages, acknowledgements. Out: states as ordinary replication, removals. Absent: how a
//! target takes a state in; that a target is up.

use super::record::{self, Hint};
use super::shelf::HintId;
use super::{HintTask, Hints};
use crate::budget::KEY_COST_BYTES;
use crate::event::{Durability, Effect, Effects, Notice, Record, ScanPage, StorageFailure, WriteOp};
use crate::id::{Millis, NodeId, OpId};
use crate::message::{Message, Refusal};
use crate::mutant::Mutant;
use crate::node::{Node, PageSize, Purpose, ScanFor, Timer};
use crate::storage_key;
use crate::target::Target;
use crate::version::codec;
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};

/// A page of hints.
const PAGE_RECORDS_MAX: usize = 256;
const PAGE_BYTES_MAX: usize = 1 << 20;
/// After so long without an acknowledgement a hint stays for the next pass.
const PATIENCE_MS: u64 = 5_000;
/// How long a target that refused or did not answer is left alone.
const REST_MS: u64 = 2_000;
/// How long a hint rests that its target cannot take in, since both together are more than a record holds …
const TOO_LARGE_MS: u64 = 600_000;
/// … and the target's passes, which would find nothing else …
const TOO_LARGE_PASS_MS: u64 = 10_000;
/// … and how many such hints are remembered.
const TOO_LARGE_MAX: usize = 1_024;
/// How often it is looked whether old hints can be given up.
const GIVE_UP_PERIOD_MS: u64 = 60_000;
/// Removals of one write.
const REMOVALS_MAX: usize = 64;

/// Tells a pass from those before it, and from those for other targets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PassOf {
    target: NodeId,
    number: u64,
}

/// All hints for one target, looked at once.
pub(super) struct Pass {
    /// Tells it from those before it.
    number: u64,
    /// Only those that are too old, to whoever else may have them.
    gives_up: bool,
    /// Where the next page begins; None: there is none.
    next: Option<Bytes>,
    is_scanning: bool,
    page: VecDeque<(Bytes, Record)>,
    found_any: bool,
    arrived: Vec<(HintId, Bytes)>,
}

/// A hint on its way.
pub(super) struct Leaving {
    target: NodeId,
    to: NodeId,
    id: HintId,
    storage_key: Bytes,
    gives_up: bool,
    since: Millis,
    /// Of a hint that is given up: who else is to have it before it is removed.
    then: Vec<NodeId>,
    state: Option<(Target, Record)>,
}

impl Hints {
    /// Hints on their way from passes for `target`.
    fn under_way(&self, target: NodeId) -> usize {
        self.leaving.values().filter(|leaving| leaving.target == target).count()
    }
}

impl Node {
    /// Hints are looked at no later than `at`.
    pub(super) fn wake_hints(&mut self, at: Millis) {
        if self.hints.wake_at.is_none_or(|before| at < before) {
            if let Some(before) = self.hints.wake_at {
                self.clear_timer(before, Timer::Hints);
            }
            self.hints.wake_at = Some(at);
            self.set_timer(at, Timer::Hints);
        }
    }

    /// A link to `peer` has come up.
    pub(crate) fn hints_may_go_home(&mut self, now: Millis, peer: NodeId) {
        if let Some(shelf) = self.hints.shelves.get(&peer)
            && !shelf.is_empty()
        {
            self.hints.rests.remove(&peer);
            self.wake_hints(now);
        }
    }

    /// Time has passed.
    pub(crate) fn hints_period(&mut self, now: Millis, effects: &mut Effects) {
        self.hints.wake_at = None;
        if !self.hints.counted {
            if !self.hints.is_counting {
                self.count_hints(None, effects);
            }
            return self.wake_hints(now.after(self.config.hint_period_ms));
        }
        // What an old disk keeps for others never leaves it.
        if !self.membership.is_serving() {
            return self.wake_hints(now.after(self.config.hint_period_ms));
        }
        let is_late = |leaving: &&Leaving| now.since(leaving.since) >= PATIENCE_MS;
        let late: BTreeSet<NodeId> =
            self.hints.leaving.values().filter(is_late).map(|leaving| leaving.target).collect();
        late.into_iter().for_each(|target| self.leave_alone(now, target));
        let targets: Vec<NodeId> = self
            .hints
            .shelves
            .iter()
            .filter(|(target, shelf)| !shelf.is_empty() || self.hints.passes.contains_key(target))
            .map(|(target, _)| *target)
            .collect();
        for target in &targets {
            self.begin_pass(now, *target);
            self.go_home(now, *target, effects);
        }
        if !targets.is_empty() {
            self.wake_hints(now.after(self.config.hint_period_ms));
        }
    }

    fn begin_pass(&mut self, now: Millis, target: NodeId) {
        let rests = self.hints.rests.get(&target).is_some_and(|until| *until > now);
        let is_home = self.is_reachable(target) && self.ring.nodes().iter().any(|node| node.id == target);
        if let Some(pass) = self.hints.passes.get(&target)
            && (is_home || pass.gives_up)
        {
            return;
        }
        // It went away: what is on its way stays, and so does the rest of the page.
        self.end_pass(target);
        let Some(shelf) = self.hints.shelves.get_mut(&target) else { return };
        let is_old = shelf.oldest().is_some_and(|oldest| now.since(oldest) > self.config.hint_age_ms_max);
        if rests || shelf.is_empty() || !(is_home || is_old) {
            return;
        }
        shelf.pass_begins();
        self.hints.passes_begun += 1;
        let pass = Pass {
            number: self.hints.passes_begun,
            gives_up: !is_home,
            next: Some(storage_key::hints(target).0),
            is_scanning: false,
            page: VecDeque::new(),
            found_any: false,
            arrived: Vec::new(),
        };
        let rest_ms = if is_home { self.config.hint_period_ms } else { GIVE_UP_PERIOD_MS };
        self.hints.rests.insert(target, now.after(rest_ms));
        self.hints.passes.insert(target, pass);
    }

    /// A target cannot take its hints in now.
    fn leave_alone(&mut self, now: Millis, target: NodeId) {
        self.end_pass(target);
        self.hints.rests.insert(target, now.after(REST_MS));
    }

    /// The next pass begins no earlier.
    fn rest_after(&mut self, now: Millis, target: NodeId, rest_ms: u64) {
        let until = self.hints.rests.entry(target).or_insert(now);
        *until = (*until).max(now.after(rest_ms));
    }

    fn end_pass(&mut self, target: NodeId) {
        let Some(pass) = self.hints.passes.remove(&target) else { return };
        let under_way: Vec<OpId> =
            self.hints.leaving.iter().filter(|(_, it)| it.target == target).map(|(op, _)| *op).collect();
        under_way.into_iter().for_each(|op| self.hint_stays(op));
        if let Some(shelf) = self.hints.shelves.get_mut(&target) {
            pass.arrived.iter().for_each(|(id, _)| shelf.stay(*id));
            shelf.page_ends();
        }
    }

    /// Sends what may be sent, and asks for the next page.
    fn go_home(&mut self, now: Millis, target: NodeId, effects: &mut Effects) {
        loop {
            let window = self.hints.under_way(target) < self.config.hint_window;
            let Some(pass) = self.hints.passes.get_mut(&target) else { return };
            if pass.is_scanning {
                return;
            }
            if pass.page.is_empty() {
                let Some(from) = pass.next.take() else { break };
                pass.is_scanning = true;
                let of = PassOf { target, number: pass.number };
                return self.ask_page(of, from, effects);
            }
            if !window {
                return;
            }
            let rate = self.unhurried(now, self.config.hint_rate_bytes_per_s);
            if let Err(at) = self.hints.budget.ask(now, rate) {
                return self.wake_hints(at);
            }
            let Some(pass) = self.hints.passes.get_mut(&target) else { return };
            let gives_up = pass.gives_up;
            if let Some((storage_key, record)) = pass.page.pop_front() {
                self.send_hint(now, target, gives_up, storage_key, &record, effects);
            }
        }
        // Every page was sent: the pass ends with the last acknowledgement.
        if self.hints.under_way(target) == 0 {
            self.remove_arrived(target, effects);
            let found_any = self.hints.passes.get(&target).is_some_and(|pass| pass.found_any);
            self.end_pass(target);
            if let Some(shelf) = self.hints.shelves.get_mut(&target)
                && !found_any
            {
                shelf.found_empty();
            }
        }
    }

    fn ask_page(&mut self, of: PassOf, from: Bytes, effects: &mut Effects) {
        let target = of.target;
        if let Some(shelf) = self.hints.shelves.get_mut(&target) {
            shelf.page_begins();
        }
        let (_, to) = storage_key::hints(target);
        let page = PageSize::records(PAGE_RECORDS_MAX, PAGE_BYTES_MAX);
        self.scan(ScanFor::HintsHome(of), (from, to), page, effects);
    }

    /// A page of hints has come. One of a pass that has ended says nothing of what was stored since.
    pub(crate) fn hints_scanned(
        &mut self,
        now: Millis,
        PassOf { target, number }: PassOf,
        result: Result<ScanPage, StorageFailure>,
        effects: &mut Effects,
    ) {
        let Some(pass) = self.hints.passes.get_mut(&target) else { return };
        if pass.number != number || !pass.is_scanning {
            return;
        }
        pass.is_scanning = false;
        match result {
            Ok(page) => {
                pass.found_any |= !page.entries.is_empty() || !page.damaged.is_empty();
                pass.page = page.entries.into();
                pass.next = page.next;
                self.report_damaged(page.damaged, effects);
            }
            // The next pass tries again.
            Err(_) => {
                pass.found_any = true;
                pass.next = None;
            }
        }
        self.go_home(now, target, effects);
    }

    fn send_hint(
        &mut self,
        now: Millis,
        target: NodeId,
        gives_up: bool,
        storage_key: Bytes,
        record: &Record,
        effects: &mut Effects,
    ) {
        let Some((_, object)) = storage_key::parse_hint(&storage_key) else { return };
        let id = HintId::of(&object);
        if self.hints.too_large.get(&(target, id)).is_some_and(|until| *until > now) {
            return self.rest_after(now, target, TOO_LARGE_PASS_MS);
        }
        let Some(shelf) = self.hints.shelves.get_mut(&target) else { return };
        if !shelf.leave(id) {
            return;
        }
        let known = storage_key::parse_object(&object)
            .and_then(|(keyspace, key)| Some((self.keyspaces.by_id(keyspace)?, key)))
            .map(|(entry, key)| Target::new(entry, &key))
            .filter(|found| found.storage_key == object);
        let hint = record::hint(record);
        let (Some(of), Ok(hint)) = (known, hint) else {
            let reason = "a hint of no keyspace that there is, or malformed".to_owned();
            self.counters.hints_malformed += 1;
            self.corrupt_record(storage_key.clone(), reason, effects);
            return self.hint_arrived(target, id, storage_key, effects);
        };
        let Hint { since, state } = hint;
        let mut then = Vec::new();
        let to = match gives_up {
            false => target,
            true if now.since(since) <= self.config.hint_age_ms_max => {
                if let Some(shelf) = self.hints.shelves.get_mut(&target) {
                    shelf.stay(id);
                }
                return;
            }
            // Its holder is a primary: repair between primaries takes over.
            true if state.is_none() => {
                self.counters.hints_given_up += 1;
                return self.hint_arrived(target, id, storage_key, effects);
            }
            true => {
                then = self.ring.primaries(of.token, of.n());
                then.retain(|node| *node != target);
                let all = then.iter().all(|node| self.is_reachable(*node));
                match then.pop().filter(|_| all) {
                    Some(first) => first,
                    None => {
                        if let Some(shelf) = self.hints.shelves.get_mut(&target) {
                            shelf.stay(id);
                        }
                        return;
                    }
                }
            }
        };
        let op = self.op();
        let again = (!then.is_empty()).then(|| state.clone().map(|state| (of.clone(), state))).flatten();
        let leaving = Leaving { target, to, id, storage_key, gives_up, since: now, then, state: again };
        self.hints.leaving.insert(op, leaving);
        match state {
            Some(state) => self.send_state(op, &of, state, effects),
            // What this node holds now: what is loaded is newer than what is stored.
            None => match self.loaded(&of.storage_key).map(codec::record) {
                Some(state) => self.send_state(op, &of, state, effects),
                None => {
                    let key = of.storage_key.clone();
                    let ticket = self.ticket(Purpose::Hint(HintTask::Own(op, Box::new(of))));
                    effects.push(Effect::Read { ticket, key });
                }
            },
        }
    }

    /// What a marker stands for has been read.
    pub(super) fn marker_read(
        &mut self,
        now: Millis,
        op: OpId,
        of: &Target,
        result: Result<Option<Record>, StorageFailure>,
        effects: &mut Effects,
    ) {
        let Some(leaving) = self.hints.leaving.get(&op) else { return };
        let (target, id) = (leaving.target, leaving.id);
        match result {
            Ok(Some(record)) => return self.send_state(op, of, record, effects),
            Ok(None) => {
                if let Some(leaving) = self.hints.leaving.remove(&op) {
                    self.hint_arrived(target, id, leaving.storage_key, effects);
                }
            }
            Err(_) => self.hint_stays(op),
        }
        self.go_home(now, target, effects);
    }

    fn send_state(&mut self, op: OpId, of: &Target, record: Record, effects: &mut Effects) {
        let Some(leaving) = self.hints.leaving.get(&op) else { return };
        let to = leaving.to;
        self.hints.budget.spend(record.head.len() + record.body.len() + KEY_COST_BYTES);
        let (keyspace, key) = (of.entry.id, of.key.clone());
        effects
            .push(Effect::Send { to, message: Message::Replicate { op: Some(op), keyspace, key, record } });
        if self.mutant(Mutant::HintDroppedBeforeAck)
            && let Some(leaving) = self.hints.leaving.remove(&op)
        {
            self.hint_arrived(leaving.target, leaving.id, leaving.storage_key, effects);
        }
    }

    /// A target says what became of a hint; false if `op` is none.
    pub(crate) fn hint_answered(
        &mut self,
        now: Millis,
        from: NodeId,
        op: OpId,
        result: Result<(), Refusal>,
        effects: &mut Effects,
    ) -> bool {
        let Some(leaving) = self.hints.leaving.get(&op) else { return false };
        let target = leaving.target;
        if leaving.to != from {
            return true;
        }
        match result {
            Ok(()) if !leaving.then.is_empty() => {
                let Some(leaving) = self.hints.leaving.get_mut(&op) else { return true };
                leaving.since = now;
                if let Some(next) = leaving.then.pop() {
                    leaving.to = next;
                }
                if let Some((of, state)) = leaving.state.clone() {
                    self.send_state(op, &of, state, effects);
                }
                return true;
            }
            Ok(()) => {
                if let Some(Leaving { id, storage_key, gives_up, .. }) = self.hints.leaving.remove(&op) {
                    match gives_up {
                        true => self.counters.hints_given_up += 1,
                        false => self.counters.hints_home += 1,
                    }
                    self.hint_arrived(target, id, storage_key, effects);
                }
            }
            // It stays, and those behind it go.
            Err(Refusal::TooLarge) => {
                let id = leaving.id;
                if self.hints.too_large.len() >= TOO_LARGE_MAX {
                    self.hints.too_large.clear();
                }
                self.hints.too_large.insert((target, id), now.after(TOO_LARGE_MS));
                self.hint_stays(op);
                self.rest_after(now, target, TOO_LARGE_PASS_MS);
            }
            Err(refusal) => {
                self.leave_alone(now, target);
                if refusal == Refusal::UnknownKeyspace {
                    self.push_catalog(now, from, effects);
                }
            }
        }
        self.go_home(now, target, effects);
        true
    }

    fn hint_stays(&mut self, op: OpId) {
        if let Some(leaving) = self.hints.leaving.remove(&op)
            && let Some(shelf) = self.hints.shelves.get_mut(&leaving.target)
        {
            shelf.stay(leaving.id);
        }
    }

    /// A hint need not be kept any longer.
    fn hint_arrived(&mut self, target: NodeId, id: HintId, storage_key: Bytes, effects: &mut Effects) {
        let Some(pass) = self.hints.passes.get_mut(&target) else {
            if let Some(shelf) = self.hints.shelves.get_mut(&target) {
                shelf.stay(id);
            }
            return;
        };
        pass.arrived.push((id, storage_key));
        if pass.arrived.len() >= REMOVALS_MAX {
            self.remove_arrived(target, effects);
        }
    }

    /// Removed durably: a hint that came back after a crash could bring back what was collected since.
    fn remove_arrived(&mut self, target: NodeId, effects: &mut Effects) {
        let (Some(pass), Some(shelf)) =
            (self.hints.passes.get_mut(&target), self.hints.shelves.get_mut(&target))
        else {
            return;
        };
        let mut arrived = std::mem::take(&mut pass.arrived);
        arrived.retain(|(id, _)| shelf.remove(*id));
        if arrived.is_empty() {
            return;
        }
        let ids = arrived.iter().map(|(id, _)| *id).collect();
        let ops = arrived.into_iter().map(|(_, key)| WriteOp::Remove { key }).collect();
        let ticket = self.ticket(Purpose::Hint(HintTask::Removed(target, ids)));
        effects.push(Effect::Write { ticket, ops, durability: Durability::Sync });
    }

    /// Hints are removed, or not.
    pub(crate) fn hints_removed(
        &mut self,
        target: NodeId,
        ids: &[HintId],
        result: &Result<(), StorageFailure>,
        effects: &mut Effects,
    ) {
        let Some(shelf) = self.hints.shelves.get_mut(&target) else { return };
        let before = shelf.count();
        ids.iter().for_each(|id| shelf.removed(*id, result.is_ok()));
        if before > 0 && shelf.is_empty() {
            effects.push(Effect::Notice(Notice::HintsHome { target }));
        }
    }
}
