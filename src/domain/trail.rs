//! The newest completed runs of a module or backup scope, for the customer page and `runs.json`. A trail lists
//! individual runs, whereas the rest of a [`History`](super::History) combines runs into one state. Trails are packed,
//! because there may be a million modules with twenty runs each.

mod packed;
#[cfg(test)]
mod tests;

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::run::Run;
use super::status::JobStatus;
use super::time::Timestamp;

/// Maximum number of stored runs per module or backup scope: nearly three weeks of daily runs, or five days of runs
/// every six hours. This is long enough for a support case about a run.
pub const TRAIL_RUNS: usize = 20;

/// A completed run. Times are whole seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastRun {
    /// The job id, which the vendor's support needs; `None` if the API returns none.
    pub id: Option<Box<str>>,
    /// Final status.
    pub status: JobStatus,
    /// Start time.
    pub start: Option<Timestamp>,
    /// End time.
    pub end: Option<Timestamp>,
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

impl From<&Run> for PastRun {
    fn from(run: &Run) -> Self {
        let whole = |at: Timestamp| Timestamp::from_unix_seconds(at.as_whole_unix_seconds());
        Self {
            id: run.id.clone(),
            status: run.status,
            start: run.start.map(whole),
            end: run.end.map(whole),
            processed: run.processed,
            successful: run.successful,
            failed: run.failed,
            skipped: run.skipped,
            warning: run.warning,
        }
    }
}

impl PastRun {
    /// Returns the end of the run or, if it has none, its start.
    pub fn occurred_at(&self) -> Option<Timestamp> {
        self.end.or(self.start)
    }

    /// Returns whether both values describe the same run. Runs with the same id must also have the same start, unless a
    /// start is missing. Runs without ids are compared by start, or by end if neither has a start.
    fn is_same(&self, other: &Self) -> bool {
        let starts = (self.start, other.start);
        match (&self.id, &other.id) {
            (Some(one), Some(other)) => {
                one == other && (starts.0 == starts.1 || starts.0.is_none() || starts.1.is_none())
            }
            (None, None) if starts.0.is_some() => starts.0 == starts.1,
            (None, None) => starts.1.is_none() && self.end == other.end,
            _ => false,
        }
    }
}

/// The newest completed runs of a module or backup scope, up to [`TRAIL_RUNS`].
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Trail(Box<[u8]>);

impl Trail {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the runs, newest first.
    pub(super) fn runs(&self) -> Vec<PastRun> {
        packed::unpack(&self.0).unwrap_or_default()
    }

    /// Adds runs in any order. A run that is already in the trail is replaced, for example if its status was corrected.
    pub(super) fn add(&mut self, runs: Vec<PastRun>) {
        if runs.is_empty() {
            return;
        }
        let mut newest = newest(runs);
        let known = self.runs().into_iter();
        let others: Vec<PastRun> = known
            .filter(|known| !newest.iter().any(|run| run.is_same(known)))
            .collect();
        newest.extend(others);
        self.0 = packed::pack(&self::newest(newest)).into();
    }
}

/// Returns at most [`TRAIL_RUNS`] runs, newest first.
fn newest(mut runs: Vec<PastRun>) -> Vec<PastRun> {
    runs.sort_by_key(|run| std::cmp::Reverse((run.occurred_at(), run.start)));
    runs.truncate(TRAIL_RUNS);
    runs
}

impl fmt::Debug for Trail {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.runs()).finish()
    }
}

impl Serialize for Trail {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Trail {
    /// Decodes a trail. A trail in an unknown format becomes empty, which does not affect metrics.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64_STANDARD.decode(text).ok();
        let known = bytes.filter(|bytes| packed::unpack(bytes).is_some());
        Ok(Self(known.unwrap_or_default().into()))
    }
}
