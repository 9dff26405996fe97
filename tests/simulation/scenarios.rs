//! Bugs of others as stories: each holds, and each bites (`harness/scenarios.rs`).

use merganser_tests::scenarios::SCENARIOS;

#[test]
fn no_known_story_breaks_a_promise() {
    for scenario in &SCENARIOS {
        let (check, trace) = scenario.tell(None);
        assert!(check.is_ok(), "{}: {check:?}\n{trace}", scenario.report);
    }
}

#[test]
fn every_story_bites() {
    for scenario in &SCENARIOS {
        let (check, _) = scenario.tell(Some(scenario.bug));
        assert!(check.is_err(), "{:?} is not noticed by {}", scenario.bug, scenario.report);
    }
}
