//! What two replicas say to one another to find where they differ, and its bytes.
//!
//! ```text
//!   asker                                         answerer (keeps nothing between two messages)
//!     Root: the sum of all slots that both hold ─▶
//!                                               ◀─ Same, or Branches: 256 sums
//!     AskLeaves of a branch ─▶                  ◀─ Leaves: 256 sums
//!     Keys of a range of slots, with digests ─▶ ◀─ Differing: its own head of each that differs
//!     AskStates of what it lacks ─▶             ◀─ States
//!     Take what the other lacks ─▶              ◀─ Taken
//! ```
//!
//! Every answer carries the question's op and is safe to lose, repeat and reorder: a question that finds nobody waiting
//! is answered all the same, an answer that finds nobody is dropped. In: bytes of a peer, never trusted. Out: typed messages,
//! every list bounded. Absent: what they lead to; see `round` (the asker) and `answer`.

use super::leaf::Sum;
use super::shared::Stretch;
use super::tree::{BRANCHES, LEAVES};
use crate::event::Record;
use crate::id::{KeyspaceId, OpId};
use crate::ring::Slot;
use crate::version::{Digest, codec};
use crate::wire::{Malformed, Reader, Writer};
use bytes::{BufMut, Bytes, BytesMut};

/// Keys in one message.
pub(super) const KEYS_MAX: usize = if cfg!(test) { 16 } else { 1024 };
/// Bytes of heads or states in one message, but for a single one that is larger.
pub(super) const BYTES_MAX: usize = 256 << 10;

/// One message of an exchange.
#[derive(Clone, Debug, PartialEq)]
pub enum Exchange {
    /// Do we hold the same?
    Root {
        /// To match the answer.
        op: OpId,
        /// Of this keyspace.
        keyspace: KeyspaceId,
        /// Over all slots that both hold.
        sum: Sum,
        /// The asker's sum is not known.
        stale: bool,
    },
    /// Yes.
    Same {
        /// Of the question.
        op: OpId,
    },
    /// No, or nobody knows.
    Branches {
        /// Of the question.
        op: OpId,
        /// Of each branch.
        sums: Sums,
    },
    /// What are the sums of this branch's leaves?
    AskLeaves {
        /// To match the answer.
        op: OpId,
        /// Of this keyspace.
        keyspace: KeyspaceId,
        /// Which.
        branch: u8,
    },
    /// These.
    Leaves {
        /// Of the question.
        op: OpId,
        /// Of each leaf.
        sums: Sums,
    },
    /// These are the asker's keys of a range: which are others with you?
    Keys {
        /// To match the answer.
        op: OpId,
        /// Of this keyspace.
        keyspace: KeyspaceId,
        /// In these slots.
        slots: Stretch,
        /// The first storage key of the range; inclusive.
        from: Bytes,
        /// Its end; exclusive.
        to: Bytes,
        /// In the order of their storage keys.
        keys: Vec<(Bytes, Digest)>,
    },
    /// These.
    Differing {
        /// Of the question.
        op: OpId,
        /// The storage key up to which the range was compared; None: all of it.
        upto: Option<Bytes>,
        /// With the answerer's head of each, empty where it has none, in the order of their storage keys.
        heads: Vec<(Bytes, Bytes)>,
    },
    /// Send the states of these.
    AskStates {
        /// To match the answer.
        op: OpId,
        /// Of this keyspace.
        keyspace: KeyspaceId,
        /// All of one stretch, in the order of their storage keys.
        keys: Vec<Bytes>,
    },
    /// These, raw (R6).
    States {
        /// Of the question.
        op: OpId,
        /// Of this keyspace.
        keyspace: KeyspaceId,
        /// How many of the keys asked for were looked at; the others are to be asked for again.
        looked_at: u32,
        /// Those of them that there are.
        states: Vec<(Bytes, Record)>,
    },
    /// Take these in, raw (R6).
    Take {
        /// To match the answer.
        op: OpId,
        /// Of this keyspace.
        keyspace: KeyspaceId,
        /// What you lack.
        states: Vec<(Bytes, Record)>,
    },
    /// Done with them.
    Taken {
        /// Of the states.
        op: OpId,
        /// How many are durable now.
        stored: u32,
    },
    /// Not now: the keyspace or the trees are not known yet, or too much is under way.
    Unable {
        /// Of the question.
        op: OpId,
    },
}

/// 256 sums, each known or not: of branches, or of leaves of one branch. Half of each sum is enough
/// to tell two apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums(Box<[Option<u64>; 256]>);

impl Sums {
    /// All alike.
    pub(super) fn new() -> Sums {
        Sums(Box::new([Some(0); 256]))
    }

    pub(super) fn set(&mut self, index: u8, sum: Option<Sum>) {
        self.0[usize::from(index)] = sum.map(|sum| sum.0 as u64);
    }

    /// Whether both are known and equal.
    pub(super) fn is_same(&self, other: &Sums, index: u8) -> bool {
        let (mine, theirs) = (self.0[usize::from(index)], other.0[usize::from(index)]);
        mine.is_some() && mine == theirs
    }

    fn put(&self, buffer: &mut BytesMut) {
        for known in self.0.chunks(8) {
            let bit = |(index, sum): (usize, &Option<u64>)| u8::from(sum.is_some()) << index;
            buffer.put_u8(known.iter().enumerate().map(bit).sum());
        }
        self.0.iter().flatten().for_each(|sum| buffer.put_u64(*sum));
    }

    fn read(reader: &mut Reader) -> Result<Sums, Malformed> {
        const { assert!(LEAVES == 256 && BRANCHES == 256) };
        let known: [u8; 32] = reader.array("sums")?;
        let mut sums = [None; 256];
        for (index, sum) in sums.iter_mut().enumerate() {
            if known[index / 8] >> (index % 8) & 1 == 1 {
                *sum = Some(reader.u64("sum")?);
            }
        }
        Ok(Sums(Box::new(sums)))
    }
}

impl Exchange {
    /// By which a question and its answer belong together.
    pub fn op(&self) -> OpId {
        match self {
            Exchange::Root { op, .. }
            | Exchange::Same { op }
            | Exchange::Branches { op, .. }
            | Exchange::AskLeaves { op, .. }
            | Exchange::Leaves { op, .. }
            | Exchange::Keys { op, .. }
            | Exchange::Differing { op, .. }
            | Exchange::AskStates { op, .. }
            | Exchange::States { op, .. }
            | Exchange::Take { op, .. }
            | Exchange::Taken { op, .. }
            | Exchange::Unable { op } => *op,
        }
    }

    /// The states in it, by key, and of which keyspace.
    pub fn states(&self) -> Option<(KeyspaceId, &[(Bytes, Record)])> {
        match self {
            Exchange::States { keyspace, states, .. } | Exchange::Take { keyspace, states, .. } => {
                Some((*keyspace, states))
            }
            _ => None,
        }
    }

    /// About how many bytes it takes.
    pub fn size_bytes(&self) -> usize {
        let states = |states: &[(Bytes, Record)]| -> usize {
            states.iter().map(|(key, record)| key.len() + record.head.len() + record.body.len() + 8).sum()
        };
        32 + match self {
            Exchange::Branches { .. } | Exchange::Leaves { .. } => 32 + 256 * 8,
            Exchange::Keys { keys, .. } => keys.iter().map(|(key, _)| key.len() + 17).sum(),
            Exchange::Differing { heads, .. } => {
                heads.iter().map(|(key, head)| key.len() + head.len() + 6).sum()
            }
            Exchange::AskStates { keys, .. } => keys.iter().map(|key| key.len() + 2).sum(),
            Exchange::States { states: all, .. } | Exchange::Take { states: all, .. } => states(all),
            _ => 0,
        }
    }

    pub(crate) fn put(&self, b: &mut BytesMut) {
        let mut start = |kind: u8, op: &OpId| {
            b.put_u8(kind);
            b.put_u64(op.0);
        };
        match self {
            Exchange::Root { op, keyspace, sum, stale } => {
                start(1, op);
                b.varint(u64::from(keyspace.0));
                b.put_u128(sum.0);
                b.put_u8(u8::from(*stale));
            }
            Exchange::Same { op } => start(2, op),
            Exchange::Branches { op, sums } => {
                start(3, op);
                sums.put(b);
            }
            Exchange::AskLeaves { op, keyspace, branch } => {
                start(4, op);
                b.varint(u64::from(keyspace.0));
                b.put_u8(*branch);
            }
            Exchange::Leaves { op, sums } => {
                start(5, op);
                sums.put(b);
            }
            Exchange::Keys { op, keyspace, slots, from, to, keys } => {
                start(6, op);
                b.varint(u64::from(keyspace.0));
                b.put_u16(slots.first.0);
                b.put_u16(slots.last.0);
                b.bytes(from);
                b.bytes(to);
                b.varint(keys.len() as u64);
                for (key, digest) in keys {
                    b.bytes(key);
                    b.put_slice(&digest.0);
                }
            }
            Exchange::Differing { op, upto, heads } => {
                start(7, op);
                b.bytes(upto.as_deref().unwrap_or_default());
                b.varint(heads.len() as u64);
                for (key, head) in heads {
                    b.bytes(key);
                    b.bytes(head);
                }
            }
            Exchange::AskStates { op, keyspace, keys } => {
                start(8, op);
                b.varint(u64::from(keyspace.0));
                b.varint(keys.len() as u64);
                keys.iter().for_each(|key| b.bytes(key));
            }
            Exchange::States { op, keyspace, looked_at, states } => {
                start(9, op);
                b.varint(u64::from(keyspace.0));
                b.varint(u64::from(*looked_at));
                put_states(b, states);
            }
            Exchange::Take { op, keyspace, states } => {
                start(10, op);
                b.varint(u64::from(keyspace.0));
                put_states(b, states);
            }
            Exchange::Taken { op, stored } => {
                start(11, op);
                b.varint(u64::from(*stored));
            }
            Exchange::Unable { op } => start(12, op),
        }
    }

    pub(crate) fn read(r: &mut Reader) -> Result<Exchange, Malformed> {
        let kind = r.u8("exchange kind")?;
        let op = OpId(r.u64("op")?);
        let keyspace = |r: &mut Reader| {
            u32::try_from(r.varint("keyspace")?).map(KeyspaceId).map_err(|_| Malformed("keyspace"))
        };
        let count = |r: &mut Reader, bytes_each: usize| match r.count(bytes_each, "keys")? {
            count if count <= KEYS_MAX => Ok(count),
            _ => Err(Malformed("keys")),
        };
        let number = |r: &mut Reader| u32::try_from(r.varint("number")?).map_err(|_| Malformed("number"));
        Ok(match kind {
            1 => Exchange::Root {
                op,
                keyspace: keyspace(r)?,
                sum: Sum(u128::from_be_bytes(r.array("sum")?)),
                stale: r.u8("stale")? != 0,
            },
            2 => Exchange::Same { op },
            3 => Exchange::Branches { op, sums: Sums::read(r)? },
            4 => Exchange::AskLeaves { op, keyspace: keyspace(r)?, branch: r.u8("branch")? },
            5 => Exchange::Leaves { op, sums: Sums::read(r)? },
            6 => {
                let keyspace = keyspace(r)?;
                let slot = |r: &mut Reader| r.array("slot").map(u16::from_be_bytes).map(Slot);
                let (first, last) = (slot(r)?, slot(r)?);
                let slots = Stretch::between(first, last).ok_or(Malformed("slots"))?;
                let (from, to) = (r.bytes("range")?, r.bytes("range")?);
                let count = count(r, 17)?;
                let entry = |_| Ok((r.bytes("key")?, Digest(r.array("digest")?)));
                let keys = (0..count).map(entry).collect::<Result<_, Malformed>>()?;
                Exchange::Keys { op, keyspace, slots, from, to, keys }
            }
            7 => {
                let upto = Some(r.bytes("range")?).filter(|upto| !upto.is_empty());
                // Those of the asker's range and the answerer's.
                let count = r.count(2, "heads")?;
                if count > 2 * KEYS_MAX {
                    return Err(Malformed("heads"));
                }
                let entry = |_| Ok((r.bytes("key")?, r.bytes("head")?));
                let heads = (0..count).map(entry).collect::<Result<_, Malformed>>()?;
                Exchange::Differing { op, upto, heads }
            }
            8 => {
                let keyspace = keyspace(r)?;
                let count = count(r, 1)?;
                let keys = (0..count).map(|_| r.bytes("key")).collect::<Result<_, Malformed>>()?;
                Exchange::AskStates { op, keyspace, keys }
            }
            9 => {
                let (keyspace, looked_at) = (keyspace(r)?, number(r)?);
                Exchange::States { op, keyspace, looked_at, states: read_states(r)? }
            }
            10 => Exchange::Take { op, keyspace: keyspace(r)?, states: read_states(r)? },
            11 => Exchange::Taken { op, stored: number(r)? },
            12 => Exchange::Unable { op },
            _ => return Err(Malformed("exchange kind")),
        })
    }
}

fn put_states(b: &mut BytesMut, states: &[(Bytes, Record)]) {
    b.varint(states.len() as u64);
    for (key, record) in states {
        b.bytes(key);
        codec::put_record(b, record);
    }
}

fn read_states(r: &mut Reader) -> Result<Vec<(Bytes, Record)>, Malformed> {
    let count = r.count(3, "states")?;
    if count > KEYS_MAX {
        return Err(Malformed("states"));
    }
    (0..count).map(|_| Ok((r.bytes("key")?, codec::read_record(r)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;

    #[test]
    fn every_message_comes_back_and_no_part_of_one_is_another() {
        let (op, keyspace, key) = (OpId(7), KeyspaceId(3), Bytes::from_static(b"key"));
        let record = Record { head: Bytes::from_static(b"head"), body: Bytes::from_static(b"body") };
        let mut sums = Sums::new();
        sums.set(9, None);
        sums.set(200, Some(Sum(u128::MAX - 5)));
        let digest = Digest([9; 16]);
        let all = [
            Exchange::Root { op, keyspace, sum: Sum(1 << 100), stale: true },
            Exchange::Same { op },
            Exchange::Branches { op, sums: sums.clone() },
            Exchange::AskLeaves { op, keyspace, branch: 255 },
            Exchange::Leaves { op, sums },
            Exchange::Keys {
                op,
                keyspace,
                slots: Stretch { first: Slot(65_530), last: Slot(65_535) },
                from: Bytes::from_static(b"from"),
                to: Bytes::from_static(b"to"),
                keys: vec![(key.clone(), digest); 3],
            },
            Exchange::Differing { op, upto: None, heads: vec![(key.clone(), Bytes::new())] },
            Exchange::Differing { op, upto: Some(key.clone()), heads: vec![(key.clone(), key.clone())] },
            Exchange::AskStates { op, keyspace, keys: vec![key.clone(); 2] },
            Exchange::States { op, keyspace, looked_at: 4, states: vec![(key.clone(), record.clone())] },
            Exchange::Take { op, keyspace, states: vec![(key, record); 2] },
            Exchange::Taken { op, stored: 2 },
            Exchange::Unable { op },
        ];
        for exchange in all {
            let bytes = Message::Tree(exchange.clone()).encode();
            assert!(bytes.len() <= exchange.size_bytes() + 16, "{exchange:?}");
            assert_eq!(Message::decode(bytes.clone()), Ok(Message::Tree(exchange)));
            for length in 0..bytes.len() {
                assert!(Message::decode(bytes.slice(..length)).is_err());
            }
        }
    }

    #[test]
    fn lists_that_are_too_long_are_refused() {
        let (op, keyspace) = (OpId(7), KeyspaceId(3));
        let keys = vec![Bytes::from_static(b"k"); KEYS_MAX + 1];
        let bytes = Message::Tree(Exchange::AskStates { op, keyspace, keys }).encode();
        assert_eq!(Message::decode(bytes), Err(Malformed("keys")));
    }
}
