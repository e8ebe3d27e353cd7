//! Decides when each target is due, without I/O, based on a given time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::collector::{CollectorId, PerCollector, Target};

/// Time since the schedule began, by a monotonic clock.
pub type MonotonicTime = Duration;

/// A target to poll, and the time at which it became due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The collector that polls it.
    pub collector: CollectorId,
    /// Target of the poll.
    pub target: Target,
    /// Time at which it became due.
    pub since: MonotonicTime,
    /// Urgency when it was queued.
    pub urgency: Urgency,
}

/// How likely a poll returns news. It decides the order if more polls are due than the API allows, and has no effect
/// otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// The customer list reports a change.
    Signalled,
    /// Unknown.
    Ordinary,
    /// No run was in progress at the last poll, and no change is reported.
    Quiet,
}

/// How late a poll may be, as long as the API allows enough requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    interval: Duration,
    quiet: Duration,
}

impl Patience {
    /// Creates a patience: a poll may be late by one interval, so that no target waits longer than two. Quiet targets
    /// wait that long first, but not until their values are stale.
    pub fn new(interval: Duration, stale_after: Duration) -> Self {
        Self {
            interval,
            quiet: stale_after.saturating_sub(interval).min(interval),
        }
    }

    /// Returns how late a poll may be.
    fn limit(self, urgency: Urgency) -> Duration {
        match urgency {
            Urgency::Quiet => self.quiet,
            Urgency::Signalled | Urgency::Ordinary => self.interval,
        }
    }

    /// Lateness that counts the same for all targets. Collectors thus share requests in proportion to their intervals,
    /// and quiet targets are polled half as often as others.
    fn unit(self, urgency: Urgency) -> Duration {
        match urgency {
            Urgency::Quiet => self.interval.saturating_add(self.quiet),
            Urgency::Signalled | Urgency::Ordinary => self.interval,
        }
    }
}

/// Number of signalled targets in a row after which another one is polled. Signals about all customers must not delay
/// all other polls.
const SIGNALLED_IN_A_ROW: u32 = 3;

/// Queue of one collector.
#[derive(Debug)]
struct Line {
    patience: Patience,
    /// The tier of all its targets, if they have one.
    tier: Option<Tier>,
    waiting: [BTreeSet<(MonotonicTime, Target)>; 3],
    due: BTreeMap<Target, (MonotonicTime, Urgency)>,
    in_progress: BTreeMap<Target, InProgress>,
}

/// A target with a running poll.
#[derive(Clone, Copy, Debug)]
struct InProgress {
    /// Time at which it became due.
    since: MonotonicTime,
    /// Time at which it became due again during the poll, and the urgency. The response may be older than that.
    again: Option<(MonotonicTime, Urgency)>,
}

/// Order of polls; the least is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    tier: Tier,
    /// Lateness in millionths of the unit of its patience.
    late: Reverse<u128>,
    since: MonotonicTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    /// Bulk polls precede per-customer polls.
    ForAll,
    Signalled,
    /// It has exceeded its patience.
    Overdue,
    Due,
    /// An optional collector, which uses the requests that others do not need.
    Optional,
    /// An optional collector that polls after another one: its items change nothing that alerts are about.
    Last,
}

/// All targets of all collectors, each once: waiting or being polled.
#[derive(Debug)]
pub struct Queue {
    lines: PerCollector<Line>,
    signalled_in_a_row: u32,
}

impl Default for Queue {
    /// Returns an empty queue.
    fn default() -> Self {
        Self {
            lines: PerCollector::from_fn(|collector| {
                let descriptor = collector.descriptor();
                Line::new(match (descriptor.is_optional, descriptor.after()) {
                    (false, _) => None,
                    (true, None) => Some(Tier::Optional),
                    (true, Some(_)) => Some(Tier::Last),
                })
            }),
            signalled_in_a_row: 0,
        }
    }
}

impl Queue {
    /// Sets the patience of a collector's targets.
    pub fn set_patience(&mut self, collector: CollectorId, patience: Patience) {
        self.lines.get_mut(collector).patience = patience;
    }

    /// Adds a target, unless it is queued already.
    pub fn add(&mut self, collector: CollectorId, target: Target, at: MonotonicTime) {
        if self.contains(collector, &target) {
            return;
        }
        self.lines.get_mut(collector).wait(target, at, Urgency::Ordinary);
    }

    /// Returns whether a target is waiting or being polled.
    pub fn contains(&self, collector: CollectorId, target: &Target) -> bool {
        let line = self.lines.get(collector);
        line.due.contains_key(target) || line.in_progress.contains_key(target)
    }

    /// Removes waiting targets for which `keep` is false. A running poll finishes first; its [`Queue::done`] then
    /// returns false.
    pub fn retain(&mut self, collector: CollectorId, keep: impl Fn(&Target) -> bool) {
        let line = self.lines.get_mut(collector);
        for waiting in &mut line.waiting {
            waiting.retain(|(_, target)| keep(target));
        }
        line.due.retain(|target, _| keep(target));
        line.in_progress.retain(|target, _| keep(target));
    }

    /// Makes a waiting target due earlier, never later. A target being polled is not polled again.
    pub fn bring_forward(&mut self, collector: CollectorId, target: &Target, at: MonotonicTime) {
        let line = self.lines.get_mut(collector);
        if let Some((due, urgency)) = line.due.get(target).copied()
            && at < due
        {
            line.move_to(target, (due, urgency), (at, urgency));
        }
    }

    /// Makes a target due immediately. If it is being polled, it is polled again afterwards, because the request may
    /// have changed.
    pub fn poll_again(&mut self, collector: CollectorId, target: &Target, now: MonotonicTime) {
        self.follow(collector, target, now, None);
    }

    /// Makes a target due immediately and urgent, because a change was reported. If it is being polled, it is polled
    /// again afterwards.
    pub fn signal(&mut self, collector: CollectorId, target: &Target, now: MonotonicTime) {
        self.follow(collector, target, now, Some(Urgency::Signalled));
    }

    fn follow(&mut self, collector: CollectorId, target: &Target, now: MonotonicTime, raised: Option<Urgency>) {
        let line = self.lines.get_mut(collector);
        if let Some((due, urgency)) = line.due.get(target).copied() {
            line.move_to(target, (due, urgency), (due.min(now), raised.unwrap_or(urgency)));
        } else if let Some(in_progress) = line.in_progress.get_mut(target) {
            let urgency = raised.unwrap_or(Urgency::Ordinary);
            let (at, before) = in_progress.again.unwrap_or((now, urgency));
            in_progress.again = Some((at.min(now), before.min(urgency)));
        }
    }

    /// Returns the next target: among those due, bulk polls first, then signalled ones, then those that exceed their
    /// patience, and finally the one that is latest relative to its interval.
    pub fn pop(&mut self, now: MonotonicTime) -> Option<Due> {
        self.pop_among(now, |_| true)
    }

    /// Same as [`Queue::pop`], among admitted collectors.
    pub fn pop_among(&mut self, now: MonotonicTime, is_admitted: impl Fn(CollectorId) -> bool) -> Option<Due> {
        let ranked = |signalled: bool| {
            let lines = self.lines.iter();
            let lines = lines.filter(|(collector, _)| is_admitted(*collector));
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
        let line = self.lines.get_mut(collector);
        let (since, target) = line.waiting_as(urgency).pop_first()?;
        line.due.remove(&target);
        let in_progress = InProgress { since, again: None };
        line.in_progress.insert(target.clone(), in_progress);
        Some(Due {
            collector,
            target,
            since,
            urgency,
        })
    }

    /// Puts a target back unchanged, because it cannot be polled now.
    pub fn put_back(&mut self, due: &Due) {
        if due.urgency == Urgency::Signalled {
            self.signalled_in_a_row = self.signalled_in_a_row.saturating_sub(1);
        }
        self.done(due.collector, &due.target, due.since, due.urgency);
    }

    /// Requeues a target after its poll; if it became due again during the poll, immediately. Returns false if it was
    /// removed during the poll.
    pub fn done(&mut self, collector: CollectorId, target: &Target, next: MonotonicTime, urgency: Urgency) -> bool {
        let line = self.lines.get_mut(collector);
        let Some(in_progress) = line.in_progress.remove(target) else {
            return false;
        };
        match in_progress.again {
            Some((at, urgency)) => line.wait(target.clone(), next.min(at), urgency),
            None => line.wait(target.clone(), next, urgency),
        }
        true
    }

    /// Returns whether a target of a collector is due and not being polled.
    pub fn is_waiting(&self, collector: CollectorId, now: MonotonicTime) -> bool {
        let first = self.lines.get(collector).first();
        first.is_some_and(|at| at <= now)
    }

    /// Returns when the next target becomes due. Due targets wait for a slot instead.
    pub fn next_due_after(&self, now: MonotonicTime) -> Option<MonotonicTime> {
        self.lines.values().filter_map(|line| line.first_after(now)).min()
    }

    /// Returns the lag of a collector's most overdue poll, waiting or running.
    pub fn lag(&self, collector: CollectorId, now: MonotonicTime) -> Duration {
        let line = self.lines.get(collector);
        let in_progress = line.in_progress.values().map(|in_progress| in_progress.since);
        let oldest = in_progress.chain(line.first()).min();
        oldest.map_or(Duration::ZERO, |oldest| now.saturating_sub(oldest))
    }

    /// Returns the targets of a collector.
    pub fn targets(&self, collector: CollectorId) -> impl Iterator<Item = &Target> {
        let line = self.lines.get(collector);
        line.due.keys().chain(line.in_progress.keys())
    }
}

impl Line {
    /// Returns an empty line with the default patience.
    fn new(tier: Option<Tier>) -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        Self {
            patience: Patience::new(HOUR, HOUR),
            tier,
            waiting: Default::default(),
            due: BTreeMap::new(),
            in_progress: BTreeMap::new(),
        }
    }

    fn waiting_as(&mut self, urgency: Urgency) -> &mut BTreeSet<(MonotonicTime, Target)> {
        let [signalled, ordinary, quiet] = &mut self.waiting;
        match urgency {
            Urgency::Signalled => signalled,
            Urgency::Ordinary => ordinary,
            Urgency::Quiet => quiet,
        }
    }

    fn wait(&mut self, target: Target, at: MonotonicTime, urgency: Urgency) {
        self.waiting_as(urgency).insert((at, target.clone()));
        self.due.insert(target, (at, urgency));
    }

    fn move_to(
        &mut self,
        target: &Target,
        (due, urgency): (MonotonicTime, Urgency),
        (at, new): (MonotonicTime, Urgency),
    ) {
        self.waiting_as(urgency).remove(&(due, target.clone()));
        self.wait(target.clone(), at, new);
    }

    /// Returns when its first target is due.
    fn first(&self) -> Option<MonotonicTime> {
        let firsts = self.waiting.iter().filter_map(|waiting| waiting.first());
        firsts.map(|(at, _)| *at).min()
    }

    /// Returns when the first target becomes due that is not due yet.
    fn first_after(&self, now: MonotonicTime) -> Option<MonotonicTime> {
        // The smallest key later than now: times have nanosecond resolution.
        let later = (now.saturating_add(MonotonicTime::from_nanos(1)), Target::Partner);
        let firsts = self.waiting.iter().filter_map(|waiting| waiting.range(&later..).next());
        firsts.map(|(at, _)| *at).min()
    }

    /// Returns the first due target of each urgency. Within one urgency, the target that has waited longest is first,
    /// whatever its patience.
    fn heads(&self, now: MonotonicTime) -> impl Iterator<Item = (Rank, Urgency)> {
        let urgencies = [Urgency::Signalled, Urgency::Ordinary, Urgency::Quiet];
        let firsts = self.waiting.iter().zip(urgencies);
        firsts.filter_map(move |(waiting, urgency)| {
            let (since, target) = waiting.first()?;
            let late = now.checked_sub(*since)?;
            let tier = self.tier.unwrap_or_else(|| match (target, urgency) {
                (Target::Partner, _) => Tier::ForAll,
                (_, Urgency::Signalled) => Tier::Signalled,
                _ if late >= self.patience.limit(urgency) => Tier::Overdue,
                _ => Tier::Due,
            });
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

/// Returns when a poll that was due at `since` is due again, and how many whole intervals it missed. Missed intervals
/// are counted and skipped, so a late target is polled once.
pub fn next_time(since: MonotonicTime, now: MonotonicTime, interval: Duration, dice: f64) -> (MonotonicTime, u32) {
    // A jitter of a twentieth keeps thousands of equal timers out of step, with the configured mean.
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

/// Returns when a poll is retried after `failures` consecutive failures: with growing delays, and never later than its
/// interval.
fn retry_time(now: MonotonicTime, failures: u32, interval: Duration, dice: f64) -> MonotonicTime {
    // Half a minute gives a host time to recover, and is short enough for an operator who waits for the next result.
    const FIRST: Duration = Duration::from_secs(30);
    const SPREAD: f64 = 0.2;
    let factor = 2u32.saturating_pow(failures.saturating_sub(1).min(16));
    let pause = FIRST.saturating_mul(factor).min(interval);
    now.saturating_add(pause.mul_f64(1.0 + SPREAD * (2.0 * dice - 1.0)))
}

/// Returns when a poll is due again after `failures` consecutive failures: after the next probe if the circuit breaker
/// rejected it, soon if an early repetition is allowed, otherwise at its regular time. An outage thus costs no more
/// requests than normal operation plus the retry budget.
pub fn failed_time(
    now: MonotonicTime,
    failures: u32,
    interval: Duration,
    refused: Option<Duration>,
    may_repeat: impl FnOnce() -> bool,
    dice: f64,
) -> MonotonicTime {
    match refused {
        Some(wait) => refused_time(now, wait, interval, dice),
        None if may_repeat() => retry_time(now, failures, interval, dice),
        None => next_time(now, now, interval, dice).0,
    }
}

/// Returns when a poll is retried that the circuit breaker rejected: after the next probe with jitter, so that rejected
/// polls are not retried together, and never later than its interval.
fn refused_time(now: MonotonicTime, wait: Duration, interval: Duration, dice: f64) -> MonotonicTime {
    // Equal to the first pause after a failure, which is the worse case.
    const SPREAD: Duration = Duration::from_secs(30);
    let pause = wait.saturating_add(SPREAD.mul_f64(dice));
    now.saturating_add(pause.min(interval))
}

#[cfg(test)]
mod tests;
