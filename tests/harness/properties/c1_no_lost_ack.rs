//! C1, no lost acknowledgement: what was acknowledged is in the merged final state, or
//! reachable from it over "had seen".
//!
//! *causal* every acknowledged dot is reached from live versions and effective deletes over what
//! their writers had been shown. *lww* it, or a version with a higher (stamp, dot), is the winner.
//! *lattice* the joined value holds the write, unless a delete saw it (or, where deletes win, may
//! have been concurrent with it). What all its machines lost (`losses.rs`) is excused. A write whose outcome is unknown may be in or out.

use super::{Check, Final, broken};
use crate::history::{END, History, KeyIndex, Op, What};
use crate::sim::plugins;
use merganser_core::catalog::DeleteSemantics;
use merganser_core::id::Dot;
use merganser_core::plugin::World;
use merganser_core::version::KeyState;
use std::collections::BTreeSet;

pub(super) fn at_end(history: &History, end: &Final) -> Check {
    let acknowledged = history.acknowledgements.iter().filter(|ack| history.ops[ack.op].key == end.key);
    let binding = |ack: &&crate::history::Acknowledgement| !history.is_excused(ack);
    match &end.joined {
        KeyState::Causal(siblings) => {
            let deletes = history.deletes_within(end.key, siblings.seen(), END);
            let retired = history.retired.get(&end.key);
            let retired = retired.map(|retired| history.deletes_within(end.key, retired, END));
            let retired =
                retired.into_iter().flatten().filter(|delete| is_retired_delete(history, end, *delete));
            let live = siblings.iter().map(|(dot, _)| *dot);
            let reached = history.reach(live.chain(deletes).chain(retired));
            for ack in acknowledged.filter(binding) {
                let collected = history.collected.get(&end.key);
                let was_collected = collected.is_some_and(|collected| collected.reached.contains(&ack.dot));
                if !reached.contains(&ack.dot) && !was_collected {
                    let live: Vec<String> = siblings.iter().map(|(dot, _)| history.name(*dot)).collect();
                    let text = format!("{} was acknowledged to op {}; ", history.name(ack.dot), ack.op);
                    return broken("C1", text + &format!("only {live:?} are left, and none has seen it"));
                }
            }
        }
        KeyState::Lww(register) => {
            for ack in acknowledged.filter(binding) {
                let stamp = history.dots.get(&ack.dot).map(|fact| fact.stamp);
                let held =
                    |stamp| register.covers(ack.dot, stamp) || history.was_collected(end.key, ack.dot, stamp);
                if stamp.is_none_or(|stamp| !held(stamp)) {
                    let winner = register.order();
                    return broken(
                        "C1",
                        format!("{} {stamp:?} is not below {winner:?}", history.name(ack.dot)),
                    );
                }
            }
        }
        KeyState::Lattice(fragments) => {
            let mut held: BTreeSet<u64> = BTreeSet::new();
            for fragment in fragments.iter() {
                held.extend(ids_of(history, end.key, &fragment.value).unwrap_or_default());
            }
            for ack in acknowledged.filter(binding) {
                let missing = written(&history.ops[ack.op], ack.op).into_iter().find(|id| !held.contains(id));
                if let Some(id) = missing.filter(|id| !deleted(history, end.key, *id)) {
                    return broken(
                        "C1",
                        format!("write {id} ({} of op {}) is in no fragment of {held:?}", ack.dot, ack.op),
                    );
                }
            }
        }
    }
    Ok(())
}

/// A delete, or what has expired, that one member collected, while others had taken in something newer beside it, leaves
/// no trace but the context; and that goes, too, once its actor is dead. It took effect all the same: all had agreed on
/// a state that had seen it. What it had seen must not live.
fn is_retired_delete(history: &History, end: &Final, dot: Dot) -> bool {
    let is_gone = history.dots.get(&dot).is_some_and(|fact| fact.is_gone(END));
    let is_retired = history.retired.get(&end.key).is_some_and(|retired| retired.contains(dot));
    let live = end.joined.live_dots();
    is_gone && is_retired && history.reach([dot].into_iter()).iter().all(|seen| !live.contains(seen))
}

/// The writes in a value that a plugin made or a client put; of a shipped type, the operations. None if it is neither.
pub(crate) fn ids_of(history: &History, key: KeyIndex, value: &bytes::Bytes) -> Option<Vec<u64>> {
    match plugins::Plugin::of_key(history, key) {
        Some(plugin) if plugin.world() == World::ReplicatedType => {
            Some(history.models.ops(value)?.into_iter().map(History::write_id).collect())
        }
        Some(plugins::Plugin::Values) => match history.models.ids_of_answer(value) {
            Some(ids) => Some(ids.to_vec()),
            None => plugins::ids(value),
        },
        _ => plugins::ids(value),
    }
}

/// The writes that an op joins in.
pub(super) fn written(op: &Op, index: usize) -> Vec<u64> {
    match &op.what {
        What::Put(_, ids) => ids.clone(),
        What::Apply(_) => vec![History::write_id(index)],
        What::Get | What::Query | What::Delete => Vec::new(),
    }
}

fn deleted(history: &History, key: KeyIndex, id: u64) -> bool {
    let wins = history.keys[key].deletes == DeleteSemantics::DeleteWins;
    history.ops.iter().any(|op| {
        op.key == key && op.what == What::Delete && !op.was_refused() && (wins || op.seen.ids.contains(&id))
    })
}
