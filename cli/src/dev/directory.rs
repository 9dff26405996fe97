//! The directory of a `merganser dev`: which nodes, which ports, which secret, and where each node
//! keeps its files.
//!
//! ```text
//!   merganser-data/
//!     dev.lock        held while a supervisor runs; its process id inside
//!     dev.toml        nodes, ports, secret: read by the next `merganser dev`
//!     a/node.toml     the node's configuration, written anew at each start
//!     a/data/         the node's storage
//!     a/log           what the node said
//!     a/pid           its process
//! ```
//!
//! In: a path and wishes. Out: a plan that is on disk. Absent: processes, connections.

use crate::failure::Failure;
use anyhow::{Context as _, bail};
use rand::{Rng as _, RngCore as _};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

const CLUSTER: &str = "dev";
const NODES_DEFAULT: u16 = 3;
const BASE_PORT_DEFAULT: u16 = 7401;
/// Peer ports lie this far above client ports.
const PEER_PORT_OFFSET: u16 = 100;
/// Below the ports that systems give to outgoing connections, so that a port stays free while its
/// node is down.
const ANY_PORT: std::ops::Range<u16> = 10_000..30_000;

/// A node's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    pub(super) name: String,
    client_port: u16,
    peer_port: u16,
}

/// `dev.toml`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    /// Shared by the nodes, in hex.
    secret: String,
    node: Vec<Place>,
}

/// A port that something else holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    /// Whose, for people.
    pub(super) what: String,
    pub(super) wanted: u16,
    pub(super) port: u16,
}

/// The directory, locked.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    plan: Plan,
    moved: Vec<Moved>,
    resumed: bool,
    /// Unlocked when dropped.
    _lock: File,
}

impl Place {
    /// For clients.
    pub(super) fn client(&self) -> SocketAddr {
        local(self.client_port)
    }

    /// For the other nodes.
    pub(super) fn peer(&self) -> SocketAddr {
        local(self.peer_port)
    }
}

impl Directory {
    /// Opens or creates it. What it already holds must agree with `nodes`.
    pub(super) fn open(path: &Path, nodes: Option<u16>, base_port: Option<u16>) -> anyhow::Result<Directory> {
        fs::create_dir_all(path).with_context(|| format!("failed to create {}", path.display()))?;
        let path = path.canonicalize().with_context(|| format!("failed to open {}", path.display()))?;
        let lock = lock(&path)?;
        let file = path.join("dev.toml");
        let found = match fs::read_to_string(&file) {
            Ok(text) => Some(Plan::parse(&text).map_err(|error| {
                let what = format!("{} is damaged: {error}", file.display());
                Failure::new("dev_directory", what, "mend it, or choose another --dir; the data is untouched")
            })?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("failed to read {}", file.display())),
        };
        let resumed = found.is_some();
        let mut plan = found.unwrap_or_else(|| Plan::fresh(nodes.unwrap_or(NODES_DEFAULT)));
        if let Some(nodes) = nodes
            && usize::from(nodes) != plan.node.len()
        {
            let held = plan.node.len();
            let what = format!("{} holds a cluster of {held} nodes, not {nodes}", path.display());
            let hint = "leave --nodes out, or choose another --dir";
            return Err(Failure::new("dev_directory", what, hint).into());
        }
        let moved = plan.settle_ports(base_port, is_free)?;
        let text = toml::to_string_pretty(&plan)?;
        write_private(&file, text.as_bytes())?;
        Ok(Directory { path, plan, moved, resumed, _lock: lock })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there was a cluster in it before.
    pub(super) fn resumed(&self) -> bool {
        self.resumed
    }

    /// All nodes, by name.
    pub(super) fn places(&self) -> &[Place] {
        &self.plan.node
    }

    /// Ports that are not the ones that were wished for.
    pub(super) fn moved(&self) -> &[Moved] {
        &self.moved
    }

    /// The files of a node.
    pub(super) fn of_node(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where `name` keeps its data.
    pub(super) fn data_of(&self, name: &str) -> PathBuf {
        self.of_node(name).join("data")
    }

    /// Writes `node`'s configuration, in which each peer has the address that `peer_address` tells.
    pub(super) fn write_config(
        &self,
        node: &Place,
        peer_address: impl Fn(&Place) -> SocketAddr,
    ) -> anyhow::Result<PathBuf> {
        let home = self.of_node(&node.name);
        let member = |place: &Place| Member {
            name: place.name.clone(),
            client_address: place.client(),
            peer_address: if place == node { place.peer() } else { peer_address(place) },
            zone: CLUSTER,
            weight: 1.0,
        };
        let config = NodeConfig {
            node: NodePart { name: &node.name, zone: CLUSTER, weight: 1.0 },
            listen: ListenPart { client: node.client(), peer: node.peer() },
            storage: StoragePart { dir: self.data_of(&node.name) },
            cluster: ClusterPart {
                name: CLUSTER,
                secret: &self.plan.secret,
                members: self.plan.node.iter().map(member).collect(),
            },
        };
        fs::create_dir_all(&home).with_context(|| format!("failed to create {}", home.display()))?;
        let file = home.join("node.toml");
        write_private(&file, toml::to_string(&config)?.as_bytes())?;
        Ok(file)
    }
}

impl Plan {
    fn fresh(nodes: u16) -> Plan {
        let mut secret = [0; 32];
        rand::rng().fill_bytes(&mut secret);
        let node = ('a'..='z').take(nodes.into()).map(|name| Place {
            name: name.to_string(),
            client_port: 0,
            peer_port: 0,
        });
        Plan { secret: secret.iter().map(|byte| format!("{byte:02x}")).collect(), node: node.collect() }
    }

    fn parse(text: &str) -> anyhow::Result<Plan> {
        let plan: Plan = toml::from_str(text)?;
        let names: BTreeSet<&str> = plan.node.iter().map(|place| place.name.as_str()).collect();
        let named = |name: &&str| name.len() == 1 && name.starts_with(|c: char| c.is_ascii_lowercase());
        if names.is_empty() || names.len() != plan.node.len() || !names.iter().all(named) {
            bail!("its nodes are not called a, b, c and so on");
        }
        Ok(plan)
    }

    /// Gives every node two ports: those wished for, those it had, or the next free ones.
    fn settle_ports(
        &mut self,
        base: Option<u16>,
        is_free: impl Fn(u16) -> bool,
    ) -> anyhow::Result<Vec<Moved>> {
        let any = base == Some(0);
        let base = match base {
            Some(0) => Some(rand::rng().random_range(ANY_PORT)),
            Some(base) => Some(base),
            None => None,
        };
        let mut given = BTreeSet::new();
        let mut moved = Vec::new();
        for (index, place) in (0..).zip(&mut self.node) {
            let wishes =
                [("clients", 0, &mut place.client_port), ("peers", PEER_PORT_OFFSET, &mut place.peer_port)];
            for (whose, offset, port) in wishes {
                let wanted = match (base, *port) {
                    (None, 0) => BASE_PORT_DEFAULT + offset + index,
                    (None, held) => held,
                    (Some(base), _) => base
                        .checked_add(offset + index)
                        .with_context(|| format!("--base-port {base} leaves no room for the nodes' ports"))?,
                };
                let found = (wanted..=u16::MAX).find(|port| !given.contains(port) && is_free(*port));
                *port = found.with_context(|| format!("no port from {wanted} on is free"))?;
                given.insert(*port);
                if *port != wanted && !any {
                    moved.push(Moved { what: format!("{} of {}", whose, place.name), wanted, port: *port });
                }
            }
        }
        Ok(moved)
    }
}

fn lock(path: &Path) -> anyhow::Result<File> {
    let file = path.join("dev.lock");
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&file)
        .with_context(|| format!("failed to open {}", file.display()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = lock.read_to_string(&mut holder);
            let (holder, path) = (holder.trim(), path.display());
            let what = format!("another `merganser dev` (process {holder}) runs on {path}");
            let hint = "talk to its nodes, or choose another --dir";
            return Err(Failure::new("dev_directory", what, hint).into());
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("failed to lock {}", file.display()));
        }
    }
    lock.set_len(0)?;
    writeln!(lock, "{}", std::process::id())?;
    Ok(lock)
}

/// The file holds the cluster's secret: it is replaced whole, and only its owner may read it.
fn write_private(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let next = file.with_extension("next");
    let write = || -> std::io::Result<()> {
        let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).clone();
        let mut written = options.open(&next)?;
        written.write_all(bytes)?;
        written.sync_all()?;
        fs::rename(&next, file)
    };
    write().with_context(|| format!("failed to write {}", file.display()))
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(local(port)).is_ok()
}

/// As `merganser serve --config` reads it.
#[derive(Serialize)]
struct NodeConfig<'a> {
    node: NodePart<'a>,
    listen: ListenPart,
    storage: StoragePart,
    cluster: ClusterPart<'a>,
}

#[derive(Serialize)]
struct NodePart<'a> {
    name: &'a str,
    zone: &'a str,
    weight: f64,
}

#[derive(Serialize)]
struct ListenPart {
    client: SocketAddr,
    peer: SocketAddr,
}

#[derive(Serialize)]
struct StoragePart {
    dir: PathBuf,
}

#[derive(Serialize)]
struct ClusterPart<'a> {
    name: &'a str,
    secret: &'a str,
    members: Vec<Member<'a>>,
}

#[derive(Serialize)]
struct Member<'a> {
    name: String,
    client_address: SocketAddr,
    peer_address: SocketAddr,
    zone: &'a str,
    weight: f64,
}

#[cfg(test)]
#[path = "directory_test.rs"]
mod directory_test;
