//! When a round begins and with whom; how fast states go; what is known to be equal.
//!
//! A round begins every period, jittered, with the peer that was asked longest ago, unless one is under way: a round goes on for as
//! long as it finds much to repair. In: time, links. Out: rounds, paced messages, the view of operators. Absent: what a round does.

use super::exchange::Exchange;
use super::round::Round;
use super::shared::SlotSet;
use crate::budget::KEY_COST_BYTES;
use crate::event::{Effects, Record};
use crate::id::{KeyspaceId, Millis, NodeId};
use crate::node::{Node, Timer};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Messages that wait for the budget.
const OUTBOX_MAX: usize = 256;

/// What is known of a keyspace and a peer.
#[derive(Default)]
pub(crate) struct Known {
    /// By branch, when it was last found equal.
    proven: BTreeMap<u8, Millis>,
    differing: BTreeSet<u8>,
    keys_sent: u64,
    bytes_sent: u64,
}

/// By keyspace and peer.
pub(crate) type Proofs = BTreeMap<(KeyspaceId, NodeId), Known>;

/// How equal this node and a peer are, in one keyspace.
#[derive(Clone, Debug, PartialEq)]
pub struct RepairView {
    /// Its name.
    pub keyspace: String,
    /// The other node.
    pub peer: NodeId,
    /// How long ago all that both hold was last found equal: the oldest of all ranges. None: some never since
    /// this node's start.
    pub proven_equal_ms_ago: Option<u64>,
    /// Of 256 ranges, those that differed, or were being written to, when they were last compared.
    pub branches_differing: usize,
    /// Of 256 ranges, those that the two share.
    pub branches: usize,
    /// States sent to it by exchanges.
    pub keys_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
}

impl Node {
    /// How equal this node is with each of its peers, and since when.
    pub fn repair_views(&mut self, now: Millis) -> Vec<RepairView> {
        let entries: Vec<_> = self.keyspaces.all().collect();
        let mut views = Vec::new();
        for entry in entries {
            let n = entry.settings.n as usize;
            for peer in self.anti_entropy.shared.peers(&self.ring, self.config.node, n) {
                let Some(shared) = self.shared_with(peer, entry.id) else { continue };
                let known = self.anti_entropy.proofs.entry((entry.id, peer)).or_default();
                let proven = |branch: u8| known.proven.get(&branch).copied();
                let oldest = shared.branches().map(proven).min().flatten();
                views.push(RepairView {
                    keyspace: entry.name.clone(),
                    peer,
                    proven_equal_ms_ago: oldest.map(|at| now.since(at)),
                    branches_differing: known.differing.len(),
                    branches: shared.branches().count(),
                    keys_sent: known.keys_sent,
                    bytes_sent: known.bytes_sent,
                });
            }
        }
        views
    }

    /// The period is over.
    pub(crate) fn begin_round(&mut self, now: Millis, effects: &mut Effects) {
        let period = self.config.anti_entropy_period_ms.max(4);
        let jitter = self.random_below(period / 2);
        self.set_timer(now.after(period * 3 / 4 + jitter), Timer::AntiEntropy);
        // What an old disk holds is compared with nobody.
        if self.anti_entropy.round.is_some() || !self.anti_entropy.loaded || !self.membership.is_serving() {
            return;
        }
        let mut keyspaces: BTreeMap<NodeId, Vec<KeyspaceId>> = BTreeMap::new();
        let entries: Vec<_> = self.keyspaces.all().collect();
        for entry in entries {
            let n = entry.settings.n as usize;
            for peer in self.anti_entropy.shared.peers(&self.ring, self.config.node, n) {
                keyspaces.entry(peer).or_default().push(entry.id);
            }
        }
        let asked = &self.anti_entropy.asked;
        let reachable = keyspaces.into_iter().filter(|(peer, _)| self.is_reachable(*peer));
        let longest_ago = reachable.min_by_key(|(peer, _)| asked.get(peer).copied());
        let Some((peer, keyspaces)) = longest_ago else { return };
        self.anti_entropy.asked.insert(peer, now);
        self.anti_entropy.round = Some(Round::new(peer, keyspaces));
        self.check_round(now, effects);
    }

    /// The slots that this node and a peer both hold of a keyspace.
    pub(super) fn shared_with(&mut self, peer: NodeId, keyspace: KeyspaceId) -> Option<Arc<SlotSet>> {
        let n = self.keyspaces.by_id(keyspace)?.settings.n as usize;
        self.anti_entropy.shared.with(&self.ring, self.config.node, peer, n)
    }

    /// As [`Node::shared_with`], once this node knows its own trees.
    pub(super) fn shared_if_loaded(&mut self, peer: NodeId, keyspace: KeyspaceId) -> Option<Arc<SlotSet>> {
        if self.anti_entropy.loaded { self.shared_with(peer, keyspace) } else { None }
    }

    /// What repair may weigh each second: less while clients are at work.
    pub(super) fn repair_rate(&self, now: Millis) -> u64 {
        self.unhurried(now, self.config.repair_bytes_per_s)
    }

    /// There is something in the budget again.
    pub(crate) fn repair_goes_on(&mut self, now: Millis, effects: &mut Effects) {
        self.empty_outbox(now, effects);
        self.advance_round(now, effects);
    }

    /// Sends states when the budget allows.
    pub(super) fn send_paced(&mut self, now: Millis, to: NodeId, exchange: Exchange, effects: &mut Effects) {
        if self.anti_entropy.outbox.len() < OUTBOX_MAX {
            self.anti_entropy.outbox.push_back((to, exchange));
            self.empty_outbox(now, effects);
        }
    }

    /// Sends what the budget allows.
    fn empty_outbox(&mut self, now: Millis, effects: &mut Effects) {
        let rate = self.repair_rate(now);
        while !self.anti_entropy.outbox.is_empty() {
            if let Err(at) = self.anti_entropy.budget.ask(now, rate) {
                return self.set_timer(at, Timer::Budget);
            }
            if let Some((to, exchange)) = self.anti_entropy.outbox.pop_front() {
                let keys = exchange.states().map_or(0, |(_, states)| states.len());
                self.anti_entropy.budget.spend(exchange.size_bytes() + keys * KEY_COST_BYTES);
                self.send_exchange(to, exchange, effects);
            }
        }
    }

    /// States go to a peer.
    pub(super) fn count_sent(&mut self, peer: NodeId, keyspace: KeyspaceId, states: &[(Bytes, Record)]) {
        let bytes =
            |(key, record): &(Bytes, Record)| (key.len() + record.head.len() + record.body.len()) as u64;
        let known = self.anti_entropy.proofs.entry((keyspace, peer)).or_default();
        known.keys_sent += states.len() as u64;
        known.bytes_sent += states.iter().map(bytes).sum::<u64>();
        self.counters.exchange_keys_sent += states.len() as u64;
    }

    /// All branches of a keyspace were found equal.
    pub(super) fn all_proven(&mut self, now: Millis, peer: NodeId, keyspace: KeyspaceId) {
        let Some(shared) = self.shared_with(peer, keyspace) else { return };
        let known = self.anti_entropy.proofs.entry((keyspace, peer)).or_default();
        known.proven.extend(shared.branches().map(|branch| (branch, now)));
        known.differing.clear();
    }

    /// A branch was found equal.
    pub(super) fn proven(&mut self, now: Millis, peer: NodeId, keyspace: KeyspaceId, branch: u8) {
        let known = self.anti_entropy.proofs.entry((keyspace, peer)).or_default();
        known.proven.insert(branch, now);
        known.differing.remove(&branch);
    }

    /// These branches, and no others, were found to differ.
    pub(super) fn differing(&mut self, peer: NodeId, keyspace: KeyspaceId, branches: &[u8]) {
        let known = self.anti_entropy.proofs.entry((keyspace, peer)).or_default();
        known.differing = branches.iter().copied().collect();
    }
}
