//! `inspect` shows what is there, beside damage too.

use std::path::Path;

use merganser_storage::fs::sim::SimFs;
use merganser_storage::*;

use crate::harness::*;

fn some_files() -> SimFs {
    let fs = SimFs::new();
    let (db, _) = open(&fs).unwrap();
    for n in 0..40 {
        let record = Record { head: format!("clock{n}").into(), body: vec![n; 600].into() };
        db.write(vec![Op::Merge { key: format!("k{:02}", n % 20).into(), record }], Durability::Sync)
            .unwrap();
        if n == 20 {
            db.flush().unwrap();
        }
    }
    fs
}

#[test]
fn a_key_is_seen_in_log_and_table_with_its_heads() {
    let fs = some_files();
    let report = inspect::key(&fs, Path::new(DIR), b"k05").unwrap();
    let heads: Vec<_> =
        report.sightings.iter().map(|seen| String::from_utf8(seen.entry.head.clone()).unwrap()).collect();
    assert!(heads.contains(&"clock5".to_owned()) && heads.contains(&"clock25".to_owned()), "{heads:?}");
    assert_eq!(report.damage, []);
    assert!(report.sightings.iter().all(|seen| seen.entry.kind == "merge" || seen.entry.kind == "put"));
}

#[test]
fn a_log_is_read_on_after_a_damaged_frame() {
    let fs = some_files();
    let logs = files_named(&fs, ".wal");
    let sound = |path: &Path| inspect::log(&fs, path).unwrap();
    let path = logs.iter().max_by_key(|path| sound(path).frames.len()).unwrap();
    let before = sound(path);
    assert!(before.frames.len() >= 3 && before.damage.is_empty(), "{before:?}");
    fs.flip_bit(path, before.frames[1].offset + 60, 0).unwrap();
    let after = sound(path);
    assert_eq!(after.frames.len(), before.frames.len() - 1);
    assert_eq!(after.damage.len(), 1);
    assert_eq!(after.damage[0].offset, before.frames[1].offset);
}

#[test]
fn a_table_is_read_on_after_a_damaged_block_and_its_digest_tells() {
    let fs = some_files();
    let path = files_named(&fs, ".sst").remove(0);
    let manifest = inspect::current_manifest(&fs, Path::new(DIR)).unwrap().unwrap();
    let named = inspect::manifest(&fs, &manifest).unwrap();
    assert_eq!(named.damage, []);
    let before = inspect::table(&fs, &path, true).unwrap();
    assert_eq!(before.damage, []);
    assert!(named.tables.iter().any(|(_, digest)| *digest == before.digest), "{named:?}");
    assert_eq!(before.entries.len() as u64, before.fragments);
    // The first value frame follows the header of 16 bytes.
    fs.flip_bit(&path, 17, 0).unwrap();
    let after = inspect::table(&fs, &path, true).unwrap();
    assert_ne!(after.digest, before.digest);
    assert_eq!(after.damage.len(), 1);
    assert_eq!(after.entries, before.entries);
    // Without its footer a table tells nothing, but that is told too.
    fs.flip_bit(&path, before.file_bytes - 1, 0).unwrap();
    assert_eq!(inspect::table(&fs, &path, true).unwrap().damage.len(), 1);
}

#[test]
fn a_manifest_shows_its_edits_and_what_is_wrong_with_them() {
    let fs = some_files();
    let path = inspect::current_manifest(&fs, Path::new(DIR)).unwrap().unwrap();
    let before = inspect::manifest(&fs, &path).unwrap();
    assert!(before.edits.len() >= 2, "{before:?}");
    fs.flip_bit(&path, before.edits[0].offset + 20, 3).unwrap();
    let after = inspect::manifest(&fs, &path).unwrap();
    assert_eq!(after.edits, before.edits[1..]);
    assert!(!after.damage.is_empty());
}
