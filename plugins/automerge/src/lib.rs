//! Automerge documents as a lattice: concurrent edits of text, lists and maps are woven together.
//!
//! *State*: a set of Automerge chunks ([`chunks`]), which `Automerge::load` accepts as it is. A put is a join, so a client puts
//! a whole document once, and then just the changes it made (`save_after`, `get_last_local_change`).
//!
//! *Merge* is the union of the sets, by header alone: no history is loaded. Loose changes are some ten times larger than
//! in a document, so once the set outgrows its budget an operation loads everything and *folds* it into one document; a merge folds only what is
//! close to what can be loaded at all. Folding changes
//! bytes and not meaning; equal meanings have equal *fingerprints* (heads, and changes that wait for others). See
//! `docs/decisions/automerge-state.md`.
//!
//! *Operations*: chunks of changes, joined like a put. *Queries*: the empty path gives the document as JSON; `notes/0/title` an
//! inner value, text as plain text; `?heads` the heads; `?since=HASH,HASH` the changes made since those heads, to be loaded
//! by a client that has them; `?problems` what is not in the document: changes that are set aside because another has their
//! actor and number ([`document`]), and changes that wait for others.

mod chunks;
mod document;
mod query;
mod samples;

use std::collections::BTreeMap;

use automerge::Change;
use merganser_plugin_sdk::{KeyInfo, Operation, Rejection, ReplicatedType, export_replicated_type, log};

use chunks::Chunks;
use document::load;

/// No set is folded that is smaller than this.
const FOLD_BYTES_MIN: usize = 256 << 10;
/// A set is folded when it outgrows its largest document this many times. Two replicas that have folded apart hold
/// two documents between them; there must be room for both, and for changes.
const FOLD_RATIO: usize = 3;
/// Always fold above this, because the host accepts no answer above 4 MiB.
const FOLD_BYTES_MAX: usize = 3 << 20;

/// The whole of a document as JSON must fit an answer of the host.
const READABLE_BYTES_MAX: usize = 4 << 20;

/// The plugin.
pub struct AutomergePlugin;

fn unloadable(error: impl std::fmt::Display) -> Rejection {
    Rejection::malformed(format!("Automerge: {error}"))
}

fn union(states: &[Vec<u8>]) -> Result<Chunks<'_>, Rejection> {
    let mut chunks = Chunks::default();
    for state in states {
        chunks.add(state)?;
    }
    Ok(chunks)
}

/// The union of the sets, folded where it is larger than `most`.
fn join(states: &[Vec<u8>], most: impl Fn(&Chunks<'_>) -> usize) -> Result<Vec<u8>, Rejection> {
    let chunks = union(states)?;
    let idempotent = states.iter().all(|state| *state == states[0]);
    if idempotent || chunks.length() <= most(&chunks) {
        return Ok(chunks.encode());
    }
    // A set with changes that contradict one another is kept as it is: folded, those that are set aside would be gone.
    match load(&chunks.encode()) {
        Ok(loaded) if loaded.aside.is_empty() => Ok(loaded.document.save()),
        _ => Ok(chunks.encode()),
    }
}

/// Loads what a client sends, and reads it: what cannot be read must not come in. Answers what is set aside in it.
fn check(bytes: &[u8]) -> Result<Vec<Change>, Rejection> {
    let mut chunks = Chunks::default();
    chunks.add(bytes)?;
    let loaded = load(bytes)?;
    let readable = query::answer(&loaded, &chunks, "")?.len();
    match readable <= READABLE_BYTES_MAX {
        true => Ok(loaded.aside),
        false => Err(Rejection::too_large(format!(
            "as JSON the document has {readable} bytes, allowed are {READABLE_BYTES_MAX}"
        ))),
    }
}

/// Of loose changes a second one under an actor and a number that the state has.
fn is_double(state: &[u8], op: &[u8]) -> Result<Option<Change>, Rejection> {
    let changes = |bytes| -> Result<Vec<Change>, Rejection> {
        let mut chunks = Chunks::default();
        chunks.add(bytes)?;
        Ok(chunks.loose().filter_map(|chunk| Change::from_bytes(chunk.to_vec()).ok()).collect())
    };
    let known = changes(state)?;
    let known: BTreeMap<_, _> =
        known.iter().map(|change| ((change.actor_id(), change.seq()), change.hash())).collect();
    let is_double = |change: &Change| {
        known.get(&(change.actor_id(), change.seq())).is_some_and(|hash| *hash != change.hash())
    };
    Ok(changes(op)?.into_iter().find(is_double))
}

impl ReplicatedType for AutomergePlugin {
    fn merge(_: &KeyInfo, states: &[Vec<u8>]) -> Result<Vec<u8>, Rejection> {
        join(states, |_| FOLD_BYTES_MAX)
    }

    fn fingerprint(_: &KeyInfo, state: &[u8]) -> Result<Option<Vec<u8>>, Rejection> {
        let mut chunks = Chunks::default();
        chunks.add(state)?;
        let loaded = load(state)?;
        let mut heads: Vec<_> = loaded.document.get_heads().iter().map(|hash| hash.0).collect();
        heads.sort_unstable();
        let waiting: Vec<_> = query::waiting(&loaded, &chunks).iter().map(|hash| hash.0).collect();
        let aside: Vec<_> = loaded.aside.iter().map(|change| change.hash().0).collect();
        let parts =
            [heads.concat(), b"waiting".to_vec(), waiting.concat(), b"aside".to_vec(), aside.concat()];
        Ok(Some(parts.concat()))
    }

    /// Parses everything, checksums and columns included, and applies it to an empty document; changes that wait
    /// for others cannot be tried further.
    fn validate(_: &KeyInfo, state: &[u8]) -> Result<(), Rejection> {
        check(state).map(|_| ())
    }

    /// An operation is looked at as closely as a put: its chunks must load, and not contradict what is here.
    fn apply(_: &KeyInfo, state: Option<&[u8]>, operation: &Operation) -> Result<Vec<u8>, Rejection> {
        if operation.body.is_empty() {
            return Err(Rejection::malformed("an operation is one or more Automerge chunks"));
        }
        let aside = check(&operation.body)?;
        let double = match aside.into_iter().next() {
            Some(change) => Some(change),
            None => is_double(state.unwrap_or_default(), &operation.body)?,
        };
        if let Some(change) = double {
            let (actor, sequence) = (change.actor_id(), change.seq());
            return Err(Rejection::forbidden(format!(
                "another change has the number {sequence} of actor {actor}: make this one anew under an actor of its own"
            )));
        }
        let states: Vec<Vec<u8>> =
            [Some(operation.body.as_slice()), state].into_iter().flatten().map(Vec::from).collect();
        let budget = |chunks: &Chunks<'_>| {
            (FOLD_RATIO * chunks.largest_document()).clamp(FOLD_BYTES_MIN, FOLD_BYTES_MAX)
        };
        let joined = join(&states, budget)?;
        if joined.len() > FOLD_BYTES_MAX / 2 {
            log::warn(&format!("a document has {} bytes, {FOLD_BYTES_MAX} can be worked with", joined.len()));
        }
        Ok(joined)
    }

    fn query(_: &KeyInfo, state: &[u8], path: &[u8]) -> Result<Vec<u8>, Rejection> {
        let mut chunks = Chunks::default();
        chunks.add(state)?;
        let loaded = load(state)?;
        let path = std::str::from_utf8(path).map_err(|_| Rejection::malformed("path is not UTF-8"))?;
        query::answer(&loaded, &chunks, path)
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
