//! Write the rule by which conflicts are settled: implement one trait, name it in one macro line.
//!
//! ```
//! use merganser_plugin_sdk::{KeyInfo, Resolver, Sibling, Verdict};
//!
//! /// Keeps the longest value.
//! struct Longest;
//!
//! impl Resolver for Longest {
//!     fn resolve(_: &KeyInfo, siblings: &[Sibling]) -> Verdict {
//!         let values = siblings.iter().filter_map(Sibling::value);
//!         match values.max_by_key(|value| (value.len(), value.to_vec())) {
//!             Some(longest) => Verdict::keep(longest),
//!             None => Verdict::Delete,
//!         }
//!     }
//! }
//!
//! merganser_plugin_sdk::export_resolver!(Longest);
//! ```
//!
//! `cargo build --target wasm32-unknown-unknown --release` makes a module that can be uploaded as it is; `cargo test`
//! runs the same code natively, with [`testing`] to make siblings and [`laws`] to check what the host will check.
//!
//! Three traits for three worlds: [`Resolver`] for any deterministic function of the siblings, [`Lattice`] for states
//! with a join, [`ReplicatedType`] for a lattice that clients change through operations. Deliberately absent: clocks,
//! randomness, files and other keys. The same input must give the same bytes on every node, for ever.

pub mod bindings;
#[doc(hidden)]
pub mod guest;
pub mod laws;
pub mod log;
pub mod testing;
mod values;

pub use bindings::operations::exports::merganser::plugin::operations::{Operation, Span};
pub use bindings::plugin::merganser::plugin::types::{
    Content, Description, Dot, Kept, KeyInfo, Rejection, RejectionKind, Sibling, Stamp, Verdict,
};

/// Any deterministic function of a sibling set.
///
/// It sees all siblings at once, in the order of their dots, equal bytes once. It is asked when a client reads a key
/// with several siblings, and by the one node that may write the answer back. Two such nodes in a partition agree
/// if `resolve([resolve(S), resolve(T)])` equals `resolve(S ∪ T)`.
pub trait Resolver {
    /// The answer. [`Verdict::Unresolved`] is a normal one: the siblings stay, the client sees them.
    fn resolve(key: &KeyInfo, siblings: &[Sibling]) -> Verdict;

    /// May a client write this value? Asked once, before the write is accepted.
    fn validate(key: &KeyInfo, value: &[u8]) -> Result<(), Rejection> {
        let _ = (key, value);
        Ok(())
    }

    /// A valid value made from the seed, for the law checker.
    fn generate(seed: &[u8]) -> Option<Vec<u8>> {
        let _ = seed;
        None
    }
}

/// States with a join that is commutative, associative and idempotent. A put is a join, wherever it happens.
pub trait Lattice {
    /// The least upper bound of the states, of which there may be one or many.
    fn merge(key: &KeyInfo, states: &[Vec<u8>]) -> Result<Vec<u8>, Rejection>;

    /// What a state means, where equal meanings may have unequal bytes. None: the bytes are canonical.
    fn fingerprint(key: &KeyInfo, state: &[u8]) -> Result<Option<Vec<u8>>, Rejection> {
        let _ = (key, state);
        Ok(None)
    }

    /// May a client write this state? It should be refused if `merge` could not work with it.
    fn validate(key: &KeyInfo, state: &[u8]) -> Result<(), Rejection> {
        Self::merge(key, &[state.to_vec()]).map(|_| ())
    }

    /// A valid state made from the seed, for the law checker.
    fn generate(seed: &[u8]) -> Option<Vec<u8>> {
        let _ = seed;
        None
    }
}

/// A lattice that clients change through operations and read through queries.
pub trait ReplicatedType {
    /// As in [`Lattice::merge`].
    fn merge(key: &KeyInfo, states: &[Vec<u8>]) -> Result<Vec<u8>, Rejection>;

    /// The state after the operation; no state means that the key does not exist yet. Must not lose anything:
    /// `merge(s, apply(s, op)) = apply(s, op)`.
    fn apply(key: &KeyInfo, state: Option<&[u8]>, operation: &Operation) -> Result<Vec<u8>, Rejection>;

    /// The part of the state that the path names; the whole of it, readable, for the empty path.
    fn query(key: &KeyInfo, state: &[u8], path: &[u8]) -> Result<Vec<u8>, Rejection>;

    /// The same state in fewer bytes: none of the actors writes ever again, and all replicas hold the same of what
    /// they wrote. A type that keeps nothing by actor answers the state as it is.
    fn retire(key: &KeyInfo, state: &[u8], actors: &[u64]) -> Result<Vec<u8>, Rejection> {
        let _ = (key, actors);
        Ok(state.to_vec())
    }

    /// As in [`Lattice::fingerprint`].
    fn fingerprint(key: &KeyInfo, state: &[u8]) -> Result<Option<Vec<u8>>, Rejection> {
        let _ = (key, state);
        Ok(None)
    }

    /// As in [`Lattice::validate`].
    fn validate(key: &KeyInfo, state: &[u8]) -> Result<(), Rejection> {
        Self::merge(key, &[state.to_vec()]).map(|_| ())
    }

    /// As in [`Lattice::generate`].
    fn generate(seed: &[u8]) -> Option<Vec<u8>> {
        let _ = seed;
        None
    }

    /// A valid operation made from the seed, for the law checker.
    fn generate_operation(seed: &[u8]) -> Option<Vec<u8>> {
        let _ = seed;
        None
    }
}
