//! Invalid times, expiry of stale values, and a suspended process.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use elements_exporter::simulator::{Fault, FaultKind};
use futures_util::future::join_all;
use serde_json::json;

use super::meaning::{exposition_of, job, seconds};
use super::{Exporter, errors, ids, is_settled, last_success, number, state, sum};
use crate::harness::canned::CannedServer;
use crate::harness::partner::{frozen_partner, start};
use crate::harness::program::Program;
use crate::harness::{eventually, value};

fn exchange(name: &str) -> String {
    format!(r#"elements_job_{name}{{customer_id="c-1",service="Microsoft 365",module="Exchange Online"}}"#)
}

fn decode_errors(field: &str) -> String {
    format!("elements_exporter_decode_errors_total{{endpoint=\"jobs\",field=\"{field}\"}}")
}

#[tokio::test]
async fn placeholder_dates_are_absent() {
    for never in [
        "N/A",
        "",
        "0001-01-01T00:00:00Z",
        "1900-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "01/01/0001 00:00:00",
    ] {
        let fields = json!({"status": "Failed", "startTime": never, "endTime": never, "lastModifyTime": never});
        let text = exposition_of(&[job("A", fields)]).await;
        for name in ["start", "end", "last_modified"] {
            assert_eq!(
                value(&text, &exchange(&format!("{name}_timestamp_seconds"))),
                None,
                "{name} {never}"
            );
        }
        assert_eq!(sum(&text, "elements_exporter_decode_errors_total"), 0.0, "{never}");
        assert_eq!(number(&text, &exchange("status")), 3.0, "{never}");
    }
}

#[tokio::test]
async fn time_without_a_zone_is_utc() {
    for end in [
        "2026-03-01T02:00:00",
        "2026-03-01 02:00:00",
        "03/01/2026 02:00:00",
        "2026-03-01T04:00:00+02:00",
    ] {
        let text = exposition_of(&[job("A", json!({ "endTime": end }))]).await;
        let expected = seconds("2026-03-01T02:00:00Z");
        assert_eq!(
            value(&text, &exchange("end_timestamp_seconds")),
            Some(expected),
            "{end}"
        );
    }
}

#[tokio::test]
async fn end_before_the_start_is_counted() {
    let text = exposition_of(&[job("A", json!({"endTime": "2026-02-28T02:00:00Z"}))]).await;
    assert_eq!(number(&text, &decode_errors("endTime")), 1.0);
}

#[tokio::test]
async fn end_in_the_future_is_counted_and_not_a_success() {
    let text = exposition_of(&[job("A", json!({"endTime": "2150-01-01T00:00:00Z"}))]).await;
    assert_eq!(number(&text, &decode_errors("endTime")), 1.0);
    for name in ["last_success", "last_backup"] {
        let time = value(&text, &exchange(&format!("{name}_timestamp_seconds")));
        assert!(time.is_none_or(|time| time == 0.0), "{name} {time:?}");
    }
    assert_eq!(value(&text, &exchange("end_timestamp_seconds")), None);
}

#[tokio::test]
async fn time_in_the_future_does_not_hide_earlier_runs() {
    let run = |id: &str, status: &str, start: &str, end: &str, modified: &str| {
        format!(
            r#"{{"value":[{{"jobType":"Microsoft 365","jobModule":"Exchange Online","jobId":"{id}","status":"{status}",
            "startTime":"{start}","endTime":"{end}","lastModifyTime":"{modified}"}}]}}"#
        )
    };
    let cases = [
        ("Finished", "2150-01-01T00:00:00Z", "N/A", "N/A"),
        ("Finished", "N/A", "N/A", "2150-01-01T00:00:00Z"),
        ("Finished with exception", "2150-01-01T00:00:00Z", "N/A", "N/A"),
        ("Running", "2150-01-01T00:00:00Z", "N/A", "N/A"),
    ];
    join_all(cases.map(|(status, start, end, modified)| async move {
        let jobs = "GET /partner/customers/one/jobs";
        let api = CannedServer::start(&[
            (
                "GET /partner/customers",
                r#"{"value":[{"id":"one","organization":"One"}]}"#,
            ),
            (jobs, &run("odd", status, start, end, modified)),
        ])
        .await;
        let exporter = Exporter::start(&api.base, &["jobs"], &[("ELEMENTS_API__VERSION", "v1")]).await;
        let field = if modified == "N/A" { "startTime" } else { "lastModifyTime" };
        let first = exporter.wait_until_settled().await;
        let counted = value(&first, &decode_errors(field));
        assert!(counted >= Some(1.0), "{status} {field}: {counted:?}");
        let last_backup =
            r#"elements_job_last_backup_timestamp_seconds{customer_id="one",service="Microsoft 365",module="Exchange Online"}"#;
        assert!(value(&first, last_backup).is_none_or(|time| time == 0.0), "{status}");
        let failed_run = run("real", "Failed", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z", "N/A");
        api.set(jobs, 200, &failed_run);
        let status_series =
            r#"elements_job_status{customer_id="one",service="Microsoft 365",module="Exchange Online"}"#;
        exporter
            .wait_until("the failure is exposed", |text| value(text, status_series) == Some(3.0))
            .await;
    }))
    .await;
}

#[tokio::test]
async fn end_slightly_ahead_is_not_in_the_future() {
    let ahead = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(240);
    let text = exposition_of(&[job("A", json!({"endTime": ahead.to_string()}))]).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    for name in ["last_success", "last_backup", "end"] {
        let time = number(&text, &exchange(&format!("{name}_timestamp_seconds")));
        assert!(time > 0.0 && time <= now, "{name} {time}");
    }
}

#[tokio::test]
async fn only_dated_facts_remain_after_stale_after() {
    let partner = start(frozen_partner(2)).await;
    let collectors = ["jobs", "protected", "scan_profiles"];
    let stale_after: Vec<String> = collectors
        .iter()
        .chain(["customers"].iter())
        .map(|name| format!("ELEMENTS_COLLECTORS__{}__STALE_AFTER", name.to_uppercase()))
        .collect();
    let extra_env: Vec<(&str, &str)> = stale_after.iter().map(|name| (name.as_str(), "2s")).collect();
    let exporter = Exporter::start(&partner.base, &collectors, &extra_env).await;
    let before = exporter
        .wait_until("all collectors are fresh", |text| {
            is_settled(text) && text.contains("elements_scan_profile_info{")
        })
        .await;
    let lines = |text: &str, prefix: &str| -> Vec<String> {
        text.lines()
            .filter(|line| line.starts_with(prefix))
            .map(ToOwned::to_owned)
            .collect()
    };
    partner.handle.set_faults(vec![Fault::new(
        "/partner/*",
        FaultKind::Status { code: 404, body: None },
    )]);
    let after = exporter
        .wait_until("all collectors are stale", |text| {
            collectors
                .iter()
                .all(|collector| number(text, &state(collector, "stale")) == 2.0)
                && number(text, &state("customers", "stale")) == 2.0
        })
        .await;
    for now in [
        "elements_customer_status{",
        "elements_job_status{",
        "elements_jobs{",
        "elements_job_backup_size_bytes{",
        "elements_job_objects{",
        "elements_protected_objects{",
        "elements_protected_size_bytes{",
        "elements_scan_profile_containers{",
    ] {
        assert!(!lines(&before, now).is_empty(), "{now}");
        assert!(lines(&after, now).is_empty(), "{now}");
    }
    for dated in [
        "elements_customer_info{",
        "elements_job_last_backup_timestamp_seconds{",
        "elements_job_last_success_timestamp_seconds{",
        "elements_job_end_timestamp_seconds{",
        "elements_job_rpo_seconds{",
        "elements_scan_profile_info{",
        "elements_scan_profile_modified_timestamp_seconds{",
    ] {
        assert!(!lines(&before, dated).is_empty(), "{dated}");
        assert_eq!(lines(&after, dated), lines(&before, dated), "{dated}");
    }
    let id = &ids(&partner)[0];
    assert!(number(&after, &last_success("jobs", id)) > 0.0);
    assert!(number(&after, &errors("jobs", "not_found")) >= 1.0);
    partner.handle.clear_faults();
    let recovered = exporter.wait_until_settled().await;
    assert_eq!(
        lines(&recovered, "elements_job_status{"),
        lines(&before, "elements_job_status{")
    );
}

#[tokio::test]
async fn suspended_process_resumes_without_a_burst() {
    const SUSPENDED: Duration = Duration::from_secs(4);
    const CUSTOMERS: usize = 5;
    let partner = start(frozen_partner(CUSTOMERS)).await;
    let program = Program::start_collectors(&partner.base, &["jobs"], &[]).await;
    program.wait_until("every poll succeeded", is_settled).await;
    program.signal("STOP");
    let start_time = Instant::now();
    eventually("four intervals have passed", || async {
        (start_time.elapsed() > SUSPENDED).then_some(())
    })
    .await;
    partner.handle.clear_requests();
    program.signal("CONT");
    let resumed = Instant::now();
    let text = program
        .wait_until("the exporter polls again", |_| {
            partner.handle.requests().len() >= CUSTOMERS
        })
        .await;
    let requested = partner.handle.requests().len() as f64;
    // On a slow machine, the exporter may poll less often, but not more often.
    let cycles = 1.0 + resumed.elapsed().as_secs_f64() / 0.9;
    assert!(
        requested <= (cycles + 1.0) * (CUSTOMERS + 1) as f64,
        "{requested} requests in {:?}",
        resumed.elapsed()
    );
    assert_eq!(sum(&text, "elements_exporter_api_errors_total"), 0.0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let future = text
        .lines()
        .filter(|line| line.starts_with("elements_exporter_collector_last_success_timestamp_seconds{"))
        .filter(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap() > now);
    assert_eq!(future.count(), 0);
}
