//! What two replicas say to one another to hold values against each other, and its bytes.
//!
//! ```text
//!   asker                                                    answerer (keeps nothing between two messages)
//!     Compare: keys with digests of causality and content ─▶ ◀─ Differs: those with equal causality and other content
//!     Fetch of a range ─▶                                    ◀─ Fetched: a page of its records
//! ```
//!
//! Every message is safe to lose, repeat and reorder. In: bytes of a peer, never trusted. Out: typed messages, every
//! list bounded. Absent: what they lead to.

use crate::event::Record;
use crate::id::{KeyspaceId, OpId};
use crate::version::{Digest, codec};
use crate::wire::{Malformed, Reader, Writer};
use bytes::{BufMut, Bytes, BytesMut};

/// Keys or records in one message.
pub(super) const KEYS_MAX: usize = 1024;

/// A key and what one replica holds of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyContent {
    /// The key.
    pub key: Bytes,
    /// Of its causality.
    pub causal: Digest,
    /// Of its content.
    pub content: Digest,
}

/// How much of a range a page of it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// All that was ever stored there: it could be read, and is sound.
    Whole,
    /// All that can be read; the disk has lost some.
    Gaps,
    /// Not now: nothing follows from what is missing.
    Unable,
}

/// One message of the scrub.
#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    /// Is any of these otherwise with you?
    Compare {
        /// Of this keyspace.
        keyspace: KeyspaceId,
        /// In the order of their storage keys.
        keys: Vec<KeyContent>,
    },
    /// These are.
    Differs {
        /// Of this keyspace.
        keyspace: KeyspaceId,
        /// As the asker said, each with the answerer's content.
        keys: Vec<(KeyContent, Digest)>,
    },
    /// What do you hold in this range?
    Fetch {
        /// To match the answer.
        op: OpId,
        /// Of this keyspace.
        keyspace: KeyspaceId,
        /// The first storage key; inclusive.
        from: Bytes,
        /// The last; exclusive.
        to: Bytes,
    },
    /// This.
    Fetched {
        /// Of the question.
        op: OpId,
        /// By storage key, in order.
        records: Vec<(Bytes, Record)>,
        /// Where the next page begins; None: the range is at its end.
        next: Option<Bytes>,
        /// Whether anything of the range up to `next` is missing.
        found: Found,
    },
}

impl Check {
    pub(crate) fn put(&self, b: &mut BytesMut) {
        match self {
            Check::Compare { keyspace, keys } => {
                b.put_u8(1);
                b.varint(u64::from(keyspace.0));
                b.varint(keys.len() as u64);
                keys.iter().for_each(|key| put_content(b, key));
            }
            Check::Differs { keyspace, keys } => {
                b.put_u8(2);
                b.varint(u64::from(keyspace.0));
                b.varint(keys.len() as u64);
                for (key, content) in keys {
                    put_content(b, key);
                    b.put_slice(&content.0);
                }
            }
            Check::Fetch { op, keyspace, from, to } => {
                b.put_u8(3);
                b.put_u64(op.0);
                b.varint(u64::from(keyspace.0));
                b.bytes(from);
                b.bytes(to);
            }
            Check::Fetched { op, records, next, found } => {
                b.put_u8(4);
                b.put_u64(op.0);
                b.put_u8(match found {
                    Found::Unable => 0,
                    Found::Whole => 1,
                    Found::Gaps => 2,
                });
                // No storage key is empty.
                b.bytes(next.as_deref().unwrap_or_default());
                b.varint(records.len() as u64);
                for (key, record) in records {
                    b.bytes(key);
                    codec::put_record(b, record);
                }
            }
        }
    }

    pub(crate) fn read(r: &mut Reader) -> Result<Check, Malformed> {
        Ok(match r.u8("check kind")? {
            1 => {
                let (keyspace, count) = (read_keyspace(r)?, read_count(r, 33)?);
                let keys = (0..count).map(|_| read_content(r)).collect::<Result<_, _>>()?;
                Check::Compare { keyspace, keys }
            }
            2 => {
                let (keyspace, count) = (read_keyspace(r)?, read_count(r, 49)?);
                let entry = |_| Ok((read_content(r)?, Digest(r.array("content")?)));
                Check::Differs { keyspace, keys: (0..count).map(entry).collect::<Result<_, Malformed>>()? }
            }
            3 => Check::Fetch {
                op: OpId(r.u64("op")?),
                keyspace: read_keyspace(r)?,
                from: r.bytes("range")?,
                to: r.bytes("range")?,
            },
            4 => {
                let op = OpId(r.u64("op")?);
                let found = match r.u8("found")? {
                    0 => Found::Unable,
                    1 => Found::Whole,
                    2 => Found::Gaps,
                    _ => return Err(Malformed("found")),
                };
                let next = Some(r.bytes("range")?).filter(|next| !next.is_empty());
                let count = read_count(r, 3)?;
                let entry = |_| Ok((r.bytes("key")?, codec::read_record(r)?));
                let records = (0..count).map(entry).collect::<Result<_, Malformed>>()?;
                Check::Fetched { op, records, next, found }
            }
            _ => return Err(Malformed("check kind")),
        })
    }

    /// About how many bytes it takes.
    pub fn size_bytes(&self) -> usize {
        32 + match self {
            Check::Compare { keys, .. } => keys.iter().map(|key| key.key.len() + 35).sum(),
            Check::Differs { keys, .. } => keys.iter().map(|(key, _)| key.key.len() + 51).sum(),
            Check::Fetch { from, to, .. } => from.len() + to.len(),
            Check::Fetched { records, .. } => records
                .iter()
                .map(|(key, record)| key.len() + record.head.len() + record.body.len() + 12)
                .sum(),
        }
    }
}

fn put_content(b: &mut BytesMut, key: &KeyContent) {
    b.bytes(&key.key);
    b.put_slice(&key.causal.0);
    b.put_slice(&key.content.0);
}

fn read_content(r: &mut Reader) -> Result<KeyContent, Malformed> {
    Ok(KeyContent {
        key: r.bytes("key")?,
        causal: Digest(r.array("causality")?),
        content: Digest(r.array("content")?),
    })
}

fn read_keyspace(r: &mut Reader) -> Result<KeyspaceId, Malformed> {
    u32::try_from(r.varint("keyspace")?).map(KeyspaceId).map_err(|_| Malformed("keyspace"))
}

fn read_count(r: &mut Reader, bytes_each: usize) -> Result<usize, Malformed> {
    match r.count(bytes_each, "keys")? {
        count if count <= KEYS_MAX => Ok(count),
        _ => Err(Malformed("keys")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;

    #[test]
    fn every_message_comes_back_and_no_part_of_one_is_another() {
        let (op, keyspace, key) = (OpId(7), KeyspaceId(3), Bytes::from_static(b"key"));
        let record = Record { head: Bytes::from_static(b"head"), body: Bytes::from_static(b"body") };
        let content = KeyContent { key: key.clone(), causal: Digest([1; 16]), content: Digest([2; 16]) };
        let all = [
            Check::Compare { keyspace, keys: vec![content.clone(); 3] },
            Check::Differs { keyspace, keys: vec![(content, Digest([3; 16])); 2] },
            Check::Fetch { op, keyspace, from: key.clone(), to: Bytes::from_static(b"to") },
            Check::Fetched {
                op,
                records: vec![(key.clone(), record); 2],
                next: Some(key),
                found: Found::Whole,
            },
            Check::Fetched { op, records: Vec::new(), next: None, found: Found::Unable },
            Check::Fetched { op, records: Vec::new(), next: None, found: Found::Gaps },
        ];
        for check in all {
            let bytes = Message::Scrub(check.clone()).encode();
            assert_eq!(Message::decode(bytes.clone()), Ok(Message::Scrub(check)));
            for length in 0..bytes.len() {
                assert!(Message::decode(bytes.slice(..length)).is_err());
            }
        }
        let key = KeyContent { key: Bytes::new(), causal: Digest([1; 16]), content: Digest([2; 16]) };
        let long = Message::Scrub(Check::Compare { keyspace, keys: vec![key; KEYS_MAX + 1] }).encode();
        assert_eq!(Message::decode(long), Err(Malformed("keys")));
    }
}
