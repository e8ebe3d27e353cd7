//! Customers: names, status and tenants.

pub(super) mod tenants;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use self::tenants::{CUSTOMER_TENANTS, MAX_TENANTS, SHAPE_TENANTS, Tenant};
use super::{Collector, Context, CustomerList, PollOutput, Price, Record, Target};
use crate::api::wire::{Names, Row};
use crate::api::{Api, Endpoint, Failure, Generation, v1, v3};
use crate::domain::{
    Attributes, CustomerId, CustomerStatus, ManagementMode, TenantId, customer_status, management_mode,
};
use crate::exposition::{Shape, ShapeSink, column, exact, gauge, info, label};

/// A customer in the customer list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Customer {
    /// Last known name of the organization; empty if none is known.
    pub organization: String,
    /// The owner's email address. It is not saved in the state file, because it is personal data.
    #[serde(skip)]
    owner_email: Option<String>,
    country: String,
    status: Option<CustomerStatus>,
    management_mode: Option<ManagementMode>,
    /// Number of tenants; `None` if the API has not listed them.
    tenants: Option<usize>,
    /// The tenants that have an id. Older state files lack this field.
    #[serde(default)]
    named_tenants: Vec<Tenant>,
    /// Whether a v3 response contained no valid list of tenants.
    #[serde(skip)]
    lacks_tenants: bool,
}

impl Customer {
    /// Returns the customer in a record; `None` for another collector's record.
    pub fn of(record: &dyn Record) -> Option<&Self> {
        record.as_any().downcast_ref()
    }

    /// Returns the country or region; empty if the list contains none.
    pub fn country(&self) -> &str {
        &self.country
    }

    /// Returns the management mode as a label value; empty if the list contains none.
    pub fn management_mode(&self) -> &'static str {
        self.management_mode.map_or("", ManagementMode::label)
    }

    pub(super) fn tenant_ids(&self) -> impl Iterator<Item = &TenantId> {
        self.named_tenants.iter().map(|tenant| &tenant.id)
    }

    /// Returns the tenants of an earlier list that are missing from this list; none if this list may be incomplete.
    pub fn removed_tenants(&self, before: &Self) -> BTreeSet<TenantId> {
        if !self.has_all_tenant_ids() {
            return BTreeSet::new();
        }
        let known: BTreeSet<&TenantId> = self.tenant_ids().collect();
        let removed = before.tenant_ids().filter(|id| !known.contains(id));
        removed.cloned().collect()
    }

    /// Returns whether the list contains the ids of all tenants.
    pub(super) fn has_all_tenant_ids(&self) -> bool {
        self.tenants == Some(self.named_tenants.len())
    }

    pub(super) fn lists_tenants(&self) -> bool {
        self.tenants.is_some()
    }

    /// Returns whether the status has changed since the previous list.
    pub fn has_new_status(&self, before: &Self) -> bool {
        self.status != before.status
    }
}

const LIST: CustomerList = CustomerList {
    endpoint: Endpoint::Customers,
    single_endpoint: Endpoint::Customer,
    scope_v1: Customers::SCOPE_V1,
    scope_v3: Customers::SCOPE_V3,
    path_v1: "customers",
    path_v3: &["customers", "batch"],
    key: Some("id"),
};

/// The collector `customers`.
pub(super) struct Customers;

impl Collector for Customers {
    const NAME: &'static str = "customers";
    const ENDPOINT: Endpoint = Endpoint::Customers;
    const ENDPOINTS: &'static [Endpoint] = &[Endpoint::Customers, Endpoint::Customer];
    const INTERVAL: Duration = Duration::from_secs(15 * 60);
    const SCOPE_V1: &'static str = v1::scope::CUSTOMERS;
    const SCOPE_V3: &'static str = v3::scope::CUSTOMERS;
    const PRICE: Price = Price {
        latency: Duration::from_millis(1_700),
        ..Price::ONE
    };
    type Target = Target;
    type Record = Customer;

    async fn poll(
        api: &Api,
        target: &Target,
        _previous: Option<&Customer>,
        context: &Context,
    ) -> Result<PollOutput<Customer>, Failure> {
        let (endpoint, rows) = LIST.fetch(api, target, context).await?;
        let (mut records, unreadable) = parse_list(&rows, api, endpoint).await;
        if let Target::Customer(requested) = target {
            records = super::only_requested(requested, records);
        }
        Ok(PollOutput::new(records, unreadable, endpoint))
    }

    fn finish(record: &mut Customer, previous: Option<&Customer>, organization: &str) {
        if record.organization.is_empty() {
            organization.clone_into(&mut record.organization);
        }
        if let Some(previous) = previous.filter(|_| record.lacks_tenants) {
            record.tenants = previous.tenants;
            record.named_tenants.clone_from(&previous.named_tenants);
        }
        let known = previous.map_or(&[][..], |previous| &previous.named_tenants);
        let names: BTreeMap<&TenantId, &String> = known.iter().map(|tenant| (&tenant.id, &tenant.name)).collect();
        for tenant in record.named_tenants.iter_mut().filter(|tenant| tenant.name.is_empty()) {
            if let Some(name) = names.get(&tenant.id) {
                tenant.name.clone_from(name);
            }
        }
    }

    fn lists_other_items(record: &Customer, previous: &Customer) -> bool {
        !record.tenant_ids().eq(previous.tenant_ids())
    }

    fn tables(record: &Customer, customer: &CustomerId, context: &Context, sink: &mut impl ShapeSink) {
        let rendered = RenderedCustomer {
            customer: record.clone(),
            owner_email: record.owner_email.clone().filter(|_| context.settings.owner_email),
            attributes: context.attributes(customer).map(Arc::clone).unwrap_or_default(),
        };
        sink.add(&SHAPE_INFO, &[rendered]);
        sink.add(&SHAPE_STATUS, std::slice::from_ref(record));
        sink.add(&SHAPE_TENANTS, &record.named_tenants);
    }
}

async fn parse_list(rows: &[Box<RawValue>], api: &Api, endpoint: Endpoint) -> (BTreeMap<CustomerId, Customer>, usize) {
    let mut records = BTreeMap::new();
    let unreadable = super::read_rows(rows, endpoint, api.observer().as_ref(), |row| {
        let (id, customer) = parse_row(row, api.generation())?;
        let is_duplicate = records.contains_key(&id);
        records
            .entry(id)
            .and_modify(|known: &mut Customer| {
                known.status = worse(known.status, customer.status);
                if known.organization.is_empty() {
                    known.organization.clone_from(&customer.organization);
                }
            })
            .or_insert(customer);
        Some(is_duplicate)
    });
    let unreadable = unreadable.await;
    (records, unreadable)
}

const TENANTS: Names = &["tenants"];
const STATUS: Names = &["jobStatus"];
const MODE: Names = &["managementMode"];

/// Parses a customer's tenants. Returns the tenants that have a valid id, without duplicates, and the number of tenants
/// without a valid id.
fn parse_tenants(row: &Row<'_>, tenants: &[&RawValue]) -> (Vec<Tenant>, usize) {
    let mut named: BTreeMap<TenantId, Tenant> = BTreeMap::new();
    let mut without_id = 0;
    for json in tenants {
        let tenant = row.nested(json).and_then(|tenant| {
            let id = TenantId::parse(&tenant.text(&["id"])?)?;
            let name = tenant.name(&["name"]).unwrap_or_default();
            Some(Tenant { id, name })
        });
        match tenant {
            None => without_id += 1,
            Some(tenant) => {
                let known = named.entry(tenant.id.clone()).or_insert_with(|| tenant.clone());
                if known.name.is_empty() {
                    known.name = tenant.name;
                }
            }
        }
    }
    (named.into_values().collect(), without_id)
}

fn parse_row(row: &Row<'_>, generation: Generation) -> Option<(CustomerId, Customer)> {
    let id = CustomerId::parse(&row.text(&["id"])?)?;
    let status = row.known_word(STATUS, row.word(STATUS), customer_status, |status| {
        status == CustomerStatus::Unknown
    });
    let management_mode = row.known_word(MODE, row.text(MODE), management_mode, |mode| {
        mode == ManagementMode::Unknown
    });
    // API v1 lists the tenants with the subscriptions. Without this check, they would be exposed twice.
    let may_list_tenants = generation == Generation::V3;
    let tenants = row.list(TENANTS).filter(|_| may_list_tenants);
    let lacks_tenants = may_list_tenants && tenants.is_none();
    if lacks_tenants && row.has_any(TENANTS) {
        row.invalid(TENANTS, "not a list");
    }
    let tenants = tenants.map(|tenants| parse_tenants(row, &tenants));
    let count = tenants.as_ref().map(|(named, without_id)| named.len() + without_id);
    let mut named_tenants = tenants.map(|(named, _)| named).unwrap_or_default();
    if named_tenants.len() > MAX_TENANTS {
        row.invalid(TENANTS, "too many tenants");
        named_tenants.truncate(MAX_TENANTS);
    }
    let customer = Customer {
        organization: row.name(&["organization"]).unwrap_or_default(),
        owner_email: row.name(&["ownerEmail"]),
        country: row.name(&["countryOrRegion"]).unwrap_or_default(),
        status,
        management_mode,
        tenants: count,
        named_tenants,
        lacks_tenants,
    };
    Some((id, customer))
}

/// Returns the worse status of two rows for the same customer.
fn worse(one: Option<CustomerStatus>, other: Option<CustomerStatus>) -> Option<CustomerStatus> {
    let rank = |status: Option<CustomerStatus>| match status {
        None => 0,
        Some(CustomerStatus::Working) => 1,
        Some(CustomerStatus::NotApplicable) => 2,
        Some(CustomerStatus::WaitingForConfiguration) => 3,
        Some(CustomerStatus::NoBackupUpdates) => 4,
        Some(CustomerStatus::FinishedWithException) => 5,
        Some(CustomerStatus::MultipleIssuesFound) => 6,
        Some(CustomerStatus::Unknown) => 7,
        Some(CustomerStatus::Failed) => 8,
    };
    if rank(other) > rank(one) { other } else { one }
}

/// A customer with the values that depend on the current settings.
struct RenderedCustomer {
    customer: Customer,
    owner_email: Option<String>,
    attributes: Arc<Attributes>,
}

const SHAPE_INFO: Shape<RenderedCustomer> = Shape {
    labels: &[
        label("organization", |rendered| Some(&rendered.customer.organization)),
        label("country", |rendered| Some(rendered.customer.country())),
        label("management_mode", |rendered| Some(rendered.customer.management_mode())),
        label("owner_email", |rendered| rendered.owner_email.as_deref()),
        label("tier", |rendered| rendered.attributes.tier.as_deref()),
        label("region", |rendered| rendered.attributes.region.as_deref()),
        label("team", |rendered| rendered.attributes.team.as_deref()),
    ],
    columns: &[info(
        "elements_customer_info",
        "Customer of the partner, with attributes from customers.attributes_file; owner_email requires metrics.owner_email",
    )],
};

const SHAPE_STATUS: Shape<Customer> = Shape {
    labels: &[],
    columns: &[
        gauge(
            "elements_customer_status",
            "Status number of the customer; 0 if N/A, -1 if unknown",
            |customer| customer.status.map(|status| f64::from(status.code())),
        ),
        column(CUSTOMER_TENANTS, |customer| customer.tenants.and_then(exact)),
    ],
};
