//! What one measurement is: the words of the command line, and of the results.
//!
//! In: arguments. Out: a [`Point`] in which everything holds together. Absent: how it is
//! measured, and what came out.

use anyhow::bail;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::fmt;

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Args)]
pub(crate) struct Point {
    /// What is loaded.
    #[arg(long, value_enum, default_value_t = Target::Cluster)]
    pub(crate) target: Target,
    /// Which requests.
    #[arg(long, value_enum, ignore_case = true, default_value_t = Mix::W)]
    pub(crate) mix: Mix,
    /// Size of a value, such as 100, 1KiB, 10KiB. Values are random bytes: nothing compresses.
    #[arg(long = "value", value_name = "SIZE", value_parser = size, default_value = "1KiB")]
    pub(crate) value_bytes: usize,
    /// How requests travel.
    #[arg(long, value_enum, default_value_t = Transport::Unary)]
    pub(crate) client: Transport,
    /// Closed loop: requests in flight, over all connections.
    #[arg(long, default_value_t = 64)]
    pub(crate) in_flight: u32,
    /// Open loop instead: requests per second, each timed from when it should have begun.
    #[arg(long, value_name = "PER_SECOND")]
    pub(crate) rate: Option<u32>,
    /// Connections to each node.
    #[arg(long, default_value_t = 1)]
    pub(crate) connections: u32,
    /// How keys are chosen.
    #[arg(long, value_enum, default_value_t = Keys::Zipf)]
    pub(crate) keys: Keys,
    /// Keys, all stored beforehand.
    #[arg(long, default_value_t = 5_000)]
    pub(crate) records: u32,
    /// R.
    #[arg(long, default_value_t = 2)]
    pub(crate) read: u32,
    /// W.
    #[arg(long, default_value_t = 2)]
    pub(crate) write: u32,
    /// Conflict policy of the keyspace.
    #[arg(long, value_enum, default_value_t = Policy::Siblings)]
    pub(crate) policy: Policy,
}

/// What is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Target {
    /// Three nodes, N=3.
    Cluster,
    /// A server that understands the same messages and stores nothing: what gRPC alone costs.
    Floor,
}

/// Which requests; the letters are YCSB's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
pub(crate) enum Mix {
    /// Puts.
    W,
    /// Half gets, half puts.
    A,
    /// Gets.
    C,
    /// The value there and back; only at the floor.
    Echo,
}

/// How requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    /// A call for each.
    Unary,
    /// One stream for each connection.
    Pipelined,
}

/// How keys are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Keys {
    /// All alike.
    Uniform,
    /// A few of them most of the time; exponent 0.99.
    Zipf,
}

/// Conflict policy of the keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Policy {
    /// Puts carry the context of the last put to the key; two are never under way at once, or
    /// siblings would pile up.
    Siblings,
    /// Puts are blind; the last writer wins.
    Lww,
}

impl Policy {
    /// Of the keyspace that has it.
    pub(crate) fn keyspace(self) -> &'static str {
        match self {
            Policy::Siblings => "bench-siblings",
            Policy::Lww => "bench-lww",
        }
    }

    /// As keyspaces call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Policy::Siblings => "siblings",
            Policy::Lww => "lww",
        }
    }
}

impl Default for Point {
    /// As on the command line: 1 KiB puts, 64 in flight, W=2.
    fn default() -> Point {
        Point {
            target: Target::Cluster,
            mix: Mix::W,
            value_bytes: 1 << 10,
            client: Transport::Unary,
            in_flight: 64,
            rate: None,
            connections: 1,
            keys: Keys::Zipf,
            records: 5_000,
            read: 2,
            write: 2,
            policy: Policy::Siblings,
        }
    }
}

impl Point {
    /// Whether it can be measured.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.value_bytes > merganser_client::VALUE_BYTES_MAX {
            bail!("--value is at most 1MiB");
        }
        if self.in_flight == 0 || self.connections == 0 || self.rate == Some(0) {
            bail!("--in-flight, --connections and --rate are at least 1");
        }
        if self.records < self.outstanding_max().saturating_mul(2) {
            bail!("--records must be at least twice the requests in flight, or puts wait for one another");
        }
        if self.mix == Mix::Echo && self.target == Target::Cluster {
            bail!("only --target floor echoes");
        }
        for (name, replicas) in [("--read", self.read), ("--write", self.write)] {
            if !(1..=3).contains(&replicas) {
                bail!("{name} is 1 to 3: there are three nodes");
            }
        }
        Ok(())
    }

    /// Requests that may be under way at once. In an open loop more of them mean that the servers
    /// do not keep up, and the point fails.
    pub(crate) fn outstanding_max(&self) -> u32 {
        match self.rate {
            Some(_) => self.records / 2,
            None => self.in_flight,
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.mix {
            Mix::W => "put",
            Mix::A => "get and put",
            Mix::C => "get",
            Mix::Echo => "echo",
        };
        write!(f, "{what} {}, ", size_text(self.value_bytes))?;
        match self.rate {
            Some(rate) => write!(f, "{rate}/s")?,
            None => write!(f, "{} in flight", self.in_flight)?,
        }
        if self.client == Transport::Pipelined {
            f.write_str(", pipelined")?;
        }
        if self.keys == Keys::Uniform {
            f.write_str(", uniform keys")?;
        }
        if self.target == Target::Cluster {
            if matches!(self.mix, Mix::A | Mix::C) {
                write!(f, ", R={}", self.read)?;
            }
            if matches!(self.mix, Mix::A | Mix::W) {
                write!(f, ", W={}", self.write)?;
            }
            if self.policy == Policy::Lww {
                f.write_str(", lww")?;
            }
        }
        if self.connections > 1 {
            write!(f, ", {} connections a node", self.connections)?;
        }
        Ok(())
    }
}

/// `100`, `1KiB`, `10KB`: people mean 1,024 by either.
fn size(text: &str) -> Result<usize, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_bytes = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        _ => return Err("say it as 100, 1KiB or 1MiB".into()),
    };
    let bytes = number.parse::<usize>().ok().and_then(|number| number.checked_mul(unit_bytes));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "say it as 100, 1KiB or 1MiB".into())
}

pub(crate) fn size_text(bytes: usize) -> String {
    if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) {
        format!("{} KiB", bytes >> 10)
    } else {
        format!("{bytes} B")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_as_people_say_them() {
        for (text, bytes) in [("100", 100), ("1KiB", 1024), ("10kb", 10_240), ("1M", 1 << 20)] {
            assert_eq!(size(text), Ok(bytes));
        }
        for text in ["", "KiB", "0", "1 GiB", "99999999999999999999", "18446744073709551615m"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_point_that_cannot_be_measured_is_refused() {
        assert!(Point::default().check().is_ok());
        let wrong = [
            Point { in_flight: 0, ..Point::default() },
            Point { in_flight: 3_000, ..Point::default() },
            Point { write: 4, ..Point::default() },
            Point { mix: Mix::Echo, ..Point::default() },
            Point { value_bytes: (1 << 20) + 1, ..Point::default() },
        ];
        for point in wrong {
            assert!(point.check().is_err(), "{point}");
        }
    }
}
