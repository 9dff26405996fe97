//! Reads of one key.
//!
//! In: a key, and whether waiting for the disk is allowed. Out: the folded record, its head, or its
//! fragments. Deliberately absent: ranges (`scan`), and any guess on damage: it is an error, never "missing".

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Inner;
use crate::error::Error;
use crate::fragment::{Fragment, Kind, Value, winner};
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
        match self.lookup_head(key, Patience::Waits)? {
            Lookup::Found(head) => Ok(Some(head)),
            Lookup::Missing => Ok(None),
            Lookup::WouldBlock => unreachable!("a patient read waits"),
        }
    }

    pub(super) fn try_get_head(&self, key: &[u8]) -> Result<Lookup<Bytes>, Error> {
        self.check_usable()?;
        self.lookup_head(key, Patience::Never)
    }

    pub(super) fn get_fragments(&self, key: &[u8]) -> Result<Vec<Record>, Error> {
        self.check_usable()?;
        let fragments = self.fragments(key, Patience::Waits)?.unwrap_or_default();
        visible(&fragments)
            .map(|part| Ok(Record { head: part.head.clone(), body: part.load_body(key)? }))
            .collect()
    }

    fn lookup(&self, key: &[u8], patience: Patience) -> Result<Lookup, Error> {
        match self.fragments(key, patience)? {
            Some(fragments) => self.fold_parts(key, &fragments, patience),
            None => Ok(Lookup::WouldBlock),
        }
    }

    fn fold_parts(&self, key: &[u8], fragments: &[Fragment], patience: Patience) -> Result<Lookup, Error> {
        if let Some(winner) = winner(key, visible(fragments), self.fold.as_ref()) {
            let body = self.body(key, winner, patience)?;
            return Ok(body.map_or(Lookup::WouldBlock, |body| {
                Lookup::Found(Record { head: winner.head.clone(), body })
            }));
        }
        let mut records = Vec::with_capacity(fragments.len());
        for part in visible(fragments) {
            let Some(body) = self.body(key, part, patience)? else { return Ok(Lookup::WouldBlock) };
            records.push(Record { head: part.head.clone(), body });
        }
        Ok(fold_records(key, records, self.fold.as_ref())?.map_or(Lookup::Missing, Lookup::Found))
    }

    fn lookup_head(&self, key: &[u8], patience: Patience) -> Result<Lookup<Bytes>, Error> {
        let Some(fragments) = self.fragments(key, patience)? else { return Ok(Lookup::WouldBlock) };
        if let Some(folded) = fold_heads_alone(key, &fragments, self.fold.as_ref()) {
            return Ok(folded.map_or(Lookup::Missing, Lookup::Found));
        }
        Ok(match self.fold_parts(key, &fragments, patience)? {
            Lookup::Found(record) => Lookup::Found(record.head),
            Lookup::Missing => Lookup::Missing,
            Lookup::WouldBlock => Lookup::WouldBlock,
        })
    }

    fn body(&self, key: &[u8], part: &Fragment, patience: Patience) -> Result<Option<Bytes>, Error> {
        match &part.value {
            Value::Held(_) => part.load_body(key).map(Some),
            Value::At(table, frame) => table.cached_value(key, frame, &self.cache, &self.counters, patience),
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
            if table.health().is_excised(key) {
                // What it held may have hidden the older fragments.
                fragments.push(Fragment::remove());
                break;
            }
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
fn fold_records(key: &[u8], mut records: Vec<Record>, fold: &dyn Fold) -> Result<Option<Record>, Error> {
    if records.len() <= 1 {
        return Ok(records.pop());
    }
    let folded = fold.fold(key, &records);
    folded.map(Some).map_err(|error| Error::Fold { key: Bytes::copy_from_slice(key), cause: error.0 })
}

/// Fragments that are state: all but a remove at the end.
pub(super) fn visible(fragments: &[Fragment]) -> impl Iterator<Item = &Fragment> {
    fragments.iter().take_while(|part| part.kind != Kind::Remove)
}

/// The head that fragments make, if that can be told without bodies; inside, `None` is a key without state.
pub(super) fn fold_heads_alone(key: &[u8], fragments: &[Fragment], fold: &dyn Fold) -> Option<Option<Bytes>> {
    if let Some(winner) = winner(key, visible(fragments), fold) {
        return Some(Some(winner.head.clone()));
    }
    let heads: Vec<Bytes> = visible(fragments).map(|part| part.head.clone()).collect();
    match heads.len() {
        0 => Some(None),
        1 => Some(heads.into_iter().next()),
        _ => fold.fold_heads(key, &heads).map(Some),
    }
}

/// Loads all bodies, waiting for the disk and past the cache, and folds: for walks.
pub(super) fn fold_loaded(
    key: &[u8],
    fragments: &[Fragment],
    fold: &dyn Fold,
) -> Result<Option<Record>, Error> {
    if let Some(winner) = winner(key, visible(fragments), fold) {
        return Ok(Some(Record { head: winner.head.clone(), body: winner.load_body(key)? }));
    }
    let load = |part: &Fragment| Ok(Record { head: part.head.clone(), body: part.load_body(key)? });
    let records = visible(fragments).map(load).collect::<Result<Vec<_>, Error>>()?;
    fold_records(key, records, fold)
}
