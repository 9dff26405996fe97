//! When to stop asking a plugin that keeps failing, and when to try again. Pure: time is passed in.
//!
//! ```text
//!         k failures, most calls of a window    back-off over
//!   closed ───────────────────────► open ───────────────────► one probe
//!     ▲                              ▲                            │
//!     │           answered           └──────── failed, longer ────┤
//!     └────────────────────────────────────────────────────────────┘
//! ```
//!
//! One breaker per (keyspace, plugin hash); who keeps the map is the caller's business. While it is open the
//! siblings are served and writes go on (R7); it re-arms by itself, so nobody has to wake up for a plugin that
//! was starved by a passing load.

use crate::call::{Answer, Failure};

/// How quick a breaker trips and how patiently it tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerOptions {
    /// Failures within a window that trip it, if most calls of the window failed.
    pub failures_max: u32,
    /// How long a window is.
    pub window_ms: u64,
    /// How long it stays open the first time.
    pub backoff_first_ms: u64,
    /// It doubles with each failed probe up to this.
    pub backoff_max_ms: u64,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        BreakerOptions { failures_max: 5, window_ms: 10_000, backoff_first_ms: 1_000, backoff_max_ms: 60_000 }
    }
}

/// Whether a plugin may be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Ask.
    Yes,
    /// Ask: this one call decides whether the breaker closes. Others are refused until its outcome is noted.
    Probe,
    /// Do not ask; the next probe is due at this time.
    No {
        /// Milliseconds on the caller's clock.
        until_ms: u64,
    },
}

/// What [`Breaker::note`] changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing that an operator would want to know.
    None,
    /// It tripped: raise an alarm.
    Tripped,
    /// It closed again.
    Rearmed,
}

/// See the head of this file.
#[derive(Debug, Clone)]
pub struct Breaker {
    options: BreakerOptions,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed {
        failures: u32,
        calls: u32,
        /// When the window began.
        since_ms: u64,
    },
    Open {
        until_ms: u64,
        backoff_ms: u64,
    },
    /// A probe runs. Should its caller never come back, the next one is allowed after the back-off.
    Probing {
        until_ms: u64,
        backoff_ms: u64,
    },
}

impl State {
    fn closed(now_ms: u64) -> State {
        State::Closed { failures: 0, calls: 0, since_ms: now_ms }
    }
}

impl Breaker {
    /// A closed breaker.
    pub fn new(options: BreakerOptions) -> Breaker {
        Breaker { options, state: State::closed(0) }
    }

    /// May the plugin be asked? A [`Permit::Probe`] must be followed by [`Breaker::note`].
    pub fn permit(&mut self, now_ms: u64) -> Permit {
        match self.state {
            State::Closed { .. } => Permit::Yes,
            State::Open { until_ms, .. } | State::Probing { until_ms, .. } if now_ms < until_ms => {
                Permit::No { until_ms }
            }
            State::Open { backoff_ms, .. } | State::Probing { backoff_ms, .. } => {
                self.state = State::Probing { until_ms: now_ms.saturating_add(backoff_ms), backoff_ms };
                Permit::Probe
            }
        }
    }

    /// Notes the outcome of a call. Rejections and `unresolved` are answers: the plugin works. A plugin that is not
    /// on this node yet did not fail, and one that the node could not run did not either.
    pub fn note(&mut self, outcome: &Result<Answer, Failure>, now_ms: u64) -> Change {
        let failed = match outcome {
            Err(Failure::Missing | Failure::Host(_)) => return Change::None,
            outcome => outcome.is_err(),
        };
        match &mut self.state {
            State::Closed { failures, calls, since_ms } => {
                if now_ms.saturating_sub(*since_ms) >= self.options.window_ms {
                    (*failures, *calls, *since_ms) = (0, 0, now_ms);
                }
                *calls = calls.saturating_add(1);
                *failures = failures.saturating_add(u32::from(failed));
                if *failures < self.options.failures_max || *failures <= *calls / 2 {
                    return Change::None;
                }
                let backoff_ms = self.options.backoff_first_ms;
                self.state = State::Open { until_ms: now_ms.saturating_add(backoff_ms), backoff_ms };
                Change::Tripped
            }
            // A call that began before the breaker tripped says nothing about now.
            State::Open { .. } => Change::None,
            State::Probing { .. } if !failed => {
                self.state = State::closed(now_ms);
                Change::Rearmed
            }
            State::Probing { backoff_ms, .. } => {
                let backoff_ms = backoff_ms.saturating_mul(2).min(self.options.backoff_max_ms);
                self.state = State::Open { until_ms: now_ms.saturating_add(backoff_ms), backoff_ms };
                Change::None
            }
        }
    }

    /// Whether calls are refused, for status pages.
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }

    /// An operator's `rearm`: closes it at once.
    pub fn rearm(&mut self) {
        self.state = State::closed(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: BreakerOptions =
        BreakerOptions { failures_max: 3, window_ms: 1_000, backoff_first_ms: 100, backoff_max_ms: 300 };

    fn tripped_at(now_ms: u64) -> Breaker {
        let mut breaker = Breaker::new(OPTIONS);
        assert_eq!(breaker.note(&Err(Failure::OutOfFuel), now_ms), Change::None);
        assert_eq!(breaker.note(&Err(Failure::OutOfFuel), now_ms), Change::None);
        assert_eq!(breaker.note(&Err(Failure::OutOfFuel), now_ms), Change::Tripped);
        breaker
    }

    #[test]
    fn it_trips_when_most_calls_of_a_window_fail_and_not_by_a_few_among_many() {
        let mut breaker = Breaker::new(OPTIONS);
        for _ in 0..100 {
            breaker.note(&Ok(Answer::Unresolved("cannot say".into())), 0);
            assert_eq!(breaker.note(&Err(Failure::Timeout), 0), Change::None);
        }
        assert_eq!(breaker.permit(0), Permit::Yes);
        // Another window: what was answered before counts no more, nor what failed.
        assert_eq!(breaker.note(&Err(Failure::Timeout), 1_000), Change::None);
        assert_eq!(breaker.note(&Err(Failure::Timeout), 1_000), Change::None);
        assert_eq!(breaker.note(&Err(Failure::Timeout), 2_000), Change::None);
        assert_eq!(breaker.note(&Err(Failure::Host("no memory".into())), 2_000), Change::None);
        assert_eq!(tripped_at(0).permit(99), Permit::No { until_ms: 100 });
    }

    #[test]
    fn one_probe_at_a_time_decides_and_the_back_off_doubles_to_its_cap() {
        let mut breaker = tripped_at(0);
        assert_eq!(breaker.permit(100), Permit::Probe);
        assert_eq!(breaker.permit(101), Permit::No { until_ms: 200 });
        assert_eq!(breaker.note(&Err(Failure::Trap("again".into())), 110), Change::None);
        assert_eq!(breaker.permit(111), Permit::No { until_ms: 310 });
        assert_eq!(breaker.permit(310), Permit::Probe);
        breaker.note(&Err(Failure::Trap("again".into())), 310);
        assert_eq!(breaker.permit(609), Permit::No { until_ms: 610 });
        assert_eq!(breaker.permit(610), Permit::Probe);
        assert_eq!(breaker.note(&Ok(Answer::Delete), 611), Change::Rearmed);
        assert_eq!(breaker.permit(612), Permit::Yes);
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_lost_probe_does_not_keep_it_open_for_ever() {
        let mut breaker = tripped_at(0);
        assert_eq!(breaker.permit(100), Permit::Probe);
        assert_eq!(breaker.permit(200), Permit::Probe);
    }

    #[test]
    fn a_late_answer_does_not_close_it_and_a_missing_module_does_not_trip_it() {
        let mut breaker = tripped_at(0);
        assert_eq!(breaker.note(&Ok(Answer::Valid), 1), Change::None);
        assert!(breaker.is_open());
        breaker.rearm();
        for _ in 0..10 {
            assert_eq!(breaker.note(&Err(Failure::Missing), 0), Change::None);
        }
        assert!(!breaker.is_open());
    }
}
