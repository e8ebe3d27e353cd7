//! Protected data of Cloud Backup for Microsoft 365: what was scanned, what is backed up, where it is stored.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Collector, Context, Reach, Reading, Target, shape, tabulate};
use crate::api::wire::Row;
use crate::api::{Api, Endpoint, Error, Failure, v1, v3};
use crate::domain::{self, CustomerId, Gigabyte};
use crate::exposition::{Column, Label, Metric, Shape, ShapeMetrics, Table};

/// What is protected of a module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Module {
    /// Whether it is held from an earlier answer, because the newest could not be read whole.
    #[serde(default)]
    held: bool,
    service: Cow<'static, str>,
    module: Cow<'static, str>,
    scanned: Option<u64>,
    protected: Option<u64>,
    avepoint_bytes: Option<f64>,
    byos_bytes: Option<f64>,
}

impl super::Held for Module {
    fn is_held(&self) -> bool {
        self.held
    }

    fn hold(&mut self) {
        self.held = true;
    }
}

/// The collector.
pub(super) struct Protected;

impl Collector for Protected {
    const NAME: &'static str = "protected";
    const ENDPOINT: Endpoint = Endpoint::Protected;
    const INTERVAL: Duration = Duration::from_secs(30 * 60);
    const SCOPE_V1: &'static str = v1::scope::PROTECTED;
    const SCOPE_V3: &'static str = v3::scope::PROTECTED;
    const REACH: Reach = Reach::Customer;
    type Record = Vec<Module>;

    async fn poll(
        api: &Api,
        target: &Target,
        _previous: Option<&Self::Record>,
        _context: &Context,
    ) -> Result<Reading<Self::Record>, Failure> {
        let endpoint = Endpoint::Protected;
        let Target::Customer(customer) = target else {
            return Err(Error::UnusableId.at(endpoint));
        };
        let rows = match api {
            Api::V1(client) => {
                let path = ["customers", customer.as_str(), "protected"];
                client.list(endpoint, Self::SCOPE_V1, &path).await?
            }
            Api::V3(client) => {
                let list = v3::List {
                    endpoint,
                    scope: Self::SCOPE_V3,
                    path: &["customers", customer.as_str(), "cloud-backup-m365", "overview"],
                    filter: None,
                    key: None,
                };
                client.list(list).await?
            }
        };
        let observer = api.observer().as_ref();
        let mut modules: Vec<Module> = Vec::new();
        let mut places: BTreeMap<_, usize> = BTreeMap::new();
        let (mut unreadable, mut duplicates) = (0, 0);
        for json in &rows {
            let row = Row::read(json, endpoint, observer);
            let Some(module) = row.and_then(|row| read(&row, api.gigabyte())) else {
                unreadable += 1;
                continue;
            };
            let place = places.get(&module.name()).copied();
            match place.and_then(|place| modules.get_mut(place)) {
                None => {
                    places.insert(module.name(), modules.len());
                    modules.push(module);
                }
                Some(known) => {
                    duplicates += 1;
                    if module.unprotected() > known.unprotected() {
                        *known = module;
                    }
                }
            }
        }
        if duplicates > 0 {
            observer.duplicate_rows(endpoint, duplicates);
        }
        Ok(Reading::one(customer, modules, unreadable, endpoint))
    }

    fn complete(previous: &Self::Record, partial: Self::Record) -> Self::Record {
        super::keep_missing(previous, partial, |module| module.name())
    }

    fn split(record: &Self::Record) -> Option<(Self::Record, Self::Record)> {
        super::split_rows(record)
    }

    fn metrics() -> Vec<ShapeMetrics> {
        vec![shape(&SHAPE_OBJECTS), shape(&SHAPE_SIZE)]
    }

    fn tables(record: &Self::Record, customer: &CustomerId, _context: &Context) -> (Vec<Table>, u64) {
        let sizes: Vec<Stored> = record.iter().flat_map(Module::stored).collect();
        tabulate([
            SHAPE_OBJECTS.table(customer.as_str(), record),
            SHAPE_SIZE.table(customer.as_str(), &sizes),
        ])
    }
}

impl Module {
    fn name(&self) -> (Cow<'static, str>, Cow<'static, str>) {
        (self.service.clone(), self.module.clone())
    }

    /// How many scanned objects are not protected: of two rows of one module the worse counts.
    fn unprotected(&self) -> Option<u64> {
        Some(self.scanned?.saturating_sub(self.protected.unwrap_or(0)))
    }

    fn stored(&self) -> impl Iterator<Item = Stored> {
        [("avepoint", self.avepoint_bytes), ("byos", self.byos_bytes)]
            .into_iter()
            .filter_map(|(storage, bytes)| {
                Some(Stored {
                    service: self.service.clone(),
                    module: self.module.clone(),
                    storage,
                    bytes: bytes?,
                })
            })
    }
}

fn read(row: &Row<'_>, gigabyte: Gigabyte) -> Option<Module> {
    Some(Module {
        held: false,
        service: row.named(&["serviceType"], domain::service)?,
        module: row.named(&["serviceModule"], domain::module)?,
        scanned: row.count(&["totalScannedObjects"]),
        protected: row.count(&["totalProtectedObjects"]),
        avepoint_bytes: row.size(&["dataSizeStoredInAvePoint"], gigabyte),
        byos_bytes: row.size(&["dataSizeStoredInBYOS"], gigabyte),
    })
}

/// What is stored of a module in one kind of storage.
struct Stored {
    service: Cow<'static, str>,
    module: Cow<'static, str>,
    storage: &'static str,
    bytes: f64,
}

const SHAPE_OBJECTS: Shape<Module> = Shape {
    labels: &[
        Label {
            name: "service",
            value: |row| Some(Cow::Borrowed(&row.service)),
        },
        Label {
            name: "module",
            value: |row| Some(Cow::Borrowed(&row.module)),
        },
    ],
    columns: &[
        Column {
            metric: Metric::gauge("elements_protected_scanned_objects", "Objects that scans found"),
            value: |row| row.scanned.map(super::float),
        },
        Column {
            metric: Metric::gauge("elements_protected_objects", "Objects that are backed up"),
            value: |row| row.protected.map(super::float),
        },
    ],
};

const SHAPE_SIZE: Shape<Stored> = Shape {
    labels: &[
        Label {
            name: "service",
            value: |row| Some(Cow::Borrowed(&row.service)),
        },
        Label {
            name: "module",
            value: |row| Some(Cow::Borrowed(&row.module)),
        },
        Label {
            name: "storage",
            value: |row| Some(Cow::Borrowed(row.storage)),
        },
    ],
    columns: &[Column {
        metric: Metric::gauge(
            "elements_protected_size_bytes",
            "Size of what is backed up, by storage: AvePoint's or the customer's own (byos)",
        ),
        value: |row| Some(row.bytes),
    }],
};
