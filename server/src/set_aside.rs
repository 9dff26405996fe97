//! Setting a data directory's contents aside, so that a node whose disk may not be used again goes
//! on with an empty one.
//!
//! ```text
//!   dir/…  ─▶ dir/SETTING-ASIDE, synced ─▶ every entry into dir/set-aside-MILLIS/ ─▶ marker removed
//! ```
//!
//! Within the directory, because it may be a mount point. The marker makes it whole again after a
//! crash in between: [`finish`] goes on at the next start. Nothing is deleted; an operator does that.
//! In: the directory of storage, closed. Out: where its contents are now. Absent: why.

use rustix::fs::{Mode, OFlags};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const MARKER: &str = "SETTING-ASIDE";
const PREFIX: &str = "set-aside-";
/// The lock of whoever uses the directory now.
const LOCK: &str = "LOCK";

/// Sets the contents aside. Requires that no storage is open on `dir`.
pub(crate) fn set_aside(dir: &Path) -> io::Result<PathBuf> {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let place = format!("{PREFIX}{millis}");
    let mut marker = File::create(dir.join(MARKER))?;
    marker.write_all(place.as_bytes())?;
    marker.sync_all()?;
    sync_dir(dir)?;
    carry(dir, &place)
}

/// Goes on where a crash has interrupted; None if there is nothing to do.
pub(crate) fn finish(dir: &Path) -> io::Result<Option<PathBuf>> {
    let place = match fs::read_to_string(dir.join(MARKER)) {
        Ok(place) => place,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // Torn before its first sync: then nothing was moved yet, and any place will do.
    let is_ours = place.strip_prefix(PREFIX).is_some_and(|millis| millis.bytes().all(|b| b.is_ascii_digit()));
    if is_ours { carry(dir, &place).map(Some) } else { set_aside(dir).map(Some) }
}

fn carry(dir: &Path, place: &str) -> io::Result<PathBuf> {
    let aside = dir.join(place);
    match fs::create_dir(&aside) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let keep = name == MARKER || name == LOCK || name.to_string_lossy().starts_with(PREFIX);
        if !keep {
            fs::rename(dir.join(&name), aside.join(&name))?;
        }
    }
    sync_dir(&aside)?;
    sync_dir(dir)?;
    fs::remove_file(dir.join(MARKER))?;
    sync_dir(dir)?;
    Ok(aside)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    Ok(rustix::fs::fsync(dir)?)
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

    #[test]
    fn all_that_was_there_is_aside_and_an_earlier_aside_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("set-aside-1")).expect("made");
        for name in ["CURRENT", "00000001.wal", "LOCK"] {
            fs::write(dir.path().join(name), name).expect("written");
        }
        let aside = set_aside(dir.path()).expect("set aside");
        assert_eq!(names(&aside), ["00000001.wal", "CURRENT"]);
        assert_eq!(names(dir.path()).len(), 3, "{:?}", names(dir.path()));
        assert_eq!(finish(dir.path()).expect("nothing to do"), None);
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
}
