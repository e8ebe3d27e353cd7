//! The demo starts with a state like that of an exporter that has run for days.

use crate::harness::program::Program;
use crate::harness::{eventually, fresh, value};

/// Number of customers that is large enough for every scenario to occur.
const CUSTOMERS: usize = 12;

/// Returns the id of the customer whose consent was withdrawn 53 hours ago.
fn customer_without_consent(exposition: &str) -> Option<&str> {
    let mut consents = exposition
        .lines()
        .filter(|line| line.starts_with("elements_tenant_app_consented{"));
    let withdrawn = consents.find(|line| line.ends_with(" 0"))?;
    let (_, rest) = withdrawn.split_once("customer_id=\"")?;
    rest.split('"').next()
}

#[tokio::test(flavor = "multi_thread")]
async fn demo_has_runs_and_restore_points_at_startup() {
    let customers = format!("--simulator.customers={CUSTOMERS}");
    let flags = [
        "demo",
        "--web.listen-address=127.0.0.1:0",
        "--simulator.listen-address=127.0.0.1:0",
        &customers,
    ];
    let mut demo = Program::spawn(Vec::new(), &flags);
    let address = eventually("the demo listens", || async {
        let printed = demo.stdout();
        let (_, rest) = printed.split_once("start page")?;
        let url = rest.split_whitespace().next()?;
        Some(url.trim_start_matches("http://").trim_end_matches('/').to_owned())
    })
    .await;
    demo.set_address(&address);
    let restore_points = |text: &str| -> Vec<f64> {
        let lines = text.lines();
        let points = lines.filter(|line| line.starts_with("elements_job_last_backup_timestamp_seconds{"));
        // This backup scope's only run failed months ago.
        let points = points.filter(|line| !line.contains("EC2 old web servers"));
        points
            .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
            .collect()
    };
    let first = demo.metrics().await;
    assert_eq!(value(&first, "elements_exporter_state_load_successful"), Some(1.0));
    assert!(restore_points(&first).len() > 100, "{}", restore_points(&first).len());
    let polled = demo
        .wait_until("all customers are polled", |text| {
            ["jobs", "app_consent"]
                .iter()
                .all(|collector| fresh(text, collector) == Some(CUSTOMERS as f64))
        })
        .await;
    // Without a history, a module whose newest run failed would have no restore point.
    assert!(restore_points(&polled).iter().all(|end| *end > 0.0));
    let failing = customer_without_consent(&polled).expect("no customer without consent");
    let prefix = format!("elements_job_consecutive_failures{{customer_id=\"{failing}\"");
    let failures: Vec<f64> = polled
        .lines()
        .filter(|line| line.starts_with(&prefix))
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(
        failures.iter().filter(|count| **count > 20.0).count() > 5,
        "{failures:?}"
    );
    let page = demo.text("/").await;
    assert!(page.contains("overdue") && !page.contains("never backed up"));
    assert!(!demo.stderr().contains("level=warn"), "{}", demo.stderr());
}
