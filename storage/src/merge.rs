//! Many sorted sources as one.
//!
//! In: sources of key groups, newest source first. Out: each key once, its fragments newest first; and the gaps
//! that a source could not read. In a gap only those keys are given whose state does not depend on what was not
//! read, as reads of single keys do. Deliberately absent: folding and the bounds of a range; sources know their
//! own.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Error;
use crate::fragment::Fragment;
use crate::key_span::KeySpan;
use crate::memtable::{Group, Memtable};

/// Keys of a source that could not be read.
pub(crate) struct Gap {
    pub(crate) keys: KeySpan,
    pub(crate) error: Error,
}

/// What a walk comes to next.
pub(crate) enum Found {
    Group(Group),
    Gap(Gap),
}

impl Found {
    fn position(&self) -> &Bytes {
        match self {
            Found::Group((key, _)) => key,
            Found::Gap(gap) => &gap.keys.from,
        }
    }

    fn is_gap(&self) -> bool {
        matches!(self, Found::Gap(_))
    }
}

/// Keys in strictly increasing order, each with its fragments newest first; no key inside a gap.
pub(crate) trait Source: Send {
    fn next(&mut self) -> Result<Option<Found>, Error>;

    /// Whether what this source held of a key was given up, so that nothing older of it counts either.
    fn gave_up(&self, _key: &[u8]) -> bool {
        false
    }

    /// Whether the source may hold a key that lies in one of its gaps.
    fn may_hold(&self, _key: &[u8]) -> bool {
        true
    }
}

struct Lane {
    source: Box<dyn Source>,
    next: Option<Found>,
    /// The gap that was told last.
    gap: Option<KeySpan>,
}

/// The merge of sources.
pub(crate) struct Merged {
    lanes: Vec<Lane>,
    started: bool,
}

impl Merged {
    /// `sources` are ordered from newest to oldest.
    pub(crate) fn new(sources: Vec<Box<dyn Source>>) -> Merged {
        let lanes = sources.into_iter().map(|source| Lane { source, next: None, gap: None }).collect();
        Merged { lanes, started: false }
    }

    pub(crate) fn next(&mut self) -> Result<Option<Found>, Error> {
        if !self.started {
            for lane in &mut self.lanes {
                lane.next = lane.source.next()?;
            }
            self.started = true;
        }
        loop {
            // Runs are few, so a walk over them beats a heap's bookkeeping. A gap comes before a key.
            let ahead =
                self.lanes.iter().enumerate().filter_map(|(at, lane)| Some((lane.next.as_ref()?, at)));
            let first = ahead.min_by_key(|(found, at)| (found.position(), !found.is_gap(), *at));
            let Some((found, at)) = first else { return Ok(None) };
            let Found::Group((key, _)) = found else { return self.gap(at).map(Some) };
            let key = key.clone();
            if let Some(fragments) = self.group(&key)? {
                return Ok(Some(Found::Group((key, fragments))));
            }
        }
    }

    fn gap(&mut self, at: usize) -> Result<Found, Error> {
        let lane = &mut self.lanes[at];
        let following = lane.source.next()?;
        let gap = std::mem::replace(&mut lane.next, following).expect("it was looked at");
        if let Found::Gap(gap) = &gap {
            lane.gap = Some(gap.keys.clone());
        }
        Ok(gap)
    }

    /// All that counts of a key, and every source goes past it. `None` when it cannot be told.
    fn group(&mut self, key: &Bytes) -> Result<Option<Vec<Fragment>>, Error> {
        let mut fragments: Vec<Fragment> = Vec::new();
        let (mut complete, mut unknown) = (false, false);
        for lane in &mut self.lanes {
            let mut own = Vec::new();
            if matches!(&lane.next, Some(Found::Group((at, _))) if at == key) {
                let following = lane.source.next()?;
                debug_assert!(
                    following.as_ref().is_none_or(|next| next.position() > key),
                    "sources are sorted"
                );
                if let Some(Found::Group((_, taken))) = std::mem::replace(&mut lane.next, following) {
                    own = taken;
                }
            }
            if complete || unknown {
                continue;
            }
            if lane.source.gave_up(key) {
                own = vec![Fragment::remove()];
            } else if lane.gap.as_ref().is_some_and(|gap| gap.contains(key)) {
                unknown = lane.source.may_hold(key);
                continue;
            }
            if fragments.is_empty() {
                fragments = own
            } else {
                fragments.append(&mut own)
            }
            complete = fragments.last().is_some_and(Fragment::is_complete);
        }
        Ok((!unknown).then_some(fragments))
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
    fn next(&mut self) -> Result<Option<Found>, Error> {
        if self.page.is_empty() {
            self.turn_page();
        }
        Ok(self.page.pop_front().map(Found::Group))
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
    use super::*;
    use crate::fragment::{Body, Kind, Value};

    struct Listed(VecDeque<Found>);

    impl Source for Listed {
        fn next(&mut self) -> Result<Option<Found>, Error> {
            Ok(self.0.pop_front())
        }

        fn may_hold(&self, key: &[u8]) -> bool {
            !key.ends_with(b"x")
        }
    }

    /// `key=head` is a merge, `key:head` a put, `from-to` a gap.
    fn listed(rows: &'static str) -> Box<dyn Source> {
        let found = |row: &'static str| {
            if let Some((from, to)) = row.split_once('-') {
                let keys = KeySpan { from: Bytes::from(from), to: Bytes::from(to) };
                return Found::Gap(Gap { keys, error: Error::Overloaded });
            }
            let (kind, dividing) = if row.contains(':') { (Kind::Put, ':') } else { (Kind::Merge, '=') };
            let (key, head) = row.split_once(dividing).expect("a key and a head");
            let value = Value::Held(Body::default());
            Found::Group((Bytes::from(key), vec![Fragment { kind, head: Bytes::from(head), value }]))
        };
        Box::new(Listed(rows.split_whitespace().map(found).collect()))
    }

    fn check(sources: &[&'static str], expected: &str) {
        let mut merged = Merged::new(sources.iter().map(|rows| listed(rows)).collect());
        let mut seen = Vec::new();
        while let Some(found) = merged.next().expect("no source fails") {
            seen.push(match found {
                Found::Gap(gap) => format!("{:?}-{:?}", gap.keys.from, gap.keys.to).replace(['b', '"'], ""),
                Found::Group((key, fragments)) => {
                    let heads: Vec<_> =
                        fragments.iter().map(|part| String::from_utf8_lossy(&part.head)).collect();
                    format!("{}={}", String::from_utf8_lossy(&key), heads.join(","))
                }
            });
        }
        assert_eq!(seen.join(" "), expected);
    }

    #[test]
    fn each_key_comes_once_with_the_newest_fragment_first() {
        check(&["k=new m=new", "", "a=old k=old"], "a=old k=new,old m=new");
        check(&["k:new", "a:old k:old"], "a=old k=new");
    }

    #[test]
    fn in_a_gap_only_what_does_not_depend_on_it_is_told() {
        // Complete above the gap, a fragment above it, below it, below it but surely not in it, and behind.
        check(&["k:new l=new", "c-p", "m:old nx:old p:old"], "c-p k=new nx=old p=old");
        check(&["c-d d-e e=1", "c:old d:old"], "c-d d-e e=1");
    }
}
