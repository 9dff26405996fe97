//! Between core's effects and the storage engine.
//!
//! ```text
//!   driver ── submit ─────────▶ Db ── committed, from the log thread ──▶ one input for the driver
//!   driver ── try_get, inline ─▶ Db
//!   driver ── read, if that would wait ─▶ pool of threads ── get ─▶ Db ──▶ an input
//!   driver ── scan, excise ───▶ one thread ── page ─▶ Db ──▶ an input
//! ```
//!
//! Without threads (tests, on simulated disks) what they would do is done at once instead, and
//! [`work_off`] does the engine's own work.
//!
//! In: core's writes and keys. Out: core's events. Absent: any knowledge of what a record holds;
//! core's fold is handed through.

use crate::config;
use crate::driver::{Door, Input};
use crate::niceness;
use bytes::Bytes;
use merganser_core::event::{self, StorageFailure};
use merganser_core::id::Ticket;
use merganser_storage::{
    Background, CommitSink, Db, Durability, Error, Fold, FoldError, KeySpan, Lookup, Op, Options,
    PageRequest, Record, Step, Write,
};
use parking_lot::Mutex;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// Reads that may wait for the disk before further ones are refused.
const READS_WAITING_MAX: usize = 4096;
/// Pages of ranges that may wait; core asks for few at a time.
const SCANS_WAITING_MAX: usize = 64;

/// Where the engine has no threads: how often what was submitted is worked off, in the runtime's
/// time. A simulated disk takes so long.
const WORK_PERIOD: Duration = Duration::from_millis(1);

/// Of a node whose disk has threads.
pub(crate) fn threads(config: &config::Storage) -> Background {
    Background::Threads { compaction: config.compaction_threads as usize }
}

pub(crate) fn options(config: &config::Storage, background: Background) -> Options {
    let mb = |mb: u64| mb << 20;
    Options {
        background,
        begin_thread: niceness::yield_to_others,
        memtable_bytes: mb(config.memtable_mb) as usize,
        cache_bytes: mb(config.cache_mb),
        log_file_bytes: mb(config.log_file_mb),
        sync_interval: Duration::from_millis(config.sync_interval_ms),
        ..Options::default()
    }
}

/// Core's fold behind storage's seam.
pub(crate) struct CoreFold;

impl Fold for CoreFold {
    fn fold(&self, key: &[u8], fragments_newest_first: &[Record]) -> Result<Record, FoldError> {
        let fragments: Vec<_> = fragments_newest_first.iter().cloned().map(to_core).collect();
        let folded = merganser_core::fold::fold(key, &fragments);
        folded.map(from_core).map_err(|error| FoldError(error.to_string()))
    }

    fn fold_at_once(&self, key: &[u8], newer_head: &Bytes, older_head: &Bytes) -> Option<Bytes> {
        merganser_core::fold::fold_at_once(key, newer_head, older_head)
    }
}

/// Tells the driver of each group commit: one input.
pub(crate) struct Commits(pub(crate) Door);

impl CommitSink for Commits {
    fn committed(&self, tickets: &[u64], result: Result<(), Error>) {
        let tickets = tickets.iter().map(|ticket| Ticket(*ticket)).collect();
        let poisoned = match &result {
            Err(error @ (Error::Poisoned { .. } | Error::NotOpen)) => Some(error.clone()),
            _ => None,
        };
        self.0.put(Input::Committed { tickets, result: result.map_err(|error| failure(&error)) });
        if let Some(error) = poisoned {
            self.0.put(Input::StorageStopped(error));
        }
    }
}

/// What a storage error means to core. A full disk may have room again, so it counts as overload.
pub(crate) fn failure(error: &Error) -> StorageFailure {
    match error {
        Error::Corruption { .. } | Error::Fold { .. } | Error::UnsupportedVersion { .. } => {
            StorageFailure::Corrupt(error.to_string())
        }
        Error::Overloaded | Error::NoSpace { .. } => StorageFailure::Overloaded,
        _ => StorageFailure::Failed(error.to_string()),
    }
}

pub(crate) fn write(ticket: Ticket, ops: Vec<event::WriteOp>, durability: event::Durability) -> Write {
    let durability = match durability {
        event::Durability::Sync => Durability::Sync,
        event::Durability::Interval => Durability::Interval,
        event::Durability::None => Durability::None,
    };
    Write { ticket: ticket.0, ops: ops.into_iter().map(op).collect(), durability }
}

pub(crate) fn op(op: event::WriteOp) -> Op {
    match op {
        event::WriteOp::Put { key, record } => Op::Put { key, record: from_core(record) },
        event::WriteOp::Merge { key, record } => Op::Merge { key, record: from_core(record) },
        event::WriteOp::Remove { key } => Op::Remove { key },
    }
}

fn from_core(record: event::Record) -> Record {
    Record { head: record.head, body: record.body }
}

pub(crate) fn to_core(record: Record) -> event::Record {
    event::Record { head: record.head, body: record.body }
}

fn page(page: merganser_storage::Page) -> event::ScanPage {
    let entries = page.entries.into_iter().map(|(key, record)| (key, to_core(record))).collect();
    event::ScanPage { entries, next: page.next, damaged: page.damaged, damage_seen: page.damage_seen }
}

/// What a read without waiting found; None where it would have to wait.
pub(crate) fn try_get(db: &Db, key: &Bytes) -> Option<Result<Option<event::Record>, StorageFailure>> {
    match db.try_get(key) {
        Ok(Lookup::Found(record)) => Some(Ok(Some(to_core(record)))),
        Ok(Lookup::Missing) => Some(Ok(None)),
        Ok(Lookup::WouldBlock) => None,
        Err(error) => Some(Err(failure(&error))),
    }
}

/// Does the engine's work where it has no threads, for as long as it is polled.
pub(crate) async fn work_off(db: Db) {
    loop {
        tokio::time::sleep(WORK_PERIOD).await;
        while db.step() != Step::Idle {}
    }
}

fn read(db: &Db, door: &Door, ticket: Ticket, key: &Bytes) {
    let result = db.get(key).map(|found| found.map(to_core)).map_err(|error| failure(&error));
    door.put(Input::ReadDone { ticket, result });
}

/// What the thread for ranges does.
enum ScanJob {
    Page(Ticket, PageRequest),
    Excise(KeySpan, u64),
}

impl ScanJob {
    fn run(self, db: &Db, door: &Door) {
        match self {
            ScanJob::Page(ticket, request) => {
                let result = db.page(&request).map(page).map_err(|error| failure(&error));
                door.put(Input::ScanDone { ticket, result });
            }
            ScanJob::Excise(keys, seen) => match db.excise(&keys, seen) {
                Ok(pieces) => {
                    let (from, to) = (keys.from.escape_ascii(), keys.to.escape_ascii());
                    tracing::info!(%from, %to, pieces, "damage_repaired");
                }
                Err(error) => tracing::warn!(%error, "damage stays although it was repaired"),
            },
        }
    }
}

/// Threads for reads that wait for the disk. Dropping it waits for them: each holds the database,
/// whose directory must be free for the next start once this node has stopped.
/// Scans have one thread of their own, so that no read waits for them.
pub(crate) enum Readers {
    /// See above.
    Threads(Threads),
    /// Everything is done at once.
    Inline { db: Db, door: Door },
}

/// See [`Readers`].
pub(crate) struct Threads {
    queue: Option<mpsc::SyncSender<(Ticket, Bytes)>>,
    scans: Option<mpsc::SyncSender<ScanJob>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    pub(crate) fn start(threads: u32, db: &Db, door: &Door) -> std::io::Result<Readers> {
        let (queue, waiting) = mpsc::sync_channel::<(Ticket, Bytes)>(READS_WAITING_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        let (scans, waiting_scans) = mpsc::sync_channel::<ScanJob>(SCANS_WAITING_MAX);
        let mut readers = Threads { queue: Some(queue), scans: Some(scans), threads: Vec::new() };
        let (scanned, scans_door) = (db.clone(), door.clone());
        let thread = std::thread::Builder::new().name("scan".into()).spawn(move || {
            niceness::yield_to_others();
            for job in waiting_scans {
                job.run(&scanned, &scans_door);
            }
        })?;
        readers.threads.push(thread);
        for number in 0..threads {
            let (waiting, db, door) = (Arc::clone(&waiting), db.clone(), door.clone());
            let thread = std::thread::Builder::new().name(format!("read-{number}")).spawn(move || {
                loop {
                    let next = waiting.lock().recv();
                    let Ok((ticket, key)) = next else { return };
                    read(&db, &door, ticket, &key);
                }
            })?;
            readers.threads.push(thread);
        }
        Ok(Readers::Threads(readers))
    }

    /// False: too many wait already.
    #[must_use]
    pub(crate) fn scan(&self, ticket: Ticket, request: PageRequest) -> bool {
        self.put(ScanJob::Page(ticket, request))
    }

    /// Gives up what is damaged; if too much waits, the damage is found and repaired once more.
    pub(crate) fn excise(&self, keys: KeySpan, seen: u64) {
        if !self.put(ScanJob::Excise(keys, seen)) {
            tracing::warn!("damage stays although it was repaired: too much waits for the disk");
        }
    }

    /// False: too many wait already.
    #[must_use]
    pub(crate) fn read(&self, ticket: Ticket, key: Bytes) -> bool {
        match self {
            Readers::Threads(Threads { queue, .. }) => {
                queue.as_ref().is_some_and(|queue| queue.try_send((ticket, key)).is_ok())
            }
            Readers::Inline { db, door } => {
                read(db, door, ticket, &key);
                true
            }
        }
    }

    fn put(&self, job: ScanJob) -> bool {
        match self {
            Readers::Threads(Threads { scans, .. }) => {
                scans.as_ref().is_some_and(|scans| scans.try_send(job).is_ok())
            }
            Readers::Inline { db, door } => {
                job.run(db, door);
                true
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        (self.queue, self.scans) = (None, None);
        for thread in self.threads.drain(..) {
            // One that panicked has told so itself.
            let _ = thread.join();
        }
    }
}
