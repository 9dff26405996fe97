//! Plugins as core sees them: calls that go out as effects, answers that come back as events.
//!
//! In: nothing. Out: the questions of `plugin-sdk/wit/plugin.wit` as plain data. Absent: Wasm,
//! limits, caches; all of that is behind the shell.

use crate::id::Dot;
use crate::version::{DotSet, Stamp};
use bytes::Bytes;

/// Largest module anywhere: what clients upload, what peers send, what is compiled.
pub const MODULE_BYTES_MAX: u64 = 64 << 20;

/// Which contract a module fulfils.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// Any deterministic function of a sibling set.
    Resolver,
    /// A join semilattice.
    Lattice,
    /// A lattice with operations and queries.
    ReplicatedType,
}

/// What a module says of itself, learned when it was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginFacts {
    /// Which contract.
    pub world: World,
    /// Its own name.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// One line.
    pub summary: String,
    /// Of the uploaded bytes.
    pub size_bytes: u64,
}

/// Which key a call is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Name of the keyspace.
    pub keyspace: String,
    /// The key.
    pub key: Bytes,
    /// The keyspace's configuration for the plugin.
    pub config: Bytes,
}

/// A sibling as a resolver is shown it (R1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginSibling {
    /// All dots of these bytes, in order.
    pub dots: Vec<Dot>,
    /// As data.
    pub stamp: Stamp,
    /// None: a concurrent delete.
    pub content: Option<Bytes>,
    /// As the writer gave it.
    pub content_type: Option<Bytes>,
}

/// An operation as a replicated type is shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginOperation {
    /// In the plugin's language.
    pub body: Bytes,
    /// Unique to this operation.
    pub dot: Dot,
    /// `(previous, dot]` is vouched for: its actor made no other write to this key in between. Nothing is said
    /// of what came before `previous` (R5).
    pub previous: u64,
    /// What the write is stored with.
    pub stamp: Stamp,
    /// The client's id of the operation.
    pub op_id: Bytes,
    /// What the client had seen; None: it sent no context.
    pub seen: Option<DotSet>,
}

/// A question to a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginCall {
    /// May this value be put?
    Validate {
        /// Where.
        key: KeyInfo,
        /// The value.
        value: Bytes,
    },
    /// What do these siblings come to?
    Resolve {
        /// Where.
        key: KeyInfo,
        /// Two or more, in dot order.
        siblings: Vec<PluginSibling>,
    },
    /// The least upper bound of these states.
    Merge {
        /// Where.
        key: KeyInfo,
        /// Two or more.
        states: Vec<Bytes>,
    },
    /// The state after an operation.
    Apply {
        /// Where.
        key: KeyInfo,
        /// None: no state yet.
        state: Option<Bytes>,
        /// The operation, and what this node vouches for.
        operation: PluginOperation,
    },
    /// A projection of a state.
    Query {
        /// Where.
        key: KeyInfo,
        /// The state.
        state: Bytes,
        /// In the plugin's language.
        path: Bytes,
    },
}

/// What a plugin said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginAnswer {
    /// To Validate.
    Valid,
    /// To Merge, Apply, Query.
    Value(Bytes),
    /// To Resolve: what the siblings come to.
    Keep {
        /// The value.
        value: Bytes,
        /// None: the one on which all siblings agree.
        content_type: Option<Bytes>,
    },
    /// To Resolve.
    Delete,
    /// To Resolve: a normal answer; the siblings stay.
    Unresolved(String),
    /// To Validate, Merge, Apply, Query: the plugin refuses its input.
    Rejected {
        /// The plugin's word for it.
        kind: String,
        /// For people.
        message: String,
    },
    /// Its value is larger than a merged value may be.
    TooLarge {
        /// As large.
        size_bytes: u64,
        /// At most.
        limit_bytes: u64,
    },
    /// No answer, and the same question would come to the same: trap, out of fuel or memory, a malformed answer (R7).
    Broke(String),
    /// No answer, for reasons that lie elsewhere: overload, timeout, missing, quarantined … (R7).
    Failed(String),
}
