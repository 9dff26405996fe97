//! The engine against a `BTreeMap`, over random histories with flushes, compactions, reopens and cold pages.
//!
//! Goal: whatever the engine did in the background, every way of reading shows the model's state.

use std::ops::Bound;

use merganser_storage::fs::sim::SimFs;
use merganser_storage::*;

use crate::harness::*;

fn check_key(db: &Db, model: &Model, key: &[u8]) {
    let expected = model.0.get(key);
    assert_eq!(db.get(key).unwrap().as_ref(), expected);
    assert_eq!(db.get_head(key).unwrap().as_ref(), expected.map(|record| &record.head));
    match db.try_get(key).unwrap() {
        Lookup::Found(record) => assert_eq!(Some(&record), expected),
        Lookup::Missing => assert_eq!(expected, None),
        Lookup::WouldBlock => {}
    }
    match db.try_get_head(key).unwrap() {
        Lookup::Found(head) => assert_eq!(Some(&head), expected.map(|record| &record.head)),
        Lookup::Missing => assert_eq!(expected, None),
        Lookup::WouldBlock => {}
    }
}

fn check_all(db: &Db, model: &Model) {
    assert_eq!(contents(db).unwrap(), *model);
    let heads: Vec<_> = db.scan_heads(everything()).map(Result::unwrap).collect();
    let expected: Vec<_> = model.0.iter().map(|(key, record)| (key.clone(), record.head.clone())).collect();
    assert_eq!(heads, expected);
}

fn check_range(db: &Db, model: &Model, history: &mut History) {
    let (a, b) = (history.key().to_vec(), history.key().to_vec());
    let bound = |choice, key| match choice {
        0 => Bound::Included(key),
        1 => Bound::Excluded(key),
        _ => Bound::Unbounded,
    };
    let range = (bound(history.below(3), a), bound(history.below(3), b));
    let scanned: Vec<_> = db.scan(range.clone()).map(|item| item.unwrap().0).collect();
    let inside = |key: &[u8]| {
        let after = match &range.0 {
            Bound::Included(from) => key >= from.as_slice(),
            Bound::Excluded(from) => key > from.as_slice(),
            Bound::Unbounded => true,
        };
        let before = match &range.1 {
            Bound::Included(to) => key <= to.as_slice(),
            Bound::Excluded(to) => key < to.as_slice(),
            Bound::Unbounded => true,
        };
        after && before
    };
    let expected: Vec<_> = model.0.keys().filter(|key| inside(key)).cloned().collect();
    assert_eq!(scanned, expected, "{range:?}");
}

fn run(seed: u64, acts: usize, options: Options) {
    let fs = SimFs::new();
    fs.set_cold_reads(seed % 4);
    let mut history = History::new(seed, 40 + seed as u32 % 100);
    let mut model = Model::default();
    let (mut db, _) = open_with(&fs, options.clone()).unwrap();
    for _ in 0..acts {
        match history.act() {
            Act::Write(ops, durability) => {
                db.write(ops.clone(), durability).unwrap();
                model.apply(&ops);
            }
            Act::Step => {
                db.step();
            }
            Act::Flush => db.flush().unwrap(),
            Act::CompactAll => {
                db.compact_all().unwrap();
                assert!(db.metrics().tables <= 1);
            }
            Act::Reopen => {
                rest(&db);
                db.close().unwrap();
                db = open_with(&fs, options.clone()).unwrap().0;
                check_all(&db, &model);
            }
        }
        let key = history.key();
        check_key(&db, &model, &key);
        if history.below(20) == 0 {
            check_range(&db, &model, &mut history);
        }
    }
    check_all(&db, &model);
    assert_eq!(db.metrics().background_error, "");
}

#[test]
fn random_histories_read_as_the_model_does() {
    for seed in 0..60 {
        run(seed, 400, tiny_options());
    }
}

#[test]
fn options_do_not_change_what_is_read() {
    for seed in 100..110 {
        let base = tiny_options();
        run(seed, 300, Options { bloom_bits: 0, ..base.clone() });
        run(seed, 300, Options { large_value_bytes: 0, block_bytes: 1, ..base.clone() });
        run(seed, 300, Options { large_value_bytes: usize::MAX, cache_bytes: 0, ..base.clone() });
        run(seed, 300, Options { memtable_bytes: 600, tier_fanout: 4, log_files_recycled_max: 0, ..base });
    }
}

#[test]
fn threads_read_as_the_model_does_while_they_flush_and_compact() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { background: Background::Threads { compaction: 2 }, ..tiny_options() };
    let open = || {
        let (fs, fold, sink) =
            (std::sync::Arc::new(fs::os::OsFs), std::sync::Arc::new(Concat), std::sync::Arc::new(NoSink));
        Db::open(fs, dir.path(), options.clone(), fold, sink).unwrap().0
    };
    let mut db = open();
    let mut model = Model::default();
    let mut history = History::new(7, 200);
    for round in 0..3 {
        for _ in 0..400 {
            if let Act::Write(ops, _) = history.act() {
                db.write(ops.clone(), Durability::None).unwrap();
                model.apply(&ops);
            }
            let key = history.key();
            check_key(&db, &model, &key);
        }
        check_all(&db, &model);
        if round == 1 {
            db.compact_all().unwrap();
            check_all(&db, &model);
        }
        db.close().unwrap();
        db = open();
        check_all(&db, &model);
    }
    db.close().unwrap();
}

#[test]
fn fragments_that_refuse_to_fold_are_kept_through_everything() {
    let fs = SimFs::new();
    let (db, _) = open(&fs).unwrap();
    let fragment = |n: u32| Op::Merge {
        key: "stubborn!".into(),
        record: Record { head: format!("h{n}").into(), body: vec![b'x'; 300 * n as usize].into() },
    };
    for n in 0..4 {
        db.write(vec![fragment(n), put(&format!("other-{n}"), "1")], Durability::Sync).unwrap();
        db.flush().unwrap();
    }
    db.compact_all().unwrap();
    assert!(db.metrics().folds_refused > 0);
    db.close().unwrap();
    let (db, _) = open(&fs).unwrap();
    assert!(matches!(db.get(b"stubborn!"), Err(Error::Fold { .. })));
    let parts = db.get_fragments(b"stubborn!").unwrap();
    let heads: Vec<_> = parts.iter().map(|part| part.head.clone()).collect();
    assert_eq!(heads, ["h3", "h2", "h1", "h0"]);
    assert_eq!(parts[0].body.len(), 900);
    // A complete state ends the trouble.
    db.write(vec![put("stubborn!", "whole")], Durability::Sync).unwrap();
    assert_eq!(db.get(b"stubborn!").unwrap().unwrap().body, "whole");
}

#[test]
fn heads_are_read_without_touching_bodies_that_lie_apart() {
    let fs = SimFs::new();
    let (db, _) = open(&fs).unwrap();
    let record = Record { head: "clock".into(), body: vec![7; 100_000].into() };
    db.write(vec![Op::Put { key: "k".into(), record }], Durability::Sync).unwrap();
    db.flush().unwrap();
    let table = files_named(&fs, ".sst").remove(0);
    // The value frame comes right after the file's header.
    fs.flip_bit(&table, 20, 1).unwrap();
    assert_eq!(db.get_head(b"k").unwrap().unwrap(), "clock");
    assert_eq!(db.scan_heads(everything()).count(), 1);
    assert!(matches!(db.get(b"k"), Err(Error::Corruption { .. })));
    assert!(matches!(db.scan(everything()).next(), Some(Err(Error::Corruption { .. }))));
}

#[test]
fn large_bodies_are_compressed_once_and_shrink_log_and_tables() {
    let fs = SimFs::new();
    let (db, _) = open(&fs).unwrap();
    let record = Record { head: "h".into(), body: b"compressible ".repeat(10_000).into() };
    db.write(vec![Op::Put { key: "k".into(), record: record.clone() }], Durability::Sync).unwrap();
    assert!(db.metrics().log_bytes < 10_000, "{:?}", db.metrics());
    db.flush().unwrap();
    db.compact_all().unwrap();
    assert!(db.metrics().table_bytes < 10_000, "{:?}", db.metrics());
    assert_eq!(db.get(b"k").unwrap().unwrap(), record);
}
