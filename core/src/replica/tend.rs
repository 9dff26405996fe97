//! When the operands of a lattice's key are validated and joined: off the path of writes, one question at a time.
//!
//! ```text
//!   put ─▶ operand ─▶ join, for a moment ─┬─ answered ─▶ one write of one fragment
//!                                         └─ not yet ──▶ one write of operands; the join is written when it comes
//!   fails ─▶ rest ─▶ again, less and less often; at once for an operation, or a delete
//! ```
//!
//! In: active keys that hold operands, answers that did not come, reads that saw operands. Out: what an active key asks next.
//! Absent: what an answer makes of the state (`join`). Keys that rest are bounded: one that is forgotten is tended once it
//! is next read or written. See `docs/decisions/standings.md`.

use super::sorting::Step;
use super::{ActiveKey, Asked, Job, Question};
use crate::coordinator::{self, Turn};
use crate::event::Effects;
use crate::id::{Millis, OpId};
use crate::mutant::Mutant;
use crate::node::{Node, Timer};
use crate::plugin::{PluginAnswer, PluginCall};
use crate::request::Problem;
use crate::storage_key;
use crate::target::Target;
use crate::version::{Counts, DotSet, Fragments, KeyState};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// A write waits so long for the join of what it brings, where the last one came in time: mostly the plugin answers
/// within a millisecond, and one fragment is written instead of operands now and their join later.
const JOIN_GRACE_MS: u64 = 5;
/// After so long without an answer there is none.
const ANSWER_MS_MAX: u64 = 15_000;
/// A key rests so long after its first failure, then twice as long each time.
const REST_MS: u64 = 1_000;
const REST_MS_MAX: u64 = 30_000;
/// After a join whose result is too large: only a delete makes it smaller.
const TOO_LARGE_REST_MS: u64 = 600_000;
/// A read has seen operands: the replicas have a moment to join them by themselves.
const SEEN_REST_MS: u64 = 200;
/// Keys that rest.
const RESTS_MAX: usize = 10_000;
/// Keys woken in one turn.
const BATCH: usize = 32;

/// Questions under way, and keys that rest.
#[derive(Default)]
pub(crate) struct Tending {
    asks: BTreeMap<OpId, Bytes>,
    rests: BTreeMap<Bytes, Rest>,
    order: BTreeSet<(Millis, Bytes)>,
    next: Option<Millis>,
}

struct Rest {
    tried_at: Millis,
    until: Millis,
    failures: u32,
    reason: String,
}

impl Node {
    /// The plugin's next question about a key, if it is its turn.
    pub(super) fn ask_next(
        &mut self,
        now: Millis,
        storage_key: &Bytes,
        active: &mut ActiveKey,
        effects: &mut Effects,
    ) {
        if active.asked.is_some() || !matches!(active.state, Some(KeyState::Lattice(_))) {
            return;
        }
        let mut waits = false;
        while let Some((op, change)) = active.operations.pop_front() {
            match self.operation(now, active, op, change, effects) {
                Turn::Over => {}
                Turn::NoDot(change) => {
                    active.operations.push_front((op, change));
                    self.hold(storage_key.clone());
                    break;
                }
                Turn::JoinFirst(change) => match self.rests_for_operations(now, storage_key) {
                    Some(reason) => {
                        let reason = format!("the operands of the key could not be joined: {reason}");
                        self.write_failed(op, Problem::Unresolved { reason }, effects);
                    }
                    None => {
                        active.operations.push_front((op, change));
                        waits = true;
                        break;
                    }
                },
                Turn::Ask(applying, call) => {
                    return self.ask(now, storage_key, active, Question::Apply(applying), *call, effects);
                }
            }
        }
        if !waits && self.rests(now, storage_key) {
            return;
        }
        if let Some((question, call)) = self.next_question(now, storage_key, active, effects) {
            self.ask(now, storage_key, active, question, call, effects);
        } else if !self.rests(now, storage_key) {
            self.no_rest(storage_key);
        }
    }

    /// What is to be validated or joined.
    fn next_question(
        &mut self,
        now: Millis,
        storage_key: &Bytes,
        active: &mut ActiveKey,
        effects: &mut Effects,
    ) -> Option<(Question, PluginCall)> {
        let epoch = active.target.entry.epoch;
        let asides_stop = self.mutant(Mutant::AsideStopsOthers);
        let key = coordinator::key_info(&active.target);
        let Some(KeyState::Lattice(fragments)) = &active.state else { return None };
        let question = match active.sorting.as_mut().map(|sorting| sorting.next(fragments)) {
            Some(Step::Validate(claim)) => Question::Validate(claim),
            Some(Step::Join(claims)) => Question::Join(claims),
            Some(Step::Aside(aside)) => {
                active.sorting = None;
                let mut any = false;
                for (claim, reason) in aside {
                    any |= self.set_aside(active, &claim, epoch, &reason, effects);
                }
                if !any && fragments_of(active).is_some_and(|fragments| fragments.valid().count() > 1) {
                    // Nobody was found, and a join of all failed: once more, later.
                    self.rest(now, storage_key, "the join fails now and then".into(), false);
                    return None;
                }
                return self.next_question(now, storage_key, active, effects);
            }
            None => {
                let valid: Vec<DotSet> = fragments.valid().map(|fragment| fragment.claim.clone()).collect();
                let mut unvalidated = fragments
                    .unjoined()
                    .filter(|fragment| fragment.standing.counts(epoch) == Counts::Unvalidated);
                match (valid.len(), unvalidated.next()) {
                    (2.., _) if !(asides_stop && fragments.unjoined().next().is_some()) => {
                        Question::Join(valid)
                    }
                    (_, Some(fragment)) => Question::Validate(fragment.claim.clone()),
                    _ => return None,
                }
            }
        };
        let call = match &question {
            Question::Validate(claim) => {
                let value = value_of(fragments, claim)?;
                PluginCall::Validate { key, value }
            }
            Question::Join(claims) => {
                let states = claims.iter().filter_map(|claim| value_of(fragments, claim)).collect();
                PluginCall::Merge { key, states }
            }
            Question::Apply(_) => return None,
        };
        Some((question, call))
    }

    fn ask(
        &mut self,
        now: Millis,
        storage_key: &Bytes,
        active: &mut ActiveKey,
        question: Question,
        call: PluginCall,
        effects: &mut Effects,
    ) {
        let id = self.op();
        let is_join = matches!(question, Question::Join(_));
        self.counters.joins += u64::from(is_join);
        let waits_on = self.mutant(Mutant::PutWaitsForJoin);
        let holds = is_join && active.dirty && active.sorting.is_none() && (waits_on || !active.slow);
        let at = match &question {
            Question::Apply(applying) => applying.deadline,
            _ if holds && !waits_on => now.after(JOIN_GRACE_MS),
            _ => now.after(ANSWER_MS_MAX),
        };
        let epoch = active.target.entry.epoch;
        active.asked = Some(Asked { id, question, epoch, at, holds });
        self.set_timer(at, Timer::Plugin(id));
        self.tending.asks.insert(id, storage_key.clone());
        self.ask_plugin(storage_key, id, active, call, effects);
    }

    /// A question is answered, or given up.
    pub(super) fn question_over(&mut self, asked: &Asked) {
        self.clear_timer(asked.at, Timer::Plugin(asked.id));
        self.tending.asks.remove(&asked.id);
    }

    /// An active key's question has not been answered: in the moment that a write waits for it, or at all.
    pub(crate) fn plugin_timed_out(&mut self, now: Millis, ask: OpId, effects: &mut Effects) {
        let Some(storage_key) = self.tending.asks.get(&ask).cloned() else { return };
        let asked = self.active.get_mut(&storage_key).and_then(|active| {
            let asked = active.asked.as_mut().filter(|asked| asked.id == ask)?;
            let held = std::mem::take(&mut asked.holds);
            if held {
                active.slow = true;
                asked.at = now.after(ANSWER_MS_MAX);
            }
            Some((held, asked.at))
        });
        match asked {
            Some((true, at)) => {
                self.set_timer(at, Timer::Plugin(ask));
                self.work(now, storage_key, effects);
            }
            Some((false, _)) => {
                let answer = PluginAnswer::Failed("no answer in time".into());
                self.active_plugin_done(now, storage_key, ask, answer, effects);
            }
            None => drop(self.tending.asks.remove(&ask)),
        }
    }

    fn rests(&self, now: Millis, storage_key: &Bytes) -> bool {
        self.tending.rests.get(storage_key).is_some_and(|rest| now < rest.until)
    }

    /// Why an operation is not worth another join just now.
    fn rests_for_operations(&self, now: Millis, storage_key: &Bytes) -> Option<String> {
        let rest = self.tending.rests.get(storage_key).filter(|rest| now < rest.until)?;
        let is_final = rest.until.since(rest.tried_at) > REST_MS_MAX;
        (is_final || now < rest.tried_at.after(REST_MS)).then(|| rest.reason.clone())
    }

    /// A key's question failed: it is asked again later.
    pub(super) fn rest(&mut self, now: Millis, storage_key: &Bytes, reason: String, is_too_large: bool) {
        let failures = self.tending.rests.get(storage_key).map_or(0, |rest| rest.failures) + 1;
        let rest_ms = match is_too_large {
            true => TOO_LARGE_REST_MS,
            false => (REST_MS << failures.min(16).saturating_sub(1)).min(REST_MS_MAX),
        };
        let rest = Rest { tried_at: now, until: now.after(rest_ms), failures, reason };
        self.set_rest(storage_key.clone(), rest);
    }

    fn set_rest(&mut self, storage_key: Bytes, rest: Rest) {
        self.no_rest(&storage_key);
        if self.tending.rests.len() >= RESTS_MAX
            && let Some((_, oldest)) = self.tending.order.pop_first()
        {
            self.tending.rests.remove(&oldest);
        }
        let until = rest.until;
        self.tending.order.insert((until, storage_key.clone()));
        self.tending.rests.insert(storage_key, rest);
        self.wake_to_tend(until);
    }

    /// Nothing is left to do for a key, or something has changed: it does not rest.
    pub(crate) fn no_rest(&mut self, storage_key: &Bytes) {
        if let Some(rest) = self.tending.rests.remove(storage_key) {
            self.tending.order.remove(&(rest.until, storage_key.clone()));
        }
    }

    /// A read at this primary saw operands that are not joined.
    pub(crate) fn tend_later(&mut self, now: Millis, target: &Target) {
        if !self.tending.rests.contains_key(&target.storage_key) && self.tending.rests.len() < RESTS_MAX {
            let until = now.after(SEEN_REST_MS);
            let rest = Rest { tried_at: now, until, failures: 0, reason: "it was not tried yet".into() };
            self.set_rest(target.storage_key.clone(), rest);
        }
    }

    fn wake_to_tend(&mut self, at: Millis) {
        match self.tending.next {
            Some(next) if next <= at => return,
            Some(next) => self.clear_timer(next, Timer::Tend),
            None => {}
        }
        self.tending.next = Some(at);
        self.set_timer(at, Timer::Tend);
    }

    /// Keys have rested long enough.
    pub(crate) fn tend_due(&mut self, now: Millis, effects: &mut Effects) {
        self.tending.next = None;
        for _ in 0..BATCH {
            let Some((at, storage_key)) = self.tending.order.first().cloned() else { return };
            if at > now {
                return self.wake_to_tend(at);
            }
            self.tending.order.remove(&(at, storage_key.clone()));
            let object = storage_key::parse_object(&storage_key);
            let entry = object.as_ref().and_then(|(keyspace, _)| self.keyspaces.by_id(*keyspace));
            let (Some((_, key)), Some(entry)) = (object, entry) else {
                self.tending.rests.remove(&storage_key);
                continue;
            };
            let target = Target::new(entry, &key);
            match self.ring.primaries(target.token, target.n()).contains(&self.config.node) {
                true => self.enqueue(now, &target, Job::Tend, effects),
                false => drop(self.tending.rests.remove(&storage_key)),
            }
        }
        self.wake_to_tend(now.after(1));
    }
}

fn fragments_of(active: &ActiveKey) -> Option<&Fragments> {
    match &active.state {
        Some(KeyState::Lattice(fragments)) => Some(fragments),
        _ => None,
    }
}

fn value_of(fragments: &Fragments, claim: &DotSet) -> Option<Bytes> {
    fragments.iter().find(|fragment| fragment.claim == *claim).map(|fragment| fragment.value.clone())
}
