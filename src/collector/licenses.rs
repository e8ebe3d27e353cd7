//! Licences: customers' subscriptions, with their seats, usage and expiry.

mod identity;
mod samples;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::identity::{assign_labels, merge_identical};
use self::samples::{SHAPE_COUNT, SHAPE_INFO, SHAPE_NUMBERS};
use super::customers::tenants::{MAX_TENANTS, SHAPE_TENANTS, Tenant};
use super::{Collector, Context, CustomerList, PollOutput, Price, Target};
use crate::api::wire::{Names, Row};
use crate::api::{Api, Endpoint, Error, Failure, Generation, v1, v3};
use crate::domain::{self, CustomerId, Gigabyte, KnownNames, Pattern, Size, TenantId, Timestamp};
use crate::exposition::ShapeSink;

/// Maximum number of subscriptions in one list: ten for each of fifty thousand customers. In memory, a minimal row
/// takes up thirty times its length in JSON, so limiting the size of responses is not enough.
const MAX_PRODUCTS: usize = 500_000;

/// Index of the first shape whose metrics describe tenants. The metrics of all later shapes also describe tenants.
pub(super) const FIRST_TENANT_SHAPE: usize = 2;

/// A customer's subscriptions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Subscriptions {
    /// Ids of the tenants, if the API version returns them with the subscriptions.
    tenants: BTreeSet<TenantId>,
    /// Whether the API version returns tenants with the subscriptions. If so, an empty list means that there are no
    /// tenants.
    #[serde(default)]
    lists_tenants: bool,
    products: Vec<Product>,
}

impl Subscriptions {
    /// Returns whether the response lists the tenants.
    pub(super) fn lists_tenants(&self) -> bool {
        self.lists_tenants || !self.tenants.is_empty()
    }

    pub(super) fn without_tenants(&self) -> Self {
        Self {
            products: self.products.clone(),
            ..Self::default()
        }
    }
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Product {
    /// Whether the row is carried over from an earlier response because the latest response had invalid rows.
    #[serde(default)]
    held: bool,
    /// Label that distinguishes the subscription from others for the same service; empty if there are no others.
    license: String,
    /// Sequence number among the subscriptions with the same digest, starting at 1; 0 if not yet assigned.
    #[serde(rename = "place", default)]
    number: u32,
    identity: Identity,
    /// Whether the subscription counts as a backup licence; set during rendering.
    #[serde(skip)]
    is_backup: bool,
    /// Meaning of a gigabyte; set during rendering.
    #[serde(skip)]
    gigabyte: Gigabyte,
    purchased_seats: Option<u64>,
    purchased_units: Option<u64>,
    microsoft_assigned: Option<u64>,
    microsoft_available: Option<u64>,
    purchased_capacity: Option<Size>,
    used_capacity: Option<Size>,
    protected_capacity: Option<Size>,
    consumed_storage: Option<Size>,
    seats_change: Option<i64>,
    expiration: Option<Timestamp>,
    contract_end: Option<Timestamp>,
}

impl Product {
    fn bytes(&self, size: Option<Size>) -> Option<f64> {
        Some(size?.bytes(self.gigabyte))
    }
}

/// The fields of a subscription that stay the same while its numbers change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Identity {
    service: String,
    subscription_model: String,
    storage: String,
    retention: String,
    source: String,
    payment_type: String,
    subscription_name: String,
    package: String,
}

/// Adds the names of all products in a record of this collector, including products that the settings filter out.
pub fn add_product_names(record: &dyn super::Record, names: &mut KnownNames) {
    let record = record.as_any().downcast_ref::<Subscriptions>();
    for product in record.into_iter().flat_map(|record| &record.products) {
        names.add_product(&product.identity.service);
    }
}

const LIST: CustomerList = CustomerList {
    endpoint: Endpoint::Licenses,
    single_endpoint: Endpoint::License,
    scope_v1: Licenses::SCOPE_V1,
    scope_v3: Licenses::SCOPE_V3,
    path_v1: "services",
    path_v3: &["customers", "services", "batch"],
    key: None,
};

/// The collector `licenses`.
pub(super) struct Licenses;

impl Collector for Licenses {
    const NAME: &'static str = "licenses";
    const ENDPOINT: Endpoint = Endpoint::Licenses;
    const ENDPOINTS: &'static [Endpoint] = &[Endpoint::Licenses, Endpoint::License];
    const INTERVAL: Duration = Duration::from_secs(3600);
    const SCOPE_V1: &'static str = v1::scope::LICENSES;
    const SCOPE_V3: &'static str = v3::scope::LICENSES;
    const PRICE: Price = Price {
        latency: Duration::from_millis(4_800),
        ..Price::ONE
    };
    type Target = Target;
    type Record = Subscriptions;

    async fn poll(
        api: &Api,
        target: &Target,
        _previous: Option<&Subscriptions>,
        context: &Context,
    ) -> Result<PollOutput<Subscriptions>, Failure> {
        let (endpoint, rows) = LIST.fetch(api, target, context).await?;
        let mut records: BTreeMap<CustomerId, Subscriptions> = BTreeMap::new();
        let (mut unreadable, mut count) = (0, 0);
        for (position, json) in rows.iter().enumerate() {
            super::yield_at(position).await;
            let row = Row::read(json, endpoint, api.observer().as_ref());
            let parsed = row.and_then(|row| {
                let id = CustomerId::parse(&row.text(&["customerId"])?)?;
                let products = row.list(&["products"])?;
                Some((id, row, products))
            });
            let Some((id, row, products)) = parsed else {
                unreadable += 1;
                continue;
            };
            count += products.len();
            if count > MAX_PRODUCTS {
                return Err(Error::TooMany(MAX_PRODUCTS).at(endpoint));
            }
            let known = records.entry(id).or_default();
            if api.generation() == Generation::V1 {
                known.lists_tenants = true;
                known.tenants.extend(parse_tenants(&row));
            }
            for json in products {
                let product = row.nested(json);
                match product.and_then(|product| parse_product(&product)) {
                    Some(product) => known.products.push(product),
                    None => unreadable += 1,
                }
            }
        }
        if let Target::Customer(requested) = target {
            records = super::only_requested(requested, records);
        }
        let duplicates = records
            .values_mut()
            .map(|record| merge_identical(&mut record.products))
            .sum();
        if duplicates > 0 {
            api.observer().duplicate_rows(endpoint, duplicates);
        }
        Ok(PollOutput::new(records, unreadable, endpoint))
    }

    fn complete(previous: &Subscriptions, mut partial: Subscriptions) -> Subscriptions {
        partial.tenants.extend(previous.tenants.iter().cloned());
        // Subscriptions with the same digest are numbered in order, because it is unknown which of them is
        // missing.
        let numbered = |products: &[Product]| -> Vec<Product> {
            let mut counts = BTreeMap::new();
            let number = |product: &Product| {
                let count: &mut u32 = counts.entry(product.identity.digest()).or_default();
                *count += 1;
                Product {
                    number: *count,
                    ..product.clone()
                }
            };
            products.iter().map(number).collect()
        };
        let key = |product: &Product| (product.identity.digest(), product.number);
        let (known, latest) = (numbered(&previous.products), numbered(&partial.products));
        partial.products = super::keep_missing(&known, latest, key, |row| row.held = true);
        partial
    }

    fn finish(record: &mut Subscriptions, previous: Option<&Subscriptions>, _organization: &str) {
        assign_labels(
            &mut record.products,
            previous.map_or(&[], |previous| &previous.products),
        );
    }

    fn split(record: &Subscriptions) -> Option<(Subscriptions, Subscriptions)> {
        let (fresh, held) = super::split_rows(&record.products, |row| row.held)?;
        let (tenants, lists_tenants) = (record.tenants.clone(), record.lists_tenants);
        let held = Subscriptions {
            products: held,
            ..Subscriptions::default()
        };
        Some((
            Subscriptions {
                tenants,
                lists_tenants,
                products: fresh,
            },
            held,
        ))
    }

    fn tables(record: &Subscriptions, _customer: &CustomerId, context: &Context, sink: &mut impl ShapeSink) {
        let products = select_products(&record.products, context);
        let tenants: Vec<Tenant> = record
            .tenants
            .iter()
            .take(MAX_TENANTS)
            .map(tenant_without_name)
            .collect();
        sink.add(&SHAPE_INFO, &products);
        sink.add(&SHAPE_NUMBERS, &products);
        sink.add(&SHAPE_COUNT, std::slice::from_ref(record));
        sink.add(&SHAPE_TENANTS, &tenants);
    }
}

/// Returns the products that the settings select. The record contains all products, so that a reload takes effect
/// without a poll and labels do not depend on the filter.
fn select_products(products: &[Product], context: &Context) -> Vec<Product> {
    let (selected, backups) = (&context.settings.license_services, &context.settings.backup_services);
    let matches_any = |patterns: &[Pattern], product: &Product| {
        patterns
            .iter()
            .any(|pattern| pattern.matches_product(&product.identity.service))
    };
    products
        .iter()
        .filter(|product| selected.is_empty() || matches_any(selected, product))
        .map(|product| Product {
            is_backup: matches_any(backups, product),
            gigabyte: context.settings.gigabyte,
            ..product.clone()
        })
        .collect()
}

fn tenant_without_name(id: &TenantId) -> Tenant {
    Tenant {
        id: id.clone(),
        name: String::new(),
    }
}

/// Parses a row's tenants, which are ids separated by commas.
fn parse_tenants(row: &Row<'_>) -> Vec<TenantId> {
    const NAMES: Names = &["tenantId"];
    let text = row.text(NAMES).unwrap_or_default();
    if text.bytes().filter(|byte| *byte == b',').count() >= MAX_TENANTS {
        row.invalid(NAMES, "too many items");
        return Vec::new();
    }
    text.split(',').filter_map(TenantId::parse).collect()
}

fn parse_product(row: &Row<'_>) -> Option<Product> {
    let text = |names: Names| {
        let text = row.text(names).unwrap_or_default();
        domain::truncate(text.trim()).into_owned()
    };
    let identity = Identity {
        service: text(&["service"]),
        subscription_model: text(&["subscriptionModel"]),
        storage: text(&["storage"]),
        retention: text(&["retention"]),
        source: text(&["source"]),
        payment_type: text(&["paymentType"]),
        subscription_name: text(&["subscriptionName"]),
        package: text(&["package"]),
    };
    if identity.service.is_empty() {
        return None;
    }
    let capacity = row.capacity(&["purchasedCapacity"]);
    Some(Product {
        held: false,
        license: String::new(),
        number: 0,
        identity,
        is_backup: false,
        gigabyte: Gigabyte::default(),
        purchased_seats: row.count(&["purchasedUserSeats"]),
        purchased_units: row.count(&["purchasedUnits"]),
        microsoft_assigned: row.count(&["microsoftLicenseAssigned"]),
        microsoft_available: row.count(&["microsoftLicenseAvailable"]),
        purchased_capacity: capacity.and_then(|capacity| capacity.purchased),
        used_capacity: capacity.and_then(|capacity| capacity.used),
        protected_capacity: row.size(&["protectedCapacity"]),
        consumed_storage: row.size(&["consumedStorage"]),
        seats_change: row.signed(&["change"]),
        expiration: row.timestamp(&["expirationDate"]),
        contract_end: row.timestamp(&["contractEndDate"]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::CollectorId;
    use crate::exposition::ShapeMetrics;

    #[test]
    fn shapes_about_tenants_are_last() {
        let is_about_tenants = |shape: &ShapeMetrics| shape.iter().all(|(metric, _)| metric.name.contains("_tenant"));
        let shapes = CollectorId::LICENSES.descriptor().metrics();
        let (others, last) = shapes.split_at(FIRST_TENANT_SHAPE);
        assert!(last.iter().all(is_about_tenants) && !others.iter().any(is_about_tenants));
    }
}
