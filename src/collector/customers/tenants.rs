//! Tenants. API v3 returns them in the customer list; API v1 returns only their ids, with the subscriptions.

use serde::{Deserialize, Serialize};

use crate::domain::TenantId;
use crate::exposition::{Metric, Shape, info, label};

/// Maximum number of tenants per customer that have series. The largest customers have dozens of tenants. Without a
/// limit, a response with random ids would exhaust the memory of every Prometheus server that scrapes the exporter.
pub(in crate::collector) const MAX_TENANTS: usize = 10_000;

pub(in crate::collector) const CUSTOMER_TENANTS: Metric = Metric::gauge(
    "elements_customer_tenants",
    "Microsoft 365 tenants of the customer; 0 if the API lists none",
);

/// A tenant with a known id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::collector) struct Tenant {
    pub(in crate::collector) id: TenantId,
    /// Name of the tenant; empty if none is known.
    pub(in crate::collector) name: String,
}

pub(in crate::collector) const SHAPE_TENANTS: Shape<Tenant> = Shape {
    labels: &[
        label("tenant_id", |tenant| Some(tenant.id.as_str())),
        label("tenant_name", |tenant| Some(&tenant.name)),
    ],
    columns: &[info(
        "elements_tenant_info",
        "Tenant of a customer; tenant_name is empty with v1",
    )],
};
