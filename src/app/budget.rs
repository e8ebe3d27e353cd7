//! Compares the cost of the schedule with the limits on requests per hour and on concurrent requests.

use std::time::Duration;

use serde::Serialize;

pub use crate::api::rate_limiter::RequestLimits;
use crate::collector::{self, CollectorDescriptor, TargetKind};

/// Fraction of the limits that the schedule may use. The rest is reserved for retries, token requests, polls after an
/// outage, and the uneven distribution of polls.
pub const HEADROOM: f64 = 0.9;

/// Maximum number of rows per page in API v3.
pub const PAGE_ROWS: usize = 100;

/// Cost of one collector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Number of requests in one poll.
    pub requests: f64,
    /// Average duration of a request.
    pub latency: Duration,
    /// Number of targets: 1, or the number of customers.
    pub targets: usize,
    /// Time between two polls of a target.
    pub interval: Duration,
}

impl Cost {
    fn per_cycle(&self) -> f64 {
        self.requests * self.targets as f64
    }

    /// Returns the number of requests per hour.
    pub fn per_hour(&self) -> f64 {
        self.per_cycle() * 3600.0 / self.interval.as_secs_f64()
    }

    /// Returns the average number of requests in flight: by Little's law, the request rate times the latency.
    fn in_flight(&self) -> f64 {
        self.per_hour() / 3600.0 * self.latency.as_secs_f64()
    }
}

/// The limit that is reached first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BindingLimit {
    /// Request rate, `api.requests_per_second`.
    RequestRate,
    /// Requests in flight, `api.max_concurrency`.
    Concurrency,
}

impl BindingLimit {
    /// Returns the configuration key of the limit.
    pub const fn key(self) -> &'static str {
        match self {
            Self::RequestRate => "api.requests_per_second",
            Self::Concurrency => "api.max_concurrency",
        }
    }
}

/// Cost of all collectors, and the limits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Budget {
    /// Requests per hour that the intervals need.
    pub needed_per_hour: f64,
    /// Requests per hour that `api.requests_per_second` allows.
    pub allowed_per_hour: f64,
    /// Average number of requests in flight that the intervals need.
    pub needed_in_flight: f64,
    /// Requests in flight that `api.max_concurrency` allows.
    pub allowed_in_flight: f64,
    /// The limit that is reached first.
    pub binding: BindingLimit,
    /// Duration of the first cycle over all customers, in seconds.
    pub first_cycle_seconds: f64,
    /// Whether the intervals fit the limits, with headroom.
    pub suffices: bool,
}

impl Budget {
    /// Returns the budget of these collectors under the configured limits.
    pub fn of(costs: &[Cost], limits: RequestLimits) -> Self {
        let needed_per_hour: f64 = costs.iter().map(Cost::per_hour).sum();
        let needed_in_flight: f64 = costs.iter().map(Cost::in_flight).sum();
        let allowed_per_hour = limits.requests_per_second * 3600.0;
        let allowed_in_flight = limits.max_concurrency as f64;
        let (by_rate, by_latency) = (needed_per_hour / allowed_per_hour, needed_in_flight / allowed_in_flight);
        let cycle: f64 = costs.iter().map(Cost::per_cycle).sum();
        let response_time: f64 = costs
            .iter()
            .map(|cost| cost.per_cycle() * cost.latency.as_secs_f64())
            .sum();
        Self {
            needed_per_hour,
            allowed_per_hour,
            needed_in_flight,
            allowed_in_flight,
            binding: if by_latency > by_rate {
                BindingLimit::Concurrency
            } else {
                BindingLimit::RequestRate
            },
            first_cycle_seconds: (cycle / limits.requests_per_second).max(response_time / allowed_in_flight),
            suffices: by_rate.max(by_latency) <= HEADROOM,
        }
    }

    /// Returns the requests per second that the intervals need, with headroom.
    pub fn rate_needed(&self) -> f64 {
        self.needed_per_hour / 3600.0 / HEADROOM
    }

    /// Returns the requests in flight that the intervals need, with headroom.
    pub fn concurrency_needed(&self) -> f64 {
        (self.needed_in_flight / HEADROOM).ceil().max(1.0)
    }

    /// Returns the factor by which the intervals must grow to fit both limits with headroom; 1 if they fit.
    pub fn stretch(&self) -> f64 {
        let by_rate = self.needed_per_hour / self.allowed_per_hour;
        let by_latency = self.needed_in_flight / self.allowed_in_flight;
        (by_rate.max(by_latency) / HEADROOM).max(1.0)
    }
}

/// Returns the cost of each collector that is enabled by default, at its default interval. `profiles` is the number of
/// scan profiles per customer.
pub fn typical_costs(customers: usize, profiles: usize) -> Vec<(&'static str, Cost)> {
    costs(customers, profiles, false)
}

/// Returns the cost of each collector that is disabled by default, for a number of customers with one tenant each.
pub fn optional_costs(customers: usize) -> Vec<(&'static str, Cost)> {
    costs(customers, 0, true)
}

fn costs(customers: usize, profiles: usize, is_optional: bool) -> Vec<(&'static str, Cost)> {
    let cost = |descriptor: &CollectorDescriptor| Cost {
        requests: match descriptor.target_kind {
            TargetKind::Partner => customers.div_ceil(PAGE_ROWS).max(1) as f64,
            TargetKind::Customer => descriptor.price.requests + descriptor.price.per_profile * profiles as f64,
        },
        latency: descriptor.price.latency,
        targets: if descriptor.target_kind == TargetKind::Customer {
            customers
        } else {
            1
        },
        interval: descriptor.interval,
    };
    let descriptors = collector::ALL
        .iter()
        .filter(|descriptor| descriptor.is_optional == is_optional);
    descriptors
        .map(|descriptor| (descriptor.name, cost(descriptor)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn cost(requests: f64, targets: usize, minutes: u64) -> Cost {
        Cost {
            requests,
            latency: Duration::from_secs(2),
            targets,
            interval: Duration::from_secs(minutes * 60),
        }
    }

    const fn limits(requests_per_second: f64, max_concurrency: usize) -> RequestLimits {
        RequestLimits {
            requests_per_second,
            max_concurrency,
        }
    }

    #[test]
    fn rate_budget_stretches_intervals() {
        let costs = [cost(1.0, 100, 5), cost(2.0, 1, 60)];
        let budget = Budget::of(&costs, limits(1.0, 8));
        assert!((budget.needed_per_hour - 1202.0).abs() < 1e-9);
        assert!(budget.suffices && (budget.stretch() - 1.0).abs() < f64::EPSILON);
        assert!((budget.first_cycle_seconds - 102.0).abs() < 1e-9);
        assert_eq!(budget.binding, BindingLimit::RequestRate);
        let tight = Budget::of(&costs, limits(0.1, 8));
        assert!(!tight.suffices);
        // The stretched intervals fit.
        let stretched = costs.map(|cost| Cost {
            interval: cost.interval.mul_f64(tight.stretch() + 1e-6),
            ..cost
        });
        assert!(Budget::of(&stretched, limits(0.1, 8)).suffices);
        assert!(Budget::of(&costs, limits(tight.rate_needed() + 1e-6, 8)).suffices);
    }

    #[test]
    fn concurrency_budget_stretches_intervals() {
        // Two requests per second with a latency of two seconds keep four requests in flight, whatever the rate limit.
        let costs = [cost(1.0, 120, 1)];
        let tight = Budget::of(&costs, limits(100.0, 4));
        assert!((tight.needed_in_flight - 4.0).abs() < 1e-9);
        assert_eq!((tight.binding, tight.suffices), (BindingLimit::Concurrency, false));
        assert!((tight.first_cycle_seconds - 60.0).abs() < 1e-9);
        assert!((tight.concurrency_needed() - 5.0).abs() < 1e-9);
        assert!(Budget::of(&costs, limits(100.0, 5)).suffices);
        let stretched = costs.map(|cost| Cost {
            interval: cost.interval.mul_f64(tight.stretch() + 1e-6),
            ..cost
        });
        assert!(Budget::of(&stretched, limits(100.0, 4)).suffices);
    }
}
