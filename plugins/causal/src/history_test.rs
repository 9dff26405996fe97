//! The history against what a list of operations would say.

use std::collections::BTreeMap;

use merganser_plugin_sdk::Stamp;
use merganser_plugin_sdk::testing::{Choices, operation};

use super::*;
use crate::RETENTION_MS;

/// A plain sum, of which few operations are kept one by one.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Sum(u64);

impl Tally for Sum {
    const ONE_BY_ONE_MAX: usize = 100;
    fn add(&mut self, other: &Sum) {
        self.0 += other.0;
    }
    fn write(&self, writer: &mut Writer) {
        writer.number(self.0.into());
    }
    fn read(reader: &mut Reader<'_>) -> Result<Sum, Rejection> {
        reader.number64().map(Sum)
    }
}

type State = History<Sum>;

impl State {
    fn value(&self) -> u64 {
        let (total, off) = self.totals();
        total.0 - off.0
    }

    fn bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new(b"TST1");
        self.write(&mut writer);
        writer.finish()
    }

    fn kept(&self) -> usize {
        self.actors.values().map(Spans::len).sum()
    }
}

fn joined(a: &State, b: &State) -> State {
    let mut joined = a.clone();
    joined.join(b);
    joined
}

/// A node: its actor counts on, also where its state was forgotten.
struct Node {
    actor: u64,
    counter: u64,
    /// What `previous_as_stand_in` remembers.
    last: u64,
    state: State,
}

impl Node {
    fn new(actor: u64) -> Node {
        Node { actor, counter: 0, last: 0, state: State::default() }
    }

    fn add(&mut self, id: &[u8], millis: u64, sum: u64) -> Outcome {
        self.counter += 1;
        let held = self.state.actors.get(&self.actor).map_or(0, Spans::upto);
        let previous = if self.last > 0 && held >= self.last { held } else { self.counter - 1 };
        let mut operation = operation("", self.actor, self.counter);
        (operation.previous, operation.op_id) = (previous, id.to_vec());
        operation.at = Stamp { millis, logical: 0 };
        let outcome = self.state.record(&operation, Sum(sum)).unwrap();
        if outcome == Outcome::New {
            self.last = self.counter;
        }
        outcome
    }

    /// Its hints have gone home.
    fn forget(&mut self) -> State {
        std::mem::take(&mut self.state)
    }
}

fn id(session: u64, sequence: u64) -> Vec<u8> {
    [session.to_be_bytes(), sequence.to_be_bytes()].concat()
}

/// Fault 1.3: of 80 acknowledged additions 40 were counted.
#[test]
fn a_stand_in_that_begins_from_nothing_loses_nothing() {
    for rounds in [[40, 40], [80, 1], [1, 80], [1, 1]] {
        let mut stand_in = Node::new(7);
        let mut home = State::default();
        let mut others = Vec::new();
        for (round, adds) in (1..).zip(rounds) {
            (0..adds).for_each(|n| _ = stand_in.add(&id(round, n), 0, 1));
            others.push(stand_in.forget());
        }
        others.iter().for_each(|hint| home.join(hint));
        assert_eq!(home.value(), rounds.iter().sum::<u64>(), "{rounds:?}");
        others.reverse();
        let mut backwards = State::default();
        others.iter().for_each(|hint| backwards.join(hint));
        assert_eq!(backwards, home);
    }
}

/// N=1, and a stand-in that restarts twice: each boot is an actor of its own, and forgets what the one before kept.
#[test]
fn restarts_of_a_stand_in_lose_nothing() {
    let mut home = Node::new(1);
    for boot in 0..3 {
        let mut stand_in = Node::new(100 + boot);
        (0..40).for_each(|n| _ = stand_in.add(&id(boot, n), 0, 1));
        home.state.join(&stand_in.forget());
        (0..40).for_each(|n| _ = home.add(&id(50 + boot, n), 0, 1));
    }
    assert_eq!(home.state.value(), 240);
}

/// Fault 1.7: +100, 38 others, the first again at another node: 238 instead of 138.
#[test]
fn a_retry_at_another_node_is_known_whatever_came_between() {
    let mut first = Node::new(1);
    first.add(&id(9, 1), 0, 100);
    (0..38).for_each(|n| _ = first.add(&id(8, n), 0, 1));
    let mut other = Node::new(2);
    other.state.join(&first.state);
    assert_eq!(other.add(&id(9, 1), 3_000, 100), Outcome::Known);
    assert_eq!(other.state.value(), 138);
    // Also where the first has folded it.
    (38..1000).for_each(|n| _ = first.add(&id(8, n), 0, 1));
    assert!(first.state.kept() < 200);
    other.state.join(&first.state);
    assert_eq!(other.add(&id(9, 1), 3_000, 100), Outcome::Known);
    assert_eq!(other.add(&id(8, 5), 3_000, 1), Outcome::Known);
    assert_eq!(other.state.value(), 1100);
}

#[test]
fn ids_in_sequence_take_a_few_bytes_and_go_by_age() {
    let mut node = Node::new(1);
    (0..5_000).for_each(|n| _ = node.add(&id(77, n), 1_000 * 60, 1));
    let bytes = node.state.bytes().len();
    assert!(bytes < 2_000, "{bytes} bytes");
    assert!(node.state.knows(OpId { session: 77, sequence: 3 }));
    // Within the retention all are known; after it none but those kept one by one.
    node.add(&id(78, 0), RETENTION_MS + 60_000, 1);
    (1..300).for_each(|n| _ = node.add(&id(78, n), RETENTION_MS + 60_000, 1));
    assert!(node.state.knows(OpId { session: 77, sequence: 3 }));
    (300..600).for_each(|n| _ = node.add(&id(78, n), RETENTION_MS + 300_000, 1));
    assert!(!node.state.knows(OpId { session: 77, sequence: 3 }));
    assert_eq!(node.state.value(), 5_600);
}

#[test]
fn a_copy_of_an_actor_that_is_gone_counts_once_for_ever() {
    for alive in [1, 20] {
        let (mut node, mut gone) = (Node::new(alive), Node::new(9));
        node.add(b"same", 0, 100);
        gone.add(b"same", 0, 100);
        node.state.join(&gone.state);
        for n in 1..500 {
            node.add(&id(1, n), n * 60_000, 1);
            assert_eq!(node.state.value(), 100 + n, "actor {alive}");
        }
        assert_eq!(node.add(b"same", 0, 100), Outcome::Known);
        let before = node.state.clone();
        node.state.join(&gone.state);
        assert_eq!(node.state, before);
        // Once it is known that it is gone, nothing of this is kept.
        let mut retired = before.clone();
        retired.retire(&[9]);
        assert_eq!(retired.value(), before.value());
        assert_eq!(joined(&before, &retired), retired);
    }
}

#[test]
fn what_dead_actors_did_folds_to_one_span() {
    let mut dead = Node::new(3);
    let mut home = State::default();
    for round in 0..20 {
        (0..3).for_each(|n| _ = dead.add(&id(round, n), 0, 1));
        home.join(&dead.forget());
    }
    let mut alive = Node::new(4);
    alive.state = home.clone();
    alive.add(&id(99, 0), 3 * RETENTION_MS, 5);
    let before = alive.state.clone();
    alive.state.retire(&[3, 55]);
    assert_eq!((alive.state.value(), alive.state.actors[&3].len()), (65, 1));
    assert_eq!(joined(&alive.state, &before), alive.state);
    assert!(alive.state.bytes().len() < before.bytes().len() / 4);
}

#[test]
fn a_forged_claim_is_refused_or_harmless() {
    let mut forged = Node::new(1);
    forged.counter = 1 << 52;
    forged.add(b"", 0, 1);
    let mut node = Node::new(1);
    node.add(b"a", 0, 1);
    node.state.join(&forged.state);
    // The operation is refused with words, not swallowed; other actors go on.
    let refused = node.state.clone().record(&operation("", 1, 2), Sum(1)).unwrap_err();
    assert!(refused.message.contains("claims later operations"), "{refused:?}");
    let mut other = Node::new(2);
    other.state.join(&node.state);
    other.add(b"b", 0, 5);
    assert_eq!(other.state.value(), 7);
    assert!(forged.state.record(&operation("", 3, u64::MAX), Sum(1)).is_err());
    let mut writer = Writer::new(b"TST1");
    [0, 1, 1, 1, 0, (u128::from(u64::MAX)) << 2, 1, 0].iter().for_each(|&n| writer.number(n));
    let bytes = writer.finish();
    assert!(State::read(&mut Reader::new(&bytes, b"TST1").unwrap()).is_err());
}

/// Review 3.1.3: the concurrent operation keeps the whole value, whatever came after the delete.
#[test]
fn a_delete_against_a_concurrent_operation_has_one_outcome() {
    for after_delete in [0, 1, 10, 40, 400] {
        let mut node = Node::new(1);
        (0..40).for_each(|n| _ = node.add(&id(1, n), 0, 1));
        let mut other = Node::new(2);
        other.state.join(&node.state);
        other.add(&id(2, 0), 0, 1);
        node.forget();
        node.counter += 1;
        (0..after_delete).for_each(|n| _ = node.add(&id(3, n), 0, 1));
        assert_eq!(joined(&node.state, &other.state).value(), 41 + after_delete);
    }
}

#[test]
fn a_reset_takes_off_what_it_saw_once() {
    let (mut left, mut right) = (Node::new(1), Node::new(2));
    (0..300).for_each(|n| _ = left.add(&id(1, n), 0, 1));
    right.state.join(&left.state);
    right.add(&id(2, 0), 0, 5);
    for node in [&mut left, &mut right] {
        node.add(b"", 0, 0);
        node.state.clear();
        assert_eq!(node.state.value(), 0);
    }
    left.add(&id(1, 1000), 0, 7);
    let both = joined(&left.state, &right.state);
    assert_eq!((both.value(), joined(&right.state, &left.state)), (7, both.clone()));
    left.state = both;
    (2000..2500).for_each(|n| _ = left.add(&id(1, n), 0, 1));
    left.state.join(&right.state);
    assert_eq!(left.state.value(), 507);
    left.state.clear();
    assert_eq!(left.state.value(), 0);
}

/// Several actors, partitions, stand-ins that forget, retries on both sides, folds, joins in any order: each operation that
/// was acknowledged counts exactly once. A copy and what it copies meet before either is folded for its number.
#[test]
fn every_acknowledged_operation_counts_exactly_once() {
    for seed in 0..80u64 {
        let mut choices = Choices::new(&seed.to_le_bytes());
        let mut nodes: Vec<Node> = (1..=4).map(Node::new).collect();
        // Hints on their way home, and what any state ever was.
        let (mut hints, mut states): (Vec<State>, Vec<State>) = Default::default();
        let mut worth: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        let mut millis = 0;
        for round in 0..6u64 {
            millis += choices.below(RETENTION_MS);
            for step in 0..choices.below(120) {
                let at = choices.below(4) as usize;
                match choices.below(20) {
                    0 => {
                        let from = nodes[choices.below(4) as usize].state.clone();
                        nodes[at].state.join(&from);
                    }
                    // The last is a stand-in.
                    1 => hints.push(nodes[3].forget()),
                    2 if !hints.is_empty() => {
                        let hint = hints.swap_remove(choices.below(hints.len() as u64) as usize);
                        nodes[at.min(2)].state.join(&hint);
                    }
                    _ => {
                        let (op, sum) = (id(round, step), 1 + choices.below(100));
                        worth.insert(op.clone(), sum);
                        let copies = if choices.below(6) == 0 { 1 + choices.below(3) } else { 1 };
                        (0..copies).for_each(|copy| {
                            let at = (at + copy as usize) % 4;
                            nodes[at].add(&op, millis + step, sum);
                        });
                    }
                }
                if choices.below(30) == 0 {
                    states.push(nodes[at].state.clone());
                }
            }
            let mut all = State::default();
            hints.push(nodes[3].forget());
            hints.drain(..).for_each(|hint| all.join(&hint));
            nodes[..3].iter().for_each(|node| all.join(&node.state));
            nodes[..3].iter_mut().for_each(|node| node.state = all.clone());
            let expected: u64 = worth.values().sum();
            assert_eq!(all.value(), expected, "seed {seed}, round {round}");
            let of_round = worth.keys().filter_map(|op| OpId::of(op)).filter(|op| op.session == round);
            assert!(of_round.into_iter().all(|op| all.knows(op)), "seed {seed}, round {round}");
            let bytes = all.bytes();
            let mut reader = Reader::new(&bytes, b"TST1").unwrap();
            assert_eq!((State::read(&mut reader).as_ref(), reader.finish()), (Ok(&all), Ok(())));
            states.push(all);
        }
        for _ in 0..30 {
            let [a, b, c] = [(); 3].map(|()| choices.pick(&states).clone());
            assert_eq!(joined(&a, &a), a);
            assert_eq!(joined(&a, &b), joined(&b, &a));
            assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)), "seed {seed}");
        }
    }
}
