//! Signs of ransomware in the workspaces of a tenant, as of the last seven days.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::per_tenant::{Tenants, poll_tenants};
use super::{Collector, CollectorId, Context, PollOutput, Price, Record};
use crate::api::wire::{Names, Row};
use crate::api::{Api, Endpoint, Error, Failure, v3};
use crate::domain::{CustomerId, TenantId};
use crate::exposition::{Shape, ShapeMetrics, ShapeTable, gauge, label};

/// The types of objects, in the order of [`Signs`].
const OBJECT_TYPES: [&str; 4] = ["teams", "sharepoint_sites", "onedrives", "groups"];

/// The signs, the worst first, in the order of [`Signs`].
const SIGNS: [&str; 3] = ["potential_attack", "unusual_activities", "suspicious_objects"];

/// The fields by type and sign.
const FIELDS: [[Names; 3]; 4] = [
    [
        &["teamsUnderPotentialRansomwareAttack"],
        &["teamsWithUnusualActivities"],
        &["teamsWithSuspiciousObjects"],
    ],
    [
        &["sharePointSitesUnderPotentialRansomwareAttack"],
        &["sharePointSitesWithUnusualActivities"],
        &["sharePointSitesWithSuspiciousObjects"],
    ],
    [
        &["oneDrivesUnderPotentialRansomwareAttack"],
        &["oneDrivesWithUnusualActivities"],
        &["oneDrivesWithSuspiciousObjects"],
    ],
    [
        &["groupsUnderPotentialRansomwareAttack"],
        &["groupsWithUnusualActivities"],
        &["groupsWithSuspiciousObjects"],
    ],
];

/// Number of objects of each type with each sign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Signs([[Option<u64>; 3]; 4]);

impl Signs {
    /// Returns the counts of an object; `None` if it has none and is therefore something else.
    fn read(row: &Row<'_>) -> Option<Self> {
        let signs = FIELDS.map(|fields| fields.map(|names| row.count(names)));
        signs.iter().flatten().any(Option::is_some).then_some(Self(signs))
    }

    /// Merges another object of the tenant, keeping the worse values.
    fn merge_worse(&mut self, other: Self) {
        for (count, more) in self.0.iter_mut().flatten().zip(other.0.into_iter().flatten()) {
            *count = (*count).max(more);
        }
    }
}

/// Signs of ransomware at a customer, for display.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RansomwareSigns {
    /// Objects under a potential attack.
    pub potential_attack: u64,
    /// Objects with unusual activities.
    pub unusual_activities: u64,
    /// Objects that are suspicious or contain suspicious ones.
    pub suspicious_objects: u64,
}

/// Sums the signs in a record of this collector; `None` if there are none.
pub fn ransomware_signs(record: &dyn Record) -> Option<RansomwareSigns> {
    let record = record.as_any().downcast_ref::<Tenants<Signs>>()?;
    let sum = |sign: usize| {
        let tenants = record.iter().flat_map(|(_, signs)| &signs.0);
        let counts = tenants.filter_map(|counts| *counts.get(sign)?);
        counts.fold(0, u64::saturating_add)
    };
    let signs = RansomwareSigns {
        potential_attack: sum(0),
        unusual_activities: sum(1),
        suspicious_objects: sum(2),
    };
    (signs != RansomwareSigns::default()).then_some(signs)
}

/// The collector.
pub(super) struct Ransomware;

impl Collector for Ransomware {
    const NAME: &'static str = "ransomware";
    const ENDPOINT: Endpoint = Endpoint::Ransomware;
    const INTERVAL: Duration = Duration::from_secs(3600);
    const IS_OPTIONAL: bool = true;
    const PRICE: Price = Price {
        requests: 1.0,
        of: "1 per tenant",
        ..Price::ONE
    };
    const SCOPE_V3: &'static str = v3::scope::WORKSPACES;
    const ITEMS_FROM: Option<CollectorId> = Some(CollectorId::CUSTOMERS);
    type Target = CustomerId;
    type Record = Tenants<Signs>;

    async fn poll(
        api: &Api,
        customer: &CustomerId,
        previous: Option<&Self::Record>,
        context: &Context,
    ) -> Result<PollOutput<Self::Record>, Failure> {
        let about = (customer, context);
        poll_tenants(api, Endpoint::Ransomware, about, previous, |tenant, _| async move {
            fetch_signs(api, customer, &tenant).await.map(|signs| (signs, None))
        })
        .await
    }

    fn split(record: &Self::Record) -> Option<(Self::Record, Self::Record)> {
        record.split_by_key()
    }

    fn without_tenants(record: &Self::Record, gone: &BTreeSet<TenantId>) -> Option<Self::Record> {
        record.without(gone)
    }

    fn metrics() -> Vec<ShapeMetrics> {
        vec![SHAPE.metrics()]
    }

    fn tables(record: &Self::Record, customer: &CustomerId, _context: &Context) -> Vec<ShapeTable> {
        let rows: Vec<Count> = record
            .iter()
            .flat_map(|(tenant, signs)| {
                let by_type = OBJECT_TYPES.into_iter().zip(&signs.0);
                by_type.flat_map(move |(object_type, counts)| {
                    let by_sign = SIGNS.into_iter().zip(counts);
                    by_sign.filter_map(move |(sign, count)| {
                        Some(Count {
                            tenant: tenant.clone(),
                            object_type,
                            sign,
                            count: (*count)?,
                        })
                    })
                })
            })
            .collect();
        vec![SHAPE.table(customer.as_str(), &rows)]
    }
}

async fn fetch_signs(api: &Api, customer: &CustomerId, tenant: &TenantId) -> Result<Signs, Failure> {
    let endpoint = Endpoint::Ransomware;
    let path = [
        "wm",
        "customers",
        customer.as_str(),
        "tenants",
        tenant.as_str(),
        "overview",
        "data-protection",
        "ransomware-detection",
    ];
    let scope = Ransomware::SCOPE_V3;
    let rows = api.v3(endpoint, scope)?.entity(endpoint, scope, &path).await?;
    let mut signs = Signs::default();
    for json in &rows {
        let row = Row::read(json, endpoint, api.observer().as_ref());
        let parsed = row.and_then(|row| Signs::read(&row));
        signs.merge_worse(parsed.ok_or_else(|| Error::Decode("about signs of ransomware").at(endpoint))?);
    }
    Ok(signs)
}

/// Number of objects of one type with one sign.
struct Count {
    tenant: TenantId,
    object_type: &'static str,
    sign: &'static str,
    count: u64,
}

const SHAPE: Shape<Count> = Shape {
    labels: &[
        label("tenant_id", |row| Some(row.tenant.as_str())),
        label("object_type", |row| Some(row.object_type)),
        label("sign", |row| Some(row.sign)),
    ],
    columns: &[gauge(
        "elements_tenant_ransomware_objects",
        "Objects of the tenant with signs of ransomware within the last seven days",
        |row| Some(super::float(row.count)),
    )],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worse_of_two_rows_of_a_tenant_counts() {
        let mut one = Signs::default();
        let mut other = Signs::default();
        one.0[0] = [Some(1), None, Some(0)];
        other.0[0] = [Some(0), Some(2), None];
        one.merge_worse(other);
        assert_eq!(one.0[0], [Some(1), Some(2), Some(0)]);
    }
}
