use std::time::Duration;

use super::hosts::clock_finding;
use super::observer::{CheckObserver, within};
use super::report::Outcome;
use crate::api::{Endpoint, Observer as _};

#[test]
fn clock_skew_is_reported_with_its_direction() {
    let check_skew = |skew| clock_finding(Some(skew));
    assert_eq!(check_skew(-60).0, Outcome::Ok);
    assert!(check_skew(300).2.contains("5m behind") && check_skew(300).0 == Outcome::Failed);
    assert!(check_skew(-300).2.contains("5m ahead"));
    assert_eq!(clock_finding(None).0, Outcome::Off);
}

#[tokio::test]
async fn wait_has_a_time_limit() {
    let observer = CheckObserver::default();
    let limit = Duration::from_millis(20);
    let waited = within(limit, "jobs", &observer, async {
        observer.throttled(Endpoint::Jobs);
        std::future::pending::<()>().await;
    });
    let error = waited.await.err().unwrap_or_default();
    assert!(
        error.contains("did not finish within 20ms; the API throttled 1 attempt (429)"),
        "{error}"
    );
    assert_eq!(within(limit, "jobs", &observer, async { 7 }).await, Ok(7));
}
