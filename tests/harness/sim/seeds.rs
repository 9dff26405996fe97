//! Many runs: ranges of seeds over threads, the search for a bug, replays.
//!
//! In: which seeds. Out: the first violation in order of seeds, sums. A run stays one thread and
//! one seed; threads only share the counter of seeds. Absent: printing.

use super::bug::Bug;
use super::faults::FaultKind;
use super::options::Options;
use super::run::{Report, run};
use super::world::Coverage;
use merganser_core::mutant::Mutant;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Runs that failed once and are kept for ever, one line of options each.
pub const KEPT: &str = include_str!("../../seeds.txt");

/// What came of many runs.
#[derive(Debug, Default)]
pub struct Summary {
    /// How many runs ended.
    pub runs: u64,
    /// All violations, in order of seeds.
    pub failed: Vec<Report>,
    /// Summed up.
    pub coverage: Coverage,
    /// Summed up.
    pub events: u64,
    /// Summed up.
    pub virtual_us: u64,
}

/// The kept runs.
pub fn kept() -> anyhow::Result<Vec<Options>> {
    let lines = KEPT.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(Options::parse).collect()
}

/// Runs all of `count` runs that `make` makes, over so many threads. Stops early after
/// `failures_max` violations.
pub fn sweep(
    count: u64,
    threads: usize,
    failures_max: usize,
    make: impl Fn(u64) -> Options + Sync,
    progress: impl Fn(u64) + Sync,
) -> Summary {
    let next = AtomicU64::new(0);
    let sum = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    let report = run(make(index), false);
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    sum.runs += 1;
                    sum.events += report.events;
                    sum.virtual_us += report.virtual_us;
                    for (what, times) in &report.coverage {
                        *sum.coverage.entry(what.clone()).or_default() += times;
                    }
                    if report.violation.is_some() {
                        sum.failed.push(report);
                    }
                    let (runs, stop) = (sum.runs, sum.failed.len() >= failures_max);
                    drop(sum);
                    progress(runs);
                    if stop {
                        next.store(count, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    sum.failed.sort_by_key(|report| report.options.seed);
    sum
}

/// The first of `budget` seeds in which a bug is noticed, if it is.
pub fn hunt(bug: Bug, first_seed: u64, budget: u64, ops: u64, threads: usize) -> Option<Report> {
    let make = |index| at_home(bug, Options::from_seed(first_seed + index, ops));
    let mut found = sweep(budget, threads, 1, make, |_| {}).failed;
    if found.is_empty() { None } else { Some(found.swap_remove(0)) }
}

/// A bug of disks without room is hunted where they often have none, and where many meet at one key; bugs of
/// collection where there is any, and where messages and hints are long on their way; one of rot where there is rot.
fn at_home(bug: Bug, drawn: Options) -> Options {
    let mut options = Options { bug: Some(bug), ..drawn };
    if bug == Bug::Core(Mutant::LostWritesAcknowledged) {
        options.no_room_permille = options.no_room_permille.max(200);
        // Writes of active keys, and many while one is on its way to the disk.
        options.keyspaces &= !(1 << 3);
        options.keyspaces |= 1;
        (options.clients, options.keys, options.think_us_max) = (12, 1, 2_000);
        options.disk_us_max = 15_000;
    }
    let collects = [Mutant::ReapByTime, Mutant::ReapWithoutHintCheck, Mutant::NoGrave];
    if collects.into_iter().any(|mutant| bug == Bug::Core(mutant)) && options.collect_period_ms == 0 {
        options.collect_period_ms = 20;
    }
    if bug == Bug::Core(Mutant::NoGrave) {
        // Something is to be under way for longer than a round takes.
        options.straggler_permille = options.straggler_permille.max(60);
        options.duplicate_permille = options.duplicate_permille.max(200);
    }
    if bug == Bug::AnothersDiskStarts {
        options.faults |= FaultKind::AnothersDisk.bit();
    }
    if bug == Bug::Core(Mutant::ExciseBeforeRefill) {
        options.faults |= FaultKind::BitRot.bit();
    }
    if bug == Bug::Core(Mutant::FlapsOnOwnPause) {
        // A pause is to be long beside the period of gossip.
        options.gossip_period_ms = 25;
    }
    if bug == Bug::Core(Mutant::ReapWithoutHintCheck) {
        let faults = [FaultKind::SilentOneWay, FaultKind::Kill, FaultKind::Clog, FaultKind::FalseLinkDown];
        options.faults = faults.into_iter().fold(0, |mask, kind| mask | kind.bit());
        options.nodes = options.nodes.max(4);
        (options.replicas, options.read_quorum, options.write_quorum) = (3, 2, 2);
        options.collect_period_ms = 5;
        options.gossip_period_ms = 25;
        // Deletes are not followed by the next put at once.
        (options.clients, options.keys, options.think_us_max) = (3, 6, 40_000);
    }
    options
}
