//! What a plugin's answers make of an active key: verdicts on its operands, their join, an operation's result.
//!
//! In: an active key, answers. Out: its state, or that it rests. Absent: when it is asked (`tend`), and resolutions, which no
//! replica makes.

use super::sorting::Sorting;
use super::{ActiveKey, Question};
use crate::catalog::KeyspaceEntry;
use crate::coordinator;
use crate::event::{Effect, Effects, Notice};
use crate::id::{Millis, OpId};
use crate::mutant::Mutant;
use crate::node::{Node, Purpose};
use crate::plugin::{PluginAnswer, PluginCall};
use crate::request::MERGED_BYTES_MAX;
use crate::version::{DotSet, KeyState, Standing};
use bytes::Bytes;

impl Node {
    pub(super) fn ask_plugin(
        &mut self,
        storage_key: &Bytes,
        ask: OpId,
        active: &ActiveKey,
        call: PluginCall,
        effects: &mut Effects,
    ) {
        let Some(plugin) = active.target.entry.settings.policy.plugin() else { return };
        let plugin = plugin.hash;
        let ticket = self.ticket(Purpose::Active { key: storage_key.clone(), ask });
        effects.push(Effect::Plugin { ticket, plugin, call });
    }

    /// The plugin's answer to an active key's question, if the key still waits for that one.
    pub(crate) fn active_plugin_done(
        &mut self,
        now: Millis,
        storage_key: Bytes,
        ask: OpId,
        answer: PluginAnswer,
        effects: &mut Effects,
    ) {
        let Some(mut active) = self.active.remove(&storage_key) else { return };
        if let Some(asked) = active.asked.take_if(|asked| asked.id == ask) {
            self.question_over(&asked);
            match asked.question {
                Question::Validate(claim) => {
                    self.judged(now, &storage_key, &mut active, &claim, asked.epoch, answer, effects);
                }
                Question::Join(claims) => {
                    self.joined(now, &storage_key, &mut active, &claims, asked.epoch, answer, effects);
                }
                Question::Apply(applying) => {
                    self.applied(&mut active, *applying, asked.epoch, answer, effects);
                }
            }
        }
        self.active.insert(storage_key.clone(), active);
        self.work(now, storage_key, effects);
    }

    /// The plugin has looked at an operand, or not.
    #[expect(clippy::too_many_arguments, reason = "a key, a claim and its verdict")]
    fn judged(
        &mut self,
        now: Millis,
        storage_key: &Bytes,
        active: &mut ActiveKey,
        claim: &DotSet,
        epoch: u64,
        answer: PluginAnswer,
        effects: &mut Effects,
    ) {
        match answer {
            PluginAnswer::Valid => drop(judge(active, claim, Standing::valid(epoch))),
            answer @ PluginAnswer::Rejected { .. } => {
                let reason = coordinator::reason(answer);
                self.set_aside(active, claim, epoch, &reason, effects);
            }
            other => {
                let reason = coordinator::reason(other);
                self.plugin_failed(&active.target.entry, format!("validate: {reason}"), effects);
                active.sorting = None;
                self.rest(now, storage_key, reason, false);
            }
        }
    }

    /// An operand stays apart from the others, with the reason. Whether that is new.
    pub(super) fn set_aside(
        &mut self,
        active: &mut ActiveKey,
        claim: &DotSet,
        epoch: u64,
        reason: &str,
        effects: &mut Effects,
    ) -> bool {
        if !judge(active, claim, Standing::aside(epoch, reason)) {
            return false;
        }
        self.counters.set_aside += 1;
        let (keyspace, key) = (active.target.entry.name.clone(), active.target.key.clone());
        effects.push(Effect::Notice(Notice::SetAside { keyspace, key, reason: reason.to_owned() }));
        true
    }

    #[expect(clippy::too_many_arguments, reason = "a key, what was joined and what it came to")]
    fn joined(
        &mut self,
        now: Millis,
        storage_key: &Bytes,
        active: &mut ActiveKey,
        claims: &[DotSet],
        epoch: u64,
        answer: PluginAnswer,
        effects: &mut Effects,
    ) {
        let Some(KeyState::Lattice(fragments)) = active.state.as_mut() else { return };
        let answer = match within_limit(answer) {
            PluginAnswer::Value(value) => {
                fragments.joined(claims, value, Standing::valid(epoch));
                (active.record, active.dirty) = (None, true);
                if let Some(sorting) = &mut active.sorting {
                    sorting.joined(claims);
                }
                return;
            }
            other => other,
        };
        let first = fragments.iter().next().map(|fragment| fragment.value.clone());
        if self.mutant(Mutant::FailedJoinIsAValue)
            && let (Some(KeyState::Lattice(fragments)), Some(operand)) = (active.state.as_mut(), first)
        {
            fragments.joined(claims, operand, Standing::valid(epoch));
            (active.record, active.dirty) = (None, true);
            return;
        }
        let lies_with_operands = matches!(answer, PluginAnswer::Rejected { .. } | PluginAnswer::Broke(_));
        let is_too_large = matches!(answer, PluginAnswer::TooLarge { .. });
        let reason = coordinator::reason(answer);
        self.plugin_failed(&active.target.entry, format!("join: {reason}"), effects);
        match &mut active.sorting {
            Some(sorting) if lies_with_operands => sorting.failed(claims, &reason),
            None if lies_with_operands => active.sorting = Some(Sorting::of(claims)),
            _ => {
                active.sorting = None;
                self.rest(now, storage_key, reason, is_too_large);
            }
        }
    }

    pub(crate) fn plugin_failed(&mut self, entry: &KeyspaceEntry, reason: String, effects: &mut Effects) {
        self.counters.plugin_failures += 1;
        if let Some(plugin) = entry.settings.policy.plugin() {
            let keyspace = entry.name.clone();
            effects.push(Effect::Notice(Notice::PluginFailed { plugin: plugin.hash, keyspace, reason }));
        }
    }
}

/// A verdict on an operand; whether it is new.
fn judge(active: &mut ActiveKey, claim: &DotSet, standing: Standing) -> bool {
    let Some(KeyState::Lattice(fragments)) = active.state.as_mut() else { return false };
    let changed = fragments.judge(claim, standing);
    if changed {
        (active.record, active.dirty) = (None, true);
    }
    changed
}

/// The answer to a join, an operation or a query, none where the value is larger than a lattice's may be.
pub(crate) fn within_limit(answer: PluginAnswer) -> PluginAnswer {
    match answer {
        PluginAnswer::Value(value) if value.len() > MERGED_BYTES_MAX => {
            PluginAnswer::TooLarge { size_bytes: value.len() as u64, limit_bytes: MERGED_BYTES_MAX as u64 }
        }
        other => other,
    }
}
