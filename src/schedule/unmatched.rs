//! Finds configured patterns that match nothing, counts them, and logs each one once.

use std::collections::BTreeSet;
use std::sync::Arc;

use tracing::warn;

use super::{Scheduler, wall_clock};
use crate::collector::{self, CollectorId, Customer, PollOutput, Record};
use crate::domain::{CustomerId, DEFAULT_BACKUP_SERVICES, KnownNames, Pattern, Shard, UnmatchedPattern, log_safe};

/// Maximum number of patterns that are logged individually. If there are more, they usually have the same cause, and
/// the search for the nearest name is slow.
const MAX_LOGGED: usize = 20;

/// Number of cycles of `jobs` after which customers without a record are ignored. A short outage affects only one
/// cycle.
const MAX_CYCLES: u32 = 2;

/// Ids and organizations of the customers in a list, including customers that the filters exclude.
pub(super) type ListedNames = Vec<(CustomerId, Arc<str>)>;

/// State of the check for patterns that match nothing.
#[derive(Debug, Default)]
pub(super) struct PatternCheck {
    /// The latest complete customer list.
    listed: Option<ListedNames>,
    /// The patterns that match nothing; `None` before the first check.
    unmatched: Option<BTreeSet<UnmatchedPattern>>,
    /// Number of completed cycles of `jobs`; at most 1 at a reload.
    jobs_cycles: u32,
}

impl PatternCheck {
    /// Returns the number of patterns that match nothing, or `None` before the first check.
    pub(super) fn unmatched_count(&self) -> Option<usize> {
        self.unmatched.as_ref().map(BTreeSet::len)
    }

    /// Stores a complete customer list.
    pub(super) fn set_listed(&mut self, listed: ListedNames) {
        self.listed = Some(listed);
    }

    /// Resets the check after a reload, so that patterns of the new configuration that match nothing are logged. The
    /// list and the modules are kept if the new configuration requests them in the same way.
    pub(super) fn reset(&mut self, keeps_list: bool, keeps_modules: bool) {
        self.unmatched = None;
        // The new configuration may include customers or modules that have not been polled yet.
        self.jobs_cycles = if keeps_modules { self.jobs_cycles.min(1) } else { 0 };
        if !keeps_list {
            self.listed = None;
        }
    }

    /// Replaces the stored set of patterns that match nothing, and logs the patterns that were not in the old set.
    fn update(&mut self, unmatched: BTreeSet<UnmatchedPattern>, names: &KnownNames) {
        let logged = self.unmatched.take().unwrap_or_default();
        let new: BTreeSet<_> = unmatched.difference(&logged).collect();
        for pattern in new.iter().take(MAX_LOGGED) {
            warn!(
                key = pattern.key,
                pattern = pattern.pattern,
                nearest = names.nearest(pattern).map(log_safe).unwrap_or_default(),
                "pattern matches nothing"
            );
        }
        if let Some(more) = new.len().checked_sub(MAX_LOGGED).filter(|more| *more > 0) {
            warn!(patterns = more, "more patterns match nothing; not listed");
        }
        self.unmatched = Some(unmatched);
    }
}

/// Returns the ids and organizations of the customers in a list.
pub(super) fn listed_names(output: &PollOutput) -> ListedNames {
    let name = |(id, kept): (&CustomerId, &Arc<dyn Record>)| {
        let customer = Customer::of(kept.as_ref())?;
        Some((id.clone(), Arc::from(customer.organization.as_str())))
    };
    output.records.iter().filter_map(name).collect()
}

impl Scheduler {
    /// Checks the configured patterns against the latest complete customer list and the attributes, and against modules
    /// and products once they are known.
    pub(super) fn check_patterns(&mut self) {
        let Some(listed) = &self.patterns.listed else { return };
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
        self.patterns.update(unmatched, &names);
    }

    /// Adds all modules once they are known: after a cycle of `jobs` that covered all customers, or after two cycles,
    /// because requests for some customers may always fail. With `--shard`, the modules stay unknown, because other
    /// exporters poll the other customers.
    fn add_modules(&self, names: &mut KnownNames) {
        if self.config.customers.shard != Shard::WHOLE || self.patterns.jobs_cycles == 0 {
            return;
        }
        let customers = self.store.customers_with(CollectorId::JOBS);
        if self.patterns.jobs_cycles >= MAX_CYCLES || customers.iter().all(|(_, record)| record.is_some()) {
            for record in customers.iter().filter_map(|(_, record)| record.as_deref()) {
                collector::add_module_names(record, names);
            }
        }
    }

    /// Returns the product patterns that match no product. Like module patterns, they are not checked with `--shard`.
    fn unmatched_products(&self, names: &mut KnownNames) -> BTreeSet<UnmatchedPattern> {
        let settings = &self.config.settings;
        // If the partner has no backup licence, the default pattern matches nothing, which is not a mistake.
        let is_default = |pattern: &Pattern| pattern.written() == DEFAULT_BACKUP_SERVICES;
        let backups = match settings.backup_services.iter().all(is_default) {
            true => &[],
            false => settings.backup_services.as_slice(),
        };
        let services = settings.license_services.as_slice();
        if self.config.customers.shard != Shard::WHOLE || (services.is_empty() && backups.is_empty()) {
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
        let mut unmatched = names.unmatched_products("collectors.licenses.services", services);
        unmatched.extend(names.unmatched_products("collectors.licenses.backup_services", backups));
        unmatched
    }

    /// Checks the patterns again after a cycle of `jobs` or `licenses`, because it may be the first cycle to return all
    /// modules or products.
    pub(super) fn check_after_cycle(&mut self, collector: CollectorId) {
        if collector == CollectorId::JOBS {
            self.patterns.jobs_cycles = self.patterns.jobs_cycles.saturating_add(1);
        }
        if [CollectorId::JOBS, CollectorId::LICENSES].contains(&collector) {
            self.check_patterns();
        }
    }
}
