//! C3, dot uniqueness (white-box): a dot names one write of one key, for ever.
//!
//! In: every state that is written or sent. Out: a violation where a dot shows another key,
//! content, stamp or request than before (riak_kv#679, #1865). States of lattices show no single
//! writes; there the dots of replies are compared.

use super::{Check, broken};
use crate::history::{DotFact, History, KeyIndex, OpIndex};
use merganser_core::id::Dot;
use merganser_core::version::{KeyState, Version};

pub(super) fn on_state(history: &mut History, key: KeyIndex, state: &KeyState) -> Check {
    match state {
        KeyState::Causal(siblings) => {
            for (dot, version) in siblings.iter() {
                if version.receipt.is_some() && !history.dots.contains_key(dot) {
                    history.resolved_within(key, *dot, state);
                }
                on_version(history, key, *dot, version)?;
            }
            Ok(())
        }
        KeyState::Lww(register) => {
            register.winner.iter().try_for_each(|(dot, version)| on_version(history, key, *dot, version))
        }
        KeyState::Lattice(_) => Ok(()),
    }
}

fn on_version(history: &mut History, key: KeyIndex, dot: Dot, version: &Version) -> Check {
    let fact = DotFact {
        key,
        op: version.request_id.and_then(|id| history.op_of(id)),
        value: version.content.value().cloned(),
        expires_at: version.expires_at,
        stamp: version.stamp,
        merged_from: version.receipt.as_ref().map(|receipt| receipt.merged_from.clone()).unwrap_or_default(),
    };
    match history.dots.get(&dot) {
        Some(known) if known.is_same_write(&fact) => Ok(()),
        Some(known) => broken("C3", format!("{dot} was {known:?} and is {fact:?}")),
        None => {
            if fact.op.is_none() && version.receipt.is_none() {
                return broken("C9", format!("{dot} is of no client's request and no resolution"));
            }
            history.learn(dot, fact);
            Ok(())
        }
    }
}

/// A dot that a client was told.
pub fn on_told(history: &mut History, dot: Dot, op: OpIndex) -> Check {
    let known = history.told.insert(dot, op);
    if known.is_some_and(|known| known != op) {
        return broken("C3", format!("{dot} was told to op {known:?} and to op {op}"));
    }
    match history.dots.get(&dot) {
        Some(fact) if fact.op != Some(op) => {
            broken("C3", format!("op {op} was told {dot}, which is of op {:?}", fact.op))
        }
        _ => Ok(()),
    }
}
