//! Tracks cycles, which are passes of a collector over all its targets.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Scheduler;
use super::queue::{Due, MonotonicTime};
use crate::collector::{CollectorId, Target};

/// A cycle checks for removed targets only while fewer than this number of targets remain. With more targets, the check
/// would be too expensive.
const REMOVED_CHECK: usize = 8;

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
    /// Begins a cycle over all targets, unless one is in progress.
    pub(super) fn begin_cycle(&mut self, collector: CollectorId) {
        let cycle = self.cycles.get_mut(collector);
        if cycle.since.is_none() {
            cycle.since = Some(self.clocks.now());
            cycle.remaining = self.queue.targets(collector).cloned().collect();
        }
    }

    /// Removes a target from the cycle, and ends the cycle after the last target.
    pub(super) fn advance_cycle(&mut self, due: &Due, now: MonotonicTime) {
        let cycle = self.cycles.get_mut(due.collector);
        cycle.remaining.remove(&due.target);
        if cycle.remaining.len() < REMOVED_CHECK {
            let queued: BTreeSet<&Target> = self.queue.targets(due.collector).collect();
            cycle.remaining.retain(|target| queued.contains(target));
        }
        if cycle.remaining.is_empty()
            && let Some(since) = cycle.since.take()
        {
            cycle.took = Some(now.saturating_sub(since));
            self.check_after_cycle(due.collector);
        }
    }
}
