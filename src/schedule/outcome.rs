//! Applies the outcome of a poll to the store, the log, the counters, and the target's next due time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tracing::{info, warn};

use super::fetch_mode::FetchMode;
use super::poll_error::PollError;
use super::queue::{self, Due, MonotonicTime, Urgency};
use super::{Outcome, Scheduler, wall_clock};
use crate::api::auth::DENIAL_LIFETIME;
use crate::api::{Error, Observer as _};
use crate::collector::{CollectorId, Customer, PollOutput, RecordSource as _, RenderedRecord, Target, TargetKind, ids};
use crate::domain::{CustomerId, TenantId};
use crate::error_chain::error_chain;
use crate::store::RunEvent;

/// Delay before the customer list is polled again after one that lacks too many customers. It is short, because the
/// result is uncertain until then.
const DOUBT_RECHECK: Duration = Duration::from_secs(60);

/// Delay before a customer that lacks a service is polled again. A newly bought service appears within a day.
pub const UNLICENSED_RECHECK: Duration = Duration::from_secs(24 * 3600);

/// Consecutive polls that must not find a single customer before it is removed.
const REMOVED_AFTER: u32 = 2;

/// Smallest fraction of an interval before the second poll. Second polls are spread over the rest, so that a start does
/// not make later cycles uneven.
const FIRST_SPREAD: f64 = 0.1;

/// What the result of a poll means for its target.
#[derive(Clone, Copy)]
enum Verdict<'a> {
    Succeeded,
    /// The target lacks the service.
    Unlicensed,
    /// The collector is polled per customer from now on, so the denial is not final.
    FallsBack,
    Failed(&'a PollError),
}

impl Scheduler {
    /// Classifies a result. If data of the target is known, a denial is an ordinary failure until that data has expired.
    fn verdict<'a>(&self, due: &Due, result: &'a Result<(), PollError>) -> Verdict<'a> {
        let is_known = || self.store.is_known(due.collector, &due.target, wall_clock());
        match result {
            Ok(()) => Verdict::Succeeded,
            Err(error) if error.is_unlicensed(due.collector) && !is_known() => Verdict::Unlicensed,
            Err(_) if self.falls_back_to_per_customer(due, result) => Verdict::FallsBack,
            Err(error) => Verdict::Failed(error),
        }
    }

    /// Commits an outcome to the store and decides when its target is due again.
    pub(super) fn handle_outcome(&mut self, outcome: Outcome) {
        let Outcome {
            due,
            request_settings,
            result,
        } = outcome;
        let now = self.now();
        self.free_slot(&due);
        if request_settings != due.collector.descriptor().request_settings(&self.config.settings) {
            // A reload changed the request, so this response is outdated.
            self.queue.done(due.collector, &due.target, now, Urgency::Ordinary);
            return;
        }
        if self.is_relisting(&due) {
            if result.is_err() {
                let next = self.relist_time(&due, now);
                self.queue.done(due.collector, &due.target, next, Urgency::Ordinary);
                return;
            }
            info!(collector = due.collector.name(), "bulk list available again");
            *self.fetch_modes.get_mut(due.collector) = FetchMode::Bulk;
            self.enqueue_targets();
        }
        let key = (due.collector, due.target.clone());
        let first = self.unpolled.remove(&key);
        let urgency = urgency(&due, &result);
        let is_committed = result.is_ok();
        let result = result.and_then(|output| self.commit(&due, output));
        let verdict = self.verdict(&due, &result);
        if let Err(error) = &result {
            // A commit records its failure itself.
            if !is_committed {
                self.record_failure(&due, error, verdict);
            }
            if !matches!(verdict, Verdict::Unlicensed) {
                self.explain(&due, error);
            }
        }
        self.note_permission(&due, &result);
        let interval = self.config.plans.get(due.collector).interval;
        let next = match verdict {
            Verdict::Succeeded => {
                self.note_recovery(&key);
                self.poll_followers(&due, now);
                self.next_after_success(&due, now, interval, first)
            }
            Verdict::Unlicensed => {
                self.failures.remove(&key);
                now.saturating_add(interval.max(UNLICENSED_RECHECK))
            }
            Verdict::FallsBack => self.relist_time(&due, now),
            Verdict::Failed(error) => self.next_after_failure(&due, now, interval, error),
        };
        self.fall_back_to_per_customer(&due, &result);
        if due.collector == CollectorId::CUSTOMERS {
            self.note_customers_listed(&result);
        }
        if self.queue.done(due.collector, &due.target, next, urgency) {
            self.end_of_cycle(&due, now);
        }
    }

    fn free_slot(&mut self, due: &Due) {
        let held = self.held.get_mut(due.collector);
        *held = held.saturating_sub(1);
        if let Some(polls) = self.in_progress.get_mut(&due.target) {
            *polls = polls.saturating_sub(1);
            if *polls == 0 {
                self.in_progress.remove(&due.target);
            }
        }
    }

    /// Records in the store that a poll failed.
    fn record_failure(&self, due: &Due, error: &PollError, verdict: Verdict<'_>) {
        if let Verdict::Unlicensed = verdict {
            self.store.unlicensed(due.collector, &due.target, wall_clock());
        } else if error.is_forbidden() || error.missing_permission().is_some() {
            self.store.forbid(due.collector, &due.target);
        } else {
            self.store.fail(due.collector, &due.target);
        }
    }

    /// Stores the reason for the status pages.
    fn explain(&self, due: &Due, error: &PollError) {
        let text = format!("{}: {}", error.endpoint(due.collector), error_chain(error.cause()));
        let is_outage = error.api().is_some_and(Error::is_outage);
        self.store
            .explain(due.collector, &due.target, &text, is_outage, wall_clock());
    }

    /// Ends the back-off of a target. The first customer list after failures shows the end of an outage.
    fn note_recovery(&mut self, key: &(CollectorId, Target)) {
        let (collector, _) = key;
        if self.failures.remove(key).is_some() {
            self.log_throttle.settle(collector.name());
            if *collector == CollectorId::CUSTOMERS {
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
        self.failed_any |= error.missing_permission().is_none();
        let failures = self.failures.entry((due.collector, due.target.clone())).or_default();
        *failures = failures.saturating_add(1);
        let failures = *failures;
        self.log_failure(due, error);
        if failures >= REMOVED_AFTER && matches!(error.api(), Some(Error::Status(404))) {
            self.remove_missing(due);
        }
        let refused = match (error, error.api()) {
            (PollError::Shrunk(_), _) => return now.saturating_add(DOUBT_RECHECK.min(interval)),
            (_, Some(Error::NotPermitted(_))) => return now.saturating_add(interval.min(DENIAL_LIFETIME)),
            (_, Some(Error::Unavailable(wait))) => Some(*wait),
            _ => None,
        };
        let may_repeat = || self.may_repeat(due, error);
        queue::failed_time(now, failures, interval, refused, may_repeat, fastrand::f64())
    }

    /// Queues the collectors that poll the items of the committed record.
    fn poll_followers(&mut self, due: &Due, now: MonotonicTime) {
        let is_follower = |id: &CollectorId| id.descriptor().after() == Some(due.collector);
        for follower in ids().filter(is_follower) {
            if self.is_enabled(follower) && self.store.unlicensed_at(follower, &due.target).is_none() {
                self.enqueue(follower, due.target.clone(), now, now);
                self.queue.bring_forward(follower, &due.target, now);
            }
        }
    }

    /// Returns whether a failed poll is repeated early. A poll that sends no request costs nothing, and the customer
    /// list detects the end of an outage; other repetitions use the retry budget.
    pub(super) fn may_repeat(&self, due: &Due, error: &PollError) -> bool {
        if error.is_forbidden() {
            return false;
        }
        let is_free = matches!(error.api(), Some(Error::Auth(_)));
        let covers_all_customers = due.collector == CollectorId::CUSTOMERS && due.target == Target::Partner;
        is_free
            || covers_all_customers
            || self
                .config
                .client
                .transport()
                .grants_repetition(error.endpoint(due.collector))
    }

    /// Returns when a successful poll is due again. First polls run immediately, so second ones are spread over the
    /// interval to make later cycles even.
    pub(super) fn next_after_success(
        &mut self,
        due: &Due,
        now: MonotonicTime,
        interval: Duration,
        first: bool,
    ) -> MonotonicTime {
        if first {
            let part = FIRST_SPREAD + (1.0 - FIRST_SPREAD) * fastrand::f64();
            return now.saturating_add(interval.mul_f64(part));
        }
        let (next, missed) = queue::next_time(due.since, now, interval, fastrand::f64());
        if missed > 0 {
            self.health.overran(due.collector.name(), missed);
        }
        next
    }

    /// Commits the output of a poll to the store; a customer list first updates the set of customers.
    pub(super) fn commit(&mut self, due: &Due, mut output: PollOutput) -> Result<(), PollError> {
        if due.collector == CollectorId::CUSTOMERS && !self.apply_customers(due, &mut output)? {
            return Ok(());
        }
        let mut incomplete = output.incomplete.take().map(PollError::from);
        let descriptor = due.collector.descriptor();
        // One empty response does not remove the data; it expires if more follow.
        if descriptor.is_optional
            && incomplete.is_none()
            && output.records.is_empty()
            && self.store.is_known(due.collector, &due.target, wall_clock())
        {
            incomplete = Some(PollError::Empty);
        }
        let complete = incomplete.is_none();
        let ended = std::mem::take(&mut output.ended);
        self.follow_up(due.collector, &output);
        let lost = self.lost_tenants(due.collector, &output);
        let records = self.render(due.collector, output);
        if let Err(over) = self
            .store
            .commit(due.collector, &due.target, records, complete, wall_clock())
        {
            self.health.dropped_series(over.series);
            return Err(PollError::SeriesLimit);
        }
        self.drop_tenants(&lost);
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

    /// Polls the items of a record again if the listed items have changed.
    fn follow_up(&mut self, collector: CollectorId, output: &PollOutput) {
        let descriptor = collector.descriptor();
        let polls_items = |id: &CollectorId| id.descriptor().items_from() == Some(collector) && self.is_enabled(*id);
        let followers: Vec<CollectorId> = ids().filter(polls_items).collect();
        if followers.is_empty() {
            return;
        }
        let now = self.now();
        for (id, record) in &output.records {
            let before = self.store.record(collector, id);
            if before.is_some_and(|before| descriptor.lists_others(record.as_ref(), before.as_ref())) {
                for follower in &followers {
                    let target = match follower.descriptor().target_kind {
                        TargetKind::Customer => Target::Customer(id.clone()),
                        TargetKind::Partner => Target::Partner,
                    };
                    self.queue.poll_again(*follower, &target, now);
                }
            }
        }
    }

    /// Returns the tenants of each customer that its new record no longer contains.
    fn lost_tenants(&self, collector: CollectorId, output: &PollOutput) -> BTreeMap<CustomerId, BTreeSet<TenantId>> {
        if collector != CollectorId::CUSTOMERS {
            return BTreeMap::new();
        }
        let lost = output.records.iter().filter_map(|(id, record)| {
            let before = self.store.record(collector, id)?;
            let before = Customer::of(before.as_ref())?;
            Some((id.clone(), Customer::of(record.as_ref())?.removed_tenants(before)))
        });
        lost.filter(|(_, tenants)| !tenants.is_empty()).collect()
    }

    /// Drops the data of the other collectors about removed tenants.
    fn drop_tenants(&self, lost: &BTreeMap<CustomerId, BTreeSet<TenantId>>) {
        for (id, gone) in lost {
            for collector in ids() {
                let descriptor = collector.descriptor();
                let record = self.store.record(collector, id);
                let Some(kept) = record.and_then(|record| descriptor.without_tenants(record.as_ref(), gone)) else {
                    continue;
                };
                let context = self.context(self.store.organization(id));
                if let Some((kept, _)) = descriptor.render(kept, id, &context) {
                    self.store.amend(collector, id, kept);
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

    /// Records whether the collector's permission is granted, and logs a change.
    pub(super) fn note_permission(&mut self, due: &Due, result: &Result<(), PollError>) {
        let missing = result.as_ref().err().and_then(PollError::missing_permission);
        let granted_by_token = || {
            let scope = due.collector.descriptor().scope(self.config.client.generation()?)?;
            self.config.client.transport().tokens().permitted(scope)
        };
        let permitted = missing.map_or_else(granted_by_token, |_| Some(false));
        let Some(permitted) = permitted else { return };
        let before = self.store.set_permitted(due.collector, permitted);
        if before == Some(permitted) {
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
        // Show the effect of a changed permission at once, even if the next poll is a day away.
        let targets: Vec<Target> = self.queue.targets(due.collector).cloned().collect();
        let now = self.now();
        for target in targets {
            let has_data = self.store.succeeded(due.collector, &target);
            let is_unlicensed = self.store.unlicensed_at(due.collector, &target).is_some();
            if brings_forward(before, permitted, has_data, is_unlicensed) {
                self.queue.bring_forward(due.collector, &target, now);
            }
        }
    }

    /// Brings forward a poll of each optional collector whose permission was revoked according to a newer token. If its
    /// customers lack the service, the next poll may be a day away.
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
            let is_refused = self.config.client.transport().tokens().permitted(scope) == Some(false);
            if is_refused && self.store.permitted(collector) == Some(true) {
                for target in self.queue.targets(collector).take(1).cloned().collect::<Vec<_>>() {
                    self.queue.bring_forward(collector, &target, now);
                }
            }
        }
    }

    /// Counts and logs a failed poll. Repeated reasons of a collector are logged with growing pauses.
    pub(super) fn log_failure(&mut self, due: &Due, error: &PollError) {
        if error.missing_permission().is_some() {
            return;
        }
        let (endpoint, reason) = (error.endpoint(due.collector), error.reason());
        self.health.poll_failed(endpoint, reason);
        let collector = due.collector.name();
        if let Some(repeated) = self.log_throttle.raise(collector, reason, self.started.elapsed()) {
            warn!(
                collector,
                endpoint = endpoint.as_str(),
                reason,
                customer_id = %due.target.log_safe(),
                repeated,
                request_id = error.request_id().map(tracing::field::display),
                error = error_chain(error.cause()),
                "poll failed; serving last known values"
            );
        }
    }

    /// Makes failed targets due immediately after an outage, and running polls that may have been sent during it. The
    /// rate limiter spreads them.
    pub(super) fn bring_forward_failed(&mut self) {
        let now = self.now();
        let failed: Vec<(CollectorId, Target)> = self.failures.keys().cloned().collect();
        for (collector, target) in failed {
            self.queue.poll_again(collector, &target, now);
        }
    }
}

/// Returns whether a newly known or changed permission brings forward the poll of a target. After a restart every
/// permission is newly known, and a customer that lacked the service before is still polled once a day.
fn brings_forward(before: Option<bool>, permitted: bool, has_data: bool, is_unlicensed: bool) -> bool {
    match permitted {
        true => !has_data && (before == Some(false) || !is_unlicensed),
        false => is_unlicensed,
    }
}

/// Returns the urgency of the next poll. A customer without a run in progress can wait longest; without a record,
/// nothing is known about its runs.
fn urgency(due: &Due, result: &Result<PollOutput, PollError>) -> Urgency {
    let quiet = match (result, &due.target) {
        (Ok(output), Target::Customer(id)) => {
            let kept = output.records.get(id);
            kept.is_some_and(|kept| due.collector.descriptor().is_quiet(kept.as_ref()))
        }
        _ => false,
    };
    if quiet { Urgency::Quiet } else { Urgency::Ordinary }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_after_a_start_poll_no_unlicensed_customers() {
        assert!(!brings_forward(None, true, false, true));
        assert!(brings_forward(None, true, false, false));
        assert!(brings_forward(Some(false), true, false, true));
        assert!(!brings_forward(Some(false), true, true, false));
        assert!(brings_forward(Some(true), false, false, true));
        assert!(brings_forward(None, false, false, true));
        assert!(!brings_forward(Some(true), false, false, false));
    }
}
