//! Hot keys: which they are, and a limit for each where a keyspace sets one.
//!
//! In: what clients ask this node to coordinate. Out: the keys that are asked for most, reads and
//! writes apart; whether a key is so hot that its reads are worth sharing; refusals beyond
//! `key_rate_max`. Absent: what sharing is (`coordinator::flights`). All of it is of bounded size, and
//! of this node alone: a key has N coordinators.

mod limit;
mod sketch;

use crate::id::Millis;
use crate::node::Node;
use crate::request::Problem;
use crate::target::Target;
use bytes::Bytes;
use limit::Limits;
use sketch::Sketch;
use std::collections::BTreeMap;

/// See the head of this file.
#[derive(Default)]
pub(crate) struct HotKeys {
    reads: Sketch,
    writes: Sketch,
    limits: Limits,
}

/// A key that is asked for much.
#[derive(Clone, Debug, PartialEq)]
pub struct HotKeyView {
    /// Name of its keyspace.
    pub keyspace: String,
    /// The key.
    pub key: Bytes,
    /// Reads a second that this node coordinates.
    pub reads_per_s: f64,
    /// Writes a second that this node coordinates.
    pub writes_per_s: f64,
    /// Its part of all that this node coordinates, 0 to 1.
    pub share: f64,
}

impl HotKeys {
    /// A client asks for a key: counted, refused or not.
    pub(crate) fn note(&mut self, now: Millis, target: &Target, is_write: bool) -> Result<(), Problem> {
        let sketch = if is_write { &mut self.writes } else { &mut self.reads };
        sketch.note(now, target);
        let Some(limit) = target.entry.settings.key_rate_max else { return Ok(()) };
        let (reads, writes) = (self.reads.per_s(now, target), self.writes.per_s(now, target));
        if reads.is_none() && writes.is_none() {
            return Ok(());
        }
        self.limits.take(now, &target.storage_key, limit, reads.unwrap_or(0.0) + writes.unwrap_or(0.0))
    }

    /// Whether a key is read at least so often; every key if that is 0.
    pub(crate) fn is_read_often(&self, now: Millis, target: &Target, per_s: u32) -> bool {
        per_s == 0 || self.reads.per_s(now, target).is_some_and(|reads| reads >= f64::from(per_s))
    }
}

impl Node {
    /// The keys that are asked for most at this node, the hottest first.
    pub fn hot_keys(&self, now: Millis) -> Vec<HotKeyView> {
        let HotKeys { reads, writes, .. } = &self.hot_keys;
        let total = (reads.total_per_s(now) + writes.total_per_s(now)).max(f64::MIN_POSITIVE);
        let mut views: BTreeMap<&Bytes, HotKeyView> = BTreeMap::new();
        let ranked = reads.top(now).map(|ranked| (false, ranked));
        for (is_write, ranked) in ranked.chain(writes.top(now).map(|ranked| (true, ranked))) {
            let view = views.entry(ranked.storage_key).or_insert_with(|| HotKeyView {
                keyspace: ranked.keyspace.to_owned(),
                key: ranked.key.clone(),
                reads_per_s: 0.0,
                writes_per_s: 0.0,
                share: 0.0,
            });
            let rate = if is_write { &mut view.writes_per_s } else { &mut view.reads_per_s };
            *rate = ranked.per_s;
            view.share += ranked.per_s / total;
        }
        let mut views: Vec<HotKeyView> = views.into_values().filter(|view| view.share > 0.0).collect();
        views.sort_by(|a, b| b.share.total_cmp(&a.share));
        views
    }
}

#[cfg(test)]
pub(crate) fn target(key: &str) -> Target {
    use crate::catalog::{KeyspaceEntry, Policy, Revision, Settings};
    let entry = KeyspaceEntry {
        id: KeyspaceEntry::id_of("k"),
        name: "k".into(),
        settings: Settings::new(Policy::Siblings),
        epoch: 1,
        revision: Revision { stamp: Default::default(), node: crate::id::NodeId(0) },
    };
    Target::new(std::sync::Arc::new(entry), key.as_bytes())
}

#[cfg(test)]
mod hot_keys_test;
