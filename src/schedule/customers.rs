//! Who is known: what a list, or an answer about one customer, changes in the queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::{info, warn};

use super::queue::{Due, Moment};
use super::{CUSTOMERS_INDEX, Scheduler};
use crate::api::{Endpoint, Error, Failure};
use crate::collector::{self, Brought, Customer, Target};
use crate::domain::CustomerId;

impl Scheduler {
    /// Learns from a list, or from the answer about one customer, who is known. False where the one customer is known
    /// now to be left out by name, so that nothing more is to be done about it.
    pub(super) fn take_in_customers(&mut self, due: &Due, brought: &mut Brought) -> Result<bool, Failure> {
        let complete = brought.incomplete.is_none();
        let answered = |brought: &Brought, id| !complete || brought.records.contains_key(id);
        match &due.target {
            Target::Partner => {
                let listed = self.admitted(brought);
                let news = self.with_news(brought);
                let (reconciled, believed) = self.store.reconcile(&listed, complete);
                self.signal(news);
                // One request for all goes before the many for each.
                self.queue_partner(self.now());
                self.welcome(reconciled.joined);
                if !reconciled.left.is_empty() {
                    info!(
                        customers = reconciled.left.len(),
                        "customers are gone from two complete lists and dropped"
                    );
                    self.farewell(&reconciled.left);
                }
                self.miss_named(&listed, complete);
                if !listed.is_empty() && !complete {
                    // A list with a row that cannot be read is no success, and still there is something to serve.
                    self.health.set_ready();
                }
                match believed {
                    Ok(()) => Ok(true),
                    Err(error) => {
                        self.store.fail(due.collector, &due.target, &error);
                        Err(error.at(Endpoint::Customers))
                    }
                }
            }
            Target::Customer(id) if !answered(brought, id) => {
                let error = Error::Decode("about the customer asked for");
                self.store.fail(due.collector, &due.target, &error);
                Err(error.at(Endpoint::Customer))
            }
            Target::Customer(id) => {
                let told = brought.records.contains_key(id);
                let listed = self.admitted(brought);
                if told && listed.is_empty() {
                    info!(customer_id = %id.shown(), "a customer named by id is left out by name");
                    self.store.forget(id);
                    self.farewell(std::slice::from_ref(id));
                    return Ok(false);
                }
                let (_, _) = self.store.reconcile(&listed, false);
                Ok(true)
            }
        }
    }

    /// A customer asked for by itself that was not found twice in a row is as gone as one that two lists lack. It is
    /// still asked for, because it is named, and comes back if it does.
    pub(super) fn let_go(&mut self, due: &Due) {
        let Target::Customer(id) = &due.target else { return };
        let known = self.store.record(CUSTOMERS_INDEX, id).is_some();
        if due.collector != CUSTOMERS_INDEX || !known {
            return;
        }
        info!(customer_id = %id.shown(), "a customer named by id was not found twice and is dropped");
        self.store.forget(id);
        for collector in (0..collector::ALL.len()).filter(|collector| *collector != CUSTOMERS_INDEX) {
            self.queue.retain(collector, |target| *target != due.target);
        }
        self.store.expect(CUSTOMERS_INDEX, &due.target);
    }

    /// Says which customers named by id a complete list does not have: nothing else would ever tell.
    fn miss_named(&mut self, listed: &BTreeMap<CustomerId, Arc<str>>, complete: bool) {
        if !complete {
            return;
        }
        for id in &self.orders.customer_ids {
            if listed
                .keys()
                .any(|listed| listed.as_str().eq_ignore_ascii_case(id.as_str()))
            {
                continue;
            }
            self.failed_any = true;
            self.health.poll_failed(Endpoint::Customers, "not_found");
            if self.unlisted.insert(id.clone()) {
                warn!(customer_id = %id.shown(), "a customer named in customers.include is not in the list");
            }
        }
    }

    /// The customers of a list that the operator wants, by organization; the others leave `brought`.
    fn admitted(&self, brought: &mut Brought) -> BTreeMap<CustomerId, Arc<str>> {
        let mut listed = BTreeMap::new();
        brought.records.retain(|id, kept| {
            let customer = kept.record.as_any().downcast_ref::<Customer>();
            let organization = customer.map_or("", |customer| customer.organization.as_str());
            let admitted = (self.orders.admits)(id, organization);
            if admitted {
                listed.insert(id.clone(), Arc::from(organization));
            }
            admitted
        });
        listed
    }

    /// The customers whose status is another than in the list before.
    fn with_news(&self, brought: &Brought) -> Vec<CustomerId> {
        let customer = |record: &dyn collector::Record| record.as_any().downcast_ref::<Customer>().cloned();
        let changed = brought.records.iter().filter(|(id, kept)| {
            let before = self.store.record(CUSTOMERS_INDEX, id);
            let before = before.as_deref().and_then(customer);
            let now = customer(kept.record.as_ref());
            before.zip(now).is_some_and(|(before, now)| now.has_news(&before))
        });
        changed.map(|(id, _)| id.clone()).collect()
    }

    /// Lets the list of customers, which costs few requests, say about whom to ask next.
    fn signal(&mut self, news: Vec<CustomerId>) {
        let now = self.now();
        for target in news.into_iter().map(Target::Customer) {
            for (collector, _) in collector::ALL
                .iter()
                .enumerate()
                .filter(|(_, entry)| entry.follows_status)
            {
                self.queue.signal(collector, &target, now);
            }
        }
    }

    /// Queues customers that are new, at once, and what asks once for all again, because it may hold something of them.
    fn welcome(&mut self, joined: Vec<CustomerId>) {
        if joined.is_empty() {
            return;
        }
        info!(customers = joined.len(), "new customers");
        let now = self.now();
        for collector in (0..collector::ALL.len()).filter(|collector| *collector != CUSTOMERS_INDEX) {
            self.queue.hasten(collector, &Target::Partner, now);
        }
        for id in joined {
            self.queue_customer(&id, now);
        }
    }

    pub(super) fn farewell(&mut self, left: &[CustomerId]) {
        let left: BTreeSet<Target> = left.iter().cloned().map(Target::Customer).collect();
        for collector in 0..collector::ALL.len() {
            self.queue.retain(collector, |target| !left.contains(target));
        }
        self.failures.retain(|(_, target), _| !left.contains(target));
        self.unpolled.retain(|(_, target)| !left.contains(target));
    }

    /// Queues the collectors that ask about each customer for one; where the state file tells of a last time, for the
    /// time after that. A customer that is only named by id so far is first asked for itself: it may turn out to be
    /// one that the operator leaves out by name.
    pub(super) fn queue_customer(&mut self, id: &CustomerId, now: Moment) {
        let target = Target::Customer(id.clone());
        let only_named = self.lists_each() && self.store.record(CUSTOMERS_INDEX, id).is_none();
        for (collector, entry) in collector::ALL.iter().enumerate() {
            if self.asks_each(collector, entry) && self.is_enabled(collector) {
                self.store.expect(collector, &target);
                if collector == CUSTOMERS_INDEX || !only_named {
                    let at = self.due_after_restart(collector, &target, now);
                    self.enqueue(collector, target.clone(), at, now);
                }
            }
        }
    }

    /// `elements_up` tells of the list: whether the newest attempt at it succeeded. Where customers are asked about one
    /// by one, one that is refused or gone says nothing about the API.
    pub(super) fn note_customers_listed(&mut self, result: &Result<(), Failure>) {
        let each = self.lists_each();
        let of_one = |error: &Error| matches!(error, Error::Status(403 | 404) | Error::Decode(_));
        self.customers_listed = match result {
            Ok(()) => Some(true),
            Err(failure) if each && of_one(&failure.error) => self.customers_listed.or(Some(false)),
            Err(_) => Some(false),
        };
        if self.customers_listed == Some(true) {
            self.health.set_ready();
        }
    }

    pub(super) fn hasten_customers(&mut self) {
        let now = self.now();
        let targets: Vec<Target> = self.queue.targets(CUSTOMERS_INDEX).cloned().collect();
        for target in targets {
            self.queue.hasten(CUSTOMERS_INDEX, &target, now);
        }
    }
}
