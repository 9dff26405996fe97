//! Files that older programs wrote must open for ever.
//!
//! `fixtures/v1` was written once by `every_kind_of_thing`, at format version 1. A new version adds a directory
//! and never changes an old one. To make the directory of a new version:
//! `MERGANSER_WRITE_FIXTURE=v2 cargo test -p merganser-storage compatibility::`.

use std::path::{Path, PathBuf};

use merganser_storage::fs::sim::SimFs;
use merganser_storage::*;

use crate::harness::*;

fn fixture_dir(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(version)
}

fn record(head: &str, body: Vec<u8>) -> Record {
    Record { head: head.to_owned().into(), body: body.into() }
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_mul(at | 1) >> 37) as u8)
        .collect()
}

/// A history that leaves something of everything in the files. Frozen: the fixtures were made with it.
fn every_kind_of_thing() -> Vec<Vec<Op>> {
    let put =
        |key: &str, head: &str, body| Op::Put { key: key.to_owned().into(), record: record(head, body) };
    let merge =
        |key: &str, head: &str, body| Op::Merge { key: key.to_owned().into(), record: record(head, body) };
    let remove = |key: &str| Op::Remove { key: key.to_owned().into() };
    let mut writes = vec![
        vec![put("empty", "", vec![]), put("", "the empty key", b"has a value".to_vec())],
        vec![put("small", "h1", b"some bytes".to_vec())],
        vec![put("large", "h2", b"compressible ".repeat(200)), put("large-noise", "h3", noise(3000))],
        vec![put("gone", "h4", b"x".to_vec()), put("gone-later", "h5", noise(600))],
        vec![merge("joined", "a", b"1".to_vec()), merge("joined", "b", b"2".to_vec())],
        vec![merge("stubborn!", "s1", b"one".to_vec()), merge("stubborn!", "s2", noise(700))],
    ];
    writes.extend(
        (0..40).map(|n| vec![put(&format!("row-{n:02}"), &format!("clock {n}"), vec![n; n as usize * 3])]),
    );
    // The first half goes to a table, the rest to another and to the log.
    writes.push(vec![remove("gone"), merge("joined", "c", noise(900))]);
    writes.push(vec![put("small", "h6", b"newer bytes".to_vec())]);
    writes.push(vec![merge("stubborn!", "s3", b"three".to_vec())]);
    writes.push(vec![
        remove("gone-later"),
        merge("joined", "d", b"4".to_vec()),
        put("log-only", "h7", noise(2000)),
    ]);
    writes
}

fn write_fixture(dir: &Path) {
    let fs = SimFs::new();
    let options = Options { memtable_bytes: 1 << 20, ..tiny_options() };
    let (db, _) = open_with(&fs, options).unwrap();
    let writes = every_kind_of_thing();
    for (at, ops) in writes.iter().enumerate() {
        db.write(ops.clone(), Durability::Sync).unwrap();
        if at == 25 || at == 47 {
            db.flush().unwrap();
        }
    }
    std::fs::create_dir_all(dir).unwrap();
    for (path, _) in fs.files() {
        std::fs::write(dir.join(path.file_name().unwrap()), fs.contents(&path).unwrap()).unwrap();
    }
}

fn check_fixture(dir: &Path) {
    let fs = SimFs::new();
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for name in &names {
        fs.install(&Path::new(DIR).join(name), &std::fs::read(dir.join(name)).unwrap());
    }
    let (db, recovery) = open(&fs).unwrap();
    assert_eq!((recovery.tables, recovery.dropped_tail_bytes), (2, 0), "{recovery:?}");
    assert!(recovery.replayed_records >= 4, "{recovery:?}");
    let mut model = Model::default();
    every_kind_of_thing().iter().for_each(|ops| model.apply(ops));
    let check = |db: &Db| {
        for (key, expected) in &model.0 {
            if key.ends_with(b"!") {
                let heads: Vec<_> =
                    db.get_fragments(key).unwrap().into_iter().map(|part| part.head).collect();
                assert_eq!(heads, ["s3", "s2", "s1"]);
            } else {
                assert_eq!(db.get(key).unwrap().as_ref(), Some(expected), "{key:?}");
                assert_eq!(db.get_head(key).unwrap().as_ref(), Some(&expected.head), "{key:?}");
            }
        }
        for gone in ["gone", "gone-later", "never"] {
            assert_eq!(db.get(gone.as_bytes()).unwrap(), None);
        }
        let keys: Vec<_> = db.scan_heads(everything()).filter_map(|item| Some(item.ok()?.0)).collect();
        let until_stubborn: Vec<_> = model.0.keys().take_while(|key| !key.ends_with(b"!")).cloned().collect();
        assert_eq!(keys[..until_stubborn.len()], until_stubborn);
    };
    check(&db);
    db.compact_all().unwrap();
    check(&db);
    db.close().unwrap();
    check(&open(&fs).unwrap().0);
}

#[test]
fn files_of_every_released_version_open_and_hold_what_they_held() {
    if let Ok(version) = std::env::var("MERGANSER_WRITE_FIXTURE") {
        assert!(!fixture_dir(&version).exists(), "fixtures are never rewritten");
        write_fixture(&fixture_dir(&version));
    }
    let mut versions = 0;
    for entry in std::fs::read_dir(fixture_dir("")).unwrap() {
        check_fixture(&entry.unwrap().path());
        versions += 1;
    }
    assert!(versions >= 1);
}
