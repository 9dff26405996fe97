//! The causal context of a key, as the server made it.
//!
//! In: bytes of a reply, or of a file where a user keeps them between two commands. Out: the same
//! bytes. Absent: any constructor that invents one, and any look inside: the server seals it.

use bytes::Bytes;
use std::fmt;

/// What a read or write saw. Send it with the next write of the same key.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Context(Bytes);

impl Context {
    /// A context that was stored outside of this process, by [`Context::as_bytes`]. Bytes that
    /// the cluster did not make are refused by it ([`crate::Error::InvalidContext`]).
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Context {
        Context(bytes.into())
    }

    /// For a file.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// True where nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn to_wire(&self) -> Bytes {
        self.0.clone()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({} bytes)", self.0.len())
    }
}
