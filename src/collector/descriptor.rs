//! Collector descriptors, which erase the types of targets and records.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use super::{
    Collector, CollectorId, CollectorSettings, Context, PollOutput, PollTarget, Price, Record, RecordSource,
    RenderedRecord, Target, TargetKind,
};
use crate::api::{Api, Endpoint, Error, Failure, Generation};
use crate::domain::{CustomerId, HealthSummary, ModuleHealth, TenantId, Timestamp};
use crate::exposition::{CustomerTables, ShapeMetrics};

pub(super) type PollFuture = Pin<Box<dyn Future<Output = Result<PollOutput, Failure>> + Send>>;

/// A row of the table [`ALL`](super::ALL).
#[derive(Clone, Copy)]
pub struct CollectorDescriptor {
    /// Name in the configuration and in labels.
    pub name: &'static str,
    /// Endpoint reported for failures that were not caused by a request.
    pub endpoint: Endpoint,
    /// See [`Collector::ENDPOINTS`].
    pub endpoints: &'static [Endpoint],
    /// Default interval.
    pub interval: Duration,
    /// Kind of the collector's targets.
    pub target_kind: TargetKind,
    /// Whether a changed customer status triggers a poll.
    pub polls_on_status_change: bool,
    /// See [`Collector::IS_OPTIONAL`].
    pub is_optional: bool,
    /// Estimated cost of polling one target.
    pub price: Price,
    // These are functions, because ids are computed from the table of descriptors.
    items_from: fn() -> Option<CollectorId>,
    after: fn() -> Option<CollectorId>,
    scope_v1: &'static str,
    scope_v3: &'static str,
    pub(super) poll: fn(CollectorId, Api, Target, Arc<dyn RecordSource>, Context) -> PollFuture,
    metrics: fn() -> Vec<ShapeMetrics>,
    parse: fn(&RawValue) -> Option<Arc<dyn Record>>,
    render: Render,
    /// See [`Collector::polls_alike`].
    pub polls_alike: fn(&CollectorSettings, &CollectorSettings) -> bool,
    modules: Modules,
    is_quiet: fn(&dyn Record) -> bool,
    lists_other_items: fn(&dyn Record, &dyn Record) -> bool,
    without_tenants: WithoutTenants,
}

type Render = fn(Arc<dyn Record>, &CustomerId, &Context) -> Option<(RenderedRecord, u64)>;
type WithoutTenants = fn(&dyn Record, &BTreeSet<TenantId>) -> Option<Arc<dyn Record>>;
type Modules = fn(&dyn Record, &CustomerId, &Context) -> Vec<ModuleHealth>;

impl CollectorDescriptor {
    pub(super) const fn of<C: Collector>() -> Self {
        Self {
            name: C::NAME,
            endpoint: C::ENDPOINT,
            endpoints: C::ENDPOINTS,
            interval: C::INTERVAL,
            target_kind: C::Target::KIND,
            polls_on_status_change: C::POLLS_ON_STATUS_CHANGE,
            items_from: || C::ITEMS_FROM,
            after: || C::AFTER,
            is_optional: C::IS_OPTIONAL,
            price: C::PRICE,
            scope_v1: C::SCOPE_V1,
            scope_v3: C::SCOPE_V3,
            poll: |own, api, target, source, context| Box::pin(poll::<C>(own, api, target, source, context)),
            metrics: metrics::<C>,
            parse: |json| {
                let record: C::Record = serde_json::from_str(json.get()).ok()?;
                Some(Arc::new(record))
            },
            render: render::<C>,
            polls_alike: C::polls_alike,
            modules: |record, customer, context| {
                typed::<C>(record).map_or_else(Vec::new, |record| C::modules(record, customer, context))
            },
            is_quiet: |record| typed::<C>(record).is_some_and(C::is_quiet),
            lists_other_items: |record, previous| {
                typed::<C>(record)
                    .zip(typed::<C>(previous))
                    .is_some_and(|(record, previous)| C::lists_other_items(record, previous))
            },
            without_tenants: |record, removed| Some(Arc::new(C::without_tenants(typed::<C>(record)?, removed)?)),
        }
    }

    /// Returns the permission required in an API version; `None` if the collector does not support that version.
    pub fn scope(&self, generation: Generation) -> Option<&'static str> {
        match generation {
            Generation::V1 if self.is_optional => None,
            Generation::V1 => Some(self.scope_v1),
            Generation::V3 => Some(self.scope_v3),
        }
    }

    /// See [`Collector::ITEMS_FROM`].
    pub fn items_from(&self) -> Option<CollectorId> {
        (self.items_from)()
    }

    /// See [`Collector::AFTER`].
    pub fn after(&self) -> Option<CollectorId> {
        (self.after)()
    }

    /// Returns whether an error means that the target lacks the service that the collector polls.
    pub fn is_unlicensed(&self, error: &Error) -> bool {
        self.is_optional && error.is_missing_service()
    }

    /// Returns the collector's metrics, grouped by shape.
    pub fn metrics(&self) -> Vec<ShapeMetrics> {
        (self.metrics)()
    }

    /// Parses and renders a record from the state file. Returns `None` if the record cannot be parsed, for example
    /// because an upgrade has changed its format.
    pub fn restore(&self, json: &RawValue, customer: &CustomerId, context: &Context) -> Option<RenderedRecord> {
        let (rendered, _) = self.render((self.parse)(json)?, customer, context)?;
        Some(rendered)
    }

    /// Returns whether no run is in progress. If so, the next poll is less urgent.
    pub fn is_quiet(&self, record: &dyn Record) -> bool {
        (self.is_quiet)(record)
    }

    /// See [`Collector::lists_other_items`].
    pub fn lists_other_items(&self, record: &dyn Record, previous: &dyn Record) -> bool {
        (self.lists_other_items)(record, previous)
    }

    /// Returns the record without the removed tenants; `None` if it contains none of them.
    pub fn without_tenants(&self, record: &dyn Record, removed: &BTreeSet<TenantId>) -> Option<Arc<dyn Record>> {
        (self.without_tenants)(record, removed)
    }

    /// Renders a record. Also returns the number of rows that were dropped because an earlier row has the same labels.
    /// Returns `None` for another collector's record.
    pub fn render(
        &self,
        record: Arc<dyn Record>,
        customer: &CustomerId,
        context: &Context,
    ) -> Option<(RenderedRecord, u64)> {
        (self.render)(record, customer, context)
    }

    /// Renders the records of a poll. See [`CollectorDescriptor::render`].
    pub fn render_all(
        &self,
        records: BTreeMap<CustomerId, Arc<dyn Record>>,
        context_of: impl Fn(&CustomerId) -> Context,
    ) -> (BTreeMap<CustomerId, RenderedRecord>, u64) {
        let mut duplicates = 0;
        let mut rendered = BTreeMap::new();
        for (id, record) in records {
            if let Some((record, dropped)) = self.render(record, &id, &context_of(&id)) {
                duplicates += dropped;
                rendered.insert(id, record);
            }
        }
        (rendered, duplicates)
    }

    /// Returns the health of the modules in a record.
    pub fn modules(&self, record: &dyn Record, customer: &CustomerId, context: &Context) -> Vec<ModuleHealth> {
        (self.modules)(record, customer, context)
    }
}

impl fmt::Debug for CollectorDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectorDescriptor")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

async fn poll<C: Collector>(
    own: CollectorId,
    api: Api,
    target: Target,
    source: Arc<dyn RecordSource>,
    mut context: Context,
) -> Result<PollOutput, Failure> {
    if C::IS_OPTIONAL {
        api.v3(C::ENDPOINT, C::SCOPE_V3)?;
    }
    context.records = Some(Arc::clone(&source));
    let before = match &target {
        Target::Customer(id) => source.record(own, id),
        Target::Partner => None,
    };
    let Some(target) = C::Target::from_target(&target) else {
        unreachable!("{} has targets of another kind", C::NAME);
    };
    let before = before.as_deref().and_then(typed::<C>);
    let output = C::poll(&api, &target, before, &context).await?;
    let mut records: BTreeMap<CustomerId, Arc<dyn Record>> = BTreeMap::new();
    for (id, record) in output.records {
        let id = source.canonical_id(id);
        let known = source.record(own, &id);
        let known = known.as_deref().and_then(typed::<C>);
        let mut record = match known.filter(|_| output.incomplete.is_some()) {
            Some(known) => C::complete(known, record),
            None => record,
        };
        C::finish(&mut record, known, &source.organization(&id));
        records.insert(id, Arc::new(record));
    }
    Ok(PollOutput {
        records,
        incomplete: output.incomplete,
        ended: output.ended,
    })
}

/// Downcasts a record to the collector's type; returns `None` for another collector's record.
fn typed<C: Collector>(record: &dyn Record) -> Option<&C::Record> {
    record.as_any().downcast_ref()
}

fn render<C: Collector>(
    record: Arc<dyn Record>,
    customer: &CustomerId,
    context: &Context,
) -> Option<(RenderedRecord, u64)> {
    let typed_record = typed::<C>(record.as_ref())?;
    let tables_of = |record: &C::Record| {
        let mut tables = CustomerTables::new(customer.as_str(), &context.settings.excluded);
        C::tables(record, customer, context, &mut tables);
        debug_assert_eq!(
            tables.tables.len(),
            metrics::<C>().len(),
            "{} has other shapes",
            C::NAME
        );
        (tables.tables, tables.duplicates)
    };
    let (tables, held, duplicates) = match C::split(typed_record) {
        None => {
            let (tables, duplicates) = tables_of(typed_record);
            (tables, Vec::new(), duplicates)
        }
        Some((fresh, held)) => {
            let (tables, fresh_duplicates) = tables_of(&fresh);
            let (held, held_duplicates) = tables_of(&held);
            (tables, held, fresh_duplicates + held_duplicates)
        }
    };
    let health = summary_of(&C::modules(typed_record, customer, context));
    let rendered = RenderedRecord {
        tables: tables.into(),
        held: held.into(),
        health,
        record,
    };
    Some((rendered, duplicates))
}

/// Returns the metrics of each shape, in the order of the tables. Every record has the same shapes.
fn metrics<C: Collector>() -> Vec<ShapeMetrics> {
    let Some(customer) = CustomerId::parse("none") else {
        unreachable!("this is a valid id");
    };
    let context = Context::new(Timestamp::from_unix_seconds(0), Arc::default(), Arc::from(""));
    let mut shapes: Vec<ShapeMetrics> = Vec::new();
    C::tables(&C::Record::default(), &customer, &context, &mut shapes);
    shapes
}

fn summary_of(modules: &[ModuleHealth]) -> Option<Arc<HealthSummary>> {
    (!modules.is_empty()).then(|| Arc::new(HealthSummary::of(modules)))
}
