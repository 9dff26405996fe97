//! What an operator says: a file, then `MERGANSER_SECTION__KEY` variables, then flags; the later
//! wins. Read, checked, typed.
//!
//! In: TOML, environment, `section.key` overrides. Out: a [`Config`] in which everything holds
//! together, or one error that names the key and the fix. Absent: anything about keyspaces and
//! plugins, which live in the cluster's catalog.

mod check;
mod keys;
mod load;

pub use keys::{KEYS, Key};

use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;

/// What is wrong with a configuration, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read or is no TOML.
    #[error("cannot read the configuration: {0}")]
    Unreadable(String),
    /// No such key.
    #[error("there is no key `{key}` in the configuration{}", nearest.as_ref().map_or_else(String::new, |near| format!("; did you mean `{near}`?")))]
    UnknownKey {
        /// As it was given.
        key: String,
        /// The nearest that there is.
        nearest: Option<String>,
    },
    /// A value that cannot be.
    #[error("`{key}` {problem}; {fix}")]
    Invalid {
        /// Which key.
        key: String,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        fix: String,
    },
}

/// A node's configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Who this node is.
    pub node: Node,
    /// Whom it belongs to.
    pub cluster: Cluster,
    /// Where it listens.
    pub listen: Listen,
    /// Where its data is.
    pub storage: Storage,
    /// What it refuses.
    pub limits: Limits,
    /// What it does by itself to be equal with the others.
    pub repair: Repair,
    /// What it tells.
    pub log: Log,
}

/// Who this node is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    /// One of the members.
    pub name: String,
    /// If given, as in the members' list.
    pub zone: Option<String>,
    /// If given, as in the members' list.
    pub weight: Option<f64>,
    /// Added to the machine's clock.
    pub clock_offset_ms: i64,
}

/// The cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Shared by all nodes.
    pub secret: Secret,
    /// Or a file that holds it.
    pub secret_file: Option<PathBuf>,
    /// Virtual nodes for each unit of weight.
    pub vnodes: u32,
    /// All nodes.
    pub members: Vec<Member>,
}

impl Default for Cluster {
    fn default() -> Cluster {
        let vnodes = merganser_core::ring::VNODES_DEFAULT;
        Cluster {
            name: String::new(),
            secret: Secret::default(),
            secret_file: None,
            vnodes,
            members: Vec::new(),
        }
    }
}

/// Bytes that no log line shows.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

/// A node as all others know it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Member {
    /// Unique.
    pub name: String,
    /// HOST:PORT for clients.
    pub client_address: String,
    /// HOST:PORT for the other nodes.
    pub peer_address: String,
    /// Nodes of one zone fail together; empty = no zones.
    #[serde(default)]
    pub zone: String,
    /// Share of the keys relative to the others.
    #[serde(default = "one")]
    pub weight: f64,
}

fn one() -> f64 {
    1.0
}

/// Where a node listens.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Listen {
    /// IP and port for clients; None: the member's.
    pub client: Option<String>,
    /// IP and port for peers; None: the member's.
    pub peer: Option<String>,
    /// When a silent client connection is asked whether it is alive.
    pub keepalive_interval_ms: u64,
    /// When it counts as dead.
    pub keepalive_timeout_ms: u64,
    /// The same between nodes.
    pub peer_keepalive_interval_ms: u64,
    /// The same between nodes.
    pub peer_keepalive_timeout_ms: u64,
}

impl Default for Listen {
    fn default() -> Listen {
        Listen {
            client: None,
            peer: None,
            keepalive_interval_ms: 10_000,
            keepalive_timeout_ms: 5_000,
            peer_keepalive_interval_ms: 1_000,
            peer_keepalive_timeout_ms: 3_000,
        }
    }
}

/// Where a node's data is, and what memory it gets.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Storage {
    /// Of this node alone.
    pub dir: PathBuf,
    /// Written data held before it becomes a table.
    pub memtable_mb: u64,
    /// Blocks and values kept.
    pub cache_mb: u64,
    /// Of one log file.
    pub log_file_mb: u64,
    /// For writes of `interval` durability.
    pub sync_interval_ms: u64,
    /// Compactions at once.
    pub compaction_threads: u32,
    /// Reads that wait for the disk at once.
    pub read_threads: u32,
}

impl Default for Storage {
    fn default() -> Storage {
        Storage {
            dir: PathBuf::new(),
            memtable_mb: 64,
            cache_mb: 128,
            log_file_mb: 64,
            sync_interval_ms: 10,
            compaction_threads: 1,
            read_threads: 2,
        }
    }
}

/// What a node refuses, and how patient it is.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Client requests.
    pub in_flight: u32,
    /// What they may weigh together.
    pub in_flight_mb: u64,
    /// What plugins made of conflicts, kept for the next reader.
    pub view_cache_mb: u64,
    /// Client connections.
    pub connections: u32,
    /// Calls at once on one of them.
    pub streams: u32,
    /// Requests in flight on one pipeline stream.
    pub pipelined: u32,
    /// Default patience.
    pub timeout_ms: u64,
    /// Longest patience.
    pub timeout_ms_max: u64,
    /// When a read asks one more replica.
    pub hedge_ms: u64,
    /// How often catalogs are compared.
    pub gossip_period_ms: u64,
    /// Messages waiting for one peer.
    pub peer_queue_mb: u64,
    /// Largest plugin.
    pub module_mb: u64,
    /// Plugin calls at once.
    pub plugin_threads: u32,
    /// Input of plugin calls that wait.
    pub plugin_queue_mb: u64,
    /// How long a stop waits.
    pub drain_ms: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            in_flight: 20_000,
            in_flight_mb: 256,
            view_cache_mb: 16,
            connections: 1_024,
            streams: 1_024,
            pipelined: 512,
            timeout_ms: 2_000,
            timeout_ms_max: 60_000,
            hedge_ms: 20,
            gossip_period_ms: 250,
            peer_queue_mb: 32,
            module_mb: 8,
            plugin_threads: 2,
            plugin_queue_mb: 64,
            drain_ms: 5_000,
        }
    }
}

/// What a node does by itself to be equal with the others.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Repair {
    /// Between two comparisons with others.
    pub period_ms: u64,
    /// What repair, and as much again what hints, may send.
    pub mb_per_s: u64,
    /// Kept for one node that is away.
    pub hint_mb: u64,
    /// For so long.
    pub hint_h: u64,
    /// Between two walks over all values.
    pub scrub_period_h: u64,
    /// What a walk may read.
    pub scrub_mb_per_s: u64,
    /// Between two looks for what deletes left behind.
    pub collect_period_ms: u64,
    /// How long what was collected is remembered.
    pub grave_s: u64,
    /// A member that was away for so long must come back empty.
    pub forget_h: u64,
}

impl Default for Repair {
    fn default() -> Repair {
        Repair {
            period_ms: 10_000,
            mb_per_s: 32,
            hint_mb: 256,
            hint_h: 3,
            scrub_period_h: 168,
            scrub_mb_per_s: 4,
            collect_period_ms: 200,
            grave_s: 300,
            forget_h: 168,
        }
    }
}

/// What a node tells.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Log {
    /// A level or a filter.
    pub level: String,
    /// For people or programs.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Log {
        Log { level: "info".into(), format: LogFormat::Text }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

#[cfg(test)]
mod config_test;
