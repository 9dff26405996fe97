//! The supervisor: starts the nodes, watches them, carries out what the console says, stops them.
//!
//! In: a directory's plan, lines of standard input. Out: events. One task owns everything here, so
//! a command is carried out whole before the next one is looked at. Absent: restarting a node that
//! died by itself; a developer wants to see that.

use super::{
    console::{self, Command},
    directory::{Directory, Place},
    links::{Links, Traffic},
    process::{Condition, Process, Signals},
    report::{Event, Node, Report, Sees, Sight},
};
use anyhow::{Context as _, bail};
use merganser_client::{Client, proto::node_status::Link};
use std::{
    collections::BTreeSet, io::BufRead as _, path::PathBuf, process::ExitStatus, task::Poll, time::Duration,
};
use tokio::{sync::mpsc, time::Instant};

/// How long all nodes together may take to answer after a start.
const START: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Lines that may wait while a command is carried out.
const LINES: usize = 256;

/// Runs a cluster.
#[derive(Debug)]
pub(super) struct Supervisor {
    directory: Directory,
    executable: PathBuf,
    report: Report,
    links: Links,
    nodes: Vec<(Place, Process)>,
    cut: Option<String>,
}

impl Supervisor {
    /// Opens the links; starts nothing yet.
    pub(super) async fn new(
        directory: Directory,
        executable: PathBuf,
        report: Report,
    ) -> anyhow::Result<Supervisor> {
        let peers: Vec<_> =
            directory.places().iter().map(|place| (place.name.clone(), place.peer())).collect();
        let links = Links::open(&peers).await.context("failed to open the links between the nodes")?;
        let process = |place: &Place| (place.clone(), Process::new(directory.of_node(&place.name)));
        let nodes = directory.places().iter().map(process).collect();
        Ok(Supervisor { directory, executable, report, links, nodes, cut: None })
    }

    /// Starts all nodes and returns when they answer and see one another.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        for moved in self.directory.moved() {
            let (wanted, port) = (moved.wanted, moved.port);
            self.report.event(&Event::PortTaken { what: &moved.what, wanted, port });
        }
        for index in 0..self.nodes.len() {
            self.start_node(index).await?;
        }
        self.until_ready(&self.names()).await?;
        let node = |(place, process): &(Place, Process)| {
            (
                place.client().to_string(),
                place.peer().to_string(),
                process.pid().unwrap_or_default(),
                process.log(),
            )
        };
        let facts: Vec<_> = self.nodes.iter().map(node).collect();
        let nodes = facts.iter().zip(&self.nodes).map(|((client, peer, pid, log), (place, _))| Node {
            name: &place.name,
            client: client.clone(),
            peer: peer.clone(),
            pid: *pid,
            log,
        });
        let (dir, resumed) = (self.directory.path(), self.directory.resumed());
        self.report.event(&Event::Ready { dir, resumed, nodes: nodes.collect() });
        Ok(())
    }

    /// Carries out what standard input says until it says `quit`. A standard input that is closed
    /// says nothing: then only a signal ends it, or, where a program listens, this, because a
    /// program that is gone sends no signal.
    pub(super) async fn obey_console(&mut self) {
        let (mut lines, mut closed) = (read_lines(), false);
        if self.report.prompts() {
            self.report.event(&Event::Help { text: console::INVITATION });
        }
        loop {
            tokio::select! {
                line = lines.recv(), if !closed => {
                    let Some(line) = line else {
                        closed = true;
                        match self.report.json() {
                            true => return,
                            false => continue,
                        }
                    };
                    match console::parse(&line, &self.names()) {
                        Ok(None) => {}
                        Ok(Some(Command::Quit)) => return,
                        Ok(Some(command)) => self.obey(line.trim(), command).await,
                        Err(error) => self.report.event(&Event::Failed { command: line.trim(), error }),
                    }
                }
                (index, how) = next_exit(&mut self.nodes) => self.tell_death(index, how),
            }
        }
    }

    async fn obey(&mut self, line: &str, command: Command) {
        let done = match command {
            Command::Help => return self.report.event(&Event::Help { text: console::HELP }),
            Command::Status => return self.tell_status().await,
            Command::Cut { groups, silent } => Ok(self.cut(&groups, silent)),
            Command::Heal => Ok(self.heal()),
            Command::Kill(name) => self.kill(&name).await,
            Command::Stop(name) => self.stop_node(&name).await,
            Command::Restart(name) => self.restart(&name).await,
            Command::Wipe(name) => self.wipe(&name).await,
            Command::Pause(name) => self.pause(&name),
            Command::Resume(name) => self.resume(&name),
            Command::Quit => return,
        };
        match done {
            Ok(what) => self.report.event(&Event::Done { command: line, what }),
            Err(error) => self.report.event(&Event::Failed { command: line, error: format!("{error:#}") }),
        }
    }

    /// Cuts every connection between groups, and joins again what an earlier cut parted.
    pub(super) fn cut(&mut self, groups: &[BTreeSet<String>], silent: bool) -> String {
        let side = |name: &str| groups.iter().position(|group| group.contains(name));
        let cut = if silent { Traffic::Silent } else { Traffic::Closed };
        self.links.set(|from, to| if side(from) == side(to) { Traffic::Flows } else { cut });
        let names = |group: &BTreeSet<String>| group.iter().cloned().collect::<Vec<_>>().join(" ");
        let drawn = groups.iter().map(names).collect::<Vec<_>>().join(" | ");
        self.cut = Some(drawn.clone());
        match silent {
            true => format!("Cut, silently: {drawn}. Connections stay, and nothing arrives."),
            false => format!("Cut: {drawn}. Every connection between the sides is closed."),
        }
    }

    /// Undoes cuts.
    pub(super) fn heal(&mut self) -> String {
        self.links.set(|_, _| Traffic::Flows);
        self.cut = None;
        "Healed: every node can reach every other.".into()
    }

    /// kill -9.
    pub(super) async fn kill(&mut self, name: &str) -> anyhow::Result<String> {
        let process = self.running(name)?;
        process.kill().await?;
        Ok(format!("Killed {name} with SIGKILL."))
    }

    async fn stop_node(&mut self, name: &str) -> anyhow::Result<String> {
        let process = self.running(name)?;
        process.ask_to_stop();
        match process.stopped(Instant::now()).await? {
            true => Ok(format!("Stopped {name}.")),
            false => Ok(format!("{name} did not stop in time and was killed.")),
        }
    }

    /// Starts it; if it runs, stops it before.
    pub(super) async fn restart(&mut self, name: &str) -> anyhow::Result<String> {
        let index = self.index(name)?;
        if self.nodes[index].1.condition() != Condition::Stopped {
            self.stop_node(name).await?;
        }
        self.start_node(index).await?;
        self.until_ready(&[name.to_owned()]).await?;
        let pid = self.nodes[index].1.pid().unwrap_or_default();
        Ok(format!("Started {name} as process {pid}."))
    }

    /// As if its disk had been replaced.
    async fn wipe(&mut self, name: &str) -> anyhow::Result<String> {
        let index = self.index(name)?;
        if self.nodes[index].1.condition() != Condition::Stopped {
            self.kill(name).await?;
        }
        let data = self.directory.data_of(name);
        std::fs::remove_dir_all(&data).with_context(|| format!("failed to remove {}", data.display()))?;
        self.start_node(index).await?;
        self.until_ready(&[name.to_owned()]).await?;
        Ok(format!("Started {name} with an empty disk; `merganser cluster repair` shows how it is refilled."))
    }

    fn pause(&mut self, name: &str) -> anyhow::Result<String> {
        self.running(name)?.pause();
        Ok(format!("Paused {name}: the process exists and does nothing."))
    }

    fn resume(&mut self, name: &str) -> anyhow::Result<String> {
        self.running(name)?.resume();
        Ok(format!("Resumed {name}."))
    }

    async fn tell_status(&self) {
        let mut nodes = Vec::new();
        for (place, process) in &self.nodes {
            let (condition, asked) = match process.condition() {
                Condition::Running => ("running", true),
                Condition::Paused => ("paused", false),
                Condition::Stopped => ("stopped", false),
            };
            let sees = if asked { sees(place).await.ok() } else { None };
            let (client, pid) = (place.client().to_string(), process.pid());
            nodes.push(Sight { name: &place.name, client, condition, pid, sees });
        }
        self.report.event(&Event::Status { nodes, cut: self.cut.clone() });
    }

    fn tell_death(&self, index: usize, how: std::io::Result<ExitStatus>) {
        let (place, process) = &self.nodes[index];
        let how = how.map_or_else(|error| error.to_string(), |status| status.to_string());
        let (log, last_words) = (&*process.log(), process.last_words());
        self.report.event(&Event::Died { node: &place.name, how, log, last_words });
    }

    /// Stops all nodes at once; a second signal kills those that still run.
    pub(super) async fn stop(&mut self, signals: &mut Signals) {
        let asked = Instant::now();
        let mut killed = Vec::new();
        for (_, process) in &mut self.nodes {
            process.ask_to_stop();
        }
        for (place, process) in &mut self.nodes {
            let in_time = tokio::select! {
                in_time = process.stopped(asked) => in_time.unwrap_or(false),
                () = signals.next() => false,
            };
            if !in_time {
                // One that cannot be killed has just ended.
                let _ = process.kill().await;
                killed.push(place.name.as_str());
            }
        }
        self.report.event(&Event::Stopped { dir: self.directory.path(), killed });
    }

    /// Names of all nodes.
    pub(super) fn names(&self) -> Vec<String> {
        self.nodes.iter().map(|(place, _)| place.name.clone()).collect()
    }

    /// Where a node listens for clients.
    pub(super) fn client_address(&self, name: &str) -> anyhow::Result<String> {
        Ok(self.nodes[self.index(name)?].0.client().to_string())
    }

    /// This executable, for commands that a user could type.
    pub(super) fn executable(&self) -> &std::path::Path {
        &self.executable
    }

    /// Where the cluster's files are.
    pub(super) fn dir(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// How to say something.
    pub(super) fn report(&self) -> Report {
        self.report
    }

    async fn start_node(&mut self, index: usize) -> anyhow::Result<()> {
        let (place, process) = &mut self.nodes[index];
        let links = &self.links;
        // A place is never its own peer, and every other pair has a link.
        let dialled = |to: &Place| links.address(&place.name, &to.name).unwrap_or_else(|| to.peer());
        let config = self.directory.write_config(place, dialled)?;
        if process.end_orphan(&config).await? {
            self.report.event(&Event::OrphanEnded { node: &place.name });
        }
        process.start(&self.executable, &config)
    }

    /// Returns when `names` answer, and, where nothing is cut or stopped, see one another.
    async fn until_ready(&mut self, names: &[String]) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        let all = self.cut.is_none()
            && self.nodes.iter().all(|(_, process)| process.condition() == Condition::Running);
        let others = self.nodes.len() - 1;
        for name in names {
            let place = self.nodes[self.index(name)?].0.clone();
            let ready = async {
                loop {
                    match sees(&place).await {
                        Ok(sees) if !all || sees.up.len() == others => return,
                        _ => tokio::time::sleep(POLL).await,
                    }
                }
            };
            let exit = tokio::select! {
                () = ready => None,
                exit = next_exit(&mut self.nodes) => Some(exit),
                () = tokio::time::sleep_until(deadline) => {
                    bail!("{name} does not answer; see {}", self.nodes[self.index(name)?].1.log().display());
                }
            };
            if let Some((index, how)) = exit {
                self.tell_death(index, how);
                bail!("{} ended while it started", self.nodes[index].0.name);
            }
        }
        Ok(())
    }

    fn index(&self, name: &str) -> anyhow::Result<usize> {
        let found = self.nodes.iter().position(|(place, _)| place.name == name);
        found.with_context(|| format!("there is no node `{name}`"))
    }

    fn running(&mut self, name: &str) -> anyhow::Result<&mut Process> {
        let index = self.index(name)?;
        let process = &mut self.nodes[index].1;
        if process.condition() == Condition::Stopped {
            bail!("{name} does not run; `restart {name}` starts it");
        }
        Ok(process)
    }
}

/// The first process that ends by itself.
async fn next_exit(nodes: &mut [(Place, Process)]) -> (usize, std::io::Result<ExitStatus>) {
    std::future::poll_fn(|task| {
        for (index, (_, process)) in nodes.iter_mut().enumerate() {
            if let Poll::Ready(how) = process.poll_exit(task) {
                return Poll::Ready((index, how));
            }
        }
        Poll::Pending
    })
    .await
}

/// How a node sees its peers, as it says itself.
async fn sees(place: &Place) -> anyhow::Result<Sees> {
    let address = place.client().to_string();
    let client = Client::builder().follow_topology(false).connect([address.clone()]).await?;
    let status = client.admin().with_timeout(Duration::from_secs(2)).status_of(&address).await?;
    let (up, down) = status
        .nodes
        .into_iter()
        .filter(|node| node.link() != Link::Self_ && node.name != place.name)
        .partition::<Vec<_>, _>(|node| node.link() == Link::Up);
    let names =
        |nodes: Vec<merganser_client::proto::NodeStatus>| nodes.into_iter().map(|node| node.name).collect();
    Ok(Sees { up: names(up), down: names(down) })
}

/// Reads lines on a thread of its own: a read of standard input cannot be called back.
fn read_lines() -> mpsc::Receiver<String> {
    let (send, lines) = mpsc::channel(LINES);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if send.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}
