//! Requests whose versions were replaced lately: a retry of one is told from a new write wherever it comes (R19).
//!
//! A version carries the id of the request that stored it. Once another write has replaced the version, its id would be gone with it, and a
//! client that had not heard of its success and asked another node, or the same after a restart, would bring the replaced value
//! back. So a key remembers the last few of such ids, as part of its state: they are replicated, repaired and buried with it. They are no
//! part of its causality: two states that differ in nothing else are equal.
//!
//! In: versions that go. Out: the dot of a request. Bounded in number and by the age at which a version was
//! replaced: what is older than any retry is not kept.

use super::{Stamp, Version};
use crate::id::{Dot, RequestId};

/// How long a client may go on retrying.
pub const RETRY_WINDOW_MS: u64 = 60_000;
/// Requests that a key remembers.
pub(crate) const DONE_MAX: usize = 8;

/// One of them; the order is that of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Done {
    /// When its version was written.
    pub stamp: Stamp,
    /// Its dot.
    pub dot: Dot,
    /// Its id.
    pub request: RequestId,
}

/// The latest, in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DoneSet(Vec<Done>);

impl DoneSet {
    /// From decoded parts; None unless they ascend and are no more than are kept.
    pub(crate) fn from_parts(entries: Vec<Done>) -> Option<DoneSet> {
        let ascending = entries.windows(2).all(|pair| pair[0] < pair[1]);
        (ascending && entries.len() <= DONE_MAX).then_some(DoneSet(entries))
    }

    /// In ascending order.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Done> {
        self.0.iter()
    }

    /// The dot that a request was given, and its stamp.
    pub(crate) fn find(&self, request: RequestId) -> Option<(Dot, Stamp)> {
        self.0.iter().find(|done| done.request == request).map(|done| (done.dot, done.stamp))
    }

    /// A version goes.
    pub(crate) fn note(&mut self, dot: Dot, version: &Version) {
        if let Some(request) = version.request_id {
            self.join(&DoneSet(vec![Done { stamp: version.stamp, dot, request }]));
        }
    }

    /// Also what `other` remembers.
    pub(crate) fn join(&mut self, other: &DoneSet) {
        if other.0.iter().all(|done| self.0.contains(done)) {
            return;
        }
        self.0.extend(&other.0);
        self.0.sort_unstable();
        self.0.dedup();
        let over = self.0.len().saturating_sub(DONE_MAX);
        self.0.drain(..over);
    }

    /// Without those that nobody retries at `now` any more.
    pub(crate) fn forget_older(&mut self, now: Stamp) {
        self.0.retain(|done| done.stamp.millis.saturating_add(RETRY_WINDOW_MS) >= now.millis);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ActorId;

    fn done(millis: u64) -> DoneSet {
        let stamp = Stamp { millis, logical: 0 };
        let dot = Dot { actor: ActorId(1), counter: millis };
        DoneSet(vec![Done { stamp, dot, request: RequestId(u128::from(millis).to_be_bytes()) }])
    }

    #[test]
    fn the_latest_are_kept_in_whatever_order_they_come() {
        let (mut forward, mut backward) = (DoneSet::default(), DoneSet::default());
        (1..=100).for_each(|millis| forward.join(&done(millis)));
        (1..=100).rev().for_each(|millis| backward.join(&done(millis)));
        assert_eq!(forward, backward);
        assert_eq!(forward.iter().len(), DONE_MAX);
        assert!(forward.find(RequestId(100_u128.to_be_bytes())).is_some());
        assert!(forward.find(RequestId(50_u128.to_be_bytes())).is_none());
        forward.forget_older(Stamp { millis: 99 + RETRY_WINDOW_MS, logical: 0 });
        assert_eq!(forward.iter().len(), 2);
        assert_eq!(DoneSet::from_parts(backward.0.iter().rev().copied().collect()), None);
    }
}
