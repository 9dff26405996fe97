//! How long a boot of a node has run, and until when a request is worth something to who asked.
//!
//! ```text
//!   node ── "I have run 1,000 ms" ──▶ asker, at its own 70,000 ms          (gossip; Kv.Now)
//!   asker, at 70,500, patient for 3 s:  "worth nothing from your 4,500 on" ──▶ node
//! ```
//!
//! A request may lie somewhere for long: in the socket of a stopped process, in a network that
//! sends it again after a cut. Who asked has given it up by then and asked another node; carried
//! out late, it would be a second effect, above everything that was written since (semantics §7). So each
//! attempt says how long it is worth something, by the clock of the node that it goes to: no two clocks need agree. What an asker
//! knows of that clock is at least as old as the telling took, so it errs to the early side. A moment of another boot is over.
//!
//! In: the shell's word for how long the process has run, by a clock that nobody sets and that goes on while
//! the process stands still; what members tell of theirs. Out: moments, verdicts. Absent: wall clocks.

use crate::event::Effects;
use crate::id::{Millis, NodeId, OpId};
use crate::mutant::Mutant;
use crate::node::Node;
use crate::request::Problem;

/// No two clocks drift apart faster than one millisecond in so many.
const DRIFT_ONE_IN: u64 = 1_000;
/// How long a word counts beside later ones: a machine may have stood still with its clocks.
const WORD_MS: u64 = 10_000;

/// A moment in one boot of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Drawn by the node when it booted.
    pub session: u64,
    /// Milliseconds that it had run.
    pub running_ms: u64,
}

/// What is known of a member's own time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    session: u64,
    /// It had run for at least so long …
    running_ms: u64,
    /// … when this node had run for so long.
    at_ms: u64,
}

impl Told {
    /// A member says how long it has run, which this node hears at its own `at_ms`. A word that was longer on its way
    /// says less, and does not count beside a better one of late.
    pub(crate) fn hear(known: &mut Option<Told>, session: u64, running_ms: u64, at_ms: u64) {
        let says_more = |known: &Told| {
            known.session == session && at_ms - known.at_ms <= WORD_MS && known.at(at_ms) > running_ms
        };
        if !known.as_ref().is_some_and(says_more) {
            *known = Some(Told { session, running_ms, at_ms });
        }
    }

    /// For how long it has run, at least, at this node's own `at_ms`.
    fn at(&self, at_ms: u64) -> u64 {
        let since = at_ms.saturating_sub(self.at_ms);
        self.running_ms.saturating_add(since - since.div_ceil(DRIFT_ONE_IN))
    }

    /// The latest moment of it that is surely not after this node's own `at_ms`.
    pub(crate) fn moment(&self, at_ms: u64) -> Moment {
        Moment { session: self.session, running_ms: self.at(at_ms) }
    }
}

impl Node {
    /// How long the process has run. To be said before the events of a turn; never goes back.
    pub fn has_run(&mut self, running_ms: u64) {
        self.running_ms = self.running_ms.max(running_ms);
    }

    /// This node's own time.
    pub fn moment(&self) -> Moment {
        Moment { session: self.session(), running_ms: self.running_ms }
    }

    /// For how many of `patience_ms` a request is still worth something.
    pub(crate) fn patience_left(&self, until: Option<Moment>, patience_ms: u64) -> Result<u64, Problem> {
        let Some(until) = until.filter(|_| !self.mutant(Mutant::LateRequestIsDone)) else {
            return Ok(patience_ms);
        };
        if until.session != self.session() || until.running_ms < self.running_ms {
            return Err(Problem::Late);
        }
        Ok(patience_ms.min(until.running_ms - self.running_ms))
    }

    /// What this node's own time will be when its clock, which says `now`, says `at`.
    pub(crate) fn own_time_at(&self, now: Millis, at: Millis) -> u64 {
        self.running_ms.saturating_add(at.since(now))
    }

    /// This node's own `until_ms`, in the time of `node`, as far as that has told.
    pub(crate) fn moment_at(&self, node: NodeId, until_ms: u64) -> Option<Moment> {
        self.membership.told_by(node).map(|told| told.moment(until_ms))
    }

    /// Whether a write may still have a dot. It may have waited, or this process have stood still since it came: then it
    /// is refused, and nothing is stored.
    pub(crate) fn may_take_effect(&mut self, op: OpId, effects: &mut Effects) -> bool {
        let Some(writing) = self.writing.get(&op) else { return false };
        let is_late = writing.until_ms < self.running_ms && !self.mutant(Mutant::LateRequestIsDone);
        if is_late {
            self.counters.late += 1;
            self.write_failed(op, Problem::Late, effects);
        }
        !is_late
    }
}

#[cfg(test)]
mod moment_test;
