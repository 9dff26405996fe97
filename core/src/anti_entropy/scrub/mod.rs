//! The scrub: values are read, slowly, and held against their digests and against the other replicas' (R10).
//!
//! ```text
//!   due ─▶ a page of own records ─▶ bytes ≠ digest in the head: rot ──────────────────┐
//!              │      └▶ keys, causality and content of each ─▶ another primary       │ page
//!              │                equal causality, other content: a divergence          │ compare
//!              │                     the larger digest wins ─▶ the loser fetches ◀────┘ replace
//!              └▶ ranges that storage cannot read ─▶ written anew from all primaries ─▶ excised     refill, own
//! ```
//!
//! Anti-entropy compares causality, which says nothing of values: a plugin that answers twice in different ways, or a disk
//! that changes bytes, leaves replicas equal in its eyes. The scrub goes through all keys of a node, a page at
//! a time and at a bounded rate, then rests until the period is over. Where a pass stands is not kept over a restart.
//!
//! In: its own timer, pages, peers' answers, ranges that the shell's verifier found damaged. Out: questions, repairs,
//! notices, evidence. Absent: differences of causality, which are `round`'s.

mod compare;
mod evidence;
mod message;
mod own;
mod page;
mod refill;
mod replace;
mod report;
#[cfg(test)]
mod scrub_test;

pub use evidence::{Evidence, Loss};
pub use message::{Check, Found, KeyContent};

pub(crate) use compare::Comparing;
pub(crate) use page::ScrubPage;
pub(crate) use refill::RefillStep;
pub(crate) use replace::{Serving, Wanted};

use crate::event::Effects;
use crate::id::{KeyspaceId, Millis, OpId};
use crate::node::{Node, Timer};
use crate::ring::Slot;
use crate::storage_key;
use bytes::Bytes;
use refill::{Ranges, Refill};
use std::collections::{BTreeMap, VecDeque};

/// The first pass begins so long after the start at latest.
const FIRST_PASS_MS: u64 = 60_000;
/// How long after something that did not work it is tried again, at latest.
const RETRY_MS: u64 = 30_000;
/// Pages of peers that are read at a time; beyond, they are told that it cannot be done now.
const SERVED_MAX: usize = 8;

/// What the scrub is about, and what it has seen.
#[derive(Default)]
pub(crate) struct Scrub {
    pass: Option<Pass>,
    pass_started: Option<Millis>,
    timer: Option<Millis>,
    /// Single records that were asked for.
    wanted: BTreeMap<OpId, Wanted>,
    /// What cannot be read, as far as it is known.
    damaged: Ranges,
    refill: Option<Refill>,
    /// Pages of ours that are being read for peers.
    serving: usize,
    /// Records of evidence on disk.
    evidence: usize,
    seen: Seen,
    /// Of whose records was told.
    reported: report::Reported,
    /// The last damage that was known when this node took its actor on account of damage.
    renewed_at: Option<u64>,
}

/// A walk over all keys of this node.
struct Pass {
    /// Not yet begun.
    keyspaces: VecDeque<KeyspaceId>,
    keyspace: KeyspaceId,
    cursor: Bytes,
    to: Bytes,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    passes: u64,
    records: u64,
    bytes: u64,
    rot_found: u64,
    divergences: u64,
    repaired: u64,
    lost: u64,
    evidence_dropped: u64,
}

/// The scrub as an operator sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubView {
    /// Where the pass under way has come to; None between passes.
    pub slot: Option<(KeyspaceId, Slot)>,
    /// When it began, or the one before.
    pub pass_started_ms: Option<u64>,
    /// Whole passes since the start.
    pub passes: u64,
    /// Records read and checked.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records whose bytes were not those that were written, and ranges that the disk could not give.
    pub rot_found: u64,
    /// Keys with equal causality and unequal content on two replicas.
    pub divergences: u64,
    /// Records and ranges that were repaired.
    pub repaired: u64,
    /// Of the ranges, those that another replica could not read as a whole either: keys may be lost.
    pub lost: u64,
    /// Ranges that wait for their repair, or for a replica that can help.
    pub damaged: usize,
    /// Diverging versions that are kept.
    pub evidence: usize,
    /// Those that were not, because there were too many.
    pub evidence_dropped: u64,
}

impl Node {
    /// The scrub as an operator sees it.
    pub fn scrub(&self) -> ScrubView {
        let scrub = &self.anti_entropy.scrub;
        let Seen { passes, records, bytes, rot_found, divergences, repaired, lost, evidence_dropped } =
            scrub.seen;
        let place = |pass: &Pass| (pass.keyspace, storage_key::slot_at(&pass.cursor));
        ScrubView {
            slot: scrub.pass.as_ref().map(place),
            pass_started_ms: scrub.pass_started.map(|at| at.0),
            passes,
            records,
            bytes,
            rot_found,
            divergences,
            repaired,
            lost,
            damaged: scrub.damaged.len() + usize::from(scrub.refill.is_some()),
            evidence: scrub.evidence,
            evidence_dropped,
        }
    }

    /// Begins the scrub's own time: call once.
    pub(crate) fn start_scrub(&mut self, now: Millis, effects: &mut Effects) {
        let first = self.config.scrub_period_ms.min(FIRST_PASS_MS);
        let delay = self.random() % first.max(1);
        self.scrub_in(now, delay);
        self.count_evidence(effects);
    }

    /// The scrub's next turn comes after `delay_ms`.
    fn scrub_in(&mut self, now: Millis, delay_ms: u64) {
        let at = now.after(delay_ms.max(1));
        if let Some(before) = self.anti_entropy.scrub.timer.replace(at) {
            self.clear_timer(before, Timer::Scrub);
        }
        self.set_timer(at, Timer::Scrub);
    }

    /// How long reading or fetching so many bytes is to last.
    fn scrub_pace_ms(&self, bytes: usize) -> u64 {
        let rate = self.config.scrub_bytes_per_s.max(1);
        (bytes as u64).saturating_mul(1_000) / rate
    }

    /// The scrub's turn: a repair that waits goes first.
    pub(crate) fn scrub_due(&mut self, now: Millis, effects: &mut Effects) {
        self.anti_entropy.scrub.timer = None;
        self.forget_wanted(now);
        if !self.membership.is_serving() {
            let delay = self.scrub_look_ms();
            return self.scrub_in(now, delay);
        }
        if self.refill_due(now, effects) {
            return;
        }
        if self.anti_entropy.scrub.pass.is_none() && !self.begin_scrub_pass(now) {
            return;
        }
        self.read_scrub_page(effects);
        // Should the page never come.
        self.scrub_in(now, RETRY_MS);
    }

    /// Whether a pass has begun; else the time for it has not come, or there is nothing to go through.
    fn begin_scrub_pass(&mut self, now: Millis) -> bool {
        let period = self.config.scrub_period_ms.max(1);
        let begins = self.anti_entropy.scrub.pass_started.map_or(now, |at| at.after(period));
        if now < begins {
            self.scrub_in(now, (begins.0 - now.0).min(self.scrub_look_ms()));
            return false;
        }
        let ids = self.keyspaces.catalog().keyspaces.values().map(|keyspace| keyspace.id);
        let mut keyspaces: VecDeque<KeyspaceId> = ids.collect();
        let scrub = &mut self.anti_entropy.scrub;
        scrub.pass_started = Some(now);
        let Some(keyspace) = keyspaces.pop_front() else {
            self.scrub_in(now, period);
            return false;
        };
        let (cursor, to) = storage_key::objects(keyspace);
        scrub.pass = Some(Pass { keyspaces, keyspace, cursor, to });
        true
    }

    /// How often it looks whether something has to be done between passes.
    fn scrub_look_ms(&self) -> u64 {
        self.config.scrub_period_ms.clamp(1, RETRY_MS)
    }

    /// The pass goes on at `next`, or with the next keyspace, or is over.
    fn advance_scrub_pass(&mut self, next: Option<Bytes>) {
        let scrub = &mut self.anti_entropy.scrub;
        let Some(pass) = scrub.pass.as_mut() else { return };
        if let Some(next) = next {
            pass.cursor = next;
            return;
        }
        match pass.keyspaces.pop_front() {
            Some(keyspace) => {
                pass.keyspace = keyspace;
                (pass.cursor, pass.to) = storage_key::objects(keyspace);
            }
            None => {
                scrub.pass = None;
                scrub.seen.passes += 1;
            }
        }
    }
}
