//! The course of a run: up, load, faults, heal, rest, judge.
//!
//! In: options. Out: a [`Report`]. Whatever goes wrong on the way, the cluster goes away with it.

use crate::{
    check::{Findings, Rules, Violation},
    cluster::{Cluster, direct, tool},
    faults::{self, CLOCKS_APART_US_MAX, Kind, Plan, inflict, refill::Refill},
    history::{Clock, History, Micros, locked},
    load::{self, keyspaces},
    measure::{Measures, Sample},
    options::Options,
    report::{Report, Run, Verdict},
    settle,
};
use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use merganser_client::Client;
use std::{
    collections::BTreeMap,
    future::pending,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{task::JoinSet, time::sleep};

/// Clients at a time.
const CLIENTS: u64 = 24;
/// How often nodes are looked at.
const SAMPLE: Duration = Duration::from_secs(5);
/// How long the clients may need to notice that it is enough.
const LAST_REQUESTS: Duration = Duration::from_secs(30);

/// Histories that are kept at most.
const HISTORIES_MAX: usize = 20;

/// Metrics that tell of a broken promise whatever was inflicted.
const ALARMS: [&str; 1] = ["notices_dot_reused"];

/// Runs everything, with a seed.
pub(crate) async fn run(options: &Options, seed: u64) -> anyhow::Result<Report> {
    let cluster = Arc::new(Cluster::prepare(options)?);
    tokio::select! {
        report = course(options, seed, &cluster) => report,
        // The cluster is dropped, with all that belongs to it.
        signal = interrupted() => bail!("{signal}"),
    }
}

async fn interrupted() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => "interrupted",
        _ = terminate.recv() => "terminated",
    }
}

async fn course(options: &Options, seed: u64, cluster: &Arc<Cluster>) -> anyhow::Result<Report> {
    let began_at = tool::say("date", "-u +%Y-%m-%dT%H:%M:%SZ")?.trim().to_owned();
    let kinds = faults::possible(&options.faults, &cluster.rights);
    if kinds.is_empty() {
        bail!("none of these faults is possible here: {}", cluster.rights.skipped().join("; "));
    }
    for skipped in cluster.rights.skipped() {
        eprintln!("skipped: {skipped}");
    }
    let bar = bar(options.duration);
    bar.set_message("starting");
    cluster.start().await?;
    let client = Client::connect(cluster.addresses()).await.context("the new cluster does not answer")?;
    keyspaces::create(&client).await?;

    let clock = Clock::start();
    let stop = Arc::new(AtomicBool::new(false));
    let faults_stop = Arc::new(AtomicBool::new(false));
    let history = Arc::new(History::default());
    let measures = Arc::new(Measures::new(options.duration.as_micros() as Micros));
    let log = Arc::new(inflict::Log::default());
    let shared = Arc::new(load::Shared {
        history: Arc::clone(&history),
        measures: Arc::clone(&measures),
        clock,
        stop: Arc::clone(&stop),
        ids: AtomicU64::new(1),
        load: options.load,
    });
    let refill = Arc::new(Refill::new(
        client.clone(),
        Arc::clone(cluster),
        Arc::clone(&history),
        Arc::clone(&log),
        clock,
        options.refill,
    ));
    let nemesis = Arc::new(inflict::Nemesis {
        cluster: Arc::clone(cluster),
        log: Arc::clone(&log),
        clock,
        refill: Arc::clone(&refill),
        stop: Arc::clone(&faults_stop),
    });

    // Ended, all of them, when this is dropped.
    let mut background = JoinSet::new();
    background.spawn({
        let nemesis = Arc::clone(&nemesis);
        async move { nemesis.guard().await }
    });
    background.spawn({
        let refill = Arc::clone(&refill);
        async move { refill.run().await }
    });
    background.spawn(sample(Arc::clone(cluster), Arc::clone(&measures), clock));
    let mut clients = JoinSet::new();
    let every = Duration::from_secs_f64(CLIENTS as f64 / f64::from(options.rate));
    for i in 0..CLIENTS {
        clients.spawn(load::run(Arc::clone(&shared), client.clone(), seed.wrapping_add(i), every));
    }
    let mut canaries = JoinSet::new();
    canaries.spawn(load::canary::run(Arc::clone(&shared), client.clone(), Arc::clone(cluster)));

    let hurried = options.duration < Duration::from_secs(60);
    let plan = Plan::new(seed, kinds.clone(), cluster.len(), hurried);
    let mut faults = JoinSet::new();
    faults.spawn({
        let nemesis = Arc::clone(&nemesis);
        async move { nemesis.run(plan).await }
    });
    let end = options.duration.as_micros() as Micros;
    let mut told = Told::default();
    while clock.now() < end {
        if let Some(done) = faults.try_join_next() {
            done.context("the nemesis panicked")?;
            bail!("the nemesis ended before its time");
        }
        told = tell(&bar, clock, &measures, &log, told);
        sleep(Duration::from_millis(250)).await;
    }
    faults_stop.store(true, Ordering::Relaxed);
    bar.set_message("taking back the last fault");
    while let Some(done) = faults.join_next().await {
        done.context("the nemesis panicked")?;
    }
    if let Err(error) = cluster.heal().await {
        log.violate("C14", "the end", format!("{error:#}"));
    }
    (0..cluster.len()).for_each(|node| log.comes_up(node, clock.now()));
    // Life goes on for a moment without faults, so that the end of the plots shows it.
    sleep(Duration::from_secs(if hurried { 1 } else { 5 })).await;
    stop.store(true, Ordering::Relaxed);
    bar.set_message("waiting for the last requests");
    let last = tokio::time::timeout(LAST_REQUESTS, async {
        while let Some(done) = clients.join_next().await {
            done.context("a client panicked")?;
        }
        anyhow::Ok(())
    });
    match last.await {
        Ok(done) => done?,
        Err(_) => log.violate("C14", "the end", "clients wait for answers for ever".into()),
    }
    clients.shutdown().await;
    let load_end = clock.now();
    // Those that wait for canaries look on, for the time that it takes to come to rest.
    let settled = settle::settle(cluster, &client, &history, clock, options.settle, &|message| {
        bar.set_message(message)
    })
    .await?;
    canaries.shutdown().await;

    bar.set_message("judging");
    let mut violations = locked(&log.violations).clone();
    violations.extend(settled.violations.clone());
    alarms(cluster, &measures, &mut violations).await;
    for name in cluster.stop().await? {
        let what = "it did not stop when asked to".to_owned();
        violations.push(Violation { property: "C14".into(), at: name, what });
    }
    background.shutdown().await;
    let clocks_apart = if kinds.contains(&Kind::Clock) { CLOCKS_APART_US_MAX } else { 1_000_000 };
    let rules = Rules { stale: refill.stale(), clocks_apart, end: load_end };
    let findings = judge(&history, &settled, &rules);
    violations.extend(findings.violations.clone());
    bar.finish_and_clear();

    if options.keep_logs || !violations.is_empty() {
        let directory = options.report.with_extension("logs");
        std::fs::create_dir_all(&directory)?;
        for node in 0..cluster.len() {
            cluster.node(node).lock().await.keep_log(&directory)?;
        }
        keep_histories(&directory, &violations, &history, &settled)?;
        eprintln!("the nodes' logs and the histories of violated keys are in {}", directory.display());
    }
    Ok(Report {
        run: Run::new(options, seed, cluster, &kinds, began_at, load_end, measures.slot_us()),
        verdict: Verdict {
            violations,
            looked: findings.looked,
            equal_after_s: settled.equal_after.map(|time| time.as_secs_f64()),
            hints_drained_after_s: settled.hints_drained_after.map(|time| time.as_secs_f64()),
        },
        faults: locked(&log.entries).clone(),
        down: locked(&log.down).clone(),
        points: measures.points(),
        stale: measures.stale(),
        samples: measures.samples(),
    })
}

fn judge(history: &History, settled: &settle::Settled, rules: &Rules) -> Findings {
    let mut findings = Findings::default();
    for (name, key, history) in history.keys() {
        let Some(space) = keyspaces::find(name) else { continue };
        // Those that could not be read at the end are told already.
        let Some(end) = settled.end.get(&(name, key.clone())) else { continue };
        findings.judge(space.kind, &format!("{name}/{key}"), &locked(&history), end, rules);
    }
    findings
}

/// Panics, and what the nodes themselves call impossible.
async fn alarms(cluster: &Cluster, measures: &Measures, violations: &mut Vec<Violation>) {
    for node in 0..cluster.len() {
        let node = cluster.node(node).lock().await;
        for line in node.panics() {
            violations.push(Violation { property: "P7".into(), at: node.name.clone(), what: line });
        }
    }
    for sample in measures.samples() {
        let metrics = sample.metrics.iter().flatten();
        for (name, value) in metrics.filter(|(name, value)| ALARMS.contains(&name.as_str()) && **value > 0.0)
        {
            let at = crate::cluster::network::name(sample.node);
            let what = format!("{name} = {value} at {:.0} s", sample.at_us as f64 / 1e6);
            if !violations.iter().any(|known| known.at == at && known.what.starts_with(name)) {
                violations.push(Violation { property: "C3".into(), at, what });
            }
        }
    }
}

/// Looks at every node now and then, for ever.
async fn sample(cluster: Arc<Cluster>, measures: Arc<Measures>, clock: Clock) {
    let mut nodes = Vec::new();
    for address in cluster.addresses() {
        // An address is no connection yet, so this succeeds.
        nodes.push((direct(&address).await.ok(), address));
    }
    loop {
        for (node, (client, address)) in nodes.iter().enumerate() {
            let resident_bytes = match cluster.node(node).try_lock() {
                Ok(process) => process.resident_bytes(),
                Err(_) => None,
            };
            let status = match client {
                Some(client) => {
                    client.admin().with_timeout(Duration::from_secs(1)).status_of(address).await.ok()
                }
                None => None,
            };
            let metrics = status.map(|status| {
                let metrics = status.metrics.into_iter().map(|metric| (metric.name, metric.value));
                metrics.collect::<BTreeMap<_, _>>()
            });
            measures.sample(Sample { at_us: clock.now(), node, resident_bytes, metrics });
        }
        sleep(SAMPLE).await;
    }
}

/// What clients asked and were told about the keys that are violated, in the order of time.
fn keep_histories(
    directory: &Path,
    violations: &[Violation],
    history: &History,
    settled: &settle::Settled,
) -> anyhow::Result<()> {
    let mut kept = 0;
    for (space, key, history) in history.keys() {
        let at = format!("{space}/{key}");
        if kept == HISTORIES_MAX || !violations.iter().any(|violation| violation.at == at) {
            continue;
        }
        kept += 1;
        let history = locked(&history);
        let writes = history.writes.iter().map(|write| (write.begin, format!("{write:?}")));
        let reads = history.reads.iter().map(|read| (read.begin, format!("{read:?}")));
        let mut lines: Vec<(Micros, String)> = writes.chain(reads).collect();
        lines.sort();
        let mut text: String = lines.into_iter().map(|(_, line)| line + "\n").collect();
        text += &format!("the end: {:?}\n", settled.end.get(&(space, key.clone())));
        std::fs::write(directory.join(format!("{space}-{key}.history")), text)?;
    }
    Ok(())
}

fn bar(duration: Duration) -> ProgressBar {
    let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {percent:>3} %  {msg}")
        .expect("a fixed template is right");
    // On no terminal it draws nothing.
    ProgressBar::new(duration.as_secs()).with_style(style)
}

/// How much of the log was told.
#[derive(Clone, Copy, Default)]
struct Told {
    faults: usize,
    violations: usize,
}

/// Faults that are over and violations, a line each; and how it stands.
fn tell(bar: &ProgressBar, clock: Clock, measures: &Measures, log: &inflict::Log, mut told: Told) -> Told {
    let line = |line: String| if bar.is_hidden() { eprintln!("{line}") } else { bar.println(line) };
    let entries = locked(&log.entries);
    let over = |entry: &&inflict::Entry| entry.end_us.is_some();
    for entry in entries.iter().skip(told.faults).take_while(over) {
        let (begin, end) = (entry.begin_us as f64 / 1e6, entry.end_us.unwrap_or_default() as f64 / 1e6);
        line(format!("{begin:>8.1} s to {end:>6.1} s  {} {}: {}", entry.node, entry.kind, entry.what));
        entry.notes.iter().for_each(|note| line(format!("{:24}{note}", "")));
        told.faults += 1;
    }
    let violations = locked(&log.violations);
    for violation in violations.iter().skip(told.violations) {
        line(format!("VIOLATED {} at {}: {}", violation.property, violation.at, violation.what));
    }
    told.violations = violations.len();
    let (ok, errors) = measures.totals();
    let now = entries.last().filter(|entry| entry.end_us.is_none());
    let now = now.map(|entry| format!("{} {}: {}", entry.node, entry.kind, entry.what)).unwrap_or_default();
    let refilled = entries.iter().filter(|entry| entry.refilled_us.is_some()).count();
    bar.set_position(clock.now() / 1_000_000);
    bar.set_message(format!(
        "{ok} answered, {errors} not; {} faults, {refilled} disks refilled, {} violations  {now}",
        entries.len(),
        told.violations
    ));
    told
}
