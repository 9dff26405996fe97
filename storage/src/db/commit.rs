//! Group commit: many writes, one log write, one sync, one completion call.
//!
//! In: writes in order of submission. Out: durable frames, memtable entries, calls of the sink, in that
//! order. One thread (or `step`) does this; submitters only append to a queue. Deliberately absent: any
//! timer that waits for company. A group is whatever came while the last one was being synced.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::queue::{Queued, Waiter};
use super::{Inner, Step};
use crate::compress;
use crate::error::Error;
use crate::fragment::{Body, Kind};
use crate::limits;
use crate::memtable::Memtable;
use crate::metrics::Counters;
use crate::options::{Background, Options};
use crate::record::{Durability, Op};
use crate::wal::format::Staged;
use crate::wal::writer::LogWriter;

/// Debt up to this slows nobody …
const DEBT_FREE: f32 = 0.6;
/// … and all of it slows writers to so many bytes a microsecond: about what compactions get through, whether the bytes
/// come in one write or in many.
const BYTES_PER_US_IN_DEBT: f32 = 16.0;
/// Raw bodies up to this size are copied into the log frame's buffer.
const COPY_RAW_BYTES_MAX: usize = 16 << 10;
/// What kind and lengths of an operation take, from above.
const FRAMING_BYTES: usize = 16;

/// The log being written, and what belongs to it.
pub(super) struct LogState {
    pub(super) writer: LogWriter,
    pub(super) sequence_next: u64,
    /// When the oldest unsynced interval write was written; unused when stepped.
    pub(super) unsynced_since: Option<Instant>,
    /// A new log could not be started: the size of the memtable at which that is tried again; 0 while all is well.
    pub(super) retry_at_bytes: usize,
    /// Set by `close`: nothing may be appended after the seal.
    pub(super) sealed: bool,
}

impl Inner {
    /// The log thread's whole life.
    pub(super) fn log_thread(&self) {
        loop {
            let deadline = self.log.lock().unsynced_since.map(|since| since + self.options.sync_interval);
            self.queue.wait(deadline, || self.is_closed());
            if self.queue.len() > 0 {
                self.slow_down();
                self.commit_group();
            } else if self.is_closed() {
                return;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                // A failure has poisoned the database; later commits tell.
                let _ = self.sync_log();
            }
        }
    }

    /// Slows the log by a delay that grows with the debt, instead of stopping it at a threshold. Only a full
    /// set of frozen memtables makes it wait, as memory is finite; while flushes fail, waiting is no use.
    fn slow_down(&self) {
        let is_full = || self.shape().frozen.len() >= self.options.memtables_frozen_max;
        while is_full() && self.check_usable().is_ok() && self.background.flush_failure().is_none() {
            self.background.wait_for_change(Duration::from_millis(50));
        }
        let debt = self.debt();
        if debt > DEBT_FREE {
            let share = (debt - DEBT_FREE).min(1.0 - DEBT_FREE) / (1.0 - DEBT_FREE);
            let bytes = self.queue.bytes().min(self.options.group_bytes_max);
            let delay = share * bytes as f32 / BYTES_PER_US_IN_DEBT;
            self.background.wait_for_change(Duration::from_micros(delay as u64));
        }
    }

    /// Commits one group; returns how many writes completed, refused ones included.
    pub(super) fn commit_group(&self) -> usize {
        let mut log = self.log.lock();
        let group = self.queue.take(self.options.group_bytes_max);
        let count = group.len();
        let (refused, accepted): (Vec<_>, Vec<_>) =
            group.into_iter().partition(|write| write.refused.is_some());
        for write in refused {
            let error = write.refused.clone().expect("partitioned by it");
            self.complete([write.waiter], Err(error));
        }
        if accepted.is_empty() {
            return count;
        }
        let (waiters, result) = self.commit_accepted(&mut log, accepted);
        drop(log);
        self.complete(waiters, result);
        count
    }

    fn commit_accepted(&self, log: &mut LogState, group: Vec<Queued>) -> (Vec<Waiter>, Result<(), Error>) {
        let usable = self.check_poison().and_then(|()| if log.sealed { Err(Error::NotOpen) } else { Ok(()) });
        let ready = usable.and_then(|()| self.make_room(log));
        if let Err(error) = ready {
            return (group.into_iter().map(|write| write.waiter).collect(), Err(error));
        }
        let sync = group.iter().any(|write| write.durability == Durability::Sync);
        let interval = group.iter().any(|write| write.durability == Durability::Interval);
        let bytes = group.iter().map(|write| write.bytes).sum::<usize>();
        let (waiters, writes): (Vec<_>, Vec<_>) =
            group.into_iter().map(|write| (write.waiter, write.ops)).unzip();
        let append = AssertUnwindSafe(|| self.append_and_apply(log, self.stage(&writes), sync));
        let result = catch_unwind(append).unwrap_or_else(|panic| {
            // The caller's fold panicked. Nobody may be left waiting for ever.
            let cause = "a panic while committing".to_owned();
            self.complete(waiters.clone(), Err(self.poison(&Error::Poisoned { cause })));
            resume_unwind(panic)
        });
        if result.is_ok() {
            Counters::add(&self.counters.ingested_bytes, bytes as u64);
            let threads = self.options.background != Background::Stepped;
            if sync {
                log.unsynced_since = None;
            } else if interval && threads && log.unsynced_since.is_none() {
                log.unsynced_since = Some(Instant::now());
            }
        }
        (waiters, result)
    }

    /// Puts writes into one frame. Bodies are packed first, so that the buffer, which the memtable keeps, is
    /// made as large as it will be and holds no slack.
    fn stage(&self, writes: &[Vec<Op>]) -> Staged {
        let ops = || writes.iter().flatten();
        let mut packed: Vec<Body> = Vec::with_capacity(ops().count());
        packed.extend(ops().map(|op| match op {
            Op::Put { record, .. } | Op::Merge { record, .. } => {
                own(pack(&self.options, record.body.clone()), &record.body)
            }
            Op::Remove { .. } => Body::default(),
        }));
        let heads_and_keys = ops().map(|op| match op {
            Op::Put { key, record } | Op::Merge { key, record } => key.len() + record.head.len(),
            Op::Remove { key } => key.len(),
        });
        let copied = packed.iter().filter(|body| !has_own_buffer(body)).map(|body| body.stored.len());
        let framing = FRAMING_BYTES * (packed.len() + writes.len());
        let mut staged =
            Staged::with_capacity(heads_and_keys.sum::<usize>() + copied.sum::<usize>() + framing);
        let mut packed = packed.into_iter();
        for ops in writes {
            staged.begin_write(ops.len());
            for (op, body) in ops.iter().zip(&mut packed) {
                let own_buffer = has_own_buffer(&body);
                match op {
                    Op::Put { key, record } => staged.push(Kind::Put, key, &record.head, body, own_buffer),
                    Op::Merge { key, record } => {
                        staged.push(Kind::Merge, key, &record.head, body, own_buffer)
                    }
                    Op::Remove { key } => staged.push_remove(key),
                }
            }
        }
        staged
    }

    fn append_and_apply(&self, log: &mut LogState, staged: Staged, sync: bool) -> Result<(), Error> {
        let sequence_first = log.sequence_next;
        let frame_bytes = log.writer.append(&staged, sequence_first).map_err(|error| match error {
            // The position did not move: the next group overwrites the half-written frame.
            Error::NoSpace { .. } => error,
            other => self.poison(&other),
        })?;
        if sync {
            log.writer.sync().map_err(|error| self.poison(&error))?;
            Counters::add(&self.counters.log_syncs, 1);
        }
        let writes = u64::from(staged.writes);
        log.sequence_next += writes;
        let memtable = self.shape().active.clone();
        let ops = staged.into_ops();
        memtable.charge(frame_bytes as usize);
        Counters::add(&self.counters.commit_groups, 1);
        Counters::add(&self.counters.writes, writes);
        Counters::add(&self.counters.ops, ops.len() as u64);
        Counters::add(&self.counters.log_bytes, frame_bytes);
        for (key, fragment) in ops {
            memtable.insert(key, fragment, self.fold.as_ref(), &mut |body| pack(&self.options, body));
        }
        Ok(())
    }

    /// Freezes a full memtable before more goes in. Failing to start a log is survivable for a while, as the
    /// old one can still grow; failing to flush is until all memtables are full.
    fn make_room(&self, log: &mut LogState) -> Result<(), Error> {
        let shape = self.shape();
        let held = shape.active.bytes();
        if held < self.options.memtable_bytes {
            return Ok(());
        }
        if shape.frozen.len() >= self.options.memtables_frozen_max
            && let Some(failure) = self.background.flush_failure()
        {
            return Err(failure);
        }
        if held < log.retry_at_bytes {
            return Ok(());
        }
        let held_max = 4 * self.options.memtable_bytes;
        match self.rotate(log) {
            Err(error) if self.check_poison().is_ok() && held < held_max => {
                // Not with each commit: what fails is rarely better a moment later.
                log.retry_at_bytes = (held + self.options.memtable_bytes / 4).min(held_max);
                tracing::warn!(%error, "could not start a new log; the old one grows on");
                Ok(())
            }
            other => other,
        }
    }

    /// Seals the log and the memtable and starts the next ones. Does nothing while the memtable is empty.
    pub(super) fn rotate(&self, log: &mut LogState) -> Result<(), Error> {
        if self.shape().active.is_empty() {
            return Ok(());
        }
        if log.writer.has_unsynced() {
            // The next log's header will vouch for this one's length.
            log.writer.sync().map_err(|error| self.poison(&error))?;
        }
        let writer = self.start_log(&log.writer)?;
        let active = Arc::new(Memtable::new(writer.number(), log.sequence_next));
        log.writer = writer;
        log.retry_at_bytes = 0;
        log.unsynced_since = None;
        let mut shape = self.shape.write();
        *shape = Arc::new(shape.frozen_into(active));
        drop(shape);
        self.background.wake();
        Ok(())
    }

    /// Makes unsynced writes durable; says whether there were any.
    pub(super) fn sync_log(&self) -> Result<bool, Error> {
        let mut log = self.log.lock();
        log.unsynced_since = None;
        if !log.writer.has_unsynced() {
            return Ok(false);
        }
        self.check_poison()?;
        log.writer.sync().map_err(|error| self.poison(&error))?;
        Counters::add(&self.counters.log_syncs, 1);
        Ok(true)
    }

    /// Commits what waits, then writes an empty frame that proves, after a restart, that nothing is missing.
    pub(super) fn seal(&self) -> Result<(), Error> {
        while self.queue.len() > 0 {
            self.commit_group();
        }
        let left = self.queue.close();
        self.complete(left.into_iter().map(|write| write.waiter), Err(Error::NotOpen));
        self.sync_log()?;
        let mut log = self.log.lock();
        self.check_poison()?;
        log.sealed = true;
        let sequence = log.sequence_next;
        log.writer.append(&Staged::default(), sequence)?;
        log.writer.sync().map_err(|error| self.poison(&error))
    }

    /// One unit of work, chosen by fixed priorities.
    pub(super) fn step(&self) -> Step {
        let crowded = self.shape().frozen.len() + 1 >= self.options.memtables_frozen_max;
        if crowded && self.flush_one() {
            return Step::Flushed;
        }
        if self.queue.len() > 0 {
            self.background.retry_failed_work();
            return Step::Committed { n: self.commit_group() };
        }
        if self.check_usable().is_err() {
            return Step::Idle;
        }
        if self.flush_one() {
            return Step::Flushed;
        }
        if self.compact_one() {
            return Step::Compacted;
        }
        // A failure has poisoned the database; the next call tells.
        if self.sync_log().unwrap_or(false) {
            return Step::Synced;
        }
        if self.look() && self.flush_one() { Step::Flushed } else { Step::Idle }
    }
}

/// Bytes in the form they keep for life: a large body is compressed, once, if that pays.
pub(super) fn pack(options: &Options, raw: Bytes) -> Body {
    if raw.len() >= options.large_value_bytes
        && let Some(stored) = compress::compress(&raw, options.value_zstd_level)
    {
        return Body { stored: stored.into(), raw_len: raw.len() as u32, zstd: true };
    }
    Body::raw(raw)
}

/// A body that stayed the caller's bytes may be a small part of a receive buffer, which would be kept alive: a long one
/// gets a buffer of its own, a short one is copied with the frame.
fn own(body: Body, callers: &Bytes) -> Body {
    if body.zstd || !has_own_buffer(&body) {
        return body;
    }
    Body::raw(Bytes::copy_from_slice(callers))
}

/// Whether a body goes into log and memtable in a buffer of its own.
fn has_own_buffer(body: &Body) -> bool {
    body.zstd || body.stored.len() > COPY_RAW_BYTES_MAX
}

const _: () = assert!(limits::WRITE_BYTES_MAX * 2 < crate::wal::format::PAYLOAD_BYTES_MAX);
