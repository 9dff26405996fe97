//! One budget of memory for blocks and values that were read from tables.
//!
//! In: decoded blocks and bodies, by table and offset. Out: the same, for a while. Deliberately absent:
//! reading. Tables decide what is admitted, and scans admit nothing.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use quick_cache::sync::{Cache as QuickCache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use crate::metrics::Metrics;
use crate::table::block::Block;

/// Where in which table something was read.
type Place = (u64, u64);

#[derive(Clone)]
pub(crate) enum Cached {
    Block(Arc<Block>),
    Body(Bytes),
}

/// What an entry costs beside its bytes.
const ENTRY_OVERHEAD_BYTES: u64 = 96;
/// However much indexes and filters take, this share of the budget stays for data.
const DATA_SHARE: u64 = 4;

#[derive(Clone)]
struct ByBytes;

impl Weighter<Place, Cached> for ByBytes {
    fn weight(&self, _place: &Place, cached: &Cached) -> u64 {
        let bytes = match cached {
            Cached::Block(block) => block.len(),
            Cached::Body(body) => body.len(),
        };
        bytes as u64 + ENTRY_OVERHEAD_BYTES
    }
}

/// A fixed hash: what is evicted, and so what a read finds, is the same in every run of a simulation.
#[derive(Clone, Default)]
struct FixedHash;

struct PlaceHasher(u64);

impl BuildHasher for FixedHash {
    type Hasher = PlaceHasher;

    fn build_hasher(&self) -> PlaceHasher {
        PlaceHasher(0)
    }
}

impl Hasher for PlaceHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, part: u64) {
        self.0 = (self.0.rotate_left(23) ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ (mixed >> 32)
    }
}

pub(crate) struct Cache {
    entries: QuickCache<Place, Cached, ByBytes, FixedHash>,
    budget_bytes: u64,
}

/// Fixed, so that behaviour does not depend on the machine's cores.
const SHARDS: usize = 8;

impl Cache {
    pub(crate) fn new(budget_bytes: u64) -> Cache {
        let options = OptionsBuilder::new()
            .estimated_items_capacity((budget_bytes / 4096).max(16) as usize)
            .weight_capacity(budget_bytes)
            .shards(SHARDS)
            .build()
            .expect("both capacities are set");
        let entries = QuickCache::with_options(options, ByBytes, FixedHash, DefaultLifecycle::default());
        Cache { entries, budget_bytes }
    }

    /// Charges memory that tables hold anyway, indexes and filters, to the same budget.
    pub(crate) fn reserve(&self, resident_bytes: u64) {
        let left = self.budget_bytes.saturating_sub(resident_bytes);
        self.entries.set_capacity(left.max(self.budget_bytes / DATA_SHARE));
    }

    pub(crate) fn block(&self, table: u64, offset: u64) -> Option<Arc<Block>> {
        match self.entries.get(&(table, offset))? {
            Cached::Block(block) => Some(block),
            Cached::Body(_) => None,
        }
    }

    pub(crate) fn body(&self, table: u64, offset: u64) -> Option<Bytes> {
        match self.entries.get(&(table, offset))? {
            Cached::Body(body) => Some(body),
            Cached::Block(_) => None,
        }
    }

    pub(crate) fn insert(&self, table: u64, offset: u64, cached: Cached) {
        self.entries.insert((table, offset), cached);
    }

    pub(crate) fn report(&self, metrics: &mut Metrics) {
        metrics.cache_bytes = self.entries.weight();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_goes_and_what_tables_hold_is_charged() {
        let cache = Cache::new(64 << 10);
        let fill =
            || (0..1000u64).for_each(|at| cache.insert(1, at, Cached::Body(Bytes::from(vec![0; 1000]))));
        fill();
        let mut metrics = Metrics::default();
        cache.report(&mut metrics);
        assert!((20 << 10..=64 << 10).contains(&metrics.cache_bytes), "{metrics:?}");
        cache.reserve(48 << 10);
        fill();
        cache.report(&mut metrics);
        assert!(metrics.cache_bytes <= 16 << 10, "{metrics:?}");
        assert_eq!(cache.body(2, 0), None);
    }
}
