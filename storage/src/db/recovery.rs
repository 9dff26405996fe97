//! Opening: which files count, what they hold, and a fresh log to go on with.
//!
//! In: a directory. Out: the state before the first write, and a report. Nothing that was only read is
//! believed to be durable: the logs' sound frames are copied into a new log, synced and given its name before
//! anything is served. Deliberately absent: repair. Damage below what was durable stops the open.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::commit::{LogState, Queue};
use super::shape::Shape;
use super::{Inner, background};
use crate::error::Error;
use crate::fs::{self, Fs};
use crate::memtable::Memtable;
use crate::names::{self, FileKind, file_kind};
use crate::options::Options;
use crate::record::{CommitSink, Fold};
use crate::wal::format::{HEADER_BYTES, HeaderDamage, LogHeader, VERSION, looks_like_frame};
use crate::wal::reader::{LogContents, read_frames};
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
    /// Bytes of a torn tail, from writes that were never acknowledged as durable.
    pub dropped_tail_bytes: u64,
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
    let names = fs.list(dir).map_err(|e| Error::io("list", dir, e))?;
    let mut recovery =
        Recovery { created: names.iter().all(|name| file_kind(name).is_none()), ..Recovery::default() };
    let files: Vec<FileKind> = names.iter().filter_map(|name| file_kind(name)).collect();
    let number = |kind: &FileKind| match kind {
        FileKind::Log(n) | FileKind::LogTemporary(n) | FileKind::Table(n) | FileKind::Manifest(n) => *n,
        FileKind::Current => 0,
    };
    let next_file = files.iter().map(number).max().unwrap_or(0) + 1;
    let logs = find_logs(fs.as_ref(), dir, &files, 0)?;
    let replayed = replay(fs.as_ref(), dir, &options, fold.as_ref(), logs, next_file, 1, &mut recovery)?;
    for kind in &files {
        let path = match kind {
            FileKind::Log(n) => names::log(dir, *n),
            FileKind::LogTemporary(n) => names::log_temporary(dir, *n),
            _ => continue,
        };
        fs.unlink(&path).map_err(|e| Error::io("remove", &path, e))?;
        recovery.orphans_removed += usize::from(matches!(kind, FileKind::LogTemporary(_)));
    }
    let shape = Shape { active: Arc::new(replayed.memtable), frozen: Vec::new(), tables: Vec::new() };
    let inner = Inner {
        fs,
        dir: dir.to_owned(),
        hash_seed: options.hash_seed,
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
        background: background::Background::default(),
        cache: crate::table::Cache,
        next_file: AtomicU64::new(next_file + 1),
        counters: Default::default(),
        poison: OnceLock::new(),
        closed: AtomicBool::new(false),
        _lock: lock,
    };
    Ok((inner, recovery))
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

/// Replays logs into a memtable and copies their sound frames into a new log, durable before it is named.
#[allow(clippy::too_many_arguments)]
fn replay(
    fs: &dyn Fs,
    dir: &Path,
    options: &Options,
    fold: &dyn Fold,
    logs: Vec<FoundLog>,
    number: u64,
    sequence_first: u64,
    recovery: &mut Recovery,
) -> Result<Replayed, Error> {
    let mut contents: Vec<(FoundLog, LogContents)> = Vec::new();
    let sealed_lens: Vec<Option<u64>> =
        (0..logs.len()).map(|at| logs.get(at + 1).map(|next| next.header.previous_len)).collect();
    for (log, sealed_len) in logs.into_iter().zip(sealed_lens) {
        let read = read_frames(&log.bytes, &log.header, &log.path, sealed_len)?;
        recovery.logs_replayed += 1;
        recovery.replayed_bytes += read.end - HEADER_BYTES;
        recovery.dropped_tail_bytes += read.dropped_tail_bytes;
        contents.push((log, read));
    }
    let memtable = Memtable::new(number, sequence_first);
    let mut sequence_next = sequence_first;
    let frames_len: u64 =
        contents.iter().flat_map(|(_, read)| &read.frames).map(|frame| frame.header.frame_len()).sum();
    let temporary = names::log_temporary(dir, number);
    let file = fs.create(&temporary).map_err(|e| Error::io("create", &temporary, e))?;
    let durable_len = HEADER_BYTES + frames_len;
    file.allocate(options.log_file_bytes.max(durable_len))
        .map_err(|e| Error::io("allocate", &temporary, e))?;
    let header = LogHeader {
        number,
        salt: xxh3_64_with_seed(&number.to_le_bytes(), options.hash_seed),
        restart: true,
        previous: contents.last().map_or(0, |(log, _)| log.header.number),
        previous_len: contents.last().map_or(0, |(_, read)| read.end),
        durable_len,
    };
    let path = names::log(dir, number);
    let mut writer = LogWriter::unsynced(file, &path, &header)?;
    for (log, read) in contents {
        for frame in read.frames {
            let writes = frame.writes(&log.path)?;
            if frame.header.sequence_first < sequence_next {
                return Err(Error::corruption(&log.path, frame.offset, "a frame's sequence goes backwards"));
            }
            sequence_next = frame.header.sequence_first + writes.len() as u64;
            writer.append_payload(&frame.payload, frame.header.writes, frame.header.sequence_first)?;
            recovery.replayed_writes += writes.len() as u64;
            let ops = writes.iter().map(Vec::len).sum::<usize>();
            recovery.replayed_records += ops as u64;
            memtable.charge(frame.payload.len(), ops);
            for (key, fragment) in writes.into_iter().flatten() {
                memtable.insert(key, fragment, fold);
            }
        }
    }
    assert_eq!(writer.written(), durable_len, "frames keep their length when copied");
    writer.sync()?;
    fs.rename(&temporary, &path).map_err(|e| Error::io("rename", &temporary, e))?;
    fs.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))?;
    Ok(Replayed { memtable, writer, sequence_next })
}

impl Inner {
    /// Makes the next log: durable header, durable name, before any frame.
    pub(super) fn start_log(&self, previous: &LogWriter) -> Result<LogWriter, Error> {
        let number = self.new_file_number();
        let path = names::log(&self.dir, number);
        let file = self.fs.create(&path).map_err(|e| Error::io("create", &path, e))?;
        if let Err(error) = file.allocate(self.options.log_file_bytes) {
            let error = Error::io("allocate", &path, error);
            // An empty file does no harm; the next open removes it.
            let _ = self.fs.unlink(&path);
            return Err(error);
        }
        let header = LogHeader {
            number,
            salt: xxh3_64_with_seed(&number.to_le_bytes(), self.hash_seed),
            restart: false,
            previous: previous.number(),
            previous_len: previous.written(),
            durable_len: HEADER_BYTES,
        };
        // From here on a half-made log could vouch for a length of its predecessor that is soon outdated.
        let started = LogWriter::start(file, &path, &header).map_err(|error| self.poison(&error))?;
        self.fs.sync_dir(&self.dir).map_err(|e| self.poison(&Error::io("sync", &self.dir, e)))?;
        Ok(started)
    }
}
