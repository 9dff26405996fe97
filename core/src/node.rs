//! The node: routes each event to its room, and keeps what the rooms share.
//!
//! In: [`Event`]s, the time. Out: [`Effects`]. Shared here: who this node is, tickets and timers,
//! links, counters. Absent: every decision about keys; see `coordinator` and `replica`.

use crate::anti_entropy::scrub::{Comparing, RefillStep, ScrubPage, Serving};
use crate::anti_entropy::{AntiEntropy, KeysAsked, LostLeaves, Rescan, StatesAsked, TreeWrite, WorkScan};
use crate::boot;
use crate::catalog::Catalog;
use crate::config::Config;
use crate::coordinator::{
    Flights, Forwarding, Load, Paces, Reading, Replication, ViewCache, WriteBacks, Writing,
};
use crate::event::{Effect, Effects, Event, ScanPage, StorageFailure};
use crate::fence::{Fence, FenceScan, FenceTask};
use crate::handoff::{HintTask, Hints, PassOf};
use crate::hot_keys::HotKeys;
use crate::id::{ActorId, ClientTicket, Millis, NodeId, OpId, PluginHash, Ticket};
use crate::identity::Identity;
use crate::keyspaces::Keyspaces;
use crate::membership::Membership;
use crate::message::Message;
use crate::recent::{ForwardedHere, Recent};
use crate::replica::{ActiveKey, Completion};
use crate::request::{Outcome, Problem};
use crate::ring::Ring;
use crate::version::{Clock, Digest, Sealer};
use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::collections::{BTreeMap, BTreeSet};

mod status;

pub(crate) use status::Counters;
pub use status::Status;

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
    rng: StdRng,
    links: BTreeSet<NodeId>,
    tickets: BTreeMap<Ticket, Purpose>,
    timers: BTreeSet<(Millis, Timer)>,
    next_ticket: u64,
    next_op: u64,
}

/// What a ticket's answer is for.
pub(crate) enum Purpose {
    /// The state of an active key.
    ActiveRead(Bytes),
    /// A coordinated read's local part.
    LocalRead(OpId),
    /// A peer's read.
    PeerRead { to: NodeId, op: OpId, unless: Option<Digest> },
    /// Completions that wait for a write: of an active key, or a register's, or hints; and an object's leaf.
    Write {
        active: Option<Bytes>,
        register: Option<Bytes>,
        completions: Vec<Completion>,
        leaf: Option<TreeWrite>,
    },
    /// What a rescan found.
    Leaf(TreeWrite),
    /// This node's identity.
    Identity,
    /// What was known of the members before this boot.
    Members,
    /// One's own record, which a peer's is to replace.
    ScrubOwn(OpId),
    /// A range that is written anew.
    Refill(RefillStep),
    /// A page of a range.
    Scan(ScanFor),
    /// Something of hints.
    Hint(HintTask),
    /// Boots of members that are to outlive this one.
    Boots(Vec<(NodeId, u64)>),
    /// Something of a collection's round.
    Fence(FenceTask),
    /// Catalog or module: nobody waits.
    Own,
    /// A module's bytes.
    Module(PluginHash),
    /// A put's value before it is accepted.
    Validate(OpId),
    /// An active key's join or operation.
    Active(Bytes),
    /// A read's view.
    View(OpId),
}

/// What a scan's page is for: one variant a room.
pub(crate) enum ScanFor {
    /// Leaves of all trees, at the start.
    Leaves { to: Bytes },
    /// Which slots have keys, of leaves that cannot be read.
    LostLeaves(LostLeaves),
    /// A leaf anew.
    Leaf(Rescan),
    /// Hints from before the start.
    HintCount,
    /// Hints for a target that is back.
    HintsHome(PassOf),
    /// Own keys of a slot that differs from a peer's.
    Work { id: OpId, scan: WorkScan },
    /// Own keys that a peer asks about.
    Keys(KeysAsked),
    /// Own states that a peer asks for.
    States(StatesAsked),
    /// Own records, to be held against their digests.
    Scrub(ScrubPage),
    /// Own heads, which a peer's keys are held against.
    ScrubCompare(Box<Comparing>),
    /// Own records for a peer.
    ScrubFetch(Serving),
    /// Evidence, to be counted.
    Evidence,
    /// The number of the last damage.
    Damage,
    /// Keys to be collected.
    Fence(FenceScan),
}

/// How much of a range is read at once, and whether with its values.
pub(crate) struct PageSize {
    records_max: usize,
    bytes_max: usize,
    heads_only: bool,
}

impl PageSize {
    /// Heads alone.
    pub(crate) fn heads(records_max: usize, bytes_max: usize) -> PageSize {
        PageSize { records_max, bytes_max, heads_only: true }
    }

    /// Whole records.
    pub(crate) fn records(records_max: usize, bytes_max: usize) -> PageSize {
        PageSize { records_max, bytes_max, heads_only: false }
    }
}

/// What a time that has come is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A write's patience is over.
    Write(OpId),
    /// A read's patience is over.
    Read(OpId),
    /// A read has waited long enough for the replicas it asked.
    Hedge(OpId),
    /// Primaries have not acknowledged a replication.
    StandIn(OpId),
    /// Hints may go home.
    Hints,
    /// A forwarded request's patience is over.
    Forward(OpId),
    /// The own heart beats; gossip; look at the members.
    Gossip,
    /// Some keys may be due for write-back.
    WriteBack,
    /// The identity could not be made durable.
    Identity,
    /// The leaves could not be read.
    LoadLeaves,
    /// Compare trees with a peer.
    AntiEntropy,
    /// Look after the round under way.
    Exchange,
    /// The budget of repair allows another leaf to be read anew.
    Rescans,
    /// The budget of repair allows another message, or another slot.
    Budget,
    /// The scrub goes on.
    Scrub,
    /// Look for what is to be collected; forget graves.
    Collect,
}

/// Where an outcome goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A client of this node; what its request costs, once it was taken on.
    Client { ticket: ClientTicket, cost: Option<u32> },
    /// A peer that forwarded its client's request.
    Peer { node: NodeId, op: OpId, cost: Option<u32> },
    /// This node's own write-back (R3).
    Owner,
}

impl Origin {
    /// Taken on: its answer makes room again.
    pub(crate) fn costing(self, cost: u32) -> Origin {
        let cost = Some(cost);
        match self {
            Origin::Client { ticket, .. } => Origin::Client { ticket, cost },
            Origin::Peer { node, op, .. } => Origin::Peer { node, op, cost },
            Origin::Owner => Origin::Owner,
        }
    }
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
                Some(Purpose::Active(active)) => self.active_plugin_done(now, active, answer, effects),
                Some(Purpose::View(op)) => self.view_done(now, op, answer, effects),
                _ => {}
            },
            Event::PluginLoaded { hash, result } => self.plugin_loaded(now, hash, result, effects),
            Event::TimerFired => self.timers_fired(now, effects),
        }
        self.finish_takings(now, effects);
    }

    /// A page of a range has come, or why there is none.
    fn scanned(
        &mut self,
        now: Millis,
        scan: ScanFor,
        result: Result<ScanPage, StorageFailure>,
        effects: &mut Effects,
    ) {
        match scan {
            ScanFor::Leaves { to } => self.leaves_scanned(now, to, result, effects),
            ScanFor::LostLeaves(lost) => self.lost_leaves_scanned(now, lost, result, effects),
            ScanFor::HintCount => self.hints_counted(now, result, effects),
            ScanFor::HintsHome(pass) => self.hints_scanned(now, pass, result, effects),
            ScanFor::Leaf(rescan) => self.leaf_scanned(now, rescan, result, effects),
            ScanFor::Work { id, scan } => self.work_scanned(now, id, scan, result, effects),
            ScanFor::Keys(asked) => self.keys_scanned(asked, result, effects),
            ScanFor::States(asked) => self.states_read(now, asked, result, effects),
            ScanFor::Scrub(page) => self.scrub_page_read(now, page, result, effects),
            ScanFor::ScrubCompare(comparing) => self.compared(now, *comparing, result, effects),
            ScanFor::ScrubFetch(serving) => self.fetch_read(serving, result, effects),
            ScanFor::Evidence => self.evidence_counted(result),
            ScanFor::Damage => self.damage_numbered(now, result, effects),
            ScanFor::Fence(scan) => self.fence_scanned(now, scan, result, effects),
        }
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

    /// When [`Event::TimerFired`] is next wanted; never again by a node that has fallen silent.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.timers.first().filter(|_| !self.membership.is_leaving()).map(|(at, _)| *at)
    }

    fn timers_fired(&mut self, now: Millis, effects: &mut Effects) {
        while let Some((at, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Write(op) => self.write_timed_out(now, op, effects),
                Timer::Read(op) => self.read_timed_out(now, op, effects),
                Timer::Hedge(op) => self.hedge(now, op, effects),
                Timer::StandIn(op) => self.stand_ins_due(now, op, effects),
                Timer::Hints => self.hints_period(now, effects),
                Timer::Forward(op) => self.forward_timed_out(op, effects),
                Timer::Gossip => self.gossip_period(now, effects),
                Timer::WriteBack => self.write_backs_due(now, effects),
                Timer::Identity => self.store_identity(effects),
                Timer::LoadLeaves => self.load_leaves(effects),
                Timer::AntiEntropy => self.begin_round(now, effects),
                Timer::Exchange => self.check_round(now, effects),
                Timer::Rescans => self.go_on_rescanning(now, effects),
                Timer::Budget => self.repair_goes_on(now, effects),
                Timer::Scrub => self.scrub_due(now, effects),
                Timer::Collect => self.collect_period(now, effects),
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

    pub(crate) fn ticket(&mut self, purpose: Purpose) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.tickets.insert(ticket, purpose);
        ticket
    }

    /// Asks for the first page of a range: from, inclusive, and to, exclusive.
    pub(crate) fn scan(
        &mut self,
        scan: ScanFor,
        range: (Bytes, Bytes),
        page: PageSize,
        effects: &mut Effects,
    ) {
        let ticket = self.ticket(Purpose::Scan(scan));
        let ((from, to), PageSize { records_max, bytes_max, heads_only }) = (range, page);
        effects.push(Effect::Scan { ticket, from, to, records_max, bytes_max, heads_only });
    }

    /// Those that wait for a write under way.
    pub(crate) fn completions_of(&mut self, ticket: Ticket) -> Option<&mut Vec<Completion>> {
        match self.tickets.get_mut(&ticket) {
            Some(Purpose::Write { completions, .. }) => Some(completions),
            _ => None,
        }
    }

    /// Registers whose write is under way.
    pub(crate) fn registers_under_way(&self) -> impl Iterator<Item = &Bytes> {
        self.tickets.values().filter_map(|purpose| match purpose {
            Purpose::Write { register, .. } => register.as_ref(),
            _ => None,
        })
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

    pub(crate) fn set_timer(&mut self, at: Millis, timer: Timer) {
        self.timers.insert((at, timer));
    }

    pub(crate) fn clear_timer(&mut self, at: Millis, timer: Timer) {
        self.timers.remove(&(at, timer));
    }

    /// Tells whoever asked.
    pub(crate) fn answer(&mut self, origin: Origin, outcome: Outcome, effects: &mut Effects) {
        if matches!(outcome, Outcome::Failed(_)) {
            self.counters.refused += 1;
        }
        let cost = match origin {
            Origin::Client { ticket, cost } => {
                effects.push(Effect::Reply { ticket, outcome });
                cost
            }
            Origin::Peer { node: to, op, cost } => {
                effects.push(Effect::Send { to, message: Message::Forwarded { op, outcome } });
                cost
            }
            Origin::Owner => None,
        };
        if let Some(cost) = cost {
            self.load.release(cost);
        }
    }

    pub(crate) fn refuse(&mut self, origin: Origin, problem: Problem, effects: &mut Effects) {
        self.answer(origin, Outcome::Failed(problem), effects);
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
