//! An open table: finds a key, reads blocks and values, checks every byte it hands out.
//!
//! In: a file and what the manifest says of it. Out: fragments, or an error that names file and offset.
//! Index and filter stay in memory as long as the table is open. A table whose index cannot be read is open
//! too: all of its keys are damaged. Deliberately absent: walks (`source`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::block::Block;
use super::filter::Filter;
use super::format::{
    BlockKind, FOOTER_BYTES, Footer, FooterDamage, Handle, Properties, TableMeta, VERSION, ValueFrame,
    decode_block,
};
use super::health::{DamageNumbers, Health};
use super::index::Index;
use crate::cache::{Cache, Cached};
use crate::error::Error;
use crate::fragment::{Body, Fragment};
use crate::fs::{File, Fs, read_exact_at};
use crate::key_span::{KeySpan, successor};
use crate::metrics::Counters;

/// Whether a read may wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    Waits,
    Never,
}

pub(crate) struct Table {
    file: Arc<dyn File>,
    path: PathBuf,
    meta: TableMeta,
    salt: u64,
    index: Index,
    filter: Option<Filter>,
    health: Health,
    /// Why nothing in it can be found.
    lost: Option<Error>,
}

/// The parts of a table that describe it, as read from its file.
pub(crate) struct Described {
    pub(crate) footer: Footer,
    pub(crate) properties: Properties,
    pub(crate) index: Index,
    /// A table can do without.
    pub(crate) filter: Result<Option<Filter>, Error>,
}

/// Reads and checks footer, properties, index and filter.
pub(crate) fn describe(file: &dyn File, path: &Path, file_bytes: u64) -> Result<Described, Error> {
    let damaged = |offset: u64, what: &str| Error::corruption(path, offset, what);
    let footer_at =
        file_bytes.checked_sub(FOOTER_BYTES as u64).ok_or_else(|| damaged(0, "a table without footer"))?;
    let footer =
        Footer::decode(&read(file, path, footer_at, FOOTER_BYTES as u64)?).map_err(
            |damage| match damage {
                FooterDamage::Unreadable => damaged(footer_at, "a damaged footer"),
                FooterDamage::Version(found) => {
                    Error::UnsupportedVersion { file: path.to_owned(), found, supported: VERSION }
                }
            },
        )?;
    let block = |handle: Handle, kind| {
        let inside = handle.offset.checked_add(handle.len).is_some_and(|end| end <= footer_at);
        if !inside {
            return Err(damaged(footer_at, "a footer that points outside the file"));
        }
        let stored = read(file, path, handle.offset, handle.len)?;
        decode_block(stored, kind, footer.salt, handle.offset).map_err(|what| damaged(handle.offset, what))
    };
    let properties = Properties::decode(&block(footer.properties, BlockKind::Properties)?)
        .ok_or_else(|| damaged(footer.properties.offset, "properties that do not decode"))?;
    let index = Index::parse(block(footer.index, BlockKind::Index)?, footer_at)
        .ok_or_else(|| damaged(footer.index.offset, "an index that does not decode"))?;
    let filter = match footer.filter.len {
        0 => Ok(None),
        _ => block(footer.filter, BlockKind::Filter).and_then(|raw| {
            let filter = Filter::parse(raw);
            filter.map(Some).ok_or_else(|| damaged(footer.filter.offset, "a filter that does not decode"))
        }),
    };
    Ok(Described { footer, properties, index, filter })
}

fn read(file: &dyn File, path: &Path, offset: u64, len: u64) -> Result<Bytes, Error> {
    let bytes = read_exact_at(file, len as usize, offset);
    bytes.map(Bytes::from).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::corruption(path, offset, "the file ends too early"),
        _ => Error::io("read", path, error),
    })
}

impl Table {
    /// Opens a table that the manifest names; `excised` are the spans of it that were given up.
    ///
    /// One whose description is damaged opens as [`Table::lost`]. One that is missing does not: the manifest's
    /// own end may be what is damaged.
    pub(crate) fn open(
        fs: &dyn Fs,
        path: &Path,
        meta: TableMeta,
        numbers: &Arc<DamageNumbers>,
        excised: Vec<KeySpan>,
    ) -> Result<Table, Error> {
        let file = fs.open_read(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::corruption(path, 0, "a table that the manifest names is missing")
            }
            _ => Error::io("open", path, error),
        })?;
        let mut table = Table {
            file,
            path: path.to_owned(),
            salt: 0,
            index: Index::empty(),
            filter: None,
            health: Health::new(meta.number, numbers.clone(), excised),
            lost: None,
            meta,
        };
        match table.describe() {
            Ok(Described { footer, index, filter, .. }) => {
                (table.salt, table.index) = (footer.salt, index);
                match filter {
                    Ok(filter) => table.filter = filter,
                    Err(error) => table.health.note_frail(&error.to_string()),
                }
            }
            Err(Error::Corruption { offset, what, .. }) => {
                table.lost = Some(table.damaged(offset, table.keys(), &what));
            }
            Err(other) => return Err(other),
        }
        Ok(table)
    }

    /// Reads what describes the table and holds it against what the manifest says.
    pub(crate) fn describe(&self) -> Result<Described, Error> {
        let file_bytes = self.file.len().map_err(|e| Error::io("measure", &self.path, e))?;
        if file_bytes != self.meta.file_bytes {
            let what = format!("a table of {file_bytes} bytes, {} in the manifest", self.meta.file_bytes);
            return Err(Error::corruption(&self.path, file_bytes, what));
        }
        let described = describe(self.file.as_ref(), &self.path, file_bytes)?;
        if described.properties != self.meta.properties {
            let offset = described.footer.properties.offset;
            return Err(Error::corruption(&self.path, offset, "another table than in the manifest"));
        }
        Ok(described)
    }

    /// Why nothing in this table can be found; `None` if something can.
    pub(crate) fn lost(&self) -> Option<&Error> {
        self.lost.as_ref()
    }

    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// The keys that the table spans.
    pub(crate) fn keys(&self) -> KeySpan {
        let properties = &self.meta.properties;
        KeySpan { from: properties.first_key.clone(), to: successor(&properties.last_key) }
    }

    /// The keys that a block spans.
    pub(crate) fn block_keys(&self, at: usize) -> KeySpan {
        let whole = self.keys();
        let separator = |at| Bytes::copy_from_slice(self.index.separator(at));
        KeySpan {
            from: if at == 0 { whole.from } else { separator(at) },
            to: if at + 1 < self.index.len() { separator(at + 1) } else { whole.to },
        }
    }

    pub(crate) fn meta(&self) -> &TableMeta {
        &self.meta
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// Memory held as long as the table is open.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.index.resident_bytes() + self.filter.as_ref().map_or(0, Filter::resident_bytes)
    }

    /// Whether the table may hold a key. `hash` is of the key under `seed`, which nearly all tables share.
    pub(crate) fn may_hold(&self, key: &[u8], hash: u64, seed: u64) -> bool {
        if key < self.meta.properties.first_key.as_ref() || key > self.meta.properties.last_key.as_ref() {
            return false;
        }
        self.filter.as_ref().is_none_or(|filter| {
            let hash = if filter.seed == seed { hash } else { xxh3_64_with_seed(key, filter.seed) };
            filter.may_hold(hash)
        })
    }

    /// As [`Table::may_hold`], for a key inside the table's range and without its hash.
    pub(crate) fn filter_allows(&self, key: &[u8]) -> bool {
        let allows = |filter: &Filter| filter.may_hold(xxh3_64_with_seed(key, filter.seed));
        self.filter.as_ref().is_none_or(allows)
    }

    /// The fragments of a key, newest first, none if it is not here; `None` when that needs the disk.
    pub(crate) fn get(
        self: &Arc<Self>,
        key: &[u8],
        cache: &Cache,
        counters: &Counters,
        patience: Patience,
    ) -> Result<Option<Vec<Fragment>>, Error> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        let Some(at) = self.index.block_for(key) else { return Ok(Some(Vec::new())) };
        let handle = self.index.handle(at);
        let block = match cache.block(self.meta.number, handle.offset) {
            Some(block) => {
                Counters::add(&counters.cache_hits, 1);
                block
            }
            None => {
                Counters::add(&counters.file_reads, 1);
                let Some(stored) =
                    self.read_noted(handle.offset, handle.len, self.block_keys(at), patience)?
                else {
                    return Ok(None);
                };
                let block = Arc::new(self.decode(at, stored)?);
                cache.insert(self.meta.number, handle.offset, Cached::Block(block.clone()));
                block
            }
        };
        let damaged = || self.undecodable(at);
        match block.seek(key).ok_or_else(damaged)? {
            (at, true) => Ok(Some(block.group(at, self).ok_or_else(damaged)?.1)),
            (_, false) => Ok(Some(Vec::new())),
        }
    }

    /// Checks and parses a block that was read.
    pub(crate) fn decode(&self, at: usize, stored: Bytes) -> Result<Block, Error> {
        let offset = self.index.handle(at).offset;
        let raw = decode_block(stored, BlockKind::Data, self.salt, offset)
            .map_err(|what| self.damaged(offset, self.block_keys(at), what))?;
        Block::parse(raw).ok_or_else(|| self.undecodable(at))
    }

    /// A block whose checksum is right and whose contents are not.
    pub(crate) fn undecodable(&self, at: usize) -> Error {
        self.damaged(self.index.handle(at).offset, self.block_keys(at), "a block that does not decode")
    }

    /// Reads bytes that tell of some keys; `None` when that would have to wait and must not.
    fn read(&self, offset: u64, len: u64, keys: KeySpan, patience: Patience) -> Result<Option<Bytes>, Error> {
        if patience == Patience::Waits {
            let bytes = read(self.file.as_ref(), &self.path, offset, len);
            return bytes.map(Some).map_err(|error| match error {
                Error::Corruption { offset, what, .. } => self.damaged(offset, keys, &what),
                other => other.hiding(keys),
            });
        }
        let mut buffer = vec![0; len as usize];
        match self.file.try_read_at(&mut buffer, offset) {
            Ok(Some(n)) if n == buffer.len() => Ok(Some(buffer.into())),
            // A short file is for the patient read to report.
            Ok(_) => Ok(None),
            Err(error) => Err(Error::io("read", &self.path, error).hiding(keys)),
        }
    }

    /// As `read`, for a reader of one key. What the disk refuses a patient reader twice is damaged, and repaired like
    /// any other damage, instead of failing until the verifier comes by.
    fn read_noted(
        &self,
        offset: u64,
        len: u64,
        keys: KeySpan,
        patience: Patience,
    ) -> Result<Option<Bytes>, Error> {
        match patience {
            Patience::Waits => self.read_twice(offset, len, &keys).map(Some),
            Patience::Never => self.read(offset, len, keys, patience),
        }
    }

    /// Reads many blocks at once, for a walk that can do with less.
    pub(crate) fn read_ahead(&self, offset: u64, len: u64) -> Result<Bytes, Error> {
        read(self.file.as_ref(), &self.path, offset, len)
    }

    /// Reads bytes for a walk, a compaction or the verifier: what the disk refuses twice counts as damaged.
    fn read_twice(&self, offset: u64, len: u64, keys: &KeySpan) -> Result<Bytes, Error> {
        let read = || self.read(offset, len, keys.clone(), Patience::Waits);
        let bytes = read().or_else(|error| match error {
            Error::Io { .. } => read().inspect_err(|error| {
                if let Error::Io { source, .. } = error {
                    self.health.note(offset, keys, &format!("it cannot be read: {source}"));
                }
            }),
            other => Err(other),
        })?;
        Ok(bytes.expect("a patient read waits"))
    }

    /// A block, past the cache.
    pub(crate) fn read_block(&self, at: usize) -> Result<Block, Error> {
        let handle = self.index.handle(at);
        let stored = self.read_twice(handle.offset, handle.len, &self.block_keys(at))?;
        self.decode(at, stored)
    }

    /// A large body as it is stored, checked. Not cached: for scans and compactions.
    pub(crate) fn read_value(&self, key: &[u8], frame: &ValueFrame) -> Result<Body, Error> {
        let stored = self.read_twice(frame.offset, u64::from(frame.len), &KeySpan::of_key(key))?;
        self.check_value(key, stored, frame)
    }

    fn check_value(&self, key: &[u8], stored: Bytes, frame: &ValueFrame) -> Result<Body, Error> {
        if xxh3_64(&stored) != frame.checksum {
            return Err(self.damaged(frame.offset, KeySpan::of_key(key), "a value with a bad checksum"));
        }
        Ok(Body { stored, raw_len: frame.raw_len, zstd: frame.zstd })
    }

    /// A large body as the caller gave it; `None` when that needs the disk and must not wait.
    pub(crate) fn cached_value(
        &self,
        key: &[u8],
        frame: &ValueFrame,
        cache: &Cache,
        counters: &Counters,
        patience: Patience,
    ) -> Result<Option<Bytes>, Error> {
        if let Some(body) = cache.body(self.meta.number, frame.offset) {
            Counters::add(&counters.cache_hits, 1);
            return Ok(Some(body));
        }
        Counters::add(&counters.file_reads, 1);
        let keys = KeySpan::of_key(key);
        let Some(stored) = self.read_noted(frame.offset, u64::from(frame.len), keys, patience)? else {
            return Ok(None);
        };
        let body = self.check_value(key, stored, frame)?.load();
        let body = body.ok_or_else(|| self.damaged_value(key, frame))?;
        cache.insert(self.meta.number, frame.offset, Cached::Body(body.clone()));
        Ok(Some(body))
    }

    pub(crate) fn damaged_value(&self, key: &[u8], frame: &ValueFrame) -> Error {
        self.damaged(frame.offset, KeySpan::of_key(key), "a value that does not decompress")
    }

    /// Remembers damage and makes an error of it.
    pub(crate) fn damaged(&self, offset: u64, keys: KeySpan, what: &str) -> Error {
        self.health.note(offset, &keys, what);
        Error::corruption(&self.path, offset, what).hiding(keys)
    }
}
