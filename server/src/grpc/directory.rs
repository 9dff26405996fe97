//! Who is who in the cluster: names, addresses, shares of the ring.
//!
//! In: the configured members. Out: names for ids, and the topology that ring-aware clients
//! follow. Absent: who is up, which the driver knows.

use crate::config::{Config, Member};
use crate::peers::Refusals;
use merganser_core::catalog::Catalog;
use merganser_core::id::NodeId;
use merganser_core::ring::Ring;
use merganser_proto::v1::{TopologyKeyspace, TopologyNode, TopologyReply};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// The layout follows from the configuration and does not change while a cluster runs.
const LAYOUT_VERSION: u64 = 1;

pub(crate) struct Directory {
    pub(crate) cluster: String,
    pub(crate) this: NodeId,
    pub(crate) started: Instant,
    vnodes: u32,
    /// Why members are not linked.
    pub(crate) refusals: Arc<Refusals>,
    entries: BTreeMap<NodeId, Entry>,
}

/// A member.
pub(crate) struct Entry {
    pub(crate) member: Member,
    /// Of all keys, those of which it is the first primary.
    pub(crate) share: f64,
}

impl Directory {
    pub(crate) fn new(config: &Config, ring: &Ring) -> Directory {
        let entry = |member: &Member| {
            let id = NodeId::from_name(&member.name);
            (id, Entry { member: member.clone(), share: ring.share(id) })
        };
        Directory {
            cluster: config.cluster.name.clone(),
            this: NodeId::from_name(&config.node.name),
            started: Instant::now(),
            vnodes: config.cluster.vnodes,
            refusals: Arc::default(),
            entries: config.cluster.members.iter().map(entry).collect(),
        }
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (NodeId, &Entry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    /// The name of a node; of one that is no member, its id.
    pub(crate) fn name(&self, id: NodeId) -> String {
        self.entries.get(&id).map_or_else(|| format!("{id:?}"), |entry| entry.member.name.clone())
    }

    pub(crate) fn names(&self, ids: &[NodeId]) -> Vec<String> {
        ids.iter().map(|id| self.name(*id)).collect()
    }

    /// As clients see it. `linked`: whether the link to a peer is up.
    pub(crate) fn topology(&self, catalog: &Catalog, linked: impl Fn(NodeId) -> bool) -> TopologyReply {
        let node = |(id, Entry { member, .. }): (NodeId, &Entry)| TopologyNode {
            name: member.name.clone(),
            client_address: member.client_address.clone(),
            zone: member.zone.clone(),
            weight: member.weight,
            vnodes: self.vnodes,
            up: id == self.this || linked(id),
        };
        let keyspaces = catalog.keyspaces.values().map(|entry| TopologyKeyspace {
            name: entry.name.clone(),
            n: entry.settings.n,
            id: entry.id.0,
        });
        TopologyReply {
            layout_version: LAYOUT_VERSION,
            nodes: self.entries().map(node).collect(),
            keyspaces: keyspaces.collect(),
        }
    }
}
