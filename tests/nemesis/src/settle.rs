//! The end: every key is read from each of its replicas alone, until all are equal.
//!
//! In: a healed cluster without clients. Out: what each key is, and when all replicas were equal
//! and no hints were left; or which are not. Reading one replica repairs nothing, so it is the
//! cluster that comes to rest by itself. Equal means: the same context, byte for byte, and the
//! same versions, with the same bytes.

use crate::{
    check::Violation,
    cluster::{Cluster, direct, network},
    history::{Clock, History, Saw},
    load::{self, Look, keyspaces::Space},
};
use futures::{StreamExt as _, stream};
use merganser_client::{Client, Quorum};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::sleep;

/// Keys looked at at a time.
const AT_ONCE: usize = 12;

/// How it ended.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// What each key is.
    pub(crate) end: BTreeMap<(&'static str, String), Saw>,
    /// How long it took, after the last fault was taken back; none if it never came.
    pub(crate) equal_after: Option<Duration>,
    pub(crate) hints_drained_after: Option<Duration>,
    pub(crate) violations: Vec<Violation>,
}

type Key = (&'static Space, String);

/// Waits until all replicas are equal.
pub(crate) async fn settle(
    cluster: &Cluster,
    client: &Client,
    history: &History,
    clock: Clock,
    patience: Duration,
    progress: &impl Fn(String),
) -> anyhow::Result<Settled> {
    let began = clock.now();
    let since = || Duration::from_micros(clock.now() - began);
    let mut nodes = BTreeMap::new();
    for (node, address) in cluster.addresses().iter().enumerate() {
        nodes.insert(network::name(node), direct(address).await?);
    }
    let keys = history.keys().into_iter();
    let mut due: Vec<Key> =
        keys.filter_map(|(name, key, _)| Some((load::keyspaces::find(name)?, key))).collect();
    let whole = due.len();
    let mut settled = Settled::default();
    let mut last: BTreeMap<(&'static str, String), String> = BTreeMap::new();
    loop {
        let mut looks = Vec::new();
        for (space, key) in due {
            let nodes = &nodes;
            looks.push(async move {
                let compared = compare(client, nodes, space, &key).await;
                ((space, key), compared)
            });
        }
        let looks: Vec<(Key, Result<Saw, String>)> =
            stream::iter(looks).buffer_unordered(AT_ONCE).collect().await;
        due = Vec::new();
        for ((space, key), compared) in looks {
            match compared {
                Ok(saw) => {
                    last.remove(&(space.name, key.clone()));
                    settled.end.insert((space.name, key), saw);
                }
                Err(difference) => {
                    last.insert((space.name, key.clone()), difference);
                    due.push((space, key));
                }
            }
        }
        if settled.hints_drained_after.is_none() && hints(&nodes).await == Some(0) {
            settled.hints_drained_after = Some(since());
        }
        if due.is_empty() {
            settled.equal_after.get_or_insert(since());
        }
        if settled.equal_after.is_some() && settled.hints_drained_after.is_some() {
            break;
        }
        if since() > patience {
            break;
        }
        progress(format!("{} of {whole} keys are not equal on all replicas", due.len()));
        sleep(Duration::from_millis(300)).await;
    }
    unsettled(&mut settled, whole, &last, patience, hints(&nodes).await);
    // What differs is judged by what all replicas together hold.
    for (space, key) in due {
        match load::look(client, space, &key, Quorum::All).await {
            Ok(look) => {
                settled.end.insert((space.name, key), look.saw);
            }
            Err(error) => settled.violations.push(Violation {
                property: "C14".into(),
                at: format!("{}/{key}", space.name),
                what: format!("it cannot be read from all replicas at the end: {}", error.what()),
            }),
        }
    }
    Ok(settled)
}

fn unsettled(
    settled: &mut Settled,
    whole: usize,
    different: &BTreeMap<(&'static str, String), String>,
    patience: Duration,
    hints: Option<u64>,
) {
    let after = patience.as_secs();
    if !different.is_empty() {
        let some = different.iter().take(8);
        let some: Vec<String> = some.map(|((space, key), what)| format!("{space}/{key}: {what}")).collect();
        let what = format!(
            "{} of {whole} keys are not equal on all replicas {after} s after the last fault: {}",
            different.len(),
            some.join("; ")
        );
        settled.violations.push(Violation { property: "C6".into(), at: "the end".into(), what });
    }
    match hints {
        Some(0) => {}
        Some(held) => settled.violations.push(Violation {
            property: "C7".into(),
            at: "the end".into(),
            what: format!("{held} hints are held {after} s after the last fault"),
        }),
        None => settled.violations.push(Violation {
            property: "C7".into(),
            at: "the end".into(),
            what: "not every node says how many hints it holds".into(),
        }),
    }
}

/// What the replicas of a key hold if they are equal, else how they differ.
async fn compare(
    client: &Client,
    nodes: &BTreeMap<String, Client>,
    space: &Space,
    key: &str,
) -> Result<Saw, String> {
    let topology = client.topology();
    let primaries = topology.primaries(space.name, key.as_bytes());
    let mut first: Option<(String, Look)> = None;
    for primary in primaries {
        let Some(node) = nodes.get(&primary.name) else { return Err("an unknown primary".into()) };
        let look = load::look(node, space, key, Quorum::One).await;
        let mut look = look.map_err(|error| format!("{} fails: {}", primary.name, error.what()))?;
        if look.replicas != [primary.name.as_str()] {
            return Err(format!("{} let {} answer", primary.name, look.replicas.join(", ")));
        }
        if let Saw::Versions(shown) = &mut look.saw {
            shown.iter_mut().for_each(|version| version.dots.sort());
            shown.sort_by(|a, b| a.dots.cmp(&b.dots));
        }
        match &first {
            None => first = Some((primary.name.clone(), look)),
            Some((_, other)) if other.saw == look.saw && other.context == look.context => {}
            Some((other, theirs)) => {
                let what = if theirs.saw == look.saw { "contexts" } else { "versions" };
                return Err(format!("{other} and {} have other {what}", primary.name));
            }
        }
    }
    first.map(|(_, look)| look.saw).ok_or_else(|| "it has no primaries".into())
}

/// Hints held anywhere; none where a node does not answer.
async fn hints(nodes: &BTreeMap<String, Client>) -> Option<u64> {
    let mut held = 0;
    for client in nodes.values() {
        let status = client.admin().status().await.ok()?;
        held += status.metrics.iter().find(|metric| metric.name == HINTS)?.value as u64;
    }
    Some(held)
}

/// The metric that tells how many hints a node holds.
pub(crate) const HINTS: &str = "hints";
