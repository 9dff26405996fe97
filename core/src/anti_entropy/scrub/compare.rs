//! Two replicas hold their contents of the same keys against each other.
//!
//! The answerer reads heads only, which hold the digests of values: whether its own bytes match those is for its own pass
//! to see. Of two contents under equal causality the larger digest wins, on all replicas alike, so that whoever notices
//! first, all end with the same; each side that holds the lesser fetches the other's.
//!
//! In: keys with the asker's digests, pages of own heads. Out: those that differ, fetches, notices. Absent: the
//! replacement (`replace`).

use super::SERVED_MAX;
use super::message::{Check, KeyContent};
use super::replace::Reason;
use crate::event::{Effect, Effects, Notice, ScanPage, StorageFailure};
use crate::id::{KeyspaceId, Millis, NodeId};
use crate::message::Message;
use crate::node::{Node, PageSize, ScanFor};
use crate::storage_key;
use crate::target::Target;
use crate::version::{Digest, Kind, codec};
use bytes::Bytes;
use std::collections::BTreeMap;

const PAGE_RECORDS: usize = 512;
const PAGE_BYTES: usize = 256 << 10;
/// Pages read for one question: the asker's keys may lie far apart among ours.
const PAGES_MAX: u32 = 16;

/// A peer's question, while own heads are read for it.
pub(crate) struct Comparing {
    peer: NodeId,
    keyspace: KeyspaceId,
    /// By storage key; taken out as they are found.
    keys: BTreeMap<Bytes, KeyContent>,
    differs: Vec<(KeyContent, Digest)>,
    to: Bytes,
    pages: u32,
}

impl Node {
    /// A peer has looked at these keys.
    pub(super) fn compare_asked(
        &mut self,
        peer: NodeId,
        keyspace: KeyspaceId,
        keys: Vec<KeyContent>,
        effects: &mut Effects,
    ) {
        if self.keyspaces.by_id(keyspace).is_none() || self.anti_entropy.scrub.serving >= SERVED_MAX {
            // The next pass asks again.
            return;
        }
        let named = keys.into_iter().filter(|key| !key.key.is_empty());
        let keys: BTreeMap<Bytes, KeyContent> =
            named.map(|key| (storage_key::object(keyspace, &key.key), key)).collect();
        let (Some(first), Some(last)) = (keys.keys().next(), keys.keys().next_back()) else { return };
        let (from, to) = (first.clone(), storage_key::after(last));
        self.anti_entropy.scrub.serving += 1;
        let comparing = Comparing { peer, keyspace, keys, differs: Vec::new(), to, pages: 0 };
        self.read_compared(from, comparing, effects);
    }

    fn read_compared(&mut self, from: Bytes, comparing: Comparing, effects: &mut Effects) {
        let to = comparing.to.clone();
        let page = PageSize::heads(PAGE_RECORDS, PAGE_BYTES);
        self.scan(ScanFor::ScrubCompare(Box::new(comparing)), (from, to), page, effects);
    }

    /// Own heads have come.
    pub(crate) fn compared(
        &mut self,
        now: Millis,
        mut comparing: Comparing,
        result: Result<ScanPage, StorageFailure>,
        effects: &mut Effects,
    ) {
        let page = result.unwrap_or_default();
        self.damage_found(page.damaged);
        for (storage_key, record) in &page.entries {
            let Some(asked) = comparing.keys.remove(storage_key) else { continue };
            let mine = codec::outline(&record.head)
                .and_then(|state| Ok((state.digest(), codec::content_digest(&record.head)?)));
            if let Ok((causal, Some(content))) = mine
                && causal == asked.causal
                && content != asked.content
            {
                comparing.differs.push((asked, content));
            }
        }
        comparing.pages += 1;
        if let Some(next) = page.next
            && !comparing.keys.is_empty()
            && comparing.pages < PAGES_MAX
        {
            return self.read_compared(next, comparing, effects);
        }
        self.anti_entropy.scrub.serving -= 1;
        let Comparing { peer, keyspace, differs: keys, .. } = comparing;
        if keys.is_empty() {
            return;
        }
        for (asked, mine) in &keys {
            self.diverged(now, peer, keyspace, asked, *mine, asked.content, effects);
        }
        let message = Message::Scrub(Check::Differs { keyspace, keys });
        effects.push(Effect::Send { to: peer, message });
    }

    /// A peer holds other contents of these keys.
    pub(super) fn differs(
        &mut self,
        now: Millis,
        peer: NodeId,
        keyspace: KeyspaceId,
        keys: Vec<(KeyContent, Digest)>,
        effects: &mut Effects,
    ) {
        for (asked, theirs) in keys {
            if !asked.key.is_empty() && asked.content != theirs {
                self.diverged(now, peer, keyspace, &asked, asked.content, theirs, effects);
            }
        }
    }

    /// Equal causality, two contents.
    #[expect(clippy::too_many_arguments, reason = "a key and both sides of it")]
    fn diverged(
        &mut self,
        now: Millis,
        peer: NodeId,
        keyspace: KeyspaceId,
        key: &KeyContent,
        mine: Digest,
        theirs: Digest,
        effects: &mut Effects,
    ) {
        let Some(entry) = self.keyspaces.by_id(keyspace) else { return };
        self.anti_entropy.scrub.seen.divergences += 1;
        // Only where a plugin makes what is stored can it have made two of one.
        let makes_states = entry.settings.policy.kind() == Kind::Lattice;
        let suspect = entry.settings.policy.plugin().filter(|_| makes_states).map(|plugin| plugin.hash);
        let (name, key_bytes) = (entry.name.clone(), key.key.clone());
        let notice = Notice::Divergence { keyspace: name, key: key_bytes, mine, theirs, peer, suspect };
        effects.push(Effect::Notice(notice));
        if mine < theirs {
            let target = Target::new(entry, &key.key);
            self.want(now, peer, &target, Some(key.causal), Reason::Lost { mine, winner: theirs }, effects);
        }
    }
}
