//! Reports on job runs that were not completely successful: the number of objects by status, and the most common
//! errors.
//!
//! Only reports on such runs are requested, and a received report is not requested again. Titles, locations and
//! comments may contain people's names, so titles and locations are discarded, and [`domain::mask_comment`] masks
//! comments.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::jobs::{self, ReportableRun};
use super::{Collector, CollectorId, Context, PollOutput, Price, Record};
use crate::api::wire::{Names, Row};
use crate::api::{Api, Endpoint, Error, Failure, v3};
use crate::domain::{self, CustomerId, ModuleKey, RunKey, Timestamp};
use crate::exposition::{Label, Shape, ShapeSink, gauge, label};

/// Rows per page: the API's maximum.
const PAGE_SIZE: usize = 1_000;

/// Maximum number of pages fetched per report. The first 20,000 objects are enough to identify the causes.
const MAX_PAGES: usize = 20;

/// Maximum number of polls that request a missing report. Polls in which the request fails with an error such as status
/// 500 do not count.
const MAX_TRIES: u32 = 3;

/// Maximum number of polls in which the request for a report fails with such an error. At the default interval, these
/// polls span two hours, which is longer than most API outages.
const MAX_FAILED_TRIES: u32 = 24;

/// Maximum number of errors that have their own series.
const TOP_ERRORS: usize = 10;

/// Value of the label `error` for all other errors.
const OTHER: &str = "other";

/// The latest report of a module or backup scope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ModuleReport {
    key: ModuleKey,
    /// Key of the latest run whose report was requested.
    #[serde(rename = "asked")]
    run_key: RunKey,
    /// Start of that run. It distinguishes runs with the same id.
    #[serde(default)]
    started: Option<Timestamp>,
    /// Number of polls that requested the report without success; 0 once the report has been received.
    #[serde(default)]
    tries: u32,
    /// Number of these polls whose request failed with an error such as status 500.
    #[serde(default)]
    failed: u32,
    /// The report of that run; `None` if it has not been received, or if a newer run has completed.
    report: Option<Report>,
}

impl ModuleReport {
    /// Returns whether no further request will be sent: either the report has been received, or a maximum number of
    /// polls has been reached.
    fn is_settled(&self) -> bool {
        self.tries == 0 || self.tries - self.failed >= MAX_TRIES || self.failed >= MAX_FAILED_TRIES
    }
}

/// Totals of a report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Report {
    /// Objects by status; `None` if the report is incomplete or contains invalid rows.
    objects: Option<BTreeMap<Cow<'static, str>, u64>>,
    /// The most common errors with their object counts, most common first, then `other`.
    errors: Vec<(String, u64)>,
}

/// The most common errors in the latest report of a module or backup scope, for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommonErrors {
    /// The module or backup scope.
    pub key: ModuleKey,
    /// The errors, most common first, each with the number of affected objects.
    pub errors: Vec<(String, u64)>,
}

/// Returns the most common errors of each module in a record of this collector. Omits modules without errors.
pub fn common_errors(record: &dyn Record) -> Vec<CommonErrors> {
    let modules = record.as_any().downcast_ref::<Vec<ModuleReport>>();
    let common = modules.into_iter().flatten().filter_map(|module| {
        let report = module.report.as_ref().filter(|report| !report.errors.is_empty())?;
        Some(CommonErrors {
            key: module.key.clone(),
            errors: report.errors.clone(),
        })
    });
    common.collect()
}

/// The collector `job_reports`.
pub(super) struct JobReports;

impl Collector for JobReports {
    const NAME: &'static str = "job_reports";
    const ENDPOINT: Endpoint = Endpoint::JobReport;
    const INTERVAL: Duration = jobs::Jobs::INTERVAL;
    const IS_OPTIONAL: bool = true;
    const PRICE: Price = Price {
        requests: 0.007,
        description: "1 per 1000 objects in each report, up to 20,000 objects",
        ..Price::ONE
    };
    const SCOPE_V3: &'static str = v3::scope::JOBS;
    const AFTER: Option<CollectorId> = Some(CollectorId::JOBS);
    type Target = CustomerId;
    type Record = Vec<ModuleReport>;

    async fn poll(
        api: &Api,
        customer: &CustomerId,
        previous: Option<&Self::Record>,
        context: &Context,
    ) -> Result<PollOutput<Self::Record>, Failure> {
        let endpoint = Endpoint::JobReport;
        let mut modules: Vec<ModuleReport> = previous.cloned().unwrap_or_default();
        let jobs = context.record_of(CollectorId::JOBS, customer);
        let Some(runs) = jobs.as_deref().and_then(jobs::reportable_runs) else {
            return Ok(PollOutput::of_customer(customer, modules, 0, endpoint));
        };
        let (failure, unreadable) = update_reports(&mut modules, runs, |id| async move {
            fetch_report(api, customer, &id).await
        })
        .await?;
        Ok(PollOutput::of_customer(customer, modules, unreadable, endpoint).with_failure(failure))
    }

    fn tables(record: &Self::Record, _customer: &CustomerId, context: &Context, sink: &mut impl ShapeSink) {
        let is_selected = |module: &&ModuleReport| context.settings.selects(&module.key.service, &module.key.module);
        let report_of = |module: &ModuleReport| Some((module.key.clone(), module.report.clone()?));
        let reports: Vec<(ModuleKey, Report)> = record.iter().filter(is_selected).filter_map(report_of).collect();
        let (mut objects, mut errors) = (Vec::new(), Vec::new());
        for (key, report) in &reports {
            let labelled = |label: &str, count: u64| LabelledCount {
                key: key.clone(),
                label: label.to_owned(),
                count,
            };
            let by_status = report.objects.iter().flatten();
            objects.extend(by_status.map(|(status, count)| labelled(status, *count)));
            errors.extend(report.errors.iter().map(|(error, count)| labelled(error, *count)));
        }
        sink.add(&SHAPE_OBJECTS, &objects);
        sink.add(&SHAPE_ERRORS, &errors);
    }
}

/// Requests the missing reports of these runs. If a request fails for a reason that concerns only its report, the other
/// requests are still sent. Returns a failure, if any, and the number of invalid rows.
///
/// # Errors
/// Returns an error if `modules` is empty and the API responds to every request with status 403 or 404.
async fn update_reports<Request: Future<Output = Result<(Option<Report>, usize), Failure>>>(
    modules: &mut Vec<ModuleReport>,
    runs: Vec<ReportableRun>,
    fetch: impl Fn(Box<str>) -> Request,
) -> Result<(Option<Failure>, usize), Failure> {
    let (mut failure, mut denial, mut any_succeeded) = (None, None, !modules.is_empty());
    let listed: BTreeSet<&ModuleKey> = runs.iter().map(|run| &run.key).collect();
    modules.retain(|module| listed.contains(&module.key));
    let mut unreadable = 0;
    for ReportableRun { key, run, started } in runs {
        let mut known = modules.iter_mut().find(|module| module.key == key);
        let run_key = run.as_deref().map(|id| RunKey::new(Some(id), None, None));
        let is_same = |known: &ModuleReport| run_key == Some(known.run_key) && started == known.started;
        if let Some(known) = known.as_mut().filter(|known| !is_same(known)) {
            // A newer run has completed, so the report is outdated.
            known.report = None;
        }
        let (Some(id), Some(run_key)) = (run, run_key) else {
            continue;
        };
        let before = known.as_ref().filter(|known| is_same(known));
        if before.is_some_and(|known| known.is_settled()) {
            continue;
        }
        let mut module = ModuleReport {
            key,
            run_key,
            started,
            tries: before.map_or(0, |known| known.tries) + 1,
            failed: before.map_or(0, |known| known.failed),
            report: None,
        };
        match fetch(id).await {
            Ok((report, invalid_rows)) => {
                any_succeeded = true;
                unreadable += invalid_rows;
                if report.is_some() {
                    module.tries = 0;
                }
                module.report = report;
            }
            // The run has no report, at least not yet.
            Err(cause) if cause.error.is_missing_service() => denial = Some(cause),
            // The report is inconsistent, or the API rejects the request.
            Err(cause) if matches!(cause.error, Error::Incomplete(_) | Error::Status(400)) => {
                failure = failure.or(Some(cause));
            }
            Err(cause) if cause.error.is_resource_error() => {
                failure = failure.or(Some(cause));
                module.failed += 1;
            }
            // All further requests would fail too. The reports fetched so far are kept; the next poll requests the
            // others.
            Err(cause) => {
                failure = Some(cause);
                break;
            }
        }
        match known {
            Some(known) => *known = module,
            None => modules.push(module),
        }
    }
    match (denial, failure) {
        (Some(denial), None) if !any_succeeded => Err(denial),
        (_, failure) => Ok((failure, unreadable)),
    }
}

/// Maximum number of times that one poll fetches a report if its pages are inconsistent.
const MAX_ATTEMPTS: usize = 2;

/// Fetches the report of a run. Returns the report, or `None` if it has no valid rows, and the number of invalid rows.
async fn fetch_report(api: &Api, customer: &CustomerId, run: &str) -> Result<(Option<Report>, usize), Failure> {
    for _ in 1..MAX_ATTEMPTS {
        match fetch_pages(api, customer, run).await {
            Err(failure) if matches!(failure.error, Error::Incomplete(_)) => {}
            result => return result,
        }
    }
    fetch_pages(api, customer, run).await
}

async fn fetch_pages(api: &Api, customer: &CustomerId, run: &str) -> Result<(Option<Report>, usize), Failure> {
    let (endpoint, scope) = (Endpoint::JobReport, JobReports::SCOPE_V3);
    let path = ["customers", customer.as_str(), "jobs", run, "report-details"];
    let mut pages = api
        .v3(endpoint, scope)?
        .chained_pages((endpoint, scope), &path, PAGE_SIZE);
    let (mut tally, mut unreadable) = (Tally::default(), 0);
    for _ in 0..MAX_PAGES {
        let Some(rows) = pages.next_page().await? else { break };
        let observer = api.observer().as_ref();
        unreadable += super::read_rows(&rows, endpoint, observer, |row| tally.add(row)).await;
    }
    let is_complete = unreadable == 0 && pages.is_complete();
    let report = (tally.rows > 0).then(|| tally.report(is_complete));
    Ok((report, unreadable))
}

/// Counts of a report's valid rows, by status and error.
#[derive(Default)]
struct Tally {
    rows: usize,
    objects: BTreeMap<Cow<'static, str>, u64>,
    failures: BTreeMap<String, u64>,
    warnings: BTreeMap<String, u64>,
}

const STATUS: Names = &["status"];

impl Tally {
    /// Counts a row. Returns `None` if it has no status, and `Some(false)` otherwise. Duplicates are not detected.
    fn add(&mut self, row: &Row<'_>) -> Option<bool> {
        let status = row.named(STATUS, domain::report_status)?;
        self.rows += 1;
        let errors = match status.as_ref() {
            "failed" => Some(&mut self.failures),
            "warning" => Some(&mut self.warnings),
            _ => None,
        };
        if let Some(errors) = errors {
            *errors.entry(error_label(row)).or_default() += 1;
        }
        if domain::report_statuses().any(|known| known == status) {
            *self.objects.entry(status).or_default() += 1;
        }
        Some(false)
    }

    /// Returns the report. Its errors come from failed objects or, if none failed, from objects with a warning.
    fn report(mut self, is_complete: bool) -> Report {
        for status in domain::report_statuses() {
            self.objects.entry(Cow::Borrowed(status)).or_default();
        }
        let errors = if self.failures.is_empty() {
            self.warnings
        } else {
            self.failures
        };
        let mut errors: Vec<(String, u64)> = errors.into_iter().collect();
        errors.sort_by(|(one, count), (other, more)| more.cmp(count).then_with(|| one.cmp(other)));
        let is_named = |(error, _): &(String, u64)| error != OTHER;
        let (mut named, rest): (Vec<_>, Vec<_>) = errors.into_iter().partition(is_named);
        let rest = named
            .drain(TOP_ERRORS.min(named.len())..)
            .chain(rest)
            .map(|(_, count)| count);
        let rest = rest.sum();
        if rest > 0 {
            named.push((OTHER.to_owned(), rest));
        }
        Report {
            objects: is_complete.then_some(self.objects),
            errors: named,
        }
    }
}

/// Returns an object's error: its code, or else its masked comment, or else [`OTHER`]. A code that is too long or looks
/// like a sentence, an address, an id or a dotted name is also masked.
fn error_label(row: &Row<'_>) -> String {
    let is_code = |code: &str| {
        let is_code_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"_-:".contains(&byte);
        let is_id = code.len() >= 16 && code.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
        !is_id && code.len() <= domain::MAX_COMMENT_CHARS && code.bytes().all(is_code_byte)
    };
    let code = row.text(&["errorCode"]).map(|code| domain::without_invisible(&code));
    let text = match code.as_deref().map(str::trim) {
        Some(code) if !code.is_empty() && is_code(code) => code.to_owned(),
        Some(code) if !code.is_empty() => domain::mask_comment(code),
        _ => row
            .text(&["comment"])
            .map_or_else(String::new, |comment| domain::mask_comment(&comment)),
    };
    if text.is_empty() { OTHER.to_owned() } else { text }
}

/// Number of objects with one status or error.
struct LabelledCount {
    key: ModuleKey,
    /// The status or error.
    label: String,
    count: u64,
}

const SERVICE: Label<LabelledCount> = label("service", |row| Some(&row.key.service));
const MODULE: Label<LabelledCount> = label("module", |row| Some(&row.key.module));
const SCOPE: Label<LabelledCount> = label("scope", |row| row.key.scope.as_deref());

const SHAPE_OBJECTS: Shape<LabelledCount> = Shape {
    labels: &[SERVICE, MODULE, SCOPE, label("status", |row| Some(&row.label))],
    columns: &[gauge(
        "elements_job_report_objects",
        "Objects by status in the latest job report; absent if the report lists more than 20,000 objects or has unreadable rows",
        |row| Some(super::float(row.count)),
    )],
};

const SHAPE_ERRORS: Shape<LabelledCount> = Shape {
    labels: &[SERVICE, MODULE, SCOPE, label("error", |row| Some(&row.label))],
    columns: &[gauge(
        "elements_job_report_errors",
        "Objects by error in the latest job report: the ten most common errors, with the rest counted as other",
        |row| Some(super::float(row.count)),
    )],
};

#[cfg(test)]
mod tests;
