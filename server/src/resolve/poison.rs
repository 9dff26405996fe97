//! Keys whose plugin calls fail, each kept from burning more than its share.
//!
//! ```text
//!   call of a key ──► waits? ──yes──► failed at once, with the reason of the last attempt
//!                        └────no────► worker ──► failed: waits twice as long, and many times what it cost
//!                                           └──► answered: forgotten
//! ```
//!
//! In: outcomes of calls. Out: whether a key's call is worth making now. A value that makes a plugin loop or trap thus
//! costs its own key its resolution and the rest of the keyspace nothing. Absent: the breaker, which judges the plugin
//! by how many *different* keys fail.

use super::Lane;
use merganser_plugin_host::Call;
use std::collections::BTreeMap;

/// How long a key waits after its first failure.
const FIRST_MS: u64 = 250;
/// No key waits longer.
const MAX_MS: u64 = 300_000;
/// A key waits so many times as long as its failed call took: it uses at most one part in so many of a core.
const TIMES_COST: u64 = 50;
/// Keys that are remembered. Beyond that failures are not held against keys, and the breaker alone sees them.
const KEYS_MAX: usize = 10_000;

/// A kind of question about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subject([u8; 16]);

impl Subject {
    pub(super) fn of(call: &Call) -> Subject {
        let (kind, key) = match call {
            Call::Validate { key, .. } => (0, key),
            Call::Resolve { key, .. } => (1, key),
            Call::Merge { key, .. } => (2, key),
            Call::Fingerprint { key, .. } => (3, key),
            Call::Apply { key, .. } => (4, key),
            Call::Retire { key, .. } => (5, key),
            Call::Query { key, .. } => (6, key),
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[kind]).update(&key.key);
        let mut short = [0; 16];
        hasher.finalize_xof().fill(&mut short);
        Subject(short)
    }
}

struct Waiting {
    until_ms: u64,
    wait_ms: u64,
    reason: String,
}

/// See the head of this file.
#[derive(Default)]
pub(super) struct Poison {
    lanes: BTreeMap<Lane, BTreeMap<Subject, Waiting>>,
    keys: usize,
}

impl Poison {
    /// Why this call is not worth making now, if so.
    pub(super) fn reason(&self, lane: &Lane, subject: Subject, now_ms: u64) -> Option<String> {
        let waiting = self.lanes.get(lane)?.get(&subject)?;
        let left_ms = waiting.until_ms.checked_sub(now_ms).filter(|left| *left > 0)?;
        Some(format!("{}; tried again in {} s", waiting.reason, left_ms.div_ceil(1_000)))
    }

    /// A call failed after so long. Says whether this key is new among those that fail.
    pub(super) fn failed(
        &mut self,
        lane: &Lane,
        subject: Subject,
        micros: u64,
        reason: &str,
        now_ms: u64,
    ) -> bool {
        let cost_ms = (micros / 1_000).saturating_mul(TIMES_COST);
        let keys = self.lanes.entry(lane.clone()).or_default();
        if let Some(waiting) = keys.get_mut(&subject) {
            waiting.wait_ms = (waiting.wait_ms * 2).max(cost_ms).min(MAX_MS);
            waiting.until_ms = now_ms.saturating_add(waiting.wait_ms);
            waiting.reason = reason.into();
            return false;
        }
        if self.keys < KEYS_MAX {
            let wait_ms = FIRST_MS.max(cost_ms).min(MAX_MS);
            let until_ms = now_ms.saturating_add(wait_ms);
            keys.insert(subject, Waiting { until_ms, wait_ms, reason: reason.into() });
            self.keys += 1;
        } else {
            self.forget_old(now_ms);
        }
        true
    }

    /// A call was answered.
    pub(super) fn answered(&mut self, lane: &Lane, subject: Subject) {
        let Some(keys) = self.lanes.get_mut(lane) else { return };
        self.keys -= usize::from(keys.remove(&subject).is_some());
        if keys.is_empty() {
            self.lanes.remove(lane);
        }
    }

    /// Keys that nobody asked about since they might have been tried.
    fn forget_old(&mut self, now_ms: u64) {
        for keys in self.lanes.values_mut() {
            keys.retain(|_, waiting| waiting.until_ms.saturating_add(waiting.wait_ms) > now_ms);
        }
        self.lanes.retain(|_, keys| !keys.is_empty());
        self.keys = self.lanes.values().map(BTreeMap::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use merganser_core::id::PluginHash;
    use merganser_plugin_host::KeyInfo;

    fn lane() -> Lane {
        ("k".into(), PluginHash([1; 32]))
    }

    fn subject(key: &'static str) -> Subject {
        let key = KeyInfo { key: Bytes::from_static(key.as_bytes()), ..KeyInfo::default() };
        Subject::of(&Call::Validate { key, value: Bytes::new() })
    }

    #[test]
    fn one_poison_key_that_is_polled_uses_a_fiftieth_of_a_core_and_others_go_on() {
        let mut poison = Poison::default();
        let (mut spent_ms, mut new) = (0, 0);
        // Each attempt takes a second; it is asked 50 times a second for ten minutes.
        for now_ms in (0..600_000).step_by(20) {
            if poison.reason(&lane(), subject("poison"), now_ms).is_none() {
                spent_ms += 1_000;
                new += u32::from(poison.failed(&lane(), subject("poison"), 1_000_000, "loops", now_ms));
            }
            assert_eq!(poison.reason(&lane(), subject("healthy"), now_ms), None);
        }
        assert!(spent_ms * 50 <= 600_000, "{spent_ms} ms");
        assert_eq!(new, 1, "the breaker counts it once");
    }

    #[test]
    fn waiting_doubles_and_an_answer_ends_it() {
        let mut poison = Poison::default();
        assert!(poison.failed(&lane(), subject("a"), 0, "traps", 0));
        assert!(
            poison.reason(&lane(), subject("a"), FIRST_MS - 1).is_some_and(|reason| reason.contains("traps"))
        );
        assert_eq!(poison.reason(&lane(), subject("a"), FIRST_MS), None);
        assert!(!poison.failed(&lane(), subject("a"), 0, "traps", FIRST_MS));
        assert!(poison.reason(&lane(), subject("a"), 3 * FIRST_MS - 1).is_some());
        poison.answered(&lane(), subject("a"));
        assert_eq!(poison.reason(&lane(), subject("a"), FIRST_MS), None);
        assert_eq!((poison.keys, poison.lanes.len()), (0, 0));
    }

    #[test]
    fn keys_are_bounded_and_old_ones_make_room() {
        let mut poison = Poison::default();
        for number in 0..KEYS_MAX + 1 {
            let key = KeyInfo { key: number.to_string().into(), ..KeyInfo::default() };
            let subject = Subject::of(&Call::Validate { key, value: Bytes::new() });
            assert!(poison.failed(&lane(), subject, 0, "traps", 0));
        }
        assert_eq!(poison.keys, KEYS_MAX);
        assert!(poison.failed(&lane(), subject("late"), 0, "traps", 10 * FIRST_MS));
        assert_eq!(poison.keys, 0);
    }
}
