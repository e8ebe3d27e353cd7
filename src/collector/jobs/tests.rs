//! Tests of the jobs collector. The first half of this file contains the helpers for all tests.

mod ended;
mod invalid;
mod scopes;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;
use crate::api::auth;
use crate::collector::CollectorId;
use crate::exposition::CustomerTables;

/// Reference time of the tests, 2026-11-29 12:00 UTC.
const NOW: i64 = 1_795_953_600;
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
const RPO: f64 = 26.0 * 3_600.0;

#[derive(Debug, Default)]
struct Counts {
    /// The invalid values as reported: masked, or described in words.
    undecoded: Mutex<Vec<String>>,
    duplicates: AtomicU64,
}

impl Observer for Counts {
    fn request(&self, _: Endpoint, _: Option<u16>, _: Duration) {}
    fn retry(&self, _: Endpoint) {}
    fn throttled(&self, _: Endpoint) {}
    fn decode_error(&self, _: Endpoint, _: &'static str, shape: &str) {
        self.undecoded.lock().unwrap().push(shape.to_owned());
    }
    fn unknown_value(&self, _: Endpoint, _: &'static str, _: &str) {}
    fn duplicate_rows(&self, _: Endpoint, rows: u64) {
        self.duplicates.fetch_add(rows, Ordering::Relaxed);
    }
    fn token_failure(&self, _: &auth::Error) {}
    fn token(&self, _: Duration) {}
}

/// A customer whose lists are merged one after another, with the resulting record.
#[derive(Default)]
struct Customer {
    record: Option<Record>,
    settings: CollectorSettings,
    counts: Counts,
    now: i64,
    /// Newly completed runs in the latest list.
    ended: Vec<CompletedRun>,
    /// Number of invalid rows in the latest list.
    unreadable: usize,
}

impl Customer {
    async fn list(&mut self, now: i64, rows: &[Value]) {
        self.now = now;
        let rows: Vec<Box<RawValue>> = rows
            .iter()
            .map(|row| serde_json::value::to_raw_value(row).unwrap())
            .collect();
        let context = self.context();
        let (record, ended, unreadable) = merge_list(&rows, self.record.as_ref(), &self.counts, &context).await;
        (self.record, self.ended, self.unreadable) = (Some(record), ended, unreadable);
    }

    fn context(&self) -> Context {
        Context::new(
            Timestamp::from_unix_seconds(self.now),
            Arc::new(self.settings.clone()),
            "Contoso".into(),
        )
    }

    /// Returns the values of all series by name and labels, without `customer_id`.
    fn series(&self) -> BTreeMap<String, f64> {
        let customer = CustomerId::parse("c-1").unwrap();
        let context = self.context();
        let mut tables = CustomerTables::new(customer.as_str(), &context.settings.excluded);
        Jobs::tables(self.record.as_ref().unwrap(), &customer, &context, &mut tables);
        let mut series = BTreeMap::new();
        for (table, metrics) in tables.tables.iter().zip(CollectorId::JOBS.descriptor().metrics()) {
            for row in 0..table.rows() {
                let labels = table.labels(row).unwrap().trim_start_matches(',');
                for (column, (metric, _)) in metrics.iter().enumerate() {
                    if let Some(value) = table.value(row, column) {
                        series.insert(format!("{}{{{labels}}}", metric.name), value);
                    }
                }
            }
        }
        series
    }

    /// Returns the value of a metric's only series; `None` if it has no series.
    fn value(&self, metric: &str) -> Option<f64> {
        let series = self.series();
        let mut matching = series
            .iter()
            .filter(|(name, _)| name.starts_with(&format!("{metric}{{")));
        let value = matching.next().map(|(_, value)| *value);
        assert!(
            matching.next().is_none(),
            "{metric} has more than one series: {series:?}"
        );
        value
    }

    #[expect(clippy::cast_possible_truncation, reason = "whole seconds and counts")]
    fn whole(&self, metric: &str) -> Option<i64> {
        self.value(metric).map(|value| value as i64)
    }

    fn state(&self) -> State {
        State {
            status: self.whole("elements_job_status"),
            restore_point: self.whole("elements_job_last_backup_timestamp_seconds"),
            failures: self.whole("elements_job_consecutive_failures"),
            has_objective: self.value("elements_job_rpo_seconds").is_some(),
            is_abandoned: self.value("elements_job_abandoned").map(|value| value == 1.0),
            pending_since: self.whole("elements_job_pending_since_timestamp_seconds"),
        }
    }
}

/// The values that the alerts use.
#[derive(Clone, Copy, Debug, PartialEq)]
struct State {
    status: Option<i64>,
    restore_point: Option<i64>,
    failures: Option<i64>,
    has_objective: bool,
    is_abandoned: Option<bool>,
    pending_since: Option<i64>,
}

fn time(second: i64) -> String {
    jiff::Timestamp::from_second(second).unwrap().to_string()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Generation {
    V1,
    V3,
}

/// Kinds of rows in the vendor's reference, and variants of them.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Finished,
    Failed,
    /// Failed, but has no failed objects: all counts by result are 0.
    FailedEarly,
    FailedUndated,
    WithException,
    /// Started and ended in the same second.
    ZeroSeconds,
    /// Had nothing to back up: no id, start or end.
    WithoutObjects,
    Skipped,
    Running,
    RunningUnstarted,
    Pending,
    Disabled,
    NotStarted,
    Waiting,
    /// A failed run, long ago, of a module that is now abandoned.
    AbandonedFailed,
    AbandonedFinished,
}

const KINDS: [Kind; 16] = [
    Kind::Finished,
    Kind::Failed,
    Kind::FailedEarly,
    Kind::FailedUndated,
    Kind::WithException,
    Kind::ZeroSeconds,
    Kind::WithoutObjects,
    Kind::Skipped,
    Kind::Running,
    Kind::RunningUnstarted,
    Kind::Pending,
    Kind::Disabled,
    Kind::NotStarted,
    Kind::Waiting,
    Kind::AbandonedFailed,
    Kind::AbandonedFinished,
];

impl Kind {
    fn status(self) -> (i64, &'static str) {
        match self {
            Self::Finished | Self::ZeroSeconds | Self::WithoutObjects | Self::AbandonedFinished => (2, "Finished"),
            Self::Failed | Self::FailedEarly | Self::FailedUndated | Self::AbandonedFailed => (3, "Failed"),
            Self::WithException => (4, "Finished with exception"),
            Self::Skipped => (5, "Skipped"),
            Self::Running | Self::RunningUnstarted => (1, "In progress"),
            Self::Pending => (6, "Pending"),
            Self::Disabled => (12, "Disabled"),
            Self::NotStarted => (13, "Not started"),
            Self::Waiting => (14, "Waiting for configuration"),
        }
    }

    /// Returns the start, end and last modification of a row that is listed at `now`.
    fn times(self, now: i64) -> (Option<i64>, Option<i64>, Option<i64>) {
        let long_ago = NOW - 260 * DAY;
        match self {
            Self::Finished | Self::Failed | Self::FailedEarly | Self::WithException | Self::Skipped => {
                (Some(now - HOUR), Some(now - HOUR / 2), Some(now - HOUR / 2))
            }
            Self::ZeroSeconds => (Some(now - HOUR), Some(now - HOUR), Some(now - HOUR + 2)),
            Self::WithoutObjects | Self::FailedUndated => (None, None, Some(now - HOUR / 2)),
            Self::Running => (Some(now - HOUR / 4), None, Some(now - 60)),
            Self::RunningUnstarted | Self::Pending => (None, None, Some(now - HOUR / 3)),
            Self::Disabled => (None, None, Some(long_ago)),
            Self::NotStarted | Self::Waiting => (None, None, None),
            Self::AbandonedFailed => (Some(long_ago - HOUR), Some(long_ago), Some(long_ago)),
            Self::AbandonedFinished => (Some(long_ago - 9 * DAY), Some(long_ago - 8 * DAY), Some(long_ago)),
        }
    }

    fn row(self, now: i64, generation: Generation) -> Value {
        let (code, word) = self.status();
        let (start, end, modified) = self.times(now);
        let format = |at: Option<i64>| at.map_or("N/A".to_owned(), time);
        let id = match (start, self) {
            (Some(start), _) => format!("IB{start}"),
            (None, _) => "N/A".to_owned(),
        };
        let failed = if self == Self::Failed { "3" } else { "0" };
        let (job_type, module, status) = match generation {
            Generation::V3 => (json!(7), json!(303), json!(code)),
            Generation::V1 if code == 13 => (json!("Microsoft 365"), json!("Exchange Online"), json!("Not Finished")),
            Generation::V1 => (json!("Microsoft 365"), json!("Exchange Online"), json!(word)),
        };
        json!({
            "jobType": job_type, "jobModule": module, "status": status, "jobId": id, "name": "N/A",
            "totalCount": "3", "failedCount": failed, "successfulCount": "0", "skippedCount": "0", "warningCount": "0",
            "backupSize": "0 GB", "startTime": format(start), "endTime": format(end),
            "jobDuration": if self == Self::ZeroSeconds { "0 S" } else { "N/A" }, "lastModifyTime": format(modified),
        })
    }

    fn makes_restore_point(self) -> bool {
        matches!(self.status().0, 2 | 4)
    }

    fn has_ended(self) -> bool {
        matches!(self.status().0, 2..=5)
    }

    /// Returns the end of the run or, failing that, its start or last modification; `None` if no run has started.
    fn occurred_at(self, now: i64) -> Option<i64> {
        let (start, end, modified) = self.times(now);
        let dated = end.or(start);
        dated.or(modified.filter(|_| matches!(self, Self::WithoutObjects | Self::FailedUndated)))
    }
}

/// Returns the expected state after a sequence of rows, computed independently of the collector.
fn expected(sequence: &[(Kind, i64)]) -> State {
    let (kind, now) = *sequence.last().unwrap();
    let ended: Vec<_> = sequence.iter().filter(|(kind, _)| kind.has_ended()).collect();
    let end = |&&(kind, at): &&(Kind, i64)| kind.occurred_at(at).unwrap();
    let restore_point = ended
        .iter()
        .filter(|(kind, _)| kind.makes_restore_point())
        .map(end)
        .max();
    let mut failures: Vec<i64> = ended.iter().filter(|(kind, _)| kind.status().0 == 3).map(end).collect();
    failures.dedup();
    let failures = failures.iter().filter(|end| Some(**end) > restore_point).count();
    let running = (kind == Kind::Running).then(|| kind.times(now).0.unwrap());
    let newest = ended.iter().map(end).max().max(running);
    let is_abandoned = newest.map(|newest| now - newest > 90 * DAY);
    let has_run = !ended.is_empty();
    let is_configured = !matches!(kind, Kind::NotStarted | Kind::Waiting) || has_run;
    State {
        status: Some(kind.status().0),
        restore_point: has_run.then(|| restore_point.unwrap_or(0)),
        failures: has_run.then(|| i64::try_from(failures).unwrap()),
        has_objective: kind != Kind::Disabled && is_configured && is_abandoned != Some(true),
        is_abandoned,
        pending_since: match kind {
            Kind::Pending | Kind::RunningUnstarted => kind.times(now).2,
            _ => None,
        },
    }
}

/// Lists the rows one after the other, each at its own time.
async fn list_all(sequence: &[(Kind, i64)], generation: Generation) -> Customer {
    let mut customer = Customer::default();
    for (kind, now) in sequence {
        customer.list(*now, &[kind.row(*now, generation)]).await;
    }
    customer
}

#[tokio::test]
async fn rows_of_all_kinds_and_orders_match_the_reference() {
    for generation in [Generation::V1, Generation::V3] {
        for first in KINDS {
            for second in KINDS {
                let after = |before: Option<Kind>| {
                    let before = before.map(|kind| (kind, NOW - 2 * HOUR));
                    before
                        .into_iter()
                        .chain([(first, NOW), (second, NOW + 2 * HOUR)])
                        .collect::<Vec<_>>()
                };
                for sequence in [after(None), after(Some(Kind::Finished)), after(Some(Kind::Failed))] {
                    for length in 1..=sequence.len() {
                        let customer = list_all(&sequence[..length], generation).await;
                        let expected = expected(&sequence[..length]);
                        assert_eq!(customer.state(), expected, "{generation:?} {:?}", &sequence[..length]);
                        assert_eq!(customer.counts.undecoded.lock().unwrap().len(), 0);
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn run_without_objects_ends_at_the_last_modification() {
    let mut customer = list_all(&[(Kind::WithoutObjects, NOW)], Generation::V3).await;
    let end = (NOW - HOUR / 2) as f64;
    assert_eq!(customer.value("elements_job_end_timestamp_seconds"), Some(end));
    assert_eq!(customer.value("elements_job_last_success_timestamp_seconds"), Some(end));
    assert_eq!(customer.value("elements_job_start_timestamp_seconds"), None);
    assert_eq!(customer.value("elements_job_duration_seconds"), None);
    assert_eq!(customer.value("elements_job_runs_total"), Some(1.0));
    // The same row in the next list describes the same run. A row with a later modification time describes a different
    // run.
    customer
        .list(NOW + 300, &[Kind::WithoutObjects.row(NOW, Generation::V3)])
        .await;
    assert_eq!(customer.value("elements_job_runs_total"), Some(1.0));
    customer
        .list(NOW + 600, &[Kind::WithoutObjects.row(NOW + 600, Generation::V3)])
        .await;
    assert_eq!(customer.value("elements_job_runs_total"), Some(2.0));
}

fn scoped(kind: Kind, now: i64, scope: &str) -> Value {
    let mut row = kind.row(now, Generation::V3);
    (row["jobType"], row["jobModule"], row["name"]) = (json!(12), json!(363), json!(scope));
    row
}

#[tokio::test]
async fn maintenance_has_no_objective_and_no_restore_point() {
    for module in [8, 10] {
        let mut row = Kind::Failed.row(NOW, Generation::V3);
        row["jobModule"] = json!(module);
        let mut customer = Customer::default();
        customer.list(NOW, &[row]).await;
        for absent in [
            "elements_job_last_backup_timestamp_seconds",
            "elements_job_last_success_timestamp_seconds",
            "elements_job_consecutive_failures",
            "elements_job_rpo_seconds",
        ] {
            assert_eq!(customer.value(absent), None, "{module} {absent}");
        }
        assert_eq!(customer.value("elements_job_status"), Some(3.0));
        assert_eq!(customer.value("elements_job_runs_total"), Some(1.0));
        assert_eq!(customer.value("elements_job_abandoned"), Some(0.0));
    }
}

#[tokio::test]
async fn runs_with_the_same_id_and_different_starts_are_distinct() {
    let mut failed = Kind::Failed.row(NOW - 24 * HOUR, Generation::V3);
    let mut finished = Kind::Finished.row(NOW, Generation::V3);
    failed["jobId"] = json!("same");
    finished["jobId"] = json!("same");
    let unstarted = json!({"jobType": 7, "jobModule": 303, "status": 6, "jobId": "same"});
    for rows in [
        vec![failed.clone(), finished.clone()],
        vec![unstarted, failed, finished],
    ] {
        let mut customer = Customer::default();
        customer.list(NOW, &rows).await;
        assert_eq!(customer.value("elements_job_consecutive_failures"), Some(0.0));
        let runs: f64 = customer
            .series()
            .iter()
            .filter(|(name, _)| name.starts_with("elements_job_runs_total{"))
            .map(|(_, value)| value)
            .sum();
        assert_eq!(runs, 2.0);
    }
}

#[tokio::test]
async fn status_comes_from_the_current_list() {
    let sequence = [(Kind::Finished, NOW), (Kind::Pending, NOW - DAY)];
    let customer = list_all(&sequence, Generation::V3).await;
    assert_eq!(customer.value("elements_job_status"), Some(6.0));
    assert_eq!(customer.value("elements_job_rpo_seconds"), Some(RPO));
}

#[tokio::test]
async fn invalid_row_keeps_values_of_missing_modules() {
    let mut customer = Customer::default();
    let scan = json!({"jobType": 0, "jobModule": 0, "status": 2});
    customer.list(NOW, &[scan, scoped(Kind::Failed, NOW, "Scope A")]).await;
    let before = customer.series();
    customer.list(NOW + 300, &[json!("no row")]).await;
    assert_eq!(customer.series(), before);
    let (fresh, held) = customer.record.as_ref().unwrap().split().unwrap();
    assert!(fresh.modules().next().is_none() && fresh.scans.is_empty());
    assert_eq!(Some(held), customer.record);
}

#[tokio::test]
async fn first_state_format_is_restored_without_tenant_scans() {
    let mut customer = Customer::default();
    customer.list(NOW, &[Kind::Finished.row(NOW, Generation::V3)]).await;
    let record = serde_json::to_value(customer.record.as_ref().unwrap()).unwrap();
    let mut modules = record["modules"].as_array().unwrap().clone();
    let mut scan = modules[0].clone();
    scan["service"] = json!("Microsoft 365 Scan");
    modules.push(scan);
    let old: Record = serde_json::from_value(Value::Array(modules)).unwrap();
    let mut known = customer.record.clone().unwrap();
    known.listed_at = None;
    assert_eq!(old, known);
    let mut numbered = record.clone();
    numbered["modules"][0]["module"] = json!("unknown_303");
    let named: Record = serde_json::from_value(numbered).unwrap();
    assert_eq!(Some(&named), customer.record.as_ref());
    let new: Record = serde_json::from_value(record).unwrap();
    assert_eq!(Some(new), customer.record);
    assert!(serde_json::from_value::<Record>(json!({"modules": 1})).is_err());
}
