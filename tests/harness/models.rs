//! What a state of a shipped type must mean: which operations it holds, kept beside the bytes.
//!
//! ```text
//!   Apply(state, operation) ─▶ bytes      held(bytes) = held(state) + this application
//!   Merge(states)           ─▶ bytes      held(bytes) = all that the states hold
//! ```
//!
//! A type folds its history into sums, so its bytes alone cannot say what got lost. The model forgets nothing: each
//! application of an operation is remembered with what the state before it held. Each answer of a plugin is read and
//! compared with the model at once (`properties/c15_*.rs`), and at the end the model says which writes are left (C1).
//! In: calls and answers. Out: what is held, and what each reading may be. Absent: judgement.

use crate::history::OpIndex;
use bytes::Bytes;
use merganser_core::id::Dot;
use merganser_core::version::DotSet;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

/// An operation of a shipped type, as a client means it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeOp {
    /// Counters: adds an amount.
    Count(i64),
    /// Sets: an element is there.
    Add(u8),
    /// Sets: it is not.
    Remove(u8),
    /// Maps: a field has a value.
    Set(u8, u64),
    /// Maps: it has none.
    Unset(u8),
}

impl TypeOp {
    /// In the plugin's language.
    pub fn bytes(&self) -> Bytes {
        match self {
            TypeOp::Count(amount) => format!("{amount:+}"),
            TypeOp::Add(element) => format!(r#"{{"add":"e{element}"}}"#),
            TypeOp::Remove(element) => format!(r#"{{"remove":"e{element}"}}"#),
            TypeOp::Set(field, value) => format!(r#"{{"set":{{"e{field}":{value}}}}}"#),
            TypeOp::Unset(field) => format!(r#"{{"remove":"e{field}"}}"#),
        }
        .into()
    }

    /// The element or field that it is about.
    pub fn place(&self) -> Option<u8> {
        match self {
            TypeOp::Count(_) => None,
            TypeOp::Add(place) | TypeOp::Remove(place) | TypeOp::Set(place, _) | TypeOp::Unset(place) => {
                Some(*place)
            }
        }
    }
}

/// How elements and fields are called.
pub fn place_name(place: u8) -> String {
    format!("e{place}")
}

/// Applications, by their index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held(Vec<u64>);

impl Held {
    fn insert(&mut self, index: usize) {
        if self.0.len() <= index / 64 {
            self.0.resize(index / 64 + 1, 0);
        }
        self.0[index / 64] |= 1 << (index % 64);
    }

    /// Whether it is among them.
    pub fn contains(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    fn join(&mut self, other: &Held) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(ours, theirs)| *ours |= theirs);
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let bits = |(word, bits): (usize, &u64)| {
            let bits = *bits;
            (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word * 64 + bit)
        };
        self.0.iter().enumerate().filter(|(_, bits)| **bits != 0).flat_map(bits)
    }
}

/// An operation applied to a state, once: a retry at another coordinator is another application of it.
#[derive(Clone, Debug)]
pub struct Application {
    /// The client's request.
    pub op: OpIndex,
    /// What the host gave it.
    pub dot: Dot,
    /// What it does.
    pub what: TypeOp,
    /// What the state before it held; where its client sent a context, what of that the context covers.
    pub saw: Rc<Held>,
}

/// All states of shipped types that a plugin has made.
#[derive(Debug, Default)]
pub struct Models {
    applications: Vec<Application>,
    states: HashMap<Bytes, Rc<Held>>,
    /// Answers of resolvers, and the writes in the values that they were made from.
    resolved: HashMap<Bytes, Vec<u64>>,
    /// Answers to queries.
    queried: HashSet<Bytes>,
}

impl Models {
    /// What a state holds; None if no plugin made it.
    pub fn held(&self, state: &Bytes) -> Option<Rc<Held>> {
        self.states.get(state).cloned()
    }

    /// An application.
    pub fn application(&self, index: usize) -> &Application {
        &self.applications[index]
    }

    /// The requests whose operations a state holds; None if no plugin made it.
    pub fn ops(&self, state: &Bytes) -> Option<BTreeSet<OpIndex>> {
        let held = self.states.get(state)?;
        Some(held.iter().map(|index| self.applications[index].op).collect())
    }

    /// A plugin has applied an operation. Of an operation that the state holds already nothing changes.
    pub fn applied(
        &mut self,
        before: Option<&Bytes>,
        (op, dot, what): (OpIndex, Dot, TypeOp),
        seen: Option<&DotSet>,
        after: &Bytes,
    ) -> Option<Rc<Held>> {
        let there = match before {
            Some(before) => self.held(before)?,
            None => Rc::default(),
        };
        if there.iter().any(|index| self.applications[index].op == op) {
            return Some(self.holds(after, &there));
        }
        let known = self.applications.iter().position(|known| known.op == op && known.dot == dot);
        let index = known.unwrap_or(self.applications.len());
        if known.is_none() {
            let saw = match seen {
                Some(seen) => Rc::new(self.within(&there, seen)),
                None => there.clone(),
            };
            self.applications.push(Application { op, dot, what, saw });
        }
        let mut held = (*there).clone();
        held.insert(index);
        Some(self.holds(after, &Rc::new(held)))
    }

    /// Those of them that a context covers.
    fn within(&self, held: &Held, context: &DotSet) -> Held {
        let mut within = Held::default();
        let covered = held.iter().filter(|index| context.contains(self.applications[*index].dot));
        covered.for_each(|index| within.insert(index));
        within
    }

    /// A plugin has merged states; None if one of them was made by nobody.
    pub fn merged(&mut self, states: &[Bytes], after: &Bytes) -> Option<Rc<Held>> {
        let mut held = Held::default();
        for state in states {
            held.join(self.states.get(state)?.as_ref());
        }
        Some(self.holds(after, &Rc::new(held)))
    }

    /// Equal bytes may come about in several ways: they hold all that any of these says, and are read accordingly.
    fn holds(&mut self, state: &Bytes, held: &Rc<Held>) -> Rc<Held> {
        let known = self.states.entry(state.clone()).or_insert_with(|| held.clone());
        if known != held {
            let mut both = (**known).clone();
            both.join(held);
            *known = Rc::new(both);
        }
        known.clone()
    }

    /// A resolver has made a value from values that hold these writes.
    pub fn resolved(&mut self, answer: &Bytes, ids: Vec<u64>) {
        self.resolved.entry(answer.clone()).or_insert(ids);
    }

    /// The writes in a resolver's answer; None if it is none.
    pub fn ids_of_answer(&self, answer: &Bytes) -> Option<&[u64]> {
        self.resolved.get(answer).map(Vec::as_slice)
    }

    /// A plugin has answered a query.
    pub fn queried(&mut self, answer: &Bytes) {
        if !self.queried.contains(answer) {
            self.queried.insert(answer.clone());
        }
    }

    /// Whether a plugin ever gave this answer to a query.
    pub fn was_answered(&self, answer: &Bytes) -> bool {
        self.queried.contains(answer)
    }

    /// The sum that a counter must show: each request counts once.
    pub fn sum(&self, held: &Held) -> i128 {
        let mut counted = BTreeSet::new();
        let amounts = held.iter().filter_map(|index| {
            let application = &self.applications[index];
            match application.what {
                TypeOp::Count(amount) if counted.insert(application.op) => Some(i128::from(amount)),
                _ => None,
            }
        });
        amounts.sum()
    }

    fn of_place<'a>(&'a self, held: &'a Held, place: u8) -> impl Iterator<Item = (usize, &'a Application)> {
        let all = held.iter().map(|index| (index, &self.applications[index]));
        all.filter(move |(_, application)| application.what.place() == Some(place))
    }

    /// The elements that a set must show, and those that it may: two copies of one addition may have met removals apart.
    pub fn elements(&self, held: &Held, places: u8) -> (BTreeSet<u8>, BTreeSet<u8>) {
        let (mut must, mut may) = (BTreeSet::new(), BTreeSet::new());
        for place in 0..places {
            let mut removed = Held::default();
            let removals = |application: &Application| matches!(application.what, TypeOp::Remove(_));
            for (_, removal) in self.of_place(held, place).filter(|(_, a)| removals(a)) {
                removed.join(&removal.saw);
            }
            let removed_ops: BTreeSet<OpIndex> =
                removed.iter().map(|index| self.applications[index].op).collect();
            for (index, addition) in self.of_place(held, place).filter(|(_, a)| !removals(a)) {
                if !removed.contains(index) {
                    may.insert(place);
                }
                if !removed_ops.contains(&addition.op) {
                    must.insert(place);
                }
            }
        }
        (must, may)
    }

    /// What a map may show for a field: a write that no other one in it had seen.
    pub fn candidates<'a>(&'a self, held: &'a Held, place: u8) -> Vec<&'a TypeOp> {
        let writes: Vec<(usize, &Application)> = self.of_place(held, place).collect();
        let mut seen = Held::default();
        writes.iter().for_each(|(_, write)| seen.join(&write.saw));
        writes.iter().filter(|(index, _)| !seen.contains(*index)).map(|(_, write)| &write.what).collect()
    }
}
