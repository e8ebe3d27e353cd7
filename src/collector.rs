//! The collectors, one per file, and the table that lists them.
//!
//! A [`Collector`] polls the API for one [`Target`] and returns new records or an error. A record contains parsed
//! values, and [`Shape`](crate::exposition::Shape)s render it as samples. The table [`ALL`] is the only list of
//! collectors. The schedule, the configuration, the metrics reference and the tests are derived from it.

mod app_consent;
mod baselines;
mod customers;
mod descriptor;
mod id;
mod job_reports;
mod jobs;
mod licenses;
mod per_tenant;
mod protected;
mod ransomware;
mod rows;
mod scan_changes;
mod scan_profiles;
mod table;
mod tenant_seats;
mod user_protection;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::api::{Api, Endpoint, Error, Failure};
use crate::domain::{
    AttributeTable, Attributes, CustomerId, Gigabyte, HealthSummary, ModuleHealth, Objectives, Pattern, TenantId,
    Timestamp,
};
use crate::exposition::{ExcludedMetrics, ShapeSink, Table};
use rows::{
    CustomerList, float, hold_known, keep_missing, not_in_future, only_requested, read_rows, signed_float, split_rows,
    yield_at,
};

pub use customers::Customer;
pub use descriptor::CollectorDescriptor;
pub use id::CollectorId;
pub use job_reports::{CommonErrors, common_errors};
pub use jobs::{CompletedRun, ModuleRuns, add_module_names, past_runs};
pub use licenses::add_product_names;
pub use ransomware::{RansomwareSigns, ransomware_signs};
pub use table::{PerCollector, ids};

/// Tolerance for times in the future. Clocks may differ by a few minutes.
const FUTURE_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// All collectors, in the order in which their metrics are exposed.
pub const ALL: &[CollectorDescriptor] = &[
    CollectorDescriptor::of::<customers::Customers>(),
    CollectorDescriptor::of::<jobs::Jobs>(),
    CollectorDescriptor::of::<protected::Protected>(),
    CollectorDescriptor::of::<licenses::Licenses>(),
    CollectorDescriptor::of::<scan_profiles::ScanProfiles>(),
    CollectorDescriptor::of::<scan_changes::ScanChanges>(),
    CollectorDescriptor::of::<job_reports::JobReports>(),
    CollectorDescriptor::of::<tenant_seats::TenantSeats>(),
    CollectorDescriptor::of::<user_protection::UserProtection>(),
    CollectorDescriptor::of::<app_consent::AppConsent>(),
    CollectorDescriptor::of::<ransomware::Ransomware>(),
    CollectorDescriptor::of::<baselines::Baselines>(),
];

/// Whether and how often a collector polls its targets, and when its values expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whether the collector is enabled.
    pub enabled: bool,
    /// Time between two polls of a target, from 1 s to 30 days, except in [`Plan::OFF`].
    pub interval: Duration,
    /// Age at which values expire, counted from the poll that returned them; at least 1 s. If it is shorter than the
    /// interval, values expire before the next poll. Dated facts never expire.
    pub stale_after: Duration,
}

impl Plan {
    /// A plan that disables a collector.
    pub const OFF: Self = Self {
        enabled: false,
        interval: Duration::MAX,
        stale_after: Duration::MAX,
    };
}

/// The subject of a poll.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// All customers at once.
    Partner,
    /// One customer.
    Customer(CustomerId),
}

impl Target {
    /// Returns the value of the `customer_id` label; empty for the partner.
    pub fn customer_id(&self) -> &str {
        match self {
            Self::Partner => "",
            Self::Customer(id) => id.as_str(),
        }
    }

    /// Returns the customer id in a form that is safe to log; empty for the partner.
    pub fn log_safe(&self) -> String {
        match self {
            Self::Partner => String::new(),
            Self::Customer(id) => id.log_safe(),
        }
    }
}

/// The kind of target that a collector polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// All customers in one poll. The customers are polled separately if the list is forbidden. They are also polled
    /// separately if they are configured by id and API v1 is used, because API v1 cannot filter the list. Optional
    /// collectors never poll them separately, and `customers` does so only if ids are configured.
    Partner,
    /// Each customer in its own poll.
    Customer,
}

/// Delay before a customer or tenant that lacks a service is polled again, unless the interval is longer. With the
/// default intervals, a newly bought service appears within two days.
pub const UNLICENSED_RECHECK: Duration = Duration::from_secs(24 * 3600);

/// Estimated cost of polling one target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// Requests per poll, excluding those for individual scan profiles.
    pub requests: f64,
    /// Additional requests per scan profile.
    pub per_profile: f64,
    /// Description of the requests, for the documentation.
    pub description: &'static str,
    /// Latency of a request, measured with a real partner for customers that have data. The API responds faster for
    /// other customers.
    pub latency: Duration,
}

impl Price {
    /// One request.
    pub const ONE: Self = Self {
        requests: 1.0,
        per_profile: 0.0,
        description: "1 per customer",
        latency: Duration::from_secs(1),
    };

    /// One request for the list of scan profiles, and one more for each profile.
    pub const PER_PROFILE: Self = Self {
        per_profile: 1.0,
        description: "1 per customer and 1 per scan profile",
        ..Self::ONE
    };
}

/// The target type of a collector: [`Partner`], [`CustomerId`], or [`Target`] for a collector that can poll both.
pub trait PollTarget: Sized + Send + Sync + 'static {
    /// The kind of target.
    const KIND: TargetKind;

    /// Converts a target to this type; returns `None` if the collector cannot poll it.
    fn from_target(target: &Target) -> Option<Self>;
}

impl PollTarget for Target {
    const KIND: TargetKind = TargetKind::Partner;

    fn from_target(target: &Target) -> Option<Self> {
        Some(target.clone())
    }
}

/// The partner as the only target, for resources that cannot be requested per customer.
#[derive(Clone, Copy, Debug)]
pub struct Partner;

impl PollTarget for Partner {
    const KIND: TargetKind = TargetKind::Partner;

    fn from_target(target: &Target) -> Option<Self> {
        (*target == Target::Partner).then_some(Self)
    }
}

impl PollTarget for CustomerId {
    const KIND: TargetKind = TargetKind::Customer;

    fn from_target(target: &Target) -> Option<Self> {
        match target {
            Target::Partner => None,
            Target::Customer(id) => Some(id.clone()),
        }
    }
}

/// The context in which a target is polled or a record is rendered.
#[derive(Clone, Debug)]
pub struct Context {
    /// Current wall-clock time.
    pub now: Timestamp,
    /// Settings of the collectors.
    pub settings: Arc<CollectorSettings>,
    /// Age at which the collector's values expire; `Duration::MAX` while rendering.
    pub stale_after: Duration,
    /// Name of the customer's organization; empty if it is unknown, or if the target is the partner.
    pub organization: Arc<str>,
    /// Records of earlier polls; `None` while rendering.
    pub records: Option<Arc<dyn RecordSource>>,
}

impl Context {
    /// Creates a context for rendering records.
    pub fn new(now: Timestamp, settings: Arc<CollectorSettings>, organization: Arc<str>) -> Self {
        Self {
            now,
            settings,
            stale_after: Duration::MAX,
            organization,
            records: None,
        }
    }

    /// Returns the attributes of the target customer.
    fn attributes(&self, customer: &CustomerId) -> Option<&Arc<Attributes>> {
        self.settings.attributes.as_ref()?.of(customer, &self.organization)
    }

    /// Returns a customer's record from another collector.
    fn record_of(&self, collector: CollectorId, customer: &CustomerId) -> Option<Arc<dyn Record>> {
        self.records.as_ref()?.record(collector, customer)
    }

    /// Returns the ids of a customer's Microsoft 365 tenants, as given in the customer list.
    fn tenants(&self, customer: &CustomerId) -> Vec<TenantId> {
        let listed = self.listed_customer(customer);
        listed.map_or_else(Vec::new, |listed| listed.tenant_ids().cloned().collect())
    }

    /// Returns whether the customer list contains the ids of all the customer's tenants.
    fn has_all_tenant_ids(&self, customer: &CustomerId) -> bool {
        self.listed_customer(customer)
            .is_some_and(|listed| listed.has_all_tenant_ids())
    }

    fn listed_customer(&self, customer: &CustomerId) -> Option<Customer> {
        let record = self.record_of(CollectorId::CUSTOMERS, customer)?;
        Customer::of(record.as_ref()).cloned()
    }
}

/// Settings of the collectors.
#[derive(Clone, Debug, Default)]
pub struct CollectorSettings {
    /// Job types to request; all if empty.
    pub job_types: Vec<u16>,
    /// Job modules to request; all if empty.
    pub job_modules: Vec<u16>,
    /// Whether changed objects are counted per container.
    pub scan_objects: bool,
    /// Whether the owner's email address is exposed as a label.
    pub owner_email: bool,
    /// Customer attributes; `None` if no attributes file is configured.
    pub attributes: Option<Arc<AttributeTable>>,
    /// Recovery point objectives.
    pub rpo: Objectives,
    /// Products whose subscriptions are exposed; all if empty.
    pub license_services: Vec<Pattern>,
    /// Products whose subscriptions count as backup licences.
    pub backup_services: Vec<Pattern>,
    /// Meaning of a gigabyte in API values.
    pub gigabyte: Gigabyte,
    /// Products whose app consent is polled.
    pub consent_products: Vec<String>,
    /// Metrics to exclude.
    pub excluded: ExcludedMetrics,
    /// Ids of the customers to request in API v3 lists; all if empty.
    pub customer_ids: Vec<String>,
}

/// Output of a poll. Records are rendered after the poll, because settings may change during the poll. Outside the
/// collectors, the record type is erased.
#[derive(Debug)]
pub struct PollOutput<R = Arc<dyn Record>> {
    /// Records by customer.
    pub records: BTreeMap<CustomerId, R>,
    /// The failure that left the records incomplete, if any.
    pub incomplete: Option<Failure>,
    /// Newly completed job runs.
    pub ended: Vec<(CustomerId, CompletedRun)>,
}

impl<R> PollOutput<R> {
    /// Creates the output of a poll whose response contained the given number of invalid rows.
    fn new(records: BTreeMap<CustomerId, R>, unreadable: usize, endpoint: Endpoint) -> Self {
        let incomplete = (unreadable > 0).then(|| Error::UnreadableRows(unreadable).at(endpoint));
        Self {
            records,
            incomplete,
            ended: Vec::new(),
        }
    }

    /// Creates the output of a poll of one customer.
    fn of_customer(customer: &CustomerId, record: R, unreadable: usize, endpoint: Endpoint) -> Self {
        Self::new(BTreeMap::from([(customer.clone(), record)]), unreadable, endpoint)
    }

    /// Sets the failure, if there is one. The new failure replaces any failure that reports invalid rows.
    fn with_failure(self, failure: Option<Failure>) -> Self {
        Self {
            incomplete: failure.or(self.incomplete),
            ..self
        }
    }
}

/// Code that polls one kind of data. Its records are saved to the state file, so that they survive restarts.
pub trait Collector: 'static {
    /// Name in the configuration and in labels.
    const NAME: &'static str;
    /// Endpoint reported for failures that were not caused by a request.
    const ENDPOINT: Endpoint;
    /// Endpoints whose requests are counted for this collector: all that it requests, except those that an earlier
    /// collector in [`ALL`] also requests.
    const ENDPOINTS: &'static [Endpoint] = &[Self::ENDPOINT];
    /// Default interval.
    const INTERVAL: Duration;
    /// Whether the collector is optional, which means that it is disabled by default and requires API v3. If the API
    /// returns 403 or 404 for a customer without unexpired data, the customer counts as lacking the service. Polls of
    /// optional collectors have the lowest priority.
    const IS_OPTIONAL: bool = false;
    /// Estimated cost of a poll.
    const PRICE: Price = Price::ONE;
    /// Permission required in API v1; empty for an optional collector.
    const SCOPE_V1: &'static str = "";
    /// Permission required in API v3.
    const SCOPE_V3: &'static str;
    /// Whether a changed customer status triggers a poll.
    const POLLS_ON_STATUS_CHANGE: bool = false;
    /// The collector whose records list the items that this collector polls. A target is polled again when its items
    /// change. See [`Collector::lists_other_items`].
    const ITEMS_FROM: Option<CollectorId> = None;
    /// The collector whose records determine this collector's requests. A target is polled after each successful poll
    /// by the other collector, unless the target lacks this collector's service. It is never polled before the first
    /// such poll.
    const AFTER: Option<CollectorId> = None;
    /// Type of the targets.
    type Target: PollTarget;
    /// Type of a customer's record. Its default value is an empty record.
    type Record: Default + Serialize + DeserializeOwned + fmt::Debug + Send + Sync + 'static;

    /// Polls a target. `previous` is the customer's last record, if there is one; `None` for the partner.
    fn poll(
        api: &Api,
        target: &Self::Target,
        previous: Option<&Self::Record>,
        context: &Context,
    ) -> impl Future<Output = Result<PollOutput<Self::Record>, Failure>> + Send;

    /// Completes the record of an incomplete poll with rows from the previous record. The default implementation
    /// returns the new record unchanged. This suits records with a single row, and collectors that carry rows over in
    /// `poll`.
    fn complete(previous: &Self::Record, partial: Self::Record) -> Self::Record {
        let _ = previous;
        partial
    }

    /// Fills in the values of a new record that depend on the previous record or on the organization's last known name.
    fn finish(record: &mut Self::Record, previous: Option<&Self::Record>, organization: &str) {
        let _ = (record, previous, organization);
    }

    /// Splits a record into the rows of the latest response and the rows carried over from earlier responses. Returns
    /// `None` if no rows are carried over.
    fn split(record: &Self::Record) -> Option<(Self::Record, Self::Record)> {
        let _ = record;
        None
    }

    /// Returns whether requests and parsing are the same under both settings; true by default. If a reload changes
    /// the requests or the parsing, all targets are polled again.
    fn polls_alike(settings: &CollectorSettings, other: &CollectorSettings) -> bool {
        let _ = (settings, other);
        true
    }

    /// Returns whether the items in a record differ from those in the previous record. An implementation may ignore
    /// removed items. See [`Collector::ITEMS_FROM`].
    fn lists_other_items(record: &Self::Record, previous: &Self::Record) -> bool {
        let _ = (record, previous);
        false
    }

    /// Returns the record without the removed tenants; `None` if it contains none of them.
    fn without_tenants(record: &Self::Record, removed: &BTreeSet<TenantId>) -> Option<Self::Record> {
        let _ = (record, removed);
        None
    }

    /// Returns whether no run is in progress. If so, the next poll is less urgent.
    fn is_quiet(record: &Self::Record) -> bool {
        let _ = record;
        false
    }

    /// Adds the shapes of a record with their rows. The shapes are the same for every record, even an empty one.
    fn tables(record: &Self::Record, customer: &CustomerId, context: &Context, sink: &mut impl ShapeSink);

    /// Returns the health of the modules in a record; none by default.
    fn modules(record: &Self::Record, customer: &CustomerId, context: &Context) -> Vec<ModuleHealth> {
        let _ = (record, customer, context);
        Vec::new()
    }
}

/// A type-erased record.
pub trait Record: fmt::Debug + Send + Sync {
    /// Returns the record as [`Any`], for downcasting.
    fn as_any(&self) -> &dyn Any;
    /// Converts the record to JSON, for the state file.
    ///
    /// # Errors
    /// Returns an error if a value cannot be represented in JSON. No record contains such a value.
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

/// A record with its rendered samples.
#[derive(Clone, Debug)]
pub struct RenderedRecord {
    /// The record.
    pub record: Arc<dyn Record>,
    /// Samples, one table per shape.
    pub tables: Arc<[Table]>,
    /// Samples of the rows carried over from earlier responses, in the order of `tables`; empty if there are none.
    pub held: Arc<[Table]>,
    /// Health of the modules; `None` for a record without modules.
    pub health: Option<Arc<HealthSummary>>,
}

impl RenderedRecord {
    /// Returns this record of subscriptions without its tenants. Returns `None` unless both this record and the
    /// customer's record list the tenants.
    pub fn without_tenants_of(&self, customer: &Self) -> Option<Self> {
        let customer = Customer::of(customer.record.as_ref())?;
        let subscriptions = self.record.as_any().downcast_ref::<licenses::Subscriptions>()?;
        (customer.lists_tenants() && subscriptions.lists_tenants()).then(|| Self {
            record: Arc::new(subscriptions.without_tenants()),
            tables: self.tables.iter().take(licenses::FIRST_TENANT_SHAPE).cloned().collect(),
            ..self.clone()
        })
    }

    /// Returns the number of samples.
    pub fn samples(&self) -> usize {
        self.tables.iter().chain(self.held.iter()).map(Table::samples).sum()
    }
}

/// Source of records from earlier polls.
pub trait RecordSource: fmt::Debug + Send + Sync {
    /// Returns a collector's record of a customer.
    fn record(&self, collector: CollectorId, customer: &CustomerId) -> Option<Arc<dyn Record>>;
    /// Returns a customer id as it is spelled in the customer list. GUIDs that differ only in case are equal. An
    /// unknown id is returned unchanged.
    fn canonical_id(&self, customer: CustomerId) -> CustomerId;
    /// Returns the last known name of a customer's organization; empty if no name is known.
    fn organization(&self, customer: &CustomerId) -> Arc<str>;
}
