//! Who a node is after a start (semantics §3): a new actor at every boot, unless a marker of a
//! clean shutdown proves the last counter that was issued.
//!
//! ```text
//!   shell: read identity ─▶ begin ─▶ write and sync ─▶ Node::new ─▶ serve
//!   shell: stop serving, all writes done ─▶ Node::clean_marker ─▶ write and sync ─▶ exit
//! ```
//!
//! The marker is removed, synced, before anything is served. In: the identity record, random
//! numbers. Out: an incarnation and the record to sync first. Absent: the disk.

use crate::event::{Record, WriteOp};
use crate::id::ActorId;
use crate::storage_key;
use crate::wire::{Malformed, Reader, Writer};
use bytes::{BufMut, Bytes, BytesMut};

const FORMAT: u8 = 1;

/// An actor and the last counter it issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// Random.
    pub actor: ActorId,
    /// 0: none yet.
    pub issued: u64,
}

/// The incarnation to serve as, and what must be durable before: with a clean marker the same
/// actor goes on, without one `fresh_actor` begins. A record that does not decode counts as none.
pub fn begin(identity: Option<&Record>, fresh_actor: u64) -> (Incarnation, WriteOp) {
    let resumed = identity
        .and_then(|record| decode(record).ok())
        .and_then(|(incarnation, clean)| clean.then_some(incarnation));
    let incarnation = resumed.unwrap_or(Incarnation { actor: ActorId(fresh_actor), issued: 0 });
    (incarnation, identity_op(incarnation, false))
}

/// The write that makes an incarnation durable, `clean` only as the very last of a shutdown.
pub fn identity_op(incarnation: Incarnation, clean: bool) -> WriteOp {
    let mut head = BytesMut::new();
    head.put_u8(FORMAT);
    head.put_u64(incarnation.actor.0);
    head.put_u8(u8::from(clean));
    head.varint(if clean { incarnation.issued } else { 0 });
    WriteOp::Put { key: storage_key::identity(), record: Record { head: head.freeze(), body: Bytes::new() } }
}

fn decode(record: &Record) -> Result<(Incarnation, bool), Malformed> {
    let mut reader = Reader::new(record.head.clone());
    if reader.u8("identity format")? != FORMAT {
        return Err(Malformed("identity format"));
    }
    let actor = ActorId(reader.u64("identity actor")?);
    let clean = reader.u8("identity marker")? == 1;
    let issued = reader.varint("identity counter")?;
    reader.end("identity")?;
    Ok((Incarnation { actor, issued }, clean))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(op: WriteOp) -> Record {
        match op {
            WriteOp::Put { record, .. } => record,
            _ => unreachable!("an identity is put"),
        }
    }

    #[test]
    fn an_actor_goes_on_only_after_a_clean_marker_and_only_once() {
        let (first, op) = begin(None, 11);
        assert_eq!(first, Incarnation { actor: ActorId(11), issued: 0 });
        let (crashed, _) = begin(Some(&stored(op)), 12);
        assert_eq!(crashed.actor, ActorId(12));

        let marker = stored(identity_op(Incarnation { actor: ActorId(12), issued: 40 }, true));
        let (resumed, op) = begin(Some(&marker), 13);
        assert_eq!(resumed, Incarnation { actor: ActorId(12), issued: 40 });
        assert_eq!(begin(Some(&stored(op)), 14).0, Incarnation { actor: ActorId(14), issued: 0 });
    }

    #[test]
    fn a_damaged_identity_is_a_new_actor() {
        let damaged = Record { head: Bytes::from_static(b"\x01\x02"), body: Bytes::new() };
        assert_eq!(begin(Some(&damaged), 9).0.actor, ActorId(9));
    }
}
