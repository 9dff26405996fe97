//! What can go wrong, told as decisions for the caller.
//!
//! In: failures of the file system seam and of our own decoders. Out: one cloneable enum (a group commit
//! tells the same failure to many waiters). Deliberately absent: "not found", which is a normal answer,
//! and any retry: corruption and failed syncs are never retried here.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::key_span::KeySpan;

/// Why an operation of the engine did not succeed.
///
/// Unless a variant says otherwise, no state was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The database was closed; open it again.
    #[error("the storage engine is closed")]
    NotOpen,
    /// Another process (or another handle) has this directory open.
    #[error("{dir} is in use by another process")]
    Locked {
        /// The directory that was asked for.
        dir: PathBuf,
    },
    /// The operating system refused an operation. Reads may be tried again.
    #[error("failed to {op} {file}: {source}")]
    Io {
        /// What was attempted: `open`, `read`, `write`, `sync` …
        op: &'static str,
        /// On which file or directory.
        file: PathBuf,
        /// The system's own words.
        source: Arc<io::Error>,
        /// The keys that were to be read, where that is known.
        keys: Option<Box<KeySpan>>,
    },
    /// Stored bytes are not those that were written. Never retried, never "not found": ask a replica.
    #[error("corruption in {file} at offset {offset}: {what}")]
    Corruption {
        /// The damaged file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What was expected.
        what: String,
        /// The keys whose state is hidden, where that is known.
        keys: Option<Box<KeySpan>>,
    },
    /// An earlier sync or log write failed, so what is durable is unknown. Stop the process and recover.
    #[error("the storage engine stopped after a failure: {cause}")]
    Poisoned {
        /// The failure that poisoned it.
        cause: String,
    },
    /// The disk is full. What was acknowledged is safe; try again when there is room.
    #[error("no space left for {file}")]
    NoSpace {
        /// The file that could not grow.
        file: PathBuf,
    },
    /// More bytes wait for the log than [`Options::queue_bytes_max`](crate::Options) allows. Slow down, retry.
    #[error("too many bytes are waiting to be written")]
    Overloaded,
    /// The file was written by a newer program.
    #[error("{file} has format version {found}; this program reads up to {supported}")]
    UnsupportedVersion {
        /// The file in question.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version known here.
        supported: u32,
    },
    /// A key, head, body or write is beyond what the formats hold. The caller's mistake.
    #[error("{what} of {len} bytes is larger than {max}")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its length.
        len: u64,
        /// The longest allowed.
        max: u64,
    },
    /// The caller's own [`Fold`](crate::Fold) could not join the fragments of a key. They are all kept;
    /// [`Db::get_fragments`](crate::Db::get_fragments) shows them.
    #[error("the fragments of a key could not be folded: {cause}")]
    Fold {
        /// The key.
        key: bytes::Bytes,
        /// The caller's reason.
        cause: String,
    },
}

impl Error {
    /// The keys that could not be read; what is beside them can be. `None` when nothing can be said, and for
    /// errors that stop everything.
    pub fn hidden_keys(&self) -> Option<KeySpan> {
        match self {
            Error::Corruption { keys, .. } | Error::Io { keys, .. } => keys.as_deref().cloned(),
            Error::Fold { key, .. } => Some(KeySpan::of_key(key)),
            _ => None,
        }
    }

    /// Says which keys an error hides, in place of what it said.
    pub(crate) fn hiding(mut self, span: KeySpan) -> Error {
        if let Error::Corruption { keys, .. } | Error::Io { keys, .. } = &mut self {
            *keys = Some(Box::new(span));
        }
        self
    }

    /// Wraps a failure of the file system, telling a full disk apart.
    pub(crate) fn io(op: &'static str, file: &Path, source: io::Error) -> Error {
        // A limit of the process (`ulimit -f`) is as full as a disk.
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge];
        if full.contains(&source.kind()) {
            return Error::NoSpace { file: file.to_owned() };
        }
        Error::Io { op, file: file.to_owned(), source: Arc::new(source), keys: None }
    }

    /// A failed sync: what is durable is unknown from here on.
    pub(crate) fn failed_sync(file: &Path, source: io::Error) -> Error {
        Error::Poisoned { cause: format!("failed to sync {}: {source}", file.display()) }
    }

    /// A failed write of something whose effect must be known: the same.
    pub(crate) fn failed_write(file: &Path, source: &io::Error) -> Error {
        Error::Poisoned { cause: format!("failed to write {}: {source}", file.display()) }
    }

    /// Names damage at a place.
    pub(crate) fn corruption(file: &Path, offset: u64, what: impl Into<String>) -> Error {
        Error::Corruption { file: file.to_owned(), offset, what: what.into(), keys: None }
    }
}
