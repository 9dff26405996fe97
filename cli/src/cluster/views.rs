//! `cluster hints | repair | collection | hot`: what the nodes do by themselves.
//!
//! In: each node's own words; one that does not answer is named. Out: tables, or JSON with a list
//! for each node. Absent: any change.

use super::age;
use crate::{
    args::Global,
    failure::Exit,
    output::{Output, bytes_json, table},
};
use anyhow::Result;
use futures::future::join_all;
use merganser_client::{
    Admin, Error,
    proto::{CollectionReply, HintsReply, HotKeysReply, RepairReply},
};
use serde_json::{Map, Value, json};

/// What each node said, by its name.
type Answers<R> = Vec<(String, Result<R, Error>)>;

/// Asks all nodes that the first one to answer knows.
async fn of_all<R, F>(admin: &Admin, ask: impl Fn(String) -> F) -> Result<Answers<R>>
where
    F: Future<Output = Result<R, Error>>,
{
    let mut nodes = admin.status().await?.nodes;
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let answers = nodes.iter().map(|node| ask(node.client_address.clone()));
    let answers = join_all(answers).await;
    Ok(nodes.into_iter().map(|node| node.name).zip(answers).collect())
}

fn tell<R>(
    answers: &Answers<R>,
    output: Output,
    header: &[&str],
    rows: impl Fn(&str, &R) -> Vec<Vec<String>>,
    json: impl Fn(&R) -> Value,
    nothing: &str,
) -> Result<Exit> {
    let text = || {
        let mut lines = Vec::new();
        let mut silent = Vec::new();
        for (node, answer) in answers {
            match answer {
                Ok(reply) => lines.extend(rows(node, reply)),
                Err(error) => silent.push(format!("{node}: no answer ({})", error.code())),
            }
        }
        let mut parts =
            vec![if lines.is_empty() { nothing.into() } else { table(header, lines.into_iter()) }];
        parts.extend(silent);
        parts.join("\n")
    };
    let all = || {
        let of = |answer: &Result<R, Error>| match answer {
            Ok(reply) => json(reply),
            Err(error) => json!({ "error": { "code": error.code(), "message": error.what() } }),
        };
        Value::Object(answers.iter().map(|(node, answer)| (node.clone(), of(answer))).collect::<Map<_, _>>())
    };
    output.result(text, all)?;
    Ok(if answers.iter().all(|(_, answer)| answer.is_ok()) { Exit::Ok } else { Exit::Error })
}

pub(super) async fn hints(global: &Global, output: Output) -> Result<Exit> {
    let admin = global.admin().await?;
    let answers = of_all(&admin, async |address| admin.hints_of(&address).await).await?;
    let rows = |node: &str, reply: &HintsReply| {
        let row = |hints: &merganser_client::proto::HintsFor| {
            let state = if hints.going_home { "going home" } else { "waiting" };
            vec![
                node.to_owned(),
                hints.target.clone(),
                hints.count.to_string(),
                bytes(hints.bytes),
                age(hints.oldest_ms),
                state.into(),
                hints.dropped.to_string(),
            ]
        };
        reply.targets.iter().map(row).collect()
    };
    let json = |reply: &HintsReply| {
        let of = |hints: &merganser_client::proto::HintsFor| {
            json!({
                "target": hints.target,
                "count": hints.count,
                "bytes": hints.bytes,
                "oldest_ms": hints.oldest_ms,
                "going_home": hints.going_home,
                "dropped": hints.dropped,
            })
        };
        reply.targets.iter().map(of).collect()
    };
    let header = ["KEPT BY", "FOR", "WRITES", "BYTES", "OLDEST", "STATE", "LEFT TO REPAIR"];
    tell(&answers, output, &header, rows, json, "no node keeps hints: all writes are where they belong")
}

pub(super) async fn repair(global: &Global, output: Output) -> Result<Exit> {
    let admin = global.admin().await?;
    let answers = of_all(&admin, async |address| admin.repair_of(&address).await).await?;
    let rows = |node: &str, reply: &RepairReply| {
        let row = |equality: &merganser_client::proto::Equality| {
            let proven = match equality.proven_equal_ms_ago {
                Some(ms) => format!("{} ago", age(ms)),
                None => "not yet".into(),
            };
            vec![
                node.to_owned(),
                equality.peer.clone(),
                equality.keyspace.clone(),
                proven,
                format!("{} of {}", equality.ranges_differing, equality.ranges),
                equality.keys_sent.to_string(),
                bytes(equality.bytes_sent),
            ]
        };
        reply.equalities.iter().map(row).collect()
    };
    let json = |reply: &RepairReply| {
        let of = |equality: &merganser_client::proto::Equality| {
            json!({
                "keyspace": equality.keyspace,
                "peer": equality.peer,
                "proven_equal_ms_ago": equality.proven_equal_ms_ago,
                "ranges": equality.ranges,
                "ranges_differing": equality.ranges_differing,
                "keys_sent": equality.keys_sent,
                "bytes_sent": equality.bytes_sent,
            })
        };
        let scrub = reply.scrub.unwrap_or_default();
        json!({
            "equalities": reply.equalities.iter().map(of).collect::<Vec<_>>(),
            "scrub": {
                "walks": scrub.walks,
                "records": scrub.records,
                "bytes": scrub.bytes,
                "rot_found": scrub.rot_found,
                "divergences": scrub.divergences,
                "repaired": scrub.repaired,
                "damaged": scrub.damaged,
                "evidence": scrub.evidence,
            },
        })
    };
    let header = ["NODE", "AND", "KEYSPACE", "PROVEN EQUAL", "RANGES DIFFERING", "KEYS SENT", "BYTES SENT"];
    tell(&answers, output, &header, rows, json, "there is no keyspace to compare yet")
}

pub(super) async fn collection(global: &Global, output: Output) -> Result<Exit> {
    let admin = global.admin().await?;
    let answers = of_all(&admin, async |address| admin.collection_of(&address).await).await?;
    let rows = |node: &str, reply: &CollectionReply| {
        let state = match reply.waiting_for.as_slice() {
            _ if reply.looking_back => "looking through keys from before its start".into(),
            [] => "on".into(),
            missing => format!("waits for {}", missing.join(", ")),
        };
        vec![vec![
            node.to_owned(),
            state,
            reply.tombstones.to_string(),
            reply.oldest_ms.map_or_else(|| "-".into(), age),
            reply.last_round_ms.map_or_else(|| "none yet".into(), |ms| format!("{} ago", age(ms))),
            reply.collected.to_string(),
            reply.retired.to_string(),
            reply.refused.to_string(),
        ]]
    };
    let json = |reply: &CollectionReply| {
        let of = |progress: &merganser_client::proto::CollectionProgress| {
            json!({
                "keyspace": progress.keyspace,
                "slots": progress.slots,
                "tombstones": progress.tombstones,
            })
        };
        json!({
            "tombstones": reply.tombstones,
            "oldest_ms": reply.oldest_ms,
            "waiting_for": reply.waiting_for,
            "rounds": reply.rounds,
            "rounds_blocked": reply.rounds_blocked,
            "confirmed": reply.confirmed,
            "collected": reply.collected,
            "retired": reply.retired,
            "refused": reply.refused,
            "last_round_ms": reply.last_round_ms,
            "graves": reply.graves,
            "largest_context": reply.largest_context,
            "looking_back": reply.looking_back,
            "keyspaces": reply.keyspaces.iter().map(of).collect::<Vec<_>>(),
        })
    };
    let header =
        ["NODE", "STATE", "TOMBSTONES", "OLDEST", "LAST ROUND", "COLLECTED", "RETIRED", "REFUSED LATE"];
    tell(&answers, output, &header, rows, json, "no node answers")
}

pub(super) async fn hot(global: &Global, output: Output) -> Result<Exit> {
    let admin = global.admin().await?;
    let answers = of_all(&admin, async |address| admin.hot_keys_of(&address).await).await?;
    let rows = |node: &str, reply: &HotKeysReply| {
        let row = |key: &merganser_client::proto::HotKey| {
            vec![
                node.to_owned(),
                key.keyspace.clone(),
                crate::key::shown(&key.key),
                format!("{:.0}", key.reads_per_second),
                format!("{:.0}", key.writes_per_second),
                format!("{:.1} %", key.share * 100.0),
            ]
        };
        reply.keys.iter().map(row).collect()
    };
    let json = |reply: &HotKeysReply| {
        let of = |key: &merganser_client::proto::HotKey| {
            json!({
                "keyspace": key.keyspace,
                "key": bytes_json(&key.key),
                "reads_per_second": key.reads_per_second,
                "writes_per_second": key.writes_per_second,
                "share": key.share,
            })
        };
        reply.keys.iter().map(of).collect()
    };
    let header = ["AT", "KEYSPACE", "KEY", "READS/S", "WRITES/S", "SHARE"];
    tell(&answers, output, &header, rows, json, "no key stands out")
}

fn bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
