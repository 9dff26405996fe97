//! Who asked, and how they are answered.
//!
//! In: outcomes. Out: replies, to clients of this node or to the peer that forwarded for its own. Absent: retries.

use super::Node;
use crate::event::{Effect, Effects};
use crate::id::{ClientTicket, NodeId, OpId};
use crate::message::Message;
use crate::request::{Outcome, Problem};

/// Where an outcome goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A client of this node; what its request costs, once it was taken on.
    Client { ticket: ClientTicket, cost: Option<u32> },
    /// A peer that forwarded its client's request.
    Peer { node: NodeId, op: OpId, cost: Option<u32> },
    /// This node's own write-back (R3).
    Owner,
}

impl Origin {
    /// Taken on: its answer makes room again.
    pub(crate) fn costing(self, cost: u32) -> Origin {
        let cost = Some(cost);
        match self {
            Origin::Client { ticket, .. } => Origin::Client { ticket, cost },
            Origin::Peer { node, op, .. } => Origin::Peer { node, op, cost },
            Origin::Owner => Origin::Owner,
        }
    }
}

impl Node {
    /// Tells whoever asked.
    pub(crate) fn answer(&mut self, origin: Origin, outcome: Outcome, effects: &mut Effects) {
        if matches!(outcome, Outcome::Failed(_)) {
            self.counters.refused += 1;
        }
        let cost = match origin {
            Origin::Client { ticket, cost } => {
                effects.push(Effect::Reply { ticket, outcome });
                cost
            }
            Origin::Peer { node: to, op, cost } => {
                effects.push(Effect::Send { to, message: Message::Forwarded { op, outcome } });
                cost
            }
            Origin::Owner => None,
        };
        if let Some(cost) = cost {
            self.load.release(cost);
        }
    }

    pub(crate) fn refuse(&mut self, origin: Origin, problem: Problem, effects: &mut Effects) {
        self.answer(origin, Outcome::Failed(problem), effects);
    }
}
