//! The page of one customer: signs of ransomware, modules, runs, errors, and the freshness of each collector's data.

use std::time::SystemTime;

use maud::{Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::query::PageQuery;
use super::words::{Severity, attributes_of, count_chips, organization_name, sanitize, signs_chip, time, time_or};
use super::{CONNECTION_LOST, Page, ROOT_FROM_BELOW, as_of, layout, missing, modules, pause};
use crate::collector::{CommonErrors, RansomwareSigns};
use crate::domain::{CustomerId, TRAIL_RUNS, Timestamp, counted};
use crate::http::Site;
use crate::status::{CustomerDetail, CustomerHealth, CustomerRow, CustomerRuns, DataSource};
use crate::store::State;

/// Characters of an id that are escaped in a path or a query: all except ASCII letters, digits, `-` and `_`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// Returns the path of a customer's page, relative to the root of the status pages.
pub(super) fn path_of(id: &CustomerId) -> String {
    format!("customers/{}", page_of(id))
}

/// Returns the path of a customer's page, relative to the list of customers. Browsers interpret the ids `.` and `..`
/// as dot segments, even if they are escaped, so these ids are passed in the query.
fn page_of(id: &CustomerId) -> String {
    match id.as_str() {
        "." | ".." => format!("?id={}", encoded(id)),
        _ => encoded(id),
    }
}

fn encoded(id: &CustomerId) -> String {
    utf8_percent_encode(id.as_str(), ENCODED).to_string()
}

/// Returns the page of the customer with this id.
pub(in crate::http) fn customer(site: &Site, id: &str, query: &PageQuery) -> Page {
    let now = Timestamp::from(SystemTime::now());
    let found = CustomerId::parse(id).and_then(|id| site.status.customer(&id, now));
    let Some((detail, runs)) = found else {
        return missing(site, "No customer with this id is known.", "All customers");
    };
    let title = format!("{} – elements_exporter", sanitize(&detail.row.organization));
    let here = page_of(&detail.row.id);
    let separator = if here.contains('?') { '&' } else { '?' };
    let foot = html! { p { (as_of(now)) " " (pause(query.is_live, &here, &format!("{here}{separator}live=off"))) } };
    let content = content(site, &detail, &runs, now);
    layout(site, &title, ROOT_FROM_BELOW, query.is_live, &content, &foot)
}

fn content(site: &Site, detail: &CustomerDetail, runs: &CustomerRuns, now: Timestamp) -> Markup {
    html! {
        p #lost role="status" hidden { (CONNECTION_LOST) }
        h2.name { (organization_name(&detail.row.organization)) }
        p #health data-live { (chips(&detail.row)) }
        p.soft {
            code { (sanitize(detail.row.id.as_str())) }
            @if !detail.row.attributes.is_empty() { " · " (attributes_of(&detail.row.attributes)) }
            @for (name, link) in links(site, &detail.row.id) { " · " a href=(link) { (name) } }
            " · " a href=(ROOT_FROM_BELOW) { "all customers" }
        }
        @if let Some(signs) = detail.row.signs {
            section #attack data-live aria-labelledby="attack-title" { (ransomware_signs(signs, detail.signs_read_at, now)) }
        }
        section #modules data-live aria-labelledby="modules-title" {
            h2 #modules-title { "Modules" }
            @if detail.modules.is_empty() { p.card.empty { "No modules listed." } }
            @else { (modules::table(detail, now)) }
            @if let Some(at) = detail.updated { p.soft { "Updated " (time(at, now)) } }
        }
        @if !runs.modules.is_empty() {
            section #runs data-live aria-labelledby="runs-title" {
                h2 #runs-title { "Runs" }
                (super::runs::runs(&runs.modules, now))
                p.soft {
                    "The newest " (TRAIL_RUNS) " completed runs that the API has listed for each module."
                    // Browsers would interpret the ids `.` and `..` as dot segments.
                    @if !page_of(&detail.row.id).starts_with('?') {
                        " For scripts: " a href=(format!("{}/runs.json", encoded(&detail.row.id))) { "runs.json" }
                    }
                }
            }
        }
        @if !detail.errors.is_empty() {
            section #why data-live aria-labelledby="why-title" {
                h2 #why-title { "Errors in the latest runs" }
                (common_errors(&detail.errors))
            }
        }
        section #sources data-live aria-labelledby="sources-title" {
            h2 #sources-title { "Data sources" }
            (sources(&detail.sources, now))
        }
    }
}

/// Returns the signs of ransomware, most severe first.
fn ransomware_signs(signs: RansomwareSigns, read_at: Option<Timestamp>, now: Timestamp) -> Markup {
    let counts = [
        (signs.potential_attack, "possibly under attack", Severity::Bad),
        (signs.unusual_activities, "with unusual activity", Severity::Warn),
        (signs.suspicious_objects, "with suspicious objects", Severity::Warn),
    ];
    html! {
        h2 #attack-title { "Signs of ransomware" }
        p {
            @for (count, what, severity) in counts.into_iter().filter(|(count, ..)| *count > 0) {
                span.chip.{ (severity.class()) } { (counted(count, "workspace", "workspaces")) " " (what) } " "
            }
            "within the last seven days."
            @if let Some(at) = read_at { " Last read " (time(at, now)) "." }
        }
    }
}

/// Maximum number of errors shown per module. The metrics include up to ten.
const SHOWN_ERRORS: usize = 3;

/// Returns the most frequent errors of the latest runs, by module.
fn common_errors(errors: &[CommonErrors]) -> Markup {
    html! {
        div.card.scroll tabindex="0" role="region" aria-labelledby="why-title" {
            table.grid {
                thead { tr { th scope="col" { "Module" } th scope="col" { "Most common errors" } } }
                tbody {
                    @for module in errors {
                        tr {
                            th scope="row" {
                                (sanitize(&module.key.module))
                                @if let Some(scope) = &module.key.scope { small { (sanitize(scope)) } }
                            }
                            td.words data-label="Most common errors" {
                                @for (error, count) in module.errors.iter().take(SHOWN_ERRORS) {
                                    div { (counted(*count, "object", "objects")) ": " (sanitize(error)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn links(site: &Site, id: &CustomerId) -> Vec<(&'static str, String)> {
    let metrics = format!(
        "{ROOT_FROM_BELOW}{}?customer_id={}",
        site.telemetry_path.trim_start_matches('/'),
        encoded(id)
    );
    let grafana = site.grafana_url.as_ref().map(|grafana| {
        let base = grafana.as_str().trim_end_matches('/');
        (
            "Grafana",
            format!("{base}/d/elements-customer?var-customer={}", encoded(id)),
        )
    });
    [("metrics of this customer", metrics)]
        .into_iter()
        .chain(grafana)
        .collect()
}

/// Returns a chip for each state that applies to a customer.
pub(super) fn chips(row: &CustomerRow) -> Markup {
    let chip = |health, severity: Severity, words| {
        let class = severity.class();
        html! { @if row.is(health) { span.chip.{ (class) } { (words) } " " } }
    };
    html! {
        @if let Some(signs) = row.signs { (signs_chip(signs)) }
        (count_chips(row.overdue, row.failing))
        (chip(CustomerHealth::Unknown, Severity::Idle, "backup status unknown"))
        (chip(CustomerHealth::Outdated, Severity::Warn, "outdated data"))
        (chip(CustomerHealth::Pending, Severity::Idle, "pending"))
        (chip(CustomerHealth::NotAssessed, Severity::Idle, "not assessed"))
        (chip(CustomerHealth::Ok, Severity::Good, "OK"))
    }
}

fn sources(sources: &[DataSource], now: Timestamp) -> Markup {
    html! {
        div.card.scroll tabindex="0" role="region" aria-labelledby="sources-title" {
            table.grid {
                thead {
                    tr {
                        th scope="col" { "Collector" }
                        th scope="col" { "State" }
                        th scope="col" { "Updated" }
                        th scope="col" { "Last error" }
                    }
                }
                tbody {
                    @for DataSource { name, poll } in sources {
                        tr {
                            th scope="row" { (name) }
                            td data-label="State" { (chip(poll.state)) @if poll.is_for_all { small { "one poll for all customers" } } }
                            td data-label="Updated" { (time_or(poll.last_success, now, "not yet")) }
                            td.words.none[poll.error.is_none()] data-label="Last error" {
                                @match &poll.error {
                                    Some(error) => { (sanitize(&error.text)) small { (time(error.at, now)) } },
                                    None => "none",
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn chip(state: State) -> Markup {
    let (severity, word) = match state {
        State::Fresh => (Severity::Good, "fresh"),
        State::Stale => (Severity::Warn, "stale"),
        State::Forbidden => (Severity::Warn, "forbidden"),
        State::Failed => (Severity::Bad, "poll failed"),
        State::Unlicensed => (Severity::Idle, "not licensed"),
        State::Pending => (Severity::Idle, "pending"),
    };
    html! { span.chip.{ (severity.class()) } { (word) } }
}
