//! What is counted while it runs: answers, latencies, staleness, memory.
//!
//! In: each request as it ends, each sample of a node. Out: numbers per slot of time, for the
//! report. Absent: anything that is judged.

use crate::history::{Micros, locked};
use hdrhistogram::Histogram;
use merganser_client::Error;
use serde::Serialize;
use std::{collections::BTreeMap, sync::Mutex};

/// Kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Read,
    Put,
    Delete,
    Apply,
}

impl Op {
    pub(crate) const NAMES: [&str; 4] = ["read", "put", "delete", "apply"];
}

const LATENCY_US_MAX: u64 = 120_000_000;

/// Requests that ended within one slot of time.
#[derive(Clone, Debug)]
struct Slot {
    ok: [u64; 4],
    errors: BTreeMap<&'static str, u64>,
    reads: Histogram<u64>,
    writes: Histogram<u64>,
}

impl Slot {
    fn empty() -> Slot {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_US_MAX, 2).expect("fixed bounds are right");
        Slot { ok: [0; 4], errors: BTreeMap::new(), reads: histogram(), writes: histogram() }
    }
}

/// How long a node missed a canary.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Stale {
    pub(crate) node: usize,
    pub(crate) acked_us: Micros,
    /// The last read that missed it began so long after the acknowledgement; none did: None.
    pub(crate) missed_us: Option<Micros>,
    pub(crate) seen: bool,
}

/// A look at a node.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) at_us: Micros,
    pub(crate) node: usize,
    pub(crate) resident_bytes: Option<u64>,
    /// Its metrics, if it answered.
    pub(crate) metrics: Option<BTreeMap<String, f64>>,
}

/// A slot, for the report.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Point {
    pub(crate) begin_us: Micros,
    /// By kind of request, see [`Op::NAMES`].
    pub(crate) ok: [u64; 4],
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) read_p50_us: u64,
    pub(crate) read_p99_us: u64,
    pub(crate) write_p50_us: u64,
    pub(crate) write_p99_us: u64,
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Measures {
    slot_us: Micros,
    slots: Mutex<Vec<Slot>>,
    stale: Mutex<Vec<Option<Stale>>>,
    samples: Mutex<Vec<Sample>>,
}

impl Measures {
    /// A slot is a second, or longer where there would be too many to look at.
    pub(crate) fn new(duration_us: Micros) -> Measures {
        let slot_us = (duration_us / 300 / 1_000_000).max(1) * 1_000_000;
        Measures { slot_us, slots: Mutex::default(), stale: Mutex::default(), samples: Mutex::default() }
    }

    pub(crate) fn slot_us(&self) -> Micros {
        self.slot_us
    }

    /// A request ended.
    pub(crate) fn done(&self, op: Op, begin: Micros, end: Micros, error: Option<&Error>) {
        let at = (end / self.slot_us) as usize;
        let mut slots = locked(&self.slots);
        if slots.len() <= at {
            slots.resize_with(at + 1, Slot::empty);
        }
        let slot = &mut slots[at];
        match error {
            Some(error) => *slot.errors.entry(error.code()).or_default() += 1,
            None => {
                slot.ok[op as usize] += 1;
                let latencies = if op == Op::Read { &mut slot.reads } else { &mut slot.writes };
                latencies.saturating_record((end - begin).max(1));
            }
        }
    }

    /// Answered and not, so far.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let slots = locked(&self.slots);
        let ok = slots.iter().flat_map(|slot| slot.ok).sum();
        let errors = slots.iter().flat_map(|slot| slot.errors.values()).sum();
        (ok, errors)
    }

    pub(crate) fn points(&self) -> Vec<Point> {
        let slots = locked(&self.slots);
        let point = |(i, slot): (usize, &Slot)| Point {
            begin_us: i as Micros * self.slot_us,
            ok: slot.ok,
            errors: slot.errors.iter().map(|(code, count)| ((*code).to_owned(), *count)).collect(),
            read_p50_us: slot.reads.value_at_quantile(0.5),
            read_p99_us: slot.reads.value_at_quantile(0.99),
            write_p50_us: slot.writes.value_at_quantile(0.5),
            write_p99_us: slot.writes.value_at_quantile(0.99),
        };
        slots.iter().enumerate().map(point).collect()
    }

    /// A canary is watched for; returns its place.
    pub(crate) fn canary(&self, stale: Stale) -> usize {
        let mut all = locked(&self.stale);
        all.push(Some(stale));
        all.len() - 1
    }

    pub(crate) fn canary_missed(&self, place: usize, after: Micros) {
        if let Some(stale) = &mut locked(&self.stale)[place] {
            stale.missed_us = Some(after);
        }
    }

    pub(crate) fn canary_seen(&self, place: usize) {
        if let Some(stale) = &mut locked(&self.stale)[place] {
            stale.seen = true;
        }
    }

    pub(crate) fn forget_canary(&self, place: usize) {
        locked(&self.stale)[place] = None;
    }

    pub(crate) fn stale(&self) -> Vec<Stale> {
        locked(&self.stale).iter().flatten().copied().collect()
    }

    pub(crate) fn sample(&self, sample: Sample) {
        locked(&self.samples).push(sample);
    }

    pub(crate) fn samples(&self) -> Vec<Sample> {
        locked(&self.samples).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_where_they_end() {
        let measures = Measures::new(20_000_000);
        measures.done(Op::Read, 0, 500, None);
        measures.done(Op::Put, 900_000, 2_100_000, None);
        measures.done(Op::Put, 900_000, 2_200_000, Some(&Error::ContextRequired));
        let points = measures.points();
        assert_eq!(points.len(), 3);
        assert_eq!((points[0].ok, points[2].ok), ([1, 0, 0, 0], [0, 1, 0, 0]));
        assert_eq!(points[2].errors["context_required"], 1);
        assert!((1_190_000..1_210_000).contains(&points[2].write_p99_us), "{}", points[2].write_p99_us);
        assert_eq!(measures.totals(), (2, 1));
        assert_eq!(Measures::new(3_600_000_000).slot_us(), 12_000_000, "an hour has 300 slots");
    }
}
