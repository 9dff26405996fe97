//! Which nodes to ask about a key, in which order. Pure.
//!
//! In: the topology as a node told it, the addresses the user gave, and which addresses failed
//! lately. Out: addresses, best first: live primaries of the key, then live others (a node that
//! is not a replica passes the request on, one hop more), then those thought down, because the
//! one who thinks so may be wrong. Absent: connections, time.

use merganser_core::{
    id::{KeyspaceId, NodeId},
    ring::{self, Ring, RingNode},
};
use merganser_proto::v1;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Virtual nodes that this client lays out for one member at most: what comes from the wire must
/// not decide how much memory we take.
const POINTS_MAX: f64 = 65_536.0;

/// A node of the cluster as the topology tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where it listens for clients.
    pub address: Arc<str>,
    /// Nodes of one zone fail together; empty = no zones.
    pub zone: String,
    /// Share of the keys relative to the others.
    pub weight: f64,
    /// Whether the node that told us could reach it.
    pub up: bool,
}

/// The ring as this client knows it.
#[derive(Clone, Debug)]
pub struct Topology {
    layout_version: u64,
    members: BTreeMap<NodeId, Member>,
    keyspaces: HashMap<String, (KeyspaceId, usize)>,
    ring: Ring,
}

impl Topology {
    /// Before any node answered.
    pub(crate) fn empty() -> Topology {
        Topology {
            layout_version: 0,
            members: BTreeMap::new(),
            keyspaces: HashMap::new(),
            ring: Ring::new(Vec::new()),
        }
    }

    pub(crate) fn from_wire(reply: v1::TopologyReply) -> Topology {
        let mut ring = Vec::new();
        let mut members = BTreeMap::new();
        for node in reply.nodes {
            let id = NodeId::from_name(&node.name);
            // Written so that a weight that is not a number fails it too.
            if node.weight * f64::from(node.vnodes) <= POINTS_MAX {
                ring.push(RingNode { id, zone: node.zone.clone(), weight: node.weight, vnodes: node.vnodes });
            }
            let member = Member {
                name: node.name,
                address: node.client_address.into(),
                zone: node.zone,
                weight: node.weight,
                up: node.up,
            };
            members.insert(id, member);
        }
        let keyspaces = reply
            .keyspaces
            .into_iter()
            .map(|keyspace| (keyspace.name, (KeyspaceId(keyspace.id), keyspace.n as usize)))
            .collect();
        Topology { layout_version: reply.layout_version, members, keyspaces, ring: Ring::new(ring) }
    }

    /// Which layout it describes.
    pub fn layout_version(&self) -> u64 {
        self.layout_version
    }

    /// All nodes.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// The primaries of a key, first one first; none if the keyspace is not known here yet.
    pub fn primaries(&self, keyspace: &str, key: &[u8]) -> Vec<&Member> {
        let Some(&(id, n)) = self.keyspaces.get(keyspace) else { return Vec::new() };
        let primaries = self.ring.primaries(ring::token(id, key), n);
        primaries.iter().filter_map(|id| self.members.get(id)).collect()
    }

    /// Everybody whom a request for `key` may be sent to, best first, each address once.
    pub(crate) fn candidates(
        &self,
        target: Option<(&str, &[u8])>,
        seeds: &[Arc<str>],
        failing: impl Fn(&str) -> bool,
    ) -> Vec<Arc<str>> {
        let walk = match target.and_then(|(keyspace, key)| Some((*self.keyspaces.get(keyspace)?, key))) {
            Some(((id, n), key)) => self.ring.preference(ring::token(id, key), n, self.members.len()),
            None => Vec::new(),
        };
        let on_walk = walk.iter().filter_map(|id| self.members.get(id));
        let known =
            on_walk.chain(self.members.values()).map(|member| (Arc::clone(&member.address), member.up));
        let all = known.chain(seeds.iter().map(|seed| (Arc::clone(seed), true)));
        let mut candidates: Vec<(Arc<str>, bool)> = Vec::new();
        for (address, up) in all {
            if !address.is_empty() && candidates.iter().all(|(taken, _)| *taken != address) {
                candidates.push((address, up));
            }
        }
        candidates.sort_by_key(|(address, up)| (failing(address), !up));
        candidates.into_iter().map(|(address, _)| address).collect()
    }
}

#[cfg(test)]
#[path = "routing_test.rs"]
mod routing_test;
