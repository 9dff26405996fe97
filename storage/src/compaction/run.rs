//! Do: merge sorted sources into one table. Flushes use it too: a flush is a merge of one memtable.
//!
//! In: sources from newest to oldest. Out: a synced table, or nothing if nothing was left; on failure the
//! half-written file is taken away. Deliberately absent: the manifest.

use std::path::PathBuf;

use crate::error::Error;
use crate::fragment::{Body, reduce};
use crate::fs::Fs;
use crate::merge::{Found, Merged, Source};
use crate::record::Fold;
use crate::table::TableMeta;
use crate::table::builder::{TableBuilder, TableOptions};

/// So many keys of a table are all asked what they hide; of those beyond, one in `SAMPLED_ONE_IN`.
const EXACT_KEYS: u64 = 4096;
const SAMPLED_ONE_IN: u64 = 8;

/// What to merge and how.
pub(crate) struct Job<'a> {
    pub(crate) fs: &'a dyn Fs,
    pub(crate) fold: &'a dyn Fold,
    pub(crate) path: PathBuf,
    pub(crate) number: u64,
    pub(crate) table: TableOptions,
    /// Nothing older than the sources exists.
    pub(crate) bottom: bool,
    /// What an older table holds of a key, in bytes, as far as that can be told without reading it.
    pub(crate) older_bytes: &'a dyn Fn(&[u8]) -> u64,
    /// The piece of history that the sources cover.
    pub(crate) sequences: (u64, u64),
    /// Gives folded bodies the form they keep.
    pub(crate) pack: &'a dyn Fn(bytes::Bytes) -> Body,
    /// Asked at every key: whether to give up, because the database closes.
    pub(crate) cancelled: &'a dyn Fn() -> bool,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) meta: Option<TableMeta>,
    pub(crate) folds_refused: u64,
}

pub(crate) fn run(job: &Job<'_>, sources: Vec<Box<dyn Source>>) -> Result<Outcome, Error> {
    let mut started = false;
    let outcome = merge(job, Merged::new(sources), &mut started);
    if started && !matches!(outcome, Ok(Outcome { meta: Some(_), .. })) {
        // What cannot be removed now is an orphan, which the next open removes.
        let _ = job.fs.unlink(&job.path);
    }
    outcome
}

fn merge(job: &Job<'_>, mut merged: Merged, started: &mut bool) -> Result<Outcome, Error> {
    let mut builder: Option<TableBuilder> = None;
    let mut folds_refused = 0;
    let mut keys = 0u64;
    while let Some(found) = merged.next()? {
        let (key, fragments) = match found {
            Found::Group(group) => group,
            // What could not be read must not be taken for nothing.
            Found::Gap(gap) => return Err(gap.error),
        };
        if (job.cancelled)() {
            return Err(Error::NotOpen);
        }
        let reduced = reduce(&key, fragments, job.bottom, job.fold, &mut |body| (job.pack)(body))?;
        folds_refused += u64::from(reduced.fold_failed);
        if reduced.fragments.is_empty() {
            continue;
        }
        if builder.is_none() {
            *started = true;
            builder = Some(TableBuilder::create(job.fs, job.path.clone(), job.number, job.table)?);
        }
        let builder = builder.as_mut().expect("made above");
        // All keys of a small table, which may be few removes of large values, and some of a large one.
        let sampled = keys < EXACT_KEYS || keys.is_multiple_of(SAMPLED_ONE_IN);
        if !job.bottom && sampled {
            let weight = if keys < EXACT_KEYS { 1 } else { SAMPLED_ONE_IN };
            builder.hides(weight * (job.older_bytes)(&key));
        }
        keys += 1;
        builder.add(&key, &reduced.fragments)?;
    }
    let meta = builder.map(|builder| builder.finish(job.sequences.0, job.sequences.1)).transpose()?;
    Ok(Outcome { meta, folds_refused })
}
