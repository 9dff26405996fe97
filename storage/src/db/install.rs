//! Do and apply: memtables become tables, tables become one, and the manifest and the shape say so.
//!
//! In: frozen memtables and runs that were chosen. Out: tables in the manifest and then in the shape. A
//! failure leaves everything as it was. Deliberately absent: whose turn it is (`background`), the choice
//! (`compaction::pick`) and the merge (`compaction::run`).

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Inner;
use super::background::{LOOK_AGAIN, Work};
use super::commit::pack;
use super::shape::Shape;
use crate::compaction::pick::{Garbage, Run, Tiers, alone, hiding, pick, whole_stretch};
use crate::compaction::run::{Job, run};
use crate::error::Error;
use crate::levels::Levels;
use crate::levels::edit::Change;
use crate::levels::manifest::{self, ManifestWriter};
use crate::memtable::Memtable;
use crate::merge::{MemtableSource, Source};
use crate::metrics::Counters;
use crate::names;
use crate::table::builder::TableOptions;
use crate::table::source::TableSource;
use crate::table::{Table, TableMeta};

/// What must change together: the manifest, and what it says.
pub(super) struct Ledger {
    pub(super) manifest: ManifestWriter,
    pub(super) levels: Levels,
}

impl Inner {
    /// Flushes the oldest frozen memtable, if there is one.
    pub(super) fn try_flush_one(&self) -> Result<bool, Error> {
        self.check_poison()?;
        let flushed = self.flush_oldest();
        self.background.set_flush_failure(flushed.as_ref().err().cloned());
        flushed
    }

    fn flush_oldest(&self) -> Result<bool, Error> {
        let _flushing = self.background.flushing.lock();
        let shape = self.shape();
        let Some(memtable) = shape.frozen.last() else { return Ok(false) };
        let newer = shape.frozen.iter().rev().nth(1).unwrap_or(&shape.active);
        let sequences = (memtable.sequence_first, newer.sequence_first - 1);
        let source: Box<dyn Source> =
            Box::new(MemtableSource::new(memtable.clone(), Bound::Unbounded, Bound::Unbounded));
        // A first table will soon be rewritten, whatever lies below it: the fast level.
        let level = self.options.block_zstd_level;
        let table = self.merge_into_table(vec![source], &shape.tables, sequences, level)?;
        let bytes = table.as_ref().map_or(0, |table| table.meta().file_bytes);
        self.install_flush(memtable, newer.log_number, sequences.1, table)?;
        Counters::add(&self.counters.flushes, 1);
        Counters::add(&self.counters.flushed_bytes, bytes);
        Ok(true)
    }

    fn install_flush(
        &self,
        memtable: &Arc<Memtable>,
        log_floor: u64,
        sequence_flushed: u64,
        table: Option<Arc<Table>>,
    ) -> Result<(), Error> {
        let mut changes = vec![Change::LogFloor(log_floor), Change::SequenceFlushed(sequence_flushed)];
        changes.extend(table.iter().map(|table| Change::AddTable(Box::new(table.meta().clone()))));
        let mut ledger = self.ledger.lock();
        self.record(&mut ledger, &changes, table.as_deref())?;
        let mut shape = self.shape.write();
        *shape = Arc::new(shape.flushed(memtable, table));
        drop(shape);
        drop(ledger);
        let log = names::log(&self.dir, memtable.log_number);
        let mut spare_logs = self.spare_logs.lock();
        if spare_logs.len() < self.options.log_files_recycled_max {
            spare_logs.push(log);
        } else {
            self.discard(&log);
        }
        drop(spare_logs);
        self.after_install();
        Ok(())
    }

    /// Makes an edit durable. On failure the table that it would have added is taken away again.
    pub(super) fn record(
        &self,
        ledger: &mut Ledger,
        changes: &[Change],
        added: Option<&Table>,
    ) -> Result<(), Error> {
        let mut levels = ledger.levels.clone();
        levels.apply(changes).expect("our own edits fit our own state");
        let appended = self.check_poison().and_then(|()| ledger.manifest.append(changes));
        match appended {
            Ok(()) => ledger.levels = levels,
            Err(Error::Poisoned { cause }) => return Err(self.poison(&Error::Poisoned { cause })),
            Err(error) => {
                if let Some(table) = added {
                    self.discard(table.path());
                }
                return Err(error);
            }
        }
        self.roll_manifest(ledger)
    }

    /// Replaces a manifest that has grown long by a snapshot. That may fail: the old one goes on.
    fn roll_manifest(&self, ledger: &mut Ledger) -> Result<(), Error> {
        if !ledger.manifest.is_long(self.options.manifest_bytes_max) {
            return Ok(());
        }
        let number = self.new_file_number();
        match ManifestWriter::create(self.fs.as_ref(), &self.dir, number, &ledger.levels) {
            Ok(manifest) => {
                let old = std::mem::replace(&mut ledger.manifest, manifest);
                self.discard(old.path());
            }
            Err(error @ Error::Poisoned { .. }) => return Err(self.poison(&error)),
            // Not pointed to, unless the pointer says so: then edits of the old one would be lost.
            Err(error)
                if manifest::current(self.fs.as_ref(), &self.dir).is_ok_and(|at| at != Some(number)) =>
            {
                tracing::warn!(%error, "could not write the manifest anew; the old one grows on");
            }
            Err(error) => return Err(self.poison(&error)),
        }
        Ok(())
    }

    pub(super) fn after_install(&self) {
        let shape = self.shape();
        self.cache.reserve(shape.tables.iter().map(|table| table.resident_bytes()).sum());
        self.background.retry_failed_work();
        self.background.wake();
    }

    /// Takes a file's name away. What stays is an orphan, which the next open removes.
    pub(super) fn discard(&self, path: &Path) {
        if let Err(error) = self.fs.unlink(path) {
            tracing::warn!(file = %path.display(), %error, "could not remove a file that is no longer needed");
        }
    }

    pub(super) fn try_compact_one(&self) -> Result<bool, Error> {
        self.check_poison()?;
        let Some(inputs) = self.claim_compaction() else { return Ok(false) };
        self.compact(inputs).map(|()| true)
    }

    /// Chooses runs and marks them, in one breath.
    fn claim_compaction(&self) -> Option<Vec<Arc<Table>>> {
        let mut work = self.background.work.lock();
        let shape = self.shape();
        let runs = self.runs(&shape, &work);
        let fanout = self.options.tier_fanout.max(2);
        let tiers = Tiers { base_bytes: self.options.memtable_bytes as u64, fanout };
        let frail = (0..runs.len()).filter(|at| shape.tables[*at].health().is_frail());
        let anew = frail.into_iter().find_map(|at| alone(&runs, at));
        let percent = if self.is_idle(&work) {
            self.options.garbage_percent_idle
        } else {
            self.options.garbage_percent
        };
        let garbage = Garbage { percent, bytes_min: self.options.memtable_bytes as u64 / 4 };
        // In this order: what fits is done, though something larger would come first.
        let choices = [anew, pick(&runs, tiers), hiding(&runs, garbage)];
        let range = choices.into_iter().flatten().find(|range| self.has_room_for(&runs[range.clone()]))?;
        let inputs = shape.tables[range].to_vec();
        work.busy.extend(inputs.iter().map(|table| table.meta().number));
        Some(inputs)
    }

    fn runs(&self, shape: &Shape, work: &Work) -> Vec<Run> {
        let as_run = |table: &Arc<Table>| Run {
            bytes: table.meta().file_bytes,
            aside: work.busy.contains(&table.meta().number) || table.health().is_damaged(),
            excised: table.health().has_excised(),
            hidden_bytes: table.meta().properties.hidden_bytes,
        };
        shape.tables.iter().map(as_run).collect()
    }

    /// Whether a merge of these runs fits on the disk beside them, with room for the memtables that will be flushed
    /// meanwhile. A merge that finds out at its end has taken that room from the writers, for nothing.
    fn has_room_for(&self, runs: &[Run]) -> bool {
        let bytes: u64 = runs.iter().map(|run| run.bytes).sum();
        let hidden: u64 = runs.iter().map(|run| run.hidden_bytes).sum();
        let output = bytes.saturating_sub(hidden).max(bytes / 16);
        // Where nobody can tell, it is tried.
        let available = self.fs.available_bytes(&self.dir).unwrap_or(u64::MAX);
        output.saturating_add(self.options.memtable_bytes as u64) <= available
    }

    /// Merges neighbours that were claimed, and releases them.
    fn compact(&self, inputs: Vec<Arc<Table>>) -> Result<(), Error> {
        let result = self.compact_claimed(&inputs);
        let mut work = self.background.work.lock();
        inputs.iter().for_each(|table| {
            work.busy.remove(&table.meta().number);
        });
        drop(work);
        if result.is_ok() {
            self.after_install();
        }
        result
    }

    fn compact_claimed(&self, inputs: &[Arc<Table>]) -> Result<(), Error> {
        let (newest, oldest) = (inputs.first().expect("some inputs"), inputs.last().expect("some inputs"));
        let shape = self.shape();
        let bottom = shape.tables.last().is_some_and(|last| Arc::ptr_eq(last, oldest));
        let sequences = (oldest.meta().properties.sequence_first, newest.meta().properties.sequence_last);
        let source = |table: &Arc<Table>| -> Box<dyn Source> {
            Box::new(TableSource::new(table.clone(), Bound::Unbounded, Bound::Unbounded))
        };
        let sources = inputs.iter().map(source).collect();
        if !bottom && inputs.iter().any(|table| table.health().has_excised()) {
            // Given up since the choice: what it hides is only forgotten together with all that is older.
            return Ok(());
        }
        let level = if bottom { self.options.bottom_zstd_level } else { self.options.block_zstd_level };
        let below = shape.tables.iter().position(|table| Arc::ptr_eq(table, oldest)).map_or(0, |at| at + 1);
        let output = self.merge_into_table(sources, &shape.tables[below..], sequences, level)?;
        let mut changes: Vec<Change> =
            inputs.iter().map(|table| Change::RemoveTable(table.meta().number)).collect();
        changes.extend(output.iter().map(|table| Change::AddTable(Box::new(table.meta().clone()))));
        let bytes = output.as_ref().map_or(0, |table| table.meta().file_bytes);
        let mut ledger = self.ledger.lock();
        self.record(&mut ledger, &changes, output.as_deref())?;
        let mut shape = self.shape.write();
        *shape = Arc::new(shape.compacted(inputs, output));
        drop(shape);
        drop(ledger);
        inputs.iter().for_each(|table| self.discard(table.path()));
        Counters::add(&self.counters.compactions, 1);
        Counters::add(&self.counters.compacted_bytes, bytes);
        Ok(())
    }

    /// Writes, syncs, names and opens a table; `None` when nothing was left to write.
    fn merge_into_table(
        &self,
        sources: Vec<Box<dyn Source>>,
        older: &[Arc<Table>],
        sequences: (u64, u64),
        zstd_level: i32,
    ) -> Result<Option<Arc<Table>>, Error> {
        let number = self.new_file_number();
        let path = names::table(&self.dir, number);
        let options = &self.options;
        let job = Job {
            fs: self.fs.as_ref(),
            fold: self.fold.as_ref(),
            path: path.clone(),
            number,
            table: TableOptions {
                block_bytes: options.block_bytes,
                large_value_bytes: options.large_value_bytes,
                zstd_level,
                bloom_bits: options.bloom_bits,
                hash_seed: self.hash_seed,
            },
            bottom: older.is_empty(),
            older_bytes: &|key| {
                let hash = xxh3_64_with_seed(key, self.hash_seed);
                let holds = |table: &&Arc<Table>| table.may_hold(key, hash, self.hash_seed);
                older.iter().find(holds).map_or(0, |table| table.meta().bytes_per_key())
            },
            sequences,
            pack: &|body| pack(options, body),
            cancelled: &|| self.is_closed(),
        };
        let outcome = run(&job, sources)?;
        Counters::add(&self.counters.folds_refused, outcome.folds_refused);
        outcome.meta.map(|meta| self.adopt(path, meta)).transpose()
    }

    /// Makes a finished table's name durable and opens it, which reads back what was written.
    fn adopt(&self, path: PathBuf, meta: TableMeta) -> Result<Arc<Table>, Error> {
        self.fs.sync_dir(&self.dir).map_err(|e| Error::failed_sync(&self.dir, e))?;
        let opened = Table::open(self.fs.as_ref(), &path, meta, &self.damage_numbers, Vec::new());
        let opened = opened.and_then(|table| match table.lost() {
            Some(error) => Err(error.clone()),
            None => Ok(table),
        });
        if opened.is_err() {
            self.discard(&path);
        }
        opened.map(Arc::new)
    }

    pub(super) fn flush(&self) -> Result<(), Error> {
        self.check_usable()?;
        let mut log = self.log.lock();
        self.rotate(&mut log)?;
        drop(log);
        self.background.retry_failed_work();
        let newest = self.shape().frozen.first().cloned();
        let Some(newest) = newest else { return Ok(()) };
        while self.shape().frozen.iter().any(|memtable| Arc::ptr_eq(memtable, &newest)) {
            // Several may flush; they take turns.
            self.try_flush_one().inspect_err(|error| self.note_failure(error))?;
        }
        Ok(())
    }

    pub(super) fn compact_all(&self) -> Result<(), Error> {
        self.flush()?;
        loop {
            self.check_usable()?;
            let mut work = self.background.work.lock();
            if !work.busy.is_empty() {
                self.background.changed.wait_for(&mut work, LOOK_AGAIN);
                continue;
            }
            let shape = self.shape();
            let has_removes = |at: usize| shape.tables[at].meta().properties.removes > 0;
            let Some(range) = whole_stretch(&self.runs(&shape, &work), has_removes) else { return Ok(()) };
            let inputs = shape.tables[range].to_vec();
            work.busy.extend(inputs.iter().map(|table| table.meta().number));
            drop(work);
            let seen = self.damage_numbers.last();
            if let Err(error) = self.compact(inputs) {
                self.note_failure(&error);
                // What is damaged is set aside now.
                if self.damage_numbers.last() == seen {
                    return Err(error);
                }
            }
        }
    }
}
