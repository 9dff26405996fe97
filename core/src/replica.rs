//! A node's own copy of its keys.
//!
//! Work on one key goes through one [`ActiveKey`], in order, and storage writes what the active key holds;
//! work on different keys goes side by side. An active key exists while its key has work under way:
//!
//! ```text
//!   job ─▶ read state (once) ─▶ run every waiting job ─▶ join, if a lattice, for a moment ─▶ one write ─▶ acks
//!                                  ▲────────── jobs that came meanwhile, together ──────────┘
//! ```
//!
//! So N puts that meet at one key cost one join and one write; a join that takes longer is written by itself (`tend`). A replica never resolves
//! siblings (semantics §4). Registers need no active key: storage keeps the maximum without reading.
//!
//! In: states of peers, local writes, answers of storage (`read`, `store`) and plugins (`join`). Out: writes, and
//! acknowledgements once what is held *durably* covers what they acknowledge. Absent: quorums.

use crate::anti_entropy::leaf::Share;
use crate::coordinator::{self, Applying, Change};
use crate::event::{Effect, Effects, Notice, Record, WriteOp};
use crate::handoff::Wanted;
use crate::id::{Dot, KeyspaceId, Millis, NodeId, OpId, Ticket};
use crate::limits::RECORD_BYTES_MAX;
use crate::message::{Message, Refusal};
use crate::mutant::Mutant;
use crate::node::{Node, Purpose};
use crate::target::Target;
use crate::version::{DotSet, KeyState, codec};
use bytes::Bytes;
use std::collections::VecDeque;

mod jobs;
mod join;
mod read;
mod sorting;
mod store;
mod tend;

use jobs::Jobs;
pub(crate) use jobs::{Completion, Job};
pub(crate) use join::within_limit;
pub(crate) use tend::Tending;

/// One key with work under way.
pub(crate) struct ActiveKey {
    pub(crate) target: Target,
    pub(crate) home: Home,
    /// None until read.
    pub(crate) state: Option<KeyState>,
    /// The state's bytes, if they are at hand.
    pub(crate) record: Option<Record>,
    /// What the key adds to its leaf: as of the last write submitted, or as read.
    share: Share,
    jobs: Jobs,
    is_reading: bool,
    /// What the plugin was asked.
    asked: Option<Asked>,
    /// Operations that wait for their turn with the plugin.
    pub(crate) operations: VecDeque<(OpId, Change)>,
    /// The search for what makes a join fail.
    sorting: Option<sorting::Sorting>,
    /// The last join did not come in time for the write that waited for it.
    slow: bool,
    /// The state has changed since the last write.
    pub(crate) dirty: bool,
    /// The key was collected: the next write removes it.
    removed: bool,
    /// Wait for the next write, or for the last one if there is nothing to write.
    completions: Vec<Completion>,
    /// Local writes whose state goes to the other replicas with the next write.
    pub(crate) replicate: Vec<OpId>,
    writes: u32,
    last_write: Option<Ticket>,
}

impl ActiveKey {
    fn new(target: &Target, home: Home) -> ActiveKey {
        ActiveKey {
            target: target.clone(),
            home,
            state: None,
            record: None,
            share: Share::NONE,
            jobs: Jobs::default(),
            is_reading: false,
            asked: None,
            operations: VecDeque::new(),
            sorting: None,
            slow: false,
            dirty: false,
            removed: false,
            completions: Vec::new(),
            replicate: Vec::new(),
            writes: 0,
            last_write: None,
        }
    }
}

impl ActiveKey {
    /// The operation that the plugin was asked to apply.
    pub(crate) fn applying(&self) -> Option<&Applying> {
        match &self.asked.as_ref()?.question {
            Question::Apply(applying) => Some(applying),
            Question::Validate(_) | Question::Join(_) => None,
        }
    }

    /// Nothing is left to do: it can be forgotten.
    fn is_idle(&self) -> bool {
        let waits = self.is_reading || self.asked.is_some() || self.writes > 0;
        !waits && self.jobs.is_empty() && self.operations.is_empty()
    }

    /// Its state is another now, though nobody wrote.
    pub(crate) fn become_state(&mut self, next: KeyState) {
        (self.state, self.record, self.dirty) = (Some(next), None, true);
    }

    /// It is collected; `next` is what it counts as while work is under way.
    pub(crate) fn become_nothing(&mut self, next: KeyState) {
        self.become_state(next);
        self.removed = true;
    }
}

/// Where an active key's state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// As this node's own copy.
    Object,
    /// As hints for the key's primaries: this node stands in.
    Hints(Vec<NodeId>),
}

/// A question to the plugin that is not answered yet: one at a time for each key.
struct Asked {
    id: OpId,
    question: Question,
    /// The policy's, for which its answer holds.
    epoch: u64,
    /// When it is no longer waited for.
    at: Millis,
    /// The next write waits for it, for a moment.
    holds: bool,
}

/// About what.
enum Question {
    /// May this operand be joined?
    Validate(DotSet),
    /// The join of these.
    Join(Vec<DotSet>),
    /// The state after an operation.
    Apply(Box<Applying>),
}

impl Node {
    /// A peer's state comes in: replication, repair.
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn replicate(
        &mut self,
        now: Millis,
        from: NodeId,
        op: Option<OpId>,
        keyspace: KeyspaceId,
        key: Bytes,
        record: Record,
        effects: &mut Effects,
    ) {
        let refusal = match (self.keyspaces.by_id(keyspace), codec::state(&record)) {
            (_, Err(_)) => Err(Refusal::Malformed),
            (Some(entry), Ok(state)) if state.kind() == entry.settings.policy.kind() && !key.is_empty() => {
                Ok((entry, state))
            }
            _ => Err(Refusal::UnknownKeyspace),
        };
        let (entry, state) = match refusal {
            Ok(known) => known,
            Err(refusal) => {
                if let Some(op) = op {
                    let message = Message::Replicated { op, result: Err(refusal) };
                    effects.push(Effect::Send { to: from, message });
                }
                return;
            }
        };
        let completion = op.map(|op| Completion::Peer { to: from, op });
        if self.mutant(Mutant::LateHintOverwrites) {
            let of = Target::new(entry.clone(), &key);
            let primaries = self.ring.primaries(of.token, of.n());
            if !primaries.contains(&from) {
                let (leaf_op, leaf) = self.tree_change_unread(&of);
                let put = WriteOp::Put { key: of.storage_key.clone(), record };
                let ops = [put].into_iter().chain(leaf_op).collect();
                let (completions, leaf) = (completion.into_iter().collect(), Some(leaf));
                let ticket = self.ticket(Purpose::Write { active: None, register: None, completions, leaf });
                effects.push(Effect::Write { ticket, ops, durability: entry.settings.durability });
                return;
            }
        }
        let target = Target::new(entry, &key);
        self.tell_of_grave(from, &target, &state, effects);
        self.take_in(now, &target, state, record, completion, effects);
    }

    /// A state from elsewhere joins this node's own.
    pub(crate) fn take_in(
        &mut self,
        now: Millis,
        target: &Target,
        state: KeyState,
        record: Record,
        completion: Option<Completion>,
        effects: &mut Effects,
    ) {
        let Some((state, record)) = self.sift(target, state, record) else {
            // Covered by what was agreed to be gone.
            return self.complete(completion.into_iter().collect(), Ok(()), effects);
        };
        if let KeyState::Lww(_) = &state {
            self.note_collectable(now, target, &state);
        }
        if let KeyState::Lww(register) = &state {
            if let Some((dot, _)) = &register.winner {
                self.observe_dot(*dot, effects);
            }
            let completions = completion.into_iter().collect();
            self.merge_register(target, record, Vec::new(), completions, effects);
            return;
        }
        let completions = completion.into_iter().collect();
        self.enqueue(now, target, Job::Sync { state, record: Some(record), completions }, effects);
    }

    /// Adds a job to an active key and does what can be done.
    pub(crate) fn enqueue(&mut self, now: Millis, target: &Target, job: Job, effects: &mut Effects) {
        self.enqueue_at(now, target.storage_key.clone(), target, Home::Object, job, effects);
    }

    /// As [`Node::enqueue`], where this node is no primary of the key.
    pub(crate) fn enqueue_as_stand_in(
        &mut self,
        now: Millis,
        target: &Target,
        primaries: Vec<NodeId>,
        job: Job,
        effects: &mut Effects,
    ) {
        let storage_key = Node::stand_in_key(target, &primaries);
        self.enqueue_at(now, storage_key, target, Home::Hints(primaries), job, effects);
    }

    fn enqueue_at(
        &mut self,
        now: Millis,
        storage_key: Bytes,
        target: &Target,
        home: Home,
        job: Job,
        effects: &mut Effects,
    ) {
        let active =
            self.active.entry(storage_key.clone()).or_insert_with(|| Box::new(ActiveKey::new(target, home)));
        active.target.entry.clone_from(&target.entry);
        let reused = active.jobs.push(job);
        self.report_reused(reused, &storage_key, effects);
        self.work(now, storage_key, effects);
    }

    /// Dots that carry one value here and another there: never merged, and reported.
    pub(crate) fn report_reused(&mut self, dots: Vec<Dot>, storage_key: &Bytes, effects: &mut Effects) {
        for dot in dots {
            self.counters.dots_reused += 1;
            effects.push(Effect::Notice(Notice::DotReused { dot, key: storage_key.clone() }));
        }
    }

    /// What an active key holds, if it is loaded: newer than storage.
    pub(crate) fn loaded(&self, storage_key: &Bytes) -> Option<&KeyState> {
        self.active.get(storage_key).and_then(|active| active.state.as_ref())
    }

    /// Does what can be done for an active key, and forgets it when nothing is left.
    pub(crate) fn work(&mut self, now: Millis, storage_key: Bytes, effects: &mut Effects) {
        // Taken out, so that jobs may use the rest of the node.
        let Some(mut active) = self.active.remove(&storage_key) else { return };
        self.advance(now, &storage_key, &mut active, effects);
        if !active.is_idle() {
            self.active.insert(storage_key, active);
        }
    }

    fn advance(&mut self, now: Millis, storage_key: &Bytes, active: &mut ActiveKey, effects: &mut Effects) {
        if active.is_reading || active.asked.as_ref().is_some_and(|asked| asked.holds) {
            return;
        }
        if active.state.is_none() {
            // A read would not show what is under way, and the next write would replace it.
            if (active.jobs.is_empty() && active.operations.is_empty()) || active.writes > 0 {
                return;
            }
            active.is_reading = true;
            if active.home != Home::Object {
                let target = active.target.clone();
                return self.gather_hints(now, &target, Wanted::Active(storage_key.clone()), effects);
            }
            let ticket = self.ticket(Purpose::ActiveRead(storage_key.clone()));
            effects.push(Effect::Read { ticket, key: storage_key.clone() });
            return;
        }
        while let Some(job) = active.jobs.pop() {
            match job {
                Job::Sync { state, record, completions } => {
                    self.sync(active, storage_key, state, record, completions, effects)
                }
                Job::Replace { state, record } => {
                    let own = active.state.as_mut().filter(|own| own.digest() == state.digest());
                    if let Some(own) = own {
                        *own = state;
                        (active.record, active.dirty) = (Some(record), true);
                    }
                }
                Job::Write { op, change } => match self.apply_change(now, active, op, change, effects) {
                    coordinator::Step::Done => {}
                    coordinator::Step::NoDot(change) => {
                        active.jobs.push_front(Job::Write { op, change });
                        self.hold(storage_key.clone());
                        break;
                    }
                    coordinator::Step::AskPlugin(change) => active.operations.push_back((op, change)),
                },
                // See below.
                Job::Tend => {}
                // What the plugin was shown would come back with its answer.
                Job::Close { completion } if active.applying().is_some() => {
                    active.jobs.push_front(Job::Close { completion });
                    break;
                }
                Job::Close { completion } => {
                    active.completions.push(completion);
                    // What comes after it begins from what is left.
                    if self.let_go(active) {
                        break;
                    }
                }
            }
        }
        self.ask_next(now, storage_key, active, effects);
        if active.asked.as_ref().is_some_and(|asked| asked.holds) {
            return;
        }
        self.write(now, storage_key, active, effects);
        if active.writes > 0 || active.state.is_some() {
            self.schedule_write_back(now, active);
        }
    }

    /// Takes a peer's state into the active key's.
    fn sync(
        &mut self,
        active: &mut ActiveKey,
        storage_key: &Bytes,
        incoming: KeyState,
        record: Option<Record>,
        completions: Vec<Completion>,
        effects: &mut Effects,
    ) {
        let Some(state) = active.state.as_mut() else { return };
        self.observe(&incoming.seen(), &state.seen(), effects);
        let overwrite = match incoming {
            KeyState::Lattice(_) => self.mutant(Mutant::LatticeOverwrite),
            _ => self.mutant(Mutant::OverwriteInsteadOfSync),
        };
        if overwrite || state.is_empty() {
            *state = incoming;
            (active.record, active.dirty) = (record, true);
        } else {
            let before = state.clone();
            let reused = state.sync(&incoming);
            if *state != before {
                let mut record = record.filter(|_| *state == incoming);
                if state.may_be_too_large() {
                    let joined = record.get_or_insert_with(|| codec::record(state));
                    let size_bytes = joined.head.len() + joined.body.len();
                    if size_bytes > RECORD_BYTES_MAX {
                        *state = before;
                        let target = active.target.clone();
                        self.key_too_large(&target, size_bytes, effects);
                        return self.complete(completions, Err(Refusal::TooLarge), effects);
                    }
                }
                (active.record, active.dirty) = (record, true);
            }
            self.report_reused(reused, storage_key, effects);
        }
        if self.mutant(Mutant::CollapseEqualBytes)
            && let KeyState::Causal(siblings) = state
        {
            siblings.collapse_equal();
        }
        jobs::extend(&mut active.completions, completions);
        self.resolve_on_replica(active, effects);
    }

    /// The bug of resolving on every replica (see `Mutant::MergeOnEveryReplica`).
    fn resolve_on_replica(&mut self, active: &mut ActiveKey, effects: &mut Effects) {
        if !self.mutant(Mutant::MergeOnEveryReplica) || active.target.entry.settings.policy.plugin().is_none()
        {
            return;
        }
        let Some(dot) = self.mint(effects) else { return };
        if let Some(KeyState::Causal(siblings)) = active.state.as_mut()
            && siblings.len_distinct(Millis(0)) > 1
            && let Some((_, version)) = siblings.values().last().cloned()
        {
            let seen = siblings.seen().clone();
            siblings.write(&seen, dot, seen.last(dot.actor), version);
            (active.record, active.dirty) = (None, true);
        }
    }
}

#[cfg(test)]
mod tend_test;
