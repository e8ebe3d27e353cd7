//! Valid responses that could be misinterpreted.

use elements_exporter::simulator::{Fault, FaultKind};
use serde_json::{Value, json};

use super::{Exporter, errors, ids, number, success, sum};
use crate::harness::canned::CannedServer;
use crate::harness::partner::{frozen_partner, start};
use crate::harness::{config, value};

const ID: &str = "c-1";
const DAY: &str = "2026-03-01";

/// Labels of the module under test.
const EXCHANGE: &str = r#"{customer_id="c-1",service="Microsoft 365",module="Exchange Online"}"#;

/// Returns a finished run of Exchange Online with the given fields replaced.
pub(super) fn job(id: &str, fields: Value) -> Value {
    let mut job = json!({
        "jobType": "Microsoft 365", "jobModule": "Exchange Online", "status": "Finished", "jobId": id, "name": "N/A",
        "totalCount": "10", "failedCount": "0", "successfulCount": "10", "skippedCount": "0", "warningCount": "0",
        "backupSize": "1 GB", "startTime": format!("{DAY}T01:00:00Z"), "endTime": format!("{DAY}T02:00:00Z"),
        "jobDuration": "1h", "lastModifyTime": format!("{DAY}T02:00:00Z"),
    });
    let Value::Object(fields) = fields else {
        panic!("not an object")
    };
    job.as_object_mut().unwrap().extend(fields);
    job
}

/// Adds the times of a half-hour run that starts at the given hour. Times that the fields already contain are kept.
fn at(hour: u32, mut fields: Value) -> Value {
    let end = format!("{DAY}T{:02}:30:00Z", hour);
    let times = json!({"startTime": format!("{DAY}T{hour:02}:00:00Z"), "endTime": end, "lastModifyTime": end});
    let Value::Object(times) = times else {
        panic!("not an object")
    };
    let fields = fields.as_object_mut().unwrap();
    let mut all = times;
    all.append(fields);
    Value::Object(all)
}

pub(super) fn seconds(time: &str) -> f64 {
    time.parse::<jiff::Timestamp>().unwrap().as_second() as f64
}

fn list(rows: &[Value]) -> String {
    json!({ "value": rows }).to_string()
}

pub(super) async fn start_api(jobs: &[Value]) -> CannedServer {
    let canned = CannedServer::start(&[(
        "GET /partner/customers",
        r#"{"value":[{"id":"c-1","organization":"Contoso","jobStatus":"Working"}]}"#,
    )])
    .await;
    set_jobs(&canned, jobs);
    canned
}

pub(super) fn set_jobs(canned: &CannedServer, jobs: &[Value]) {
    canned.set("GET /partner/customers/c-1/jobs", 200, &list(jobs));
}

/// Returns the exposition after one poll of the given job list.
pub(super) async fn exposition_of(jobs: &[Value]) -> String {
    let canned = start_api(jobs).await;
    let extra_env = [
        ("ELEMENTS_API__VERSION", "v1"),
        ("ELEMENTS_COLLECTORS__PROTECTED__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__LICENSES__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__SCAN_PROFILES__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__SCAN_CHANGES__ENABLED", "false"),
    ];
    let (text, succeeded) = crate::harness::poll_once(&config(&canned.base, &extra_env)).await;
    assert!(succeeded, "{text}");
    text
}

async fn start_exporter(jobs: &[Value]) -> (CannedServer, Exporter) {
    let canned = start_api(jobs).await;
    let exporter = Exporter::start(&canned.base, &["jobs"], &[("ELEMENTS_API__VERSION", "v1")]).await;
    exporter.wait_until_settled().await;
    (canned, exporter)
}

fn exchange(name: &str) -> String {
    format!("elements_job_{name}{EXCHANGE}")
}

#[tokio::test]
async fn unlisted_status_is_unknown_and_never_a_success() {
    for status in [json!("Exploded"), json!("99"), json!(99), json!("Finished?")] {
        let text = exposition_of(&[job("A", json!({ "status": status }))]).await;
        assert_eq!(number(&text, &exchange("status")), -1.0, "{status}");
        assert_eq!(
            number(&text, &exchange("last_success_timestamp_seconds")),
            0.0,
            "{status}"
        );
        assert_eq!(
            number(&text, &exchange("last_backup_timestamp_seconds")),
            0.0,
            "{status}"
        );
        let unknown = "elements_exporter_unknown_values_total{endpoint=\"jobs\",field=\"status\"}";
        assert_eq!(number(&text, unknown), 1.0, "{status}");
    }
    let customer = r#"{"value":[{"id":"c-1","organization":"Contoso","jobStatus":"Splendid"}]}"#;
    let canned = CannedServer::start(&[("GET /partner/customers", customer)]).await;
    let (text, _) = crate::harness::poll_once(&config(&canned.base, &[("ELEMENTS_API__VERSION", "v1")])).await;
    assert_eq!(number(&text, "elements_customer_status{customer_id=\"c-1\"}"), -1.0);
}

#[tokio::test]
async fn failed_run_is_failed_regardless_of_its_object_counts() {
    let failed = json!({"status": "Failed", "failedCount": "0", "successfulCount": "10"});
    let text = exposition_of(&[job("A", failed)]).await;
    assert_eq!(number(&text, &exchange("status")), 3.0);
    assert_eq!(number(&text, &exchange("consecutive_failures")), 1.0);
    assert_eq!(number(&text, &exchange("last_backup_timestamp_seconds")), 0.0);
}

#[tokio::test]
async fn exception_is_a_restore_point_but_not_a_success() {
    let text = exposition_of(&[job(
        "A",
        json!({"status": "Finished with Exception", "failedCount": "3"}),
    )])
    .await;
    assert_eq!(number(&text, &exchange("last_success_timestamp_seconds")), 0.0);
    let end = seconds(&format!("{DAY}T02:00:00Z"));
    assert_eq!(number(&text, &exchange("last_backup_timestamp_seconds")), end);
    assert_eq!(number(&text, &exchange("consecutive_failures")), 0.0);
}

#[tokio::test]
async fn run_in_progress_does_not_hide_the_previous_failure() {
    let failed = job("A", at(3, json!({"status": "Failed", "failedCount": "7"})));
    let running = job(
        "B",
        at(
            5,
            json!({"status": "In Progress", "endTime": "N/A", "failedCount": "0"}),
        ),
    );
    let text = exposition_of(&[running.clone(), failed.clone()]).await;
    assert_eq!(number(&text, &exchange("status")), 1.0);
    assert_eq!(number(&text, &exchange("consecutive_failures")), 1.0);
    assert_eq!(number(&text, &exchange("last_backup_timestamp_seconds")), 0.0);
    let end = seconds(&format!("{DAY}T03:30:00Z"));
    assert_eq!(number(&text, &exchange("end_timestamp_seconds")), end);
    let failed_objects = EXCHANGE.replace('}', r#",result="failed"}"#);
    assert_eq!(number(&text, &format!("elements_job_objects{failed_objects}")), 7.0);
    // Even if only the newest run is listed, the exporter retains the previous run.
    let (canned, exporter) = start_exporter(&[failed]).await;
    set_jobs(&canned, &[running]);
    let text = exporter
        .wait_until("the run is in progress", |text| {
            value(text, &exchange("status")) == Some(1.0)
        })
        .await;
    assert_eq!(number(&text, &exchange("consecutive_failures")), 1.0);
    assert_eq!(number(&text, &exchange("end_timestamp_seconds")), end);
}

#[tokio::test]
async fn module_without_runs_is_exposed_as_not_started() {
    let none = json!({
        "status": "Not Finished", "jobId": "N/A", "totalCount": "0", "successfulCount": "0", "backupSize": "0 GB",
        "startTime": "N/A", "endTime": "N/A", "jobDuration": "N/A", "lastModifyTime": "N/A",
    });
    let text = exposition_of(&[job("N/A", none)]).await;
    assert_eq!(number(&text, &exchange("status")), 13.0, "not started");
    for name in [
        "rpo_seconds",
        "backup_size_bytes",
        "processed_objects",
        "last_success_timestamp_seconds",
        "last_backup_timestamp_seconds",
        "end_timestamp_seconds",
        "consecutive_failures",
    ] {
        assert_eq!(value(&text, &exchange(name)), None, "{name}");
    }
}

#[tokio::test]
async fn duplicate_rows_become_one_sample_with_the_worse_status() {
    let failed = job("A", json!({"status": "Failed"}));
    for rows in [
        [job("A", json!({})), failed.clone()],
        [failed.clone(), job("A", json!({}))],
    ] {
        let text = exposition_of(&rows).await;
        assert_eq!(number(&text, &exchange("status")), 3.0);
        assert_eq!(
            number(&text, "elements_exporter_duplicate_rows_total{endpoint=\"jobs\"}"),
            1.0
        );
        assert_eq!(text.matches("elements_job_status{").count(), 1);
    }
}

#[tokio::test]
async fn late_older_run_does_not_replace_a_newer_one() {
    let newer = job("B", at(9, json!({})));
    let older = job("A", at(3, json!({"status": "Failed", "totalCount": "1"})));
    let (canned, exporter) = start_exporter(&[newer]).await;
    set_jobs(&canned, &[older]);
    let failed = EXCHANGE.replace('}', r#",status="failed"}"#);
    let text = exporter
        .wait_until("the older run was polled", |text| {
            value(text, &format!("elements_job_runs_total{failed}")) == Some(1.0)
        })
        .await;
    assert_eq!(
        number(&text, &exchange("status")),
        3.0,
        "the status must be the one in the list"
    );
    assert_eq!(number(&text, &exchange("processed_objects")), 10.0);
    let end = seconds(&format!("{DAY}T09:30:00Z"));
    assert_eq!(number(&text, &exchange("last_backup_timestamp_seconds")), end);
    assert_eq!(number(&text, &exchange("consecutive_failures")), 0.0);
}

#[tokio::test]
async fn scan_profile_is_removed_only_if_the_list_lacks_it() {
    for (generation, details, changes) in [
        ("v1", "*/scanProfiles/p-0", "*/p-0/dailyNewSummary"),
        ("v3", "*/scan-profiles/p-0", "*/p-0/changes"),
    ] {
        let partner = start(frozen_partner(1)).await;
        let profiles = partner.handle.with_world(|world| {
            let customer = &mut world.customers[0];
            let profile = customer.scan_profiles[0].clone();
            customer.scan_profiles = (0..3)
                .map(|number| {
                    let mut profile = profile.clone();
                    profile.id = format!("p-{number}");
                    profile
                })
                .collect();
            customer.scan_profiles.clone()
        });
        let set_profiles = |numbers: &[usize]| {
            let remaining = numbers.iter().map(|number| profiles[*number].clone()).collect();
            partner
                .handle
                .with_world(|world| world.customers[0].scan_profiles = remaining);
        };
        let extra_env = [("ELEMENTS_API__VERSION", generation)];
        let exporter = Exporter::start(&partner.base, &["scan_profiles", "scan_changes"], &extra_env).await;
        let id = ids(&partner)[0].clone();
        let before = exporter.wait_until_settled().await;
        let lines_of = |text: &str, number: usize| {
            let label = format!("profile_id=\"p-{number}\"");
            let mut lines: Vec<_> = text
                .lines()
                .filter(|line| line.contains(&label))
                .map(str::to_owned)
                .collect();
            lines.sort();
            lines
        };
        assert!(!lines_of(&before, 0).is_empty());
        let missing = || FaultKind::Status { code: 404, body: None };
        partner
            .handle
            .set_faults(vec![Fault::new(details, missing()), Fault::new(changes, missing())]);
        let failed_twice = |text: &str| {
            let failed = |endpoint| value(text, &errors(endpoint, "unreadable_rows")) >= Some(2.0);
            failed("scan_profiles") && failed("scan_changes")
        };
        let after_failures = exporter.wait_until("the details are missing", failed_twice).await;
        assert_eq!(lines_of(&after_failures, 0), lines_of(&before, 0), "{generation}");
        assert_eq!(
            number(&after_failures, &success("scan_changes", &id)),
            0.0,
            "{generation}"
        );
        // A profile that is missing from the list is removed immediately.
        set_profiles(&[0, 1]);
        let without = exporter
            .wait_until("the last profile is removed", |text| lines_of(text, 2).is_empty())
            .await;
        assert_eq!(lines_of(&without, 0), lines_of(&before, 0), "{generation}");
        set_profiles(&[1]);
        let after = exporter
            .wait_until("the first profile is removed", |text| {
                lines_of(text, 0).is_empty() && super::is_settled(text)
            })
            .await;
        assert_eq!(lines_of(&after, 1), lines_of(&before, 1), "{generation}");
    }
}

#[tokio::test]
async fn module_missing_from_a_complete_response_is_removed() {
    let other = job("B", json!({"jobModule": "SharePoint Online"}));
    let (canned, exporter) = start_exporter(&[job("A", json!({})), other.clone()]).await;
    set_jobs(&canned, &[other]);
    let text = exporter
        .wait_until("the module is removed", |text| !text.contains("Exchange Online"))
        .await;
    assert!(
        text.contains(
            "elements_job_status{customer_id=\"c-1\",service=\"Microsoft 365\",module=\"SharePoint Online\"} 2"
        )
    );
}

#[tokio::test]
async fn renamed_customer_keeps_its_data() {
    let (canned, exporter) = start_exporter(&[job("A", json!({}))]).await;
    let renamed = r#"{"value":[{"id":"c-1","organization":"Fabrikam","jobStatus":"Working"}]}"#;
    canned.set("GET /partner/customers", 200, renamed);
    let text = exporter
        .wait_until("the new name", |text| text.contains("organization=\"Fabrikam\""))
        .await;
    assert_eq!(text.matches("elements_customer_info{").count(), 1);
    assert!(text.contains(&format!("elements_customer_info{{customer_id=\"{ID}\"")));
    assert_eq!(
        number(&text, &exchange("status")),
        2.0,
        "the customer's data must not change"
    );
}

#[tokio::test]
async fn number_is_exact_or_absent_and_counted() {
    let raw = |field: &str, literal: &str| {
        // The number is inserted as text, because serde_json would format it differently.
        let row = job("A", json!({ field: "@@" })).to_string();
        format!(r#"{{"value":[{}]}}"#, row.replace("\"@@\"", literal))
    };
    let cases = [
        (
            "totalCount",
            "9007199254740992",
            "processed_objects",
            Some(9_007_199_254_740_992.0),
        ),
        ("totalCount", "9007199254740993", "processed_objects", None),
        ("totalCount", "-5", "processed_objects", None),
        ("totalCount", "1e400", "processed_objects", None),
        ("totalCount", "1.5", "processed_objects", None),
        ("backupSize", "\"1,5 TB\"", "backup_size_bytes", None),
        ("backupSize", "\"-1 GB\"", "backup_size_bytes", None),
        ("backupSize", "\"1e400 GB\"", "backup_size_bytes", None),
        (
            "backupSize",
            "\"1.5 TB\"",
            "backup_size_bytes",
            Some(1.5 * 1024.0_f64.powi(4)),
        ),
    ];
    let canned = start_api(&[]).await;
    for (field, literal, name, expected) in cases {
        canned.set("GET /partner/customers/c-1/jobs", 200, &raw(field, literal));
        let extra_env = [("ELEMENTS_API__VERSION", "v1")];
        let (text, _) = crate::harness::poll_once(&config(&canned.base, &extra_env)).await;
        assert_eq!(value(&text, &exchange(name)), expected, "{literal}");
        let failed = sum(
            &text,
            &format!("elements_exporter_decode_errors_total{{endpoint=\"jobs\",field=\"{field}\"}}"),
        );
        assert_eq!(failed, if expected.is_none() { 1.0 } else { 0.0 }, "{literal}");
        assert_eq!(
            number(&text, &exchange("status")),
            2.0,
            "{literal}: other fields must be parsed"
        );
    }
}

#[tokio::test]
async fn subscription_keeps_its_label_when_others_change() {
    let services = |seats: [u32; 2], ends: [&str; 2]| {
        let product = |at: usize| {
            format!(
                r#"{{"service":"S","package":"P","purchasedUserSeats":{},"expirationDate":"{}"}}"#,
                seats[at], ends[at]
            )
        };
        format!(
            r#"{{"value":[{{"customerId":"one","products":[{},{}]}}]}}"#,
            product(0),
            product(1)
        )
    };
    let api = CannedServer::start(&[
        (
            "GET /partner/customers",
            r#"{"value":[{"id":"one","organization":"One"}]}"#,
        ),
        (
            "GET /partner/services",
            &services([100, 50], ["2027-01-01", "2028-01-01"]),
        ),
    ])
    .await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state");
    let extra_env = [
        ("ELEMENTS_API__VERSION", "v1"),
        ("ELEMENTS_STATE__FILE", file.to_str().unwrap()),
    ];
    let license_of = |text: &str, seats: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with("elements_license_purchased_seats{") && line.ends_with(seats));
        let (_, rest) = line?.split_once("license=\"")?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    let mut exporter = Exporter::start(&api.base, &["licenses"], &extra_env).await;
    let text = exporter.wait_until_settled().await;
    let (one, other) = (license_of(&text, " 100"), license_of(&text, " 50"));
    assert!(one.is_some() && other.is_some() && one != other, "{text}");
    for (seats, ends) in [
        ([100, 50], ["2029-01-01", "2028-01-01"]),
        ([40, 50], ["2029-01-01", "2028-01-01"]),
        ([40, 60], ["2029-01-01", "2028-01-01"]),
    ] {
        api.set("GET /partner/services", 200, &services(seats, ends));
        let (first, second) = (format!(" {}", seats[0]), format!(" {}", seats[1]));
        let end = if ends[0] == "2029-01-01" {
            " 1861920000"
        } else {
            " 1798761600"
        };
        let text = exporter
            .wait_until("the change is exported", |text| {
                let ends = |line: &str| line.starts_with("elements_license_expiration") && line.ends_with(end);
                text.lines().any(ends) && license_of(text, &first).is_some() && license_of(text, &second).is_some()
            })
            .await;
        assert_eq!(license_of(&text, &first), one, "{seats:?} {ends:?}");
        assert_eq!(license_of(&text, &second), other, "{seats:?} {ends:?}");
        exporter.stop().await;
        exporter = Exporter::start(&api.base, &["licenses"], &extra_env).await;
    }
}
