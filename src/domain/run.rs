//! One run of a module or backup scope, parsed from a row of the job list.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::quantity::Size;
use super::status::JobStatus;
use super::text::stable_hash;
use super::time::Timestamp;

/// A run, as described by one row of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Key that, together with the start, identifies the run within its module or backup scope.
    pub key: RunKey,
    /// Id of the run. A history stores ids only in its trail.
    #[serde(skip)]
    pub id: Option<Box<str>>,
    /// Id with which the run's report is requested; `None` if the run has no report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Box<str>>,
    /// Status of the run.
    pub status: JobStatus,
    /// Start time.
    pub start: Option<Timestamp>,
    /// End time; for some runs without times, the last modification. An end in the future is replaced by the current
    /// time, or dropped if clock skew cannot explain it.
    pub end: Option<Timestamp>,
    /// Assumed end, if the run has ended but its row has no end.
    #[serde(default)]
    pub dated: Option<Timestamp>,
    /// Time of the last modification.
    pub modified: Option<Timestamp>,
    /// Duration according to the API.
    pub duration: Option<Duration>,
    /// Bytes backed up.
    pub backup_size: Option<Size>,
    /// Objects processed.
    pub processed: Option<u64>,
    /// Objects backed up.
    pub successful: Option<u64>,
    /// Objects that failed.
    pub failed: Option<u64>,
    /// Objects that were skipped.
    pub skipped: Option<u64>,
    /// Objects with a warning.
    pub warning: Option<u64>,
}

/// A hash that identifies a run. The hash function must not change, because its results are stored in state files. Runs
/// with the same id are distinguished by their starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunKey(u64);

impl RunKey {
    /// Returns the key of a run: the hash of its id or, without an id, of its start or end.
    pub fn new(id: Option<&str>, start: Option<Timestamp>, end: Option<Timestamp>) -> Self {
        Self(match (id, start, end) {
            (Some(id), _, _) => stable_hash(id),
            (None, Some(start), _) => stable_hash(&format!("start {start:?}")),
            (None, None, end) => stable_hash(&format!("end {end:?}")),
        })
    }
}

impl Default for RunKey {
    /// Returns the key of a run without an id or times.
    fn default() -> Self {
        Self::new(None, None, None)
    }
}

/// Sort key of a run: its end, last modification and start. If a run has no end, its last known time is used instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Rank {
    #[serde(rename = "moment")]
    pub(super) time: Option<Timestamp>,
    pub(super) modified: Option<Timestamp>,
    pub(super) start: Option<Timestamp>,
}

impl Run {
    pub(super) fn rank(&self) -> Rank {
        Rank {
            time: self.last_known_time(),
            modified: self.modified,
            start: self.start,
        }
    }

    /// Returns the last known time of the run; `None` if no time is known or assumed, as for the placeholder of a
    /// module that has never run.
    pub(super) fn last_known_time(&self) -> Option<Timestamp> {
        self.end.or(self.dated).or(self.modified).or(self.start)
    }

    /// Returns the end of the run or, if it has none, its start or assumed end. The last modification is not used,
    /// because it is the same for all backup scopes of a module.
    pub fn occurred_at(&self) -> Option<Timestamp> {
        self.end.or(self.start).or(self.dated)
    }

    /// Returns whether the row of the run has no times, so that its assumed end is the time of the first poll that
    /// returned it.
    pub(super) fn is_dated_by_first_poll(&self) -> bool {
        self.dated.is_some() && self.end.or(self.modified).or(self.start).is_none()
    }

    /// Returns whether the run has ended.
    pub fn has_ended(&self) -> bool {
        self.status.has_ended(self.end.is_some())
    }

    /// Returns whether the run is queued, or has started but not ended.
    pub fn is_in_progress(&self) -> bool {
        matches!(self.status, JobStatus::Pending | JobStatus::Running) || self.start.is_some() && !self.has_ended()
    }
}

/// Positions of runs in a list, by key and start. A row without a start matches any row with the same key.
#[derive(Debug, Default)]
pub(super) struct RunIndex {
    exact: BTreeMap<(RunKey, Option<i64>), usize>,
    by_key: BTreeMap<RunKey, usize>,
}

impl RunIndex {
    pub(super) fn find(&self, key: RunKey, start: Option<Timestamp>) -> Option<usize> {
        let exact = |second| self.exact.get(&(key, second)).copied();
        match start.map(Timestamp::as_whole_unix_seconds) {
            None => self.by_key.get(&key).copied(),
            second => exact(second).or_else(|| exact(None)),
        }
    }

    pub(super) fn insert(&mut self, key: RunKey, start: Option<Timestamp>, position: usize) {
        let second = start.map(Timestamp::as_whole_unix_seconds);
        if second.is_some() && self.exact.get(&(key, None)) == Some(&position) {
            // The row without a start belongs to this run, so it must not match another run with the same id.
            self.exact.remove(&(key, None));
        }
        self.exact.insert((key, second), position);
        self.by_key.entry(key).or_insert(position);
    }
}

/// Merges rows of the same run. A row in which the run has ended takes precedence; otherwise, the row with the worse
/// status applies. Returns the runs, their index, and the number of duplicate rows.
pub(super) fn distinct(rows: Vec<Run>) -> (Vec<Run>, RunIndex, u64) {
    let mut runs: Vec<Run> = Vec::with_capacity(rows.len());
    let mut index = RunIndex::default();
    let mut duplicates = 0;
    for row in rows {
        let position = index.find(row.key, row.start);
        match position.and_then(|position| Some((position, runs.get_mut(position)?))) {
            None => {
                index.insert(row.key, row.start, runs.len());
                runs.push(row);
            }
            Some((position, known)) => {
                duplicates += 1;
                if row.start.is_some() {
                    index.insert(row.key, row.start, position);
                }
                let precedence = |run: &Run| (run.has_ended(), run.status.severity());
                if precedence(&row) > precedence(known) {
                    *known = row;
                }
            }
        }
    }
    (runs, index, duplicates)
}
