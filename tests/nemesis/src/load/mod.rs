//! The clients: what they ask, and how they write it down.
//!
//! ```text
//!   clients, paced ──▶ one operation each (causal · register · lattice) ──▶ history, measures
//!   canary, each second ──▶ is it seen at every node?                   ──▶ staleness
//! ```
//!
//! In: a client library connected to the cluster. Out: histories and measures. Each client waits
//! for its answer before it asks again, and does not hurry to make up for what it missed.
//! Absent: judging.

pub(crate) mod canary;
mod causal;
pub(crate) mod keyspaces;
mod lattice;

use crate::{
    check::Kind,
    history::{Act, Clock, History, Micros, Outcome, Read, Saw, Write, versions},
    measure::{Measures, Op},
    options::Load,
};
use keyspaces::{SPACES, Space};
use merganser_client::{Client, Context, Dot, Error, Keyspace, Quorum, State, Written};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::sleep;

/// Keys are new ones each so often, so that most of them are at rest when they are repaired.
const EPOCH: Duration = Duration::from_secs(30);
/// Keys of a keyspace in that time.
const EPOCH_KEYS: u32 = 24;
/// Keys of a keyspace whose operations are counted one by one.
const EXACT_KEYS: u32 = 3;

/// What all clients share.
pub(crate) struct Shared {
    pub(crate) history: Arc<History>,
    pub(crate) measures: Arc<Measures>,
    pub(crate) clock: Clock,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) ids: AtomicU64,
    pub(crate) load: Load,
}

/// What one read of a key told.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) saw: Saw,
    /// Of the cluster, as it was given: equal bytes are equal causality.
    pub(crate) context: Vec<u8>,
    /// Who answered.
    pub(crate) replicas: Vec<String>,
    pub(crate) sloppy: bool,
}

/// Reads all versions of a key, or the whole of a replicated type.
pub(crate) async fn look(client: &Client, space: &Space, key: &str, read: Quorum) -> Result<Look, Error> {
    let keys = client.keyspace(space.name).with_read(read);
    match space.kind {
        Kind::Causal | Kind::Settled | Kind::Lww => {
            let entry = keys.get_siblings(key).await?;
            Ok(Look {
                saw: Saw::Versions(versions(&entry, space.name, key)),
                context: entry.context().as_bytes().to_vec(),
                replicas: entry.acks().replicas.clone(),
                sloppy: entry.acks().sloppy,
            })
        }
        Kind::Set | Kind::Counter => {
            let queried = keys.query(key, "").await?;
            let saw = match (space.kind, queried.state) {
                (Kind::Set, State::Found) => Saw::Elements(lattice::elements(&queried.result)?),
                (Kind::Set, _) => Saw::Elements(Vec::new()),
                (_, State::Found) => Saw::Count(lattice::count(&queried.result)?),
                _ => Saw::Count(0),
            };
            Ok(Look {
                saw,
                context: queried.context.as_bytes().to_vec(),
                replicas: queried.acks.replicas,
                sloppy: queried.acks.sloppy,
            })
        }
    }
}

/// One of many clients.
struct Worker {
    shared: Arc<Shared>,
    client: Client,
    dice: StdRng,
}

/// Runs a client until told to stop, with an operation each `every`.
pub(crate) async fn run(shared: Arc<Shared>, client: Client, seed: u64, every: Duration) {
    let mut worker = Worker { shared, client, dice: StdRng::seed_from_u64(seed) };
    let every = every.as_micros() as Micros;
    let mut next = worker.shared.clock.now() + worker.dice.random_range(0..=every);
    while !worker.shared.stop.load(Ordering::Relaxed) {
        let now = worker.shared.clock.now();
        if now < next {
            sleep(Duration::from_micros((next - now).min(200_000))).await;
            continue;
        }
        let asked = worker.step().await;
        next = (next + every * asked).max(worker.shared.clock.now().saturating_sub(every));
    }
}

impl Worker {
    /// One thing that a client wants; returns how many requests it took.
    async fn step(&mut self) -> u64 {
        let load = self.shared.load;
        let whole: u32 = SPACES.iter().map(|space| space.weight_in(load)).sum();
        let mut drawn = self.dice.random_range(0..whole);
        let space = SPACES.iter().find(|space| match drawn.checked_sub(space.weight_in(load)) {
            None => true,
            Some(rest) => {
                drawn = rest;
                false
            }
        });
        let space = space.expect("what is drawn is below the sum");
        let key = self.key(space);
        match space.kind {
            Kind::Causal | Kind::Settled | Kind::Lww => self.versioned(space, &key).await,
            Kind::Set => self.set(space, &key).await,
            Kind::Counter => self.counter(space, &key).await,
        }
    }

    fn key(&mut self, space: &Space) -> String {
        if self.shared.load == Load::Exact {
            return format!("exact-{}", self.dice.random_range(0..EXACT_KEYS));
        }
        if space.hot_keys > 0 && self.dice.random_bool(0.25) {
            return format!("hot-{}", self.dice.random_range(0..space.hot_keys));
        }
        let mut epoch = self.shared.clock.now() / EPOCH.as_micros() as Micros;
        if self.dice.random_bool(0.02) {
            epoch = self.dice.random_range(0..=epoch);
        }
        format!("{epoch}-{}", self.dice.random_range(0..EPOCH_KEYS))
    }

    fn keys(&self, space: &Space, ttl: Option<Micros>) -> Keyspace {
        let keys = self.client.keyspace(space.name);
        match ttl {
            Some(ttl) => keys.with_ttl(Duration::from_micros(ttl)),
            None => keys,
        }
    }

    /// How long the next value lasts, where values end by themselves.
    fn ttl(&mut self, space: &Space) -> Option<Micros> {
        space.fleeting.then(|| self.dice.random_range(5..40) * 1_000_000)
    }

    fn id(&self) -> u64 {
        self.shared.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// A read at the keyspace's quorum, written down.
    async fn read(&self, space: &'static Space, key: &str) -> Option<Look> {
        let begin = self.shared.clock.now();
        let look = look(&self.client, space, key, Quorum::Keyspace).await;
        let end = self.shared.clock.now();
        self.shared.measures.done(Op::Read, begin, end, look.as_ref().err());
        let look = look.ok()?;
        let read = Read { begin, end, saw: look.saw.clone(), sloppy: look.sloppy };
        self.shared.history.read(space.name, key, read);
        Some(look)
    }

    /// A write, written down.
    async fn write<F>(&self, space: &'static Space, key: &str, intent: Intent, request: F) -> Option<Written>
    where
        F: Future<Output = Result<Written, Error>>,
    {
        let Intent { id, act, seen, ttl } = intent;
        let op = match act {
            Act::Put => Op::Put,
            Act::Delete => Op::Delete,
            Act::Add | Act::Remove(_) | Act::Increment(_) => Op::Apply,
        };
        let begin = self.shared.clock.now();
        let written = request.await;
        let end = self.shared.clock.now();
        self.shared.measures.done(op, begin, end, written.as_ref().err());
        let outcome = outcome(&written);
        let sloppy = written.as_ref().is_ok_and(|written| written.acks.sloppy);
        let write = Write { id, act, seen, begin, end, outcome, sloppy, ttl };
        self.shared.history.write(space.name, key, write);
        written.ok()
    }
}

/// What a write is for.
struct Intent {
    id: u64,
    act: Act,
    seen: Vec<Dot>,
    ttl: Option<Micros>,
}

impl Intent {
    fn new(id: u64, act: Act, seen: Vec<Dot>) -> Intent {
        Intent { id, act, seen, ttl: None }
    }
}

/// What an answer says about the fate of a write. What the library does not call uncertain had no
/// effect, except where a node failed in a way that it has no word for.
pub(crate) fn outcome(written: &Result<Written, Error>) -> Outcome {
    match written {
        Ok(written) => Outcome::Acked(written.dot),
        Err(Error::Uncertain(facts)) => Outcome::Uncertain(facts.dot),
        Err(Error::Server { .. }) => Outcome::Uncertain(None),
        Err(_) => Outcome::Refused,
    }
}

fn context(look: &Look) -> Context {
    Context::from_bytes(look.context.clone())
}
