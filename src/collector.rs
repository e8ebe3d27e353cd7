//! What is collected: one file each, and the table of them all.
//!
//! A [`Collector`] asks the API about one [`Target`] and gives either a whole new record or an error. What it keeps is a
//! record of parsed values; what a scrape shows of it are its [`Shape`]s. The table [`ALL`] is the only place that
//! knows which collectors exist: the schedule, the configuration, the reference of metrics and the tests walk it.

mod customers;
mod jobs;
mod licenses;
mod protected;
mod scan_changes;
mod scan_profiles;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::api::{Api, Endpoint, Error, Failure, Generation};
use crate::domain::{CustomerId, ModuleStanding, Standing, Timestamp};
use crate::exposition::{Metric, Shape, ShapeMetrics, Table};

pub use customers::Customer;

/// All collectors, in the order in which their metrics are written.
pub const ALL: &[Entry] = &[
    Entry::of::<customers::Customers>(),
    Entry::of::<jobs::Jobs>(),
    Entry::of::<protected::Protected>(),
    Entry::of::<licenses::Licenses>(),
    Entry::of::<scan_profiles::ScanProfiles>(),
    Entry::of::<scan_changes::ScanChanges>(),
];

/// The name of the collector that lists the customers, on which the others stand.
pub const CUSTOMERS: &str = customers::Customers::NAME;

/// The name of the collector of jobs, without which nothing is known of backups.
pub const JOBS: &str = jobs::Jobs::NAME;

/// How many rows are read before other polls and scrapes have their turn: a few milliseconds' worth.
const ROWS_A_TURN: usize = 1_000;

/// The position of a collector in [`ALL`].
pub fn index_of(name: &str) -> Option<usize> {
    ALL.iter().position(|entry| entry.name == name)
}

/// Whom a poll asks about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// All customers at once.
    Partner,
    /// One customer.
    Customer(CustomerId),
}

impl Target {
    /// The value of the label `customer_id`: empty for the partner.
    pub fn customer_id(&self) -> &str {
        match self {
            Self::Partner => "",
            Self::Customer(id) => id.as_str(),
        }
    }

    /// The same for a person to read in a log.
    pub fn shown(&self) -> String {
        match self {
            Self::Partner => String::new(),
            Self::Customer(id) => id.shown(),
        }
    }
}

/// Whom a collector asks about, as long as nothing forbids it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Once for all customers. Where only some customers may be seen, each by itself.
    Partner,
    /// Each customer by itself.
    Customer,
}

/// What a poll needs to know besides the API.
#[derive(Clone, Debug)]
pub struct Context {
    /// The present, by the wall clock.
    pub now: Timestamp,
    /// What the operator set.
    pub settings: Arc<Settings>,
    /// The name of the target customer's organization, where it is known.
    pub organization: Arc<str>,
}

/// What the operator set for the collectors.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Job types to ask for; all where empty.
    pub job_types: Vec<u16>,
    /// Job modules to ask for; all where empty.
    pub job_modules: Vec<u16>,
    /// Whether changed objects are counted per container.
    pub scan_objects: bool,
    /// Whether the owner's address is a label.
    pub owner_email: bool,
    /// How old restore points may be.
    pub rpo: Objective,
    /// The only customers to ask the second generation's lists for; all where empty.
    pub customer_ids: Vec<String>,
}

/// How old the newest restore point of a module may be; `None` exempts it.
#[derive(Clone)]
pub struct Objective(Arc<ObjectiveOf>);

type ObjectiveOf = dyn Fn(&Module<'_>) -> Option<Duration> + Send + Sync;

/// A module of a customer, as objectives are set for it.
#[derive(Clone, Copy, Debug)]
pub struct Module<'a> {
    /// The customer's id.
    pub customer_id: &'a str,
    /// The name of its organization.
    pub organization: &'a str,
    /// The service.
    pub service: &'a str,
    /// The module.
    pub module: &'a str,
}

impl Objective {
    /// The objective that `of` says.
    pub fn new(of: impl Fn(&Module<'_>) -> Option<Duration> + Send + Sync + 'static) -> Self {
        Self(Arc::new(of))
    }

    /// The objective of a module.
    pub fn of(&self, module: &Module<'_>) -> Option<Duration> {
        (self.0)(module)
    }
}

impl Default for Objective {
    /// No module has one.
    fn default() -> Self {
        Self::new(|_| None)
    }
}

impl fmt::Debug for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Objective")
    }
}

/// What a poll brought: records of parsed values, and whether every row of the answer could be read.
#[derive(Debug)]
pub struct Reading<R> {
    /// The records, by customer. A poll about one customer brings one.
    pub records: BTreeMap<CustomerId, R>,
    /// How many rows could not be read. The others count, but the poll is then not called complete.
    pub unreadable: usize,
    /// What was asked for, for the error that unreadable rows are.
    pub endpoint: Endpoint,
}

impl<R> Reading<R> {
    /// A reading about one customer.
    pub fn one(customer: &CustomerId, record: R, unreadable: usize, endpoint: Endpoint) -> Self {
        Self {
            records: BTreeMap::from([(customer.clone(), record)]),
            unreadable,
            endpoint,
        }
    }
}

/// Something that is polled.
///
/// Records go into the state file, so that a restart begins where the last run ended.
pub trait Collector: 'static {
    /// The name in configuration and labels.
    const NAME: &'static str;
    /// What it asks for, where a failure says no more than whose it is.
    const ENDPOINT: Endpoint;
    /// All that it may ask for.
    const ENDPOINTS: &'static [Endpoint] = &[Self::ENDPOINT];
    /// How often by default.
    const INTERVAL: Duration;
    /// The scope it needs in the first generation.
    const SCOPE_V1: &'static str;
    /// The scope it needs in the second.
    const SCOPE_V3: &'static str;
    /// Whom it asks about.
    const REACH: Reach;
    /// Whether another status of a customer in the list of customers tells that there is something new to ask for.
    const FOLLOWS_STATUS: bool = false;
    /// What it keeps of a customer.
    type Record: Serialize + DeserializeOwned + fmt::Debug + Send + Sync + 'static;

    /// Asks. `previous` is what it kept of the target customer, if anything.
    fn poll(
        api: &Api,
        target: &Target,
        previous: Option<&Self::Record>,
        context: &Context,
    ) -> impl Future<Output = Result<Reading<Self::Record>, Failure>> + Send;

    /// Joins the rows of an answer that could be read with what is known of the rest, where some could not. By default
    /// the new record stands alone, for collectors whose record is one row.
    fn complete(previous: &Self::Record, partial: Self::Record) -> Self::Record {
        let _ = previous;
        partial
    }

    /// Settles what a new record takes over from the one before it, which may be none.
    fn settle(record: &mut Self::Record, previous: Option<&Self::Record>) {
        let _ = (record, previous);
    }

    /// The rows that the newest answer told and those that are held because it could not be read whole; `None` where
    /// none is held.
    fn split(record: &Self::Record) -> Option<(Self::Record, Self::Record)> {
        let _ = record;
        None
    }

    /// Whether nothing was under way that the next poll would see the end of, so that others may go first where the API
    /// does not allow all.
    fn is_quiet(record: &Self::Record) -> bool {
        let _ = record;
        false
    }

    /// The metrics, shape by shape, in the order of the tables that [`Collector::tables`] gives.
    fn metrics() -> Vec<ShapeMetrics>;

    /// The samples of a record, a table per shape, and how many rows would have made a second sample of a series.
    fn tables(record: &Self::Record, customer: &CustomerId, context: &Context) -> (Vec<Table>, u64);

    /// How the modules stand that a record tells of, for people; by default it tells of none.
    fn modules(record: &Self::Record, customer: &CustomerId, context: &Context) -> Vec<ModuleStanding> {
        let _ = (record, customer, context);
        Vec::new()
    }
}

/// A record whose type only its collector knows.
pub trait Record: fmt::Debug + Send + Sync {
    /// For the collector.
    fn as_any(&self) -> &dyn Any;
    /// The record as JSON, for the state file.
    ///
    /// # Errors
    /// Where a value has no JSON, which no record's has.
    fn to_json(&self) -> serde_json::Result<Box<RawValue>>;
}

impl<R: Serialize + fmt::Debug + Send + Sync + 'static> Record for R {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn to_json(&self) -> serde_json::Result<Box<RawValue>> {
        serde_json::value::to_raw_value(self)
    }
}

/// A record and what a scrape shows of it.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The record.
    pub record: Arc<dyn Record>,
    /// Its samples, a table per shape.
    pub tables: Arc<[Table]>,
    /// The samples of the rows that are held from earlier answers, in the same way; empty where there are none.
    pub held: Arc<[Table]>,
    /// How the modules stand that it tells of, in sum; `None` where it tells of none.
    pub standing: Option<Arc<Standing>>,
}

impl Kept {
    /// How many samples it has.
    pub fn samples(&self) -> usize {
        self.tables.iter().chain(self.held.iter()).map(Table::samples).sum()
    }
}

/// What a poll brought, its type erased.
#[derive(Debug)]
pub struct Brought {
    /// By customer.
    pub records: BTreeMap<CustomerId, Kept>,
    /// The error that makes the poll incomplete though its records count.
    pub incomplete: Option<Failure>,
}

type PollFuture = Pin<Box<dyn Future<Output = Result<Brought, Failure>> + Send>>;

/// What a collector's entry asks of the store while it polls.
pub trait Memory: Send + Sync {
    /// What was kept of a customer.
    fn record(&self, customer: &CustomerId) -> Option<Arc<dyn Record>>;
    /// The id of a customer as it is known, where an answer writes it in another case.
    fn as_known(&self, customer: CustomerId) -> CustomerId;
}

/// A memory without anything in it, for a poll that stands alone.
#[derive(Clone, Copy, Debug)]
pub struct NoMemory;

impl Memory for NoMemory {
    fn record(&self, _customer: &CustomerId) -> Option<Arc<dyn Record>> {
        None
    }

    fn as_known(&self, customer: CustomerId) -> CustomerId {
        customer
    }
}

/// A row of the table [`ALL`].
#[derive(Clone, Copy)]
pub struct Entry {
    /// The name in configuration and labels.
    pub name: &'static str,
    /// What it asks for, where a failure says no more than whose it is.
    pub endpoint: Endpoint,
    /// All that it may ask for.
    pub endpoints: &'static [Endpoint],
    /// How often by default.
    pub interval: Duration,
    /// Whom it asks about.
    pub reach: Reach,
    /// Whether another status of a customer tells that there is something new to ask for.
    pub follows_status: bool,
    scope_v1: &'static str,
    scope_v3: &'static str,
    poll: fn(Api, Target, Arc<dyn Memory>, Context) -> PollFuture,
    metrics: fn() -> Vec<ShapeMetrics>,
    restore: fn(&RawValue, &CustomerId, &Context) -> Option<Kept>,
    render: Render,
    modules: Modules,
    is_quiet: fn(&dyn Record) -> bool,
}

type Render = fn(&dyn Record, &CustomerId, &Context) -> Option<Rendered>;

/// The samples of a record, and those of its rows that are held.
pub type Rendered = (Arc<[Table]>, Arc<[Table]>);
type Modules = fn(&dyn Record, &CustomerId, &Context) -> Vec<ModuleStanding>;

impl Entry {
    const fn of<C: Collector>() -> Self {
        Self {
            name: C::NAME,
            endpoint: C::ENDPOINT,
            endpoints: C::ENDPOINTS,
            interval: C::INTERVAL,
            reach: C::REACH,
            follows_status: C::FOLLOWS_STATUS,
            scope_v1: C::SCOPE_V1,
            scope_v3: C::SCOPE_V3,
            poll: |api, target, memory, context| Box::pin(poll::<C>(api, target, memory, context)),
            metrics: C::metrics,
            restore: |json, customer, context| {
                let record: C::Record = serde_json::from_str(json.get()).ok()?;
                Some(keep::<C>(record, customer, context).0)
            },
            render: |record, customer, context| {
                let record = record.as_any().downcast_ref::<C::Record>()?;
                Some(render::<C>(record, customer, context).0)
            },
            modules: |record, customer, context| {
                let record = record.as_any().downcast_ref::<C::Record>();
                record.map_or_else(Vec::new, |record| C::modules(record, customer, context))
            },
            is_quiet: |record| record.as_any().downcast_ref::<C::Record>().is_some_and(C::is_quiet),
        }
    }

    /// The scope that it needs in a generation.
    pub fn scope(&self, generation: Generation) -> &'static str {
        match generation {
            Generation::V1 => self.scope_v1,
            Generation::V3 => self.scope_v3,
        }
    }

    /// Asks the API about a target.
    pub fn poll(&self, api: Api, target: Target, memory: Arc<dyn Memory>, context: Context) -> PollFuture {
        (self.poll)(api, target, memory, context)
    }

    /// Its metrics, shape by shape.
    pub fn metrics(&self) -> Vec<ShapeMetrics> {
        (self.metrics)()
    }

    /// A record out of the state file; `None` where it is of another form, as after an upgrade.
    pub fn restore(&self, json: &RawValue, customer: &CustomerId, context: &Context) -> Option<Kept> {
        (self.restore)(json, customer, context)
    }

    /// Whether nothing was under way that the next poll would see the end of.
    pub fn is_quiet(&self, record: &dyn Record) -> bool {
        (self.is_quiet)(record)
    }

    /// The samples of a record under other settings, and those of its rows that are held.
    pub fn render(&self, record: &dyn Record, customer: &CustomerId, context: &Context) -> Option<Rendered> {
        (self.render)(record, customer, context)
    }

    /// How the modules stand that a record tells of.
    pub fn modules(&self, record: &dyn Record, customer: &CustomerId, context: &Context) -> Vec<ModuleStanding> {
        (self.modules)(record, customer, context)
    }

    /// The same in sum, for a record that tells of any.
    pub fn standing(&self, record: &dyn Record, customer: &CustomerId, context: &Context) -> Option<Arc<Standing>> {
        summed(&self.modules(record, customer, context))
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

async fn poll<C: Collector>(
    api: Api,
    target: Target,
    memory: Arc<dyn Memory>,
    context: Context,
) -> Result<Brought, Failure> {
    let before = match &target {
        Target::Customer(id) => memory.record(id),
        Target::Partner => None,
    };
    let before = before
        .as_deref()
        .and_then(|record| record.as_any().downcast_ref::<C::Record>());
    let reading = C::poll(&api, &target, before, &context).await?;
    let mut duplicates = 0;
    let mut records = BTreeMap::new();
    for (id, record) in reading.records {
        let id = memory.as_known(id);
        let known = memory.record(&id);
        let known = known
            .as_deref()
            .and_then(|record| record.as_any().downcast_ref::<C::Record>());
        let mut record = match known.filter(|_| reading.unreadable > 0) {
            Some(known) => C::complete(known, record),
            None => record,
        };
        C::settle(&mut record, known);
        let (kept, more) = keep::<C>(record, &id, &context);
        duplicates += more;
        records.insert(id, kept);
    }
    if duplicates > 0 {
        api.observer().duplicate_rows(reading.endpoint, duplicates);
    }
    let incomplete = (reading.unreadable > 0).then(|| Error::UnreadableRows(reading.unreadable).at(reading.endpoint));
    Ok(Brought { records, incomplete })
}

fn keep<C: Collector>(record: C::Record, customer: &CustomerId, context: &Context) -> (Kept, u64) {
    let ((tables, held), duplicates) = render::<C>(&record, customer, context);
    let standing = summed(&C::modules(&record, customer, context));
    let kept = Kept {
        record: Arc::new(record),
        tables,
        held,
        standing,
    };
    (kept, duplicates)
}

fn render<C: Collector>(record: &C::Record, customer: &CustomerId, context: &Context) -> (Rendered, u64) {
    match C::split(record) {
        None => {
            let (tables, duplicates) = C::tables(record, customer, context);
            ((tables.into(), Arc::new([])), duplicates)
        }
        Some((told, held)) => {
            let (told, more) = C::tables(&told, customer, context);
            let (held, duplicates) = C::tables(&held, customer, context);
            ((told.into(), held.into()), duplicates + more)
        }
    }
}

fn summed(modules: &[ModuleStanding]) -> Option<Arc<Standing>> {
    (!modules.is_empty()).then(|| Arc::new(Standing::of(modules)))
}

/// Lets others have their turn now and then while the rows of a long answer are read.
async fn turn(position: usize) {
    if position % ROWS_A_TURN == ROWS_A_TURN - 1 {
        tokio::task::yield_now().await;
    }
}

/// The samples of several shapes, in order, with their duplicates summed.
fn tabulate(tables: impl IntoIterator<Item = (Table, u64)>) -> (Vec<Table>, u64) {
    let mut sum = 0;
    let tables = tables
        .into_iter()
        .map(|(table, duplicates)| {
            sum += duplicates;
            table
        })
        .collect();
    (tables, sum)
}

/// A table with the metrics of one shape, for [`Collector::metrics`].
fn shape<R>(shape: &Shape<R>) -> ShapeMetrics {
    shape.metrics()
}

/// The tenants of a customer. The second generation tells them with the customer, the first with the subscriptions.
const CUSTOMER_TENANTS: Metric = Metric::gauge(
    "elements_customer_tenants",
    "Microsoft 365 tenants known of the customer",
);

/// The body that asks the second generation for the target, or for the customers that the operator named.
fn customer_filter(target: &Target, context: &Context) -> String {
    match target {
        Target::Customer(id) => serde_json::json!({ "customerIds": [id.as_str()] }).to_string(),
        Target::Partner if context.settings.customer_ids.is_empty() => "{}".to_owned(),
        Target::Partner => serde_json::json!({ "customerIds": context.settings.customer_ids }).to_string(),
    }
}

/// What an answer about one customer says of that customer, whatever else it holds. Ids are the same in either case of
/// their letters, and the one asked for is the one that is known.
fn only<R>(asked: &CustomerId, records: BTreeMap<CustomerId, R>) -> BTreeMap<CustomerId, R> {
    let same = |id: &CustomerId| id.as_str().eq_ignore_ascii_case(asked.as_str());
    let found = records.into_iter().find(|(id, _)| same(id));
    found.map(|(_, record)| (asked.clone(), record)).into_iter().collect()
}

/// A count as a sample's value. Counts beyond the integers that a double holds are not exact and so not said.
fn exact(count: usize) -> Option<f64> {
    u32::try_from(count).ok().map(f64::from)
}

/// A count as a sample's value. The readers take no count that a double does not hold exactly.
fn float(count: u64) -> f64 {
    count as f64
}

/// A number with a sign as a sample's value, exact for the same reason.
fn signed_float(number: i64) -> f64 {
    number as f64
}

/// A row that may be held from an earlier answer.
trait Held: Clone {
    /// Whether it is.
    fn is_held(&self) -> bool;
    /// Marks it as such.
    fn hold(&mut self);
}

/// The rows of an answer that could be read, and those known before whose keys the answer lacks, which are held: one of
/// them may be the row that could not be read.
fn keep_missing<R: Held, K: Ord>(previous: &[R], mut partial: Vec<R>, key: impl Fn(&R) -> K) -> Vec<R> {
    let read: std::collections::BTreeSet<K> = partial.iter().map(&key).collect();
    let missing = previous.iter().filter(|row| !read.contains(&key(row))).cloned();
    partial.extend(missing.map(|mut row| {
        row.hold();
        row
    }));
    partial
}

/// The rows told and the rows held, where any is.
fn split_rows<R: Held>(rows: &[R]) -> Option<(Vec<R>, Vec<R>)> {
    let (held, told): (Vec<R>, Vec<R>) = rows.iter().cloned().partition(Held::is_held);
    (!held.is_empty()).then_some((told, held))
}
