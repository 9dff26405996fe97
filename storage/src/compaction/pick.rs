//! Decide: which runs to merge. Size-tiered: once `fanout` neighbours are of similar size, they become one.
//!
//! In: runs from newest to oldest. Out: a range of them, or nothing. Only neighbours in age are merged, so
//! that a run stays a contiguous piece of history and "newer hides older" needs no sequence numbers on keys. A run
//! of which something was given up hides what is older, and is only merged together with all of that.
//! Pure: no I/O, no state.

use std::ops::Range;

/// A run as the choice sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) bytes: u64,
    /// Being compacted already, or damaged.
    pub(crate) aside: bool,
    /// Some of it was given up.
    pub(crate) excised: bool,
    /// Bytes of older runs that this one hides, an estimate.
    pub(crate) hidden_bytes: u64,
}

/// When hidden bytes are worth a merge.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Garbage {
    /// Their part in what would be rewritten, in percent.
    pub(crate) percent: u64,
    /// Fewer are not worth it.
    pub(crate) bytes_min: u64,
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
    fn of(&self, bytes: u64) -> u32 {
        let mut tier = 0;
        let mut limit = self.base_bytes.max(1);
        while bytes > limit {
            limit = limit.saturating_mul(self.fanout as u64);
            tier += 1;
        }
        tier
    }
}

/// The neighbours to merge next, newest first; the lowest tier that is full goes first.
pub(crate) fn pick(runs: &[Run], tiers: Tiers) -> Option<Range<usize>> {
    assert!(tiers.fanout >= 2, "merging fewer than two runs makes no progress");
    let (free, fused_from) = free(runs);
    // What was given up and all that is older count as one run.
    let mut tier_of: Vec<Option<u32>> =
        runs[..fused_from].iter().zip(&free).map(|(run, free)| free.then(|| tiers.of(run.bytes))).collect();
    if fused_from < runs.len() {
        tier_of.push(Some(tiers.of(runs[fused_from..].iter().map(|run| run.bytes).sum())));
    }
    let highest = tier_of.iter().flatten().max().copied()?;
    let range = (0..=highest).find_map(|tier| window(&tier_of, tier, tiers.fanout))?;
    Some(if range.end > fused_from { range.start..runs.len() } else { range })
}

/// The runs that hide the most, with all that is older, where that is worth it: overwritten and removed data goes only
/// when it meets what hides it.
pub(crate) fn hiding(runs: &[Run], garbage: Garbage) -> Option<Range<usize>> {
    let (free, _) = free(runs);
    let (mut bytes, mut hidden, mut best) = (0u64, 0u64, None);
    for at in (0..runs.len()).rev() {
        if !free[at] {
            break;
        }
        // No more can be hidden than there is.
        hidden = (hidden + runs[at].hidden_bytes).min(bytes);
        bytes += runs[at].bytes;
        let worth = hidden >= garbage.bytes_min.max(1) && hidden * 100 >= bytes * garbage.percent;
        if worth && best.as_ref().is_none_or(|(most, _)| hidden > *most) {
            best = Some((hidden, at..runs.len()));
        }
    }
    best.map(|(_, range)| range)
}

/// One run to be written anew by itself, or with what must go with it; `None` if that has to wait.
pub(crate) fn alone(runs: &[Run], at: usize) -> Option<Range<usize>> {
    let (free, fused_from) = free(runs);
    free[at].then(|| if at >= fused_from { fused_from..runs.len() } else { at..at + 1 })
}

/// The newest stretch that is not as small as it can be; `has_removes` tells of a run by its place.
pub(crate) fn whole_stretch(runs: &[Run], has_removes: impl Fn(usize) -> bool) -> Option<Range<usize>> {
    let (free, _) = free(runs);
    let mut start = 0;
    while start < runs.len() {
        let len = free[start..].iter().take_while(|free| **free).count();
        let range = start..start + len;
        let is_bottom = range.end == runs.len();
        if len > 1 || (len == 1 && is_bottom && (has_removes(start) || runs[start].excised)) {
            return Some(range);
        }
        start = range.end.max(start + 1);
    }
    None
}

/// Which runs may be merged at all, and from where on the rest only goes as a whole.
fn free(runs: &[Run]) -> (Vec<bool>, usize) {
    let bottom = runs.iter().rposition(|run| run.aside).map_or(0, |at| at + 1);
    let fused_from = (bottom..runs.len()).find(|at| runs[*at].excised).unwrap_or(runs.len());
    let may = |(at, run): (usize, &Run)| !run.aside && (!run.excised || at >= bottom);
    (runs.iter().enumerate().map(may).collect(), fused_from)
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

    /// Sizes newest first, `x` after a size for what is set aside, `e` for what has something given up.
    fn parse(runs: &str) -> Vec<Run> {
        let parse = |word: &str| Run {
            bytes: word.trim_end_matches(['x', 'e']).parse().expect("a size"),
            aside: word.contains('x'),
            excised: word.contains('e'),
            hidden_bytes: 0,
        };
        runs.split_whitespace().map(parse).collect()
    }

    /// The base is 1, the fanout 4.
    fn check(runs: &str, expected: Option<Range<usize>>) {
        let runs = parse(runs);
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
    fn what_was_given_up_is_merged_only_with_all_that_is_older() {
        for (runs, expected) in [
            // It and what is older count as one run of their sizes together.
            ("1 1 1 1e", Some(0..4)),
            ("4 4 4 1e 1 1 1", Some(0..7)),
            ("1 1 1 1e 1 1 1", None),
            ("1 1 1 1 1e 16", Some(0..4)),
            // While something older is set aside, it is too.
            ("1 1 1 1e 1x", None),
            ("1 1 1 1 1e 1x 1 1 1 1", Some(6..10)),
            ("1e 1x 1 1 1e 1", None),
        ] {
            check(runs, expected);
        }
        assert_eq!(alone(&parse("1 1 1"), 1), Some(1..2));
        assert_eq!(alone(&parse("1 1e 1"), 1), Some(1..3));
        assert_eq!(alone(&parse("1 1e 1x"), 1), None);
    }

    #[test]
    fn everything_becomes_as_few_runs_as_what_is_set_aside_allows() {
        for (runs, expected) in [
            ("", None),
            ("1", None),
            ("1e", Some(0..1)),
            ("1 1e 1", Some(0..3)),
            ("1 1 1x 1 1", Some(0..2)),
            ("1 1x 1 1", Some(2..4)),
            ("1 1e 1 1x 1", None),
            ("1 1x", None),
        ] {
            assert_eq!(whole_stretch(&parse(runs), |_| false), expected, "{runs}");
        }
        assert_eq!(whole_stretch(&parse("1x 1"), |_| true), Some(1..2));
        assert_eq!(whole_stretch(&parse("1 1x"), |_| true), None, "removes still hide what is older");
    }

    #[test]
    fn a_thousand_flushes_leave_few_runs_and_rewrite_each_byte_few_times() {
        let mut runs: Vec<Run> = Vec::new();
        let mut rewritten = 0;
        for _ in 0..1000 {
            runs.insert(0, Run { bytes: 1, aside: false, excised: false, hidden_bytes: 0 });
            while let Some(range) = pick(&runs, Tiers { base_bytes: 1, fanout: 4 }) {
                let bytes = runs[range.clone()].iter().map(|run| run.bytes).sum();
                rewritten += bytes;
                runs.splice(range, [Run { bytes, aside: false, excised: false, hidden_bytes: 0 }]);
            }
            assert!(runs.len() <= 3 * 6, "{runs:?}");
        }
        assert_eq!(runs.iter().map(|run| run.bytes).sum::<u64>(), 1000);
        assert!(rewritten <= 1000 * 5, "{rewritten}");
    }
    /// Bytes and, after a colon, what is hidden, newest first; `x` and `e` as above.
    fn check_hiding(runs: &str, expected: Option<Range<usize>>) {
        let parse = |word: &str| {
            let (run, hidden) = word.split_once(':').unwrap_or((word, "0"));
            Run { hidden_bytes: hidden.parse().expect("a size"), ..parse(run)[0] }
        };
        let runs: Vec<Run> = runs.split_whitespace().map(parse).collect();
        assert_eq!(hiding(&runs, Garbage { percent: 50, bytes_min: 10 }), expected, "{runs:?}");
    }

    #[test]
    fn runs_that_hide_half_of_what_is_older_are_merged_with_it() {
        for (runs, expected) in [
            ("", None),
            ("100", None),
            ("1 100", None),
            // Removes of nearly all.
            ("1:90 100", Some(0..2)),
            ("1 1:90 100", Some(1..3)),
            ("1:90 38 38 38", Some(0..4)),
            // Together they hide enough.
            ("10:30 10:40 100", Some(0..3)),
            ("100:40 100", None),
            // An estimate beyond what there is counts as all.
            ("1:900 9", None),
            ("1:900 19", Some(0..2)),
            // Only what is free, down to the oldest.
            ("1:90 100x", None),
            ("1x 1:90 100", Some(1..3)),
            ("1:90 1x 100", None),
            ("1e:90 100", Some(0..2)),
        ] {
            check_hiding(runs, expected);
        }
    }

    #[test]
    fn whatever_is_hidden_every_choice_is_of_free_runs_down_to_the_oldest_and_ends() {
        let mut state = 7u64;
        let mut below = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        for _ in 0..2_000 {
            let mut runs: Vec<Run> = (0..below(9))
                .map(|_| Run {
                    bytes: 1 + below(1_000),
                    aside: below(8) == 0,
                    excised: below(8) == 0,
                    hidden_bytes: below(1_500),
                })
                .collect();
            let rule = Garbage { percent: 20 + below(60), bytes_min: below(300) };
            let mut merges = 0;
            while let Some(range) = hiding(&runs, rule) {
                assert_eq!(range.end, runs.len());
                assert!(range.len() >= 2 && runs[range.clone()].iter().all(|run| !run.aside));
                // The oldest hides nothing, so that what was merged is not merged again for what it hid.
                let bytes = runs[range.clone()].iter().map(|run| run.bytes).sum();
                runs.splice(range, [Run { bytes, aside: false, excised: false, hidden_bytes: 0 }]);
                merges += 1;
                assert!(merges <= 9, "{runs:?}");
            }
        }
    }
}
