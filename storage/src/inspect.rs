//! Looks into files without changing them, and goes on past damage.
//!
//! In: a path to a log, a table or a manifest, or a directory and a key. Out: plain values to print. The
//! database may be closed, damaged, or open elsewhere (then what is read may be a moment old). Deliberately
//! absent: repair, and any text layout.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Error;
use crate::fragment::{Fragment, Kind, Value};
use crate::fs::{Fs, read_exact_at};
use crate::levels::edit::{self, Change};
use crate::levels::manifest;
use crate::names::{self, FileKind, file_kind};
use crate::table::format::VERSION as TABLE_VERSION;
use crate::table::reader::{Patience, describe};
use crate::table::{Table, TableMeta};
use crate::wal::format::{HEADER_BYTES, HeaderDamage, LogHeader, VERSION as LOG_VERSION};
use crate::wal::reader::{frame_at, later_headers};

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// In which file.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// A file of a database directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Its name.
    pub name: String,
    /// `log`, `table`, `manifest`, `pointer`, `unfinished log`, or `other`.
    pub kind: &'static str,
    /// Its number, 0 if it has none.
    pub number: u64,
    /// Its length.
    pub bytes: u64,
}

/// One fragment of one key, wherever it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// `put`, `merge` or `remove`.
    pub kind: &'static str,
    /// The head's bytes.
    pub head: Vec<u8>,
    /// Length of the body as the caller gave it.
    pub body_bytes: u64,
    /// Length of the body as it is stored.
    pub stored_bytes: u64,
    /// Where the body lies apart in the table, if it does.
    pub body_offset: Option<u64>,
}

/// A log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogReport {
    /// The number in its header, 0 if that is unreadable. Differs from the name in a log that waits for reuse.
    pub number: u64,
    /// Whether it stands for all older logs.
    pub restart: bool,
    /// The log before it.
    pub previous: u64,
    /// The length of that one.
    pub previous_len: u64,
    /// Its sound frames.
    pub frames: Vec<FrameReport>,
    /// What is wrong. A torn tail looks like damage here: only a recovery knows what must be there.
    pub damage: Vec<Damage>,
}

/// A frame of a log: one group commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameReport {
    /// Where it begins.
    pub offset: u64,
    /// Its length, padding included.
    pub bytes: u64,
    /// The sequence of its first write.
    pub sequence_first: u64,
    /// The log was durable up to here when it was written.
    pub durable_below: u64,
    /// The operations of each write.
    pub writes: Vec<Vec<Entry>>,
}

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableReport {
    /// Its length.
    pub file_bytes: u64,
    /// BLAKE3 of the file, in hex; the manifest says what it should be.
    pub digest: String,
    /// Its format version.
    pub version: u32,
    /// The smallest key.
    pub first_key: Vec<u8>,
    /// The largest key.
    pub last_key: Vec<u8>,
    /// Keys.
    pub keys: u64,
    /// Fragments of them.
    pub fragments: u64,
    /// How many of those are removes.
    pub removes: u64,
    /// The piece of history it holds.
    pub sequence_first: u64,
    /// See `sequence_first`.
    pub sequence_last: u64,
    /// Bytes of bodies that lie apart.
    pub value_bytes: u64,
    /// Data blocks.
    pub data_blocks: u64,
    /// Memory that its index and filter take.
    pub resident_bytes: u64,
    /// All fragments, if they were asked for.
    pub entries: Vec<Entry>,
    /// What is wrong.
    pub damage: Vec<Damage>,
}

/// A manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ManifestReport {
    /// Its edits in order.
    pub edits: Vec<EditReport>,
    /// Numbers of the tables that they leave, newest first, with the digest that each should have.
    pub tables: Vec<(u64, String)>,
    /// The oldest log that is needed.
    pub log_floor: u64,
    /// What is wrong.
    pub damage: Vec<Damage>,
}

/// Changes that happened together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditReport {
    /// Where the edit begins.
    pub offset: u64,
    /// Its changes in words.
    pub changes: Vec<String>,
}

/// A fragment of a key and the file that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The file.
    pub file: PathBuf,
    /// The sequence of the write, where the file tells (tables tell only a range).
    pub sequence: u64,
    /// What was found.
    pub entry: Entry,
}

/// Where a key was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyReport {
    /// In logs and tables, in order of file number. Files that are no longer part of the database count too.
    pub sightings: Vec<Sighting>,
    /// Damage met on the way: the key could be there.
    pub damage: Vec<Damage>,
}

fn damage(file: &Path, offset: u64, what: impl Into<String>) -> Damage {
    Damage { file: file.to_owned(), offset, what: what.into() }
}

fn damage_of(file: &Path, error: &Error) -> Damage {
    match error {
        Error::Corruption { file, offset, what } => damage(file, *offset, what.clone()),
        other => damage(file, 0, other.to_string()),
    }
}

fn read_whole(fs: &dyn Fs, path: &Path) -> Result<Bytes, Error> {
    let file = fs.open_read(path).map_err(|e| Error::io("open", path, e))?;
    let read = file.len().and_then(|len| read_exact_at(file.as_ref(), len as usize, 0));
    read.map(Bytes::from).map_err(|e| Error::io("read", path, e))
}

fn entry(key: &[u8], fragment: &Fragment) -> Entry {
    let kind = match fragment.kind {
        Kind::Put => "put",
        Kind::Merge => "merge",
        Kind::Remove => "remove",
    };
    let (body_bytes, stored_bytes, body_offset) = match &fragment.value {
        Value::Held(body) => (u64::from(body.raw_len), body.stored.len() as u64, None),
        Value::At(_, frame) => (u64::from(frame.raw_len), u64::from(frame.len), Some(frame.offset)),
    };
    Entry { key: key.to_vec(), kind, head: fragment.head.to_vec(), body_bytes, stored_bytes, body_offset }
}

/// The files of a directory.
pub fn files(fs: &dyn Fs, dir: &Path) -> Result<Vec<FileEntry>, Error> {
    let list = fs.list(dir).map_err(|e| Error::io("list", dir, e))?;
    let describe = |name: String| {
        let path = dir.join(&name);
        let bytes =
            fs.open_read(&path).and_then(|file| file.len()).map_err(|e| Error::io("measure", &path, e))?;
        let kind = file_kind(&name);
        let number = kind.as_ref().map_or(0, FileKind::number);
        let kind = match kind {
            Some(FileKind::Log(_)) => "log",
            Some(FileKind::LogTemporary(_)) => "unfinished log",
            Some(FileKind::Table(_)) => "table",
            Some(FileKind::Manifest(_)) => "manifest",
            Some(FileKind::Current) => "pointer",
            None => "other",
        };
        Ok(FileEntry { name, kind, number, bytes })
    };
    list.into_iter().map(describe).collect()
}

/// Walks a log.
pub fn log(fs: &dyn Fs, path: &Path) -> Result<LogReport, Error> {
    let bytes = read_whole(fs, path)?;
    let mut report = LogReport::default();
    let header = match LogHeader::decode(&bytes) {
        Ok(header) => header,
        Err(HeaderDamage::Version(found)) => {
            return Err(Error::UnsupportedVersion { file: path.to_owned(), found, supported: LOG_VERSION });
        }
        Err(HeaderDamage::Unreadable) => {
            // The header holds the salt of all checksums: without it nothing can be told apart.
            report.damage.push(damage(path, 0, "the header is damaged or was never written"));
            return Ok(report);
        }
    };
    report.number = header.number;
    report.restart = header.restart;
    report.previous = header.previous;
    report.previous_len = header.previous_len;
    let mut offset = HEADER_BYTES;
    loop {
        if let Some(frame) = frame_at(&bytes, &header, offset) {
            offset += frame.header.frame_len();
            match frame.writes(path) {
                Ok(writes) => report.frames.push(FrameReport {
                    offset: frame.offset,
                    bytes: frame.header.frame_len(),
                    sequence_first: frame.header.sequence_first,
                    durable_below: frame.header.durable_below,
                    writes: writes
                        .iter()
                        .map(|ops| ops.iter().map(|(key, part)| entry(key, part)).collect())
                        .collect(),
                }),
                Err(error) => report.damage.push(damage_of(path, &error)),
            }
            continue;
        }
        let next =
            later_headers(&bytes, &header, offset).find(|(at, _)| frame_at(&bytes, &header, *at).is_some());
        let Some((next, _)) = next else { return Ok(report) };
        report.damage.push(damage(path, offset, format!("no sound frame before offset {next}")));
        offset = next;
    }
}

/// Walks a table; `with_entries` also lists all fragments. Bodies that lie apart are always checked.
pub fn table(fs: &dyn Fs, path: &Path, with_entries: bool) -> Result<TableReport, Error> {
    let mut report = TableReport { version: TABLE_VERSION, ..TableReport::default() };
    let bytes = read_whole(fs, path)?;
    report.file_bytes = bytes.len() as u64;
    let digest = blake3::hash(&bytes);
    report.digest = digest.to_hex().to_string();
    let opened = open_alone(fs, path, report.file_bytes, *digest.as_bytes());
    let table = match opened {
        Ok(table) => Arc::new(table),
        Err(error @ Error::UnsupportedVersion { .. }) => return Err(error),
        Err(error) => {
            report.damage.push(damage_of(path, &error));
            return Ok(report);
        }
    };
    let properties = &table.meta().properties;
    report.first_key = properties.first_key.to_vec();
    report.last_key = properties.last_key.to_vec();
    report.keys = properties.keys;
    report.fragments = properties.fragments;
    report.removes = properties.removes;
    report.sequence_first = properties.sequence_first;
    report.sequence_last = properties.sequence_last;
    report.value_bytes = properties.value_bytes;
    report.data_blocks = properties.data_blocks;
    report.resident_bytes = table.resident_bytes();
    for at in 0..table.index().len() {
        if let Err(error) = walk_block(&table, at, with_entries, &mut report) {
            report.damage.push(damage_of(path, &error));
        }
    }
    Ok(report)
}

/// Opens a table by what its own file says.
fn open_alone(fs: &dyn Fs, path: &Path, file_bytes: u64, digest: [u8; 32]) -> Result<Table, Error> {
    let file = fs.open_read(path).map_err(|e| Error::io("open", path, e))?;
    let properties = describe(file.as_ref(), path, file_bytes)?.properties;
    let number = path.file_name().and_then(|name| file_kind(name.to_str()?)).map_or(0, |kind| kind.number());
    Table::open(fs, path, TableMeta { number, file_bytes, digest, properties })
}

fn walk_block(
    table: &Arc<Table>,
    at: usize,
    with_entries: bool,
    report: &mut TableReport,
) -> Result<(), Error> {
    let handle = table.index().handle(at);
    let stored = table.read(handle.offset, handle.len, Patience::Waits)?.expect("a patient read waits");
    let block = table.decode(stored, handle)?;
    for group in 0..block.count() {
        let Some((key, fragments)) = block.group(group, table) else {
            return Err(table.damaged(handle.offset, "a group of fragments that does not decode"));
        };
        for fragment in &fragments {
            if let Value::At(table, frame) = &fragment.value
                && let Err(error) = table.read_value(frame)
            {
                report.damage.push(damage_of(table.path(), &error));
            }
            if with_entries {
                report.entries.push(entry(&key, fragment));
            }
        }
    }
    Ok(())
}

/// Walks a manifest.
pub fn manifest(fs: &dyn Fs, path: &Path) -> Result<ManifestReport, Error> {
    let bytes = read_whole(fs, path)?;
    let number = path.file_name().and_then(|name| file_kind(name.to_str()?)).map_or(0, |kind| kind.number());
    let mut report = ManifestReport::default();
    match manifest::check_header(&bytes, number, path) {
        Err(error @ Error::UnsupportedVersion { .. }) => return Err(error),
        Err(error) => report.damage.push(damage_of(path, &error)),
        Ok(()) => {}
    }
    let mut levels = crate::levels::Levels::default();
    let mut offset = manifest::HEADER_BYTES;
    while offset < bytes.len() as u64 {
        let Some((payload, next)) = manifest::frame_at(&bytes, number, offset) else {
            report.damage.push(damage(path, offset, "a damaged edit, or the torn end"));
            match manifest::later_frame(&bytes, number, offset) {
                Some(later) => offset = later,
                None => break,
            }
            continue;
        };
        match edit::decode(&payload) {
            Some(changes) => {
                if let Err(what) = levels.apply(&changes) {
                    report.damage.push(damage(path, offset, what));
                }
                report.edits.push(EditReport { offset, changes: changes.iter().map(in_words).collect() });
            }
            None => report.damage.push(damage(path, offset, "an edit that does not decode")),
        }
        offset = next;
    }
    let mut tables: Vec<&TableMeta> = levels.tables.values().collect();
    tables.sort_by_key(|meta| std::cmp::Reverse(meta.properties.sequence_last));
    let digest = |meta: &TableMeta| blake3::Hash::from_bytes(meta.digest).to_hex().to_string();
    report.tables = tables.into_iter().map(|meta| (meta.number, digest(meta))).collect();
    report.log_floor = levels.log_floor;
    Ok(report)
}

fn in_words(change: &Change) -> String {
    match change {
        Change::HashSeed(seed) => format!("hash seed {seed:#018x}"),
        Change::AddTable(meta) => format!(
            "add table {}: {} bytes, {} keys, sequences {} to {}",
            meta.number,
            meta.file_bytes,
            meta.properties.keys,
            meta.properties.sequence_first,
            meta.properties.sequence_last
        ),
        Change::RemoveTable(number) => format!("remove table {number}"),
        Change::LogFloor(number) => format!("logs from {number} on are needed"),
        Change::SequenceFlushed(sequence) => format!("in tables up to sequence {sequence}"),
    }
}

/// Looks for a key in every log and table of a directory.
pub fn key(fs: &dyn Fs, dir: &Path, key: &[u8]) -> Result<KeyReport, Error> {
    let mut report = KeyReport::default();
    for file in files(fs, dir)? {
        let path = dir.join(&file.name);
        match file.kind {
            "log" => {
                let log = log(fs, &path)?;
                report.damage.extend(log.damage);
                for frame in log.frames {
                    for (sequence, ops) in (frame.sequence_first..).zip(frame.writes) {
                        let hits = ops.into_iter().filter(|entry| entry.key == key);
                        report.sightings.extend(hits.map(|entry| Sighting {
                            file: path.clone(),
                            sequence,
                            entry,
                        }));
                    }
                }
            }
            "table" => {
                let table = table(fs, &path, true)?;
                report.damage.extend(table.damage);
                let sequence = table.sequence_last;
                let hits = table.entries.into_iter().filter(|entry| entry.key == key);
                report.sightings.extend(hits.map(|entry| Sighting { file: path.clone(), sequence, entry }));
            }
            _ => {}
        }
    }
    Ok(report)
}

/// The manifest that a directory's pointer names; `None` for a directory that holds no database.
pub fn current_manifest(fs: &dyn Fs, dir: &Path) -> Result<Option<PathBuf>, Error> {
    Ok(manifest::current(fs, dir)?.map(|number| dir.join(names::manifest_name(number))))
}
