//! The laws of the contract, checked on a compiled plugin, with the very engine and limits that will run it.
//!
//! ```text
//!   recorded conflicts, samples ─┐
//!   the plugin's own generator ──┼─► pool ──► cases ──► property of each law ──► shrink ──► Report
//!   byte mutations, plain text ──┘   (valid by `validate`)         (broken)
//! ```
//!
//! In come a loaded plugin, a [`Corpus`], a seed and how many cases to try for each law; out goes a [`Report`], the
//! same for the same input. It is testing, not proof, and says how much was tried. Deliberately absent: L7 (a new
//! version reads what the old one wrote), which needs the outputs a cluster recorded: put them into the corpus and
//! look at [`Report::rejected_samples`].

mod pool;
mod properties;
mod report;
mod shrink;

use bytes::Bytes;

use crate::call::{KeyInfo, Sibling};
use crate::host::Host;
use crate::plugin::{PluginHash, World};
use pool::Pool;
use properties::{Outcome, Prover};
pub use report::{Counterexample, Finding, Law, Report, Verdict};

/// What to try besides what the plugin generates itself.
#[derive(Debug, Clone, Default)]
pub struct Corpus {
    /// Where the conflicts are said to be; its `config` is what the plugin is configured with.
    pub key: KeyInfo,
    /// Values or states that should be valid.
    pub values: Vec<Bytes>,
    /// Conflicts, such as a cluster recorded.
    pub conflicts: Vec<Vec<Sibling>>,
    /// Operations, for replicated types.
    pub operations: Vec<Bytes>,
}

/// Checks a loaded plugin. `cases` is how many are tried for each law.
pub fn check(host: &Host, plugin: &PluginHash, corpus: &Corpus, seed: u64, cases: u32) -> Report {
    let Some(loaded) = host.get(plugin) else { return Report::missing(*plugin, seed) };
    let prover = Prover::new(host, &loaded, &corpus.key);
    let mut pool = Pool::fill(&prover, corpus, seed);
    let mut report = Report::new(&loaded, seed, pool.rejected_samples());
    for law in Law::ALL {
        if !law.applies_to(loaded.world) {
            continue;
        }
        let finding = try_law(&prover, &mut pool, corpus, law, cases);
        report.findings.push(finding);
    }
    report.most = prover.most();
    report
}

fn try_law(prover: &Prover<'_>, pool: &mut Pool, corpus: &Corpus, law: Law, cases: u32) -> Finding {
    let recorded = corpus.conflicts.iter().filter(|_| prover.world() == World::Resolver).cloned();
    let mut tried = 0;
    let generated = (0..cases).map_while(|_| pool.case(law, prover.world()));
    for case in recorded.chain(generated) {
        if case.len() < law.items_min(prover.world()) {
            continue;
        }
        match prover.outcome(law, &case) {
            Outcome::Holds => tried += 1,
            Outcome::Inapplicable => {}
            Outcome::Broken { .. } => {
                let (items, outcome) = shrink::shrink(prover, law, case);
                let counterexample = Counterexample::new(law, prover.world(), items, outcome);
                let verdict = match law.refuses(prover.world()) {
                    true => Verdict::Refused(counterexample),
                    false => Verdict::Warned(counterexample),
                };
                return Finding { law, cases: tried + 1, verdict };
            }
        }
    }
    let verdict = match tried {
        0 => Verdict::NotTried,
        _ => Verdict::Holds,
    };
    Finding { law, cases: tried, verdict }
}
