//! Stored data of one collector.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::cow_map::CowMap;
use super::freshness::{Attempt, Freshness, FreshnessMetrics, State};
use crate::collector::{CollectorDescriptor, CollectorId, Context, Plan, RenderedRecord, Target};
use crate::domain::{CustomerId, Timestamp};
use crate::exposition::{Block, RecordView, Table};

/// Blocks that contain either records or freshness.
type Blocks = Vec<Arc<dyn Block>>;

/// Stored data of one collector.
#[derive(Clone, Debug)]
pub(super) struct CollectorData {
    pub(super) id: CollectorId,
    pub(super) plan: Plan,
    pub(super) permitted: Option<bool>,
    pub(super) shown_metrics: FreshnessMetrics,
    pub(super) records: CowMap<CustomerId, StoredRecord>,
    pub(super) freshness: CowMap<Target, Freshness>,
    /// Customers that were missing from the last complete bulk poll of an optional collector. Their records are removed
    /// if they are also missing from the next one.
    pub(super) absent_once: Arc<BTreeSet<CustomerId>>,
    /// Text of the latest failure, shared by targets with the same failure.
    pub(super) last_error: Option<Arc<str>>,
}

impl CollectorData {
    pub(super) fn new(id: CollectorId, plan: Plan) -> Self {
        Self {
            id,
            plan,
            permitted: None,
            shown_metrics: FreshnessMetrics::ALL,
            records: CowMap::default(),
            freshness: CowMap::default(),
            absent_once: Arc::default(),
            last_error: None,
        }
    }

    /// Returns whether a target is still polled. If a customer is removed during a poll, the outcome of that poll must
    /// not add the customer again.
    pub(super) fn has_target(&self, target: &Target) -> bool {
        self.freshness.contains_key(target)
    }

    /// Returns the number of freshness series.
    pub(super) fn freshness_series(&self) -> usize {
        self.shown_metrics.count() * self.freshness.len()
    }

    /// Renders the freshness series again, and replaces times of polls after `now` with `now`.
    pub(super) fn render_freshness(&mut self, now: Timestamp) {
        for (target, freshness) in self.freshness.iter_mut() {
            let last_success = freshness.last_success.map(|success| success.min(now));
            let error = freshness.error.take();
            let unlicensed_at = freshness.unlicensed_at.map(|at| at.min(now));
            *freshness = Freshness::new(self.id, target, freshness.attempt, last_success, self.shown_metrics);
            freshness.error = error;
            freshness.unlicensed_at = unlicensed_at;
        }
    }

    /// Returns the records and the freshness of the targets in `only`, or of all targets if `only` is `None`.
    pub(super) fn blocks(&self, only: Option<&BTreeSet<Target>>) -> (Blocks, Blocks) {
        let Some(only) = only else {
            let mut records = self.records.blocks();
            let held: Vec<HeldRows> = self.records.values().filter_map(StoredRecord::held_rows).collect();
            if !held.is_empty() {
                records.push(Arc::new(held));
            }
            return (records, self.freshness.blocks());
        };
        let (mut records, mut held, mut freshness) = (Vec::new(), Vec::new(), Vec::new());
        for target in only {
            if let Target::Customer(id) = target
                && let Some(stored) = self.records.get(id)
            {
                held.extend(stored.held_rows());
                records.push((id.clone(), stored.clone()));
            }
            if let Some(known) = self.freshness.get(target) {
                freshness.push((target.clone(), known.clone()));
            }
        }
        (vec![Arc::new(records), Arc::new(held)], vec![Arc::new(freshness)])
    }

    /// Counts the customers by state. Customers that have not been polled yet are pending.
    pub(super) fn states(&self, customers: &CowMap<CustomerId, impl Clone>, now: Timestamp) -> BTreeMap<State, usize> {
        let mut states = BTreeMap::from(State::ALL.map(|state| (state, 0)));
        let state = |freshness: &Freshness| freshness.state(self.plan.stale_after, now);
        let mut rest = customers.len();
        if let Some(of_all) = self.freshness.get(&Target::Partner) {
            *states.entry(state(of_all)).or_default() += std::mem::take(&mut rest);
        } else {
            // Both maps are sorted, so one pass finds the known customers among the polled customers.
            let mut known = customers.keys().peekable();
            for (target, freshness) in self.freshness.iter() {
                let Target::Customer(id) = target else { continue };
                while known.next_if(|known| *known < id).is_some() {}
                if known.next_if(|known| *known == id).is_some() {
                    *states.entry(state(freshness)).or_default() += 1;
                    rest = rest.saturating_sub(1);
                }
            }
        }
        *states.entry(State::Pending).or_default() += rest;
        states
    }

    pub(super) fn record_attempt(&mut self, target: &Target, attempt: Attempt, success: Option<Timestamp>) {
        let before = self.freshness.get(target).and_then(|known| known.last_success);
        let freshness = Freshness::new(self.id, target, attempt, success.or(before), self.shown_metrics);
        self.freshness.insert(target.clone(), freshness);
    }
}

/// A record and the times of its polls.
#[derive(Clone, Debug)]
pub(super) struct StoredRecord {
    pub(super) rendered: RenderedRecord,
    /// Time of the poll that returned the rows that are not held.
    pub(super) good_at: Timestamp,
    /// Time from which the age of held rows counts: the last poll that left no row held.
    pub(super) held_at: Timestamp,
}

impl StoredRecord {
    pub(super) fn samples(&self) -> usize {
        self.rendered.samples()
    }

    /// Renders the record again, for example with new settings or a new name.
    pub(super) fn render_anew(&mut self, descriptor: &CollectorDescriptor, id: &CustomerId, context: &Context) {
        if let Some((rendered, _)) = descriptor.render(Arc::clone(&self.rendered.record), id, context) {
            self.rendered = rendered;
        }
    }
}

impl Block for Vec<(CustomerId, StoredRecord)> {
    fn record(&self, position: usize) -> Option<RecordView<'_>> {
        self.get(position).map(|(_, stored)| RecordView {
            tables: &stored.rendered.tables,
            good_at: Some(stored.good_at),
        })
    }
}

/// The held rows of a record, and the time from which their age counts.
#[derive(Debug)]
pub(super) struct HeldRows {
    pub(super) tables: Arc<[Table]>,
    pub(super) at: Timestamp,
}

impl StoredRecord {
    pub(super) fn held_rows(&self) -> Option<HeldRows> {
        let tables = Some(&self.rendered.held).filter(|tables| !tables.is_empty())?;
        Some(HeldRows {
            tables: Arc::clone(tables),
            at: self.held_at,
        })
    }
}

impl Block for Vec<HeldRows> {
    fn record(&self, position: usize) -> Option<RecordView<'_>> {
        self.get(position).map(|held| RecordView {
            tables: &held.tables,
            good_at: Some(held.at),
        })
    }
}
