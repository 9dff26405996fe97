//! The logs at the opening: which ones count, what they hold, and a fresh one to go on with.
//!
//! In: the log files of a directory. Out: a memtable, and a new log that holds the same and is durable under
//! its name before anything is served. Also starts every later log. Deliberately absent: tables and manifest.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Inner;
use super::commit::pack;
use super::recovery::Recovery;
use crate::error::Error;
use crate::fragment::Fragment;
use crate::fs::{self, File, Fs};
use crate::levels::Levels;
use crate::memtable::Memtable;
use crate::names::{self, FileKind};
use crate::options::Options;
use crate::record::Fold;
use crate::wal::format::{HEADER_BYTES, HeaderDamage, LogHeader, VERSION, looks_like_frame};
use crate::wal::reader::{LogContents, read_frames};
use crate::wal::writer::LogWriter;

/// A log on disk whose header was read.
pub(super) struct FoundLog {
    pub(super) path: PathBuf,
    pub(super) header: LogHeader,
    pub(super) bytes: Bytes,
}

/// What the logs held.
pub(super) struct Replayed {
    pub(super) memtable: Memtable,
    pub(super) writer: LogWriter,
    pub(super) sequence_next: u64,
}

/// Reads the logs that count, oldest first: the newest that was begun by a restart, which stands for all older ones,
/// and those after it; without one, all from `floor` on.
///
/// A file that was never started is no log: its rotation failed, or the power went. Each header names the log before
/// it, so a log that is missing, or whose header was lost after it was started, shows all the same.
pub(super) fn find_logs(
    fs: &dyn Fs,
    dir: &Path,
    files: &[FileKind],
    floor: u64,
) -> Result<Vec<FoundLog>, Error> {
    let mut numbers: Vec<u64> =
        files.iter().filter_map(|kind| if let FileKind::Log(n) = kind { Some(*n) } else { None }).collect();
    numbers.retain(|number| *number >= floor);
    numbers.sort_unstable_by_key(|number| std::cmp::Reverse(*number));
    let mut found: Vec<FoundLog> = Vec::new();
    for number in numbers {
        let path = names::log(dir, number);
        let bytes = read_whole(fs, &path)?;
        let Some(header) = started_header(&bytes, number, &path)? else { continue };
        let restart = header.restart;
        found.push(FoundLog { path, header, bytes });
        if restart {
            break;
        }
    }
    found.reverse();
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
pub(super) struct Replay<'a> {
    pub(super) fs: &'a dyn Fs,
    pub(super) dir: &'a Path,
    pub(super) options: &'a Options,
    pub(super) fold: &'a dyn Fold,
    pub(super) levels: &'a Levels,
    /// The new log's number.
    pub(super) log_number: u64,
    /// The number of a log that nobody needs, to be overwritten: writing to a file that was written before
    /// is cheaper to sync than filling a new one.
    pub(super) spare: Option<u64>,
}

impl Replay<'_> {
    /// Replays logs into a memtable and copies their sound frames into a new log, which is durable before it
    /// gets its name, and which from then on stands for all of them.
    ///
    /// A failed replay leaves the disk no fuller than it was.
    pub(super) fn run(&self, logs: Vec<FoundLog>, recovery: &mut Recovery) -> Result<Replayed, Error> {
        let contents = read_all(logs, recovery)?;
        self.copy(contents, recovery).inspect_err(|_| {
            // Gone already if nothing was made, or if the new log has its name.
            let _ = self.fs.unlink(&names::log_temporary(self.dir, self.log_number));
        })
    }

    fn copy(
        &self,
        contents: Vec<(FoundLog, LogContents)>,
        recovery: &mut Recovery,
    ) -> Result<Replayed, Error> {
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
        let file = match self.spare.map(|spare| names::log(dir, spare)) {
            Some(spare) => {
                self.fs.rename(&spare, &temporary).map_err(|e| Error::io("rename", &spare, e))?;
                self.fs.open(&temporary).map_err(|e| Error::io("open", &temporary, e))?
            }
            None => self.fs.create(&temporary).map_err(|e| Error::io("create", &temporary, e))?,
        };
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
        memtable.charge(frame_bytes);
        for (key, fragment) in writes.into_iter().flatten() {
            memtable.insert(key, fragment, self.fold, &mut |body| pack(self.options, body));
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
    /// Failing before the header is whole is harmless and reported as such. After that, a half-made log
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
        let mut started = LogWriter::unsynced(file, &path, &header).map_err(|error| match error {
            // A header that is not whole is none.
            Error::NoSpace { .. } => {
                self.discard(&path);
                error
            }
            other => self.poison(&other),
        })?;
        started.sync().map_err(|error| self.poison(&error))?;
        self.fs.sync_dir(&self.dir).map_err(|e| self.poison(&Error::failed_sync(&self.dir, e)))?;
        Ok(started)
    }

    /// A file with room for a log: a spare one under a new name, or a new one.
    fn log_file(&self, path: &Path) -> Result<Arc<dyn File>, Error> {
        let spare = self.spare_logs.lock().pop();
        if let Some(spare) = spare {
            // Opened before it is renamed: a file that cannot be opened keeps its old name, and its use as a spare.
            // Its old header and frames carry another number, so they count for nothing.
            let opened = self.fs.open(&spare).and_then(|file| self.fs.rename(&spare, path).map(|()| file));
            match opened {
                Ok(file) => return Ok(file),
                Err(error) => {
                    tracing::warn!(file = %spare.display(), %error, "could not reuse a log file");
                    self.spare_logs.lock().push(spare);
                }
            }
        }
        let file = self.fs.create(path).map_err(|e| Error::io("create", path, e))?;
        if let Err(error) = file.allocate(self.options.log_file_bytes) {
            // A file that stays all the same was never started: it counts for nothing, and the next open removes it.
            self.discard(path);
            return Err(Error::io("allocate", path, error));
        }
        Ok(file)
    }
}
