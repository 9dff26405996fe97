//! The ids by which clients say that an operation is a retry, and what is kept of those whose operations were folded.
//!
//! An id of 16 bytes is a client's session and the number of the operation in it, both big-endian; any other
//! is hashed into a session of its own. Of folded operations a state keeps *runs*: numbers in sequence of one session,
//! with the minute of their stamps, so that they can be let go by age.

use std::collections::{BTreeMap, BTreeSet};

use merganser_plugin_sdk::Rejection;

use crate::codec::{Reader, Writer};

/// Ids are kept for at least so long after their operation, by the stamps that hosts issue.
pub const RETENTION_MS: u64 = 10 * 60 * 1000;

const MINUTE_MS: u64 = 60 * 1000;
/// Minutes within which something less old than the retention may lie.
const RETENTION_MINUTES: u64 = RETENTION_MS / MINUTE_MS + 1;
/// Minutes that a state may name: the year 10889 is far enough.
const MINUTE_MAX: u64 = (1 << 48) / MINUTE_MS;

/// The minute of a stamp.
pub(crate) fn minute_of(millis: u64) -> u64 {
    (millis / MINUTE_MS).min(MINUTE_MAX)
}

/// Whether what happened in this minute is older than the retention.
pub(crate) fn is_old(minute: u64, now: u64) -> bool {
    minute + RETENTION_MINUTES < now
}

/// An operation's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpId {
    /// The client's.
    pub session: u64,
    /// Its operations, by number.
    pub sequence: u64,
}

impl OpId {
    /// None for the empty id, which never marks a retry.
    pub fn of(bytes: &[u8]) -> Option<OpId> {
        let half = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes);
        match bytes.len() {
            0 => None,
            16 => Some(OpId { session: half(&bytes[..8]).ok()?, sequence: half(&bytes[8..]).ok()? }),
            _ => {
                let hash = |basis| bytes.iter().fold(basis, step);
                Some(OpId { session: hash(0xcbf2_9ce4_8422_2325), sequence: hash(0x9ae1_6a3b_2f90_404f) })
            }
        }
    }
}

/// FNV-1a.
fn step(hash: u64, &byte: &u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
}

/// Ids in sequence, of one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Run {
    pub(crate) first: OpId,
    pub(crate) last: u64,
    pub(crate) minute: u64,
}

/// Runs in order, none of which overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Runs(Vec<Run>);

impl Runs {
    /// All of these; where two name the same id, the first in order counts.
    pub(crate) fn of(mut runs: Vec<Run>) -> Runs {
        runs.sort_unstable();
        let mut ordered: Vec<Run> = Vec::with_capacity(runs.len());
        for mut run in runs {
            if let Some(last) = ordered.last_mut()
                && last.first.session == run.first.session
            {
                if run.last <= last.last {
                    continue;
                }
                run.first.sequence = run.first.sequence.max(last.last + 1);
                if run.first.sequence == last.last + 1 && run.minute == last.minute {
                    last.last = run.last;
                    continue;
                }
            }
            ordered.push(run);
        }
        Runs(ordered)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Run> {
        self.0.iter()
    }

    pub(crate) fn contains(&self, id: OpId) -> bool {
        let after = self.0.partition_point(|run| run.first <= id);
        after.checked_sub(1).is_some_and(|at| {
            let run = self.0[at];
            run.first.session == id.session && id.sequence <= run.last
        })
    }

    /// Without those that are old and of which no copy is left, and the oldest of those that are too many.
    pub(crate) fn retain(&mut self, now: u64, copies: &BTreeSet<OpId>, most: usize) {
        let has_copy = |run: &Run| {
            let last = OpId { sequence: run.last, ..run.first };
            copies.range(run.first..=last).next().is_some()
        };
        self.0.retain(|run| !is_old(run.minute, now) || has_copy(run));
        if self.0.len() > most {
            let mut minutes: Vec<u64> = self.0.iter().map(|run| run.minute).collect();
            minutes.sort_unstable();
            let oldest = minutes[self.0.len() - most];
            // Those of the oldest minute that fits in part go as a whole: which of them stay must not depend on their names.
            self.0.retain(|run| run.minute > oldest || has_copy(run));
        }
    }
}

/// Ids as bytes: sessions once, in a table; numbers and minutes as the distance from the one before.
#[derive(Default)]
pub(crate) struct Names {
    sessions: Vec<u64>,
    last: BTreeMap<u64, u64>,
    used: BTreeSet<usize>,
    minute: u64,
}

impl Names {
    pub(crate) fn of(sessions: BTreeSet<u64>) -> Names {
        Names { sessions: sessions.into_iter().collect(), ..Names::default() }
    }

    pub(crate) fn write_table(&self, writer: &mut Writer) {
        writer.number(self.sessions.len() as u128);
        self.sessions.iter().for_each(|&session| writer.number(session.into()));
    }

    pub(crate) fn read_table(reader: &mut Reader<'_>) -> Result<Names, Rejection> {
        let mut sessions: Vec<u64> = Vec::new();
        for _ in 0..reader.count()? {
            let session = reader.number64()?;
            if sessions.last().is_some_and(|&last| session <= last) {
                return Err(Rejection::malformed("sessions are not in order"));
            }
            sessions.push(session);
        }
        Ok(Names { sessions, ..Names::default() })
    }

    /// Each of them must be there for an id.
    pub(crate) fn finish(&self) -> Result<(), Rejection> {
        match self.used.len() == self.sessions.len() {
            true => Ok(()),
            false => Err(Rejection::malformed("a session without ids")),
        }
    }

    /// Requires: the session is in the table.
    pub(crate) fn write(&mut self, writer: &mut Writer, id: OpId, minute: u64) {
        let at = self.sessions.binary_search(&id.session).expect("the table has all sessions");
        writer.number(at as u128);
        let last = self.last.insert(id.session, id.sequence).unwrap_or(0);
        writer.distance(last, id.sequence);
        writer.distance(std::mem::replace(&mut self.minute, minute), minute);
    }

    pub(crate) fn read(&mut self, reader: &mut Reader<'_>) -> Result<(OpId, u64), Rejection> {
        let at = reader.number64()? as usize;
        let Some(&session) = self.sessions.get(at) else {
            return Err(Rejection::malformed("an id is of no session"));
        };
        self.used.insert(at);
        let sequence = reader.from(self.last.get(&session).copied().unwrap_or(0), u64::MAX)?;
        self.last.insert(session, sequence);
        self.minute = reader.from(self.minute, MINUTE_MAX)?;
        Ok((OpId { session, sequence }, self.minute))
    }

    pub(crate) fn write_runs(&mut self, writer: &mut Writer, runs: &Runs) {
        writer.number(runs.0.len() as u128);
        for run in &runs.0 {
            self.write(writer, run.first, run.minute);
            writer.number((run.last - run.first.sequence).into());
            self.last.insert(run.first.session, run.last);
        }
    }

    pub(crate) fn read_runs(&mut self, reader: &mut Reader<'_>) -> Result<Runs, Rejection> {
        let mut runs = Vec::new();
        for _ in 0..reader.count()? {
            let (first, minute) = self.read(reader)?;
            let length = reader.number64()?;
            let last = first.sequence.checked_add(length);
            let last = last.ok_or_else(|| Rejection::malformed("a run of ids is too long"))?;
            self.last.insert(first.session, last);
            runs.push(Run { first, last, minute });
        }
        let ordered = Runs::of(runs.clone());
        match ordered.0 == runs {
            true => Ok(ordered),
            false => Err(Rejection::malformed("runs of ids are not in order")),
        }
    }
}
