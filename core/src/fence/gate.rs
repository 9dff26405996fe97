//! Where graves are asked: nothing that they cover comes in, and nothing leaves that was read or
//! received before they were dug.
//!
//! In: states of peers, messages that are about to leave. Out: the same, without what is covered.
//! Absent: what is on this node's disk; that is what the graves are of.

use super::grave::Sifted;
use super::message::{FenceMessage, Subject};
use crate::event::{Effect, Effects, Record};
use crate::id::{KeyspaceId, NodeId, OpId};
use crate::message::Message;
use crate::node::Node;
use crate::storage_key;
use crate::target::Target;
use crate::version::{KeyState, codec};
use bytes::Bytes;

impl Node {
    /// What of a state from elsewhere is news here; None: nothing, it was collected.
    pub(crate) fn sift(
        &mut self,
        target: &Target,
        state: KeyState,
        record: Record,
    ) -> Option<(KeyState, Record)> {
        let grave = match self.fence.graves.get(&target.storage_key) {
            Some(grave) if !self.digs_no_graves() => grave,
            _ => return Some((state, record)),
        };
        match grave.take(&state) {
            Sifted::News => Some((state, record)),
            Sifted::Rest(rest) => {
                let record = codec::record(&rest);
                Some((*rest, record))
            }
            Sifted::Covered => {
                self.fence.member.counts.refused += 1;
                None
            }
        }
    }

    /// As [`Node::sift`], of a record that is merged unread.
    pub(crate) fn sift_record(&mut self, target: &Target, record: Record) -> Option<Record> {
        if self.fence.graves.get(&target.storage_key).is_none() {
            return Some(record);
        }
        match codec::state(&record) {
            Ok(state) => self.sift(target, state, record).map(|(_, record)| record),
            // What does not decode is refused where it is read.
            Err(_) => Some(record),
        }
    }

    /// A state of this node's own without what left its key's context: a put may bring it back, by a context from before.
    pub(crate) fn shortened(&self, storage_key: &Bytes, state: &KeyState) -> Option<KeyState> {
        let grave = self.fence.graves.get(storage_key).filter(|_| !self.digs_no_graves())?;
        grave.shortened(state)
    }

    /// What is left of a state that a read has gathered: an answer from before a grave was dug may hold what was dead by
    /// the time of the last one, and would show it beside what had seen it. None: all of it.
    pub(crate) fn left_to_show(&self, storage_key: &Bytes, gathered: &KeyState) -> Option<KeyState> {
        let KeyState::Causal(gathered) = gathered else { return None };
        let grave = self.fence.graves.get(storage_key).filter(|_| !self.digs_no_graves())?;
        grave.without_dead(gathered).map(KeyState::Causal)
    }

    /// Whether all members have held the key's grave: what it covers is needed nowhere.
    pub(crate) fn is_collected(&self, target: &Target) -> bool {
        self.fence.graves.get(&target.storage_key).is_some_and(|grave| grave.closed)
    }

    /// A peer that still holds what was collected here missed the end of the round: it is told.
    pub(crate) fn tell_of_grave(
        &mut self,
        to: NodeId,
        target: &Target,
        state: &KeyState,
        effects: &mut Effects,
    ) {
        let grave = self.fence.graves.get(&target.storage_key);
        let Some((outline, fate)) = grave.and_then(|grave| grave.told(state)) else { return };
        if self.digs_no_graves() || to == self.config.node {
            return;
        }
        let subjects = vec![Subject { key: target.key.clone(), outline, fate }];
        let close = FenceMessage::Close { round: OpId(0), keyspace: target.entry.id, subjects };
        effects.push(Effect::Send { to, message: Message::Fence(close) });
    }

    /// Takes what graves cover out of messages that are about to leave, from `first` on. They may hold
    /// what was read, or came in, before a grave was dug.
    pub(crate) fn gate(&self, effects: &mut Effects, first: usize) {
        if self.fence.graves.is_empty() || self.digs_no_graves() {
            return;
        }
        // A node that has just learned that it must not speak has taken back what it was to say.
        let first = first.min(effects.len());
        let carries =
            |effect: &Effect| matches!(effect, Effect::Send { message, .. } if message.carries_states());
        if !effects[first..].iter().any(carries) {
            return;
        }
        let may_leave = |keyspace, key: &Bytes, op, record| self.may_leave(keyspace, key, op, record);
        for mut effect in effects.split_off(first) {
            let is_left = match &mut effect {
                Effect::Send { message, .. } => message.sift_states(may_leave),
                _ => true,
            };
            if is_left {
                effects.push(effect);
            }
        }
    }

    fn may_leave(
        &self,
        keyspace: KeyspaceId,
        key: &Bytes,
        op: Option<OpId>,
        record: Record,
    ) -> Option<Record> {
        let Some(grave) = self.fence.graves.get(&storage_key::object(keyspace, key)) else {
            return Some(record);
        };
        let Ok(state) = codec::state(&record) else { return Some(record) };
        if grave.is_of(&state) {
            // The agreed state itself hurts nobody, and whoever sees that it is held still can tell that
            // the round is over.
            return Some(record);
        }
        match grave.sift(&state) {
            Sifted::News => Some(record),
            Sifted::Rest(rest) => Some(codec::record(&rest)),
            // Somebody waits to hear that it is covered.
            Sifted::Covered if op.is_some() && grave.is_reaped() => Some(codec::record(&grave.remains())),
            Sifted::Covered => None,
        }
    }
}
