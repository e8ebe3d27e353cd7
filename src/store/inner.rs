//! The store's contents, and the operations that change them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::collected::{CollectorData, StoredRecord};
use super::cow_map::CowMap;
use super::freshness::{Attempt, COLLECTOR_LAST_SUCCESS, COLLECTOR_SUCCESS, FreshnessMetrics};
use super::{OverLimit, Reconciled, Shrunk};
use crate::collector::{CollectorId, CollectorSettings, Context, PerCollector, Plan, RenderedRecord, Target};
use crate::domain::{AttributeTable, Attributes, CustomerId, Timestamp};
use crate::exposition::ExcludedMetrics;

/// Maximum fraction of the known customers that may be missing from a list. If more are missing, the list is probably
/// wrong.
const MAX_MISSING_FRACTION: f64 = 0.1;

/// Minimum number of missing customers to which the fraction applies. A partner with few customers may lose one or two.
const MIN_MISSING: usize = 3;

/// A known customer.
#[derive(Clone, Debug)]
pub(super) struct StoredCustomer {
    pub(super) organization: Arc<str>,
    /// Attributes of the customer; `None` if no row in the attributes file matches.
    pub(super) attributes: Option<Arc<Attributes>>,
}

impl StoredCustomer {
    pub(super) fn new(id: &CustomerId, organization: Arc<str>, table: Option<&AttributeTable>) -> Self {
        let attributes = table.and_then(|table| table.of(id, &organization)).map(Arc::clone);
        Self {
            organization,
            attributes,
        }
    }
}

/// Contents of the store. A copy shares the blocks of the maps with the original, so copying is cheap.
#[derive(Clone, Debug)]
pub(super) struct Inner {
    pub(super) customers: CowMap<CustomerId, StoredCustomer>,
    /// Last known names of listed customers that the filters exclude, so that the filters also work if a list contains
    /// no names.
    pub(super) excluded_names: Arc<BTreeMap<CustomerId, Arc<str>>>,
    /// Customers that were missing from the last complete list and have not been listed since. They are removed if they
    /// are also missing from the next complete list.
    pub(super) absent_once: Arc<BTreeSet<CustomerId>>,
    pub(super) collected: PerCollector<CollectorData>,
    pub(super) excluded: Arc<ExcludedMetrics>,
    /// Table of customer attributes; `None` if there is no attributes file.
    pub(super) attributes: Option<Arc<AttributeTable>>,
    pub(super) series: usize,
    pub(super) series_limit: Option<usize>,
    pub(super) restored: bool,
    /// Number of changes to the set of customers.
    pub(super) membership: u64,
    /// Number of changes that can affect a snapshot. A cache of derived data is outdated if the number has changed
    /// since the cache was filled.
    pub(super) version: u64,
}

impl Inner {
    /// See [`Store::reconfigure`](super::Store::reconfigure).
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
                self.series -= collected.records.values().map(StoredRecord::samples).sum::<usize>();
                collected.records.clear();
                collected.freshness.clear();
            }
        }
        let ids: Vec<CustomerId> = self.customers.keys().cloned().collect();
        self.render_anew(&ids, settings, now);
    }

    /// Renders all records of the given customers with their current names.
    pub(super) fn render_anew(&mut self, ids: &[CustomerId], settings: &Arc<CollectorSettings>, now: Timestamp) {
        for (collector, collected) in self.collected.iter_mut() {
            for id in ids {
                if let Some(stored) = collected.records.get_mut(id) {
                    self.series -= stored.samples();
                    let context = context_of(&self.customers, id, settings, now);
                    stored.render_anew(collector.descriptor(), id, &context);
                    self.series += stored.samples();
                }
            }
        }
        self.version += 1;
    }

    /// Stores a record. After a change of the API version, the customer list and the subscriptions both contain the
    /// tenants until the next polls. In that case, the tenants are removed from the subscriptions, so that no series
    /// occurs twice.
    pub(super) fn insert(&mut self, collector: CollectorId, id: &CustomerId, stored: StoredRecord) {
        self.replace(collector, id, stored);
        let record_of = |collector| self.collected.get(collector).records.get(id);
        if let Some(customer) = record_of(CollectorId::CUSTOMERS)
            && let Some(licence) = record_of(CollectorId::LICENSES)
            && let Some(rendered) = licence.rendered.without_tenants_of(&customer.rendered)
        {
            let licence = StoredRecord { rendered, ..*licence };
            self.replace(CollectorId::LICENSES, id, licence);
        }
    }

    fn replace(&mut self, collector: CollectorId, id: &CustomerId, stored: StoredRecord) {
        self.series += stored.samples();
        let before = self.collected.get_mut(collector).records.insert(id.clone(), stored);
        self.series -= before.map_or(0, |before| before.samples());
    }

    /// See [`Store::set_attributes`](super::Store::set_attributes).
    pub(super) fn set_attributes(&mut self, table: Option<&Arc<AttributeTable>>) {
        self.attributes = table.map(Arc::clone);
        for (id, known) in self.customers.iter_mut() {
            *known = StoredCustomer::new(id, Arc::clone(&known.organization), table.map(Arc::as_ref));
        }
    }

    /// See [`Store::exclude`](super::Store::exclude).
    pub(super) fn exclude(&mut self, excluded: &ExcludedMetrics) {
        if *self.excluded == *excluded {
            return;
        }
        self.excluded = Arc::new(excluded.clone());
        let shown_metrics = FreshnessMetrics {
            success: !excluded.contains(&COLLECTOR_SUCCESS),
            last_success: !excluded.contains(&COLLECTOR_LAST_SUCCESS),
        };
        for collected in self.collected.values_mut() {
            collected.shown_metrics = shown_metrics;
            collected.render_freshness(Timestamp::MAX);
        }
        self.version += 1;
    }

    /// See [`Store::commit`](super::Store::commit).
    pub(super) fn commit(
        &mut self,
        collector: CollectorId,
        target: &Target,
        mut records: BTreeMap<CustomerId, RenderedRecord>,
        complete: bool,
        now: Timestamp,
    ) -> Result<(), OverLimit> {
        let collected = self.collected.get(collector);
        if !collected.has_target(target) {
            return Ok(());
        }
        records.retain(|id, _| self.customers.contains_key(id));
        let missing: Vec<CustomerId> = match target {
            _ if !complete => Vec::new(),
            Target::Customer(id) if !records.contains_key(id) => vec![id.clone()],
            Target::Customer(_) => Vec::new(),
            // `reconcile` removes a customer that is missing from two consecutive complete lists. Until then, the
            // customer's record stays.
            Target::Partner if collector == CollectorId::CUSTOMERS => Vec::new(),
            Target::Partner => {
                let known = collected.records.keys();
                known.filter(|id| !records.contains_key(*id)).cloned().collect()
            }
        };
        let removes_after_two_lists = complete && *target == Target::Partner && collector.descriptor().is_optional;
        let (removed, absent): (Vec<CustomerId>, Vec<CustomerId>) = missing
            .into_iter()
            .partition(|id| !removes_after_two_lists || collected.absent_once.contains(id));
        let added: usize = records.values().map(RenderedRecord::samples).sum();
        let replaced = removed.iter().chain(records.keys());
        let dropped: usize = replaced
            .filter_map(|id| collected.records.get(id))
            .map(StoredRecord::samples)
            .sum();
        let series = self.total_series() - dropped + added;
        let collected = self.collected.get_mut(collector);
        if added > dropped && self.series_limit.is_some_and(|limit| series > limit) {
            collected.record_attempt(target, Attempt::Failed, None);
            self.version += 1;
            return Err(OverLimit {
                series: added - dropped,
            });
        }
        for id in &removed {
            self.series -= collected.records.remove(id).map_or(0, |stored| stored.samples());
        }
        if removes_after_two_lists {
            collected.absent_once = Arc::new(absent.into_iter().collect());
        }
        match complete {
            true => collected.record_attempt(target, Attempt::Succeeded, Some(now)),
            false => collected.record_attempt(target, Attempt::Failed, None),
        }
        for (id, rendered) in records {
            // Held rows may come from several polls. Their age counts from the last poll that left no row held.
            let before = self.collected.get(collector).records.get(&id);
            let held_at = before.map_or(now, |stored| match stored.rendered.held.is_empty() {
                true => stored.good_at,
                false => stored.held_at,
            });
            let stored = StoredRecord {
                rendered,
                good_at: now,
                held_at,
            };
            self.insert(collector, &id, stored);
        }
        self.version += 1;
        Ok(())
    }

    /// See [`Store::series`](super::Store::series).
    pub(super) fn total_series(&self) -> usize {
        self.series
            + self
                .collected
                .values()
                .map(CollectorData::freshness_series)
                .sum::<usize>()
    }

    /// See [`Store::reconcile`](super::Store::reconcile).
    pub(super) fn reconcile(
        &mut self,
        listed: &BTreeMap<CustomerId, Arc<str>>,
        complete: bool,
    ) -> (Reconciled, Result<(), Shrunk>) {
        let mut reconciled = Reconciled::default();
        for (id, organization) in listed {
            self.clear_absence(id);
            if self.excluded_names.contains_key(id) {
                Arc::make_mut(&mut self.excluded_names).remove(id);
            }
            let before = self.customers.get(id);
            if before.is_some_and(|before| before.organization == *organization) {
                continue;
            }
            let known = StoredCustomer::new(id, Arc::clone(organization), self.attributes.as_deref());
            match self.customers.insert(id.clone(), known) {
                None => {
                    reconciled.added.push(id.clone());
                    self.membership += 1;
                }
                Some(_) => reconciled.renamed.push(id.clone()),
            }
        }
        self.version += 1;
        if !complete {
            return (reconciled, Ok(()));
        }
        let known = self.customers.len() - reconciled.added.len();
        let missing: Vec<CustomerId> = self
            .customers
            .keys()
            .filter(|id| !listed.contains_key(id))
            .cloned()
            .collect();
        let (removed, missing): (Vec<_>, Vec<_>) = missing.into_iter().partition(|id| self.absent_once.contains(id));
        for id in &removed {
            self.remove_customer(id);
        }
        reconciled.removed = removed;
        self.absent_once = Arc::new(missing.iter().cloned().collect());
        let result = if is_implausible(missing.len(), known) {
            Err(Shrunk {
                missing: missing.len(),
                known,
            })
        } else {
            Ok(())
        };
        (reconciled, result)
    }

    /// Removes a customer from [`Inner::absent_once`]. The set is copied only if it changes.
    pub(super) fn clear_absence(&mut self, id: &CustomerId) {
        if self.absent_once.contains(id) {
            Arc::make_mut(&mut self.absent_once).remove(id);
        }
    }

    /// Removes a customer and all its series.
    pub(super) fn remove_customer(&mut self, id: &CustomerId) {
        self.membership += 1;
        self.customers.remove(id);
        self.clear_absence(id);
        let target = Target::Customer(id.clone());
        for collected in self.collected.values_mut() {
            collected.freshness.remove(&target);
            if let Some(stored) = collected.records.remove(id) {
                self.series -= stored.samples();
            }
        }
    }
}

/// Returns the context for rendering a customer's records.
fn context_of(
    customers: &CowMap<CustomerId, StoredCustomer>,
    id: &CustomerId,
    settings: &Arc<CollectorSettings>,
    now: Timestamp,
) -> Context {
    Context::new(now, Arc::clone(settings), organization(customers, id))
}

pub(super) fn organization(customers: &CowMap<CustomerId, StoredCustomer>, id: &CustomerId) -> Arc<str> {
    customers
        .get(id)
        .map_or_else(|| Arc::from(""), |known| Arc::clone(&known.organization))
}

/// Returns whether so many known customers are missing that the list is probably wrong.
pub(super) fn is_implausible(missing: usize, known: usize) -> bool {
    let all = known > 0 && missing >= known;
    let many = missing >= MIN_MISSING && missing as f64 > known as f64 * MAX_MISSING_FRACTION;
    all || many
}
