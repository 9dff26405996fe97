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
    /// Half-open ranges in which records could not be read; what could be, also there, is among the entries.
    pub damaged: Vec<(Bytes, Bytes)>,
    /// The number of the damage that was found last, this page's included: what [`Db::excise`] wants to know,
    /// once the page's range was written anew.
    pub damage_seen: u64,
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
        page.damage_seen = self.damage_seen();
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
            let full = self.entries.len() + self.damaged.len() >= request.records_max;
            match item {
                Ok((key, _)) if full || bytes >= request.bytes_max => {
                    self.next = Some(key);
                    break;
                }
                Ok((key, record)) => {
                    bytes += key.len() + record.head.len() + record.body.len();
                    self.entries.push((key, record));
                }
                Err(error) => match error.hidden_keys() {
                    Some(keys) if full && keys.from > request.from => {
                        self.next = Some(keys.from);
                        break;
                    }
                    Some(keys) => self.damaged.push((keys.from, keys.to)),
                    None => return Err(error),
                },
            }
        }
        Ok(())
    }
}
