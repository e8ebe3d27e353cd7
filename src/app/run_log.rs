//! `events.runs`: one log line for each job run that was seen to end.

use tracing::{info, warn};

use crate::domain::{Timestamp, is_disguising};
use crate::store::RunEvent;

/// Logs runs, and how many were dropped before because they could not be logged in time.
pub(super) fn log_runs((events, dropped): (Vec<RunEvent>, u64)) {
    for event in &events {
        log_run(event);
    }
    if dropped > 0 {
        warn!(dropped, "run events dropped because the state could not be saved");
    }
}

/// Message and names of fields are part of the public interface: queries use them.
fn log_run(event: &RunEvent) {
    let (ended, run) = (&event.ended, &event.ended.run);
    info!(
        customer_id = %inert(event.customer.as_str()),
        organization = %inert(&event.organization),
        service = %inert(&ended.service),
        module = %inert(&ended.module),
        scope = ended.scope.as_deref().map(inert).map(tracing::field::display),
        job_id = run.id.as_deref().map(inert).map(tracing::field::display),
        status = run.status.label(),
        processed = run.processed,
        successful = run.successful,
        failed = run.failed,
        skipped = run.skipped,
        warning = run.warning,
        start = run.start.and_then(Timestamp::to_calendar).map(tracing::field::display),
        end = run.end.and_then(Timestamp::to_calendar).map(tracing::field::display),
        "job run ended"
    );
}

/// Returns a text whole, as its labels in the metrics have it, without line breaks and what reorders a line.
fn inert(text: &str) -> String {
    let inert = |character| match is_disguising(character) {
        true => char::REPLACEMENT_CHARACTER,
        false => character,
    };
    text.chars().map(inert).collect()
}
