//! The document that a set of chunks makes, also where some of its changes contradict one another.
//!
//! Two changes of one actor under one number are made where an actor is reused (a cloned device, two tabs). Automerge
//! loads no document that has both. Of such two the one stays that comes first by what it depends on, then by its hash; the
//! other is set aside, and what depends on it waits. That follows from the set alone, so all replicas show the same.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{ActorId, Automerge, AutomergeError, Change, ChangeHash, LoadOptions, OnPartialLoad};
use merganser_plugin_sdk::Rejection;

use crate::chunks::Chunks;
use crate::unloadable;

/// A document, and what is not in it.
pub(crate) struct Loaded {
    pub(crate) document: Automerge,
    /// Changes whose actor and number another one has, by hash.
    pub(crate) aside: Vec<Change>,
}

/// Loads a set. Changes that wait for others stay in the document's queue.
pub(crate) fn load(bytes: &[u8]) -> Result<Loaded, Rejection> {
    match whole(bytes) {
        Ok(document) => Ok(Loaded { document, aside: Vec::new() }),
        Err(AutomergeError::DuplicateSeqNumber(..)) => without_doubles(bytes),
        Err(error) => Err(unloadable(error)),
    }
}

fn whole(bytes: &[u8]) -> Result<Automerge, AutomergeError> {
    let with = |partial| Automerge::load_with_options(bytes, LoadOptions::new().on_partial_load(partial));
    match with(OnPartialLoad::Error) {
        // Everything was parsed, and the only complaint is that changes wait: here they may.
        Err(AutomergeError::MissingDeps) => with(OnPartialLoad::Ignore),
        loaded => loaded,
    }
}

fn without_doubles(bytes: &[u8]) -> Result<Loaded, Rejection> {
    let mut chunks = Chunks::default();
    chunks.add(bytes)?;
    let mut changes: BTreeMap<ChangeHash, Change> = BTreeMap::new();
    for chunk in chunks.iter() {
        let of_chunk = match Change::from_bytes(chunk.to_vec()) {
            Ok(change) => vec![change],
            Err(_) => whole(chunk).map_err(unloadable)?.get_changes(&[]),
        };
        changes.extend(of_chunk.into_iter().map(|change| (change.hash(), change)));
    }
    let mut dependents: BTreeMap<ChangeHash, Vec<ChangeHash>> = BTreeMap::new();
    let mut missing: BTreeMap<ChangeHash, usize> = BTreeMap::new();
    for (&hash, change) in &changes {
        missing.insert(hash, change.deps().len());
        change.deps().iter().for_each(|dep| dependents.entry(*dep).or_default().push(hash));
    }
    let (mut taken, mut aside) = (BTreeSet::<(ActorId, u64)>::new(), BTreeSet::new());
    let mut ready: BTreeSet<ChangeHash> =
        missing.iter().filter(|(_, left)| **left == 0).map(|(hash, _)| *hash).collect();
    let mut ordered = Vec::new();
    while !ready.is_empty() {
        let mut next = BTreeSet::new();
        for hash in ready {
            let change = &changes[&hash];
            if !taken.insert((change.actor_id().clone(), change.seq())) {
                aside.insert(hash);
                continue;
            }
            ordered.push(hash);
            for dependent in dependents.get(&hash).into_iter().flatten() {
                if let Some(left) = missing.get_mut(dependent) {
                    *left -= 1;
                    if *left == 0 {
                        next.insert(*dependent);
                    }
                }
            }
        }
        ready = next;
    }
    let mut document = Automerge::new();
    let (apply, aside) =
        (ordered.iter().map(|hash| changes[hash].clone()), aside.iter().map(|hash| changes[hash].clone()));
    document.apply_changes(apply.collect::<Vec<_>>()).map_err(unloadable)?;
    Ok(Loaded { document, aside: aside.collect() })
}
