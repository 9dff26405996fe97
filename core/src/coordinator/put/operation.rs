//! An operation of a replicated type: its turn with the plugin, and what its answer makes of the state.
//!
//! While the plugin thinks, puts go on, so that the answer may find another state than the one that was shown. The answer
//! takes the place of what was shown, beside what came since; where a delete took that away meanwhile, the plugin is asked anew.
//! In: an active key, an operation. Out: the question; the state with the operation in it, or why not. Absent: when it is
//! an operation's turn (`replica/tend`).

use super::{Change, Issued, Minted};
use crate::coordinator::key_info;
use crate::event::Effects;
use crate::id::{Millis, OpId};
use crate::node::Node;
use crate::plugin::{PluginAnswer, PluginCall, PluginOperation};
use crate::replica::{ActiveKey, within_limit};
use crate::request::Problem;
use crate::version::{DotSet, KeyState, Stamp, Standing};
use bytes::Bytes;

/// An operation that the plugin was asked to apply.
pub(crate) struct Applying {
    op: OpId,
    change: Change,
    issued: Issued,
    /// What the fragment claimed that the plugin was shown.
    base: Option<DotSet>,
    /// Of the state's resets.
    resets: u64,
    /// When whoever sent it loses patience.
    pub(crate) deadline: Millis,
}

impl Applying {
    /// The dots that are the operation's, whether or not it succeeds.
    pub(crate) fn claim(&self) -> DotSet {
        self.issued.claim()
    }

    /// As it was before its turn.
    pub(crate) fn again(self) -> (OpId, Change) {
        (self.op, self.change)
    }
}

/// What an operation's turn comes to.
pub(crate) enum Turn {
    /// It was refused, or nobody waits for it any more.
    Over,
    /// It waits for a durable incarnation.
    NoDot(Change),
    /// It needs one joined state.
    JoinFirst(Change),
    /// The plugin is to apply it.
    Ask(Box<Applying>, Box<PluginCall>),
}

impl Node {
    /// It is an operation's turn.
    pub(crate) fn operation(
        &mut self,
        now: Millis,
        active: &mut ActiveKey,
        op: OpId,
        change: Change,
        effects: &mut Effects,
    ) -> Turn {
        let Some(writing) = self.writing.get(&op) else { return Turn::Over };
        let (request_id, deadline) = (writing.request_id, writing.deadline);
        let seen = writing.context.as_ref().map(|context| context.seen.clone());
        if !self.may_take_effect(op, effects) {
            return Turn::Over;
        }
        let (Change::Op(body), Some(state)) = (&change, &active.state) else { return Turn::Over };
        let known = state.seen();
        let KeyState::Lattice(fragments) = state else { return Turn::Over };
        if let Some(problem) = self.over_limit(active, fragments, body.len()) {
            self.write_failed(op, problem, effects);
            return Turn::Over;
        }
        if fragments.valid().count() > 1 {
            return Turn::JoinFirst(change);
        }
        let Some(dot) = self.mint(effects) else { return Turn::NoDot(change) };
        let base = fragments.valid().next();
        let state = base.map(|fragment| fragment.value.clone());
        let (base, resets) = (base.map(|fragment| fragment.claim.clone()), fragments.epoch);
        let previous = self.previous(active, &known, dot);
        let stamp = self.clock.issue(now, Stamp::default());
        let op_id = request_id.map(|id| Bytes::copy_from_slice(&id.0)).unwrap_or_default();
        let operation = PluginOperation { body: body.clone(), dot, previous, stamp, op_id, seen };
        let call = PluginCall::Apply { key: key_info(&active.target), state, operation };
        let issued = Issued { dot, previous, stamp };
        Turn::Ask(Box::new(Applying { op, change, issued, base, resets, deadline }), Box::new(call))
    }

    /// The plugin has applied an operation, or not.
    pub(crate) fn applied(
        &mut self,
        active: &mut ActiveKey,
        applying: Applying,
        epoch: u64,
        answer: PluginAnswer,
        effects: &mut Effects,
    ) {
        let Applying { op, change, issued, base, resets, .. } = applying;
        let value = match self.applied_value(active, answer, effects) {
            Ok(value) => value,
            Err(problem) => {
                fill(active, &issued);
                return self.write_failed(op, problem, effects);
            }
        };
        // Its patience may have ended meanwhile: then it was told that nothing is stored.
        if !self.may_take_effect(op, effects) {
            return fill(active, &issued);
        }
        let Some(KeyState::Lattice(fragments)) = active.state.as_mut() else {
            active.operations.push_front((op, change));
            return;
        };
        let is_gone = |base: &DotSet| !fragments.iter().any(|fragment| base.within(&fragment.claim));
        if fragments.epoch != resets || base.as_ref().is_some_and(is_gone) {
            fill(active, &issued);
            active.operations.push_front((op, change));
            return;
        }
        let known = fragments.seen();
        let Issued { dot, previous, stamp } = issued;
        fragments.applied(base.as_ref(), dot, previous, stamp, value, Standing::valid(epoch));
        let siblings = fragments.len() as u32;
        let seen = self.seen_after(known.clone(), &known, dot, previous);
        self.changed(active, op, Minted { dot, previous, stamp, seen, siblings });
    }

    /// The state after an operation, or why there is none, for whoever sent it.
    fn applied_value(
        &mut self,
        active: &ActiveKey,
        answer: PluginAnswer,
        effects: &mut Effects,
    ) -> Result<Bytes, Problem> {
        match within_limit(answer) {
            PluginAnswer::Value(value) => Ok(value),
            PluginAnswer::Rejected { kind, message } => Err(Problem::InvalidValue { kind, reason: message }),
            PluginAnswer::TooLarge { size_bytes, limit_bytes } => {
                Err(Problem::TooLarge { what: "state", size_bytes, limit_bytes })
            }
            other => {
                let reason = crate::coordinator::reason(other);
                self.plugin_failed(&active.target.entry, format!("apply: {reason}"), effects);
                Err(Problem::Unresolved { reason })
            }
        }
    }
}

/// The dot of an operation that came to nothing: no write has it. Where later ones were issued meanwhile it would stay a
/// gap in every context.
fn fill(active: &mut ActiveKey, issued: &Issued) {
    if let Some(KeyState::Lattice(fragments)) = active.state.as_mut()
        && fragments.seen().last(issued.dot.actor) > issued.dot.counter
    {
        fragments.fill(&issued.claim());
        (active.record, active.dirty) = (None, true);
    }
}
