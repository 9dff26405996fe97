//! Where there may be something to collect: slots, and when to look at them.
//!
//! The write path notes a slot in which a tombstone, an expiring value or a long context was stored; after a
//! boot one slow walk over all keys finds those from before. So nothing is scanned for nothing, and
//! nothing is forgotten. In: notes, looks. Out: the next slot to look at. Absent: the looking.

use crate::id::{KeyspaceId, Millis};
use crate::ring::Slot;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;

/// A slot of a keyspace.
pub(super) type Place = (KeyspaceId, Slot);

/// What is known of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Noted {
    /// Not looked at before.
    pub(super) due: Millis,
    /// Keys of which nothing is live, as of the last look, and since.
    pub(super) keys: u64,
    /// When the oldest of them was.
    pub(super) since: Option<Millis>,
}

/// All that is noted.
#[derive(Default)]
pub(super) struct Index {
    slots: BTreeMap<Place, Noted>,
    /// The walk goes on after this place.
    last: Option<Place>,
}

impl Index {
    /// Something is, or at `due` will be, to be collected in a slot. `since`: a key of which nothing is live.
    pub(super) fn note(&mut self, place: Place, due: Millis, since: Option<Millis>) {
        let noted = self.slots.entry(place).or_insert(Noted { due, keys: 0, since: None });
        noted.due = noted.due.min(due);
        if since.is_some() {
            noted.keys += 1;
            noted.since = noted.since.min(since).or(since);
        }
    }

    /// A slot has been looked at to its end; None: there is nothing in it.
    pub(super) fn looked_at(&mut self, place: Place, noted: Option<Noted>) {
        match noted {
            Some(noted) => drop(self.slots.insert(place, noted)),
            None => drop(self.slots.remove(&place)),
        }
    }

    /// Keys of a slot that are no more.
    pub(super) fn collected(&mut self, place: Place) {
        if let Some(noted) = self.slots.get_mut(&place) {
            noted.keys = noted.keys.saturating_sub(1);
        }
    }

    /// A slot is not looked at before.
    pub(super) fn rest(&mut self, place: Place, until: Millis) {
        if let Some(noted) = self.slots.get_mut(&place) {
            noted.due = noted.due.max(until);
        }
    }

    /// The next slot that is due, in their order and round again.
    pub(super) fn next(&mut self, now: Millis) -> Option<Place> {
        let is_due = |(_, noted): &(&Place, &Noted)| noted.due <= now;
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let further = self.slots.range((after, Bound::Unbounded)).find(is_due);
        let found = further.or_else(|| self.slots.iter().find(is_due)).map(|(place, _)| *place);
        self.last = found;
        found
    }

    /// Whether any slot is due.
    pub(super) fn any_due(&self, now: Millis) -> bool {
        self.slots.values().any(|noted| noted.due <= now)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Place, &Noted)> {
        self.slots.iter()
    }
}

/// The walk over all keys after a boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BootWalk {
    /// Keyspaces still to walk, the present one last.
    pub(super) keyspaces: Vec<KeyspaceId>,
    /// Where in it.
    pub(super) from: Option<Bytes>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_looked_at_in_their_order_and_round_again_when_they_are_due() {
        let mut index = Index::default();
        let place = |slot| (KeyspaceId(1), Slot(slot));
        index.note(place(7), Millis(0), Some(Millis(3)));
        index.note(place(2), Millis(0), Some(Millis(5)));
        index.note(place(9), Millis(50), None);
        let walk: Vec<_> = (0..3).map(|_| index.next(Millis(10))).collect();
        assert_eq!(walk, [Some(place(2)), Some(place(7)), Some(place(2))]);
        index.looked_at(place(2), None);
        index.rest(place(7), Millis(60));
        assert_eq!((index.next(Millis(10)), index.any_due(Millis(10))), (None, false));
        assert_eq!(index.next(Millis(50)), Some(place(9)));
    }

    #[test]
    fn a_slot_remembers_its_oldest_and_counts_its_keys() {
        let mut index = Index::default();
        let place = (KeyspaceId(1), Slot(7));
        index.note(place, Millis(9), Some(Millis(3)));
        index.note(place, Millis(4), Some(Millis(8)));
        index.note(place, Millis(6), None);
        let noted = Noted { due: Millis(4), keys: 2, since: Some(Millis(3)) };
        assert_eq!(index.iter().next(), Some((&place, &noted)));
    }
}
