//! Two writers who do not see each other, and a reader who settles it by hand.
//!
//! In: addresses of a cluster. Out: what the reader made of it. Absent: a plugin that would do it
//! for every reader; that is `shopping_cart`.

use crate::ensure_keyspace;
use anyhow::ensure;
use merganser_client::{Client, Sibling};
use std::collections::BTreeSet;

/// Runs the example; what the key holds in the end.
pub async fn run(addresses: &[String]) -> anyhow::Result<String> {
    let client = Client::connect(addresses).await?;
    ensure_keyspace(&client.admin(), "guests", "siblings").await?;
    let parties = client.keyspace("guests");

    let mut party = parties.get("friday").await?;
    party.put("ada").await?;

    // Both look at the same list, and both add a name to what they saw.
    let mut door = parties.get("friday").await?;
    let mut phone = parties.get("friday").await?;
    door.put("ada, ben").await?;
    let late = phone.put("ada, cleo").await?;
    println!("the second write is one of {} versions: it lost a race, and knows it at once", late.siblings);

    // Neither overwrote the other, because neither had seen the other.
    let mut both = parties.get("friday").await?;
    ensure!(both.value().is_err(), "there is no single value to show");
    for version in both.siblings() {
        println!("  version: {}", text(version));
    }

    // A put with the context of that read replaces exactly the versions that it showed.
    let names: BTreeSet<String> = both
        .siblings()
        .iter()
        .flat_map(|version| text(version).split(", ").map(String::from).collect::<Vec<_>>())
        .collect();
    let settled = names.into_iter().collect::<Vec<_>>().join(", ");
    both.put(settled).await?;

    let after = parties.get("friday").await?;
    let settled = after.value()?.map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default();
    println!("settled: {settled}");
    Ok(settled)
}

fn text(version: &Sibling) -> String {
    version.value().map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
}
