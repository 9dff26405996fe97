//! Setting a data directory's contents aside, so that a node whose disk may not be used again goes
//! on with an empty one.
//!
//! ```text
//!   allowed? ─▶ dir/SETTING-ASIDE, synced ─▶ the database's files into dir/set-aside-MILLIS/ ─▶ marker removed
//! ```
//!
//! Within the directory, because it may be a mount point. Only files of the database are moved: what else lies there
//! (`lost+found`, snapshots, an operator's notes) stays. The marker makes the move whole after a crash in between: [`finish`]
//! goes on at the next start. Nothing is deleted; an operator does that.
//!
//! A node that sets its disk aside again and again is one that something is wrong with, and each time costs what is only on this disk:
//! [`MOST_IN_A_DAY`] a day, [`SPACING`] apart, and only where the file system has room for as much again. Beyond, the node stops
//! and asks for an operator. In: the directory of storage, closed. Out: where its contents are now, or why they stay.
//! Absent: why the disk may not be used.

use crate::owner::{self, sync_dir};
use merganser_storage::is_database_file;
use rustix::fs::FallocateFlags;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MARKER: &str = "SETTING-ASIDE";
const PREFIX: &str = "set-aside-";
/// Directories set aside within a day, by themselves.
const MOST_IN_A_DAY: usize = 3;
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Between two of them.
const SPACING: Duration = Duration::from_secs(60);
const BLOCK_BYTES: u64 = 4096;

/// Why a directory's contents were not set aside, or not all of them.
#[derive(Debug, thiserror::Error)]
pub enum NotSetAside {
    /// It was done too often already.
    #[error(
        "it was set aside {count} times within a day, the last time {last_s} s ago ({MOST_IN_A_DAY} a day are allowed, a minute \
        apart); find out why before you move the contents of the directory away by hand: two nodes of one name, or a \
        directory that is restored again and again?"
    )]
    TooOften {
        /// Within a day.
        count: usize,
        /// How long ago.
        last_s: u64,
    },
    /// The peers could not fill an empty directory beside what is set aside.
    #[error(
        "its {bytes} bytes would stay beside as many that the peers send, and {free_bytes} are free; move the contents of the \
        directory to another disk by hand and start the node again"
    )]
    NoRoom {
        /// Of the database.
        bytes: u64,
        /// On its file system.
        free_bytes: u64,
    },
    /// An entry stays where it is; the next start goes on from there.
    #[error("{} cannot be moved: {source}; make that possible and start the node again", path.display())]
    Entry {
        /// Which.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

/// Sets the contents aside. Requires that no storage is open on `dir`.
pub(crate) fn set_aside(dir: &Path) -> Result<PathBuf, NotSetAside> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    set_aside_at(dir, now, free_bytes(dir))
}

fn set_aside_at(dir: &Path, now: Duration, free_bytes: Option<u64>) -> Result<PathBuf, NotSetAside> {
    let earlier = earlier(dir).map_err(of(dir))?;
    let within_a_day: Vec<Duration> =
        earlier.into_iter().filter(|at| now.saturating_sub(*at) < DAY).collect();
    if let Some(last) = within_a_day.iter().max() {
        let (count, since) = (within_a_day.len(), now.saturating_sub(*last));
        if count >= MOST_IN_A_DAY || since < SPACING {
            return Err(NotSetAside::TooOften { count, last_s: since.as_secs() });
        }
    }
    for name in database_files(dir).map_err(of(dir))? {
        let path = dir.join(&name);
        if name.ends_with(".wal") {
            // Its file system may not be able to: then the zeros stay.
            let _ = give_back_zeros(&path);
        }
    }
    let bytes = database_files(dir)
        .and_then(|names| {
            names.iter().map(|name| Ok(fs::metadata(dir.join(name))?.blocks() * 512)).sum::<io::Result<u64>>()
        })
        .map_err(of(dir))?;
    if let Some(free_bytes) = free_bytes.filter(|free| *free < bytes) {
        return Err(NotSetAside::NoRoom { bytes, free_bytes });
    }
    let place = format!("{PREFIX}{}", now.as_millis());
    let marker = dir.join(MARKER);
    let write = || {
        let mut file = File::create(&marker)?;
        file.write_all(place.as_bytes())?;
        file.sync_all()?;
        sync_dir(dir)
    };
    write().map_err(of(&marker))?;
    carry(dir, &place)
}

/// Goes on where a crash has interrupted; None if there is nothing to do.
pub(crate) fn finish(dir: &Path) -> Result<Option<PathBuf>, NotSetAside> {
    let marker = dir.join(MARKER);
    let place = match fs::read_to_string(&marker) {
        Ok(place) => place,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(of(&marker)(error)),
    };
    // Torn before its first sync: then nothing was moved yet, and any place will do.
    let is_ours = place.strip_prefix(PREFIX).is_some_and(|millis| millis.bytes().all(|b| b.is_ascii_digit()));
    if is_ours { carry(dir, &place).map(Some) } else { set_aside(dir).map(Some) }
}

fn carry(dir: &Path, place: &str) -> Result<PathBuf, NotSetAside> {
    let aside = dir.join(place);
    match fs::create_dir(&aside) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(of(&aside)(error)),
        _ => {}
    }
    for name in database_files(dir).map_err(of(dir))? {
        let from = dir.join(&name);
        fs::rename(&from, aside.join(&name)).map_err(of(&from))?;
    }
    let marker = dir.join(MARKER);
    sync_dir(&aside).map_err(of(&aside))?;
    sync_dir(dir).map_err(of(dir))?;
    fs::remove_file(&marker).map_err(of(&marker))?;
    sync_dir(dir).map_err(of(dir))?;
    Ok(aside)
}

fn of(path: &Path) -> impl FnOnce(io::Error) -> NotSetAside {
    let path = path.to_owned();
    move |source| NotSetAside::Entry { path, source }
}

/// The names in `dir` that are the database's, or speak of it.
fn database_files(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if is_database_file(&name) || name == owner::FILE || name == owner::TEMPORARY {
            names.push(name);
        }
    }
    Ok(names)
}

/// When something was set aside here, since the Unix epoch.
fn earlier(dir: &Path) -> io::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let millis = name.strip_prefix(PREFIX).and_then(|millis| millis.parse().ok());
        times.extend(millis.map(Duration::from_millis));
    }
    Ok(times)
}

/// None where the file system does not say.
fn free_bytes(dir: &Path) -> Option<u64> {
    rustix::fs::statvfs(dir).ok().map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// A log has room for what was never written: the zeros at its end, which go on being read as zeros.
fn give_back_zeros(path: &Path) -> io::Result<()> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let bytes = file.metadata()?.len();
    let mut end = bytes;
    let mut block = vec![0; 1 << 20];
    while end > 0 {
        let from = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - from) as usize];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(part)?;
        if let Some(last) = part.iter().rposition(|byte| *byte != 0) {
            end = (from + last as u64 + 1).next_multiple_of(BLOCK_BYTES);
            break;
        }
        end = from;
    }
    if end < bytes {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, flags, end, bytes - end)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_databases_files_are_aside_and_everything_else_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["set-aside-1", "lost+found", ".snapshot"] {
            fs::create_dir(dir.path().join(name)).expect("made");
        }
        for name in
            ["CURRENT", "00000001.wal", "00000002.wal.tmp", "MANIFEST-00000003", "OWNER", "LOCK", "README"]
        {
            fs::write(dir.path().join(name), name).expect("written");
        }
        let aside = set_aside(dir.path()).expect("set aside");
        assert_eq!(
            names(&aside),
            ["00000001.wal", "00000002.wal.tmp", "CURRENT", "MANIFEST-00000003", "OWNER"]
        );
        let mut left = names(dir.path());
        left.retain(|name| dir.path().join(name) != aside);
        assert_eq!(left, [".snapshot", "LOCK", "README", "lost+found", "set-aside-1"]);
        assert!(finish(dir.path()).expect("nothing to do").is_none());
    }

    #[test]
    fn what_a_crash_interrupted_is_finished_at_the_next_start() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join(MARKER), "set-aside-7").expect("written");
        fs::create_dir(dir.path().join("set-aside-7")).expect("made");
        fs::write(dir.path().join("set-aside-7").join("CURRENT"), "moved").expect("written");
        fs::write(dir.path().join("00000001.sst"), "not moved").expect("written");
        let aside = finish(dir.path()).expect("finished").expect("there was something to do");
        assert_eq!(names(&aside), ["00000001.sst", "CURRENT"]);
        assert_eq!(names(dir.path()), ["set-aside-7"]);
        fs::write(dir.path().join(MARKER), "").expect("written");
        fs::write(dir.path().join("00000002.sst"), "torn marker").expect("written");
        assert!(finish(dir.path()).expect("finished").is_some_and(|aside| names(&aside) == ["00000002.sst"]));
    }

    #[test]
    fn a_disk_is_set_aside_three_times_a_day_and_once_a_minute_and_then_no_more() {
        let dir = tempfile::tempdir().expect("a directory");
        let begin = seconds(1_800_000_000);
        let attempt = |after_s| {
            fs::write(dir.path().join("00000001.sst"), "data").expect("written");
            set_aside_at(dir.path(), begin + seconds(after_s), None)
        };
        let too_often = |result: Result<PathBuf, NotSetAside>| match result {
            Err(NotSetAside::TooOften { count, .. }) => {
                assert!(names(dir.path()).contains(&"00000001.sst".to_owned()), "nothing was moved");
                count
            }
            other => panic!("{other:?}"),
        };
        attempt(0).expect("the first");
        assert_eq!(too_often(attempt(30)), 1);
        attempt(61).expect("the second");
        attempt(130).expect("the third");
        assert_eq!(too_often(attempt(3_600)), 3);
        attempt(86_401).expect("a day after the first");
        assert!(names(dir.path()).iter().all(|name| name.starts_with(PREFIX)));
    }

    #[test]
    fn a_disk_is_not_set_aside_where_the_peers_could_not_fill_another() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("00000001.sst"), vec![1; 100_000]).expect("written");
        let refused = set_aside_at(dir.path(), seconds(1_800_000_000), Some(50_000)).expect_err("no room");
        assert!(matches!(refused, NotSetAside::NoRoom { bytes, .. } if bytes >= 100_000), "{refused}");
        assert_eq!(names(dir.path()), ["00000001.sst"]);
    }

    #[test]
    fn a_log_keeps_its_bytes_and_gives_back_the_room_for_what_was_never_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("00000001.wal");
        let mut content = vec![0; 16 << 20];
        content[..5_000].fill(7);
        fs::write(&path, &content).expect("written");
        File::open(&path).and_then(|file| file.sync_all()).expect("synced");
        let before = fs::metadata(&path).expect("there").blocks();
        let aside = set_aside_at(dir.path(), seconds(1_800_000_000), None).expect("set aside");
        let after = fs::metadata(aside.join("00000001.wal")).expect("there").blocks();
        assert!(after * 512 <= 64 << 10 || after == before, "{before} blocks before, {after} after");
        assert_eq!(fs::read(aside.join("00000001.wal")).expect("read"), content);
    }

    #[test]
    fn an_entry_that_cannot_be_moved_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("00000001.sst")).expect("made");
        fs::write(dir.path().join("set-aside-7"), "no directory").expect("written");
        fs::write(dir.path().join(MARKER), "set-aside-7").expect("written");
        let error = finish(dir.path()).expect_err("there is no place").to_string();
        assert!(error.contains("00000001.sst"), "{error}");
    }
}
