//! Contents of the status page: the exporter's own state and the health of all customers. [`Status::summary`] reads one
//! snapshot of the store and is cached for a moment; [`Status::details`] reads a newer one, so the two can differ by a
//! commit.
//!
//! Like a scrape, it never calls the API and never waits for a poll.

mod customers;
mod detail;
mod runs;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::api::Endpoint;
use crate::collector::{CollectorId, Settings};
use crate::domain::{CustomerId, Timestamp};
use crate::health::{Counted, Health};
use crate::scrape::{ClientStatus, Loaded, Scrape};
use crate::store::{CollectorSnapshot, LastError, Overview, State, StatusSnapshot, Store};

pub use customers::{CustomerHealth, CustomerList, CustomerRow};
pub use detail::{CustomerDetail, DataSource};
pub use runs::CustomerRuns;

/// How long a summary is reused. With ten thousand customers it takes some hundredths of a second, and pages are not
/// reloaded faster than this.
const SUMMARY_LIFE: Duration = Duration::from_secs(1);

/// Reads the settings in force.
pub type ReadSettings = Arc<dyn Fn() -> Arc<Settings> + Send + Sync>;

/// Builds what the status page shows.
pub struct Status {
    scrape: Arc<Scrape>,
    store: Arc<Store>,
    health: Arc<Health>,
    settings: ReadSettings,
    config_file: Option<PathBuf>,
    summary: Mutex<Option<(Instant, Arc<Summary>)>>,
}

/// The exporter and all customers at one moment.
pub struct Summary {
    /// The moment.
    pub now: Timestamp,
    /// Whether the newest attempts at a token and at the customer list both succeeded.
    pub is_up: bool,
    /// Whether the poll loop runs.
    pub is_alive: bool,
    /// How long ago the poll loop last ran.
    pub silence: Duration,
    /// The state of the client.
    pub client: ClientStatus,
    /// Whether the API is unreachable: several of the newest polls failed without a response, and none succeeded since.
    pub is_unreachable: bool,
    /// Whether the newest poll of the customer list succeeded, `None` before the first has ended.
    pub is_listed: Option<bool>,
    /// The enabled collectors.
    pub collectors: Vec<CollectorSummary>,
    /// Requests to all endpoints.
    pub requests: Counted,
    /// Requests to the token endpoint, which belongs to no collector.
    pub token_requests: Counted,
    /// How configuration and state were loaded.
    pub loaded: Loaded,
    /// The configuration file; `None` where the environment alone configures.
    pub config_file: Option<PathBuf>,
    /// How long the exporter has been running.
    pub uptime: Duration,
    /// How many series it holds.
    pub series: usize,
    /// All customers.
    pub customers: CustomerList,
}

/// The state of one collector.
pub struct CollectorSummary {
    /// How it is run, and its customers by state.
    pub overview: Overview,
    /// When any poll last succeeded.
    pub newest: Option<Timestamp>,
    /// Since when every target has been polled with success; `None` where one never was.
    pub oldest: Option<Timestamp>,
    /// How late the most overdue poll is.
    pub lag: Duration,
    /// How long the last cycle took.
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
        let states = [State::Stale, State::Failed, State::Forbidden];
        states.into_iter().map(|state| self.count(state)).sum()
    }
}

impl Summary {
    /// Returns an enabled collector.
    pub fn collector(&self, id: CollectorId) -> Option<&CollectorSummary> {
        self.collectors
            .iter()
            .find(|collector| collector.overview.collector == id)
    }
}

impl Status {
    /// Creates a builder over these sources.
    pub fn new(
        scrape: Arc<Scrape>,
        store: Arc<Store>,
        health: Arc<Health>,
        settings: ReadSettings,
        config_file: Option<PathBuf>,
    ) -> Self {
        Self {
            scrape,
            store,
            health,
            settings,
            config_file,
            summary: Mutex::new(None),
        }
    }

    /// Returns the exporter and all customers as they were at most `SUMMARY_LIFE` ago.
    pub fn summary(&self) -> Arc<Summary> {
        // Held while a summary is built, so that concurrent requests share it.
        let mut cached = self.summary.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((built, summary)) = cached.as_ref()
            && built.elapsed() < SUMMARY_LIFE
        {
            return Arc::clone(summary);
        }
        let summary = Arc::new(self.build_summary(Timestamp::from(SystemTime::now())));
        *cached = Some((Instant::now(), Arc::clone(&summary)));
        summary
    }

    /// Returns these customers in detail, in this order, without unknown ones.
    pub fn details(&self, ids: &[CustomerId], now: Timestamp) -> Vec<CustomerDetail> {
        let settings = (self.settings)();
        let snapshot = self.store.status_snapshot(now);
        let details = ids.iter();
        details
            .filter_map(|id| CustomerDetail::of(id, &snapshot, &settings, now))
            .collect()
    }

    /// Returns the remembered runs of a customer; `None` if it is unknown.
    pub fn runs(&self, id: &CustomerId) -> Option<CustomerRuns> {
        let settings = (self.settings)();
        let snapshot = self.store.status_snapshot(Timestamp::from(SystemTime::now()));
        CustomerRuns::of(id, &snapshot, &settings)
    }

    fn build_summary(&self, now: Timestamp) -> Summary {
        let schedule = self.scrape.schedule_status();
        let snapshot = self.store.status_snapshot(now);
        let collectors = snapshot.collectors().map(|collector| CollectorSummary {
            overview: collector.overview(),
            newest: collector.newest_success(),
            oldest: collector.oldest_success(),
            lag: *schedule.lag.get(collector.id),
            cycle: *schedule.cycle.get(collector.id),
            requests: self.health.counted(collector.id.entry().endpoints),
            polls_all_at_once: collector.polls_all_at_once(),
            error: collector.errors().max_by_key(|error| error.at).cloned(),
        });
        Summary {
            collectors: collectors.collect(),
            customers: CustomerList::of(&snapshot, now),
            now,
            is_up: self.scrape.is_up(),
            is_unreachable: is_unreachable(&snapshot),
            is_alive: self.health.is_alive(),
            silence: self.health.silence(),
            client: self.scrape.client_status(),
            is_listed: schedule.customers_listed,
            requests: self.health.counted(&Endpoint::ALL),
            token_requests: self.health.counted(&[Endpoint::Token]),
            loaded: self.scrape.loaded(),
            config_file: self.config_file.clone(),
            uptime: self.health.uptime(),
            series: self.store.series(),
        }
    }
}

/// Number of polls that must fail alike for an outage: one customer or endpoint can fail by itself.
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
