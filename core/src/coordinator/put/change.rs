//! What a write does to the state of its key, once that is at hand.
//!
//! In: an active key, a write that waits for it. Out: the state with the write's dot in it, or why
//! not. Absent: registers, which are written unread, and operations (`operation`).

use super::{Change, Minted, Step, distinct};
use crate::catalog::DeleteSemantics;
use crate::event::{Effect, Effects, Notice};
use crate::id::{Dot, Millis, OpId, RequestId};
use crate::limits::CLIENT_STATE_BYTES_MAX;
use crate::mutant::Mutant;
use crate::node::Node;
use crate::replica::{ActiveKey, Home};
use crate::request::Problem;
use crate::version::context::SPANS_ALARM;
use crate::version::filled;
use crate::version::{Content, Context, DotSet, Fragments, KeyState, Stamp, Standing, Version};
use bytes::Bytes;
use std::borrow::Cow;

impl Node {
    /// Does a write to the state of its active key.
    pub(crate) fn apply_change(
        &mut self,
        now: Millis,
        active: &mut ActiveKey,
        op: OpId,
        change: Change,
        effects: &mut Effects,
    ) -> Step {
        // Its patience may have ended while it waited: then nothing is stored.
        let Some(writing) = self.writing.get(&op) else { return Step::Done };
        let (request_id, context) = (writing.request_id, writing.context.clone());
        let standing = match writing.unvalidated.is_some() && !self.mutant(Mutant::UnvalidatedJoins) {
            true => Standing::UNVALIDATED,
            false => Standing::valid(active.target.entry.epoch),
        };
        let Some(state) = active.state.as_ref() else { return Step::Done };
        if let Change::Again { dot, previous, stamp } = change {
            return self.again(now, active, op, dot, previous, stamp, effects);
        }
        if !self.may_take_effect(op, effects) {
            return Step::Done;
        }
        let earlier = match (state, request_id) {
            (KeyState::Causal(siblings), Some(id)) if !self.mutant(Mutant::RetryGetsNewDot) => {
                if siblings.of_request(id).is_some_and(|(_, version)| !change.is_of(version)) {
                    self.write_failed(op, Problem::RequestIdReused, effects);
                    return Step::Done;
                }
                match self.mutant(Mutant::RetryElsewhereTakesEffect) {
                    true => siblings.of_request(id).map(|(dot, version)| (dot, version.stamp)),
                    false => siblings.dot_of(id),
                }
            }
            _ => None,
        };
        if let Some((dot, stamp)) = earlier {
            // Siblings are looked up by their dot, so the span need not be the exact one.
            return self.again(now, active, op, dot, dot.counter - 1, stamp, effects);
        }
        let known = state.seen();
        let stands_in = active.home != Home::Object;
        let seen = context.as_ref().map(|context| context.seen.clone()).unwrap_or_default();
        match stands_in {
            false => self.observe(&seen, &known, effects),
            true => self.observe_all(&seen, effects),
        }
        match state {
            KeyState::Causal(_) => {
                if let Some((siblings, size_bytes)) = self.too_many(now, active, &seen, &change) {
                    let Some(state) = &active.state else { return Step::Done };
                    let all = Context::of(&known, state);
                    let context = self.sealer.seal(active.target.entry.id, &active.target.key, &all);
                    let limit = active.target.entry.settings.siblings_max;
                    let limit_bytes = CLIENT_STATE_BYTES_MAX as u64;
                    let problem = Problem::SiblingLimit { siblings, limit, size_bytes, limit_bytes, context };
                    self.write_failed(op, problem, effects);
                    return Step::Done;
                }
                let Some(dot) = self.mint(effects) else { return Step::NoDot(change) };
                let stamp = self.clock.issue(now, Stamp::default());
                let Some(version) = version_of(change, stamp, request_id) else { return Step::Done };
                let superseded = if self.mutant(Mutant::ContextIgnored) {
                    DotSet::new()
                } else if self.mutant(Mutant::ContextInvented) {
                    known.clone()
                } else {
                    seen.clone()
                };
                let previous = self.previous(active, &known, dot);
                let Some(KeyState::Causal(siblings)) = active.state.as_mut() else { return Step::Done };
                siblings.write(&superseded, dot, previous, version);
                let siblings_after = siblings.len_distinct(now) as u32;
                let seen = self.seen_after(seen, &known, dot, previous);
                let seen = filled(&seen, siblings);
                let spans = siblings.seen().spans().len();
                if spans >= SPANS_ALARM {
                    self.counters.large_contexts += 1;
                    // Each further write of the key would say so again.
                    if known.spans().len() < SPANS_ALARM {
                        effects.push(Effect::Notice(Notice::LargeContext {
                            keyspace: active.target.entry.name.clone(),
                            key: active.target.key.clone(),
                            spans,
                        }));
                    }
                }
                self.changed(active, op, Minted { dot, previous, stamp, seen, siblings: siblings_after });
                Step::Done
            }
            KeyState::Lattice(fragments) => {
                if let Change::Op(_) = change {
                    if let Some(writing) = self.writing.get_mut(&op) {
                        writing.asks_plugin = true;
                    }
                    return Step::AskPlugin(change);
                }
                if let Change::Put { value, .. } = &change
                    && let Some(problem) = self.over_limit(active, fragments, value.len())
                {
                    self.write_failed(op, problem, effects);
                    return Step::Done;
                }
                let Some(dot) = self.mint(effects) else { return Step::NoDot(change) };
                let stamp = self.clock.issue(now, Stamp::default());
                let previous = self.previous(active, &known, dot);
                let Some(KeyState::Lattice(fragments)) = active.state.as_mut() else { return Step::Done };
                let mut tried = true;
                match change {
                    Change::Put { value, .. } if self.mutant(Mutant::LatticeOverwrite) => {
                        fragments.put_over(dot, previous, stamp, value, standing);
                    }
                    Change::Put { value, .. } => fragments.put(dot, previous, stamp, value, standing),
                    _ => {
                        let wins =
                            active.target.entry.settings.delete_semantics == DeleteSemantics::DeleteWins;
                        // Operands that are joined with nothing are deleted apart from the rest.
                        let reset = wins && !fragments.is_of_unjoined(&seen);
                        fragments.delete(&seen, dot, previous, stamp, reset);
                        tried = false;
                    }
                }
                let siblings = fragments.len() as u32;
                if !tried {
                    let storage_key = active.target.storage_key.clone();
                    self.no_rest(&storage_key);
                }
                let seen = self.seen_after(seen, &known, dot, previous);
                self.changed(active, op, Minted { dot, previous, stamp, seen, siblings });
                Step::Done
            }
            // Registers are written without an active key; what comes here is a retry, handled above.
            KeyState::Lww(_) => Step::Done,
        }
    }

    /// Whether a put would leave a key with more than clients may make of it (R12): how many siblings there are, and what they
    /// would come to. A put that covers no live sibling is blind, whether its context is empty, stale, or none.
    fn too_many(
        &self,
        now: Millis,
        active: &ActiveKey,
        seen: &DotSet,
        change: &Change,
    ) -> Option<(u32, u64)> {
        let Some(KeyState::Causal(siblings)) = &active.state else { return None };
        let count = siblings.len_distinct(now) as u32;
        let is_blind = !siblings.iter().any(|(dot, _)| seen.contains(*dot));
        let is_one_too_many = is_blind && count >= active.target.entry.settings.siblings_max;
        let is_same = |(dot, version): &(Dot, Version), value: &Bytes| {
            !seen.contains(*dot) && version.content.value() == Some(value)
        };
        let put_bytes = match change {
            Change::Put { value, .. } if !siblings.iter().any(|entry| is_same(entry, value)) => value.len(),
            _ => 0,
        };
        let after = siblings.size_bytes(seen) + put_bytes;
        let grows = put_bytes > 0 && after > siblings.size_bytes(&DotSet::new());
        let is_too_large = grows && after > CLIENT_STATE_BYTES_MAX;
        (is_one_too_many || is_too_large).then_some((count, after as u64))
    }

    /// Why a lattice's key takes no put or operation of so many bytes, if it takes none (R12). Replication, hints and repair
    /// are never refused.
    pub(super) fn over_limit(
        &self,
        active: &ActiveKey,
        fragments: &Fragments,
        bytes: usize,
    ) -> Option<Problem> {
        let operands_max = active.target.entry.settings.siblings_max;
        let (operands, size_bytes) = (fragments.len() as u32, fragments.size_bytes() + bytes);
        if operands < operands_max.max(2) && size_bytes <= CLIENT_STATE_BYTES_MAX {
            return None;
        }
        let all = Context::of(&fragments.seen(), &KeyState::Lattice(fragments.clone()));
        let context = self.sealer.seal(active.target.entry.id, &active.target.key, &all);
        let (size_bytes, size_bytes_max) = (size_bytes as u64, CLIENT_STATE_BYTES_MAX as u64);
        Some(Problem::OperandLimit { operands, operands_max, size_bytes, size_bytes_max, context })
    }

    /// Its actor's dot of this key before `dot`.
    pub(super) fn previous(&mut self, active: &ActiveKey, known: &DotSet, dot: Dot) -> u64 {
        // Of an operation that the plugin has not answered, too.
        let known = match active.applying() {
            Some(applying) => Cow::Owned(DotSet::union([known, &applying.claim()].into_iter())),
            None => Cow::Borrowed(known),
        };
        match active.home {
            Home::Object => known.last(dot.actor),
            Home::Hints(_) => self.previous_as_stand_in(&active.target.storage_key, &known, dot),
        }
    }

    /// What a client has seen after its write: what it had seen, and the write itself. Not what
    /// else the coordinator holds.
    pub(super) fn seen_after(&self, mut seen: DotSet, known: &DotSet, dot: Dot, previous: u64) -> DotSet {
        if self.mutant(Mutant::ContextClaimsUnseen) {
            seen.join(known);
        }
        seen.join(&DotSet::single(dot, previous));
        seen
    }

    /// An active key's state has changed by a write of this node.
    pub(super) fn changed(&mut self, active: &mut ActiveKey, op: OpId, minted: Minted) {
        (active.record, active.dirty) = (None, true);
        active.replicate.push(op);
        self.minted(op, minted);
    }

    /// A retry of a write that is there: the same dot, and its acknowledgements once more.
    #[expect(clippy::too_many_arguments, reason = "a dot, its place and its write")]
    fn again(
        &mut self,
        now: Millis,
        active: &mut ActiveKey,
        op: OpId,
        dot: Dot,
        previous: u64,
        stamp: Stamp,
        effects: &mut Effects,
    ) -> Step {
        let Some(writing) = self.writing.get(&op) else { return Step::Done };
        let Some(state) = &active.state else { return Step::Done };
        if !state.covers(dot, stamp) {
            // Its first try left this node and was not stored here: nobody here knows more.
            let acks = writing.tally.acks();
            self.write_is_uncertain(
                op,
                Minted { dot, previous, stamp, seen: DotSet::new(), siblings: 0 },
                acks,
                effects,
            );
            return Step::Done;
        }
        let mut seen = writing.context.as_ref().map(|context| context.seen.clone()).unwrap_or_default();
        seen.join(&DotSet::single(dot, previous));
        if let KeyState::Causal(siblings) = state {
            seen = filled(&seen, siblings);
        }
        let siblings = distinct(now, state) as u32;
        active.replicate.push(op);
        // A stand-in may hold it in memory only: its hints may have gone home meanwhile.
        active.dirty |= active.home != Home::Object;
        self.minted(op, Minted { dot, previous, stamp, seen, siblings });
        Step::Done
    }
}

pub(super) fn version_of(change: Change, stamp: Stamp, request_id: Option<RequestId>) -> Option<Version> {
    let (content, content_type, receipt, expires_at) = match change {
        Change::Put { value, content_type, receipt, expires_at } => {
            (Content::Value(value), content_type, receipt, expires_at)
        }
        Change::Delete { receipt } => (Content::Tombstone, None, receipt, None),
        Change::Op(_) | Change::Again { .. } => return None,
    };
    Some(Version { content, stamp, content_type, request_id, receipt, expires_at })
}
