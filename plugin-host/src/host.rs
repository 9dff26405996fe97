//! The host: holds compiled plugins, and asks one of them a question in a fresh instance.
//!
//! In come uploads and [`Call`]s, from any thread; out go [`Answer`]s, or [`Failure`]s that cost freshness but never
//! data. Calls are synchronous and may take seconds of CPU: the caller runs them on a bounded pool of threads of its
//! own, never on the thread that drives the node. Deliberately absent: any state that outlives a call, any memory of
//! earlier failures (that is [`crate::Breaker`]), and the question which plugin serves which keyspace.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::Instant;

use bytes::Bytes;
use wasmtime::component::{Instance, Linker};
use wasmtime::{Engine, Store};

use crate::bindings::exports::merganser::plugin::{merge, operations, plugin, resolve};
use crate::call::{Answer, Call, Failure, Stats};
use crate::compile::{Cache, Compiler};
use crate::convert;
use crate::engine::{self, Slots, Watchdog};
use crate::error::Error;
use crate::limits::Limits;
use crate::load::{self, Compiled};
use crate::plugin::{Description, Loaded, PluginHash};
use crate::sandbox::Guest;
use crate::text::printable;

/// Runs plugins. `Send` and `Sync`; share it in an `Arc`.
pub struct Host {
    limits: Limits,
    engine: Engine,
    linker: Linker<Guest>,
    watchdog: Watchdog,
    slots: Slots,
    plugins: RwLock<BTreeMap<PluginHash, Arc<Plugin>>>,
    compiler: Compiler,
    cache: Option<Cache>,
    /// Compiling takes a core and much memory: nothing is compiled twice at once.
    loading: Loading,
    /// Guest memory of all calls under way.
    guest_bytes: Arc<AtomicU64>,
}

struct Plugin {
    loaded: Loaded,
    compiled: Compiled,
}

impl Host {
    /// An engine with no plugins, which compiles on the threads that load and keeps nothing on disk.
    pub fn new(limits: Limits) -> Result<Host, Error> {
        Host::with(limits, Compiler::ThisProcess, None)
    }

    /// An engine with no plugins. Reserves address space (not memory) and starts the watchdog thread.
    pub fn with(limits: Limits, compiler: Compiler, cache: Option<Cache>) -> Result<Host, Error> {
        let engine = engine::engine(&limits)?;
        Ok(Host {
            linker: load::linker(&engine)?,
            watchdog: Watchdog::start(&engine, limits.wall)?,
            slots: Slots::new(limits.concurrent_calls),
            plugins: RwLock::default(),
            compiler,
            cache,
            loading: Loading::default(),
            guest_bytes: Arc::default(),
            engine,
            limits,
        })
    }

    /// The limits this host was made with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Admits a plugin: a component, or a core module with embedded metadata. Loading the same bytes again is a
    /// look-up. Compiling takes CPU in proportion to the size, some 1.5 s for a megabyte.
    pub fn load(&self, wasm: &[u8]) -> Result<Loaded, Error> {
        if wasm.len() > self.limits.module_bytes_max {
            return Err(Error::TooLarge { bytes: wasm.len(), limit: self.limits.module_bytes_max });
        }
        let hash = PluginHash::of(wasm);
        let _alone = match self.find(&hash) {
            Some(known) => return Ok(known.loaded.clone()),
            None => self.loading.take(hash),
        };
        // Another thread may just have done it.
        if let Some(known) = self.find(&hash) {
            return Ok(known.loaded.clone());
        }
        let started = Instant::now();
        // Until the plugin has said who it is: loading native code and a first call may end the process as well.
        let _mark = self.cache.as_ref().map(|cache| cache.mark(&hash)).transpose()?;
        let compiled = self.compiled(&hash, wasm)?;
        let compile_ms = started.elapsed().as_millis() as u64;

        let (description, _) = self.run(&hash, &compiled, 0, |store, instance| {
            let guest = compiled.plugin.load(&mut *store, &instance)?;
            guest.call_describe(store)
        });
        let description = description.map_err(Error::Describe)?;
        let loaded = Loaded {
            hash,
            world: compiled.world,
            description: Description {
                name: printable(&description.name, 64),
                version: printable(&description.version, 64),
                summary: printable(&description.summary, 1 << 10),
            },
            size_bytes: wasm.len(),
            wrapped: compiled.wrapped,
            compile_ms,
        };
        tracing::info!(plugin = %hash, name = loaded.description.name, world = %loaded.world, compile_ms, "plugin_loaded");
        let plugin = Arc::new(Plugin { loaded: loaded.clone(), compiled });
        self.plugins.write().unwrap_or_else(PoisonError::into_inner).insert(hash, plugin);
        Ok(loaded)
    }

    /// Native code from the cache, or compiled now.
    fn compiled(&self, hash: &PluginHash, wasm: &[u8]) -> Result<Compiled, Error> {
        let wrapped = load::is_core_module(wasm)?;
        if let Some(native) = self.cache.as_ref().and_then(|cache| cache.get(&self.engine, hash)) {
            // SAFETY: this node wrote the file from what its own compiler made of this very module for an engine of
            // these settings: a MAC under a key that only this node has says so.
            match unsafe { load::load(&self.engine, &self.linker, &native, wrapped) } {
                Ok(compiled) => return Ok(compiled),
                Err(error) => tracing::warn!(plugin = %hash, %error, "cached_plugin_compiled_anew"),
            }
        }
        let native = self.compiler.compile(&self.engine, wasm)?;
        // SAFETY: the bytes come from the compiler of this program, here or in a child of ours, through a pipe that
        // nobody else holds, in a frame that was whole.
        let compiled = unsafe { load::load(&self.engine, &self.linker, &native, wrapped) }?;
        if let Some(cache) = &self.cache {
            cache.put(&self.engine, hash, &native);
        }
        Ok(compiled)
    }

    /// Whether this plugin can be called here.
    pub fn contains(&self, plugin: &PluginHash) -> bool {
        self.find(plugin).is_some()
    }

    /// What was learned when the plugin was loaded.
    pub fn get(&self, plugin: &PluginHash) -> Option<Loaded> {
        self.find(plugin).map(|plugin| plugin.loaded.clone())
    }

    /// Forgets a plugin, in memory and in the cache; calls that run finish. Says whether it was there.
    pub fn unload(&self, plugin: &PluginHash) -> bool {
        if let Some(cache) = &self.cache {
            cache.remove(plugin);
        }
        self.plugins.write().unwrap_or_else(PoisonError::into_inner).remove(plugin).is_some()
    }

    /// All plugins held, by hash.
    pub fn list(&self) -> Vec<Loaded> {
        let plugins = self.plugins.read().unwrap_or_else(PoisonError::into_inner);
        plugins.values().map(|plugin| plugin.loaded.clone()).collect()
    }

    /// Asks one question in a fresh instance. Blocks until it is answered or a limit ends it, and before that while
    /// [`Limits::concurrent_calls`] others run.
    pub fn call(&self, plugin: &PluginHash, call: Call) -> (Result<Answer, Failure>, Stats) {
        let Some(plugin) = self.find(plugin) else {
            return (Err(Failure::Missing), Stats::default());
        };
        if !call.suits(plugin.loaded.world) {
            return (Err(Failure::WrongWorld), Stats::default());
        }
        let compiled = &plugin.compiled;
        let (answer, stats) =
            self.run(&plugin.loaded.hash, compiled, call.input_bytes(), |store, instance| {
                ask(compiled, store, instance, &call)
            });
        (answer.and_then(|answer| self.within_limits(answer)), stats)
    }

    /// A valid value (or state) made by the plugin itself from the seed; none where it has no generator.
    pub fn generate(&self, plugin: &PluginHash, seed: &[u8]) -> (Result<Option<Bytes>, Failure>, Stats) {
        let Some(plugin) = self.find(plugin) else {
            return (Err(Failure::Missing), Stats::default());
        };
        let compiled = &plugin.compiled;
        let (value, stats) = self.run(&plugin.loaded.hash, compiled, seed.len() as u64, |store, instance| {
            compiled.plugin.load(&mut *store, &instance)?.call_generate(store, seed)
        });
        (value.map(|value| value.map(Bytes::from)), stats)
    }

    /// An operation made by the plugin itself from the seed; none where it has no generator, or no operations.
    pub fn generate_operation(
        &self,
        plugin: &PluginHash,
        seed: &[u8],
    ) -> (Result<Option<Bytes>, Failure>, Stats) {
        let Some(plugin) = self.find(plugin) else {
            return (Err(Failure::Missing), Stats::default());
        };
        let compiled = &plugin.compiled;
        let Some(operations) = &compiled.operations else {
            return (Ok(None), Stats::default());
        };
        let (op, stats) = self.run(&plugin.loaded.hash, compiled, seed.len() as u64, |store, instance| {
            operations.load(&mut *store, &instance)?.call_generate_operation(store, seed)
        });
        (op.map(|op| op.map(Bytes::from)), stats)
    }

    fn find(&self, plugin: &PluginHash) -> Option<Arc<Plugin>> {
        self.plugins.read().unwrap_or_else(PoisonError::into_inner).get(plugin).cloned()
    }

    /// Runs `body` in a fresh instance within the limits for an input of this size.
    fn run<T>(
        &self,
        hash: &PluginHash,
        compiled: &Compiled,
        input_bytes: u64,
        body: impl FnOnce(&mut Store<Guest>, Instance) -> wasmtime::Result<T>,
    ) -> (Result<T, Failure>, Stats) {
        let _slot = self.slots.take();
        let started = Instant::now();
        let guest = Guest::new(
            *hash,
            self.limits.memory_bytes(input_bytes),
            &self.limits,
            Arc::clone(&self.guest_bytes),
            Arc::clone(&compiled.log_rate),
        );
        let fuel = self.limits.fuel(input_bytes);

        let mut store = Store::new(&self.engine, guest);
        store.limiter(|guest| guest);
        store.set_fuel(fuel).expect("fuel is switched on in the engine");
        store.set_epoch_deadline(self.watchdog.deadline_ticks);
        // What a guest may make the host allocate at a time: an answer that is just too large must still be read,
        // so that its size can be told.
        store.set_hostcall_fuel(self.limits.answer_bytes_max.saturating_mul(2).saturating_add(64 << 10));

        // A panic of the engine is the node's fault and ends this call, not the thread that runs others.
        let outcome = catch_unwind(AssertUnwindSafe(|| match compiled.pre.instantiate(&mut store) {
            Ok(instance) => body(&mut store, instance).map_err(|error| store.data().failure(&error)),
            Err(error) => Err(store.data().failure_to_start(&error)),
        }));
        let outcome = outcome.unwrap_or_else(|_| Err(Failure::Host("the engine panicked".into())));
        store.data_mut().finish_log();
        let stats = Stats {
            fuel: fuel - store.get_fuel().expect("fuel is switched on in the engine").min(fuel),
            memory_bytes: store.data().memory_bytes,
            micros: started.elapsed().as_micros() as u64,
        };
        (outcome, stats)
    }

    fn within_limits(&self, answer: Answer) -> Result<Answer, Failure> {
        let limit = self.limits.answer_bytes_max;
        let cut = |text: String| printable(&text, self.limits.message_bytes_max);
        match answer {
            Answer::Value(bytes) | Answer::Keep { value: bytes, .. } | Answer::Fingerprint(Some(bytes))
                if bytes.len() > limit =>
            {
                Err(Failure::TooLarge { bytes: bytes.len(), limit })
            }
            Answer::Unresolved(reason) => Ok(Answer::Unresolved(cut(reason))),
            Answer::Rejected { kind, message } => Ok(Answer::Rejected { kind, message: cut(message) }),
            answer => Ok(answer),
        }
    }
}

/// Which plugins are being loaded: a second thread that wants one of them waits, and others go on.
#[derive(Default)]
struct Loading {
    hashes: Mutex<BTreeSet<PluginHash>>,
    over: Condvar,
}

impl Loading {
    fn take(&self, hash: PluginHash) -> Alone<'_> {
        let hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.over.wait_while(hashes, |hashes| hashes.contains(&hash));
        waited.unwrap_or_else(PoisonError::into_inner).insert(hash);
        Alone { loading: self, hash }
    }
}

/// Nobody else loads this plugin meanwhile.
struct Alone<'a> {
    loading: &'a Loading,
    hash: PluginHash,
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.loading.hashes.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.hash);
        self.loading.over.notify_all();
    }
}

/// Requires: the call suits the plugin's world.
fn ask(
    compiled: &Compiled,
    store: &mut Store<Guest>,
    instance: Instance,
    call: &Call,
) -> wasmtime::Result<Answer> {
    let merge = |store: &mut Store<Guest>| -> wasmtime::Result<merge::Guest> {
        compiled.merge.as_ref().expect("the world has merge").load(store, &instance)
    };
    let operations = |store: &mut Store<Guest>| -> wasmtime::Result<operations::Guest> {
        compiled.operations.as_ref().expect("the world has operations").load(store, &instance)
    };
    match call {
        Call::Validate { key, value } => {
            let guest: plugin::Guest = compiled.plugin.load(&mut *store, &instance)?;
            let answer = guest.call_validate(store, convert::key(key), value)?;
            Ok(answer.map_or_else(convert::rejected, |()| Answer::Valid))
        }
        Call::Resolve { key, siblings } => {
            let indices = compiled.resolve.as_ref().expect("the world has resolve");
            let guest: resolve::Guest = indices.load(&mut *store, &instance)?;
            let dots = convert::dots(siblings);
            let siblings = convert::siblings(siblings, &dots);
            guest.call_resolve(store, convert::key(key), &siblings).map(convert::verdict)
        }
        Call::Merge { key, states } => {
            let states: Vec<&[u8]> = states.iter().map(|state| &state[..]).collect();
            merge(store)?.call_merge(store, convert::key(key), &states).map(convert::value)
        }
        Call::Fingerprint { key, state } => {
            let answer = merge(store)?.call_fingerprint(store, convert::key(key), state)?;
            Ok(answer.map_or_else(convert::rejected, |print| Answer::Fingerprint(print.map(Bytes::from))))
        }
        Call::Apply { key, state, operation } => {
            let (guest, seen) = (operations(store)?, convert::spans(operation));
            let operation = convert::operation(operation, seen.as_deref());
            let answer = guest.call_apply(store, convert::key(key), state.as_deref(), operation);
            answer.map(convert::value)
        }
        Call::Retire { key, state, actors } => {
            operations(store)?.call_retire(store, convert::key(key), state, actors).map(convert::value)
        }
        Call::Query { key, state, path } => {
            operations(store)?.call_query(store, convert::key(key), state, path).map(convert::value)
        }
    }
}
