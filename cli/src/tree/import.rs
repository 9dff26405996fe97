//! `import DIR`.
//!
//! In: a directory. Out: every file under its key; a manifest line after each acknowledgement;
//! the index. Run again after a failure it stores what is missing: a key that holds the file's
//! bytes already is left alone. Absent: deletion of keys whose file is gone.

use super::{
    ImportArgs, index,
    manifest::{self, Entries, HEADER, Stored},
    paths::{self, Found, Skipped},
};
use crate::{
    args::Global,
    connect::writer,
    failure::{self, Exit},
    output::{Output, size},
};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures::{StreamExt, stream};
use merganser_client::{Error, Keyspace, VALUE_BYTES_MAX};
use serde_json::json;
use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    path::Path,
    time::Instant,
};

/// How a file is put, given the keyspace's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    ReadFirst,
    Blind,
    Join,
}

fn how(policy: &str, blind: bool) -> How {
    match policy {
        policy if policy.starts_with("lattice:") => How::Join,
        // Ordered by stamps: a look first would change nothing.
        "lww" => How::Blind,
        _ if blind => How::Blind,
        _ => How::ReadFirst,
    }
}

/// What became of a file that could be read.
enum Outcome {
    Stored(Stored),
    Unchanged(Stored),
    Failed(anyhow::Error),
}

#[derive(Default)]
struct Summary {
    stored: u64,
    unchanged: u64,
    bytes: u64,
    failed: Vec<(String, anyhow::Error)>,
}

pub(super) async fn run(args: ImportArgs, global: &Global, output: Output) -> Result<Exit> {
    let client = super::patient(global).await?;
    let policy = client.admin().keyspace(&args.keyspace).await?.settings.unwrap_or_default().policy;
    let how = how(&policy, args.blind);
    let keys = writer(&client, &args.keyspace, &args.write);
    let (found, skipped) = paths::walk(&args.dir, &args.prefix)
        .with_context(|| format!("failed to read directory {}", args.dir.display()))?;
    let mut manifest = args.manifest.as_deref().map(open).transpose()?;
    let began = Instant::now();
    let total: u64 = found.iter().map(|file| file.size_bytes).sum();
    let bar = output.bar(total, "{bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta} {wide_msg}");

    let (mut summary, mut entries) = (Summary::default(), Entries::new());
    let mut outcomes = stream::iter(&found)
        .map(|file| {
            let outcome = store(&keys, file, how);
            async move { (file, outcome.await) }
        })
        .buffer_unordered(args.concurrency.into());
    while let Some((file, outcome)) = outcomes.next().await {
        bar.inc(file.size_bytes);
        bar.set_message(file.key.clone());
        let stored = match outcome {
            Outcome::Stored(stored) => {
                summary.stored += 1;
                stored
            }
            Outcome::Unchanged(stored) => {
                summary.unchanged += 1;
                stored
            }
            Outcome::Failed(error) => {
                bar.suspend(|| {
                    output.note(format!("failed: {}: {}", file.key, failure::tell(&error).message))
                });
                summary.failed.push((file.key.clone(), error));
                continue;
            }
        };
        summary.bytes += stored.size_bytes;
        if let Some(manifest) = &mut manifest {
            // One write for each line, so that a kill leaves whole lines.
            let line = manifest::line(&file.key, &stored);
            manifest.write_all(line.as_bytes()).context("failed to append to the manifest")?;
        }
        entries.insert(file.key.clone(), stored);
    }
    bar.finish_and_clear();
    let indexed = match args.no_index {
        true => Ok(()),
        false => index::store(&keys, &args.name, entries).await,
    };
    finish(&args, &summary, &skipped, &indexed, began, output)?;
    // A script that sees 0 believes that the whole tree is stored.
    let whole = summary.failed.is_empty() && skipped.is_empty() && indexed.is_ok();
    Ok(if whole { Exit::Ok } else { Exit::Error })
}

fn open(path: &Path) -> Result<File> {
    let open = || {
        let mut file = OpenOptions::new().append(true).create(true).read(true).open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        if text.is_empty() {
            file.write_all(HEADER.as_bytes())?;
        } else {
            manifest::read(&text, &mut Entries::new()).map_err(std::io::Error::other)?;
            // A line that an earlier run did not finish would spoil the next one.
            let whole = text.rfind('\n').map_or(0, |end| end + 1);
            file.set_len(whole as u64)?;
        }
        std::io::Result::Ok(file)
    };
    open().with_context(|| format!("failed to open manifest {}", path.display()))
}

async fn store(keys: &Keyspace, file: &Found, how: How) -> Outcome {
    match try_store(keys, file, how).await {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Failed(error),
    }
}

async fn try_store(keys: &Keyspace, file: &Found, how: How) -> Result<Outcome> {
    let value = Bytes::from(read(&file.path)?);
    let stored = Stored::of(&value);
    let written = match how {
        How::Blind => keys.put_blind(&file.key, value).await,
        How::Join => keys.join(&file.key, value).await,
        How::ReadFirst => {
            let mut entry = keys.get(&file.key).await?;
            if matches!(entry.value(), Ok(Some(there)) if *there == value) {
                return Ok(Outcome::Unchanged(stored));
            }
            entry.put(value).await
        }
    };
    match written {
        Ok(_) => Ok(Outcome::Stored(stored)),
        // As the same write once more: it counts as stored only when somebody says so.
        Err(Error::Uncertain(facts)) => {
            facts.retry().await?;
            Ok(Outcome::Stored(stored))
        }
        Err(error) => Err(error.into()),
    }
}

/// The file may have grown since the walk.
fn read(path: &Path) -> Result<Vec<u8>> {
    let limit = VALUE_BYTES_MAX as u64 + 1;
    let mut value = Vec::new();
    File::open(path).and_then(|file| file.take(limit).read_to_end(&mut value))?;
    anyhow::ensure!((value.len() as u64) < limit, "it grew beyond {VALUE_BYTES_MAX} bytes");
    Ok(value)
}

fn finish(
    args: &ImportArgs,
    summary: &Summary,
    skipped: &[Skipped],
    indexed: &Result<()>,
    began: Instant,
    output: Output,
) -> Result<()> {
    for skipped in skipped {
        output.note(format!("skipped: {}: {}", skipped.path.display(), skipped.why));
    }
    if let Err(error) = indexed {
        let told = failure::tell(error);
        output.note(format!("no index: {}", told.message));
        output.note("  next: import again with --no-index --manifest FILE, and export with that manifest");
    }
    let seconds = began.elapsed().as_secs_f64();
    output.result(
        || {
            format!(
                "{} files stored, {} unchanged ({}), {} skipped, {} failed, in {seconds:.1} s",
                summary.stored,
                summary.unchanged,
                size(summary.bytes),
                skipped.len(),
                summary.failed.len(),
            )
        },
        || {
            let failed = summary.failed.iter().map(|(key, error)| {
                let told = failure::tell(error);
                json!({ "key": key, "code": told.code, "message": told.message })
            });
            let skipped = skipped
                .iter()
                .map(|skipped| json!({ "path": skipped.path.to_string_lossy(), "why": skipped.why }));
            json!({
                "stored": summary.stored,
                "unchanged": summary.unchanged,
                "bytes": summary.bytes,
                "seconds": seconds,
                "index": (!args.no_index && indexed.is_ok()).then_some(&args.name),
                "index_error": indexed.as_ref().err().map(|error| failure::tell(error).message),
                "skipped": skipped.collect::<Vec<_>>(),
                "failed": failed.collect::<Vec<_>>(),
            })
        },
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_decides_whether_to_look_first() {
        assert_eq!(how("siblings", false), How::ReadFirst);
        assert_eq!(how("resolver:cart", false), How::ReadFirst);
        assert_eq!(how("siblings", true), How::Blind);
        assert_eq!(how("lww", false), How::Blind);
        assert_eq!(how("lattice:tags", true), How::Join);
    }

    #[test]
    fn a_manifest_is_appended_to_after_cutting_an_unfinished_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("manifest");
        let line = |key: &str| manifest::line(key, &Stored::of(key.as_bytes()));
        open(&path).unwrap().write_all(line("a").as_bytes()).unwrap();
        open(&path).unwrap().write_all(b"0123 half").unwrap();
        open(&path).unwrap().write_all(line("b").as_bytes()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{HEADER}{}{}", line("a"), line("b")));
        std::fs::write(&path, "something else").unwrap();
        assert!(open(&path).is_err(), "a file that is no manifest is left alone");
    }
}
