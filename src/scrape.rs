//! What a scrape is answered with: a picture of the store, what is read of the exporter at that moment, its counters.

mod shares;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::collector::{self, Customer, Target};
use crate::domain::{CustomerId, Shard, Timestamp};
use crate::exposition::{
    Block, Family, Filter, Format, Group, Metric, Picture, Renderer, Shown, Source, Table, families, frame_capacity,
};
use crate::health::Health;
use crate::schedule::{Pulse, SharedPulse};
use crate::store::{self, Overview, State, Store};
use shares::Shares;

const COLLECTOR: &[&str] = &["collector"];
const COLLECTOR_STATE: &[&str] = &["collector", "state"];

/// The gauges without a label, in the order of [`Scrape::singles`].
const SINGLES: [Metric; 8] = [
    Metric::gauge(
        "elements_up",
        "Whether the newest attempt at a token and at the customer list both succeeded",
    ),
    Metric::gauge(
        "elements_exporter_api_rate_limit",
        "Requests a second that the client now allows itself",
    ),
    Metric::timestamp(
        "elements_exporter_token_expiry_timestamp_seconds",
        "When the first of the tokens in use expires",
    ),
    Metric::timestamp(
        "elements_exporter_credential_expiry_timestamp_seconds",
        "When the certificate ends, or the client secret according to auth.client_secret_expires",
    ),
    Metric::gauge(
        "elements_exporter_series",
        "Series held of the API and of its freshness",
    ),
    Metric::gauge(
        "elements_exporter_config_last_reload_successful",
        "Whether the newest load of the configuration succeeded",
    ),
    Metric::timestamp(
        "elements_exporter_config_last_reload_success_timestamp_seconds",
        "When the configuration was last loaded",
    ),
    Metric::gauge(
        "elements_exporter_state_load_successful",
        "0 where the state file could not be loaded at start; 1 also where there was none",
    ),
];

/// The gauges of each collector, in the order of [`Scrape::of_collectors`].
const OF_COLLECTORS: [Metric; 5] = [
    Metric::gauge(
        "elements_exporter_collector_permitted",
        "Whether the permission that the collector needs is granted; absent before that is known",
    )
    .labels(COLLECTOR),
    Metric::gauge(
        "elements_exporter_collector_interval_seconds",
        "How often the collector polls, as configured",
    )
    .labels(COLLECTOR),
    Metric::gauge(
        "elements_exporter_collector_stale_after_seconds",
        "How long values outlive the last good poll, as configured",
    )
    .labels(COLLECTOR),
    Metric::gauge(
        "elements_exporter_poll_lag_seconds",
        "How late the most overdue poll is",
    )
    .labels(COLLECTOR),
    Metric::gauge(
        "elements_exporter_poll_cycle_seconds",
        "How long the last full round over all customers took; absent before the first",
    )
    .labels(COLLECTOR),
];

const CUSTOMERS: Metric = Metric::gauge(
    "elements_exporter_customers",
    "Customers by how their newest values stand; adds up to the customers known",
)
.labels(COLLECTOR_STATE);

/// What is read of the client at the moment of a scrape.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vitals {
    /// Requests a second that the client allows itself.
    pub rate: f64,
    /// When the first token in use expires.
    pub token_expiry: Option<SystemTime>,
    /// When the credential ends, in seconds since the epoch.
    pub credential_expiry: Option<i64>,
    /// Whether the newest attempt at a token succeeded.
    pub token: Option<bool>,
}

/// How the configuration and the state were loaded.
#[derive(Clone, Copy, Debug)]
pub struct Loaded {
    /// Whether the newest load of the configuration succeeded.
    pub config: bool,
    /// When the configuration in force was loaded.
    pub config_at: Timestamp,
    /// Whether the state file, if any, could be loaded.
    pub state: bool,
}

/// Reads the client's vitals.
pub type ReadVitals = Arc<dyn Fn() -> Vitals + Send + Sync>;

/// What narrows an answer; nothing where nothing is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrowing {
    /// Only these collectors.
    pub collectors: BTreeSet<String>,
    /// Only these customers. The partner stands for what belongs to none.
    pub customers: Option<BTreeSet<Target>>,
    /// Only customers of one of these shares, which are all shares of one number. The first share also has what belongs to
    /// no customer.
    pub shards: Option<BTreeSet<Shard>>,
}

/// The name that stands among collectors for what the exporter says about itself.
const EXPORTER: &str = "exporter";

impl Narrowing {
    /// Whether it leaves everything in.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether what belongs to no customer is left in: what the exporter says about itself, and the freshness of what is
    /// asked for all customers at once.
    fn has_what_is_of_none(&self) -> bool {
        let names_it = |customers: &BTreeSet<Target>| customers.contains(&Target::Partner);
        let has_first = |shards: &BTreeSet<Shard>| shards.iter().any(|shard| shard.is_first());
        self.customers.as_ref().is_none_or(names_it) && self.shards.as_ref().is_none_or(has_first)
    }

    /// Whether what the exporter says about itself is left in.
    fn has_exporter(&self) -> bool {
        let is_asked_for = if self.collectors.is_empty() {
            self.customers.is_none()
        } else {
            self.collectors.contains(EXPORTER)
        };
        is_asked_for && self.has_what_is_of_none()
    }

    /// Whether nothing else is.
    fn is_just_exporter(&self) -> bool {
        let is_no_other = |name: &String| name == EXPORTER || collector::index_of(name).is_none();
        self.collectors.contains(EXPORTER) && self.collectors.iter().all(is_no_other)
    }

    /// Into how many shares the customers have to be divided for the answer.
    pub fn shards_to_divide_into(&self) -> Option<u32> {
        self.shards.as_ref()?.first().map(|shard| shard.of())
    }
}

/// A customer, as service discovery tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownCustomer {
    /// Its id.
    pub id: CustomerId,
    /// The name of its organization.
    pub organization: String,
    /// Its country or region.
    pub country: String,
    /// Who manages it.
    pub management_mode: &'static str,
}

/// Answers scrapes. It never asks the API and never waits for a poll.
pub struct Scrape {
    store: Arc<Store>,
    health: Arc<Health>,
    pulse: SharedPulse,
    vitals: ReadVitals,
    loaded: Mutex<Loaded>,
    shares: Shares,
    /// What is read at the moment of a scrape.
    own: Arc<[Family]>,
    /// What the store holds.
    stored: Arc<[Family]>,
}

impl Scrape {
    /// An answerer over these sources.
    pub fn new(store: Arc<Store>, health: Arc<Health>, pulse: SharedPulse, vitals: ReadVitals, loaded: Loaded) -> Self {
        Self {
            store,
            health,
            pulse,
            vitals,
            loaded: Mutex::new(loaded),
            shares: Shares::default(),
            own: families(own_columns()).into(),
            stored: families(store::columns()).into(),
        }
    }

    /// Notes how the newest load went.
    pub fn note_loaded(&self, note: impl FnOnce(&mut Loaded)) {
        note(&mut self.loaded.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The answer, frame by frame, of one moment.
    pub fn frames(&self, narrowing: &Narrowing, format: Format) -> Frames {
        let margins = self.margins(narrowing, format);
        Frames {
            head: Some(margins.head),
            stored: self.stored(narrowing, format).renderer,
            tail: Some(margins.tail),
        }
    }

    /// What an answer begins and ends with: what the exporter says about itself, which is new at every scrape. An
    /// answer that is narrowed leaves it out.
    pub fn margins(&self, narrowing: &Narrowing, format: Format) -> Margins {
        let mut margins = Margins::default();
        if narrowing.has_exporter() {
            let now = Timestamp::from(SystemTime::now());
            let picture = Picture {
                groups: vec![Group {
                    blocks: vec![Arc::new(self.own_tables(now))],
                    stale_after: Duration::MAX,
                }],
                now,
            };
            let mut renderer = Renderer::new(Arc::clone(&self.own), picture, Filter::default(), format);
            while let Some(mut frame) = renderer.next_frame() {
                margins.head.append(&mut frame);
            }
            self.health.write(&mut margins.tail, format);
        }
        if format == Format::OpenMetrics {
            margins.tail.extend_from_slice(b"# EOF\n");
        }
        margins
    }

    /// What an answer has in its middle: what the store holds.
    pub fn stored(&self, narrowing: &Narrowing, format: Format) -> Stored {
        let now = Timestamp::from(SystemTime::now());
        let only = self.only(narrowing);
        let (generation, picture) = self.store.numbered_picture(only.as_ref(), now);
        let groups = (!narrowing.collectors.is_empty() && !narrowing.is_just_exporter()).then(|| {
            let indices = narrowing.collectors.iter().filter_map(|name| collector::index_of(name));
            indices.flat_map(store::groups_of).collect()
        });
        Stored {
            generation,
            valid_until: picture.valid_until(),
            renderer: Renderer::new(Arc::clone(&self.stored), picture, Filter { groups }, format),
        }
    }

    /// How the newest loads went.
    pub fn loaded(&self) -> Loaded {
        *self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is read of the client now.
    pub fn vitals(&self) -> Vitals {
        (self.vitals)()
    }

    /// How the schedule stands.
    pub fn pulse(&self) -> Pulse {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finds out who is in which of so many shares, and keeps it for the scrapes that want to know. With many customers and
    /// shares it takes tenths of a second, and is to be done where nobody waits for it.
    pub fn divide(&self, shards: u32) {
        self.shares.of(shards, &self.store);
    }

    /// Whom is shown something of; `None` where that is everybody.
    fn only(&self, narrowing: &Narrowing) -> Option<BTreeSet<Target>> {
        let of_none = narrowing.has_what_is_of_none().then_some(Target::Partner);
        if narrowing.is_just_exporter() {
            return Some(of_none.into_iter().collect());
        }
        let Some(shards) = &narrowing.shards else {
            return narrowing.customers.clone();
        };
        let divided = narrowing
            .shards_to_divide_into()
            .map(|of| self.shares.of(of, &self.store));
        let shares = shards.iter().filter_map(|shard| divided.as_ref()?.get(*shard));
        let wanted = |target: &&Target| narrowing.customers.as_ref().is_none_or(|only| only.contains(*target));
        Some(shares.flatten().filter(wanted).cloned().chain(of_none).collect())
    }

    /// The customers known, for service discovery.
    pub fn customers(&self) -> Vec<KnownCustomer> {
        let place = collector::index_of(collector::CUSTOMERS).unwrap_or_default();
        let known = self.store.customers_with(place).into_iter().map(|(id, record)| {
            let customer = record
                .as_deref()
                .and_then(|record| record.as_any().downcast_ref::<Customer>());
            KnownCustomer {
                id,
                organization: customer.map_or_else(String::new, |customer| customer.organization.clone()),
                country: customer.map_or_else(String::new, |customer| customer.country().to_owned()),
                management_mode: customer.map_or("", Customer::management_mode),
            }
        });
        known.collect()
    }

    /// A number that changes whenever what the store holds does.
    pub fn generation(&self) -> u64 {
        self.store.generation()
    }

    /// Whether the list of customers and a token could be had at the newest attempt.
    pub fn is_up(&self) -> bool {
        // After a reload there is no attempt at a token yet; what the one before it came to stands, as the list's does.
        self.vitals().token != Some(false) && self.pulse().customers_listed == Some(true)
    }

    fn own_tables(&self, now: Timestamp) -> Own {
        let overviews = self.store.overview(now);
        Own([self.singles(), self.of_collectors(&overviews), customers(&overviews)])
    }

    fn singles(&self) -> Table {
        let vitals = self.vitals();
        let loaded = self.loaded();
        let series = u32::try_from(self.store.series()).ok();
        Table::single(
            &[],
            &[
                Some(f64::from(self.is_up())),
                Some(vitals.rate),
                vitals.token_expiry.map(|at| Timestamp::from(at).as_unix_seconds()),
                vitals
                    .credential_expiry
                    .map(|at| Timestamp::from_unix_seconds(at).as_unix_seconds()),
                series.map(f64::from),
                Some(f64::from(loaded.config)),
                Some(loaded.config_at.as_unix_seconds()),
                Some(f64::from(loaded.state)),
            ],
        )
    }

    fn of_collectors(&self, overviews: &[Overview]) -> Table {
        let pulse = self.pulse();
        let rows = overviews.iter().map(|overview| {
            let place = collector::index_of(overview.name);
            let lag = place.and_then(|place| pulse.lag.get(place));
            let cycle = place.and_then(|place| pulse.cycle.get(place).copied().flatten());
            let values = vec![
                overview.permitted.map(f64::from),
                Some(overview.plan.interval.as_secs_f64()),
                Some(overview.plan.stale_after.as_secs_f64()),
                lag.map(Duration::as_secs_f64),
                cycle.map(|cycle| cycle.as_secs_f64()),
            ];
            (vec![("collector", overview.name)], values)
        });
        Table::of(OF_COLLECTORS.len(), rows)
    }
}

/// Customers by collector and state.
fn customers(overviews: &[Overview]) -> Table {
    let rows = overviews.iter().flat_map(|overview| {
        State::ALL.map(|state| {
            let customers = overview.customers.get(&state).copied().unwrap_or_default();
            let value = u32::try_from(customers).ok().map(f64::from);
            (
                vec![("collector", overview.name), ("state", state.label())],
                vec![value],
            )
        })
    });
    Table::of(1, rows)
}

/// What is read at the moment of a scrape, one table per shape.
#[derive(Debug)]
struct Own([Table; 3]);

impl Block for Own {
    fn shown(&self, position: usize) -> Option<Shown<'_>> {
        (position == 0).then_some(Shown {
            tables: &self.0,
            good_at: None,
        })
    }
}

/// Where the metrics that are read at scrape time stand in their picture.
fn own_columns() -> Vec<(Metric, Source)> {
    let group = 0;
    let shapes: [&[Metric]; 3] = [&SINGLES, &OF_COLLECTORS, &[CUSTOMERS]];
    let mut columns = Vec::new();
    for (shape, metrics) in shapes.into_iter().enumerate() {
        for (column, metric) in metrics.iter().enumerate() {
            columns.push((*metric, Source { group, shape, column }));
        }
    }
    columns
}

/// The metrics that are read at scrape time, for the catalogue.
pub fn metrics() -> impl Iterator<Item = Metric> {
    SINGLES.into_iter().chain(OF_COLLECTORS).chain([CUSTOMERS])
}

/// What an answer begins and ends with.
#[derive(Clone, Debug, Default)]
pub struct Margins {
    /// Before what the store holds.
    pub head: Vec<u8>,
    /// After it.
    pub tail: Vec<u8>,
}

/// What an answer has between its margins.
pub struct Stored {
    /// Which generation of the store it is of.
    pub generation: u64,
    /// Until when the same generation makes the same text; `None` for as long as it is the newest.
    pub valid_until: Option<Timestamp>,
    renderer: Renderer,
}

impl Stored {
    /// Fills `text`, which is empty, with the next frame; it stays empty after the last one.
    pub fn fill(&mut self, text: &mut Vec<u8>) {
        self.renderer.append_frame(text);
    }
}

/// An answer, frame by frame.
pub struct Frames {
    head: Option<Vec<u8>>,
    stored: Renderer,
    tail: Option<Vec<u8>>,
}

impl Frames {
    /// Fills `text`, which is empty, with the next frame; it stays empty after the last one.
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
