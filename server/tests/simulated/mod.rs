//! The shell under turmoil: real nodes and the real client over a simulated network, in one thread
//! and simulated time.
//!
//! ```text
//!   host "a", "b", "c"   run_within: gRPC, links, driver, core, storage ── SimFs, stepped
//!   host "client"        the story: the client library, plain gRPC where it hides too much
//!   turmoil              delays, holds and drops segments; moves time, a millisecond a step
//! ```
//!
//! In: how many nodes, a seed, a story. Out: the story's end, or its failure with the seed. A story
//! may cut the network itself; machines are stopped and started between two steps of the world.
//! Absent: what replicas decide, which is the other simulation's business.

mod clients;
mod history;
mod links;
mod network;
mod random_faults;
mod stops;

use merganser_client::proto::cluster_client::ClusterClient;
use merganser_client::proto::{KeyspaceSettings, StatusReply, StatusRequest, TopologyReply, TopologyRequest};
use merganser_client::{Builder, Client};
use merganser_server::{Config, Member, Secret, Surroundings, run_within};
use merganser_storage::fs::sim::SimFs;
use network::Simulated;
use parking_lot::Mutex;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};
use turmoil::net::TcpListener;

const CLIENT_PORT: u16 = 7401;
const PEER_PORT: u16 = 7501;
/// Where simulated time begins: 2026.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);
/// No story takes longer, in its own time.
const STORY_MAX: Duration = Duration::from_secs(600);
pub(crate) const NAMES: [&str; 3] = ["a", "b", "c"];

/// What is done to a machine, between two steps of the world.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// SIGTERM; when the node has ended, its sockets close with its process.
    Stop(&'static str),
    /// kill -9 and what the disk had not synced is lost; the network tells nobody.
    LosePower(&'static str),
    /// Starts again, on what its disk holds.
    Start(&'static str),
}

struct Machine {
    name: &'static str,
    files: SimFs,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    ended: Mutex<Option<Result<(), String>>>,
    boots: Mutex<u8>,
}

/// What a story has at hand. Cheap to clone.
#[derive(Clone)]
pub(crate) struct World {
    seed: u64,
    orders: Arc<Mutex<Vec<Order>>>,
    machines: Arc<Vec<Machine>>,
}

/// Tells a story to three nodes that are linked, and have a keyspace `k` of three replicas.
pub(crate) fn told<S>(seed: u64, settle: impl Fn(&mut Config), story: impl FnOnce(World) -> S)
where
    S: Future<Output = anyhow::Result<()>> + 'static,
{
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(UNIX_EPOCH + EPOCH)
        .simulation_duration(STORY_MAX)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(5))
        .tcp_capacity(1024)
        .build();
    let machines = NAMES.map(|name| Machine {
        name,
        files: SimFs::new(),
        stop: Mutex::default(),
        ended: Mutex::default(),
        boots: Mutex::default(),
    });
    let world = World { seed, orders: Arc::default(), machines: Arc::new(machines.into()) };
    for (node, name) in NAMES.into_iter().enumerate() {
        let mut config = config(node);
        settle(&mut config);
        let world = world.clone();
        sim.host(name, move || live(world.clone(), node, config.clone()));
    }
    let began = world.clone();
    let told = story(world.clone());
    sim.client("client", async move {
        began.formed().await?;
        told.await?;
        Ok(())
    });
    loop {
        match sim.step() {
            Ok(false) => world.obey(&mut sim),
            Ok(true) => return,
            Err(error) => panic!("seed {seed}, after {:?}: {error}", sim.elapsed()),
        }
    }
}

/// A machine from its start to its end.
async fn live(world: World, node: usize, config: Config) -> turmoil::Result {
    let machine = &world.machines[node];
    let (stop, stopped) = oneshot::channel();
    *machine.stop.lock() = Some(stop);
    let boot = {
        let mut boots = machine.boots.lock();
        *boots += 1;
        *boots
    };
    let mut seed = [boot; 32];
    seed[0] = node as u8;
    seed[8..16].copy_from_slice(&world.seed.to_le_bytes());
    let surroundings = Surroundings {
        network: Simulated,
        clients: TcpListener::bind((Ipv4Addr::UNSPECIFIED, CLIENT_PORT)).await?,
        peers: TcpListener::bind((Ipv4Addr::UNSPECIFIED, PEER_PORT)).await?,
        files: Arc::new(machine.files.clone()),
        wall: || turmoil::since_epoch().unwrap_or_default(),
        seed,
    };
    let ended = run_within(config, surroundings, stopped).await;
    *machine.ended.lock() = Some(ended.map_err(|error| error.to_string()));
    // The world takes the process away, and its sockets with it.
    std::future::pending().await
}

fn config(node: usize) -> Config {
    let member = |name: &str| Member {
        name: name.into(),
        client_address: format!("{name}:{CLIENT_PORT}"),
        peer_address: format!("{name}:{PEER_PORT}"),
        zone: String::new(),
        weight: 1.0,
    };
    let mut config = Config::default();
    config.node.name = NAMES[node].into();
    config.cluster.name = "simulated".into();
    config.cluster.secret = Secret("a secret that all nodes share".into());
    config.cluster.members = NAMES.map(member).into();
    config.listen.client = Some(format!("0.0.0.0:{CLIENT_PORT}"));
    config.listen.peer = Some(format!("0.0.0.0:{PEER_PORT}"));
    config.storage.dir = format!("/{}", NAMES[node]).into();
    config.storage.memtable_mb = 4;
    config.storage.cache_mb = 4;
    config.storage.log_file_mb = 4;
    config.limits.plugin_threads = 1;
    config.repair.period_ms = 1_000;
    config
}

impl World {
    fn obey(&self, sim: &mut turmoil::Sim<'_>) {
        for order in std::mem::take(&mut *self.orders.lock()) {
            tracing::info!(?order, "order");
            match order {
                Order::Stop(name) => drop(self.machine(name).stop.lock().take().map(|stop| stop.send(()))),
                Order::LosePower(name) => {
                    for other in NAMES.iter().chain(&["client"]).filter(|other| **other != name) {
                        sim.partition(name, *other);
                    }
                    sim.crash(name);
                    for other in NAMES.iter().chain(&["client"]).filter(|other| **other != name) {
                        sim.release(name, *other);
                    }
                    let machine = self.machine(name);
                    machine.files.crash(self.seed + u64::from(*machine.boots.lock()));
                }
                Order::Start(name) => sim.bounce(name),
            }
        }
        for machine in self.machines.iter() {
            let ended = machine.ended.lock().take();
            if let Some(ended) = ended {
                assert_eq!(ended, Ok(()), "seed {}: {} ended badly", self.seed, machine.name);
                sim.crash(machine.name);
            }
        }
    }

    fn machine(&self, name: &str) -> &Machine {
        self.machines.iter().find(|machine| machine.name == name).expect("it is one of three")
    }

    fn order(&self, order: Order) {
        self.orders.lock().push(order);
    }

    pub(crate) fn stop(&self, name: &'static str) {
        self.order(Order::Stop(name));
    }

    pub(crate) fn lose_power(&self, name: &'static str) {
        self.order(Order::LosePower(name));
    }

    pub(crate) fn start(&self, name: &'static str) {
        self.order(Order::Start(name));
    }

    /// A client with the library's own settings, over the simulated network. `number` tells clients
    /// of one story apart.
    pub(crate) fn client(&self, number: u64) -> Builder {
        Client::builder()
            .seed(self.seed.wrapping_mul(1_000).wrapping_add(number))
            .connector(|endpoint| endpoint.connect_with_connector_lazy(network::connector()))
    }

    pub(crate) async fn connect(&self, number: u64) -> anyhow::Result<Client> {
        Ok(self.client(number).connect(NAMES.map(address)).await?)
    }

    /// A connection of its own to a node, and no library around it.
    pub(crate) async fn channel(&self, name: &str) -> anyhow::Result<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", address(name)))?;
        Ok(endpoint.connect_with_connector(network::connector()).await?)
    }

    pub(crate) async fn status(&self, name: &str) -> anyhow::Result<StatusReply> {
        let mut cluster = ClusterClient::new(self.channel(name).await?);
        Ok(cluster.status(StatusRequest {}).await?.into_inner())
    }

    /// One of a node's figures.
    pub(crate) async fn figure(&self, name: &str, figure: &str) -> anyhow::Result<f64> {
        let status = self.status(name).await?;
        let found = status.metrics.iter().find(|metric| metric.name == figure);
        Ok(found.ok_or_else(|| anyhow::anyhow!("no figure {figure}"))?.value)
    }

    /// Until a node's topology is as wished; follows its stream.
    pub(crate) async fn until(
        &self,
        name: &str,
        wished: impl Fn(&TopologyReply) -> bool,
    ) -> anyhow::Result<()> {
        let mut cluster = ClusterClient::new(self.channel(name).await?);
        let mut replies = cluster.topology(TopologyRequest {}).await?.into_inner();
        while let Some(reply) = replies.message().await? {
            if wished(&reply) {
                return Ok(());
            }
        }
        anyhow::bail!("{name} ended its topology")
    }

    /// Until these nodes are linked to all others.
    pub(crate) async fn linked(&self, names: &[&str]) -> anyhow::Result<()> {
        for name in names {
            self.until(name, |topology| topology.nodes.iter().all(|node| node.up)).await?;
        }
        Ok(())
    }

    async fn formed(&self) -> anyhow::Result<()> {
        // Ports are open a moment after the start.
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.linked(&NAMES).await?;
        let settings = KeyspaceSettings { n: 3, policy: "siblings".into(), ..Default::default() };
        self.connect(0).await?.admin().create_keyspace("k", settings).await?;
        for name in NAMES {
            self.until(name, |topology| !topology.keyspaces.is_empty()).await?;
        }
        Ok(())
    }
}

pub(crate) fn address(name: &str) -> String {
    format!("{name}:{CLIENT_PORT}")
}

/// Nothing gets from or to `name`, and nothing is lost: it comes late. As a process that is paused.
pub(crate) fn hold(name: &str) {
    others(name).for_each(|other| turmoil::hold(name, other));
}

/// What was held arrives, and whatever was cut is whole. What was lost stays lost: a connection
/// that lost something is black-holed until somebody closes it.
pub(crate) fn heal() {
    for (index, one) in NAMES.iter().enumerate() {
        turmoil::release(*one, "client");
        NAMES[..index].iter().for_each(|other| turmoil::release(*one, *other));
    }
}

pub(crate) fn others(name: &str) -> impl Iterator<Item = &'static str> {
    NAMES.into_iter().chain(["client"]).filter(move |other| *other != name)
}

/// Time of the story.
pub(crate) fn elapsed() -> Duration {
    turmoil::elapsed()
}

pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}
