//! Former actors leave their node's list once no context names them (R14): the list says whom to retire, and is told to
//! every member with each change, so that a node that has crashed often must not carry it for ever.
//!
//! ```text
//!   a node with a long list ─ RollCall{actors} ─▶ all members ─ one walk over all heads, begun after the call
//!                           ◀─ Rolled{named} ───
//!   all have answered: whoever nobody named leaves the list
//! ```
//!
//! Nothing hangs on it but length: an actor that a late message brings into a context after it left the list stays in that context, as
//! one span. In: calls, pages of heads. Out: answers, a shorter list. Absent: retirement itself (`owner`), the pages (`walk`).

use super::message::FenceMessage;
use crate::boot::FORMER_ACTORS_MAX;
use crate::event::Effects;
use crate::id::{ActorId, Millis, NodeId, OpId};
use crate::node::Node;
use crate::version::KeyState;
use std::collections::{BTreeMap, BTreeSet};

/// A list that is shorter is left as it is: each call costs every member a walk.
const ROLL_FROM: usize = 8;
/// How long a node rests between two calls of its own, in periods of collection.
const REST_PERIODS: u64 = if cfg!(test) { 10 } else { 3_000 };
/// Members that are silent are asked again after so many periods: a walk takes long, and may have died with its process.
const AGAIN_PERIODS: u64 = if cfg!(test) { 5 } else { 300 };

/// Calls of this node, and those of others.
#[derive(Default)]
pub(super) struct Roll {
    /// This node's own, under way.
    own: Option<OwnCall>,
    due: Millis,
    /// By who called.
    calls: BTreeMap<NodeId, Call>,
    /// The last answer to each, should it call again.
    answered: BTreeMap<NodeId, (OpId, Vec<ActorId>)>,
}

struct OwnCall {
    round: OpId,
    actors: Vec<ActorId>,
    silent: BTreeSet<NodeId>,
    named: BTreeSet<ActorId>,
    again_at: Millis,
}

struct Call {
    round: OpId,
    actors: BTreeSet<ActorId>,
    named: BTreeSet<ActorId>,
    /// The walk that is under way began after the call.
    is_walked: bool,
    /// Some heads could not be read: any actor may be named.
    has_gaps: bool,
}

impl Roll {
    /// A walk over all keys begins.
    pub(super) fn walk_begins(&mut self) {
        for call in self.calls.values_mut() {
            (call.is_walked, call.has_gaps) = (true, false);
            call.named.clear();
        }
    }

    /// The walk has met a key's head; None: it could not read it.
    pub(super) fn walked(&mut self, state: Option<&KeyState>) {
        for call in self.calls.values_mut().filter(|call| call.is_walked) {
            match state {
                // Of a lattice nothing is retired.
                Some(KeyState::Causal(siblings)) => {
                    let actors = siblings.seen().spans().iter().map(|span| span.actor);
                    call.named.extend(actors.filter(|actor| call.actors.contains(actor)));
                }
                Some(_) => {}
                None => call.has_gaps = true,
            }
        }
    }
}

impl Node {
    /// A period of this node's own list.
    pub(super) fn roll_period(&mut self, now: Millis, effects: &mut Effects) {
        let period_ms = self.config.collect_period_ms;
        let former = self.identity.durable().former_actors.len();
        let is_due = self.fence.roll.own.is_none() && self.fence.roll.due <= now && former >= ROLL_FROM;
        if is_due && self.members_away().is_empty() {
            let round = self.op();
            let actors = self.identity.durable().former_actors.clone();
            let silent = self.members_needed().into_iter().collect();
            self.fence.roll.due = now.after(REST_PERIODS * period_ms);
            self.fence.roll.own =
                Some(OwnCall { round, actors, silent, named: BTreeSet::new(), again_at: now });
        }
        let Some(own) = self.fence.roll.own.as_mut().filter(|own| own.again_at <= now) else { return };
        own.again_at = now.after(AGAIN_PERIODS * period_ms);
        let message = FenceMessage::RollCall { round: own.round, actors: own.actors.clone() };
        let silent: Vec<NodeId> = own.silent.iter().copied().collect();
        for to in silent {
            self.tell_member(now, to, message.clone(), effects);
        }
    }

    /// A member wants to know which of its former actors contexts name here.
    pub(super) fn roll_called(
        &mut self,
        now: Millis,
        from: NodeId,
        round: OpId,
        actors: Vec<ActorId>,
        effects: &mut Effects,
    ) {
        if let Some((_, named)) = self.fence.roll.answered.get(&from).filter(|(last, _)| *last == round) {
            let message = FenceMessage::Rolled { round, named: named.clone() };
            return self.tell_member(now, from, message, effects);
        }
        if self.fence.roll.calls.get(&from).is_some_and(|call| call.round == round) {
            return;
        }
        let (actors, named) = (actors.into_iter().collect(), BTreeSet::new());
        let call = Call { round, actors, named, is_walked: false, has_gaps: false };
        self.fence.roll.calls.insert(from, call);
        if self.fence.boot.is_none() {
            self.walk_all();
        }
    }

    /// A walk over all keys has ended: calls from before it are answered, later ones are walked for now.
    pub(super) fn walk_ended(&mut self, now: Millis, effects: &mut Effects) {
        // Hints hold contexts, too; they go home.
        let keeps_hints = self.keeps_any_hint();
        let calls = std::mem::take(&mut self.fence.roll.calls);
        let (walked, later): (BTreeMap<_, _>, BTreeMap<_, _>) =
            calls.into_iter().partition(|(_, call)| call.is_walked);
        self.fence.roll.calls = later;
        for (to, call) in walked {
            let named = if keeps_hints || call.has_gaps { call.actors } else { call.named };
            let named: Vec<ActorId> = named.into_iter().collect();
            self.fence.roll.answered.insert(to, (call.round, named.clone()));
            self.tell_member(now, to, FenceMessage::Rolled { round: call.round, named }, effects);
        }
        if !self.fence.roll.calls.is_empty() {
            self.walk_all();
        }
    }

    /// A member has walked for this node's call.
    pub(super) fn rolled(&mut self, from: NodeId, round: OpId, named: &[ActorId], effects: &mut Effects) {
        let Some(own) = self.fence.roll.own.as_mut().filter(|own| own.round == round) else { return };
        own.silent.remove(&from);
        own.named.extend(named);
        if !own.silent.is_empty() {
            return;
        }
        if let Some(OwnCall { actors, named, .. }) = self.fence.roll.own.take() {
            let unnamed: BTreeSet<ActorId> =
                actors.into_iter().filter(|actor| !named.contains(actor)).collect();
            self.forget_actors(&unnamed, effects);
        }
    }
}

/// Actors of one call at most.
pub(super) const ACTORS_MAX: usize = FORMER_ACTORS_MAX;
