//! Merganser's storage engine: an ordered, durable map of bytes, shaped for replicated state.
//!
//! In: keys, and records of a *head* (clock and metadata) and a *body* (value), both opaque. Out: the same
//! after any crash, folded where a key was written in fragments. Everything the operating system does goes
//! through one seam, [`fs::Fs`], with a real and a simulated side.
//!
//! Deliberately absent: rings, clocks and siblings (the crate does not know what a record means), networks,
//! async code, and retries of failed syncs.

mod cache;
mod compaction;
mod compress;
mod db;
mod encoding;
mod error;
mod fragment;
pub mod fs;
pub mod inspect;
mod key_span;
mod levels;
pub mod limits;
mod map_key;
mod memtable;
mod merge;
mod metrics;
mod names;
mod options;
mod record;
mod table;
mod wal;

pub use db::{
    Db, KeyRange, Page, PageRequest, Recovery, Scan, ScanHeads, Step, VerifyCursor, VerifyProgress,
};
pub use error::Error;
pub use key_span::KeySpan;
pub use metrics::Metrics;
pub use names::is_database_file;
pub use options::{Background, Options};
pub use record::{
    CommitSink, Durability, Fold, FoldError, Lookup, NewestWins, NoSink, Op, Record, Winner, Write,
};
pub use table::health::Damage;
