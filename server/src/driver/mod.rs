//! The hall: one task owns the [`Node`]; everything that happens passes through here.
//!
//! ```text
//!   Door::put ──▶ queue ──▶ turn: all that waits ──▶ Node::handle, one by one ──▶ effects
//!                                                                                  │ once a turn
//!        ┌──────────────────┬─────────────────┬────────────────────────────────────┤
//!     replies      one push per peer    one Db::submit          reads, answered in the same turn
//! ```
//!
//! Taking all that waits is what makes the path cheap: writes of a turn share a hand-over and a
//! sync, messages of a turn a frame. In: inputs of every kind. Out: effects, carried out.
//! Absent: anything that waits, and any decision.

mod door;
mod stop;
mod turn;

pub(crate) use door::{Door, Input, ReplyTo, Snapshot};
pub(crate) use stop::Stopped;

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::peers::Outbox;
use crate::resolve::Plugins;
use crate::store::Readers;
use crate::verify::Verifier;
use bytes::{Bytes, BytesMut};
use merganser_core::Node;
use merganser_core::admin::AdminReply;
use merganser_core::event::{Effects, Event};
use merganser_core::id::{ClientTicket, Millis, NodeId};
use merganser_core::membership::RejoinReason;
use merganser_proto::v1::TopologyReply;
use merganser_storage::{Db, Write};
use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stop::Stopping;
use tokio::sync::{mpsc, oneshot, watch};

/// Inputs that one turn takes at most, so that replies never wait long.
const INPUTS_PER_TURN: usize = 1024;
/// How often storage is asked how far it is behind.
const PRESSURE_PERIOD_MS: u64 = 50;
/// Without a deadline of core's the driver looks up this often.
const IDLE_PERIOD_MS: u64 = 1_000;

/// What the driver is made of; see [`Driver::run`].
pub(crate) struct Driver {
    pub(crate) node: Node,
    pub(crate) db: Db,
    pub(crate) readers: Readers,
    /// Held for its drop. None where nothing may happen beside the driver.
    pub(crate) _verifier: Option<Verifier>,
    pub(crate) plugins: Plugins,
    pub(crate) directory: Arc<crate::grpc::Directory>,
    pub(crate) topology: watch::Sender<Arc<TopologyReply>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    pub(crate) under_way: UnderWay,
}

/// What is under way in the driver. Begins empty.
#[derive(Default)]
pub(crate) struct UnderWay {
    clients: HashMap<ClientTicket, ReplyTo>,
    operators: HashMap<ClientTicket, oneshot::Sender<AdminReply>>,
    tickets: u64,
    links: BTreeMap<NodeId, Link>,
    effects: Effects,
    again: Vec<Event>,
    /// What is left of the buffer that messages are encoded in.
    encoding: BytesMut,
    writes: Vec<Write>,
    topology_changed: bool,
    pressure_at: Millis,
    pressure: f32,
    stopping: Option<Stopping>,
    rejoin_empty: Option<RejoinReason>,
}

/// A link that is up.
struct Link {
    /// Tells it from an older or newer one of the same peer.
    number: u64,
    outbox: Arc<Outbox>,
    /// Encoded in this turn.
    messages: Vec<Bytes>,
}

impl Driver {
    /// Drives the node until it has stopped.
    pub(crate) async fn run(mut self, mut inputs: mpsc::UnboundedReceiver<Input>) -> Stopped {
        let now = self.clock.now();
        let mut effects = std::mem::take(&mut self.under_way.effects);
        self.node.start(now, &mut effects);
        self.under_way.effects = effects;
        self.under_way.topology_changed = true;
        self.apply(now);

        let mut batch = Vec::with_capacity(INPUTS_PER_TURN);
        let mut alarm = pin!(tokio::time::sleep(Duration::ZERO));
        loop {
            let deadline = self.deadline();
            let armed = tokio::time::Instant::now() + Duration::from_millis(deadline);
            // Only a nearer deadline is worth re-arming the timer for; one too early does no harm.
            if alarm.is_elapsed() || alarm.deadline() > armed {
                alarm.as_mut().reset(armed);
            }
            tokio::select! {
                biased;
                _ = inputs.recv_many(&mut batch, INPUTS_PER_TURN) => {
                    self.gather(&mut batch, &mut inputs).await;
                }
                () = alarm.as_mut() => {}
            }
            let began = Instant::now();
            let now = self.clock.now();
            // Whatever this turn does counts as done by now, should the process stand still in the middle of it.
            self.node.has_run(self.clock.running_ms());
            let timer_due = self.node.next_deadline().is_some_and(|deadline| deadline <= now);
            self.metrics.driver_turns.add(1);
            self.metrics.driver_events.add(batch.len() as u64);
            for input in batch.drain(..) {
                self.take(now, input);
            }
            if timer_due {
                self.handle(now, Event::TimerFired);
            }
            self.apply(now);
            if let Some(stopped) = self.stopped(now) {
                return stopped;
            }
            self.metrics.driver_turn_micros.add(began.elapsed().as_micros() as u64);
        }
    }

    /// Lets the tasks that are ready run first, and takes what they bring: more to a turn.
    async fn gather(&self, batch: &mut Vec<Input>, inputs: &mut mpsc::UnboundedReceiver<Input>) {
        tokio::task::yield_now().await;
        while batch.len() < INPUTS_PER_TURN {
            match inputs.try_recv() {
                Ok(input) => batch.push(input),
                Err(_) => return,
            }
        }
    }

    /// Milliseconds until core, or a stop, wants to be woken.
    fn deadline(&mut self) -> u64 {
        let now = self.clock.now();
        let of_node = self.node.next_deadline().map_or(IDLE_PERIOD_MS, |deadline| deadline.since(now));
        let of_stop =
            self.under_way.stopping.as_ref().map_or(IDLE_PERIOD_MS, |stopping| stopping.deadline.since(now));
        of_node.min(of_stop).min(IDLE_PERIOD_MS)
    }

    fn handle(&mut self, now: Millis, event: Event) {
        self.node.handle(now, event, &mut self.under_way.effects);
    }
}
