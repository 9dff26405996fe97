//! Ranges of the disk that cannot be read: written anew from the other primaries, then given up.
//!
//! ```text
//!   damage known ─▶ number of the damage ─▶ every other member that holds any of it, page by page ─▶ merges, durable
//!                                 all of them ─▶ leaves doubted, durably ─▶ a new actor, where dots may be lost ─▶ Excise
//! ```
//!
//! Every other primary must give all that it has: with fewer, a write that the lost copy had acknowledged could be
//! missing from a quorum that this node then answers in. Until then reads of the range stay errors. What is given up goes on
//! hiding what is older on this disk, so merges are enough, and they cannot overwrite what comes meanwhile.
//!
//! A primary may have lost some of the range itself. It gives what it can read, and waiting would bring no more: all that it
//! can still get is what others hold, who are asked as well. So two that are damaged in one range do not wait for one another for ever:
//! the range is given up, and who runs the cluster is told that keys of it may be lost.
//!
//! The block may have held dots of this node's that no primary has, but a hint somewhere. A span of the actor's next dot
//! would claim them, so the next dot is another actor's.
//!
//! In: ranges from scans and the shell's verifier, peers' pages, writes done. Out: merges, `Effect::Excise`. Absent: this
//! node's own records (`own`); which bytes are damaged, which is storage's.

use super::evidence::Loss;
use super::message::Found;
use crate::anti_entropy::TreeWrite;
use crate::event::{Durability, Effect, Effects, Notice, Record, ScanPage, StorageFailure, WriteOp};
use crate::id::{KeyspaceId, Millis, NodeId, OpId};
use crate::mutant::Mutant;
use crate::node::{Node, PageSize, Purpose, ScanFor};
use crate::ring::Slot;
use crate::storage_key;
use crate::target::Target;
use crate::version::codec;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Ranges remembered; those beyond are found again.
const RANGES_MAX: usize = 1024;
/// Leaves that are doubted at once.
const LEAVES_AT_ONCE: u16 = 256;
/// Of longer ranges every member is asked, not only those that hold some slot of it.
const SLOTS_MAX: usize = 1024;

/// Damaged ranges, apart from one another, and when each may be tried.
#[derive(Default)]
pub(super) struct Ranges(BTreeMap<(Bytes, Bytes), Millis>);

impl Ranges {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it was not known.
    fn add(&mut self, range: (Bytes, Bytes), at: Millis) -> bool {
        let is_known = self.0.keys().any(|(from, to)| *from <= range.0 && range.1 <= *to);
        if is_known || self.0.len() >= RANGES_MAX || range.0 >= range.1 {
            return false;
        }
        self.forget(&range);
        self.0.insert(range, at);
        true
    }

    /// What lies within a range is repaired with it. Asked for once more, a peer that was damaged meanwhile could not give it,
    /// and keys were called lost that are on this disk.
    fn forget(&mut self, range: &(Bytes, Bytes)) {
        self.0.retain(|(from, to), _| !(range.0 <= *from && *to <= range.1));
    }
}

/// A range being written anew.
pub(super) struct Refill {
    keyspace: KeyspaceId,
    from: Bytes,
    to: Bytes,
    /// Of the damage that may be given up; None until the disk has told.
    seen: Option<u64>,
    /// Yet to be asked; the last one is.
    peers: Vec<NodeId>,
    /// Where that one's next page begins.
    pub(super) cursor: Bytes,
    /// Those that could not read all of it.
    gaps: BTreeSet<NodeId>,
    op: Option<OpId>,
    writes: usize,
    failed: bool,
    /// Not before, for the pace's sake.
    ready_at: Millis,
    until: Millis,
}

impl Refill {
    /// Nothing is waited for.
    fn is_ready(&self) -> bool {
        self.seen.is_some() && self.op.is_none() && self.writes == 0
    }
}

/// What a write is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RefillStep {
    /// A record of a range that is written anew, or a leaf alone.
    Record(TreeWrite),
    /// This node's own records.
    Own,
}

impl Node {
    /// Storage has found damage: the shell's verifier tells.
    pub(crate) fn damage_told(&mut self, now: Millis, ranges: Vec<(Bytes, Bytes)>) {
        if self.damage_found(ranges) {
            self.scrub_in(now, 0);
        }
    }

    /// Remembers ranges that cannot be read; whether any of them is new.
    pub(super) fn damage_found(&mut self, ranges: Vec<(Bytes, Bytes)>) -> bool {
        let parts = self.parts();
        let scrub = &mut self.anti_entropy.scrub;
        let mut found = 0;
        for (from, to) in ranges {
            for (first, end) in &parts {
                let range = (from.clone().max(first.clone()), to.clone().min(end.clone()));
                let under_way = scrub
                    .refill
                    .as_ref()
                    .is_some_and(|refill| refill.from <= range.0 && range.1 <= refill.to);
                found += u64::from(!under_way && scrub.damaged.add(range, Millis(0)));
            }
        }
        scrub.seen.rot_found += found;
        found > 0
    }

    /// Everything there could be on the disk: own records, the objects of each keyspace, and what lies between, where nothing is.
    fn parts(&self) -> Vec<(Bytes, Bytes)> {
        let known: BTreeSet<KeyspaceId> =
            self.keyspaces.catalog().keyspaces.values().map(|entry| entry.id).collect();
        let mut parts = vec![storage_key::own_all()];
        let mut upto = storage_key::own_all().1;
        for (from, to) in known.into_iter().map(storage_key::objects) {
            parts.push((upto, from.clone()));
            upto = to.clone();
            parts.push((from, to));
        }
        parts.push((upto, storage_key::end()));
        parts
    }

    /// Whether a repair of a range is under way, or has begun now.
    pub(super) fn refill_due(&mut self, now: Millis, effects: &mut Effects) -> bool {
        let timeout = 4 * self.config.timeout_ms;
        if let Some(refill) = &mut self.anti_entropy.scrub.refill {
            if now >= refill.until {
                self.give_up_refill(now);
            } else if refill.is_ready() && refill.ready_at <= now {
                refill.until = now.after(timeout);
                self.refill_next(now, effects);
                if self.anti_entropy.scrub.refill.is_some() {
                    self.await_refill(now);
                    return true;
                }
                return false;
            } else {
                self.await_refill(now);
                return true;
            }
        }
        let damaged = &self.anti_entropy.scrub.damaged.0;
        // Which leaves stand for keys is known once they are loaded.
        let is_able = |from: &Bytes| self.anti_entropy.loaded || storage_key::keyspace_of(from).0 != 0;
        let due = damaged
            .iter()
            .find(|((from, _), at)| **at <= now && is_able(from))
            .map(|(range, _)| range.clone());
        let Some((from, to)) = due else { return false };
        self.anti_entropy.scrub.damaged.0.remove(&(from.clone(), to.clone()));
        let keyspace = storage_key::keyspace_of(&from);
        let peers = self.holders(keyspace, &from, &to);
        let is_alone = self.keyspaces.by_id(keyspace).is_some() && peers.is_empty();
        if is_alone || peers.iter().any(|peer| !self.is_reachable(*peer)) {
            self.anti_entropy.scrub.damaged.add((from, to), now.after(self.scrub_look_ms()));
            return false;
        }
        let page = PageSize::heads(1, 1);
        self.scan(ScanFor::Damage, (from.clone(), to.clone()), page, effects);
        self.anti_entropy.scrub.refill = Some(Refill {
            keyspace,
            cursor: from.clone(),
            from,
            to,
            seen: None,
            peers,
            gaps: BTreeSet::new(),
            op: None,
            writes: 0,
            failed: false,
            ready_at: now,
            until: now.after(timeout),
        });
        self.await_refill(now);
        true
    }

    /// The next turn is the refill's.
    fn await_refill(&mut self, now: Millis) {
        let Some(refill) = &self.anti_entropy.scrub.refill else { return };
        let at = if refill.is_ready() { refill.ready_at } else { refill.until };
        self.scrub_in(now, at.0.saturating_sub(now.0));
    }

    /// Every other member that is a primary of a slot of the range.
    fn holders(&self, keyspace: KeyspaceId, from: &Bytes, to: &Bytes) -> Vec<NodeId> {
        let Some(entry) = self.keyspaces.by_id(keyspace) else { return Vec::new() };
        let (first, last) = (storage_key::slot_at(from).0, storage_key::last_slot_before(to).0);
        let n = entry.settings.n as usize;
        let mut holders: BTreeSet<NodeId> = if usize::from(last.saturating_sub(first)) >= SLOTS_MAX {
            self.ring.nodes().iter().filter(|node| node.weight > 0.0).map(|node| node.id).collect()
        } else {
            (first..=last).flat_map(|slot| self.ring.primaries(Slot(slot).first_token(), n)).collect()
        };
        holders.remove(&self.config.node);
        holders.into_iter().collect()
    }

    /// The disk has said which damage is the last: whatever is written from now on is newer.
    pub(crate) fn damage_numbered(
        &mut self,
        now: Millis,
        result: Result<ScanPage, StorageFailure>,
        effects: &mut Effects,
    ) {
        let Some(refill) = self.anti_entropy.scrub.refill.as_mut().filter(|refill| refill.seen.is_none())
        else {
            return;
        };
        match result {
            Ok(page) => {
                refill.seen = Some(page.damage_seen);
                self.refill_next(now, effects);
                self.await_refill(now);
            }
            Err(_) => self.give_up_refill(now),
        }
    }

    /// Asks for the next page, or ends.
    fn refill_next(&mut self, now: Millis, effects: &mut Effects) {
        let Some(refill) = &self.anti_entropy.scrub.refill else { return };
        if refill.failed {
            return self.give_up_refill(now);
        }
        if self.mutant(Mutant::ExciseBeforeRefill) {
            return self.end_refill(now, effects);
        }
        let (keyspace, from, to) = (refill.keyspace, refill.cursor.clone(), refill.to.clone());
        if keyspace.0 == 0 && from < to {
            return self.refill_own(from, to, effects);
        }
        let Some(peer) = refill.peers.last().copied() else {
            if !self.doubt_what_goes(effects) {
                self.end_refill(now, effects);
            }
            return;
        };
        let op = self.op();
        if let Some(refill) = &mut self.anti_entropy.scrub.refill {
            refill.op = Some(op);
        }
        self.fetch_range(peer, op, keyspace, from, to, effects);
    }

    /// A peer's page of the range.
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn refill_came(
        &mut self,
        now: Millis,
        from: NodeId,
        op: OpId,
        records: Vec<(Bytes, Record)>,
        next: Option<Bytes>,
        found: Found,
        effects: &mut Effects,
    ) {
        let Some(refill) = &mut self.anti_entropy.scrub.refill else { return };
        if refill.op != Some(op) || refill.peers.last() != Some(&from) {
            return;
        }
        refill.op = None;
        let goes_on = next.as_ref().is_none_or(|next| *next > refill.cursor);
        match found {
            Found::Whole if goes_on => {}
            Found::Gaps if goes_on => drop(refill.gaps.insert(from)),
            _ => return self.give_up_refill(now),
        }
        match next {
            Some(next) => refill.cursor = next,
            None => {
                refill.peers.pop();
                refill.cursor = refill.from.clone();
            }
        }
        let (keyspace, range) = (refill.keyspace, (refill.from.clone(), refill.to.clone()));
        let bytes =
            records.iter().map(|(key, record)| key.len() + record.head.len() + record.body.len()).sum();
        let Some(entry) = self.keyspaces.by_id(keyspace) else { return self.give_up_refill(now) };
        for (storage_key, record) in records {
            let inside = range.0 <= storage_key && storage_key < range.1;
            let Some((_, key)) = storage_key::parse_object(&storage_key).filter(|_| inside) else { continue };
            let target = Target::new(entry.clone(), &key);
            let is_ours = self.ring.primaries(target.token, target.n()).contains(&self.config.node);
            let kind = codec::kind(&record.head);
            if target.storage_key != storage_key || !is_ours || kind != Ok(entry.settings.policy.kind()) {
                continue;
            }
            let Some(record) = self.sift_record(&target, record) else { continue };
            if self.active.contains_key(&storage_key) {
                // Its work goes on from what was read before, and would not know of what is merged beneath it.
                return self.give_up_refill(now);
            }
            self.fence.graves.touch(&storage_key);
            let (leaf_op, leaf) = self.tree_change_unread(&target);
            let merge = WriteOp::Merge { key: storage_key, record };
            let ops = [merge].into_iter().chain(leaf_op).collect();
            self.refill_write(RefillStep::Record(leaf), ops, effects);
        }
        let ready_at = now.after(self.scrub_pace_ms(bytes));
        if let Some(refill) = &mut self.anti_entropy.scrub.refill {
            refill.ready_at = ready_at;
        }
        self.await_refill(now);
    }

    pub(super) fn refill_write(&mut self, step: RefillStep, ops: Vec<WriteOp>, effects: &mut Effects) {
        let ticket = self.ticket(Purpose::Refill(step));
        if let Some(refill) = &mut self.anti_entropy.scrub.refill {
            refill.writes += 1;
        }
        effects.push(Effect::Write { ticket, ops, durability: Durability::Sync });
    }

    /// What is given up is part of what leaves stand for: before it goes they are doubted, durably, some at a time. Whether
    /// any was. A leaf that still counted a version which is gone here would call this replica equal to one that holds it.
    fn doubt_what_goes(&mut self, effects: &mut Effects) -> bool {
        loop {
            let Some(refill) = &mut self.anti_entropy.scrub.refill else { return false };
            let keyspace = refill.keyspace;
            if keyspace.0 == 0 || refill.cursor >= refill.to {
                return false;
            }
            let first = storage_key::slot_at(&refill.cursor).0;
            let last = storage_key::last_slot_before(&refill.to).0;
            let upto = last.min(first.saturating_add(LEAVES_AT_ONCE - 1));
            refill.cursor = match upto < last {
                true => storage_key::object_range(keyspace, Slot(upto)).1,
                false => refill.to.clone(),
            };
            let leaves: Vec<_> =
                (first..=upto).filter_map(|slot| self.tree_doubt(keyspace, Slot(slot))).collect();
            if !leaves.is_empty() {
                for (op, leaf) in leaves {
                    self.refill_write(RefillStep::Record(leaf), vec![op], effects);
                }
                return true;
            }
        }
    }

    /// Storage is done with a write of a refill.
    pub(crate) fn refill_written(&mut self, now: Millis, step: RefillStep, is_ok: bool) {
        if let RefillStep::Record(leaf) = step {
            self.tree_written(leaf, is_ok);
        }
        let Some(refill) = &mut self.anti_entropy.scrub.refill else { return };
        refill.writes = refill.writes.saturating_sub(1);
        refill.failed |= !is_ok;
        if refill.is_ready() {
            self.await_refill(now);
        }
    }

    fn end_refill(&mut self, now: Millis, effects: &mut Effects) {
        if let Some(Refill { keyspace, from, to, seen: Some(seen), gaps, .. }) =
            self.anti_entropy.scrub.refill.take()
        {
            if !gaps.is_empty() {
                let peers = gaps.into_iter().collect();
                self.range_lost(Loss { at: now, from: from.clone(), to: to.clone(), peers }, effects);
            }
            let scrub = &mut self.anti_entropy.scrub;
            scrub.seen.repaired += 1;
            scrub.damaged.forget(&(from.clone(), to.clone()));
            scrub.reported.forget(&from, &to);
            // A table that was damaged before this actor's first dot holds none of its dots.
            if keyspace.0 != 0 && scrub.renewed_at.is_none_or(|at| at < seen) {
                scrub.renewed_at = Some(seen);
                self.renew(effects);
            }
            effects.push(Effect::Excise { from, to, seen });
        }
        self.scrub_in(now, 0);
    }

    /// Nobody can read what was there.
    fn range_lost(&mut self, loss: Loss, effects: &mut Effects) {
        let keyspace = self.keyspaces.by_id(storage_key::keyspace_of(&loss.from));
        let keyspace = keyspace.map_or(String::new(), |entry| entry.name.clone());
        self.keep_evidence(&loss.from, loss.record(), effects);
        self.anti_entropy.scrub.seen.lost += 1;
        let Loss { from, to, peers, .. } = loss;
        effects.push(Effect::Notice(Notice::RangeLost { keyspace, from, to, peers }));
    }

    /// It is tried again later: somebody who is needed cannot help now.
    fn give_up_refill(&mut self, now: Millis) {
        if let Some(refill) = self.anti_entropy.scrub.refill.take() {
            let at = now.after(self.scrub_look_ms());
            self.anti_entropy.scrub.damaged.add((refill.from, refill.to), at);
        }
        self.scrub_in(now, 1);
    }
}
