//! Counts consecutive failures of polls.

use std::collections::{BTreeSet, HashMap};

use crate::collector::{CollectorId, Target};
use crate::log_throttle::LogThrottle;

/// Consecutive failures of polls, by collector and target.
#[derive(Debug, Default)]
pub(super) struct Failures {
    consecutive: HashMap<(CollectorId, Target), u32>,
    /// Whether any poll has failed since startup, or a customer configured by id was not listed. For exceptions, see
    /// [`Scheduler::run`](super::Scheduler::run).
    pub(super) has_any_failed: bool,
    pub(super) log_throttle: LogThrottle,
}

impl Failures {
    /// Counts a failed poll, and returns the number of consecutive failures of its target.
    pub(super) fn add(&mut self, collector: CollectorId, target: &Target) -> u32 {
        let count = self.consecutive.entry((collector, target.clone())).or_default();
        *count = count.saturating_add(1);
        *count
    }

    /// Resets the failure count of a target. Returns whether it was above zero.
    pub(super) fn end(&mut self, collector: CollectorId, target: &Target) -> bool {
        self.consecutive.remove(&(collector, target.clone())).is_some()
    }

    /// Returns the targets whose last poll failed.
    pub(super) fn failed_targets(&self) -> Vec<(CollectorId, Target)> {
        self.consecutive.keys().cloned().collect()
    }

    /// Removes targets that are no longer polled.
    pub(super) fn remove_targets(&mut self, removed: &BTreeSet<Target>) {
        self.consecutive.retain(|(_, target), _| !removed.contains(target));
    }

    /// Removes all targets.
    pub(super) fn clear(&mut self) {
        self.consecutive.clear();
    }
}
