//! How the exporter itself does: its counters, its heartbeat, whether it is ready, and the metrics that tell.
//!
//! Counters live in a registry of prometheus-client, because they are ours to count. Everything else is read where it
//! lives when a scrape asks, so that nothing can be forgotten to be `set()`.

mod process;

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric as Registered, Registry};
use tracing::warn;

use crate::api::{Endpoint, Observer, auth};
use crate::domain::shown;
use crate::error_chain::error_chain;
use crate::exposition::{Format, Metric};

/// A loop that has not turned for so long is dead: it turns every second, and never waits for anything but time.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(30);

/// The most different values of one field that are named in the log. A server that makes words up must not fill it.
const MAX_TOLD_VALUES: usize = 200;

const ENDPOINT: &[&str] = &["endpoint"];
const ENDPOINT_FIELD: &[&str] = &["endpoint", "field"];

const BUILD_INFO: Metric =
    Metric::info("elements_exporter_build_info", "Which build this is").labels(&["version", "revision", "rustversion"]);
const API_REQUESTS: Metric = Metric::counter(
    "elements_exporter_api_requests_total",
    "Attempts at requests, by status code; code 0 where there was no answer",
)
.labels(&["endpoint", "code"]);
const API_REQUEST_DURATION: Metric = Metric::histogram(
    "elements_exporter_api_request_duration_seconds",
    "How long attempts at requests took",
)
.labels(ENDPOINT);
const API_ERRORS: Metric = Metric::counter(
    "elements_exporter_api_errors_total",
    "Polls that brought no complete answer, by what was asked for and why",
)
.labels(&["endpoint", "reason"]);
const API_THROTTLED: Metric =
    Metric::counter("elements_exporter_api_throttled_total", "Attempts answered with 429").labels(ENDPOINT);
const API_RETRIES: Metric =
    Metric::counter("elements_exporter_api_retries_total", "Attempts that repeated another").labels(ENDPOINT);
const TOKEN_FAILURES: Metric = Metric::counter(
    "elements_exporter_token_failures_total",
    "Attempts at a token that failed, by why",
)
.labels(&["reason"]);
const DECODE_ERRORS: Metric = Metric::counter(
    "elements_exporter_decode_errors_total",
    "Values that were there and could not be understood; they are absent",
)
.labels(ENDPOINT_FIELD);
const UNKNOWN_VALUES: Metric = Metric::counter(
    "elements_exporter_unknown_values_total",
    "Numbers and words that are not in the reference of the API",
)
.labels(ENDPOINT_FIELD);
const DUPLICATE_ROWS: Metric = Metric::counter(
    "elements_exporter_duplicate_rows_total",
    "Rows that would have made two samples of one series",
)
.labels(ENDPOINT);
const SERIES_DROPPED: Metric = Metric::counter(
    "elements_exporter_series_dropped_total",
    "Series turned away because of metrics.series_limit",
);
const STATE_SAVE_FAILURES: Metric = Metric::counter(
    "elements_exporter_state_save_failures_total",
    "Attempts to save the state file that failed",
);
const POLL_OVERRUNS: Metric = Metric::counter(
    "elements_exporter_poll_overruns_total",
    "Polls left out because the one before them came too late",
)
.labels(&["collector"])
.experimental();

/// The metrics that the registry holds, for the catalogue.
pub const COUNTED: &[Metric] = &[
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

/// The metrics of the process, for the catalogue.
pub const PROCESS: &[Metric] = process::METRICS;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfEndpoint {
    endpoint: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCode {
    endpoint: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    endpoint: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfField {
    endpoint: &'static str,
    field: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCollector {
    collector: &'static str,
}

type Durations = Family<OfEndpoint, Histogram, fn() -> Histogram>;

/// The exporter's own state of health.
#[derive(Debug)]
pub struct Health {
    registry: Registry,
    requests: Family<OfCode, Counter>,
    durations: Durations,
    errors: Family<OfReason, Counter>,
    throttled: Family<OfEndpoint, Counter>,
    retries: Family<OfEndpoint, Counter>,
    token_failures: Family<Reason, Counter>,
    decode_errors: Family<OfField, Counter>,
    unknown_values: Family<OfField, Counter>,
    duplicate_rows: Family<OfEndpoint, Counter>,
    series_dropped: Counter,
    save_failures: Counter,
    overruns: Family<OfCollector, Counter>,
    started: Instant,
    beat: AtomicU64,
    ready: AtomicBool,
    told: Mutex<HashSet<(Endpoint, &'static str, String)>>,
    tallies: BTreeMap<Endpoint, Tally>,
}

/// The counters of an endpoint in sum, for people: the families above cannot be read back.
#[derive(Debug, Default)]
struct Tally {
    requests: AtomicU64,
    errors: AtomicU64,
    throttled: AtomicU64,
}

/// What was counted of some endpoints since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Attempts at requests.
    pub requests: u64,
    /// Polls that brought no complete answer.
    pub errors: u64,
    /// Attempts answered with 429.
    pub throttled: u64,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Counters at zero, heart beating now, not ready.
    pub fn new() -> Self {
        let mut health = Self {
            registry: Registry::default(),
            requests: Family::default(),
            durations: Durations::new_with_constructor(|| Histogram::new(exponential_buckets(0.01, 2.0, 13))),
            errors: Family::default(),
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
            told: Mutex::new(HashSet::new()),
            tallies: Endpoint::ALL.map(|endpoint| (endpoint, Tally::default())).into(),
        };
        let build = Info::new(vec![
            ("version", env!("CARGO_PKG_VERSION")),
            ("revision", env!("ELEMENTS_EXPORTER_REVISION")),
            ("rustversion", env!("ELEMENTS_EXPORTER_RUSTVERSION")),
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
        health.begin_at_zero();
        health
    }

    /// Registers a metric under its family's name, to which the encoder adds the suffix again.
    fn register(&mut self, metric: Metric, registered: impl Registered) {
        self.registry.register(metric.family_name(), metric.help, registered);
    }

    /// Counters whose labels are known begin at zero, because the first step of a counter that was not there before
    /// is invisible to `increase()`.
    fn begin_at_zero(&self) {
        for endpoint in Endpoint::ALL {
            let of_endpoint = OfEndpoint {
                endpoint: endpoint.as_str(),
            };
            let _ = self.throttled.get_or_create(&of_endpoint);
            let _ = self.retries.get_or_create(&of_endpoint);
            let _ = self.durations.get_or_create(&of_endpoint);
            let _ = self.duplicate_rows.get_or_create(&of_endpoint);
        }
        for reason in auth::REASONS.iter().copied() {
            let _ = self.token_failures.get_or_create(&Reason { reason });
        }
        for entry in crate::collector::ALL {
            let _ = self.overruns.get_or_create(&OfCollector { collector: entry.name });
            let endpoint = entry.endpoint.as_str();
            for reason in crate::api::REASONS.iter().copied() {
                let _ = self.errors.get_or_create(&OfReason { endpoint, reason });
            }
        }
    }

    /// The loop turned.
    pub fn beat(&self) {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.beat.store(elapsed, Ordering::Relaxed);
    }

    /// Whether the loop lives.
    pub fn is_alive(&self) -> bool {
        self.silence() < HEARTBEAT_LIMIT
    }

    /// One whose loop has not turned for so long.
    #[cfg(test)]
    pub(crate) fn silent_for(silence: Duration) -> Self {
        Self {
            started: Instant::now().checked_sub(silence).unwrap_or_else(Instant::now),
            ..Self::new()
        }
    }

    /// The customer list was had once, or a state file was restored.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Whether a scrape has something true to show.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// How long the exporter has been running.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// A poll brought no complete answer.
    pub fn poll_failed(&self, endpoint: Endpoint, reason: &'static str) {
        let labels = OfReason {
            endpoint: endpoint.as_str(),
            reason,
        };
        self.errors.get_or_create(&labels).inc();
        self.count(endpoint, |tally| &tally.errors);
    }

    fn count(&self, endpoint: Endpoint, counter: impl Fn(&Tally) -> &AtomicU64) {
        if let Some(tally) = self.tallies.get(&endpoint) {
            counter(tally).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was counted of these endpoints.
    pub fn counted(&self, endpoints: &[Endpoint]) -> Counted {
        let mut counted = Counted::default();
        for tally in endpoints.iter().filter_map(|endpoint| self.tallies.get(endpoint)) {
            counted.requests += tally.requests.load(Ordering::Relaxed);
            counted.errors += tally.errors.load(Ordering::Relaxed);
            counted.throttled += tally.throttled.load(Ordering::Relaxed);
        }
        counted
    }

    /// How long ago the loop last turned.
    pub fn silence(&self) -> Duration {
        let beat = Duration::from_millis(self.beat.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(beat)
    }

    /// Polls were left out.
    pub fn overran(&self, collector: &'static str, polls: u32) {
        self.overruns
            .get_or_create(&OfCollector { collector })
            .inc_by(u64::from(polls));
    }

    /// Series were turned away.
    pub fn dropped_series(&self, series: usize) {
        self.series_dropped.inc_by(u64::try_from(series).unwrap_or(u64::MAX));
    }

    /// The state file could not be saved.
    pub fn save_failed(&self) {
        self.save_failures.inc();
    }

    /// Appends the counters in a text format.
    pub fn write(&self, text: &mut Vec<u8>, format: Format) {
        let mut encoded = String::new();
        // Formatting into a string fails only where a metric's own code does, and then what came before is left out
        // too rather than shown in part.
        if encode_registry(&mut encoded, &self.registry).is_err() {
            return;
        }
        match format {
            Format::OpenMetrics => text.extend_from_slice(encoded.as_bytes()),
            Format::Text => text.extend_from_slice(as_text_format(&encoded).as_bytes()),
        }
    }

    /// Whether a value is told for the first time, so that it is worth a line.
    fn is_news(&self, endpoint: Endpoint, field: &'static str, value: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < MAX_TOLD_VALUES && told.insert((endpoint, field, value.to_owned()))
    }
}

impl Observer for Health {
    fn request(&self, endpoint: Endpoint, status: Option<u16>, took: Duration) {
        self.count(endpoint, |tally| &tally.requests);
        let endpoint = endpoint.as_str();
        let code = status.unwrap_or(0);
        self.requests.get_or_create(&OfCode { endpoint, code }).inc();
        self.durations
            .get_or_create(&OfEndpoint { endpoint })
            .observe(took.as_secs_f64());
    }

    fn retry(&self, endpoint: Endpoint) {
        self.retries
            .get_or_create(&OfEndpoint {
                endpoint: endpoint.as_str(),
            })
            .inc();
    }

    fn throttled(&self, endpoint: Endpoint) {
        self.count(endpoint, |tally| &tally.throttled);
        self.throttled
            .get_or_create(&OfEndpoint {
                endpoint: endpoint.as_str(),
            })
            .inc();
    }

    fn decode_error(&self, endpoint: Endpoint, field: &'static str, shape: &str) {
        let labels = OfField {
            endpoint: endpoint.as_str(),
            field,
        };
        self.decode_errors.get_or_create(&labels).inc();
        if self.is_news(endpoint, field, "") {
            warn!(
                endpoint = endpoint.as_str(),
                field, shape, "a value could not be understood and is absent; shown masked"
            );
        }
    }

    fn unknown_value(&self, endpoint: Endpoint, field: &'static str, value: &str) {
        let labels = OfField {
            endpoint: endpoint.as_str(),
            field,
        };
        self.unknown_values.get_or_create(&labels).inc();
        let value = shown(value);
        if self.is_news(endpoint, field, &value) {
            warn!(
                endpoint = endpoint.as_str(),
                field, value, "a value is not in the reference of the API and passed through"
            );
        }
    }

    fn duplicate_rows(&self, endpoint: Endpoint, rows: u64) {
        self.duplicate_rows
            .get_or_create(&OfEndpoint {
                endpoint: endpoint.as_str(),
            })
            .inc_by(rows);
    }

    fn token_failure(&self, error: &auth::Error) {
        self.token_failures
            .get_or_create(&Reason { reason: error.reason() })
            .inc();
        tracing::debug!(error = error_chain(error), "no token");
    }

    fn token(&self, expires_in: Duration) {
        tracing::debug!(expires_in = ?expires_in, "token fetched");
    }
}

/// What prometheus-client writes, which is OpenMetrics, in the older format: counters and infos carry their suffix in
/// HELP and TYPE too, and there are no units.
fn as_text_format(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len() + 1024);
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                kind => ("", kind),
            };
            let help = help.take().map_or("", |(_, help)| help);
            let _ = write!(text, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with("# ") {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_does_not_turn_is_dead_until_it_does() {
        assert!(Health::silent_for(HEARTBEAT_LIMIT / 2).is_alive());
        let health = Health::silent_for(HEARTBEAT_LIMIT + Duration::from_secs(1));
        assert!(!health.is_alive());
        health.beat();
        assert!(health.is_alive());
    }
}
