//! What clients asked and were told, and what the omniscient world saw of it in states.
//!
//! ```text
//!   clients ──▶ ops: what, which key, what it had seen ──▶ answers, acknowledgements
//!   states  ──▶ dots: of which op, with which content     (every state written or sent)
//! ```
//!
//! In: the run, as it goes. Out: facts for the properties. What a client had *seen* is recorded
//! from what it was shown, never decoded from the server's contexts: a context that claims too
//! much is a bug to be found. Only deletes are taken from contexts, for nobody is shown them.
//! Absent: judgement.

use crate::losses::Losses;
use crate::models::{Models, TypeOp};
use bytes::Bytes;
use merganser_core::catalog::{DeleteSemantics, Policy};
use merganser_core::event::Durability;
use merganser_core::id::{ActorId, Dot, KeyspaceId, Millis, RequestId};
use merganser_core::version::{DotSet, KeyState, Stamp};
use std::collections::{BTreeMap, BTreeSet};

/// Index of a key.
pub type KeyIndex = usize;
/// Index of a logical request of a client; its retries belong to it.
pub type OpIndex = usize;

/// A key of the run.
#[derive(Clone, Debug)]
pub struct Key {
    /// Name of its keyspace.
    pub keyspace: String,
    /// Id of its keyspace.
    pub keyspace_id: KeyspaceId,
    /// How its conflicts are settled.
    pub policy: Policy,
    /// Who wins, a delete or a concurrent value.
    pub deletes: DeleteSemantics,
    /// The key.
    pub key: Bytes,
    /// Where storage keeps it.
    pub storage_key: Bytes,
    /// Replicas.
    pub n: usize,
    /// When a replica counts a write as held.
    pub durability: Durability,
    /// Only one client writes it.
    pub solo: Option<usize>,
}

/// What a client asked.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A read.
    Get,
    /// A put of a value that holds these writes.
    Put(Bytes, Vec<u64>),
    /// A delete.
    Delete,
    /// An operation of a shipped type.
    Apply(TypeOp),
    /// A projection.
    Query,
}

/// What a client had seen of a key when it asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Dots it was shown or told, and deletes.
    pub dots: Vec<Dot>,
    /// Writes in lattice values it was shown.
    pub ids: BTreeSet<u64>,
    /// The highest stamp.
    pub stamp: Stamp,
}

/// A logical request.
#[derive(Clone, Debug)]
pub struct Op {
    /// Whose.
    pub client: usize,
    /// Of which key.
    pub key: KeyIndex,
    /// What.
    pub what: What,
    /// What its context covers.
    pub seen: Seen,
    /// When it was first sent.
    pub begun_us: u64,
    /// How often it was sent.
    pub attempts: u32,
    /// How often the answer was that nothing was stored.
    pub refused: u32,
    /// Dots it was told.
    pub dots: Vec<Dot>,
    /// Told OK.
    pub acknowledged: bool,
    /// Until when somebody waited for it.
    pub awaited_until_us: u64,
}

impl Op {
    /// Nothing of it may ever be seen.
    pub fn was_refused(&self) -> bool {
        self.attempts > 0 && self.refused == self.attempts
    }
}

/// A write as states show it.
#[derive(Clone, Debug, PartialEq)]
pub struct DotFact {
    /// Of which key.
    pub key: KeyIndex,
    /// Of which client's request; None for a stored resolution.
    pub op: Option<OpIndex>,
    /// None: a delete.
    pub value: Option<Bytes>,
    /// From when on it reads as a delete.
    pub expires_at: Option<Millis>,
    /// Its stamp.
    pub stamp: Stamp,
    /// What a resolution was made from; empty for a client's write.
    pub merged_from: Vec<Dot>,
}

impl DotFact {
    /// Whether it is a delete, or reads as one at `now`.
    pub fn is_gone(&self, now: Millis) -> bool {
        self.value.is_none() || self.expires_at.is_some_and(|at| at <= now)
    }

    /// Whether `other`, under the same dot, is the same write; bytes that have expired may be gone.
    pub fn is_same_write(&self, other: &DotFact) -> bool {
        let let_go = other.value.is_none() && other.expires_at.is_some();
        let other =
            DotFact { value: if let_go { self.value.clone() } else { other.value.clone() }, ..other.clone() };
        *self == other
    }
}

/// When all that expires has expired.
pub const END: Millis = Millis(u64::MAX);

/// An OK to a write.
#[derive(Clone, Debug)]
pub struct Acknowledgement {
    /// Of which request.
    pub op: OpIndex,
    /// The write.
    pub dot: Dot,
    /// When.
    pub at_us: u64,
    /// W.
    pub needed: u32,
    /// Some of those that acknowledged stood in for others.
    pub sloppy: bool,
}

/// What deletes left of a key, and was collected.
#[derive(Clone, Debug)]
pub struct Collected {
    /// The join of all states that were collected.
    pub state: KeyState,
    /// Writes that they had seen, over "had seen".
    pub reached: BTreeSet<Dot>,
    /// Writes that were known when it was.
    pub known: BTreeSet<Dot>,
}

/// All of it.
#[derive(Debug, Default)]
pub struct History {
    /// Keys of the run.
    pub keys: Vec<Key>,
    /// Requests.
    pub ops: Vec<Op>,
    /// Writes that some state showed.
    pub dots: BTreeMap<Dot, DotFact>,
    /// For each resolution, what was gone when it was stored and is covered by it: deletes, and what
    /// had expired, are not in its receipt.
    passed_over: BTreeMap<Dot, Vec<Dot>>,
    /// For each write, the writes that had seen it.
    pub superseders: BTreeMap<Dot, Vec<Dot>>,
    /// Which writes put a value with this id.
    pub writers: BTreeMap<u64, Vec<OpIndex>>,
    /// Dots of lattice puts and operations, from replies.
    pub told: BTreeMap<Dot, OpIndex>,
    /// OKs.
    pub acknowledgements: Vec<Acknowledgement>,
    /// What left the context of a key with its dead actors, by key.
    pub retired: BTreeMap<KeyIndex, DotSet>,
    /// What was collected, by key.
    pub collected: BTreeMap<KeyIndex, Collected>,
    /// Deletes by key, and writes that sooner or later are, in causal keyspaces.
    tombstones: BTreeMap<KeyIndex, Vec<Dot>>,
    /// Of each actor, up to which dot it had issued when, in order.
    issued: BTreeMap<ActorId, Vec<(u64, u64)>>,
    /// What states of shipped types hold.
    pub models: Models,
    /// What machines lost.
    pub losses: Losses,
}

impl History {
    /// Of these keys, before anything was asked.
    pub fn of(keys: Vec<Key>) -> History {
        History { keys, ..History::default() }
    }

    /// The request id of an op: it says which op it is.
    pub fn request_id(op: OpIndex) -> RequestId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(op as u64 + 1).to_be_bytes());
        id[8..].copy_from_slice(b"simulate");
        RequestId(id)
    }

    /// The op of a request id.
    pub fn op_of(&self, id: RequestId) -> Option<OpIndex> {
        let mut first = [0; 8];
        first.copy_from_slice(&id.0[..8]);
        let op = usize::try_from(u64::from_be_bytes(first).checked_sub(1)?).ok()?;
        (op < self.ops.len() && History::request_id(op) == id).then_some(op)
    }

    /// The id that the op's own value would carry.
    pub fn write_id(op: OpIndex) -> u64 {
        op as u64 + 1
    }

    /// A new request.
    pub fn begin(&mut self, op: Op) -> OpIndex {
        let index = self.ops.len();
        if let What::Put(_, ids) = &op.what {
            ids.iter().for_each(|id| self.writers.entry(*id).or_default().push(index));
        }
        self.ops.push(op);
        index
    }

    /// A node's last dot, after it has handled an event.
    pub fn issued(&mut self, last: Dot, now_us: u64) {
        let issued = self.issued.entry(last.actor).or_default();
        if issued.last().is_none_or(|(counter, _)| *counter < last.counter) {
            issued.push((last.counter, now_us));
        }
    }

    /// When a dot was issued.
    pub fn issued_us(&self, dot: Dot) -> Option<u64> {
        let issued = self.issued.get(&dot.actor)?;
        let first = issued.partition_point(|(counter, _)| *counter < dot.counter);
        issued.get(first).map(|(_, at_us)| *at_us)
    }

    /// A write that a state shows for the first time.
    pub fn learn(&mut self, dot: Dot, fact: DotFact) {
        let seen = match fact.op {
            Some(op) => &self.ops[op].seen.dots,
            None => &fact.merged_from,
        };
        for older in seen {
            self.superseders.entry(*older).or_default().push(dot);
        }
        if fact.value.is_none() || fact.expires_at.is_some() {
            self.tombstones.entry(fact.key).or_default().push(dot);
        }
        self.dots.insert(dot, fact);
    }

    /// The state in which a resolution is first seen.
    pub fn resolved_within(&mut self, key: KeyIndex, dot: Dot, state: &KeyState) {
        let live = state.live_dots();
        let mut gone = self.deletes_within(key, &state.seen(), END);
        gone.retain(|gone| !live.contains(gone));
        self.passed_over.insert(dot, gone);
    }

    /// Deletes of a key that a context covers, and what has expired by `now`.
    pub fn deletes_within(&self, key: KeyIndex, context: &DotSet, now: Millis) -> Vec<Dot> {
        let deletes = self.tombstones.get(&key).map_or(&[][..], Vec::as_slice);
        let is_gone = |dot: &Dot| self.dots.get(dot).is_some_and(|fact| fact.is_gone(now));
        deletes.iter().copied().filter(|dot| context.contains(*dot) && is_gone(dot)).collect()
    }

    /// Writes of a key that a context covers, that have not expired by `now`, and that nothing had seen which it
    /// covers, or did until it was retired: that was known wherever the key is.
    pub fn unexpired_within(&self, key: KeyIndex, context: &DotSet, now: Millis) -> Vec<Dot> {
        let expiring = self.tombstones.get(&key).map_or(&[][..], Vec::as_slice);
        let lives = |dot: &Dot| self.dots.get(dot).is_some_and(|fact| !fact.is_gone(now));
        let retired = self.retired.get(&key);
        let superseded = |dot: &Dot| {
            let later = self.superseders.get(dot).map_or(&[][..], Vec::as_slice);
            later
                .iter()
                .any(|later| context.contains(*later) || retired.is_some_and(|dots| dots.contains(*later)))
        };
        let within = expiring.iter().copied().filter(|dot| context.contains(*dot));
        within.filter(|dot| lives(dot) && !superseded(dot)).collect()
    }

    /// A node lets go of a state of which nothing is live.
    pub fn collect(&mut self, key: KeyIndex, state: &KeyState) {
        let mut roots = self.deletes_within(key, &state.seen(), END);
        roots.extend(state.live_dots());
        let reached = self.reach(roots.into_iter());
        let known = self.dots.iter().filter(|(_, fact)| fact.key == key).map(|(dot, _)| *dot).collect();
        match self.collected.get_mut(&key) {
            Some(collected) => {
                let _same_history = collected.state.sync(state);
                collected.reached.extend(reached);
                collected.known = known;
            }
            None => {
                let state = state.clone();
                self.collected.insert(key, Collected { state, reached, known });
            }
        }
    }

    /// Whether a write, and what had seen it, was collected, or a context no longer says that it was seen.
    pub fn was_collected(&self, key: KeyIndex, dot: Dot, stamp: Stamp) -> bool {
        let retired = self.retired.get(&key).is_some_and(|retired| retired.contains(dot));
        retired || self.collected.get(&key).is_some_and(|collected| collected.state.covers(dot, stamp))
    }

    /// Writes of a key that a context covers.
    pub fn writes_within(&self, key: KeyIndex, context: &DotSet) -> Vec<Dot> {
        let covered = |(dot, fact): &(&Dot, &DotFact)| fact.key == key && context.contains(**dot);
        self.dots.iter().filter(covered).map(|(dot, _)| *dot).collect()
    }

    /// What a write had seen.
    pub fn seen_by(&self, dot: Dot) -> &[Dot] {
        match self.dots.get(&dot) {
            Some(DotFact { op: Some(op), .. }) => &self.ops[*op].seen.dots,
            Some(fact) => &fact.merged_from,
            None => &[],
        }
    }

    /// Whether an acknowledged write may be lost.
    pub fn is_excused(&self, ack: &Acknowledgement) -> bool {
        let op = &self.ops[ack.op];
        self.losses.excuse(&self.keys[op.key], op.begun_us, ack.needed)
    }

    /// Everything that can be reached from `roots` over "had seen".
    pub fn reach(&self, roots: impl Iterator<Item = Dot>) -> BTreeSet<Dot> {
        let mut reached = BTreeSet::new();
        let mut open: Vec<Dot> = roots.collect();
        while let Some(dot) = open.pop() {
            if reached.insert(dot) {
                open.extend_from_slice(self.seen_by(dot));
                open.extend_from_slice(self.passed_over.get(&dot).map_or(&[], Vec::as_slice));
            }
        }
        reached
    }

    /// How a write is called in reports.
    pub fn name(&self, dot: Dot) -> String {
        match self.dots.get(&dot) {
            Some(DotFact { op: Some(op), value, .. }) => {
                let what = if value.is_some() { "put" } else { "delete" };
                format!("{dot} ({what} by c{} as op {op})", self.ops[*op].client)
            }
            Some(fact) => format!("{dot} (resolution of {:?})", fact.merged_from),
            None => format!("{dot}"),
        }
    }
}
