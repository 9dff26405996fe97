//! A disk that refuses: failed syncs poison, a full disk keeps what was acknowledged.

use std::sync::Arc;

use merganser_storage::fs::sim::{Fault, FaultEffect, OpKind, SimFs};
use merganser_storage::*;

use crate::harness::*;

#[test]
fn a_failed_sync_poisons_and_what_was_acknowledged_survives() {
    let fs = SimFs::new();
    let heard = Arc::new(Heard::default());
    let db = Db::open(Arc::new(fs.clone()), DIR.as_ref(), tiny_options(), Arc::new(Concat), heard.clone())
        .unwrap()
        .0;
    db.write(vec![put("a", "1")], Durability::Sync).unwrap();
    fs.inject(Fault::next(OpKind::Sync, FaultEffect::Io));
    db.submit(vec![Write { ticket: 9, ops: vec![put("b", "2")], durability: Durability::Sync }]);
    db.step();
    let told = heard.0.lock().unwrap().clone();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, [9]);
    assert!(told[0].1.as_ref().is_err_and(|text| text.contains("stopped after a failure")), "{told:?}");
    for error in [
        db.get(b"a").err(),
        db.try_get(b"a").err(),
        db.write(vec![put("c", "3")], Durability::None).err(),
        db.flush().err(),
        db.scan(everything()).next().and_then(Result::err),
        db.clone().close().err(),
    ] {
        assert!(matches!(error, Some(Error::Poisoned { .. })), "{error:?}");
    }
    db.submit(vec![Write { ticket: 10, ops: vec![put("d", "4")], durability: Durability::None }]);
    db.step();
    let last = heard.0.lock().unwrap().last().unwrap().clone();
    assert!(last.0 == [10] && last.1.is_err(), "{last:?}");
    drop(db);
    // The page cache still shows "b"; a power loss shows that it never reached the disk.
    fs.crash(0);
    let (db, _) = open(&fs).unwrap();
    assert_eq!(db.get(b"a").unwrap().unwrap().body, "1");
    assert_eq!(db.get(b"b").unwrap(), None);
}

#[test]
fn after_a_failed_sync_a_restart_makes_durable_whatever_it_serves() {
    let fs = SimFs::new();
    let (db, _) = open(&fs).unwrap();
    fs.inject(Fault::next(OpKind::Sync, FaultEffect::Io));
    db.write(vec![put("b", "2")], Durability::Sync).unwrap_err();
    drop(db);
    // Only the process restarts: the page cache holds clean pages that the device never saw.
    let (db, _) = open(&fs).unwrap();
    let served = db.get(b"b").unwrap().is_some();
    drop(db);
    for seed in 0..20 {
        let image = fs.crash_image(seed);
        let (db, _) = open(&image).unwrap();
        assert_eq!(db.get(b"b").unwrap().is_some(), served, "seed {seed}");
    }
}

#[test]
fn failed_syncs_anywhere_poison_or_are_reported_and_lose_nothing() {
    for kind in [OpKind::Sync, OpKind::SyncDir, OpKind::Write, OpKind::Name, OpKind::Open] {
        for skip in 0..40 {
            let fs = SimFs::new();
            let (db, _) = open(&fs).unwrap();
            fs.inject(Fault { kind, path_contains: None, skip, times: 1, effect: FaultEffect::Io });
            let mut acknowledged = Model::default();
            let mut refused = Model::default();
            for n in 0..30 {
                let op = vec![put(&format!("k{n}"), &"v".repeat(400))];
                match db.write(op.clone(), Durability::Sync) {
                    Ok(()) => acknowledged.apply(&op),
                    Err(_) => refused.apply(&op),
                }
                if n % 5 == 0 {
                    rest(&db);
                }
            }
            let _ = db.compact_all();
            drop(db);
            fs.crash(skip);
            let (db, _) = open(&fs).unwrap_or_else(|error| panic!("{kind:?} {skip}: {error}"));
            let found = contents(&db).unwrap();
            for (key, record) in &acknowledged.0 {
                assert_eq!(found.0.get(key), Some(record), "{kind:?} {skip}");
            }
            assert!(
                found.0.keys().all(|key| acknowledged.0.contains_key(key) || refused.0.contains_key(key))
            );
        }
    }
}

#[test]
fn a_full_disk_refuses_writes_keeps_what_was_acknowledged_and_goes_on_when_there_is_room() {
    for capacity in [40_000, 60_000, 90_000] {
        let fs = SimFs::new();
        let (db, _) = open(&fs).unwrap();
        fs.set_capacity_bytes(Some(capacity));
        let mut model = Model::default();
        let mut refused = 0;
        for n in 0..200 {
            // Noise, so that compression does not save us.
            let noise: Vec<u8> =
                (0..700u32).map(|at| (at.wrapping_mul(2_654_435_761 + n) >> 13) as u8).collect();
            let record = Record { head: "h".into(), body: noise.into() };
            let op = vec![Op::Put { key: format!("k{n:03}").into(), record }];
            match db.write(op.clone(), Durability::Sync) {
                Ok(()) => model.apply(&op),
                Err(Error::NoSpace { .. }) => refused += 1,
                Err(other) => panic!("{other}"),
            }
            if n % 10 == 0 {
                rest(&db);
            }
        }
        assert!(refused > 0, "capacity {capacity} was never reached");
        assert_eq!(contents(&db).unwrap(), model);
        // Opening copies the log's tail, so it needs some room.
        let image = fs.crash_image(capacity);
        image.set_capacity_bytes(None);
        let (reopened, _) = open(&image).unwrap();
        assert_eq!(contents(&reopened).unwrap(), model);
        fs.set_capacity_bytes(None);
        let op = vec![put("more", "room")];
        db.write(op.clone(), Durability::Sync).unwrap();
        model.apply(&op);
        db.compact_all().unwrap();
        assert_eq!(contents(&db).unwrap(), model);
    }
}

#[test]
fn an_unreadable_sector_is_an_error_and_not_a_missing_key() {
    let fs = SimFs::new();
    let (db, _) = open(&fs).unwrap();
    db.write(vec![put("a", "1")], Durability::Sync).unwrap();
    db.flush().unwrap();
    fs.inject(Fault {
        kind: OpKind::Read,
        path_contains: Some(".sst".into()),
        skip: 0,
        times: 3,
        effect: FaultEffect::Io,
    });
    assert!(matches!(db.get(b"a"), Err(Error::Io { op: "read", .. })));
    // Whoever repairs damage hears of it at once, and not when the verifier comes by.
    assert_eq!(db.damaged().len(), 1);
    // The disk may be better at the second attempt; reads may be tried again.
    assert_eq!(db.get(b"a").unwrap().unwrap().body, "1");
}

#[test]
fn too_much_waiting_is_refused_and_too_large_is_refused_alone() {
    let fs = SimFs::new();
    let heard = Arc::new(Heard::default());
    let options = Options { queue_bytes_max: 2_000, ..tiny_options() };
    let db = Db::open(Arc::new(fs), DIR.as_ref(), options, Arc::new(Concat), heard.clone()).unwrap().0;
    let write = |ticket, op| Write { ticket, ops: vec![op], durability: Durability::Sync };
    db.submit((0..4).map(|n| write(n, put(&format!("k{n}"), &"x".repeat(200)))).collect());
    assert!(db.pressure() > 0.8);
    db.submit(vec![write(4, put("k4", &"x".repeat(800)))]);
    db.submit(vec![write(5, put(&"k".repeat(limits::KEY_BYTES_MAX + 1), ""))]);
    assert_eq!(db.pending_commit(), 6);
    rest(&db);
    let heard = heard.0.lock().unwrap().clone();
    let result = |ticket| heard.iter().find(|(tickets, _)| tickets.contains(&ticket)).unwrap().1.clone();
    assert!((0..4).all(|ticket| result(ticket).is_ok()));
    assert!(result(4).unwrap_err().contains("too many bytes"));
    assert!(result(5).unwrap_err().contains("larger than"));
    assert!(db.pressure() < 0.5);
    assert_eq!(db.get(b"k3").unwrap().unwrap().body.len(), 200);
}

fn threaded(fs: &SimFs) -> Db {
    let options = Options { background: Background::Threads { compaction: 1 }, ..tiny_options() };
    Db::open(Arc::new(fs.clone()), DIR.as_ref(), options, Arc::new(Concat), Arc::new(NoSink)).unwrap().0
}

#[test]
fn a_failed_sync_in_a_background_thread_stops_every_writer() {
    let fs = SimFs::new();
    let db = threaded(&fs);
    fs.inject(Fault {
        kind: OpKind::Sync,
        path_contains: Some(".sst".into()),
        skip: 2,
        times: 1,
        effect: FaultEffect::Io,
    });
    let mut model = Model::default();
    let stopped = (0..10_000).find_map(|n| {
        let op = vec![put(&format!("k{n}"), &"x".repeat(300))];
        let error = db.write(op.clone(), Durability::Sync).err();
        if error.is_none() {
            model.apply(&op);
        }
        error
    });
    assert!(matches!(stopped, Some(Error::Poisoned { .. })), "{stopped:?}");
    drop(db);
    fs.crash(3);
    let found = contents(&open(&fs).unwrap().0).unwrap();
    assert!(model.0.iter().all(|(key, record)| found.0.get(key) == Some(record)));
}

#[test]
fn while_tables_cannot_be_written_memory_stays_bounded_and_writers_are_told() {
    let fs = SimFs::new();
    let db = threaded(&fs);
    fs.inject(Fault {
        kind: OpKind::Write,
        path_contains: Some(".sst".into()),
        skip: 0,
        times: u64::MAX,
        effect: FaultEffect::NoSpace,
    });
    let mut model = Model::default();
    let refused = (0..10_000).find_map(|n| {
        let op = vec![put(&format!("k{n}"), &"x".repeat(300))];
        let error = db.write(op.clone(), Durability::None).err();
        if error.is_none() {
            model.apply(&op);
        }
        error
    });
    assert!(matches!(refused, Some(Error::NoSpace { .. })), "{refused:?}");
    assert!(model.0.len() < 200, "{} writes of 300 bytes fit five memtables of 4 KiB", model.0.len());
    assert_eq!(contents(&db).unwrap(), model);
    assert!(db.metrics().background_error.contains("no space"));
    fs.heal();
    db.flush().unwrap();
    db.write(vec![put("more", "room")], Durability::Sync).unwrap();
    db.close().unwrap();
    assert_eq!(contents(&open(&fs).unwrap().0).unwrap().0.len(), model.0.len() + 1);
}

#[test]
fn a_log_that_cannot_be_started_is_not_tried_again_with_each_write() {
    let fs = SimFs::new();
    let (db, _) = open(&fs).unwrap();
    let newest = || {
        let number = |path: &std::path::Path| path.file_stem()?.to_str()?.parse::<u64>().ok();
        let is_log = |path: &std::path::Path| path.extension().is_some_and(|ending| ending == "wal");
        let files = fs.files().into_iter().filter(|(path, _)| is_log(path));
        files.filter_map(|(path, _)| number(&path)).max().unwrap()
    };
    let before = newest();
    fs.inject(Fault {
        kind: OpKind::Name,
        path_contains: Some(".wal".into()),
        skip: 0,
        times: u64::MAX,
        effect: FaultEffect::NoSpace,
    });
    let mut model = Model::default();
    // Some memtables' worth in the one that there is.
    let mut taken = 0;
    for n in 0..1_000 {
        let op = vec![put(&format!("k{n}"), &"x".repeat(20))];
        match db.write(op.clone(), Durability::Sync) {
            Ok(()) => model.apply(&op),
            Err(Error::NoSpace { .. }) => break,
            Err(other) => panic!("{other}"),
        }
        taken += 1;
        rest(&db);
    }
    assert_eq!(newest(), before);
    fs.heal();
    db.flush().unwrap();
    let tried = newest() - before;
    assert!((2..=16).contains(&tried) && taken > 50, "{tried} file numbers for {taken} writes");
    assert_eq!(contents(&db).unwrap(), model);
    assert_eq!(contents(&open(&fs.crash_image(1)).unwrap().0).unwrap(), model);
}

/// Variant A of a log that was never started: a rotation gets a name for the next log and no handle, which is what a
/// process without file descriptors sees.
#[test]
fn a_rotation_without_file_descriptors_never_makes_the_next_open_fail() {
    for fault in [OpKind::Open, OpKind::Name, OpKind::Write] {
        for (skip, times) in (0..6).flat_map(|skip| (1..4).map(move |times| (skip, times))) {
            let fs = SimFs::new();
            let (db, _) = open(&fs).unwrap();
            let mut model = Model::default();
            let context = format!("{fault:?}, {skip} spared, {times} hit");
            for n in 0..60 {
                // The second rotation finds a spare file.
                if n == 24 {
                    let path_contains = Some(".wal".to_owned());
                    fs.inject(Fault { kind: fault, path_contains, skip, times, effect: FaultEffect::Io });
                }
                let op = vec![put(&format!("k{n}"), &"v".repeat(400))];
                match db.write(op.clone(), Durability::Sync) {
                    Ok(()) => model.apply(&op),
                    // A write that fails poisons; an open or a name does not.
                    Err(Error::Poisoned { .. }) if fault == OpKind::Write => break,
                    Err(error) => panic!("{context}: {error}"),
                }
                if n % 6 == 0 {
                    rest(&db);
                }
                // Any restart, before or after the flush that raises the floor.
                let image = fs.crash_image(n);
                let (reopened, _) = open(&image).unwrap_or_else(|error| panic!("{context}, {n}: {error}"));
                assert_eq!(contents(&reopened).unwrap(), model, "{context}, {n}");
            }
        }
    }
}
