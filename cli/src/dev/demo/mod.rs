//! `merganser dev --demo`: what the store is for, told on a running cluster.
//!
//! One cut, the same kind of change on both sides of it, and six ways for it to end: by clock, not
//! at all, by two types that the store ships, by Automerge, and by a plugin that is generated and
//! built on the spot. Everything shown is a real command of this executable and its real answer,
//! the cut is a real one, and what the story claims is checked: where an answer differs, it breaks
//! off.
//!
//! In: a running cluster. Out: the story, in scenes; the cluster afterwards is whole and holds the
//! keyspaces of the story. Absent: anything that a user could not type.

mod plugin;
mod stage;
mod text;

use super::supervisor::Supervisor;
use anyhow::bail;
use merganser_client::{Client, Resolution, proto::node_status::Link};
use stage::Stage;
use std::{collections::BTreeSet, time::Duration};
use text::Writer;
use tokio::time::Instant;

/// How long the nodes may take to notice a cut, or its end.
const NOTICE: Duration = Duration::from_secs(20);
/// How long they may take to compile the plugins that are shipped.
const COMPILE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(50);

/// One row of the table at the end.
struct Outcome {
    keyspace: &'static str,
    policy: String,
    here: &'static str,
    there: &'static str,
}

/// Tells the story.
pub(super) async fn tell(supervisor: &mut Supervisor) -> anyhow::Result<()> {
    if supervisor.names().len() < 3 {
        bail!("the story needs three nodes");
    }
    let began = Instant::now();
    let mut stage = Stage::new(supervisor)?;
    stage.title("A story of conflicts");
    stage.say(
        "Every command below is one that you can type yourself, in another terminal, now or later;\n\
         every answer is what it really answered.",
    );
    stage.how_to_type();

    prepare(&mut stage).await?;
    part(&mut stage).await?;
    meet(&mut stage).await?;
    let policy = plugin::settle(&mut stage).await?;
    agree(&mut stage, policy).await?;
    stage.say(&format!("Told in {:.1} s.", began.elapsed().as_secs_f64()));
    Ok(())
}

/// Keyspaces with different policies, and something in each.
async fn prepare(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.title("1. One question, several answers: how should a conflict end?");
    stage.say(
        "A keyspace says how many copies there are, how many must answer, and how conflicts end.\n\
         With one answer enough (--r 1 --w 1) both sides of a cut can go on writing.",
    );
    for (name, policy) in [
        ("profiles", "lww"),
        ("carts", "siblings"),
        ("lists", "lattice:or-set"),
        ("visits", "lattice:pn-counter"),
        ("notes", "lattice:automerge"),
    ] {
        // It may be there from an earlier telling.
        let verb = if stage.has_keyspace(name).await? { "set" } else { "create" };
        stage.run_quietly(&["keyspace", verb, name, "--policy", policy, "--r", "1", "--w", "1"]).await?;
    }
    stage.say(
        "Each node compiles the plugins that these policies name, once; then there is something in each:",
    );
    compiled(stage).await?;
    stage.run(&["put", "carts", stage.key(), r#"{"milk":1}"#, "--blind", "--write", "ALL"]).await?;
    stage.run(&["apply", "lists", stage.key(), r#"{"add":["milk","bread"]}"#, "--write", "ALL"]).await?;
    stage.run(&["apply", "visits", stage.key(), "+10", "--write", "ALL"]).await?;
    let note = text::document("Our trip\n")?;
    stage.put_file("notes", "note.automerge", &note, &["--write", "ALL"]).await
}

/// Waits until every node has compiled the plugins: the first call of each waits for that, longer
/// than a command would on a busy machine.
async fn compiled(stage: &Stage<'_>) -> anyhow::Result<()> {
    let deadline = Instant::now() + COMPILE;
    let empty = text::document("")?;
    for name in stage.names() {
        let client = Client::builder().follow_topology(false).connect([stage.address(&name)?]).await?;
        loop {
            let notes = client.keyspace("notes").join("compiled", empty.clone()).await;
            let lists = client.keyspace("lists").apply("compiled", r#"{"add":[]}"#).await;
            let visits = client.keyspace("visits").apply("compiled", "+0").await;
            match notes.and(lists).and(visits) {
                Ok(_) => break,
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }
    Ok(())
}

/// The cut, and changes on both sides.
async fn part(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.title("2. The network breaks, and both sides go on");
    let (left, right) = stage.sides();
    let cut: Vec<BTreeSet<String>> = vec![[left.clone()].into(), right.iter().cloned().collect()];
    let said = stage.supervisor().cut(&cut, false);
    stage.console(&format!("cut {left} | {}", right.join(" ")), &said);
    // From then on a client of one side is sent to nodes of that side only.
    notice(stage, |from, to| (*from == left) == (*to == left)).await?;

    let (here, there) = (stage.address(&left)?, stage.address(&right[0])?);
    stage.say(&format!("Ada is on the side of node {left}. Everything she writes is acknowledged:"));
    stage.run(&["put", "profiles", stage.key(), "ada: gone fishing", "--blind", "--node", &here]).await?;
    stage
        .run(&["put", "carts", stage.key(), r#"{"milk":1,"tea":2}"#, "--read-first", "--node", &here])
        .await?;
    stage.run(&["apply", "lists", stage.key(), r#"{"add":"tea"}"#, "--node", &here]).await?;
    stage.run(&["apply", "visits", stage.key(), "+5", "--node", &here]).await?;
    edit(stage, "ada", &here, |writer| writer.append("Ada: by train!\n")).await?;

    stage.say(&format!("Ben is on the other side, at node {}, and knows nothing of that:", right[0]));
    stage.run(&["put", "profiles", stage.key(), "ben: back in town", "--blind", "--node", &there]).await?;
    stage
        .run(&["put", "carts", stage.key(), r#"{"milk":1,"eggs":6}"#, "--read-first", "--node", &there])
        .await?;
    stage.run(&["apply", "lists", stage.key(), r#"{"remove":"bread"}"#, "--node", &there]).await?;
    stage.run(&["apply", "visits", stage.key(), "+3", "--node", &there]).await?;
    edit(stage, "ben", &there, |writer| writer.replace("Our trip", "Our trip to the lakes")).await?;
    Ok(())
}

/// The cut heals, and each policy does what it does.
async fn meet(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage.title("3. The network is back: what is left of it?");
    let said = stage.supervisor().heal();
    stage.console("heal", &said);
    notice(stage, |_, _| true).await?;

    stage.say(
        "`lww`: the last writer wins, by the clocks of two machines. Ada's words were acknowledged, and\n\
         are gone. Most stores do this everywhere; here it is one policy among others:",
    );
    stage.run_and_expect(&["get", "profiles", stage.key(), "--read", "ALL"], "ben: back in town").await?;
    stage.say(
        "`siblings`: both carts are kept, because neither writer saw the other's. The store does not\n\
         guess; the reader gets both, and a context that covers both:",
    );
    let seen = stage.run(&["get", "carts", stage.key(), "--siblings", "--read", "ALL"]).await?;
    stage.expect(&seen, "tea")?;
    stage.expect(&seen, "eggs")?;
    stage.say("`or-set`: a type that the store ships, as a plugin. Tea was added, bread removed, both hold:");
    stage.run_and_expect(&["query", "lists", stage.key(), "--read", "ALL"], r#"["milk","tea"]"#).await?;
    stage.say("`pn-counter`: 10, and 5 on one side, and 3 on the other:");
    stage.run_and_expect(&["query", "visits", stage.key(), "--read", "ALL"], "18").await?;
    stage.say("`automerge`: one text, edited on both sides; both edits are in it:");
    let text = stage.run(&["query", "notes", stage.key(), "text", "--read", "ALL"]).await?;
    stage.expect(&text, "Our trip to the lakes\n")?;
    stage.expect(&text, "Ada: by train!\n")
}

/// Every node is asked for itself.
async fn agree(stage: &mut Stage<'_>, policy: String) -> anyhow::Result<()> {
    stage.title("5. Every node gives the same answers");
    let outcomes = [
        Outcome { keyspace: "profiles", policy: "lww".into(), here: "gone fishing", there: "back in town" },
        Outcome { keyspace: "carts", policy, here: "milk, tea", there: "milk, eggs" },
        Outcome {
            keyspace: "lists",
            policy: "lattice:or-set".into(),
            here: "add tea",
            there: "remove bread",
        },
        Outcome { keyspace: "visits", policy: "lattice:pn-counter".into(), here: "+5", there: "+3" },
        Outcome { keyspace: "notes", policy: "lattice:automerge".into(), here: "a line", there: "the title" },
    ];
    let names = stage.names();
    let mut rows = Vec::new();
    for outcome in outcomes {
        let answer = same_everywhere(stage, &names, outcome.keyspace).await?;
        let (here, there) = (outcome.here.to_owned(), outcome.there.to_owned());
        rows.push(vec![outcome.keyspace.to_owned(), outcome.policy, here, there, answer]);
    }
    let everyone = format!("{} answer", names.join(", "));
    stage.table(&["KEYSPACE", "POLICY", "ADA", "BEN", &everyone], rows);
    Ok(())
}

/// The answer that all nodes give, as soon as they do: the reads before have repaired the replicas
/// that lagged, and nobody waited for that.
async fn same_everywhere(stage: &Stage<'_>, names: &[String], keyspace: &str) -> anyhow::Result<String> {
    let deadline = Instant::now() + NOTICE;
    loop {
        let mut answers = BTreeSet::new();
        for name in names {
            answers.insert(ask(stage, name, keyspace).await?);
        }
        match answers.pop_first() {
            Some(answer) if answers.is_empty() => return Ok(answer),
            _ if Instant::now() > deadline => bail!("the nodes answer differently in `{keyspace}`"),
            _ => tokio::time::sleep(POLL).await,
        }
    }
}

/// What `name` itself answers, in one line.
async fn ask(stage: &Stage<'_>, name: &str, keyspace: &str) -> anyhow::Result<String> {
    let address = stage.address(name)?;
    let client = Client::builder().follow_topology(false).connect([address]).await?;
    let keys = client.keyspace(keyspace);
    let path = match keyspace {
        "lists" | "visits" => "",
        "notes" => "text",
        _ => {
            let entry = keys.get(stage.key()).await?;
            if let Resolution::Unresolved { reason } = entry.resolution() {
                bail!("{name} cannot settle the cart: {reason}");
            }
            return Ok(entry.value()?.map(|value| line(value)).unwrap_or_default());
        }
    };
    Ok(line(&keys.query(stage.key(), path).await?.result))
}

fn line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().replace('\n', " / ")
}

/// One person's editing session: fetch, change, put what changed.
async fn edit(
    stage: &mut Stage<'_>,
    who: &str,
    address: &str,
    change: impl FnOnce(&mut Writer) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let document = stage.get_file("notes", &format!("{who}.automerge"), &["--node", address]).await?;
    let mut writer = Writer::open(&document)?;
    change(&mut writer)?;
    stage.put_file("notes", &format!("{who}.changes"), &writer.changes(), &["--node", address]).await
}

/// Waits until every node sees exactly those as up that `joined` tells.
async fn notice(stage: &mut Stage<'_>, joined: impl Fn(&String, &String) -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + NOTICE;
    for name in stage.names() {
        let address = stage.address(&name)?;
        let client = Client::builder().follow_topology(false).connect([address.clone()]).await?;
        loop {
            let status = client.admin().status_of(&address).await?;
            let others = status.nodes.iter().filter(|node| node.name != name);
            if others.into_iter().all(|node| (node.link() == Link::Up) == joined(&name, &node.name)) {
                break;
            }
            if Instant::now() > deadline {
                bail!("{name} does not notice who it can reach");
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}
