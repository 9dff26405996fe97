//! What the other modules share: a fold that notices order, loss and repetition; a model of the engine; and
//! random histories.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use merganser_storage::fs::sim::SimFs;
use merganser_storage::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

pub(crate) const DIR: &str = "/db";

pub(crate) type Completion = (Vec<u64>, Result<(), String>);

/// A sink that remembers what it was told.
#[derive(Default)]
pub(crate) struct Heard(pub(crate) Mutex<Vec<Completion>>);

impl CommitSink for Heard {
    fn committed(&self, tickets: &[u64], result: Result<(), Error>) {
        self.0.lock().unwrap().push((tickets.to_vec(), result.map_err(|error| error.to_string())));
    }
}

/// Concatenates fragments, oldest first: wrong order, loss and repetition all show. Keys that end in `!`
/// refuse to fold.
pub(crate) struct Concat;

impl Fold for Concat {
    fn fold(&self, key: &[u8], newest_first: &[Record]) -> Result<Record, FoldError> {
        if key.ends_with(b"!") {
            return Err(FoldError("this key never folds".into()));
        }
        assert!(newest_first.len() >= 2, "one fragment needs no fold");
        let concat = |part: fn(&Record) -> &Bytes| -> Bytes {
            newest_first.iter().rev().flat_map(|record| part(record).to_vec()).collect::<Vec<u8>>().into()
        };
        Ok(Record { head: concat(|record| &record.head), body: concat(|record| &record.body) })
    }

    fn fold_heads(&self, key: &[u8], newest_first: &[Bytes]) -> Option<Bytes> {
        // Half of the keys take the way through bodies.
        let by_heads = key.last().is_some_and(|last| last % 2 == 0);
        by_heads.then(|| newest_first.iter().rev().flat_map(|head| head.to_vec()).collect::<Vec<u8>>().into())
    }
}

/// What the engine should hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Model(pub(crate) BTreeMap<Bytes, Record>);

impl Model {
    pub(crate) fn apply(&mut self, ops: &[Op]) {
        for op in ops {
            match op {
                Op::Put { key, record } => {
                    self.0.insert(key.clone(), record.clone());
                }
                Op::Merge { key, record } => {
                    let held = self.0.entry(key.clone()).or_default();
                    held.head = [held.head.as_ref(), record.head.as_ref()].concat().into();
                    held.body = [held.body.as_ref(), record.body.as_ref()].concat().into();
                }
                Op::Remove { key } => {
                    self.0.remove(key);
                }
            }
        }
    }
}

pub(crate) fn everything() -> KeyRange {
    (Bound::Unbounded, Bound::Unbounded)
}

/// All that a scan shows.
pub(crate) fn contents(db: &Db) -> Result<Model, Error> {
    Ok(Model(db.scan(everything()).collect::<Result<_, _>>()?))
}

/// Small sizes, so that short histories flush, compact and recycle.
pub(crate) fn tiny_options() -> Options {
    Options {
        memtable_bytes: 4 << 10,
        log_file_bytes: 8 << 10,
        block_bytes: 256,
        large_value_bytes: 512,
        cache_bytes: 16 << 10,
        tier_fanout: 2,
        idle_looks: 3,
        manifest_bytes_max: 1 << 10,
        ..Options::stepped()
    }
}

/// As those, and tables stay as they were flushed.
pub(crate) fn unmerged() -> Options {
    Options { tier_fanout: 64, garbage_percent: 1_000, garbage_percent_idle: 1_000, ..tiny_options() }
}

pub(crate) fn open_with(fs: &SimFs, options: Options) -> Result<(Db, Recovery), Error> {
    Db::open(Arc::new(fs.clone()), Path::new(DIR), options, Arc::new(Concat), Arc::new(NoSink))
}

pub(crate) fn open(fs: &SimFs) -> Result<(Db, Recovery), Error> {
    open_with(fs, tiny_options())
}

pub(crate) fn put(key: &str, body: &str) -> Op {
    let record = Record { head: Bytes::from(format!("h-{body}")), body: Bytes::from(body.to_owned()) };
    Op::Put { key: Bytes::from(key.to_owned()), record }
}

pub(crate) fn rest(db: &Db) {
    while db.step() != Step::Idle {}
}

pub(crate) fn files_named(fs: &SimFs, ending: &str) -> Vec<PathBuf> {
    let named = |path: &PathBuf| path.to_string_lossy().ends_with(ending);
    fs.files().into_iter().map(|(path, _)| path).filter(named).collect()
}

/// What a history does next.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Write(Vec<Op>, Durability),
    Step,
    Flush,
    CompactAll,
    Reopen,
}

pub(crate) struct History {
    random: SmallRng,
    keys: u32,
}

impl History {
    pub(crate) fn new(seed: u64, keys: u32) -> History {
        History { random: SmallRng::seed_from_u64(seed), keys }
    }

    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.random.random_range(0..bound)
    }

    pub(crate) fn act(&mut self) -> Act {
        match self.below(100) {
            0..=79 => {
                let ops = (0..=self.below(3)).map(|_| self.op()).collect();
                let durability = match self.below(8) {
                    0 => Durability::None,
                    1 => Durability::Interval,
                    _ => Durability::Sync,
                };
                Act::Write(ops, durability)
            }
            80..=92 => Act::Step,
            93..=95 => Act::Flush,
            96 => Act::CompactAll,
            _ => Act::Reopen,
        }
    }

    pub(crate) fn key(&mut self) -> Bytes {
        Bytes::from(format!("key-{:03}", self.below(self.keys)))
    }

    fn op(&mut self) -> Op {
        let key = self.key();
        match self.below(10) {
            0..=4 => Op::Put { key, record: self.record() },
            5..=7 => Op::Merge { key, record: self.record() },
            _ => Op::Remove { key },
        }
    }

    fn record(&mut self) -> Record {
        let head = Bytes::from(format!("<{}>", self.below(1000)));
        let len = match self.below(12) {
            0 => 0,
            1 => 2000,
            2 => 700,
            _ => self.below(60),
        } as usize;
        let body = if self.below(2) == 0 {
            (0..len).map(|at| b'a' + (at % 7) as u8).collect::<Vec<u8>>()
        } else {
            (0..len).map(|_| self.random.random()).collect()
        };
        Record { head, body: body.into() }
    }
}
