//! What members tell one another about all members, and its bytes.
//!
//! ```text
//!   Digest   how far I know each       ─▶
//!                                      ◀─  Answer   what I know better, and what I want to know
//!   News     what you wanted           ─▶
//! ```
//!
//! As Scuttlebutt does it (van Renesse et al. 2008): a round costs a few words for each member, and an
//! entry travels only to those who lack it. Heartbeats are part of the digest. `News` also goes out
//! unasked when a member's own entry changes in what others wait for. All of them may be lost,
//! repeated, reordered. In: bytes of a peer, bounded before anything is allocated. Out: typed
//! messages. Absent: what is believed (`exchange`).

use super::life::{self, Entry};
use crate::catalog::CatalogDigest;
use crate::id::{DiskId, NodeId};
use crate::wire::{Malformed, Reader, Writer};
use bytes::{BufMut, BytesMut};
use std::collections::BTreeMap;

/// How far a member is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Which member.
    pub node: NodeId,
    /// Of its life.
    pub boots: u64,
    /// Of its life.
    pub session: u64,
    /// Of its entry.
    pub revision: u64,
    /// Of its heart, in this session.
    pub beat: u64,
}

/// One message of gossip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gossip {
    /// How far the sender knows each member, itself included.
    Digest {
        /// It has booted and wants to know what is known of itself.
        joining: bool,
        /// How long the sender has run (see [`crate::moment`]).
        running_ms: u64,
        /// Of the sender's catalog.
        catalog: CatalogDigest,
        /// Of the sender's set of forgotten disks.
        forgotten: u64,
        /// Of all members that it knows.
        beats: Vec<Beat>,
    },
    /// To a Digest.
    Answer {
        /// How long the answerer has run.
        running_ms: u64,
        /// Of the answerer's catalog.
        catalog: CatalogDigest,
        /// Whether it knew anything of the asker.
        knows_you: bool,
        /// Whether this boot of the asker is on the answerer's disk: an older image of the asker's
        /// will be told from it.
        keeps_you: bool,
        /// What it knows better, and of itself.
        beats: Vec<Beat>,
        /// What the asker does not know yet.
        news: Vec<Entry>,
        /// Of which members it wants the entry.
        want: Vec<NodeId>,
        /// Its forgotten disks, if the asker's are others.
        forgotten: Option<BTreeMap<NodeId, DiskId>>,
    },
    /// Entries, asked for or not.
    News {
        /// Each by the member that it is about, perhaps passed on.
        news: Vec<Entry>,
        /// The sender's forgotten disks, if the receiver's are others.
        forgotten: Option<BTreeMap<NodeId, DiskId>>,
    },
}

impl Gossip {
    pub(crate) fn put(&self, b: &mut BytesMut) {
        match self {
            Gossip::Digest { joining, running_ms, catalog, forgotten, beats } => {
                b.put_u8(1);
                b.put_u8(u8::from(*joining));
                b.varint(*running_ms);
                b.put_slice(&catalog.0);
                b.put_u64(*forgotten);
                put_beats(b, beats);
            }
            Gossip::Answer { running_ms, catalog, knows_you, keeps_you, beats, news, want, forgotten } => {
                b.put_u8(2);
                b.varint(*running_ms);
                b.put_slice(&catalog.0);
                b.put_u8(u8::from(*knows_you));
                b.put_u8(u8::from(*keeps_you));
                put_beats(b, beats);
                put_news(b, news, forgotten.as_ref());
                b.varint(want.len() as u64);
                want.iter().for_each(|node| b.put_u64(node.0));
            }
            Gossip::News { news, forgotten } => {
                b.put_u8(3);
                put_news(b, news, forgotten.as_ref());
            }
        }
    }

    pub(crate) fn read(r: &mut Reader) -> Result<Gossip, Malformed> {
        Ok(match r.u8("gossip kind")? {
            1 => Gossip::Digest {
                joining: read_flag(r)?,
                running_ms: r.varint("running")?,
                catalog: CatalogDigest(r.array("catalog digest")?),
                forgotten: r.u64("forgotten")?,
                beats: read_beats(r)?,
            },
            2 => {
                let running_ms = r.varint("running")?;
                let catalog = CatalogDigest(r.array("catalog digest")?);
                let (knows_you, keeps_you) = (read_flag(r)?, read_flag(r)?);
                let beats = read_beats(r)?;
                let (news, forgotten) = read_news(r)?;
                let want =
                    (0..life::count(r, 8)?)
                        .map(|_| Ok(NodeId(r.u64("member")?)))
                        .collect::<Result<_, Malformed>>()?;
                Gossip::Answer { running_ms, catalog, knows_you, keeps_you, beats, news, want, forgotten }
            }
            3 => {
                let (news, forgotten) = read_news(r)?;
                Gossip::News { news, forgotten }
            }
            _ => return Err(Malformed("gossip kind")),
        })
    }
}

fn read_flag(r: &mut Reader) -> Result<bool, Malformed> {
    match r.u8("flag")? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed("flag")),
    }
}

fn put_beats(b: &mut BytesMut, beats: &[Beat]) {
    b.varint(beats.len() as u64);
    for beat in beats {
        b.put_u64(beat.node.0);
        b.put_u64(beat.session);
        [beat.boots, beat.revision, beat.beat].iter().for_each(|number| b.varint(*number));
    }
}

fn read_beats(r: &mut Reader) -> Result<Vec<Beat>, Malformed> {
    let beat = |r: &mut Reader| {
        Ok(Beat {
            node: NodeId(r.u64("member")?),
            session: r.u64("session")?,
            boots: r.varint("boots")?,
            revision: r.varint("revision")?,
            beat: r.varint("beat")?,
        })
    };
    (0..life::count(r, 19)?).map(|_| beat(r)).collect()
}

fn put_news(b: &mut BytesMut, news: &[Entry], forgotten: Option<&BTreeMap<NodeId, DiskId>>) {
    b.varint(news.len() as u64);
    news.iter().for_each(|entry| entry.put(b));
    b.put_u8(u8::from(forgotten.is_some()));
    if let Some(forgotten) = forgotten {
        life::put_forgotten(b, forgotten);
    }
}

type News = (Vec<Entry>, Option<BTreeMap<NodeId, DiskId>>);

fn read_news(r: &mut Reader) -> Result<News, Malformed> {
    let news = (0..life::count(r, 64)?).map(|_| Entry::read(r)).collect::<Result<_, Malformed>>()?;
    let forgotten = if read_flag(r)? { Some(life::read_forgotten(r)?) } else { None };
    Ok((news, forgotten))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::life::tests::entry;
    use bytes::Bytes;

    fn all() -> Vec<Gossip> {
        let beat = Beat { node: NodeId(1), boots: 2, session: 3, revision: 400, beat: 1 << 40 };
        let catalog = CatalogDigest([7; 16]);
        vec![
            Gossip::Digest {
                joining: true,
                running_ms: 1 << 33,
                catalog,
                forgotten: 8,
                beats: vec![beat, beat],
            },
            Gossip::Answer {
                running_ms: 12,
                catalog,
                knows_you: true,
                keeps_you: false,
                beats: vec![beat],
                news: vec![entry(1, 2, 3, 4), entry(5, 6, 7, 8)],
                want: vec![NodeId(9)],
                forgotten: Some([(NodeId(1), DiskId(2))].into()),
            },
            Gossip::News { news: vec![entry(1, 2, 3, 4)], forgotten: None },
        ]
    }

    fn bytes(gossip: &Gossip) -> Bytes {
        let mut b = BytesMut::new();
        gossip.put(&mut b);
        b.freeze()
    }

    #[test]
    fn gossip_comes_back_and_truncated_gossip_is_refused() {
        for gossip in all() {
            let bytes = bytes(&gossip);
            assert_eq!(Gossip::read(&mut Reader::new(bytes.clone())), Ok(gossip));
            for length in 0..bytes.len() {
                assert!(Gossip::read(&mut Reader::new(bytes.slice(..length))).is_err());
            }
        }
    }

    #[test]
    fn a_message_that_claims_more_than_there_can_be_is_refused() {
        let mut b = BytesMut::new();
        b.put_u8(1);
        b.put_u8(0);
        b.varint(0);
        b.put_slice(&[0; 24]);
        b.varint(life::MEMBERS_MAX as u64 + 1);
        b.put_slice(&vec![0; 20 * (life::MEMBERS_MAX + 1)]);
        assert_eq!(Gossip::read(&mut Reader::new(b.freeze())), Err(Malformed("members")));
        let mut many = entry(1, 2, 3, 4);
        many.life.former_actors = vec![crate::id::ActorId(1); crate::boot::FORMER_ACTORS_MAX + 1];
        let gossip = Gossip::News { news: vec![many], forgotten: None };
        assert_eq!(Gossip::read(&mut Reader::new(bytes(&gossip))), Err(Malformed("former actors")));
    }
}
