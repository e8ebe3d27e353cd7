//! Compares two clocks. The wall clock can be set and then steps; the monotonic clock stops while the machine sleeps. A
//! change of their difference reveals either.

use std::time::Duration;

use crate::domain::Timestamp;

use super::queue::MonotonicTime;

/// Differences up to this are normal drift and slewing.
const TOLERANCE: Duration = Duration::from_secs(5);

/// Step of the wall clock relative to the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It was set back.
    Back,
    /// It was set forward, or the machine slept.
    Forward,
}

/// The clocks at the last comparison.
#[derive(Debug)]
pub(super) struct ClockWatch {
    monotonic: MonotonicTime,
    wall: Timestamp,
}

impl ClockWatch {
    pub(super) fn new(monotonic: MonotonicTime, wall: Timestamp) -> Self {
        Self { monotonic, wall }
    }

    /// Compares the clocks again.
    pub(super) fn compare(&mut self, monotonic: MonotonicTime, wall: Timestamp) -> Option<Step> {
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
        let mut watch = ClockWatch::new(mono(0), wall(0));
        assert_eq!(watch.compare(mono(60), wall(61)), None);
        assert_eq!(watch.compare(mono(61), wall(61 - 3600)), Some(Step::Back));
        assert_eq!(
            watch.compare(mono(62), wall(62 - 3600)),
            None,
            "a step must be reported once"
        );
        assert_eq!(watch.compare(mono(63), wall(86_400)), Some(Step::Forward));
        assert_eq!(watch.compare(mono(64), wall(86_401)), None);
    }
}
