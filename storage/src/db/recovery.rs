//! Opening: which files count, and what they make together.
//!
//! In: a directory. Out: the state before the first write, and a report. Nothing that was only read is
//! believed to be durable. A table that cannot be read is set aside; damage in a manifest, or in a log below what
//! was durable, stops the open. Deliberately absent: the replay of logs (`replay`), and repair.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};

use super::Inner;
use super::background::BackgroundState;
use super::commit::LogState;
use super::install::Ledger;
use super::queue::Queue;
use super::replay::{FoundLog, Replay, find_logs};
use super::shape::Shape;
use crate::cache::Cache;
use crate::error::Error;
use crate::fs::Fs;
use crate::levels::Levels;
use crate::levels::manifest::{self, ManifestWriter};
use crate::metrics::Counters;
use crate::names::{self, FileKind, file_kind};
use crate::options::Options;
use crate::record::{CommitSink, Fold};
use crate::table::health::DamageNumbers;
use crate::table::{Table, TableMeta};
use crate::wal::format::HEADER_BYTES;
use crate::wal::reader::frame_at;

/// What an open found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Whether the database was made by this open.
    pub created: bool,
    /// Logs that were replayed.
    pub logs_replayed: usize,
    /// Writes found in them.
    pub replayed_writes: u64,
    /// Operations found in them.
    pub replayed_records: u64,
    /// Bytes of those logs.
    pub replayed_bytes: u64,
    /// Bytes of torn tails of log and manifest, from writes that were never acknowledged as durable.
    pub dropped_tail_bytes: u64,
    /// Edits found in the manifest.
    pub manifest_edits: usize,
    /// Tables in use.
    pub tables: usize,
    /// Files that an unfinished flush, compaction or open had left behind.
    pub orphans_removed: usize,
}

pub(super) fn open(
    fs: Arc<dyn Fs>,
    dir: &Path,
    options: Options,
    fold: Arc<dyn Fold>,
    sink: Arc<dyn CommitSink>,
) -> Result<(Inner, Recovery), Error> {
    fs.create_dir(dir).map_err(|e| Error::io("create", dir, e))?;
    let lock = fs.lock(&dir.join(names::LOCK)).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => Error::Locked { dir: dir.to_owned() },
        _ => Error::io("lock", dir, error),
    })?;
    let found = fs.list(dir).map_err(|e| Error::io("list", dir, e))?;
    let files: Vec<FileKind> = found.iter().filter_map(|name| file_kind(name)).collect();
    let next_file = files.iter().map(FileKind::number).max().unwrap_or(0);
    let mut recovery = Recovery::default();
    let files = remove_unfinished(fs.as_ref(), dir, files, &mut recovery)?;
    let mut levels = match manifest::current(fs.as_ref(), dir)? {
        Some(number) => {
            let contents = manifest::load(fs.as_ref(), dir, number)?;
            recovery.manifest_edits = contents.edits;
            recovery.dropped_tail_bytes = contents.dropped_tail_bytes;
            contents.levels
        }
        None => {
            recovery.created = true;
            Levels { hash_seed: options.hash_seed, ..Levels::default() }
        }
    };
    let newest_first = levels.newest_first().map_err(|what| Error::corruption(dir, 0, what))?;
    let damage_numbers = Arc::new(DamageNumbers::default());
    let open_table = |meta: TableMeta| {
        let path = names::table(dir, meta.number);
        let excised = levels.excised.get(&meta.number).cloned().unwrap_or_default();
        Table::open(fs.as_ref(), &path, meta, &damage_numbers, excised).map(Arc::new)
    };
    let tables = newest_first.into_iter().map(open_table).collect::<Result<Vec<_>, Error>>()?;
    recovery.tables = tables.len();
    let next_file = AtomicU64::new(1 + next_file.max(levels.log_floor));

    let logs = find_logs(fs.as_ref(), dir, &files, levels.log_floor)?;
    check_logs(dir, &files, &logs, &levels, recovery.created)?;
    // Before the new log is written: it may need the room.
    let spare = free_room(fs.as_ref(), dir, &files, &levels, &logs, &mut recovery)?;
    let plan = Replay {
        fs: fs.as_ref(),
        dir,
        options: &options,
        fold: fold.as_ref(),
        levels: &levels,
        log_number: next_file.fetch_add(1, Ordering::Relaxed),
        spare,
    };
    let log_number = plan.log_number;
    let replayed_logs: Vec<PathBuf> = logs.iter().map(|log| log.path.clone()).collect();
    let replayed = plan.run(logs, &mut recovery)?;
    // The new log stands for all older ones already; the manifest follows.
    levels.log_floor = log_number;
    let manifest_number = next_file.fetch_add(1, Ordering::Relaxed);
    let manifest = ManifestWriter::create(fs.as_ref(), dir, manifest_number, &levels)?;
    let spare_logs = clean_up(fs.as_ref(), dir, &files, replayed_logs, &options)?;

    let cache = Cache::new(options.cache_bytes);
    cache.reserve(tables.iter().map(|table| table.resident_bytes()).sum());
    let shape = Shape { active: Arc::new(replayed.memtable), frozen: Vec::new(), tables };
    tracing::info!(dir = %dir.display(), ?recovery, "storage opened");
    let inner = Inner {
        fs,
        dir: dir.to_owned(),
        options,
        fold,
        sink,
        shape: RwLock::new(Arc::new(shape)),
        queue: Queue::default(),
        log: Mutex::new(LogState {
            writer: replayed.writer,
            sequence_next: replayed.sequence_next,
            unsynced_since: None,
            retry_at_bytes: 0,
            sealed: false,
        }),
        hash_seed: levels.hash_seed,
        ledger: Mutex::new(Ledger { manifest, levels }),
        spare_logs: Mutex::new(spare_logs),
        background: BackgroundState::default(),
        cache,
        damage_numbers,
        next_file,
        counters: Counters::default(),
        poison: OnceLock::new(),
        closed: AtomicBool::new(false),
        _lock: lock,
    };
    Ok((inner, recovery))
}

/// The logs must begin where the tables end; without a manifest nothing may be there that one would name.
fn check_logs(
    dir: &Path,
    files: &[FileKind],
    logs: &[FoundLog],
    levels: &Levels,
    created: bool,
) -> Result<(), Error> {
    if created {
        let current = dir.join(names::CURRENT);
        let has_tables = files.iter().any(|kind| matches!(kind, FileKind::Table(_)));
        let has_frames = logs.iter().any(|log| frame_at(&log.bytes, &log.header, HEADER_BYTES).is_some());
        if has_tables || has_frames {
            return Err(Error::corruption(&current, 0, "missing, though there is data"));
        }
        return Ok(());
    }
    match logs.first() {
        Some(first) if first.header.restart || first.header.number == levels.log_floor => Ok(()),
        _ => {
            let path = names::log(dir, levels.log_floor);
            Err(Error::corruption(&path, 0, "missing or not started, though the manifest needs it"))
        }
    }
}

/// Removes logs that an open did not finish: they count for nothing, whatever they hold. This comes before anything is
/// written, so that a node that is started again and again on a full disk takes none of the room that is made for it.
fn remove_unfinished(
    fs: &dyn Fs,
    dir: &Path,
    files: Vec<FileKind>,
    recovery: &mut Recovery,
) -> Result<Vec<FileKind>, Error> {
    let mut kept = Vec::new();
    for kind in files {
        if let FileKind::LogTemporary(number) = kind {
            remove(fs, &names::log_temporary(dir, number))?;
            recovery.orphans_removed += 1;
        } else {
            kept.push(kind);
        }
    }
    Ok(kept)
}

/// Removes tables that no manifest names and logs that nobody needs, but for one, whose number this answers: writing to
/// a file that was written before is cheaper to sync than filling a new one.
fn free_room(
    fs: &dyn Fs,
    dir: &Path,
    files: &[FileKind],
    levels: &Levels,
    logs: &[FoundLog],
    recovery: &mut Recovery,
) -> Result<Option<u64>, Error> {
    let is_needed = |number: u64| logs.iter().any(|log| log.header.number == number);
    let unneeded = |kind: &FileKind| match kind {
        FileKind::Log(number) if !is_needed(*number) => Some(*number),
        _ => None,
    };
    let spare = files.iter().filter_map(unneeded).max();
    if logs.first().is_some_and(|first| first.header.restart) && spare.is_some() {
        // What stands for older logs must have its name for good before they go.
        fs.sync_dir(dir).map_err(|e| Error::failed_sync(dir, e))?;
    }
    for kind in files {
        match kind {
            FileKind::Log(number) if !is_needed(*number) && Some(*number) != spare => {
                remove(fs, &names::log(dir, *number))?;
            }
            FileKind::Table(number) if !levels.tables.contains_key(number) => {
                remove(fs, &names::table(dir, *number))?;
                recovery.orphans_removed += 1;
            }
            _ => {}
        }
    }
    Ok(spare)
}

/// Removes what the new log and the new manifest stand for; some old logs are kept for reuse.
fn clean_up(
    fs: &dyn Fs,
    dir: &Path,
    files: &[FileKind],
    mut old_logs: Vec<PathBuf>,
    options: &Options,
) -> Result<Vec<PathBuf>, Error> {
    let spare_logs = old_logs.split_off(old_logs.len().saturating_sub(options.log_files_recycled_max));
    let manifests = files.iter().filter_map(|kind| match kind {
        FileKind::Manifest(number) => Some(dir.join(names::manifest_name(*number))),
        _ => None,
    });
    old_logs.into_iter().chain(manifests).try_for_each(|path| remove(fs, &path))?;
    Ok(spare_logs)
}

fn remove(fs: &dyn Fs, path: &Path) -> Result<(), Error> {
    fs.unlink(path).map_err(|e| Error::io("remove", path, e))
}
