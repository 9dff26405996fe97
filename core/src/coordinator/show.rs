//! The last stages of a read: its view, with the plugin's help where there is a conflict, and the reply.
//!
//! ```text
//!   joined state ─▶ view ─▶ (plugin) ─▶ reply
//!                     └ a query ─▶ (plugin joins) ─▶ plugin projects ─▶ reply
//! ```
//!
//! In: a read whose quorum is met, the plugin's answers. Out: its outcome. Absent: how the quorum
//! was met (`get`), and what a view is made of (`view`).

use super::get::{Goal, Reading, Stage};
use super::view::{self, Shown, View};
use super::view_cache;
use super::{key_info, put, reason};
use crate::event::{Effect, Effects};
use crate::id::{Millis, OpId};
use crate::node::{Node, Purpose};
use crate::plugin::{PluginAnswer, PluginCall};
use crate::replica::within_limit;
use crate::request::{GetReply, Outcome, Presence, Problem, QueryReply, Resolution, SiblingView, Want};
use crate::version::{Context, Counts, Fragment, KeyState};
use bytes::Bytes;

impl Node {
    /// What was joined is shown, or the plugin is asked first.
    pub(super) fn show(&mut self, now: Millis, op: OpId, effects: &mut Effects) {
        let Some(reading) = self.reading.get(&op) else { return };
        let want = match reading.goal {
            Goal::Get(want) => want,
            Goal::Query { .. } | Goal::CatchUp { .. } | Goal::WriteBack => Want::Resolved,
        };
        match view::view(&reading.target, &reading.live(), want) {
            Shown::Now(view) => self.shown(now, op, view, effects),
            Shown::Ask(call) => {
                let question = match reading.goal {
                    Goal::WriteBack | Goal::CatchUp { .. } => None,
                    Goal::Get(_) | Goal::Query { .. } => {
                        view_cache::question(&reading.target, &reading.live(), &call)
                    }
                };
                if let Goal::Query { .. } = reading.goal {
                    self.set_stage(op, Stage::Joining);
                }
                if let Some(answer) = question.as_ref().and_then(|question| self.view_cache.get(question)) {
                    self.counters.view_hits += 1;
                    return self.view_done(now, op, answer, effects);
                }
                if let Some(reading) = self.reading.get_mut(&op) {
                    reading.question = question;
                }
                self.counters.views += 1;
                self.ask_view(op, call, effects);
            }
        }
    }

    fn set_stage(&mut self, op: OpId, stage: Stage) {
        if let Some(reading) = self.reading.get_mut(&op) {
            reading.stage = stage;
        }
    }

    fn ask_view(&mut self, op: OpId, call: PluginCall, effects: &mut Effects) {
        let Some(plugin) =
            self.reading.get(&op).and_then(|reading| reading.target.entry.settings.policy.plugin())
        else {
            return;
        };
        let plugin = plugin.hash;
        let ticket = self.ticket(Purpose::View(op));
        effects.push(Effect::Plugin { ticket, plugin, call });
    }

    /// The plugin has answered a read's question.
    pub(crate) fn view_done(&mut self, now: Millis, op: OpId, answer: PluginAnswer, effects: &mut Effects) {
        let answer = within_limit(answer);
        let Some(reading) = self.reading.get_mut(&op) else { return };
        if let Some(question) = reading.question.take() {
            self.view_cache.put(question, &answer, self.config.view_cache_bytes);
        }
        let entry = reading.target.entry.clone();
        if let PluginAnswer::Failed(reason) | PluginAnswer::Broke(reason) = &answer {
            self.plugin_failed(&entry, reason.clone(), effects);
        }
        let Some(reading) = self.reading.get(&op) else { return };
        match (&reading.goal, &reading.stage) {
            (Goal::Query { .. }, Stage::Viewing) => {
                let result = match answer {
                    PluginAnswer::Value(result) => Ok(result),
                    PluginAnswer::Rejected { kind, message } if kind != "malformed" => {
                        Err(Problem::InvalidArgument { field: "path", reason: message })
                    }
                    PluginAnswer::TooLarge { size_bytes, limit_bytes } => {
                        Err(Problem::TooLarge { what: "result", size_bytes, limit_bytes })
                    }
                    // The reader has written nothing that the plugin could refuse: it is the state that it does not take.
                    other => Err(Problem::Unresolved { reason: reason(other) }),
                };
                self.queried(now, op, result, effects);
            }
            (Goal::Query { .. }, _) => match answer {
                PluginAnswer::Value(state) => self.query(op, state, effects),
                other => {
                    let reason = reason(other);
                    self.queried(now, op, Err(Problem::Unresolved { reason }), effects);
                }
            },
            (Goal::WriteBack, _) => {
                if let Some(reading) = self.finish(now, op, effects) {
                    self.store_resolution(now, reading, answer, effects);
                }
            }
            (Goal::CatchUp { .. }, _) => {}
            (Goal::Get(_), _) => {
                let view = view::answered(&entry, &reading.live(), answer);
                self.shown(now, op, view, effects);
            }
        }
    }

    /// What is shown is known.
    fn shown(&mut self, now: Millis, op: OpId, view: View, effects: &mut Effects) {
        let Some(reading) = self.reading.get(&op) else { return };
        match &reading.goal {
            Goal::Get(_) => {
                let Some(reading) = self.finish(now, op, effects) else { return };
                if put::distinct(now, &reading.merged) > 1 {
                    self.conflict_seen(now, &reading.target, &reading.merged);
                }
                let View { presence, mut siblings, resolution } = view;
                self.operands_seen(now, &reading, &mut siblings);
                let context = self.context(&reading);
                let reply = GetReply { presence, siblings, context, resolution, acks: reading.tally.acks() };
                self.answer_waiters(&reading.waiters, &Outcome::Got(reply), effects);
            }
            Goal::Query { .. } => {
                match view.siblings.into_iter().next().and_then(|sibling| sibling.content) {
                    // Nothing of it is joined.
                    Some(_) if reading.is_unjoined() => {
                        let reason = match view.resolution {
                            Resolution::Unresolved { reason, .. } => reason,
                            _ => "no operand of the key is valid".to_owned(),
                        };
                        self.queried(now, op, Err(Problem::Unresolved { reason }), effects);
                    }
                    Some(state) if view.presence == Presence::Found => self.query(op, state, effects),
                    _ => {
                        let Some(reading) = self.finish(now, op, effects) else { return };
                        let context = self.context(&reading);
                        let acks = reading.tally.acks();
                        let (presence, resolution) = (view.presence, view.resolution);
                        let reply = QueryReply { presence, result: Bytes::new(), context, resolution, acks };
                        self.answer_waiters(&reading.waiters, &Outcome::Queried(reply), effects);
                    }
                }
            }
            // Nothing to settle any more.
            Goal::WriteBack | Goal::CatchUp { .. } => drop(self.finish(now, op, effects)),
        }
    }

    /// Operands of a lattice are joined off the path of reads; those that stay apart can be deleted one by one.
    fn operands_seen(&mut self, now: Millis, reading: &Reading, siblings: &mut [SiblingView]) {
        let KeyState::Lattice(fragments) = &reading.merged else { return };
        let apart = siblings.iter_mut().filter(|sibling| sibling.apart.is_some());
        for (sibling, fragment) in apart.zip(fragments.unjoined()) {
            let context = Context::of(&fragment.claim, &reading.merged);
            sibling.context = self.sealer.seal(reading.target.entry.id, &reading.target.key, &context);
        }
        let epoch = reading.target.entry.epoch;
        let waits = |fragment: &Fragment| fragment.standing.counts(epoch) == Counts::Unvalidated;
        if fragments.valid().count() > 1 || fragments.unjoined().any(waits) {
            self.tend_later(now, &reading.target);
        }
    }

    fn query(&mut self, op: OpId, state: Bytes, effects: &mut Effects) {
        let Some(reading) = self.reading.get_mut(&op) else { return };
        let Goal::Query { path, .. } = &reading.goal else { return };
        reading.stage = Stage::Viewing;
        let call = PluginCall::Query { key: key_info(&reading.target), state, path: path.clone() };
        self.ask_view(op, call, effects);
    }

    fn queried(&mut self, now: Millis, op: OpId, result: Result<Bytes, Problem>, effects: &mut Effects) {
        let Some(reading) = self.finish(now, op, effects) else { return };
        match result {
            Ok(result) => {
                let context = self.context(&reading);
                let acks = reading.tally.acks();
                let resolution = view::of_query(&reading.target.entry, &reading.merged);
                let reply = QueryReply { presence: Presence::Found, result, context, resolution, acks };
                self.answer_waiters(&reading.waiters, &Outcome::Queried(reply), effects);
            }
            Err(problem) => self.answer_waiters(&reading.waiters, &Outcome::Failed(problem), effects),
        }
    }

    /// Covers all that was seen, shown or not.
    pub(super) fn context(&self, reading: &Reading) -> Bytes {
        let context = Context::of(&reading.merged.seen(), &reading.merged);
        self.sealer.seal(reading.target.entry.id, &reading.target.key, &context)
    }
}
