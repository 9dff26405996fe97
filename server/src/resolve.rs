//! Plugin calls, on threads of their own: bounded in number and in bytes, fair between keyspaces.
//!
//! ```text
//!   Effect::Plugin ─▶ breaker ─▶ lane of (keyspace, plugin) ─▶ worker ─▶ Host::call ─▶ PluginDone
//!   Effect::LoadPlugin ─────────────────────────────────────▶ loader ─▶ Host::load ─▶ PluginLoaded
//! ```
//!
//! No lane, nor all slow ones together, holds all workers or all room, and lanes take turns, so that a plugin
//! that loops delays nobody but its own keyspace (P7). In: core's calls. Out: answers, or that there is none (R7).
//! Absent: what an answer means.

mod convert;
mod lanes;

use crate::driver::{Door, Input};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::niceness;
use bytes::Bytes;
use lanes::{Job, Lanes, Taken};
use merganser_core::event::Event;
use merganser_core::id::{PluginHash, Ticket};
use merganser_core::plugin::{PluginAnswer, PluginCall, World};
use merganser_plugin_host::{self as host, Breaker, BreakerOptions, Change, Host, Limits, Permit};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Instant;

/// No node's `limits.module_mb` is above this.
const MODULE_BYTES_MAX: usize = 64 << 20;

/// A keyspace and the plugin it asks.
pub(crate) type Lane = (String, PluginHash);

/// The node's handle on its plugins.
pub(crate) struct Plugins {
    shared: Arc<Shared>,
    loader: mpsc::Sender<Load>,
}

struct Shared {
    host: Arc<Host>,
    lanes: Lanes,
    breakers: Mutex<BTreeMap<Lane, Breaker>>,
    started: Instant,
    door: Door,
    metrics: Arc<Metrics>,
}

enum Load {
    /// Core waits for the outcome.
    Uploaded(PluginHash, Bytes),
    /// So that the first call does not wait.
    BuiltIn(PluginHash),
}

impl Plugins {
    /// With `threads` workers and a loader. They end when the handle is dropped.
    pub(crate) fn start(
        threads: u32,
        queue_bytes_max: usize,
        door: &Door,
        metrics: &Arc<Metrics>,
    ) -> Result<Plugins, Error> {
        let shared = Arc::new(Shared {
            host: shared_host()?,
            lanes: Lanes::new(threads as usize, queue_bytes_max),
            breakers: Mutex::default(),
            started: Instant::now(),
            door: door.clone(),
            metrics: Arc::clone(metrics),
        });
        for number in 0..threads {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("plugin-{number}")).spawn(move || shared.work())?;
        }
        let (loader, loads) = mpsc::channel();
        let of_loader = Arc::clone(&shared);
        std::thread::Builder::new().name("plugin-load".into()).spawn(move || {
            niceness::yield_to_others();
            loads.into_iter().for_each(|load| of_loader.load(load));
        })?;
        Ok(Plugins { shared, loader })
    }

    /// Asks; the answer comes by the door, or at once where the plugin is not asked.
    pub(crate) fn call(&self, ticket: Ticket, plugin: PluginHash, call: PluginCall) -> Option<Event> {
        let refused = |reason: &str| {
            self.shared.metrics.plugin_calls_refused.add(1);
            Some(Event::PluginDone { ticket, answer: PluginAnswer::Failed(reason.into()) })
        };
        let call = convert::call(call);
        let lane = (convert::keyspace(&call).to_owned(), plugin);
        // A probe must be noted, so room in the queue is looked at first.
        if !self.shared.lanes.has_room(&lane, &call) {
            return refused("too many plugin calls wait on this node");
        }
        if let Permit::No { .. } = self.shared.breaker(&lane, |breaker, now| breaker.permit(now)) {
            return refused("quarantined: it failed too often; it is tried again soon");
        }
        self.shared.lanes.push(lane, Job { ticket, call });
        None
    }

    /// Compiles an uploaded module.
    pub(crate) fn load(&self, hash: PluginHash, module: Bytes) {
        // The loader lives as long as this handle.
        let _ = self.loader.send(Load::Uploaded(hash, module));
    }

    /// Compiles a built-in module that a keyspace refers to, before it is asked for.
    pub(crate) fn prepare(&self, hash: PluginHash) {
        let _ = self.loader.send(Load::BuiltIn(hash));
    }

    pub(crate) fn host(&self) -> Arc<Host> {
        Arc::clone(&self.shared.host)
    }

    pub(crate) fn waiting_bytes(&self) -> usize {
        self.shared.lanes.waiting_bytes()
    }

    pub(crate) fn breakers_open(&self) -> usize {
        self.shared.breakers.lock().values().filter(|breaker| breaker.is_open()).count()
    }
}

impl Drop for Plugins {
    fn drop(&mut self) {
        self.shared.lanes.close();
    }
}

impl Shared {
    fn work(&self) {
        niceness::yield_to_others();
        while let Some(Taken { lane, job, slow }) = self.lanes.take() {
            self.metrics.plugin_calls.add(1);
            let plugin = convert::hash(lane.1);
            if !self.host.contains(&plugin) {
                self.load_built_in(&plugin);
            }
            let (outcome, stats) = self.host.call(&plugin, job.call);
            tracing::debug!(%plugin, keyspace = lane.0, fuel = stats.fuel, micros = stats.micros, "plugin_called");
            let change = self.breaker(&lane, |breaker, now| breaker.note(&outcome, now));
            if outcome.is_err() {
                self.metrics.plugin_calls_failed.add(1);
            }
            if change == Change::Tripped {
                self.metrics.plugin_breakers_tripped.add(1);
                tracing::warn!(%plugin, keyspace = lane.0, "plugin_breaker_tripped");
            }
            let answer = convert::answer(outcome);
            self.lanes.done(&lane, slow, stats.micros);
            self.door.put(Input::PluginDone { ticket: job.ticket, answer });
        }
    }

    fn load(&self, load: Load) {
        match load {
            Load::Uploaded(hash, module) => {
                self.metrics.plugin_loads.add(1);
                let result = self.host.load(&module);
                let result = match result {
                    Ok(loaded) if loaded.hash.0 != hash.0 => {
                        Err("its bytes are not those of its hash".into())
                    }
                    Ok(loaded) => Ok(convert::facts(loaded)),
                    Err(error) => Err(error.to_string()),
                };
                self.door.put(Input::PluginLoaded { hash, result });
            }
            Load::BuiltIn(hash) => self.load_built_in(&convert::hash(hash)),
        }
    }

    fn load_built_in(&self, plugin: &host::PluginHash) {
        let Some(built_in) = host::built_in().iter().find(|built_in| built_in.hash == *plugin) else {
            return;
        };
        self.metrics.plugin_loads.add(1);
        let result = self.host.load(built_in.wasm).map(convert::facts).map_err(|error| error.to_string());
        if let Err(error) = &result {
            tracing::error!(plugin = built_in.name, %error, "built_in_refused");
        }
        self.door.put(Input::PluginLoaded { hash: PluginHash(plugin.0), result });
    }

    fn breaker<T>(&self, lane: &Lane, of: impl FnOnce(&mut Breaker, u64) -> T) -> T {
        let now = self.started.elapsed().as_millis() as u64;
        let mut breakers = self.breakers.lock();
        let fresh = || Breaker::new(BreakerOptions::default());
        of(breakers.entry(lane.clone()).or_insert_with(fresh), now)
    }
}

/// One engine a process: nodes of one process (`dev`, tests) share compiled modules. Nothing is
/// kept between calls, so they share nothing else.
fn shared_host() -> Result<Arc<Host>, Error> {
    static HOST: OnceLock<Result<Arc<Host>, String>> = OnceLock::new();
    let limits = Limits { module_bytes_max: MODULE_BYTES_MAX, ..Limits::default() };
    let host = HOST.get_or_init(|| Host::new(limits).map(Arc::new).map_err(|error| error.to_string()));
    host.clone().map_err(Error::Plugins)
}

/// What ships with every node, for core.
pub(crate) fn built_in() -> Vec<merganser_core::catalog::PluginEntry> {
    host::built_in().iter().map(convert::built_in).collect()
}

/// The world as core names it.
pub(crate) fn world(world: host::World) -> World {
    match world {
        host::World::Resolver => World::Resolver,
        host::World::Lattice => World::Lattice,
        host::World::ReplicatedType => World::ReplicatedType,
    }
}
