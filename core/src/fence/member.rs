//! A member's part: it confirms what it can vouch for, holds to it, and lets go.
//!
//! A member that holds a key confirms it if what it holds *durably* is exactly what the owner
//! holds, and every member confirms that it keeps no hint of it and coordinates no write of it. What
//! it confirms it buries: see `gate`. The question itself makes everything before it durable here: a tick of
//! this node's life is stored, in order behind all writes submitted earlier, before anything is
//! looked at. So a disk that is put back to before the answer is told by its tick (`membership`).
//!
//! In: an owner's messages. Out: answers, graves, keys that are no more. Absent: which keys.

use super::Fate;
use super::grave::Grave;
use super::message::{FenceMessage, KEYS_MAX, Subject};
use crate::catalog::KeyspaceEntry;
use crate::event::{Durability, Effect, Effects, Record, StorageFailure};
use crate::id::{KeyspaceId, Millis, NodeId, OpId};
use crate::message::Message;
use crate::mutant::Mutant;
use crate::node::{Node, Purpose};
use crate::replica::{ActiveKey, Completion, Job};
use crate::target::Target;
use crate::version::{KeyState, Kind, codec};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names a round at a member: whose, and which.
pub(crate) type RoundOf = (NodeId, OpId);

/// What an answer of storage is for.
pub(crate) enum FenceTask {
    /// What is held of one of a question's keys.
    Check(RoundOf, usize),
    /// The members' ticks are kept: a promise about these keys may be given.
    Kept(RoundOf, KeyspaceId, Vec<Bytes>),
}

/// What a member has under way for owners.
#[derive(Default)]
pub(super) struct Member {
    asked: BTreeMap<RoundOf, Question>,
    /// The last answer to each owner, for a question that comes twice.
    answered: BTreeMap<NodeId, (OpId, Vec<bool>, u64)>,
    /// Keys of a round whose end is not durable yet.
    closing: BTreeMap<RoundOf, Closing>,
    /// Ends of rounds that wait until everything before them is durable: from this tick on.
    behind: Vec<(u64, RoundOf, Vec<Target>)>,
    pub(super) counts: Counts,
}

/// Counts since the start.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) reaped: u64,
    pub(super) retired: u64,
    /// States that came in although a grave covers them.
    pub(super) refused: u64,
}

struct Question {
    subjects: Vec<(Target, KeyState, Subject)>,
    confirmed: Vec<bool>,
    /// Once this is durable, everything before the question is.
    tick: u64,
    /// Keys that are being read; None: nothing was looked at yet.
    unread: Option<usize>,
}

struct Closing {
    left: usize,
    failed: bool,
}

impl Node {
    /// A member says something of a collection.
    pub(crate) fn fence_message(
        &mut self,
        now: Millis,
        from: NodeId,
        message: FenceMessage,
        effects: &mut Effects,
    ) {
        match message {
            FenceMessage::Confirm { round, members, keyspace, subjects } => {
                let agreed = members == self.members_needed();
                let keyspace = self.keyspaces.by_id(keyspace).filter(|_| agreed);
                self.asked_to_confirm(now, (from, round), keyspace, subjects, effects);
            }
            FenceMessage::Hold { round, keyspace, keys, ticks } => {
                self.asked_to_hold(now, (from, round), keyspace, keys, &ticks, effects);
            }
            FenceMessage::Close { round, keyspace, subjects } => {
                self.close(now, (from, round), keyspace, subjects, effects);
            }
            FenceMessage::Confirmed { round, confirmed, tick } => {
                self.confirmed(now, from, round, &confirmed, tick, effects);
            }
            FenceMessage::Held { round, held } => self.held(now, from, round, held, effects),
            FenceMessage::Closed { round } => self.closed(from, round),
            FenceMessage::RollCall { round, actors } => self.roll_called(now, from, round, actors, effects),
            FenceMessage::Rolled { round, named } => self.rolled(from, round, &named, effects),
        }
    }

    /// Tells a member, or this node itself.
    pub(super) fn tell_member(
        &mut self,
        now: Millis,
        to: NodeId,
        message: FenceMessage,
        effects: &mut Effects,
    ) {
        if to == self.config.node {
            return self.fence_message(now, to, message, effects);
        }
        effects.push(Effect::Send { to, message: Message::Fence(message) });
    }

    fn asked_to_confirm(
        &mut self,
        now: Millis,
        of: RoundOf,
        keyspace: Option<Arc<KeyspaceEntry>>,
        subjects: Vec<Subject>,
        effects: &mut Effects,
    ) {
        let (owner, round) = of;
        let answered = self.fence.member.answered.get(&owner);
        if let Some((_, confirmed, tick)) = answered.filter(|(last, _, _)| *last == round) {
            let message = FenceMessage::Confirmed { round, confirmed: confirmed.clone(), tick: *tick };
            return self.tell_member(now, owner, message, effects);
        }
        if self.fence.member.asked.contains_key(&of) {
            return;
        }
        let count = subjects.len();
        let known = keyspace.filter(|_| {
            count <= KEYS_MAX
                && self.fence.graves.has_room(count)
                && subjects.iter().all(|subject| !subject.key.is_empty())
        });
        let Some(entry) = known else {
            let message = FenceMessage::Confirmed { round, confirmed: vec![false; count], tick: 0 };
            return self.tell_member(now, owner, message, effects);
        };
        let kind = entry.settings.policy.kind();
        let mut known = Vec::with_capacity(count);
        let mut confirmed = vec![true; count];
        for (index, subject) in subjects.into_iter().enumerate() {
            let target = Target::new(entry.clone(), &subject.key);
            let outline = codec::outline(&subject.outline.head).ok().filter(|state| state.kind() == kind);
            confirmed[index] = outline.is_some();
            self.fence.graves.ask(target.storage_key.clone(), round);
            known.push((target, outline.unwrap_or_else(|| KeyState::empty(kind)), subject));
        }
        // One question of an owner at a time: an older one was given up.
        let given_up: Vec<RoundOf> =
            self.fence.member.asked.keys().filter(|(whose, _)| *whose == owner).copied().collect();
        given_up.into_iter().for_each(|old| drop(self.take_question(old)));
        let tick = self.bump_tick(effects);
        self.fence.member.asked.insert(of, Question { subjects: known, confirmed, tick, unread: None });
    }

    fn take_question(&mut self, of: RoundOf) -> Option<Question> {
        let question = self.fence.member.asked.remove(&of)?;
        for (target, _, _) in &question.subjects {
            self.fence.graves.answered(&target.storage_key, of.1);
        }
        Some(question)
    }

    /// A tick of this node's life is durable, and with it all that was submitted before it was
    /// asked for.
    pub(crate) fn tick_is_durable(&mut self, now: Millis, effects: &mut Effects) {
        let tick = self.durable_tick();
        let asked = self.fence.member.asked.iter();
        let due = asked.filter(|(_, question)| question.unread.is_none() && question.tick <= tick);
        let due: Vec<RoundOf> = due.map(|(of, _)| *of).collect();
        due.into_iter().for_each(|of| self.look_at_question(now, of, effects));
        let (ready, waiting) =
            std::mem::take(&mut self.fence.member.behind).into_iter().partition(|(at, _, _)| *at <= tick);
        self.fence.member.behind = waiting;
        let ready: Vec<(u64, RoundOf, Vec<Target>)> = ready;
        for (_, of, targets) in ready {
            self.close_keys(now, of, targets, effects);
        }
    }

    /// Everything before the question is durable: what is held of its keys?
    fn look_at_question(&mut self, now: Millis, of: RoundOf, effects: &mut Effects) {
        let Some(mut question) = self.fence.member.asked.remove(&of) else { return };
        let mut reads = Vec::new();
        let objects = question.subjects.iter().map(|(target, _, _)| target.storage_key.clone()).collect();
        let under_way = self.writes_under_way(&objects);
        for (index, (target, _, _)) in question.subjects.iter().enumerate() {
            let is_quiet = !under_way.contains(&target.storage_key);
            question.confirmed[index] &= is_quiet && self.vouches(target, of.1);
            if question.confirmed[index] && self.is_primary(target) {
                reads.push((index, target.storage_key.clone()));
            }
        }
        question.unread = Some(reads.len());
        self.fence.member.asked.insert(of, question);
        for (index, key) in reads {
            let ticket = self.ticket(Purpose::Fence(FenceTask::Check(of, index)));
            effects.push(Effect::Read { ticket, key });
        }
        self.answer_if_complete(now, of, effects);
    }

    /// Whether nothing of a key has begun at this node since it was asked, and nothing of it is kept for
    /// others.
    fn vouches(&self, target: &Target, round: OpId) -> bool {
        let key = &target.storage_key;
        let hinted = self.holds_hint(key) && !self.mutant(Mutant::ReapWithoutHintCheck);
        self.fence.graves.is_untouched(key, round) && !hinted && !self.active.contains_key(key)
    }

    fn is_primary(&self, target: &Target) -> bool {
        self.ring.primaries(target.token, target.n()).contains(&self.config.node)
    }

    /// What this node holds of a key has been read.
    pub(crate) fn held_read(
        &mut self,
        now: Millis,
        of: RoundOf,
        index: usize,
        result: Result<Option<Record>, StorageFailure>,
        effects: &mut Effects,
    ) {
        let Some(mut question) = self.fence.member.asked.remove(&of) else { return };
        let (target, outline, subject) = &question.subjects[index];
        let held = self.decode(&target.entry, &target.storage_key, result, effects).ok();
        // Every member that holds an expired value must find it expired, by its own clock.
        let agrees = held.is_some_and(|held| {
            held.digest() == outline.digest() && (subject.fate != Fate::Reap || held.is_gone(now))
        });
        question.confirmed[index] &= agrees && self.vouches(target, of.1);
        question.unread = question.unread.map(|unread| unread.saturating_sub(1));
        self.fence.member.asked.insert(of, question);
        self.answer_if_complete(now, of, effects);
    }

    fn answer_if_complete(&mut self, now: Millis, of: RoundOf, effects: &mut Effects) {
        if self.fence.member.asked.get(&of).is_none_or(|question| question.unread != Some(0)) {
            return;
        }
        let Some(question) = self.take_question(of) else { return };
        let (owner, round) = of;
        let (confirmed, tick) = (question.confirmed, question.tick);
        for ((target, outline, subject), yes) in question.subjects.into_iter().zip(&confirmed) {
            if *yes {
                self.bury(round, &target.storage_key, outline, subject, false);
            }
        }
        self.fence.member.answered.insert(owner, (round, confirmed.clone(), tick));
        self.tell_member(now, owner, FenceMessage::Confirmed { round, confirmed, tick }, effects);
    }

    /// Whether the key had a grave of the same state already.
    fn bury(
        &mut self,
        round: OpId,
        storage_key: &Bytes,
        outline: KeyState,
        subject: Subject,
        closed: bool,
    ) -> bool {
        let lasts_ms = self.grave_ms();
        let graves = &mut self.fence.graves;
        let dies_at = graves.dies_at(lasts_ms);
        let older = graves.get(storage_key);
        let same = older.filter(|older| closed && older.is_of(&outline));
        let (was_there, touched) = (same.is_some(), same.is_some_and(|older| older.touched));
        let Subject { outline: record, fate, .. } = subject;
        let mut grave = Grave::new(round, outline, record, fate, older, dies_at);
        (grave.closed, grave.touched) = (closed, touched);
        graves.dig(storage_key.clone(), grave);
        was_there
    }

    /// All members have confirmed. The promise is given once this node will know, whatever happens to it,
    /// a disk of any of them that is put back to before.
    fn asked_to_hold(
        &mut self,
        now: Millis,
        of: RoundOf,
        keyspace: KeyspaceId,
        keys: Vec<Bytes>,
        ticks: &[(NodeId, u64)],
        effects: &mut Effects,
    ) {
        if !self.holds_graves(of.1, keyspace, &keys) {
            return self.tell_member(now, of.0, FenceMessage::Held { round: of.1, held: false }, effects);
        }
        // Gossip brings them; the owner asks again.
        let known = |(node, tick): &(NodeId, u64)| self.life_of(*node).is_some_and(|life| life.tick >= *tick);
        if ticks.iter().all(known) {
            let op = self.members_op();
            let ticket = self.ticket(Purpose::Fence(FenceTask::Kept(of, keyspace, keys)));
            effects.push(Effect::Write { ticket, ops: vec![op], durability: Durability::Sync });
        }
    }

    /// What is known of the members is on the disk.
    pub(crate) fn members_kept(
        &mut self,
        now: Millis,
        task: FenceTask,
        result: &Result<(), StorageFailure>,
        effects: &mut Effects,
    ) {
        if let (FenceTask::Kept(of, keyspace, keys), Ok(())) = (task, result) {
            let held = self.holds_graves(of.1, keyspace, &keys);
            self.tell_member(now, of.0, FenceMessage::Held { round: of.1, held }, effects);
        }
    }

    fn holds_graves(&self, round: OpId, keyspace: KeyspaceId, keys: &[Bytes]) -> bool {
        let Some(entry) = self.keyspaces.by_id(keyspace) else { return false };
        keys.iter().all(|key| {
            !key.is_empty() && self.fence.graves.holds(&Target::new(entry.clone(), key).storage_key, round)
        })
    }

    /// All members have confirmed, and held: what is held of these keys goes.
    fn close(
        &mut self,
        now: Millis,
        of: RoundOf,
        keyspace: KeyspaceId,
        subjects: Vec<Subject>,
        effects: &mut Effects,
    ) {
        let Some(entry) = self.keyspaces.by_id(keyspace) else { return };
        let kind = entry.settings.policy.kind();
        let (mut targets, mut behind) = (Vec::new(), Vec::new());
        let registers = subjects.iter().filter(|subject| kind == Kind::Lww && !subject.key.is_empty());
        let objects = registers.map(|subject| Target::new(entry.clone(), &subject.key).storage_key).collect();
        let under_way = self.writes_under_way(&objects);
        for subject in subjects {
            let outline = codec::outline(&subject.outline.head).ok().filter(|state| state.kind() == kind);
            let Some(outline) = outline.filter(|_| !subject.key.is_empty()) else { continue };
            let target = Target::new(entry.clone(), &subject.key);
            // A node that was started again meanwhile has no grave: it digs one now, before it lets go.
            let was_there = self.bury(of.1, &target.storage_key, outline, subject, true);
            if !under_way.contains(&target.storage_key) {
                self.fence.graves.settle(&target.storage_key);
            }
            if !self.is_primary(&target) {
                continue;
            }
            // Writes of a register that were submitted before its grave was dug are not known to it.
            if was_there || kind != Kind::Lww { targets.push(target) } else { behind.push(target) }
        }
        if targets.is_empty() && behind.is_empty() {
            return self.tell_member(now, of.0, FenceMessage::Closed { round: of.1 }, effects);
        }
        let left = targets.len() + behind.len();
        self.fence.member.closing.insert(of, Closing { left, failed: false });
        if !behind.is_empty() {
            let tick = self.bump_tick(effects);
            self.fence.member.behind.push((tick, of, behind));
        }
        self.close_keys(now, of, targets, effects);
    }

    fn close_keys(&mut self, now: Millis, of: RoundOf, targets: Vec<Target>, effects: &mut Effects) {
        for target in targets {
            let completion = Completion::Closed { owner: of.0, round: of.1 };
            self.enqueue(now, &target, Job::Close { completion }, effects);
        }
    }

    /// A closed grave's key is at hand: its context loses what left it, or it goes, if nothing of it is news.
    /// Whether it did.
    pub(crate) fn let_go(&mut self, active: &mut ActiveKey) -> bool {
        let Some(state) = &active.state else { return false };
        let Some(grave) = self.fence.graves.get(&active.target.storage_key) else { return false };
        // A register is written without being read: what was written since may not be in `state` yet.
        let overtaken = grave.touched && matches!(state, KeyState::Lww(_));
        if overtaken || state.is_empty() {
            return false;
        }
        if let Some(shorter) = grave.shortened(state) {
            self.fence.member.counts.retired += 1;
            active.become_state(shorter);
            return true;
        }
        if !grave.is_gone(state) {
            return false;
        }
        let place = (active.target.entry.id, active.target.token.slot());
        let actor = self.identity.now().incarnation.actor;
        let upto = state.seen().last(actor);
        let next = match state {
            KeyState::Lww(_) => KeyState::empty(state.kind()),
            _ => grave.remains(),
        };
        self.identity.let_go_upto(upto);
        self.fence.member.counts.reaped += 1;
        self.fence.index.collected(place);
        active.become_nothing(next);
        true
    }

    /// The end of one key of a round is durable, or was not needed.
    pub(crate) fn let_go_done(&mut self, owner: NodeId, round: OpId, is_ok: bool, effects: &mut Effects) {
        let of = (owner, round);
        let Some(closing) = self.fence.member.closing.get_mut(&of) else { return };
        closing.left -= 1;
        closing.failed |= !is_ok;
        if closing.left > 0 {
            return;
        }
        let failed = closing.failed;
        self.fence.member.closing.remove(&of);
        if failed {
            return;
        }
        if owner == self.config.node {
            return self.closed(owner, round);
        }
        effects.push(Effect::Send { to: owner, message: Message::Fence(FenceMessage::Closed { round }) });
    }
}
