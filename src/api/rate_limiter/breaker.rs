//! Circuit breaker for one endpoint: while the endpoint is down, only occasional probes are sent.

use std::collections::HashSet;
use std::time::Duration;

/// Number of resources that must start failing, without a success in between, before the breaker opens. Repeated
/// failures of a few customers therefore do not stop the requests for the others.
const FAILURES_TO_OPEN: u32 = 5;

/// Maximum number of failing resources that are stored. Failures of further resources always count as first failures,
/// so that the breaker opens early rather than late.
const MAX_FAILING_PATHS: usize = 10_000;

/// Time without requests after the breaker opens; doubled after each failed probe.
pub(super) const INITIAL_OPEN_TIME: Duration = Duration::from_secs(5);

/// Maximum time without requests, before jitter. With jitter, the next probe is allowed no later than 75 seconds after
/// the previous one failed.
const MAX_OPEN_TIME: Duration = Duration::from_secs(60);

/// Maximum random extension of the open time, as a fraction. It keeps several exporters from probing a host at the same
/// time.
const JITTER: f64 = 0.25;

/// Expected duration of a probe. Requests that are rejected during a probe may be tried again after this time.
const PROBE_TIME: Duration = Duration::from_secs(1);

/// Result of [`CircuitBreaker::check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Allow,
    /// One request may be sent as a probe. The caller calls [`CircuitBreaker::start_probe`] when it sends the probe.
    Probe,
    /// No request may be sent before this time has passed.
    Reject(Duration),
}

#[derive(Clone, Debug, Default)]
pub(super) struct CircuitBreaker {
    state: State,
    /// Hashes of the paths whose latest request failed.
    failing: HashSet<u64>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { until: Duration, open_time: Duration },
    Probing { open_time: Duration },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl CircuitBreaker {
    pub(super) fn check(&self, now: Duration) -> Decision {
        match self.state {
            State::Closed { .. } => Decision::Allow,
            State::Open { until, .. } if now < until => Decision::Reject(until.saturating_sub(now)),
            State::Open { .. } => Decision::Probe,
            State::Probing { .. } => Decision::Reject(PROBE_TIME),
        }
    }

    /// Returns whether the endpoint is considered down.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }

    /// Marks the probe as sent.
    pub(super) fn start_probe(&mut self) {
        if let State::Open { open_time, .. } = self.state {
            self.state = State::Probing { open_time };
        }
    }

    /// Allows another probe if the last probe was cancelled without an outcome. Called when no request to the endpoint
    /// is in flight.
    pub(super) fn abandon_probe(&mut self) {
        if let State::Probing { open_time } = self.state {
            let until = Duration::ZERO;
            self.state = State::Open { until, open_time };
        }
    }

    /// Records that the host responded to a request for a resource, even with a rejection. Closes the breaker.
    pub(super) fn record_success(&mut self, path: u64) {
        self.failing.remove(&path);
        self.state = State::default();
    }

    /// Records that the host failed to serve a resource.
    pub(super) fn record_failure(&mut self, path: u64, now: Duration, random: f64) {
        let has_room = self.failing.len() < MAX_FAILING_PATHS;
        let is_new_failure = if has_room {
            self.failing.insert(path)
        } else {
            !self.failing.contains(&path)
        };
        match &mut self.state {
            State::Closed { failures } if is_new_failure => {
                *failures += 1;
                if *failures >= FAILURES_TO_OPEN {
                    self.open(now, INITIAL_OPEN_TIME, random);
                }
            }
            // A repeated failure of one resource says nothing about the others.
            State::Closed { .. } => {}
            State::Probing { open_time } => {
                let open_time = open_time.saturating_mul(2).min(MAX_OPEN_TIME);
                self.open(now, open_time, random);
            }
            // The request was sent before the breaker opened.
            State::Open { .. } => {}
        }
    }

    fn open(&mut self, now: Duration, open_time: Duration, random: f64) {
        let jittered = open_time.mul_f64(1.0 + JITTER * random.clamp(0.0, 1.0));
        self.state = State::Open {
            until: now.saturating_add(jittered),
            open_time,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{CircuitBreaker, Decision};

    fn opened(random: f64) -> CircuitBreaker {
        let mut breaker = CircuitBreaker::default();
        for path in 0..5 {
            assert_eq!(breaker.check(Duration::ZERO), Decision::Allow);
            breaker.record_failure(path, Duration::ZERO, random);
        }
        breaker
    }

    #[test]
    fn breaker_opens_only_after_consecutive_failures() {
        let mut breaker = CircuitBreaker::default();
        for path in 0..40 {
            breaker.record_failure(path, Duration::ZERO, 0.0);
            if path % 4 == 3 {
                breaker.record_success(1000);
            }
        }
        assert_eq!(breaker.check(Duration::ZERO), Decision::Allow);
    }

    #[test]
    fn breaker_ignores_repeated_failures_of_a_resource() {
        let mut breaker = CircuitBreaker::default();
        for _ in 0..100 {
            for path in 0..4 {
                breaker.record_failure(path, Duration::ZERO, 0.0);
            }
        }
        assert_eq!(breaker.check(Duration::ZERO), Decision::Allow);
        breaker.record_success(0);
        for _ in 0..100 {
            breaker.record_failure(1, Duration::ZERO, 0.0);
        }
        assert_eq!(breaker.check(Duration::ZERO), Decision::Allow);
        // A resource that has recovered is counted again if it fails.
        for path in [0, 5, 6, 7, 8] {
            assert_eq!(breaker.check(Duration::ZERO), Decision::Allow);
            breaker.record_failure(path, Duration::ZERO, 0.0);
        }
        assert!(matches!(breaker.check(Duration::ZERO), Decision::Reject(_)));
    }

    #[test]
    fn open_time_doubles_up_to_a_minute() {
        let mut breaker = opened(0.0);
        let mut now = Duration::ZERO;
        let mut open_times = Vec::new();
        for _ in 0..6 {
            let Decision::Reject(open_time) = breaker.check(now) else {
                panic!("the breaker must be open");
            };
            open_times.push(open_time.as_secs());
            now += open_time;
            assert_eq!(breaker.check(now), Decision::Probe);
            breaker.start_probe();
            breaker.record_failure(0, now, 0.0);
        }
        assert_eq!(open_times, [5, 10, 20, 40, 60, 60]);
    }

    #[test]
    fn jitter_extends_the_open_time_by_up_to_a_quarter() {
        let rejected = |random| opened(random).check(Duration::ZERO);
        assert_eq!(rejected(0.5), Decision::Reject(Duration::from_millis(5625)));
        assert_eq!(rejected(1.0), Decision::Reject(Duration::from_millis(6250)));
    }

    #[test]
    fn failures_of_requests_in_flight_do_not_extend_the_open_time() {
        let mut breaker = opened(0.0);
        breaker.record_failure(9, Duration::from_secs(4), 0.0);
        assert_eq!(breaker.check(Duration::from_secs(5)), Decision::Probe);
    }

    #[test]
    fn response_closes_the_breaker_and_resets_the_count() {
        let mut breaker = opened(0.0);
        breaker.start_probe();
        assert!(breaker.is_open());
        breaker.record_success(0);
        assert!(!breaker.is_open());
        assert_eq!(breaker.check(Duration::ZERO), Decision::Allow);
        breaker.record_failure(0, Duration::ZERO, 0.0);
        assert_eq!(breaker.check(Duration::ZERO), Decision::Allow);
    }
}
