//! The small model, whole: the rules hold in every order of its steps, and each known bug in them
//! shows. Larger bounds take longer: `sim --model`, see `docs/testing.md`.

use merganser_tests::small_model::{Bounds, SPACES, Variant, search};

#[test]
fn no_order_of_puts_crashes_lost_disks_and_collected_deletes_breaks_a_promise() {
    for bounds in SPACES {
        let found = search(bounds, Variant::Production);
        println!("{bounds:?}: {} states, {} steps", found.states, found.steps);
        assert!(found.violation.is_none(), "{bounds:?}: {found:?}");
        assert!(
            found.states > 10_000 && found.collected > 0,
            "deletes are collected in {bounds:?}: {found:?}"
        );
    }
}

#[test]
fn every_known_bug_of_the_rules_shows_in_the_small_model() {
    let bounds = Bounds { puts: 1, deletes: 1, losses: 1, late: 1, crashes: 0 };
    for (variant, expected) in [
        (Variant::StableActor, "C3"),
        (Variant::ReapByTime, "C4"),
        (Variant::OnePass, "C4"),
        (Variant::NoGrave, "C4"),
        (Variant::Overwrite, "C1"),
    ] {
        let more = if variant == Variant::Overwrite { 2 } else { 1 };
        let found = search(Bounds { puts: more, ..bounds }, variant);
        println!("{variant:?}: {} states: {:?}", found.states, found.violation);
        let property = found.violation.map(|(property, ..)| property);
        assert_eq!(property, Some(expected), "{variant:?}");
    }
}
