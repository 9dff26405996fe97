//! Makes siblings and keys for an author's native tests, and reproducible choices for `generate`.

use crate::{Content, Dot, KeyInfo, Operation, Sibling, Stamp};

/// A key in a keyspace called `test`, with no configuration.
pub fn key(key: &str) -> KeyInfo {
    KeyInfo { keyspace: "test".into(), key: key.into(), config: Vec::new() }
}

/// A sibling written by this actor at this time.
pub fn sibling(actor: u64, millis: u64, value: impl AsRef<[u8]>) -> Sibling {
    Sibling {
        dots: vec![Dot { actor, counter: 1 }],
        at: Stamp { millis, logical: 0 },
        content: Content::Value(value.as_ref().to_vec()),
        content_type: None,
    }
}

/// A concurrent delete by this actor at this time.
pub fn tombstone(actor: u64, millis: u64) -> Sibling {
    Sibling { content: Content::Tombstone, ..sibling(actor, millis, "") }
}

/// One sibling for each value: actors and times count up from 1.
pub fn siblings<V: AsRef<[u8]>>(values: &[V]) -> Vec<Sibling> {
    values.iter().zip(1..).map(|(value, n)| sibling(n, n, value)).collect()
}

/// An operation of this actor that follows its own one before, without an id, a millisecond after it.
pub fn operation(body: impl AsRef<[u8]>, actor: u64, counter: u64) -> Operation {
    assert!(counter > 0, "counters begin at one");
    Operation {
        body: body.as_ref().to_vec(),
        dot: Dot { actor, counter },
        previous: counter - 1,
        at: Stamp { millis: counter, logical: 0 },
        op_id: Vec::new(),
        seen: None,
    }
}

/// Reproducible choices from a seed (SplitMix64), for `generate`: a plugin has no randomness of its own.
#[derive(Debug, Clone)]
pub struct Choices(u64);

impl Choices {
    /// Choices that depend on every byte of the seed.
    pub fn new(seed: &[u8]) -> Choices {
        let mut choices = Choices(seed.len() as u64);
        for &byte in seed {
            choices.0 ^= u64::from(byte);
            choices.next();
        }
        choices
    }

    /// Any number.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below the bound, which must not be zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below zero");
        self.next() % bound
    }

    /// One of these, which must not be empty.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}
