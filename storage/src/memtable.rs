//! The newest part of the data, in memory and ordered.
//!
//! In: operations as the log has them, in log order, from one writer. Out: fragments of a key, newest first,
//! and ordered walks. Keys and small values are slices of the log frame they were written with, so an insert
//! allocates nothing of its own. Deliberately absent: durability (the log) and snapshots of single keys in
//! time: one record per key, newer operations replace or stack.

use std::collections::btree_map::{self as map, BTreeMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard};
use xxhash_rust::xxh3::xxh3_64;

use crate::fragment::{Body, Fragment, Kind, Value, reduce};
use crate::map_key::{MapKey, Placed, Sought};
use crate::record::{Fold, Winner};

const SHARDS: usize = 16;
/// What a map entry costs beside the frame bytes.
const ENTRY_OVERHEAD_BYTES: usize = 128;
/// Stacks of this height are folded while inserting, so that a hot key's reads stay cheap.
const STACK_MAX: usize = 32;

/// Heads up to this length are offered to be folded at once.
const SMALL_HEAD_BYTES_MAX: usize = 64;

/// One key's stack. `older` is empty for nearly all keys and then allocates nothing.
struct Entry {
    newest: Fragment,
    /// Oldest first, so that a push is cheap.
    older: Vec<Fragment>,
}

impl Entry {
    fn fragments(&self) -> Vec<Fragment> {
        std::iter::once(&self.newest).chain(self.older.iter().rev()).cloned().collect()
    }
}

pub(crate) type Group = (Bytes, Vec<Fragment>);

/// An ordered map in shards, so that readers rarely meet the writer.
pub(crate) struct Memtable {
    shards: [RwLock<BTreeMap<MapKey, Entry>>; SHARDS],
    bytes: AtomicUsize,
    /// The log whose operations are in here.
    pub(crate) log_number: u64,
    /// Sequence of the first write that may be in here.
    pub(crate) sequence_first: u64,
}

impl Memtable {
    pub(crate) fn new(log_number: u64, sequence_first: u64) -> Memtable {
        Memtable {
            shards: std::array::from_fn(|_| RwLock::default()),
            bytes: AtomicUsize::new(0),
            log_number,
            sequence_first,
        }
    }

    fn shard(&self, key: &[u8]) -> &RwLock<BTreeMap<MapKey, Entry>> {
        &self.shards[xxh3_64(key) as usize % SHARDS]
    }

    /// Memory held, estimated from above: frames stay while any of their entries does.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn keys(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.read().is_empty())
    }

    /// Charges a log frame that entries point into.
    pub(crate) fn charge(&self, frame_bytes: usize) {
        self.bytes.fetch_add(frame_bytes, Ordering::Relaxed);
    }

    /// `pack` turns a folded body into a stored one.
    pub(crate) fn insert(
        &self,
        key: Bytes,
        fragment: Fragment,
        fold: &dyn Fold,
        pack: &mut dyn FnMut(Bytes) -> Body,
    ) {
        let mut shard = self.shard(&key).write();
        let entry = match shard.entry(MapKey::new(key.clone())) {
            map::Entry::Vacant(place) => {
                self.charge(ENTRY_OVERHEAD_BYTES);
                place.insert(Entry { newest: fragment, older: Vec::new() });
                return;
            }
            map::Entry::Occupied(place) => place.into_mut(),
        };
        if fragment.is_complete() {
            *entry = Entry { newest: fragment, older: Vec::new() };
            return;
        }
        if let (Some(newer), Some(older)) = (small_head(&fragment), small_head(&entry.newest))
            && let Some(head) = fold.fold_at_once(&key, newer, older)
        {
            // The older one's kind stays: what a put and a merge make is complete.
            entry.newest.head = head;
            return;
        }
        if entry.newest.kind != Kind::Remove
            && let Some(winner) = fold.wins(&key, &fragment.head, &entry.newest.head)
        {
            // As above: the kind stays.
            if winner == Winner::Newer {
                entry.newest = Fragment { kind: entry.newest.kind, ..fragment };
            }
            return;
        }
        self.charge(ENTRY_OVERHEAD_BYTES);
        let previous = std::mem::replace(&mut entry.newest, fragment);
        entry.older.push(previous);
        if entry.older.len() % STACK_MAX == 0 {
            self.charge(shrink(&key, entry, fold, pack));
        }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Vec<Fragment> {
        let shard = self.shard(key).read();
        shard.get(&Sought::new(key) as &dyn Placed).map(Entry::fragments).unwrap_or_default()
    }

    /// The only fragment that matters, without a stack's allocation, for the common read.
    pub(crate) fn get_complete(&self, key: &[u8]) -> Option<Fragment> {
        let shard = self.shard(key).read();
        let entry = shard.get(&Sought::new(key) as &dyn Placed);
        entry.map(|entry| &entry.newest).filter(|newest| newest.is_complete()).cloned()
    }

    /// Up to `max` keys after `from`, in order. Writers wait meanwhile, so `max` is small.
    pub(crate) fn page(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, max: usize) -> Vec<Group> {
        if range_is_empty(from, to) {
            return Vec::new();
        }
        let shards: Vec<RwLockReadGuard<'_, BTreeMap<MapKey, Entry>>> =
            self.shards.iter().map(|shard| shard.read()).collect();
        let (from, to) = (from.map(Sought::new), to.map(Sought::new));
        let bounds = (placed(&from), placed(&to));
        let mut walks: Vec<_> =
            shards.iter().map(|shard| shard.range::<dyn Placed, _>(bounds).peekable()).collect();
        let mut page = Vec::new();
        while page.len() < max {
            let first = walks.iter_mut().enumerate().filter_map(|(i, walk)| Some((walk.peek()?.0, i))).min();
            let Some((_, shard)) = first else { break };
            let (key, entry) = walks[shard].next().expect("the walk was peeked");
            page.push((key.key().clone(), entry.fragments()));
        }
        page
    }
}

fn placed<'a>(bound: &'a Bound<Sought<'_>>) -> Bound<&'a (dyn Placed + 'a)> {
    bound.as_ref().map(|key| key as &dyn Placed)
}

/// The head of a fragment that is small, has no body and is state.
fn small_head(fragment: &Fragment) -> Option<&Bytes> {
    let Value::Held(body) = &fragment.value else { return None };
    let small = body.raw_len == 0 && fragment.head.len() <= SMALL_HEAD_BYTES_MAX;
    (small && fragment.kind != Kind::Remove).then_some(&fragment.head)
}

/// `BTreeMap::range` panics on ranges that end before they start; bounds come from callers.
fn range_is_empty(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Included(a), Bound::Included(b)) => a > b,
        (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => a >= b,
        _ => false,
    }
}

/// Folds a stack; how many bytes that takes beside the frames, which stay.
fn shrink(key: &Bytes, entry: &mut Entry, fold: &dyn Fold, pack: &mut dyn FnMut(Bytes) -> Body) -> usize {
    // A refusal leaves the stack as it is; it is tried again when the stack has grown as much again.
    let Ok(reduced) = reduce(key, entry.fragments(), false, fold, pack) else { return 0 };
    if reduced.fold_failed {
        return 0;
    }
    let mut fragments = reduced.fragments.into_iter();
    let Some(newest) = fragments.next() else { return 0 };
    debug_assert!(newest.kind != Kind::Remove, "a merge stack never reduces to a remove");
    let body_bytes = match &newest.value {
        Value::Held(body) => body.stored.len(),
        Value::At(..) => 0,
    };
    let bytes = newest.head.len() + body_bytes;
    *entry = Entry { newest, older: fragments.rev().collect() };
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fragment::Body;
    use crate::record::{FoldError, NewestWins, Record};

    fn fragment(kind: Kind, head: &'static str) -> Fragment {
        Fragment { kind, head: Bytes::from(head), value: Value::Held(Body::default()) }
    }

    fn heads(fragments: &[Fragment]) -> Vec<Bytes> {
        fragments.iter().map(|fragment| fragment.head.clone()).collect()
    }

    #[test]
    fn fragments_stack_newest_first_until_a_complete_one_hides_them() {
        let table = Memtable::new(1, 1);
        for (kind, head) in [(Kind::Put, "a"), (Kind::Merge, "b"), (Kind::Merge, "c")] {
            table.insert(Bytes::from("k"), fragment(kind, head), &NewestWins, &mut Body::raw);
        }
        assert_eq!(heads(&table.get(b"k")), ["c", "b", "a"]);
        table.insert(Bytes::from("k"), Fragment::remove(), &NewestWins, &mut Body::raw);
        assert_eq!(table.get(b"k").len(), 1);
        assert!(table.get(b"other").is_empty());
    }

    #[test]
    fn a_tall_stack_is_folded() {
        let table = Memtable::new(1, 1);
        for _ in 0..100 {
            table.insert(Bytes::from("k"), fragment(Kind::Merge, "x"), &NewestWins, &mut Body::raw);
        }
        assert!(table.get(b"k").len() <= STACK_MAX + 1);
    }

    /// Strings heads together at once, but none of the key `apart`.
    struct AtOnce;

    impl Fold for AtOnce {
        fn fold(&self, _key: &[u8], _newest_first: &[Record]) -> Result<Record, FoldError> {
            Err(FoldError("not needed".into()))
        }

        fn fold_at_once(&self, key: &[u8], newer: &Bytes, older: &Bytes) -> Option<Bytes> {
            (key != b"apart").then(|| [&older[..], newer].concat().into())
        }
    }

    #[test]
    fn small_fragments_without_a_body_are_folded_at_once_where_the_caller_can() {
        let table = Memtable::new(1, 1);
        let insert =
            |key: &'static str, fragment| table.insert(Bytes::from(key), fragment, &AtOnce, &mut Body::raw);
        for head in ["a", "b", "c"] {
            insert("counter", fragment(Kind::Merge, head));
            insert("apart", fragment(Kind::Merge, head));
        }
        assert_eq!(heads(&table.get(b"counter")), ["abc"]);
        assert_eq!(table.get(b"counter")[0].kind, Kind::Merge, "what is older in tables still counts");
        assert_eq!(heads(&table.get(b"apart")), ["c", "b", "a"]);
        insert("put", fragment(Kind::Put, "a"));
        insert("put", fragment(Kind::Merge, "b"));
        assert_eq!((heads(&table.get(b"put")), table.get(b"put")[0].kind), (vec!["ab".into()], Kind::Put));
        // A remove is no state, a body is not small.
        insert("put", Fragment::remove());
        insert("put", fragment(Kind::Merge, "c"));
        assert_eq!(heads(&table.get(b"put")), ["c", ""]);
        let body = Value::Held(Body::raw(Bytes::from("body")));
        insert("counter", Fragment { kind: Kind::Merge, head: Bytes::from("d"), value: body });
        assert_eq!(heads(&table.get(b"counter")), ["d", "abc"]);
    }

    #[test]
    fn pages_are_ordered_over_all_shards() {
        let table = Memtable::new(1, 1);
        for n in [5u8, 1, 9, 3, 7] {
            table.insert(Bytes::copy_from_slice(&[n]), fragment(Kind::Put, "h"), &NewestWins, &mut Body::raw);
        }
        let page = table.page(Bound::Excluded(&[1]), Bound::Included(&[7]), 2);
        let keys: Vec<u8> = page.iter().map(|(key, _)| key[0]).collect();
        assert_eq!(keys, [3, 5]);
        assert!(table.page(Bound::Excluded(&[3]), Bound::Excluded(&[3]), 9).is_empty());
    }
}
