//! When a lost or rolled-back disk is whole again.
//!
//! In: which node lost its disk, and what had been acknowledged before it came back. Out: the
//! moment when that node, asked alone, accounts for all of it. What the cluster says of its own
//! repair is not asked: every key is read from that replica only. Until then reads may miss what
//! was acknowledged (two replicas need not overlap), and no other disk is harmed.

use super::{CLOCKS_APART_US_MAX, inflict::Log};
use crate::{
    check::{Kind, Rules, causal::Graph, lww},
    cluster::{Cluster, direct, network},
    history::{Act, Clock, History, KeyHistory, Micros, Outcome, Saw, Write, locked},
    load::{self, keyspaces::Space},
};
use futures::{StreamExt as _, stream};
use merganser_client::{Client, Quorum};
use std::{
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::sleep;

/// Keys asked at once.
const AT_ONCE: usize = 8;
/// A pass over what is still missing begins so long after the last.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug)]
struct Loss {
    node: usize,
    entry: usize,
    since: Micros,
    /// When its node was back.
    back: Option<Micros>,
}

/// See the head of this file.
pub(crate) struct Refill {
    /// Knows which node holds which key.
    pub(crate) ring: Client,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) history: Arc<History>,
    pub(crate) log: Arc<Log>,
    pub(crate) clock: Clock,
    pub(crate) patience: Duration,
    loss: Mutex<Option<Loss>>,
    stale: Mutex<Vec<Range<Micros>>>,
}

impl Refill {
    pub(crate) fn new(
        ring: Client,
        cluster: Arc<Cluster>,
        history: Arc<History>,
        log: Arc<Log>,
        clock: Clock,
        patience: Duration,
    ) -> Refill {
        Refill {
            ring,
            cluster,
            history,
            log,
            clock,
            patience,
            loss: Mutex::default(),
            stale: Mutex::default(),
        }
    }

    /// From now on that node may lack what was acknowledged.
    pub(crate) fn lost(&self, node: usize, entry: usize, since: Micros) {
        *locked(&self.loss) = Some(Loss { node, entry, since, back: None });
    }

    /// There was nothing to lose.
    pub(crate) fn nothing_lost(&self) {
        *locked(&self.loss) = None;
    }

    /// The node is back, without its data.
    pub(crate) fn back(&self, now: Micros) {
        if let Some(loss) = locked(&self.loss).as_mut() {
            loss.back = Some(now);
        }
    }

    /// Waits until nothing is being refilled. False if it never will be, or it is enough.
    pub(crate) async fn wait(&self, stop: &AtomicBool) -> bool {
        while !stop.load(Ordering::Relaxed) {
            let Some(loss) = *locked(&self.loss) else { return true };
            if loss.back.is_some_and(|back| self.overdue(back)) {
                return false;
            }
            sleep(Duration::from_millis(200)).await;
        }
        false
    }

    fn overdue(&self, back: Micros) -> bool {
        self.clock.now() > back + self.patience.as_micros() as Micros
    }

    /// The times when a disk was not whole.
    pub(crate) fn stale(&self) -> Vec<Range<Micros>> {
        let unfinished = locked(&self.loss).map(|loss| loss.since..Micros::MAX);
        locked(&self.stale).iter().cloned().chain(unfinished).collect()
    }

    /// Looks after whatever is lost. Runs for ever.
    pub(crate) async fn run(&self) {
        loop {
            let loss = *locked(&self.loss);
            match loss.and_then(|loss| Some((loss, loss.back?))) {
                Some((loss, back)) => self.watch(loss, back).await,
                None => sleep(PAUSE).await,
            }
        }
    }

    async fn watch(&self, loss: Loss, back: Micros) {
        let mut due = self.due(back);
        let keys = due.len();
        let mut told = false;
        loop {
            if let Ok(client) = direct(&self.cluster.network.client_address(loss.node)).await {
                due = self.missing(&client, loss.node, due, back).await;
            }
            let now = self.clock.now();
            if due.is_empty() {
                self.log.refilled(loss.entry, now);
                locked(&self.stale).push(loss.since..now);
                *locked(&self.loss) = None;
                return;
            }
            if !told && self.overdue(back) {
                told = true;
                let some: Vec<&str> = due.iter().take(5).map(|(_, key, _)| key.as_str()).collect();
                let what = format!(
                    "{} s after it came back without its data, {} of {keys} keys are not whole there: {} …",
                    self.patience.as_secs(),
                    due.len(),
                    some.join(", ")
                );
                self.log.violate("C6", &network::name(loss.node), what);
            }
            sleep(PAUSE).await;
        }
    }

    /// Keys with something acknowledged before `back`.
    fn due(&self, back: Micros) -> Vec<Due> {
        let keys = self.history.keys().into_iter();
        let due = keys.filter_map(|(keyspace, key, history)| {
            let space = load::keyspaces::find(keyspace)?;
            let any = locked(&history).writes.iter().any(|write| is_due(write, back));
            any.then_some((space, key, history))
        });
        due.collect()
    }

    /// Of `due`, those that the node alone does not account for.
    async fn missing(&self, client: &Client, node: usize, due: Vec<Due>, back: Micros) -> Vec<Due> {
        let name = network::name(node);
        let mut checks = Vec::new();
        for (space, key, history) in due {
            let name = name.as_str();
            checks.push(async move {
                let whole = self.is_whole(client, name, space, &key, &history, back).await;
                (!whole.unwrap_or(false)).then_some((space, key, history))
            });
        }
        stream::iter(checks).buffer_unordered(AT_ONCE).filter_map(|missing| async { missing }).collect().await
    }

    async fn is_whole(
        &self,
        client: &Client,
        name: &str,
        space: &Space,
        key: &str,
        history: &Mutex<KeyHistory>,
        back: Micros,
    ) -> anyhow::Result<bool> {
        let look = load::look(client, space, key, Quorum::One).await?;
        if look.replicas != [name] {
            // Its own copy did not answer, or it holds none of this key.
            let topology = self.ring.topology();
            let primaries = topology.primaries(space.name, key.as_bytes());
            return Ok(!primaries.is_empty() && primaries.iter().all(|node| node.name != name));
        }
        let history = locked(history);
        let due: Vec<&Write> = history.writes.iter().filter(|write| is_due(write, back)).collect();
        match (&look.saw, space.kind) {
            (Saw::Versions(shown), Kind::Causal | Kind::Settled) => {
                let settled = space.kind == Kind::Settled;
                let graph = Graph::new(&history, shown, CLOCKS_APART_US_MAX, settled);
                let puts: Vec<&Write> = due.into_iter().filter(|write| write.act == Act::Put).collect();
                Ok(graph.accounts_for(&puts, shown, self.clock.now()))
            }
            (Saw::Versions(shown), _) => {
                let rules = Rules { clocks_apart: CLOCKS_APART_US_MAX, ..Rules::default() };
                Ok(lww::accounts_for(&history, &due, shown, &rules))
            }
            (Saw::Elements(elements), _) => Ok(due.iter().all(|write| {
                let removed =
                    |other: &Write| other.act == Act::Remove(write.id) && other.outcome != Outcome::Refused;
                write.act != Act::Add || elements.contains(&write.id) || history.writes.iter().any(removed)
            })),
            (Saw::Count(count), _) => {
                let least = due.iter().map(|write| match write.act {
                    Act::Increment(by) => by,
                    _ => 0,
                });
                Ok(*count >= least.sum())
            }
        }
    }
}

type Due = (&'static Space, String, Arc<Mutex<KeyHistory>>);

fn is_due(write: &Write, back: Micros) -> bool {
    write.outcome.acked() && write.end <= back
}
