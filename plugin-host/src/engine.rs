//! The wasmtime engine: deterministic, interruptible, pooled.
//!
//! In come the limits; out goes an engine on which the same component gives the same bytes on every architecture:
//! NaNs are canonical, SIMD that may differ between processors is off, so are threads, and there is nothing to
//! import but the log. Deliberately absent: every compiler but Cranelift.

use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy, WasmFeatures};

use crate::admission::{CORE_INSTANCES_MAX, MEMORIES_MAX, TABLES_MAX, for_engine};
use crate::error::Error;
use crate::limits::Limits;

/// Watchdog ticks in the wall time of a call: a call is ended at most this fraction late.
const TICKS_PER_WALL: u32 = 20;

/// Memory of a fresh instance that stays mapped between calls. Together with a guest stack of 64 KiB (the linker
/// flag in `plugins/.cargo/config.toml`) a small guest then touches no page for the first time: 74 µs became 20 µs.
const KEEP_RESIDENT_BYTES: usize = 256 << 10;

/// What decides the native code, and nothing else: alike in the process that compiles and in the one that runs.
fn settings() -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .consume_fuel(true)
        .epoch_interruption(true)
        .max_wasm_stack(512 << 10)
        .cranelift_nan_canonicalization(true)
        .wasm_features(WasmFeatures::all(), false)
        .wasm_features(for_engine(), true);
    config
}

/// An engine that only compiles; it reserves no address space.
pub(crate) fn for_compiling() -> Result<Engine, Error> {
    let mut config = settings();
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    Engine::new(&config).map_err(|e| Error::Engine(format!("{e:#}")))
}

/// The engine that runs plugins.
pub(crate) fn engine(limits: &Limits) -> Result<Engine, Error> {
    let calls = limits.concurrent_calls.max(1);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(calls)
        // What admission lets through, the pool can hold: nobody is admitted who can never be called.
        .total_core_instances(calls * CORE_INSTANCES_MAX)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .total_memories(calls * MEMORIES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_memory_size(usize::try_from(limits.memory_max_bytes).unwrap_or(usize::MAX))
        .total_tables(calls * TABLES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .table_elements(32 << 10)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(64 << 10);

    let mut config = settings();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config).map_err(|e| Error::Engine(format!("{e:#}")))
}

/// The thread that moves the engine's epoch, so that a call can be ended by wall time. Stops when dropped.
pub(crate) struct Watchdog {
    stopped: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
    /// Epochs after which a call is ended.
    pub(crate) deadline_ticks: u64,
}

impl Watchdog {
    pub(crate) fn start(engine: &Engine, wall: Duration) -> Result<Watchdog, Error> {
        let tick = (wall / TICKS_PER_WALL).clamp(Duration::from_millis(1), Duration::from_millis(500));
        let stopped = Arc::new((Mutex::new(false), Condvar::new()));
        let thread = std::thread::Builder::new()
            .name("plugin-watchdog".into())
            .spawn({
                let (engine, stopped) = (engine.weak(), stopped.clone());
                move || {
                    let (flag, condition) = &*stopped;
                    let mut stop = flag.lock().unwrap_or_else(|e| e.into_inner());
                    while !*stop {
                        let waited = condition.wait_timeout(stop, tick).unwrap_or_else(|e| e.into_inner());
                        stop = waited.0;
                        match engine.upgrade() {
                            Some(engine) => engine.increment_epoch(),
                            None => return,
                        }
                    }
                }
            })
            .map_err(|e| Error::Engine(format!("watchdog thread: {e}")))?;
        // One tick more than the quotient: the first may come at once.
        let deadline_ticks = wall.as_nanos().div_ceil(tick.as_nanos()) as u64 + 1;
        Ok(Watchdog { stopped, thread: Some(thread), deadline_ticks })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let (flag, condition) = &*self.stopped;
        *flag.lock().unwrap_or_else(|e| e.into_inner()) = true;
        condition.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Counts the calls that may run at once, because the pool holds just so many instances.
pub(crate) struct Slots {
    free: Mutex<u32>,
    freed: Condvar,
}

impl Slots {
    pub(crate) fn new(count: u32) -> Slots {
        Slots { free: Mutex::new(count.max(1)), freed: Condvar::new() }
    }

    /// Waits for a slot. Calls are bounded by fuel and watchdog, so the wait is bounded too.
    pub(crate) fn take(&self) -> Slot<'_> {
        let free = self.free.lock().unwrap_or_else(|e| e.into_inner());
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(|e| e.into_inner());
        *free -= 1;
        Slot(self)
    }
}

/// The right to run one call.
pub(crate) struct Slot<'a>(&'a Slots);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(|e| e.into_inner()) += 1;
        self.0.freed.notify_one();
    }
}
