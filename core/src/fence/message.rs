//! What members say of a collection, and its bytes.
//!
//! ```text
//!   owner ─ Confirm ─▶ all members      here is what I hold; do you, and nothing else?
//!         ◀─ Confirmed ─                these keys, yes: from here on I refuse what they cover
//!         ─ Hold ─▶ all members         do you still?
//!         ◀─ Held ─
//!         ─ Close ─▶ all members        all do: drop it
//!         ◀─ Closed ─
//!   caller ─ RollCall ─▶ all members    which of my former actors do contexts name?
//!          ◀─ Rolled ─
//! ```
//!
//! Every message is safe to lose, to receive twice and late. In: bytes of a peer, never trusted.
//! Out: typed messages. Absent: what they lead to.

use super::roll::ACTORS_MAX;
use crate::boot::words;
use crate::event::Record;
use crate::id::{ActorId, KeyspaceId, NodeId, OpId};
use crate::version::codec;
use crate::wire::{Malformed, Reader, Writer};
use bytes::{BufMut, Bytes, BytesMut};

/// Keys of one round at most.
pub(crate) const KEYS_MAX: usize = 256;

/// What is to become of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing of it is live: it goes, as if it had never been written.
    Reap,
    /// The spans of these dead actors leave its context.
    Retire(Vec<ActorId>),
}

/// A key whose state is agreed upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Which.
    pub key: Bytes,
    /// The state's outline: its causality, no values.
    pub outline: Record,
    /// What is to become of it.
    pub fate: Fate,
}

/// One message of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FenceMessage {
    /// Do you hold this durably, and nothing older anywhere?
    Confirm {
        /// Names the round.
        round: OpId,
        /// Whose word is needed, as the owner sees it.
        members: Vec<NodeId>,
        /// Of all keys.
        keyspace: KeyspaceId,
        /// At most [`KEYS_MAX`].
        subjects: Vec<Subject>,
    },
    /// For these, in the order of the Confirm: yes.
    Confirmed {
        /// Of the Confirm.
        round: OpId,
        /// One for each subject.
        confirmed: Vec<bool>,
        /// Of this member's life: what it said is durable since.
        tick: u64,
    },
    /// Have you refused, without a break, what these keys cover since you confirmed?
    Hold {
        /// Of the Confirm.
        round: OpId,
        /// Of all keys.
        keyspace: KeyspaceId,
        /// Those that all members confirmed.
        keys: Vec<Bytes>,
        /// The members' ticks: whoever holds knows them, and will not forget them.
        ticks: Vec<(NodeId, u64)>,
    },
    /// Yes or no.
    Held {
        /// Of the Hold.
        round: OpId,
        /// Of all keys.
        held: bool,
    },
    /// All members have: let it happen.
    Close {
        /// Names the round, or, with a single key, nothing.
        round: OpId,
        /// Of all keys.
        keyspace: KeyspaceId,
        /// As confirmed by all.
        subjects: Vec<Subject>,
    },
    /// It has happened here, durably, as far as the keys still were what they had been.
    Closed {
        /// Of the Close.
        round: OpId,
    },
    /// Which of these does a context name that you hold?
    RollCall {
        /// Names the call.
        round: OpId,
        /// Former actors of the sender.
        actors: Vec<ActorId>,
    },
    /// These.
    Rolled {
        /// Of the RollCall.
        round: OpId,
        /// Some of its actors.
        named: Vec<ActorId>,
    },
}

impl FenceMessage {
    pub(crate) fn put(&self, b: &mut BytesMut) {
        match self {
            FenceMessage::Confirm { round, members, keyspace, subjects } => {
                put_head(b, 1, *round);
                b.varint(members.len() as u64);
                members.iter().for_each(|node| b.put_u64(node.0));
                put_subjects(b, *keyspace, subjects);
            }
            FenceMessage::Confirmed { round, confirmed, tick } => {
                put_head(b, 2, *round);
                b.varint(confirmed.len() as u64);
                confirmed.iter().for_each(|yes| b.put_u8(u8::from(*yes)));
                b.varint(*tick);
            }
            FenceMessage::Hold { round, keyspace, keys, ticks } => {
                put_head(b, 3, *round);
                b.varint(u64::from(keyspace.0));
                b.varint(keys.len() as u64);
                keys.iter().for_each(|key| b.bytes(key));
                b.varint(ticks.len() as u64);
                for (node, tick) in ticks {
                    b.put_u64(node.0);
                    b.varint(*tick);
                }
            }
            FenceMessage::Held { round, held } => {
                put_head(b, 4, *round);
                b.put_u8(u8::from(*held));
            }
            FenceMessage::Close { round, keyspace, subjects } => {
                put_head(b, 5, *round);
                put_subjects(b, *keyspace, subjects);
            }
            FenceMessage::Closed { round } => put_head(b, 6, *round),
            FenceMessage::RollCall { round, actors } => {
                put_head(b, 7, *round);
                put_actors(b, actors);
            }
            FenceMessage::Rolled { round, named } => {
                put_head(b, 8, *round);
                put_actors(b, named);
            }
        }
    }

    pub(crate) fn read(r: &mut Reader) -> Result<FenceMessage, Malformed> {
        let kind = r.u8("fence message")?;
        let round = OpId(r.u64("round")?);
        Ok(match kind {
            1 => {
                let members = (0..r.count(8, "members")?).map(|_| r.u64("member").map(NodeId));
                let members = members.collect::<Result<_, _>>()?;
                let (keyspace, subjects) = read_subjects(r)?;
                FenceMessage::Confirm { round, members, keyspace, subjects }
            }
            2 => {
                let count = limited(r, 1)?;
                let confirmed = (0..count).map(|_| r.u8("confirmed").map(|byte| byte != 0));
                let confirmed = confirmed.collect::<Result<_, _>>()?;
                FenceMessage::Confirmed { round, confirmed, tick: r.varint("tick")? }
            }
            3 => {
                let keyspace = read_keyspace(r)?;
                let count = limited(r, 1)?;
                let keys = (0..count).map(|_| r.bytes("key")).collect::<Result<_, _>>()?;
                let ticks = (0..r.count(9, "ticks")?)
                    .map(|_| Ok((NodeId(r.u64("member")?), r.varint("tick")?)))
                    .collect::<Result<_, Malformed>>()?;
                FenceMessage::Hold { round, keyspace, keys, ticks }
            }
            4 => FenceMessage::Held { round, held: r.u8("held")? != 0 },
            5 => {
                let (keyspace, subjects) = read_subjects(r)?;
                FenceMessage::Close { round, keyspace, subjects }
            }
            6 => FenceMessage::Closed { round },
            7 => FenceMessage::RollCall { round, actors: read_actors(r)? },
            8 => FenceMessage::Rolled { round, named: read_actors(r)? },
            _ => return Err(Malformed("fence message")),
        })
    }
}

fn put_head(b: &mut BytesMut, kind: u8, round: OpId) {
    b.put_u8(kind);
    b.put_u64(round.0);
}

fn put_actors(b: &mut BytesMut, actors: &[ActorId]) {
    b.varint(actors.len() as u64);
    actors.iter().for_each(|actor| b.put_u64(actor.0));
}

fn read_actors(r: &mut Reader) -> Result<Vec<ActorId>, Malformed> {
    Ok(words(r, ACTORS_MAX, "actors")?.into_iter().map(ActorId).collect())
}

fn read_keyspace(r: &mut Reader) -> Result<KeyspaceId, Malformed> {
    u32::try_from(r.varint("keyspace")?).map(KeyspaceId).map_err(|_| Malformed("keyspace"))
}

fn limited(r: &mut Reader, bytes_each: usize) -> Result<usize, Malformed> {
    let count = r.count(bytes_each, "keys of a round")?;
    if count > KEYS_MAX { Err(Malformed("keys of a round")) } else { Ok(count) }
}

fn put_subjects(b: &mut BytesMut, keyspace: KeyspaceId, subjects: &[Subject]) {
    b.varint(u64::from(keyspace.0));
    b.varint(subjects.len() as u64);
    for Subject { key, outline, fate } in subjects {
        b.bytes(key);
        codec::put_record(b, outline);
        let actors = match fate {
            Fate::Reap => &[][..],
            Fate::Retire(actors) => actors,
        };
        put_actors(b, actors);
    }
}

fn read_subjects(r: &mut Reader) -> Result<(KeyspaceId, Vec<Subject>), Malformed> {
    let keyspace = read_keyspace(r)?;
    let count = limited(r, 4)?;
    let mut subjects = Vec::with_capacity(count);
    for _ in 0..count {
        let (key, outline) = (r.bytes("key")?, codec::read_record(r)?);
        let actors = read_actors(r)?;
        let fate = if actors.is_empty() { Fate::Reap } else { Fate::Retire(actors) };
        subjects.push(Subject { key, outline, fate });
    }
    Ok((keyspace, subjects))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;

    #[test]
    fn every_message_comes_back_and_none_that_is_cut_short() {
        let record = Record { head: Bytes::from_static(b"head"), body: Bytes::new() };
        let subject = |fate| Subject { key: Bytes::from_static(b"k"), outline: record.clone(), fate };
        let subjects = vec![subject(Fate::Reap), subject(Fate::Retire(vec![ActorId(7), ActorId(9)]))];
        let (round, keyspace) = (OpId(5), KeyspaceId(77));
        let (members, ticks) = (vec![NodeId(1), NodeId(2)], vec![(NodeId(1), 3), (NodeId(2), 400)]);
        for message in [
            FenceMessage::Confirm { round, members, keyspace, subjects: subjects.clone() },
            FenceMessage::Confirmed { round, confirmed: vec![true, false], tick: 9 },
            FenceMessage::Hold { round, keyspace, keys: vec![Bytes::from_static(b"k")], ticks },
            FenceMessage::Held { round, held: true },
            FenceMessage::Close { round, keyspace, subjects },
            FenceMessage::Closed { round },
            FenceMessage::RollCall { round, actors: vec![ActorId(7), ActorId(9)] },
            FenceMessage::Rolled { round, named: vec![ActorId(9)] },
        ] {
            let bytes = Message::Fence(message.clone()).encode();
            assert_eq!(Message::decode(bytes.clone()), Ok(Message::Fence(message)));
            for length in 0..bytes.len() {
                assert!(Message::decode(bytes.slice(..length)).is_err());
            }
        }
    }

    #[test]
    fn a_round_of_too_many_keys_is_refused() {
        let keys = vec![Bytes::new(); KEYS_MAX + 1];
        let hold = FenceMessage::Hold { round: OpId(1), keyspace: KeyspaceId(1), keys, ticks: Vec::new() };
        assert!(Message::decode(Message::Fence(hold).encode()).is_err());
    }
}
