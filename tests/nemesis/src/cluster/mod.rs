//! A cluster of real processes, and everything that this machine lets us do to it.
//!
//! In: options. Out: running nodes, each on a disk and in a network namespace of its own, as far
//! as there is the right to that; what is missing is told. Dropping it ends the processes and
//! removes namespaces, mounts and files, whatever happened.

mod disk;
mod leftovers;
pub(crate) mod network;
mod node;
pub(crate) mod tool;

pub(crate) use node::{Node, told};

use crate::{
    faults::Kind,
    options::{Disks, Options},
};
use anyhow::{Context as _, bail};
use disk::Disk;
use merganser_client::Client;
use network::Network;
use rustix::process::Signal;
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// How long a node may take to answer after its start.
const READY: Duration = Duration::from_secs(60);

/// What this machine can do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rights {
    pub(crate) cut: bool,
    pub(crate) fill: bool,
    pub(crate) trace: bool,
    /// The configuration key that shifts a node's clock.
    pub(crate) clock: Option<String>,
    /// What it cannot, and why.
    pub(crate) missing: Vec<(Kind, String)>,
}

impl Rights {
    /// What is not done here, and why, for people.
    pub(crate) fn skipped(&self) -> Vec<String> {
        self.missing.iter().map(|(_, why)| why.clone()).collect()
    }
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Cluster {
    // Dropped in this order: processes, their disks, the network, the files.
    nodes: Vec<Mutex<Node>>,
    pub(crate) network: Network,
    pub(crate) rights: Rights,
    pub(crate) disks: Disks,
    pub(crate) version: String,
    _home: Home,
}

/// The directory of this run.
#[derive(Debug)]
struct Home(PathBuf);

impl Drop for Home {
    fn drop(&mut self) {
        leftovers::unmount_all(&self.0);
        fs::remove_dir_all(&self.0).ok();
    }
}

impl Cluster {
    /// Prepares everything; nothing runs yet.
    pub(crate) fn prepare(options: &Options) -> anyhow::Result<Cluster> {
        let base = options.dir.clone().unwrap_or_else(std::env::temp_dir).join("merganser-nemesis");
        fs::create_dir_all(&base).with_context(|| format!("failed to make {}", base.display()))?;
        let base = base.canonicalize()?;
        for pid in leftovers::remove(&base) {
            eprintln!("removed what process {pid} had left behind");
        }
        let home = Home(base.join(std::process::id().to_string()));
        fs::create_dir_all(&home.0)?;

        let executable = executable(options)?;
        let version = tool::run(&executable.to_string_lossy(), ["--version"])?.trim().to_owned();
        let mut rights = Rights::default();
        let count = usize::from(options.nodes);
        let network = match options.no_network {
            true => Err(anyhow::anyhow!("--no-network")),
            false => Network::bridged(count),
        };
        let network = network.or_else(|error| {
            rights.missing.push((Kind::Cut, format!("no cuts between nodes: {error:#}")));
            rights.missing.push((Kind::Part, "nor between groups of them".to_owned()));
            Network::local(count)
        })?;
        rights.cut = network.can_cut();
        let (disks, kind) = make_disks(&home.0, count, options, &mut rights)?;
        rights.fill = disks.iter().all(Disk::can_fill);
        match tool::say("strace", "--version") {
            Ok(_) => rights.trace = true,
            Err(error) => rights.missing.push((Kind::FailedSync, format!("no failing syncs: {error:#}"))),
        }
        rights.clock = clock_key(&executable)?;
        if rights.clock.is_none() {
            let why = "no skewed clocks: this merganser has no setting for that";
            rights.missing.push((Kind::Clock, why.into()));
        }
        rights.missing.retain(|(kind, _)| options.faults.is_empty() || options.faults.contains(kind));
        let mut nodes = Vec::new();
        for (i, disk) in disks.into_iter().enumerate() {
            let directory = home.0.join(network::name(i));
            let config = directory.join("node.toml");
            fs::write(&config, configuration(&network, count, i, &disk.data()))?;
            let mut command = network.inside(i);
            command.push(executable.to_string_lossy().into_owned());
            command.extend(["serve".into(), "--config".into(), config.to_string_lossy().into_owned()]);
            for setting in &options.settings {
                command.extend(["--set".into(), setting.clone()]);
            }
            nodes.push(Mutex::new(Node::new(network::name(i), disk, directory, command)));
        }
        Ok(Cluster { nodes, network, rights, disks: kind, version, _home: home })
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Where clients reach each node.
    pub(crate) fn addresses(&self) -> Vec<String> {
        (0..self.len()).map(|node| self.network.client_address(node)).collect()
    }

    /// A node; whoever does something to it holds it.
    pub(crate) fn node(&self, node: usize) -> &Mutex<Node> {
        &self.nodes[node]
    }

    /// Starts all and waits until they answer.
    pub(crate) async fn start(&self) -> anyhow::Result<()> {
        for node in &self.nodes {
            node.lock().await.start()?;
        }
        for node in 0..self.len() {
            self.ready(node).await?;
        }
        Ok(())
    }

    /// Waits until a node answers.
    pub(crate) async fn ready(&self, node: usize) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let address = self.network.client_address(node);
        let mut last = String::new();
        while began.elapsed() < READY {
            match ping(&address).await {
                Ok(()) => return Ok(began.elapsed()),
                Err(error) => last = error.what(),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("node {} does not answer {} s after its start: {last}", network::name(node), READY.as_secs())
    }

    /// Takes back all that may have been done to the nodes, and starts those that do not run.
    pub(crate) async fn heal(&self) -> anyhow::Result<()> {
        for (i, node) in self.nodes.iter().enumerate() {
            self.network.heal(i)?;
            let mut node = node.lock().await;
            node.disk.empty()?;
            node.signal(Signal::CONT);
            node.ended();
            let skewed = !node.extra.is_empty();
            if skewed {
                node.extra.clear();
                node.stop().await?;
            }
            if !node.runs() {
                node.start()?;
            }
        }
        for node in 0..self.len() {
            self.ready(node).await?;
        }
        Ok(())
    }

    /// Stops all as an operator would; names those that had to be killed.
    pub(crate) async fn stop(&self) -> anyhow::Result<Vec<String>> {
        let mut hung = Vec::new();
        for node in &self.nodes {
            let mut node = node.lock().await;
            if !node.stop().await? {
                hung.push(node.name.clone());
            }
        }
        Ok(hung)
    }
}

/// Whether a node answers at all.
pub(crate) async fn ping(address: &str) -> Result<(), merganser_client::Error> {
    let client = direct(address).await?;
    client.admin().with_timeout(Duration::from_secs(1)).status_of(address).await.map(drop)
}

/// A client that speaks to one node only, once for each request.
pub(crate) async fn direct(address: &str) -> Result<Client, merganser_client::Error> {
    let builder = Client::builder().follow_topology(false).attempts_max(1);
    let second = Duration::from_secs(1);
    builder.timeout(second * 2).attempt_timeout(second * 2).connect_timeout(second).connect([address]).await
}

/// The best kind of disk that this machine lets us make.
fn make_disks(
    home: &Path,
    count: usize,
    options: &Options,
    rights: &mut Rights,
) -> anyhow::Result<(Vec<Disk>, Disks)> {
    let kinds = match options.disks {
        Some(kind) => vec![kind],
        None => vec![Disks::Ext4, Disks::Tmpfs, Disks::Plain],
    };
    let mut last = None;
    for kind in kinds {
        let directory = |i| home.join(network::name(i));
        let made: anyhow::Result<Vec<Disk>> =
            (0..count).map(|i| Disk::make(&directory(i), kind, options.disk_mib)).collect();
        match made {
            Ok(disks) => {
                if kind == Disks::Plain {
                    let why = last.map(|error: anyhow::Error| format!(": {error:#}")).unwrap_or_default();
                    rights.missing.push((Kind::FullDisk, format!("no full disks{why}")));
                }
                return Ok((disks, kind));
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.context("no kind of disk was asked for")?)
}

fn executable(options: &Options) -> anyhow::Result<PathBuf> {
    if let Some(path) = &options.merganser {
        return path.canonicalize().with_context(|| format!("there is no {}", path.display()));
    }
    let beside = std::env::current_exe()?.with_file_name("merganser");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|directory| directory.join("merganser"));
    std::iter::once(beside)
        .chain(on_path)
        .find(|path| path.is_file())
        .context("no `merganser` beside this program or on PATH; build it, or name it with --merganser")
}

/// The name of the key that shifts a node's clock, if this `merganser` has one.
fn clock_key(executable: &Path) -> anyhow::Result<Option<String>> {
    let keys = tool::run(&executable.to_string_lossy(), ["serve", "--keys", "--json"])?;
    let keys: serde_json::Value = serde_json::from_str(&keys).context("`serve --keys --json` is no JSON")?;
    let names = keys.as_array().into_iter().flatten().filter_map(|key| key["key"].as_str());
    Ok(names.map(str::to_owned).find(|name| name.ends_with("clock_offset_ms")))
}

/// Small memtables and logs, so that a short run flushes and compacts, too.
fn configuration(network: &Network, count: usize, node: usize, data: &Path) -> String {
    let members: Vec<String> = (0..count)
        .map(|i| {
            format!(
                "  {{ name = \"{}\", client_address = \"{}\", peer_address = \"{}\" }},\n",
                network::name(i),
                network.client_address(i),
                network.peer_address(i)
            )
        })
        .collect();
    format!(
        "[node]\nname = \"{}\"\n\n\
         [cluster]\nname = \"nemesis\"\nsecret = \"known to everybody here\"\nmembers = [\n{}]\n\n\
         [storage]\ndir = {:?}\nmemtable_mb = 1\nlog_file_mb = 1\ncache_mb = 16\n",
        network::name(node),
        members.concat(),
        data.display().to_string(),
    )
}
