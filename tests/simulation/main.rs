//! The simulation as every submission runs it: 3,000 seeds, every known bug, replays; and the
//! algebra of states over random reachable histories.
//!
//! One binary. A longer run, one seed with its trace, and what to do with a failure: see
//! `docs/testing.md`. Absent: real processes.

mod algebra;
mod pages;
mod scenarios;
mod small_model;

use merganser_tests::sim::bug::Bug;
use merganser_tests::sim::faults::FaultKind;
use merganser_tests::sim::seeds::{self, Summary};
use merganser_tests::sim::{Options, Report, run};

/// 4-testing.md: what every submission runs.
const SEEDS: u64 = 3_000;
const OPS: u64 = 200;
/// A known bug must be noticed within so many seeds.
const BUDGET: u64 = 500;
const REPLAYS: u64 = 50;
/// Of those that are replayed, run once more by another process.
const REPLAYS_ELSEWHERE: u64 = 10;

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn told(reports: &[Report]) -> String {
    let tell = |report: &Report| {
        let (property, text) =
            report.violation.as_ref().map_or(("", ""), |violation| (violation.property, &violation.text));
        format!(
            "{property} is broken by seed {}: {text}\n  cargo run -p merganser-tests --bin sim -- --trace --options '{}'\n",
            report.options.seed, report.options
        )
    };
    reports.iter().map(tell).collect()
}

/// The seeds' faults and outcomes all occurred, so that their silence means something.
fn assert_covered(sum: &Summary) {
    let times = |what: &str| sum.coverage.get(what).copied().unwrap_or(0);
    let mut missing: Vec<String> = FaultKind::ALL.iter().map(|kind| format!("fault {kind:?}")).collect();
    let others = [
        "acknowledged before a sync",
        "another's disk refused",
        "acknowledgement verified after a power loss",
        "clean shutdown",
        "died of its disk",
        "failed: clock skew",
        "failed: not enough replicas",
        "failed: uncertain",
        "failed: unresolved",
        "got",
        "message lost",
        "message repeated",
        "hint kept",
        "leaf as rebuilt",
        "marker kept",
        "notice EmptyDisk",
        "notice HintsHome",
        "notice OldDisk",
        "notice ReadRepair",
        "notice WroteBack",
        "plugin delete",
        "plugin failed",
        "plugin rejected",
        "plugin unresolved",
        "queried",
        "rejoined empty",
        "request beside another",
        "retry",
        "state sent by an exchange",
        "storage compacted",
        "storage flushed",
        "view resolved",
        "view siblings",
        "view unresolved",
        "wrote",
        "wrote with stand-ins",
        "write failed: no space",
    ];
    missing.extend(others.map(str::to_string));
    missing.retain(|what| times(what) == 0);
    assert_eq!(missing, Vec::<String>::new(), "never happened in {} runs", sum.runs);
    let (wrote, asked) = (times("wrote") + times("got") + times("queried"), sum.runs * OPS);
    assert!(wrote * 2 > asked, "most requests must succeed: {wrote} of {asked}");
}

#[test]
fn what_failed_once_holds_now() {
    let kept = seeds::kept().expect("tests/seeds.txt reads");
    let make = |index: u64| kept[index as usize].clone();
    let sum = seeds::sweep(kept.len() as u64, 1, usize::MAX, make, |_| {});
    assert!(sum.failed.is_empty(), "{}", told(&sum.failed));
}

#[test]
fn all_properties_hold_under_faults() {
    let make = |index| Options::from_seed(index + 1, OPS);
    let sum = seeds::sweep(SEEDS, threads(), 3, make, |_| {});
    assert!(sum.failed.is_empty(), "{}", told(&sum.failed));
    assert_eq!(sum.runs, SEEDS);
    assert_covered(&sum);
}

#[test]
fn every_known_bug_is_noticed() {
    let noticed = |bug: &Bug| seeds::hunt(*bug, 1, BUDGET, OPS, 1).is_some();
    let survived: Vec<Bug> = Bug::all().into_iter().filter(|bug| !noticed(bug)).collect();
    assert!(survived.is_empty(), "not noticed in {BUDGET} seeds: {survived:?}");
}

#[test]
fn the_same_seed_is_the_same_run_here_and_in_another_process() {
    for seed in 1..=REPLAYS {
        let hash = || run(Options::from_seed(seed, OPS), false).trace_hash;
        let first = hash();
        assert_eq!(first, hash(), "seed {seed} in this process");
        if seed <= REPLAYS_ELSEWHERE {
            let output = std::process::Command::new(env!("CARGO_BIN_EXE_sim"))
                .args(["--hash", "--seed", &seed.to_string(), "--ops", &OPS.to_string()])
                .output()
                .expect("the sim binary runs");
            let elsewhere = String::from_utf8_lossy(&output.stdout).trim().to_string();
            assert_eq!(format!("{first:016x}"), elsewhere, "seed {seed} in another process");
        }
    }
}

#[test]
fn different_seeds_are_different_runs() {
    let hashes: std::collections::BTreeSet<u64> =
        (1..=20).map(|seed| run(Options::from_seed(seed, 50), false).trace_hash).collect();
    assert_eq!(hashes.len(), 20);
}

#[test]
fn expanded_options_read_back_as_they_print() {
    for seed in 0..50 {
        let options =
            Options { bug: Bug::all().into_iter().nth(seed), ..Options::from_seed(seed as u64, 33) };
        assert_eq!(Options::parse(&options.to_string()).expect("parses"), options);
    }
    assert!(Options::parse("ops=3").is_err());
    assert!(Options::parse("seed=1 nonsense=3").is_err());
    assert!(Options::parse("seed=1 bug=Nonsense").is_err());
}
