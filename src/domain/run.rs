//! One run of a module or backup scope, as in a row of the list of jobs.

use std::collections::BTreeMap;
use std::time::Duration;

use ring::digest;
use serde::{Deserialize, Serialize};

use super::quantity::Size;
use super::status::JobStatus;
use super::time::Timestamp;

/// One row of a list of runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Identifies the run among those of its module, together with its start.
    pub key: RunKey,
    /// Its id, while it is in a list; the trail of the history keeps it.
    #[serde(skip)]
    pub id: Option<Box<str>>,
    /// Its job id, if it has a report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Box<str>>,
    /// Its status.
    pub status: JobStatus,
    /// Its start.
    pub start: Option<Timestamp>,
    /// Its end. Parsers drop an end in the future.
    pub end: Option<Timestamp>,
    /// Its earliest possible end, if the row reports an end without a time.
    #[serde(default)]
    pub dated: Option<Timestamp>,
    /// Its last modification.
    pub modified: Option<Timestamp>,
    /// Its duration according to the API.
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

/// A hash of a run's id or, without an id, of its start. The hash never changes, because state files contain keys. Two
/// runs with one id are distinguished by their starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunKey(u64);

impl RunKey {
    /// Returns the key of a run: of its id, otherwise of its start, otherwise of its end.
    pub fn new(id: Option<&str>, start: Option<Timestamp>, end: Option<Timestamp>) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        match (id, start, end) {
            (Some(id), _, _) => hash.update(id.as_bytes()),
            (None, Some(start), _) => hash.update(format!("start {start:?}").as_bytes()),
            (None, None, end) => hash.update(format!("end {end:?}").as_bytes()),
        }
        let half = hash
            .finish()
            .as_ref()
            .iter()
            .take(8)
            .fold(0, |key, byte| key << 8 | u64::from(*byte));
        Self(half)
    }
}

/// Position of a run: by end, then last modification, then start. A run without an end is sorted by its last known
/// time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Rank {
    pub(super) moment: Option<Timestamp>,
    pub(super) modified: Option<Timestamp>,
    pub(super) start: Option<Timestamp>,
}

impl Run {
    pub(super) fn rank(&self) -> Rank {
        Rank {
            moment: self.moment(),
            modified: self.modified,
            start: self.start,
        }
    }

    /// Returns the last known time of the run; `None` for the placeholder of a module that never ran.
    pub(super) fn moment(&self) -> Option<Timestamp> {
        self.end.or(self.dated).or(self.modified).or(self.start)
    }

    /// Returns when the run took place, from the times of the run itself: its end, or its start. The last modification
    /// does not count, because all backup scopes of a module share it.
    pub fn took_place(&self) -> Option<Timestamp> {
        self.end.or(self.start).or(self.dated)
    }

    /// Returns whether the run is dated by when it was first seen, because its row has no time.
    pub(super) fn is_dated_by_sight(&self) -> bool {
        self.dated.is_some() && self.end.or(self.modified).or(self.start).is_none()
    }

    /// Returns whether the run has ended.
    pub fn has_ended(&self) -> bool {
        self.status.has_ended(self.end.is_some())
    }

    /// Returns whether the run is queued, or has started and not ended.
    pub fn is_in_progress(&self) -> bool {
        matches!(self.status, JobStatus::Pending | JobStatus::Running) || self.start.is_some() && !self.has_ended()
    }
}

/// Position of runs in a list, by key and start. A row without a start matches any row with its key.
#[derive(Debug, Default)]
pub(super) struct Places {
    exact: BTreeMap<(RunKey, Option<i64>), usize>,
    by_key: BTreeMap<RunKey, usize>,
}

impl Places {
    pub(super) fn find(&self, key: RunKey, start: Option<Timestamp>) -> Option<usize> {
        let exact = |second| self.exact.get(&(key, second)).copied();
        match start.map(Timestamp::as_whole_unix_seconds) {
            None => self.by_key.get(&key).copied(),
            second => exact(second).or_else(|| exact(None)),
        }
    }

    pub(super) fn insert(&mut self, key: RunKey, start: Option<Timestamp>, place: usize) {
        let second = start.map(Timestamp::as_whole_unix_seconds);
        if second.is_some() && self.exact.get(&(key, None)) == Some(&place) {
            // The row without a start belongs to this run, and not to another with the same id.
            self.exact.remove(&(key, None));
        }
        self.exact.insert((key, second), place);
        self.by_key.entry(key).or_insert(place);
    }
}

/// Merges the rows of one run. A row that has ended takes precedence, then the worse status. Also returns the number of
/// duplicate rows.
pub(super) fn distinct(rows: Vec<Run>) -> (Vec<Run>, Places, u64) {
    let mut runs: Vec<Run> = Vec::with_capacity(rows.len());
    let mut places = Places::default();
    let mut duplicates = 0;
    for row in rows {
        let place = places.find(row.key, row.start);
        match place.and_then(|place| Some((place, runs.get_mut(place)?))) {
            None => {
                places.insert(row.key, row.start, runs.len());
                runs.push(row);
            }
            Some((place, known)) => {
                duplicates += 1;
                if row.start.is_some() {
                    places.insert(row.key, row.start, place);
                }
                // A row with an end is more complete; otherwise the worse status counts.
                let weight = |run: &Run| (run.has_ended(), run.status.severity());
                if weight(&row) > weight(known) {
                    *known = row;
                }
            }
        }
    }
    (runs, places, duplicates)
}
