//! Adaptive request rate: cut when the host throttles, then raised along a cubic curve as in CUBIC (RFC 9438).
//!
//! A linear increase (AIMD) is simpler but did worse in the simulation. A step large enough to find a lifted limit
//! within minutes, like the curve, exceeds a constant limit so often that only 75 to 78 % of it are used if the host
//! requests pauses of five seconds. With a step of less than half of that, 78 % are used at pauses of ten seconds, but
//! a lifted limit is not found. The curve achieves more than 80 % in both cases.

use std::time::Duration;

/// Lowest rate, in requests per second. Slow enough for any host, fast enough to detect recovery.
const FLOOR: f64 = 0.1;

/// Factor of the rate after a throttle.
const AFTER_THROTTLE: f64 = 0.7;

/// Factor after an outage: all clients return at once, to a host that has just started.
const AFTER_OUTAGE: f64 = 0.1;

/// Seconds of full use until the rate is back at the last limit. The curve is nearly flat there and then rises ever
/// more steeply: reaching five times the rate takes five minutes. Each time the limit is exceeded costs a pause, so
/// this happens only every few minutes.
const RECOVERY: f64 = 90.0;

/// Requests per second, between a floor and a ceiling.
#[derive(Debug, Clone)]
pub(super) struct Rate {
    ceiling: f64,
    /// Rate at the start of the climb.
    low: f64,
    /// Rate of the last throttle, where the curve is flat.
    limit: f64,
    /// Seconds of full, successful use since then.
    climbed: f64,
    credited_at: Duration,
}

impl Rate {
    /// Returns a rate at its ceiling.
    pub(super) fn new(ceiling: f64) -> Self {
        let ceiling = if ceiling > 0.0 { ceiling } else { FLOOR };
        Self {
            ceiling,
            low: ceiling,
            limit: ceiling / AFTER_THROTTLE,
            climbed: 0.0,
            credited_at: Duration::ZERO,
        }
    }

    pub(super) fn per_second(&self) -> f64 {
        let past_limit = self.climbed / RECOVERY - 1.0;
        let climbing = self.limit + (self.limit - self.low) * past_limit.powi(3);
        climbing.clamp(self.floor(), self.ceiling)
    }

    /// Reports a successful request. It counts as the time that it takes at the current rate, but at most as the time
    /// since the last one, so that an unused rate does not rise.
    pub(super) fn climb(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.credited_at).as_secs_f64();
        self.climbed += passed.min(1.0 / self.per_second());
        self.credited_at = self.credited_at.max(now);
    }

    /// Reports that the host throttled: the current rate is too high.
    pub(super) fn cut(&mut self, now: Duration) {
        let rate = self.per_second();
        self.low = (rate * AFTER_THROTTLE).max(self.floor());
        // Even at the floor, the curve must rise.
        self.limit = rate.max(self.low / AFTER_THROTTLE);
        self.begin_climb(now);
    }

    /// Reports that the host is back after an outage, which is no evidence about its limit.
    pub(super) fn restart(&mut self, now: Duration) {
        let rate = self.per_second();
        self.low = (rate * AFTER_OUTAGE).max(self.floor());
        self.limit = self.limit.max(rate).min(self.ceiling);
        self.begin_climb(now);
    }

    fn begin_climb(&mut self, now: Duration) {
        self.climbed = 0.0;
        self.credited_at = now;
    }

    fn floor(&self) -> f64 {
        FLOOR.min(self.ceiling)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{FLOOR, RECOVERY, Rate};

    /// Uses the rate fully, with success, for this many seconds.
    fn use_fully(rate: &mut Rate, now: &mut f64, seconds: f64) {
        let end = *now + seconds;
        while *now < end {
            *now += 1.0 / rate.per_second();
            rate.climb(Duration::from_secs_f64(*now));
        }
    }

    fn close(left: f64, right: f64) -> bool {
        (left / right - 1.0).abs() < 0.02
    }

    #[test]
    fn throttle_cuts_three_tenths_and_recovery_restores_them() {
        let (mut rate, mut now) = (Rate::new(50.0), 0.0);
        rate.cut(Duration::ZERO);
        assert!(close(rate.per_second(), 35.0));
        use_fully(&mut rate, &mut now, RECOVERY);
        assert!(close(rate.per_second(), 50.0), "{}", rate.per_second());
        use_fully(&mut rate, &mut now, 10.0 * RECOVERY);
        assert!(rate.per_second() <= 50.0);
    }

    #[test]
    fn rate_recovers_fully_after_repeated_outages() {
        let (mut rate, mut now) = (Rate::new(5.0), 0.0);
        for _ in 0..3 {
            rate.restart(Duration::ZERO);
        }
        assert!(close(rate.per_second(), FLOOR));
        use_fully(&mut rate, &mut now, 10.0);
        assert!(rate.per_second() < 2.5, "{}", rate.per_second());
        use_fully(&mut rate, &mut now, RECOVERY);
        assert!(close(rate.per_second(), 5.0), "{}", rate.per_second());
    }

    #[test]
    fn rate_rises_slowly_near_the_limit_and_fast_beyond() {
        let (mut rate, mut now) = (Rate::new(50.0), 0.0);
        for _ in 0..4 {
            rate.cut(Duration::ZERO);
        }
        let limit = rate.per_second() / 0.7;
        let mut rises = [0.0; 4];
        for rise in &mut rises {
            let before = rate.per_second();
            use_fully(&mut rate, &mut now, RECOVERY / 2.0);
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
            rate.cut(Duration::ZERO);
        }
        assert!(close(rate.per_second(), FLOOR));
        use_fully(&mut rate, &mut now, 120.0);
        assert!(rate.per_second() < 1.0, "{}", rate.per_second());
        use_fully(&mut rate, &mut now, 480.0);
        assert!(close(rate.per_second(), 5.0), "{}", rate.per_second());
    }

    #[test]
    fn unused_rate_does_not_increase() {
        let mut rate = Rate::new(50.0);
        rate.cut(Duration::ZERO);
        for minute in 1..=10 {
            rate.climb(Duration::from_secs(60 * minute));
        }
        assert!(close(rate.per_second(), 35.0), "{}", rate.per_second());
    }

    #[test]
    fn simultaneous_successes_raise_the_rate_once() {
        let mut rate = Rate::new(0.5);
        for _ in 0..100 {
            rate.cut(Duration::ZERO);
        }
        for _ in 0..1000 {
            rate.climb(Duration::from_millis(100));
        }
        assert!(close(rate.per_second(), FLOOR), "{}", rate.per_second());
    }

    #[test]
    fn ceiling_below_the_floor_is_observed() {
        let mut rate = Rate::new(0.01);
        rate.cut(Duration::ZERO);
        assert!(close(rate.per_second(), 0.01));
    }
}
