//! Writes on their way to the log, and who is told when they are there.
//!
//! In: writes from any thread. Out: groups for the log thread, and completions through the sink or to a
//! waiting caller. Every write that is handed over completes exactly once. Deliberately absent: durability
//! (`commit`).

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::Inner;
use crate::error::Error;
use crate::limits;
use crate::metrics::Counters;
use crate::options::Background;
use crate::record::{Durability, Op, Write};

/// Who is told about a write.
#[derive(Clone)]
pub(super) enum Waiter {
    Ticket(u64),
    Blocked(Arc<Blocked>),
}

/// A caller of `write` that waits.
#[derive(Default)]
pub(super) struct Blocked {
    result: Mutex<Option<Result<(), Error>>>,
    done: Condvar,
}

/// A write in the queue.
pub(super) struct Queued {
    pub(super) waiter: Waiter,
    pub(super) ops: Vec<Op>,
    pub(super) durability: Durability,
    pub(super) bytes: usize,
    /// Set for writes that are only to be refused: they complete in turn with the others.
    pub(super) refused: Option<Error>,
}

#[derive(Default)]
struct Waiting {
    writes: Vec<Queued>,
    bytes: usize,
    /// Nobody takes from the queue any more.
    closed: bool,
}

/// Writes on their way to the log.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.waiting.lock().writes.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.waiting.lock().bytes
    }

    pub(super) fn wake(&self) {
        // Taking the lock makes sure that nobody is between the check and the wait.
        let _waiting = self.waiting.lock();
        self.arrived.notify_all();
    }

    /// Refuses what comes from now on and gives what was left.
    pub(super) fn close(&self) -> Vec<Queued> {
        let mut waiting = self.waiting.lock();
        waiting.closed = true;
        waiting.bytes = 0;
        std::mem::take(&mut waiting.writes)
    }

    /// Takes up to about `bytes_max`, at least one write.
    pub(super) fn take(&self, bytes_max: usize) -> Vec<Queued> {
        let mut waiting = self.waiting.lock();
        if waiting.bytes <= bytes_max {
            waiting.bytes = 0;
            return std::mem::take(&mut waiting.writes);
        }
        let mut sum = 0;
        let fits = |write: &&Queued| {
            let before = sum;
            sum += write.bytes;
            before == 0 || sum <= bytes_max
        };
        let count = waiting.writes.iter().take_while(fits).count();
        let rest = waiting.writes.split_off(count);
        let taken = std::mem::replace(&mut waiting.writes, rest);
        waiting.bytes -= taken.iter().map(|write| write.bytes).sum::<usize>();
        taken
    }

    /// Waits until there is something to commit, the deadline passes, or someone calls `wake`.
    pub(super) fn wait(&self, deadline: Option<Instant>, stop: impl Fn() -> bool) {
        let mut waiting = self.waiting.lock();
        if !waiting.writes.is_empty() || stop() {
            return;
        }
        match deadline {
            Some(deadline) => {
                self.arrived.wait_until(&mut waiting, deadline);
            }
            None => self.arrived.wait(&mut waiting),
        }
    }
}

impl Inner {
    pub(super) fn submit(&self, writes: Vec<Write>) {
        if !writes.is_empty() {
            self.enqueue(
                writes.into_iter().map(|write| (Waiter::Ticket(write.ticket), write.ops, write.durability)),
            );
        }
    }

    /// Every write completes: through the log thread or `step`, or here when nobody will come for it.
    fn enqueue(&self, writes: impl Iterator<Item = (Waiter, Vec<Op>, Durability)>) {
        let mut waiting = self.queue.waiting.lock();
        if waiting.closed {
            drop(waiting);
            self.complete(writes.map(|(waiter, _, _)| waiter), Err(Error::NotOpen));
            return;
        }
        for (waiter, ops, durability) in writes {
            let (bytes, refused) = match limits::check(&ops) {
                Ok(bytes) if waiting.bytes + bytes > self.options.queue_bytes_max && waiting.bytes > 0 => {
                    Counters::add(&self.counters.overloaded, 1);
                    (0, Some(Error::Overloaded))
                }
                Ok(bytes) => (bytes, None),
                Err(error) => (0, Some(error)),
            };
            let ops = if refused.is_some() { Vec::new() } else { ops };
            waiting.bytes += bytes;
            waiting.writes.push(Queued { waiter, ops, durability, bytes, refused });
        }
        drop(waiting);
        self.queue.arrived.notify_one();
    }

    /// Completes what was left in the queue when the last handle went without a close.
    pub(super) fn abandon_queue(&self) {
        let left = self.queue.close();
        // A stepped database that is dropped is a simulated crash: nobody is told anything.
        if self.options.background != Background::Stepped {
            self.complete(left.into_iter().map(|write| write.waiter), Err(Error::NotOpen));
        }
    }

    pub(super) fn write_and_wait(&self, ops: Vec<Op>, durability: Durability) -> Result<(), Error> {
        self.check_usable()?;
        let blocked = Arc::new(Blocked::default());
        self.enqueue([(Waiter::Blocked(blocked.clone()), ops, durability)].into_iter());
        if self.options.background == Background::Stepped {
            while blocked.result.lock().is_none() {
                self.step();
            }
        }
        let mut result = blocked.result.lock();
        while result.is_none() {
            blocked.done.wait(&mut result);
        }
        result.take().expect("the loop waited for it")
    }

    /// Tells the sink, then those who wait inside `write`: to them, all that was submitted before is told.
    pub(super) fn complete(&self, waiters: impl IntoIterator<Item = Waiter>, result: Result<(), Error>) {
        let mut tickets = Vec::new();
        let mut waiting = Vec::new();
        for waiter in waiters {
            match waiter {
                Waiter::Ticket(ticket) => tickets.push(ticket),
                Waiter::Blocked(blocked) => waiting.push(blocked),
            }
        }
        if !tickets.is_empty() {
            self.sink.committed(&tickets, result.clone());
        }
        for blocked in waiting {
            *blocked.result.lock() = Some(result.clone());
            blocked.done.notify_all();
        }
    }
}
