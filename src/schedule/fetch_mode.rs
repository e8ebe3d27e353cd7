//! Decides whether a collector fetches one list for all customers or one list per customer.

use tracing::warn;

use super::queue::{Due, MonotonicTime};
use super::{PollError, Scheduler};
use crate::api::Generation;
use crate::collector::{CollectorId, Target, TargetKind};

/// Number of intervals after which a forbidden bulk list is requested again. Without this retry, a temporary denial
/// would leave the collector polling per customer until the next restart. If the registration may see only some
/// customers, the list stays forbidden, and the retry costs one extra poll every ten intervals.
const BULK_RETRY_INTERVALS: u32 = 10;

/// How a collector with a bulk list fetches its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum FetchMode {
    /// One list for all customers.
    #[default]
    Bulk,
    /// One list per customer, because the configuration lists the customers by id, and API v1 cannot filter a list by
    /// id.
    PerCustomer,
    /// One list per customer, because the bulk list is forbidden.
    PerCustomerUntilAllowed,
}

impl Scheduler {
    /// Returns whether customers are requested one by one instead of as a list.
    pub(super) fn lists_per_customer(&self) -> bool {
        *self.fetch_modes.get(CollectorId::CUSTOMERS) != FetchMode::Bulk
    }

    pub(super) fn fetches_per_customer(&self, collector: CollectorId) -> bool {
        collector.descriptor().target_kind == TargetKind::Customer
            || *self.fetch_modes.get(collector) != FetchMode::Bulk
    }

    /// Returns whether a poll retries a bulk list that was forbidden.
    pub(super) fn is_bulk_retry(&self, due: &Due) -> bool {
        due.target == Target::Partner && *self.fetch_modes.get(due.collector) == FetchMode::PerCustomerUntilAllowed
    }

    pub(super) fn bulk_retry_time(&self, due: &Due, now: MonotonicTime) -> MonotonicTime {
        let interval = self.config.plans.get(due.collector).interval;
        now.saturating_add(interval.saturating_mul(BULK_RETRY_INTERVALS))
    }

    pub(super) fn uses_v1(&self) -> bool {
        self.config.client.generation() == Some(Generation::V1)
    }

    /// Returns whether a collector must fetch per customer from now on. This is necessary if the bulk list is
    /// forbidden, because the registration may see only some customers. It is also necessary if the customers are
    /// configured by id and API v1 is used, because API v1 cannot filter a list by id. The collector `customers` can
    /// fetch per customer only if ids are configured. Optional collectors never fall back.
    pub(super) fn falls_back_to_per_customer(&self, due: &Due, result: &Result<(), PollError>) -> bool {
        if due.collector.descriptor().is_optional {
            return false;
        }
        let is_forbidden = result.as_ref().err().is_some_and(PollError::is_forbidden);
        let lacks_filter = self.uses_v1() && !self.config.customer_ids.is_empty();
        let is_possible = due.collector != CollectorId::CUSTOMERS || !self.config.fallback_ids.is_empty();
        let is_bulk = *self.fetch_modes.get(due.collector) == FetchMode::Bulk;
        due.target == Target::Partner && is_possible && is_bulk && (is_forbidden || lacks_filter)
    }

    pub(super) fn fall_back_to_per_customer(&mut self, due: &Due, result: &Result<(), PollError>) {
        if !self.falls_back_to_per_customer(due, result) {
            return;
        }
        let mode = if result.is_err() {
            warn!(
                collector = due.collector.name(),
                "bulk list unavailable; polling per customer"
            );
            FetchMode::PerCustomerUntilAllowed
        } else {
            FetchMode::PerCustomer
        };
        *self.fetch_modes.get_mut(due.collector) = mode;
        self.enqueue_targets();
    }
}
