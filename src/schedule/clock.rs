//! The scheduler's clocks: a monotonic clock for due times, and the wall clock for data.
//!
//! The wall clock steps when it is set, and the monotonic clock stops while the machine sleeps. A change in the
//! difference between the clocks reveals either event.

use std::time::{Duration, Instant, SystemTime};

use super::queue::MonotonicTime;
use crate::domain::Timestamp;

/// Maximum difference that is attributed to drift and slewing.
const TOLERANCE: Duration = Duration::from_secs(5);

/// Step of the wall clock relative to the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The wall clock was set back.
    Back,
    /// The wall clock was set forward, or the machine was suspended.
    Forward,
}

/// Returns the time on the wall clock.
pub(super) fn wall_clock() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

/// The scheduler's clocks.
#[derive(Debug)]
pub(super) struct Clocks {
    started: Instant,
    comparison: ClockComparison,
}

impl Clocks {
    /// Starts the monotonic clock at zero.
    pub(super) fn start() -> Self {
        Self {
            started: Instant::now(),
            comparison: ClockComparison::new(Duration::ZERO, wall_clock()),
        }
    }

    /// Returns the time on the monotonic clock.
    pub(super) fn now(&self) -> MonotonicTime {
        self.started.elapsed()
    }

    /// Returns the step of the wall clock since the last call.
    pub(super) fn detect_step(&mut self) -> Option<Step> {
        self.comparison.update(self.now(), wall_clock())
    }
}

/// Times on both clocks at their last comparison.
#[derive(Debug)]
struct ClockComparison {
    monotonic: MonotonicTime,
    wall: Timestamp,
}

impl ClockComparison {
    fn new(monotonic: MonotonicTime, wall: Timestamp) -> Self {
        Self { monotonic, wall }
    }

    /// Compares the clocks again, and returns the step since the last comparison.
    fn update(&mut self, monotonic: MonotonicTime, wall: Timestamp) -> Option<Step> {
        let expected = self.wall.plus(monotonic.saturating_sub(self.monotonic));
        *self = Self::new(monotonic, wall);
        if wall < expected.minus(TOLERANCE) {
            Some(Step::Back)
        } else if wall > expected.plus(TOLERANCE) {
            Some(Step::Forward)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_steps_are_distinguished_from_elapsed_time() {
        let wall = |seconds: i64| Timestamp::from_unix_seconds(1_800_000_000 + seconds);
        let mono = Duration::from_secs;
        let mut clocks = ClockComparison::new(mono(0), wall(0));
        assert_eq!(clocks.update(mono(60), wall(61)), None);
        assert_eq!(clocks.update(mono(61), wall(61 - 3600)), Some(Step::Back));
        assert_eq!(
            clocks.update(mono(62), wall(62 - 3600)),
            None,
            "a step must be reported only once"
        );
        assert_eq!(clocks.update(mono(63), wall(86_400)), Some(Step::Forward));
        assert_eq!(clocks.update(mono(64), wall(86_401)), None);
    }
}
