//! When what is due: pure decisions over a clock that is passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::collector::Target;

/// A moment, as the time since the schedule began. It comes from a clock that never steps.
pub type Moment = Duration;

/// Something to be polled, and when it was due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Position of the collector in the table of them all.
    pub collector: usize,
    /// Whom to ask about.
    pub target: Target,
    /// When it was due.
    pub since: Moment,
}

/// What is queued of one collector.
#[derive(Debug, Default)]
struct Line {
    waiting: BTreeSet<(Moment, Target)>,
    due: BTreeMap<Target, Moment>,
    under_way: BTreeMap<Target, Moment>,
}

/// Every target of every collector, each once: waiting for its time or under way.
#[derive(Debug)]
pub struct Queue(Vec<Line>);

impl Queue {
    /// An empty queue for so many collectors.
    pub fn new(collectors: usize) -> Self {
        Self((0..collectors).map(|_| Line::default()).collect())
    }

    /// Adds a target, unless it is there already.
    pub fn add(&mut self, collector: usize, target: Target, at: Moment) {
        if self.contains(collector, &target) {
            return;
        }
        if let Some(line) = self.0.get_mut(collector) {
            line.wait(target, at);
        }
    }

    /// Whether a target is there, waiting or under way.
    pub fn contains(&self, collector: usize, target: &Target) -> bool {
        let line = self.0.get(collector);
        line.is_some_and(|line| line.due.contains_key(target) || line.under_way.contains_key(target))
    }

    /// Drops the waiting targets that do not pass. One under way ends first; its [`Queue::done`] is then refused.
    pub fn retain(&mut self, collector: usize, keep: impl Fn(&Target) -> bool) {
        if let Some(line) = self.0.get_mut(collector) {
            line.waiting.retain(|(_, target)| keep(target));
            line.due.retain(|target, _| keep(target));
            line.under_way.retain(|target, _| keep(target));
        }
    }

    /// Moves a waiting target forward, never back.
    pub fn hasten(&mut self, collector: usize, target: &Target, at: Moment) {
        if let Some(line) = self.0.get_mut(collector)
            && let Some(due) = line.due.get(target).copied()
            && at < due
        {
            line.waiting.remove(&(due, target.clone()));
            line.wait(target.clone(), at);
        }
    }

    /// Takes what has been due the longest; of what was due at once, the collector that stands first.
    ///
    /// A poll that asks once for all goes before those that ask for each: it is one of a few, and behind tens of
    /// thousands, as after a start or an outage, the list of customers would be as old as the whole round.
    pub fn pop(&mut self, now: Moment) -> Option<Due> {
        let for_all = |line: &Line| {
            let due = *line.due.get(&Target::Partner)?;
            Some((due, Target::Partner))
        };
        let (since, collector, target) = self
            .oldest(now, for_all)
            .or_else(|| self.oldest(now, |line| line.waiting.first().cloned()))?;
        let line = self.0.get_mut(collector)?;
        line.waiting.remove(&(since, target.clone()));
        line.due.remove(&target);
        line.under_way.insert(target.clone(), since);
        Some(Due {
            collector,
            target,
            since,
        })
    }

    /// Of what each line puts forward, what has been due the longest.
    fn oldest(
        &self,
        now: Moment,
        candidate: impl Fn(&Line) -> Option<(Moment, Target)>,
    ) -> Option<(Moment, usize, Target)> {
        let lines = self.0.iter().enumerate();
        lines
            .filter_map(|(collector, line)| candidate(line).map(|(since, target)| (since, collector, target)))
            .min()
            .filter(|(since, ..)| *since <= now)
    }

    /// Puts a target that was under way back for its next time; false when it was dropped meanwhile.
    pub fn done(&mut self, collector: usize, target: &Target, next: Moment) -> bool {
        let Some(line) = self.0.get_mut(collector) else {
            return false;
        };
        let known = line.under_way.remove(target).is_some();
        if known {
            line.wait(target.clone(), next);
        }
        known
    }

    /// When the next target is due.
    pub fn next_due(&self) -> Option<Moment> {
        let firsts = self.0.iter().filter_map(|line| line.waiting.first());
        firsts.map(|(at, _)| *at).min()
    }

    /// How late the most overdue poll of a collector is, under way or waiting.
    pub fn lag(&self, collector: usize, now: Moment) -> Duration {
        let Some(line) = self.0.get(collector) else {
            return Duration::ZERO;
        };
        let waiting = line.waiting.first().map(|(at, _)| *at);
        let oldest = line.under_way.values().copied().chain(waiting).min();
        oldest.map_or(Duration::ZERO, |oldest| now.saturating_sub(oldest))
    }

    /// The targets of a collector.
    pub fn targets(&self, collector: usize) -> impl Iterator<Item = &Target> {
        let line = self.0.get(collector);
        line.into_iter()
            .flat_map(|line| line.due.keys().chain(line.under_way.keys()))
    }
}

impl Line {
    fn wait(&mut self, target: Target, at: Moment) {
        self.waiting.insert((at, target.clone()));
        self.due.insert(target, at);
    }
}

/// When a poll that was due at `since` is due again, and how many whole intervals it missed. Missed ones are counted
/// and left out: what is late is polled once and not as often as it was missed.
pub fn next_time(since: Moment, now: Moment, interval: Duration, dice: f64) -> (Moment, u32) {
    // A twentieth up or down keeps thousands of equal timers from falling into step, and their mean as configured.
    const JITTER: f64 = 0.05;
    let jittered = interval.mul_f64(1.0 + JITTER * (2.0 * dice - 1.0));
    let next = since.saturating_add(jittered);
    if next > now {
        return (next, 0);
    }
    let late = now.saturating_sub(next).as_nanos();
    let missed = late / interval.as_nanos().max(1) + 1;
    let missed = u32::try_from(missed).unwrap_or(u32::MAX);
    (next.saturating_add(interval.saturating_mul(missed)), missed)
}

/// When a poll that failed for the `failures`th time in a row is tried again: soon, then later and later, and never
/// later than its interval.
fn retry_time(now: Moment, failures: u32, interval: Duration, dice: f64) -> Moment {
    // Half a minute gives a host time to come back and an operator who looks at once a second answer.
    const FIRST: Duration = Duration::from_secs(30);
    const SPREAD: f64 = 0.2;
    let factor = 2u32.saturating_pow(failures.saturating_sub(1).min(16));
    let pause = FIRST.saturating_mul(factor).min(interval);
    now.saturating_add(pause.mul_f64(1.0 + SPREAD * (2.0 * dice - 1.0)))
}

/// When a poll that failed for the `failures`th time in a row is due again: after the next probe where it was refused,
/// else soon where it may be repeated before its time, else when it would have been anyway. An outage is then asked for
/// no more than what works, and what was saved up for repetitions.
pub fn failed_time(
    now: Moment,
    failures: u32,
    interval: Duration,
    refused: Option<Duration>,
    may_repeat: impl FnOnce() -> bool,
    dice: f64,
) -> Moment {
    match refused {
        Some(wait) => refused_time(now, wait, interval, dice),
        None if may_repeat() => retry_time(now, failures, interval, dice),
        None => next_time(now, now, interval, dice).0,
    }
}

/// When a poll that was not let go, because what it asks for is down, is tried again: some time after the next probe,
/// so that all who were refused do not come back together, and never later than its interval.
fn refused_time(now: Moment, wait: Duration, interval: Duration, dice: f64) -> Moment {
    // As long as the first pause after a failure: this one is no worse.
    const SPREAD: Duration = Duration::from_secs(30);
    let pause = wait.saturating_add(SPREAD.mul_f64(dice));
    now.saturating_add(pause.min(interval))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::domain::CustomerId;

    fn customer(n: u32) -> Target {
        Target::Customer(CustomerId::parse(&format!("customer-{n}")).unwrap())
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_longest_overdue_goes_first_and_each_target_is_under_way_once() {
        let mut queue = Queue::new(2);
        queue.add(1, customer(1), seconds(5));
        queue.add(0, customer(2), seconds(7));
        queue.add(0, customer(3), seconds(5));
        queue.add(0, customer(3), seconds(1));
        assert_eq!(queue.pop(seconds(4)), None);
        let popped: Vec<_> = std::iter::from_fn(|| queue.pop(seconds(10)))
            .map(|due| (due.collector, due.target))
            .collect();
        assert_eq!(popped, [(0, customer(3)), (1, customer(1)), (0, customer(2))]);
        queue.add(0, customer(2), seconds(0));
        assert_eq!(queue.pop(seconds(10)), None, "it is under way");
        assert!(queue.done(0, &customer(2), seconds(20)));
        assert_eq!(queue.next_due(), Some(seconds(20)));
    }

    #[test]
    fn one_poll_for_all_goes_before_the_many_for_each_that_are_longer_overdue() {
        let mut queue = Queue::new(3);
        for n in 0..5 {
            queue.add(1, customer(n), seconds(1));
        }
        queue.add(0, Target::Partner, seconds(3));
        queue.add(2, Target::Partner, seconds(2));
        let mut pop = |now| queue.pop(seconds(now)).map(|due| (due.collector, due.target));
        assert_eq!(pop(1), Some((1, customer(0))), "but not before it is due");
        assert_eq!(pop(9), Some((2, Target::Partner)));
        assert_eq!(pop(9), Some((0, Target::Partner)));
        assert_eq!(pop(9), Some((1, customer(1))));
    }

    #[test]
    fn a_target_dropped_under_way_does_not_come_back() {
        let mut queue = Queue::new(1);
        queue.add(0, customer(1), seconds(0));
        queue.pop(seconds(0)).unwrap();
        queue.retain(0, |_| false);
        assert!(!queue.done(0, &customer(1), seconds(1)));
        assert_eq!(queue.pop(seconds(9)), None);
    }

    #[test]
    fn lag_is_that_of_the_most_overdue() {
        let mut queue = Queue::new(1);
        queue.add(0, customer(1), seconds(10));
        queue.add(0, customer(2), seconds(30));
        assert_eq!(queue.lag(0, seconds(5)), Duration::ZERO);
        assert_eq!(queue.lag(0, seconds(25)), seconds(15));
        queue.pop(seconds(25)).unwrap();
        assert_eq!(
            queue.lag(0, seconds(26)),
            seconds(16),
            "what is under way is still late"
        );
        queue.done(0, &customer(1), seconds(100));
        assert_eq!(queue.lag(0, seconds(26)), Duration::ZERO);
    }

    #[test]
    fn hastening_only_moves_forward() {
        let mut queue = Queue::new(1);
        queue.add(0, customer(1), seconds(10));
        queue.hasten(0, &customer(1), seconds(20));
        assert_eq!(queue.next_due(), Some(seconds(10)));
        queue.hasten(0, &customer(1), seconds(3));
        assert_eq!(queue.next_due(), Some(seconds(3)));
        assert!(queue.pop(seconds(3)).is_some());
        assert_eq!(queue.pop(seconds(30)), None);
    }

    #[test]
    fn missed_intervals_are_counted_and_not_stacked() {
        let interval = seconds(100);
        assert_eq!(
            next_time(seconds(1000), seconds(1001), interval, 0.5),
            (seconds(1100), 0)
        );
        assert_eq!(
            next_time(seconds(1000), seconds(1100), interval, 0.5),
            (seconds(1200), 1)
        );
        assert_eq!(
            next_time(seconds(1000), seconds(1350), interval, 0.5),
            (seconds(1400), 3)
        );
        let (early, _) = next_time(seconds(0), seconds(0), interval, 0.0);
        let (late, _) = next_time(seconds(0), seconds(0), interval, 0.999);
        assert!(early >= seconds(95) && late <= seconds(105) && early < late);
    }

    #[test]
    fn failures_are_retried_later_and_later_within_the_interval() {
        let at = |failures| retry_time(Duration::ZERO, failures, seconds(300), 0.5);
        assert_eq!(
            [at(1), at(2), at(3), at(4), at(5), at(500)],
            [30, 60, 120, 240, 300, 300].map(seconds)
        );
    }

    #[test]
    fn what_was_refused_comes_back_spread_out_after_the_probe() {
        let at = |interval, dice| refused_time(seconds(100), seconds(10), seconds(interval), dice);
        assert_eq!([at(300, 0.0), at(300, 0.5)], [110, 125].map(seconds));
        assert_eq!(at(5, 0.9), seconds(105));
    }
}
