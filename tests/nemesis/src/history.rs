//! What the clients asked and were told, key by key: the only thing that is judged.
//!
//! In: every attempt with its begin, its end and its outcome, as each client writes it down.
//! Out: histories, by keyspace and key. Absent: what a server claims about causality. What a
//! client *had seen* is what it was shown, never what a context says.

use merganser_client::{Content, Dot, Entry, State};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};

/// Microseconds since the run began.
pub(crate) type Micros = u64;

/// The run's clock, one for all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock(Instant::now())
    }

    pub(crate) fn now(self) -> Micros {
        self.0.elapsed().as_micros() as Micros
    }
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Acknowledged. Only an answer without a dot leaves it open which version it is.
    Acked(Option<Dot>),
    /// It may become visible, or never.
    Uncertain(Option<Dot>),
    /// It must never become visible.
    Refused,
}

impl Outcome {
    pub(crate) fn acked(self) -> bool {
        matches!(self, Outcome::Acked(_))
    }

    pub(crate) fn dot(self) -> Option<Dot> {
        match self {
            Outcome::Acked(dot) | Outcome::Uncertain(dot) => dot,
            Outcome::Refused => None,
        }
    }
}

/// What a write does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// A value that nobody else puts, marked by its id.
    Put,
    /// A tombstone.
    Delete,
    /// An element that nobody else adds, marked by its id, joins a set.
    Add,
    /// Takes an element out again.
    Remove(u64),
    /// Counts up.
    Increment(u64),
}

/// A write, from its first attempt to its last.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) id: u64,
    pub(crate) act: Act,
    /// Every version that its context was made from.
    pub(crate) seen: Vec<Dot>,
    pub(crate) begin: Micros,
    pub(crate) end: Micros,
    pub(crate) outcome: Outcome,
    /// An answer that counted a stand-in.
    pub(crate) sloppy: bool,
    /// A value that ends by itself so long after it was put.
    pub(crate) ttl: Option<Micros>,
}

impl Write {
    /// Whether its value may have ended by `until`.
    pub(crate) fn may_have_ended(&self, until: Micros, clocks_apart: Micros) -> bool {
        self.ttl.is_some_and(|ttl| self.begin + ttl <= until.saturating_add(clocks_apart))
    }

    /// Whether its value has ended for certain at `at`.
    pub(crate) fn has_ended(&self, at: Micros, clocks_apart: Micros) -> bool {
        // When a write of unknown fate was made is not known either.
        self.outcome.acked() && self.ttl.is_some_and(|ttl| self.end + ttl + clocks_apart < at)
    }
}

/// What a version holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    /// The value of the write with this id.
    Value(u64),
    /// Nothing.
    Tombstone,
    /// Bytes that no client of this key wrote.
    Foreign,
}

/// One version, as a read showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) dots: Vec<Dot>,
    pub(crate) holds: Holds,
    pub(crate) stamp: (u64, u32),
    /// Where it is a stored resolution: of what.
    pub(crate) merged_from: Vec<Dot>,
}

/// What a read saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Saw {
    /// Nothing, or versions, tombstones among them.
    Versions(Vec<Shown>),
    /// The elements of a set.
    Elements(Vec<u64>),
    /// The value of a counter.
    Count(u64),
}

/// A read that succeeded, at the keyspace's quorum.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) begin: Micros,
    pub(crate) end: Micros,
    pub(crate) saw: Saw,
    pub(crate) sloppy: bool,
}

/// Everything about one key.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyHistory {
    pub(crate) writes: Vec<Write>,
    pub(crate) reads: Vec<Read>,
}

type Keys = BTreeMap<(&'static str, String), Arc<Mutex<KeyHistory>>>;

/// All keys.
#[derive(Debug, Default)]
pub(crate) struct History {
    keys: Mutex<Keys>,
}

impl History {
    pub(crate) fn write(&self, keyspace: &'static str, key: &str, write: Write) {
        locked(&self.key(keyspace, key)).writes.push(write);
    }

    pub(crate) fn read(&self, keyspace: &'static str, key: &str, read: Read) {
        locked(&self.key(keyspace, key)).reads.push(read);
    }

    fn key(&self, keyspace: &'static str, key: &str) -> Arc<Mutex<KeyHistory>> {
        Arc::clone(locked(&self.keys).entry((keyspace, key.to_owned())).or_default())
    }

    /// Every key that anybody has asked about.
    pub(crate) fn keys(&self) -> Vec<(&'static str, String, Arc<Mutex<KeyHistory>>)> {
        let keys = locked(&self.keys);
        keys.iter().map(|((keyspace, key), history)| (*keyspace, key.clone(), Arc::clone(history))).collect()
    }
}

/// A thread that panicked while it wrote a line down has ended the run already.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The bytes of a value: its id, where it belongs, and filler up to a size.
pub(crate) fn value(id: u64, keyspace: &str, key: &str, size: usize) -> Vec<u8> {
    let mut value = format!("{id:016x} {keyspace}/{key} ").into_bytes();
    let filler = (id as u8 % 26) + b'a';
    value.resize(value.len().max(size), filler);
    value
}

/// Which write made these bytes; none if they are not, to the last byte, what a write of this key
/// would have put.
pub(crate) fn id_of(bytes: &[u8], keyspace: &str, key: &str) -> Option<u64> {
    let id = std::str::from_utf8(bytes.get(..16)?).ok()?;
    let id = u64::from_str_radix(id, 16).ok()?;
    (bytes == value(id, keyspace, key, bytes.len())).then_some(id)
}

/// What an entry shows, of `get_siblings`.
pub(crate) fn versions(entry: &Entry, keyspace: &str, key: &str) -> Vec<Shown> {
    let shown = entry.siblings().iter().map(|sibling| Shown {
        dots: sibling.dots.clone(),
        holds: match &sibling.content {
            Content::Tombstone => Holds::Tombstone,
            Content::Value(bytes) => id_of(bytes, keyspace, key).map_or(Holds::Foreign, Holds::Value),
        },
        stamp: (sibling.stamp.millis, sibling.stamp.logical),
        merged_from: match &sibling.receipt {
            None => Vec::new(),
            Some(receipt) => receipt.merged_from.iter().copied().map(dot).collect(),
        },
    });
    let shown: Vec<Shown> = shown.collect();
    debug_assert!(entry.state() != State::Found || !shown.is_empty(), "found is shown");
    shown
}

fn dot(dot: merganser_client::proto::Dot) -> Dot {
    Dot { actor: merganser_client::ActorId(dot.actor), counter: dot.counter }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_its_write_and_nothing_else_does() {
        let bytes = value(0xfeed, "kept", "k1", 100);
        assert_eq!(bytes.len(), 100);
        assert_eq!(id_of(&bytes, "kept", "k1"), Some(0xfeed));
        assert_eq!(id_of(&bytes, "kept", "k2"), None, "of another key");
        assert_eq!(id_of(&bytes[..99], "kept", "k1"), Some(0xfeed), "a size is not part of the mark");
        let mut torn = bytes.clone();
        torn[60] ^= 1;
        assert_eq!(id_of(&torn, "kept", "k1"), None, "one bit is enough");
        assert_eq!(id_of(b"short", "kept", "k1"), None);
    }
}
