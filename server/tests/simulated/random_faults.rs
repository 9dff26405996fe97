//! Random faults, one after the other, from a seed; clients that go on all the while; a history
//! that must hold in the end.
//!
//! `MERGANSER_SEEDS=7` or `MERGANSER_SEEDS=100..200` runs these instead of those that are always run.

use super::clients::only;
use super::history::{self, End, History};
use super::{NAMES, World, elapsed, heal, hold, others, pass, told};
use merganser_client::{Client, Error, Quorum};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

const SEEDS: Range<u64> = 1..21;
const CLIENTS: u64 = 3;
const KEYS: u32 = 6;
const FAULTS: u32 = 6;
/// Of these no request may need more, whatever the fault.
const TIMEOUT: Duration = Duration::from_secs(5);
/// In so long all is equal once all is whole again.
const CONVERGED_MAX: Duration = Duration::from_secs(60);

#[test]
fn nothing_acknowledged_is_lost_or_doubled_under_random_faults() {
    for seed in seeds() {
        let history = run(seed);
        let (acknowledged, unknown) = (history.count(End::Acknowledged), history.count(End::Unknown));
        println!(
            "seed {seed}: {acknowledged} acknowledged, {unknown} unknown, {} have two dots",
            history.doubled
        );
        assert!(acknowledged >= 100, "seed {seed}: {acknowledged} only");
    }
}

fn seeds() -> Range<u64> {
    let Ok(given) = std::env::var("MERGANSER_SEEDS") else { return SEEDS };
    let number = |text: &str| text.parse::<u64>().expect("MERGANSER_SEEDS is N or N..M");
    match given.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => number(&given)..number(&given) + 1,
    }
}

fn run(seed: u64) -> History {
    let history: Arc<Mutex<History>> = Arc::default();
    let kept = Arc::clone(&history);
    let telling = Telling(Arc::clone(&history));
    told(
        seed,
        |_| {},
        async move |world| {
            let over = Arc::new(Mutex::new(false));
            let mut busy = Vec::new();
            for number in 1..=CLIENTS {
                let client = world.client(number).pipelined(number % 2 == 0);
                let client = client.connect(NAMES.map(super::address)).await?;
                let random = StdRng::seed_from_u64(seed * 100 + number);
                let asking = ask(number, random, client, Arc::clone(&history), Arc::clone(&over));
                busy.push(tokio::spawn(asking));
            }
            let mut random = StdRng::seed_from_u64(seed);
            for _ in 0..FAULTS {
                pass(Duration::from_millis(random.random_range(100..1_000))).await;
                fault(&world, &mut random, &history).await;
            }
            *over.lock() = true;
            for client in busy {
                client.await??;
            }
            world.linked(&NAMES).await?;
            converge(&world, &history).await
        },
    );
    drop(telling);
    kept.lock().clone()
}

/// Shows what happened if the story fails.
struct Telling(Arc<Mutex<History>>);

impl Drop for Telling {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().trace.iter().for_each(|line| println!("{line}"));
        }
    }
}

/// One fault, from its beginning to its end.
async fn fault(world: &World, random: &mut StdRng, history: &Mutex<History>) {
    let first = random.random_range(0..NAMES.len());
    let (one, other) = (NAMES[first], NAMES[(first + random.random_range(1..NAMES.len())) % NAMES.len()]);
    let time = Duration::from_millis(random.random_range(200..3_000));
    let kind = random.random_range(0..7);
    history.lock().trace.push(format!("{:?} fault {kind} at {one} and {other} for {time:?}", elapsed()));
    match kind {
        0 => turmoil::partition(one, other),
        1 => turmoil::partition_oneway(one, other),
        2 => hold(one),
        3 => turmoil::partition(one, "client"),
        4 => others(one).for_each(|other| turmoil::partition(one, other)),
        5 => world.lose_power(one),
        _ => world.stop(one),
    }
    pass(time).await;
    if kind >= 5 {
        world.start(one);
    }
    heal();
}

/// A client: reads, puts beside what is there, and over what it has seen.
async fn ask(
    number: u64,
    mut random: StdRng,
    client: Client,
    history: Arc<Mutex<History>>,
    over: Arc<Mutex<bool>>,
) -> anyhow::Result<()> {
    let keys = client.keyspace("k").with_timeout(TIMEOUT);
    for turn in 0.. {
        if *over.lock() {
            break;
        }
        let key = format!("key-{}", random.random_range(0..KEYS));
        let value = format!("{number}.{turn}");
        let kind = random.random_range(0..10);
        let ended = if kind < 4 {
            history.lock().begin(&key, &value, Vec::new());
            Some(keys.put_blind(&key, value.clone()).await.map(drop))
        } else {
            match keys.get_siblings(&key).await {
                Ok(mut entry) => {
                    let shown = history::Shown::of(&entry);
                    history.lock().judge_read(&key, &shown).map_err(anyhow::Error::msg)?;
                    if kind < 8 {
                        history.lock().begin(&key, &value, shown);
                        Some(entry.put(value.clone()).await.map(drop))
                    } else {
                        None
                    }
                }
                Err(error) => {
                    may_fail(&error)?;
                    None
                }
            }
        };
        if let Some(ended) = ended {
            let end = match &ended {
                Ok(()) => End::Acknowledged,
                Err(Error::Uncertain(_)) => End::Unknown,
                Err(error) => {
                    may_fail(error)?;
                    End::Refused
                }
            };
            let mut history = history.lock();
            history.end(&key, &value, end);
            history.trace.push(format!("{:?} {key} {value} {end:?}", elapsed()));
        }
        pass(Duration::from_millis(random.random_range(5..60))).await;
    }
    Ok(())
}

/// What a client may be told while one node is away: nothing that is its own fault.
fn may_fail(error: &Error) -> anyhow::Result<()> {
    match error {
        Error::Unavailable { .. } | Error::NotEnoughReplicas { .. } | Error::Overloaded { .. } => Ok(()),
        Error::SiblingLimit { .. } => Ok(()),
        other => anyhow::bail!("a client was told: {other}"),
    }
}

/// Until every node shows the same of every key by itself; then that is judged.
async fn converge(world: &World, history: &Mutex<History>) -> anyhow::Result<()> {
    let healed = elapsed();
    let mut nodes = Vec::new();
    for name in NAMES {
        nodes.push(only(world, name).await?.keyspace("k").with_read(Quorum::One));
    }
    for key in (0..KEYS).map(|key| format!("key-{key}")) {
        let shown = loop {
            let mut shown = BTreeSet::new();
            for node in &nodes {
                shown.insert(history::Shown::of(&node.get_siblings(&key).await?));
            }
            if shown.len() == 1 {
                break shown.pop_first().unwrap_or_default();
            }
            anyhow::ensure!(elapsed() - healed < CONVERGED_MAX, "{key} differs: {shown:?}");
            pass(Duration::from_millis(200)).await;
        };
        let mut history = history.lock();
        history.judge_end(&key, &shown).map_err(anyhow::Error::msg)?;
        history.trace.push(format!("{:?} {key} {shown:?}", elapsed()));
    }
    Ok(())
}
