//! Sets of dots: what a replica has seen of a key, what a client has, what a value contains.
//!
//! Counters run over all keys of an actor, so a key's dots of one actor have gaps between them.
//! A set keeps spans `(after, upto]` between consecutive dots *of this key*: a coordinator
//! knows its own last dot of a key, so a new dot's span begins there. Normally that is one span
//! `(0, n]` for each actor, the version vector of the semantics (§3). But a set never claims a dot
//! that it does not hold (R13): not when a client saw its own put and not the sibling before it,
//! not when a fragment could not be joined with the one before it (R5).
//! See `docs/decisions/contexts-as-spans.md`.
//!
//! In: dots. Out: coverage. Absent: values.

use crate::id::{ActorId, Dot};

/// Dots `actor:n` with `after < n ≤ upto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Whose.
    pub actor: ActorId,
    /// Exclusive.
    pub after: u64,
    /// Inclusive.
    pub upto: u64,
}

/// Spans by actor, then ascending, none touching the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DotSet {
    spans: Vec<Span>,
}

impl DotSet {
    /// No dots.
    pub fn new() -> DotSet {
        DotSet::default()
    }

    /// Only `dot`, which follows `previous`, its actor's last dot of this key (0: none).
    pub fn single(dot: Dot, previous: u64) -> DotSet {
        assert!(previous < dot.counter, "a dot follows the one before it");
        DotSet { spans: vec![Span { actor: dot.actor, after: previous, upto: dot.counter }] }
    }

    /// All dots of all of these, whatever their number at the cost of sorting their spans once.
    pub fn union<'a>(sets: impl Iterator<Item = &'a DotSet>) -> DotSet {
        let mut all = DotSet { spans: sets.flat_map(|set| set.spans.iter().copied()).collect() };
        all.merge();
        all
    }

    /// From decoded spans; None unless they are in canonical form.
    pub fn from_spans(spans: Vec<Span>) -> Option<DotSet> {
        let forward = spans.iter().all(|span| span.after < span.upto);
        let apart = spans.windows(2).all(|pair| {
            pair[0].actor < pair[1].actor || (pair[0].actor == pair[1].actor && pair[0].upto < pair[1].after)
        });
        (forward && apart).then_some(DotSet { spans })
    }

    /// By actor, then ascending.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Whether `dot` is one of them.
    pub fn contains(&self, dot: Dot) -> bool {
        let at = self.spans.partition_point(|span| (span.actor, span.upto) < (dot.actor, dot.counter));
        self.spans.get(at).is_some_and(|span| span.actor == dot.actor && span.after < dot.counter)
    }

    /// The highest counter of `actor`; 0 if none.
    pub fn last(&self, actor: ActorId) -> u64 {
        let after = self.spans.partition_point(|span| span.actor <= actor);
        match after.checked_sub(1).map(|index| self.spans[index]) {
            Some(span) if span.actor == actor => span.upto,
            _ => 0,
        }
    }

    /// Also `dot`, which its actor has just issued for this key, knowing this set.
    pub fn issue(&mut self, dot: Dot) {
        self.join(&DotSet::single(dot, self.last(dot.actor)));
    }

    /// Also all of `other`.
    pub fn join(&mut self, other: &DotSet) {
        if other.within(self) {
            return;
        }
        self.spans.extend_from_slice(&other.spans);
        self.merge();
    }

    /// Canonical form of spans in any order.
    fn merge(&mut self) {
        self.spans.sort_unstable();
        self.spans.dedup_by(|span, last| {
            let meets = last.actor == span.actor && span.after <= last.upto;
            if meets {
                last.upto = last.upto.max(span.upto);
            }
            meets
        });
    }

    /// Whether every dot of this is one of `other`.
    pub fn within(&self, other: &DotSet) -> bool {
        #[cfg(test)]
        COMPARISONS.set(COMPARISONS.get() + 1);
        self.spans.iter().all(|span| {
            let at =
                other.spans.partition_point(|theirs| (theirs.actor, theirs.upto) < (span.actor, span.upto));
            other.spans.get(at).is_some_and(|theirs| theirs.actor == span.actor && theirs.after <= span.after)
        })
    }

    /// The dots of this that are not dots of `other`.
    pub fn minus(&self, other: &DotSet) -> DotSet {
        let mut left = DotSet::new();
        for span in &self.spans {
            let mut after = span.after;
            let meets =
                |cut: &&Span| cut.actor == span.actor && cut.after < span.upto && span.after < cut.upto;
            for cut in other.spans.iter().filter(meets) {
                if after < cut.after {
                    left.push(Span { after, upto: cut.after, ..*span });
                }
                after = cut.upto;
            }
            if after < span.upto {
                left.push(Span { after, ..*span });
            }
        }
        left
    }

    /// How many actors.
    pub fn actors(&self) -> usize {
        let first = |index: &usize| *index == 0 || self.spans[index - 1].actor != self.spans[*index].actor;
        (0..self.spans.len()).filter(first).count()
    }

    /// Also this span, which comes after all of them.
    pub(super) fn push(&mut self, span: Span) {
        self.spans.push(span);
    }

    /// No dots.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

#[cfg(test)]
thread_local! {
    static COMPARISONS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// How many times sets were compared by this thread: what tests count instead of time.
#[cfg(test)]
pub(crate) fn comparisons() -> u64 {
    COMPARISONS.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(actor: u64, counter: u64) -> Dot {
        Dot { actor: ActorId(actor), counter }
    }

    #[test]
    fn consecutive_dots_of_a_key_become_one_span() {
        let mut seen = DotSet::new();
        for counter in [3, 9, 40] {
            seen.issue(dot(1, counter));
        }
        assert_eq!(seen.spans(), [Span { actor: ActorId(1), after: 0, upto: 40 }]);
        assert_eq!((seen.last(ActorId(1)), seen.last(ActorId(2)), seen.actors()), (40, 0, 1));
    }

    #[test]
    fn a_dot_without_the_one_before_it_does_not_claim_it() {
        let own = DotSet::single(dot(1, 9), 3);
        assert!(own.contains(dot(1, 9)));
        assert!(!own.contains(dot(1, 3)));
        let mut joined = DotSet::single(dot(1, 3), 0);
        assert!(!own.within(&joined));
        joined.join(&own);
        assert_eq!(joined, DotSet::single(dot(1, 9), 0));
        assert!(own.within(&joined));
    }

    #[test]
    fn what_is_left_of_a_set_is_each_dot_that_the_other_lacks() {
        let spans = |spans: &[(u64, u64, u64)]| {
            let spans = spans.iter().map(|(actor, after, upto)| Span {
                actor: ActorId(*actor),
                after: *after,
                upto: *upto,
            });
            DotSet::from_spans(spans.collect()).unwrap()
        };
        let all = spans(&[(1, 0, 10), (2, 5, 6), (3, 0, 2), (3, 4, 8)]);
        for (less, left) in [
            (spans(&[]), all.clone()),
            (all.clone(), spans(&[])),
            (
                spans(&[(1, 0, 3), (1, 4, 6), (1, 9, 12)]),
                spans(&[(1, 3, 4), (1, 6, 9), (2, 5, 6), (3, 0, 2), (3, 4, 8)]),
            ),
            (spans(&[(2, 0, 5), (2, 6, 9)]), all.clone()),
            (spans(&[(1, 0, 10), (2, 0, 9), (3, 1, 5)]), spans(&[(3, 0, 1), (3, 5, 8)])),
        ] {
            assert_eq!(all.minus(&less), left);
            assert!(DotSet::from_spans(left.spans().to_vec()).is_some());
        }
    }

    #[test]
    fn only_canonical_spans_decode() {
        let span = |actor, after, upto| Span { actor: ActorId(actor), after, upto };
        assert!(DotSet::from_spans(vec![span(1, 0, 3), span(1, 4, 5), span(2, 0, 1)]).is_some());
        for bad in [
            vec![span(1, 3, 3)],
            vec![span(2, 0, 1), span(1, 0, 1)],
            vec![span(1, 0, 3), span(1, 3, 5)],
            vec![span(1, 4, 5), span(1, 0, 3)],
        ] {
            assert!(DotSet::from_spans(bad.clone()).is_none(), "{bad:?}");
        }
    }
}
