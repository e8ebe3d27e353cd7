//! Snapshot of the store for the status page.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Store;
use super::collected::CollectorData;
use super::cow_map::CowMap;
use super::freshness::{Freshness, LastError, State};
use super::inner::StoredCustomer;
use crate::collector::{CollectorId, PerCollector, Plan, Record, Target};
use crate::domain::{Attributes, CustomerId, HealthSummary, Timestamp};
use crate::lock::lock;

/// Maximum length of a stored error, in characters: twice the length of the longest error without text from the API.
/// The log contains the whole error.
const MAX_ERROR_CHARS: usize = 400;

/// The latest poll of a target.
#[derive(Clone, Debug)]
pub struct PollStatus {
    /// Freshness of the values.
    pub state: State,
    /// Whether one poll fetches the data of all customers.
    pub is_for_all: bool,
    /// Time of the last successful poll.
    pub last_success: Option<Timestamp>,
    /// The error of the latest poll.
    pub error: Option<LastError>,
}

impl PollStatus {
    /// Returns whether the last successful poll is no older than `stale_after`. Returns false if the latest poll was
    /// forbidden or unlicensed.
    pub fn has_current_values(&self) -> bool {
        matches!(self.state, State::Fresh | State::Failed) && self.last_success.is_some()
    }
}

/// State of a collector, for the exporter's own metrics.
#[derive(Clone, Debug)]
pub struct Overview {
    /// Id of the collector.
    pub collector: CollectorId,
    /// The collector's schedule.
    pub plan: Plan,
    /// Whether its permission is granted; `None` if unknown.
    pub permitted: Option<bool>,
    /// Number of customers by state. The sum is the number of known customers.
    pub customers: BTreeMap<State, usize>,
}

/// A consistent view of the store. It shares its data with the store by copy-on-write, so readers do not block polls.
#[derive(Debug)]
pub struct StatusSnapshot {
    customers: CowMap<CustomerId, StoredCustomer>,
    collected: PerCollector<CollectorData>,
    /// Number of series, including the freshness series.
    pub series: usize,
    /// Whether there is an attributes file.
    has_attributes: bool,
    now: Timestamp,
}

/// An enabled collector in a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct CollectorSnapshot<'a> {
    /// Id of the collector.
    pub id: CollectorId,
    /// Whether its permission is granted; `None` if unknown.
    pub permitted: Option<bool>,
    collected: &'a CollectorData,
    snapshot: &'a StatusSnapshot,
}

impl Store {
    /// Stores the error of a target's latest poll. See [`LastError::is_outage`].
    pub fn set_error(&self, collector: CollectorId, target: &Target, text: &str, is_outage: bool, now: Timestamp) {
        let text: String = text.chars().take(MAX_ERROR_CHARS).collect();
        let mut inner = lock(&self.inner);
        let collected = inner.collected.get_mut(collector);
        let Some(freshness) = collected.freshness.get_mut(target) else {
            return;
        };
        // In an outage, most targets have the same error, so they share its text.
        let text = match &collected.last_error {
            Some(last) if **last == *text => Arc::clone(last),
            _ => Arc::from(text),
        };
        collected.last_error = Some(Arc::clone(&text));
        freshness.error = Some(LastError {
            text,
            at: now,
            is_outage,
        });
    }

    /// Returns a snapshot of the current contents. Freshness is evaluated at `now`.
    pub fn status_snapshot(&self, now: Timestamp) -> StatusSnapshot {
        let inner = lock(&self.inner);
        StatusSnapshot {
            customers: inner.customers.clone(),
            collected: inner.collected.clone(),
            series: inner.total_series(),
            has_attributes: inner.attributes.is_some(),
            now,
        }
    }
}

impl StatusSnapshot {
    /// Returns the customers by id, with the names of their organizations.
    pub fn customers(&self) -> impl Iterator<Item = (&CustomerId, &Arc<str>)> {
        self.customers.iter().map(|(id, known)| (id, &known.organization))
    }

    /// Returns the name of a customer's organization, or `None` if the customer is unknown.
    pub fn organization(&self, id: &CustomerId) -> Option<&Arc<str>> {
        self.customers.get(id).map(|known| &known.organization)
    }

    /// Returns the attributes of a customer, or `None` if no row matches or the customer is unknown.
    pub fn attributes(&self, id: &CustomerId) -> Option<&Arc<Attributes>> {
        self.customers.get(id)?.attributes.as_ref()
    }

    /// Returns the number of customers without a matching row in the attributes file, or `None` if there is no
    /// attributes file or no customer.
    pub fn without_attributes(&self) -> Option<usize> {
        let without = self.customers.values().filter(|known| known.attributes.is_none());
        (self.has_attributes && self.customers.len() > 0).then(|| without.count())
    }

    /// Returns a collector's record of a customer, or `None` if the store has none.
    pub fn record(&self, collector: CollectorId, id: &CustomerId) -> Option<&dyn Record> {
        let stored = self.collected.get(collector).records.get(id)?;
        Some(&*stored.rendered.record)
    }

    /// Returns the enabled collectors.
    pub fn collectors(&self) -> impl Iterator<Item = CollectorSnapshot<'_>> {
        let enabled = self.collected.values().filter(|collected| collected.plan.enabled);
        enabled.map(|collected| CollectorSnapshot {
            id: collected.id,
            permitted: collected.permitted,
            collected,
            snapshot: self,
        })
    }
}

impl CollectorSnapshot<'_> {
    /// Returns the collector's schedule and permission, and the number of customers by state.
    pub fn overview(&self) -> Overview {
        Overview {
            collector: self.id,
            plan: self.collected.plan,
            permitted: self.permitted,
            customers: self.collected.states(&self.snapshot.customers, self.snapshot.now),
        }
    }

    /// Returns whether one poll fetches the data of all customers.
    pub fn polls_all_at_once(&self) -> bool {
        self.collected.freshness.contains_key(&Target::Partner)
    }

    /// Returns the latest poll that included a customer, whether it was for that customer only or a bulk poll.
    pub fn poll_of(&self, customer: &Target) -> PollStatus {
        let for_all = self.collected.freshness.get(&Target::Partner);
        let freshness = for_all.or_else(|| self.collected.freshness.get(customer));
        let stale_after = self.collected.plan.stale_after;
        PollStatus {
            state: freshness.map_or(State::Pending, |known| known.state(stale_after, self.snapshot.now)),
            is_for_all: for_all.is_some(),
            last_success: freshness.and_then(|known| known.last_success),
            error: freshness.and_then(|known| known.error.clone()),
        }
    }

    /// Returns the record of a customer, or `None` if the store has none.
    pub fn record_of(&self, id: &CustomerId) -> Option<&dyn Record> {
        self.snapshot.record(self.id, id)
    }

    /// Returns the health of a customer's modules, if there are any.
    pub fn health_of(&self, id: &CustomerId) -> Option<&HealthSummary> {
        self.collected.records.get(id)?.rendered.health.as_deref()
    }

    /// Returns the time of the last successful poll of any target.
    pub fn newest_success(&self) -> Option<Timestamp> {
        self.polls().filter_map(|poll| poll.last_success).max()
    }

    /// Returns the earliest of the times at which the targets were last polled successfully, or `None` if any target
    /// has never been polled successfully.
    pub fn oldest_success(&self) -> Option<Timestamp> {
        let successes: Option<Vec<Timestamp>> = self.polls().map(|poll| poll.last_success).collect();
        successes?.into_iter().min()
    }

    /// Returns the errors of the latest polls of all targets.
    pub fn errors(&self) -> impl Iterator<Item = &LastError> {
        self.polls().filter_map(|poll| poll.error.as_ref())
    }

    fn polls(&self) -> impl Iterator<Item = &Freshness> {
        self.collected.freshness.values()
    }
}
