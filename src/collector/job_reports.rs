//! Reports of job runs that skipped or failed objects: numbers of objects by result, and reasons.
//!
//! Reports are requested for such runs only, once each. Titles, locations and comments name people, so they are not
//! kept, except for comments masked by [`domain::mask_comment`].

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::jobs::{self, ModuleKey, Reported};
use super::{Collector, CollectorId, Context, PollOutput, Price, Record};
use crate::api::wire::{Names, Row};
use crate::api::{Api, Endpoint, Error, Failure, v3};
use crate::domain::{self, CustomerId, ModuleHealth, RunKey, Timestamp};
use crate::exposition::{Label, Shape, ShapeMetrics, ShapeTable, gauge, label};

/// Rows per page: the maximum of the API.
const PAGE_SIZE: usize = 1_000;

/// Maximum pages of a report. The first twenty thousand objects show the reasons.
const MAX_PAGES: usize = 20;

/// Maximum number of requests for a missing report, one per poll.
const MAX_TRIES: u32 = 3;

/// Maximum number of requests for a report that fail: two hours of polls, longer than most faults of the API.
const MAX_FAILED_TRIES: u32 = 24;

/// Maximum number of errors with separate series.
const TOP_ERRORS: usize = 10;

/// Label of all other errors.
const OTHER: &str = "other";

/// Reports of a module or backup scope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Module {
    key: ModuleKey,
    /// The newest run whose report was requested.
    #[serde(rename = "asked")]
    run_key: RunKey,
    /// Start of that run, because runs may share an id.
    #[serde(default)]
    started: Option<Timestamp>,
    /// Number of unsuccessful requests; zero after the report was received.
    #[serde(default)]
    tries: u32,
    /// Number of those requests that failed because of the API.
    #[serde(default)]
    failed: u32,
    /// Its report.
    report: Option<Report>,
}

/// Totals of a report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Report {
    /// Objects by status; `None` if the report was not read completely.
    objects: Option<BTreeMap<Cow<'static, str>, u64>>,
    /// The most common errors, the most common first, and `other`.
    errors: Vec<(String, u64)>,
}

/// The most common errors of the newest report of a module or backup scope, for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommonErrors {
    /// The service.
    pub service: Cow<'static, str>,
    /// The module.
    pub module: Cow<'static, str>,
    /// The backup scope, if the module has any.
    pub scope: Option<String>,
    /// The errors, most common first, each with the number of objects that were not backed up because of it.
    pub errors: Vec<(String, u64)>,
}

impl CommonErrors {
    /// Returns whether these errors belong to this module or backup scope.
    pub fn is_about(&self, module: &ModuleHealth) -> bool {
        (&self.service, &self.module, &self.scope) == (&module.service, &module.module, &module.scope)
    }
}

/// Returns the most common errors in a record of this collector, of each module that has some.
pub fn common_errors(record: &dyn Record) -> Vec<CommonErrors> {
    let modules = record.as_any().downcast_ref::<Vec<Module>>();
    let common = modules.into_iter().flatten().filter_map(|module| {
        let report = module.report.as_ref().filter(|report| !report.errors.is_empty())?;
        Some(CommonErrors {
            service: module.key.service.clone(),
            module: module.key.module.clone(),
            scope: module.key.scope.clone(),
            errors: report.errors.clone(),
        })
    });
    common.collect()
}

/// The collector.
pub(super) struct JobReports;

impl Collector for JobReports {
    const NAME: &'static str = "job_reports";
    const ENDPOINT: Endpoint = Endpoint::JobReport;
    const INTERVAL: Duration = jobs::Jobs::INTERVAL;
    const IS_OPTIONAL: bool = true;
    const PRICE: Price = Price {
        requests: 0.007,
        of: "1 per 1000 objects of each failed run, at most 20 per run",
        ..Price::ONE
    };
    const SCOPE_V3: &'static str = v3::scope::JOBS;
    const AFTER: Option<CollectorId> = Some(CollectorId::JOBS);
    type Target = CustomerId;
    type Record = Vec<Module>;

    async fn poll(
        api: &Api,
        customer: &CustomerId,
        previous: Option<&Self::Record>,
        context: &Context,
    ) -> Result<PollOutput<Self::Record>, Failure> {
        let endpoint = Endpoint::JobReport;
        let mut modules: Vec<Module> = previous.cloned().unwrap_or_default();
        let jobs = context.record_of(CollectorId::JOBS, customer);
        let Some(runs) = jobs.as_deref().and_then(jobs::reported) else {
            return Ok(PollOutput::one(customer, modules, 0, endpoint));
        };
        let (failure, unreadable) =
            update(&mut modules, runs, |id| async move { fetch(api, customer, &id).await }).await?;
        Ok(PollOutput::one(customer, modules, unreadable, endpoint).incomplete_by(failure))
    }

    fn metrics() -> Vec<ShapeMetrics> {
        vec![SHAPE_OBJECTS.metrics(), SHAPE_ERRORS.metrics()]
    }

    fn tables(record: &Self::Record, customer: &CustomerId, context: &Context) -> Vec<ShapeTable> {
        let id = customer.as_str();
        let wanted = |module: &&Module| context.settings.wants(&module.key.service, &module.key.module);
        let report_of = |module: &Module| Some((module.key.clone(), module.report.clone()?));
        let reports: Vec<(ModuleKey, Report)> = record.iter().filter(wanted).filter_map(report_of).collect();
        let counted = |key: &ModuleKey, word: &str, count: u64| Counted {
            key: key.clone(),
            word: word.to_owned(),
            count,
        };
        let objects: Vec<Counted> = reports
            .iter()
            .flat_map(|(key, report)| {
                let objects = report.objects.iter().flatten();
                objects.map(|(status, count)| counted(key, status, *count))
            })
            .collect();
        let errors: Vec<Counted> = reports
            .iter()
            .flat_map(|(key, report)| {
                let errors = report.errors.iter();
                errors.map(|(error, count)| counted(key, error, *count))
            })
            .collect();
        vec![SHAPE_OBJECTS.table(id, &objects), SHAPE_ERRORS.table(id, &errors)]
    }
}

/// Requests the missing reports of these runs. A failed report does not prevent requests for the others. Returns the
/// first failure, and the number of invalid rows.
///
/// # Errors
/// If every report is denied and there has never been a response.
async fn update<Request: Future<Output = Result<(Option<Report>, usize), Failure>>>(
    modules: &mut Vec<Module>,
    runs: Vec<Reported>,
    fetch: impl Fn(Box<str>) -> Request,
) -> Result<(Option<Failure>, usize), Failure> {
    let (mut failure, mut refusal, mut any_succeeded) = (None, None, !modules.is_empty());
    let listed: BTreeSet<&ModuleKey> = runs.iter().map(|run| &run.key).collect();
    modules.retain(|module| listed.contains(&module.key));
    let mut unreadable = 0;
    for Reported { key, run, started } in runs {
        let place = modules.iter().position(|module| module.key == key);
        let mut known = place.and_then(|place| modules.get_mut(place));
        let run_key = run.as_deref().map(|id| RunKey::new(Some(id), None, None));
        let is_same = |known: &Module| run_key == Some(known.run_key) && started == known.started;
        if let Some(known) = known.as_mut().filter(|known| !is_same(known)) {
            // The report of an older run no longer applies after a newer run.
            known.report = None;
        }
        let (Some(id), Some(run_key)) = (run, run_key) else {
            continue;
        };
        let before = known.as_ref().filter(|known| is_same(known));
        let before = before.map(|known| (known.tries, known.failed));
        let is_over =
            |(tries, failed): (u32, u32)| tries == 0 || tries - failed >= MAX_TRIES || failed >= MAX_FAILED_TRIES;
        if before.is_some_and(is_over) {
            continue;
        }
        let (tries, failed) = before.unwrap_or_default();
        let again = tries + 1;
        let (report, tries, failed) = match fetch(id).await {
            Ok((report, unread)) => {
                any_succeeded = true;
                unreadable += unread;
                let tries = if report.is_some() { 0 } else { again };
                (report, tries, failed)
            }
            // The run has no report, or none yet.
            Err(cause) if cause.error.is_missing_service() => {
                refusal = Some(cause);
                (None, again, failed)
            }
            // The report is inconsistent, or cannot be requested.
            Err(cause) if matches!(cause.error, Error::Incomplete(_) | Error::Status(400)) => {
                failure = failure.or(Some(cause));
                (None, again, failed)
            }
            Err(cause) if cause.error.is_resource_error() => {
                failure = failure.or(Some(cause));
                (None, again, failed + 1)
            }
            // The reports read so far are kept; the others are requested at the next poll.
            Err(cause) => {
                failure = Some(cause);
                break;
            }
        };
        match known {
            Some(module) => {
                module.run_key = run_key;
                module.started = started;
                module.report = report;
                module.tries = tries;
                module.failed = failed;
            }
            None => modules.push(Module {
                key,
                run_key,
                started,
                tries,
                failed,
                report,
            }),
        }
    }
    match (refusal, failure) {
        (Some(refusal), None) if !any_succeeded => Err(refusal),
        (_, failure) => Ok((failure, unreadable)),
    }
}

/// Maximum number of attempts to read a report whose total and rows differ.
const MAX_READS: usize = 2;

/// Fetches the report of a run, `None` if it is empty, and the number of its invalid rows.
async fn fetch(api: &Api, customer: &CustomerId, run: &str) -> Result<(Option<Report>, usize), Failure> {
    let mut result = walk(api, customer, run).await;
    for _ in 1..MAX_READS {
        match &result {
            Err(failure) if matches!(failure.error, Error::Incomplete(_)) => {
                result = walk(api, customer, run).await;
            }
            _ => break,
        }
    }
    result
}

async fn walk(api: &Api, customer: &CustomerId, run: &str) -> Result<(Option<Report>, usize), Failure> {
    let (endpoint, scope) = (Endpoint::JobReport, JobReports::SCOPE_V3);
    let client = api.v3(endpoint, scope)?;
    let path = ["customers", customer.as_str(), "jobs", run, "report-details"];
    let mut tally = Tally::default();
    let mut tokens: BTreeSet<String> = BTreeSet::new();
    let mut token: Option<String> = None;
    let mut total = None;
    for _ in 0..MAX_PAGES {
        let page = client
            .chained_page((endpoint, scope), &path, PAGE_SIZE, token.as_deref())
            .await?;
        total = total.or(page.total);
        for (position, json) in page.rows.iter().enumerate() {
            super::turn(position).await;
            let row = Row::read(json, endpoint, api.observer().as_ref());
            tally.add(row.as_ref());
        }
        match page.next {
            // A server may return a token on the last page, too.
            Some(_) if page.rows.is_empty() || total.is_some_and(|total| tally.rows >= total) => token = None,
            Some(next) if !tokens.insert(next.clone()) => {
                return Err(Error::Incomplete("a page was repeated").at(endpoint));
            }
            next => token = next,
        }
        if token.is_none() {
            break;
        }
    }
    let is_whole = token.is_none();
    if is_whole && total.is_some_and(|total| total != tally.rows) {
        return Err(Error::Incomplete("the total does not match the number of rows").at(endpoint));
    }
    let unreadable = tally.unreadable;
    let report = (tally.rows > unreadable).then(|| tally.report(is_whole));
    Ok((report, unreadable))
}

/// The rows of a report so far, counted.
#[derive(Default)]
struct Tally {
    rows: usize,
    unreadable: usize,
    objects: BTreeMap<Cow<'static, str>, u64>,
    failures: BTreeMap<String, u64>,
    warnings: BTreeMap<String, u64>,
}

const STATUS: Names = &["status"];

impl Tally {
    /// Counts a row; one without a result of its object is invalid.
    fn add(&mut self, row: Option<&Row<'_>>) {
        self.rows += 1;
        let parsed = row.and_then(|row| Some((row, row.named(STATUS, domain::report_status)?)));
        let Some((row, status)) = parsed else {
            self.unreadable += 1;
            return;
        };
        let errors = match status.as_ref() {
            "failed" => Some(&mut self.failures),
            "warning" => Some(&mut self.warnings),
            _ => None,
        };
        if let Some(errors) = errors {
            *errors.entry(error(row)).or_default() += 1;
        }
        if domain::report_statuses().any(|known| known == status) {
            *self.objects.entry(status).or_default() += 1;
        }
    }

    /// Returns the report. Its errors are those of failed objects or, if none failed, of objects with a warning.
    fn report(mut self, is_whole: bool) -> Report {
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
            objects: (is_whole && self.unreadable == 0).then_some(self.objects),
            errors: named,
        }
    }
}

/// Returns the error of an object: its code, or its masked comment. A code that is a sentence, an address, an id or a
/// dot-separated name is masked like a comment.
fn error(row: &Row<'_>) -> String {
    let is_code = |code: &str| {
        let is_of_code = |byte: u8| byte.is_ascii_alphanumeric() || b"_-:".contains(&byte);
        let is_id = code.len() >= 16 && code.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
        !is_id && code.len() <= domain::MAX_COMMENT_CHARS && code.bytes().all(is_of_code)
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

/// A count of objects beside a word that is a label.
struct Counted {
    key: ModuleKey,
    word: String,
    count: u64,
}

const SERVICE: Label<Counted> = label("service", |row| Some(&row.key.service));
const MODULE: Label<Counted> = label("module", |row| Some(&row.key.module));
const SCOPE: Label<Counted> = label("scope", |row| row.key.scope.as_deref());

const SHAPE_OBJECTS: Shape<Counted> = Shape {
    labels: &[SERVICE, MODULE, SCOPE, label("status", |row| Some(&row.word))],
    columns: &[gauge(
        "elements_job_report_objects",
        "Objects in the latest report of a failed run; absent if the report has more than 20,000",
        |row| Some(super::float(row.count)),
    )],
};

const SHAPE_ERRORS: Shape<Counted> = Shape {
    labels: &[SERVICE, MODULE, SCOPE, label("error", |row| Some(&row.word))],
    columns: &[gauge(
        "elements_job_report_errors",
        "Objects by error in the latest report of a failed run: the ten most common errors, all others as other",
        |row| Some(super::float(row.count)),
    )],
};

#[cfg(test)]
mod tests;
