//! The poll loop: what is due the longest goes first, one flight per collector and target, every outcome into the store.
//!
//! One task owns the queue and the polls under way. It starts polls while there is room, takes their outcomes in, and
//! beats for `/-/healthy`. A poll that panics or hangs is that poll's failure; the loop goes on.

mod asking;
mod clock;
mod complaint;
mod customers;
#[cfg(test)]
mod outage;
pub mod queue;
#[cfg(test)]
mod simulation;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::api::auth::REFUSAL_LIFE;
use crate::api::gateway::Gateway;
use crate::api::{Endpoint, Error, Failure};
use crate::collector::{self, Brought, Context, Entry, Memory, Record, Settings, Target};
use crate::domain::{CustomerId, Timestamp};
use crate::error_chain::error_chain;
use crate::health::Health;
use crate::store::{Plan, Store};
use asking::Asking;
use clock::{ClockWatch, Step};
use complaint::Complaints;
use queue::{Due, Moment, Patience, Queue, Urgency};

/// The longest that a poll may take, waits for the pace included. A list of two hundred pages at the lowest rate ends
/// within it; what does not is hanging.
const POLL_DEADLINE: Duration = Duration::from_secs(45 * 60);

/// How long the loop sleeps at most, so that it beats and looks after tokens though nothing is due.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// When a list that lacks too many customers is asked for again: soon, because until then nothing is known for sure.
const DOUBT_RECHECK: Duration = Duration::from_secs(60);

/// How often in a row a customer asked for by itself must be missing to be gone.
const GONE_AFTER: u32 = 2;

/// How many customers at least share the polls that may be under way at once.
const CUSTOMERS_AT_ONCE: usize = 4;

/// The shortest part of an interval after which a first poll is repeated. Second polls are spread over the rest, so
/// that a start does not make a rush of every later round.
const FIRST_SPREAD: f64 = 0.1;

/// Decides from a customer's id and organization whether the operator wants it.
pub type Admits = Arc<dyn Fn(&CustomerId, &str) -> bool + Send + Sync>;

/// What the loop works by. A reload hands it a new one.
#[derive(Clone)]
pub struct Orders {
    /// The way to the API.
    pub gateway: Arc<Gateway>,
    /// What the operator set for the collectors.
    pub settings: Arc<Settings>,
    /// How each collector is run, in the order of [`collector::ALL`].
    pub plans: Vec<Plan>,
    /// Which customers are wanted.
    pub admits: Admits,
    /// The only customers wanted, where the operator named them all by id.
    pub customer_ids: Vec<CustomerId>,
    /// The customers that the operator named by id among others, for a registration that is refused the list of all.
    pub fallback_ids: Vec<CustomerId>,
    /// Polls under way at once.
    pub max_concurrency: usize,
    /// Refuse to grow past this many series.
    pub series_limit: Option<usize>,
}

/// When the loop ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// When it is told to.
    Stopped,
    /// When every target has been polled once.
    EachPolledOnce,
}

/// What others may see of the schedule.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    /// How late the most overdue poll of each collector is.
    pub lag: Vec<Duration>,
    /// How long the last full round over all targets of each collector took.
    pub cycle: Vec<Option<Duration>>,
    /// What the newest poll of the customer list came to.
    pub customers_listed: Option<bool>,
}

/// The loop's view for others, renewed at every turn.
pub type SharedPulse = Arc<Mutex<Pulse>>;

/// The poll loop.
pub struct Scheduler {
    orders: Orders,
    store: Arc<Store>,
    health: Arc<Health>,
    pulse: SharedPulse,
    queue: Queue,
    polls: JoinSet<Outcome>,
    /// How many polls are under way by target.
    under_way: HashMap<Target, usize>,
    /// Failures in a row by collector and target.
    failures: HashMap<(usize, Target), u32>,
    /// Targets that were due at once and have not been polled yet.
    unpolled: HashSet<(usize, Target)>,
    /// Customers named by id that the list was found not to have, so that it is said once.
    unlisted: BTreeSet<CustomerId>,
    /// How each collector asks.
    asking: Vec<Asking>,
    rounds: Vec<Round>,
    complaints: Complaints,
    clocks: ClockWatch,
    started: Instant,
    customers_listed: Option<bool>,
    failed_any: bool,
}

/// A round of a collector over all its targets.
#[derive(Debug, Default)]
struct Round {
    since: Option<Moment>,
    remaining: BTreeSet<Target>,
    took: Option<Duration>,
}

/// What came of a poll.
struct Outcome {
    due: Due,
    result: Result<Brought, Failure>,
}

impl Scheduler {
    /// A loop that has not begun. Targets known to the store, from a state file, are due when they would have been.
    pub fn new(orders: Orders, store: Arc<Store>, health: Arc<Health>, pulse: SharedPulse) -> Self {
        let collectors = collector::ALL.len();
        let mut scheduler = Self {
            orders,
            store,
            health,
            pulse,
            queue: Queue::new(collectors),
            polls: JoinSet::new(),
            under_way: HashMap::new(),
            failures: HashMap::new(),
            unpolled: HashSet::new(),
            unlisted: BTreeSet::new(),
            asking: vec![Asking::AsMade; collectors],
            rounds: (0..collectors).map(|_| Round::default()).collect(),
            complaints: Complaints::default(),
            clocks: ClockWatch::new(Duration::ZERO, wall_clock()),
            started: Instant::now(),
            customers_listed: None,
            failed_any: false,
        };
        scheduler.arrange();
        scheduler
    }

    /// Runs until it is told to stop, or until each target was polled once. Polls under way are then given up: nothing
    /// of them is lost but their answers. True when no poll failed.
    pub async fn run(mut self, until: Until, mut reloads: mpsc::Receiver<Orders>, stop: CancellationToken) -> bool {
        loop {
            self.turn(until);
            if until == Until::EachPolledOnce && self.each_polled_once() {
                break;
            }
            let sleep = self.sleep();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(orders) = reloads.recv() => self.reorder(orders),
                Some(joined) = self.polls.join_next() => match joined {
                    Ok(outcome) => self.take_in(outcome),
                    // The poll's own panic is caught inside its task, so this is the runtime shutting down.
                    Err(error) => warn!(%error, "a poll's task ended without an outcome"),
                },
                () = tokio::time::sleep(sleep) => {}
            }
        }
        self.polls.shutdown().await;
        !self.failed_any
    }

    /// Starts what is due and shows how things stand.
    fn turn(&mut self, until: Until) {
        self.health.beat();
        self.watch_clocks();
        if self.orders.gateway.transport().tokens().may_have_recovered() {
            self.hasten_customers();
        }
        let now = self.now();
        let mut aside = Vec::new();
        while self.polls.len() < self.orders.max_concurrency {
            let Some(due) = self.queue.pop(now) else { break };
            if self.has_its_share(&due.target) {
                aside.push(due);
                continue;
            }
            let is_first = self.unpolled.contains(&(due.collector, due.target.clone()));
            match until {
                Until::EachPolledOnce if !is_first => {
                    self.queue
                        .done(due.collector, &due.target, Moment::MAX, Urgency::Ordinary);
                }
                _ => self.start(due),
            }
        }
        for due in &aside {
            self.queue.put_back(due);
        }
        let pulse = Pulse {
            lag: (0..collector::ALL.len())
                .map(|collector| self.queue.lag(collector, now))
                .collect(),
            cycle: self.rounds.iter().map(|round| round.took).collect(),
            customers_listed: self.customers_listed,
        };
        *self.pulse.lock().unwrap_or_else(PoisonError::into_inner) = pulse;
    }

    /// Whether so many polls about a customer are under way that others must have a turn: where a few customers hang, they
    /// must not hang everybody.
    fn has_its_share(&self, target: &Target) -> bool {
        let share = (self.orders.max_concurrency / CUSTOMERS_AT_ONCE).max(1);
        if *target == Target::Partner {
            return false;
        }
        self.under_way.get(target).is_some_and(|polls| *polls >= share)
    }

    /// Polls are due by the monotonic clock, so a step of the wall clock makes no rush of them. What it does is to make
    /// moments lie in the future, which they cannot, or everything old, which the list of customers then tells first.
    fn watch_clocks(&mut self) {
        let (monotonic, wall) = (self.now(), wall_clock());
        match self.clocks.look(monotonic, wall) {
            None => {}
            Some(Step::Back) => {
                warn!("the wall clock was set back");
                self.store.not_after(wall);
            }
            Some(Step::Forward) => {
                warn!("the wall clock was set forward, or the machine slept");
                self.hasten_customers();
            }
        }
    }

    fn sleep(&self) -> Duration {
        if self.polls.len() >= self.orders.max_concurrency {
            return LONGEST_SLEEP;
        }
        let next = self.queue.next_due().map(|at| at.saturating_sub(self.now()));
        next.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)
    }

    fn start(&mut self, due: Due) {
        let Some(entry) = collector::ALL.get(due.collector) else {
            return;
        };
        if let Some(round) = self.rounds.get_mut(due.collector)
            && round.since.is_none()
        {
            round.since = Some(self.started.elapsed());
            round.remaining = self.queue.targets(due.collector).cloned().collect();
        }
        let context = Context {
            now: wall_clock(),
            settings: Arc::clone(&self.orders.settings),
            organization: match &due.target {
                Target::Partner => Arc::from(""),
                Target::Customer(id) => self.store.organization(id),
            },
        };
        let gateway = Arc::clone(&self.orders.gateway);
        let memory = Arc::new(Remembered {
            store: Arc::clone(&self.store),
            collector: due.collector,
        });
        *self.under_way.entry(due.target.clone()).or_default() += 1;
        self.polls.spawn(async move {
            let target = due.target.clone();
            let result = guarded(*entry, gateway, target, memory, context).await;
            Outcome { due, result }
        });
    }

    /// Takes an outcome into the store and decides when its target is due again.
    fn take_in(&mut self, Outcome { due, result }: Outcome) {
        let now = self.now();
        if let Some(polls) = self.under_way.get_mut(&due.target) {
            *polls = polls.saturating_sub(1);
            if *polls == 0 {
                self.under_way.remove(&due.target);
            }
        }
        if self.is_relisting(&due) {
            if result.is_err() {
                let next = self.relist_time(&due, now);
                self.queue.done(due.collector, &due.target, next, Urgency::Ordinary);
                return;
            }
            info!(
                collector = entry_name(due.collector),
                "the list of all customers is allowed again"
            );
            self.set_asking(due.collector, Asking::AsMade);
            self.arrange();
        }
        let key = (due.collector, due.target.clone());
        let first = self.unpolled.remove(&key);
        let urgency = urgency(&due, &result);
        let result = match result {
            Ok(brought) => self.commit(&due, brought),
            Err(failure) => {
                self.store.fail(due.collector, &due.target, &failure.error);
                Err(failure)
            }
        };
        if let Err(failure) = &result {
            self.store.explain(due.collector, &due.target, failure, wall_clock());
        }
        self.note_permission(&due, &result);
        let interval = self
            .orders
            .plans
            .get(due.collector)
            .map_or(LONGEST_SLEEP, |plan| plan.interval);
        let next = match &result {
            Ok(()) => {
                let recovered = self.failures.remove(&key).is_some();
                if recovered {
                    self.complaints.settle(entry_name(due.collector));
                    if due.collector == CUSTOMERS_INDEX {
                        self.hasten_failed();
                    }
                }
                self.next_after_success(&due, now, interval, first)
            }
            // The collector asks about each customer by itself from now on, so the refusal is not the last word.
            Err(_) if self.falls_back_to_each(&due, &result) => self.relist_time(&due, now),
            Err(failure) => {
                self.failed_any |= !matches!(failure.error, Error::NotPermitted(_));
                let failures = self.failures.entry(key).or_default();
                *failures = failures.saturating_add(1);
                let failures = *failures;
                self.complain(&due, failure);
                if failures >= GONE_AFTER && matches!(failure.error, Error::Status(404)) {
                    self.let_go(&due);
                }
                match &failure.error {
                    Error::Shrunk { .. } => now.saturating_add(DOUBT_RECHECK.min(interval)),
                    Error::NotPermitted(_) => now.saturating_add(interval.min(REFUSAL_LIFE)),
                    error => {
                        let refused = match error {
                            Error::Unavailable(wait) => Some(*wait),
                            _ => None,
                        };
                        let may_repeat = || self.may_repeat(&due, failure.endpoint, error);
                        queue::failed_time(now, failures, interval, refused, may_repeat, fastrand::f64())
                    }
                }
            }
        };
        self.fall_back_to_each(&due, &result);
        if due.collector == CUSTOMERS_INDEX {
            self.note_customers_listed(&result);
        }
        if self.queue.done(due.collector, &due.target, next, urgency) {
            self.end_of_round(&due, now);
        }
    }

    /// Whether a poll that failed is repeated before its time. What sent no request costs nothing, and the one list of
    /// all customers tells when an outage is over; the rest is paid from the budget of retries.
    fn may_repeat(&self, due: &Due, endpoint: Endpoint, error: &Error) -> bool {
        if error.is_forbidden() {
            return false;
        }
        let is_free = matches!(error, Error::Auth(_));
        let tells_of_all = due.collector == CUSTOMERS_INDEX && due.target == Target::Partner;
        is_free || tells_of_all || self.orders.gateway.transport().grants_repetition(endpoint)
    }

    /// A first poll happens at once, so its repetition is put anywhere in the interval: the later rounds are then even.
    fn next_after_success(&mut self, due: &Due, now: Moment, interval: Duration, first: bool) -> Moment {
        if first {
            let part = FIRST_SPREAD + (1.0 - FIRST_SPREAD) * fastrand::f64();
            return now.saturating_add(interval.mul_f64(part));
        }
        let (next, missed) = queue::next_time(due.since, now, interval, fastrand::f64());
        if missed > 0 {
            self.health.overran(entry_name(due.collector), missed);
        }
        next
    }

    /// Puts what a poll brought into the store; a list of customers changes who is known first.
    fn commit(&mut self, due: &Due, mut brought: Brought) -> Result<(), Failure> {
        if due.collector == CUSTOMERS_INDEX && !self.take_in_customers(due, &mut brought)? {
            return Ok(());
        }
        let incomplete = brought.incomplete.take();
        let complete = incomplete.is_none();
        let records = brought.records;
        if let Err(over) = self
            .store
            .commit(due.collector, &due.target, records, complete, wall_clock())
        {
            self.health.dropped_series(over.series);
            let endpoint = collector::ALL
                .get(due.collector)
                .map_or(Endpoint::Customers, |entry| entry.endpoint);
            return Err(Error::SeriesLimit.at(endpoint));
        }
        if due.collector == CUSTOMERS_INDEX
            && let Target::Customer(id) = &due.target
        {
            self.queue_customer(id, self.now());
        }
        incomplete.map_or(Ok(()), Err)
    }

    fn enqueue(&mut self, collector: usize, target: Target, at: Moment, now: Moment) {
        if at <= now && !self.queue.contains(collector, &target) {
            self.unpolled.insert((collector, target.clone()));
        }
        self.queue.add(collector, target, at);
    }

    fn due_after_restart(&self, collector: usize, target: &Target, now: Moment) -> Moment {
        let Some(success) = self.store.last_success(collector, target) else {
            return now;
        };
        let interval = self
            .orders
            .plans
            .get(collector)
            .map_or(Duration::ZERO, |plan| plan.interval);
        let due = success.plus(interval).as_unix_seconds() - wall_clock().as_unix_seconds();
        let wait = Duration::try_from_secs_f64(due).unwrap_or_default().min(interval);
        now.saturating_add(wait)
    }

    /// Queues everything that the orders say and drops what they do not.
    fn arrange(&mut self) {
        let now = self.now();
        if !self.orders.customer_ids.is_empty() && self.speaks_v1() {
            self.asking.fill(Asking::Each);
        }
        for (collector, plan) in self.orders.plans.iter().enumerate() {
            let patience = Patience::new(plan.interval, plan.stale_after);
            self.queue.set_patience(collector, patience);
        }
        for (collector, entry) in collector::ALL.iter().enumerate() {
            let partner = !self.asks_each(collector, entry);
            let wanted = self.is_enabled(collector);
            let relists = self.asking_of(collector) == Asking::EachUntilAllowed;
            let keep = |target: &Target| wanted && (*target == Target::Partner) == partner;
            self.queue.retain(collector, |target| {
                keep(target) || (wanted && relists && *target == Target::Partner)
            });
            self.store.retain_targets(collector, keep);
            if wanted && partner {
                self.store.expect(collector, &Target::Partner);
            }
        }
        if self.lists_each() {
            let named = self.orders.fallback_ids.iter();
            let named: BTreeMap<_, _> = named.map(|id| (id.clone(), self.store.organization(id))).collect();
            // Named and not listed yet, so this proves nothing about who is gone.
            let (_, _) = self.store.reconcile(&named, false);
        } else {
            // The customer list is asked for at once, whatever the state file says: everything stands on it.
            self.enqueue(CUSTOMERS_INDEX, Target::Partner, now, now);
        }
        let known = self.store.customers();
        if !known.is_empty() {
            self.queue_partner(now);
        }
        for id in known {
            self.queue_customer(&id, now);
        }
    }

    /// Queues the collectors that ask once for all. They come after the first list of customers, because what they bring
    /// of customers that are not known yet cannot be kept.
    fn queue_partner(&mut self, now: Moment) {
        for (collector, entry) in collector::ALL.iter().enumerate() {
            if collector != CUSTOMERS_INDEX && self.is_enabled(collector) && !self.asks_each(collector, entry) {
                let at = self.due_after_restart(collector, &Target::Partner, now);
                self.enqueue(collector, Target::Partner, at, now);
            }
        }
    }

    /// Takes up new orders, as after a reload.
    fn reorder(&mut self, orders: Orders) {
        orders.gateway.transport().take_over(self.orders.gateway.transport());
        let before = std::mem::replace(&mut self.orders, orders);
        let admits = Arc::clone(&self.orders.admits);
        let gone = self.store.retain_customers(|id, organization| admits(id, organization));
        if !gone.is_empty() {
            info!(
                customers = gone.len(),
                "customers are left out by the new configuration"
            );
            self.farewell(&gone);
        }
        self.store.reconfigure(
            &self.orders.plans,
            self.orders.series_limit,
            &self.orders.settings,
            wall_clock(),
        );
        let held = self.store.series();
        if let Some(limit) = self.orders.series_limit.filter(|limit| held > *limit) {
            warn!(
                series = held,
                limit, "more series are held than metrics.series_limit allows; they stay, and nothing is added"
            );
        }
        self.asking.fill(Asking::AsMade);
        self.rounds = (0..collector::ALL.len()).map(|_| Round::default()).collect();
        self.failures.clear();
        self.unlisted.clear();
        self.arrange();
        self.hasten_shortened(&before.plans);
        // Filters, credentials or the place of the API may have changed, and the list tells at once.
        self.hasten_customers();
    }

    /// Brings forward what has a shorter interval than before: that counts from the last success, as after a restart, and
    /// not only once the longer one has passed.
    fn hasten_shortened(&mut self, before: &[Plan]) {
        let now = self.now();
        let plans = before.iter().zip(&self.orders.plans).enumerate();
        let shortened = plans.filter(|(_, (before, after))| after.interval < before.interval);
        let shortened: Vec<usize> = shortened.map(|(collector, _)| collector).collect();
        for collector in shortened {
            let targets: Vec<Target> = self.queue.targets(collector).cloned().collect();
            for target in targets {
                let at = self.due_after_restart(collector, &target, now);
                self.queue.hasten(collector, &target, at);
            }
        }
    }

    fn is_enabled(&self, collector: usize) -> bool {
        self.orders.plans.get(collector).is_some_and(|plan| plan.enabled)
    }

    /// Shows whether the collector's scope is granted, and says so when that changed.
    fn note_permission(&mut self, due: &Due, result: &Result<(), Failure>) {
        let Some(entry) = collector::ALL.get(due.collector) else {
            return;
        };
        let permitted = match result {
            Err(Failure {
                error: Error::NotPermitted(_),
                ..
            }) => Some(false),
            _ => self.orders.gateway.generation().and_then(|generation| {
                let scope = entry.scope(generation);
                self.orders.gateway.transport().tokens().permitted(scope)
            }),
        };
        let Some(permitted) = permitted else { return };
        if !self.store.set_permitted(due.collector, permitted) {
            return;
        }
        match result {
            Err(Failure {
                error: Error::NotPermitted(scope),
                ..
            }) => warn!(
                collector = entry.name,
                permission = scope,
                "the app registration does not hold the permission; the collector is off until it is granted"
            ),
            _ if permitted => {
                let targets: Vec<Target> = self.queue.targets(due.collector).cloned().collect();
                let now = self.now();
                for target in targets {
                    if !self.store.succeeded(due.collector, &target) {
                        self.queue.hasten(due.collector, &target, now);
                    }
                }
            }
            _ => {}
        }
    }

    /// Says that a poll failed: at once, then with a growing pause, and each reason of a collector by itself.
    fn complain(&mut self, due: &Due, failure: &Failure) {
        if matches!(failure.error, Error::NotPermitted(_)) {
            return;
        }
        let reason = failure.error.reason();
        self.health.poll_failed(failure.endpoint, reason);
        let collector = entry_name(due.collector);
        if let Some(repeated) = self.complaints.raise(collector, reason, self.started.elapsed()) {
            warn!(
                collector,
                endpoint = failure.endpoint.as_str(),
                reason,
                customer_id = %due.target.shown(),
                repeated,
                error = error_chain(&failure.error),
                "a poll failed; what is known stands and ages"
            );
        }
    }

    /// After an outage, what failed is due at once. The pace lets it through no faster than it should.
    fn hasten_failed(&mut self) {
        let now = self.now();
        let failed: Vec<(usize, Target)> = self.failures.keys().cloned().collect();
        for (collector, target) in failed {
            self.queue.hasten(collector, &target, now);
        }
    }

    fn end_of_round(&mut self, due: &Due, now: Moment) {
        let Some(round) = self.rounds.get_mut(due.collector) else {
            return;
        };
        round.remaining.remove(&due.target);
        if round.remaining.len() < LINGERING_CHECK {
            let queued: BTreeSet<&Target> = self.queue.targets(due.collector).collect();
            round.remaining.retain(|target| queued.contains(target));
        }
        if round.remaining.is_empty()
            && let Some(since) = round.since.take()
        {
            round.took = Some(now.saturating_sub(since));
        }
    }

    fn each_polled_once(&self) -> bool {
        self.unpolled.is_empty() && self.polls.is_empty()
    }

    fn now(&self) -> Moment {
        self.started.elapsed()
    }
}

/// When so few targets remain of a round, those that were dropped meanwhile are looked for; before, it would cost more
/// than it tells.
const LINGERING_CHECK: usize = 8;

/// Where the customers collector stands in [`collector::ALL`]; a test holds it there.
const CUSTOMERS_INDEX: usize = 0;

/// Who was found with nothing under way can wait the longest. Of whom nothing could be learned, nothing is known.
fn urgency(due: &Due, result: &Result<Brought, Failure>) -> Urgency {
    let quiet = match (result, &due.target, collector::ALL.get(due.collector)) {
        (Ok(brought), Target::Customer(id), Some(entry)) => {
            let kept = brought.records.get(id);
            kept.is_some_and(|kept| entry.is_quiet(kept.record.as_ref()))
        }
        _ => false,
    };
    if quiet { Urgency::Quiet } else { Urgency::Ordinary }
}

fn entry_name(collector: usize) -> &'static str {
    collector::ALL.get(collector).map_or("", |entry| entry.name)
}

fn wall_clock() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

/// What the store knows through one collector, for its polls.
struct Remembered {
    store: Arc<Store>,
    collector: usize,
}

impl Memory for Remembered {
    fn record(&self, customer: &CustomerId) -> Option<Arc<dyn Record>> {
        self.store.record(self.collector, customer)
    }

    fn as_known(&self, customer: CustomerId) -> CustomerId {
        self.store.as_known(customer)
    }
}

/// A poll that ends, whatever happens in it.
async fn guarded(
    entry: Entry,
    gateway: Arc<Gateway>,
    target: Target,
    memory: Arc<dyn Memory>,
    context: Context,
) -> Result<Brought, Failure> {
    let poll = async {
        let api = gateway.api().await?;
        entry.poll(api, target, memory, context).await
    };
    let caught = AssertUnwindSafe(poll).catch_unwind();
    match tokio::time::timeout(POLL_DEADLINE, caught).await {
        Ok(Ok(result)) => result,
        Ok(Err(_panic)) => Err(Error::Panicked.at(entry.endpoint)),
        Err(_) => Err(Error::Deadline(POLL_DEADLINE).at(entry.endpoint)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_customer_list_stands_first() {
        assert_eq!(collector::index_of(collector::CUSTOMERS), Some(CUSTOMERS_INDEX));
    }
}
