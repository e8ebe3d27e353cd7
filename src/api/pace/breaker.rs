//! Circuit breaker of one kind of resource: while it is down, only occasional probes are sent.

use std::collections::HashSet;
use std::time::Duration;

/// Number of resources that must fail one after the other, each for the first time, to open the breaker. A few failing
/// customers, however often they fail, do not stop requests for the others.
const FAILURES_TO_OPEN: u32 = 5;

/// Maximum number of remembered failing resources. Failures of further ones always count as the first, which spares the
/// host.
const MAX_FAILING: usize = 10_000;

/// Time without requests after the breaker opens; doubled after each failed probe.
pub(super) const FIRST_OPEN: Duration = Duration::from_secs(5);

/// Longest time without requests, apart from jitter, and thus until the end of an outage is detected.
const LONGEST_OPEN: Duration = Duration::from_secs(60);

/// Maximum random extension of that time as a fraction, so that several exporters do not probe a host simultaneously.
const JITTER: f64 = 0.25;

/// Delay of requests during a probe: as long as most responses take.
const PROBE_ANSWER: Duration = Duration::from_secs(1);

/// Decision of the breaker about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// One request may be sent as a probe; [`Breaker::probe`] is called when it is.
    Probe,
    /// No request may be sent before this time has passed.
    Refuse(Duration),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Breaker {
    state: State,
    /// Hashes of the paths whose latest request failed.
    failing: HashSet<u64>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { until: Duration, length: Duration },
    Probing { length: Duration },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Breaker {
    pub(super) fn verdict(&self, now: Duration) -> Verdict {
        match self.state {
            State::Closed { .. } => Verdict::Pass,
            State::Open { until, .. } if now < until => Verdict::Refuse(until.saturating_sub(now)),
            State::Open { .. } => Verdict::Probe,
            State::Probing { .. } => Verdict::Refuse(PROBE_ANSWER),
        }
    }

    /// Returns whether the resources count as down.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }

    /// Marks the probe as sent.
    pub(super) fn probe(&mut self) {
        if let State::Open { length, .. } = self.state {
            self.state = State::Probing { length };
        }
    }

    /// Allows another probe after all requests have ended, if the last one was cancelled without an outcome.
    pub(super) fn probe_given_up(&mut self) {
        if let State::Probing { length } = self.state {
            let until = Duration::ZERO;
            self.state = State::Open { until, length };
        }
    }

    /// Handles a response for a resource.
    pub(super) fn succeed(&mut self, path: u64) {
        self.failing.remove(&path);
        self.state = State::default();
    }

    /// Handles a failure of a resource that is caused by the host.
    pub(super) fn fail(&mut self, path: u64, now: Duration, dice: f64) {
        let room = self.failing.len() < MAX_FAILING;
        let is_news = if room {
            self.failing.insert(path)
        } else {
            !self.failing.contains(&path)
        };
        match &mut self.state {
            State::Closed { failures } if is_news => {
                *failures += 1;
                if *failures >= FAILURES_TO_OPEN {
                    self.open(now, FIRST_OPEN, dice);
                }
            }
            // A resource that fails again is no evidence about the others.
            State::Closed { .. } => {}
            State::Probing { length } => {
                let length = length.saturating_mul(2).min(LONGEST_OPEN);
                self.open(now, length, dice);
            }
            // Requests that were in flight when the breaker opened contain no new information.
            State::Open { .. } => {}
        }
    }

    fn open(&mut self, now: Duration, length: Duration, dice: f64) {
        let jittered = length.mul_f64(1.0 + JITTER * dice.clamp(0.0, 1.0));
        self.state = State::Open {
            until: now.saturating_add(jittered),
            length,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Breaker, Verdict};

    fn opened(dice: f64) -> Breaker {
        let mut breaker = Breaker::default();
        for path in 0..5 {
            assert_eq!(breaker.verdict(Duration::ZERO), Verdict::Pass);
            breaker.fail(path, Duration::ZERO, dice);
        }
        breaker
    }

    #[test]
    fn breaker_opens_only_after_failures_in_a_row() {
        let mut breaker = Breaker::default();
        for path in 0..40 {
            breaker.fail(path, Duration::ZERO, 0.0);
            if path % 4 == 3 {
                breaker.succeed(1000);
            }
        }
        assert_eq!(breaker.verdict(Duration::ZERO), Verdict::Pass);
    }

    #[test]
    fn breaker_ignores_repeated_failures_of_a_resource() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            for path in 0..4 {
                breaker.fail(path, Duration::ZERO, 0.0);
            }
        }
        assert_eq!(breaker.verdict(Duration::ZERO), Verdict::Pass);
        breaker.succeed(0);
        for _ in 0..100 {
            breaker.fail(1, Duration::ZERO, 0.0);
        }
        assert_eq!(breaker.verdict(Duration::ZERO), Verdict::Pass);
        // A failure of a resource that had recovered counts.
        for path in [0, 5, 6, 7, 8] {
            assert_eq!(breaker.verdict(Duration::ZERO), Verdict::Pass);
            breaker.fail(path, Duration::ZERO, 0.0);
        }
        assert!(matches!(breaker.verdict(Duration::ZERO), Verdict::Refuse(_)));
    }

    #[test]
    fn open_time_doubles_up_to_a_minute() {
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
            breaker.fail(0, now, 0.0);
        }
        assert_eq!(lengths, [5, 10, 20, 40, 60, 60]);
    }

    #[test]
    fn jitter_extends_the_open_time_by_up_to_a_quarter() {
        let refused = |dice| opened(dice).verdict(Duration::ZERO);
        assert_eq!(refused(0.5), Verdict::Refuse(Duration::from_millis(5625)));
        assert_eq!(refused(1.0), Verdict::Refuse(Duration::from_millis(6250)));
    }

    #[test]
    fn failures_of_requests_in_flight_do_not_extend_the_open_time() {
        let mut breaker = opened(0.0);
        breaker.fail(9, Duration::from_secs(4), 0.0);
        assert_eq!(breaker.verdict(Duration::from_secs(5)), Verdict::Probe);
    }

    #[test]
    fn response_closes_the_breaker_and_resets_the_count() {
        let mut breaker = opened(0.0);
        breaker.probe();
        assert!(breaker.is_open());
        breaker.succeed(0);
        assert!(!breaker.is_open());
        assert_eq!(breaker.verdict(Duration::ZERO), Verdict::Pass);
        breaker.fail(0, Duration::ZERO, 0.0);
        assert_eq!(breaker.verdict(Duration::ZERO), Verdict::Pass);
    }
}
