//! From a point to its figures: the servers it needs, their records, warming up, two looks.
//!
//! In: points, one after another. Out: figures. The servers stay up between points, as long as a
//! point needs the same; before each measurement they are left alone until they are quiet, so
//! that no point pays for another's compaction. Absent: the loops; that is `load`.

use crate::{
    caller::Caller,
    cluster::{self, Cluster},
    figures::{Counted, Figures, Latency, Look, ratio},
    floor::Floor,
    load::{self, Load, Tally},
    point::{Point, Policy, Target, Transport},
    process,
    workload::Records,
};
use anyhow::{Result, anyhow, bail};
use merganser_client::proto::Metric;
use rand::{SeedableRng, rngs::SmallRng};
use std::{
    collections::{HashMap, hash_map::Entry},
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

const QUIET_LOOK_AFTER: Duration = Duration::from_millis(250);
/// What idle nodes may use, of one CPU.
const QUIET_SHARE: f64 = 0.03;
const QUIET_WITHIN: Duration = Duration::from_secs(15);
/// Memtables that each node has written to tables, and logs that it has freed, when it is seasoned.
const SEASONED_FLUSHES: f64 = 3.0;
const SEASON_WITHIN: Duration = Duration::from_secs(60);

/// How points are measured.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) dir: PathBuf,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// Servers that are up, and what is stored in them.
pub(crate) struct Session {
    settings: Settings,
    random: SmallRng,
    cluster: Option<Cluster>,
    /// By size of value.
    floors: HashMap<usize, Floor>,
    records: HashMap<(Target, Policy, usize, u32), Rc<Records>>,
    /// The cluster's logs are in their steady state.
    seasoned: bool,
}

impl Session {
    pub(crate) fn new(settings: Settings) -> Session {
        Session {
            settings,
            random: load::seeded(),
            cluster: None,
            floors: HashMap::new(),
            records: HashMap::new(),
            seasoned: false,
        }
    }

    /// Of the servers that `point` needs, started if they are not.
    pub(crate) async fn pids(&mut self, point: &Point) -> Result<Vec<u32>> {
        match point.target {
            Target::Cluster => {
                if self.cluster.is_none() {
                    self.cluster = Some(
                        Cluster::start(&cluster::binary()?, &self.settings.dir, serde_json::json!({}))
                            .await?,
                    );
                }
                Ok(self.cluster.as_ref().map(Cluster::pids).unwrap_or_default())
            }
            Target::Floor => {
                let floor = match self.floors.entry(point.value_bytes) {
                    Entry::Occupied(running) => running.into_mut(),
                    Entry::Vacant(place) => {
                        place.insert(Floor::start(&std::env::current_exe()?, point.value_bytes)?)
                    }
                };
                Ok(vec![floor.pid()])
            }
        }
    }

    /// Measures one point. Requires: on a `LocalSet`.
    pub(crate) async fn measure(&mut self, point: &Point) -> Result<Figures> {
        point.check()?;
        let pids = self.pids(point).await?;
        if point.target == Target::Cluster && !self.seasoned {
            self.season().await?;
            self.seasoned = true;
        }
        let records = self.records(point).await?;
        quiet(&pids).await?;
        let load = Load::new(point.clone(), self.callers(point, point.client).await?, records, self.random());
        let tasks = load.start();
        tokio::time::sleep(self.settings.warm_up).await;
        let counted_before = self.counted(point).await?;
        let before = look(&pids)?;
        let began = Instant::now();
        load.open_tally();
        tokio::time::sleep(self.settings.measured).await;
        let after = look(&pids)?;
        let seconds = began.elapsed().as_secs_f64();
        let tally = load.close_tally();
        let counted_after = self.counted(point).await?;
        load.stop();
        for task in tasks {
            task.await?;
        }
        let operations = tally.gets.len() + tally.puts.len();
        let nodes = match (counted_before, counted_after) {
            (Some(before), Some(after)) => Some(Counted::between(&before, &after, operations)),
            _ => None,
        };
        figures(point, tally, seconds, &before, &after, nodes)
    }

    /// Never the same numbers twice: a request id that comes again is a retry, and writes nothing.
    fn random(&mut self) -> SmallRng {
        SmallRng::from_rng(&mut self.random)
    }

    fn addresses(&self, point: &Point) -> Vec<String> {
        match point.target {
            Target::Cluster => self.cluster.iter().flat_map(Cluster::addresses).collect(),
            Target::Floor => {
                self.floors.get(&point.value_bytes).iter().map(|floor| floor.address.clone()).collect()
            }
        }
    }

    async fn callers(&self, point: &Point, client: Transport) -> Result<Vec<Vec<Caller>>> {
        let mut all = Vec::new();
        for address in self.addresses(point) {
            let mut callers = Vec::new();
            for _ in 0..point.connections {
                callers.push(Caller::connect(&address, client == Transport::Pipelined).await?);
            }
            all.push(callers);
        }
        Ok(all)
    }

    /// Stored, if they were not.
    async fn records(&mut self, point: &Point) -> Result<Rc<Records>> {
        let key = (point.target, point.policy, point.value_bytes, point.records);
        if let Some(records) = self.records.get(&key) {
            return Ok(Rc::clone(records));
        }
        let mut random = self.random();
        let node_of = |key: &[u8]| match &self.cluster {
            Some(cluster) if point.target == Target::Cluster => cluster.node_of(point.policy, key),
            _ => Ok(0),
        };
        let records =
            Rc::new(Records::new(point.policy, point.value_bytes, point.records, &mut random, node_of)?);
        if point.target == Target::Cluster {
            // All three replicas, so that no point begins with repairs.
            let storing = Point { in_flight: 64, write: 3, ..point.clone() };
            let callers = self.callers(&storing, Transport::Pipelined).await?;
            let load = Load::new(storing, callers, Rc::clone(&records), random);
            load.store_all().await.map_err(|error| anyhow!("failed to store the records: {error}"))?;
        }
        self.records.insert(key, Rc::clone(&records));
        Ok(records)
    }

    /// Loads a new cluster until all nodes write their logs into files that were written before:
    /// a fresh one costs an inode write with each sync, for the first minutes of a node's life.
    async fn season(&mut self) -> Result<()> {
        let mut random = self.random();
        let large = Point {
            value_bytes: 10 << 10,
            client: Transport::Pipelined,
            policy: Policy::Lww,
            records: 1_000,
            ..Point::default()
        };
        let node_of = |key: &[u8]| match &self.cluster {
            Some(cluster) => cluster.node_of(large.policy, key),
            None => Ok(0),
        };
        let records = Records::new(large.policy, large.value_bytes, large.records, &mut random, node_of)?;
        let callers = self.callers(&large, large.client).await?;
        let load = Load::new(large.clone(), callers, Rc::new(records), random);
        let deadline = Instant::now() + SEASON_WITHIN;
        while Instant::now() < deadline {
            load.store_all().await.map_err(|error| anyhow!("failed to load the new cluster: {error}"))?;
            let counted = self.counted(&large).await?.unwrap_or_default();
            let flushes = |node: &Vec<Metric>| {
                node.iter().find(|metric| metric.name == "storage_flushes").map_or(0.0, |metric| metric.value)
            };
            if counted.iter().all(|node| flushes(node) >= SEASONED_FLUSHES) {
                break;
            }
        }
        Ok(())
    }

    async fn counted(&self, point: &Point) -> Result<Option<Vec<Vec<Metric>>>> {
        match &self.cluster {
            Some(cluster) if point.target == Target::Cluster => Ok(Some(cluster.metrics().await?)),
            _ => Ok(None),
        }
    }
}

fn figures(
    point: &Point,
    tally: Tally,
    seconds: f64,
    before: &Look,
    after: &Look,
    nodes: Option<Counted>,
) -> Result<Figures> {
    let operations = tally.gets.len() + tally.puts.len();
    if operations == 0 {
        let error = tally.error.unwrap_or_else(|| "no request was answered".into());
        bail!("{point}: {error}");
    }
    if tally.overrun {
        bail!("{point}: the servers do not keep up with the rate; {operations} requests were answered");
    }
    let both = !tally.gets.is_empty() && !tally.puts.is_empty();
    let mut all = tally.gets.clone();
    all.add(&tally.puts)?;
    let each = |amount: f64| ratio(amount, operations as f64);
    let servers = after.servers.since(&before.servers);
    Ok(Figures {
        point: point.clone(),
        seconds,
        operations,
        errors: tally.errors,
        error: tally.error,
        per_second: operations as f64 / seconds,
        latency: Latency::of(&all),
        gets: both.then(|| Latency::of(&tally.gets)),
        puts: both.then(|| Latency::of(&tally.puts)),
        server_us: each(servers.cpu_us),
        client_us: each(after.client.since(&before.client).cpu_us),
        threads_us: servers.threads_us.into_iter().map(|(name, us)| (name, each(us))).collect(),
        accounted_bytes: each(servers.written_bytes),
        others_share: after.others_share(before),
        nodes,
    })
}

fn look(pids: &[u32]) -> Result<Look> {
    Ok(Look {
        servers: process::usage(pids)?,
        client: process::usage(&[std::process::id()])?,
        machine: process::machine()?,
    })
}

/// Waits until the servers have nothing left to do, or will not end.
async fn quiet(pids: &[u32]) -> Result<()> {
    let deadline = Instant::now() + QUIET_WITHIN;
    let mut used_us = process::usage(pids)?.cpu_us;
    while Instant::now() < deadline {
        tokio::time::sleep(QUIET_LOOK_AFTER).await;
        let now_us = process::usage(pids)?.cpu_us;
        if now_us - used_us <= QUIET_SHARE * QUIET_LOOK_AFTER.as_secs_f64() * 1e6 {
            return Ok(());
        }
        used_us = now_us;
    }
    Ok(())
}
