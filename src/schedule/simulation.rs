//! Simulates hours of polling for one partner, with a seeded random number generator.
//!
//! `cargo test --lib schedule::simulation -- --nocapture` prints the results.

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::time::Duration;

use super::queue::{LatenessLimit, Queue, Urgency, next_time};
use crate::collector::{self, CollectorId, Target, TargetKind};
use crate::domain::CustomerId;

const HOUR: Duration = Duration::from_secs(3600);
const JOBS: CollectorId = CollectorId::JOBS;

/// Poll interval of each collector in minutes, and the number of requests that it sends per poll of one customer. The
/// customer list has a hundred customers per page.
const COLLECTORS: [(u64, u32); 5] = [(15, 0), (5, 1), (30, 1), (60, 2), (60, 2)];

/// Duration of a backup, and time between two backups.
const BACKUP_DURATION: Duration = Duration::from_secs(30 * 60);
const BACKUP_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// One in this many customers has a backup that always fails.
const CUSTOMERS_PER_FAILURE: u32 = 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// The target that has been due for the longest time is first.
    LongestDue,
    /// The exporter's order.
    ByUrgency,
}

struct SimulatedBackups {
    /// End of each customer's backup.
    ends: Vec<Duration>,
}

impl SimulatedBackups {
    fn new(customers: u32, rng: &mut fastrand::Rng) -> Self {
        let ends = (0..customers).map(|_| BACKUP_INTERVAL.mul_f64(rng.f64()));
        Self { ends: ends.collect() }
    }

    fn is_running(&self, customer: usize, now: Duration) -> bool {
        let end = self.ends.get(customer).copied().unwrap();
        now < end && end <= now + BACKUP_DURATION
    }

    /// Returns the status in the customer list: whether the latest completed backup failed.
    fn has_failed(&self, customer: usize, now: Duration) -> bool {
        let end = self.ends.get(customer).copied().unwrap();
        end <= now && u32::try_from(customer).unwrap().is_multiple_of(CUSTOMERS_PER_FAILURE)
    }
}

struct Outcome {
    /// Delay between each failure and the `jobs` poll that detected it.
    detection_delays: Vec<Duration>,
    /// Longest time between two consecutive polls of one customer's jobs.
    longest_gap: Duration,
    requests: u32,
    requests_of_jobs: u32,
    /// Requests of the optional collectors, which `requests` does not include.
    optional: u32,
}

impl Outcome {
    fn quantile(&self, fraction: f64) -> Duration {
        let mut sorted = self.detection_delays.clone();
        sorted.sort();
        let at = sorted.len().saturating_sub(1) as f64 * fraction;
        #[expect(clippy::cast_possible_truncation, reason = "an index into the list")]
        let at = at.round() as usize;
        *sorted.get(at).unwrap()
    }
}

/// Whether the optional collectors are enabled. A poll of baselines sends one request per hundred customers. A poll of
/// a customer sends ten requests for users, four for consent, twenty for the reports of each failed backup, and one for
/// any other data.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Optional {
    Off,
    On,
}

fn run(order: Order, customers: u32, rate: f64, length: Duration) -> Outcome {
    run_with(Optional::Off, order, customers, rate, length)
}

fn run_with(optional: Optional, order: Order, customers: u32, rate: f64, length: Duration) -> Outcome {
    let mut rng = fastrand::Rng::with_seed(7);
    let world = SimulatedBackups::new(customers, &mut rng);
    let ids: Vec<Target> = (0..customers)
        .map(|n| Target::Customer(CustomerId::parse(&format!("customer-{n:05}")).unwrap()))
        .collect();
    let number: BTreeMap<&Target, usize> = ids.iter().enumerate().map(|(n, id)| (id, n)).collect();
    let interval = |collector: CollectorId| {
        let (minutes, _) = COLLECTORS.get(collector.position()).copied().unwrap();
        Duration::from_secs(60 * minutes)
    };
    let mut queue = Queue::default();
    queue.add(CollectorId::CUSTOMERS, Target::Partner, Duration::ZERO);
    for collector in collector::ids().take(COLLECTORS.len()) {
        if order == Order::ByUrgency {
            queue.set_lateness_limit(
                collector,
                LatenessLimit::new(interval(collector), 3 * interval(collector)),
            );
        }
        for id in ids.iter().filter(|_| collector != CollectorId::CUSTOMERS) {
            queue.add(collector, id.clone(), interval(collector).mul_f64(rng.f64()));
        }
    }
    let mut optional_rng = fastrand::Rng::with_seed(11);
    // The jitter of a poll depends only on its collector, target and number, so that the order of polls does not affect
    // the jitter of other targets.
    let mut poll_counts: BTreeMap<(CollectorId, Target), u64> = BTreeMap::new();
    let mut jitter = |collector: CollectorId, target: &Target, n: usize| {
        let count = poll_counts.entry((collector, target.clone())).or_default();
        *count += 1;
        let seeds = [collector.position(), n].map(|number| u64::try_from(number).unwrap());
        fastrand::Rng::with_seed(seeds.iter().fold(*count, |seed, number| seed * 1_000_003 + number)).f64()
    };
    for collector in collector::ids().filter(|id| id.descriptor().is_optional && optional == Optional::On) {
        let interval = collector.descriptor().interval;
        queue.set_lateness_limit(collector, LatenessLimit::new(interval, 3 * interval));
        let partner = [Target::Partner];
        let targets = if collector.descriptor().target_kind == TargetKind::Partner {
            &partner[..]
        } else {
            &ids
        };
        for target in targets {
            queue.add(collector, target.clone(), interval.mul_f64(optional_rng.f64()));
        }
    }
    let mut outcome = Outcome {
        optional: 0,
        detection_delays: Vec::new(),
        longest_gap: Duration::ZERO,
        requests: 0,
        requests_of_jobs: 0,
    };
    let mut listed = vec![false; ids.len()];
    let mut shown = vec![false; ids.len()];
    let mut reported = vec![false; ids.len()];
    let mut polled: Vec<Option<Duration>> = vec![None; ids.len()];
    let mut now = Duration::ZERO;
    while now < length {
        let Some(due) = queue.pop(now) else {
            now = queue.next_due_after(now).unwrap();
            continue;
        };
        if due.collector.descriptor().is_optional {
            let n = number.get(&due.target).copied().unwrap_or_default();
            let requests = match due.collector.name() {
                "job_reports" if world.has_failed(n, now) && !std::mem::replace(reported.get_mut(n).unwrap(), true) => {
                    20
                }
                "job_reports" => 0,
                "user_protection" => 10,
                "app_consent" => 4,
                "baselines" => customers.div_ceil(100),
                _ => 1,
            };
            now += Duration::from_secs_f64(f64::from(requests) / rate);
            outcome.optional += requests;
            let interval = due.collector.descriptor().interval;
            let (next, _) = next_time(due.since, now, interval, jitter(due.collector, &due.target, n));
            queue.done(due.collector, &due.target, next, Urgency::Ordinary);
            continue;
        }
        let (_, requests) = COLLECTORS.get(due.collector.position()).copied().unwrap();
        let requests = if due.target == Target::Partner {
            customers.div_ceil(100)
        } else {
            requests
        };
        let sent_at = now;
        now += Duration::from_secs_f64(f64::from(requests) / rate);
        outcome.requests += requests;
        let mut urgency = Urgency::Ordinary;
        if due.target == Target::Partner {
            for (n, before) in listed.iter_mut().enumerate() {
                let failed = world.has_failed(n, sent_at);
                if std::mem::replace(before, failed) != failed && order == Order::ByUrgency {
                    queue.signal(JOBS, ids.get(n).unwrap(), now);
                }
            }
        } else if due.collector == JOBS {
            outcome.requests_of_jobs += requests;
            let n = number.get(&due.target).copied().unwrap();
            if order == Order::ByUrgency && !world.is_running(n, sent_at) {
                urgency = Urgency::Quiet;
            }
            if let Some(before) = polled.get_mut(n).unwrap().replace(sent_at) {
                outcome.longest_gap = outcome.longest_gap.max(sent_at - before);
            }
            let failed = world.has_failed(n, sent_at);
            if !std::mem::replace(shown.get_mut(n).unwrap(), failed) && failed {
                let end = world.ends.get(n).copied().unwrap();
                outcome.detection_delays.push(now - end);
            }
        }
        let n = number.get(&due.target).copied().unwrap_or_default();
        let jitter = jitter(due.collector, &due.target, n);
        let (next, _) = next_time(due.since, now, interval(due.collector), jitter);
        queue.done(due.collector, &due.target, next, urgency);
    }
    outcome
}

fn print(title: &str, outcome: &Outcome) {
    println!(
        "{title:<32} failures {:>4}, visible after {:>6.1} min (median), {:>6.1} min (p99); {} requests, {} of them \
         for jobs; longest time between two consecutive polls of jobs {:.0} min",
        outcome.detection_delays.len(),
        outcome.quantile(0.5).as_secs_f64() / 60.0,
        outcome.quantile(0.99).as_secs_f64() / 60.0,
        outcome.requests,
        outcome.requests_of_jobs,
        outcome.longest_gap.as_secs_f64() / 60.0,
    );
}

#[test]
fn failed_backup_is_detected_sooner_with_equal_requests() {
    let outcome_of = |order| run(order, 5000, 5.0, 8 * HOUR);
    let (longest_due, by_urgency) = (outcome_of(Order::LongestDue), outcome_of(Order::ByUrgency));
    print("longest due first", &longest_due);
    print("by urgency", &by_urgency);
    assert!(by_urgency.detection_delays.len() >= longest_due.detection_delays.len());
    assert!(by_urgency.quantile(0.5) * 4 < longest_due.quantile(0.5));
    assert!(by_urgency.quantile(0.99) * 4 < longest_due.quantile(0.99));
    assert!(by_urgency.quantile(0.99) < Duration::from_secs(30 * 60));
    assert!(by_urgency.requests <= longest_due.requests + 200);
}

#[test]
fn intervals_are_kept_if_the_rate_suffices() {
    for order in [Order::LongestDue, Order::ByUrgency] {
        // Three hundred customers need less than two requests per second.
        let outcome = run(order, 300, 5.0, 4 * HOUR);
        let interval = Duration::from_secs(300);
        assert!(
            outcome.longest_gap < interval.mul_f64(1.15),
            "{:?}",
            outcome.longest_gap
        );
    }
}

#[test]
fn polls_stay_within_two_intervals_at_a_low_rate() {
    // Twelve hundred customers need six requests per second, but only five are allowed.
    let outcome = run(Order::ByUrgency, 1200, 5.0, 6 * HOUR);
    print("by urgency, rate slightly too low", &outcome);
    assert!(
        outcome.longest_gap < Duration::from_secs(660),
        "{:?}",
        outcome.longest_gap
    );
}

#[test]
fn optional_collectors_do_not_delay_a_failed_backup() {
    // For these numbers of customers, the rate is sufficient, nearly too low, slightly too low, and far too low,
    // respectively.
    for customers in [300, 900, 1200, 5000] {
        let outcome_of = |optional| run_with(optional, Order::ByUrgency, customers, 5.0, 8 * HOUR);
        let (without, with) = (outcome_of(Optional::Off), outcome_of(Optional::On));
        print("without the optional collectors", &without);
        print("with the optional collectors", &with);
        assert!(with.detection_delays.len() >= without.detection_delays.len());
        // A poll of an optional collector may be running when the customer list becomes due, and again when the jobs
        // become due.
        let one_poll = Duration::from_secs(20 / 5 + 1);
        for fraction in [0.5, 0.9] {
            assert!(
                with.quantile(fraction) <= without.quantile(fraction) + 2 * one_poll,
                "{customers} customers, quantile {fraction}"
            );
        }
        assert!(
            with.requests_of_jobs * 100 >= without.requests_of_jobs * 99,
            "{customers}"
        );
        let is_too_low = customers >= 1200;
        assert_eq!(
            with.optional == 0,
            is_too_low,
            "optional collectors must send requests only if the rate suffices: {customers} customers, {} requests",
            with.optional
        );
    }
}
