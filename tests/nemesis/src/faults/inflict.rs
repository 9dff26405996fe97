//! Doing it: one fault after another, each taken back before the next.
//!
//! In: the plan, the cluster. Out: a log of faults with begin and end, and what nodes did that
//! they must not: ended by themselves, survived a failed sync, did not come back. Absent: judging
//! what clients were told.

use super::{Deed, Fault, Kind, Plan, refill::Refill};
use crate::{
    check::Violation,
    cluster::{Cluster, network, told},
    history::{Clock, Micros, locked},
};
use rustix::process::Signal;
use serde::Serialize;
use std::{
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{process::Command, time::sleep};

/// How long a process may live on when its syncs fail, with writes going on.
const DEATH: Duration = Duration::from_secs(30);

/// An old disk that is whole again may still be noticed to be old for so long.
const SET_ASIDE_US_MAX: Micros = 10_000_000;

/// A fault that was inflicted.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Entry {
    pub(crate) number: u32,
    pub(crate) kind: &'static str,
    pub(crate) node: String,
    pub(crate) what: String,
    pub(crate) begin_us: Micros,
    /// None while it lasts.
    pub(crate) end_us: Option<Micros>,
    /// What happened meanwhile.
    pub(crate) notes: Vec<String>,
    /// When a disk was whole again.
    pub(crate) refilled_us: Option<Micros>,
}

/// What has been done so far.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) entries: Mutex<Vec<Entry>>,
    pub(crate) violations: Mutex<Vec<Violation>>,
    /// Times when a node had no process, or one that was stopped.
    pub(crate) down: Mutex<Vec<Down>>,
}

/// A time when a node did not run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Down {
    pub(crate) node: usize,
    pub(crate) begin_us: Micros,
    pub(crate) end_us: Option<Micros>,
}

impl Log {
    fn begin(&self, fault: &Fault, now: Micros) -> usize {
        let mut entries = locked(&self.entries);
        let number = entries.len() as u32 + 1;
        let node = network::name(fault.node);
        let what = describe(fault);
        let entry = Entry {
            number,
            kind: fault.kind.name(),
            node,
            what,
            begin_us: now,
            end_us: None,
            notes: Vec::new(),
            refilled_us: None,
        };
        entries.push(entry);
        entries.len() - 1
    }

    fn note(&self, entry: usize, note: String) {
        locked(&self.entries)[entry].notes.push(note);
    }

    pub(crate) fn refilled(&self, entry: usize, now: Micros) {
        locked(&self.entries)[entry].refilled_us = Some(now);
    }

    pub(crate) fn violate(&self, property: &str, at: &str, what: String) {
        let violation = Violation { property: property.into(), at: at.into(), what };
        locked(&self.violations).push(violation);
    }

    /// A node goes down; if it is down already, nothing changes.
    pub(crate) fn goes_down(&self, node: usize, now: Micros) {
        let mut down = locked(&self.down);
        if !down.iter().any(|down| down.node == node && down.end_us.is_none()) {
            down.push(Down { node, begin_us: now, end_us: None });
        }
    }

    /// It answers again.
    pub(crate) fn comes_up(&self, node: usize, now: Micros) {
        let mut down = locked(&self.down);
        for down in down.iter_mut().filter(|down| down.node == node && down.end_us.is_none()) {
            down.end_us = Some(now);
        }
    }
}

/// Everything that faults need.
pub(crate) struct Nemesis {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) log: Arc<Log>,
    pub(crate) clock: Clock,
    pub(crate) refill: Arc<Refill>,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Nemesis {
    /// Inflicts the plan until told to stop; the fault that is under way is taken back first.
    pub(crate) async fn run(&self, plan: Plan) {
        self.quiet(Duration::from_secs(3)).await;
        for fault in plan {
            if fault.kind.loses_data() && !self.refill.wait(&self.stop).await {
                // What was lost before is not back: one more loss would be no bug of the cluster.
                self.quiet(fault.pause).await;
                if self.stop.load(Ordering::Relaxed) {
                    break;
                }
                continue;
            }
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            if let Err(error) = self.one(&fault).await {
                // What this program could not do or undo; the rest is still worth seeing.
                self.log.violate("nemesis", &network::name(fault.node), format!("{error:#}"));
            }
            self.quiet(fault.pause).await;
        }
    }

    /// A time, or until it is enough.
    async fn quiet(&self, time: Duration) {
        let end = self.clock.now() + time.as_micros() as Micros;
        while self.clock.now() < end && !self.stop.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn one(&self, fault: &Fault) -> anyhow::Result<()> {
        let entry = self.log.begin(fault, self.clock.now());
        let done = self.inflict(fault, entry).await;
        locked(&self.log.entries)[entry].end_us = Some(self.clock.now());
        done
    }

    async fn inflict(&self, fault: &Fault, entry: usize) -> anyhow::Result<()> {
        let (node, begin) = (fault.node, self.clock.now());
        match &fault.deed {
            Deed::Kill => {
                self.kill(node).await?;
                self.quiet(fault.length).await;
                self.start(node, entry).await?;
            }
            Deed::Pause => {
                self.cluster.node(node).lock().await.signal(Signal::STOP);
                self.log.goes_down(node, begin);
                self.quiet(fault.length).await;
                self.cluster.node(node).lock().await.signal(Signal::CONT);
                self.ready(node, entry).await?;
            }
            Deed::Cut { peers, direction } => {
                self.cluster.network.cut(node, peers, *direction)?;
                self.quiet(fault.length).await;
                self.cluster.network.heal(node)?;
            }
            Deed::Part { minority } => {
                let others: Vec<usize> =
                    (0..self.cluster.len()).filter(|other| !minority.contains(other)).collect();
                for member in minority {
                    self.cluster.network.cut(*member, &others, network::Direction::Both)?;
                }
                self.quiet(fault.length).await;
                for member in minority {
                    self.cluster.network.heal(*member)?;
                }
            }
            Deed::FailedSync => self.fail_syncs(fault, entry).await?,
            Deed::FullDisk => self.fill(fault, entry).await?,
            Deed::LostDisk => {
                self.refill.lost(node, entry, begin);
                self.kill(node).await?;
                self.cluster.node(node).lock().await.disk.lose()?;
                self.quiet(fault.length).await;
                self.start(node, entry).await?;
                self.refill.back(self.clock.now());
            }
            Deed::Rot { dice } => {
                self.refill.lost(node, entry, begin);
                self.kill(node).await?;
                match self.cluster.node(node).lock().await.disk.rot(*dice)? {
                    Some(rotten) => self.log.note(entry, rotten),
                    None => {
                        self.refill.nothing_lost();
                        self.log.note(entry, "it has no table yet".into());
                    }
                }
                self.quiet(fault.length).await;
                self.start(node, entry).await?;
                self.refill.back(self.clock.now());
            }
            Deed::OldDisk { clean } => self.roll_back(fault, *clean, entry).await?,
            Deed::Clock { offset_ms } => {
                let key = self.cluster.rights.clock.clone().unwrap_or_default();
                let setting = vec![format!("{key}={offset_ms}")];
                self.restart_with(node, entry, setting).await?;
                self.quiet(fault.length).await;
                self.restart_with(node, entry, Vec::new()).await?;
            }
        }
        Ok(())
    }

    async fn kill(&self, node: usize) -> anyhow::Result<()> {
        self.log.goes_down(node, self.clock.now());
        self.cluster.node(node).lock().await.kill().await
    }

    async fn stop_cleanly(&self, node: usize, entry: usize) -> anyhow::Result<()> {
        self.log.goes_down(node, self.clock.now());
        if !self.cluster.node(node).lock().await.stop().await? {
            self.log.note(entry, "it did not stop when asked to, and was killed".into());
        }
        Ok(())
    }

    async fn start(&self, node: usize, entry: usize) -> anyhow::Result<()> {
        self.cluster.node(node).lock().await.start()?;
        self.ready(node, entry).await
    }

    async fn ready(&self, node: usize, entry: usize) -> anyhow::Result<()> {
        match self.cluster.ready(node).await {
            Ok(took) => {
                self.log.comes_up(node, self.clock.now());
                if took > Duration::from_secs(5) {
                    self.log.note(entry, format!("answered {:.1} s after its start", took.as_secs_f64()));
                }
            }
            Err(error) => {
                let mut what = format!("{error:#}");
                for line in self.cluster.node(node).lock().await.last_words(5) {
                    what += &format!("\n{line}");
                }
                self.log.violate("C14", &network::name(node), what);
            }
        }
        Ok(())
    }

    async fn restart_with(&self, node: usize, entry: usize, settings: Vec<String>) -> anyhow::Result<()> {
        self.stop_cleanly(node, entry).await?;
        self.cluster.node(node).lock().await.extra = settings;
        self.start(node, entry).await
    }

    /// The process is not reaped by the guard meanwhile: the node is held until it runs again.
    async fn fail_syncs(&self, fault: &Fault, entry: usize) -> anyhow::Result<()> {
        let mut node = self.cluster.node(fault.node).lock().await;
        let Some(pid) = node.pid() else { return Ok(()) };
        let mut tracer = Command::new("strace")
            .args(["-f", "-q", "-e", "trace=fsync,fdatasync,sync_file_range,syncfs", "-e"])
            .arg("inject=fsync,fdatasync,sync_file_range,syncfs:error=EIO")
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let began = self.clock.now();
        let ended = loop {
            if let Some(status) = node.ended() {
                break Some(status);
            }
            if self.clock.now() - began > DEATH.as_micros() as Micros {
                break None;
            }
            sleep(Duration::from_millis(20)).await;
        };
        tracer.kill().await.ok();
        let took = (self.clock.now() - began) as f64 / 1e6;
        match ended {
            Some(status) => {
                self.log.goes_down(fault.node, self.clock.now());
                self.log.note(entry, format!("died of it after {took:.2} s, {}", told(status)));
            }
            None => {
                let what = format!("its syncs failed for {took:.0} s, and it lives on");
                self.log.violate("P1", &node.name, what);
                self.log.goes_down(fault.node, self.clock.now());
                node.kill().await?;
            }
        }
        drop(node);
        self.quiet(fault.length).await;
        self.start(fault.node, entry).await
    }

    async fn fill(&self, fault: &Fault, entry: usize) -> anyhow::Result<()> {
        let index = fault.node;
        self.cluster.node(index).lock().await.disk.fill()?;
        let end = self.clock.now() + fault.length.as_micros() as Micros;
        let mut died = None;
        while self.clock.now() < end && died.is_none() && !self.stop.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(50)).await;
            died = self.cluster.node(index).lock().await.ended();
        }
        if let Some(status) = died {
            self.log.goes_down(index, self.clock.now());
            self.log.note(entry, format!("ended with {} when its disk was full", told(status)));
            self.quiet(Duration::from_micros(end.saturating_sub(self.clock.now()))).await;
        }
        let node = self.cluster.node(index).lock().await;
        node.disk.empty()?;
        let runs = node.runs();
        drop(node);
        match runs {
            true => Ok(()),
            false => self.start(index, entry).await,
        }
    }

    async fn roll_back(&self, fault: &Fault, clean: bool, entry: usize) -> anyhow::Result<()> {
        let node = fault.node;
        match clean {
            true => self.stop_cleanly(node, entry).await?,
            false => self.kill(node).await?,
        }
        self.cluster.node(node).lock().await.disk.set_aside()?;
        self.start(node, entry).await?;
        // What is acknowledged from here on is what the old disk lacks.
        self.refill.lost(node, entry, self.clock.now());
        self.quiet(fault.length).await;
        self.kill(node).await?;
        self.cluster.node(node).lock().await.disk.roll_back()?;
        self.start(node, entry).await?;
        self.refill.back(self.clock.now());
        Ok(())
    }

    /// A node that sets its data aside must have been given a disk that it may not use.
    fn set_aside(&self, node: usize, name: &str) {
        let now = self.clock.now();
        let at = format!("at {:.1} s it set its data aside as {name} and began anew", now as f64 / 1e6);
        let mut entries = locked(&self.log.entries);
        let unusable = |entry: &&mut Entry| {
            entry.node == network::name(node)
                && entry.kind == Kind::OldDisk.name()
                && entry.refilled_us.is_none_or(|refilled| now < refilled + SET_ASIDE_US_MAX)
        };
        match entries.iter_mut().rev().find(unusable) {
            Some(entry) => entry.notes.push(at),
            None => self.log.violate("C14", &network::name(node), format!("{at}, and its disk was not old")),
        }
    }

    /// Notices nodes that end by themselves, and starts them again. Runs for ever.
    pub(crate) async fn guard(&self) {
        loop {
            sleep(Duration::from_millis(200)).await;
            for index in 0..self.cluster.len() {
                // A node that somebody does something to is not ours now.
                let Ok(mut node) = self.cluster.node(index).try_lock() else { continue };
                node.disk.left_behind().iter().for_each(|name| self.set_aside(index, name));
                let Some(status) = node.ended() else { continue };
                let now = self.clock.now();
                self.log.goes_down(index, now);
                let mut what = format!("ended by itself at {:.1} s with {}", now as f64 / 1e6, told(status));
                for line in node.last_words(5) {
                    what += &format!("\n{line}");
                }
                let full = |entry: &Entry| {
                    entry.kind == Kind::FullDisk.name() && entry.node == node.name && entry.end_us.is_none()
                };
                if let Some(entry) = locked(&self.log.entries).iter_mut().find(|entry| full(entry)) {
                    entry.notes.push(what);
                    continue;
                }
                self.log.violate("C14", &node.name, what);
                if node.start().is_ok() {
                    drop(node);
                    if self.cluster.ready(index).await.is_ok() {
                        self.log.comes_up(index, self.clock.now());
                    }
                }
            }
        }
    }
}

fn describe(fault: &Fault) -> String {
    let length = format!("{:.1} s", fault.length.as_secs_f64());
    match &fault.deed {
        Deed::Kill => format!("kill -9, started again after {length}"),
        Deed::Pause => format!("SIGSTOP, SIGCONT after {length}"),
        Deed::Cut { peers, direction } => {
            let peers: Vec<String> = peers.iter().map(|peer| network::name(*peer)).collect();
            let arrow = match direction {
                network::Direction::Inbound => "hears nothing from",
                network::Direction::Outbound => "is not heard by",
                network::Direction::Both => "is cut off from",
            };
            format!("{arrow} {} for {length}", peers.join(" and "))
        }
        Deed::Part { minority } => {
            let names: Vec<String> = minority.iter().map(|member| network::name(*member)).collect();
            format!("{} cut off from all others for {length}", names.join(" and "))
        }
        Deed::FailedSync => {
            format!("fsync and fdatasync fail with EIO; started again {length} after its death")
        }
        Deed::FullDisk => format!("no byte free on its disk for {length}"),
        Deed::LostDisk => format!("kill -9, data directory removed, started again after {length}"),
        Deed::OldDisk { clean } => {
            let how = if *clean { "a clean stop" } else { "a kill -9" };
            format!("copy after {how}, put back after {length} of writes")
        }
        Deed::Rot { .. } => format!("kill -9, bytes of a table changed, started again after {length}"),
        Deed::Clock { offset_ms } => format!("clock {offset_ms:+} ms for {length}"),
    }
}
