//! Combines successive lists of a module's runs into the module's current state, latest completed run, latest restore
//! point, and number of failures since then.
//!
//! An API response lists a module's latest run, or several runs in any order. Each list updates a [`History`]. The
//! history stores the values that must not be lost when a run is no longer listed, and the data needed to count each
//! run once.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::run::{Rank, Run, RunIndex, RunKey, distinct};
use super::status::JobStatus;
use super::time::Timestamp;
use super::trail::{PastRun, Trail};

/// Maximum number of runs in `History::recent` that are missing from the latest list. A run that is missing from one
/// list and returns in the next is therefore not counted twice. The lists from the API's replicas differ by only one or
/// two runs.
const RECENT_RUNS: usize = 8;

/// The stored part of a completed run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct CompletedRun {
    key: RunKey,
    status: JobStatus,
    end: Option<Timestamp>,
    rank: Rank,
}

impl CompletedRun {
    /// Returns the rank of the run, if it created a restore point with a known or assumed time.
    fn restore_point(&self) -> Option<Rank> {
        (self.end.is_some() && self.status.is_restore_point()).then_some(self.rank)
    }

    /// Returns the last known time of a run without a start, which may be an assumed time; `None` if the run has a
    /// start.
    fn assumed_time(&self) -> Option<Timestamp> {
        self.rank.time.filter(|_| self.rank.start.is_none())
    }

    /// Returns whether the row of the run had no times, so that a time was assumed.
    fn is_undated(&self) -> bool {
        self.end.or(self.rank.modified).or(self.rank.start).is_none() && self.rank.time.is_some()
    }

    fn is_failure(&self) -> bool {
        self.status.counts_as_failure(self.end.is_some())
    }

    fn success(&self) -> Option<Timestamp> {
        self.end.filter(|_| self.status.is_success())
    }
}

/// Summary of the completed runs that were evicted from `History::recent`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct EvictedRuns {
    /// The latest time of these runs. A run that is not in `History::recent` is assumed to have been counted, unless
    /// its time is later or unknown.
    until: Option<Timestamp>,
    success: Option<Timestamp>,
    restore_point: Option<Rank>,
    /// Number of failures after `restore_point`.
    failures: u64,
    newest_failure: Option<Rank>,
}

/// The known runs of one module or backup scope.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The newest row of the latest list.
    newest: Option<Run>,
    #[serde(rename = "newest_ended")]
    latest_completed: Option<Run>,
    listed: BTreeMap<JobStatus, u64>,
    ended: BTreeMap<JobStatus, u64>,
    #[serde(rename = "remembered")]
    recent: Vec<CompletedRun>,
    #[serde(rename = "forgotten")]
    evicted: EvictedRuns,
    /// Missing from older state files.
    #[serde(default, skip_serializing_if = "Trail::is_empty")]
    trail: Trail,
}

/// Result of updating a history with a list of runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryUpdate {
    /// Number of rows that repeat a run.
    pub duplicates: u64,
    /// Completed runs that had not been counted before.
    pub ended: Vec<PastRun>,
}

impl History {
    /// Updates the history with a list of the module's runs.
    pub fn update(&mut self, mut rows: Vec<Run>) -> HistoryUpdate {
        if let [row] = rows.as_mut_slice()
            && row.key == RunKey::default()
            && row.is_dated_by_first_poll()
        {
            row.key = self.key_of_undated(row);
        }
        let (mut runs, index, duplicates) = distinct(rows);
        let recent = self.recent_index();
        // A run keeps the time that was assumed at its first poll.
        for run in runs.iter_mut().filter(|run| run.end.or(run.start).is_none()) {
            let known = recent.find(run.key, run.start);
            let known = known.and_then(|position| self.recent.get(position)?.assumed_time());
            run.dated = run.dated.map(|dated| known.unwrap_or(dated));
        }
        self.listed.clear();
        for run in &runs {
            *self.listed.entry(run.status).or_default() += 1;
        }
        // The listed state is the current state, even if other stored runs ended later.
        self.newest = newest(&runs, |_| true).or_else(|| self.newest.take());
        self.latest_completed = self.find_latest_completed(&runs, &index);
        let ended = self.add_completed(&runs, &recent);
        self.evict(&index);
        HistoryUpdate { duplicates, ended }
    }

    /// Corrects assumed times that are in the future because the clock was ahead when they were assumed. Without the
    /// correction, a failure with such a time would count even after a later restore point.
    pub fn clamp(&mut self, now: Timestamp) {
        // A failure after a restore point stays after that restore point, even if the clock is now behind.
        let after_restore_point = self.last_restore_point().map(|at| at.plus(Duration::from_secs(1)));
        let latest = after_restore_point.map_or(now, |after| after.max(now));
        for run in self.recent.iter_mut().filter(|run| run.is_undated()) {
            run.rank.time = run.rank.time.min(Some(latest));
        }
        let newest = [&mut self.newest, &mut self.latest_completed].into_iter().flatten();
        for run in newest.filter(|run| run.is_dated_by_first_poll()) {
            run.dated = run.dated.min(Some(latest));
        }
    }

    /// Returns the key of a failure that has neither an id nor times and whose row is the only one in the list. The
    /// failure counts as new if a restore point has been created since the last such failure, and if that failure was
    /// not in the previous list.
    fn key_of_undated(&self, row: &Run) -> RunKey {
        let undated = self.recent.iter().filter(|run| run.is_undated());
        let Some(known) = undated.max_by_key(|run| run.rank) else {
            return row.key;
        };
        let was_listed = self.newest.as_ref().is_some_and(|newest| newest.key == known.key);
        if was_listed || Some(known.rank) > self.restore_point() {
            known.key
        } else {
            RunKey::new(None, None, row.dated)
        }
    }

    /// Returns the completed runs of the trail, newest first.
    pub fn past_runs(&self) -> Vec<PastRun> {
        self.trail.runs()
    }

    /// Returns the newest row of the latest list.
    pub fn newest(&self) -> Option<&Run> {
        self.newest.as_ref()
    }

    /// Returns the latest completed run.
    pub fn latest_completed(&self) -> Option<&Run> {
        self.latest_completed.as_ref()
    }

    /// Returns the number of runs in the latest list, by status.
    pub fn listed(&self) -> &BTreeMap<JobStatus, u64> {
        &self.listed
    }

    /// Returns the number of completed runs by status. Each run is counted once.
    pub fn ended(&self) -> &BTreeMap<JobStatus, u64> {
        &self.ended
    }

    /// Returns whether any run has completed.
    pub fn has_run(&self) -> bool {
        self.latest_completed.is_some()
    }

    /// Returns the end of the latest successful run.
    pub fn last_success(&self) -> Option<Timestamp> {
        let recent = self.recent.iter().filter_map(CompletedRun::success).max();
        recent.max(self.evicted.success)
    }

    /// Returns the time of the latest restore point.
    pub fn last_restore_point(&self) -> Option<Timestamp> {
        self.restore_point()?.time
    }

    /// Returns the number of runs that have failed since the latest restore point.
    pub fn consecutive_failures(&self) -> u64 {
        let since = self.restore_point();
        let recent = self
            .recent
            .iter()
            .filter(|run| run.is_failure() && Some(run.rank) > since)
            .count();
        let evicted = match self.evicted.newest_failure > since {
            true => self.evicted.failures,
            false => 0,
        };
        evicted.saturating_add(u64::try_from(recent).unwrap_or(u64::MAX))
    }

    /// Returns whether the module has had no run for longer than `after`; `None` if the times of its runs are unknown.
    /// The last modification does not count (see [`Run::occurred_at`]).
    pub fn is_abandoned(&self, now: Timestamp, after: Duration) -> Option<bool> {
        let in_progress = self.newest.as_ref().filter(|run| !run.has_ended());
        let started = in_progress.and_then(|run| run.start);
        let occurred_at = self.latest_completed.as_ref().and_then(Run::occurred_at).max(started)?;
        Some(now.since(occurred_at) > after)
    }

    /// Returns whether an objective applies to the module, given only its listed status and whether any run has
    /// completed. No objective applies to a disabled module. Before the first completed run, none applies to a module
    /// that is not configured or has not started.
    pub fn expects_backups(&self) -> bool {
        match self.newest.as_ref().map(|run| run.status) {
            None | Some(JobStatus::Disabled) => false,
            Some(
                JobStatus::None | JobStatus::NotScanned | JobStatus::NotStarted | JobStatus::WaitingForConfiguration,
            ) => self.has_run(),
            Some(_) => true,
        }
    }

    /// Returns when the newest run became pending; `None` if it is not pending or has no last modification.
    pub fn pending_since(&self) -> Option<Timestamp> {
        let newest = self.newest.as_ref()?;
        let is_pending = match newest.status {
            JobStatus::Pending => true,
            JobStatus::Running => newest.start.is_none(),
            _ => false,
        };
        newest.modified.filter(|_| is_pending)
    }

    /// Returns the last known time of the newest run or of the latest completed run, whichever is later; `None` if
    /// neither has a time.
    pub fn last_known(&self) -> Option<Timestamp> {
        let time = |run: &Option<Run>| run.as_ref().and_then(Run::last_known_time);
        time(&self.newest).max(time(&self.latest_completed))
    }

    /// Returns the rank of the run that created the latest restore point.
    fn restore_point(&self) -> Option<Rank> {
        let recent = self.recent.iter().filter_map(CompletedRun::restore_point).max();
        recent.max(self.evicted.restore_point)
    }

    fn recent_index(&self) -> RunIndex {
        let mut index = RunIndex::default();
        for (position, run) in self.recent.iter().enumerate() {
            index.insert(run.key, run.rank.start, position);
        }
        index
    }

    /// Returns the newest completed run in the list, or the previously known run if that is newer. If the completed
    /// runs in the list have no times, they count as newer. A run that is listed again is replaced by its new row.
    fn find_latest_completed(&mut self, runs: &[Run], index: &RunIndex) -> Option<Run> {
        let before = self.latest_completed.take();
        let Some(newest) = newest(runs, Run::has_ended) else {
            return before;
        };
        let kept = before.filter(|before| {
            let relisted = index
                .find(before.key, before.start)
                .and_then(|position| runs.get(position));
            let relisted = relisted.is_some_and(Run::has_ended);
            !relisted && newest.last_known_time().is_some() && before.rank() > newest.rank()
        });
        kept.or(Some(newest))
    }

    /// Stores the completed runs. Counts and returns the runs that have not been counted yet. If the status of a run
    /// was corrected, the new status is stored, but the run remains counted under the old status.
    fn add_completed(&mut self, listed: &[Run], index: &RunIndex) -> Vec<PastRun> {
        let (mut new, mut corrected) = (Vec::new(), Vec::new());
        // Older state files have no trail. Runs that are already known are then added to the empty trail.
        let lacks_trail = self.trail.is_empty();
        for run in listed.iter().filter(|run| run.has_ended()) {
            let ended = CompletedRun {
                key: run.key,
                status: run.status,
                end: run.end.or(run.dated.filter(|_| run.status.is_restore_point())),
                rank: run.rank(),
            };
            let position = index.find(run.key, run.start);
            if let Some(known) = position.and_then(|position| self.recent.get_mut(position)) {
                if lacks_trail || *known != ended {
                    corrected.push(PastRun::from(run));
                }
                *known = ended;
                continue;
            }
            let counted_before = ended.rank.time.is_some() && ended.rank.time <= self.evicted.until;
            if !counted_before {
                *self.ended.entry(run.status).or_default() += 1;
                self.recent.push(ended);
                new.push(PastRun::from(run));
            }
        }
        corrected.extend(new.iter().cloned());
        self.trail.add(corrected);
        new
    }

    /// Evicts the oldest runs that are no longer listed, and adds them to the summary.
    fn evict(&mut self, listed: &RunIndex) {
        self.recent.sort_by_key(|run| std::cmp::Reverse(run.rank));
        let mut unlisted = 0;
        let is_evicted = |run: &mut CompletedRun| {
            let is_listed = listed.find(run.key, run.rank.start).is_some();
            unlisted += usize::from(!is_listed);
            !is_listed && unlisted > RECENT_RUNS
        };
        let evicted: Vec<_> = self.recent.extract_if(.., is_evicted).collect();
        // Oldest first, so that a restore point resets the count of the failures before it.
        for run in evicted.iter().rev() {
            self.evicted.add(run);
        }
    }
}

impl EvictedRuns {
    fn add(&mut self, run: &CompletedRun) {
        self.until = self.until.max(run.rank.time);
        self.success = self.success.max(run.success());
        if run.restore_point() > self.restore_point {
            self.restore_point = run.restore_point();
            if self.newest_failure <= self.restore_point {
                self.failures = 0;
            }
        }
        if run.is_failure() && Some(run.rank) > self.restore_point {
            self.failures = self.failures.saturating_add(1);
            self.newest_failure = self.newest_failure.max(Some(run.rank));
        }
    }
}

/// Returns the newest of the runs for which `is_candidate` returns true. A row without a time, such as the placeholder
/// of a module that is waiting for configuration, is returned only if no candidate has a time.
fn newest(listed: &[Run], is_candidate: impl Fn(&Run) -> bool) -> Option<Run> {
    let candidates = listed.iter().filter(|run| is_candidate(run));
    let newest = candidates.max_by_key(|run| (run.rank(), run.status.severity()))?;
    Some(Run {
        id: None,
        ..newest.clone()
    })
}
