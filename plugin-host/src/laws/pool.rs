//! Valid values to make cases of.

use bytes::Bytes;

use crate::call::Sibling;
use crate::laws::properties::Prover;
use crate::laws::{Corpus, Law};
use crate::plugin::World;

/// Values the plugin is asked to generate.
const GENERATED: u64 = 48;
/// Mutations tried; those that `validate` accepts join the pool.
const MUTATIONS: u32 = 64;
/// Plain values, for plugins without a generator that take what is plain.
const PLAIN: [&[u8]; 9] = [b"a", b"b", b"abc", b"", b"1", b"2", b"{}", b"[]", b"\xff\x00"];

/// Reproducible choices (SplitMix64): the same seed gives the same cases on every machine and in every version.
pub(super) struct Choices(u64);

impl Choices {
    pub(super) fn new(seed: u64) -> Choices {
        Choices(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        debug_assert!(bound > 0);
        (self.next() % bound as u64) as usize
    }
}

/// See the head of this file.
pub(super) struct Pool {
    choices: Choices,
    values: Vec<Bytes>,
    operations: Vec<Bytes>,
    /// Values that `validate` did not survive, to be shown under L8.
    poisons: Vec<Bytes>,
    rejected_samples: Vec<(usize, String)>,
}

impl Pool {
    pub(super) fn fill(prover: &Prover<'_>, corpus: &Corpus, seed: u64) -> Pool {
        let choices = Choices::new(seed);
        let (values, operations, poisons, rejected_samples) = Default::default();
        let mut pool = Pool { choices, values, operations, poisons, rejected_samples };
        for (index, value) in corpus.values.iter().enumerate() {
            if let Err(message) = pool.offer(prover, value.clone()) {
                pool.rejected_samples.push((index, message));
            }
        }
        for value in corpus.conflicts.iter().flatten().filter_map(|sibling| sibling.content.clone()) {
            let _ = pool.offer(prover, value);
        }
        for n in 0..GENERATED {
            let seed: Vec<u8> = (0..=n % 4).flat_map(|_| pool.choices.next().to_le_bytes()).collect();
            let seed = &seed[..seed.len() - (n % 8) as usize];
            if let Some(value) = prover.generate(seed) {
                let _ = pool.offer(prover, value);
            }
            pool.operations.extend(prover.generate_operation(seed));
        }
        pool.operations.extend(corpus.operations.iter().cloned());
        if pool.values.len() < 3 {
            for plain in PLAIN {
                let _ = pool.offer(prover, Bytes::from_static(plain));
            }
        }
        let whole = pool.values.len();
        for _ in 0..if whole == 0 { 0 } else { MUTATIONS } {
            let at = pool.choices.below(whole);
            let mutated = pool.mutate(&pool.values[at].clone());
            let _ = pool.offer(prover, mutated);
        }
        pool
    }

    /// Takes a value that the plugin accepts.
    fn offer(&mut self, prover: &Prover<'_>, value: Bytes) -> Result<(), String> {
        match prover.accepts(&value) {
            Ok(true) if self.values.contains(&value) => Ok(()),
            Ok(true) => {
                self.values.push(value);
                Ok(())
            }
            Ok(false) => Err(prover.why_rejected(&value)),
            Err(failure) => {
                self.poisons.push(value);
                Err(failure.to_string())
            }
        }
    }

    fn mutate(&mut self, value: &Bytes) -> Bytes {
        let mut bytes = value.to_vec();
        for _ in 0..=self.choices.below(3) {
            let at = self.choices.below(bytes.len() + 1);
            match self.choices.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.choices.next() as u8),
                2 if at < bytes.len() => _ = bytes.remove(at),
                _ if at < bytes.len() => bytes[at] ^= 1 << self.choices.below(8),
                _ => bytes.push(0xff),
            }
        }
        bytes.into()
    }

    pub(super) fn rejected_samples(&self) -> Vec<(usize, String)> {
        self.rejected_samples.clone()
    }

    /// A case for the law; none where there is nothing to make it of.
    pub(super) fn case(&mut self, law: Law, world: World) -> Option<Vec<Sibling>> {
        if law == Law::Resources
            && let Some(poison) = self.poisons.pop()
        {
            return Some(vec![self.sibling(Some(poison))]);
        }
        if self.values.is_empty() {
            return None;
        }
        if law == Law::Inflation {
            if self.operations.is_empty() {
                return None;
            }
            let (state, op) =
                (self.choices.below(self.values.len()), self.choices.below(self.operations.len()));
            let (state, op) = (self.values[state].clone(), self.operations[op].clone());
            return Some(vec![self.sibling(Some(state)), self.sibling(Some(op))]);
        }
        let fewest = law.items_min(world);
        let most = match law {
            Law::Resources => 64,
            Law::Associative | Law::Idempotent => fewest,
            _ => 5,
        };
        let count = fewest + self.choices.below(most - fewest + 1);
        // A deletion among them, but not where the law speaks of values alone.
        let deletions = matches!(law, Law::Deterministic | Law::Order) && world == World::Resolver;
        let mut case: Vec<Sibling> = (0..count)
            .map(|n| {
                let deleted = deletions && n > 0 && self.choices.below(10) == 0;
                let at = self.choices.below(self.values.len());
                let value = self.values[at].clone();
                self.sibling((!deleted).then_some(value))
            })
            .collect();
        if world == World::Resolver {
            case = canonical(case);
        }
        Some(case)
    }

    fn sibling(&mut self, content: Option<Bytes>) -> Sibling {
        let dot = (1 + self.choices.below(5) as u64, 1 + self.choices.next() % (1 << 40));
        let (millis, logical) = (1_000 + self.choices.below(4) as u64, self.choices.below(2) as u32);
        Sibling { dots: vec![dot], millis, logical, content, content_type: None }
    }
}

/// As R1 shows siblings: by dot, equal bytes once with all their dots.
pub(super) fn canonical(siblings: Vec<Sibling>) -> Vec<Sibling> {
    let mut distinct: Vec<Sibling> = Vec::new();
    for sibling in siblings {
        match distinct.iter_mut().find(|known| known.content == sibling.content) {
            Some(known) => {
                known.dots.extend(sibling.dots);
                (known.millis, known.logical) =
                    (known.millis, known.logical).max((sibling.millis, sibling.logical));
            }
            None => distinct.push(sibling),
        }
    }
    for sibling in &mut distinct {
        sibling.dots.sort_unstable();
        sibling.dots.dedup();
    }
    distinct.sort_by(|a, b| a.dots.cmp(&b.dots));
    distinct
}
