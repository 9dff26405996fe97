//! An operation or a query with a context: whoever answers holds at least what the client had seen.
//!
//! ```text
//!   own copy covers it ─────────────────────────────▶ the operation's turn
//!     └ not ─▶ the other replicas, and stand-ins, until what they hold together covers it ─▶ taken in ─▶ its turn
//!                └ nobody within reach does ─▶ `Stale`, with nothing done
//! ```
//!
//! So an operation that names what its client saw (a remove from a set) is not carried out on a state that lacks it, as an
//! acknowledged nothing. In: contexts. Out: reads, states taken in. Absent: what a read asks (`get`).

use super::Admitted;
use super::get::{Goal, Reading};
use super::put::Change;
use crate::event::Effects;
use crate::id::{Millis, OpId};
use crate::node::{Node, Origin};
use crate::replica::Job;
use crate::request::Problem;
use crate::target::Target;
use crate::version::{Context, DotSet, KeyState, codec};
use bytes::Bytes;

impl Node {
    /// A client's token, opened.
    pub(super) fn opened(&self, target: &Target, token: Option<&Bytes>) -> Result<Option<Context>, Problem> {
        token.map(|token| self.sealer.open(target.entry.id, &target.key, token)).transpose()
    }

    /// What a write must find in its coordinator's state, if it is one that must: operations with a context.
    pub(super) fn must_find(&self, op: OpId, change: &Change) -> Option<DotSet> {
        let context = self.writing.get(&op)?.context.as_ref()?;
        (matches!(change, Change::Op(_)) && !context.seen.is_empty()).then(|| context.seen.clone())
    }

    /// Reads the key until all of `seen` is found; then the write goes on.
    pub(super) fn catch_up(&mut self, now: Millis, op: OpId, seen: DotSet, effects: &mut Effects) {
        let Some(writing) = self.writing.get(&op) else { return };
        let admitted = Admitted {
            origin: Origin::Owner,
            target: writing.target.clone(),
            needed: 1,
            retry_of_ms_ago: None,
            sloppy: writing.sloppy,
            // Just before the write's own, so that whoever waits is told why.
            deadline: Millis(writing.deadline.0.saturating_sub(1)).max(now),
            primaries: writing.primaries.clone(),
        };
        self.begin_read(now, admitted, Goal::CatchUp { write: op, seen }, effects);
    }

    /// A read for an operation is over.
    pub(super) fn caught_up(&mut self, now: Millis, reading: Reading, effects: &mut Effects) {
        let Goal::CatchUp { write, .. } = reading.goal else { return };
        if !reading.is_caught_up() {
            return self.write_failed(write, Problem::Stale, effects);
        }
        let Some(writing) = self.writing.get(&write) else { return };
        let primaries = writing.primaries.clone();
        if !primaries.contains(&self.config.node) {
            // A primary took it in with the read's repairs.
            let target = reading.target.clone();
            let record = codec::record(&reading.merged);
            if let Some((state @ KeyState::Lattice(_), record)) = self.sift(&target, reading.merged, record) {
                let job = Job::Sync { state, record: Some(record), completions: Vec::new() };
                self.enqueue_as_stand_in(now, &target, primaries, job, effects);
            }
        }
        self.commit_caught_up(now, write, effects);
    }
}
