//! Tests of rows with invalid values, and of lists with more modules or scopes than the limits allow.

use super::*;

#[tokio::test]
async fn excess_scopes_are_counted_and_failed_ones_kept() {
    let mut rows: Vec<Value> = (0..250)
        .map(|n| scoped(Kind::Finished, NOW, &format!("Scope {n:03}")))
        .collect();
    rows[249] = scoped(Kind::Failed, NOW, "Scope 249");
    let mut customer = Customer::default();
    customer.list(NOW, &rows).await;
    let series = customer.series();
    let statuses: Vec<_> = series
        .iter()
        .filter(|(name, _)| name.starts_with("elements_job_status{"))
        .collect();
    assert_eq!(statuses.len(), 200);
    assert!(
        statuses
            .iter()
            .any(|(name, status)| name.contains("Scope 249") && **status == 3.0)
    );
    assert_eq!(customer.counts.undecoded.lock().unwrap().len(), 50);
}

#[tokio::test]
async fn excess_modules_are_counted_and_failed_ones_kept() {
    let row = |n: usize| {
        let kind = if n == 1_199 { Kind::Failed } else { Kind::Finished };
        let mut row = scoped(kind, NOW, &format!("Scope {n}"));
        row["jobModule"] = json!(format!("Module {}", n / 100));
        row
    };
    let mut customer = Customer::default();
    customer.list(NOW, &(0..1_200).map(row).collect::<Vec<_>>()).await;
    let series = customer.series();
    let statuses = series.keys().filter(|name| name.starts_with("elements_job_status{"));
    assert_eq!(statuses.count(), 1_000);
    assert_eq!(customer.counts.undecoded.lock().unwrap().len(), 200);
    assert!(
        series
            .iter()
            .any(|(name, status)| name.contains("Scope 1199") && *status == 3.0)
    );
}

#[tokio::test]
async fn scope_that_is_not_text_does_not_hide_a_failure() {
    let mut failed = scoped(Kind::Failed, NOW, "Scope A");
    failed["name"] = json!({"id": 7});
    let mut customer = Customer::default();
    customer
        .list(NOW, &[failed, scoped(Kind::Finished, NOW, "Scope B")])
        .await;
    assert_eq!(customer.unreadable, 1);
    assert!(
        customer
            .series()
            .keys()
            .all(|name| !name.starts_with("elements_job_status{") || name.contains("Scope B"))
    );
}

#[tokio::test]
async fn status_that_is_not_text_is_unknown() {
    for status in [json!([]), json!({}), json!({"code": 2})] {
        let mut row = Kind::WithoutObjects.row(NOW, Generation::V3);
        row["status"] = status;
        let mut customer = Customer::default();
        customer.list(NOW, &[row]).await;
        assert_eq!(customer.value("elements_job_status"), Some(-1.0));
        assert_eq!(customer.counts.undecoded.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn placeholder_years_count_as_absent_times() {
    let mut row = Kind::WithoutObjects.row(NOW, Generation::V3);
    (row["startTime"], row["endTime"]) = (json!("0001-01-01T00:00:00Z"), json!("1900-01-01T00:00:00Z"));
    let mut customer = Customer::default();
    customer.list(NOW, &[row]).await;
    let end = (NOW - HOUR / 2) as f64;
    assert_eq!(customer.value("elements_job_last_backup_timestamp_seconds"), Some(end));
}

#[tokio::test]
async fn run_is_counted_once_if_the_clock_is_slow() {
    let mut row = Kind::WithoutObjects.row(NOW, Generation::V3);
    row["lastModifyTime"] = json!(time(NOW + 200));
    let mut customer = Customer::default();
    for poll in 0..3 {
        customer.list(NOW + 60 * poll, std::slice::from_ref(&row)).await;
    }
    assert_eq!(customer.value("elements_job_runs_total"), Some(1.0));
}

#[tokio::test]
async fn run_with_an_invalid_time_is_not_a_run_without_objects() {
    let mut row = Kind::WithoutObjects.row(NOW, Generation::V3);
    row["endTime"] = json!("soon, at 5");
    let mut customer = Customer::default();
    customer.list(NOW, &[row]).await;
    assert_eq!(customer.value("elements_job_last_backup_timestamp_seconds"), Some(0.0));
    // The reported value is masked.
    assert_eq!(*customer.counts.undecoded.lock().unwrap(), ["aaaa, aa 9"]);
}

#[tokio::test]
async fn time_in_the_future_is_described_in_words() {
    let mut row = Kind::Finished.row(NOW, Generation::V3);
    row["endTime"] = json!(time(NOW + 90 * DAY));
    let mut customer = Customer::default();
    customer.list(NOW, &[row]).await;
    assert_eq!(*customer.counts.undecoded.lock().unwrap(), ["a time in the future"]);
}
