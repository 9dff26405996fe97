//! A run that is told step by step, for bugs that have a story: the same world, without chance.
//!
//! In: what clients ask and what goes wrong, in order. Out: what clients are told; at the end, whether all
//! properties hold. Absent: faults of their own, losses and delays other than those of the story.

use super::clients::Attempt;
use super::faults::Undo;
use super::options::Options;
use super::plugins;
use super::workload::Memory;
use super::world::{Due, World};
use crate::history::{History, KeyIndex, Op, Seen, What};
use crate::properties::{Check, Violation, broken};
use bytes::Bytes;
use merganser_core::request::{Basis, Level, Operation, Outcome, Sloppiness, Want};
use merganser_storage::fs::sim::SimFs;

/// Longest that a story waits for an answer.
const PATIENCE_US: u64 = 10_000_000;

/// A story under way.
pub struct Script {
    world: World,
}

/// What a client was told.
pub struct Told {
    /// As it came.
    pub outcome: Outcome,
    memory: Option<Memory>,
    op: usize,
}

impl Told {
    /// The values that were shown.
    pub fn values(&self) -> Vec<Bytes> {
        match &self.outcome {
            Outcome::Got(reply) => reply.siblings.iter().filter_map(|s| s.content.clone()).collect(),
            _ => Vec::new(),
        }
    }

    /// The value that this write put.
    pub fn value(&self) -> Bytes {
        plugins::plain(History::write_id(self.op))
    }

    /// A write was acknowledged.
    pub fn is_written(&self) -> bool {
        matches!(self.outcome, Outcome::Wrote(_))
    }
}

impl Script {
    /// A cluster of so many nodes with these keyspaces (`workload::KEYSPACES`, by bit), started and quiet.
    pub fn begin(nodes: u64, keyspaces: u64, tune: impl FnOnce(&mut Options)) -> Result<Script, Violation> {
        let mut options = Options {
            seed: 1,
            nodes,
            keyspaces,
            clients: 1,
            replicas: 3,
            read_quorum: 2,
            write_quorum: 2,
            keys: 1,
            think_us_max: 1,
            delay_us_min: 100,
            delay_us_max: 500,
            disk_us_max: 200,
            plugin_us_max: 10,
            fault_period_us: 1,
            fault_us_max: 1,
            gossip_period_ms: 100,
            anti_entropy_period_ms: 500,
            memtable_bytes: 64 << 10,
            ..Options::default()
        };
        tune(&mut options);
        let mut world = World::new(options, true);
        world.begin()?;
        let mut script = Script { world };
        script.pass(3_000)?;
        Ok(script)
    }

    /// Time goes by.
    pub fn pass(&mut self, ms: u64) -> Check {
        self.world.run_for(ms * 1_000)
    }

    /// A put, with what was told before or blind.
    pub fn put(&mut self, node: usize, key: KeyIndex, seen: Option<&Told>) -> Result<Told, Violation> {
        let value = plugins::plain(History::write_id(self.world.history.ops.len()));
        let ids = vec![History::write_id(self.world.history.ops.len())];
        self.ask(node, key, Level::Keyspace, What::Put(value, ids), seen)
    }

    /// A delete of what was told before.
    pub fn delete(&mut self, node: usize, key: KeyIndex, seen: &Told) -> Result<Told, Violation> {
        self.ask(node, key, Level::Keyspace, What::Delete, Some(seen))
    }

    /// A read at so many replicas.
    pub fn get(&mut self, node: usize, key: KeyIndex, level: Level) -> Result<Told, Violation> {
        self.ask(node, key, level, What::Get, None)
    }

    fn ask(
        &mut self,
        node: usize,
        key: KeyIndex,
        level: Level,
        what: What,
        seen: Option<&Told>,
    ) -> Result<Told, Violation> {
        let memory = seen.and_then(|told| told.memory.as_ref());
        let op = self.world.history.begin(Op {
            client: usize::MAX,
            key,
            what: what.clone(),
            seen: memory.map_or(Seen::default(), |memory| memory.seen.clone()),
            begun_us: self.world.now_us,
            attempts: 0,
            refused: 0,
            dots: Vec::new(),
            acknowledged: false,
            awaited_until_us: 0,
        });
        let request_id = History::request_id(op);
        let basis = memory.map_or(Basis::Blind, |memory| Basis::Context(memory.token.clone()));
        let operation = match what {
            What::Put(value, _) => {
                Operation::Put { value, content_type: None, ttl_ms: None, basis, request_id }
            }
            What::Delete => Operation::Delete { basis, request_id },
            _ => Operation::Get { want: Want::Siblings },
        };
        let mut request = self.world.request(key, level, 1_000, operation);
        request.sloppiness = Sloppiness::Sloppy;
        let ticket = self.world.attempts.len();
        self.world.attempt_at(node, None, op, request)?;
        let until = self.world.now_us + PATIENCE_US;
        while !self.world.attempts[ticket].answered && self.world.now_us < until {
            self.world.step()?;
        }
        let Attempt { told, .. } = &mut self.world.attempts[ticket];
        match told.take() {
            Some((outcome, memory)) => Ok(Told { outcome, memory, op }),
            None => {
                broken("C14", format!("op {op} was not answered"))?;
                unreachable!("a violation is an error")
            }
        }
    }

    /// Power goes, what was not synced is lost.
    pub fn power_loss(&mut self, node: usize) {
        self.world.die(node, "PW", Some(1));
    }

    /// The process dies and its disk is lost with it.
    pub fn lose_disk(&mut self, node: usize) {
        self.world.die(node, "KI", None);
        self.world.machines[node].replace_disk(SimFs::new(), false);
        self.world.history.losses.disk_lost(self.world.now_us, node);
    }

    /// Starts it again.
    pub fn start(&mut self, node: usize) -> Check {
        self.world.boot(node)
    }

    /// Cuts a node off from some others, in both directions; the nodes are told.
    pub fn cut(&mut self, node: usize, others: &[usize]) {
        for other in others {
            for (from, to) in [(node, *other), (*other, node)] {
                self.world.network.cut(from, to);
                self.world.tell_link(from, to, false);
            }
        }
    }

    /// Ends a cut.
    pub fn mend(&mut self, node: usize, others: &[usize]) {
        let links = others.iter().flat_map(|other| [(node, *other), (*other, node)]).collect();
        self.world.schedule(1, Due::Undo(Undo::Mend { links }));
    }

    /// Cuts one direction of the links to some others; nobody is told.
    pub fn cut_silently(&mut self, from: usize, to: &[usize]) {
        to.iter().for_each(|to| self.world.network.cut(from, *to));
    }

    /// The primaries of a key, in order, and the nodes that may stand in.
    pub fn roles(&self, key: KeyIndex) -> (Vec<usize>, Vec<usize>) {
        let ids = self.world.primaries(key);
        let primaries: Vec<usize> = ids.iter().filter_map(|id| self.world.node_of(*id)).collect();
        let others = (0..self.world.machines.len()).filter(|node| !primaries.contains(node)).collect();
        (primaries, others)
    }

    /// Sets the error of a node's clock.
    pub fn set_clock(&mut self, node: usize, skew_ms: i64) {
        self.world.machines[node].skew_ms = skew_ms;
        self.world.rearm(node);
    }

    /// Whether any node still has something of a key.
    pub fn is_on_a_disk(&self, key: KeyIndex) -> bool {
        let storage_key = &self.world.history.keys[key].storage_key;
        self.world.machines.iter().any(|machine| machine.keys_on_disk().contains(storage_key))
    }

    /// Everything comes back, the cluster comes together, and all properties are judged.
    pub fn end(&mut self) -> Check {
        self.world.heal()?;
        self.world.come_together()
    }

    /// The trace, for a person.
    pub fn trace(&self) -> String {
        self.world.trace.lines.as_deref().unwrap_or_default().join("\n")
    }
}
