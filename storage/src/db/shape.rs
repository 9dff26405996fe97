//! What the data consists of at one moment: memtables and tables, newest first.
//!
//! In: the changes that freezing, flushing and compacting make. Out: a new shape; the old one lives as long
//! as a reader holds it. Deliberately absent: locks and I/O.

use std::sync::Arc;

use crate::memtable::Memtable;
use crate::table::Table;

/// An immutable list of where data is. Only the active memtable's contents change.
pub(super) struct Shape {
    pub(super) active: Arc<Memtable>,
    /// Newest first.
    pub(super) frozen: Vec<Arc<Memtable>>,
    /// Newest first; their sequence ranges do not overlap.
    pub(super) tables: Vec<Arc<Table>>,
}

impl Shape {
    pub(super) fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(&self.frozen)
    }

    pub(super) fn table_bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.meta().file_bytes).sum()
    }

    /// The active memtable freezes, `active` takes its place.
    pub(super) fn frozen_into(&self, active: Arc<Memtable>) -> Shape {
        let mut frozen = self.frozen.clone();
        frozen.insert(0, self.active.clone());
        Shape { active, frozen, tables: self.tables.clone() }
    }

    /// The oldest frozen memtable became a table, or nothing at all.
    pub(super) fn flushed(&self, memtable: &Arc<Memtable>, table: Option<Arc<Table>>) -> Shape {
        let mut frozen = self.frozen.clone();
        let oldest = frozen.pop().expect("a flush takes a frozen memtable");
        assert!(Arc::ptr_eq(&oldest, memtable), "memtables are flushed oldest first");
        let tables = table.into_iter().chain(self.tables.iter().cloned()).collect();
        Shape { active: self.active.clone(), frozen, tables }
    }

    /// Adjacent tables became one, or nothing at all.
    pub(super) fn compacted(&self, inputs: &[Arc<Table>], output: Option<Arc<Table>>) -> Shape {
        let is_input = |table: &Arc<Table>| inputs.iter().any(|input| Arc::ptr_eq(input, table));
        let first = self.tables.iter().position(is_input).expect("inputs of a compaction are in the shape");
        let mut tables: Vec<Arc<Table>> =
            self.tables.iter().filter(|table| !is_input(table)).cloned().collect();
        assert_eq!(tables.len() + inputs.len(), self.tables.len(), "every input is taken out once");
        if let Some(output) = output {
            tables.insert(first, output);
        }
        Shape { active: self.active.clone(), frozen: self.frozen.clone(), tables }
    }
}
