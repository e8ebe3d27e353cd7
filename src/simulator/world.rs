//! The truth that both generations of the simulated API tell, and how time changes it.

use serde::Serialize;

use super::customer::{Customer, Module};
use super::dice::Dice;
use super::generate;
use super::schedule::Run;
use super::{History, Settings};

/// Runs kept per module, so that a history is there from the start and does not grow for ever.
const RUNS_KEPT: usize = 60;

/// Runs kept in all, so that a world of ten thousand customers still fits in a small machine: a full
/// history for about 300 customers of eight modules, and a shorter one for each beyond.
const RUNS_KEPT_IN_ALL: usize = 150_000;

/// Modules of an ordinary customer, for sharing out [`RUNS_KEPT_IN_ALL`].
const MODULES_OF_A_CUSTOMER: usize = 8;

/// Scheduled seconds between two customers that join, and between two that leave.
const CHURN_INTERVAL: u32 = 20 * 3600;

/// Customers that join or leave in one step of time at most: a clock set years ahead must not build
/// customers for minutes.
const CHURN_AT_ONCE: u64 = 100;

/// Customers from the first on that never leave, because each of them shows something special.
const PERMANENT_CUSTOMERS: usize = generate::SPECIAL_CUSTOMERS;

/// Everything there is: plain data that a test may change at will and read as the truth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct World {
    /// The customers in the order in which they are listed.
    pub customers: Vec<Customer>,
    now: i64,
    #[serde(skip)]
    rules: Rules,
    #[serde(skip)]
    joined: u64,
    #[serde(skip)]
    left: u64,
}

/// What of the settings the passing of time needs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rules {
    pub(crate) seed: u64,
    pub(crate) customers: usize,
    pub(crate) churn: bool,
    pub(crate) started: i64,
    pub(crate) kept: usize,
    speed: f64,
}

impl Rules {
    fn new(settings: &Settings, now: i64) -> Self {
        let shared = RUNS_KEPT_IN_ALL / MODULES_OF_A_CUSTOMER / settings.customers.max(1);
        let listed = match settings.history {
            History::Newest => 1,
            History::Runs(runs) => runs,
        };
        Self {
            seed: settings.seed,
            customers: settings.customers,
            churn: settings.churn,
            started: now,
            kept: shared.max(listed).clamp(4, RUNS_KEPT),
            speed: if settings.speed.is_finite() && settings.speed > 0.0 {
                settings.speed
            } else {
                1.0
            },
        }
    }

    /// Scheduled seconds as they pass on the clock: divided by the speed, at least one.
    pub(crate) fn compressed(&self, seconds: u32) -> i64 {
        std::time::Duration::try_from_secs_f64(f64::from(seconds) / self.speed)
            .ok()
            .and_then(|passed| i64::try_from(passed.as_secs()).ok())
            .unwrap_or(i64::MAX / 4)
            .max(1)
    }
}

impl World {
    /// The world of a seed as it stands at `now`, with its history behind it.
    pub(crate) fn new(settings: &Settings, now: i64) -> Self {
        let rules = Rules::new(settings, now);
        let customers = (0..rules.customers)
            .map(|index| generate::customer(&rules, index, None))
            .collect();
        let mut world = Self {
            customers,
            now,
            rules,
            joined: 0,
            left: 0,
        };
        world.pass(now);
        world
    }

    /// Lets time pass up to `now`; a clock that went back changes nothing.
    pub(crate) fn advance(&mut self, now: i64) {
        if now > self.now {
            self.pass(now);
        }
    }

    /// The instant up to which time has passed, in Unix seconds.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.now
    }

    /// The customer with this id.
    #[must_use]
    pub fn customer(&self, id: &str) -> Option<&Customer> {
        self.customers.iter().find(|customer| customer.id == id)
    }

    /// The customer with this id, to be changed.
    pub fn customer_mut(&mut self, id: &str) -> Option<&mut Customer> {
        self.customers.iter_mut().find(|customer| customer.id == id)
    }

    fn pass(&mut self, now: i64) {
        self.now = now;
        if self.rules.churn {
            self.join(now);
            self.leave(now);
        }
        for customer in &mut self.customers {
            customer.advance(self.rules.kept, now);
        }
    }

    fn join(&mut self, now: i64) {
        let interval = self.rules.compressed(CHURN_INTERVAL);
        let due = elapsed_intervals(self.rules.started, interval, now);
        let first = self.joined.max(due.saturating_sub(CHURN_AT_ONCE));
        for nth in first..due {
            let nth_from_one = i64::try_from(nth).unwrap_or(i64::MAX).saturating_add(1);
            let at = self.rules.started.saturating_add(interval.saturating_mul(nth_from_one));
            let index = self
                .rules
                .customers
                .saturating_add(usize::try_from(nth).unwrap_or(usize::MAX));
            self.customers.push(generate::customer(&self.rules, index, Some(at)));
        }
        self.joined = due;
    }

    fn leave(&mut self, now: i64) {
        let interval = self.rules.compressed(CHURN_INTERVAL);
        // Half an interval apart from those that join, so that the number goes up and down.
        let started = self.rules.started.saturating_add(interval / 2);
        let due = elapsed_intervals(started, interval, now);
        for nth in self.left.max(due.saturating_sub(CHURN_AT_ONCE))..due {
            let candidates = self.customers.len().saturating_sub(PERMANENT_CUSTOMERS);
            let mut dice = Dice::of(&[self.rules.seed, 0x1EAF, nth]);
            let chosen = dice.below(u64::try_from(candidates).unwrap_or(0));
            let at = PERMANENT_CUSTOMERS.saturating_add(usize::try_from(chosen).unwrap_or(0));
            if at < self.customers.len() {
                self.customers.remove(at);
            }
        }
        self.left = due;
    }
}

/// The runs of a customer's modules that a list of jobs holds; a module without runs has one row for itself.
///
/// A history is ordered by a hash of each run, which looks shuffled and yet keeps its order between two pages.
pub(crate) fn listed_runs<'a>(
    world: &World,
    customer: &'a Customer,
    history: History,
    wanted: impl Fn(&Module) -> bool,
) -> Vec<(&'a Module, Option<&'a Run>)> {
    let count = match history {
        History::Newest => 1,
        History::Runs(count) => count.max(1),
    };
    let mut listed = Vec::new();
    for module in customer.modules.iter().filter(|module| wanted(module)) {
        let mut runs: Vec<&Run> = module.runs.iter().collect();
        runs.sort_by_key(|run| std::cmp::Reverse(run.start));
        if runs.is_empty() {
            listed.push((module, None));
        }
        listed.extend(runs.into_iter().take(count).map(|run| (module, Some(run))));
    }
    if let History::Runs(_) = history {
        listed.sort_by_cached_key(|(module, run)| {
            let start = run.and_then(|run| run.start).unwrap_or(0).cast_unsigned();
            Dice::of(&[
                world.rules.seed,
                u64::from(module.job_type),
                u64::from(module.number),
                start,
            ])
            .next()
        });
    }
    listed
}

/// How many whole intervals have passed.
fn elapsed_intervals(started: i64, interval: i64, now: i64) -> u64 {
    let passed = now.saturating_sub(started).checked_div(interval).unwrap_or(0);
    u64::try_from(passed).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::collections::BTreeSet;

    use super::super::names;
    use super::*;

    const NOW: i64 = 1_790_000_000;
    const DAY: i64 = 86_400;

    fn world(settings: &Settings) -> World {
        World::new(settings, NOW)
    }

    #[test]
    fn two_worlds_of_one_seed_are_equal_also_later() {
        let settings = Settings {
            speed: 60.0,
            ..Settings::default()
        };
        let (mut one, mut two) = (world(&settings), world(&settings));
        assert_eq!(one, two);
        for step in 1..50 {
            one.advance(NOW + step * 600);
            two.advance(NOW + step * 600);
        }
        assert_eq!(one, two);
        assert_ne!(one, world(&settings));
        assert_ne!(world(&settings), world(&Settings { seed: 2, ..settings }));
    }

    #[test]
    fn every_type_and_module_of_the_reference_is_somewhere() {
        let world = world(&Settings::default());
        let modules = || world.customers.iter().flat_map(|customer| &customer.modules);
        let types: BTreeSet<u16> = modules().map(|module| module.job_type).collect();
        let numbers: BTreeSet<u16> = modules().map(|module| module.number).collect();
        assert_eq!(types, names::JOB_TYPES.iter().map(|job_type| job_type.number).collect());
        let mut listed: BTreeSet<u16> = names::MODULES.iter().map(|(number, _)| *number).collect();
        listed.insert(names::UNLISTED_MODULE.0);
        assert_eq!(numbers, listed);
    }

    #[test]
    fn every_status_of_a_customer_and_the_special_modules_are_there() {
        let world = world(&Settings::default());
        let statuses: BTreeSet<i64> = world.customers.iter().map(|customer| customer.status).collect();
        assert_eq!(statuses, (0..=6).collect());
        let modules = || world.customers.iter().flat_map(|customer| &customer.modules);
        assert!(modules().any(|module| module.runs.is_empty()), "never ran");
        let runs = || modules().flat_map(|module| &module.runs);
        assert!(runs().any(|run| run.id == "N/A" && run.end.is_some()));
        assert!(runs().any(|run| run.status == 3 && run.failed == 0));
        let stuck = runs().find(|run| run.end.is_none() && run.start.unwrap() < NOW - 2 * DAY);
        assert!(stuck.is_some(), "running far too long");
        let silent = world.customers.iter().find(|customer| customer.status == 6).unwrap();
        assert!(
            silent
                .modules
                .iter()
                .flat_map(|module| &module.runs)
                .all(|run| run.start.unwrap() < NOW - 4 * DAY)
        );
    }

    #[test]
    fn no_module_is_listed_twice_and_ids_are_unique() {
        let world = world(&Settings {
            customers: 200,
            ..Settings::default()
        });
        let ids: BTreeSet<&str> = world.customers.iter().map(|customer| customer.id.as_str()).collect();
        assert_eq!(ids.len(), 200);
        for customer in &world.customers {
            let modules: BTreeSet<(u16, u16)> = customer
                .modules
                .iter()
                .map(|module| (module.job_type, module.number))
                .collect();
            assert_eq!(modules.len(), customer.modules.len());
        }
    }

    #[test]
    fn customers_join_and_leave_only_with_churn() {
        let mut still = world(&Settings {
            churn: false,
            ..Settings::default()
        });
        let mut moving = world(&Settings {
            churn: true,
            ..Settings::default()
        });
        let before: BTreeSet<String> = moving.customers.iter().map(|customer| customer.id.clone()).collect();
        still.advance(NOW + 10 * DAY);
        moving.advance(NOW + 10 * DAY);
        assert_eq!(still.customers.len(), 40);
        let after: BTreeSet<String> = moving.customers.iter().map(|customer| customer.id.clone()).collect();
        assert!(after.difference(&before).count() >= 8);
        assert!(before.difference(&after).count() >= 4);
        let joined = moving
            .customers
            .iter()
            .find(|customer| !before.contains(&customer.id))
            .unwrap();
        let mut runs = joined.modules.iter().flat_map(|module| &module.runs);
        assert!(runs.all(|run| run.start.unwrap() > NOW));
    }

    #[test]
    fn speed_compresses_the_schedule_and_not_the_clock() {
        let mut world = world(&Settings {
            speed: 1440.0,
            ..Settings::default()
        });
        let ended = |world: &World| {
            let modules = world.customers.iter().flat_map(|customer| &customer.modules);
            modules
                .flat_map(|module| &module.runs)
                .filter(|run| run.end > Some(NOW))
                .count()
        };
        assert_eq!(ended(&world), 0);
        world.advance(NOW + 120);
        assert!(ended(&world) > 200, "two scheduled days in two minutes");
        assert!(
            world
                .customers
                .iter()
                .flat_map(|customer| &customer.modules)
                .flat_map(|module| &module.runs)
                .all(|run| run.end.unwrap_or(0) <= NOW + 120 && run.start.unwrap() <= NOW + 120)
        );
    }

    #[test]
    fn a_scan_profile_fails_after_a_while() {
        let mut world = world(&Settings::default());
        let failed = |world: &World| {
            let profiles = world.customers.iter().flat_map(|customer| &customer.scan_profiles);
            profiles.filter(|profile| profile.report.status == 3).count()
        };
        let before = failed(&world);
        world.advance(NOW + 3 * DAY);
        assert!(failed(&world) > before);
    }

    #[test]
    fn a_clock_that_jumps_does_no_harm() {
        let mut world = world(&Settings {
            speed: 10_000.0,
            ..Settings::default()
        });
        world.advance(i64::MAX);
        world.advance(0);
        assert_eq!(world.now(), i64::MAX);
        assert!(world.customers.len() < 400);
    }

    #[test]
    fn a_large_world_keeps_fewer_runs() {
        let world = world(&Settings {
            customers: 5000,
            ..Settings::default()
        });
        let runs: usize = world
            .customers
            .iter()
            .flat_map(|customer| &customer.modules)
            .map(|module| module.runs.len())
            .sum();
        assert!(runs < 250_000, "{runs}");
    }
}
