//! The tables in the scaling guide match the code, and a cycle sends the stated number of requests.

use std::fmt::Write as _;
use std::time::Duration;

use elements_exporter::app::budget::{Budget, Cost, PAGE_ROWS, RequestLimits, optional_costs, typical_costs};
use elements_exporter::collector::{self, TargetKind};
use elements_exporter::config::KEYS;
use elements_exporter::domain::grouped;

use crate::drift::section;
use crate::harness::partner::{frozen_partner, start};
use crate::harness::poll_once;

fn default<T: std::str::FromStr>(path: &str) -> T {
    let key = KEYS.iter().find(|key| key.path == path);
    key.and_then(|key| key.default.text().parse().ok()).unwrap()
}

/// Fleet sizes in the guide's examples.
const FLEETS: [usize; 4] = [50, 500, 5_000, 50_000];

/// Number of scan profiles per customer in the guide.
const PROFILES: usize = 2;

/// Intervals for fleets that exceed the limits with the default intervals. Backups run once or a few times a day, so
/// even with these intervals, a poll returns a new restore point long before an RPO of 26 hours is exceeded.
const RELAXED: [(&str, Duration); 5] = [
    ("jobs", Duration::from_secs(15 * 60)),
    ("protected", Duration::from_secs(4 * 3600)),
    ("licenses", Duration::from_secs(6 * 3600)),
    ("scan_profiles", Duration::from_secs(12 * 3600)),
    ("scan_changes", Duration::from_secs(12 * 3600)),
];

fn relaxed(customers: usize) -> Vec<(&'static str, Cost)> {
    let mut costs = typical_costs(customers, PROFILES);
    for (name, cost) in &mut costs {
        if let Some((_, interval)) = RELAXED.iter().find(|(relaxed, _)| relaxed == name) {
            cost.interval = *interval;
        }
    }
    costs
}

#[expect(clippy::cast_possible_truncation, reason = "far below `u64::MAX`")]
fn example_table() -> String {
    let defaults = RequestLimits {
        requests_per_second: default("api.requests_per_second"),
        max_concurrency: default("api.max_concurrency"),
    };
    let budget = |costs: Vec<(&str, Cost)>| {
        let costs: Vec<Cost> = costs.into_iter().map(|(_, cost)| cost).collect();
        Budget::of(&costs, defaults)
    };
    let mut text = String::from(
        "| customers | intervals | requests per hour | requests in flight | minimum `requests_per_second` \
         | minimum `max_concurrency` | defaults | limiting key | first cycle with the defaults |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for customers in FLEETS {
        for (intervals, costs) in [
            ("default", typical_costs(customers, PROFILES)),
            ("relaxed", relaxed(customers)),
        ] {
            let budget = budget(costs);
            let verdict = if budget.suffices { "sufficient" } else { "insufficient" };
            let first = Duration::from_secs_f64((budget.first_cycle_seconds / 60.0).ceil() * 60.0);
            writeln!(
                text,
                "| {} | {intervals} | {} | {:.1} | {:.1} | {:.0} | {verdict} | `{}` | {} |",
                grouped(customers),
                grouped(budget.needed_per_hour.round() as u64),
                budget.needed_in_flight,
                budget.rate_needed(),
                budget.concurrency_needed(),
                budget.binding.key(),
                humantime::format_duration(first),
            )
            .unwrap();
        }
    }
    text
}

fn cost_table() -> String {
    let mut text = String::from(
        "| collector | requests per poll | latency | default interval | relaxed interval | requests per hour, default \
         |\n|---|---|---|---|---|---|\n",
    );
    for ((name, cost), (_, relaxed)) in typical_costs(1, PROFILES).into_iter().zip(relaxed(1)) {
        let entry = collector::ALL.iter().find(|entry| entry.name == name).unwrap();
        let requests = match entry.target_kind {
            TargetKind::Partner => format!("1 per {PAGE_ROWS} customers"),
            TargetKind::Customer => entry.price.description.to_owned(),
        };
        writeln!(
            text,
            "| `{name}` | {requests} | {:.1} s | {} | {} | {:.0} |",
            cost.latency.as_secs_f64(),
            humantime::format_duration(cost.interval),
            humantime::format_duration(relaxed.interval),
            cost.per_hour()
        )
        .unwrap();
    }
    text
}

fn optional_table() -> String {
    let mut text = String::from(
        "| collector | requests per poll | default interval | requests per hour, default |\n|---|---|---|---|\n",
    );
    for (name, cost) in optional_costs(1) {
        let entry = collector::ALL.iter().find(|entry| entry.name == name).unwrap();
        let requests = match entry.target_kind {
            TargetKind::Partner => format!("1 per {PAGE_ROWS} tenants"),
            TargetKind::Customer => entry.price.description.to_owned(),
        };
        let interval = humantime::format_duration(cost.interval);
        writeln!(text, "| `{name}` | {requests} | {interval} | {:.1} |", cost.per_hour()).unwrap();
    }
    text
}

#[test]
fn scaling_tables_match_the_code() {
    section("docs/scaling.md", "prices", &cost_table());
    section("docs/scaling.md", "optional", &optional_table());
    section("docs/scaling.md", "examples", &example_table());
}

#[tokio::test]
async fn cycle_sends_as_many_requests_as_documented() {
    for (customers, profiles) in [(7, 2), (120, 1)] {
        let partner = start(frozen_partner(customers)).await;
        partner.handle.with_world(|world| {
            for customer in &mut world.customers {
                let model = customer.scan_profiles.first().cloned();
                customer.scan_profiles = (0..profiles)
                    .filter_map(|n| {
                        let mut profile = model.clone()?;
                        profile.id = format!("{}-{n}", profile.id);
                        Some(profile)
                    })
                    .collect();
            }
            world
                .customers
                .retain(|customer| customer.scan_profiles.len() == profiles);
        });
        let remaining = partner.handle.with_world(|world| world.customers.len());
        assert!(remaining > customers / 2, "{remaining}");
        let (text, succeeded) = poll_once(&crate::harness::config(&partner.base, &[])).await;
        assert!(succeeded, "{text}");
        let documented: f64 = typical_costs(remaining, profiles)
            .iter()
            .map(|(_, cost)| cost.requests * cost.targets as f64)
            .sum();
        let requests = partner.handle.requests().into_iter();
        let requested = requests.filter(|request| request.path.starts_with("/partner/")).count();
        assert_eq!(
            requested as f64, documented,
            "{remaining} customers with {profiles} profiles"
        );
    }
}
