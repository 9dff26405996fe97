//! C11, plugins: they are asked canonically, answer the same however often and in whatever order
//! they are asked, and no failure ever changes what is stored.
//!
//! *on_call* siblings come in dot order, equal bytes once with all their dots (R1); the answer
//! is the same again and for permuted input. *on_state* a stored resolution is exactly the answer
//! for what its receipt names (R3), and a lattice fragment holds every write it claims and
//! nothing that was never put (R5): so no failed call was ever replaced by a made-up result (R7).

use super::{
    Check, broken,
    c1_no_lost_ack::{ids_of, written},
};
use crate::history::{History, KeyIndex};
use crate::sim::plugins::Plugin;
use merganser_core::catalog::DeleteSemantics;
use merganser_core::plugin::{PluginAnswer, PluginCall};
use merganser_core::version::KeyState;

/// A question, and the plugin's answer to it.
pub fn on_call(plugin: Plugin, call: &PluginCall, answer: &PluginAnswer) -> Check {
    let mut permuted = call.clone();
    match &mut permuted {
        PluginCall::Resolve { siblings, .. } => {
            let ordered = siblings.windows(2).all(|pair| pair[0].dots.first() < pair[1].dots.first());
            let within = siblings.iter().all(|sibling| sibling.dots.windows(2).all(|pair| pair[0] < pair[1]));
            let distinct = |(index, sibling): (usize, &merganser_core::plugin::PluginSibling)| {
                siblings[..index].iter().all(|earlier| earlier.content != sibling.content)
            };
            if !ordered || !within || !siblings.iter().enumerate().all(distinct) {
                return broken("C11", format!("siblings are shown in no canonical form: {siblings:?}"));
            }
            siblings.reverse();
        }
        PluginCall::Merge { states, .. } => {
            states.reverse();
            states.extend_from_within(..1);
        }
        _ => {}
    }
    if plugin.answer(&permuted) != *answer || plugin.answer(call) != *answer {
        return broken("C11", format!("{plugin:?} answers {call:?} in two ways"));
    }
    Ok(())
}

pub(super) fn on_state(history: &History, key: KeyIndex, state: &KeyState) -> Check {
    match state {
        KeyState::Causal(siblings) => {
            for (dot, version) in siblings.iter().filter(|(_, version)| version.receipt.is_some()) {
                let from = version.receipt.as_ref().map_or(&[][..], |receipt| &receipt.merged_from);
                let facts: Vec<_> =
                    from.iter().filter_map(|dot| Some((*dot, history.dots.get(dot)?))).collect();
                let shows_deletes = history.keys[key].deletes == DeleteSemantics::PluginDecides;
                let shown = facts.iter().filter(|(_, fact)| fact.value.is_some() || shows_deletes);
                let shown: Vec<_> = shown.copied().collect();
                let answer = Plugin::of_key(history, key).map(|plugin| plugin.resolution(&shown));
                let expected = match answer {
                    Some(PluginAnswer::Keep { value, .. }) => Some(Some(value)),
                    Some(PluginAnswer::Delete) => Some(None),
                    _ => None,
                };
                let stored = Some(version.content.value().cloned());
                // Of one that has expired, the bytes may be gone.
                let let_go = version.expires_at.is_some() && stored == Some(None);
                if let_go {
                    continue;
                }
                if facts.len() != from.len() || expected != stored {
                    return broken(
                        "C11",
                        format!("{dot} stores {stored:?}, {from:?} resolve to {expected:?}"),
                    );
                }
            }
        }
        KeyState::Lww(_) => {}
        KeyState::Lattice(fragments) => {
            for fragment in fragments.iter() {
                let Some(held) = ids_of(history, key, &fragment.value) else {
                    return broken(
                        "C9",
                        format!("a fragment of key {key} is no value: {:?}", fragment.value),
                    );
                };
                // A span of a later dot of the same actor reaches over what was collected in between.
                let collected = history.collected.get(&key).map(|collected| collected.state.seen());
                let was_collected = |dot| collected.as_ref().is_some_and(|seen| seen.contains(dot));
                let claims = |dot| fragment.claim.contains(dot) && !was_collected(dot);
                for (dot, op) in
                    history.told.iter().filter(|(dot, op)| history.ops[**op].key == key && claims(**dot))
                {
                    let lost = written(&history.ops[*op], *op).into_iter().find(|id| !held.contains(id));
                    if let Some(id) = lost {
                        let text = format!("a fragment claims {dot} and does not hold its write {id}");
                        return broken("C11", format!("{text}, only {held:?}"));
                    }
                }
            }
        }
    }
    Ok(())
}
