//! What comes in by the one door, and what goes out.
//!
//! ```text
//!   clients ─┐                              ┌─▶ replies
//!   peers   ─┤   Node::handle(now, Event)   ├─▶ messages
//!   storage ─┼─▶            │              ─┼─▶ reads, writes
//!   plugins ─┤              ▼               ├─▶ plugin calls
//!   timers  ─┘           Effects            └─▶ notices
//! ```
//!
//! Storage's and plugins' answers come back through the same door as the network's, so a
//! simulator may delay, reorder, drop or fail any of them. Absent: anything that waits.

use crate::admin::{AdminReply, AdminRequest};
use crate::id::{ClientTicket, DiskId, Dot, KeyspaceId, NodeId, PluginHash, Ticket};
use crate::membership::{MemberState, RejoinReason};
use crate::message::Message;
use crate::plugin::{PluginAnswer, PluginCall, PluginFacts};
use crate::request::{Outcome, Request};
use crate::ring::Slot;
use crate::version::Digest;
use bytes::Bytes;

/// Something happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A client asks.
    Client {
        /// To find it again.
        ticket: ClientTicket,
        /// What it asks.
        request: Request,
    },
    /// An operator asks.
    Admin {
        /// To find it again.
        ticket: ClientTicket,
        /// What it asks.
        request: AdminRequest,
    },
    /// A peer says something. Any link may lose, delay or repeat it.
    Message {
        /// Who; proven by the link.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// The link to a peer came up or went down: a hint about who can be reached, no promise.
    Link {
        /// Which.
        peer: NodeId,
        /// Up or down.
        up: bool,
    },
    /// A read is done.
    ReadDone {
        /// Of the effect.
        ticket: Ticket,
        /// The record, folded; None if there is none.
        result: Result<Option<Record>, StorageFailure>,
    },
    /// A scan is done.
    ScanDone {
        /// Of the effect.
        ticket: Ticket,
        /// What there is, as far as it was read.
        result: Result<ScanPage, StorageFailure>,
    },
    /// Storage has found that it cannot read something, without being asked for it: its verifier.
    Damaged {
        /// Half-open ranges of storage keys.
        ranges: Vec<(Bytes, Bytes)>,
    },
    /// Writes are done: all of them durable as asked for, or none known to be.
    WritesDone {
        /// Of the effects.
        tickets: Vec<Ticket>,
        /// How it went.
        result: Result<(), StorageFailure>,
    },
    /// A plugin call is done.
    PluginDone {
        /// Of the effect.
        ticket: Ticket,
        /// Its answer, or why there is none.
        answer: PluginAnswer,
    },
    /// A module was compiled, or refused.
    PluginLoaded {
        /// Which.
        hash: PluginHash,
        /// What it says of itself, or why it was refused.
        result: Result<PluginFacts, String>,
    },
    /// The time asked for by [`crate::Node::next_deadline`] has come (or any other).
    TimerFired,
}

/// What storage keeps for one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Clock and metadata.
    pub head: Bytes,
    /// Values.
    pub body: Bytes,
}

/// Some records of a range, in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanPage {
    /// Storage keys and folded records; of scans for heads only, with empty bodies.
    pub entries: Vec<(Bytes, Record)>,
    /// Where the next page begins; None: the range is at its end.
    pub next: Option<Bytes>,
    /// Ranges (from, inclusive; to, exclusive) that are damaged: what is in them is not known.
    pub damaged: Vec<(Bytes, Bytes)>,
    /// Counts damage as storage finds it; what [`Effect::Excise`] wants to know.
    pub damage_seen: u64,
}

/// Why storage could not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageFailure {
    /// The record is damaged: never "not found".
    Corrupt(String),
    /// Try later.
    Overloaded,
    /// Anything else: the node is about to stop.
    Failed(String),
}

/// Something to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Tell a client.
    Reply {
        /// Which.
        ticket: ClientTicket,
        /// What.
        outcome: Outcome,
    },
    /// Tell an operator.
    AdminReply {
        /// Which.
        ticket: ClientTicket,
        /// What.
        reply: AdminReply,
    },
    /// Tell a peer; dropped without a word if the link is down or full.
    Send {
        /// Whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Read a key; answered by [`Event::ReadDone`].
    Read {
        /// To find it again.
        ticket: Ticket,
        /// The storage key.
        key: Bytes,
    },
    /// Read a range in the order of its keys, off the path of clients; answered by
    /// [`Event::ScanDone`]. The page ends at whichever bound is met first, and holds at least one
    /// record if there is any.
    Scan {
        /// To find it again.
        ticket: Ticket,
        /// The first storage key, inclusive.
        from: Bytes,
        /// The last, exclusive.
        to: Bytes,
        /// Records of a page.
        records_max: usize,
        /// Bytes of a page.
        bytes_max: usize,
        /// Leave values where they are.
        heads_only: bool,
    },
    /// Give up what is damaged in a range, found up to `seen`, after every key of the range that another
    /// replica holds was written anew (a Put each, and done) since the page that told `seen`. What was
    /// given up goes on hiding anything older. Answered by nothing: where it fails, the range stays
    /// damaged and is found again.
    Excise {
        /// The first storage key, inclusive.
        from: Bytes,
        /// The last, exclusive.
        to: Bytes,
        /// Of the page that was read before: later damage may hide what was written since.
        seen: u64,
    },
    /// Write, all or nothing, in the order of the effects; answered by [`Event::WritesDone`].
    Write {
        /// To find it again.
        ticket: Ticket,
        /// What.
        ops: Vec<WriteOp>,
        /// When it counts as done.
        durability: Durability,
    },
    /// Call a plugin; answered by [`Event::PluginDone`].
    Plugin {
        /// To find it again.
        ticket: Ticket,
        /// Which.
        plugin: PluginHash,
        /// What to ask.
        call: PluginCall,
    },
    /// Compile a module and keep it at hand; answered by [`Event::PluginLoaded`].
    LoadPlugin {
        /// Its identity.
        hash: PluginHash,
        /// Its bytes.
        module: Bytes,
    },
    /// This node's disk may not be used again. From now on it says nothing; set the data directory
    /// aside, and start anew with an empty one.
    RejoinEmpty {
        /// Why.
        reason: RejoinReason,
    },
    /// Something an operator or a metric wants to know.
    Notice(Notice),
}

/// One change of one storage key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOp {
    /// Replaces everything older.
    Put {
        /// The storage key.
        key: Bytes,
        /// The whole state.
        record: Record,
    },
    /// Folds with what is there (see [`crate::fold`]).
    Merge {
        /// The storage key.
        key: Bytes,
        /// A fragment.
        record: Record,
    },
    /// Removes it.
    Remove {
        /// The storage key.
        key: Bytes,
    },
}

/// When a write counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Synced.
    #[default]
    Sync,
    /// Written; synced every few milliseconds.
    Interval,
    /// Written.
    None,
}

/// What happened that nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A peer holds a counter of ours that we never issued: our data is older than what left us.
    /// A new actor was taken.
    Amnesia {
        /// What was seen.
        seen: Dot,
        /// The highest we issued.
        issued: u64,
    },
    /// One dot, two values: kept what was here (a hard error, never merged).
    DotReused {
        /// Which.
        dot: Dot,
        /// The storage key.
        key: Bytes,
    },
    /// An operand of a lattice's key is joined with nothing from now on; a delete that saw it removes it.
    SetAside {
        /// In which keyspace.
        keyspace: String,
        /// Which key.
        key: Bytes,
        /// Why.
        reason: String,
    },
    /// A plugin gave no answer (R7).
    PluginFailed {
        /// Which.
        plugin: PluginHash,
        /// In which keyspace.
        keyspace: String,
        /// Why.
        reason: String,
    },
    /// Automatic resolutions of this key stopped (R11).
    BreakerTripped {
        /// In which keyspace.
        keyspace: String,
        /// Which key.
        key: Bytes,
    },
    /// A key's context has grown to many spans.
    LargeContext {
        /// In which keyspace.
        keyspace: String,
        /// Which key.
        key: Bytes,
        /// How many.
        spans: usize,
    },
    /// A key's siblings together are more than a record holds: what a peer has of it is not taken in here, until a client
    /// replaces some of them.
    KeyTooLarge {
        /// In which keyspace.
        keyspace: String,
        /// Which key.
        key: Bytes,
        /// What they come to.
        size_bytes: u64,
    },
    /// A record on disk does not decode or its block is damaged.
    CorruptRecord {
        /// The storage key.
        key: Bytes,
        /// Why.
        reason: String,
    },
    /// A replica that lagged was sent the newer state.
    ReadRepair {
        /// Which.
        replica: NodeId,
    },
    /// A resolution was stored by this node as the key's owner (R3).
    WroteBack {
        /// In which keyspace.
        keyspace: String,
        /// Which key.
        key: Bytes,
    },
    /// Two replicas hold other contents of a key under equal causality: a plugin that is not deterministic,
    /// or rot. Both are kept as evidence where the lesser is replaced; the larger digest wins on all replicas.
    Divergence {
        /// In which keyspace.
        keyspace: String,
        /// Which key.
        key: Bytes,
        /// Of the content here.
        mine: Digest,
        /// Of the peer's.
        theirs: Digest,
        /// Who that is.
        peer: NodeId,
        /// The plugin that joins this keyspace's states. Where it tells states apart by fingerprint, other
        /// bytes alone do not speak against it.
        suspect: Option<PluginHash>,
    },
    /// A range of the disk could not be read, and another replica could not read all of it either: what only those held
    /// is lost. All that others hold was taken in, and the range given up.
    RangeLost {
        /// In which keyspace.
        keyspace: String,
        /// The first storage key; inclusive.
        from: Bytes,
        /// The end; exclusive.
        to: Bytes,
        /// Who else could not read all of it.
        peers: Vec<NodeId>,
    },
    /// A leaf of this node's own tree was not what its keys add up to; it is now.
    LeafCorrected {
        /// Of which keyspace.
        keyspace: KeyspaceId,
        /// Which.
        slot: Slot,
    },
    /// All hints kept for a node went home.
    HintsHome {
        /// Whose.
        target: NodeId,
    },
    /// The catalog has changed.
    CatalogChanged,
    /// This node has booted and serves from now on.
    Joined {
        /// A member knew it, and found nothing wrong with its disk.
        recognised: bool,
    },
    /// A member is taken to be in another state than before.
    Member {
        /// Which.
        node: NodeId,
        /// From now on.
        state: MemberState,
    },
    /// A member is found elsewhere than before.
    AddressChanged {
        /// Which.
        node: NodeId,
        /// Where it is now.
        address: String,
    },
    /// A member has come back with an empty disk.
    EmptyDisk {
        /// Which.
        node: NodeId,
        /// The new one.
        disk: DiskId,
    },
    /// A member speaks for a disk that is older than what left it; nobody listens.
    OldDisk {
        /// Which.
        node: NodeId,
        /// The old one.
        disk: DiskId,
    },
    /// A member was down for so long that its disk may not come back.
    Forgotten {
        /// Which.
        node: NodeId,
        /// The disk.
        disk: DiskId,
    },
}

/// Effects in the order in which they were decided.
pub type Effects = Vec<Effect>;
