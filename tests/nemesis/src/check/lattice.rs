//! Sets and counters: what was acknowledged is contained, what is contained was asked for.
//!
//! In: a key's history and its end. Out: violations. An element whose removal was asked for may be
//! there or not: a removal takes away what its replica had seen. Absent: operations twice applied
//! in a set, which do not show; the counter shows them.

use super::{Findings, Rules, causal::seconds};
use crate::history::{Act, KeyHistory, Micros, Outcome, Saw, Write};
use std::collections::{HashMap, HashSet};

/// Judges a set.
pub(super) fn judge_set(findings: &mut Findings, at: &str, history: &KeyHistory, end: &Saw, rules: &Rules) {
    let adds: HashMap<u64, &Write> = of(history, |act| *act == Act::Add).map(|add| (add.id, add)).collect();
    let removals = history.writes.iter().filter(|write| write.outcome != Outcome::Refused);
    let removed: HashSet<u64> = removals
        .filter_map(|write| match write.act {
            Act::Remove(element) => Some(element),
            _ => None,
        })
        .collect();
    let missing = |before: Micros, strict_only: bool, has: &HashSet<u64>| -> Vec<&Write> {
        let due = |add: &&&Write| {
            add.outcome.acked()
                && add.end < before
                && !(strict_only && add.sloppy)
                && !removed.contains(&add.id)
        };
        adds.values().filter(due).filter(|add| !has.contains(&add.id)).copied().collect()
    };
    for read in &history.reads {
        let Saw::Elements(elements) = &read.saw else { continue };
        phantoms(findings, at, &adds, elements);
        if !rules.holds(read.begin, read.end, read.sloppy) {
            continue;
        }
        findings.looked.reads_fresh += 1;
        for add in missing(read.begin, true, &elements.iter().copied().collect()) {
            let (read, acked) = (seconds(read.begin), seconds(add.end));
            let what = format!("a query at {read} lacks {:016x}, acknowledged at {acked}", add.id);
            findings.broken("C8", at, what);
        }
    }
    let Saw::Elements(end) = end else {
        return findings.broken("C9", at, "the end shows no elements".into());
    };
    phantoms(findings, at, &adds, end);
    for add in missing(Micros::MAX, false, &end.iter().copied().collect()) {
        let what = format!("{:016x}, acknowledged at {}, is not in the set", add.id, seconds(add.end));
        findings.broken("C1", at, what);
    }
}

fn phantoms(findings: &mut Findings, at: &str, adds: &HashMap<u64, &Write>, elements: &[u64]) {
    for id in elements {
        match adds.get(id) {
            None => findings.broken("C9", at, format!("{id:016x} is in the set, and nobody added it")),
            Some(add) if add.outcome == Outcome::Refused => {
                findings.broken("C9", at, format!("{id:016x} is in the set, and was refused"));
            }
            Some(_) => {}
        }
    }
}

/// Judges a counter.
pub(super) fn judge_counter(
    findings: &mut Findings,
    at: &str,
    history: &KeyHistory,
    end: &Saw,
    rules: &Rules,
) {
    let sum = |counts: &dyn Fn(&Write) -> bool| -> u64 {
        let amount = |write: &Write| match write.act {
            Act::Increment(by) if counts(write) => by,
            _ => 0,
        };
        history.writes.iter().map(amount).sum()
    };
    // What was sent twice, and applied on both sides of a cut, counts once (docs/decisions/operations-once.md).
    let possible = |until: Micros| sum(&|write| write.outcome != Outcome::Refused && write.begin < until);
    for read in &history.reads {
        let Saw::Count(count) = read.saw else { continue };
        let most = possible(read.end);
        if count > most {
            let what = format!("{count} at {}, and at most {most} were counted", seconds(read.begin));
            findings.broken("C9", at, what);
        }
        if !rules.holds(read.begin, read.end, read.sloppy) {
            continue;
        }
        findings.looked.reads_fresh += 1;
        let least = sum(&|write| write.outcome.acked() && !write.sloppy && write.end < read.begin);
        if count < least {
            let what = format!("{count} at {}, and {least} were acknowledged before", seconds(read.begin));
            findings.broken("C8", at, what);
        }
    }
    let Saw::Count(end) = *end else {
        return findings.broken("C9", at, "the end shows no number".into());
    };
    let (least, most) = (sum(&|write| write.outcome.acked()), possible(Micros::MAX));
    if end < least {
        findings.broken("C1", at, format!("{end} at the end, and {least} were acknowledged"));
    }
    if end > most {
        findings.broken("C9", at, format!("{end} at the end, and at most {most} were counted"));
    }
}

fn of(history: &KeyHistory, wanted: impl Fn(&Act) -> bool) -> impl Iterator<Item = &Write> {
    history.writes.iter().filter(move |write| wanted(&write.act))
}
