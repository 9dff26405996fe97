//! The figures that bound an upload's shape, each with the reason for it. None depends on the machine: an upload that
//! one node admits, every node admits.
//!
//! Measured with what toolchains make: Automerge (Rust, 1.2 MB) and a QuickJS plugin (1.6 MB) are the largest.

use crate::error::Error;

/// Components in components.
pub(super) const DEPTH: u64 = 8;
/// Component instances when all nested ones are unfolded; the translator holds each.
pub(super) const INSTANCES: u64 = 256;
/// See [`super::CORE_INSTANCES_MAX`].
pub(super) const CORE_INSTANCES: u64 = 16;
/// See [`super::MEMORIES_MAX`].
pub(super) const MEMORIES: u64 = 4;
/// See [`super::TABLES_MAX`].
pub(super) const TABLES: u64 = 16;
/// Elements that a table begins with.
pub(super) const ELEMENTS: u64 = 32 << 10;
/// Pages of 64 KiB that a memory begins with: as much as any call may use.
pub(super) const PAGES: u64 = (512 << 20) / (64 << 10);
/// Core modules, whether they are instantiated or not: each is compiled.
pub(super) const MODULES: u64 = 32;
/// Functions of all modules. An empty function still costs some kilobytes while it is compiled.
pub(super) const FUNCTIONS: u64 = 20_000;
/// Types, of modules and of components.
pub(super) const TYPES: u64 = 20_000;
/// Imports, over all modules and components.
pub(super) const IMPORTS: u64 = 2_000;
/// Exports, over all modules and components.
pub(super) const EXPORTS: u64 = 4_000;
/// Bytes of one name of an import or export.
pub(super) const NAME_BYTES: u64 = 1_024;
/// Data and element segments. A segment becomes code or an image.
pub(super) const SEGMENTS: u64 = 20_000;
/// Globals.
pub(super) const GLOBALS: u64 = 10_000;
/// Aliases, canonical functions, and the arguments of instantiations: each is an entry in the translator's tables.
pub(super) const LINKS: u64 = 20_000;
/// Bytes of all custom sections, which nobody reads.
pub(super) const CUSTOM_BYTES: u64 = 4 << 20;
/// Bytes of one function.
pub(super) const BODY_BYTES: u64 = 256 << 10;
/// Locals of one function, parameters excluded.
pub(super) const LOCALS: u64 = 5_000;
/// Blocks, loops and ifs of one function.
pub(super) const BLOCKS: u64 = 20_000;
/// Blocks within blocks.
pub(super) const NESTING: u64 = 1_000;
/// Targets of all `br_table`s of one function.
pub(super) const TARGETS: u64 = 20_000;
/// Locals times blocks of one function. Where control flow meets, the compiler keeps a place for each local, so that
/// time and memory follow this product and not the bytes: 16,000 blocks over 1,600 locals took 15 s in 251 KB.
pub(super) const LOCALS_TIMES_BLOCKS: u64 = 2_000_000;

/// Refuses a count above its limit.
pub(super) fn within(what: &'static str, count: u64, limit: u64) -> Result<(), Error> {
    match count <= limit {
        true => Ok(()),
        false => Err(Error::OverLimit { what: what.into(), count, limit }),
    }
}
