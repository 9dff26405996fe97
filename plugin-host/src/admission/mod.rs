//! Looks at an upload before anything is compiled, and refuses by name what would cost too much to compile.
//!
//! ```text
//!   bytes ──► scan: one pass, nothing is copied ──► counts ──► bounds: Error::OverLimit, or fine
//!               │
//!               └─ of each function: body (locals, blocks, branch targets)
//! ```
//!
//! In: the bytes of a core module or of a component, of which nothing is believed. Out: nothing, or which limit they
//! are over. Absent: validation (`wasmparser`'s, which comes after) and any judgement of what the code does.

mod body;
mod bounds;
mod features;
mod scan;

pub(crate) use features::{for_engine, for_validation};
pub(crate) use scan::scan;

/// Core instances of a component when all its nested components are unfolded. A QuickJS plugin has 11.
pub(crate) const CORE_INSTANCES_MAX: u32 = bounds::CORE_INSTANCES as u32;
/// Linear memories of all those instances. A QuickJS plugin has 3.
pub(crate) const MEMORIES_MAX: u32 = bounds::MEMORIES as u32;
/// Tables of all those instances.
pub(crate) const TABLES_MAX: u32 = bounds::TABLES as u32;
