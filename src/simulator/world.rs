//! The simulated partner's state, which both API versions report, and its changes over time.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::customer::{Customer, Module};
use super::generate;
use super::rng::SeededRng;
use super::rules::Rules;
use super::run::Run;
use super::{History, Settings};

/// Interval at which one customer joins and one leaves, in uncompressed seconds.
const CHURN_INTERVAL: u32 = 20 * 3600;

/// Maximum number of customers that join, and of customers that leave, each time the world advances. Without a limit,
/// advancing the world by years would take minutes.
const MAX_CHURN_PER_STEP: u64 = 100;

/// Number of customers at the start of the list that never leave, because each has a different scenario.
const PERMANENT_CUSTOMERS: usize = generate::SPECIAL_CUSTOMERS;

/// The simulated partner's data. Tests may read and change the customers.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    /// Customers, in the order of the customer list.
    pub customers: Vec<Customer>,
    now: i64,
    rules: Rules,
    joined: u64,
    left: u64,
}

impl World {
    /// Creates the world with its history up to `now`.
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
        world.apply_time(now);
        world
    }

    /// Advances to `now`. Has no effect if the clock was set back.
    pub(crate) fn advance(&mut self, now: i64) {
        if now > self.now {
            self.apply_time(now);
        }
    }

    /// Returns the Unix time up to which the world has advanced.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.now
    }

    /// Returns the customer with this id.
    #[must_use]
    pub fn customer(&self, id: &str) -> Option<&Customer> {
        self.customers.iter().find(|customer| customer.id == id)
    }

    fn apply_time(&mut self, now: i64) {
        self.now = now;
        if self.rules.churn {
            self.join(now);
            self.leave(now);
        }
        for customer in &mut self.customers {
            customer.advance(self.rules.max_runs, now);
        }
    }

    fn join(&mut self, now: i64) {
        let interval = self.rules.compressed(CHURN_INTERVAL);
        let due = elapsed_intervals(self.rules.started, interval, now);
        let first = self.joined.max(due.saturating_sub(MAX_CHURN_PER_STEP));
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
        // Customers leave half an interval after others join, so that the number of customers rises and falls.
        let started = self.rules.started.saturating_add(interval / 2);
        let due = elapsed_intervals(started, interval, now);
        for nth in self.left.max(due.saturating_sub(MAX_CHURN_PER_STEP))..due {
            let candidates = self.customers.len().saturating_sub(PERMANENT_CUSTOMERS);
            let mut rng = SeededRng::from_path(&[self.rules.seed, 0x1EAF, nth]);
            let chosen = rng.below(u64::try_from(candidates).unwrap_or(0));
            let at = PERMANENT_CUSTOMERS.saturating_add(usize::try_from(chosen).unwrap_or(0));
            if at < self.customers.len() {
                self.customers.remove(at);
            }
        }
        self.left = due;
    }
}

/// A row of a job list.
#[derive(Clone, Debug)]
pub(crate) struct JobRow<'a> {
    pub(crate) module: &'a Module,
    /// Run, or a placeholder if the module has no runs.
    pub(crate) run: Cow<'a, Run>,
    /// Unix time of the last modification. With [`History::Newest`], all backup scopes of a module share the latest.
    pub(crate) last_modified: Option<i64>,
}

impl JobRow<'_> {
    fn instant(&self) -> i64 {
        self.run.instant().unwrap_or(i64::MIN)
    }
}

/// Returns the rows of a customer's job list.
///
/// With [`History::Runs`], the rows are sorted by a hash of each run, so that they look shuffled but keep their order
/// from page to page.
pub(crate) fn job_rows<'a>(
    world: &World,
    customer: &'a Customer,
    history: History,
    is_selected: impl Fn(&Module) -> bool,
) -> Vec<JobRow<'a>> {
    let modules = customer.modules.iter().filter(|module| is_selected(module));
    match history {
        History::Newest => {
            let mut rows: Vec<_> = modules.flat_map(|module| rows_of(module, 1)).collect();
            share_last_modified(&mut rows);
            rows
        }
        History::Runs(count) => {
            let mut rows: Vec<_> = modules.flat_map(|module| rows_of(module, count.max(1))).collect();
            rows.sort_by_cached_key(|row| shuffled(world.rules.seed, row));
            rows
        }
    }
}

fn rows_of(module: &Module, count: usize) -> Vec<JobRow<'_>> {
    let mut rows: Vec<JobRow<'_>> = module
        .runs
        .iter()
        .rev()
        .map(|run| JobRow {
            module,
            run: Cow::Borrowed(run),
            last_modified: run.last_modified,
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.instant()));
    rows.truncate(count);
    if rows.is_empty() {
        rows.push(JobRow {
            module,
            run: Cow::Owned(Run::not_started()),
            last_modified: None,
        });
    }
    rows
}

fn share_last_modified(rows: &mut [JobRow<'_>]) {
    let mut newest: BTreeMap<(u16, u16), Option<i64>> = BTreeMap::new();
    let has_scope = |row: &&mut JobRow<'_>| row.module.scope.is_some() && row.last_modified.is_some();
    for row in rows.iter_mut().filter(has_scope) {
        let shared = newest.entry((row.module.job_type, row.module.number)).or_default();
        *shared = row.last_modified.max(*shared);
    }
    for row in rows.iter_mut().filter(has_scope) {
        if let Some(shared) = newest.get(&(row.module.job_type, row.module.number)) {
            row.last_modified = *shared;
        }
    }
}

fn shuffled(seed: u64, row: &JobRow<'_>) -> u64 {
    let module = row.module;
    let scope = module.scope.iter().flat_map(|scope| scope.bytes()).map(u64::from);
    let path = [
        seed,
        u64::from(module.job_type),
        u64::from(module.number),
        row.instant().cast_unsigned(),
    ];
    SeededRng::from_path(&path.into_iter().chain(scope).collect::<Vec<_>>()).next()
}

fn elapsed_intervals(started: i64, interval: i64, now: i64) -> u64 {
    let passed = now.saturating_sub(started).checked_div(interval).unwrap_or(0);
    u64::try_from(passed).unwrap_or(0)
}

#[cfg(test)]
mod tests;
