//! A node's own copy of its keys.
//!
//! Work on one key goes through one [`ActiveKey`], in order, and storage writes what the active key holds;
//! work on different keys goes side by side. An active key exists while its key has work under way:
//!
//! ```text
//!   job ─▶ read state (once) ─▶ run every waiting job ─▶ join, if a lattice ─▶ one write ─▶ acks
//!                                  ▲──── jobs that came meanwhile, together ────┘
//! ```
//!
//! So N puts that meet at one key cost one join and one write. A replica never resolves
//! siblings (semantics §4). Registers need no active key: storage keeps the maximum without reading.
//!
//! In: states of peers, local writes, answers of storage and plugins. Out: writes, and
//! acknowledgements once what is held *durably* covers what they acknowledge. Absent: quorums.

use crate::anti_entropy::TreeWrite;
use crate::anti_entropy::leaf::Share;
use crate::catalog::KeyspaceEntry;
use crate::event::{Durability, Effect, Effects, Notice, Record, StorageFailure, WriteOp};
use crate::handoff::Wanted;
use crate::id::{Dot, KeyspaceId, Millis, NodeId, OpId, Ticket};
use crate::message::{Message, ReadAnswer, Refusal};
use crate::mutant::Mutant;
use crate::node::{Node, Purpose};
use crate::plugin::{PluginAnswer, PluginCall};
use crate::request::{MERGED_BYTES_MAX, Problem};
use crate::target::Target;
use crate::version::{Digest, DotSet, KeyState, codec};
use crate::{coordinator, storage_key};
use bytes::Bytes;

mod jobs;

use jobs::Jobs;
pub(crate) use jobs::{Completion, Job};

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
    busy: Option<Busy>,
    /// The state has changed since the last write.
    pub(crate) dirty: bool,
    /// The key was collected: the next write removes it.
    removed: bool,
    /// The last join failed and nothing has changed since.
    join_failed: bool,
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
            busy: None,
            dirty: false,
            removed: false,
            join_failed: false,
            completions: Vec::new(),
            replicate: Vec::new(),
            writes: 0,
            last_write: None,
        }
    }
}

impl ActiveKey {
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

/// What an active key waits for.
enum Busy {
    Reading,
    Joining(Vec<DotSet>),
    Applying(OpId, crate::id::Dot),
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

    /// Stores a register's write without reading what is there, `with` others.
    pub(crate) fn merge_register(
        &mut self,
        target: &Target,
        record: Record,
        with: Vec<WriteOp>,
        completions: Vec<Completion>,
        effects: &mut Effects,
    ) {
        let storage_key = target.storage_key.clone();
        self.fence.graves.touch(&storage_key);
        let op = if self.mutant(Mutant::LastArrivalWins) {
            WriteOp::Put { key: storage_key, record }
        } else {
            WriteOp::Merge { key: storage_key, record }
        };
        let completions = self.complete_early(completions, effects);
        let register = Some(target.storage_key.clone());
        let (leaf_op, leaf) = self.tree_change_unread(target);
        let ticket = self.ticket(Purpose::Write { active: None, register, completions, leaf: Some(leaf) });
        let ops = [op].into_iter().chain(leaf_op).chain(with).collect();
        effects.push(Effect::Write { ticket, ops, durability: target.entry.settings.durability });
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
        if active.busy.is_some() || active.writes > 0 || !active.jobs.is_empty() {
            self.active.insert(storage_key, active);
        }
    }

    fn advance(&mut self, now: Millis, storage_key: &Bytes, active: &mut ActiveKey, effects: &mut Effects) {
        if active.busy.is_some() {
            return;
        }
        if active.state.is_none() {
            // A read would not show what is under way, and the next write would replace it.
            if active.jobs.is_empty() || active.writes > 0 {
                return;
            }
            active.busy = Some(Busy::Reading);
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
                    coordinator::Step::JoinFirst(change) if !active.join_failed => {
                        active.jobs.push_front(Job::Write { op, change });
                        self.join(storage_key, active, effects);
                        return;
                    }
                    coordinator::Step::JoinFirst(_) => {
                        let reason = "the fragments of the state could not be joined".to_owned();
                        self.write_failed(op, Problem::Unresolved { reason }, effects);
                    }
                    coordinator::Step::Ask(dot, call) => {
                        active.busy = Some(Busy::Applying(op, dot));
                        self.ask(storage_key, active, call, effects);
                        return;
                    }
                },
                Job::Close { completion } => {
                    active.completions.push(completion);
                    // What comes after it begins from what is left.
                    if self.let_go(active) {
                        break;
                    }
                }
            }
        }
        if active.dirty && !active.join_failed && fragments(active) > 1 {
            self.join(storage_key, active, effects);
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
                active.record = record.filter(|_| *state == incoming);
                active.dirty = true;
            }
            self.report_reused(reused, storage_key, effects);
        }
        if self.mutant(Mutant::CollapseEqualBytes)
            && let KeyState::Causal(siblings) = state
        {
            siblings.collapse_equal();
        }
        active.join_failed = false;
        jobs::extend(&mut active.completions, completions);
        self.resolve_on_replica(active);
    }

    /// The bug of resolving on every replica (see `Mutant::MergeOnEveryReplica`).
    fn resolve_on_replica(&mut self, active: &mut ActiveKey) {
        if !self.mutant(Mutant::MergeOnEveryReplica) || active.target.entry.settings.policy.plugin().is_none()
        {
            return;
        }
        let Some(dot) = self.mint() else { return };
        if let Some(KeyState::Causal(siblings)) = active.state.as_mut()
            && siblings.len_distinct(Millis(0)) > 1
            && let Some((_, version)) = siblings.values().last().cloned()
        {
            let seen = siblings.seen().clone();
            siblings.write(&seen, dot, seen.last(dot.actor), version);
            (active.record, active.dirty) = (None, true);
        }
    }

    /// Asks the plugin to join an active key's fragments.
    fn join(&mut self, storage_key: &Bytes, active: &mut ActiveKey, effects: &mut Effects) {
        let Some(KeyState::Lattice(fragments)) = &active.state else { return };
        let claims = fragments.iter().map(|fragment| fragment.claim.clone()).collect();
        let states = fragments.iter().map(|fragment| fragment.value.clone()).collect();
        let call = PluginCall::Merge { key: coordinator::key_info(&active.target), states };
        active.busy = Some(Busy::Joining(claims));
        self.counters.joins += 1;
        self.ask(storage_key, active, call, effects);
    }

    fn ask(&mut self, storage_key: &Bytes, active: &ActiveKey, call: PluginCall, effects: &mut Effects) {
        let Some(plugin) = active.target.entry.settings.policy.plugin() else { return };
        let plugin = plugin.hash;
        let ticket = self.ticket(Purpose::Active(storage_key.clone()));
        effects.push(Effect::Plugin { ticket, plugin, call });
    }

    /// The plugin's answer to an active key's join or operation.
    pub(crate) fn active_plugin_done(
        &mut self,
        now: Millis,
        storage_key: Bytes,
        answer: PluginAnswer,
        effects: &mut Effects,
    ) {
        let Some(mut active) = self.active.remove(&storage_key) else { return };
        match active.busy.take() {
            Some(Busy::Joining(claims)) => self.joined(&mut active, &claims, answer, effects),
            Some(Busy::Applying(op, dot)) => self.applied(now, &mut active, op, dot, answer, effects),
            other => active.busy = other,
        }
        self.active.insert(storage_key.clone(), active);
        self.work(now, storage_key, effects);
    }

    fn joined(
        &mut self,
        active: &mut ActiveKey,
        claims: &[DotSet],
        answer: PluginAnswer,
        effects: &mut Effects,
    ) {
        let Some(KeyState::Lattice(fragments)) = active.state.as_mut() else { return };
        let first = fragments.iter().next().map(|fragment| fragment.value.clone());
        match (self.plugin_value(&active.target.entry, answer, effects), first) {
            (Ok(value), _) => fragments.joined(claims, value),
            (Err(_), Some(operand)) if self.mutant(Mutant::FailedJoinIsAValue) => {
                fragments.joined(claims, operand)
            }
            (Err(_), _) => active.join_failed = true,
        }
        active.record = None;
    }

    /// The value of a plugin's answer, within the limit of merged results, or why there is none.
    pub(crate) fn plugin_value(
        &mut self,
        entry: &KeyspaceEntry,
        answer: PluginAnswer,
        effects: &mut Effects,
    ) -> Result<Bytes, Problem> {
        let reason = match answer {
            PluginAnswer::Value(value) if value.len() <= MERGED_BYTES_MAX => return Ok(value),
            PluginAnswer::Value(value) => {
                format!("the result has {} bytes, the limit is {MERGED_BYTES_MAX}", value.len())
            }
            PluginAnswer::Rejected { kind, message } => {
                return Err(Problem::InvalidValue { kind, reason: message });
            }
            PluginAnswer::Failed(reason) => reason,
            other => format!("an answer to another question: {other:?}"),
        };
        self.plugin_failed(entry, reason.clone(), effects);
        Err(Problem::Unresolved { reason })
    }

    pub(crate) fn plugin_failed(&mut self, entry: &KeyspaceEntry, reason: String, effects: &mut Effects) {
        self.counters.plugin_failures += 1;
        if let Some(plugin) = entry.settings.policy.plugin() {
            let keyspace = entry.name.clone();
            effects.push(Effect::Notice(Notice::PluginFailed { plugin: plugin.hash, keyspace, reason }));
        }
    }

    /// Writes an active key's state if it changed, and sees to all that wait for it.
    fn write(&mut self, now: Millis, storage_key: &Bytes, active: &mut ActiveKey, effects: &mut Effects) {
        let Some(state) = &mut active.state else { return };
        if active.dirty && state.drop_expired(now) {
            active.record = None;
        }
        if active.dirty && !active.removed {
            self.note_collectable(now, &active.target, state);
        }
        let replicate = std::mem::take(&mut active.replicate);
        if active.dirty || !replicate.is_empty() {
            let record = active.record.get_or_insert_with(|| codec::record(state)).clone();
            let mut markers = Vec::new();
            if !replicate.is_empty() {
                let (replication, away) =
                    self.send_to_replicas(now, &active.target, &record, replicate, effects);
                active.completions.push(Completion::Own { replication });
                markers = away;
            }
            if active.dirty {
                let Some((ops, completions, leaf)) = self.ops_of(now, storage_key, active, record, &markers)
                else {
                    return;
                };
                active.dirty = false;
                active.writes += 1;
                active.completions.extend(completions);
                let completions = std::mem::take(&mut active.completions);
                let completions = self.complete_early(completions, effects);
                let active_key = Some(storage_key.clone());
                self.fence.graves.touch(storage_key);
                let removed = std::mem::take(&mut active.removed);
                let ticket =
                    self.ticket(Purpose::Write { active: active_key, register: None, completions, leaf });
                active.last_write = Some(ticket);
                let durability = match removed {
                    true => Durability::Sync,
                    false => active.target.entry.settings.durability,
                };
                effects.push(Effect::Write { ticket, ops, durability });
            } else if !markers.is_empty() {
                self.keep_markers(now, &active.target, &markers, effects);
            }
        }
        // Nothing to write: what they wait for is durable, or is in the write before.
        let waiting = std::mem::take(&mut active.completions);
        if waiting.is_empty() {
            return;
        }
        let last = active.last_write.filter(|_| active.writes > 0);
        match last.and_then(|ticket| self.completions_of(ticket)) {
            Some(completions) => jobs::extend(completions, waiting),
            None => self.complete(waiting, Ok(()), effects),
        }
    }

    /// What is written of an active key's state, and who is told besides. None: a stand-in has no room
    /// for it; then it does not count itself, and forgets it.
    fn ops_of(
        &mut self,
        now: Millis,
        storage_key: &Bytes,
        active: &mut ActiveKey,
        record: Record,
        markers: &[NodeId],
    ) -> Option<(Vec<WriteOp>, Vec<Completion>, Option<TreeWrite>)> {
        match active.home.clone() {
            Home::Object => {
                let state = active.state.as_ref().filter(|_| !active.removed);
                let share = state.map_or(Share::NONE, |state| Share::of(&active.target.key, state));
                let (leaf_op, leaf) = self.tree_change(&active.target, active.share, share);
                active.share = share;
                let (markers, completions) = self.marker_ops(now, &active.target, markers);
                let key = storage_key.clone();
                let op = match active.removed {
                    true => WriteOp::Remove { key },
                    false => WriteOp::Put { key, record },
                };
                let ops = [op].into_iter().chain(leaf_op).chain(markers).collect();
                Some((ops, completions, Some(leaf)))
            }
            Home::Hints(primaries) => {
                let targets = self.targets_with_room(&active.target, primaries, &record);
                if targets.is_empty() {
                    (active.state, active.record, active.dirty) = (None, None, false);
                    active.completions.clear();
                    return None;
                }
                let (ops, completions) = self.hint_ops(now, &active.target, &targets, Some(&record));
                Some((ops, completions, None))
            }
        }
    }

    /// The bug of acknowledging before the write is durable (see `Mutant::AckBeforeDurable`).
    fn complete_early(&mut self, completions: Vec<Completion>, effects: &mut Effects) -> Vec<Completion> {
        if self.mutant(Mutant::AckBeforeDurable) {
            self.complete(completions, Ok(()), effects);
            return Vec::new();
        }
        completions
    }

    /// Storage has written.
    pub(crate) fn written(
        &mut self,
        now: Millis,
        storage_key: Option<Bytes>,
        completions: Vec<Completion>,
        result: &Result<(), StorageFailure>,
        effects: &mut Effects,
    ) {
        let (mut lost, mut unsent) = (Vec::new(), Vec::new());
        let keeps_waiting = self.mutant(Mutant::LostWritesAcknowledged);
        if let Some(active) = storage_key.as_ref().and_then(|key| self.active.get_mut(key)) {
            active.writes -= 1;
            if result.is_err() {
                // What the active key holds is not what the disk holds. What was to be told once this
                // state is durable, or sent with it, goes with it: the next state lacks it.
                (active.state, active.record, active.dirty) = (None, None, false);
                if !keeps_waiting {
                    lost = std::mem::take(&mut active.completions);
                    unsent = std::mem::take(&mut active.replicate);
                }
            }
        }
        if result.is_err() {
            // Dots of this key may be elsewhere and not here: never issue after them as if they
            // had not been.
            self.renew(effects);
        }
        self.complete(completions, result.clone().map_err(|_| Refusal::Storage), effects);
        self.complete(lost, Err(Refusal::Storage), effects);
        for op in unsent {
            self.write_timed_out(now, op, effects);
        }
        if let Some(key) = storage_key {
            self.work(now, key, effects);
        }
    }

    fn complete(&mut self, completions: Vec<Completion>, result: Result<(), Refusal>, effects: &mut Effects) {
        for completion in completions {
            match completion {
                Completion::Peer { to, op } => {
                    effects.push(Effect::Send { to, message: Message::Replicated { op, result } });
                }
                Completion::Taken { id } => self.taken(id, result.is_ok()),
                Completion::Closed { owner, round } => {
                    self.let_go_done(owner, round, result.is_ok(), effects);
                }
                Completion::Own { replication } => {
                    if result.is_ok() {
                        self.acknowledged(replication, self.config.node, effects);
                    }
                }
                Completion::HintStored { target, id } => self.hint_stored(target, id),
            }
        }
    }

    /// An active key's state has been read.
    pub(crate) fn active_loaded(
        &mut self,
        now: Millis,
        storage_key: Bytes,
        result: Result<Option<Record>, StorageFailure>,
        effects: &mut Effects,
    ) {
        let Some(active) = self.active.get(&storage_key) else { return };
        let entry = active.target.entry.clone();
        let result = self.decode(&entry, &storage_key, result, effects);
        self.active_decoded(now, storage_key, result, effects);
    }

    /// An active key's state is known, or why not.
    pub(crate) fn active_decoded(
        &mut self,
        now: Millis,
        storage_key: Bytes,
        result: Result<KeyState, String>,
        effects: &mut Effects,
    ) {
        let Some(mut active) = self.active.remove(&storage_key) else { return };
        active.busy = None;
        match result {
            Ok(state) => {
                active.share = Share::of(&active.target.key, &state);
                active.state = Some(self.unless_buried(&active, state));
                self.active.insert(storage_key.clone(), active);
                self.work(now, storage_key, effects);
            }
            // Never "not found": nothing is done with a key whose state cannot be read.
            Err(reason) => {
                while let Some(job) = active.jobs.pop() {
                    match job {
                        Job::Close { completion } => {
                            self.complete(vec![completion], Err(Refusal::Storage), effects);
                        }
                        Job::Sync { completions, .. } => {
                            self.complete(completions, Err(Refusal::Storage), effects);
                        }
                        Job::Replace { .. } => {}
                        Job::Write { op, .. } => {
                            self.write_failed(op, Problem::Storage { reason: reason.clone() }, effects);
                        }
                    }
                }
            }
        }
    }

    /// The state of a record as storage gave it, or why there is none.
    pub(crate) fn decode(
        &mut self,
        entry: &KeyspaceEntry,
        storage_key: &Bytes,
        result: Result<Option<Record>, StorageFailure>,
        effects: &mut Effects,
    ) -> Result<KeyState, String> {
        let kind = entry.settings.policy.kind();
        let reason = match result {
            Ok(None) => return Ok(KeyState::empty(kind)),
            Ok(Some(record)) => match codec::state(&record) {
                Ok(state) if state.kind() == kind => return Ok(state),
                Ok(_) => "the record is of another kind of keyspace".to_owned(),
                Err(malformed) => malformed.to_string(),
            },
            Err(StorageFailure::Corrupt(reason)) => reason,
            Err(StorageFailure::Overloaded) => return Err("the disk is overloaded".to_owned()),
            Err(StorageFailure::Failed(reason)) => return Err(reason),
        };
        self.corrupt_record(storage_key.clone(), reason.clone(), effects);
        Err(reason)
    }

    /// A peer asks for this node's copy, or, `as_stand_in`, for what it keeps as hints.
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn peer_read(
        &mut self,
        now: Millis,
        from: NodeId,
        op: OpId,
        keyspace: KeyspaceId,
        key: Bytes,
        unless: Option<Digest>,
        as_stand_in: bool,
        effects: &mut Effects,
    ) {
        let Some(entry) = self.keyspaces.by_id(keyspace).filter(|_| !key.is_empty()) else {
            let answer = ReadAnswer::Refused(Refusal::UnknownKeyspace);
            effects.push(Effect::Send { to: from, message: Message::ReadReply { op, answer } });
            return;
        };
        if as_stand_in {
            let target = Target::new(entry, &key);
            return self.gather_hints(now, &target, Wanted::Peer { to: from, op, unless }, effects);
        }
        let storage_key = storage_key::object(keyspace, &key);
        if let Some(state) = self.loaded(&storage_key) {
            let answer = read_answer(state, unless, || codec::record(state));
            effects.push(Effect::Send { to: from, message: Message::ReadReply { op, answer } });
            return;
        }
        let ticket = self.ticket(Purpose::PeerRead { to: from, op, unless });
        effects.push(Effect::Read { ticket, key: storage_key });
    }

    /// Its copy has been read.
    pub(crate) fn peer_read_done(
        &mut self,
        to: NodeId,
        op: OpId,
        unless: Option<Digest>,
        result: Result<Option<Record>, StorageFailure>,
        effects: &mut Effects,
    ) {
        let answer = match result {
            Ok(None) => ReadAnswer::State(None),
            Ok(Some(record)) => match codec::state(&record) {
                Ok(state) => read_answer(&state, unless, || record),
                Err(_) => ReadAnswer::Refused(Refusal::Storage),
            },
            Err(_) => ReadAnswer::Refused(Refusal::Storage),
        };
        effects.push(Effect::Send { to, message: Message::ReadReply { op, answer } });
    }
}

fn fragments(active: &ActiveKey) -> usize {
    match &active.state {
        Some(KeyState::Lattice(fragments)) => fragments.len(),
        _ => 1,
    }
}

fn read_answer(state: &KeyState, unless: Option<Digest>, record: impl FnOnce() -> Record) -> ReadAnswer {
    if unless.is_some_and(|digest| digest == state.digest()) {
        return ReadAnswer::Same;
    }
    ReadAnswer::State((!state.is_empty()).then(record))
}
