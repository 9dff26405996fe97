//! What may be chosen when a database is opened.
//!
//! In: the caller's wishes. Out: `Options`, whose `Default` is what a server should use. Deliberately
//! absent: anything per keyspace (durability travels with each write).

use std::time::Duration;

/// Who does the background work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Background {
    /// One log thread, one flush thread, and this many threads for compaction.
    Threads {
        /// Compactions that may run at once; at least 1.
        compaction: usize,
    },
    /// No threads: [`Db::step`](crate::Db::step) does one unit of work at a time, for simulation.
    Stepped,
}

/// Settings of a database. Sizes are targets, not exact bounds.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who does the background work.
    pub background: Background,
    /// What a thread for compactions does first, such as lowering its priority. Those of log and flushes, for which
    /// writers wait, do not.
    pub begin_thread: fn(),
    /// A memtable is frozen and flushed once it holds so many bytes.
    pub memtable_bytes: usize,
    /// Frozen memtables that may wait for their flush before commits wait.
    pub memtables_frozen_max: usize,
    /// Log files are pre-allocated to this size.
    pub log_file_bytes: u64,
    /// Log files that are kept for reuse instead of being deleted.
    pub log_files_recycled_max: usize,
    /// Writes with `Durability::Interval` are synced at latest after this.
    pub sync_interval: Duration,
    /// Bytes that may wait for the log; beyond that writes complete with `Error::Overloaded`.
    pub queue_bytes_max: usize,
    /// A group commit takes at most about this many bytes.
    pub group_bytes_max: usize,
    /// One budget for cached blocks and values; indexes and filters are charged to it.
    pub cache_bytes: u64,
    /// Target size of an uncompressed data block.
    pub block_bytes: usize,
    /// Bodies of at least this size are compressed once and stored outside the data blocks.
    pub large_value_bytes: usize,
    /// zstd level for large values (negative levels are the fast ones).
    pub value_zstd_level: i32,
    /// zstd level for data blocks of young tables.
    pub block_zstd_level: i32,
    /// zstd level for data blocks of the oldest table, which are rewritten least.
    pub bottom_zstd_level: i32,
    /// Filter bits per key; 10 gives about 1 % false positives. 0 writes no filters.
    pub bloom_bits: usize,
    /// Seed of filter and log checksums. Kept in the manifest: only the first open's choice counts.
    pub hash_seed: u64,
    /// Runs of similar size that are merged into one (the T of size-tiered T4).
    pub tier_fanout: usize,
    /// Part of the tables, in percent, that must be overwritten or removed before they are merged for the sake of space.
    pub garbage_percent: u64,
    /// The same while little is written: then a merge takes nothing from anybody.
    pub garbage_percent_idle: u64,
    /// How often in a row the compaction finds nothing to do, about once a second, before little is written.
    pub idle_looks: u32,
    /// A manifest that has grown beyond this, and beyond a few times what it says, is written anew.
    pub manifest_bytes_max: u64,
    /// Sorted runs at which writers are slowed as far as they ever are.
    pub runs_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            background: Background::Threads { compaction: 1 },
            begin_thread: || (),
            memtable_bytes: 64 << 20,
            memtables_frozen_max: 4,
            log_file_bytes: 64 << 20,
            log_files_recycled_max: 1,
            sync_interval: Duration::from_millis(10),
            queue_bytes_max: 64 << 20,
            group_bytes_max: 8 << 20,
            cache_bytes: 128 << 20,
            block_bytes: 4 << 10,
            large_value_bytes: 2 << 10,
            value_zstd_level: -1,
            block_zstd_level: -1,
            bottom_zstd_level: 1,
            bloom_bits: 10,
            hash_seed: 0x6d65_7267_616e_7365,
            tier_fanout: 4,
            runs_max: 32,
            garbage_percent: 60,
            garbage_percent_idle: 20,
            idle_looks: 30,
            manifest_bytes_max: 4 << 20,
        }
    }
}

impl Options {
    /// Small sizes and no threads: what a simulated node should use.
    pub fn stepped() -> Options {
        Options {
            background: Background::Stepped,
            memtable_bytes: 64 << 10,
            log_file_bytes: 64 << 10,
            cache_bytes: 1 << 20,
            idle_looks: 1_000,
            ..Options::default()
        }
    }
}
