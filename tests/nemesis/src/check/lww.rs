//! Registers: nothing that is acknowledged is above what is shown.
//!
//! In: a key's history and its end. Out: violations. A stamp is known once a read has shown it;
//! otherwise one write is provably above another if its writer had seen it, or if it began so
//! long after the other's end that no two clocks are that far apart.

use super::{Findings, Rules, causal::seconds};
use crate::history::{Act, Holds, KeyHistory, Micros, Outcome, Read, Saw, Shown, Write};
use merganser_client::Dot;
use std::collections::{HashMap, HashSet};

struct Register<'a> {
    writes: &'a [Write],
    by_id: HashMap<u64, usize>,
    by_dot: HashMap<Dot, usize>,
    stamps: HashMap<usize, (u64, u32)>,
    clocks_apart: Micros,
}

/// The acknowledged writes that say most about what may be shown.
#[derive(Default)]
struct Acked<'a> {
    begun_last: Option<&'a Write>,
    highest: Option<(&'a Write, (u64, u32))>,
    beaten: HashSet<Dot>,
}

impl<'a> Register<'a> {
    fn new(history: &'a KeyHistory, end: &[Shown], rules: &Rules) -> Register<'a> {
        let writes = &history.writes;
        let mut register = Register {
            writes,
            by_id: writes.iter().enumerate().map(|(i, write)| (write.id, i)).collect(),
            by_dot: HashMap::new(),
            stamps: HashMap::new(),
            clocks_apart: rules.clocks_apart,
        };
        for (i, write) in writes.iter().enumerate() {
            register.by_dot.extend(write.outcome.dot().map(|dot| (dot, i)));
        }
        let shown = history.reads.iter().filter_map(|read| match &read.saw {
            Saw::Versions(shown) => Some(shown.as_slice()),
            Saw::Elements(_) | Saw::Count(_) => None,
        });
        for version in shown.chain([end]).flatten() {
            if let Some(i) = register.made(version) {
                // The dot that was acknowledged: a retry's other dot has another stamp.
                if writes[i].outcome.dot().is_some_and(|dot| version.dots.contains(&dot)) {
                    register.stamps.insert(i, version.stamp);
                }
            }
        }
        register
    }

    fn made(&self, version: &Shown) -> Option<usize> {
        match version.holds {
            Holds::Value(id) => self.by_id.get(&id).copied(),
            _ => version.dots.iter().find_map(|dot| self.by_dot.get(dot).copied()),
        }
    }

    fn acknowledge(&self, acked: &mut Acked<'a>, write: &'a Write) {
        acked.beaten.extend(&write.seen);
        if acked.begun_last.is_none_or(|last| last.begin < write.begin) {
            acked.begun_last = Some(write);
        }
        let stamp = self.by_id.get(&write.id).and_then(|i| self.stamps.get(i));
        if let Some(&stamp) = stamp
            && acked.highest.is_none_or(|(_, highest)| highest < stamp)
        {
            acked.highest = Some((write, stamp));
        }
    }

    /// An acknowledged write that is above what is shown, and how that is known.
    fn above(&self, acked: &Acked<'a>, shown: &[Shown], until: Micros) -> Option<(u64, &'static str)> {
        let Some(version) = shown.first() else { return self.above_nothing(acked, until) };
        if let Some((write, _)) = acked.highest.filter(|(_, stamp)| version.stamp < *stamp) {
            return Some((write.id, "has a higher stamp"));
        }
        if version.dots.iter().any(|dot| acked.beaten.contains(dot)) {
            let by = self.writes.iter().find(|write| {
                write.outcome.acked() && write.seen.iter().any(|seen| version.dots.contains(seen))
            });
            return Some((by.map_or(0, |write| write.id), "had seen it"));
        }
        let shown = &self.writes[self.made(version)?];
        let late = |last: &&Write| shown.end + self.clocks_apart < last.begin;
        let last = acked.begun_last.filter(late).filter(|_| shown.outcome.acked())?;
        Some((last.id, "began long after its end"))
    }

    /// Nothing is shown: rightly if nothing is acknowledged, or a delete may be above it all.
    fn above_nothing(&self, acked: &Acked<'a>, until: Micros) -> Option<(u64, &'static str)> {
        let last = acked.begun_last?;
        let may_be_above = |write: &Write| {
            let surely_older = write.outcome.acked() && write.end + self.clocks_apart < last.begin;
            write.act == Act::Delete
                && write.outcome != Outcome::Refused
                && write.begin < until
                && !surely_older
        };
        let deleted = last.act == Act::Delete || self.writes.iter().any(may_be_above);
        (!deleted).then_some((last.id, "was put, and no delete can be above it"))
    }
}

/// Whether `shown`, asked of one replica, is not provably below one of these acknowledged writes.
pub(crate) fn accounts_for(history: &KeyHistory, due: &[&Write], shown: &[Shown], rules: &Rules) -> bool {
    let register = Register::new(history, shown, rules);
    let mut acked = Acked::default();
    for write in history.writes.iter().filter(|write| due.iter().any(|due| due.id == write.id)) {
        register.acknowledge(&mut acked, write);
    }
    register.above(&acked, shown, Micros::MAX).is_none()
}

/// Judges a register.
pub(super) fn judge(findings: &mut Findings, at: &str, history: &KeyHistory, end: &Saw, rules: &Rules) {
    let Saw::Versions(end) = end else {
        return findings.broken("C9", at, "the end shows no versions".into());
    };
    let register = Register::new(history, end, rules);
    let mut acknowledged: Vec<&Write> = history.writes.iter().filter(|write| write.outcome.acked()).collect();
    acknowledged.sort_by_key(|write| write.end);
    let mut reads: Vec<&Read> = history.reads.iter().collect();
    reads.sort_by_key(|read| read.begin);

    let mut acked = Acked::default();
    let mut later = acknowledged.iter().filter(|write| !write.sloppy).peekable();
    for read in reads {
        let Saw::Versions(saw) = &read.saw else { continue };
        phantoms(findings, at, &register, saw);
        while let Some(write) = later.next_if(|write| write.end < read.begin) {
            register.acknowledge(&mut acked, write);
        }
        if !rules.holds(read.begin, read.end, read.sloppy) {
            continue;
        }
        findings.looked.reads_fresh += 1;
        if let Some((id, how)) = register.above(&acked, saw, read.end) {
            let what = format!(
                "a read at {} shows {}, and the acknowledged {id:016x} {how}",
                seconds(read.begin),
                said(saw)
            );
            findings.broken("C8", at, what);
        }
    }

    phantoms(findings, at, &register, end);
    let mut acked = Acked::default();
    acknowledged.iter().for_each(|write| register.acknowledge(&mut acked, write));
    if let Some((id, how)) = register.above(&acked, end, Micros::MAX) {
        let deleted = history.writes.iter().any(|write| write.id == id && write.act == Act::Delete);
        let property = if deleted { "C4" } else { "C1" };
        let what = format!("the end shows {}, and the acknowledged {id:016x} {how}", said(end));
        findings.broken(property, at, what);
    }
}

fn phantoms(findings: &mut Findings, at: &str, register: &Register<'_>, shown: &[Shown]) {
    if shown.len() > 1 {
        findings.broken("C10", at, format!("a register shows {} versions", shown.len()));
    }
    for version in shown {
        match (version.holds, register.made(version).map(|i| &register.writes[i])) {
            (Holds::Foreign, _) => findings.broken("C9", at, "bytes that nobody put here".into()),
            (Holds::Value(id), None) => {
                findings.broken("C9", at, format!("{id:016x} is shown, and nobody put it"));
            }
            (Holds::Value(id), Some(write)) if write.outcome == Outcome::Refused => {
                findings.broken("C9", at, format!("{id:016x} is shown, and was refused as without effect"));
            }
            _ => {}
        }
    }
}

fn said(shown: &[Shown]) -> String {
    match shown.first().map(|version| (version.holds, version.stamp)) {
        None => "nothing".into(),
        Some((Holds::Value(id), (millis, logical))) => format!("{id:016x} of {millis}.{logical}"),
        Some((Holds::Tombstone, (millis, logical))) => format!("a tombstone of {millis}.{logical}"),
        Some((Holds::Foreign, _)) => "foreign bytes".into(),
    }
}
