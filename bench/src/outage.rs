//! One node dies, the others go on, it comes back and is made whole: what clients feel of each.
//!
//! ```text
//!   healthy ─▶ kill -9 ─▶ one dead ─▶ writes that it misses ─▶ restart ─▶ hints go home
//!                                                whole ◀─ trees are compared ◀─┘
//! ```
//!
//! In: how many writes it misses, of which size. Out: latency and errors of each phase as the
//! client library's users see them, and how long the repair took. Absent: other faults; those are
//! the nemesis's.

use crate::{cluster::Cluster, figures::Latency, point::Policy};
use anyhow::{Context, Result, bail};
use clap::Args;
use hdrhistogram::Histogram;
use merganser_client::{Client, Keyspace, Quorum};
use rand::{RngCore, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};
use std::{
    cell::{Cell, RefCell},
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

/// What is asked for.
#[derive(Clone, Debug, Args)]
pub(crate) struct Outage {
    /// Keys that are written while the node is dead.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Of each value.
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Requests per second of the clients whose latency is measured, half of them puts.
    #[arg(long, default_value_t = 400)]
    rate: u32,
    /// Each of the phases without repair.
    #[arg(long, default_value_t = 20)]
    phase_seconds: u64,
    /// What nodes keep as hints for one that is away; what is beyond that, anti-entropy has to find.
    #[arg(long, default_value_t = 256)]
    hint_mb: u64,
    /// Given up after so long.
    #[arg(long, default_value_t = 30)]
    minutes_max: u64,
}

const PHASES: [&str; 6] =
    ["healthy", "one_dead", "one_dead_while_writing", "hints_go_home", "trees_are_compared", "whole_again"];
const DEAD: usize = 2;
const WRITERS: usize = 128;
/// Keys that the measured clients use.
const KEYS: u64 = 10_000;
const SAMPLES: u64 = 2_000;
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the measured clients saw in a phase.
struct Felt {
    gets: Histogram<u64>,
    puts: Histogram<u64>,
    errors: u64,
    error: Option<String>,
}

impl Felt {
    fn new() -> Felt {
        Felt { gets: Latency::histogram(), puts: Latency::histogram(), errors: 0, error: None }
    }

    fn json(&self) -> Value {
        let ms = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
        let of = |histogram: &Histogram<u64>| json!({ "count": histogram.len(), "p50_ms": ms(histogram, 0.5), "p99_ms": ms(histogram, 0.99) });
        json!({ "gets": of(&self.gets), "puts": of(&self.puts), "errors": self.errors, "error": self.error })
    }
}

/// The measured clients.
struct Clients {
    keys: Keyspace,
    felt: RefCell<Felt>,
    stopped: Cell<bool>,
}

impl Clients {
    /// Requests at a steady rate, timed from when each should have begun.
    async fn run(self: Rc<Clients>, rate: u32) {
        let began = Instant::now();
        for number in 0_u64.. {
            if self.stopped.get() {
                return;
            }
            let intended = began + Duration::from_nanos(number * 1_000_000_000 / u64::from(rate));
            tokio::time::sleep_until(intended.into()).await;
            let clients = Rc::clone(&self);
            tokio::task::spawn_local(async move { clients.one(number, intended).await });
        }
    }

    async fn one(&self, number: u64, intended: Instant) {
        let key = format!("steady-{}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % KEYS);
        let puts = number.is_multiple_of(2);
        let outcome = match puts {
            true => self.keys.put_blind(&key, number.to_string()).await.map(drop),
            false => self.keys.get(&key).await.map(drop),
        };
        let elapsed_ns = u64::try_from(intended.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut felt = self.felt.borrow_mut();
        match outcome {
            Ok(()) if puts => felt.puts.saturating_record(elapsed_ns),
            Ok(()) => felt.gets.saturating_record(elapsed_ns),
            Err(error) => {
                felt.errors += 1;
                felt.error.get_or_insert(error.to_string());
            }
        }
    }

    fn phase(&self) -> Felt {
        self.felt.replace(Felt::new())
    }
}

/// Runs it and tells.
pub(crate) async fn run(outage: &Outage, binary: &Path, dir: &Path, as_json: bool) -> Result<()> {
    if outage.rate == 0 || outage.value_bytes > 1 << 20 || outage.keys == 0 {
        bail!("--rate and --keys are at least 1, --value-bytes at most 1 MiB");
    }
    let say = |text: String| eprintln!("{text}");
    let mut cluster = Cluster::start(binary, dir, json!({ "hint_mb": outage.hint_mb })).await?;
    let client = connect(&cluster.addresses()).await?;
    let keys = client.keyspace(Policy::Lww.keyspace());
    let clients = Rc::new(Clients { keys, felt: RefCell::new(Felt::new()), stopped: Cell::new(false) });
    let load = tokio::task::spawn_local(Rc::clone(&clients).run(outage.rate));
    let phase = Duration::from_secs(outage.phase_seconds);

    tokio::time::sleep(Duration::from_secs(3)).await;
    drop(clients.phase());
    tokio::time::sleep(phase).await;
    let healthy = clients.phase();
    say("healthy phase over; one node is killed".into());

    cluster.kill(DEAD)?;
    tokio::time::sleep(phase).await;
    let dead = clients.phase();
    say(format!("{} keys are written while it is dead", outage.keys));
    let wrote_in = write_all(outage, &client).await?;
    let writing = clients.phase();

    say(format!("written in {:.0} s; it is started again", wrote_in.as_secs_f64()));
    cluster.restart(DEAD)?;
    let returned = Instant::now();
    let is_home = |left: &Left| left.hints == 0;
    let home_in = until(outage, &cluster, &client, returned, &say, is_home).await?;
    let hints = clients.phase();
    let whole_in = until(outage, &cluster, &client, returned, &say, Left::is_nothing).await?;
    let trees = clients.phase();
    tokio::time::sleep(phase).await;
    let whole = clients.phase();
    clients.stopped.set(true);
    load.await.context("the clients panicked")?;
    let missing = sample(outage, &cluster.addresses()[DEAD]).await?;

    let document = json!({
        "keys": outage.keys,
        "value_bytes": outage.value_bytes,
        "rate_per_second": outage.rate,
        "healthy": healthy.json(),
        "one_dead": dead.json(),
        "one_dead_while_writing": writing.json(),
        "hints_go_home": hints.json(),
        "trees_are_compared": trees.json(),
        "whole_again": whole.json(),
        "written_in_s": wrote_in.as_secs_f64(),
        "hints_home_in_s": home_in.as_secs_f64(),
        "whole_in_s": whole_in.as_secs_f64(),
        "missing_of_sample": missing,
        "sample": SAMPLES,
    });
    match as_json {
        true => println!("{document}"),
        false => println!("{}", text(&document)),
    }
    if missing > 0 || dead.errors > 0 {
        bail!("{missing} keys of {SAMPLES} are missing on the node, {} errors were seen", dead.errors);
    }
    Ok(())
}

fn text(document: &Value) -> String {
    let mut lines = vec![format!(
        "{:<24}{:>12}{:>12}{:>12}{:>12}{:>9}",
        "phase", "put p50 ms", "put p99 ms", "get p50 ms", "get p99 ms", "errors"
    )];
    for phase in PHASES {
        let felt = &document[phase];
        let number = |kind: &str, what: &str| felt[kind][what].as_f64().unwrap_or_default();
        lines.push(format!(
            "{:<24}{:>12.2}{:>12.2}{:>12.2}{:>12.2}{:>9}",
            phase.replace('_', " "),
            number("puts", "p50_ms"),
            number("puts", "p99_ms"),
            number("gets", "p50_ms"),
            number("gets", "p99_ms"),
            felt["errors"].as_u64().unwrap_or_default()
        ));
    }
    lines.push(format!(
        "{} keys of {} bytes missed in {:.0} s; whole again {:.0} s after its start; {} of {} sampled keys missing there",
        document["keys"],
        document["value_bytes"],
        document["written_in_s"].as_f64().unwrap_or_default(),
        document["whole_in_s"].as_f64().unwrap_or_default(),
        document["missing_of_sample"],
        document["sample"],
    ));
    lines.join("\n")
}

async fn connect(addresses: &[String]) -> Result<Client> {
    let builder = Client::builder().pipelined(true).timeout(Duration::from_secs(10));
    Ok(builder.connect(addresses.iter()).await?)
}

fn missed(index: u64) -> String {
    format!("missed-{index:010}")
}

async fn write_all(outage: &Outage, client: &Client) -> Result<Duration> {
    let began = Instant::now();
    let next = Rc::new(Cell::new(0));
    let mut value = vec![0; outage.value_bytes];
    SmallRng::seed_from_u64(outage.keys).fill_bytes(&mut value);
    let value = bytes::Bytes::from(value);
    let bar = indicatif::ProgressBar::new(outage.keys);
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let keys = client.keyspace(Policy::Lww.keyspace());
            let (next, value, bar, count) = (Rc::clone(&next), value.clone(), bar.clone(), outage.keys);
            tokio::task::spawn_local(async move {
                while next.get() < count {
                    let index = next.replace(next.get() + 1);
                    keys.put_blind(missed(index), value.clone()).await?;
                    bar.inc(1);
                }
                Ok::<(), merganser_client::Error>(())
            })
        })
        .collect();
    for writer in writers {
        writer.await?.context("a write failed while one node was dead")?;
    }
    bar.finish_and_clear();
    Ok(began.elapsed())
}

/// What the nodes still have to do, as they say themselves.
struct Left {
    hints: u64,
    /// Pairs that have not been proven equal since the node came back.
    unproven: usize,
    differing: u32,
}

impl Left {
    /// Ranges that clients write to just now differ for a moment, and do not count.
    fn is_nothing(&self) -> bool {
        self.hints == 0 && self.unproven == 0
    }
}

/// How long after it came back the node was seen to be so far.
async fn until(
    outage: &Outage,
    cluster: &Cluster,
    client: &Client,
    returned: Instant,
    say: &impl Fn(String),
    is_so_far: impl Fn(&Left) -> bool,
) -> Result<Duration> {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let since = returned.elapsed();
        if since.as_secs() > outage.minutes_max * 60 {
            bail!("it is not whole after {} minutes", outage.minutes_max);
        }
        let Some(left) = left(cluster, client, since).await else { continue };
        if is_so_far(&left) {
            return Ok(since);
        }
        if since.as_secs().is_multiple_of(5) {
            say(format!(
                "{} s: {} hints, {} ranges differ, {} pairs not proven equal yet",
                since.as_secs(),
                left.hints,
                left.differing,
                left.unproven
            ));
        }
    }
}

/// None: not every node answers yet.
async fn left(cluster: &Cluster, client: &Client, since: Duration) -> Option<Left> {
    let admin = client.admin();
    let mut left = Left { hints: 0, unproven: 0, differing: 0 };
    for address in cluster.addresses() {
        let held = admin.hints_of(&address).await.ok()?;
        let repair = admin.repair_of(&address).await.ok()?;
        left.hints += held.targets.iter().map(|target| target.count).sum::<u64>();
        let is_stale = |at: Option<u64>| at.is_none_or(|ago_ms| u128::from(ago_ms) >= since.as_millis());
        left.unproven += repair.equalities.iter().filter(|e| is_stale(e.proven_equal_ms_ago)).count();
        left.differing += repair.equalities.iter().map(|e| e.ranges_differing).max().unwrap_or(0);
    }
    Some(left)
}

/// How many of a sample the node itself does not hold.
async fn sample(outage: &Outage, address: &str) -> Result<u64> {
    let client = Client::builder().follow_topology(false).connect([address]).await?;
    let keys = client.keyspace(Policy::Lww.keyspace()).with_read(Quorum::One);
    let mut missing = 0;
    for number in 0..SAMPLES {
        let index = number * outage.keys.div_ceil(SAMPLES) % outage.keys;
        missing += u64::from(keys.get(missed(index)).await?.value()?.is_none());
    }
    Ok(missing)
}
