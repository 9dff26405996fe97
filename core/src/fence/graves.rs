//! The graves of a member: dug when it confirms a key, forgotten long after anything older than
//! them could still be on its way.
//!
//! They grow old by the time that this node has *lived*, never faster than its own periods pass: a node that
//! was stopped for an hour comes back with the graves that it had. They do not grow old while a
//! member is down, for its messages may be on their way for as long as that.
//!
//! In: confirmed keys, periods. Out: the grave of a key. Absent: what it means (`grave`).

use super::grave::Grave;
use crate::id::OpId;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// More keys are not confirmed while so many are remembered: about 100 MB.
const GRAVES_MAX: usize = 250_000;

/// By storage key.
#[derive(Default)]
pub(crate) struct Graves {
    graves: BTreeMap<Bytes, Grave>,
    by_death: BTreeSet<(u64, Bytes)>,
    asked: BTreeMap<Bytes, Asked>,
    age_ms: u64,
}

/// A key that this node was asked about and has not answered for.
struct Asked {
    round: OpId,
    touched: bool,
}

impl Graves {
    /// Neither a grave nor a question.
    pub(crate) fn is_empty(&self) -> bool {
        self.graves.is_empty() && self.asked.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.graves.len()
    }

    /// Whether so many more fit.
    pub(super) fn has_room(&self, keys: usize) -> bool {
        self.graves.len() + self.asked.len() + keys <= GRAVES_MAX
    }

    pub(crate) fn get(&self, storage_key: &Bytes) -> Option<&Grave> {
        self.graves.get(storage_key)
    }

    /// Something is written under a key.
    pub(crate) fn touch(&mut self, storage_key: &Bytes) {
        if self.is_empty() {
            return;
        }
        if let Some(asked) = self.asked.get_mut(storage_key) {
            asked.touched = true;
        }
        if let Some(grave) = self.graves.get_mut(storage_key) {
            grave.touched = true;
        }
    }

    /// Whatever was written under a key since its grave was dug is done, or has failed: a read from now on finds it.
    pub(super) fn settle(&mut self, storage_key: &Bytes) {
        if let Some(grave) = self.graves.get_mut(storage_key) {
            grave.touched = false;
        }
    }

    /// From now on it is known whether something is written under a key.
    pub(super) fn ask(&mut self, storage_key: Bytes, round: OpId) {
        self.asked.insert(storage_key, Asked { round, touched: false });
    }

    /// Whether nothing was written under a key since it was asked about in `round`.
    pub(super) fn is_untouched(&self, storage_key: &Bytes, round: OpId) -> bool {
        self.asked.get(storage_key).is_some_and(|asked| asked.round == round && !asked.touched)
    }

    /// The question is answered.
    pub(super) fn answered(&mut self, storage_key: &Bytes, round: OpId) {
        if self.asked.get(storage_key).is_some_and(|asked| asked.round == round) {
            self.asked.remove(storage_key);
        }
    }

    /// When a grave dug now is forgotten, by the clock of graves.
    pub(super) fn dies_at(&self, lasts_ms: u64) -> u64 {
        self.age_ms.saturating_add(lasts_ms)
    }

    /// Digs a grave, in place of the one that was there.
    pub(super) fn dig(&mut self, storage_key: Bytes, grave: Grave) {
        self.by_death.insert((grave.dies_at, storage_key.clone()));
        if let Some(older) = self.graves.insert(storage_key.clone(), grave.clone())
            && older.dies_at != grave.dies_at
        {
            self.by_death.remove(&(older.dies_at, storage_key));
        }
    }

    /// Whether a key has the grave of `round`.
    pub(super) fn holds(&self, storage_key: &Bytes, round: OpId) -> bool {
        self.graves.get(storage_key).is_some_and(|grave| grave.round == round)
    }

    /// So much of this node's life has passed.
    pub(super) fn grow_old(&mut self, by_ms: u64) {
        self.age_ms = self.age_ms.saturating_add(by_ms);
        while let Some((dies_at, _)) = self.by_death.first()
            && *dies_at <= self.age_ms
        {
            if let Some((_, storage_key)) = self.by_death.pop_first() {
                self.graves.remove(&storage_key);
            }
        }
    }
}
