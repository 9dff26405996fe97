//! A network of our own: a namespace for each node, joined by a bridge, cut by packet filters.
//!
//! ```text
//!   clients ── bridge ──┬── veth ── [namespace of a]     nft drops what a cut forbids,
//!                       ├── veth ── [namespace of b]     inside the namespace
//!                       └── veth ── [namespace of c]
//! ```
//!
//! In: how many nodes, which directions to cut. Out: addresses, and a program and arguments that
//! run a process in a node's namespace. A cut drops packets silently: nobody is told, connections
//! hang. Everything is named after this process, and goes when it is dropped.

use super::tool::{run, say};
use anyhow::Context as _;

/// The port of clients; peers use the next.
const PORT: u16 = 7400;
const RULES: &str = "add table inet nemesis; \
    add chain inet nemesis input { type filter hook input priority 0; policy accept; }; \
    add chain inet nemesis output { type filter hook output priority 0; policy accept; }";

/// Where nodes listen, and what separates them.
#[derive(Debug)]
pub(crate) struct Network {
    /// None: everything is on 127.0.0.1.
    bridge: Option<Bridge>,
    ports: Vec<u16>,
}

#[derive(Debug)]
struct Bridge {
    prefix: String,
    subnet: String,
    nodes: usize,
}

/// Which packets between a node and its peers are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// It hears nothing.
    Inbound,
    /// It is not heard.
    Outbound,
    /// Neither.
    Both,
}

impl Network {
    /// With namespaces.
    pub(crate) fn bridged(nodes: usize) -> anyhow::Result<Network> {
        say("nft", "--version").context("cuts need nft (package nftables)")?;
        let pid = std::process::id();
        let prefix = prefix(pid);
        // Two runs at a time have two numbers, mostly; else the second one is told by `ip`.
        let subnet = format!("10.{}.{}", 64 + pid / 250 % 64, pid % 250);
        // From here on the drop cleans up, also what was half made.
        let bridge = Bridge { prefix, subnet, nodes };
        bridge.make()?;
        Ok(Network { bridge: Some(bridge), ports: vec![PORT; nodes] })
    }

    /// Everything on 127.0.0.1, on ports that are free now.
    pub(crate) fn local(nodes: usize) -> anyhow::Result<Network> {
        let held: Vec<_> = (0..nodes * 2)
            .map(|_| std::net::TcpListener::bind("127.0.0.1:0"))
            .collect::<Result<_, _>>()
            .context("no ports are free")?;
        let ports: Result<Vec<u16>, _> =
            held.iter().map(|held| held.local_addr().map(|address| address.port())).collect();
        Ok(Network { bridge: None, ports: ports? })
    }

    pub(crate) fn can_cut(&self) -> bool {
        self.bridge.is_some()
    }

    pub(crate) fn client_address(&self, node: usize) -> String {
        match &self.bridge {
            Some(bridge) => format!("{}:{PORT}", bridge.address(node)),
            None => format!("127.0.0.1:{}", self.ports[node * 2]),
        }
    }

    pub(crate) fn peer_address(&self, node: usize) -> String {
        match &self.bridge {
            Some(bridge) => format!("{}:{}", bridge.address(node), PORT + 1),
            None => format!("127.0.0.1:{}", self.ports[node * 2 + 1]),
        }
    }

    /// What to put before a command so that it runs where the node is.
    pub(crate) fn inside(&self, node: usize) -> Vec<String> {
        match &self.bridge {
            Some(bridge) => ["ip", "netns", "exec", &bridge.namespace(node)].map(str::to_owned).to_vec(),
            None => Vec::new(),
        }
    }

    /// Drops packets between `node` and `peers` from now on.
    pub(crate) fn cut(&self, node: usize, peers: &[usize], direction: Direction) -> anyhow::Result<()> {
        let bridge = self.bridge.as_ref().context("there is nothing to cut on 127.0.0.1")?;
        let mut rules = String::new();
        for &peer in peers {
            let address = bridge.address(peer);
            if direction != Direction::Outbound {
                rules += &format!("add rule inet nemesis input ip saddr {address} drop; ");
            }
            if direction != Direction::Inbound {
                rules += &format!("add rule inet nemesis output ip daddr {address} drop; ");
            }
        }
        bridge.filter(node, &rules)
    }

    /// Lets everything through again.
    pub(crate) fn heal(&self, node: usize) -> anyhow::Result<()> {
        match &self.bridge {
            Some(bridge) => {
                bridge.filter(node, "flush chain inet nemesis input; flush chain inet nemesis output")
            }
            None => Ok(()),
        }
    }
}

impl Bridge {
    fn address(&self, node: usize) -> String {
        format!("{}.{}", self.subnet, node + 1)
    }

    fn namespace(&self, node: usize) -> String {
        format!("{}-{}", self.prefix, name(node))
    }

    fn make(&self) -> anyhow::Result<()> {
        let Bridge { prefix, subnet, nodes } = self;
        say("ip", &format!("link add {prefix} type bridge"))?;
        say("ip", &format!("addr add {subnet}.254/24 dev {prefix}"))?;
        say("ip", &format!("link set {prefix} up"))?;
        for node in 0..*nodes {
            let (namespace, address) = (self.namespace(node), self.address(node));
            let outer = format!("{prefix}{}", name(node));
            say("ip", &format!("netns add {namespace}"))?;
            say("ip", &format!("link add {outer} type veth peer name eth0 netns {namespace}"))?;
            say("ip", &format!("link set {outer} master {prefix}"))?;
            say("ip", &format!("link set {outer} up"))?;
            say("ip", &format!("-n {namespace} addr add {address}/24 dev eth0"))?;
            say("ip", &format!("-n {namespace} link set eth0 up"))?;
            say("ip", &format!("-n {namespace} link set lo up"))?;
            self.filter(node, RULES)?;
        }
        Ok(())
    }

    fn filter(&self, node: usize, rules: &str) -> anyhow::Result<()> {
        run("ip", ["netns", "exec", &self.namespace(node), "nft", rules]).map(drop)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        remove(&self.prefix);
    }
}

/// What everything of a process is named after; a link's name has 15 bytes at most.
pub(crate) fn prefix(pid: u32) -> String {
    format!("nem{pid}")
}

/// `a`, `b`, …
pub(crate) fn name(node: usize) -> String {
    char::from(b'a' + node as u8).to_string()
}

/// Removes the namespaces, their links and the bridge of a run; what is not there is fine.
pub(crate) fn remove(prefix: &str) {
    let namespaces = say("ip", "netns list").unwrap_or_default();
    let ours = format!("{prefix}-");
    let namespaces = namespaces.lines().filter_map(|line| line.split_whitespace().next());
    for namespace in namespaces.filter(|namespace| namespace.starts_with(&ours)) {
        say("ip", &format!("netns del {namespace}")).ok();
    }
    // A namespace lives on, with its end of a link, while the kernel closes connections in it.
    let links = say("ip", "-o link").unwrap_or_default();
    for link in
        links.lines().filter_map(|line| line.split([' ', '@', ':']).find(|word| word.starts_with(prefix)))
    {
        if link.trim_start_matches(prefix).chars().all(|c| c.is_ascii_lowercase()) {
            say("ip", &format!("link del {link}")).ok();
        }
    }
}
