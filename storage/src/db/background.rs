//! Background threads and the work that waits for them.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::Inner;
use crate::error::Error;

#[derive(Default)]
pub(super) struct Background {
    changed: Condvar,
    lock: Mutex<()>,
}

impl Background {
    pub(super) fn wake(&self) {
        let _lock = self.lock.lock();
        self.changed.notify_all();
    }

    pub(super) fn wait_for_change(&self, at_most: Duration) {
        self.changed.wait_for(&mut self.lock.lock(), at_most);
    }

    pub(super) fn retry_failed_work(&self) {}

    pub(super) fn last_error(&self) -> String {
        String::new()
    }
}

pub(super) fn start_threads(
    inner: &Arc<Inner>,
    _compaction: usize,
    threads: &Mutex<Vec<JoinHandle<()>>>,
) -> io::Result<()> {
    let log = inner.clone();
    let spawned = std::thread::Builder::new().name("merganser-log".into()).spawn(move || log.log_thread())?;
    threads.lock().push(spawned);
    Ok(())
}

impl Inner {
    pub(super) fn flush_one(&self) -> bool {
        false
    }

    pub(super) fn compact_one(&self) -> bool {
        false
    }

    pub(super) fn flush(&self) -> Result<(), Error> {
        self.check_usable()
    }

    pub(super) fn compact_all(&self) -> Result<(), Error> {
        self.check_usable()
    }
}
