//! C12, disks: one that was written opens again, and holds what was done on it.
//!
//! In: what a node handed to its storage to be synced, what storage said was done, and the disk as it is after
//! any death of its process or machine. Storage against a plain map over every crash point is tested in
//! storage's own room; here it meets whole histories of nodes. Absent: what was only written, not synced.

use super::{Check, broken};
use bytes::Bytes;
use merganser_core::event::{Record, WriteOp};
use merganser_core::version::{KeyState, codec};
use merganser_core::{fold, storage_key};
use std::collections::BTreeMap;

/// Fragments of a key beyond which they are folded.
const FRAGMENTS_MAX: usize = 8;

/// What one disk has promised to hold.
#[derive(Debug, Default)]
pub struct Promises {
    /// Submitted, in order of their tickets.
    pending: BTreeMap<u64, Vec<WriteOp>>,
    /// Objects, as fragments, newest first.
    held: BTreeMap<Bytes, Vec<Record>>,
    /// What may be there instead: it was under way when a process died, and has less of a context that was being retired.
    instead: BTreeMap<Bytes, Vec<KeyState>>,
}

impl Promises {
    /// Writes were handed over, to be synced.
    pub fn submitted(&mut self, ticket: u64, ops: &[WriteOp]) {
        self.pending.insert(ticket, ops.to_vec());
    }

    /// Writes were handed over that nobody syncs: of what they replace (a refill had synced it, say) the disk may hold either.
    pub fn replaced_unsynced(&mut self, ops: &[WriteOp]) {
        for op in ops {
            if let WriteOp::Put { key, .. } | WriteOp::Remove { key } = op {
                self.held.remove(key);
            }
        }
    }

    /// Storage has said what became of them: they are synced, or were not written. Of a sync that failed neither is known:
    /// what was to be synced stays under way, until the process dies of it.
    pub fn done(&mut self, ticket: u64, done: bool) {
        let Some(ops) = self.pending.remove(&ticket).filter(|_| done) else { return };
        for op in ops {
            let (WriteOp::Put { key, .. } | WriteOp::Merge { key, .. } | WriteOp::Remove { key }) = &op;
            self.instead.remove(key);
            match op {
                WriteOp::Put { key, record } if is_object(&key) => {
                    self.held.insert(key, vec![record]);
                }
                WriteOp::Merge { key, record } if is_object(&key) => {
                    let fragments = self.held.entry(key.clone()).or_default();
                    fragments.insert(0, record);
                    if fragments.len() > FRAGMENTS_MAX
                        && let Ok(folded) = fold::fold(&key, fragments)
                    {
                        *fragments = vec![folded];
                    }
                }
                WriteOp::Remove { key } => {
                    self.held.remove(&key);
                }
                WriteOp::Put { .. } | WriteOp::Merge { .. } => {}
            }
        }
    }

    /// A damaged range was given up: what is there now is what other replicas had. It may be less where the fence has
    /// retired or collected what this copy, which could not be read, still held.
    pub fn given_up(&mut self, is_within: impl Fn(&Bytes) -> bool, read: impl Fn(&Bytes) -> Option<Record>) {
        let within: Vec<Bytes> = self.held.keys().filter(|key| is_within(key)).cloned().collect();
        for key in within {
            match read(&key) {
                Some(record) => drop(self.held.insert(key.clone(), vec![record])),
                None => drop(self.held.remove(&key)),
            }
            self.instead.remove(&key);
        }
    }

    /// The process has died: what was under way may be there or not. So of a key that was being removed nothing is promised any
    /// more, and of one whose context was being retired (R14) either is.
    pub fn process_died(&mut self) {
        for op in std::mem::take(&mut self.pending).into_values().flatten() {
            match op {
                WriteOp::Remove { key } => drop(self.held.remove(&key)),
                WriteOp::Put { key, record } => {
                    if let Some(fragments) = self.held.get(&key)
                        && let (Some(promised), Ok(put)) = (folded(&key, fragments), codec::state(&record))
                        && !covers(&put, &promised)
                    {
                        self.instead.entry(key).or_default().push(put);
                    }
                }
                WriteOp::Merge { .. } => {}
            }
        }
    }

    /// How many keys it has to hold.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// It has to hold nothing.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// What is read from the disk again covers what was promised.
    /// Where bits have rotted, an error is honest.
    pub fn kept(
        &self,
        name: &str,
        is_rotten: bool,
        read: impl Fn(&Bytes) -> Result<Option<Record>, String>,
    ) -> Check {
        for (key, fragments) in &self.held {
            let Some(promised) = folded(key, fragments) else { continue };
            let found = match read(key) {
                Ok(found) => found,
                Err(_) if is_rotten => continue,
                Err(error) => return broken("C12", format!("{name} cannot read {key:?} again: {error}")),
            };
            let state = match found.map(|record| codec::state(&record)) {
                Some(Ok(state)) => state,
                Some(Err(error)) => return broken("C12", format!("{name} has {key:?} as {error}")),
                None => KeyState::empty(promised.kind()),
            };
            let mut all = self.instead.get(key).into_iter().flatten().chain([&promised]);
            if !all.any(|promised| covers(&state, promised)) {
                return broken(
                    "C12",
                    format!("{name} was told that {promised:?} is synced, and has {state:?}"),
                );
            }
        }
        Ok(())
    }
}

fn folded(key: &Bytes, fragments: &[Record]) -> Option<KeyState> {
    codec::state(&fold::fold(key, fragments).ok()?).ok()
}

fn covers(state: &KeyState, promised: &KeyState) -> bool {
    let mut both = state.clone();
    both.sync(promised).is_empty() && both.digest() == state.digest()
}

fn is_object(key: &Bytes) -> bool {
    storage_key::parse_object(key).is_some()
}
