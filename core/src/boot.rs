//! Who a node is after a start (semantics §3): a new actor at every boot, unless a marker of a
//! clean shutdown proves the last counter that was issued, and the members vouch for the disk; and which disk it speaks for.
//!
//! ```text
//!   shell: read identity ─▶ begin ─▶ write and sync ─▶ Node::new ─▶ serve
//!   shell: stop serving, all writes done ─▶ Node::clean_marker ─▶ write and sync ─▶ exit
//! ```
//!
//! The marker is removed, synced, before anything is served. The record names the cluster and the node whose disk it is: a
//! directory that was copied or mounted at another node's place is refused before anybody speaks for it (R16). In: the
//! identity record, who this process is, random numbers. Out: an identity and the record to sync first, or why this disk is not
//! to be used. Absent: the disk; what becomes of the identity while the node runs (`identity`); whether the disk is an old
//! one, which the members know.

use crate::event::{Record, WriteOp};
use crate::id::{ActorId, DiskId};
use crate::storage_key;
use crate::wire::{Malformed, Reader, Writer};
use bytes::{BufMut, Bytes, BytesMut};

/// Former actors that are kept: the newest. An actor leaves the list much earlier, once no context names it
/// (see `fence::roll`); so many are there only where members are away for long and nothing can be retired.
pub const FORMER_ACTORS_MAX: usize = 1_024;
/// Former disks that are kept: the newest.
pub const FORMER_DISKS_MAX: usize = 32;
const FORMAT: u8 = 5;
/// As 5, without the owner and whether a refill is under way.
const FORMAT_4: u8 = 4;
/// As 4, without whether the actor was named.
const FORMAT_3: u8 = 3;
/// As 3, without what was collected.
const FORMAT_2: u8 = 2;
/// Bits of the marker: a clean shutdown; the actor was named.
const CLEAN: u8 = 1;
const NAMED: u8 = 2;
/// Longest name of a cluster or a node.
const NAME_BYTES_MAX: usize = 255;

/// Whose disk it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The cluster's name.
    pub cluster: String,
    /// The node's name.
    pub node: String,
}

/// Why a node must not be started on this disk. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotThisNodes {
    /// It is another node's, or another cluster's.
    #[error("its data is that of node {:?} of cluster {:?}", .0.node, .0.cluster)]
    Owner(Owner),
    /// A later release has written it.
    #[error("a later release has written it (identity format {format}, this release knows up to {FORMAT})")]
    Later {
        /// Of the record.
        format: u8,
    },
}

/// An actor and the last counter it issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// Random.
    pub actor: ActorId,
    /// 0: none yet.
    pub issued: u64,
}

/// Who a node is, as its disk knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whose disk this is.
    pub owner: Owner,
    /// Drawn when the data directory was made.
    pub disk: DiskId,
    /// This boot is the node's so-manieth, those on former disks included once a member has told of them.
    pub boots: u64,
    /// Raised now and then, so that an image of this disk that comes back is found to be older.
    pub tick: u64,
    /// Who issues dots.
    pub incarnation: Incarnation,
    /// Contexts may name the actor: set, durably, before its first dot of a key that has a context. Only such an actor
    /// is listed as a former one, so that a node that crashes at each start lists nothing.
    pub named: bool,
    /// It was taken up from a clean marker: another boot, from a copy of the disk, may have done so too.
    pub resumed: bool,
    /// The highest counter of it that a collected key may have had: whoever still names such dots, and finds nothing
    /// here, has found no lost memory.
    pub collected: u64,
    /// Actors that this node was before and never will be again, newest first.
    pub former_actors: Vec<ActorId>,
    /// Disks that this node had before, newest first.
    pub former_disks: Vec<DiskId>,
    /// This disk came after another one, and was not yet proven equal to the other replicas (R17).
    pub refilling: bool,
}

impl Identity {
    /// That of a node's first boot on a new disk.
    pub fn first(owner: Owner, actor: ActorId, disk: DiskId) -> Identity {
        let incarnation = Incarnation { actor, issued: 0 };
        let (former_actors, former_disks) = (Vec::new(), Vec::new());
        let (named, resumed, collected, refilling) = (false, false, 0, false);
        Identity {
            owner,
            disk,
            boots: 1,
            tick: 0,
            incarnation,
            named,
            resumed,
            collected,
            former_actors,
            former_disks,
            refilling,
        }
    }

    /// From now on another actor; the one before never issues a dot again.
    pub fn renew(&mut self, actor: ActorId) {
        if self.named {
            add(&mut self.former_actors, [self.incarnation.actor], FORMER_ACTORS_MAX);
        }
        (self.incarnation, self.named) = (Incarnation { actor, issued: 0 }, false);
        (self.resumed, self.collected) = (false, 0);
    }

    /// The write that makes it durable; `clean` only as the very last of a shutdown.
    pub fn op(&self, clean: bool) -> WriteOp {
        let mut head = BytesMut::new();
        head.put_u8(FORMAT);
        head.put_u64(self.incarnation.actor.0);
        head.put_u8(if clean { CLEAN } else { 0 } | if self.named { NAMED } else { 0 });
        head.varint(if clean { self.incarnation.issued } else { 0 });
        head.varint(if clean { self.collected } else { 0 });
        head.put_u64(self.disk.0);
        head.varint(self.boots);
        head.varint(self.tick);
        head.varint(self.former_actors.len() as u64);
        self.former_actors.iter().for_each(|actor| head.put_u64(actor.0));
        head.varint(self.former_disks.len() as u64);
        self.former_disks.iter().for_each(|disk| head.put_u64(disk.0));
        head.put_u8(u8::from(self.refilling));
        head.bytes(self.owner.cluster.as_bytes());
        head.bytes(self.owner.node.as_bytes());
        WriteOp::Put {
            key: storage_key::identity(),
            record: Record { head: head.freeze(), body: Bytes::new() },
        }
    }
}

/// The identity to serve as, and what must be durable before: with a clean marker the same actor
/// goes on, if the members vouch for it later; without one `fresh_actor` begins. Without a record, or with one that does not decode,
/// the disk is a new one: `fresh_disk`. A record of a release that wrote no owner is taken for `owner`'s.
pub fn begin(
    identity: Option<&Record>,
    owner: &Owner,
    fresh_actor: u64,
    fresh_disk: u64,
) -> Result<(Identity, WriteOp), NotThisNodes> {
    if let Some(format) = identity.and_then(|record| record.head.first().copied()).filter(|it| *it > FORMAT) {
        return Err(NotThisNodes::Later { format });
    }
    let identity = match identity.and_then(|record| decode(record, owner).ok()) {
        Some((identity, _)) if identity.owner != *owner => {
            return Err(NotThisNodes::Owner(identity.owner));
        }
        Some((mut identity, clean)) => {
            identity.boots = identity.boots.saturating_add(1);
            if !clean {
                identity.renew(ActorId(fresh_actor));
            }
            identity
        }
        None => Identity::first(owner.clone(), ActorId(fresh_actor), DiskId(fresh_disk)),
    };
    let op = identity.op(false);
    Ok((identity, op))
}

/// Puts `newer` in front of `list`, each once, and keeps the newest `max`.
pub(crate) fn add<T: PartialEq + Copy>(
    list: &mut Vec<T>,
    newer: impl IntoIterator<Item = T, IntoIter: DoubleEndedIterator>,
    max: usize,
) {
    for item in newer.into_iter().rev() {
        list.retain(|other| *other != item);
        list.insert(0, item);
    }
    list.truncate(max);
}

fn decode(record: &Record, owner: &Owner) -> Result<(Identity, bool), Malformed> {
    let mut r = Reader::new(record.head.clone());
    let format = r.u8("identity format")?;
    if !matches!(format, FORMAT | FORMAT_4 | FORMAT_3 | FORMAT_2) {
        return Err(Malformed("identity format"));
    }
    let actor = ActorId(r.u64("identity actor")?);
    let marker = r.u8("identity marker")?;
    let (clean, known) = (marker & CLEAN != 0, if format >= FORMAT_4 { CLEAN | NAMED } else { CLEAN });
    if marker & !known != 0 {
        return Err(Malformed("identity marker"));
    }
    let issued = r.varint("identity counter")?;
    let collected = if format == FORMAT_2 { 0 } else { r.varint("identity collected")? };
    let mut identity = Identity {
        owner: owner.clone(),
        incarnation: Incarnation { actor, issued },
        // An actor of an older format may have been.
        named: format < FORMAT_4 || marker & NAMED != 0,
        resumed: clean,
        collected,
        disk: DiskId(r.u64("identity disk")?),
        boots: r.varint("identity boots")?,
        tick: r.varint("identity tick")?,
        former_actors: words(&mut r, FORMER_ACTORS_MAX, "former actors")?.into_iter().map(ActorId).collect(),
        former_disks: words(&mut r, FORMER_DISKS_MAX, "former disks")?.into_iter().map(DiskId).collect(),
        refilling: false,
    };
    if format == FORMAT {
        identity.refilling = match r.u8("identity refill")? {
            0 => false,
            1 => true,
            _ => return Err(Malformed("identity refill")),
        };
        identity.owner = Owner { cluster: name(&mut r)?, node: name(&mut r)? };
    }
    r.end("identity")?;
    Ok((identity, clean))
}

fn name(r: &mut Reader) -> Result<String, Malformed> {
    r.string("identity owner").and_then(|name| match name.len() <= NAME_BYTES_MAX {
        true => Ok(name),
        false => Err(Malformed("identity owner")),
    })
}

/// At most `max` words after their count.
pub(crate) fn words(r: &mut Reader, max: usize, what: &'static str) -> Result<Vec<u64>, Malformed> {
    let count = r.count(8, what)?;
    if count > max {
        return Err(Malformed(what));
    }
    (0..count).map(|_| r.u64(what)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the refill and the owner.
    const NAMES_BYTES: usize = 1 + 5 + 2;

    fn owner() -> Owner {
        Owner { cluster: "shop".into(), node: "a".into() }
    }

    fn begun(record: Option<&Record>, actor: u64, disk: u64) -> (Identity, WriteOp) {
        begin(record, &owner(), actor, disk).expect("the disk is this node's")
    }

    fn stored(op: WriteOp) -> Record {
        match op {
            WriteOp::Put { record, .. } => record,
            _ => unreachable!("an identity is put"),
        }
    }

    #[test]
    fn an_actor_goes_on_only_after_a_clean_marker_and_only_once() {
        let (mut first, _) = begun(None, 11, 7);
        assert_eq!(first, Identity::first(owner(), ActorId(11), DiskId(7)));
        first.named = true;
        let (crashed, _) = begun(Some(&stored(first.op(false))), 12, 8);
        assert_eq!((crashed.incarnation.actor, &crashed.former_actors), (ActorId(12), &vec![ActorId(11)]));

        (first.incarnation.issued, first.collected) = (40, 30);
        let (resumed, op) = begun(Some(&stored(first.op(true))), 13, 8);
        assert_eq!(resumed.incarnation, Incarnation { actor: ActorId(11), issued: 40 });
        assert_eq!(resumed.collected, 30);
        assert!(resumed.former_actors.is_empty());
        let (crashed, _) = begun(Some(&stored(op)), 14, 8);
        assert_eq!(
            (crashed.incarnation, crashed.collected),
            (Incarnation { actor: ActorId(14), issued: 0 }, 0)
        );
    }

    #[test]
    fn a_disk_keeps_its_name_and_counts_its_boots() {
        let (mut identity, mut op) = begun(None, 1, 7);
        assert_eq!(identity.boots, 1);
        for boot in 2..=100 {
            (identity, op) = begun(Some(&stored(op)), boot, 900 + boot);
            assert_eq!((identity.disk, identity.boots), (DiskId(7), boot));
        }
    }

    #[test]
    fn a_disk_at_another_nodes_or_another_clusters_place_is_refused_and_one_of_before_owners_is_taken_over() {
        let (first, op) = begun(None, 11, 7);
        let record = stored(op);
        for (cluster, node) in [("shop", "b"), ("staging", "a")] {
            let other = Owner { cluster: cluster.into(), node: node.into() };
            assert_eq!(begin(Some(&record), &other, 12, 8), Err(NotThisNodes::Owner(owner())));
        }
        let names = record.head.len() - NAMES_BYTES;
        let old = [&[FORMAT_4], &record.head[1..names]].concat();
        let (taken, op) = begun(Some(&Record { head: Bytes::from(old), body: Bytes::new() }), 12, 8);
        assert_eq!((taken.disk, &taken.owner), (first.disk, &owner()));
        assert_eq!(stored(op).head[0], FORMAT);
        let mut later = record.head.to_vec();
        later[0] = FORMAT + 1;
        let later = Record { head: Bytes::from(later), body: Bytes::new() };
        assert_eq!(begin(Some(&later), &owner(), 12, 8), Err(NotThisNodes::Later { format: FORMAT + 1 }));
    }

    #[test]
    fn only_actors_that_contexts_may_name_are_listed_however_often_a_node_crashes() {
        let (mut identity, mut op) = begun(None, 1, 7);
        for boot in 2..1_000 {
            if boot % 100 == 0 {
                identity.named = true;
                op = identity.op(false);
            }
            (identity, op) = begun(Some(&stored(op)), boot, 7);
        }
        assert_eq!(identity.boots, 999);
        let named: Vec<u64> = identity.former_actors.iter().map(|actor| actor.0).collect();
        assert_eq!(named, [899, 799, 699, 599, 499, 399, 299, 199, 99]);
        identity.renew(ActorId(5_000));
        assert_eq!(identity.former_actors.len(), 9, "nor is one that was renewed unused");
        assert!(stored(identity.op(false)).head.len() < 200);
    }

    #[test]
    fn identities_of_formats_2_and_3_are_read_and_their_actors_may_be_named() {
        let (mut first, _) = begun(None, 11, 7);
        first.incarnation.issued = 40;
        let head = stored(first.op(true)).head;
        // The format, then, after actor, marker and counter, the byte that came with format 3.
        let names = head.len() - NAMES_BYTES;
        let of_2 = [&[FORMAT_2], &head[1..11], &head[12..names]].concat();
        let of_3 = [&[FORMAT_3], &head[1..names]].concat();
        for old in [of_2, of_3] {
            let (resumed, _) = begun(Some(&Record { head: Bytes::from(old), body: Bytes::new() }), 13, 8);
            assert_eq!(
                (resumed.incarnation, resumed.disk, resumed.boots),
                (first.incarnation, first.disk, 2)
            );
            assert!(resumed.named);
        }
    }

    #[test]
    fn a_damaged_identity_is_a_new_actor_on_a_new_disk() {
        let damaged = Record { head: Bytes::from_static(b"\x01\x02"), body: Bytes::new() };
        assert_eq!(begun(Some(&damaged), 9, 3).0, Identity::first(owner(), ActorId(9), DiskId(3)));
        let whole = stored(Identity::first(owner(), ActorId(1), DiskId(2)).op(true)).head;
        for length in 0..whole.len() {
            assert!(decode(&Record { head: whole.slice(..length), body: Bytes::new() }, &owner()).is_err());
        }
    }
}
