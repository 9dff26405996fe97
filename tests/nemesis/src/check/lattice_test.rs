//! Sets and counters that are right, and what is noticed where one is not.

use super::{Findings, Kind, Rules};
use crate::history::{Act, KeyHistory, Micros, Outcome, Read, Saw, Write};

fn write(id: u64, act: Act, begin: Micros, outcome: Outcome) -> Write {
    Write { id, act, seen: Vec::new(), begin, end: begin + 10, outcome, sloppy: false, ttl: None }
}

const ACKED: Outcome = Outcome::Acked(None);
const UNCERTAIN: Outcome = Outcome::Uncertain(None);

fn judge(kind: Kind, writes: &[Write], reads: &[(Micros, Saw)], end: Saw) -> Vec<String> {
    let read = |(begin, saw): &(Micros, Saw)| Read {
        begin: *begin,
        end: begin + 10,
        saw: saw.clone(),
        sloppy: false,
    };
    let history = KeyHistory { writes: writes.to_vec(), reads: reads.iter().map(read).collect() };
    let mut findings = Findings::default();
    findings.judge(kind, "k", &history, &end, &Rules::default());
    findings.violations.into_iter().map(|violation| violation.property).collect()
}

#[test]
fn a_set_contains_what_was_acknowledged() {
    let writes = [
        write(1, Act::Add, 0, ACKED),
        write(2, Act::Add, 0, UNCERTAIN),
        write(3, Act::Add, 0, Outcome::Refused),
        write(4, Act::Add, 100, ACKED),
        write(5, Act::Remove(4), 200, UNCERTAIN),
    ];
    let end = |elements: &[u64]| judge(Kind::Set, &writes, &[], Saw::Elements(elements.to_vec()));
    assert_eq!(end(&[1]), [""; 0]);
    assert_eq!(end(&[1, 2, 4]), [""; 0]);
    assert_eq!(end(&[2]), ["C1"]);
    assert_eq!(end(&[1, 3]), ["C9"], "refused");
    assert_eq!(end(&[1, 9]), ["C9"], "nobody's");
    let read = |at, elements: &[u64]| {
        judge(Kind::Set, &writes, &[(at, Saw::Elements(elements.to_vec()))], Saw::Elements(vec![1]))
    };
    assert_eq!(read(50, &[]), ["C8"]);
    assert_eq!(read(5, &[]), [""; 0], "it was not acknowledged yet");
    assert_eq!(judge(Kind::Set, &writes, &[], Saw::Count(1)), ["C9"]);
}

#[test]
fn a_counter_counts_each_increment_once() {
    let writes = [
        write(1, Act::Increment(10), 0, ACKED),
        write(2, Act::Increment(100), 0, UNCERTAIN),
        write(3, Act::Increment(1000), 0, Outcome::Refused),
    ];
    let end = |count| judge(Kind::Counter, &writes, &[], Saw::Count(count));
    assert_eq!((end(10), end(110)), (Vec::new(), Vec::new()));
    assert_eq!((end(9), end(111)), (vec!["C1".into()], vec!["C9".into()]));
    let read = |at, count| judge(Kind::Counter, &writes, &[(at, Saw::Count(count))], Saw::Count(10));
    assert_eq!(read(50, 0), ["C8"]);
    assert_eq!(read(50, 1110), ["C9"]);
    assert_eq!(read(5, 0), [""; 0]);
}
