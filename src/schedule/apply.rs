//! Applies the configuration to the queue, at startup and after a reload.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::{info, warn};

use super::fetch_mode::FetchMode;
use super::queue::{LatenessLimit, MonotonicTime};
use super::{ScheduleConfig, Scheduler, wall_clock};
use crate::collector::{CollectorId, PerCollector, Plan, RecordSource as _, Target, ids};

impl Scheduler {
    /// Queues all configured targets, and removes all others.
    pub(super) fn enqueue_targets(&mut self) {
        let now = self.now();
        if !self.config.customer_ids.is_empty() && self.uses_v1() {
            self.fetch_modes = PerCollector::from_fn(|_| FetchMode::PerCustomer);
        }
        for (collector, plan) in self.config.plans.iter() {
            let lateness_limit = LatenessLimit::new(plan.interval, plan.stale_after);
            self.queue.set_lateness_limit(collector, lateness_limit);
        }
        for collector in ids() {
            let fetches_bulk = !self.fetches_per_customer(collector);
            let is_enabled = self.is_enabled(collector);
            let retries_bulk = *self.fetch_modes.get(collector) == FetchMode::PerCustomerUntilAllowed;
            let is_polled = |target: &Target| is_enabled && (*target == Target::Partner) == fetches_bulk;
            self.retain_targets(collector, |target| {
                is_polled(target) || (is_enabled && retries_bulk && *target == Target::Partner)
            });
            self.store.retain_targets(collector, is_polled);
            if is_enabled && fetches_bulk {
                self.store.add_target(collector, &Target::Partner);
            }
        }
        if self.lists_per_customer() {
            let configured = self.config.fallback_ids.iter();
            let configured: BTreeMap<_, _> = configured.map(|id| (id.clone(), self.store.organization(id))).collect();
            // The configuration is not a complete list, so customers that are missing from it are not removed.
            let (_, _) = self.store.reconcile(&configured, false);
        } else {
            // The customer list is polled immediately, even if the state file records an earlier poll, because all
            // other polls depend on it.
            self.enqueue(CollectorId::CUSTOMERS, Target::Partner, now, now);
        }
        let known = self.store.customers();
        if !known.is_empty() {
            self.queue_bulk_polls(now);
        }
        for id in known {
            self.queue_customer(&id, now);
        }
    }

    /// Queues bulk polls. They follow the first customer list, because records of unknown customers are dropped.
    pub(super) fn queue_bulk_polls(&mut self, now: MonotonicTime) {
        for collector in ids().filter(|collector| *collector != CollectorId::CUSTOMERS) {
            if self.is_enabled(collector) && !self.fetches_per_customer(collector) {
                let at = self.due_after_restart(collector, &Target::Partner, now);
                self.enqueue(collector, Target::Partner, at, now);
            }
        }
    }

    /// Applies a new configuration after a reload.
    pub(super) fn apply_config(&mut self, config: ScheduleConfig) {
        config.client.transport().carry_over(self.config.client.transport());
        let before = std::mem::replace(&mut self.config, config);
        let removed = self.store.retain_customers(&self.config.customers);
        if !removed.is_empty() {
            info!(
                customers = removed.len(),
                "customers removed: excluded by the new configuration"
            );
            self.remove_customers(&removed);
        }
        self.store.reconfigure(
            &self.config.plans,
            self.config.series_limit,
            &self.config.settings,
            wall_clock(),
        );
        let series = self.store.series();
        if let Some(limit) = self.config.series_limit.filter(|limit| series > *limit) {
            warn!(
                series,
                limit, "series exceed metrics.series_limit; keeping existing series and rejecting new ones"
            );
        }
        let is_same_api = Arc::ptr_eq(&before.client, &self.config.client);
        let is_same_request = is_same_api
            && before.customers == self.config.customers
            && before.customer_ids == self.config.customer_ids
            && before.fallback_ids == self.config.fallback_ids;
        // If requests do not change, back-offs and fetch modes are kept.
        if !is_same_request {
            self.fetch_modes = PerCollector::default();
            self.failures.clear();
        }
        self.cycles = PerCollector::default();
        self.update_next_override_end();
        let has_same_jobs = (CollectorId::JOBS.descriptor().polls_alike)(&before.settings, &self.config.settings);
        self.patterns.reset(is_same_request, has_same_jobs);
        self.check_patterns();
        self.enqueue_targets();
        self.bring_forward_shortened(&before.plans);
        if !is_same_request {
            // The filters or the API client changed, so the customer list is polled immediately.
            self.poll_all_again(CollectorId::CUSTOMERS);
        }
        if !is_same_api {
            self.bring_forward_unlicensed();
        }
        for collector in ids() {
            if !(collector.descriptor().polls_alike)(&before.settings, &self.config.settings) {
                self.poll_all_again(collector);
            }
        }
    }

    /// Brings forward the polls of customers that lack a service. The new API client may have access to the service,
    /// and the next poll may be a day away.
    fn bring_forward_unlicensed(&mut self) {
        let now = self.now();
        for collector in ids().filter(|collector| collector.descriptor().is_optional) {
            for target in self.targets(collector) {
                if self.store.unlicensed_at(collector, &target).is_some() {
                    self.queue.bring_forward(collector, &target, now);
                }
            }
        }
    }

    /// Brings forward the polls of collectors whose interval became shorter. The new interval counts from the last
    /// success, as after a restart.
    pub(super) fn bring_forward_shortened(&mut self, before: &PerCollector<Plan>) {
        let now = self.now();
        let interval_of = |plans: &PerCollector<Plan>, collector| plans.get(collector).interval;
        for collector in ids() {
            if interval_of(&self.config.plans, collector) >= interval_of(before, collector) {
                continue;
            }
            for target in self.targets(collector) {
                let at = self.due_after_restart(collector, &target, now);
                self.queue.bring_forward(collector, &target, at);
            }
        }
    }
}
