//! Simulates hours of traffic to a host, with a fixed sequence of random numbers.

use std::{cmp::Reverse, collections::BinaryHeap, ops::Range, time::Duration};

use super::rate::Rate;
use super::{Admission, RateLimiter, RequestLimits, Resource, backoff};
use crate::api::Endpoint;

const HOUR: Duration = Duration::from_secs(3600);
const LATENCY: Duration = Duration::from_millis(150);
const CONCURRENCY: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Response {
    Success,
    Throttle,
    Failure,
}

/// A rate-limited host that may be down or faulty for some time.
struct Host {
    /// Maximum number of requests per second.
    limit: f64,
    burst: f64,
    retry_after: Option<Duration>,
    /// Period in which every request fails.
    down: Range<Duration>,
    /// Period in which every other request fails.
    faulty: Range<Duration>,
    /// Time at which the limit is lifted.
    limit_ends_at: Duration,
    tokens: f64,
    seen_at: Duration,
    responses: u64,
}

impl Host {
    fn limited(limit: f64, burst: f64, retry_after: Option<u64>) -> Self {
        Self {
            limit,
            burst,
            retry_after: retry_after.map(Duration::from_secs),
            down: Duration::MAX..Duration::MAX,
            faulty: Duration::MAX..Duration::MAX,
            limit_ends_at: Duration::MAX,
            tokens: burst,
            seen_at: Duration::ZERO,
            responses: 0,
        }
    }

    fn unlimited() -> Self {
        Self::limited(1e9, 1e9, None)
    }

    fn respond(&mut self, now: Duration) -> Response {
        self.responses += 1;
        let fault = self.faulty.contains(&now) && self.responses.is_multiple_of(2);
        if fault || self.down.contains(&now) {
            return Response::Failure;
        }
        let added = (now - self.seen_at).as_secs_f64() * self.limit;
        self.tokens = (self.tokens + added).min(self.burst);
        self.seen_at = now;
        if self.tokens < 1.0 && now < self.limit_ends_at {
            return Response::Throttle;
        }
        self.tokens -= 1.0;
        Response::Success
    }
}

/// A request received by the host.
struct Request {
    at: Duration,
    response: Response,
    /// The rate limiter's rate at that time.
    rate: f64,
}

/// A fixed sequence of numbers in `[0, 1)` (a linear congruential generator).
struct Lcg(u32);

impl Lcg {
    fn next_f64(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(self.0 >> 8) / f64::from(1_u32 << 24)
    }
}

/// Creates `demand` new requests per second until `end`, and sends each as soon as the rate limiter admits it. A
/// request is retried up to three times, if the rate limiter allows it. Requests that the rate limiter rejects are
/// dropped. Returns the requests that the host received.
fn run(ceiling: f64, demand: f64, host: &mut Host, end: Duration) -> Vec<Request> {
    let mut limiter = RateLimiter::new(RequestLimits {
        requests_per_second: ceiling,
        max_concurrency: CONCURRENCY,
    });
    let mut rng = Lcg(1);
    let mut received = Vec::new();
    // Each new request has its own resource. `waiting` orders requests by the time at which they are due, and stores
    // the number of earlier attempts and the resource. `in_flight` orders sent requests by the time of their response.
    let resource = |number: u32| Resource::new(Endpoint::Jobs, &number.to_string());
    let mut requested = 0_u32;
    let mut waiting = BinaryHeap::from([Reverse((Duration::ZERO, 0_u32, requested))]);
    let mut in_flight: BinaryHeap<Reverse<(Duration, Response, u32, u32)>> = BinaryHeap::new();
    let between = Duration::from_secs_f64(1.0 / demand);
    let mut next_first = between;
    let mut now = Duration::ZERO;
    while now < end {
        while let Some(&Reverse((done, response, attempt, number))) = in_flight.peek()
            && done <= now
        {
            in_flight.pop();
            match response {
                Response::Success => limiter.succeeded(now, resource(number)),
                Response::Throttle => limiter.throttled(now, resource(number), host.retry_after),
                Response::Failure => limiter.failed(now, resource(number), rng.next_f64()),
            }
            limiter.finished(resource(number));
            if response != Response::Success && attempt < 3 && limiter.may_retry(now, resource(number)) {
                waiting.push(Reverse((now + backoff(attempt, rng.next_f64()), attempt + 1, number)));
            }
        }
        while next_first <= now {
            requested += 1;
            waiting.push(Reverse((next_first, 0, requested)));
            next_first += between;
        }
        let mut wake = next_first;
        while let Some(&Reverse((due, attempt, number))) = waiting.peek() {
            if due > now {
                wake = wake.min(due);
                break;
            }
            match limiter.try_acquire(now, resource(number)) {
                Admission::Admitted => {
                    waiting.pop();
                    let response = host.respond(now);
                    received.push(Request {
                        at: now,
                        response,
                        rate: limiter.rate(),
                    });
                    in_flight.push(Reverse((now + LATENCY, response, attempt, number)));
                    assert!(in_flight.len() <= CONCURRENCY);
                }
                Admission::Wait(time) => {
                    wake = wake.min(now + time);
                    break;
                }
                Admission::Busy => break,
                Admission::Rejected(_) => {
                    waiting.pop();
                }
            }
        }
        if let Some(Reverse((done, ..))) = in_flight.peek() {
            wake = wake.min(*done);
        }
        assert!(wake > now, "time does not advance at {now:?}");
        now = wake;
    }
    received
}

fn between(received: &[Request], time: Range<Duration>) -> impl Iterator<Item = &Request> {
    received.iter().filter(move |request| time.contains(&request.at))
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn fraction(received: &[Request], expected: Response) -> f64 {
    let matching = received.iter().filter(|request| request.response == expected);
    number(matching.count()) / number(received.len())
}

fn minutes(count: u32) -> Duration {
    Duration::from_secs(60) * count
}

#[test]
fn most_of_a_limit_far_below_the_ceiling_is_used() {
    for burst in [2.0, 10.0, 30.0] {
        for retry_after in [None, Some(0), Some(1), Some(5), Some(10)] {
            let mut host = Host::limited(10.0, burst, retry_after);
            let received = run(50.0, 60.0, &mut host, HOUR);
            let used = fraction(&received, Response::Success) * number(received.len()) / (10.0 * 3600.0);
            let throttled = fraction(&received, Response::Throttle);
            let case = format!("burst {burst}, {retry_after:?}: {used:.3}, {throttled:.4}");
            assert!(used >= 0.8 && throttled < 0.05, "{case}");
        }
    }
}

#[test]
fn lifted_limit_is_detected_within_minutes() {
    let mut host = Host::limited(10.0, 10.0, Some(1));
    host.limit_ends_at = HOUR / 2;
    let received = run(50.0, 60.0, &mut host, HOUR);
    let later = HOUR / 2 + minutes(7);
    let rate = number(between(&received, later..later + minutes(1)).count()) / 60.0;
    assert!(rate > 45.0, "{rate}");
}

#[test]
fn ceiling_is_observed_in_every_second() {
    let received = run(20.0, 60.0, &mut Host::unlimited(), minutes(10));
    for (index, request) in received.iter().enumerate() {
        let window = request.at..request.at + Duration::from_secs(1);
        let count = received
            .iter()
            .skip(index)
            .take_while(|other| window.contains(&other.at));
        assert!(count.count() <= 22);
    }
    let used = number(received.len()) / (20.0 * 600.0);
    assert!(used > 0.99, "{used}");
}

#[test]
fn continuous_throttling_decreases_the_rate_to_the_floor() {
    for retry_after in [None, Some(0), Some(3)] {
        let mut host = Host::limited(0.0, 0.0, retry_after);
        let received = run(50.0, 60.0, &mut host, HOUR);
        let lowest = received.iter().map(|request| request.rate).fold(50.0, f64::min);
        assert!((lowest - 0.1).abs() < 1e-9, "{lowest}");
        let late = number(between(&received, HOUR / 2..HOUR).count()) / 1800.0;
        assert!(late > 0.01 && late < 0.11, "{retry_after:?}: {late}");
    }
}

#[test]
fn few_requests_are_sent_during_an_outage() {
    let mut host = Host::unlimited();
    host.down = HOUR..2 * HOUR;
    let received = run(5.0, 4.0, &mut host, 3 * HOUR);
    let healthy = between(&received, Duration::ZERO..HOUR).count();
    let down = between(&received, HOUR..2 * HOUR).count();
    assert!(healthy > 14_000, "{healthy}");
    // The range covers the probes in an hour, with open times of 60 to 75 s, and the failures that opened the breaker.
    assert!((48..=80).contains(&down), "{down}");
}

#[test]
fn retries_add_at_most_a_tenth_of_the_requests() {
    let mut host = Host::unlimited();
    host.faulty = HOUR..2 * HOUR;
    let received = run(50.0, 4.0, &mut host, 2 * HOUR);
    let healthy = number(between(&received, Duration::ZERO..HOUR).count());
    let faulty = number(between(&received, HOUR..2 * HOUR).count());
    let load = faulty / healthy;
    assert!(load > 1.05 && load <= 1.11, "{load}");
}

#[test]
fn recovery_is_detected_quickly_and_without_a_burst() {
    let mut host = Host::unlimited();
    host.down = HOUR..2 * HOUR;
    let received = run(50.0, 60.0, &mut host, 3 * HOUR);
    let first = between(&received, 2 * HOUR..3 * HOUR).next();
    let first = first.map_or(Duration::MAX, |request| request.at);
    assert!(first <= 2 * HOUR + Duration::from_secs(75), "{first:?}");

    let within = |seconds| between(&received, first..first + Duration::from_secs(seconds)).count();
    assert!(within(1) <= 10, "{}", within(1));
    assert!(within(10) <= 250, "{}", within(10));
    let back = first + minutes(2);
    let rate = number(between(&received, back..back + minutes(1)).count()) / 60.0;
    assert!(rate > 45.0, "{rate}");
}

/// A rule that changes a rate after each response.
trait Law {
    fn per_second(&self) -> f64;
    fn increase(&mut self, now: Duration);
    fn decrease(&mut self, now: Duration);
}

impl Law for Rate {
    fn per_second(&self) -> f64 {
        self.per_second()
    }

    fn increase(&mut self, now: Duration) {
        self.increase(now);
    }

    fn decrease(&mut self, now: Duration) {
        self.decrease(now);
    }
}

/// Additive increase and multiplicative decrease.
struct Aimd {
    rate: f64,
    /// Requests per second by which the rate increases in each second of full use.
    step: f64,
}

impl Law for Aimd {
    fn per_second(&self) -> f64 {
        self.rate
    }

    fn increase(&mut self, _: Duration) {
        self.rate = (self.rate + self.step / self.rate).min(50.0);
    }

    fn decrease(&mut self, _: Duration) {
        self.rate *= 0.7;
    }
}

/// Sends requests for up to two hours, at the rate that a law sets, and waits for `pause` after each throttled request.
/// The host lifts its limit after the first hour. Returns the fraction of the limit that was used in the first hour,
/// and how long the rate then takes to exceed 45, which is close to its ceiling of 50.
fn follow(law: &mut dyn Law, pause: Duration) -> (f64, Duration) {
    let mut host = Host::limited(10.0, 10.0, None);
    host.limit_ends_at = HOUR;
    let (mut now, mut used) = (Duration::ZERO, 0);
    while now < 2 * HOUR {
        now += Duration::from_secs_f64(1.0 / law.per_second());
        match host.respond(now) {
            Response::Success => {
                law.increase(now);
                used += usize::from(now < HOUR);
            }
            Response::Throttle | Response::Failure => {
                law.decrease(now);
                now += pause;
            }
        }
        if now > HOUR && law.per_second() > 45.0 {
            break;
        }
    }
    (number(used) / (10.0 * 3600.0), now - HOUR)
}

#[test]
fn cubic_increase_is_better_than_any_linear_one() {
    for pause in [5, 10].map(Duration::from_secs) {
        let (cubic_used, cubic_detected) = follow(&mut Rate::new(50.0), pause);
        for step in [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0] {
            let (used, detected) = follow(&mut Aimd { rate: 50.0, step }, pause);
            // With a step that uses at least as much of the limit as the cubic increase does, AIMD takes more than six
            // times as long to detect that the limit was lifted.
            let is_worse = used < cubic_used || detected > 6 * cubic_detected;
            assert!(
                is_worse,
                "{pause:?}, {step}: {used} in {detected:?}, {cubic_used} in {cubic_detected:?}"
            );
            if detected <= cubic_detected {
                assert!(used < cubic_used - 0.05, "{pause:?}, {step}: {used}, {cubic_used}");
            }
        }
    }
}
