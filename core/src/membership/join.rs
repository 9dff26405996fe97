//! From a boot to serving, and out again: an old disk never speaks.
//!
//! ```text
//!   joining ── a member knows this node, and finds nothing wrong, ─┐
//!      │    └─ or none of those in reach knows it, ─────────────────┴▶ and one keeps this boot ─▶ serving
//!      ├────── or none has answered in time ──────────────────────────────────────────────▶ serving
//!      ├────── the disk has no catalog to give ─▶ waits for a member's
//!      └────── this disk is older than what left it, or was forgotten ─▶ leaving ─▶ RejoinEmpty
//! ```
//!
//! A joining node answers no data message and coordinates nothing. One that is leaving says nothing
//! at all; the shell sets its data directory aside and starts anew with an empty one. In: what
//! members know of this node. Out: the stage. Absent: setting aside.

use super::life::{Entry, Remembered};
use crate::admin::{AdminProblem, AdminReply};
use crate::event::{Effect, Effects, Event, Notice, Record, StorageFailure};
use crate::id::{DiskId, Millis, NodeId};
use crate::message::Message;
use crate::mutant::Mutant;
use crate::node::{Node, Purpose};
use crate::request::{Outcome, Problem};
use crate::storage_key;
use std::collections::BTreeSet;

/// When a client that came too early should come back.
const RETRY_AFTER_MS: u32 = 50;

/// Why a node must go on with an empty disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejoinReason {
    /// Its disk is older than what left it, or was replaced by another.
    OldDisk,
    /// It was away for longer than the members wait.
    Forgotten,
}

/// How far a node has come since its boot.
pub(super) struct Stage {
    phase: Phase,
    /// Whether what it knew of the members before is read, or being read.
    read: Reading,
    /// The tick with which it booted: nobody can rightly know a later one of an earlier boot.
    booted_tick: u64,
    answered: BTreeSet<NodeId>,
    /// Those of them that knew this node.
    recognised: BTreeSet<NodeId>,
    /// A member has this boot on its disk.
    kept: bool,
    /// The disk could not say which keyspaces there are, and no member has yet.
    lacks_catalog: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Joining,
    Serving,
    Leaving,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Wanted,
    UnderWay,
    Done,
}

impl Stage {
    pub(super) fn booted(tick: u64) -> Stage {
        Stage {
            phase: Phase::Joining,
            read: Reading::Wanted,
            booted_tick: tick,
            answered: BTreeSet::new(),
            recognised: BTreeSet::new(),
            kept: false,
            lacks_catalog: false,
        }
    }

    pub(super) fn is_joining(&self) -> bool {
        self.phase == Phase::Joining
    }

    pub(super) fn has_read(&self) -> bool {
        self.read == Reading::Done
    }
}

impl super::Membership {
    pub(crate) fn is_leaving(&self) -> bool {
        self.stage.phase == Phase::Leaving
    }

    /// Whether it serves.
    pub(crate) fn is_serving(&self) -> bool {
        self.stage.phase == Phase::Serving
    }

    /// Whether nobody can know of another boot from a copy of this disk, which may have gone on as the same actor: the one
    /// member that keeps such a boot may be the one that has not answered.
    pub(crate) fn is_vouched_for(&self) -> bool {
        let mut peers = self.peers.keys();
        self.peers.is_empty() || (self.stage.kept && peers.all(|peer| self.stage.recognised.contains(peer)))
    }

    /// Whether nobody who has not answered since the boot is waited for any longer.
    pub(super) fn patience_is_over(&self, patience_ms: u64) -> bool {
        self.time.lived_ms() >= patience_ms
    }
}

impl Node {
    pub(super) fn read_members(&mut self, effects: &mut Effects) {
        self.membership.stage.read = Reading::UnderWay;
        let ticket = self.ticket(Purpose::Members);
        effects.push(Effect::Read { ticket, key: storage_key::members() });
    }

    pub(super) fn read_members_again(&mut self, effects: &mut Effects) {
        if self.membership.stage.read == Reading::Wanted {
            self.read_members(effects);
        }
    }

    /// What was known of the members before this boot has been read.
    pub(crate) fn members_read(
        &mut self,
        now: Millis,
        result: Result<Option<Record>, StorageFailure>,
        effects: &mut Effects,
    ) {
        let damaged = |reason: String| Notice::CorruptRecord { key: storage_key::members(), reason };
        let remembered = match result {
            Ok(None) => Remembered::default(),
            Ok(Some(record)) => Remembered::decode(record.body).unwrap_or_else(|error| {
                effects.push(Effect::Notice(damaged(error.to_string())));
                Remembered::default()
            }),
            Err(StorageFailure::Corrupt(reason)) => {
                effects.push(Effect::Notice(damaged(reason)));
                Remembered::default()
            }
            Err(StorageFailure::Overloaded | StorageFailure::Failed(_)) => {
                self.membership.stage.read = Reading::Wanted;
                return;
            }
        };
        let m = &mut self.membership;
        m.stage.read = Reading::Done;
        for (node, (entry, down_ms)) in remembered.members {
            if let Some(peer) = m.peers.get_mut(&node) {
                peer.entry = Some(entry);
                peer.down_ms = down_ms;
            }
        }
        m.forgotten = remembered.forgotten;
        m.forgotten.retain(|node, _| m.peers.contains_key(node));
        m.index_dead_actors();
        let peers: Vec<NodeId> = self.linked().collect();
        peers.into_iter().for_each(|peer| self.gossip_with(peer, effects));
        self.try_to_join(now, effects);
    }

    /// The disk could not give the catalog: this node serves once it has a member's, however long that takes. It would
    /// take hints for hints of nothing, and damage for damage of nothing.
    pub fn lacks_catalog(&mut self) {
        self.membership.stage.lacks_catalog = true;
    }

    /// A member's catalog is as this node's.
    pub(super) fn catalogs_agree(&mut self) {
        self.membership.stage.lacks_catalog = false;
    }

    /// A member has answered, and said whether it knew this node, and keeps that it has booted.
    pub(super) fn answered(&mut self, from: NodeId, knows_me: bool, keeps_me: bool) {
        let stage = &mut self.membership.stage;
        stage.answered.insert(from);
        stage.recognised.extend(knows_me.then_some(from));
        stage.kept |= keeps_me;
    }

    pub(super) fn try_to_join(&mut self, now: Millis, effects: &mut Effects) {
        let m = &self.membership;
        if !m.stage.is_joining() || !m.stage.has_read() || !self.identity.is_durable() {
            return;
        }
        if m.stage.lacks_catalog {
            return;
        }
        let is_alone = m.peers.is_empty();
        let all_answered =
            !m.stage.answered.is_empty() && self.linked().all(|peer| m.stage.answered.contains(&peer));
        let patience_is_over = m.patience_is_over(self.config.join_patience_ms);
        let is_known = m.stage.kept && (!m.stage.recognised.is_empty() || all_answered);
        if is_alone || is_known || patience_is_over {
            let recognised = !m.stage.recognised.is_empty();
            self.membership.stage.phase = Phase::Serving;
            // An image from before this boot stays an older one, however often it boots unheard.
            self.bump_tick(effects);
            effects.push(Effect::Notice(Notice::Joined { recognised }));
            let peers: Vec<NodeId> = self.linked().collect();
            peers.into_iter().for_each(|peer| self.member_is_reachable(now, peer));
        }
    }

    /// What a member knows of this node.
    pub(super) fn learn_of_myself(&mut self, known: &Entry, effects: &mut Effects) {
        let me = self.identity.now();
        let life = &known.life;
        if life.session == self.membership.own.life.session {
            return;
        }
        if life.former_disks.contains(&me.disk) {
            return self.rejoin_empty(RejoinReason::OldDisk, effects);
        }
        if life.disk == me.disk {
            // Boots and ticks were durable here before anybody heard of them.
            if life.boots >= me.boots || life.tick > self.membership.stage.booted_tick {
                self.rejoin_empty(RejoinReason::OldDisk, effects);
            }
            return;
        }
        if life.boots >= me.boots || !me.former_disks.contains(&life.disk) {
            self.succeed(life, effects);
        }
    }

    pub(super) fn learn_that_it_is_forgotten(&mut self, disk: DiskId, effects: &mut Effects) {
        if disk == self.identity.now().disk {
            self.rejoin_empty(RejoinReason::Forgotten, effects);
        }
    }

    fn rejoin_empty(&mut self, reason: RejoinReason, effects: &mut Effects) {
        if self.membership.is_leaving() || self.mutant(Mutant::OldDiskServes) {
            return;
        }
        self.membership.stage.phase = Phase::Leaving;
        // What was decided in this turn must not leave it either.
        effects.retain(|effect| !matches!(effect, Effect::Send { .. } | Effect::Write { .. }));
        effects.push(Effect::RejoinEmpty { reason });
    }

    /// Whether a node that does not serve lets this event in; clients and operators are told to come
    /// back.
    pub(crate) fn admits(&mut self, event: &Event, effects: &mut Effects) -> bool {
        if self.membership.is_serving() || self.mutant(Mutant::ServesWhileJoining) {
            return true;
        }
        match event {
            Event::Client { ticket, .. } => {
                self.membership.counters.refused_joining += 1;
                let problem = Problem::Overloaded { retry_after_ms: RETRY_AFTER_MS };
                effects.push(Effect::Reply { ticket: *ticket, outcome: Outcome::Failed(problem) });
                false
            }
            Event::Admin { ticket, .. } if self.membership.is_leaving() => {
                let problem = AdminProblem::Refused("this node begins anew with an empty disk".into());
                effects.push(Effect::AdminReply { ticket: *ticket, reply: AdminReply::Failed(problem) });
                false
            }
            Event::Message { message, .. } => !self.membership.is_leaving() && is_no_data(message),
            _ => !self.membership.is_leaving(),
        }
    }

    /// A node that does not serve says nothing of keys, whatever it has begun: of `effects` from
    /// `first` on only what is no data leaves it.
    pub(crate) fn hold_tongue(&self, first: usize, effects: &mut Effects) {
        if self.membership.is_serving() || self.mutant(Mutant::ServesWhileJoining) {
            return;
        }
        let is_said = |effect: &Effect| match effect {
            Effect::Send { message, .. } => is_no_data(message),
            _ => true,
        };
        if !effects.iter().skip(first).all(is_said) {
            let held: Effects = effects.drain(first.min(effects.len())..).filter(is_said).collect();
            effects.extend(held);
        }
    }
}

/// Whether a message is about the cluster, and not about keys.
fn is_no_data(message: &Message) -> bool {
    matches!(
        message,
        Message::Gossip(_)
            | Message::CatalogPush { .. }
            | Message::PluginFetch { .. }
            | Message::PluginChunk { .. }
    )
}
