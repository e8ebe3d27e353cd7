//! The customers: who they are, how they are doing, how many tenants they have.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Collector, Context, Reach, Reading, Target, shape, tabulate};
use crate::api::wire::Row;
use crate::api::{Api, Endpoint, Failure, Observer, v1, v3};
use crate::domain::{CustomerId, CustomerStatus, ManagementMode, customer_status, management_mode};
use crate::exposition::{Column, Label, Metric, Shape, ShapeMetrics, Table};

/// A customer as the partner's list shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Customer {
    /// The name of the organization; empty where the list has none.
    pub organization: String,
    /// Personal, so it is not kept in the state file.
    #[serde(skip)]
    owner_email: Option<String>,
    country: String,
    status: Option<CustomerStatus>,
    management_mode: Option<ManagementMode>,
    tenants: Option<usize>,
}

impl Customer {
    /// The country or region; empty where the list has none.
    pub fn country(&self) -> &str {
        &self.country
    }

    /// Who manages it; empty where the list does not say.
    pub fn management_mode(&self) -> &'static str {
        self.management_mode.map_or("", ManagementMode::label)
    }

    /// Whether its status is another than in the list before.
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
    const REACH: Reach = Reach::Partner;
    type Record = Customer;

    async fn poll(
        api: &Api,
        target: &Target,
        _previous: Option<&Customer>,
        context: &Context,
    ) -> Result<Reading<Customer>, Failure> {
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
        let (mut records, unreadable) = read(&rows, endpoint, api.observer().as_ref());
        if let Target::Customer(asked) = target {
            records = super::only(asked, records);
        }
        Ok(Reading {
            records,
            unreadable,
            endpoint,
        })
    }

    fn metrics() -> Vec<ShapeMetrics> {
        vec![shape(&SHAPE_INFO), shape(&SHAPE_STATUS)]
    }

    fn tables(record: &Customer, customer: &CustomerId, context: &Context) -> (Vec<Table>, u64) {
        let id = customer.as_str();
        let mut info = record.clone();
        info.owner_email = info.owner_email.filter(|_| context.settings.owner_email);
        tabulate([
            SHAPE_INFO.table(id, &[info]),
            SHAPE_STATUS.table(id, std::slice::from_ref(record)),
        ])
    }
}

fn read(
    rows: &[Box<RawValue>],
    endpoint: Endpoint,
    observer: &dyn Observer,
) -> (BTreeMap<CustomerId, Customer>, usize) {
    let mut records = BTreeMap::new();
    let mut unreadable = 0;
    let mut duplicates = 0;
    for json in rows {
        let Some((id, customer)) = Row::read(json, endpoint, observer).and_then(|row| read_row(&row)) else {
            unreadable += 1;
            continue;
        };
        duplicates += u64::from(records.contains_key(&id));
        records
            .entry(id)
            .and_modify(|known: &mut Customer| known.status = worse(known.status, customer.status))
            .or_insert(customer);
    }
    if duplicates > 0 {
        observer.duplicate_rows(endpoint, duplicates);
    }
    (records, unreadable)
}

/// How many tenants a list has, each once. One without an id is one by itself.
fn count_tenants(row: &Row<'_>, tenants: &[&RawValue]) -> usize {
    let ids = tenants.iter().map(|tenant| {
        let id = row
            .nested(tenant)
            .and_then(|tenant| Some(tenant.text(&["id"])?.trim().to_ascii_lowercase()));
        id.unwrap_or_else(|| tenant.get().to_owned())
    });
    ids.collect::<BTreeSet<String>>().len()
}

fn read_row(row: &Row<'_>) -> Option<(CustomerId, Customer)> {
    let id = CustomerId::parse(&row.text(&["id"])?)?;
    let status = row.word(&["jobStatus"]).and_then(|word| {
        let status = customer_status(&word)?;
        if status == CustomerStatus::Unknown {
            row.unknown(&["jobStatus"], &word);
        }
        Some(status)
    });
    let management_mode = row.text(&["managementMode"]).and_then(|word| {
        let mode = management_mode(&word)?;
        if mode == ManagementMode::Unknown {
            row.unknown(&["managementMode"], &word);
        }
        Some(mode)
    });
    let customer = Customer {
        organization: row.name(&["organization"]).unwrap_or_default(),
        owner_email: row.name(&["ownerEmail"]),
        country: row.name(&["countryOrRegion"]).unwrap_or_default(),
        status,
        management_mode,
        tenants: row
            .list(&["tenants"])
            .map(|tenants| count_tenants(row, &tenants))
            .filter(|tenants| *tenants > 0),
    };
    Some((id, customer))
}

/// The worse of what two rows say of one customer: anything but "working" is worth more than "working".
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

const SHAPE_INFO: Shape<Customer> = Shape {
    labels: &[
        Label {
            name: "organization",
            value: |customer| Some(Cow::Borrowed(&customer.organization)),
        },
        Label {
            name: "country",
            value: |customer| Some(Cow::Borrowed(&customer.country)),
        },
        Label {
            name: "management_mode",
            value: |customer| {
                Some(Cow::Borrowed(
                    customer.management_mode.map_or("", ManagementMode::label),
                ))
            },
        },
        Label {
            name: "owner_email",
            value: |customer| customer.owner_email.as_deref().map(Cow::Borrowed),
        },
    ],
    columns: &[Column {
        metric: Metric::info(
            "elements_customer_info",
            "A customer of the partner; owner_email only with metrics.owner_email",
        ),
        value: |_| Some(1.0),
    }],
};

const SHAPE_STATUS: Shape<Customer> = Shape {
    labels: &[],
    columns: &[
        Column {
            metric: Metric::gauge(
                "elements_customer_status",
                "Status of the customer: 0 N/A, 1 working, 2 failed, 3 waiting for configuration, 4 multiple issues \
                 found, 5 finished with exception, 6 no backup updates, -1 unknown",
            ),
            value: |customer| customer.status.map(|status| f64::from(status.code())),
        },
        Column {
            metric: super::CUSTOMER_TENANTS,
            value: |customer| customer.tenants.and_then(super::exact),
        },
    ],
};
