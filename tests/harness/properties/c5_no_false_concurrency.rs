//! C5, no false concurrency: siblings are pairwise concurrent (with [`super::c4_no_resurrection`],
//! which tells the two apart), one request is not two siblings of one actor, and a context covers
//! what it came with.
//!
//! In: states, replies. A client that alone reads and writes a key, each time with the context
//! of its last answer and never in doubt about an outcome, sees one value.

use super::{Check, broken};
use crate::history::{History, OpIndex};
use merganser_core::id::Dot;
use merganser_core::version::{DotSet, KeyState};

pub(super) fn on_state(_history: &History, state: &KeyState) -> Check {
    let KeyState::Causal(siblings) = state else { return Ok(()) };
    if siblings.len() < 2 {
        return Ok(());
    }
    let versions: Vec<_> = siblings.iter().collect();
    for (index, (dot, version)) in versions.iter().enumerate() {
        let twin = versions[..index].iter().find(|(other, earlier)| {
            other.actor == dot.actor
                && version.request_id.is_some()
                && earlier.request_id == version.request_id
        });
        if let Some((other, _)) = twin {
            return broken("C5", format!("{other} and {dot} are one request, and one actor issued both"));
        }
    }
    Ok(())
}

/// What a reply shows or tells must be covered by its context: else the next write with it is a
/// sibling of what its client saw.
pub fn on_context(op: OpIndex, shown: &[Dot], context: &DotSet) -> Check {
    match shown.iter().find(|dot| !context.contains(**dot)) {
        Some(dot) => broken("C5", format!("op {op} was told of {dot}, and its context does not cover it")),
        None => Ok(()),
    }
}

/// A read by the only client of a key, all of whose writes were acknowledged to it.
pub fn on_solo_read(op: OpIndex, values: usize) -> Check {
    if values > 1 {
        return broken("C5", format!("op {op} is of the only client of its key and sees {values} siblings"));
    }
    Ok(())
}
