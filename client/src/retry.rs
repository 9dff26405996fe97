//! What to do after a request failed. Pure: facts in, a step out; jitter is handed in.
//!
//! In: the error, which attempt it was, how much time is left. Out: give up, or ask this or
//! the next node after a pause. Three rules:
//!
//! 1. Only what another attempt may cure is tried again.
//! 2. All attempts of one write carry one request id, so that a node that knows of one does not do it again. After
//!    `Uncertain` the same node is asked first: it knows the write by its id.
//! 3. An attempt of unknown fate is never forgotten: whatever fails afterwards, the outcome of the
//!    write is uncertain ([`Fate`]).

use crate::error::{Error, Uncertain};
use std::time::Duration;
use tonic::Code;

/// How patient a client is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Patience {
    /// Attempts at most, the first included.
    pub(crate) attempts_max: u32,
    /// The pause before the first repetition; doubles with each.
    pub(crate) pause: Duration,
    /// No pause is longer.
    pub(crate) pause_max: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { attempts_max: 10, pause: Duration::from_millis(20), pause_max: Duration::from_secs(1) }
    }
}

/// Where a request stands when an attempt has failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// Attempts made, this one included.
    pub(crate) attempts: u32,
    /// Index of the node just asked.
    pub(crate) candidate: usize,
    /// How many nodes there are to ask.
    pub(crate) candidates: usize,
    /// Time left for the whole request.
    pub(crate) remaining: Duration,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    GiveUp,
    Ask { candidate: usize, after: Duration },
}

/// `jitter` is between 0 and 1.
pub(crate) fn next(patience: &Patience, standing: Standing, error: &Error, jitter: f64) -> Step {
    if standing.attempts >= patience.attempts_max || standing.candidates == 0 {
        return Step::GiveUp;
    }
    let other = (standing.candidate + 1) % standing.candidates;
    let first_round = (standing.attempts as usize) < standing.candidates;
    let pause = pause(patience, standing.attempts, jitter);
    let (candidate, after) = match error {
        // Another node may well be fine: no reason to wait until all were asked once.
        Error::Unavailable { .. } | Error::Late if first_round => (other, Duration::ZERO),
        // What broke inside one node (its disk, say) need not be broken in the next; asking the
        // same one again would change nothing.
        error if is_internal(error) && first_round => (other, Duration::ZERO),
        Error::Unavailable { .. } | Error::NotEnoughReplicas { .. } | Error::Late => (other, pause),
        Error::Uncertain(_) => (standing.candidate, pause),
        Error::Overloaded { retry_after } | Error::KeyTooHot { retry_after } => {
            (other, pause.max(*retry_after))
        }
        _ => return Step::GiveUp,
    };
    if after >= standing.remaining { Step::GiveUp } else { Step::Ask { candidate, after } }
}

/// True where another attempt may end otherwise.
pub(crate) fn is_curable(error: &Error) -> bool {
    use Error::{KeyTooHot, Late, NotEnoughReplicas, Overloaded, Unavailable, Uncertain};
    is_internal(error)
        || matches!(
            error,
            Unavailable { .. }
                | Late
                | NotEnoughReplicas { .. }
                | Uncertain(_)
                | Overloaded { .. }
                | KeyTooHot { .. }
        )
}

/// True where a node failed inside. What it did of a write before that is not known.
fn is_internal(error: &Error) -> bool {
    matches!(error, Error::Server { code, .. } if *code == Code::Internal as u32)
}

/// Between half of the doubled pause and all of it, so that clients that failed together do not
/// come back together.
fn pause(patience: &Patience, attempts: u32, jitter: f64) -> Duration {
    let doubled = patience.pause.saturating_mul(1 << attempts.saturating_sub(1).min(16));
    doubled.min(patience.pause_max).mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// What is known about the attempts of one write so far.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    unknown: Option<Uncertain>,
}

impl Fate {
    /// Takes note of a failed attempt.
    pub(crate) fn note(&mut self, error: &Error) {
        match error {
            // The facts with a dot are worth more than those without.
            Error::Uncertain(facts) if facts.dot.is_some() || self.unknown.is_none() => {
                self.unknown = Some((**facts).clone());
            }
            Error::Unavailable { node, reason, sent: true } if self.unknown.is_none() => {
                self.unknown = Some(nothing_known(format!("{node}: {reason}")));
            }
            error if is_internal(error) && self.unknown.is_none() => {
                self.unknown = Some(nothing_known(error.what()));
            }
            _ => {}
        }
    }

    /// The outcome of the write whose last attempt failed with `last`.
    pub(crate) fn outcome(self, last: Error) -> Error {
        match (self.unknown, last) {
            (None, last) => last,
            (Some(_), Error::Uncertain(facts)) if facts.dot.is_some() => Error::Uncertain(facts),
            (Some(mut facts), last) => {
                if !matches!(last, Error::Uncertain(_)) {
                    facts.cause = format!("{}; then {}", facts.cause, last.what());
                }
                Error::Uncertain(Box::new(facts))
            }
        }
    }
}

fn nothing_known(cause: String) -> Uncertain {
    Uncertain { dot: None, replicas: Vec::new(), needed: 0, cause, pending: None }
}

#[cfg(test)]
#[path = "retry_test.rs"]
mod retry_test;
