//! Our plain data to the types of the boundary, and back. Values are borrowed on the way in: the only copy is the
//! one into the guest's memory.

use bytes::Bytes;

use crate::bindings::merganser::plugin::types::{
    Content, Dot, KeyInfo, Rejection, RejectionKind as WitRejectionKind, Sibling, Stamp, Verdict,
};
use crate::call::{self, Answer, RejectionKind};

pub(crate) fn key(key: &call::KeyInfo) -> KeyInfo<'_> {
    KeyInfo { keyspace: &key.keyspace, key: &key.key, config: &key.config }
}

pub(crate) fn dot((actor, counter): (u64, u64)) -> Dot {
    Dot { actor, counter }
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
        Verdict::Keep(value) => Answer::Value(value.into()),
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
