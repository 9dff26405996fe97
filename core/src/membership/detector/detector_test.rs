//! Suspicion, in numbers: which silences are death, and which are not.

use super::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

const PATIENCE: Patience = Patience { period_ms: 250, phi_suspect: 5.0, phi_down: 8.0 };

/// A member whose heart has beaten regularly for a while, and the time.
fn regular(spacing_ms: u64) -> (Detector, u64) {
    let mut detector = Detector::default();
    let mut at = 0;
    for _ in 0..200 {
        at += spacing_ms;
        detector.heard(at, &PATIENCE);
    }
    (detector, at)
}

/// After how much silence it is suspect, and down.
fn noticed_after(mut detector: Detector, last: u64, multiplier: u32) -> (u64, u64) {
    let mut suspect = None;
    for silence in 0..600_000 {
        let down = detector.look(last + silence, &PATIENCE, multiplier);
        if detector.state() == MemberState::Suspect {
            suspect.get_or_insert(silence);
        }
        if down {
            return (suspect.unwrap_or(silence), silence);
        }
    }
    panic!("never noticed");
}

#[test]
fn a_crash_is_noticed_in_proportion_to_the_usual_spacing_and_the_own_health() {
    for (spacing, multiplier, suspect, down) in [
        (250, 1, 2_879, 4_606),
        (20, 1, 2_879, 4_606),
        (500, 1, 5_757, 9_211),
        (250, 2, 2_879, 9_211),
        (250, 9, 2_879, 41_447),
    ] {
        let (detector, at) = regular(spacing);
        assert_eq!(noticed_after(detector, at, multiplier), (suspect, down), "{spacing} ms, × {multiplier}");
    }
}

#[test]
fn nobody_is_down_in_a_hundred_thousand_beats_of_which_one_in_ten_is_lost() {
    for (seed, lost, jitter_ms) in [(1, 0.1, 100), (2, 0.1, 700), (3, 0.3, 200)] {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut arrivals: Vec<u64> = (1..=100_000u64)
            .filter_map(|beat| {
                let arrives = rng.random::<f64>() >= lost;
                arrives.then(|| beat * 250 + rng.random_range(0..=jitter_ms))
            })
            .collect();
        arrivals.sort_unstable();
        let mut detector = Detector::default();
        let (mut next, mut suspected) = (0, 0);
        for now in (250..=25_000_000).step_by(250) {
            while next < arrivals.len() && arrivals[next] <= now {
                detector.heard(arrivals[next], &PATIENCE);
                next += 1;
            }
            assert!(!detector.look(now, &PATIENCE, 1), "down at {now} ms: lost {lost}, jitter {jitter_ms}");
            suspected += u32::from(next > 0 && detector.state() == MemberState::Suspect);
        }
        assert!(suspected <= 2, "suspected {suspected} times: lost {lost}, jitter {jitter_ms}");
    }
}

#[test]
fn a_member_that_was_down_is_up_after_two_heartbeats_in_a_row_and_not_after_stray_ones() {
    let (mut detector, mut at) = regular(250);
    at += 10_000;
    assert!(detector.look(at, &PATIENCE, 1));
    for _ in 0..3 {
        // One now and then, as a message that was under way for long.
        at += 4_000;
        detector.heard(at, &PATIENCE);
        assert!(!detector.look(at, &PATIENCE, 1), "it goes down only once");
        assert_eq!(detector.state(), MemberState::Down);
    }
    detector.heard(at + 250, &PATIENCE);
    assert_eq!(detector.state(), MemberState::Up);
}

#[test]
fn late_heartbeats_that_come_all_at_once_do_not_make_it_impatient() {
    let (mut detector, mut at) = regular(250);
    for _ in 0..20 {
        at += 1_000;
        (0..4).for_each(|_| detector.heard(at, &PATIENCE));
    }
    let (suspect, _) = noticed_after(detector, at, 1);
    assert!(suspect >= 2_879, "{suspect}");
}

#[test]
fn a_member_that_was_never_heard_of_is_suspect_and_then_down() {
    let mut detector = Detector::default();
    assert_eq!((detector.state(), detector.last_heard_ms()), (MemberState::Suspect, None));
    assert!(!detector.look(250, &PATIENCE, 1));
    assert_eq!(detector.state(), MemberState::Suspect);
    assert!(detector.look(5_000, &PATIENCE, 1));
}

#[test]
fn a_node_that_stood_still_or_whose_clock_jumped_doubts_itself_and_not_its_peers() {
    for (what, jump) in [("a pause of a minute", 60_000i64), ("a clock put forward", 3_000), ("back", -3_000)]
    {
        let mut time = OwnTime::default();
        let (mut detector, mut now) = (Detector::default(), 1_000_000u64);
        let mut beat = |now: u64, time: &mut OwnTime| {
            time.look(Millis(now), 250);
            time.tick();
            detector.heard(time.lived_ms(), &PATIENCE);
        };
        for _ in 0..50 {
            now += 250;
            beat(now, &mut time);
        }
        assert_eq!(time.multiplier(), 1);
        let before = time.lived_ms();
        now = now.saturating_add_signed(jump);
        let put_back = time.look(Millis(now), 250);
        assert_eq!(put_back, jump < 0, "{what}");
        assert!(time.lived_ms() - before <= 500, "{what}: own time is time that was lived");
        assert!(time.multiplier() > 1, "{what}");
        assert!(!detector.look(time.lived_ms(), &PATIENCE, time.multiplier()), "{what}");
        assert_eq!(detector.state(), MemberState::Up, "{what}");
        for _ in 0..20 {
            now += 250;
            time.look(Millis(now), 250);
            time.tick();
        }
        assert_eq!(time.multiplier(), 1, "{what}: health comes back");
    }
}

#[test]
fn an_overloaded_node_is_slower_to_call_others_down() {
    let mut time = OwnTime::default();
    let mut now = 0;
    for _ in 0..20 {
        // Its ticks come every two seconds instead of four times a second.
        now += 2_000;
        time.look(Millis(now), 250);
        time.tick();
    }
    assert_eq!(time.multiplier(), 1 + DOUBT_MAX);
    assert_eq!(time.lived_ms(), 19 * 500);
}
