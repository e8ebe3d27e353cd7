//! The store: the latest record of every collector and customer, and the freshness of every target.
//!
//! Outcomes of polls affect whole records: [`Store::commit`] replaces them, and [`Store::mark_failed`] keeps them but
//! marks their target as failed. A scrape takes a [`Snapshot`] that shares the records, so the lock is held only
//! briefly. Expired values are omitted when a snapshot is rendered, so no cleanup is needed.

mod collected;
mod columns;
mod cow_map;
mod freshness;
mod inner;
mod run_events;
mod state;
pub mod state_file;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use crate::collector::{
    CollectorId, CollectorSettings, PerCollector, Plan, Record, RecordSource, RenderedRecord, Target,
};
use crate::domain::{AttributeTable, CustomerFilter, CustomerId, Timestamp};
use crate::exposition::{ExcludedMetrics, Group, Snapshot};
use crate::lock::lock;
use collected::{CollectorData, StoredRecord};
use cow_map::CowMap;
use freshness::Attempt;
use inner::{Inner, organization};

pub use columns::{columns, groups_of};
pub use freshness::{COLLECTOR_LAST_SUCCESS, COLLECTOR_SUCCESS, LastError, State};
pub use run_events::{RunEvent, RunEvents};
pub use status::{CollectorSnapshot, Overview, PollStatus, StatusSnapshot};

/// The store. Its lock is held only briefly, and never across an await point.
#[derive(Debug)]
pub struct Store {
    inner: Mutex<Inner>,
    run_events: RunEvents,
}

/// Changes that result from a new customer list.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// New customers.
    pub added: Vec<CustomerId>,
    /// Removed customers. Their data is dropped.
    pub removed: Vec<CustomerId>,
    /// Customers whose organization was renamed.
    pub renamed: Vec<CustomerId>,
}

/// Error for a list from which so many known customers are missing that it is probably wrong. The customers are removed
/// if they are also missing from the next list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{missing} of {known} customers are missing from the list; they are removed if the next list lacks them too")]
pub struct Shrunk {
    /// Number of known customers that are missing.
    pub missing: usize,
    /// Number of known customers.
    pub known: usize,
}

/// Error for records that were rejected because they would exceed the series limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverLimit {
    /// Number of series that the rejected records would have added.
    pub series: usize,
}

impl Store {
    /// Returns an empty store for collectors with these schedules.
    pub fn new(plans: &PerCollector<Plan>, series_limit: Option<usize>) -> Self {
        let collected = PerCollector::from_fn(|collector| CollectorData::new(collector, *plans.get(collector)));
        let inner = Inner {
            customers: CowMap::default(),
            excluded_names: Arc::default(),
            absent_once: Arc::default(),
            collected,
            excluded: Arc::default(),
            attributes: None,
            series: 0,
            series_limit,
            restored: false,
            membership: 0,
            version: 0,
        };
        Self {
            inner: Mutex::new(inner),
            run_events: RunEvents::default(),
        }
    }

    /// Applies new schedules and limits, for example after a reload, and renders every record with the new settings.
    pub fn reconfigure(
        &self,
        plans: &PerCollector<Plan>,
        series_limit: Option<usize>,
        settings: &Arc<CollectorSettings>,
        now: Timestamp,
    ) {
        self.update_copy(|inner| inner.reconfigure(plans, series_limit, settings, now));
    }

    /// Renders all records of the given customers again, for example after the customers were renamed.
    pub fn render_anew(&self, ids: &[CustomerId], settings: &Arc<CollectorSettings>, now: Timestamp) {
        if !ids.is_empty() {
            self.update_copy(|inner| inner.render_anew(ids, settings, now));
        }
    }

    /// Excludes metrics. Records must already have been rendered without them.
    pub fn exclude(&self, excluded: &ExcludedMetrics) {
        lock(&self.inner).exclude(excluded);
    }

    /// Returns the excluded metrics.
    pub fn excluded(&self) -> Arc<ExcludedMetrics> {
        Arc::clone(&lock(&self.inner).excluded)
    }

    /// Assigns attributes to customers. Records must already have been rendered with the attributes.
    pub fn set_attributes(&self, table: Option<&Arc<AttributeTable>>) {
        lock(&self.inner).set_attributes(table);
    }

    /// Adds a target to a collector, so that the target's freshness is exposed immediately.
    pub fn add_target(&self, collector: CollectorId, target: &Target) {
        let mut inner = lock(&self.inner);
        let collected = inner.collected.get_mut(collector);
        if !collected.freshness.contains_key(target) {
            collected.record_attempt(target, Attempt::Pending, None);
            inner.version += 1;
        }
    }

    /// Removes the freshness of targets that a collector no longer polls.
    pub fn retain_targets(&self, collector: CollectorId, keep: impl Fn(&Target) -> bool) {
        let mut inner = lock(&self.inner);
        inner.collected.get_mut(collector).freshness.retain(keep);
        inner.version += 1;
    }

    /// Records whether a collector's permission is granted. Returns the previous value.
    pub fn set_permitted(&self, collector: CollectorId, permitted: bool) -> Option<bool> {
        let mut inner = lock(&self.inner);
        inner.version += 1;
        inner.collected.get_mut(collector).permitted.replace(permitted)
    }

    /// Returns whether a collector's permission is granted, or `None` if unknown.
    pub fn permitted(&self, collector: CollectorId) -> Option<bool> {
        lock(&self.inner).collected.get(collector).permitted
    }

    /// Stores the names of listed customers that the filters exclude. If the list is complete, its names replace all
    /// earlier names.
    pub fn set_excluded_names(&self, names: BTreeMap<CustomerId, Arc<str>>, complete: bool) {
        let mut inner = lock(&self.inner);
        let named = names.into_iter().filter(|(_, name)| !name.is_empty());
        if complete {
            inner.excluded_names = Arc::new(named.collect());
        } else {
            Arc::make_mut(&mut inner.excluded_names).extend(named);
        }
    }

    /// Returns the known customers, each with its record from a collector, if there is one.
    pub fn customers_with(&self, collector: CollectorId) -> Vec<(CustomerId, Option<Arc<dyn Record>>)> {
        let (customers, records) = {
            let inner = lock(&self.inner);
            (inner.customers.clone(), inner.collected.get(collector).records.clone())
        };
        let record_of = |id| {
            records
                .get(id)
                .map(|stored: &StoredRecord| Arc::clone(&stored.rendered.record))
        };
        customers.keys().map(|id| (id.clone(), record_of(id))).collect()
    }

    /// Returns the known customers.
    pub fn customers(&self) -> Vec<CustomerId> {
        self.customers_with_membership().1
    }

    /// Returns the version number of the set of known customers. Changes to the customers' data do not affect it.
    pub fn membership(&self) -> u64 {
        lock(&self.inner).membership
    }

    /// Returns [`Store::membership`] and the known customers.
    pub fn customers_with_membership(&self) -> (u64, Vec<CustomerId>) {
        let inner = lock(&self.inner);
        (inner.membership, inner.customers.keys().cloned().collect())
    }

    /// Returns the time of a target's last successful poll.
    pub fn last_success(&self, collector: CollectorId, target: &Target) -> Option<Timestamp> {
        let inner = lock(&self.inner);
        inner.collected.get(collector).freshness.get(target)?.last_success
    }

    /// Returns whether the latest poll of a target succeeded.
    pub fn succeeded(&self, collector: CollectorId, target: &Target) -> bool {
        let inner = lock(&self.inner);
        let freshness = inner.collected.get(collector).freshness.get(target);
        freshness.is_some_and(|freshness| freshness.attempt == Attempt::Succeeded)
    }

    /// Replaces the records of `target` with the records from a poll at `now`. Records of unknown customers are
    /// dropped. If the response is complete, stored records that are missing from the response are removed. In bulk
    /// polls of an optional collector, a record is removed only after it is missing from two consecutive complete
    /// responses. For the customer list, [`Store::reconcile`] removes the records instead.
    ///
    /// # Errors
    /// Returns [`OverLimit`] if the records would add series and exceed the series limit. In that case, nothing is
    /// replaced, and the poll counts as failed.
    pub fn commit(
        &self,
        collector: CollectorId,
        target: &Target,
        records: BTreeMap<CustomerId, RenderedRecord>,
        complete: bool,
        now: Timestamp,
    ) -> Result<(), OverLimit> {
        match target {
            Target::Customer(_) => lock(&self.inner).commit(collector, target, records, complete, now),
            Target::Partner => {
                self.update_copy(|inner| inner.commit(collector, target, records.clone(), complete, now))
            }
        }
    }

    /// Replaces a customer's record with a part of that record. The record's age does not change.
    pub fn narrow_record(&self, collector: CollectorId, customer: &CustomerId, part: RenderedRecord) {
        let mut inner = lock(&self.inner);
        let Some(stored) = inner.collected.get(collector).records.get(customer) else {
            return;
        };
        let stored = StoredRecord {
            rendered: part,
            ..*stored
        };
        inner.insert(collector, customer, stored);
        inner.version += 1;
    }

    /// Records that a poll failed. Existing data is kept.
    pub fn mark_failed(&self, collector: CollectorId, target: &Target) {
        self.record_attempt(collector, target, Attempt::Failed);
    }

    /// Records that the API denied a poll: status 403 for this target, or a missing permission. Existing data
    /// is kept.
    pub fn mark_forbidden(&self, collector: CollectorId, target: &Target) {
        self.record_attempt(collector, target, Attempt::Forbidden);
    }

    /// Records that a target lacks the service that a collector polls. Existing data is kept until it expires.
    pub fn mark_unlicensed(&self, collector: CollectorId, target: &Target, now: Timestamp) {
        self.record_attempt(collector, target, Attempt::Unlicensed);
        let mut inner = lock(&self.inner);
        if let Some(freshness) = inner.collected.get_mut(collector).freshness.get_mut(target) {
            freshness.unlicensed_at = Some(now);
        }
    }

    /// If the latest poll found that the target lacks the collector's service, returns the time of that poll.
    pub fn unlicensed_at(&self, collector: CollectorId, target: &Target) -> Option<Timestamp> {
        let inner = lock(&self.inner);
        inner.collected.get(collector).freshness.get(target)?.unlicensed_at
    }

    /// Returns whether the store contains unexpired samples of a target.
    pub fn is_known(&self, collector: CollectorId, target: &Target, now: Timestamp) -> bool {
        let inner = lock(&self.inner);
        let collected = inner.collected.get(collector);
        let is_shown =
            |stored: &StoredRecord| stored.samples() > 0 && now <= stored.good_at.plus(collected.plan.stale_after);
        match target {
            Target::Customer(id) => collected.records.get(id).is_some_and(is_shown),
            Target::Partner => collected.records.values().any(is_shown),
        }
    }

    fn record_attempt(&self, collector: CollectorId, target: &Target, attempt: Attempt) {
        let mut inner = lock(&self.inner);
        let collected = inner.collected.get_mut(collector);
        if collected.has_target(target) {
            collected.record_attempt(target, attempt, None);
            inner.version += 1;
        }
    }

    /// Applies a list of customers with their organizations. A customer is removed when it is missing from two
    /// consecutive complete lists.
    ///
    /// # Errors
    /// Returns [`Shrunk`] if too many customers are missing from a complete list for the first time. Customers that are
    /// missing for the second time are still removed.
    pub fn reconcile(
        &self,
        listed: &BTreeMap<CustomerId, Arc<str>>,
        complete: bool,
    ) -> (Reconciled, Result<(), Shrunk>) {
        self.update_copy(|inner| inner.reconcile(listed, complete))
    }

    /// Replaces times of polls after `now` with `now`, for example after the wall clock was set back. The times of
    /// errors do not change.
    pub fn clamp_times(&self, now: Timestamp) {
        let mut inner = lock(&self.inner);
        for collected in inner.collected.values_mut() {
            for (_, stored) in collected.records.iter_mut() {
                stored.good_at = stored.good_at.min(now);
                stored.held_at = stored.held_at.min(now);
            }
            collected.render_freshness(now);
        }
        inner.version += 1;
    }

    /// Removes a customer and all its series.
    pub fn remove_customer(&self, id: &CustomerId) {
        let mut inner = lock(&self.inner);
        inner.remove_customer(id);
        inner.version += 1;
    }

    /// Keeps only customers that the filter admits, for example after a reload. Returns the removed customers.
    pub fn retain_customers(&self, filter: &CustomerFilter) -> Vec<CustomerId> {
        self.update_copy(|inner| {
            let known = inner.customers.iter();
            let removed = known.filter(|(id, known)| !filter.admits(id, &known.organization));
            let removed: BTreeMap<CustomerId, Arc<str>> = removed
                .map(|(id, known)| (id.clone(), Arc::clone(&known.organization)))
                .collect();
            for id in removed.keys() {
                inner.remove_customer(id);
            }
            let named = removed.iter().filter(|(_, name)| !name.is_empty());
            Arc::make_mut(&mut inner.excluded_names).extend(named.map(|(id, name)| (id.clone(), Arc::clone(name))));
            inner.version += 1;
            removed.into_keys().collect()
        })
    }

    /// Returns [`Store::version`] and a snapshot for one scrape, limited to the targets in `only`. [`columns`]
    /// locates the metrics in the snapshot's groups.
    pub fn snapshot(&self, only: Option<&BTreeSet<Target>>, now: Timestamp) -> (u64, Snapshot) {
        let inner = lock(&self.inner);
        let (mut groups, mut freshness_groups) = (Vec::new(), Vec::new());
        for collected in inner.collected.values() {
            let stale_after = collected.plan.stale_after;
            let (record_blocks, freshness_blocks) = collected.blocks(only);
            groups.push(Group {
                blocks: record_blocks,
                stale_after,
            });
            freshness_groups.push(Group {
                blocks: freshness_blocks,
                stale_after,
            });
        }
        groups.append(&mut freshness_groups);
        (inner.version, Snapshot { groups, now })
    }

    /// Returns the number of series, including the freshness series.
    pub fn series(&self) -> usize {
        lock(&self.inner).total_series()
    }

    /// Returns whether the store was restored from a state file.
    pub fn was_restored(&self) -> bool {
        lock(&self.inner).restored
    }

    /// Returns a number that increases with every change that can affect a snapshot.
    pub fn version(&self) -> u64 {
        lock(&self.inner).version
    }

    /// Returns the job runs that are waiting to be logged.
    pub fn run_events(&self) -> &RunEvents {
        &self.run_events
    }

    /// Applies a large change to a copy that then replaces the original, so that no scrape waits for the change. If the
    /// original has changed in the meantime, the change is repeated under the lock. This is rare, because one task
    /// makes almost all changes.
    fn update_copy<R>(&self, update: impl Fn(&mut Inner) -> R) -> R {
        let mut copy = lock(&self.inner).clone();
        let before = copy.version;
        let result = update(&mut copy);
        let mut inner = lock(&self.inner);
        if inner.version != before {
            return update(&mut inner);
        }
        std::mem::swap(&mut *inner, &mut copy);
        drop(inner);
        result
    }
}

impl RecordSource for Store {
    fn record(&self, collector: CollectorId, customer: &CustomerId) -> Option<Arc<dyn Record>> {
        let inner = lock(&self.inner);
        let stored = inner.collected.get(collector).records.get(customer)?;
        Some(Arc::clone(&stored.rendered.record))
    }

    fn canonical_id(&self, customer: CustomerId) -> CustomerId {
        let inner = lock(&self.inner);
        let known = inner.customers.get_key_value(&customer).map(|(known, _)| known.clone());
        known.unwrap_or(customer)
    }

    fn organization(&self, customer: &CustomerId) -> Arc<str> {
        let inner = lock(&self.inner);
        match inner.excluded_names.get(customer) {
            Some(name) => Arc::clone(name),
            None => organization(&inner.customers, customer),
        }
    }
}

#[cfg(test)]
mod tests;
