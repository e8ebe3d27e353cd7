//! Whether what asks once for all customers has to ask about each by itself.

use tracing::warn;

use super::queue::{Due, Moment};
use super::{CUSTOMERS_INDEX, LONGEST_SLEEP, Scheduler, entry_name};
use crate::api::{Failure, Generation};
use crate::collector::{Entry, Reach, Target};

/// After how many intervals a list of all that was refused is asked for again. A registration that may see only some
/// customers is refused for good and pays a tenth of a round for it; a refusal in passing would otherwise make a request
/// for each customer out of one for all until the next start.
const RELIST_ROUNDS: u32 = 10;

/// How a collector that is made to ask once for all asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    /// As it is made to.
    AsMade,
    /// About each customer by itself, because the operator named them.
    Each,
    /// About each customer by itself, because the list of all was refused.
    EachUntilAllowed,
}

impl Scheduler {
    /// Whether each customer is asked for by itself instead of the list of all.
    pub(super) fn lists_each(&self) -> bool {
        self.asking_of(CUSTOMERS_INDEX) != Asking::AsMade
    }

    pub(super) fn asks_each(&self, collector: usize, entry: &Entry) -> bool {
        entry.reach == Reach::Customer || self.asking_of(collector) != Asking::AsMade
    }

    pub(super) fn asking_of(&self, collector: usize) -> Asking {
        self.asking.get(collector).copied().unwrap_or(Asking::AsMade)
    }

    pub(super) fn set_asking(&mut self, collector: usize, asking: Asking) {
        if let Some(known) = self.asking.get_mut(collector) {
            *known = asking;
        }
    }

    /// Whether a poll looks if the list of all, which was refused, is allowed again.
    pub(super) fn is_relisting(&self, due: &Due) -> bool {
        due.target == Target::Partner && self.asking_of(due.collector) == Asking::EachUntilAllowed
    }

    pub(super) fn relist_time(&self, due: &Due, now: Moment) -> Moment {
        let plan = self.orders.plans.get(due.collector);
        now.saturating_add(plan.map_or(LONGEST_SLEEP, |plan| plan.interval.saturating_mul(RELIST_ROUNDS)))
    }

    pub(super) fn speaks_v1(&self) -> bool {
        self.orders.gateway.generation() == Some(Generation::V1)
    }

    /// Whether a collector has to ask about each customer by itself from now on: a registration that may see only some
    /// customers is refused the lists of all, and in the first generation customers named by id are asked for one by
    /// one. The list of customers itself can only be replaced where some are named.
    pub(super) fn falls_back_to_each(&self, due: &Due, result: &Result<(), Failure>) -> bool {
        let refused = matches!(result, Err(failure) if failure.error.is_forbidden());
        let named = self.speaks_v1() && !self.orders.customer_ids.is_empty();
        let possible = due.collector != CUSTOMERS_INDEX || !self.orders.fallback_ids.is_empty();
        let as_made = self.asking_of(due.collector) == Asking::AsMade;
        due.target == Target::Partner && possible && as_made && (refused || named)
    }

    pub(super) fn fall_back_to_each(&mut self, due: &Due, result: &Result<(), Failure>) {
        if !self.falls_back_to_each(due, result) {
            return;
        }
        if result.is_err() {
            warn!(
                collector = entry_name(due.collector),
                "the list of all customers is refused; asking about each customer by itself"
            );
        }
        let refused = result.is_err();
        let asking = if refused {
            Asking::EachUntilAllowed
        } else {
            Asking::Each
        };
        self.set_asking(due.collector, asking);
        self.arrange();
    }
}
