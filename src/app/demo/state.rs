//! Initial state of the demo: a state file like that of an exporter that has been running for days.

use std::path::PathBuf;

use tempfile::TempDir;
use tracing::warn;

use super::past::PastExporter;
use crate::app::Error;
use crate::app::saver::invalid_state_file;
use crate::args;
use crate::collector::CollectorId;
use crate::store::state_file::StateFile;

/// Minimum number of seconds between two polls of a customer: as many as in a backfill, because the number of failures
/// that a poll counts depends on the time since the previous poll.
const STEP: u32 = super::backfill::STEP * 3600;

/// Hours of run history at startup. Every module that has ever been backed up, even in a scenario, has a restore point
/// within these hours.
const HOURS: u32 = 81;

/// Maximum total number of polls after each customer's first, so that a demo with many customers starts quickly. The
/// more customers there are, the less often each is polled. If fewer than [`MIN_STEPS`] of these polls would remain for
/// each customer, no state is prepared.
const MAX_POLLS: usize = 3000;

/// Minimum number of polls of each customer after the first.
const MIN_STEPS: usize = 4;

/// Collectors whose records are prepared. Only the records of `jobs` depend on earlier polls.
const COLLECTORS: &[&str] = &["customers", "jobs"];

/// A state file in a temporary directory. Dropping this value deletes the directory.
pub(super) struct PreparedState {
    directory: TempDir,
}

impl PreparedState {
    /// Simulates polls over the days before `now`, and saves the resulting state. Returns `None` if there are too many
    /// customers.
    ///
    /// # Errors
    /// Returns an error if the simulated partner cannot be started, or if the file cannot be written, for example in a
    /// read-only container.
    pub(super) async fn create(options: &args::Simulator, now: i64) -> Result<Option<Self>, Error> {
        let Some(steps) = steps(options.customers) else {
            return Ok(None);
        };
        let temporary = std::env::temp_dir();
        let directory = tempfile::Builder::new().prefix("elements-demo-").tempdir();
        let prepared = Self {
            directory: directory.map_err(|source| Error::Write {
                path: temporary,
                source,
            })?,
        };
        let seconds = HOURS * 3600 / steps;
        let begin = now - i64::from(seconds * steps);
        let mut exporter = PastExporter::start(options, COLLECTORS, begin, now).await?;
        exporter.poll([CollectorId::CUSTOMERS, CollectorId::JOBS]).await;
        for _ in 0..steps {
            exporter.advance(seconds);
            exporter.poll([CollectorId::JOBS]).await;
        }
        let in_file = |error| invalid_state_file(&error);
        let file = StateFile::open(prepared.path()).map_err(in_file)?;
        exporter.store().saved_state().save(&file).map_err(in_file)?;
        Ok(Some(prepared))
    }

    /// Like [`PreparedState::create`], but only logs a warning if it fails: the demo works without the state.
    pub(super) async fn create_or_warn(options: &args::Simulator, now: i64) -> Option<Self> {
        match Self::create(options, now).await {
            Ok(prepared) => prepared,
            Err(error) => {
                warn!(error = %error, "cannot prepare the demo's state; starting without earlier runs");
                None
            }
        }
    }

    /// Returns the path of the state file.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("state.json")
    }
}

/// Returns the number of polls per customer after the first; `None` if it is below [`MIN_STEPS`].
fn steps(customers: usize) -> Option<u32> {
    let affordable = MAX_POLLS / customers.max(1);
    let most = u32::try_from(affordable).unwrap_or(u32::MAX).min(HOURS * 3600 / STEP);
    (affordable >= MIN_STEPS).then_some(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_are_frequent_for_few_customers_and_limited_for_many() {
        assert_eq!(steps(0), Some(27));
        assert_eq!(steps(75), Some(27));
        assert_eq!(steps(500), Some(6));
        assert_eq!(steps(750), Some(4));
        assert_eq!(steps(751), None);
    }
}
