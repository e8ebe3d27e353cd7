//! Settings for generating customers and advancing time.

use super::{History, Settings};

/// Maximum number of runs per module: enough for a history from the start, without unlimited growth.
const MAX_RUNS_PER_MODULE: usize = 60;

/// Maximum number of runs in total, so that a world of ten thousand customers fits into the memory of a small machine: a
/// full history for about 300 customers with eight modules, and a shorter one for more customers.
const MAX_RUNS: usize = 150_000;

/// Number of modules of an ordinary customer, by which [`MAX_RUNS`] is divided.
const MODULES_PER_CUSTOMER: usize = 8;

/// Settings for generating customers and advancing time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rules {
    pub(crate) seed: u64,
    pub(crate) customers: usize,
    pub(crate) hostile: bool,
    pub(crate) churn: bool,
    /// Unix time at which the customers' scenarios take place.
    pub(crate) started: i64,
    pub(crate) max_runs: usize,
    speed: f64,
}

impl Rules {
    pub(crate) fn new(settings: &Settings, now: i64) -> Self {
        let shared = MAX_RUNS / MODULES_PER_CUSTOMER / settings.customers.max(1);
        let listed = match settings.history {
            History::Newest => 1,
            History::Runs(runs) => runs,
        };
        Self {
            seed: settings.seed,
            customers: settings.customers,
            hostile: settings.hostile,
            churn: settings.churn,
            started: settings.scenarios_from.unwrap_or(now),
            max_runs: shared.max(listed).clamp(4, MAX_RUNS_PER_MODULE),
            speed: if settings.speed.is_finite() && settings.speed > 0.0 {
                settings.speed
            } else {
                1.0
            },
        }
    }

    /// Returns scheduled seconds as seconds of the clock: divided by the speed, at least one.
    pub(crate) fn compressed(&self, seconds: u32) -> i64 {
        std::time::Duration::try_from_secs_f64(f64::from(seconds) / self.speed)
            .ok()
            .and_then(|passed| i64::try_from(passed.as_secs()).ok())
            .unwrap_or(i64::MAX / 4)
            .max(1)
    }
}
