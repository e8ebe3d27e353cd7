//! Combines the lists of a module's runs: current state, latest completed run, latest restore point, failures since.
//!
//! Each response of the API lists the latest run of a module or several runs, in any order. A [`History`] absorbs each
//! list. It keeps values that must survive when a run is no longer listed, and the data needed to count each run once.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::run::{Places, Rank, Run, RunKey, distinct};
use super::status::JobStatus;
use super::time::Timestamp;
use super::trail::{PastRun, Trail};

/// Number of ended runs that are remembered in addition to those in the newest list, so that a run that disappears from
/// one list and reappears in the next is not counted twice. Replicas of the API differ by only one or two runs.
const REMEMBERED_RUNS: usize = 8;

/// The remembered part of an ended run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Ended {
    key: RunKey,
    status: JobStatus,
    end: Option<Timestamp>,
    rank: Rank,
}

impl Ended {
    /// Returns the position of the run, if it left a restore point with a known time.
    fn restore_point(&self) -> Option<Rank> {
        (self.end.is_some() && self.status.is_restore_point()).then_some(self.rank)
    }

    fn is_failure(&self) -> bool {
        self.status.counts_as_failure(self.end.is_some())
    }

    fn success(&self) -> Option<Timestamp> {
        self.end.filter(|_| self.status.is_success())
    }
}

/// Summary of ended runs that are no longer remembered individually.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Forgotten {
    /// The newest time among them. An unremembered run that is not newer has already been counted.
    until: Option<Timestamp>,
    success: Option<Timestamp>,
    restore_point: Option<Rank>,
    /// Failures among them after `restore_point`.
    failures: u64,
    newest_failure: Option<Rank>,
}

/// The known runs of one module or backup scope.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The newest row of the newest list.
    newest: Option<Run>,
    newest_ended: Option<Run>,
    listed: BTreeMap<JobStatus, u64>,
    ended: BTreeMap<JobStatus, u64>,
    remembered: Vec<Ended>,
    forgotten: Forgotten,
    /// Files of older versions lack it.
    #[serde(default, skip_serializing_if = "Trail::is_empty")]
    trail: Trail,
}

/// New information in a list of runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Absorbed {
    /// Number of duplicate rows of a run.
    pub duplicates: u64,
    /// Runs that have ended and were not counted before.
    pub ended: Vec<PastRun>,
}

impl History {
    /// Absorbs the listed runs of the module.
    pub fn absorb(&mut self, rows: Vec<Run>) -> Absorbed {
        let (mut runs, places, duplicates) = distinct(rows);
        let remembered = self.places();
        for run in runs.iter_mut().filter(|run| run.is_dated_by_sight()) {
            let known = remembered.find(run.key, run.start);
            let known = known.and_then(|place| self.remembered.get(place));
            run.dated = known.and_then(|known| known.rank.moment).or(run.dated);
        }
        self.listed.clear();
        for run in &runs {
            *self.listed.entry(run.status).or_default() += 1;
        }
        // The listed state is current, even if remembered runs ended later.
        self.newest = newest(&runs, |_| true).or_else(|| self.newest.take());
        self.newest_ended = self.latest_completed(&runs, &places);
        let ended = self.remember(&runs, &remembered);
        self.forget(&places);
        Absorbed { duplicates, ended }
    }

    /// Returns the newest runs that have ended, newest first.
    pub fn past_runs(&self) -> Vec<PastRun> {
        self.trail.runs()
    }

    /// Returns the newest row of the newest list.
    pub fn newest(&self) -> Option<&Run> {
        self.newest.as_ref()
    }

    /// Returns the latest completed run.
    pub fn newest_ended(&self) -> Option<&Run> {
        self.newest_ended.as_ref()
    }

    /// Returns the number of runs in the newest list by status.
    pub fn listed(&self) -> &BTreeMap<JobStatus, u64> {
        &self.listed
    }

    /// Returns the number of runs that have ended, by status; each run counts once.
    pub fn ended(&self) -> &BTreeMap<JobStatus, u64> {
        &self.ended
    }

    /// Returns whether a run has ended.
    pub fn has_run(&self) -> bool {
        self.newest_ended.is_some()
    }

    /// Returns the end of the newest run that ended Finished.
    pub fn last_success(&self) -> Option<Timestamp> {
        let remembered = self.remembered.iter().filter_map(Ended::success).max();
        remembered.max(self.forgotten.success)
    }

    /// Returns the end of the newest run that ended Finished or Finished with exception, which made the latest restore
    /// point.
    pub fn last_restore_point(&self) -> Option<Timestamp> {
        self.restore_point()?.moment
    }

    /// Returns how many runs ended since the latest restore point, without skipped ones.
    pub fn consecutive_failures(&self) -> u64 {
        let since = self.restore_point();
        let remembered = self.remembered.iter();
        let remembered = remembered
            .filter(|run| run.is_failure() && Some(run.rank) > since)
            .count();
        let forgotten = match self.forgotten.newest_failure > since {
            true => self.forgotten.failures,
            false => 0,
        };
        forgotten.saturating_add(u64::try_from(remembered).unwrap_or(u64::MAX))
    }

    /// Returns whether the newest run is older than `after`; `None` if no run with a date is known.
    pub fn is_abandoned(&self, now: Timestamp, after: Duration) -> Option<bool> {
        let in_progress = self.newest.as_ref().filter(|run| !run.has_ended());
        let started = in_progress.and_then(|run| run.start);
        let took_place = self.newest_ended.as_ref().and_then(Run::took_place).max(started)?;
        Some(now.since(took_place) > after)
    }

    /// Returns whether an objective applies to the listed state. None applies while it is disabled, or before the first
    /// run of a module that is not configured.
    pub fn expects_backups(&self) -> bool {
        match self.newest.as_ref().map(|run| run.status) {
            None | Some(JobStatus::Disabled) => false,
            Some(
                JobStatus::None | JobStatus::NotScanned | JobStatus::NotStarted | JobStatus::WaitingForConfiguration,
            ) => self.has_run(),
            Some(_) => true,
        }
    }

    /// Returns when the newest state became pending; `None` if it is not.
    pub fn pending_since(&self) -> Option<Timestamp> {
        let newest = self.newest.as_ref()?;
        let waits = match newest.status {
            JobStatus::Pending => true,
            JobStatus::Running => newest.start.is_none(),
            _ => false,
        };
        newest.modified.filter(|_| waits)
    }

    /// Returns the newest time of any run; `None` if no run has a date.
    pub fn last_known(&self) -> Option<Timestamp> {
        let moment = |run: &Option<Run>| run.as_ref().and_then(Run::moment);
        moment(&self.newest).max(moment(&self.newest_ended))
    }

    /// Returns the position of the run of the latest restore point.
    fn restore_point(&self) -> Option<Rank> {
        let remembered = self.remembered.iter().filter_map(Ended::restore_point).max();
        remembered.max(self.forgotten.restore_point)
    }

    fn places(&self) -> Places {
        let mut places = Places::default();
        for (place, run) in self.remembered.iter().enumerate() {
            places.insert(run.key, run.rank.start, place);
        }
        places
    }

    /// Returns the newest ended run of the list, or the previously known one if that is newer. A known run that is
    /// listed again is replaced by its new row.
    fn latest_completed(&mut self, runs: &[Run], places: &Places) -> Option<Run> {
        let before = self.newest_ended.take();
        let Some(newest) = newest(runs, Run::has_ended) else {
            return before;
        };
        let kept = before.filter(|before| {
            let relisted = places.find(before.key, before.start).and_then(|place| runs.get(place));
            let relisted = relisted.is_some_and(Run::has_ended);
            !relisted && newest.moment().is_some() && before.rank() > newest.rank()
        });
        kept.or(Some(newest))
    }

    /// Remembers the ended runs, and counts those that have not been counted, which it returns. If the status of a run
    /// was corrected, the new status is remembered, but its count stays under the old one.
    fn remember(&mut self, listed: &[Run], places: &Places) -> Vec<PastRun> {
        let (mut new, mut corrected) = (Vec::new(), Vec::new());
        // A state file of an older version has no trail.
        let lacks_trail = self.trail.is_empty();
        for run in listed.iter().filter(|run| run.has_ended()) {
            let ended = Ended {
                key: run.key,
                status: run.status,
                end: run.end.or(run.dated.filter(|_| run.status.is_restore_point())),
                rank: run.rank(),
            };
            let place = places.find(run.key, run.start);
            if let Some(known) = place.and_then(|place| self.remembered.get_mut(place)) {
                if lacks_trail || *known != ended {
                    corrected.push(PastRun::from(run));
                }
                *known = ended;
                continue;
            }
            let counted_before = ended.rank.moment.is_some() && ended.rank.moment <= self.forgotten.until;
            if !counted_before {
                *self.ended.entry(run.status).or_default() += 1;
                self.remembered.push(ended);
                new.push(PastRun::from(run));
            }
        }
        corrected.extend(new.iter().cloned());
        self.trail.add(corrected);
        new
    }

    /// Evicts the oldest runs that are no longer listed, and adds them to the summary.
    fn forget(&mut self, listed: &Places) {
        self.remembered.sort_by_key(|run| std::cmp::Reverse(run.rank));
        let mut unlisted = 0;
        let forgotten = &mut self.forgotten;
        self.remembered.retain(|run| {
            if listed.find(run.key, run.rank.start).is_some() {
                return true;
            }
            unlisted += 1;
            if unlisted <= REMEMBERED_RUNS {
                return true;
            }
            forgotten.add(run);
            false
        });
    }
}

impl Forgotten {
    fn add(&mut self, run: &Ended) {
        self.until = self.until.max(run.rank.moment);
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

/// Returns the newest of the runs for which `counts` is true. A row without a time, such as the placeholder of a module
/// that waits for configuration, is the newest only if the list has no other.
fn newest(listed: &[Run], counts: impl Fn(&Run) -> bool) -> Option<Run> {
    let counting = listed.iter().filter(|run| counts(run));
    let newest = counting.max_by_key(|run| (run.rank(), run.status.severity()))?;
    Some(Run {
        id: None,
        ..newest.clone()
    })
}
