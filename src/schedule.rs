//! The poll loop. It starts due polls in the order of `queue`. A collector never polls the same target twice at the
//! same time.
//!
//! One task owns the queue and the running polls. It starts polls while slots are free, handles their outcomes, and
//! updates the heartbeat for `/-/healthy`. A poll that panics or hangs counts as failed, and the loop continues.

mod apply;
mod clock;
mod customers;
mod cycle;
mod failures;
mod fetch_mode;
mod objectives;
#[cfg(test)]
mod outage;
mod outcome;
mod poll_error;
mod queue;
#[cfg(test)]
mod simulation;
mod slots;
mod unmatched;

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::api::client::ApiClient;
use crate::collector::{
    CollectorId, CollectorSettings, Context, PerCollector, Plan, PollOutput, RecordSource, Target, UNLICENSED_RECHECK,
    ids,
};
use crate::domain::{CustomerFilter, CustomerId, Timestamp};
use crate::health::Health;
use crate::lock::lock;
use crate::runtime::{ScheduleStatus, SharedScheduleStatus};
use crate::store::Store;
use clock::{Clocks, Step, wall_clock};
use customers::CustomerListState;
use cycle::Cycle;
use failures::Failures;
use fetch_mode::FetchMode;
use queue::{Due, MonotonicTime, Queue, Urgency};
use slots::RunningPolls;
use unmatched::PatternCheck;

pub use poll_error::{PollError, REASONS, reasons};

/// Maximum duration of a poll, including waits for the rate limiter. Even at the lowest request rate limit after
/// throttling, a list of two hundred pages takes less time.
const POLL_DEADLINE: Duration = Duration::from_secs(45 * 60);

/// Maximum time that the loop sleeps. Even if no poll is due, it must update the heartbeat and detect when tokens can
/// be requested again.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Settings of the poll loop. A reload replaces them.
#[derive(Clone)]
pub struct ScheduleConfig {
    /// The API client.
    pub client: Arc<ApiClient>,
    /// Settings of the collectors.
    pub settings: Arc<CollectorSettings>,
    /// Schedule of each collector.
    pub plans: PerCollector<Plan>,
    /// Filter that selects the customers to poll.
    pub customers: CustomerFilter,
    /// The customers to poll, if the configuration includes customers only by id; otherwise empty.
    pub customer_ids: Vec<CustomerId>,
    /// The shard's customers that the configuration includes by id, even if it also includes customers by name. These
    /// customers are polled separately if the list of all customers is forbidden.
    pub fallback_ids: Vec<CustomerId>,
    /// Maximum number of concurrent polls.
    pub max_concurrency: usize,
    /// Maximum number of series; records that would exceed it are rejected.
    pub series_limit: Option<usize>,
    /// Whether newly completed job runs are logged.
    pub run_events: bool,
}

/// Condition that ends the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The loop is stopped.
    Stopped,
    /// Every target has been polled once.
    EachPolledOnce,
}

/// The poll loop.
pub struct Scheduler {
    config: ScheduleConfig,
    store: Arc<Store>,
    health: Arc<Health>,
    status: SharedScheduleStatus,
    clocks: Clocks,
    queue: Queue,
    /// Targets that were due immediately when they were queued, and that have not been polled yet.
    unpolled: HashSet<(CollectorId, Target)>,
    polls: JoinSet<Outcome>,
    running: RunningPolls,
    failures: Failures,
    customer_list: CustomerListState,
    patterns: PatternCheck,
    fetch_modes: PerCollector<FetchMode>,
    cycles: PerCollector<Cycle>,
    /// Whether the last iteration found that tokens could be requested again after a pause.
    may_request_token: bool,
    /// Time at which the next RPO override ends.
    next_override_end: Option<Timestamp>,
}

/// The outcome of a completed poll.
struct Outcome {
    due: Due,
    /// Settings at the start of the poll.
    settings: Arc<CollectorSettings>,
    result: Result<PollOutput, PollError>,
}

impl Scheduler {
    /// Returns a scheduler that has not started. Targets restored from a state file keep their due times, except that
    /// the customer list is due immediately.
    pub fn new(config: ScheduleConfig, store: Arc<Store>, health: Arc<Health>, status: SharedScheduleStatus) -> Self {
        for collector in ids() {
            health.initialize_failure_counters(collector.descriptor().endpoint, poll_error::reasons());
        }
        let mut scheduler = Self {
            config,
            store,
            health,
            status,
            clocks: Clocks::start(),
            queue: Queue::default(),
            unpolled: HashSet::new(),
            polls: JoinSet::new(),
            running: RunningPolls::default(),
            failures: Failures::default(),
            customer_list: CustomerListState::default(),
            patterns: PatternCheck::default(),
            fetch_modes: PerCollector::default(),
            cycles: PerCollector::default(),
            may_request_token: false,
            next_override_end: None,
        };
        scheduler.update_next_override_end();
        scheduler.enqueue_targets();
        scheduler
    }

    /// Runs the loop until it is stopped, or until each target has been polled once, and then aborts the running polls.
    /// Returns false if any poll failed, or if a customer configured by id was not listed. A missing permission, a
    /// missing service, or a forbidden bulk list that is replaced by per-customer polls does not count as a failure.
    pub async fn run(
        mut self,
        until: Until,
        mut reloads: mpsc::Receiver<ScheduleConfig>,
        stop: CancellationToken,
    ) -> bool {
        loop {
            let now = self.run_iteration(until);
            if until == Until::EachPolledOnce && self.each_polled_once() {
                break;
            }
            let sleep = self.time_to_sleep(now);
            tokio::select! {
                () = stop.cancelled() => break,
                Some(config) = reloads.recv() => self.apply_config(config),
                Some(joined) = self.polls.join_next() => match joined {
                    Ok(outcome) => self.handle_outcome(outcome),
                    // A panic in a poll is caught in its task, so this error means that the runtime is shutting down.
                    Err(error) => warn!(%error, "poll task ended without a result"),
                },
                () = tokio::time::sleep(sleep) => {}
            }
        }
        self.polls.shutdown().await;
        !self.failures.has_any_failed
    }

    /// Starts due polls and publishes the status. Returns the current time.
    fn run_iteration(&mut self, until: Until) -> MonotonicTime {
        self.health.beat();
        self.handle_clock_step();
        self.handle_override_end();
        self.handle_token_recovery();
        self.watch_permissions();
        let now = self.now();
        self.start_due_polls(until, now);
        self.publish_status(now);
        now
    }

    /// When tokens can be requested again after a pause, brings the poll of the customer list forward and repeats
    /// failed polls. This happens only once per pause.
    fn handle_token_recovery(&mut self) {
        let may_request_token = self.config.client.transport().tokens().may_have_recovered();
        if may_request_token && !self.may_request_token {
            self.poll_all_again(CollectorId::CUSTOMERS);
            self.bring_forward_failed();
        }
        self.may_request_token = may_request_token;
    }

    fn start_due_polls(&mut self, until: Until, now: MonotonicTime) {
        let slots = self.config.max_concurrency;
        let mut at_limit = Vec::new();
        while self.polls.len() < slots {
            let is_waiting = |collector| self.queue.is_waiting(collector, now);
            let loads = self.running.loads(is_waiting, |collector| self.is_enabled(collector));
            let Some(due) = self.queue.pop_among(now, |collector| loads.admits(collector, slots)) else {
                break;
            };
            if self.running.is_at_customer_limit(&due.target, slots) {
                at_limit.push(due);
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
        for due in &at_limit {
            self.queue.put_back(due);
        }
    }

    fn publish_status(&self, now: MonotonicTime) {
        let status = ScheduleStatus {
            lag: PerCollector::from_fn(|collector| self.queue.lag(collector, now)),
            cycle: PerCollector::from_fn(|collector| self.cycles.get(collector).took()),
            customers_listed: self.customer_list.is_available,
            unmatched_patterns: self.patterns.unmatched_count(),
            settings: Arc::clone(&self.config.settings),
        };
        *lock(&self.status) = status;
        if self.customer_list.is_available == Some(true) {
            // Readiness is set after the status, so that an exporter that has just become ready no longer reports
            // `elements_up 0`.
            self.health.set_ready();
        }
    }

    /// Handles a step of the wall clock. Due times follow the monotonic clock, so a step causes no burst of polls. A
    /// step back leaves stored times in the future, so they are corrected. After a step forward, all data may be
    /// outdated, so the customer list is polled first.
    fn handle_clock_step(&mut self) {
        match self.clocks.detect_step() {
            None => {}
            Some(Step::Back) => {
                warn!("the wall clock was set back");
                self.store.clamp_times(wall_clock());
                self.update_next_override_end();
            }
            Some(Step::Forward) => {
                warn!("the wall clock was set forward, or the machine was suspended");
                self.poll_all_again(CollectorId::CUSTOMERS);
            }
        }
    }

    /// Returns the time until the next target becomes due, or [`LONGEST_SLEEP`] if that is shorter or all slots are in
    /// use. `last` is the time of the last iteration.
    fn time_to_sleep(&self, last: MonotonicTime) -> Duration {
        if self.polls.len() >= self.config.max_concurrency {
            return LONGEST_SLEEP;
        }
        let next = self.queue.next_due_after(last);
        let next = next.map(|at| at.saturating_sub(self.now()));
        next.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)
    }

    fn start(&mut self, due: Due) {
        self.begin_cycle(&due);
        let mut context = self.context(match &due.target {
            Target::Partner => Arc::from(""),
            Target::Customer(id) => self.store.organization(id),
        });
        context.stale_after = self.config.plans.get(due.collector).stale_after;
        let client = Arc::clone(&self.config.client);
        let source = Arc::clone(&self.store);
        self.running.start(due.collector, &due.target);
        let settings = Arc::clone(&self.config.settings);
        self.polls.spawn(async move {
            let target = due.target.clone();
            let result = poll_with_deadline(due.collector, client, target, source, context).await;
            Outcome { due, settings, result }
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
        self.clocks.now()
    }
}

/// Polls a target. Returns an error if the poll fails, panics or takes too long.
async fn poll_with_deadline(
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
