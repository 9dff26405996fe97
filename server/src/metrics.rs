//! What the shell counts, by name.
//!
//! In: increments from driver, links, pools and services. Out: name, help, value for
//! `Cluster.Status`. Absent: core's and storage's own counters, which are listed beside these.

use merganser_proto::v1::Metric;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($name:ident: $help:literal,)*) => {
        /// Since the node started.
        #[derive(Debug, Default)]
        pub(crate) struct Metrics { $(pub(crate) $name: Counter,)* }

        impl Metrics {
            /// All of them.
            pub(crate) fn list(&self) -> Vec<Metric> {
                vec![$(metric(stringify!($name), $help, self.$name.get() as f64),)*]
            }
        }
    };
}

counters! {
    driver_turns: "Turns of the driver.",
    driver_events: "Events that these turns handled; per turn at least 3 under load, or batching is lost.",
    driver_turn_micros: "Microseconds spent in turns.",
    effects_write: "Writes handed to storage.",
    effects_read: "Reads asked of storage.",
    reads_blocked: "Of these, reads that had to wait for the disk.",
    reads_refused: "Of those, reads refused because too many waited.",
    requests: "Client requests.",
    requests_shed: "Writes refused at the door because storage was behind.",
    replies_dropped: "Outcomes whose client had gone.",
    connections: "Client connections accepted.",
    links_up: "Times a link to a peer came up.",
    links_down: "Times a link to a peer went down.",
    links_refused_secret: "Links refused because the other side does not hold the cluster's secret.",
    links_refused_cluster: "Links refused because the other side is of another cluster.",
    links_refused_node: "Links refused because the other side is no member, or should not have dialled.",
    links_refused_layout: "Links refused because the other side was told other members, zones, weights or vnodes.",
    links_refused_protocol: "Links refused because the other side speaks another protocol, or none.",
    peer_frames_sent: "Frames sent to peers.",
    peer_messages_sent: "Messages in them.",
    peer_bytes_sent: "Bytes of those messages.",
    peer_messages_received: "Messages received from peers.",
    peer_messages_dropped: "Messages dropped because a link was down or its queue full; repaired later.",
    peer_messages_malformed: "Messages from peers that did not decode.",
    plugin_calls: "Plugin calls made.",
    plugin_calls_failed: "Of these, calls without an answer.",
    plugin_calls_refused: "Plugin calls refused because the queue was full or a breaker open.",
    plugin_host_failures: "Plugin calls and loads that this node could not run: no memory, or a panic of the engine. Alarm.",
    plugin_breakers_tripped: "Times a breaker of a keyspace and plugin tripped.",
    plugin_loads: "Plugins compiled.",
    notices_read_repair: "Replicas that lagged and were sent the newer state.",
    notices_wrote_back: "Resolutions stored by this node as the key's owner.",
    notices_corrupt_record: "Records that did not decode or were damaged. Alarm.",
    notices_range_lost: "Ranges given up that another replica could not read as a whole either: keys may be lost. Alarm.",
    notices_large_context: "Keys whose context grew to 32 spans. Alarm.",
    notices_key_too_large: "Keys whose siblings on several replicas no record holds together. Alarm.",
    notices_amnesia: "Times a peer knew more of this node's writes than the node itself. Alarm.",
    notices_dot_reused: "Dots seen with two values. Alarm.",
    notices_breaker: "Keys whose automatic resolutions were stopped. Alarm.",
}

/// Only ever grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One figure.
pub(crate) fn metric(name: &str, help: &str, value: f64) -> Metric {
    Metric { name: name.into(), help: help.into(), value }
}

/// What the storage engine counts.
pub(crate) fn of_storage(m: &merganser_storage::Metrics, pressure: f32) -> Vec<Metric> {
    let appends = if m.log_syncs == 0 { 0.0 } else { m.writes as f64 / m.log_syncs as f64 };
    vec![
        metric("appends_per_sync", "Writes that shared a sync of the log, on average.", appends),
        metric(
            "storage_pressure",
            "How far storage is behind, 0 to 1; near 1 writes are refused.",
            pressure.into(),
        ),
        metric("storage_writes", "Writes committed.", m.writes as f64),
        metric("storage_ingested_bytes", "Bytes handed to storage.", m.ingested_bytes as f64),
        metric("storage_log_bytes", "Bytes written to logs.", m.log_bytes as f64),
        metric("storage_log_syncs", "Syncs of the log.", m.log_syncs as f64),
        metric(
            "storage_overloaded",
            "Writes refused because too much waited for the log.",
            m.overloaded as f64,
        ),
        metric("storage_flushes", "Memtables that became tables.", m.flushes as f64),
        metric("storage_flushed_bytes", "Bytes that flushes wrote.", m.flushed_bytes as f64),
        metric("storage_compactions", "Compactions.", m.compactions as f64),
        metric("storage_compacted_bytes", "Bytes that compactions wrote.", m.compacted_bytes as f64),
        metric("storage_memtable_bytes", "Bytes in the active memtable.", m.memtable_bytes as f64),
        metric("storage_tables", "Tables in use.", m.tables as f64),
        metric("storage_table_bytes", "Their bytes on disk.", m.table_bytes as f64),
        metric("storage_cache_bytes", "Bytes cached.", m.cache_bytes as f64),
        metric("storage_cache_hits", "Cache lookups that found something.", m.cache_hits as f64),
        metric("storage_file_reads", "Blocks and values read from files.", m.file_reads as f64),
        metric(
            "storage_folds_refused",
            "Keys whose fragments could not be joined. Alarm.",
            m.folds_refused as f64,
        ),
    ]
}
