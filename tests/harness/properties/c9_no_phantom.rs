//! C9, no phantom: every value was put on that key by a client, byte for byte, or is what the
//! keyspace's plugin makes of such values; and what was refused is never seen.
//!
//! In: states, replies. Values of the simulation say which writes they hold (`sim/plugins.rs`).

use super::{Check, Final, broken, c1_no_lost_ack::ids_of};
use crate::history::{DotFact, History, KeyIndex, What};
use bytes::Bytes;
use merganser_core::version::KeyState;

pub(super) fn on_state(history: &History, key: KeyIndex, state: &KeyState) -> Check {
    match state {
        KeyState::Causal(siblings) => siblings
            .iter()
            .filter_map(|(dot, _)| history.dots.get(dot))
            .try_for_each(|fact| on_fact(history, fact)),
        KeyState::Lww(register) => register
            .winner
            .iter()
            .filter_map(|(dot, _)| history.dots.get(dot))
            .try_for_each(|fact| on_fact(history, fact)),
        KeyState::Lattice(fragments) => {
            fragments.iter().try_for_each(|fragment| on_value(history, key, &fragment.value))
        }
    }
}

/// A client's write shows what its client put; a resolution is judged by C11.
fn on_fact(history: &History, fact: &DotFact) -> Check {
    let Some(op) = fact.op else { return Ok(()) };
    let put = match &history.ops[op].what {
        What::Put(value, _) => Some(value),
        _ => None,
    };
    if history.ops[op].key != fact.key || fact.value.as_ref() != put {
        return broken("C9", format!("op {op} put {:?} and {fact:?} is stored", history.ops[op].what));
    }
    Ok(())
}

/// A value that is stored or shown holds only writes that were attempted on its key.
pub fn on_value(history: &History, key: KeyIndex, value: &Bytes) -> Check {
    let Some(ids) = ids_of(history, key, value) else {
        return broken("C9", format!("a value of key {key} is of nobody's making: {value:?}"));
    };
    for id in ids {
        let own = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
        let attempted = own.and_then(|op| history.ops.get(op)).is_some_and(|op| op.key == key);
        if !attempted {
            return broken("C9", format!("key {key} shows write {id}, which nobody made there"));
        }
    }
    Ok(())
}

pub(super) fn at_end(history: &History, end: &Final) -> Check {
    for (dot, fact) in history.dots.iter().filter(|(_, fact)| fact.key == end.key) {
        if let Some(op) = fact.op.filter(|op| history.ops[*op].was_refused()) {
            return broken("C9", format!("op {op} was told that nothing was stored, and {dot} was"));
        }
    }
    let KeyState::Lattice(fragments) = &end.joined else { return Ok(()) };
    for id in fragments.iter().filter_map(|f| ids_of(history, end.key, &f.value)).flatten() {
        let own = [usize::try_from(id).unwrap_or_default().saturating_sub(1)];
        let writers = history.writers.get(&id).map_or(&own[..], Vec::as_slice);
        if writers.iter().all(|op| history.ops[*op].was_refused()) {
            return broken("C9", format!("ops {writers:?} were told that nothing was stored, and {id} was"));
        }
    }
    Ok(())
}
