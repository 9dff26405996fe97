//! Log lines on their way out, written by a thread of their own.
//!
//! In: lines from any thread, which never waits. Out: the same lines in order. A file that is full, a pipe that is
//! closed or that nobody reads costs lines: they are dropped, and the next line that gets through is preceded by
//! how many those were. Absent: what the lines say.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Lines that may wait.
const LINES_MAX: usize = 16 << 10;
/// Their bytes together.
const BYTES_MAX: usize = 4 << 20;
/// How often the thread looks up from its lines.
const LOOK: Duration = Duration::from_secs(1);

enum Job {
    Line(Vec<u8>),
    /// Answers when everything before is out.
    Flush(mpsc::SyncSender<()>),
}

/// A way to the thread. Clones share it.
#[derive(Clone)]
pub(super) struct Lines {
    queue: mpsc::SyncSender<Job>,
    waiting: Arc<Waiting>,
}

#[derive(Default)]
struct Waiting {
    bytes: AtomicUsize,
    lost: AtomicU64,
}

impl Lines {
    /// `lost` words how many lines were lost. `look` is called now and then, between lines.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        lost: fn(u64) -> String,
        look: impl FnMut() + Send + 'static,
    ) -> io::Result<Lines> {
        let (queue, jobs) = mpsc::sync_channel(LINES_MAX);
        let waiting = Arc::new(Waiting::default());
        let thread = Thread { out, lost, waiting: Arc::clone(&waiting) };
        std::thread::Builder::new().name("log-lines".into()).spawn(move || thread.run(&jobs, look))?;
        Ok(Lines { queue, waiting })
    }

    /// Waits until all lines so far are out, or for so long.
    pub(super) fn flush(&self, at_most: Duration) {
        let (done, out) = mpsc::sync_channel(1);
        // A full queue is one that nobody takes from: nothing is worth waiting for.
        if self.queue.try_send(Job::Flush(done)).is_ok() {
            let _ = out.recv_timeout(at_most);
        }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let before = self.waiting.bytes.fetch_add(line.len(), Ordering::Relaxed);
        let fits = before + line.len() <= BYTES_MAX;
        if !fits || self.queue.try_send(Job::Line(line.to_vec())).is_err() {
            self.waiting.bytes.fetch_sub(line.len(), Ordering::Relaxed);
            self.waiting.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Thread<W> {
    out: W,
    lost: fn(u64) -> String,
    waiting: Arc<Waiting>,
}

impl<W: Write> Thread<W> {
    /// Until nobody is left who could say something.
    fn run(mut self, jobs: &mpsc::Receiver<Job>, mut look: impl FnMut()) {
        loop {
            match jobs.recv_timeout(LOOK) {
                Ok(Job::Line(line)) => self.put(&line),
                Ok(Job::Flush(done)) => drop(done.send(())),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            look();
        }
    }

    fn put(&mut self, line: &[u8]) {
        self.waiting.bytes.fetch_sub(line.len(), Ordering::Relaxed);
        let lost = self.waiting.lost.load(Ordering::Relaxed);
        if lost > 0 && self.out.write_all((self.lost)(lost).as_bytes()).is_ok() {
            self.waiting.lost.fetch_sub(lost, Ordering::Relaxed);
        }
        if self.out.write_all(line).and_then(|()| self.out.flush()).is_err() {
            self.waiting.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::{Condvar, Mutex};

    /// Takes lines, refuses them, or makes their writer wait.
    #[derive(Clone, Default)]
    struct Reader(Arc<(Mutex<State>, Condvar)>);

    #[derive(Default)]
    struct State {
        taken: String,
        full: bool,
        asleep: bool,
    }

    impl Reader {
        fn set(&self, change: impl FnOnce(&mut State)) {
            change(&mut self.0.0.lock());
            self.0.1.notify_all();
        }

        fn taken(&self) -> String {
            self.0.0.lock().taken.clone()
        }
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.0.lock();
            self.0.1.wait_while(&mut state, |state| state.asleep);
            if state.full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.taken.push_str(&String::from_utf8_lossy(bytes));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    fn start(reader: &Reader) -> Lines {
        Lines::start(reader.clone(), |count| format!("({count} lost)\n"), || ()).expect("a thread")
    }

    #[test]
    fn lines_that_a_full_disk_refuses_are_counted_in_the_next_one() {
        let reader = Reader::default();
        let mut lines = start(&reader);
        lines.write_all(b"a\n").expect("never fails");
        lines.flush(LONG);
        reader.set(|state| state.full = true);
        lines.write_all(b"b\n").expect("never fails");
        lines.write_all(b"c\n").expect("never fails");
        lines.flush(LONG);
        reader.set(|state| state.full = false);
        lines.write_all(b"d\n").expect("never fails");
        lines.flush(LONG);
        assert_eq!(reader.taken(), "a\n(2 lost)\nd\n");
    }

    #[test]
    fn nobody_waits_for_a_reader_that_sleeps_and_what_waits_is_bounded() {
        let reader = Reader::default();
        reader.set(|state| state.asleep = true);
        let mut lines = start(&reader);
        let line = [b'x'; 1 << 10];
        for _ in 0..2 * BYTES_MAX / line.len() {
            lines.write_all(&line).expect("never fails");
        }
        assert!(lines.waiting.bytes.load(Ordering::Relaxed) <= BYTES_MAX);
        let lost = lines.waiting.lost.load(Ordering::Relaxed);
        // One more than may wait is in the hands of the thread.
        assert!(lost as usize + 1 >= BYTES_MAX / line.len(), "{lost}");
        reader.set(|state| state.asleep = false);
        lines.flush(LONG);
        lines.write_all(b"awake\n").expect("never fails");
        lines.flush(LONG);
        assert!(reader.taken().contains(" lost)\n"));
        assert!(reader.taken().ends_with("awake\n"));
    }
}
