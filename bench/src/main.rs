//! The load generator: what a cluster costs and how long it takes, beside what gRPC alone costs
//! and what the disk alone takes, in one run.
//!
//! ```text
//!   point ──▶ session ──▶ cluster (three nodes) or floor (a bare gRPC server), as processes
//!                 │
//!                 ├─▶ load ──▶ workload (which key?) ──▶ caller (unary, pipelined) ──▶ servers
//!                 │
//!                 └─▶ process (CPU, bytes written), the nodes' own counters ──▶ figures ──▶ report
//! ```
//!
//! In: a point on the command line, or the table of `report`. Out: figures, for people, as JSON,
//! or written into docs/performance.md. Compare **CPU of the servers per operation** first:
//! throughput mixes servers and generator, which share the machine. Absent: comparisons with
//! other stores, and load from other machines.

mod caller;
mod cluster;
mod disk;
mod figures;
mod floor;
mod load;
mod outage;
mod point;
mod process;
mod report;
mod session;
mod workload;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use point::Point;
use session::{Session, Settings};
use std::{path::PathBuf, time::Duration};

/// Measures a Merganser cluster of three nodes on this machine.
#[derive(Debug, Parser)]
#[command(name = "merganser-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure one point.
    Run {
        #[command(flatten)]
        point: Point,
        #[command(flatten)]
        how: How,
    },
    /// Measure the standard table and write it as Markdown.
    Report {
        /// Replace the measured part of this file; otherwise print it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Only rows whose name contains this.
        #[arg(long, value_name = "TEXT", default_value = "")]
        only: String,
        #[command(flatten)]
        how: How,
    },
    /// Kill one node of three, write what it misses, start it again, and watch it be made whole.
    Outage {
        #[command(flatten)]
        outage: outage::Outage,
        #[command(flatten)]
        how: How,
    },
    /// The server of the floor, as the bench starts it.
    #[command(hide = true)]
    Floor { value_bytes: usize },
}

#[derive(Clone, Debug, Args)]
struct How {
    /// Where the nodes keep their data while it lasts; on a disk, not in memory.
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Measured time of a point.
    #[arg(long, value_name = "N", default_value_t = 5)]
    seconds: u64,
    /// Time before it, under the same load.
    #[arg(long, value_name = "N", default_value_t = 1)]
    warm_up: u64,
    /// One JSON document on stdout, for programs.
    #[arg(long)]
    json: bool,
}

impl How {
    fn settings(&self) -> Result<Settings> {
        if !(1..=3_600).contains(&self.seconds) || self.warm_up > 3_600 {
            bail!("--seconds is 1 to 3600, --warm-up at most 3600");
        }
        let dir =
            self.dir.canonicalize().with_context(|| format!("failed to find {}", self.dir.display()))?;
        let (warm_up, measured) = (Duration::from_secs(self.warm_up), Duration::from_secs(self.seconds));
        Ok(Settings { dir, warm_up, measured })
    }
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    // One thread: the machine is the servers'.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = tokio::task::LocalSet::new();
    let outcome = tasks.block_on(&runtime, async {
        tokio::select! {
            outcome = run(cli.command) => outcome,
            // Returning drops the session, which ends the servers and removes their data.
            interrupted = tokio::signal::ctrl_c() => interrupted.context("no signals").and_then(|()| bail!("interrupted")),
        }
    });
    drop(tasks);
    runtime.shutdown_background();
    outcome
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Floor { value_bytes } => floor::serve(value_bytes).await,
        Command::Outage { outage, how } => {
            outage::run(&outage, &cluster::binary()?, &how.settings()?.dir, how.json).await
        }
        Command::Run { point, how } => {
            point.check()?;
            let mut session = Session::new(how.settings()?);
            let pids = session.pids(&point).await?;
            eprintln!("servers: {}", pids.iter().map(u32::to_string).collect::<Vec<_>>().join(","));
            let figures = session.measure(&point).await?;
            if how.json {
                println!("{}", serde_json::to_string_pretty(&figures)?);
            } else {
                print!("{}", report::one(&figures));
            }
            Ok(())
        }
        Command::Report { out, only, how } => {
            let report = report::measure(how.settings()?, &only).await?;
            if how.json {
                println!("{}", serde_json::to_string_pretty(&report)?);
            }
            match out {
                Some(out) => report::write(&out, &report.markdown()),
                None if how.json => Ok(()),
                None => {
                    print!("{}", report.markdown());
                    Ok(())
                }
            }
        }
    }
}
