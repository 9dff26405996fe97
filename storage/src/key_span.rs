//! Half-open pieces of the ordered keys, as damage and its repair name them.
//!
//! In: keys and spans. Out: whether one is in the other, and what is left of one without others. Deliberately
//! absent: the bounds of a walk (`KeyRange`), which may be open at either end.

use std::ops::Bound;

use bytes::Bytes;

/// The keys from `from` (included) to `to` (excluded).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeySpan {
    /// The first key inside.
    pub from: Bytes,
    /// The first key behind.
    pub to: Bytes,
}

impl KeySpan {
    /// One key alone.
    pub fn of_key(key: &[u8]) -> KeySpan {
        KeySpan { from: Bytes::copy_from_slice(key), to: successor(key) }
    }

    /// Whether a key is inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.from <= key && key < self.to.as_ref()
    }

    /// What both hold; `None` if that is nothing.
    pub fn intersection(&self, other: &KeySpan) -> Option<KeySpan> {
        let (from, to) = ((&self.from).max(&other.from).clone(), (&self.to).min(&other.to).clone());
        (from < to).then_some(KeySpan { from, to })
    }

    /// The part that a walk with these bounds comes to.
    pub(crate) fn within(self, from: &Bound<Vec<u8>>, to: &Bound<Vec<u8>>) -> Option<KeySpan> {
        let first = match from {
            Bound::Included(key) => Bytes::copy_from_slice(key),
            Bound::Excluded(key) => successor(key),
            Bound::Unbounded => Bytes::new(),
        };
        let behind = match to {
            Bound::Included(key) => successor(key),
            Bound::Excluded(key) => Bytes::copy_from_slice(key),
            Bound::Unbounded => self.to.clone(),
        };
        self.intersection(&KeySpan { from: first, to: behind })
    }

    /// What is left without `others`, which are in order and apart.
    pub(crate) fn without(&self, others: &[KeySpan]) -> Vec<KeySpan> {
        let mut left = Vec::new();
        let mut from = self.from.clone();
        for other in others.iter().filter_map(|other| self.intersection(other)) {
            if from < other.from {
                left.push(KeySpan { from, to: other.from });
            }
            from = other.to;
        }
        if from < self.to {
            left.push(KeySpan { from, to: self.to.clone() });
        }
        left
    }
}

/// The next key after one.
pub(crate) fn successor(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// Whether one of `spans`, which are in order and apart, holds a key.
pub(crate) fn any_contains(spans: &[KeySpan], key: &[u8]) -> bool {
    let after = spans.partition_point(|span| span.from <= key);
    after.checked_sub(1).is_some_and(|at| spans[at].contains(key))
}

/// Adds a span to `spans`, which stay in order and apart: those that touch become one.
pub(crate) fn add(spans: &mut Vec<KeySpan>, mut span: KeySpan) {
    let first = spans.partition_point(|held| held.to < span.from);
    let behind = spans.partition_point(|held| held.from <= span.to);
    if first < behind {
        span.from = span.from.min(spans[first].from.clone());
        span.to = span.to.max(spans[behind - 1].to.clone());
    }
    spans.splice(first..behind.max(first), [span]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> KeySpan {
        let (from, to) = text.split_once('-').expect("a dash");
        KeySpan { from: Bytes::from(from.to_owned()), to: Bytes::from(to.to_owned()) }
    }

    fn spans(text: &str) -> Vec<KeySpan> {
        text.split_whitespace().map(span).collect()
    }

    #[test]
    fn spans_that_touch_become_one_and_others_stay_in_order() {
        for (held, added, expected) in [
            ("", "c-d", "c-d"),
            ("a-b e-f", "c-d", "a-b c-d e-f"),
            ("a-b e-f", "b-e", "a-f"),
            ("a-b e-f", "a-c", "a-c e-f"),
            ("a-f", "b-c", "a-f"),
            ("b-c d-e f-g", "a-z", "a-z"),
            ("b-c", "a-b", "a-c"),
        ] {
            let mut held = spans(held);
            add(&mut held, span(added));
            assert_eq!(held, spans(expected), "{added}");
        }
    }

    #[test]
    fn what_is_left_without_others_is_what_they_do_not_hold() {
        for (whole, others, expected) in [
            ("b-f", "", "b-f"),
            ("b-f", "a-z", ""),
            ("b-f", "a-c", "c-f"),
            ("b-f", "c-d e-z", "b-c d-e"),
            ("b-f", "a-b f-z", "b-f"),
        ] {
            assert_eq!(span(whole).without(&spans(others)), spans(expected), "{whole} without {others}");
        }
        let held = spans("b-c e-g");
        let inside = |key: &str| any_contains(&held, key.as_bytes());
        assert!(inside("b") && inside("ba") && inside("f") && !inside("c") && !inside("a") && !inside("g"));
    }
}
