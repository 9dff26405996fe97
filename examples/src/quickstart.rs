//! Put, get, change, delete.
//!
//! In: addresses of a cluster. Out: nothing is left behind but a keyspace. Absent: conflicts.

use crate::ensure_keyspace;
use anyhow::ensure;
use merganser_client::{Client, State};

/// Runs the example.
pub async fn run(addresses: &[String]) -> anyhow::Result<()> {
    let client = Client::connect(addresses).await?;
    ensure_keyspace(&client.admin(), "quickstart", "siblings").await?;
    let greetings = client.keyspace("quickstart");

    // An entry is what a read showed, together with its causal context.
    let mut greeting = greetings.get("hello").await?;
    let written = greeting.put("world").await?;
    println!("written as {:?}, acknowledged by {}", written.dot, written.acks.replicas.join(", "));

    // The entry keeps the context of its own write, so the next one needs no read in between.
    greeting.put("whole world").await?;
    let seen = greetings.get("hello").await?;
    println!("hello {}", String::from_utf8_lossy(seen.value()?.map_or(b"", |value| value)));
    ensure!(seen.value()?.is_some_and(|value| value == "whole world"), "the second put replaces the first");

    greeting.delete().await?;
    let gone = greetings.get("hello").await?;
    ensure!(gone.state() != State::Found, "a delete removes what its context covers");
    println!("and gone");
    Ok(())
}
