//! States of the key, each known by a small number: the production [`Siblings`], and what they
//! become by the production operations, each worked out once.
//!
//! A dot is a bit: which node, in which of its lives, which counter. In: numbers of states. Out:
//! numbers of states. Absent: who sends what to whom (`model.rs`).

use bytes::Bytes;
use merganser_core::id::{ActorId, Dot};
use merganser_core::version::{Content, DotSet, Siblings, Span, Stamp, Version};
use std::collections::HashMap;

/// A set of dots of the model.
pub(super) type Dots = u64;
/// A state that the library knows.
pub(super) type StateId = u16;
/// A key never written, or a record that was dropped.
pub(super) const EMPTY: StateId = 0;

pub(super) const NODES: usize = 3;
const LIVES: usize = 3;
const COUNTERS: usize = 5;

/// Where each node goes when nodes are renamed.
pub(super) type Renaming = [u8; NODES];

/// The bit number of a dot.
pub(super) fn dot_at(node: usize, life: usize, counter: usize) -> u8 {
    assert!(node < NODES && life < LIVES && (1..=COUNTERS).contains(&counter), "the model is small");
    ((node * LIVES + life) * COUNTERS + counter - 1) as u8
}

/// The same dot after renaming.
pub(super) fn renamed_dot(dot: u8, to: &Renaming) -> u8 {
    let of_node = (LIVES * COUNTERS) as u8;
    to[usize::from(dot / of_node)] * of_node + dot % of_node
}

/// The same dots after renaming.
pub(super) fn renamed(dots: Dots, to: &Renaming) -> Dots {
    let of_node = (LIVES * COUNTERS) as u32;
    let mask = (1 << of_node) - 1;
    (0..NODES as u32).fold(0, |all, node| {
        all | (dots >> (node * of_node) & mask) << (u32::from(to[node as usize]) * of_node)
    })
}

fn dot(bit: u8) -> Dot {
    let (actor, counter) = (usize::from(bit) / COUNTERS, usize::from(bit) % COUNTERS);
    Dot { actor: ActorId(actor as u64 + 1), counter: counter as u64 + 1 }
}

fn bit(dot: Dot) -> u8 {
    ((dot.actor.0 as usize - 1) * COUNTERS + dot.counter as usize - 1) as u8
}

fn bits(dots: Dots) -> impl Iterator<Item = u8> {
    (0..64u8).filter(move |bit| dots >> bit & 1 == 1)
}

fn dot_set(dots: Dots) -> DotSet {
    let mut set = DotSet::new();
    for bit in bits(dots) {
        let dot = dot(bit);
        set.join(&DotSet::single(dot, dot.counter - 1));
    }
    set
}

fn mask(set: &DotSet) -> Dots {
    let mut all = 0;
    for Span { actor, after, upto } in set.spans().iter().copied() {
        (after + 1..=upto).for_each(|counter| all |= 1 << bit(Dot { actor, counter }));
    }
    all
}

/// The write of a dot: its value says which it is.
fn version(bit: u8, delete: bool) -> Version {
    let content = if delete { Content::Tombstone } else { Content::Value(Bytes::copy_from_slice(&[bit])) };
    let stamp = Stamp::default();
    Version { content, stamp, content_type: None, expires_at: None, request_id: None, receipt: None }
}

/// What a state shows: the dots it has seen, those that are live, those of them that are deletes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) seen: Dots,
    pub(super) live: Dots,
    pub(super) deletes: Dots,
}

impl Shape {
    /// Live, and nothing but deletes.
    pub(super) fn is_deleted(&self) -> bool {
        self.live != 0 && self.live == self.deletes
    }
}

/// All states that came up so far.
pub(super) struct Library {
    states: Vec<(Siblings, Shape)>,
    ids: HashMap<Shape, StateId>,
    synced: HashMap<(StateId, StateId), StateId>,
    filtered: HashMap<(StateId, StateId), StateId>,
    renamed: HashMap<(StateId, Renaming), StateId>,
}

impl Library {
    pub(super) fn new() -> Library {
        let mut library = Library {
            states: Vec::new(),
            ids: HashMap::new(),
            synced: HashMap::new(),
            filtered: HashMap::new(),
            renamed: HashMap::new(),
        };
        assert_eq!(library.add(Siblings::default()), EMPTY);
        library
    }

    pub(super) fn len(&self) -> usize {
        self.states.len()
    }

    pub(super) fn shape(&self, id: StateId) -> Shape {
        self.states[usize::from(id)].1
    }

    fn add(&mut self, state: Siblings) -> StateId {
        let of = |delete: bool| {
            let chosen = state.iter().filter(|(_, version)| !delete || version.content == Content::Tombstone);
            chosen.fold(0, |all, (dot, _)| all | 1 << bit(*dot))
        };
        let shape = Shape { seen: mask(state.seen()), live: of(false), deletes: of(true) };
        let next = StateId::try_from(self.states.len()).expect("a small model has few states of a key");
        let id = *self.ids.entry(shape).or_insert(next);
        if id == next {
            self.states.push((state, shape));
        }
        id
    }

    /// From what it shows.
    fn of_shape(&mut self, shape: Shape) -> StateId {
        if let Some(id) = self.ids.get(&shape) {
            return *id;
        }
        let versions = bits(shape.live).map(|bit| (dot(bit), version(bit, shape.deletes >> bit & 1 == 1)));
        let state = Siblings::from_parts(dot_set(shape.seen), versions.collect());
        self.add(state.expect("what is live was seen"))
    }

    /// The join, by production.
    pub(super) fn sync(&mut self, mine: StateId, theirs: StateId) -> StateId {
        if let Some(id) = self.synced.get(&(mine, theirs)) {
            return *id;
        }
        let mut state = self.states[usize::from(mine)].0.clone();
        let reused = state.sync(&self.states[usize::from(theirs)].0);
        assert_eq!(reused, [], "values follow from dots");
        let id = self.add(state);
        self.synced.insert((mine, theirs), id);
        id
    }

    /// A new write, by production.
    pub(super) fn write(&mut self, to: StateId, context: Dots, bit: u8, delete: bool) -> StateId {
        let mut state = self.states[usize::from(to)].0.clone();
        let previous = state.seen().last(dot(bit).actor);
        state.write(&dot_set(context), dot(bit), previous, version(bit, delete));
        self.add(state)
    }

    /// What of an incoming state passes a grave: what the grave covers is not taken in, the rest
    /// comes with the grave's context.
    pub(super) fn past_grave(&mut self, incoming: StateId, grave: StateId) -> StateId {
        if let Some(id) = self.filtered.get(&(incoming, grave)) {
            return *id;
        }
        let (shape, grave_seen) = (self.shape(incoming), self.shape(grave).seen);
        let id = if shape.seen & !grave_seen == 0 {
            EMPTY
        } else {
            let live = shape.live & !grave_seen;
            self.of_shape(Shape { seen: shape.seen | grave_seen, live, deletes: shape.deletes & live })
        };
        self.filtered.insert((incoming, grave), id);
        id
    }

    /// The same state with nodes renamed.
    pub(super) fn rename(&mut self, id: StateId, to: &Renaming) -> StateId {
        if let Some(id) = self.renamed.get(&(id, *to)) {
            return *id;
        }
        let Shape { seen, live, deletes } = self.shape(id);
        let shape = Shape { seen: renamed(seen, to), live: renamed(live, to), deletes: renamed(deletes, to) };
        let other = self.of_shape(shape);
        self.renamed.insert((id, *to), other);
        other
    }
}
