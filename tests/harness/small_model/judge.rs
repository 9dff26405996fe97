//! C1, C3, C4 and C5 as predicates on every state of the model, for a promise that holds only at the
//! end could be broken by a crash just before it.
//!
//! In: a model state. Out: the property that does not hold, and why. C3 is judged where a dot is
//! issued (`model.rs`); here, that live dots are dots of known writes.

use super::library::{Dots, Library, Shape};
use super::model::Model;

/// What does not hold.
pub(super) fn judge(library: &mut Library, model: &Model) -> Option<(&'static str, String)> {
    let mut join = model.replicas[0].durable;
    for replica in &model.replicas[1..] {
        join = library.sync(join, replica.durable);
    }
    let merged = library.shape(join);
    let states = model.replicas.iter().flat_map(|replica| [replica.durable, replica.latest]);
    for state in states.chain([join]) {
        let Shape { seen, live, .. } = library.shape(state);
        // C4, C5: where a write that had seen X is known, X is not live.
        let known = model.writes.iter().filter(|write| seen >> write.dot & 1 == 1);
        if let Some(write) = known.into_iter().find(|write| live & write.seen != 0) {
            let property = if live >> write.dot & 1 == 1 { "C5" } else { "C4" };
            return Some((property, format!("{live:x} is live where {write:?} is known")));
        }
        let written = model.writes.iter().fold(0, |all: Dots, write| all | 1 << write.dot);
        if live & !written != 0 {
            return Some(("C3", format!("{live:x} is live, and only {written:x} was written")));
        }
    }
    // C4: a delete that is known nowhere any more was collected, and nothing that it saw is left.
    for write in model.writes.iter().filter(|write| write.delete && write.acknowledged) {
        if merged.seen >> write.dot & 1 == 0 && merged.live & write.seen != 0 {
            return Some(("C4", format!("{:x} is back, and {write:?} is gone", merged.live & write.seen)));
        }
    }
    // C1: what was acknowledged is live, or was seen by what is, or by a delete.
    let stays = |write: &&super::model::Write| write.delete || merged.live >> write.dot & 1 == 1;
    let reached =
        model.writes.iter().filter(stays).fold(0, |all: Dots, write| all | write.seen | 1 << write.dot);
    let lost = model.writes.iter().find(|write| write.acknowledged && reached >> write.dot & 1 == 0);
    lost.map(|write| ("C1", format!("{write:?} is not reached from {:x}", merged.live)))
}
