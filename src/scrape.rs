//! Contents of a scrape: a snapshot of the store, and the exporter's own current values and counters.

mod filter;
mod shards;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::collector::{CollectorId, Customer, Target};
use crate::domain::{Attributes, CustomerId, Timestamp};
use crate::exposition::{
    Block, Family, Filter, Format, Group, Metric, RecordView, Renderer, Shape, ShapeMetrics, Snapshot, Source, Table,
    exact, families, frame_capacity, gauge, label, shape_columns, timestamp,
};
use crate::health::Health;
use crate::runtime::{Runtime, RuntimeStatus};
use crate::store::{self, Overview, State, Store};
use shards::ShardCache;

pub use filter::{Part, ScrapeFilter};

/// Values that describe the exporter, read at scrape time.
struct Readings {
    runtime: RuntimeStatus,
    series: usize,
    without_attributes: Option<usize>,
}

/// Gauges without labels.
const EXPORTER: Shape<Readings> = Shape {
    labels: &[],
    columns: &[
        gauge(
            "elements_up",
            "1 if the latest token request and the latest poll of the customer list succeeded, 0 otherwise",
            |readings| Some(f64::from(readings.runtime.is_up())),
        ),
        gauge(
            "elements_exporter_api_rate_limit",
            "Adaptive request rate limit, per second",
            |readings| Some(readings.runtime.client.rate),
        ),
        timestamp(
            "elements_exporter_token_expiry_timestamp_seconds",
            "Earliest expiry of the tokens in use, Unix time",
            |readings| Some(Timestamp::from(readings.runtime.client.token_expiry?).as_unix_seconds()),
        ),
        timestamp(
            "elements_exporter_credential_expiry_timestamp_seconds",
            "Expiry of the certificate, or auth.client_secret_expires for a secret, Unix time",
            |readings| Some(Timestamp::from_unix_seconds(readings.runtime.client.credential_expiry?).as_unix_seconds()),
        ),
        gauge(
            "elements_exporter_series",
            "Stored series: values from the API, and the collector_success and last_success series",
            |readings| exact(readings.series),
        ),
        gauge(
            "elements_exporter_config_last_reload_successful",
            "1 if the last load of the configuration succeeded, 0 otherwise",
            |readings| Some(f64::from(readings.runtime.loaded.config)),
        ),
        timestamp(
            "elements_exporter_config_last_reload_success_timestamp_seconds",
            "Last successful load of the configuration, Unix time",
            |readings| Some(readings.runtime.loaded.config_at.as_unix_seconds()),
        ),
        gauge(
            "elements_exporter_config_unmatched_patterns",
            "Configured patterns that match nothing; absent before the first complete customer list",
            |readings| exact(readings.runtime.schedule.unmatched_patterns?),
        ),
        gauge(
            "elements_exporter_customers_without_attributes",
            "Customers that no row in customers.attributes_file matches; absent without such a file",
            |readings: &Readings| exact(readings.without_attributes?),
        )
        .experimental(),
        gauge(
            "elements_exporter_state_load_successful",
            "1 if the state file was loaded at startup or did not exist yet, 0 otherwise; absent without state.file",
            |readings| readings.runtime.loaded.state.map(f64::from),
        ),
    ],
};

/// Values that describe a collector, read at scrape time.
struct CollectorReadings {
    overview: Overview,
    lag: Duration,
    cycle: Option<Duration>,
}

/// Gauges with the label `collector`.
const COLLECTORS: Shape<CollectorReadings> = Shape {
    labels: &[label("collector", |row| Some(row.overview.collector.name()))],
    columns: &[
        gauge(
            "elements_exporter_collector_permitted",
            "1 if the collector's permission is granted, 0 otherwise; absent until known",
            |row| row.overview.permitted.map(f64::from),
        ),
        gauge(
            "elements_exporter_collector_interval_seconds",
            "Configured poll interval of the collector",
            |row| Some(row.overview.plan.interval.as_secs_f64()),
        ),
        gauge(
            "elements_exporter_collector_stale_after_seconds",
            "Configured age at which the collector's values expire",
            |row| Some(row.overview.plan.stale_after.as_secs_f64()),
        ),
        gauge(
            "elements_exporter_poll_lag_seconds",
            "Lag of the most overdue poll",
            |row| Some(row.lag.as_secs_f64()),
        ),
        gauge(
            "elements_exporter_poll_cycle_seconds",
            "Duration of the last full cycle, about one interval if polls are on time; absent until the first has ended",
            |row| Some(row.cycle?.as_secs_f64()),
        ),
    ],
};

/// Number of customers in one state, for one collector.
struct CustomersInState {
    collector: &'static str,
    state: State,
    customers: usize,
}

const CUSTOMERS: Shape<CustomersInState> = Shape {
    labels: &[
        label("collector", |row| Some(row.collector)),
        label("state", |row| Some(row.state.label())),
    ],
    columns: &[gauge(
        "elements_exporter_customers",
        "Customers by state of their values; the sum over all states is the number of customers",
        |row| exact(row.customers),
    )],
};

/// Returns the shapes of the values read at scrape time, in the order of [`Scrape::exporter_tables`].
fn exporter_shapes() -> [ShapeMetrics; 3] {
    [
        EXPORTER.metrics_without_customer(),
        COLLECTORS.metrics_without_customer(),
        CUSTOMERS.metrics_without_customer(),
    ]
}

/// A customer, for service discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownCustomer {
    /// Id of the customer.
    pub id: CustomerId,
    /// Display name of the customer.
    pub organization: String,
    /// The customer's country or region.
    pub country: String,
    /// Who manages the customer.
    pub management_mode: &'static str,
    /// The attributes that the operator assigned to the customer.
    pub attributes: Arc<Attributes>,
}

/// Renders scrapes. Never calls the API and never waits for a poll.
pub struct Scrape {
    store: Arc<Store>,
    health: Arc<Health>,
    runtime: Arc<Runtime>,
    shard_cache: ShardCache,
    /// Families of the values read at scrape time.
    exporter: Arc<[Family]>,
    /// Families of the store's contents.
    stored: Arc<[Family]>,
}

impl Scrape {
    /// Creates a renderer that reads these sources.
    pub fn new(store: Arc<Store>, health: Arc<Health>, runtime: Arc<Runtime>) -> Self {
        Self {
            store,
            health,
            runtime,
            shard_cache: ShardCache::default(),
            exporter: families(exporter_columns()).into(),
            stored: families(store::columns()).into(),
        }
    }

    /// Returns a response with the current values, frame by frame.
    pub fn frames(&self, filter: &ScrapeFilter, format: Format) -> Frames {
        let now = Timestamp::from(SystemTime::now());
        // The store is read first, so that a response with the values of a poll also counts that poll.
        let stored = self.stored(filter, format, now).renderer;
        let exporter_metrics = self.exporter_metrics(filter, format, now);
        Frames {
            head: Some(exporter_metrics.head),
            stored,
            tail: Some(exporter_metrics.tail),
        }
    }

    /// Returns the beginning and end of a response: the exporter's own metrics. They are rendered for every scrape. If
    /// the filter does not select these metrics, both are empty, except for the final `# EOF` of OpenMetrics.
    pub fn exporter_metrics(&self, filter: &ScrapeFilter, format: Format, now: Timestamp) -> ExporterMetrics {
        let mut exporter_metrics = ExporterMetrics::default();
        if filter.has_exporter() {
            let snapshot = Snapshot {
                groups: vec![Group {
                    blocks: vec![Arc::new(self.exporter_tables(now))],
                    stale_after: Duration::MAX,
                }],
                now,
            };
            let excluded = self.store.excluded();
            let shown = self.exporter.iter().filter(|family| !excluded.contains(&family.metric));
            let mut renderer = Renderer::new(shown.cloned().collect(), snapshot, Filter::default(), format);
            while let Some(mut frame) = renderer.next_frame() {
                exporter_metrics.head.append(&mut frame);
            }
            self.health.write(&mut exporter_metrics.tail, format, &excluded);
        }
        if format == Format::OpenMetrics {
            exporter_metrics.tail.extend_from_slice(b"# EOF\n");
        }
        exporter_metrics
    }

    /// Returns the middle of a response: the contents of the store.
    pub fn stored(&self, filter: &ScrapeFilter, format: Format, now: Timestamp) -> Stored {
        let selected = self.selected_targets(filter);
        let (version, snapshot) = self.store.snapshot(selected.as_ref(), now);
        let parts = filter.parts.as_ref().filter(|_| !filter.is_only_exporter());
        let groups = parts.map(|parts| {
            let collectors = parts.iter().filter_map(|part| part.collector());
            collectors.flat_map(store::groups_of).collect()
        });
        Stored {
            version,
            valid_until: snapshot.valid_until(),
            renderer: Renderer::new(Arc::clone(&self.stored), snapshot, Filter { groups }, format),
        }
    }

    /// Returns the selected targets, or `None` if all are selected.
    fn selected_targets(&self, filter: &ScrapeFilter) -> Option<BTreeSet<Target>> {
        let partner = filter.has_partner_data().then_some(Target::Partner);
        if filter.is_only_exporter() {
            return Some(partner.into_iter().collect());
        }
        let Some(shards) = &filter.shards else {
            return filter.customers.clone();
        };
        let partition = filter
            .shard_count()
            .map(|count| self.shard_cache.partition(count, &self.store));
        let members = shards.iter().filter_map(|shard| partition.as_ref()?.get(*shard));
        let is_selected = |target: &&Target| filter.customers.as_ref().is_none_or(|only| only.contains(*target));
        Some(members.flatten().filter(is_selected).cloned().chain(partner).collect())
    }

    /// Returns the known customers, for service discovery.
    pub fn customers(&self) -> Vec<KnownCustomer> {
        let snapshot = self.store.status_snapshot(Timestamp::from(SystemTime::now()));
        let known = snapshot.customers().map(|(id, _)| {
            let customer = snapshot.record(CollectorId::CUSTOMERS, id).and_then(Customer::of);
            KnownCustomer {
                id: id.clone(),
                organization: customer.map_or_else(String::new, |customer| customer.organization.clone()),
                country: customer.map_or_else(String::new, |customer| customer.country().to_owned()),
                management_mode: customer.map_or("", Customer::management_mode),
                attributes: snapshot.attributes(id).map(Arc::clone).unwrap_or_default(),
            }
        });
        known.collect()
    }

    /// Returns a number that changes with the contents of the store.
    pub fn version(&self) -> u64 {
        self.store.version()
    }

    fn exporter_tables(&self, now: Timestamp) -> ExporterTables {
        let (snapshot, runtime) = (self.store.status_snapshot(now), self.runtime.status());
        let (mut collectors, mut customers) = (Vec::new(), Vec::new());
        for overview in snapshot.collectors().map(|collector| collector.overview()) {
            customers.extend(State::ALL.map(|state| CustomersInState {
                collector: overview.collector.name(),
                state,
                customers: overview.customers.get(&state).copied().unwrap_or_default(),
            }));
            collectors.push(CollectorReadings {
                lag: *runtime.schedule.lag.get(overview.collector),
                cycle: *runtime.schedule.cycle.get(overview.collector),
                overview,
            });
        }
        let readings = Readings {
            runtime,
            series: snapshot.series,
            without_attributes: snapshot.without_attributes(),
        };
        ExporterTables([
            EXPORTER.table_without_customer(&[readings]),
            COLLECTORS.table_without_customer(&collectors),
            CUSTOMERS.table_without_customer(&customers),
        ])
    }
}

/// Values read at scrape time, one table per shape.
#[derive(Debug)]
struct ExporterTables([Table; 3]);

impl Block for ExporterTables {
    fn record(&self, position: usize) -> Option<RecordView<'_>> {
        (position == 0).then_some(RecordView {
            tables: &self.0,
            good_at: None,
        })
    }
}

/// Returns the metrics read at scrape time, with their locations in the snapshot.
fn exporter_columns() -> Vec<(Metric, Source)> {
    shape_columns(0, exporter_shapes()).collect()
}

/// Returns the metrics read at scrape time with their label names, for the catalogue.
pub fn metrics() -> impl Iterator<Item = (Metric, Vec<&'static str>)> {
    exporter_shapes().into_iter().flatten()
}

/// Beginning and end of a response.
#[derive(Clone, Debug, Default)]
pub struct ExporterMetrics {
    /// Precedes the contents of the store.
    pub head: Vec<u8>,
    /// Follows the contents of the store.
    pub tail: Vec<u8>,
}

/// Middle of a response, between the head and the tail in [`ExporterMetrics`].
pub struct Stored {
    /// Value of [`Store::version`].
    pub version: u64,
    /// Time until which the rendered text is valid, unless the store changes earlier. `None` if there is no such time.
    pub valid_until: Option<Timestamp>,
    renderer: Renderer,
}

impl Stored {
    /// Writes the next frame to `text`, which must be empty. Leaves `text` empty after the last frame.
    pub fn fill(&mut self, text: &mut Vec<u8>) {
        self.renderer.append_frame(text);
    }
}

/// A response, frame by frame.
pub struct Frames {
    head: Option<Vec<u8>>,
    stored: Renderer,
    tail: Option<Vec<u8>>,
}

impl Frames {
    /// Writes the next frame to `text`, which must be empty. Leaves `text` empty after the last frame.
    pub fn fill(&mut self, text: &mut Vec<u8>) {
        if let Some(head) = self.head.take() {
            text.reserve_exact(head.len() + frame_capacity());
            text.extend_from_slice(&head);
        }
        let more = self.stored.append_frame(text);
        if !more && let Some(tail) = self.tail.take() {
            text.extend_from_slice(&tail);
        }
    }
}

impl Iterator for Frames {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        self.fill(&mut text);
        (!text.is_empty()).then_some(text)
    }
}
