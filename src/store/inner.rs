//! Contents of the store, and each change as one step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::collected::{Cell, Collected};
use super::cow_map::CowMap;
use super::freshness::{Attempt, COLLECTOR_LAST_SUCCESS, COLLECTOR_SUCCESS};
use super::{OverLimit, Reconciled, Shrunk};
use crate::collector::{CollectorId, CollectorSettings, Context, PerCollector, Plan, RenderedRecord, Target};
use crate::domain::{AttributeTable, Attributes, CustomerId, Timestamp};
use crate::exposition::ExcludedMetrics;

/// A customer list that lacks more than this fraction of the known customers is not applied immediately.
const SHARP_SHRINK_PART: f64 = 0.1;

/// Fewer missing customers than this are always accepted: of few customers, one or two may leave.
const SHARP_SHRINK_CUSTOMERS: usize = 3;

/// A known customer.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) organization: Arc<str>,
    /// Its attributes; `None` if no row fits.
    pub(super) attributes: Option<Arc<Attributes>>,
}

impl Known {
    pub(super) fn new(id: &CustomerId, organization: Arc<str>, table: Option<&AttributeTable>) -> Self {
        let attributes = table.and_then(|table| table.of(id, &organization)).map(Arc::clone);
        Self {
            organization,
            attributes,
        }
    }
}

/// Contents of the store. Copies share the blocks of its maps and are therefore cheap.
#[derive(Clone, Debug)]
pub(super) struct Inner {
    pub(super) customers: CowMap<CustomerId, Known>,
    /// Last known names of listed customers that the filters exclude, so that a list without names does not admit them.
    pub(super) left_out: Arc<BTreeMap<CustomerId, Arc<str>>>,
    /// Customers that the last complete list lacked. They are removed if the next one lacks them too.
    pub(super) absent_once: Arc<BTreeSet<CustomerId>>,
    pub(super) collected: PerCollector<Collected>,
    pub(super) excluded: Arc<ExcludedMetrics>,
    /// Attributes of customers; `None` without a file of them.
    pub(super) attributes: Option<Arc<AttributeTable>>,
    pub(super) series: usize,
    pub(super) series_limit: Option<usize>,
    pub(super) restored: bool,
    /// Counts changes of the set of customers.
    pub(super) membership: u64,
    /// Counts changes, so that caches of derived data can be invalidated.
    pub(super) generation: u64,
}

impl Inner {
    /// [`Store::reconfigure`](super::Store::reconfigure), as one step.
    pub(super) fn reconfigure(
        &mut self,
        plans: &PerCollector<Plan>,
        series_limit: Option<usize>,
        settings: &Arc<CollectorSettings>,
        now: Timestamp,
    ) {
        self.series_limit = series_limit;
        self.exclude(&settings.excluded);
        self.set_attributes(settings.attributes.as_ref());
        for (collector, collected) in self.collected.iter_mut() {
            collected.plan = *plans.get(collector);
            if !collected.plan.enabled {
                self.series -= collected.cells.values().map(Cell::samples).sum::<usize>();
                collected.cells.clear();
                collected.freshness.clear();
            }
        }
        let ids: Vec<CustomerId> = self.customers.keys().cloned().collect();
        self.render_anew(&ids, settings, now);
    }

    /// Renders all records of some customers with their current names.
    pub(super) fn render_anew(&mut self, ids: &[CustomerId], settings: &Arc<CollectorSettings>, now: Timestamp) {
        for (collector, collected) in self.collected.iter_mut() {
            for id in ids {
                if let Some(cell) = collected.cells.get_mut(id) {
                    self.series -= cell.samples();
                    let context = context_of(&self.customers, id, settings, now);
                    cell.render_anew(collector.descriptor(), id, &context);
                    self.series += cell.samples();
                }
            }
        }
        self.generation += 1;
    }

    /// Stores a new record. After a change of the API generation, the customer list and the subscriptions both contain
    /// the tenants until the next polls. No series may occur twice, so the record of the subscriptions loses them.
    pub(super) fn insert(&mut self, collector: CollectorId, id: &CustomerId, cell: Cell) {
        self.replace(collector, id, cell);
        let cell = |collector| self.collected.get(collector).cells.get(id);
        if let Some(customer) = cell(CollectorId::CUSTOMERS)
            && let Some(licence) = cell(CollectorId::LICENSES)
            && let Some(kept) = licence.kept.without_tenants_of(&customer.kept)
        {
            let licence = Cell { kept, ..*licence };
            self.replace(CollectorId::LICENSES, id, licence);
        }
    }

    fn replace(&mut self, collector: CollectorId, id: &CustomerId, cell: Cell) {
        self.series += cell.samples();
        let before = self.collected.get_mut(collector).cells.insert(id.clone(), cell);
        self.series -= before.map_or(0, |before| before.samples());
    }

    /// [`Store::set_attributes`](super::Store::set_attributes), as one step.
    pub(super) fn set_attributes(&mut self, table: Option<&Arc<AttributeTable>>) {
        self.attributes = table.map(Arc::clone);
        for (id, known) in self.customers.iter_mut() {
            *known = Known::new(id, Arc::clone(&known.organization), table.map(Arc::as_ref));
        }
    }

    /// [`Store::exclude`](super::Store::exclude), as one step.
    pub(super) fn exclude(&mut self, excluded: &ExcludedMetrics) {
        if *self.excluded == *excluded {
            return;
        }
        self.excluded = Arc::new(excluded.clone());
        let shows = [COLLECTOR_SUCCESS, COLLECTOR_LAST_SUCCESS].map(|metric| !excluded.contains(&metric));
        for collected in self.collected.values_mut() {
            collected.shows = shows;
            collected.render_freshness(Timestamp::MAX);
        }
        self.generation += 1;
    }

    /// [`Store::commit`](super::Store::commit), as one step.
    pub(super) fn commit(
        &mut self,
        collector: CollectorId,
        target: &Target,
        mut records: BTreeMap<CustomerId, RenderedRecord>,
        complete: bool,
        now: Timestamp,
    ) -> Result<(), OverLimit> {
        let collected = self.collected.get(collector);
        if !collected.expects(target) {
            return Ok(());
        }
        records.retain(|id, _| self.customers.contains_key(id));
        let missing: Vec<CustomerId> = match target {
            _ if !complete => Vec::new(),
            Target::Customer(id) if !records.contains_key(id) => vec![id.clone()],
            Target::Customer(_) => Vec::new(),
            // `reconcile` removes a customer after two lists; until then its record stays.
            Target::Partner if collector == CollectorId::CUSTOMERS => Vec::new(),
            Target::Partner => {
                let known = collected.cells.keys();
                known.filter(|id| !records.contains_key(*id)).cloned().collect()
            }
        };
        let decides_twice = complete && *target == Target::Partner && collector.descriptor().is_optional;
        let (removed, absent): (Vec<CustomerId>, Vec<CustomerId>) = missing
            .into_iter()
            .partition(|id| !decides_twice || collected.absent_once.contains(id));
        let more: usize = records.values().map(RenderedRecord::samples).sum();
        let replaced = removed.iter().chain(records.keys());
        let less: usize = replaced
            .filter_map(|id| collected.cells.get(id))
            .map(Cell::samples)
            .sum();
        let series = self.all_series() - less + more;
        let collected = self.collected.get_mut(collector);
        if more > less && self.series_limit.is_some_and(|limit| series > limit) {
            collected.note(target, Attempt::Failed, None);
            self.generation += 1;
            return Err(OverLimit { series: more - less });
        }
        for id in &removed {
            self.series -= collected.cells.remove(id).map_or(0, |cell| cell.samples());
        }
        if decides_twice {
            collected.absent_once = Arc::new(absent.into_iter().collect());
        }
        match complete {
            true => collected.note(target, Attempt::Succeeded, Some(now)),
            false => collected.note(target, Attempt::Failed, None),
        }
        for (id, kept) in records {
            // Held rows keep their age when they are held again.
            let before = self.collected.get(collector).cells.get(&id);
            let held_at = before.map_or(now, |cell| match cell.kept.held.is_empty() {
                true => cell.good_at,
                false => cell.held_at,
            });
            let cell = Cell {
                kept,
                good_at: now,
                held_at,
            };
            self.insert(collector, &id, cell);
        }
        self.generation += 1;
        Ok(())
    }

    /// [`Store::series`](super::Store::series).
    pub(super) fn all_series(&self) -> usize {
        self.series + self.collected.values().map(Collected::freshness_series).sum::<usize>()
    }

    /// [`Store::reconcile`](super::Store::reconcile), as one step.
    pub(super) fn reconcile(
        &mut self,
        listed: &BTreeMap<CustomerId, Arc<str>>,
        complete: bool,
    ) -> (Reconciled, Result<(), Shrunk>) {
        let mut reconciled = Reconciled::default();
        for (id, organization) in listed {
            self.clear_absence(id);
            if self.left_out.contains_key(id) {
                Arc::make_mut(&mut self.left_out).remove(id);
            }
            let before = self.customers.get(id);
            if before.is_some_and(|before| before.organization == *organization) {
                continue;
            }
            let known = Known::new(id, Arc::clone(organization), self.attributes.as_deref());
            match self.customers.insert(id.clone(), known) {
                None => {
                    reconciled.joined.push(id.clone());
                    self.membership += 1;
                }
                Some(_) => reconciled.renamed.push(id.clone()),
            }
        }
        self.generation += 1;
        if !complete {
            return (reconciled, Ok(()));
        }
        let known = self.customers.len() - reconciled.joined.len();
        let missing: Vec<CustomerId> = self
            .customers
            .keys()
            .filter(|id| !listed.contains_key(id))
            .cloned()
            .collect();
        let (left, missing): (Vec<_>, Vec<_>) = missing.into_iter().partition(|id| self.absent_once.contains(id));
        for id in &left {
            self.forget(id);
        }
        reconciled.left = left;
        self.absent_once = Arc::new(missing.iter().cloned().collect());
        let result = if is_sharp(missing.len(), known) {
            Err(Shrunk {
                missing: missing.len(),
                known,
            })
        } else {
            Ok(())
        };
        (reconciled, result)
    }

    /// Removes a customer from the missing ones. The set is copied only if it changes.
    pub(super) fn clear_absence(&mut self, id: &CustomerId) {
        if self.absent_once.contains(id) {
            Arc::make_mut(&mut self.absent_once).remove(id);
        }
    }

    /// Removes a customer with all its series.
    pub(super) fn forget(&mut self, id: &CustomerId) {
        self.membership += 1;
        self.customers.remove(id);
        self.clear_absence(id);
        let target = Target::Customer(id.clone());
        for collected in self.collected.values_mut() {
            collected.freshness.remove(&target);
            if let Some(cell) = collected.cells.remove(id) {
                self.series -= cell.samples();
            }
        }
    }
}

/// Returns the context for rendering a customer's records.
fn context_of(
    customers: &CowMap<CustomerId, Known>,
    id: &CustomerId,
    settings: &Arc<CollectorSettings>,
    now: Timestamp,
) -> Context {
    Context::new(now, Arc::clone(settings), organization(customers, id))
}

pub(super) fn organization(customers: &CowMap<CustomerId, Known>, id: &CustomerId) -> Arc<str> {
    customers
        .get(id)
        .map_or_else(|| Arc::from(""), |known| Arc::clone(&known.organization))
}

/// Returns whether so many of the known customers are missing that an error is more likely than churn.
pub(super) fn is_sharp(missing: usize, known: usize) -> bool {
    let all = known > 0 && missing >= known;
    let many = missing >= SHARP_SHRINK_CUSTOMERS && missing as f64 > known as f64 * SHARP_SHRINK_PART;
    all || many
}
