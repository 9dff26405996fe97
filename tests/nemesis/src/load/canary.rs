//! How stale a node is: a key written each second, and each node asked alone until it shows it.
//!
//! In: a client that writes, and one for each node. Out: for each acknowledged canary and node, how
//! long after the acknowledgement a read at level ONE there still missed it. A node that does not
//! answer misses nothing.

use super::{Look, Shared, keyspaces::CANARY, look, outcome};
use crate::{
    cluster::{Cluster, direct, network},
    history::{Act, Holds, Micros, Saw, Write, value},
    measure::{Op, Stale},
};
use merganser_client::{Client, Quorum};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{task::JoinSet, time::sleep};

/// So many answers of others mean that a node is no replica.
const ELSEWHERE_MAX: u32 = 5;

/// Writes canaries until told to stop, and watches for each until it is seen everywhere.
pub(crate) async fn run(shared: Arc<Shared>, client: Client, cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let mut nodes = Vec::new();
    for address in cluster.addresses() {
        nodes.push(direct(&address).await?);
    }
    let mut watchers = JoinSet::new();
    let mut next = shared.clock.now();
    for number in 0u64.. {
        while shared.clock.now() < next {
            if shared.stop.load(Ordering::Relaxed) {
                while watchers.join_next().await.is_some() {}
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
        next = shared.clock.now() + 1_000_000;
        while watchers.try_join_next().is_some() {}
        let key = number.to_string();
        let Some((id, acked)) = write(&shared, &client, &key).await else { continue };
        for (node, client) in nodes.iter().enumerate() {
            watchers.spawn(watch(Arc::clone(&shared), client.clone(), node, key.clone(), id, acked));
        }
    }
    Ok(())
}

/// Returns its id and when it was acknowledged.
async fn write(shared: &Shared, client: &Client, key: &str) -> Option<(u64, Micros)> {
    let id = shared.ids.fetch_add(1, Ordering::Relaxed);
    let begin = shared.clock.now();
    let written = client.keyspace(CANARY.name).put_blind(key, value(id, CANARY.name, key, 60)).await;
    let end = shared.clock.now();
    shared.measures.done(Op::Put, begin, end, written.as_ref().err());
    let outcome = outcome(&written);
    let sloppy = written.as_ref().is_ok_and(|written| written.acks.sloppy);
    let write = Write { id, act: Act::Put, seen: Vec::new(), begin, end, outcome, sloppy, ttl: None };
    shared.history.write(CANARY.name, key, write);
    outcome.acked().then_some((id, end))
}

async fn watch(shared: Arc<Shared>, client: Client, node: usize, key: String, id: u64, acked: Micros) {
    let name = network::name(node);
    let slot = shared.measures.canary(Stale { node, acked_us: acked, missed_us: None, seen: false });
    let mut pause = Duration::from_millis(3);
    let mut elsewhere = 0;
    loop {
        match look(&client, &CANARY, &key, Quorum::One).await {
            // Another replica answered: this one is late, or holds none of the key.
            Ok(Look { replicas, .. }) if replicas != [name.as_str()] => {
                elsewhere += 1;
                if elsewhere == ELSEWHERE_MAX {
                    return shared.measures.forget_canary(slot);
                }
            }
            Ok(Look { saw: Saw::Versions(shown), .. })
                if shown.iter().any(|version| version.holds == Holds::Value(id)) =>
            {
                return shared.measures.canary_seen(slot);
            }
            Ok(_) => shared.measures.canary_missed(slot, shared.clock.now() - acked),
            Err(_) => {}
        }
        sleep(pause).await;
        pause = (pause * 3 / 2).min(Duration::from_millis(500));
    }
}
