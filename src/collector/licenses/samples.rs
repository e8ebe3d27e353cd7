//! Samples of the licenses collector.

use super::{Product, Subscriptions};
use crate::collector::customers::tenants::CUSTOMER_TENANTS;
use crate::domain::Timestamp;
use crate::exposition::{Label, Shape, column, exact, gauge, info, label, timestamp};

const LICENSE: Label<Product> = label("license", |product| Some(&product.license));

const SERVICE: Label<Product> = label("service", |product| Some(&product.identity.service));

pub(super) const SHAPE_INFO: Shape<Product> = Shape {
    labels: &[
        LICENSE,
        SERVICE,
        label("subscription_model", |product| {
            Some(&product.identity.subscription_model)
        }),
        label("storage", |product| Some(&product.identity.storage)),
        label("retention", |product| Some(&product.identity.retention)),
        label("source", |product| Some(&product.identity.source)),
        label("payment_type", |product| Some(&product.identity.payment_type)),
        label("subscription_name", |product| Some(&product.identity.subscription_name)),
        label("package", |product| Some(&product.identity.package)),
        label("backup", |product| product.is_backup.then_some("true")),
    ],
    columns: &[info(
        "elements_license_info",
        "Subscription; backup is true for products in collectors.licenses.backup_services, absent otherwise",
    )],
};

pub(super) const SHAPE_NUMBERS: Shape<Product> = Shape {
    labels: &[LICENSE, SERVICE],
    columns: &[
        gauge(
            "elements_license_purchased_seats",
            "Purchased user seats of the product",
            |product| product.purchased_seats.map(crate::collector::float),
        ),
        gauge(
            "elements_license_purchased_units",
            "Purchased units, such as Microsoft 365 tenants",
            |product| product.purchased_units.map(crate::collector::float),
        ),
        gauge(
            "elements_license_microsoft_assigned",
            "Microsoft licences assigned in the tenant, not only for this product",
            |product| product.microsoft_assigned.map(crate::collector::float),
        ),
        gauge(
            "elements_license_microsoft_available",
            "Microsoft licences available in the tenant, not only for this product",
            |product| product.microsoft_available.map(crate::collector::float),
        ),
        gauge(
            "elements_license_purchased_capacity_bytes",
            "Purchased capacity",
            |product| product.bytes(product.purchased_capacity),
        ),
        gauge(
            "elements_license_used_capacity_bytes",
            "Used capacity of a pooled subscription",
            |product| product.bytes(product.used_capacity),
        ),
        gauge(
            "elements_license_protected_capacity_bytes",
            "Protected data",
            |product| product.bytes(product.protected_capacity),
        ),
        gauge(
            "elements_license_consumed_storage_bytes",
            "Consumed storage",
            |product| product.bytes(product.consumed_storage),
        ),
        gauge(
            "elements_license_seats_change",
            "Change in seats of a pooled subscription since the first day of the month",
            |product| product.seats_change.map(crate::collector::signed_float),
        ),
        timestamp(
            "elements_license_expiration_timestamp_seconds",
            "End of the subscription, Unix time",
            |product| product.expiration.map(Timestamp::as_unix_seconds),
        ),
        timestamp(
            "elements_license_contract_end_timestamp_seconds",
            "End of the contract, Unix time",
            |product| product.contract_end.map(Timestamp::as_unix_seconds),
        ),
    ],
};

pub(super) const SHAPE_COUNT: Shape<Subscriptions> = Shape {
    labels: &[],
    columns: &[column(CUSTOMER_TENANTS, |record| {
        let lists = record.lists_tenants();
        lists.then(|| exact(record.tenants.len())).flatten()
    })],
};
