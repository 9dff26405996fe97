//! Which keys are asked for most: a count-min sketch of all, and by name the few at the top.
//!
//! Each key adds to one counter in each of four rows, chosen by bits of its token, which is a hash
//! already; the least of the four is at most too high. A key whose estimate exceeds that of the last
//! one at the top takes its place. Every second all counts are halved, so that a steady key's
//! count stands between once and twice its rate. A cold key costs four additions and a comparison.
//!
//! In: accesses. Out: rates. Absent: what is done about a hot key.

use crate::id::Millis;
use crate::target::Target;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Rows, each with bits of the token of its own.
const ROWS: usize = 4;
/// Counters of a row; a row takes this many of the token's bits.
const COLUMNS_BITS: u32 = 12;
/// Keys known by name.
const TOP_MAX: usize = 64;
/// Counts are halved so often.
pub(super) const HALVE_MS: u64 = 1_000;

/// See the head of this file.
pub(super) struct Sketch {
    rows: Vec<u32>,
    /// By token; of two keys with one token the first is kept.
    top: BTreeMap<u64, Top>,
    /// No key at the top had less when this was worked out.
    least: u32,
    total: u64,
    halved_at: Millis,
}

/// A key at the top.
struct Top {
    storage_key: Bytes,
    keyspace: String,
    key: Bytes,
    count: u32,
}

/// A key at the top, for others.
pub(super) struct Ranked<'a> {
    pub(super) storage_key: &'a Bytes,
    pub(super) keyspace: &'a str,
    pub(super) key: &'a Bytes,
    pub(super) per_s: f64,
}

impl Default for Sketch {
    fn default() -> Sketch {
        Sketch {
            rows: vec![0; ROWS << COLUMNS_BITS],
            top: BTreeMap::new(),
            least: 0,
            total: 0,
            halved_at: Millis(0),
        }
    }
}

impl Sketch {
    /// One access.
    pub(super) fn note(&mut self, now: Millis, target: &Target) {
        self.halve(now);
        self.total += 1;
        let token = target.token.0;
        let estimate = self.add(token);
        if let Some(top) = self.top.get_mut(&token) {
            top.count += u32::from(top.storage_key == target.storage_key);
            return;
        }
        if self.top.len() >= TOP_MAX {
            if estimate <= self.least {
                return;
            }
            let Some((last, least)) =
                self.top.iter().map(|(token, top)| (*token, top.count)).min_by_key(|(_, count)| *count)
            else {
                return;
            };
            self.least = least;
            if estimate <= least {
                return;
            }
            self.top.remove(&last);
        }
        let top = Top {
            // Copied, so that a key at the top pins no larger buffer.
            storage_key: Bytes::copy_from_slice(&target.storage_key),
            keyspace: target.entry.name.clone(),
            key: Bytes::copy_from_slice(&target.key),
            count: estimate,
        };
        self.top.insert(token, top);
    }

    /// Adds to the least counters alone: that suffices, and others of theirs stay exact.
    fn add(&mut self, token: u64) -> u32 {
        let at: [usize; ROWS] = std::array::from_fn(|row| {
            let bits = (token >> (row as u32 * COLUMNS_BITS)) as usize & ((1 << COLUMNS_BITS) - 1);
            (row << COLUMNS_BITS) + bits
        });
        let estimate = at.iter().map(|at| self.rows[*at]).min().unwrap_or(0).saturating_add(1);
        for at in at {
            self.rows[at] = self.rows[at].max(estimate);
        }
        estimate
    }

    /// How often counts are to be halved by now, and when they were if they had been.
    fn halvings(&self, now: Millis) -> (u32, Millis) {
        let periods = now.since(self.halved_at) / HALVE_MS;
        let at = Millis(self.halved_at.0.saturating_add(periods * HALVE_MS));
        (u32::try_from(periods).unwrap_or(u32::MAX), at)
    }

    fn halve(&mut self, now: Millis) {
        let (halvings, at) = self.halvings(now);
        if halvings == 0 {
            return;
        }
        self.halved_at = at;
        if self.total > 0 {
            self.rows.iter_mut().for_each(|count| *count = halved(*count, halvings));
            self.top.values_mut().for_each(|top| top.count = halved(top.count, halvings));
            self.top.retain(|_, top| top.count > 0);
            self.total = self.total.checked_shr(halvings).unwrap_or(0);
            self.least = 0;
        }
    }

    /// A steady key's count, some time after the last halving, for each of its accesses a second.
    fn count_per_rate(&self, now: Millis) -> f64 {
        let (_, halved_at) = self.halvings(now);
        1.0 + now.since(halved_at) as f64 / HALVE_MS as f64
    }

    /// Accesses a second of a key at the top; None for others.
    pub(super) fn per_s(&self, now: Millis, target: &Target) -> Option<f64> {
        let top = self.top.get(&target.token.0).filter(|top| top.storage_key == target.storage_key)?;
        let count = halved(top.count, self.halvings(now).0);
        (count > 0).then(|| f64::from(count) / self.count_per_rate(now))
    }

    /// Accesses a second of all keys.
    pub(super) fn total_per_s(&self, now: Millis) -> f64 {
        let total = self.total.checked_shr(self.halvings(now).0).unwrap_or(0);
        total as f64 / self.count_per_rate(now)
    }

    /// The keys at the top, in no order of their rates.
    pub(super) fn top(&self, now: Millis) -> impl Iterator<Item = Ranked<'_>> {
        let (per_rate, (halvings, _)) = (self.count_per_rate(now), self.halvings(now));
        self.top.values().map(move |top| Ranked {
            storage_key: &top.storage_key,
            keyspace: &top.keyspace,
            key: &top.key,
            per_s: f64::from(halved(top.count, halvings)) / per_rate,
        })
    }
}

fn halved(count: u32, times: u32) -> u32 {
    count.checked_shr(times).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::target;
    use super::*;

    #[test]
    fn a_steady_key_shows_its_rate_and_is_forgotten_when_it_stops() {
        let mut sketch = Sketch::default();
        let hot = target("hot");
        for ms in 0..10_000 {
            sketch.note(Millis(ms), &hot);
        }
        for ms in [10_000, 10_500, 10_999] {
            let per_s = sketch.per_s(Millis(ms), &hot).expect("at the top");
            assert!((300.0..1_100.0).contains(&per_s), "{per_s} at {ms}");
        }
        assert!(sketch.per_s(Millis(10_000), &target("never")).is_none());
        assert!(sketch.per_s(Millis(60_000), &hot).is_none());
        assert_eq!(sketch.total_per_s(Millis(60_000)), 0.0);
    }

    #[test]
    fn the_hot_stand_out_among_many_more_keys_than_it_can_name() {
        let mut sketch = Sketch::default();
        let hot: Vec<Target> = (0..10).map(|i| target(&format!("hot{i}"))).collect();
        // 100,000 accesses to as many cold keys, and 1,000 to each hot one, within a second.
        for i in 0..100_000_u64 {
            sketch.note(Millis(1_000_000 + i / 110), &target(&format!("cold{i}")));
            if i % 10 == 0 {
                sketch.note(Millis(1_000_000 + i / 110), &hot[(i / 10 % 10) as usize]);
            }
        }
        let now = Millis(1_000_999);
        let mut top: Vec<(f64, Bytes)> =
            sketch.top(now).map(|ranked| (ranked.per_s, ranked.key.clone())).collect();
        top.sort_by(|a, b| b.0.total_cmp(&a.0));
        let named: Vec<&[u8]> = top.iter().take(10).map(|(_, key)| &key[..]).collect();
        assert!(named.iter().all(|key| key.starts_with(b"hot")), "{named:?}");
        for hot in &hot {
            let per_s = sketch.per_s(now, hot).expect("at the top");
            assert!((450.0..1_000.0).contains(&per_s), "{per_s}");
        }
        assert!((50_000.0..60_000.0).contains(&sketch.total_per_s(now)));
    }

    #[test]
    fn one_that_becomes_hot_takes_the_place_of_one_that_was() {
        let mut sketch = Sketch::default();
        for second in 0..40_u64 {
            let name = if second < 20 { "old" } else { "new" };
            for i in 0..TOP_MAX as u64 {
                let key = target(&format!("{name}{i}"));
                (0..20).for_each(|_| sketch.note(Millis(second * 1_000), &key));
            }
        }
        let now = Millis(39_999);
        assert!(sketch.top(now).all(|ranked| ranked.key.starts_with(b"new")));
        assert_eq!(sketch.top(now).count(), TOP_MAX);
    }
}
