//! The circuit breaker: a host that is down is asked once in a while, not by everyone.

use std::time::Duration;

/// Failures in a row, of any requests, after which the host counts as down. One request and its retries are fewer,
/// so that a single bad resource does not stop all others.
const FAILURES_TO_OPEN: u32 = 5;

/// The time without requests after the host was found down; doubled each time that it is found so again.
const FIRST_OPEN: Duration = Duration::from_secs(5);

/// The most that it grows to, and so how late at most the end of an outage is noticed, the jitter aside.
const LONGEST_OPEN: Duration = Duration::from_secs(60);

/// How much longer than that chance can make it, so that exporters of one host do not probe it in step.
const JITTER: f64 = 0.25;

/// What those are told to wait who ask while a probe is under way: as long as most answers take.
const PROBE_ANSWER: Duration = Duration::from_secs(1);

/// What the breaker has to say about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// One request may go to find out; [`Breaker::probe`] is called when it does.
    Probe,
    /// None may, and asking again before this time is of no use.
    Refuse(Duration),
}

#[derive(Debug)]
pub(super) enum Breaker {
    Closed { failures: u32 },
    Open { until: Duration, length: Duration },
    Probing { length: Duration },
}

impl Default for Breaker {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Breaker {
    pub(super) fn verdict(&self, now: Duration) -> Verdict {
        match *self {
            Self::Closed { .. } => Verdict::Pass,
            Self::Open { until, .. } if now < until => Verdict::Refuse(until.saturating_sub(now)),
            Self::Open { .. } => Verdict::Probe,
            Self::Probing { .. } => Verdict::Refuse(PROBE_ANSWER),
        }
    }

    /// The probe is on its way.
    pub(super) fn probe(&mut self) {
        if let Self::Open { length, .. } = *self {
            *self = Self::Probing { length };
        }
    }

    /// Nothing is in flight any more: a probe that reported no outcome was given up, and another may go.
    pub(super) fn probe_given_up(&mut self) {
        if let Self::Probing { length } = *self {
            *self = Self::Open {
                until: Duration::ZERO,
                length,
            };
        }
    }

    /// The host answered. Returns whether it had counted as down.
    pub(super) fn close(&mut self) -> bool {
        let was_down = !matches!(self, Self::Closed { .. });
        *self = Self::default();
        was_down
    }

    /// A request failed for a reason that lies with the host.
    pub(super) fn fail(&mut self, now: Duration, dice: f64) {
        match self {
            Self::Closed { failures } => {
                *failures += 1;
                if *failures >= FAILURES_TO_OPEN {
                    *self = Self::open(now, FIRST_OPEN, dice);
                }
            }
            Self::Probing { length } => {
                let length = length.saturating_mul(2).min(LONGEST_OPEN);
                *self = Self::open(now, length, dice);
            }
            // Requests that were in flight when it opened say nothing new.
            Self::Open { .. } => {}
        }
    }

    fn open(now: Duration, length: Duration, dice: f64) -> Self {
        let jittered = length.mul_f64(1.0 + JITTER * dice.clamp(0.0, 1.0));
        Self::Open {
            until: now.saturating_add(jittered),
            length,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]

    use std::time::Duration;

    use super::{Breaker, Verdict};

    fn opened(dice: f64) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..5 {
            assert_eq!(breaker.verdict(Duration::ZERO), Verdict::Pass);
            breaker.fail(Duration::ZERO, dice);
        }
        breaker
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            for _ in 0..4 {
                breaker.fail(Duration::ZERO, 0.0);
            }
            assert!(!breaker.close());
        }
        assert_eq!(breaker.verdict(Duration::ZERO), Verdict::Pass);
    }

    #[test]
    fn the_open_time_doubles_to_a_minute() {
        let mut breaker = opened(0.0);
        let mut now = Duration::ZERO;
        let mut lengths = Vec::new();
        for _ in 0..6 {
            let Verdict::Refuse(length) = breaker.verdict(now) else {
                panic!("open expected");
            };
            lengths.push(length.as_secs());
            now += length;
            assert_eq!(breaker.verdict(now), Verdict::Probe);
            breaker.probe();
            breaker.fail(now, 0.0);
        }
        assert_eq!(lengths, [5, 10, 20, 40, 60, 60]);
    }

    #[test]
    fn chance_lengthens_it_by_up_to_a_quarter() {
        let refused = |dice| opened(dice).verdict(Duration::ZERO);
        assert_eq!(refused(0.5), Verdict::Refuse(Duration::from_millis(5625)));
        assert_eq!(refused(1.0), Verdict::Refuse(Duration::from_millis(6250)));
    }

    #[test]
    fn failures_of_requests_already_in_flight_do_not_prolong_it() {
        let mut breaker = opened(0.0);
        breaker.fail(Duration::from_secs(4), 0.0);
        assert_eq!(breaker.verdict(Duration::from_secs(5)), Verdict::Probe);
    }

    #[test]
    fn an_answer_closes_it_and_starts_the_count_anew() {
        let mut breaker = opened(0.0);
        breaker.probe();
        assert!(breaker.close());
        assert_eq!(breaker.verdict(Duration::ZERO), Verdict::Pass);
        breaker.fail(Duration::ZERO, 0.0);
        assert_eq!(breaker.verdict(Duration::ZERO), Verdict::Pass);
    }
}
