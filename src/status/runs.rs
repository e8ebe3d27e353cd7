//! The stored runs of one customer.

use std::sync::Arc;

use crate::collector::{CollectorId, CollectorSettings, ModuleRuns, Target, past_runs};
use crate::domain::{CustomerId, Timestamp};
use crate::store::StatusSnapshot;

/// The stored runs of one customer.
pub struct CustomerRuns {
    /// Id of the customer.
    pub id: CustomerId,
    /// The name of the organization.
    pub organization: Arc<str>,
    /// Time of the poll that listed the newest runs.
    pub updated: Option<Timestamp>,
    /// Modules and backup scopes with runs, in alphabetical order.
    pub modules: Vec<ModuleRuns>,
}

impl CustomerRuns {
    /// Returns the runs of a customer, or `None` if the snapshot does not contain the customer.
    pub(super) fn of(id: &CustomerId, snapshot: &StatusSnapshot, settings: &CollectorSettings) -> Option<Self> {
        let mut runs = Self {
            id: id.clone(),
            organization: Arc::clone(snapshot.organization(id)?),
            updated: None,
            modules: Vec::new(),
        };
        if let Some(jobs) = snapshot
            .collectors()
            .find(|collector| collector.id == CollectorId::JOBS)
        {
            runs.updated = jobs.poll_of(&Target::Customer(id.clone())).last_success;
            runs.modules = jobs
                .record_of(id)
                .map_or_else(Vec::new, |record| past_runs(record, settings));
        }
        runs.modules.sort_by(|one, other| one.key.cmp(&other.key));
        Some(runs)
    }
}
