//! How many lines of a plugin reach the node's log: some at once, and then so many a second, whatever the number of calls.
//!
//! In: a line that wants to be written, and the time. Out: whether it may, and how many were dropped since the last that
//! might. Absent: the lines themselves.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Lines that may come at once.
const BURST: f64 = 200.0;
/// Lines a second after that.
const PER_S: f64 = 20.0;

/// One for each plugin.
#[derive(Debug)]
pub(crate) struct LogRate(Mutex<State>);

#[derive(Debug)]
struct State {
    left: f64,
    at: Instant,
    dropped: u64,
}

impl LogRate {
    pub(crate) fn new(now: Instant) -> LogRate {
        LogRate(Mutex::new(State { left: BURST, at: now, dropped: 0 }))
    }

    /// None where the line is dropped; else how many were dropped before it.
    pub(crate) fn take(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(state.at).as_secs_f64();
        state.left = (state.left + since * PER_S).min(BURST);
        state.at = now;
        if state.left < 1.0 {
            state.dropped += 1;
            return None;
        }
        state.left -= 1.0;
        Some(std::mem::take(&mut state.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flood_is_cut_to_its_rate_and_what_was_dropped_is_told() {
        let start = Instant::now();
        let rate = LogRate::new(start);
        // A thousand lines a second for ten seconds.
        let written =
            (0..10_000).filter(|line| rate.take(start + Duration::from_millis(*line)).is_some()).count();
        assert!((395..=405).contains(&written), "{written}");
        let told = rate.take(start + Duration::from_secs(60));
        assert!(told.is_some_and(|dropped| dropped > 0), "{told:?}");
        assert_eq!(rate.take(start + Duration::from_secs(60)), Some(0));
    }
}
