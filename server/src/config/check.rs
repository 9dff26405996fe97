//! What must hold between the keys of a configuration.
//!
//! In: a typed configuration. Out: nothing, or the first thing that is wrong, with the fix; and
//! the answers that need several keys at once. Absent: anything that touches disk or network.

use super::{Config, ConfigError, Member};
use merganser_core::config::Member as CoreMember;
use merganser_core::id::NodeId;
use merganser_core::ring::RingNode;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use tracing_subscriber::EnvFilter;

const SECRET_BYTES_MIN: usize = 16;
const NAME_BYTES_MAX: usize = 64;
const WEIGHT_MAX: f64 = 1024.0;
const VNODES_MAX: u32 = 4096;
const MEMBERS_MAX: usize = 1024;

impl Config {
    /// Whether everything holds together. [`Config::load`] has asked already.
    pub fn check(&self) -> Result<(), ConfigError> {
        given("node.name", &self.node.name, "name this node as in `cluster.members`")?;
        given("cluster.name", &self.cluster.name, "give the cluster a name, the same on all nodes")?;
        let secret_bytes = self.cluster.secret.0.len();
        if secret_bytes < SECRET_BYTES_MIN {
            return invalid(
                "cluster.secret",
                format!("has {secret_bytes} bytes"),
                format!("give at least {SECRET_BYTES_MIN} random bytes, the same on all nodes"),
            );
        }
        if self.storage.dir.as_os_str().is_empty() {
            return invalid("storage.dir", "is not given", "name a directory for this node's data");
        }
        self.check_members()?;
        self.client_address()?;
        self.peer_address()?;
        self.check_numbers()?;
        if let Err(error) = EnvFilter::try_new(&self.log.level) {
            return invalid(
                "log.level",
                format!("is {:?}: {error}", self.log.level),
                "try `info` or `info,merganser_server=debug`",
            );
        }
        Ok(())
    }

    fn check_members(&self) -> Result<(), ConfigError> {
        let members = &self.cluster.members;
        if members.len() > MEMBERS_MAX {
            return invalid("cluster.members", format!("has {} entries", members.len()), "1024 at most");
        }
        if self.cluster.vnodes == 0 || self.cluster.vnodes > VNODES_MAX {
            return invalid(
                "cluster.vnodes",
                format!("is {}", self.cluster.vnodes),
                "1 to 4096; 256 is good",
            );
        }
        let mut ids: BTreeMap<NodeId, &str> = BTreeMap::new();
        for member in members {
            check_member(member)?;
            if let Some(other) = ids.insert(NodeId::from_name(&member.name), &member.name) {
                let problem = format!("has {other:?} and {:?}, which share an id", member.name);
                return invalid("cluster.members", problem, "rename one of them");
            }
        }
        if members.iter().all(|member| member.weight == 0.0) {
            return invalid("cluster.members", "has no node with a weight above 0", "give weights, or none");
        }
        let this = self.this_member()?;
        if self.node.zone.as_ref().is_some_and(|zone| *zone != this.zone) {
            let problem = format!("is {:?}, but `cluster.members` says {:?}", self.node.zone, this.zone);
            return invalid("node.zone", problem, "make them equal, or leave it out here");
        }
        if self.node.weight.is_some_and(|weight| weight != this.weight) {
            let problem = format!("is {:?}, but `cluster.members` says {}", self.node.weight, this.weight);
            return invalid("node.weight", problem, "make them equal, or leave it out here");
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), ConfigError> {
        let Config { storage, limits, listen, .. } = self;
        let ranges = [
            ("storage.memtable_mb", storage.memtable_mb, 1, 4_096),
            ("storage.cache_mb", storage.cache_mb, 1, 1 << 20),
            ("storage.log_file_mb", storage.log_file_mb, 1, 4_096),
            ("storage.sync_interval_ms", storage.sync_interval_ms, 1, 60_000),
            ("storage.compaction_threads", storage.compaction_threads.into(), 1, 64),
            ("storage.read_threads", storage.read_threads.into(), 1, 256),
            ("limits.in_flight", limits.in_flight.into(), 1, 10_000_000),
            ("limits.connections", limits.connections.into(), 1, 1_000_000),
            ("limits.streams", limits.streams.into(), 1, 1_000_000),
            ("limits.pipelined", limits.pipelined.into(), 1, 1_000_000),
            ("limits.timeout_ms", limits.timeout_ms, 1, limits.timeout_ms_max),
            ("limits.timeout_ms_max", limits.timeout_ms_max, 1, 3_600_000),
            ("limits.hedge_ms", limits.hedge_ms, 1, 60_000),
            ("limits.gossip_period_ms", limits.gossip_period_ms, 10, 60_000),
            ("limits.in_flight_mb", limits.in_flight_mb, 1, 65_536),
            ("limits.view_cache_mb", limits.view_cache_mb, 0, 65_536),
            ("repair.period_ms", self.repair.period_ms, 100, 3_600_000),
            ("repair.mb_per_s", self.repair.mb_per_s, 1, 65_536),
            ("repair.hint_mb", self.repair.hint_mb, 0, 1 << 20),
            ("repair.hint_h", self.repair.hint_h, 1, 8_760),
            ("repair.scrub_period_h", self.repair.scrub_period_h, 1, 87_600),
            ("repair.scrub_mb_per_s", self.repair.scrub_mb_per_s, 1, 65_536),
            ("repair.collect_period_ms", self.repair.collect_period_ms, 0, 3_600_000),
            (
                "repair.grave_s",
                self.repair.grave_s,
                (2 * limits.timeout_ms_max).div_ceil(1_000).max(1),
                86_400,
            ),
            ("repair.forget_h", self.repair.forget_h, 1, 87_600),
            ("limits.peer_queue_mb", limits.peer_queue_mb, 1, 65_536),
            ("limits.module_mb", limits.module_mb, 1, 64),
            ("limits.plugin_threads", limits.plugin_threads.into(), 1, 64),
            ("limits.plugin_queue_mb", limits.plugin_queue_mb, 1, 65_536),
            ("limits.drain_ms", limits.drain_ms, 0, 600_000),
            ("listen.keepalive_interval_ms", listen.keepalive_interval_ms, 100, 3_600_000),
            ("listen.keepalive_timeout_ms", listen.keepalive_timeout_ms, 100, 3_600_000),
            ("listen.peer_keepalive_interval_ms", listen.peer_keepalive_interval_ms, 100, 3_600_000),
            ("listen.peer_keepalive_timeout_ms", listen.peer_keepalive_timeout_ms, 100, 3_600_000),
        ];
        for (key, value, least, most) in ranges {
            if value < least || value > most {
                return invalid(key, format!("is {value}"), format!("{least} to {most}"));
            }
        }
        Ok(())
    }

    /// This node's entry among the members.
    pub(crate) fn this_member(&self) -> Result<&Member, ConfigError> {
        let name = &self.node.name;
        let found = self.cluster.members.iter().find(|member| member.name == *name);
        found.ok_or_else(|| ConfigError::Invalid {
            key: "cluster.members".into(),
            problem: format!("has no entry named {name:?}, which `node.name` says this is"),
            fix: "add it, with its addresses, on all nodes".into(),
        })
    }

    /// Where to listen for clients.
    pub(crate) fn client_address(&self) -> Result<SocketAddr, ConfigError> {
        let default = &self.this_member()?.client_address;
        listen_address("listen.client", self.listen.client.as_ref().unwrap_or(default))
    }

    /// Where to listen for peers.
    pub(crate) fn peer_address(&self) -> Result<SocketAddr, ConfigError> {
        let default = &self.this_member()?.peer_address;
        listen_address("listen.peer", self.listen.peer.as_ref().unwrap_or(default))
    }

    /// The members as core knows them.
    pub(crate) fn core_members(&self) -> Vec<CoreMember> {
        let member = |member: &Member| CoreMember {
            name: member.name.clone(),
            ring: RingNode {
                id: NodeId::from_name(&member.name),
                zone: member.zone.clone(),
                weight: member.weight,
                vnodes: self.cluster.vnodes,
            },
        };
        self.cluster.members.iter().map(member).collect()
    }
}

fn check_member(member: &Member) -> Result<(), ConfigError> {
    let Member { name, weight, .. } = member;
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return invalid("cluster.members.name", format!("is {name:?}"), "1 to 64 bytes");
    }
    // Written so that a weight that is not a number fails it too.
    if !(*weight >= 0.0 && *weight <= WEIGHT_MAX) {
        return invalid("cluster.members.weight", format!("of {name:?} is {weight}"), "0 to 1024");
    }
    for (key, address) in [("client_address", &member.client_address), ("peer_address", &member.peer_address)]
    {
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        if !port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port != 0)) {
            let problem = format!("of {name:?} is {address:?}");
            return invalid(&format!("cluster.members.{key}"), problem, "write HOST:PORT");
        }
    }
    Ok(())
}

fn given(key: &str, value: &str, fix: &str) -> Result<(), ConfigError> {
    if value.is_empty() { invalid(key, "is not given", fix) } else { Ok(()) }
}

fn listen_address(key: &str, address: &str) -> Result<SocketAddr, ConfigError> {
    address.parse().map_err(|_| ConfigError::Invalid {
        key: key.into(),
        problem: format!("is {address:?}"),
        fix: "write an IP of this machine and a port, such as 0.0.0.0:7401".into(),
    })
}

fn invalid(key: &str, problem: impl Into<String>, fix: impl Into<String>) -> Result<(), ConfigError> {
    Err(ConfigError::Invalid { key: key.into(), problem: problem.into(), fix: fix.into() })
}
