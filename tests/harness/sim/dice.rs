//! Seeded chance: the same throws for the same seed, whatever versions of crates are about.
//!
//! In: a seed. Out: numbers (splitmix64). Each concern of a run throws dice of its own
//! ([`Dice::fork`]), so that one more fault does not change what the clients do. Absent: any
//! other source of chance in this crate.

/// A generator.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// With this seed.
    pub(super) fn new(seed: u64) -> Dice {
        Dice(seed ^ 0x6d65_7267_616e_7365)
    }

    /// Dice of their own for a concern.
    pub(super) fn fork(&mut self, label: u64) -> Dice {
        Dice(self.next() ^ label.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Any number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// 0 to `bound`, exclusive; 0 for a bound of 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// `low` to `high`, both inclusive.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True `permille` times in a thousand.
    pub(super) fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// One of them; None of nothing.
    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len() as u64) as usize)
    }
}

/// A well-spread function of its input.
pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
