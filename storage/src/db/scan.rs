//! Ordered walks over a range.
//!
//! In: bounds. Out: an iterator of folded records, or of heads, and of errors that say which keys could not be
//! read; what is behind those follows. Tables are pinned when the walk begins, so a
//! flush or compaction meanwhile takes nothing away. Deliberately absent: a snapshot in time of memtables
//! (one record per key is kept there), and admission to the cache: a scan must not push out what is hot.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::read::{fold_heads_alone, fold_loaded};
use super::{Inner, KeyRange};
use crate::error::Error;
use crate::fragment::{Fragment, Kind};
use crate::merge::{Found, MemtableSource, Merged, Source};
use crate::record::Record;
use crate::table::source::TableSource;

/// Walks keys with their folded records. After an error with [`Error::hidden_keys`] the walk goes on behind those
/// keys; keys among them are given too where their state is known all the same. Any other error ends the walk.
pub struct Scan(Walk);

/// Walks keys with their folded heads; on errors it does as [`Scan`].
pub struct ScanHeads(Walk);

struct Walk {
    inner: Arc<Inner>,
    merged: Merged,
    over: bool,
}

impl Walk {
    fn new(inner: Arc<Inner>, (from, to): KeyRange) -> Walk {
        let shape = inner.shape();
        let mut sources: Vec<Box<dyn Source>> = Vec::new();
        if !is_empty(&from, &to) {
            for memtable in shape.memtables() {
                sources.push(Box::new(MemtableSource::new(memtable.clone(), from.clone(), to.clone())));
            }
            for table in &shape.tables {
                sources.push(Box::new(TableSource::new(table.clone(), from.clone(), to.clone())));
            }
        }
        Walk { inner, merged: Merged::new(sources), over: false }
    }

    /// The next key for which `make` gives something.
    fn next<T>(
        &mut self,
        make: impl Fn(&Inner, &[u8], Vec<Fragment>) -> Result<Option<T>, Error>,
    ) -> Option<Result<(Bytes, T), Error>> {
        while !self.over {
            let made = self.inner.check_usable().and_then(|()| match self.merged.next()? {
                Some(Found::Group((key, fragments))) => {
                    Ok(Some((make(&self.inner, &key, live(fragments))?, key)))
                }
                Some(Found::Gap(gap)) => Err(gap.error),
                None => Ok(None),
            });
            match made {
                Ok(Some((Some(item), key))) => return Some(Ok((key, item))),
                Ok(Some((None, _))) => {}
                Ok(None) => self.over = true,
                Err(error) => {
                    self.over = error.hidden_keys().is_none();
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

/// What the newest complete fragment leaves visible.
fn live(mut fragments: Vec<Fragment>) -> Vec<Fragment> {
    if let Some(complete) = fragments.iter().position(Fragment::is_complete) {
        let removed = fragments[complete].kind == Kind::Remove;
        fragments.truncate(if removed { complete } else { complete + 1 });
    }
    fragments
}

fn is_empty(from: &Bound<Vec<u8>>, to: &Bound<Vec<u8>>) -> bool {
    match (from, to) {
        (Bound::Included(a), Bound::Included(b)) => a > b,
        (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => a >= b,
        _ => false,
    }
}

impl Scan {
    pub(super) fn new(inner: Arc<Inner>, range: KeyRange) -> Scan {
        Scan(Walk::new(inner, range))
    }
}

impl Iterator for Scan {
    type Item = Result<(Bytes, Record), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(|inner, key, parts| fold_loaded(key, &parts, inner.fold.as_ref()))
    }
}

impl ScanHeads {
    pub(super) fn new(inner: Arc<Inner>, range: KeyRange) -> ScanHeads {
        ScanHeads(Walk::new(inner, range))
    }
}

impl Iterator for ScanHeads {
    type Item = Result<(Bytes, Bytes), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(|inner, key, parts| match fold_heads_alone(key, &parts, inner.fold.as_ref()) {
            Some(head) => Ok(head),
            None => Ok(fold_loaded(key, &parts, inner.fold.as_ref())?.map(|record| record.head)),
        })
    }
}
