//! One table: core's problems, the gRPC code of each, and the typed detail that travels with it.
//!
//! In: problems. Out: `merganser.v1.Problem`, inline in batches and pipelines, and in unary calls
//! as a detail of the status (`google.rpc.Status` in `grpc-status-details-bin`), which grpcurl
//! prints and client libraries decode. Absent: any text that core has not written.

use super::convert;
use super::directory::Directory;
use merganser_core::admin::AdminProblem;
use merganser_core::request::Problem;
use merganser_proto::v1::{self, invalid_context::Reason, problem::Detail};
use prost::Message;
use tonic::{Code, Status};

/// What `details` name it.
pub(crate) const TYPE_URL: &str = "type.googleapis.com/merganser.v1.Problem";

/// As it travels.
pub(crate) fn of(problem: &Problem, directory: &Directory) -> v1::Problem {
    let (code, detail) = match problem {
        // Nothing was done; another node, or the same a little later, may do it.
        Problem::NotEnoughReplicas { needed, reachable } => (
            Code::Unavailable,
            Some(Detail::NotEnoughReplicas(v1::NotEnoughReplicas { needed: *needed, reachable: *reachable })),
        ),
        // gRPC defines this code as: "may be returned even if the operation has completed".
        Problem::Uncertain { dot, acks } => (
            Code::DeadlineExceeded,
            Some(Detail::Uncertain(v1::Uncertain {
                dot: dot.map(convert::dot),
                acks: Some(convert::acks(acks, directory)),
            })),
        ),
        Problem::SiblingLimit { siblings, limit, size_bytes, limit_bytes, context } => (
            Code::FailedPrecondition,
            Some(Detail::SiblingLimit(v1::SiblingLimit {
                siblings: *siblings,
                limit: *limit,
                context: context.clone(),
                size_bytes: *size_bytes,
                limit_bytes: *limit_bytes,
            })),
        ),
        Problem::OperandLimit { operands, operands_max, size_bytes, size_bytes_max, context } => (
            Code::FailedPrecondition,
            Some(Detail::OperandLimit(v1::OperandLimit {
                operands: *operands,
                operands_max: *operands_max,
                size_bytes: *size_bytes,
                size_bytes_max: *size_bytes_max,
                context: context.clone(),
            })),
        ),
        // Nothing was done; a little later, or once a replica is back, it may be.
        Problem::Stale => (Code::Unavailable, Some(Detail::Stale(v1::Stale {}))),
        Problem::TooLarge { what, size_bytes, limit_bytes } => (
            // A reply is too large for this call, not the request wrong.
            if *what == "reply" { Code::OutOfRange } else { Code::InvalidArgument },
            Some(Detail::TooLarge(v1::TooLarge {
                what: (*what).into(),
                size_bytes: *size_bytes,
                limit_bytes: *limit_bytes,
            })),
        ),
        Problem::InvalidValue { kind, reason } => (
            Code::InvalidArgument,
            Some(Detail::InvalidValue(v1::InvalidValue { kind: kind.clone(), reason: reason.clone() })),
        ),
        Problem::ContextRequired => {
            (Code::FailedPrecondition, Some(Detail::ContextRequired(v1::ContextRequired {})))
        }
        Problem::InvalidContext { forged } => {
            let reason = if *forged { Reason::Forged } else { Reason::Malformed };
            (
                Code::InvalidArgument,
                Some(Detail::InvalidContext(v1::InvalidContext { reason: reason.into() })),
            )
        }
        Problem::UnknownKeyspace { keyspace } => (
            Code::NotFound,
            Some(Detail::UnknownKeyspace(v1::UnknownKeyspace { keyspace: keyspace.clone() })),
        ),
        Problem::Overloaded { retry_after_ms } => (
            Code::ResourceExhausted,
            Some(Detail::Overloaded(v1::Overloaded { retry_after_ms: *retry_after_ms })),
        ),
        Problem::KeyTooHot { retry_after_ms, .. } => (
            Code::ResourceExhausted,
            Some(Detail::KeyTooHot(v1::KeyTooHot { retry_after_ms: *retry_after_ms })),
        ),
        // Nobody waits, as a rule; who does is to come again.
        Problem::RequestIdReused => {
            (Code::FailedPrecondition, Some(Detail::RequestIdReused(v1::RequestIdReused {})))
        }
        Problem::Late => (Code::Aborted, Some(Detail::Late(v1::Late {}))),
        Problem::InvalidArgument { field, reason } => (
            Code::InvalidArgument,
            Some(Detail::InvalidArgument(v1::InvalidArgument {
                field: (*field).into(),
                reason: reason.clone(),
            })),
        ),
        Problem::Unresolved { reason } => {
            (Code::FailedPrecondition, Some(Detail::Unresolved(v1::Unresolved { reason: reason.clone() })))
        }
        Problem::ClockSkew { ahead_ms } => {
            (Code::FailedPrecondition, Some(Detail::ClockSkew(v1::ClockSkew { ahead_ms: *ahead_ms })))
        }
        Problem::Storage { .. } => (Code::Internal, None),
    };
    v1::Problem { code: code as u32, message: problem.to_string(), detail }
}

/// The status of a unary call.
pub(crate) fn status(problem: v1::Problem) -> Status {
    let code = Code::from(problem.code as i32);
    let details = tonic_types::pb::Status {
        code: code as i32,
        message: problem.message.clone(),
        details: vec![prost_types::Any { type_url: TYPE_URL.into(), value: problem.encode_to_vec() }],
    };
    Status::with_details(code, problem.message, details.encode_to_vec().into())
}

/// The status of an operator's call.
pub(crate) fn admin_status(problem: AdminProblem) -> Status {
    let message = problem.to_string();
    let (code, detail) = match problem {
        AdminProblem::AlreadyExists { .. } => (Code::AlreadyExists, None),
        AdminProblem::NotFound { .. } => (Code::NotFound, None),
        AdminProblem::InvalidArgument { field, reason } => (
            Code::InvalidArgument,
            Some(Detail::InvalidArgument(v1::InvalidArgument { field: field.into(), reason })),
        ),
        AdminProblem::Refused(_) => (Code::FailedPrecondition, None),
        AdminProblem::Storage(_) => (Code::Internal, None),
    };
    status(v1::Problem { code: code as u32, message, detail })
}

/// An argument of an operator's call that cannot be.
pub(crate) fn invalid(field: &'static str, reason: impl Into<String>) -> Status {
    admin_status(AdminProblem::InvalidArgument { field, reason: reason.into() })
}

/// Something longer than it may be, of an operator's call.
pub(crate) fn too_large(what: &str, size_bytes: u64, limit_bytes: u64) -> Status {
    let message = format!("{what} has {size_bytes} bytes, the limit is {limit_bytes}");
    let detail = Detail::TooLarge(v1::TooLarge { what: what.into(), size_bytes, limit_bytes });
    status(v1::Problem { code: Code::InvalidArgument as u32, message, detail: Some(detail) })
}
