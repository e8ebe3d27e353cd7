//! When what is due: pure decisions over a clock that is passed in.

use std::cmp::Reverse;
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
    /// What was known of it before.
    pub urgency: Urgency,
}

/// How much there is to learn from a poll, as far as that is known before. It decides who goes first where more is due
/// than the API allows; where there is room for all, nobody waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// The list of customers tells of something new about it.
    Signalled,
    /// Nothing is known.
    Ordinary,
    /// Nothing was under way when it was last asked about, and nothing tells of a change.
    Quiet,
}

/// How soon after it is due a target must have its turn, as long as the API allows so many requests at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    interval: Duration,
    quiet: Duration,
}

impl Patience {
    /// A turn may be late by an interval, so that nothing goes unasked for longer than two. What is quiet uses that up
    /// first, but not so far that its values would be stale by then.
    pub fn new(interval: Duration, stale_after: Duration) -> Self {
        Self {
            interval,
            quiet: stale_after.saturating_sub(interval).min(interval),
        }
    }

    /// By how much a turn may be late.
    fn limit(self, urgency: Urgency) -> Duration {
        match urgency {
            Urgency::Quiet => self.quiet,
            Urgency::Signalled | Urgency::Ordinary => self.interval,
        }
    }

    /// Being late by this much counts the same for all targets. So collectors share what there is by how often they are
    /// run, and what is quiet is asked half as often as what is not.
    fn unit(self, urgency: Urgency) -> Duration {
        match urgency {
            Urgency::Quiet => self.interval.saturating_add(self.quiet),
            Urgency::Signalled | Urgency::Ordinary => self.interval,
        }
    }
}

/// After so many turns in a row of targets that were signalled, one of another is due. A signal about all customers at
/// once must not keep everything else waiting until it has been followed.
const SIGNALLED_IN_A_ROW: u32 = 3;

/// What is queued of one collector.
#[derive(Debug)]
struct Line {
    patience: Patience,
    waiting: [BTreeSet<(Moment, Target)>; 3],
    due: BTreeMap<Target, (Moment, Urgency)>,
    under_way: BTreeMap<Target, UnderWay>,
}

/// A target that is being polled.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    /// When it was due.
    since: Moment,
    /// When it was signalled since. What is being answered may be older than that.
    signalled: Option<Moment>,
}

/// Whose turn is how near; the least goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    tier: Tier,
    /// How late it is in millionths of its patience's unit.
    late: Reverse<u128>,
    since: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    /// One request for all goes before the many for each.
    ForAll,
    Signalled,
    /// It has used up what it may be late.
    Overdue,
    Due,
}

/// Every target of every collector, each once: waiting for its time or under way.
#[derive(Debug)]
pub struct Queue {
    lines: Vec<Line>,
    signalled_in_a_row: u32,
}

impl Queue {
    /// An empty queue for so many collectors.
    pub fn new(collectors: usize) -> Self {
        Self {
            lines: (0..collectors).map(|_| Line::new()).collect(),
            signalled_in_a_row: 0,
        }
    }

    /// Sets how long the targets of a collector may wait for their turn.
    pub fn set_patience(&mut self, collector: usize, patience: Patience) {
        if let Some(line) = self.lines.get_mut(collector) {
            line.patience = patience;
        }
    }

    /// Adds a target, unless it is there already.
    pub fn add(&mut self, collector: usize, target: Target, at: Moment) {
        if self.contains(collector, &target) {
            return;
        }
        if let Some(line) = self.lines.get_mut(collector) {
            line.wait(target, at, Urgency::Ordinary);
        }
    }

    /// Whether a target is there, waiting or under way.
    pub fn contains(&self, collector: usize, target: &Target) -> bool {
        let line = self.lines.get(collector);
        line.is_some_and(|line| line.due.contains_key(target) || line.under_way.contains_key(target))
    }

    /// Drops the waiting targets that do not pass. One under way ends first; its [`Queue::done`] is then refused.
    pub fn retain(&mut self, collector: usize, keep: impl Fn(&Target) -> bool) {
        if let Some(line) = self.lines.get_mut(collector) {
            for waiting in &mut line.waiting {
                waiting.retain(|(_, target)| keep(target));
            }
            line.due.retain(|target, _| keep(target));
            line.under_way.retain(|target, _| keep(target));
        }
    }

    /// Moves a waiting target forward, never back.
    pub fn hasten(&mut self, collector: usize, target: &Target, at: Moment) {
        if let Some(line) = self.lines.get_mut(collector)
            && let Some((due, urgency)) = line.due.get(target).copied()
            && at < due
        {
            line.move_to(target, (due, urgency), (at, urgency));
        }
    }

    /// Makes a target due at once and ahead of its turn, because something tells that there is news of it; one that is
    /// under way as soon as it is done.
    pub fn signal(&mut self, collector: usize, target: &Target, now: Moment) {
        let Some(line) = self.lines.get_mut(collector) else {
            return;
        };
        if let Some((due, urgency)) = line.due.get(target).copied() {
            line.move_to(target, (due, urgency), (due.min(now), Urgency::Signalled));
        } else if let Some(under_way) = line.under_way.get_mut(target) {
            under_way.signalled.get_or_insert(now);
        }
    }

    /// Takes what must go next: of what is due, what asks for all, what was signalled, what has waited for as long as it
    /// may, and then what has waited the longest for how often it is to be asked.
    pub fn pop(&mut self, now: Moment) -> Option<Due> {
        let ranked = |signalled: bool| {
            let lines = self.lines.iter().enumerate();
            let heads = lines.flat_map(|(collector, line)| {
                let heads = line.heads(now);
                heads.map(move |(rank, urgency)| (rank, collector, urgency))
            });
            heads
                .filter(|(rank, ..)| signalled || rank.tier != Tier::Signalled)
                .min()
        };
        let others_turn = self.signalled_in_a_row >= SIGNALLED_IN_A_ROW;
        let first = ranked(!others_turn).or_else(|| ranked(true));
        let (rank, collector, urgency) = first?;
        self.signalled_in_a_row = if rank.tier == Tier::Signalled {
            self.signalled_in_a_row + 1
        } else {
            0
        };
        let line = self.lines.get_mut(collector)?;
        let (since, target) = line.waiting_as(urgency).pop_first()?;
        line.due.remove(&target);
        let under_way = UnderWay { since, signalled: None };
        line.under_way.insert(target.clone(), under_way);
        Some(Due {
            collector,
            target,
            since,
            urgency,
        })
    }

    /// Puts a target that was taken back as it was, because it cannot have its turn now.
    pub fn put_back(&mut self, due: &Due) {
        if due.urgency == Urgency::Signalled {
            self.signalled_in_a_row = self.signalled_in_a_row.saturating_sub(1);
        }
        self.done(due.collector, &due.target, due.since, due.urgency);
    }

    /// Puts a target that was under way back for its next time, which is now where it was signalled meanwhile; false when
    /// it was dropped meanwhile.
    pub fn done(&mut self, collector: usize, target: &Target, next: Moment, urgency: Urgency) -> bool {
        let Some(line) = self.lines.get_mut(collector) else {
            return false;
        };
        let Some(under_way) = line.under_way.remove(target) else {
            return false;
        };
        match under_way.signalled {
            Some(at) => line.wait(target.clone(), next.min(at), Urgency::Signalled),
            None => line.wait(target.clone(), next, urgency),
        }
        true
    }

    /// When the next target is due.
    pub fn next_due(&self) -> Option<Moment> {
        self.lines.iter().filter_map(Line::first).min()
    }

    /// How late the most overdue poll of a collector is, under way or waiting.
    pub fn lag(&self, collector: usize, now: Moment) -> Duration {
        let Some(line) = self.lines.get(collector) else {
            return Duration::ZERO;
        };
        let under_way = line.under_way.values().map(|under_way| under_way.since);
        let oldest = under_way.chain(line.first()).min();
        oldest.map_or(Duration::ZERO, |oldest| now.saturating_sub(oldest))
    }

    /// The targets of a collector.
    pub fn targets(&self, collector: usize) -> impl Iterator<Item = &Target> {
        let line = self.lines.get(collector);
        line.into_iter()
            .flat_map(|line| line.due.keys().chain(line.under_way.keys()))
    }
}

impl Line {
    /// An empty line. Until it is told otherwise, it is as patient as all others.
    fn new() -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        Self {
            patience: Patience::new(HOUR, HOUR),
            waiting: Default::default(),
            due: BTreeMap::new(),
            under_way: BTreeMap::new(),
        }
    }

    fn waiting_as(&mut self, urgency: Urgency) -> &mut BTreeSet<(Moment, Target)> {
        let [signalled, ordinary, quiet] = &mut self.waiting;
        match urgency {
            Urgency::Signalled => signalled,
            Urgency::Ordinary => ordinary,
            Urgency::Quiet => quiet,
        }
    }

    fn wait(&mut self, target: Target, at: Moment, urgency: Urgency) {
        self.waiting_as(urgency).insert((at, target.clone()));
        self.due.insert(target, (at, urgency));
    }

    fn move_to(&mut self, target: &Target, (due, urgency): (Moment, Urgency), (at, new): (Moment, Urgency)) {
        self.waiting_as(urgency).remove(&(due, target.clone()));
        self.wait(target.clone(), at, new);
    }

    /// When its first target is due.
    fn first(&self) -> Option<Moment> {
        let firsts = self.waiting.iter().filter_map(|waiting| waiting.first());
        firsts.map(|(at, _)| *at).min()
    }

    /// The first of each urgency that is due. Within one, who has waited the longest is first whatever the patience.
    fn heads(&self, now: Moment) -> impl Iterator<Item = (Rank, Urgency)> {
        let urgencies = [Urgency::Signalled, Urgency::Ordinary, Urgency::Quiet];
        let firsts = self.waiting.iter().zip(urgencies);
        firsts.filter_map(move |(waiting, urgency)| {
            let (since, target) = waiting.first()?;
            let late = now.checked_sub(*since)?;
            let tier = match (target, urgency) {
                (Target::Partner, _) => Tier::ForAll,
                (_, Urgency::Signalled) => Tier::Signalled,
                _ if late >= self.patience.limit(urgency) => Tier::Overdue,
                _ => Tier::Due,
            };
            let units = late.as_nanos() * 1_000_000 / self.patience.unit(urgency).as_nanos().max(1);
            let rank = Rank {
                tier,
                late: Reverse(units),
                since: *since,
            };
            Some((rank, urgency))
        })
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
        assert!(queue.done(0, &customer(2), seconds(20), Urgency::Ordinary));
        assert_eq!(queue.next_due(), Some(seconds(20)));
    }

    #[test]
    fn a_signal_that_comes_while_a_target_is_under_way_is_followed_after() {
        let mut queue = Queue::new(1);
        queue.add(0, customer(1), seconds(0));
        queue.add(0, customer(2), seconds(5));
        assert_eq!(queue.pop(seconds(1)).unwrap().target, customer(1));
        queue.signal(0, &customer(1), seconds(8));
        assert!(queue.done(0, &customer(1), seconds(60), Urgency::Quiet));
        let again = queue.pop(seconds(10)).unwrap();
        assert_eq!(
            (again.target, again.since, again.urgency),
            (customer(1), seconds(8), Urgency::Signalled)
        );
        assert!(queue.done(0, &customer(1), seconds(60), Urgency::Quiet));
        assert_eq!(
            queue.pop(seconds(10)).unwrap().target,
            customer(2),
            "the signal was followed once"
        );
    }

    #[test]
    fn what_is_put_back_is_as_urgent_as_before_and_has_had_no_turn() {
        let mut queue = Queue::new(1);
        for n in 0..=SIGNALLED_IN_A_ROW {
            queue.add(0, customer(n), seconds(20));
            queue.signal(0, &customer(n), seconds(1));
        }
        queue.add(0, customer(99), seconds(0));
        for _ in 0..3 * SIGNALLED_IN_A_ROW {
            let due = queue.pop(seconds(10)).unwrap();
            assert_eq!(due.urgency, Urgency::Signalled);
            queue.put_back(&due);
        }
    }

    #[test]
    fn a_target_dropped_under_way_does_not_come_back() {
        let mut queue = Queue::new(1);
        queue.add(0, customer(1), seconds(0));
        queue.pop(seconds(0)).unwrap();
        queue.retain(0, |_| false);
        assert!(!queue.done(0, &customer(1), seconds(1), Urgency::Ordinary));
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
        queue.done(0, &customer(1), seconds(100), Urgency::Ordinary);
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

    /// The customers in the order in which they are taken at this moment.
    fn order(queue: &mut Queue, now: u64) -> Vec<(usize, Target)> {
        let popped = std::iter::from_fn(|| queue.pop(seconds(now)));
        popped.map(|due| (due.collector, due.target)).collect()
    }

    #[test]
    fn what_asks_for_all_and_what_was_signalled_go_ahead_of_their_turn() {
        let mut queue = Queue::new(2);
        (1..=3).for_each(|n| queue.add(0, customer(n), seconds(n.into())));
        queue.add(1, Target::Partner, seconds(50));
        queue.add(0, customer(4), seconds(1000));
        queue.signal(0, &customer(4), seconds(60));
        assert_eq!(queue.lag(0, seconds(60)), seconds(59), "a signal hides no lag");
        let expected = [
            (1, Target::Partner),
            (0, customer(4)),
            (0, customer(1)),
            (0, customer(2)),
            (0, customer(3)),
        ];
        assert_eq!(order(&mut queue, 60), expected);
    }

    #[test]
    fn signals_about_all_let_others_through() {
        let mut queue = Queue::new(2);
        (0..8).for_each(|n| queue.add(0, customer(n), seconds(1000)));
        (0..8).for_each(|n| queue.signal(0, &customer(n), seconds(10)));
        (10..12).for_each(|n| queue.add(1, customer(n), seconds(1)));
        let collectors: Vec<usize> = order(&mut queue, 20)
            .into_iter()
            .map(|(collector, _)| collector)
            .collect();
        assert_eq!(collectors, [0, 0, 0, 1, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn who_is_late_by_more_intervals_goes_first() {
        let mut queue = Queue::new(2);
        queue.set_patience(0, Patience::new(seconds(100), seconds(300)));
        queue.set_patience(1, Patience::new(seconds(1000), seconds(3000)));
        queue.add(0, customer(1), seconds(50));
        queue.add(1, customer(2), seconds(0));
        assert_eq!(order(&mut queue, 100), [(0, customer(1)), (1, customer(2))]);
    }

    #[test]
    fn what_is_quiet_waits_no_longer_than_it_may() {
        let queue = |stale_after| {
            let mut queue = Queue::new(1);
            queue.set_patience(0, Patience::new(seconds(100), seconds(stale_after)));
            for n in 1..=2 {
                queue.add(0, customer(n), seconds(0));
                queue.pop(seconds(0)).unwrap();
            }
            queue.done(0, &customer(1), seconds(100), Urgency::Quiet);
            queue.done(0, &customer(2), seconds(110), Urgency::Ordinary);
            queue
        };
        let (quiet, busy) = ((0, customer(1)), (0, customer(2)));
        assert_eq!(
            order(&mut queue(300), 105),
            std::slice::from_ref(&quiet),
            "where there is room nothing waits"
        );
        assert_eq!(order(&mut queue(300), 199), [busy.clone(), quiet.clone()]);
        assert_eq!(
            order(&mut queue(300), 200),
            [quiet.clone(), busy.clone()],
            "two intervals without an answer"
        );
        assert_eq!(order(&mut queue(140), 139), [busy.clone(), quiet.clone()]);
        assert_eq!(order(&mut queue(140), 140), [quiet, busy], "values would be stale");
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
