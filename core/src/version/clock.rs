//! Version vectors and claims: which dots something has seen or contains.
//!
//! A [`VersionVector`] entry `A:5` covers every dot of `A` *of this key* up to 5 (R13). Counters
//! run over all keys of an actor, so a key's dots of one actor have gaps between them. A
//! [`Claim`] says exactly which dots a lattice fragment contains: intervals `(after, upto]`
//! between consecutive dots of this key, so that a join of a million puts stays one interval,
//! and a fragment never claims what it does not contain (R5).
//!
//! In: dots. Out: coverage. Absent: values.

use crate::id::{ActorId, Dot};
use std::collections::BTreeMap;

/// For each actor, the highest counter seen; sorted by actor, without zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct VersionVector {
    entries: Vec<(ActorId, u64)>,
}

impl VersionVector {
    /// Seen nothing.
    pub fn new() -> VersionVector {
        VersionVector::default()
    }

    /// From entries in strictly ascending order of actors, without zeros; None otherwise.
    pub fn from_sorted(entries: Vec<(ActorId, u64)>) -> Option<VersionVector> {
        let ascending = entries.windows(2).all(|pair| pair[0].0 < pair[1].0);
        (ascending && entries.iter().all(|(_, counter)| *counter > 0)).then_some(VersionVector { entries })
    }

    /// The highest counter seen of `actor`; 0 if none.
    pub fn get(&self, actor: ActorId) -> u64 {
        match self.entries.binary_search_by_key(&actor, |entry| entry.0) {
            Ok(index) => self.entries[index].1,
            Err(_) => 0,
        }
    }

    /// Whether this has seen `dot`.
    pub fn covers(&self, dot: Dot) -> bool {
        dot.counter <= self.get(dot.actor)
    }

    /// Sees `dot` and, with it, every earlier one of its actor.
    pub fn add(&mut self, dot: Dot) {
        assert!(dot.counter > 0, "counters begin at 1");
        match self.entries.binary_search_by_key(&dot.actor, |entry| entry.0) {
            Ok(index) => self.entries[index].1 = self.entries[index].1.max(dot.counter),
            Err(index) => self.entries.insert(index, (dot.actor, dot.counter)),
        }
    }

    /// Sees all that `other` has seen.
    pub fn join(&mut self, other: &VersionVector) {
        for &(actor, counter) in &other.entries {
            self.add(Dot { actor, counter });
        }
    }

    /// Whether this has seen all that `other` has.
    pub fn dominates(&self, other: &VersionVector) -> bool {
        other.entries.iter().all(|&(actor, counter)| self.get(actor) >= counter)
    }

    /// Actor and counter, by actor.
    pub fn iter(&self) -> impl Iterator<Item = (ActorId, u64)> + '_ {
        self.entries.iter().copied()
    }

    /// How many actors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Seen nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Exactly which dots of a key are contained: for each actor disjoint intervals `(after, upto]`,
/// ascending, none touching the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    spans: BTreeMap<ActorId, Vec<(u64, u64)>>,
}

impl Claim {
    /// A single put: `dot`, which follows `previous`, its actor's last dot of this key (0: none).
    pub fn single(dot: Dot, previous: u64) -> Claim {
        assert!(previous < dot.counter, "a dot follows the one before it");
        Claim { spans: BTreeMap::from([(dot.actor, vec![(previous, dot.counter)])]) }
    }

    /// From decoded spans; None unless they are in canonical form.
    pub fn from_spans(spans: BTreeMap<ActorId, Vec<(u64, u64)>>) -> Option<Claim> {
        let canonical = spans.values().all(|spans| {
            !spans.is_empty()
                && spans.iter().all(|(after, upto)| after < upto)
                && spans.windows(2).all(|pair| pair[0].1 < pair[1].0)
        });
        canonical.then_some(Claim { spans })
    }

    /// Also contains all of `other`.
    pub fn join(&mut self, other: &Claim) {
        for (actor, spans) in &other.spans {
            let mine = self.spans.entry(*actor).or_default();
            mine.extend(spans);
            mine.sort_unstable();
            let mut joined: Vec<(u64, u64)> = Vec::with_capacity(mine.len());
            for &(after, upto) in mine.iter() {
                match joined.last_mut() {
                    Some(last) if after <= last.1 => last.1 = last.1.max(upto),
                    _ => joined.push((after, upto)),
                }
            }
            *mine = joined;
        }
    }

    /// Whether every dot of this is one of `other`.
    pub fn within(&self, other: &Claim) -> bool {
        self.spans.iter().all(|(actor, spans)| {
            let theirs = other.spans.get(actor).map_or(&[][..], Vec::as_slice);
            spans.iter().all(|(after, upto)| theirs.iter().any(|(from, to)| from <= after && upto <= to))
        })
    }

    /// Whether `vv` has seen every dot of this.
    pub fn within_vector(&self, vv: &VersionVector) -> bool {
        self.spans.iter().all(|(actor, spans)| spans.last().is_none_or(|(_, upto)| vv.get(*actor) >= *upto))
    }

    /// Whether it contains `dot`.
    pub fn contains(&self, dot: Dot) -> bool {
        let spans = self.spans.get(&dot.actor).map_or(&[][..], Vec::as_slice);
        spans.iter().any(|(after, upto)| *after < dot.counter && dot.counter <= *upto)
    }

    /// The highest counter of each actor.
    pub fn add_to(&self, vv: &mut VersionVector) {
        for (actor, spans) in &self.spans {
            if let Some((_, counter)) = spans.last() {
                vv.add(Dot { actor: *actor, counter: *counter });
            }
        }
    }

    /// Actors with their spans.
    pub fn spans(&self) -> &BTreeMap<ActorId, Vec<(u64, u64)>> {
        &self.spans
    }
}
