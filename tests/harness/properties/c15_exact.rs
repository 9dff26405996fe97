//! C15, exact types: every acknowledged operation of a shipped type counts exactly once.
//!
//! Each answer of a plugin is read through the plugin itself and compared with what the model says that it holds, at
//! the instant of the answer: an operation that is swallowed, counted twice or undone shows in the first state that lacks
//! it. That what was acknowledged is held at the end is C1's; that nothing else is, C9's. In: calls and answers. Absent:
//! what each type's reading is, one file each.

use super::{Check, broken, c1_no_lost_ack::ids_of, c15_counter, c15_map, c15_set};
use crate::history::{History, KeyIndex, What};
use crate::models::Held;
use crate::sim::plugins::Plugin;
use bytes::Bytes;
use merganser_core::id::RequestId;
use merganser_core::plugin::{KeyInfo, PluginAnswer, PluginCall, PluginOperation, World};
use std::rc::Rc;

/// A question, and the plugin's answer to it.
pub fn on_call(history: &mut History, plugin: Plugin, call: &PluginCall, answer: &PluginAnswer) -> Check {
    if let (PluginCall::Resolve { key, siblings }, PluginAnswer::Keep { value, .. }) = (call, answer) {
        return resolved(history, key, siblings.iter().filter_map(|sibling| sibling.content.as_ref()), value);
    }
    if plugin.world() != World::ReplicatedType {
        return Ok(());
    }
    let held = match (call, answer) {
        (PluginCall::Validate { .. }, _) => return Ok(()),
        (PluginCall::Apply { state, operation, .. }, PluginAnswer::Value(after)) => {
            let PluginOperation { body: op, op_id, dot, .. } = operation;
            let id = op_id[..].try_into().ok().and_then(|id| history.op_of(RequestId(id)));
            let Some(index) = id else {
                return broken("C9", format!("an operation of nobody's request is applied: {op:?}"));
            };
            let What::Apply(what) = history.ops[index].what.clone() else {
                return broken("C9", format!("op {index} is no operation, and {op:?} is applied"));
            };
            let (before, seen) = (state.as_ref(), operation.seen.as_ref());
            history.models.applied(before, (index, *dot, what), seen, after).map(|held| (held, after))
        }
        (PluginCall::Merge { states, .. }, PluginAnswer::Value(after)) => {
            history.models.merged(states, after).map(|held| (held, after))
        }
        (PluginCall::Query { state, .. }, PluginAnswer::Value(result)) => {
            history.models.queried(result);
            return match history.models.held(state) {
                Some(_) => Ok(()),
                None => broken("C9", format!("a state of nobody's making is queried: {state:?}")),
            };
        }
        _ => {
            return broken(
                "C15",
                format!("{plugin:?} refuses what clients and itself have made: {answer:?}"),
            );
        }
    };
    match held {
        Some((held, after)) => on_answer(history, plugin, call, &held, after),
        None => broken("C9", format!("{plugin:?} is asked of a state of nobody's making: {call:?}")),
    }
}

/// A state that the plugin has made of others, which hold this.
fn on_answer(history: &History, plugin: Plugin, call: &PluginCall, held: &Rc<Held>, after: &Bytes) -> Check {
    let (PluginCall::Apply { key, .. } | PluginCall::Merge { key, .. }) = call else { return Ok(()) };
    let query = PluginCall::Query { key: key.clone(), state: after.clone(), path: Bytes::new() };
    let PluginAnswer::Value(reading) = plugin.answer(&query) else {
        return broken("C15", format!("{plugin:?} cannot read what it has made itself: {after:?}"));
    };
    let Ok(reading) = std::str::from_utf8(&reading) else {
        return broken("C15", format!("{plugin:?} answers {reading:?}"));
    };
    let judged = match plugin {
        Plugin::OrSet => c15_set::on_reading(&history.models, held, reading),
        Plugin::Map => c15_map::on_reading(&history.models, held, reading),
        _ => c15_counter::on_reading(&history.models, held, reading),
    };
    judged.map_err(|mut violation| {
        let what = match call {
            PluginCall::Apply { operation, .. } => format!("after the operation {}", operation.dot),
            PluginCall::Merge { states, .. } => format!("after a merge of {} states", states.len()),
            _ => String::new(),
        };
        violation.text = format!("{} {:?} {what}: {}", key.keyspace, key.key, violation.text);
        violation
    })
}

/// What a resolver makes of values holds the writes that those hold.
fn resolved<'a>(
    history: &mut History,
    of: &KeyInfo,
    contents: impl Iterator<Item = &'a Bytes>,
    answer: &Bytes,
) -> Check {
    let is_it = |key: &crate::history::Key| key.keyspace == of.keyspace && key.key == of.key;
    let Some(key): Option<KeyIndex> = history.keys.iter().position(is_it) else {
        return broken("C9", format!("a plugin is asked of a key that nobody used: {of:?}"));
    };
    let mut all = Vec::new();
    for content in contents {
        let Some(ids) = ids_of(history, key, content) else {
            return broken("C9", format!("a plugin is shown a value of nobody's making: {content:?}"));
        };
        all.extend(ids);
    }
    all.sort_unstable();
    all.dedup();
    history.models.resolved(answer, all);
    Ok(())
}
