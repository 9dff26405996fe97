//! `plugin check`: the laws, offline, with the engine and the limits of a node.
//!
//! In: a module or project, samples, a seed. Out: one line for each law, and the smallest
//! counterexample found where it is broken; exit code 1 where a node would refuse the plugin.
//! Absent: a proof; the same seed tries the same cases.

use super::build::loaded_json;
use crate::{
    failure::{Exit, Failure},
    output::{Output, bytes_json},
};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use clap::Args;
use merganser_plugin_host::{
    KeyInfo,
    laws::{self, Corpus, Counterexample, Finding, Report, Verdict},
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The module, or the directory of its project, which is built first.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// A file with a value (a state, for a lattice) that should be valid; or a directory of such files.
    #[arg(long, value_name = "PATH")]
    sample: Vec<PathBuf>,
    /// A file with an operation; or a directory of such files. For replicated types.
    #[arg(long, value_name = "PATH")]
    operation: Vec<PathBuf>,
    /// What the plugin is configured with, as in `keyspace create --plugin-config`.
    #[arg(long, value_name = "FILE")]
    plugin_config: Option<PathBuf>,
    /// The same seed tries the same cases.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Cases for each law.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    cases: u32,
}

pub(super) fn run(args: CheckArgs, output: Output) -> Result<Exit> {
    let (path, module) = super::module(&args.path, output)?;
    let host = super::host()?;
    let loaded = host.load(&module).map_err(|error| {
        let hint = "begin from `merganser plugin new`, or read docs/plugins.md";
        Failure::new("refused", format!("a node would refuse {}: {error}", path.display()), hint)
    })?;
    let config = match &args.plugin_config {
        Some(file) => read(file)?,
        None => Bytes::new(),
    };
    let corpus = Corpus {
        key: KeyInfo { config, ..KeyInfo::default() },
        values: samples(&args.sample)?,
        conflicts: Vec::new(),
        operations: samples(&args.operation)?,
    };
    let report = laws::check(&host, &loaded.hash, &corpus, args.seed, args.cases);
    output.result(
        || format!("{} {} ({})\n{report}", loaded.description.name, loaded.description.version, loaded.world),
        || {
            let mut value = report_json(&report);
            value["plugin"] = loaded_json(&loaded);
            value
        },
    )?;
    Ok(if report.refused() { Exit::Error } else { Exit::Ok })
}

/// Cases for each law before an upload: enough for what is plainly unlawful, in a second or two.
const CASES_BEFORE_PUSH: u32 = 50;

/// Refuses to upload what breaks a law. Nodes do not ask again: a plugin that is pushed `--unchecked` is the operator's.
pub(super) fn before_push(module: &[u8]) -> Result<()> {
    let host = super::host()?;
    let loaded = host.load(module).map_err(|error| {
        let hint = "begin from `merganser plugin new`, or read docs/plugins.md";
        Failure::new("refused", format!("a node would refuse it: {error}"), hint)
    })?;
    let report = laws::check(&host, &loaded.hash, &Corpus::default(), 1, CASES_BEFORE_PUSH);
    if report.refused() {
        let hint = "correct it with `merganser plugin check`; `--unchecked` uploads it all the same";
        return Err(Failure::new("unlawful", format!("it breaks a law:\n{report}"), hint).into());
    }
    Ok(())
}

/// Files as they are, directories as the files in them, in the order of their names.
fn samples(paths: &[PathBuf]) -> Result<Vec<Bytes>> {
    let mut samples = Vec::new();
    for path in paths {
        if !path.is_dir() {
            samples.push(read(path)?);
            continue;
        }
        let entries = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut files: Vec<PathBuf> = entries
            .with_context(|| format!("failed to read directory {}", path.display()))?
            .into_iter()
            .map(|entry| entry.path())
            .filter(|path| path.is_file())
            .collect();
        files.sort();
        for file in files {
            samples.push(read(&file)?);
        }
    }
    Ok(samples)
}

fn read(path: &Path) -> Result<Bytes> {
    let read = std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(Bytes::from(read))
}

fn report_json(report: &Report) -> Value {
    let finding = |Finding { law, cases, verdict }: &Finding| {
        let (name, example) = match verdict {
            Verdict::Holds => ("holds", None),
            Verdict::NotTried => ("not_tried", None),
            Verdict::Warned(example) => ("warned", Some(example)),
            Verdict::Refused(example) => ("refused", Some(example)),
        };
        json!({
            "law": law.number(),
            "meaning": report.world.map(|world| law.meaning(world)),
            "cases": cases,
            "verdict": name,
            "counterexample": example.map(example_json),
        })
    };
    let rejected = report.rejected_samples.iter();
    json!({
        "refused": report.refused(),
        "seed": report.seed,
        "cases": report.cases(),
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "rejected_samples": rejected
            .map(|(index, message)| json!({ "sample": index, "message": message }))
            .collect::<Vec<_>>(),
        "most": {
            "fuel": report.most.fuel,
            "memory_bytes": report.most.memory_bytes,
            "micros": report.most.micros,
        },
    })
}

fn example_json(example: &Counterexample) -> Value {
    let item = |(label, item): (&String, &merganser_plugin_host::Sibling)| json!({ "label": label, "content": item.content.as_ref().map(|bytes| bytes_json(bytes)) });
    json!({
        "items": example.labels.iter().zip(&example.items).map(item).collect::<Vec<_>>(),
        "left": example.left,
        "right": example.right,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_samples_is_read_in_the_order_of_names() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [("b", "2"), ("a", "1")] {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let alone = directory.path().join("b");
        let read = samples(&[directory.path().to_owned(), alone]).unwrap();
        assert_eq!(read, ["1", "2", "2"]);
        assert!(samples(&[directory.path().join("none")]).is_err());
    }
}
