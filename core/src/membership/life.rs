//! What a member says of itself, and how an old disk is told from a new one.
//!
//! Only a member itself makes an [`Entry`]; others pass it on. Entries of one member are ordered by
//! (boots, revision). A *session* is random for each boot, so that two boots that count alike, the
//! second from an image of the disk before the first, are told apart. In: what was known, what came.
//! Out: verdicts; bytes. Absent: who is told (`exchange`), what the node does about itself (`join`).

use crate::boot::{self, FORMER_ACTORS_MAX, FORMER_DISKS_MAX};
use crate::catalog::CatalogDigest;
use crate::id::{ActorId, DiskId, NodeId, PluginHash};
use crate::wire::{Malformed, Reader, Writer};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;

/// Longest address.
pub(crate) const ADDRESS_BYTES_MAX: usize = 300;
/// Plugins of which a member says that it holds them.
pub(crate) const READY_MAX: usize = 1024;
/// Members of which one message or record tells.
pub(crate) const MEMBERS_MAX: usize = 4096;
const FORMAT: u8 = 1;

/// One boot of a member, as far as it is durable there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Its data directory.
    pub disk: DiskId,
    /// How many boots this node has had.
    pub boots: u64,
    /// Random for each boot.
    pub session: u64,
    /// Never goes down on one disk.
    pub tick: u64,
    /// Who issues its dots.
    pub actor: ActorId,
    /// Who did before, newest first.
    pub former_actors: Vec<ActorId>,
    /// Disks it had before, newest first.
    pub former_disks: Vec<DiskId>,
    /// Where peers find it.
    pub address: String,
}

/// All that a member says of itself, its heartbeat apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which member.
    pub node: NodeId,
    /// Raised with each change within a boot.
    pub revision: u64,
    /// Who it is.
    pub life: Life,
    /// What its catalog comes to.
    pub catalog: CatalogDigest,
    /// Plugins that it holds, compiled.
    pub ready: Vec<PluginHash>,
}

/// What an entry is, next to the one that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The same, or older: a message that was late.
    Stale,
    /// Newer, of the same boot or of the first one that is heard of.
    Newer,
    /// Booted again.
    Rebooted,
    /// On a disk that nobody has heard of.
    EmptyDisk,
    /// Older than what left it: the disk was rolled back. Not to be taken in.
    OldDisk,
}

impl Entry {
    /// Judges an entry of the same member against this one, which is known.
    pub(crate) fn judge(&self, theirs: &Entry) -> Verdict {
        let (mine, new) = (&self.life, &theirs.life);
        if mine.session == new.session {
            let newer = (new.boots, theirs.revision) > (mine.boots, self.revision);
            return if newer { Verdict::Newer } else { Verdict::Stale };
        }
        // An entry of an earlier boot may just be late; the member itself judges what it is.
        if new.boots < mine.boots {
            return Verdict::Stale;
        }
        if mine.former_disks.contains(&new.disk) {
            return Verdict::OldDisk;
        }
        match (new.disk == mine.disk, new.boots > mine.boots) {
            (true, true) if new.tick >= mine.tick => Verdict::Rebooted,
            (true, _) => Verdict::OldDisk,
            (false, true) => Verdict::EmptyDisk,
            (false, false) => Verdict::Stale,
        }
    }

    pub(crate) fn put(&self, b: &mut BytesMut) {
        b.put_u64(self.node.0);
        b.varint(self.revision);
        self.life.put(b);
        b.put_slice(&self.catalog.0);
        b.varint(self.ready.len() as u64);
        self.ready.iter().for_each(|hash| b.put_slice(&hash.0));
    }

    pub(crate) fn read(r: &mut Reader) -> Result<Entry, Malformed> {
        let node = NodeId(r.u64("member")?);
        let revision = r.varint("revision")?;
        let life = Life::read(r)?;
        let catalog = CatalogDigest(r.array("catalog digest")?);
        let count = r.count(32, "ready plugins")?;
        if count > READY_MAX {
            return Err(Malformed("ready plugins"));
        }
        let ready =
            (0..count).map(|_| Ok(PluginHash(r.array("plugin")?))).collect::<Result<_, Malformed>>()?;
        Ok(Entry { node, revision, life, catalog, ready })
    }
}

impl Life {
    fn put(&self, b: &mut BytesMut) {
        b.put_u64(self.disk.0);
        b.varint(self.boots);
        b.put_u64(self.session);
        b.varint(self.tick);
        b.put_u64(self.actor.0);
        b.varint(self.former_actors.len() as u64);
        self.former_actors.iter().for_each(|actor| b.put_u64(actor.0));
        b.varint(self.former_disks.len() as u64);
        self.former_disks.iter().for_each(|disk| b.put_u64(disk.0));
        b.bytes(self.address.as_bytes());
    }

    fn read(r: &mut Reader) -> Result<Life, Malformed> {
        let life = Life {
            disk: DiskId(r.u64("disk")?),
            boots: r.varint("boots")?,
            session: r.u64("session")?,
            tick: r.varint("tick")?,
            actor: ActorId(r.u64("actor")?),
            former_actors: boot::words(r, FORMER_ACTORS_MAX, "former actors")?
                .into_iter()
                .map(ActorId)
                .collect(),
            former_disks: boot::words(r, FORMER_DISKS_MAX, "former disks")?.into_iter().map(DiskId).collect(),
            address: r.string("address")?,
        };
        if life.address.len() > ADDRESS_BYTES_MAX {
            return Err(Malformed("address"));
        }
        Ok(life)
    }
}

/// What a node keeps of the others over its own boots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// What each said last, and for how long it has been down.
    pub(crate) members: BTreeMap<NodeId, (Entry, u64)>,
    /// Disks that may not come back.
    pub(crate) forgotten: BTreeMap<NodeId, DiskId>,
}

impl Remembered {
    pub(crate) fn encode(&self) -> Bytes {
        let mut b = BytesMut::new();
        b.put_u8(FORMAT);
        b.varint(self.members.len() as u64);
        for (entry, down_ms) in self.members.values() {
            entry.put(&mut b);
            b.varint(*down_ms);
        }
        put_forgotten(&mut b, &self.forgotten);
        b.freeze()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Remembered, Malformed> {
        let mut r = Reader::new(bytes);
        if r.u8("members format")? != FORMAT {
            return Err(Malformed("members format"));
        }
        let mut remembered = Remembered::default();
        for _ in 0..count(&mut r, 64)? {
            let entry = Entry::read(&mut r)?;
            let down_ms = r.varint("down")?;
            remembered.members.insert(entry.node, (entry, down_ms));
        }
        remembered.forgotten = read_forgotten(&mut r)?;
        r.end("members")?;
        Ok(remembered)
    }
}

pub(crate) fn put_forgotten(b: &mut BytesMut, forgotten: &BTreeMap<NodeId, DiskId>) {
    b.varint(forgotten.len() as u64);
    for (node, disk) in forgotten {
        b.put_u64(node.0);
        b.put_u64(disk.0);
    }
}

pub(crate) fn read_forgotten(r: &mut Reader) -> Result<BTreeMap<NodeId, DiskId>, Malformed> {
    (0..count(r, 16)?).map(|_| Ok((NodeId(r.u64("forgotten")?), DiskId(r.u64("forgotten")?)))).collect()
}

/// A count of things about members, of which each takes at least `bytes_each`.
pub(crate) fn count(r: &mut Reader, bytes_each: usize) -> Result<usize, Malformed> {
    let count = r.count(bytes_each, "members")?;
    if count > MEMBERS_MAX { Err(Malformed("members")) } else { Ok(count) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn entry(disk: u64, boots: u64, session: u64, tick: u64) -> Entry {
        let life = Life {
            disk: DiskId(disk),
            boots,
            session,
            tick,
            actor: ActorId(session),
            former_actors: vec![ActorId(3), ActorId(2)],
            former_disks: vec![DiskId(9)],
            address: "10.0.0.1:7401".into(),
        };
        let ready = vec![PluginHash([5; 32])];
        Entry { node: NodeId(4), revision: 2, life, catalog: CatalogDigest([1; 16]), ready }
    }

    #[test]
    fn what_a_member_says_is_told_from_what_it_said_before() {
        let known = entry(1, 10, 100, 50);
        let cases = [
            (entry(1, 10, 100, 50), Verdict::Stale, "the same"),
            (Entry { revision: 3, ..entry(1, 10, 100, 51) }, Verdict::Newer, "a change within a boot"),
            (Entry { revision: 1, ..entry(1, 10, 100, 50) }, Verdict::Stale, "a change that was late"),
            (entry(1, 11, 100, 50), Verdict::Newer, "counts on from the boots of a former disk"),
            (entry(1, 11, 101, 50), Verdict::Rebooted, "another boot"),
            (entry(1, 9, 99, 50), Verdict::Stale, "an earlier boot, late"),
            (entry(1, 10, 101, 50), Verdict::OldDisk, "two boots that count alike"),
            (entry(1, 11, 101, 49), Verdict::OldDisk, "an image from before the last tick"),
            (entry(2, 11, 101, 0), Verdict::EmptyDisk, "a disk that is new"),
            (entry(2, 1, 101, 0), Verdict::Stale, "a new disk that has not heard of its boots"),
            (entry(9, 12, 101, 0), Verdict::OldDisk, "a disk that was replaced"),
        ];
        for (new, verdict, what) in cases {
            assert_eq!(known.judge(&new), verdict, "{what}");
        }
    }

    #[test]
    fn what_is_remembered_comes_back_and_truncated_records_are_refused() {
        let remembered = Remembered {
            members: [(NodeId(4), (entry(1, 2, 3, 4), 77))].into(),
            forgotten: [(NodeId(5), DiskId(6))].into(),
        };
        let bytes = remembered.encode();
        assert_eq!(Remembered::decode(bytes.clone()), Ok(remembered));
        for length in 0..bytes.len() {
            assert!(Remembered::decode(bytes.slice(..length)).is_err());
        }
    }
}
