//! C6, convergence: once faults stop and every key was read at every replica, all replicas hold
//! the same.
//!
//! In: the states of all replicas. Causal and register states are equal in every byte; lattice
//! states are equal in causality, and in the join of their fragments (merged here and unmerged
//! there is equal, R10). Absent: anti-entropy; reads do the repair.

use super::{Check, Final, broken, c1_no_lost_ack::ids_of};
use crate::history::{END, History, KeyIndex};
use merganser_core::version::{DoneSet, KeyState, codec};
use std::collections::BTreeSet;

/// Whether all replicas of a key hold the same.
pub fn agree(history: &History, end: &Final) -> bool {
    let Some((_, first)) = end.replicas.first() else { return true };
    end.replicas.iter().all(|(_, state)| same(history, end.key, first, state))
}

fn same(history: &History, key: KeyIndex, left: &KeyState, right: &KeyState) -> bool {
    match (left, right) {
        (KeyState::Lattice(a), KeyState::Lattice(b)) => {
            let ids = |fragments: &merganser_core::version::Fragments| -> BTreeSet<u64> {
                fragments.iter().filter_map(|f| ids_of(history, key, &f.value)).flatten().collect()
            };
            codec::digest(left) == codec::digest(right) && ids(a) == ids(b)
        }
        _ => comparable(left) == comparable(right),
    }
}

/// Each replica lets go of expired bytes, and of requests that nobody retries any more, in its own time; neither is causality (R10).
fn comparable(state: &KeyState) -> KeyState {
    let mut state = state.clone();
    state.drop_expired(END);
    match state {
        KeyState::Causal(siblings) => KeyState::Causal(siblings.with_done(DoneSet::default())),
        other => other,
    }
}

pub(super) fn at_end(history: &History, end: &Final) -> Check {
    if agree(history, end) {
        return Ok(());
    }
    let shown: Vec<String> =
        end.replicas.iter().map(|(name, state)| format!("\n  {name}: {state:?}")).collect();
    broken("C6", format!("replicas of key {} still differ:{}", end.key, shown.concat()))
}
