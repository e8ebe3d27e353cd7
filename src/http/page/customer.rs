//! The page of one customer: how it stands with each collector, and each of its modules.

use std::time::SystemTime;

use axum::http::StatusCode;
use maud::{Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::front::{Tone, Wanted, called};
use super::words::{count, counted, span, status, time, time_or, told, whole};
use super::{Depth, Frame, Page, as_of, missing, pause};
use crate::domain::{CustomerId, Glimpse, JobStatus, ModuleStanding, Timestamp};
use crate::http::Site;
use crate::status::Portrait;
use crate::store::{Answer, State};

/// What of an id is encoded where it stands in a path or a query: everything that could mean something there.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// The path of a customer's page, from the root of all pages.
pub(super) fn path_of(id: &CustomerId) -> String {
    format!("customers/{}", page_of(id))
}

/// The page of a customer among those of all customers. Browsers take two ids for a way through the folders, encoded as
/// well as plain, so these stand in the query.
fn page_of(id: &CustomerId) -> String {
    match id.as_str() {
        "." | ".." => format!("?id={}", encoded(id)),
        _ => encoded(id),
    }
}

fn encoded(id: &CustomerId) -> String {
    utf8_percent_encode(id.as_str(), ENCODED).to_string()
}

/// The page of the customer with this id.
pub(in crate::http) fn customer(site: &Site, id: &str, wanted: &Wanted) -> Page {
    let now = Timestamp::from(SystemTime::now());
    let found = CustomerId::parse(id).map(|id| site.status.portraits(&[id], now));
    let Some(portrait) = found.and_then(|found| found.into_iter().next()) else {
        return missing(
            site,
            "No customer of this id is known, or none any more.",
            "All customers",
        );
    };
    let name = told(&portrait.dossier.organization);
    let title = format!("{name} – elements_exporter");
    let frame = Frame {
        title: &title,
        subtitle: &site.subtitle,
        telemetry_path: &site.telemetry_path,
        depth: Depth::Below,
        live: wanted.is_live(),
    };
    let here = page_of(&portrait.dossier.id);
    let more = if here.contains('?') { '&' } else { '?' };
    let foot = html! { p { (as_of(now)) " " (pause(wanted.is_live(), &here, &format!("{here}{more}live=off"))) } };
    frame.page(StatusCode::OK, &content(site, &portrait, now), &foot)
}

fn content(site: &Site, portrait: &Portrait, now: Timestamp) -> Markup {
    let root = Depth::Below.root();
    let dossier = &portrait.dossier;
    let metrics = format!(
        "{root}{}?customer_id={}",
        site.telemetry_path.trim_start_matches('/'),
        encoded(&dossier.id)
    );
    html! {
        p #lost role="status" hidden { "The exporter does not answer any more. What is shown here is from before." }
        h2.name { (called(&dossier.organization)) }
        p #standing data-live { (standing(portrait, now)) }
        p.soft { code { (told(dossier.id.as_str())) } " · " a href=(metrics) { "metrics of this customer" } " · " a href=(root) { "all customers" } }
        section #modules data-live aria-labelledby="modules-title" {
            h2 #modules-title { "Modules" }
            @if portrait.modules.is_empty() { p.card.empty { "No module has been listed." } }
            @else { (whole_modules(portrait, now)) }
        }
        section #answers data-live aria-labelledby="answers-title" {
            h2 #answers-title { "What is known of it" }
            (answers(&dossier.answers, now))
        }
    }
}

/// What is the matter with the customer, in short.
fn standing(portrait: &Portrait, now: Timestamp) -> Markup {
    let many =
        |is: fn(&ModuleStanding, Timestamp) -> bool| portrait.modules.iter().filter(|module| is(module, now)).count();
    let overdue = whole(many(ModuleStanding::is_overdue));
    let failing = whole(many(|module, now| module.is_failing() && !module.is_overdue(now)));
    let is_unfresh = |answer: &Answer| matches!(answer.state, State::Stale | State::Failed | State::Forbidden);
    html! {
        @if overdue > 0 { span.chip.bad { (counted(overdue, "module overdue", "modules overdue")) } " " }
        @if failing > 0 { span.chip.warn { (counted(failing, "module failing", "modules failing")) } " " }
        @if portrait.dossier.answers.iter().any(is_unfresh) { span.chip.warn { "not fresh" } }
    }
}

fn whole_modules(portrait: &Portrait, now: Timestamp) -> Markup {
    html! {
        div.card.scroll tabindex="0" role="region" aria-labelledby="modules-title" {
            table.grid {
                thead {
                    tr {
                        th scope="col" { "Module" }
                        th scope="col" { "Service" }
                        th scope="col" { "Newest run" }
                        th scope="col" { "Newest run that ended" }
                        th scope="col" { "Restore point" }
                        th scope="col" { "Objective" }
                        th.number scope="col" { "Failures since" }
                    }
                }
                tbody {
                    @for module in &portrait.modules {
                        tr {
                            th scope="row" { (told(&module.module)) }
                            td.service { (told(&module.service)) }
                            td data-label="Newest run" { (run(module.newest, now)) }
                            td data-label="Newest run that ended" { (run(module.newest_ended, now)) }
                            td data-label="Restore point" { (restore_point(module, now)) }
                            td data-label="Objective" {
                                @match module.objective { Some(objective) => (span(objective)), None => span.none { "exempt" } }
                            }
                            td.number.none[module.failures == 0] data-label="Failures since" { (count(module.failures)) }
                        }
                    }
                }
            }
        }
        @if let Some(at) = portrait.modules_at { p.soft { "As the API told " (time(at, now)) "." } }
    }
}

fn answers(answers: &[Answer], now: Timestamp) -> Markup {
    html! {
        div.card.scroll tabindex="0" role="region" aria-labelledby="answers-title" {
            table.grid {
                thead {
                    tr {
                        th scope="col" { "Collector" }
                        th scope="col" { "State" }
                        th scope="col" { "Last success" }
                        th scope="col" { "Last error" }
                    }
                }
                tbody {
                    @for answer in answers {
                        tr {
                            th scope="row" { (answer.name) }
                            td data-label="State" { (chip(answer.state)) @if answer.of_all { small { "asked for all at once" } } }
                            td data-label="Last success" { (time_or(answer.last_success, now, "not yet")) }
                            td.words.none[answer.trouble.is_none()] data-label="Last error" {
                                @match &answer.trouble {
                                    Some(trouble) => { (told(&trouble.text)) small { (time(trouble.at, now)) } },
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
    let tone = match state {
        State::Fresh => Tone::Good,
        State::Stale | State::Forbidden => Tone::Warn,
        State::Failed => Tone::Bad,
        State::Pending => Tone::Idle,
    };
    html! { span.chip.{ (tone.class()) } { (state.label()) } }
}

/// Modules in few words, without a head: each cell says what it is.
pub(super) fn modules(modules: &[ModuleStanding], now: Timestamp) -> Markup {
    html! {
        table.modules {
            @for module in modules {
                tr {
                    th scope="row" { (told(&module.module)) " " small { (told(&module.service)) } }
                    td {
                        (run(module.newest, now))
                        @if module.failures > 1 { small { ", " (count(module.failures)) " failures in a row" } }
                    }
                    td {
                        "restore point " (restore_point(module, now))
                        @if let Some(objective) = module.objective.filter(|_| module.is_overdue(now)) {
                            small { ", " (span(objective)) " allowed" }
                        }
                    }
                }
            }
        }
    }
}

fn run(run: Option<Glimpse>, now: Timestamp) -> Markup {
    let Some(run) = run else {
        return html! { span.none { "no run" } };
    };
    let class = match run.status {
        JobStatus::Failed | JobStatus::FailedToStart | JobStatus::Rejected => Some("bad-text"),
        JobStatus::FinishedWithException | JobStatus::Canceled | JobStatus::Stopped | JobStatus::Unknown => {
            Some("warn-text")
        }
        _ => None,
    };
    html! {
        span class=[class] { (status(run.status)) }
        @if let Some(at) = run.at { " " (time(at, now)) }
    }
}

fn restore_point(module: &ModuleStanding, now: Timestamp) -> Markup {
    let class = module.is_overdue(now).then_some("bad-text");
    html! {
        @match module.restore_point {
            Some(at) => span class=[class] { (time(at, now)) },
            None => span class=(class.unwrap_or("none")) { "never" },
        }
    }
}
