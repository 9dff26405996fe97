//! Every key of the configuration, with its default and what it is for: the reference that
//! `docs/operations.md` prints, and the list against which unknown keys are told.
//!
//! A test holds this table, the structs beside it and the document together.

/// A key of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// `section.name`.
    pub name: &'static str,
    /// What it is if not given; `—` where it must be given.
    pub default: &'static str,
    /// What it is for.
    pub help: &'static str,
}

const fn key(name: &'static str, default: &'static str, help: &'static str) -> Key {
    Key { name, default, help }
}

/// All of them, in the order of the file.
pub const KEYS: &[Key] = &[
    key(
        "node.name",
        "—",
        "This node; one of `cluster.members`. Its id and its place on the ring follow from it.",
    ),
    key("node.zone", "the member's", "Must say the same as this node's entry in `cluster.members`."),
    key("node.weight", "the member's", "Must say the same as this node's entry in `cluster.members`."),
    key(
        "node.clock_offset_ms",
        "0",
        "Added to the machine's clock, to see what a node does whose clock is wrong.",
    ),
    key("cluster.name", "—", "Nodes of another cluster are refused."),
    key(
        "cluster.secret",
        "—",
        "At least 16 bytes, the same on all nodes. Proves peers to each other and seals contexts. Give this or `cluster.secret_file`.",
    ),
    key(
        "cluster.secret_file",
        "—",
        "A file that holds the secret; relative to the configuration file. A newline at its end does not count.",
    ),
    key("cluster.vnodes", "256", "Virtual nodes for each unit of weight; the same on all nodes."),
    key("cluster.members", "—", "All nodes, this one included; the same list on all nodes. See below."),
    key(
        "listen.client",
        "the member's `client_address`",
        "IP and port for gRPC clients. Port 0: any that is free.",
    ),
    key(
        "listen.peer",
        "the member's `peer_address`",
        "IP and port for the other nodes. Port 0: any that is free.",
    ),
    key(
        "listen.keepalive_interval_ms",
        "10000",
        "A client connection silent for so long is asked whether it is alive.",
    ),
    key("listen.keepalive_timeout_ms", "5000", "And closed if it does not answer within this."),
    key("listen.peer_keepalive_interval_ms", "1000", "The same for links between nodes."),
    key("listen.peer_keepalive_timeout_ms", "3000", "The same for links between nodes."),
    key("storage.dir", "—", "Directory of this node's data; made if missing, used by one process at a time."),
    key("storage.memtable_mb", "64", "Written data held in memory before it becomes a table."),
    key("storage.cache_mb", "128", "Blocks and values kept in memory."),
    key("storage.log_file_mb", "64", "Size of a log file."),
    key(
        "storage.sync_interval_ms",
        "10",
        "At latest after this, writes of `interval` durability are synced.",
    ),
    key("storage.compaction_threads", "1", "Compactions that may run at once."),
    key("storage.read_threads", "2", "Reads that may wait for the disk at once."),
    key(
        "limits.in_flight",
        "20000",
        "Client requests in flight beyond which new ones are answered `OVERLOADED`.",
    ),
    key(
        "limits.in_flight_mb",
        "256",
        "What they may weigh together, by the bytes and kinds of requests, before new ones are answered `OVERLOADED`.",
    ),
    key("limits.view_cache_mb", "16", "What plugins made of conflicts, kept for the next reader."),
    key("limits.connections", "1024", "Client connections; further ones wait to be accepted."),
    key("limits.streams", "1024", "Calls at once on one client connection."),
    key(
        "limits.pipelined",
        "512",
        "Requests in flight on one pipeline stream; further ones are not read yet.",
    ),
    key("limits.timeout_ms", "2000", "Patience of requests that do not say theirs."),
    key("limits.timeout_ms_max", "60000", "Longest patience that a request may ask for."),
    key("limits.hedge_ms", "20", "After so long without an answer a read asks one more replica."),
    key(
        "limits.gossip_period_ms",
        "250",
        "How often a node's heart beats and it gossips; patience with silent nodes follows from it.",
    ),
    key(
        "limits.peer_queue_mb",
        "32",
        "Messages waiting for one peer; beyond that they are dropped and repaired later.",
    ),
    key("limits.module_mb", "8", "Largest plugin that may be uploaded."),
    key("limits.plugin_threads", "2", "Plugin calls that may run at once."),
    key(
        "limits.plugin_queue_mb",
        "64",
        "Input of plugin calls that wait; beyond that they fail, and siblings are served.",
    ),
    key("limits.drain_ms", "5000", "How long a stop waits for requests in flight."),
    key("repair.period_ms", "10000", "How often a node compares its data with that of another."),
    key(
        "repair.mb_per_s",
        "32",
        "What repair may send each second, and as much again what hints may; an eighth while clients are at work.",
    ),
    key(
        "repair.hint_mb",
        "256",
        "Writes kept for one node that is away; beyond that, anti-entropy brings them.",
    ),
    key("repair.hint_h", "3", "For so many hours."),
    key(
        "repair.scrub_period_h",
        "168",
        "How often all values are read again, and held against other replicas'.",
    ),
    key("repair.scrub_mb_per_s", "4", "What that may read each second."),
    key(
        "repair.collect_period_ms",
        "200",
        "How often a node looks for deletes that can be forgotten; 0: it keeps them for ever.",
    ),
    key(
        "repair.grave_s",
        "300",
        "How long what was forgotten is still refused when it arrives late; at least twice `limits.timeout_ms_max`.",
    ),
    key(
        "repair.forget_h",
        "168",
        "A member that was away for so many hours is forgotten, and must come back with an empty disk.",
    ),
    key(
        "log.level",
        "info",
        "`error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,merganser_server=debug`.",
    ),
    key("log.format", "text", "`text` or `json`."),
];

/// Keys of an entry of `cluster.members`.
pub(crate) const MEMBER_KEYS: &[Key] = &[
    key("name", "—", "Unique."),
    key("client_address", "—", "HOST:PORT at which clients reach it."),
    key("peer_address", "—", "HOST:PORT at which the other nodes reach it."),
    key("zone", "none", "Nodes of one zone fail together; copies of a key are spread over zones."),
    key("weight", "1", "Share of the keys relative to the others; 0 holds none, and still takes requests."),
];

/// The key among `known` that `unknown` was most likely meant to be.
pub(crate) fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let close = known.map(|name| (distance(unknown, name), name)).min()?;
    (close.0 <= unknown.len().div_ceil(2)).then_some(close.1)
}

/// Levenshtein distance, by bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
