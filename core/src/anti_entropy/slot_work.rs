//! The asking side of a stretch of slots: their keys page by page, and what the pages that differ lead to.
//!
//! ```text
//!   own heads of a range ─▶ Keys ─▶ Differing ─▶ who lacks what? ─▶ runs ─┬▶ read own states ─▶ Take ─▶ Taken
//!        ▲                                                               └▶ AskStates ─▶ States ─▶ taken in
//!        └────────────────────────── the next range ◀──────────────────────┘
//! ```
//!
//! A run is a stretch of keys that lie close together, so that it is read by one scan and no value in between is read in
//! vain. All own heads of a slot are read on the way, so a leaf that differs where no key does is found out here.
//!
//! In: pages, answers. Out: questions, states. Absent: which slots, see `round`; the other side, see `answer`.

use super::compare::lack;
use super::exchange::{BYTES_MAX, Exchange, KEYS_MAX};
use super::leaf::{Share, Sum};
use super::round::About;
use super::shared::Stretch;
use super::take::Whom;
use crate::event::{Effects, Record, ScanPage, StorageFailure};
use crate::id::{Millis, OpId};
use crate::node::{Node, PageSize, ScanFor};
use crate::ring::Slot;
use crate::storage_key;
use crate::target::Target;
use crate::version::{Digest, codec};
use bytes::Bytes;
use std::collections::VecDeque;

/// Keys of a run: each is read, sent and taken in at once, and a client's request waits for it at both ends.
const RUN_KEYS_MAX: usize = 16;
/// Own keys between two of one run that are read in vain.
const RUN_GAP_MAX: usize = 8;

/// Slots whose leaves differ.
pub(crate) struct SlotWork {
    slots: Stretch,
    /// The range that is being compared, and the end of the slots.
    from: Bytes,
    to: Bytes,
    end: Bytes,
    own: Vec<Own>,
    runs: VecDeque<Run>,
    /// What the keys of a single slot add up to so far, and when that began; None: it does not count.
    sum: Option<(Slot, u64, Sum)>,
}

struct Own {
    storage_key: Bytes,
    key: Bytes,
    digest: Digest,
    head: Bytes,
}

/// Keys (with their storage keys, in that order) that one side lacks.
struct Run {
    is_own: bool,
    keys: VecDeque<(Bytes, Bytes)>,
}

/// A page of which scan has come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WorkScan {
    /// Own heads.
    Heads,
    /// Own states.
    States,
}

impl Node {
    pub(super) fn begin_work(&mut self, slots: Stretch, effects: &mut Effects) {
        let id = self.op();
        let Some(pass) = self.anti_entropy.round.as_mut().and_then(|round| round.pass.as_mut()) else {
            return;
        };
        let (from, end) = slots.objects(pass.keyspace);
        let sum = self.anti_entropy.trees.get(&pass.keyspace).and_then(|tree| {
            let slot = slots.only()?;
            Some((slot, tree.begin_rescan(slot)?, Sum::default()))
        });
        let to = end.clone();
        let work = SlotWork { slots, from, to, end, own: Vec::new(), runs: VecDeque::new(), sum };
        pass.works.insert(id, work);
        self.read_heads(id, effects);
    }

    fn read_heads(&mut self, id: OpId, effects: &mut Effects) {
        let Some((work, _)) = self.anti_entropy.round.as_mut().and_then(|round| round.work(id)) else {
            return;
        };
        let (from, to) = (work.from.clone(), work.end.clone());
        let page = PageSize::heads(KEYS_MAX, BYTES_MAX);
        self.scan(ScanFor::Work { id, scan: WorkScan::Heads }, (from, to), page, effects);
    }

    /// A page for a slot's work has come.
    pub(crate) fn work_scanned(
        &mut self,
        now: Millis,
        id: OpId,
        scan: WorkScan,
        result: Result<ScanPage, StorageFailure>,
        effects: &mut Effects,
    ) {
        match (result, scan) {
            (Ok(page), WorkScan::Heads) => self.heads_scanned(now, id, page, effects),
            (Ok(page), WorkScan::States) => self.states_scanned(now, id, page, effects),
            (Err(_), _) => self.end_work(id),
        }
        self.advance_round(now, effects);
    }

    fn heads_scanned(&mut self, now: Millis, id: OpId, page: ScanPage, effects: &mut Effects) {
        let Some((work, keyspace)) = self.anti_entropy.round.as_mut().and_then(|round| round.work(id)) else {
            return;
        };
        work.to = page.next.unwrap_or_else(|| work.end.clone());
        if !page.damaged.is_empty() {
            work.sum = None;
        }
        work.own.clear();
        for (storage_key, record) in page.entries {
            let Some((_, key)) = storage_key::parse_object(&storage_key) else { continue };
            match codec::outline(&record.head) {
                Ok(state) if !state.is_empty() => {
                    work.own.push(Own { storage_key, key, digest: state.digest(), head: record.head });
                }
                Ok(_) => {}
                // As if it were not there: the peer sends what it has. Its own notice tells of it.
                Err(_) => work.sum = None,
            }
        }
        let (slots, from, to) = (work.slots, work.from.clone(), work.to.clone());
        let keys = work.own.iter().map(|own| (own.key.clone(), own.digest)).collect();
        let question = |op| Exchange::Keys { op, keyspace, slots, from, to, keys };
        self.ask_peer(now, About::Work(id), question, effects);
    }

    /// The peer has answered a question about a slot.
    pub(super) fn slot_answered(&mut self, now: Millis, id: OpId, answer: Exchange, effects: &mut Effects) {
        match answer {
            Exchange::Differing { upto, heads, .. } => {
                self.keys_answered(id, upto, heads, effects);
                self.next_run(now, id, effects);
            }
            Exchange::States { looked_at, states, .. } => {
                self.states_answered(now, id, looked_at, states, effects);
            }
            Exchange::Taken { stored, .. } => {
                self.count_repaired(u64::from(stored));
                self.next_run(now, id, effects);
            }
            _ => self.end_work(id),
        }
    }

    /// Judges every key of a range that differs: the one place on this side.
    fn keys_answered(
        &mut self,
        id: OpId,
        upto: Option<Bytes>,
        heads: Vec<(Bytes, Bytes)>,
        effects: &mut Effects,
    ) {
        let Some((work, keyspace)) = self.anti_entropy.round.as_mut().and_then(|round| round.work(id)) else {
            return;
        };
        let upto = upto.filter(|upto| *upto > work.from && *upto <= work.to).unwrap_or(work.to.clone());
        let from = std::mem::replace(&mut work.from, upto.clone());
        let own = std::mem::take(&mut work.own);
        let Some(entry) = self.keyspaces.by_id(keyspace) else { return };
        let kind = entry.settings.policy.kind();
        let (mut here, mut there) = (Vec::new(), Vec::new());
        let mut differing = 0;
        let mut too_large = Vec::new();
        for (key, theirs) in heads {
            if key.is_empty() {
                continue;
            }
            let storage_key = storage_key::object(keyspace, &key);
            if storage_key < from || storage_key >= upto {
                continue;
            }
            let place = own.partition_point(|own| own.storage_key < storage_key);
            let mine = own.get(place).filter(|own| own.storage_key == storage_key);
            let mine = mine.map(|own| own.head.clone()).unwrap_or_default();
            let Ok(lack) = lack(kind, &mine, &theirs) else { continue };
            differing += u64::from(lack.here || lack.there || lack.too_large.is_some());
            if let Some(size_bytes) = lack.too_large {
                too_large.push((Target::new(entry.clone(), &key), size_bytes as usize));
            }
            if lack.here {
                here.push((place, storage_key.clone(), key.clone()));
            }
            if lack.there {
                there.push((place, storage_key, key));
            }
        }
        self.counters.exchange_differences += differing;
        for (target, size_bytes) in too_large {
            self.key_too_large(&target, size_bytes, effects);
        }
        let Some((work, _)) = self.anti_entropy.round.as_mut().and_then(|round| round.work(id)) else {
            return;
        };
        if differing > 0 {
            work.sum = None;
        }
        if let Some((_, _, sum)) = &mut work.sum {
            let compared = own.iter().take_while(|own| own.storage_key < upto);
            compared.for_each(|own| sum.add(Share::new(&own.key, own.digest)));
        }
        work.runs.extend(runs(here, false));
        work.runs.extend(runs(there, true));
    }

    /// Goes on with the slots: the next run, the next range, or the end.
    pub(super) fn next_run(&mut self, now: Millis, id: OpId, effects: &mut Effects) {
        let Some((work, keyspace)) = self.anti_entropy.round.as_mut().and_then(|round| round.work(id)) else {
            return;
        };
        while work.runs.front().is_some_and(|run| run.keys.is_empty()) {
            work.runs.pop_front();
        }
        match work.runs.front() {
            Some(run) if run.is_own => {
                let from = run.keys.front().map(|(storage_key, _)| storage_key.clone()).unwrap_or_default();
                let to = run
                    .keys
                    .back()
                    .map(|(storage_key, _)| storage_key::after(storage_key))
                    .unwrap_or_default();
                let page = PageSize::records(KEYS_MAX, BYTES_MAX);
                self.scan(ScanFor::Work { id, scan: WorkScan::States }, (from, to), page, effects);
            }
            Some(run) => {
                let keys = run.keys.iter().map(|(_, key)| key.clone()).collect();
                let question = |op| Exchange::AskStates { op, keyspace, keys };
                self.ask_peer(now, About::Work(id), question, effects);
            }
            None if work.from < work.end => self.read_heads(id, effects),
            None => {
                let sum = work.sum.take();
                self.end_work(id);
                if let Some((slot, begun, sum)) = sum {
                    self.settle_leaf(keyspace, slot, begun, sum, effects);
                }
            }
        }
    }

    /// Own states of a run have been read: they go to the peer.
    fn states_scanned(&mut self, now: Millis, id: OpId, page: ScanPage, effects: &mut Effects) {
        let Some((work, keyspace)) = self.anti_entropy.round.as_mut().and_then(|round| round.work(id)) else {
            return;
        };
        let Some(run) = work.runs.front_mut() else { return };
        let mut states = Vec::new();
        let mut entries = page.entries.into_iter().peekable();
        while let Some((storage_key, key)) = run.keys.pop_front() {
            if page.next.as_ref().is_some_and(|next| storage_key >= *next) {
                run.keys.push_front((storage_key, key));
                break;
            }
            while entries.next_if(|(other, _)| *other < storage_key).is_some() {}
            if let Some((_, record)) = entries.next_if(|(other, _)| *other == storage_key) {
                states.push((key, record));
            }
        }
        if states.is_empty() {
            return self.next_run(now, id, effects);
        }
        let Some(peer) = self.anti_entropy.round.as_ref().map(|round| round.peer) else { return };
        self.count_sent(peer, keyspace, &states);
        let question = |op| Exchange::Take { op, keyspace, states };
        self.ask_peer_paced(now, About::Work(id), question, effects);
    }

    /// The peer's states of a run have come.
    fn states_answered(
        &mut self,
        now: Millis,
        id: OpId,
        looked_at: u32,
        states: Vec<(Bytes, Record)>,
        effects: &mut Effects,
    ) {
        let Some((work, keyspace)) = self.anti_entropy.round.as_mut().and_then(|round| round.work(id)) else {
            return;
        };
        let Some(run) = work.runs.front_mut() else { return };
        let looked_at = (looked_at as usize).min(run.keys.len());
        if looked_at == 0 {
            run.keys.clear();
            return self.next_run(now, id, effects);
        }
        let asked: Vec<(Bytes, Bytes)> = run.keys.drain(..looked_at).collect();
        let states =
            states.into_iter().filter(|(key, _)| asked.iter().any(|(_, asked)| asked == key)).collect();
        self.take_states(now, Whom::Work(id), keyspace, states, effects);
    }

    fn count_repaired(&mut self, keys: u64) {
        if let Some(pass) = self.anti_entropy.round.as_mut().and_then(|round| round.pass.as_mut()) {
            pass.repaired += keys;
        }
    }

    /// States that this node lacked are durable, as far as they could be stored.
    pub(super) fn work_taken(&mut self, now: Millis, id: OpId, stored: u32, effects: &mut Effects) {
        self.count_repaired(u64::from(stored));
        self.next_run(now, id, effects);
        self.advance_round(now, effects);
    }

    pub(super) fn end_work(&mut self, id: OpId) {
        if let Some(pass) = self.anti_entropy.round.as_mut().and_then(|round| round.pass.as_mut()) {
            pass.works.remove(&id);
        }
    }
}

/// Keys at their places among own keys, in stretches that are read at once.
fn runs(mut keys: Vec<(usize, Bytes, Bytes)>, is_own: bool) -> Vec<Run> {
    keys.sort_by(|a, b| a.1.cmp(&b.1));
    let mut runs: Vec<Run> = Vec::new();
    let mut last = 0;
    for (place, storage_key, key) in keys {
        match runs.last_mut() {
            Some(run) if run.keys.len() < RUN_KEYS_MAX && place - last <= RUN_GAP_MAX => {
                run.keys.push_back((storage_key, key));
            }
            _ => runs.push(Run { is_own, keys: VecDeque::from([(storage_key, key)]) }),
        }
        last = place;
    }
    runs
}
