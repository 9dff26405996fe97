//! How large things may be, each bound beside the one that has to hold it (R12), and what becomes of a message that is larger.
//!
//! ```text
//!   value ≤ a client's part of a key ≤ three sides of a partition ≤ record ≤ message ≤ frame
//! ```
//!
//! Clients are refused long before replicas are: what both sides of a partition took is one record once they meet. A message
//! that is too large for a frame is not sent, since a frame that is refused ends the link of two nodes for all of their
//! keys; whoever waits for it is told. In: messages that are about to leave. Out: those that may, and refusals. Absent: the bounds of
//! storage and of the links, which the server holds against these.

use crate::event::{Effect, Effects, Notice};
use crate::id::{Millis, OpId};
use crate::message::{Message, ReadAnswer, Refusal};
use crate::node::Node;
use crate::request::{KEY_BYTES_MAX, MERGED_BYTES_MAX, Outcome, Problem, VALUE_BYTES_MAX};
use crate::target::Target;

/// What the values of one key may come to after a client's put, byte-equal ones counted once. A put that makes it less is taken.
pub const CLIENT_STATE_BYTES_MAX: usize = 16 << 20;
/// Sides of a partition of which each may take so much, and that still become one record.
pub const SIDES_MAX: usize = 3;
/// Head and body of a key's record. Whatever comes in is taken in up to this.
pub const RECORD_BYTES_MAX: usize = 64 << 20;
/// A message between nodes: a record, its key, and others beside it.
pub const MESSAGE_BYTES_MAX: usize = 68 << 20;
/// A frame between nodes: a message, and what tells its end.
pub const FRAME_BYTES_MAX: usize = 72 << 20;
/// What a record's head may come to beside its values: thousands of siblings with all that is said of each.
const HEAD_BYTES: usize = 16 << 20;

const _: () = {
    assert!(VALUE_BYTES_MAX <= MERGED_BYTES_MAX && MERGED_BYTES_MAX <= CLIENT_STATE_BYTES_MAX);
    assert!(SIDES_MAX * CLIENT_STATE_BYTES_MAX + HEAD_BYTES <= RECORD_BYTES_MAX);
    // Messages of repair are full at a quarter of a megabyte, and the last record may go beyond; so may a page of hints.
    assert!(RECORD_BYTES_MAX + (1 << 20) + 2 * KEY_BYTES_MAX <= MESSAGE_BYTES_MAX);
    assert!(MESSAGE_BYTES_MAX + (1 << 20) <= FRAME_BYTES_MAX);
};

impl Node {
    /// Keeps back what is too large to be sent of the effects from `first` on; those who wait for it hear so.
    pub(crate) fn keep_to_frames(&mut self, now: Millis, first: usize, effects: &mut Effects) {
        let mut at = first;
        while at < effects.len() {
            let Effect::Send { to, message } = &mut effects[at] else {
                at += 1;
                continue;
            };
            let size_bytes = message.size_hint_bytes();
            if size_bytes <= MESSAGE_BYTES_MAX {
                at += 1;
                continue;
            }
            self.counters.messages_too_large += 1;
            let (to, waits) = (*to, instead(message, size_bytes));
            match waits {
                Instead::Sent => at += 1,
                Instead::Nothing => drop(effects.remove(at)),
                Instead::Refused(op) => {
                    effects.remove(at);
                    self.replicated(now, to, op, Err(Refusal::TooLarge), effects);
                }
            }
        }
    }

    /// A state that is too large to be stored here, or to be sent: said once for each key in a while.
    pub(crate) fn key_too_large(&mut self, target: &Target, size_bytes: usize, effects: &mut Effects) {
        self.counters.keys_too_large += 1;
        if self.too_large.len() >= TOLD_MAX {
            self.too_large.clear();
        }
        if self.too_large.insert(target.storage_key.clone()) {
            effects.push(Effect::Notice(Notice::KeyTooLarge {
                keyspace: target.entry.name.clone(),
                key: target.key.clone(),
                size_bytes: size_bytes as u64,
            }));
        }
    }
}

/// Keys of which it was said.
const TOLD_MAX: usize = 256;

/// What is done instead of sending something too large.
enum Instead {
    /// It says so itself now.
    Sent,
    Nothing,
    /// As if it had been refused where it should have gone.
    Refused(OpId),
}

fn instead(message: &mut Message, size_bytes: usize) -> Instead {
    match message {
        Message::Replicate { op: Some(op), .. } | Message::Hint { op, .. } => Instead::Refused(*op),
        Message::ReadReply { answer, .. } => {
            *answer = ReadAnswer::Refused(Refusal::TooLarge);
            Instead::Sent
        }
        Message::Forwarded { outcome, .. } => {
            let (size_bytes, limit_bytes) = (size_bytes as u64, MESSAGE_BYTES_MAX as u64);
            *outcome = Outcome::Failed(Problem::TooLarge { what: "reply", size_bytes, limit_bytes });
            Instead::Sent
        }
        _ => Instead::Nothing,
    }
}

#[cfg(test)]
mod limits_test;
