//! The exporter's own state, in a collapsed section: general facts, and one row per collector.

use std::time::{Duration, SystemTime};

use maud::{Markup, html};

use super::banner::api_state;
use super::words::{capitalize, count, counted, rounded, sanitize, span, time, time_or};
use crate::domain::Timestamp;
use crate::status::{CollectorSummary, Summary};
use crate::store::State;

/// Minimum lag that is shown. A shorter lag is normal, because a running poll counts as late until it ends.
const MIN_SHOWN_LAG: Duration = Duration::from_secs(1);

/// Fraction of a collector's interval above which the lag is highlighted.
const LATE_FRACTION: f64 = 0.5;

/// Returns the section about the exporter itself.
pub(super) fn exporter(summary: &Summary) -> Markup {
    html! {
        details data-key="exporter" {
            summary data-key="exporter-summary" { "Exporter and collectors" }
            (facts(summary))
            h3 #collectors-title { "Collectors" }
            (collectors(summary))
            p.soft {
                "Requests and errors are counted by endpoint. If two collectors share an endpoint, the counts are shown \
                 only for the first. A poll that fails before it sends a request counts as an error, but not as a request."
            }
        }
    }
}

fn facts(summary: &Summary) -> Markup {
    let client = &summary.runtime.client;
    let token = client.token_expiry;
    let token = token.and_then(|at| at.duration_since(SystemTime::now()).ok());
    html! {
        dl.facts {
            div.card {
                dt { "API" }
                dd {
                    b { (api_state(summary).trim_start_matches("API ")) }
                    small { "based on the token and the customer list" }
                }
            }
            div.card {
                dt { "Token" }
                dd {
                    @match token {
                        Some(left) => b { (rounded(left)) " left" },
                        None => b { "none" },
                    }
                    @if let Some(at) = client.credential_expiry {
                        small { "credential expires " (time(Timestamp::from_unix_seconds(at), summary.now)) }
                    } @else { small { "credential expiry unknown" } }
                    small {
                        (counted(summary.token_requests.requests, "request", "requests")) ", "
                        (counted(summary.token_requests.errors, "error", "errors"))
                    }
                }
            }
            div.card {
                dt { "Request rate limit" }
                dd {
                    b { (format!("{:.3}", client.rate).trim_end_matches('0').trim_end_matches('.')) "/s" }
                    small {
                        (counted(summary.requests.requests, "request", "requests")) " in total, "
                        (count(summary.requests.throttled)) " throttled, "
                        (counted(summary.requests.errors, "error", "errors"))
                    }
                }
            }
            div.card {
                dt { "Uptime" }
                dd {
                    b { (rounded(summary.uptime)) }
                    small { "version " (crate::build_info::VERSION) ", " (count(summary.series())) " series" }
                }
            }
            div.card {
                dt { "Configuration" }
                dd {
                    @match &summary.config_file {
                        Some(file) => b { (file.file_name().unwrap_or(file.as_os_str()).to_string_lossy()) },
                        None => b { "environment" },
                    }
                    small {
                        @if let Some(file) = &summary.config_file { code { (file.display()) } ", " }
                        "loaded " (time(summary.runtime.loaded.config_at, summary.now))
                    }
                    @if !summary.runtime.loaded.config { small.bad-text { "the latest reload failed" } }
                }
            }
        }
    }
}

/// Returns the column headings of the table of collectors, and whether each column contains numbers.
fn headings() -> Vec<(String, bool)> {
    let words = ["Collector", "Permission", "Oldest data"].map(|name| (name.to_owned(), false));
    let requests = ["Requests", "Errors"].map(str::to_owned);
    let numbers = ["Lag".to_owned()]
        .into_iter()
        .chain(State::ALL.map(state_heading))
        .chain(requests);
    words.into_iter().chain(numbers.map(|name| (name, true))).collect()
}

fn collectors(summary: &Summary) -> Markup {
    let headings = headings();
    html! {
        div.card.scroll tabindex="0" role="region" aria-labelledby="collectors-title" {
            table.grid.tight {
                thead {
                    tr { @for (name, is_number) in &headings { th class=[is_number.then_some("number")] scope="col" { (name) } } }
                }
                tbody {
                    @for collector in &summary.collectors { (collector_rows(collector, headings.len(), summary.now)) }
                }
            }
        }
    }
}

/// Returns the heading of a column that counts customers in a state. The heading for failures mentions the poll,
/// because it is polls that fail, not customers.
fn state_heading(state: State) -> String {
    match state {
        State::Failed => "Last poll failed".to_owned(),
        state => capitalize(state.label()),
    }
}

fn collector_rows(collector: &CollectorSummary, columns: usize, now: Timestamp) -> Markup {
    let overview = &collector.overview;
    let is_late = collector.lag >= MIN_SHOWN_LAG && collector.lag > overview.plan.interval.mul_f64(LATE_FRACTION);
    html! {
        tr {
            th scope="row" { (overview.collector.name()) }
            td data-label="Permission" {
                @match overview.permitted {
                    Some(true) => span.chip.good { "granted" },
                    Some(false) => span.chip.bad { "missing" },
                    None => span.chip { "not known yet" },
                }
            }
            td.broad data-label="Oldest data" {
                (time_or(collector.oldest, now, "none yet"))
                small {
                    @if let Some(newest) = collector.newest { "newest " (time(newest, now)) }
                    // A cycle has a duration even if none of its polls succeeded.
                    @if collector.newest.is_some() && collector.cycle.is_some() { ", " }
                    @if let Some(cycle) = collector.cycle { "cycle " (span(cycle)) }
                }
            }
            td.number.none[collector.lag < MIN_SHOWN_LAG] data-label="Lag" {
                @if collector.lag < MIN_SHOWN_LAG { "none" } @else { span.warn-text[is_late] { (span(collector.lag)) } }
            }
            @for state in State::ALL {
                @let customers = collector.count(state);
                td.number.none[customers == 0] data-label=(state_heading(state)) { (count(customers)) }
            }
            td.number data-label="Requests" { (count(collector.requests.requests)) }
            td.number.none[collector.requests.errors == 0] data-label="Errors" { (count(collector.requests.errors)) }
        }
        @if let Some(error) = &collector.error {
            tr.trouble {
                td colspan=(columns) { p.error { b { "Last error " } (sanitize(&error.text)) ", " (time(error.at, now)) } }
            }
        }
    }
}
