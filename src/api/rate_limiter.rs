//! Decides when a request may be sent. The rate limiter is deterministic: it uses no clock, random numbers, tasks or
//! locks of its own.
//!
//! Callers pass in the time since a fixed point on a monotonic clock, and random numbers in `[0, 1)`. For each
//! request, they call [`RateLimiter::try_acquire`]. For an admitted request that is not cancelled, they report one
//! outcome with [`succeeded`](RateLimiter::succeeded), [`throttled`](RateLimiter::throttled) or
//! [`failed`](RateLimiter::failed). At the end of every admitted request, they call
//! [`finished`](RateLimiter::finished).

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
    breaker::{CircuitBreaker, Decision},
    rate::Rate,
};
use super::Endpoint;

pub use self::headers::{clock_skew, retry_after};

/// Longest pause that the API can request, equal to the shortest default poll interval. A longer pause is assumed to be
/// a mistake or an attack.
pub const MAX_PAUSE: Duration = Duration::from_secs(300);

/// Pause after the first throttled request without `Retry-After`. It doubles with each further throttled request until
/// a request succeeds.
const INITIAL_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause without `Retry-After`. Most rate limits have a window of one minute.
const MAX_DEFAULT_PAUSE: Duration = Duration::from_secs(60);

/// Minimum time between two decreases of the rate. Concurrent requests that are throttled together count as one.
const DECREASE_SPACING: Duration = Duration::from_secs(1);

/// Minimum burst after an idle period, so that a late timer does not reduce throughput.
const MIN_BURST: f64 = 2.0;

/// Burst size at rates above 20 requests per second: the number of requests that the rate allows in this many seconds.
/// At such rates, more than [`MIN_BURST`] requests may be due when a late timer fires.
const BURST_SECONDS: f64 = 0.1;

/// Tolerance for waits that are rounded to whole nanoseconds. With it, a request is always admitted after its wait.
const TOKEN_TOLERANCE: f64 = 1e-6;

/// An outage of the host is assumed only if the host has not responded for at least this long.
const MIN_OUTAGE: Duration = breaker::INITIAL_OPEN_TIME;

/// Retry budget added per attempt. Retries are attempts as well, so one eleventh per attempt limits retries to one
/// for every ten first attempts.
const RETRY_BUDGET_PER_REQUEST: f64 = 1.0 / 11.0;

/// Maximum and initial retry budget: enough for most collectors to retry one request after a connection reset.
const MAX_RETRY_BUDGET: f64 = 10.0;

/// Maximum delay of the first retry. It doubles with each further retry.
const BACKOFF_BASE: Duration = Duration::from_millis(500);

/// Upper limit of the maximum delay. A retry after a longer delay has no advantage over the next poll.
const BACKOFF_CAP: Duration = Duration::from_secs(30);

/// Configured limits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RequestLimits {
    /// Requests per second.
    pub requests_per_second: f64,
    /// Concurrent requests.
    pub max_concurrency: usize,
}

/// Resource of a request. Failures are tracked per endpoint and path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    endpoint: Endpoint,
    path: u64,
}

impl Resource {
    /// Returns the resource of an endpoint at a path.
    pub fn new(endpoint: Endpoint, path: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        Self {
            endpoint,
            path: hasher.finish(),
        }
    }
}

/// Result of [`RateLimiter::try_acquire`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Send the request now. It uses a slot, which [`RateLimiter::finished`] releases.
    Admitted,
    /// Call again after this time.
    Wait(Duration),
    /// All slots are in use: call again when a request has finished.
    Busy,
    /// The host or the endpoint is down: fail, and do not try again before this time has passed.
    Rejected(Duration),
}

/// Rate limiter for all requests to one host.
///
/// When the host throttles a request, all requests pause and the rate decreases by 30 %. Successful requests increase
/// the rate again: quickly at first, and slowly near the rate at which the host throttled the request. If several
/// resources of an endpoint fail in succession, only occasional probes are sent to this endpoint. Other endpoints are
/// not affected.
#[derive(Debug)]
pub struct RateLimiter {
    limits: RequestLimits,
    max_concurrency: usize,
    in_flight: usize,
    rate: Rate,
    tokens: f64,
    refilled_at: Duration,
    paused_until: Duration,
    last_decrease: Option<Duration>,
    throttles: u32,
    retry_budget: f64,
    endpoints: BTreeMap<Endpoint, EndpointState>,
    last_response_at: Option<Duration>,
    /// Endpoints that have failed since the last response.
    failed_since_response: BTreeSet<Endpoint>,
}

/// State of the requests to one endpoint.
#[derive(Debug, Default)]
struct EndpointState {
    breaker: CircuitBreaker,
    in_flight: usize,
}

impl EndpointState {
    fn without_requests(&self) -> Self {
        let mut breaker = self.breaker.clone();
        breaker.abandon_probe();
        Self { breaker, in_flight: 0 }
    }
}

impl RateLimiter {
    /// Returns a rate limiter whose rate is at its maximum. A concurrency of 0 counts as 1, and a rate that is not
    /// positive counts as the minimum rate.
    pub fn new(limits: RequestLimits) -> Self {
        let rate = Rate::new(limits.requests_per_second);
        Self {
            limits,
            max_concurrency: limits.max_concurrency.max(1),
            in_flight: 0,
            tokens: burst(&rate),
            rate,
            refilled_at: Duration::ZERO,
            paused_until: Duration::ZERO,
            last_decrease: None,
            throttles: 0,
            retry_budget: MAX_RETRY_BUDGET,
            endpoints: BTreeMap::new(),
            last_response_at: None,
            failed_since_response: BTreeSet::new(),
        }
    }

    /// Returns the request rate limit in requests per second, ignoring pauses.
    pub fn rate(&self) -> f64 {
        self.rate.per_second()
    }

    /// Returns the remaining pause for all requests to the host.
    pub fn pause_left(&self, now: Duration) -> Duration {
        self.paused_until.saturating_sub(now)
    }

    /// Admits a request, or returns why it must not be sent now.
    pub fn try_acquire(&mut self, now: Duration, resource: Resource) -> Admission {
        self.refill(now);
        let decision = self.endpoint_state(resource).breaker.check(now);
        if let Decision::Reject(time) = decision {
            return Admission::Rejected(time);
        }
        let pause = self.pause_left(now);
        if !pause.is_zero() {
            return Admission::Wait(pause);
        }
        if self.in_flight >= self.max_concurrency {
            return Admission::Busy;
        }
        if self.tokens < 1.0 - TOKEN_TOLERANCE {
            return Admission::Wait(seconds((1.0 - self.tokens) / self.rate.per_second()));
        }
        let state = self.endpoint_state(resource);
        if decision == Decision::Probe {
            state.breaker.start_probe();
        }
        state.in_flight += 1;
        self.tokens -= 1.0;
        self.in_flight += 1;
        self.retry_budget = (self.retry_budget + RETRY_BUDGET_PER_REQUEST).min(MAX_RETRY_BUDGET);
        Admission::Admitted
    }

    /// Reports a response that indicates neither throttling nor a failure. Statuses such as 403 and 404 count as
    /// success.
    pub fn succeeded(&mut self, now: Duration, resource: Resource) {
        self.handle_response(now, resource);
        // A response during a pause belongs to a request that was sent before the pause, and says nothing about the new
        // rate.
        if now >= self.paused_until {
            self.throttles = 0;
            self.rate.increase(now);
        }
    }

    /// Reports that the host throttled a request. `retry_after` is the value of the `Retry-After` header, parsed
    /// by the function [`retry_after`].
    pub fn throttled(&mut self, now: Duration, resource: Resource, retry_after: Option<Duration>) {
        self.refill(now);
        self.handle_response(now, resource);
        let counts = now >= self.paused_until
            && self
                .last_decrease
                .is_none_or(|decrease| now.saturating_sub(decrease) >= DECREASE_SPACING);
        let pause = match retry_after {
            Some(requested) => requested.min(MAX_PAUSE),
            None if counts => doubled(INITIAL_PAUSE, self.throttles).min(MAX_DEFAULT_PAUSE),
            None => Duration::ZERO,
        };
        if counts {
            self.rate.decrease(now);
            self.throttles = self.throttles.saturating_add(1);
            self.last_decrease = Some(now);
        }
        self.paused_until = self.paused_until.max(now.saturating_add(pause));
        self.tokens = self.tokens.min(1.0);
    }

    /// Reports that the host requested a pause without throttling, for example with status 503. All requests wait, and
    /// the rate does not change.
    pub fn pause(&mut self, now: Duration, requested: Duration) {
        self.refill(now);
        self.paused_until = self.paused_until.max(now.saturating_add(requested.min(MAX_PAUSE)));
        self.tokens = self.tokens.min(1.0);
    }

    /// Returns a rate limiter with these limits, for a reload. The new rate limiter keeps the pause and the failures of
    /// the old one. If the limits are the same, it also keeps the rate; otherwise, its rate starts at the new maximum.
    /// Requests in flight are not counted.
    #[must_use]
    pub fn with_limits(&self, limits: RequestLimits) -> Self {
        let mut next = Self::new(limits);
        next.paused_until = self.paused_until;
        next.refilled_at = self.refilled_at;
        next.tokens = self.tokens.min(next.tokens);
        next.retry_budget = self.retry_budget;
        next.last_response_at = self.last_response_at;
        next.failed_since_response = self.failed_since_response.clone();
        next.endpoints = self
            .endpoints
            .iter()
            .map(|(endpoint, state)| (*endpoint, state.without_requests()))
            .collect();
        if self.limits == limits {
            next.rate = self.rate.clone();
            next.last_decrease = self.last_decrease;
            next.throttles = self.throttles;
        }
        next
    }

    /// Reports that the host failed. For example, it was unreachable, did not respond in time, or returned status 5xx.
    pub fn failed(&mut self, now: Duration, resource: Resource, random: f64) {
        self.failed_since_response.insert(resource.endpoint);
        self.endpoint_state(resource)
            .breaker
            .record_failure(resource.path, now, random);
    }

    /// Reports that an admitted request has ended. A cancelled request ends without an outcome.
    pub fn finished(&mut self, resource: Resource) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let state = self.endpoint_state(resource);
        state.in_flight = state.in_flight.saturating_sub(1);
        if state.in_flight == 0 {
            state.breaker.abandon_probe();
        }
    }

    /// Returns whether a failed request may be retried, or its poll repeated early. If so, reduces the retry budget by
    /// one. Returns false while the breaker rejects requests to the endpoint. The retry itself must be admitted like
    /// any other request.
    pub fn may_retry(&mut self, now: Duration, resource: Resource) -> bool {
        let is_up = !matches!(self.endpoint_state(resource).breaker.check(now), Decision::Reject(_));
        let is_granted = is_up && self.retry_budget >= 1.0 - TOKEN_TOLERANCE;
        if is_granted {
            self.retry_budget -= 1.0;
        }
        is_granted
    }

    fn endpoint_state(&mut self, resource: Resource) -> &mut EndpointState {
        self.endpoints.entry(resource.endpoint).or_default()
    }

    /// Handles a response from the host. The whole host is assumed to have recovered from an outage if it had not
    /// responded for [`MIN_OUTAGE`], this endpoint had failed during that time, and a breaker is open. Otherwise, only
    /// this resource is assumed to have recovered, and its endpoint's breaker closes.
    fn handle_response(&mut self, now: Duration, resource: Resource) {
        let before = self.last_response_at.replace(now).unwrap_or(Duration::ZERO);
        let was_outage =
            now.saturating_sub(before) >= MIN_OUTAGE && self.failed_since_response.contains(&resource.endpoint);
        self.failed_since_response.clear();
        let mut endpoints = self.endpoints.values_mut();
        if was_outage && endpoints.any(|state| state.breaker.is_open()) {
            for state in self.endpoints.values_mut() {
                state.breaker = CircuitBreaker::default();
            }
            self.rate.restart(now);
        } else {
            self.endpoint_state(resource).breaker.record_success(resource.path);
        }
    }

    fn refill(&mut self, now: Duration) {
        // At most one token accumulates during a pause, so that the pause does not end with a burst.
        self.add_tokens(self.paused_until.min(now), 1.0);
        self.add_tokens(now, burst(&self.rate));
    }

    fn add_tokens(&mut self, until: Duration, max_tokens: f64) {
        let elapsed = until.saturating_sub(self.refilled_at);
        if elapsed > Duration::ZERO {
            let added = elapsed.as_secs_f64() * self.rate.per_second();
            self.tokens = (self.tokens + added).min(max_tokens);
            self.refilled_at = until;
        }
    }
}

/// Returns the delay before a retry, after `attempt` earlier retries. The delay is random, up to a maximum that doubles
/// with each retry. Clients that failed together therefore do not retry together ("full jitter").
pub fn backoff(attempt: u32, random: f64) -> Duration {
    doubled(BACKOFF_BASE, attempt)
        .min(BACKOFF_CAP)
        .mul_f64(random.clamp(0.0, 1.0))
}

fn burst(rate: &Rate) -> f64 {
    MIN_BURST.max(rate.per_second() * BURST_SECONDS)
}

fn doubled(base: Duration, times: u32) -> Duration {
    base.saturating_mul(2_u32.saturating_pow(times))
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX)
}
