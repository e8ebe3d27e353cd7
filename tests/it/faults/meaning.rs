//! Answers that are well formed and could be misunderstood.

use serde_json::{Value, json};

use super::{Exporter, number, sum};
use crate::canned::Canned;
use crate::support::{config, value};

const ID: &str = "c-1";
const DAY: &str = "2026-03-01";

/// The labels of the module that the tests are about.
const EXCHANGE: &str = r#"{customer_id="c-1",service="Microsoft 365",module="Exchange Online"}"#;

/// A job of Exchange Online that finished, with `fields` over its own.
pub(super) fn job(id: &str, fields: Value) -> Value {
    let mut job = json!({
        "jobType": "Microsoft 365", "jobModule": "Exchange Online", "status": "Finished", "jobId": id, "name": "daily",
        "totalCount": "10", "failedCount": "0", "successfulCount": "10", "skippedCount": "0", "warningCount": "0",
        "backupSize": "1 GB", "startTime": format!("{DAY}T01:00:00Z"), "endTime": format!("{DAY}T02:00:00Z"),
        "jobDuration": "1h", "lastModifyTime": format!("{DAY}T02:00:00Z"),
    });
    let Value::Object(fields) = fields else {
        panic!("no fields")
    };
    job.as_object_mut().unwrap().extend(fields);
    job
}

/// A run of a later hour of the day, so that it is the newer one.
fn at(hour: u32, mut fields: Value) -> Value {
    let end = format!("{DAY}T{:02}:30:00Z", hour);
    let times = json!({"startTime": format!("{DAY}T{hour:02}:00:00Z"), "endTime": end, "lastModifyTime": end});
    let Value::Object(times) = times else {
        panic!("no times")
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

pub(super) async fn telling(jobs: &[Value]) -> Canned {
    let canned = Canned::start(&[(
        "GET /partner/customers",
        r#"{"value":[{"id":"c-1","organization":"Contoso","jobStatus":"Working"}]}"#,
    )])
    .await;
    tell(&canned, jobs);
    canned
}

pub(super) fn tell(canned: &Canned, jobs: &[Value]) {
    canned.set("GET /partner/customers/c-1/jobs", 200, &list(jobs));
}

/// What one poll makes of a list of jobs.
pub(super) async fn told(jobs: &[Value]) -> String {
    let canned = telling(jobs).await;
    let more = [
        ("ELEMENTS_API__VERSION", "v1"),
        ("ELEMENTS_COLLECTORS__PROTECTED__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__LICENSES__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__SCAN_PROFILES__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__SCAN_CHANGES__ENABLED", "false"),
    ];
    let (text, good) = super::polled_once(&config(&canned.base, &more)).await;
    assert!(good, "{text}");
    text
}

/// An exporter and the API that tells it what the test says.
async fn following(jobs: &[Value]) -> (Canned, Exporter) {
    let canned = telling(jobs).await;
    let exporter = Exporter::start(&canned.base, &["jobs"], &[("ELEMENTS_API__VERSION", "v1")]).await;
    exporter.settled().await;
    (canned, exporter)
}

fn exchange(name: &str) -> String {
    format!("elements_job_{name}{EXCHANGE}")
}

#[tokio::test]
async fn a_status_that_is_not_on_the_list_is_unknown_and_never_a_success() {
    for status in [json!("Exploded"), json!("99"), json!(99), json!("Finished?")] {
        let text = told(&[job("A", json!({ "status": status }))]).await;
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
    let canned = Canned::start(&[("GET /partner/customers", customer)]).await;
    let (text, _) = super::polled_once(&config(&canned.base, &[("ELEMENTS_API__VERSION", "v1")])).await;
    assert_eq!(number(&text, "elements_customer_status{customer_id=\"c-1\"}"), -1.0);
}

#[tokio::test]
async fn failed_is_failed_however_many_objects_did() {
    let failed = json!({"status": "Failed", "failedCount": "0", "successfulCount": "10"});
    let text = told(&[job("A", failed)]).await;
    assert_eq!(number(&text, &exchange("status")), 3.0);
    assert_eq!(number(&text, &exchange("consecutive_failures")), 1.0);
    assert_eq!(number(&text, &exchange("last_backup_timestamp_seconds")), 0.0);
}

#[tokio::test]
async fn finished_with_exception_is_a_restore_point_and_no_success() {
    let text = told(&[job(
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
async fn a_run_in_progress_does_not_hide_the_failure_before_it() {
    let failed = job("A", at(3, json!({"status": "Failed", "failedCount": "7"})));
    let running = job(
        "B",
        at(
            5,
            json!({"status": "In Progress", "endTime": "N/A", "failedCount": "0"}),
        ),
    );
    let text = told(&[running.clone(), failed.clone()]).await;
    assert_eq!(number(&text, &exchange("status")), 1.0);
    assert_eq!(number(&text, &exchange("consecutive_failures")), 1.0);
    assert_eq!(number(&text, &exchange("last_backup_timestamp_seconds")), 0.0);
    let end = seconds(&format!("{DAY}T03:30:00Z"));
    assert_eq!(number(&text, &exchange("end_timestamp_seconds")), end);
    let failed_objects = EXCHANGE.replace('}', r#",result="failed"}"#);
    assert_eq!(number(&text, &format!("elements_job_objects{failed_objects}")), 7.0);
    // Where the newest run is all that is listed, what was seen before it stands.
    let (canned, exporter) = following(&[failed]).await;
    tell(&canned, &[running]);
    let text = exporter
        .until("it runs", |text| value(text, &exchange("status")) == Some(1.0))
        .await;
    assert_eq!(number(&text, &exchange("consecutive_failures")), 1.0);
    assert_eq!(number(&text, &exchange("end_timestamp_seconds")), end);
}

#[tokio::test]
async fn a_module_that_never_ran_says_so() {
    let none = json!({
        "status": "Not Finished", "jobId": "N/A", "totalCount": "0", "successfulCount": "0", "backupSize": "0 GB",
        "startTime": "N/A", "endTime": "N/A", "jobDuration": "N/A", "lastModifyTime": "N/A",
    });
    let text = told(&[job("N/A", none)]).await;
    assert_eq!(number(&text, &exchange("status")), 13.0, "not started");
    assert!(number(&text, &exchange("rpo_seconds")) > 0.0);
    for name in [
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
async fn two_rows_of_one_series_are_one_sample_with_the_worse_status() {
    let failed = job("A", json!({"status": "Failed"}));
    for rows in [
        [job("A", json!({})), failed.clone()],
        [failed.clone(), job("A", json!({}))],
    ] {
        let text = told(&rows).await;
        assert_eq!(number(&text, &exchange("status")), 3.0);
        assert_eq!(
            number(&text, "elements_exporter_duplicate_rows_total{endpoint=\"jobs\"}"),
            1.0
        );
        assert_eq!(text.matches("elements_job_status{").count(), 1);
    }
}

#[tokio::test]
async fn an_older_run_that_arrives_late_does_not_displace_a_newer() {
    let newer = job("B", at(9, json!({})));
    let older = job("A", at(3, json!({"status": "Failed", "totalCount": "1"})));
    let (canned, exporter) = following(&[newer]).await;
    tell(&canned, &[older]);
    let failed = EXCHANGE.replace('}', r#",status="failed"}"#);
    let text = exporter
        .until("the older was seen", |text| {
            value(text, &format!("elements_job_runs_total{failed}")) == Some(1.0)
        })
        .await;
    assert_eq!(number(&text, &exchange("status")), 2.0);
    assert_eq!(number(&text, &exchange("processed_objects")), 10.0);
    let end = seconds(&format!("{DAY}T09:30:00Z"));
    assert_eq!(number(&text, &exchange("last_backup_timestamp_seconds")), end);
    assert_eq!(number(&text, &exchange("consecutive_failures")), 0.0);
}

#[tokio::test]
async fn a_module_that_vanishes_from_a_complete_answer_goes() {
    let other = job("B", json!({"jobModule": "SharePoint Online"}));
    let (canned, exporter) = following(&[job("A", json!({})), other.clone()]).await;
    tell(&canned, &[other]);
    let text = exporter
        .until("it goes", |text| !text.contains("Exchange Online"))
        .await;
    assert!(
        text.contains(
            "elements_job_status{customer_id=\"c-1\",service=\"Microsoft 365\",module=\"SharePoint Online\"} 2"
        )
    );
}

#[tokio::test]
async fn a_customer_that_is_renamed_stays_one_customer() {
    let (canned, exporter) = following(&[job("A", json!({}))]).await;
    let renamed = r#"{"value":[{"id":"c-1","organization":"Fabrikam","jobStatus":"Working"}]}"#;
    canned.set("GET /partner/customers", 200, renamed);
    let text = exporter
        .until("the new name", |text| text.contains("organization=\"Fabrikam\""))
        .await;
    assert_eq!(text.matches("elements_customer_info{").count(), 1);
    assert!(text.contains(&format!("elements_customer_info{{customer_id=\"{ID}\"")));
    assert_eq!(
        number(&text, &exchange("status")),
        2.0,
        "what is known of it stays with it"
    );
}

#[tokio::test]
async fn a_number_is_exact_or_absent_and_counted() {
    let raw = |field: &str, literal: &str| {
        // serde_json would write the number in its own way.
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
    let canned = telling(&[]).await;
    for (field, literal, name, expected) in cases {
        canned.set("GET /partner/customers/c-1/jobs", 200, &raw(field, literal));
        let more = [("ELEMENTS_API__VERSION", "v1")];
        let (text, _) = super::polled_once(&config(&canned.base, &more)).await;
        assert_eq!(value(&text, &exchange(name)), expected, "{literal}");
        let counted = sum(
            &text,
            &format!("elements_exporter_decode_errors_total{{endpoint=\"jobs\",field=\"{field}\"}}"),
        );
        assert_eq!(counted, if expected.is_none() { 1.0 } else { 0.0 }, "{literal}");
        assert_eq!(
            number(&text, &exchange("status")),
            2.0,
            "{literal}: the rest of the row counts"
        );
    }
}

#[tokio::test]
async fn a_subscription_keeps_its_label_when_it_or_another_changes() {
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
    let api = Canned::start(&[
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
    let more = [
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
    let mut exporter = Exporter::start(&api.base, &["licenses"], &more).await;
    let text = exporter.settled().await;
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
            .until("the change is seen", |text| {
                let ends = |line: &str| line.starts_with("elements_license_expiration") && line.ends_with(end);
                text.lines().any(ends) && license_of(text, &first).is_some() && license_of(text, &second).is_some()
            })
            .await;
        assert_eq!(license_of(&text, &first), one, "{seats:?} {ends:?}");
        assert_eq!(license_of(&text, &second), other, "{seats:?} {ends:?}");
        exporter.stop().await;
        exporter = Exporter::start(&api.base, &["licenses"], &more).await;
    }
}
