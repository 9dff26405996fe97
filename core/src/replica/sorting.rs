//! Which operand makes a join fail, found by joining fewer of them. Pure.
//!
//! ```text
//!   a join of all fails ─▶ each is validated anew ─▶ the largest is joined with half of the rest, with
//!                                                   the other half, with quarters of a half that fails …
//! ```
//!
//! Whatever joins is joined on the way. A single operand that does not join with what has joined others is set aside; if the
//! largest joins with none of several, it is the largest; of two that do not join, the smaller. In: claims, outcomes. Out:
//! the next question, at last who is set aside. Absent: plugins.

use crate::version::{DotSet, Fragments};

/// The search after a join that failed.
pub(super) struct Sorting {
    base: DotSet,
    /// The base has joined with something.
    proven: bool,
    groups: Vec<Vec<DotSet>>,
    doubted: Vec<DotSet>,
    failing: Vec<(DotSet, String)>,
}

/// What to ask next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Validate(DotSet),
    Join(Vec<DotSet>),
    /// The search is over: these are set aside, for these reasons.
    Aside(Vec<(DotSet, String)>),
}

impl Sorting {
    /// Of the operands of a join that failed.
    pub(super) fn of(operands: &[DotSet]) -> Sorting {
        let dots = |claim: &DotSet| claim.spans().iter().map(|span| span.upto - span.after).sum::<u64>();
        let (mut base, mut most) = (DotSet::new(), 0);
        for claim in operands {
            if dots(claim) > most {
                (base, most) = (claim.clone(), dots(claim));
            }
        }
        let rest = operands.iter().filter(|claim| **claim != base).cloned().collect();
        let doubted = operands.to_vec();
        Sorting { base, proven: false, groups: vec![rest], doubted, failing: Vec::new() }
    }

    /// The next question about what there is now.
    pub(super) fn next(&mut self, now: &Fragments) -> Step {
        while let Some(claim) = self.doubted.pop() {
            if now.valid().any(|fragment| fragment.claim == claim) {
                return Step::Validate(claim);
            }
        }
        let valid: Vec<&DotSet> = now.valid().map(|fragment| &fragment.claim).collect();
        let Some(base) = valid.iter().copied().find(|claim| self.base.within(claim)).cloned() else {
            return Step::Aside(Vec::new());
        };
        while let Some(group) = self.groups.pop() {
            let mut operands: Vec<DotSet> =
                group.into_iter().filter(|claim| *claim != base && valid.contains(&claim)).collect();
            if !operands.is_empty() {
                operands.insert(0, base);
                return Step::Join(operands);
            }
        }
        let mut failing = std::mem::take(&mut self.failing);
        if !self.proven && failing.len() > 1 {
            failing.truncate(1);
            failing[0].0 = base;
        }
        Step::Aside(failing)
    }

    /// A join that it asked for succeeded.
    pub(super) fn joined(&mut self, operands: &[DotSet]) {
        self.proven = true;
        self.base = DotSet::union(operands.iter());
    }

    /// A join that it asked for failed, for a reason that lies with the operands.
    pub(super) fn failed(&mut self, operands: &[DotSet], reason: &str) {
        let group = operands.get(1..).unwrap_or_default();
        match group {
            [] => {}
            [one] => self.failing.push((one.clone(), reason.to_owned())),
            several => {
                let (first, second) = several.split_at(several.len() / 2);
                self.groups.push(second.to_vec());
                self.groups.push(first.to_vec());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ActorId, Dot};
    use crate::version::{Stamp, Standing};
    use bytes::Bytes;

    fn dot(actor: u64) -> Dot {
        Dot { actor: ActorId(actor), counter: 1 }
    }

    /// Runs a search in which a join fails if it is of one of `bad` and of anything else.
    fn search(count: u64, bad: &[u64]) -> (Vec<u64>, Fragments, usize) {
        let mut state = Fragments::default();
        for actor in 1..=count {
            state.put(dot(actor), 0, Stamp::default(), Bytes::from(vec![b'x']), Standing::valid(1));
        }
        let fails = |claims: &[DotSet]| {
            let of = |actor: &u64| claims.iter().any(|claim| claim.contains(dot(*actor)));
            bad.iter().any(of)
        };
        let all: Vec<DotSet> = state.iter().map(|fragment| fragment.claim.clone()).collect();
        let mut sorting = Sorting::of(&all);
        let (mut joins, mut validated) = (0, 0);
        loop {
            match sorting.next(&state) {
                Step::Validate(_) => validated += 1,
                Step::Join(operands) => {
                    joins += 1;
                    if fails(&operands) {
                        sorting.failed(&operands, "it does not join");
                    } else {
                        state.joined(&operands, Bytes::from(vec![b'x']), Standing::valid(1));
                        sorting.joined(&operands);
                    }
                }
                Step::Aside(aside) => {
                    assert_eq!(validated, count as usize);
                    let named =
                        |(claim, _): &(DotSet, String)| (1..=count).find(|actor| claim.contains(dot(*actor)));
                    return (aside.iter().filter_map(named).collect(), state, joins);
                }
            }
        }
    }

    #[test]
    fn the_operand_that_no_join_takes_in_is_found_and_the_others_are_joined() {
        for bad in [2, 17, 40] {
            let (aside, state, joins) = search(40, &[bad]);
            assert_eq!((aside, state.len()), (vec![bad], 2), "{bad} and the join of the others");
            assert!(joins <= 14, "{joins} joins of 40 operands");
        }
        let (mut aside, state, _) = search(40, &[3, 30]);
        aside.sort_unstable();
        assert_eq!((aside, state.len()), (vec![3, 30], 3));
    }

    #[test]
    fn where_the_largest_joins_with_none_it_is_the_largest() {
        let (aside, state, _) = search(5, &[1]);
        assert_eq!((aside, state.len()), (vec![1], 5), "the others are joined next");
        assert_eq!(search(2, &[2]).0, [2], "of two the smaller");
    }
}
