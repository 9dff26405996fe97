//! The words of the command line.
//!
//! In: nothing but clap's attributes. Out: [`Options`]. Absent: what they do.

use crate::faults::Kind;
use clap::{Parser, ValueEnum};
use std::{path::PathBuf, time::Duration};

/// Runs a real cluster, loads it, breaks it, heals it, and judges what the clients were told.
#[derive(Clone, Debug, Parser)]
#[command(name = "nemesis", version, after_help = EXIT_CODES)]
pub(crate) struct Options {
    /// How long faults are inflicted, such as 90s, 60m or 8h.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5m")]
    pub(crate) duration: Duration,
    /// Nodes of the cluster, 3 to 9. Keys have 3 replicas.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=9))]
    pub(crate) nodes: u8,
    /// Fixes the order of the faults, their victims and their lengths [default: drawn].
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Requests a second that the clients try to make.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,
    /// Only these faults [default: all that this machine has the right to].
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) faults: Vec<Kind>,
    /// Where the report goes; the same as JSON beside it.
    #[arg(long, value_name = "FILE", default_value = "nemesis.html")]
    pub(crate) report: PathBuf,
    /// The report as one JSON document on stdout.
    #[arg(long)]
    pub(crate) json: bool,
    /// What the clients do.
    #[arg(long, value_enum, default_value = "mixed")]
    pub(crate) load: Load,
    /// The `merganser` to run [default: beside this program, else on PATH].
    #[arg(long, value_name = "FILE")]
    pub(crate) merganser: Option<PathBuf>,
    /// Where the nodes' data is: an ext4 image for each node, a tmpfs, or plain directories (then
    /// no disk gets full) [default: the first that this machine has the right to].
    #[arg(long, value_enum)]
    pub(crate) disks: Option<Disks>,
    /// Size of each node's disk.
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(64..=1 << 20))]
    pub(crate) disk_mib: u64,
    /// All nodes on 127.0.0.1, with no network namespaces (then nothing is cut).
    #[arg(long)]
    pub(crate) no_network: bool,
    /// How long everything may take to become equal after the last fault.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5m")]
    pub(crate) settle: Duration,
    /// How long a lost or rolled-back disk may take to be refilled, once its node is reached.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5m")]
    pub(crate) refill: Duration,
    /// Directory for the nodes' files while it runs [default: the system's].
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Keep the nodes' logs also where nothing is violated.
    #[arg(long)]
    pub(crate) keep_logs: bool,
    /// Settings of the nodes, such as log.level=debug.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) settings: Vec<String>,
    /// Short: 20 s of a kill, a pause and a cut. Under a minute altogether.
    #[arg(long, conflicts_with_all = ["duration", "faults"])]
    pub(crate) smoke: bool,
}

const EXIT_CODES: &str = "\
Exit codes: 0 everything holds · 1 something is violated · 2 wrong arguments · 3 could not run";

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Load {
    /// All keyspaces, many keys.
    Mixed,
    /// A few counters and sets throughout, so that one node coordinates hundreds of operations of a key while it is
    /// cut off.
    Exact,
}

/// What a node's data is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Disks {
    /// An image file with ext4, mounted: syncs are real.
    Ext4,
    /// Memory.
    Tmpfs,
    /// A directory.
    Plain,
}

impl Disks {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Disks::Ext4 => "an ext4 image for each node",
            Disks::Tmpfs => "a tmpfs for each node",
            Disks::Plain => "plain directories",
        }
    }
}

impl Options {
    /// With what `--smoke` stands for.
    pub(crate) fn expanded(mut self) -> Options {
        if self.smoke {
            self.duration = Duration::from_secs(20);
            self.faults = vec![Kind::Kill, Kind::Pause, Kind::Cut];
            self.rate = self.rate.min(150);
            self.settle = self.settle.min(Duration::from_secs(20));
        }
        self
    }
}

/// `90s`, `60m`, `8h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("say it as 90s, 60m or 8h".into()),
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds)) {
        Some(seconds @ 1..=604_800) => Ok(Duration::from_secs(seconds)),
        _ => Err("between a second and a week".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_an_end() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("60m"), Ok(Duration::from_secs(3600)));
        for wrong in ["", "5", "0s", "1d", "s", "-1s", "999999h", "99999999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_smoke_is_short_and_has_no_disk_faults() {
        let options = Options::parse_from(["nemesis", "--smoke"]).expanded();
        assert_eq!(options.duration, Duration::from_secs(20));
        assert_eq!(options.faults, [Kind::Kill, Kind::Pause, Kind::Cut]);
        assert!(Options::try_parse_from(["nemesis", "--smoke", "--duration", "5m"]).is_err());
        assert!(Options::try_parse_from(["nemesis", "--nodes", "2"]).is_err());
    }
}
