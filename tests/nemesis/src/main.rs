//! `nemesis`: a real cluster, loaded, broken, healed and judged, in one command.
//!
//! ```text
//!   options ─▶ cluster (processes, disks, network) ◀── faults (atlas, inflict, refill)
//!                 ▲                                       │
//!                 └── load (clients, canaries) ─▶ history ─▶ settle ─▶ check ─▶ report
//! ```
//!
//! In: the `merganser` binary, and what this machine lets us do. Out: a report to look at, and an
//! exit code. It knows the cluster as any program does, through the client library; nothing of
//! core or server is in it. How to run and read it: docs/testing.md.

mod check;
mod cluster;
mod faults;
mod history;
mod load;
mod measure;
mod options;
mod report;
mod run;
mod settle;

use clap::Parser as _;
use options::Options;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = Options::parse().expanded();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let seed = options.seed.unwrap_or_else(|| StdRng::from_os_rng().random());
    let report = match runtime.block_on(run::run(&options, seed)) {
        Ok(report) => report,
        Err(error) => return failed(&error),
    };
    if let Err(error) = report.write(&options) {
        return failed(&error);
    }
    match report.verdict.violations.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(1),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("nemesis: {error:#}");
    ExitCode::from(3)
}
