//! Which storage keys hold what: the only place that knows.
//!
//! ```text
//!   objects   keyspace u32 │ token u64 │ key      big-endian: ranges of tokens are contiguous
//!   own       0 u32 │ tag u8 │ …                  identity, catalog, modules
//! ```

use crate::id::{KeyspaceId, PluginHash};
use crate::ring::{Token, token};
use bytes::{BufMut, Bytes, BytesMut};

/// Bytes before the key in an object's storage key.
const PREFIX_BYTES: usize = 12;

/// Where a key's state is.
pub fn object(keyspace: KeyspaceId, key: &[u8]) -> Bytes {
    object_at(keyspace, token(keyspace, key), key)
}

/// As [`object`], for a key whose token is known.
pub fn object_at(keyspace: KeyspaceId, token: Token, key: &[u8]) -> Bytes {
    assert!(keyspace.0 != 0, "keyspace 0 is the node's own");
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + key.len());
    bytes.put_u32(keyspace.0);
    bytes.put_u64(token.0);
    bytes.put_slice(key);
    bytes.freeze()
}

/// The keyspace and key of an object's storage key; None of another's.
pub fn parse_object(storage_key: &Bytes) -> Option<(KeyspaceId, Bytes)> {
    let keyspace = u32::from_be_bytes(storage_key.get(..4)?.try_into().ok()?);
    if keyspace == 0 || storage_key.len() <= PREFIX_BYTES {
        return None;
    }
    Some((KeyspaceId(keyspace), storage_key.slice(PREFIX_BYTES..)))
}

/// Where the node's incarnation is.
pub fn identity() -> Bytes {
    Bytes::from_static(&[0, 0, 0, 0, 1])
}

/// Where the catalog is.
pub fn catalog() -> Bytes {
    Bytes::from_static(&[0, 0, 0, 0, 2])
}

/// Where a module's bytes are.
pub fn module(hash: PluginHash) -> Bytes {
    let mut bytes = BytesMut::with_capacity(37);
    bytes.put_slice(&[0, 0, 0, 0, 3]);
    bytes.put_slice(&hash.0);
    bytes.freeze()
}
