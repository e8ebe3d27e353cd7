//! Settings for generating customers and advancing time.

use super::{History, Settings};

/// Runs kept per module: enough for a history from the start, without growing for ever.
const RUNS_KEPT: usize = 60;

/// Runs kept in total, so that a world of ten thousand customers fits in a small machine: a full history for about 300
/// customers of eight modules, and a shorter one for more.
const RUNS_KEPT_IN_ALL: usize = 150_000;

/// Modules of an ordinary customer, to divide [`RUNS_KEPT_IN_ALL`].
const MODULES_OF_A_CUSTOMER: usize = 8;

/// Settings for generating customers and advancing time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rules {
    pub(crate) seed: u64,
    pub(crate) customers: usize,
    pub(crate) hostile: bool,
    pub(crate) churn: bool,
    /// Unix time at which the customers' stories take place.
    pub(crate) started: i64,
    pub(crate) kept: usize,
    speed: f64,
}

impl Rules {
    pub(crate) fn new(settings: &Settings, now: i64) -> Self {
        let shared = RUNS_KEPT_IN_ALL / MODULES_OF_A_CUSTOMER / settings.customers.max(1);
        let listed = match settings.history {
            History::Newest => 1,
            History::Runs(runs) => runs,
        };
        Self {
            seed: settings.seed,
            customers: settings.customers,
            hostile: settings.hostile,
            churn: settings.churn,
            started: settings.stories_from.unwrap_or(now),
            kept: shared.max(listed).clamp(4, RUNS_KEPT),
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
