//! Real concurrent edits: two people typing into one text, each through a node of their own, while
//! the cluster is cut for parts of it. Afterwards every node must answer with exactly the text
//! that the trace says it ends with.
//!
//! Method: the trace names for each keystroke what its author had seen. Both people are kept as
//! Automerge documents that see exactly that; what they change is put in batches of raw changes,
//! deltas that may wait for others, as an editor would save it. `cargo test` plays a part of the
//! trace; all of it with
//!
//! ```text
//!   MERGANSER_TRACE=whole cargo test -p merganser --test cluster trace -- --nocapture
//! ```
//!
//! The expected text of a part is what Automerge alone makes of it, of the whole it is the trace's
//! own `endContent`.

use crate::{direct, eventually, executable};
use automerge::{
    ActorId, AutoCommit, Change, ChangeHash, ObjType, ROOT, ReadDoc as _, transaction::Transactable as _,
};
use flate2::read::GzDecoder;
use merganser_client::{Client, Keyspace, Quorum, proto::KeyspaceSettings};
use merganser_examples::local::LocalCluster;
use serde::Deserialize;
use std::{
    collections::HashMap,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, Instant},
};

const TRACE: &[u8] = include_bytes!("../data/friendsforever.json.gz");
/// Changes in one put: some 140 keystrokes.
const BATCH: usize = 20;
/// Keystrokes that `cargo test` plays.
const PART: usize = 3_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    end_content: String,
    txns: Vec<Txn>,
}

#[derive(Deserialize)]
struct Txn {
    parents: Vec<usize>,
    agent: usize,
    patches: Vec<(usize, isize, String)>,
}

/// One of the two: the document as this person sees it.
struct Person {
    document: AutoCommit,
    /// Of the other's changes, how many this one has seen.
    seen: usize,
}

/// Every change of each person, in order, with the index of its last transaction.
type Changes = [Vec<(usize, Change)>; 2];

fn trace() -> Trace {
    let trace: Trace = serde_json::from_reader(GzDecoder::new(TRACE)).unwrap();
    assert_eq!(trace.txns.len(), 26_078, "the trace is whole");
    trace
}

/// Which transactions end a change: keystrokes that one person makes in a row, with nothing new
/// seen and nobody looking in between, are one change, as an editor would commit them.
fn ends(txns: &[Txn]) -> Vec<bool> {
    let mut ends = vec![false; txns.len()];
    let mut latest = [None, None];
    for (index, txn) in txns.iter().enumerate() {
        for &parent in txn.parents.iter().filter(|&&parent| txns[parent].agent != txn.agent) {
            ends[parent] = true;
        }
        if let Some(own) = latest[txn.agent].replace(index)
            && txn.parents != [own]
        {
            ends[own] = true;
        }
    }
    latest.into_iter().flatten().for_each(|last| ends[last] = true);
    ends
}

/// Types the transactions into two documents that see what their authors saw. The changes, and
/// the text in the end.
fn typed(txns: &[Txn]) -> (Changes, String) {
    let mut template = AutoCommit::new().with_actor(ActorId::from(*b"template"));
    let text = template.put_object(ROOT, "text", ObjType::Text).unwrap();
    template.commit();
    let first = template.get_last_local_change().unwrap();

    let mut person =
        |name: u8| Person { document: template.fork().with_actor(ActorId::from([name])), seen: 0 };
    let mut people = [person(b'a'), person(b'b')];
    // Both begin with the empty document; Ada is the one who saves it.
    let mut changes: Changes = [vec![(0, first)], Vec::new()];
    let ends = ends(txns);
    let mut hashes: HashMap<usize, ChangeHash> = HashMap::new();
    let mut begins = [true, true];
    for (index, txn) in txns.iter().enumerate() {
        let (me, other) = (txn.agent, 1 - txn.agent);
        if begins[me] {
            if let Some(&latest) = txn.parents.iter().filter(|&&parent| txns[parent].agent == other).max() {
                let upto = changes[other].partition_point(|(at, _)| *at <= latest);
                let news = changes[other][people[me].seen..upto].iter().map(|(_, change)| change.clone());
                people[me].document.apply_changes(news).unwrap();
                people[me].seen = upto;
            }
            let mut seen = people[me].document.get_heads();
            let mut parents: Vec<ChangeHash> = txn.parents.iter().map(|parent| hashes[parent]).collect();
            seen.sort_unstable();
            parents.sort_unstable();
            assert!(index == 0 || seen == parents, "keystroke {index} starts from what its author saw");
        }
        let document = &mut people[me].document;
        for (position, deleted, inserted) in &txn.patches {
            document.splice_text(&text, *position, *deleted, inserted).unwrap();
        }
        begins[me] = ends[index];
        if ends[index] {
            hashes.insert(index, document.commit().expect("keystrokes are a change"));
            changes[me].push((index, document.get_last_local_change().expect("it was just made")));
        }
    }
    let [mut ada, mut ben] = people.map(|person| person.document);
    ada.merge(&mut ben).unwrap();
    let text = ada.text(&text).unwrap();
    (changes, text)
}

/// What a person saves: raw changes, `BATCH` at a time.
fn batches(changes: &[(usize, Change)]) -> Vec<Vec<u8>> {
    let raw = |batch: &[(usize, Change)]| {
        batch.iter().flat_map(|(_, change)| change.raw_bytes().to_vec()).collect()
    };
    changes.chunks(BATCH).map(raw).collect()
}

#[tokio::test]
async fn two_people_type_through_two_nodes_and_every_node_ends_with_their_text() {
    let trace = trace();
    let whole = std::env::var("MERGANSER_TRACE").is_ok_and(|wish| wish == "whole");
    let keystrokes = if whole { trace.txns.len() } else { PART };
    let (changes, text) = typed(&trace.txns[..keystrokes]);
    assert!(!whole || text == trace.end_content, "Automerge alone ends as the trace says");
    let [ada, ben] = changes.map(|changes| batches(&changes));
    let put_bytes: usize = ada.iter().chain(&ben).map(Vec::len).sum();

    let mut cluster = LocalCluster::start(executable()).await.unwrap();
    let addresses = cluster.addresses();
    let [a, b] = [direct(&addresses[0]).await, direct(&addresses[1]).await];
    // One replica is enough, so that both sides of a cut go on.
    let settings = KeyspaceSettings { policy: "lattice:automerge".into(), r: 1, w: 1, ..Default::default() };
    a.admin().create_keyspace("docs", settings).await.unwrap();
    let through = [a.keyspace("docs"), b.keyspace("docs")];

    let began = Instant::now();
    let rounds = ada.len().max(ben.len());
    for round in 0..rounds {
        if let Some((_, word)) = [
            (rounds / 5, "cut a | b c"),
            (rounds * 2 / 5, "heal"),
            (rounds * 3 / 5, "cut silently b | a c"),
            (rounds * 4 / 5, "heal"),
        ]
        .iter()
        .find(|(at, _)| *at == round)
        {
            cluster.say(word).await.unwrap();
        }
        tokio::join!(save(&through[0], ada.get(round)), save(&through[1], ben.get(round)));
    }
    cluster.say("heal").await.unwrap();
    let typed_in = began.elapsed();

    // A read of all replicas brings the sides together, and repairs those that lag.
    let everywhere = through[0].with_read(Quorum::All);
    eventually("all replicas answer with the text", async || read(&everywhere, &text).await).await;
    for address in &addresses {
        let own = direct(address).await.keyspace("docs").with_read(Quorum::One);
        eventually(&format!("{address} answers with the text"), async || read(&own, &text).await).await;
    }
    report(&cluster, &a, Told { keystrokes, puts: ada.len() + ben.len(), put_bytes, typed_in, began }).await;
    cluster.stop().await.unwrap();
}

async fn save(docs: &Keyspace, batch: Option<&Vec<u8>>) {
    if let Some(changes) = batch {
        docs.join("episode", changes.clone()).await.unwrap();
    }
}

async fn read(docs: &Keyspace, expected: &str) -> anyhow::Result<()> {
    let answer = docs.query("episode", "text").await?;
    anyhow::ensure!(answer.result == expected, "{} bytes instead of {}", answer.result.len(), expected.len());
    Ok(())
}

struct Told {
    keystrokes: usize,
    puts: usize,
    put_bytes: usize,
    typed_in: Duration,
    began: Instant,
}

/// Figures, for those who run it with `--nocapture`.
async fn report(cluster: &LocalCluster, client: &Client, told: Told) {
    let Told { keystrokes, puts, put_bytes, typed_in, began } = told;
    let entry = client.keyspace("docs").get("episode").await.unwrap();
    let state = entry.value().unwrap().map_or(0, |value| value.len());
    let mut calls = 0.0;
    let mut stored = 0;
    for node in cluster.nodes() {
        let status = client.admin().status_of(&node.client).await.unwrap();
        calls += status
            .metrics
            .iter()
            .filter(|metric| metric.name == "plugin_calls")
            .map(|m| m.value)
            .sum::<f64>();
        stored += size(&node.home.join("data"));
    }
    println!(
        "{keystrokes} keystrokes in {puts} puts of {put_bytes} bytes: typed in {:.1} s, equal everywhere after {:.1} s; \
         the state has {state} bytes, the three nodes keep {stored} bytes on disk and made {calls} plugin calls",
        typed_in.as_secs_f64(),
        began.elapsed().as_secs_f64(),
    );
}

fn size(path: &Path) -> u64 {
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| size(&entry.path())).sum(),
        // Of what is allocated: logs are laid out ahead.
        Err(_) => std::fs::metadata(path).map_or(0, |file| file.blocks() * 512),
    }
}
