//! C13, who may answer: nodes speak to members only; acknowledgements come from distinct nodes of the key's
//! preference list, and from stand-ins only where the reply says so.
//!
//! In: every message's receiver, the replicas that a reply names. Absent: whether they hold what they
//! acknowledged, which is C2.

use super::{Check, broken};
use merganser_core::id::NodeId;
use merganser_core::request::Acks;
use std::collections::BTreeSet;

/// A message leaves for `to`; None: no member, or the sender itself.
pub fn on_send(from: &str, to: Option<usize>, message: &dyn std::fmt::Debug) -> Check {
    match to {
        Some(_) => Ok(()),
        None => broken("C13", format!("{from} sends {message:?} to no other member")),
    }
}

/// A reply to a request that succeeded: its `primaries` in order, all members.
pub fn on_reply(op: usize, acks: &Acks, primaries: &[NodeId], members: &[NodeId]) -> Check {
    let distinct: BTreeSet<NodeId> = acks.replicas.iter().copied().collect();
    let text = if distinct.len() != acks.replicas.len() {
        "names a node twice"
    } else if distinct.len() < acks.needed as usize {
        "is short of nodes"
    } else if !distinct.iter().all(|node| members.contains(node)) {
        "names a node that is no member"
    } else if !acks.sloppy && !distinct.iter().all(|node| primaries.contains(node)) {
        "names a stand-in and is not sloppy"
    } else {
        return Ok(());
    };
    broken("C13", format!("the reply to op {op} {text}: {acks:?}, primaries {primaries:?}"))
}
