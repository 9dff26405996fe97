//! The judge: from histories and the end to violations.
//!
//! In: what clients asked and were told, what each key is at the end, and when freshness cannot
//! be asked for. Out: violations, by property, and how much was looked at. Each policy has its
//! file. Absent: anything that a server says about itself.
//!
//! | property | here |
//! |---|---|
//! | C1 no lost acknowledgement | an acknowledged write is there, or reached over "had seen" from what is (lww: not above the winner; set and counter: contained) |
//! | C4 no resurrection | what an acknowledged write had seen is not shown again, by no read after it and not at the end |
//! | C8 freshness | with R + W > N a read shows what was acknowledged before it began, or what came over it |
//! | C9 no phantom | what is shown was put there, byte for byte, and not refused |

pub(crate) mod causal;
pub(crate) mod lattice;
pub(crate) mod lww;

#[cfg(test)]
mod causal_test;
#[cfg(test)]
mod lattice_test;
#[cfg(test)]
mod lww_test;

use crate::history::{KeyHistory, Micros, Saw};
use serde::Serialize;
use std::ops::Range;

/// How the values of a keyspace behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Versions, concurrent ones beside each other.
    Causal,
    /// The same, and nodes store resolutions of them.
    Settled,
    /// One register, the highest stamp wins.
    Lww,
    /// A set of elements.
    Set,
    /// A number.
    Counter,
}

/// A property that does not hold.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(crate) struct Violation {
    /// `C1`, …
    pub(crate) property: String,
    /// Where.
    pub(crate) at: String,
    /// What was seen, and what should have been.
    pub(crate) what: String,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, Serialize, PartialEq, Eq)]
pub(crate) struct Looked {
    pub(crate) keys: u64,
    pub(crate) acked: u64,
    pub(crate) uncertain: u64,
    pub(crate) refused: u64,
    pub(crate) reads: u64,
    /// Reads that were held to C8; the others were sloppy, or while a lost disk was refilled.
    pub(crate) reads_fresh: u64,
    /// Writes that only a stored resolution which nobody saw could account for.
    pub(crate) undecided: u64,
}

/// What holds for the whole run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// A lost or rolled-back disk that is not refilled yet: two replicas may not overlap.
    pub(crate) stale: Vec<Range<Micros>>,
    /// How far the clocks of two nodes may be apart, and a second more.
    pub(crate) clocks_apart: Micros,
    /// When the end was looked at.
    pub(crate) end: Micros,
}

impl Rules {
    /// Whether a read must be fresh. `begin` counts: what it asks for may have been acknowledged
    /// by the lost disk before.
    fn holds(&self, begin: Micros, end: Micros, sloppy: bool) -> bool {
        !sloppy && !self.stale.iter().any(|stale| begin < stale.end && end >= stale.start)
    }
}

/// Violations found so far, and what was looked at.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) violations: Vec<Violation>,
    pub(crate) looked: Looked,
}

impl Findings {
    fn broken(&mut self, property: &str, at: &str, what: String) {
        self.violations.push(Violation { property: property.into(), at: at.into(), what });
    }

    /// Judges one key. `end` is what all replicas hold when everything has healed.
    pub(crate) fn judge(&mut self, kind: Kind, at: &str, history: &KeyHistory, end: &Saw, rules: &Rules) {
        use crate::history::Outcome;
        self.looked.keys += 1;
        for write in &history.writes {
            match write.outcome {
                Outcome::Acked(_) => self.looked.acked += 1,
                Outcome::Uncertain(_) => self.looked.uncertain += 1,
                Outcome::Refused => self.looked.refused += 1,
            }
        }
        self.looked.reads += history.reads.len() as u64;
        match kind {
            Kind::Causal => causal::judge(self, at, history, end, rules, false),
            Kind::Settled => causal::judge(self, at, history, end, rules, true),
            Kind::Lww => lww::judge(self, at, history, end, rules),
            Kind::Set => lattice::judge_set(self, at, history, end, rules),
            Kind::Counter => lattice::judge_counter(self, at, history, end, rules),
        }
    }
}
