//! Walks a table in order of keys.
//!
//! In: bounds. Out: groups. Neighbouring blocks are read together, more of them the longer the walk lasts;
//! values that lie apart are not touched. Deliberately absent: the cache (a walk must not push out what is
//! hot).

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::block::Block;
use super::reader::{Patience, Table};
use crate::error::Error;
use crate::memtable::Group;
use crate::merge::{Source, is_after, is_before};

/// A long walk reads at most this much at once.
const READ_AHEAD_BYTES_MAX: u64 = 256 << 10;
/// The first read of a walk takes about this much.
const READ_AHEAD_BYTES_MIN: u64 = 16 << 10;

pub(crate) struct TableSource {
    table: Arc<Table>,
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    next_block: usize,
    /// Stored bytes of neighbouring blocks and where they begin.
    chunk: (u64, Bytes),
    read_ahead: u64,
    block: Option<Block>,
    next_group: usize,
}

impl TableSource {
    pub(crate) fn new(table: Arc<Table>, from: Bound<Vec<u8>>, to: Bound<Vec<u8>>) -> TableSource {
        let next_block = match &from {
            Bound::Included(key) | Bound::Excluded(key) => table.index().block_for(key).unwrap_or(0),
            Bound::Unbounded => 0,
        };
        TableSource {
            table,
            from,
            to,
            next_block,
            chunk: (0, Bytes::new()),
            read_ahead: READ_AHEAD_BYTES_MIN,
            block: None,
            next_group: 0,
        }
    }

    /// Moves to the next block; `false` at the end of the table.
    fn turn(&mut self) -> Result<bool, Error> {
        let index = self.table.index();
        if self.next_block >= index.len() {
            return Ok(false);
        }
        let handle = index.handle(self.next_block);
        let (start, held) = (self.chunk.0, self.chunk.1.len() as u64);
        if handle.offset < start || handle.offset + handle.len > start + held {
            let len = self.neighbours_len();
            let chunk = self.table.read(handle.offset, len, Patience::Waits)?;
            self.chunk = (handle.offset, chunk.expect("a patient read waits"));
            self.read_ahead = (self.read_ahead * 2).min(READ_AHEAD_BYTES_MAX);
        }
        let at = (handle.offset - self.chunk.0) as usize;
        let stored = self.chunk.1.slice(at..at + handle.len as usize);
        let block = self.table.decode(stored, handle)?;
        self.next_group = match &self.from {
            Bound::Included(key) | Bound::Excluded(key) => {
                let damaged = || self.table.damaged(handle.offset, "a block that does not decode");
                block.seek(key).ok_or_else(damaged)?.0
            }
            Bound::Unbounded => 0,
        };
        self.block = Some(block);
        self.next_block += 1;
        Ok(true)
    }

    /// Bytes of the next block and of those that follow it without a gap.
    fn neighbours_len(&self) -> u64 {
        let index = self.table.index();
        let first = index.handle(self.next_block);
        let mut end = first.offset + first.len;
        for at in self.next_block + 1..index.len() {
            let handle = index.handle(at);
            if handle.offset != end || end + handle.len - first.offset > self.read_ahead {
                break;
            }
            end += handle.len;
        }
        end - first.offset
    }
}

impl Source for TableSource {
    fn next(&mut self) -> Result<Option<Group>, Error> {
        loop {
            let Some(block) = &self.block else {
                if self.turn()? {
                    continue;
                }
                return Ok(None);
            };
            if self.next_group >= block.count() {
                self.block = None;
                continue;
            }
            let offset = self.table.index().handle(self.next_block - 1).offset;
            let group = block.group(self.next_group, &self.table);
            let (key, fragments) = group
                .ok_or_else(|| self.table.damaged(offset, "a group of fragments that does not decode"))?;
            self.next_group += 1;
            if is_before(&key, &self.from) {
                continue;
            }
            if is_after(&key, &self.to) {
                // Nothing later can be inside.
                self.next_block = self.table.index().len();
                self.block = None;
                return Ok(None);
            }
            return Ok(Some((key, fragments)));
        }
    }
}
