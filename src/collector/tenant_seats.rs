//! Assigned and available seats of each tenant.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::customers::tenants::MAX_TENANTS;
use super::per_tenant::{RequestResults, is_due_again, is_expired};
use super::{Collector, CollectorId, Context, PollOutput, Price, jobs};
use crate::api::wire::Row;
use crate::api::{Api, Endpoint, Error, Failure, Observer, v3};
use crate::domain::{self, CustomerId, TenantId, Timestamp};
use crate::exposition::{Shape, ShapeSink, gauge, label};

/// A tenant's seats for one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Seats {
    /// Whether the row is carried over from an earlier response because the latest poll was incomplete.
    #[serde(default)]
    held: bool,
    tenant: TenantId,
    service: Cow<'static, str>,
    assigned: Option<i64>,
    available: Option<i64>,
}

impl Seats {
    fn key(&self) -> Key {
        (self.tenant.clone(), self.service.clone())
    }

    /// Merges an earlier row with the same key, keeping the worse values.
    fn merge_worse(&mut self, earlier: &Self) {
        self.available = self.available.min(earlier.available.or(self.available));
        self.assigned = self.assigned.max(earlier.assigned);
    }
}

type Key = (TenantId, Cow<'static, str>);

/// The seats of a customer's tenants. Tenants are listed by type, and each type belongs to one service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct CustomerSeats {
    seats: Vec<Seats>,
    /// Types without a tenant, each with the time of the response, which was empty or had status 403 or 404.
    #[serde(rename = "empty")]
    empty_since: BTreeMap<u16, Timestamp>,
    /// Types for which the API returned no tenants, or status 403 or 404, but whose last known seats are still served.
    /// Each has the time of the first such response.
    #[serde(rename = "held", default)]
    last_known_since: BTreeMap<u16, Timestamp>,
}

impl CustomerSeats {
    fn contains_service(&self, service: &str) -> bool {
        self.seats.iter().any(|seats| seats.service == service)
    }
}

/// The collector `tenant_seats`.
pub(super) struct TenantSeats;

impl Collector for TenantSeats {
    const NAME: &'static str = "tenant_seats";
    const ENDPOINT: Endpoint = Endpoint::TenantSeats;
    const INTERVAL: Duration = Duration::from_secs(6 * 3600);
    const IS_OPTIONAL: bool = true;
    const PRICE: Price = Price {
        requests: 1.0,
        description: "1 per customer and tenant type",
        ..Price::ONE
    };
    const SCOPE_V3: &'static str = v3::scope::LICENSES;
    const ITEMS_FROM: Option<CollectorId> = Some(CollectorId::CUSTOMERS);
    type Target = CustomerId;
    type Record = CustomerSeats;

    async fn poll(
        api: &Api,
        customer: &CustomerId,
        previous: Option<&CustomerSeats>,
        context: &Context,
    ) -> Result<PollOutput<CustomerSeats>, Failure> {
        let endpoint = Endpoint::TenantSeats;
        let observer = api.observer().as_ref();
        let mut record = CustomerSeats::default();
        let (mut seats, mut unreadable) = (BTreeMap::new(), 0);
        let mut results = RequestResults::default();
        for (number, service) in tenant_types(customer, context) {
            let empty = previous.and_then(|previous| previous.empty_since.get(&number));
            if let Some(since) = empty.filter(|since| !is_due_again(Some(since), context.now)) {
                record.empty_since.insert(number, *since);
                continue;
            }
            let missing_since = previous.and_then(|previous| previous.last_known_since.get(&number).copied());
            let since = missing_since.unwrap_or(context.now);
            let is_known =
                previous.is_some_and(|previous| previous.contains_service(service)) && !is_expired(since, context);
            // `complete` adds the last known seats to an incomplete response.
            match fetch_rows(api, customer, number).await {
                Ok(rows) if is_known && rows.is_empty() => {
                    record.last_known_since.insert(number, since);
                    results.fail(Error::Incomplete("empty, although an earlier list contained tenants").at(endpoint));
                }
                Ok(rows) => {
                    results.succeed();
                    if rows.is_empty() {
                        record.empty_since.insert(number, context.now);
                    }
                    unreadable += add_seats(&mut seats, &rows, service, observer).await;
                }
                Err(cause) if cause.error.is_missing_service() && is_known => {
                    record.last_known_since.insert(number, since);
                    results.fail(cause);
                }
                Err(cause) if cause.error.is_missing_service() => {
                    record.empty_since.insert(number, context.now);
                    results.deny(cause);
                }
                Err(cause) if cause.error.is_resource_error() => {
                    record
                        .last_known_since
                        .extend(missing_since.map(|since| (number, since)));
                    results.fail(cause);
                }
                Err(cause) => return Err(cause),
            }
        }
        record.seats = seats.into_values().collect();
        let incomplete = results.finish()?;
        Ok(PollOutput::of_customer(customer, record, unreadable, endpoint).with_failure(incomplete))
    }

    fn complete(previous: &CustomerSeats, mut partial: CustomerSeats) -> CustomerSeats {
        partial.seats = super::keep_missing(&previous.seats, partial.seats, Seats::key, |row| row.held = true);
        partial.seats.truncate(MAX_TENANTS);
        partial
    }

    fn split(record: &CustomerSeats) -> Option<(CustomerSeats, CustomerSeats)> {
        let (fresh, held) = super::split_rows(&record.seats, |row| row.held)?;
        let with_seats = |seats| CustomerSeats {
            seats,
            ..CustomerSeats::default()
        };
        Some((with_seats(fresh), with_seats(held)))
    }

    fn without_tenants(record: &CustomerSeats, removed: &BTreeSet<TenantId>) -> Option<CustomerSeats> {
        let mut kept = record.clone();
        kept.seats.retain(|seats| !removed.contains(&seats.tenant));
        (kept != *record).then_some(kept)
    }

    fn tables(record: &CustomerSeats, _customer: &CustomerId, _context: &Context, sink: &mut impl ShapeSink) {
        sink.add(&SHAPE, &record.seats);
    }
}

/// Adds the rows of a tenant type. A row belongs to `service` unless it names another service. Returns the number of
/// invalid rows.
async fn add_seats(
    known: &mut BTreeMap<Key, Seats>,
    rows: &[Box<RawValue>],
    service: &'static str,
    observer: &dyn Observer,
) -> usize {
    let endpoint = Endpoint::TenantSeats;
    let unreadable = super::read_rows(rows, endpoint, observer, |row| {
        let mut seats = parse_row(row, service)?;
        if known.len() >= MAX_TENANTS && !known.contains_key(&seats.key()) {
            observer.decode_error(endpoint, "tenantId", "a tenant beyond the limit");
            return None;
        }
        if let Some(earlier) = known.get(&seats.key()) {
            seats.merge_worse(earlier);
        }
        Some(known.insert(seats.key(), seats).is_some())
    });
    unreadable.await
}

/// Returns the tenant types that a customer may have, with their services. These are the types whose service has jobs.
/// The type of Microsoft 365 is also included if the customer list contains tenants of the customer. If the jobs are
/// unknown, returns all types.
fn tenant_types(customer: &CustomerId, context: &Context) -> Vec<(u16, &'static str)> {
    let jobs = context.record_of(CollectorId::JOBS, customer);
    let services = jobs.as_deref().and_then(jobs::listed_services);
    let has_tenants = !context.tenants(customer).is_empty();
    let may_have = |(_, service): &(u16, &'static str)| {
        let listed = services.as_ref().is_none_or(|services| services.contains(*service));
        listed || has_tenants && *service == jobs::REPORTED_SERVICE
    };
    domain::seat_services().filter(may_have).collect()
}

async fn fetch_rows(api: &Api, customer: &CustomerId, number: u16) -> Result<Vec<Box<RawValue>>, Failure> {
    let endpoint = Endpoint::TenantSeats;
    let number = number.to_string();
    let path = [
        "customers",
        customer.as_str(),
        "3rd-party-products",
        "type",
        &number,
        "tenants",
        "batch",
    ];
    let list = v3::List {
        endpoint,
        scope: TenantSeats::SCOPE_V3,
        path: &path,
        filter: Some("{}"),
        key: None,
    };
    api.v3(endpoint, list.scope)?.fetch_list(list).await
}

fn parse_row(row: &Row<'_>, requested: &'static str) -> Option<Seats> {
    let service = row.named(&["type"], domain::seat_service);
    Some(Seats {
        held: false,
        tenant: TenantId::parse(&row.text(&["tenantId"])?)?,
        service: service.unwrap_or(Cow::Borrowed(requested)),
        assigned: row.signed(&["assignedUserSeat", "assignedUserSeats"]),
        available: row.signed(&["availableUserSeat", "availableUserSeats"]),
    })
}

const SHAPE: Shape<Seats> = Shape {
    labels: &[
        label("tenant_id", |row| Some(row.tenant.as_str())),
        label("service", |row| Some(&row.service)),
    ],
    columns: &[
        gauge(
            "elements_tenant_seats_assigned",
            "User seats assigned in the tenant",
            |row| row.assigned.map(super::signed_float),
        ),
        gauge(
            "elements_tenant_seats_available",
            "User seats that the tenant may use, whether assigned or not",
            |row| row.available.map(super::signed_float),
        ),
    ],
};
