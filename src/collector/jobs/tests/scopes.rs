//! Tests of backup scopes and tenant scans.

use super::*;

#[tokio::test]
async fn failed_scope_is_not_hidden_by_a_successful_one() {
    let mut customer = Customer::default();
    let rows = [
        scoped(Kind::Failed, NOW, "Scope A"),
        scoped(Kind::Finished, NOW, "Scope B"),
    ];
    customer.list(NOW, &rows).await;
    let series = customer.series();
    let labels = |scope: &str| format!(r#"service="IaaS + PaaS",module="Dev Ops",scope="{scope}""#);
    let failures = |scope: &str| {
        series
            .get(&format!("elements_job_consecutive_failures{{{}}}", labels(scope)))
            .copied()
    };
    assert_eq!((failures("Scope A"), failures("Scope B")), (Some(1.0), Some(0.0)));
    let objects = format!("elements_job_objects{{{},result=\"failed\"}}", labels("Scope A"));
    assert_eq!(series.get(&objects), Some(&3.0), "{series:?}");
    // Only scopes that are no longer listed are removed.
    customer.list(NOW + 300, &rows[1..]).await;
    assert!(customer.series().keys().all(|name| !name.contains("Scope A")));
    assert_eq!(customer.value("elements_job_status"), Some(2.0));
    // The scope returns with its history, and its run is not counted twice.
    customer.list(NOW + 600, &rows).await;
    let runs = format!("elements_job_runs_total{{{},status=\"failed\"}}", labels("Scope A"));
    assert_eq!(customer.series().get(&runs), Some(&1.0));
}

#[tokio::test]
async fn tenant_scan_is_not_exposed_as_a_job() {
    for (job_type, module, status) in [
        (json!(0), json!(0), json!(4)),
        (
            json!("Microsoft 365 Scan"),
            json!("None"),
            json!("Finished with exception"),
        ),
    ] {
        let scan = json!({"jobType": job_type, "jobModule": module, "status": status, "jobId": "N/A", "name": "N/A",
            "totalCount": "N/A", "startTime": "N/A", "endTime": "N/A", "lastModifyTime": "N/A"});
        let mut customer = Customer::default();
        customer.list(NOW, &[scan]).await;
        let series = customer.series();
        let expected = r#"elements_tenant_scan_status{service="Microsoft 365"}"#.to_owned();
        assert_eq!(series, BTreeMap::from([(expected, 4.0)]));
        customer.list(NOW + 300, &[]).await;
        assert!(
            customer.series().is_empty(),
            "a scan that is no longer listed must be removed"
        );
    }
    let google = json!({"jobType": 10, "jobModule": 0, "status": 2});
    let worse = json!({"jobType": 10, "jobModule": 0, "status": 3});
    let mut customer = Customer::default();
    customer.list(NOW, &[google, worse]).await;
    let expected = r#"elements_tenant_scan_status{service="Google Workspace"}"#.to_owned();
    assert_eq!(customer.series(), BTreeMap::from([(expected, 3.0)]));
    assert_eq!(customer.counts.duplicates.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn tenant_scan_needs_no_module() {
    for module in [json!(null), json!("N/A"), json!("")] {
        let mut customer = Customer::default();
        customer
            .list(NOW, &[json!({"jobType": 0, "jobModule": module, "status": 2})])
            .await;
        assert_eq!(customer.series().len(), 1);
    }
}

#[tokio::test]
async fn scopes_that_differ_in_digits_or_spaces_are_distinct() {
    let names = [json!(5), json!(6), json!("A"), json!("A "), json!(" A")];
    let rows: Vec<Value> = names
        .iter()
        .map(|name| {
            let mut row = scoped(Kind::Finished, NOW, "");
            row["name"] = name.clone();
            row
        })
        .collect();
    let mut customer = Customer::default();
    customer.list(NOW, &rows).await;
    let statuses = customer
        .series()
        .into_keys()
        .filter(|name| name.starts_with("elements_job_status{"));
    assert_eq!(statuses.count(), 5);
}
