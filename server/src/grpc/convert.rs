//! Between the wire's messages and core's requests and replies. Values are shared, not copied.
//!
//! In: messages of clients. Out: core's requests, or the field that cannot be; and back. Absent:
//! limits on keys, values and contexts, which core checks.

use super::directory::Directory;
use bytes::Bytes;
use merganser_core::id::{Dot, RequestId};
use merganser_core::moment::Moment;
use merganser_core::request::{
    Acks, Basis, GetReply, Level, Operation, Presence, Problem, QueryReply, Request, Resolution, SiblingView,
    Sloppiness, Want, WriteReply,
};
use merganser_proto::v1::{self, quorum, resolution, sibling};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const REQUEST_ID_BYTES: usize = 16;

/// Makes ids for requests that come without one.
pub(crate) struct RequestIds(Mutex<StdRng>);

impl RequestIds {
    pub(crate) fn new(seed: [u8; 32]) -> RequestIds {
        RequestIds(Mutex::new(StdRng::from_seed(seed)))
    }

    fn of(&self, given: &Bytes) -> Result<RequestId, Problem> {
        if given.is_empty() {
            return Ok(RequestId(self.0.lock().random()));
        }
        let id: [u8; REQUEST_ID_BYTES] = given[..].try_into().map_err(|_| {
            invalid("request_id", format!("must have {REQUEST_ID_BYTES} bytes or none, has {}", given.len()))
        })?;
        Ok(RequestId(id))
    }
}

fn invalid(field: &'static str, reason: impl Into<String>) -> Problem {
    Problem::InvalidArgument { field, reason: reason.into() }
}

pub(crate) fn get(get: v1::GetRequest) -> Result<Request, Problem> {
    let want = match get.want() {
        _ if v1::Want::try_from(get.want).is_err() => {
            return Err(invalid("want", "is none that this node knows"));
        }
        v1::Want::Resolved => Want::Resolved,
        v1::Want::Siblings => Want::Siblings,
    };
    let operation = Operation::Get { want };
    request(get.keyspace, get.key, get.read, "read", (get.timeout_ms, None, 0), operation)
}

pub(crate) fn put(put: v1::PutRequest, ids: &RequestIds) -> Result<Request, Problem> {
    let operation = Operation::Put {
        basis: basis(put.context, put.blind)?,
        request_id: ids.of(&put.request_id)?,
        content_type: (!put.content_type.is_empty()).then(|| Bytes::from(put.content_type)),
        value: put.value,
        ttl_ms: (put.ttl_ms != 0).then_some(put.ttl_ms),
    };
    request(
        put.keyspace,
        put.key,
        put.write,
        "write",
        (put.timeout_ms, put.until, put.retry_of_ms_ago),
        operation,
    )
}

pub(crate) fn delete(delete: v1::DeleteRequest, ids: &RequestIds) -> Result<Request, Problem> {
    let operation = Operation::Delete {
        basis: basis(delete.context, delete.blind)?,
        request_id: ids.of(&delete.request_id)?,
    };
    request(
        delete.keyspace,
        delete.key,
        delete.write,
        "write",
        (delete.timeout_ms, delete.until, delete.retry_of_ms_ago),
        operation,
    )
}

pub(crate) fn apply(apply: v1::ApplyRequest, ids: &RequestIds) -> Result<Request, Problem> {
    let context = (!apply.context.is_empty()).then_some(apply.context);
    let operation = Operation::Apply { op: apply.op, context, request_id: ids.of(&apply.request_id)? };
    request(apply.keyspace, apply.key, apply.write, "write", (apply.timeout_ms, apply.until, 0), operation)
}

pub(crate) fn query(query: v1::QueryRequest) -> Result<Request, Problem> {
    let context = (!query.context.is_empty()).then_some(query.context);
    let operation = Operation::Query { path: query.path, context };
    request(query.keyspace, query.key, query.read, "read", (query.timeout_ms, None, 0), operation)
}

fn request(
    keyspace: String,
    key: Bytes,
    quorum: Option<v1::Quorum>,
    quorum_field: &'static str,
    (timeout_ms, until, retry_of_ms_ago): (u32, Option<v1::Moment>, u64),
    operation: Operation,
) -> Result<Request, Problem> {
    let sloppiness = match quorum.map(|quorum| quorum::Strictness::try_from(quorum.strictness)) {
        None | Some(Ok(quorum::Strictness::Keyspace)) => Sloppiness::Keyspace,
        Some(Ok(quorum::Strictness::Strict)) => Sloppiness::Strict,
        Some(Ok(quorum::Strictness::Sloppy)) => Sloppiness::Sloppy,
        Some(Err(_)) => return Err(invalid(quorum_field, "has a strictness that this node does not know")),
    };
    let level = match quorum.and_then(|quorum| quorum.kind) {
        None => Level::Keyspace,
        Some(quorum::Kind::Replicas(0)) => {
            return Err(invalid(quorum_field, "0 replicas answer nothing; 1 to n"));
        }
        Some(quorum::Kind::Replicas(count)) => Level::Count(count),
        Some(quorum::Kind::Level(level)) => match quorum::Level::try_from(level) {
            Ok(quorum::Level::Keyspace) => Level::Keyspace,
            Ok(quorum::Level::One) => Level::One,
            Ok(quorum::Level::Quorum) => Level::Quorum,
            Ok(quorum::Level::All) => Level::All,
            Err(_) => return Err(invalid(quorum_field, "is no level that this node knows")),
        },
    };
    let timeout_ms = (timeout_ms != 0).then_some(timeout_ms.into());
    let until = until.map(|v1::Moment { session, running_ms }| Moment { session, running_ms });
    let retry_of_ms_ago = (retry_of_ms_ago != 0).then_some(retry_of_ms_ago);
    Ok(Request { keyspace, key, level, sloppiness, timeout_ms, until, retry_of_ms_ago, operation })
}

fn basis(context: Bytes, blind: bool) -> Result<Basis, Problem> {
    match (context.is_empty(), blind) {
        (false, true) => Err(invalid("blind", "a write is blind or has a context, not both")),
        (false, false) => Ok(Basis::Context(context)),
        (true, true) => Ok(Basis::Blind),
        (true, false) => Ok(Basis::Unsaid),
    }
}

pub(crate) fn dot(dot: Dot) -> v1::Dot {
    v1::Dot { actor: dot.actor.0, counter: dot.counter }
}

pub(crate) fn acks(acks: &Acks, directory: &Directory) -> v1::Acks {
    v1::Acks { replicas: directory.names(&acks.replicas), needed: acks.needed, sloppy: acks.sloppy }
}

fn state(presence: Presence) -> i32 {
    let state = match presence {
        Presence::NotFound => v1::State::NotFound,
        Presence::Found => v1::State::Found,
        Presence::Deleted => v1::State::Deleted,
    };
    state.into()
}

pub(crate) fn got(reply: GetReply, directory: &Directory) -> v1::GetReply {
    v1::GetReply {
        state: state(reply.presence),
        siblings: reply.siblings.into_iter().map(sibling).collect(),
        context: reply.context,
        resolution: Some(resolution(reply.resolution)),
        acks: Some(acks(&reply.acks, directory)),
    }
}

fn sibling(sibling: SiblingView) -> v1::Sibling {
    let content = match sibling.content {
        Some(value) => sibling::Content::Value(value),
        None => sibling::Content::Tombstone(true),
    };
    let receipt = sibling.receipt.map(|receipt| v1::Receipt {
        merged_from: receipt.merged_from.into_iter().map(dot).collect(),
        plugin_hash: Bytes::copy_from_slice(&receipt.plugin.0),
        policy_epoch: receipt.epoch,
    });
    v1::Sibling {
        content: Some(content),
        dots: sibling.dots.into_iter().map(dot).collect(),
        stamp: Some(v1::Stamp { millis: sibling.stamp.millis, logical: sibling.stamp.logical }),
        // Came in as text; of a peer that sent other bytes, what can be shown is shown.
        content_type: sibling
            .content_type
            .map_or_else(String::new, |t| String::from_utf8_lossy(&t).into_owned()),
        receipt,
        apart: sibling.apart.unwrap_or_default(),
        context: sibling.context,
    }
}

fn resolution(from: Resolution) -> v1::Resolution {
    use resolution::Kind;
    let (kind, reason, plugin) = match from {
        Resolution::NoneNeeded => (Kind::NoneNeeded, String::new(), None),
        Resolution::Siblings => (Kind::Siblings, String::new(), None),
        Resolution::Resolved { plugin, epoch } => (Kind::Resolved, String::new(), Some((plugin, epoch))),
        Resolution::Unresolved { reason, plugin, epoch } => (Kind::Unresolved, reason, Some((plugin, epoch))),
    };
    v1::Resolution {
        kind: kind.into(),
        reason,
        plugin_hash: plugin.map_or_else(Bytes::new, |(hash, _)| Bytes::copy_from_slice(&hash.0)),
        policy_epoch: plugin.map_or(0, |(_, epoch)| epoch),
    }
}

pub(crate) fn wrote(reply: WriteReply, directory: &Directory) -> v1::WriteReply {
    v1::WriteReply {
        dot: Some(dot(reply.dot)),
        context: reply.context,
        acks: Some(acks(&reply.acks, directory)),
        siblings: reply.siblings,
        unvalidated: reply.unvalidated.unwrap_or_default(),
    }
}

pub(crate) fn queried(reply: QueryReply, directory: &Directory) -> v1::QueryReply {
    v1::QueryReply {
        state: state(reply.presence),
        result: reply.result,
        context: reply.context,
        acks: Some(acks(&reply.acks, directory)),
        resolution: Some(resolution(reply.resolution)),
    }
}
