//! The exporter's own health: heartbeat, readiness, and metrics.
//!
//! Counters and histograms are stored in a prometheus-client registry. All other values are read from their source at
//! scrape time, so that they cannot be outdated.

mod process;
mod text_format;

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric as Registered, Registry};
use tracing::warn;

use crate::api::{Endpoint, Observer, auth};
use crate::build_info::{REVISION, RUSTVERSION, VERSION};
use crate::domain::log_safe;
use crate::error_chain::error_chain;
use crate::exposition::{ExcludedMetrics, Format, Metric};
use crate::lock::lock;
use text_format::as_text_format;

/// Time without a heartbeat after which the poll loop counts as stalled. The loop iterates at least once per second and
/// never waits for I/O.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(30);

/// Maximum number of distinct values that are logged, so that a faulty server cannot flood the log.
const MAX_LOGGED_VALUES: usize = 200;

const ENDPOINT: &[&str] = &["endpoint"];
const ENDPOINT_FIELD: &[&str] = &["endpoint", "field"];

const BUILD_INFO: Metric = Metric::info("elements_exporter_build_info", "Build of the exporter").labels(&[
    "version",
    "revision",
    "rustversion",
]);
const API_REQUESTS: Metric = Metric::counter(
    "elements_exporter_api_requests_total",
    "Request attempts by status code; code is 0 if there was no response",
)
.labels(&["endpoint", "code"]);
const API_REQUEST_DURATION: Metric = Metric::histogram(
    "elements_exporter_api_request_duration_seconds",
    "Duration of request attempts",
)
.labels(ENDPOINT);
const API_ERRORS: Metric = Metric::counter(
    "elements_exporter_api_errors_total",
    "Polls without a complete response, by endpoint and reason",
)
.labels(&["endpoint", "reason"]);
const API_THROTTLED: Metric = Metric::counter(
    "elements_exporter_api_throttled_total",
    "Request attempts rejected with status 429",
)
.labels(ENDPOINT);
const API_RETRIES: Metric = Metric::counter("elements_exporter_api_retries_total", "Request retries").labels(ENDPOINT);
const TOKEN_FAILURES: Metric = Metric::counter(
    "elements_exporter_token_failures_total",
    "Failed token requests by reason",
)
.labels(&["reason"]);
const DECODE_ERRORS: Metric = Metric::counter(
    "elements_exporter_decode_errors_total",
    "Field values dropped because they could not be parsed",
)
.labels(ENDPOINT_FIELD);
const UNKNOWN_VALUES: Metric = Metric::counter(
    "elements_exporter_unknown_values_total",
    "Field values missing from the vendor's reference",
)
.labels(ENDPOINT_FIELD);
const DUPLICATE_ROWS: Metric = Metric::counter(
    "elements_exporter_duplicate_rows_total",
    "Rows that repeat the labels of another row",
)
.labels(ENDPOINT);
const SERIES_DROPPED: Metric = Metric::counter(
    "elements_exporter_series_dropped_total",
    "Series rejected because of metrics.series_limit",
);
const STATE_SAVE_FAILURES: Metric = Metric::counter(
    "elements_exporter_state_save_failures_total",
    "Failed saves of the state file",
);
const POLL_OVERRUNS: Metric = Metric::counter(
    "elements_exporter_poll_overruns_total",
    "Polls skipped because the previous poll was late",
)
.labels(&["collector"])
.experimental();

/// Metrics in the registry, for the catalogue.
pub const REGISTERED: &[Metric] = &[
    BUILD_INFO,
    API_REQUESTS,
    API_REQUEST_DURATION,
    API_ERRORS,
    API_THROTTLED,
    API_RETRIES,
    TOKEN_FAILURES,
    DECODE_ERRORS,
    UNKNOWN_VALUES,
    DUPLICATE_ROWS,
    SERIES_DROPPED,
    STATE_SAVE_FAILURES,
    POLL_OVERRUNS,
];

/// Metrics of the process, for the catalogue.
pub const PROCESS: &[Metric] = process::METRICS;

/// A fixed number of labels with their values.
type Labels<const N: usize> = [(&'static str, &'static str); N];

fn endpoint_labels(endpoint: Endpoint) -> Labels<1> {
    [("endpoint", endpoint.as_str())]
}

fn field_labels(endpoint: Endpoint, field: &'static str) -> Labels<2> {
    [("endpoint", endpoint.as_str()), ("field", field)]
}

fn reason_labels(endpoint: Endpoint, reason: &'static str) -> Labels<2> {
    [("endpoint", endpoint.as_str()), ("reason", reason)]
}

type Durations = Family<Labels<1>, Histogram, fn() -> Histogram>;

/// Health of the exporter itself.
#[derive(Debug)]
pub struct Health {
    registry: Registry,
    requests: Family<[(&'static str, Cow<'static, str>); 2], Counter>,
    durations: Durations,
    errors: Family<Labels<2>, Counter>,
    // The next two counters are not exported. They are needed because a `Family` does not list its label sets, so the
    // counters above cannot be summed.
    requests_of_endpoint: Family<Labels<1>, Counter>,
    errors_of_endpoint: Family<Labels<1>, Counter>,
    throttled: Family<Labels<1>, Counter>,
    retries: Family<Labels<1>, Counter>,
    token_failures: Family<Labels<1>, Counter>,
    decode_errors: Family<Labels<2>, Counter>,
    unknown_values: Family<Labels<2>, Counter>,
    duplicate_rows: Family<Labels<1>, Counter>,
    series_dropped: Counter,
    save_failures: Counter,
    overruns: Family<Labels<1>, Counter>,
    started: Instant,
    beat: AtomicU64,
    ready: AtomicBool,
    logged_values: Mutex<HashSet<(Endpoint, &'static str, String)>>,
}

/// Request totals of several endpoints since startup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestTotals {
    /// Request attempts.
    pub requests: u64,
    /// Polls without a complete response.
    pub errors: u64,
    /// Attempts with status 429.
    pub throttled: u64,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Returns the health of an exporter that is not ready, with all counters at zero and a current heartbeat.
    pub fn new() -> Self {
        let mut health = Self {
            registry: Registry::default(),
            requests: Family::default(),
            durations: Durations::new_with_constructor(|| Histogram::new(exponential_buckets(0.01, 2.0, 13))),
            errors: Family::default(),
            requests_of_endpoint: Family::default(),
            errors_of_endpoint: Family::default(),
            throttled: Family::default(),
            retries: Family::default(),
            token_failures: Family::default(),
            decode_errors: Family::default(),
            unknown_values: Family::default(),
            duplicate_rows: Family::default(),
            series_dropped: Counter::default(),
            save_failures: Counter::default(),
            overruns: Family::default(),
            started: Instant::now(),
            beat: AtomicU64::new(0),
            ready: AtomicBool::new(false),
            logged_values: Mutex::new(HashSet::new()),
        };
        let build = Info::new(vec![
            ("version", VERSION),
            ("revision", REVISION),
            ("rustversion", RUSTVERSION),
        ]);
        health.register(BUILD_INFO, build);
        health.register(API_REQUESTS, health.requests.clone());
        health.register(API_REQUEST_DURATION, health.durations.clone());
        health.register(API_ERRORS, health.errors.clone());
        health.register(API_THROTTLED, health.throttled.clone());
        health.register(API_RETRIES, health.retries.clone());
        health.register(TOKEN_FAILURES, health.token_failures.clone());
        health.register(DECODE_ERRORS, health.decode_errors.clone());
        health.register(UNKNOWN_VALUES, health.unknown_values.clone());
        health.register(DUPLICATE_ROWS, health.duplicate_rows.clone());
        health.register(SERIES_DROPPED, health.series_dropped.clone());
        health.register(STATE_SAVE_FAILURES, health.save_failures.clone());
        health.register(POLL_OVERRUNS, health.overruns.clone());
        health.registry.register_collector(Box::new(process::Process));
        health.initialize_counters();
        health
    }

    /// Registers a metric under the name of its family. The encoder appends the suffix.
    fn register(&mut self, metric: Metric, registered: impl Registered) {
        self.registry.register(metric.family_name(), metric.help, registered);
    }

    /// Initializes counters with known labels to zero, because `increase()` ignores the first value of a new series.
    fn initialize_counters(&self) {
        for endpoint in Endpoint::ALL {
            let _ = self.throttled.get_or_create(&endpoint_labels(endpoint));
            let _ = self.retries.get_or_create(&endpoint_labels(endpoint));
            let _ = self.durations.get_or_create(&endpoint_labels(endpoint));
            let _ = self.duplicate_rows.get_or_create(&endpoint_labels(endpoint));
        }
        for reason in auth::REASONS.iter().copied() {
            let _ = self.token_failures.get_or_create(&[("reason", reason)]);
        }
        for entry in crate::collector::ALL {
            let _ = self.overruns.get_or_create(&[("collector", entry.name)]);
        }
    }

    /// Initializes the counters of failed polls for these reasons to zero.
    pub fn initialize_failure_counters(&self, endpoint: Endpoint, reasons: impl IntoIterator<Item = &'static str>) {
        for reason in reasons {
            let _ = self.errors.get_or_create(&reason_labels(endpoint, reason));
        }
    }

    /// Updates the poll loop's heartbeat.
    pub fn beat(&self) {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.beat.store(elapsed, Ordering::Relaxed);
    }

    /// Returns whether the poll loop is running, rather than stalled.
    pub fn is_alive(&self) -> bool {
        self.silence() < HEARTBEAT_LIMIT
    }

    /// Returns the health of an exporter whose last heartbeat was `silence` ago.
    #[cfg(test)]
    pub(crate) fn silent_for(silence: Duration) -> Self {
        Self {
            started: Instant::now().checked_sub(silence).unwrap_or_else(Instant::now),
            ..Self::new()
        }
    }

    /// Records that a customer list was fetched, or that customers were restored from the state file.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Returns whether there is data to serve. See [`Health::set_ready`].
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Returns how long the exporter has been running.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Counts a poll without a complete response.
    pub fn poll_failed(&self, endpoint: Endpoint, reason: &'static str) {
        self.errors.get_or_create(&reason_labels(endpoint, reason)).inc();
        self.errors_of_endpoint.get_or_create(&endpoint_labels(endpoint)).inc();
    }

    /// Returns the totals of these endpoints.
    pub fn request_totals(&self, endpoints: &[Endpoint]) -> RequestTotals {
        let read = |counters: &Family<Labels<1>, Counter>, labels: &Labels<1>| {
            counters.get(labels).map_or(0, |counter| counter.get())
        };
        let mut totals = RequestTotals::default();
        for labels in endpoints.iter().map(|endpoint| endpoint_labels(*endpoint)) {
            totals.requests += read(&self.requests_of_endpoint, &labels);
            totals.errors += read(&self.errors_of_endpoint, &labels);
            totals.throttled += read(&self.throttled, &labels);
        }
        totals
    }

    /// Returns the time since the last heartbeat.
    pub fn silence(&self) -> Duration {
        let beat = Duration::from_millis(self.beat.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(beat)
    }

    /// Counts skipped polls.
    pub fn count_overruns(&self, collector: &'static str, polls: u32) {
        self.overruns
            .get_or_create(&[("collector", collector)])
            .inc_by(u64::from(polls));
    }

    /// Counts rejected series.
    pub fn dropped_series(&self, series: usize) {
        self.series_dropped.inc_by(u64::try_from(series).unwrap_or(u64::MAX));
    }

    /// Counts a failure to save the state file.
    pub fn save_failed(&self) {
        self.save_failures.inc();
    }

    /// Appends the metrics in the given format, except for the excluded metrics.
    pub fn write(&self, text: &mut Vec<u8>, format: Format, excluded: &ExcludedMetrics) {
        let mut encoded = String::new();
        // Encoding fails only if the encoder of a metric fails. The partial output is then dropped.
        if encode_registry(&mut encoded, &self.registry).is_err() {
            return;
        }
        let encoded = excluded.strip(encoded);
        match format {
            Format::OpenMetrics => text.extend_from_slice(encoded.as_bytes()),
            Format::Text => text.extend_from_slice(as_text_format(&encoded).as_bytes()),
        }
    }

    /// Returns whether a value must be logged, and records it as logged. A value must be logged if it has not been
    /// logged before and the limit has not been reached.
    fn is_new_value(&self, endpoint: Endpoint, field: &'static str, value: &str) -> bool {
        let mut logged = lock(&self.logged_values);
        logged.len() < MAX_LOGGED_VALUES && logged.insert((endpoint, field, value.to_owned()))
    }
}

impl Observer for Health {
    fn request(&self, endpoint: Endpoint, status: Option<u16>, took: Duration) {
        let code = status.unwrap_or(0).to_string();
        let labels = [("endpoint", endpoint.as_str().into()), ("code", code.into())];
        self.requests_of_endpoint
            .get_or_create(&endpoint_labels(endpoint))
            .inc();
        self.requests.get_or_create(&labels).inc();
        self.durations
            .get_or_create(&endpoint_labels(endpoint))
            .observe(took.as_secs_f64());
    }

    fn retry(&self, endpoint: Endpoint) {
        self.retries.get_or_create(&endpoint_labels(endpoint)).inc();
    }

    fn throttled(&self, endpoint: Endpoint) {
        self.throttled.get_or_create(&endpoint_labels(endpoint)).inc();
    }

    fn decode_error(&self, endpoint: Endpoint, field: &'static str, shape: &str) {
        self.decode_errors.get_or_create(&field_labels(endpoint, field)).inc();
        if self.is_new_value(endpoint, field, "") {
            warn!(endpoint = endpoint.as_str(), field, shape, "invalid value dropped");
        }
    }

    fn unknown_value(&self, endpoint: Endpoint, field: &'static str, value: &str) {
        self.unknown_values.get_or_create(&field_labels(endpoint, field)).inc();
        let value = log_safe(value);
        if self.is_new_value(endpoint, field, &value) {
            warn!(
                endpoint = endpoint.as_str(),
                field, value, "unknown value; exported as is"
            );
        }
    }

    fn duplicate_rows(&self, endpoint: Endpoint, rows: u64) {
        self.duplicate_rows
            .get_or_create(&endpoint_labels(endpoint))
            .inc_by(rows);
    }

    fn token_failure(&self, error: &auth::Error) {
        self.token_failures.get_or_create(&[("reason", error.reason())]).inc();
        tracing::debug!(error = error_chain(error), "token request failed");
    }

    fn token(&self, expires_in: Duration) {
        tracing::debug!(expires_in = ?expires_in, "token fetched");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalled_loop_is_not_alive_until_it_continues() {
        assert!(Health::silent_for(HEARTBEAT_LIMIT / 2).is_alive());
        let health = Health::silent_for(HEARTBEAT_LIMIT + Duration::from_secs(1));
        assert!(!health.is_alive());
        health.beat();
        assert!(health.is_alive());
    }
}
