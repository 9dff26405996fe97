//! The questions that can be put to a plugin, and the answers and failures that come back, as plain data.
//!
//! An [`Answer`] is the plugin's; a [`Failure`] is what the host saw instead of one. Nothing is ever substituted for
//! a missing answer (R7): on a failure the siblings stay, and lattice operands stay unmerged.

use bytes::Bytes;

use crate::plugin::World;

/// Where the conflict is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyInfo {
    /// The keyspace's name.
    pub keyspace: String,
    /// The key.
    pub key: Bytes,
    /// The keyspace's own configuration for this plugin, part of the policy epoch.
    pub config: Bytes,
}

/// One of several concurrent versions of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sibling {
    /// Every write that put these bytes, `(actor, counter)`, in order.
    pub dots: Vec<(u64, u64)>,
    /// Hybrid-logical-clock stamp, milliseconds.
    pub millis: u64,
    /// Hybrid-logical-clock stamp, logical part.
    pub logical: u32,
    /// The bytes; none for a tombstone.
    pub content: Option<Bytes>,
    /// The content type the client gave, if any.
    pub content_type: Option<String>,
}

/// Dots of one actor: those above `after`, up to and including `upto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Whose.
    pub actor: u64,
    /// Exclusive.
    pub after: u64,
    /// Inclusive.
    pub upto: u64,
}

/// A change that a client asks for, and what the caller vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// What the client sent, in the plugin's own format.
    pub body: Bytes,
    /// Unique to this call, `(actor, counter)`.
    pub dot: (u64, u64),
    /// The actor made no other write to this key above this counter and below the dot's.
    pub previous: u64,
    /// The stamp of the write, milliseconds.
    pub millis: u64,
    /// The stamp of the write, logical part.
    pub logical: u32,
    /// The client's own id of the operation; a retry carries the same.
    pub op_id: Bytes,
    /// The writes that the client had seen, in order; none where it sent no context.
    pub seen: Option<Vec<Span>>,
}

/// One question to a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// May this value enter? Any world.
    Validate {
        /// Where.
        key: KeyInfo,
        /// The value a client wants to write.
        value: Bytes,
    },
    /// Settle these siblings. World `resolver`.
    Resolve {
        /// Where.
        key: KeyInfo,
        /// All siblings, in the order of R1 (the host asserts nothing: order is the caller's).
        siblings: Vec<Sibling>,
    },
    /// Join these states. Worlds `lattice` and `replicated-type`.
    Merge {
        /// Where.
        key: KeyInfo,
        /// The states.
        states: Vec<Bytes>,
    },
    /// What does this state mean? Worlds `lattice` and `replicated-type`.
    Fingerprint {
        /// Where.
        key: KeyInfo,
        /// The state.
        state: Bytes,
    },
    /// Change a state. World `replicated-type`.
    Apply {
        /// Where.
        key: KeyInfo,
        /// The state so far; none where the key does not exist.
        state: Option<Bytes>,
        /// The operation, and what the caller vouches for.
        operation: Operation,
    },
    /// Fold what was kept to tell the writes of these actors apart. World `replicated-type`.
    Retire {
        /// Where.
        key: KeyInfo,
        /// The state.
        state: Bytes,
        /// None of them writes ever again.
        actors: Vec<u64>,
    },
    /// Read a projection of a state. World `replicated-type`.
    Query {
        /// Where.
        key: KeyInfo,
        /// The state.
        state: Bytes,
        /// What to project, in the plugin's own format.
        path: Bytes,
    },
}

impl Call {
    /// Bytes of input, by which fuel and memory are scaled.
    pub fn input_bytes(&self) -> u64 {
        let sum = |lengths: &[usize]| lengths.iter().map(|&length| length as u64).sum::<u64>();
        // A keyspace's configuration comes with every call and buys nothing.
        let of_key = |key: &KeyInfo| sum(&[key.keyspace.len(), key.key.len()]);
        match self {
            Call::Validate { key, value } => of_key(key) + value.len() as u64,
            Call::Resolve { key, siblings } => {
                of_key(key) + siblings.iter().map(Sibling::input_bytes).sum::<u64>()
            }
            Call::Merge { key, states } => of_key(key) + states.iter().map(|s| s.len() as u64).sum::<u64>(),
            Call::Fingerprint { key, state } => of_key(key) + state.len() as u64,
            Call::Apply { key, state, operation } => {
                of_key(key) + state.as_ref().map_or(0, Bytes::len) as u64 + operation.input_bytes()
            }
            Call::Retire { key, state, actors } => of_key(key) + sum(&[state.len(), actors.len() * 8]),
            Call::Query { key, state, path } => of_key(key) + sum(&[state.len(), path.len()]),
        }
    }

    /// Whether a plugin of this world knows the question.
    pub fn suits(&self, world: World) -> bool {
        match self {
            Call::Validate { .. } => true,
            Call::Resolve { .. } => world == World::Resolver,
            Call::Merge { .. } | Call::Fingerprint { .. } => world != World::Resolver,
            Call::Apply { .. } | Call::Retire { .. } | Call::Query { .. } => world == World::ReplicatedType,
        }
    }
}

impl Sibling {
    fn input_bytes(&self) -> u64 {
        let text = self.content_type.as_ref().map_or(0, String::len);
        (self.dots.len() * 16 + self.content.as_ref().map_or(0, Bytes::len) + text) as u64
    }
}

impl Operation {
    fn input_bytes(&self) -> u64 {
        let spans = self.seen.as_ref().map_or(0, Vec::len) * size_of::<Span>();
        (self.body.len() + self.op_id.len() + spans) as u64
    }
}

/// What a plugin answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The value may enter.
    Valid,
    /// The joined state, the new state or the projection.
    Value(Bytes),
    /// The settled value, and its content type where the plugin names one.
    Keep {
        /// The bytes.
        value: Bytes,
        /// None: the one on which all siblings agree.
        content_type: Option<String>,
    },
    /// The key is to be deleted.
    Delete,
    /// The plugin declines to settle; a normal answer, the siblings stay.
    Unresolved(String),
    /// The input was not to the plugin's liking.
    Rejected {
        /// What is wrong with it.
        kind: RejectionKind,
        /// For people; cut at [`crate::Limits::message_bytes_max`].
        message: String,
    },
    /// The meaning of the state; none where bytes are canonical and are to be compared themselves.
    Fingerprint(Option<Bytes>),
}

/// Why a plugin rejects an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectionKind {
    /// It cannot be decoded.
    Malformed,
    /// It was written by a version that the plugin does not know.
    UnsupportedVersion,
    /// It is larger than the plugin works with.
    TooLarge,
    /// It is well-formed but not allowed.
    Forbidden,
}

impl RejectionKind {
    /// The name that the WIT package gives it.
    pub fn name(self) -> &'static str {
        match self {
            RejectionKind::Malformed => "malformed",
            RejectionKind::UnsupportedVersion => "unsupported-version",
            RejectionKind::TooLarge => "too-large",
            RejectionKind::Forbidden => "forbidden",
        }
    }
}

/// What the host saw instead of an answer. Never a value, never a reason to lose one (R7).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// This node does not hold the plugin.
    #[error("plugin is not on this node")]
    Missing,
    /// The plugin's world does not know the question.
    #[error("plugin's world does not know the question")]
    WrongWorld,
    /// It trapped: panic, out of bounds, stack overflow.
    #[error("plugin trapped: {0}")]
    Trap(String),
    /// It used up its fuel.
    #[error("plugin ran out of fuel")]
    OutOfFuel,
    /// It asked for more memory than it may have, and gave up.
    #[error("plugin ran out of memory")]
    OutOfMemory,
    /// The node's watchdog ended it.
    #[error("plugin ran out of time")]
    Timeout,
    /// Its answer is larger than allowed.
    #[error("plugin answered {bytes} bytes, allowed are {limit}")]
    TooLarge {
        /// Size of the answer.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// It broke the calling convention: a list outside its memory, text that is no UTF-8, a wrong tag.
    #[error("plugin gave a malformed answer: {0}")]
    BadAnswer(String),
    /// The node could not do its part: no memory, no place, or a fault of the engine. Says nothing about the plugin.
    #[error("the node could not run the plugin: {0}")]
    Host(String),
}

impl Failure {
    /// A stable short name, for metrics and `UNRESOLVED(reason)`.
    pub fn name(&self) -> &'static str {
        match self {
            Failure::Missing => "missing",
            Failure::WrongWorld => "wrong-world",
            Failure::Trap(_) => "trap",
            Failure::OutOfFuel => "out-of-fuel",
            Failure::OutOfMemory => "out-of-memory",
            Failure::Timeout => "timeout",
            Failure::TooLarge { .. } => "too-large",
            Failure::BadAnswer(_) => "bad-answer",
            Failure::Host(_) => "host",
        }
    }
}

/// What a call used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Fuel consumed; deterministic.
    pub fuel: u64,
    /// Largest size of the guest's linear memory.
    pub memory_bytes: u64,
    /// Wall time, instantiation included, waiting for a free slot excluded.
    pub micros: u64,
}
