//! Tracks cycles, which are passes of a collector over all its targets.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Scheduler;
use super::queue::{Due, MonotonicTime};
use crate::collector::{CollectorId, Target};

/// The current cycle of a collector, and the duration of its last completed cycle.
#[derive(Debug, Default)]
pub(super) struct Cycle {
    since: Option<MonotonicTime>,
    remaining: BTreeSet<Target>,
    took: Option<Duration>,
}

impl Cycle {
    /// Returns the duration of the last full cycle.
    pub(super) fn took(&self) -> Option<Duration> {
        self.took
    }
}

impl Scheduler {
    /// Begins a cycle over all targets when a poll starts, unless a cycle is in progress. Retries of a forbidden bulk
    /// list do not belong to a cycle.
    pub(super) fn begin_cycle(&mut self, due: &Due) {
        let is_bulk = !self.fetches_per_customer(due.collector);
        let is_part = !self.is_bulk_retry(due);
        let cycle = self.cycles.get_mut(due.collector);
        if is_part && cycle.since.is_none() {
            let targets = self.queue.targets(due.collector);
            let targets = targets.filter(|target| (**target == Target::Partner) == is_bulk);
            cycle.since = Some(self.clocks.now());
            cycle.remaining = targets.cloned().collect();
        }
    }

    /// Removes the targets for which `keep` returns false from the queue and the cycle.
    pub(super) fn retain_targets(&mut self, collector: CollectorId, keep: impl Fn(&Target) -> bool) {
        self.queue.retain(collector, &keep);
        self.cycles.get_mut(collector).remaining.retain(keep);
    }

    /// Removes a target from the cycle, and ends the cycle after the last target.
    pub(super) fn advance_cycle(&mut self, due: &Due, now: MonotonicTime) {
        let cycle = self.cycles.get_mut(due.collector);
        cycle.remaining.remove(&due.target);
        if cycle.remaining.is_empty()
            && let Some(since) = cycle.since.take()
        {
            cycle.took = Some(now.saturating_sub(since));
            self.check_after_cycle(due.collector);
        }
    }
}
