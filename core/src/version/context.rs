//! The token that a client carries from a read or write to its next write: opaque, bounded, and
//! sealed so that it cannot be made up (semantics §7).
//!
//! ```text
//!   version 1 │ flags │ spans: actor 8 B, after, length … │ stamp? │ seal 16 B
//! ```
//!
//! The seal is BLAKE3 keyed with a key derived from the cluster's secret, over keyspace, key and
//! the bytes before it: a token of another key, keyspace or cluster does not open. In: what was
//! seen. Out: bytes, and back. Absent: encryption; what a token says is no secret.

use super::fill::squeezed;
use super::{DotSet, KeyState, Kind, Span, Stamp};
use crate::id::{ActorId, KeyspaceId};
use crate::request::Problem;
use crate::wire::{Malformed, Reader, Writer};
use bytes::{BufMut, Bytes, BytesMut};

/// Spans of a token. A state may have more; then its tokens leave some out (see `fill`).
pub const SPANS_MAX: usize = 2_048;
/// Longest token in bytes: of as many spans, each as long as it gets. What this store hands out it takes back.
pub const CONTEXT_BYTES_MAX: usize = 64 << 10;
/// From this many spans on an operator is told.
pub const SPANS_ALARM: usize = 32;
/// An actor and two varints.
const SPAN_BYTES_MAX: usize = 8 + 10 + 10;
const _: () = assert!(2 + 3 + SPANS_MAX * SPAN_BYTES_MAX + 15 + SEAL_BYTES <= CONTEXT_BYTES_MAX);
const FORMAT: u8 = 1;
const HAS_STAMP: u8 = 1;
const SEAL_BYTES: usize = 16;

/// What a client has seen of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The dots.
    pub seen: DotSet,
    /// The highest stamp, in `lww` keyspaces: a write made after a read beats what was read.
    pub stamp: Option<Stamp>,
}

impl Context {
    /// What whoever has seen `seen` of `state` is told, in at most [`SPANS_MAX`] spans.
    pub fn of(seen: &DotSet, state: &KeyState) -> Context {
        let seen = squeezed(seen, state.live_dots().into_iter(), SPANS_MAX);
        let stamp = (state.kind() == Kind::Lww).then(|| state.stamp());
        Context { seen, stamp }
    }
}

/// Makes and opens tokens of one cluster.
#[derive(Clone)]
pub struct Sealer {
    key: [u8; 32],
}

impl Sealer {
    /// With the cluster's secret.
    pub fn new(cluster_secret: &[u8]) -> Sealer {
        Sealer { key: blake3::derive_key("merganser 2026-11 context seal v1", cluster_secret) }
    }

    /// The token for `context` of this key.
    pub fn seal(&self, keyspace: KeyspaceId, key: &[u8], context: &Context) -> Bytes {
        assert!(context.seen.spans().len() <= SPANS_MAX, "what is handed out is taken back");
        let mut token = BytesMut::with_capacity(2 + context.seen.spans().len() * 14 + 12 + SEAL_BYTES);
        token.put_u8(FORMAT);
        token.put_u8(if context.stamp.is_some() { HAS_STAMP } else { 0 });
        put_dots(&mut token, &context.seen);
        if let Some(stamp) = context.stamp {
            token.varint(stamp.millis);
            token.varint(u64::from(stamp.logical));
        }
        let mac = self.mac(keyspace, key, &token);
        token.put_slice(&mac);
        token.freeze()
    }

    /// What the token says, if it is one of this key.
    pub fn open(&self, keyspace: KeyspaceId, key: &[u8], token: &Bytes) -> Result<Context, Problem> {
        if token.len() > CONTEXT_BYTES_MAX {
            return Err(Problem::TooLarge {
                what: "context",
                size_bytes: token.len() as u64,
                limit_bytes: CONTEXT_BYTES_MAX as u64,
            });
        }
        if token.len() < 2 + SEAL_BYTES || token[0] != FORMAT {
            return Err(Problem::InvalidContext { forged: false });
        }
        let body = token.slice(..token.len() - SEAL_BYTES);
        let mut seal = [0; SEAL_BYTES];
        seal.copy_from_slice(&token[body.len()..]);
        // blake3::Hash compares in constant time; pad both to its length.
        if padded(self.mac(keyspace, key, &body)) != padded(seal) {
            return Err(Problem::InvalidContext { forged: true });
        }
        decode(body).map_err(|_| Problem::InvalidContext { forged: false })
    }

    fn mac(&self, keyspace: KeyspaceId, key: &[u8], body: &[u8]) -> [u8; SEAL_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&keyspace.0.to_be_bytes());
        hasher.update(&(key.len() as u64).to_be_bytes());
        hasher.update(key);
        hasher.update(body);
        let mut mac = [0; SEAL_BYTES];
        mac.copy_from_slice(&hasher.finalize().as_bytes()[..SEAL_BYTES]);
        mac
    }
}

fn padded(mac: [u8; SEAL_BYTES]) -> blake3::Hash {
    let mut bytes = [0; 32];
    bytes[..SEAL_BYTES].copy_from_slice(&mac);
    blake3::Hash::from_bytes(bytes)
}

fn decode(body: Bytes) -> Result<Context, Malformed> {
    let mut reader = Reader::new(body);
    reader.u8("context format")?;
    let flags = reader.u8("context flags")?;
    let seen = read_dots(&mut reader)?;
    let stamp = if flags & HAS_STAMP != 0 { Some(read_stamp(&mut reader)?) } else { None };
    reader.end("context")?;
    Ok(Context { seen, stamp })
}

/// The encoding of a set of dots, shared with states.
pub(crate) fn put_dots(buffer: &mut BytesMut, dots: &DotSet) {
    buffer.varint(dots.spans().len() as u64);
    for span in dots.spans() {
        buffer.put_u64(span.actor.0);
        buffer.varint(span.after);
        buffer.varint(span.upto - span.after);
    }
}

pub(crate) fn read_dots(reader: &mut Reader) -> Result<DotSet, Malformed> {
    let count = reader.count(10, "dots")?;
    let mut spans = Vec::with_capacity(count);
    for _ in 0..count {
        let actor = ActorId(reader.u64("actor")?);
        let after = reader.varint("span")?;
        let upto = after.checked_add(reader.varint("span")?).ok_or(Malformed("span"))?;
        spans.push(Span { actor, after, upto });
    }
    DotSet::from_spans(spans).ok_or(Malformed("order of spans"))
}

pub(crate) fn read_stamp(reader: &mut Reader) -> Result<Stamp, Malformed> {
    let millis = reader.varint("stamp")?;
    let logical = u32::try_from(reader.varint("stamp")?).map_err(|_| Malformed("stamp"))?;
    Ok(Stamp { millis, logical })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Dot;
    use crate::version::{Content, Siblings, Version};

    fn context(actors: u64) -> Context {
        let mut seen = DotSet::new();
        (1..=actors).for_each(|i| seen.issue(Dot { actor: ActorId((i << 40) | 7), counter: i * 1000 }));
        Context { seen, stamp: Some(Stamp { millis: 1_790_000_000_000, logical: 3 }) }
    }

    #[test]
    fn a_token_comes_back_and_is_short() {
        let sealer = Sealer::new(b"secret");
        for actors in [0, 1, 3, 31] {
            let token = sealer.seal(KeyspaceId(7), b"key", &context(actors));
            assert_eq!(sealer.open(KeyspaceId(7), b"key", &token), Ok(context(actors)));
            assert!(actors > 3 || token.len() < 128, "{}", token.len());
            assert!(token.len() < 512);
        }
    }

    #[test]
    fn whatever_a_key_has_seen_its_token_is_taken_back() {
        let sealer = Sealer::new(b"secret");
        let mut seen = DotSet::new();
        (1..=10_000).for_each(|i| seen.issue(Dot { actor: ActorId(i << 44), counter: u64::MAX >> (i % 60) }));
        let last = Dot { actor: ActorId(10_000 << 44), counter: u64::MAX >> (10_000 % 60) };
        let version = Version {
            content: Content::Tombstone,
            stamp: Stamp::default(),
            content_type: None,
            request_id: None,
            receipt: None,
            expires_at: None,
        };
        let state = Siblings::from_parts(seen.clone(), vec![(last, version)]).expect("its dot was seen");
        let context = Context::of(&seen, &KeyState::Causal(state));
        let token = sealer.seal(KeyspaceId(7), b"key", &context);
        assert!(token.len() <= CONTEXT_BYTES_MAX);
        assert_eq!(sealer.open(KeyspaceId(7), b"key", &token), Ok(context.clone()));
        assert!(context.seen.contains(last) && context.seen.within(&seen));
    }

    #[test]
    fn a_token_opens_for_its_own_key_keyspace_and_cluster_only() {
        let sealer = Sealer::new(b"secret");
        let token = sealer.seal(KeyspaceId(7), b"key", &context(3));
        let forged = Err(Problem::InvalidContext { forged: true });
        assert_eq!(sealer.open(KeyspaceId(7), b"kez", &token), forged);
        assert_eq!(sealer.open(KeyspaceId(8), b"key", &token), forged);
        assert_eq!(Sealer::new(b"other").open(KeyspaceId(7), b"key", &token), forged);
        for index in 1..token.len() {
            let mut changed = token.to_vec();
            changed[index] ^= 1;
            assert_eq!(sealer.open(KeyspaceId(7), b"key", &changed.into()), forged, "byte {index}");
        }
        for length in 0..token.len() {
            assert!(sealer.open(KeyspaceId(7), b"key", &token.slice(..length)).is_err());
        }
        let long = Bytes::from(vec![FORMAT; CONTEXT_BYTES_MAX + 1]);
        assert!(matches!(sealer.open(KeyspaceId(7), b"key", &long), Err(Problem::TooLarge { .. })));
    }
}
