//! How many requests the schedule makes, and whether the rate that is allowed suffices for them.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::collector::{self, Entry, Reach};

/// The part of the allowed rate that the schedule may take. The rest is for retries, for tokens, for what is asked anew
/// after an outage, and for the spread of polls, which is not perfectly even.
pub const HEADROOM: f64 = 0.9;

/// What one collector costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Requests of one poll.
    pub requests: f64,
    /// How many targets are polled: 1, or all customers.
    pub targets: usize,
    /// How often each is.
    pub interval: Duration,
}

impl Cost {
    /// Requests an hour.
    pub fn per_hour(&self) -> f64 {
        self.requests * self.targets as f64 * 3600.0 / self.interval.as_secs_f64()
    }
}

/// What all collectors cost, and what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Budget {
    /// Requests an hour that the intervals need.
    pub needed_per_hour: f64,
    /// Requests an hour that `api.requests_per_second` allows.
    pub allowed_per_hour: f64,
    /// How long a first round over everything takes at that rate, in seconds.
    pub first_round_seconds: f64,
    /// Whether the intervals can be kept with some room left.
    pub suffices: bool,
}

impl Budget {
    /// The budget of these collectors at a rate.
    pub fn of(costs: &[Cost], requests_per_second: f64) -> Self {
        let needed: f64 = costs.iter().map(Cost::per_hour).sum();
        let allowed = requests_per_second * 3600.0;
        let once: f64 = costs.iter().map(|cost| cost.requests * cost.targets as f64).sum();
        Self {
            needed_per_hour: needed,
            allowed_per_hour: allowed,
            first_round_seconds: once / requests_per_second,
            suffices: needed <= HEADROOM * allowed,
        }
    }

    /// The rate, in requests a second, that the intervals need with room left.
    pub fn rate_needed(&self) -> f64 {
        self.needed_per_hour / 3600.0 / HEADROOM
    }

    /// By what the intervals would have to be multiplied to suffice; 1 where they do.
    pub fn stretch(&self) -> f64 {
        (self.needed_per_hour / (HEADROOM * self.allowed_per_hour)).max(1.0)
    }
}

/// Rows on a page of the second generation, which is the most that it gives.
const PAGE_ROWS: usize = 100;

/// The fleets that the guide works out.
const FLEETS: [usize; 4] = [50, 500, 5_000, 50_000];

/// Scan profiles that the guide takes a customer to have.
const PROFILES: usize = 2;

/// Intervals for fleets whose rate does not suffice for the defaults. Backups run once a day or a few times, so that a
/// restore point is still seen long before an objective of 26 hours.
const RELAXED: [(&str, Duration); 5] = [
    ("jobs", Duration::from_secs(15 * 60)),
    ("protected", Duration::from_secs(4 * 3600)),
    ("licenses", Duration::from_secs(6 * 3600)),
    ("scan_profiles", Duration::from_secs(12 * 3600)),
    ("scan_changes", Duration::from_secs(12 * 3600)),
];

/// What each collector costs of so many customers with so many scan profiles each, at its default interval.
pub fn costs(customers: usize, profiles: usize) -> Vec<(&'static str, Cost)> {
    let cost = |entry: &Entry| Cost {
        requests: match entry.reach {
            Reach::Partner => float(customers.div_ceil(PAGE_ROWS).max(1)),
            // The list, and then each profile by itself.
            Reach::Customer if entry.name.starts_with("scan_") => float(1 + profiles),
            Reach::Customer => 1.0,
        },
        targets: if entry.reach == Reach::Customer { customers } else { 1 },
        interval: entry.interval,
    };
    collector::ALL.iter().map(|entry| (entry.name, cost(entry))).collect()
}

fn relaxed(customers: usize, profiles: usize) -> Vec<(&'static str, Cost)> {
    let mut costs = costs(customers, profiles);
    for (name, cost) in &mut costs {
        if let Some((_, interval)) = RELAXED.iter().find(|(relaxed, _)| relaxed == name) {
            cost.interval = *interval;
        }
    }
    costs
}

fn float(count: usize) -> f64 {
    count as f64
}

/// The worked examples of the scaling guide, as Markdown. `rate` is the default of `api.requests_per_second`.
pub fn examples(rate: f64) -> String {
    let budget = |costs: &[(&str, Cost)]| {
        let costs: Vec<Cost> = costs.iter().map(|(_, cost)| *cost).collect();
        Budget::of(&costs, rate)
    };
    let mut text = format!(
        "| customers | requests an hour | rate needed | first round at {rate}/s | the default {rate}/s | rate needed, relaxed \
         |\n|---|---|---|---|---|---|\n"
    );
    for customers in FLEETS {
        let usual = budget(&costs(customers, PROFILES));
        let calm = budget(&relaxed(customers, PROFILES));
        let verdict = match (usual.suffices, calm.suffices) {
            (true, _) => "suffices".to_owned(),
            (false, true) => "suffices with the relaxed intervals".to_owned(),
            (false, false) => format!("needs intervals {:.0} times as long", usual.stretch().ceil()),
        };
        let first = Duration::from_secs_f64((usual.first_round_seconds / 60.0).ceil() * 60.0);
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.1}/s | {} | {verdict} | {:.1}/s |",
            grouped(customers),
            usual.needed_per_hour,
            usual.rate_needed(),
            humantime::format_duration(first),
            calm.rate_needed(),
        );
    }
    text
}

/// What one customer costs by collector, as Markdown.
pub fn prices() -> String {
    let mut text = String::from(
        "| collector | requests of a poll | default interval | relaxed interval | requests an hour, default \
         |\n|---|---|---|---|---|\n",
    );
    let calm = relaxed(1, PROFILES);
    for ((name, cost), (_, relaxed)) in costs(1, PROFILES).into_iter().zip(calm) {
        let reach = collector::ALL
            .iter()
            .find(|entry| entry.name == name)
            .map(|entry| entry.reach);
        let requests = match reach {
            Some(Reach::Partner) => format!("1 per {PAGE_ROWS} customers"),
            _ if name.starts_with("scan_") => "1 per customer and 1 per scan profile".to_owned(),
            _ => "1 per customer".to_owned(),
        };
        let _ = writeln!(
            text,
            "| `{name}` | {requests} | {} | {} | {:.0} |",
            humantime::format_duration(cost.interval),
            humantime::format_duration(relaxed.interval),
            cost.per_hour()
        );
    }
    text
}

/// A count with spaces between its thousands, as prose has it.
fn grouped(count: usize) -> String {
    match (count / 1000, count % 1000) {
        (0, rest) => rest.to_string(),
        (thousands, rest) => format!("{thousands} {rest:03}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn cost(requests: f64, targets: usize, minutes: u64) -> Cost {
        Cost {
            requests,
            targets,
            interval: Duration::from_secs(minutes * 60),
        }
    }

    #[test]
    fn what_is_needed_is_compared_with_what_is_allowed() {
        let costs = [cost(1.0, 100, 5), cost(2.0, 1, 60)];
        let budget = Budget::of(&costs, 1.0);
        assert!((budget.needed_per_hour - 1202.0).abs() < 1e-9);
        assert!(budget.suffices && (budget.stretch() - 1.0).abs() < f64::EPSILON);
        assert!((budget.first_round_seconds - 102.0).abs() < 1e-9);
        let tight = Budget::of(&costs, 0.1);
        assert!(!tight.suffices);
        // Stretched by what it says, it suffices.
        let stretched = costs.map(|cost| Cost {
            interval: cost.interval.mul_f64(tight.stretch() + 1e-6),
            ..cost
        });
        assert!(Budget::of(&stretched, 0.1).suffices);
        assert!(Budget::of(&costs, tight.rate_needed() + 1e-6).suffices);
    }
}
