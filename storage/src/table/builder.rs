//! Writes a table from sorted groups.
//!
//! In: groups in order of keys. Out: a synced file and what the manifest should remember of it. Value frames
//! go to the file as they come; finished data blocks are gathered into runs, so that a scan of heads reads
//! long stretches without values. Deliberately absent: the file's name becoming durable (the caller syncs the
//! directory), and folding.

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::block::{BlockBody, BlockBuilder};
use super::filter;
use super::format::{
    BLOCK_RAW_BYTES_MAX, BlockKind, EncodedBlock, Footer, Handle, Properties, TableMeta, ValueFrame,
    encode_header,
};
use super::index::IndexBuilder;
use crate::error::Error;
use crate::fragment::{Fragment, Kind, Value};
use crate::fs::{File, Fs};

/// Data blocks are gathered to about this size before they go to the file.
const RUN_BYTES: usize = 256 << 10;
/// Bytes gathered before a write call.
const WRITE_BYTES: usize = 256 << 10;

/// How a table is written.
#[derive(Clone, Copy)]
pub(crate) struct TableOptions {
    pub(crate) block_bytes: usize,
    pub(crate) large_value_bytes: usize,
    pub(crate) zstd_level: i32,
    pub(crate) bloom_bits: usize,
    pub(crate) hash_seed: u64,
}

pub(crate) struct TableBuilder {
    out: Output,
    number: u64,
    options: TableOptions,
    salt: u64,
    block: BlockBuilder,
    /// Separator of the block being filled.
    separator: Vec<u8>,
    run: Vec<(Vec<u8>, EncodedBlock)>,
    run_bytes: usize,
    index: IndexBuilder,
    hashes: Vec<u64>,
    properties: Properties,
}

impl TableBuilder {
    pub(crate) fn create(
        fs: &dyn Fs,
        path: PathBuf,
        number: u64,
        options: TableOptions,
    ) -> Result<Self, Error> {
        let file = fs.create(&path).map_err(|e| Error::io("create", &path, e))?;
        let mut out = Output { file, path, buffer: Vec::new(), flushed: 0, hasher: blake3::Hasher::new() };
        out.put(&encode_header())?;
        Ok(TableBuilder {
            out,
            number,
            options,
            salt: xxh3_64_with_seed(&number.to_le_bytes(), !options.hash_seed),
            block: BlockBuilder::default(),
            separator: Vec::new(),
            run: Vec::new(),
            run_bytes: 0,
            index: IndexBuilder::default(),
            hashes: Vec::new(),
            properties: Properties::default(),
        })
    }

    /// Adds a key. Requires: keys in strictly increasing order, at least one fragment, newest first.
    pub(crate) fn add(&mut self, key: &Bytes, fragments: &[Fragment]) -> Result<(), Error> {
        assert!(!fragments.is_empty(), "a key without fragments does not exist");
        assert!(self.properties.keys == 0 || self.properties.last_key < key, "keys come in order");
        // Frames first: a block is closed only between keys.
        let frames =
            fragments.iter().map(|part| self.put_large(key, part)).collect::<Result<Vec<_>, Error>>()?;
        if self.block.is_empty() {
            // The first block begins below everything.
            self.separator = match self.properties.keys {
                0 => Vec::new(),
                _ => shortest_between(&self.properties.last_key, key),
            };
        }
        if self.properties.keys == 0 {
            self.properties.first_key = Bytes::copy_from_slice(key);
        }
        self.block.begin_group(key, fragments.len());
        for (part, frame) in fragments.iter().zip(frames) {
            let body = match (frame, &part.value) {
                (Some(frame), _) => BlockBody::Apart(frame),
                (None, Value::Held(body)) => BlockBody::Inline(body),
                (None, Value::At(..)) => unreachable!("what lies apart is copied apart"),
            };
            self.block.push(part.kind, &part.head, body);
            self.properties.removes += u64::from(part.kind == Kind::Remove);
        }
        self.properties.keys += 1;
        self.properties.fragments += fragments.len() as u64;
        self.properties.last_key = key.clone();
        if self.options.bloom_bits > 0 {
            self.hashes.push(xxh3_64_with_seed(key, self.options.hash_seed));
        }
        if self.block.len() >= self.options.block_bytes { self.close_block() } else { Ok(()) }
    }

    /// Puts a large body into the file, as it was stored before; `None` for a small one. An empty body has no
    /// place of its own, whatever the threshold.
    fn put_large(&mut self, key: &[u8], part: &Fragment) -> Result<Option<ValueFrame>, Error> {
        let (stored, frame) = match &part.value {
            Value::Held(body) if body.raw_len as usize >= self.options.large_value_bytes.max(1) => {
                let len = body.stored.len() as u32;
                let checksum = xxh3_64(&body.stored);
                let frame = ValueFrame { offset: 0, len, raw_len: body.raw_len, zstd: body.zstd, checksum };
                (body.stored.clone(), frame)
            }
            Value::Held(_) => return Ok(None),
            Value::At(table, frame) => (table.read_value(key, frame)?.stored, *frame),
        };
        let offset = self.out.position();
        self.out.put(&stored)?;
        self.properties.value_bytes += stored.len() as u64;
        Ok(Some(ValueFrame { offset, ..frame }))
    }

    fn close_block(&mut self) -> Result<(), Error> {
        let raw = self.block.finish();
        if raw.len() > BLOCK_RAW_BYTES_MAX {
            let (len, max) = (raw.len() as u64, BLOCK_RAW_BYTES_MAX as u64);
            return Err(Error::TooLarge { what: "the fragments of a key", len, max });
        }
        let encoded = EncodedBlock::new(raw, BlockKind::Data, Some(self.options.zstd_level));
        self.run_bytes += encoded.len();
        self.run.push((std::mem::take(&mut self.separator), encoded));
        self.properties.data_blocks += 1;
        if self.run_bytes >= RUN_BYTES { self.put_run() } else { Ok(()) }
    }

    fn put_run(&mut self) -> Result<(), Error> {
        for (separator, block) in std::mem::take(&mut self.run) {
            let handle = self.out.put_block(&block, self.salt)?;
            self.index.push(&separator, handle);
        }
        self.run_bytes = 0;
        Ok(())
    }

    /// Counts bytes of older tables that what was added hides.
    pub(crate) fn hides(&mut self, bytes: u64) {
        self.properties.hidden_bytes += bytes;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.properties.keys == 0
    }

    /// Completes and syncs the file. Requires: at least one key.
    pub(crate) fn finish(mut self, sequence_first: u64, sequence_last: u64) -> Result<TableMeta, Error> {
        assert!(!self.is_empty(), "a table holds at least one key");
        if !self.block.is_empty() {
            self.close_block()?;
        }
        self.put_run()?;
        self.properties.sequence_first = sequence_first;
        self.properties.sequence_last = sequence_last;
        let mut filter_handle = Handle::default();
        if self.options.bloom_bits > 0 {
            let raw = filter::build(&self.hashes, self.options.bloom_bits, self.options.hash_seed);
            filter_handle =
                self.out.put_block(&EncodedBlock::new(raw, BlockKind::Filter, None), self.salt)?;
        }
        if self.index.len() > BLOCK_RAW_BYTES_MAX {
            let (len, max) = (self.index.len() as u64, BLOCK_RAW_BYTES_MAX as u64);
            return Err(Error::TooLarge { what: "the index of a table", len, max });
        }
        let level = Some(self.options.zstd_level);
        let index = EncodedBlock::new(self.index.finish(), BlockKind::Index, level);
        let index_handle = self.out.put_block(&index, self.salt)?;
        let properties = EncodedBlock::new(self.properties.encode(), BlockKind::Properties, None);
        let properties_handle = self.out.put_block(&properties, self.salt)?;
        let footer = Footer {
            filter: filter_handle,
            index: index_handle,
            properties: properties_handle,
            salt: self.salt,
        };
        self.out.put(&footer.encode())?;
        // The key was a slice of something large until here.
        self.properties.last_key = Bytes::copy_from_slice(&self.properties.last_key);
        let (file_bytes, digest) = self.out.finish()?;
        Ok(TableMeta { number: self.number, file_bytes, digest, properties: self.properties })
    }
}

/// The shortest key that is above `low` and at or below `high`. Requires: `low < high`.
fn shortest_between(low: &[u8], high: &[u8]) -> Vec<u8> {
    let shared = low.iter().zip(high).take_while(|(a, b)| a == b).count();
    // `high` is longer than what both share, because it is the larger one.
    let separator = high[..=shared].to_vec();
    debug_assert!(low < separator.as_slice() && separator.as_slice() <= high);
    separator
}

/// A file that is only appended to, in large writes.
struct Output {
    file: Arc<dyn File>,
    path: PathBuf,
    buffer: Vec<u8>,
    flushed: u64,
    hasher: blake3::Hasher,
}

impl Output {
    fn position(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.buffer.len() + bytes.len() > WRITE_BYTES && !self.buffer.is_empty() {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn put_block(&mut self, block: &EncodedBlock, salt: u64) -> Result<Handle, Error> {
        if self.buffer.len() + block.len() > WRITE_BYTES && !self.buffer.is_empty() {
            self.flush()?;
        }
        let offset = self.position();
        block.put(&mut self.buffer, salt, offset);
        Ok(Handle { offset, len: block.len() as u64 })
    }

    fn flush(&mut self) -> Result<(), Error> {
        let written = self.file.write_at(&[IoSlice::new(&self.buffer)], self.flushed);
        written.map_err(|e| Error::io("write", &self.path, e))?;
        self.hasher.update(&self.buffer);
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<(u64, [u8; 32]), Error> {
        self.flush()?;
        self.file.sync_data().map_err(|e| Error::failed_sync(&self.path, e))?;
        Ok((self.flushed, *self.hasher.finalize().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_are_short_and_between() {
        for (low, high, expected) in
            [("abc", "abd", "abd"), ("a", "b", "b"), ("a", "ab", "ab"), ("axxx", "bzzz", "b")]
        {
            assert_eq!(shortest_between(low.as_bytes(), high.as_bytes()), expected.as_bytes());
        }
    }
}
