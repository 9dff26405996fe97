//! C4, no resurrection: once a write that had seen X is known somewhere, X is not live there.
//!
//! In: every state that is written or sent, and the final ones. A state knows what its context
//! covers; "had seen" is what the writer's client was shown. In lattices a delete takes what it
//! saw as a whole, and values survive whole if one unseen write is in them (R8): so nothing may be
//! left once an acknowledged delete saw every write that is left. What was collected is not written
//! again by anybody.

use super::{Check, Final, broken, c1_no_lost_ack::ids_of};
use crate::history::{History, KeyIndex, What};
use merganser_core::id::{Dot, Millis};
use merganser_core::version::{DotSet, KeyState, Stamp};
use std::collections::BTreeSet;

pub(super) fn on_state(history: &History, state: &KeyState) -> Check {
    let KeyState::Causal(siblings) = state else { return Ok(()) };
    for (dot, _) in siblings.iter() {
        let seen_by = history.superseders.get(dot).map_or(&[][..], Vec::as_slice);
        let is_known = |later: &&Dot| {
            siblings.seen().contains(**later) && !by_hearsay(history, siblings.seen(), **later)
        };
        if let Some(later) = seen_by.iter().find(is_known) {
            let live = siblings.iter().any(|(other, _)| other == later);
            let property = if live { "C5" } else { "C4" };
            let (old, new) = (history.name(*dot), history.name(*later));
            return broken(property, format!("{old} is live where {new}, which had seen it, is known"));
        }
    }
    Ok(())
}

/// Whether a context may name a write whose own context its holder never met: contexts that clients are told name what is
/// dead where they are told (`version::fill`). Then something that had seen the write is not known here yet, and what that
/// had seen goes once it is.
fn by_hearsay(history: &History, seen: &DotSet, dot: Dot) -> bool {
    let seen_by = history.superseders.get(&dot).map_or(&[][..], Vec::as_slice);
    seen_by.iter().any(|later| !seen.contains(*later))
}

/// A node lets go of what it holds of a key: nothing of it may be live by then.
pub fn on_collected(history: &mut History, key: KeyIndex, state: &KeyState, now: Millis) -> Check {
    if !state.is_empty() && !state.is_gone(now) {
        return broken("C4", format!("key {key} is collected, and lives: {state:?}"));
    }
    history.collect(key, state);
    Ok(())
}

/// A state is written: what was collected stays away, whatever arrives late. What has expired is a delete by `now`,
/// and deletes may come back (and are collected once more).
pub fn on_written(history: &History, key: KeyIndex, state: &KeyState, now: Millis) -> Check {
    let Some(collected) = history.collected.get(&key) else { return Ok(()) };
    let is_old =
        |dot: &Dot, stamp: Stamp| collected.known.contains(dot) && collected.state.covers(*dot, stamp);
    let back: Vec<String> = match state {
        KeyState::Causal(siblings) => {
            let values = siblings.values().filter(|(_, version)| !version.is_expired(now));
            let old = values.filter(|(dot, version)| is_old(dot, version.stamp));
            old.map(|(dot, _)| history.name(*dot)).collect()
        }
        KeyState::Lww(register) => {
            let values = register.winner.iter().filter(|(_, version)| !version.is_gone(now));
            let old = values.filter(|(dot, version)| is_old(dot, version.stamp));
            old.map(|(dot, _)| history.name(*dot)).collect()
        }
        KeyState::Lattice(fragments) => {
            let seen = collected.state.seen();
            let old = fragments.iter().filter(|fragment| fragment.claim.within(&seen));
            old.map(|fragment| format!("{:?}", fragment.claim)).collect()
        }
    };
    if back.is_empty() {
        return Ok(());
    }
    broken("C4", format!("{} of key {key} comes back after it was collected", back.join(", ")))
}

/// A node writes a state that has seen less than the one before it on this disk: its context was retired. All that
/// it has not seen any more is dead, and none of it was live.
pub fn on_retired(history: &mut History, key: KeyIndex, before: &DotSet, state: &KeyState) -> Check {
    let live = state.live_dots();
    if let Some(dot) = live.iter().find(|dot| !state.seen().contains(**dot)) {
        return broken("C4", format!("{dot} of key {key} lives, and its context was retired"));
    }
    history.retired.entry(key).or_default().join(before);
    Ok(())
}

pub(super) fn at_end(history: &History, end: &Final) -> Check {
    on_state(history, &end.joined)?;
    let KeyState::Lattice(fragments) = &end.joined else { return Ok(()) };
    let mut held: BTreeSet<u64> = BTreeSet::new();
    for fragment in fragments.iter() {
        held.extend(ids_of(history, end.key, &fragment.value).unwrap_or_default());
    }
    // A write that was sent twice may have a second dot that the delete did not see.
    let once = |id: &u64| {
        let writers = history.writers.get(id).map_or(&[][..], Vec::as_slice);
        writers.len() == 1 && writers.iter().all(|op| history.ops[*op].attempts == 1)
    };
    for ack in &history.acknowledgements {
        let (index, op) = (ack.op, &history.ops[ack.op]);
        let deletes = op.key == end.key && op.what == What::Delete && !history.is_excused(ack);
        if deletes && !held.is_empty() && held.iter().all(|id| once(id) && op.seen.ids.contains(id)) {
            return broken("C4", format!("op {index} deleted what it saw, and {held:?} is back"));
        }
    }
    Ok(())
}
