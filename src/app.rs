//! The wiring: everything that runs is put together here, for production, the demo and the tests alike.

pub mod budget;
mod check;
mod demo;
mod healthcheck;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use check::{Report, check};
pub use demo::{Demo, simulate};
pub use healthcheck::{Unhealthy, healthcheck};

use crate::api::auth::TokenSource;
use crate::api::credential::{Credential, CredentialError};
use crate::api::exchange::http_client;
use crate::api::gateway::{Choice, Gateway};
use crate::api::pace::Limits;
use crate::api::transport::{self, Transport};
use crate::api::{Generation, Observer};
use crate::args::{ListenAddress, Web};
use crate::collector::{self, Objective, Settings};
use crate::config::{self, Config, Password, Version};
use crate::domain::{self, CustomerId, Purpose, Shard, Timestamp};
use crate::error_chain::error_chain;
use crate::exposition::Format;
use crate::health::Health;
use crate::http::server::Listener;
use crate::http::web_config::{self, Guard};
use crate::http::{self, Reload, Site};
use crate::schedule::{Orders, Pulse, Scheduler, SharedPulse, Until};
use crate::scrape::{Loaded, Narrowing, Scrape, Vitals};
use crate::status::Status;
use crate::store::state::{self, set_aside};
use crate::store::{Plan, Store};

/// The shortest time between two saves of the state. Less than the shortest interval by default, so that a crash
/// costs no more than what the next polls tell again.
const SAVE_INTERVAL: Duration = Duration::from_secs(10);

/// How soon what was learned after the start is saved for the first time, so that not even an early crash loses all, and
/// a path that cannot be written shows.
const FIRST_SAVE: Duration = Duration::from_secs(1);

/// Saving takes at most this part of the time, however large the state.
const SAVE_PART: u32 = 50;

/// How long the parts may take to end when the exporter stops, before it ends without them.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Why the exporter cannot start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A file that the configuration names.
    #[error("{key}: {problem}")]
    Material {
        /// The key that names it.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The web configuration.
    #[error(transparent)]
    Web(#[from] web_config::Error),
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Signals that cannot be listened to.
    #[error("cannot listen to signals")]
    Signals(#[source] io::Error),
}

impl Error {
    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Material { .. } | Self::Web(_) => config::EXIT_CODE,
            Self::Bind { .. } | Self::Signals(_) => 1,
        }
    }
}

/// Reads the configuration: once at start, and again at every reload.
pub type LoadConfig = Arc<dyn Fn() -> Result<Config, config::Error> + Send + Sync>;

/// Where the configuration of a production run comes from: a file, the environment of the process, and the share of the
/// customers that is this exporter's.
pub fn config_source(file: Option<PathBuf>, shard: Shard) -> LoadConfig {
    Arc::new(move || {
        let mut config = load_config(file.as_deref(), std::env::vars_os())?;
        config.shard = shard;
        Ok(config)
    })
}

/// Reads a configuration, with the vendor's names understood.
///
/// # Errors
/// What is wrong with it.
pub fn load_config(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> Result<Config, config::Error> {
    let names = config::Names {
        service: domain::service_number,
        module: domain::module_number,
    };
    config::load(file, environment, names)
}

/// The exporter, bound to its addresses and not yet polling.
pub struct App {
    store: Arc<Store>,
    health: Arc<Health>,
    scrape: Arc<Scrape>,
    current: Arc<Mutex<Current>>,
    config_file: Option<PathBuf>,
    scheduler: Scheduler,
    reloads: mpsc::Receiver<Orders>,
    reload: Reload,
    state_file: Option<PathBuf>,
    listeners: Vec<Listener>,
    guard: Option<Arc<Guard>>,
    web: Web,
    subtitle: String,
}

/// What [`App`] and [`once`] share: the parts around one configuration.
struct Parts {
    store: Arc<Store>,
    health: Arc<Health>,
    scrape: Arc<Scrape>,
    pulse: SharedPulse,
    current: Arc<Mutex<Current>>,
    orders: Orders,
}

/// What is in force, for what is read of it at scrape time.
struct Current {
    gateway: Arc<Gateway>,
    settings: Arc<Settings>,
    secret_expires: Option<i64>,
}

impl App {
    /// Reads the configuration, restores the state and binds the sockets.
    ///
    /// # Errors
    /// Where one of these cannot be done. A state that cannot be restored is no error: it is said, and shown.
    pub async fn bind(load: LoadConfig, web: Web, subtitle: String) -> Result<Self, Error> {
        let config = load()?;
        let guard = web.config_file.as_deref().map(Guard::load).transpose()?;
        let parts = Parts::new(&config)?;
        let mut listeners = Vec::with_capacity(web.listen_addresses.len());
        for address in &web.listen_addresses {
            listeners.push(listen(address).await?);
        }
        let restored = restore(&parts, &config);
        parts.scrape.note_loaded(|loaded| loaded.state = restored);
        if parts.store.was_restored() && !parts.store.customers().is_empty() {
            parts.health.set_ready();
        }
        let (sender, reloads) = mpsc::channel(1);
        let reload = reloader(&parts, load, sender, config.state_file.clone());
        let scheduler = Scheduler::new(
            parts.orders.clone(),
            Arc::clone(&parts.store),
            Arc::clone(&parts.health),
            Arc::clone(&parts.pulse),
        );
        Ok(Self {
            store: parts.store,
            health: parts.health,
            scrape: parts.scrape,
            current: parts.current,
            config_file: None,
            scheduler,
            reloads,
            reload,
            state_file: config.state_file,
            listeners,
            guard,
            web,
            subtitle,
        })
    }

    /// Says on the status page which file the configuration was read from.
    #[must_use]
    pub fn read_from(mut self, config_file: Option<PathBuf>) -> Self {
        self.config_file = config_file;
        self
    }

    /// The addresses that it listens on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .filter_map(|listener| listener.address().ok())
            .collect()
    }

    /// The scheme of the URLs under which it is reached, `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        let serves_tls = self.guard.as_ref().is_some_and(|guard| guard.serves_tls());
        if serves_tls { "https" } else { "http" }
    }

    /// Loads the configuration anew, as SIGHUP asks for.
    pub fn reload(&self) -> Reload {
        Arc::clone(&self.reload)
    }

    /// What answers scrapes, for tests that look at it without a socket.
    pub fn scrape(&self) -> Arc<Scrape> {
        Arc::clone(&self.scrape)
    }

    /// Polls and serves until it is told to stop, then saves the state.
    pub async fn run(self, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        let bodies = Arc::<http::Bodies>::default();
        let lifecycle = self.web.enable_lifecycle.then(|| Arc::clone(&self.reload));
        let current = self.current;
        let status = Arc::new(Status::new(
            Arc::clone(&self.scrape),
            Arc::clone(&self.store),
            Arc::clone(&self.health),
            Arc::new(move || Arc::clone(&current.lock().unwrap_or_else(PoisonError::into_inner).settings)),
            self.config_file,
        ));
        for listener in self.listeners {
            let site = Site {
                scrape: Arc::clone(&self.scrape),
                status: Arc::clone(&status),
                bodies: Arc::clone(&bodies),
                health: Arc::clone(&self.health),
                telemetry_path: self.web.telemetry_path.clone(),
                route_prefix: self.web.route_prefix.clone(),
                reload: lifecycle.clone(),
                external_url: self.web.external_url.clone(),
                subtitle: self.subtitle.clone(),
            };
            tasks.spawn(listener.serve(http::routes(site), self.guard.clone(), stop.clone()));
        }
        let saver = Saver {
            store: Arc::clone(&self.store),
            health: Arc::clone(&self.health),
            path: self.state_file,
        };
        let polling = stop.clone();
        let scheduler = self.scheduler;
        let reloads = self.reloads;
        tasks.spawn(async move {
            let _ = poll_apart(scheduler, Until::Stopped, reloads, polling).await;
        });
        let saving = tokio::spawn({
            let stop = stop.clone();
            async move { saver.run(stop).await }
        });
        stop.cancelled().await;
        let ended = async {
            while tasks.join_next().await.is_some() {}
            let _ = saving.await;
        };
        if tokio::time::timeout(STOP_LIMIT, ended).await.is_err() {
            warn!("not everything ended in time; leaving it behind");
        }
    }
}

impl Parts {
    fn new(config: &Config) -> Result<Self, Error> {
        let health = Arc::new(Health::new());
        let orders = orders(config, Arc::clone(&health) as Arc<dyn Observer>)?;
        let store = Arc::new(Store::new(&orders.plans, orders.series_limit));
        let pulse: SharedPulse = Arc::new(Mutex::new(Pulse::default()));
        let current = Arc::new(Mutex::new(Current {
            gateway: Arc::clone(&orders.gateway),
            settings: Arc::clone(&orders.settings),
            secret_expires: config.auth.secret_expires,
        }));
        let read = Arc::clone(&current);
        let vitals = Arc::new(move || vitals(&read.lock().unwrap_or_else(PoisonError::into_inner)));
        let loaded = Loaded {
            config: true,
            config_at: Timestamp::from(SystemTime::now()),
            state: true,
        };
        let scrape = Scrape::new(
            Arc::clone(&store),
            Arc::clone(&health),
            Arc::clone(&pulse),
            vitals,
            loaded,
        );
        Ok(Self {
            store,
            health,
            scrape: Arc::new(scrape),
            pulse,
            current,
            orders,
        })
    }
}

/// One full poll of everything; the exposition as text, and whether every poll succeeded.
///
/// # Errors
/// Where the configuration does not allow it.
pub async fn once(config: &Config, stop: CancellationToken) -> Result<(Vec<u8>, bool), Error> {
    let parts = Parts::new(config)?;
    let scheduler = Scheduler::new(
        parts.orders.clone(),
        Arc::clone(&parts.store),
        Arc::clone(&parts.health),
        Arc::clone(&parts.pulse),
    );
    let (_sender, reloads) = mpsc::channel(1);
    let all_good = poll_apart(scheduler, Until::EachPolledOnce, reloads, stop).await;
    let frames = parts.scrape.frames(&Narrowing::default(), Format::Text);
    Ok((frames.flatten().collect(), all_good && parts.scrape.is_up()))
}

/// Runs the loop and its polls in one thread of their own, until they end. What polls do is mostly waiting, and handing
/// it from thread to thread would cost more than half of it again; and so no poll ever keeps a scrape waiting, nor a
/// scrape a poll. True when no poll failed.
async fn poll_apart(
    scheduler: Scheduler,
    until: Until,
    reloads: mpsc::Receiver<Orders>,
    stop: CancellationToken,
) -> bool {
    let (sender, ended) = oneshot::channel();
    let polling = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let all_good = match runtime {
            Ok(runtime) => runtime.block_on(scheduler.run(until, reloads, stop)),
            Err(error) => {
                error!(%error, "nothing can be polled");
                false
            }
        };
        // Whoever waited may have given up.
        let _ = sender.send(all_good);
    };
    let thread = std::thread::Builder::new().name("polls".to_owned()).spawn(polling);
    if let Err(error) = &thread {
        error!(%error, "nothing can be polled");
    }
    // A thread that panics lets go of its end.
    ended.await.unwrap_or(false)
}

async fn listen(address: &ListenAddress) -> Result<Listener, Error> {
    Listener::bind(&address.candidates())
        .await
        .map_err(|source| Error::Bind {
            address: address.to_string(),
            source,
        })
}

fn vitals(current: &Current) -> Vitals {
    let transport = current.gateway.transport();
    let tokens = transport.tokens();
    Vitals {
        rate: transport.rate(),
        token_expiry: tokens.expiry(),
        credential_expiry: tokens.credential_expiry().or(current.secret_expires),
        token: tokens.newest_attempt_succeeded(),
    }
}

/// What the loop works by, out of a configuration.
fn orders(config: &Config, observer: Arc<dyn Observer>) -> Result<Orders, Error> {
    let ids: &[String] = config.customers.ids_only().unwrap_or_default();
    let rpo = config.rpo.clone();
    let settings = Settings {
        job_types: config.jobs.job_types.clone(),
        job_modules: config.jobs.job_modules.clone(),
        scan_objects: config.scan_changes_objects,
        owner_email: config.metrics.owner_email,
        rpo: Objective::new(move |of| rpo.objective(of.customer_id, of.organization, of.service, of.module)),
        customer_ids: ids.to_vec(),
    };
    let plans = plans(config);
    let (customers, shard) = (config.customers.clone(), config.shard);
    Ok(Orders {
        gateway: Arc::new(gateway(config, &plans, observer)?),
        settings: Arc::new(settings),
        plans,
        admits: Arc::new(move |id, organization| {
            shard.owns(id, Purpose::Poll) && customers.admits(id.as_str(), organization)
        }),
        customer_ids: not_excluded(config, ids),
        fallback_ids: not_excluded(config, config.customers.ids()),
        max_concurrency: config.api.max_concurrency,
        series_limit: config.metrics.series_limit,
    })
}

/// The customers with these ids that are not excluded by id, and are this exporter's.
fn not_excluded(config: &Config, ids: &[String]) -> Vec<CustomerId> {
    let wanted = ids.iter().filter(|id| config.customers.admits(id, ""));
    let ids = wanted.filter_map(|id| CustomerId::parse(id));
    ids.filter(|id| config.shard.owns(id, Purpose::Poll)).collect()
}

fn plans(config: &Config) -> Vec<Plan> {
    let plan = |entry: &collector::Entry| {
        let set = config.collectors.get(entry.name);
        // The configuration is made of the same table, so every collector is in it.
        set.map_or(Plan::OFF, |set| Plan {
            enabled: set.enabled,
            interval: set.interval,
            stale_after: set.stale_after,
        })
    };
    collector::ALL.iter().map(plan).collect()
}

fn gateway(config: &Config, plans: &[Plan], observer: Arc<dyn Observer>) -> Result<Gateway, Error> {
    // Whoever comes second finds the same provider installed, which is all that matters.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let authorities = authorities(config.api.ca_file.as_deref())?;
    let proxy = config.api.proxy_url.as_ref().map(config::ProxyUrl::expose);
    let client = http_client(config.api.timeout, proxy, &authorities).map_err(|error| Error::Material {
        key: "api",
        problem: error_chain(&error.without_url()),
    })?;
    let choice = match config.api.version {
        Version::V1 => Choice::Fixed(Generation::V1),
        Version::V3 => Choice::Fixed(Generation::V3),
        Version::Auto => Choice::Auto,
    };
    let tokens = TokenSource::new(
        client.clone(),
        config.api.token_url.clone(),
        config.auth.client_id.clone(),
        credential(&config.auth.credential)?,
        config.api.timeout,
        vec![scopes(plans, Generation::V3), scopes(plans, Generation::V1)],
        Arc::clone(&observer),
    );
    let settings = transport::Settings {
        base_url: config.api.base_url.clone(),
        timeout: config.api.timeout,
        limits: Limits {
            requests_per_second: config.api.requests_per_second,
            max_concurrency: config.api.max_concurrency,
        },
        gigabyte: config.api.gigabyte,
    };
    let transport = Transport::new(client, Arc::new(tokens), settings, observer);
    Ok(Gateway::new(transport, choice, &config.api.v1_base_path))
}

/// The scopes of the enabled collectors, each once.
fn scopes(plans: &[Plan], generation: Generation) -> Vec<&'static str> {
    let mut scopes: Vec<&'static str> = Vec::new();
    for (entry, _) in collector::ALL.iter().zip(plans).filter(|(_, plan)| plan.enabled) {
        let scope = entry.scope(generation);
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    scopes
}

fn authorities(file: Option<&Path>) -> Result<Vec<reqwest::Certificate>, Error> {
    const KEY: &str = "api.ca_file";
    let Some(file) = file else { return Ok(Vec::new()) };
    let problem = |problem: String| Error::Material {
        key: KEY,
        problem: format!("{}: {problem}", file.display()),
    };
    let pem = std::fs::read(file).map_err(|error| problem(error.to_string()))?;
    let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| problem(error_chain(&error)))?;
    if certificates.is_empty() {
        return Err(problem("holds no certificate; expected PEM".to_owned()));
    }
    Ok(certificates)
}

fn credential(configured: &config::Credential) -> Result<Credential, Error> {
    let material = |key| {
        move |error: CredentialError| Error::Material {
            key,
            problem: error_chain(&error),
        }
    };
    match configured {
        config::Credential::Secret(secret) => {
            Credential::secret(secret.clone()).map_err(material("auth.client_secret"))
        }
        config::Credential::SecretFile(path) => {
            Credential::secret_file(path).map_err(material("auth.client_secret_file"))
        }
        config::Credential::Certificate {
            file,
            private_key,
            password,
        } => {
            let from_file;
            let password = match password {
                None => None,
                Some(Password::Value(password)) => Some(password.expose()),
                Some(Password::File(path)) => {
                    from_file = std::fs::read_to_string(path).map_err(|error| Error::Material {
                        key: "auth.certificate_password_file",
                        problem: format!("{}: {error}", path.display()),
                    })?;
                    Some(from_file.trim_end_matches(['\r', '\n']))
                }
            };
            Credential::certificate(file, private_key.as_deref(), password).map_err(material("auth.certificate_file"))
        }
    }
}

/// Restores the state; false where there is one that cannot be used.
fn restore(parts: &Parts, config: &Config) -> bool {
    let Some(path) = &config.state_file else { return true };
    let admits = |id: &CustomerId, organization: &str| (parts.orders.admits)(id, organization);
    let now = Timestamp::from(SystemTime::now());
    match parts.store.restore(path, &parts.orders.settings, admits, now) {
        Ok(0) => true,
        Ok(customers) => {
            info!(customers, path = %path.display(), "state restored");
            true
        }
        Err(problem) => {
            let aside = set_aside(path).map_or_else(
                |error| format!("it stays where it is: {error}"),
                |aside| format!("it is now {}", aside.display()),
            );
            error!(
                error = error_chain(&problem),
                aside, "the state cannot be restored; going on without it"
            );
            false
        }
    }
}

/// Loads the configuration anew and hands it to the loop. A bad one changes nothing but the metric that says so.
fn reloader(parts: &Parts, load: LoadConfig, sender: mpsc::Sender<Orders>, state_file: Option<PathBuf>) -> Reload {
    let health = Arc::clone(&parts.health);
    let scrape = Arc::clone(&parts.scrape);
    let current = Arc::clone(&parts.current);
    Arc::new(move || {
        let (load, sender, health) = (Arc::clone(&load), sender.clone(), Arc::clone(&health));
        let (scrape, current, state_file) = (Arc::clone(&scrape), Arc::clone(&current), state_file.clone());
        Box::pin(async move {
            let loaded = load()
                .map_err(Error::from)
                .and_then(|config| Ok((orders(&config, health as Arc<dyn Observer>)?, config)));
            let (orders, config) = match loaded {
                Ok(loaded) => loaded,
                Err(problem) => {
                    scrape.note_loaded(|loaded| loaded.config = false);
                    let message = error_chain(&problem);
                    error!(
                        error = message,
                        "the configuration cannot be reloaded; the old one stays in force"
                    );
                    return Err(message);
                }
            };
            if config.state_file != state_file {
                warn!("state.file takes effect at the next start");
            }
            *current.lock().unwrap_or_else(PoisonError::into_inner) = Current {
                gateway: Arc::clone(&orders.gateway),
                settings: Arc::clone(&orders.settings),
                secret_expires: config.auth.secret_expires,
            };
            if sender.send(orders).await.is_err() {
                return Err("the poll loop has ended".to_owned());
            }
            scrape.note_loaded(|loaded| {
                loaded.config = true;
                loaded.config_at = Timestamp::from(SystemTime::now());
            });
            info!("configuration reloaded");
            Ok(())
        })
    })
}

/// Saves the state now and then, and at the end.
struct Saver {
    store: Arc<Store>,
    health: Arc<Health>,
    path: Option<PathBuf>,
}

impl Saver {
    async fn run(self, stop: CancellationToken) {
        let Some(path) = self.path.clone() else { return };
        let mut saved = self.store.generation();
        let mut pause = FIRST_SAVE;
        let mut failing = false;
        loop {
            let stopping = tokio::select! {
                () = stop.cancelled() => true,
                () = tokio::time::sleep(pause) => false,
            };
            let generation = self.store.generation();
            if generation != saved {
                let began = Instant::now();
                let result = self.save(path.clone()).await;
                match result {
                    Ok(()) => {
                        saved = generation;
                        failing = false;
                    }
                    Err(problem) => {
                        self.health.save_failed();
                        if !failing {
                            error!(error = problem, "the state cannot be saved; going on without");
                        }
                        failing = true;
                    }
                }
                // Until the round of a start is over there is much to learn every second, and later once in a while.
                let settled = SAVE_INTERVAL.max(began.elapsed() * SAVE_PART);
                pause = (pause * 2).max(began.elapsed() * SAVE_PART).min(settled);
            }
            if stopping {
                return;
            }
        }
    }

    async fn save(&self, path: PathBuf) -> Result<(), String> {
        let snapshot: state::Snapshot = self.store.snapshot();
        tokio::task::spawn_blocking(move || snapshot.save(&path))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error_chain(&error))
    }
}
