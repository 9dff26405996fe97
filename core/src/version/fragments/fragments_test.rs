//! What fragments cost, and what verdicts on them come to. The laws over random histories are in `tests/simulation`.

use super::*;
use crate::id::{ActorId, Dot};
use crate::version::{KeyState, clock, codec};

fn dot(actor: u64, counter: u64) -> Dot {
    Dot { actor: ActorId(actor), counter }
}

fn operands(count: u64) -> Fragments {
    let value = Bytes::from_static(b"x");
    let fragment = |counter: u64| Fragment {
        claim: DotSet::single(dot(1, counter), counter - 1),
        value: value.clone(),
        standing: Standing::valid(1),
    };
    let fragments = (1..=count).map(fragment).collect();
    Fragments::from_parts(0, DotSet::new(), Stamp::default(), fragments).expect("operands lie apart")
}

/// B3: a pair of each two was compared, in each put, sync and decode.
#[test]
fn puts_syncs_and_decodes_of_five_thousand_operands_compare_few() {
    const COUNT: u64 = 5_000;
    let record = codec::record(&KeyState::Lattice(operands(COUNT)));
    let cost = |what: &str, act: &mut dyn FnMut()| {
        let before = clock::comparisons();
        act();
        let compared = clock::comparisons() - before;
        assert!(compared <= 8 * COUNT, "{what}: {compared} comparisons");
    };
    let mut state = operands(COUNT);
    cost("a decode", &mut || assert!(codec::state(&record).is_ok()));
    cost("a put", &mut || {
        let value = Bytes::from_static(b"y");
        state.put(dot(2, 1), 0, Stamp::default(), value, Standing::UNVALIDATED);
    });
    cost("what it has seen", &mut || assert_eq!(state.seen().spans().len(), 2));
    let other = operands(COUNT + 500);
    cost("a sync", &mut || state.sync(&other));
    assert_eq!(state.len() as u64, COUNT + 501);
    let claims: Vec<DotSet> = state.valid().map(|fragment| fragment.claim.clone()).collect();
    cost("a join", &mut || state.joined(&claims, Bytes::from_static(b"z"), Standing::valid(1)));
    assert_eq!(state.len(), 2, "the join, and what was not validated");
    cost("a sync of operands that are joined here", &mut || state.sync(&other));
    assert_eq!(state.len(), 2);
}

#[test]
fn of_two_verdicts_on_an_operand_the_greater_counts_in_either_order() {
    let put = |standing: Standing| {
        let mut state = Fragments::default();
        state.put(dot(1, 1), 0, Stamp::default(), Bytes::from_static(b"a"), standing);
        state
    };
    for (less, greater) in [
        (Standing::UNVALIDATED, Standing::valid(1)),
        (Standing::valid(1), Standing::aside(1, "poison")),
        (Standing::aside(1, "poison"), Standing::valid(2)),
    ] {
        let (mut one, mut other) = (put(less.clone()), put(greater.clone()));
        assert_ne!(KeyState::Lattice(one.clone()).digest(), KeyState::Lattice(other.clone()).digest());
        let before = one.clone();
        one.sync(&other);
        other.sync(&before);
        assert_eq!(one, other);
        assert_eq!(one.iter().next().map(|fragment| &fragment.standing), Some(&greater));
        let record = codec::record(&KeyState::Lattice(one.clone()));
        assert_eq!(codec::state(&record), Ok(KeyState::Lattice(one)));
    }
}

#[test]
fn what_contains_an_operand_takes_its_place_whatever_was_said_of_it() {
    let mut state = Fragments::default();
    state.put(dot(1, 1), 0, Stamp::default(), Bytes::from_static(b"a"), Standing::aside(3, "poison"));
    state.put(dot(2, 1), 0, Stamp::default(), Bytes::from_static(b"b"), Standing::valid(1));
    let claims: Vec<DotSet> = state.iter().map(|fragment| fragment.claim.clone()).collect();
    state.joined(&claims, Bytes::from_static(b"ab"), Standing::valid(1));
    assert_eq!((state.len(), state.unjoined().count()), (1, 0));
}
