//! The words of the command line.
//!
//! In: nothing but clap's attributes. Out: [`Cli`]. The arguments of a command stand beside the
//! command. Absent: what they do.

use clap::{Args, Parser, Subcommand};
use merganser_client::{Quorum, Strictness};
use std::time::Duration;

/// A key-value store that lets you say how conflicts end.
#[derive(Debug, Parser)]
#[command(name = "merganser", version, propagate_version = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done · 1 failed · 2 wrong arguments · 3 not found · 4 siblings that nothing settled
· 5 a write of unknown fate (repeat it, or read the key)";

/// For every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// A node of the cluster; several may be given.
    #[arg(
        long = "node",
        value_name = "ADDRESS",
        env = "MERGANSER_NODE",
        value_delimiter = ',',
        default_value = "127.0.0.1:7401",
        global = true
    )]
    pub(crate) addresses: Vec<String>,
    /// One JSON document on stdout, for programs.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Time for a request with all its retries, such as 500ms, 10s, 2m [default: 10s; admin: 30s].
    #[arg(long, value_name = "TIME", value_parser = duration, global = true)]
    pub(crate) timeout: Option<Duration>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node.
    Serve(crate::serve::ServeArgs),
    /// Run a whole cluster on this machine, to try things.
    Dev(crate::dev::DevArgs),
    /// Print the value of a key, or its siblings.
    Get(crate::kv::GetArgs),
    /// Store a value.
    Put(crate::kv::PutArgs),
    /// Delete a key.
    Del(crate::kv::DelArgs),
    /// Apply an operation of a replicated type.
    Apply(crate::kv::ApplyArgs),
    /// Ask a replicated type about its state.
    Query(crate::kv::QueryArgs),
    /// Replication and conflict policy.
    Keyspace(crate::keyspace::KeyspaceArgs),
    /// Write, build, check and upload conflict policies.
    Plugin(crate::plugin::PluginArgs),
    /// The nodes and the ring.
    Cluster(crate::cluster::ClusterArgs),
    /// Look into a node's files, offline.
    Inspect(crate::inspect::InspectArgs),
    /// Store every file of a directory under its path.
    Import(crate::tree::ImportArgs),
    /// Write what was imported back to a directory, checked byte for byte.
    Export(crate::tree::ExportArgs),
}

/// How many replicas must answer a read.
#[derive(Clone, Debug, Args)]
pub(crate) struct Read {
    /// How many replicas must answer: ONE, QUORUM, ALL or a number [default: the keyspace's].
    #[arg(long = "read", value_name = "R")]
    pub(crate) quorum: Option<Quorum>,
    #[command(flatten)]
    pub(crate) stand_ins: StandIns,
}

/// How many replicas must acknowledge a write.
#[derive(Clone, Debug, Args)]
pub(crate) struct Write {
    /// How many replicas must acknowledge: ONE, QUORUM, ALL or a number [default: the keyspace's].
    #[arg(long = "write", value_name = "W")]
    pub(crate) quorum: Option<Quorum>,
    #[command(flatten)]
    pub(crate) stand_ins: StandIns,
}

/// Whether others may answer for primaries that are away [default: as the keyspace says].
#[derive(Clone, Copy, Debug, Default, Args)]
#[group(multiple = false)]
pub(crate) struct StandIns {
    /// Primaries only.
    #[arg(long)]
    strict: bool,
    /// The next nodes of the ring may stand in for primaries that are away.
    #[arg(long)]
    sloppy: bool,
}

impl StandIns {
    pub(crate) fn strictness(self) -> Strictness {
        match self {
            StandIns { strict: true, .. } => Strictness::Strict,
            StandIns { sloppy: true, .. } => Strictness::Sloppy,
            StandIns { .. } => Strictness::Keyspace,
        }
    }
}

/// `500ms`, `10s`, `2m`, `12h`, `30d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("say it as 500ms, 10s, 2m, 12h or 30d".into()),
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms)) {
        None | Some(0) => Err("it must be more than 0 and not absurdly much".into()),
        // A year: far from where adding to the clock could overflow.
        Some(ms) if ms > 31_536_000_000 => Err("at most a year".into()),
        Some(ms) => Ok(Duration::from_millis(ms)),
    }
}

/// As [`duration`], where the wire has 32 bits for the milliseconds.
pub(crate) fn short_duration(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    match u32::try_from(time.as_millis()) {
        Ok(_) => Ok(time),
        Err(_) => Err("at most 49 days".into()),
    }
}

#[cfg(test)]
#[path = "args_test.rs"]
mod args_test;
