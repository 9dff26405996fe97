//! Opening: which files count, what they hold, and a fresh log to go on with.
//!
//! In: a directory. Out: the state before the first write, and a report. Nothing that was only read is
//! believed to be durable: the logs' sound frames are copied into a new log, synced and given its name before
//! anything is served. Deliberately absent: repair. Damage below what was durable stops the open.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Inner;
use super::background::{BackgroundState, Ledger};
use super::commit::{LogState, Queue};
use super::shape::Shape;
use crate::cache::Cache;
use crate::error::Error;
use crate::fragment::Fragment;
use crate::fs::{self, File, Fs};
use crate::levels::Levels;
use crate::levels::manifest::{self, ManifestWriter};
use crate::memtable::Memtable;
use crate::metrics::Counters;
use crate::names::{self, FileKind, file_kind};
use crate::options::Options;
use crate::record::{CommitSink, Fold};
use crate::table::{Table, TableMeta};
use crate::wal::format::{HEADER_BYTES, HeaderDamage, LogHeader, VERSION, looks_like_frame};
use crate::wal::reader::{LogContents, frame_at, read_frames};
use crate::wal::writer::LogWriter;

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

/// A log on disk whose header was read.
struct FoundLog {
    path: PathBuf,
    header: LogHeader,
    bytes: Bytes,
}

/// What the logs held.
struct Replayed {
    memtable: Memtable,
    writer: LogWriter,
    sequence_next: u64,
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
    let mut recovery = Recovery::default();
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
    let open_table = |meta: TableMeta| {
        let path = names::table(dir, meta.number);
        Table::open(fs.as_ref(), &path, meta).map(Arc::new)
    };
    let tables = newest_first.into_iter().map(open_table).collect::<Result<Vec<_>, Error>>()?;
    recovery.tables = tables.len();
    let next_file =
        AtomicU64::new(1 + files.iter().map(FileKind::number).max().unwrap_or(0).max(levels.log_floor));

    let logs = find_logs(fs.as_ref(), dir, &files, levels.log_floor)?;
    check_logs(dir, &files, &logs, &levels, recovery.created)?;
    let log_number = next_file.fetch_add(1, Ordering::Relaxed);
    let plan =
        Replay { fs: fs.as_ref(), dir, options: &options, fold: fold.as_ref(), levels: &levels, log_number };
    let replayed = plan.run(logs, &mut recovery)?;
    // The new log stands for all older ones already; the manifest follows.
    levels.log_floor = log_number;
    let manifest_number = next_file.fetch_add(1, Ordering::Relaxed);
    let manifest = ManifestWriter::create(fs.as_ref(), dir, manifest_number, &levels)?;
    let spare_logs = clean_up(fs.as_ref(), dir, &files, &levels, &options, &mut recovery)?;

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
            sealed: false,
        }),
        hash_seed: levels.hash_seed,
        ledger: Mutex::new(Ledger { manifest, levels, spare_logs }),
        background: BackgroundState::default(),
        cache,
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

/// Removes what is not part of the database any more; old logs are kept for reuse.
fn clean_up(
    fs: &dyn Fs,
    dir: &Path,
    files: &[FileKind],
    levels: &Levels,
    options: &Options,
    recovery: &mut Recovery,
) -> Result<Vec<PathBuf>, Error> {
    let mut spare_logs = Vec::new();
    for kind in files {
        let (path, orphan) = match kind {
            FileKind::Log(number) => (names::log(dir, *number), false),
            FileKind::LogTemporary(number) => (names::log_temporary(dir, *number), true),
            FileKind::Table(number) if !levels.tables.contains_key(number) => {
                (names::table(dir, *number), true)
            }
            FileKind::Manifest(number) => (dir.join(names::manifest_name(*number)), false),
            FileKind::Table(_) | FileKind::Current => continue,
        };
        if matches!(kind, FileKind::Log(_)) && spare_logs.len() < options.log_files_recycled_max {
            spare_logs.push(path);
            continue;
        }
        fs.unlink(&path).map_err(|e| Error::io("remove", &path, e))?;
        recovery.orphans_removed += usize::from(orphan);
    }
    Ok(spare_logs)
}

/// Reads the headers of all logs from `floor` on and keeps those that were started.
fn find_logs(fs: &dyn Fs, dir: &Path, files: &[FileKind], floor: u64) -> Result<Vec<FoundLog>, Error> {
    let mut numbers: Vec<u64> =
        files.iter().filter_map(|kind| if let FileKind::Log(n) = kind { Some(*n) } else { None }).collect();
    numbers.retain(|number| *number >= floor);
    numbers.sort_unstable();
    let mut found: Vec<FoundLog> = Vec::new();
    let mut unstarted: Option<PathBuf> = None;
    for number in numbers {
        let path = names::log(dir, number);
        let bytes = read_whole(fs, &path)?;
        match started_header(&bytes, number, &path)? {
            Some(_) if unstarted.is_some() => {
                let path = unstarted.expect("just looked");
                return Err(Error::corruption(&path, 0, "a log without a header has a successor"));
            }
            Some(header) => found.push(FoundLog { path, header, bytes }),
            None => unstarted = Some(path),
        }
    }
    if let Some(restart) = found.iter().rposition(|log| log.header.restart) {
        found.drain(..restart);
    }
    for pair in found.windows(2) {
        if pair[1].header.previous != pair[0].header.number {
            let what = format!("log {} is missing before it", pair[1].header.previous);
            return Err(Error::corruption(&pair[1].path, 0, what));
        }
    }
    Ok(found)
}

fn read_whole(fs: &dyn Fs, path: &Path) -> Result<Bytes, Error> {
    let read = || {
        let file = fs.open_read(path)?;
        fs::read_exact_at(file.as_ref(), file.len()? as usize, 0)
    };
    read().map(Bytes::from).map_err(|error| Error::io("read", path, error))
}

/// The header, or `None` for a log that was being created or recycled when the power went.
fn started_header(bytes: &Bytes, number: u64, path: &Path) -> Result<Option<LogHeader>, Error> {
    match LogHeader::decode(bytes) {
        Ok(header) if header.number == number => Ok(Some(header)),
        Err(HeaderDamage::Version(found)) => {
            Err(Error::UnsupportedVersion { file: path.to_owned(), found, supported: VERSION })
        }
        Ok(_) | Err(HeaderDamage::Unreadable) => {
            // A header is durable before the first frame is written, so a frame proves damage.
            let frames = bytes.get(HEADER_BYTES as usize..).unwrap_or_default();
            if frames.chunks(8).any(|here| looks_like_frame(here, number)) {
                return Err(Error::corruption(path, 0, "the log's header is damaged"));
            }
            Ok(None)
        }
    }
}

/// How logs become a memtable and a new log.
struct Replay<'a> {
    fs: &'a dyn Fs,
    dir: &'a Path,
    options: &'a Options,
    fold: &'a dyn Fold,
    levels: &'a Levels,
    /// The new log's number.
    log_number: u64,
}

impl Replay<'_> {
    /// Replays logs into a memtable and copies their sound frames into a new log, which is durable before it
    /// gets its name, and which from then on stands for all of them.
    fn run(&self, logs: Vec<FoundLog>, recovery: &mut Recovery) -> Result<Replayed, Error> {
        let contents = read_all(logs, recovery)?;
        let frames = contents.iter().flat_map(|(_, read)| &read.frames);
        let durable_len = HEADER_BYTES + frames.map(|frame| frame.header.frame_len()).sum::<u64>();
        let header = LogHeader {
            number: self.log_number,
            salt: log_salt(self.log_number, self.levels.hash_seed),
            restart: true,
            previous: contents.last().map_or(0, |(log, _)| log.header.number),
            previous_len: contents.last().map_or(0, |(_, read)| read.end),
            durable_len,
        };
        let (dir, number) = (self.dir, self.log_number);
        let (temporary, path) = (names::log_temporary(dir, number), names::log(dir, number));
        let file = self.fs.create(&temporary).map_err(|e| Error::io("create", &temporary, e))?;
        match file.allocate(self.options.log_file_bytes.max(durable_len)) {
            // A full disk may still have room for what is really needed.
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {}
            allocated => allocated.map_err(|e| Error::io("allocate", &temporary, e))?,
        }
        let mut writer = LogWriter::unsynced(file, &path, &header)?;
        let memtable = Memtable::new(number, self.levels.sequence_flushed + 1);
        let mut sequence_next = memtable.sequence_first;
        for (log, read) in contents {
            for frame in read.frames {
                let sequence = frame.header.sequence_first;
                if sequence < sequence_next {
                    return Err(Error::corruption(
                        &log.path,
                        frame.offset,
                        "a frame's sequence goes backwards",
                    ));
                }
                sequence_next = sequence + u64::from(frame.header.writes);
                writer.append_payload(&frame.payload, frame.header.writes, sequence)?;
                self.apply(frame.writes(&log.path)?, frame.payload.len(), &memtable, recovery);
            }
        }
        assert_eq!(writer.written(), durable_len, "frames keep their length when copied");
        writer.sync().map_err(|error| Error::Poisoned { cause: error.to_string() })?;
        self.fs.rename(&temporary, &path).map_err(|e| Error::io("rename", &temporary, e))?;
        self.fs.sync_dir(dir).map_err(|e| Error::failed_sync(dir, e))?;
        Ok(Replayed { memtable, writer, sequence_next })
    }

    fn apply(
        &self,
        writes: Vec<Vec<(Bytes, Fragment)>>,
        frame_bytes: usize,
        memtable: &Memtable,
        recovery: &mut Recovery,
    ) {
        let ops = writes.iter().map(Vec::len).sum::<usize>();
        recovery.replayed_writes += writes.len() as u64;
        recovery.replayed_records += ops as u64;
        memtable.charge(frame_bytes, ops);
        for (key, fragment) in writes.into_iter().flatten() {
            memtable.insert(key, fragment, self.fold);
        }
    }
}

/// Reads the frames of all logs. A log with a successor must be whole, up to the length that it was left with.
fn read_all(logs: Vec<FoundLog>, recovery: &mut Recovery) -> Result<Vec<(FoundLog, LogContents)>, Error> {
    let sealed_lens: Vec<Option<u64>> =
        (0..logs.len()).map(|at| logs.get(at + 1).map(|next| next.header.previous_len)).collect();
    let mut contents = Vec::new();
    for (log, sealed_len) in logs.into_iter().zip(sealed_lens) {
        let read = read_frames(&log.bytes, &log.header, &log.path, sealed_len)?;
        recovery.logs_replayed += 1;
        recovery.replayed_bytes += read.end - HEADER_BYTES;
        recovery.dropped_tail_bytes += read.dropped_tail_bytes;
        contents.push((log, read));
    }
    Ok(contents)
}

/// Tells one log's frames from those of any other, also in values that hold a copy of a log.
fn log_salt(number: u64, hash_seed: u64) -> u64 {
    xxh3_64_with_seed(&number.to_le_bytes(), hash_seed)
}

impl Inner {
    /// Makes the next log: durable header, durable name, before any frame.
    ///
    /// Failing before the header is written is harmless and reported as such. After that, a half-made log
    /// could vouch for a length of its predecessor that is soon outdated: then the database is poisoned.
    pub(super) fn start_log(&self, previous: &LogWriter) -> Result<LogWriter, Error> {
        let number = self.new_file_number();
        let path = names::log(&self.dir, number);
        let file = self.log_file(&path)?;
        let header = LogHeader {
            number,
            salt: log_salt(number, self.hash_seed),
            restart: false,
            previous: previous.number(),
            previous_len: previous.written(),
            durable_len: HEADER_BYTES,
        };
        let started = LogWriter::start(file, &path, &header).map_err(|error| self.poison(&error))?;
        self.fs.sync_dir(&self.dir).map_err(|e| self.poison(&Error::failed_sync(&self.dir, e)))?;
        Ok(started)
    }

    /// A file with room for a log: a spare one under a new name, or a new one.
    fn log_file(&self, path: &Path) -> Result<Arc<dyn File>, Error> {
        let spare = self.ledger.lock().spare_logs.pop();
        if let Some(spare) = spare {
            // Its old header and frames carry another number, so they count for nothing.
            let reused = self.fs.rename(&spare, path).and_then(|()| self.fs.open(path));
            match reused {
                Ok(file) => return Ok(file),
                Err(error) => tracing::warn!(file = %spare.display(), %error, "could not reuse a log file"),
            }
        }
        let file = self.fs.create(path).map_err(|e| Error::io("create", path, e))?;
        if let Err(error) = file.allocate(self.options.log_file_bytes) {
            // An empty file does no harm; the next open removes it.
            let _ = self.fs.unlink(path);
            return Err(Error::io("allocate", path, error));
        }
        Ok(file)
    }
}
