//! A round of gossip: what is asked, answered and believed.
//!
//! In: [`Gossip`] of members, by links that prove who speaks. Out: answers, heartbeats for the
//! detector, entries. A member passes on what others said of themselves; of itself it believes only
//! itself (`join` judges what others know of this node). What is said of nodes that are no members
//! is dropped. Absent: bytes (`gossip`), verdicts (`life`).

use super::Membership;
use super::gossip::{Beat, Gossip};
use super::life::{Entry, Verdict};
use crate::catalog::CatalogDigest;
use crate::event::{Effect, Effects, Notice};
use crate::id::{DiskId, Millis, NodeId};
use crate::message::Message;
use crate::moment::Told;
use crate::node::Node;
use std::collections::BTreeMap;

/// Entries in one message; those that did not fit follow with the next round.
const NEWS_MAX: usize = 64;
/// A member whose catalog differs is sent this node's at most so often, unless either changes.
const PUSH_AGAIN_MS: u64 = 1_000;

impl Membership {
    fn own_beat(&self) -> Beat {
        beat_of(&self.own, self.beat)
    }

    fn beats(&self) -> Vec<Beat> {
        let known = |peer: &super::Peer| peer.entry.as_ref().map(|entry| beat_of(entry, peer.beat));
        [self.own_beat()].into_iter().chain(self.peers.values().filter_map(known)).collect()
    }

    fn beat_of(&self, node: NodeId) -> Option<Beat> {
        if node == self.own.node {
            return Some(self.own_beat());
        }
        let peer = self.peers.get(&node)?;
        peer.entry.as_ref().map(|entry| beat_of(entry, peer.beat))
    }

    /// Whether a member's boot is on this node's disk.
    fn keeps(&self, node: NodeId, session: u64) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.kept_session == Some(session))
    }

    /// Equal for equal sets.
    fn forgotten_digest(&self) -> u64 {
        let mix = |sum: u64, (node, disk): (&NodeId, &DiskId)| {
            sum.wrapping_add(node.0.rotate_left(32).wrapping_mul(disk.0 | 1))
        };
        self.forgotten.iter().fold(0, mix)
    }
}

fn beat_of(entry: &Entry, beat: u64) -> Beat {
    let Entry { node, revision, life, .. } = entry;
    Beat { node: *node, boots: life.boots, session: life.session, revision: *revision, beat }
}

impl Node {
    /// Tells a few members, at random, how far it knows all of them.
    pub(crate) fn gossip_with_some(&mut self, effects: &mut Effects) {
        let mut peers: Vec<NodeId> = self.linked().collect();
        for index in 0..peers.len().min(self.config.fanout) {
            let other = index + (self.random() % (peers.len() - index) as u64) as usize;
            peers.swap(index, other);
            self.gossip_with(peers[index], effects);
        }
    }

    /// Tells one member how far it knows all of them.
    pub(crate) fn gossip_with(&mut self, to: NodeId, effects: &mut Effects) {
        let m = &mut self.membership;
        if !m.stage.has_read() {
            return;
        }
        m.counters.rounds += 1;
        let gossip = Gossip::Digest {
            joining: m.stage.is_joining(),
            running_ms: self.running_ms,
            catalog: self.keyspaces.digest(),
            forgotten: m.forgotten_digest(),
            beats: m.beats(),
        };
        effects.push(Effect::Send { to, message: Message::Gossip(gossip) });
    }

    /// A member gossips.
    pub(crate) fn gossip(&mut self, now: Millis, from: NodeId, gossip: Gossip, effects: &mut Effects) {
        // Until it has read what it knew before its boot, a node has nothing to compare with.
        if !self.membership.stage.has_read() || !self.membership.peers.contains_key(&from) {
            return;
        }
        match gossip {
            Gossip::Digest { joining, running_ms, catalog, forgotten, beats } => {
                self.hear_time(from, running_ms, &beats);
                let message = self.answer_to(now, from, joining, forgotten, &beats, effects);
                effects.push(Effect::Send { to: from, message: Message::Gossip(message) });
                self.compare_catalogs(now, from, catalog, effects);
            }
            Gossip::Answer { running_ms, catalog, knows_you, keeps_you, beats, news, want, forgotten } => {
                self.hear_time(from, running_ms, &beats);
                self.learn_all(now, from, news, forgotten, effects);
                self.hear(now, &beats, effects);
                self.answered(from, knows_you, keeps_you);
                if catalog == self.keyspaces.digest() {
                    self.catalogs_agree();
                }
                self.try_to_join(now, effects);
                if self.membership.is_leaving() {
                    return;
                }
                let news: Vec<Entry> = want
                    .iter()
                    .filter_map(|node| self.membership.entry(*node))
                    .take(NEWS_MAX)
                    .cloned()
                    .collect();
                if !news.is_empty() {
                    let gossip = Gossip::News { news, forgotten: None };
                    effects.push(Effect::Send { to: from, message: Message::Gossip(gossip) });
                }
                self.compare_catalogs(now, from, catalog, effects);
            }
            Gossip::News { news, forgotten } => self.learn_all(now, from, news, forgotten, effects),
        }
    }

    /// What the asker lacks, and what it knows better.
    fn answer_to(
        &mut self,
        now: Millis,
        from: NodeId,
        joining: bool,
        forgotten: u64,
        beats: &[Beat],
        effects: &mut Effects,
    ) -> Gossip {
        let known: BTreeMap<NodeId, &Beat> = beats.iter().map(|beat| (beat.node, beat)).collect();
        let m = &self.membership;
        let (mut newer, mut news, mut want) = (vec![m.own_beat()], Vec::new(), Vec::new());
        for mine in m.beats() {
            match known.get(&mine.node) {
                Some(theirs) if theirs.session == mine.session => {
                    if mine.revision > theirs.revision || mine.boots > theirs.boots {
                        news.push(mine.node);
                    } else if mine.beat > theirs.beat && mine.node != m.own.node {
                        newer.push(mine);
                    }
                }
                // Of different sessions the one with fewer boots may be an old disk's: both hear.
                Some(theirs) if mine.boots >= theirs.boots => news.push(mine.node),
                Some(_) => {}
                None => news.push(mine.node),
            }
        }
        for theirs in beats {
            let Some(mine) = m.beat_of(theirs.node) else {
                if m.peers.contains_key(&theirs.node) {
                    want.push(theirs.node);
                }
                continue;
            };
            let newer = match theirs.session == mine.session {
                true => (theirs.boots, theirs.revision) > (mine.boots, mine.revision),
                false => theirs.boots >= mine.boots || theirs.node == m.own.node,
            };
            // Of this very boot nobody knows more than this node does.
            if newer && theirs.session != m.own.life.session {
                want.push(theirs.node);
            }
        }
        let knows_you = m.entry(from).is_some();
        if joining && knows_you {
            // First, so that it is among those that fit.
            news.retain(|node| *node != from);
            news.insert(0, from);
        }
        let keeps_you = known.get(&from).is_some_and(|beat| m.keeps(from, beat.session));
        let news = news.iter().filter_map(|node| m.entry(*node)).take(NEWS_MAX).cloned().collect();
        want.truncate(NEWS_MAX);
        let forgotten = (m.forgotten_digest() != forgotten).then(|| m.forgotten.clone());
        let answer = Gossip::Answer {
            running_ms: self.running_ms,
            catalog: self.keyspaces.digest(),
            knows_you,
            keeps_you,
            beats: newer,
            news,
            want,
            forgotten,
        };
        self.hear(now, beats, effects);
        if joining {
            self.keep_boots(effects);
        }
        answer
    }

    /// A member says how long it has run, and beside its own heartbeat in which session.
    fn hear_time(&mut self, from: NodeId, running_ms: u64, beats: &[Beat]) {
        let own = beats.iter().find(|beat| beat.node == from);
        if let (Some(own), Some(peer)) = (own, self.membership.peers.get_mut(&from)) {
            Told::hear(&mut peer.time, own.session, running_ms, self.running_ms);
        }
    }

    /// Heartbeats come in. Those of lives that are not known yet do not count.
    fn hear(&mut self, now: Millis, beats: &[Beat], effects: &mut Effects) {
        let (lived_ms, patience) = (self.membership.time.lived_ms(), self.membership.patience);
        for beat in beats {
            let Some(peer) = self.membership.peers.get_mut(&beat.node) else { continue };
            let is_newer = peer.entry.as_ref().is_some_and(|entry| entry.life.session == beat.session)
                && beat.beat > peer.beat;
            if is_newer {
                peer.beat = beat.beat;
                peer.detector.heard(lived_ms, &patience);
                if peer.detector.state() != super::MemberState::Down {
                    self.membership.unkept |= std::mem::take(&mut peer.down_ms) > 0;
                }
                self.state_may_differ(now, beat.node, effects);
            }
        }
    }

    fn learn_all(
        &mut self,
        now: Millis,
        from: NodeId,
        news: Vec<Entry>,
        forgotten: Option<BTreeMap<NodeId, DiskId>>,
        effects: &mut Effects,
    ) {
        let mut learned = false;
        for entry in news {
            match entry.node == self.config.node {
                true => self.learn_of_myself(&entry, effects),
                false => learned |= self.learn(from, entry, effects),
            }
        }
        for (node, disk) in forgotten.unwrap_or_default() {
            self.learn_forgotten(node, disk, effects);
        }
        if self.membership.is_leaving() {
            return;
        }
        self.keep_boots(effects);
        if learned {
            self.members_are_ready(now, effects);
        }
    }

    /// What another member says of itself, perhaps passed on; whether it was new.
    fn learn(&mut self, from: NodeId, entry: Entry, effects: &mut Effects) -> bool {
        let node = entry.node;
        let Some(peer) = self.membership.peers.get_mut(&node) else { return false };
        let verdict = peer.entry.as_ref().map_or(Verdict::Newer, |known| known.judge(&entry));
        match verdict {
            Verdict::Stale => {
                let differs =
                    peer.entry.as_ref().is_some_and(|known| known.life.session != entry.life.session);
                if differs && from == node {
                    self.tell_what_is_known(node, effects);
                }
                return false;
            }
            Verdict::OldDisk => {
                if peer.old_session.replace(entry.life.session) != Some(entry.life.session) {
                    self.membership.counters.old_disks += 1;
                    effects.push(Effect::Notice(Notice::OldDisk { node, disk: entry.life.disk }));
                }
                if from == node {
                    self.tell_what_is_known(node, effects);
                }
                return false;
            }
            Verdict::Newer | Verdict::Rebooted | Verdict::EmptyDisk => {}
        }
        let before = peer.entry.replace(entry.clone());
        self.membership.counters.entries += 1;
        if before.as_ref().is_none_or(|before| before.life.session != entry.life.session) {
            peer.beat = 0;
        }
        if verdict == Verdict::EmptyDisk {
            effects.push(Effect::Notice(Notice::EmptyDisk { node, disk: entry.life.disk }));
        }
        if let Some(before) = &before
            && before.life.address != entry.life.address
        {
            let address = entry.life.address.clone();
            effects.push(Effect::Notice(Notice::AddressChanged { node, address }));
        }
        let life_is_another = before.is_none_or(|before| before.life != entry.life);
        if life_is_another {
            self.membership.unkept = true;
            self.membership.index_dead_actors();
        }
        // A member that has come back with another disk needs no forgetting any more.
        let forgotten = self.membership.forgotten.get(&node);
        if forgotten.is_some_and(|disk| entry.life.former_disks.contains(disk)) {
            self.membership.forgotten.remove(&node);
        }
        true
    }

    fn learn_forgotten(&mut self, node: NodeId, disk: DiskId, effects: &mut Effects) {
        if node == self.config.node {
            return self.learn_that_it_is_forgotten(disk, effects);
        }
        let m = &mut self.membership;
        let replaced = m.entry(node).is_some_and(|entry| entry.life.former_disks.contains(&disk));
        if replaced || !m.peers.contains_key(&node) || m.forgotten.contains_key(&node) {
            return;
        }
        m.forgotten.insert(node, disk);
        m.unkept = true;
        effects.push(Effect::Notice(Notice::Forgotten { node, disk }));
    }

    /// A member has spoken as somebody that is not whom this node knows: it judges itself by that.
    fn tell_what_is_known(&mut self, node: NodeId, effects: &mut Effects) {
        if let Some(entry) = self.membership.entry(node).cloned() {
            let gossip = Gossip::News { news: vec![entry], forgotten: None };
            effects.push(Effect::Send { to: node, message: Message::Gossip(gossip) });
        }
    }

    /// A member that has booted need not wait for its next question.
    pub(super) fn tell_that_it_is_kept(&mut self, node: NodeId, effects: &mut Effects) {
        let gossip = Gossip::Answer {
            running_ms: self.running_ms,
            catalog: self.keyspaces.digest(),
            // As far as its own answer to the first question said.
            knows_you: false,
            keeps_you: self.membership.keeps(node, self.membership.entry(node).map_or(0, |e| e.life.session)),
            beats: vec![self.membership.own_beat()],
            news: Vec::new(),
            want: Vec::new(),
            forgotten: None,
        };
        effects.push(Effect::Send { to: node, message: Message::Gossip(gossip) });
    }

    /// A member whose catalog differs is sent this one; what it has more comes back.
    fn compare_catalogs(&mut self, now: Millis, from: NodeId, theirs: CatalogDigest, effects: &mut Effects) {
        let mine = self.keyspaces.digest();
        if theirs == mine {
            return;
        }
        let lived_ms = self.membership.time.lived_ms();
        let Some(peer) = self.membership.peers.get_mut(&from) else { return };
        // Both digests as one: a change of either is pushed at once.
        let both = CatalogDigest(std::array::from_fn(|index| theirs.0[index] ^ mine.0[index]));
        let again = peer.pushed.is_none_or(|(at, digests)| digests != both || lived_ms - at >= PUSH_AGAIN_MS);
        if again {
            peer.pushed = Some((lived_ms, both));
            self.push_catalog(now, from, effects);
        }
    }
}
