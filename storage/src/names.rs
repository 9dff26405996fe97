//! The names of the files in a database directory.
//!
//! In: numbers. Out: paths, and numbers again from names found on disk. All files share one sequence of
//! numbers, so no name is used twice. Deliberately absent: what is in the files.

use std::path::{Path, PathBuf};

pub(crate) const LOCK: &str = "LOCK";
pub(crate) const CURRENT: &str = "CURRENT";
pub(crate) const CURRENT_TEMPORARY: &str = "CURRENT.tmp";

/// What a name says a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// A write-ahead log.
    Log(u64),
    /// A log that was being written by an open that did not finish.
    LogTemporary(u64),
    /// A sorted table.
    Table(u64),
    /// A manifest.
    Manifest(u64),
    /// The pointer to the manifest in use.
    Current,
}

impl FileKind {
    /// The number in the name, 0 for the one file without.
    pub(crate) fn number(&self) -> u64 {
        match self {
            FileKind::Log(n) | FileKind::LogTemporary(n) | FileKind::Table(n) | FileKind::Manifest(n) => *n,
            FileKind::Current => 0,
        }
    }
}

/// Reads a name; `None` for files that are not ours to touch.
pub(crate) fn file_kind(name: &str) -> Option<FileKind> {
    if name == CURRENT {
        return Some(FileKind::Current);
    }
    let number = |digits: &str| {
        let plain = digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    };
    let (stem, kind): (&str, fn(u64) -> FileKind) = if let Some(stem) = name.strip_suffix(".wal") {
        (stem, FileKind::Log)
    } else if let Some(stem) = name.strip_suffix(".wal.tmp") {
        (stem, FileKind::LogTemporary)
    } else if let Some(stem) = name.strip_suffix(".sst") {
        (stem, FileKind::Table)
    } else if let Some(stem) = name.strip_prefix("MANIFEST-") {
        (stem, FileKind::Manifest)
    } else {
        return None;
    };
    number(stem).map(kind)
}

/// Whether a name in a database directory is one that a database gives its files; the lock apart, which is the
/// directory's.
pub fn is_database_file(name: &str) -> bool {
    name == CURRENT_TEMPORARY || file_kind(name).is_some()
}

pub(crate) fn log(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.wal"))
}

pub(crate) fn log_temporary(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.wal.tmp"))
}

pub(crate) fn table(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.sst"))
}

pub(crate) fn manifest_name(number: u64) -> String {
    format!("MANIFEST-{number:08}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_are() {
        for (name, expected) in [
            ("00000007.wal", Some(FileKind::Log(7))),
            ("123456789.sst", Some(FileKind::Table(123_456_789))),
            ("MANIFEST-00000002", Some(FileKind::Manifest(2))),
            ("00000007.wal.tmp", Some(FileKind::LogTemporary(7))),
            ("CURRENT", Some(FileKind::Current)),
            ("notes.wal", None),
            ("7.wal", None),
            ("+0000007.wal", None),
        ] {
            assert_eq!(file_kind(name), expected, "{name}");
            assert_eq!(is_database_file(name), expected.is_some(), "{name}");
        }
        assert!(is_database_file("CURRENT.tmp"));
        assert!(!is_database_file("LOCK") && !is_database_file("lost+found"));
    }
}
