//! Acknowledged writes outlive kill -9, of one node after the other and of all at once, a frozen
//! node, and a stop as an operator would do it.

use crate::{eventually, executable};
use anyhow::{Context as _, ensure};
use merganser_client::{Client, Keyspace};
use merganser_examples::{ensure_keyspace, local::LocalCluster};
use std::collections::BTreeMap;
use std::time::Duration;

const KEYS: usize = 60;

type Acknowledged = BTreeMap<String, String>;

#[tokio::test]
async fn what_was_acknowledged_outlives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = LocalCluster::start_in(executable(), directory.path(), 3).await.unwrap();
    let names: Vec<String> = cluster.nodes().iter().map(|node| node.name.clone()).collect();
    let client = Client::connect(cluster.addresses()).await.unwrap();
    ensure_keyspace(&client.admin(), "kept", "siblings").await.unwrap();
    let kept = client.keyspace("kept");
    let mut acknowledged = Acknowledged::new();

    for name in &names {
        // One falls while writes are under way; two of three are enough to go on.
        let (written, killed) = tokio::join!(write(&kept, name), kill_while_written(&mut cluster, name));
        killed.unwrap();
        acknowledged.extend(written);
        acknowledged.extend(write(&kept, &format!("{name}-down")).await);
        cluster.say(&format!("restart {name}")).await.unwrap();
    }
    assert!(acknowledged.len() >= KEYS * 5, "only {} writes were acknowledged", acknowledged.len());
    check(&kept, &acknowledged).await;

    for name in &names {
        cluster.say(&format!("kill {name}")).await.unwrap();
    }
    for name in &names {
        cluster.say(&format!("restart {name}")).await.unwrap();
    }
    check(&kept, &acknowledged).await;

    // Frozen, a node holds its connections and says nothing.
    cluster.say("pause b").await.unwrap();
    acknowledged.extend(write(&kept, "b-frozen").await);
    check(&kept, &acknowledged).await;
    cluster.say("resume b").await.unwrap();

    cluster.stop().await.unwrap();
    let cluster = LocalCluster::start_in(executable(), directory.path(), 3).await.unwrap();
    let client = Client::connect(cluster.addresses()).await.unwrap();
    check(&client.keyspace("kept"), &acknowledged).await;
    cluster.stop().await.unwrap();
}

/// Calls that were given up while a node stood still are many at once when the node goes on. They cost the calls of
/// others on the same connection nothing.
#[tokio::test]
async fn calls_given_up_on_a_frozen_node_do_not_close_the_connection_that_others_share() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = LocalCluster::start_in(executable(), directory.path(), 3).await.unwrap();
    let client = Client::connect(cluster.addresses()).await.unwrap();
    ensure_keyspace(&client.admin(), "shared", "siblings").await.unwrap();
    let address = cluster.nodes()[0].client.clone();
    // One connection, and no second attempt that would hide what became of the first.
    let once = Client::builder().timeout(Duration::from_secs(30)).attempts_max(1).follow_topology(false);
    let shared = once.connect([address]).await.unwrap().keyspace("shared");
    eventually("the node knows the keyspace", async || Ok(shared.get("k").await?)).await;

    cluster.say("pause a").await.unwrap();
    let puts = (0..20).map(|number| {
        let shared = shared.clone();
        tokio::spawn(async move { shared.put_blind(format!("put/{number}"), "kept").await })
    });
    let puts: Vec<_> = puts.collect();
    let given_up = (0..200).map(|number| {
        let shared = shared.clone();
        async move { tokio::time::timeout(Duration::from_millis(100), shared.get(format!("{number}"))).await }
    });
    let given_up = futures::future::join_all(given_up).await;
    assert!(given_up.iter().all(Result::is_err), "a frozen node answered");
    cluster.say("resume a").await.unwrap();
    for put in puts {
        put.await.unwrap().unwrap();
    }
    cluster.stop().await.unwrap();
}

/// Writes one key after the other; those that were acknowledged.
async fn write(kept: &Keyspace, prefix: &str) -> Acknowledged {
    let mut acknowledged = Acknowledged::new();
    for number in 0..KEYS {
        let (key, value) = (format!("{prefix}/{number}"), format!("{number} by {prefix}"));
        if kept.put_blind(&key, value.clone()).await.is_ok() {
            acknowledged.insert(key, value);
        }
    }
    acknowledged
}

/// Kills the node once the writer has got somewhere.
async fn kill_while_written(cluster: &mut LocalCluster, name: &str) -> anyhow::Result<()> {
    let client = Client::connect(cluster.addresses()).await?;
    let half = format!("{name}/{}", KEYS / 3);
    eventually("the writer is under way", async || {
        let entry = client.keyspace("kept").get(&half).await?;
        entry.value()?.context("not yet").map(|_| ())
    })
    .await;
    cluster.say(&format!("kill {name}")).await.map(|_| ())
}

async fn check(kept: &Keyspace, acknowledged: &Acknowledged) {
    for (key, value) in acknowledged {
        eventually(key, async || {
            let entry = kept.get(key).await?;
            ensure!(entry.value()?.is_some_and(|found| found == value), "{entry:?}");
            Ok(())
        })
        .await;
    }
}
