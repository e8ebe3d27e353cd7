//! Applies customer lists and single customers to the store and the queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::{info, warn};

use super::queue::{Due, MonotonicTime};
use super::unmatched::listed_names;
use super::{PollError, Scheduler, wall_clock};
use crate::api::{Endpoint, Error};
use crate::collector::{CollectorId, Customer, PollOutput, RecordSource as _, Target, ids};
use crate::domain::{CustomerId, Purpose};

/// Minimum time between two polls of the customer list if the second poll is brought forward, as a multiple of the time
/// that a poll takes. Without this pause, customers whose requests always fail could cause the list to be fetched
/// continuously.
const VERIFICATION_PAUSE: u32 = 10;

/// State of the customer list.
#[derive(Debug, Default)]
pub(super) struct CustomerListState {
    /// Whether the latest poll of the customer list succeeded; `None` before the first.
    pub(super) is_available: Option<bool>,
    /// Customers that have been logged because they have no organization name.
    nameless: BTreeSet<CustomerId>,
    /// Customers for which a poll of the list has been brought forward.
    verified: BTreeSet<CustomerId>,
}

impl CustomerListState {
    /// Logs each customer without a name once, because name patterns cannot match it.
    fn log_nameless(&mut self, nameless: BTreeSet<CustomerId>, is_complete: bool) {
        for id in nameless.difference(&self.nameless) {
            warn!(customer_id = %id.log_safe(), "customer has no organization name; name patterns cannot match it");
        }
        if is_complete {
            self.nameless = nameless;
        } else {
            self.nameless.extend(nameless);
        }
    }

    /// Ends the verification of a customer, so that later failures can bring the poll of the list forward again.
    pub(super) fn end_verification(&mut self, target: &Target) {
        if let Target::Customer(id) = target {
            self.verified.remove(id);
        }
    }
}

impl Scheduler {
    /// Applies a customer list or one customer. Returns false if the customer is excluded by name.
    pub(super) fn apply_customers(&mut self, due: &Due, output: &mut PollOutput) -> Result<bool, PollError> {
        match &due.target {
            Target::Partner => self.apply_list(due, output).map(|()| true),
            Target::Customer(id) => self.apply_customer(due, id, output),
        }
    }

    fn apply_list(&mut self, due: &Due, output: &mut PollOutput) -> Result<(), PollError> {
        let is_complete = output.incomplete.is_none();
        let names = listed_names(output);
        let listed = self.retain_admitted(output, is_complete);
        let changed = self.customers_with_new_status(output);
        let (reconciled, confirmed) = self.store.reconcile(&listed, is_complete);
        self.store
            .render_anew(&reconciled.renamed, &self.config.settings, wall_clock());
        self.signal_changes(changed);
        // Bulk polls precede per-customer polls.
        self.queue_bulk_polls(self.now());
        self.add_customers(reconciled.added);
        if !reconciled.removed.is_empty() {
            info!(
                customers = reconciled.removed.len(),
                "customers removed: absent from two consecutive complete lists"
            );
            self.remove_customers(&reconciled.removed);
        }
        if is_complete {
            self.count_missing_customers(&listed);
        } else if !listed.is_empty() {
            // An incomplete list is a failure, but its data can be served.
            self.health.set_ready();
        }
        if let Err(shrunk) = confirmed {
            self.store.mark_failed(due.collector, &due.target);
            return Err(shrunk.into());
        }
        if is_complete {
            self.patterns.set_listed(names);
            self.check_patterns();
        }
        Ok(())
    }

    fn apply_customer(&mut self, due: &Due, id: &CustomerId, output: &mut PollOutput) -> Result<bool, PollError> {
        let is_listed = output.records.contains_key(id);
        if !is_listed && output.incomplete.is_none() {
            self.store.mark_failed(due.collector, &due.target);
            return Err(PollError::WrongCustomer);
        }
        let listed = self.retain_admitted(output, false);
        if is_listed && listed.is_empty() {
            info!(customer_id = %id.log_safe(), "customer included by id is excluded by name");
            self.store.remove_customer(id);
            self.remove_customers(std::slice::from_ref(id));
            return Ok(false);
        }
        let (reconciled, _) = self.store.reconcile(&listed, false);
        self.store
            .render_anew(&reconciled.renamed, &self.config.settings, wall_clock());
        Ok(true)
    }

    /// Removes a customer's data after consecutive failures, the last of which had status 404. The customer is still
    /// polled, because it is configured and may return.
    pub(super) fn remove_missing(&mut self, due: &Due) {
        let Target::Customer(id) = &due.target else { return };
        let known = self.store.record(CollectorId::CUSTOMERS, id).is_some();
        if due.collector != CollectorId::CUSTOMERS || !known {
            return;
        }
        info!(customer_id = %id.log_safe(), "customer removed: repeated polls failed, the last with status 404");
        self.store.remove_customer(id);
        for collector in ids().filter(|collector| *collector != CollectorId::CUSTOMERS) {
            self.retain_targets(collector, |target| *target != due.target);
        }
        self.store.add_target(CollectorId::CUSTOMERS, &due.target);
    }

    /// Brings the poll of the customer list forward if a customer has probably been removed: repeated polls of the
    /// customer failed, the last with status 404. This happens only once per customer until polls of the customer
    /// succeed again. A second list must confirm the removal one interval later, so that a brief fault does not remove
    /// the customer. If the first list were not brought forward, the customer's data would become stale before the
    /// second list is polled.
    pub(super) fn verify_listed(&mut self, due: &Due) {
        let Target::Customer(id) = &due.target else { return };
        let is_known = || self.store.is_known(due.collector, &due.target, wall_clock());
        if due.collector == CollectorId::CUSTOMERS || self.customer_list.verified.contains(id) || !is_known() {
            return;
        }
        let listed = self.store.last_success(CollectorId::CUSTOMERS, &Target::Partner);
        let age = listed.map(|listed| wall_clock().since(listed));
        let took = self.cycles.get(CollectorId::CUSTOMERS).took();
        if age
            .zip(took)
            .is_some_and(|(age, took)| age >= took * VERIFICATION_PAUSE)
        {
            self.customer_list.verified.insert(id.clone());
            let now = self.now();
            self.queue.bring_forward(CollectorId::CUSTOMERS, &Target::Partner, now);
        }
    }

    /// Counts a failure for each customer that is configured by id but missing from a complete list.
    fn count_missing_customers(&mut self, listed: &BTreeMap<CustomerId, Arc<str>>) {
        for id in &self.config.customer_ids {
            if listed
                .keys()
                .any(|listed| listed.as_str().eq_ignore_ascii_case(id.as_str()))
            {
                continue;
            }
            self.failures.has_any_failed = true;
            self.health
                .poll_failed(Endpoint::Customers, PollError::NotListed.reason());
        }
    }

    /// Removes from `output` the customers that the filters exclude, and returns the others with their organizations.
    fn retain_admitted(&mut self, output: &mut PollOutput, is_complete: bool) -> BTreeMap<CustomerId, Arc<str>> {
        let (mut admitted, mut excluded) = (BTreeMap::new(), BTreeMap::new());
        let mut nameless = BTreeSet::new();
        output.records.retain(|id, record| {
            let customer = Customer::of(record.as_ref());
            let organization: Arc<str> = Arc::from(customer.map_or("", |customer| customer.organization.as_str()));
            // Customers of another shard are polled by another exporter.
            if !self.config.customers.shard.owns(id, Purpose::Poll) {
                return false;
            }
            if organization.is_empty() {
                nameless.insert(id.clone());
            }
            let is_admitted = self.config.customers.admits(id, &organization);
            let customers = if is_admitted { &mut admitted } else { &mut excluded };
            customers.insert(id.clone(), organization);
            is_admitted
        });
        self.store.set_excluded_names(excluded, is_complete);
        self.customer_list.log_nameless(nameless, is_complete);
        admitted
    }

    /// Returns the customers whose status changed since the previous list.
    fn customers_with_new_status(&self, output: &PollOutput) -> Vec<CustomerId> {
        let changed = output.records.iter().filter(|(id, record)| {
            let before = self.store.record(CollectorId::CUSTOMERS, id);
            let before = before.as_deref().and_then(Customer::of);
            let now = Customer::of(record.as_ref());
            before.zip(now).is_some_and(|(before, now)| now.has_new_status(before))
        });
        changed.map(|(id, _)| id.clone()).collect()
    }

    /// Brings forward the polls of customers whose status changed.
    fn signal_changes(&mut self, changed: Vec<CustomerId>) {
        let now = self.now();
        for target in changed.into_iter().map(Target::Customer) {
            for collector in ids().filter(|collector| collector.descriptor().polls_on_status_change) {
                self.queue.signal(collector, &target, now);
            }
        }
    }

    /// Queues new customers so that they are due immediately, and repeats bulk polls, because bulk lists may include
    /// the new customers.
    fn add_customers(&mut self, added: Vec<CustomerId>) {
        if added.is_empty() {
            return;
        }
        info!(customers = added.len(), "customers added");
        let now = self.now();
        for collector in ids().filter(|collector| *collector != CollectorId::CUSTOMERS) {
            self.queue.poll_again(collector, &Target::Partner, now);
        }
        for id in added {
            self.queue_customer(&id, now);
        }
    }

    /// Stops polling the given customers.
    pub(super) fn remove_customers(&mut self, removed: &[CustomerId]) {
        for id in removed {
            self.customer_list.verified.remove(id);
        }
        let removed: BTreeSet<Target> = removed.iter().cloned().map(Target::Customer).collect();
        for collector in ids() {
            self.retain_targets(collector, |target| !removed.contains(target));
        }
        self.failures.remove_targets(&removed);
        self.unpolled.retain(|(_, target)| !removed.contains(target));
    }

    /// Queues a customer for all collectors that poll per customer. The polls are due immediately or, if the store
    /// records an earlier poll, one interval after that poll. If the customer lacked the service, the poll is due at
    /// least one day after the earlier poll. If the name of a customer configured by id is unknown, only the poll of
    /// the customer itself is queued, because the filters may exclude the customer by name.
    pub(super) fn queue_customer(&mut self, id: &CustomerId, now: MonotonicTime) {
        let target = Target::Customer(id.clone());
        let may_be_excluded = self.lists_per_customer() && self.store.record(CollectorId::CUSTOMERS, id).is_none();
        for collector in ids() {
            if self.fetches_per_customer(collector) && self.is_enabled(collector) {
                self.store.add_target(collector, &target);
                if self.waits_for_prerequisite(collector, &target) {
                    continue;
                }
                if collector == CollectorId::CUSTOMERS || !may_be_excluded {
                    let at = self.due_after_restart(collector, &target, now);
                    self.enqueue(collector, target.clone(), at, now);
                }
            }
        }
    }

    /// Returns whether a target must not be queued yet, because another collector must poll the target first.
    fn waits_for_prerequisite(&self, collector: CollectorId, target: &Target) -> bool {
        let prerequisite = collector.descriptor().after();
        prerequisite.is_some_and(|prerequisite| self.store.last_success(prerequisite, target).is_none())
            && self.store.unlicensed_at(collector, target).is_none()
    }

    /// Records, for `elements_up`, the result of the latest poll of the customer list. In per-customer mode, an error
    /// about a single customer says nothing about the API, so it counts only if there is no earlier result.
    pub(super) fn record_list_result(&mut self, result: &Result<(), PollError>) {
        let lists_per_customer = self.lists_per_customer();
        let is_about_customer = |error: &PollError| {
            let is_api = matches!(error.api(), Some(Error::Status(403 | 404) | Error::Decode(_)));
            is_api || matches!(error, PollError::WrongCustomer)
        };
        let before = self.customer_list.is_available;
        self.customer_list.is_available = match result {
            Ok(()) => Some(true),
            Err(error) if lists_per_customer && is_about_customer(error) => before.or(Some(false)),
            Err(_) => Some(false),
        };
    }

    /// Polls all targets of a collector now or, if a target's poll is running, again afterwards.
    pub(super) fn poll_all_again(&mut self, collector: CollectorId) {
        let now = self.now();
        for target in self.targets(collector) {
            self.queue.poll_again(collector, &target, now);
        }
    }

    pub(super) fn targets(&self, collector: CollectorId) -> Vec<Target> {
        self.queue.targets(collector).cloned().collect()
    }
}
