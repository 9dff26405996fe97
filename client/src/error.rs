//! Why a request failed: one variant for each thing a caller may want to do about it.
//!
//! In: gRPC statuses and the `Problem`s inside them or beside other outcomes. Out: [`Error`], with
//! the facts in fields, a stable [`Error::code`] and a [`Error::hint`] of what to do next.
//! Absent: whether to try again; that is `retry`.

use crate::{Context, client::PendingWrite, entry::Written};
use merganser_core::id::{ActorId, Dot};
use merganser_proto::v1::{self, problem::Detail};
use prost::Message;
use std::{fmt, time::Duration};
use tonic::{Code, Status};

/// Where the server puts its `Problem`s.
const PROBLEM_TYPE: &str = "merganser.v1.Problem";

/// Why a request failed. [`Error::Uncertain`] alone leaves open whether something was written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// No node answered. Where `sent`, a node may still have received the request.
    Unavailable {
        /// The last node tried.
        node: String,
        /// What went wrong with it.
        reason: String,
        /// Whether the request may have left this process.
        sent: bool,
    },
    /// Nothing was changed: fewer replicas within reach than the quorum needs.
    NotEnoughReplicas {
        /// What the quorum needs.
        needed: u32,
        /// What the coordinator could reach.
        reachable: u32,
    },
    /// The write may or may not become visible.
    Uncertain(Box<Uncertain>),
    /// The key has too many siblings, or too many bytes in them, for a put that does not replace enough of them.
    SiblingLimit {
        /// How many it has.
        siblings: u32,
        /// How many a blind put may find.
        limit: u32,
        /// What they would come to with this put.
        size_bytes: u64,
        /// What they may come to.
        limit_bytes: u64,
        /// Covers them.
        context: Context,
    },
    /// A lattice's key holds too much that its plugin has not joined.
    OperandLimit {
        /// How many operands it has.
        operands: u32,
        /// How many a put may find.
        operands_max: u32,
        /// Bytes of all of them, with the put.
        size_bytes: u64,
        /// How many there may be.
        size_bytes_max: u64,
        /// Covers them.
        context: Context,
    },
    /// No replica within reach holds all that the context of an operation or query covers. Nothing was done.
    Stale,
    /// A key, value, or reply beyond its limit.
    TooLarge {
        /// `key`, `value`, `reply`, …
        what: String,
        /// Its size.
        size_bytes: u64,
        /// The most there may be.
        limit_bytes: u64,
    },
    /// The keyspace's plugin refused the value or the operation.
    InvalidValue {
        /// In the plugin's own words.
        kind: String,
        /// In the plugin's own words.
        reason: String,
    },
    /// A put or delete without a context that did not say `blind`.
    ContextRequired,
    /// The context is not one that this cluster made for this key.
    InvalidContext {
        /// True: its seal does not match. False: it does not even parse.
        forged: bool,
    },
    /// No keyspace has this name.
    UnknownKeyspace {
        /// The name.
        keyspace: String,
    },
    /// The node has too much to do.
    Overloaded {
        /// When to ask again.
        retry_after: Duration,
    },
    /// More requests for this one key than its keyspace allows at one node.
    KeyTooHot {
        /// When to ask again.
        retry_after: Duration,
    },
    /// Nothing was changed: the write came to the node when it was already given up, or by the time of an earlier
    /// boot of it.
    Late,
    /// Nothing was changed: another request of this key came with the same id.
    RequestIdReused,
    /// The request makes no sense.
    InvalidArgument {
        /// Which field.
        field: String,
        /// Why.
        reason: String,
    },
    /// One value was asked for, and there are siblings that nothing settled.
    Unresolved {
        /// Why not.
        reason: String,
    },
    /// An `lww` stamp too far ahead of the node's clock.
    ClockSkew {
        /// How far.
        ahead: Duration,
    },
    /// Something of this name exists already.
    AlreadyExists {
        /// What.
        what: String,
    },
    /// Nothing of this name exists.
    NotFound {
        /// What.
        what: String,
    },
    /// The state of the cluster forbids it.
    Refused {
        /// Why.
        reason: String,
    },
    /// The node answered with something that this client does not understand, or failed inside.
    Server {
        /// The gRPC code.
        code: u32,
        /// The node's words.
        reason: String,
    },
}

/// A write of unknown fate.
#[derive(Clone, Debug)]
pub struct Uncertain {
    /// The dot it has if it becomes visible, where a coordinator told.
    pub dot: Option<Dot>,
    /// Replicas that are known to have it.
    pub replicas: Vec<String>,
    /// How many were needed.
    pub needed: u32,
    /// What happened last.
    pub cause: String,
    /// The write itself; none for one item of a raw reply.
    pub(crate) pending: Option<PendingWrite>,
}

impl Uncertain {
    /// Tries once more, for another full timeout, with the same request id. Where a node knows what became of an earlier
    /// attempt, the write has no second effect (see `request_id` in `kv.proto` for how long that is so, and where not); in an
    /// `lww` keyspace it counts as of the first attempt.
    pub async fn retry(&self) -> Result<Written, Error> {
        match &self.pending {
            Some(pending) => pending.send().await,
            None => Err(Error::Uncertain(Box::new(self.clone()))),
        }
    }
}

impl Error {
    /// A stable name of the variant, for programs that print errors.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Unavailable { .. } => "unavailable",
            Error::NotEnoughReplicas { .. } => "not_enough_replicas",
            Error::Uncertain(_) => "uncertain",
            Error::SiblingLimit { .. } => "sibling_limit",
            Error::OperandLimit { .. } => "operand_limit",
            Error::Stale => "stale",
            Error::TooLarge { .. } => "too_large",
            Error::InvalidValue { .. } => "invalid_value",
            Error::ContextRequired => "context_required",
            Error::InvalidContext { .. } => "invalid_context",
            Error::UnknownKeyspace { .. } => "unknown_keyspace",
            Error::Overloaded { .. } => "overloaded",
            Error::KeyTooHot { .. } => "key_too_hot",
            Error::Late => "late",
            Error::RequestIdReused => "request_id_reused",
            Error::InvalidArgument { .. } => "invalid_argument",
            Error::Unresolved { .. } => "unresolved",
            Error::ClockSkew { .. } => "clock_skew",
            Error::AlreadyExists { .. } => "already_exists",
            Error::NotFound { .. } => "not_found",
            Error::Refused { .. } => "refused",
            Error::Server { .. } => "server",
        }
    }

    /// What happened, as a fragment that completes "failed: …".
    pub fn what(&self) -> String {
        match self {
            Error::Unavailable { node, reason, .. } => format!("no node answered; {node}: {reason}"),
            Error::NotEnoughReplicas { needed, reachable } => {
                format!("{needed} replicas are needed and {reachable} can be reached; nothing was changed")
            }
            Error::Uncertain(write) => {
                let dot = write.dot.map(|dot| format!(" as {dot}")).unwrap_or_default();
                let (acks, needed) = (write.replicas.len(), write.needed);
                let counted =
                    if needed > 0 { format!(" ({acks} of {needed} replicas)") } else { String::new() };
                format!("the write may or may not become visible{dot}{counted}: {}", write.cause)
            }
            Error::SiblingLimit { siblings, size_bytes, limit_bytes, .. } if size_bytes > limit_bytes => {
                format!(
                    "the key has {siblings} siblings; with this put they would have {size_bytes} bytes, at most {limit_bytes} are allowed"
                )
            }
            Error::SiblingLimit { siblings, limit, .. } => {
                format!("the key has {siblings} siblings and a blind put may find {limit} at most")
            }
            Error::OperandLimit { operands, operands_max, size_bytes, size_bytes_max, .. } => format!(
                "the key holds {operands} operands of {size_bytes} bytes that are not joined; at most {operands_max} of {size_bytes_max} bytes are allowed"
            ),
            Error::Stale => {
                "no replica within reach holds all that the context covers; nothing was done".into()
            }
            Error::TooLarge { what, size_bytes, limit_bytes } => {
                format!("{what} of {size_bytes} bytes; at most {limit_bytes} are allowed")
            }
            Error::InvalidValue { kind, reason } => {
                format!("the keyspace's plugin refused it ({kind}): {reason}")
            }
            Error::ContextRequired => "a write without a context".into(),
            Error::InvalidContext { forged: true } => {
                "the context was not made by this cluster for this key".into()
            }
            Error::InvalidContext { forged: false } => "the bytes given as a context are not one".into(),
            Error::UnknownKeyspace { keyspace } => format!("no keyspace is called `{keyspace}`"),
            Error::Overloaded { retry_after } => {
                format!("the node has too much to do; it asks for {} ms", retry_after.as_millis())
            }
            Error::KeyTooHot { retry_after } => {
                format!("too many ask for this key; the node asks for {} ms", retry_after.as_millis())
            }
            Error::RequestIdReused => {
                "the request id was used for another request of this key; nothing was changed".into()
            }
            Error::Late => "the write reached the node too late; nothing was changed".into(),
            Error::InvalidArgument { field, reason } => format!("`{field}`: {reason}"),
            Error::Unresolved { reason } => format!("the key is unresolved: {reason}"),
            Error::ClockSkew { ahead } => {
                format!("the stamp is {} ms ahead of the node's clock", ahead.as_millis())
            }
            Error::AlreadyExists { what } | Error::NotFound { what } => what.clone(),
            Error::Refused { reason } => reason.clone(),
            Error::Server { code, reason } => {
                format!("the node failed ({:?}): {reason}", Code::from(*code as i32))
            }
        }
    }

    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Error::Unavailable { .. } => "check that a node runs at that address, or name others",
            Error::NotEnoughReplicas { .. } => "wait for nodes to come back, or ask for a smaller quorum",
            Error::Uncertain(_) => {
                "read the key, or retry the same write: a node that knows of it does not do it again"
            }
            Error::SiblingLimit { .. } => "get the key, settle its siblings, and put with that context",
            Error::OperandLimit { .. } => {
                "try again once the plugin has joined them, or get the siblings, see why it has not, and delete them"
            }
            Error::Stale => "try again, or get the key again and use the context of that reply",
            Error::TooLarge { what, .. } => match what.as_str() {
                "key" => "choose a shorter key",
                "context" => "get the key again and write with the context of that reply",
                "result" => "ask for a part of the state, by its path",
                "state" => "make the state smaller first: remove or clear what it holds",
                "reply" => "get it with a streaming call, or ask for less",
                "module" => "build the plugin smaller: optimise for size, strip it",
                "content_type" => "choose a shorter content type",
                _ => "send less: a value may be split over several keys",
            },
            Error::InvalidValue { .. } => "write what the plugin of this keyspace accepts",
            Error::ContextRequired => "get the key and write with its context, or write blind on purpose",
            Error::InvalidContext { .. } => "get the key again and write with the context of that reply",
            Error::UnknownKeyspace { .. } => {
                "create it with `merganser keyspace create`, or list those there are"
            }
            Error::Overloaded { .. } => "try again later, or send less at once",
            Error::KeyTooHot { .. } => "ask for it less often, or raise the keyspace's key_rate_max",
            Error::RequestIdReused => {
                "draw a new id for each request, and repeat it with each retry of that request"
            }
            Error::Late => "try again; if it stays, the network or the node holds requests back for seconds",
            Error::InvalidArgument { .. } => "change the request; it will not succeed as it is",
            Error::Unresolved { .. } => {
                "get the siblings: the plugin may answer later; otherwise delete those that it refuses, or put one value with their context"
            }
            Error::ClockSkew { .. } => "set the clocks of the machines right (NTP)",
            Error::AlreadyExists { .. } => "choose another name, or change the one there is",
            Error::NotFound { .. } => "list those there are",
            Error::Refused { .. } => "remove the reason first",
            Error::Server { .. } => "look into the node's log",
        }
    }

    /// From a unary call's status. `node` is whom we asked.
    pub(crate) fn from_status(node: &str, status: &Status) -> Error {
        if let Some(problem) = problem_of(status) {
            return Error::from_problem(problem);
        }
        // tonic keeps the cause of what happened on this side; a status sent by a node has none.
        let local = std::error::Error::source(status).is_some();
        match status.code() {
            Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Aborted => {
                Error::Unavailable {
                    node: node.into(),
                    reason: reason(status),
                    sent: !never_connected(status),
                }
            }
            _ if local => Error::Unavailable { node: node.into(), reason: reason(status), sent: true },
            code => from_code(code as u32, status.message().to_owned()),
        }
    }

    /// From an outcome beside others, or the detail of a status.
    pub(crate) fn from_problem(problem: v1::Problem) -> Error {
        let Some(detail) = problem.detail else { return from_code(problem.code, problem.message) };
        match detail {
            Detail::NotEnoughReplicas(d) => {
                Error::NotEnoughReplicas { needed: d.needed, reachable: d.reachable }
            }
            Detail::Uncertain(d) => {
                let acks = d.acks.unwrap_or_default();
                Error::Uncertain(Box::new(Uncertain {
                    dot: d.dot.map(dot),
                    replicas: acks.replicas,
                    needed: acks.needed,
                    cause: problem.message,
                    pending: None,
                }))
            }
            Detail::SiblingLimit(d) => Error::SiblingLimit {
                siblings: d.siblings,
                limit: d.limit,
                size_bytes: d.size_bytes,
                limit_bytes: d.limit_bytes,
                context: Context::from_bytes(d.context),
            },
            Detail::OperandLimit(d) => Error::OperandLimit {
                operands: d.operands,
                operands_max: d.operands_max,
                size_bytes: d.size_bytes,
                size_bytes_max: d.size_bytes_max,
                context: Context::from_bytes(d.context),
            },
            Detail::Stale(_) => Error::Stale,
            Detail::TooLarge(d) => {
                Error::TooLarge { what: d.what, size_bytes: d.size_bytes, limit_bytes: d.limit_bytes }
            }
            Detail::InvalidValue(d) => Error::InvalidValue { kind: d.kind, reason: d.reason },
            Detail::ContextRequired(_) => Error::ContextRequired,
            Detail::InvalidContext(d) => {
                Error::InvalidContext { forged: d.reason() == v1::invalid_context::Reason::Forged }
            }
            Detail::UnknownKeyspace(d) => Error::UnknownKeyspace { keyspace: d.keyspace },
            Detail::Overloaded(d) => {
                Error::Overloaded { retry_after: Duration::from_millis(d.retry_after_ms.into()) }
            }
            Detail::KeyTooHot(d) => {
                Error::KeyTooHot { retry_after: Duration::from_millis(d.retry_after_ms.into()) }
            }
            Detail::Late(_) => Error::Late,
            Detail::RequestIdReused(_) => Error::RequestIdReused,
            Detail::InvalidArgument(d) => Error::InvalidArgument { field: d.field, reason: d.reason },
            Detail::Unresolved(d) => Error::Unresolved { reason: d.reason },
            Detail::ClockSkew(d) => Error::ClockSkew { ahead: Duration::from_millis(d.ahead_ms) },
        }
    }

    /// A reply that the protocol does not allow.
    pub(crate) fn protocol(reason: impl Into<String>) -> Error {
        Error::Server { code: Code::Internal as u32, reason: reason.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what(), self.hint())
    }
}

impl std::error::Error for Error {}

pub(crate) fn dot(dot: v1::Dot) -> Dot {
    Dot { actor: ActorId(dot.actor), counter: dot.counter }
}

/// The `Problem` among a status's details. Details that do not decode are as good as none: the
/// code still tells what to do.
fn problem_of(status: &Status) -> Option<v1::Problem> {
    let details = tonic_types::Status::decode(status.details()).ok()?.details;
    let problem = details.into_iter().find(|any| any.type_url.ends_with(PROBLEM_TYPE))?;
    v1::Problem::decode(problem.value.as_slice()).ok()
}

/// What a code says where no detail came with it.
fn from_code(code: u32, message: String) -> Error {
    match Code::from(code as i32) {
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Aborted => {
            Error::Unavailable { node: "the node".into(), reason: message, sent: true }
        }
        Code::InvalidArgument | Code::OutOfRange => {
            Error::InvalidArgument { field: "request".into(), reason: message }
        }
        Code::AlreadyExists => Error::AlreadyExists { what: message },
        Code::NotFound => Error::NotFound { what: message },
        Code::FailedPrecondition | Code::PermissionDenied | Code::Unauthenticated => {
            Error::Refused { reason: message }
        }
        _ => Error::Server { code, reason: message },
    }
}

/// True where not even a connection came about, so that the node saw nothing of the request.
fn never_connected(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<tonic::ConnectError>())
}

/// The innermost cause says most: "Connection refused (os error 111)".
fn reason(status: &Status) -> String {
    match causes(status).last() {
        Some(cause) => cause.to_string(),
        None => status.message().to_owned(),
    }
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    let first = std::error::Error::source(status);
    std::iter::successors(first, |error| error.source())
}

#[cfg(test)]
#[path = "error_test.rs"]
mod error_test;
