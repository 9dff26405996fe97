//! The stages of a write: a put, a delete, an operation, an owner's resolution.
//!
//! ```text
//!   begin_write ─▶ (validate) ─▶ commit ─▶ active key: apply_change ─▶ write + replicate
//!                                  │ lww: no active key                  │
//!                                  ▼                                     ▼
//!                            write + replicate ──────────────▶ acknowledged × W ─▶ reply
//! ```
//!
//! A put whose value the plugin did not look at in time is kept, *unvalidated*, unless its keyspace would rather refuse it
//! (R7). Before a dot is issued a write can still be refused with nothing stored; from then on its
//! outcome is either W durable copies or [`Problem::Uncertain`]. In: a checked request. Out: one
//! outcome. Absent: what it does to a state (`change`), how a replica stores.

use super::quorum::Tally;
use super::view::reason;
use super::{Admitted, key_info};
use crate::catalog::{OnUnvalidated, Policy};
use crate::event::{Effect, Effects};
use crate::id::{Dot, Millis, NodeId, OpId, RequestId};
use crate::mutant::Mutant;
use crate::node::{Node, Origin, Purpose, Timer};
use crate::plugin::{PluginAnswer, PluginCall};
use crate::recent::RecentWrite;
use crate::replica::{Completion, Job};
use crate::request::{Acks, Basis, Operation, Outcome, Problem, WriteReply};
use crate::ring::Token;
use crate::target::Target;
use crate::version::context::SPANS_MAX;
use crate::version::{
    Content, Context, DotSet, KeyState, Kind, Receipt, Register, Stamp, Version, codec, squeezed,
    too_far_ahead,
};
use bytes::Bytes;

mod change;
mod operation;
#[cfg(test)]
mod retry_test;

use change::version_of;
pub(crate) use operation::{Applying, Turn};

/// Longest that a put waits for its value's validation.
const VALIDATION_MS_MAX: u64 = 1_000;

/// A write under way at its coordinator.
pub(crate) struct Writing {
    origins: Vec<Origin>,
    pub(super) target: Target,
    pub(super) primaries: Vec<NodeId>,
    /// Stand-ins count.
    pub(super) sloppy: bool,
    /// The state that it is in is on its way.
    pub(super) replication: Option<OpId>,
    request_id: Option<RequestId>,
    /// Of its change, to tell a retry from another request with the same id.
    fingerprint: u64,
    /// Of a retry: how long ago the first attempt was sent.
    retry_of_ms_ago: Option<u64>,
    /// What the client had seen; None: blind.
    pub(super) context: Option<Context>,
    change: Option<Change>,
    pub(super) tally: Tally,
    pub(super) deadline: Millis,
    /// The same by this node's own time: no dot is issued after it.
    pub(crate) until_ms: u64,
    /// Set once a dot was issued.
    minted: Option<Minted>,
    /// Until when its value's validation is waited for.
    validating: Option<Millis>,
    /// Why the plugin did not look at its value.
    unvalidated: Option<String>,
    /// It is an operation, and waits for its plugin.
    asks_plugin: bool,
}

/// What is known of a write once it has a dot.
struct Minted {
    dot: Dot,
    /// Its actor's dot of this key before it.
    previous: u64,
    stamp: Stamp,
    /// What the client has seen after it.
    seen: DotSet,
    siblings: u32,
}

/// What a write does to a key.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A value.
    Put { value: Bytes, content_type: Option<Bytes>, receipt: Option<Receipt>, expires_at: Option<Millis> },
    /// A tombstone; with a receipt where a resolution says so.
    Delete { receipt: Option<Receipt> },
    /// A replicated type's operation.
    Op(Bytes),
    /// A retry: the write is there and has this dot.
    Again { dot: Dot, previous: u64, stamp: Stamp },
}

/// What an operation was given before its plugin was asked; it is stored with the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Issued {
    pub(super) dot: Dot,
    /// Its actor's dot of this key before it.
    pub(super) previous: u64,
    pub(super) stamp: Stamp,
}

/// So much of each end of a value tells it from another.
const ENDS_BYTES: usize = 512;

impl Change {
    /// Tells one request from another that comes with its id: by what it does, not by what it had seen.
    fn fingerprint(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        match self {
            Change::Put { value, content_type, .. } => {
                // Of a long value its ends: each put pays for this.
                let (first, last) = (value.len().min(ENDS_BYTES), value.len().saturating_sub(ENDS_BYTES));
                hasher.update(&[1]).update(&(value.len() as u64).to_be_bytes());
                hasher.update(&value[..first]).update(&value[last..]);
                hasher.update(content_type.as_deref().unwrap_or_default());
            }
            Change::Delete { .. } => drop(hasher.update(&[2])),
            Change::Op(op) => drop(hasher.update(&[3]).update(op)),
            Change::Again { .. } => {}
        }
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        u64::from_be_bytes(first)
    }

    /// Whether a stored version may be what it stored: bytes that have expired may be gone.
    fn is_of(&self, version: &Version) -> bool {
        match (self, &version.content) {
            (Change::Put { value, content_type, .. }, Content::Value(stored)) => {
                value == stored && *content_type == version.content_type
            }
            (Change::Put { .. }, Content::Tombstone) => version.expires_at.is_some(),
            (Change::Delete { .. }, Content::Tombstone) => true,
            _ => false,
        }
    }
}

impl Issued {
    /// The dots that are its own.
    pub(crate) fn claim(&self) -> DotSet {
        DotSet::single(self.dot, self.previous)
    }
}

/// What became of a write at its active key.
pub(crate) enum Step {
    /// It is in the state, or was refused.
    Done,
    /// It waits for a durable incarnation.
    NoDot(Change),
    /// An operation: it waits for its turn with the plugin.
    AskPlugin(Change),
}

impl Node {
    /// A checked write of a client, at a primary of its key.
    pub(super) fn begin_write(
        &mut self,
        now: Millis,
        admitted: Admitted,
        operation: Operation,
        effects: &mut Effects,
    ) {
        let Admitted { origin, target, needed, sloppy, deadline, primaries, retry_of_ms_ago } = admitted;
        let (basis, request_id, change) = match operation {
            Operation::Put { value, content_type, basis, request_id, ttl_ms } => {
                let expires_at = match expiry(now, &target, ttl_ms) {
                    Ok(expires_at) => expires_at,
                    Err(problem) => return self.refuse(origin, problem, effects),
                };
                (basis, request_id, Change::Put { value, content_type, receipt: None, expires_at })
            }
            Operation::Delete { basis, request_id } => (basis, request_id, Change::Delete { receipt: None }),
            Operation::Apply { op, context, request_id } => {
                (context.map_or(Basis::Unsaid, Basis::Context), request_id, Change::Op(op))
            }
            Operation::Get { .. } | Operation::Query { .. } => return,
        };
        let context = match self.context_of(now, &target, &basis, &change) {
            Ok(context) => context,
            Err(problem) => return self.refuse(origin, problem, effects),
        };
        self.counters.writes += 1;
        let fingerprint = change.fingerprint();
        let earlier = if self.mutant(Mutant::RetryGetsNewDot) {
            None
        } else {
            self.recent.get((request_id, target.token))
        };
        let known = earlier.map(|earlier| earlier.fingerprint());
        if known.is_some_and(|known| known != fingerprint) {
            return self.refuse(origin, Problem::RequestIdReused, effects);
        }
        if earlier.is_none() && self.recent.is_full() {
            self.counters.shed += 1;
            let problem = Problem::Overloaded { retry_after_ms: super::RETRY_AFTER_MS };
            return self.refuse(origin, problem, effects);
        }
        let change = match earlier {
            Some(RecentWrite::Writing { op, .. }) => match self.writing.get_mut(&op) {
                Some(writing) => return writing.origins.push(origin),
                None => change,
            },
            Some(RecentWrite::Minted { dot, previous, stamp, .. }) => Change::Again { dot, previous, stamp },
            None => change,
        };
        let writing = Writing {
            origins: vec![origin],
            target,
            primaries,
            sloppy,
            replication: None,
            request_id: Some(request_id),
            fingerprint,
            retry_of_ms_ago,
            context,
            change: Some(change),
            tally: Tally::new(needed),
            deadline,
            until_ms: self.own_time_at(now, deadline),
            minted: None,
            validating: None,
            unvalidated: None,
            asks_plugin: false,
        };
        self.admit(now, writing, effects);
    }

    /// An owner stores a resolution: an ordinary put (R3).
    pub(super) fn begin_owner_write(
        &mut self,
        now: Millis,
        target: Target,
        context: Context,
        change: Change,
        effects: &mut Effects,
    ) {
        let needed = target.entry.settings.n / 2 + 1;
        let primaries = self.ring.primaries(target.token, target.n());
        let deadline = now.after(self.config.timeout_ms);
        let writing = Writing {
            origins: vec![Origin::Owner],
            target,
            primaries,
            sloppy: false,
            replication: None,
            request_id: None,
            fingerprint: change.fingerprint(),
            retry_of_ms_ago: None,
            context: Some(context),
            change: Some(change),
            tally: Tally::new(needed),
            deadline,
            until_ms: self.own_time_at(now, deadline),
            minted: None,
            validating: None,
            unvalidated: None,
            asks_plugin: false,
        };
        self.admit(now, writing, effects);
    }

    /// Registers a write, and asks the plugin about its value where there is one.
    fn admit(&mut self, now: Millis, writing: Writing, effects: &mut Effects) {
        let op = self.op();
        if let Some(request_id) = writing.request_id {
            let write = RecentWrite::Writing { op, fingerprint: writing.fingerprint };
            self.recent.set((request_id, writing.target.token), write, self.running_ms);
        }
        self.set_timer(writing.deadline, Timer::Write(op));
        let validate = match (&writing.change, writing.target.entry.settings.policy.plugin()) {
            (Some(Change::Put { value, receipt: None, .. }), Some(plugin)) => {
                let key = key_info(&writing.target);
                Some((plugin.hash, PluginCall::Validate { key, value: value.clone() }))
            }
            _ => None,
        };
        let patience_ms = (writing.deadline.since(now) / 3).clamp(1, VALIDATION_MS_MAX);
        self.writing.insert(op, Box::new(writing));
        match validate {
            Some((plugin, call)) => {
                let until = now.after(patience_ms);
                self.set_timer(until, Timer::Validate(op));
                if let Some(writing) = self.writing.get_mut(&op) {
                    writing.validating = Some(until);
                }
                let ticket = self.ticket(Purpose::Validate(op));
                effects.push(Effect::Plugin { ticket, plugin, call });
            }
            None => self.commit(now, op, effects),
        }
    }

    /// The plugin has looked at a put's value, or not.
    pub(crate) fn validated(&mut self, now: Millis, op: OpId, answer: PluginAnswer, effects: &mut Effects) {
        let Some(until) = self.writing.get_mut(&op).and_then(|writing| writing.validating.take()) else {
            return;
        };
        self.clear_timer(until, Timer::Validate(op));
        match answer {
            PluginAnswer::Rejected { kind, message } => {
                self.write_failed(op, Problem::InvalidValue { kind, reason: message }, effects);
            }
            PluginAnswer::Valid => self.commit(now, op, effects),
            other => self.not_validated(now, op, reason(other), effects),
        }
    }

    /// The plugin did not look at a put's value in time.
    pub(crate) fn validation_timed_out(&mut self, now: Millis, op: OpId, effects: &mut Effects) {
        let answer = PluginAnswer::Failed("no answer in time".into());
        self.validated(now, op, answer, effects);
    }

    /// No answer is no reason to refuse a write (R7), unless the keyspace says so.
    fn not_validated(&mut self, now: Millis, op: OpId, reason: String, effects: &mut Effects) {
        let Some(entry) = self.writing.get(&op).map(|writing| writing.target.entry.clone()) else { return };
        self.plugin_failed(&entry, format!("validate: {reason}"), effects);
        if entry.settings.on_unvalidated == OnUnvalidated::Refuse {
            let reason = format!("the value could not be validated: {reason}");
            return self.write_failed(op, Problem::Unresolved { reason }, effects);
        }
        self.counters.unvalidated += 1;
        if let Some(writing) = self.writing.get_mut(&op) {
            writing.unvalidated = Some(reason);
        }
        self.commit(now, op, effects);
    }

    /// Hands the write to the active key, or, for a register, straight to storage.
    fn commit(&mut self, now: Millis, op: OpId, effects: &mut Effects) {
        let Some(writing) = self.writing.get(&op) else { return };
        if let Some(seen) = writing.change.as_ref().and_then(|change| self.must_find(op, change)) {
            return self.catch_up(now, op, seen, effects);
        }
        self.commit_caught_up(now, op, effects);
    }

    pub(super) fn commit_caught_up(&mut self, now: Millis, op: OpId, effects: &mut Effects) {
        let Some(writing) = self.writing.get_mut(&op) else { return };
        let Some(change) = writing.change.take() else { return };
        let target = writing.target.clone();
        if target.entry.settings.policy == Policy::Lww && !matches!(change, Change::Again { .. }) {
            return self.commit_register(now, op, &target, change, effects);
        }
        let job = Job::Write { op, change };
        if writing.primaries.contains(&self.config.node) {
            return self.enqueue(now, &target, job, effects);
        }
        let primaries = writing.primaries.clone();
        self.enqueue_as_stand_in(now, &target, primaries, job, effects);
    }

    /// R15: no read before the write; a stamp above all that the client saw.
    fn commit_register(
        &mut self,
        now: Millis,
        op: OpId,
        target: &Target,
        change: Change,
        effects: &mut Effects,
    ) {
        if !self.may_take_effect(op, effects) {
            return;
        }
        let Some(writing) = self.writing.get(&op) else { return };
        let writing_primaries = writing.primaries.clone();
        let seen = writing.context.as_ref().and_then(|context| context.stamp).unwrap_or_default();
        let after = if self.mutant(Mutant::ClockAlone) { Stamp::default() } else { seen };
        let buried = self.stamp_buried(target);
        let first_attempt =
            writing.retry_of_ms_ago.filter(|_| !self.mutant(Mutant::RetryElsewhereTakesEffect));
        // A retry counts from its first attempt: whatever was written since, perhaps over that, stays above it.
        let first_attempt = first_attempt
            .map(|ago_ms| Stamp { millis: now.0.saturating_sub(ago_ms), logical: 0 }.max(after.next()));
        if first_attempt.is_some_and(|stamp| stamp <= buried) {
            // It was carried out and deleted since, or was not: nobody knows any more.
            let acks = writing.tally.acks();
            return self.write_failed(op, Problem::Uncertain { dot: None, acks }, effects);
        }
        // Also above a delete that was collected: it is not there any more to lose against.
        let after = after.max(buried);
        let dot = self.mint_unnamed(effects);
        let Some(writing) = self.writing.get(&op) else { return };
        let issued = self.clock.issue(now, after);
        let stamp = first_attempt.map_or(issued, |first_attempt| issued.min(first_attempt));
        let Some(version) = version_of(change, stamp, writing.request_id) else { return };
        self.minted(op, Minted { dot, previous: 0, stamp, seen: DotSet::single(dot, 0), siblings: 1 });
        let state = KeyState::Lww(Register::of(dot, version));
        self.note_collectable(now, target, &state);
        let record = codec::record(&state);
        let primaries = writing_primaries;
        let (replication, markers) = self.send_to_replicas(now, target, &record, vec![op], effects);
        let own = vec![Completion::Own { replication, actor: dot.actor }];
        if primaries.contains(&self.config.node) {
            let (ops, completions) = self.marker_ops(now, target, &markers);
            let completions = own.into_iter().chain(completions).collect();
            return self.merge_register(target, record, ops, completions, effects);
        }
        let targets = self.targets_with_room(target, primaries, &record);
        if targets.is_empty() {
            return;
        }
        let (ops, completions) = self.hint_ops(now, target, &targets, Some(&record));
        let completions = own.into_iter().chain(completions).collect();
        let ticket = self.ticket(Purpose::Write { active: None, register: None, completions, leaf: None });
        effects.push(Effect::Write { ticket, ops, durability: target.entry.settings.durability });
    }

    fn minted(&mut self, op: OpId, minted: Minted) {
        let Some(writing) = self.writing.get_mut(&op) else { return };
        writing.minted = Some(minted);
    }

    /// From now on a retry finds the write by its dot.
    fn remember(&mut self, request_id: Option<RequestId>, fingerprint: u64, token: Token, minted: &Minted) {
        if let Some(request_id) = request_id {
            let Minted { dot, previous, stamp, .. } = *minted;
            let write = RecentWrite::Minted { dot, previous, stamp, fingerprint };
            self.recent.set((request_id, token), write, self.running_ms);
        }
    }

    /// A write has a dot, and nobody here knows what became of it: its id stays remembered, so that its next retry is not
    /// another write.
    fn write_is_uncertain(&mut self, op: OpId, minted: Minted, acks: Acks, effects: &mut Effects) {
        let Some(writing) = self.writing.get(&op) else { return };
        let (id, token, deadline) = (writing.request_id, writing.target.token, writing.deadline);
        let fingerprint = writing.fingerprint;
        self.clear_timer(deadline, Timer::Write(op));
        self.remember(id, fingerprint, token, &minted);
        self.counters.uncertain += 1;
        let Some(writing) = self.writing.remove(&op) else { return };
        let problem = Problem::Uncertain { dot: Some(minted.dot), acks };
        for origin in writing.origins {
            self.refuse(origin, problem.clone(), effects);
        }
        if let Some(replication) = writing.replication {
            self.end_replication(replication);
        }
    }

    /// W replicas hold it: the client is told.
    pub(super) fn write_met(&mut self, op: OpId, effects: &mut Effects) {
        let Some(writing) = self.writing.remove(&op) else { return };
        self.clear_timer(writing.deadline, Timer::Write(op));
        let Some(minted) = writing.minted else { return };
        self.remember(writing.request_id, writing.fingerprint, writing.target.token, &minted);
        let lww = writing.target.entry.settings.policy == Policy::Lww;
        let seen = squeezed(&minted.seen, [minted.dot].into_iter(), SPANS_MAX);
        let context = Context { seen, stamp: lww.then_some(minted.stamp) };
        let context = self.sealer.seal(writing.target.entry.id, &writing.target.key, &context);
        let acks = writing.tally.acks();
        let reply = WriteReply {
            dot: minted.dot,
            context,
            acks,
            siblings: minted.siblings,
            unvalidated: writing.unvalidated,
        };
        if writing.origins.contains(&Origin::Owner) {
            self.wrote_back(&writing.target, effects);
        }
        for origin in writing.origins {
            self.answer(origin, Outcome::Wrote(reply.clone()), effects);
        }
        if let Some(replication) = writing.replication {
            self.end_replication(replication);
        }
    }

    /// Nothing was stored.
    pub(crate) fn write_failed(&mut self, op: OpId, problem: Problem, effects: &mut Effects) {
        let Some(writing) = self.writing.remove(&op) else { return };
        self.clear_timer(writing.deadline, Timer::Write(op));
        if let Some(until) = writing.validating {
            self.clear_timer(until, Timer::Validate(op));
        }
        if let Some(request_id) = writing.request_id {
            self.recent.forget((request_id, writing.target.token));
        }
        for origin in writing.origins {
            self.refuse(origin, problem.clone(), effects);
        }
    }

    /// Patience is over.
    pub(crate) fn write_timed_out(&mut self, _now: Millis, op: OpId, effects: &mut Effects) {
        let Some(writing) = self.writing.get_mut(&op) else { return };
        let acks: Acks = writing.tally.acks();
        match writing.minted.take() {
            Some(minted) => self.write_is_uncertain(op, minted, acks, effects),
            None => {
                let problem = match writing.asks_plugin {
                    true => Problem::Unresolved { reason: "no answer within the request's time".into() },
                    false => Problem::Overloaded { retry_after_ms: super::RETRY_AFTER_MS },
                };
                self.write_failed(op, problem, effects);
            }
        }
    }

    /// What a write is based on, judged by the keyspace's policy; None: blind.
    fn context_of(
        &self,
        now: Millis,
        target: &Target,
        basis: &Basis,
        change: &Change,
    ) -> Result<Option<Context>, Problem> {
        let policy = &target.entry.settings.policy;
        if matches!(change, Change::Op(_)) {
            if !matches!(policy, Policy::Lattice(_)) {
                let reason = "operations need a lattice keyspace with a replicated type".to_owned();
                return Err(Problem::InvalidArgument { field: "operation", reason });
            }
            return match basis {
                Basis::Context(token) => self.opened(target, Some(token)),
                Basis::Blind | Basis::Unsaid => Ok(None),
            };
        }
        let is_delete = matches!(change, Change::Delete { .. });
        match basis {
            Basis::Context(token) => {
                let context = self.sealer.open(target.entry.id, &target.key, token)?;
                if let Some(ahead_ms) = context.stamp.and_then(|stamp| too_far_ahead(stamp, now)) {
                    return Err(Problem::ClockSkew { ahead_ms });
                }
                Ok(Some(context))
            }
            Basis::Blind if !is_delete || *policy == Policy::Lww => Ok(None),
            Basis::Unsaid if !is_delete && matches!(policy, Policy::Lattice(_)) => Ok(None),
            Basis::Blind | Basis::Unsaid => Err(Problem::ContextRequired),
        }
    }
}

/// When a put's value is to be gone, by this coordinator's clock.
fn expiry(now: Millis, target: &Target, ttl_ms: Option<u64>) -> Result<Option<Millis>, Problem> {
    let settings = &target.entry.settings;
    if ttl_ms.is_some_and(|ttl_ms| ttl_ms > 0) && settings.policy.kind() == Kind::Lattice {
        let reason = "a lattice's value is the join of many puts and does not expire".to_owned();
        return Err(Problem::InvalidArgument { field: "ttl_ms", reason });
    }
    Ok(ttl_ms.or(settings.ttl_ms).filter(|ttl_ms| *ttl_ms > 0).map(|ttl_ms| now.after(ttl_ms)))
}

/// Siblings as a plugin or client is shown them at `now`, for write-back.
pub(crate) fn distinct(now: Millis, state: &KeyState) -> usize {
    match state {
        KeyState::Causal(siblings) => siblings.len_distinct(now),
        _ => 1,
    }
}
