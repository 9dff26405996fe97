//! Reads of one key that are under way at once, and the clients who wait for them.
//!
//! A flight is one read at a quorum on behalf of several clients. A read must see every write that
//! was acknowledged before it began, so it may not share the answer of one that has already looked
//! anywhere. It shares that of the *next* one:
//!
//! ```text
//!   read ─▶ nobody reads this key ─────────▶ flight A
//!   read ─▶ A is under way ─▶ waits ─┐
//!   read ─▶ A is under way ─▶ waits ─┴─ A is answered ─▶ flight B, for both
//! ```
//!
//! So a key costs two reads at a time at most, whatever is asked of it, and a read takes at most one
//! other's time longer. That is worth it only where several are under way most of the time:
//! keys below `shared_reads_per_s` are read for each client alone. Every client keeps its own patience.
//!
//! In: reads of hot keys, their ends. Out: which read a client waits for. Absent: reading (`get`).

use super::get::{Goal, Reading, Stage};
use crate::event::Effects;
use crate::id::{Millis, OpId};
use crate::mutant::Mutant;
use crate::node::{Node, Origin, Timer};
use crate::plugin::PluginAnswer;
use crate::request::{Outcome, Problem};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Reads that may share an answer: of one key, at as many replicas, for the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    pub(super) storage_key: Bytes,
    pub(super) needed: u32,
    pub(super) sloppy: bool,
    pub(super) goal: Goal,
}

/// The flights of each route: one in the air, and at most one that waits for it to land.
#[derive(Default)]
pub(crate) struct Flights {
    by_route: BTreeMap<Route, Flight>,
}

struct Flight {
    flying: OpId,
    boarding: Option<OpId>,
}

/// A client that waits for a read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub(super) origin: Origin,
    pub(super) deadline: Millis,
}

/// What a read that begins is to do.
enum Seat {
    /// Read at once.
    Fly,
    /// Wait for the one in the air to land.
    Board,
    /// Wait for this one.
    With(OpId),
}

impl Flights {
    fn seat(&mut self, route: &Route, op: OpId, joins_flying: bool) -> Seat {
        let Some(flight) = self.by_route.get_mut(route) else {
            self.by_route.insert(route.clone(), Flight { flying: op, boarding: None });
            return Seat::Fly;
        };
        if joins_flying {
            return Seat::With(flight.flying);
        }
        match flight.boarding {
            Some(boarding) => Seat::With(boarding),
            None => {
                flight.boarding = Some(op);
                Seat::Board
            }
        }
    }

    /// A read is over; answers the one that may begin now.
    fn landed(&mut self, route: &Route, op: OpId) -> Option<OpId> {
        let flight = self.by_route.get_mut(route)?;
        if flight.boarding == Some(op) {
            // All who waited lost their patience before it took off.
            flight.boarding = None;
            return None;
        }
        assert_eq!(flight.flying, op, "one flight of a route is in the air");
        match flight.boarding.take() {
            Some(next) => {
                flight.flying = next;
                Some(next)
            }
            None => {
                self.by_route.remove(route);
                None
            }
        }
    }
}

impl Node {
    /// A read begins, at once, or with the next flight if its key is hot.
    pub(super) fn board(&mut self, now: Millis, op: OpId, mut reading: Reading, effects: &mut Effects) {
        let per_s = self.config.shared_reads_per_s;
        let shares = matches!(reading.goal, Goal::Get(_) | Goal::Query { .. })
            && self.hot_keys.is_read_often(now, &reading.target, per_s);
        let seat = match shares {
            true => {
                let route = Route {
                    storage_key: reading.target.storage_key.clone(),
                    needed: reading.tally.acks().needed,
                    sloppy: reading.sloppy,
                    goal: reading.goal.clone(),
                };
                let joins_flying = self.mutant(Mutant::ReadJoinsRunningFlight);
                let seat = self.flights.seat(&route, op, joins_flying);
                reading.route = Some(route);
                seat
            }
            false => Seat::Fly,
        };
        match seat {
            Seat::With(other) => self.go_with(other, reading),
            Seat::Fly | Seat::Board => {
                self.set_timer(reading.deadline, Timer::Read(op));
                self.reading.insert(op, Box::new(reading));
                if matches!(seat, Seat::Fly) {
                    self.take_off(now, op, effects);
                }
            }
        }
    }

    /// Another read takes a read's clients over.
    fn go_with(&mut self, op: OpId, joining: Reading) {
        let Some(reading) = self.reading.get_mut(&op) else { return };
        self.counters.reads_shared += joining.waiters.len() as u64;
        reading.waiters.extend(joining.waiters);
        // The keyspace as it is now: nothing was read yet.
        reading.target = joining.target;
        let before = reading.deadline;
        reading.deadline = before.min(joining.deadline);
        let after = reading.deadline;
        self.clear_timer(before, Timer::Read(op));
        self.set_timer(after, Timer::Read(op));
    }

    /// A read is over: its timers go, and the next flight of its route takes off.
    pub(super) fn finish(&mut self, now: Millis, op: OpId, effects: &mut Effects) -> Option<Reading> {
        let reading = self.reading.remove(&op)?;
        self.clear_timer(reading.deadline, Timer::Read(op));
        if let Some(at) = reading.hedge_at {
            self.clear_timer(at, Timer::Hedge(op));
        }
        let next = reading.route.as_ref().and_then(|route| self.flights.landed(route, op));
        if let Some(next) = next {
            self.take_off(now, next, effects);
        }
        Some(*reading)
    }

    /// Tells all who wait for a read.
    pub(super) fn answer_waiters(&mut self, waiters: &[Waiter], outcome: &Outcome, effects: &mut Effects) {
        for waiter in waiters {
            self.answer(waiter.origin, outcome.clone(), effects);
        }
    }

    /// The patience of some or all who wait for a read is over.
    pub(crate) fn read_timed_out(&mut self, now: Millis, op: OpId, effects: &mut Effects) {
        let Some(reading) = self.reading.get_mut(&op) else { return };
        let (late, patient): (Vec<Waiter>, Vec<Waiter>) =
            reading.waiters.iter().partition(|waiter| waiter.deadline <= now);
        let over = patient.is_empty();
        let has_read = matches!(reading.stage, Stage::Joining | Stage::Viewing);
        if let Some(next) = patient.iter().map(|waiter| waiter.deadline).min() {
            reading.waiters = patient;
            reading.deadline = next;
            self.set_timer(next, Timer::Read(op));
        }
        if has_read {
            // The plugin has taken too long: the siblings are shown (R7), to the late alone.
            let shown = if over { op } else { self.part(op, late) };
            let answer = PluginAnswer::Failed("no answer within the request's time".into());
            return self.view_done(now, shown, answer, effects);
        }
        self.note_silence(now, op);
        let Some(reading) = self.reading.get(&op) else { return };
        let (needed, reachable) = (reading.tally.acks().needed, reading.tally.count());
        let is_stale = reading.tally.is_met();
        if over
            && let Some(reading) = self.finish(now, op, effects)
            && let Goal::CatchUp { .. } = reading.goal
        {
            return self.caught_up(now, reading, effects);
        }
        let outcome = match is_stale {
            true => Outcome::Failed(Problem::Stale),
            false => Outcome::Failed(Problem::NotEnoughReplicas { needed, reachable }),
        };
        self.answer_waiters(&late, &outcome, effects);
    }

    /// A read of their own for some who wait for one, as far as it has come.
    fn part(&mut self, op: OpId, waiters: Vec<Waiter>) -> OpId {
        let parted = self.op();
        if let Some(reading) = self.reading.get(&op) {
            let mut reading = reading.clone();
            (reading.waiters, reading.route) = (waiters, None);
            self.reading.insert(parted, reading);
        }
        parted
    }
}
