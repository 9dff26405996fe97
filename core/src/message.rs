//! What nodes say to one another, and its bytes.
//!
//! Links may lose, delay, repeat and reorder; every message is safe to receive twice or late.
//! Replication always carries raw states (R6). In: bytes of a peer, never trusted. Out: typed
//! messages. Absent: framing and authentication, which are the link's.

use crate::anti_entropy::Exchange;
use crate::anti_entropy::scrub;
use crate::catalog::Catalog;
use crate::event::Record;
use crate::fence::FenceMessage;
use crate::id::{KeyspaceId, NodeId, OpId, PluginHash, RequestId};
use crate::membership::Gossip;
use crate::request::{
    Acks, Basis, GetReply, Level, Operation, Outcome, Presence, Problem, QueryReply, Request, Resolution,
    SiblingView, Sloppiness, Want, WriteReply,
};
use crate::storage_key;
use crate::version::{Digest, codec};
use crate::wire::{Malformed, Reader, Writer};
use bytes::{BufMut, Bytes, BytesMut};

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Take this state in. With an op: acknowledge once what you hold durably covers it.
    Replicate {
        /// None: a repair, nobody waits.
        op: Option<OpId>,
        /// Of the key.
        keyspace: KeyspaceId,
        /// The key.
        key: Bytes,
        /// The whole raw state.
        record: Record,
    },
    /// Keep this state for `target`, a primary of the key that does not answer, and send it home
    /// once it does. Acknowledged as a Replicate.
    Hint {
        /// To match the reply.
        op: OpId,
        /// For whom.
        target: NodeId,
        /// Of the key.
        keyspace: KeyspaceId,
        /// The key.
        key: Bytes,
        /// The whole raw state.
        record: Record,
    },
    /// What this node holds durably covers the state that came with `op`.
    Replicated {
        /// Of the Replicate or Hint.
        op: OpId,
        /// Or why not.
        result: Result<(), Refusal>,
    },
    /// What do you hold?
    Read {
        /// To match the reply.
        op: OpId,
        /// Of the key.
        keyspace: KeyspaceId,
        /// The key.
        key: Bytes,
        /// Send the state only if its digest is not this one.
        unless: Option<Digest>,
        /// Not the receiver's own copy: what it keeps for the key's primaries as hints.
        as_stand_in: bool,
    },
    /// This.
    ReadReply {
        /// Of the Read.
        op: OpId,
        /// The state, or that it is as the asker thought.
        answer: ReadAnswer,
    },
    /// A client's request, for a replica of its key to coordinate. Never forwarded twice.
    Forward {
        /// To match the reply.
        op: OpId,
        /// As the client sent it.
        request: Request,
    },
    /// What became of a forwarded request.
    Forwarded {
        /// Of the Forward.
        op: OpId,
        /// As the client will see it.
        outcome: Outcome,
    },
    /// Trees are compared, and what differs is repaired.
    Tree(Exchange),
    /// What members say of a collection.
    Fence(FenceMessage),
    /// The sender's catalog, or what became of yours.
    CatalogPush {
        /// Whole.
        catalog: Catalog,
    },
    /// Who is there, as whom, and what each says of its catalog and plugins.
    Gossip(Gossip),
    /// Send me bytes of this module.
    PluginFetch {
        /// Which.
        hash: PluginHash,
        /// From this byte on.
        offset: u64,
    },
    /// Values held against one another, and fetched.
    Scrub(scrub::Check),
    /// Bytes of a module.
    PluginChunk {
        /// Which.
        hash: PluginHash,
        /// Where the bytes begin.
        offset: u64,
        /// Of the whole module.
        size_bytes: u64,
        /// Some of it.
        bytes: Bytes,
    },
}

/// Why a replica does not hold a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It does not know the keyspace yet, or knows it with another kind of state.
    UnknownKeyspace,
    /// Its storage failed.
    Storage,
    /// The state does not decode.
    Malformed,
    /// The receiver is no stand-in for that node and key.
    NotStandIn,
    /// It keeps as many hints for that node as it may.
    HintsFull,
    /// It has vouched that it keeps nothing of what is about to be collected (R9).
    Collecting,
    /// Joined with what it holds the state is larger than a record may be: sent again, it is refused again.
    TooLarge,
}

/// A replica's answer to a read.
#[derive(Clone, Debug, PartialEq)]
pub enum ReadAnswer {
    /// The digest is the asker's.
    Same,
    /// The state; None if there is none.
    State(Option<Record>),
    /// It cannot say.
    Refused(Refusal),
}

/// Encoded messages carry this version first.
const FORMAT: u8 = 1;

impl Message {
    /// Its bytes alone.
    pub fn encode(&self) -> Bytes {
        self.encode_into(&mut BytesMut::with_capacity(self.size_hint_bytes()))
    }

    /// Its bytes, as a part of a buffer that holds those of many: most messages are small, and an
    /// allocation for each costs more than to write them. The buffer grows as it must; all that was
    /// taken from it shares its memory.
    pub fn encode_into(&self, b: &mut BytesMut) -> Bytes {
        assert!(b.is_empty(), "what was written before was taken");
        self.put(b);
        b.split().freeze()
    }

    fn put(&self, b: &mut BytesMut) {
        b.reserve(self.size_hint_bytes());
        b.put_u8(FORMAT);
        match self {
            Message::Replicate { op, keyspace, key, record } => {
                b.put_u8(1);
                b.put_u64(op.map_or(0, |op| op.0));
                b.varint(u64::from(keyspace.0));
                b.bytes(key);
                codec::put_record(b, record);
            }
            Message::Replicated { op, result } => {
                b.put_u8(2);
                b.put_u64(op.0);
                b.put_u8(result.map_or_else(refusal_byte, |()| 0));
            }
            Message::Read { op, keyspace, key, unless, as_stand_in } => {
                b.put_u8(3);
                b.put_u64(op.0);
                b.varint(u64::from(keyspace.0));
                b.bytes(key);
                b.put_u8(u8::from(unless.is_some()) | u8::from(*as_stand_in) << 1);
                if let Some(digest) = unless {
                    b.put_slice(&digest.0);
                }
            }
            Message::ReadReply { op, answer } => {
                b.put_u8(4);
                b.put_u64(op.0);
                match answer {
                    ReadAnswer::Same => b.put_u8(0),
                    ReadAnswer::State(None) => b.put_u8(1),
                    ReadAnswer::State(Some(record)) => {
                        b.put_u8(2);
                        codec::put_record(b, record);
                    }
                    ReadAnswer::Refused(refusal) => {
                        b.put_u8(3);
                        b.put_u8(refusal_byte(*refusal));
                    }
                }
            }
            Message::Forward { op, request } => {
                b.put_u8(5);
                b.put_u64(op.0);
                put_request(b, request);
            }
            Message::Forwarded { op, outcome } => {
                b.put_u8(6);
                b.put_u64(op.0);
                put_outcome(b, outcome);
            }
            Message::CatalogPush { catalog } => {
                b.put_u8(7);
                catalog.put(b);
            }
            Message::Gossip(gossip) => {
                b.put_u8(8);
                gossip.put(b);
            }
            Message::PluginFetch { hash, offset } => {
                b.put_u8(9);
                b.put_slice(&hash.0);
                b.varint(*offset);
            }
            Message::Fence(message) => {
                b.put_u8(30);
                message.put(b);
            }
            Message::PluginChunk { hash, offset, size_bytes, bytes } => {
                b.put_u8(10);
                b.put_slice(&hash.0);
                b.varint(*offset);
                b.varint(*size_bytes);
                b.bytes(bytes);
            }
            Message::Hint { op, target, keyspace, key, record } => {
                b.put_u8(12);
                b.put_u64(op.0);
                b.put_u64(target.0);
                b.varint(u64::from(keyspace.0));
                b.bytes(key);
                codec::put_record(b, record);
            }
            Message::Tree(exchange) => {
                b.put_u8(11);
                exchange.put(b);
            }
            Message::Scrub(check) => {
                b.put_u8(20);
                check.put(b);
            }
        }
    }

    /// The message of these bytes; values share them.
    pub fn decode(bytes: Bytes) -> Result<Message, Malformed> {
        let mut r = Reader::new(bytes);
        if r.u8("message format")? != FORMAT {
            return Err(Malformed("message format"));
        }
        let message = match r.u8("message kind")? {
            1 => {
                let op = r.u64("op")?;
                Message::Replicate {
                    op: (op != 0).then_some(OpId(op)),
                    keyspace: read_keyspace(&mut r)?,
                    key: r.bytes("key")?,
                    record: codec::read_record(&mut r)?,
                }
            }
            2 => Message::Replicated {
                op: OpId(r.u64("op")?),
                result: match r.u8("result")? {
                    0 => Ok(()),
                    byte => Err(read_refusal(byte)?),
                },
            },
            3 => {
                let (op, keyspace) = (OpId(r.u64("op")?), read_keyspace(&mut r)?);
                let (key, flags) = (r.bytes("key")?, r.u8("read flags")?);
                let unless = if flags & 1 == 0 { None } else { Some(Digest(r.array("digest")?)) };
                Message::Read { op, keyspace, key, unless, as_stand_in: flags & 2 != 0 }
            }
            4 => Message::ReadReply {
                op: OpId(r.u64("op")?),
                answer: match r.u8("answer")? {
                    0 => ReadAnswer::Same,
                    1 => ReadAnswer::State(None),
                    2 => ReadAnswer::State(Some(codec::read_record(&mut r)?)),
                    3 => ReadAnswer::Refused(read_refusal(r.u8("refusal")?)?),
                    _ => return Err(Malformed("answer")),
                },
            },
            5 => Message::Forward { op: OpId(r.u64("op")?), request: read_request(&mut r)? },
            6 => Message::Forwarded { op: OpId(r.u64("op")?), outcome: read_outcome(&mut r)? },
            7 => Message::CatalogPush { catalog: Catalog::read(&mut r)? },
            8 => Message::Gossip(Gossip::read(&mut r)?),
            9 => Message::PluginFetch { hash: PluginHash(r.array("plugin")?), offset: r.varint("offset")? },
            30 => Message::Fence(FenceMessage::read(&mut r)?),
            10 => Message::PluginChunk {
                hash: PluginHash(r.array("plugin")?),
                offset: r.varint("offset")?,
                size_bytes: r.varint("size")?,
                bytes: r.bytes("chunk")?,
            },
            12 => Message::Hint {
                op: OpId(r.u64("op")?),
                target: NodeId(r.u64("target")?),
                keyspace: read_keyspace(&mut r)?,
                key: r.bytes("key")?,
                record: codec::read_record(&mut r)?,
            },
            11 => Message::Tree(Exchange::read(&mut r)?),
            20 => Message::Scrub(scrub::Check::read(&mut r)?),
            _ => return Err(Malformed("message kind")),
        };
        r.end("message")?;
        Ok(message)
    }

    /// Whether it carries states of keys to where they are stored.
    pub(crate) fn carries_states(&self) -> bool {
        matches!(
            self,
            Message::Replicate { .. }
                | Message::Hint { .. }
                | Message::Tree(Exchange::States { .. } | Exchange::Take { .. })
                | Message::Scrub(scrub::Check::Fetched { .. })
        )
    }

    /// Puts what `sift` leaves of each such state in its place, and takes those out of which it leaves nothing. Whether
    /// there is still something to send.
    pub(crate) fn sift_states(
        &mut self,
        sift: impl Fn(KeyspaceId, &Bytes, Option<OpId>, Record) -> Option<Record>,
    ) -> bool {
        let sift_one = |keyspace, key: &Bytes, op, record: &mut Record| {
            let left = sift(keyspace, key, op, std::mem::take(record));
            left.map(|left| *record = left).is_some()
        };
        match self {
            Message::Replicate { op, keyspace, key, record } => sift_one(*keyspace, key, *op, record),
            Message::Hint { op, keyspace, key, record, .. } => sift_one(*keyspace, key, Some(*op), record),
            Message::Tree(
                Exchange::States { keyspace, states, .. } | Exchange::Take { keyspace, states, .. },
            ) => {
                states.retain_mut(|(key, record)| sift_one(*keyspace, key, None, record));
                true
            }
            Message::Scrub(scrub::Check::Fetched { records, .. }) => {
                records.retain_mut(|(storage_key, record)| {
                    let of = storage_key::parse_object(storage_key);
                    of.is_some_and(|(keyspace, key)| sift_one(keyspace, &key, None, record))
                });
                true
            }
            _ => true,
        }
    }

    /// About how many bytes it takes.
    pub fn size_hint_bytes(&self) -> usize {
        64 + match self {
            Message::Replicate { key, record, .. } | Message::Hint { key, record, .. } => {
                key.len() + record.head.len() + record.body.len()
            }
            Message::ReadReply { answer: ReadAnswer::State(Some(record)), .. } => {
                record.head.len() + record.body.len()
            }
            Message::PluginChunk { bytes, .. } => bytes.len(),
            Message::Forwarded { outcome, .. } => outcome.size_bytes(),
            Message::Tree(exchange) => exchange.size_bytes(),
            Message::Scrub(check) => check.size_bytes(),
            _ => 256,
        }
    }
}

fn refusal_byte(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::UnknownKeyspace => 1,
        Refusal::Storage => 2,
        Refusal::Malformed => 3,
        Refusal::NotStandIn => 4,
        Refusal::HintsFull => 5,
        Refusal::Collecting => 6,
        Refusal::TooLarge => 7,
    }
}

fn read_refusal(byte: u8) -> Result<Refusal, Malformed> {
    match byte {
        1 => Ok(Refusal::UnknownKeyspace),
        2 => Ok(Refusal::Storage),
        3 => Ok(Refusal::Malformed),
        4 => Ok(Refusal::NotStandIn),
        5 => Ok(Refusal::HintsFull),
        6 => Ok(Refusal::Collecting),
        7 => Ok(Refusal::TooLarge),
        _ => Err(Malformed("refusal")),
    }
}

fn read_keyspace(r: &mut Reader) -> Result<KeyspaceId, Malformed> {
    u32::try_from(r.varint("keyspace")?).map(KeyspaceId).map_err(|_| Malformed("keyspace"))
}

mod forward;
use forward::{put_outcome, put_request, read_outcome, read_request};
