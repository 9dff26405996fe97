//! Who is there, and as whom: the members, what each says of itself, and whether its heart beats.
//!
//! ```text
//!   period ─▶ own heart beats ─▶ digest to a few members ─▶ they answer ─▶ news, heartbeats
//!                │                                                           │
//!                └─▶ detector: up, suspect, down                entries: life, catalog, plugins
//!   boot   ─▶ joining: nothing is served until a member has told what it knows of this node's disk
//! ```
//!
//! Everything is reckoned in the node's own time (see [`detector`]); no decision reads a clock that
//! may jump. In: gossip, links, the period. Out: states for the coordinator, entries for the
//! catalog and the fence, notices. Absent: who the members are, which the configuration says.

pub(crate) mod detector;
mod exchange;
mod gossip;
mod join;
mod life;
mod view;

pub use detector::MemberState;
pub use gossip::{Beat, Gossip};
pub use join::RejoinReason;
pub use life::{Entry, Life};
pub use view::MemberView;

use crate::catalog::CatalogDigest;
use crate::config::Config;
use crate::event::Record;
use crate::event::{Durability, Effect, Effects, Notice, WriteOp};
use crate::id::{ActorId, DiskId, Millis, NodeId, PluginHash};
use crate::message::Message;
use crate::moment::Told;
use crate::mutant::Mutant;
use crate::node::{Node, Purpose, Timer};
use crate::storage_key;
use bytes::Bytes;
use detector::{Detector, OwnTime, Patience};
use join::Stage;
use life::Remembered;
use std::collections::{BTreeMap, BTreeSet};

/// A tick is taken after so long if anything was written meanwhile.
const TICK_MS: u64 = 10_000;
/// How often the time that members have been down is kept.
const DOWN_KEPT_MS: u64 = 60_000;

/// All that a node knows of the members.
pub(crate) struct Membership {
    time: OwnTime,
    patience: Patience,
    stage: Stage,
    /// What this node says of itself; its life only as far as it is durable.
    own: Entry,
    beat: u64,
    /// All other members.
    peers: BTreeMap<NodeId, Peer>,
    /// Disks that may not come back; at most one for each member, and none once it has another.
    forgotten: BTreeMap<NodeId, DiskId>,
    /// Of all members, as they say.
    dead_actors: BTreeSet<ActorId>,
    /// When the next tick of the own heart is due.
    due: Millis,
    /// Something that must outlive a boot is not kept yet.
    unkept: bool,
    down_kept_ms: u64,
    ticked_ms: u64,
    /// A state was stored since the last tick.
    stored: bool,
    pub(crate) counters: Counters,
}

/// Another member.
#[derive(Default)]
struct Peer {
    entry: Option<Entry>,
    /// The session of it that is on this node's disk.
    kept_session: Option<u64>,
    /// The same, being written.
    keeping: Option<u64>,
    /// Its own time.
    time: Option<Told>,
    /// Its latest heartbeat in the session of its entry.
    beat: u64,
    detector: Detector,
    /// As it was last told.
    told: Option<MemberState>,
    /// How long this node has seen it down.
    down_ms: u64,
    /// Sessions that were found to be of an old disk.
    old_session: Option<u64>,
    /// When the catalog was last sent to it, and in answer to which digest.
    pushed: Option<(u64, CatalogDigest)>,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) rounds: u64,
    pub(crate) entries: u64,
    pub(crate) downs: u64,
    pub(crate) old_disks: u64,
    pub(crate) refused_joining: u64,
}

impl Membership {
    pub(crate) fn new(config: &Config, identity: &crate::boot::Identity, session: u64) -> Membership {
        let address = match config.address.len() <= life::ADDRESS_BYTES_MAX {
            true => config.address.clone(),
            false => String::new(),
        };
        let life = Life {
            disk: identity.disk,
            boots: identity.boots,
            session,
            tick: identity.tick,
            actor: identity.incarnation.actor,
            former_actors: identity.former_actors.clone(),
            former_disks: identity.former_disks.clone(),
            address,
        };
        let catalog = CatalogDigest([0; 16]);
        let others = config.members.iter().map(|member| member.ring.id).filter(|id| *id != config.node);
        let mut membership = Membership {
            time: OwnTime::default(),
            patience: Patience {
                period_ms: config.gossip_period_ms,
                phi_suspect: config.phi_suspect,
                phi_down: config.phi_down,
            },
            stage: Stage::booted(identity.tick),
            own: Entry { node: config.node, revision: 1, life, catalog, ready: Vec::new() },
            beat: 1,
            peers: others.map(|id| (id, Peer::default())).collect(),
            forgotten: BTreeMap::new(),
            dead_actors: BTreeSet::new(),
            due: Millis(0),
            unkept: false,
            down_kept_ms: 0,
            ticked_ms: 0,
            stored: false,
            counters: Counters::default(),
        };
        membership.index_dead_actors();
        membership
    }

    /// A state has reached the disk: an image of it from before now is an older one.
    pub(crate) fn state_stored(&mut self) {
        self.stored = true;
    }

    /// What a member last said of itself.
    fn entry(&self, node: NodeId) -> Option<&Entry> {
        if node == self.own.node { Some(&self.own) } else { self.peers.get(&node)?.entry.as_ref() }
    }

    /// What is known of a member's own time.
    pub(crate) fn told_by(&self, node: NodeId) -> Option<Told> {
        self.peers.get(&node)?.time
    }

    /// What a member's catalog came to when it last said so.
    pub(crate) fn catalog_of(&self, node: NodeId) -> Option<CatalogDigest> {
        self.entry(node).map(|entry| entry.catalog)
    }

    /// Whether a member has said that it holds a plugin, compiled.
    pub(crate) fn has_ready(&self, node: NodeId, plugin: PluginHash) -> bool {
        self.entry(node).is_some_and(|entry| entry.ready.contains(&plugin))
    }

    fn index_dead_actors(&mut self) {
        let entries = || self.peers.values().filter_map(|peer| peer.entry.as_ref()).chain([&self.own]);
        let mut dead: BTreeSet<ActorId> =
            entries().flat_map(|entry| entry.life.former_actors.iter().copied()).collect();
        // Whatever anybody says: who issues dots is alive.
        entries().for_each(|entry| {
            dead.remove(&entry.life.actor);
        });
        self.dead_actors = dead;
    }

    fn remembered(&self) -> Remembered {
        let known = |(node, peer): (&NodeId, &Peer)| Some((*node, (peer.entry.clone()?, peer.down_ms)));
        Remembered {
            members: self.peers.iter().filter_map(known).collect(),
            forgotten: self.forgotten.clone(),
        }
    }
}

impl Node {
    /// Begins with what was known of the members before this boot, which is on the disk.
    pub(crate) fn start_membership(&mut self, now: Millis, effects: &mut Effects) {
        self.look_at_clock(now);
        self.membership.own.catalog = self.keyspaces.digest();
        self.membership.own.ready = self.keyspaces.ready();
        let first = 1 + self.random() % self.config.gossip_period_ms.max(1);
        self.tick_at(now.after(first));
        self.read_members(effects);
    }

    fn tick_at(&mut self, at: Millis) {
        self.clear_timer(self.membership.due, Timer::Gossip);
        self.membership.due = at;
        self.set_timer(at, Timer::Gossip);
    }

    /// With each event: own time goes on. A clock that was put back must not stop the heart.
    pub(crate) fn look_at_clock(&mut self, now: Millis) {
        let period = self.config.gossip_period_ms;
        if self.mutant(Mutant::FlapsOnOwnPause) {
            return self.membership.time.trust_clock(now);
        }
        if self.membership.time.look(now, period) && self.membership.due > now.after(period) {
            self.tick_at(now.after(period));
        }
    }

    /// The node's own tick.
    pub(crate) fn gossip_period(&mut self, now: Millis, effects: &mut Effects) {
        self.tick_at(now.after(self.config.gossip_period_ms));
        self.membership.time.tick();
        self.membership.beat += 1;
        self.look_at_members(now, effects);
        self.read_members_again(effects);
        self.store_identity_again(effects);
        if self.membership.patience_is_over(self.config.join_patience_ms) {
            self.leave_unvouched_actor(effects);
        }
        self.members_are_ready(now, effects);
        self.try_to_join(now, effects);
        self.gossip_with_some(effects);
        let m = &self.membership;
        if m.stored && m.time.lived_ms() - m.ticked_ms >= TICK_MS && !m.stage.is_joining() {
            self.membership.stored = false;
            self.membership.ticked_ms = self.membership.time.lived_ms();
            self.bump_tick(effects);
        }
        if self.membership.unkept && self.membership.stage.has_read() {
            self.membership.unkept = false;
            let op = self.members_op();
            let ticket = self.ticket(Purpose::Own);
            effects.push(Effect::Write { ticket, ops: vec![op], durability: Durability::Interval });
        }
    }

    /// The write that keeps what is known of the members: for a room that must be sure of it, in its
    /// own batch.
    pub(crate) fn members_op(&self) -> WriteOp {
        let record = Record { head: Bytes::new(), body: self.membership.remembered().encode() };
        WriteOp::Put { key: storage_key::members(), record }
    }

    /// Boots that have been heard of are kept at once: should that member come back with an older image of its disk,
    /// and this node have been started again meanwhile, it is still told.
    pub(super) fn keep_boots(&mut self, effects: &mut Effects) {
        let mut boots = Vec::new();
        for (node, peer) in &mut self.membership.peers {
            let session = peer.entry.as_ref().map(|entry| entry.life.session);
            if session.is_some() && session != peer.kept_session && session != peer.keeping {
                peer.keeping = session;
                boots.extend(session.map(|session| (*node, session)));
            }
        }
        if !boots.is_empty() {
            let op = self.members_op();
            let ticket = self.ticket(Purpose::Boots(boots));
            effects.push(Effect::Write { ticket, ops: vec![op], durability: Durability::Sync });
        }
    }

    /// Storage is done with boots of members; those that wait for it are told.
    pub(crate) fn boots_kept(&mut self, boots: Vec<(NodeId, u64)>, is_ok: bool, effects: &mut Effects) {
        for (node, session) in boots {
            let Some(peer) = self.membership.peers.get_mut(&node) else { continue };
            if peer.keeping == Some(session) {
                peer.keeping = None;
            }
            // If it could not be written, the member asks again.
            if is_ok {
                peer.kept_session = Some(session);
                self.tell_that_it_is_kept(node, effects);
            }
        }
    }

    fn look_at_members(&mut self, now: Millis, effects: &mut Effects) {
        let (lived_ms, multiplier) = (self.membership.time.lived_ms(), self.membership.time.multiplier());
        let patience = self.membership.patience;
        let nodes: Vec<NodeId> = self.membership.peers.keys().copied().collect();
        for node in nodes {
            let Some(peer) = self.membership.peers.get_mut(&node) else { continue };
            let went_down = peer.detector.look(lived_ms, &patience, multiplier);
            self.membership.counters.downs += u64::from(went_down);
            if peer.detector.state() == MemberState::Down {
                peer.down_ms += patience.period_ms;
                if peer.down_ms >= self.config.forget_ms {
                    self.forget(node, effects);
                }
            }
            self.state_may_differ(now, node, effects);
        }
        if lived_ms - self.membership.down_kept_ms >= DOWN_KEPT_MS {
            self.membership.down_kept_ms = lived_ms;
            self.membership.unkept |= self.membership.peers.values().any(|peer| peer.down_ms > 0);
        }
    }

    /// A member that has been down for too long: its disk may not come back.
    fn forget(&mut self, node: NodeId, effects: &mut Effects) {
        let Some(disk) = self.membership.entry(node).map(|entry| entry.life.disk) else { return };
        if self.membership.forgotten.insert(node, disk) != Some(disk) {
            self.membership.unkept = true;
            effects.push(Effect::Notice(Notice::Forgotten { node, disk }));
        }
    }

    /// Says so if a member's state is another than was last told.
    pub(crate) fn state_may_differ(&mut self, now: Millis, node: NodeId, effects: &mut Effects) {
        let state = self.state_of(node);
        let Some(peer) = self.membership.peers.get_mut(&node) else { return };
        let before = peer.told.replace(state);
        if before == Some(state) {
            return;
        }
        effects.push(Effect::Notice(Notice::Member { node, state }));
        if before == Some(MemberState::Down) && self.is_reachable(node) {
            self.member_is_reachable(now, node);
        }
    }

    /// A member can be reached again, or this node serves from now on: what waited for that begins.
    fn member_is_reachable(&mut self, now: Millis, node: NodeId) {
        self.hints_may_go_home(now, node);
    }

    /// What this node takes a member to be.
    pub fn state_of(&self, node: NodeId) -> MemberState {
        if node == self.config.node {
            return MemberState::Up;
        }
        match self.membership.peers.get(&node).map(|peer| peer.detector.state()) {
            Some(MemberState::Up) if !self.is_linked(node) => MemberState::Suspect,
            Some(state) => state,
            None => MemberState::Down,
        }
    }

    /// Whether messages of keys to `node` have a chance now; none has while this node does not serve.
    pub fn is_reachable(&self, node: NodeId) -> bool {
        let is_there = self.is_linked(node) && self.state_of(node) != MemberState::Down;
        node == self.config.node || (is_there && self.membership.is_serving())
    }

    /// Which boot of this node this is.
    pub(crate) fn session(&self) -> u64 {
        self.membership.own.life.session
    }

    /// What a member last said of itself; of this node, what is durable.
    pub fn life_of(&self, node: NodeId) -> Option<&Life> {
        self.membership.entry(node).map(|entry| &entry.life)
    }

    /// Whether the node of this actor has said that it never will be it again.
    pub fn is_dead_actor(&self, actor: ActorId) -> bool {
        self.membership.dead_actors.contains(&actor)
    }

    /// Whether a member was away for so long that what it has on its disk may not come back.
    pub fn is_forgotten(&self, node: NodeId) -> bool {
        let known = self.membership.entry(node).map(|entry| entry.life.disk);
        known.is_some() && self.membership.forgotten.get(&node).copied() == known
    }

    /// What of this node's life is durable is another than it told.
    pub(crate) fn own_life_changed(&mut self, now: Millis, effects: &mut Effects) {
        let durable = self.identity.durable();
        let life = &mut self.membership.own.life;
        life.boots = durable.boots;
        life.tick = durable.tick;
        life.actor = durable.incarnation.actor;
        life.former_actors = durable.former_actors.clone();
        life.former_disks = durable.former_disks.clone();
        self.membership.own.revision += 1;
        self.membership.index_dead_actors();
        self.try_to_join(now, effects);
    }

    /// What this node says of its catalog and plugins is another: those who wait hear it at once,
    /// the others by gossip.
    pub(crate) fn own_catalog_changed(&mut self, effects: &mut Effects) {
        let (catalog, mut ready) = (self.keyspaces.digest(), self.keyspaces.ready());
        ready.truncate(life::READY_MAX);
        let own = &mut self.membership.own;
        if own.catalog == catalog && own.ready == ready {
            return;
        }
        (own.catalog, own.ready) = (catalog, ready);
        own.revision += 1;
        let peers: Vec<NodeId> = self.linked().collect();
        peers.into_iter().for_each(|peer| self.tell_own(peer, effects));
    }

    /// Tells a member what this node says of itself.
    pub(crate) fn tell_own(&mut self, to: NodeId, effects: &mut Effects) {
        if self.membership.stage.has_read() {
            let gossip = Gossip::News { news: vec![self.membership.own.clone()], forgotten: None };
            effects.push(Effect::Send { to, message: Message::Gossip(gossip) });
        }
    }
}

#[cfg(test)]
mod membership_test;
