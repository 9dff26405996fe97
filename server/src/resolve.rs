//! Plugin calls, on threads of their own: bounded in number and in bytes, fair between keyspaces.
//!
//! ```text
//!   Effect::Plugin ─▶ poison, breaker ─▶ lane of (keyspace, plugin) ─▶ worker ─▶ Host::call ─▶ PluginDone
//!   Effect::LoadPlugin ─────────────────────────────────────▶ loader ─▶ Host::load ─▶ PluginLoaded
//! ```
//!
//! No lane, nor all slow ones together, holds all workers or all room, and lanes take turns, so that a plugin
//! that loops delays nobody but its own keyspace (P7). In: core's calls. Out: answers, or that there is none (R7).
//! Absent: what an answer means.

mod convert;
mod lanes;
mod loads;
mod poison;

use crate::driver::{Door, Input};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::niceness;
use bytes::Bytes;
use lanes::{Job, Lanes, Taken};
use loads::Load;
use merganser_core::event::Event;
use merganser_core::id::{PluginHash, Ticket};
use merganser_core::plugin::{PluginAnswer, PluginCall, World};
use merganser_plugin_host::{
    self as host, Answer, Breaker, BreakerOptions, Cache, Change, Compiler, Failure, Host, Limits, Permit,
};
use parking_lot::Mutex;
use poison::{Poison, Subject};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Instant;

/// Modules that peers send; what clients upload is bounded by `limits.module_mb`, which is no larger.
const MODULE_BYTES_MAX: usize = merganser_core::plugin::MODULE_BYTES_MAX as usize;
/// The hidden command of the program that runs [`host::child_main`].
pub const COMPILE_COMMAND: &str = "compile-plugin";
/// Native code of plugins, in the data directory.
const NATIVE_DIR: &str = "plugins-native";

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
    poison: Mutex<Poison>,
    started: Instant,
    door: Door,
    metrics: Arc<Metrics>,
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
            host: shared_host(threads)?,
            lanes: Lanes::new(threads as usize, queue_bytes_max),
            breakers: Mutex::default(),
            poison: Mutex::default(),
            started: Instant::now(),
            door: door.clone(),
            metrics: Arc::clone(metrics),
        });
        for number in 0..threads {
            shared.start_worker(number)?;
        }
        let (loader, loads) = mpsc::channel();
        let of_loader = Arc::clone(&shared);
        std::thread::Builder::new().name("plugin-load".into()).spawn(move || {
            niceness::yield_to_others();
            loads::run(&loads, |load| of_loader.load(load));
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
        let subject = Subject::of(&call);
        if let Some(reason) = self.shared.poison.lock().reason(&lane, subject, self.shared.now_ms()) {
            return refused(&reason);
        }
        // A probe must be noted, so room in the queue is looked at first.
        if !self.shared.lanes.has_room(&lane, &call) {
            return refused("too many plugin calls wait on this node");
        }
        let permit = self.shared.breaker(&lane, |breaker, now| breaker.permit(now));
        if let Permit::No { .. } = permit {
            return refused("quarantined: it failed for too many keys; it is tried again soon");
        }
        self.shared.lanes.push(lane, Job { ticket, call, subject, is_probe: permit == Permit::Probe });
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
    fn start_worker(self: &Arc<Shared>, number: u32) -> std::io::Result<()> {
        let shared = Arc::clone(self);
        let started = std::thread::Builder::new().name(format!("plugin-{number}")).spawn(move || {
            niceness::yield_to_others();
            while shared.work() {}
            // The engine panicked on this thread; what it left behind goes with the thread.
            if shared.lanes.is_open()
                && let Err(error) = shared.start_worker(number)
            {
                tracing::error!(%error, number, "plugin_worker_lost");
            }
        });
        started.map(|_| ())
    }

    /// One call. False where this thread should make no other.
    fn work(&self) -> bool {
        let Some(Taken { lane, job, slow }) = self.lanes.take() else { return false };
        self.metrics.plugin_calls.add(1);
        let plugin = convert::hash(lane.1);
        if !self.host.contains(&plugin) {
            self.load_built_in(&plugin);
        }
        let (outcome, stats) = self.host.call(&plugin, job.call);
        tracing::debug!(%plugin, keyspace = lane.0, fuel = stats.fuel, micros = stats.micros, "plugin_called");
        let change = match self.note(&lane, job.subject, &outcome, stats.micros) || job.is_probe {
            true => self.breaker(&lane, |breaker, now| breaker.note(&outcome, now)),
            false => Change::None,
        };
        if outcome.is_err() {
            self.metrics.plugin_calls_failed.add(1);
        }
        let of_host = matches!(outcome, Err(Failure::Host(_)));
        if of_host {
            self.metrics.plugin_host_failures.add(1);
        }
        if change == Change::Tripped {
            self.metrics.plugin_breakers_tripped.add(1);
            tracing::warn!(%plugin, keyspace = lane.0, "plugin_breaker_tripped");
        }
        let answer = convert::answer(outcome);
        self.lanes.done(&lane, slow, stats.micros);
        self.door.put(Input::PluginDone { ticket: job.ticket, answer });
        !of_host
    }

    /// Whether the load is settled; one that failed for a passing reason is tried again.
    fn load(&self, load: &Load) -> bool {
        match load {
            Load::Uploaded(hash, module) => {
                self.metrics.plugin_loads.add(1);
                let result = self.host.load(module);
                let hash = *hash;
                let result = match result {
                    Err(error) if error.is_passing() => {
                        self.metrics.plugin_host_failures.add(1);
                        tracing::warn!(plugin = %convert::hash(hash), %error, "plugin_load_put_off");
                        return false;
                    }
                    Ok(loaded) if loaded.hash.0 != hash.0 => {
                        Err("its bytes are not those of its hash".into())
                    }
                    Ok(loaded) => Ok(convert::facts(loaded)),
                    Err(error) => Err(error.to_string()),
                };
                self.door.put(Input::PluginLoaded { hash, result });
            }
            Load::BuiltIn(hash) => self.load_built_in(&convert::hash(*hash)),
        }
        true
    }

    fn load_built_in(&self, plugin: &host::PluginHash) {
        let Some(built_in) = host::built_in().iter().find(|built_in| built_in.hash == *plugin) else {
            return;
        };
        self.metrics.plugin_loads.add(1);
        let result = self.host.load(built_in.wasm);
        if let Err(error) = &result
            && error.is_passing()
        {
            // The next call that needs it tries again.
            self.metrics.plugin_host_failures.add(1);
            tracing::warn!(plugin = built_in.name, %error, "plugin_load_put_off");
            return;
        }
        let result = result.map(convert::facts).map_err(|error| error.to_string());
        if let Err(error) = &result {
            tracing::error!(plugin = built_in.name, %error, "built_in_refused");
        }
        self.door.put(Input::PluginLoaded { hash: PluginHash(plugin.0), result });
    }

    /// Notes what came of a key's call. Says whether the breaker should know: a key that fails again and again is one
    /// failure to it, so that no one who polls a poison key stops the plugin for others.
    fn note(&self, lane: &Lane, subject: Subject, outcome: &Result<Answer, Failure>, micros: u64) -> bool {
        let mut poison = self.poison.lock();
        match outcome {
            Ok(_) => {
                poison.answered(lane, subject);
                true
            }
            Err(Failure::Missing | Failure::Host(_)) => false,
            Err(failure) => poison.failed(lane, subject, micros, &failure.to_string(), self.now_ms()),
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn breaker<T>(&self, lane: &Lane, of: impl FnOnce(&mut Breaker, u64) -> T) -> T {
        let now = self.now_ms();
        let mut breakers = self.breakers.lock();
        let fresh = || Breaker::new(BreakerOptions::default());
        of(breakers.entry(lane.clone()).or_insert_with(fresh), now)
    }
}

/// One engine a process: nodes of one process (tests) share compiled modules. Nothing is
/// kept between calls, so they share nothing else.
static HOST: OnceLock<Result<Arc<Host>, String>> = OnceLock::new();

/// For a process that is one node: plugins are compiled in children of this program, and native code is kept in this
/// directory. To be called before the node starts; a process that never calls it compiles on the loader's thread.
pub(crate) fn compile_in_children(dir: &Path, threads: u32) -> Result<(), Error> {
    let compiler = Compiler::this_program(COMPILE_COMMAND)?;
    let made = || {
        let cache = Cache::open(&dir.join(NATIVE_DIR))?;
        Host::with(limits(threads), compiler, Some(cache))
    };
    HOST.get_or_init(|| made().map(Arc::new).map_err(|error| error.to_string()));
    Ok(())
}

fn shared_host(threads: u32) -> Result<Arc<Host>, Error> {
    let made = || Host::new(limits(threads)).map(Arc::new).map_err(|error| error.to_string());
    HOST.get_or_init(made).clone().map_err(Error::Plugins)
}

/// A place for each worker, and one for the loader.
fn limits(threads: u32) -> Limits {
    Limits { module_bytes_max: MODULE_BYTES_MAX, concurrent_calls: threads + 1, ..Limits::default() }
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
