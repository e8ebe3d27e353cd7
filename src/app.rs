//! Creates and connects all parts of the exporter, for production, the demo and tests.

pub mod budget;
mod check;
mod client;
mod customers;
mod demo;
mod healthcheck;
mod reload;
mod run_log;
mod saver;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

pub use check::{Report, check, check_offline};
pub use customers::{CustomerListing, customers};
pub use demo::{Backfilled, Demo, backfill, simulate};
pub use healthcheck::{Unhealthy, healthcheck};
pub use watch::Watch;

use self::client::ClientSource;
use self::reload::{Reloader, read_attributes};
use self::saver::{Saver, check_state_file, invalid_state_file, restore};
use self::watch::WatchedFile;
use crate::api::Observer;
use crate::api::client::ApiClient;
use crate::args::{ListenAddress, Web};
use crate::catalogue;
use crate::collector::CollectorSettings;
use crate::config::{self, Config};
use crate::domain::{AttributeTable, Pattern, Shard, Timestamp, log_safe};
use crate::exposition::Format;
use crate::health::Health;
use crate::http::server::Listener;
use crate::http::web_config::{self, Guard};
use crate::http::{self, Reload, Site};
use crate::lock::lock;
use crate::runtime::{ClientStatus, LoadResults, Runtime, ScheduleStatus, SharedScheduleStatus};
use crate::schedule::{ScheduleConfig, Scheduler, Until};
use crate::scrape::{Scrape, ScrapeFilter};
use crate::status::Status;
use crate::store::Store;
use crate::store::state_file::StateFile;
use crate::text_file;

/// Maximum time that the parts may take to stop at shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Error that prevents a command from starting or completing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A configured value, or a file to which the configuration refers, cannot be used.
    #[error("{key}: {problem}")]
    InvalidFile {
        /// The configuration key.
        key: &'static str,
        /// What is wrong with the value or the file.
        problem: String,
    },
    /// The web configuration is invalid.
    #[error(transparent)]
    Web(#[from] web_config::Error),
    /// An address cannot be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// Address that cannot be bound.
        address: String,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// A file or directory cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// Signals cannot be handled.
    #[error("cannot install signal handlers")]
    Signals(#[source] io::Error),
}

impl Error {
    /// Returns the exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::InvalidFile { .. } | Self::Web(_) => config::EXIT_CODE,
            Self::Bind { .. } | Self::Write { .. } | Self::Signals(_) => 1,
        }
    }
}

/// Reads the configuration, at startup and at every reload.
pub type LoadConfig = Arc<dyn Fn() -> Result<Config, config::Error> + Send + Sync>;

/// Returns the function that loads the configuration in production, from a file and the environment. The exporter
/// monitors only the customers of `shard`.
pub fn config_source(file: Option<PathBuf>, shard: Shard) -> LoadConfig {
    // A pipe is accepted at startup, although it can be read only once. If a pipe later replaces a regular file, the
    // pipe is rejected, because reading it could block forever.
    let is_regular = file.as_ref().is_some_and(|file| file.is_file());
    Arc::new(move || {
        if let Some(file) = file.as_ref().filter(|_| is_regular) {
            text_file::require_regular(file).map_err(config::Error::from)?;
        }
        let mut config = config::load(file.as_deref(), std::env::vars_os())?;
        config.customers.shard = shard;
        Ok(config)
    })
}

/// The exporter, bound to its addresses but not polling yet.
pub struct App {
    parts: Parts,
    config_file: Option<PathBuf>,
    reloads: mpsc::Receiver<ScheduleConfig>,
    reloader: Arc<Reloader>,
    state_file: Option<Arc<StateFile>>,
    listeners: Vec<Listener>,
    guard: Option<Arc<Guard>>,
    web: Web,
    subtitle: String,
}

/// Parts shared by [`App`] and the commands that poll once.
struct Parts {
    store: Arc<Store>,
    health: Arc<Health>,
    runtime: Arc<Runtime>,
    scrape: Arc<Scrape>,
    schedule_status: SharedScheduleStatus,
    current: Arc<Mutex<Current>>,
    schedule_config: ScheduleConfig,
}

/// Active configuration, read at scrape time.
struct Current {
    client: (ClientSource, Arc<ApiClient>),
    schedule_config: ScheduleConfig,
    secret_expires: Option<i64>,
    attributes: WatchedFile,
    /// Whether the latest load of the configuration succeeded.
    is_config_valid: bool,
}

impl App {
    /// Reads the configuration, restores the state and binds the sockets. `config_file` is used only for
    /// display on the status page.
    ///
    /// # Errors
    /// Returns an error if the configuration, the web configuration or a file to which they refer is invalid, if
    /// another exporter uses the state file, or if a socket cannot be bound. If the state cannot be restored, the
    /// problem is logged and exposed as a metric, and the exporter starts without the state.
    pub async fn bind(
        load: LoadConfig,
        config_file: Option<PathBuf>,
        web: Web,
        subtitle: String,
    ) -> Result<Self, Error> {
        let config = load()?;
        let guard = web.config_file.as_deref().map(Guard::load).transpose()?;
        let parts = Parts::new(&config)?;
        let mut listeners = Vec::with_capacity(web.listen_addresses.len());
        for address in &web.listen_addresses {
            listeners.push(listen(address).await?);
        }
        let state_file = config.state_file.clone().map(StateFile::open).transpose();
        let state_file = state_file.map_err(|error| invalid_state_file(&error))?.map(Arc::new);
        let restored = restore(&parts, state_file.as_deref());
        parts.runtime.record_load(|loaded| loaded.state = restored);
        if parts.store.was_restored() && !parts.store.customers().is_empty() {
            parts.health.set_ready();
        }
        let (sender, reloads) = mpsc::channel(1);
        let reloader = Arc::new(Reloader::new(&parts, load, sender, config.state_file.clone()));
        Ok(Self {
            parts,
            config_file,
            reloads,
            reloader,
            state_file,
            listeners,
            guard,
            web,
            subtitle,
        })
    }

    /// Returns the bound addresses.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .filter_map(|listener| listener.address().ok())
            .collect()
    }

    /// Returns the scheme of the exporter's URLs, `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        let serves_tls = self.guard.as_ref().is_some_and(|guard| guard.serves_tls());
        if serves_tls { "https" } else { "http" }
    }

    /// Returns the function that reloads the configuration, as on SIGHUP.
    pub fn reload(&self) -> Reload {
        Reloader::reload_fn(&self.reloader)
    }

    /// Returns the renderer of scrapes. Tests use it to scrape without a socket.
    pub fn scrape(&self) -> Arc<Scrape> {
        Arc::clone(&self.parts.scrape)
    }

    /// Polls and serves until `stop` is cancelled, and then saves the state. Returns false if the poll loop ended
    /// unexpectedly.
    pub async fn run(self, stop: CancellationToken) -> bool {
        let lifecycle = self.web.enable_lifecycle.then(|| self.reload());
        let scheduler = self.parts.scheduler();
        let Parts {
            store,
            health,
            runtime,
            scrape,
            ..
        } = self.parts;
        let mut tasks = JoinSet::new();
        let bodies = Arc::<http::Bodies>::default();
        let status = Arc::new(Status::new(
            Arc::clone(&store),
            Arc::clone(&health),
            runtime,
            self.config_file,
        ));
        let mut poll_thread = PollThread::start(scheduler, Until::Stopped, self.reloads, stop.clone());
        // The poll loop starts first, so that connections cannot use up the file descriptors that polls need.
        let _ = (&mut poll_thread.ready).await;
        for listener in self.listeners {
            let site = Site {
                scrape: Arc::clone(&scrape),
                status: Arc::clone(&status),
                bodies: Arc::clone(&bodies),
                health: Arc::clone(&health),
                telemetry_path: self.web.telemetry_path.clone(),
                route_prefix: self.web.route_prefix().to_owned(),
                reload: lifecycle.clone(),
                external_url: self.web.external_url.clone(),
                grafana_url: self.web.grafana_url.clone(),
                subtitle: self.subtitle.clone(),
            };
            tasks.spawn(listener.serve(http::routes(site), self.guard.clone(), stop.clone()));
        }
        let saver = Saver {
            store,
            health,
            file: self.state_file,
        };
        let poll_stop = stop.clone();
        // The exporter is useless without its poll loop, so the process ends to let its supervisor restart it.
        let poll_loop = tokio::spawn(async move {
            let _ = poll_thread.end().await;
            let was_stopped = poll_stop.is_cancelled();
            if !was_stopped {
                error!("poll loop ended unexpectedly; stopping");
                poll_stop.cancel();
            }
            was_stopped
        });
        let saver_task = tokio::spawn(saver.run(stop.clone()));
        tasks.spawn(self.reloader.watch_attributes(stop.clone()));
        stop.cancelled().await;
        let mut was_stopped = true;
        let ended = async {
            was_stopped = poll_loop.await.unwrap_or(false);
            while tasks.join_next().await.is_some() {}
            let _ = saver_task.await;
        };
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, ended).await.is_err() {
            warn!("shutdown timed out; abandoning unfinished tasks");
        }
        was_stopped
    }
}

impl Parts {
    fn new(config: &Config) -> Result<Self, Error> {
        check_state_file(config)?;
        let health = Arc::new(Health::new());
        let source = ClientSource::new(config)?;
        let client = source.client(Arc::clone(&health) as Arc<dyn Observer>, None)?;
        let attributes = WatchedFile::new(config.attributes_file.as_deref());
        let table = read_attributes(config.attributes_file.as_deref())?;
        let schedule_config = schedule_config(config, Arc::clone(&client), table);
        warn_about_ineffective_settings(config);
        let store = Arc::new(Store::new(&schedule_config.plans, schedule_config.series_limit));
        store.exclude(&schedule_config.settings.excluded);
        store.set_attributes(schedule_config.settings.attributes.as_ref());
        let schedule_status: SharedScheduleStatus = Arc::new(Mutex::new(ScheduleStatus {
            settings: Arc::clone(&schedule_config.settings),
            ..ScheduleStatus::default()
        }));
        let current = Arc::new(Mutex::new(Current {
            client: (source, client),
            schedule_config: schedule_config.clone(),
            secret_expires: config.auth.secret_expires,
            attributes,
            is_config_valid: true,
        }));
        let source = Arc::clone(&current);
        let client_status = Arc::new(move || client_status(&lock(&source)));
        let loaded = LoadResults {
            config: true,
            config_at: Timestamp::from(SystemTime::now()),
            state: None,
        };
        let runtime = Arc::new(Runtime::new(Arc::clone(&schedule_status), client_status, loaded));
        let scrape = Scrape::new(Arc::clone(&store), Arc::clone(&health), Arc::clone(&runtime));
        Ok(Self {
            store,
            health,
            runtime,
            scrape: Arc::new(scrape),
            schedule_status,
            current,
            schedule_config,
        })
    }

    fn scheduler(&self) -> Scheduler {
        Scheduler::new(
            self.schedule_config.clone(),
            Arc::clone(&self.store),
            Arc::clone(&self.health),
            Arc::clone(&self.schedule_status),
        )
    }

    /// Polls every target once. Returns false if `Scheduler::run` does, or if `elements_up` is 0.
    async fn poll_once(&self, stop: CancellationToken) -> bool {
        let (_sender, reloads) = mpsc::channel(1);
        let polls = PollThread::start(self.scheduler(), Until::EachPolledOnce, reloads, stop);
        polls.end().await && self.runtime.status().is_up()
    }
}

/// Polls every target once. Returns the exposition as text, and whether the polls succeeded. A missing permission does
/// not count as a failure.
///
/// # Errors
/// Returns an error if the configuration is invalid.
pub async fn once(config: &Config, stop: CancellationToken) -> Result<(Vec<u8>, bool), Error> {
    let parts = Parts::new(config)?;
    let all_succeeded = parts.poll_once(stop).await;
    let frames = parts.scrape.frames(&ScrapeFilter::default(), Format::Text);
    Ok((frames.flatten().collect(), all_succeeded))
}

/// The poll loop in its own thread.
struct PollThread {
    /// Completes when the thread has started, or with an error if it cannot start.
    ready: oneshot::Receiver<()>,
    /// Result of [`Scheduler::run`].
    ended: oneshot::Receiver<bool>,
}

impl PollThread {
    /// Runs the loop and its polls in a separate thread, so that polls and scrapes do not delay each other. One thread
    /// is enough, because polls spend most of their time waiting. With several threads, polls would take 50 % longer.
    fn start(
        scheduler: Scheduler,
        until: Until,
        reloads: mpsc::Receiver<ScheduleConfig>,
        stop: CancellationToken,
    ) -> Self {
        let ((ready, is_ready), (sender, ended)) = (oneshot::channel(), oneshot::channel());
        let polling = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let all_succeeded = match runtime {
                Ok(runtime) => {
                    // Here and below, sending fails harmlessly if the receiver has been dropped.
                    let _ = ready.send(());
                    runtime.block_on(scheduler.run(until, reloads, stop))
                }
                Err(error) => {
                    error!(%error, "cannot start the poll runtime");
                    false
                }
            };
            let _ = sender.send(all_succeeded);
        };
        let thread = std::thread::Builder::new().name("polls".to_owned()).spawn(polling);
        if let Err(error) = &thread {
            error!(%error, "cannot start the poll thread");
        }
        Self { ready: is_ready, ended }
    }

    /// Waits until the loop has ended. Returns the result of [`Scheduler::run`], or false if the thread failed to start
    /// or panicked.
    async fn end(self) -> bool {
        // A thread that panics drops its sender.
        self.ended.await.unwrap_or(false)
    }
}

async fn listen(address: &ListenAddress) -> Result<Listener, Error> {
    Listener::bind(&address.candidates())
        .await
        .map_err(|source| Error::Bind {
            address: address.to_string(),
            source,
        })
}

fn client_status(current: &Current) -> ClientStatus {
    let transport = current.client.1.transport();
    let tokens = transport.tokens();
    ClientStatus {
        rate: transport.rate(),
        token_expiry: tokens.expiry(),
        credential_expiry: tokens.credential_expiry().or(current.secret_expires),
        token: tokens.newest_attempt_succeeded(),
    }
}

/// Returns the settings of the poll loop for a configuration.
fn schedule_config(config: &Config, client: Arc<ApiClient>, attributes: Option<Arc<AttributeTable>>) -> ScheduleConfig {
    let (ids, only_ids) = (config.customers.ids(), config.customers.only_ids());
    let settings = CollectorSettings {
        job_types: config.jobs.job_types.clone(),
        job_modules: config.jobs.job_modules.clone(),
        scan_objects: config.scan_changes_objects,
        owner_email: config.metrics.owner_email,
        attributes,
        rpo: config.rpo.clone(),
        gigabyte: config.api.gigabyte,
        license_services: config.licenses.services.clone(),
        backup_services: config.licenses.backup_services.clone(),
        consent_products: config.consent_products.clone(),
        excluded: catalogue::matching(&config.metrics.exclude),
        customer_ids: only_ids.clone(),
    };
    ScheduleConfig {
        client,
        settings: Arc::new(settings),
        plans: config.plans.clone(),
        customers: config.customers.clone(),
        customer_ids: if only_ids.is_empty() { Vec::new() } else { ids.clone() },
        fallback_ids: ids,
        max_concurrency: config.api.max_concurrency,
        series_limit: config.metrics.series_limit,
        run_events: config.run_events,
    }
}

/// Returns the patterns of `metrics.exclude` that match no metric.
fn unmatched_exclusions(config: &Config) -> impl Iterator<Item = &str> {
    let patterns = config.metrics.exclude.iter();
    let unmatched = patterns.filter(|pattern| catalogue::matching(std::slice::from_ref(pattern)).is_empty());
    unmatched.map(Pattern::written)
}

fn warn_about_ineffective_settings(config: &Config) {
    for pattern in unmatched_exclusions(config) {
        warn!(pattern = %log_safe(pattern), "pattern in metrics.exclude matches no metric");
    }
    let now = Timestamp::from(SystemTime::now());
    for (index, part) in config.rpo.overrides.iter().enumerate() {
        if !part.is_in_force(now) {
            warn!(
                entry = index,
                "entry in rpo.overrides has expired and no longer applies"
            );
        }
    }
}
