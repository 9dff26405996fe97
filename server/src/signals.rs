//! What the system tells the process.
//!
//! In: signals. Out: a clean stop for those that ask for an end, nothing for those that a node has no use for.
//! Absent: a reload; a changed configuration is for the next start.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Beyond the limit of a file's size (SIGXFSZ): the write fails as well, and storage sees to that.
const FILE_TOO_LARGE: i32 = 25;

/// From here on a write beyond the limit of a file's size (`ulimit -f`) is an error like a full disk, and SIGUSR1 and
/// SIGUSR2, which mean nothing to a node, do nothing. To be called within a runtime.
pub(crate) fn survive() -> io::Result<()> {
    // A handler that was installed stays for good.
    for kind in
        [SignalKind::from_raw(FILE_TOO_LARGE), SignalKind::user_defined1(), SignalKind::user_defined2()]
    {
        drop(signal(kind)?);
    }
    Ok(())
}

/// The signals that ask for an end.
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    quit: Signal,
}

impl Stop {
    /// From here on none of them ends the process by itself. To be called within a runtime.
    pub(crate) fn listen() -> io::Result<Stop> {
        Ok(Stop {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// Waits for one; its name.
    pub(crate) async fn told(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hang_up.recv() => "SIGHUP",
            _ = self.quit.recv() => "SIGQUIT",
        }
    }
}
