//! `inspect files | wal | sstable | manifest | key`: a node's files, offline.
//!
//! In: paths. Out: what is in them, past damage; exit code 1 where something is damaged. Nothing
//! is changed, so it may look at a node that runs (and then sees a moment ago). Absent: repair;
//! that is what replicas are for.

mod state;

use crate::{
    failure::{Exit, Failure},
    key::KeyArgs,
    output::{Output, hex, size, table},
};
use anyhow::Result;
use bytes::Bytes;
use clap::{Args, Subcommand};
use merganser_storage::{
    Error,
    fs::os::OsFs,
    inspect::{self, Damage, Entry, KeyReport, LogReport, ManifestReport, TableReport},
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The files of a node's data directory.
    Files { dir: PathBuf },
    /// A write-ahead log: its group commits.
    Wal {
        file: PathBuf,
        /// Also each write in them.
        #[arg(long)]
        entries: bool,
    },
    /// A sorted table.
    Sstable {
        file: PathBuf,
        /// Also each key in it.
        #[arg(long)]
        entries: bool,
    },
    /// A manifest, or the one that a data directory uses.
    Manifest { path: PathBuf },
    /// A key: every record of it, with its dots.
    Key {
        /// The node's data directory.
        dir: PathBuf,
        #[command(flatten)]
        at: KeyArgs,
    },
}

/// What was found, for both kinds of reader.
struct Report {
    text: String,
    json: Value,
    damage: Vec<Damage>,
}

pub(crate) fn run(args: InspectArgs, output: Output) -> Result<Exit> {
    let report = match &args.what {
        What::Files { dir } => files(dir),
        What::Wal { file, entries } => inspect::log(&OsFs, file).map(|report| log(&report, *entries)),
        What::Sstable { file, entries } => inspect::table(&OsFs, file, *entries).map(sstable),
        What::Manifest { path } => return manifest(path, output),
        What::Key { dir, at } => {
            let stored = state::storage_key(&at.keyspace, &at.key()?);
            inspect::key(&OsFs, dir, &stored).map(|report| sightings(&report))
        }
    };
    print(report.map_err(failure)?, output)
}

fn manifest(path: &Path, output: Output) -> Result<Exit> {
    let path = if path.is_dir() {
        inspect::current_manifest(&OsFs, path).map_err(failure)?.ok_or_else(|| {
            let what = format!("{} holds no database", path.display());
            Failure::new(
                "no_database",
                what,
                "name the directory that is storage.dir in the node's configuration",
            )
        })?
    } else {
        path.to_owned()
    };
    print(manifest_report(&inspect::manifest(&OsFs, &path).map_err(failure)?), output)
}

fn failure(error: Error) -> Failure {
    let hint = match &error {
        Error::UnsupportedVersion { .. } => "use the merganser that wrote it, or a newer one",
        _ => "list a data directory with `merganser inspect files DIR`",
    };
    Failure::new("inspect", error.to_string(), hint)
}

fn print(mut report: Report, output: Output) -> Result<Exit> {
    if !report.damage.is_empty() {
        for damage in &report.damage {
            let (file, offset) = (damage.file.display(), damage.offset);
            report.text += &format!("\nDAMAGE  {file} at {offset}: {}", damage.what);
        }
    }
    report.json["damage"] = report
        .damage
        .iter()
        .map(|damage| {
            json!({ "file": damage.file.to_string_lossy(), "offset": damage.offset, "what": damage.what })
        })
        .collect();
    output.result(|| report.text.trim_start().to_owned(), || report.json)?;
    Ok(if report.damage.is_empty() { Exit::Ok } else { Exit::Error })
}

fn files(dir: &Path) -> Result<Report, Error> {
    let files = inspect::files(&OsFs, dir)?;
    let rows = files.iter().map(|file| vec![file.name.clone(), file.kind.to_owned(), size(file.bytes)]);
    let json = files.iter().map(|file| json!({ "name": file.name, "kind": file.kind, "bytes": file.bytes }));
    Ok(Report {
        text: table(&["FILE", "KIND", "SIZE"], rows),
        json: json!({ "files": json.collect::<Vec<_>>() }),
        damage: Vec::new(),
    })
}

fn log(report: &LogReport, with_entries: bool) -> Report {
    let after = match (report.restart, report.previous) {
        (true, _) => "stands for all older logs".to_owned(),
        (false, previous) => format!("follows log {previous} of {}", size(report.previous_len)),
    };
    let writes: usize = report.frames.iter().map(|frame| frame.writes.len()).sum();
    let mut text =
        format!("log {}, {after}: {} group commits, {writes} writes", report.number, report.frames.len());
    let mut frames = Vec::new();
    for frame in &report.frames {
        let (first, durable) = (frame.sequence_first, frame.durable_below);
        let last = first + (frame.writes.len() as u64).saturating_sub(1);
        text += &format!(
            "\n{:>10}  {:>9}  writes {first} to {last}, durable below {durable}",
            frame.offset,
            size(frame.bytes)
        );
        let mut ops = Vec::new();
        if with_entries {
            for (sequence, write) in (first..).zip(&frame.writes) {
                for entry in write {
                    text += &format!("\n              {sequence}  {}", line(entry));
                    ops.push(entry_json(entry, Some(sequence)));
                }
            }
        }
        frames.push(json!({
            "offset": frame.offset,
            "bytes": frame.bytes,
            "sequence_first": first,
            "durable_below": durable,
            "writes": frame.writes.len(),
            "entries": ops,
        }));
    }
    let json = json!({
        "number": report.number,
        "restart": report.restart,
        "previous": report.previous,
        "previous_len": report.previous_len,
        "frames": frames,
    });
    Report { text, json, damage: report.damage.clone() }
}

fn sstable(report: TableReport) -> Report {
    let (first, last) = (state::name(&report.first_key), state::name(&report.last_key));
    let rows = [
        ("size", size(report.file_bytes)),
        ("digest", report.digest.clone()),
        ("version", report.version.to_string()),
        ("keys", format!("{} ({} fragments, {} removes)", report.keys, report.fragments, report.removes)),
        ("first", first.clone()),
        ("last", last.clone()),
        ("sequences", format!("{} to {}", report.sequence_first, report.sequence_last)),
        ("values apart", size(report.value_bytes)),
        ("data blocks", report.data_blocks.to_string()),
        ("in memory", size(report.resident_bytes)),
    ];
    let mut lines: Vec<String> = rows.iter().map(|(name, value)| format!("{name:<14}{value}")).collect();
    lines.extend(report.entries.iter().map(line));
    let json = json!({
        "file_bytes": report.file_bytes,
        "digest": report.digest,
        "version": report.version,
        "keys": report.keys,
        "fragments": report.fragments,
        "removes": report.removes,
        "first_key": first,
        "last_key": last,
        "sequence_first": report.sequence_first,
        "sequence_last": report.sequence_last,
        "value_bytes": report.value_bytes,
        "data_blocks": report.data_blocks,
        "resident_bytes": report.resident_bytes,
        "entries": report.entries.iter().map(|entry| entry_json(entry, None)).collect::<Vec<_>>(),
    });
    Report { text: lines.join("\n"), json, damage: report.damage }
}

fn manifest_report(report: &ManifestReport) -> Report {
    let mut lines = vec![format!(
        "{} edits leave {} tables; logs from {} on are needed",
        report.edits.len(),
        report.tables.len(),
        report.log_floor
    )];
    lines.extend(report.tables.iter().map(|(number, digest)| format!("table {number:>8}  {digest}")));
    for edit in &report.edits {
        lines.extend(edit.changes.iter().map(|change| format!("{:>10}  {change}", edit.offset)));
    }
    let tables = report.tables.iter().map(|(number, digest)| json!({ "number": number, "digest": digest }));
    let edits = report.edits.iter().map(|edit| json!({ "offset": edit.offset, "changes": edit.changes }));
    let json = json!({
        "log_floor": report.log_floor,
        "tables": tables.collect::<Vec<_>>(),
        "edits": edits.collect::<Vec<_>>(),
    });
    Report { text: lines.join("\n"), json, damage: report.damage.clone() }
}

fn sightings(report: &KeyReport) -> Report {
    let mut lines = Vec::new();
    let mut json = Vec::new();
    for sighting in &report.sightings {
        let file = sighting.file.file_name().unwrap_or_default().to_string_lossy();
        lines.push(format!("{file}  write {}  {}", sighting.sequence, line(&sighting.entry)));
        let described = state::describe(&sighting.entry);
        lines.extend(described.lines.iter().map(|line| format!("    {line}")));
        let mut value = entry_json(&sighting.entry, Some(sighting.sequence));
        value["file"] = json!(sighting.file.to_string_lossy());
        value["state"] = described.json;
        json.push(value);
    }
    if lines.is_empty() {
        lines.push("no record of this key".into());
    }
    Report { text: lines.join("\n"), json: json!({ "sightings": json }), damage: report.damage.clone() }
}

fn line(entry: &Entry) -> String {
    let name = state::name(&entry.key);
    let apart = entry.body_offset.map(|at| format!(" apart at {at}")).unwrap_or_default();
    let (body, stored) = (size(entry.body_bytes), size(entry.stored_bytes));
    format!("{}  {name}  head {} B, body {body} ({stored} stored{apart})", entry.kind, entry.head.len())
}

fn entry_json(entry: &Entry, sequence: Option<u64>) -> Value {
    let key = Bytes::copy_from_slice(&entry.key);
    json!({
        "sequence": sequence,
        "kind": entry.kind,
        "key": state::name(&key),
        "storage_key": hex(&key),
        "head_bytes": entry.head.len(),
        "body_bytes": entry.body_bytes,
        "stored_bytes": entry.stored_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_told_last_and_ends_in_exit_code_1() {
        let damage = Damage { file: "000000000001.sst".into(), offset: 9, what: "a bad checksum".into() };
        let report = |damage| Report { text: "fine".into(), json: json!({}), damage };
        let output = Output { json: true };
        assert_eq!(print(report(vec![damage]), output).unwrap(), Exit::Error);
        assert_eq!(print(report(Vec::new()), output).unwrap(), Exit::Ok);
    }

    #[test]
    fn a_place_without_a_database_is_told_what_to_do() {
        let empty = tempfile::tempdir().unwrap();
        let error = manifest(empty.path(), Output { json: true }).unwrap_err();
        assert!(crate::failure::tell(&error).hint.contains("storage.dir"));
        let none = run(
            InspectArgs { what: What::Sstable { file: empty.path().join("x.sst"), entries: false } },
            Output { json: true },
        );
        assert!(crate::failure::tell(&none.unwrap_err()).hint.contains("inspect files"));
    }
}
