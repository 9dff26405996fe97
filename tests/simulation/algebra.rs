//! The algebra of states over random *reachable* histories: what replicas rely on when they join
//! in any order, any number of times.
//!
//! A history is a few replicas that write with contexts, some of them stale, and sync with each
//! other or with states that were sent long ago. In: seeds. Out: laws of sync, writes that
//! dominate what they saw, bytes that come back. Absent: quorums and time.

use bytes::Bytes;
use merganser_core::id::{ActorId, Dot, Millis};
use merganser_core::version::{
    Content, DotSet, Fragments, KeyState, Kind, Register, Siblings, Stamp, Standing, Version, codec,
};
use std::collections::{BTreeMap, BTreeSet};

const HISTORIES: u64 = 400;
const STEPS: u64 = 40;
const REPLICAS: u64 = 3;

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

struct Replica {
    state: KeyState,
    actor: u64,
    /// Counters run over all keys: they have gaps for this one.
    counter: u64,
}

/// Some of all states that ever were, and the values of the dots that were issued.
struct History {
    states: Vec<KeyState>,
    issued: BTreeMap<Dot, Bytes>,
}

fn version(dot: Dot, stamp: Stamp, tombstone: bool) -> Version {
    let value = Bytes::from(format!("{}", dot.counter % 5));
    let content = if tombstone { Content::Tombstone } else { Content::Value(value) };
    // Some expire, and some replicas have let go of their bytes.
    let expires_at = (!tombstone && dot.counter.is_multiple_of(3)).then_some(Millis(dot.counter));
    Version { content, stamp, content_type: None, request_id: None, receipt: None, expires_at }
}

fn ids(value: &Bytes) -> BTreeSet<u8> {
    value.iter().copied().collect()
}

fn union(values: impl Iterator<Item = Bytes>) -> Bytes {
    values.flat_map(|value| ids(&value)).collect::<BTreeSet<u8>>().into_iter().collect()
}

fn history(kind: Kind, seed: u64) -> History {
    let mut dice = Dice(seed);
    let new = |actor| Replica { state: KeyState::empty(kind), actor, counter: 0 };
    let mut replicas: Vec<Replica> = (0..REPLICAS).map(|index| new(index + 1)).collect();
    let mut history = History { states: vec![KeyState::empty(kind)], issued: BTreeMap::new() };
    let mut contexts: Vec<DotSet> = vec![DotSet::new()];
    let resets = seed.is_multiple_of(3);
    for step in 0..STEPS {
        let at = dice.below(REPLICAS) as usize;
        match dice.below(10) {
            0..=4 => {
                let replica = &mut replicas[at];
                replica.counter += 1 + dice.below(3);
                let dot = Dot { actor: ActorId(replica.actor), counter: replica.counter };
                // What this replica's client saw: something old, something from elsewhere, or nothing.
                let context = contexts[dice.below(contexts.len() as u64) as usize].clone();
                let stamp = Stamp { millis: 100 + dice.below(8), logical: 0 };
                let seen = replica.state.seen();
                write(&mut replica.state, &context, dot, stamp, &mut dice, resets);
                assert!(replica.state.covers(dot, stamp), "a write is in the state that it made");
                if kind == Kind::Causal {
                    let after = replica.state.seen();
                    assert!(seen.within(&after) && context.within(&after), "a write dominates what it saw");
                }
                let value = Bytes::copy_from_slice(&[(dot.actor.0 * 64 + dot.counter) as u8]);
                history.issued.insert(dot, value);
                let mut own = context;
                own.join(&DotSet::single(dot, seen.last(dot.actor)));
                contexts.push(own);
            }
            // A state that was sent, now or long ago; perhaps the second time.
            5..=8 => {
                let sent = history.states[dice.below(history.states.len() as u64) as usize].clone();
                let reused = replicas[at].state.sync(&sent);
                assert_eq!(reused, []);
            }
            // Bytes of what has expired are let go of.
            9 if dice.below(2) == 0 => {
                replicas[at].state.drop_expired(Millis(u64::MAX));
            }
            // A new incarnation, as after a crash.
            _ => {
                replicas[at].actor = 100 + step * REPLICAS + at as u64;
                replicas[at].counter = 0;
            }
        }
        let state = replicas[at].state.clone();
        contexts.push(state.seen());
        history.states.push(state);
    }
    history
}

fn write(state: &mut KeyState, context: &DotSet, dot: Dot, stamp: Stamp, dice: &mut Dice, resets: bool) {
    let previous = state.seen().last(dot.actor);
    match state {
        KeyState::Causal(siblings) => {
            siblings.write(context, dot, previous, version(dot, stamp, dice.below(4) == 0))
        }
        KeyState::Lww(register) => register.sync(&Register::of(dot, version(dot, stamp, dice.below(4) == 0))),
        KeyState::Lattice(fragments) => match dice.below(6) {
            0 => fragments.delete(context, dot, previous, stamp, resets),
            put => {
                fragments.put(
                    dot,
                    previous,
                    stamp,
                    Bytes::copy_from_slice(&[(dot.actor.0 * 64 + dot.counter) as u8]),
                    if dice.below(4) == 0 { Standing::UNVALIDATED } else { Standing::valid(1) },
                );
                let unjoined: Vec<DotSet> =
                    fragments.unjoined().map(|fragment| fragment.claim.clone()).collect();
                for claim in unjoined {
                    match dice.below(5) {
                        0 => fragments.judge(&claim, Standing::valid(1 + dice.below(2))),
                        1 => fragments.judge(&claim, Standing::aside(1 + dice.below(2), "poison")),
                        _ => false,
                    };
                }
                let claims: Vec<DotSet> = fragments.valid().map(|fragment| fragment.claim.clone()).collect();
                if put > 2 && claims.len() > 1 {
                    let joined = union(fragments.valid().map(|fragment| fragment.value.clone()));
                    fragments.joined(&claims, joined, Standing::valid(1));
                }
            }
        },
    }
}

fn synced(left: &KeyState, right: &KeyState) -> KeyState {
    let mut joined = left.clone();
    assert_eq!(joined.sync(right), []);
    joined
}

/// Fragments that were joined in another order are equal in causality and in content, not in
/// their grouping; everything else is equal in every byte.
fn same(left: &KeyState, right: &KeyState) -> bool {
    match (left, right) {
        (KeyState::Lattice(a), KeyState::Lattice(b)) => {
            let all = |f: &Fragments| union(f.iter().map(|fragment| fragment.value.clone()));
            codec::digest(left) == codec::digest(right) && all(a) == all(b)
        }
        _ => left == right,
    }
}

fn laws(kind: Kind) {
    for seed in 0..HISTORIES {
        let History { states, issued } = history(kind, seed);
        let mut dice = Dice(seed ^ 0xa15e);
        for _ in 0..30 {
            let mut pick = || &states[dice.below(states.len() as u64) as usize];
            let (a, b, c) = (pick(), pick(), pick());
            assert_eq!(synced(a, a), *a, "sync is idempotent (seed {seed})");
            let ab = synced(a, b);
            assert!(same(&ab, &synced(b, a)), "sync commutes (seed {seed}):\n{a:?}\n{b:?}");
            assert!(same(&synced(&ab, b), &ab), "what is in it already changes nothing (seed {seed})");
            let (left, right) = (synced(&ab, c), synced(a, &synced(b, c)));
            assert!(
                same(&left, &right),
                "sync is associative (seed {seed}):\n{a:?}\n{b:?}\n{c:?}\n{left:?}\n{right:?}"
            );
            if kind != Kind::Lww {
                assert!(a.seen().within(&ab.seen()) && b.seen().within(&ab.seen()), "sync dominates both");
            }
            if let KeyState::Lattice(fragments) = &ab {
                for fragment in fragments.iter() {
                    let claimed = issued.iter().filter(|(dot, _)| fragment.claim.contains(**dot));
                    let deletes_too = union(claimed.map(|(_, value)| value.clone()));
                    assert!(
                        ids(&fragment.value).is_subset(&ids(&deletes_too)),
                        "content without a claim (seed {seed})"
                    );
                }
            }
            let record = codec::record(&ab);
            assert_eq!(codec::state(&record).as_ref(), Ok(&ab), "bytes come back (seed {seed})");
            assert_eq!(codec::record(&codec::state(&record).expect("decodes")), record, "and have one form");
            assert_eq!(codec::digest(&ab), codec::digest(&synced(b, a)), "equal causality, equal digest");
        }
    }
}

#[test]
fn siblings_join_in_any_order_and_any_number_of_times() {
    laws(Kind::Causal);
}

#[test]
fn registers_join_in_any_order_and_any_number_of_times() {
    laws(Kind::Lww);
}

#[test]
fn fragments_join_in_any_order_and_any_number_of_times() {
    laws(Kind::Lattice);
}

#[test]
fn siblings_are_exactly_the_writes_that_no_other_known_write_had_seen() {
    // The model: a set of known writes, each with the set of writes that it had seen, transitively.
    for seed in 0..HISTORIES {
        let mut dice = Dice(seed);
        let mut states: Vec<(Siblings, BTreeSet<Dot>)> = vec![Default::default(); REPLICAS as usize];
        let mut saw: BTreeMap<Dot, BTreeSet<Dot>> = BTreeMap::new();
        let mut sent: Vec<(Siblings, BTreeSet<Dot>)> = vec![Default::default()];
        for counter in 1..=STEPS {
            let at = dice.below(REPLICAS) as usize;
            if dice.below(2) == 0 {
                let dot = Dot { actor: ActorId(at as u64 + 1), counter };
                let (context, known) = sent[dice.below(sent.len() as u64) as usize].clone();
                let stamp = Stamp { millis: counter, logical: 0 };
                let previous = states[at].0.seen().last(dot.actor);
                states[at].0.write(context.seen(), dot, previous, version(dot, stamp, false));
                saw.insert(dot, known.clone());
                states[at].1.extend(known);
                states[at].1.insert(dot);
            } else {
                let (state, known) = sent[dice.below(sent.len() as u64) as usize].clone();
                assert_eq!(states[at].0.sync(&state), []);
                states[at].1.extend(known);
            }
            let (state, known) = &states[at];
            let expected: BTreeSet<Dot> = known
                .iter()
                .filter(|dot| !known.iter().any(|later| saw[later].contains(dot)))
                .copied()
                .collect();
            let live: BTreeSet<Dot> = state.iter().map(|(dot, _)| *dot).collect();
            assert_eq!(live, expected, "seed {seed}, step {counter}");
            assert!(known.iter().all(|dot| state.seen().contains(*dot)));
            let issued = saw.keys().filter(|dot| state.seen().contains(**dot)).count();
            assert_eq!(issued, known.len(), "nothing is claimed that was not seen (seed {seed})");
            sent.push(states[at].clone());
        }
    }
}

#[test]
fn a_dot_set_is_a_set_of_dots() {
    // Against a plain set, over dots of one key that each actor issues knowing its own earlier ones.
    for seed in 0..HISTORIES {
        let mut dice = Dice(seed);
        let mut counters = [0u64; 3];
        let mut previous: BTreeMap<Dot, u64> = BTreeMap::new();
        let mut sets: Vec<(DotSet, BTreeSet<Dot>)> = vec![Default::default()];
        for _ in 0..STEPS {
            let actor = dice.below(3) as usize;
            let before = counters[actor];
            counters[actor] += 1 + dice.below(4);
            let dot = Dot { actor: ActorId(actor as u64), counter: counters[actor] };
            previous.insert(dot, before);
            let mut pick = || sets[dice.below(sets.len() as u64) as usize].clone();
            let (mut set, mut model) = pick();
            let (other, others) = pick();
            set.join(&DotSet::single(dot, before));
            model.insert(dot);
            let within = others.is_subset(&model);
            assert_eq!(other.within(&set), within, "seed {seed}: {other:?} in {set:?}");
            set.join(&other);
            model.extend(others);
            assert!(
                previous.keys().all(|dot| set.contains(*dot) == model.contains(dot)),
                "seed {seed}: {set:?}"
            );
            assert_eq!(
                DotSet::from_spans(set.spans().to_vec()).as_ref(),
                Some(&set),
                "canonical (seed {seed})"
            );
            sets.push((set, model));
        }
    }
}
