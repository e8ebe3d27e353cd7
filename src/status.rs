//! Contents of the status pages: the exporter's own state and the health of all customers. Each page uses a single
//! snapshot of the store. [`Status::summary`] is cached for a short time, together with its snapshot.
//!
//! Like scrapes, the status pages never call the API and never wait for a poll.

mod customers;
mod detail;
mod runs;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::api::Endpoint;
use crate::collector::CollectorId;
use crate::domain::{CustomerId, Timestamp};
use crate::health::{Health, RequestTotals};
use crate::lock::lock;
use crate::runtime::{Runtime, RuntimeStatus};
use crate::store::{CollectorSnapshot, LastError, Overview, State, StatusSnapshot, Store};

pub use customers::{CustomerHealth, CustomerList, CustomerRow};
pub use detail::{CustomerDetail, DataSource};
pub use runs::CustomerRuns;

/// Time during which a summary is cached. With ten thousand customers, building a summary takes a few hundredths of a
/// second. Pages reload less often than once per second.
const SUMMARY_LIFETIME: Duration = Duration::from_secs(1);

/// Builds the contents of the status pages.
pub struct Status {
    store: Arc<Store>,
    health: Arc<Health>,
    runtime: Arc<Runtime>,
    config_file: Option<PathBuf>,
    summary: Arc<Mutex<Option<Arc<Summary>>>>,
}

/// State of the exporter and of all customers at one point in time.
pub struct Summary {
    /// The time of the summary.
    pub now: Timestamp,
    /// Whether the poll loop is running.
    pub is_alive: bool,
    /// Time since the poll loop last ran.
    pub silence: Duration,
    /// The state of the scheduler, the API client and the loaded files.
    pub runtime: RuntimeStatus,
    /// Whether the API is unreachable: the latest polls of several targets failed because of an outage, and no poll has
    /// succeeded since. See [`LastError::is_outage`].
    pub is_unreachable: bool,
    /// The enabled collectors.
    pub collectors: Vec<CollectorSummary>,
    /// Requests to all endpoints.
    pub requests: RequestTotals,
    /// Requests to the token endpoint, which does not belong to a collector.
    pub token_requests: RequestTotals,
    /// The configuration file; `None` if only environment variables are used.
    pub config_file: Option<PathBuf>,
    /// Uptime of the exporter.
    pub uptime: Duration,
    /// All customers.
    pub customers: CustomerList,
    snapshot: StatusSnapshot,
}

/// The state of one collector.
pub struct CollectorSummary {
    /// The collector's schedule, and the number of customers by state.
    pub overview: Overview,
    /// Time of the last successful poll.
    pub newest: Option<Timestamp>,
    /// Time of the oldest data: every target was polled successfully at or after this time. `None` if a target has
    /// never been polled successfully.
    pub oldest: Option<Timestamp>,
    /// Delay of the most overdue poll.
    pub lag: Duration,
    /// Duration of the last cycle.
    pub cycle: Option<Duration>,
    /// Requests to the collector's endpoints.
    pub requests: RequestTotals,
    /// Whether one poll fetches the data of all customers.
    pub is_bulk: bool,
    /// The most recent error among the latest polls of all targets.
    pub error: Option<LastError>,
}

impl CollectorSummary {
    /// Returns `false` only if the permission is known to be missing.
    pub fn is_permitted(&self) -> bool {
        self.overview.permitted != Some(false)
    }

    /// Returns how many customers are in a state.
    pub fn count(&self, state: State) -> usize {
        self.overview.customers.get(&state).copied().unwrap_or_default()
    }

    /// Returns how many customers are in an outdated state; see [`State::is_outdated`].
    pub fn outdated(&self) -> usize {
        let states = State::ALL.into_iter().filter(|state| state.is_outdated());
        states.map(|state| self.count(state)).sum()
    }
}

impl Summary {
    /// Returns the summary of a collector, or `None` if the collector is disabled.
    pub fn collector(&self, id: CollectorId) -> Option<&CollectorSummary> {
        self.collectors
            .iter()
            .find(|collector| collector.overview.collector == id)
    }

    /// Returns the details of a customer, or `None` if the customer is unknown.
    pub fn detail(&self, id: &CustomerId) -> Option<CustomerDetail> {
        CustomerDetail::of(id, &self.snapshot, &self.runtime.schedule.settings, self.now)
    }

    /// Returns the number of series.
    pub fn series(&self) -> usize {
        self.snapshot.series
    }
}

impl Status {
    /// Creates a builder that reads these sources.
    pub fn new(store: Arc<Store>, health: Arc<Health>, runtime: Arc<Runtime>, config_file: Option<PathBuf>) -> Self {
        Self {
            store,
            health,
            runtime,
            config_file,
            summary: Arc::default(),
        }
    }

    /// Returns a summary that is at most `SUMMARY_LIFETIME` old. Must be called in a Tokio runtime, because a task
    /// removes the summary from the cache.
    pub fn summary(&self) -> Arc<Summary> {
        // The lock is held while a summary is built, so that concurrent requests use the same summary.
        let mut cached = lock(&self.summary);
        let summary = cached.get_or_insert_with(|| {
            let cache = Arc::clone(&self.summary);
            tokio::spawn(async move {
                tokio::time::sleep(SUMMARY_LIFETIME).await;
                // This task removes the summary even if no other request follows, because the summary's snapshot keeps
                // replaced records in memory.
                *lock(&cache) = None;
            });
            Arc::new(self.build_summary(Timestamp::from(SystemTime::now())))
        });
        Arc::clone(summary)
    }

    /// Returns the details and the stored runs of a customer, or `None` if the customer is unknown.
    pub fn customer(&self, id: &CustomerId, now: Timestamp) -> Option<(CustomerDetail, CustomerRuns)> {
        let settings = self.runtime.status().schedule.settings;
        let snapshot = self.store.status_snapshot(now);
        let detail = CustomerDetail::of(id, &snapshot, &settings, now)?;
        Some((detail, CustomerRuns::of(id, &snapshot, &settings)?))
    }

    /// Returns the stored runs of a customer, or `None` if the customer is unknown.
    pub fn runs(&self, id: &CustomerId) -> Option<CustomerRuns> {
        let settings = self.runtime.status().schedule.settings;
        let snapshot = self.store.status_snapshot(Timestamp::from(SystemTime::now()));
        CustomerRuns::of(id, &snapshot, &settings)
    }

    fn build_summary(&self, now: Timestamp) -> Summary {
        let (runtime, snapshot) = (self.runtime.status(), self.store.status_snapshot(now));
        let collectors = snapshot.collectors().map(|collector| CollectorSummary {
            overview: collector.overview(),
            newest: collector.newest_success(),
            oldest: collector.oldest_success(),
            lag: *runtime.schedule.lag.get(collector.id),
            cycle: *runtime.schedule.cycle.get(collector.id),
            requests: self.health.request_totals(collector.id.descriptor().endpoints),
            is_bulk: collector.polls_all_at_once(),
            error: collector.errors().max_by_key(|error| error.at).cloned(),
        });
        Summary {
            collectors: collectors.collect(),
            customers: CustomerList::of(&snapshot, now),
            now,
            is_unreachable: is_unreachable(&snapshot),
            is_alive: self.health.is_alive(),
            silence: self.health.silence(),
            requests: self.health.request_totals(&Endpoint::ALL),
            token_requests: self.health.request_totals(&[Endpoint::Token]),
            config_file: self.config_file.clone(),
            uptime: self.health.uptime(),
            snapshot,
            runtime,
        }
    }
}

/// Number of polls that must have failed because of an outage before the API counts as unreachable. A single failure
/// may be due to one customer or endpoint.
const OUTAGE_POLLS: usize = 2;

fn is_unreachable(snapshot: &StatusSnapshot) -> bool {
    let newest = |collector: CollectorSnapshot<'_>| collector.newest_success();
    let last_response = snapshot.collectors().filter_map(newest).max();
    let errors = snapshot.collectors().map(|collector| {
        let outages = collector
            .errors()
            .filter(|error| error.is_outage && Some(error.at) > last_response);
        outages.count()
    });
    errors.sum::<usize>() >= OUTAGE_POLLS
}
