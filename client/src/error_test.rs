//! Tests of `error`: each detail of the wire becomes its variant, and what does not decode still
//! becomes a decision.

use super::*;
use v1::problem::Detail;

fn problem(code: Code, detail: Detail) -> v1::Problem {
    v1::Problem { code: code as u32, message: "as told".into(), detail: Some(detail) }
}

fn status_with(problem: &v1::Problem) -> Status {
    let any = prost_types::Any {
        type_url: format!("type.googleapis.com/{PROBLEM_TYPE}"),
        value: problem.encode_to_vec(),
    };
    let details = tonic_types::Status {
        code: problem.code as i32,
        message: problem.message.clone(),
        details: vec![any],
    };
    Status::with_details(
        Code::from(problem.code as i32),
        problem.message.clone(),
        details.encode_to_vec().into(),
    )
}

#[test]
fn every_detail_becomes_its_own_variant_with_its_facts() {
    let wire_dot = v1::Dot { actor: 0xab, counter: 7 };
    let acks = v1::Acks { replicas: vec!["a".into()], needed: 2, sloppy: false };
    let rows = [
        (
            problem(
                Code::Unavailable,
                Detail::NotEnoughReplicas(v1::NotEnoughReplicas { needed: 2, reachable: 1 }),
            ),
            "not_enough_replicas",
            "2 replicas are needed and 1 can be reached; nothing was changed",
        ),
        (
            problem(
                Code::DeadlineExceeded,
                Detail::Uncertain(v1::Uncertain { dot: Some(wire_dot), acks: Some(acks) }),
            ),
            "uncertain",
            "the write may or may not become visible as 00000000000000ab:7 (1 of 2 replicas): as told",
        ),
        (
            problem(
                Code::ResourceExhausted,
                Detail::SiblingLimit(v1::SiblingLimit {
                    siblings: 65,
                    limit: 64,
                    context: vec![1].into(),
                    ..Default::default()
                }),
            ),
            "sibling_limit",
            "the key has 65 siblings and a blind put may find 64 at most",
        ),
        (
            problem(
                Code::FailedPrecondition,
                Detail::OperandLimit(v1::OperandLimit {
                    operands: 64,
                    operands_max: 64,
                    size_bytes: 70,
                    size_bytes_max: 100,
                    context: vec![1].into(),
                }),
            ),
            "operand_limit",
            "the key holds 64 operands of 70 bytes that are not joined; at most 64 of 100 bytes are allowed",
        ),
        (
            problem(Code::Unavailable, Detail::Stale(v1::Stale {})),
            "stale",
            "no replica within reach holds all that the context covers; nothing was done",
        ),
        (
            problem(
                Code::ResourceExhausted,
                Detail::TooLarge(v1::TooLarge { what: "reply".into(), size_bytes: 5, limit_bytes: 4 }),
            ),
            "too_large",
            "reply of 5 bytes; at most 4 are allowed",
        ),
        (
            problem(
                Code::InvalidArgument,
                Detail::InvalidValue(v1::InvalidValue { kind: "json".into(), reason: "not one".into() }),
            ),
            "invalid_value",
            "the keyspace's plugin refused it (json): not one",
        ),
        (
            problem(Code::FailedPrecondition, Detail::ContextRequired(v1::ContextRequired {})),
            "context_required",
            "a write without a context",
        ),
        (
            problem(Code::InvalidArgument, Detail::InvalidContext(v1::InvalidContext { reason: 2 })),
            "invalid_context",
            "the context was not made by this cluster for this key",
        ),
        (
            problem(Code::NotFound, Detail::UnknownKeyspace(v1::UnknownKeyspace { keyspace: "x".into() })),
            "unknown_keyspace",
            "no keyspace is called `x`",
        ),
        (
            problem(Code::ResourceExhausted, Detail::Overloaded(v1::Overloaded { retry_after_ms: 40 })),
            "overloaded",
            "the node has too much to do; it asks for 40 ms",
        ),
        (
            problem(
                Code::InvalidArgument,
                Detail::InvalidArgument(v1::InvalidArgument {
                    field: "key".into(),
                    reason: "it is empty".into(),
                }),
            ),
            "invalid_argument",
            "`key`: it is empty",
        ),
        (
            problem(Code::FailedPrecondition, Detail::Unresolved(v1::Unresolved { reason: "trap".into() })),
            "unresolved",
            "the key is unresolved: trap",
        ),
        (
            problem(Code::FailedPrecondition, Detail::ClockSkew(v1::ClockSkew { ahead_ms: 900 })),
            "clock_skew",
            "the stamp is 900 ms ahead of the node's clock",
        ),
        (
            problem(Code::ResourceExhausted, Detail::KeyTooHot(v1::KeyTooHot { retry_after_ms: 7 })),
            "key_too_hot",
            "too many ask for this key; the node asks for 7 ms",
        ),
        (
            problem(Code::Aborted, Detail::Late(v1::Late {})),
            "late",
            "the write reached the node too late; nothing was changed",
        ),
    ];
    for (problem, code, what) in rows {
        // The same, whether it comes in a status or beside other outcomes.
        for error in [Error::from_status("n", &status_with(&problem)), Error::from_problem(problem.clone())] {
            assert_eq!(error.code(), code);
            assert_eq!(error.what(), what);
            assert_eq!(error.to_string(), format!("{what}; {}", error.hint()));
        }
    }
}

#[test]
fn a_status_without_a_detail_is_read_by_its_code() {
    let rows = [
        (Code::Unavailable, "unavailable"),
        (Code::DeadlineExceeded, "unavailable"),
        (Code::Cancelled, "unavailable"),
        (Code::InvalidArgument, "invalid_argument"),
        (Code::AlreadyExists, "already_exists"),
        (Code::NotFound, "not_found"),
        (Code::FailedPrecondition, "refused"),
        (Code::Internal, "server"),
        (Code::Unimplemented, "server"),
        (Code::Unknown, "server"),
    ];
    for (code, expected) in rows {
        assert_eq!(Error::from_status("n", &Status::new(code, "m")).code(), expected, "{code:?}");
    }
}

#[test]
fn details_that_do_not_decode_are_as_good_as_none() {
    let status = Status::with_details(Code::NotFound, "gone", vec![0xff; 9].into());
    assert_eq!(Error::from_status("n", &status).code(), "not_found");
}

#[test]
fn a_node_that_tells_it_is_unavailable_may_have_seen_the_request() {
    let error = Error::from_status("n", &Status::unavailable("shutting down"));
    assert!(matches!(error, Error::Unavailable { sent: true, .. }));
}

#[test]
fn a_connection_that_never_came_about_sent_nothing() {
    let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    let error: Box<dyn std::error::Error + Send + Sync> = Box::new(tonic::ConnectError(Box::new(refused)));
    let error = Error::from_status("n", &Status::from_error(error));
    assert!(matches!(error, Error::Unavailable { sent: false, .. }), "{error:?}");
}
