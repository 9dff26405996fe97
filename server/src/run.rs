//! Start and stop, in order.
//!
//! ```text
//!   start   ports ─▶ storage, recovered ─▶ who am I: identity synced ─▶ node ─▶ serve, "ready"
//!   stop    health says so, no new calls ─▶ in flight drained ─▶ links closed ─▶ clean marker
//!           synced ─▶ storage closed
//! ```
//!
//! In: a checked configuration. Out: a node on a thread of its own, with a runtime of its own on
//! which all of its services run: one thread, so that the driver finds many inputs a turn; or, for tests,
//! on the caller's. Absent: what it serves.

use crate::accept;
use crate::clock::Clock;
use crate::config::Config;
use crate::descriptors;
use crate::driver::{Door, Driver, Input, Stopped, UnderWay};
use crate::error::Error;
use crate::grpc::{self, Directory};
use crate::metrics::Metrics;
use crate::owner;
use crate::peers::{self, Credentials, Peers};
use crate::resolve::{self, Plugins};
use crate::set_aside::{self, NotSetAside};
use crate::signals;
use crate::store::{self, Commits, CoreFold, Readers};
use crate::surroundings::{Network, Surroundings, Tcp, system_wall};
use crate::telemetry;
use crate::verify::Verifier;
use bytes::Bytes;
use merganser_core::Node;
use merganser_core::boot;
use merganser_core::catalog::Catalog;
use merganser_core::config::Config as CoreConfig;
use merganser_core::event::Record;
use merganser_core::id::NodeId;
use merganser_core::storage_key;
use merganser_proto::v1::TopologyReply;
use merganser_storage::fs::os::OsFs;
use merganser_storage::{Background, Db, Durability};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tonic_health::ServingStatus;

/// How long a stop waits for the last bytes of replies to leave.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Serves until SIGINT, SIGTERM, SIGHUP or SIGQUIT, or until the disk fails.
pub fn serve(mut config: Config) -> Result<(), Error> {
    config.check()?;
    let _telemetry = telemetry::start(&config.log)?;
    resolve::compile_in_children(&config.storage.dir, config.limits.plugin_threads)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    {
        let _within = runtime.enter();
        signals::survive()?;
    }
    descriptors::leave_room(&mut config, descriptors::raise());
    let mut stop = None;
    loop {
        let mut running = start(config.clone())?;
        telemetry::say(format!("ready: clients {}, peers {}", running.client_address, running.peer_address));
        runtime.block_on(async {
            // Until the first start is over, a signal ends the process at once: nothing is served yet.
            let stop = match &mut stop {
                Some(stop) => stop,
                none => none.insert(signals::Stop::listen()?),
            };
            tokio::select! {
                signal = stop.told() => tracing::info!(signal, "told_to_stop"),
                _ = &mut running.ended => {}
            }
            Ok::<(), Error>(())
        })?;
        match running.stop() {
            // Bounded: it is set aside a few times a day, and then no more.
            Err(error @ Error::SetAside { .. }) => tracing::error!(%error, "starting_empty"),
            ended => return ended,
        }
    }
}

/// A node that serves, on a thread of its own. Dropping it stops it.
pub struct Running {
    client_address: SocketAddr,
    peer_address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<()>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Running {
    /// Where it listens for clients.
    pub fn client_address(&self) -> SocketAddr {
        self.client_address
    }

    /// Where it listens for peers.
    pub fn peer_address(&self) -> SocketAddr {
        self.peer_address
    }

    /// Stops it in order and says how it ended.
    pub fn stop(mut self) -> Result<(), Error> {
        self.end()
    }

    fn end(&mut self) -> Result<(), Error> {
        // Gone already if the node has ended by itself.
        let _ = self.stop.take().map(|stop| stop.send(()));
        self.thread.take().map_or(Ok(()), |thread| thread.join().unwrap_or(Err(Error::Panicked)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "the node ended badly");
        }
    }
}

/// Starts a node and returns once it serves.
pub fn start(config: Config) -> Result<Running, Error> {
    config.check()?;
    let clients = listen("clients", "client", config.client_address()?)?;
    let peers = listen("peers", "peer", config.peer_address()?)?;
    let (client_address, peer_address) = (clients.local_addr()?, peers.local_addr()?);
    owner::check(&config)?;
    if let Some(aside) = set_aside::finish(&config.storage.dir).map_err(Error::HalfSetAside)? {
        tracing::warn!(aside = %aside.display(), "finished_setting_aside");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let surroundings = {
        let _within = runtime.enter();
        Surroundings {
            network: Tcp,
            clients: tokio::net::TcpListener::from_std(clients)?,
            peers: tokio::net::TcpListener::from_std(peers)?,
            files: Arc::new(OsFs),
            wall: system_wall,
            seed: StdRng::from_os_rng().random(),
        }
    };
    let (stop, stopped) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let name = format!("node-{}", config.node.name);
    let background = store::threads(&config.storage);
    let parts = Parts::assemble(config, surroundings, background)?;
    owner::note(&parts.config)?;
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        let result = runtime.block_on(parts.run(stopped, set_aside::set_aside));
        drop(end);
        // Tasks that still wait for something are dropped here.
        runtime.shutdown_background();
        result
    })?;
    tracing::info!(clients = %client_address, peers = %peer_address, "ready");
    Ok(Running { client_address, peer_address, stop: Some(stop), ended, thread: Some(thread) })
}

/// A node on the caller's runtime, in surroundings of his making, until `stop` is sent or dropped: for
/// tests. Its disk has no threads, so that nothing of it runs but what the runtime polls; only plugins
/// have threads, and they rest while no keyspace has a plugin. What it spawned ends with the runtime.
///
/// After [`Error::SetAside`] the caller must not use the files again.
pub async fn run_within<N: Network>(
    config: Config,
    surroundings: Surroundings<N>,
    stop: oneshot::Receiver<()>,
) -> Result<(), Error> {
    config.check()?;
    let parts = Parts::assemble(config, surroundings, Background::Stepped)?;
    let work = tokio::spawn(store::work_off(parts.db.clone()));
    let result = parts.run(stop, |dir| Ok(dir.to_owned())).await;
    work.abort();
    result
}

fn listen(what: &'static str, key: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| Error::Listen { what, key, address, source })
}

/// Who this node is and what it knew: read from disk, and synced before anything is served.
fn boot(config: &Config, db: &Db, random: &mut StdRng) -> Result<Node, Error> {
    let (identity, _) = own_record(config, db, storage_key::identity(), "who this node is")?;
    let (identity, op) = boot::begin(identity.as_ref(), &owner::of(config), random.random(), random.random())
        .map_err(|refusal| owner::refused(config, &refusal))?;
    db.write(vec![store::op(op)], Durability::Sync)?;
    let (record, catalog_is_lost) = own_record(config, db, storage_key::catalog(), "the catalog")?;
    let catalog = match record {
        Some(record) => Catalog::decode(record.body)
            .map_err(|error| Error::Damaged { what: "the catalog", reason: error.to_string() })?,
        None => Catalog::default(),
    };
    let incarnation = identity.incarnation;
    tracing::info!(
        node = config.node.name,
        disk = ?identity.disk,
        boots = identity.boots,
        actor = ?incarnation.actor,
        issued = incarnation.issued,
        "booted"
    );
    let limits = &config.limits;
    let this = NodeId::from_name(&config.node.name);
    let core = CoreConfig {
        built_in: resolve::built_in(),
        built_in_compiled: false,
        timeout_ms: limits.timeout_ms,
        timeout_ms_max: limits.timeout_ms_max,
        hedge_ms: limits.hedge_ms,
        address: config.this_member()?.peer_address.clone(),
        gossip_period_ms: limits.gossip_period_ms,
        forget_ms: config.repair.forget_h * 3_600_000,
        collect_period_ms: config.repair.collect_period_ms,
        grave_ms: config.repair.grave_s * 1_000,
        hint_bytes_max: config.repair.hint_mb << 20,
        hint_age_ms_max: config.repair.hint_h * 3_600_000,
        hint_rate_bytes_per_s: config.repair.mb_per_s << 20,
        anti_entropy_period_ms: config.repair.period_ms,
        repair_bytes_per_s: config.repair.mb_per_s << 20,
        scrub_period_ms: config.repair.scrub_period_h * 3_600_000,
        scrub_bytes_per_s: config.repair.scrub_mb_per_s << 20,
        cost_in_flight_max: limits.in_flight_mb << 20,
        view_cache_bytes: (limits.view_cache_mb << 20) as usize,
        in_flight_max: limits.in_flight as usize,
        ..CoreConfig::new(this, config.core_members(), config.cluster.secret.0.clone().into_bytes())
    };
    let mut node = Node::new(core, identity, catalog, random.random());
    if catalog_is_lost {
        node.lacks_catalog();
    }
    Ok(node)
}

/// One of this node's own records, and whether it is lost: what its block said the other members know as well, or, of
/// who this node is, need not know. Without other members there is nobody to ask.
fn own_record(
    config: &Config,
    db: &Db,
    key: Bytes,
    what: &'static str,
) -> Result<(Option<Record>, bool), Error> {
    match db.get(&key) {
        Ok(record) => Ok((record.map(store::to_core), false)),
        Err(merganser_storage::Error::Corruption { .. }) if config.cluster.members.len() > 1 => {
            tracing::error!(what, "own_record_damaged");
            Ok((None, true))
        }
        Err(error @ merganser_storage::Error::Corruption { .. }) => {
            Err(Error::Damaged { what, reason: error.to_string() })
        }
        Err(error) => Err(error.into()),
    }
}

/// Everything of a node that is about to serve.
struct Parts<N: Network> {
    config: Config,
    network: N,
    clients: N::Listener,
    peers: N::Listener,
    random: StdRng,
    door: Door,
    inputs: mpsc::UnboundedReceiver<Input>,
    metrics: Arc<Metrics>,
    directory: Arc<Directory>,
    topology: watch::Receiver<Arc<TopologyReply>>,
    host: Arc<merganser_plugin_host::Host>,
    driver: Driver,
    db: Db,
}

impl<N: Network> Parts<N> {
    fn assemble(
        config: Config,
        surroundings: Surroundings<N>,
        background: Background,
    ) -> Result<Parts<N>, Error> {
        let Surroundings { network, clients, peers, files, wall, seed } = surroundings;
        let mut random = StdRng::from_seed(seed);
        let (door, inputs) = Door::new();
        let metrics = Arc::new(Metrics::default());

        let sink = Arc::new(Commits(door.clone()));
        let options = store::options(&config.storage, background);
        let (db, recovery) = Db::open(files, &config.storage.dir, options, Arc::new(CoreFold), sink)?;
        tracing::info!(dir = %config.storage.dir.display(), ?recovery, "storage_opened");
        let node = boot(&config, &db, &mut random)?;

        let plugin_bytes_max = (config.limits.plugin_queue_mb << 20) as usize;
        let plugins = Plugins::start(config.limits.plugin_threads, plugin_bytes_max, &door, &metrics)?;
        let (readers, verifier) = match background {
            Background::Threads { .. } => (
                Readers::start(config.storage.read_threads, &db, &door)?,
                Some(Verifier::start(&db, &door, config.repair.scrub_mb_per_s << 20)?),
            ),
            Background::Stepped => (Readers::Inline { db: db.clone(), door: door.clone() }, None),
        };
        let directory = Arc::new(Directory::new(&config, node.ring()));
        let (topology, topology_seen) = watch::channel(Arc::new(TopologyReply::default()));
        let host = plugins.host();
        let driver = Driver {
            node,
            db: db.clone(),
            readers,
            _verifier: verifier,
            plugins,
            directory: Arc::clone(&directory),
            topology,
            metrics: Arc::clone(&metrics),
            clock: Clock::new(wall, config.node.clock_offset_ms),
            under_way: UnderWay::default(),
        };
        Ok(Parts {
            config,
            network,
            clients,
            peers,
            random,
            door,
            inputs,
            metrics,
            directory,
            topology: topology_seen,
            host,
            driver,
            db,
        })
    }

    async fn run(
        self,
        stop: oneshot::Receiver<()>,
        set_aside: impl FnOnce(&Path) -> Result<PathBuf, NotSetAside>,
    ) -> Result<(), Error> {
        let db = self.db.clone();
        match self.serve(stop).await? {
            Stopped::Clean(marker) => {
                db.write(vec![store::op(marker)], Durability::Sync)?;
                tracing::info!("stopped clean");
                Ok(db.close()?)
            }
            Stopped::Unclean => {
                tracing::warn!("stopped with work in flight; the next start takes a new actor");
                Ok(db.close()?)
            }
            Stopped::RejoinEmpty(reason) => {
                let dir = db.dir().to_owned();
                // Whatever it still held is given up with the rest.
                let _ = db.close();
                Err(match set_aside(&dir) {
                    Ok(aside) => Error::SetAside { reason, aside },
                    Err(source) => Error::NotSetAside { reason, source },
                })
            }
            Stopped::Failed(error) => Err(error.into()),
        }
    }

    async fn serve(mut self, mut stop: oneshot::Receiver<()>) -> Result<Stopped, Error> {
        let (peers_seed, ids_seed) = (self.random.random(), self.random.random());
        let Parts { config, network, door, metrics, directory, .. } = self;
        let secret = config.cluster.secret.0.as_bytes();
        let credentials =
            Credentials::new(&config.cluster, &config.node.name, secret, self.driver.node.moment().session);
        let queue_bytes_max = (config.limits.peer_queue_mb << 20) as usize;
        let (listen, counted) = (&config.listen, Arc::clone(&metrics));
        let refusals = Arc::clone(&directory.refusals);
        let links =
            Peers::new(credentials, queue_bytes_max, listen, door.clone(), counted, refusals, peers_seed);

        let (stopping, stopping_seen) = watch::channel(false);
        let shared = grpc::Shared {
            door: door.clone(),
            directory: Arc::clone(&directory),
            topology: self.topology,
            stopping: stopping_seen.clone(),
            host: self.host,
        };
        let (router, health) = grpc::server(&config, shared, ids_seed);
        for service in grpc::SERVICES {
            health.set_service_status(service, ServingStatus::Serving).await;
        }
        let connections_max = config.limits.connections as usize;
        let incoming = accept::incoming::<N>(self.clients, connections_max, Arc::clone(&metrics));
        let mut until = stopping_seen.clone();
        let serving = tokio::spawn(router.serve_with_incoming_shutdown(incoming, async move {
            let _ = until.wait_for(|stopping| *stopping).await;
        }));

        let connections_max = 2 * config.cluster.members.len() + peers::CONNECTIONS_SPARE;
        let incoming = accept::incoming::<N>(self.peers, connections_max, Arc::clone(&metrics));
        tokio::spawn(links.server().add_service(links.service()).serve_with_incoming(incoming));
        peers::dial_all(&network, &links, directory.this, &config.cluster.members);

        let mut driver = tokio::spawn(self.driver.run(self.inputs));
        tokio::select! {
            biased;
            // Also when the handle was dropped without a word.
            _ = &mut stop => {}
            stopped = &mut driver => return stopped.map_err(|_| Error::Panicked),
        }
        tracing::info!("stopping");
        for service in grpc::SERVICES {
            health.set_service_status(service, ServingStatus::NotServing).await;
        }
        health.set_service_status("", ServingStatus::NotServing).await;
        let _ = stopping.send(true);
        door.put(Input::Stop { drain_ms: config.limits.drain_ms });
        let stopped = driver.await.map_err(|_| Error::Panicked)?;
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, serving).await;
        Ok(stopped)
    }
}
