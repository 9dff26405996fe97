//! States of a peer's exchange are taken in, and whoever sent or wanted them is told once they are durable.
//!
//! In: keys with raw states. Out: as replication takes them in (R6), and how many are stored. Absent: which, and why.

use super::exchange::Exchange;
use crate::event::{Effects, Record};
use crate::id::{KeyspaceId, Millis, NodeId, OpId};
use crate::mutant::Mutant;
use crate::node::Node;
use crate::replica::Completion;
use crate::target::Target;
use crate::version::codec;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Batches of peers being stored at a time.
const TAKINGS_MAX: usize = 128;

/// Batches being stored.
#[derive(Default)]
pub(crate) struct Takings {
    under_way: BTreeMap<OpId, Taking>,
    done: Vec<OpId>,
}

struct Taking {
    left: usize,
    stored: u32,
    whom: Whom,
}

/// Who waits for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    /// The peer that sent it.
    Peer(NodeId, OpId),
    /// The slot's work that asked for it.
    Work(OpId),
}

impl Node {
    /// Takes states in.
    pub(super) fn take_states(
        &mut self,
        now: Millis,
        whom: Whom,
        keyspace: KeyspaceId,
        states: Vec<(Bytes, Record)>,
        effects: &mut Effects,
    ) {
        let peer = match whom {
            Whom::Peer(peer, _) => Some(peer),
            Whom::Work(_) => self.anti_entropy.round.as_ref().map(|round| round.peer),
        };
        let shared = peer.and_then(|peer| self.shared_with(peer, keyspace));
        let (Some(shared), Some(entry)) = (shared, self.keyspaces.by_id(keyspace)) else { return };
        if let Whom::Peer(to, op) = whom
            && self.anti_entropy.takings.under_way.len() >= TAKINGS_MAX
        {
            return self.send_exchange(to, Exchange::Unable { op }, effects);
        }
        let id = self.op();
        // One more than there are, until all have been handed on.
        let taking = Taking { left: states.len() + 1, stored: 0, whom };
        self.anti_entropy.takings.under_way.insert(id, taking);
        for (key, record) in states {
            let state = codec::state(&record).ok();
            let state = state.filter(|state| state.kind() == entry.settings.policy.kind() && !key.is_empty());
            let target = Target::new(entry.clone(), &key);
            match state.filter(|_| shared.contains(target.token.slot())) {
                Some(state) => {
                    self.counters.exchange_keys_taken += 1;
                    self.pass_back(now, whom, keyspace, &key, &record, effects);
                    if let Some(peer) = peer {
                        self.tell_of_grave(peer, &target, &state, effects);
                    }
                    self.take_in(now, &target, state, record, Some(Completion::Taken { id }), effects);
                }
                None => self.taken(id, false),
            }
        }
        self.taken(id, false);
        self.finish_takings(now, effects);
    }

    /// The bug of sending back what was sent (see `Mutant::EqualContextPingPong`).
    fn pass_back(
        &mut self,
        now: Millis,
        whom: Whom,
        keyspace: KeyspaceId,
        key: &Bytes,
        record: &Record,
        effects: &mut Effects,
    ) {
        if let Whom::Peer(to, _) = whom
            && self.mutant(Mutant::EqualContextPingPong)
        {
            let op = self.op();
            let states = vec![(key.clone(), record.clone())];
            self.send_paced(now, to, Exchange::Take { op, keyspace, states }, effects);
        }
    }

    /// One state of a batch is durable, or will not be.
    pub(crate) fn taken(&mut self, id: OpId, is_ok: bool) {
        let takings = &mut self.anti_entropy.takings;
        let Some(taking) = takings.under_way.get_mut(&id) else { return };
        taking.stored += u32::from(is_ok);
        taking.left = taking.left.saturating_sub(1);
        if taking.left == 0 {
            takings.done.push(id);
        }
    }

    /// Tells those whose batches are stored.
    pub(crate) fn finish_takings(&mut self, now: Millis, effects: &mut Effects) {
        while let Some(id) = self.anti_entropy.takings.done.pop() {
            let Some(taking) = self.anti_entropy.takings.under_way.remove(&id) else { continue };
            match taking.whom {
                Whom::Peer(to, op) => {
                    self.send_exchange(to, Exchange::Taken { op, stored: taking.stored }, effects);
                }
                Whom::Work(work) => self.work_taken(now, work, taking.stored, effects),
            }
        }
    }
}
