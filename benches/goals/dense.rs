//! A million gauges: ten metrics of a hundred modules for each of a thousand customers, at about 156 bytes per line.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use elements_exporter::collector::{CollectorId, PerCollector, Plan, RenderedRecord, Target};
use elements_exporter::domain::{CustomerId, Timestamp};
use elements_exporter::exposition::{Column, Label, Metric, Shape, Table};
use elements_exporter::health::Health;
use elements_exporter::scrape::Scrape;
use elements_exporter::store::Store;

pub const CUSTOMERS: usize = 1000;
pub const MODULES: usize = 100;
pub const COLUMNS: usize = 10;
pub const SERIES: usize = CUSTOMERS * MODULES * COLUMNS;

/// Collector for which the tables are committed, in place of the tables of its first shape.
const JOBS: CollectorId = CollectorId::JOBS;

pub struct Row {
    pub module: String,
    pub values: [f64; COLUMNS],
}

macro_rules! column {
    ($n:literal) => {
        Column {
            metric: Metric::gauge("elements_dense", "Test value"),
            value: |row: &Row| Some(row.values[$n]),
        }
    };
}

const SHAPE: Shape<Row> = Shape {
    labels: &[
        Label {
            name: "service",
            value: |_| Some(SERVICE),
        },
        Label {
            name: "module",
            value: |row| Some(&row.module),
        },
    ],
    columns: &[
        column!(0),
        column!(1),
        column!(2),
        column!(3),
        column!(4),
        column!(5),
        column!(6),
        column!(7),
        column!(8),
        column!(9),
    ],
};

pub const SERVICE: &str = "Microsoft 365";

/// Returns the metrics of the columns: the first metrics of the collector `jobs`.
pub fn metrics() -> Vec<Metric> {
    let shapes = JOBS.descriptor().metrics();
    shapes[0].iter().take(COLUMNS).map(|(metric, _)| *metric).collect()
}

pub fn customer_id(customer: usize) -> String {
    format!("{customer:08x}-7d1b-4c1e-9a64-5b1f0e2d3c4a")
}

/// Returns rows with realistic values: times, sizes, counts, and durations with fractions of a second.
pub fn rows(customer: usize) -> Vec<Row> {
    let mut rng = fastrand::Rng::with_seed(customer as u64);
    let row = |module| {
        let integer = |range: std::ops::Range<u64>, rng: &mut fastrand::Rng| rng.u64(range) as f64;
        let mut values = [0.0; COLUMNS];
        for (n, value) in values.iter_mut().enumerate() {
            *value = match n {
                0 => integer(0..16, &mut rng),
                1..=3 => integer(1_700_000_000..1_800_000_000, &mut rng),
                4 => integer(1..360_000, &mut rng) / 10.0,
                5 => integer(0..1 << 44, &mut rng),
                _ => integer(0..1_000_000, &mut rng),
            };
        }
        Row {
            module: format!("Exchange Online mailbox {module:02}"),
            values,
        }
    };
    (0..MODULES).map(row).collect()
}

pub fn table(customer: usize) -> Table {
    SHAPE.table(&customer_id(customer), &rows(customer)).table
}

pub fn scrape(store: &Arc<Store>) -> Scrape {
    Scrape::new(Arc::clone(store), Arc::new(Health::new()), Arc::default())
}

/// Returns a store with the tables of all customers.
pub fn store() -> Arc<Store> {
    let hour = Duration::from_secs(3600);
    let plan = Plan {
        enabled: true,
        interval: hour,
        stale_after: 3 * hour,
    };
    let store = Arc::new(Store::new(&PerCollector::from_fn(|_| plan), None));
    let ids = (0..CUSTOMERS).filter_map(|customer| CustomerId::parse(&customer_id(customer)));
    let listed: BTreeMap<_, Arc<str>> = ids.map(|id| (id, Arc::from("Contoso"))).collect();
    store.reconcile(&listed, true).1.unwrap();
    (0..CUSTOMERS).for_each(|customer| publish(&store, customer));
    store
}

pub fn publish(store: &Store, customer: usize) {
    publish_rows(store, customer, &rows(customer));
}

/// Commits a customer with values that differ for every `change`.
pub fn publish_changed(store: &Store, customer: usize, change: usize) {
    let mut rows = rows(customer);
    for row in &mut rows {
        row.values.iter_mut().for_each(|value| *value += (1 + change) as f64);
    }
    publish_rows(store, customer, &rows);
}

fn publish_rows(store: &Store, customer: usize, rows: &[Row]) {
    let record = RenderedRecord {
        record: Arc::new(()),
        tables: Arc::new([SHAPE.table(&customer_id(customer), rows).table]),
        held: Arc::new([]),
        health: None,
    };
    let id = CustomerId::parse(&customer_id(customer)).unwrap();
    let target = Target::Customer(id.clone());
    store.add_target(JOBS, &target);
    let now = Timestamp::from(SystemTime::now());
    store
        .commit(JOBS, &target, BTreeMap::from([(id, record)]), true, now)
        .unwrap();
}
