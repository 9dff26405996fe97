//! Automerge documents as a lattice: concurrent edits of text, lists and maps are woven together.
//!
//! *State*: a set of Automerge chunks ([`chunks`]), which `Automerge::load` accepts as it is. A put is a join, so a client puts
//! a whole document once, and then just the changes it made (`save_after`, `get_last_local_change`).
//!
//! *Merge* is the union of the sets, by header alone: no history is loaded. Loose changes are some ten times larger than
//! in a document, so once the set outgrows its budget everything is loaded and *folded* into one document. Folding changes
//! bytes and not meaning; equal meanings have equal *fingerprints* (heads, and changes that wait for others). See
//! `docs/decisions/automerge-state.md`.
//!
//! *Operations*: chunks of changes, joined like a put. *Queries*: the empty path gives the document as JSON; `notes/0/title` an
//! inner value, text as plain text; `?heads` the heads; `?since=HASH,HASH` the changes made since those heads, to be loaded
//! by a client that has them.

mod chunks;
mod query;
mod samples;

use automerge::{Automerge, AutomergeError, LoadOptions, OnPartialLoad};
use merganser_plugin_sdk::{KeyInfo, Operation, Rejection, ReplicatedType, export_replicated_type};

use chunks::Chunks;

/// No set is folded that is smaller than this.
const FOLD_BYTES_MIN: usize = 256 << 10;
/// A set is folded when it outgrows its largest document this many times. Two replicas that have folded apart hold
/// two documents between them; there must be room for both, and for changes.
const FOLD_RATIO: usize = 3;
/// Always fold above this, because the host accepts no answer above 4 MiB.
const FOLD_BYTES_MAX: usize = 3 << 20;

/// The plugin.
pub struct AutomergePlugin;

fn unloadable(error: impl std::fmt::Display) -> Rejection {
    Rejection::malformed(format!("Automerge: {error}"))
}

/// Loads a set. Changes that wait for others stay in the document's queue.
fn load(bytes: &[u8]) -> Result<Automerge, Rejection> {
    let with = |partial| Automerge::load_with_options(bytes, LoadOptions::new().on_partial_load(partial));
    match with(OnPartialLoad::Error) {
        // Everything was parsed, and the only complaint is that changes wait: here they may.
        Err(AutomergeError::MissingDeps) => with(OnPartialLoad::Ignore),
        loaded => loaded,
    }
    .map_err(unloadable)
}

fn union(states: &[Vec<u8>]) -> Result<Chunks<'_>, Rejection> {
    let mut chunks = Chunks::default();
    for state in states {
        chunks.add(state)?;
    }
    Ok(chunks)
}

/// The union of the sets, folded where it outgrows its budget.
fn join(states: &[Vec<u8>]) -> Result<Vec<u8>, Rejection> {
    let chunks = union(states)?;
    let budget = (FOLD_RATIO * chunks.largest_document()).clamp(FOLD_BYTES_MIN, FOLD_BYTES_MAX);
    let idempotent = states.iter().all(|state| *state == states[0]);
    if idempotent || chunks.length() <= budget {
        return Ok(chunks.encode());
    }
    // A set that cannot be loaded as a whole (two changes under one actor and number, say) is kept as it is: reading
    // it fails, but nothing is lost.
    match load(&chunks.encode()) {
        Ok(document) => Ok(document.save()),
        Err(_) => Ok(chunks.encode()),
    }
}

impl ReplicatedType for AutomergePlugin {
    fn merge(_: &KeyInfo, states: &[Vec<u8>]) -> Result<Vec<u8>, Rejection> {
        join(states)
    }

    fn fingerprint(_: &KeyInfo, state: &[u8]) -> Result<Option<Vec<u8>>, Rejection> {
        let mut chunks = Chunks::default();
        chunks.add(state)?;
        let document = load(state)?;
        let mut heads: Vec<_> = document.get_heads().iter().map(|hash| hash.0).collect();
        heads.sort_unstable();
        let mut waiting: Vec<_> = query::waiting(&document, &chunks)?.iter().map(|hash| hash.0).collect();
        waiting.sort_unstable();
        Ok(Some([heads.concat(), b"waiting".to_vec(), waiting.concat()].concat()))
    }

    /// Parses everything, checksums and columns included, and applies it to an empty document; changes that wait
    /// for others cannot be tried further.
    fn validate(_: &KeyInfo, state: &[u8]) -> Result<(), Rejection> {
        Chunks::default().add(state)?;
        load(state).map(|_| ())
    }

    fn apply(_: &KeyInfo, state: Option<&[u8]>, operation: &Operation) -> Result<Vec<u8>, Rejection> {
        let states: Vec<Vec<u8>> =
            [Some(operation.body.as_slice()), state].into_iter().flatten().map(Vec::from).collect();
        join(&states)
    }

    fn query(_: &KeyInfo, state: &[u8], path: &[u8]) -> Result<Vec<u8>, Rejection> {
        let document = load(state)?;
        let path = std::str::from_utf8(path).map_err(|_| Rejection::malformed("path is not UTF-8"))?;
        query::answer(&document, path)
    }

    fn generate(seed: &[u8]) -> Option<Vec<u8>> {
        samples::document(seed)
    }

    fn generate_operation(seed: &[u8]) -> Option<Vec<u8>> {
        samples::changes(seed)
    }
}

export_replicated_type!(AutomergePlugin);

/// Automerge draws a random actor when it loads a document, and no change is ever made under it here: a fixed one is
/// as good, and the same on every node.
#[cfg(target_arch = "wasm32")]
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(dest: *mut u8, len: usize) -> Result<(), getrandom::Error> {
    // SAFETY: getrandom's contract: `dest` is valid for writes of `len` bytes.
    unsafe { std::ptr::write_bytes(dest, 0, len) };
    Ok(())
}

#[cfg(test)]
#[path = "lib_test.rs"]
mod tests;
