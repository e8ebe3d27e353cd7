//! The modules of a customer: a brief table for the customer list, and a full table for the customer's page.

use maud::{Markup, html};

use super::words::{Severity, count, date_time, objective, sanitize, status, time};
use crate::domain::{JobStatus, ModuleHealth, ModuleState, RunSummary, Timestamp};
use crate::status::{CustomerDetail, CustomerRow};

/// Returns a brief table of modules. It has no headings, because its cells are self-explanatory.
pub(super) fn brief_table(modules: &[ModuleHealth], customer: &CustomerRow, now: Timestamp) -> Markup {
    html! {
        table.modules {
            @for module in modules {
                tr {
                    th scope="row" { (sanitize(&module.key.name())) " " small { (sanitize(&module.key.service)) } }
                    td { (state(module, customer)) (exemption(module)) }
                    td {
                        (run(module, module.latest, customer, now))
                        @if module.is_failing() && module.failures > 1 {
                            small { ", " (count(module.failures)) " consecutive failures" }
                        }
                    }
                    td {
                        @if module.makes_restore_points && module.latest_completed.is_some() {
                            "restore point: " (restore_point(module, customer, now))
                        }
                        @if let Some(rpo) = module.rpo.filter(|_| module.is_overdue(customer.as_of)) {
                            small { ", RPO " span.whole { (objective(rpo)) } }
                        }
                    }
                }
            }
        }
    }
}

/// Returns a table of all modules of a customer.
pub(super) fn table(detail: &CustomerDetail, now: Timestamp) -> Markup {
    html! {
        div.card.scroll tabindex="0" role="region" aria-labelledby="modules-title" {
            table.grid {
                thead {
                    tr {
                        th scope="col" { "Module" }
                        th scope="col" { "Status" }
                        th scope="col" { "Latest restore point" }
                        th scope="col" { "RPO" }
                        th scope="col" { "Latest completed run" }
                        th scope="col" { "Now" }
                        th.number scope="col" { "Consecutive failures" }
                    }
                }
                tbody { @for module in &detail.modules { (row(module, &detail.row, now)) } }
            }
        }
    }
}

fn row(module: &ModuleHealth, customer: &CustomerRow, now: Timestamp) -> Markup {
    let newer = module.latest.filter(|_| module.latest != module.latest_completed);
    html! {
        tr {
            th scope="row" { (sanitize(&module.key.name())) small { (sanitize(&module.key.service)) } }
            td data-label="Status" { (state(module, customer)) }
            td data-label="Latest restore point" { (restore_point(module, customer, now)) }
            td.none[module.rpo.is_none()] data-label="RPO" {
                @match module.rpo { Some(rpo) => span.whole { (objective(rpo)) }, None => "none" }
                (exemption(module))
            }
            td data-label="Latest completed run" { (run(module, module.latest_completed, customer, now)) }
            td.none[newer.is_none()] data-label="Now" { @if newer.is_some() { (run(module, newer, customer, now)) } }
            td.number.none[module.failures == 0] data-label="Consecutive failures" {
                span.bad-text[module.is_failing()] { (count(module.failures)) }
            }
        }
    }
}

/// Returns the end of an RPO override and the reason for it, if any.
fn exemption(module: &ModuleHealth) -> Markup {
    let until = module.until.map(|until| format!("until {}", date_time(until)));
    let reason = module.reason.as_deref().map(sanitize);
    let words: Vec<String> = until.into_iter().chain(reason).collect();
    html! { @if !words.is_empty() { " " small { (words.join(": ")) } } }
}

/// Returns the state of a module. While the backup status is unknown, modules are not shown as OK and do not become
/// overdue.
fn state(module: &ModuleHealth, customer: &CustomerRow) -> Markup {
    let (severity, word) = match module.state(customer.as_of) {
        ModuleState::NeverBackedUp => (Severity::Bad, "never backed up"),
        ModuleState::Overdue => (Severity::Bad, "overdue"),
        ModuleState::Failing => (Severity::Warn, "failing"),
        ModuleState::Ok if customer.is_known => (Severity::Good, "OK"),
        ModuleState::Ok => (Severity::Idle, "unknown"),
        ModuleState::Pending => (Severity::Idle, "pending"),
        ModuleState::Exempt => (Severity::Idle, "exempt"),
        ModuleState::Housekeeping => (Severity::Idle, "housekeeping"),
        ModuleState::NotConfigured => (Severity::Idle, "not configured"),
        ModuleState::Disabled => (Severity::Idle, "disabled"),
        ModuleState::Dormant => (Severity::Idle, "dormant"),
    };
    html! { span.chip.{ (severity.class()) } { (word) } }
}

/// Renders a run. A failed run is red only if its module counts as failing.
fn run(module: &ModuleHealth, run: Option<RunSummary>, customer: &CustomerRow, now: Timestamp) -> Markup {
    let Some(run) = run else {
        return html! { span.none { "none" } };
    };
    let class = match run.status {
        _ if module.state(customer.as_of) > ModuleState::Ok => Some("none"),
        JobStatus::Failed | JobStatus::FailedToStart | JobStatus::Rejected if module.is_failing() => Some("bad-text"),
        JobStatus::FinishedWithException
        | JobStatus::Failed
        | JobStatus::FailedToStart
        | JobStatus::Rejected
        | JobStatus::Canceled
        | JobStatus::Stopped
        | JobStatus::Unknown => Some("warn-text"),
        _ => None,
    };
    html! {
        span class=[class] { (status(run.status)) }
        @if let Some(at) = run.at {
            @if run.status == JobStatus::Running { ", started" }
            " " (time(at, now))
        }
    }
}

fn restore_point(module: &ModuleHealth, customer: &CustomerRow, now: Timestamp) -> Markup {
    let class = module.is_overdue(customer.as_of).then_some("bad-text");
    html! {
        @match module.restore_point {
            Some(at) => span class=[class] { (time(at, now)) },
            // Without a completed run, it is unknown whether the module has a restore point.
            None if module.latest_completed.is_none() => span.none { "unknown" },
            None => span class=(class.unwrap_or("none")) { "never" },
        }
    }
}
