//! Configured patterns that match nothing. Each is reported once and counted.

use std::collections::BTreeSet;
use std::sync::Arc;

use tracing::warn;

use super::{Scheduler, wall_clock};
use crate::collector::{self, CollectorId, Customer, PollOutput, Record};
use crate::domain::{CustomerId, DEFAULT_BACKUP_SERVICES, KnownNames, Pattern, Shard, UnmatchedPattern, log_safe};

/// Maximum number of patterns reported by name at once. More have one cause, and finding the nearest name iterates over
/// all names.
const MAX_REPORTED: usize = 20;

/// Number of cycles of jobs after which unpolled customers are ignored: one more than a short outage takes.
const PATIENT_CYCLES: u32 = 2;

/// The customers of a complete list, admitted by the filters or not.
pub(super) type ListedNames = Vec<(CustomerId, Arc<str>)>;

/// Returns the customers of a list by id and organization.
pub(super) fn listed_names(output: &PollOutput) -> ListedNames {
    let name = |(id, kept): (&CustomerId, &Arc<dyn Record>)| {
        let customer = Customer::of(kept.as_ref())?;
        Some((id.clone(), Arc::from(customer.organization.as_str())))
    };
    output.records.iter().filter_map(name).collect()
}

impl Scheduler {
    /// Checks the configured patterns against the newest complete customer list, and against the modules once these are
    /// known.
    pub(super) fn check_patterns(&mut self) {
        let Some(listed) = &self.listed_names else { return };
        let (filter, overrides) = (&self.config.customers, &self.config.settings.rpo.overrides);
        let mut names = KnownNames::default();
        if !(filter.include.is_empty() && filter.exclude.is_empty() && overrides.is_empty()) {
            for (id, organization) in listed {
                names.add_customer(id, organization);
            }
        }
        if !overrides.is_empty() {
            self.add_modules(&mut names);
        }
        if let Some(table) = &self.config.settings.attributes {
            names.add_attributes(table);
        }
        let mut unmatched = names.unmatched(filter, overrides, wall_clock());
        unmatched.extend(self.unmatched_products(&mut names));
        let reported = self.unmatched.take().unwrap_or_default();
        let news: BTreeSet<_> = unmatched.difference(&reported).collect();
        for pattern in news.iter().take(MAX_REPORTED) {
            warn!(
                key = pattern.key,
                pattern = pattern.pattern,
                nearest = names.nearest(pattern).map(log_safe).unwrap_or_default(),
                "pattern matches nothing"
            );
        }
        if let Some(more) = news.len().checked_sub(MAX_REPORTED).filter(|more| *more > 0) {
            warn!(patterns = more, "more patterns match nothing; not listed");
        }
        self.unmatched = Some(unmatched);
    }

    /// Adds all modules once they are known: after a cycle of jobs that covered all customers, or after two cycles,
    /// because some customers may never respond. With shares they stay unknown, because other exporters poll the rest.
    fn add_modules(&self, names: &mut KnownNames) {
        if self.config.customers.shard != Shard::WHOLE || self.jobs_cycles == 0 {
            return;
        }
        let customers = self.store.customers_with(CollectorId::JOBS);
        if self.jobs_cycles >= PATIENT_CYCLES || customers.iter().all(|(_, record)| record.is_some()) {
            for record in customers.iter().filter_map(|(_, record)| record.as_deref()) {
                collector::add_module_names(record, names);
            }
        }
    }

    /// Returns the patterns for products that match none. With shares they are not checked, like those for modules.
    fn unmatched_products(&self, names: &mut KnownNames) -> BTreeSet<UnmatchedPattern> {
        let settings = &self.config.settings;
        // A partner without a backup licence may keep the default, which is not a mistake.
        let is_default = |pattern: &Pattern| pattern.written() == DEFAULT_BACKUP_SERVICES;
        let backups = match settings.backup_services.iter().all(is_default) {
            true => &[],
            false => settings.backup_services.as_slice(),
        };
        let wanted = settings.license_services.as_slice();
        if self.config.customers.shard != Shard::WHOLE || (wanted.is_empty() && backups.is_empty()) {
            return BTreeSet::new();
        }
        for record in self
            .store
            .customers_with(CollectorId::LICENSES)
            .iter()
            .filter_map(|(_, record)| record.as_deref())
        {
            collector::add_product_names(record, names);
        }
        let mut unmatched = names.unmatched_products("collectors.licenses.services", wanted);
        unmatched.extend(names.unmatched_products("collectors.licenses.backup_services", backups));
        unmatched
    }

    /// Checks the patterns again after a cycle of jobs, which may be the first that covers all modules, or of licences.
    pub(super) fn check_after_cycle(&mut self, collector: CollectorId) {
        if collector == CollectorId::JOBS {
            self.jobs_cycles = self.jobs_cycles.saturating_add(1);
        }
        if [CollectorId::JOBS, CollectorId::LICENSES].contains(&collector) {
            self.check_patterns();
        }
    }
}
