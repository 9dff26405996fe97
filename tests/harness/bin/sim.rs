//! `sim`: many seeds, one seed with its trace, the known bugs, replays.
//!
//! In: arguments (see `--help`). Out: what ran, how fast, what was covered, and for a violation all
//! that is needed to see it again. Exit code 1 if anything did not hold. Absent: judgement, which
//! is the properties'.

use anyhow::{Context, bail};
use merganser_tests::anti_entropy_cost;
use merganser_tests::scenarios::SCENARIOS;
use merganser_tests::sim::bug::Bug;
use merganser_tests::sim::options::Profile;
use merganser_tests::sim::seeds::{self, Summary};
use merganser_tests::sim::trace::LEGEND;
use merganser_tests::sim::{Options, Report, run};
use merganser_tests::small_model::{self, Bounds, Variant};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

const HELP: &str = "\
sim: the cluster in one thread, from one seed

  --seeds N        run seeds 1..=N (default 3000), kept ones first
  --from S         begin at seed S instead of 1
  --ops N          client requests of each run (default 200)
  --profile NAME   with --seeds: only runs of one sort: windows (stand-ins coordinate many operations of shipped types),
                   pipelines (clients send several requests at a time), repeats (of what was acknowledged)
  --seed S         run this seed alone
  --options LINE   run this line of expanded options alone
  --trace          with --seed or --options: print every step
  --mutants        run the known bugs instead: each must be noticed within --budget seeds (default 500)
  --bug NAME       with --seed: run with this bug; with --mutants: only this one
  --scenarios      the bugs of others as stories: each must hold, and fail with its known bug; with
                   --trace, those that are not noticed are shown
  --all            seeds, scenarios, small model, and all known bugs over the whole budget, as tables
  --model BOUNDS   the small model: puts,deletes,crashes,losses,late (4,1,0,0,0), its whole space
  --anti-entropy-cost N  what repair costs over N keys (10000000 is the figure of docs/performance.md)
  --replay N       run the first N seeds twice, once more in another process, compare their traces
  --hash           with --seed: print the hash of the trace and nothing else
  --threads N      default: one for each processor
  --failures N     stop after so many violations (default 1)
";

#[derive(Default)]
struct Arguments {
    seeds: Option<u64>,
    from: Option<u64>,
    ops: Option<u64>,
    profile: Option<Profile>,
    seed: Option<u64>,
    options: Option<String>,
    trace: bool,
    mutants: bool,
    bug: Option<Bug>,
    budget: Option<u64>,
    scenarios: bool,
    all: bool,
    model: Option<Bounds>,
    anti_entropy_cost: Option<u32>,
    replay: Option<u64>,
    hash: bool,
    threads: Option<usize>,
    failures: Option<usize>,
}

fn arguments() -> anyhow::Result<Option<Arguments>> {
    let mut parsed = Arguments::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--seeds" => parsed.seeds = Some(value()?.parse()?),
            "--from" => parsed.from = Some(value()?.parse()?),
            "--ops" => parsed.ops = Some(value()?.parse()?),
            "--profile" => parsed.profile = Some(Profile::of_name(&value()?)?),
            "--seed" => parsed.seed = Some(value()?.parse()?),
            "--options" => parsed.options = Some(value()?),
            "--trace" => parsed.trace = true,
            "--mutants" => parsed.mutants = true,
            "--bug" => parsed.bug = Some(Bug::of_name(&value()?)?),
            "--budget" => parsed.budget = Some(value()?.parse()?),
            "--scenarios" => parsed.scenarios = true,
            "--all" => parsed.all = true,
            "--model" => parsed.model = Some(bounds(&value()?)?),
            "--anti-entropy-cost" => parsed.anti_entropy_cost = Some(value()?.parse()?),
            "--replay" => parsed.replay = Some(value()?.parse()?),
            "--hash" => parsed.hash = true,
            "--threads" => parsed.threads = Some(value()?.parse()?),
            "--failures" => parsed.failures = Some(value()?.parse()?),
            "--help" | "-h" => return Ok(None),
            _ => bail!("there is no argument {word:?}\n{HELP}"),
        }
    }
    Ok(Some(parsed))
}

fn main() -> anyhow::Result<ExitCode> {
    let Some(arguments) = arguments()? else {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    };
    let ops = arguments.ops.unwrap_or(200);
    let threads =
        arguments.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let good = if arguments.all {
        let seeds = many(&arguments, ops, threads)?;
        let stories = scenarios(false);
        let spaces = small_model::SPACES.into_iter().map(model).fold(true, |good, one| good & one);
        seeds & stories & spaces & table(&arguments, ops, threads)
    } else if let Some(count) = arguments.anti_entropy_cost {
        cost(count)?
    } else if arguments.scenarios {
        scenarios(arguments.trace)
    } else if let Some(bounds) = arguments.model {
        model(bounds)
    } else if let Some(options) = single(&arguments, ops)? {
        one(options, arguments.trace, arguments.hash)
    } else if arguments.mutants {
        mutants(&arguments, ops, threads)
    } else if let Some(count) = arguments.replay {
        replay(count, ops)?
    } else {
        many(&arguments, ops, threads)?
    };
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What repair costs, as a table.
fn cost(count: u32) -> anyhow::Result<bool> {
    let row = |what: &str, cells: [String; 6]| {
        println!("{what:<60} {}", cells.map(|c| format!("{c:>12}")).concat())
    };
    row("", ["messages", "bytes", "heads read", "states read", "cpu ms", "virtual ms"].map(String::from));
    for (what, cost) in anti_entropy_cost::table(count, 10)? {
        let cpu_ms = format!("{:.3}", cost.cpu.as_secs_f64() * 1e3);
        let counts = [cost.messages, cost.bytes, cost.heads, cost.states].map(|count| count.to_string());
        let [messages, bytes, heads, states] = counts;
        row(&what, [messages, bytes, heads, states, cpu_ms, cost.virtual_ms.to_string()]);
    }
    Ok(true)
}

fn single(arguments: &Arguments, ops: u64) -> anyhow::Result<Option<Options>> {
    let options = match (&arguments.options, arguments.seed) {
        (Some(line), _) => Options::parse(line)?,
        (None, Some(seed)) => Options::from_seed(seed, ops),
        (None, None) => return Ok(None),
    };
    Ok(Some(Options { bug: arguments.bug.or(options.bug), ..options }))
}

fn one(options: Options, trace: bool, hash_only: bool) -> bool {
    let report = run(options, trace);
    if hash_only {
        println!("{:016x}", report.trace_hash);
        return report.violation.is_none();
    }
    if trace {
        println!("{LEGEND}\n");
        report.lines.iter().for_each(|line| println!("{line}"));
        println!();
    }
    for (what, times) in &report.coverage {
        println!("{times:>8}  {what}");
    }
    println!(
        "seed {}: {} events, {} ms of virtual time, trace {:016x}",
        report.options.seed,
        report.events,
        report.virtual_us / 1000,
        report.trace_hash
    );
    tell(&report);
    report.violation.is_none()
}

/// A violation, and how to see it again.
fn tell(report: &Report) {
    if let Some(violation) = &report.violation {
        println!("\n{} is broken by seed {}: {}", violation.property, report.options.seed, violation.text);
        println!(
            "  see it again: cargo run -p merganser-tests --bin sim -- --trace --options '{}'",
            report.options
        );
    }
}

fn many(arguments: &Arguments, ops: u64, threads: usize) -> anyhow::Result<bool> {
    let failures = arguments.failures.unwrap_or(1);
    let kept = seeds::kept()?;
    let begun = Instant::now();
    let old =
        seeds::sweep(kept.len() as u64, threads, failures, |index| kept[index as usize].clone(), |_| {});
    println!("{} kept runs, {} violations", old.runs, old.failed.len());
    old.failed.iter().for_each(tell);
    let (from, count) = (arguments.from.unwrap_or(1), arguments.seeds.unwrap_or(3_000));
    let show = |runs: u64| {
        if runs.is_multiple_of(100) {
            print!("\r{runs} of {count} seeds");
            // Progress is no reason to fail.
            let _flushed = std::io::stdout().flush();
        }
    };
    let draw = |seed| match arguments.profile {
        Some(profile) => profile.options(seed, ops),
        None => Options::from_seed(seed, ops),
    };
    let make = |index| Options { bug: arguments.bug, ..draw(from + index) };
    let new = seeds::sweep(count, threads, failures, make, show);
    println!();
    tell_summary(&new, begun, ops, threads);
    new.failed.iter().for_each(tell);
    Ok(old.failed.is_empty() && new.failed.is_empty())
}

fn tell_summary(sum: &Summary, begun: Instant, ops: u64, threads: usize) {
    for (what, times) in &sum.coverage {
        println!("{times:>10}  {what}");
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{} seeds x {ops} ops in {seconds:.1} s on {threads} threads: {:.0} seeds/s, {} events, {} s of virtual time, {} violations",
        sum.runs,
        sum.runs as f64 / seconds,
        sum.events,
        sum.virtual_us / 1_000_000,
        sum.failed.len()
    );
}

fn mutants(arguments: &Arguments, ops: u64, threads: usize) -> bool {
    let budget = arguments.budget.unwrap_or(500);
    let bugs = arguments.bug.map_or_else(Bug::all, |bug| vec![bug]);
    let mut good = true;
    for bug in bugs {
        let begun = Instant::now();
        match seeds::hunt(bug, arguments.from.unwrap_or(1), budget, ops, threads) {
            Some(report) => {
                let violation = report.violation.map(|violation| violation.property).unwrap_or_default();
                let seconds = begun.elapsed().as_secs_f64();
                let name = format!("{bug:?}");
                println!(
                    "{name:<24} noticed by {violation:<5} in seed {:>4}  ({seconds:.1} s)",
                    report.options.seed
                );
            }
            None => {
                println!("{:<24} NOT NOTICED in {budget} seeds", format!("{bug:?}"));
                good = false;
            }
        }
    }
    good
}

fn bounds(text: &str) -> anyhow::Result<Bounds> {
    let numbers: Vec<u8> = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let [puts, deletes, crashes, losses, late] = numbers[..] else {
        bail!("{text:?} is not five numbers");
    };
    anyhow::ensure!(puts + deletes <= 5 && crashes + losses <= 2, "the small model is smaller than {text:?}");
    Ok(Bounds { puts, deletes, crashes, losses, late })
}

fn model(bounds: Bounds) -> bool {
    let begun = Instant::now();
    let found = small_model::search(bounds, Variant::Production);
    println!(
        "{bounds:?}: {} states, {} steps, {} with the delete collected, {:.1} s: {}",
        found.states,
        found.steps,
        found.collected,
        begun.elapsed().as_secs_f64(),
        if found.violation.is_none() { "0 violations" } else { "BROKEN" }
    );
    if let Some((property, text, way)) = &found.violation {
        println!("{property}: {text}");
        way.iter().for_each(|step| println!("  {step:?}"));
    }
    found.violation.is_none()
}

/// Every known bug over the whole budget: in how many seeds it is noticed, and by what.
fn table(arguments: &Arguments, ops: u64, threads: usize) -> bool {
    let budget = arguments.budget.unwrap_or(500);
    let mut good = true;
    println!("\n| bug | first seed | noticed by, of {budget} seeds |\n|---|---|---|");
    for bug in Bug::all() {
        let make = |index| Options { bug: Some(bug), ..Options::from_seed(1 + index, ops) };
        let found = seeds::sweep(budget, threads, usize::MAX, make, |_| {}).failed;
        let mut by: BTreeMap<&str, usize> = BTreeMap::new();
        for violation in found.iter().filter_map(|report| report.violation.as_ref()) {
            *by.entry(violation.property).or_default() += 1;
        }
        let mut by: Vec<(&str, usize)> = by.into_iter().collect();
        by.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let by: Vec<String> = by.iter().map(|(property, count)| format!("{property} {count}")).collect();
        let first = found.first().map_or("never".into(), |report| report.options.seed.to_string());
        println!("| `{bug:?}` | {first} | {} |", by.join(", "));
        good &= !found.is_empty();
    }
    good
}

fn scenarios(show_trace: bool) -> bool {
    let mut good = true;
    println!("\n| report | what was seen there | here | with |\n|---|---|---|---|");
    for scenario in &SCENARIOS {
        let ((holds, trace), (bites, with_bug)) = (scenario.tell(None), scenario.tell(Some(scenario.bug)));
        let here = if holds.is_ok() { "holds" } else { "BROKEN" };
        let with =
            bites.as_ref().err().map_or("NOT NOTICED".into(), |violation| violation.property.to_string());
        println!("| {} | {} | {here} | `{:?}`: {with} |", scenario.report, scenario.seen, scenario.bug);
        if let Err(violation) = &holds {
            println!("{trace}\n{}: {}", violation.property, violation.text);
        }
        if bites.is_ok() && show_trace {
            println!("{with_bug}");
        }
        good &= holds.is_ok() && bites.is_err();
    }
    good
}

fn replay(count: u64, ops: u64) -> anyhow::Result<bool> {
    let own = std::env::current_exe().context("where is this program?")?;
    let mut good = true;
    for seed in 1..=count {
        let here = [0; 2].map(|_| run(Options::from_seed(seed, ops), false).trace_hash);
        let elsewhere = std::process::Command::new(&own)
            .args(["--hash", "--seed", &seed.to_string(), "--ops", &ops.to_string()])
            .output()
            .context("run this program again")?;
        let elsewhere = String::from_utf8_lossy(&elsewhere.stdout).trim().to_string();
        if here[0] != here[1] || format!("{:016x}", here[0]) != elsewhere {
            println!("seed {seed}: {here:016x?} here, {elsewhere} in another process");
            good = false;
        }
    }
    println!(
        "{count} seeds twice here and once in another process: {}",
        if good { "equal" } else { "NOT equal" }
    );
    Ok(good)
}
