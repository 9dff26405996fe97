//! Many sorted sources as one.
//!
//! In: sources of key groups, newest source first. Out: each key once, its fragments newest first.
//! Deliberately absent: folding and the bounds of a range; sources know their own.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use crate::error::Error;
use crate::memtable::{Group, Memtable};

/// Keys in strictly increasing order, each with its fragments newest first.
pub(crate) trait Source: Send {
    fn next(&mut self) -> Result<Option<Group>, Error>;
}

/// The merge of sources.
pub(crate) struct Merged {
    sources: Vec<Box<dyn Source>>,
    /// The next group of each source; empty before the first call.
    next: Vec<Option<Group>>,
}

impl Merged {
    /// `sources` are ordered from newest to oldest.
    pub(crate) fn new(sources: Vec<Box<dyn Source>>) -> Merged {
        Merged { sources, next: Vec::new() }
    }

    pub(crate) fn next(&mut self) -> Result<Option<Group>, Error> {
        if self.next.is_empty() {
            self.next = self.sources.iter_mut().map(|source| source.next()).collect::<Result<_, _>>()?;
        }
        // Runs are few, so a walk over them beats a heap's bookkeeping.
        let Some(key) = self.next.iter().flatten().map(|(key, _)| key).min().cloned() else {
            return Ok(None);
        };
        let mut fragments = Vec::new();
        for (slot, source) in self.next.iter_mut().zip(&mut self.sources) {
            if slot.as_ref().is_none_or(|(at, _)| *at != key) {
                continue;
            }
            let following = source.next()?;
            debug_assert!(following.as_ref().is_none_or(|(next, _)| *next > key), "sources are sorted");
            let (_, mut newest) = std::mem::replace(slot, following).expect("it was looked at");
            if fragments.is_empty() { fragments = newest } else { fragments.append(&mut newest) }
        }
        Ok(Some((key, fragments)))
    }
}

/// A memtable as a source, read in pages so that its writer waits only briefly.
pub(crate) struct MemtableSource {
    memtable: Arc<Memtable>,
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    page: VecDeque<Group>,
    page_keys: usize,
}

const PAGE_KEYS_MIN: usize = 16;
const PAGE_KEYS_MAX: usize = 512;

impl MemtableSource {
    pub(crate) fn new(memtable: Arc<Memtable>, from: Bound<Vec<u8>>, to: Bound<Vec<u8>>) -> MemtableSource {
        MemtableSource { memtable, from, to, page: VecDeque::new(), page_keys: PAGE_KEYS_MIN }
    }

    fn turn_page(&mut self) {
        let from = self.from.as_ref().map(Vec::as_slice);
        let to = self.to.as_ref().map(Vec::as_slice);
        self.page = self.memtable.page(from, to, self.page_keys).into();
        self.page_keys = (self.page_keys * 2).min(PAGE_KEYS_MAX);
        if let Some((last, _)) = self.page.back() {
            self.from = Bound::Excluded(last.to_vec());
        }
    }
}

impl Source for MemtableSource {
    fn next(&mut self) -> Result<Option<Group>, Error> {
        if self.page.is_empty() {
            self.turn_page();
        }
        Ok(self.page.pop_front())
    }
}

/// Whether a key is not yet in a range that starts at `from`.
pub(crate) fn is_before(key: &[u8], from: &Bound<Vec<u8>>) -> bool {
    match from {
        Bound::Included(first) => key < first.as_slice(),
        Bound::Excluded(first) => key <= first.as_slice(),
        Bound::Unbounded => false,
    }
}

/// Whether a key is beyond a range that ends at `to`.
pub(crate) fn is_after(key: &[u8], to: &Bound<Vec<u8>>) -> bool {
    match to {
        Bound::Included(last) => key > last.as_slice(),
        Bound::Excluded(last) => key >= last.as_slice(),
        Bound::Unbounded => false,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::fragment::{Body, Fragment, Kind, Value};

    struct Listed(VecDeque<Group>);

    impl Source for Listed {
        fn next(&mut self) -> Result<Option<Group>, Error> {
            Ok(self.0.pop_front())
        }
    }

    fn listed(rows: &[(&'static str, &'static str)]) -> Box<dyn Source> {
        let group = |(key, head): &(&'static str, &'static str)| {
            let value = Value::Held(Body::default());
            (Bytes::from(*key), vec![Fragment { kind: Kind::Merge, head: Bytes::from(*head), value }])
        };
        Box::new(Listed(rows.iter().map(group).collect()))
    }

    #[test]
    fn each_key_comes_once_with_the_newest_fragment_first() {
        let mut merged = Merged::new(vec![
            listed(&[("b", "new"), ("d", "new")]),
            listed(&[]),
            listed(&[("a", "old"), ("b", "old")]),
        ]);
        let mut seen = Vec::new();
        while let Some((key, fragments)) = merged.next().expect("no source fails") {
            let heads: Vec<_> = fragments.iter().map(|fragment| fragment.head.clone()).collect();
            seen.push((key, heads));
        }
        let expected = [("a", vec!["old"]), ("b", vec!["new", "old"]), ("d", vec!["new"])]
            .map(|(key, heads)| (Bytes::from(key), heads.into_iter().map(Bytes::from).collect::<Vec<_>>()));
        assert_eq!(seen, expected);
    }
}
