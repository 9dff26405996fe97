//! The inside of a data block: groups of fragments by key, in order, found by binary search.
//!
//! In: sorted groups; or the raw bytes of a block. Out: the other of the two. Keys are stored whole: the
//! prefix they share is what zstd is good at, and a whole key can be compared where it lies. Deliberately
//! absent: compression and checksums (`format`).

use std::sync::Arc;

use bytes::Bytes;

use super::format::ValueFrame;
use super::index::{Positions, put_starts};
use super::reader::Table;
use crate::encoding::{Reader, put_slice, put_varint};
use crate::fragment::{Body, Fragment, Kind, Value};
use crate::limits::BODY_BYTES_MAX;

const ZSTD_BIT: u8 = 0x10;
const APART_BIT: u8 = 0x20;
const KIND_BITS: u8 = 0x0f;

/// A body as it goes into a block.
pub(crate) enum BlockBody<'a> {
    Inline(&'a Body),
    Apart(ValueFrame),
}

#[derive(Default)]
pub(crate) struct BlockBuilder {
    groups: Vec<u8>,
    starts: Vec<u32>,
}

impl BlockBuilder {
    pub(crate) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Raw bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.groups.len() + self.starts.len() * 4 + 4
    }

    pub(crate) fn begin_group(&mut self, key: &[u8], fragments: usize) {
        self.starts.push(self.groups.len() as u32);
        put_slice(&mut self.groups, key);
        put_varint(&mut self.groups, fragments as u64);
    }

    pub(crate) fn push(&mut self, kind: Kind, head: &[u8], body: BlockBody<'_>) {
        let out = &mut self.groups;
        if kind == Kind::Remove {
            out.push(kind as u8);
            return;
        }
        let (zstd, apart) = match &body {
            BlockBody::Inline(body) => (body.zstd, false),
            BlockBody::Apart(frame) => (frame.zstd, true),
        };
        out.push(kind as u8 | if zstd { ZSTD_BIT } else { 0 } | if apart { APART_BIT } else { 0 });
        put_slice(out, head);
        match body {
            BlockBody::Inline(body) => {
                if zstd {
                    put_varint(out, u64::from(body.raw_len));
                }
                put_slice(out, &body.stored);
            }
            BlockBody::Apart(frame) => {
                put_varint(out, frame.offset);
                put_varint(out, u64::from(frame.len));
                if zstd {
                    put_varint(out, u64::from(frame.raw_len));
                }
                out.extend_from_slice(&frame.checksum.to_le_bytes());
            }
        }
    }

    /// The raw block; the builder is empty afterwards.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let groups = std::mem::take(&mut self.groups);
        let raw = put_starts(groups, &self.starts);
        self.starts.clear();
        raw
    }
}

/// A decoded data block.
#[derive(Debug)]
pub(crate) struct Block {
    groups: Positions,
}

impl Block {
    pub(crate) fn parse(raw: Bytes) -> Option<Block> {
        Some(Block { groups: Positions::parse(raw)? })
    }

    /// Bytes held.
    pub(crate) fn len(&self) -> usize {
        self.groups.bytes.len()
    }

    pub(crate) fn count(&self) -> usize {
        self.groups.count()
    }

    /// The first group at or after a key: its place, and whether it is that key. `None` on damage.
    pub(crate) fn seek(&self, key: &[u8]) -> Option<(usize, bool)> {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = (low + high) / 2;
            match self.groups.key(middle)?.cmp(key) {
                std::cmp::Ordering::Equal => return Some((middle, true)),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Some((low, false))
    }

    /// The key of a group. `None` on damage.
    pub(crate) fn key(&self, at: usize) -> Option<&[u8]> {
        self.groups.key(at)
    }

    /// A group, sharing the block's bytes. `None` on damage.
    pub(crate) fn group(&self, at: usize, table: &Arc<Table>) -> Option<(Bytes, Vec<Fragment>)> {
        let mut reader = Reader::new(self.groups.entry(at));
        let key = self.share(reader.slice()?);
        let count = reader.len_up_to(reader.remaining())?;
        let fragments = (0..count).map(|_| self.fragment(&mut reader, table)).collect::<Option<Vec<_>>>()?;
        (reader.remaining() == 0 && !fragments.is_empty()).then_some((key, fragments))
    }

    fn share(&self, part: &[u8]) -> Bytes {
        self.groups.bytes.slice_ref(part)
    }

    fn fragment(&self, reader: &mut Reader<'_>, table: &Arc<Table>) -> Option<Fragment> {
        let bits = reader.u8()?;
        let kind = Kind::from_bits(bits & KIND_BITS)?;
        if kind == Kind::Remove {
            return Some(Fragment::remove());
        }
        let (zstd, apart) = (bits & ZSTD_BIT != 0, bits & APART_BIT != 0);
        let head = self.share(reader.slice()?);
        let value = if apart {
            let offset = reader.varint()?;
            let len = reader.len_up_to(BODY_BYTES_MAX)? as u32;
            let raw_len = if zstd { reader.len_up_to(BODY_BYTES_MAX)? as u32 } else { len };
            let frame = ValueFrame { offset, len, raw_len, zstd, checksum: reader.u64()? };
            Value::At(table.clone(), frame)
        } else {
            let raw_len = if zstd { Some(reader.len_up_to(BODY_BYTES_MAX)? as u32) } else { None };
            let stored = self.share(reader.slice()?);
            Value::Held(match raw_len {
                Some(raw_len) => Body { stored, raw_len, zstd },
                None => Body::raw(stored),
            })
        };
        Some(Fragment { kind, head, value })
    }
}
