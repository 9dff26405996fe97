//! Sorted entries with their positions, and the index block that is made of them.
//!
//! In: separators and handles; or the raw bytes of a block. Out: the other of the two. Everything is checked
//! when it is parsed, so that a lookup cannot leave the bytes. Deliberately absent: compression and checksums.

use bytes::Bytes;

use super::format::Handle;
use crate::encoding::{Reader, put_slice, put_varint};

/// Where each block begins: the shortest key that is above all keys before it.
#[derive(Default)]
pub(crate) struct IndexBuilder {
    entries: Vec<u8>,
    starts: Vec<u32>,
}

impl IndexBuilder {
    pub(crate) fn push(&mut self, separator: &[u8], block: Handle) {
        self.starts.push(self.entries.len() as u32);
        put_slice(&mut self.entries, separator);
        put_varint(&mut self.entries, block.offset);
        put_varint(&mut self.entries, block.len);
    }

    /// Bytes that `finish` will give.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() + self.starts.len() * 4 + 4
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        put_starts(self.entries, &self.starts)
    }
}

/// Appends the positions of entries and their count.
pub(crate) fn put_starts(mut entries: Vec<u8>, starts: &[u32]) -> Vec<u8> {
    for start in starts {
        entries.extend_from_slice(&start.to_le_bytes());
    }
    entries.extend_from_slice(&(starts.len() as u32).to_le_bytes());
    entries
}

/// Entries followed by their positions, checked once so that later access cannot leave the bytes.
#[derive(Debug, Clone)]
pub(crate) struct Positions {
    pub(crate) bytes: Bytes,
    count: usize,
    /// Where the entries end and the positions begin.
    end: usize,
}

impl Positions {
    pub(crate) fn parse(bytes: Bytes) -> Option<Positions> {
        let tail = bytes.len().checked_sub(4)?;
        let count = u32::from_le_bytes(bytes[tail..].try_into().expect("four bytes")) as usize;
        let end = tail.checked_sub(count.checked_mul(4)?)?;
        let positions = Positions { bytes, count, end };
        let mut previous = None;
        for at in 0..count {
            let start = positions.start(at);
            if start >= end || previous.is_some_and(|previous| previous >= start) {
                return None;
            }
            previous = Some(start);
        }
        Some(positions)
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    fn start(&self, at: usize) -> usize {
        let slot = self.end + at * 4;
        u32::from_le_bytes(self.bytes[slot..slot + 4].try_into().expect("four bytes")) as usize
    }

    /// The bytes of one entry.
    pub(crate) fn entry(&self, at: usize) -> &[u8] {
        let end = if at + 1 < self.count { self.start(at + 1) } else { self.end };
        &self.bytes[self.start(at)..end]
    }

    /// Every entry begins with its key.
    pub(crate) fn key(&self, at: usize) -> Option<&[u8]> {
        Reader::new(self.entry(at)).slice()
    }
}

/// An index in memory.
pub(crate) struct Index {
    entries: Positions,
}

impl Index {
    pub(crate) fn parse(raw: Bytes, file_bytes: u64) -> Option<Index> {
        let index = Index { entries: Positions::parse(raw)? };
        // Checked once here, so that lookups can rely on it.
        let mut previous: Option<&[u8]> = None;
        for at in 0..index.len() {
            let key = index.entries.key(at)?;
            let handle = index.decode(at)?;
            let inside = handle.offset.checked_add(handle.len).is_some_and(|end| end <= file_bytes);
            if !inside || previous.is_some_and(|previous| previous >= key) {
                return None;
            }
            previous = Some(key);
        }
        Some(index)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.count()
    }

    pub(crate) fn resident_bytes(&self) -> u64 {
        self.entries.bytes.len() as u64
    }

    fn decode(&self, at: usize) -> Option<Handle> {
        let mut reader = Reader::new(self.entries.entry(at));
        reader.slice()?;
        Some(Handle { offset: reader.varint()?, len: reader.varint()? })
    }

    pub(crate) fn handle(&self, at: usize) -> Handle {
        self.decode(at).expect("checked when parsed")
    }

    /// The key at or above which a block's keys are; empty for the first block.
    pub(crate) fn separator(&self, at: usize) -> &[u8] {
        self.entries.key(at).expect("checked when parsed")
    }

    /// An index of nothing, for a table that cannot be read.
    pub(crate) fn empty() -> Index {
        let entries = put_starts(Vec::new(), &[]);
        Index { entries: Positions::parse(entries.into()).expect("no entries are in order") }
    }

    /// The only block that can hold a key; `None` when all keys are above it.
    pub(crate) fn block_for(&self, key: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = (low + high) / 2;
            if self.entries.key(middle).expect("checked when parsed") <= key {
                low = middle + 1
            } else {
                high = middle
            }
        }
        low.checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_finds_the_block_whose_first_key_is_at_or_below() {
        let mut builder = IndexBuilder::default();
        for (at, separator) in ["b", "f", "fx"].iter().enumerate() {
            builder.push(separator.as_bytes(), Handle { offset: at as u64, len: 1 });
        }
        let index = Index::parse(builder.finish().into(), 100).expect("it was just built");
        for (key, expected) in [("a", None), ("b", Some(0)), ("ez", Some(0)), ("f", Some(1)), ("g", Some(2))]
        {
            assert_eq!(index.block_for(key.as_bytes()), expected, "{key}");
        }
    }
}
