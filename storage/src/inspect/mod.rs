//! Looks into files without changing them, and goes on past damage.
//!
//! In: a path to a log, a table or a manifest, or a directory and a key. Out: plain values to print. The
//! database may be closed, damaged, or open elsewhere (then what is read may be a moment old). Deliberately
//! absent: repair, and any text layout.

mod report;

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
use crate::table::reader::describe;
use crate::table::{Table, TableMeta};
use crate::wal::format::{HEADER_BYTES, HeaderDamage, LogHeader, VERSION as LOG_VERSION};
use crate::wal::reader::{frame_at, later_headers};

pub use report::{
    Damage, EditReport, Entry, FileEntry, FrameReport, KeyReport, LogReport, ManifestReport, Sighting,
    TableReport,
};

fn damage(file: &Path, offset: u64, what: impl Into<String>) -> Damage {
    Damage { file: file.to_owned(), offset, what: what.into() }
}

fn damage_of(file: &Path, error: &Error) -> Damage {
    match error {
        Error::Corruption { file, offset, what, .. } => damage(file, *offset, what.clone()),
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
    let meta = TableMeta { number, file_bytes, digest, properties };
    let table = Table::open(fs, path, meta, &Arc::default(), Vec::new())?;
    match table.lost() {
        Some(error) => Err(error.clone()),
        None => Ok(table),
    }
}

fn walk_block(
    table: &Arc<Table>,
    at: usize,
    with_entries: bool,
    report: &mut TableReport,
) -> Result<(), Error> {
    let block = table.read_block(at)?;
    for group in 0..block.count() {
        let Some((key, fragments)) = block.group(group, table) else {
            return Err(table.undecodable(at));
        };
        for fragment in &fragments {
            if let Value::At(table, frame) = &fragment.value
                && let Err(error) = table.read_value(&key, frame)
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
        Change::Excise { table, keys } => {
            let (from, to) = (keys.from.escape_ascii(), keys.to.escape_ascii());
            format!("keys of table {table} from {from} to {to} are given up")
        }
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
