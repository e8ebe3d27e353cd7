//! Settings for generating customers and advancing time.

use std::collections::BTreeMap;

use super::incidents::{Incident, incidents};
use super::{History, Settings};

/// Maximum number of runs per module: enough for 15 scheduled days at the shortest interval, which is six hours.
const MAX_RUNS_PER_MODULE: usize = 60;

/// Approximate number of runs in the world above which each module has a shorter history, down to
/// [`MIN_RUNS_PER_MODULE`]. A world of ten thousand customers then fits into a small machine's memory. The number is
/// enough for the full history of about 300 customers with eight modules.
const MAX_RUNS: usize = 150_000;

/// Minimum number of runs per module: enough for a failed run, a running run, and earlier restore points.
const MIN_RUNS_PER_MODULE: usize = 4;

/// Typical number of modules per customer, for dividing [`MAX_RUNS`] among all modules.
const MODULES_PER_CUSTOMER: usize = 8;

/// Time within which a module with daily runs completes another run, in uncompressed seconds.
const RECOVERY: u32 = 27 * 3600;

/// Settings for generating customers and advancing time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rules {
    pub(crate) seed: u64,
    pub(crate) customers: usize,
    pub(crate) hostile: bool,
    pub(crate) churn: bool,
    /// Unix time for which the customers' scenarios are set up.
    pub(crate) started: i64,
    pub(crate) max_runs: usize,
    /// Incidents before `started`, by customer index. A hostile world has none.
    pub(crate) incidents: BTreeMap<usize, Vec<Incident>>,
    speed: f64,
}

impl Rules {
    pub(crate) fn new(settings: &Settings, now: i64) -> Self {
        let shared = MAX_RUNS / MODULES_PER_CUSTOMER / settings.customers.max(1);
        let listed = match settings.history {
            History::Newest => 1,
            History::Runs(runs) => runs,
        };
        let mut rules = Self {
            seed: settings.seed,
            customers: settings.customers,
            hostile: settings.hostile,
            churn: settings.churn,
            started: settings.scenarios_from.unwrap_or(now),
            max_runs: shared.max(listed).clamp(MIN_RUNS_PER_MODULE, MAX_RUNS_PER_MODULE),
            incidents: BTreeMap::new(),
            speed: if settings.speed.is_finite() && settings.speed > 0.0 {
                settings.speed
            } else {
                1.0
            },
        };
        if !rules.hostile {
            rules.incidents = incidents(rules.seed, rules.customers, rules.started, rules.compressed(RECOVERY));
        }
        rules
    }

    /// Divides scheduled seconds by the speed. Returns at least one second.
    pub(crate) fn compressed(&self, seconds: u32) -> i64 {
        std::time::Duration::try_from_secs_f64(f64::from(seconds) / self.speed)
            .ok()
            .and_then(|passed| i64::try_from(passed.as_secs()).ok())
            .unwrap_or(i64::MAX / 4)
            .max(1)
    }
}
