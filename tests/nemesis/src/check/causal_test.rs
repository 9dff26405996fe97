//! A good history, and what is noticed when one thing in it is otherwise.

use super::{Findings, Kind, Rules};
use crate::history::{Act, Holds, KeyHistory, Micros, Outcome, Read, Saw, Shown, Write};
use merganser_client::{ActorId, Dot};

fn dot(counter: u64) -> Dot {
    Dot { actor: ActorId(7), counter }
}

fn dots(counters: &[u64]) -> Vec<Dot> {
    counters.iter().map(|counter| dot(*counter)).collect()
}

/// The write with this id is version 7:id; it takes ten microseconds.
fn write(id: u64, act: Act, seen: &[u64], begin: Micros, outcome: Outcome) -> Write {
    Write { id, act, seen: dots(seen), begin, end: begin + 10, outcome, sloppy: false, ttl: None }
}

fn put(id: u64, seen: &[u64], begin: Micros) -> Write {
    write(id, Act::Put, seen, begin, Outcome::Acked(Some(dot(id))))
}

fn version(id: u64) -> Shown {
    Shown { dots: dots(&[id]), holds: Holds::Value(id), stamp: (id, 0), merged_from: Vec::new() }
}

fn tombstone(id: u64) -> Shown {
    Shown { holds: Holds::Tombstone, ..version(id) }
}

fn saw(shown: &[Shown]) -> Saw {
    Saw::Versions(shown.to_vec())
}

fn read(begin: Micros, shown: &[Shown]) -> Read {
    Read { begin, end: begin + 10, saw: saw(shown), sloppy: false }
}

/// 1 is overwritten by 2, beside which 3 was put blindly; 4 deletes both; 5 comes after that.
fn good() -> (KeyHistory, Saw) {
    let writes = vec![
        put(1, &[], 0),
        put(2, &[1], 100),
        put(3, &[], 100),
        write(4, Act::Delete, &[2, 3], 300, Outcome::Acked(Some(dot(4)))),
        put(5, &[4], 500),
    ];
    let reads = vec![
        read(50, &[version(1)]),
        read(200, &[version(2), version(3)]),
        read(400, &[tombstone(4)]),
        read(600, &[version(5)]),
    ];
    (KeyHistory { writes, reads }, saw(&[version(5)]))
}

fn judge(history: &KeyHistory, end: &Saw) -> Vec<String> {
    judge_under(history, end, &Rules::default())
}

fn judge_under(history: &KeyHistory, end: &Saw, rules: &Rules) -> Vec<String> {
    judge_as(Kind::Causal, history, end, rules)
}

fn judge_as(kind: Kind, history: &KeyHistory, end: &Saw, rules: &Rules) -> Vec<String> {
    let mut findings = Findings::default();
    findings.judge(kind, "plain/k", history, end, rules);
    findings.violations.into_iter().map(|violation| violation.property).collect()
}

#[test]
fn what_is_right_is_not_complained_about() {
    let (history, end) = good();
    assert_eq!(judge(&history, &end), [""; 0]);
}

#[test]
fn an_acknowledged_write_that_is_gone_is_lost() {
    let (mut history, end) = good();
    history.writes.push(put(6, &[], 700));
    assert_eq!(judge(&history, &end), ["C1"]);
    // Nobody promised anything about it.
    history.writes[5].outcome = Outcome::Uncertain(Some(dot(6)));
    assert_eq!(judge(&history, &end), [""; 0]);
}

#[test]
fn an_overwrite_that_had_not_seen_it_is_no_excuse() {
    let (mut history, end) = good();
    history.writes[4].seen = Vec::new();
    history.writes[3].seen = dots(&[3]);
    history.reads.clear();
    assert_eq!(judge(&history, &end), ["C1", "C1"], "neither 1 nor 2 was seen by what is there");
}

#[test]
fn a_collected_tombstone_still_accounts_for_what_it_had_seen() {
    let (mut history, _) = good();
    history.writes.pop();
    history.reads.truncate(3);
    assert_eq!(judge(&history, &saw(&[])), [""; 0]);
    // Of a delete that was refused nothing follows.
    history.writes[3].outcome = Outcome::Refused;
    history.reads.truncate(2);
    assert_eq!(judge(&history, &saw(&[])), ["C1", "C1", "C1"]);
}

#[test]
fn a_delete_of_unknown_fate_may_have_been_the_one() {
    let (mut history, _) = good();
    history.writes.pop();
    history.reads.truncate(2);
    history.writes[3].outcome = Outcome::Uncertain(None);
    assert_eq!(judge(&history, &saw(&[tombstone(99)])), [""; 0]);
}

#[test]
fn what_was_deleted_does_not_come_back() {
    let (mut history, _) = good();
    assert_eq!(judge(&history, &saw(&[version(3), version(5)])), ["C4"]);
    history.reads.push(read(800, &[version(5), version(2)]));
    assert_eq!(judge(&history, &saw(&[version(5)])), ["C4"], "nor in a read");
}

#[test]
fn a_retrys_second_version_of_a_value_is_not_the_one_that_was_overwritten() {
    let (mut history, _) = good();
    let twin = Shown { dots: dots(&[33]), ..version(3) };
    assert_eq!(judge(&history, &saw(&[twin.clone(), version(5)])), [""; 0]);
    // And it keeps an acknowledged value readable.
    history.writes.push(put(6, &[], 700));
    let twin = Shown { dots: dots(&[66]), ..version(6) };
    assert_eq!(judge(&history, &saw(&[twin, version(5)])), [""; 0]);
}

#[test]
fn a_read_shows_what_was_acknowledged_before_it() {
    let (mut history, end) = good();
    history.reads[1] = read(200, &[version(2)]);
    assert_eq!(judge(&history, &end), ["C8"], "3 is missing");
    history.reads[1] = read(105, &[version(2)]);
    assert_eq!(judge(&history, &end), [""; 0], "3 was not acknowledged yet");
    history.reads[1] = read(200, &[]);
    assert_eq!(judge(&history, &end), ["C8", "C8"]);
}

#[test]
fn stale_reads_are_seen_as_such() {
    let (mut history, end) = good();
    history.reads[3] = read(600, &[tombstone(4)]);
    assert_eq!(judge(&history, &end), ["C8"]);
    history.reads[3].sloppy = true;
    assert_eq!(judge(&history, &end), [""; 0], "it said so");
    history.reads[3].sloppy = false;
    let stale = std::iter::once(550..605).collect();
    assert_eq!(judge_under(&history, &end, &Rules { stale, ..Rules::default() }), [""; 0], "a disk was lost");
    let stale = std::iter::once(550..600).collect();
    assert_eq!(
        judge_under(&history, &end, &Rules { stale, ..Rules::default() }),
        ["C8"],
        "and is whole again"
    );
}

#[test]
fn an_overwritten_version_in_a_fresh_read_has_risen() {
    let (mut history, end) = good();
    history.reads[1] = read(200, &[version(1), version(2), version(3)]);
    assert_eq!(judge(&history, &end), ["C4"]);
}

#[test]
fn phantoms_are_told() {
    let (mut history, end) = good();
    history.reads.push(read(700, &[version(5), Shown { dots: dots(&[9]), ..version(99) }]));
    assert_eq!(judge(&history, &end), ["C9"], "nobody put 99");
    history.reads.pop();
    history.reads.push(read(700, &[version(5), Shown { holds: Holds::Foreign, ..version(9) }]));
    assert_eq!(judge(&history, &end), ["C9"], "bytes of nobody");
    history.reads.pop();
    history.writes.push(write(6, Act::Put, &[], 650, Outcome::Refused));
    history.reads.push(read(700, &[version(5), version(6)]));
    assert_eq!(judge(&history, &end), ["C9"], "what was refused");
}

#[test]
fn a_stored_resolution_accounts_for_what_it_was_made_of() {
    let writes = vec![put(1, &[], 0), put(2, &[], 0)];
    let resolution =
        Shown { dots: dots(&[50]), holds: Holds::Value(2), stamp: (3, 0), merged_from: dots(&[1, 2]) };
    let reads = vec![read(100, std::slice::from_ref(&resolution))];
    let mut history = KeyHistory { writes, reads };
    assert_eq!(judge(&history, &saw(std::slice::from_ref(&resolution))), [""; 0]);
    history.writes.push(put(3, &[50], 200));
    assert_eq!(judge(&history, &saw(&[version(3)])), [""; 0], "and so does what was put over it");
    // One that saw only 2.
    let narrow = Shown { merged_from: dots(&[2]), ..resolution };
    history.writes.pop();
    history.reads.clear();
    assert_eq!(judge(&history, &saw(&[narrow])), ["C1"]);
}

#[test]
fn behind_a_resolution_that_nobody_saw_nothing_is_decided() {
    let writes = vec![put(1, &[], 0), put(2, &[50], 100)];
    let history = KeyHistory { writes, reads: Vec::new() };
    let mut findings = Findings::default();
    findings.judge(Kind::Causal, "settled/k", &history, &saw(&[version(2)]), &Rules::default());
    assert_eq!((findings.violations.len(), findings.looked.undecided), (0, 1));

    // Nor where a delete had seen what was made of it: 9 is a resolution of 3 and of 8, which nobody saw.
    let made = Shown { dots: dots(&[9]), merged_from: dots(&[3, 8]), ..version(3) };
    let writes = vec![
        put(1, &[], 0),
        put(2, &[1], 100),
        put(3, &[], 200),
        write(4, Act::Delete, &[9], 400, Outcome::Acked(Some(dot(4)))),
    ];
    let history = KeyHistory { writes, reads: vec![read(300, &[made])] };
    assert_eq!(judge(&history, &saw(&[])), [""; 0]);
}

#[test]
fn a_long_history_takes_time_in_proportion() {
    // A chain of 20,000 versions, each read once: a search that walked the chain for each read would not end.
    let before = |id: u64| if id == 1 { Vec::new() } else { vec![id - 1] };
    let writes = (1..=20_000).map(|id| put(id, &before(id), id * 100)).collect();
    let reads = (1..=20_000).map(|id| read(id * 100 + 50, &[version(id)])).collect();
    assert_eq!(judge(&KeyHistory { writes, reads }, &saw(&[version(20_000)])), [""; 0]);
}

#[test]
fn a_value_that_ends_is_there_until_then_and_not_after() {
    let mut first = put(1, &[], 0);
    first.ttl = Some(1000);
    let mut second = put(2, &[1], 500);
    second.ttl = Some(1000);
    let rules = |end| Rules { clocks_apart: 100, end, ..Rules::default() };
    let judge = |reads: &[Read], end: &[Shown]| {
        let history = KeyHistory { writes: vec![first.clone(), second.clone()], reads: reads.to_vec() };
        judge_under(&history, &saw(end), &rules(3000))
    };
    assert_eq!(judge(&[read(600, &[version(2)]), read(2000, &[tombstone(2)])], &[]), [""; 0]);
    assert_eq!(judge(&[read(600, &[])], &[]), ["C8"], "too early");
    assert_eq!(judge(&[read(1400, &[])], &[]), [""; 0], "a clock may be ahead");
    assert_eq!(judge(&[read(2000, &[version(2)])], &[]), ["C4"], "too late");
    assert_eq!(judge(&[], &[version(2)]), ["C4"]);
}

#[test]
fn of_byte_equal_versions_only_the_first_ones_receipt_is_shown() {
    let history =
        KeyHistory { writes: vec![put(1, &[], 0), put(2, &[], 0), put(3, &[], 0)], reads: Vec::new() };
    let mut both = Shown { dots: dots(&[50, 60]), merged_from: dots(&[1, 2]), ..version(2) };
    let judge =
        |kind, shown: &Shown| judge_as(kind, &history, &saw(std::slice::from_ref(shown)), &Rules::default());
    assert_eq!(judge(Kind::Settled, &both), [""; 0], "the second may be made of 3");
    both.dots.pop();
    assert_eq!(judge(Kind::Settled, &both), ["C1"], "the first is not");
}
