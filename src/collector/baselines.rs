//! Tenants' baselines: deployment status and drift of settings.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::customers::tenants::MAX_TENANTS;
use super::{Collector, CollectorId, Context, Partner, PollOutput};
use crate::api::wire::{Names, Row};
use crate::api::{Api, Endpoint, Failure, v3};
use crate::domain::{self, CustomerId, TenantId, Timestamp};
use crate::exposition::{Shape, ShapeSink, gauge, label, timestamp};

/// State of a tenant's baselines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Baseline {
    /// Whether the row is carried over from an earlier response because the latest response had invalid rows.
    #[serde(default)]
    held: bool,
    tenant: TenantId,
    status: Option<i16>,
    drifts: Option<u64>,
    drifted: Option<Timestamp>,
    deployed: Option<Timestamp>,
}

impl Baseline {
    /// Merges another row of the tenant. Keeps the worse status, the higher drift count and the later times.
    fn merge_worse(&mut self, other: Self) {
        if severity(other.status) > severity(self.status) {
            self.status = other.status;
        }
        self.drifts = self.drifts.max(other.drifts);
        self.drifted = self.drifted.max(other.drifted);
        self.deployed = self.deployed.max(other.deployed);
    }
}

/// Returns the severity of a status. From most to least severe, the order is: failed, with exceptions or expired,
/// unknown, any other status, no status.
fn severity(status: Option<i16>) -> u8 {
    match status {
        Some(5 | 8 | 17) => 4,
        Some(2 | 6 | 10) => 3,
        Some(-1) => 2,
        Some(_) => 1,
        None => 0,
    }
}

/// The collector `baselines`.
pub(super) struct Baselines;

impl Collector for Baselines {
    const NAME: &'static str = "baselines";
    const ENDPOINT: Endpoint = Endpoint::Baselines;
    const INTERVAL: Duration = Duration::from_secs(3600);
    const IS_OPTIONAL: bool = true;
    const SCOPE_V3: &'static str = v3::scope::BASELINES;
    const ITEMS_FROM: Option<CollectorId> = Some(CollectorId::CUSTOMERS);
    type Target = Partner;
    type Record = Vec<Baseline>;

    async fn poll(
        api: &Api,
        _partner: &Partner,
        _previous: Option<&Self::Record>,
        context: &Context,
    ) -> Result<PollOutput<Self::Record>, Failure> {
        let endpoint = Endpoint::Baselines;
        let list = v3::List {
            endpoint,
            scope: Self::SCOPE_V3,
            path: &["bm", "tenants", "batch"],
            filter: Some("{}"),
            key: None,
        };
        let rows = api.v3(endpoint, list.scope)?.fetch_list(list).await?;
        let observer = api.observer().as_ref();
        let mut tenants: BTreeMap<CustomerId, BTreeMap<TenantId, Baseline>> = BTreeMap::new();
        let unreadable = super::read_rows(&rows, endpoint, observer, |row| {
            let (customer, baseline) = parse_row(row, context.now)?;
            let known = tenants.entry(customer).or_default();
            if known.len() >= MAX_TENANTS && !known.contains_key(&baseline.tenant) {
                observer.decode_error(endpoint, "tenantId", "a tenant beyond the limit");
                return None;
            }
            let is_duplicate = known.contains_key(&baseline.tenant);
            match known.get_mut(&baseline.tenant) {
                None => _ = known.insert(baseline.tenant.clone(), baseline),
                Some(known) => known.merge_worse(baseline),
            }
            Some(is_duplicate)
        });
        let unreadable = unreadable.await;
        let records = tenants
            .into_iter()
            .map(|(id, tenants)| (id, tenants.into_values().collect()));
        Ok(PollOutput::new(records.collect(), unreadable, endpoint))
    }

    fn complete(previous: &Self::Record, partial: Self::Record) -> Self::Record {
        let mut baselines = super::keep_missing(previous, partial, |row| row.tenant.clone(), |row| row.held = true);
        baselines.truncate(MAX_TENANTS);
        baselines
    }

    fn split(record: &Self::Record) -> Option<(Self::Record, Self::Record)> {
        super::split_rows(record, |row| row.held)
    }

    fn without_tenants(record: &Self::Record, removed: &BTreeSet<TenantId>) -> Option<Self::Record> {
        let kept = record.iter().filter(|baseline| !removed.contains(&baseline.tenant));
        let kept: Vec<Baseline> = kept.cloned().collect();
        (kept.len() < record.len()).then_some(kept)
    }

    fn tables(record: &Self::Record, _customer: &CustomerId, _context: &Context, sink: &mut impl ShapeSink) {
        sink.add(&SHAPE, record);
    }
}

fn parse_row(row: &Row<'_>, now: Timestamp) -> Option<(CustomerId, Baseline)> {
    const STATUS: Names = &["status"];
    let customer = CustomerId::parse(&row.text(&["customerId"])?)?;
    let tenant = TenantId::parse(&row.text(&["tenantId"])?)?;
    let status = row.known_word(STATUS, row.text(STATUS), domain::baseline_status, |status| status < 0);
    let past = |names: Names| super::not_in_future(row, names, row.timestamp(names)?, now);
    let baseline = Baseline {
        held: false,
        tenant,
        status,
        drifts: row.count(&["driftDetected"]),
        drifted: past(&["driftDetectedTime"]),
        deployed: past(&["lastDeployedTime"]),
    };
    Some((customer, baseline))
}

const SHAPE: Shape<Baseline> = Shape {
    labels: &[label("tenant_id", |row| Some(row.tenant.as_str()))],
    columns: &[
        gauge(
            "elements_tenant_baseline_status",
            "Status number of the tenant's baselines; -1 if unknown",
            |row| row.status.map(f64::from),
        ),
        gauge(
            "elements_tenant_drift_detected",
            "Settings of the tenant that differ from its baselines",
            |row| row.drifts.map(super::float),
        ),
        timestamp(
            "elements_tenant_drift_detected_timestamp_seconds",
            "Latest detection of drift, Unix time",
            |row| row.drifted.map(Timestamp::as_unix_seconds),
        ),
        timestamp(
            "elements_tenant_baseline_deployed_timestamp_seconds",
            "Latest deployment of baselines, Unix time",
            |row| row.deployed.map(Timestamp::as_unix_seconds),
        ),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_rows_of_a_tenant_keeps_the_worse_status() {
        let row = |status: i16, drifts: u64| Baseline {
            held: false,
            tenant: TenantId::parse("t").expect("an id"),
            status: Some(status),
            drifts: Some(drifts),
            drifted: None,
            deployed: None,
        };
        for (one, other) in [(row(5, 0), row(7, 3)), (row(7, 3), row(5, 0))] {
            let mut worse = one;
            worse.merge_worse(other);
            assert_eq!((worse.status, worse.drifts), (Some(5), Some(3)));
        }
    }
}
