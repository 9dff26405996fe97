//! An open table: finds a key, reads blocks and values, checks every byte it hands out.
//!
//! In: a file and what the manifest says of it. Out: fragments, or an error that names file and offset.
//! Index and filter stay in memory as long as the table is open. Deliberately absent: walks (`source`).

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
use super::index::Index;
use crate::cache::{Cache, Cached};
use crate::error::Error;
use crate::fragment::{Body, Fragment};
use crate::fs::{File, Fs, read_exact_at};
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
}

/// The parts of a table that describe it, as read from its file.
pub(crate) struct Described {
    pub(crate) footer: Footer,
    pub(crate) properties: Properties,
    pub(crate) index: Index,
    pub(crate) filter: Option<Filter>,
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
        0 => None,
        _ => Some(
            Filter::parse(block(footer.filter, BlockKind::Filter)?)
                .ok_or_else(|| damaged(footer.filter.offset, "a filter that does not decode"))?,
        ),
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
    /// Opens a table that the manifest names.
    pub(crate) fn open(fs: &dyn Fs, path: &Path, meta: TableMeta) -> Result<Table, Error> {
        let file = fs.open_read(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::corruption(path, 0, "a table that the manifest names is missing")
            }
            _ => Error::io("open", path, error),
        })?;
        let file_bytes = file.len().map_err(|e| Error::io("measure", path, e))?;
        if file_bytes != meta.file_bytes {
            let what = format!("a table of {file_bytes} bytes, {} in the manifest", meta.file_bytes);
            return Err(Error::corruption(path, file_bytes, what));
        }
        let described = describe(file.as_ref(), path, file_bytes)?;
        if described.properties != meta.properties {
            return Err(Error::corruption(
                path,
                described.footer.properties.offset,
                "another table than in the manifest",
            ));
        }
        let (index, filter, salt) = (described.index, described.filter, described.footer.salt);
        Ok(Table { file, path: path.to_owned(), meta, salt, index, filter })
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

    /// The fragments of a key, newest first, none if it is not here; `None` when that needs the disk.
    pub(crate) fn get(
        self: &Arc<Self>,
        key: &[u8],
        cache: &Cache,
        counters: &Counters,
        patience: Patience,
    ) -> Result<Option<Vec<Fragment>>, Error> {
        let Some(at) = self.index.block_for(key) else { return Ok(Some(Vec::new())) };
        let handle = self.index.handle(at);
        let block = match cache.block(self.meta.number, handle.offset) {
            Some(block) => {
                Counters::add(&counters.cache_hits, 1);
                block
            }
            None => {
                Counters::add(&counters.file_reads, 1);
                let Some(stored) = self.read(handle.offset, handle.len, patience)? else { return Ok(None) };
                let block = Arc::new(self.decode(stored, handle)?);
                cache.insert(self.meta.number, handle.offset, Cached::Block(block.clone()));
                block
            }
        };
        let damaged = || self.damaged(handle.offset, "a block that does not decode");
        match block.seek(key).ok_or_else(damaged)? {
            (at, true) => Ok(Some(block.group(at, self).ok_or_else(damaged)?.1)),
            (_, false) => Ok(Some(Vec::new())),
        }
    }

    /// Checks and parses a block that was read.
    pub(crate) fn decode(&self, stored: Bytes, handle: Handle) -> Result<Block, Error> {
        let raw = decode_block(stored, BlockKind::Data, self.salt, handle.offset)
            .map_err(|what| self.damaged(handle.offset, what))?;
        Block::parse(raw).ok_or_else(|| self.damaged(handle.offset, "a block that does not decode"))
    }

    /// Reads bytes; `None` when that would have to wait and must not.
    pub(crate) fn read(&self, offset: u64, len: u64, patience: Patience) -> Result<Option<Bytes>, Error> {
        if patience == Patience::Waits {
            return read(self.file.as_ref(), &self.path, offset, len).map(Some);
        }
        let mut buffer = vec![0; len as usize];
        match self.file.try_read_at(&mut buffer, offset) {
            Ok(Some(n)) if n == buffer.len() => Ok(Some(buffer.into())),
            // A short file is for the patient read to report.
            Ok(_) => Ok(None),
            Err(error) => Err(Error::io("read", &self.path, error)),
        }
    }

    /// A large body as it is stored, checked. Not cached: for scans and compactions.
    pub(crate) fn read_value(&self, frame: &ValueFrame) -> Result<Body, Error> {
        let stored = self.read(frame.offset, u64::from(frame.len), Patience::Waits)?;
        self.check_value(stored.expect("a patient read waits"), frame)
    }

    fn check_value(&self, stored: Bytes, frame: &ValueFrame) -> Result<Body, Error> {
        if xxh3_64(&stored) != frame.checksum {
            return Err(self.damaged(frame.offset, "a value with a bad checksum"));
        }
        Ok(Body { stored, raw_len: frame.raw_len, zstd: frame.zstd })
    }

    /// A large body as the caller gave it; `None` when that needs the disk and must not wait.
    pub(crate) fn cached_value(
        &self,
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
        let Some(stored) = self.read(frame.offset, u64::from(frame.len), patience)? else { return Ok(None) };
        let body = self.check_value(stored, frame)?.load().ok_or_else(|| self.damaged_value(frame))?;
        cache.insert(self.meta.number, frame.offset, Cached::Body(body.clone()));
        Ok(Some(body))
    }

    pub(crate) fn damaged_value(&self, frame: &ValueFrame) -> Error {
        self.damaged(frame.offset, "a value that does not decompress")
    }

    pub(crate) fn damaged(&self, offset: u64, what: &str) -> Error {
        Error::corruption(&self.path, offset, what)
    }
}
