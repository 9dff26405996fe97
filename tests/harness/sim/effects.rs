//! The shell of a simulated node: what comes in by core's door, what goes out of it.
//!
//! As the server's driver does it: all effects of a turn are applied once, writes as one push to
//! the log, sends while the log is still being synced. In: an event for a node. Out: messages under
//! way, writes submitted, replies. Each message takes the way over its bytes. Absent: decisions.

use super::bug::Bug;
use super::faults::Undo;
use super::machine::{to_core, to_durability, to_failure, to_op};
use super::network::Fate;
use super::plugins::Plugin;
use super::trace::hash_bytes;
use super::world::{Due, World};
use crate::properties::{self, Check, broken, c11_plugins, c13_members, c13_presence, c15_exact};
use bytes::Bytes;
use merganser_core::event::{Durability, Effect, Effects, Event, Notice, Record, ScanPage, StorageFailure};
use merganser_core::id::{NodeId, Ticket};
use merganser_core::message::Message;
use merganser_core::plugin::{PluginAnswer, PluginCall, PluginFacts};
use merganser_core::storage_key;
use merganser_storage::fs::sim::{Fault, FaultEffect, OpKind};
use merganser_storage::{Error, KeySpan, PageRequest, Step, Write};

/// Longest turn of the slowest disk: shorter than what is waited for once faults have ended.
const DISK_TURN_US_MAX: u64 = 2_000_000;
/// Commits and plugin calls that take up to ten times as long.
const STRAGGLERS_PERMILLE: u64 = 80;

impl World {
    /// One event for a node, and all that follows from it at once.
    pub(super) fn feed(&mut self, node: usize, event: Event) -> Check {
        let now = self.machines[node].now(self.now_us);
        self.latest_clock = self.latest_clock.max(now);
        let mut effects = std::mem::take(&mut self.effects);
        if let Some(process) = &mut self.machines[node].process {
            process.node.has_run((self.now_us - process.begun_us) / 1000);
            process.node.handle(now, event, &mut effects);
            self.history.issued(process.node.last_dot(), self.now_us);
        }
        let applied = self.apply(node, &mut effects);
        effects.clear();
        self.effects = effects;
        applied
    }

    /// Applies a turn's effects, then sets the node's timer.
    pub(super) fn apply(&mut self, node: usize, effects: &mut Effects) -> Check {
        let mut writes: Vec<Write> = Vec::new();
        for effect in effects.drain(..) {
            match effect {
                Effect::Write { ticket, ops, durability } => {
                    self.judge_ops(node, &ops)?;
                    if durability == Durability::Sync {
                        self.machines[node].promises.submitted(ticket.0, &ops);
                    } else {
                        self.machines[node].promises.replaced_unsynced(&ops);
                    }
                    let mut durability = to_durability(durability);
                    if self.options.bug == Some(Bug::WriteDoneBeforeSync) {
                        durability = merganser_storage::Durability::None;
                    }
                    let (count, name) = (ops.len(), &self.machines[node].name);
                    self.trace.note(self.now_us, "w+", [node as u64, ticket.0, count as u64], || {
                        format!("{name} t{} {count} ops", ticket.0)
                    });
                    writes.push(Write {
                        ticket: ticket.0,
                        ops: ops.into_iter().map(to_op).collect(),
                        durability,
                    });
                }
                Effect::Send { to, message } => self.send(node, to, &message)?,
                Effect::Reply { ticket, outcome } => self.reply(node, ticket, outcome)?,
                Effect::Read { ticket, key } => self.begin_read(node, ticket, key),
                Effect::Scan { ticket, from, to, records_max, bytes_max, heads_only } => {
                    let request = PageRequest { from, to, records_max, bytes_max, heads_only };
                    let result = self.page_now(node, &request);
                    let us = self.dice.between(1, 5_000) * self.machines[node].disk_slowness;
                    let boot = self.machines[node].process.as_ref().map_or(0, |process| process.boot);
                    self.schedule(
                        us,
                        Due::Tell { node, boot, event: Box::new(Event::ScanDone { ticket, result }) },
                    );
                }
                Effect::Excise { from, to, seen } => self.excise(node, KeySpan { from, to }, seen),
                Effect::Plugin { ticket, plugin, call } => {
                    let answer = match Plugin::of(plugin) {
                        Some(plugin) => self.call(plugin, &call)?,
                        None => PluginAnswer::Failed("there is no such module".into()),
                    };
                    let us_max = self.with_stragglers(self.options.plugin_us_max);
                    self.tell_later(node, us_max, Event::PluginDone { ticket, answer });
                }
                Effect::LoadPlugin { hash, .. } => {
                    let result = Err::<PluginFacts, _>("the simulation has built-in plugins only".into());
                    self.tell_later(node, 1_000, Event::PluginLoaded { hash, result });
                }
                Effect::Notice(Notice::LeafCorrected { slot, .. }) => {
                    let name = &self.machines[node].name;
                    return broken("C6", format!("the tree of {name} was wrong about {slot:?}"));
                }
                // One disk at a time is damaged: the others have all that it held.
                Effect::Notice(lost @ Notice::RangeLost { .. }) => {
                    return broken("C12", format!("{} gave up: {lost:?}", self.machines[node].name));
                }
                Effect::Notice(notice) => {
                    let name = &self.machines[node].name;
                    let text = format!("{notice:?}");
                    let kind = text.split([' ', '{']).next().unwrap_or_default().to_string();
                    self.trace.note(self.now_us, "!!", [node as u64, hash_bytes(text.as_bytes()), 0], || {
                        format!("{name} {text}")
                    });
                    self.count(&format!("notice {kind}"));
                    self.judge_notice(node, &notice)?;
                }
                Effect::AdminReply { .. } => {}
                Effect::RejoinEmpty { reason } => {
                    let machine = &self.machines[node];
                    if !machine.is_rolled_back {
                        let name = &machine.name;
                        return broken("C12", format!("{name} gives up a disk that is whole: {reason:?}"));
                    }
                    self.schedule(0, Due::Undo(Undo::RejoinEmpty { node, boot: machine.boots }));
                }
            }
        }
        if !writes.is_empty() {
            if let Some(process) = &self.machines[node].process {
                process.db.submit(writes);
            }
            self.disk_is_due(node);
        }
        self.arm(node);
        Ok(())
    }

    fn arm(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        let Some(process) = &mut machine.process else { return };
        let deadline = process.node.next_deadline();
        if deadline == process.armed {
            return;
        }
        process.armed = deadline;
        process.timer += 1;
        let (boot, number) = (process.boot, process.timer);
        if let Some(at) = deadline {
            let after = machine.when_us(at).saturating_sub(self.now_us).max(1);
            self.schedule(after, Due::Timer { node, boot, number });
        }
    }

    pub(super) fn timer(&mut self, node: usize, number: u64) -> Check {
        let now = self.machines[node].now(self.now_us);
        // A later one was set since: only that one fires, or each would set another, for ever.
        let latest = |process: &&mut super::machine::Process| process.timer == number;
        let Some(process) = self.machines[node].process.as_mut().filter(latest) else { return Ok(()) };
        match process.node.next_deadline() {
            Some(at) if at <= now => {
                process.armed = None;
                self.feed(node, Event::TimerFired)
            }
            // Set for a deadline that was cleared, or by a clock that has been put back since.
            _ => {
                process.armed = None;
                self.arm(node);
                Ok(())
            }
        }
    }

    fn tell_later(&mut self, node: usize, us_max: u64, event: Event) {
        let Some(process) = &self.machines[node].process else { return };
        let (boot, after) = (process.boot, self.dice.between(1, us_max.max(1)));
        self.schedule(after, Due::Tell { node, boot, event: Box::new(event) });
    }

    fn call(&mut self, plugin: Plugin, call: &PluginCall) -> Result<PluginAnswer, properties::Violation> {
        let answer = plugin.answer(call);
        c11_plugins::on_call(plugin, call, &answer)?;
        c15_exact::on_call(&mut self.history, plugin, call, &answer)?;
        let fails = self.plugins_out || self.dice.chance(self.options.plugin_failure_permille);
        let answer = if self.trouble && fails { PluginAnswer::Failed("out of fuel".into()) } else { answer };
        let kind = match &answer {
            PluginAnswer::Valid => "plugin valid",
            PluginAnswer::Value(_) | PluginAnswer::Keep { .. } => "plugin value",
            PluginAnswer::Delete => "plugin delete",
            PluginAnswer::Unresolved(_) => "plugin unresolved",
            PluginAnswer::Rejected { .. } => "plugin rejected",
            PluginAnswer::TooLarge { .. } => "plugin too large",
            PluginAnswer::Broke(_) => "plugin broke",
            PluginAnswer::Failed(_) => "plugin failed",
        };
        self.trace.note(self.now_us, "pl", [plugin as u64, kind.len() as u64, 0], || {
            format!("{plugin:?}: {call:?} → {answer:?}")
        });
        self.count(kind);
        Ok(answer)
    }

    /// Now and then a thing takes far longer than it mostly does.
    fn with_stragglers(&mut self, us_max: u64) -> u64 {
        if self.dice.chance(STRAGGLERS_PERMILLE) { us_max * 10 } else { us_max }
    }

    // ---- storage

    fn begin_read(&mut self, node: usize, ticket: Ticket, key: Bytes) {
        let Some(process) = &self.machines[node].process else { return };
        let boot = process.boot;
        if self.dice.chance(self.options.slow_read_permille) {
            // The engine is asked early or late within the read's time; both are legal.
            let us = self.dice.between(1, 5_000) * self.machines[node].disk_slowness;
            if self.dice.chance(500) {
                self.schedule(us, Due::Read { node, boot, ticket, key });
            } else {
                let result = self.read_now(node, &key);
                self.schedule(
                    us,
                    Due::Tell { node, boot, event: Box::new(Event::ReadDone { ticket, result }) },
                );
            }
        } else {
            self.schedule(0, Due::Read { node, boot, ticket, key });
        }
    }

    pub(super) fn read_now(&self, node: usize, key: &[u8]) -> Result<Option<Record>, StorageFailure> {
        match &self.machines[node].process {
            Some(process) => process
                .db
                .get(key)
                .map(|found| found.as_ref().map(to_core))
                .map_err(|error| to_failure(&error)),
            None => Ok(None),
        }
    }

    fn excise(&mut self, node: usize, keys: KeySpan, seen: u64) {
        let Some(process) = &self.machines[node].process else { return };
        let excised = process.db.excise(&keys, seen);
        match excised {
            Err(Error::Poisoned { .. }) => self.die_of_storage(node),
            Ok(pieces) if pieces > 0 => self.machines[node].range_given_up(&keys),
            _ => {}
        }
    }

    fn page_now(&self, node: usize, request: &PageRequest) -> Result<ScanPage, StorageFailure> {
        let Some(process) = &self.machines[node].process else { return Ok(ScanPage::default()) };
        let page = process.db.page(request).map_err(|error| to_failure(&error))?;
        let entries = page.entries.into_iter().map(|(key, record)| (key, to_core(&record))).collect();
        Ok(ScanPage { entries, next: page.next, damaged: page.damaged, damage_seen: page.damage_seen })
    }

    pub(super) fn read(&mut self, node: usize, ticket: Ticket, key: &[u8]) -> Check {
        let result = self.read_now(node, key);
        let name = &self.machines[node].name;
        self.trace.note(self.now_us, "rd", [node as u64, ticket.0, u64::from(result.is_ok())], || {
            format!("{name} t{} {}", ticket.0, if matches!(result, Ok(Some(_))) { "found" } else { "none" })
        });
        let poisoned = matches!(result, Err(StorageFailure::Failed(_)));
        self.feed(node, Event::ReadDone { ticket, result })?;
        if poisoned {
            self.die_of_storage(node);
        }
        Ok(())
    }

    /// A turn of the disk some time from now, unless one is due.
    fn disk_is_due(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        let Some(process) = machine.process.as_mut().filter(|process| !process.disk_due) else { return };
        process.disk_due = true;
        let boot = process.boot;
        let us_max = self.options.disk_us_max;
        let us_max = if self.dice.chance(STRAGGLERS_PERMILLE) { us_max * 10 } else { us_max };
        let after = (self.dice.between(10, us_max) * machine.disk_slowness).min(DISK_TURN_US_MAX);
        self.schedule(after, Due::Disk { node, boot });
    }

    pub(super) fn disk_turn(&mut self, node: usize) -> Check {
        let Some(process) = &mut self.machines[node].process else { return Ok(()) };
        process.disk_due = false;
        let no_room = self.trouble
            && process.db.pending_commit() > 0
            && self.dice.chance(self.options.no_room_permille);
        if no_room {
            self.machines[node].fs.inject(Fault::next(OpKind::Write, FaultEffect::NoSpace));
        }
        let Some(process) = &self.machines[node].process else { return Ok(()) };
        let step = process.db.step();
        if step != Step::Idle {
            self.disk_is_due(node);
        }
        match step {
            Step::Flushed => self.count("storage flushed"),
            Step::Compacted => self.count("storage compacted"),
            Step::Committed { n } if n > 1 => self.count("storage committed several writes at once"),
            _ => {}
        }
        self.take_completions(node)
    }

    /// Hands completions of storage to the node; a process whose storage is poisoned dies of it.
    pub(super) fn take_completions(&mut self, node: usize) -> Check {
        let Some(process) = &self.machines[node].process else { return Ok(()) };
        // A sync that nobody waits for may have failed, too.
        let mut poisoned =
            matches!(process.db.get_head(&storage_key::identity()), Err(Error::Poisoned { .. }));
        for (tickets, result) in process.done.take() {
            poisoned |= matches!(result, Err(Error::Poisoned { .. } | Error::Io { .. }));
            let (first, count) = (tickets.first().copied().unwrap_or_default(), tickets.len() as u64);
            let name = &self.machines[node].name;
            self.trace.note(
                self.now_us,
                "w=",
                [node as u64, first, count << 1 | u64::from(result.is_ok())],
                || format!("{name} {tickets:?} {result:?}"),
            );
            if let Err(error) = &result {
                let kind = format!("write failed: {}", if poisoned { "poisoned" } else { error_kind(error) });
                self.count(&kind);
                // What it wrote is not what it holds.
                self.last_seen.retain(|(whose, _), _| *whose != node);
            }
            if !matches!(result, Err(Error::Poisoned { .. } | Error::Io { .. })) {
                let promises = &mut self.machines[node].promises;
                tickets.iter().for_each(|ticket| promises.done(*ticket, result.is_ok()));
            }
            let tickets = tickets.into_iter().map(Ticket).collect();
            let result = result.map_err(|error| to_failure(&error));
            self.feed(node, Event::WritesDone { tickets, result })?;
        }
        if poisoned {
            self.die_of_storage(node);
        }
        Ok(())
    }

    // ---- messages

    fn send(&mut self, node: usize, to: NodeId, message: &Message) -> Check {
        let peer = self.node_of(to).filter(|peer| *peer != node);
        c13_members::on_send(&self.machines[node].name, peer, message)?;
        let joined = self.machines[node].process.as_ref().is_some_and(|process| process.joined);
        c13_presence::on_send(&self.machines[node].name, joined, message)?;
        let Some(peer) = peer else { return Ok(()) };
        self.judge_message(node, peer, message)?;
        if matches!(message, Message::Replicate { .. } | Message::Hint { .. }) {
            self.state_sent(node);
        }
        let fate = self.network.send(&self.options, node, peer);
        let bytes = message.encode();
        let hash = hash_bytes(&bytes);
        let (from, name) = (&self.machines[node].name, &self.machines[peer].name);
        self.trace.note(self.now_us, ">>", [(node << 8 | peer) as u64, hash, fate_number(fate)], || {
            format!("{from}→{name} {fate:?} {message:?}")
        });
        let boot = self.machines[peer].process.as_ref().map(|process| process.boot);
        match (fate, boot) {
            (Fate::Lost, _) => self.count("message lost"),
            (Fate::Cut, _) => self.count("message cut"),
            (_, None) => self.count("message to nobody"),
            (Fate::Arrives(after, again), Some(boot)) => {
                if let Some(again) = again {
                    self.count("message repeated");
                    self.schedule(again, Due::Deliver { from: node, to: peer, boot, bytes: bytes.clone() });
                }
                self.schedule(after, Due::Deliver { from: node, to: peer, boot, bytes });
            }
        }
        Ok(())
    }

    pub(super) fn deliver(&mut self, from: usize, to: usize, bytes: Bytes) -> Check {
        if self.network.is_cut(from, to) {
            return Ok(());
        }
        let (sender, name) = (&self.machines[from].name, &self.machines[to].name);
        self.trace.note(self.now_us, ">|", [(from << 8 | to) as u64, bytes.len() as u64, 0], || {
            format!("{sender}→{name} {} bytes", bytes.len())
        });
        let peer = self.machines[from].id;
        match Message::decode(bytes) {
            Ok(message) => self.feed(to, Event::Message { from: peer, message }),
            Err(error) => broken("C9", format!("a message of {sender} does not decode: {error}")),
        }
    }
}

fn fate_number(fate: Fate) -> u64 {
    match fate {
        Fate::Lost => 0,
        Fate::Cut => 1,
        Fate::Arrives(after, again) => 2 + after * 4 + again.unwrap_or_default(),
    }
}

fn error_kind(error: &Error) -> &'static str {
    match error {
        Error::NoSpace { .. } => "no space",
        Error::Overloaded => "overloaded",
        Error::Poisoned { .. } => "poisoned",
        _ => "other",
    }
}
