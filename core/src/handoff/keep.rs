//! Hints are kept: another coordinator's states, this node's markers, a stand-in coordinator's own copy.
//!
//! In: states for nodes that cannot be reached. Out: writes, counted in before they are durable and
//! acknowledged after. Absent: deciding who needs one.

use super::record::{self, Hint};
use super::shelf::HintId;
use crate::event::{Effect, Effects, Record, WriteOp};
use crate::id::{Dot, KeyspaceId, Millis, NodeId, OpId};
use crate::message::{Message, Refusal};
use crate::mutant::Mutant;
use crate::node::{Node, Purpose};
use crate::replica::Completion;
use crate::storage_key;
use crate::target::Target;
use crate::version::{DotSet, KeyState, codec};
use bytes::Bytes;

impl Node {
    /// A coordinator asks this node to stand in for `target`.
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn hint_received(
        &mut self,
        now: Millis,
        from: NodeId,
        op: OpId,
        target: NodeId,
        keyspace: KeyspaceId,
        key: Bytes,
        record: Record,
        effects: &mut Effects,
    ) {
        let result = self.take_hint(now, from, op, target, keyspace, &key, record, effects);
        if let Err(refusal) = result {
            let message = Message::Replicated { op, result: Err(refusal) };
            effects.push(Effect::Send { to: from, message });
        }
    }

    /// The one place where a state from elsewhere becomes a hint.
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    fn take_hint(
        &mut self,
        now: Millis,
        from: NodeId,
        op: OpId,
        target: NodeId,
        keyspace: KeyspaceId,
        key: &[u8],
        record: Record,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let state = codec::state(&record).map_err(|_| Refusal::Malformed)?;
        let entry = self.keyspaces.by_id(keyspace).ok_or(Refusal::UnknownKeyspace)?;
        if key.is_empty() || state.kind() != entry.settings.policy.kind() {
            return Err(Refusal::UnknownKeyspace);
        }
        let of = Target::new(entry, key);
        let primaries = self.ring.primaries(of.token, of.n());
        let stands_in = self.stands_in(&of, &primaries);
        if !stands_in || !primaries.contains(&target) {
            return Err(Refusal::NotStandIn);
        }
        let Some((state, record)) = self.sift(&of, state, record) else {
            if !self.is_collected(&of) {
                // It may yet be needed, and this node has promised to keep nothing of it.
                return Err(Refusal::Collecting);
            }
            // There is nothing to keep: every primary had it durably, and let go of it.
            effects.push(Effect::Send { to: from, message: Message::Replicated { op, result: Ok(()) } });
            return Ok(());
        };
        let size_bytes = size_bytes(&of, Some(&record));
        if !self.hint_fits(target, &of, size_bytes) {
            return Err(Refusal::HintsFull);
        }
        self.observe_issued(&state, effects);
        let (ops, mut completions) = self.hint_ops(now, &of, &[target], Some(&record));
        if self.mutant(Mutant::HintCountedBeforeDurable) {
            effects.push(Effect::Send { to: from, message: Message::Replicated { op, result: Ok(()) } });
        } else {
            completions.push(Completion::Peer { to: from, op });
        }
        let ticket = self.ticket(Purpose::Write { active: None, register: None, completions, leaf: None });
        effects.push(Effect::Write { ticket, ops, durability: of.entry.settings.durability });
        Ok(())
    }

    /// Whether this node is one of those that stand in for a key's primaries.
    pub(crate) fn stands_in(&self, of: &Target, primaries: &[NodeId]) -> bool {
        let own = self.config.node;
        !primaries.contains(&own) && self.ring.preference(of.token, of.n(), usize::MAX).contains(&own)
    }

    /// Whether there is room for one more hint for `target`; if not, it is counted.
    fn hint_fits(&mut self, target: NodeId, of: &Target, size_bytes: u64) -> bool {
        let shelf = self.hints.shelves.entry(target).or_default();
        let fits = shelf.has_room(HintId::of(&of.storage_key), size_bytes, self.config.hint_bytes_max);
        if !fits {
            shelf.dropped += 1;
            self.counters.hints_dropped += 1;
        }
        fits
    }

    /// Those of `targets` for which there is room for this state.
    pub(crate) fn targets_with_room(
        &mut self,
        of: &Target,
        targets: Vec<NodeId>,
        record: &Record,
    ) -> Vec<NodeId> {
        let size_bytes = size_bytes(of, Some(record));
        targets.into_iter().filter(|target| self.hint_fits(*target, of, size_bytes)).collect()
    }

    /// The operations that keep a state for `targets`, and what to do when they are done.
    pub(crate) fn hint_ops(
        &mut self,
        now: Millis,
        of: &Target,
        targets: &[NodeId],
        state: Option<&Record>,
    ) -> (Vec<WriteOp>, Vec<Completion>) {
        let id = HintId::of(&of.storage_key);
        let record = record::record(&Hint { since: now, state: state.cloned() });
        let size_bytes = size_bytes(of, state);
        for target in targets {
            self.counters.hints_stored += 1;
            self.hints.shelves.entry(*target).or_default().store(id, size_bytes, now);
        }
        if !targets.is_empty() {
            self.wake_hints(now.after(self.config.hint_period_ms));
        }
        let merge = |target: &NodeId| WriteOp::Merge {
            key: storage_key::hint(*target, &of.storage_key),
            record: record.clone(),
        };
        let stored = |target: &NodeId| Completion::HintStored { target: *target, id };
        (targets.iter().map(merge).collect(), targets.iter().map(stored).collect())
    }

    /// The operations that keep markers of a key that this node itself is a primary of.
    pub(crate) fn marker_ops(
        &mut self,
        now: Millis,
        of: &Target,
        targets: &[NodeId],
    ) -> (Vec<WriteOp>, Vec<Completion>) {
        let id = HintId::of(&of.storage_key);
        let mut wanted = Vec::new();
        for target in targets {
            if self.hints.shelves.entry(*target).or_default().wants_marker(id)
                && self.hint_fits(*target, of, size_bytes(of, None))
            {
                wanted.push(*target);
            }
        }
        self.hint_ops(now, of, &wanted, None)
    }

    /// Keeps markers by a write of their own.
    pub(crate) fn keep_markers(
        &mut self,
        now: Millis,
        of: &Target,
        targets: &[NodeId],
        effects: &mut Effects,
    ) {
        let (ops, completions) = self.marker_ops(now, of, targets);
        if !ops.is_empty() {
            let ticket =
                self.ticket(Purpose::Write { active: None, register: None, completions, leaf: None });
            effects.push(Effect::Write { ticket, ops, durability: of.entry.settings.durability });
        }
    }

    /// A hint is durable, or has failed to be.
    pub(crate) fn hint_stored(&mut self, target: NodeId, id: HintId) {
        if let Some(shelf) = self.hints.shelves.get_mut(&target) {
            shelf.stored(id);
        }
    }

    /// A state that comes to a stand-in: it may lack dots of its own that have gone home, but none of
    /// them is above what it issued.
    fn observe_issued(&mut self, state: &KeyState, effects: &mut Effects) {
        match state {
            KeyState::Lww(register) => {
                if let Some((dot, _)) = &register.winner {
                    self.observe_dot(*dot, effects);
                }
            }
            _ => self.observe_all(&state.seen(), effects),
        }
    }

    /// As [`Node::observe_dot`], for all dots of a set.
    pub(crate) fn observe_all(&mut self, seen: &DotSet, effects: &mut Effects) {
        let actor = self.actor();
        let counter = seen.last(actor);
        if counter > 0 {
            self.observe_dot(Dot { actor, counter }, effects);
        }
    }
}

fn size_bytes(of: &Target, state: Option<&Record>) -> u64 {
    (of.storage_key.len() + state.map_or(0, |state| state.head.len() + state.body.len())) as u64
}
