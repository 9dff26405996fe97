//! A page of this node's own records: each is held against the digest in its head.
//!
//! In: pages of the walk. Out: what does not match, ranges that could not be read, and for each peer the keys that
//! it is to compare. Absent: what comes of those; see `compare`, `replace`, `refill`.

use super::RETRY_MS;
use super::message::{Check, KEYS_MAX, KeyContent};
use super::replace::Reason;
use crate::event::{Effect, Effects, ScanPage, StorageFailure};
use crate::id::{KeyspaceId, Millis, NodeId};
use crate::message::Message;
use crate::node::{Node, PageSize, ScanFor};
use crate::ring::Slot;
use crate::storage_key;
use crate::target::Target;
use crate::version::{Digest, codec};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Records of a page: some hundreds of microseconds of this node's time.
const PAGE_RECORDS: usize = 256;
/// Bytes of a page: hashing them is most of that time.
const PAGE_BYTES: usize = 256 << 10;
const _: () = assert!(PAGE_RECORDS <= KEYS_MAX);

/// Where a page was read.
pub(crate) struct ScrubPage {
    keyspace: KeyspaceId,
    from: Bytes,
}

/// One record, held against itself.
struct Checked {
    key: Bytes,
    causal: Digest,
    /// None: replicas may differ in it.
    content: Option<Digest>,
    sound: bool,
}

impl Node {
    pub(super) fn read_scrub_page(&mut self, effects: &mut Effects) {
        let Some(pass) = self.anti_entropy.scrub.pass.as_ref() else { return };
        let (keyspace, from, to) = (pass.keyspace, pass.cursor.clone(), pass.to.clone());
        let page = PageSize::records(PAGE_RECORDS, PAGE_BYTES);
        self.scan(ScanFor::Scrub(ScrubPage { keyspace, from: from.clone() }), (from, to), page, effects);
    }

    /// A page of own records has come.
    pub(crate) fn scrub_page_read(
        &mut self,
        now: Millis,
        read: ScrubPage,
        result: Result<ScanPage, StorageFailure>,
        effects: &mut Effects,
    ) {
        let pass = self.anti_entropy.scrub.pass.as_ref();
        if pass.is_none_or(|pass| (pass.keyspace, &pass.cursor) != (read.keyspace, &read.from)) {
            // It came after the patience with it.
            return;
        }
        let Ok(page) = result else {
            let delay = self.config.scrub_period_ms.min(RETRY_MS);
            return self.scrub_in(now, delay);
        };
        let bytes =
            page.entries.iter().map(|(key, record)| key.len() + record.head.len() + record.body.len());
        let bytes: usize = bytes.sum();
        let seen = &mut self.anti_entropy.scrub.seen;
        seen.records += page.entries.len() as u64;
        seen.bytes += bytes as u64;
        self.damage_found(page.damaged);
        if let Some(entry) = self.keyspaces.by_id(read.keyspace) {
            let mut compare: BTreeMap<NodeId, Vec<KeyContent>> = BTreeMap::new();
            let mut peer_of_slot: Option<(Slot, Option<NodeId>)> = None;
            for (storage_key, record) in &page.entries {
                let Some((_, key)) = storage_key::parse_object(storage_key) else { continue };
                let target = Target::new(entry.clone(), &key);
                let slot = target.token.slot();
                let peer = match peer_of_slot {
                    Some((known, peer)) if known == slot => peer,
                    _ => self.scrub_peer(&target),
                };
                peer_of_slot = Some((slot, peer));
                let checked = check(key, record);
                if !checked.as_ref().is_some_and(|checked| checked.sound) {
                    let causal = checked.map(|checked| checked.causal);
                    self.rot_found(now, &target, causal, peer, effects);
                    continue;
                }
                if let (Some(Checked { key, causal, content: Some(content), .. }), Some(peer)) =
                    (checked, peer)
                {
                    compare.entry(peer).or_default().push(KeyContent { key, causal, content });
                }
            }
            for (to, keys) in compare {
                let check = Check::Compare { keyspace: read.keyspace, keys };
                effects.push(Effect::Send { to, message: Message::Scrub(check) });
            }
        }
        self.advance_scrub_pass(page.next);
        let delay = self.scrub_pace_ms(bytes);
        self.scrub_in(now, delay);
    }

    /// Another primary of a key that can be asked, in turn from pass to pass; None if this node is no primary.
    fn scrub_peer(&self, target: &Target) -> Option<NodeId> {
        let primaries = self.ring.primaries(target.token, target.n());
        primaries.contains(&self.config.node).then_some(())?;
        let others = primaries.into_iter().filter(|node| *node != self.config.node);
        let others: Vec<NodeId> = others.filter(|node| self.is_reachable(*node)).collect();
        let turn = self.anti_entropy.scrub.seen.passes as usize;
        others.get(turn % others.len().max(1)).copied()
    }

    /// A record is not what was written.
    fn rot_found(
        &mut self,
        now: Millis,
        target: &Target,
        causal: Option<Digest>,
        peer: Option<NodeId>,
        effects: &mut Effects,
    ) {
        self.anti_entropy.scrub.seen.rot_found += 1;
        let reason = "its bytes are not those that were written".to_owned();
        self.corrupt_record(target.storage_key.clone(), reason, effects);
        if let Some(peer) = peer {
            self.want(now, peer, target, causal, Reason::Rot, effects);
        }
    }
}

/// None if it does not decode.
fn check(key: Bytes, record: &crate::event::Record) -> Option<Checked> {
    let causal = codec::outline(&record.head).ok()?.digest();
    let content = codec::content_digest(&record.head).ok()?;
    Some(Checked { key, causal, content, sound: codec::is_sound(record) })
}
