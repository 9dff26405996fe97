//! What a node wants to be woken for, and when.
//!
//! In: times that rooms set. Out: calls of those rooms once they have come. Absent: clocks; the shell wakes the node.

use super::Node;
use crate::event::Effects;
use crate::id::{Millis, OpId};

/// What a time that has come is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A plugin has not answered an active key; first of all, so that whoever waits for the answer is told why.
    Plugin(OpId),
    /// A put has waited long enough for its value's validation.
    Validate(OpId),
    /// A write's patience is over.
    Write(OpId),
    /// A read's patience is over.
    Read(OpId),
    /// A read has waited long enough for the replicas it asked.
    Hedge(OpId),
    /// Primaries have not acknowledged a replication.
    StandIn(OpId),
    /// Hints may go home.
    Hints,
    /// A forwarded request's patience is over.
    Forward(OpId),
    /// The own heart beats; gossip; look at the members.
    Gossip,
    /// Some keys may be due for write-back.
    WriteBack,
    /// Operands of some keys may be validated or joined again.
    Tend,
    /// The leaves could not be read.
    LoadLeaves,
    /// Compare trees with a peer.
    AntiEntropy,
    /// Look after the round under way.
    Exchange,
    /// The budget of repair allows another leaf to be read anew.
    Rescans,
    /// The budget of repair allows another message, or another slot.
    Budget,
    /// The scrub goes on.
    Scrub,
    /// Look for what is to be collected; forget graves.
    Collect,
}

impl Node {
    /// When [`Event::TimerFired`] is next wanted; never again by a node that has fallen silent.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.timers.first().filter(|_| !self.membership.is_leaving()).map(|(at, _)| *at)
    }

    pub(super) fn timers_fired(&mut self, now: Millis, effects: &mut Effects) {
        while let Some((at, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Plugin(ask) => self.plugin_timed_out(now, ask, effects),
                Timer::Validate(op) => self.validation_timed_out(now, op, effects),
                Timer::Tend => self.tend_due(now, effects),
                Timer::Write(op) => self.write_timed_out(now, op, effects),
                Timer::Read(op) => self.read_timed_out(now, op, effects),
                Timer::Hedge(op) => self.hedge(now, op, effects),
                Timer::StandIn(op) => self.stand_ins_due(now, op, effects),
                Timer::Hints => self.hints_period(now, effects),
                Timer::Forward(op) => self.forward_timed_out(op, effects),
                Timer::Gossip => self.gossip_period(now, effects),
                Timer::WriteBack => self.write_backs_due(now, effects),
                Timer::LoadLeaves => self.load_leaves(effects),
                Timer::AntiEntropy => self.begin_round(now, effects),
                Timer::Exchange => self.check_round(now, effects),
                Timer::Rescans => self.go_on_rescanning(now, effects),
                Timer::Budget => self.repair_goes_on(now, effects),
                Timer::Scrub => self.scrub_due(now, effects),
                Timer::Collect => self.collect_period(now, effects),
            }
        }
    }

    pub(crate) fn set_timer(&mut self, at: Millis, timer: Timer) {
        self.timers.insert((at, timer));
    }

    pub(crate) fn clear_timer(&mut self, at: Millis, timer: Timer) {
        self.timers.remove(&(at, timer));
    }
}
