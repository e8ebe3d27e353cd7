//! Signs of ransomware in a tenant's workspaces within the last seven days.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::per_tenant::{Tenants, poll_tenants};
use super::{Collector, CollectorId, Context, PollOutput, Price, Record};
use crate::api::wire::{Names, Row};
use crate::api::{Api, Endpoint, Error, Failure, v3};
use crate::domain::{CustomerId, TenantId};
use crate::exposition::{Shape, ShapeSink, gauge, label};

/// A value for each sign of ransomware, worst first: potential attack, unusual activities, suspicious objects.
type BySign<T> = [T; 3];

/// Values of the label `sign`.
const SIGNS: BySign<&str> = ["potential_attack", "unusual_activities", "suspicious_objects"];

/// Returns the fields of an object type in a response, given the prefix of their names.
macro_rules! fields {
    ($prefix:literal) => {
        [
            &[concat!($prefix, "UnderPotentialRansomwareAttack")],
            &[concat!($prefix, "WithUnusualActivities")],
            &[concat!($prefix, "WithSuspiciousObjects")],
        ]
    };
}

/// The object types, in the order of [`Signs`]: for each, the value of the label `object_type`, and its fields.
const OBJECT_TYPES: [(&str, BySign<Names>); 4] = [
    ("teams", fields!("teams")),
    ("sharepoint_sites", fields!("sharePointSites")),
    ("onedrives", fields!("oneDrives")),
    ("groups", fields!("groups")),
];

/// Number of objects by type and sign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Signs([BySign<Option<u64>>; 4]);

impl Signs {
    /// Parses the counts of a row; returns `None` if the row contains none.
    fn parse(row: &Row<'_>) -> Option<Self> {
        let signs = Self(OBJECT_TYPES.map(|(_, fields)| fields.map(|names| row.count(names))));
        (signs != Self::default()).then_some(signs)
    }

    /// Merges another row of the tenant, keeping the higher counts.
    fn merge_worse(&mut self, other: Self) {
        for (counts, others) in self.0.iter_mut().zip(other.0) {
            for (count, other) in counts.iter_mut().zip(others) {
                *count = (*count).max(other);
            }
        }
    }
}

/// A customer's signs of ransomware, for display.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RansomwareSigns {
    /// Objects under a potential attack.
    pub potential_attack: u64,
    /// Objects with unusual activities.
    pub unusual_activities: u64,
    /// Objects that are suspicious or contain suspicious objects.
    pub suspicious_objects: u64,
}

/// Sums the signs in a record of this collector; returns `None` if there are none.
pub fn ransomware_signs(record: &dyn Record) -> Option<RansomwareSigns> {
    let record = record.as_any().downcast_ref::<Tenants<Signs>>()?;
    let mut signs = RansomwareSigns::default();
    for counts in record.iter().flat_map(|(_, signs)| &signs.0) {
        let [potential_attack, unusual_activities, suspicious_objects] = counts.map(Option::unwrap_or_default);
        signs.potential_attack = signs.potential_attack.saturating_add(potential_attack);
        signs.unusual_activities = signs.unusual_activities.saturating_add(unusual_activities);
        signs.suspicious_objects = signs.suspicious_objects.saturating_add(suspicious_objects);
    }
    (signs != RansomwareSigns::default()).then_some(signs)
}

/// The collector `ransomware`.
pub(super) struct Ransomware;

impl Collector for Ransomware {
    const NAME: &'static str = "ransomware";
    const ENDPOINT: Endpoint = Endpoint::Ransomware;
    const INTERVAL: Duration = Duration::from_secs(3600);
    const IS_OPTIONAL: bool = true;
    const PRICE: Price = Price {
        requests: 1.0,
        description: "1 per tenant",
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

    fn without_tenants(record: &Self::Record, removed: &BTreeSet<TenantId>) -> Option<Self::Record> {
        record.without(removed)
    }

    fn tables(record: &Self::Record, _customer: &CustomerId, _context: &Context, sink: &mut impl ShapeSink) {
        let rows: Vec<SignCount> = record
            .iter()
            .flat_map(|(tenant, signs)| {
                let by_type = OBJECT_TYPES.into_iter().zip(&signs.0);
                by_type.flat_map(move |((object_type, _), counts)| {
                    let by_sign = SIGNS.into_iter().zip(counts);
                    by_sign.filter_map(move |(sign, count)| {
                        Some(SignCount {
                            tenant: tenant.clone(),
                            object_type,
                            sign,
                            count: (*count)?,
                        })
                    })
                })
            })
            .collect();
        sink.add(&SHAPE, &rows);
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
    let rows = api.v3(endpoint, scope)?.fetch_entity(endpoint, scope, &path).await?;
    let mut signs = Signs::default();
    for json in &rows {
        let row = Row::read(json, endpoint, api.observer().as_ref());
        let parsed = row.and_then(|row| Signs::parse(&row));
        signs.merge_worse(parsed.ok_or_else(|| Error::Decode("an object with ransomware signs").at(endpoint))?);
    }
    Ok(signs)
}

/// Number of objects of one type with one sign.
struct SignCount {
    tenant: TenantId,
    object_type: &'static str,
    sign: &'static str,
    count: u64,
}

const SHAPE: Shape<SignCount> = Shape {
    labels: &[
        label("tenant_id", |row| Some(row.tenant.as_str())),
        label("object_type", |row| Some(row.object_type)),
        label("sign", |row| Some(row.sign)),
    ],
    columns: &[gauge(
        "elements_tenant_ransomware_objects",
        "Objects with signs of ransomware detected in the tenant within the last seven days",
        |row| Some(super::float(row.count)),
    )],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_rows_of_a_tenant_keeps_the_higher_counts() {
        let mut one = Signs::default();
        let mut other = Signs::default();
        one.0[0] = [Some(1), None, Some(0)];
        other.0[0] = [Some(0), Some(2), None];
        one.merge_worse(other);
        assert_eq!(one.0[0], [Some(1), Some(2), Some(0)]);
    }
}
