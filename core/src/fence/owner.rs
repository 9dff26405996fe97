//! An owner's part: rounds, one at a time, for the keys of which this node is the first primary.
//!
//! ```text
//!   idle ─▶ looking ─▶ Confirm, all members ─▶ Hold, all members ─▶ Close, all members, until they have
//!                        some keys not confirmed: left out    └ one has not held: nothing happens
//! ```
//!
//! That every member says twice that it refuses what the keys cover, and the second time after all have
//! said it once, makes all of them refuse it at one moment: whoever sent something older did so before,
//! and it met a grave or died with the process that it was sent to. In: batches, answers. Out: rounds,
//! and what they are waiting for. Absent: how a batch is found (`walk`).

use super::index::Place;
use super::message::{FenceMessage, Subject};
use super::walk::Looking;
use crate::event::Effects;
use crate::id::{KeyspaceId, Millis, NodeId, OpId};
use crate::mutant::Mutant;
use crate::node::Node;
use std::collections::{BTreeMap, BTreeSet};

/// So often the rest after a round of which nothing came is doubled at most.
const FRUITLESS_MAX: u32 = 5;
/// Patience with members, in periods and at least in milliseconds.
const PATIENCE_PERIODS: u64 = 10;
const PATIENCE_MS_MIN: u64 = 2_000;
/// Ends of rounds that are repeated until all have heard them.
const CLOSING_MAX: usize = 16;
/// How often at most: who has not heard then is told when it offers what was collected.
const CLOSES_MAX: u32 = 20;

/// What an owner has under way.
#[derive(Default)]
pub(super) struct Owner {
    pub(super) stage: Stage,
    closing: BTreeMap<OpId, Ending>,
    pub(super) counts: Counts,
    /// Rounds in a row of which nothing came: a hint that waits, a key that is always written. Each costs every
    /// member a sync, so the next ones come later and later.
    fruitless: u32,
    /// Who had not answered when a round was last given up, or was away when one was to begin.
    pub(super) waiting_for: Vec<NodeId>,
    pub(super) last_round: Option<Millis>,
}

/// Counts since the start.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) rounds: u64,
    /// Rounds given up, and periods in which none could begin.
    pub(super) blocked: u64,
    pub(super) confirmed: u64,
}

#[derive(Default)]
pub(super) enum Stage {
    #[default]
    Idle,
    Looking(Looking),
    Asking(Round, BTreeMap<NodeId, (Vec<bool>, u64)>),
    Holding(Round, BTreeSet<NodeId>),
}

/// A batch of keys on its way through the fence.
pub(super) struct Round {
    id: OpId,
    keyspace: KeyspaceId,
    subjects: Vec<Subject>,
    places: BTreeSet<Place>,
    members: Vec<NodeId>,
    /// Of the members, as they confirmed.
    ticks: Vec<(NodeId, u64)>,
    until: Millis,
}

/// A round that all members held.
struct Ending {
    keyspace: KeyspaceId,
    subjects: Vec<Subject>,
    waiting: BTreeSet<NodeId>,
    times: u32,
}

impl Node {
    /// A period of this node's own rounds.
    pub(super) fn own_period(&mut self, now: Millis, effects: &mut Effects) {
        self.close_again(now, effects);
        self.boot_walk(now, effects);
        let until = match &self.fence.owner.stage {
            Stage::Idle => return self.begin_looking(now, effects),
            Stage::Looking(looking) => looking.until,
            Stage::Asking(round, _) | Stage::Holding(round, _) => round.until,
        };
        if until <= now {
            return self.give_up(now);
        }
        self.ask_to_hold(now, effects);
    }

    fn begin_looking(&mut self, now: Millis, effects: &mut Effects) {
        if !self.fence.index.any_due(now) {
            return;
        }
        let away = self.members_away();
        if !away.is_empty() && !self.mutant(Mutant::ReapByTime) {
            self.fence.owner.counts.blocked += 1;
            self.fence.owner.waiting_for = away;
            return;
        }
        let until = self.round_patience(now);
        self.fence.owner.stage = Stage::Looking(Looking::new(until));
        self.look_on(now, effects);
    }

    fn round_patience(&self, now: Millis) -> Millis {
        now.after((PATIENCE_PERIODS * self.config.collect_period_ms).max(PATIENCE_MS_MIN))
    }

    /// A batch has been found: all members are asked.
    pub(super) fn begin_fence_round(
        &mut self,
        now: Millis,
        keyspace: KeyspaceId,
        subjects: Vec<Subject>,
        places: BTreeSet<Place>,
        effects: &mut Effects,
    ) {
        self.fence.owner.counts.rounds += 1;
        let id = self.op();
        let members = self.members_needed();
        let until = self.round_patience(now);
        let round = Round { id, keyspace, subjects, places, members, ticks: Vec::new(), until };
        if self.mutant(Mutant::ReapByTime) {
            return self.end_fence_round(now, round, effects);
        }
        let (members, subjects) = (round.members.clone(), round.subjects.clone());
        let message = FenceMessage::Confirm { round: id, members: members.clone(), keyspace, subjects };
        self.fence.owner.stage = Stage::Asking(round, BTreeMap::new());
        for to in members {
            self.tell_member(now, to, message.clone(), effects);
        }
    }

    /// A member has answered.
    pub(super) fn confirmed(
        &mut self,
        now: Millis,
        from: NodeId,
        id: OpId,
        confirmed: &[bool],
        tick: u64,
        effects: &mut Effects,
    ) {
        let Stage::Asking(round, answers) = &mut self.fence.owner.stage else { return };
        let fits = round.id == id && round.members.contains(&from) && confirmed.len() == round.subjects.len();
        if !fits {
            return;
        }
        answers.insert(from, (confirmed.to_vec(), tick));
        if answers.len() < round.members.len() {
            return;
        }
        let Stage::Asking(mut round, answers) = std::mem::take(&mut self.fence.owner.stage) else { return };
        round.ticks = answers.iter().map(|(node, (_, tick))| (*node, *tick)).collect();
        let all = |index: usize| answers.values().all(|(answer, _)| answer[index]);
        let mut all = (0..round.subjects.len()).map(all);
        round.subjects.retain(|_| all.next().unwrap_or(false));
        if round.subjects.is_empty() {
            return self.rest_longer(now, &round.places);
        }
        self.fence.owner.counts.confirmed += round.subjects.len() as u64;
        self.fence.owner.stage = Stage::Holding(round, BTreeSet::new());
        self.ask_to_hold(now, effects);
    }

    /// Those that have not said that they held are asked, until they know what they need to.
    fn ask_to_hold(&mut self, now: Millis, effects: &mut Effects) {
        let Stage::Holding(round, answers) = &self.fence.owner.stage else { return };
        let keys = round.subjects.iter().map(|subject| subject.key.clone()).collect();
        let (id, keyspace, ticks) = (round.id, round.keyspace, round.ticks.clone());
        let message = FenceMessage::Hold { round: id, keyspace, keys, ticks };
        let silent = round.members.iter().copied().filter(|node| !answers.contains(node));
        let silent: Vec<NodeId> = silent.collect();
        for to in silent {
            self.tell_member(now, to, message.clone(), effects);
        }
    }

    /// A member has held to its word, or not.
    pub(super) fn held(&mut self, now: Millis, from: NodeId, id: OpId, held: bool, effects: &mut Effects) {
        let Stage::Holding(round, answers) = &mut self.fence.owner.stage else { return };
        if round.id != id || !round.members.contains(&from) {
            return;
        }
        if !held {
            return self.give_up(now);
        }
        answers.insert(from);
        if answers.len() < round.members.len() {
            return;
        }
        if let Stage::Holding(round, _) = std::mem::take(&mut self.fence.owner.stage) {
            self.end_fence_round(now, round, effects);
        }
    }

    /// All members have held: it happens.
    fn end_fence_round(&mut self, now: Millis, round: Round, effects: &mut Effects) {
        let Round { id, keyspace, subjects, places, members, .. } = round;
        self.fence.owner.stage = Stage::Idle;
        self.fence.owner.fruitless = 0;
        self.fence.owner.last_round = Some(now);
        self.fence.owner.waiting_for.clear();
        while self.fence.owner.closing.len() >= CLOSING_MAX {
            self.fence.owner.closing.pop_first();
        }
        let waiting = members.iter().copied().collect();
        let ending = Ending { keyspace, subjects: subjects.clone(), waiting, times: 0 };
        self.fence.owner.closing.insert(id, ending);
        // What is left in these slots is looked at once more, soon: then they are known to be clean.
        self.rest_places(now, &places);
        let message = FenceMessage::Close { round: id, keyspace, subjects };
        for to in members {
            self.tell_member(now, to, message.clone(), effects);
        }
    }

    /// A member has let go.
    pub(super) fn closed(&mut self, from: NodeId, id: OpId) {
        let Some(ending) = self.fence.owner.closing.get_mut(&id) else { return };
        ending.waiting.remove(&from);
        if ending.waiting.is_empty() {
            self.fence.owner.closing.remove(&id);
        }
    }

    /// Those that have not said that they let go are told again.
    fn close_again(&mut self, now: Millis, effects: &mut Effects) {
        let endings: Vec<OpId> = self.fence.owner.closing.keys().copied().collect();
        for id in endings {
            let Some(ending) = self.fence.owner.closing.get_mut(&id) else { continue };
            ending.times += 1;
            if ending.times > CLOSES_MAX {
                self.fence.owner.closing.remove(&id);
                continue;
            }
            // Not at once: most are on their way.
            if ending.times.is_power_of_two() && ending.times > 1 {
                let waiting: Vec<NodeId> = ending.waiting.iter().copied().collect();
                let (keyspace, subjects) = (ending.keyspace, ending.subjects.clone());
                let message = FenceMessage::Close { round: id, keyspace, subjects };
                for to in waiting {
                    self.tell_member(now, to, message.clone(), effects);
                }
            }
        }
    }

    fn give_up(&mut self, now: Millis) {
        let (round, heard): (Round, BTreeSet<NodeId>) = match std::mem::take(&mut self.fence.owner.stage) {
            Stage::Asking(round, answers) => (round, answers.into_keys().collect()),
            Stage::Holding(round, answers) => (round, answers),
            Stage::Looking(_) | Stage::Idle => return,
        };
        self.fence.owner.counts.blocked += 1;
        self.fence.owner.waiting_for =
            round.members.iter().copied().filter(|node| !heard.contains(node)).collect();
        self.rest_longer(now, &round.places);
    }

    /// Nothing came of a round for these.
    fn rest_longer(&mut self, now: Millis, places: &BTreeSet<Place>) {
        let doubled = self.fence.owner.fruitless.min(FRUITLESS_MAX);
        self.fence.owner.fruitless = doubled + 1;
        let rest_ms = self.rested(now).since(now) << doubled;
        let until = now.after(rest_ms);
        places.iter().for_each(|place| self.fence.index.rest(*place, until));
    }
}
