//! Simulates an outage of one hour, and counts the requests to the failing host that the queue and the rate limiter
//! allow.

use std::time::Duration;

use super::queue::{MonotonicTime, Queue, Urgency, failed_time, next_time};
use crate::api::Endpoint;
use crate::api::rate_limiter::{Admission, RateLimiter, RequestLimits, Resource};
use crate::collector::{CollectorId, Target, ids};
use crate::domain::CustomerId;

const HOUR: Duration = Duration::from_secs(3600);

/// Endpoints of the simulated collectors, with their default intervals in seconds: the customer list and three
/// resources of each customer.
const COLLECTORS: [(Endpoint, u64); 4] = [
    (Endpoint::Customers, 900),
    (Endpoint::Jobs, 300),
    (Endpoint::Protected, 1800),
    (Endpoint::ScanProfiles, 3600),
];

/// Maximum number of retries of a request within one poll, if the rate limiter allows them.
const RETRIES: u32 = 2;

/// An outage in which all requests fail, or only the requests to one endpoint.
#[derive(Clone, Copy)]
struct Fault {
    from: MonotonicTime,
    to: MonotonicTime,
    only: Option<Endpoint>,
}

impl Fault {
    fn affects(&self, endpoint: Endpoint, now: MonotonicTime) -> bool {
        (self.from..self.to).contains(&now) && self.only.is_none_or(|only| only == endpoint)
    }
}

/// A request received by the host.
struct Request {
    at: MonotonicTime,
    endpoint: Endpoint,
    failed: bool,
}

/// Polls customers until `end` in the same way as the scheduler, with immediate responses.
fn run(customers: u32, fault: Fault, end: MonotonicTime) -> Vec<Request> {
    let mut limiter = RateLimiter::new(RequestLimits {
        requests_per_second: 20.0,
        max_concurrency: 8,
    });
    let mut rng = fastrand::Rng::with_seed(1);
    let mut random = move || rng.f64();
    let mut queue = Queue::default();
    queue.add(CollectorId::CUSTOMERS, Target::Partner, Duration::ZERO);
    for (collector, (_, interval)) in ids().zip(&COLLECTORS).skip(1) {
        for customer in 0..customers {
            let id = CustomerId::parse(&format!("customer-{customer}")).unwrap();
            let spread = Duration::from_secs(*interval).mul_f64(f64::from(customer) / f64::from(customers));
            queue.add(collector, Target::Customer(id), spread);
        }
    }
    let mut failures = std::collections::HashMap::new();
    let mut requests = Vec::new();
    let mut now = Duration::ZERO;
    while now < end {
        let Some(due) = queue.pop(now) else {
            now = queue.next_due_after(now).unwrap_or(end);
            continue;
        };
        let Some((endpoint, interval)) = COLLECTORS.get(due.collector.position()).copied() else {
            continue;
        };
        let interval = Duration::from_secs(interval);
        let resource = Resource::new(endpoint, due.target.customer_id());
        let mut retries = 0;
        let rejected = loop {
            match limiter.try_acquire(now, resource) {
                Admission::Wait(wait) => now += wait,
                Admission::Busy => unreachable!("responses are immediate"),
                Admission::Rejected(wait) => break Some(wait),
                Admission::Admitted => {
                    let failed = fault.affects(endpoint, now);
                    requests.push(Request {
                        at: now,
                        endpoint,
                        failed,
                    });
                    if failed {
                        limiter.failed(now, resource, random());
                    } else {
                        limiter.succeeded(now, resource);
                    }
                    limiter.finished(resource);
                    if !failed || retries == RETRIES || !limiter.may_retry(now, resource) {
                        break None;
                    }
                    retries += 1;
                }
            }
        };
        let key = (due.collector, due.target.clone());
        let failed = rejected.is_some() || requests.last().is_some_and(|request| request.failed);
        let next = if failed {
            let failures = failures.entry(key).and_modify(|count| *count += 1).or_insert(1);
            let may_repeat = || due.collector == CollectorId::CUSTOMERS || limiter.may_retry(now, resource);
            failed_time(now, *failures, interval, rejected, may_repeat, random())
        } else {
            failures.remove(&key);
            next_time(due.since, now, interval, random()).0
        };
        queue.done(due.collector, &due.target, next, Urgency::Ordinary);
    }
    requests
}

fn count_requests(requests: &[Request], from: MonotonicTime, to: MonotonicTime) -> f64 {
    let count = requests
        .iter()
        .filter(|request| (from..to).contains(&request.at))
        .count();
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[test]
fn outage_needs_no_more_requests_than_normal_operation() {
    for customers in [3, 10, 100, 1000] {
        let fault = Fault {
            from: 2 * HOUR,
            to: 3 * HOUR,
            only: None,
        };
        let requests = run(customers, fault, 4 * HOUR);
        let (healthy, down) = (
            count_requests(&requests, HOUR, 2 * HOUR),
            count_requests(&requests, 2 * HOUR, 3 * HOUR),
        );
        // The additional requests come from the retry budget, and from polls of the customer list that detect the end
        // of the outage.
        assert!(
            down <= 1.2 * healthy + 20.0,
            "{customers} customers: {down} requests during the outage, {healthy} in the hour before"
        );
        if customers >= 100 {
            assert!(
                down <= 1.2 * healthy,
                "{customers} customers: {down} requests during the outage, {healthy} in the hour before"
            );
        }
        let first_success = requests
            .iter()
            .find(|request| request.at >= 3 * HOUR && !request.failed);
        let first_success = first_success.map_or(Duration::MAX, |request| request.at);
        assert!(
            first_success < 3 * HOUR + Duration::from_secs(300),
            "{customers} customers: first success at {first_success:?}"
        );
        // In each second, the number of requests is at most the maximum rate plus the burst.
        for second in 0..600 {
            let from = first_success + Duration::from_secs(second);
            assert!(count_requests(&requests, from, from + Duration::from_secs(1)) <= 22.0);
        }
    }
}

#[test]
fn failing_endpoint_receives_no_additional_requests() {
    let fault = Fault {
        from: 2 * HOUR,
        to: 3 * HOUR,
        only: Some(Endpoint::ScanProfiles),
    };
    let requests = run(1000, fault, 4 * HOUR);
    let requests_of = |endpoint, from, to| {
        let of_endpoint = requests.iter().filter(|request| request.endpoint == endpoint);
        let count = of_endpoint.filter(|request| (from..to).contains(&request.at)).count();
        f64::from(u32::try_from(count).unwrap_or(u32::MAX))
    };
    let scans = Endpoint::ScanProfiles;
    assert!(requests_of(scans, 2 * HOUR, 3 * HOUR) <= 1.2 * requests_of(scans, HOUR, 2 * HOUR));
    let jobs = Endpoint::Jobs;
    assert!(requests_of(jobs, 2 * HOUR, 3 * HOUR) >= 0.95 * requests_of(jobs, HOUR, 2 * HOUR));
}
