//! What the law checker found, as data and as text.

use std::fmt;

use crate::call::{Sibling, Stats};
use crate::laws::properties::Outcome;
use crate::plugin::{Loaded, PluginHash, World};

/// A law of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Law {
    /// L0.
    Deterministic,
    /// L1.
    Order,
    /// L2.
    Idempotent,
    /// L3.
    Associative,
    /// L4.
    Settling,
    /// L5.
    Inflation,
    /// L6.
    Canonical,
    /// L8.
    Resources,
}

impl Law {
    /// All that can be checked on one version of a plugin.
    pub const ALL: [Law; 8] = [
        Law::Deterministic,
        Law::Order,
        Law::Idempotent,
        Law::Associative,
        Law::Settling,
        Law::Inflation,
        Law::Canonical,
        Law::Resources,
    ];

    /// Its number in the documentation.
    pub fn number(self) -> &'static str {
        match self {
            Law::Deterministic => "L0",
            Law::Order => "L1",
            Law::Idempotent => "L2",
            Law::Associative => "L3",
            Law::Settling => "L4",
            Law::Inflation => "L5",
            Law::Canonical => "L6",
            Law::Resources => "L8",
        }
    }

    /// What it asks of a plugin of this world.
    pub fn meaning(self, world: World) -> &'static str {
        match (self, world) {
            (Law::Deterministic, _) => "the same input gives the same bytes twice",
            (Law::Order, World::Resolver) => "the order in which siblings are shown does not matter",
            (Law::Order, _) => "merge(a, b) = merge(b, a)",
            (Law::Idempotent, World::Resolver) => "resolve([a]) = a",
            (Law::Idempotent, _) => "merge(a, a) = a",
            (Law::Associative, _) => "merge(merge(a, b), c) = merge(a, merge(b, c)) = merge(a, b, c)",
            (Law::Settling, _) => "resolve([resolve(S), resolve(T)]) = resolve(S ∪ T)",
            (Law::Inflation, _) => "merge(s, apply(s, op)) = apply(s, op), and a retry changes nothing",
            (Law::Canonical, World::Resolver) => "answers are valid values",
            (Law::Canonical, _) => {
                "joins are valid states, and equal meanings have equal bytes or fingerprints"
            }
            (Law::Resources, _) => "valid input is answered within the limits, and nothing traps",
        }
    }

    /// Whether a plugin of this world is asked to obey it.
    pub fn applies_to(self, world: World) -> bool {
        match self {
            Law::Associative => world != World::Resolver,
            Law::Settling => world == World::Resolver,
            Law::Inflation => world == World::ReplicatedType,
            _ => true,
        }
    }

    /// Whether a plugin that breaks it is refused, or its owner warned.
    pub fn refuses(self, world: World) -> bool {
        !matches!((self, world), (Law::Order | Law::Settling, World::Resolver))
    }

    /// Fewest items of a case: siblings, states, or a state and an operation.
    pub(super) fn items_min(self, world: World) -> usize {
        match (self, world) {
            (Law::Idempotent | Law::Canonical, _) => 1,
            (Law::Deterministic | Law::Resources, _) => 1,
            (Law::Associative, _) => 3,
            _ => 2,
        }
    }
}

/// The smallest input found for which a law does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counterexample {
    /// The siblings; for a lattice only their contents count, which are the states, and for L5 the second is the operation.
    pub items: Vec<Sibling>,
    /// What each item is called when it is shown.
    pub labels: Vec<String>,
    /// What one side of the law gives.
    pub left: String,
    /// What the other side gives.
    pub right: String,
}

impl Counterexample {
    pub(super) fn new(law: Law, world: World, items: Vec<Sibling>, outcome: Outcome) -> Counterexample {
        let label = |index: usize| match (law, world, index) {
            (Law::Inflation, _, 0) => "state".to_owned(),
            (Law::Inflation, ..) => "operation".to_owned(),
            (_, World::Resolver, _) => format!("sibling {}", index + 1),
            _ => format!("state {}", index + 1),
        };
        let labels = (0..items.len()).map(label).collect();
        let (left, right) = match outcome {
            Outcome::Broken { left, right } => (left, right),
            Outcome::Holds | Outcome::Inapplicable => Default::default(),
        };
        Counterexample { items, labels, left, right }
    }
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (label, item) in self.labels.iter().zip(&self.items) {
            match &item.content {
                Some(bytes) => write!(f, "      {label}: {}", shown(bytes))?,
                None => write!(f, "      {label}: (deleted)")?,
            }
            match label.starts_with("sibling") {
                true => writeln!(f, "   dots {:?}, at {}.{}", item.dots, item.millis, item.logical)?,
                false => writeln!(f)?,
            }
        }
        writeln!(f, "      one side: {}", self.left)?;
        write!(f, "      other side: {}", self.right)
    }
}

/// Bytes as text where they are text, and not more than a line of them.
pub(super) fn shown(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 160;
    let head = &bytes[..bytes.len().min(SHOWN_MAX)];
    match bytes.len() > SHOWN_MAX {
        true => format!("\"{}\" … {} bytes", head.escape_ascii(), bytes.len()),
        false => format!("\"{}\"", head.escape_ascii()),
    }
}

/// How a law fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No counterexample was found.
    Holds,
    /// No valid input was at hand: give samples, or a generator.
    NotTried,
    /// It is broken, and the plugin can be used all the same, with care.
    Warned(Counterexample),
    /// It is broken, and the plugin must not settle anything.
    Refused(Counterexample),
}

/// A law and how it fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The law.
    pub law: Law,
    /// Cases that were tried until it was broken, or in all.
    pub cases: u32,
    /// How it fared.
    pub verdict: Verdict,
}

/// All that the checker found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The plugin.
    pub plugin: PluginHash,
    /// Its world; none if it is not loaded, and then nothing was tried.
    pub world: Option<World>,
    /// The seed: the same one tries the same cases.
    pub seed: u64,
    /// One for each law that applies.
    pub findings: Vec<Finding>,
    /// Values of the corpus that the plugin's `validate` rejects, with its message (law L7 for recorded outputs).
    pub rejected_samples: Vec<(usize, String)>,
    /// The most that any one call used.
    pub most: Stats,
}

impl Report {
    pub(super) fn new(loaded: &Loaded, seed: u64, rejected_samples: Vec<(usize, String)>) -> Report {
        let (plugin, world) = (loaded.hash, Some(loaded.world));
        Report { plugin, world, seed, findings: Vec::new(), rejected_samples, most: Stats::default() }
    }

    pub(super) fn missing(plugin: PluginHash, seed: u64) -> Report {
        let (findings, rejected_samples, most) = Default::default();
        Report { plugin, world: None, seed, findings, rejected_samples, most }
    }

    /// Whether the plugin must not be used. A plugin that is not loaded is refused, too.
    pub fn refused(&self) -> bool {
        self.world.is_none() || self.findings.iter().any(|f| matches!(f.verdict, Verdict::Refused(_)))
    }

    /// Laws that are broken without the plugin being refused.
    pub fn warnings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| matches!(finding.verdict, Verdict::Warned(_)))
    }

    /// How this law fared, if it applies.
    pub fn finding(&self, law: Law) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.law == law)
    }

    /// Cases tried in all.
    pub fn cases(&self) -> u64 {
        self.findings.iter().map(|finding| u64::from(finding.cases)).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(world) = self.world else { return write!(f, "plugin {} is not loaded", self.plugin) };
        for Finding { law, cases, verdict } in &self.findings {
            let (number, meaning) = (law.number(), law.meaning(world));
            match verdict {
                Verdict::Holds => writeln!(f, "  ok      {number}  {meaning}  ({cases} cases)")?,
                Verdict::NotTried => writeln!(f, "  -       {number}  {meaning}  (no valid input at hand)")?,
                Verdict::Warned(example) => writeln!(f, "  warn    {number}  {meaning}\n{example}")?,
                Verdict::Refused(example) => writeln!(f, "  BROKEN  {number}  {meaning}\n{example}")?,
            }
        }
        for (index, message) in &self.rejected_samples {
            writeln!(f, "  warn    sample {} is rejected: {message}", index + 1)?;
        }
        let Stats { fuel, memory_bytes, micros } = self.most;
        writeln!(f, "  most of one call: {fuel} fuel, {} KiB, {micros} µs", memory_bytes >> 10)?;
        let outcome = if self.refused() { "refused" } else { "no counterexample" };
        write!(f, "  {outcome} in {} cases with seed {}; this is testing, not proof", self.cases(), self.seed)
    }
}
