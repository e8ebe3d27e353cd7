//! Backup jobs: runs, failures and restore points.

mod record;
mod request;
mod samples;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::value::RawValue;

pub use self::record::CompletedRun;
use self::record::{Listed, Record, Scan};
use self::request::fetch_rows;
use self::samples::{
    RenderedModule, SHAPE_ENDED, SHAPE_EXEMPTION, SHAPE_LISTED, SHAPE_MODULE, SHAPE_OBJECTS, SHAPE_SCAN,
};
use super::{Collector, CollectorSettings, Context, PollOutput};
use crate::api::wire::{Names, Row};
use crate::api::{Api, Endpoint, Failure, Observer, v1, v3};
use crate::domain::{
    self, CustomerId, History, JobStatus, JobStatusWord, KnownNames, ModuleHealth, ModuleKey, NO_MODULE, PastRun, Run,
    RunKey, RunSummary, Timestamp,
};
use crate::exposition::ShapeSink;

/// The trail of a module or backup scope: its newest completed runs, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleRuns {
    /// The module or backup scope.
    pub key: ModuleKey,
    /// The runs; never empty.
    pub runs: Vec<PastRun>,
}

/// Returns the trails in a record of this collector. Includes modules and backup scopes that are no longer listed.
/// Omits those that the settings do not select, and those without a completed run.
pub fn past_runs(record: &dyn super::Record, settings: &CollectorSettings) -> Vec<ModuleRuns> {
    let record = record.as_any().downcast_ref::<Record>();
    let modules = record.into_iter().flat_map(Record::modules);
    let selected = modules.filter(|module| settings.selects(&module.service, &module.module));
    let runs = selected.map(|module| ModuleRuns {
        key: module.key(),
        runs: module.history.past_runs(),
    });
    runs.filter(|module| !module.runs.is_empty()).collect()
}

/// Adds the names of all modules in a record of this collector.
pub fn add_module_names(record: &dyn super::Record, names: &mut KnownNames) {
    if let Some(record) = record.as_any().downcast_ref::<Record>() {
        record.add_names(names);
    }
}

/// The collector `jobs`.
pub(super) struct Jobs;

impl Collector for Jobs {
    const NAME: &'static str = "jobs";
    const ENDPOINT: Endpoint = Endpoint::Jobs;
    const INTERVAL: Duration = Duration::from_secs(5 * 60);
    const SCOPE_V1: &'static str = v1::scope::JOBS;
    const SCOPE_V3: &'static str = v3::scope::JOBS;
    const POLLS_ON_STATUS_CHANGE: bool = true;
    type Target = CustomerId;
    type Record = Record;

    async fn poll(
        api: &Api,
        customer: &CustomerId,
        previous: Option<&Record>,
        context: &Context,
    ) -> Result<PollOutput<Record>, Failure> {
        let rows = fetch_rows(api, customer, &context.settings).await?;
        let (record, ended, unreadable) = merge_list(&rows, previous, api.observer().as_ref(), context).await;
        let output = PollOutput::of_customer(customer, record, unreadable, Endpoint::Jobs);
        Ok(PollOutput {
            ended: ended.into_iter().map(|run| (customer.clone(), run)).collect(),
            ..output
        })
    }

    fn split(record: &Record) -> Option<(Record, Record)> {
        record.split()
    }

    fn is_quiet(record: &Record) -> bool {
        let mut listed = record.listed();
        !listed.any(|module| module.history.newest().is_some_and(Run::is_in_progress))
    }

    fn polls_alike(settings: &CollectorSettings, other: &CollectorSettings) -> bool {
        settings.job_types == other.job_types && settings.job_modules == other.job_modules
    }

    fn tables(record: &Record, customer: &CustomerId, context: &Context, sink: &mut impl ShapeSink) {
        let modules: Vec<RenderedModule> = RenderedModule::all(record, customer, context).collect();
        let runs_by_status = |counts: fn(&History) -> &BTreeMap<JobStatus, u64>| -> Vec<_> {
            modules.iter().flat_map(|module| module.by_status(counts)).collect()
        };
        let listed = runs_by_status(History::listed);
        let ended = runs_by_status(History::ended);
        let objects: Vec<_> = modules.iter().flat_map(RenderedModule::objects).collect();
        let is_selected = |scan: &&Scan| {
            let job_type = domain::scan_of_service(&scan.service).unwrap_or_default();
            context.settings.selects(job_type, NO_MODULE)
        };
        let scans = record.scans.iter().filter(is_selected);
        let scans: Vec<Scan> = scans.cloned().collect();
        sink.add(&SHAPE_MODULE, &modules);
        sink.add(&SHAPE_LISTED, &listed);
        sink.add(&SHAPE_OBJECTS, &objects);
        sink.add(&SHAPE_ENDED, &ended);
        sink.add(&SHAPE_SCAN, &scans);
        sink.add(&SHAPE_EXEMPTION, &modules);
    }

    fn modules(record: &Record, customer: &CustomerId, context: &Context) -> Vec<ModuleHealth> {
        RenderedModule::all(record, customer, context)
            .map(|rendered| ModuleHealth {
                key: rendered.module.key(),
                latest: rendered.newest().map(RunSummary::from),
                latest_completed: rendered.latest_completed().map(RunSummary::from),
                restore_point: rendered.backup_history().and_then(History::last_restore_point),
                rpo: rendered.objective.rpo,
                until: rendered.objective.until,
                reason: rendered.objective.reason.clone(),
                failures: rendered.backup_history().map_or(0, History::consecutive_failures),
                makes_restore_points: rendered.makes_restore_points,
                is_abandoned: rendered.is_abandoned == Some(true),
            })
            .collect()
    }
}

/// Merges the rows of a list with the previous record. Returns the new record, the newly completed runs, and the number
/// of invalid rows.
async fn merge_list(
    rows: &[Box<RawValue>],
    previous: Option<&Record>,
    observer: &dyn Observer,
    context: &Context,
) -> (Record, Vec<CompletedRun>, usize) {
    let mut listed = Listed::default();
    let unreadable = super::read_rows(rows, Endpoint::Jobs, observer, |row| {
        let (key, run) = parse_row(row, context.now)?;
        match domain::scanned_service(&key.service) {
            _ if !context.settings.selects(&key.service, &key.module) => {}
            Some(service) => listed.add_scan(service, run.status),
            None => listed.add_run(key, run),
        }
        Some(false)
    });
    let unreadable = unreadable.await;
    for _ in 0..listed.cap() {
        observer.decode_error(Endpoint::Jobs, SCOPE, "a module or backup scope beyond the limit");
    }
    let (record, ended, duplicates) = Record::merge(previous, listed, unreadable > 0, context.now);
    if duplicates > 0 {
        observer.duplicate_rows(Endpoint::Jobs, duplicates);
    }
    (record, ended, unreadable)
}

/// Parses a row into its module and its run; returns `None` if the row does not identify its module or backup scope.
fn parse_row(row: &Row<'_>, now: Timestamp) -> Option<(ModuleKey, Run)> {
    let service = row.named(&["jobType"], domain::service)?;
    // A scan does not belong to a module.
    let module_of_scan = || domain::scanned_service(&service).map(|_| Cow::Borrowed(NO_MODULE));
    let job_module = row.named(&["jobModule"], domain::module).or_else(module_of_scan)?;
    let scope = row.text(&[SCOPE]).map(|name| domain::truncate(&name).into_owned());
    if scope.is_none() && row.is_structured(&[SCOPE]) {
        // Without their scopes, such runs would count as runs of one module, and the success of one scope could hide
        // the failure of another.
        return None;
    }
    let id = row.text(&["jobId"]);
    let start = ReportedTime::parse(row, START, now);
    let modified = ReportedTime::parse(row, &["lastModifyTime", "lastModifiedTime"], now);
    let end = ReportedTime::parse(row, END, now);
    if start.valid.is_some() && end.valid.is_some() && end.valid < start.valid {
        row.invalid(END, "a time before the start");
    }
    let has_started = start.valid.is_some();
    let is_in_future = start.is_future() || end.is_future();
    let status = match row.job_status(&["status"]) {
        // A run whose start or end is in the future does not count as a restore point.
        Some(word) if is_in_future && word.resolve(has_started).is_restore_point() => JobStatus::Unknown,
        Some(word) => word.resolve(has_started),
        None if row.is_structured(&["status"]) => JobStatus::Unknown,
        None if start.value.is_none() && end.value.is_none() => JobStatusWord::NotFinished.resolve(false),
        None => {
            row.invalid(&["status"], "no status, although the run has times");
            JobStatus::Unknown
        }
    };
    let has_time = |names| row.text(names).is_some_and(|text| domain::timestamp(&text) != Ok(None));
    let has_times = has_time(START) || has_time(END);
    // A completed run whose row has neither a start nor an end is assumed to have ended at the last modification. A
    // restore point must also lack an id, as every run without objects does.
    let may_lack_end = status.has_ended(false) && (id.is_none() || !status.is_restore_point());
    let undated_end = modified.valid.filter(|_| may_lack_end && !has_times);
    let failed = row.count(&["failedCount"]);
    let is_reported = service == REPORTED_SERVICE
        && (matches!(status, JobStatus::Failed | JobStatus::FinishedWithException)
            || failed.is_some_and(|failed| failed > 0));
    let report = id
        .as_deref()
        .and_then(domain::parse_id)
        .filter(|_| is_reported)
        .map(Box::from);
    // Without an id, the key is computed from the reported start or end. A valid time ahead of the exporter's clock is
    // capped at the current time, and the capped time would give the run a different key in each poll.
    let reported_end = end.value.or(undated_end.and(modified.value));
    let key = RunKey::new(id.as_deref(), start.value, reported_end);
    let start_or_modified = start.valid.or(modified.valid.filter(|_| !has_times));
    let end = end.valid.or(undated_end);
    let run = Run {
        key,
        id: id.as_deref().map(|id| Box::from(domain::truncate(id))),
        report,
        status,
        start: start.valid,
        end,
        dated: assumed_end(status, start_or_modified, end, now),
        modified: modified.valid,
        duration: row.duration(&["jobDuration"]).filter(|_| undated_end.is_none()),
        backup_size: row.size(&["backupSize"]),
        processed: row.count(&["totalCount"]),
        successful: row.count(&["successfulCount"]),
        failed,
        skipped: row.count(&["skippedCount"]),
        warning: row.count(&["warningCount"]),
    };
    let key = ModuleKey {
        service,
        module: job_module,
        scope,
    };
    Some((key, run))
}

/// The only service whose runs have reports.
pub(super) const REPORTED_SERVICE: &str = "Microsoft 365";

/// The latest completed run of a listed module or backup scope, and the id for requesting its report.
pub(super) struct ReportableRun {
    pub(super) key: ModuleKey,
    /// Id of the run; `None` if no report is requested for it, or if no run has completed.
    pub(super) run: Option<Box<str>>,
    pub(super) started: Option<Timestamp>,
}

/// Returns the latest completed runs in a record of this collector; `None` for another collector's record.
pub(super) fn reportable_runs(record: &dyn super::Record) -> Option<Vec<ReportableRun>> {
    let record = record.as_any().downcast_ref::<Record>()?;
    let runs = record.listed().map(|module| ReportableRun {
        key: module.key(),
        run: module.history.latest_completed().and_then(|run| run.report.clone()),
        started: module.history.latest_completed().and_then(|run| run.start),
    });
    Some(runs.collect())
}

/// Returns the services of the listed modules in a record of this collector; `None` for another collector's record.
pub(super) fn listed_services(record: &dyn super::Record) -> Option<BTreeSet<Cow<'static, str>>> {
    let record = record.as_any().downcast_ref::<Record>()?;
    Some(record.listed().map(|module| module.service.clone()).collect())
}

/// The field that names the backup scope.
const SCOPE: &str = "name";
const START: Names = &["startTime"];
const END: Names = &["endTime"];

/// Returns the assumed end of a run whose end is unknown. For a restore point, this is the start, because the data may
/// be that old. If the row has neither a start nor an end, the last modification replaces the start. For a failure
/// without a valid start, this is the current time, so that the failure counts.
fn assumed_end(
    status: JobStatus,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    match (end, start) {
        (None, start) if status.is_restore_point() => start,
        (None, None) if status.counts_as_failure(false) => Some(now),
        _ => None,
    }
}

/// The start, end or last modification of a run, as reported by the API.
#[derive(Clone, Copy, Debug)]
struct ReportedTime {
    value: Option<Timestamp>,
    /// The time, capped at the current time; `None` if it is further in the future than clock skew can explain.
    valid: Option<Timestamp>,
}

impl ReportedTime {
    /// Parses a time. A time in the future is replaced by the current time if it is within the tolerance for clock
    /// skew, and is counted as invalid otherwise.
    fn parse(row: &Row<'_>, names: Names, now: Timestamp) -> Self {
        let value = row.timestamp(names);
        let valid = value.and_then(|at| super::not_in_future(row, names, at, now));
        Self {
            value,
            valid: valid.map(|at| at.min(now)),
        }
    }

    fn is_future(self) -> bool {
        self.value.is_some() && self.valid.is_none()
    }
}
