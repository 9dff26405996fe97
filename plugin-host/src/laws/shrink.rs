//! Makes a counterexample small: fewer items, then fewer and simpler bytes, as long as it stays valid and stays broken.

use bytes::Bytes;

use crate::call::Sibling;
use crate::laws::Law;
use crate::laws::pool::canonical;
use crate::laws::properties::{Outcome, Prover};
use crate::plugin::World;

/// Candidates tried in all: a few seconds for a slow plugin, less than one for others.
const ATTEMPTS_MAX: u32 = 600;

/// The smallest case found that still breaks the law. Requires: this one does.
pub(super) fn shrink(prover: &Prover<'_>, law: Law, case: Vec<Sibling>) -> (Vec<Sibling>, Outcome) {
    let outcome = prover.outcome(law, &case);
    let only_valid = prover.is_valid(law, &case);
    let mut search = Search { prover, law, best: (case, outcome), attempts_left: ATTEMPTS_MAX, only_valid };
    while search.round() {}
    search.best
}

struct Search<'a, 'b> {
    prover: &'a Prover<'b>,
    law: Law,
    best: (Vec<Sibling>, Outcome),
    attempts_left: u32,
    /// What does not survive `validate` to begin with cannot be held to it.
    only_valid: bool,
}

impl Search<'_, '_> {
    /// One pass over everything that could be left out; says whether something was.
    fn round(&mut self) -> bool {
        let mut progress = false;
        let fewest = self.law.items_min(self.prover.world());
        let mut at = 0;
        while self.law != Law::Inflation && at < self.best.0.len() && self.best.0.len() > fewest {
            let mut fewer = self.best.0.clone();
            fewer.remove(at);
            match self.attempt(fewer) {
                true => progress = true,
                false => at += 1,
            }
        }
        for at in 0..self.best.0.len() {
            progress |= self.shorten(at);
            progress |= self.simplify(at);
        }
        progress && self.attempts_left > 0
    }

    /// Cuts pieces out of one item's bytes, large ones first.
    fn shorten(&mut self, item: usize) -> bool {
        let mut progress = false;
        let mut piece = self.content(item).len();
        while piece > 0 {
            let mut from = 0;
            while from < self.content(item).len() {
                let bytes = self.content(item);
                let to = bytes.len().min(from + piece);
                let shorter = [&bytes[..from], &bytes[to..]].concat();
                match self.attempt_content(item, shorter.into()) {
                    true => progress = true,
                    false => from += piece,
                }
                if self.attempts_left == 0 {
                    return progress;
                }
            }
            piece /= 2;
        }
        progress
    }

    /// Replaces bytes by plainer ones, if they are not plain already.
    fn simplify(&mut self, item: usize) -> bool {
        let mut progress = false;
        for at in 0..self.content(item).len() {
            for plain in [b'a', b'0'] {
                let mut bytes = self.content(item).to_vec();
                if bytes.get(at).is_some_and(|byte| !matches!(byte, b'a' | b'b' | b'0' | b'1')) {
                    bytes[at] = plain;
                    progress |= self.attempt_content(item, bytes.into());
                }
            }
            if self.attempts_left == 0 {
                break;
            }
        }
        progress
    }

    fn content(&self, item: usize) -> Bytes {
        self.best.0.get(item).and_then(|item| item.content.clone()).unwrap_or_default()
    }

    fn attempt_content(&mut self, item: usize, content: Bytes) -> bool {
        let mut case = self.best.0.clone();
        case[item].content = Some(content);
        self.attempt(case)
    }

    fn attempt(&mut self, case: Vec<Sibling>) -> bool {
        if self.attempts_left == 0 {
            return false;
        }
        self.attempts_left -= 1;
        if self.prover.world() == World::Resolver && canonical(case.clone()) != case {
            return false;
        }
        if self.only_valid && !self.prover.is_valid(self.law, &case) {
            return false;
        }
        let outcome = self.prover.outcome(self.law, &case);
        let broken = matches!(outcome, Outcome::Broken { .. });
        if broken {
            self.best = (case, outcome);
        }
        broken
    }
}
