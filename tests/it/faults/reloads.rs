//! Polls during a change of the configuration: their results are rendered with the new configuration, repeated if their
//! request changed, and otherwise used.

use elements_exporter::simulator::{Fault, FaultKind, Handle};

use super::{CUSTOMERS_V3, Exporter, JOBS_V3, TOKEN, ids, set};
use crate::harness::partner::{start, still};
use crate::harness::{eventually, samples, value};

const LICENSES_V3: &str = "/partner/external/v3/general/customers/services/batch";
const HOURLY: [(&str, &str); 3] = [
    ("ELEMENTS_COLLECTORS__CUSTOMERS__INTERVAL", "1h"),
    ("ELEMENTS_COLLECTORS__JOBS__INTERVAL", "1h"),
    ("ELEMENTS_COLLECTORS__LICENSES__INTERVAL", "1h"),
];

/// Long enough for the other steps on a busy machine. If they come too late, the test fails immediately.
const LATE: FaultKind = FaultKind::Delay { ms: 4_000 };

fn request_count(handle: &Handle, path: &str) -> usize {
    let requests = handle.requests();
    requests.iter().filter(|request| request.path.contains(path)).count()
}

async fn until_requested(handle: &Handle, path: &str) {
    eventually("it is requested", || async {
        (request_count(handle, path) > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn running_poll_is_committed_with_the_new_objectives() {
    let partner = start(still(3)).await;
    partner.handle.set_faults(vec![Fault::new(JOBS_V3, LATE)]);
    let exporter = Exporter::start(&partner.base, &["jobs"], &HOURLY).await;
    until_requested(&partner.handle, "/jobs/batch").await;
    let (status, printed) = exporter
        .reload(|variables| set(variables, "ELEMENTS_RPO__DEFAULT", "30h"))
        .await;
    assert_eq!(status, 200, "{printed}");
    assert!(
        !exporter.metrics().await.contains("elements_job_status{"),
        "the poll was committed before"
    );
    let text = exporter.settled().await;
    let objectives = samples(&text, "elements_job_rpo_seconds{");
    assert!(!objectives.is_empty(), "{text}");
    assert!(objectives.lines().all(|line| line.ends_with(" 108000")), "{objectives}");
}

#[tokio::test]
async fn filters_that_widen_during_the_list_apply_immediately() {
    let partner = start(still(5)).await;
    let ids = ids(&partner);
    let exporter = Exporter::start(
        &partner.base,
        &[],
        &[HOURLY[0], ("ELEMENTS_CUSTOMERS__INCLUDE", &ids[..3].join(","))],
    )
    .await;
    exporter.settled().await;
    partner.handle.set_faults(vec![Fault::new(CUSTOMERS_V3, LATE)]);
    partner.handle.clear_requests();
    let (status, _) = exporter
        .reload(|variables| set(variables, "ELEMENTS_CUSTOMERS__INCLUDE", &ids[..2].join(",")))
        .await;
    assert_eq!(status, 200);
    until_requested(&partner.handle, "/customers/batch").await;
    partner.handle.set_faults(Vec::new());
    let (status, _) = exporter
        .reload(|variables| variables.retain(|(name, _)| name != "ELEMENTS_CUSTOMERS__INCLUDE"))
        .await;
    assert_eq!(status, 200);
    exporter
        .until("all five are known", |text| {
            samples(text, "elements_customer_info{").lines().count() == 5
        })
        .await;
}

#[tokio::test]
async fn customer_that_joins_during_a_poll_gets_its_licences() {
    let partner = start(still(4)).await;
    let newcomer = partner.handle.with_world(|world| world.customers.pop()).unwrap();
    partner.handle.set_faults(vec![Fault {
        times: Some(1),
        ..Fault::new(LICENSES_V3, LATE)
    }]);
    let quick = ("ELEMENTS_COLLECTORS__CUSTOMERS__INTERVAL", "1s");
    let exporter = Exporter::start(&partner.base, &["licenses"], &[quick, HOURLY[2]]).await;
    until_requested(&partner.handle, "/customers/services/batch").await;
    let id = newcomer.id.clone();
    partner.handle.with_world(|world| world.customers.push(newcomer));
    exporter
        .until("it has a licence", |text| {
            samples(text, "elements_license_info{").contains(&id)
        })
        .await;
    assert_eq!(request_count(&partner.handle, "/customers/services/batch"), 2);
}

#[tokio::test]
async fn reloads_without_changes_send_no_requests() {
    let partner = start(still(3)).await;
    let exporter = Exporter::start(&partner.base, &["jobs", "licenses"], &HOURLY).await;
    exporter.settled().await;
    partner.handle.clear_requests();
    for _ in 0..20 {
        assert_eq!(exporter.reload(|_| {}).await.0, 200);
    }
    // This reload changes the requests. Requests caused by the earlier ones would have been sent by then.
    let (status, _) = exporter
        .reload(|variables| set(variables, "ELEMENTS_COLLECTORS__JOBS__JOB_TYPES", "7"))
        .await;
    assert_eq!(status, 200);
    until_requested(&partner.handle, "/jobs/batch").await;
    assert_eq!(request_count(&partner.handle, TOKEN), 0);
    assert_eq!(request_count(&partner.handle, "/customers/batch"), 0);
}

#[tokio::test]
async fn valid_token_survives_reloads() {
    let partner = start(still(3)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[HOURLY[0]]).await;
    exporter.settled().await;
    partner
        .handle
        .set_faults(vec![Fault::new(TOKEN, FaultKind::Status { code: 503, body: None })]);
    for (key, changed) in [("ELEMENTS_RPO__DEFAULT", "30h"), ("ELEMENTS_API__MAX_CONCURRENCY", "3")] {
        assert_eq!(exporter.reload(|variables| set(variables, key, changed)).await.0, 200);
        partner.handle.clear_requests();
        eventually("polls continue", || async {
            let requests = partner.handle.requests();
            let answered = requests
                .iter()
                .filter(|request| request.path.contains("/jobs/batch") && request.status == 200);
            (answered.count() >= 6).then_some(())
        })
        .await;
    }
    let text = exporter.metrics().await;
    assert_eq!(value(&text, "elements_up"), Some(1.0));
}

#[tokio::test]
async fn missing_permission_stays_known_over_reloads() {
    let partner = start(still(3)).await;
    let kept = ["customers", "jobs"].map(|name| format!("elements.{name}.read.all"));
    partner.handle.set_scopes(kept.into());
    let exporter = Exporter::start(&partner.base, &["jobs", "protected"], &[HOURLY[0]]).await;
    let permitted = "elements_exporter_collector_permitted{collector=\"protected\"}";
    exporter
        .until("it is missing", |text| value(text, permitted) == Some(0.0))
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

/// Polls are hours apart, so that no new data arrives.
const SIZED: [(&str, &str); 4] = [
    HOURLY[0],
    HOURLY[1],
    HOURLY[2],
    ("ELEMENTS_COLLECTORS__PROTECTED__INTERVAL", "1h"),
];
const SIZED_COLLECTORS: [&str; 3] = ["jobs", "licenses", "protected"];
const DECIMAL: (&str, &str) = ("ELEMENTS_API__GIGABYTE", "decimal");

/// Returns the lines of all metrics about sizes.
fn sizes(text: &str) -> String {
    let is_size = |line: &&str| line.starts_with("elements_") && line.contains("_bytes{");
    text.lines().filter(is_size).map(|line| format!("{line}\n")).collect()
}

#[tokio::test]
async fn sizes_use_the_configured_unit_without_another_poll() {
    let partner = start(still(3)).await;
    let decimal = Exporter::start(&partner.base, &SIZED_COLLECTORS, &[&SIZED[..], &[DECIMAL]].concat()).await;
    let decimal = sizes(&decimal.settled().await);
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let kept = ("ELEMENTS_STATE__FILE", state.to_str().unwrap());
    let exporter = Exporter::start(&partner.base, &SIZED_COLLECTORS, &[&SIZED[..], &[kept]].concat()).await;
    let binary = sizes(&exporter.settled().await);
    for metric in ["elements_job_backup", "elements_protected", "elements_license_consumed"] {
        assert_ne!(samples(&binary, metric), samples(&decimal, metric), "{metric}");
    }
    partner.handle.clear_requests();
    let (status, printed) = exporter.reload(|variables| set(variables, DECIMAL.0, DECIMAL.1)).await;
    assert_eq!(status, 200, "{printed}");
    exporter.until("sizes are decimal", |text| sizes(text) == decimal).await;
    for path in ["/overview", "/jobs/"] {
        assert_eq!(request_count(&partner.handle, path), 0, "{path}");
    }
    exporter.stop().await;
    for (unit, expected) in [("binary", &binary), (DECIMAL.1, &decimal)] {
        let more = [&SIZED[..], &[kept, (DECIMAL.0, unit)]].concat();
        let restored = Exporter::start(&super::nowhere(), &SIZED_COLLECTORS, &more).await;
        assert_eq!(&sizes(&restored.metrics().await), expected, "{unit}");
        restored.stop().await;
    }
}

#[tokio::test]
async fn scan_profile_that_joins_during_a_poll_has_its_report() {
    for late in [false, true] {
        let partner = start(still(1)).await;
        let newcomer = partner.handle.with_world(|world| {
            let profiles = &mut world.customers[0].scan_profiles;
            let mut newcomer = profiles[0].clone();
            newcomer.id = "p-new".to_owned();
            profiles.truncate(1);
            newcomer
        });
        let reports = "/scan-profiles/*/changes";
        if late {
            partner
                .handle
                .set_faults(vec![Fault::new(&format!("*{reports}"), LATE).times(1)]);
        }
        let hourly = ("ELEMENTS_COLLECTORS__SCAN_CHANGES__INTERVAL", "1h");
        let exporter = Exporter::start(&partner.base, &["scan_profiles", "scan_changes"], &[HOURLY[0], hourly]).await;
        if late {
            until_requested(&partner.handle, "/changes").await;
            exporter
                .until("its profiles are known", |text| {
                    text.contains("elements_scan_profile_info{")
                })
                .await;
        } else {
            exporter.settled().await;
        }
        partner
            .handle
            .with_world(|world| world.customers[0].scan_profiles.push(newcomer));
        exporter
            .until("it has a report", |text| {
                samples(text, "elements_scan_status{").contains("p-new")
            })
            .await;
    }
}

#[tokio::test]
async fn disabled_objects_are_removed_immediately() {
    let partner = start(still(3)).await;
    let objects_enabled = ("ELEMENTS_COLLECTORS__SCAN_CHANGES__OBJECTS", "true");
    let exporter = Exporter::start(&partner.base, &["scan_changes"], &[HOURLY[0], objects_enabled]).await;
    let objects = |text: &str| samples(text, "elements_scan_changed_objects{").lines().count();
    assert!(objects(&exporter.settled().await) > 0);
    partner.handle.set_faults(vec![Fault::new("/partner/*", LATE)]);
    let (status, printed) = exporter
        .reload(|variables| set(variables, objects_enabled.0, "false"))
        .await;
    assert_eq!(status, 200, "{printed}");
    exporter.until("they are removed", |text| objects(text) == 0).await;
}

#[tokio::test]
async fn pattern_without_a_product_is_counted_until_corrected() {
    let partner = start(still(3)).await;
    let key = "ELEMENTS_COLLECTORS__LICENSES__SERVICES";
    let exporter = Exporter::start(&partner.base, &["licenses"], &[(key, "Cloud*,Salesforc")]).await;
    let counted = |count| move |text: &str| value(text, "elements_exporter_config_unmatched_patterns") == Some(count);
    exporter.until("it is counted", counted(1.0)).await;
    assert_eq!(exporter.reload(|variables| set(variables, key, "Cloud*")).await.0, 200);
    exporter.until("none is counted", counted(0.0)).await;
}
