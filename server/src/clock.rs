//! The node's clock: wall time that never goes back and never stands still.
//!
//! In: the system's wall clock and its monotonic clock. Out: [`Millis`]. When the wall clock was
//! set back, this one goes on at half speed until the two meet, so that deadlines still come.
//! Absent: any correction of clocks between nodes.

use merganser_core::id::Millis;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// See the head of this file.
pub(crate) struct Clock {
    offset_ms: i64,
    last: Millis,
    /// When `last` was told, and what of that time is not yet counted.
    at: Instant,
}

impl Clock {
    /// Ahead of the system's by so much.
    pub(crate) fn new(offset_ms: i64) -> Clock {
        Clock { offset_ms, last: wall(offset_ms), at: Instant::now() }
    }

    /// At or after every earlier answer.
    pub(crate) fn now(&mut self) -> Millis {
        self.tell(wall(self.offset_ms), Instant::now())
    }

    fn tell(&mut self, wall: Millis, at: Instant) -> Millis {
        if wall >= self.last {
            (self.last, self.at) = (wall, at);
        } else {
            let half = at.duration_since(self.at).as_millis() as u64 / 2;
            if half > 0 {
                (self.last, self.at) = (self.last.after(half), at);
            }
        }
        self.last
    }
}

fn wall(offset_ms: i64) -> Millis {
    // A clock before 1970 counts as 1970: stamps would be wrong, but nothing goes back.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    Millis(since.saturating_add_signed(offset_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_clock_set_back_goes_on_at_half_speed_until_wall_time_has_caught_up() {
        let start = Instant::now();
        let mut clock = Clock { offset_ms: 0, last: Millis(10_000), at: start };
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(clock.tell(Millis(10_100), after(100)), Millis(10_100));
        assert_eq!(clock.tell(Millis(9_000), after(101)), Millis(10_100));
        assert_eq!(clock.tell(Millis(9_100), after(200)), Millis(10_150));
        assert_eq!(clock.tell(Millis(9_101), after(201)), Millis(10_150));
        assert_eq!(clock.tell(Millis(9_900), after(1_000)), Millis(10_550));
        assert_eq!(clock.tell(Millis(11_200), after(2_300)), Millis(11_200));
    }
}
