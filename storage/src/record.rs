//! What is stored under a key, what may be done to it, and how fragments of it join.
//!
//! In and out: the public vocabulary of the engine. Heads and bodies are opaque bytes: what a clock or a
//! value is, only the caller knows. Deliberately absent: any notion of causality or of conflict.

use bytes::Bytes;

/// The stored state of a key, or a fragment of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Causal clock and metadata; can be read without the body.
    pub head: Bytes,
    /// The value's bytes; may live apart from the head on disk.
    pub body: Bytes,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// The complete state: hides everything older of this key.
    Put {
        /// The key.
        key: Bytes,
        /// Its whole state.
        record: Record,
    },
    /// A fragment: folds with the older ones on read, flush and compaction.
    Merge {
        /// The key.
        key: Bytes,
        /// The fragment.
        record: Record,
    },
    /// Hides everything older; dropped once nothing older can exist.
    Remove {
        /// The key.
        key: Bytes,
    },
}

impl Op {
    /// The key that this changes.
    pub fn key(&self) -> &Bytes {
        match self {
            Op::Put { key, .. } | Op::Merge { key, .. } | Op::Remove { key } => key,
        }
    }

    /// Bytes of key, head and body together.
    pub fn size_bytes(&self) -> usize {
        match self {
            Op::Put { key, record } | Op::Merge { key, record } => {
                key.len() + record.head.len() + record.body.len()
            }
            Op::Remove { key } => key.len(),
        }
    }
}

/// When a write counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Synced to the device before completion.
    #[default]
    Sync,
    /// Handed to the operating system now, synced at latest after `Options::sync_interval`.
    Interval,
    /// Handed to the operating system; synced whenever something else is.
    None,
}

/// Changes that are applied all or none, also across a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Chosen by the caller; comes back through [`CommitSink::committed`].
    pub ticket: u64,
    /// The changes, applied in order.
    pub ops: Vec<Op>,
    /// When it counts as done.
    pub durability: Durability,
}

/// Why fragments could not be joined. They are kept as they are.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct FoldError(pub String);

/// The one of two fragments that alone is the state of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Winner {
    /// That written later.
    Newer,
    /// That written earlier.
    Older,
}

/// How the fragments of a key become one record. Supplied by the caller.
///
/// Must be a pure function and associative over adjacent fragments: `fold([a, b, c])` equals
/// `fold([a, fold([b, c])])`, because flushes and compactions fold whatever part of a history they see.
pub trait Fold: Send + Sync {
    /// Joins two or more fragments, given newest first.
    fn fold(&self, key: &[u8], fragments_newest_first: &[Record]) -> Result<Record, FoldError>;

    /// Joins only the heads, where that can be done without bodies; `None` means that bodies are needed.
    fn fold_heads(&self, _key: &[u8], _heads_newest_first: &[Bytes]) -> Option<Bytes> {
        None
    }

    /// Which of two fragments alone is the state that both make, where their heads tell: then no other body is read,
    /// and nothing is folded. `None`: neither, or the heads do not tell.
    fn wins(&self, _key: &[u8], _newer_head: &Bytes, _older_head: &Bytes) -> Option<Winner> {
        None
    }

    /// Joins two small fragments that have no body, at once while the newer one is written: for counters and the
    /// like, where a fold costs less than keeping both. `None` keeps both for later. On the path of every small
    /// merge, so it must be quick to decline.
    fn fold_at_once(&self, _key: &[u8], _newer_head: &Bytes, _older_head: &Bytes) -> Option<Bytes> {
        None
    }
}

/// The simplest fold: the newest fragment is the state.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewestWins;

impl Fold for NewestWins {
    fn fold(&self, _key: &[u8], fragments_newest_first: &[Record]) -> Result<Record, FoldError> {
        fragments_newest_first.first().cloned().ok_or_else(|| FoldError("no fragments".into()))
    }

    fn fold_heads(&self, _key: &[u8], heads_newest_first: &[Bytes]) -> Option<Bytes> {
        heads_newest_first.first().cloned()
    }
}

/// Hears of completed writes.
pub trait CommitSink: Send + Sync {
    /// Called once per group commit, from the log thread (or from `step()`), with the tickets in the order
    /// of submission. Writes that are refused at the door (`Overloaded`, `TooLarge`) may complete earlier. On an error none of these writes is visible; whether it survives a crash is unknown
    /// only for [`Error::Poisoned`](crate::Error::Poisoned).
    fn committed(&self, tickets: &[u64], result: Result<(), crate::Error>);
}

/// A sink for callers that only use [`Db::write`](crate::Db::write).
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSink;

impl CommitSink for NoSink {
    fn committed(&self, _tickets: &[u64], _result: Result<(), crate::Error>) {}
}

/// What a read that never waits for the disk found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup<T = Record> {
    /// The folded state, or its head.
    Found(T),
    /// The key has no state.
    Missing,
    /// The disk would have to be asked; use [`Db::get`](crate::Db::get) from a thread that may block.
    WouldBlock,
}
