//! How fast peers answer reads: whom to ask first, when to ask one more, and how often that may be.
//!
//! A quorum needs R answers, not those of the slowest: replicas that lately took much longer than
//! the fastest are asked last. Among the others the ring's order stays, so that load stays spread.
//! One read in [`PROBE_ONE_IN`] also asks a replica that it does not need, so that one that has
//! recovered is noticed. Asking one more because those asked are late (a hedge), and probing, share a
//! budget of one extra message for twenty reads: a cluster that is slow as a whole is not given
//! more work because of it. A read that the budget leaves without an answer for a third of its
//! patience asks one more regardless.
//!
//! In: when peers were asked and when they answered. Out: an order, a delay, permits. Absent: who
//! can be reached.

use crate::id::{Millis, NodeId, OpId};
use std::collections::BTreeMap;

/// One extra message costs so much of the budget …
const EXTRA: u32 = 1_000;
/// … and each read brings so much: 5 %.
const EARNED_PER_READ: u32 = 50;
/// Extra messages that may be saved up.
const SAVED_MAX: u32 = 10 * EXTRA;
/// See the head of this file.
const PROBE_ONE_IN: u64 = 32;
/// A replica is slow if it takes so many times as long as the fastest, and this much longer.
const SLOW_FACTOR: u64 = 2;
/// See [`SLOW_FACTOR`].
const SLOW_US: u64 = 2_000;
/// A new answer moves the mean by one part in so many.
const MEAN_OF: u64 = 4;
/// Answers by their time in powers of two of milliseconds, the last bucket without an end.
const BUCKETS: usize = 16;
/// After so many answers the earlier ones count half.
const SAMPLES_MAX: u32 = 512;
/// The longest answer that is told from longer ones.
const ANSWER_MS_MAX: u64 = 60_000;

/// See the head of this file.
pub(crate) struct Paces {
    /// Members only.
    peers: BTreeMap<NodeId, Pace>,
    budget: u32,
    reads: u64,
}

#[derive(Default)]
struct Pace {
    mean_us: u64,
    buckets: [u32; BUCKETS],
    samples: u32,
    /// A read that was over before this peer's answer came.
    late: Option<(OpId, Millis)>,
}

impl Default for Paces {
    fn default() -> Paces {
        Paces { peers: BTreeMap::new(), budget: SAVED_MAX, reads: 0 }
    }
}

impl Paces {
    /// A read begins that needs others; whether it is one that probes.
    pub(crate) fn begun(&mut self) -> bool {
        self.reads += 1;
        self.budget = (self.budget + EARNED_PER_READ).min(SAVED_MAX);
        self.reads.is_multiple_of(PROBE_ONE_IN)
    }

    /// Whether one more message than needed may be sent.
    pub(crate) fn spend(&mut self) -> bool {
        let left = self.budget.checked_sub(EXTRA);
        self.budget = left.unwrap_or(self.budget);
        left.is_some()
    }

    /// Sorts those that lately were much slower than the fastest to the front: best last.
    pub(crate) fn order(&self, nodes: &mut [NodeId]) {
        let mean_us = |node: &NodeId| self.peers.get(node).map_or(0, |pace| pace.mean_us);
        let fastest_us = nodes.iter().map(mean_us).min().unwrap_or(0);
        let bound_us = fastest_us * SLOW_FACTOR + SLOW_US;
        // By magnitude: two slow ones keep their order unless one is twice as slow.
        let slowness = |node: &NodeId| match mean_us(node) {
            us if us > bound_us => us.ilog2(),
            _ => 0,
        };
        nodes.sort_by_key(|node| std::cmp::Reverse(slowness(node)));
    }

    /// After how long without an answer another of these replicas would probably have given one:
    /// the time within which the fastest of them gives 95 % of its answers.
    pub(crate) fn patience_ms(&self, nodes: &[NodeId]) -> u64 {
        nodes.iter().filter_map(|node| self.peers.get(node)?.p95_ms()).min().unwrap_or(0)
    }

    /// A peer's answer took so long.
    pub(crate) fn answered(&mut self, node: NodeId, took_ms: u64) {
        self.peers.entry(node).or_default().note(took_ms);
    }

    /// A read was over, and a peer it had asked at `asked` had not answered yet.
    pub(crate) fn outrun(&mut self, node: NodeId, op: OpId, asked: Millis, now: Millis) {
        let pace = self.peers.entry(node).or_default();
        pace.late.get_or_insert((op, asked));
        // It takes at least so long; if that is no news, its answer will say.
        let at_least_ms = now.since(asked);
        if at_least_ms * 1_000 > pace.mean_us {
            pace.note(at_least_ms);
        }
        // One that never comes must not keep others from being noted.
        if pace.late.is_some_and(|(_, since)| now.since(since) > ANSWER_MS_MAX) {
            pace.late = Some((op, asked));
        }
    }

    /// An answer to a read that is over.
    pub(crate) fn came_late(&mut self, node: NodeId, op: OpId, now: Millis) {
        let Some(pace) = self.peers.get_mut(&node) else { return };
        if let Some((_, asked)) = pace.late.take_if(|(late, _)| *late == op) {
            pace.note(now.since(asked));
        }
    }

    /// Nothing that is known of a peer holds any longer: its link is new.
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.peers.remove(&node);
    }
}

impl Pace {
    fn note(&mut self, took_ms: u64) {
        let took_ms = took_ms.min(ANSWER_MS_MAX);
        let took_us = took_ms * 1_000;
        self.mean_us = match self.samples {
            0 => took_us,
            _ => (self.mean_us * (MEAN_OF - 1) + took_us) / MEAN_OF,
        };
        let bucket = (u64::BITS - took_ms.leading_zeros()) as usize;
        self.buckets[bucket.min(BUCKETS - 1)] += 1;
        self.samples += 1;
        if self.samples >= SAMPLES_MAX {
            self.buckets.iter_mut().for_each(|count| *count /= 2);
            self.samples = self.buckets.iter().sum::<u32>().max(1);
        }
    }

    fn p95_ms(&self) -> Option<u64> {
        let all: u32 = self.buckets.iter().sum();
        let mut slower = all;
        for (bucket, count) in self.buckets.iter().enumerate() {
            slower -= count;
            if all > 0 && slower * 20 <= all {
                // The bucket's end.
                return Some(1 << bucket);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);

    fn order(paces: &Paces, nodes: [NodeId; 3]) -> [NodeId; 3] {
        let mut nodes = nodes;
        paces.order(&mut nodes);
        nodes
    }

    #[test]
    fn a_replica_that_became_much_slower_is_asked_last_and_first_again_once_it_recovered() {
        let mut paces = Paces::default();
        for _ in 0..10 {
            for (node, took_ms) in [(A, 1), (B, 0), (C, 1)] {
                paces.answered(node, took_ms);
            }
        }
        // About equal: the order of the ring stays.
        assert_eq!(order(&paces, [A, B, C]), [A, B, C]);
        (0..3).for_each(|_| paces.answered(C, 100));
        assert_eq!(order(&paces, [A, B, C]), [C, A, B]);
        (0..30).for_each(|_| paces.answered(C, 1));
        assert_eq!(order(&paces, [A, B, C]), [A, B, C]);
    }

    #[test]
    fn silence_counts_as_slowness_before_any_answer() {
        let mut paces = Paces::default();
        paces.answered(A, 1);
        paces.answered(B, 1);
        paces.outrun(B, OpId(1), Millis(0), Millis(20));
        assert_eq!(order(&paces, [C, A, B]), [B, C, A]);
        // The late answer is the whole truth.
        paces.came_late(B, OpId(1), Millis(500));
        assert!(paces.peers[&B].mean_us > 100_000);
    }

    #[test]
    fn twenty_reads_pay_for_one_extra_message() {
        let mut paces = Paces::default();
        while paces.spend() {}
        let spent = |paces: &mut Paces| {
            let mut spent = 0;
            for _ in 0..1_000 {
                paces.begun();
                spent += u32::from(paces.spend());
            }
            spent
        };
        assert_eq!(spent(&mut paces), 50);
    }

    #[test]
    fn patience_follows_the_fastest_of_the_replicas_and_forgets_old_times() {
        let mut paces = Paces::default();
        assert_eq!(paces.patience_ms(&[A, B]), 0);
        for _ in 0..100 {
            paces.answered(A, 3);
            paces.answered(B, 70);
        }
        (0..4).for_each(|_| paces.answered(A, 900));
        assert_eq!(paces.patience_ms(&[A, B]), 4);
        assert_eq!(paces.patience_ms(&[B]), 128);
        (0..5_000).for_each(|_| paces.answered(B, 1));
        assert_eq!(paces.patience_ms(&[B]), 2);
    }
}
