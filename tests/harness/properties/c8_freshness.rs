//! C8, freshness: with R + W > N, a read that began after an acknowledged write sees it, or what
//! saw or beat it.
//!
//! In: OKs, and what a read's context covers. Only where no stand-in was counted on either side; from the loss of
//! a disk on, reads may miss what it held, until all replicas were equal again.

use super::{Check, broken};
use crate::history::{History, OpIndex};
use merganser_core::version::{Context, Stamp};

/// A read at `needed` replicas that began at `begun_us` and came back with `context`.
pub fn on_read(history: &History, op: OpIndex, begun_us: u64, needed: u32, context: &Context) -> Check {
    let key = history.ops[op].key;
    let n = history.keys[key].n as u32;
    for ack in history.acknowledgements.iter().filter(|ack| history.ops[ack.op].key == key) {
        let written_us = history.ops[ack.op].begun_us;
        let blurred = history.losses.blur(&history.keys[key], written_us, begun_us);
        if ack.sloppy || ack.at_us >= begun_us || ack.needed + needed <= n || blurred {
            continue;
        }
        let fact = history.dots.get(&ack.dot);
        let covered = match context.stamp {
            Some(stamp) => fact.is_none_or(|fact| fact.stamp <= stamp),
            None => context.seen.contains(ack.dot),
        };
        let stamp = fact.map_or(Stamp::default(), |fact| fact.stamp);
        if !covered && !history.was_collected(key, ack.dot, stamp) {
            let text =
                format!("op {op} read at R={needed} and did not see {} {stamp:?}", history.name(ack.dot));
            return broken("C8", text + &format!(", acknowledged at W={} before it began", ack.needed));
        }
    }
    Ok(())
}
