//! What is known to be wrong with a table, and what of it was given up.
//!
//! In: damage, as reads, walks, compactions and the verifier meet it; spans that `Db::excise` gives up. Out: the
//! damage that is left, numbered in the order in which it was first seen, and whether a key was given up.
//! Deliberately absent: durability. Excised spans are the manifest's; damage is found again after a restart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::key_span::{self, KeySpan};

/// Something in a table that cannot be read as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Counts what was found since the database was opened; `Db::excise` gives up only what was found by then.
    pub number: u64,
    /// The table's number, which is in its file's name.
    pub table: u64,
    /// Where in the file.
    pub offset: u64,
    /// The keys whose state it hides.
    pub keys: KeySpan,
    /// What is wrong.
    pub what: String,
}

/// Numbers damage in the order in which it is found, over all tables of a database.
#[derive(Debug, Default)]
pub(crate) struct DamageNumbers(AtomicU64);

impl DamageNumbers {
    /// The number of the last one found.
    pub(crate) fn last(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }
}

#[derive(Default)]
struct State {
    /// By offset.
    damage: BTreeMap<u64, Damage>,
    /// In order and apart.
    excised: Arc<Vec<KeySpan>>,
}

/// The flags save the common read a lock.
pub(crate) struct Health {
    table: u64,
    numbers: Arc<DamageNumbers>,
    damaged: AtomicBool,
    excised: AtomicBool,
    frail: AtomicBool,
    state: RwLock<State>,
}

impl Health {
    pub(crate) fn new(table: u64, numbers: Arc<DamageNumbers>, excised: Vec<KeySpan>) -> Health {
        Health {
            table,
            numbers,
            damaged: AtomicBool::new(false),
            excised: AtomicBool::new(!excised.is_empty()),
            frail: AtomicBool::new(false),
            state: RwLock::new(State { damage: BTreeMap::new(), excised: Arc::new(excised) }),
        }
    }

    /// Remembers damage. What was given up is none, and what is known keeps its number.
    pub(crate) fn note(&self, offset: u64, keys: &KeySpan, what: &str) {
        let mut state = self.state.write();
        let Some(keys) = hull(&keys.without(&state.excised)) else { return };
        let (table, what) = (self.table, what.to_owned());
        state.damage.entry(offset).or_insert_with(|| {
            tracing::warn!(table, offset, what, "damage in a table");
            Damage { number: self.numbers.next(), table, offset, keys, what }
        });
        self.damaged.store(true, Ordering::SeqCst);
    }

    /// What lies at an offset was read soundly: what was noted there has passed.
    pub(crate) fn clear(&self, offset: u64) {
        if self.is_damaged() {
            let mut state = self.state.write();
            state.damage.remove(&offset);
            self.damaged.store(!state.damage.is_empty(), Ordering::SeqCst);
        }
    }

    /// Whether there is damage that was not given up.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::SeqCst)
    }

    pub(crate) fn damage(&self) -> Vec<Damage> {
        self.state.read().damage.values().cloned().collect()
    }

    /// The parts of known damage up to a number that lie inside a span.
    pub(crate) fn excisable(&self, keys: &KeySpan, seen: u64) -> Vec<KeySpan> {
        let state = self.state.read();
        let known = state.damage.values().filter(|damage| damage.number <= seen);
        known.filter_map(|damage| damage.keys.intersection(keys)).collect()
    }

    /// Gives spans up. Damage that lies inside is none any more.
    pub(crate) fn excise(&self, spans: Vec<KeySpan>) {
        let mut state = self.state.write();
        let mut excised = state.excised.as_ref().clone();
        spans.into_iter().for_each(|span| key_span::add(&mut excised, span));
        state.damage.retain(|_, damage| match hull(&damage.keys.without(&excised)) {
            Some(left) => {
                damage.keys = left;
                true
            }
            None => false,
        });
        state.excised = Arc::new(excised);
        self.excised.store(true, Ordering::SeqCst);
        self.damaged.store(!state.damage.is_empty(), Ordering::SeqCst);
    }

    pub(crate) fn has_excised(&self) -> bool {
        self.excised.load(Ordering::SeqCst)
    }

    pub(crate) fn excised(&self) -> Arc<Vec<KeySpan>> {
        self.state.read().excised.clone()
    }

    pub(crate) fn is_excised(&self, key: &[u8]) -> bool {
        self.has_excised() && key_span::any_contains(&self.state.read().excised, key)
    }

    /// What describes the table is damaged on disk, but not in memory: it should be written anew.
    pub(crate) fn note_frail(&self, what: &str) {
        if !self.frail.swap(true, Ordering::SeqCst) {
            tracing::warn!(table = self.table, what, "a table is to be written anew");
        }
    }

    pub(crate) fn is_frail(&self) -> bool {
        self.frail.load(Ordering::SeqCst)
    }
}

/// The smallest span that holds all of some, which are in order.
fn hull(spans: &[KeySpan]) -> Option<KeySpan> {
    let (first, last) = (spans.first()?, spans.last()?);
    Some(KeySpan { from: first.from.clone(), to: last.to.clone() })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn span(from: &'static str, to: &'static str) -> KeySpan {
        KeySpan { from: Bytes::from(from), to: Bytes::from(to) }
    }

    #[test]
    fn damage_is_given_up_piece_by_piece_and_only_what_was_seen() {
        let numbers = Arc::new(DamageNumbers::default());
        let health = Health::new(7, numbers.clone(), Vec::new());
        health.note(100, &span("c", "g"), "rot");
        health.note(100, &span("c", "g"), "rot, again");
        let seen = numbers.last();
        health.note(200, &span("g", "k"), "later");
        assert_eq!((seen, numbers.last()), (1, 2));
        let first = health.excisable(&span("a", "e"), seen);
        assert_eq!(first, [span("c", "e")]);
        health.excise(first);
        assert!(health.is_excised(b"d") && !health.is_excised(b"e") && health.is_damaged());
        assert_eq!(health.damage()[0].keys, span("e", "g"));
        let rest = health.excisable(&span("a", "z"), seen);
        assert_eq!(rest, [span("e", "g")], "what was found later is not given up");
        health.excise(rest);
        assert_eq!(health.damage().iter().map(|damage| damage.number).collect::<Vec<_>>(), [2]);
        // Met again, what was given up is nothing new.
        health.note(100, &span("c", "g"), "rot");
        assert_eq!(health.damage().len(), 1);
        health.clear(200);
        assert!(!health.is_damaged() && health.has_excised());
    }
}
