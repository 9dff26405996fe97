//! How much work that nobody waits for may be done: hints that go home, repair.
//!
//! A budget is a bucket of bytes that fills with time. It is small, so that what it lets out is spread over time
//! in small pieces: a client's request that meets one waits for no more than that. While clients are at work a budget fills
//! at a fraction of its rate, for then every byte and key takes time from one of them.
//!
//! In: the time, a rate, what was spent. Out: whether to go on, or when. Absent: what is done for it.

use crate::id::Millis;
use crate::node::Node;

/// See the head of this file. It may be overdrawn once, by whatever is larger than it, and then has to fill again.
#[derive(Default)]
pub(crate) struct Budget {
    bytes: i64,
    at: Millis,
}

/// A budget saves up what its rate brings in so many milliseconds: the pieces that it lets out hold a node up by some tens of
/// microseconds each.
const SAVED_MS: i64 = 5;
/// What a key weighs beside its bytes: small ones cost time rather than bandwidth, here and there.
pub(crate) const KEY_COST_BYTES: usize = 1 << 10;
/// The share of a rate that is left for repair while clients are at work …
const YIELD_DIVISOR: u64 = 8;
/// … but no less than this, if the rate is more: what waits for its turn must not be given up before.
const YIELD_BYTES_MIN: u64 = 1 << 20;
/// Clients have been away for so long: nobody is disturbed.
const QUIET_MS: u64 = 100;

impl Budget {
    /// Whether anything may be spent now; else when.
    pub(crate) fn ask(&mut self, now: Millis, bytes_per_s: u64) -> Result<(), Millis> {
        let rate = i64::try_from(bytes_per_s).unwrap_or(i64::MAX).max(1);
        let most = (rate.saturating_mul(SAVED_MS) / 1_000).max(1);
        // After a long time it is full, whatever the time.
        let filled = rate.saturating_mul(now.since(self.at).min(60_000) as i64) / 1_000;
        if filled > 0 || now < self.at {
            (self.bytes, self.at) = (self.bytes.saturating_add(filled).min(most), now);
        }
        if self.bytes > 0 {
            return Ok(());
        }
        let missing = self.bytes.unsigned_abs().saturating_mul(1_000) / rate.unsigned_abs();
        Err(now.after(missing.clamp(1, 60_000)))
    }

    /// So much was spent.
    pub(crate) fn spend(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

impl Node {
    /// This node does something for a client, its own or that of a peer.
    pub(crate) fn works_for_client(&mut self, now: Millis) {
        self.worked_for_client_at = now;
    }

    /// What of a rate is left for work that nobody waits for.
    pub(crate) fn unhurried(&self, now: Millis, bytes_per_s: u64) -> u64 {
        if now.since(self.worked_for_client_at) > QUIET_MS {
            return bytes_per_s;
        }
        (bytes_per_s / YIELD_DIVISOR).max(bytes_per_s.min(YIELD_BYTES_MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_time_as_much_goes_as_the_rate_says_in_whatever_pieces() {
        for piece in [100, 10_000, 3_000_000] {
            let (mut budget, mut now, mut spent) = (Budget::default(), Millis(5_000_000), 0u64);
            let rate = 1 << 20;
            while now.0 < 5_100_000 {
                match budget.ask(now, rate) {
                    Ok(()) => {
                        budget.spend(piece);
                        spent += piece as u64;
                    }
                    Err(next) => {
                        assert!(next > now);
                        now = next;
                    }
                }
            }
            let fair = 100 * rate;
            assert!(spent > fair * 95 / 100 && spent < fair * 105 / 100 + piece as u64, "{piece}: {spent}");
        }
    }

    #[test]
    fn after_a_rest_no_more_goes_at_once_than_in_a_moment() {
        let (mut budget, rate) = (Budget::default(), 1_000_000);
        for now in [Millis(1_000_000), Millis(2_000_000)] {
            let mut spent = 0;
            while budget.ask(now, rate).is_ok() {
                budget.spend(1_000);
                spent += 1_000;
            }
            assert_eq!(spent, 5_000);
        }
    }

    #[test]
    fn a_clock_that_goes_back_does_not_stop_it() {
        let mut budget = Budget::default();
        assert_eq!(budget.ask(Millis(1_000_000), 1_000), Ok(()));
        budget.spend(1_000);
        assert!(budget.ask(Millis(1_000_000), 1_000).is_err());
        assert!(budget.ask(Millis(500), 1_000).is_err());
        assert_eq!(budget.ask(Millis(2_500), 1_000), Ok(()));
    }
}
