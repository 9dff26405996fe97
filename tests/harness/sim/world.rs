//! The world: everything that a run consists of, and its queue of events in order of
//! (time, sequence).
//!
//! In: options. Out: the same run for the same options, step by step, until [`World::is_over`] or
//! a violation. Absent: what each event does in its room: `effects` (nodes), `clients`, `faults`,
//! `settle` (healing, and coming together).

use super::clients::{Attempt, Client};
use super::dice::Dice;
use super::faults::Undo;
use super::machine::{BootFailure, Fresh, Machine};
use super::network::Network;
use super::options::Options;
use super::plugins::Plugin;
use super::presence::Presence;
use super::trace::Trace;
use super::workload;
use crate::history::{History, KeyIndex};
use crate::properties::{Check, Violation, broken, c14_progress};
use bytes::Bytes;
use merganser_core::catalog::Catalog;
use merganser_core::config::{Config, Member};
use merganser_core::event::{Effects, Event};
use merganser_core::id::{KeyspaceId, Millis, NodeId, OpId, Ticket};
use merganser_core::ring::RingNode;
use merganser_core::version::{DotSet, Sealer};
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};

const SECRET: &[u8] = b"the simulated cluster's secret";

/// Something that will happen.
pub(super) enum Due {
    /// A message arrives; lost if the process it was sent to has died since, as its connection has.
    Deliver { from: usize, to: usize, boot: u64, bytes: Bytes },
    /// A node hears something; lost if it has booted again since.
    Tell { node: usize, boot: u64, event: Box<Event> },
    /// A read that was asked for is done now.
    Read { node: usize, boot: u64, ticket: Ticket, key: Bytes },
    /// A node's storage does one unit of work.
    Disk { node: usize, boot: u64 },
    /// A node's deadline has come.
    Timer { node: usize, boot: u64, number: u64 },
    /// A client goes on.
    Client { client: usize },
    /// A client sends again what was acknowledged.
    Repeat { client: usize, ticket: u64 },
    /// A client has waited long enough.
    GiveUp { client: usize, ticket: u64 },
    /// The next fault.
    Fault,
    /// The end of a fault.
    Undo(Undo),
}

struct Scheduled {
    at_us: u64,
    sequence: u64,
    due: Due,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        (self.at_us, self.sequence) == (other.at_us, other.sequence)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> std::cmp::Ordering {
        (other.at_us, other.sequence).cmp(&(self.at_us, self.sequence))
    }
}

/// How much of what happened, over one run or many.
pub type Coverage = BTreeMap<String, u64>;

/// All of it.
pub(super) struct World {
    pub(super) options: Options,
    pub(super) now_us: u64,
    /// The furthest that any node has seen its clock go.
    pub(super) latest_clock: Millis,
    queue: BinaryHeap<Scheduled>,
    sequence: u64,
    pub(super) events: u64,
    pub(super) machines: Vec<Machine>,
    pub(super) network: Network,
    pub(super) clients: Vec<Client>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) ops_left: u64,
    pub(super) history: History,
    pub(super) sealer: Sealer,
    pub(super) trace: Trace,
    pub(super) coverage: Coverage,
    pub(super) catalog: Catalog,
    pub(super) dice: Dice,
    pub(super) fault_dice: Dice,
    pub(super) client_dice: Dice,
    /// Faults happen; off from [`World::heal`] on.
    pub(super) trouble: bool,
    /// All is well, and a request that fails is a violation.
    pub(super) healthy: bool,
    /// Plugins give no answers at all.
    pub(super) plugins_out: bool,
    pub(super) presence: Presence,
    /// When a node was last told of a link: what is told last is true.
    pub(super) link_told_us: BTreeMap<(usize, usize), u64>,
    /// Which key an outstanding read between nodes is of.
    pub(super) reads: HashMap<(usize, OpId), KeyIndex>,
    pub(super) key_of_storage: HashMap<Bytes, KeyIndex>,
    pub(super) key_of_name: HashMap<(KeyspaceId, Bytes), KeyIndex>,
    /// What the state that a node last wrote of a key had seen, in this boot.
    pub(super) last_seen: HashMap<(usize, KeyIndex), DotSet>,
    /// Heads of states that were judged before.
    pub(super) judged: HashSet<(KeyIndex, u64)>,
    /// Reused between turns.
    pub(super) effects: Effects,
}

impl World {
    pub(super) fn new(options: Options, lines: bool) -> World {
        let dice = &mut Dice::new(options.seed).fork(2);
        let (catalog, keys) = workload::keyspaces(&options);
        let machines = (0..options.nodes).map(|index| Machine::new(format!("n{index}"))).collect::<Vec<_>>();
        let key_of_storage = keys.iter().enumerate().map(|(i, key)| (key.storage_key.clone(), i)).collect();
        let key_of_name =
            keys.iter().enumerate().map(|(i, key)| ((key.keyspace_id, key.key.clone()), i)).collect();
        World {
            now_us: 0,
            latest_clock: Millis(0),
            queue: BinaryHeap::new(),
            sequence: 0,
            events: 0,
            network: Network::new(machines.len(), dice.fork(1)),
            machines,
            clients: (0..options.clients).map(|_| Client::new(keys.len())).collect(),
            attempts: Vec::new(),
            ops_left: options.ops,
            history: History::of(keys),
            sealer: Sealer::new(SECRET),
            trace: Trace::new(lines),
            coverage: Coverage::new(),
            catalog,
            dice: dice.fork(2),
            fault_dice: dice.fork(3),
            client_dice: dice.fork(4),
            trouble: true,
            healthy: false,
            plugins_out: false,
            presence: Presence::default(),
            link_told_us: BTreeMap::new(),
            reads: HashMap::new(),
            key_of_storage,
            key_of_name,
            last_seen: HashMap::new(),
            judged: HashSet::new(),
            effects: Effects::new(),
            options,
        }
    }

    /// All processes start.
    pub(super) fn begin(&mut self) -> Check {
        for node in 0..self.machines.len() {
            if self.options.skew_ms_max > 0 {
                let skew = self.dice.below(2 * self.options.skew_ms_max + 1) as i64;
                self.machines[node].skew_ms = skew - self.options.skew_ms_max as i64;
            }
            self.boot(node)?;
        }
        Ok(())
    }

    /// The whole run.
    pub(super) fn run(&mut self) -> Check {
        self.begin()?;
        for client in 0..self.clients.len() {
            let think = self.client_dice.below(20_000);
            self.schedule(think, Due::Client { client });
        }
        if self.options.faults != 0 {
            let first = self.fault_dice.below(self.options.fault_period_us);
            self.schedule(first, Due::Fault);
        }
        while !self.clients_are_done() {
            c14_progress::on_clients(self.now_us)?;
            self.step()?;
        }
        self.heal()?;
        self.ask_in_health()?;
        self.come_together()
    }

    /// After so many microseconds.
    pub(super) fn schedule(&mut self, after_us: u64, due: Due) {
        self.sequence += 1;
        let at_us = self.now_us.saturating_add(after_us);
        self.queue.push(Scheduled { at_us, sequence: self.sequence, due });
    }

    /// Lets time pass.
    pub(super) fn run_for(&mut self, us: u64) -> Check {
        let until = self.now_us + us;
        while self.queue.peek().is_some_and(|next| next.at_us <= until) {
            self.step()?;
        }
        self.now_us = until;
        Ok(())
    }

    /// The next event.
    pub(super) fn step(&mut self) -> Check {
        let Some(Scheduled { at_us, due, .. }) = self.queue.pop() else {
            return broken("C14", "nothing is left to happen".into());
        };
        self.events += 1;
        c14_progress::on_step(self.events, self.queue.len())?;
        self.now_us = at_us;
        // A paused process hears nothing until it goes on; then, in order, all of it.
        let node = match &due {
            Due::Deliver { to, .. } => Some(*to),
            Due::Tell { node, .. }
            | Due::Read { node, .. }
            | Due::Disk { node, .. }
            | Due::Timer { node, .. } => Some(*node),
            _ => None,
        };
        if let Some(until) = node.and_then(|node| self.machines[node].paused_until_us) {
            self.schedule(until.saturating_sub(at_us), due);
            return Ok(());
        }
        match due {
            Due::Deliver { from, to, boot, bytes } if self.is_boot(to, boot) => self.deliver(from, to, bytes),
            Due::Tell { node, boot, event } if self.is_boot(node, boot) => self.feed(node, *event),
            Due::Read { node, boot, ticket, key } if self.is_boot(node, boot) => {
                self.read(node, ticket, &key)
            }
            Due::Disk { node, boot } if self.is_boot(node, boot) => self.disk_turn(node),
            Due::Timer { node, boot, number } if self.is_boot(node, boot) => self.timer(node, number),
            Due::Deliver { .. }
            | Due::Tell { .. }
            | Due::Read { .. }
            | Due::Disk { .. }
            | Due::Timer { .. } => Ok(()),
            Due::Client { client } => self.client_goes_on(client),
            Due::Repeat { client, ticket } => self.repeat(client, ticket),
            Due::GiveUp { client, ticket } => self.client_gives_up(client, ticket),
            Due::Fault => self.fault(),
            Due::Undo(undo) => self.undo(undo),
        }
    }

    fn is_boot(&self, node: usize, boot: u64) -> bool {
        self.machines[node].process.as_ref().is_some_and(|process| process.boot == boot)
    }

    pub(super) fn count(&mut self, what: &str) {
        match self.coverage.get_mut(what) {
            Some(count) => *count += 1,
            None => {
                self.coverage.insert(what.to_string(), 1);
            }
        }
    }

    pub(super) fn node_of(&self, id: NodeId) -> Option<usize> {
        self.machines.iter().position(|machine| machine.id == id)
    }

    fn config(&self, node: usize) -> Config {
        let member = |machine: &Machine| Member {
            name: machine.name.clone(),
            ring: RingNode { id: machine.id, zone: String::new(), weight: 1.0, vnodes: 8 },
        };
        let members = self.machines.iter().map(member).collect();
        let mut config = Config::new(self.machines[node].id, members, SECRET.to_vec());
        config.built_in = Plugin::ALL.iter().map(|plugin| plugin.entry()).collect();
        config.timeout_ms = 1_000;
        // A line from before there was gossip does not name it.
        config.gossip_period_ms = match self.options.gossip_period_ms {
            0 => 500,
            period_ms => period_ms,
        };
        config.scrub_period_ms = 2_000;
        config.address = self.machines[node].name.clone();
        config.stand_in_after_ms = 30;
        config.hint_period_ms =
            if self.options.hint_period_ms == 0 { 100 } else { self.options.hint_period_ms };
        config.anti_entropy_period_ms = self.options.anti_entropy_period_ms;
        // A grave outlasts what a link repeats late.
        config.collect_period_ms = self.options.collect_period_ms;
        config.grave_ms = 60_000;
        // Every key is hot enough for its reads to share flights.
        config.shared_reads_per_s = 0;
        if let Some(super::bug::Bug::Core(mutant)) = self.options.bug {
            config.mutant = Some(mutant);
        }
        config
    }

    /// Starts a process; a disk that fails at that moment is tried again later.
    pub(super) fn boot(&mut self, node: usize) -> Check {
        self.last_seen.retain(|(whose, _), _| *whose != node);
        let config = self.config(node);
        let fresh = Fresh { actor: self.dice.next(), disk: self.dice.next(), seed: self.dice.next() };
        let machine = &mut self.machines[node];
        let booted = machine.boot(&self.options, config, &self.catalog, fresh, self.now_us);
        let (boots, name) = (machine.boots, machine.name.clone());
        self.trace.note(self.now_us, "up", [node as u64, boots, booted.is_ok().into()], || {
            format!("{name} [{boots}] {booted:?}")
        });
        match booted {
            Ok(()) if self.machines[node].is_anothers_disk && self.options.bug.is_none() => {
                Err(Violation { property: "C12", text: format!("{name} starts on another's disk") })
            }
            Ok(()) => {
                self.count("boot");
                self.falls_silent(node, true);
                self.machines[node].promises_are_kept()?;
                let now = self.machines[node].now(self.now_us);
                let mut effects = std::mem::take(&mut self.effects);
                if let Some(process) = &mut self.machines[node].process {
                    process.node.start(now, &mut effects);
                }
                let started = self.apply(node, &mut effects);
                self.effects = effects;
                started?;
                self.introduce(node);
                Ok(())
            }
            Err(BootFailure::Disk(why)) => {
                self.count(if why.contains("no space") { "boot without room" } else { "boot failed" });
                self.machines[node].fs.heal();
                let later = self.dice.between(1_000, 50_000);
                self.schedule(later, Due::Undo(Undo::Restart { node }));
                Ok(())
            }
            Err(BootFailure::Damaged(_)) if self.machines[node].is_anothers_disk => {
                self.count("another's disk refused");
                self.rejoin_empty(node)
            }
            Err(BootFailure::Damaged(_)) if self.machines[node].rot.is_some() => {
                self.count("too rotten to start");
                self.rejoin_empty(node)
            }
            Err(BootFailure::Damaged(what)) => {
                Err(Violation { property: "C12", text: format!("{name} does not start again: {what}") })
            }
        }
    }

    /// Links to and from a process that has just started come up, each in its own time.
    fn introduce(&mut self, node: usize) {
        for peer in 0..self.machines.len() {
            if peer != node && self.machines[peer].process.is_some() {
                self.tell_link(node, peer, true);
                self.tell_link(peer, node, true);
            }
        }
    }

    /// Tells a node of a link to a peer: late, and (only that it is down) perhaps never.
    pub(super) fn tell_link(&mut self, node: usize, peer: usize, up: bool) {
        let Some(boot) = self.machines[node].process.as_ref().map(|process| process.boot) else { return };
        let cut = self.network.is_cut(node, peer) || self.network.is_cut(peer, node);
        if up && (cut || self.machines[peer].process.is_none()) {
            return;
        }
        if !up && self.trouble && self.fault_dice.chance(self.options.silent_link_permille) {
            return;
        }
        let late = self.fault_dice.between(10, 30_000);
        let told = self.link_told_us.entry((node, peer)).or_default();
        let at = (self.now_us + late).max(*told + 1);
        *told = at;
        self.may_not_hear(node, peer);
        let event = Event::Link { peer: self.machines[peer].id, up };
        self.schedule(at - self.now_us, Due::Tell { node, boot, event: Box::new(event) });
    }
}
