use std::time::Duration;

use super::{Admission, BACKOFF_CAP, Limits, MAX_PAUSE, Pace, Resource, backoff};
use crate::api::Endpoint;

const DICE: f64 = 0.5;

/// Returns the jobs of a customer.
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

/// Sends one request at `now`, or after the required waits, and returns its time.
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

/// Fails the jobs of five customers.
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
fn suspended_machine_resumes_without_a_burst() {
    let mut pace = pace(5.0, 100);
    let admitted = (0..100).filter(|_| pace.admit(at(1e6), any()) == Admission::Go);
    assert_eq!(admitted.count(), 2);
}

#[test]
fn clock_that_steps_back_adds_no_requests() {
    let mut pace = pace(1.0, 100);
    go(&mut pace, at(10.0));
    go(&mut pace, at(10.0));
    assert_eq!(pace.admit(at(5.0), any()), Admission::Wait(at(1.0)));
    assert_eq!(pace.admit(at(10.5), any()), Admission::Wait(at(0.5)));
}

#[test]
fn requests_in_flight_are_limited() {
    let mut pace = pace(100.0, 2);
    assert_eq!(pace.admit(at(0.0), any()), Admission::Go);
    assert_eq!(pace.admit(at(0.0), any()), Admission::Go);
    assert_eq!(pace.admit(at(9.0), any()), Admission::Busy);
    pace.finished(any());
    assert_eq!(pace.admit(at(9.0), any()), Admission::Go);
    assert_eq!(pace.admit(at(9.0), any()), Admission::Busy);
}

#[test]
fn invalid_limits_still_admit_requests() {
    for nonsense in [0.0, -1.0, f64::NAN] {
        let mut pace = pace(nonsense, 0);
        assert!(pace.rate() > 0.0 && pace.rate() < 1.0);
        request(&mut pace, at(0.0), |pace, now| pace.succeeded(now, any()));
    }
}

#[test]
fn throttle_pauses_all_requests_for_its_retry_after() {
    let mut pace = pace(5.0, 8);
    request(&mut pace, at(0.0), |pace, now| {
        pace.throttled(now, any(), Some(at(7.0)));
    });
    assert_eq!(pace.admit(at(1.0), any()), Admission::Wait(at(6.0)));
    assert_eq!(pace.admit(at(7.0), any()), Admission::Go);
    assert!(matches!(pace.admit(at(7.0), any()), Admission::Wait(_)));
}

#[test]
fn pause_is_clamped_and_never_shortened() {
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
fn pause_without_a_hint_doubles_to_a_minute() {
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
fn throttled_burst_lowers_the_rate_once() {
    for retry_after in [None, Some(Duration::ZERO), Some(at(3.0))] {
        let mut pace = pace(10.0, 8);
        for _ in 0..8 {
            pace.throttled(at(0.5), any(), retry_after);
        }
        assert!((pace.rate() - 7.0).abs() < 1e-9, "{}", pace.rate());
    }
}

#[test]
fn late_success_does_not_end_a_series_of_throttles() {
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
fn retries_stop_while_the_host_is_down() {
    let mut pace = pace(5.0, 8);
    find_down(&mut pace, at(0.0));
    assert!(matches!(pace.admit(at(0.0), any()), Admission::Refused(_)));
    assert!(!pace.may_retry(at(0.0), any()));
    assert!(pace.may_retry(at(60.0), any()));
}

#[test]
fn host_that_is_down_gets_one_probe_at_a_time() {
    let mut pace = pace(50.0, 8);
    find_down(&mut pace, at(0.0));
    let Admission::Refused(open) = pace.admit(at(1.0), any()) else {
        panic!("refusal expected");
    };
    let probing = at(1.0) + open;
    assert_eq!(pace.admit(probing, any()), Admission::Go);
    assert!(matches!(pace.admit(probing, any()), Admission::Refused(_)));

    // The outcome of the probe decides. After a cancelled probe, another is sent.
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
fn throttle_shows_that_the_host_is_up() {
    let mut pace = pace(50.0, 8);
    find_down(&mut pace, at(0.0));
    pace.throttled(at(1.0), any(), Some(at(2.0)));
    assert_eq!(pace.admit(at(1.0), any()), Admission::Wait(at(2.0)));
}

#[test]
fn backoff_doubles_up_to_its_limit_and_uses_its_range() {
    assert_eq!(backoff(0, 0.0), Duration::ZERO);
    assert_eq!(backoff(0, 0.5), at(0.25));
    assert_eq!(backoff(3, 0.5), at(2.0));
    assert_eq!(backoff(6, 1.0), BACKOFF_CAP);
    assert_eq!(backoff(u32::MAX, 1.0), BACKOFF_CAP);
    assert_eq!(backoff(1, f64::INFINITY), at(1.0));
}

#[test]
fn reload_keeps_pause_and_adapted_rate() {
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
    assert_eq!(other.rate(), 20.0, "limits take effect immediately");
    assert_eq!(other.admit(at(2.0), any()), Admission::Wait(at(99.0)));
}

#[test]
fn pause_without_a_throttle_keeps_the_rate() {
    let mut pace = pace(10.0, 8);
    pace.pause(at(1.0), at(30.0));
    assert_eq!(pace.rate(), 10.0);
    assert_eq!(pace.admit(at(2.0), any()), Admission::Wait(at(29.0)));
    pace.pause(at(2.0), Duration::MAX);
    assert_eq!(pace.admit(at(2.0), any()), Admission::Wait(MAX_PAUSE));
}

#[test]
fn failing_resource_does_not_affect_others() {
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
    assert_eq!(pace.rate(), 1000.0, "the rate of the host must not decrease");
}

#[test]
fn recovered_host_is_up_for_all_resources() {
    let customers = Resource::new(Endpoint::Customers, "");
    let mut pace = pace(1000.0, 8);
    pace.succeeded(at(0.0), customers);
    find_down(&mut pace, at(1.0));
    pace.failed(at(1.0), customers, DICE);
    assert!(matches!(pace.admit(at(2.0), any()), Admission::Refused(_)));
    pace.succeeded(at(5.5), customers);
    assert_eq!(pace.admit(at(5.5), any()), Admission::Go);
    assert!(pace.rate() < 200.0, "too many requests: {}", pace.rate());
}
