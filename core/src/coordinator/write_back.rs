//! Storing resolutions: one owner, one ordinary put (R3), and the breaker (R11).
//!
//! Only the first live primary of a key may store what a resolver made of its siblings, some time
//! after the last client write, so that clients with older contexts can still supersede their
//! own sibling. Were every replica to do it, each would mint a dot and none would ever settle.
//!
//! In: keys with siblings. Out: reads at a majority, then puts. Absent: lattices, whose joins mint
//! no dot and need none of this.

use super::get::Goal;
use super::put::Change;
use super::{Admitted, Reading, view};
use crate::catalog::Policy;
use crate::event::{Effect, Effects, Notice};
use crate::id::{Millis, NodeId};
use crate::node::{Node, Origin, Timer};
use crate::plugin::PluginAnswer;
use crate::replica::ActiveKey;
use crate::storage_key;
use crate::target::Target;
use crate::version::{Context, KeyState, Receipt, expiry};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Automatic resolutions of a key without a client write (R11).
const GENERATIONS_MAX: u32 = 8;
/// Keys remembered; beyond, a key waits until it is next read or written.
const DUE_MAX: usize = 10_000;
/// Keys whose resolution stopped that are remembered, so that each is reported once; beyond, some are
/// reported again.
const TRIPPED_MAX: usize = 10_000;
/// A key that was looked at rests for its delay, and at least so long: where a resolution cannot be
/// stored (a full disk, a majority out of reach), it is not tried again at once, and for ever.
const REST_MS_MIN: u64 = 100;
/// While clients have much under way, resolutions wait so long.
const YIELD_MS: u64 = 50;
/// Owner reads begun in one turn.
const BATCH: usize = 32;

/// Keys that may be due.
#[derive(Default)]
pub(crate) struct WriteBacks {
    due: BTreeMap<Bytes, Millis>,
    order: BTreeSet<(Millis, Bytes)>,
    tripped: BTreeSet<Bytes>,
    /// When a key that was looked at may be looked at again.
    rests: BTreeMap<Bytes, Millis>,
    /// When they are next looked through.
    next: Option<Millis>,
}

impl Node {
    /// An active key's state may hold siblings that this node is to settle.
    pub(crate) fn schedule_write_back(&mut self, now: Millis, active: &ActiveKey) {
        if let Some(state @ KeyState::Causal(siblings)) = &active.state
            && siblings.len() > 1
        {
            self.conflict_seen(now, &active.target, state);
        }
    }

    /// A key holds siblings.
    pub(super) fn conflict_seen(&mut self, now: Millis, target: &Target, state: &KeyState) {
        let settings = &target.entry.settings;
        let (Policy::Resolver(_), Some(delay_ms)) = (&settings.policy, settings.write_back_delay_ms) else {
            return;
        };
        let primaries = self.ring.primaries(target.token, target.n());
        if !self.is_owner(&primaries) || self.write_backs.due.len() >= DUE_MAX {
            return;
        }
        // After the last client write, by its stamp, as far as it is not ahead of our clock.
        let last_write = Millis(state.stamp().millis.min(now.0));
        let rested = self.write_backs.rests.get(&target.storage_key).copied().unwrap_or_default();
        let at = last_write.after(u64::from(delay_ms)).max(now).max(rested);
        let storage_key = target.storage_key.clone();
        if let Some(before) = self.write_backs.due.insert(storage_key.clone(), at) {
            self.write_backs.order.remove(&(before, storage_key.clone()));
        }
        self.write_backs.order.insert((at, storage_key));
        self.look_again(at);
    }

    /// One timer for all keys: it is at the earliest of their times.
    fn look_again(&mut self, at: Millis) {
        match self.write_backs.next {
            Some(next) if next <= at => return,
            Some(next) => self.clear_timer(next, Timer::WriteBack),
            None => {}
        }
        self.write_backs.next = Some(at);
        self.set_timer(at, Timer::WriteBack);
    }

    /// The first primary that can be reached, never a stand-in.
    fn is_owner(&self, primaries: &[NodeId]) -> bool {
        primaries.iter().find(|node| self.is_reachable(**node)) == Some(&self.config.node)
    }

    /// Begins the reads of keys that are due.
    pub(crate) fn write_backs_due(&mut self, now: Millis, effects: &mut Effects) {
        self.write_backs.next = None;
        self.write_backs.rests.retain(|_, until| *until > now);
        // Those that rest are remembered too, so they bound how many may be begun.
        if self.is_busy() || self.write_backs.rests.len() >= DUE_MAX {
            return self.look_again(now.after(YIELD_MS));
        }
        for _ in 0..BATCH {
            let Some((at, storage_key)) = self.write_backs.order.first().cloned() else { return };
            if at > now {
                return self.look_again(at);
            }
            self.write_backs.order.remove(&(at, storage_key.clone()));
            self.write_backs.due.remove(&storage_key);
            let Some((keyspace, key)) = storage_key::parse_object(&storage_key) else { continue };
            let Some(entry) = self.keyspaces.by_id(keyspace) else { continue };
            let target = Target::new(entry, &key);
            let primaries = self.ring.primaries(target.token, target.n());
            if matches!(target.entry.settings.policy, Policy::Resolver(_)) && self.is_owner(&primaries) {
                let rest_ms =
                    u64::from(target.entry.settings.write_back_delay_ms.unwrap_or(0)).max(REST_MS_MIN);
                self.write_backs.rests.insert(storage_key, now.after(rest_ms));
                let needed = target.entry.settings.n / 2 + 1;
                let deadline = now.after(self.config.timeout_ms);
                let (origin, sloppy) = (Origin::Owner, false);
                let admitted =
                    Admitted { origin, target, needed, sloppy, deadline, primaries, retry_of_ms_ago: None };
                self.begin_read(now, admitted, Goal::WriteBack, effects);
            }
        }
        self.look_again(now.after(1));
    }

    /// The plugin has settled what an owner's read at a majority found.
    pub(super) fn store_resolution(
        &mut self,
        now: Millis,
        reading: Reading,
        answer: PluginAnswer,
        effects: &mut Effects,
    ) {
        let live = reading.live();
        let (KeyState::Causal(siblings), all) = (live.as_ref(), reading.merged.seen()) else { return };
        let target = reading.target.clone();
        let entry = target.entry.clone();
        let Some(plugin) = entry.settings.policy.plugin() else { return };
        let storage_key = target.storage_key.clone();
        // Reset by any client write among the siblings.
        let receipts: Option<Vec<u32>> = siblings
            .iter()
            .map(|(_, version)| version.receipt.as_ref().map(|receipt| receipt.generation))
            .collect();
        let generation = receipts.and_then(|generations| generations.into_iter().max()).unwrap_or(0) + 1;
        if generation > GENERATIONS_MAX {
            if self.write_backs.tripped.len() >= TRIPPED_MAX {
                self.write_backs.tripped.pop_first();
            }
            if self.write_backs.tripped.insert(storage_key) {
                self.counters.breakers += 1;
                effects.push(Effect::Notice(Notice::BreakerTripped {
                    keyspace: entry.name.clone(),
                    key: target.key,
                }));
            }
            return;
        }
        self.write_backs.tripped.remove(&storage_key);
        let merged_from = siblings.iter().map(|(dot, _)| *dot).collect();
        let receipt = Some(Receipt { merged_from, plugin: plugin.hash, epoch: entry.epoch, generation });
        let change = match view::settled(answer, &view::shown(siblings)) {
            Ok((value, content_type)) => {
                let expires_at = expiry::of_resolution(siblings.iter().map(|(_, version)| version));
                Change::Put { value, content_type, receipt, expires_at }
            }
            Err(PluginAnswer::Delete) => Change::Delete { receipt },
            // A normal answer, or none: the siblings stay (R7).
            Err(_) => return,
        };
        let context = Context { seen: all, stamp: None };
        self.begin_owner_write(now, target, context, change, effects);
    }

    /// A resolution is stored at a majority.
    pub(super) fn wrote_back(&mut self, target: &Target, effects: &mut Effects) {
        self.counters.write_backs += 1;
        let (keyspace, key) = (target.entry.name.clone(), target.key.clone());
        effects.push(Effect::Notice(Notice::WroteBack { keyspace, key }));
    }
}
