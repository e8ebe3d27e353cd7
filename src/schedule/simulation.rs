//! Hours of polls against a modelled partner, in moments and without chance that a seed does not fix.
//!
//! The figures are said by `cargo test --lib schedule::simulation -- --nocapture`.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::time::Duration;

use super::queue::{Patience, Queue, Urgency, next_time};
use crate::collector::Target;
use crate::domain::CustomerId;

const HOUR: Duration = Duration::from_secs(3600);
const JOBS: usize = 1;

/// A poll's interval in minutes and its requests, of one customer; of the list of customers, a hundred to a page.
const COLLECTORS: [(u64, u32); 5] = [(15, 0), (5, 1), (30, 1), (60, 2), (60, 2)];

/// How long a backup runs, and how often.
const RUN: Duration = Duration::from_secs(30 * 60);
const EVERY: Duration = Duration::from_secs(24 * 3600);

/// One customer in so many has a backup that fails, each time it runs.
const FAILING: u32 = 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Whoever has been due the longest.
    Longest,
    /// As the exporter does it.
    ByNews,
}

struct World {
    /// When each customer's backup ends.
    ends: Vec<Duration>,
}

impl World {
    fn new(customers: u32, dice: &mut fastrand::Rng) -> Self {
        let ends = (0..customers).map(|_| EVERY.mul_f64(dice.f64()));
        Self { ends: ends.collect() }
    }

    fn is_running(&self, customer: usize, now: Duration) -> bool {
        let end = self.ends.get(customer).copied().unwrap();
        now < end && end <= now + RUN
    }

    /// What the list of customers says: whether the newest backup that ended failed.
    fn has_failed(&self, customer: usize, now: Duration) -> bool {
        let end = self.ends.get(customer).copied().unwrap();
        end <= now && u32::try_from(customer).unwrap().is_multiple_of(FAILING)
    }
}

struct Outcome {
    /// How long after each failure the jobs showed it.
    seen_after: Vec<Duration>,
    /// The longest and the mean time between two polls of the jobs of one customer.
    longest_gap: Duration,
    requests: u32,
    of_jobs: u32,
}

impl Outcome {
    fn quantile(&self, part: f64) -> Duration {
        let mut sorted = self.seen_after.clone();
        sorted.sort();
        let at = sorted.len().saturating_sub(1) as f64 * part;
        #[expect(clippy::cast_possible_truncation, reason = "a place in the list")]
        let at = at.round() as usize;
        *sorted.get(at).unwrap()
    }
}

fn run(order: Order, customers: u32, rate: f64, length: Duration) -> Outcome {
    let mut dice = fastrand::Rng::with_seed(7);
    let world = World::new(customers, &mut dice);
    let ids: Vec<Target> = (0..customers)
        .map(|n| Target::Customer(CustomerId::parse(&format!("customer-{n:05}")).unwrap()))
        .collect();
    let number: BTreeMap<&Target, usize> = ids.iter().enumerate().map(|(n, id)| (id, n)).collect();
    let interval = |collector: usize| {
        let (minutes, _) = COLLECTORS.get(collector).copied().unwrap();
        Duration::from_secs(60 * minutes)
    };
    let mut queue = Queue::new(COLLECTORS.len());
    queue.add(0, Target::Partner, Duration::ZERO);
    for collector in 0..COLLECTORS.len() {
        if order == Order::ByNews {
            queue.set_patience(collector, Patience::new(interval(collector), 3 * interval(collector)));
        }
        for id in ids.iter().filter(|_| collector > 0) {
            queue.add(collector, id.clone(), interval(collector).mul_f64(dice.f64()));
        }
    }
    let mut outcome = Outcome {
        seen_after: Vec::new(),
        longest_gap: Duration::ZERO,
        requests: 0,
        of_jobs: 0,
    };
    let mut listed = vec![false; ids.len()];
    let mut shown = vec![false; ids.len()];
    let mut polled: Vec<Option<Duration>> = vec![None; ids.len()];
    let mut now = Duration::ZERO;
    while now < length {
        let Some(due) = queue.pop(now) else {
            now = queue.next_due().unwrap().max(now + Duration::from_millis(1));
            continue;
        };
        let (_, requests) = COLLECTORS.get(due.collector).copied().unwrap();
        let requests = if due.target == Target::Partner {
            customers.div_ceil(100)
        } else {
            requests
        };
        let asked = now;
        now += Duration::from_secs_f64(f64::from(requests) / rate);
        outcome.requests += requests;
        let mut urgency = Urgency::Ordinary;
        if due.target == Target::Partner {
            for (n, before) in listed.iter_mut().enumerate() {
                let failed = world.has_failed(n, asked);
                if std::mem::replace(before, failed) != failed && order == Order::ByNews {
                    queue.signal(JOBS, ids.get(n).unwrap(), now);
                }
            }
        } else if due.collector == JOBS {
            outcome.of_jobs += requests;
            let n = number.get(&due.target).copied().unwrap();
            if order == Order::ByNews && !world.is_running(n, asked) {
                urgency = Urgency::Quiet;
            }
            if let Some(before) = polled.get_mut(n).unwrap().replace(asked) {
                outcome.longest_gap = outcome.longest_gap.max(asked - before);
            }
            let failed = world.has_failed(n, asked);
            if !std::mem::replace(shown.get_mut(n).unwrap(), failed) && failed {
                let end = world.ends.get(n).copied().unwrap();
                outcome.seen_after.push(now - end);
            }
        }
        let (next, _) = next_time(due.since, now, interval(due.collector), dice.f64());
        queue.done(due.collector, &due.target, next, urgency);
    }
    outcome
}

fn tell(what: &str, outcome: &Outcome) {
    println!(
        "{what:<32} failures {:>4}, visible after {:>6.1} min (median) {:>6.1} min (p99); {} requests, {} of them for \
         jobs; longest time between two polls of jobs {:.0} min",
        outcome.seen_after.len(),
        outcome.quantile(0.5).as_secs_f64() / 60.0,
        outcome.quantile(0.99).as_secs_f64() / 60.0,
        outcome.requests,
        outcome.of_jobs,
        outcome.longest_gap.as_secs_f64() / 60.0,
    );
}

#[test]
fn a_failed_backup_is_seen_sooner_with_as_many_requests() {
    let of = |order| run(order, 5000, 5.0, 8 * HOUR);
    let (longest, by_news) = (of(Order::Longest), of(Order::ByNews));
    tell("longest due first", &longest);
    tell("by news", &by_news);
    assert!(by_news.seen_after.len() >= longest.seen_after.len());
    assert!(by_news.quantile(0.5) * 4 < longest.quantile(0.5));
    assert!(by_news.quantile(0.99) * 4 < longest.quantile(0.99));
    assert!(by_news.quantile(0.99) < Duration::from_secs(30 * 60));
    assert!(by_news.requests <= longest.requests + 200);
}

#[test]
fn where_the_rate_suffices_everything_keeps_its_interval() {
    for order in [Order::Longest, Order::ByNews] {
        // Three hundred customers need about two requests a second.
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
fn where_the_rate_nearly_suffices_nothing_goes_unasked_for_two_intervals() {
    // Twelve hundred customers need six requests a second, of which five are allowed.
    let outcome = run(Order::ByNews, 1200, 5.0, 6 * HOUR);
    tell("by news, nearly enough", &outcome);
    assert!(
        outcome.longest_gap < Duration::from_secs(660),
        "{:?}",
        outcome.longest_gap
    );
}
