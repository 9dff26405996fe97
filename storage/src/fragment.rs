//! One piece of a key's state as the engine holds it, and how pieces reduce to fewer.
//!
//! In: fragments of one key, newest first. Out: the fewest fragments that mean the same. Deliberately absent:
//! where fragments come from (memtable, table) and where reduced ones go.

use std::sync::Arc;

use bytes::Bytes;

use crate::compress;
use crate::error::Error;
use crate::key_span::KeySpan;
use crate::limits::{BODY_BYTES_MAX, HEAD_BYTES_MAX};
use crate::record::{Fold, Record, Winner};
use crate::table::{Table, ValueFrame};

/// What a fragment does to the older ones. The numbers are on disk: do not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Complete: hides everything older.
    Put = 1,
    /// Folds with what is older.
    Merge = 2,
    /// Hides everything older and is no state itself.
    Remove = 3,
}

impl Kind {
    pub(crate) fn from_bits(bits: u8) -> Option<Kind> {
        match bits {
            1 => Some(Kind::Put),
            2 => Some(Kind::Merge),
            3 => Some(Kind::Remove),
            _ => None,
        }
    }
}

/// Body bytes as they are stored: compressed at most once, at ingest.
#[derive(Debug, Clone, Default)]
pub(crate) struct Body {
    pub(crate) stored: Bytes,
    pub(crate) raw_len: u32,
    pub(crate) zstd: bool,
}

impl Body {
    pub(crate) fn raw(bytes: Bytes) -> Body {
        Body { raw_len: bytes.len() as u32, stored: bytes, zstd: false }
    }

    /// The caller's bytes again. `None` when the compressed bytes do not hold them.
    pub(crate) fn load(&self) -> Option<Bytes> {
        if !self.zstd {
            return Some(self.stored.clone());
        }
        compress::decompress(&self.stored, self.raw_len as usize).map(Bytes::from)
    }
}

/// A body in memory, or a pointer to one in a table.
#[derive(Clone)]
pub(crate) enum Value {
    Held(Body),
    At(Arc<Table>, ValueFrame),
}

#[derive(Clone)]
pub(crate) struct Fragment {
    pub(crate) kind: Kind,
    pub(crate) head: Bytes,
    pub(crate) value: Value,
}

impl Fragment {
    pub(crate) fn remove() -> Fragment {
        Fragment { kind: Kind::Remove, head: Bytes::new(), value: Value::Held(Body::default()) }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.kind != Kind::Merge
    }

    /// Reads the body from wherever it is; may wait for the disk.
    pub(crate) fn load_body(&self, key: &[u8]) -> Result<Bytes, Error> {
        match &self.value {
            Value::Held(body) => body.load().ok_or_else(|| damaged_in_memory(key)),
            Value::At(table, frame) => {
                table.read_value(key, frame)?.load().ok_or_else(|| table.damaged_value(key, frame))
            }
        }
    }
}

/// Memory does not fail silently often; when a body held in memory cannot be decoded, say so plainly.
fn damaged_in_memory(key: &[u8]) -> Error {
    Error::Corruption {
        file: "(memory)".into(),
        offset: 0,
        what: format!("the body of key {} does not decompress", key.escape_ascii()),
        keys: Some(Box::new(KeySpan::of_key(key))),
    }
}

/// How the reduction of a key ended up.
pub(crate) struct Reduced {
    /// Newest first.
    pub(crate) fragments: Vec<Fragment>,
    /// Whether the caller's fold refused, so that fragments stay apart.
    pub(crate) fold_failed: bool,
}

/// The one of some fragments (newest first, all of them state) that alone is the state of all, if their heads tell.
pub(crate) fn winner<'a>(
    key: &[u8],
    mut fragments: impl Iterator<Item = &'a Fragment>,
    fold: &dyn Fold,
) -> Option<&'a Fragment> {
    let newest = fragments.next()?;
    fragments.try_fold(newest, |best, older| {
        Some(match fold.wins(key, &best.head, &older.head)? {
            Winner::Newer => best,
            Winner::Older => older,
        })
    })
}

/// Makes the fewest fragments that mean the same as `fragments` (newest first).
///
/// `bottom` says that nothing older of this key can exist: removes vanish, and a lone fragment is complete.
/// `pack` turns a folded body into a stored one.
pub(crate) fn reduce(
    key: &[u8],
    mut fragments: Vec<Fragment>,
    bottom: bool,
    fold: &dyn Fold,
    pack: &mut dyn FnMut(Bytes) -> Body,
) -> Result<Reduced, Error> {
    if let Some(complete) = fragments.iter().position(Fragment::is_complete) {
        fragments.truncate(complete + 1);
    }
    let hides_older = bottom || fragments.last().is_some_and(Fragment::is_complete);
    let removed = fragments.last().is_some_and(|last| last.kind == Kind::Remove);
    let parts = fragments.len() - usize::from(removed);
    if parts == 0 {
        let fragments = if bottom { Vec::new() } else { fragments };
        return Ok(Reduced { fragments, fold_failed: false });
    }
    let whole_kind = if hides_older { Kind::Put } else { Kind::Merge };
    if parts == 1 {
        fragments.truncate(1);
        fragments[0].kind = whole_kind;
        return Ok(Reduced { fragments, fold_failed: false });
    }
    if let Some(winner) = winner(key, fragments[..parts].iter(), fold) {
        // Its body goes on as it is stored.
        let whole = Fragment { kind: whole_kind, ..winner.clone() };
        return Ok(Reduced { fragments: vec![whole], fold_failed: false });
    }
    let mut records = Vec::with_capacity(parts);
    for part in &fragments[..parts] {
        match (part.load_body(key), &part.value) {
            (Ok(body), _) => records.push(Record { head: part.head.clone(), body }),
            // No block to set aside: the parts stay apart, and the reader of the key is told.
            (Err(_), Value::Held(_)) => return Ok(unfolded(fragments, parts, bottom)),
            (Err(error), Value::At(..)) => return Err(error),
        }
    }
    match fold.fold(key, &records) {
        // What is longer than the formats hold could be written but never read again.
        Ok(Record { head, body }) if head.len() <= HEAD_BYTES_MAX && body.len() <= BODY_BYTES_MAX => {
            let folded = Fragment { kind: whole_kind, head, value: Value::Held(pack(body)) };
            Ok(Reduced { fragments: vec![folded], fold_failed: false })
        }
        Ok(_) | Err(_) => Ok(unfolded(fragments, parts, bottom)),
    }
}

/// The parts stay apart; what is known about "nothing older" stays too.
fn unfolded(mut fragments: Vec<Fragment>, parts: usize, bottom: bool) -> Reduced {
    if bottom {
        fragments.truncate(parts);
    }
    Reduced { fragments, fold_failed: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::FoldError;

    /// Concatenates heads, oldest first; refuses when one is `!`, grows beyond all limits when one is `*`.
    struct Concat;

    impl Fold for Concat {
        fn fold(&self, _key: &[u8], newest_first: &[Record]) -> Result<Record, FoldError> {
            let head: Vec<u8> = newest_first.iter().rev().flat_map(|record| record.head.to_vec()).collect();
            if head.contains(&b'!') {
                return Err(FoldError("refused".into()));
            }
            let body_bytes = if head.contains(&b'*') { BODY_BYTES_MAX + 1 } else { 0 };
            Ok(Record { head: head.into(), body: vec![0; body_bytes].into() })
        }
    }

    /// Fragments newest first: `p` put, `m` merge, `r` remove, each with a head.
    fn check(fragments: &str, bottom: bool, expected: &str) {
        let parse = |word: &str| {
            let kind = match &word[..1] {
                "p" => Kind::Put,
                "m" => Kind::Merge,
                _ => return Fragment::remove(),
            };
            Fragment { kind, head: Bytes::from(word[1..].to_owned()), value: Value::Held(Body::default()) }
        };
        let parts = fragments.split_whitespace().map(parse).collect();
        let reduced = reduce(b"k", parts, bottom, &Concat, &mut Body::raw).expect("all bodies are held");
        let show = |part: &Fragment| {
            let kind = ["", "p", "m", "r"][part.kind as usize];
            format!("{kind}{}", String::from_utf8_lossy(&part.head))
        };
        let shown: Vec<String> = reduced.fragments.iter().map(show).collect();
        assert_eq!(shown.join(" "), expected, "{fragments}, bottom {bottom}");
        assert_eq!(reduced.fold_failed, fragments.contains(['!', '*']) && shown.len() > 1);
    }

    #[test]
    fn fragments_reduce_to_the_fewest_that_mean_the_same() {
        for (fragments, inside, at_the_bottom) in [
            ("pa", "pa", "pa"),
            ("ma", "ma", "pa"),
            ("r", "r", ""),
            ("pb pa", "pb", "pb"),
            ("pb r ma", "pb", "pb"),
            ("mb ma", "mab", "pab"),
            ("mb pa", "pab", "pab"),
            ("mc mb pa mx", "pabc", "pabc"),
            ("ma r", "pa", "pa"),
            ("mb ma r px", "pab", "pab"),
            ("r pa ma", "r", ""),
            ("m! ma", "m! ma", "m! ma"),
            ("m! pa", "m! pa", "m! pa"),
            ("m! ma r", "m! ma r", "m! ma"),
            ("m* ma", "m* ma", "m* ma"),
        ] {
            check(fragments, false, inside);
            check(fragments, true, at_the_bottom);
        }
    }
}
