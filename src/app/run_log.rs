//! `events.runs`: writes a log line for each completed job run.

use tracing::{info, warn};

use crate::collector::CompletedRun;
use crate::domain::{Timestamp, replace_misleading};
use crate::store::RunEvent;

/// Logs runs, and the number of earlier runs that were dropped because the state could not be saved.
pub(super) fn log_runs((events, dropped): (Vec<RunEvent>, u64)) {
    for event in &events {
        log_run(event);
    }
    if dropped > 0 {
        warn!(dropped, "run events dropped because the state could not be saved");
    }
}

/// Logs a run. The message and the field names are part of the public interface, because log queries use them.
fn log_run(event: &RunEvent) {
    let CompletedRun { key, run } = &event.ended;
    info!(
        customer_id = %single_line(event.customer.as_str()),
        organization = %single_line(&event.organization),
        service = %single_line(&key.service),
        module = %single_line(&key.module),
        scope = key.scope.as_deref().map(single_line).map(tracing::field::display),
        job_id = run.id.as_deref().map(single_line).map(tracing::field::display),
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

/// Replaces misleading characters, including line breaks. Unlike other log fields, the text is not truncated. It
/// therefore equals the label value, unless the label value contains a newline.
fn single_line(text: &str) -> String {
    text.chars().map(replace_misleading).collect()
}
