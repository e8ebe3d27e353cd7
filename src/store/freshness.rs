//! Freshness of stored data.

use std::sync::Arc;
use std::time::Duration;

use crate::collector::{CollectorId, Target};
use crate::domain::{Timestamp, labelled};
use crate::exposition::{Block, Metric, RecordView, Table};

/// Result of the latest poll, per collector and customer.
pub const COLLECTOR_SUCCESS: Metric = Metric::gauge(
    "elements_exporter_collector_success",
    "1 if the latest poll returned a complete response, 0 otherwise; customer_id is empty for a poll of all customers",
)
.dated()
.labels(FRESHNESS_LABELS);

/// Time of the last poll with a complete response, per collector and customer.
pub const COLLECTOR_LAST_SUCCESS: Metric = Metric::timestamp(
    "elements_exporter_collector_last_success_timestamp_seconds",
    "Latest poll with a complete response, Unix time; 0 if none yet",
)
.labels(FRESHNESS_LABELS);

const FRESHNESS_LABELS: &[&str] = &["collector", "customer_id"];

/// The freshness metrics that are exposed.
#[derive(Clone, Copy, Debug)]
pub(super) struct FreshnessMetrics {
    /// Whether [`COLLECTOR_SUCCESS`] is exposed.
    pub(super) success: bool,
    /// Whether [`COLLECTOR_LAST_SUCCESS`] is exposed.
    pub(super) last_success: bool,
}

impl FreshnessMetrics {
    pub(super) const ALL: Self = Self {
        success: true,
        last_success: true,
    };

    /// Returns the number of exposed metrics.
    pub(super) fn count(self) -> usize {
        usize::from(self.success) + usize::from(self.last_success)
    }
}

labelled! {
    /// State of a customer's data in one collector.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum State, label {
        /// The latest poll succeeded and is not older than `stale_after`.
        Fresh => "fresh",
        /// Neither forbidden nor unlicensed, and the last successful poll is older than `stale_after`.
        Stale => "stale",
        /// The latest poll failed or returned an incomplete response. The last successful poll is no older than
        /// `stale_after`, or there was none.
        Failed => "failed",
        /// The API denied the latest poll with status 403, or the permission is missing.
        Forbidden => "forbidden",
        /// The customer lacks the service that the collector polls.
        Unlicensed => "unlicensed",
        /// No poll has finished yet.
        Pending => "pending",
    }
}

impl State {
    /// Returns whether the latest poll failed or was denied, or the last successful poll is too old.
    pub fn is_outdated(self) -> bool {
        matches!(self, Self::Stale | Self::Failed | Self::Forbidden)
    }
}

/// Result of the latest poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Attempt {
    Pending,
    Succeeded,
    Failed,
    Forbidden,
    Unlicensed,
}

/// The error of the latest poll of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// The endpoint, and the error with its causes, without secrets or URLs. Long texts are truncated. Targets that
    /// fail one after another with the same error share the text.
    pub text: Arc<str>,
    /// End of the poll.
    pub at: Timestamp,
    /// Whether the API may be down: there was no response, or the response indicates an outage.
    pub is_outage: bool,
}

/// Freshness of one target.
#[derive(Clone, Debug)]
pub(super) struct Freshness {
    pub(super) attempt: Attempt,
    pub(super) last_success: Option<Timestamp>,
    /// Time of the latest poll if it found that the target lacks the service.
    pub(super) unlicensed_at: Option<Timestamp>,
    pub(super) tables: Arc<[Table]>,
    /// The error of the latest poll, if that poll failed after the exporter started.
    pub(super) error: Option<LastError>,
}

impl Freshness {
    pub(super) fn new(
        collector: CollectorId,
        target: &Target,
        attempt: Attempt,
        last_success: Option<Timestamp>,
        shown_metrics: FreshnessMetrics,
    ) -> Self {
        let labels = [("collector", collector.name()), ("customer_id", target.customer_id())];
        let success = f64::from(attempt == Attempt::Succeeded);
        let last = last_success.map_or(0.0, Timestamp::as_unix_seconds);
        let values = [
            shown_metrics.success.then_some(success),
            shown_metrics.last_success.then_some(last),
        ];
        let table = Table::single(&labels, &values);
        Self {
            attempt,
            last_success,
            unlicensed_at: None,
            tables: Arc::new([table]),
            error: None,
        }
    }

    pub(super) fn state(&self, stale_after: Duration, now: Timestamp) -> State {
        let is_stale = self.last_success.is_some_and(|success| now > success.plus(stale_after));
        match self.attempt {
            Attempt::Pending if self.last_success.is_none() => State::Pending,
            Attempt::Forbidden => State::Forbidden,
            Attempt::Unlicensed => State::Unlicensed,
            _ if is_stale => State::Stale,
            Attempt::Succeeded => State::Fresh,
            Attempt::Failed | Attempt::Pending => State::Failed,
        }
    }
}

impl Block for Vec<(Target, Freshness)> {
    fn record(&self, position: usize) -> Option<RecordView<'_>> {
        self.get(position).map(|(_, freshness)| RecordView {
            tables: &freshness.tables,
            good_at: None,
        })
    }
}
