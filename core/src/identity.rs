//! Who this node is while it runs: its actor and dots, its boots and ticks, each durable before
//! anybody hears of it (semantics §3).
//!
//! In: dots of ours that come in, ticks that are asked for, completions of storage. Out: dots, and
//! one write of the identity record at a time. Absent: who a node is after a start (`boot`), and
//! what the others make of it (`membership`).

use crate::boot;
use crate::event::{Durability, Effect, Effects, Notice, StorageFailure, WriteOp};
use crate::id::{ActorId, Dot, Millis};
use crate::node::{Node, Purpose};
use crate::version::DotSet;
use bytes::Bytes;
use std::collections::BTreeSet;

/// Who this node is now, and how much of that is durable.
pub(crate) struct Identity {
    /// Ahead of the disk while a write is under way.
    now: boot::Identity,
    durable: boot::Identity,
    /// What the write under way makes durable.
    writing: Option<boot::Identity>,
    /// Keys with a write that waits for a dot.
    held: BTreeSet<Bytes>,
}

impl Identity {
    /// As the shell has synced it.
    pub(crate) fn new(identity: boot::Identity) -> Identity {
        Identity { durable: identity.clone(), now: identity, writing: None, held: BTreeSet::new() }
    }

    pub(crate) fn now(&self) -> &boot::Identity {
        &self.now
    }

    /// As the disk has it for certain.
    pub(crate) fn durable(&self) -> &boot::Identity {
        &self.durable
    }

    /// A key was collected that this actor had written, up to that counter: see [`boot::Identity::collected`].
    pub(crate) fn let_go_upto(&mut self, counter: u64) {
        self.now.collected = self.now.collected.max(counter);
    }

    /// Whether a dot may be issued that contexts will name.
    fn actor_is_named(&self) -> bool {
        self.actor_is_durable() && self.durable.named
    }

    fn actor_is_durable(&self) -> bool {
        self.durable.incarnation.actor == self.now.incarnation.actor
    }

    /// Whether nothing of it waits for the disk; the counter of dots needs none.
    pub(crate) fn is_durable(&self) -> bool {
        let (now, durable) = (&self.now, &self.durable);
        self.actor_is_durable()
            && (now.boots, now.tick, now.named) == (durable.boots, durable.tick, durable.named)
            && (&now.former_actors, &now.former_disks) == (&durable.former_actors, &durable.former_disks)
    }
}

impl Node {
    /// The very last write of a clean shutdown; None while anything is under way. Of a node that never served it proves
    /// nothing: no member has said that this disk is the newest, and its actor may be another boot's, from the same image.
    pub fn clean_marker(&self) -> Option<WriteOp> {
        let idle = self.active.is_empty() && self.writing.is_empty();
        assert!(
            !idle || !self.reading.is_empty() || !self.forwarding.is_empty() || self.load.is_idle(),
            "what was taken on was answered"
        );
        (idle && self.identity.is_durable() && !self.membership.is_leaving())
            .then(|| self.identity.now.op(self.membership.is_serving() && !self.actor_is_unvouched()))
    }

    /// Whether this actor was taken up from a marker that may be an old one, for all this node has heard.
    fn actor_is_unvouched(&self) -> bool {
        self.identity.now.resumed && !self.membership.is_vouched_for()
    }

    /// Nobody waits for a member that is away: from now on this node is somebody else.
    pub(crate) fn leave_unvouched_actor(&mut self, effects: &mut Effects) {
        let is_unvouched = self.actor_is_unvouched();
        // Asked once: what was vouched for stays so.
        self.identity.now.resumed = false;
        if is_unvouched {
            self.become_another(effects);
        }
    }

    /// The next dot, of a key with a context; None while it is not durable yet that contexts may name this actor.
    pub(crate) fn mint(&mut self, effects: &mut Effects) -> Option<Dot> {
        self.leave_unvouched_actor(effects);
        if !self.identity.now.named {
            self.identity.now.named = true;
            self.store_identity(effects);
        }
        self.identity.actor_is_named().then(|| self.next_dot())
    }

    /// The next dot, of a register: no context keeps its actor, and a boot that finds no marker takes another in any
    /// case, so nothing need be durable first.
    pub(crate) fn mint_unnamed(&mut self, effects: &mut Effects) -> Dot {
        self.leave_unvouched_actor(effects);
        self.next_dot()
    }

    fn next_dot(&mut self) -> Dot {
        let incarnation = &mut self.identity.now.incarnation;
        let issued = incarnation.issued;
        incarnation.issued += 1;
        assert!(incarnation.issued > issued, "my counter strictly increases");
        Dot { actor: incarnation.actor, counter: incarnation.issued }
    }

    /// The last dot that was issued; with counter 0 before the first.
    pub fn last_dot(&self) -> Dot {
        let incarnation = self.identity.now.incarnation;
        Dot { actor: incarnation.actor, counter: incarnation.issued }
    }

    /// An active key with a write that waits for a dot.
    pub(crate) fn hold(&mut self, active: Bytes) {
        self.identity.held.insert(active);
    }

    /// Something names our dots of a key. If it knows a later one than we do, our data is older
    /// than what left us: from now on we are somebody else (riak_kv#679, PR#1094, PR#1643).
    pub(crate) fn observe(&mut self, incoming: &DotSet, known: &DotSet, effects: &mut Effects) {
        let actor = self.identity.now.incarnation.actor;
        // A key that was collected is not a key that was lost.
        let (seen, mine) = (incoming.last(actor), known.last(actor).max(self.identity.now.collected));
        if seen > mine {
            self.amnesia(Dot { actor, counter: seen }, effects);
        }
    }

    /// As [`Node::observe`], where only the counter of all keys is known.
    pub(crate) fn observe_dot(&mut self, dot: Dot, effects: &mut Effects) {
        let incarnation = self.identity.now.incarnation;
        if dot.actor == incarnation.actor && dot.counter > incarnation.issued {
            self.amnesia(dot, effects);
        }
    }

    fn amnesia(&mut self, seen: Dot, effects: &mut Effects) {
        self.counters.amnesias += 1;
        let issued = self.identity.now.incarnation.issued;
        effects.push(Effect::Notice(Notice::Amnesia { seen, issued }));
        self.become_another(effects);
    }

    /// Dots of this actor may be elsewhere and not here: it never issues one after them. An actor that no context names
    /// issued none.
    pub(crate) fn renew(&mut self, effects: &mut Effects) {
        if self.identity.now.named {
            self.become_another(effects);
        }
    }

    /// Takes a new actor, durable before its first dot that a context names.
    fn become_another(&mut self, effects: &mut Effects) {
        if self.mutant(crate::mutant::Mutant::StableActor) {
            return;
        }
        let actor = ActorId(self.random());
        self.identity.now.renew(actor);
        self.store_identity(effects);
    }

    /// Raises the tick, which the others will remember: an image of this disk from before now is
    /// noticed by whoever has heard of it. Says which tick; it is durable, and told to others, once
    /// [`Node::durable_tick`] says so.
    pub(crate) fn bump_tick(&mut self, effects: &mut Effects) -> u64 {
        self.identity.now.tick += 1;
        self.store_identity(effects);
        self.identity.now.tick
    }

    /// See [`Node::bump_tick`].
    pub(crate) fn durable_tick(&self) -> u64 {
        self.identity.durable.tick
    }

    /// This is a new disk of a node that had others: it counts its boots on from theirs, and their
    /// actors are dead.
    pub(crate) fn succeed(&mut self, life: &crate::membership::Life, effects: &mut Effects) {
        let now = &mut self.identity.now;
        now.boots = now.boots.max(life.boots.saturating_add(1));
        let disks = [life.disk].into_iter().chain(life.former_disks.iter().copied());
        boot::add(&mut now.former_disks, disks.collect::<Vec<_>>(), boot::FORMER_DISKS_MAX);
        let actors = [life.actor].into_iter().chain(life.former_actors.iter().copied());
        boot::add(&mut now.former_actors, actors.collect::<Vec<_>>(), boot::FORMER_ACTORS_MAX);
        let actor = now.incarnation.actor;
        now.former_actors.retain(|former| *former != actor);
        self.store_identity(effects);
    }

    /// No context names these any more.
    pub(crate) fn forget_actors(&mut self, unnamed: &BTreeSet<ActorId>, effects: &mut Effects) {
        self.identity.now.former_actors.retain(|actor| !unnamed.contains(actor));
        if !self.identity.is_durable() {
            self.store_identity(effects);
        }
    }

    /// Writes the identity, unless a write is under way: its end begins the next one.
    pub(crate) fn store_identity(&mut self, effects: &mut Effects) {
        if self.identity.writing.is_some() {
            return;
        }
        let ticket = self.ticket(Purpose::Identity);
        let ops = vec![self.identity.now.op(false)];
        self.identity.writing = Some(self.identity.now.clone());
        effects.push(Effect::Write { ticket, ops, durability: Durability::Sync });
    }

    /// With each of the node's own ticks: what could not be written is written again. No timer is set for that: one
    /// that was set before the clock was put back would come late by as much.
    pub(crate) fn store_identity_again(&mut self, effects: &mut Effects) {
        if !self.identity.is_durable() {
            self.store_identity(effects);
        }
    }

    pub(crate) fn identity_written(
        &mut self,
        now: Millis,
        result: &Result<(), StorageFailure>,
        effects: &mut Effects,
    ) {
        let Some(written) = self.identity.writing.take() else { return };
        if result.is_err() {
            // Without a durable actor this node coordinates nothing; its next tick tries again.
            return;
        }
        self.identity.durable = written;
        if !self.identity.is_durable() {
            self.store_identity(effects);
        }
        self.own_life_changed(now, effects);
        self.tick_is_durable(now, effects);
        if self.identity.actor_is_named() {
            for active in std::mem::take(&mut self.identity.held) {
                self.work(now, active, effects);
            }
        }
    }
}

#[cfg(test)]
mod identity_test;
