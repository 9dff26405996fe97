//! Threads whose work can wait, which are those of plugins, scans, flushes, compactions and the verifier, come after the driver
//! and the log: one that burns a core does not slow them.
//!
//! In: the calling thread. Out: its priority. Absent: other systems than Linux, where all threads run at par.

#[cfg(target_os = "linux")]
const NICENESS: i32 = 5;

/// Lowers the priority of the calling thread, for good. Where that is refused, it runs at par.
pub(crate) fn yield_to_others() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, NICENESS);
}
