//! C10, the lww winner is the maximum: of all versions that were ever stored anywhere and
//! acknowledged, the highest (stamp, dot) wins, and a put made after a read beats what was read.
//!
//! In: acknowledged dots with the stamps that states showed, contexts of clients. An
//! unacknowledged version may win too, if it is higher (R15).

use super::{Check, Final, broken};
use crate::history::{History, OpIndex};
use merganser_core::id::Dot;
use merganser_core::version::KeyState;

/// An OK to a put or delete in an lww keyspace.
pub fn on_ack(history: &History, op: OpIndex, dot: Dot) -> Check {
    let (Some(fact), seen) = (history.dots.get(&dot), history.ops[op].seen.stamp) else { return Ok(()) };
    if fact.stamp <= seen {
        return broken("C10", format!("op {op} had seen {seen:?} and its write has {:?}", fact.stamp));
    }
    Ok(())
}

pub(super) fn at_end(history: &History, end: &Final) -> Check {
    let KeyState::Lww(register) = &end.joined else { return Ok(()) };
    let of_key = history.dots.iter().filter(|(_, fact)| fact.key == end.key);
    let known = of_key.map(|(dot, fact)| (fact.stamp, *dot)).collect::<std::collections::BTreeSet<_>>();
    match register.order() {
        Some(order) if !known.contains(&order) => broken("C10", format!("nobody wrote the winner {order:?}")),
        winner => {
            let acknowledged =
                history.acknowledgements.iter().filter(|ack| history.ops[ack.op].key == end.key);
            let stamp = |dot: &Dot| history.dots.get(dot).map(|fact| (fact.stamp, *dot));
            let gone = |dot: &Dot| {
                let stamp = history.dots.get(dot).map(|fact| fact.stamp);
                stamp.is_some_and(|stamp| history.was_collected(end.key, *dot, stamp))
            };
            let binding = acknowledged.filter(|ack| !history.is_excused(ack) && !gone(&ack.dot));
            let highest = binding.filter_map(|ack| stamp(&ack.dot)).max();
            if highest > winner {
                return broken("C10", format!("the winner {winner:?} is below the acknowledged {highest:?}"));
            }
            Ok(())
        }
    }
}
