//! The node: routes each event to its room, and keeps what the rooms share.
//!
//! In: [`Event`]s, the time. Out: [`Effects`]. Shared here: who this node is, links, counters; in files of their own tickets
//! and timers. Absent: every decision about keys; see `coordinator` and `replica`.

use crate::anti_entropy::AntiEntropy;
use crate::boot;
use crate::catalog::Catalog;
use crate::config::Config;
use crate::coordinator::{
    Flights, Forwarding, Load, Paces, Reading, Replication, ViewCache, WriteBacks, Writing,
};
use crate::event::{Effects, Event};
use crate::fence::{Fence, FenceTask};
use crate::handoff::{HintTask, Hints};
use crate::hot_keys::HotKeys;
use crate::id::{ActorId, Millis, NodeId, OpId, Ticket};
use crate::identity::Identity;
use crate::keyspaces::Keyspaces;
use crate::membership::Membership;
use crate::message::Message;
use crate::recent::{ForwardedHere, Recent};
use crate::replica::{ActiveKey, Tending};
use crate::ring::Ring;
use crate::version::{Clock, Sealer};
use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::collections::{BTreeMap, BTreeSet};

mod origin;
mod status;
mod tickets;
mod timers;

pub(crate) use origin::Origin;
pub(crate) use status::Counters;
pub use status::Status;
pub(crate) use tickets::{PageSize, Purpose, ScanFor};
pub(crate) use timers::Timer;

/// One member of a cluster: all of its decisions.
pub struct Node {
    pub(crate) config: Config,
    pub(crate) ring: Ring,
    pub(crate) sealer: Sealer,
    pub(crate) clock: Clock,
    pub(crate) keyspaces: Keyspaces,
    // Boxed, here and below: these are large, and a map moves its values to make and close gaps.
    pub(crate) writing: BTreeMap<OpId, Box<Writing>>,
    pub(crate) replications: BTreeMap<OpId, Box<Replication>>,
    pub(crate) hints: Hints,
    pub(crate) reading: BTreeMap<OpId, Box<Reading>>,
    pub(crate) forwarding: BTreeMap<OpId, Forwarding>,
    pub(crate) recent: Recent,
    forwarded_here: ForwardedHere,
    pub(crate) write_backs: WriteBacks,
    pub(crate) active: BTreeMap<Bytes, Box<ActiveKey>>,
    pub(crate) tending: Tending,
    pub(crate) load: Load,
    pub(crate) worked_for_client_at: Millis,
    pub(crate) hot_keys: HotKeys,
    pub(crate) flights: Flights,
    pub(crate) view_cache: ViewCache,
    pub(crate) paces: Paces,
    pub(crate) anti_entropy: AntiEntropy,
    pub(crate) fence: Fence,
    pub(crate) counters: Counters,
    pub(crate) identity: Identity,
    pub(crate) membership: Membership,
    /// Keys of which it was said that they are too large.
    pub(crate) too_large: BTreeSet<Bytes>,
    /// See [`crate::moment`].
    pub(crate) running_ms: u64,
    rng: StdRng,
    links: BTreeSet<NodeId>,
    tickets: BTreeMap<Ticket, Purpose>,
    timers: BTreeSet<(Millis, Timer)>,
    next_ticket: u64,
    next_op: u64,
}

impl Node {
    /// A node that has not started: see [`crate::boot`] for what must be durable before.
    ///
    /// Panics if the configuration does not name the node among its members.
    pub fn new(mut config: Config, identity: boot::Identity, catalog: Catalog, seed: u64) -> Node {
        assert!(
            config.members.iter().any(|member| member.ring.id == config.node),
            "the node is one of the members"
        );
        // A heart that beats without end leaves no time for anything else.
        config.gossip_period_ms = config.gossip_period_ms.max(1);
        let ring = Ring::new(config.members.iter().map(|member| member.ring.clone()).collect());
        let mut rng = StdRng::seed_from_u64(seed);
        // Operations of an earlier boot must not match this one's.
        let next_op = rng.random::<u64>() >> 16;
        let session = rng.random();
        Node {
            sealer: Sealer::new(&config.cluster_secret),
            keyspaces: Keyspaces::new(catalog, &config),
            ring,
            clock: Clock::default(),
            writing: BTreeMap::new(),
            replications: BTreeMap::new(),
            hints: Hints::default(),
            reading: BTreeMap::new(),
            forwarding: BTreeMap::new(),
            recent: Recent::default(),
            forwarded_here: ForwardedHere::default(),
            write_backs: WriteBacks::default(),
            active: BTreeMap::new(),
            tending: Tending::default(),
            load: Load::default(),
            worked_for_client_at: Millis::default(),
            hot_keys: HotKeys::default(),
            flights: Flights::default(),
            view_cache: ViewCache::default(),
            paces: Paces::default(),
            anti_entropy: AntiEntropy::default(),
            fence: Fence::default(),
            counters: Counters::default(),
            membership: Membership::new(&config, &identity, session),
            identity: Identity::new(identity),
            too_large: BTreeSet::new(),
            running_ms: 0,
            rng,
            links: BTreeSet::new(),
            tickets: BTreeMap::new(),
            timers: BTreeSet::new(),
            next_ticket: 1,
            next_op: next_op.max(1),
            config,
        }
    }

    /// Begins its own work: call once, before any event.
    pub fn start(&mut self, now: Millis, effects: &mut Effects) {
        self.start_membership(now, effects);
        self.load_plugins(effects);
        self.load_leaves(effects);
        self.count_hints(None, effects);
        let first = self.random_below(self.config.anti_entropy_period_ms);
        self.set_timer(now.after(first), Timer::AntiEntropy);
        self.start_scrub(now, effects);
        self.start_fence(now);
    }

    /// Takes in one event and says what to do.
    pub fn handle(&mut self, now: Millis, event: Event, effects: &mut Effects) {
        self.look_at_clock(now);
        if !self.admits(&event, effects) {
            return;
        }
        let first = effects.len();
        self.take(now, event, effects);
        self.hold_tongue(first, effects);
        self.gate(effects, first);
        self.keep_to_frames(now, first, effects);
    }

    fn take(&mut self, now: Millis, event: Event, effects: &mut Effects) {
        match event {
            Event::Client { ticket, request } => {
                self.works_for_client(now);
                self.begin(now, Origin::Client { ticket, cost: None }, request, effects)
            }
            Event::Admin { ticket, request } => self.admin(now, ticket, request, effects),
            Event::Message { from, message } => self.message(now, from, message, effects),
            Event::Link { peer, up } => {
                if up {
                    self.links.insert(peer);
                    self.paces.forget(peer);
                    self.gossip_with(peer, effects);
                    self.hints_may_go_home(now, peer);
                } else {
                    self.links.remove(&peer);
                }
                self.state_may_differ(now, peer, effects);
            }
            Event::ReadDone { ticket, result } => match self.tickets.remove(&ticket) {
                Some(Purpose::ActiveRead(active)) => self.active_loaded(now, active, result, effects),
                Some(Purpose::LocalRead(op)) => self.local_read_done(now, op, result, effects),
                Some(Purpose::PeerRead { to, op, unless }) => {
                    self.peer_read_done(to, op, unless, result, effects)
                }
                Some(Purpose::Module(hash)) => self.module_read(hash, result, effects),
                Some(Purpose::Members) => self.members_read(now, result, effects),
                Some(Purpose::Hint(task)) => self.hint_task_read(now, task, result, effects),
                Some(Purpose::ScrubOwn(op)) => self.scrub_own_read(now, op, result, effects),
                Some(Purpose::Fence(FenceTask::Check(of, index))) => {
                    self.held_read(now, of, index, result, effects);
                }
                _ => {}
            },
            Event::Damaged { ranges } => self.damage_told(now, ranges),
            Event::ScanDone { ticket, result } => {
                if let Some(Purpose::Scan(scan)) = self.tickets.remove(&ticket) {
                    self.scanned(now, scan, result, effects);
                }
            }
            Event::WritesDone { tickets, result } => {
                for ticket in tickets {
                    match self.tickets.remove(&ticket) {
                        Some(Purpose::Write { active, completions, leaf, .. }) => {
                            self.membership.state_stored();
                            if let Some(leaf) = leaf {
                                self.tree_written(leaf, result.is_ok());
                            }
                            self.written(now, active, completions, &result, effects);
                        }
                        Some(Purpose::Leaf(leaf)) => self.tree_written(leaf, result.is_ok()),
                        Some(Purpose::Hint(HintTask::Removed(target, ids))) => {
                            self.hints_removed(target, &ids, &result, effects);
                        }
                        Some(Purpose::Identity) => self.identity_written(now, &result, effects),
                        Some(Purpose::Refill(step)) => self.refill_written(now, step, result.is_ok()),
                        Some(Purpose::Boots(boots)) => self.boots_kept(boots, result.is_ok(), effects),
                        Some(Purpose::Fence(task)) => self.members_kept(now, task, &result, effects),
                        _ => {}
                    }
                }
            }
            Event::PluginDone { ticket, answer } => match self.tickets.remove(&ticket) {
                Some(Purpose::Validate(op)) => self.validated(now, op, answer, effects),
                Some(Purpose::Active { key, ask }) => self.active_plugin_done(now, key, ask, answer, effects),
                Some(Purpose::View(op)) => self.view_done(now, op, answer, effects),
                _ => {}
            },
            Event::PluginLoaded { hash, result } => self.plugin_loaded(now, hash, result, effects),
            Event::TimerFired => self.timers_fired(now, effects),
        }
        self.finish_takings(now, effects);
    }

    fn message(&mut self, now: Millis, from: NodeId, message: Message, effects: &mut Effects) {
        if matches!(message, Message::Replicate { .. } | Message::Read { .. } | Message::Forward { .. }) {
            self.works_for_client(now);
        }
        match message {
            Message::Replicate { op, keyspace, key, record } => {
                self.replicate(now, from, op, keyspace, key, record, effects);
            }
            Message::Replicated { op, result } => self.replicated(now, from, op, result, effects),
            Message::Hint { op, target, keyspace, key, record } => {
                self.hint_received(now, from, op, target, keyspace, key, record, effects);
            }
            Message::Read { op, keyspace, key, unless, as_stand_in } => {
                self.peer_read(now, from, op, keyspace, key, unless, as_stand_in, effects)
            }
            Message::ReadReply { op, answer } => self.read_replied(now, from, op, answer, effects),
            Message::Forward { op, request } => {
                let is_first = self.forwarded_here.is_first(from, op);
                if is_first || self.mutant(crate::mutant::Mutant::RepeatedForwardIsDone) {
                    self.begin(now, Origin::Peer { node: from, op, cost: None }, request, effects);
                }
            }
            Message::Forwarded { op, outcome } => self.forwarded(op, outcome, effects),
            Message::Tree(exchange) => self.exchange(now, from, exchange, effects),
            Message::Fence(message) => self.fence_message(now, from, message, effects),
            Message::CatalogPush { catalog } => self.catalog_pushed(now, from, catalog, effects),
            Message::Gossip(gossip) => self.gossip(now, from, gossip, effects),
            Message::Scrub(check) => self.scrub_message(now, from, check, effects),
            Message::PluginFetch { hash, offset } => self.plugin_fetch(from, hash, offset, effects),
            Message::PluginChunk { hash, offset, size_bytes, bytes } => {
                self.plugin_chunk(from, hash, offset, size_bytes, bytes, effects);
            }
        }
    }

    /// The catalog as this node knows it.
    pub fn catalog(&self) -> &Catalog {
        self.keyspaces.catalog()
    }

    /// The ring.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Whether a link to `node` is up.
    pub(crate) fn is_linked(&self, node: NodeId) -> bool {
        self.links.contains(&node)
    }

    /// Peers that can be reached.
    pub(crate) fn linked(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.links.iter().copied()
    }

    /// As whom this node issues dots.
    pub(crate) fn actor(&self) -> ActorId {
        self.identity.now().incarnation.actor
    }

    pub(crate) fn op(&mut self) -> OpId {
        let op = OpId(self.next_op);
        self.next_op += 1;
        op
    }

    /// Chance, from the shell's seed.
    pub(crate) fn random(&mut self) -> u64 {
        self.rng.random()
    }

    /// A number from 0 to below `bound`; 0 if that is 0.
    pub(crate) fn random_below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.rng.random_range(0..bound) }
    }

    /// Whether to behave as this bug does. Always false outside of simulations.
    pub(crate) fn mutant(&self, mutant: crate::mutant::Mutant) -> bool {
        #[cfg(feature = "mutants")]
        return self.config.mutant == Some(mutant);
        #[cfg(not(feature = "mutants"))]
        {
            let _ = mutant;
            false
        }
    }
}

#[cfg(test)]
mod node_test;
