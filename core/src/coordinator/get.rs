//! The first stages of a read (a get, a query, an owner's look before it writes back): its quorum.
//!
//! ```text
//!   own copy ─▶ digests of R-1 others ─▶ enough ─▶ shown (`show`)
//!                 │ differs: whole state ─▶ joined  └▶ raw state to those that lag (R6)
//!                 │ late: one more replica (hedge)
//! ```
//!
//! In: a checked request, answers of replicas. Out: a joined state, and repairs off its path.
//! Absent: what a reader is shown of it.

use super::Admitted;
use super::flights::{Route, Waiter};
use super::quorum::Tally;
use super::view_cache::Question;
use crate::event::{Effect, Effects, Notice, Record, StorageFailure};
use crate::handoff::Wanted;
use crate::id::{Millis, NodeId, OpId};
use crate::limits::RECORD_BYTES_MAX;
use crate::message::{Message, ReadAnswer};
use crate::node::{Node, Purpose, Timer};
use crate::request::{Outcome, Problem, Want};
use crate::target::Target;
use crate::version::{Digest, DotSet, KeyState, Kind, codec};
use bytes::Bytes;
use std::borrow::Cow;

/// What a read is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Goal {
    /// A client's get.
    Get(Want),
    /// A client's query of a state that holds at least `seen`.
    Query { path: Bytes, seen: DotSet },
    /// A look for what an operation's client had seen, before the operation.
    CatchUp { write: OpId, seen: DotSet },
    /// An owner's look before it stores a resolution.
    WriteBack,
}

/// A read under way at its coordinator.
#[derive(Clone)]
pub(crate) struct Reading {
    pub(super) waiters: Vec<Waiter>,
    /// Set where it may be shared.
    pub(super) route: Option<Route>,
    pub(super) target: Target,
    pub(super) goal: Goal,
    pub(super) tally: Tally,
    /// Whether stand-ins count.
    pub(super) sloppy: bool,
    /// Replicas not asked yet, best last.
    unasked: Vec<NodeId>,
    /// Those that were asked, and when.
    asked: Vec<(NodeId, Millis)>,
    /// Those that could not say.
    refused: usize,
    primaries: Vec<NodeId>,
    /// Digests of what each replica holds.
    answers: Vec<(NodeId, Digest)>,
    pub(super) merged: KeyState,
    /// What the plugin was asked, if its answer may serve others.
    pub(super) question: Option<Question>,
    own: Option<Digest>,
    /// By this time it is judged what has expired.
    pub(super) viewed_at: Millis,
    /// When the first who waits loses patience.
    pub(super) deadline: Millis,
    pub(super) hedge_at: Option<Millis>,
    /// The budget left it waiting once: next time it asks one more regardless.
    hedge_was_refused: bool,
    pub(super) stage: Stage,
}

impl Reading {
    /// Whether it has found all that it must.
    pub(super) fn is_caught_up(&self) -> bool {
        match &self.goal {
            Goal::Query { seen, .. } | Goal::CatchUp { seen, .. } => {
                seen.is_empty() || seen.within(&self.merged.seen())
            }
            Goal::Get(_) | Goal::WriteBack => true,
        }
    }

    /// Whether it found operands and none that a plugin vouches for.
    pub(super) fn is_unjoined(&self) -> bool {
        matches!(&self.merged, KeyState::Lattice(fragments) if fragments.valid().next().is_none())
    }

    /// Nobody within reach is left to ask, and all who were asked have answered.
    fn is_at_its_end(&self, own: NodeId) -> bool {
        let answered = self.answers.iter().filter(|(node, _)| *node != own).count();
        self.unasked.is_empty() && answered + self.refused >= self.asked.len()
    }

    /// The replicas that it has asked or might.
    fn others(&self) -> Vec<NodeId> {
        self.asked.iter().map(|(node, _)| *node).chain(self.unasked.iter().copied()).collect()
    }
}

/// How far a read has come.
#[derive(Clone, Copy)]
pub(super) enum Stage {
    /// For another flight of its route to land.
    Boarding,
    Gathering,
    /// The plugin was asked to join a query's fragments first.
    Joining,
    /// The plugin was asked for the view.
    Viewing,
}

impl Reading {
    /// What it found, without what had expired when it was found.
    pub(super) fn live(&self) -> Cow<'_, KeyState> {
        self.merged.live_at(self.viewed_at)
    }
}

impl Node {
    /// A checked read, at a primary of its key.
    pub(super) fn begin_read(&mut self, now: Millis, admitted: Admitted, goal: Goal, effects: &mut Effects) {
        let Admitted { origin, target, needed, sloppy, deadline, primaries, .. } = admitted;
        let kind = target.entry.settings.policy.kind();
        if matches!(goal, Goal::Query { .. }) && kind != Kind::Lattice {
            let reason = "queries need a lattice keyspace with a replicated type".to_owned();
            return self.refuse(origin, Problem::InvalidArgument { field: "path", reason }, effects);
        }
        self.counters.reads += 1;
        let op = self.op();
        let reading = Reading {
            waiters: vec![Waiter { origin, deadline }],
            route: None,
            target,
            goal,
            tally: Tally::new(needed),
            sloppy,
            unasked: Vec::new(),
            asked: Vec::new(),
            refused: 0,
            primaries,
            answers: Vec::with_capacity(needed as usize),
            merged: KeyState::empty(kind),
            question: None,
            own: None,
            viewed_at: now,
            deadline,
            hedge_at: None,
            hedge_was_refused: false,
            stage: Stage::Boarding,
        };
        self.board(now, op, reading, effects);
    }

    /// Its first look, at this node's own copy.
    pub(super) fn take_off(&mut self, now: Millis, op: OpId, effects: &mut Effects) {
        let Some(reading) = self.reading.get_mut(&op) else { return };
        reading.stage = Stage::Gathering;
        let (target, sloppy) = (reading.target.clone(), reading.sloppy);
        let (primaries, needed) = (reading.primaries.clone(), reading.tally.acks().needed as usize);
        let own = self.config.node;
        let mut others = primaries.clone();
        others.retain(|node| *node != own);
        // Best last, to be popped: fast before slow, and all that can be reached before those that
        // cannot.
        self.paces.order(&mut others);
        others.sort_by_key(|node| self.is_reachable(*node));
        let reachable = primaries.iter().filter(|node| self.is_reachable(**node)).count();
        if sloppy && reachable < needed {
            // After those that can be reached, before those that cannot: who stands in for them.
            let away = others.iter().filter(|node| !self.is_reachable(**node)).count();
            let mut stand_ins = self.reachable_stand_ins(&target);
            stand_ins.retain(|node| *node != own);
            stand_ins.truncate(primaries.len() - reachable);
            others.splice(away..away, stand_ins.into_iter().rev());
        }
        let Some(reading) = self.reading.get_mut(&op) else { return };
        let must_find = matches!(&reading.goal, Goal::Query { seen, .. } | Goal::CatchUp { seen, .. } if !seen.is_empty());
        reading.unasked = others;
        if must_find && sloppy {
            // Last of all those who may hold it as a hint.
            let mut stand_ins = self.reachable_stand_ins(&target);
            let Some(reading) = self.reading.get_mut(&op) else { return };
            stand_ins.retain(|node| *node != own && !reading.unasked.contains(node));
            reading.unasked.splice(0..0, stand_ins);
        }
        if !primaries.contains(&own) {
            return self.gather_hints(now, &target, Wanted::Read(op), effects);
        }
        let storage_key = target.storage_key;
        if let Some(state) = self.loaded(&storage_key).cloned() {
            return self.own_copy(now, op, state, effects);
        }
        let ticket = self.ticket(Purpose::LocalRead(op));
        effects.push(Effect::Read { ticket, key: storage_key });
    }

    /// This node's copy has been read.
    pub(crate) fn local_read_done(
        &mut self,
        now: Millis,
        op: OpId,
        result: Result<Option<Record>, StorageFailure>,
        effects: &mut Effects,
    ) {
        let Some(reading) = self.reading.get(&op) else { return };
        let target = reading.target.clone();
        let result = self.decode(&target.entry, &target.storage_key, result, effects);
        self.own_copy_read(now, op, result, effects);
    }

    /// This node's copy is known, or why not; a stand-in's is what it keeps as hints.
    pub(crate) fn own_copy_read(
        &mut self,
        now: Millis,
        op: OpId,
        result: Result<KeyState, String>,
        effects: &mut Effects,
    ) {
        match result {
            Ok(state) => self.own_copy(now, op, state, effects),
            // Damaged is not "not found": the others are asked instead.
            Err(_) => self.ask_others(now, op, effects),
        }
    }

    fn own_copy(&mut self, now: Millis, op: OpId, state: KeyState, effects: &mut Effects) {
        let own = self.config.node;
        let Some(reading) = self.reading.get_mut(&op) else { return };
        let digest = state.digest();
        reading.own = Some(digest);
        reading.merged = state;
        reading.answers.push((own, digest));
        reading.tally.add_for(own, own, !reading.primaries.contains(&own));
        self.ask_others(now, op, effects);
    }

    /// Asks as many more replicas as are still needed.
    fn ask_others(&mut self, now: Millis, op: OpId, effects: &mut Effects) {
        let Some(reading) = self.reading.get(&op) else { return };
        if reading.tally.is_met() {
            return self.gathered_or_more(now, op, effects);
        }
        let Some(reading) = self.reading.get_mut(&op) else { return };
        let missing = (reading.tally.acks().needed - reading.tally.count()) as usize;
        for _ in 0..missing {
            ask_one(now, op, reading, effects);
        }
        if self.paces.begun() && !reading.unasked.is_empty() && self.paces.spend() {
            // The slowest, which nobody would ask otherwise.
            reading.unasked.reverse();
            ask_one(now, op, reading, effects);
            reading.unasked.reverse();
            self.counters.probes += 1;
        }
        self.arm_hedge(now, op);
    }

    /// Sees to it that one more replica is asked if the answers are late.
    fn arm_hedge(&mut self, now: Millis, op: OpId) {
        let Some(reading) = self.reading.get_mut(&op).filter(|reading| !reading.unasked.is_empty()) else {
            return;
        };
        let expected_ms = self.paces.patience_ms(&reading.others()).max(self.config.hedge_ms);
        let wait_ms = match reading.hedge_was_refused {
            true => expected_ms.max(reading.deadline.since(now) / 3),
            false => expected_ms,
        };
        let at = now.after(wait_ms);
        reading.hedge_at = Some(at);
        self.set_timer(at, Timer::Hedge(op));
    }

    /// Those asked are late: one more, as far as the budget goes.
    pub(crate) fn hedge(&mut self, now: Millis, op: OpId, effects: &mut Effects) {
        let Some(reading) = self.reading.get_mut(&op) else { return };
        reading.hedge_at = None;
        if !matches!(reading.stage, Stage::Gathering) {
            return;
        }
        if reading.hedge_was_refused || self.paces.spend() {
            ask_one(now, op, reading, effects);
            self.counters.hedges += 1;
        } else {
            reading.hedge_was_refused = true;
            self.counters.hedges_refused += 1;
        }
        self.arm_hedge(now, op);
    }

    /// A replica answers.
    pub(crate) fn read_replied(
        &mut self,
        now: Millis,
        from: NodeId,
        op: OpId,
        answer: ReadAnswer,
        effects: &mut Effects,
    ) {
        let Some(reading) = self.reading.get_mut(&op) else {
            return self.paces.came_late(from, op, now);
        };
        let Some(asked_at) = reading.asked.iter().find(|(node, _)| *node == from).map(|(_, at)| *at) else {
            return;
        };
        if reading.answers.iter().any(|(node, _)| *node == from) {
            return;
        }
        if !matches!(reading.stage, Stage::Gathering) {
            return self.paces.came_late(from, op, now);
        }
        if matches!(answer, ReadAnswer::Refused(_)) {
            // However fast: what it says is of no use.
            self.paces.answered(from, now.since(asked_at).max(self.config.hedge_ms));
        } else {
            self.paces.answered(from, now.since(asked_at));
        }
        let kind = reading.target.entry.settings.policy.kind();
        let state = match answer {
            ReadAnswer::Same => reading.own.map(|digest| (digest, None)),
            ReadAnswer::State(None) => Some((KeyState::empty(kind).digest(), None)),
            ReadAnswer::State(Some(record)) => {
                let state = codec::state(&record).ok().filter(|state| state.kind() == kind);
                state.map(|state| (state.digest(), Some(state)))
            }
            ReadAnswer::Refused(_) => None,
        };
        let Some((digest, state)) = state else {
            // It cannot say: the next one is asked at once.
            reading.refused += 1;
            ask_one(now, op, reading, effects);
            if reading.tally.is_met() {
                self.gathered_or_more(now, op, effects);
            }
            return;
        };
        let mut reused = Vec::new();
        if let Some(state) = &state {
            reused = reading.merged.sync(state);
        }
        reading.answers.push((from, digest));
        reading.tally.add_for(from, from, !reading.primaries.contains(&from));
        let met = reading.tally.is_met();
        let storage_key = reading.target.storage_key.clone();
        self.report_reused(reused, &storage_key, effects);
        if met {
            self.gathered_or_more(now, op, effects);
        }
    }

    /// R replicas have answered. What they hold may be less than what must be found: then all within reach are asked.
    fn gathered_or_more(&mut self, now: Millis, op: OpId, effects: &mut Effects) {
        let own = self.config.node;
        let Some(reading) = self.reading.get(&op) else { return };
        if reading.is_caught_up() {
            return self.gathered(now, op, effects);
        }
        let reachable: Vec<NodeId> =
            reading.unasked.iter().copied().filter(|node| self.is_reachable(*node)).collect();
        let Some(reading) = self.reading.get_mut(&op) else { return };
        reading.unasked = reachable;
        while !reading.unasked.is_empty() {
            ask_one(now, op, reading, effects);
        }
        if reading.is_at_its_end(own) {
            self.gathered(now, op, effects);
        }
    }

    /// Those that were asked and have not answered are at least so slow.
    pub(super) fn note_silence(&mut self, now: Millis, op: OpId) {
        let Some(reading) = self.reading.get(&op) else { return };
        for (node, at) in &reading.asked {
            if reading.answers.iter().all(|(answered, _)| answered != node) {
                self.paces.outrun(*node, op, *at, now);
            }
        }
    }

    /// R replicas have answered: repair those that lag, then show.
    fn gathered(&mut self, now: Millis, op: OpId, effects: &mut Effects) {
        let left = self
            .reading
            .get(&op)
            .and_then(|reading| self.left_to_show(&reading.target.storage_key, &reading.merged));
        let Some(reading) = self.reading.get_mut(&op) else { return };
        reading.stage = Stage::Viewing;
        reading.viewed_at = now;
        if let Some(left) = left {
            reading.merged = left;
        }
        if let Some(at) = reading.hedge_at.take() {
            self.clear_timer(at, Timer::Hedge(op));
        }
        self.note_silence(now, op);
        self.repair(now, op, effects);
        let Some(reading) = self.reading.get(&op) else { return };
        match (&reading.goal, reading.is_caught_up()) {
            (Goal::CatchUp { .. }, _) => {
                if let Some(reading) = self.finish(now, op, effects) {
                    self.caught_up(now, reading, effects);
                }
            }
            (_, true) => self.show(now, op, effects),
            (_, false) => {
                if let Some(reading) = self.finish(now, op, effects) {
                    self.answer_waiters(&reading.waiters, &Outcome::Failed(Problem::Stale), effects);
                }
            }
        }
    }

    /// Sends the joined raw state to those that answered with less, and takes it in here.
    fn repair(&mut self, now: Millis, op: OpId, effects: &mut Effects) {
        let Some(reading) = self.reading.get(&op) else { return };
        if reading.merged.is_empty() {
            return;
        }
        let digest = reading.merged.digest();
        // Stand-ins keep what they were given: it goes home by itself.
        let lags = |(node, theirs): &(NodeId, Digest)| *theirs != digest && reading.primaries.contains(node);
        let lagging: Vec<NodeId> =
            reading.answers.iter().filter(|it| lags(it)).map(|(node, _)| *node).collect();
        if lagging.is_empty() {
            return;
        }
        let record = codec::record(&reading.merged);
        let (target, merged) = (reading.target.clone(), reading.merged.clone());
        let size_bytes = record.head.len() + record.body.len();
        if size_bytes > RECORD_BYTES_MAX {
            // Nobody can store it: it is shown, and stays as it is until a client replaces some of it.
            return self.key_too_large(&target, size_bytes, effects);
        }
        for to in lagging {
            self.counters.read_repairs += 1;
            effects.push(Effect::Notice(Notice::ReadRepair { replica: to }));
            if to == self.config.node {
                self.take_in(now, &target, merged.clone(), record.clone(), None, effects);
            } else {
                let (key, record) = (target.key.clone(), record.clone());
                let message = Message::Replicate { op: None, keyspace: target.entry.id, key, record };
                effects.push(Effect::Send { to, message });
            }
        }
    }
}

/// Asks the next replica for its state unless it is as this node's.
fn ask_one(now: Millis, op: OpId, reading: &mut Reading, effects: &mut Effects) {
    let Some(to) = reading.unasked.pop() else { return };
    reading.asked.push((to, now));
    let message = Message::Read {
        op,
        keyspace: reading.target.entry.id,
        key: reading.target.key.clone(),
        unless: reading.own,
        as_stand_in: !reading.primaries.contains(&to),
    };
    effects.push(Effect::Send { to, message });
}
