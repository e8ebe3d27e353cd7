//! Customers: identity, status, and number of tenants.

pub(super) mod tenants;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use self::tenants::{CUSTOMER_TENANTS, MAX_TENANTS, SHAPE_TENANTS, Tenant};
use super::{Collector, Context, PollOutput, Record, Target};
use crate::api::wire::{Names, Row};
use crate::api::{Api, Endpoint, Failure, Generation, Observer, v1, v3};
use crate::domain::{
    Attributes, CustomerId, CustomerStatus, ManagementMode, TenantId, customer_status, management_mode,
};
use crate::exposition::{Shape, ShapeMetrics, ShapeTable, column, gauge, info, label};

/// A customer as the partner's list shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Customer {
    /// The last known name of the organization; empty before there was one.
    pub organization: String,
    /// Personal, so it is not kept in the state file.
    #[serde(skip)]
    owner_email: Option<String>,
    country: String,
    status: Option<CustomerStatus>,
    management_mode: Option<ManagementMode>,
    tenants: Option<usize>,
    /// Those of the tenants that have an id. State files of the first edition lack them.
    #[serde(default)]
    named_tenants: Vec<Tenant>,
    /// Whether the second generation omitted them, so that the list does not show whether there are any.
    #[serde(skip)]
    lacks_tenants: bool,
}

impl Customer {
    /// Returns the customer of a record; `None` for another collector's record.
    pub fn of(record: &dyn Record) -> Option<&Self> {
        record.as_any().downcast_ref()
    }

    /// The country or region; empty if the list has none.
    pub fn country(&self) -> &str {
        &self.country
    }

    /// Its manager; empty if the list lacks it.
    pub fn management_mode(&self) -> &'static str {
        self.management_mode.map_or("", ManagementMode::label)
    }

    /// The ids of its tenants.
    pub(super) fn tenant_ids(&self) -> impl Iterator<Item = &TenantId> {
        self.named_tenants.iter().map(|tenant| &tenant.id)
    }

    /// Returns the tenants of an earlier list that this one lacks; none if this list may be incomplete.
    pub fn lost_tenants(&self, before: &Self) -> BTreeSet<TenantId> {
        if !self.names_all_tenants() {
            return BTreeSet::new();
        }
        let known: BTreeSet<&TenantId> = self.tenant_ids().collect();
        let lost = before.tenant_ids().filter(|id| !known.contains(id));
        lost.cloned().collect()
    }

    /// Whether the list has all of its tenants by their ids.
    pub(super) fn names_all_tenants(&self) -> bool {
        self.tenants == Some(self.named_tenants.len())
    }

    /// Whether the list has its tenants.
    pub(super) fn lists_tenants(&self) -> bool {
        self.tenants.is_some()
    }

    /// Whether its status differs from that in the previous list.
    pub fn has_news(&self, before: &Self) -> bool {
        self.status != before.status
    }
}

/// The collector.
pub(super) struct Customers;

impl Collector for Customers {
    const NAME: &'static str = "customers";
    const ENDPOINT: Endpoint = Endpoint::Customers;
    const ENDPOINTS: &'static [Endpoint] = &[Endpoint::Customers, Endpoint::Customer];
    const INTERVAL: Duration = Duration::from_secs(15 * 60);
    const SCOPE_V1: &'static str = v1::scope::CUSTOMERS;
    const SCOPE_V3: &'static str = v3::scope::CUSTOMERS;
    type Target = Target;
    type Record = Customer;

    async fn poll(
        api: &Api,
        target: &Target,
        _previous: Option<&Customer>,
        context: &Context,
    ) -> Result<PollOutput<Customer>, Failure> {
        let (endpoint, rows) = match (api, target) {
            (Api::V1(client), Target::Partner) => {
                let rows = client.list(Endpoint::Customers, Self::SCOPE_V1, &["customers"]).await?;
                (Endpoint::Customers, rows)
            }
            (Api::V1(client), Target::Customer(id)) => {
                let path = ["customers", id.as_str()];
                let rows = client.entity(Endpoint::Customer, Self::SCOPE_V1, &path).await?;
                (Endpoint::Customer, rows)
            }
            (Api::V3(client), target) => {
                let list = v3::List {
                    endpoint: Endpoint::Customers,
                    scope: Self::SCOPE_V3,
                    path: &["customers", "batch"],
                    filter: Some(&super::customer_filter(target, context)),
                    key: Some("id"),
                };
                (Endpoint::Customers, client.list(list).await?)
            }
        };
        let (mut records, unreadable) = read(&rows, api, endpoint);
        if let Target::Customer(requested) = target {
            records = super::only(requested, records);
        }
        Ok(PollOutput::new(records, unreadable, endpoint))
    }

    fn settle(record: &mut Customer, previous: Option<&Customer>, organization: &str) {
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

    fn lists_others(record: &Customer, previous: &Customer) -> bool {
        !record.tenant_ids().eq(previous.tenant_ids())
    }

    fn metrics() -> Vec<ShapeMetrics> {
        vec![SHAPE_INFO.metrics(), SHAPE_STATUS.metrics(), SHAPE_TENANTS.metrics()]
    }

    fn tables(record: &Customer, customer: &CustomerId, context: &Context) -> Vec<ShapeTable> {
        let id = customer.as_str();
        let shown = Shown {
            customer: record.clone(),
            owner_email: record.owner_email.clone().filter(|_| context.settings.owner_email),
            attributes: context.attributes(customer).map(Arc::clone).unwrap_or_default(),
        };
        vec![
            SHAPE_INFO.table(id, &[shown]),
            SHAPE_STATUS.table(id, std::slice::from_ref(record)),
            SHAPE_TENANTS.table(id, &record.named_tenants),
        ]
    }
}

fn read(rows: &[Box<RawValue>], api: &Api, endpoint: Endpoint) -> (BTreeMap<CustomerId, Customer>, usize) {
    let observer: &dyn Observer = api.observer().as_ref();
    let mut records = BTreeMap::new();
    let mut unreadable = 0;
    let mut duplicates = 0;
    for json in rows {
        let row = Row::read(json, endpoint, observer);
        let Some((id, customer)) = row.and_then(|row| read_row(&row, api.generation())) else {
            unreadable += 1;
            continue;
        };
        duplicates += u64::from(records.contains_key(&id));
        records
            .entry(id)
            .and_modify(|known: &mut Customer| {
                known.status = worse(known.status, customer.status);
                if known.organization.is_empty() {
                    known.organization.clone_from(&customer.organization);
                }
            })
            .or_insert(customer);
    }
    if duplicates > 0 {
        observer.duplicate_rows(endpoint, duplicates);
    }
    (records, unreadable)
}

const TENANTS: Names = &["tenants"];
const STATUS: Names = &["jobStatus"];
const MODE: Names = &["managementMode"];

/// Returns the tenants of a list that have an id, each once, and the number of tenants without an id.
fn read_tenants(row: &Row<'_>, tenants: &[&RawValue]) -> (Vec<Tenant>, usize) {
    let mut named: BTreeMap<TenantId, Tenant> = BTreeMap::new();
    let mut nameless = 0;
    for json in tenants {
        let tenant = row.nested(json).and_then(|tenant| {
            let id = TenantId::parse(&tenant.text(&["id"])?)?;
            let name = tenant.name(&["name"]).unwrap_or_default();
            Some(Tenant { id, name })
        });
        match tenant {
            None => nameless += 1,
            Some(tenant) => {
                let known = named.entry(tenant.id.clone()).or_insert_with(|| tenant.clone());
                if known.name.is_empty() {
                    known.name = tenant.name;
                }
            }
        }
    }
    (named.into_values().collect(), nameless)
}

fn read_row(row: &Row<'_>, generation: Generation) -> Option<(CustomerId, Customer)> {
    let id = CustomerId::parse(&row.text(&["id"])?)?;
    let status = row.known_word(STATUS, row.word(STATUS), customer_status, |status| {
        status == CustomerStatus::Unknown
    });
    let management_mode = row.known_word(MODE, row.text(MODE), management_mode, |mode| {
        mode == ManagementMode::Unknown
    });
    // The first generation lists tenants in the subscriptions, so they would occur twice.
    let is_listed_here = generation == Generation::V3;
    let tenants = row.list(TENANTS).filter(|_| is_listed_here);
    let lacks_tenants = is_listed_here && tenants.is_none();
    if lacks_tenants && row.has_any(TENANTS) {
        row.invalid(TENANTS, "not a list");
    }
    let tenants = tenants.map(|tenants| read_tenants(row, &tenants));
    let count = tenants.as_ref().map(|(named, nameless)| named.len() + nameless);
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

/// Returns the worse status of two rows of one customer: any but "working" takes precedence.
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

/// A customer as rendered with the current settings.
struct Shown {
    customer: Customer,
    owner_email: Option<String>,
    attributes: Arc<Attributes>,
}

const SHAPE_INFO: Shape<Shown> = Shape {
    labels: &[
        label("organization", |shown| Some(&shown.customer.organization)),
        label("country", |shown| Some(shown.customer.country())),
        label("management_mode", |shown| Some(shown.customer.management_mode())),
        label("owner_email", |shown| shown.owner_email.as_deref()),
        label("tier", |shown| shown.attributes.tier.as_deref()),
        label("region", |shown| shown.attributes.region.as_deref()),
        label("team", |shown| shown.attributes.team.as_deref()),
    ],
    columns: &[info(
        "elements_customer_info",
        "Customer of the partner; owner_email requires metrics.owner_email; attributes come from customers.attributes_file",
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
        column(CUSTOMER_TENANTS, |customer| customer.tenants.and_then(super::exact)),
    ],
};
