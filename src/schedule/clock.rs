//! Two clocks held against each other: the wall clock is set and steps, the monotonic one stands still while a machine
//! sleeps. A difference that changes tells of either.

use std::time::Duration;

use crate::domain::Timestamp;

use super::queue::Moment;

/// Differences up to this are the ordinary drift and slewing of clocks.
const TOLERANCE: Duration = Duration::from_secs(5);

/// What the wall clock did that the monotonic one did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It was set back.
    Back,
    /// It was set forward, or the machine slept.
    Forward,
}

/// The clocks as they were seen last.
#[derive(Debug)]
pub(super) struct ClockWatch {
    monotonic: Moment,
    wall: Timestamp,
}

impl ClockWatch {
    pub(super) fn new(monotonic: Moment, wall: Timestamp) -> Self {
        Self { monotonic, wall }
    }

    /// Looks at both clocks again.
    pub(super) fn look(&mut self, monotonic: Moment, wall: Timestamp) -> Option<Step> {
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
    fn steps_are_told_from_the_passing_of_time() {
        let wall = |seconds: i64| Timestamp::from_unix_seconds(1_800_000_000 + seconds);
        let mono = Duration::from_secs;
        let mut watch = ClockWatch::new(mono(0), wall(0));
        assert_eq!(watch.look(mono(60), wall(61)), None);
        assert_eq!(watch.look(mono(61), wall(61 - 3600)), Some(Step::Back));
        assert_eq!(watch.look(mono(62), wall(62 - 3600)), None, "a step is told once");
        assert_eq!(watch.look(mono(63), wall(86_400)), Some(Step::Forward));
        assert_eq!(watch.look(mono(64), wall(86_401)), None);
    }
}
