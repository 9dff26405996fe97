//! The node's clock: wall time that never goes back and never stands still.
//!
//! In: a wall clock and the runtime's monotonic one. Out: [`Millis`]. When the wall clock was
//! set back, this one goes on at half speed until the two meet, so that deadlines still come.
//! Absent: any correction of clocks between nodes.

use merganser_core::id::Millis;
use std::time::Duration;
use tokio::time::Instant;

/// See the head of this file.
pub(crate) struct Clock {
    /// Time since the Unix epoch.
    wall: fn() -> Duration,
    offset_ms: i64,
    began: Instant,
    last: Millis,
    /// When `last` was told, and what of that time is not yet counted.
    at: Instant,
}

impl Clock {
    /// Ahead of `wall` by so much.
    pub(crate) fn new(wall: fn() -> Duration, offset_ms: i64) -> Clock {
        let began = Instant::now();
        Clock { wall, offset_ms, began, last: with_offset(wall(), offset_ms), at: began }
    }

    /// At or after every earlier answer.
    pub(crate) fn now(&mut self) -> Millis {
        self.tell(with_offset((self.wall)(), self.offset_ms), Instant::now())
    }

    /// Milliseconds since this clock was made, by the monotonic one: it goes on while the process stands still.
    pub(crate) fn running_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
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

fn with_offset(wall: Duration, offset_ms: i64) -> Millis {
    Millis((wall.as_millis() as u64).saturating_add_signed(offset_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn a_clock_set_back_goes_on_at_half_speed_until_wall_time_has_caught_up() {
        let start = Instant::now();
        let mut clock =
            Clock { wall: || Duration::ZERO, offset_ms: 0, began: start, last: Millis(10_000), at: start };
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(clock.tell(Millis(10_100), after(100)), Millis(10_100));
        assert_eq!(clock.tell(Millis(9_000), after(101)), Millis(10_100));
        assert_eq!(clock.tell(Millis(9_100), after(200)), Millis(10_150));
        assert_eq!(clock.tell(Millis(9_101), after(201)), Millis(10_150));
        assert_eq!(clock.tell(Millis(9_900), after(1_000)), Millis(10_550));
        assert_eq!(clock.tell(Millis(11_200), after(2_300)), Millis(11_200));
    }
}
