//! Decide: which runs to merge. Size-tiered: once `fanout` neighbours are of similar size, they become one.
//!
//! In: runs from newest to oldest. Out: a range of them, or nothing. Only neighbours in age are merged, so
//! that a run stays a contiguous piece of history and "newer hides older" needs no sequence numbers on keys.
//! Pure: no I/O, no state.

use std::ops::Range;

/// A run as the choice sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) bytes: u64,
    /// Being compacted already.
    pub(crate) busy: bool,
}

/// The sizes that make runs similar.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tiers {
    /// Runs up to this size are of the lowest tier.
    pub(crate) base_bytes: u64,
    /// Each tier holds runs up to so many times larger; so many of them merge.
    pub(crate) fanout: usize,
}

impl Tiers {
    fn of(&self, run: &Run) -> u32 {
        let mut tier = 0;
        let mut limit = self.base_bytes.max(1);
        while run.bytes > limit {
            limit = limit.saturating_mul(self.fanout as u64);
            tier += 1;
        }
        tier
    }
}

/// The neighbours to merge next, newest first; the lowest tier that is full goes first.
pub(crate) fn pick(runs: &[Run], tiers: Tiers) -> Option<Range<usize>> {
    assert!(tiers.fanout >= 2, "merging fewer than two runs makes no progress");
    let tier_of: Vec<Option<u32>> = runs.iter().map(|run| (!run.busy).then(|| tiers.of(run))).collect();
    let highest = tier_of.iter().flatten().max().copied()?;
    (0..=highest).find_map(|tier| window(&tier_of, tier, tiers.fanout))
}

/// The oldest stretch of idle runs, none above `tier`, that begins and ends with that tier and holds at least
/// `fanout` of it.
fn window(tier_of: &[Option<u32>], tier: u32, fanout: usize) -> Option<Range<usize>> {
    let mut end = tier_of.len();
    while end > 0 {
        let stretch = tier_of[..end].iter().rev().take_while(|t| t.is_some_and(|t| t <= tier)).count();
        let range = end - stretch..end;
        let members: Vec<usize> = range.clone().filter(|at| tier_of[*at] == Some(tier)).collect();
        if members.len() >= fanout {
            return Some(members[0]..members[members.len() - 1] + 1);
        }
        end = range.start.saturating_sub(usize::from(stretch == 0)).min(end - 1);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes newest first, `x` after a size for busy; the base is 1, the fanout 4.
    fn check(runs: &str, expected: Option<Range<usize>>) {
        let parse = |word: &str| Run {
            bytes: word.trim_end_matches('x').parse().expect("a size"),
            busy: word.ends_with('x'),
        };
        let runs: Vec<Run> = runs.split_whitespace().map(parse).collect();
        assert_eq!(pick(&runs, Tiers { base_bytes: 1, fanout: 4 }), expected, "{runs:?}");
    }

    #[test]
    fn four_similar_neighbours_become_one() {
        for (runs, expected) in [
            ("", None),
            ("1 1 1", None),
            ("1 1 1 1", Some(0..4)),
            ("1 1 1 1 1", Some(0..5)),
            ("1 1 1 4 4 4", None),
            ("1 1 1 1 4 4 4", Some(0..4)),
            // Newer, smaller runs are not dragged along …
            ("1 1 4 4 4 4", Some(2..6)),
            // … but those between are.
            ("4 1 4 1 4 4", Some(0..6)),
            // A larger run parts its neighbours: order in age is sacred.
            ("1 1 16 1 1", None),
            ("1 1 1 1 16 1 1 1 1", Some(5..9)),
            // What is being compacted is left alone, and parts too.
            ("1x 1x 1x 1x 1 1 1 1", Some(4..8)),
            ("1 1 1x 1 1", None),
            // The lowest full tier goes first.
            ("1 1 1 1 4 4 4 4", Some(0..4)),
            ("16 16 16 16", Some(0..4)),
            ("3 2 4 3 16", Some(0..4)),
        ] {
            check(runs, expected);
        }
    }

    #[test]
    fn a_thousand_flushes_leave_few_runs_and_rewrite_each_byte_few_times() {
        let mut runs: Vec<Run> = Vec::new();
        let mut rewritten = 0;
        for _ in 0..1000 {
            runs.insert(0, Run { bytes: 1, busy: false });
            while let Some(range) = pick(&runs, Tiers { base_bytes: 1, fanout: 4 }) {
                let bytes = runs[range.clone()].iter().map(|run| run.bytes).sum();
                rewritten += bytes;
                runs.splice(range, [Run { bytes, busy: false }]);
            }
            assert!(runs.len() <= 3 * 6, "{runs:?}");
        }
        assert_eq!(runs.iter().map(|run| run.bytes).sum::<u64>(), 1000);
        assert!(rewritten <= 1000 * 5, "{rewritten}");
    }
}
