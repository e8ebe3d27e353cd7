//! Licences: what customers subscribed to, how many seats, how much of it they use, and when it ends.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Collector, Context, Reach, Reading, Target, shape, tabulate};
use crate::api::wire::{Names, Row};
use crate::api::{Api, Endpoint, Error, Failure, Generation, v1, v3};
use crate::domain::{self, CustomerId, Gigabyte, Timestamp};
use crate::exposition::{Column, Label, Metric, Shape, ShapeMetrics, Table};

/// The most subscriptions of one answer: ten for each of fifty thousand customers. One of no more than its service would
/// cost thirty times its length.
const MAX_PRODUCTS: usize = 500_000;

/// The most tenants of a customer. The largest tell of dozens.
const MAX_TENANTS: usize = 10_000;

/// What a customer subscribed to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Subscriptions {
    /// The ids of the tenants, where the generation tells them here.
    tenants: BTreeSet<String>,
    products: Vec<Product>,
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Product {
    /// Whether it is held from an earlier answer, because the newest could not be read whole.
    #[serde(default)]
    held: bool,
    /// Tells it from another subscription of the same service; empty where there is one only.
    license: String,
    /// Its place among those that were bought as the same, from 1; 0 before it has one.
    #[serde(default)]
    place: u32,
    identity: Identity,
    purchased_seats: Option<u64>,
    purchased_units: Option<u64>,
    microsoft_assigned: Option<u64>,
    microsoft_available: Option<u64>,
    purchased_capacity: Option<f64>,
    used_capacity: Option<f64>,
    protected_capacity: Option<f64>,
    consumed_storage: Option<f64>,
    seats_change: Option<i64>,
    expiration: Option<Timestamp>,
    contract_end: Option<Timestamp>,
}

impl super::Held for Product {
    fn is_held(&self) -> bool {
        self.held
    }

    fn hold(&mut self) {
        self.held = true;
    }
}

/// What stays the same of a subscription while its numbers change.
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

/// The collector.
pub(super) struct Licenses;

impl Collector for Licenses {
    const NAME: &'static str = "licenses";
    const ENDPOINT: Endpoint = Endpoint::Licenses;
    const ENDPOINTS: &'static [Endpoint] = &[Endpoint::Licenses, Endpoint::License];
    const INTERVAL: Duration = Duration::from_secs(3600);
    const SCOPE_V1: &'static str = v1::scope::LICENSES;
    const SCOPE_V3: &'static str = v3::scope::LICENSES;
    const REACH: Reach = Reach::Partner;
    type Record = Subscriptions;

    async fn poll(
        api: &Api,
        target: &Target,
        _previous: Option<&Subscriptions>,
        context: &Context,
    ) -> Result<Reading<Subscriptions>, Failure> {
        let (endpoint, rows) = match (api, target) {
            (Api::V1(client), Target::Partner) => {
                let rows = client.list(Endpoint::Licenses, Self::SCOPE_V1, &["services"]).await?;
                (Endpoint::Licenses, rows)
            }
            (Api::V1(client), Target::Customer(id)) => {
                let path = ["services", id.as_str()];
                let rows = client.entity(Endpoint::License, Self::SCOPE_V1, &path).await?;
                (Endpoint::License, rows)
            }
            (Api::V3(client), target) => {
                let list = v3::List {
                    endpoint: Endpoint::Licenses,
                    scope: Self::SCOPE_V3,
                    path: &["customers", "services", "batch"],
                    filter: Some(&super::customer_filter(target, context)),
                    key: None,
                };
                (Endpoint::Licenses, client.list(list).await?)
            }
        };
        let mut records: BTreeMap<CustomerId, Subscriptions> = BTreeMap::new();
        let (mut unreadable, mut count) = (0, 0);
        for (position, json) in rows.iter().enumerate() {
            super::turn(position).await;
            let row = Row::read(json, endpoint, api.observer().as_ref());
            let read = row.and_then(|row| {
                let id = CustomerId::parse(&row.text(&["customerId"])?)?;
                let products = row.list(&["products"])?;
                Some((id, row, products))
            });
            let Some((id, row, products)) = read else {
                unreadable += 1;
                continue;
            };
            count += products.len();
            if count > MAX_PRODUCTS {
                return Err(Error::TooMany(MAX_PRODUCTS).at(endpoint));
            }
            let known = records.entry(id).or_default();
            if api.generation() == Generation::V1 {
                known.tenants.extend(tenants(&row));
            }
            for json in products {
                let product = row.nested(json);
                match product.and_then(|product| read_product(&product, api.gigabyte())) {
                    Some(product) => known.products.push(product),
                    None => unreadable += 1,
                }
            }
        }
        if let Target::Customer(asked) = target {
            records = super::only(asked, records);
        }
        let duplicates = records
            .values_mut()
            .map(|record| join_equal(&mut record.products))
            .sum();
        if duplicates > 0 {
            api.observer().duplicate_rows(endpoint, duplicates);
        }
        Ok(Reading {
            records,
            unreadable,
            endpoint,
        })
    }

    fn complete(previous: &Subscriptions, mut partial: Subscriptions) -> Subscriptions {
        partial.tenants.extend(previous.tenants.iter().cloned());
        // Which of several that were bought as the same is missing cannot be told, so they are told apart by number.
        let numbered = |products: &[Product]| -> Vec<Product> {
            let mut counts = BTreeMap::new();
            let number = |product: &Product| {
                let count: &mut u32 = counts.entry(product.identity.digest()).or_default();
                *count += 1;
                Product {
                    place: *count,
                    ..product.clone()
                }
            };
            products.iter().map(number).collect()
        };
        let key = |product: &Product| (product.identity.digest(), product.place);
        partial.products = super::keep_missing(&numbered(&previous.products), numbered(&partial.products), key);
        partial
    }

    fn settle(record: &mut Subscriptions, previous: Option<&Subscriptions>) {
        tell_apart(
            &mut record.products,
            previous.map_or(&[], |previous| &previous.products),
        );
    }

    fn split(record: &Subscriptions) -> Option<(Subscriptions, Subscriptions)> {
        let (told, held) = super::split_rows(&record.products)?;
        let tenants = record.tenants.clone();
        let held = Subscriptions {
            tenants: BTreeSet::new(),
            products: held,
        };
        Some((
            Subscriptions {
                tenants,
                products: told,
            },
            held,
        ))
    }

    fn metrics() -> Vec<ShapeMetrics> {
        vec![shape(&SHAPE_INFO), shape(&SHAPE_NUMBERS), shape(&SHAPE_TENANTS)]
    }

    fn tables(record: &Subscriptions, customer: &CustomerId, _context: &Context) -> (Vec<Table>, u64) {
        let id = customer.as_str();
        tabulate([
            SHAPE_INFO.table(id, &record.products),
            SHAPE_NUMBERS.table(id, &record.products),
            SHAPE_TENANTS.table(id, std::slice::from_ref(record)),
        ])
    }
}

/// The tenants of a row: several ids joined by commas.
fn tenants(row: &Row<'_>) -> Vec<String> {
    const NAMES: Names = &["tenantId"];
    let text = row.text(NAMES).unwrap_or_default();
    if text.bytes().filter(|byte| *byte == b',').count() >= MAX_TENANTS {
        row.not_understood(NAMES, "a list without end");
        return Vec::new();
    }
    text.split(',').filter_map(domain::id).map(ToOwned::to_owned).collect()
}

fn read_product(row: &Row<'_>, gigabyte: Gigabyte) -> Option<Product> {
    let text = |names: Names| {
        let text = row.text(names).unwrap_or_default();
        domain::cut(text.trim()).into_owned()
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
    let capacity = row.capacity(&["purchasedCapacity"], gigabyte);
    Some(Product {
        held: false,
        license: String::new(),
        place: 0,
        identity,
        purchased_seats: row.count(&["purchasedUserSeats"]),
        purchased_units: row.count(&["purchasedUnits"]),
        microsoft_assigned: row.count(&["microsoftLicenseAssigned"]),
        microsoft_available: row.count(&["microsoftLicenseAvailable"]),
        purchased_capacity: capacity.and_then(|capacity| capacity.purchased),
        used_capacity: capacity.and_then(|capacity| capacity.used),
        protected_capacity: row.size(&["protectedCapacity"], gigabyte),
        consumed_storage: row.size(&["consumedStorage"], gigabyte),
        seats_change: row.signed(&["change"]),
        expiration: row.timestamp(&["expirationDate"]),
        contract_end: row.timestamp(&["contractEndDate"]),
    })
}

/// The most subscriptions of one customer that were bought as the same and are still recognized one by one. More than
/// these are told apart by their order.
const MAX_RECOGNIZED: usize = 64;

/// Joins subscriptions that are the same to the letter, and says how many were.
fn join_equal(products: &mut Vec<Product>) -> u64 {
    let before = products.len();
    products.sort_by(|one, other| {
        let key = |product: &Product| (product.expiration, product.contract_end, product.purchased_seats);
        (&one.identity, key(one)).cmp(&(&other.identity, key(other)))
    });
    products.dedup();
    u64::try_from(before - products.len()).unwrap_or(u64::MAX)
}

/// Gives subscriptions of one service labels that tell them apart. The label is made of what a subscription was bought
/// as, which does not change while it is renewed, extended or moved to other storage; where that is equal, of its place
/// among its equals, which it keeps as long as it is recognized among those of `previous`.
fn tell_apart(products: &mut [Product], previous: &[Product]) {
    let mut of_service: BTreeMap<String, usize> = BTreeMap::new();
    let mut equals: BTreeMap<String, Vec<&mut Product>> = BTreeMap::new();
    for product in products.iter_mut() {
        *of_service.entry(product.identity.service.clone()).or_default() += 1;
        product.place = 0;
        equals.entry(product.identity.digest()).or_default().push(product);
    }
    let mut before: BTreeMap<String, Vec<&Product>> = BTreeMap::new();
    for product in previous {
        before.entry(product.identity.digest()).or_default().push(product);
    }
    for (digest, mut equals) in equals {
        let before = before.get(&digest).map_or(&[][..], Vec::as_slice);
        place(&mut equals, before);
        for product in equals {
            let alone = of_service.get(&product.identity.service).is_none_or(|count| *count < 2);
            product.license = match product.place {
                _ if alone => String::new(),
                1 => digest.clone(),
                place => format!("{digest}-{place}"),
            };
        }
    }
}

/// Gives each of some equals a place: the one of the most similar of those before, the most similar pair first, and to
/// those that are new the lowest that is free.
fn place(equals: &mut [&mut Product], before: &[&Product]) {
    let mut taken = BTreeSet::new();
    if equals.len().max(before.len()) <= MAX_RECOGNIZED {
        let mut pairs: Vec<(u32, usize, usize)> = Vec::new();
        for (old, known) in before.iter().enumerate() {
            pairs.extend(
                equals
                    .iter()
                    .enumerate()
                    .map(|(new, product)| (known.likeness(product), old, new)),
            );
        }
        pairs.sort_by_key(|(likeness, old, new)| (std::cmp::Reverse(*likeness), *old, *new));
        let mut gone = BTreeSet::new();
        for (_, old, new) in pairs {
            let (Some(known), Some(product)) = (before.get(old), equals.get_mut(new)) else {
                continue;
            };
            if product.place == 0 && known.place > 0 && !gone.contains(&old) && taken.insert(known.place) {
                gone.insert(old);
                product.place = known.place;
            }
        }
    }
    let mut free = (1..).filter(|place| !taken.contains(place));
    for product in equals.iter_mut().filter(|product| product.place == 0) {
        product.place = free.next().unwrap_or(u32::MAX);
    }
}

impl Product {
    /// How much speaks for this and another being one subscription at two times.
    fn likeness(&self, other: &Self) -> u32 {
        let same = [
            self.identity.storage == other.identity.storage,
            self.identity.retention == other.identity.retention,
            self.identity.payment_type == other.identity.payment_type,
            self.expiration == other.expiration,
            self.contract_end == other.contract_end,
            self.purchased_seats == other.purchased_seats,
            self.purchased_units == other.purchased_units,
            self.purchased_capacity == other.purchased_capacity,
        ];
        same.into_iter().map(u32::from).sum()
    }
}

impl Identity {
    /// A short name for what was bought: a checksum in hexadecimal digits.
    fn digest(&self) -> String {
        let parts = [
            &self.service,
            &self.subscription_model,
            &self.source,
            &self.subscription_name,
            &self.package,
        ];
        let mut hasher = crc32fast::Hasher::new();
        for part in parts {
            hasher.update(part.as_bytes());
            hasher.update(&[0]);
        }
        format!("{:08x}", hasher.finalize())
    }
}

const LICENSE: Label<Product> = Label {
    name: "license",
    value: |product| Some(Cow::Borrowed(&product.license)),
};

const SERVICE: Label<Product> = Label {
    name: "service",
    value: |product| Some(Cow::Borrowed(&product.identity.service)),
};

const SHAPE_INFO: Shape<Product> = Shape {
    labels: &[
        LICENSE,
        SERVICE,
        Label {
            name: "subscription_model",
            value: |product| Some(Cow::Borrowed(&product.identity.subscription_model)),
        },
        Label {
            name: "storage",
            value: |product| Some(Cow::Borrowed(&product.identity.storage)),
        },
        Label {
            name: "retention",
            value: |product| Some(Cow::Borrowed(&product.identity.retention)),
        },
        Label {
            name: "source",
            value: |product| Some(Cow::Borrowed(&product.identity.source)),
        },
        Label {
            name: "payment_type",
            value: |product| Some(Cow::Borrowed(&product.identity.payment_type)),
        },
        Label {
            name: "subscription_name",
            value: |product| Some(Cow::Borrowed(&product.identity.subscription_name)),
        },
        Label {
            name: "package",
            value: |product| Some(Cow::Borrowed(&product.identity.package)),
        },
    ],
    columns: &[Column {
        metric: Metric::info("elements_license_info", "A subscription of a customer"),
        value: |_| Some(1.0),
    }],
};

const SHAPE_NUMBERS: Shape<Product> = Shape {
    labels: &[LICENSE, SERVICE],
    columns: &[
        Column {
            metric: Metric::gauge("elements_license_purchased_seats", "User seats bought"),
            value: |product| product.purchased_seats.map(super::float),
        },
        Column {
            metric: Metric::gauge(
                "elements_license_purchased_units",
                "Units bought, such as Microsoft 365 tenants",
            ),
            value: |product| product.purchased_units.map(super::float),
        },
        Column {
            metric: Metric::gauge("elements_license_microsoft_assigned", "Microsoft licences assigned"),
            value: |product| product.microsoft_assigned.map(super::float),
        },
        Column {
            metric: Metric::gauge("elements_license_microsoft_available", "Microsoft licences available"),
            value: |product| product.microsoft_available.map(super::float),
        },
        Column {
            metric: Metric::gauge("elements_license_purchased_capacity_bytes", "Capacity bought"),
            value: |product| product.purchased_capacity,
        },
        Column {
            metric: Metric::gauge(
                "elements_license_used_capacity_bytes",
                "Capacity used of a pooled subscription",
            ),
            value: |product| product.used_capacity,
        },
        Column {
            metric: Metric::gauge(
                "elements_license_protected_capacity_bytes",
                "Size of the protected data",
            ),
            value: |product| product.protected_capacity,
        },
        Column {
            metric: Metric::gauge("elements_license_consumed_storage_bytes", "Storage consumed"),
            value: |product| product.consumed_storage,
        },
        Column {
            metric: Metric::gauge(
                "elements_license_seats_change",
                "Change of seats in a pooled subscription since the first day of the month",
            ),
            value: |product| product.seats_change.map(super::signed_float),
        },
        Column {
            metric: Metric::timestamp(
                "elements_license_expiration_timestamp_seconds",
                "When the service expires",
            ),
            value: |product| product.expiration.map(Timestamp::as_unix_seconds),
        },
        Column {
            metric: Metric::timestamp(
                "elements_license_contract_end_timestamp_seconds",
                "When the contract ends",
            ),
            value: |product| product.contract_end.map(Timestamp::as_unix_seconds),
        },
    ],
};

const SHAPE_TENANTS: Shape<Subscriptions> = Shape {
    labels: &[],
    columns: &[Column {
        metric: super::CUSTOMER_TENANTS,
        value: |record| {
            Some(record.tenants.len())
                .filter(|tenants| *tenants > 0)
                .and_then(super::exact)
        },
    }],
};
