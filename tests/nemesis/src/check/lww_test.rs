//! Registers that are right, and what is noticed where one is not.

use super::{Findings, Kind, Rules};
use crate::history::{Act, Holds, KeyHistory, Micros, Outcome, Read, Saw, Shown, Write};
use merganser_client::{ActorId, Dot};

const SECOND: Micros = 1_000_000;

fn dot(id: u64) -> Dot {
    Dot { actor: ActorId(7), counter: id }
}

fn write(id: u64, act: Act, seen: &[u64], begin: Micros) -> Write {
    let seen = seen.iter().map(|id| dot(*id)).collect();
    let outcome = Outcome::Acked(Some(dot(id)));
    Write { id, act, seen, begin, end: begin + 10, outcome, sloppy: false, ttl: None }
}

/// Its stamp is told beside it.
fn version(id: u64, millis: u64) -> Shown {
    Shown { dots: vec![dot(id)], holds: Holds::Value(id), stamp: (millis, 0), merged_from: Vec::new() }
}

fn saw(shown: &[Shown]) -> Saw {
    Saw::Versions(shown.to_vec())
}

fn read(begin: Micros, shown: &[Shown]) -> Read {
    Read { begin, end: begin + 10, saw: saw(shown), sloppy: false }
}

fn judge(writes: &[Write], reads: &[Read], end: &[Shown]) -> Vec<String> {
    let mut findings = Findings::default();
    let history = KeyHistory { writes: writes.to_vec(), reads: reads.to_vec() };
    let rules = Rules { clocks_apart: SECOND, ..Rules::default() };
    findings.judge(Kind::Lww, "register/k", &history, &saw(end), &rules);
    findings.violations.into_iter().map(|violation| violation.property).collect()
}

#[test]
fn of_concurrent_writes_either_may_win() {
    let writes = [write(1, Act::Put, &[], 0), write(2, Act::Put, &[], 5)];
    assert_eq!(judge(&writes, &[], &[version(1, 9)]), [""; 0]);
    assert_eq!(judge(&writes, &[], &[version(2, 9)]), [""; 0]);
}

#[test]
fn a_known_higher_stamp_must_not_vanish() {
    let writes = [write(1, Act::Put, &[], 0), write(2, Act::Put, &[], 5)];
    let reads = [read(100, &[version(2, 20)])];
    assert_eq!(judge(&writes, &reads, &[version(1, 10)]), ["C1"]);
    assert_eq!(judge(&writes, &reads, &[version(1, 30)]), ["C8"], "it was there before the read, and higher");
}

#[test]
fn a_write_beats_what_its_writer_had_seen() {
    let writes = [write(1, Act::Put, &[], 0), write(2, Act::Put, &[1], 100)];
    assert_eq!(judge(&writes, &[], &[version(1, 10)]), ["C1"]);
    assert_eq!(judge(&writes, &[], &[version(2, 11)]), [""; 0]);
}

#[test]
fn a_write_beats_what_ended_long_before_it() {
    let writes = [write(1, Act::Put, &[], 0), write(2, Act::Put, &[], 2 * SECOND)];
    assert_eq!(judge(&writes, &[], &[version(1, 10)]), ["C1"]);
    let near = [write(1, Act::Put, &[], 0), write(2, Act::Put, &[], SECOND / 2)];
    assert_eq!(judge(&near, &[], &[version(1, 10)]), [""; 0], "clocks may be that far apart");
    let mut unknown = writes;
    unknown[0].outcome = Outcome::Uncertain(Some(dot(1)));
    assert_eq!(judge(&unknown, &[], &[version(1, 10)]), [""; 0], "it may have been made at any time");
}

#[test]
fn an_acknowledged_value_that_is_nowhere_is_lost() {
    let writes = [write(1, Act::Put, &[], 0)];
    assert_eq!(judge(&writes, &[], &[]), ["C1"]);
    assert_eq!(judge(&writes, &[read(100, &[])], &[version(1, 1)]), ["C8"]);
    let deleted = [write(1, Act::Put, &[], 0), write(2, Act::Delete, &[], 100)];
    assert_eq!(judge(&deleted, &[], &[]), [""; 0], "its tombstone was collected");
    let again = [write(1, Act::Delete, &[], 0), write(2, Act::Put, &[], 5 * SECOND)];
    assert_eq!(judge(&again, &[], &[]), ["C1"], "the delete came long before");
}

#[test]
fn what_was_deleted_does_not_come_back() {
    let writes = [write(1, Act::Put, &[], 0), write(2, Act::Delete, &[1], 5 * SECOND)];
    assert_eq!(judge(&writes, &[], &[version(1, 10)]), ["C4"]);
}

#[test]
fn a_register_has_one_version_and_it_was_put() {
    let writes = [write(1, Act::Put, &[], 0), write(2, Act::Put, &[], 0)];
    assert_eq!(judge(&writes, &[], &[version(1, 1), version(2, 1)]), ["C10"]);
    assert_eq!(judge(&writes, &[], &[version(9, 1)]), ["C9"]);
    let mut refused = writes;
    refused[0].outcome = Outcome::Refused;
    assert_eq!(judge(&refused, &[], &[version(1, 1)]), ["C9"]);
}
