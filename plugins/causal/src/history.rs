//! Which operations a state contains, and what they add up to.
//!
//! An operation has a dot `(actor, counter)` from the host and an id from the client. For each actor the latest
//! operations are kept one by one ([`WINDOW`] of them), older ones are folded into a sum:
//!
//! ```text
//!   actor A:   everything up to 40, summed │ 41 id sum │ 44 id sum │ … at most WINDOW
//!              of those in the sum, spent: 37 id │ …      only those of which another actor keeps a copy
//! ```
//!
//! Folding happens only where an operation of that very actor is applied, never in a join. So of two histories the one
//! with the higher mark has folded at least what the other has, and the join (higher mark with its sum, later
//! operations of both) is commutative, associative and idempotent on every pair of histories.
//!
//! *What is relied on:* an actor's operation on a key is shown a state that contains that actor's earlier
//! operations on it, all but the latest `WINDOW`. An operation that comes later than that is rejected, not lost.
//! *Retries:* an operation whose id is among the kept ones changes nothing. If a retry was applied on both sides
//! of a partition, both copies are kept and counted once. Of several the lowest dot counts, unless one was counted already: when such a
//! one is folded its id stays behind, spent, for as long as another actor keeps a copy, that of an actor that is gone perhaps
//! for ever. A copy that nobody has seen before the other one was folded counts again.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use merganser_plugin_sdk::{Operation, Rejection};

use crate::codec::{Reader, Writer};

/// Operations kept one by one for each actor.
pub const WINDOW: usize = 32;

/// What operations add up to. Sets and maps, which keep no sum, use `()`.
pub trait Tally: Clone + Default + PartialEq {
    /// The sum of both.
    fn add(&mut self, other: &Self);
    /// The least upper bound of both, for sums that should be equal.
    fn join(&mut self, other: &Self);
    /// To bytes.
    fn write(&self, writer: &mut Writer);
    /// From bytes.
    fn read(reader: &mut Reader<'_>) -> Result<Self, Rejection>;
}

impl Tally for () {
    fn add(&mut self, (): &()) {}
    fn join(&mut self, (): &()) {}
    fn write(&self, _: &mut Writer) {}
    fn read(_: &mut Reader<'_>) -> Result<(), Rejection> {
        Ok(())
    }
}

/// What recording an operation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is new: its effect is to be added.
    New,
    /// It was known: nothing may change.
    Known,
}

/// See the head of this file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History<T> {
    actors: BTreeMap<u64, Actor<T>>,
}

#[derive(Debug, Clone, PartialEq, Default)]
struct Actor<T> {
    /// Every operation up to this counter is folded.
    mark: u64,
    folded: T,
    recent: BTreeMap<u64, Entry<T>>,
    /// Ids of operations in `folded` of which another actor keeps a copy. Follows from what this actor folded, as `folded` does.
    spent: BTreeMap<u64, u64>,
}

#[derive(Debug, Clone, PartialEq)]
struct Entry<T> {
    /// Digest of the operation's id; 0 for none.
    id: u64,
    sum: T,
}

impl<T: Tally> History<T> {
    /// Whether the operation with this dot is in it.
    pub fn contains(&self, (actor, counter): (u64, u64)) -> bool {
        let actor = self.actors.get(&actor);
        actor.is_some_and(|actor| counter <= actor.mark || actor.recent.contains_key(&counter))
    }

    /// Adds an operation that is worth `sum`, unless it is known.
    pub fn record(&mut self, operation: &Operation, sum: T) -> Result<Outcome, Rejection> {
        let id = digest(&operation.op_id);
        let known_id = |entry: &Entry<T>| id != 0 && entry.id == id;
        if self.is_spent(id) || self.actors.values().any(|actor| actor.recent.values().any(known_id)) {
            return Ok(Outcome::Known);
        }
        let dot = operation.dot.order();
        if dot.1 == 0 || self.contains(dot) {
            return Err(Rejection::forbidden("operation has a dot that the state already contains"));
        }
        self.actors.entry(dot.0).or_default().recent.insert(dot.1, Entry { id, sum });
        self.fold(dot.0);
        Ok(Outcome::New)
    }

    /// Folds the oldest operations of an actor while there are more than the window holds.
    fn fold(&mut self, of: u64) {
        while let Some(actor) = self.actors.get(&of)
            && actor.recent.len() > WINDOW
            && let Some((&counter, entry)) = actor.recent.first_key_value()
        {
            let (id, own) = (entry.id, (of, counter));
            let is_counted = self.is_spent(id) || self.copies(id).any(|dot| dot < own);
            let has_copies = self.copies(id).any(|dot| dot != own);
            let spent = actor.spent.clone().into_iter().filter(|&(_, id)| self.copies(id).next().is_some());
            let spent = spent.chain((!is_counted && has_copies).then_some((counter, id))).collect();
            let actor = self.actors.get_mut(&of).expect("it was just looked at");
            let (_, entry) = actor.recent.pop_first().expect("it was just looked at");
            (actor.mark, actor.spent) = (counter, spent);
            if !is_counted {
                actor.folded.add(&entry.sum);
            }
        }
    }

    /// Whether an operation with this id is in somebody's sum.
    fn is_spent(&self, id: u64) -> bool {
        id != 0 && self.actors.values().any(|actor| actor.spent.values().any(|&spent| spent == id))
    }

    fn copies(&self, id: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.actors.iter().filter(move |_| id != 0).flat_map(move |(&actor, history)| {
            let with_id = history.recent.iter().filter(move |(_, entry)| entry.id == id);
            with_id.map(move |(&counter, _)| (actor, counter))
        })
    }

    /// What all operations add up to, copies counted once.
    pub fn total(&self) -> T {
        let mut total = T::default();
        let spent = self.actors.values().flat_map(|actor| actor.spent.values().copied());
        let mut seen: BTreeSet<u64> = spent.collect();
        for actor in self.actors.values() {
            total.add(&actor.folded);
            for entry in actor.recent.values() {
                if entry.id == 0 || seen.insert(entry.id) {
                    total.add(&entry.sum);
                }
            }
        }
        total
    }

    /// Becomes the least upper bound of both.
    pub fn join(&mut self, other: &History<T>) {
        for (&id, theirs) in &other.actors {
            let ours = self.actors.entry(id).or_default();
            match ours.mark.cmp(&theirs.mark) {
                Ordering::Less => {
                    (ours.mark, ours.folded) = (theirs.mark, theirs.folded.clone());
                    ours.spent = theirs.spent.clone();
                }
                Ordering::Equal => {
                    ours.folded.join(&theirs.folded);
                    for (&counter, &id) in &theirs.spent {
                        let ours = ours.spent.entry(counter).or_insert(id);
                        *ours = id.max(*ours);
                    }
                }
                Ordering::Greater => {}
            }
            for (&counter, entry) in &theirs.recent {
                let ours = ours.recent.entry(counter).or_insert_with(|| entry.clone());
                ours.id = ours.id.max(entry.id);
                ours.sum.join(&entry.sum);
            }
            let mark = ours.mark;
            ours.recent.retain(|&counter, _| counter > mark);
        }
    }

    /// To bytes.
    pub fn write(&self, writer: &mut Writer) {
        writer.number(self.actors.len() as u128);
        for (&id, actor) in &self.actors {
            writer.number(id.into());
            writer.number(actor.mark.into());
            actor.folded.write(writer);
            writer.number(actor.recent.len() as u128);
            for (&counter, entry) in &actor.recent {
                writer.number(counter.into());
                writer.number(entry.id.into());
                entry.sum.write(writer);
            }
            writer.number(actor.spent.len() as u128);
            for (&counter, &id) in &actor.spent {
                writer.number(counter.into());
                writer.number(id.into());
            }
        }
    }

    /// From bytes.
    pub fn read(reader: &mut Reader<'_>) -> Result<History<T>, Rejection> {
        let mut actors = BTreeMap::new();
        for _ in 0..reader.count()? {
            let id = reader.number64()?;
            let mut actor = Actor { mark: reader.number64()?, folded: T::read(reader)?, ..Actor::default() };
            if actor.mark == 0 && actor.folded != T::default() {
                return Err(Rejection::malformed("a sum of no operations"));
            }
            let mut last = actor.mark;
            for _ in 0..reader.count()? {
                let counter = reader.number64()?;
                if counter <= last {
                    return Err(Rejection::malformed("operations are not in order"));
                }
                last = counter;
                actor.recent.insert(counter, Entry { id: reader.number64()?, sum: T::read(reader)? });
            }
            if last == 0 || actors.last_key_value().is_some_and(|(&before, _)| id <= before) {
                return Err(Rejection::malformed("actors are empty or not in order"));
            }
            for _ in 0..reader.count()? {
                let (counter, spent) = (reader.number64()?, reader.number64()?);
                let is_next = actor.spent.last_key_value().is_none_or(|(&before, _)| before < counter);
                if counter == 0 || counter > actor.mark || spent == 0 || !is_next {
                    return Err(Rejection::malformed(
                        "spent ids are of no operation in the sum, or not in order",
                    ));
                }
                actor.spent.insert(counter, spent);
            }
            actors.insert(id, actor);
        }
        Ok(History { actors })
    }
}

/// FNV-1a, and never 0 but for the empty id.
fn digest(id: &[u8]) -> u64 {
    if id.is_empty() {
        return 0;
    }
    let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    id.iter().fold(0xcbf2_9ce4_8422_2325, step).max(1)
}

#[cfg(test)]
#[path = "history_test.rs"]
mod tests;
