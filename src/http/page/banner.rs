//! The banner. It shows whether the data is up to date and, if it is not, why.

use std::time::Duration;

use maud::{Markup, html};

use super::words::{Severity, clock, count, counted, sanitize, span};
use crate::collector::CollectorId;
use crate::domain::Timestamp;
use crate::status::{CollectorSummary, Summary};
use crate::store::State;

/// Time before a credential's expiry at which the banner starts to warn. Renewing a credential may require approval.
const CREDENTIAL_WARNING: Duration = Duration::from_secs(21 * 24 * 3600);

/// The contents of the banner.
struct DataStatus {
    severity: Severity,
    headline: String,
    reasons: Vec<String>,
}

pub(super) fn banner(summary: &Summary) -> Markup {
    let status = DataStatus::of(summary);
    html! {
        div.card.banner.{ (status.severity.class()) } {
            strong { (status.headline) } " "
            span.soft { (api_state(summary)) " · " (counted(summary.customers.len(), "customer", "customers")) }
            @if !status.reasons.is_empty() {
                (reason_list(&status.reasons))
            }
        }
    }
}

/// Describes in a few words whether the API is up.
pub(super) fn api_state(summary: &Summary) -> &'static str {
    match (summary.runtime.is_up(), summary.runtime.schedule.customers_listed) {
        _ if summary.is_unreachable => "API down",
        (true, _) => "API up",
        _ if summary.runtime.client.token == Some(false) => "API down: no token",
        (_, Some(_)) => "API down: no customer list",
        (_, None) => "API not polled yet",
    }
}

impl DataStatus {
    fn of(summary: &Summary) -> Self {
        let list = summary.collector(CollectorId::CUSTOMERS);
        let mut error = list
            .and_then(|list| list.error.as_ref())
            .filter(|_| !summary.runtime.is_up());
        let mut reasons = Vec::new();
        let (severity, headline) = if !summary.is_alive {
            let silence = span(summary.silence);
            reasons.push(format!(
                "The poll loop has not run for {silence}. Restart the exporter."
            ));
            (Severity::Bad, problem_headline("Poll loop stalled", summary))
        } else if summary.runtime.client.token == Some(false) {
            reasons.push("The latest token request failed. Run elements_exporter check for details.".to_owned());
            (Severity::Bad, problem_headline("No API token", summary))
        } else if summary.is_unreachable {
            let errors = summary
                .collectors
                .iter()
                .filter_map(|collector| collector.error.as_ref());
            error = errors.max_by_key(|error| error.at);
            (Severity::Bad, problem_headline("API unreachable", summary))
        } else if summary.runtime.schedule.customers_listed == Some(false) {
            let fetched = list.and_then(|list| list.newest).map(|at| clock(at, summary.now));
            let fetched = fetched.map_or_else(|| "never fetched".to_owned(), |at| format!("last fetched {at}"));
            (Severity::Bad, format!("Customer list unavailable, {fetched}."))
        } else if !summary.runtime.is_up() {
            (Severity::Idle, "Waiting for the first customer list.".to_owned())
        } else {
            freshness(summary)
        };
        if let Some(error) = error {
            let ago = span(summary.now.since(error.at));
            reasons.push(format!("{} ({ago} ago).", sanitize(&error.text)));
        }
        if summary.collector(CollectorId::JOBS).is_none() {
            reasons.push("jobs: disabled, so the backup status is unknown.".to_owned());
        }
        reasons.extend(summary.collectors.iter().filter_map(reason));
        reasons.extend(other_reasons(summary));
        Self {
            severity,
            headline,
            reasons,
        }
    }
}

/// Maximum number of visible reasons, so that the customers below are visible even on a phone.
const VISIBLE_REASONS: usize = 2;

fn reason_list(reasons: &[String]) -> Markup {
    let (first, more) = reasons.split_at(reasons.len().min(VISIBLE_REASONS));
    let items = |reasons: &[String]| html! { @for reason in reasons { li { (reason) } } };
    html! {
        ul { (items(first)) }
        @if !more.is_empty() {
            details { summary { (more.len()) " more" } ul { (items(more)) } }
        }
    }
}

/// Returns a headline with a problem and the time of the displayed data.
fn problem_headline(problem: &str, summary: &Summary) -> String {
    let newest = |collector: Option<&CollectorSummary>| collector.and_then(|collector| collector.newest);
    let any = || summary.collectors.iter().filter_map(|collector| collector.newest).max();
    match newest(summary.collector(CollectorId::JOBS)).or_else(any) {
        _ if summary.customers.is_empty() => format!("{problem}. No data yet."),
        Some(at) => format!("{problem}. Showing data from {}.", clock(at, summary.now)),
        None => format!("{problem}. Showing data from before the restart."),
    }
}

/// Returns the severity and the headline while the API responds. The severity is `Good` only if the data of all
/// collectors is fresh.
fn freshness(summary: &Summary) -> (Severity, String) {
    let permitted = || summary.collectors.iter().filter(|collector| collector.is_permitted());
    let of_all = |count: fn(&CollectorSummary) -> usize| permitted().map(count).sum::<usize>();
    let (outdated, fresh) = (
        of_all(CollectorSummary::outdated),
        of_all(|collector| collector.count(State::Fresh)),
    );
    let is_lost = |collector: &CollectorSummary| collector.outdated() > 0 && collector.count(State::Fresh) == 0;
    let (severity, headline) = if outdated > fresh || permitted().any(is_lost) {
        (Severity::Bad, "Most data is out of date")
    } else if outdated > 0 {
        (Severity::Warn, "Some data is out of date")
    } else if !summary.customers.is_backup_status_collected {
        (Severity::Warn, "Backup status is not collected")
    } else if permitted().count() < summary.collectors.len() {
        (Severity::Warn, "Some data is not collected")
    } else if of_all(|collector| collector.count(State::Pending)) > 0 {
        (Severity::Idle, "First polls are in progress")
    } else if summary.customers.is_empty() {
        return (Severity::Warn, "No customers match.".to_owned());
    } else {
        (Severity::Good, "Data is up to date")
    };
    let oldest = summary.collector(CollectorId::JOBS).and_then(|jobs| jobs.oldest);
    let age = oldest.map(|oldest| format!(", oldest {}", span(summary.now.since(oldest))));
    (severity, headline.to_owned() + &age.unwrap_or_default())
}

/// Returns the reason why some of a collector's data is not fresh, if any.
fn reason(collector: &CollectorSummary) -> Option<String> {
    let name = collector.overview.collector.name();
    if !collector.is_permitted() {
        return Some(format!("{name}: permission missing, so nothing is collected."));
    }
    let parts = [
        (State::Failed, "failed poll", "failed polls"),
        (State::Stale, "customer with stale data", "customers with stale data"),
        (State::Forbidden, "customer forbidden", "customers forbidden"),
        (State::Pending, "customer pending", "customers pending"),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(state, ..)| collector.count(*state) > 0)
        // A poll for all customers fails once, regardless of the number of customers.
        .map(|(state, one, many)| match (state, collector.is_bulk) {
            (State::Failed, true) => "the latest poll failed".to_owned(),
            _ => counted(collector.count(state), one, many),
        })
        .collect();
    (!parts.is_empty()).then(|| format!("{name}: {}.", parts.join(", ")))
}

/// Returns warnings about the configuration, the state file and the credential.
fn other_reasons(summary: &Summary) -> Vec<String> {
    let mut reasons = Vec::new();
    if !summary.runtime.loaded.config {
        reasons.push(
            "The latest configuration reload failed. The previous configuration is still active. The log contains the \
             reason."
                .to_owned(),
        );
    }
    if summary.runtime.loaded.state == Some(false) {
        reasons.push("The state file could not be loaded at startup. The log contains the reason.".to_owned());
    }
    let expiry = summary
        .runtime
        .client
        .credential_expiry
        .map(Timestamp::from_unix_seconds);
    let left = expiry.map(|expiry| expiry.since(summary.now));
    if let Some(left) = left.filter(|left| *left < CREDENTIAL_WARNING) {
        let when = match left.is_zero() {
            true => "has expired".to_owned(),
            false => format!("expires in {}", span(left)),
        };
        reasons.push(format!(
            "The credential {when}. Create a new one in Elements, under Settings > API app registration."
        ));
    }
    reasons
}

/// Formats a number of affected customers. A plain 0 would be misleading while the state of some customers is unknown.
pub(super) fn count_of_known(number: usize, known: usize, all: usize) -> String {
    match number {
        0 if known == 0 && all > 0 => "unknown".to_owned(),
        0 if known < all => format!("0 of {}", count(known)),
        number => count(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_displayed_only_if_all_customers_are_known() {
        assert_eq!(count_of_known(0, 8, 8), "0");
        assert_eq!(count_of_known(0, 7, 8), "0 of 7");
        assert_eq!(count_of_known(0, 0, 8), "unknown");
        assert_eq!(count_of_known(3, 0, 8), "3");
        assert_eq!(count_of_known(0, 0, 0), "0");
    }
}
