//! C9, nothing late: no write has an effect that was given up before it had a dot.
//!
//! In: every state that is written or sent, when dots were issued, and until when clients waited. A client that has
//! given a write up repeats it elsewhere, and others build on that: what is carried out afterwards is a second effect (semantics
//! §7). States of lattices show no single writes.

use super::{Check, broken};
use crate::history::History;
use merganser_core::id::Dot;
use merganser_core::version::KeyState;

/// Own time is told in whole milliseconds, and may be told twice on the way: by a client, and by who forwards.
const ROUNDING_US: u64 = 3_000;

pub(super) fn on_state(history: &History, state: &KeyState) -> Check {
    match state {
        KeyState::Causal(siblings) => siblings.iter().try_for_each(|(dot, _)| on_dot(history, *dot)),
        KeyState::Lww(register) => register.winner.iter().try_for_each(|(dot, _)| on_dot(history, *dot)),
        KeyState::Lattice(_) => Ok(()),
    }
}

fn on_dot(history: &History, dot: Dot) -> Check {
    let op = history.dots.get(&dot).and_then(|fact| fact.op);
    let (Some(op), Some(issued_us)) = (op, history.issued_us(dot)) else { return Ok(()) };
    let awaited_us = history.ops[op].awaited_until_us;
    if issued_us <= awaited_us + ROUNDING_US {
        return Ok(());
    }
    let late_ms = (issued_us - awaited_us) / 1_000;
    broken("C9", format!("{} was carried out {late_ms} ms after all had given it up", history.name(dot)))
}
