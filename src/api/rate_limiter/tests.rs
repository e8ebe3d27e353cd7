use std::time::Duration;

use super::{Admission, BACKOFF_CAP, MAX_PAUSE, RateLimiter, RequestLimits, Resource, backoff};
use crate::api::Endpoint;

const RANDOM: f64 = 0.5;

/// Returns the resource for a customer's job runs.
fn jobs(customer: u32) -> Resource {
    Resource::new(Endpoint::Jobs, &customer.to_string())
}

fn any() -> Resource {
    jobs(0)
}

fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn limiter(requests_per_second: f64, max_concurrency: usize) -> RateLimiter {
    RateLimiter::new(RequestLimits {
        requests_per_second,
        max_concurrency,
    })
}

/// Acquires a slot at `now`, or after the required waits, and returns the time.
fn acquire(limiter: &mut RateLimiter, mut now: Duration) -> Duration {
    loop {
        match limiter.try_acquire(now, any()) {
            Admission::Admitted => return now,
            Admission::Wait(time) => {
                assert!(time > Duration::ZERO);
                now += time;
            }
            other => panic!("{other:?}"),
        }
    }
}

fn request(limiter: &mut RateLimiter, now: Duration, outcome: impl FnOnce(&mut RateLimiter, Duration)) -> Duration {
    let now = acquire(limiter, now);
    outcome(limiter, now);
    limiter.finished(any());
    now
}

/// Reports a failed request for the job runs of each of five customers.
fn fail_five_customers(limiter: &mut RateLimiter, now: Duration) {
    for customer in 0..5 {
        limiter.failed(now, jobs(customer), RANDOM);
    }
}

#[test]
fn requests_are_spaced_evenly_after_a_small_burst() {
    let mut limiter = limiter(5.0, 100);
    assert_eq!(limiter.try_acquire(at(0.0), any()), Admission::Admitted);
    assert_eq!(limiter.try_acquire(at(0.0), any()), Admission::Admitted);
    assert_eq!(limiter.try_acquire(at(0.0), any()), Admission::Wait(at(0.2)));
    assert_eq!(limiter.try_acquire(at(0.2), any()), Admission::Admitted);
    assert_eq!(limiter.try_acquire(at(0.3), any()), Admission::Wait(at(0.1)));
}

#[test]
fn suspended_machine_resumes_without_a_burst() {
    let mut limiter = limiter(5.0, 100);
    let admitted = (0..100).filter(|_| limiter.try_acquire(at(1e6), any()) == Admission::Admitted);
    assert_eq!(admitted.count(), 2);
}

#[test]
fn clock_that_goes_back_does_not_add_requests() {
    let mut limiter = limiter(1.0, 100);
    acquire(&mut limiter, at(10.0));
    acquire(&mut limiter, at(10.0));
    assert_eq!(limiter.try_acquire(at(5.0), any()), Admission::Wait(at(1.0)));
    assert_eq!(limiter.try_acquire(at(10.5), any()), Admission::Wait(at(0.5)));
}

#[test]
fn requests_in_flight_are_limited() {
    let mut limiter = limiter(100.0, 2);
    assert_eq!(limiter.try_acquire(at(0.0), any()), Admission::Admitted);
    assert_eq!(limiter.try_acquire(at(0.0), any()), Admission::Admitted);
    assert_eq!(limiter.try_acquire(at(9.0), any()), Admission::Busy);
    limiter.finished(any());
    assert_eq!(limiter.try_acquire(at(9.0), any()), Admission::Admitted);
    assert_eq!(limiter.try_acquire(at(9.0), any()), Admission::Busy);
}

#[test]
fn invalid_limits_still_admit_requests() {
    for invalid in [0.0, -1.0, f64::NAN] {
        let mut limiter = limiter(invalid, 0);
        assert!(limiter.rate() > 0.0 && limiter.rate() < 1.0);
        request(&mut limiter, at(0.0), |limiter, now| limiter.succeeded(now, any()));
    }
}

#[test]
fn throttle_pauses_all_requests_for_its_retry_after() {
    let mut limiter = limiter(5.0, 8);
    request(&mut limiter, at(0.0), |limiter, now| {
        limiter.throttled(now, any(), Some(at(7.0)));
    });
    assert_eq!(limiter.try_acquire(at(1.0), any()), Admission::Wait(at(6.0)));
    assert_eq!(limiter.try_acquire(at(7.0), any()), Admission::Admitted);
    assert!(matches!(limiter.try_acquire(at(7.0), any()), Admission::Wait(_)));
}

#[test]
fn pause_is_clamped_and_never_shortened() {
    let mut limiter = limiter(5.0, 8);
    limiter.throttled(at(0.0), any(), Some(Duration::MAX));
    assert_eq!(limiter.try_acquire(at(0.0), any()), Admission::Wait(MAX_PAUSE));
    limiter.throttled(at(1.0), any(), Some(at(2.0)));
    limiter.throttled(at(1.0), any(), None);
    assert_eq!(
        limiter.try_acquire(at(1.0), any()),
        Admission::Wait(MAX_PAUSE - at(1.0))
    );
    limiter.throttled(at(100.0), any(), Some(MAX_PAUSE));
    assert_eq!(limiter.try_acquire(at(100.0), any()), Admission::Wait(MAX_PAUSE));
}

#[test]
fn pause_without_retry_after_doubles_up_to_a_minute() {
    let mut limiter = limiter(5.0, 8);
    let mut now = at(0.0);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        now = request(&mut limiter, now, |limiter, now| limiter.throttled(now, any(), None));
        let Admission::Wait(pause) = limiter.try_acquire(now, any()) else {
            panic!("expected a pause");
        };
        pauses.push(pause.as_secs());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);

    now = request(&mut limiter, now, |limiter, now| limiter.succeeded(now, any()));
    now = request(&mut limiter, now, |limiter, now| limiter.throttled(now, any(), None));
    assert_eq!(limiter.try_acquire(now, any()), Admission::Wait(at(1.0)));
}

#[test]
fn throttled_burst_decreases_the_rate_once() {
    for retry_after in [None, Some(Duration::ZERO), Some(at(3.0))] {
        let mut limiter = limiter(10.0, 8);
        for _ in 0..8 {
            limiter.throttled(at(0.5), any(), retry_after);
        }
        assert!((limiter.rate() - 7.0).abs() < 1e-9, "{}", limiter.rate());
    }
}

#[test]
fn late_success_does_not_reset_the_pause() {
    let mut limiter = limiter(10.0, 8);
    limiter.throttled(at(0.0), any(), None);
    limiter.succeeded(at(0.5), any());
    limiter.throttled(at(1.0), any(), None);
    assert_eq!(limiter.try_acquire(at(1.0), any()), Admission::Wait(at(2.0)));
}

#[test]
fn retries_are_limited_to_a_tenth_of_first_requests() {
    let mut limiter = limiter(1000.0, 8);
    let (mut first, mut retries, mut now) = (0_u32, 0_u32, at(0.0));
    while first < 10_000 {
        now = request(&mut limiter, now, |limiter, now| limiter.succeeded(now, any()));
        first += 1;
        while limiter.may_retry(now, any()) {
            now = request(&mut limiter, now, |limiter, now| limiter.succeeded(now, any()));
            retries += 1;
        }
    }
    assert!((1000..=1011).contains(&retries), "{retries}");
}

#[test]
fn retries_stop_while_the_host_is_down() {
    let mut limiter = limiter(5.0, 8);
    fail_five_customers(&mut limiter, at(0.0));
    assert!(matches!(limiter.try_acquire(at(0.0), any()), Admission::Rejected(_)));
    assert!(!limiter.may_retry(at(0.0), any()));
    assert!(limiter.may_retry(at(60.0), any()));
}

#[test]
fn one_probe_at_a_time_is_sent_to_a_host_that_is_down() {
    let mut limiter = limiter(50.0, 8);
    fail_five_customers(&mut limiter, at(0.0));
    let Admission::Rejected(open_time) = limiter.try_acquire(at(1.0), any()) else {
        panic!("expected a rejection");
    };
    let probing = at(1.0) + open_time;
    assert_eq!(limiter.try_acquire(probing, any()), Admission::Admitted);
    assert!(matches!(limiter.try_acquire(probing, any()), Admission::Rejected(_)));

    // A cancelled probe has no outcome, so another probe is sent.
    limiter.finished(any());
    assert_eq!(limiter.try_acquire(probing, any()), Admission::Admitted);
    limiter.failed(probing, any(), RANDOM);
    limiter.finished(any());
    let Admission::Rejected(longer) = limiter.try_acquire(probing, any()) else {
        panic!("expected a rejection");
    };
    assert!(longer > open_time);

    let probing = acquire(&mut limiter, probing + longer);
    limiter.succeeded(probing, any());
    limiter.finished(any());
    assert!(matches!(
        limiter.try_acquire(probing, any()),
        Admission::Admitted | Admission::Wait(_)
    ));
    assert!(limiter.rate() < 10.0, "{}", limiter.rate());
}

#[test]
fn throttled_response_shows_that_the_host_is_up() {
    let mut limiter = limiter(50.0, 8);
    fail_five_customers(&mut limiter, at(0.0));
    limiter.throttled(at(1.0), any(), Some(at(2.0)));
    assert_eq!(limiter.try_acquire(at(1.0), any()), Admission::Wait(at(2.0)));
}

#[test]
fn backoff_doubles_up_to_its_limit() {
    assert_eq!(backoff(0, 0.0), Duration::ZERO);
    assert_eq!(backoff(0, 0.5), at(0.25));
    assert_eq!(backoff(3, 0.5), at(2.0));
    assert_eq!(backoff(6, 1.0), BACKOFF_CAP);
    assert_eq!(backoff(u32::MAX, 1.0), BACKOFF_CAP);
    assert_eq!(backoff(1, f64::INFINITY), at(1.0));
}

#[test]
fn reload_keeps_pause_and_adapted_rate() {
    let mut before = limiter(10.0, 8);
    before.throttled(at(1.0), any(), Some(at(100.0)));
    let mut same = before.with_limits(before.limits);
    assert!((same.rate() - 7.0).abs() < 1e-9, "{}", same.rate());
    assert_eq!(same.try_acquire(at(2.0), any()), Admission::Wait(at(99.0)));
    let other = RequestLimits {
        requests_per_second: 20.0,
        ..before.limits
    };
    let mut other = before.with_limits(other);
    assert_eq!(other.rate(), 20.0, "limits take effect immediately");
    assert_eq!(other.try_acquire(at(2.0), any()), Admission::Wait(at(99.0)));
}

#[test]
fn reload_during_a_probe_allows_another_probe() {
    let mut before = limiter(1000.0, 8);
    fail_five_customers(&mut before, at(0.0));
    assert_eq!(before.try_acquire(at(10.0), any()), Admission::Admitted);
    assert!(matches!(before.try_acquire(at(10.0), any()), Admission::Rejected(_)));
    let mut after = before.with_limits(before.limits);
    assert_eq!(after.try_acquire(at(10.0), any()), Admission::Admitted);
}

#[test]
fn pause_without_a_throttle_keeps_the_rate() {
    let mut limiter = limiter(10.0, 8);
    limiter.pause(at(1.0), at(30.0));
    assert_eq!(limiter.rate(), 10.0);
    assert_eq!(limiter.try_acquire(at(2.0), any()), Admission::Wait(at(29.0)));
    limiter.pause(at(2.0), Duration::MAX);
    assert_eq!(limiter.try_acquire(at(2.0), any()), Admission::Wait(MAX_PAUSE));
}

#[test]
fn failing_resource_does_not_affect_others() {
    let protected = Resource::new(Endpoint::Protected, "0");
    let mut limiter = limiter(1000.0, 8);
    assert_eq!(limiter.try_acquire(at(0.0), protected), Admission::Admitted);
    limiter.succeeded(at(0.0), protected);
    limiter.finished(protected);
    fail_five_customers(&mut limiter, at(0.1));
    for second in [0.2, 1.0, 2.0] {
        assert!(matches!(limiter.try_acquire(at(second), any()), Admission::Rejected(_)));
        assert_eq!(limiter.try_acquire(at(second), protected), Admission::Admitted);
        limiter.finished(protected);
    }
    limiter.succeeded(at(9.0), protected);
    assert_eq!(limiter.rate(), 1000.0, "the rate of the host must not decrease");
}

#[test]
fn recovered_host_is_up_for_all_resources() {
    let customers = Resource::new(Endpoint::Customers, "");
    let mut limiter = limiter(1000.0, 8);
    limiter.succeeded(at(0.0), customers);
    fail_five_customers(&mut limiter, at(1.0));
    limiter.failed(at(1.0), customers, RANDOM);
    assert!(matches!(limiter.try_acquire(at(2.0), any()), Admission::Rejected(_)));
    limiter.succeeded(at(5.5), customers);
    assert_eq!(limiter.try_acquire(at(5.5), any()), Admission::Admitted);
    assert!(limiter.rate() < 200.0, "too many requests: {}", limiter.rate());
}
