//! What comes into the hall, and the door by which it comes.
//!
//! The queue behind the door has no bound of its own: each source has one. Clients are bounded by
//! connections and streams, and core sheds beyond its own bound in the very next turn; peers by
//! frames that wait; storage and plugins by what was asked of them.

use crate::peers::Outbox;
use bytes::Bytes;
use merganser_core::admin::{AdminReply, AdminRequest};
use merganser_core::anti_entropy::RepairView;
use merganser_core::anti_entropy::scrub::ScrubView;
use merganser_core::event::{Record, ScanPage, StorageFailure};
use merganser_core::fence::CollectionView;
use merganser_core::handoff::HintView;
use merganser_core::hot_keys::HotKeyView;
use merganser_core::id::{NodeId, PluginHash, Ticket};
use merganser_core::membership::MemberView;
use merganser_core::message::Message;
use merganser_core::moment::Moment;
use merganser_core::plugin::{PluginAnswer, PluginFacts};
use merganser_core::request::{Outcome, Request};
use merganser_proto::v1::Metric;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// Something for the driver.
pub(crate) enum Input {
    /// A client asks.
    Client { request: Request, reply: ReplyTo },
    /// An operator asks.
    Admin { request: AdminRequest, reply: oneshot::Sender<AdminReply> },
    /// A client wants to know how long the node has run.
    Now(oneshot::Sender<Moment>),
    /// Someone wants to know how the node is.
    Look(oneshot::Sender<Snapshot>),
    /// A peer has proven itself.
    LinkUp { peer: NodeId, link: u64, outbox: Arc<Outbox> },
    /// That link is gone.
    LinkDown { peer: NodeId, link: u64 },
    /// All messages of one frame; `room` lets the link read on when this is taken.
    Frame { from: NodeId, messages: Vec<Message>, room: OwnedSemaphorePermit },
    /// A group commit.
    Committed { tickets: Vec<Ticket>, result: Result<(), StorageFailure> },
    /// A read that had to wait for the disk.
    ReadDone { ticket: Ticket, result: Result<Option<Record>, StorageFailure> },
    /// A page of a range.
    ScanDone { ticket: Ticket, result: Result<ScanPage, StorageFailure> },
    /// Storage cannot read these, and nobody had asked.
    Damaged { ranges: Vec<(Bytes, Bytes)> },
    /// A plugin answered, or did not.
    PluginDone { ticket: Ticket, answer: PluginAnswer },
    /// A module was compiled, or refused.
    PluginLoaded { hash: PluginHash, result: Result<PluginFacts, String> },
    /// The disk failed; what is durable is unknown.
    StorageStopped(merganser_storage::Error),
    /// Finish what is in flight, within so many milliseconds, and end.
    Stop { drain_ms: u64 },
}

/// Who waits for an outcome.
pub(crate) enum ReplyTo {
    /// A call.
    Call(oneshot::Sender<Outcome>),
    /// A request of a pipeline, by its id.
    Pipeline { id: u64, outcomes: mpsc::UnboundedSender<(u64, Outcome)> },
}

/// How the node is.
pub(crate) struct Snapshot {
    /// The actor it writes as.
    pub(crate) actor: u64,
    /// All members, as it takes them to be.
    pub(crate) members: Vec<MemberView>,
    /// What it keeps for others.
    pub(crate) hints: Vec<HintView>,
    /// How equal its data is to that of others.
    pub(crate) repair: Vec<RepairView>,
    /// How far the slow walk over all values is.
    pub(crate) scrub: ScrubView,
    /// How far what deletes left behind is collected.
    pub(crate) collection: CollectionView,
    /// What it is asked for most.
    pub(crate) hot_keys: Vec<HotKeyView>,
    /// All figures.
    pub(crate) metrics: Vec<Metric>,
}

/// Anyone may have one.
#[derive(Clone)]
pub(crate) struct Door(mpsc::UnboundedSender<Input>);

impl Door {
    pub(crate) fn new() -> (Door, mpsc::UnboundedReceiver<Input>) {
        let (inputs, queue) = mpsc::unbounded_channel();
        (Door(inputs), queue)
    }

    /// Lost without a word once the driver has ended; who waits for an answer sees that.
    pub(crate) fn put(&self, input: Input) {
        let _ = self.0.send(input);
    }

    /// None: the node is gone.
    pub(crate) async fn ask(&self, request: Request) -> Option<Outcome> {
        let (reply, outcome) = oneshot::channel();
        self.put(Input::Client { request, reply: ReplyTo::Call(reply) });
        outcome.await.ok()
    }

    /// None: the node is gone.
    pub(crate) async fn ask_admin(&self, request: AdminRequest) -> Option<AdminReply> {
        let (reply, outcome) = oneshot::channel();
        self.put(Input::Admin { request, reply });
        outcome.await.ok()
    }

    /// None: the node is gone.
    pub(crate) async fn now(&self) -> Option<Moment> {
        let (reply, moment) = oneshot::channel();
        self.put(Input::Now(reply));
        moment.await.ok()
    }

    /// None: the node is gone.
    pub(crate) async fn look(&self) -> Option<Snapshot> {
        let (reply, snapshot) = oneshot::channel();
        self.put(Input::Look(reply));
        snapshot.await.ok()
    }
}
