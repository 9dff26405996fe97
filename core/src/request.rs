//! What clients ask of the cluster and what they are told: already decoded, not yet judged.
//!
//! In: typed requests from the gRPC shell (or from another node that forwarded them). Out: typed
//! outcomes, each problem a decision for the caller. Absent: wire formats and gRPC codes.

use crate::id::{Dot, Millis, NodeId, PluginHash, RequestId};
use crate::moment::Moment;
use bytes::Bytes;

/// Longest key in bytes.
pub const KEY_BYTES_MAX: usize = 256;
/// Largest value that a client may put, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Largest stored result of a merge, in bytes (research: a union may exceed what was put).
pub const MERGED_BYTES_MAX: usize = 4 << 20;
/// Longest content type in bytes.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;
/// Largest operation or query path in bytes.
pub const OPERATION_BYTES_MAX: usize = 64 << 10;

/// How many replicas must answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// The keyspace's own R or W.
    #[default]
    Keyspace,
    /// One.
    One,
    /// A majority of N.
    Quorum,
    /// All N.
    All,
    /// This many; 1 to N.
    Count(u32),
}

/// Whether stand-ins may answer for replicas that cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sloppiness {
    /// As the keyspace says.
    #[default]
    Keyspace,
    /// Only the key's own replicas count.
    Strict,
    /// Stand-ins count, and the reply says so.
    Sloppy,
}

/// One request of a client about one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Name of the keyspace.
    pub keyspace: String,
    /// 1 to [`KEY_BYTES_MAX`] bytes.
    pub key: Bytes,
    /// R or W for this request.
    pub level: Level,
    /// Whether stand-ins count for this request.
    pub sloppiness: Sloppiness,
    /// Absent: the node's default.
    pub timeout_ms: Option<u64>,
    /// By the time of the node that it is sent to: from then on nobody waits for it. Absent: never.
    pub until: Option<Moment>,
    /// Of a write that was sent before: how long ago that was first. A register's write is stamped as of then.
    pub retry_of_ms_ago: Option<u64>,
    /// What to do.
    pub operation: Operation,
}

/// What to do with a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Read it.
    Get {
        /// Settled by the policy, or every sibling.
        want: Want,
    },
    /// Store a value (in a lattice keyspace: join it in).
    Put {
        /// At most [`VALUE_BYTES_MAX`] bytes.
        value: Bytes,
        /// Shown to readers and plugins.
        content_type: Option<Bytes>,
        /// What the client had seen.
        basis: Basis,
        /// Repeated with each retry.
        request_id: RequestId,
        /// Gone after so long; 0: never; None: as the keyspace says. Not in lattice keyspaces.
        ttl_ms: Option<u64>,
    },
    /// Delete what the client had seen.
    Delete {
        /// What the client had seen.
        basis: Basis,
        /// Repeated with each retry.
        request_id: RequestId,
    },
    /// An operation of a replicated type.
    Apply {
        /// In the plugin's own language.
        op: Bytes,
        /// What the client had seen: its coordinator holds at least that, and the plugin is told. Absent: nothing is said.
        context: Option<Bytes>,
        /// Also the operation's id within the state.
        request_id: RequestId,
    },
    /// A projection of a replicated type's state.
    Query {
        /// In the plugin's own language.
        path: Bytes,
        /// What the client had seen: the state that is shown is at least that. Absent: what R replicas hold.
        context: Option<Bytes>,
    },
}

impl Operation {
    /// Whether it changes the key.
    pub fn is_write(&self) -> bool {
        !matches!(self, Operation::Get { .. } | Operation::Query { .. })
    }
}

/// What a get answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// The policy's view.
    Resolved,
    /// All siblings; no plugin is called.
    Siblings,
}

/// What a write is based on.
#[derive(Clone, Debug, PartialEq)]
pub enum Basis {
    /// The token of an earlier read or write of this key.
    Context(Bytes),
    /// Deliberately nothing.
    Blind,
    /// Not said: refused where the policy needs to know.
    Unsaid,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Of a get.
    Got(GetReply),
    /// Of a put, delete or apply.
    Wrote(WriteReply),
    /// Of a query.
    Queried(QueryReply),
    /// Of any.
    Failed(Problem),
}

impl Outcome {
    /// About how many bytes it takes.
    pub fn size_bytes(&self) -> usize {
        let sibling = |sibling: &SiblingView| {
            let content = sibling.content.as_ref().map_or(0, Bytes::len);
            let merged_from = sibling.receipt.as_ref().map_or(0, |receipt| receipt.merged_from.len());
            content
                + sibling.content_type.as_ref().map_or(0, Bytes::len)
                + 20 * (sibling.dots.len() + merged_from)
                + 64
        };
        512 + match self {
            Outcome::Got(reply) => reply.context.len() + reply.siblings.iter().map(sibling).sum::<usize>(),
            Outcome::Wrote(reply) => reply.context.len(),
            Outcome::Queried(reply) => reply.context.len() + reply.result.len(),
            Outcome::Failed(_) => 0,
        }
    }
}

/// Which replicas answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acks {
    /// Distinct nodes, in the order in which they answered.
    pub replicas: Vec<NodeId>,
    /// How many were asked for.
    pub needed: u32,
    /// Some are stand-ins, so that R + W > N proves nothing.
    pub sloppy: bool,
}

/// Whether there is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Never written, as far as the replicas that answered know.
    NotFound,
    /// At least one value.
    Found,
    /// Deleted; the context covers the delete.
    Deleted,
}

/// What a get found.
#[derive(Clone, Debug, PartialEq)]
pub struct GetReply {
    /// Whether there is a value.
    pub presence: Presence,
    /// One where settled, several where siblings are shown, in dot order.
    pub siblings: Vec<SiblingView>,
    /// Covers everything that was seen, shown or not.
    pub context: Bytes,
    /// What became of the conflict.
    pub resolution: Resolution,
    /// Which replicas answered.
    pub acks: Acks,
}

/// One version as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct SiblingView {
    /// None: a concurrent delete.
    pub content: Option<Bytes>,
    /// Every write that put these bytes, in order.
    pub dots: Vec<Dot>,
    /// When, by the coordinator's hybrid clock; as data.
    pub stamp: crate::version::Stamp,
    /// As the writer gave it.
    pub content_type: Option<Bytes>,
    /// Set where it is a stored resolution.
    pub receipt: Option<crate::version::Receipt>,
    /// When it will be gone, if it will; of byte-equal ones the last.
    pub expires_at: Option<Millis>,
    /// An operand of a lattice that is joined with nothing: why.
    pub apart: Option<String>,
    /// Where it is apart: covers it alone, so that a delete with it removes it and nothing else. Otherwise empty.
    pub context: Bytes,
}

/// What became of a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// One version.
    NoneNeeded,
    /// The policy keeps siblings, or the client asked for them.
    Siblings,
    /// By this plugin.
    Resolved {
        /// Which module.
        plugin: PluginHash,
        /// Under which policy epoch.
        epoch: u64,
    },
    /// The siblings stay (R7).
    Unresolved {
        /// Why, for people.
        reason: String,
        /// Which module was asked.
        plugin: PluginHash,
        /// Under which policy epoch.
        epoch: u64,
    },
}

/// What a write did.
#[derive(Clone, Debug, PartialEq)]
pub struct WriteReply {
    /// The write's own dot.
    pub dot: Dot,
    /// Covers the write and what it saw.
    pub context: Bytes,
    /// Which replicas hold it durably.
    pub acks: Acks,
    /// Live siblings at the coordinator afterwards; of a lattice its fragments.
    pub siblings: u32,
    /// Why the plugin did not look at the value: it was kept apart. None: it did, or there is none to ask.
    pub unvalidated: Option<String>,
}

/// What a query found.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryReply {
    /// Whether there is a state.
    pub presence: Presence,
    /// In the plugin's own language.
    pub result: Bytes,
    /// Covers what was seen.
    pub context: Bytes,
    /// Unresolved where operands of the key are not in the state that was asked.
    pub resolution: Resolution,
    /// Which replicas answered.
    pub acks: Acks,
}

/// Why a request failed. Nothing was stored unless it says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Nothing was written or read.
    #[error("{needed} replicas are needed and {reachable} can be reached; lower the level or wait")]
    NotEnoughReplicas {
        /// Asked for.
        needed: u32,
        /// Can be reached now, or answered in time.
        reachable: u32,
    },
    /// The write may or may not become visible.
    #[error("the write is durable on {} of {} replicas as far as is known; retry with the same request id", acks.replicas.len(), acks.needed)]
    Uncertain {
        /// Its dot if it does; None if another node was coordinating it.
        dot: Option<Dot>,
        /// Who has it for certain.
        acks: Acks,
    },
    /// Too many siblings, or too many bytes in them, for a put that replaces none, or too few, of them (R12).
    #[error(
        "the key has {siblings} siblings of {size_bytes} bytes together, {limit} and {limit_bytes} are the limits; \
         read them, and put one value with the context of that read, or with the one that came with this"
    )]
    SiblingLimit {
        /// Now.
        siblings: u32,
        /// The keyspace's limit.
        limit: u32,
        /// Of these, and of what was to be put.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
        /// Covers all of them.
        context: Bytes,
    },
    /// A lattice's key holds too much that is not joined for another put or operation (R12).
    #[error(
        "the key holds {operands} operands of {size_bytes} bytes that are not joined, the limits are {operands_max} and {size_bytes_max}; \
         get --siblings says why; put again once the plugin has joined them, or delete them with the context that came with this"
    )]
    OperandLimit {
        /// Now.
        operands: u32,
        /// The keyspace's `siblings_max`.
        operands_max: u32,
        /// With the put.
        size_bytes: u64,
        /// [`crate::limits::CLIENT_STATE_BYTES_MAX`].
        size_bytes_max: u64,
        /// Covers all of them.
        context: Bytes,
    },
    /// No state that covers the context could be reached in time; nothing was done.
    #[error(
        "no replica within reach holds all that the context covers; nothing was done; try again, or read the key anew"
    )]
    Stale,
    /// Longer or larger than allowed.
    #[error("{what} has {size_bytes} bytes, the limit is {limit_bytes}")]
    TooLarge {
        /// `key`, `value`, `context`, …
        what: &'static str,
        /// As it came.
        size_bytes: u64,
        /// At most.
        limit_bytes: u64,
    },
    /// The keyspace's plugin refused the value or operation.
    #[error("the keyspace's plugin refuses this ({kind}): {reason}")]
    InvalidValue {
        /// The plugin's word.
        kind: String,
        /// The plugin's message.
        reason: String,
    },
    /// The policy needs to know what the write is based on.
    #[error("send the context of your last read or write of this key, or say blind")]
    ContextRequired,
    /// The token does not decode, or its seal is not of this key and cluster.
    #[error("{}", if *.forged { "the context was changed on its way, or is of another key or cluster; read the key again" } else { "the context is malformed; send it as it came" })]
    InvalidContext {
        /// Decodes, but the seal does not match.
        forged: bool,
    },
    /// No such keyspace on this node.
    #[error("there is no keyspace {keyspace:?}; create it, or list those that there are")]
    UnknownKeyspace {
        /// As asked.
        keyspace: String,
    },
    /// Shed; nothing was done.
    #[error("overloaded; retry in {retry_after_ms} ms")]
    Overloaded {
        /// When to come back.
        retry_after_ms: u32,
    },
    /// Another request came with this id, for this key; nothing was done.
    #[error(
        "the request id was used for another request of this key; nothing was done; draw a new id for each request"
    )]
    RequestIdReused,
    /// Whoever asked has given it up, or would have by the time of an earlier boot; nothing was done.
    #[error(
        "the write came too late, its sender waits no more; nothing was done; ask for this node's time and send it anew"
    )]
    Late,
    /// More is asked of this key than its keyspace's `key_rate_max` allows; nothing was done.
    #[error("the key is asked for more than {limit_per_s} times a second; retry in {retry_after_ms} ms")]
    KeyTooHot {
        /// The keyspace's limit.
        limit_per_s: u32,
        /// When to come back.
        retry_after_ms: u32,
    },
    /// A field that cannot be.
    #[error("{field}: {reason}")]
    InvalidArgument {
        /// Which.
        field: &'static str,
        /// Why.
        reason: String,
    },
    /// A plugin's answer was needed and there is none (R7); nothing was written.
    #[error("the plugin gave no answer: {reason}")]
    Unresolved {
        /// Why, for people.
        reason: String,
    },
    /// An `lww` stamp too far ahead of this node's clock (R15).
    #[error("the context's stamp is {ahead_ms} ms ahead of this node's clock; check the clocks")]
    ClockSkew {
        /// How far.
        ahead_ms: u64,
    },
    /// This node cannot read or write its disk.
    #[error("storage failed: {reason}")]
    Storage {
        /// Why, for people.
        reason: String,
    },
}
