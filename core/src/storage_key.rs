//! Which storage keys hold what: the only place that knows.
//!
//! ```text
//!   objects   keyspace u32 │ token u64 │ key      big-endian: ranges of tokens are contiguous
//!   own       0 u32 │ tag u8 │ …
//!     1 identity   2 catalog   3 module: hash   4 members
//!     5 leaf: keyspace u32 │ slot u16             6 hint: target u64 │ an object's storage key
//!     7 evidence: an object's storage key
//! ```

use crate::id::{KeyspaceId, NodeId, PluginHash};
use crate::ring::{Slot, Token, token};
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

/// All objects of a keyspace: from, inclusive, and to, exclusive.
pub fn objects(keyspace: KeyspaceId) -> (Bytes, Bytes) {
    (object_range(keyspace, Slot(0)).0, object_range(keyspace, Slot(u16::MAX)).1)
}

/// The keyspace that a storage key, or a bound of a range, begins with; 0: the node's own.
pub fn keyspace_of(bound: &Bytes) -> KeyspaceId {
    let mut first = [0; 4];
    let len = bound.len().min(4);
    first[..len].copy_from_slice(&bound[..len]);
    KeyspaceId(u32::from_be_bytes(first))
}

/// The slot that a range of objects with this first bound begins in.
pub fn slot_at(bound: &Bytes) -> Slot {
    let byte = |at: usize| bound.get(at).copied().unwrap_or(0);
    Slot(u16::from_be_bytes([byte(4), byte(5)]))
}

/// The last slot of a range of one keyspace's objects that ends before `to`.
pub fn last_slot_before(to: &Bytes) -> Slot {
    let is_whole = to.get(6..).is_none_or(|rest| rest.iter().all(|byte| *byte == 0));
    let slot = slot_at(to).0;
    // The end of a keyspace is the start of the next one.
    if is_whole { Slot(slot.wrapping_sub(1)) } else { Slot(slot) }
}

/// The least storage key above this one.
pub fn after(storage_key: &Bytes) -> Bytes {
    let mut next = BytesMut::with_capacity(storage_key.len() + 1);
    next.put_slice(storage_key);
    next.put_u8(0);
    next.freeze()
}

/// Above all storage keys.
pub fn end() -> Bytes {
    Bytes::from_static(&[0xff; PREFIX_BYTES + 258])
}

/// All of a node's own records.
pub fn own_all() -> (Bytes, Bytes) {
    (Bytes::new(), Bytes::from_static(&[0, 0, 0, 1]))
}

/// The keyspace and key of an object's storage key; None of another's.
pub fn parse_object(storage_key: &Bytes) -> Option<(KeyspaceId, Bytes)> {
    let keyspace = u32::from_be_bytes(storage_key.get(..4)?.try_into().ok()?);
    if keyspace == 0 || storage_key.len() <= PREFIX_BYTES {
        return None;
    }
    Some((KeyspaceId(keyspace), storage_key.slice(PREFIX_BYTES..)))
}

/// The slot of an object's storage key; None of another's.
pub fn slot_of(storage_key: &[u8]) -> Option<Slot> {
    let keyspace = u32::from_be_bytes(storage_key.get(..4)?.try_into().ok()?);
    let token = u64::from_be_bytes(storage_key.get(4..PREFIX_BYTES)?.try_into().ok()?);
    (keyspace != 0).then(|| Token(token).slot())
}

/// All objects of a slot: from, inclusive, and to, exclusive.
pub fn object_range(keyspace: KeyspaceId, slot: Slot) -> (Bytes, Bytes) {
    let at = |keyspace: u32, token: u64| {
        let mut bytes = BytesMut::with_capacity(PREFIX_BYTES);
        bytes.put_u32(keyspace);
        bytes.put_u64(token);
        bytes.freeze()
    };
    let to = match slot.last_token().0.checked_add(1) {
        Some(token) => at(keyspace.0, token),
        // Of the last keyspace of all there is no next one: one byte more than its last token.
        None => match keyspace.0.checked_add(1) {
            Some(next) => at(next, 0),
            None => Bytes::from_static(&[0xff; PREFIX_BYTES + 257]),
        },
    };
    (at(keyspace.0, slot.first_token().0), to)
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

/// Where what is known of the other members is.
pub fn members() -> Bytes {
    Bytes::from_static(&[0, 0, 0, 0, 4])
}

/// Where a leaf of a keyspace's tree is.
pub fn leaf(keyspace: KeyspaceId, slot: Slot) -> Bytes {
    let mut bytes = own(LEAF, 6);
    bytes.put_u32(keyspace.0);
    bytes.put_u16(slot.0);
    bytes.freeze()
}

/// All leaves: from, inclusive, and to, exclusive.
pub fn leaves() -> (Bytes, Bytes) {
    (own(LEAF, 0).freeze(), own(LEAF + 1, 0).freeze())
}

/// The keyspace and slot of a leaf's storage key; None of another's.
pub fn parse_leaf(storage_key: &[u8]) -> Option<(KeyspaceId, Slot)> {
    let rest = storage_key.strip_prefix(&[0, 0, 0, 0, LEAF])?;
    let keyspace = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?);
    let slot = u16::from_be_bytes(rest.get(4..)?.try_into().ok()?);
    Some((KeyspaceId(keyspace), Slot(slot)))
}

/// Where the hint for `target` of an object is.
pub fn hint(target: NodeId, object: &Bytes) -> Bytes {
    let mut bytes = own(HINT, 8 + object.len());
    bytes.put_u64(target.0);
    bytes.put_slice(object);
    bytes.freeze()
}

/// All hints for `target`: from, inclusive, and to, exclusive.
pub fn hints(target: NodeId) -> (Bytes, Bytes) {
    let mut from = own(HINT, 8);
    from.put_u64(target.0);
    let to = match target.0.checked_add(1) {
        Some(next) => {
            let mut to = own(HINT, 8);
            to.put_u64(next);
            to
        }
        None => own(HINT + 1, 0),
    };
    (from.freeze(), to.freeze())
}

/// All hints: from, inclusive, and to, exclusive.
pub fn hints_all() -> (Bytes, Bytes) {
    (own(HINT, 0).freeze(), own(HINT + 1, 0).freeze())
}

/// Whether a storage key is a hint's.
pub fn is_hint(storage_key: &[u8]) -> bool {
    storage_key.starts_with(&[0, 0, 0, 0, HINT])
}

/// The target of a hint's storage key, and the object's; None of another's.
pub fn parse_hint(storage_key: &Bytes) -> Option<(NodeId, Bytes)> {
    let rest = storage_key.strip_prefix(&[0, 0, 0, 0, HINT])?;
    let target = u64::from_be_bytes(rest.get(..8)?.try_into().ok()?);
    (rest.len() > 8).then(|| (NodeId(target), storage_key.slice(5 + 8..)))
}

/// Where evidence about an object is.
pub fn evidence(object: &Bytes) -> Bytes {
    let mut bytes = own(EVIDENCE, object.len());
    bytes.put_slice(object);
    bytes.freeze()
}

/// All evidence: from, inclusive, and to, exclusive.
pub fn evidences() -> (Bytes, Bytes) {
    (own(EVIDENCE, 0).freeze(), own(EVIDENCE + 1, 0).freeze())
}

const LEAF: u8 = 5;
const HINT: u8 = 6;
const EVIDENCE: u8 = 7;

/// The start of an own record's storage key.
fn own(tag: u8, more_bytes: usize) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(5 + more_bytes);
    bytes.put_u32(0);
    bytes.put_u8(tag);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slots_range_holds_its_keys_and_no_others() {
        for index in 0..2000u32 {
            let key = index.to_be_bytes();
            let slot = token(KeyspaceId(9), &key).slot();
            let object = object(KeyspaceId(9), &key);
            let (from, to) = object_range(KeyspaceId(9), slot);
            assert!(from <= object && object < to);
            let (from, to) = object_range(KeyspaceId(9), Slot(slot.0.wrapping_add(1)));
            assert!(!(from <= object && object < to));
        }
        let (from, to) = object_range(KeyspaceId(u32::MAX), Slot(u16::MAX));
        assert!(from < to);
    }

    #[test]
    fn own_keys_come_back_and_lie_in_their_ranges() {
        let object = object(KeyspaceId(7), b"key");
        for target in [NodeId(0), NodeId(5), NodeId(u64::MAX)] {
            let key = hint(target, &object);
            assert_eq!(parse_hint(&key), Some((target, object.clone())));
            let (from, to) = hints(target);
            assert!(from <= key && key < to);
            assert!(hints_all().0 <= key && key < hints_all().1);
        }
        let key = leaf(KeyspaceId(7), Slot(300));
        assert_eq!(parse_leaf(&key), Some((KeyspaceId(7), Slot(300))));
        assert!(leaves().0 <= key && key < leaves().1);
        let key = evidence(&object);
        assert!(evidences().0 <= key && key < evidences().1);
        assert_eq!((parse_hint(&key), parse_leaf(&key)), (None, None));
        assert_eq!(parse_object(&key), None);
    }
}
