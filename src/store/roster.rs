//! What people are shown of the store: how every customer stands, and all about a few of them.
//!
//! Under the lock only handles are copied, as for a scrape; whatever is made of them is made by whoever asked.

use std::sync::Arc;

use super::shelf::Shelf;
use super::{Freshness, Plan, State, Store};
use crate::api::Failure;
use crate::collector::{Record, Target};
use crate::domain::{CustomerId, Standing, Timestamp};
use crate::error_chain::error_chain;

/// The longest text that is kept of a failure. The longest that the exporter writes itself are half of it; the rest of
/// what a server or a library says about a failure is for the log.
const MAX_TROUBLE_CHARS: usize = 400;

/// What went wrong at the newest attempt, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The failure as it is logged; it holds no secret and no URL. Shared by all targets that fail alike.
    pub text: Arc<str>,
    /// When the attempt ended.
    pub at: Timestamp,
}

/// Everybody, and how they stand with each collector.
#[derive(Debug)]
pub struct Roster {
    /// The customers by id, with the names of their organizations.
    pub customers: Vec<(CustomerId, Arc<str>)>,
    /// The enabled collectors.
    pub rolls: Vec<Roll>,
}

/// How targets stand with one collector.
#[derive(Debug)]
pub struct Roll {
    /// The collector.
    pub name: &'static str,
    /// Whether its scope is granted, `None` before that is known.
    pub permitted: Option<bool>,
    /// Customers that are asked about by themselves, by id.
    pub states: Vec<(CustomerId, State)>,
    /// How the modules stand of customers of whom any is known, by id.
    pub standings: Vec<(CustomerId, Arc<Standing>)>,
    /// When a poll last succeeded of any target.
    pub newest: Option<Timestamp>,
    /// When a poll last succeeded of the target that waits the longest; `None` where one was never had.
    pub oldest: Option<Timestamp>,
    /// What went wrong the last time that anything did, of the targets whose newest attempt failed.
    pub trouble: Option<Trouble>,
}

/// All about one customer.
#[derive(Debug)]
pub struct Dossier {
    /// The customer.
    pub id: CustomerId,
    /// The name of its organization.
    pub organization: Arc<str>,
    /// How it stands with each enabled collector.
    pub answers: Vec<Answer>,
}

/// How a customer stands with one collector.
#[derive(Debug)]
pub struct Answer {
    /// The collector's position in [`crate::collector::ALL`].
    pub collector: usize,
    /// Its name.
    pub name: &'static str,
    /// How the newest values stand.
    pub state: State,
    /// Whether the state is that of one poll about all customers.
    pub of_all: bool,
    /// When a poll last succeeded.
    pub last_success: Option<Timestamp>,
    /// What went wrong at the newest attempt.
    pub trouble: Option<Trouble>,
    /// What is kept.
    pub record: Option<Arc<dyn Record>>,
}

impl Store {
    /// Keeps what went wrong at the newest attempt, where that attempt is noted as failed.
    pub fn explain(&self, collector: usize, target: &Target, failure: &Failure, now: Timestamp) {
        let mut text = failure.endpoint.to_string();
        text.push_str(": ");
        text.push_str(&error_chain(&failure.error));
        let text: String = text.chars().take(MAX_TROUBLE_CHARS).collect();
        let mut inner = self.lock();
        let Some(collected) = inner.collected.get_mut(collector) else {
            return;
        };
        let Some(freshness) = collected.freshness.get_mut(target) else {
            return;
        };
        // In an outage every target fails alike, and then one text serves them all.
        let text = match &collected.last_trouble {
            Some(last) if **last == *text => Arc::clone(last),
            _ => Arc::from(text),
        };
        collected.last_trouble = Some(Arc::clone(&text));
        freshness.trouble = Some(Trouble { text, at: now });
    }

    /// Everybody, and how they stand at `now`.
    pub fn roster(&self, now: Timestamp) -> Roster {
        // A copy shares what it shows, so that nobody waits while it is walked.
        let (customers, collected) = {
            let inner = self.lock();
            (inner.customers.clone(), inner.collected.clone())
        };
        let customers = customers
            .iter()
            .map(|(id, known)| (id.clone(), Arc::clone(&known.organization)))
            .collect();
        let enabled = collected.iter().filter(|collected| collected.plan.enabled);
        let rolls = enabled.map(|collected| Roll {
            name: collected.name,
            permitted: collected.permitted,
            states: states(&collected.freshness, collected.plan, now),
            standings: collected
                .cells
                .iter()
                .filter_map(|(id, cell)| Some((id.clone(), Arc::clone(cell.kept.standing.as_ref()?))))
                .collect(),
            newest: collected
                .freshness
                .values()
                .filter_map(|known| known.last_success)
                .max(),
            oldest: oldest(&collected.freshness),
            trouble: {
                let troubles = collected.freshness.values().filter_map(|known| known.trouble.as_ref());
                troubles.max_by_key(|trouble| trouble.at).cloned()
            },
        });
        Roster {
            customers,
            rolls: rolls.collect(),
        }
    }

    /// All about these customers, those that are known of them.
    pub fn dossiers(&self, ids: &[CustomerId], now: Timestamp) -> Vec<Dossier> {
        let inner = self.lock();
        let known = ids
            .iter()
            .filter_map(|id| inner.customers.get(id).map(|known| (id, known)));
        known
            .map(|(id, known)| {
                let target = Target::Customer(id.clone());
                let collected = inner.collected.iter().enumerate();
                let enabled = collected.filter(|(_, collected)| collected.plan.enabled);
                let answers = enabled.map(|(place, collected)| {
                    let of_all = collected.freshness.get(&Target::Partner);
                    let freshness = of_all.or_else(|| collected.freshness.get(&target));
                    Answer {
                        collector: place,
                        name: collected.name,
                        state: freshness.map_or(State::Pending, |known| known.state(collected.plan.stale_after, now)),
                        of_all: of_all.is_some(),
                        last_success: freshness.and_then(|known| known.last_success),
                        trouble: freshness.and_then(|known| known.trouble.clone()),
                        record: collected.cells.get(id).map(|cell| Arc::clone(&cell.kept.record)),
                    }
                });
                Dossier {
                    id: id.clone(),
                    organization: Arc::clone(&known.organization),
                    answers: answers.collect(),
                }
            })
            .collect()
    }

    /// What went wrong at the newest attempt at something asked for once for all.
    pub fn partner_trouble(&self, collector: usize) -> Option<Trouble> {
        let inner = self.lock();
        let freshness = &inner.collected.get(collector)?.freshness;
        let of_all = freshness.get(&Target::Partner).or_else(|| freshness.values().next())?;
        of_all.trouble.clone()
    }
}

fn states(freshness: &Shelf<Target, Freshness>, plan: Plan, now: Timestamp) -> Vec<(CustomerId, State)> {
    let state = |(target, known): (&Target, &Freshness)| match target {
        Target::Partner => None,
        Target::Customer(id) => Some((id.clone(), known.state(plan.stale_after, now))),
    };
    freshness.iter().filter_map(state).collect()
}

/// The oldest of the last successes, `None` where one is missing.
fn oldest(freshness: &Shelf<Target, Freshness>) -> Option<Timestamp> {
    let successes: Option<Vec<Timestamp>> = freshness.values().map(|known| known.last_success).collect();
    successes?.into_iter().min()
}
