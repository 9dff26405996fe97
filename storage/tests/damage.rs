//! Damage in tables, and life with it: what is not damaged stays readable, and what is can be repaired.
//!
//! Goal: after any flipped bit in any table, the database opens; a scan gives every record that a read of its key
//! gives, tells which keys the others could be among, and goes on behind them; nothing is "missing" that is not.
//! Repair is what the cluster does: write every key of a damaged span anew from another copy (here: the model),
//! then excise the span. After that all is as the model says, for good.

use std::collections::BTreeMap;

use merganser_storage::fs::sim::{Fault, FaultEffect, OpKind, SimFs};
use merganser_storage::*;

use crate::harness::*;

/// Several tables with puts, merges and removes in all of them.
fn damaged_ground(seed: u64) -> (SimFs, Model) {
    let fs = SimFs::new();
    let options = unmerged();
    let (db, _) = open_with(&fs, options).unwrap();
    let (mut history, mut model) = (History::new(seed, 60), Model::default());
    for n in 0..160 {
        if let Act::Write(ops, _) = history.act() {
            model.apply(&ops);
            db.write(ops, Durability::Sync).unwrap();
        }
        if n % 40 == 39 {
            db.flush().unwrap();
        }
    }
    assert!(db.metrics().tables >= 4);
    db.close().unwrap();
    (fs.crash_image(seed), model)
}

fn open_apart(fs: &SimFs) -> Db {
    // Tables stay as they are unless a test says otherwise.
    open_with(fs, unmerged()).unwrap().0
}

/// What a scan gives, and the keys that it says it could not read.
fn scanned(db: &Db) -> (Model, Vec<KeySpan>) {
    let (mut found, mut gaps) = (Model::default(), Vec::new());
    for item in db.scan(everything()) {
        match item {
            Ok((key, record)) => assert_eq!(found.0.insert(key, record), None),
            Err(error) => gaps.push(error.hidden_keys().unwrap_or_else(|| panic!("{error}"))),
        }
    }
    (found, gaps)
}

/// Reads, heads and scans agree with each other and with the model, as far as they can be read. Says how many of
/// the model's keys cannot.
fn check_readable(db: &Db, model: &Model, context: &str) -> usize {
    let (found, gaps) = scanned(db);
    let inside = |key: &[u8]| gaps.iter().any(|gap| gap.contains(key));
    let mut hidden = 0;
    for n in 0..60 {
        let key = format!("key-{n:03}");
        let expected = model.0.get(key.as_bytes());
        match db.get(key.as_bytes()) {
            Ok(record) => {
                assert_eq!(record.as_ref(), expected, "{context}: {key}");
                assert_eq!(found.0.get(key.as_bytes()), expected, "{context}: {key} in a scan");
                assert_eq!(db.get_head(key.as_bytes()).unwrap(), record.map(|record| record.head));
            }
            Err(error) => {
                let told = error.hidden_keys().unwrap_or_else(|| panic!("{context}: {error}"));
                assert!(told.contains(key.as_bytes()), "{context}: {key} is not in {told:?}");
                assert!(inside(key.as_bytes()), "{context}: a scan is silent about {key}");
                assert_eq!(found.0.get(key.as_bytes()), None, "{context}: {key} in a scan");
                hidden += usize::from(expected.is_some());
            }
        }
    }
    assert!(found.0.keys().all(|key| model.0.contains_key(key)), "{context}");
    hidden
}

/// One whole pass in small steps.
fn verify(db: &Db) -> (VerifyProgress, usize) {
    let (mut whole, mut steps) = (VerifyProgress::default(), 0);
    let mut cursor = Some(VerifyCursor::default());
    while let Some(at) = cursor {
        let step = db.verify_some(at, 600).unwrap();
        whole.bytes += step.bytes;
        whole.blocks += step.blocks;
        whole.values += step.values;
        whole.damage.extend(step.damage);
        (cursor, steps) = (step.cursor, steps + 1);
    }
    (whole, steps)
}

/// What the cluster does once it knows of damage.
fn repair(db: &Db, model: &Model) -> usize {
    let seen = db.damage_seen();
    let spans: Vec<KeySpan> = db.damaged().into_iter().map(|damage| damage.keys).collect();
    for span in &spans {
        let held = model.0.iter().filter(|(key, _)| span.contains(key));
        let anew = held.map(|(key, record)| Op::Put { key: key.clone(), record: record.clone() }).collect();
        db.write(anew, Durability::Sync).unwrap();
    }
    spans.iter().map(|span| db.excise(span, seen).unwrap()).sum()
}

fn flips(fs: &SimFs, stride: usize) -> impl Iterator<Item = (SimFs, String)> {
    let tables: Vec<_> = files_named(fs, ".sst");
    let lens: BTreeMap<_, _> = fs.files().into_iter().collect();
    let places = tables.into_iter().flat_map(move |path| {
        let len = lens[&path];
        (0..len).step_by(stride).map(move |at| (path.clone(), at))
    });
    places.map(|(path, at)| {
        let image = fs.crash_image(0);
        image.flip_bit(&path, at, (at % 8) as u8).unwrap();
        (image, format!("byte {at} of {}", path.display()))
    })
}

/// Such a ground with a flipped bit that hides some of the keys.
fn with_hidden_keys(seed: u64) -> (SimFs, Model) {
    let (fs, model) = damaged_ground(seed);
    let hides = |(image, context): &(SimFs, String)| check_readable(&open_apart(image), &model, context) > 2;
    let (image, _) = flips(&fs, 13).find(hides).expect("some places matter");
    (image, model)
}

#[test]
fn beside_a_flipped_bit_everything_else_is_read_and_nothing_is_missing() {
    let (fs, model) = damaged_ground(1);
    let (mut all, mut some, mut tried) = (0, 0, 0);
    for (image, context) in flips(&fs, 11) {
        let db = open_apart(&image);
        let hidden = check_readable(&db, &model, &context);
        tried += 1;
        all += usize::from(hidden == 0);
        some += usize::from(hidden > 0 && hidden < model.0.len() / 2);
    }
    assert!(tried > 500 && all > 0 && some > tried / 3, "{tried} flips: {all} hid nothing, {some} little");
}

#[test]
fn the_verifier_finds_what_reads_would_and_repair_ends_it_for_good() {
    let (fs, model) = damaged_ground(2);
    let (mut found, mut given_up) = (0, 0);
    for (image, context) in flips(&fs, 23) {
        let db = open_apart(&image);
        let (pass, steps) = verify(&db);
        assert!(steps > 5 && pass.bytes > 0 && pass.blocks > 0, "{context}: {pass:?}");
        found += db.damaged().len();
        let was_damaged = !db.damaged().is_empty();
        given_up += repair(&db, &model);
        assert_eq!(db.damaged(), [], "{context}");
        assert_eq!(contents(&db).unwrap_or_else(|error| panic!("{context}: {error}")), model);
        assert_eq!(check_readable(&db, &model, &context), 0);
        drop(db);
        // What was given up stays so after a crash, and a compaction leaves nothing of it.
        let db = open_apart(&image.crash_image(3));
        assert_eq!(contents(&db).unwrap_or_else(|error| panic!("{context}: {error}")), model);
        assert_eq!(db.damaged(), [], "{context}");
        db.compact_all().unwrap_or_else(|error| panic!("{context}: {error}"));
        assert!(db.metrics().tables <= 1);
        assert_eq!(contents(&db).unwrap(), model);
        assert_eq!(verify(&db).0.damage, [], "{context}");
        if was_damaged {
            let manifest = inspect::current_manifest(&image, DIR.as_ref()).unwrap().unwrap();
            let edits = inspect::manifest(&image, &manifest).unwrap().edits;
            assert!(edits.iter().flat_map(|edit| &edit.changes).any(|change| change.contains("given up")));
        }
    }
    assert!(found > 100 && given_up >= found, "{found} found, {given_up} given up");
}

#[test]
fn a_removed_key_does_not_come_back_when_the_remove_is_lost() {
    let fs = SimFs::new();
    let db = open_apart(&fs);
    let row = |n: u32| put(&format!("k{n:02}"), &"x".repeat(100));
    db.write((0..20).map(row).collect(), Durability::Sync).unwrap();
    db.flush().unwrap();
    let removes = (0..20).map(|n| Op::Remove { key: format!("k{n:02}").into() }).collect();
    db.write(removes, Durability::Sync).unwrap();
    db.write(vec![put("z", "1")], Durability::Sync).unwrap();
    db.flush().unwrap();
    let newest = files_named(&fs, ".sst").pop().unwrap();
    fs.flip_bit(&newest, 20, 0).unwrap();
    assert!(matches!(db.get(b"k07"), Err(Error::Corruption { .. })));
    let seen = db.damage_seen();
    assert_eq!(db.damaged().len(), 1);
    // No other replica holds any of them.
    db.excise(&db.damaged()[0].keys.clone(), seen).unwrap();
    let (found, gaps) = scanned(&db);
    assert!(found.0.is_empty() && gaps.is_empty(), "{found:?} {gaps:?}");
    assert_eq!(db.get(b"k07").unwrap(), None);
    db.compact_all().unwrap();
    assert_eq!(contents(&db).unwrap(), Model::default());
    assert_eq!(db.metrics().tables, 0);
}

#[test]
fn a_damaged_table_is_set_aside_and_the_others_go_on_compacting() {
    let fs = SimFs::new();
    let (db, _) = open_with(&fs, unmerged()).unwrap();
    let mut model = Model::default();
    let write_table = |model: &mut Model, table: u32, db: &Db| {
        let rows: Vec<Op> =
            (0..12).map(|n| put(&format!("k{:02}", (n * 5 + table) % 30), &table.to_string())).collect();
        model.apply(&rows);
        db.write(rows, Durability::Sync).unwrap();
        db.flush().unwrap();
    };
    (0..3).for_each(|table| write_table(&mut model, table, &db));
    db.close().unwrap();
    fs.flip_bit(&files_named(&fs, ".sst")[1], 20, 0).unwrap();
    let (db, _) = open(&fs).unwrap();
    // The first choice comes upon the damage; later ones go around it.
    (3..12).for_each(|table| {
        write_table(&mut model, table, &db);
        rest(&db);
    });
    assert_eq!(db.damaged().len(), 1, "{:?}", db.damaged());
    assert!(db.metrics().tables <= 5, "{:?}", db.metrics());
    assert!(db.metrics().compactions > 0);
    db.compact_all().unwrap();
    assert_eq!(db.metrics().tables, 3, "what is newer, the damaged one, what is older");
    assert_eq!((repair(&db, &model), db.metrics().damaged_pieces), (1, 0));
    db.compact_all().unwrap();
    assert_eq!(db.metrics().tables, 1);
    assert_eq!(contents(&db).unwrap(), model);
}

#[test]
fn damage_that_was_found_after_the_rewrite_began_is_not_given_up() {
    let fs = SimFs::new();
    let db = open_apart(&fs);
    db.write(vec![put("a", "old"), put("b", "old")], Durability::Sync).unwrap();
    db.flush().unwrap();
    let first = files_named(&fs, ".sst").pop().unwrap();
    fs.flip_bit(&first, 20, 0).unwrap();
    assert!(db.get(b"a").is_err());
    let seen = db.damage_seen();
    db.write(vec![put("a", "old"), put("b", "old")], Durability::Sync).unwrap();
    // A client writes meanwhile, and that table rots too.
    db.write(vec![put("a", "new")], Durability::Sync).unwrap();
    db.flush().unwrap();
    let second = files_named(&fs, ".sst").pop().unwrap();
    fs.flip_bit(&second, 20, 0).unwrap();
    assert!(db.get(b"a").is_err());
    let all = KeySpan { from: "".into(), to: "z".into() };
    assert_eq!(db.excise(&all, seen).unwrap(), 1);
    assert!(matches!(db.get(b"a"), Err(Error::Corruption { .. })), "an older state must not show");
    assert_eq!(db.damaged().len(), 1);
}

#[test]
fn a_span_is_given_up_in_pieces_as_slots_are_repaired() {
    let fs = SimFs::new();
    let (db, _) = open_with(&fs, Options { block_bytes: 1 << 20, ..unmerged() }).unwrap();
    let rows: Vec<Op> = (0..10).map(|n| put(&format!("k{n}"), "v")).collect();
    let mut model = Model::default();
    model.apply(&rows);
    db.write(rows.clone(), Durability::Sync).unwrap();
    db.flush().unwrap();
    fs.flip_bit(&files_named(&fs, ".sst")[0], 20, 0).unwrap();
    assert!(db.get(b"k0").is_err());
    let seen = db.damage_seen();
    db.write(rows[..5].to_vec(), Durability::Sync).unwrap();
    assert_eq!(db.excise(&KeySpan { from: "".into(), to: "k5".into() }, seen).unwrap(), 1);
    assert_eq!(db.get(b"k3").unwrap().unwrap().body, "v");
    assert!(db.get(b"k7").is_err());
    assert_eq!(db.damaged()[0].keys, KeySpan { from: "k5".into(), to: b"k9\0"[..].into() });
    db.write(rows[5..].to_vec(), Durability::Sync).unwrap();
    assert_eq!(db.excise(&KeySpan { from: "k5".into(), to: "l".into() }, seen).unwrap(), 1);
    assert_eq!((db.damaged(), contents(&db).unwrap()), (vec![], model));
}

#[test]
fn a_crash_at_any_io_of_giving_up_leaves_the_range_damaged_or_given_up() {
    let (ground, model) = with_hidden_keys(4);
    let run = |fs: &SimFs| -> Result<(), Error> {
        let db = open_with(fs, unmerged())?.0;
        let mut cursor = Some(VerifyCursor::default());
        while let Some(at) = cursor {
            cursor = db.verify_some(at, 1 << 20)?.cursor;
        }
        let (seen, damaged) = (db.damage_seen(), db.damaged());
        for span in damaged.iter().map(|damage| &damage.keys) {
            let held = model.0.iter().filter(|(key, _)| span.contains(key));
            let anew = held.map(|(key, record)| Op::Put { key: key.clone(), record: record.clone() });
            db.write(anew.collect(), Durability::Sync)?;
            db.excise(span, seen)?;
        }
        db.compact_all()
    };
    let whole = ground.crash_image(0);
    run(&whole).unwrap();
    let (mut given_up, mut damaged) = (0, 0);
    for at in 0..whole.ops() {
        let fs = ground.crash_image(0);
        fs.kill_at(at);
        let _ = run(&fs);
        for image_seed in 0..3 {
            let image = fs.crash_image(at * 31 + image_seed);
            let context = format!("I/O {at}, image {image_seed}");
            let db = open_with(&image, tiny_options()).unwrap_or_else(|error| panic!("{context}: {error}")).0;
            check_readable(&db, &model, &context);
            match contents(&db) {
                Ok(found) => {
                    assert_eq!(found, model, "{context}");
                    given_up += 1;
                }
                Err(_) => damaged += 1,
            }
        }
    }
    assert!(given_up > 10 && damaged > 10, "{given_up} given up, {damaged} still damaged");
}

#[test]
fn what_the_disk_refuses_twice_is_damage_until_it_reads_again() {
    let (fs, model) = damaged_ground(5);
    let db = open_apart(&fs);
    let refuse = |times| {
        let path_contains = Some(".sst".into());
        fs.inject(Fault { kind: OpKind::Read, path_contains, skip: 6, times, effect: FaultEffect::Io });
    };
    // Once is a bad moment, and no reader of other keys notices anything.
    refuse(1);
    assert_eq!(verify(&db).0.damage, []);
    refuse(2);
    let found = verify(&db).0.damage;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].what.contains("cannot be read"), "{found:?}");
    assert_eq!(contents(&db).unwrap(), model, "a read is an error only when it fails itself");
    // In the next pass it reads, so nothing is wrong any more.
    assert_eq!((verify(&db).0.damage, db.damaged()), (vec![], vec![]));
    refuse(2);
    let (found, gaps) = scanned(&db);
    assert!(gaps.len() <= 1 && found.0.len() + 20 > model.0.len(), "{gaps:?}");
    assert!(db.get(b"key-001").is_ok());
    db.write(vec![put("more", "1")], Durability::Sync).unwrap();
}

#[test]
fn a_damaged_filter_or_index_is_written_anew_from_memory_before_it_matters() {
    let (fs, model) = damaged_ground(6);
    let db = open_apart(&fs);
    let before = files_named(&fs, ".sst");
    let len = fs.files().into_iter().find(|(path, _)| *path == before[1]).unwrap().1;
    // In the footer, which is only read when a table is opened.
    fs.flip_bit(&before[1], len - 40, 1).unwrap();
    assert_eq!(verify(&db).0.damage, []);
    rest(&db);
    let after = files_named(&fs, ".sst");
    assert!(!after.contains(&before[1]) && after.len() == before.len(), "{before:?} {after:?}");
    drop(db);
    let db = open_apart(&fs.crash_image(1));
    assert_eq!((contents(&db).unwrap(), db.damaged()), (model, vec![]));
}

#[test]
fn a_page_tells_what_is_damaged_and_what_lies_behind() {
    let (fs, model) = with_hidden_keys(7);
    let db = open_apart(&fs);
    let (mut found, mut damaged) = (Model::default(), Vec::new());
    let mut from = Some(bytes::Bytes::new());
    let mut pages = 0;
    while let Some(at) = from {
        let request =
            PageRequest { from: at, to: "z".into(), records_max: 7, bytes_max: 1 << 20, heads_only: false };
        let page = db.page(&request).unwrap();
        assert!(page.entries.len() <= 7);
        found.0.extend(page.entries);
        damaged.extend(page.damaged);
        assert_eq!(page.damage_seen, db.damage_seen());
        (from, pages) = (page.next, pages + 1);
    }
    assert!(pages > 3 && !damaged.is_empty());
    let (whole, gaps) = scanned(&db);
    assert_eq!(found, whole);
    for gap in &gaps {
        assert!(damaged.iter().any(|(from, to)| *from <= gap.from && gap.from < *to), "{gap:?}");
    }
    let told = |key: &bytes::Bytes| damaged.iter().any(|(from, to)| from <= key && key < to);
    assert!(model.0.keys().all(|key| found.0.contains_key(key) || told(key)));
}
