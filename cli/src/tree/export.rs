//! `export DIR`.
//!
//! In: the list of an import, from its index or its manifest file. Out: the files below DIR, each
//! compared with the BLAKE3 that the import noted. Absent: deletion of other files.

use super::{
    ExportArgs, index,
    manifest::{self, Entries, Stored},
    paths::{self, There},
};
use crate::{
    args::Global,
    connect::reader,
    failure::{self, Exit, Failure},
    output::{Output, size},
};
use anyhow::{Context as _, Result};
use futures::{StreamExt, stream};
use merganser_client::{Error, Keyspace};
use serde_json::json;
use std::{path::Path, time::Instant};

#[derive(Default)]
struct Summary {
    written: u64,
    same: u64,
    bytes: u64,
    failed: Vec<(String, anyhow::Error)>,
}

/// What became of a key.
enum Outcome {
    Written(u64),
    Same(u64),
}

pub(super) async fn run(args: ExportArgs, global: &Global, output: Output) -> Result<Exit> {
    let client = super::patient(global).await?;
    let keys = reader(&client, &args.keyspace, &args.read);
    let entries = match &args.manifest {
        Some(path) => from_file(path)?,
        None => index::load(&keys, &args.name).await?,
    };
    let wanted: Vec<(&str, &String, &Stored)> = entries
        .iter()
        .filter_map(|(key, stored)| Some((key.strip_prefix(&args.prefix)?, key, stored)))
        .collect();
    let left_out = entries.len() - wanted.len();
    std::fs::create_dir_all(&args.dir)
        .with_context(|| format!("failed to make directory {}", args.dir.display()))?;
    let began = Instant::now();
    let total: u64 = wanted.iter().map(|(_, _, stored)| stored.size_bytes).sum();
    let bar = output.bar(total, "{bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta} {wide_msg}");

    let mut summary = Summary::default();
    let mut outcomes = stream::iter(wanted)
        .map(|(path, key, stored)| {
            let one = one(&keys, &args, path, key, stored);
            async move { (key, stored, one.await) }
        })
        .buffer_unordered(args.concurrency.into());
    while let Some((key, stored, outcome)) = outcomes.next().await {
        bar.inc(stored.size_bytes);
        bar.set_message(key.clone());
        match outcome {
            Ok(Outcome::Written(bytes)) => {
                summary.written += 1;
                summary.bytes += bytes;
            }
            Ok(Outcome::Same(bytes)) => {
                summary.same += 1;
                summary.bytes += bytes;
            }
            Err(error) => {
                bar.suspend(|| output.note(format!("failed: {key}: {}", failure::tell(&error).message)));
                summary.failed.push((key.clone(), error));
            }
        }
    }
    bar.finish_and_clear();
    finish(&summary, left_out, began, output)?;
    Ok(if summary.failed.is_empty() { Exit::Ok } else { Exit::Error })
}

fn from_file(path: &Path) -> Result<Entries> {
    let read = || {
        let mut entries = Entries::new();
        manifest::read(&std::fs::read_to_string(path)?, &mut entries).map_err(std::io::Error::other)?;
        std::io::Result::Ok(entries)
    };
    read().with_context(|| format!("failed to read manifest {}", path.display()))
}

async fn one(keys: &Keyspace, args: &ExportArgs, path: &str, key: &str, stored: &Stored) -> Result<Outcome> {
    let place = paths::place(&args.dir, path).map_err(|why| {
        Failure::new("unsafe_path", why, "get the key alone: `merganser get`, into a file of your choice")
    })?;
    let entry = keys.get(key).await?;
    let value = entry.value()?.ok_or_else(|| Error::NotFound { what: "the key is not there".into() })?;
    if Stored::of(value) != *stored && !args.changed {
        let hint = "export it all the same with --changed, or import again";
        return Err(Failure::new("changed", "it is not what was imported", hint).into());
    }
    let bytes = value.len() as u64;
    match paths::there(&place, value)? {
        There::Same => return Ok(Outcome::Same(bytes)),
        There::Other if !args.overwrite => {
            let what = format!("{} has other content", place.display());
            return Err(Failure::new("file_exists", what, "replace files with --overwrite").into());
        }
        There::Other | There::Nothing => paths::write(&place, value)?,
    }
    Ok(Outcome::Written(bytes))
}

fn finish(summary: &Summary, left_out: usize, began: Instant, output: Output) -> Result<()> {
    if left_out > 0 {
        output.note(format!("{left_out} keys have another prefix and were left out"));
    }
    let seconds = began.elapsed().as_secs_f64();
    output.result(
        || {
            format!(
                "{} files written, {} were there already ({}), {} failed, in {seconds:.1} s; each checked by its BLAKE3",
                summary.written,
                summary.same,
                size(summary.bytes),
                summary.failed.len(),
            )
        },
        || {
            let failed = summary.failed.iter().map(|(key, error)| {
                let told = failure::tell(error);
                json!({ "key": key, "code": told.code, "message": told.message })
            });
            json!({
                "written": summary.written,
                "unchanged": summary.same,
                "bytes": summary.bytes,
                "left_out": left_out,
                "seconds": seconds,
                "failed": failed.collect::<Vec<_>>(),
            })
        },
    )?;
    Ok(())
}
