//! What is kept of one actor: spans of its dots, each with what is said of it, none within another.
//!
//! ```text
//!   one actor:   (0, 40] sum 71    (80, 81] id, +1    (81, 82] id, -3        join: what is within a larger span goes
//! ```

use std::collections::BTreeMap;

/// Spans `(after, upto]`. Of two of which one lies within the other only the larger is kept; of two equal ones the one
/// of which more is said, by its order. So the join is a lattice on any spans, also on forged ones that overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spans<P>(BTreeMap<u64, (u64, P)>);

impl<P> Default for Spans<P> {
    fn default() -> Spans<P> {
        Spans(BTreeMap::new())
    }
}

impl<P: Ord> Spans<P> {
    /// Whether a dot of the actor is in one of them.
    pub(crate) fn contains(&self, counter: u64) -> bool {
        self.0.range(counter..).next().is_some_and(|(_, &(after, _))| after < counter)
    }

    /// The highest dot.
    pub(crate) fn upto(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(&upto, _)| upto)
    }

    /// In order: `(after, upto, what is said)`.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64, &P)> {
        self.0.iter().map(|(&upto, &(after, ref said))| (after, upto, said))
    }

    /// What is said of exactly this span.
    pub(crate) fn get(&self, after: u64, upto: u64) -> Option<&P> {
        self.0.get(&upto).filter(|(begin, _)| *begin == after).map(|(_, said)| said)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a span, unless it lies within another; those within it go.
    pub(crate) fn insert(&mut self, after: u64, upto: u64, said: P) {
        // They are in order by either end, so the first that reaches as far begins the earliest of these.
        if let Some((&end, (begin, known))) = self.0.range_mut(upto..).next()
            && *begin <= after
        {
            if (*begin, end) == (after, upto) && *known < said {
                *known = said;
            }
            return;
        }
        while let Some((&end, &(begin, _))) = self.0.range(..=upto).next_back()
            && begin >= after
        {
            self.0.remove(&end);
        }
        self.0.insert(upto, (after, said));
    }

    pub(crate) fn join(&mut self, other: &Spans<P>)
    where
        P: Clone,
    {
        other.iter().for_each(|(after, upto, said)| self.insert(after, upto, said.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use merganser_plugin_sdk::testing::Choices;

    /// Any spans, overlapping ones among them.
    fn forged(choices: &mut Choices) -> Spans<u64> {
        let mut spans = Spans::default();
        for _ in 0..choices.below(8) {
            let after = choices.below(12);
            spans.insert(after, after + 1 + choices.below(6), choices.below(3));
        }
        spans
    }

    #[test]
    fn the_join_is_a_lattice_on_any_spans() {
        let mut choices = Choices::new(b"spans");
        let join = |a: &Spans<u64>, b: &Spans<u64>| {
            let mut joined = a.clone();
            joined.join(b);
            joined
        };
        for _ in 0..20_000 {
            let (a, b, c) = (forged(&mut choices), forged(&mut choices), forged(&mut choices));
            assert_eq!(join(&a, &a), a);
            assert_eq!(join(&a, &b), join(&b, &a), "{a:?} {b:?}");
            assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)), "{a:?} {b:?} {c:?}");
            for counter in 1..20 {
                let either = a.contains(counter) || b.contains(counter);
                assert_eq!(join(&a, &b).contains(counter), either, "{counter} of {a:?} {b:?}");
            }
        }
    }
}
