//! The second phase: faults stop, everything comes back, and the cluster comes together by itself: gossip,
//! hints, anti-entropy; nobody reads to repair. Then the properties of the end are judged.
//!
//! In: the world as the clients left it. Out: a violation, or none. C6's "bounded time" is so many periods
//! of anti-entropy.

use super::machine::Machine;
use super::rot::Rot;
use super::world::World;
use crate::history::KeyIndex;
use crate::properties::{self, Check, Final, broken, c6_convergence, c7_hints, c14_progress};
use bytes::Bytes;
use merganser_core::id::{KeyspaceId, NodeId};
use merganser_core::ring::token;
use merganser_core::storage_key;
use merganser_core::version::KeyState;

/// Periods of anti-entropy within which all replicas must agree and all hints must be home.
const PERIODS_MAX: u64 = 120;
/// How often the world looks whether they do.
const LOOK_US: u64 = 250_000;
/// Periods of anti-entropy in which nothing is sent once all agree.
const QUIET_PERIODS: u64 = 3;
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
        (0..self.machines.len()).for_each(|node| self.falls_silent(node, false));
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
        // What has rotted is read by nobody before it is repaired.
        let until = self.now_us + PERIODS_MAX * self.options.anti_entropy_period_ms * 1_000;
        let is_rotten = |machine: &Machine| machine.rot.as_ref().is_some_and(Rot::is_noticed);
        while self.machines.iter().any(is_rotten) && self.now_us < until {
            self.run_for(LOOK_US)?;
        }
        Ok(())
    }

    /// C14: all can reach all; a few requests of every client, none of which may fail.
    pub(super) fn ask_in_health(&mut self) -> Check {
        self.trace.note(self.now_us, "==", [3, 0, 0], || "all is well".into());
        self.judge_reach()?;
        self.healthy = true;
        self.clients_go_on(self.clients.len() as u64 * OPS_IN_HEALTH);
        while !self.clients_are_done() {
            c14_progress::on_clients(self.now_us)?;
            self.step()?;
        }
        Ok(())
    }

    /// Waits until all replicas agree and all hints are home, then judges.
    pub(super) fn come_together(&mut self) -> Check {
        self.trace.note(self.now_us, "==", [2, 0, 0], || "coming together".into());
        let begun = self.now_us;
        self.wait_until_whole()?;
        let seconds = (self.now_us - begun).div_ceil(1_000_000);
        self.count(&format!("came together within {seconds:>2} s"));
        if ["fault BitRot", "notice Amnesia"].iter().any(|what| self.coverage.contains_key(*what)) {
            // What was found missing gave its node another actor, which the others are yet to hear of.
            self.run_for(LULL_US)?;
            // A hint that a slow link brought meanwhile is yet to go home.
            self.wait_until_whole()?;
        }
        self.judge_members()?;
        for end in &self.ends() {
            properties::at_end(&self.history, end)?;
        }
        self.judge_disks()?;
        self.judge_trees()?;
        self.judge_quiet()
    }

    fn wait_until_whole(&mut self) -> Check {
        let until = self.now_us + PERIODS_MAX * self.options.anti_entropy_period_ms * 1_000;
        while !self.is_whole() && self.now_us < until {
            self.run_for(LOOK_US)?;
        }
        Ok(())
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
            self.run_for(QUIET_PERIODS * self.options.anti_entropy_period_ms * 1_000)?;
            if sent(self) == before {
                return Ok(());
            }
        }
        broken("C6", "replicas that are equal go on sending states to one another".into())
    }

    /// Whether all replicas of all keys are equal now, on machines that all run, keep nothing for others, and repair no rot.
    pub(super) fn is_whole(&self) -> bool {
        let at_home = |machine: &super::machine::Machine| {
            machine.process.is_some()
                && !machine.rot.as_ref().is_some_and(Rot::is_noticed)
                && !machine.keys_on_disk().iter().any(|key| storage_key::is_hint(key))
        };
        self.machines.iter().all(at_home)
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
