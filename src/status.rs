//! Contents of the status pages: the exporter's own state and the health of all customers. What one page shows is read
//! from one snapshot of the store. [`Status::summary`] is cached for a moment, with its snapshot.
//!
//! Like a scrape, it never calls the API and never waits for a poll.

mod customers;
mod detail;
mod runs;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::api::Endpoint;
use crate::collector::CollectorId;
use crate::domain::{CustomerId, Timestamp};
use crate::health::{Counted, Health};
use crate::runtime::{Runtime, RuntimeStatus};
use crate::store::{CollectorSnapshot, LastError, Overview, State, StatusSnapshot, Store};

pub use customers::{CustomerHealth, CustomerList, CustomerRow};
pub use detail::{CustomerDetail, DataSource};
pub use runs::CustomerRuns;

/// Time for which a summary is reused. With ten thousand customers it takes some hundredths of a second, and pages are
/// not reloaded faster than this.
const SUMMARY_LIFE: Duration = Duration::from_secs(1);

/// Builds what the status page shows.
pub struct Status {
    store: Arc<Store>,
    health: Arc<Health>,
    runtime: Arc<Runtime>,
    config_file: Option<PathBuf>,
    summary: Arc<Mutex<Option<Arc<Summary>>>>,
}

/// The exporter and all customers at one moment.
pub struct Summary {
    /// The moment.
    pub now: Timestamp,
    /// Whether the poll loop runs.
    pub is_alive: bool,
    /// Time since the poll loop last ran.
    pub silence: Duration,
    /// The state of schedule, client and files.
    pub runtime: RuntimeStatus,
    /// Whether the API is unreachable: several of the newest polls failed without a response, and none succeeded since.
    pub is_unreachable: bool,
    /// The enabled collectors.
    pub collectors: Vec<CollectorSummary>,
    /// Requests to all endpoints.
    pub requests: Counted,
    /// Requests to the token endpoint, which belongs to no collector.
    pub token_requests: Counted,
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
    /// How it is run, and its customers by state.
    pub overview: Overview,
    /// Time of the last successful poll.
    pub newest: Option<Timestamp>,
    /// Time since which every target has been polled successfully; `None` if one never was.
    pub oldest: Option<Timestamp>,
    /// How late the most overdue poll is.
    pub lag: Duration,
    /// Duration of the last cycle.
    pub cycle: Option<Duration>,
    /// Requests to its endpoints.
    pub requests: Counted,
    /// Whether one poll fetches all customers.
    pub polls_all_at_once: bool,
    /// The newest error among the newest polls of all targets.
    pub error: Option<LastError>,
}

impl CollectorSummary {
    /// Whether its permission is granted, or not known to be missing.
    pub fn is_permitted(&self) -> bool {
        self.overview.permitted != Some(false)
    }

    /// Returns how many customers are in a state.
    pub fn count(&self, state: State) -> usize {
        self.overview.customers.get(&state).copied().unwrap_or_default()
    }

    /// Returns how many customers have values that are not fresh.
    pub fn outdated(&self) -> usize {
        let states = State::ALL.into_iter().filter(|state| state.is_outdated());
        states.map(|state| self.count(state)).sum()
    }
}

impl Summary {
    /// Returns an enabled collector.
    pub fn collector(&self, id: CollectorId) -> Option<&CollectorSummary> {
        self.collectors
            .iter()
            .find(|collector| collector.overview.collector == id)
    }

    /// Returns a customer in detail; `None` if it is unknown.
    pub fn detail(&self, id: &CustomerId) -> Option<CustomerDetail> {
        CustomerDetail::of(id, &self.snapshot, &self.runtime.schedule.settings, self.now)
    }

    /// Returns the number of series.
    pub fn series(&self) -> usize {
        self.snapshot.series
    }
}

impl Status {
    /// Creates a builder over these sources.
    pub fn new(store: Arc<Store>, health: Arc<Health>, runtime: Arc<Runtime>, config_file: Option<PathBuf>) -> Self {
        Self {
            store,
            health,
            runtime,
            config_file,
            summary: Arc::default(),
        }
    }

    /// Returns the exporter and all customers as they were at most `SUMMARY_LIFE` ago. Call it in a Tokio runtime,
    /// which removes the summary from the cache.
    pub fn summary(&self) -> Arc<Summary> {
        // Held while a summary is built, so that concurrent requests share it.
        let mut cached = self.summary.lock().unwrap_or_else(PoisonError::into_inner);
        let summary = cached.get_or_insert_with(|| {
            let cache = Arc::clone(&self.summary);
            tokio::spawn(async move {
                tokio::time::sleep(SUMMARY_LIFE).await;
                // Its snapshot keeps replaced records in memory, so it does not wait for the next request.
                *cache.lock().unwrap_or_else(PoisonError::into_inner) = None;
            });
            Arc::new(self.build_summary(Timestamp::from(SystemTime::now())))
        });
        Arc::clone(summary)
    }

    /// Returns a customer in detail, and its remembered runs; `None` if it is unknown.
    pub fn customer(&self, id: &CustomerId, now: Timestamp) -> Option<(CustomerDetail, CustomerRuns)> {
        let settings = self.runtime.status().schedule.settings;
        let snapshot = self.store.status_snapshot(now);
        let detail = CustomerDetail::of(id, &snapshot, &settings, now)?;
        Some((detail, CustomerRuns::of(id, &snapshot, &settings)?))
    }

    /// Returns the remembered runs of a customer; `None` if it is unknown.
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
            requests: self.health.counted(collector.id.descriptor().endpoints),
            polls_all_at_once: collector.polls_all_at_once(),
            error: collector.errors().max_by_key(|error| error.at).cloned(),
        });
        Summary {
            collectors: collectors.collect(),
            customers: CustomerList::of(&snapshot, now),
            now,
            is_unreachable: is_unreachable(&snapshot),
            is_alive: self.health.is_alive(),
            silence: self.health.silence(),
            requests: self.health.counted(&Endpoint::ALL),
            token_requests: self.health.counted(&[Endpoint::Token]),
            config_file: self.config_file.clone(),
            uptime: self.health.uptime(),
            snapshot,
            runtime,
        }
    }
}

/// Number of polls that must fail alike for an outage: one customer or endpoint can fail alone.
const OUTAGE_POLLS: usize = 2;

fn is_unreachable(snapshot: &StatusSnapshot) -> bool {
    let newest = |collector: CollectorSnapshot<'_>| collector.newest_success();
    let last_answer = snapshot.collectors().filter_map(newest).max();
    let errors = snapshot.collectors().map(|collector| {
        let outages = collector
            .errors()
            .filter(|error| error.is_outage && Some(error.at) > last_answer);
        outages.count()
    });
    errors.sum::<usize>() >= OUTAGE_POLLS
}
