//! The second phase: faults stop, everything comes back, every key is read at every replica
//! through every node until nothing changes; then the properties of the end are judged.
//!
//! In: the world as the clients left it. Out: a violation, or none. Repair is by reads alone: a
//! bound of [`ROUNDS_MAX`] rounds is C6's "bounded time". Absent: anti-entropy and hints.

use super::clients::Attempt;
use super::world::World;
use crate::history::{KeyIndex, Op, Seen, What};
use crate::properties::{self, Check, Final, broken, c6_convergence, c7_hints, c14_progress};
use bytes::Bytes;
use merganser_core::id::{KeyspaceId, NodeId};
use merganser_core::request::{Level, Operation, Want};
use merganser_core::ring::token;
use merganser_core::storage_key;
use merganser_core::version::KeyState;

/// Rounds of final reads within which all replicas must agree.
const ROUNDS_MAX: u32 = 8;
/// Half seconds within which all hints must be home: refusals and lost answers included.
const HINT_ROUNDS_MAX: u32 = 40;
/// Two periods of anti-entropy and more.
const QUIET_US: u64 = 1_500_000;
/// How often that time may pass with something to repair.
const QUIET_TRIES: u32 = 10;
/// Longest time that anything begun under faults goes on.
const LULL_US: u64 = 3_000_000;
/// What each client asks once all is well.
const OPS_IN_HEALTH: u64 = 3;

impl World {
    /// Faults stop; what is down starts; every link works, and is known to.
    pub(super) fn heal(&mut self) -> Check {
        self.trouble = false;
        self.plugins_out = false;
        self.network.heal();
        self.trace.note(self.now_us, "==", [1, 0, 0], || "healing".into());
        // What came while a process stood still comes to it first, in order.
        let paused = self.machines.iter().filter_map(|machine| machine.paused_until_us);
        let until = paused.max().unwrap_or(self.now_us);
        self.run_for(until - self.now_us)?;
        for node in 0..self.machines.len() {
            self.machines[node].skew_ms = 0;
            self.machines[node].tripwire = None;
            self.rearm(node);
            self.machines[node].fs.heal();
            self.machines[node].disk_slowness = 1;
            self.resume(node);
            if self.machines[node].process.is_none() {
                self.boot(node)?;
            }
        }
        // A boot may still have failed for a fault that was pending: once more, later.
        self.run_for(100_000)?;
        for node in 0..self.machines.len() {
            if self.machines[node].process.is_none() {
                self.boot(node)?;
            }
        }
        for node in 0..self.machines.len() {
            for peer in 0..self.machines.len() {
                if peer != node {
                    self.tell_link(node, peer, true);
                }
            }
        }
        self.run_for(LULL_US)?;
        self.drain_hints()
    }

    /// Hints go home within bounded time; whether they did is C7's.
    fn drain_hints(&mut self) -> Check {
        let keeps = |machine: &super::machine::Machine| {
            machine.keys_on_disk().iter().any(|key| storage_key::is_hint(key))
        };
        for _ in 0..HINT_ROUNDS_MAX {
            if !self.machines.iter().any(keeps) {
                break;
            }
            self.run_for(500_000)?;
        }
        Ok(())
    }

    /// C14: a few requests of every client, none of which may fail.
    pub(super) fn ask_in_health(&mut self) -> Check {
        self.trace.note(self.now_us, "==", [3, 0, 0], || "all is well".into());
        self.healthy = true;
        self.clients_go_on(self.clients.len() as u64 * OPS_IN_HEALTH);
        while !self.clients_are_done() {
            c14_progress::on_clients(self.now_us)?;
            self.step()?;
        }
        Ok(())
    }

    /// Reads until all agree, then judges.
    pub(super) fn settle(&mut self) -> Check {
        self.trace.note(self.now_us, "==", [2, 0, 0], || "final reads".into());
        let mut rounds = 0;
        loop {
            self.read_everything()?;
            rounds += 1;
            let ends = self.ends();
            let agreed = ends.iter().all(|end| c6_convergence::agree(&self.history, end));
            if agreed || rounds >= ROUNDS_MAX {
                self.count(&format!("converged in {rounds} rounds"));
                for end in &ends {
                    properties::at_end(&self.history, end)?;
                }
                self.judge_disks()?;
                self.judge_trees()?;
                return self.judge_quiet();
            }
        }
    }

    /// What is on the disks: C7, and C12 once more, on a running node and after a power loss.
    fn judge_disks(&mut self) -> Check {
        let ring = self.machines.iter().find_map(|machine| machine.process.as_ref()).map(|p| p.node.ring());
        for machine in &self.machines {
            machine.promises_are_kept()?;
            let primaries = |keyspace: KeyspaceId, key: &Bytes| {
                let n =
                    self.history.keys.iter().find(|known| known.keyspace_id == keyspace).map_or(0, |k| k.n);
                ring.map_or(Vec::new(), |ring| ring.primaries(token(keyspace, key), n))
            };
            c7_hints::at_end(&machine.name, machine.id, machine.keys_on_disk().into_iter(), primaries)?;
        }
        let seed = self.dice.next();
        self.machines.iter().try_for_each(|machine| machine.promises_survive(&self.options, seed))
    }

    /// Where all agree, exchanges send no states: not for ever, at least (an owner may yet write back).
    fn judge_quiet(&mut self) -> Check {
        let sent =
            |world: &World| world.coverage.get("state sent by an exchange").copied().unwrap_or_default();
        for _ in 0..QUIET_TRIES {
            let before = sent(self);
            self.run_for(QUIET_US)?;
            if sent(self) == before {
                return Ok(());
            }
        }
        broken("C6", "replicas that are equal go on sending states to one another".into())
    }

    /// One read of every key at all replicas, through every node.
    fn read_everything(&mut self) -> Check {
        let first = self.attempts.len();
        for key in 0..self.history.keys.len() {
            for node in 0..self.machines.len() {
                let op = self.history.begin(Op {
                    client: usize::MAX,
                    key,
                    what: What::Get,
                    seen: Seen::default(),
                    begun_us: self.now_us,
                    attempts: 0,
                    refused: 0,
                    dots: Vec::new(),
                    acknowledged: false,
                });
                let want = if node % 2 == 0 { Want::Siblings } else { Want::Resolved };
                let request = self.request(key, Level::All, 2_000, Operation::Get { want });
                self.attempt_at(node, None, op, request)?;
            }
        }
        let unanswered =
            |world: &World| world.attempts[first..].iter().any(|attempt: &Attempt| !attempt.answered);
        for _ in 0..30 {
            self.run_for(100_000)?;
            if !unanswered(self) {
                break;
            }
        }
        // Repairs and write-backs that the reads began.
        self.run_for(700_000)
    }

    /// Whether all replicas of all keys are equal now, on machines that all run.
    pub(super) fn is_whole(&self) -> bool {
        let running = |machine: &super::machine::Machine| machine.process.is_some();
        self.machines.iter().all(running)
            && self.ends().iter().all(|end| c6_convergence::agree(&self.history, end))
    }

    /// What every replica of every key holds durably.
    fn ends(&self) -> Vec<Final> {
        (0..self.history.keys.len()).map(|key| self.end(key)).collect()
    }

    fn end(&self, key: KeyIndex) -> Final {
        let facts = &self.history.keys[key];
        let kind = facts.policy.kind();
        let mut replicas = Vec::new();
        let mut joined = KeyState::empty(kind);
        for id in self.primaries(key) {
            let Some(node) = self.node_of(id) else { continue };
            let machine = &self.machines[node];
            let state = machine.durable_state(&self.options, &facts.storage_key);
            let state = state.unwrap_or_else(|| KeyState::empty(kind));
            // A reused dot is reported where it comes in.
            let _reused = joined.sync(&state);
            replicas.push((machine.name.clone(), state));
        }
        Final { key, replicas, joined }
    }

    pub(super) fn primaries(&self, key: KeyIndex) -> Vec<NodeId> {
        let facts = &self.history.keys[key];
        let node = self.machines.iter().find_map(|machine| machine.process.as_ref());
        let ring = node.map(|process| process.node.ring());
        ring.map_or(Vec::new(), |ring| ring.primaries(token(facts.keyspace_id, &facts.key), facts.n))
    }
}
