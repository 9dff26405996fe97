//! One run, from options to a report. A panic of production code is a violation like any other.
//!
//! In: options. Out: a report. Absent: many runs; see `bin/sim.rs` and the test.

use super::options::Options;
use super::world::{Coverage, World};
use crate::properties::{Check, Violation};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// Its options, complete.
    pub options: Options,
    /// The first property that did not hold.
    pub violation: Option<Violation>,
    /// Equal for equal runs.
    pub trace_hash: u64,
    /// One per change, if asked for.
    pub lines: Vec<String>,
    /// What happened how often.
    pub coverage: Coverage,
    /// Events of the queue.
    pub events: u64,
    /// Simulated time.
    pub virtual_us: u64,
}

thread_local! {
    /// Set while this thread simulates; takes the message of a panic.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Panics of a simulated node are for the report, all others for the screen.
fn install_hook() {
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            let simulates = PANIC.with_borrow_mut(|message| match message {
                Some(text) => {
                    *text = format!("{info}");
                    true
                }
                None => false,
            });
            if !simulates {
                before(info);
            }
        }));
    });
}

/// Does it; a panic is a violation.
pub fn caught(does: impl FnOnce() -> Check) -> Check {
    install_hook();
    PANIC.set(Some(String::new()));
    let result = catch_unwind(AssertUnwindSafe(does));
    let panic = PANIC.take();
    result.unwrap_or_else(|_| Err(Violation { property: "panic", text: panic.unwrap_or_default() }))
}

/// Runs it, with the lines of its trace or without.
pub fn run(options: Options, lines: bool) -> Report {
    let mut world = World::new(options, lines);
    let violation = caught(|| world.run()).err();
    Report {
        violation,
        trace_hash: world.trace.hash(),
        lines: world.trace.lines.take().unwrap_or_default(),
        coverage: std::mem::take(&mut world.coverage),
        events: world.events,
        virtual_us: world.now_us,
        options: world.options,
    }
}
