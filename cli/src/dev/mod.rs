//! `merganser dev`: a whole cluster on this machine, for trying and for rehearsing conflicts.
//!
//! ```text
//!   you ── cut a | b c ──▶ console ──▶ supervisor ──▶ node a   merganser serve --config …/a/node.toml
//!                             ▲             │         node b   merganser serve --config …/b/node.toml
//!     report (text or JSON) ──┘             │         node c   merganser serve --config …/c/node.toml
//!                                           └──▶ links: a proxy for each directed pair of nodes
//! ```
//!
//! In: a directory, a number of nodes, words on standard input. Out: child processes of this same
//! executable, their addresses, and what became of them. Nodes reach one another only through the
//! links that live in this process, so a cut is a real one and needs no rights on the machine.
//! Absent: anything that a node does differently here than in production, and any state but the
//! directory: stop it, start it again, and the data is there.

mod console;
mod demo;
mod directory;
mod links;
mod process;
mod report;
mod supervisor;

use crate::output::Output;
use anyhow::Context as _;
use directory::Directory;
use process::Signals;
use report::Report;
use std::path::PathBuf;
use supervisor::Supervisor;

/// Runs a cluster on this machine.
#[derive(Debug, clap::Args)]
pub(crate) struct DevArgs {
    /// How many nodes [default: 3, or what the directory holds].
    #[arg(long = "nodes", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    node_count: Option<u16>,
    /// Where the nodes keep their data.
    #[arg(long, default_value = "merganser-data")]
    dir: PathBuf,
    /// First of the ports; 0 = any that are free [default: 7401, or what the directory remembers].
    #[arg(long)]
    base_port: Option<u16>,
    /// Tell a story of conflicts on the running cluster.
    #[arg(long)]
    demo: bool,
    /// With --demo: stop when the story is told.
    #[arg(long, requires = "demo")]
    exit: bool,
}

/// Runs the cluster until it is told to stop.
pub(crate) fn run(args: DevArgs, out: Output) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(supervise(args, out));
    // A thread may be waiting in a read of standard input, which nothing can call back.
    runtime.shutdown_background();
    done
}

async fn supervise(args: DevArgs, out: Output) -> anyhow::Result<()> {
    let report = Report::new(out);
    let mut signals = Signals::listen()?;
    let executable = std::env::current_exe().context("failed to find this executable")?;
    let directory = Directory::open(&args.dir, args.node_count, args.base_port)?;
    let mut supervisor = Supervisor::new(directory, executable, report).await?;
    let outcome = tokio::select! {
        outcome = session(&mut supervisor, &args) => outcome,
        () = signals.next() => Ok(()),
    };
    supervisor.stop(&mut signals).await;
    outcome
}

/// From the first start to the moment when the nodes should stop.
async fn session(supervisor: &mut Supervisor, args: &DevArgs) -> anyhow::Result<()> {
    supervisor.start().await?;
    if args.demo {
        demo::tell(supervisor).await.context("the story broke off")?;
    }
    if !args.exit {
        supervisor.obey_console().await;
    }
    Ok(())
}
