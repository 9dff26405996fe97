//! One node: its process, its disk, its log.
//!
//! In: signals and starts. Out: whether it runs, how it ended, what its log says. Each process
//! has a group of its own, so that a Ctrl-C reaches this program alone, which then stops all.
//! Absent: why something is done to it; that is `faults`.

use super::disk::Disk;
use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::process::{Child, Command};

/// Longest clean stop.
const STOP: Duration = Duration::from_secs(20);

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) disk: Disk,
    home: PathBuf,
    command: Vec<String>,
    /// Settings for this start and the next ones.
    pub(crate) extra: Vec<String>,
    child: Option<Child>,
}

impl Node {
    /// `command` runs it, in its namespace, with its configuration.
    pub(crate) fn new(name: String, disk: Disk, home: PathBuf, command: Vec<String>) -> Node {
        Node { name, disk, home, command, extra: Vec::new(), child: None }
    }

    fn log(&self) -> PathBuf {
        self.home.join("log")
    }

    /// Starts it. Requires that it does not run.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        assert!(self.child.is_none(), "a node is started once");
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let (program, arguments) = self.command.split_first().context("a command")?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"MERGANSER_") {
                command.env_remove(name);
            }
        }
        command.args(arguments);
        for setting in &self.extra {
            command.arg("--set").arg(setting);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("failed to start {program}"))?;
        self.child = Some(child);
        Ok(())
    }

    /// Whether there is a process, paused or not.
    pub(crate) fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// How it ended, if it did so by itself; from then on it does not run.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(status)
    }

    /// Sends a signal, if it runs.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid().and_then(|pid| Pid::from_raw(pid as i32)) {
            // Only an ended process cannot be signalled, and that is noticed elsewhere.
            kill_process(pid, signal).ok();
        }
    }

    /// SIGKILL: nothing is flushed, nobody is told.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        match self.child.take() {
            Some(mut child) => child.kill().await.context("failed to kill a node"),
            None => Ok(()),
        }
    }

    /// As an operator would. False: it had to be killed in the end.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<bool> {
        self.signal(Signal::CONT);
        self.signal(Signal::TERM);
        let Some(child) = &mut self.child else { return Ok(true) };
        let stopped = tokio::time::timeout(STOP, child.wait()).await;
        if stopped.is_err() {
            self.kill().await?;
            return Ok(false);
        }
        self.child = None;
        Ok(true)
    }

    /// Memory that its process holds.
    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib << 10)
    }

    /// Lines of its log that tell of a panic.
    pub(crate) fn panics(&self) -> Vec<String> {
        let Ok(log) = File::open(self.log()) else { return Vec::new() };
        let lines = BufReader::new(log).split(b'\n').map_while(Result::ok);
        let lines = lines.map(|line| String::from_utf8_lossy(&line).into_owned());
        lines.filter(|line| line.contains("panicked at")).take(20).collect()
    }

    /// The end of its log.
    pub(crate) fn last_words(&self, lines: usize) -> Vec<String> {
        let text = std::fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect()
    }

    /// Copies its log.
    pub(crate) fn keep_log(&self, directory: &Path) -> anyhow::Result<()> {
        std::fs::copy(self.log(), directory.join(format!("{}.log", self.name)))?;
        Ok(())
    }
}

/// For people.
pub(crate) fn told(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no status".into(),
    }
}
