//! Power loss at every I/O of many short histories.
//!
//! Strategy: run a history once to count its I/Os. Then, for every index, run it again, let the process die
//! there, lose power in a seeded way, and open what is left. Invariant: the state is the model's after some
//! prefix of the writes that ends at or after the last durable acknowledgement; no write is there in part.
//!
//! The long run: `MERGANSER_CRASH_HISTORIES=1000 cargo test -p merganser-storage --release crash::`, of recoveries with
//! `MERGANSER_CRASH_STRIDE=1` besides.

use merganser_storage::fs::sim::SimFs;
use merganser_storage::*;

use crate::harness::*;

/// The model after each write, and how many of them are surely durable.
#[derive(Default)]
struct Witness {
    after: Vec<Model>,
    durable: usize,
}

impl Witness {
    fn check(&self, db: &Db, context: &str) {
        let found = contents(db).unwrap_or_else(|error| panic!("{context}: {error}"));
        let written = self.after.iter().rposition(|model| *model == found);
        assert!(
            written.is_some_and(|written| written >= self.durable),
            "{context}: acknowledged {} of {} writes, found {written:?}",
            self.durable,
            self.after.len() - 1,
        );
    }
}

/// Runs until the end or until the process dies.
fn run(fs: &SimFs, seed: u64, acts: usize) -> Witness {
    let mut history = History::new(seed, 12);
    let mut witness = Witness { after: vec![Model::default()], durable: 0 };
    let mut opened = open(fs);
    for _ in 0..acts {
        let Ok((db, _)) = &opened else { return witness };
        match history.act() {
            Act::Write(ops, durability) => {
                let mut model = witness.after.last().expect("never empty").clone();
                model.apply(&ops);
                witness.after.push(model);
                if db.write(ops, durability).is_err() {
                    return witness;
                }
                if durability == Durability::Sync {
                    witness.durable = witness.after.len() - 1;
                }
            }
            Act::Step => {
                if db.step() == Step::Synced {
                    witness.durable = witness.after.len() - 1;
                }
            }
            Act::Flush => {
                if db.flush().is_err() {
                    return witness;
                }
                witness.durable = witness.after.len() - 1;
            }
            Act::CompactAll => {
                if db.compact_all().is_err() {
                    return witness;
                }
                witness.durable = witness.after.len() - 1;
            }
            Act::Reopen => {
                if opened.expect("checked above").0.close().is_err() {
                    return witness;
                }
                witness.durable = witness.after.len() - 1;
                opened = open(fs);
            }
        }
    }
    witness
}

fn every_crash_point(seed: u64, acts: usize, images: u64) -> u64 {
    let whole = SimFs::new();
    run(&whole, seed, acts);
    let mut points = 0;
    for at in 0..whole.ops() {
        let fs = SimFs::new();
        fs.kill_at(at);
        let witness = run(&fs, seed, acts);
        for image_seed in 0..images {
            let context = format!("history {seed}, I/O {at}, image {image_seed}");
            let image = fs.crash_image(at * 31 + image_seed);
            let (db, _) = open(&image).unwrap_or_else(|error| panic!("{context}: {error}"));
            witness.check(&db, &context);
            points += 1;
        }
    }
    points
}

#[test]
fn acknowledged_writes_survive_a_crash_at_every_io() {
    let histories = std::env::var("MERGANSER_CRASH_HISTORIES").map_or(12, |text| text.parse().unwrap());
    let points: u64 = (0..histories).map(|seed| every_crash_point(seed, 60, 3)).sum();
    println!("{points} crash points of {histories} histories");
    assert!(points > 400 * histories, "{points} crash points are too few to mean anything");
}

#[test]
fn a_crash_during_recovery_loses_nothing_either() {
    for seed in 50..54 {
        let fs = SimFs::new();
        let witness = run(&fs, seed, 60);
        let image = fs.crash_image(seed);
        let counting = image.crash_image(0);
        drop(open(&counting).unwrap());
        for at in 0..counting.ops() {
            for image_seed in 0..3 {
                let again = image.crash_image(0);
                again.kill_at(at);
                drop(open(&again));
                let context = format!("history {seed}, I/O {at} of recovery, image {image_seed}");
                again.crash(at * 17 + image_seed);
                let (db, _) = open(&again).unwrap_or_else(|error| panic!("{context}: {error}"));
                witness.check(&db, &context);
                // What was recovered can be built upon.
                db.write(vec![put("after", "1")], Durability::Sync).unwrap();
                again.crash(image_seed);
                let (db, _) = open(&again).unwrap();
                assert_eq!(db.get(b"after").unwrap().unwrap().body, "1", "{context}");
            }
        }
    }
}

/// Each crash point of a history, and on what it leaves each crash point of the recovery: one in `stride` of those pairs,
/// another one for each crash point. How many pairs that were.
fn every_crash_within_recovery(seed: u64, acts: usize, stride: u64) -> u64 {
    let whole = SimFs::new();
    run(&whole, seed, acts);
    let mut points = 0;
    for at in 0..whole.ops() {
        let fs = SimFs::new();
        fs.kill_at(at);
        let witness = run(&fs, seed, acts);
        let image = fs.crash_image(at * 31 + seed);
        let counting = image.crash_image(0);
        drop(open(&counting).unwrap_or_else(|error| panic!("history {seed}, I/O {at}: {error}")));
        for recovery_at in (at % stride..counting.ops()).step_by(stride as usize) {
            let context = format!("history {seed}, I/O {at}, I/O {recovery_at} of recovery");
            let again = image.crash_image(0);
            again.kill_at(recovery_at);
            drop(open(&again));
            again.crash(at * 17 + recovery_at);
            let (db, _) = open(&again).unwrap_or_else(|error| panic!("{context}: {error}"));
            witness.check(&db, &context);
            points += 1;
        }
    }
    points
}

#[test]
fn a_crash_at_every_io_of_the_recovery_from_a_crash_at_every_io_loses_nothing() {
    let histories = std::env::var("MERGANSER_CRASH_HISTORIES").map_or(6, |text| text.parse().unwrap());
    let stride = std::env::var("MERGANSER_CRASH_STRIDE").map_or(5, |text| text.parse().unwrap());
    let points: u64 = (200..200 + histories).map(|seed| every_crash_within_recovery(seed, 60, stride)).sum();
    println!("{points} crash points within recoveries of {histories} histories");
    assert!(points > 2_000 * histories / stride, "{points} crash points are too few to mean anything");
}

#[test]
fn a_write_of_many_operations_is_there_whole_or_not_at_all() {
    for at in 0..80 {
        let fs = SimFs::new();
        let (db, _) = open(&fs).unwrap();
        fs.kill_at(fs.ops() + at / 20);
        let ops = (0..40).map(|n| put(&format!("k{n:02}"), &"x".repeat(300))).collect();
        let acknowledged = db.write(ops, Durability::Sync).is_ok();
        fs.crash(at);
        let (db, _) = open(&fs).unwrap();
        let found = contents(&db).unwrap().0.len();
        assert!(found == 40 || (found == 0 && !acknowledged), "{found} of 40 at {at}");
    }
}

#[test]
fn the_same_seed_crashes_the_same_way() {
    let trace = |seed| {
        let fs = SimFs::new();
        run(&fs, seed, 80);
        let image = fs.crash_image(seed);
        let files = image.files().into_iter().map(|(path, _)| (image.contents(&path), path));
        files.collect::<Vec<_>>()
    };
    assert_eq!(trace(3), trace(3));
    assert_ne!(trace(3), trace(4));
}
