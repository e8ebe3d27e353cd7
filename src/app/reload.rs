//! Reloads the configuration, or only the customers' attributes, and passes the result to the poll loop. The API client
//! is kept if its settings are unchanged.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::client::ClientSource;
use super::saver::check_state_file;
use super::watch::{CHECK_INTERVAL, WatchedFile};
use super::{Current, Error, LoadConfig, Parts, schedule_config, warn_about_ineffective_settings};
use crate::api::Observer;
use crate::api::client::ApiClient;
use crate::collector::CollectorSettings;
use crate::config::{self, Config};
use crate::domain::{AttributeTable, Timestamp};
use crate::error_chain::error_chain;
use crate::health::Health;
use crate::http::Reload;
use crate::lock::lock;
use crate::runtime::Runtime;
use crate::schedule::ScheduleConfig;
use crate::service_manager::{notify_ready, notify_reloading};

/// Reads the attributes file. Returns `None` if no file is configured.
///
/// # Errors
/// Returns an error if the file cannot be read or contains invalid rows.
pub(super) fn read_attributes(file: Option<&Path>) -> Result<Option<Arc<AttributeTable>>, Error> {
    let table = file.map(config::read_attributes).transpose();
    let table = table.map_err(|error| Error::InvalidFile {
        key: "customers.attributes_file",
        problem: error_chain(&error),
    })?;
    Ok(table.map(Arc::new))
}

/// Reloads the configuration, or only the customers' attributes.
pub(super) struct Reloader {
    health: Arc<Health>,
    runtime: Arc<Runtime>,
    current: Arc<Mutex<Current>>,
    load: LoadConfig,
    sender: mpsc::Sender<ScheduleConfig>,
    /// State file at startup; a reload cannot change it.
    state_file: Option<PathBuf>,
    /// Held during a reload, so that reloads are applied in the order in which they read the configuration.
    reload_lock: tokio::sync::Mutex<()>,
}

/// Result of a successful load, before it is applied.
struct LoadedConfig {
    config: Config,
    schedule_config: ScheduleConfig,
    client: (ClientSource, Arc<ApiClient>),
    attributes: WatchedFile,
}

impl Reloader {
    pub(super) fn new(
        parts: &Parts,
        load: LoadConfig,
        sender: mpsc::Sender<ScheduleConfig>,
        state_file: Option<PathBuf>,
    ) -> Self {
        Self {
            health: Arc::clone(&parts.health),
            runtime: Arc::clone(&parts.runtime),
            current: Arc::clone(&parts.current),
            load,
            sender,
            state_file,
            reload_lock: tokio::sync::Mutex::default(),
        }
    }

    /// Returns a function that reloads the configuration in a separate task.
    pub(super) fn reload_fn(reloader: &Arc<Self>) -> Reload {
        let reloader = Arc::clone(reloader);
        Arc::new(move || {
            let reloader = Arc::clone(&reloader);
            // A separate task completes even if the HTTP client disconnects.
            let reload = tokio::spawn(async move {
                let _guard = reloader.reload_lock.lock().await;
                notify_reloading();
                let reloaded = reloader.reload().await;
                notify_ready();
                reloaded
            });
            Box::pin(async move { reload.await.unwrap_or_else(|panicked| Err(panicked.to_string())) })
        })
    }

    /// Rereads the attributes whenever their file has changed, until the exporter stops.
    pub(super) async fn watch_attributes(self: Arc<Self>, stop: CancellationToken) {
        while stop
            .run_until_cancelled(tokio::time::sleep(CHECK_INTERVAL))
            .await
            .is_some()
        {
            let _guard = self.reload_lock.lock().await;
            let mut watched = lock(&self.current).attributes.clone();
            let checked = tokio::task::spawn_blocking(move || (watched.has_stable_change(), watched)).await;
            let Ok((has_stable_change, watched)) = checked else {
                continue;
            };
            let failed_reload = watched.failed_reload;
            lock(&self.current).attributes = watched;
            match has_stable_change {
                false => {}
                // The last full reload failed because of this file, so the full reload is repeated.
                true if failed_reload => _ = self.reload().await,
                true => self.reload_attributes().await,
            }
        }
    }

    /// Rereads the attributes and passes them to the poll loop. If the file is invalid, keeps the previous attributes,
    /// logs a warning and sets the reload metric to 0.
    async fn reload_attributes(&self) {
        let (file, mut schedule_config) = {
            let current = lock(&self.current);
            (current.attributes.path.clone(), current.schedule_config.clone())
        };
        let reading = tokio::task::spawn_blocking(move || read_attributes(file.as_deref()));
        let read = reading.await.map_err(|panicked| panicked.to_string());
        let table = match read.and_then(|read| read.map_err(|error| error_chain(&error))) {
            Ok(table) => table,
            Err(message) => {
                warn!(
                    error = message,
                    "attributes reload failed; keeping the previous attributes"
                );
                self.runtime.record_load(|loaded| loaded.config = false);
                return;
            }
        };
        let rows = table.as_ref().map(|table| table.len());
        let mut settings = CollectorSettings::clone(&schedule_config.settings);
        settings.attributes = table;
        schedule_config.settings = Arc::new(settings);
        let is_config_valid = {
            let mut current = lock(&self.current);
            current.schedule_config = schedule_config.clone();
            current.is_config_valid
        };
        if self.sender.send(schedule_config).await.is_ok() {
            info!(rows, "attributes reloaded");
            self.runtime.record_load(|loaded| loaded.config = is_config_valid);
        }
    }

    /// Reloads the configuration and passes it to the poll loop. If the configuration is invalid, keeps the previous
    /// configuration, sets the reload metric to 0 and returns the error.
    async fn reload(&self) -> Result<(), String> {
        let (load, health) = (Arc::clone(&self.load), Arc::clone(&self.health));
        let state_file = self.state_file.clone();
        let earlier = lock(&self.current).client.clone();
        // Reading files may block.
        let loading = tokio::task::spawn_blocking(move || {
            let config = load().map_err(|error| (error_chain(&error), None))?;
            let attributes = WatchedFile::new(config.attributes_file.as_deref());
            let read = || {
                if config.state_file != state_file {
                    check_state_file(&config)?;
                }
                let source = ClientSource::new(&config)?;
                let client = source.client(health as Arc<dyn Observer>, Some(&earlier))?;
                Ok((source, client))
            };
            let client = read().map_err(|error: Error| (error_chain(&error), None))?;
            let table = read_attributes(config.attributes_file.as_deref())
                .map_err(|error| (error_chain(&error), Some(Box::new(attributes.clone()))))?;
            Ok(LoadedConfig {
                schedule_config: schedule_config(&config, Arc::clone(&client.1), table),
                client,
                attributes,
                config,
            })
        });
        let loaded = match loading
            .await
            .unwrap_or_else(|panicked| Err((panicked.to_string(), None)))
        {
            Ok(loaded) => loaded,
            Err((message, attributes)) => {
                let mut current = lock(&self.current);
                current.is_config_valid = false;
                if let Some(attributes) = attributes {
                    current.attributes = *attributes;
                    current.attributes.failed_reload = true;
                }
                drop(current);
                error!(
                    error = message,
                    "configuration reload failed; keeping the previous configuration"
                );
                self.runtime.record_load(|loaded| loaded.config = false);
                return Err(message);
            }
        };
        let config = loaded.config;
        warn_about_ineffective_settings(&config);
        if config.state_file != self.state_file {
            warn!("state.file changed; restart to apply");
        }
        *lock(&self.current) = Current {
            client: loaded.client,
            schedule_config: loaded.schedule_config.clone(),
            secret_expires: config.auth.secret_expires,
            attributes: loaded.attributes,
            is_config_valid: true,
        };
        if self.sender.send(loaded.schedule_config).await.is_err() {
            return Err("the poll loop has ended".to_owned());
        }
        info!("configuration reloaded");
        self.runtime.record_load(|loaded| {
            loaded.config = true;
            loaded.config_at = Timestamp::from(SystemTime::now());
        });
        Ok(())
    }
}
