//! Data protected by Cloud Backup for Microsoft 365: scanned and protected objects, and storage used.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::customers::tenants::MAX_TENANTS;
use super::{Collector, Context, PollOutput, Price};
use crate::api::wire::{Names, Row};
use crate::api::{Api, Endpoint, Failure, v1, v3};
use crate::domain::{self, CustomerId, Gigabyte, Size, TenantId, Timestamp};
use crate::exposition::{Shape, ShapeSink, gauge, label, timestamp};

const TENANT: Names = &["tenantId"];
const LAST_RUN: Names = &["lastRunTime"];

/// A module's protected data in one tenant, or in all tenants if the API does not distinguish them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ProtectedModule {
    /// Whether the row is carried over from an earlier response because the latest response had invalid rows.
    #[serde(default)]
    held: bool,
    service: Cow<'static, str>,
    module: Cow<'static, str>,
    tenant: Option<TenantId>,
    scanned: Option<u64>,
    protected: Option<u64>,
    avepoint_bytes: Option<Size>,
    byos_bytes: Option<Size>,
    last_run: Option<Timestamp>,
}

type Key = (Cow<'static, str>, Cow<'static, str>, Option<TenantId>);

/// The collector `protected`.
pub(super) struct Protected;

impl Collector for Protected {
    const NAME: &'static str = "protected";
    const ENDPOINT: Endpoint = Endpoint::Protected;
    const INTERVAL: Duration = Duration::from_secs(30 * 60);
    const SCOPE_V1: &'static str = v1::scope::PROTECTED;
    const SCOPE_V3: &'static str = v3::scope::PROTECTED;
    const PRICE: Price = Price {
        latency: Duration::from_millis(4_500),
        ..Price::ONE
    };
    type Target = CustomerId;
    type Record = Vec<ProtectedModule>;

    async fn poll(
        api: &Api,
        customer: &CustomerId,
        _previous: Option<&Self::Record>,
        context: &Context,
    ) -> Result<PollOutput<Self::Record>, Failure> {
        let endpoint = Endpoint::Protected;
        let rows = match api {
            Api::V1(client) => {
                let path = ["customers", customer.as_str(), "protected"];
                client.fetch_list(endpoint, Self::SCOPE_V1, &path).await?
            }
            Api::V3(client) => {
                let list = v3::List {
                    endpoint,
                    scope: Self::SCOPE_V3,
                    path: &["customers", customer.as_str(), "cloud-backup-m365", "overview"],
                    filter: None,
                    key: None,
                };
                client.fetch_list(list).await?
            }
        };
        let observer = api.observer().as_ref();
        let mut modules: Vec<ProtectedModule> = Vec::new();
        let mut indexes: BTreeMap<Key, usize> = BTreeMap::new();
        let unreadable = super::read_rows(&rows, endpoint, observer, |row| {
            let module = parse_row(row, context.now)?;
            let index = indexes.get(&module.key()).copied();
            let known = index.and_then(|index| modules.get_mut(index));
            let is_duplicate = known.is_some();
            match known {
                None => {
                    indexes.insert(module.key(), modules.len());
                    modules.push(module);
                }
                Some(known) => known.merge_worse(module),
            }
            Some(is_duplicate)
        });
        let mut unreadable = unreadable.await;
        for _ in 0..limit_tenants(&mut modules) {
            observer.decode_error(endpoint, "tenantId", "a tenant beyond the limit");
            unreadable += 1;
        }
        Ok(PollOutput::of_customer(customer, modules, unreadable, endpoint))
    }

    fn complete(previous: &Self::Record, partial: Self::Record) -> Self::Record {
        let mut modules = super::keep_missing(previous, partial, ProtectedModule::key, |row| row.held = true);
        limit_tenants(&mut modules);
        modules
    }

    fn split(record: &Self::Record) -> Option<(Self::Record, Self::Record)> {
        super::split_rows(record, |row| row.held)
    }

    fn tables(record: &Self::Record, _customer: &CustomerId, context: &Context, sink: &mut impl ShapeSink) {
        let gigabyte = context.settings.gigabyte;
        let sizes: Vec<StoredSize> = record.iter().flat_map(|module| module.stored_sizes(gigabyte)).collect();
        sink.add(&SHAPE_OBJECTS, record);
        sink.add(&SHAPE_SIZE, &sizes);
    }
}

impl ProtectedModule {
    fn key(&self) -> Key {
        (self.service.clone(), self.module.clone(), self.tenant.clone())
    }

    /// Merges another row with the same key. Keeps the row with more unprotected objects, and the earlier run time.
    fn merge_worse(&mut self, other: Self) {
        let last_run = [self.last_run, other.last_run].into_iter().flatten().min();
        if other.unprotected() > self.unprotected() {
            *self = other;
        }
        self.last_run = last_run;
    }

    fn unprotected(&self) -> Option<u64> {
        Some(self.scanned?.saturating_sub(self.protected.unwrap_or(0)))
    }

    fn stored_sizes(&self, gigabyte: Gigabyte) -> impl Iterator<Item = StoredSize> {
        [("avepoint", self.avepoint_bytes), ("byos", self.byos_bytes)]
            .into_iter()
            .filter_map(move |(storage, size)| {
                Some(StoredSize {
                    service: self.service.clone(),
                    module: self.module.clone(),
                    tenant: self.tenant.clone(),
                    storage,
                    bytes: size?.bytes(gigabyte),
                })
            })
    }
}

/// Drops the rows of tenants beyond [`MAX_TENANTS`], and returns how many rows were dropped.
fn limit_tenants(modules: &mut Vec<ProtectedModule>) -> usize {
    let before = modules.len();
    let mut tenants = BTreeSet::new();
    modules.retain(|module| match &module.tenant {
        Some(tenant) if !tenants.contains(tenant) => tenants.len() < MAX_TENANTS && tenants.insert(tenant.clone()),
        _ => true,
    });
    before - modules.len()
}

fn parse_row(row: &Row<'_>, now: Timestamp) -> Option<ProtectedModule> {
    let tenant = match row.text(TENANT) {
        // A row with an invalid tenant id is dropped, because without the id it would look like the total of all
        // tenants.
        Some(text) => Some(TenantId::parse(&text)?),
        None => None,
    };
    Some(ProtectedModule {
        held: false,
        service: row.named(&["serviceType"], domain::service)?,
        module: row.named(&["serviceModule"], domain::module)?,
        tenant,
        scanned: row.count(&["totalScannedObjects"]),
        protected: row.count(&["totalProtectedObjects"]),
        avepoint_bytes: row.size(&["dataSizeStoredInAvePoint"]),
        byos_bytes: row.size(&["dataSizeStoredInBYOS"]),
        last_run: (row.timestamp(LAST_RUN)).and_then(|at| super::not_in_future(row, LAST_RUN, at, now)),
    })
}

/// Size of a module's data in one kind of storage.
struct StoredSize {
    service: Cow<'static, str>,
    module: Cow<'static, str>,
    tenant: Option<TenantId>,
    storage: &'static str,
    bytes: f64,
}

const SHAPE_OBJECTS: Shape<ProtectedModule> = Shape {
    labels: &[
        label("service", |row| Some(&row.service)),
        label("module", |row| Some(&row.module)),
        label("tenant_id", |row| row.tenant.as_ref().map(TenantId::as_str)),
    ],
    columns: &[
        gauge("elements_protected_scanned_objects", "Objects found by scans", |row| {
            row.scanned.map(super::float)
        }),
        gauge("elements_protected_objects", "Objects backed up", |row| {
            row.protected.map(super::float)
        }),
        timestamp(
            "elements_protected_last_run_timestamp_seconds",
            "Latest run of the module, Unix time",
            |row| row.last_run.map(Timestamp::as_unix_seconds),
        ),
    ],
};

const SHAPE_SIZE: Shape<StoredSize> = Shape {
    labels: &[
        label("service", |row| Some(&row.service)),
        label("module", |row| Some(&row.module)),
        label("tenant_id", |row| row.tenant.as_ref().map(TenantId::as_str)),
        label("storage", |row| Some(row.storage)),
    ],
    columns: &[gauge(
        "elements_protected_size_bytes",
        "Bytes stored by all runs, in AvePoint's storage or the customer's own (byos)",
        |row| Some(row.bytes),
    )],
};
