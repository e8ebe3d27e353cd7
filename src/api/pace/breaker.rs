//! The circuit breaker of one kind of resource: what is down is asked once in a while, not by everyone.

use std::collections::HashSet;
use std::time::Duration;

/// Resources that failed one after the other, each for the first time, after which their kind counts as down. A few
/// customers that fail by themselves, however often, do not stop all others.
const FAILURES_TO_OPEN: u32 = 5;

/// Failing resources remembered. Of more than these a failure counts as the first, which spares the host.
const MAX_FAILING: usize = 10_000;

/// The time without requests after a kind was found down; doubled each time that it is found so again.
pub(super) const FIRST_OPEN: Duration = Duration::from_secs(5);

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

#[derive(Debug, Default)]
pub(super) struct Breaker {
    state: State,
    /// Resources whose newest request failed, by the hash of their path.
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

    /// Whether what it guards counts as down.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }

    /// The probe is on its way.
    pub(super) fn probe(&mut self) {
        if let State::Open { length, .. } = self.state {
            self.state = State::Probing { length };
        }
    }

    /// Nothing is in flight any more: a probe that reported no outcome was given up, and another may go.
    pub(super) fn probe_given_up(&mut self) {
        if let State::Probing { length } = self.state {
            let until = Duration::ZERO;
            self.state = State::Open { until, length };
        }
    }

    /// A resource was answered.
    pub(super) fn succeed(&mut self, path: u64) {
        self.failing.remove(&path);
        self.state = State::default();
    }

    /// A request for a resource failed for a reason that lies with the host.
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
            // What failed before and fails again says nothing about the others.
            State::Closed { .. } => {}
            State::Probing { length } => {
                let length = length.saturating_mul(2).min(LONGEST_OPEN);
                self.open(now, length, dice);
            }
            // Requests that were in flight when it opened say nothing new.
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
    #![allow(clippy::panic)]

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
    fn only_failures_in_a_row_open_it() {
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
    fn resources_that_fail_again_and_again_do_not_open_it() {
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
        // One that had been good is news.
        for path in [0, 5, 6, 7, 8] {
            assert_eq!(breaker.verdict(Duration::ZERO), Verdict::Pass);
            breaker.fail(path, Duration::ZERO, 0.0);
        }
        assert!(matches!(breaker.verdict(Duration::ZERO), Verdict::Refuse(_)));
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
            breaker.fail(0, now, 0.0);
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
        breaker.fail(9, Duration::from_secs(4), 0.0);
        assert_eq!(breaker.verdict(Duration::from_secs(5)), Verdict::Probe);
    }

    #[test]
    fn an_answer_closes_it_and_starts_the_count_anew() {
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
