//! What the node does by itself, as the Cluster service tells it.
//!
//! In: core's views. Out: the wire's messages. Absent: figures; those are metrics.

use super::directory::Directory;
use crate::driver::Snapshot;
use merganser_core::handoff::HintState;
use merganser_core::membership::MemberState;
use merganser_proto::v1::{
    CollectionProgress, CollectionReply, Equality, HintsFor, HintsReply, HotKey, HotKeysReply, NodeStatus,
    RepairReply, Scrub,
    node_status::{Health, Link},
};

pub(super) fn nodes(snapshot: &Snapshot, directory: &Directory) -> Vec<NodeStatus> {
    let node = |(id, entry): (_, &super::directory::Entry)| {
        let view = snapshot.members.iter().find(|view| view.node == id);
        let is_self = id == directory.this;
        let (link, health) = match view {
            _ if is_self => (Link::Self_, Health::Self_),
            Some(view) => {
                let link = if view.linked { Link::Up } else { Link::Down };
                let health = match view.state {
                    MemberState::Up => Health::Up,
                    MemberState::Suspect => Health::Suspect,
                    MemberState::Down => Health::Down,
                };
                (link, health)
            }
            None => (Link::Down, Health::Unspecified),
        };
        NodeStatus {
            name: entry.member.name.clone(),
            client_address: entry.member.client_address.clone(),
            peer_address: entry.member.peer_address.clone(),
            zone: entry.member.zone.clone(),
            weight: entry.member.weight,
            share: entry.share,
            link: link.into(),
            health: health.into(),
            phi: view.map_or(0.0, |view| view.phi),
            last_heard_ms: view.and_then(|view| view.last_heard_ms),
            disk: view.and_then(|view| view.disk).map_or(0, |disk| disk.0),
            boots: view.map_or(0, |view| view.boots),
            incarnation: view.and_then(|view| view.actor).map_or(0, |actor| actor.0),
            announced_address: view.map_or_else(String::new, |view| view.address.clone()),
            forgotten: view.is_some_and(|view| view.forgotten),
            link_refused: match link {
                Link::Down => directory.refusals.of(id).unwrap_or_default(),
                _ => String::new(),
            },
            joining: view.is_some_and(|view| view.joining),
        }
    };
    directory.entries().map(node).collect()
}

pub(super) fn hints(snapshot: Snapshot, directory: &Directory) -> HintsReply {
    let of = |view: merganser_core::handoff::HintView| HintsFor {
        target: directory.name(view.target),
        count: view.count,
        bytes: view.bytes,
        oldest_ms: view.oldest_ms.unwrap_or(0),
        dropped: view.dropped,
        going_home: view.state == HintState::GoingHome,
    };
    HintsReply { targets: snapshot.hints.into_iter().map(of).collect() }
}

pub(super) fn collection(snapshot: Snapshot, directory: &Directory) -> CollectionReply {
    let view = snapshot.collection;
    let of = |progress: merganser_core::fence::CollectionProgress| CollectionProgress {
        keyspace: progress.keyspace,
        slots: progress.slots,
        tombstones: progress.keys,
    };
    CollectionReply {
        tombstones: view.tombstones_known,
        oldest_ms: view.oldest_ms,
        waiting_for: view.waiting_for.into_iter().map(|node| directory.name(node)).collect(),
        rounds: view.rounds,
        rounds_blocked: view.blocked,
        confirmed: view.confirmed,
        collected: view.reaped,
        retired: view.retired,
        refused: view.refused,
        last_round_ms: view.last_round_ms,
        graves: view.graves,
        largest_context: view.largest_context,
        looking_back: view.looking_back,
        keyspaces: view.keyspaces.into_iter().map(of).collect(),
    }
}

pub(super) fn hot_keys(snapshot: Snapshot) -> HotKeysReply {
    let of = |view: merganser_core::hot_keys::HotKeyView| HotKey {
        keyspace: view.keyspace,
        key: view.key,
        reads_per_second: view.reads_per_s,
        writes_per_second: view.writes_per_s,
        share: view.share,
    };
    HotKeysReply { keys: snapshot.hot_keys.into_iter().map(of).collect() }
}

pub(super) fn repair(snapshot: Snapshot, directory: &Directory) -> RepairReply {
    let of = |view: merganser_core::anti_entropy::RepairView| Equality {
        keyspace: view.keyspace,
        peer: directory.name(view.peer),
        proven_equal_ms_ago: view.proven_equal_ms_ago,
        ranges: view.branches as u32,
        ranges_differing: view.branches_differing as u32,
        keys_sent: view.keys_sent,
        bytes_sent: view.bytes_sent,
    };
    let scrub = Scrub {
        walks: snapshot.scrub.passes,
        records: snapshot.scrub.records,
        bytes: snapshot.scrub.bytes,
        rot_found: snapshot.scrub.rot_found,
        divergences: snapshot.scrub.divergences,
        repaired: snapshot.scrub.repaired,
        damaged: snapshot.scrub.damaged as u64,
        evidence: snapshot.scrub.evidence as u64,
    };
    RepairReply { equalities: snapshot.repair.into_iter().map(of).collect(), scrub: Some(scrub) }
}
