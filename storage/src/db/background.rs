//! Background threads: their turns, their failures, and how they wait.
//!
//! In: wake-ups when a memtable freezes or a table is installed. Out: calls of the work in `install`.
//! Failures other than a failed sync leave everything as it was; they are remembered, slow the writers
//! through the debt they leave, and are tried again. A table in which a compaction found damage is set aside; the
//! others go on at once. Deliberately absent: the work itself.

use std::collections::BTreeSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Inner;
use super::shape::Shape;
use crate::error::Error;

/// Little is written: less than this part of a memtable from look to look, as a power of two.
const LITTLE_SHIFT: u32 = 10;
/// How long threads wait before they look again, also after a failure.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What is going on, and what went wrong.
#[derive(Default)]
pub(super) struct Work {
    /// Numbers of the tables that are being compacted.
    pub(super) busy: BTreeSet<u64>,
    /// Set after a failure until something changes, so that `step` comes to rest.
    stalled: bool,
    last_error: String,
    /// Why the last attempt at a flush failed, until one succeeds.
    flush_failure: Option<Error>,
    /// What had been written at the last look, and how often in a row it was about the same.
    ingested_bytes: u64,
    idle_looks: u32,
    /// Counts wake-ups, so that none is missed between looking for work and waiting for it.
    changes: u64,
}

#[derive(Default)]
pub(super) struct BackgroundState {
    pub(super) work: Mutex<Work>,
    pub(super) changed: Condvar,
    /// One flush at a time: memtables become tables in order of age.
    pub(super) flushing: Mutex<()>,
}

impl BackgroundState {
    pub(super) fn wake(&self) {
        self.work.lock().changes += 1;
        self.changed.notify_all();
    }

    fn changes(&self) -> u64 {
        self.work.lock().changes
    }

    /// Waits unless something has changed since `changes` was read. True if nothing changed in all that time.
    fn wait_since(&self, changes: u64, at_most: Duration) -> bool {
        let mut work = self.work.lock();
        work.changes == changes && self.changed.wait_for(&mut work, at_most).timed_out()
    }

    pub(super) fn wait_for_change(&self, at_most: Duration) {
        self.changed.wait_for(&mut self.work.lock(), at_most);
    }

    pub(super) fn retry_failed_work(&self) {
        self.work.lock().stalled = false;
    }

    /// Why flushes fail at present; `None` while they do not.
    pub(super) fn flush_failure(&self) -> Option<Error> {
        self.work.lock().flush_failure.clone()
    }

    pub(super) fn set_flush_failure(&self, failure: Option<Error>) {
        self.work.lock().flush_failure = failure;
    }

    pub(super) fn last_error(&self) -> String {
        self.work.lock().last_error.clone()
    }
}

pub(super) fn start_threads(
    inner: &Arc<Inner>,
    compaction: usize,
    threads: &Mutex<Vec<JoinHandle<()>>>,
) -> io::Result<()> {
    let start = |name: &str, body: fn(&Inner)| {
        let inner = inner.clone();
        let guarded = move || {
            while let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(&inner))) {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                let cause = format!("a thread panicked: {}", text.unwrap_or_default());
                inner.poison(&Error::Poisoned { cause });
            }
        };
        let spawned = std::thread::Builder::new().name(format!("merganser-{name}")).spawn(guarded)?;
        threads.lock().push(spawned);
        io::Result::Ok(())
    };
    start("log", Inner::log_thread)?;
    start("flush", Inner::flush_thread)?;
    (0..compaction).try_for_each(|_| start("compact", Inner::compaction_thread))
}

impl Inner {
    fn flush_thread(&self) {
        // At the priority of the writers, who wait for it when memory is full.
        self.work_until_closed(Inner::try_flush_one);
    }

    fn compaction_thread(&self) {
        (self.options.begin_thread)();
        self.work_until_closed(Inner::try_compact_one);
    }

    fn work_until_closed(&self, work: fn(&Inner) -> Result<bool, Error>) {
        while self.check_usable().is_ok() {
            let changes = self.background.changes();
            match work(self) {
                Ok(true) => {}
                Ok(false) => {
                    if self.background.wait_since(changes, LOOK_AGAIN) {
                        self.look();
                    }
                }
                Err(error) => {
                    self.note_failure(&error);
                    // A wake-up must not turn a full disk into a busy loop.
                    let until = Instant::now() + LOOK_AGAIN;
                    while self.check_usable().is_ok() && Instant::now() < until {
                        self.background.wait_for_change(LOOK_AGAIN / 4);
                    }
                    self.background.retry_failed_work();
                }
            }
        }
    }

    /// Takes note that there was nothing to do. Once little has been written for a while, what the memtable removes or
    /// overwrites is made part of the tables, where it can be weighed. True if a memtable was frozen for that.
    pub(super) fn look(&self) -> bool {
        let ingested = self.counters.ingested_bytes.load(Ordering::Relaxed);
        let mut work = self.background.work.lock();
        let little = ingested - work.ingested_bytes <= self.options.memtable_bytes as u64 >> LITTLE_SHIFT;
        work.ingested_bytes = ingested;
        work.idle_looks = if little { work.idle_looks.saturating_add(1) } else { 0 };
        let due = work.idle_looks == self.options.idle_looks;
        drop(work);
        if !due || !self.hides_much(&self.shape()) {
            return false;
        }
        let rotated = self.rotate(&mut self.log.lock());
        rotated.inspect_err(|error| self.note_failure(error)).is_ok()
    }

    /// Whether the active memtable may hide enough of the tables to be flushed for it before it is full.
    fn hides_much(&self, shape: &Shape) -> bool {
        let keys: u64 = shape.tables.iter().map(|table| table.meta().properties.keys).sum();
        let bytes_per_key = shape.table_bytes() / keys.max(1);
        let hidden = shape.active.keys() as u64 * bytes_per_key;
        hidden >= self.options.memtable_bytes as u64 / 4
            && hidden * 100 >= shape.table_bytes() * self.options.garbage_percent_idle
    }

    pub(super) fn is_idle(&self, work: &Work) -> bool {
        work.idle_looks >= self.options.idle_looks
    }

    /// Remembers a failure of background work; a failed sync poisons.
    pub(super) fn note_failure(&self, error: &Error) {
        match error {
            // Given up because the database closes.
            Error::NotOpen => return,
            Error::Poisoned { .. } => drop(self.poison(error)),
            _ => {}
        }
        tracing::warn!(dir = %self.dir.display(), %error, "background work failed");
        let mut work = self.background.work.lock();
        work.last_error = error.to_string();
        work.stalled = true;
    }

    /// Flushes one memtable if there is one; failures are noted and end the attempt until something changes.
    pub(super) fn flush_one(&self) -> bool {
        self.noted(Inner::try_flush_one)
    }

    /// Runs one compaction if one is due. One that came upon new damage counts: its table is set aside now, and
    /// another choice may be due.
    pub(super) fn compact_one(&self) -> bool {
        let seen = self.damage_numbers.last();
        let compacted = self.noted(Inner::try_compact_one);
        let found = self.damage_numbers.last() > seen;
        if found {
            self.background.retry_failed_work();
        }
        compacted || found
    }

    fn noted(&self, work: fn(&Inner) -> Result<bool, Error>) -> bool {
        if self.background.work.lock().stalled || self.check_poison().is_err() {
            return false;
        }
        work(self).unwrap_or_else(|error| {
            self.note_failure(&error);
            false
        })
    }
}
