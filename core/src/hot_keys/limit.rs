//! A bucket for each hot key of a keyspace that limits the rate of its keys.
//!
//! A bucket holds a second's worth of requests and fills at the limit. One that has not been used
//! for a second is full, as if it were not there, so that only those in use are kept. In: requests
//! for keys at the top of the sketch. Out: room, or when to come back. Absent: all other keys; no
//! bucket is needed for what is asked for rarely.

use crate::id::Millis;
use crate::request::Problem;
use bytes::Bytes;
use std::collections::BTreeMap;

/// A request, in the bucket's unit: a limit of one a second brings one unit a millisecond.
const REQUEST: u64 = 1_000;
/// A bucket is full after so long.
const FULL_MS: u64 = 1_000;
/// Buckets kept; beyond, the one that was used longest ago goes.
const BUCKETS_MAX: usize = 256;
/// The longest pause that a client is told.
const RETRY_MS_MAX: u64 = 1_000;

/// See the head of this file.
#[derive(Default)]
pub(super) struct Limits {
    buckets: BTreeMap<Bytes, Bucket>,
}

struct Bucket {
    level: u64,
    at: Millis,
}

impl Limits {
    /// Room for one request more for this key, of which `asked_per_s` come each second.
    pub(super) fn take(
        &mut self,
        now: Millis,
        storage_key: &Bytes,
        limit_per_s: u32,
        asked_per_s: f64,
    ) -> Result<(), Problem> {
        let full = u64::from(limit_per_s) * REQUEST;
        if !self.buckets.contains_key(storage_key) {
            self.make_room(now);
        }
        let fresh = || Bucket { level: full, at: now };
        let bucket = match self.buckets.get_mut(storage_key) {
            Some(bucket) => bucket,
            None => self.buckets.entry(Bytes::copy_from_slice(storage_key)).or_insert_with(fresh),
        };
        let filled = now.since(bucket.at).min(FULL_MS) * u64::from(limit_per_s);
        bucket.level = (bucket.level + filled).min(full);
        bucket.at = bucket.at.max(now);
        if let Some(left) = bucket.level.checked_sub(REQUEST) {
            bucket.level = left;
            return Ok(());
        }
        // Until there is room for one; and as there are more who wait for it, so much the longer.
        let one_ms = (REQUEST - bucket.level).div_ceil(u64::from(limit_per_s).max(1));
        let crowd = (asked_per_s / f64::from(limit_per_s.max(1))).clamp(1.0, RETRY_MS_MAX as f64);
        let retry_after_ms = ((one_ms as f64 * crowd) as u64).clamp(1, RETRY_MS_MAX) as u32;
        Err(Problem::KeyTooHot { limit_per_s, retry_after_ms })
    }

    fn make_room(&mut self, now: Millis) {
        if self.buckets.len() < BUCKETS_MAX {
            return;
        }
        self.buckets.retain(|_, bucket| now.since(bucket.at) < FULL_MS);
        if self.buckets.len() >= BUCKETS_MAX
            && let Some(oldest) =
                self.buckets.iter().min_by_key(|(_, bucket)| bucket.at).map(|(key, _)| key.clone())
        {
            self.buckets.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_gets_its_rate_and_no_more_however_much_is_asked() {
        let (mut limits, key) = (Limits::default(), Bytes::from_static(b"key"));
        let mut taken = 0;
        for ms in 0..10_000 {
            for _ in 0..10 {
                taken += u32::from(limits.take(Millis(ms), &key, 100, 10_000.0).is_ok());
            }
        }
        // Ten seconds of it, and what the bucket held at first.
        assert_eq!(taken, 100 * 10 + 100 - 1);
    }

    #[test]
    fn the_pause_is_until_there_is_room_and_longer_the_more_wait() {
        let (mut limits, key) = (Limits::default(), Bytes::from_static(b"key"));
        while limits.take(Millis(0), &key, 10, 10.0).is_ok() {}
        for (asked_per_s, expected_ms) in [(1.0, 100), (10.0, 100), (50.0, 500), (1e9, 1_000)] {
            match limits.take(Millis(0), &key, 10, asked_per_s) {
                Err(Problem::KeyTooHot { limit_per_s: 10, retry_after_ms }) => {
                    assert_eq!(retry_after_ms, expected_ms)
                }
                other => panic!("{other:?}"),
            }
        }
        limits.take(Millis(100), &key, 10, 10.0).unwrap();
    }

    #[test]
    fn buckets_are_bounded() {
        let mut limits = Limits::default();
        for i in 0..10 * BUCKETS_MAX as u64 {
            limits.take(Millis(i / 10_000), &Bytes::from(i.to_be_bytes().to_vec()), 5, 1.0).unwrap();
            assert!(limits.buckets.len() <= BUCKETS_MAX);
        }
    }
}
