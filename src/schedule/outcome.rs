//! Handles outcomes of polls: updates the store, the log, the counters and the target's due time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tracing::{info, warn};

use super::fetch_mode::FetchMode;
use super::poll_error::PollError;
use super::queue::{self, Due, MonotonicTime, Urgency};
use super::{Outcome, Scheduler, wall_clock};
use crate::api::auth::DENIAL_LIFETIME;
use crate::api::{Error, Observer as _};
use crate::collector::{
    CollectorId, Customer, PollOutput, RecordSource as _, RenderedRecord, Target, TargetKind, UNLICENSED_RECHECK, ids,
};
use crate::domain::{CustomerId, TenantId};
use crate::error_chain::error_chain;
use crate::store::RunEvent;

/// Delay before the customer list is polled again if too many customers are missing from it. The delay is short,
/// because until then it is unknown which customers exist.
const SHRUNK_RECHECK: Duration = Duration::from_secs(60);

/// Number of consecutive failures after which a customer has probably been removed, if the last failure has status 404.
const REMOVED_AFTER: u32 = 2;

/// Minimum delay before the second poll, as a fraction of the interval. All first polls are immediate. Second polls are
/// spread over the rest of the interval, so that the load is even in later cycles.
const MIN_SECOND_DELAY: f64 = 0.1;

/// Classified result of a poll.
#[derive(Clone, Copy)]
enum ResultKind<'a> {
    Success,
    /// The target lacks the service.
    Unlicensed,
    /// The bulk list is unavailable, so the collector polls per customer from now on.
    Fallback,
    Failure(&'a PollError),
}

impl Scheduler {
    /// Classifies a result. An error that indicates a missing service counts as an ordinary failure while the target
    /// has unexpired data.
    fn classify<'a>(&self, due: &Due, result: &'a Result<(), PollError>) -> ResultKind<'a> {
        let is_known = || self.store.is_known(due.collector, &due.target, wall_clock());
        match result {
            Ok(()) => ResultKind::Success,
            Err(error) if error.is_unlicensed(due.collector) && !is_known() => ResultKind::Unlicensed,
            Err(_) if self.falls_back_to_per_customer(due, result) => ResultKind::Fallback,
            Err(error) => ResultKind::Failure(error),
        }
    }

    /// Commits an outcome to the store, and requeues its target.
    pub(super) fn handle_outcome(&mut self, outcome: Outcome) {
        let Outcome { due, settings, result } = outcome;
        let now = self.now();
        self.running.finish(due.collector, &due.target);
        if !(due.collector.descriptor().polls_alike)(&settings, &self.config.settings) {
            // A reload has changed the request, so the response is outdated.
            self.queue.done(due.collector, &due.target, now, Urgency::Ordinary);
            return;
        }
        if self.is_bulk_retry(&due) {
            if result.is_err() {
                let next = self.bulk_retry_time(&due, now);
                self.queue.done(due.collector, &due.target, next, Urgency::Ordinary);
                return;
            }
            info!(collector = due.collector.name(), "bulk list available again");
            *self.fetch_modes.get_mut(due.collector) = FetchMode::Bulk;
            self.enqueue_targets();
        }
        let is_first = self.unpolled.remove(&(due.collector, due.target.clone()));
        let urgency = urgency(&due, &result);
        let is_fetched = result.is_ok();
        let result = result.and_then(|output| self.commit(&due, output));
        let kind = self.classify(&due, &result);
        if let Err(error) = &result {
            // `commit` has already recorded its own failure in the store.
            if !is_fetched {
                self.record_failure(&due, error, kind);
            }
            if !matches!(kind, ResultKind::Unlicensed) {
                self.record_error(&due, error);
            }
        }
        self.record_permission(&due, &result);
        let interval = self.config.plans.get(due.collector).interval;
        let next = match kind {
            ResultKind::Success => {
                self.handle_recovery(&due);
                self.queue_dependents(&due, now);
                self.next_after_success(&due, now, interval, is_first)
            }
            ResultKind::Unlicensed => {
                self.failures.end(due.collector, &due.target);
                now.saturating_add(interval.max(UNLICENSED_RECHECK))
            }
            ResultKind::Fallback => self.bulk_retry_time(&due, now),
            ResultKind::Failure(error) => self.next_after_failure(&due, now, interval, error),
        };
        self.fall_back_to_per_customer(&due, &result);
        if due.collector == CollectorId::CUSTOMERS {
            self.record_list_result(&result);
        }
        if self.queue.done(due.collector, &due.target, next, urgency) {
            self.advance_cycle(&due, now);
        }
    }

    /// Records in the store that a poll failed.
    fn record_failure(&self, due: &Due, error: &PollError, kind: ResultKind<'_>) {
        if let ResultKind::Unlicensed = kind {
            self.store.mark_unlicensed(due.collector, &due.target, wall_clock());
        } else if error.is_forbidden() || error.missing_permission().is_some() {
            self.store.mark_forbidden(due.collector, &due.target);
        } else {
            self.store.mark_failed(due.collector, &due.target);
        }
    }

    /// Stores the error for the status pages.
    fn record_error(&self, due: &Due, error: &PollError) {
        let text = format!("{}: {}", error.endpoint(due.collector), error_chain(error.cause()));
        let is_outage = error.api().is_some_and(Error::is_outage);
        self.store
            .set_error(due.collector, &due.target, &text, is_outage, wall_clock());
    }

    /// Ends the back-off of a target. The first customer list after failures marks the end of an outage.
    fn handle_recovery(&mut self, due: &Due) {
        if self.failures.end(due.collector, &due.target) {
            self.customer_list.end_verification(&due.target);
            self.failures.log_throttle.relax(due.collector.name());
            if due.collector == CollectorId::CUSTOMERS {
                self.bring_forward_failed();
            }
        }
    }

    /// Counts and logs a failure, and returns when the target is due again.
    fn next_after_failure(
        &mut self,
        due: &Due,
        now: MonotonicTime,
        interval: Duration,
        error: &PollError,
    ) -> MonotonicTime {
        self.failures.has_any_failed |= error.missing_permission().is_none();
        let failures = self.failures.add(due.collector, &due.target);
        self.log_failure(due, error);
        if failures >= REMOVED_AFTER && matches!(error.api(), Some(Error::Status(404))) {
            self.remove_missing(due);
            self.verify_listed(due);
        }
        let rejected = match (error, error.api()) {
            (PollError::Shrunk(_), _) => return now.saturating_add(SHRUNK_RECHECK.min(interval)),
            (_, Some(Error::NotPermitted(_))) => return now.saturating_add(interval.min(DENIAL_LIFETIME)),
            (_, Some(Error::Unavailable(wait))) => Some(*wait),
            _ => None,
        };
        let may_repeat = || self.may_repeat(due, error);
        queue::failed_time(now, failures, interval, rejected, may_repeat, fastrand::f64())
    }

    /// Queues the polls of the collectors that poll after this collector.
    fn queue_dependents(&mut self, due: &Due, now: MonotonicTime) {
        let is_dependent = |id: &CollectorId| id.descriptor().after() == Some(due.collector);
        for dependent in ids().filter(is_dependent) {
            if self.is_enabled(dependent) && self.store.unlicensed_at(dependent, &due.target).is_none() {
                self.enqueue(dependent, due.target.clone(), now, now);
                self.queue.bring_forward(dependent, &due.target, now);
            }
        }
    }

    /// Returns whether a failed poll is repeated early. Forbidden polls are not repeated early. Polls that fail because
    /// there is no token do not send a request, so they may be repeated. Polls of the customer list may also be
    /// repeated, because they detect the end of an outage. Other polls are repeated only while the retry budget lasts.
    pub(super) fn may_repeat(&self, due: &Due, error: &PollError) -> bool {
        if error.is_forbidden() {
            return false;
        }
        let sends_no_request = matches!(error.api(), Some(Error::Auth(_)));
        let is_customer_list = due.collector == CollectorId::CUSTOMERS && due.target == Target::Partner;
        sends_no_request
            || is_customer_list
            || self
                .config
                .client
                .transport()
                .may_repeat_poll(error.endpoint(due.collector))
    }

    /// Returns when a target is due again after a successful poll. See [`MIN_SECOND_DELAY`] for the first poll.
    pub(super) fn next_after_success(
        &mut self,
        due: &Due,
        now: MonotonicTime,
        interval: Duration,
        is_first: bool,
    ) -> MonotonicTime {
        if is_first {
            let fraction = MIN_SECOND_DELAY + (1.0 - MIN_SECOND_DELAY) * fastrand::f64();
            return now.saturating_add(interval.mul_f64(fraction));
        }
        let (next, missed) = queue::next_time(due.since, now, interval, fastrand::f64());
        if missed > 0 {
            self.health.count_overruns(due.collector.name(), missed);
        }
        next
    }

    /// Commits the output of a poll to the store. A customer list first updates the set of customers.
    pub(super) fn commit(&mut self, due: &Due, mut output: PollOutput) -> Result<(), PollError> {
        if due.collector == CollectorId::CUSTOMERS && !self.apply_customers(due, &mut output)? {
            return Ok(());
        }
        let mut incomplete = output.incomplete.take().map(PollError::from);
        let descriptor = due.collector.descriptor();
        // An empty response to an optional collector does not remove the last known values. They expire if more empty
        // responses follow.
        if descriptor.is_optional
            && incomplete.is_none()
            && output.records.is_empty()
            && self.store.is_known(due.collector, &due.target, wall_clock())
        {
            incomplete = Some(PollError::Empty);
        }
        let complete = incomplete.is_none();
        let ended = std::mem::take(&mut output.ended);
        self.poll_changed_items(due.collector, &output);
        let removed_tenants = self.removed_tenants(due.collector, &output);
        let records = self.render(due.collector, output);
        if let Err(over) = self
            .store
            .commit(due.collector, &due.target, records, complete, wall_clock())
        {
            self.health.dropped_series(over.series);
            return Err(PollError::SeriesLimit);
        }
        self.drop_tenants(&removed_tenants);
        if self.config.run_events {
            self.store
                .run_events()
                .add(ended.into_iter().map(|(customer, ended)| RunEvent {
                    organization: self.store.organization(&customer),
                    customer,
                    ended,
                }));
        }
        if due.collector == CollectorId::CUSTOMERS
            && let Target::Customer(id) = &due.target
        {
            self.queue_customer(id, self.now());
        }
        incomplete.map_or(Ok(()), Err)
    }

    /// Repeats the polls of the collectors that request the items in a record, if these items have changed.
    fn poll_changed_items(&mut self, collector: CollectorId, output: &PollOutput) {
        let descriptor = collector.descriptor();
        let polls_items = |id: &CollectorId| id.descriptor().items_from() == Some(collector) && self.is_enabled(*id);
        let dependents: Vec<CollectorId> = ids().filter(polls_items).collect();
        if dependents.is_empty() {
            return;
        }
        let now = self.now();
        for (id, record) in &output.records {
            let before = self.store.record(collector, id);
            if before.is_some_and(|before| descriptor.lists_other_items(record.as_ref(), before.as_ref())) {
                for dependent in &dependents {
                    let target = match dependent.descriptor().target_kind {
                        TargetKind::Customer => Target::Customer(id.clone()),
                        TargetKind::Partner => Target::Partner,
                    };
                    self.queue.poll_again(*dependent, &target, now);
                }
            }
        }
    }

    /// Returns, for each customer, the tenants that the new record no longer contains.
    fn removed_tenants(&self, collector: CollectorId, output: &PollOutput) -> BTreeMap<CustomerId, BTreeSet<TenantId>> {
        if collector != CollectorId::CUSTOMERS {
            return BTreeMap::new();
        }
        let removed = output.records.iter().filter_map(|(id, record)| {
            let before = self.store.record(collector, id)?;
            let before = Customer::of(before.as_ref())?;
            Some((id.clone(), Customer::of(record.as_ref())?.removed_tenants(before)))
        });
        removed.filter(|(_, tenants)| !tenants.is_empty()).collect()
    }

    /// Drops other collectors' data about removed tenants.
    fn drop_tenants(&self, removed: &BTreeMap<CustomerId, BTreeSet<TenantId>>) {
        for (id, tenants) in removed {
            for collector in ids() {
                let descriptor = collector.descriptor();
                let record = self.store.record(collector, id);
                let Some(kept) = record.and_then(|record| descriptor.without_tenants(record.as_ref(), tenants)) else {
                    continue;
                };
                let context = self.context(self.store.organization(id));
                if let Some((kept, _)) = descriptor.render(kept, id, &context) {
                    self.store.narrow_record(collector, id, kept);
                }
            }
        }
    }

    /// Renders records with the current settings and names, which may have changed during the poll.
    pub(super) fn render(&self, collector: CollectorId, output: PollOutput) -> BTreeMap<CustomerId, RenderedRecord> {
        let descriptor = collector.descriptor();
        let context_of = |id: &CustomerId| self.context(self.store.organization(id));
        let (rendered, duplicates) = descriptor.render_all(output.records, context_of);
        if duplicates > 0 {
            self.health.duplicate_rows(descriptor.endpoint, duplicates);
        }
        rendered
    }

    /// Records whether the collector's permission is granted. If that has changed, logs a missing permission and brings
    /// forward the affected polls.
    pub(super) fn record_permission(&mut self, due: &Due, result: &Result<(), PollError>) {
        let missing = result.as_ref().err().and_then(PollError::missing_permission);
        let granted_by_token = || {
            let scope = due.collector.descriptor().scope(self.config.client.generation()?)?;
            self.config.client.transport().tokens().permitted(scope)
        };
        let is_permitted = missing.map_or_else(granted_by_token, |_| Some(false));
        let Some(is_permitted) = is_permitted else { return };
        let before = self.store.set_permitted(due.collector, is_permitted);
        if before == Some(is_permitted) {
            return;
        }
        match missing {
            Some(_) if self.uses_v1() && due.collector.descriptor().is_optional => warn!(
                collector = due.collector.name(),
                "collector disabled: it needs API v3, but the registration is for v1"
            ),
            Some(scope) => warn!(
                collector = due.collector.name(),
                permission = scope,
                "permission missing; collector disabled until it is granted"
            ),
            None => {}
        }
        // A changed permission takes effect immediately, even if the next poll is a day away.
        let now = self.now();
        for target in self.targets(due.collector) {
            let has_data = self.store.succeeded(due.collector, &target);
            let is_unlicensed = self.store.unlicensed_at(due.collector, &target).is_some();
            if brings_forward(before, is_permitted, has_data, is_unlicensed) {
                self.queue.bring_forward(due.collector, &target, now);
            }
        }
    }

    /// Brings forward one poll of each optional collector whose permission was revoked according to the latest token.
    /// If the customers lack the service, the next regular poll could be a day away.
    pub(super) fn watch_permissions(&mut self) {
        let now = self.now();
        for collector in ids()
            .filter(|id| id.descriptor().is_optional && self.is_enabled(*id))
            .collect::<Vec<_>>()
        {
            let generation = self.config.client.generation();
            let Some(scope) = generation.and_then(|generation| collector.descriptor().scope(generation)) else {
                continue;
            };
            let is_revoked = self.config.client.transport().tokens().permitted(scope) == Some(false);
            if is_revoked && self.store.permitted(collector) == Some(true) {
                for target in self.queue.targets(collector).take(1).cloned().collect::<Vec<_>>() {
                    self.queue.bring_forward(collector, &target, now);
                }
            }
        }
    }

    /// Counts and logs a failed poll, unless a permission is missing. Repeated failures of a collector for the same
    /// reason are logged less often.
    pub(super) fn log_failure(&mut self, due: &Due, error: &PollError) {
        if error.missing_permission().is_some() {
            return;
        }
        let (endpoint, reason) = (error.endpoint(due.collector), error.reason());
        self.health.poll_failed(endpoint, reason);
        let (collector, now) = (due.collector.name(), self.now());
        if let Some(suppressed) = self.failures.log_throttle.permit(collector, reason, now) {
            warn!(
                collector,
                endpoint = endpoint.as_str(),
                reason,
                customer_id = %due.target.log_safe(),
                suppressed,
                request_id = error.request_id().map(tracing::field::display),
                error = error_chain(error.cause()),
                "poll failed; serving last known values"
            );
        }
    }

    /// Polls failed targets again after an outage. Running polls are repeated, because their requests may have been
    /// sent during the outage. The rate limiter spreads the requests.
    pub(super) fn bring_forward_failed(&mut self) {
        let now = self.now();
        for (collector, target) in self.failures.failed_targets() {
            self.queue.poll_again(collector, &target, now);
        }
    }
}

/// Returns whether a poll is brought forward because the collector's permission has become known or changed. After a
/// restart, a granted permission does not bring forward the polls of customers that lacked the service. They are still
/// polled once a day.
fn brings_forward(before: Option<bool>, is_permitted: bool, has_data: bool, is_unlicensed: bool) -> bool {
    match is_permitted {
        true => !has_data && (before == Some(false) || !is_unlicensed),
        false => is_unlicensed,
    }
}

/// Returns the urgency of the next poll. A customer without a run in progress can wait longer than others. Without a
/// record, it is unknown whether a run is in progress.
fn urgency(due: &Due, result: &Result<PollOutput, PollError>) -> Urgency {
    let is_quiet = match (result, &due.target) {
        (Ok(output), Target::Customer(id)) => {
            let record = output.records.get(id);
            record.is_some_and(|record| due.collector.descriptor().is_quiet(record.as_ref()))
        }
        _ => false,
    };
    if is_quiet { Urgency::Quiet } else { Urgency::Ordinary }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_does_not_bring_forward_unlicensed_customers() {
        assert!(!brings_forward(None, true, false, true));
        assert!(brings_forward(None, true, false, false));
        assert!(brings_forward(Some(false), true, false, true));
        assert!(!brings_forward(Some(false), true, true, false));
        assert!(brings_forward(Some(true), false, false, true));
        assert!(brings_forward(None, false, false, true));
        assert!(!brings_forward(Some(true), false, false, false));
    }
}
