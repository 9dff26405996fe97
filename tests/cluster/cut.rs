//! Cuts between real processes: the majority goes on, the minority says so, nothing is lost on
//! either side, and connections come back after a cut that nobody was told of.

use crate::{direct, eventually, executable};
use anyhow::ensure;
use merganser_client::{Error, Quorum};
use merganser_examples::{ensure_keyspace, local::LocalCluster};
use std::{collections::BTreeSet, time::Duration};

#[tokio::test]
async fn both_sides_of_a_closed_cut_are_kept() {
    check("cut a | b c").await;
}

#[tokio::test]
async fn both_sides_of_a_silent_cut_are_kept() {
    check("cut silently a | b c").await;
}

async fn check(cut: &str) {
    let mut cluster = LocalCluster::start(executable()).await.unwrap();
    let addresses = cluster.addresses();
    let [alone, majority] = [direct(&addresses[0]).await, direct(&addresses[1]).await];
    ensure_keyspace(&alone.admin(), "kept", "siblings").await.unwrap();
    let [alone, majority] = [alone.keyspace("kept"), majority.keyspace("kept")];
    let mut before = majority.with_write(Quorum::All).get("key").await.unwrap();
    before.put("before").await.unwrap();
    let context = before.context().clone();

    cluster.say(cut).await.unwrap();
    majority.put("key", "by two", &context).await.unwrap();
    let impatient = alone.with_timeout(Duration::from_secs(3));
    match impatient.put_blind("refused", "by one").await {
        Err(Error::NotEnoughReplicas { .. } | Error::Uncertain(_) | Error::Unavailable { .. }) => {}
        other => panic!("one of three is no quorum: {other:?}"),
    }
    alone.with_write(Quorum::One).put("key", "by one", &context).await.unwrap();

    cluster.say("heal").await.unwrap();
    for keys in [&alone, &majority] {
        eventually("both versions are there", async || {
            let seen = keys.with_read(Quorum::All).get_siblings("key").await?;
            let versions: BTreeSet<_> =
                seen.siblings().iter().filter_map(|version| version.value()).collect();
            ensure!(versions.into_iter().eq(["by one", "by two"]), "{seen:?}");
            Ok(())
        })
        .await;
    }
    // The read has repaired them: each replica alone knows both.
    for address in &addresses {
        let own = direct(address).await.keyspace("kept").with_read(Quorum::One);
        eventually("each replica knows both", async || {
            let seen = own.get_siblings("key").await?;
            ensure!(seen.siblings().len() == 2, "{seen:?}");
            Ok(())
        })
        .await;
    }
    cluster.stop().await.unwrap();
}
