//! What clients were told, and what must follow from it.
//!
//! In: each write with what its writer had seen, and how it ended; in the end, what is there. Out:
//! the first thing that cannot be. Small on purpose: the other simulation looks into disks and
//! states; this one asks whether the shell lost or doubled something on the way.

use merganser_client::{Dot, Entry};
use std::collections::{BTreeMap, BTreeSet};

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    UnderWay,
    Acknowledged,
    /// It may or may not have happened.
    Unknown,
    /// It had no effect.
    Refused,
}

/// A version that a read showed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shown {
    value: String,
    dots: Vec<Dot>,
}

impl Shown {
    /// All that an entry shows, in order.
    pub(super) fn of(entry: &Entry) -> Vec<Shown> {
        let shown = |sibling: &merganser_client::Sibling| {
            let value = String::from_utf8_lossy(sibling.value()?).into_owned();
            Some(Shown { value, dots: sibling.dots.clone() })
        };
        let mut shown: Vec<Shown> = entry.siblings().iter().filter_map(shown).collect();
        shown.sort();
        shown
    }
}

#[derive(Clone, Debug)]
struct Write {
    seen: Vec<Shown>,
    end: End,
}

/// All writes, by the value that each put, which no other did.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    keys: BTreeMap<String, BTreeMap<String, Write>>,
    /// Values that are shown beside what replaced them, because their write has two dots.
    pub(super) doubled: usize,
    /// What happened when, for whoever reads a failure.
    pub(super) trace: Vec<String>,
}

impl History {
    pub(super) fn begin(&mut self, key: &str, value: &str, seen: Vec<Shown>) {
        let write = Write { seen, end: End::UnderWay };
        let earlier = self.keys.entry(key.into()).or_default().insert(value.into(), write);
        assert!(earlier.is_none(), "each value is put once");
    }

    pub(super) fn end(&mut self, key: &str, value: &str, end: End) {
        let write = self.keys.get_mut(key).and_then(|writes| writes.get_mut(value));
        write.expect("it began").end = end;
    }

    pub(super) fn count(&self, end: End) -> usize {
        self.keys.values().flat_map(BTreeMap::values).filter(|write| write.end == end).count()
    }

    /// Whether what a read showed can be: put there for this key, not refused, and each once.
    pub(super) fn judge_read(&self, key: &str, shown: &[Shown]) -> Result<(), String> {
        let nothing = BTreeMap::new();
        let writes = self.keys.get(key).unwrap_or(&nothing);
        for (index, Shown { value, .. }) in shown.iter().enumerate() {
            match writes.get(value) {
                None => return Err(format!("{key} shows {value}, which nobody put there")),
                Some(Write { end: End::Refused, .. }) => {
                    return Err(format!("{key} shows {value}, which was refused"));
                }
                Some(_) if shown[..index].iter().any(|earlier| earlier.value == *value) => {
                    return Err(format!("{key} shows {value} twice"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Whether what all replicas show in the end can be. A write that was asked of two nodes, because
    /// the first was silent, may have two dots: who replaced one of them did not replace the other.
    pub(super) fn judge_end(&mut self, key: &str, shown: &[Shown]) -> Result<(), String> {
        self.judge_read(key, shown)?;
        let Some(writes) = self.keys.get(key) else { return Ok(()) };
        let mut doubled = BTreeSet::new();
        // What is shown, and all that was seen on the way to it.
        let mut reached = BTreeSet::new();
        let mut next: Vec<&String> = shown.iter().map(|shown| &shown.value).collect();
        while let Some(value) = next.pop() {
            if reached.insert(value) {
                let seen = writes.get(value).into_iter().flat_map(|write| &write.seen);
                next.extend(seen.map(|seen| &seen.value));
            }
        }
        for (value, write) in writes.iter().filter(|(_, write)| write.end == End::Acknowledged) {
            if !reached.contains(value) {
                return Err(format!("{key}: {value} was acknowledged and is lost"));
            }
            let of_old = shown.iter().filter(|shown| write.seen.iter().any(|seen| seen.value == shown.value));
            doubled.extend(of_old.map(|shown| &shown.value));
            let replaced = |dot: &Dot| write.seen.iter().any(|seen| seen.dots.contains(dot));
            if let Some(risen) = shown.iter().find(|shown| shown.dots.iter().any(replaced)) {
                return Err(format!("{key}: {risen:?} is there again, though {value} replaced it"));
            }
        }
        self.doubled += doubled.len();
        Ok(())
    }
}

#[test]
fn a_history_tells_what_is_lost_what_is_back_and_what_is_doubled() {
    use merganser_client::ActorId;
    // Each value has the dot of its number; but a retry of 2 has another one, too.
    let dot = |counter| Dot { actor: ActorId(1), counter };
    let versions = |numbers: &[u64]| -> Vec<Shown> {
        let shown = |number: &u64| Shown { value: (number % 10).to_string(), dots: vec![dot(*number)] };
        numbers.iter().map(shown).collect()
    };
    let mut history = History::default();
    for (value, saw, end) in [
        ("1", versions(&[]), End::Acknowledged),
        ("2", versions(&[1]), End::Unknown),
        ("3", versions(&[2]), End::Acknowledged),
        ("4", versions(&[]), End::Refused),
    ] {
        history.begin("k", value, saw);
        history.end("k", value, end);
    }
    let mut judged = |shown: &[u64]| history.judge_end("k", &versions(shown)).err();
    assert_eq!(judged(&[3]), None);
    assert_eq!(judged(&[3, 12]), None);
    assert!(judged(&[]).is_some_and(|why| why.contains("lost")));
    assert!(judged(&[3, 2]).is_some_and(|why| why.contains("there again")));
    assert!(judged(&[3, 3]).is_some_and(|why| why.contains("twice")));
    assert!(judged(&[3, 4]).is_some_and(|why| why.contains("refused")));
    assert!(judged(&[3, 5]).is_some_and(|why| why.contains("nobody")));
}
