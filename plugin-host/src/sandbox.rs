//! What surrounds one call: the guest's memory limit, its bounded log, and the reading of what went wrong.
//!
//! A fresh [`Guest`] is made for every call and dropped after it, so nothing a plugin does outlives its answer.

use wasmtime::{ResourceLimiter, Trap, WasmBacktrace};

use crate::bindings::merganser::plugin::log::{Host as LogHost, Level};
use crate::bindings::merganser::plugin::types::Host as TypesHost;
use crate::call::Failure;
use crate::limits::Limits;
use crate::plugin::PluginHash;

/// Most table elements that a guest may have; the pool reserves as many.
const TABLE_ELEMENTS_MAX: usize = 32 << 10;
/// Guest functions named in a trap's message.
const FRAMES_NAMED_MAX: usize = 4;

/// The host's side of one call.
pub(crate) struct Guest {
    plugin: PluginHash,
    memory_bytes_max: u64,
    /// Largest size the linear memory had.
    pub(crate) memory_bytes: u64,
    /// The guest asked for more memory than it may have.
    memory_denied: bool,
    log_lines_left: usize,
    log_line_bytes_max: usize,
    log_lines_hidden: u64,
    /// The latest line beyond the limit, written at the end so that the tail is never hidden.
    log_tail: Option<(Level, String)>,
    /// The latest error line: usually the panic that a trap is about.
    last_error: Option<String>,
}

impl Guest {
    pub(crate) fn new(plugin: PluginHash, memory_bytes_max: u64, limits: &Limits) -> Guest {
        Guest {
            plugin,
            memory_bytes_max,
            memory_bytes: 0,
            memory_denied: false,
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
            forward(&self.plugin, level, &format!("[{hidden} lines left out] {line}"));
        }
    }

    /// Turns what wasmtime reports into what the cluster is told.
    pub(crate) fn failure(&self, error: &wasmtime::Error) -> Failure {
        match error.downcast_ref::<Trap>() {
            Some(Trap::OutOfFuel) => Failure::OutOfFuel,
            Some(Trap::Interrupt) => Failure::Timeout,
            // A guest that is refused memory usually panics or runs into the null page soon after.
            _ if self.memory_denied => Failure::OutOfMemory,
            Some(trap) => Failure::Trap(self.trap_text(*trap, error)),
            None => Failure::BadAnswer(first_bytes(&format!("{error:#}"), self.log_line_bytes_max)),
        }
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
        first_bytes(&text, 4 * self.log_line_bytes_max)
    }
}

impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let desired = desired as u64;
        if desired > self.memory_bytes_max {
            self.memory_denied = true;
            return Ok(false);
        }
        self.memory_bytes = self.memory_bytes.max(desired);
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}

impl TypesHost for Guest {}

impl LogHost for Guest {
    fn write(&mut self, level: Level, message: String) {
        let line = first_bytes(&message, self.log_line_bytes_max);
        if level == Level::Error {
            self.last_error = Some(line.clone());
        }
        if self.log_lines_left > 0 {
            self.log_lines_left -= 1;
            forward(&self.plugin, level, &line);
        } else {
            self.log_lines_hidden += 1;
            self.log_tail = Some((level, line));
        }
    }
}

fn forward(plugin: &PluginHash, level: Level, line: &str) {
    match level {
        Level::Debug => tracing::debug!(target: "merganser::plugin", %plugin, "{line}"),
        Level::Info => tracing::info!(target: "merganser::plugin", %plugin, "{line}"),
        Level::Warn => tracing::warn!(target: "merganser::plugin", %plugin, "{line}"),
        Level::Error => tracing::error!(target: "merganser::plugin", %plugin, "{line}"),
    }
}

/// At most so many bytes of the text, cut between characters.
pub(crate) fn first_bytes(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}
