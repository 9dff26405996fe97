//! Versions and what their writers had seen: C1, C4, C8 and C9 of one key, in one pass over time.
//!
//! In: a key's history and its end. Out: violations. A version is named by its dot, for a retry
//! may give one value two dots and a context covers only the one that was shown. What is *reached*
//! from a version is all that its writer had seen, and their writers, and so on: it is rightly
//! gone. A tombstone may have been collected, so a delete that was not refused accounts for what
//! it had seen even where nothing shows it.

use super::{Findings, Rules};
use crate::history::{Act, Holds, KeyHistory, Micros, Outcome, Read, Saw, Shown, Write};
use merganser_client::Dot;
use std::collections::{HashMap, HashSet};

/// Who knows what came before a dot.
enum Maker {
    /// A write of a client, by index.
    Write(usize),
    /// A resolution that a node stored, of these.
    Resolution(Vec<Dot>),
}

/// The versions of a key.
pub(crate) struct Graph<'a> {
    writes: &'a [Write],
    makers: HashMap<Dot, Maker>,
    by_id: HashMap<u64, usize>,
    /// Deletes of unknown fate and dot: a tombstone that nobody claims is one of theirs.
    nameless_deletes: Vec<usize>,
    clocks_apart: Micros,
}

/// All that a search came to.
#[derive(Default)]
struct Reached {
    dots: HashSet<Dot>,
    /// It met a version that no client knows, so it may be more.
    unknown: bool,
}

impl<'a> Graph<'a> {
    /// Of a history and what was shown besides.
    ///
    /// Byte-equal versions are shown as one, with all their dots and the first one's receipt. Where nodes store
    /// resolutions (`settled`), any other dot may be such a one, of whatever.
    pub(crate) fn new(
        history: &'a KeyHistory,
        besides: &[Shown],
        clocks_apart: Micros,
        settled: bool,
    ) -> Graph<'a> {
        let writes = history.writes.as_slice();
        let shown = history.reads.iter().flat_map(|read| shown(&read.saw)).chain(besides);
        let mut graph = Graph {
            writes,
            makers: HashMap::new(),
            by_id: writes.iter().enumerate().map(|(i, write)| (write.id, i)).collect(),
            nameless_deletes: Vec::new(),
            clocks_apart,
        };
        for (i, write) in writes.iter().enumerate() {
            match (write.outcome.dot(), &write.act, write.outcome) {
                (Some(dot), ..) => {
                    graph.makers.insert(dot, Maker::Write(i));
                }
                (None, Act::Delete, Outcome::Uncertain(_) | Outcome::Acked(_)) => {
                    graph.nameless_deletes.push(i);
                }
                _ => {}
            }
        }
        for version in shown {
            for (place, dot) in version.dots.iter().enumerate() {
                if place > 0 && settled {
                    break;
                }
                if !version.merged_from.is_empty() {
                    let of = || Maker::Resolution(version.merged_from.clone());
                    graph.makers.entry(*dot).or_insert_with(of);
                } else if let Holds::Value(id) = version.holds
                    && let Some(&i) = graph.by_id.get(&id)
                {
                    graph.makers.entry(*dot).or_insert(Maker::Write(i));
                }
            }
        }
        graph
    }

    /// All that is reached from `roots`, themselves included. Versions whose writers began before
    /// `since` are not looked behind: they cannot have seen anything that was begun later.
    fn reach(&self, roots: impl IntoIterator<Item = Dot>, since: Micros) -> Reached {
        let mut reached = Reached::default();
        let mut stack: Vec<Dot> = roots.into_iter().collect();
        while let Some(dot) = stack.pop() {
            if !reached.dots.insert(dot) {
                continue;
            }
            match self.makers.get(&dot) {
                Some(Maker::Write(i)) if self.writes[*i].begin < since => {}
                Some(Maker::Write(i)) => stack.extend(&self.writes[*i].seen),
                Some(Maker::Resolution(of)) => stack.extend(of),
                None => reached.unknown = true,
            }
        }
        reached
    }

    /// The roots of what a read accounts for.
    fn roots(&self, shown: &[Shown]) -> Vec<Dot> {
        let mut roots: Vec<Dot> = shown.iter().flat_map(|version| version.dots.iter().copied()).collect();
        let nameless = |version: &&Shown| version.dots.iter().any(|dot| !self.makers.contains_key(dot));
        if shown.iter().filter(|version| version.holds == Holds::Tombstone).any(|v| nameless(&v)) {
            roots.extend(self.nameless_deletes.iter().flat_map(|&i| self.writes[i].seen.iter().copied()));
        }
        roots
    }

    /// What deletes, and values that ended, account for, where they may have happened before `until`.
    fn deleted(&self, until: Micros) -> impl Iterator<Item = Dot> {
        let deletes = self.writes.iter().filter(move |write| {
            write.outcome != Outcome::Refused
                && write.begin < until
                && (write.act == Act::Delete || write.may_have_ended(until, self.clocks_apart))
        });
        deletes.flat_map(|write| write.seen.iter().copied())
    }

    /// Of acknowledged puts, those that neither `shown` nor a delete accounts for; and how many
    /// of those that are missing may be behind a version that nobody knows.
    fn missing<'w>(
        &self,
        puts: &[&'w Write],
        shown: &[Shown],
        until: Micros,
        undecided: &mut u64,
    ) -> Vec<&'w Write> {
        let since = puts.iter().map(|put| put.begin).min().unwrap_or_default();
        let reached = self.reach(self.roots(shown), since);
        let live = |id: u64| shown.iter().any(|version| version.holds == Holds::Value(id));
        let is_in = |write: &Write, reached: &Reached| {
            write.outcome.dot().is_none_or(|dot| reached.dots.contains(&dot))
                || live(write.id)
                || write.may_have_ended(until, self.clocks_apart)
        };
        let mut missing: Vec<&Write> = puts.iter().copied().filter(|put| !is_in(put, &reached)).collect();
        if missing.is_empty() {
            return missing;
        }
        let deleted = self.reach(self.deleted(until), since);
        missing.retain(|put| !is_in(put, &deleted));
        // Behind a resolution that nobody read there may be anything, also where a delete had seen what was made of it.
        if reached.unknown || deleted.unknown {
            *undecided += missing.len() as u64;
            missing.clear();
        }
        missing
    }

    /// Whether `shown` accounts for every one of `puts`.
    pub(crate) fn accounts_for(&self, puts: &[&Write], shown: &[Shown], now: Micros) -> bool {
        self.missing(puts, shown, now, &mut 0).is_empty()
    }
}

/// What acknowledged writes ask of reads, as time goes on.
struct Frontier<'a> {
    /// Acknowledged puts that nothing acknowledged has come over yet.
    puts: Vec<&'a Write>,
    /// Versions that an acknowledged write had seen, and by which.
    dead: HashMap<Dot, u64>,
}

impl<'a> Frontier<'a> {
    fn acknowledge(&mut self, graph: &Graph<'_>, write: &'a Write) {
        let mut stack = write.seen.clone();
        while let Some(dot) = stack.pop() {
            if self.dead.contains_key(&dot) {
                continue;
            }
            self.dead.insert(dot, write.id);
            match graph.makers.get(&dot) {
                Some(Maker::Write(i)) => stack.extend(&graph.writes[*i].seen),
                Some(Maker::Resolution(of)) => stack.extend(of),
                None => {}
            }
        }
        if write.act == Act::Put {
            self.puts.push(write);
        }
        let dead = &self.dead;
        self.puts.retain(|put| put.outcome.dot().is_some_and(|dot| !dead.contains_key(&dot)));
    }
}

/// Judges a key of versions.
pub(super) fn judge(
    findings: &mut Findings,
    at: &str,
    history: &KeyHistory,
    end: &Saw,
    rules: &Rules,
    settled: bool,
) {
    let Saw::Versions(end) = end else {
        return findings.broken("C9", at, "the end shows no versions".into());
    };
    let graph = Graph::new(history, end, rules.clocks_apart, settled);
    let mut acked: Vec<&Write> = history.writes.iter().filter(|write| write.outcome.acked()).collect();
    acked.sort_by_key(|write| write.end);
    let mut reads: Vec<&Read> = history.reads.iter().collect();
    reads.sort_by_key(|read| read.begin);

    let mut frontier = Frontier { puts: Vec::new(), dead: HashMap::new() };
    let mut later = acked.iter().filter(|write| !write.sloppy).peekable();
    for read in reads {
        let Saw::Versions(saw) = &read.saw else { continue };
        phantoms(findings, at, &graph, saw, read.begin, read.end);
        while let Some(write) = later.next_if(|write| write.end < read.begin) {
            frontier.acknowledge(&graph, write);
        }
        if !rules.holds(read.begin, read.end, read.sloppy) {
            continue;
        }
        findings.looked.reads_fresh += 1;
        let missing = graph.missing(&frontier.puts, saw, read.end, &mut findings.looked.undecided);
        for put in &missing {
            let what = format!(
                "a read from {} to {} does not show {:016x}, acknowledged at {}",
                seconds(read.begin),
                seconds(read.end),
                put.id,
                seconds(put.end)
            );
            findings.broken("C8", at, what);
        }
        // Where something is missing the read is old as a whole.
        let risen = if missing.is_empty() { risen(saw, &frontier.dead) } else { Vec::new() };
        for (version, by) in risen {
            let what = format!(
                "a read at {} shows {version}, which the acknowledged {by:016x} had seen",
                seconds(read.begin)
            );
            findings.broken("C4", at, what);
        }
    }

    phantoms(findings, at, &graph, end, rules.end, Micros::MAX);
    let mut frontier = Frontier { puts: Vec::new(), dead: HashMap::new() };
    for write in &acked {
        frontier.acknowledge(&graph, write);
    }
    for (version, by) in risen(end, &frontier.dead) {
        let what = format!("the end shows {version}, which the acknowledged {by:016x} had seen");
        findings.broken("C4", at, what);
    }
    let puts: Vec<&Write> = acked.iter().copied().filter(|write| write.act == Act::Put).collect();
    for put in graph.missing(&puts, end, Micros::MAX, &mut findings.looked.undecided) {
        let what = format!(
            "{:016x} as {}, acknowledged at {}, is neither there at the end nor was it overwritten by what is",
            put.id,
            put.outcome.dot().map(|dot| dot.to_string()).unwrap_or_default(),
            seconds(put.end)
        );
        findings.broken("C1", at, what);
    }
}

/// Versions that are shown though an acknowledged write had seen them, and which.
fn risen(shown: &[Shown], dead: &HashMap<Dot, u64>) -> Vec<(String, u64)> {
    let risen = shown.iter().filter_map(|version| {
        let (dot, by) = version.dots.iter().find_map(|dot| Some((dot, *dead.get(dot)?)))?;
        let what = match version.holds {
            Holds::Value(id) => format!("{id:016x} as {dot}"),
            Holds::Tombstone => format!("the tombstone {dot}"),
            Holds::Foreign => format!("unknown bytes as {dot}"),
        };
        Some((what, by))
    });
    risen.collect()
}

/// C9: what is shown was put there, was not refused, and has not ended.
fn phantoms(
    findings: &mut Findings,
    at: &str,
    graph: &Graph<'_>,
    shown: &[Shown],
    since: Micros,
    until: Micros,
) {
    for version in shown {
        let Holds::Value(id) = version.holds else {
            if version.holds == Holds::Foreign {
                findings.broken("C9", at, format!("bytes that nobody put here, as {:?}", version.dots));
            }
            continue;
        };
        match graph.by_id.get(&id).map(|&i| &graph.writes[i]) {
            None => findings.broken("C9", at, format!("{id:016x} is shown, and nobody put it")),
            Some(write) if write.outcome == Outcome::Refused => {
                findings.broken("C9", at, format!("{id:016x} is shown, and was refused as without effect"));
            }
            Some(write) if write.begin > until => {
                findings.broken("C9", at, format!("{id:016x} is shown before it was put"));
            }
            Some(write) if write.has_ended(since, graph.clocks_apart) => {
                let end = seconds(write.end + write.ttl.unwrap_or_default());
                findings.broken(
                    "C4",
                    at,
                    format!("{id:016x} is shown at {}, and ended at {end}", seconds(since)),
                );
            }
            Some(_) => {}
        }
    }
}

fn shown(saw: &Saw) -> &[Shown] {
    match saw {
        Saw::Versions(shown) => shown,
        Saw::Elements(_) | Saw::Count(_) => &[],
    }
}

/// For people.
pub(super) fn seconds(at: Micros) -> String {
    format!("{:.3} s", at as f64 / 1e6)
}
