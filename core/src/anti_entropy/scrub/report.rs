//! Records that cannot be read are told of: each once, however often it is met.
//!
//! In: whoever met one. Out: a notice, or none. Bounded: of very many, the first are told of again.

use crate::event::{Effect, Effects, Notice};
use crate::node::Node;
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};

/// Records that are remembered.
const REPORTED_MAX: usize = 1024;

/// See the head of this file.
#[derive(Default)]
pub(super) struct Reported {
    known: BTreeSet<Bytes>,
    order: VecDeque<Bytes>,
}

impl Reported {
    /// Whether it was not known.
    fn add(&mut self, key: &Bytes) -> bool {
        if !self.known.insert(key.clone()) {
            return false;
        }
        self.order.push_back(key.clone());
        if self.order.len() > REPORTED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }

    /// Whatever is wrong there from now on is something else.
    pub(super) fn forget(&mut self, from: &Bytes, to: &Bytes) {
        let is_within = |key: &Bytes| from <= key && key < to;
        self.known.retain(|key| !is_within(key));
        self.order.retain(|key| !is_within(key));
    }
}

impl Node {
    /// A record does not decode, or its block is damaged.
    pub(crate) fn corrupt_record(&mut self, key: Bytes, reason: String, effects: &mut Effects) {
        self.counters.corrupt_records += 1;
        if self.anti_entropy.scrub.reported.add(&key) {
            effects.push(Effect::Notice(Notice::CorruptRecord { key, reason }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_told_of_once_until_it_is_repaired_or_very_many_others_were() {
        let key = |n: u32| Bytes::copy_from_slice(&n.to_be_bytes());
        let mut reported = Reported::default();
        assert!(reported.add(&key(7)) && !reported.add(&key(7)));
        reported.forget(&key(8), &key(9));
        assert!(!reported.add(&key(7)));
        reported.forget(&key(7), &key(8));
        assert!(reported.add(&key(7)));
        (100..100 + REPORTED_MAX as u32).for_each(|n| assert!(reported.add(&key(n))));
        assert!(reported.add(&key(7)) && reported.known.len() == REPORTED_MAX);
        assert_eq!(reported.order.len(), REPORTED_MAX);
    }
}
