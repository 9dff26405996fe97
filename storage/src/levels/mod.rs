//! Which tables and logs make up the database, and the log of changes to that.
//!
//! In: edits. Out: the state that they add up to, durably. `edit` knows the bytes of one change, `manifest`
//! those of the file. The order is always: file synced, directory synced, edit synced, installed.
//! Deliberately absent: open tables (`db::shape`) and the choice what to change (`compaction`).

pub(crate) mod edit;
pub(crate) mod manifest;

use std::collections::BTreeMap;

use crate::key_span::{self, KeySpan};
use crate::table::TableMeta;
use edit::Change;

/// What the manifest's edits add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Levels {
    pub(crate) hash_seed: u64,
    /// By file number.
    pub(crate) tables: BTreeMap<u64, TableMeta>,
    /// Logs below this number are not needed.
    pub(crate) log_floor: u64,
    /// Sequence of the last write that is in tables.
    pub(crate) sequence_flushed: u64,
    /// What was given up, by table; in order and apart.
    pub(crate) excised: BTreeMap<u64, Vec<KeySpan>>,
}

impl Levels {
    /// The same state as one edit.
    pub(crate) fn snapshot(&self) -> Vec<Change> {
        let mut changes = vec![
            Change::HashSeed(self.hash_seed),
            Change::LogFloor(self.log_floor),
            Change::SequenceFlushed(self.sequence_flushed),
        ];
        changes.extend(self.tables.values().cloned().map(|meta| Change::AddTable(Box::new(meta))));
        for (table, spans) in &self.excised {
            changes.extend(spans.iter().map(|keys| Change::Excise { table: *table, keys: keys.clone() }));
        }
        changes
    }

    /// Applies an edit. The text says what in it contradicts the state.
    pub(crate) fn apply(&mut self, changes: &[Change]) -> Result<(), String> {
        for change in changes {
            match change {
                Change::HashSeed(seed) => self.hash_seed = *seed,
                Change::LogFloor(number) if *number < self.log_floor => {
                    return Err(format!("the log floor goes back to {number}"));
                }
                Change::LogFloor(number) => self.log_floor = *number,
                Change::SequenceFlushed(sequence) => self.sequence_flushed = *sequence,
                Change::AddTable(meta) => {
                    if self.tables.insert(meta.number, meta.as_ref().clone()).is_some() {
                        return Err(format!("table {} is added twice", meta.number));
                    }
                }
                Change::RemoveTable(number) => {
                    if self.tables.remove(number).is_none() {
                        return Err(format!("table {number} is removed but was never added"));
                    }
                    self.excised.remove(number);
                }
                Change::Excise { table, .. } if !self.tables.contains_key(table) => {
                    return Err(format!("keys of table {table} are given up but it was never added"));
                }
                Change::Excise { table, keys } => {
                    key_span::add(self.excised.entry(*table).or_default(), keys.clone());
                }
            }
        }
        Ok(())
    }

    /// Tables from newest to oldest; the text says which two overlap in time.
    pub(crate) fn newest_first(&self) -> Result<Vec<TableMeta>, String> {
        let mut tables: Vec<TableMeta> = self.tables.values().cloned().collect();
        tables.sort_by_key(|meta| std::cmp::Reverse(meta.properties.sequence_last));
        for pair in tables.windows(2) {
            if pair[0].properties.sequence_first <= pair[1].properties.sequence_last {
                return Err(format!("tables {} and {} overlap in time", pair[0].number, pair[1].number));
            }
        }
        Ok(tables)
    }
}
