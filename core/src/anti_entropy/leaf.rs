//! A leaf of a keyspace's tree: one number for all keys of a slot, and its bytes on disk.
//!
//! ```text
//!   share of a key   BLAKE3(digest of its causality │ key)[..16], as a number; a key never written: 0
//!   leaf             the sum of its keys' shares, wrapping
//!   record           head: format 1 │ flags │ from │ to │ sum (16)        body: none
//! ```
//!
//! Sums are additive: a write adds (new share − old share) and reads nothing, and the sum over any set
//! of slots stands for all keys in them. Writes of a leaf are numbered: a record says that it holds the
//! writes `from..to`. Records fold by adding where they meet; a write that failed between two that did not leaves
//! a gap, and a leaf with a gap is *stale*: its sum is not known until its keys are read.
//!
//! In: states, records. Out: sums, records. Absent: when a leaf is written or read; see `upkeep`.

use crate::event::Record;
use crate::version::{Digest, KeyState};
use crate::wire::{Malformed, Reader, Writer};
use bytes::{BufMut, Bytes, BytesMut};

const FORMAT: u8 = 1;
const STALE: u8 = 1;

/// What one key adds to its leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share(u128);

impl Share {
    /// Of a key that was never written, or is no more.
    pub const NONE: Share = Share(0);

    /// Of a key whose state has this digest.
    pub fn new(key: &[u8], digest: Digest) -> Share {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&digest.0);
        hasher.update(key);
        let mut first = [0; 16];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Share(u128::from_be_bytes(first))
    }

    /// Of a key in this state.
    pub fn of(key: &[u8], state: &KeyState) -> Share {
        if state.is_empty() { Share::NONE } else { Share::new(key, state.digest()) }
    }
}

/// A sum of shares: of a leaf, of many leaves, or the difference that a write makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(pub u128);

impl Sum {
    /// Also this key.
    pub fn add(&mut self, share: Share) {
        self.0 = self.0.wrapping_add(share.0);
    }

    /// Also all of these.
    pub fn join(&mut self, other: Sum) {
        self.0 = self.0.wrapping_add(other.0);
    }

    /// What this has more than another.
    pub fn without(self, other: Sum) -> Sum {
        Sum(self.0.wrapping_sub(other.0))
    }

    /// The difference that a write makes to the leaf of its key.
    pub fn change(old: Share, new: Share) -> Sum {
        Sum(new.0.wrapping_sub(old.0))
    }
}

/// What the disk knows of a leaf, or of some of its writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeafRecord {
    /// The first write in it, and the first after it.
    pub from: u64,
    /// See `from`.
    pub to: u64,
    /// What they add.
    pub sum: Sum,
    /// The sum is not known.
    pub stale: bool,
}

impl LeafRecord {
    /// Its record.
    pub fn record(&self) -> Record {
        let mut head = BytesMut::with_capacity(24);
        head.put_u8(FORMAT);
        head.put_u8(if self.stale { STALE } else { 0 });
        head.varint(self.from);
        head.varint(self.to);
        head.put_u128(self.sum.0);
        Record { head: head.freeze(), body: Bytes::new() }
    }

    /// What a record says.
    pub fn decode(record: &Record) -> Result<LeafRecord, Malformed> {
        let mut reader = Reader::new(record.head.clone());
        if reader.u8("leaf format")? != FORMAT {
            return Err(Malformed("leaf format"));
        }
        let flags = reader.u8("leaf flags")?;
        if flags & !STALE != 0 {
            return Err(Malformed("leaf flags"));
        }
        let (from, to) = (reader.varint("leaf writes")?, reader.varint("leaf writes")?);
        let sum = Sum(u128::from_be_bytes(reader.array("leaf sum")?));
        reader.end("leaf")?;
        if from > to || !record.body.is_empty() {
            return Err(Malformed("leaf"));
        }
        Ok(LeafRecord { from, to, sum, stale: flags & STALE != 0 })
    }

    /// This and the writes before it.
    fn after(self, older: LeafRecord) -> LeafRecord {
        let mut sum = older.sum;
        sum.join(self.sum);
        let stale = self.stale || older.stale || older.to != self.from;
        LeafRecord { from: older.from.min(self.from), to: self.to.max(older.to), sum, stale }
    }
}

/// How storage folds the records of a leaf.
pub fn fold(fragments_newest_first: &[Record]) -> Result<Record, Malformed> {
    let mut fragments = fragments_newest_first.iter();
    let mut leaf = LeafRecord::decode(fragments.next().ok_or(Malformed("fold of nothing"))?)?;
    for older in fragments {
        leaf = leaf.after(LeafRecord::decode(older)?);
    }
    Ok(leaf.record())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrote(from: u64, sum: u128) -> Record {
        LeafRecord { from, to: from + 1, sum: Sum(sum), stale: false }.record()
    }

    fn folded(newest_first: &[Record]) -> LeafRecord {
        LeafRecord::decode(&fold(newest_first).unwrap()).unwrap()
    }

    #[test]
    fn writes_that_meet_add_up_whatever_part_is_folded_first() {
        let all = [wrote(4, 40), wrote(3, u128::MAX), wrote(2, 2), wrote(1, 1)];
        let at_once = folded(&all);
        assert_eq!(at_once, LeafRecord { from: 1, to: 5, sum: Sum(42), stale: false });
        for cut in 1..4 {
            let newer = fold(&all[..cut]).unwrap();
            let older = fold(&all[cut..]).unwrap();
            assert_eq!(folded(&[newer, older]), at_once);
        }
    }

    #[test]
    fn a_write_that_is_missing_or_there_twice_makes_the_leaf_stale() {
        let all = [wrote(4, 4), wrote(2, 2), wrote(1, 1)];
        assert!(folded(&all).stale);
        assert!(folded(&[fold(&all[..2]).unwrap(), wrote(1, 1)]).stale);
        assert!(folded(&[wrote(4, 4), fold(&all[1..]).unwrap()]).stale);
        assert!(folded(&[wrote(2, 2), wrote(2, 2), wrote(1, 1)]).stale);
        let marked = LeafRecord { from: 2, to: 3, stale: true, ..LeafRecord::default() }.record();
        assert!(folded(&[wrote(3, 3), marked, wrote(1, 1)]).stale);
    }

    #[test]
    fn what_is_no_leaf_is_refused() {
        let good = wrote(300, 7);
        assert_eq!(LeafRecord::decode(&good).unwrap().record(), good);
        for length in 0..good.head.len() {
            let short = Record { head: good.head.slice(..length), body: Bytes::new() };
            assert!(LeafRecord::decode(&short).is_err());
        }
        let body = Record { body: Bytes::from_static(b"x"), ..good };
        assert!(LeafRecord::decode(&body).is_err());
    }
}
