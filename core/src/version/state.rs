//! The pieces of which states are made, and the one type over all kinds.
//!
//! In: states of the three kinds. Out: sync, coverage, digests, each dispatched to its kind.
//! Absent: bytes on disk or wire (see `codec`).

use super::{DotSet, Fragments, Register, Siblings, Stamp};
use crate::id::{Dot, Millis, PluginHash, RequestId};
use crate::limits::RECORD_BYTES_MAX;
use bytes::Bytes;

/// Which kind of state a keyspace's keys hold; follows from its policy and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `siblings` and `resolver` policies.
    Causal,
    /// `lww`.
    Lww,
    /// `lattice`.
    Lattice,
}

/// A value or a delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Bytes of a client or a plugin.
    Value(Bytes),
    /// A delete; of an expired version also what is left once its bytes were let go of.
    Tombstone,
}

impl Content {
    /// The value, if it is one.
    pub fn value(&self) -> Option<&Bytes> {
        match self {
            Content::Value(value) => Some(value),
            Content::Tombstone => None,
        }
    }

    /// Length in bytes; 0 for a tombstone.
    pub fn size_bytes(&self) -> usize {
        self.value().map_or(0, Bytes::len)
    }
}

/// How a stored resolution came about (R3). Explains; never changes causality (R4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The siblings it was made from.
    pub merged_from: Vec<Dot>,
    /// By which module.
    pub plugin: PluginHash,
    /// Under which policy epoch.
    pub epoch: u64,
    /// Automatic resolutions since the last client write, this one included (R11).
    pub generation: u32,
}

/// What one write stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// A value or a delete.
    pub content: Content,
    /// The coordinator's hybrid clock at the write.
    pub stamp: Stamp,
    /// As the writer gave it.
    pub content_type: Option<Bytes>,
    /// Of the client's request, so that a retry finds its first try; none for resolutions.
    pub request_id: Option<RequestId>,
    /// Set where it is a stored resolution.
    pub receipt: Option<Receipt>,
    /// Gone from this time on, by each reader's own clock (see `expiry`).
    pub expires_at: Option<Millis>,
}

/// Equal for equal causality (R10): who has seen and holds what, not the bytes of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(pub [u8; 16]);

/// The state of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Of a causal keyspace.
    Causal(Siblings),
    /// Of an `lww` keyspace.
    Lww(Register),
    /// Of a lattice keyspace.
    Lattice(Fragments),
}

impl KeyState {
    /// A key never written.
    pub fn empty(kind: Kind) -> KeyState {
        match kind {
            Kind::Causal => KeyState::Causal(Siblings::default()),
            Kind::Lww => KeyState::Lww(Register::default()),
            Kind::Lattice => KeyState::Lattice(Fragments::default()),
        }
    }

    /// Which kind it is.
    pub fn kind(&self) -> Kind {
        match self {
            KeyState::Causal(_) => Kind::Causal,
            KeyState::Lww(_) => Kind::Lww,
            KeyState::Lattice(_) => Kind::Lattice,
        }
    }

    /// Takes in what `other` holds: the least upper bound, with nothing called. Two kinds never
    /// mix. Answers the dots that carry one value here and another there: kept as they were
    /// here, and for the caller to report.
    #[must_use]
    pub fn sync(&mut self, other: &KeyState) -> Vec<Dot> {
        match (self, other) {
            (KeyState::Causal(mine), KeyState::Causal(theirs)) => mine.sync(theirs),
            (KeyState::Lww(mine), KeyState::Lww(theirs)) => {
                mine.sync(theirs);
                Vec::new()
            }
            (KeyState::Lattice(mine), KeyState::Lattice(theirs)) => {
                mine.sync(theirs);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Whether this covers `dot`: the write is in it, or something that saw or beat it.
    pub fn covers(&self, dot: Dot, stamp: Stamp) -> bool {
        match self {
            KeyState::Causal(siblings) => siblings.seen().contains(dot),
            KeyState::Lww(register) => register.covers(dot, stamp),
            KeyState::Lattice(fragments) => fragments.covers(dot),
        }
    }

    /// All it has seen. Of a register: its winner's dot.
    pub fn seen(&self) -> DotSet {
        match self {
            KeyState::Causal(siblings) => siblings.seen().clone(),
            KeyState::Lww(register) => register.seen(),
            KeyState::Lattice(fragments) => fragments.seen(),
        }
    }

    /// The highest stamp in it.
    pub fn stamp(&self) -> Stamp {
        match self {
            KeyState::Causal(siblings) => {
                siblings.iter().map(|(_, version)| version.stamp).max().unwrap_or_default()
            }
            KeyState::Lww(register) => register.stamp(),
            KeyState::Lattice(fragments) => fragments.stamp,
        }
    }

    /// Nothing was ever written.
    pub fn is_empty(&self) -> bool {
        match self {
            KeyState::Causal(siblings) => siblings.seen().is_empty(),
            KeyState::Lww(register) => register.is_empty(),
            KeyState::Lattice(fragments) => fragments.is_unwritten(),
        }
    }

    /// Whether it is worth looking whether a record holds it.
    pub(crate) fn may_be_too_large(&self) -> bool {
        let size_bytes: usize = match self {
            KeyState::Causal(siblings) => {
                siblings.iter().map(|(_, version)| version.content.size_bytes()).sum()
            }
            KeyState::Lww(_) => 0,
            KeyState::Lattice(fragments) => fragments.iter().map(|fragment| fragment.value.len()).sum(),
        };
        size_bytes > RECORD_BYTES_MAX / 4
    }

    /// See [`Digest`].
    pub fn digest(&self) -> Digest {
        super::codec::digest(self)
    }
}
