//! When a request may go to the API: decisions only, no clock, no dice, no tasks and no locks.
//!
//! Time is passed in as the time since any fixed start of a monotonic clock, and chance as a number in `[0, 1)`.
//! A request asks [`Pace::admit`]; when it has been let go it reports one outcome ([`succeeded`](Pace::succeeded),
//! [`throttled`](Pace::throttled) or [`failed`](Pace::failed)) and then, in every case, [`finished`](Pace::finished).

mod breaker;
mod headers;
mod rate;
#[cfg(test)]
mod simulation;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use self::{
    breaker::{Breaker, Verdict},
    rate::Rate,
};
use super::Endpoint;

pub use self::headers::{clock_skew, retry_after};

/// The longest that the API's word can stop the exporter: what asks for more is a mistake or an attack, and
/// five minutes is the interval of the most frequent collector.
pub const MAX_PAUSE: Duration = Duration::from_secs(300);

/// The pause after a first throttle without `Retry-After`; it doubles with each further one that no success came between.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The most that the pause without `Retry-After` grows to: a minute is the window of most rate limits.
const LONGEST_DEFAULT_PAUSE: Duration = Duration::from_secs(60);

/// The least time between two cuts of the rate: requests in flight together are refused together, and tell one thing.
const CUT_SPACING: Duration = Duration::from_secs(1);

/// Requests that may go at once after a quiet time, so that a timer that fires late does not cost throughput.
const BURST: f64 = 2.0;

/// The same as a share of a second's requests, for rates at which a timer's millisecond lasts several requests.
const BURST_SECONDS: f64 = 0.1;

/// Room for the rounding of a wait to whole nanoseconds, so that whoever waited as told is let go.
const ROUNDING: f64 = 1e-6;

/// The least time without an answer that makes an outage of the host: as long as what is down is left alone at first.
const SILENCE: Duration = breaker::FIRST_OPEN;

/// What each request adds to the budget of retries. Retries are requests too, so that this eleventh of all
/// is a tenth of the first-time ones, and load grows by no more than that.
const RETRIES_PER_REQUEST: f64 = 1.0 / 11.0;

/// Retries saved up at most, and to begin with: a request or two of each collector over a reset connection.
const RETRY_RESERVE: f64 = 10.0;

/// The range of the first retry's delay; each further one's is twice as long.
const BACKOFF_BASE: Duration = Duration::from_millis(500);

/// The longest range of a retry's delay: beyond it the next poll is as good.
const BACKOFF_CAP: Duration = Duration::from_secs(30);

/// What the configuration allows at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Requests begun in a second.
    pub requests_per_second: f64,
    /// Requests in flight.
    pub max_concurrency: usize,
}

/// What a request asks for. Which kinds of resources work, and which single ones do not, is told apart by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    endpoint: Endpoint,
    path: u64,
}

impl Resource {
    /// The resource of a kind at a path.
    pub fn new(endpoint: Endpoint, path: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        Self {
            endpoint,
            path: hasher.finish(),
        }
    }
}

/// The answer to a request that wants to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Go now. Takes a slot, which [`Pace::finished`] gives back.
    Go,
    /// Ask again after this time.
    Wait(Duration),
    /// As many requests as may be are in flight: ask again when one has finished.
    Busy,
    /// The host, or what is asked for of it, is down: give up, and try no sooner than after this time.
    Refused(Duration),
}

/// The pace of all requests to one host.
///
/// The rate falls by three tenths when the host throttles and climbs back as requests succeed, steeply where the host
/// was content and flat around the rate at which it last was not. Throttling stops all requests for a while; a run of
/// failures of one kind of resource stops those but for a probe now and then, and leaves the others alone.
#[derive(Debug)]
pub struct Pace {
    limits: Limits,
    max_concurrency: usize,
    in_flight: usize,
    rate: Rate,
    tokens: f64,
    refilled_at: Duration,
    paused_until: Duration,
    last_cut: Option<Duration>,
    throttles: u32,
    retries: f64,
    lanes: BTreeMap<Endpoint, Lane>,
    answered_at: Option<Duration>,
    /// What failed since then.
    failed_since: BTreeSet<Endpoint>,
}

/// The requests for one kind of resource.
#[derive(Debug, Default)]
struct Lane {
    breaker: Breaker,
    in_flight: usize,
}

impl Pace {
    /// Starts at the ceiling. A concurrency of 0 counts as 1, and a rate that is no positive number as the floor.
    pub fn new(limits: Limits) -> Self {
        let rate = Rate::new(limits.requests_per_second);
        Self {
            limits,
            max_concurrency: limits.max_concurrency.max(1),
            in_flight: 0,
            tokens: burst(&rate),
            rate,
            refilled_at: Duration::ZERO,
            paused_until: Duration::ZERO,
            last_cut: None,
            throttles: 0,
            retries: RETRY_RESERVE,
            lanes: BTreeMap::new(),
            answered_at: None,
            failed_since: BTreeSet::new(),
        }
    }

    /// Requests a second that are allowed now, a pause aside.
    pub fn rate(&self) -> f64 {
        self.rate.per_second()
    }

    /// Whether a request may go now.
    pub fn admit(&mut self, now: Duration, resource: Resource) -> Admission {
        self.refill(now);
        let verdict = self.lane(resource).breaker.verdict(now);
        if let Verdict::Refuse(time) = verdict {
            return Admission::Refused(time);
        }
        if now < self.paused_until {
            return Admission::Wait(self.paused_until.saturating_sub(now));
        }
        if self.in_flight >= self.max_concurrency {
            return Admission::Busy;
        }
        if self.tokens < 1.0 - ROUNDING {
            return Admission::Wait(seconds((1.0 - self.tokens) / self.rate.per_second()));
        }
        let lane = self.lane(resource);
        if verdict == Verdict::Probe {
            lane.breaker.probe();
        }
        lane.in_flight += 1;
        self.tokens -= 1.0;
        self.in_flight += 1;
        self.retries = (self.retries + RETRIES_PER_REQUEST).min(RETRY_RESERVE);
        Admission::Go
    }

    /// An answer came that is neither a throttle nor a failure of the host: a 403 or a 404 is one.
    pub fn succeeded(&mut self, now: Duration, resource: Resource) {
        self.answered(now, resource);
        // What was in flight when the host throttled says nothing about the time after.
        if now >= self.paused_until {
            self.throttles = 0;
            self.rate.climb(now);
        }
    }

    /// The host answered that there were too many requests. `retry_after` is what [`retry_after`] made of its header.
    pub fn throttled(&mut self, now: Duration, resource: Resource, retry_after: Option<Duration>) {
        self.refill(now);
        self.answered(now, resource);
        let counts = now >= self.paused_until && self.last_cut.is_none_or(|cut| now.saturating_sub(cut) >= CUT_SPACING);
        let pause = match retry_after {
            Some(told) => told.min(MAX_PAUSE),
            None if counts => doubled(FIRST_PAUSE, self.throttles).min(LONGEST_DEFAULT_PAUSE),
            None => Duration::ZERO,
        };
        if counts {
            self.rate.cut(now);
            self.throttles = self.throttles.saturating_add(1);
            self.last_cut = Some(now);
        }
        self.paused_until = self.paused_until.max(now.saturating_add(pause));
        self.tokens = self.tokens.min(1.0);
    }

    /// The host asked for a pause with an answer that is no throttle, as a 503 may: everybody waits, nobody is slowed.
    pub fn pause(&mut self, now: Duration, told: Duration) {
        self.refill(now);
        self.paused_until = self.paused_until.max(now.saturating_add(told.min(MAX_PAUSE)));
        self.tokens = self.tokens.min(1.0);
    }

    /// The pace that goes on where this one was, as after a reload: under the same limits as it was, under others from
    /// their ceiling, and in either case not before a pause is over. What is in flight is not carried over.
    #[must_use]
    pub fn under(&self, limits: Limits) -> Self {
        let mut next = Self::new(limits);
        next.paused_until = self.paused_until;
        next.refilled_at = self.refilled_at;
        next.tokens = self.tokens.min(next.tokens);
        next.retries = self.retries;
        if self.limits == limits {
            next.rate = self.rate.clone();
            next.last_cut = self.last_cut;
            next.throttles = self.throttles;
        }
        next
    }

    /// The host failed: no connection, no answer in time, or a status of 5xx.
    pub fn failed(&mut self, now: Duration, resource: Resource, dice: f64) {
        self.failed_since.insert(resource.endpoint);
        self.lane(resource).breaker.fail(resource.path, now, dice);
    }

    /// A request that was let go is over, also one that was given up and has no outcome. Comes after its outcome.
    pub fn finished(&mut self, resource: Resource) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let lane = self.lane(resource);
        lane.in_flight = lane.in_flight.saturating_sub(1);
        if lane.in_flight == 0 {
            lane.breaker.probe_given_up();
        }
    }

    /// Whether a request that failed may be tried again, or its poll before its time, which uses up a part of the
    /// budget. Never while what it asks for is known to be down. The retry is admitted like any request.
    pub fn may_retry(&mut self, now: Duration, resource: Resource) -> bool {
        let up = !matches!(self.lane(resource).breaker.verdict(now), Verdict::Refuse(_));
        let granted = up && self.retries >= 1.0 - ROUNDING;
        if granted {
            self.retries -= 1.0;
        }
        granted
    }

    fn lane(&mut self, resource: Resource) -> &mut Lane {
        self.lanes.entry(resource.endpoint).or_default()
    }

    /// The host answered. Where what answers had failed since anything was answered last, and that is a while ago, the
    /// host was down as a whole and is back with all that it has; else only what answers is.
    fn answered(&mut self, now: Duration, resource: Resource) {
        let before = self.answered_at.replace(now).unwrap_or(Duration::ZERO);
        let silent = now.saturating_sub(before) >= SILENCE && self.failed_since.contains(&resource.endpoint);
        self.failed_since.clear();
        let mut lanes = self.lanes.values_mut();
        if silent && lanes.any(|lane| lane.breaker.is_open()) {
            for lane in self.lanes.values_mut() {
                lane.breaker = Breaker::default();
            }
            self.rate.restart(now);
        } else {
            self.lane(resource).breaker.succeed(resource.path);
        }
    }

    fn refill(&mut self, now: Duration) {
        // During a pause one token is saved up and no more, or its end would begin with a burst.
        self.save(self.paused_until.min(now), 1.0);
        self.save(now, burst(&self.rate));
    }

    fn save(&mut self, until: Duration, most: f64) {
        let elapsed = until.saturating_sub(self.refilled_at);
        if elapsed > Duration::ZERO {
            let earned = elapsed.as_secs_f64() * self.rate.per_second();
            self.tokens = (self.tokens + earned).min(most);
            self.refilled_at = until;
        }
    }
}

/// How long to wait before the retry that follows `attempt` earlier ones: anything up to a limit that doubles, so that
/// clients that failed together do not come back together ("full jitter").
pub fn backoff(attempt: u32, dice: f64) -> Duration {
    doubled(BACKOFF_BASE, attempt)
        .min(BACKOFF_CAP)
        .mul_f64(dice.clamp(0.0, 1.0))
}

fn burst(rate: &Rate) -> f64 {
    BURST.max(rate.per_second() * BURST_SECONDS)
}

fn doubled(base: Duration, times: u32) -> Duration {
    base.saturating_mul(2_u32.saturating_pow(times))
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::time::Duration;

    use super::{Admission, BACKOFF_CAP, Limits, MAX_PAUSE, Pace, Resource, backoff};
    use crate::api::Endpoint;

    const DICE: f64 = 0.5;

    /// The jobs of a customer.
    fn jobs(customer: u32) -> Resource {
        Resource::new(Endpoint::Jobs, &customer.to_string())
    }

    fn any() -> Resource {
        jobs(0)
    }

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn pace(requests_per_second: f64, max_concurrency: usize) -> Pace {
        Pace::new(Limits {
            requests_per_second,
            max_concurrency,
        })
    }

    /// Lets one request go, at `now` or after the waits it is told, and returns when.
    fn go(pace: &mut Pace, mut now: Duration) -> Duration {
        loop {
            match pace.admit(now, any()) {
                Admission::Go => return now,
                Admission::Wait(time) => {
                    assert!(time > Duration::ZERO);
                    now += time;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn request(pace: &mut Pace, now: Duration, outcome: impl FnOnce(&mut Pace, Duration)) -> Duration {
        let now = go(pace, now);
        outcome(pace, now);
        pace.finished(any());
        now
    }

    /// The jobs of five customers fail.
    fn find_down(pace: &mut Pace, now: Duration) {
        for customer in 0..5 {
            pace.failed(now, jobs(customer), DICE);
        }
    }

    #[test]
    fn requests_are_spread_at_the_ceiling_after_a_small_burst() {
        let mut pace = pace(5.0, 100);
        assert_eq!(pace.admit(at(0.0), any()), Admission::Go);
        assert_eq!(pace.admit(at(0.0), any()), Admission::Go);
        assert_eq!(pace.admit(at(0.0), any()), Admission::Wait(at(0.2)));
        assert_eq!(pace.admit(at(0.2), any()), Admission::Go);
        assert_eq!(pace.admit(at(0.3), any()), Admission::Wait(at(0.1)));
    }

    #[test]
    fn a_suspended_machine_comes_back_without_a_burst() {
        let mut pace = pace(5.0, 100);
        let gone = (0..100).filter(|_| pace.admit(at(1e6), any()) == Admission::Go);
        assert_eq!(gone.count(), 2);
    }

    #[test]
    fn a_clock_that_steps_back_earns_nothing() {
        let mut pace = pace(1.0, 100);
        go(&mut pace, at(10.0));
        go(&mut pace, at(10.0));
        assert_eq!(pace.admit(at(5.0), any()), Admission::Wait(at(1.0)));
        assert_eq!(pace.admit(at(10.5), any()), Admission::Wait(at(0.5)));
    }

    #[test]
    fn no_more_than_the_limit_are_in_flight() {
        let mut pace = pace(100.0, 2);
        assert_eq!(pace.admit(at(0.0), any()), Admission::Go);
        assert_eq!(pace.admit(at(0.0), any()), Admission::Go);
        assert_eq!(pace.admit(at(9.0), any()), Admission::Busy);
        pace.finished(any());
        assert_eq!(pace.admit(at(9.0), any()), Admission::Go);
        assert_eq!(pace.admit(at(9.0), any()), Admission::Busy);
    }

    #[test]
    fn limits_that_make_no_sense_still_let_requests_go() {
        for nonsense in [0.0, -1.0, f64::NAN] {
            let mut pace = pace(nonsense, 0);
            assert!(pace.rate() > 0.0 && pace.rate() < 1.0);
            request(&mut pace, at(0.0), |pace, now| pace.succeeded(now, any()));
        }
    }

    #[test]
    fn a_throttle_pauses_everyone_for_as_long_as_told() {
        let mut pace = pace(5.0, 8);
        request(&mut pace, at(0.0), |pace, now| {
            pace.throttled(now, any(), Some(at(7.0)));
        });
        assert_eq!(pace.admit(at(1.0), any()), Admission::Wait(at(6.0)));
        assert_eq!(pace.admit(at(7.0), any()), Admission::Go);
        assert!(matches!(pace.admit(at(7.0), any()), Admission::Wait(_)));
    }

    #[test]
    fn a_pause_is_clamped_and_only_ever_extended() {
        let mut pace = pace(5.0, 8);
        pace.throttled(at(0.0), any(), Some(Duration::MAX));
        assert_eq!(pace.admit(at(0.0), any()), Admission::Wait(MAX_PAUSE));
        pace.throttled(at(1.0), any(), Some(at(2.0)));
        pace.throttled(at(1.0), any(), None);
        assert_eq!(pace.admit(at(1.0), any()), Admission::Wait(MAX_PAUSE - at(1.0)));
        pace.throttled(at(100.0), any(), Some(MAX_PAUSE));
        assert_eq!(pace.admit(at(100.0), any()), Admission::Wait(MAX_PAUSE));
    }

    #[test]
    fn without_a_told_time_the_pause_doubles_to_a_minute_until_a_success() {
        let mut pace = pace(5.0, 8);
        let mut now = at(0.0);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            now = request(&mut pace, now, |pace, now| pace.throttled(now, any(), None));
            let Admission::Wait(pause) = pace.admit(now, any()) else {
                panic!("a pause expected");
            };
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);

        now = request(&mut pace, now, |pace, now| pace.succeeded(now, any()));
        now = request(&mut pace, now, |pace, now| pace.throttled(now, any(), None));
        assert_eq!(pace.admit(now, any()), Admission::Wait(at(1.0)));
    }

    #[test]
    fn throttles_of_one_burst_cut_the_rate_once() {
        for told in [None, Some(Duration::ZERO), Some(at(3.0))] {
            let mut pace = pace(10.0, 8);
            for _ in 0..8 {
                pace.throttled(at(0.5), any(), told);
            }
            assert!((pace.rate() - 7.0).abs() < 1e-9, "{}", pace.rate());
        }
    }

    #[test]
    fn a_late_success_does_not_end_a_run_of_throttles() {
        let mut pace = pace(10.0, 8);
        pace.throttled(at(0.0), any(), None);
        pace.succeeded(at(0.5), any());
        pace.throttled(at(1.0), any(), None);
        assert_eq!(pace.admit(at(1.0), any()), Admission::Wait(at(2.0)));
    }

    #[test]
    fn retries_are_a_tenth_of_first_requests() {
        let mut pace = pace(1000.0, 8);
        let (mut first, mut retries, mut now) = (0_u32, 0_u32, at(0.0));
        while first < 10_000 {
            now = request(&mut pace, now, |pace, now| pace.succeeded(now, any()));
            first += 1;
            while pace.may_retry(now, any()) {
                now = request(&mut pace, now, |pace, now| pace.succeeded(now, any()));
                retries += 1;
            }
        }
        assert!((1000..=1011).contains(&retries), "{retries}");
    }

    #[test]
    fn no_retry_while_the_host_is_down() {
        let mut pace = pace(5.0, 8);
        find_down(&mut pace, at(0.0));
        assert!(matches!(pace.admit(at(0.0), any()), Admission::Refused(_)));
        assert!(!pace.may_retry(at(0.0), any()));
        assert!(pace.may_retry(at(60.0), any()));
    }

    #[test]
    fn a_host_that_is_down_gets_one_probe_at_a_time() {
        let mut pace = pace(50.0, 8);
        find_down(&mut pace, at(0.0));
        let Admission::Refused(open) = pace.admit(at(1.0), any()) else {
            panic!("refusal expected");
        };
        let probing = at(1.0) + open;
        assert_eq!(pace.admit(probing, any()), Admission::Go);
        assert!(matches!(pace.admit(probing, any()), Admission::Refused(_)));

        // Its outcome decides; one that is given up is followed by another.
        pace.finished(any());
        assert_eq!(pace.admit(probing, any()), Admission::Go);
        pace.failed(probing, any(), DICE);
        pace.finished(any());
        let Admission::Refused(longer) = pace.admit(probing, any()) else {
            panic!("refusal expected");
        };
        assert!(longer > open);

        let probing = go(&mut pace, probing + longer);
        pace.succeeded(probing, any());
        pace.finished(any());
        assert!(matches!(pace.admit(probing, any()), Admission::Go | Admission::Wait(_)));
        assert!(pace.rate() < 10.0, "{}", pace.rate());
    }

    #[test]
    fn a_throttle_shows_that_the_host_lives() {
        let mut pace = pace(50.0, 8);
        find_down(&mut pace, at(0.0));
        pace.throttled(at(1.0), any(), Some(at(2.0)));
        assert_eq!(pace.admit(at(1.0), any()), Admission::Wait(at(2.0)));
    }

    #[test]
    fn backoff_doubles_within_its_cap_and_spreads_over_all_of_it() {
        assert_eq!(backoff(0, 0.0), Duration::ZERO);
        assert_eq!(backoff(0, 0.5), at(0.25));
        assert_eq!(backoff(3, 0.5), at(2.0));
        assert_eq!(backoff(6, 1.0), BACKOFF_CAP);
        assert_eq!(backoff(u32::MAX, 1.0), BACKOFF_CAP);
        assert_eq!(backoff(1, f64::INFINITY), at(1.0));
    }

    #[test]
    fn a_reload_forgets_no_pause_and_no_adapted_rate() {
        let mut before = pace(10.0, 8);
        before.throttled(at(1.0), any(), Some(at(100.0)));
        let mut same = before.under(before.limits);
        assert!((same.rate() - 7.0).abs() < 1e-9, "{}", same.rate());
        assert_eq!(same.admit(at(2.0), any()), Admission::Wait(at(99.0)));
        let other = Limits {
            requests_per_second: 20.0,
            ..before.limits
        };
        let mut other = before.under(other);
        assert_eq!(other.rate(), 20.0, "limits take effect at once");
        assert_eq!(other.admit(at(2.0), any()), Admission::Wait(at(99.0)));
    }

    #[test]
    fn a_pause_without_a_throttle_slows_nobody() {
        let mut pace = pace(10.0, 8);
        pace.pause(at(1.0), at(30.0));
        assert_eq!(pace.rate(), 10.0);
        assert_eq!(pace.admit(at(2.0), any()), Admission::Wait(at(29.0)));
        pace.pause(at(2.0), Duration::MAX);
        assert_eq!(pace.admit(at(2.0), any()), Admission::Wait(MAX_PAUSE));
    }

    #[test]
    fn what_is_down_leaves_the_rest_of_the_host_alone() {
        let protected = Resource::new(Endpoint::Protected, "0");
        let mut pace = pace(1000.0, 8);
        assert_eq!(pace.admit(at(0.0), protected), Admission::Go);
        pace.succeeded(at(0.0), protected);
        pace.finished(protected);
        find_down(&mut pace, at(0.1));
        for second in [0.2, 1.0, 2.0] {
            assert!(matches!(pace.admit(at(second), any()), Admission::Refused(_)));
            assert_eq!(pace.admit(at(second), protected), Admission::Go);
            pace.finished(protected);
        }
        pace.succeeded(at(9.0), protected);
        assert_eq!(pace.rate(), 1000.0, "the host is not slowed down for it");
    }

    #[test]
    fn a_host_that_answers_again_is_back_with_all_that_it_has() {
        let customers = Resource::new(Endpoint::Customers, "");
        let mut pace = pace(1000.0, 8);
        pace.succeeded(at(0.0), customers);
        find_down(&mut pace, at(1.0));
        pace.failed(at(1.0), customers, DICE);
        assert!(matches!(pace.admit(at(2.0), any()), Admission::Refused(_)));
        pace.succeeded(at(5.5), customers);
        assert_eq!(pace.admit(at(5.5), any()), Admission::Go);
        assert!(pace.rate() < 200.0, "and is not overrun: {}", pace.rate());
    }
}
