//! Anti-entropy: silent differences between replicas are found and repaired, always (R10).
//!
//! ```text
//!   a write ─▶ its leaf, in the same batch                                           leaf, tree, upkeep
//! ```
//!
//! In: writes, the slots of the disk. Out: leaves. Absent: what a state means, which is `version`'s.

pub mod leaf;
mod tree;
mod upkeep;

pub(crate) use upkeep::{Rescan, TreeWrite};

use crate::id::KeyspaceId;
use std::collections::BTreeMap;
use tree::Tree;

/// What a node knows of its own data and of others'.
#[derive(Default)]
pub(crate) struct AntiEntropy {
    trees: BTreeMap<KeyspaceId, Tree>,
    /// Leaves have been read from the disk; until then none is fresh.
    loaded: bool,
}
