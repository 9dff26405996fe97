//! Sorted tables. None exist yet in this slice: the type has no values, so no path can reach one.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Error;
use crate::fragment::{Body, Fragment};
use crate::memtable::Group;
use crate::merge::Source;
use crate::metrics::{Counters, Metrics};

/// Whether a read may wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    Waits,
    Never,
}

#[derive(Clone, Copy)]
pub(crate) struct ValueFrame;

pub(crate) enum Table {}

pub(crate) struct TableMeta {
    pub(crate) file_bytes: u64,
}

pub(crate) struct Cache;

impl Cache {
    pub(crate) fn report(&self, _metrics: &mut Metrics) {}
}

pub(crate) struct TableSource(std::convert::Infallible);

impl Source for TableSource {
    fn next(&mut self) -> Result<Option<Group>, Error> {
        match self.0 {}
    }
}

impl Table {
    pub(crate) fn meta(&self) -> &TableMeta {
        match *self {}
    }
    pub(crate) fn read_value(&self, _frame: &ValueFrame) -> Result<Body, Error> {
        match *self {}
    }
    pub(crate) fn damaged_value(&self, _frame: &ValueFrame) -> Error {
        match *self {}
    }
    pub(crate) fn cached_value(
        &self,
        _frame: &ValueFrame,
        _cache: &Cache,
        _counters: &Counters,
        _patience: Patience,
    ) -> Result<Option<Bytes>, Error> {
        match *self {}
    }
    pub(crate) fn may_hold(&self, _key: &[u8], _hash: u64) -> bool {
        match *self {}
    }
    pub(crate) fn get(
        &self,
        _key: &[u8],
        _cache: &Cache,
        _counters: &Counters,
        _patience: Patience,
    ) -> Result<Option<Vec<Fragment>>, Error> {
        match *self {}
    }
    pub(crate) fn source(self: &Arc<Self>, _from: Bound<Vec<u8>>, _to: Bound<Vec<u8>>) -> TableSource {
        match **self {}
    }
}
