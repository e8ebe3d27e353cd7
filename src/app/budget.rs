//! How many requests the schedule makes, and whether the rate that is allowed suffices for them.

use std::time::Duration;

use serde::Serialize;

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
