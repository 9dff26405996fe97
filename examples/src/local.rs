//! A cluster of one's own, for programs and tests: `merganser dev --json`, spoken to through its
//! standard input and output.
//!
//! In: the executable. Out: addresses; cuts, kills and restarts on demand. Absent: anything that
//! `merganser dev` does not do itself.

use anyhow::{Context as _, bail};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// Nodes as child processes; they end with it.
#[derive(Debug)]
pub struct LocalCluster {
    supervisor: Child,
    commands: ChildStdin,
    events: Lines<BufReader<ChildStdout>>,
    nodes: Vec<Node>,
    /// Removed at the end, if the directory was not somebody else's.
    _temporary: Option<tempfile::TempDir>,
}

/// A node, as the supervisor told.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Where clients reach it.
    pub client: String,
    /// Where other nodes reach it.
    pub peer: String,
    /// Its files: `data`, `node.toml`, `log`.
    pub home: PathBuf,
}

/// The cluster that the environment names in `MERGANSER_NODE`, or a new one.
pub async fn given_or_started() -> anyhow::Result<(Vec<String>, Option<LocalCluster>)> {
    if let Ok(given) = std::env::var("MERGANSER_NODE") {
        return Ok((given.split(',').map(String::from).collect(), None));
    }
    let cluster = LocalCluster::start(&beside_this_program()?).await?;
    Ok((cluster.addresses(), Some(cluster)))
}

/// The `merganser` that was built together with this program.
fn beside_this_program() -> anyhow::Result<PathBuf> {
    let executable = std::env::current_exe()?.with_file_name("merganser");
    if !executable.is_file() {
        bail!(
            "there is no {}; build it with `cargo build`, or name a running cluster in MERGANSER_NODE",
            executable.display()
        );
    }
    Ok(executable)
}

impl LocalCluster {
    /// Three nodes in a directory that is removed at the end.
    pub async fn start(executable: &Path) -> anyhow::Result<LocalCluster> {
        let directory = tempfile::tempdir()?;
        let mut cluster = LocalCluster::start_in(executable, directory.path(), 3).await?;
        cluster._temporary = Some(directory);
        Ok(cluster)
    }

    /// So many nodes in a directory that stays.
    pub async fn start_in(executable: &Path, directory: &Path, nodes: u16) -> anyhow::Result<LocalCluster> {
        let mut supervisor = Command::new(executable)
            .args(["dev", "--json", "--base-port", "0", "--nodes", &nodes.to_string(), "--dir"])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {}", executable.display()))?;
        let commands = supervisor.stdin.take().context("standard input was asked for")?;
        let events = supervisor.stdout.take().context("standard output was asked for")?;
        let events = BufReader::new(events).lines();
        let mut cluster = LocalCluster { supervisor, commands, events, nodes: Vec::new(), _temporary: None };
        let ready = cluster.event(&["ready"]).await?;
        let nodes = ready["nodes"].as_array().context("`ready` lists the nodes")?;
        cluster.nodes =
            nodes.iter().map(|node| node_of(node, directory)).collect::<Option<_>>().context("a node")?;
        Ok(cluster)
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Where clients reach the nodes.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.client.clone()).collect()
    }

    /// Says a word to the console (`cut a | b c`, `heal`, `kill a`, …) and waits until it is done.
    pub async fn say(&mut self, word: &str) -> anyhow::Result<Value> {
        self.commands.write_all(format!("{word}\n").as_bytes()).await?;
        let answer = self.event(&["done", "failed", "status"]).await?;
        if answer["event"] == "failed" {
            bail!("`{word}`: {}", answer["error"]);
        }
        Ok(answer)
    }

    /// The next event of one of these kinds. Others are passed over, but for a death that nobody
    /// asked for.
    async fn event(&mut self, kinds: &[&str]) -> anyhow::Result<Value> {
        while let Some(line) = self.events.next_line().await? {
            let event: Value =
                serde_json::from_str(&line).with_context(|| format!("not an event: {line}"))?;
            match event["event"].as_str() {
                Some(kind) if kinds.contains(&kind) => return Ok(event),
                Some("died") => bail!("a node died: {event}"),
                None => bail!("merganser dev: {event}"),
                Some(_) => {}
            }
        }
        bail!("merganser dev ended ({})", self.supervisor.wait().await?)
    }

    /// Stops all nodes, as Ctrl-C would.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.commands.write_all(b"quit\n").await?;
        self.event(&["stopped"]).await?;
        let status = self.supervisor.wait().await?;
        if !status.success() {
            bail!("merganser dev ended with {status}");
        }
        Ok(())
    }
}

fn node_of(node: &Value, directory: &Path) -> Option<Node> {
    let text = |field: &str| node[field].as_str().map(String::from);
    let name = text("name")?;
    let home = directory.join(&name);
    Some(Node { name, client: text("client")?, peer: text("peer")?, home })
}
