//! Reloads, including those during polls. Results are rendered with the new configuration, polls whose requests change
//! are repeated, and tokens and missing permissions are kept.

use elements_exporter::simulator::{Fault, FaultKind, Handle};

use super::{CUSTOMERS_V3, Exporter, JOBS_V3, TOKEN, ids, set};
use crate::harness::partner::{frozen_partner, start};
use crate::harness::{eventually, samples, value};

const LICENSES_V3: &str = "/partner/external/v3/general/customers/services/batch";
const HOURLY: [(&str, &str); 3] = [
    ("ELEMENTS_COLLECTORS__CUSTOMERS__INTERVAL", "1h"),
    ("ELEMENTS_COLLECTORS__JOBS__INTERVAL", "1h"),
    ("ELEMENTS_COLLECTORS__LICENSES__INTERVAL", "1h"),
];

/// Delay of a response. It is long enough for the other steps of a test, even on a busy machine. If it were too short,
/// a test would fail immediately.
const DELAY: FaultKind = FaultKind::Delay { ms: 4_000 };

fn request_count(handle: &Handle, path: &str) -> usize {
    let requests = handle.requests();
    requests.iter().filter(|request| request.path.contains(path)).count()
}

async fn wait_until_requested(handle: &Handle, path: &str) {
    eventually("the path is requested", || async {
        (request_count(handle, path) > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn running_poll_is_rendered_with_new_objectives() {
    let partner = start(frozen_partner(3)).await;
    partner.handle.set_faults(vec![Fault::new(JOBS_V3, DELAY)]);
    let exporter = Exporter::start(&partner.base, &["jobs"], &HOURLY).await;
    wait_until_requested(&partner.handle, "/jobs/batch").await;
    let (status, printed) = exporter
        .reload(|variables| set(variables, "ELEMENTS_RPO__DEFAULT", "30h"))
        .await;
    assert_eq!(status, 200, "{printed}");
    assert!(
        !exporter.metrics().await.contains("elements_job_status{"),
        "the poll was committed before the reload"
    );
    let text = exporter.wait_until_settled().await;
    let objectives = samples(&text, "elements_job_rpo_seconds{");
    assert!(!objectives.is_empty(), "{text}");
    assert!(objectives.lines().all(|line| line.ends_with(" 108000")), "{objectives}");
}

#[tokio::test]
async fn wider_filter_applies_to_a_running_list_poll() {
    let partner = start(frozen_partner(5)).await;
    let ids = ids(&partner);
    let exporter = Exporter::start(
        &partner.base,
        &[],
        &[HOURLY[0], ("ELEMENTS_CUSTOMERS__INCLUDE", &ids[..3].join(","))],
    )
    .await;
    exporter.wait_until_settled().await;
    partner.handle.set_faults(vec![Fault::new(CUSTOMERS_V3, DELAY)]);
    partner.handle.clear_requests();
    let (status, _) = exporter
        .reload(|variables| set(variables, "ELEMENTS_CUSTOMERS__INCLUDE", &ids[..2].join(",")))
        .await;
    assert_eq!(status, 200);
    wait_until_requested(&partner.handle, "/customers/batch").await;
    partner.handle.set_faults(Vec::new());
    let (status, _) = exporter
        .reload(|variables| variables.retain(|(name, _)| name != "ELEMENTS_CUSTOMERS__INCLUDE"))
        .await;
    assert_eq!(status, 200);
    exporter
        .wait_until("all five customers are exported", |text| {
            samples(text, "elements_customer_info{").lines().count() == 5
        })
        .await;
}

#[tokio::test]
async fn customer_added_during_a_poll_gets_its_licences() {
    let partner = start(frozen_partner(4)).await;
    let added = partner.handle.with_world(|world| world.customers.pop()).unwrap();
    partner.handle.set_faults(vec![Fault {
        times: Some(1),
        ..Fault::new(LICENSES_V3, DELAY)
    }]);
    let every_second = ("ELEMENTS_COLLECTORS__CUSTOMERS__INTERVAL", "1s");
    let exporter = Exporter::start(&partner.base, &["licenses"], &[every_second, HOURLY[2]]).await;
    wait_until_requested(&partner.handle, "/customers/services/batch").await;
    let id = added.id.clone();
    partner.handle.with_world(|world| world.customers.push(added));
    exporter
        .wait_until("the new customer has a licence", |text| {
            samples(text, "elements_license_info{").contains(&id)
        })
        .await;
    assert_eq!(request_count(&partner.handle, "/customers/services/batch"), 2);
}

#[tokio::test]
async fn reloads_without_changes_send_no_requests() {
    let partner = start(frozen_partner(3)).await;
    let exporter = Exporter::start(&partner.base, &["jobs", "licenses"], &HOURLY).await;
    exporter.wait_until_settled().await;
    partner.handle.clear_requests();
    for _ in 0..20 {
        assert_eq!(exporter.reload(|_| {}).await.0, 200);
    }
    // This reload changes the requests of `jobs`. Requests caused by an earlier reload would have been sent first.
    let (status, _) = exporter
        .reload(|variables| set(variables, "ELEMENTS_COLLECTORS__JOBS__JOB_TYPES", "7"))
        .await;
    assert_eq!(status, 200);
    wait_until_requested(&partner.handle, "/jobs/batch").await;
    assert_eq!(request_count(&partner.handle, TOKEN), 0);
    assert_eq!(request_count(&partner.handle, "/customers/batch"), 0);
}

#[tokio::test]
async fn valid_token_is_kept_across_reloads() {
    let partner = start(frozen_partner(3)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[HOURLY[0]]).await;
    exporter.wait_until_settled().await;
    partner
        .handle
        .set_faults(vec![Fault::new(TOKEN, FaultKind::Status { code: 503, body: None })]);
    for (key, changed) in [("ELEMENTS_RPO__DEFAULT", "30h"), ("ELEMENTS_API__MAX_CONCURRENCY", "3")] {
        assert_eq!(exporter.reload(|variables| set(variables, key, changed)).await.0, 200);
        partner.handle.clear_requests();
        eventually("polls continue", || async {
            let requests = partner.handle.requests();
            let successful = requests
                .iter()
                .filter(|request| request.path.contains("/jobs/batch") && request.status == 200);
            (successful.count() >= 6).then_some(())
        })
        .await;
    }
    let text = exporter.metrics().await;
    assert_eq!(value(&text, "elements_up"), Some(1.0));
}

#[tokio::test]
async fn missing_permission_is_kept_across_reloads() {
    let partner = start(frozen_partner(3)).await;
    let granted = ["customers", "jobs"].map(|name| format!("elements.{name}.read.all"));
    partner.handle.set_scopes(granted.into());
    let exporter = Exporter::start(&partner.base, &["jobs", "protected"], &[HOURLY[0]]).await;
    let permitted = "elements_exporter_collector_permitted{collector=\"protected\"}";
    exporter
        .wait_until("the permission is missing", |text| value(text, permitted) == Some(0.0))
        .await;
    partner.handle.clear_requests();
    for _ in 0..5 {
        assert_eq!(
            exporter
                .reload(|variables| set(variables, "ELEMENTS_RPO__DEFAULT", "30h"))
                .await
                .0,
            200
        );
    }
    eventually("polls continue", || async {
        (request_count(&partner.handle, "/jobs/batch") > 6).then_some(())
    })
    .await;
    assert_eq!(request_count(&partner.handle, TOKEN), 0);
    assert_eq!(value(&exporter.metrics().await, permitted), Some(0.0));
}

/// Settings with long intervals for all collectors that expose sizes.
const SIZED: [(&str, &str); 4] = [
    HOURLY[0],
    HOURLY[1],
    HOURLY[2],
    ("ELEMENTS_COLLECTORS__PROTECTED__INTERVAL", "1h"),
];
const SIZED_COLLECTORS: [&str; 3] = ["jobs", "licenses", "protected"];
const DECIMAL: (&str, &str) = ("ELEMENTS_API__GIGABYTE", "decimal");

/// Returns the samples of all metrics about sizes.
fn sizes(text: &str) -> String {
    let is_size = |line: &&str| line.starts_with("elements_") && line.contains("_bytes{");
    text.lines().filter(is_size).map(|line| format!("{line}\n")).collect()
}

#[tokio::test]
async fn sizes_follow_the_configured_unit_without_a_poll() {
    let partner = start(frozen_partner(3)).await;
    let decimal = Exporter::start(&partner.base, &SIZED_COLLECTORS, &[&SIZED[..], &[DECIMAL]].concat()).await;
    let decimal = sizes(&decimal.wait_until_settled().await);
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let state_file = ("ELEMENTS_STATE__FILE", state.to_str().unwrap());
    let exporter = Exporter::start(&partner.base, &SIZED_COLLECTORS, &[&SIZED[..], &[state_file]].concat()).await;
    let binary = sizes(&exporter.wait_until_settled().await);
    for metric in ["elements_job_backup", "elements_protected", "elements_license_consumed"] {
        assert_ne!(samples(&binary, metric), samples(&decimal, metric), "{metric}");
    }
    partner.handle.clear_requests();
    let (status, printed) = exporter.reload(|variables| set(variables, DECIMAL.0, DECIMAL.1)).await;
    assert_eq!(status, 200, "{printed}");
    exporter
        .wait_until("sizes are decimal", |text| sizes(text) == decimal)
        .await;
    for path in ["/overview", "/jobs/"] {
        assert_eq!(request_count(&partner.handle, path), 0, "{path}");
    }
    exporter.stop().await;
    for (unit, expected) in [("binary", &binary), (DECIMAL.1, &decimal)] {
        let extra_env = [&SIZED[..], &[state_file, (DECIMAL.0, unit)]].concat();
        let restored = Exporter::start(&super::unreachable_api(), &SIZED_COLLECTORS, &extra_env).await;
        assert_eq!(&sizes(&restored.metrics().await), expected, "{unit}");
        restored.stop().await;
    }
}

#[tokio::test]
async fn scan_profile_added_during_a_poll_gets_its_report() {
    for late in [false, true] {
        let partner = start(frozen_partner(1)).await;
        let added = partner.handle.with_world(|world| {
            let profiles = &mut world.customers[0].scan_profiles;
            let mut added = profiles[0].clone();
            added.id = "p-new".to_owned();
            profiles.truncate(1);
            added
        });
        let reports = "/scan-profiles/*/changes";
        if late {
            partner
                .handle
                .set_faults(vec![Fault::new(&format!("*{reports}"), DELAY).times(1)]);
        }
        let hourly = ("ELEMENTS_COLLECTORS__SCAN_CHANGES__INTERVAL", "1h");
        let exporter = Exporter::start(&partner.base, &["scan_profiles", "scan_changes"], &[HOURLY[0], hourly]).await;
        if late {
            wait_until_requested(&partner.handle, "/changes").await;
            exporter
                .wait_until("the profiles are exported", |text| {
                    text.contains("elements_scan_profile_info{")
                })
                .await;
        } else {
            exporter.wait_until_settled().await;
        }
        partner
            .handle
            .with_world(|world| world.customers[0].scan_profiles.push(added));
        exporter
            .wait_until("the new profile has a report", |text| {
                samples(text, "elements_scan_status{").contains("p-new")
            })
            .await;
    }
}

#[tokio::test]
async fn disabled_objects_are_removed_immediately() {
    let partner = start(frozen_partner(3)).await;
    let objects_enabled = ("ELEMENTS_COLLECTORS__SCAN_CHANGES__OBJECTS", "true");
    let exporter = Exporter::start(&partner.base, &["scan_changes"], &[HOURLY[0], objects_enabled]).await;
    let objects = |text: &str| samples(text, "elements_scan_changed_objects{").lines().count();
    assert!(objects(&exporter.wait_until_settled().await) > 0);
    partner.handle.set_faults(vec![Fault::new("/partner/*", DELAY)]);
    let (status, printed) = exporter
        .reload(|variables| set(variables, objects_enabled.0, "false"))
        .await;
    assert_eq!(status, 200, "{printed}");
    exporter
        .wait_until("objects are removed", |text| objects(text) == 0)
        .await;
}

#[tokio::test]
async fn unmatched_product_pattern_is_counted_until_corrected() {
    let partner = start(frozen_partner(3)).await;
    let key = "ELEMENTS_COLLECTORS__LICENSES__SERVICES";
    let exporter = Exporter::start(&partner.base, &["licenses"], &[(key, "Cloud*,Salesforc")]).await;
    let unmatched = |count| move |text: &str| value(text, "elements_exporter_config_unmatched_patterns") == Some(count);
    exporter.wait_until("the pattern is counted", unmatched(1.0)).await;
    assert_eq!(exporter.reload(|variables| set(variables, key, "Cloud*")).await.0, 200);
    exporter.wait_until("no pattern is counted", unmatched(0.0)).await;
}
