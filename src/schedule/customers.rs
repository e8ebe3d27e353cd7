//! Applies customer lists and single customers to the queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::{info, warn};

use super::queue::{Due, MonotonicTime};
use super::unmatched::listed_names;
use super::{PollError, Scheduler, wall_clock};
use crate::api::{Endpoint, Error};
use crate::collector::{CollectorId, Customer, PollOutput, RecordSource as _, Target, ids};
use crate::domain::{CustomerId, Purpose};

impl Scheduler {
    /// Applies a customer list or one customer. Returns false if the customer is excluded by name.
    pub(super) fn apply_customers(&mut self, due: &Due, output: &mut PollOutput) -> Result<bool, PollError> {
        let complete = output.incomplete.is_none();
        let answered = |output: &PollOutput, id| !complete || output.records.contains_key(id);
        match &due.target {
            Target::Partner => {
                let names = listed_names(output);
                let listed = self.admitted(output, complete);
                let news = self.with_news(output);
                let (reconciled, believed) = self.store.reconcile(&listed, complete);
                self.store
                    .render_anew(&reconciled.renamed, &self.config.settings, wall_clock());
                self.signal(news);
                // Bulk polls precede per-customer polls.
                self.queue_partner(self.now());
                self.add_customers(reconciled.joined);
                if !reconciled.left.is_empty() {
                    info!(
                        customers = reconciled.left.len(),
                        "customers removed: absent from two complete lists"
                    );
                    self.remove_customers(&reconciled.left);
                }
                self.miss_named(&listed, complete);
                if !listed.is_empty() && !complete {
                    // An incomplete list is a failure, but its data can be served.
                    self.health.set_ready();
                }
                match believed {
                    Ok(()) => {
                        if complete {
                            self.listed_names = Some(names);
                            self.check_patterns();
                        }
                        Ok(true)
                    }
                    Err(shrunk) => {
                        self.store.fail(due.collector, &due.target);
                        Err(shrunk.into())
                    }
                }
            }
            Target::Customer(id) if !answered(output, id) => {
                let error = Error::Decode("about the requested customer");
                self.store.fail(due.collector, &due.target);
                Err(error.at(Endpoint::Customer).into())
            }
            Target::Customer(id) => {
                let is_listed = output.records.contains_key(id);
                let listed = self.admitted(output, false);
                if is_listed && listed.is_empty() {
                    info!(customer_id = %id.log_safe(), "customer included by id is excluded by name");
                    self.store.forget(id);
                    self.remove_customers(std::slice::from_ref(id));
                    return Ok(false);
                }
                let (reconciled, _) = self.store.reconcile(&listed, false);
                self.store
                    .render_anew(&reconciled.renamed, &self.config.settings, wall_clock());
                Ok(true)
            }
        }
    }

    /// Removes a customer that was not found in two polls in a row. It is still polled, because it is configured and
    /// may return.
    pub(super) fn remove_missing(&mut self, due: &Due) {
        let Target::Customer(id) = &due.target else { return };
        let known = self.store.record(CollectorId::CUSTOMERS, id).is_some();
        if due.collector != CollectorId::CUSTOMERS || !known {
            return;
        }
        info!(customer_id = %id.log_safe(), "customer removed: not found in two polls");
        self.store.forget(id);
        for collector in ids().filter(|collector| *collector != CollectorId::CUSTOMERS) {
            self.queue.retain(collector, |target| *target != due.target);
        }
        self.store.expect(CollectorId::CUSTOMERS, &due.target);
    }

    /// Counts how often complete lists lack customers configured by id.
    fn miss_named(&mut self, listed: &BTreeMap<CustomerId, Arc<str>>, complete: bool) {
        if !complete {
            return;
        }
        for id in &self.config.customer_ids {
            if listed
                .keys()
                .any(|listed| listed.as_str().eq_ignore_ascii_case(id.as_str()))
            {
                continue;
            }
            self.failed_any = true;
            self.health
                .poll_failed(Endpoint::Customers, Error::Status(404).reason());
        }
    }

    /// Returns the customers that the filters admit, with their organizations, and removes the others from `output`.
    fn admitted(&mut self, output: &mut PollOutput, complete: bool) -> BTreeMap<CustomerId, Arc<str>> {
        let (mut listed, mut left_out) = (BTreeMap::new(), BTreeMap::new());
        let mut nameless = BTreeSet::new();
        output.records.retain(|id, kept| {
            let customer = Customer::of(kept.as_ref());
            let organization: Arc<str> = Arc::from(customer.map_or("", |customer| customer.organization.as_str()));
            // Customers of another share are polled by another exporter.
            if !self.config.customers.shard.owns(id, Purpose::Poll) {
                return false;
            }
            if organization.is_empty() {
                nameless.insert(id.clone());
            }
            let admitted = self.config.customers.admits(id, &organization);
            let side = if admitted { &mut listed } else { &mut left_out };
            side.insert(id.clone(), organization);
            admitted
        });
        self.store.leave_out(left_out, complete);
        self.warn_of_nameless(nameless, complete);
        listed
    }

    /// Logs once which customers have no name and therefore match no pattern for names.
    fn warn_of_nameless(&mut self, nameless: BTreeSet<CustomerId>, complete: bool) {
        for id in nameless.difference(&self.nameless) {
            warn!(customer_id = %id.log_safe(), "customer has no organization name; name patterns cannot match it");
        }
        if complete {
            self.nameless = nameless;
        } else {
            self.nameless.extend(nameless);
        }
    }

    /// Returns the customers whose status changed since the previous list.
    fn with_news(&self, output: &PollOutput) -> Vec<CustomerId> {
        let changed = output.records.iter().filter(|(id, kept)| {
            let before = self.store.record(CollectorId::CUSTOMERS, id);
            let before = before.as_deref().and_then(Customer::of);
            let now = Customer::of(kept.as_ref());
            before.zip(now).is_some_and(|(before, now)| now.has_new_status(before))
        });
        changed.map(|(id, _)| id.clone()).collect()
    }

    /// Brings forward the polls of customers whose status changed. The list that reports it costs few requests.
    fn signal(&mut self, news: Vec<CustomerId>) {
        let now = self.now();
        for target in news.into_iter().map(Target::Customer) {
            for collector in ids().filter(|collector| collector.descriptor().polls_on_status_change) {
                self.queue.signal(collector, &target, now);
            }
        }
    }

    /// Queues new customers immediately and repeats bulk polls, which may contain data about them.
    fn add_customers(&mut self, joined: Vec<CustomerId>) {
        if joined.is_empty() {
            return;
        }
        info!(customers = joined.len(), "customers added");
        let now = self.now();
        for collector in ids().filter(|collector| *collector != CollectorId::CUSTOMERS) {
            self.queue.poll_again(collector, &Target::Partner, now);
        }
        for id in joined {
            self.queue_customer(&id, now);
        }
    }

    pub(super) fn remove_customers(&mut self, left: &[CustomerId]) {
        let left: BTreeSet<Target> = left.iter().cloned().map(Target::Customer).collect();
        for collector in ids() {
            self.queue.retain(collector, |target| !left.contains(target));
        }
        self.failures.retain(|(_, target), _| !left.contains(target));
        self.unpolled.retain(|(_, target)| !left.contains(target));
    }

    /// Queues the per-customer collectors of one customer: immediately or, if the state file has a last poll, for one
    /// interval later. A customer configured by id without a known name is polled as a customer first, because its name
    /// may exclude it.
    pub(super) fn queue_customer(&mut self, id: &CustomerId, now: MonotonicTime) {
        let target = Target::Customer(id.clone());
        let only_named = self.lists_per_customer() && self.store.record(CollectorId::CUSTOMERS, id).is_none();
        for collector in ids() {
            if self.fetches_per_customer(collector) && self.is_enabled(collector) {
                self.store.expect(collector, &target);
                if self.waits_for_another(collector, &target) {
                    continue;
                }
                if collector == CollectorId::CUSTOMERS || !only_named {
                    let at = self.due_after_restart(collector, &target, now);
                    self.enqueue(collector, target.clone(), at, now);
                }
            }
        }
    }

    /// Whether a target is queued only after the first poll of the collector that this one polls after.
    fn waits_for_another(&self, collector: CollectorId, target: &Target) -> bool {
        let lead = collector.descriptor().after();
        lead.is_some_and(|lead| self.store.last_success(lead, target).is_none())
            && self.store.unlicensed_at(collector, target).is_none()
    }

    /// Records the result of the newest customer list for `elements_up`. In per-customer mode, a 403 or 404 does not
    /// count, because it is no evidence about the API.
    pub(super) fn note_customers_listed(&mut self, result: &Result<(), PollError>) {
        let each = self.lists_per_customer();
        let of_one = |error: &PollError| matches!(error.api(), Some(Error::Status(403 | 404) | Error::Decode(_)));
        self.customers_listed = match result {
            Ok(()) => Some(true),
            Err(error) if each && of_one(error) => self.customers_listed.or(Some(false)),
            Err(_) => Some(false),
        };
    }

    /// Polls the customer list now; if a poll of it is running, polls it again afterwards.
    pub(super) fn bring_forward_customers(&mut self) {
        let now = self.now();
        for target in self.targets(CollectorId::CUSTOMERS) {
            self.queue.poll_again(CollectorId::CUSTOMERS, &target, now);
        }
    }

    /// Polls all targets of a collector again, including those with a running poll.
    pub(super) fn poll_all_again(&mut self, collector: CollectorId) {
        let now = self.now();
        for target in self.targets(collector) {
            self.queue.poll_again(collector, &target, now);
        }
    }

    fn targets(&self, collector: CollectorId) -> Vec<Target> {
        self.queue.targets(collector).cloned().collect()
    }
}
