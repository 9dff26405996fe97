//! Reads of one key.
//!
//! In: a key, and whether waiting for the disk is allowed. Out: the folded record, its head, or its
//! fragments. Deliberately absent: ranges (`scan`), and any guess on damage: it is an error, never "missing".

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Inner;
use crate::error::Error;
use crate::fragment::{Fragment, Kind, Value};
use crate::metrics::Counters;
use crate::record::{Fold, Lookup, Record};
use crate::table::Patience;

impl Inner {
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Record>, Error> {
        self.check_usable()?;
        match self.lookup(key, Patience::Waits)? {
            Lookup::Found(record) => Ok(Some(record)),
            Lookup::Missing => Ok(None),
            Lookup::WouldBlock => unreachable!("a patient read waits"),
        }
    }

    pub(super) fn try_get(&self, key: &[u8]) -> Result<Lookup, Error> {
        self.check_usable()?;
        self.lookup(key, Patience::Never)
    }

    pub(super) fn get_head(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.check_usable()?;
        match self.fragments(key, Patience::Waits)? {
            Some(fragments) => fold_head(key, fragments, self.fold.as_ref()),
            None => unreachable!("a patient read waits"),
        }
    }

    pub(super) fn get_fragments(&self, key: &[u8]) -> Result<Vec<Record>, Error> {
        self.check_usable()?;
        let fragments = self.fragments(key, Patience::Waits)?.unwrap_or_default();
        let parts = fragments.iter().take_while(|part| part.kind != Kind::Remove);
        parts.map(|part| Ok(Record { head: part.head.clone(), body: part.load_body(key)? })).collect()
    }

    fn lookup(&self, key: &[u8], patience: Patience) -> Result<Lookup, Error> {
        let Some(fragments) = self.fragments(key, patience)? else { return Ok(Lookup::WouldBlock) };
        let mut records = Vec::with_capacity(fragments.len());
        for part in fragments.iter().take_while(|part| part.kind != Kind::Remove) {
            let Some(body) = self.body(key, part, patience)? else { return Ok(Lookup::WouldBlock) };
            records.push(Record { head: part.head.clone(), body });
        }
        Ok(fold_records(key, records, self.fold.as_ref())?.map_or(Lookup::Missing, Lookup::Found))
    }

    fn body(&self, key: &[u8], part: &Fragment, patience: Patience) -> Result<Option<Bytes>, Error> {
        match &part.value {
            Value::Held(_) => part.load_body(key).map(Some),
            Value::At(table, frame) => table.cached_value(frame, &self.cache, &self.counters, patience),
        }
    }

    /// All fragments that matter, newest first; `None` when the disk would have to be waited for.
    fn fragments(&self, key: &[u8], patience: Patience) -> Result<Option<Vec<Fragment>>, Error> {
        let shape = self.shape();
        if let Some(complete) = shape.active.get_complete(key) {
            return Ok(Some(vec![complete]));
        }
        let mut fragments = Vec::new();
        for memtable in shape.memtables() {
            fragments.append(&mut memtable.get(key));
            if fragments.last().is_some_and(Fragment::is_complete) {
                return Ok(Some(fragments));
            }
        }
        if shape.tables.is_empty() {
            return Ok(Some(fragments));
        }
        let hash = xxh3_64_with_seed(key, self.hash_seed);
        for table in &shape.tables {
            if !table.may_hold(key, hash, self.hash_seed) {
                Counters::add(&self.counters.filter_skips, 1);
                continue;
            }
            Counters::add(&self.counters.table_lookups, 1);
            match table.get(key, &self.cache, &self.counters, patience)? {
                Some(mut found) => fragments.append(&mut found),
                None => return Ok(None),
            }
            if fragments.last().is_some_and(Fragment::is_complete) {
                break;
            }
        }
        Ok(Some(fragments))
    }
}

/// The state that fragments (newest first, removes taken off) make.
pub(super) fn fold_records(
    key: &[u8],
    mut records: Vec<Record>,
    fold: &dyn Fold,
) -> Result<Option<Record>, Error> {
    if records.len() <= 1 {
        return Ok(records.pop());
    }
    let folded = fold.fold(key, &records);
    folded.map(Some).map_err(|error| Error::Fold { key: Bytes::copy_from_slice(key), cause: error.0 })
}

/// The head that fragments make, reading bodies only if the fold needs them.
pub(super) fn fold_head(
    key: &[u8],
    fragments: Vec<Fragment>,
    fold: &dyn Fold,
) -> Result<Option<Bytes>, Error> {
    let parts: Vec<Fragment> = fragments.into_iter().take_while(|part| part.kind != Kind::Remove).collect();
    if parts.len() <= 1 {
        return Ok(parts.into_iter().next().map(|part| part.head));
    }
    let heads: Vec<Bytes> = parts.iter().map(|part| part.head.clone()).collect();
    if let Some(head) = fold.fold_heads(key, &heads) {
        return Ok(Some(head));
    }
    let load = |part: &Fragment| Ok(Record { head: part.head.clone(), body: part.load_body(key)? });
    let records = parts.iter().map(load).collect::<Result<Vec<_>, Error>>()?;
    Ok(fold_records(key, records, fold)?.map(|record| record.head))
}
