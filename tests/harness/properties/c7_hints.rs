//! C7, hints drain: once faults have stopped, no node keeps anything for another, and none holds a key that
//! is not its own.
//!
//! In: the storage keys of a node's disk, and who owns which. Absent: how they went home.

use super::{Check, broken};
use bytes::Bytes;
use merganser_core::id::{KeyspaceId, NodeId};
use merganser_core::storage_key;

/// All keys of a disk.
pub fn at_end(
    name: &str,
    node: NodeId,
    keys: impl Iterator<Item = Bytes>,
    primaries: impl Fn(KeyspaceId, &Bytes) -> Vec<NodeId>,
) -> Check {
    for key in keys {
        if let Some((target, object)) = storage_key::parse_hint(&key) {
            return broken("C7", format!("{name} still keeps {object:?} for {target:?}"));
        }
        if let Some((keyspace, object)) = storage_key::parse_object(&key)
            && !primaries(keyspace, &object).contains(&node)
        {
            return broken("C7", format!("{name} holds {object:?}, which is not its own"));
        }
    }
    Ok(())
}
