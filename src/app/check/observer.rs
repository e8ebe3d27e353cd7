//! Records events during the check, and limits how long each step may take.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::api::{Endpoint, Observer, auth};
use crate::domain::{self, counted};
use crate::lock::lock;

/// Time between progress messages while waiting.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Everything recorded during the check.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) invalid_values: BTreeMap<(&'static str, &'static str), String>,
    pub(super) unknown: BTreeMap<(&'static str, &'static str), String>,
    pub(super) counts: Counts,
}

/// Event counts and total response time so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: u64,
    /// Repeated attempts; `requests` includes them.
    pub(super) retries: u64,
    /// Responses with status 429.
    pub(super) throttled: u64,
    pub(super) rows: usize,
    /// Number of requests other than token requests; `response_time` is their total response time.
    pub(super) data_requests: u32,
    pub(super) response_time: Duration,
}

#[derive(Debug, Default)]
pub(super) struct CheckObserver(Mutex<Notes>);

impl CheckObserver {
    pub(super) fn notes(&self) -> MutexGuard<'_, Notes> {
        lock(&self.0)
    }

    pub(super) fn counts(&self) -> Counts {
        self.notes().counts
    }
}

impl Observer for CheckObserver {
    fn request(&self, endpoint: Endpoint, _status: Option<u16>, took: Duration) {
        let mut notes = self.notes();
        notes.counts.requests += 1;
        if endpoint != Endpoint::Token {
            notes.counts.data_requests += 1;
            notes.counts.response_time += took;
        }
    }

    fn retry(&self, _endpoint: Endpoint) {
        self.notes().counts.retries += 1;
    }

    fn throttled(&self, endpoint: Endpoint) {
        self.notes().counts.throttled += 1;
        warn!(endpoint = endpoint.as_str(), "throttled (429); pausing requests");
    }

    fn rows(&self, _endpoint: Endpoint, rows: usize) {
        self.notes().counts.rows += rows;
    }

    fn decode_error(&self, endpoint: Endpoint, field: &'static str, shape: &str) {
        self.notes()
            .invalid_values
            .insert((endpoint.as_str(), field), shape.to_owned());
    }

    fn unknown_value(&self, endpoint: Endpoint, field: &'static str, value: &str) {
        let value = domain::log_safe(value);
        self.notes().unknown.insert((endpoint.as_str(), field), value);
    }

    fn duplicate_rows(&self, _endpoint: Endpoint, _rows: u64) {}

    fn token_failure(&self, _error: &auth::Error) {}

    fn token(&self, _expires_in: Duration) {}
}

/// Waits for a future up to a time limit, and logs progress.
pub(super) async fn within<T>(
    limit: Duration,
    what: &str,
    observer: &CheckObserver,
    future: impl Future<Output = T>,
) -> Result<T, String> {
    let before = observer.counts();
    let began = Instant::now();
    let mut future = std::pin::pin!(future);
    loop {
        let left = limit.saturating_sub(began.elapsed());
        if let Ok(result) = tokio::time::timeout(PROGRESS_INTERVAL.min(left), &mut future).await {
            return Ok(result);
        }
        if began.elapsed() < limit {
            info!(what, waited = ?began.elapsed(), "still waiting");
            continue;
        }
        let limit = humantime::format_duration(limit);
        return Err(match observer.counts().throttled - before.throttled {
            0 => format!("did not finish within {limit}; try again later"),
            pauses => format!(
                "did not finish within {limit}; the API throttled {} (429); try again later, or lower \
                 api.requests_per_second",
                counted(pauses, "attempt", "attempts")
            ),
        });
    }
}
