//! The rate that adapts: cut when the host throttles, climbing back along a cubic curve as in CUBIC (RFC 9438).

use std::time::Duration;

/// The lowest rate, in requests a second. Slow enough for any host, quick enough to notice that it has relented.
const FLOOR: f64 = 0.1;

/// What a throttle leaves of the rate.
const AFTER_THROTTLE: f64 = 0.7;

/// What an outage leaves of it: all clients come back at the same time, to a host that has only just started.
const AFTER_OUTAGE: f64 = 0.1;

/// Seconds of full use until the rate is back where it was cut. It passes that point hardly rising, and then rises ever
/// more steeply: five times as fast takes five minutes. Each visit beyond the limit costs a pause, so they are kept
/// minutes apart.
const RECOVERY: f64 = 90.0;

/// Requests a second, between a floor and a ceiling.
#[derive(Debug, Clone)]
pub(super) struct Rate {
    ceiling: f64,
    /// Where the climb began.
    low: f64,
    /// Where the host last complained, and where the climb is flat.
    limit: f64,
    /// Seconds for which the rate since then was fully used, with success.
    climbed: f64,
    credited_at: Duration,
}

impl Rate {
    /// A rate at its ceiling.
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

    /// A request succeeded. It earns the time that it takes of the rate, so that a rate that is not used
    /// does not rise, and never more than has passed since the last one.
    pub(super) fn climb(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.credited_at).as_secs_f64();
        self.climbed += passed.min(1.0 / self.per_second());
        self.credited_at = self.credited_at.max(now);
    }

    /// The host throttled: the rate now is more than it bears.
    pub(super) fn cut(&mut self, now: Duration) {
        let rate = self.per_second();
        self.low = (rate * AFTER_THROTTLE).max(self.floor());
        // Even at the floor there has to be something to climb to.
        self.limit = rate.max(self.low / AFTER_THROTTLE);
        self.begin_climb(now);
    }

    /// The host is back after an outage, which has changed nothing about what it bears.
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
    fn a_cut_takes_three_tenths_and_recovery_brings_them_back() {
        let (mut rate, mut now) = (Rate::new(50.0), 0.0);
        rate.cut(Duration::ZERO);
        assert!(close(rate.per_second(), 35.0));
        use_fully(&mut rate, &mut now, RECOVERY);
        assert!(close(rate.per_second(), 50.0), "{}", rate.per_second());
        use_fully(&mut rate, &mut now, 10.0 * RECOVERY);
        assert!(rate.per_second() <= 50.0);
    }

    #[test]
    fn outages_one_upon_another_leave_the_old_rate_to_climb_back_to() {
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
    fn the_climb_is_flat_around_the_limit_and_steep_beyond() {
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
    fn the_way_from_the_floor_to_the_ceiling_takes_minutes() {
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
    fn a_rate_that_is_not_used_does_not_rise() {
        let mut rate = Rate::new(50.0);
        rate.cut(Duration::ZERO);
        for minute in 1..=10 {
            rate.climb(Duration::from_secs(60 * minute));
        }
        assert!(close(rate.per_second(), 35.0), "{}", rate.per_second());
    }

    #[test]
    fn successes_that_come_together_raise_it_once() {
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
    fn a_ceiling_below_the_floor_is_a_ceiling() {
        let mut rate = Rate::new(0.01);
        rate.cut(Duration::ZERO);
        assert!(close(rate.per_second(), 0.01));
    }
}
