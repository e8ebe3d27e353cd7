//! Restores the state at startup, and saves it periodically and at shutdown.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::run_log::log_runs;
use super::{Error, Parts};
use crate::config::Config;
use crate::domain::Timestamp;
use crate::error_chain::error_chain;
use crate::health::Health;
use crate::store::Store;
use crate::store::state_file::{self, StateFile};

/// Time between two saves. The first few saves are closer together. Unless saves are slow, a crash loses at most the
/// changes made during this time, and the next polls fetch them again.
const SAVE_INTERVAL: Duration = Duration::from_secs(10);

/// Delay of the first save. It is short, so that an early crash does not lose all data and an unwritable path is
/// reported quickly.
const FIRST_SAVE_DELAY: Duration = Duration::from_secs(1);

/// Minimum pause after a save, as a multiple of its duration, so that saving takes at most 2 % of the time.
const SAVE_INTERVAL_FACTOR: u32 = 50;

/// Checks that the configured path can be used for a state file, without changing anything.
pub(super) fn check_state_file(config: &Config) -> Result<(), Error> {
    match config.state_file.as_deref().map(state_file::resolve) {
        Some(Err(error)) if error.is_configuration() => Err(invalid_state_file(&error)),
        _ => Ok(()),
    }
}

pub(super) fn invalid_state_file(error: &state_file::Error) -> Error {
    Error::InvalidFile {
        key: "state.file",
        problem: error_chain(error),
    }
}

/// Restores the state. Returns false if it cannot be restored, and `None` if no state file is configured.
pub(super) fn restore(parts: &Parts, file: Option<&StateFile>) -> Option<bool> {
    let file = file?;
    let now = Timestamp::from(SystemTime::now());
    let restored = match parts.store.restore(
        file.path(),
        &parts.schedule_config.settings,
        &parts.schedule_config.customers,
        now,
    ) {
        Ok(0) => true,
        Ok(customers) => {
            info!(customers, path = %file.path().display(), "state restored");
            true
        }
        Err(problem) => {
            let outcome = file.set_aside().map_or_else(
                |error| format!("could not be moved: {}", error_chain(&error)),
                |path| format!("moved to {}", path.display()),
            );
            error!(
                error = error_chain(&problem),
                old_state = outcome,
                "cannot restore state; starting empty"
            );
            false
        }
    };
    Some(restored)
}

/// Saves the state periodically and at shutdown.
pub(super) struct Saver {
    pub(super) store: Arc<Store>,
    pub(super) health: Arc<Health>,
    pub(super) file: Option<Arc<StateFile>>,
}

impl Saver {
    /// Runs until the exporter stops, and then saves once more. A job run is logged only after the state that contains
    /// it has been saved, so that it is not logged again after a crash.
    pub(super) async fn run(self, stop: CancellationToken) {
        let Some(file) = self.file.clone() else {
            return self.log_without_state(&stop).await;
        };
        let mut saved = self.store.version();
        let mut pause = FIRST_SAVE_DELAY;
        let mut is_failing = false;
        loop {
            let stopping = tokio::select! {
                () = stop.cancelled() => true,
                () = tokio::time::sleep(pause) => false,
            };
            let version = self.store.version();
            if version != saved || !self.store.run_events().is_empty() {
                let began = Instant::now();
                let ended = self.store.run_events().take();
                let result = self.save(Arc::clone(&file)).await;
                match result {
                    Ok(()) => {
                        saved = version;
                        is_failing = false;
                        log_runs(ended);
                    }
                    Err(problem) => {
                        self.store.run_events().put_back(ended);
                        self.health.save_failed();
                        if !is_failing {
                            error!(error = problem, "cannot save state; retrying");
                        }
                        is_failing = true;
                    }
                }
                // The pause grows, because the state changes every second during the first cycle, but less often
                // afterwards.
                let max_pause = SAVE_INTERVAL.max(began.elapsed() * SAVE_INTERVAL_FACTOR);
                pause = (pause * 2).max(began.elapsed() * SAVE_INTERVAL_FACTOR).min(max_pause);
            }
            if stopping {
                return;
            }
        }
    }

    /// Logs job runs if no state file is configured.
    async fn log_without_state(&self, stop: &CancellationToken) {
        let mut is_running = true;
        while is_running {
            is_running = stop
                .run_until_cancelled(tokio::time::sleep(FIRST_SAVE_DELAY))
                .await
                .is_some();
            log_runs(self.store.run_events().take());
        }
    }

    async fn save(&self, file: Arc<StateFile>) -> Result<(), String> {
        let saved = self.store.saved_state();
        tokio::task::spawn_blocking(move || saved.save(&file))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error_chain(&error))
    }
}
