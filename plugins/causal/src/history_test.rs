//! The history against what a list of operations would say.

use merganser_plugin_sdk::Operation;
use merganser_plugin_sdk::testing::{Choices, operation};

use super::*;

/// A plain sum.
#[derive(Debug, Clone, Default, PartialEq)]
struct Sum(u64);

impl Tally for Sum {
    fn add(&mut self, other: &Sum) {
        self.0 += other.0;
    }
    fn join(&mut self, other: &Sum) {
        self.0 = self.0.max(other.0);
    }
    fn write(&self, writer: &mut Writer) {
        writer.number(self.0.into());
    }
    fn read(reader: &mut Reader<'_>) -> Result<Sum, Rejection> {
        reader.number64().map(Sum)
    }
}

fn record(history: &mut History<Sum>, actor: u64, counter: u64, id: &str, sum: u64) -> Outcome {
    let operation = Operation { op_id: id.into(), ..operation("", actor, counter) };
    history.record(&operation, Sum(sum)).unwrap()
}

#[test]
fn a_retry_is_known_and_changes_nothing() {
    let mut history = History::default();
    assert_eq!(record(&mut history, 1, 1, "a", 5), Outcome::New);
    let before = history.clone();
    assert_eq!(record(&mut history, 1, 2, "a", 5), Outcome::Known);
    assert_eq!(record(&mut history, 2, 9, "a", 5), Outcome::Known);
    assert_eq!(history, before);
    assert_eq!(record(&mut history, 1, 3, "", 1), Outcome::New);
    assert_eq!(record(&mut history, 1, 4, "", 1), Outcome::New);
    assert_eq!(history.total(), Sum(7));
}

#[test]
fn a_retry_on_both_sides_of_a_partition_counts_once_also_after_folding() {
    let (mut left, mut right) = (History::default(), History::default());
    record(&mut left, 1, 1, "same", 100);
    record(&mut right, 2, 1, "same", 100);
    left.join(&right);
    assert_eq!(left.total(), Sum(100));
    // The higher dot folds first: it is worth nothing then, and the lower is free to fold.
    for actor in [2, 1] {
        for counter in 2..=60 {
            record(&mut left, actor, counter, &format!("{actor}/{counter}"), 1);
        }
    }
    assert_eq!(left.total(), Sum(100 + 2 * 59));
}

#[test]
fn a_copy_of_an_actor_that_is_gone_counts_once_for_ever() {
    // Actor 9 is gone and never folds, so its copy stays; the one that counts is the lower or the higher.
    for alive in [1, 20] {
        let (mut state, mut gone) = (History::default(), History::default());
        record(&mut state, alive, 1, "same", 100);
        record(&mut gone, 9, 1, "same", 100);
        state.join(&gone);
        for counter in 2..=500 {
            record(&mut state, alive, counter, &format!("{counter}"), 1);
            assert_eq!(state.total(), Sum(100 + counter - 1), "actor {alive}");
        }
        assert_eq!(record(&mut state, alive, 501, "same", 100), Outcome::Known);
        assert_eq!(record(&mut state, 30, 1, "same", 100), Outcome::Known);
        let before = state.clone();
        state.join(&gone);
        assert_eq!(state, before);
        assert!(state.actors.values().all(|actor| actor.recent.len() <= WINDOW && actor.spent.len() <= 1));
    }
}

#[test]
fn copies_in_any_number_count_once_in_whatever_order_states_meet() {
    for seed in 0..20u64 {
        let mut choices = Choices::new(&seed.to_le_bytes());
        let mut replicas = vec![History::default(); 4];
        let mut counters = [0u64; 4];
        let mut expected = 0;
        // Retries come while no more than the window lies between, each at most once at every replica.
        for round in 0..24u64 {
            for op in 0..8u64 {
                let (sum, copies) = (choices.below(100), 1 + choices.below(4));
                expected += sum;
                let first = choices.below(4);
                for copy in 0..copies {
                    let at = ((first + copy) % 4) as usize;
                    counters[at] += 1;
                    record(&mut replicas[at], at as u64, counters[at], &format!("{round}/{op}"), sum);
                }
            }
            for _ in 0..6 {
                let from = replicas[choices.below(4) as usize].clone();
                replicas[choices.below(4) as usize].join(&from);
            }
            // Not one falls behind by more than the window.
            if round % 3 == 0 {
                let all = replicas.clone();
                replicas.iter_mut().for_each(|replica| all.iter().for_each(|other| replica.join(other)));
            }
        }
        let all = replicas.clone();
        for replica in &mut replicas {
            all.iter().for_each(|other| replica.join(other));
            assert_eq!(replica.total(), Sum(expected), "seed {seed}");
            let mut writer = Writer::new(b"TST1");
            replica.write(&mut writer);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes, b"TST1").unwrap();
            assert_eq!(History::read(&mut reader).as_ref(), Ok(&*replica));
        }
    }
}

#[test]
fn a_dot_below_the_mark_is_rejected_rather_than_lost() {
    let mut history = History::default();
    for counter in 10..60 {
        record(&mut history, 1, counter, "", 1);
    }
    let late = Operation { op_id: b"late".into(), ..operation("", 1, 5) };
    assert!(history.record(&late, Sum(1)).is_err());
    assert_eq!(history.total(), Sum(50));
}

#[test]
fn replicas_that_exchange_states_in_any_order_agree_on_the_sum_of_all_operations() {
    for seed in 0..50u64 {
        let mut choices = Choices::new(&seed.to_le_bytes());
        let mut replicas = vec![History::default(); 3];
        let mut counters = [0u64; 3];
        let mut expected = 0;
        for step in 0..400u64 {
            let at = choices.below(3) as usize;
            if choices.below(3) == 0 {
                let from = replicas[choices.below(3) as usize].clone();
                replicas[at].join(&from);
            } else {
                counters[at] += 1 + choices.below(5);
                let sum = choices.below(100);
                expected += sum;
                record(&mut replicas[at], at as u64, counters[at], &format!("op {step}"), sum);
            }
        }
        let all = replicas.clone();
        for replica in &mut replicas {
            for other in &all {
                replica.join(other);
            }
            assert_eq!(replica.total(), Sum(expected), "seed {seed}");
        }
        assert_eq!(replicas[0], replicas[1], "seed {seed}");

        let mut writer = Writer::new(b"TST1");
        replicas[0].write(&mut writer);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes, b"TST1").unwrap();
        assert_eq!(History::read(&mut reader).as_ref(), Ok(&replicas[0]), "seed {seed}");
        assert_eq!(reader.finish(), Ok(()));
    }
}
