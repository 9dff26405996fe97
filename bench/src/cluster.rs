//! Three nodes on this machine, each a `merganser serve` of its own, for as long as they are held.
//!
//! In: the binary, a directory on a real disk. Out: addresses, process ids, keyspaces that every
//! node is ready for. No proxies between them. Dropping it kills the nodes and removes their data.

use crate::point::Policy;
use anyhow::{Context, Result, bail};
use merganser_client::{Admin, Client, proto as v1};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

const NAMES: [&str; 3] = ["a", "b", "c"];
/// Below the ports that systems give to outgoing connections.
const PORTS: std::ops::Range<u16> = 10_000..30_000;
const READY_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// `statfs` says this of a file system in memory, where a sync costs nothing.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// A running cluster.
pub(crate) struct Cluster {
    binary: PathBuf,
    nodes: Vec<Node>,
    pub(crate) client: Client,
    /// Held for its drop, which comes after that of the nodes.
    _home: TempDir,
}

struct Node {
    address: String,
    config: PathBuf,
    log: PathBuf,
    child: Child,
}

impl Node {
    fn start(binary: &Path, config: PathBuf, address: String) -> Result<Node> {
        let log = config.with_file_name("log");
        let output = File::options().create(true).append(true).open(&log)?;
        let child = Command::new(binary)
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("failed to start {}", binary.display()))?;
        Ok(Node { address, config, log, child })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Cluster {
    /// Starts the nodes below `dir` and waits until they serve. `repair` is that table of their settings.
    pub(crate) async fn start(binary: &Path, dir: &Path, repair: Value) -> Result<Cluster> {
        check_disk(dir)?;
        let home = tempfile::Builder::new()
            .prefix("merganser-bench-")
            .tempdir_in(dir)
            .with_context(|| format!("failed to make a directory in {}", dir.display()))?;
        let ports = free_ports(2 * NAMES.len())?;
        let mut nodes = Vec::new();
        for (index, name) in NAMES.into_iter().enumerate() {
            nodes.push(start_node(binary, home.path(), name, (&ports, index), &repair)?);
        }
        let client = ready(&mut nodes).await?;
        for policy in [Policy::Siblings, Policy::Lww] {
            create_keyspace(&client.admin(), policy).await?;
        }
        Ok(Cluster { binary: binary.to_owned(), nodes, client, _home: home })
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, index: usize) -> Result<()> {
        let child = &mut self.nodes[index].child;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Starts a node that was killed, with the data that it had.
    pub(crate) fn restart(&mut self, index: usize) -> Result<()> {
        let Node { config, address, .. } = &self.nodes[index];
        self.nodes[index] = Node::start(&self.binary, config.clone(), address.clone())?;
        Ok(())
    }

    /// By node.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address.clone()).collect()
    }

    /// By node.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.child.id()).collect()
    }

    /// Which node is asked for a key: its first primary.
    pub(crate) fn node_of(&self, policy: Policy, key: &[u8]) -> Result<usize> {
        let topology = self.client.topology();
        let primaries = topology.primaries(policy.keyspace(), key);
        let first = primaries.first().context("the ring does not know the keyspace")?;
        let found = self.nodes.iter().position(|node| node.address == *first.address);
        found.context("the ring names a node that was not started")
    }

    /// What each node counts.
    pub(crate) async fn metrics(&self) -> Result<Vec<Vec<v1::Metric>>> {
        let mut all = Vec::new();
        for node in &self.nodes {
            all.push(self.client.admin().status_of(&node.address).await?.metrics);
        }
        Ok(all)
    }
}

/// The binary beside this one.
pub(crate) fn binary() -> Result<PathBuf> {
    let this = std::env::current_exe().context("failed to find this program")?;
    let binary = this.with_file_name("merganser");
    if !binary.is_file() {
        bail!("there is no {}; build it with `cargo build --release -p merganser`", binary.display());
    }
    Ok(binary)
}

fn check_disk(dir: &Path) -> Result<()> {
    let found =
        rustix::fs::statfs(dir).with_context(|| format!("failed to look at {}", dir.display()))?.f_type;
    if found as i64 == TMPFS_MAGIC {
        bail!("{} is in memory, where a sync costs nothing; give --dir on a disk", dir.display());
    }
    Ok(())
}

fn free_ports(count: usize) -> Result<Vec<u16>> {
    let first = SmallRng::from_os_rng().random_range(PORTS);
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let ports: Vec<u16> = (first..=u16::MAX).filter(free).take(count).collect();
    if ports.len() < count {
        bail!("there are no free ports from {first} on");
    }
    Ok(ports)
}

fn start_node(
    binary: &Path,
    home: &Path,
    name: &str,
    (ports, index): (&[u16], usize),
    repair: &Value,
) -> Result<Node> {
    let address = |port: u16| format!("127.0.0.1:{port}");
    let member = |(index, name): (usize, &&str)| {
        json!({
            "name": name,
            "client_address": address(ports[2 * index]),
            "peer_address": address(ports[2 * index + 1]),
        })
    };
    let config = json!({
        "node": { "name": name },
        "storage": { "dir": home.join(name).join("data") },
        "log": { "level": "warn" },
        "repair": repair,
        "cluster": {
            "name": "bench",
            "secret": "known to all, and on loopback only",
            "members": NAMES.iter().enumerate().map(member).collect::<Vec<_>>(),
        },
    });
    let home = home.join(name);
    fs::create_dir(&home)?;
    let file = home.join("node.toml");
    fs::write(&file, toml::to_string(&config)?)?;
    Node::start(binary, file, address(ports[2 * index]))
}

/// A client, once all nodes serve and see one another.
async fn ready(nodes: &mut [Node]) -> Result<Client> {
    let addresses: Vec<String> = nodes.iter().map(|node| node.address.clone()).collect();
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        for node in nodes.iter_mut() {
            if let Some(status) = node.child.try_wait()? {
                let said = fs::read_to_string(&node.log).unwrap_or_default();
                bail!("a node ended at once ({status}) and said:\n{said}");
            }
        }
        let why = match all_up(&addresses).await {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        if Instant::now() > deadline {
            return Err(why.context("the nodes did not become ready"));
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

async fn all_up(addresses: &[String]) -> Result<Client> {
    let builder = Client::builder().attempts_max(1).timeout(Duration::from_secs(5));
    let client = builder.connect(addresses.iter()).await?;
    for address in addresses {
        let status = client.admin().status_of(address).await?;
        if status.nodes.iter().any(|node| node.link() == v1::node_status::Link::Down) {
            bail!("{} does not see all others yet", status.node);
        }
    }
    Ok(client)
}

/// N=3, synced, and known to every node and to the client's ring.
async fn create_keyspace(admin: &Admin, policy: Policy) -> Result<()> {
    let settings = v1::KeyspaceSettings {
        n: 3,
        policy: policy.name().into(),
        durability: v1::Durability::Sync as i32,
        ..v1::KeyspaceSettings::default()
    };
    let name = policy.keyspace();
    admin.create_keyspace(name, settings).await.context("failed to create a keyspace")?;
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        let keyspace = admin.keyspace(name).await?;
        if keyspace.prepared.is_some_and(|prepared| prepared.waiting.is_empty()) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("not all nodes became ready for keyspace {name}");
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}
