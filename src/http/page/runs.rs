//! Renders a customer's stored runs for the customer's page.

use maud::{Markup, html};

use super::words::{counted, sanitize, status, time};
use crate::collector::ModuleRuns;
use crate::domain::{PastRun, Timestamp};

/// Returns the runs of all modules, each module in a collapsible section.
pub(super) fn runs(modules: &[ModuleRuns], now: Timestamp) -> Markup {
    html! {
        @for module in modules {
            @let name = module.key.name();
            // Two services can have modules with the same name.
            details.runs data-key=(format!("{} {name}", module.key.service)) {
                summary {
                    strong { (sanitize(&name)) } " "
                    small { (sanitize(&module.key.service)) ", " (counted(module.runs.len(), "run", "runs")) }
                }
                (table(module, now))
            }
        }
    }
}

fn table(module: &ModuleRuns, now: Timestamp) -> Markup {
    html! {
        div.card.scroll tabindex="0" role="region" aria-label=(format!("Runs of {}", sanitize(&module.key.module))) {
            table.grid {
                thead {
                    tr {
                        th scope="col" { "Job id" }
                        th scope="col" { "Status" }
                        th scope="col" { "Start" }
                        th scope="col" { "End" }
                        @for (name, _) in COUNTS { th.number scope="col" { (name) } }
                    }
                }
                tbody { @for run in &module.runs { (row(run, now)) } }
            }
        }
    }
}

/// A column of counts.
type Count = (&'static str, fn(&PastRun) -> Option<u64>);

const COUNTS: [Count; 5] = [
    ("Processed", |run| run.processed),
    ("Successful", |run| run.successful),
    ("Failed", |run| run.failed),
    ("Skipped", |run| run.skipped),
    ("Warning", |run| run.warning),
];

fn row(run: &PastRun, now: Timestamp) -> Markup {
    let time_cell = |name: &str, at: Option<Timestamp>| {
        html! {
            td.none[at.is_none()] data-label=(name) {
                @match at { Some(at) => (time(at, now)), None => "unknown" }
            }
        }
    };
    html! {
        tr {
            th scope="row" {
                @match &run.id { Some(id) => code { (sanitize(id)) }, None => span.none { "none" } }
            }
            td data-label="Status" { (status(run.status)) }
            (time_cell("Start", run.start))
            (time_cell("End", run.end))
            @for (name, count) in COUNTS {
                @let count = count(run);
                td.number.none[count.is_none()] data-label=(name) {
                    @match count { Some(count) => (super::words::count(count)), None => "unknown" }
                }
            }
        }
    }
}
