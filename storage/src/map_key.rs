//! Keys as an ordered map in memory holds them: with their first bytes beside the pointer.
//!
//! A walk down a tree compares some twenty keys. When each is only a pointer, each comparison waits for memory; most
//! are decided by the first bytes. In: keys. Out: the same order as that of their bytes. Deliberately absent: the map.

use std::borrow::Borrow;
use std::cmp::Ordering;

use bytes::Bytes;

const FIRST_BYTES: usize = 16;

/// Anything that has its place in the order of keys.
pub(crate) trait Placed {
    /// The first bytes, as a number that is larger for larger keys.
    fn first(&self) -> u128;
    /// All of them.
    fn bytes(&self) -> &[u8];
}

impl Ord for dyn Placed + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.first().cmp(&other.first()).then_with(|| self.bytes().cmp(other.bytes()))
    }
}

impl PartialOrd for dyn Placed + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Placed + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for dyn Placed + '_ {}

/// A key in a map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MapKey {
    // Compared first, as the order of fields says.
    first: u128,
    bytes: Bytes,
}

impl MapKey {
    pub(crate) fn new(bytes: Bytes) -> MapKey {
        MapKey { first: first(&bytes), bytes }
    }

    /// The key itself, which shares its bytes.
    pub(crate) fn key(&self) -> &Bytes {
        &self.bytes
    }
}

impl Placed for MapKey {
    fn first(&self) -> u128 {
        self.first
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl<'a> Borrow<dyn Placed + 'a> for MapKey {
    fn borrow(&self) -> &(dyn Placed + 'a) {
        self
    }
}

/// A key that is looked for.
pub(crate) struct Sought<'a> {
    first: u128,
    bytes: &'a [u8],
}

impl<'a> Sought<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Sought<'a> {
        Sought { first: first(bytes), bytes }
    }
}

impl Placed for Sought<'_> {
    fn first(&self) -> u128 {
        self.first
    }

    fn bytes(&self) -> &[u8] {
        self.bytes
    }
}

/// Shorter keys are filled up with zeros; whole keys decide between those that look the same then.
fn first(bytes: &[u8]) -> u128 {
    let mut padded = [0; FIRST_BYTES];
    let len = bytes.len().min(FIRST_BYTES);
    padded[..len].copy_from_slice(&bytes[..len]);
    u128::from_be_bytes(padded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_bytes() {
        let long = b"sixteen bytes are compared first";
        let mut keys: Vec<Vec<u8>> =
            [&b""[..], b"\0", b"\0\0", b"a", b"a\0", b"a\0b", b"ab", b"\xff", b"\xff\xff"]
                .map(<[u8]>::to_vec)
                .to_vec();
        keys.extend((14..20).map(|len| long[..len].to_vec()));
        keys.extend((14..20).map(|len| [&long[..len], b"\0"].concat()));
        for a in &keys {
            for b in &keys {
                let (held, sought) = (MapKey::new(a.clone().into()), Sought::new(b));
                assert_eq!(held.cmp(&MapKey::new(b.clone().into())), a.cmp(b), "{a:?} {b:?}");
                let (held, sought): (&dyn Placed, &dyn Placed) = (&held, &sought);
                assert_eq!(held.cmp(sought), a.cmp(b), "{a:?} {b:?}");
            }
        }
    }
}
