//! One record is fetched from a peer and takes the place of one's own, if causality is still equal.
//!
//! In: keys that rotted or lost, peers' pages. Out: questions, evidence, replacements. Serves such questions, too.
//! Absent: whole ranges (`refill`) and which content wins (`compare`).

use super::SERVED_MAX;
use super::evidence::Evidence;
use super::message::{Check, Found};
use crate::event::{Durability, Effect, Effects, Record, ScanPage, StorageFailure, WriteOp};
use crate::id::{KeyspaceId, Millis, NodeId, OpId};
use crate::message::Message;
use crate::node::{Node, PageSize, Purpose, ScanFor};
use crate::replica::Job;
use crate::storage_key;
use crate::target::Target;
use crate::version::{Digest, KeyState, codec};
use bytes::Bytes;

/// Fetches under way; what is beyond is found by the next pass.
const WANTED_MAX: usize = 64;
const PAGE_RECORDS: usize = 256;
const PAGE_BYTES: usize = 512 << 10;

/// Why a record is to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Its bytes do not match its own digest.
    Rot,
    /// Another content won.
    Lost { mine: Digest, winner: Digest },
}

/// A record that was asked for, or has come and waits for one's own to be read.
pub(crate) struct Wanted {
    peer: NodeId,
    target: Target,
    /// None: one's own does not decode.
    causal: Option<Digest>,
    reason: Reason,
    until: Millis,
    came: Option<(KeyState, Record)>,
}

/// A page that is being read for a peer.
pub(crate) struct Serving {
    peer: NodeId,
    op: OpId,
}

impl Node {
    /// Asks a peer for its record of a key.
    pub(super) fn want(
        &mut self,
        now: Millis,
        peer: NodeId,
        target: &Target,
        causal: Option<Digest>,
        reason: Reason,
        effects: &mut Effects,
    ) {
        let wanted = &self.anti_entropy.scrub.wanted;
        let is_known = wanted.values().any(|wanted| wanted.target.storage_key == target.storage_key);
        if is_known || wanted.len() >= WANTED_MAX {
            return;
        }
        let op = self.op();
        let until = now.after(4 * self.config.timeout_ms);
        let wanted = Wanted { peer, target: target.clone(), causal, reason, until, came: None };
        self.anti_entropy.scrub.wanted.insert(op, wanted);
        let (from, to) = (target.storage_key.clone(), storage_key::after(&target.storage_key));
        self.fetch_range(peer, op, target.entry.id, from, to, effects);
    }

    pub(super) fn fetch_range(
        &mut self,
        peer: NodeId,
        op: OpId,
        keyspace: KeyspaceId,
        from: Bytes,
        to: Bytes,
        effects: &mut Effects,
    ) {
        let message = Message::Scrub(Check::Fetch { op, keyspace, from, to });
        effects.push(Effect::Send { to: peer, message });
    }

    /// Ends the patience with records that did not come.
    pub(super) fn forget_wanted(&mut self, now: Millis) {
        self.anti_entropy.scrub.wanted.retain(|_, wanted| wanted.until > now);
    }

    /// A message of the scrub.
    pub(crate) fn scrub_message(&mut self, now: Millis, from: NodeId, check: Check, effects: &mut Effects) {
        match check {
            Check::Compare { keyspace, keys } => self.compare_asked(from, keyspace, keys, effects),
            Check::Differs { keyspace, keys } => self.differs(now, from, keyspace, keys, effects),
            Check::Fetch { op, keyspace, from: first, to } => {
                self.fetch_asked(from, op, keyspace, first, to, effects)
            }
            Check::Fetched { op, records, next, found } => {
                if self.anti_entropy.scrub.wanted.contains_key(&op) {
                    self.wanted_came(from, op, records, effects);
                } else {
                    self.refill_came(now, from, op, records, next, found, effects);
                }
            }
        }
    }

    /// A peer wants to know what is here in a range of one keyspace.
    fn fetch_asked(
        &mut self,
        peer: NodeId,
        op: OpId,
        keyspace: KeyspaceId,
        from: Bytes,
        to: Bytes,
        effects: &mut Effects,
    ) {
        let (first, end) = storage_key::objects(keyspace);
        let (from, to) = (from.max(first), to.min(end));
        let is_known = self.keyspaces.by_id(keyspace).is_some();
        if !is_known || from >= to || self.anti_entropy.scrub.serving >= SERVED_MAX {
            let nothing = Check::Fetched { op, records: Vec::new(), next: None, found: Found::Unable };
            effects.push(Effect::Send { to: peer, message: Message::Scrub(nothing) });
            return;
        }
        self.anti_entropy.scrub.serving += 1;
        let page = PageSize::records(PAGE_RECORDS, PAGE_BYTES);
        self.scan(ScanFor::ScrubFetch(Serving { peer, op }), (from, to), page, effects);
    }

    /// The page that a peer wants has been read.
    pub(crate) fn fetch_read(
        &mut self,
        serving: Serving,
        result: Result<ScanPage, StorageFailure>,
        effects: &mut Effects,
    ) {
        self.anti_entropy.scrub.serving -= 1;
        let is_able = result.is_ok();
        let page = result.unwrap_or_default();
        let mut whole = page.damaged.is_empty();
        self.damage_found(page.damaged);
        let mut records = page.entries;
        records.retain(|(_, record)| {
            let sound = codec::is_sound(record);
            whole &= sound;
            sound
        });
        let found = match (is_able, whole) {
            (true, true) => Found::Whole,
            (true, false) => Found::Gaps,
            (false, _) => Found::Unable,
        };
        let check = Check::Fetched { op: serving.op, records, next: page.next, found };
        effects.push(Effect::Send { to: serving.peer, message: Message::Scrub(check) });
    }

    /// A peer's record of a key that was asked for.
    fn wanted_came(&mut self, from: NodeId, op: OpId, records: Vec<(Bytes, Record)>, effects: &mut Effects) {
        let Some(wanted) = self.anti_entropy.scrub.wanted.get_mut(&op) else { return };
        if wanted.peer != from || wanted.came.is_some() {
            return;
        }
        let key = wanted.target.storage_key.clone();
        let kind = wanted.target.entry.settings.policy.kind();
        let record = records.into_iter().find(|(at, _)| *at == key).map(|(_, record)| record);
        let usable = record.filter(codec::is_sound).and_then(|record| {
            let state = codec::state(&record).ok()?;
            let content = codec::content_digest(&record.head).ok()?;
            let causal_fits = wanted.causal.is_none_or(|causal| state.digest() == causal);
            let content_fits = match wanted.reason {
                Reason::Rot => true,
                Reason::Lost { winner, .. } => content == Some(winner),
            };
            (state.kind() == kind && causal_fits && content_fits).then_some((state, record))
        });
        // Otherwise it is another by now: the next pass sees what is to be done.
        match usable {
            Some(came) => wanted.came = Some(came),
            None => {
                self.anti_entropy.scrub.wanted.remove(&op);
                return;
            }
        }
        let ticket = self.ticket(Purpose::ScrubOwn(op));
        effects.push(Effect::Read { ticket, key });
    }

    /// One's own record, which the peer's is to replace.
    pub(crate) fn scrub_own_read(
        &mut self,
        now: Millis,
        op: OpId,
        result: Result<Option<Record>, StorageFailure>,
        effects: &mut Effects,
    ) {
        let Some(wanted) = self.anti_entropy.scrub.wanted.remove(&op) else { return };
        let (Some((state, record)), Ok(Some(own))) = (wanted.came, result) else { return };
        let Some((state, record)) = self.sift(&wanted.target, state, record) else { return };
        let own_state = codec::state(&own);
        let is_equal = own_state.as_ref().is_ok_and(|own| own.digest() == state.digest());
        let is_undecodable = own_state.is_err() && wanted.causal.is_none();
        if own == record || !(is_equal || is_undecodable) {
            return;
        }
        let (mine, winner) = match wanted.reason {
            Reason::Lost { mine, winner } => (Some(mine), Some(winner)),
            Reason::Rot => (None, codec::content_digest(&record.head).ok().flatten()),
        };
        let evidence =
            Evidence { at: now, peer: wanted.peer, mine, winner, own: own.clone(), taken: record.clone() };
        self.keep_evidence(&wanted.target.storage_key, evidence.record(), effects);
        self.anti_entropy.scrub.seen.repaired += 1;
        match state {
            KeyState::Lww(_) => self.merge_register(&wanted.target, record, Vec::new(), Vec::new(), effects),
            state if is_equal => {
                self.enqueue(now, &wanted.target, Job::Replace { state, record }, effects);
            }
            _ => self.replace_undecodable(&wanted.target, record, effects),
        }
    }

    /// Nobody can do anything with what is there, so nobody's work is lost with it.
    fn replace_undecodable(&mut self, target: &Target, record: Record, effects: &mut Effects) {
        if self.active.contains_key(&target.storage_key) {
            return;
        }
        let (leaf_op, leaf) = self.tree_change_unread(target);
        let ticket = self.ticket(Purpose::Write {
            active: None,
            register: None,
            completions: Vec::new(),
            leaf: Some(leaf),
        });
        let put = WriteOp::Put { key: target.storage_key.clone(), record };
        let ops = [put].into_iter().chain(leaf_op).collect();
        effects.push(Effect::Write { ticket, ops, durability: Durability::Sync });
    }
}
