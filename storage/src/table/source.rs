//! Walks a table in order of keys.
//!
//! In: bounds. Out: groups, and the gaps where a block could not be read. Neighbouring blocks are read together,
//! more of them the longer the walk lasts; values that lie apart are not touched. What was given up is passed
//! over. Deliberately absent: the cache (a walk must not push out what is hot).

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::block::Block;
use super::reader::Table;
use crate::error::Error;
use crate::key_span::{KeySpan, any_contains, successor};
use crate::merge::{Found, Gap, Source, is_after, is_before};

/// A long walk reads at most this much at once.
const READ_AHEAD_BYTES_MAX: u64 = 256 << 10;
/// The first read of a walk takes about this much.
const READ_AHEAD_BYTES_MIN: u64 = 16 << 10;

pub(crate) struct TableSource {
    table: Arc<Table>,
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    /// What was given up when the walk began.
    excised: Arc<Vec<KeySpan>>,
    /// What could not be read and is yet to be told.
    gaps: VecDeque<Gap>,
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
        let mut source = TableSource {
            excised: table.health().excised(),
            gaps: VecDeque::new(),
            table,
            from,
            to,
            next_block,
            chunk: (0, Bytes::new()),
            read_ahead: READ_AHEAD_BYTES_MIN,
            block: None,
            next_group: 0,
        };
        if let Some(lost) = source.table.lost().cloned() {
            source.leave_out(source.table.keys(), &lost);
        }
        source
    }

    /// Tells of what cannot be read, as far as the walk comes there and it was not given up.
    fn leave_out(&mut self, keys: KeySpan, error: &Error) {
        let left = keys.without(&self.excised);
        let inside = left.into_iter().filter_map(|keys| keys.within(&self.from, &self.to));
        self.gaps.extend(inside.map(|keys| Gap { error: error.clone().hiding(keys.clone()), keys }));
    }

    /// Moves to the next block that is needed; `false` at the end of the walk.
    fn turn(&mut self) -> Result<bool, Error> {
        let at = self.next_block;
        if at >= self.table.index().len() {
            return Ok(false);
        }
        let keys = self.table.block_keys(at);
        if is_after(&keys.from, &self.to) {
            self.next_block = self.table.index().len();
            return Ok(false);
        }
        self.next_block += 1;
        if !self.excised.is_empty() && keys.without(&self.excised).is_empty() {
            return Ok(true);
        }
        let block = match self.read(at) {
            Ok(block) => block,
            Err(error) if error.hidden_keys().is_some() => {
                self.leave_out(keys, &error);
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        let first = match &self.from {
            Bound::Included(key) | Bound::Excluded(key) => block.seek(key).map(|(at, _)| at),
            Bound::Unbounded => Some(0),
        };
        match first {
            Some(first) => (self.next_group, self.block) = (first, Some(block)),
            None => self.leave_out(keys, &self.table.undecodable(at)),
        }
        Ok(true)
    }

    fn read(&mut self, at: usize) -> Result<Block, Error> {
        let handle = self.table.index().handle(at);
        let (start, held) = (self.chunk.0, self.chunk.1.len() as u64);
        if handle.offset < start || handle.offset + handle.len > start + held {
            match self.table.read_ahead(handle.offset, self.neighbours_len(at)) {
                Ok(chunk) => self.chunk = (handle.offset, chunk),
                // It may be a neighbour's place on the disk that refuses.
                Err(_) => return self.table.read_block(at),
            }
            self.read_ahead = (self.read_ahead * 2).min(READ_AHEAD_BYTES_MAX);
        }
        let begin = (handle.offset - self.chunk.0) as usize;
        let stored = self.chunk.1.slice(begin..begin + handle.len as usize);
        self.table.decode(at, stored)
    }

    /// Bytes of a block and of those that follow it without a gap.
    fn neighbours_len(&self, at: usize) -> u64 {
        let index = self.table.index();
        let first = index.handle(at);
        let mut end = first.offset + first.len;
        for at in at + 1..index.len() {
            let handle = index.handle(at);
            if handle.offset != end || end + handle.len - first.offset > self.read_ahead {
                break;
            }
            end += handle.len;
        }
        end - first.offset
    }

    /// What a block holds from a group on cannot be told.
    fn leave_out_rest(&mut self, block: &Block, group: usize) {
        let at = self.next_block - 1;
        let mut keys = self.table.block_keys(at);
        if let Some(previous) = group.checked_sub(1).and_then(|previous| block.key(previous)) {
            keys.from = successor(previous);
        }
        self.leave_out(keys, &self.table.undecodable(at));
    }
}

impl Source for TableSource {
    fn next(&mut self) -> Result<Option<Found>, Error> {
        loop {
            if let Some(gap) = self.gaps.pop_front() {
                return Ok(Some(Found::Gap(gap)));
            }
            let Some(block) = self.block.take() else {
                if self.turn()? {
                    continue;
                }
                return Ok(self.gaps.pop_front().map(Found::Gap));
            };
            let group = self.next_group;
            if group >= block.count() {
                continue;
            }
            let Some((key, fragments)) = block.group(group, &self.table) else {
                self.leave_out_rest(&block, group);
                continue;
            };
            self.next_group += 1;
            if is_after(&key, &self.to) {
                // Nothing later can be inside.
                self.next_block = self.table.index().len();
                return Ok(None);
            }
            self.block = Some(block);
            if is_before(&key, &self.from) || any_contains(&self.excised, &key) {
                continue;
            }
            return Ok(Some(Found::Group((key, fragments))));
        }
    }

    fn gave_up(&self, key: &[u8]) -> bool {
        any_contains(&self.excised, key) && self.may_hold(key)
    }

    fn may_hold(&self, key: &[u8]) -> bool {
        self.table.filter_allows(key)
    }
}
