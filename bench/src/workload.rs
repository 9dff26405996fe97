//! What is asked for: keys, values, and the drawing of both. Pure.
//!
//! In: a point, randomness. Out: the next record and whether to write it. A record that a put is
//! under way for is not drawn for another one where the keyspace keeps siblings. Absent: requests.

use crate::point::{Keys, Mix, Policy};
use anyhow::Result;
use bytes::Bytes;
use rand::{Rng, RngCore, rngs::SmallRng};
use std::cell::{Cell, RefCell};

/// Random bytes that values are cut from, so that no value is made or copied for a request.
const POOL_BYTES: usize = 4 << 20;
const ZIPF_EXPONENT: f64 = 0.99;

/// The records of one keyspace that hold values of one size.
pub(crate) struct Records {
    pub(crate) policy: Policy,
    pub(crate) value_bytes: usize,
    keys: Vec<Bytes>,
    /// By record: which node is asked.
    nodes: Vec<usize>,
    /// By record: covers all that was stored there.
    contexts: RefCell<Vec<Bytes>>,
    /// By record: a put is under way.
    busy: Vec<Cell<bool>>,
    pool: Bytes,
}

impl Records {
    /// `node_of` says which node is asked for a key.
    pub(crate) fn new(
        policy: Policy,
        value_bytes: usize,
        count: u32,
        random: &mut SmallRng,
        node_of: impl Fn(&[u8]) -> Result<usize>,
    ) -> Result<Records> {
        let key = |record| Bytes::from(format!("{value_bytes}/user{record:010}"));
        let keys: Vec<Bytes> = (0..count).map(key).collect();
        let mut pool = vec![0; POOL_BYTES + value_bytes];
        random.fill_bytes(&mut pool);
        Ok(Records {
            policy,
            value_bytes,
            nodes: keys.iter().map(|key| node_of(key)).collect::<Result<_>>()?,
            contexts: RefCell::new(vec![Bytes::new(); keys.len()]),
            busy: vec![Cell::new(false); keys.len()],
            keys,
            pool: pool.into(),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn key(&self, record: usize) -> Bytes {
        self.keys[record].clone()
    }

    pub(crate) fn node(&self, record: usize) -> usize {
        self.nodes[record]
    }

    pub(crate) fn context(&self, record: usize) -> Bytes {
        self.contexts.borrow()[record].clone()
    }

    pub(crate) fn set_context(&self, record: usize, context: Bytes) {
        // Copied: it is a few bytes of a receive buffer that would be kept for its sake.
        self.contexts.borrow_mut()[record] = Bytes::copy_from_slice(&context);
    }

    /// Fresh random bytes.
    pub(crate) fn value(&self, random: &mut SmallRng) -> Bytes {
        let start = random.random_range(0..POOL_BYTES);
        self.pool.slice(start..start + self.value_bytes)
    }

    /// False: a put is under way.
    pub(crate) fn take(&self, record: usize) -> bool {
        self.policy == Policy::Lww || !self.busy[record].replace(true)
    }

    pub(crate) fn give_back(&self, record: usize) {
        self.busy[record].set(false);
    }
}

/// Draws records.
pub(crate) struct Draw {
    mix: Mix,
    /// Zipf: cumulative shares of the ranks, and the record of each rank.
    ranks: Option<(Vec<f64>, Vec<usize>)>,
    records: usize,
}

impl Draw {
    pub(crate) fn new(mix: Mix, keys: Keys, records: usize, random: &mut SmallRng) -> Draw {
        assert!(records > 0, "a point has records");
        let ranks = (keys == Keys::Zipf).then(|| {
            let mut sum = 0.0;
            let mut shares: Vec<f64> = Vec::with_capacity(records);
            for rank in 1..=records {
                sum += (rank as f64).powf(-ZIPF_EXPONENT);
                shares.push(sum);
            }
            shares.iter_mut().for_each(|share| *share /= sum);
            // Shuffled, so that popular keys are not neighbours.
            let mut of_rank: Vec<usize> = (0..records).collect();
            for last in (1..records).rev() {
                of_rank.swap(last, random.random_range(0..=last));
            }
            (shares, of_rank)
        });
        Draw { mix, ranks, records }
    }

    /// Whether the next request writes.
    pub(crate) fn writes(&self, random: &mut SmallRng) -> bool {
        match self.mix {
            Mix::W => true,
            Mix::A => random.random(),
            Mix::C | Mix::Echo => false,
        }
    }

    /// The next record.
    pub(crate) fn record(&self, random: &mut SmallRng) -> usize {
        match &self.ranks {
            None => random.random_range(0..self.records),
            Some((shares, of_rank)) => {
                let point: f64 = random.random();
                let rank = shares.partition_point(|share| *share <= point);
                of_rank[rank.min(self.records - 1)]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn shares(keys: Keys) -> Vec<f64> {
        let mut random = SmallRng::seed_from_u64(7);
        let draw = Draw::new(Mix::W, keys, 1_000, &mut random);
        let mut counts = vec![0_u32; 1_000];
        for _ in 0..200_000 {
            counts[draw.record(&mut random)] += 1;
        }
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts.into_iter().map(|count| f64::from(count) / 200_000.0).collect()
    }

    #[test]
    fn zipf_draws_the_first_rank_about_twice_as_often_as_the_second_and_uniform_does_not() {
        let zipf = shares(Keys::Zipf);
        // 1 / sum of 1/rank^0.99 up to 1,000 is 0.13.
        assert!((0.11..0.15).contains(&zipf[0]), "{}", zipf[0]);
        assert!((1.8..2.2).contains(&(zipf[0] / zipf[1])), "{} {}", zipf[0], zipf[1]);
        assert!(zipf[900] > 0.0, "the tail is drawn too");
        let uniform = shares(Keys::Uniform);
        assert!(uniform[0] < 0.0015 && uniform[999] > 0.0006, "{} {}", uniform[0], uniform[999]);
    }

    #[test]
    fn a_record_under_way_is_not_taken_twice_unless_the_last_writer_wins() {
        let mut random = SmallRng::seed_from_u64(7);
        let records = Records::new(Policy::Siblings, 10, 2, &mut random, |_| Ok(0)).expect("keys");
        assert!(records.take(1) && !records.take(1) && records.take(0));
        records.give_back(1);
        assert!(records.take(1));
        let records = Records::new(Policy::Lww, 10, 2, &mut random, |_| Ok(0)).expect("keys");
        assert!(records.take(1) && records.take(1));
        assert_eq!(records.value(&mut random).len(), 10);
    }
}
