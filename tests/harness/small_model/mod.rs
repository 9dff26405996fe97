//! The exhaustive small model: three replicas of one key, a few puts, a crash, a lost disk, a
//! delete that is collected, a late message, in *every* order, over the production states of a key.
//!
//! ```text
//!   library   production Siblings, each known by a number     model   what may happen next
//!   judge     C1 C3 C4 C5 on every state                     search  breadth first, each state once
//! ```
//!
//! The simulation samples long histories of whole nodes; this takes all short ones of the rules.
//! States that differ only in the names of nodes are one. In: bounds, a variant. Out: how many states
//! and steps there are, or the shortest way to a violation. Absent: quorum reads, time, bytes.

mod judge;
mod library;
mod model;

use library::Library;
pub use model::{Bounds, Step};
use model::{Model, Reissued, Round};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The rules, or rules with a known bug in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// As production does it.
    Production,
    /// A node keeps its actor over a crash and over the loss of its disk.
    StableActor,
    /// A delete is dropped by whoever holds it, without asking.
    ReapByTime,
    /// All are asked once.
    OnePass,
    /// All are asked, but nobody remembers.
    NoGrave,
    /// What arrives replaces what is there.
    Overwrite,
}

impl Variant {
    /// Whether a node keeps, or has a grave of, all that it held durably.
    fn keeps_what_it_holds(self) -> bool {
        self == Variant::Production
    }
}

/// Bounds whose whole space is a matter of seconds.
pub const SPACES: [Bounds; 3] = [
    Bounds { puts: 4, deletes: 1, crashes: 0, losses: 0, late: 0 },
    Bounds { puts: 2, deletes: 1, crashes: 1, losses: 1, late: 0 },
    Bounds { puts: 1, deletes: 1, crashes: 1, losses: 1, late: 2 },
];

/// What a search found.
#[derive(Debug, Default)]
pub struct Found {
    /// Distinct states of the cluster.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// States of the key itself.
    pub key_states: usize,
    /// States in which a delete is collected everywhere.
    pub collected: usize,
    /// The first violation: of what, why, and the way there. Names of nodes change along the way.
    pub violation: Option<(&'static str, String, Vec<Step>)>,
}

fn fingerprint(model: &Model) -> u128 {
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        (salt, model).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}

/// Looks at everything within the bounds, until something does not hold.
pub fn search(bounds: Bounds, variant: Variant) -> Found {
    let mut library = Library::new();
    let mut found = Found::default();
    let first = Model::new(bounds);
    let mut known = HashSet::from([fingerprint(&first)]);
    let mut layer: Vec<(Model, Vec<Step>)> = vec![(first, Vec::new())];
    while !layer.is_empty() {
        let mut next_layer = Vec::new();
        for (model, way) in layer {
            found.states += 1;
            let collected = model.replicas.iter().all(|replica| replica.latest == library::EMPTY);
            found.collected += usize::from(matches!(model.round, Round::Agreed { .. }) && collected);
            for step in model.steps(&library, variant) {
                found.steps += 1;
                let way = || way.iter().copied().chain([step]).collect::<Vec<Step>>();
                let next = match model.after(&mut library, variant, step) {
                    Ok(next) => next.canonical(&mut library),
                    Err(Reissued(dot)) => {
                        found.violation = Some(("C3", format!("dot {dot} is issued again"), way()));
                        return found;
                    }
                };
                if !known.insert(fingerprint(&next)) {
                    continue;
                }
                if let Some((property, text)) = judge::judge(&mut library, &next) {
                    found.violation = Some((property, text, way()));
                    return found;
                }
                let way = way();
                next_layer.push((next, way));
            }
        }
        layer = next_layer;
    }
    found.key_states = library.len();
    found
}
