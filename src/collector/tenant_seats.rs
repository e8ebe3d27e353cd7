//! Seats of each tenant: available and assigned.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::customers::tenants::MAX_TENANTS;
use super::per_tenant::{RequestResults, is_due_again, is_expired};
use super::{Collector, CollectorId, Context, PollOutput, Price, jobs};
use crate::api::wire::Row;
use crate::api::{Api, Endpoint, Error, Failure, v3};
use crate::domain::{self, CustomerId, TenantId, Timestamp};
use crate::exposition::{Shape, ShapeMetrics, ShapeTable, gauge, label};

/// The seats of a tenant for one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Seats {
    /// Whether it is held from an earlier response, because the newest had invalid rows.
    #[serde(default)]
    held: bool,
    tenant: TenantId,
    service: Cow<'static, str>,
    assigned: Option<i64>,
    available: Option<i64>,
}

/// The seats of a customer's tenants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct TenantsSeats {
    seats: Vec<Seats>,
    /// Types without a tenant, with the time of the response.
    empty: BTreeMap<u16, Timestamp>,
    /// Types whose seats are held because the newest response lists no tenant, with the time since when.
    #[serde(default)]
    held: BTreeMap<u16, Timestamp>,
}

impl TenantsSeats {
    /// Whether any seats of a service are known.
    fn has(&self, service: &str) -> bool {
        self.seats.iter().any(|seats| seats.service == service)
    }
}

impl super::Held for Seats {
    fn held(&mut self) -> &mut bool {
        &mut self.held
    }
}

/// The collector.
pub(super) struct TenantSeats;

impl Collector for TenantSeats {
    const NAME: &'static str = "tenant_seats";
    const ENDPOINT: Endpoint = Endpoint::TenantSeats;
    const INTERVAL: Duration = Duration::from_secs(6 * 3600);
    const IS_OPTIONAL: bool = true;
    const PRICE: Price = Price {
        requests: 1.0,
        of: "1 per customer and tenant type",
        ..Price::ONE
    };
    const SCOPE_V3: &'static str = v3::scope::LICENSES;
    const ITEMS_FROM: Option<CollectorId> = Some(CollectorId::CUSTOMERS);
    type Target = CustomerId;
    type Record = TenantsSeats;

    async fn poll(
        api: &Api,
        customer: &CustomerId,
        previous: Option<&TenantsSeats>,
        context: &Context,
    ) -> Result<PollOutput<TenantsSeats>, Failure> {
        let endpoint = Endpoint::TenantSeats;
        let observer = api.observer().as_ref();
        let mut record = TenantsSeats::default();
        let mut known: BTreeMap<(TenantId, Cow<'static, str>), Seats> = BTreeMap::new();
        let (mut unreadable, mut duplicates) = (0, 0);
        let mut results = RequestResults::default();
        for (number, service) in types(customer, context) {
            let empty = previous.and_then(|previous| previous.empty.get(&number));
            if let Some(since) = empty.filter(|since| !is_due_again(Some(since), context.now)) {
                record.empty.insert(number, *since);
                continue;
            }
            let since = previous.and_then(|previous| previous.held.get(&number)).copied();
            let since = since.unwrap_or(context.now);
            let is_known = previous.is_some_and(|previous| previous.has(service)) && !is_expired(since, context);
            let rows = match fetch_rows(api, customer, number).await {
                Ok(rows) if is_known && rows.is_empty() => {
                    record.held.insert(number, since);
                    results.fail(Error::Incomplete("no tenants listed, unlike before").at(endpoint));
                    continue;
                }
                Err(cause) if is_known && cause.error.is_refusal() => {
                    record.held.insert(number, since);
                    results.fail(cause);
                    continue;
                }
                Err(cause) if cause.error.is_refusal() => {
                    record.empty.insert(number, context.now);
                    results.deny(cause);
                    continue;
                }
                Err(cause) if cause.error.is_resource_error() => {
                    results.fail(cause);
                    continue;
                }
                rows => rows?,
            };
            results.succeed();
            if rows.is_empty() {
                record.empty.insert(number, context.now);
            }
            for (position, json) in rows.iter().enumerate() {
                super::turn(position).await;
                let row = Row::read(json, endpoint, observer);
                let Some(seats) = row.and_then(|row| read(&row, service)) else {
                    unreadable += 1;
                    continue;
                };
                if known.len() >= MAX_TENANTS {
                    observer.decode_error(endpoint, "tenantId", "a tenant beyond the limit");
                    unreadable += 1;
                    continue;
                }
                let key = (seats.tenant.clone(), seats.service.clone());
                if let Some(before) = known.insert(key, seats) {
                    duplicates += 1;
                    if let Some(now) = known.get_mut(&(before.tenant.clone(), before.service.clone())) {
                        // The worse of both.
                        now.available = now.available.min(before.available.or(now.available));
                        now.assigned = now.assigned.max(before.assigned);
                    }
                }
            }
        }
        if duplicates > 0 {
            observer.duplicate_rows(endpoint, duplicates);
        }
        record.seats = known.into_values().collect();
        let incomplete = results.finish()?;
        Ok(PollOutput::one(customer, record, unreadable, endpoint).incomplete_by(incomplete))
    }

    fn complete(previous: &TenantsSeats, mut partial: TenantsSeats) -> TenantsSeats {
        let key = |seats: &Seats| (seats.tenant.clone(), seats.service.clone());
        partial.seats = super::keep_missing(&previous.seats, partial.seats, key);
        partial.seats.truncate(MAX_TENANTS);
        partial
    }

    fn split(record: &TenantsSeats) -> Option<(TenantsSeats, TenantsSeats)> {
        let (fresh, held) = super::split_rows(&record.seats)?;
        let of = |seats| TenantsSeats {
            seats,
            ..TenantsSeats::default()
        };
        Some((of(fresh), of(held)))
    }

    fn without_tenants(record: &TenantsSeats, gone: &BTreeSet<TenantId>) -> Option<TenantsSeats> {
        let mut kept = record.clone();
        kept.seats.retain(|seats| !gone.contains(&seats.tenant));
        (kept != *record).then_some(kept)
    }

    fn metrics() -> Vec<ShapeMetrics> {
        vec![SHAPE.metrics()]
    }

    fn tables(record: &TenantsSeats, customer: &CustomerId, _context: &Context) -> Vec<ShapeTable> {
        vec![SHAPE.table(customer.as_str(), &record.seats)]
    }
}

/// Returns the types of tenants that a customer may have: Microsoft 365 if the customer list contains such tenants, and
/// the other types if there are jobs of the service. If that is unknown, returns all types.
fn types(customer: &CustomerId, context: &Context) -> Vec<(u16, &'static str)> {
    let jobs = context.record_of(CollectorId::JOBS, customer);
    let services = jobs.as_deref().and_then(jobs::listed_services);
    let has_tenants = !context.tenants(customer).is_empty();
    let may_have = |(_, service): &(u16, &'static str)| {
        let listed = services.as_ref().is_none_or(|services| services.contains(*service));
        listed || has_tenants && *service == jobs::REPORTED_SERVICE
    };
    domain::seat_services().filter(may_have).collect()
}

async fn fetch_rows(
    api: &Api,
    customer: &CustomerId,
    number: u16,
) -> Result<Vec<Box<serde_json::value::RawValue>>, Failure> {
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
    api.v3(endpoint, list.scope)?.list(list).await
}

fn read(row: &Row<'_>, requested: &'static str) -> Option<Seats> {
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
            "User seats available to the tenant",
            |row| row.available.map(super::signed_float),
        ),
    ],
};
