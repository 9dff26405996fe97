//! Every figure that bounds a plugin, in one place, each with the reason for its default.
//!
//! Fuel and memory are deterministic and scale with the bytes of the input, so that the same call ends the same way
//! on every node. Wall time is only the node's own guard: it may differ between nodes, and a call that it ends is a
//! failure like any other (R7), never a different answer.

use std::time::Duration;

/// What a plugin may use. The defaults were measured with the built-in plugins, see `docs/plugins.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest upload that is looked at. Checked before a single byte is parsed. The largest built-in plugin
    /// (Automerge) has some 1.2 MB; a QuickJS plugin 1.6 MB.
    pub module_bytes_max: usize,
    /// How many calls may run at once; a further caller waits. Each reserves address space for one guest memory.
    pub concurrent_calls: u32,
    /// Fuel that every call gets, whatever its input. One unit is about one Wasm instruction.
    pub fuel_base: u64,
    /// Fuel for each byte of input. Automerge sets it: a history of 26,078 key strokes in 45 KB takes 1.6 thousand
    /// million to load, 36,000 for each byte, and better compressed ones more.
    pub fuel_per_byte: u64,
    /// No call gets more fuel than this, some ten seconds of a core.
    pub fuel_max: u64,
    /// Linear memory that every call may grow to, whatever its input. Folding that history took 35 MiB.
    pub memory_base_bytes: u64,
    /// Linear memory for each byte of input.
    pub memory_per_byte: u64,
    /// No call may grow beyond this.
    pub memory_max_bytes: u64,
    /// The node's own guard against a call that is slow rather than long. Fuel should always end first.
    pub wall: Duration,
    /// Largest value, state, fingerprint or projection that is accepted as an answer.
    pub answer_bytes_max: usize,
    /// Longest text in an `unresolved` or a rejection; the rest is cut off.
    pub message_bytes_max: usize,
    /// Log lines forwarded per call. Later ones replace each other, so that the last is never hidden.
    pub log_lines_max: usize,
    /// Bytes of one log line; the rest is cut off.
    pub log_line_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            module_bytes_max: 8 << 20,
            concurrent_calls: 16,
            fuel_base: 200_000_000,
            fuel_per_byte: 100_000,
            fuel_max: 20_000_000_000,
            memory_base_bytes: 64 << 20,
            memory_per_byte: 64,
            memory_max_bytes: 512 << 20,
            wall: Duration::from_secs(10),
            answer_bytes_max: 4 << 20,
            message_bytes_max: 4 << 10,
            log_lines_max: 64,
            log_line_bytes_max: 1 << 10,
        }
    }
}

impl Limits {
    /// The fuel of a call whose input has this many bytes.
    pub fn fuel(&self, input_bytes: u64) -> u64 {
        self.fuel_base.saturating_add(self.fuel_per_byte.saturating_mul(input_bytes)).min(self.fuel_max)
    }

    /// Guest memory of all calls together: one may be as large as it gets while the others have their base twice.
    pub fn guest_bytes_max(&self) -> u64 {
        let others = u64::from(self.concurrent_calls.saturating_sub(1));
        self.memory_max_bytes.saturating_add(others.saturating_mul(2 * self.memory_base_bytes))
    }

    /// The linear memory a call may use whose input has this many bytes.
    pub fn memory_bytes(&self, input_bytes: u64) -> u64 {
        self.memory_base_bytes
            .saturating_add(self.memory_per_byte.saturating_mul(input_bytes))
            .min(self.memory_max_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_grow_with_the_input_and_stop_at_the_cap() {
        let limits = Limits::default();
        assert_eq!(limits.fuel(0), limits.fuel_base);
        assert!(limits.fuel(1000) > limits.fuel(10));
        assert_eq!(limits.fuel(u64::MAX), limits.fuel_max);
        assert_eq!(limits.memory_bytes(0), limits.memory_base_bytes);
        assert_eq!(limits.memory_bytes(u64::MAX), limits.memory_max_bytes);
    }
}
