//! The bytes of a state: on disk as a record (head and body apart), between nodes as one buffer.
//!
//! ```text
//!   head  format 1 │ kind │ …                       clock and metadata, no values
//!     causal   dots seen │ count │ per sibling: dot, version-head │ requests done?
//!     lww      0 or 1 │ dot, version-head
//!     lattice  epoch │ dots removed │ stamp │ count │ per fragment: claim, standing, length, value digest
//!   version-head  flags │ stamp │ length or "as sibling i" │ value digest │ type? │ request? │ receipt?
//!                 │ expires at?
//!   requests done  count │ per request of a replaced version: stamp, dot, request
//!   body  the values one after another
//! ```
//!
//! So a clock is read without its values. Byte-equal siblings share one copy and keep all their
//! dots (R1). In: states, or bytes of a disk or peer, never trusted. Out: the other. Absent:
//! compression and checksums, which are storage's.

use super::context::{put_dots, read_dots, read_stamp};
use super::done::{DONE_MAX, Done, DoneSet};
use super::{
    Content, Digest, DotSet, Fragment, Fragments, KeyState, Kind, Receipt, Register, Siblings, Stamp,
    Standing, Version,
};
use crate::event::Record;
use crate::id::{ActorId, Dot, Millis, PluginHash, RequestId};
use crate::wire::{Malformed, Reader, Writer};
use bytes::{BufMut, Bytes, BytesMut};

const FORMAT: u8 = 1;
const CAUSAL: u8 = 1;
const LWW: u8 = 2;
const LATTICE: u8 = 3;

const TOMBSTONE: u8 = 1;
const SHARED: u8 = 2;
const TYPED: u8 = 4;
const REQUESTED: u8 = 8;
const RECEIPT: u8 = 16;
const EXPIRES: u8 = 32;

const UNVALIDATED: u8 = 0;
const VALID: u8 = 1;
const ASIDE: u8 = 2;

/// Bytes of a value's digest in the head: BLAKE3, cut. The scrub compares them (R10).
const VALUE_DIGEST_BYTES: usize = 16;

/// The record of a state.
pub fn record(state: &KeyState) -> Record {
    let mut head = BytesMut::with_capacity(128);
    let mut values: Vec<Bytes> = Vec::new();
    head.put_u8(FORMAT);
    match state {
        KeyState::Causal(siblings) => {
            head.put_u8(CAUSAL);
            put_dots(&mut head, siblings.seen());
            head.varint(siblings.len() as u64);
            for ((dot, version), (place, first)) in
                siblings.iter().zip(siblings.firsts().into_iter().enumerate())
            {
                let shared = (first < place).then_some(first);
                put_version(&mut head, &mut values, *dot, version, shared);
            }
            put_done(&mut head, siblings.done());
        }
        KeyState::Lww(register) => {
            head.put_u8(LWW);
            head.put_u8(u8::from(register.winner.is_some()));
            if let Some((dot, version)) = &register.winner {
                put_version(&mut head, &mut values, *dot, version, None);
            }
        }
        KeyState::Lattice(fragments) => {
            head.put_u8(LATTICE);
            head.varint(fragments.epoch);
            put_dots(&mut head, &fragments.removed);
            put_stamp(&mut head, fragments.stamp);
            head.varint(fragments.len() as u64);
            for fragment in fragments.iter() {
                put_dots(&mut head, &fragment.claim);
                put_standing(&mut head, &fragment.standing);
                head.varint(fragment.value.len() as u64);
                head.put_slice(&value_digest(&fragment.value));
                values.push(fragment.value.clone());
            }
        }
    }
    let body = match values.len() {
        0 => Bytes::new(),
        // One value, the usual case, is not copied.
        1 => values.remove(0),
        _ => {
            let mut body = BytesMut::with_capacity(values.iter().map(Bytes::len).sum());
            values.iter().for_each(|value| body.put_slice(value));
            body.freeze()
        }
    };
    Record { head: head.freeze(), body }
}

/// The state of a record of a disk or peer.
pub fn state(record: &Record) -> Result<KeyState, Malformed> {
    let mut values = Values::Of(Reader::new(record.body.clone()));
    let state = read_state(&record.head, &mut values)?;
    if let Values::Of(body) = values {
        body.end("state body")?;
    }
    Ok(state)
}

/// The state of a record's head alone: every value is empty, all else is as it is, the digest too.
pub fn outline(head: &Bytes) -> Result<KeyState, Malformed> {
    read_state(head, &mut Values::Empty)
}

/// What the values of two records' join come to, of their heads alone.
pub fn joined_bytes(mine: &Bytes, theirs: &Bytes) -> Result<u64, Malformed> {
    let mut joined = read_state(mine, &mut Values::Sizes)?;
    let _ = joined.sync(&read_state(theirs, &mut Values::Sizes)?);
    let size = |stub: &Bytes| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&stub[..8]);
        u64::from_be_bytes(bytes)
    };
    Ok(match &joined {
        KeyState::Causal(siblings) => {
            let values: std::collections::BTreeSet<&Bytes> =
                siblings.iter().filter_map(|(_, version)| version.content.value()).collect();
            values.into_iter().map(size).sum()
        }
        KeyState::Lww(register) => {
            register.winner.iter().filter_map(|(_, version)| version.content.value()).map(size).sum()
        }
        KeyState::Lattice(fragments) => fragments.iter().map(|fragment| size(&fragment.value)).sum(),
    })
}

/// Where the values of a head come from.
enum Values {
    Of(Reader),
    /// Nowhere.
    Empty,
    /// Each is its length and its digest.
    Sizes,
}

/// Whether a record's values are those that the digests in its head are of.
pub fn is_sound(record: &Record) -> bool {
    state(record).is_ok_and(|state| self::record(&state).head == record.head)
}

/// The digest of what is stored, of the head alone: values by their own digests, and all that was said of them.
/// None where replicas may store the same in different ways: values that expire, whose bytes each lets go by its own clock,
/// and lattice states that are joined here and in fragments there.
pub fn content_digest(head: &Bytes) -> Result<Option<Digest>, Malformed> {
    let state = outline(head)?;
    let comparable = match &state {
        KeyState::Causal(siblings) => siblings.iter().all(|(_, version)| version.expires_at.is_none()),
        KeyState::Lww(register) => register.winner.iter().all(|(_, version)| version.expires_at.is_none()),
        KeyState::Lattice(fragments) => fragments.len() == 1 && fragments.unjoined().next().is_none(),
    };
    if !comparable {
        return Ok(None);
    }
    let said = match &state {
        // Its value's digest comes last; before it are what the causal digest has, and a stamp that depends on the way.
        KeyState::Lattice(_) => &head[head.len() - VALUE_DIGEST_BYTES..],
        // Which replaced versions a replica has met depends on the way, too.
        KeyState::Causal(siblings) => {
            let mut done = BytesMut::new();
            put_done(&mut done, siblings.done());
            &head[..head.len() - done.len()]
        }
        KeyState::Lww(_) => &head[..],
    };
    let mut digest = [0; 16];
    digest.copy_from_slice(&blake3::hash(said).as_bytes()[..16]);
    Ok(Some(Digest(digest)))
}

fn read_state(head: &Bytes, values: &mut Values) -> Result<KeyState, Malformed> {
    let mut head = Reader::new(head.clone());
    if head.u8("state format")? != FORMAT {
        return Err(Malformed("state format"));
    }
    let state = match head.u8("state kind")? {
        CAUSAL => {
            let seen = read_dots(&mut head)?;
            let count = head.count(12, "siblings")?;
            let mut versions: Vec<(Dot, Version)> = Vec::with_capacity(count);
            for _ in 0..count {
                let entry = read_version(&mut head, values, &versions)?;
                versions.push(entry);
            }
            let siblings = Siblings::from_parts(seen, versions).ok_or(Malformed("sibling order"))?;
            KeyState::Causal(siblings.with_done(read_done(&mut head)?))
        }
        LWW => KeyState::Lww(match head.u8("register")? {
            0 => Register::default(),
            1 => Register { winner: Some(read_version(&mut head, values, &[])?) },
            _ => return Err(Malformed("register")),
        }),
        LATTICE => {
            let epoch = head.varint("epoch")?;
            let removed = read_dots(&mut head)?;
            let stamp = read_stamp(&mut head)?;
            let count = head.count(4, "fragments")?;
            let mut fragments = Vec::with_capacity(count);
            for _ in 0..count {
                let claim = read_dots(&mut head)?;
                let standing = read_standing(&mut head)?;
                let value = read_value(&mut head, values)?;
                fragments.push(Fragment { claim, value, standing });
            }
            KeyState::Lattice(
                Fragments::from_parts(epoch, removed, stamp, fragments).ok_or(Malformed("fragment order"))?,
            )
        }
        _ => return Err(Malformed("state kind")),
    };
    head.end("state head")?;
    Ok(state)
}

/// The kind of state that a head belongs to.
pub fn kind(head: &[u8]) -> Result<Kind, Malformed> {
    match head {
        [FORMAT, CAUSAL, ..] => Ok(Kind::Causal),
        [FORMAT, LWW, ..] => Ok(Kind::Lww),
        [FORMAT, LATTICE, ..] => Ok(Kind::Lattice),
        _ => Err(Malformed("state kind")),
    }
}

/// Appends a record as one run of bytes.
pub fn put_record(buffer: &mut BytesMut, record: &Record) {
    buffer.bytes(&record.head);
    buffer.bytes(&record.body);
}

/// Reads what [`put_record`] wrote, sharing the input's bytes.
pub fn read_record(reader: &mut Reader) -> Result<Record, Malformed> {
    Ok(Record { head: reader.bytes("record head")?, body: reader.bytes("record body")? })
}

/// See [`Digest`]: context, live dots and what kind each is; no stamps of clients, no values.
pub fn digest(state: &KeyState) -> Digest {
    let mut buffer = BytesMut::with_capacity(128);
    match state {
        KeyState::Causal(siblings) => {
            buffer.put_u8(CAUSAL);
            put_dots(&mut buffer, siblings.seen());
            for (dot, version) in siblings.iter() {
                put_dot(&mut buffer, *dot);
                put_causality(&mut buffer, version);
            }
        }
        KeyState::Lww(register) => {
            buffer.put_u8(LWW);
            if let Some((dot, version)) = &register.winner {
                put_dot(&mut buffer, *dot);
                put_stamp(&mut buffer, version.stamp);
                put_causality(&mut buffer, version);
            }
        }
        // Merged here and fragments there is equal: what was seen and what was removed decide.
        KeyState::Lattice(fragments) => {
            buffer.put_u8(LATTICE);
            buffer.varint(fragments.epoch);
            put_dots(&mut buffer, &fragments.removed);
            put_dots(&mut buffer, &DotSet::union(fragments.valid().map(|fragment| &fragment.claim)));
            // What is joined with nothing is shown as such, so it differs from what is joined.
            for fragment in fragments.unjoined() {
                put_dots(&mut buffer, &fragment.claim);
                put_standing(&mut buffer, &fragment.standing);
            }
        }
    }
    let mut digest = [0; 16];
    digest.copy_from_slice(&blake3::hash(&buffer).as_bytes()[..16]);
    Digest(digest)
}

/// A delete, a value, or one that expires, whether or not its bytes are still there.
fn put_causality(buffer: &mut BytesMut, version: &Version) {
    match version.expires_at {
        Some(at) => {
            buffer.put_u8(2);
            buffer.varint(at.0);
        }
        None => buffer.put_u8(u8::from(version.content == Content::Tombstone)),
    }
}

/// The end of a head, if there is any.
fn put_done(head: &mut BytesMut, done: &DoneSet) {
    if done.iter().len() == 0 {
        return;
    }
    head.varint(done.iter().len() as u64);
    for Done { stamp, dot, request } in done.iter() {
        put_stamp(head, *stamp);
        put_dot(head, *dot);
        head.put_slice(&request.0);
    }
}

fn read_done(head: &mut Reader) -> Result<DoneSet, Malformed> {
    if head.remaining() == 0 {
        return Ok(DoneSet::default());
    }
    let count = head.count(27, "requests done")?;
    if count == 0 || count > DONE_MAX {
        return Err(Malformed("requests done"));
    }
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let (stamp, dot) = (read_stamp(head)?, read_dot(head)?);
        entries.push(Done { stamp, dot, request: RequestId(head.array("request done")?) });
    }
    DoneSet::from_parts(entries).ok_or(Malformed("order of requests done"))
}

fn value_digest(value: &[u8]) -> [u8; VALUE_DIGEST_BYTES] {
    let mut digest = [0; VALUE_DIGEST_BYTES];
    digest.copy_from_slice(&blake3::hash(value).as_bytes()[..VALUE_DIGEST_BYTES]);
    digest
}

pub(crate) fn put_dot(buffer: &mut BytesMut, dot: Dot) {
    buffer.put_u64(dot.actor.0);
    buffer.varint(dot.counter);
}

pub(crate) fn read_dot(reader: &mut Reader) -> Result<Dot, Malformed> {
    let dot = Dot { actor: ActorId(reader.u64("dot")?), counter: reader.varint("dot")? };
    if dot.counter == 0 { Err(Malformed("dot")) } else { Ok(dot) }
}

pub(crate) fn put_stamp(buffer: &mut BytesMut, stamp: Stamp) {
    buffer.varint(stamp.millis);
    buffer.varint(u64::from(stamp.logical));
}

fn put_version(
    head: &mut BytesMut,
    values: &mut Vec<Bytes>,
    dot: Dot,
    version: &Version,
    shared: Option<usize>,
) {
    put_dot(head, dot);
    let shared = shared.filter(|_| version.content.size_bytes() > 0);
    let mut flags = 0;
    flags |= if version.content == Content::Tombstone { TOMBSTONE } else { 0 };
    flags |= if shared.is_some() { SHARED } else { 0 };
    flags |= if version.content_type.is_some() { TYPED } else { 0 };
    flags |= if version.request_id.is_some() { REQUESTED } else { 0 };
    flags |= if version.receipt.is_some() { RECEIPT } else { 0 };
    flags |= if version.expires_at.is_some() { EXPIRES } else { 0 };
    head.put_u8(flags);
    put_stamp(head, version.stamp);
    match (&version.content, shared) {
        (_, Some(index)) => head.varint(index as u64),
        (Content::Value(value), None) => {
            head.varint(value.len() as u64);
            head.put_slice(&value_digest(value));
            values.push(value.clone());
        }
        (Content::Tombstone, None) => {}
    }
    if let Some(content_type) = &version.content_type {
        head.bytes(content_type);
    }
    if let Some(request) = version.request_id {
        head.put_slice(&request.0);
    }
    if let Some(receipt) = &version.receipt {
        put_receipt(head, receipt);
    }
    if let Some(at) = version.expires_at {
        head.varint(at.0);
    }
}

fn put_standing(head: &mut BytesMut, standing: &Standing) {
    match (standing.is_valid(), standing.reason()) {
        (true, _) => {
            head.put_u8(VALID);
            head.varint(standing.epoch());
        }
        (false, Some(reason)) => {
            head.put_u8(ASIDE);
            head.varint(standing.epoch());
            head.bytes(reason.as_bytes());
        }
        (false, None) => head.put_u8(UNVALIDATED),
    }
}

fn read_standing(head: &mut Reader) -> Result<Standing, Malformed> {
    match head.u8("standing")? {
        UNVALIDATED => Ok(Standing::UNVALIDATED),
        VALID => Ok(Standing::valid(head.varint("epoch of a standing")?)),
        ASIDE => {
            let epoch = head.varint("epoch of a standing")?;
            let reason = head.string("reason of a standing")?;
            let standing = Standing::aside(epoch, &reason);
            // Longer, or with characters that this node would not have kept: not what a node writes.
            if standing.reason() == Some(&reason) {
                Ok(standing)
            } else {
                Err(Malformed("reason of a standing"))
            }
        }
        _ => Err(Malformed("standing")),
    }
}

fn read_value(head: &mut Reader, values: &mut Values) -> Result<Bytes, Malformed> {
    let length = usize::try_from(head.varint("value length")?).map_err(|_| Malformed("value length"))?;
    let digest: [u8; VALUE_DIGEST_BYTES] = head.array("value digest")?;
    match values {
        Values::Of(body) => body.take(length, "value"),
        Values::Empty => Ok(Bytes::new()),
        Values::Sizes => Ok(Bytes::from([&(length as u64).to_be_bytes()[..], &digest[..]].concat())),
    }
}

fn read_version(
    head: &mut Reader,
    values: &mut Values,
    earlier: &[(Dot, Version)],
) -> Result<(Dot, Version), Malformed> {
    let dot = read_dot(head)?;
    let flags = head.u8("version flags")?;
    if flags & !(TOMBSTONE | SHARED | TYPED | REQUESTED | RECEIPT | EXPIRES) != 0 {
        return Err(Malformed("version flags"));
    }
    let stamp = read_stamp(head)?;
    let content = if flags & TOMBSTONE != 0 {
        Content::Tombstone
    } else if flags & SHARED != 0 {
        let index = usize::try_from(head.varint("shared value")?).map_err(|_| Malformed("shared value"))?;
        earlier.get(index).ok_or(Malformed("shared value"))?.1.content.clone()
    } else {
        Content::Value(read_value(head, values)?)
    };
    let content_type = if flags & TYPED != 0 { Some(head.bytes("content type")?) } else { None };
    let request_id = if flags & REQUESTED != 0 { Some(RequestId(head.array("request id")?)) } else { None };
    let receipt = if flags & RECEIPT != 0 { Some(read_receipt(head)?) } else { None };
    let expires_at = if flags & EXPIRES != 0 { Some(Millis(head.varint("expiry")?)) } else { None };
    Ok((dot, Version { content, stamp, content_type, request_id, receipt, expires_at }))
}

pub(crate) fn put_receipt(buffer: &mut BytesMut, receipt: &Receipt) {
    buffer.varint(receipt.merged_from.len() as u64);
    receipt.merged_from.iter().for_each(|dot| put_dot(buffer, *dot));
    buffer.put_slice(&receipt.plugin.0);
    buffer.varint(receipt.epoch);
    buffer.varint(u64::from(receipt.generation));
}

pub(crate) fn read_receipt(head: &mut Reader) -> Result<Receipt, Malformed> {
    let count = head.count(9, "receipt")?;
    let mut merged_from = Vec::with_capacity(count);
    for _ in 0..count {
        merged_from.push(read_dot(head)?);
    }
    Ok(Receipt {
        merged_from,
        plugin: PluginHash(head.array("receipt plugin")?),
        epoch: head.varint("receipt epoch")?,
        generation: u32::try_from(head.varint("receipt generation")?).map_err(|_| Malformed("receipt"))?,
    })
}
