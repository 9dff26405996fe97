//! What a person looks at, and the same for programs.
//!
//! In: everything that was found and measured. Out: one HTML file with plots that needs nothing
//! else, a JSON file beside it, a few lines on the terminal.

mod page;
mod plots;

use crate::{
    check::{Looked, Violation},
    cluster::{Cluster, network},
    faults::{
        Kind,
        inflict::{Down, Entry},
    },
    history::Micros,
    measure::{Op, Point, Sample, Stale},
    options::Options,
};
use anyhow::Context as _;
use serde::Serialize;

/// What was run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) command: String,
    pub(crate) seed: u64,
    pub(crate) merganser: String,
    pub(crate) nemesis: &'static str,
    pub(crate) began: String,
    pub(crate) duration_s: u64,
    pub(crate) nodes: Vec<String>,
    pub(crate) rate: u32,
    pub(crate) disks: &'static str,
    pub(crate) faults: Vec<&'static str>,
    pub(crate) skipped: Vec<String>,
    pub(crate) load_end_us: Micros,
    pub(crate) slot_us: Micros,
}

impl Run {
    pub(crate) fn new(
        options: &Options,
        seed: u64,
        cluster: &Cluster,
        kinds: &[Kind],
        began: String,
        load_end_us: Micros,
        slot_us: Micros,
    ) -> Run {
        Run {
            command: command(options, seed),
            seed,
            merganser: cluster.version.clone(),
            nemesis: env!("CARGO_PKG_VERSION"),
            began,
            duration_s: options.duration.as_secs(),
            nodes: (0..cluster.len()).map(network::name).collect(),
            rate: options.rate,
            disks: cluster.disks.name(),
            faults: kinds.iter().map(|kind| kind.name()).collect(),
            skipped: cluster.rights.skipped(),
            load_end_us,
            slot_us,
        }
    }
}

/// The words that run the same faults again.
fn command(options: &Options, seed: u64) -> String {
    let mut words = vec!["nemesis".to_owned()];
    match options.smoke {
        true => words.push("--smoke".into()),
        false => {
            words.push(format!("--duration {}s", options.duration.as_secs()));
            if !options.faults.is_empty() {
                let names: Vec<&str> = options.faults.iter().map(|kind| kind.name()).collect();
                words.push(format!("--faults {}", names.join(",")));
            }
        }
    }
    words.push(format!("--nodes {} --rate {} --seed {seed}", options.nodes, options.rate));
    words.extend(options.settings.iter().map(|setting| format!("--set {setting}")));
    if options.no_network {
        words.push("--no-network".into());
    }
    words.join(" ")
}

/// Whether it holds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) violations: Vec<Violation>,
    pub(crate) looked: Looked,
    /// After the last fault was taken back.
    pub(crate) equal_after_s: Option<f64>,
    pub(crate) hints_drained_after_s: Option<f64>,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) run: Run,
    pub(crate) verdict: Verdict,
    pub(crate) faults: Vec<Entry>,
    pub(crate) down: Vec<Down>,
    pub(crate) points: Vec<Point>,
    pub(crate) stale: Vec<Stale>,
    pub(crate) samples: Vec<Sample>,
}

impl Report {
    /// To files and to the terminal.
    pub(crate) fn write(&self, options: &Options) -> anyhow::Result<()> {
        let page = page::page(self)?;
        let path = &options.report;
        std::fs::write(path, page).with_context(|| format!("failed to write {}", path.display()))?;
        let beside = path.with_extension("json");
        let json = serde_json::to_string(self)?;
        std::fs::write(&beside, &json).with_context(|| format!("failed to write {}", beside.display()))?;
        match options.json {
            true => println!("{json}"),
            false => println!("{}\nreport: {}", self.summary(), path.display()),
        }
        Ok(())
    }

    /// For a terminal.
    fn summary(&self) -> String {
        let Verdict { violations, looked, .. } = &self.verdict;
        let mut lines = vec![
            format!("{} · seed {} · {} faults", self.run.merganser, self.run.seed, self.faults.len()),
            self.counts(),
            self.rest(),
        ];
        if looked.undecided > 0 {
            lines.push(format!(
                "{} reads or writes undecided: behind a resolution that nobody saw",
                looked.undecided
            ));
        }
        let told = violations.iter().take(20);
        lines.extend(told.map(|v| format!("VIOLATED {} at {}: {}", v.property, v.at, v.what)));
        lines.push(match violations.len() {
            0 => "everything holds".into(),
            count => format!("{count} violations; the same again: {}", self.run.command),
        });
        lines.join("\n")
    }

    /// What was asked and judged, in a sentence.
    fn counts(&self) -> String {
        let Looked { keys, acked, uncertain, refused, reads, reads_fresh, .. } = self.verdict.looked;
        format!(
            "{acked} writes acknowledged, {uncertain} uncertain, {refused} refused; {reads} reads, {reads_fresh} of \
             them held to freshness; {keys} keys"
        )
    }

    /// How it came to rest, in a sentence.
    fn rest(&self) -> String {
        let after =
            |time: Option<f64>| time.map_or("never".into(), |time| format!("{time:.1} s after the end"));
        format!(
            "replicas equal: {}; no hints left: {}",
            after(self.verdict.equal_after_s),
            after(self.verdict.hints_drained_after_s)
        )
    }

    /// Answers by kind of request, over all.
    fn answered(&self) -> [u64; Op::NAMES.len()] {
        let mut all = [0; Op::NAMES.len()];
        for point in &self.points {
            for (sum, ok) in all.iter_mut().zip(point.ok) {
                *sum += ok;
            }
        }
        all
    }
}
