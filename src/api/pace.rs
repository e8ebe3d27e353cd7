//! Rate limiter: decides when a request may be sent. Pure: no clock, randomness, tasks or locks.
//!
//! Time is passed in as the time since any fixed start of a monotonic clock, and randomness as a number in `[0, 1)`. A
//! request calls [`Pace::admit`]; an admitted one reports one outcome ([`succeeded`](Pace::succeeded),
//! [`throttled`](Pace::throttled) or [`failed`](Pace::failed)) and then always [`finished`](Pace::finished).

mod breaker;
mod headers;
mod rate;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use self::{
    breaker::{Breaker, Verdict},
    rate::Rate,
};
use super::Endpoint;

pub use self::headers::{clock_skew, retry_after};

/// Longest pause that the API can request. A longer one would be a mistake or an attack, and five minutes are the
/// interval of the most frequent collector.
pub const MAX_PAUSE: Duration = Duration::from_secs(300);

/// Pause after a first throttle without `Retry-After`; it doubles with each further one without a success in between.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause without `Retry-After`: a minute is the window of most rate limits.
const LONGEST_DEFAULT_PAUSE: Duration = Duration::from_secs(60);

/// Minimum time between two cuts of the rate: concurrent requests are throttled together, for one reason.
const CUT_SPACING: Duration = Duration::from_secs(1);

/// Burst after a quiet time, so that a late timer does not reduce throughput.
const BURST: f64 = 2.0;

/// Burst as a fraction of a second's requests, for rates at which a timer's millisecond covers several requests.
const BURST_SECONDS: f64 = 0.1;

/// Tolerance for rounding a wait to whole nanoseconds, so that a request that waited is admitted.
const ROUNDING: f64 = 1e-6;

/// Minimum time without a response that counts as an outage of the host: the first pause of the circuit breaker.
const SILENCE: Duration = breaker::FIRST_OPEN;

/// Retry budget earned per request. Retries earn budget as well, so one eleventh of all requests is one tenth of the
/// first attempts, which limits the additional load.
const RETRIES_PER_REQUEST: f64 = 1.0 / 11.0;

/// Maximum and initial retry budget: enough for one or two requests of each collector after a reset connection.
const RETRY_RESERVE: f64 = 10.0;

/// Range of the first retry's delay; it doubles with each further one.
const BACKOFF_BASE: Duration = Duration::from_millis(500);

/// Longest range of a retry's delay, beyond which the next poll serves as well.
const BACKOFF_CAP: Duration = Duration::from_secs(30);

/// Configured limits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Requests per second.
    pub requests_per_second: f64,
    /// Concurrent requests.
    pub max_concurrency: usize,
}

/// Resource of a request. Failures are tracked per kind of resource and per path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    endpoint: Endpoint,
    path: u64,
}

impl Resource {
    /// Returns the resource of a kind at a path.
    pub fn new(endpoint: Endpoint, path: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        Self {
            endpoint,
            path: hasher.finish(),
        }
    }
}

/// Decision about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Send it now. Uses a slot, which [`Pace::finished`] releases.
    Go,
    /// Call again after this time.
    Wait(Duration),
    /// All slots are in use: call again when a request has finished.
    Busy,
    /// The host or the resource is down: fail, and retry after this time at the earliest.
    Refused(Duration),
}

/// Rate limiter of all requests to one host.
///
/// The rate falls by three tenths when the host throttles and recovers with successful requests: quickly below the last
/// limit, and slowly around it. Throttling pauses all requests. Repeated failures of one kind of resource stop its
/// requests except for occasional probes, and do not affect others.
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
    /// Resources that failed since then.
    failed_since: BTreeSet<Endpoint>,
}

/// The requests for one kind of resource.
#[derive(Debug, Default)]
struct Lane {
    breaker: Breaker,
    in_flight: usize,
}

impl Lane {
    /// Returns a lane without running requests.
    fn idle(&self) -> Self {
        Self {
            breaker: self.breaker.clone(),
            in_flight: 0,
        }
    }
}

impl Pace {
    /// Returns a rate limiter at its ceiling. A concurrency of 0 counts as 1, and a rate that is not positive as the
    /// floor.
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

    /// Returns the request rate limit per second, ignoring pauses.
    pub fn rate(&self) -> f64 {
        self.rate.per_second()
    }

    /// Returns the remaining pause of the whole host.
    pub fn pause_left(&self, now: Duration) -> Duration {
        self.paused_until.saturating_sub(now)
    }

    /// Returns whether a request may be sent now.
    pub fn admit(&mut self, now: Duration, resource: Resource) -> Admission {
        self.refill(now);
        let verdict = self.lane(resource).breaker.verdict(now);
        if let Verdict::Refuse(time) = verdict {
            return Admission::Refused(time);
        }
        let pause = self.pause_left(now);
        if !pause.is_zero() {
            return Admission::Wait(pause);
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

    /// Reports a response that is neither a throttle nor a failure; a 403 or 404 counts as success.
    pub fn succeeded(&mut self, now: Duration, resource: Resource) {
        self.answered(now, resource);
        // Requests that were in flight when the host throttled do not count for the time after.
        if now >= self.paused_until {
            self.throttles = 0;
            self.rate.climb(now);
        }
    }

    /// Reports that the host throttled. `retry_after` is the result of [`retry_after`] for its header.
    pub fn throttled(&mut self, now: Duration, resource: Resource, retry_after: Option<Duration>) {
        self.refill(now);
        self.answered(now, resource);
        let counts = now >= self.paused_until && self.last_cut.is_none_or(|cut| now.saturating_sub(cut) >= CUT_SPACING);
        let pause = match retry_after {
            Some(requested) => requested.min(MAX_PAUSE),
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

    /// Reports that the host requested a pause without throttling, for example with a 503: all requests wait, and the
    /// rate stays.
    pub fn pause(&mut self, now: Duration, requested: Duration) {
        self.refill(now);
        self.paused_until = self.paused_until.max(now.saturating_add(requested.min(MAX_PAUSE)));
        self.tokens = self.tokens.min(1.0);
    }

    /// Returns a rate limiter that continues this one, for example after a reload. With the same limits it has the same
    /// rate; with other limits it starts at their ceiling. A pause continues in either case. Requests in flight are not
    /// taken over.
    #[must_use]
    pub fn under(&self, limits: Limits) -> Self {
        let mut next = Self::new(limits);
        next.paused_until = self.paused_until;
        next.refilled_at = self.refilled_at;
        next.tokens = self.tokens.min(next.tokens);
        next.retries = self.retries;
        next.answered_at = self.answered_at;
        next.failed_since = self.failed_since.clone();
        next.lanes = self
            .lanes
            .iter()
            .map(|(endpoint, lane)| (*endpoint, lane.idle()))
            .collect();
        if self.limits == limits {
            next.rate = self.rate.clone();
            next.last_cut = self.last_cut;
            next.throttles = self.throttles;
        }
        next
    }

    /// Reports that the host failed: no connection, no response in time, or status 5xx.
    pub fn failed(&mut self, now: Duration, resource: Resource, dice: f64) {
        self.failed_since.insert(resource.endpoint);
        self.lane(resource).breaker.fail(resource.path, now, dice);
    }

    /// Reports the end of an admitted request, even if it was cancelled without an outcome. Called after its outcome.
    pub fn finished(&mut self, resource: Resource) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let lane = self.lane(resource);
        lane.in_flight = lane.in_flight.saturating_sub(1);
        if lane.in_flight == 0 {
            lane.breaker.probe_given_up();
        }
    }

    /// Returns whether a failed request may be retried, or its poll repeated early, and uses retry budget. False while
    /// its resource is down. The retry is admitted like any request.
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

    /// Handles a response of the host. If nothing has responded for some time, and this kind of resource has failed in
    /// the meantime, the whole host was down and has recovered; otherwise only this resource was.
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
        // During a pause at most one token is saved, so that it does not end with a burst.
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

/// Returns the delay of the retry after `attempt` earlier ones: random up to a limit that doubles, so that clients that
/// failed together do not retry together ("full jitter").
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
