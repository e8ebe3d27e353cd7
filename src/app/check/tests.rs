use std::time::Duration;

use url::Url;

use super::hosts::{clock, place};
use super::notebook::{Notebook, within};
use super::report::Outcome;
use crate::api::{Endpoint, Observer as _};

#[test]
fn a_clock_that_differs_is_told_by_which_side_it_is() {
    let told = |skew| clock(Some(skew));
    assert_eq!(told(-60).0, Outcome::Ok);
    assert!(told(300).2.contains("5m behind") && told(300).0 == Outcome::FellShort);
    assert!(told(-300).2.contains("5m ahead"));
    assert_eq!(clock(None).0, Outcome::Off);
}

#[tokio::test]
async fn nobody_waits_for_ever() {
    let notebook = Notebook::default();
    let limit = Duration::from_millis(20);
    let waited = within(limit, "jobs", &notebook, async {
        notebook.throttled(Endpoint::Jobs);
        std::future::pending::<()>().await;
    });
    let told = waited.await.err().unwrap_or_default();
    assert!(
        told.contains("gave up after 20ms, in which the API asked 1 time for a pause"),
        "{told}"
    );
    assert_eq!(within(limit, "jobs", &notebook, async { 7 }).await, Ok(7));
}

#[test]
fn a_proxy_is_named_without_its_password() -> Result<(), url::ParseError> {
    let url = Url::parse("http://me:hunter2@proxy.example.com:3128/x")?;
    assert_eq!(place(&url), "http://proxy.example.com:3128");
    Ok(())
}
