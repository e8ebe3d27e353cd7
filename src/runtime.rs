//! State of the running exporter outside the store: its schedule, its API client, and the results of loading its files.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::collector::{CollectorSettings, PerCollector};
use crate::domain::Timestamp;
use crate::lock::lock;

/// State of the schedule, for scrapes and the status page.
#[derive(Clone, Debug, Default)]
pub struct ScheduleStatus {
    /// Lag of each collector.
    pub lag: PerCollector<Duration>,
    /// Duration of the last full cycle of each collector; `None` if no cycle has ended since startup or the last
    /// reload.
    pub cycle: PerCollector<Option<Duration>>,
    /// Whether the latest poll of the customer list succeeded; `None` before the first. After that, an error about a
    /// single customer does not change the value.
    pub customers_listed: Option<bool>,
    /// Number of configured patterns that match nothing; `None` until they have been checked against a complete
    /// customer list.
    pub unmatched_patterns: Option<usize>,
    /// The active settings.
    pub settings: Arc<CollectorSettings>,
}

/// State of the schedule, updated in every iteration of the poll loop.
pub type SharedScheduleStatus = Arc<Mutex<ScheduleStatus>>;

/// State of the API client.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientStatus {
    /// Request rate limit, in requests per second.
    pub rate: f64,
    /// Earliest expiry of the tokens in use.
    pub token_expiry: Option<SystemTime>,
    /// Expiry of the credential, in seconds since the epoch.
    pub credential_expiry: Option<i64>,
    /// Whether the latest token request succeeded; `None` if there was none.
    pub token: Option<bool>,
}

/// Results of loading the configuration and the state.
#[derive(Clone, Copy, Debug)]
pub struct LoadResults {
    /// Whether the latest load of the configuration succeeded.
    pub config: bool,
    /// Time at which the active configuration was loaded.
    pub config_at: Timestamp,
    /// Whether the state file could be loaded; `None` if none is configured.
    pub state: Option<bool>,
}

/// Function that returns the state of the API client.
pub type ReadClientStatus = Arc<dyn Fn() -> ClientStatus + Send + Sync>;

/// Sources of the [`RuntimeStatus`].
pub struct Runtime {
    schedule: SharedScheduleStatus,
    client: ReadClientStatus,
    loaded: Mutex<LoadResults>,
}

/// State of the running exporter at one point in time.
#[derive(Clone, Debug)]
pub struct RuntimeStatus {
    /// State of the schedule.
    pub schedule: ScheduleStatus,
    /// State of the API client.
    pub client: ClientStatus,
    /// Results of the latest loads.
    pub loaded: LoadResults,
}

impl Runtime {
    /// Creates a runtime with these sources.
    pub fn new(schedule: SharedScheduleStatus, client: ReadClientStatus, loaded: LoadResults) -> Self {
        Self {
            schedule,
            client,
            loaded: Mutex::new(loaded),
        }
    }

    /// Updates the results of the latest loads.
    pub fn record_load(&self, note: impl FnOnce(&mut LoadResults)) {
        note(&mut lock(&self.loaded));
    }

    /// Returns the current state.
    pub fn status(&self) -> RuntimeStatus {
        RuntimeStatus {
            schedule: lock(&self.schedule).clone(),
            client: (self.client)(),
            loaded: *lock(&self.loaded),
        }
    }
}

impl Default for Runtime {
    /// Returns the runtime of an exporter that has loaded its files but not polled yet.
    fn default() -> Self {
        let loaded = LoadResults {
            config: true,
            config_at: Timestamp::from_unix_seconds(0),
            state: Some(true),
        };
        Self::new(Arc::default(), Arc::new(ClientStatus::default), loaded)
    }
}

impl RuntimeStatus {
    /// Returns whether the latest token request and the latest poll of the customer list succeeded.
    pub fn is_up(&self) -> bool {
        // `token` is `None` until a new client has requested a token. Until then, only the customer list counts.
        self.client.token != Some(false) && self.schedule.customers_listed == Some(true)
    }
}
