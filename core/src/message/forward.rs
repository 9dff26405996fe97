//! The bytes of a forwarded client request and of its outcome.
//!
//! In: typed requests and outcomes. Out: bytes between nodes, and back. Absent: the public
//! protocol, which is gRPC's and the shell's.

use super::*;
use crate::id::{Millis, NodeId};
use crate::moment::Moment;
use crate::version::codec::{put_dot, put_receipt, put_stamp, read_dot, read_receipt};
use crate::version::context::read_stamp;

pub(super) fn put_request(b: &mut BytesMut, request: &Request) {
    b.bytes(request.keyspace.as_bytes());
    b.bytes(&request.key);
    let level = match request.level {
        Level::Keyspace => 0,
        Level::One => 1,
        Level::Quorum => 2,
        Level::All => 3,
        Level::Count(count) => 4 + u64::from(count),
    };
    b.varint(level);
    b.put_u8(match request.sloppiness {
        Sloppiness::Keyspace => 0,
        Sloppiness::Strict => 1,
        Sloppiness::Sloppy => 2,
    });
    b.varint(request.timeout_ms.map_or(0, |timeout| timeout.saturating_add(1)));
    b.put_u8(u8::from(request.until.is_some()));
    if let Some(until) = request.until {
        b.put_u64(until.session);
        b.varint(until.running_ms);
    }
    b.varint(request.retry_of_ms_ago.map_or(0, |ago| ago.saturating_add(1)));
    match &request.operation {
        Operation::Get { want } => {
            b.put_u8(1);
            b.put_u8(u8::from(*want == Want::Siblings));
        }
        Operation::Put { value, content_type, basis, request_id, ttl_ms } => {
            b.put_u8(2);
            b.bytes(value);
            put_optional(b, content_type.as_ref());
            put_basis(b, basis);
            b.put_slice(&request_id.0);
            b.varint(ttl_ms.map_or(0, |ttl| ttl.saturating_add(1)));
        }
        Operation::Delete { basis, request_id } => {
            b.put_u8(3);
            put_basis(b, basis);
            b.put_slice(&request_id.0);
        }
        Operation::Apply { op, context, request_id } => {
            b.put_u8(4);
            b.bytes(op);
            put_optional(b, context.as_ref());
            b.put_slice(&request_id.0);
        }
        Operation::Query { path, context } => {
            b.put_u8(5);
            b.bytes(path);
            put_optional(b, context.as_ref());
        }
    }
}

pub(super) fn read_request(r: &mut Reader) -> Result<Request, Malformed> {
    let keyspace = r.string("keyspace")?;
    let key = r.bytes("key")?;
    let level = match r.varint("level")? {
        0 => Level::Keyspace,
        1 => Level::One,
        2 => Level::Quorum,
        3 => Level::All,
        count => Level::Count(u32::try_from(count - 4).map_err(|_| Malformed("level"))?),
    };
    let sloppiness = match r.u8("sloppiness")? {
        0 => Sloppiness::Keyspace,
        1 => Sloppiness::Strict,
        2 => Sloppiness::Sloppy,
        _ => return Err(Malformed("sloppiness")),
    };
    let timeout_ms = r.varint("timeout")?.checked_sub(1);
    let until = match r.u8("until")? {
        0 => None,
        1 => Some(Moment { session: r.u64("session")?, running_ms: r.varint("until")? }),
        _ => return Err(Malformed("until")),
    };
    let retry_of_ms_ago = r.varint("retry")?.checked_sub(1);
    let operation = match r.u8("operation")? {
        1 => Operation::Get { want: if r.u8("want")? == 0 { Want::Resolved } else { Want::Siblings } },
        2 => Operation::Put {
            value: r.bytes("value")?,
            content_type: read_optional(r)?,
            basis: read_basis(r)?,
            request_id: RequestId(r.array("request id")?),
            ttl_ms: r.varint("ttl")?.checked_sub(1),
        },
        3 => Operation::Delete { basis: read_basis(r)?, request_id: RequestId(r.array("request id")?) },
        4 => Operation::Apply {
            op: r.bytes("operation")?,
            context: read_optional(r)?,
            request_id: RequestId(r.array("request id")?),
        },
        5 => Operation::Query { path: r.bytes("path")?, context: read_optional(r)? },
        _ => return Err(Malformed("operation")),
    };
    Ok(Request { keyspace, key, level, sloppiness, timeout_ms, until, retry_of_ms_ago, operation })
}

fn put_basis(b: &mut BytesMut, basis: &Basis) {
    match basis {
        Basis::Unsaid => b.put_u8(0),
        Basis::Blind => b.put_u8(1),
        Basis::Context(token) => {
            b.put_u8(2);
            b.bytes(token);
        }
    }
}

fn read_basis(r: &mut Reader) -> Result<Basis, Malformed> {
    match r.u8("basis")? {
        0 => Ok(Basis::Unsaid),
        1 => Ok(Basis::Blind),
        2 => Ok(Basis::Context(r.bytes("context")?)),
        _ => Err(Malformed("basis")),
    }
}

fn put_optional(b: &mut BytesMut, bytes: Option<&Bytes>) {
    b.put_u8(u8::from(bytes.is_some()));
    if let Some(bytes) = bytes {
        b.bytes(bytes);
    }
}

fn read_optional(r: &mut Reader) -> Result<Option<Bytes>, Malformed> {
    match r.u8("option")? {
        0 => Ok(None),
        1 => Ok(Some(r.bytes("option")?)),
        _ => Err(Malformed("option")),
    }
}

fn put_text(b: &mut BytesMut, text: Option<&String>) {
    b.put_u8(u8::from(text.is_some()));
    if let Some(text) = text {
        b.bytes(text.as_bytes());
    }
}

fn read_text(r: &mut Reader) -> Result<Option<String>, Malformed> {
    match r.u8("option")? {
        0 => Ok(None),
        1 => Ok(Some(r.string("option")?)),
        _ => Err(Malformed("option")),
    }
}

fn put_acks(b: &mut BytesMut, acks: &Acks) {
    b.varint(acks.replicas.len() as u64);
    acks.replicas.iter().for_each(|node| b.put_u64(node.0));
    b.varint(u64::from(acks.needed));
    b.put_u8(u8::from(acks.sloppy));
}

fn read_acks(r: &mut Reader) -> Result<Acks, Malformed> {
    let count = r.count(8, "acks")?;
    let replicas = (0..count).map(|_| r.u64("ack").map(NodeId)).collect::<Result<_, _>>()?;
    Ok(Acks { replicas, needed: read_u32(r, "needed")?, sloppy: r.u8("sloppy")? != 0 })
}

fn put_presence(b: &mut BytesMut, presence: Presence) {
    b.put_u8(match presence {
        Presence::NotFound => 0,
        Presence::Found => 1,
        Presence::Deleted => 2,
    });
}

fn read_presence(r: &mut Reader) -> Result<Presence, Malformed> {
    match r.u8("presence")? {
        0 => Ok(Presence::NotFound),
        1 => Ok(Presence::Found),
        2 => Ok(Presence::Deleted),
        _ => Err(Malformed("presence")),
    }
}

pub(super) fn put_outcome(b: &mut BytesMut, outcome: &Outcome) {
    match outcome {
        Outcome::Got(reply) => {
            b.put_u8(1);
            put_presence(b, reply.presence);
            b.varint(reply.siblings.len() as u64);
            reply.siblings.iter().for_each(|sibling| put_sibling(b, sibling));
            b.bytes(&reply.context);
            put_resolution(b, &reply.resolution);
            put_acks(b, &reply.acks);
        }
        Outcome::Wrote(reply) => {
            b.put_u8(2);
            put_dot(b, reply.dot);
            b.bytes(&reply.context);
            put_acks(b, &reply.acks);
            b.varint(u64::from(reply.siblings));
            put_text(b, reply.unvalidated.as_ref());
        }
        Outcome::Queried(reply) => {
            b.put_u8(3);
            put_presence(b, reply.presence);
            b.bytes(&reply.result);
            b.bytes(&reply.context);
            put_resolution(b, &reply.resolution);
            put_acks(b, &reply.acks);
        }
        Outcome::Failed(problem) => {
            b.put_u8(4);
            put_problem(b, problem);
        }
    }
}

pub(super) fn read_outcome(r: &mut Reader) -> Result<Outcome, Malformed> {
    Ok(match r.u8("outcome")? {
        1 => {
            let presence = read_presence(r)?;
            let count = r.count(12, "siblings")?;
            let siblings = (0..count).map(|_| read_sibling(r)).collect::<Result<_, _>>()?;
            let context = r.bytes("context")?;
            Outcome::Got(GetReply {
                presence,
                siblings,
                context,
                resolution: read_resolution(r)?,
                acks: read_acks(r)?,
            })
        }
        2 => Outcome::Wrote(WriteReply {
            dot: read_dot(r)?,
            context: r.bytes("context")?,
            acks: read_acks(r)?,
            siblings: read_u32(r, "siblings")?,
            unvalidated: read_text(r)?,
        }),
        3 => Outcome::Queried(QueryReply {
            presence: read_presence(r)?,
            result: r.bytes("result")?,
            context: r.bytes("context")?,
            resolution: read_resolution(r)?,
            acks: read_acks(r)?,
        }),
        4 => Outcome::Failed(read_problem(r)?),
        _ => return Err(Malformed("outcome")),
    })
}

fn put_sibling(b: &mut BytesMut, sibling: &SiblingView) {
    put_optional(b, sibling.content.as_ref());
    b.varint(sibling.dots.len() as u64);
    sibling.dots.iter().for_each(|dot| put_dot(b, *dot));
    put_stamp(b, sibling.stamp);
    put_optional(b, sibling.content_type.as_ref());
    b.put_u8(u8::from(sibling.receipt.is_some()));
    if let Some(receipt) = &sibling.receipt {
        put_receipt(b, receipt);
    }
    b.varint(sibling.expires_at.map_or(0, |at| at.0.saturating_add(1)));
    put_text(b, sibling.apart.as_ref());
    b.bytes(&sibling.context);
}

fn read_dots(r: &mut Reader) -> Result<Vec<crate::id::Dot>, Malformed> {
    let count = r.count(9, "dots")?;
    (0..count).map(|_| read_dot(r)).collect()
}

fn read_sibling(r: &mut Reader) -> Result<SiblingView, Malformed> {
    Ok(SiblingView {
        content: read_optional(r)?,
        dots: read_dots(r)?,
        stamp: read_stamp(r)?,
        content_type: read_optional(r)?,
        receipt: match r.u8("receipt")? {
            0 => None,
            _ => Some(read_receipt(r)?),
        },
        expires_at: r.varint("expiry")?.checked_sub(1).map(Millis),
        apart: read_text(r)?,
        context: r.bytes("context")?,
    })
}

fn put_resolution(b: &mut BytesMut, resolution: &Resolution) {
    match resolution {
        Resolution::NoneNeeded => b.put_u8(0),
        Resolution::Siblings => b.put_u8(1),
        Resolution::Resolved { plugin, epoch } => {
            b.put_u8(2);
            b.put_slice(&plugin.0);
            b.varint(*epoch);
        }
        Resolution::Unresolved { reason, plugin, epoch } => {
            b.put_u8(3);
            b.bytes(reason.as_bytes());
            b.put_slice(&plugin.0);
            b.varint(*epoch);
        }
    }
}

fn read_resolution(r: &mut Reader) -> Result<Resolution, Malformed> {
    Ok(match r.u8("resolution")? {
        0 => Resolution::NoneNeeded,
        1 => Resolution::Siblings,
        2 => Resolution::Resolved { plugin: PluginHash(r.array("plugin")?), epoch: r.varint("epoch")? },
        3 => Resolution::Unresolved {
            reason: r.string("reason")?,
            plugin: PluginHash(r.array("plugin")?),
            epoch: r.varint("epoch")?,
        },
        _ => return Err(Malformed("resolution")),
    })
}

fn read_u32(r: &mut Reader, what: &'static str) -> Result<u32, Malformed> {
    u32::try_from(r.varint(what)?).map_err(|_| Malformed(what))
}

/// Names that [`Problem::TooLarge`] and [`Problem::InvalidArgument`] use, so that they cross a
/// link as they are.
const NAMES: [&str; 13] = [
    "key",
    "value",
    "context",
    "content type",
    "operation",
    "path",
    "keyspace",
    "level",
    "result",
    "reply",
    "request",
    "ttl_ms",
    "state",
];

fn put_name(b: &mut BytesMut, name: &str) {
    b.bytes(name.as_bytes());
}

fn read_name(r: &mut Reader) -> Result<&'static str, Malformed> {
    let name = r.string("name")?;
    Ok(NAMES.iter().find(|known| **known == name).copied().unwrap_or("request"))
}

fn put_problem(b: &mut BytesMut, problem: &Problem) {
    match problem {
        Problem::NotEnoughReplicas { needed, reachable } => {
            b.put_u8(1);
            b.varint(u64::from(*needed));
            b.varint(u64::from(*reachable));
        }
        Problem::Uncertain { dot, acks } => {
            b.put_u8(2);
            b.put_u8(u8::from(dot.is_some()));
            if let Some(dot) = dot {
                put_dot(b, *dot);
            }
            put_acks(b, acks);
        }
        Problem::SiblingLimit { siblings, limit, size_bytes, limit_bytes, context } => {
            b.put_u8(3);
            b.varint(u64::from(*siblings));
            b.varint(u64::from(*limit));
            b.varint(*size_bytes);
            b.varint(*limit_bytes);
            b.bytes(context);
        }
        Problem::OperandLimit { operands, operands_max, size_bytes, size_bytes_max, context } => {
            b.put_u8(20);
            b.varint(u64::from(*operands));
            b.varint(u64::from(*operands_max));
            b.varint(*size_bytes);
            b.varint(*size_bytes_max);
            b.bytes(context);
        }
        Problem::Stale => b.put_u8(21),
        Problem::TooLarge { what, size_bytes, limit_bytes } => {
            b.put_u8(4);
            put_name(b, what);
            b.varint(*size_bytes);
            b.varint(*limit_bytes);
        }
        Problem::InvalidValue { kind, reason } => {
            b.put_u8(5);
            b.bytes(kind.as_bytes());
            b.bytes(reason.as_bytes());
        }
        Problem::ContextRequired => b.put_u8(6),
        Problem::InvalidContext { forged } => {
            b.put_u8(7);
            b.put_u8(u8::from(*forged));
        }
        Problem::UnknownKeyspace { keyspace } => {
            b.put_u8(8);
            b.bytes(keyspace.as_bytes());
        }
        Problem::Overloaded { retry_after_ms } => {
            b.put_u8(9);
            b.varint(u64::from(*retry_after_ms));
        }
        Problem::InvalidArgument { field, reason } => {
            b.put_u8(10);
            put_name(b, field);
            b.bytes(reason.as_bytes());
        }
        Problem::Unresolved { reason } => {
            b.put_u8(11);
            b.bytes(reason.as_bytes());
        }
        Problem::ClockSkew { ahead_ms } => {
            b.put_u8(12);
            b.varint(*ahead_ms);
        }
        Problem::Storage { reason } => {
            b.put_u8(13);
            b.bytes(reason.as_bytes());
        }
        Problem::KeyTooHot { limit_per_s, retry_after_ms } => {
            b.put_u8(14);
            b.varint(u64::from(*limit_per_s));
            b.varint(u64::from(*retry_after_ms));
        }
        Problem::Late => b.put_u8(15),
        Problem::RequestIdReused => b.put_u8(16),
    }
}

fn read_problem(r: &mut Reader) -> Result<Problem, Malformed> {
    Ok(match r.u8("problem")? {
        1 => Problem::NotEnoughReplicas {
            needed: read_u32(r, "needed")?,
            reachable: read_u32(r, "reachable")?,
        },
        2 => {
            let dot = if r.u8("dot")? == 0 { None } else { Some(read_dot(r)?) };
            Problem::Uncertain { dot, acks: read_acks(r)? }
        }
        3 => Problem::SiblingLimit {
            siblings: read_u32(r, "siblings")?,
            limit: read_u32(r, "limit")?,
            size_bytes: r.varint("size")?,
            limit_bytes: r.varint("limit")?,
            context: r.bytes("context")?,
        },
        20 => Problem::OperandLimit {
            operands: read_u32(r, "operands")?,
            operands_max: read_u32(r, "limit")?,
            size_bytes: r.varint("size")?,
            size_bytes_max: r.varint("limit")?,
            context: r.bytes("context")?,
        },
        21 => Problem::Stale,
        4 => Problem::TooLarge {
            what: read_name(r)?,
            size_bytes: r.varint("size")?,
            limit_bytes: r.varint("limit")?,
        },
        5 => Problem::InvalidValue { kind: r.string("kind")?, reason: r.string("reason")? },
        6 => Problem::ContextRequired,
        7 => Problem::InvalidContext { forged: r.u8("forged")? != 0 },
        8 => Problem::UnknownKeyspace { keyspace: r.string("keyspace")? },
        9 => Problem::Overloaded { retry_after_ms: read_u32(r, "retry")? },
        10 => Problem::InvalidArgument { field: read_name(r)?, reason: r.string("reason")? },
        11 => Problem::Unresolved { reason: r.string("reason")? },
        12 => Problem::ClockSkew { ahead_ms: r.varint("ahead")? },
        13 => Problem::Storage { reason: r.string("reason")? },
        14 => {
            Problem::KeyTooHot { limit_per_s: read_u32(r, "limit")?, retry_after_ms: read_u32(r, "retry")? }
        }
        15 => Problem::Late,
        16 => Problem::RequestIdReused,
        _ => return Err(Malformed("problem")),
    })
}
