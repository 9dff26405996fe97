//! What the engine counts.
//!
//! In: increments from the log thread, flushes, compactions and reads. Out: a plain snapshot. Deliberately
//! absent: names and formats of any monitoring system.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        #[derive(Default)]
        pub(crate) struct Counters { $(pub(crate) $name: AtomicU64),* }

        /// A snapshot of the engine's counters and sizes.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Metrics {
            $($(#[$doc])* pub $name: u64,)*
            /// Bytes in the active memtable.
            pub memtable_bytes: u64,
            /// Frozen memtables that wait for their flush.
            pub memtables_frozen: u64,
            /// Tables in use.
            pub tables: u64,
            /// Their bytes on disk.
            pub table_bytes: u64,
            /// Bytes waiting for the log.
            pub queue_bytes: u64,
            /// Bytes held by the block and value cache.
            pub cache_bytes: u64,
            /// Blocks and values that are known to be damaged, and neither given up nor written anew.
            pub damaged_pieces: u64,
            /// The last failure of background work that did not poison the database, empty if none.
            pub background_error: String,
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Metrics {
                Metrics { $($name: self.$name.load(Ordering::Relaxed),)* ..Metrics::default() }
            }
        }
    };
}

counters! {
    /// Group commits.
    commit_groups,
    /// Writes committed.
    writes,
    /// Operations in them.
    ops,
    /// Bytes that callers submitted.
    ingested_bytes,
    /// Bytes written to logs.
    log_bytes,
    /// Syncs of the log.
    log_syncs,
    /// Writes refused because too much was waiting.
    overloaded,
    /// Flushes of a memtable.
    flushes,
    /// Bytes that flushes wrote.
    flushed_bytes,
    /// Compactions.
    compactions,
    /// Bytes that compactions wrote.
    compacted_bytes,
    /// Keys whose fragments the caller's fold refused to join in the background.
    folds_refused,
    /// Reads that asked tables.
    table_lookups,
    /// Table lookups that a filter answered.
    filter_skips,
    /// Blocks and values found in the cache.
    cache_hits,
    /// Blocks and values that were not, and had to be read from files.
    file_reads,
    /// Bytes that the verifier has read.
    verified_bytes,
    /// Times that the verifier came to the end of all tables.
    verify_passes,
    /// Damaged pieces that were given up after their repair.
    excised_pieces,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }
}
