//! Which of many sets of dots lie within another of them, without comparing every pair.
//!
//! A set lies within another only if its first span lies within a span of the other. So all spans are looked at in the
//! order of (actor, begin), with those that are still open on a stack: only sets that hold the first span of a set are
//! compared with it. Operands of distinct puts share no span, so that each is compared with the few joined values around it.
//!
//! In: distinct sets in ascending order. Out: which of them another contains. Absent: values.

use super::{DotSet, Span};
use std::cmp::Reverse;

/// For each of `claims` (distinct, ascending) whether it lies within another of them.
pub(super) fn within_another(claims: &[&DotSet]) -> Vec<bool> {
    let mut spans: Vec<(Span, bool, usize)> = Vec::with_capacity(claims.len());
    for (index, claim) in claims.iter().enumerate() {
        spans.extend(claim.spans().iter().enumerate().map(|(nth, span)| (*span, nth == 0, index)));
    }
    // Of two spans that begin together the longer one is opened first.
    spans.sort_unstable_by_key(|(span, _, index)| (span.actor, span.after, Reverse(span.upto), *index));
    let mut within = vec![false; claims.len()];
    let mut open: Vec<(Span, usize)> = Vec::new();
    for equal in spans.chunk_by(|(one, ..), (other, ..)| one == other) {
        let span = equal[0].0;
        open.retain(|(other, at)| !within[*at] && other.actor == span.actor && other.upto > span.after);
        open.extend(
            equal.iter().filter(|(_, _, index)| !within[*index]).map(|(span, _, index)| (*span, *index)),
        );
        for (_, _, index) in equal.iter().filter(|(_, is_first, _)| *is_first) {
            let contains = |(other, at): &(Span, usize)| {
                at != index && other.upto >= span.upto && claims[*index].within(claims[*at])
            };
            within[*index] = open.iter().any(contains);
        }
    }
    within
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ActorId, Dot};
    use crate::version::clock;

    fn all_pairs(claims: &[&DotSet]) -> Vec<bool> {
        let within = |(index, claim): (usize, &&DotSet)| {
            claims.iter().enumerate().any(|(at, other)| at != index && claim.within(other))
        };
        claims.iter().enumerate().map(within).collect()
    }

    #[test]
    fn it_finds_what_comparing_all_pairs_finds() {
        let mut seed = 7u64;
        let mut below = |bound: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % bound
        };
        for _ in 0..3_000 {
            let mut claims: Vec<DotSet> = Vec::new();
            for _ in 0..below(9) {
                let mut claim = DotSet::new();
                for _ in 0..=below(4) {
                    let (after, length) = (below(6), 1 + below(4));
                    let dot = Dot { actor: ActorId(below(3)), counter: after + length };
                    claim.join(&DotSet::single(dot, after));
                }
                claims.push(claim);
            }
            claims.sort();
            claims.dedup();
            let claims: Vec<&DotSet> = claims.iter().collect();
            assert_eq!(within_another(&claims), all_pairs(&claims), "{claims:?}");
        }
    }

    #[test]
    fn five_thousand_operands_cost_few_comparisons() {
        let operand =
            |counter: u64| DotSet::single(Dot { actor: ActorId(counter % 7), counter }, counter - 1);
        let mut claims: Vec<DotSet> = (1..=5_000).map(operand).collect();
        // A joined value of half of them, and one of other actors.
        claims.push(DotSet::union((1..=2_500).map(operand).collect::<Vec<_>>().iter()));
        claims.push(DotSet::single(Dot { actor: ActorId(9), counter: 9_000 }, 0));
        claims.sort();
        let claims: Vec<&DotSet> = claims.iter().collect();
        let before = clock::comparisons();
        let within = within_another(&claims);
        let compared = clock::comparisons() - before;
        assert_eq!(within.iter().filter(|within| **within).count(), 2_500);
        assert!(compared <= 2 * 5_000, "{compared} comparisons");
    }
}
