//! How fast: a bucket of bytes that fills with time.
//!
//! In: the time, a rate, what was spent. Out: whether to go on, or when. Absent: what is paced.

use crate::id::Millis;

/// A bucket. It may be overdrawn once, by whatever is larger than it, and then has to fill again.
#[derive(Default)]
pub(crate) struct Pace {
    bytes: i64,
    at: Millis,
}

/// What the bucket holds: the rate's bytes of so many milliseconds.
const BURST_MS: u64 = 125;

impl Pace {
    /// Whether anything may be spent now.
    pub(crate) fn is_open(&mut self, now: Millis, bytes_per_s: u64) -> bool {
        let rate = i64::try_from(bytes_per_s).unwrap_or(i64::MAX).max(1);
        let most = rate.saturating_mul(BURST_MS as i64) / 1_000;
        // After a long time it is full, whatever the time.
        let filled = rate.saturating_mul(now.since(self.at).min(60_000) as i64) / 1_000;
        if filled > 0 || now < self.at {
            (self.bytes, self.at) = (self.bytes.saturating_add(filled).min(most.max(1)), now);
        }
        self.bytes > 0
    }

    /// So much was spent.
    pub(crate) fn spend(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// When it opens, where it is closed.
    pub(crate) fn opens_at(&self, now: Millis, bytes_per_s: u64) -> Millis {
        let missing = self.bytes.saturating_neg().max(0) as u64;
        now.after((missing.saturating_mul(1_000) / bytes_per_s.max(1)).clamp(1, 60_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_time_as_much_goes_as_the_rate_says_in_whatever_pieces() {
        for piece in [100, 10_000, 3_000_000] {
            let (mut pace, mut now, mut spent) = (Pace::default(), Millis(5_000_000), 0u64);
            let rate = 1 << 20;
            while now.0 < 5_100_000 {
                if pace.is_open(now, rate) {
                    pace.spend(piece);
                    spent += piece as u64;
                } else {
                    let next = pace.opens_at(now, rate);
                    assert!(next > now);
                    now = next;
                }
            }
            let fair = 100 * rate;
            assert!(spent > fair * 95 / 100 && spent < fair * 105 / 100 + piece as u64, "{piece}: {spent}");
        }
    }

    #[test]
    fn a_clock_that_goes_back_does_not_stop_it() {
        let mut pace = Pace::default();
        assert!(pace.is_open(Millis(1_000_000), 1_000));
        pace.spend(1_000);
        assert!(!pace.is_open(Millis(1_000_000), 1_000));
        assert!(!pace.is_open(Millis(500), 1_000));
        assert!(pace.is_open(Millis(2_500), 1_000));
    }
}
