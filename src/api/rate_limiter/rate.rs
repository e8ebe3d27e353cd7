//! Adaptive request rate. It decreases when the host throttles a request, and then increases along a cubic curve, as
//! in CUBIC (RFC 9438).
//!
//! A linear increase (AIMD) is simpler, but performs worse in the simulation
//! (`cubic_increase_is_better_than_any_linear_one`). With a step large enough to detect a lifted limit as early as
//! the curve does, AIMD uses at least 5 percentage points less of a constant limit. With a step small enough to use
//! more of the limit than the curve does, AIMD takes more than six times as long to detect that the limit has been
//! lifted.

use std::time::Duration;

/// Lowest rate, in requests per second: slow enough for any host, and fast enough to detect recovery.
const FLOOR: f64 = 0.1;

/// Factor applied to the rate when the host throttles a request.
const THROTTLE_FACTOR: f64 = 0.7;

/// Factor applied to the rate after an outage, when all clients return at once to a host that has just recovered.
const OUTAGE_FACTOR: f64 = 0.1;

/// Time, in seconds, after which a fully used rate returns to the last limit. The curve is nearly flat around the limit
/// and then becomes steeper: it reaches almost five times the limit after five minutes. Exceeding the limit causes a
/// pause, so this time must not be short. Under a constant limit, the rate exceeds the limit about every 90 seconds.
const RECOVERY_SECONDS: f64 = 90.0;

/// Requests per second, between a floor and a ceiling.
#[derive(Debug, Clone)]
pub(super) struct Rate {
    ceiling: f64,
    /// Rate after the last decrease.
    reduced: f64,
    /// Rate at which the host last throttled a request. The curve is flat near this rate.
    limit: f64,
    /// Seconds for which the rate has been fully used since the last decrease. Each successful request adds to it.
    recovered_for: f64,
    credited_at: Duration,
}

impl Rate {
    /// Returns a rate that starts at its ceiling.
    pub(super) fn new(ceiling: f64) -> Self {
        let ceiling = if ceiling > 0.0 { ceiling } else { FLOOR };
        Self {
            ceiling,
            reduced: ceiling,
            limit: ceiling / THROTTLE_FACTOR,
            recovered_for: 0.0,
            credited_at: Duration::ZERO,
        }
    }

    pub(super) fn per_second(&self) -> f64 {
        let past_limit = self.recovered_for / RECOVERY_SECONDS - 1.0;
        let on_curve = self.limit + (self.limit - self.reduced) * past_limit.powi(3);
        on_curve.clamp(self.floor(), self.ceiling)
    }

    /// Records a successful request, and increases the rate. Each success moves the rate along the curve by the
    /// interval between two requests at the current rate. The rate therefore hardly grows while few requests are sent.
    /// This step is never longer than the time since the previous success, so simultaneous successes increase the rate
    /// once.
    pub(super) fn increase(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.credited_at).as_secs_f64();
        self.recovered_for += passed.min(1.0 / self.per_second());
        self.credited_at = self.credited_at.max(now);
    }

    /// Records that the host throttled a request, and decreases the rate.
    pub(super) fn decrease(&mut self, now: Duration) {
        let rate = self.per_second();
        self.reduced = (rate * THROTTLE_FACTOR).max(self.floor());
        // The rate must be able to increase even from the floor.
        self.limit = rate.max(self.reduced / THROTTLE_FACTOR);
        self.begin_recovery(now);
    }

    /// Records that the host recovered from an outage, and decreases the rate. The last limit is kept, up to the
    /// ceiling, because an outage says nothing about the limit.
    pub(super) fn restart(&mut self, now: Duration) {
        let rate = self.per_second();
        self.reduced = (rate * OUTAGE_FACTOR).max(self.floor());
        self.limit = self.limit.max(rate).min(self.ceiling);
        self.begin_recovery(now);
    }

    fn begin_recovery(&mut self, now: Duration) {
        self.recovered_for = 0.0;
        self.credited_at = now;
    }

    fn floor(&self) -> f64 {
        FLOOR.min(self.ceiling)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{FLOOR, RECOVERY_SECONDS, Rate};

    /// Reports successful requests at the full rate for this many seconds.
    fn use_fully(rate: &mut Rate, now: &mut f64, seconds: f64) {
        let end = *now + seconds;
        while *now < end {
            *now += 1.0 / rate.per_second();
            rate.increase(Duration::from_secs_f64(*now));
        }
    }

    fn is_close(left: f64, right: f64) -> bool {
        (left / right - 1.0).abs() < 0.02
    }

    #[test]
    fn rate_decreases_by_three_tenths_and_recovers() {
        let (mut rate, mut now) = (Rate::new(50.0), 0.0);
        rate.decrease(Duration::ZERO);
        assert!(is_close(rate.per_second(), 35.0));
        use_fully(&mut rate, &mut now, RECOVERY_SECONDS);
        assert!(is_close(rate.per_second(), 50.0), "{}", rate.per_second());
        use_fully(&mut rate, &mut now, 10.0 * RECOVERY_SECONDS);
        assert!(rate.per_second() <= 50.0);
    }

    #[test]
    fn rate_recovers_fully_after_repeated_outages() {
        let (mut rate, mut now) = (Rate::new(5.0), 0.0);
        for _ in 0..3 {
            rate.restart(Duration::ZERO);
        }
        assert!(is_close(rate.per_second(), FLOOR));
        use_fully(&mut rate, &mut now, 10.0);
        assert!(rate.per_second() < 2.5, "{}", rate.per_second());
        use_fully(&mut rate, &mut now, RECOVERY_SECONDS);
        assert!(is_close(rate.per_second(), 5.0), "{}", rate.per_second());
    }

    #[test]
    fn rate_rises_slowly_near_the_limit_and_fast_beyond() {
        let (mut rate, mut now) = (Rate::new(50.0), 0.0);
        for _ in 0..4 {
            rate.decrease(Duration::ZERO);
        }
        let limit = rate.per_second() / 0.7;
        let mut rises = [0.0; 4];
        for rise in &mut rises {
            let before = rate.per_second();
            use_fully(&mut rate, &mut now, RECOVERY_SECONDS / 2.0);
            *rise = (rate.per_second() - before) / limit;
        }
        let [start, before_limit, after_limit, beyond] = rises;
        assert!(start > 0.2 && beyond > 0.2, "{rises:?}");
        assert!(before_limit < 0.05 && after_limit < 0.05, "{rises:?}");
    }

    #[test]
    fn rate_rises_from_floor_to_ceiling_within_minutes() {
        let (mut rate, mut now) = (Rate::new(5.0), 0.0);
        for _ in 0..100 {
            rate.decrease(Duration::ZERO);
        }
        assert!(is_close(rate.per_second(), FLOOR));
        use_fully(&mut rate, &mut now, 120.0);
        assert!(rate.per_second() < 1.0, "{}", rate.per_second());
        use_fully(&mut rate, &mut now, 480.0);
        assert!(is_close(rate.per_second(), 5.0), "{}", rate.per_second());
    }

    #[test]
    fn unused_rate_does_not_increase() {
        let mut rate = Rate::new(50.0);
        rate.decrease(Duration::ZERO);
        for minute in 1..=10 {
            rate.increase(Duration::from_secs(60 * minute));
        }
        assert!(is_close(rate.per_second(), 35.0), "{}", rate.per_second());
    }

    #[test]
    fn simultaneous_successes_raise_the_rate_once() {
        let mut rate = Rate::new(0.5);
        for _ in 0..100 {
            rate.decrease(Duration::ZERO);
        }
        for _ in 0..1000 {
            rate.increase(Duration::from_millis(100));
        }
        assert!(is_close(rate.per_second(), FLOOR), "{}", rate.per_second());
    }

    #[test]
    fn ceiling_below_the_floor_is_observed() {
        let mut rate = Rate::new(0.01);
        rate.decrease(Duration::ZERO);
        assert!(is_close(rate.per_second(), 0.01));
    }
}
