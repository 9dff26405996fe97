//! When to ask a second node although the first has not failed.
//!
//! A node that hangs (paused, cut off, its disk stuck) says nothing, so waiting for its failure
//! means waiting for a time limit. Here a read goes to the next node as well once it has taken
//! much longer than requests do, and whichever answers first counts; the silent node is then asked last, by
//! writes too. Writes stay where they are until their time limit: two nodes that do not know of each other
//! would give one write two dots, and who replaces one of them does not replace the other.
//!
//! In: how long answers took. Out: how long to wait. Where everything is slow, so is this: what
//! is hedged stays a small part. Absent: requests; this is one number.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// So many times what slow answers take.
const TIMES_SLOW: u64 = 4;

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Hedge {
    at_least: Duration,
    /// About what one answer in a hundred exceeds: grows fast, shrinks slowly. A race between two
    /// writers loses one of their samples, which is no harm.
    slow_micros: AtomicU64,
}

impl Hedge {
    pub(crate) fn new(at_least: Duration) -> Hedge {
        Hedge { at_least, slow_micros: AtomicU64::new(0) }
    }

    /// Takes note of an answer.
    pub(crate) fn note(&self, took: Duration) {
        let took = took.as_micros() as u64;
        let slow = self.slow_micros.load(Ordering::Relaxed);
        let slow = if took > slow { slow + (took - slow).div_ceil(4) } else { slow - (slow - took) / 256 };
        self.slow_micros.store(slow, Ordering::Relaxed);
    }

    /// How long to wait for one node before another is asked too.
    pub(crate) fn after(&self) -> Duration {
        let slow = self.slow_micros.load(Ordering::Relaxed);
        self.at_least.max(Duration::from_micros(slow.saturating_mul(TIMES_SLOW)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_ms(samples: impl IntoIterator<Item = u64>) -> u64 {
        let hedge = Hedge::new(Duration::from_millis(250));
        samples.into_iter().for_each(|ms| hedge.note(Duration::from_millis(ms)));
        hedge.after().as_millis() as u64
    }

    #[test]
    fn fast_answers_leave_it_at_its_least_and_slow_ones_move_it_out_of_the_way() {
        assert_eq!(after_ms([]), 250);
        assert_eq!(after_ms([5; 1_000]), 250);
        let rarely_slow = (0..1_000).map(|n| if n % 500 == 0 { 40 } else { 5 });
        assert_eq!(after_ms(rarely_slow), 250);
        let slow_for_a_while = after_ms([400; 8]);
        assert!(slow_for_a_while > 1_200, "{slow_for_a_while}");
        assert_eq!(after_ms([400; 8].into_iter().chain([5; 3_000])), 250, "and back");
    }
}
