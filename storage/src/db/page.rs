//! A range in pages, for those who walk all of it a bit at a time.
//!
//! In: a range, bounds on records and bytes. Out: folded records up to whichever bound is met first, where the
//! next page begins, and which keys could not be read. Deliberately absent: pacing, which is the caller's.

use std::ops::Bound;

use bytes::Bytes;

use super::Db;
use crate::error::Error;
use crate::record::Record;

/// What of a range is wanted at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// The first key, inclusive.
    pub from: Bytes,
    /// The last key, exclusive.
    pub to: Bytes,
    /// Records at most.
    pub records_max: usize,
    /// Bytes after which the page ends; the record that passes them is the last one in it.
    pub bytes_max: usize,
    /// Leave bodies where they are.
    pub heads_only: bool,
}

/// Some records of a range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of their keys.
    pub entries: Vec<(Bytes, Record)>,
    /// Where the next page begins; `None`: nothing is left.
    pub next: Option<Bytes>,
    /// Half-open ranges whose records could not be read.
    pub damaged: Vec<(Bytes, Bytes)>,
}

impl Db {
    /// Reads a page of a range, folded; may wait for the disk. Damage is told as a range, never as an absence.
    pub fn page(&self, request: &PageRequest) -> Result<Page, Error> {
        let range = (Bound::Included(request.from.to_vec()), Bound::Excluded(request.to.to_vec()));
        let mut page = Page::default();
        if request.heads_only {
            let heads = self
                .scan_heads(range)
                .map(|item| item.map(|(key, head)| (key, Record { head, body: Bytes::new() })));
            page.fill(request, heads)?;
        } else {
            page.fill(request, self.scan(range))?;
        }
        Ok(page)
    }
}

impl Page {
    fn fill(
        &mut self,
        request: &PageRequest,
        items: impl Iterator<Item = Result<(Bytes, Record), Error>>,
    ) -> Result<(), Error> {
        let mut bytes = 0;
        for item in items {
            match item {
                Ok((key, _)) if self.entries.len() >= request.records_max || bytes >= request.bytes_max => {
                    self.next = Some(key);
                    break;
                }
                Ok((key, record)) => {
                    bytes += key.len() + record.head.len() + record.body.len();
                    self.entries.push((key, record));
                }
                Err(Error::Corruption { .. }) => {
                    // The walk is over: all behind the last key is unknown.
                    let from = self.entries.last().map_or(request.from.clone(), |(key, _)| after(key));
                    self.damaged.push((from, request.to.clone()));
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The least key above `key`.
fn after(key: &Bytes) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}
