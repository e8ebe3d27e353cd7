//! Details of one customer.

use std::sync::Arc;

use super::customers::{CustomerRow, signs_of};
use crate::collector::{CollectorId, CollectorSettings, CommonErrors, Context, Target, common_errors};
use crate::domain::{CustomerId, JobStatus, ModuleHealth, RunSummary, Timestamp};
use crate::store::{CollectorSnapshot, PollStatus, StatusSnapshot};

/// A collector, and its latest poll of a customer.
pub struct DataSource {
    /// Name of the collector.
    pub name: &'static str,
    /// The collector's latest poll of the customer.
    pub poll: PollStatus,
}

/// Details of one customer.
pub struct CustomerDetail {
    /// The customer's row in the list.
    pub row: CustomerRow,
    /// The enabled collectors, with their latest polls.
    pub sources: Vec<DataSource>,
    /// The customer's modules, worst first.
    pub modules: Vec<ModuleHealth>,
    /// Time of the poll that returned the modules.
    pub updated: Option<Timestamp>,
    /// Time of the last successful poll of the signs of ransomware, if there are any signs and they are not current.
    pub signs_read_at: Option<Timestamp>,
    /// The most common errors in the reports of the latest runs, by module.
    pub errors: Vec<CommonErrors>,
}

impl CustomerDetail {
    /// Returns the details of a customer, or `None` if the snapshot does not contain the customer.
    pub fn of(
        id: &CustomerId,
        snapshot: &StatusSnapshot,
        settings: &Arc<CollectorSettings>,
        now: Timestamp,
    ) -> Option<Self> {
        let organization = snapshot.organization(id)?;
        let collectors: Vec<_> = snapshot.collectors().collect();
        let row = CustomerRow::of(id, snapshot, &collectors, now);
        let context = Context::new(row.as_of, Arc::clone(settings), Arc::clone(organization));
        let mut detail = Self {
            row,
            sources: Vec::new(),
            modules: Vec::new(),
            updated: None,
            signs_read_at: None,
            errors: Vec::new(),
        };
        let target = Target::Customer(id.clone());
        for collector in collectors {
            let poll = collector.poll_of(&target);
            if collector.id == CollectorId::JOBS {
                detail.modules = modules_of(&collector, id, &context);
                detail.updated = poll.last_success;
            }
            if signs_of(&collector, id).is_some() {
                detail.signs_read_at = poll.last_success.filter(|_| !poll.has_current_values());
            }
            if let Some(record) = collector.record_of(id).filter(|_| poll.has_current_values()) {
                detail.errors.extend(common_errors(record));
            }
            detail.sources.push(DataSource {
                name: collector.id.name(),
                poll,
            });
        }
        // The report of an earlier run no longer applies to a module that has recovered.
        let modules = &detail.modules;
        detail.errors.retain(|errors| {
            modules
                .iter()
                .any(|module| module.key == errors.key && may_be_incomplete(module))
        });
        detail.modules.sort_by_cached_key(|module| {
            let deadline = module.deadline();
            (module.state(now), deadline.is_none(), deadline, module.key.clone())
        });
        Some(detail)
    }
}

/// Returns whether the latest completed run may have been incomplete.
fn may_be_incomplete(module: &ModuleHealth) -> bool {
    let is_complete = |run: &RunSummary| run.status == JobStatus::Finished && !run.has_failed_objects;
    module.latest_completed.as_ref().is_some_and(|run| !is_complete(run))
}

fn modules_of(collector: &CollectorSnapshot<'_>, id: &CustomerId, context: &Context) -> Vec<ModuleHealth> {
    let record = collector.record_of(id);
    record.map_or_else(Vec::new, |record| {
        collector.id.descriptor().modules(record, id, context)
    })
}
