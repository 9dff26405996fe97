//! What an active key asks of a plugin: one join of a lattice's fragments, or an operation.
//!
//! In: an active key. Out: calls, and what their answers make of the key. Absent: resolutions, which no replica makes.

use super::{ActiveKey, Busy};
use crate::catalog::KeyspaceEntry;
use crate::coordinator;
use crate::event::{Effect, Effects, Notice};
use crate::id::Millis;
use crate::mutant::Mutant;
use crate::node::{Node, Purpose};
use crate::plugin::{PluginAnswer, PluginCall};
use crate::request::{MERGED_BYTES_MAX, Problem};
use crate::version::{DotSet, KeyState};
use bytes::Bytes;

impl Node {
    /// Asks the plugin to join an active key's fragments.
    pub(super) fn join(&mut self, storage_key: &Bytes, active: &mut ActiveKey, effects: &mut Effects) {
        let Some(KeyState::Lattice(fragments)) = &active.state else { return };
        let claims = fragments.iter().map(|fragment| fragment.claim.clone()).collect();
        let states = fragments.iter().map(|fragment| fragment.value.clone()).collect();
        let call = PluginCall::Merge { key: coordinator::key_info(&active.target), states };
        active.busy = Some(Busy::Joining(claims));
        self.counters.joins += 1;
        self.ask(storage_key, active, call, effects);
    }

    pub(super) fn ask(
        &mut self,
        storage_key: &Bytes,
        active: &ActiveKey,
        call: PluginCall,
        effects: &mut Effects,
    ) {
        let Some(plugin) = active.target.entry.settings.policy.plugin() else { return };
        let plugin = plugin.hash;
        let ticket = self.ticket(Purpose::Active(storage_key.clone()));
        effects.push(Effect::Plugin { ticket, plugin, call });
    }

    /// The plugin's answer to an active key's join or operation.
    pub(crate) fn active_plugin_done(
        &mut self,
        now: Millis,
        storage_key: Bytes,
        answer: PluginAnswer,
        effects: &mut Effects,
    ) {
        let Some(mut active) = self.active.remove(&storage_key) else { return };
        match active.busy.take() {
            Some(Busy::Joining(claims)) => self.joined(&mut active, &claims, answer, effects),
            Some(Busy::Applying(op, issued)) => self.applied(&mut active, op, issued, answer, effects),
            other => active.busy = other,
        }
        self.active.insert(storage_key.clone(), active);
        self.work(now, storage_key, effects);
    }

    fn joined(
        &mut self,
        active: &mut ActiveKey,
        claims: &[DotSet],
        answer: PluginAnswer,
        effects: &mut Effects,
    ) {
        let Some(KeyState::Lattice(fragments)) = active.state.as_mut() else { return };
        let first = fragments.iter().next().map(|fragment| fragment.value.clone());
        match (self.plugin_value(&active.target.entry, answer, effects), first) {
            (Ok(value), _) => fragments.joined(claims, value),
            (Err(_), Some(operand)) if self.mutant(Mutant::FailedJoinIsAValue) => {
                fragments.joined(claims, operand)
            }
            (Err(_), _) => active.join_failed = true,
        }
        active.record = None;
    }

    /// The value of a plugin's answer, within the limit of merged results, or why there is none.
    pub(crate) fn plugin_value(
        &mut self,
        entry: &KeyspaceEntry,
        answer: PluginAnswer,
        effects: &mut Effects,
    ) -> Result<Bytes, Problem> {
        let reason = match answer {
            PluginAnswer::Value(value) if value.len() <= MERGED_BYTES_MAX => return Ok(value),
            PluginAnswer::Value(value) => {
                format!("the result has {} bytes, the limit is {MERGED_BYTES_MAX}", value.len())
            }
            PluginAnswer::Rejected { kind, message } => {
                return Err(Problem::InvalidValue { kind, reason: message });
            }
            PluginAnswer::Failed(reason) => reason,
            other => format!("an answer to another question: {other:?}"),
        };
        self.plugin_failed(entry, reason.clone(), effects);
        Err(Problem::Unresolved { reason })
    }

    pub(crate) fn plugin_failed(&mut self, entry: &KeyspaceEntry, reason: String, effects: &mut Effects) {
        self.counters.plugin_failures += 1;
        if let Some(plugin) = entry.settings.policy.plugin() {
            let keyspace = entry.name.clone();
            effects.push(Effect::Notice(Notice::PluginFailed { plugin: plugin.hash, keyspace, reason }));
        }
    }
}
