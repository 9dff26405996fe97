//! `cluster status | topology | hints | repair | collection | hot`.
//!
//! In: the cluster's own words. Out: tables. Every node is asked for itself, because one that
//! hangs is told of by others only after a while. Absent: any change.

mod views;

use crate::{
    args::Global,
    failure::{Exit, Failure},
    output::{Output, table},
};
use anyhow::Result;
use clap::{Args, Subcommand};
use futures::future::join_all;
use merganser_client::{
    Client, Error, Member, Topology,
    proto::{
        NodeStatus, StatusReply,
        node_status::{Health, Link},
    },
};
use serde_json::{Value, json};
use std::ffi::OsString;

#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The nodes, and how each sees the others.
    Status {
        /// Also what the first node that answers counts.
        #[arg(long)]
        metrics: bool,
    },
    /// Writes that nodes keep for others until they are back.
    Hints,
    /// When the nodes' data was last proven equal, and what is being repaired.
    Repair,
    /// What deletes left behind, and how far it is collected.
    Collection,
    /// The keys that are asked for most.
    Hot,
    /// The members of the ring; with a key, who holds it.
    Topology {
        /// Whose primaries to show.
        #[arg(long, requires = "keyspace")]
        key: Option<OsString>,
        /// KEY is given as hexadecimal digits.
        #[arg(long, requires = "key")]
        key_hex: bool,
        /// In which keyspace.
        #[arg(long, requires = "key")]
        keyspace: Option<String>,
    },
}

pub(crate) async fn run(args: ClusterArgs, global: &Global, output: Output) -> Result<Exit> {
    match args.action {
        Action::Status { metrics } => status(&global.connect().await?, metrics, output).await,
        Action::Hints => views::hints(global, output).await,
        Action::Repair => views::repair(global, output).await,
        Action::Collection => views::collection(global, output).await,
        Action::Hot => views::hot(global, output).await,
        Action::Topology { key, key_hex, keyspace } => {
            let topology = global.connect().await?.topology();
            match key.zip(keyspace) {
                Some((key, keyspace)) => {
                    primaries(&topology, &keyspace, &crate::key::bytes(&key, key_hex)?, output)
                }
                None => members(&topology, output),
            }
        }
    }
}

/// What one node says of itself.
type Heard = (NodeStatus, Result<StatusReply, Error>);

async fn status(client: &Client, metrics: bool, output: Output) -> Result<Exit> {
    let admin = client.admin();
    let mut first = admin.status().await?;
    first.nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let heard = first.nodes.iter().map(|node| async {
        let own = admin.status_of(&node.client_address).await;
        (node.clone(), own)
    });
    let heard: Vec<Heard> = join_all(heard).await;
    output.result(|| status_text(&first, &heard, metrics), || status_json(&first, &heard))?;
    let all_answered = heard.iter().all(|(_, own)| own.is_ok());
    Ok(if all_answered { Exit::Ok } else { Exit::Error })
}

fn status_text(first: &StatusReply, heard: &[Heard], metrics: bool) -> String {
    let rows = heard.iter().map(|(node, own)| {
        let (state, version, up) = match own {
            Ok(own) => (own_state(own).to_owned(), own.version.clone(), age(own.uptime_ms)),
            Err(error) => (format!("no answer: {}", error.code()), String::new(), String::new()),
        };
        let seen_down: Vec<&str> = heard.iter().filter_map(|(_, other)| sees_down(other, node)).collect();
        let seen = if seen_down.is_empty() { "all".into() } else { format!("not {}", seen_down.join(", ")) };
        let share = format!("{:.1} %", node.share * 100.0);
        let address = node.client_address.clone();
        vec![node.name.clone(), address, node.zone.clone(), share, state, seen, up, version]
    });
    let header = ["NODE", "CLIENTS", "ZONE", "SHARE", "STATE", "REACHED BY", "UP FOR", "VERSION"];
    let mut text = format!("cluster {}\n{}", first.cluster, table(&header, rows));
    let peers = first.nodes.iter().filter(|node| node.link() != Link::Self_).map(|node| {
        let heard = node.last_heard_ms.map_or_else(|| "never".into(), |ms| format!("{ms} ms ago"));
        vec![
            node.name.clone(),
            health_name(node).into(),
            link_name(node.link()).into(),
            format!("{:.2}", node.phi),
            heard,
            format!("{:016x}", node.disk),
            node.boots.to_string(),
            format!("{:016x}", node.incarnation),
        ]
    });
    let header = ["PEER", "HEALTH", "LINK", "PHI", "LAST HEARD", "DISK", "BOOTS", "INCARNATION"];
    text += &format!("\n\nas {} sees them\n{}", first.node, table(&header, peers));
    for (at, refused) in refused_links(heard) {
        text += &format!("\nnot linked: {at} and {}: {}", refused.name, refused.link_refused);
    }
    if metrics {
        let rows = first.metrics.iter().map(|m| vec![m.name.clone(), number(m.value), m.help.clone()]);
        text += &format!("\n\nmetrics of {}\n{}", first.node, table(&["METRIC", "VALUE", "MEANS"], rows));
    }
    text
}

/// Links that were refused, as each node that answers says.
fn refused_links(heard: &[Heard]) -> Vec<(&str, &NodeStatus)> {
    let mut refused = Vec::new();
    for own in heard.iter().filter_map(|(_, own)| own.as_ref().ok()) {
        let links = own.nodes.iter().filter(|node| !node.link_refused.is_empty());
        refused.extend(links.map(|node| (own.node.as_str(), node)));
    }
    refused
}

/// What a node that answers says of itself.
fn own_state(own: &StatusReply) -> &'static str {
    let joining = own.nodes.iter().any(|node| node.link() == Link::Self_ && node.joining);
    if joining { "joining" } else { "up" }
}

fn health_name(node: &NodeStatus) -> &'static str {
    match node.health() {
        _ if node.forgotten => "forgotten",
        Health::Unspecified => "unknown",
        Health::Self_ => "self",
        Health::Up => "up",
        Health::Suspect => "suspect",
        Health::Down => "down",
    }
}

/// The name of the node that answered `other`, if it cannot reach `node`.
fn sees_down<'a>(other: &'a Result<StatusReply, Error>, node: &NodeStatus) -> Option<&'a str> {
    let other = other.as_ref().ok()?;
    let seen = other.nodes.iter().find(|seen| seen.name == node.name)?;
    (seen.link() == Link::Down).then_some(other.node.as_str())
}

fn status_json(first: &StatusReply, heard: &[Heard]) -> Value {
    let node = |(node, own): &Heard| {
        let mut value = json!({
            "name": node.name,
            "client_address": node.client_address,
            "peer_address": node.peer_address,
            "zone": node.zone,
            "weight": node.weight,
            "share": node.share,
        });
        value["answer"] = match own {
            Err(error) => json!({ "error": { "code": error.code(), "message": error.what() } }),
            Ok(own) => json!({
                "version": own.version,
                "uptime_ms": own.uptime_ms,
                "incarnation": format!("{:016x}", own.incarnation),
                "joining": own_state(own) == "joining",
                "peers": own.nodes.iter().filter(|n| n.link() != Link::Self_).map(|n| (n.name.clone(), peer_json(n))).collect::<serde_json::Map<_, _>>(),
                "links": own.nodes.iter().map(|n| (n.name.clone(), json!(link_name(n.link())))).collect::<serde_json::Map<_, _>>(),
                "metrics": own.metrics.iter().map(|m| (m.name.clone(), json!(m.value))).collect::<serde_json::Map<_, _>>(),
            }),
        };
        value
    };
    json!({ "cluster": first.cluster, "nodes": heard.iter().map(node).collect::<Vec<_>>() })
}

fn peer_json(node: &NodeStatus) -> Value {
    json!({
        "health": health_name(node),
        "phi": node.phi,
        "last_heard_ms": node.last_heard_ms,
        "disk": format!("{:016x}", node.disk),
        "boots": node.boots,
        "incarnation": format!("{:016x}", node.incarnation),
        "announced_address": node.announced_address,
        "forgotten": node.forgotten,
        "link_refused": node.link_refused,
    })
}

fn link_name(link: Link) -> &'static str {
    match link {
        Link::Unspecified => "unknown",
        Link::Self_ => "self",
        Link::Up => "up",
        Link::Down => "down",
    }
}

fn members(topology: &Topology, output: Output) -> Result<Exit> {
    let mut members: Vec<&Member> = topology.members().collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let rows = || {
        members.iter().map(|member| {
            let up = if member.up { "up" } else { "down" };
            let (zone, weight) = (member.zone.clone(), number(member.weight));
            vec![member.name.clone(), member.address.to_string(), zone, weight, up.into()]
        })
    };
    output.result(
        || {
            let table = table(&["NODE", "CLIENTS", "ZONE", "WEIGHT", "STATE"], rows());
            format!("layout {}\n{table}", topology.layout_version())
        },
        || {
            let members: Vec<Value> = members.iter().map(|member| member_json(member)).collect();
            json!({ "layout_version": topology.layout_version(), "members": members })
        },
    )?;
    Ok(Exit::Ok)
}

fn primaries(topology: &Topology, keyspace: &str, key: &[u8], output: Output) -> Result<Exit> {
    let primaries = topology.primaries(keyspace, key);
    if primaries.is_empty() {
        let what = format!("the topology has no keyspace `{keyspace}`");
        return Err(Failure::new("unknown_keyspace", what, "list them with `merganser keyspace list`").into());
    }
    output.result(
        || {
            let lines = primaries.iter().map(|member| format!("{}  {}", member.name, member.address));
            lines.collect::<Vec<_>>().join("\n")
        },
        || primaries.iter().map(|member| member_json(member)).collect(),
    )?;
    Ok(Exit::Ok)
}

fn member_json(member: &Member) -> Value {
    json!({
        "name": member.name,
        "client_address": &*member.address,
        "zone": member.zone,
        "weight": member.weight,
        "up": member.up,
    })
}

/// Whole numbers without a point.
fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 { format!("{value:.0}") } else { format!("{value:.3}") }
}

fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ages_are_short() {
        let rows = [(0.0, "0"), (3.0, "3"), (0.5, "0.500"), (1e20, "100000000000000000000.000")];
        for (value, text) in rows {
            assert_eq!(number(value), text);
        }
        for (ms, text) in [(999, "0 s"), (119_999, "119 s"), (120_000, "2 min"), (7_200_000, "2 h")] {
            assert_eq!(age(ms), text);
        }
    }

    #[test]
    fn a_node_that_one_other_cannot_reach_shows_who() {
        let node = |name: &str, link| NodeStatus { name: name.into(), link, ..Default::default() };
        let answer = |name: &str, sees: Link| {
            let nodes = vec![node("a", sees as i32)];
            Ok(StatusReply { node: name.into(), nodes, ..Default::default() })
        };
        let a = node("a", Link::Self_ as i32);
        assert_eq!(sees_down(&answer("b", Link::Down), &a), Some("b"));
        assert_eq!(sees_down(&answer("c", Link::Up), &a), None);
        assert_eq!(sees_down(&Err(Error::ContextRequired), &a), None);
    }
}
