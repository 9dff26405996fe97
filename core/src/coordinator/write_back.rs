//! Storing resolutions: one owner, one ordinary put (R3), and the breaker (R11).
//!
//! Only the first live primary of a key may store what a resolver made of its siblings, some time
//! after the last client write, so that clients with older contexts can still supersede their
//! own sibling. Were every replica to do it, each would mint a dot and none would ever settle.
//!
//! In: keys with siblings. Out: reads at a majority, then puts. Absent: lattices, whose joins mint
//! no dot and need none of this.

use super::Reading;
use super::get::Goal;
use super::put::Change;
use crate::catalog::{KeyspaceEntry, Policy};
use crate::event::{Effect, Effects, Notice};
use crate::id::{KeyspaceId, Millis};
use crate::node::{Node, Origin, Timer};
use crate::plugin::PluginAnswer;
use crate::replica::Slot;
use crate::ring::token;
use crate::storage_key;
use crate::version::{Context, KeyState, Receipt};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Automatic resolutions of a key without a client write (R11).
const GENERATIONS_MAX: u32 = 8;
/// Keys remembered; beyond, a key waits until it is next read or written.
const DUE_MAX: usize = 10_000;
/// Owner reads begun in one turn.
const BATCH: usize = 32;

/// Keys that may be due.
#[derive(Default)]
pub(crate) struct WriteBacks {
    due: BTreeMap<Bytes, Millis>,
    order: BTreeSet<(Millis, Bytes)>,
    tripped: BTreeSet<Bytes>,
}

impl Node {
    /// A slot's state may hold siblings that this node is to settle.
    pub(crate) fn schedule_write_back(&mut self, now: Millis, storage_key: &Bytes, slot: &Slot) {
        if let (Some(state @ KeyState::Causal(siblings)), Policy::Resolver(_)) =
            (&slot.state, &slot.entry.settings.policy)
            && siblings.len() > 1
        {
            self.schedule(now, storage_key, &slot.entry, &slot.key, state);
        }
    }

    /// A read has shown a conflict.
    pub(super) fn conflict_seen(
        &mut self,
        now: Millis,
        entry: &Arc<KeyspaceEntry>,
        key: &Bytes,
        state: &KeyState,
    ) {
        if matches!(entry.settings.policy, Policy::Resolver(_)) {
            let storage_key = storage_key::object(entry.id, key);
            self.schedule(now, &storage_key, entry, key, state);
        }
    }

    fn schedule(
        &mut self,
        now: Millis,
        storage_key: &Bytes,
        entry: &KeyspaceEntry,
        key: &Bytes,
        state: &KeyState,
    ) {
        let Some(delay_ms) = entry.settings.write_back_delay_ms else { return };
        if !self.is_owner(entry.id, entry.settings.n, key) || self.write_backs.due.len() >= DUE_MAX {
            return;
        }
        // After the last client write, by its stamp, as far as it is not ahead of our clock.
        let last_write = Millis(state.stamp().millis.min(now.0));
        let at = last_write.after(u64::from(delay_ms)).max(now);
        if let Some(before) = self.write_backs.due.insert(storage_key.clone(), at) {
            self.write_backs.order.remove(&(before, storage_key.clone()));
        }
        self.write_backs.order.insert((at, storage_key.clone()));
        self.set_timer(at, Timer::WriteBack);
    }

    /// The first primary that can be reached, never a stand-in.
    fn is_owner(&self, keyspace: KeyspaceId, n: u32, key: &Bytes) -> bool {
        let primaries = self.ring.primaries(token(keyspace, key), n as usize);
        primaries.into_iter().find(|node| self.is_reachable(*node)) == Some(self.config.node)
    }

    /// Begins the reads of keys that are due.
    pub(crate) fn write_backs_due(&mut self, now: Millis, effects: &mut Effects) {
        for _ in 0..BATCH {
            let Some((at, storage_key)) = self.write_backs.order.first().cloned() else { return };
            if at > now {
                return self.set_timer(at, Timer::WriteBack);
            }
            self.write_backs.order.remove(&(at, storage_key.clone()));
            self.write_backs.due.remove(&storage_key);
            let Some((keyspace, key)) = storage_key::parse_object(&storage_key) else { continue };
            let Some(entry) = self.keyspaces.by_id(keyspace) else { continue };
            let resolver = matches!(entry.settings.policy, Policy::Resolver(_));
            if resolver && self.is_owner(keyspace, entry.settings.n, &key) {
                let majority = entry.settings.n / 2 + 1;
                let deadline = now.after(self.config.timeout_ms);
                self.begin_read(now, Origin::Owner, entry, key, Goal::WriteBack, majority, deadline, effects);
            }
        }
        self.set_timer(now.after(1), Timer::WriteBack);
    }

    /// The plugin has settled what an owner's read at a majority found.
    pub(super) fn store_resolution(
        &mut self,
        now: Millis,
        reading: Reading,
        answer: PluginAnswer,
        effects: &mut Effects,
    ) {
        let KeyState::Causal(siblings) = &reading.merged else { return };
        let (entry, key) = (reading.entry.clone(), reading.key.clone());
        let Some(plugin) = entry.settings.policy.plugin() else { return };
        let storage_key = storage_key::object(entry.id, &key);
        // Reset by any client write among the siblings.
        let receipts: Option<Vec<u32>> = siblings
            .iter()
            .map(|(_, version)| version.receipt.as_ref().map(|receipt| receipt.generation))
            .collect();
        let generation = receipts.and_then(|generations| generations.into_iter().max()).unwrap_or(0) + 1;
        if generation > GENERATIONS_MAX {
            if self.write_backs.tripped.insert(storage_key) {
                self.counters.breakers += 1;
                effects.push(Effect::Notice(Notice::BreakerTripped { keyspace: entry.name.clone(), key }));
            }
            return;
        }
        self.write_backs.tripped.remove(&storage_key);
        let merged_from = siblings.iter().map(|(dot, _)| *dot).collect();
        let receipt = Some(Receipt { merged_from, plugin: plugin.hash, epoch: entry.epoch, generation });
        let change = match answer {
            PluginAnswer::Value(value) => {
                let content_type = siblings.iter().find_map(|(_, version)| version.content_type.clone());
                Change::Put { value, content_type, receipt }
            }
            PluginAnswer::Delete => Change::Delete { receipt },
            // A normal answer, or none: the siblings stay (R7).
            _ => return,
        };
        let context = Context { seen: siblings.seen().clone(), stamp: None };
        self.begin_owner_write(now, entry, key, context, change, effects);
    }

    /// A resolution is stored at a majority.
    pub(super) fn wrote_back(&mut self, entry: &KeyspaceEntry, key: &Bytes, effects: &mut Effects) {
        self.counters.write_backs += 1;
        effects.push(Effect::Notice(Notice::WroteBack { keyspace: entry.name.clone(), key: key.clone() }));
    }
}
