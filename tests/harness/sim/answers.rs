//! What clients are told: checked at that instant, written down, remembered.
//!
//! In: outcomes that nodes give. Out: the history, violations, clients that go on. An OK
//! counts from the moment a node gives it, whether or not the client still waits. Absent: what clients ask (`clients`).

use super::machine::Machine;
use super::trace::hash_bytes;
use super::workload::Memory;
use super::world::World;
use crate::history::{Acknowledgement, History, KeyIndex, OpIndex, Seen, What};
use crate::properties::{
    Check, broken, c1_no_lost_ack::ids_of, c2_durable_at_ack, c3_dot_uniqueness, c5_no_false_concurrency,
    c8_freshness, c9_no_phantom, c10_lww_maximum, c13_members, c14_progress,
};
use bytes::Bytes;
use merganser_core::catalog::Policy;
use merganser_core::event::Durability;
use merganser_core::id::{ClientTicket, Dot, NodeId};
use merganser_core::request::{GetReply, Outcome, Presence, Problem, QueryReply, Resolution, WriteReply};
use merganser_core::version::{Context, Stamp};

impl World {
    /// A node gives an outcome.
    pub(super) fn reply(&mut self, node: usize, ticket: ClientTicket, outcome: Outcome) -> Check {
        let Some(attempt) = self.attempts.get_mut(ticket.0 as usize) else {
            return broken("C14", format!("a reply to nobody: {outcome:?}"));
        };
        if attempt.answered {
            return broken("C14", format!("op {} is answered twice: {outcome:?}", attempt.op));
        }
        attempt.answered = true;
        let (op, begun_us, client) = (attempt.op, attempt.begun_us, attempt.client);
        let name = &self.machines[node].name;
        self.trace.note(
            self.now_us,
            "<-",
            [client.unwrap_or(99) as u64, op as u64, outcome_number(&outcome)],
            || {
                let who = client.map_or("audit".to_string(), |client| format!("c{client}"));
                format!("{who} op{op} by {name}: {outcome:?}")
            },
        );
        self.count(outcome_name(&outcome));
        let acks = match &outcome {
            Outcome::Wrote(reply) => Some(&reply.acks),
            Outcome::Got(reply) => Some(&reply.acks),
            Outcome::Queried(reply) => Some(&reply.acks),
            Outcome::Failed(_) => None,
        };
        if let Some(acks) = acks {
            let members: Vec<NodeId> = self.machines.iter().map(|machine| machine.id).collect();
            c13_members::on_reply(op, acks, &self.primaries(self.history.ops[op].key), &members)?;
        }
        let told = client.is_none().then(|| outcome.clone());
        let remember = match outcome {
            Outcome::Wrote(reply) => {
                let remember = self.on_wrote(op, begun_us, &reply)?;
                self.may_repeat(ticket.0);
                remember
            }
            Outcome::Got(reply) => self.on_got(op, begun_us, &reply)?,
            Outcome::Queried(reply) => self.on_queried(op, begun_us, &reply)?,
            Outcome::Failed(problem) => {
                if self.attempts[ticket.0 as usize].begun_in_health {
                    let is_rotten = self.coverage.contains_key("fault BitRot");
                    c14_progress::on_problem_in_health(op, &problem, is_rotten)?;
                }
                self.attempts[ticket.0 as usize].told = told.map(|outcome| (outcome, None));
                let unknown = self.on_failed(op, &problem)?;
                self.proceed(ticket.0, unknown);
                return Ok(());
            }
        };
        if let Some(outcome) = told {
            self.attempts[ticket.0 as usize].told = Some((outcome, Some(remember.clone())));
        }
        let key = self.history.ops[op].key;
        // Some clients go on with what they knew before: contexts may be old.
        if let Some(client) = client {
            let waits = self.clients[client].waits_for == Some(ticket.0);
            let solo = self.history.keys[key].solo.is_some();
            if waits && (solo || self.client_dice.chance(850)) {
                self.clients[client].remembers[key] = Some(remember);
            } else if !waits {
                self.doubt(op);
            }
        }
        self.proceed(ticket.0, false);
        Ok(())
    }

    fn open(&self, key: KeyIndex, token: &Bytes) -> Result<Context, crate::properties::Violation> {
        let facts = &self.history.keys[key];
        self.sealer.open(facts.keyspace_id, &facts.key, token).map_err(|problem| {
            crate::properties::Violation {
                property: "C5",
                text: format!("a context that a node gave does not open: {problem}"),
            }
        })
    }

    fn on_wrote(
        &mut self,
        op: OpIndex,
        _begun_us: u64,
        reply: &WriteReply,
    ) -> Result<Memory, crate::properties::Violation> {
        let key = self.history.ops[op].key;
        c3_dot_uniqueness::on_told(&mut self.history, reply.dot, op)?;
        let context = self.open(key, &reply.context)?;
        let stamp = self.history.dots.get(&reply.dot).map_or(Stamp::default(), |fact| fact.stamp);
        let policy = self.history.keys[key].policy.clone();
        if policy == Policy::Lww {
            c10_lww_maximum::on_ack(&self.history, op, reply.dot)?;
            if context.stamp != Some(stamp) {
                broken("C10", format!("op {op} has {stamp:?} and its context says {:?}", context.stamp))?;
            }
        }
        self.check_durable(key, self.history.ops[op].begun_us, reply, stamp)?;
        let facts = &mut self.history.ops[op];
        facts.acknowledged = true;
        facts.dots.push(reply.dot);
        let mut seen = facts.seen.clone();
        if policy != Policy::Lww {
            c5_no_false_concurrency::on_context(op, &seen.dots, &context.seen)?;
        }
        c5_no_false_concurrency::on_context(op, &[reply.dot], &context.seen)?;
        match &facts.what {
            What::Put(_, ids) => seen.ids.extend(ids),
            What::Apply(_) => {
                seen.ids.insert(History::write_id(op));
            }
            What::Get | What::Query | What::Delete => {}
        }
        seen.dots.push(reply.dot);
        seen.stamp = seen.stamp.max(stamp);
        self.history.acknowledgements.push(Acknowledgement {
            op,
            dot: reply.dot,
            at_us: self.now_us,
            needed: reply.acks.needed,
            sloppy: reply.acks.sloppy,
        });
        if reply.acks.sloppy {
            self.count("wrote with stand-ins");
        }
        Ok(Memory { token: reply.context.clone(), seen })
    }

    /// C2, at the instant of OK.
    fn check_durable(&mut self, key: KeyIndex, begun_us: u64, reply: &WriteReply, stamp: Stamp) -> Check {
        let losses = &self.history.losses;
        let unsynced = self.history.keys[key].durability != Durability::Sync;
        // A copy that was counted may have been on the disk that is gone, or in the process.
        if losses.is_short_of_a_copy() || (unsynced && losses.any_stop_since(begun_us)) {
            return Ok(());
        }
        if self.history.was_collected(key, reply.dot, stamp) {
            // A retry of what has been deleted and collected since.
            return Ok(());
        }
        let storage_key = self.history.keys[key].storage_key.clone();
        let ids: Vec<NodeId> = self.machines.iter().map(|machine| machine.id).collect();
        let of = |machine: &Machine, state| (machine.name.clone(), state);
        let live: Vec<_> = self.machines.iter().filter(|machine| machine.process.is_some()).collect();
        let mut holders: Vec<_> =
            live.iter().map(|m| of(m, m.kept_state(&self.options, &storage_key, &ids))).collect();
        let needed = reply.acks.needed;
        if c2_durable_at_ack::on_ack(reply.dot, stamp, needed, &holders, "live").is_err() {
            // Copies on machines that have died since they acknowledged count as well.
            let dead = self.machines.iter().filter(|machine| machine.process.is_none());
            holders.extend(dead.map(|m| of(m, m.kept_state(&self.options, &storage_key, &ids))));
            c2_durable_at_ack::on_ack(reply.dot, stamp, needed, &holders, "all")?;
        }
        if unsynced {
            self.count("acknowledged before a sync");
            return Ok(());
        }
        if self.options.image_one_in > 0 && self.dice.below(self.options.image_one_in) == 0 {
            let seed = self.dice.next();
            let images: Vec<_> = self
                .machines
                .iter()
                .map(|m| of(m, m.kept_after_power_loss(&self.options, &storage_key, &ids, seed)))
                .collect();
            c2_durable_at_ack::on_ack(reply.dot, stamp, needed, &images, "after a power loss")?;
            self.count("acknowledgement verified after a power loss");
        }
        Ok(())
    }

    fn on_got(
        &mut self,
        op: OpIndex,
        begun_us: u64,
        reply: &GetReply,
    ) -> Result<Memory, crate::properties::Violation> {
        let key = self.history.ops[op].key;
        let context = self.open(key, &reply.context)?;
        if !reply.acks.sloppy {
            c8_freshness::on_read(&self.history, op, begun_us, reply.acks.needed, &context)?;
        }
        let policy = self.history.keys[key].policy.clone();
        let mut seen = Seen { stamp: context.stamp.unwrap_or_default(), ..Seen::default() };
        for sibling in &reply.siblings {
            if let Some(value) = &sibling.content {
                c9_no_phantom::on_value(&self.history, key, value)?;
                if let Policy::Lattice(_) = &policy {
                    seen.ids.extend(ids_of(&self.history, key, value).unwrap_or_default());
                }
            }
            if !matches!(policy, Policy::Lattice(_)) {
                seen.dots.extend_from_slice(&sibling.dots);
            }
        }
        c5_no_false_concurrency::on_context(op, &seen.dots, &context.seen)?;
        self.check_presence(op, reply)?;
        let superseded = |dot: &Dot| self.history.superseders.get(dot).map_or(&[][..], Vec::as_slice);
        let older =
            seen.dots.iter().find(|dot| superseded(dot).iter().any(|later| seen.dots.contains(later)));
        if let Some(dot) = older {
            broken("C4", format!("op {op} is shown {} beside what had seen it", self.history.name(*dot)))?;
        }
        match &reply.resolution {
            Resolution::Resolved { .. } => self.count("view resolved"),
            Resolution::Unresolved { .. } => self.count("view unresolved"),
            Resolution::Siblings => self.count("view siblings"),
            Resolution::NoneNeeded => {}
        }
        if let (Some(owner), true) = (self.history.keys[key].solo, self.clients[0].certain) {
            let values = reply.siblings.iter().filter(|sibling| sibling.content.is_some()).count();
            // What is lost with a disk, or with a page cache, takes with it copies that a quorum counted on.
            let losses = &self.history.losses;
            let unsynced = self.history.keys[key].durability != Durability::Sync;
            let lost = losses.disks() > 0 || (unsynced && losses.any_power_loss_since(0));
            if owner == self.history.ops[op].client && !lost {
                c5_no_false_concurrency::on_solo_read(op, values)?;
            }
        }
        // A plugin that let a delete win shows nothing, and has seen all.
        let plugin_deleted =
            matches!(reply.resolution, Resolution::Resolved { .. }) && reply.siblings.is_empty();
        // What a read leaves out has been superseded, or was gone by the clock of some coordinator.
        let now = self.latest_clock;
        let hidden = self.history.unexpired_within(key, &context.seen, now);
        let hidden = hidden.iter().find(|dot| !seen.dots.contains(dot));
        if let Some(dot) = hidden.filter(|_| !plugin_deleted && policy != Policy::Lww) {
            broken("C4", format!("op {op} is not shown {}, which has not expired", self.history.name(*dot)))?;
        }
        let unshown = match plugin_deleted {
            true => self.history.writes_within(key, &context.seen),
            false => self.history.deletes_within(key, &context.seen, now),
        };
        for dot in unshown {
            if !seen.dots.contains(&dot) {
                seen.dots.push(dot);
            }
        }
        Ok(Memory { token: reply.context.clone(), seen })
    }

    /// Presence and siblings say the same.
    fn check_presence(&self, op: OpIndex, reply: &GetReply) -> Check {
        let any = reply.siblings.iter().any(|sibling| sibling.content.is_some());
        let unresolved = matches!(reply.resolution, Resolution::Unresolved { .. });
        let fits = match reply.presence {
            Presence::Found => any,
            Presence::NotFound => reply.siblings.is_empty(),
            Presence::Deleted => !any,
        };
        if fits || unresolved { Ok(()) } else { broken("C9", format!("op {op} is told {reply:?}")) }
    }

    fn on_queried(
        &mut self,
        op: OpIndex,
        begun_us: u64,
        reply: &QueryReply,
    ) -> Result<Memory, crate::properties::Violation> {
        let key = self.history.ops[op].key;
        let context = self.open(key, &reply.context)?;
        if !reply.acks.sloppy {
            c8_freshness::on_read(&self.history, op, begun_us, reply.acks.needed, &context)?;
        }
        if reply.presence == Presence::Found && !self.history.models.was_answered(&reply.result) {
            broken("C9", format!("op {op} is told {:?}, which no plugin has answered", reply.result))?;
        }
        Ok(Memory { token: reply.context.clone(), seen: Seen::default() })
    }

    /// Whether the outcome is unknown.
    fn on_failed(&mut self, op: OpIndex, problem: &Problem) -> Result<bool, crate::properties::Violation> {
        let unknown = match problem {
            Problem::Uncertain { dot, .. } => {
                if let Some(dot) = dot {
                    c3_dot_uniqueness::on_told(&mut self.history, *dot, op)?;
                    self.history.ops[op].dots.push(*dot);
                }
                true
            }
            Problem::InvalidContext { .. } | Problem::UnknownKeyspace { .. }
                if self.history.losses.disks() == 0 =>
            {
                broken("C14", format!("op {op} is refused: {problem}"))?;
                false
            }
            _ => false,
        };
        if unknown {
            self.doubt(op);
        } else {
            self.history.ops[op].refused += 1;
        }
        // Where there was no room or nobody to ask, the client comes back.
        let later =
            matches!(problem, Problem::NotEnoughReplicas { .. } | Problem::Overloaded { .. } | Problem::Late);
        Ok(unknown || later)
    }
}

fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Got(_) => "got",
        Outcome::Wrote(_) => "wrote",
        Outcome::Queried(_) => "queried",
        Outcome::Failed(problem) => match problem {
            Problem::NotEnoughReplicas { .. } => "failed: not enough replicas",
            Problem::Uncertain { .. } => "failed: uncertain",
            Problem::SiblingLimit { .. } => "failed: sibling limit",
            Problem::InvalidValue { .. } => "failed: invalid value",
            Problem::ContextRequired => "failed: context required",
            Problem::UnknownKeyspace { .. } => "failed: unknown keyspace",
            Problem::Overloaded { .. } => "failed: overloaded",
            Problem::KeyTooHot { .. } => "failed: key too hot",
            Problem::Unresolved { .. } => "failed: unresolved",
            Problem::ClockSkew { .. } => "failed: clock skew",
            Problem::Storage { .. } => "failed: storage",
            Problem::Late => "failed: late",
            Problem::RequestIdReused => "failed: request id reused",
            _ => "failed: otherwise",
        },
    }
}

fn outcome_number(outcome: &Outcome) -> u64 {
    let mut hash = hash_bytes(outcome_name(outcome).as_bytes());
    match outcome {
        Outcome::Got(reply) => hash ^= hash_bytes(&reply.context).wrapping_add(reply.siblings.len() as u64),
        Outcome::Wrote(reply) => hash ^= hash_bytes(&reply.context).wrapping_add(reply.dot.counter),
        Outcome::Queried(reply) => hash ^= hash_bytes(&reply.result),
        Outcome::Failed(_) => {}
    }
    hash
}
