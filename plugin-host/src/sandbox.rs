//! What surrounds one call: the guest's memory limit, its bounded log, and the reading of what went wrong.
//!
//! A fresh [`Guest`] is made for every call and dropped after it, so nothing a plugin does outlives its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use wasmtime::component::{Linker, WasmStr};
use wasmtime::{ResourceLimiter, StoreContextMut, Trap, WasmBacktrace};

use crate::bindings::merganser::plugin::log::Level;
use crate::call::Failure;
use crate::limits::Limits;
use crate::log_rate::LogRate;
use crate::plugin::PluginHash;
use crate::text::printable;

/// Most table elements that a guest may have; the pool reserves as many.
const TABLE_ELEMENTS_MAX: usize = 32 << 10;
/// Fuel that a line of the log costs, as much as writing it takes the host.
const LOG_CALL_FUEL: u64 = 2_000;
/// Fuel that each byte of the line costs, also of what is cut off.
const LOG_BYTE_FUEL: u64 = 10;
/// Guest functions named in a trap's message.
const FRAMES_NAMED_MAX: usize = 4;

/// The host's side of one call.
pub(crate) struct Guest {
    plugin: PluginHash,
    memory_bytes_max: u64,
    /// Largest size the linear memory had.
    pub(crate) memory_bytes: u64,
    /// The guest asked for more memory or table than it may have.
    growth_denied: bool,
    /// The node could not give what the guest may have.
    host_failed: Option<String>,
    /// Guest memory of all calls of the node, of which this call's part is given back at its end.
    all_bytes: Arc<AtomicU64>,
    all_bytes_max: u64,
    /// Sizes of this call's memories, added up.
    own_bytes: u64,
    log_rate: Arc<LogRate>,
    log_lines_left: usize,
    log_line_bytes_max: usize,
    log_lines_hidden: u64,
    /// The latest line beyond the limit, written at the end so that the tail is never hidden.
    log_tail: Option<(Level, String)>,
    /// The latest error line: usually the panic that a trap is about.
    last_error: Option<String>,
}

impl Guest {
    pub(crate) fn new(
        plugin: PluginHash,
        memory_bytes_max: u64,
        limits: &Limits,
        all_bytes: Arc<AtomicU64>,
        log_rate: Arc<LogRate>,
    ) -> Guest {
        Guest {
            plugin,
            memory_bytes_max,
            memory_bytes: 0,
            growth_denied: false,
            host_failed: None,
            all_bytes,
            all_bytes_max: limits.guest_bytes_max(),
            own_bytes: 0,
            log_rate,
            log_lines_left: limits.log_lines_max,
            log_line_bytes_max: limits.log_line_bytes_max,
            log_lines_hidden: 0,
            log_tail: None,
            last_error: None,
        }
    }

    /// Writes what the log limit held back.
    pub(crate) fn finish_log(&mut self) {
        if let Some((level, line)) = self.log_tail.take() {
            let hidden = self.log_lines_hidden - 1;
            self.forward(level, &format!("[{hidden} lines left out] {line}"));
        }
    }

    /// Turns what wasmtime reports into what the cluster is told.
    pub(crate) fn failure(&self, error: &wasmtime::Error) -> Failure {
        if let Some(reason) = &self.host_failed {
            return Failure::Host(reason.clone());
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::OutOfFuel) => Failure::OutOfFuel,
            Some(Trap::Interrupt) => Failure::Timeout,
            _ if self.growth_denied => Failure::OutOfMemory,
            Some(trap) => Failure::Trap(self.trap_text(*trap, error)),
            // The error's causes are what is wrong; in front of them comes a trace of the guest.
            None => Failure::BadAnswer(printable(&error.root_cause().to_string(), self.log_line_bytes_max)),
        }
    }

    /// As [`Guest::failure`], of an instance that did not come about: what is no trap and no denial, the node lacked.
    pub(crate) fn failure_to_start(&self, error: &wasmtime::Error) -> Failure {
        match self.failure(error) {
            Failure::BadAnswer(reason) => Failure::Host(reason),
            failure => failure,
        }
    }

    /// Ends the call. The guest never sees that it was refused: what it answered then would depend on limits and on
    /// the machine, and two nodes would settle one conflict in two ways (P8).
    fn deny(&mut self) -> wasmtime::Result<bool> {
        self.growth_denied = true;
        Err(wasmtime::Error::msg("the guest asked for more memory than it may have"))
    }

    fn lacks(&mut self, reason: String) -> wasmtime::Error {
        let error = wasmtime::Error::msg(reason.clone());
        self.host_failed = Some(reason);
        error
    }

    fn trap_text(&self, trap: Trap, error: &wasmtime::Error) -> String {
        let mut text = trap.to_string();
        if let Some(line) = &self.last_error {
            text += &format!("; last error logged: {line}");
        }
        let frames = error.downcast_ref::<WasmBacktrace>().map(|trace| trace.frames()).unwrap_or_default();
        let names: Vec<&str> = frames.iter().filter_map(|f| f.func_name()).take(FRAMES_NAMED_MAX).collect();
        if !names.is_empty() {
            text += &format!("; in {}", names.join(", called by "));
        }
        printable(&text, 4 * self.log_line_bytes_max)
    }
}

impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let more = (desired as u64).saturating_sub(current as u64);
        let own = self.own_bytes.saturating_add(more);
        if own > self.memory_bytes_max {
            return self.deny();
        }
        if self.all_bytes.fetch_add(more, Ordering::Relaxed).saturating_add(more) > self.all_bytes_max {
            self.all_bytes.fetch_sub(more, Ordering::Relaxed);
            return Err(self.lacks("the calls under way hold all the memory there is for guests".into()));
        }
        self.own_bytes = own;
        self.memory_bytes = self.memory_bytes.max(own);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // Beyond what the guest itself said it would ever want, or there is none.
        match self.host_failed.is_some() || self.growth_denied {
            true => Err(error),
            false => self.deny().map(|_| ()),
        }
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        match desired <= TABLE_ELEMENTS_MAX {
            true => Ok(true),
            false => self.deny(),
        }
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.deny().map(|_| ())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.all_bytes.fetch_sub(self.own_bytes, Ordering::Relaxed);
    }
}

/// Defines the log, the only function that a guest can call. Its text costs fuel by the byte and is looked at where it
/// lies in the guest's memory, so that no guest makes the host copy for nothing.
pub(crate) fn add_log(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut log = linker.instance("merganser:plugin/log@1.0.0")?;
    log.func_wrap("write", |mut store: StoreContextMut<'_, Guest>, (level, message): (Level, WasmStr)| {
        let (bytes, line) = {
            let text = message.to_str(&store)?;
            (text.len() as u64, printable(&text, store.data().log_line_bytes_max))
        };
        let left = store.get_fuel()?;
        store.set_fuel(left.saturating_sub(LOG_CALL_FUEL + bytes * LOG_BYTE_FUEL))?;
        if left <= LOG_CALL_FUEL + bytes * LOG_BYTE_FUEL {
            return Err(Trap::OutOfFuel.into());
        }
        store.data_mut().log(level, line);
        Ok(())
    })
}

impl Guest {
    fn log(&mut self, level: Level, line: String) {
        if level == Level::Error {
            self.last_error = Some(line.clone());
        }
        if self.log_lines_left > 0 {
            self.log_lines_left -= 1;
            self.forward(level, &line);
        } else {
            self.log_lines_hidden += 1;
            self.log_tail = Some((level, line));
        }
    }

    /// To the node's log, as far as this plugin's rate allows.
    fn forward(&self, level: Level, line: &str) {
        let plugin = &self.plugin;
        let Some(dropped) = self.log_rate.take(Instant::now()) else { return };
        if dropped > 0 {
            tracing::warn!(target: "merganser::plugin", %plugin, dropped, "plugin_log_dropped");
        }
        match level {
            Level::Debug => tracing::debug!(target: "merganser::plugin", %plugin, "{line}"),
            Level::Info => tracing::info!(target: "merganser::plugin", %plugin, "{line}"),
            Level::Warn => tracing::warn!(target: "merganser::plugin", %plugin, "{line}"),
            Level::Error => tracing::error!(target: "merganser::plugin", %plugin, "{line}"),
        }
    }
}
