//! Which operations a state contains, and what they add up to.
//!
//! An operation has a dot `(actor, counter)` and a span `(previous, counter]` from the host, and an id from the client. For
//! each actor the latest operations are kept one by one, older ones are folded:
//!
//! ```text
//!   actor A:   (0, 40] sum 71, ids 7/1-9 │ (40, 41] id +1 │ (80, 81] id +1 │ …
//! ```
//!
//! Only the actor that applies an operation folds, only its own spans, and only those that follow one another without a
//! gap; so a span contains everything that its actor did in it, and a join can keep the larger of two of which one lies
//! within the other. An actor that has forgotten its earlier operations (a stand-in whose hints went home) goes on with
//! spans that lie apart from them, and nothing swallows anything.
//!
//! *Retries.* An operation whose id is in the state changes nothing. If a retry was applied on both sides of a partition, both
//! copies are kept and counted once: the lowest dot, unless one was folded as counted. Ids are kept for
//! [`RETENTION_MS`](crate::RETENTION_MS), and up to [`IDS_MAX`] runs of them. What cannot hold is said in
//! `docs/decisions/operations-once.md`.

use std::collections::{BTreeMap, BTreeSet};

use merganser_plugin_sdk::{Operation, Rejection};

use crate::codec::{Reader, Writer};
use crate::ids::{Names, OpId, Run, Runs, is_old, minute_of};
use crate::spans::Spans;

/// Runs of ids kept of an actor's folded operations.
pub const IDS_MAX: usize = 4096;
/// More than are kept one by one are let grow before they are folded, so that not each operation folds one.
const SLACK: usize = 32;
/// Counters that no actor reaches; a state that claims more was not made by operations.
const COUNTER_MAX: u128 = 1 << 53;

/// What operations add up to. Sets and maps, which keep no sum, use `()`.
pub trait Tally: Clone + Default + Ord {
    /// Operations with an id that are kept one by one for each actor while they are younger than the retention.
    const ONE_BY_ONE_MAX: usize;
    /// The sum of both.
    fn add(&mut self, other: &Self);
    /// To bytes.
    fn write(&self, writer: &mut Writer);
    /// From bytes.
    fn read(reader: &mut Reader<'_>) -> Result<Self, Rejection>;
}

impl Tally for () {
    const ONE_BY_ONE_MAX: usize = 0;
    fn add(&mut self, (): &()) {}
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
pub struct History<T: Ord> {
    actors: BTreeMap<u64, Spans<Said<T>>>,
    /// What was taken off: spans as somebody saw them, with what they were worth then.
    cleared: BTreeMap<u64, Spans<T>>,
}

/// What is said of a span. A folded one comes after a single one in order: of two equal spans it says more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Said<T> {
    /// One operation, with its id and minute if it has an id.
    One(Option<(OpId, u64)>, T),
    /// Everything that the actor did in it. The ids are those of operations that the sum counts.
    Many(T, Runs),
}

impl<T: Tally> History<T> {
    /// Whether the operation with this dot is in it.
    pub fn contains(&self, (actor, counter): (u64, u64)) -> bool {
        self.actors.get(&actor).is_some_and(|spans| spans.contains(counter))
    }

    /// Adds an operation that is worth `sum`, unless it is known.
    pub fn record(&mut self, operation: &Operation, sum: T) -> Result<Outcome, Rejection> {
        let id = OpId::of(&operation.op_id);
        if id.is_some_and(|id| self.knows(id)) {
            return Ok(Outcome::Known);
        }
        let (actor, counter) = operation.dot.order();
        if u128::from(counter) > COUNTER_MAX || operation.previous >= counter {
            return Err(Rejection::forbidden("operation has a dot that no actor issues"));
        }
        let spans = self.actors.entry(actor).or_default();
        if spans.upto() >= counter {
            return Err(Rejection::forbidden(
                "somebody put a state here that claims later operations of this node: delete the key, or restart the node",
            ));
        }
        // Beyond what the host knows of lies only what came with a state that a client put; it must not be swallowed.
        let after = operation.previous.max(spans.upto());
        let minute = minute_of(operation.at.millis);
        spans.insert(after, counter, Said::One(id.map(|id| (id, minute)), sum));
        self.fold(actor, minute);
        Ok(Outcome::New)
    }

    fn knows(&self, id: OpId) -> bool {
        self.ones().any(|(_, (known, _), _)| known == id) || self.spent().iter().any(|runs| runs.contains(id))
    }

    /// Operations with an id that are kept one by one: dot, id and minute, worth.
    fn ones(&self) -> impl Iterator<Item = ((u64, u64), (OpId, u64), &T)> {
        self.actors.iter().flat_map(|(&actor, spans)| {
            spans.iter().filter_map(move |(_, upto, said)| match said {
                Said::One(Some(named), sum) => Some(((actor, upto), *named, sum)),
                Said::One(None, _) | Said::Many(..) => None,
            })
        })
    }

    /// The ids of operations that are in somebody's sum.
    fn spent(&self) -> Vec<&Runs> {
        let spans = self.actors.values().flat_map(Spans::iter);
        let runs = spans.filter_map(|(_, _, said)| match said {
            Said::Many(_, runs) => Some(runs),
            Said::One(..) => None,
        });
        runs.collect()
    }

    /// Of each id the lowest dot that counts, if none was counted already.
    fn counted(&self) -> BTreeMap<OpId, (u64, u64)> {
        let (spent, mut counted) = (self.spent(), BTreeMap::new());
        for (dot, (id, _), _) in self.ones() {
            if !spent.iter().any(|runs| runs.contains(id)) {
                counted.entry(id).or_insert(dot);
            }
        }
        counted
    }

    /// Folds what its actor did long ago, or more than is kept one by one.
    fn fold(&mut self, of: u64, now: u64) {
        let Some(spans) = self.actors.get(&of) else { return };
        let named = spans.iter().filter(|(_, _, said)| matches!(said, Said::One(Some(_), _))).count();
        let too_many = match named > T::ONE_BY_ONE_MAX + SLACK {
            true => named - T::ONE_BY_ONE_MAX,
            false => 0,
        };
        let mut ranked = 0;
        let mut due = |said: &Said<T>| match said {
            Said::One(None, _) | Said::Many(..) => true,
            Said::One(Some((_, minute)), _) => {
                ranked += 1;
                ranked <= too_many || is_old(*minute, now)
            }
        };
        // Groups of two or more that are due and follow one another.
        let mut groups: Vec<Vec<(u64, u64)>> = vec![Vec::new()];
        for (after, upto, said) in spans.iter() {
            let is_due = due(said);
            let follows = groups.last().and_then(|group| group.last()).is_some_and(|last| last.1 == after);
            match groups.last_mut() {
                Some(group) if is_due && (follows || group.is_empty()) => group.push((after, upto)),
                _ => groups.push(if is_due { vec![(after, upto)] } else { Vec::new() }),
            }
        }
        groups.retain(|group| group.len() > 1);
        if !groups.is_empty() {
            self.fold_groups(of, now, &groups);
        }
    }

    fn fold_groups(&mut self, of: u64, now: u64, groups: &[Vec<(u64, u64)>]) {
        let counted = self.counted();
        let Some(spans) = self.actors.get(&of) else { return };
        // Copies that stay one by one: their ids must be known for as long.
        let is_folded = |(actor, upto): (u64, u64)| {
            let folded = |group: &Vec<(u64, u64)>| group.iter().any(|span| span.1 == upto);
            actor == of && groups.iter().any(folded)
        };
        let left: BTreeSet<OpId> = match T::ONE_BY_ONE_MAX {
            0 => BTreeSet::new(),
            _ => self.ones().filter(|(dot, ..)| !is_folded(*dot)).map(|(_, (id, _), _)| id).collect(),
        };
        let mut larger = Vec::new();
        for group in groups {
            let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
            let (mut sum, mut ids) = (T::default(), Vec::new());
            let within = |after: u64, upto: u64| first.0 <= after && upto <= last.1;
            for (after, upto, said) in spans.iter().filter(|(after, upto, _)| within(*after, *upto)) {
                match said {
                    Said::One(None, worth) => sum.add(worth),
                    Said::One(Some((id, minute)), worth) if counted.get(id) == Some(&(of, upto)) => {
                        sum.add(worth);
                        ids.push(Run { first: *id, last: id.sequence, minute: *minute });
                    }
                    Said::One(Some(_), _) => {
                        self.cleared_of(of, after, upto).into_iter().for_each(|off| sum.add(off));
                    }
                    Said::Many(worth, runs) => {
                        sum.add(worth);
                        ids.extend(runs.iter().copied());
                    }
                }
            }
            let mut runs = Runs::of(ids);
            runs.retain(now, &left, IDS_MAX);
            larger.push((first.0, last.1, Said::Many(sum, runs)));
        }
        let spans = self.actors.entry(of).or_default();
        larger.into_iter().for_each(|(after, upto, said)| spans.insert(after, upto, said));
    }

    /// Folds all that these actors did. They never write again, and all replicas hold the same of them.
    pub fn retire(&mut self, actors: &[u64]) {
        let minutes = self.actors.values().flat_map(Spans::iter).filter_map(|(_, _, said)| match said {
            Said::One(named, _) => named.map(|(_, minute)| minute),
            Said::Many(_, runs) => runs.iter().map(|run| run.minute).max(),
        });
        let now = minutes.max().unwrap_or(0);
        for of in actors {
            let Some(spans) = self.actors.get(of) else { continue };
            let all: Vec<(u64, u64)> = spans.iter().map(|(after, upto, _)| (after, upto)).collect();
            // Nothing will ever lie in the gaps between them.
            if all.len() > 1 {
                self.fold_groups(*of, now, &[all]);
            }
            if let Some(spans) = self.cleared.get_mut(of) {
                let after = spans.iter().next().map_or(0, |(after, _, _)| after);
                let upto = spans.upto();
                let mut off = T::default();
                spans.iter().for_each(|(_, _, sum)| off.add(sum));
                spans.insert(after, upto, off);
            }
        }
    }

    /// Each span of each actor with what it counts for.
    fn worth(&self) -> Vec<(u64, (u64, u64), T)> {
        let counted = self.counted();
        let mut worth = Vec::new();
        for (&actor, spans) in &self.actors {
            for (after, upto, said) in spans.iter() {
                let sum = match said {
                    Said::One(Some((id, _)), _) if counted.get(id) != Some(&(actor, upto)) => {
                        self.cleared_of(actor, after, upto).cloned().unwrap_or_default()
                    }
                    Said::One(_, sum) | Said::Many(sum, _) => sum.clone(),
                };
                worth.push((actor, (after, upto), sum));
            }
        }
        worth
    }

    /// What was taken off for exactly this span. A copy that counts no more is worth just that, so that both come to nothing.
    fn cleared_of(&self, actor: u64, after: u64, upto: u64) -> Option<&T> {
        self.cleared.get(&actor)?.get(after, upto)
    }

    /// All that counts now counts no more. What comes later, or was done elsewhere meanwhile, does.
    pub fn clear(&mut self) {
        for (actor, (after, upto), sum) in self.worth() {
            self.cleared.entry(actor).or_default().insert(after, upto, sum);
        }
    }

    /// What all operations add up to, copies counted once; and what is to be taken off it.
    pub fn totals(&self) -> (T, T) {
        let (mut total, mut off) = (T::default(), T::default());
        self.worth().iter().for_each(|(_, _, sum)| total.add(sum));
        self.cleared.values().flat_map(Spans::iter).for_each(|(_, _, sum)| off.add(sum));
        (total, off)
    }

    /// Becomes the least upper bound of both.
    pub fn join(&mut self, other: &History<T>) {
        for (&actor, spans) in &other.actors {
            self.actors.entry(actor).or_default().join(spans);
        }
        for (&actor, spans) in &other.cleared {
            self.cleared.entry(actor).or_default().join(spans);
        }
    }

    /// To bytes.
    pub fn write(&self, writer: &mut Writer) {
        let all = || self.actors.values().flat_map(Spans::iter);
        let sessions = all().flat_map(|(_, _, said)| match said {
            Said::One(named, _) => named.iter().map(|(id, _)| id.session).collect::<Vec<_>>(),
            Said::Many(_, runs) => runs.iter().map(|run| run.first.session).collect(),
        });
        let mut names = Names::of(sessions.collect());
        names.write_table(writer);
        writer.number(self.actors.len() as u128);
        for (&actor, spans) in &self.actors {
            writer.number(actor.into());
            write_spans(writer, spans, |said| said.kind(), |writer, said| said.write(writer, &mut names));
        }
        writer.number(self.cleared.len() as u128);
        for (&actor, spans) in &self.cleared {
            writer.number(actor.into());
            write_spans(writer, spans, |_| 0, |writer, sum| sum.write(writer));
        }
    }

    /// From bytes.
    pub fn read(reader: &mut Reader<'_>) -> Result<History<T>, Rejection> {
        let mut names = Names::read_table(reader)?;
        let actors =
            read_actors(reader, 3, |reader, kind| Said::read(reader, kind, &mut names), |_, _| true)?;
        names.finish()?;
        let mut history = History { actors, cleared: BTreeMap::new() };
        let is_there =
            |actor, spans: &Spans<T>| spans.iter().all(|(_, upto, _)| history.contains((actor, upto)));
        history.cleared = read_actors(reader, 1, |reader, _| T::read(reader), is_there)?;
        Ok(history)
    }
}

impl<T: Tally> Said<T> {
    fn kind(&self) -> u8 {
        match self {
            Said::One(None, _) => 0,
            Said::One(Some(_), _) => 1,
            Said::Many(..) => 2,
        }
    }

    fn write(&self, writer: &mut Writer, names: &mut Names) {
        match self {
            Said::One(named, sum) => {
                if let Some((id, minute)) = named {
                    names.write(writer, *id, *minute);
                }
                sum.write(writer);
            }
            Said::Many(sum, runs) => {
                sum.write(writer);
                names.write_runs(writer, runs);
            }
        }
    }

    fn read(reader: &mut Reader<'_>, kind: u8, names: &mut Names) -> Result<Said<T>, Rejection> {
        Ok(match kind {
            0 => Said::One(None, T::read(reader)?),
            1 => Said::One(Some(names.read(reader)?), T::read(reader)?),
            _ => Said::Many(T::read(reader)?, names.read_runs(reader)?),
        })
    }
}

/// Spans as bytes: their beginnings by the distance from one to the next, their lengths with a small number beside.
fn write_spans<P: Ord>(
    writer: &mut Writer,
    spans: &Spans<P>,
    kind: impl Fn(&P) -> u8,
    mut write: impl FnMut(&mut Writer, &P),
) {
    writer.number(spans.len() as u128);
    let mut last = 0;
    for (after, upto, said) in spans.iter() {
        writer.number((after - last).into());
        writer.number(u128::from(upto - after) << 2 | u128::from(kind(said)));
        write(writer, said);
        last = after;
    }
}

fn read_actors<P: Ord>(
    reader: &mut Reader<'_>,
    kinds: u8,
    mut read: impl FnMut(&mut Reader<'_>, u8) -> Result<P, Rejection>,
    is_there: impl Fn(u64, &Spans<P>) -> bool,
) -> Result<BTreeMap<u64, Spans<P>>, Rejection> {
    let mut actors: BTreeMap<u64, Spans<P>> = BTreeMap::new();
    for _ in 0..reader.count()? {
        let actor = reader.number64()?;
        if actors.last_key_value().is_some_and(|(&before, _)| actor <= before) {
            return Err(Rejection::malformed("actors are not in order"));
        }
        let spans = read_spans(reader, kinds, &mut read)?;
        if !is_there(actor, &spans) {
            return Err(Rejection::malformed("what the history does not have is cleared"));
        }
        actors.insert(actor, spans);
    }
    Ok(actors)
}

fn read_spans<P: Ord>(
    reader: &mut Reader<'_>,
    kinds: u8,
    mut read: impl FnMut(&mut Reader<'_>, u8) -> Result<P, Rejection>,
) -> Result<Spans<P>, Rejection> {
    let mut spans = Spans::default();
    let (mut last_after, mut last_upto) = (0, 0);
    let count = reader.count()?;
    for n in 0..count {
        let after = u128::from(last_after) + reader.number(COUNTER_MAX)?;
        let head = reader.number(COUNTER_MAX << 2 | 3)?;
        let (upto, kind) = (after + (head >> 2), (head & 3) as u8);
        if upto > COUNTER_MAX || kind >= kinds {
            return Err(Rejection::malformed("a span is out of range"));
        }
        let (after, upto) = (after as u64, upto as u64);
        if upto == after || upto <= last_upto || (n > 0 && after == last_after) {
            return Err(Rejection::malformed("spans are empty or not in order"));
        }
        spans.insert(after, upto, read(reader, kind)?);
        (last_after, last_upto) = (after, upto);
    }
    match spans.is_empty() {
        true => Err(Rejection::malformed("an actor without spans")),
        false => Ok(spans),
    }
}

#[cfg(test)]
#[path = "history_test.rs"]
mod tests;
