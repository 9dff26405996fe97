//! Damage: looking for it, telling of it, and giving up what was repaired from elsewhere.
//!
//! In: a cursor and a budget; a span of keys that the caller wrote anew. Out: what is known to be damaged; an edit
//! of the manifest. Deliberately absent: the repair itself, since only the caller knows of other copies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Inner;
use crate::error::Error;
use crate::key_span::KeySpan;
use crate::levels::edit::Change;
use crate::metrics::Counters;
use crate::table::Table;
use crate::table::health::Damage;

/// Where a pass of the verifier goes on. The default is the start of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VerifyCursor {
    /// The table to go on with, or the next one there is.
    table: u64,
    /// Its next block.
    block: usize,
    /// Tables from this number on were made during the pass and wait for the next; 0 before the first step.
    behind: u64,
}

/// What one step of the verifier did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyProgress {
    /// Where to go on; `None` when the pass is over.
    pub cursor: Option<VerifyCursor>,
    /// Bytes read.
    pub bytes: u64,
    /// Blocks read.
    pub blocks: u64,
    /// Large values read.
    pub values: u64,
    /// What was found in this step and not known before.
    pub damage: Vec<Damage>,
}

impl Inner {
    pub(super) fn damaged(&self) -> Vec<Damage> {
        let shape = self.shape();
        let mut damage: Vec<Damage> = shape.tables.iter().flat_map(|table| table.health().damage()).collect();
        damage.sort_by_key(|damage| damage.number);
        damage
    }

    pub(super) fn excise(&self, keys: &KeySpan, seen: u64) -> Result<usize, Error> {
        self.check_usable()?;
        // Held until memory agrees with the manifest: no table comes or goes meanwhile.
        let mut ledger = self.ledger.lock();
        let shape = self.shape();
        let pieces: Vec<(&Arc<Table>, Vec<KeySpan>)> =
            shape.tables.iter().map(|table| (table, table.health().excisable(keys, seen))).collect();
        let edit = |(table, spans): &(&Arc<Table>, Vec<KeySpan>)| {
            let table = table.meta().number;
            let excise = |keys: &KeySpan| Change::Excise { table, keys: keys.clone() };
            spans.iter().map(excise).collect::<Vec<_>>()
        };
        let changes: Vec<Change> = pieces.iter().flat_map(edit).collect();
        if changes.is_empty() {
            return Ok(0);
        }
        self.record(&mut ledger, &changes, None)?;
        for (table, spans) in pieces.into_iter().filter(|(_, spans)| !spans.is_empty()) {
            table.health().excise(spans);
        }
        drop(ledger);
        Counters::add(&self.counters.excised_pieces, changes.len() as u64);
        // Tables that were set aside may be compacted again.
        self.after_install();
        Ok(changes.len())
    }

    pub(super) fn verify_some(
        &self,
        mut cursor: VerifyCursor,
        budget_bytes: u64,
    ) -> Result<VerifyProgress, Error> {
        self.check_usable()?;
        if cursor.behind == 0 {
            cursor.behind = self.next_file.load(Ordering::Relaxed);
        }
        let seen = self.damage_numbers.last();
        let shape = self.shape();
        let left = shape.tables.iter().map(|table| (table.meta().number, table));
        let left: BTreeMap<u64, &Arc<Table>> =
            left.filter(|(number, _)| (cursor.table..cursor.behind).contains(number)).collect();
        let mut progress = VerifyProgress::default();
        'budget: for (number, table) in left {
            if number != cursor.table {
                cursor = VerifyCursor { table: number, block: 0, ..cursor };
                progress.bytes += table.verify_description();
            }
            while cursor.block < table.index().len() {
                if progress.bytes >= budget_bytes && progress.blocks > 0 {
                    progress.cursor = Some(cursor);
                    break 'budget;
                }
                self.check_usable()?;
                let (bytes, values) = table.verify_block(cursor.block)?;
                cursor.block += 1;
                progress.bytes += bytes;
                progress.blocks += 1;
                progress.values += values;
            }
        }
        progress.damage = self.damaged().into_iter().filter(|damage| damage.number > seen).collect();
        Counters::add(&self.counters.verified_bytes, progress.bytes);
        Counters::add(&self.counters.verify_passes, u64::from(progress.cursor.is_none()));
        self.background.wake();
        Ok(progress)
    }
}
