//! Poll loop: longest overdue first, one poll at a time per collector and target.
//!
//! One task owns the queue and the running polls. It starts polls while slots are free, handles their outcomes, and
//! updates the heartbeat for `/-/healthy`. A poll that panics or hangs counts as failed; the loop continues.

mod apply;
mod clock;
mod customers;
mod cycle;
mod fetch_mode;
mod objectives;
#[cfg(test)]
mod outage;
mod outcome;
mod poll_error;
pub mod queue;
#[cfg(test)]
mod simulation;
mod slots;
mod unmatched;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::api::Generation;
use crate::api::client::ApiClient;
use crate::collector::{
    CollectorId, CollectorSettings, Context, PerCollector, Plan, PollOutput, RecordSource, RequestSettings, Target, ids,
};
use crate::domain::{CustomerFilter, CustomerId, Timestamp, UnmatchedPattern};
use crate::health::Health;
use crate::log_throttle::LogThrottle;
use crate::runtime::{ScheduleStatus, SharedScheduleStatus};
use crate::store::Store;
use clock::{ClockWatch, Step};
use cycle::Cycle;
use fetch_mode::FetchMode;
use queue::{Due, MonotonicTime, Queue, Urgency};
use slots::Load;
use unmatched::ListedNames;

pub use outcome::UNLICENSED_RECHECK;
pub use poll_error::{PollError, REASONS, reasons};

/// Longest duration of a poll, including waits for the rate limiter. A list of two hundred pages at the lowest rate
/// takes less, so a longer poll hangs.
const POLL_DEADLINE: Duration = Duration::from_secs(45 * 60);

/// Longest sleep of the loop, so that it updates the heartbeat and renews tokens even if no poll is due.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Minimum number of customers among which the slots for concurrent polls are shared.
const CUSTOMERS_AT_ONCE: usize = 4;

/// Settings of the poll loop. A reload replaces them.
#[derive(Clone)]
pub struct ScheduleConfig {
    /// The API client.
    pub client: Arc<ApiClient>,
    /// Settings of the collectors.
    pub settings: Arc<CollectorSettings>,
    /// Schedule of each collector.
    pub plans: PerCollector<Plan>,
    /// Which customers are polled.
    pub customers: CustomerFilter,
    /// The only customers polled, if the configuration lists them all by id.
    pub customer_ids: Vec<CustomerId>,
    /// Customers that the configuration lists by id besides patterns, for a registration that may not list all
    /// customers.
    pub fallback_ids: Vec<CustomerId>,
    /// Maximum number of concurrent polls.
    pub max_concurrency: usize,
    /// Maximum number of series; records that would exceed it are rejected.
    pub series_limit: Option<usize>,
    /// Whether job runs that are seen to end are noted for the log.
    pub run_events: bool,
}

/// Condition on which the loop ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// When it is stopped.
    Stopped,
    /// After one poll of every target.
    EachPolledOnce,
}

/// The poll loop.
pub struct Scheduler {
    config: ScheduleConfig,
    store: Arc<Store>,
    health: Arc<Health>,
    status: SharedScheduleStatus,
    queue: Queue,
    polls: JoinSet<Outcome>,
    /// Running polls by target.
    in_progress: HashMap<Target, usize>,
    /// Running polls by collector.
    held: PerCollector<usize>,
    /// Consecutive failures by collector and target.
    failures: HashMap<(CollectorId, Target), u32>,
    /// Targets that were queued as due immediately and have not been polled yet.
    unpolled: HashSet<(CollectorId, Target)>,
    /// The newest complete customer list.
    listed_names: Option<ListedNames>,
    /// The collector of the poll started last.
    last_started: Option<CollectorId>,
    /// Full cycles of jobs since the start.
    jobs_cycles: u32,
    /// Patterns that match nothing; `None` before the first complete list.
    unmatched: Option<BTreeSet<UnmatchedPattern>>,
    /// Customers already reported as having no organization name yet.
    nameless: BTreeSet<CustomerId>,
    fetch_modes: PerCollector<FetchMode>,
    cycles: PerCollector<Cycle>,
    log_throttle: LogThrottle,
    clocks: ClockWatch,
    started: Instant,
    customers_listed: Option<bool>,
    failed_any: bool,
    /// Whether the pause after failed token requests was over at the last iteration.
    may_have_token: bool,
    /// Time at which the next override of an objective ends.
    next_end: Option<Timestamp>,
}

/// A poll that has ended.
struct Outcome {
    due: Due,
    /// Settings of its requests when it started.
    request_settings: RequestSettings,
    result: Result<PollOutput, PollError>,
}

impl Scheduler {
    /// Returns a loop that has not started. Targets restored from a state file keep their due times.
    pub fn new(config: ScheduleConfig, store: Arc<Store>, health: Arc<Health>, status: SharedScheduleStatus) -> Self {
        for collector in ids() {
            health.begin_failures_at_zero(collector.descriptor().endpoint, poll_error::reasons());
        }
        let mut scheduler = Self {
            config,
            store,
            health,
            status,
            queue: Queue::default(),
            polls: JoinSet::new(),
            in_progress: HashMap::new(),
            held: PerCollector::default(),
            failures: HashMap::new(),
            unpolled: HashSet::new(),
            listed_names: None,
            last_started: None,
            jobs_cycles: 0,
            unmatched: None,
            nameless: BTreeSet::new(),
            fetch_modes: PerCollector::default(),
            cycles: PerCollector::default(),
            log_throttle: LogThrottle::default(),
            clocks: ClockWatch::new(Duration::ZERO, wall_clock()),
            started: Instant::now(),
            customers_listed: None,
            failed_any: false,
            may_have_token: false,
            next_end: None,
        };
        scheduler.note_next_end();
        scheduler.enqueue_targets();
        scheduler
    }

    /// Runs until it is stopped, or until each target was polled once; then drops the running polls. Returns whether
    /// all polls succeeded.
    pub async fn run(
        mut self,
        until: Until,
        mut reloads: mpsc::Receiver<ScheduleConfig>,
        stop: CancellationToken,
    ) -> bool {
        loop {
            let turned = self.turn(until);
            if until == Until::EachPolledOnce && self.each_polled_once() {
                break;
            }
            let sleep = self.sleep(turned);
            tokio::select! {
                () = stop.cancelled() => break,
                Some(config) = reloads.recv() => self.apply_config(config),
                Some(joined) = self.polls.join_next() => match joined {
                    Ok(outcome) => self.handle_outcome(outcome),
                    // A panic of the poll is caught inside its task, so the runtime is shutting down.
                    Err(error) => warn!(%error, "poll task ended without a result"),
                },
                () = tokio::time::sleep(sleep) => {}
            }
        }
        self.polls.shutdown().await;
        !self.failed_any
    }

    /// Starts due polls, publishes the status, and returns the current time on both clocks.
    fn turn(&mut self, until: Until) -> MonotonicTime {
        self.health.beat();
        self.watch_clocks();
        self.end_overrides();
        // Once per pause: the next token request ends it, and not every poll needs a token.
        let may_have_token = self.config.client.transport().tokens().may_have_recovered();
        if may_have_token && !self.may_have_token {
            self.bring_forward_customers();
            self.bring_forward_failed();
        }
        self.may_have_token = may_have_token;
        self.watch_permissions();
        let now = self.now();
        let mut aside = Vec::new();
        while self.polls.len() < self.config.max_concurrency {
            let (loads, slots) = (self.loads(now), self.config.max_concurrency);
            let is_admitted = |collector| {
                let own = kind(collector);
                let is_optional = collector.descriptor().is_optional;
                if is_optional && loads.get(own).held >= slots::max_optional(slots) {
                    return false;
                }
                // The other collectors need not leave slots for optional collectors.
                let counts = move |other: CollectorId| is_optional || !other.descriptor().is_optional;
                let others = loads
                    .iter()
                    .filter(move |(other, _)| *other != own && kind(*other) == *other && counts(*other));
                slots::admits(*loads.get(own), others.map(|(_, load)| *load), slots)
            };
            let Some(due) = self.queue.pop_among(now, is_admitted) else {
                break;
            };
            if self.has_its_share(&due.target) {
                aside.push(due);
                continue;
            }
            let is_first = self.unpolled.contains(&(due.collector, due.target.clone()));
            match until {
                Until::EachPolledOnce if !is_first => {
                    self.queue
                        .done(due.collector, &due.target, MonotonicTime::MAX, Urgency::Ordinary);
                }
                _ => self.start(due),
            }
        }
        for due in &aside {
            self.queue.put_back(due);
        }
        let status = ScheduleStatus {
            lag: PerCollector::from_fn(|collector| self.queue.lag(collector, now)),
            cycle: PerCollector::from_fn(|collector| self.cycles.get(collector).took()),
            customers_listed: self.customers_listed,
            unmatched_patterns: self.unmatched.as_ref().map(BTreeSet::len),
            settings: Arc::clone(&self.config.settings),
        };
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
        if self.customers_listed == Some(true) {
            // Only now, because a ready exporter must not report `elements_up 0` after a complete list.
            self.health.set_ready();
        }
        now
    }

    /// Returns the slots used and wanted by each kind of resource. A kind is identified by its first collector.
    fn loads(&self, now: MonotonicTime) -> PerCollector<Load> {
        let mut loads = PerCollector::<Load>::default();
        for (collector, held) in self.held.iter() {
            let load = loads.get_mut(kind(collector));
            load.held += held;
            load.is_waiting |= self.queue.is_waiting(collector, now);
            load.is_enabled |= self.is_enabled(collector);
            load.is_last |= self.last_started == Some(collector);
        }
        loads
    }

    /// Returns whether so many polls of one customer are running that others take precedence. A few customers whose
    /// polls hang must not block the rest.
    fn has_its_share(&self, target: &Target) -> bool {
        let share = (self.config.max_concurrency / CUSTOMERS_AT_ONCE).max(1);
        if *target == Target::Partner {
            return false;
        }
        self.in_progress.get(target).is_some_and(|polls| *polls >= share)
    }

    /// Polls are due by the monotonic clock, so a step of the wall clock causes no burst. A step back leaves stored
    /// times in the future, which are corrected. After a step forward all data is old, so the customer list is polled
    /// first.
    fn watch_clocks(&mut self) {
        let (monotonic, wall) = (self.now(), wall_clock());
        match self.clocks.compare(monotonic, wall) {
            None => {}
            Some(Step::Back) => {
                warn!("the wall clock was set back");
                self.store.not_after(wall);
                self.note_next_end();
            }
            Some(Step::Forward) => {
                warn!("the wall clock was set forward, or the machine slept");
                self.bring_forward_customers();
            }
        }
    }

    /// Returns the time until a target becomes due that was not due in the last iteration.
    fn sleep(&self, turned: MonotonicTime) -> Duration {
        if self.polls.len() >= self.config.max_concurrency {
            return LONGEST_SLEEP;
        }
        let next = self.queue.next_due_after(turned);
        let next = next.map(|at| at.saturating_sub(self.now()));
        next.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)
    }

    fn start(&mut self, due: Due) {
        self.begin_cycle(due.collector);
        let mut context = self.context(match &due.target {
            Target::Partner => Arc::from(""),
            Target::Customer(id) => self.store.organization(id),
        });
        context.stale_after = self.config.plans.get(due.collector).stale_after;
        let client = Arc::clone(&self.config.client);
        let source = Arc::clone(&self.store);
        *self.in_progress.entry(due.target.clone()).or_default() += 1;
        *self.held.get_mut(due.collector) += 1;
        self.last_started = Some(due.collector);
        let request_settings = due.collector.descriptor().request_settings(&self.config.settings);
        self.polls.spawn(async move {
            let target = due.target.clone();
            let result = guarded(due.collector, client, target, source, context).await;
            Outcome {
                due,
                request_settings,
                result,
            }
        });
    }

    fn context(&self, organization: Arc<str>) -> Context {
        Context::new(wall_clock(), Arc::clone(&self.config.settings), organization)
    }

    fn enqueue(&mut self, collector: CollectorId, target: Target, at: MonotonicTime, now: MonotonicTime) {
        if at <= now && !self.queue.contains(collector, &target) {
            self.unpolled.insert((collector, target.clone()));
        }
        self.queue.add(collector, target, at);
    }

    fn due_after_restart(&self, collector: CollectorId, target: &Target, now: MonotonicTime) -> MonotonicTime {
        let interval = self.config.plans.get(collector).interval;
        let (polled_at, interval) = match self.store.unlicensed_at(collector, target) {
            Some(at) => (at, interval.max(UNLICENSED_RECHECK)),
            None => match self.store.last_success(collector, target) {
                Some(success) => (success, interval),
                None => return now,
            },
        };
        let due = polled_at.plus(interval).as_unix_seconds() - wall_clock().as_unix_seconds();
        let wait = Duration::try_from_secs_f64(due).unwrap_or_default().min(interval);
        now.saturating_add(wait)
    }

    fn is_enabled(&self, collector: CollectorId) -> bool {
        self.config.plans.get(collector).enabled
    }

    fn each_polled_once(&self) -> bool {
        self.unpolled.is_empty() && self.polls.is_empty()
    }

    fn now(&self) -> MonotonicTime {
        self.started.elapsed()
    }
}

/// Returns the kind of resource that a collector reads: the first collector with the same permission, which covers the
/// same resources. All optional collectors form one kind, which uses no slots of the others.
fn kind(collector: CollectorId) -> CollectorId {
    let permission = |id: CollectorId| {
        let descriptor = id.descriptor();
        (!descriptor.is_optional).then(|| descriptor.scope(Generation::V3))
    };
    let first = ids().find(|id| permission(*id) == permission(collector));
    first.unwrap_or(collector)
}

fn wall_clock() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

/// Runs a poll that always ends, even if it panics or hangs.
async fn guarded(
    collector: CollectorId,
    client: Arc<ApiClient>,
    target: Target,
    source: Arc<dyn RecordSource>,
    context: Context,
) -> Result<PollOutput, PollError> {
    let poll = async {
        let api = client.api().await?;
        collector.poll(api, target, source, context).await
    };
    let caught = AssertUnwindSafe(poll).catch_unwind();
    match tokio::time::timeout(POLL_DEADLINE, caught).await {
        Ok(Ok(result)) => result.map_err(PollError::Api),
        Ok(Err(_panic)) => Err(PollError::Panicked),
        Err(_) => Err(PollError::Deadline(POLL_DEADLINE)),
    }
}
