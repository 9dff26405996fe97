//! Small conveniences on the types of the contract.

use crate::{Content, Dot, Kept, Operation, Rejection, RejectionKind, Sibling, Span, Verdict};

impl Sibling {
    /// The bytes; none for a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        match &self.content {
            Content::Value(value) => Some(value),
            Content::Tombstone => None,
        }
    }

    /// When it was written, as a number that compares as the stamps do; equal ones are told apart by the last dot.
    pub fn order(&self) -> (u64, u32, Option<(u64, u64)>) {
        (self.at.millis, self.at.logical, self.dots.iter().map(Dot::order).max())
    }
}

impl Operation {
    /// Whether the client had seen the write with this dot. A client that sent no context means what its coordinator holds.
    pub fn saw(&self, (actor, counter): (u64, u64)) -> bool {
        let covers = |span: &Span| span.actor == actor && span.after < counter && counter <= span.upto;
        self.seen.as_ref().is_none_or(|seen| seen.iter().any(covers))
    }
}

impl Verdict {
    /// Keeps this value; its content type is the one on which the siblings agree.
    pub fn keep(value: impl Into<Vec<u8>>) -> Verdict {
        Verdict::Keep(Kept { value: value.into(), content_type: None })
    }

    /// Keeps this value under a content type of the plugin's own choice.
    pub fn keep_as(value: impl Into<Vec<u8>>, content_type: &str) -> Verdict {
        Verdict::Keep(Kept { value: value.into(), content_type: Some(content_type.into()) })
    }
}

impl Dot {
    /// As a pair, which compares.
    pub fn order(&self) -> (u64, u64) {
        (self.actor, self.counter)
    }
}

impl Rejection {
    /// It cannot be decoded.
    pub fn malformed(message: impl Into<String>) -> Rejection {
        Rejection { kind: RejectionKind::Malformed, message: message.into() }
    }

    /// It was written by a version that this plugin does not know.
    pub fn unsupported_version(message: impl Into<String>) -> Rejection {
        Rejection { kind: RejectionKind::UnsupportedVersion, message: message.into() }
    }

    /// It is larger than this plugin works with.
    pub fn too_large(message: impl Into<String>) -> Rejection {
        Rejection { kind: RejectionKind::TooLarge, message: message.into() }
    }

    /// It is well-formed but not allowed.
    pub fn forbidden(message: impl Into<String>) -> Rejection {
        Rejection { kind: RejectionKind::Forbidden, message: message.into() }
    }
}
