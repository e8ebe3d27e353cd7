//! A run of a module, and the rows of modules without runs.

use std::collections::BTreeMap;

use serde_json::Value;

use super::rng::SeededRng;

/// The API's text for an absent value.
pub(crate) const ABSENT: &str = "N/A";

/// Size of a run that stored nothing, and of every Microsoft 365 run.
pub(crate) const NO_SIZE: &str = "0 GB";

/// Status numbers that the simulator uses, as listed in the vendor's reference.
pub(crate) mod status {
    pub(crate) const RUNNING: i64 = 1;
    pub(crate) const FINISHED: i64 = 2;
    pub(crate) const FAILED: i64 = 3;
    pub(crate) const FINISHED_WITH_EXCEPTION: i64 = 4;
    pub(crate) const SKIPPED: i64 = 5;
    pub(crate) const PENDING: i64 = 6;
    pub(crate) const FAILED_TO_START: i64 = 7;
    pub(crate) const CANCELED: i64 = 8;
    pub(crate) const REJECTED: i64 = 9;
    pub(crate) const STOPPED: i64 = 10;
    pub(crate) const DISABLED: i64 = 12;
    pub(crate) const NOT_STARTED: i64 = 13;
}

/// A run of a module. Each API version formats it differently.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// Job id; `N/A` for some runs.
    pub id: String,
    /// Job name, which is the backup scope; `N/A` for services without scopes.
    pub name: String,
    /// Status number. Numbers that are not in the reference are sent unchanged.
    pub status: i64,
    /// Number of processed objects.
    pub total: u64,
    /// Number of failed objects.
    pub failed: u64,
    /// Number of objects that were backed up.
    pub successful: u64,
    /// Number of skipped objects.
    pub skipped: u64,
    /// Number of objects with a warning.
    pub warning: u64,
    /// Size in the API's format, such as `5.01 GB`.
    pub backup_size: String,
    /// Start of the run, as Unix time.
    pub start: Option<i64>,
    /// End of the run, as Unix time.
    pub end: Option<i64>,
    /// Time of the last modification, as Unix time.
    pub last_modified: Option<i64>,
    /// Fields to add to the row's JSON, replacing fields with the same names.
    pub raw_fields: BTreeMap<String, Value>,
    /// Slot in the schedule, used to update an unfinished run; `None` if the run has ended or is not from a schedule.
    pub slot: Option<i64>,
}

impl Run {
    /// Returns a row with a status and no other values.
    #[must_use]
    pub fn bare(status: i64) -> Self {
        Self {
            id: ABSENT.to_owned(),
            name: ABSENT.to_owned(),
            status,
            backup_size: NO_SIZE.to_owned(),
            ..Self::default()
        }
    }

    /// Returns the row of a module without runs.
    pub(crate) fn not_started() -> Self {
        Self::bare(status::NOT_STARTED)
    }

    /// Returns the row of a module that was disabled at the Unix time `since`.
    pub(crate) fn disabled(since: i64) -> Self {
        Self {
            last_modified: Some(since),
            ..Self::bare(status::DISABLED)
        }
    }

    /// Returns the row of an object scan, which has only a status.
    pub(crate) fn scan(status: i64) -> Self {
        const COUNTS: [&str; 6] = [
            "totalCount",
            "failedCount",
            "successfulCount",
            "skippedCount",
            "warningCount",
            "backupSize",
        ];
        Self {
            raw_fields: COUNTS.map(|name| (name.to_owned(), ABSENT.into())).into(),
            ..Self::bare(status)
        }
    }

    /// Returns the Unix time by which runs are sorted.
    pub(crate) fn instant(&self) -> Option<i64> {
        self.start.or(self.last_modified).or(self.end)
    }

    /// Returns whether the run created a restore point.
    pub(crate) fn is_restore_point(&self) -> bool {
        matches!(self.status, status::FINISHED | status::FINISHED_WITH_EXCEPTION)
    }

    /// Sets the counts of a run that has ended, according to its status.
    pub(crate) fn count(&mut self, objects: u64, rng: &mut SeededRng) {
        use status::*;
        let total = objects
            .saturating_sub(objects / 20)
            .saturating_add(rng.below(objects / 10 + 1));
        match self.status {
            FINISHED => {
                self.warning = if rng.chance(10) { rng.below(total / 50 + 1) } else { 0 };
                self.successful = total - self.warning;
            }
            FINISHED_WITH_EXCEPTION => {
                self.failed = rng.between(1, total / 20 + 1).min(total);
                self.skipped = rng.below(3).min(total - self.failed);
                self.successful = total - self.failed - self.skipped;
            }
            // Some runs fail before they process any objects.
            FAILED => self.failed = if rng.chance(50) { total } else { 0 },
            SKIPPED => self.skipped = total,
            CANCELED | STOPPED => self.successful = total / 2,
            _ => {}
        }
        self.total = self.failed + self.successful + self.skipped + self.warning;
    }
}
