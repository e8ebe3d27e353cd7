//! Selects whether a collector fetches one list for all customers or one per customer.

use tracing::warn;

use super::queue::{Due, MonotonicTime};
use super::{PollError, Scheduler};
use crate::api::Generation;
use crate::collector::{CollectorId, Target, TargetKind};

/// Number of intervals after which a forbidden bulk list is requested again. For a registration that may only see some
/// customers, the list stays forbidden, and the attempt costs a tenth of a cycle. After a temporary denial, polling per
/// customer would otherwise continue until the next start.
const RELIST_INTERVALS: u32 = 10;

/// How a collector with bulk lists fetches them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum FetchMode {
    /// One list of all customers.
    #[default]
    Bulk,
    /// One list per customer, because the configuration names the customers.
    PerCustomer,
    /// One list per customer, because the bulk list is forbidden.
    PerCustomerUntilAllowed,
}

impl Scheduler {
    /// Returns whether customers are requested one by one instead of in a list.
    pub(super) fn lists_per_customer(&self) -> bool {
        *self.fetch_modes.get(CollectorId::CUSTOMERS) != FetchMode::Bulk
    }

    pub(super) fn fetches_per_customer(&self, collector: CollectorId) -> bool {
        collector.descriptor().target_kind == TargetKind::Customer
            || *self.fetch_modes.get(collector) != FetchMode::Bulk
    }

    /// Returns whether a poll checks if a forbidden bulk list is allowed again.
    pub(super) fn is_relisting(&self, due: &Due) -> bool {
        due.target == Target::Partner && *self.fetch_modes.get(due.collector) == FetchMode::PerCustomerUntilAllowed
    }

    pub(super) fn relist_time(&self, due: &Due, now: MonotonicTime) -> MonotonicTime {
        let interval = self.config.plans.get(due.collector).interval;
        now.saturating_add(interval.saturating_mul(RELIST_INTERVALS))
    }

    pub(super) fn uses_v1(&self) -> bool {
        self.config.client.generation() == Some(Generation::V1)
    }

    /// Returns whether a collector must fetch per customer from now on. A registration that may only see some customers
    /// may not request bulk lists, and in the first generation customers configured by id are requested one by one. The
    /// customer list itself can only be replaced if customers are configured by id.
    pub(super) fn falls_back_to_per_customer(&self, due: &Due, result: &Result<(), PollError>) -> bool {
        let refused = result.as_ref().err().is_some_and(PollError::is_forbidden);
        let named = self.uses_v1() && !self.config.customer_ids.is_empty();
        if due.collector.descriptor().is_optional {
            return false;
        }
        let possible = due.collector != CollectorId::CUSTOMERS || !self.config.fallback_ids.is_empty();
        let is_bulk = *self.fetch_modes.get(due.collector) == FetchMode::Bulk;
        due.target == Target::Partner && possible && is_bulk && (refused || named)
    }

    pub(super) fn fall_back_to_per_customer(&mut self, due: &Due, result: &Result<(), PollError>) {
        if !self.falls_back_to_per_customer(due, result) {
            return;
        }
        if result.is_err() {
            warn!(
                collector = due.collector.name(),
                "bulk list forbidden; polling per customer"
            );
        }
        let refused = result.is_err();
        let mode = if refused {
            FetchMode::PerCustomerUntilAllowed
        } else {
            FetchMode::PerCustomer
        };
        *self.fetch_modes.get_mut(due.collector) = mode;
        self.enqueue_targets();
    }
}
