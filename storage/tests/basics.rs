//! The promises of the handle, in small: what is acknowledged is visible, folded, and survives.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use merganser_storage::fs::os::OsFs;
use merganser_storage::fs::sim::SimFs;
use merganser_storage::*;

use crate::harness::*;

fn stepped(fs: &SimFs) -> (Db, Arc<Heard>, Recovery) {
    let heard = Arc::new(Heard::default());
    let fs = Arc::new(fs.clone());
    let (db, recovery) =
        Db::open(fs, Path::new(DIR), tiny_options(), Arc::new(Concat), heard.clone()).unwrap();
    (db, heard, recovery)
}

fn threaded(dir: &Path, fold: Arc<dyn Fold>) -> (Db, Arc<Heard>) {
    let heard = Arc::new(Heard::default());
    let options = Options { background: Background::Threads { compaction: 1 }, ..tiny_options() };
    let (db, _) = Db::open(Arc::new(OsFs), dir, options, fold, heard.clone()).unwrap();
    (db, heard)
}

fn write(ticket: u64, op: Op) -> Write {
    Write { ticket, ops: vec![op], durability: Durability::Sync }
}

fn merge(key: &str, body: &str) -> Op {
    Op::Merge {
        key: key.to_owned().into(),
        record: Record { head: Bytes::new(), body: body.to_owned().into() },
    }
}

#[test]
fn several_submits_share_one_sync_and_become_visible_together() {
    let fs = SimFs::new();
    let (db, heard, _) = stepped(&fs);
    let before = fs.syncs();
    db.submit(vec![write(1, put("a", "1")), write(2, put("b", "2"))]);
    db.submit(vec![write(3, put("a", "3"))]);
    assert_eq!(db.try_get(b"a").unwrap(), Lookup::Missing);
    assert_eq!(db.step(), Step::Committed { n: 3 });
    assert_eq!(fs.syncs() - before, 1);
    assert_eq!(*heard.0.lock().unwrap(), [(vec![1, 2, 3], Ok(()))]);
    assert_eq!(db.get(b"a").unwrap().unwrap().body, "3");
    assert_eq!(db.get_head(b"b").unwrap().unwrap(), "h-2");
    assert_eq!(db.step(), Step::Idle);
}

#[test]
fn what_was_acknowledged_survives_every_kind_of_crash() {
    let fs = SimFs::new();
    let (db, _, recovery) = stepped(&fs);
    assert!(recovery.created);
    db.write(vec![put("a", "1"), put("b", "2")], Durability::Sync).unwrap();
    db.write(vec![Op::Remove { key: Bytes::from("b") }], Durability::Sync).unwrap();
    for seed in 0..50 {
        let image = fs.crash_image(seed);
        let (db, _, recovery) = stepped(&image);
        assert_eq!(recovery.replayed_records, 3, "seed {seed}");
        let all: Vec<_> = db
            .scan((std::ops::Bound::Unbounded, std::ops::Bound::Unbounded))
            .map(|item| item.unwrap())
            .collect();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].1.body, "1");
    }
}

#[test]
fn a_second_open_of_the_directory_is_refused_until_the_first_closes() {
    let fs = SimFs::new();
    let (db, _, _) = stepped(&fs);
    assert!(matches!(open(&fs), Err(Error::Locked { .. })));
    let other = db.clone();
    db.close().unwrap();
    assert!(matches!(other.get(b"a"), Err(Error::NotOpen)));
    drop(other);
    assert!(open(&fs).is_ok());
}

#[test]
fn a_real_directory_is_locked_too_and_free_once_the_last_handle_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let (db, _) = threaded(dir.path(), Arc::new(Concat));
    db.write(vec![put("a", "1")], Durability::Sync).unwrap();
    let again = Db::open(Arc::new(OsFs), dir.path(), tiny_options(), Arc::new(Concat), Arc::new(NoSink));
    assert!(matches!(again, Err(Error::Locked { .. })));
    drop(again);
    drop(db);
    let (db, _) = threaded(dir.path(), Arc::new(Concat));
    assert_eq!(db.get(b"a").unwrap().unwrap().body, "1");
}

#[test]
fn threads_commit_in_order_on_a_real_disk_and_a_reopen_finds_it() {
    let dir = tempfile::tempdir().unwrap();
    let (db, heard) = threaded(dir.path(), Arc::new(Concat));
    for batch in 0..10 {
        let one = |n: u64| write(n, put(&format!("k{n}"), &"v".repeat(n as usize * 100)));
        db.submit((batch * 10..batch * 10 + 10).map(one).collect());
    }
    db.write(vec![put("last", "1")], Durability::None).unwrap();
    let completions = heard.0.lock().unwrap().clone();
    let tickets: Vec<u64> = completions.iter().flat_map(|(tickets, _)| tickets.clone()).collect();
    assert_eq!(tickets, (0..100).collect::<Vec<_>>());
    assert!(completions.len() <= 10, "at most one group per submit");
    db.flush().unwrap();
    db.close().unwrap();
    let (db, _) = threaded(dir.path(), Arc::new(Concat));
    assert_eq!(db.get(b"k77").unwrap().unwrap().body, "v".repeat(7700));
    assert_eq!(db.get(b"last").unwrap().unwrap().body, "1");
    db.close().unwrap();
}

#[test]
fn what_is_submitted_after_a_close_is_refused_and_what_was_before_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let (db, heard) = threaded(dir.path(), Arc::new(Concat));
    let other = db.clone();
    db.submit(vec![write(1, put("a", "1"))]);
    db.close().unwrap();
    other.submit(vec![write(2, put("b", "2"))]);
    let told = heard.0.lock().unwrap().clone();
    assert_eq!(told[0], (vec![1], Ok(())));
    assert!(told[1].0 == [2] && told[1].1.is_err());
    assert!(matches!(other.write(vec![], Durability::Sync), Err(Error::NotOpen)));
}

#[test]
fn pressure_rises_with_what_waits_to_be_flushed_and_writers_are_never_stopped() {
    let fs = SimFs::new();
    let options = Options { memtables_frozen_max: 8, ..tiny_options() };
    let (db, _) = open_with(&fs, options).unwrap();
    let mut highest = 0.0f32;
    for n in 0..400 {
        db.submit(vec![write(n, put(&format!("k{n}"), &"x".repeat(200)))]);
        assert!(matches!(db.step(), Step::Committed { .. } | Step::Flushed));
        highest = highest.max(db.pressure());
    }
    assert!((0.8..=1.0).contains(&highest), "{highest}");
    rest(&db);
    assert!(db.pressure() < 0.2);
    assert_eq!(contents(&db).unwrap().0.len(), 400);
}

/// Several readers against a writer, flushes and compactions: a key's number only ever grows.
#[test]
fn readers_never_see_a_key_vanish_or_go_back_while_tables_change_under_them() {
    let dir = tempfile::tempdir().unwrap();
    let (db, _) = threaded(dir.path(), Arc::new(NewestWins));
    let keys = 50u64;
    let number = |n: u64| vec![Op::Put { key: format!("k{}", n % keys).into(), record: numbered(n) }];
    (0..keys).for_each(|n| db.write(number(n), Durability::None).unwrap());
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..3u64 {
            let (db, stop) = (&db, &stop);
            scope.spawn(move || {
                let mut seen = vec![0u64; keys as usize];
                let mut at = reader;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    at = (at * 7 + 1) % keys;
                    let key = format!("k{at}");
                    let record = if reader == 2 {
                        let from = Bound::Included(key.clone().into_bytes());
                        db.scan((from, Bound::Unbounded)).next().unwrap().unwrap().1
                    } else {
                        db.get(key.as_bytes()).unwrap().unwrap()
                    };
                    let found: u64 = std::str::from_utf8(&record.head).unwrap().parse().unwrap();
                    assert_eq!(record, numbered(found));
                    assert!(
                        found >= seen[at as usize],
                        "{key} went back from {} to {found}",
                        seen[at as usize]
                    );
                    seen[at as usize] = found;
                }
            });
        }
        for n in keys..3_000 {
            db.write(number(n), Durability::None).unwrap();
            if n % 1_000 == 0 {
                db.compact_all().unwrap();
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(db.metrics().compactions > 0 && db.metrics().flushes > 10, "{:?}", db.metrics());
    db.close().unwrap();
}

fn numbered(n: u64) -> Record {
    let body = format!("{n} ").repeat(n as usize % 300);
    Record { head: n.to_string().into(), body: body.into() }
}

#[test]
fn an_interval_write_is_acknowledged_at_once_and_synced_by_a_later_step() {
    let fs = SimFs::new();
    let (db, heard, _) = stepped(&fs);
    let before = fs.syncs();
    db.submit(vec![Write { ticket: 1, ops: vec![put("a", "1")], durability: Durability::Interval }]);
    assert_eq!(db.step(), Step::Committed { n: 1 });
    assert_eq!((heard.0.lock().unwrap().len(), fs.syncs() - before), (1, 0));
    assert_eq!(db.get(b"a").unwrap().unwrap().body, "1");
    assert_eq!(db.step(), Step::Synced);
    assert_eq!(fs.syncs() - before, 1);
    assert_eq!(db.step(), Step::Idle);
    for seed in 0..10 {
        assert!(stepped(&fs.crash_image(seed)).0.get(b"a").unwrap().is_some());
    }
}

#[test]
fn a_scan_goes_on_over_what_it_began_with_while_tables_come_and_go() {
    let fs = SimFs::new();
    let (db, _, _) = stepped(&fs);
    for n in 0..100 {
        db.write(vec![put(&format!("k{n:02}"), "old")], Durability::None).unwrap();
    }
    db.flush().unwrap();
    let mut scan = db.scan((Bound::Unbounded, Bound::Unbounded));
    assert_eq!(scan.next().unwrap().unwrap().0, "k00");
    for n in 0..100 {
        db.write(vec![Op::Remove { key: format!("k{n:02}").into() }], Durability::None).unwrap();
    }
    db.compact_all().unwrap();
    assert_eq!(contents(&db).unwrap(), Model::default());
    assert_eq!(files_named(&fs, ".sst").len(), 0);
    // Removes that were in the memtable then may show or not; what shows is what was written.
    assert!(scan.map(|item| item.unwrap()).all(|(_, record)| record.body == "old"));
}

#[test]
fn log_files_are_recycled_and_their_old_frames_never_come_back() {
    let fs = SimFs::new();
    let (db, _, _) = stepped(&fs);
    let mut model = Model::default();
    let mut most_logs = 0;
    for n in 0..300 {
        let op = vec![merge(&format!("k{}", n % 7), &format!("[{n}]"))];
        db.write(op.clone(), Durability::Sync).unwrap();
        model.apply(&op);
        rest(&db);
        most_logs = most_logs.max(files_named(&fs, ".wal").len());
        if n % 37 == 0 {
            assert_eq!(contents(&stepped(&fs.crash_image(n)).0).unwrap(), model);
        }
    }
    assert!(db.metrics().flushes > 5);
    assert!(most_logs <= 4, "{most_logs} logs at once");
}

/// Panics instead of folding.
struct Panics;

impl Fold for Panics {
    fn fold(&self, _key: &[u8], _newest_first: &[Record]) -> Result<Record, FoldError> {
        panic!("a bug in the caller's fold");
    }
}

#[test]
fn a_panic_in_the_fold_poisons_and_leaves_nobody_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let heard = Arc::new(Heard::default());
    let options = Options { log_file_bytes: 64 << 10, ..Options::default() };
    let db = Db::open(Arc::new(OsFs), dir.path(), options, Arc::new(Panics), heard.clone()).unwrap().0;
    // The memtable folds a stack once it is tall, on the log thread.
    let mut last = Ok(());
    for n in 0..40 {
        db.submit(vec![write(n, merge("k", "x"))]);
        last = db.write(vec![merge("k", "y")], Durability::None);
    }
    assert!(matches!(last, Err(Error::Poisoned { .. })), "{last:?}");
    assert!(matches!(db.get(b"other"), Err(Error::Poisoned { .. })));
    drop(db);
    let tickets: Vec<u64> = heard.0.lock().unwrap().iter().flat_map(|(tickets, _)| tickets.clone()).collect();
    assert_eq!(tickets, (0..40).collect::<Vec<_>>());
}

#[test]
fn a_database_without_its_pointer_is_not_taken_for_a_new_one() {
    let fs = SimFs::new();
    let (db, _, _) = stepped(&fs);
    db.write(vec![put("a", "1")], Durability::Sync).unwrap();
    drop(db);
    let image = fs.crash_image(0);
    fs::Fs::unlink(&image, &Path::new(DIR).join("CURRENT")).unwrap();
    assert!(matches!(open(&image), Err(Error::Corruption { .. })));
}

/// Keys of ours are registers: the larger head wins, whenever it was written. Bodies are never asked for.
struct LargerHead;

impl Fold for LargerHead {
    fn fold(&self, _key: &[u8], _newest_first: &[Record]) -> Result<Record, FoldError> {
        Err(FoldError("heads tell".into()))
    }

    fn wins(&self, _key: &[u8], newer_head: &Bytes, older_head: &Bytes) -> Option<Winner> {
        Some(if newer_head >= older_head { Winner::Newer } else { Winner::Older })
    }
}

#[test]
fn where_heads_tell_which_fragment_wins_one_body_is_read_and_nothing_is_folded() {
    let fs = SimFs::new();
    let options = Options { cache_bytes: 0, ..unmerged() };
    let opened =
        Db::open(Arc::new(fs.clone()), DIR.as_ref(), options, Arc::new(LargerHead), Arc::new(NoSink));
    let db = opened.unwrap().0;
    let write = |head: &str| {
        let record =
            Record { head: head.to_owned().into(), body: format!("{head}{}", "x".repeat(900)).into() };
        db.write(vec![Op::Merge { key: "k".into(), record }], Durability::Sync).unwrap();
    };
    let won = |head: &str| {
        let record = db.get(b"k").unwrap().unwrap();
        assert_eq!(record.head, head);
        assert!(record.body.starts_with(head.as_bytes()));
        assert_eq!(db.get_head(b"k").unwrap().unwrap(), head);
        assert_eq!(db.scan(everything()).next().unwrap().unwrap().1, record);
    };
    // In the memtable, late and early; a stack never gets high.
    for head in ["3", "5", "4"] {
        write(head);
    }
    won("5");
    assert_eq!(db.get_fragments(b"k").unwrap().len(), 1);
    db.flush().unwrap();
    // Over tables.
    for head in ["2", "7", "6"] {
        write(head);
        db.flush().unwrap();
    }
    assert_eq!(db.get_fragments(b"k").unwrap().len(), 4);
    won("7");
    let reads = || db.metrics().file_reads;
    let before = reads();
    db.get(b"k").unwrap();
    assert_eq!(reads() - before, 4 + 1, "a block of each table, and one body");
    db.compact_all().unwrap();
    assert_eq!(db.get_fragments(b"k").unwrap().len(), 1);
    won("7");
}

/// F40: what was removed, or overwritten, gives its room back though hardly anything is written after it.
#[test]
fn space_comes_back_when_little_is_written() {
    for remove in [true, false] {
        let fs = SimFs::new();
        let (db, _) = open_with(&fs, Options { tier_fanout: 4, ..tiny_options() }).unwrap();
        let noise = |n: u32| -> Vec<u8> {
            (0..3_000u32).map(|at| (at.wrapping_mul(2_654_435_761 + n) >> 13) as u8).collect()
        };
        for n in 0..100 {
            let record = Record { head: "h".into(), body: noise(n).into() };
            db.write(vec![Op::Put { key: format!("k{n:03}").into(), record }], Durability::Sync).unwrap();
            rest(&db);
        }
        db.flush().unwrap();
        rest(&db);
        let full = db.metrics().table_bytes;
        assert!(full > 80_000, "{full}");
        for n in 0..100 {
            let key = Bytes::from(format!("k{n:03}"));
            let op = if remove { Op::Remove { key } } else { Op::Put { key, record: Record::default() } };
            db.write(vec![op], Durability::Sync).unwrap();
        }
        // Idle: nothing is written any more.
        for _ in 0..20 {
            rest(&db);
        }
        let left = db.metrics().table_bytes;
        assert!(left < full / 5, "remove {remove}: {left} of {full} bytes are left");
    }
}

#[test]
fn the_manifest_stays_short_while_the_database_is_open() {
    let fs = SimFs::new();
    let (db, _) = open(&fs).unwrap();
    for n in 0..300 {
        db.write(vec![put(&format!("k{}", n % 7), "v")], Durability::Sync).unwrap();
        db.flush().unwrap();
        rest(&db);
        let manifests: Vec<u64> = fs
            .files()
            .into_iter()
            .filter(|(path, _)| path.to_string_lossy().contains("MANIFEST"))
            .map(|(_, len)| len)
            .collect();
        assert_eq!(manifests.len(), 1);
        assert!(manifests[0] < 16 << 10, "{} bytes after {n} flushes", manifests[0]);
    }
    let found = contents(&db).unwrap();
    let image = fs.crash_image(1);
    assert_eq!(contents(&open(&image).unwrap().0).unwrap(), found);
}

/// S3: a merge that cannot fit is not begun, and takes no room from the writers.
#[test]
fn a_merge_without_room_is_left_until_there_is_some() {
    let fs = SimFs::new();
    let (db, _) = open_with(&fs, Options { tier_fanout: 4, ..tiny_options() }).unwrap();
    for n in 0..3 {
        db.write(vec![put(&format!("k{n}"), &"v".repeat(3_000))], Durability::Sync).unwrap();
        db.flush().unwrap();
    }
    let used: u64 = fs.files().iter().map(|(_, len)| len).sum();
    fs.set_capacity_bytes(Some(used + (12 << 10)));
    db.write(vec![put("k3", &"v".repeat(3_000))], Durability::Sync).unwrap();
    db.flush().unwrap();
    fs.set_capacity_bytes(Some(fs.files().iter().map(|(_, len)| len).sum::<u64>() + 1_000));
    rest(&db);
    assert_eq!((db.metrics().compactions, db.metrics().background_error.as_str()), (0, ""));
    fs.set_capacity_bytes(None);
    rest(&db);
    assert_eq!(db.metrics().compactions, 1);
}
