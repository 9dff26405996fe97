//! One node as a child process.
//!
//! In: the executable, the node's files. Out: a running process, signals to it, how it ended, and
//! its last words. Each child has a process group of its own, so that a Ctrl-C in the terminal
//! reaches the supervisor alone, which then stops the nodes in order. Absent: what the node says
//! to others, and when to start it.

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    process::{Child, Command},
    signal::unix::{Signal as SignalStream, SignalKind, signal},
    time::Instant,
};

/// A log that has grown beyond this when its node starts is set aside as `log.1`.
const LOG_BYTES_MAX: u64 = 8 << 20;
/// Of a log's end, how much is looked at for the last words.
const LAST_WORDS_BYTES: u64 = 8 << 10;
const LAST_WORDS_LINES: usize = 12;
/// How long a node may take to stop before it is killed: longer than it waits for its requests.
const STOP: Duration = Duration::from_secs(8);

/// Whether a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Running,
    Paused,
    Stopped,
}

/// A node's process, or the place for one.
#[derive(Debug)]
pub(super) struct Process {
    home: PathBuf,
    child: Option<Child>,
    paused: bool,
}

impl Process {
    /// Nothing runs yet.
    pub(super) fn new(home: PathBuf) -> Process {
        Process { home, child: None, paused: false }
    }

    /// Starts it. Requires that it does not run.
    pub(super) fn start(&mut self, executable: &Path, config: &Path) -> anyhow::Result<()> {
        assert!(self.child.is_none(), "a node is started once");
        let log = self.open_log()?;
        let child = Command::new(executable)
            .arg("serve")
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("failed to start {}", executable.display()))?;
        let pid = child.id().unwrap_or_default();
        self.child = Some(child);
        self.paused = false;
        fs::write(self.home.join("pid"), format!("{pid}\n")).context("failed to note the node's process")
    }

    /// Whether it runs.
    pub(super) fn condition(&self) -> Condition {
        match (&self.child, self.paused) {
            (None, _) => Condition::Stopped,
            (Some(_), true) => Condition::Paused,
            (Some(_), false) => Condition::Running,
        }
    }

    /// Its process id, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Ready once the process has ended.
    pub(super) fn poll_exit(&mut self, task: &mut Context<'_>) -> Poll<io::Result<ExitStatus>> {
        let Some(child) = &mut self.child else { return Poll::Pending };
        let exit = std::pin::pin!(child.wait()).poll(task);
        if exit.is_ready() {
            self.gone();
        }
        exit
    }

    /// SIGKILL: nothing is flushed, nobody is told. Returns once it is gone.
    pub(super) async fn kill(&mut self) -> io::Result<()> {
        if let Some(child) = &mut self.child {
            child.kill().await?;
            self.gone();
        }
        Ok(())
    }

    /// Asks it to stop, as an operator would. Goes on in [`Process::stopped`].
    pub(super) fn ask_to_stop(&mut self) {
        // A paused process takes the signal only when it goes on.
        self.resume();
        self.signal(Signal::TERM);
    }

    /// Returns once it has stopped, or after some seconds and a SIGKILL: then false.
    pub(super) async fn stopped(&mut self, asked: Instant) -> io::Result<bool> {
        let Some(child) = &mut self.child else { return Ok(true) };
        match tokio::time::timeout_at(asked + STOP, child.wait()).await {
            Ok(status) => {
                status?;
                self.gone();
                Ok(true)
            }
            Err(_) => self.kill().await.map(|()| false),
        }
    }

    /// SIGSTOP.
    pub(super) fn pause(&mut self) {
        self.paused = self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub(super) fn resume(&mut self) {
        self.signal(Signal::CONT);
        self.paused = false;
    }

    /// The end of its log.
    pub(super) fn last_words(&self) -> Vec<String> {
        let read = || -> io::Result<Vec<u8>> {
            let mut log = File::open(self.log())?;
            let length = log.metadata()?.len();
            log.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS_BYTES)))?;
            let mut end = Vec::new();
            log.take(LAST_WORDS_BYTES).read_to_end(&mut end)?;
            Ok(end)
        };
        let end = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&end);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS_LINES)..].iter().map(|line| (*line).to_owned()).collect()
    }

    /// Where it writes what it says.
    pub(super) fn log(&self) -> PathBuf {
        self.home.join("log")
    }

    /// Ends a node that an earlier supervisor, killed before it could, left behind. True if there
    /// was one.
    pub(super) async fn end_orphan(&self, config: &Path) -> anyhow::Result<bool> {
        let Some(pid) = self.orphan(config) else { return Ok(false) };
        let asked = Instant::now();
        let _ = kill_process(pid, Signal::CONT);
        let _ = kill_process(pid, Signal::TERM);
        let mut killed = false;
        while self.orphan(config).is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if asked.elapsed() > STOP && !killed {
                let _ = kill_process(pid, Signal::KILL);
                killed = true;
            }
            if asked.elapsed() > 2 * STOP {
                bail!("process {} of an earlier run does not end", pid.as_raw_nonzero());
            }
        }
        Ok(true)
    }

    /// The process in the pid file, if it is still this very node: process ids are used again.
    /// Where there is no `/proc` to tell, none; then the storage's own lock speaks.
    fn orphan(&self, config: &Path) -> Option<Pid> {
        let pid: i32 = fs::read_to_string(self.home.join("pid")).ok()?.trim().parse().ok()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let ours = command.split(|byte| *byte == 0).any(|word| word == config.as_os_str().as_encoded_bytes());
        if ours { Pid::from_raw(pid) } else { None }
    }

    fn gone(&mut self) {
        self.child = None;
        self.paused = false;
        // A stale pid file is only looked at with suspicion: see `orphan`.
        let _ = fs::remove_file(self.home.join("pid"));
    }

    /// True if there was somebody to tell. The id cannot be another process's: a child that was
    /// not waited for keeps it.
    fn signal(&self, signal: Signal) -> bool {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    fn open_log(&self) -> anyhow::Result<File> {
        let file = self.log();
        if fs::metadata(&file).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
            fs::rename(&file, self.home.join("log.1")).context("failed to set an old log aside")?;
        }
        let mut log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&file)
            .with_context(|| format!("failed to open {}", file.display()))?;
        writeln!(log, "--- started by merganser dev, process {}", std::process::id())?;
        Ok(log)
    }
}

/// What ends the supervisor: Ctrl-C, SIGTERM, a terminal that is closed.
#[derive(Debug)]
pub(super) struct Signals {
    streams: [SignalStream; 3],
}

impl Signals {
    /// From now on none of them ends the process by itself.
    pub(super) fn listen() -> io::Result<Signals> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Signals { streams: [interrupt?, terminate?, hangup?] })
    }

    /// Returns when one arrives.
    pub(super) async fn next(&mut self) {
        std::future::poll_fn(|task| {
            let arrived = self.streams.iter_mut().any(|stream| stream.poll_recv(task).is_ready());
            if arrived { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
