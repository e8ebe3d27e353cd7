//! The monthly report for a constructed month, compared with manually calculated values.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::dashboards::{self, Values, interpolate, list, text};
use super::{history, rules};
use crate::harness::servers::{Server, backfill};

const GROUP: &str = "elements-report";
const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const DAY: i64 = 86_400;

/// Number of days with data before the month, and in the month.
const DAYS_BEFORE: i64 = 10;
const DAYS: i64 = 30;

/// Offset after each full hour at which Prometheus evaluates the group, in seconds. It depends on the group's name.
const OFFSET: i64 = 137;

/// Maximum deviation of a result, in seconds, due to hour boundaries and Prometheus' look-back.
const TOLERANCE: f64 = 600.0;

/// The values of a series, each with the hour from which it applies; `None` means no value.
struct SeriesHistory(&'static str, &'static [(i64, Option<f64>)]);

const fn hour(day: i64, hour: i64) -> i64 {
    day * 24 + hour
}

/// Days are counted from ten days before the month. On day 15, Contoso exceeds its RPO from midnight to noon. On
/// day 20, it cannot be polled from midnight to six o'clock, so the age of its backup is unknown during this time.
/// Fabrikam is added on day 30. On day 35, Prometheus is down from midnight to ten o'clock.
const HISTORIES: &[SeriesHistory] = &[
    SeriesHistory(
        r#"customer:elements_customer_info:max{job="elements",customer_id="c1",organization="Contoso",country="CH"}"#,
        &[(0, Some(1.0))],
    ),
    SeriesHistory(
        r#"customer:elements_customer_info:max{job="elements",customer_id="c2",organization="Fabrikam",country="CH"}"#,
        &[(0, None), (hour(30, 0), Some(1.0))],
    ),
    SeriesHistory(
        r#"customer:elements_jobs_fresh:bool{job="elements",customer_id="c1"}"#,
        &[(0, Some(1.0)), (hour(20, 0), Some(0.0)), (hour(20, 6), Some(1.0))],
    ),
    SeriesHistory(
        r#"customer:elements_jobs_fresh:bool{job="elements",customer_id="c2"}"#,
        &[(0, None), (hour(30, 0), Some(1.0))],
    ),
    SeriesHistory(
        r#"customer_module:elements_job_rpo_seconds:max{job="elements",customer_id="c1",service="Microsoft 365",module="Exchange Online"}"#,
        &[(0, Some(93_600.0))],
    ),
    SeriesHistory(
        r#"customer_module:elements_job_rpo_seconds:max{job="elements",customer_id="c2",service="Microsoft 365",module="SharePoint Online"}"#,
        &[(0, None), (hour(30, 0), Some(93_600.0))],
    ),
    SeriesHistory(
        r#"customer_module:elements_job_rpo_breached:bool{job="elements",customer_id="c1",service="Microsoft 365",module="Exchange Online"}"#,
        &[(0, Some(0.0)), (hour(15, 0), Some(1.0)), (hour(15, 12), Some(0.0))],
    ),
    SeriesHistory(
        r#"customer_module:elements_job_rpo_breached:bool{job="elements",customer_id="c2",service="Microsoft 365",module="SharePoint Online"}"#,
        &[(0, None), (hour(30, 0), Some(0.0))],
    ),
    SeriesHistory(
        r#"customer_module:elements_job_last_backup_age_seconds:min{job="elements",customer_id="c1",service="Microsoft 365",module="Exchange Online"}"#,
        &[
            (0, Some(3600.0)),
            (hour(15, 0), Some(136_800.0)),
            (hour(15, 12), Some(3600.0)),
            (hour(20, 0), Some(500_000.0)),
            (hour(20, 6), Some(3600.0)),
        ],
    ),
    // This scope is abandoned, so it has no RPO.
    SeriesHistory(
        r#"customer_module:elements_job_last_backup_age_seconds:min{job="elements",customer_id="c1",service="IaaS + PaaS",module="Dev Ops",scope="old"}"#,
        &[(0, Some(9_000_000.0))],
    ),
    // Two runs complete in the first days of the month, and the counter is reset on day 32. One run completes after
    // the reset, and another one while Prometheus is down.
    SeriesHistory(
        r#"elements_job_runs_total{job="elements",instance="exporter",customer_id="c1",service="Microsoft 365",module="Exchange Online",status="finished"}"#,
        &[
            (0, Some(7.0)),
            (hour(12, 2), Some(8.0)),
            (hour(13, 2), Some(9.0)),
            (hour(32, 12), Some(0.0)),
            (hour(33, 2), Some(1.0)),
            (hour(35, 2), Some(2.0)),
        ],
    ),
    // The series of a status starts with the first run that has this status.
    SeriesHistory(
        r#"elements_job_runs_total{job="elements",instance="exporter",customer_id="c1",service="Microsoft 365",module="Exchange Online",status="failed"}"#,
        &[
            (0, None),
            (hour(14, 2), Some(1.0)),
            (hour(16, 2), Some(2.0)),
            (hour(32, 12), None),
        ],
    ),
    SeriesHistory(
        r#"elements_job_runs_total{job="elements",instance="exporter",customer_id="c1",service="Microsoft 365",module="Exchange Online",status="skipped"}"#,
        &[(0, Some(0.0)), (hour(14, 12), Some(1.0))],
    ),
    SeriesHistory(
        r#"elements_protected_objects{job="elements",instance="exporter",customer_id="c1",service="Microsoft 365",module="Exchange Online",tenant_id="t1"}"#,
        &[(0, Some(100.0)), (hour(20, 0), Some(120.0))],
    ),
    SeriesHistory(
        r#"customer_module:elements_protected_size_bytes:sum{job="elements",customer_id="c1",service="Microsoft 365",module="Exchange Online"}"#,
        &[(0, Some(1000.0)), (hour(20, 0), Some(1500.0))],
    ),
    SeriesHistory(
        r#"license:elements_license_expiration_timestamp_seconds:max{job="elements",customer_id="c1",license="L-1",service="Cloud Backup for Microsoft 365",backup="true"}"#,
        &[(0, Some(1_900_000_000.0))],
    ),
    SeriesHistory(
        r#"elements_license_purchased_seats{job="elements",instance="exporter",customer_id="c1",license="L-1",service="Cloud Backup for Microsoft 365"}"#,
        &[(0, Some(50.0))],
    ),
    SeriesHistory(
        r#"ALERTS{job="elements",alertname="ElementsBackupOverdue",alertstate="firing",severity="warning",area="backup",customer_id="c1",service="Microsoft 365",module="Exchange Online"}"#,
        &[(0, None), (hour(15, 1), Some(1.0)), (hour(15, 12), None)],
    ),
];

/// Writes the histories with a sample every five minutes, and a gap while Prometheus is down.
fn write_histories(file: &Path, start: i64, end: i64) {
    let mut out = BufWriter::new(File::create(file).unwrap());
    let gap = hour(35, 0) * HOUR..hour(35, 10) * HOUR;
    for SeriesHistory(series, values) in HISTORIES {
        for at in (start..=end).step_by(5 * 60) {
            let since = at - start;
            let current = values.iter().rev().find(|(from, _)| from * HOUR <= since);
            if let Some((_, Some(value))) = current
                && !gap.contains(&since)
            {
                writeln!(out, "{series} {value} {at}").unwrap();
            }
        }
    }
    history::end(&mut out).unwrap();
}

/// Records the rules of the report for every hour, in two passes. The second pass records the rules that read results
/// of the first.
async fn record(directory: &Path, start: i64, end: i64) {
    let all: Vec<_> = rules::all().into_iter().filter(|rule| rule.group == GROUP).collect();
    let names: Vec<String> = all.iter().map(|rule| rule.name.clone()).collect();
    let (second, first): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|rule| names.iter().any(|name| rule.expr.contains(name.as_str())));
    assert!(!second.is_empty() && first.len() > second.len());
    for pass in [first, second] {
        let prometheus = Server::prometheus(directory, "global: {}\n").await;
        let file = directory.join("recorded");
        let mut out = BufWriter::new(File::create(&file).unwrap());
        for rule in pass {
            let times = (start + OFFSET, end);
            history::record(
                &prometheus,
                &mut out,
                (&rule.name, &rule.labels),
                &rule.expr,
                times,
                HOUR,
            )
            .await;
        }
        history::end(&mut out).unwrap();
        drop(prometheus);
        backfill(directory, &file);
    }
}

struct Report {
    prometheus: Server,
    dashboard: Value,
    values: Values,
    at: String,
}

impl Report {
    async fn query(&self, title: &str, nth: usize) -> Vec<Value> {
        let panel = list(&self.dashboard["panels"]).find(|panel| text(&panel["title"]).starts_with(title));
        let panel = panel.unwrap_or_else(|| panic!("no panel {title}"));
        let expr = interpolate(text(&panel["targets"][nth]["expr"]), &self.values);
        let form = [("query", expr.as_str()), ("time", &self.at)];
        let data = self.prometheus.api("query", &form).await;
        let data = data.unwrap_or_else(|error| panic!("{title} {nth}: {error}\n{expr}"));
        list(&data["result"]).cloned().collect()
    }

    /// Returns the value of the only series in a query's result.
    async fn value(&self, title: &str, nth: usize) -> f64 {
        let series = self.query(title, nth).await;
        let [one] = &series[..] else {
            panic!("{title} {nth}: {series:?}")
        };
        text(&one["value"][1]).parse().unwrap()
    }

    async fn value_with_label(&self, title: &str, nth: usize, label: &str, value: &str) -> f64 {
        let series = self.query(title, nth).await;
        let found = series.iter().find(|series| series["metric"][label] == value);
        let found = found.unwrap_or_else(|| panic!("{title} {nth}: {series:?}"));
        text(&found["value"][1]).parse().unwrap()
    }
}

#[track_caller]
fn assert_near(found: f64, hours: f64, of_hours: f64, name: &str) {
    let expected = hours / of_hours;
    let tolerance = TOLERANCE / (of_hours * HOUR as f64);
    assert!(
        (found - expected).abs() <= tolerance,
        "{name}: {found}, not {expected} ± {tolerance}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn report_of_a_month_matches_values_calculated_by_hand() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let end = (i64::try_from(now.as_secs()).unwrap() - DAY) / HOUR * HOUR;
    let start = end - (DAYS_BEFORE + DAYS) * DAY;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("past");
    write_histories(&file, start, end);
    backfill(directory.path(), &file);
    record(directory.path(), start, end).await;

    let dashboard = dashboards::all()
        .into_iter()
        .find(|one| one.json["uid"] == "elements-report");
    let mut report = Report {
        prometheus: Server::prometheus(directory.path(), "global: {}\n").await,
        dashboard: dashboard.unwrap().json,
        values: dashboards::select_all("5m"),
        at: end.to_string(),
    };

    // Contoso has 720 hours: 12 in which its RPO is exceeded, 6 without polls, 10 without monitoring, and the rest
    // within the RPO. Fabrikam has 240 hours: the same 10 without monitoring, and the rest within the RPO.
    for (nth, module, hours, of_hours, name) in [
        (0, "Exchange Online", 692.0, 720.0, "within"),
        (1, "Exchange Online", 12.0, 720.0, "missed"),
        (2, "Exchange Online", 16.0, 720.0, "unknown"),
        (0, "SharePoint Online", 230.0, 240.0, "within"),
        (2, "SharePoint Online", 10.0, 240.0, "unknown"),
    ] {
        assert_near(
            report.value_with_label("Modules", nth, "module", module).await,
            hours,
            of_hours,
            name,
        );
    }
    assert_near(report.value("Within RPO", 0).await, 922.0, 960.0, "within");
    assert_near(report.value("Unknown", 0).await, 26.0, 960.0, "unknown");
    for (nth, hours, name) in [(0, 692.0, "within"), (1, 12.0, "missed"), (2, 16.0, "unknown")] {
        let found = report
            .value_with_label("Customers and modules", nth, "organization", "Contoso")
            .await;
        assert_near(found, hours, 720.0, name);
    }

    // Finished runs on days 12, 13, 33 and 35, and failed runs on days 14 and 16. The skipped run does not count.
    assert_eq!(report.value("Runs", 0).await, 6.0);
    assert_eq!(report.value("Failed runs", 0).await, 2.0);
    assert_eq!(
        report.value_with_label("Modules", 4, "module", "Exchange Online").await,
        6.0
    );
    assert_eq!(
        report.value_with_label("Modules", 5, "module", "Exchange Online").await,
        2.0
    );
    assert_eq!(
        report
            .value_with_label("Modules", 4, "module", "SharePoint Online")
            .await,
        0.0
    );
    // The value of 500 000 seconds is ignored, because it occurred while the status was unknown.
    assert_eq!(report.value("Longest gap", 0).await, 136_800.0);
    let modules = report.query("Modules", 6).await;
    assert!(modules.iter().all(|series| series["metric"]["module"] != "Dev Ops"));

    assert_eq!(report.value("Customers, ", 0).await, 2.0);
    assert_eq!(report.value("Protected objects", 0).await, 120.0);
    assert_eq!(report.value("Protection", 1).await, 20.0);
    assert_eq!(report.value("Protection", 3).await, 500.0);
    assert_eq!(
        report.value_with_label("Licences", 0, "organization", "Contoso").await,
        1.9e12
    );
    assert_eq!(
        report.value_with_label("Licences", 1, "organization", "Contoso").await,
        50.0
    );
    assert_eq!(report.value("Incidents", 0).await, 1.0);
    assert_near(
        report
            .value_with_label("Incidents of", 0, "organization", "Contoso")
            .await
            / HOUR as f64,
        11.0,
        1.0,
        "incident",
    );

    report.values.insert("customer".to_owned(), "c2".to_owned());
    assert_near(report.value("Within RPO", 0).await, 230.0, 240.0, "within");
    assert_eq!(report.value("Incidents", 0).await, 0.0);
}

#[test]
fn report_of_a_year_needs_little_storage() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("year");
    let end = 1_700_000_000 / HOUR * HOUR;
    let mut text = String::new();
    // Typical modules: within the RPO, one run per day, and an age that grows every hour.
    for module in 0..MODULES {
        let labels = format!(
            r#"job="elements",customer_id="0b51f0c2-3a8e-4a52-9d2a-{module:012}",service="Microsoft 365",module="Exchange Online""#
        );
        for hour in 0..365 * 24_i64 {
            let at = end - (365 * 24 - hour) * HOUR + OFFSET;
            let age = 5 * MINUTE * (12 * (hour % 24) + (hour * 7 + module) % 5);
            let runs = hour / 24;
            let objects = 200 + hour / 500;
            let size = 1_000_000_000 + hour * 40_000 + module;
            let _ = write!(
                text,
                "customer_module:elements_job_rpo_state_seconds:sum1h{{{labels},state=\"within\"}} 3600 {at}\n\
                 customer_module:elements_job_last_backup_age_seconds:max1h{{{labels}}} {age} {at}\n\
                 customer_module_status:elements_job_runs:max1h{{{labels},status=\"finished\"}} {runs} {at}\n\
                 customer_module:elements_protected_objects:sum1h{{{labels}}} {objects} {at}\n\
                 customer_module:elements_protected_size_bytes:sum1h{{{labels}}} {size} {at}\n"
            );
            if hour % 24 == 2 {
                let _ = writeln!(
                    text,
                    "customer_module_status:elements_job_runs:increase1h{{{labels},status=\"finished\"}} 1 {at}"
                );
            }
        }
    }
    text.push_str("# EOF\n");
    std::fs::write(&file, text).unwrap();
    backfill(directory.path(), &file);
    let bytes = size_of(&directory.path().join("data"));
    let bytes_per_module = bytes / u64::try_from(MODULES).unwrap();
    // `docs/dashboards.md` contains this limit.
    assert!(
        bytes_per_module < MAX_BYTES_PER_YEAR,
        "{bytes_per_module} bytes per module and year"
    );
}

const MODULES: i64 = 10;
const MAX_BYTES_PER_YEAR: u64 = 100_000;

fn size_of(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => size_of(&entry.path()),
            false => entry.metadata().unwrap().len(),
        })
        .sum()
}
