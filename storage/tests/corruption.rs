//! One flipped bit anywhere in a database's files.
//!
//! Invariant: an error that says where, or the right answer; from the unsealed end of a log also a state that
//! an earlier prefix of the writes had. Never other data, never "missing". Files that are cut, stretched or
//! overwritten in larger pieces are held to the same, short of how much an open log's end may lose.

use merganser_storage::fs::sim::SimFs;
use merganser_storage::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::harness::*;

fn is_honest(error: &Error) -> bool {
    matches!(error, Error::Corruption { .. } | Error::UnsupportedVersion { .. })
}

/// Writes a history; the models after each write come back.
fn build(fs: &SimFs, close: bool) -> Vec<Model> {
    let (db, _) = open(fs).unwrap();
    let mut history = History::new(5, 30);
    let mut models = vec![Model::default()];
    while models.len() < 60 {
        if let Act::Write(ops, _) = history.act() {
            let mut model = models.last().unwrap().clone();
            model.apply(&ops);
            models.push(model);
            db.write(ops, Durability::Sync).unwrap();
        }
        if models.len() % 25 == 0 {
            db.flush().unwrap();
        }
    }
    if close {
        db.close().unwrap();
    }
    models
}

/// Opens a damaged disk and reads all keys; the number of writes that are there, if there was no error.
fn examine(fs: &SimFs, models: &[Model], context: &str) -> Option<usize> {
    let db = match open(fs) {
        Ok((db, _)) => db,
        Err(error) => {
            assert!(is_honest(&error), "{context}: {error}");
            return None;
        }
    };
    let whole = models.last().unwrap();
    let found = match contents(&db) {
        Ok(found) => found,
        Err(error) => {
            assert!(is_honest(&error), "{context}: {error}");
            // Each single key is right or an error.
            for (key, record) in &whole.0 {
                match db.get(key) {
                    Ok(found) => assert_eq!(found.as_ref(), Some(record), "{context}"),
                    Err(error) => assert!(is_honest(&error), "{context}: {error}"),
                }
            }
            return None;
        }
    };
    let written = models.iter().rposition(|model| *model == found);
    Some(written.unwrap_or_else(|| panic!("{context}: data that nobody wrote")))
}

fn flip_everywhere(
    fs: &SimFs,
    models: &[Model],
    ending: &str,
    stride: usize,
    check: impl Fn(Option<usize>, &str),
) {
    let files: Vec<_> =
        fs.files().into_iter().filter(|(path, _)| path.to_string_lossy().contains(ending)).collect();
    assert!(!files.is_empty(), "no file named like {ending}");
    for (path, len) in files {
        for at in (0..len).step_by(stride) {
            let image = fs.crash_image(0);
            image.flip_bit(&path, at, (at % 8) as u8).unwrap();
            let context = format!("byte {at} of {}", path.display());
            check(examine(&image, models, &context), &context);
        }
    }
}

/// A disk on which everything is durable, so that later crashes change nothing.
fn settled(close: bool) -> (SimFs, Vec<Model>) {
    let fs = SimFs::new();
    let models = build(&fs, close);
    let image = fs.crash_image(1);
    (image, models)
}

#[test]
fn a_flipped_bit_in_a_table_is_an_error_or_harmless() {
    let (fs, models) = settled(true);
    let all = models.len() - 1;
    flip_everywhere(&fs, &models, ".sst", 3, |found, context| {
        assert!(found.is_none_or(|found| found == all), "{context}: {found:?}");
    });
}

#[test]
fn a_flipped_bit_in_manifest_or_pointer_is_an_error_or_harmless() {
    for close in [true, false] {
        let (fs, models) = settled(close);
        let all = models.len() - 1;
        for ending in ["MANIFEST", "CURRENT"] {
            flip_everywhere(&fs, &models, ending, 1, |found, context| {
                assert!(found.is_none_or(|found| found == all), "{context}: {found:?}");
            });
        }
    }
}

#[test]
fn a_flipped_bit_in_a_sealed_log_never_loses_a_write() {
    let (fs, models) = settled(true);
    let all = models.len() - 1;
    flip_everywhere(&fs, &models, ".wal", 3, |found, context| {
        assert!(found.is_none_or(|found| found == all), "{context}: {found:?}");
    });
}

#[test]
fn a_flipped_bit_in_an_open_log_loses_at_most_its_last_group() {
    let (fs, models) = settled(false);
    let all = models.len() - 1;
    let mut last_group_lost = 0;
    let cell = std::cell::Cell::new(0);
    flip_everywhere(&fs, &models, ".wal", 3, |found, context| {
        assert!(found.is_none_or(|found| found + 1 >= all), "{context}: {found:?}");
        cell.set(cell.get() + u64::from(found == Some(all - 1)));
    });
    last_group_lost += cell.get();
    assert!(last_group_lost > 0, "the tail of an open log cannot prove itself; was it tried?");
}

#[test]
fn missing_files_are_noticed() {
    let (fs, models) = settled(false);
    for (path, _) in fs.files() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "LOCK" {
            continue;
        }
        let image = fs.crash_image(0);
        fs::Fs::unlink(&image, &path).unwrap();
        fs::Fs::sync_dir(&image, std::path::Path::new(DIR)).unwrap();
        if let Some(found) = examine(&image, &models, &name) {
            // A spare log or an old manifest may go.
            assert_eq!(found, models.len() - 1, "{name}");
        }
    }
}

#[test]
fn a_file_from_the_future_is_named_as_such() {
    let (fs, _) = settled(true);
    let manifest =
        fs.files().into_iter().find(|(path, _)| path.to_string_lossy().contains("MANIFEST")).unwrap().0;
    fs.flip_bit(&manifest, 8, 0).unwrap();
    let error = open(&fs).err().unwrap();
    assert!(matches!(error, Error::UnsupportedVersion { found: 3, supported: 2, .. }), "{error}");
}

#[test]
fn mangled_files_never_panic_and_never_show_what_nobody_wrote() {
    let (fs, models) = settled(false);
    let mut random = SmallRng::seed_from_u64(11);
    let files: Vec<_> = fs.files().into_iter().filter(|(_, len)| *len > 0).collect();
    let mut refused = 0;
    for round in 0..600 {
        let (path, _) = &files[random.random_range(0..files.len())];
        let mut bytes = fs.contents(path).unwrap();
        let at = random.random_range(0..bytes.len());
        let len = random.random_range(1..200).min(bytes.len() - at);
        match random.random_range(0..5) {
            0 => bytes.truncate(at),
            1 => bytes[at..at + len].fill(random.random()),
            2 => random.fill(&mut bytes[at..at + len]),
            3 => bytes.extend_from_within(at..at + len),
            _ => bytes.copy_within(at..at + len, 0),
        }
        let image = fs.crash_image(0);
        fs::Fs::unlink(&image, path).unwrap();
        image.install(path, &bytes);
        let context = format!("round {round}, {}", path.display());
        refused += u64::from(examine(&image, &models, &context).is_none());
        // The tools that look at damage must bear it too.
        let dir = std::path::Path::new(DIR);
        for file in inspect::files(&image, dir).unwrap() {
            let path = dir.join(&file.name);
            let _ = match file.kind {
                "log" => inspect::log(&image, &path).map(drop),
                "table" => inspect::table(&image, &path, true).map(drop),
                "manifest" => inspect::manifest(&image, &path).map(drop),
                _ => Ok(()),
            };
        }
    }
    assert!(refused > 100, "{refused}");
}
