//! C2, durable at the acknowledgement (white-box): at the instant of OK, at least W distinct nodes
//! hold the write durably.
//!
//! Black-box histories find an acknowledgement before the sync almost never (0 of 1,000 seeds),
//! this check nearly always: mandatory. In: the dot, W, what each node's disk holds. Storage makes
//! a write visible only once it is synced, so a read of a live node is its durable image; the
//! world also reopens images of a power loss for a sample. Absent: how a disk is read.

use super::{Check, broken};
use merganser_core::id::Dot;
use merganser_core::version::{KeyState, Stamp};

/// `holders`: each node's name and durable state of the key.
pub fn on_ack(
    dot: Dot,
    stamp: Stamp,
    needed: u32,
    holders: &[(String, Option<KeyState>)],
    how: &str,
) -> Check {
    let holds = |state: &Option<KeyState>| state.as_ref().is_some_and(|state| state.covers(dot, stamp));
    let count = holders.iter().filter(|(_, state)| holds(state)).count();
    if count < needed as usize {
        let names: Vec<&str> =
            holders.iter().filter(|(_, state)| holds(state)).map(|(name, _)| name.as_str()).collect();
        return broken(
            "C2",
            format!("{dot} was acknowledged at W={needed}, durable ({how}) only on {names:?}"),
        );
    }
    Ok(())
}
