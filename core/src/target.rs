//! A key and where it lives: worked out once when a request or a peer's state comes in.
//!
//! In: a keyspace and a key. Out: its token and storage key, with the key's bytes shared between
//! them. Absent: who holds it; that is the ring's.

use crate::catalog::KeyspaceEntry;
use crate::ring::{Token, token};
use crate::storage_key;
use bytes::Bytes;
use std::sync::Arc;

/// A key of a keyspace.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Its keyspace, as it was when the work began.
    pub(crate) entry: Arc<KeyspaceEntry>,
    /// The key: a part of `storage_key`, so that it does not pin the frame it came in.
    pub(crate) key: Bytes,
    /// Where it stands on the ring.
    pub(crate) token: Token,
    /// Where its state is on disk.
    pub(crate) storage_key: Bytes,
}

impl Target {
    /// A key that is not empty.
    pub(crate) fn new(entry: Arc<KeyspaceEntry>, key: &[u8]) -> Target {
        let token = token(entry.id, key);
        let storage_key = storage_key::object_at(entry.id, token, key);
        let key = storage_key.slice(storage_key.len() - key.len()..);
        Target { entry, key, token, storage_key }
    }

    /// The most primaries that it can have.
    pub(crate) fn n(&self) -> usize {
        self.entry.settings.n as usize
    }
}
