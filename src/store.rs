//! What is known of the remote world: the newest complete record of every collector about every customer, and how
//! fresh it is.
//!
//! Only a poll's outcome changes it, and always as a whole: [`Store::commit`] swaps records in, [`Store::fail`] leaves
//! them as they are and says so. A scrape takes a [`Picture`] of it, which shares its records and so takes the lock for
//! moments. What it shows of a record that has outlived `stale_after` depends on the moment of the picture, so nothing
//! has to be swept.

mod roster;
mod shelf;
pub mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::api::Error;
use crate::collector::{self, Context, Kept, Record, Settings, Target};
use crate::domain::{CustomerId, Timestamp};
use crate::exposition::{Block, Group, Metric, Picture, Shown, Source, Table};
pub use roster::{Answer, Dossier, Roll, Roster, Trouble};
use shelf::Shelf;

/// A customer list that lacks more than this part of the customers known is not believed at once.
const SHARP_SHRINK_PART: f64 = 0.1;

/// Nor is it called sharp when it lacks fewer than this many: of a handful of customers, one or two leaving is life.
const SHARP_SHRINK_CUSTOMERS: usize = 3;

/// The outcome of the newest attempt, per collector and customer.
pub const COLLECTOR_SUCCESS: Metric = Metric::gauge(
    "elements_exporter_collector_success",
    "Whether the newest poll brought a complete answer; 0 before the first; customer_id is empty where one poll asks \
     for all",
)
.dated()
.labels(FRESHNESS_LABELS);

/// When a poll last brought a complete answer, per collector and customer.
pub const COLLECTOR_LAST_SUCCESS: Metric = Metric::timestamp(
    "elements_exporter_collector_last_success_timestamp_seconds",
    "When a poll last brought a complete answer; 0 before the first",
)
.labels(FRESHNESS_LABELS);

const FRESHNESS_LABELS: &[&str] = &["collector", "customer_id"];

/// How a collector is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whether it is run at all.
    pub enabled: bool,
    /// How often.
    pub interval: Duration,
    /// How long values outlive the last good poll.
    pub stale_after: Duration,
}

impl Plan {
    /// Not at all.
    pub const OFF: Self = Self {
        enabled: false,
        interval: Duration::MAX,
        stale_after: Duration::MAX,
    };
}

/// How a customer stands with a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// The newest poll succeeded and is not older than `stale_after`.
    Fresh,
    /// The last good poll is older than `stale_after`.
    Stale,
    /// The newest poll failed, the last good one is not that old yet or never was.
    Failed,
    /// The API does not let us see this.
    Forbidden,
    /// No poll has ended yet.
    Pending,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Fresh, Self::Stale, Self::Failed, Self::Forbidden, Self::Pending];

    /// The label value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Failed => "failed",
            Self::Forbidden => "forbidden",
            Self::Pending => "pending",
        }
    }
}

/// What came of the newest poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Attempt {
    Pending,
    Succeeded,
    Failed,
    Forbidden,
}

/// How fresh what is known of a target is.
#[derive(Clone, Debug)]
struct Freshness {
    attempt: Attempt,
    last_success: Option<Timestamp>,
    tables: Arc<[Table]>,
    /// What went wrong at the newest attempt, where it failed since the start.
    trouble: Option<Trouble>,
}

impl Freshness {
    fn new(collector: &str, target: &Target, attempt: Attempt, last_success: Option<Timestamp>) -> Self {
        let labels = [("collector", collector), ("customer_id", target.customer_id())];
        let success = f64::from(attempt == Attempt::Succeeded);
        let last = last_success.map_or(0.0, Timestamp::as_unix_seconds);
        let table = Table::single(&labels, &[Some(success), Some(last)]);
        Self {
            attempt,
            last_success,
            tables: Arc::new([table]),
            trouble: None,
        }
    }

    fn state(&self, stale_after: Duration, now: Timestamp) -> State {
        let stale = self.last_success.is_some_and(|success| now > success.plus(stale_after));
        match self.attempt {
            Attempt::Pending if self.last_success.is_none() => State::Pending,
            Attempt::Forbidden => State::Forbidden,
            _ if stale => State::Stale,
            Attempt::Succeeded => State::Fresh,
            Attempt::Failed | Attempt::Pending => State::Failed,
        }
    }
}

/// A record and the moment of the poll that it stands on.
#[derive(Clone, Debug)]
struct Cell {
    kept: Kept,
    good_at: Timestamp,
    /// The same for the rows that are held because later answers could not be read whole.
    held_at: Timestamp,
}

impl Cell {
    fn samples(&self) -> usize {
        self.kept.samples()
    }
}

impl Block for Vec<(CustomerId, Cell)> {
    fn shown(&self, position: usize) -> Option<Shown<'_>> {
        self.get(position).map(|(_, cell)| Shown {
            tables: &cell.kept.tables,
            good_at: Some(cell.good_at),
        })
    }
}

/// The rows of a record that are held, and the moment of the poll that they stand on.
#[derive(Debug)]
struct HeldRows {
    tables: Arc<[Table]>,
    at: Timestamp,
}

impl Cell {
    fn held_rows(&self) -> Option<HeldRows> {
        let tables = Some(&self.kept.held).filter(|tables| !tables.is_empty())?;
        Some(HeldRows {
            tables: Arc::clone(tables),
            at: self.held_at,
        })
    }
}

impl Block for Vec<HeldRows> {
    fn shown(&self, position: usize) -> Option<Shown<'_>> {
        self.get(position).map(|held| Shown {
            tables: &held.tables,
            good_at: Some(held.at),
        })
    }
}

impl Block for Vec<(Target, Freshness)> {
    fn shown(&self, position: usize) -> Option<Shown<'_>> {
        self.get(position).map(|(_, freshness)| Shown {
            tables: &freshness.tables,
            good_at: None,
        })
    }
}

/// What is known through one collector.
#[derive(Clone, Debug)]
struct Collected {
    name: &'static str,
    plan: Plan,
    permitted: Option<bool>,
    cells: Shelf<CustomerId, Cell>,
    freshness: Shelf<Target, Freshness>,
    /// The text of the newest failure, for those that fail alike.
    last_trouble: Option<Arc<str>>,
}

impl Collected {
    /// Whether a target is still asked about. A customer may go while a poll about it is under way, and must not come
    /// back as a ghost with its outcome.
    fn expects(&self, target: &Target) -> bool {
        self.freshness.contains_key(target)
    }

    /// How many series tell how fresh it is: two of each target.
    fn freshness_series(&self) -> usize {
        2 * self.freshness.len()
    }

    /// The records and the freshness of these customers, or of all.
    fn blocks(&self, only: Option<&BTreeSet<Target>>) -> [Vec<Arc<dyn Block>>; 2] {
        let Some(only) = only else {
            let mut cells = self.cells.blocks();
            let held: Vec<HeldRows> = self.cells.values().filter_map(Cell::held_rows).collect();
            if !held.is_empty() {
                cells.push(Arc::new(held));
            }
            return [cells, self.freshness.blocks()];
        };
        let (mut cells, mut held, mut freshness) = (Vec::new(), Vec::new(), Vec::new());
        for target in only {
            if let Target::Customer(id) = target
                && let Some(cell) = self.cells.get(id)
            {
                held.extend(cell.held_rows());
                cells.push((id.clone(), cell.clone()));
            }
            if let Some(known) = self.freshness.get(target) {
                freshness.push((target.clone(), known.clone()));
            }
        }
        [vec![Arc::new(cells), Arc::new(held)], vec![Arc::new(freshness)]]
    }

    /// The customers by state. Whoever is known and of whom nothing was asked yet is pending.
    fn states(&self, customers: &Shelf<CustomerId, Known>, now: Timestamp) -> BTreeMap<State, usize> {
        let mut states = BTreeMap::from(State::ALL.map(|state| (state, 0)));
        let state = |freshness: &Freshness| freshness.state(self.plan.stale_after, now);
        let mut rest = customers.len();
        if let Some(of_all) = self.freshness.get(&Target::Partner) {
            *states.entry(state(of_all)).or_default() += std::mem::take(&mut rest);
        } else {
            // Both are sorted, so one walk finds who of those asked about is known.
            let mut known = customers.keys().peekable();
            for (target, freshness) in self.freshness.iter() {
                let Target::Customer(id) = target else { continue };
                while known.next_if(|known| *known < id).is_some() {}
                if known.next_if(|known| *known == id).is_some() {
                    *states.entry(state(freshness)).or_default() += 1;
                    rest = rest.saturating_sub(1);
                }
            }
        }
        *states.entry(State::Pending).or_default() += rest;
        states
    }

    fn note(&mut self, target: &Target, attempt: Attempt, success: Option<Timestamp>) {
        let before = self.freshness.get(target).and_then(|known| known.last_success);
        let freshness = Freshness::new(self.name, target, attempt, success.or(before));
        self.freshness.insert(target.clone(), freshness);
    }
}

/// A customer that is known.
#[derive(Clone, Debug)]
struct Known {
    organization: Arc<str>,
}

/// What the store holds. A copy shares the blocks of its shelves, and so is made in moments.
#[derive(Clone, Debug)]
struct Inner {
    customers: Shelf<CustomerId, Known>,
    /// Customers that the last complete list lacked. Absent from the next one too, they are gone.
    absent_once: Arc<BTreeSet<CustomerId>>,
    collected: Vec<Collected>,
    series: usize,
    series_limit: Option<usize>,
    restored: bool,
    /// Counts changes of who is known.
    membership: u64,
    /// Counts changes, so that whoever keeps something made from the store knows when it is out of date.
    generation: u64,
}

/// The store. Its lock is held for moments only and never across a wait.
#[derive(Debug)]
pub struct Store(Mutex<Inner>);

/// What a customer list changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Customers that are new.
    pub joined: Vec<CustomerId>,
    /// Customers that are gone, with everything known of them.
    pub left: Vec<CustomerId>,
}

/// A record was turned away because it would have taken the store past its limit of series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverLimit {
    /// How many more series it would have been.
    pub series: usize,
}

/// How a collector does, for the metrics about the exporter.
#[derive(Clone, Debug)]
pub struct Overview {
    /// The collector.
    pub name: &'static str,
    /// How it is run.
    pub plan: Plan,
    /// Whether its scope is granted, `None` before that is known.
    pub permitted: Option<bool>,
    /// Customers by state; adds up to the customers known.
    pub customers: BTreeMap<State, usize>,
}

impl Store {
    /// An empty store for collectors that are run like this, in the order of [`collector::ALL`].
    pub fn new(plans: &[Plan], series_limit: Option<usize>) -> Self {
        let collected = collector::ALL
            .iter()
            .zip(plans)
            .map(|(entry, plan)| Collected {
                name: entry.name,
                plan: *plan,
                permitted: None,
                cells: Shelf::default(),
                freshness: Shelf::default(),
                last_trouble: None,
            })
            .collect();
        Self(Mutex::new(Inner {
            customers: Shelf::default(),
            absent_once: Arc::default(),
            collected,
            series: 0,
            series_limit,
            restored: false,
            membership: 0,
            generation: 0,
        }))
    }

    /// Takes up other plans and limits, as after a reload, and renders every record under the new settings.
    pub fn reconfigure(&self, plans: &[Plan], series_limit: Option<usize>, settings: &Arc<Settings>, now: Timestamp) {
        self.rework(|inner| inner.reconfigure(plans, series_limit, settings, now));
    }

    /// Makes sure that a target is known to a collector, so that its freshness is shown from the first moment.
    pub fn expect(&self, collector: usize, target: &Target) {
        let mut inner = self.lock();
        if let Some(collected) = inner.collected.get_mut(collector)
            && !collected.freshness.contains_key(target)
        {
            collected.note(target, Attempt::Pending, None);
            inner.generation += 1;
        }
    }

    /// Forgets the freshness of targets that a collector does not ask about any more.
    pub fn retain_targets(&self, collector: usize, keep: impl Fn(&Target) -> bool) {
        let mut inner = self.lock();
        if let Some(collected) = inner.collected.get_mut(collector) {
            collected.freshness.retain(keep);
            inner.generation += 1;
        }
    }

    /// Whether a collector's scope is granted; true when that is news.
    pub fn set_permitted(&self, collector: usize, permitted: bool) -> bool {
        let mut inner = self.lock();
        let Some(collected) = inner.collected.get_mut(collector) else {
            return false;
        };
        let news = collected.permitted != Some(permitted);
        collected.permitted = Some(permitted);
        inner.generation += 1;
        news
    }

    /// What was kept of a customer by a collector.
    pub fn record(&self, collector: usize, customer: &CustomerId) -> Option<Arc<dyn Record>> {
        let inner = self.lock();
        let cell = inner.collected.get(collector)?.cells.get(customer)?;
        Some(Arc::clone(&cell.kept.record))
    }

    /// The id of a customer as it is known.
    pub fn as_known(&self, customer: CustomerId) -> CustomerId {
        let inner = self.lock();
        let known = inner.customers.get_key_value(&customer).map(|(known, _)| known.clone());
        known.unwrap_or(customer)
    }

    /// The name of a customer's organization; empty where it is not known.
    pub fn organization(&self, customer: &CustomerId) -> Arc<str> {
        organization(&self.lock().customers, customer)
    }

    /// The customers known, each with what a collector keeps of it.
    pub fn customers_with(&self, collector: usize) -> Vec<(CustomerId, Option<Arc<dyn Record>>)> {
        let (customers, cells) = {
            let inner = self.lock();
            let cells = inner.collected.get(collector).map(|collected| collected.cells.clone());
            (inner.customers.clone(), cells.unwrap_or_default())
        };
        let kept = |id| cells.get(id).map(|cell: &Cell| Arc::clone(&cell.kept.record));
        customers.keys().map(|id| (id.clone(), kept(id))).collect()
    }

    /// The customers known.
    pub fn customers(&self) -> Vec<CustomerId> {
        self.numbered_customers().1
    }

    /// A number that changes whenever other customers are known, however much is learned about the same.
    pub fn membership(&self) -> u64 {
        self.lock().membership
    }

    /// The customers known, with the number that they have by [`Store::membership`].
    pub fn numbered_customers(&self) -> (u64, Vec<CustomerId>) {
        let inner = self.lock();
        (inner.membership, inner.customers.keys().cloned().collect())
    }

    /// When a poll of a target last succeeded.
    pub fn last_success(&self, collector: usize, target: &Target) -> Option<Timestamp> {
        self.lock()
            .collected
            .get(collector)?
            .freshness
            .get(target)?
            .last_success
    }

    /// Whether the newest poll of a target succeeded.
    pub fn succeeded(&self, collector: usize, target: &Target) -> bool {
        let inner = self.lock();
        let freshness = inner
            .collected
            .get(collector)
            .and_then(|collected| collected.freshness.get(target));
        freshness.is_some_and(|freshness| freshness.attempt == Attempt::Succeeded)
    }

    /// Swaps in what a poll about `target` brought at `now`. Customers that are not known are left out. An answer
    /// about all customers replaces all that was known through the collector, an incomplete one only what it holds.
    ///
    /// # Errors
    /// [`OverLimit`] where it would take more series than the limit; then nothing is swapped.
    pub fn commit(
        &self,
        collector: usize,
        target: &Target,
        records: BTreeMap<CustomerId, Kept>,
        complete: bool,
        now: Timestamp,
    ) -> Result<(), OverLimit> {
        match target {
            Target::Customer(_) => self.lock().commit(collector, target, records, complete, now),
            Target::Partner => self.rework(|inner| inner.commit(collector, target, records.clone(), complete, now)),
        }
    }

    /// Notes that a poll failed. What is known stands.
    pub fn fail(&self, collector: usize, target: &Target, error: &Error) {
        let attempt = if error.is_forbidden() || matches!(error, Error::NotPermitted(_)) {
            Attempt::Forbidden
        } else {
            Attempt::Failed
        };
        let mut inner = self.lock();
        let collected = inner.collected.get_mut(collector);
        if let Some(collected) = collected.filter(|collected| collected.expects(target)) {
            collected.note(target, attempt, None);
            inner.generation += 1;
        }
    }

    /// Takes in a list of all customers, by organization. A customer is gone when two complete lists in a row lack it.
    ///
    /// # Errors
    /// [`Error::Shrunk`] where a complete list lacks so many customers at once that it is not believed before the
    /// next one says the same. Those who are missing for the second time are gone all the same.
    pub fn reconcile(
        &self,
        listed: &BTreeMap<CustomerId, Arc<str>>,
        complete: bool,
    ) -> (Reconciled, Result<(), Error>) {
        self.rework(|inner| inner.reconcile(listed, complete))
    }

    /// Lets nothing be newer than `now`, as after the wall clock was set back: what lies in the future cannot be fresh.
    pub fn not_after(&self, now: Timestamp) {
        let mut inner = self.lock();
        for collected in &mut inner.collected {
            for (_, cell) in collected.cells.iter_mut() {
                cell.good_at = cell.good_at.min(now);
                cell.held_at = cell.held_at.min(now);
            }
            for (target, freshness) in collected.freshness.iter_mut() {
                let last_success = freshness.last_success.map(|success| success.min(now));
                let trouble = freshness.trouble.take();
                *freshness = Freshness::new(collected.name, target, freshness.attempt, last_success);
                freshness.trouble = trouble;
            }
        }
        inner.generation += 1;
    }

    /// Drops a customer with all its series.
    pub fn forget(&self, id: &CustomerId) {
        let mut inner = self.lock();
        inner.forget(id);
        inner.generation += 1;
    }

    /// Keeps just the customers that pass, as after a reload of the filters, and says who went.
    pub fn retain_customers(&self, admits: impl Fn(&CustomerId, &str) -> bool) -> Vec<CustomerId> {
        self.rework(|inner| {
            let known = inner.customers.iter();
            let gone = known.filter(|(id, known)| !admits(id, &known.organization));
            let gone: Vec<CustomerId> = gone.map(|(id, _)| id.clone()).collect();
            for id in &gone {
                inner.forget(id);
            }
            inner.generation += 1;
            gone
        })
    }

    /// The newest readings of everything, as one scrape shows them; of just these targets where `only` is given.
    /// Its groups are those that [`columns`] names.
    pub fn picture(&self, only: Option<&BTreeSet<Target>>, now: Timestamp) -> Picture {
        self.numbered_picture(only, now).1
    }

    /// The same, with the generation that it shows.
    pub fn numbered_picture(&self, only: Option<&BTreeSet<Target>>, now: Timestamp) -> (u64, Picture) {
        let inner = self.lock();
        let (mut cells, mut freshness) = (Vec::new(), Vec::new());
        for collected in &inner.collected {
            let stale_after = collected.plan.stale_after;
            let [of_records, of_freshness] = collected.blocks(only);
            cells.push(Group {
                blocks: of_records,
                stale_after,
            });
            freshness.push(Group {
                blocks: of_freshness,
                stale_after,
            });
        }
        cells.append(&mut freshness);
        (inner.generation, Picture { groups: cells, now })
    }

    /// How each enabled collector does.
    pub fn overview(&self, now: Timestamp) -> Vec<Overview> {
        let (customers, collected) = {
            let inner = self.lock();
            (inner.customers.clone(), inner.collected.clone())
        };
        let enabled = collected.iter().filter(|collected| collected.plan.enabled);
        enabled
            .map(|collected| Overview {
                name: collected.name,
                plan: collected.plan,
                permitted: collected.permitted,
                customers: collected.states(&customers, now),
            })
            .collect()
    }

    /// How many series it holds, those about freshness included.
    pub fn series(&self) -> usize {
        let inner = self.lock();
        inner.series + inner.collected.iter().map(Collected::freshness_series).sum::<usize>()
    }

    /// Whether it came out of a state file.
    pub fn was_restored(&self) -> bool {
        self.lock().restored
    }

    /// A number that changes with every change.
    pub fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Changes much: works on a copy and swaps it in, so that no scrape waits for the work, nor for what is freed after it.
    /// One loop makes all changes; should another have come between all the same, the work is done again, under the lock.
    fn rework<R>(&self, work: impl Fn(&mut Inner) -> R) -> R {
        let mut copy = self.lock().clone();
        let before = copy.generation;
        let result = work(&mut copy);
        let mut inner = self.lock();
        if inner.generation != before {
            return work(&mut inner);
        }
        std::mem::swap(&mut *inner, &mut copy);
        drop(inner);
        result
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change below is a whole swap of plain data, so what a panic leaves behind is whole too.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// [`Store::reconfigure`], as one step.
    fn reconfigure(&mut self, plans: &[Plan], series_limit: Option<usize>, settings: &Arc<Settings>, now: Timestamp) {
        self.series_limit = series_limit;
        for ((collected, plan), entry) in self.collected.iter_mut().zip(plans).zip(collector::ALL) {
            collected.plan = *plan;
            for (id, cell) in collected.cells.iter_mut() {
                let context = Context {
                    now,
                    settings: Arc::clone(settings),
                    organization: organization(&self.customers, id),
                };
                if let Some((tables, held)) = entry.render(cell.kept.record.as_ref(), id, &context) {
                    self.series -= cell.samples();
                    cell.kept.tables = tables;
                    cell.kept.held = held;
                    cell.kept.standing = entry.standing(cell.kept.record.as_ref(), id, &context);
                    self.series += cell.samples();
                }
            }
            if !plan.enabled {
                self.series -= collected.cells.values().map(Cell::samples).sum::<usize>();
                collected.cells.clear();
                collected.freshness.clear();
            }
        }
        self.generation += 1;
    }

    /// [`Store::commit`], as one step.
    fn commit(
        &mut self,
        collector: usize,
        target: &Target,
        mut records: BTreeMap<CustomerId, Kept>,
        complete: bool,
        now: Timestamp,
    ) -> Result<(), OverLimit> {
        let Some(collected) = self
            .collected
            .get_mut(collector)
            .filter(|collected| collected.expects(target))
        else {
            return Ok(());
        };
        records.retain(|id, _| self.customers.contains_key(id));
        let gone: Vec<CustomerId> = match target {
            _ if !complete => Vec::new(),
            Target::Customer(id) if !records.contains_key(id) => vec![id.clone()],
            Target::Customer(_) => Vec::new(),
            // Whether a customer is still there is decided over two lists, in `reconcile`; until then it stays as it was.
            Target::Partner if collected.name == collector::CUSTOMERS => Vec::new(),
            Target::Partner => {
                let known = collected.cells.keys();
                known.filter(|id| !records.contains_key(*id)).cloned().collect()
            }
        };
        let more: usize = records.values().map(Kept::samples).sum();
        let replaced = gone.iter().chain(records.keys());
        let less: usize = replaced
            .filter_map(|id| collected.cells.get(id))
            .map(Cell::samples)
            .sum();
        let series = self.series - less + more;
        let freshness: usize = self.collected.iter().map(Collected::freshness_series).sum();
        let Some(collected) = self.collected.get_mut(collector) else {
            return Ok(());
        };
        if more > less && self.series_limit.is_some_and(|limit| series + freshness > limit) {
            collected.note(target, Attempt::Failed, None);
            self.generation += 1;
            return Err(OverLimit { series: more - less });
        }
        for id in &gone {
            collected.cells.remove(id);
        }
        for (id, kept) in records {
            // Rows that are held already do not become younger by being held once more.
            let before = collected.cells.get(&id);
            let held_at = before.map_or(now, |cell| match cell.kept.held.is_empty() {
                true => cell.good_at,
                false => cell.held_at,
            });
            let cell = Cell {
                kept,
                good_at: now,
                held_at,
            };
            collected.cells.insert(id, cell);
        }
        match complete {
            true => collected.note(target, Attempt::Succeeded, Some(now)),
            false => collected.note(target, Attempt::Failed, None),
        }
        self.series = series;
        self.generation += 1;
        Ok(())
    }

    /// [`Store::reconcile`], as one step.
    fn reconcile(
        &mut self,
        listed: &BTreeMap<CustomerId, Arc<str>>,
        complete: bool,
    ) -> (Reconciled, Result<(), Error>) {
        let mut reconciled = Reconciled::default();
        for (id, organization) in listed {
            self.forgive_absence(id);
            let known = Known {
                organization: Arc::clone(organization),
            };
            if self.customers.insert(id.clone(), known).is_none() {
                reconciled.joined.push(id.clone());
                self.membership += 1;
            }
        }
        self.generation += 1;
        if !complete {
            return (reconciled, Ok(()));
        }
        let known = self.customers.len() - reconciled.joined.len();
        let missing: Vec<CustomerId> = self
            .customers
            .keys()
            .filter(|id| !listed.contains_key(id))
            .cloned()
            .collect();
        let (left, missing): (Vec<_>, Vec<_>) = missing.into_iter().partition(|id| self.absent_once.contains(id));
        for id in &left {
            self.forget(id);
        }
        reconciled.left = left;
        self.absent_once = Arc::new(missing.iter().cloned().collect());
        let result = if is_sharp(missing.len(), known) {
            Err(Error::Shrunk {
                missing: missing.len(),
                known,
            })
        } else {
            Ok(())
        };
        (reconciled, result)
    }

    /// Forgets that a list lacked a customer. The set is copied only where it changes.
    fn forgive_absence(&mut self, id: &CustomerId) {
        if self.absent_once.contains(id) {
            Arc::make_mut(&mut self.absent_once).remove(id);
        }
    }

    /// Drops a customer with all its series.
    fn forget(&mut self, id: &CustomerId) {
        self.membership += 1;
        self.customers.remove(id);
        self.forgive_absence(id);
        let target = Target::Customer(id.clone());
        for collected in &mut self.collected {
            collected.freshness.remove(&target);
            if let Some(cell) = collected.cells.remove(id) {
                self.series -= cell.samples();
            }
        }
    }
}

fn organization(customers: &Shelf<CustomerId, Known>, id: &CustomerId) -> Arc<str> {
    customers
        .get(id)
        .map_or_else(|| Arc::from(""), |known| Arc::clone(&known.organization))
}

/// Whether so many customers missing of so many known smells of a fault rather than of business.
fn is_sharp(missing: usize, known: usize) -> bool {
    let all = known > 0 && missing >= known;
    let many = missing >= SHARP_SHRINK_CUSTOMERS && missing as f64 > known as f64 * SHARP_SHRINK_PART;
    all || many
}

/// Every metric that the store shows and where a [`Picture`] holds it: the collectors' groups, then their freshness.
pub fn columns() -> Vec<(Metric, Source)> {
    let mut columns = Vec::new();
    for (group, entry) in collector::ALL.iter().enumerate() {
        for (shape, metrics) in entry.metrics().into_iter().enumerate() {
            for (column, (metric, _)) in metrics.into_iter().enumerate() {
                columns.push((metric, Source { group, shape, column }));
            }
        }
    }
    for (column, metric) in [COLLECTOR_SUCCESS, COLLECTOR_LAST_SUCCESS].into_iter().enumerate() {
        for collector in 0..collector::ALL.len() {
            let source = Source {
                group: collector::ALL.len() + collector,
                shape: 0,
                column,
            };
            columns.push((metric, source));
        }
    }
    columns
}

/// The groups of a picture that belong to a collector: its records and its freshness.
pub fn groups_of(collector: usize) -> [usize; 2] {
    [collector, collector::ALL.len() + collector]
}

#[cfg(test)]
mod tests;
