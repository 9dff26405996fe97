//! What came out of a measurement.
//!
//! In: histograms, what processes used, what nodes counted. Out: [`Figures`], per operation.
//! Absent: any judgement; that is `report`.

use crate::{
    point::Point,
    process::{Machine, Usage},
};
use hdrhistogram::Histogram;
use merganser_client::proto::Metric;
use serde::Serialize;
use std::collections::BTreeMap;

/// In milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
}

impl Latency {
    /// From a nanosecond to a minute, to three digits.
    pub(crate) fn histogram() -> Histogram<u64> {
        Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order")
    }

    pub(crate) fn of(histogram: &Histogram<u64>) -> Latency {
        let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
        Latency {
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            p999_ms: ms(0.999),
            max_ms: histogram.max() as f64 / 1e6,
        }
    }
}

/// One measurement's results.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) point: Point,
    pub(crate) seconds: f64,
    pub(crate) operations: u64,
    pub(crate) errors: u64,
    /// The first of them.
    pub(crate) error: Option<String>,
    pub(crate) per_second: f64,
    pub(crate) latency: Latency,
    /// Where both are asked for.
    pub(crate) gets: Option<Latency>,
    pub(crate) puts: Option<Latency>,
    /// CPU of all servers for each operation.
    pub(crate) server_us: f64,
    /// CPU of the load generator for each operation.
    pub(crate) client_us: f64,
    /// The servers' CPU by the name of their threads.
    pub(crate) threads_us: BTreeMap<String, f64>,
    /// By all servers, to disk, as the kernel accounts it: where a file was written before and its
    /// pages are large, more than what reaches the disk.
    pub(crate) accounted_bytes: f64,
    /// Share of the machine that was used by neither.
    pub(crate) others_share: f64,
    /// What the nodes' own counters say; None at the floor.
    pub(crate) nodes: Option<Counted>,
}

/// What the nodes counted, over all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Counted {
    /// Events that one turn of a driver handled. A frame of a peer is one.
    pub(crate) events_per_turn: f64,
    /// Writes that shared a sync of the log.
    pub(crate) appends_per_sync: f64,
    /// Messages that shared a frame between nodes.
    pub(crate) messages_per_frame: f64,
    /// Bytes between nodes, for each operation.
    pub(crate) peer_bytes: f64,
    /// Turns of drivers, for each operation.
    pub(crate) turns: f64,
    /// Syncs of logs, for each operation.
    pub(crate) syncs: f64,
    /// Bytes given to logs, tables and compactions, for each operation.
    pub(crate) written_bytes: f64,
}

impl Counted {
    /// From two looks at all nodes.
    pub(crate) fn between(before: &[Vec<Metric>], after: &[Vec<Metric>], operations: u64) -> Counted {
        let sum = |looks: &[Vec<Metric>], name: &str| -> f64 {
            looks.iter().flatten().filter(|metric| metric.name == name).map(|metric| metric.value).sum()
        };
        let grown = |name: &str| sum(after, name) - sum(before, name);
        let operations = operations as f64;
        let files = ["storage_log_bytes", "storage_flushed_bytes", "storage_compacted_bytes"];
        let written = files.into_iter().map(grown).sum();
        Counted {
            events_per_turn: ratio(grown("driver_events"), grown("driver_turns")),
            appends_per_sync: ratio(grown("storage_writes"), grown("storage_log_syncs")),
            messages_per_frame: ratio(grown("peer_messages_sent"), grown("peer_frames_sent")),
            peer_bytes: ratio(grown("peer_bytes_sent"), operations),
            turns: ratio(grown("driver_turns"), operations),
            syncs: ratio(grown("storage_log_syncs"), operations),
            written_bytes: ratio(written, operations),
        }
    }
}

/// One look at everything that can be looked at from outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    pub(crate) servers: Usage,
    pub(crate) client: Usage,
    pub(crate) machine: Machine,
}

impl Look {
    /// Share of the machine that neither servers nor client used from `earlier` on.
    pub(crate) fn others_share(&self, earlier: &Look) -> f64 {
        let ours = self.servers.since(&earlier.servers).cpu_us + self.client.since(&earlier.client).cpu_us;
        let busy = self.machine.busy_us - earlier.machine.busy_us;
        ratio(busy - ours, self.machine.total_us - earlier.machine.total_us).max(0.0)
    }
}

/// 0 where there is nothing to divide by.
pub(crate) fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_all_nodes_are_added_before_they_are_divided() {
        let look = |turns: f64, events: f64| {
            let metric = |name: &str, value| Metric { name: name.into(), help: String::new(), value };
            vec![metric("driver_turns", turns), metric("driver_events", events)]
        };
        let before = [look(10.0, 10.0), look(0.0, 0.0)];
        let after = [look(20.0, 50.0), look(10.0, 20.0)];
        let counted = Counted::between(&before, &after, 10);
        assert_eq!(counted.events_per_turn, 3.0);
        assert_eq!(counted.turns, 2.0);
        assert_eq!(counted.appends_per_sync, 0.0, "nothing was counted");
    }

    #[test]
    fn quantiles_come_out_in_milliseconds() {
        let mut histogram = Latency::histogram();
        for ms in 1..=1_000_u64 {
            histogram.saturating_record(ms * 1_000_000);
        }
        let latency = Latency::of(&histogram);
        assert!((latency.p50_ms - 500.0).abs() < 1.0 && (latency.p999_ms - 999.0).abs() < 1.5, "{latency:?}");
    }
}
