//! Hybrid logical clock (Kulkarni et al., OPODIS 2014): close to wall time, never going back.
//!
//! In: the node's clock and stamps seen. Out: stamps that order `lww` writes (R15) and inform
//! people and plugins elsewhere. Absent: any use of time for causality.

use crate::id::Millis;

/// How far ahead of this node's clock a stamp may be (R15).
pub const SKEW_MS_MAX: u64 = 500;

/// A moment; ordered by time, then by the logical part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Since the Unix epoch.
    pub millis: u64,
    /// Tells stamps of one millisecond apart.
    pub logical: u32,
}

impl Stamp {
    /// The next one.
    pub fn next(self) -> Stamp {
        match self.logical.checked_add(1) {
            Some(logical) => Stamp { logical, ..self },
            None => Stamp { millis: self.millis.saturating_add(1), logical: 0 },
        }
    }
}

/// Issues stamps that strictly increase.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    last: Stamp,
}

impl Clock {
    /// A stamp above every one issued before, and above `after`.
    pub fn issue(&mut self, now: Millis, after: Stamp) -> Stamp {
        let wall = Stamp { millis: now.0, logical: 0 };
        let floor = self.last.max(after);
        self.last = if wall > floor { wall } else { floor.next() };
        self.last
    }
}

/// How far `stamp` is ahead of `now`, if that is more than a clock may err.
pub fn too_far_ahead(stamp: Stamp, now: Millis) -> Option<u64> {
    let ahead = stamp.millis.saturating_sub(now.0);
    (ahead > SKEW_MS_MAX).then_some(ahead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_increase_when_the_clock_stands_still_or_goes_back() {
        let mut clock = Clock::default();
        let mut last = Stamp::default();
        for now in [5, 5, 5, 3, 9, 1] {
            let stamp = clock.issue(Millis(now), Stamp::default());
            assert!(stamp > last);
            last = stamp;
        }
        let seen = Stamp { millis: 400, logical: u32::MAX };
        assert!(clock.issue(Millis(9), seen) > seen);
    }

    #[test]
    fn a_stamp_may_be_half_a_second_ahead_and_no_more() {
        let ahead = |millis| too_far_ahead(Stamp { millis, logical: 0 }, Millis(1_000));
        assert_eq!(ahead(900), None);
        assert_eq!(ahead(1_500), None);
        assert_eq!(ahead(1_501), Some(501));
    }
}
