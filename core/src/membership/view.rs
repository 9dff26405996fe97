//! The members as an operator sees them. In: what the node knows. Out: plain data. Absent: how it
//! is shown.

use super::detector::MemberState;
use crate::id::{ActorId, DiskId, Millis, NodeId};
use crate::node::Node;

/// A member, as this node takes it to be.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberView {
    /// Which.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Of this node itself: up.
    pub state: MemberState,
    /// A link to it is up.
    pub linked: bool,
    /// Suspicion; 0 of this node itself.
    pub phi: f64,
    /// By how much this node is more patient for doubt in its own health; 1 in good health.
    pub multiplier: u32,
    /// How long ago its heart was last heard to beat; None if not since this node's boot.
    pub last_heard_ms: Option<u64>,
    /// Its disk, as it says; None if it was never heard of.
    pub disk: Option<DiskId>,
    /// How many boots it has had.
    pub boots: u64,
    /// Raised now and then on one disk.
    pub tick: u64,
    /// Who issues its dots.
    pub actor: Option<ActorId>,
    /// Where it says that it is found.
    pub address: String,
    /// For how long this node has seen it down.
    pub down_ms: u64,
    /// It was down for so long that its disk may not come back.
    pub forgotten: bool,
    /// Of this node itself: it has booted and does not serve yet.
    pub joining: bool,
}

impl Node {
    /// All members, this one included, in the order of the configuration.
    pub fn members(&self, _now: Millis) -> Vec<MemberView> {
        self.config.members.iter().map(|member| self.member(member.ring.id, &member.name)).collect()
    }

    /// The multiplier of the own health; how many other members are suspect, and down.
    pub(crate) fn presence(&self) -> (u64, u64, u64) {
        let count = |state| {
            let is_it = |node: &&NodeId| self.state_of(**node) == state;
            self.membership.peers.keys().filter(is_it).count() as u64
        };
        let multiplier = u64::from(self.membership.time.multiplier());
        (multiplier, count(MemberState::Suspect), count(MemberState::Down))
    }

    fn member(&self, node: NodeId, name: &str) -> MemberView {
        let m = &self.membership;
        let lived_ms = m.time.lived_ms();
        let life = self.life_of(node);
        let peer = m.peers.get(&node);
        let is_self = node == self.config.node;
        MemberView {
            node,
            name: name.to_owned(),
            state: self.state_of(node),
            linked: is_self || self.is_linked(node),
            phi: peer.map_or(0.0, |peer| peer.detector.phi(lived_ms, &m.patience)),
            multiplier: m.time.multiplier(),
            last_heard_ms: match peer {
                Some(peer) => peer.detector.last_heard_ms().map(|at| lived_ms.saturating_sub(at)),
                None => Some(0),
            },
            disk: life.map(|life| life.disk),
            boots: life.map_or(0, |life| life.boots),
            tick: life.map_or(0, |life| life.tick),
            actor: life.map(|life| life.actor),
            address: life.map_or_else(String::new, |life| life.address.clone()),
            down_ms: peer.map_or(0, |peer| peer.down_ms),
            forgotten: self.is_forgotten(node),
            joining: is_self && !m.is_serving(),
        }
    }
}
