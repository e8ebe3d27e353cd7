//! Responses with an error status.

use std::time::{Duration, Instant};

use elements_exporter::app;
use elements_exporter::simulator::{Fault, FaultKind, Request};
use futures_util::future::join_all;

use super::{
    Case, ExpectedFailure, Exporter, JOBS_V1, JOBS_V3, TOKEN, assert_each_fails, assert_poll_fails, case, errors, ids,
    is_settled, number, state, success, sum,
};
use crate::harness::partner::{Partner, frozen_partner, start};
use crate::harness::scripted::{ScriptedServer, json};
use crate::harness::{eventually, value};

const RATE: &str = "elements_exporter_api_rate_limit";

const LICENSES_V3: &str = "/partner/external/v3/general/customers/services/batch";

fn status(code: u16) -> FaultKind {
    FaultKind::Status { code, body: None }
}

fn throttle(retry_after: Option<&str>) -> FaultKind {
    FaultKind::Throttle {
        retry_after: retry_after.map(ToOwned::to_owned),
        code: 429,
    }
}

fn retries() -> &'static str {
    "elements_exporter_api_retries_total{endpoint=\"jobs\"}"
}

/// Earliest end of the pause after a throttled request.
#[derive(Clone, Copy)]
enum PauseEnd {
    /// At least this long after the throttled request.
    After(Duration),
    At(Instant),
}

/// Waits until the throttled request has succeeded and other requests have resumed. Returns the number of requests
/// during the pause.
async fn requests_in_pause(partner: &Partner, pause_end: PauseEnd) -> usize {
    let requests = eventually("the throttled request succeeds", || async {
        let requests = partner.handle.requests();
        let at = requests.iter().position(|request| request.status == 429)?;
        let requests = requests[at..].to_vec();
        let is_retry = |request: &Request| request.path == requests[0].path && request.status == 200;
        (requests.iter().any(is_retry) && requests.len() > 20).then_some(requests)
    })
    .await;
    let end = match pause_end {
        PauseEnd::After(pause) => requests[0].at + pause,
        PauseEnd::At(end) => end,
    };
    requests[1..].iter().filter(|request| request.at < end).count()
}

#[tokio::test]
async fn customer_without_data_is_looked_up_in_the_list() {
    for (generation, list) in [
        ("v1", "/partner/customers"),
        ("v3", "/partner/external/v3/general/customers/batch"),
    ] {
        let partner = start(frozen_partner(2)).await;
        let extra_env = [
            ("ELEMENTS_API__VERSION", generation),
            ("ELEMENTS_COLLECTORS__CUSTOMERS__INTERVAL", "1h"),
        ];
        let exporter = Exporter::start(&partner.base, &["protected", "jobs"], &extra_env).await;
        exporter.wait_until_settled().await;
        let lists = || {
            let requests = partner.handle.requests();
            let is_list = |request: &&Request| request.path.split('?').next() == Some(list);
            requests.iter().filter(is_list).count()
        };
        let before = lists();
        let removed = partner.handle.with_world(|world| world.customers.remove(0)).id;
        let failed = |endpoint| errors(endpoint, "not_found");
        let text = exporter
            .wait_until("repeated failures", |text| {
                ["jobs", "protected"]
                    .map(failed)
                    .iter()
                    .all(|errors| value(text, errors) >= Some(3.0))
                    && lists() > before
            })
            .await;
        // The list that confirms the removal is requested only after the interval.
        assert!(text.contains(&removed), "{generation}");
        assert_eq!(lists(), before + 1, "{generation}");
    }
}

#[tokio::test]
async fn throttle_pauses_all_requests_and_lowers_the_rate() {
    // Without the pause, eleven polls per second would continue. Requests that were in flight when the API sent the 429
    // response may still arrive.
    const IN_FLIGHT: usize = 4;
    fn date(from_now: i64) -> (String, Instant) {
        let now = jiff::Timestamp::now();
        let then = jiff::Timestamp::from_second(now.as_second() + from_now).unwrap();
        let wait = Duration::try_from(then.duration_since(now)).unwrap_or_default();
        (
            then.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string(),
            Instant::now() + wait,
        )
    }
    let seconds = |seconds| PauseEnd::After(Duration::from_secs(seconds));
    let now = seconds(0);
    let (soon, then) = date(4);
    let cases = [
        ("seconds", Some("2"), seconds(2)),
        ("a date", Some(soon.as_str()), PauseEnd::At(then)),
        ("a past date", Some("Sun, 06 Nov 1994 08:49:37 GMT"), now),
        ("nothing", None, seconds(1)),
        ("garbage", Some("soon"), seconds(1)),
        ("a negative number", Some("-5"), seconds(1)),
        ("zero", Some("0"), now),
    ];
    join_all(cases.map(|(name, retry_after, pause_end)| async move {
        let partner = start(frozen_partner(10)).await;
        let two_in_parallel = [("ELEMENTS_API__MAX_CONCURRENCY", "2")];
        let exporter = Exporter::start(&partner.base, &["jobs"], &two_in_parallel).await;
        let before = exporter.wait_until_settled().await;
        partner.handle.clear_requests();
        partner
            .handle
            .set_faults(vec![Fault::new(JOBS_V3, throttle(retry_after)).times(1)]);
        let requested = requests_in_pause(&partner, pause_end).await;
        assert!(requested <= IN_FLIGHT, "{name}: {requested} requests");
        let after = exporter
            .wait_until("the throttled request is counted", |text| {
                sum(text, "elements_exporter_api_throttled_total") == 1.0 && is_settled(text)
            })
            .await;
        assert_eq!(
            sum(&after, "elements_exporter_api_errors_total"),
            0.0,
            "{name}: a retry was counted as a failure"
        );
        assert!(number(&after, RATE) < number(&before, RATE), "{name}");
    }))
    .await;
}

#[tokio::test]
async fn retry_after_date_is_relative_to_the_response_date() {
    // The server's clock is an hour ahead. By the local clock, the pause would have its maximum length, and the test
    // would time out.
    let ahead = |seconds: i64| {
        let then = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + 3600 + seconds).unwrap();
        then.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    };
    let slow_down = move |status: u16| {
        let mut response = json(status, "{}");
        let headers = response.headers_mut();
        headers.insert("date", ahead(0).parse().unwrap());
        headers.insert("retry-after", ahead(2).parse().unwrap());
        response
    };
    join_all(
        [("POST", 429), ("POST", 503), ("GET", 429), ("GET", 503)].map(|(method, status)| async move {
            let is_throttled = std::sync::atomic::AtomicBool::new(false);
            let server = ScriptedServer::start(move |request| {
                if request.line.starts_with(method) && !is_throttled.swap(true, std::sync::atomic::Ordering::SeqCst) {
                    return slow_down(status);
                }
                match request.line.starts_with("POST") {
                    true => crate::harness::scripted::token(),
                    false => json(200, r#"{"value":[{"id":"c-1","organization":"One"}]}"#),
                }
            })
            .await;
            let exporter = Exporter::start(&server.base, &[], &[("ELEMENTS_API__VERSION", "v1")]).await;
            exporter.wait_until_settled().await;
        }),
    )
    .await;
}

#[tokio::test]
async fn failed_request_is_logged_with_its_request_id() {
    let id = "caf94a75-2cc6-43aa-b04b-794c8baf5ea3";
    let hostile = "x\" reason=none @".to_owned() + &"y".repeat(500);
    for (given, logged) in [(id.to_owned(), id), (hostile, "x??reason=none??yyyy")] {
        for (status, body) in [(400, "{}"), (200, "sorry")] {
            let given = given.clone();
            let server = ScriptedServer::start(move |request| {
                if request.line.ends_with("/connect/token") {
                    return crate::harness::scripted::token();
                }
                let mut response = json(status, body);
                response.headers_mut().insert("request-id", given.parse().unwrap());
                response
            })
            .await;
            let extra_env = [("ELEMENTS_API__VERSION", "v1")];
            let program = crate::harness::program::Program::start_collectors(&server.base, &[], &extra_env).await;
            let line = eventually("the failure is logged", || async {
                let printed = program.stderr();
                let mut lines = printed.lines().filter(|line| line.contains("level=warn"));
                lines
                    .find(|line| line.contains("collector=customers"))
                    .map(str::to_owned)
            })
            .await;
            assert!(line.contains("request_id=") && line.contains(logged), "{line}");
            assert!(!line.contains(&"y".repeat(70)), "{line}");
            let report = app::check(&crate::harness::config(&server.base, &extra_env))
                .await
                .unwrap();
            let expected = format!("(request-id {logged}");
            assert!(report.text().contains(&expected), "{}", report.text());
            let report: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
            let found = report["collectors"][0]["request_id"].as_str().unwrap();
            assert!(found.starts_with(logged) && found.len() <= 64, "{found}");
        }
    }
}

#[tokio::test]
async fn long_retry_after_is_observed_without_a_failure() {
    let partner = start(frozen_partner(2)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    exporter.wait_until_settled().await;
    partner.handle.set_faults(vec![
        Fault::new(JOBS_V3, throttle(Some("99999999999999999999"))).times(1),
    ]);
    let throttled = "elements_exporter_api_throttled_total{endpoint=\"jobs\"}";
    let lag = "elements_exporter_poll_lag_seconds{collector=\"customers\"}";
    let text = exporter
        .wait_until("all polls wait", |text| {
            number(text, throttled) == 1.0 && number(text, lag) > 2.0
        })
        .await;
    assert_eq!(sum(&text, "elements_exporter_api_errors_total"), 0.0);
    assert_eq!(exporter.get("/-/healthy").await.0, 200);
}

#[tokio::test]
async fn persistent_throttling_lowers_the_rate_and_increases_lag() {
    let partner = start(frozen_partner(5)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[("ELEMENTS_API__REQUESTS_PER_SECOND", "20")]).await;
    let before = exporter.wait_until_settled().await;
    partner
        .handle
        .set_faults(vec![Fault::new("/partner/*", throttle(Some("0")))]);
    let lag = "elements_exporter_poll_lag_seconds{collector=\"jobs\"}";
    let text = exporter
        .wait_until("the rate decreases and the lag grows", |text| {
            number(text, RATE) < 0.3 * number(&before, RATE) && number(text, lag) > 3.0
        })
        .await;
    assert!(number(&text, RATE) > 0.0);
}

#[tokio::test]
async fn temporary_server_error_is_retried() {
    join_all([500, 502, 503, 504, 408].map(|code| async move {
        let partner = start(frozen_partner(2)).await;
        let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
        let before = exporter.wait_until_settled().await;
        partner
            .handle
            .set_faults(vec![Fault::new(JOBS_V3, status(code)).times(2)]);
        let text = exporter
            .wait_until(&format!("{code} is retried"), |text| {
                number(text, retries()) >= number(&before, retries()) + 2.0 && is_settled(text)
            })
            .await;
        assert_eq!(sum(&text, "elements_exporter_api_errors_total"), 0.0, "{code}");
    }))
    .await;
}

#[tokio::test]
async fn persistent_server_error_keeps_the_last_known_values() {
    assert_each_fails([
        case("500", status(500), "server_error"),
        case("503", status(503), "server_error"),
        case("408", status(408), "request_timeout"),
    ])
    .await;
}

#[tokio::test]
async fn outage_does_not_multiply_the_load() {
    let partner = start(frozen_partner(20)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    exporter.wait_until_settled().await;
    partner.handle.clear_requests();
    partner.handle.set_faults(vec![Fault::new("/partner/*", status(503))]);
    // The lists of twenty customers fail twice. Without the circuit breaker, the exporter would send at least forty
    // requests.
    exporter
        .wait_until("two cycles have failed", |text| {
            sum(text, "elements_exporter_api_errors_total{endpoint=\"jobs\"") >= 40.0
        })
        .await;
    let requests = partner.handle.requests();
    let failed = requests.iter().filter(|request| request.status == 503).count();
    assert!(failed <= 48, "{failed} requests");
    assert!(failed <= 30, "the breaker must admit only probes: {failed} requests");
}

#[tokio::test]
async fn temporarily_forbidden_list_is_requested_again() {
    let partner = start(frozen_partner(5)).await;
    partner
        .handle
        .set_faults(vec![Fault::new(LICENSES_V3, status(403)).times(1)]);
    let exporter = Exporter::start(&partner.base, &["licenses"], &[]).await;
    let all_fresh = |text: &str| number(text, &state("licenses", "fresh")) == 5.0;
    let text = exporter.wait_until("each customer is requested", all_fresh).await;
    assert_eq!(number(&text, &success("licenses", &ids(&partner)[0])), 1.0);
    let text = exporter
        .wait_until("the bulk list is requested", |text| {
            value(text, &success("licenses", "")) == Some(1.0) && all_fresh(text)
        })
        .await;
    assert_eq!(value(&text, &success("licenses", &ids(&partner)[0])), None);
    assert!(text.contains("elements_license_purchased_seats{"));
}

#[tokio::test]
async fn failing_resource_does_not_affect_others() {
    // Hanging requests time out after a second. On a busy machine, other requests may also time out, but their polls
    // are repeated.
    for (kind, timeout) in [(status(500), "5m"), (FaultKind::Hang, "1s")] {
        let partner = start(frozen_partner(20)).await;
        let extra_env = [
            ("ELEMENTS_API__TIMEOUT", timeout),
            ("ELEMENTS_API__MAX_CONCURRENCY", "4"),
        ];
        let exporter = Exporter::start(&partner.base, &["jobs", "protected", "licenses"], &extra_env).await;
        let before = exporter.wait_until_settled().await;
        partner.handle.set_faults(vec![Fault::new(JOBS_V3, kind)]);
        exporter
            .wait_until("the polls of `jobs` fail", |text| {
                number(text, &state("jobs", "failed")) == 20.0
            })
            .await;
        // From now on, all other polls must continue without failures other than timeouts.
        let others = ["customers", "protected", "licenses", "token"];
        let failed = |text: &str| -> f64 {
            let all = |endpoint| {
                sum(
                    text,
                    &format!("elements_exporter_api_errors_total{{endpoint=\"{endpoint}\""),
                )
            };
            let slow = |endpoint| value(text, &errors(endpoint, "timeout")).unwrap_or_default();
            others.map(|endpoint| all(endpoint) - slow(endpoint)).iter().sum()
        };
        let requested = |text: &str| {
            sum(
                text,
                "elements_exporter_api_requests_total{endpoint=\"protected\",code=\"200\"}",
            )
        };
        let later = exporter
            .wait_until("three more cycles of the others", |text| {
                requested(text) >= requested(&before) + 60.0
                    && number(text, &state("protected", "fresh")) == 20.0
                    && number(text, &state("jobs", "failed")) == 20.0
                    && number(text, "elements_up") == 1.0
            })
            .await;
        assert_eq!(failed(&later), 0.0, "{later}");
        partner.handle.clear_faults();
        exporter.wait_until_settled().await;
    }
}

#[tokio::test]
async fn denied_requests_are_not_retried() {
    let cases = [
        (400, "bad_request"),
        (404, "not_found"),
        (405, "method_not_allowed"),
        (418, "unexpected_status"),
    ];
    join_all(cases.map(|(code, reason)| async move {
        let partner = start(frozen_partner(2)).await;
        let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
        let id = ids(&partner)[0].clone();
        let expected = ExpectedFailure {
            collector: "jobs",
            id: &id,
            endpoint: "jobs",
            reason,
        };
        let text = assert_poll_fails(&exporter, expected, reason, async || {
            partner.handle.set_faults(vec![Fault::new(JOBS_V3, status(code))]);
        })
        .await;
        assert_eq!(number(&text, retries()), 0.0, "{code}");
    }))
    .await;
}

#[tokio::test]
async fn forbidden_customer_is_exposed_and_others_continue() {
    let partner = start(frozen_partner(3)).await;
    let exporter = Exporter::start(&partner.base, &["jobs", "protected"], &[]).await;
    let ids = ids(&partner);
    let expected = ExpectedFailure {
        collector: "jobs",
        id: &ids[1],
        endpoint: "jobs",
        reason: "forbidden",
    };
    let text = assert_poll_fails(&exporter, expected, "403", async || {
        partner
            .handle
            .set_faults(vec![Fault::new(&JOBS_V3.replace('*', &ids[1]), status(403))]);
    })
    .await;
    assert_eq!(number(&text, &state("jobs", "forbidden")), 1.0);
    assert_eq!(number(&text, &state("jobs", "fresh")), 2.0);
    assert_eq!(number(&text, &state("protected", "fresh")), 3.0);
    assert_eq!(number(&text, &success("jobs", &ids[0])), 1.0);
    assert_eq!(number(&text, "elements_up"), 1.0);
    assert_eq!(
        number(&text, "elements_exporter_collector_permitted{collector=\"jobs\"}"),
        1.0
    );
}

#[tokio::test]
async fn status_204_is_an_empty_response() {
    for (generation, path) in [("v1", JOBS_V1), ("v3", JOBS_V3)] {
        let partner = start(frozen_partner(1)).await;
        let exporter = Exporter::start(&partner.base, &["jobs"], &[("ELEMENTS_API__VERSION", generation)]).await;
        let before = exporter.wait_until_settled().await;
        assert!(before.contains("elements_job_status{"));
        partner.handle.set_faults(vec![Fault::new(path, status(204))]);
        let text = exporter
            .wait_until("an empty response", |text| !text.contains("elements_job_status{"))
            .await;
        assert_eq!(number(&text, &success("jobs", &ids(&partner)[0])), 1.0, "{generation}");
        assert_eq!(sum(&text, "elements_exporter_api_errors_total"), 0.0, "{generation}");
    }
}

#[tokio::test]
async fn redirect_is_not_followed() {
    let other_server = ScriptedServer::start(|_| json(200, "{}")).await;
    let redirect = |code, location: String| FaultKind::Redirect { code, location };
    let mut cases: Vec<Case> = [301, 302, 303, 307, 308]
        .map(|code| {
            case(
                "to another host",
                redirect(code, format!("{}/x", other_server.base)),
                "redirect",
            )
        })
        .into();
    cases.push(case(
        "to itself",
        redirect(307, "/partner/customers".to_owned()),
        "redirect",
    ));
    assert_each_fails(cases).await;
    // A redirect of the token request, which contains the secret, is not followed either.
    join_all([302, 307, 308].map(|code| {
        let location = format!("{}{TOKEN}", other_server.base);
        async move {
            let partner = start(frozen_partner(1)).await;
            partner
                .handle
                .set_faults(vec![Fault::new(TOKEN, redirect(code, location))]);
            let exporter = Exporter::start(&partner.base, &[], &[]).await;
            let text = exporter
                .wait_until("a token request failed", |text| {
                    value(text, &errors("customers", "auth")) >= Some(1.0)
                })
                .await;
            assert_eq!(number(&text, "elements_up"), 0.0, "{code}");
        }
    }))
    .await;
    let requested = other_server.requests();
    assert!(requested.is_empty(), "{requested:?}");
}
