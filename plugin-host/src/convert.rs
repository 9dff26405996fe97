//! Our plain data to the types of the boundary, and back. Values are borrowed on the way in: the only copy is the
//! one into the guest's memory.

use bytes::Bytes;

use crate::bindings::exports::merganser::plugin::operations::{Operation, Span};
use crate::bindings::merganser::plugin::types::{
    Content, Dot, Kept, KeyInfo, Rejection, RejectionKind as WitRejectionKind, Sibling, Stamp, Verdict,
};
use crate::call::{self, Answer, RejectionKind};

pub(crate) fn key(key: &call::KeyInfo) -> KeyInfo<'_> {
    KeyInfo { keyspace: &key.keyspace, key: &key.key, config: &key.config }
}

pub(crate) fn dot((actor, counter): (u64, u64)) -> Dot {
    Dot { actor, counter }
}

/// The client's context, for [`operation`] to borrow.
pub(crate) fn spans(operation: &call::Operation) -> Option<Vec<Span>> {
    let span = |&call::Span { actor, after, upto }: &call::Span| Span { actor, after, upto };
    operation.seen.as_ref().map(|seen| seen.iter().map(span).collect())
}

pub(crate) fn operation<'a>(operation: &'a call::Operation, seen: Option<&'a [Span]>) -> Operation<'a> {
    Operation {
        body: &operation.body,
        dot: dot(operation.dot),
        previous: operation.previous,
        at: Stamp { millis: operation.millis, logical: operation.logical },
        op_id: &operation.op_id,
        seen,
    }
}

/// The dots of each sibling, for [`siblings`] to borrow.
pub(crate) fn dots(siblings: &[call::Sibling]) -> Vec<Vec<Dot>> {
    siblings.iter().map(|sibling| sibling.dots.iter().copied().map(dot).collect()).collect()
}

pub(crate) fn siblings<'a>(siblings: &'a [call::Sibling], dots: &'a [Vec<Dot>]) -> Vec<Sibling<'a>> {
    let with_dots = siblings.iter().zip(dots);
    with_dots
        .map(|(sibling, dots)| Sibling {
            dots,
            at: Stamp { millis: sibling.millis, logical: sibling.logical },
            content: match &sibling.content {
                Some(value) => Content::Value(value),
                None => Content::Tombstone,
            },
            content_type: sibling.content_type.as_deref(),
        })
        .collect()
}

pub(crate) fn verdict(verdict: Verdict) -> Answer {
    match verdict {
        Verdict::Keep(Kept { value, content_type }) => Answer::Keep { value: value.into(), content_type },
        Verdict::Delete => Answer::Delete,
        Verdict::Unresolved(reason) => Answer::Unresolved(reason),
    }
}

pub(crate) fn value(answer: Result<Vec<u8>, Rejection>) -> Answer {
    answer.map_or_else(rejected, |value| Answer::Value(Bytes::from(value)))
}

pub(crate) fn rejected(rejection: Rejection) -> Answer {
    let kind = match rejection.kind {
        WitRejectionKind::Malformed => RejectionKind::Malformed,
        WitRejectionKind::UnsupportedVersion => RejectionKind::UnsupportedVersion,
        WitRejectionKind::TooLarge => RejectionKind::TooLarge,
        WitRejectionKind::Forbidden => RejectionKind::Forbidden,
    };
    Answer::Rejected { kind, message: rejection.message }
}
