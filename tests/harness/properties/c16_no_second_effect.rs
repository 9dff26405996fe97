//! C16, no second effect (R19): a request that is sent again after it took effect does not take effect once more.
//!
//! *causal* a write that had seen a request's value was acknowledged, and after that the same request got another dot
//! that is live. *lww* a write was begun and acknowledged after a request was, and after that the same request got another
//! dot that wins. In: dots with the times at which they were issued, acknowledgements. Only quorums without stand-ins are
//! held to that, with W + R > N and nothing lost: elsewhere nobody who is asked need have heard of the first time.
//! Operations of shipped types are C15's.

use super::{Check, Final, broken};
use crate::history::{Acknowledgement, History, OpIndex};
use merganser_core::id::Dot;
use merganser_core::version::KeyState;

pub(super) fn at_end(history: &History, end: &Final) -> Check {
    if history.losses.disks() > 0 || history.losses.any_power_loss_since(0) {
        return Ok(());
    }
    let live = match &end.joined {
        KeyState::Causal(siblings) => siblings.values().map(|(dot, _)| *dot).collect(),
        KeyState::Lww(register) => register.winner.iter().map(|(dot, _)| *dot).collect(),
        KeyState::Lattice(_) => Vec::new(),
    };
    live.into_iter().try_for_each(|dot| on_live(history, end, dot))
}

fn on_live(history: &History, end: &Final, dot: Dot) -> Check {
    let (Some(op), Some(issued_us)) =
        (history.dots.get(&dot).and_then(|fact| fact.op), history.issued_us(dot))
    else {
        return Ok(());
    };
    let strict = |ack: &&Acknowledgement| {
        let key = &history.keys[end.key];
        !ack.sloppy && ack.needed as usize * 2 > key.n && !history.is_excused(ack)
    };
    let of_op =
        |wanted: OpIndex| history.acknowledgements.iter().filter(move |ack| ack.op == wanted).filter(strict);
    for first in of_op(op).filter(|ack| ack.dot != dot && ack.at_us < issued_us) {
        let came_over = |ack: &&Acknowledgement| {
            let later = &history.ops[ack.op];
            let knew = later.seen.dots.contains(&first.dot);
            let is_register = matches!(end.joined, KeyState::Lww(_));
            later.key == end.key
                && ack.op != op
                && ack.at_us < issued_us
                && (knew || is_register && later.begun_us > first.at_us)
        };
        if let Some(ack) = history.acknowledgements.iter().filter(strict).find(came_over) {
            let text = format!("op {op} was acknowledged as {}, then {} came over it", first.dot, ack.dot);
            return broken(
                "C16",
                format!("{text} and was acknowledged, then op {op} was done again as {dot}"),
            );
        }
    }
    Ok(())
}
