//! What a replica has written, and who hears of it once it is durable.
//!
//! In: active keys that changed, registers unread. Out: batches with their leaf, acknowledgements. Absent: what a state
//! becomes.

use super::{ActiveKey, Asked, Completion, Home, Question, jobs};
use crate::anti_entropy::TreeWrite;
use crate::anti_entropy::leaf::Share;
use crate::event::{Durability, Effect, Effects, Record, StorageFailure, WriteOp};
use crate::id::{Millis, NodeId, OpId};
use crate::message::{Message, Refusal};
use crate::mutant::Mutant;
use crate::node::{Node, Purpose};
use crate::target::Target;
use crate::version::codec;
use bytes::Bytes;

impl Node {
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

    /// Writes an active key's state if it changed, and sees to all that wait for it.
    pub(super) fn write(
        &mut self,
        now: Millis,
        storage_key: &Bytes,
        active: &mut ActiveKey,
        effects: &mut Effects,
    ) {
        let Some(state) = &mut active.state else { return };
        if active.dirty && state.drop_expired(now) {
            active.record = None;
        }
        if active.dirty
            && let Some(shorter) = self.shortened(&active.target.storage_key, state)
        {
            (*state, active.record) = (shorter, None);
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
                active.completions.push(Completion::Own { replication, actor: self.actor() });
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
        let (mut lost, mut unsent, mut dropped) = (Vec::new(), Vec::new(), None);
        let keeps_waiting = self.mutant(Mutant::LostWritesAcknowledged);
        if let Some(active) = storage_key.as_ref().and_then(|key| self.active.get_mut(key)) {
            active.writes -= 1;
            if result.is_err() {
                // What the active key holds is not what the disk holds. What was to be told once this
                // state is durable, or sent with it, goes with it: the next state lacks it.
                (active.state, active.record, active.dirty) = (None, None, false);
                // The dot of an operation that the plugin was shown follows one that may be lost: it is asked anew.
                let applying = |asked: &mut Asked| matches!(asked.question, Question::Apply(_));
                dropped = active.asked.take_if(applying);
                if !keeps_waiting {
                    lost = std::mem::take(&mut active.completions);
                    unsent = std::mem::take(&mut active.replicate);
                }
            }
        }
        if let (Some(asked), Some(key)) = (dropped, &storage_key) {
            self.question_over(&asked);
            if let (Question::Apply(applying), Some(active)) = (asked.question, self.active.get_mut(key)) {
                active.operations.push_front(applying.again());
            }
        }
        if result.is_err() && storage_key.is_some() && self.may_have_lost_dots(&completions, &lost, &unsent) {
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

    /// Whether dots of this actor may be elsewhere, or were shown, and are not on the disk: of writes in a batch that
    /// failed, or in the state that went with the batch. What peers sent, hints and registers have none such.
    fn may_have_lost_dots(&self, batch: &[Completion], lost: &[Completion], unsent: &[OpId]) -> bool {
        let own = self.actor();
        let is_own =
            |completion: &Completion| matches!(completion, Completion::Own { actor, .. } if *actor == own);
        batch.iter().chain(lost).any(is_own) || !unsent.is_empty()
    }

    pub(super) fn complete(
        &mut self,
        completions: Vec<Completion>,
        result: Result<(), Refusal>,
        effects: &mut Effects,
    ) {
        for completion in completions {
            match completion {
                Completion::Peer { to, op } => {
                    effects.push(Effect::Send { to, message: Message::Replicated { op, result } });
                }
                Completion::Taken { id } => self.taken(id, result.is_ok()),
                Completion::Closed { owner, round } => {
                    self.let_go_done(owner, round, result.is_ok(), effects);
                }
                Completion::Own { replication, .. } => {
                    if result.is_ok() {
                        self.acknowledged(replication, self.config.node, effects);
                    }
                }
                Completion::HintStored { target, id } => self.hint_stored(target, id),
            }
        }
    }
}
