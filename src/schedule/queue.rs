//! Queue of targets, ordered by due time and urgency. It performs no I/O and reads no clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::collector::{CollectorId, PerCollector, Target};

/// Time since the scheduler started, on a monotonic clock.
pub(super) type MonotonicTime = Duration;

/// A target to poll, and the time at which it became due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// The collector that polls the target.
    pub(super) collector: CollectorId,
    /// Target of the poll.
    pub(super) target: Target,
    /// Time at which the target became due.
    pub(super) since: MonotonicTime,
    /// Urgency of the target when it was queued.
    pub(super) urgency: Urgency,
}

/// Likelihood that a poll returns new data. It affects the order of polls only if more polls are due than the request
/// rate allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// The customer list shows a change.
    Signalled,
    /// It is unknown whether there is new data.
    Ordinary,
    /// No run was in progress at the last poll, and the customer list shows no change.
    Quiet,
}

/// Lateness at which a poll takes precedence over others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LatenessLimit {
    interval: Duration,
    quiet: Duration,
}

impl LatenessLimit {
    /// Returns a limit of one interval, so that targets wait at most two intervals if the request rate allows it. The
    /// limit for quiet targets is shorter if their values would otherwise become stale.
    pub(super) fn new(interval: Duration, stale_after: Duration) -> Self {
        Self {
            interval,
            quiet: stale_after.saturating_sub(interval).min(interval),
        }
    }

    fn of(self, urgency: Urgency) -> Duration {
        match urgency {
            Urgency::Quiet => self.quiet,
            Urgency::Signalled | Urgency::Ordinary => self.interval,
        }
    }

    /// Returns the unit in which lateness is compared. It is proportional to the interval, so that all collectors are
    /// late by the same number of intervals. Quiet targets may be late by up to twice that number.
    fn unit(self, urgency: Urgency) -> Duration {
        match urgency {
            Urgency::Quiet => self.interval.saturating_add(self.quiet),
            Urgency::Signalled | Urgency::Ordinary => self.interval,
        }
    }
}

/// Number of consecutive polls of signalled targets after which another target is polled, so that signals about all
/// customers do not delay all other polls.
const SIGNALLED_IN_A_ROW: u32 = 3;

/// Queue of one collector.
#[derive(Debug)]
struct CollectorQueue {
    lateness_limit: LatenessLimit,
    /// Tier of all targets; `None` if it depends on the target.
    tier: Option<Tier>,
    /// Waiting targets by urgency, ordered by due time.
    waiting: BTreeMap<Urgency, BTreeSet<(MonotonicTime, Target)>>,
    /// Due time and urgency of each waiting target.
    due: BTreeMap<Target, (MonotonicTime, Urgency)>,
    in_progress: BTreeMap<Target, InProgress>,
}

/// A target with a running poll.
#[derive(Clone, Copy, Debug)]
struct InProgress {
    /// Time at which the target became due.
    since: MonotonicTime,
    /// If the target became due again during the poll: the time and the urgency. The response to the running poll may
    /// be older than the change that made the target due again.
    again: Option<(MonotonicTime, Urgency)>,
}

/// Order of polls; the lowest rank is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    tier: Tier,
    /// Lateness in millionths of [`LatenessLimit::unit`].
    late: Reverse<u128>,
    since: MonotonicTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    /// A bulk poll.
    Bulk,
    Signalled,
    /// A poll that has reached its lateness limit.
    Overdue,
    Due,
    /// A poll of an optional collector. It uses only the part of the request rate that other collectors do not need.
    Optional,
    /// A poll of an optional collector that polls after another collector. No alert condition depends on the data of
    /// such polls.
    OptionalDependent,
}

/// All targets of all collectors. Each target is queued at most once per collector, either waiting or being polled.
#[derive(Debug)]
pub(super) struct Queue {
    collectors: PerCollector<CollectorQueue>,
    signalled_in_a_row: u32,
}

impl Default for Queue {
    /// Returns an empty queue.
    fn default() -> Self {
        Self {
            collectors: PerCollector::from_fn(|collector| {
                let descriptor = collector.descriptor();
                CollectorQueue::new(match (descriptor.is_optional, descriptor.after()) {
                    (false, _) => None,
                    (true, None) => Some(Tier::Optional),
                    (true, Some(_)) => Some(Tier::OptionalDependent),
                })
            }),
            signalled_in_a_row: 0,
        }
    }
}

impl Queue {
    /// Sets the lateness limit of a collector's targets.
    pub(super) fn set_lateness_limit(&mut self, collector: CollectorId, lateness_limit: LatenessLimit) {
        self.collectors.get_mut(collector).lateness_limit = lateness_limit;
    }

    /// Adds a target, unless it is queued already.
    pub(super) fn add(&mut self, collector: CollectorId, target: Target, at: MonotonicTime) {
        if self.contains(collector, &target) {
            return;
        }
        self.collectors.get_mut(collector).wait(target, at, Urgency::Ordinary);
    }

    /// Returns whether a target is waiting or being polled.
    pub(super) fn contains(&self, collector: CollectorId, target: &Target) -> bool {
        let queue = self.collectors.get(collector);
        queue.due.contains_key(target) || queue.in_progress.contains_key(target)
    }

    /// Removes targets for which `keep` returns false. A running poll of such a target still finishes, but
    /// [`Queue::done`] then returns false.
    pub(super) fn retain(&mut self, collector: CollectorId, keep: impl Fn(&Target) -> bool) {
        let queue = self.collectors.get_mut(collector);
        for waiting in queue.waiting.values_mut() {
            waiting.retain(|(_, target)| keep(target));
        }
        queue.due.retain(|target, _| keep(target));
        queue.in_progress.retain(|target, _| keep(target));
    }

    /// Makes a waiting target due at `at`, unless it is due earlier. This has no effect on a target that is being
    /// polled.
    pub(super) fn bring_forward(&mut self, collector: CollectorId, target: &Target, at: MonotonicTime) {
        let queue = self.collectors.get_mut(collector);
        if let Some((due, urgency)) = queue.due.get(target).copied()
            && at < due
        {
            queue.move_to(target, (due, urgency), (at, urgency));
        }
    }

    /// Makes a target due immediately. If it is being polled, it is polled again afterwards, because the running poll
    /// may be outdated.
    pub(super) fn poll_again(&mut self, collector: CollectorId, target: &Target, now: MonotonicTime) {
        self.make_due(collector, target, now, None);
    }

    /// Makes a target due immediately with [`Urgency::Signalled`], because the customer list shows a change. If the
    /// target is being polled, it is polled again afterwards.
    pub(super) fn signal(&mut self, collector: CollectorId, target: &Target, now: MonotonicTime) {
        self.make_due(collector, target, now, Some(Urgency::Signalled));
    }

    fn make_due(&mut self, collector: CollectorId, target: &Target, now: MonotonicTime, new_urgency: Option<Urgency>) {
        let queue = self.collectors.get_mut(collector);
        if let Some((due, urgency)) = queue.due.get(target).copied() {
            queue.move_to(target, (due, urgency), (due.min(now), new_urgency.unwrap_or(urgency)));
        } else if let Some(in_progress) = queue.in_progress.get_mut(target) {
            let urgency = new_urgency.unwrap_or(Urgency::Ordinary);
            let (at, before) = in_progress.again.unwrap_or((now, urgency));
            in_progress.again = Some((at.min(now), before.min(urgency)));
        }
    }

    /// Same as [`Queue::pop_among`], but for all collectors.
    #[cfg(test)]
    pub(super) fn pop(&mut self, now: MonotonicTime) -> Option<Due> {
        self.pop_among(now, |_| true)
    }

    /// Returns the next due target of the admitted collectors, and marks it as being polled. Bulk polls are first, then
    /// signalled targets, then targets that have reached their lateness limit, then all others. Targets of optional
    /// collectors are last. Within each group, the target that is latest relative to its [`LatenessLimit::unit`] is
    /// first. After [`SIGNALLED_IN_A_ROW`] signalled targets, another due target is next.
    pub(super) fn pop_among(&mut self, now: MonotonicTime, is_admitted: impl Fn(CollectorId) -> bool) -> Option<Due> {
        let first = |with_signalled: bool| {
            let heads = self.collectors.iter().flat_map(|(collector, queue)| {
                let heads = queue.heads(now);
                heads.map(move |(rank, urgency)| (rank, collector, urgency))
            });
            heads
                .filter(|(rank, ..)| with_signalled || rank.tier != Tier::Signalled)
                .filter(|(_, collector, _)| is_admitted(*collector))
                .min()
        };
        let is_turn_of_others = self.signalled_in_a_row >= SIGNALLED_IN_A_ROW;
        let (rank, collector, urgency) = first(!is_turn_of_others).or_else(|| first(true))?;
        self.signalled_in_a_row = if rank.tier == Tier::Signalled {
            self.signalled_in_a_row + 1
        } else {
            0
        };
        let queue = self.collectors.get_mut(collector);
        let (since, target) = queue.waiting.get_mut(&urgency)?.pop_first()?;
        queue.due.remove(&target);
        let in_progress = InProgress { since, again: None };
        queue.in_progress.insert(target.clone(), in_progress);
        Some(Due {
            collector,
            target,
            since,
            urgency,
        })
    }

    /// Puts a target back unchanged, because it cannot be polled now.
    pub(super) fn put_back(&mut self, due: &Due) {
        if due.urgency == Urgency::Signalled {
            self.signalled_in_a_row = self.signalled_in_a_row.saturating_sub(1);
        }
        self.done(due.collector, &due.target, due.since, due.urgency);
    }

    /// Requeues a target after its poll. If the target became due again during the poll, it is due immediately. Returns
    /// false if the target was removed during the poll.
    pub(super) fn done(
        &mut self,
        collector: CollectorId,
        target: &Target,
        next: MonotonicTime,
        urgency: Urgency,
    ) -> bool {
        let queue = self.collectors.get_mut(collector);
        let Some(in_progress) = queue.in_progress.remove(target) else {
            return false;
        };
        match in_progress.again {
            Some((at, urgency)) => queue.wait(target.clone(), next.min(at), urgency),
            None => queue.wait(target.clone(), next, urgency),
        }
        true
    }

    /// Returns whether a target of a collector is due and not being polled.
    pub(super) fn is_waiting(&self, collector: CollectorId, now: MonotonicTime) -> bool {
        let first = self.collectors.get(collector).first();
        first.is_some_and(|at| at <= now)
    }

    /// Returns the earliest due time after `now`.
    pub(super) fn next_due_after(&self, now: MonotonicTime) -> Option<MonotonicTime> {
        self.collectors
            .values()
            .filter_map(|queue| queue.first_after(now))
            .min()
    }

    /// Returns a collector's lag: the delay of its most overdue poll, waiting or running.
    pub(super) fn lag(&self, collector: CollectorId, now: MonotonicTime) -> Duration {
        let queue = self.collectors.get(collector);
        let in_progress = queue.in_progress.values().map(|in_progress| in_progress.since);
        let oldest = in_progress.chain(queue.first()).min();
        oldest.map_or(Duration::ZERO, |oldest| now.saturating_sub(oldest))
    }

    /// Returns the targets of a collector.
    pub(super) fn targets(&self, collector: CollectorId) -> impl Iterator<Item = &Target> {
        let queue = self.collectors.get(collector);
        queue.due.keys().chain(queue.in_progress.keys())
    }
}

impl CollectorQueue {
    /// Returns an empty queue with a default lateness limit.
    fn new(tier: Option<Tier>) -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        Self {
            lateness_limit: LatenessLimit::new(HOUR, HOUR),
            tier,
            waiting: BTreeMap::new(),
            due: BTreeMap::new(),
            in_progress: BTreeMap::new(),
        }
    }

    fn wait(&mut self, target: Target, at: MonotonicTime, urgency: Urgency) {
        self.waiting.entry(urgency).or_default().insert((at, target.clone()));
        self.due.insert(target, (at, urgency));
    }

    fn move_to(
        &mut self,
        target: &Target,
        (due, urgency): (MonotonicTime, Urgency),
        (at, new): (MonotonicTime, Urgency),
    ) {
        self.waiting.entry(urgency).or_default().remove(&(due, target.clone()));
        self.wait(target.clone(), at, new);
    }

    /// Returns the earliest due time of the waiting targets.
    fn first(&self) -> Option<MonotonicTime> {
        let firsts = self.waiting.values().filter_map(BTreeSet::first);
        firsts.map(|(at, _)| *at).min()
    }

    /// Returns the earliest due time of the waiting targets after `now`.
    fn first_after(&self, now: MonotonicTime) -> Option<MonotonicTime> {
        // This is the smallest key after `now`, because times have nanosecond resolution and `Partner` is the smallest
        // target.
        let later = (now.saturating_add(MonotonicTime::from_nanos(1)), Target::Partner);
        let firsts = self.waiting.values();
        let firsts = firsts.filter_map(|waiting| waiting.range(&later..).next());
        firsts.map(|(at, _)| *at).min()
    }

    /// Returns the rank of the first due target of each urgency. Within one urgency, all targets have the same lateness
    /// limit, so the target that has waited longest is first.
    fn heads(&self, now: MonotonicTime) -> impl Iterator<Item = (Rank, Urgency)> {
        self.waiting.iter().filter_map(move |(&urgency, waiting)| {
            let (since, target) = waiting.first()?;
            let late = now.checked_sub(*since)?;
            let tier = self.tier.unwrap_or_else(|| match (target, urgency) {
                (Target::Partner, _) => Tier::Bulk,
                (_, Urgency::Signalled) => Tier::Signalled,
                _ if late >= self.lateness_limit.of(urgency) => Tier::Overdue,
                _ => Tier::Due,
            });
            let units = late.as_nanos() * 1_000_000 / self.lateness_limit.unit(urgency).as_nanos().max(1);
            let rank = Rank {
                tier,
                late: Reverse(units),
                since: *since,
            };
            Some((rank, urgency))
        })
    }
}

/// Returns the next due time of a poll that was due at `since`, and the number of due times that have already passed.
/// Polls at these times are skipped, so a late target is polled only once. `random` is between 0 and 1.
pub(super) fn next_time(
    since: MonotonicTime,
    now: MonotonicTime,
    interval: Duration,
    random: f64,
) -> (MonotonicTime, u32) {
    // The jitter spreads targets with the same interval, without changing the mean interval.
    const JITTER: f64 = 0.05;
    let jittered = interval.mul_f64(1.0 + JITTER * (2.0 * random - 1.0));
    let next = since.saturating_add(jittered);
    if next > now {
        return (next, 0);
    }
    let late = now.saturating_sub(next).as_nanos();
    let missed = late / interval.as_nanos().max(1) + 1;
    let missed = u32::try_from(missed).unwrap_or(u32::MAX);
    (next.saturating_add(interval.saturating_mul(missed)), missed)
}

/// Returns the time of the next poll after `failures` consecutive failures. The delay doubles with each failure, up to
/// the interval, and varies by up to a fifth.
fn retry_time(now: MonotonicTime, failures: u32, interval: Duration, random: f64) -> MonotonicTime {
    // This is long enough for a host to recover, and short enough for an operator who is waiting for the next result.
    const FIRST: Duration = Duration::from_secs(30);
    const SPREAD: f64 = 0.2;
    let factor = 2u32.saturating_pow(failures.saturating_sub(1).min(16));
    let pause = FIRST.saturating_mul(factor).min(interval);
    now.saturating_add(pause.mul_f64(1.0 + SPREAD * (2.0 * random - 1.0)))
}

/// Returns the next due time of a poll after `failures` consecutive failures. If the circuit breaker rejected the poll,
/// it is due after the next probe. If the poll may be repeated early, it is due after a short delay. Otherwise, it is
/// due after one interval. During an outage, the exporter therefore sends at most its normal number of requests, plus
/// the retry budget and additional requests for the customer list.
pub(super) fn failed_time(
    now: MonotonicTime,
    failures: u32,
    interval: Duration,
    rejected: Option<Duration>,
    may_repeat: impl FnOnce() -> bool,
    random: f64,
) -> MonotonicTime {
    match rejected {
        Some(wait) => rejected_time(now, wait, interval, random),
        None if may_repeat() => retry_time(now, failures, interval, random),
        None => next_time(now, now, interval, random).0,
    }
}

/// Returns the time of the next poll after a rejection by the circuit breaker: after the next probe, but within one
/// interval. Jitter keeps rejected polls from being repeated together.
fn rejected_time(now: MonotonicTime, wait: Duration, interval: Duration, random: f64) -> MonotonicTime {
    // This equals the first delay after a failure.
    const SPREAD: Duration = Duration::from_secs(30);
    let pause = wait.saturating_add(SPREAD.mul_f64(random));
    now.saturating_add(pause.min(interval))
}

#[cfg(test)]
mod tests;
