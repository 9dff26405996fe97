//! The answering side of an exchange. It keeps nothing between two questions: each says all that its answer needs.
//!
//! In: questions of a peer, never trusted: ranges lie within a stretch of slots that both hold. Out: answers, each bounded in
//! keys and bytes. Absent: the asking side, see `round` and `slot_work`.

use super::exchange::{BYTES_MAX, Exchange, KEYS_MAX};
use super::leaf::{Share, Sum};
use super::rescans::Then;
use super::round::{branch_sums, leaf_sums, root_sum};
use super::shared::Stretch;
use super::take::Whom;
use crate::event::{Effects, Record, ScanPage, StorageFailure};
use crate::id::{KeyspaceId, Millis, NodeId, OpId};
use crate::node::{Node, PageSize, ScanFor};
use crate::ring::Slot;
use crate::storage_key;
use crate::version::{Digest, codec};
use bytes::Bytes;

/// Scans under way for peers.
const SERVING_MAX: usize = 128;

/// A peer's question about keys, while own heads are read.
pub(crate) struct KeysAsked {
    to: NodeId,
    op: OpId,
    keyspace: KeyspaceId,
    end: Bytes,
    /// All of one slot is asked for, and no write of it was under way.
    begun: Option<(Slot, u64)>,
    /// Storage key, key, digest.
    theirs: Vec<(Bytes, Bytes, Digest)>,
}

/// A peer's question for states, while they are read.
pub(crate) struct StatesAsked {
    to: NodeId,
    op: OpId,
    keyspace: KeyspaceId,
    keys: Vec<(Bytes, Bytes)>,
}

impl Node {
    /// One message of an exchange.
    pub(crate) fn exchange(&mut self, now: Millis, from: NodeId, exchange: Exchange, effects: &mut Effects) {
        let op = exchange.op();
        let able = match exchange {
            Exchange::Root { op, keyspace, sum, stale } => {
                self.answer_root(now, from, op, keyspace, sum, stale, effects)
            }
            Exchange::AskLeaves { op, keyspace, branch } => {
                self.leaves_asked(now, from, op, keyspace, branch, effects)
            }
            Exchange::Keys { op, keyspace, slots, from: start, to, keys } => {
                self.keys_asked(from, op, keyspace, slots, (start, to), keys, effects)
            }
            Exchange::AskStates { op, keyspace, keys } => {
                self.states_asked(from, op, keyspace, keys, effects)
            }
            Exchange::Take { op, keyspace, states } => {
                self.take_states(now, Whom::Peer(from, op), keyspace, states, effects);
                Some(())
            }
            answer => {
                self.exchange_answered(now, from, answer, effects);
                Some(())
            }
        };
        if able.is_none() {
            self.send_exchange(from, Exchange::Unable { op }, effects);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    fn answer_root(
        &mut self,
        now: Millis,
        from: NodeId,
        op: OpId,
        keyspace: KeyspaceId,
        theirs: Sum,
        stale: bool,
        effects: &mut Effects,
    ) -> Option<()> {
        let shared = self.shared_if_loaded(from, keyspace)?;
        let tree = self.anti_entropy.trees.get(&keyspace);
        let mine = root_sum(tree, &shared);
        if !stale && mine == Some(theirs) {
            self.all_proven(now, from, keyspace);
            self.send_exchange(from, Exchange::Same { op }, effects);
        } else {
            let sums = branch_sums(tree, &shared);
            self.send_exchange(from, Exchange::Branches { op, sums }, effects);
        }
        Some(())
    }

    fn leaves_asked(
        &mut self,
        now: Millis,
        from: NodeId,
        op: OpId,
        keyspace: KeyspaceId,
        branch: u8,
        effects: &mut Effects,
    ) -> Option<()> {
        let shared = self.shared_if_loaded(from, keyspace)?;
        self.freshen(now, keyspace, &shared, branch, Then::Answer { to: from, op, branch }, effects);
        Some(())
    }

    /// Own leaves of a branch are as fresh as they get.
    pub(super) fn answer_leaves(
        &mut self,
        to: NodeId,
        op: OpId,
        keyspace: KeyspaceId,
        branch: u8,
        effects: &mut Effects,
    ) {
        if let Some(shared) = self.shared_if_loaded(to, keyspace) {
            let sums = leaf_sums(self.anti_entropy.trees.get(&keyspace), &shared, branch);
            self.send_exchange(to, Exchange::Leaves { op, sums }, effects);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    fn keys_asked(
        &mut self,
        to: NodeId,
        op: OpId,
        keyspace: KeyspaceId,
        slots: Stretch,
        range: (Bytes, Bytes),
        keys: Vec<(Bytes, Digest)>,
        effects: &mut Effects,
    ) -> Option<()> {
        let shared = self.shared_if_loaded(to, keyspace)?;
        let whole = slots.objects(keyspace);
        let (start, end) = &range;
        let sound = *start >= whole.0 && *end <= whole.1 && start < end && shared.contains_all(slots);
        if !sound || self.anti_entropy.serving >= SERVING_MAX {
            return None;
        }
        let mut theirs: Vec<(Bytes, Bytes, Digest)> = keys
            .into_iter()
            .filter(|(key, _)| !key.is_empty())
            .map(|(key, digest)| (storage_key::object(keyspace, &key), key, digest))
            .filter(|(storage_key, ..)| start <= storage_key && storage_key < end)
            .collect();
        theirs.sort();
        theirs.dedup_by(|a, b| a.0 == b.0);
        let tree = self.anti_entropy.trees.get(&keyspace).filter(|_| range == whole);
        let begun = tree.and_then(|tree| {
            let slot = slots.only()?;
            Some((slot, tree.begin_rescan(slot)?))
        });
        self.anti_entropy.serving += 1;
        let asked = KeysAsked { to, op, keyspace, end: range.1.clone(), begun, theirs };
        let page = PageSize::heads(KEYS_MAX, BYTES_MAX);
        self.scan(ScanFor::Keys(asked), (range.0, range.1), page, effects);
        Some(())
    }

    /// Own heads for a peer's question about keys.
    pub(crate) fn keys_scanned(
        &mut self,
        asked: KeysAsked,
        result: Result<ScanPage, StorageFailure>,
        effects: &mut Effects,
    ) {
        self.anti_entropy.serving = self.anti_entropy.serving.saturating_sub(1);
        let KeysAsked { to, op, keyspace, end, begun, theirs } = asked;
        let Ok(page) = result else { return self.send_exchange(to, Exchange::Unable { op }, effects) };
        let limit = page.next.clone().unwrap_or(end);
        let is_whole = page.next.is_none() && page.damaged.is_empty();
        let mut theirs = theirs.into_iter().peekable();
        let (mut heads, mut bytes, mut sum, mut upto) = (Vec::new(), 0, Sum::default(), page.next);
        let mut differs = |key: Bytes, head: Bytes| {
            bytes += key.len() + head.len();
            heads.push((key, head));
            bytes >= BYTES_MAX
        };
        let mut undecodable = false;
        for (storage_key, record) in page.entries {
            let Some((_, key)) = storage_key::parse_object(&storage_key) else { continue };
            let Ok(state) = codec::outline(&record.head) else {
                undecodable = true;
                continue;
            };
            let digest = state.digest();
            sum.add(Share::of(&key, &state));
            let mut full = false;
            while let Some((_, key, _)) = theirs.next_if(|(other, ..)| *other < storage_key) {
                full |= differs(key, Bytes::new());
            }
            let same =
                theirs.next_if(|(other, ..)| *other == storage_key).is_some_and(|other| other.2 == digest);
            if !same && !state.is_empty() {
                full |= differs(key, record.head);
            }
            if full {
                upto = Some(storage_key::after(&storage_key));
                break;
            }
        }
        let limit = upto.clone().unwrap_or(limit);
        while let Some((_, key, _)) = theirs.next_if(|(other, ..)| *other < limit) {
            differs(key, Bytes::new());
        }
        if let Some((slot, begun)) = begun
            && is_whole
            && !undecodable
            && upto.is_none()
            && heads.is_empty()
        {
            self.settle_leaf(keyspace, slot, begun, sum, effects);
        }
        self.send_exchange(to, Exchange::Differing { op, upto, heads }, effects);
    }

    fn states_asked(
        &mut self,
        to: NodeId,
        op: OpId,
        keyspace: KeyspaceId,
        keys: Vec<Bytes>,
        effects: &mut Effects,
    ) -> Option<()> {
        let shared = self.shared_if_loaded(to, keyspace)?;
        let keys: Vec<(Bytes, Bytes)> =
            keys.into_iter().map(|key| (storage_key::object(keyspace, &key), key)).collect();
        let (first, last) = (keys.first()?, keys.last()?);
        let slots = Stretch::between(storage_key::slot_of(&first.0)?, storage_key::slot_of(&last.0)?)?;
        let ordered = keys.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let sound = ordered && keys.iter().all(|(_, key)| !key.is_empty()) && shared.contains_all(slots);
        if !sound || self.anti_entropy.serving >= SERVING_MAX {
            return None;
        }
        self.anti_entropy.serving += 1;
        let (from, end) = (first.0.clone(), storage_key::after(&last.0));
        let asked = StatesAsked { to, op, keyspace, keys };
        let page = PageSize::records(KEYS_MAX, BYTES_MAX);
        self.scan(ScanFor::States(asked), (from, end), page, effects);
        Some(())
    }

    /// Own states for a peer.
    pub(crate) fn states_read(
        &mut self,
        now: Millis,
        asked: StatesAsked,
        result: Result<ScanPage, StorageFailure>,
        effects: &mut Effects,
    ) {
        self.anti_entropy.serving = self.anti_entropy.serving.saturating_sub(1);
        let StatesAsked { to, op, keyspace, keys } = asked;
        let Ok(page) = result else { return self.send_exchange(to, Exchange::Unable { op }, effects) };
        let looked_at = match &page.next {
            Some(next) => keys.partition_point(|(storage_key, _)| storage_key < next),
            None => keys.len(),
        };
        let mut entries = page.entries.into_iter().peekable();
        let mut states: Vec<(Bytes, Record)> = Vec::new();
        for (storage_key, key) in &keys[..looked_at] {
            while entries.next_if(|(other, _)| other < storage_key).is_some() {}
            if let Some((_, record)) = entries.next_if(|(other, _)| other == storage_key) {
                states.push((key.clone(), record));
            }
        }
        self.count_sent(to, keyspace, &states);
        let answer = Exchange::States { op, keyspace, looked_at: looked_at as u32, states };
        self.send_paced(now, to, answer, effects);
    }
}
