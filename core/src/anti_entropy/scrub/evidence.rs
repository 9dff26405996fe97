//! Evidence: two contents that one write history should not have, and what may be lost, kept until somebody looks.
//!
//! ```text
//!   record   head: format 1 │ at │ peer │ digest of own │ digest of the other      body: both records
//!   loss     head: format 2 │ at │ from │ to │ the peers that could not read all of it either
//! ```
//!
//! One for each key or range, the newest, and [`EVIDENCE_MAX`] in all. In: both records, ranges. Out: a record under
//! `storage_key::evidence`. Absent: who is to blame.

use crate::event::{Durability, Effect, Effects, Record, ScanPage, StorageFailure, WriteOp};
use crate::id::{Millis, NodeId};
use crate::node::{Node, PageSize, Purpose, ScanFor};
use crate::storage_key;
use crate::version::{Digest, codec};
use crate::wire::{Malformed, Reader, Writer};
use bytes::{BufMut, Bytes, BytesMut};

const FORMAT: u8 = 1;
const LOSS_FORMAT: u8 = 2;
/// Kept in all; what is beyond is counted only.
const EVIDENCE_MAX: usize = 1024;

/// What was found here and what took its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// When, by this node's clock.
    pub at: Millis,
    /// Whose record took the place.
    pub peer: NodeId,
    /// Of the content that was here; None if its bytes did not match their own digest.
    pub mine: Option<Digest>,
    /// Of the content that took its place; None if that cannot be compared.
    pub winner: Option<Digest>,
    /// What was here.
    pub own: Record,
    /// What took its place.
    pub taken: Record,
}

impl Evidence {
    /// Its record.
    pub fn record(&self) -> Record {
        let mut head = BytesMut::with_capacity(64);
        head.put_u8(FORMAT);
        head.varint(self.at.0);
        head.put_u64(self.peer.0);
        for digest in [self.mine, self.winner] {
            head.put_u8(u8::from(digest.is_some()));
            head.put_slice(&digest.map_or([0; 16], |digest| digest.0));
        }
        let mut body = BytesMut::new();
        codec::put_record(&mut body, &self.own);
        codec::put_record(&mut body, &self.taken);
        Record { head: head.freeze(), body: body.freeze() }
    }

    /// What a record says.
    pub fn decode(record: &Record) -> Result<Evidence, Malformed> {
        let mut head = Reader::new(record.head.clone());
        if head.u8("evidence format")? != FORMAT {
            return Err(Malformed("evidence format"));
        }
        let at = Millis(head.varint("evidence time")?);
        let peer = NodeId(head.u64("evidence peer")?);
        let mut digest = || -> Result<Option<Digest>, Malformed> {
            let is_there = head.u8("evidence digest")? != 0;
            let digest = Digest(head.array("evidence digest")?);
            Ok(is_there.then_some(digest))
        };
        let (mine, winner) = (digest()?, digest()?);
        head.end("evidence")?;
        let mut body = Reader::new(record.body.clone());
        let (own, taken) = (codec::read_record(&mut body)?, codec::read_record(&mut body)?);
        body.end("evidence")?;
        Ok(Evidence { at, peer, mine, winner, own, taken })
    }
}

/// A range that was given up though another replica could not read all of it either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// When, by this node's clock.
    pub at: Millis,
    /// The first storage key that may be lost; inclusive.
    pub from: Bytes,
    /// The end; exclusive.
    pub to: Bytes,
    /// Who else has lost some of it.
    pub peers: Vec<NodeId>,
}

impl Loss {
    /// Its record.
    pub fn record(&self) -> Record {
        let mut head = BytesMut::with_capacity(64);
        head.put_u8(LOSS_FORMAT);
        head.varint(self.at.0);
        head.bytes(&self.from);
        head.bytes(&self.to);
        head.varint(self.peers.len() as u64);
        self.peers.iter().for_each(|peer| head.put_u64(peer.0));
        Record { head: head.freeze(), body: Bytes::new() }
    }

    /// What a record says.
    pub fn decode(record: &Record) -> Result<Loss, Malformed> {
        let mut head = Reader::new(record.head.clone());
        if head.u8("loss format")? != LOSS_FORMAT {
            return Err(Malformed("loss format"));
        }
        let at = Millis(head.varint("loss time")?);
        let (from, to) = (head.bytes("loss range")?, head.bytes("loss range")?);
        let peers = head.count(8, "loss peers")?;
        let peers =
            (0..peers).map(|_| Ok(NodeId(head.u64("loss peer")?))).collect::<Result<_, Malformed>>()?;
        head.end("loss")?;
        Ok(Loss { at, from, to, peers })
    }
}

impl Node {
    /// Reads how much there is.
    pub(super) fn count_evidence(&mut self, effects: &mut Effects) {
        let (from, to) = storage_key::evidences();
        let page = PageSize::heads(2 * EVIDENCE_MAX, 1 << 20);
        self.scan(ScanFor::Evidence, (from, to), page, effects);
    }

    /// What is there already counts against the bound.
    pub(crate) fn evidence_counted(&mut self, result: Result<ScanPage, StorageFailure>) {
        if let Ok(page) = result {
            self.anti_entropy.scrub.evidence += page.entries.len();
        }
    }

    pub(super) fn keep_evidence(&mut self, of: &Bytes, record: Record, effects: &mut Effects) {
        let scrub = &mut self.anti_entropy.scrub;
        if scrub.evidence >= EVIDENCE_MAX {
            scrub.seen.evidence_dropped += 1;
            return;
        }
        scrub.evidence += 1;
        let ticket = self.ticket(Purpose::Own);
        let op = WriteOp::Put { key: storage_key::evidence(of), record };
        effects.push(Effect::Write { ticket, ops: vec![op], durability: Durability::Sync });
    }
}
