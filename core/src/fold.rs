//! How storage folds the fragments of one key: by the same sync that replicas use.
//!
//! In: a storage key and its records, newest first. Out: one record. With lattice states nothing is joined
//! here, operands are kept (semantics §4: on a trap keep the operands; the plugin is asked when
//! the key is next read or written). Absent: storage itself, which calls this behind its seam.

use crate::anti_entropy::leaf;
use crate::event::Record;
use crate::version::codec;
use crate::wire::Malformed;
use crate::{handoff, storage_key};
use bytes::Bytes;

/// The join of two records of which only heads are there and which need no other, made while the newer is written:
/// a leaf takes part in every write, and piles of its parts would cost more than the sum. None: not such records.
pub fn fold_at_once(storage_key: &[u8], newer_head: &Bytes, older_head: &Bytes) -> Option<Bytes> {
    storage_key::parse_leaf(storage_key)?;
    let part = |head: &Bytes| Record { head: head.clone(), body: Bytes::new() };
    leaf::fold(&[part(newer_head), part(older_head)]).ok().map(|folded| folded.head)
}

/// The join of an object's `fragments_newest_first`; errors if one does not decode or kinds differ.
/// Own records fold by rules of their own.
pub fn fold(storage_key: &[u8], fragments_newest_first: &[Record]) -> Result<Record, Malformed> {
    if storage_key::is_hint(storage_key) {
        return handoff::fold(fragments_newest_first);
    }
    if storage_key::parse_leaf(storage_key).is_some() {
        return leaf::fold(fragments_newest_first);
    }
    let mut fragments = fragments_newest_first.iter();
    let newest = fragments.next().ok_or(Malformed("fold of nothing"))?;
    let mut state = codec::state(newest)?;
    for record in fragments {
        let older = codec::state(record)?;
        if older.kind() != state.kind() {
            return Err(Malformed("fold of two kinds"));
        }
        // A reused dot is reported where it comes in; here the newer bytes stay.
        let _ = state.sync(&older);
    }
    Ok(codec::record(&state))
}
