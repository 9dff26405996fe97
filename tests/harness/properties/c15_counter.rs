//! C15 of `pn-counter`: the sum of all operations that a state holds, each request once.
//!
//! In: what a state holds, and its reading. Amounts of the workload are far apart, so that no few make up for others.

use super::{Check, broken};
use crate::models::{Held, Models};

pub(super) fn on_reading(models: &Models, held: &Held, reading: &str) -> Check {
    let expected = models.sum(held);
    match reading.parse::<i128>() {
        Ok(sum) if sum == expected => Ok(()),
        _ => {
            let ops = held.iter().map(|index| models.application(index).op);
            let ops = ops.collect::<std::collections::BTreeSet<_>>().len();
            broken("C15", format!("{ops} operations add up to {expected}, and the counter says {reading}"))
        }
    }
}
