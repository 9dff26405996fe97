//! The database: one handle over log, memtables and tables.
//!
//! In: writes with tickets, keys, ranges. Out: completions through the sink, folded records, ordered walks.
//!
//! ```text
//!   submit ─► queue ─► commit: one write, one sync ─► memtable ─► sink
//!                                │ full: freeze, next log
//!                                ▼
//!                             flush ─► table ─► manifest ─► compaction
//!   get ─► memtables, newest first ─► tables, newest first ─► fold
//! ```
//!
//! Deliberately absent: transactions, snapshots of single keys in time, and any lock held across I/O that a
//! read would wait for.

mod background;
mod commit;
mod install;
mod page;
mod queue;
mod read;
mod recovery;
mod repair;
mod replay;
mod scan;
mod shape;

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::cache::Cache;
use crate::error::Error;
use crate::fs::{Fs, Lock};
use crate::key_span::KeySpan;
use crate::metrics::{Counters, Metrics};
use crate::options::{Background, Options};
use crate::record::{CommitSink, Durability, Fold, Lookup, Op, Record, Write};
use crate::table::health::{Damage, DamageNumbers};

pub use page::{Page, PageRequest};
pub use recovery::Recovery;
pub use repair::{VerifyCursor, VerifyProgress};
pub use scan::{Scan, ScanHeads};

use background::BackgroundState;
use commit::LogState;
use install::Ledger;
use queue::Queue;
use shape::Shape;

/// A range of keys, as bounds.
pub type KeyRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// One unit of background work, as [`Db::step`] did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There was nothing to do.
    Idle,
    /// One group commit with so many writes; they are visible and the sink was told.
    Committed {
        /// Writes completed, refused ones included.
        n: usize,
    },
    /// What was written under `Durability::Interval` is durable now.
    Synced,
    /// One memtable became a table.
    Flushed,
    /// Some tables became one.
    Compacted,
}

/// An open database. Clones share it; [`Db::close`] or dropping the last one stops it.
#[derive(Clone)]
pub struct Db {
    inner: Arc<Inner>,
    handle: Arc<Handle>,
}

/// What only handles own, so that threads can notice that no handle is left.
struct Handle {
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inner.stop();
        // Joined, so that the directory is unlocked when the last handle is gone; a sink may hold that one.
        let here = std::thread::current().id();
        for thread in self.threads.get_mut().drain(..).filter(|thread| thread.thread().id() != here) {
            let _ = thread.join();
        }
        self.inner.abandon_queue();
    }
}

struct Inner {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    options: Options,
    fold: Arc<dyn Fold>,
    sink: Arc<dyn CommitSink>,
    shape: RwLock<Arc<Shape>>,
    queue: Queue,
    log: Mutex<LogState>,
    background: BackgroundState,
    ledger: Mutex<Ledger>,
    /// Logs that are no longer needed and wait for reuse.
    spare_logs: Mutex<Vec<PathBuf>>,
    cache: Cache,
    damage_numbers: Arc<DamageNumbers>,
    hash_seed: u64,
    next_file: AtomicU64,
    counters: Counters,
    poison: OnceLock<String>,
    closed: AtomicBool,
    _lock: Box<dyn Lock>,
}

impl Db {
    /// Opens or makes a database in a directory of its own and recovers what was durable.
    ///
    /// Everything that recovery found is written anew and synced before this returns: what a failed sync
    /// left in the page cache is not believed.
    pub fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        options: Options,
        fold: Arc<dyn Fold>,
        sink: Arc<dyn CommitSink>,
    ) -> Result<(Db, Recovery), Error> {
        let (inner, recovery) = recovery::open(fs, dir, options, fold, sink)?;
        let inner = Arc::new(inner);
        let handle = Arc::new(Handle { inner: inner.clone(), threads: Mutex::default() });
        if let Background::Threads { compaction } = inner.options.background {
            let started = background::start_threads(&inner, compaction.max(1), &handle.threads);
            if let Err(error) = started {
                inner.stop();
                return Err(Error::io("start threads for", dir, error));
            }
        }
        Ok((Db { inner, handle }, recovery))
    }

    /// Hands over writes; each completes through the sink, in order of submission. Never waits for I/O.
    ///
    /// The sink is called from the log thread or from `step`; only after a close it is called from here.
    pub fn submit(&self, writes: Vec<Write>) {
        self.inner.submit(writes);
    }

    /// Writes and waits for completion: for start-up and tools. Works with threads and stepped. Not to be
    /// called from the sink or the fold, which run on the log thread.
    pub fn write(&self, ops: Vec<Op>, durability: Durability) -> Result<(), Error> {
        self.inner.write_and_wait(ops, durability)
    }

    /// Reads without ever waiting for the disk.
    pub fn try_get(&self, key: &[u8]) -> Result<Lookup, Error> {
        self.inner.try_get(key)
    }

    /// Reads the folded state of a key; may wait for the disk.
    pub fn get(&self, key: &[u8]) -> Result<Option<Record>, Error> {
        self.inner.get(key)
    }

    /// Reads the folded head of a key. Bodies are only read where several fragments must fold and the fold
    /// cannot do so by heads alone.
    pub fn get_head(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.inner.get_head(key)
    }

    /// Reads the folded head of a key without ever waiting for the disk.
    pub fn try_get_head(&self, key: &[u8]) -> Result<Lookup<Bytes>, Error> {
        self.inner.try_get_head(key)
    }

    /// The fragments of a key as they are, newest first, unfolded: for when a fold fails.
    pub fn get_fragments(&self, key: &[u8]) -> Result<Vec<Record>, Error> {
        self.inner.get_fragments(key)
    }

    /// Walks a range in order of keys, folded. Tables are pinned as they are now; a key written meanwhile is
    /// seen in its old or in a newer state.
    pub fn scan(&self, range: KeyRange) -> Scan {
        Scan::new(self.inner.clone(), range)
    }

    /// As [`Db::scan`], but only heads; bodies stored apart are not touched.
    pub fn scan_heads(&self, range: KeyRange) -> ScanHeads {
        ScanHeads::new(self.inner.clone(), range)
    }

    /// What is known to be damaged: found by reads, scans, compactions or [`Db::verify_some`] since the open, and
    /// neither given up nor written anew. Such tables are left out of compactions.
    pub fn damaged(&self) -> Vec<Damage> {
        self.inner.damaged()
    }

    /// The number of the damage that was found last; 0 before any.
    pub fn damage_seen(&self) -> u64 {
        self.inner.damage_numbers.last()
    }

    /// Gives up, durably, the damaged pieces of `keys` that were found up to the number `seen`, so that reads and
    /// compactions go past them. Says how many pieces that were.
    ///
    /// What was given up could have hidden anything older, a state by a newer one or by a remove. So it goes on
    /// hiding: of a key that the damaged table may have held, older fragments count no more.
    ///
    /// The caller first takes the number from [`Db::damage_seen`], then writes the complete state of every key
    /// in `keys` anew, from other copies, with [`Op::Put`], durably; then it calls this with that number. Damage
    /// that was found later could be in a newer table and hide what was written since: it is left for another round.
    pub fn excise(&self, keys: &KeySpan, seen: u64) -> Result<usize, Error> {
        self.inner.excise(keys, seen)
    }

    /// Reads about `budget_bytes` of tables on from a cursor, only to find damage, past the cache. To be called
    /// again and again at whatever pace the caller likes, from a thread that may block.
    pub fn verify_some(&self, cursor: VerifyCursor, budget_bytes: u64) -> Result<VerifyProgress, Error> {
        self.inner.verify_some(cursor, budget_bytes)
    }

    /// Makes everything committed so far part of a table, and waits for that.
    pub fn flush(&self) -> Result<(), Error> {
        self.inner.flush()
    }

    /// Flushes and merges all tables into one, and waits for that. Damaged tables stay apart, and part others.
    pub fn compact_all(&self) -> Result<(), Error> {
        self.inner.compact_all()
    }

    /// Commits what was submitted, syncs, seals the log and stops all threads. Other handles then answer
    /// `Error::NotOpen`. Not to be called from the sink, whose thread this waits for.
    pub fn close(self) -> Result<(), Error> {
        self.inner.check_usable()?;
        self.inner.stop();
        let threads = std::mem::take(&mut *self.handle.threads.lock());
        for thread in threads {
            // A thread that panicked has poisoned the database; the seal tells.
            let _ = thread.join();
        }
        self.inner.seal()
    }

    /// Does one unit of background work, in an order that depends only on what was submitted.
    ///
    /// # Panics
    /// With `Background::Threads`, where threads do this.
    pub fn step(&self) -> Step {
        assert_eq!(self.inner.options.background, Background::Stepped, "step() is for stepped databases");
        self.inner.step()
    }

    /// Writes that wait for a commit.
    pub fn pending_commit(&self) -> usize {
        self.inner.queue.len()
    }

    /// How far the engine is behind, from 0 to 1; near 1, writes are slowed and then refused.
    pub fn pressure(&self) -> f32 {
        self.inner.pressure()
    }

    /// Counters and sizes.
    pub fn metrics(&self) -> Metrics {
        self.inner.metrics()
    }

    /// The directory this was opened in.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }
}

impl Inner {
    fn shape(&self) -> Arc<Shape> {
        self.shape.read().clone()
    }

    fn new_file_number(&self) -> u64 {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    fn stop(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.queue.wake();
        self.background.wake();
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Marks the database as unusable. The first cause stays.
    fn poison(&self, cause: &Error) -> Error {
        let text = self.poison.get_or_init(|| {
            tracing::error!(dir = %self.dir.display(), %cause, "storage poisoned");
            cause.to_string()
        });
        self.queue.wake();
        self.background.wake();
        Error::Poisoned { cause: text.clone() }
    }

    fn check_poison(&self) -> Result<(), Error> {
        match self.poison.get() {
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    fn check_usable(&self) -> Result<(), Error> {
        self.check_poison()?;
        if self.is_closed() { Err(Error::NotOpen) } else { Ok(()) }
    }

    fn pressure(&self) -> f32 {
        self.debt().max(share(self.queue.bytes(), self.options.queue_bytes_max)).clamp(0.0, 1.0)
    }

    /// How much work in the background is outstanding. (A full queue is none: slowing the log would grow it.)
    fn debt(&self) -> f32 {
        let shape = self.shape();
        let runs_soft = self.options.runs_max / 2;
        let runs = shape.tables.len().saturating_sub(runs_soft);
        share(shape.frozen.len(), self.options.memtables_frozen_max)
            .max(share(runs, self.options.runs_max - runs_soft))
    }

    fn metrics(&self) -> Metrics {
        let shape = self.shape();
        let mut metrics = self.counters.snapshot();
        metrics.memtable_bytes = shape.active.bytes() as u64;
        metrics.memtables_frozen = shape.frozen.len() as u64;
        metrics.tables = shape.tables.len() as u64;
        metrics.table_bytes = shape.table_bytes();
        metrics.queue_bytes = self.queue.bytes() as u64;
        metrics.damaged_pieces = shape.tables.iter().map(|table| table.health().damage().len() as u64).sum();
        metrics.background_error = self.background.last_error();
        self.cache.report(&mut metrics);
        metrics
    }
}

fn share(part: usize, whole: usize) -> f32 {
    part as f32 / whole.max(1) as f32
}
