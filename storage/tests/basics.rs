//! The promises of the handle, in small: what is acknowledged is visible, folded, and survives.

use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use merganser_storage::fs::os::OsFs;
use merganser_storage::fs::sim::SimFs;
use merganser_storage::*;

/// Remembers what it was told.
#[derive(Default)]
struct Heard(Mutex<Vec<Completion>>);

type Completion = (Vec<u64>, Result<(), String>);

impl CommitSink for Heard {
    fn committed(&self, tickets: &[u64], result: Result<(), Error>) {
        self.0.lock().unwrap().push((tickets.to_vec(), result.map_err(|error| error.to_string())));
    }
}

fn put(key: &str, body: &str) -> Op {
    let record = Record { head: Bytes::from(format!("h-{body}")), body: Bytes::from(body.to_owned()) };
    Op::Put { key: Bytes::from(key.to_owned()), record }
}

fn stepped(fs: &SimFs) -> (Db, Arc<Heard>, Recovery) {
    let heard = Arc::new(Heard::default());
    let fs = Arc::new(fs.clone());
    let (db, recovery) =
        Db::open(fs, Path::new("/db"), Options::stepped(), Arc::new(NewestWins), heard.clone()).unwrap();
    (db, heard, recovery)
}

fn write(ticket: u64, op: Op) -> Write {
    Write { ticket, ops: vec![op], durability: Durability::Sync }
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
    let again = || {
        Db::open(
            Arc::new(fs.clone()),
            Path::new("/db"),
            Options::stepped(),
            Arc::new(NewestWins),
            Arc::new(NoSink),
        )
    };
    assert!(matches!(again(), Err(Error::Locked { .. })));
    db.close().unwrap();
    assert!(again().is_ok());
}

#[test]
fn threads_commit_on_a_real_disk_and_a_reopen_finds_it() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let sink = Arc::new(Heard::default());
        let options = Options { log_file_bytes: 1 << 20, ..Options::default() };
        Db::open(Arc::new(OsFs), dir.path(), options, Arc::new(NewestWins), sink.clone())
            .map(|(db, _)| (db, sink))
            .unwrap()
    };
    let (db, sink) = open();
    db.submit((0..100).map(|n| write(n, put(&format!("k{n}"), &"v".repeat(n as usize * 100)))).collect());
    db.write(vec![put("last", "1")], Durability::None).unwrap();
    let tickets: Vec<u64> = sink.0.lock().unwrap().iter().flat_map(|(tickets, _)| tickets.clone()).collect();
    assert_eq!(tickets, (0..100).collect::<Vec<_>>());
    db.close().unwrap();
    let (db, _) = open();
    assert_eq!(db.get(b"k77").unwrap().unwrap().body, "v".repeat(7700));
    assert_eq!(db.get(b"last").unwrap().unwrap().body, "1");
    db.close().unwrap();
}
