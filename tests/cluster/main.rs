//! Promises of the program, kept by real processes: `merganser dev` with three nodes, killed,
//! frozen, cut apart and lied to. Few and slow; what a decision does is tested beside it, and what
//! a cluster does under all kinds of faults in the simulation.
//!
//! Nothing here waits for a time to pass: [`eventually`] asks again until a condition holds, and
//! fails when it does not within a bound that a loaded machine keeps.

mod crash;
mod cut;
mod hostile;
mod programs;
mod trace;
mod tree;
mod unread;

use merganser_client::Client;
use std::{path::Path, process::Output, time::Duration};
use tokio::process::Command;

/// The program under test, built by cargo for this test.
fn executable() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_merganser"))
}

/// A client that asks this node and no other, for long enough that a node compiles a plugin meanwhile.
async fn direct(address: &str) -> Client {
    let patient = Client::builder().timeout(Duration::from_secs(60)).attempts_max(u32::MAX);
    patient.follow_topology(false).connect([address]).await.unwrap()
}

/// Runs a command of the program against these nodes.
async fn merganser(nodes: &[String], arguments: &[&str]) -> Output {
    let command = Command::new(executable()).arg("--node").arg(nodes.join(",")).args(arguments).output();
    command.await.unwrap()
}

/// What a successful command wrote to standard output.
fn text(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {error}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Asks until it holds.
async fn eventually<T>(what: &str, attempt: impl AsyncFn() -> anyhow::Result<T>) -> T {
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(90);
    loop {
        ticks.tick().await;
        match attempt().await {
            Ok(held) => return held,
            Err(error) if tokio::time::Instant::now() > deadline => panic!("{what}: {error:#}"),
            Err(_) => {}
        }
    }
}
