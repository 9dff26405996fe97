//! The bytes of a hint on disk, and how two of one key fold.
//!
//! ```text
//!   head  format 1 │ 0 marker, 1 state │ since, ms │ bytes of the body │ the state's head
//!   body  the state's body
//! ```
//!
//! A *marker* says that its holder, a primary itself, has something of a key that the target lacks;
//! it stands for whatever the holder has when it goes home. So the head of a hint tells its whole
//! size, and pages of heads are enough to know what is kept. In: states. Out: records, never
//! trusted when they come back. Absent: for whom and of which key, which is in the storage key.

use crate::event::Record;
use crate::id::Millis;
use crate::version::codec;
use crate::wire::{Malformed, Reader, Writer};
use bytes::{BufMut, Bytes, BytesMut};

const FORMAT: u8 = 1;
const MARKER: u8 = 0;
const STATE: u8 = 1;

/// A hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// Since when something of the key has been kept here, by the holder's own clock: for bounds on
    /// what is kept, never for correctness.
    pub since: Millis,
    /// The whole raw state (see [`codec::state`]); None of a marker.
    pub state: Option<Record>,
}

/// What the head of a hint tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) since: Millis,
    pub(super) is_marker: bool,
    /// Of the state, head and body.
    pub(super) size_bytes: u64,
}

/// The record of a hint.
pub fn record(hint: &Hint) -> Record {
    let state = hint.state.as_ref();
    let (head, body) = state.map(|state| (&state.head[..], state.body.clone())).unwrap_or_default();
    let mut buffer = BytesMut::with_capacity(16 + head.len());
    buffer.put_u8(FORMAT);
    buffer.put_u8(if state.is_some() { STATE } else { MARKER });
    buffer.varint(hint.since.0);
    buffer.varint(body.len() as u64);
    buffer.put_slice(head);
    Record { head: buffer.freeze(), body }
}

/// The hint of a record.
pub fn hint(record: &Record) -> Result<Hint, Malformed> {
    let mut reader = Reader::new(record.head.clone());
    let facts = read_facts(&mut reader)?;
    let rest = reader.take(reader.remaining(), "hint state")?;
    let body_bytes = facts.size_bytes - rest.len() as u64;
    match (facts.is_marker, rest.is_empty()) {
        (true, true) if record.body.is_empty() => Ok(Hint { since: facts.since, state: None }),
        (false, false) if record.body.len() as u64 == body_bytes => {
            let state = Record { head: rest, body: record.body.clone() };
            Ok(Hint { since: facts.since, state: Some(state) })
        }
        _ => Err(Malformed("hint body")),
    }
}

/// What a head alone tells.
pub(super) fn facts(head: &Bytes) -> Result<Facts, Malformed> {
    read_facts(&mut Reader::new(head.clone()))
}

fn read_facts(reader: &mut Reader) -> Result<Facts, Malformed> {
    if reader.u8("hint format")? != FORMAT {
        return Err(Malformed("hint format"));
    }
    let is_marker = match reader.u8("hint kind")? {
        MARKER => true,
        STATE => false,
        _ => return Err(Malformed("hint kind")),
    };
    let since = Millis(reader.varint("hint time")?);
    let body_bytes = reader.varint("hint body")?;
    let head_bytes = reader.remaining() as u64;
    let size_bytes = body_bytes.checked_add(head_bytes).ok_or(Malformed("hint body"))?;
    Ok(Facts { since, is_marker, size_bytes })
}

/// The join of `fragments_newest_first`: a state beats a marker, states sync, the oldest time stays.
pub(crate) fn fold(fragments_newest_first: &[Record]) -> Result<Record, Malformed> {
    let hints = fragments_newest_first.iter().map(hint).collect::<Result<Vec<_>, _>>()?;
    let since = hints.iter().map(|hint| hint.since).min().ok_or(Malformed("fold of nothing"))?;
    let mut states = hints.into_iter().filter_map(|hint| hint.state);
    let Some(newest) = states.next() else { return Ok(record(&Hint { since, state: None })) };
    let older: Vec<Record> = states.collect();
    if older.is_empty() {
        return Ok(record(&Hint { since, state: Some(newest) }));
    }
    let mut state = codec::state(&newest)?;
    for older in &older {
        let older = codec::state(older)?;
        if older.kind() != state.kind() {
            return Err(Malformed("fold of two kinds"));
        }
        // A reused dot is reported where it comes in; here the newer bytes stay.
        let _ = state.sync(&older);
    }
    Ok(record(&Hint { since, state: Some(codec::record(&state)) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ActorId, Dot};
    use crate::version::{Content, DotSet, KeyState, Siblings, Stamp, Version};

    fn state(actor: u64) -> KeyState {
        let mut siblings = Siblings::default();
        let content = Content::Value(Bytes::from(format!("value of {actor}")));
        let stamp = Stamp::default();
        let version =
            Version { content, stamp, content_type: None, request_id: None, receipt: None, expires_at: None };
        siblings.write(&DotSet::new(), Dot { actor: ActorId(actor), counter: 3 }, 2, version);
        KeyState::Causal(siblings)
    }

    fn of(since: u64, state: Option<&KeyState>) -> Record {
        record(&Hint { since: Millis(since), state: state.map(codec::record) })
    }

    #[test]
    fn hints_come_back_and_their_heads_tell_their_size() {
        for state in [None, Some(&state(1))] {
            let record = of(77, state);
            let back = hint(&record).unwrap();
            assert_eq!((back.since, back.state.clone()), (Millis(77), state.map(codec::record)));
            let size = back.state.map_or(0, |state| state.head.len() + state.body.len()) as u64;
            let told = facts(&record.head).unwrap();
            assert_eq!((told.size_bytes, told.is_marker), (size, state.is_none()));
        }
    }

    #[test]
    fn damaged_hints_are_refused() {
        let record = of(77, Some(&state(1)));
        for length in 0..5 {
            let cut = Record { head: record.head.slice(..length), body: record.body.clone() };
            assert!(hint(&cut).is_err(), "{length}");
        }
        assert!(hint(&Record { head: record.head.clone(), body: record.body.slice(1..) }).is_err());
        assert!(hint(&Record { head: of(1, None).head, body: record.body }).is_err());
    }

    #[test]
    fn markers_lose_against_states_and_states_sync_in_either_order() {
        assert_eq!(fold(&[of(9, None), of(5, None)]).unwrap(), of(5, None));
        let mut both = state(1);
        assert!(both.sync(&state(2)).is_empty());
        let (a, b) = (of(9, Some(&state(1))), of(5, Some(&state(2))));
        assert_eq!(fold(&[a.clone(), of(7, None), b.clone()]).unwrap(), of(5, Some(&both)));
        assert_eq!(fold(&[b, a]).unwrap(), of(5, Some(&both)));
    }
}
