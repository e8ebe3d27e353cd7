//! Statuses that are no success.

use std::time::{Duration, Instant};

use elements_exporter::simulator::{Fault, FaultKind, Request};
use futures_util::future::join_all;

use super::scripted::{Scripted, json};
use super::{
    Case, Exporter, Failing, JOBS_V1, JOBS_V3, TOKEN, case, errors, hold_each, holds, ids, is_settled, number, state,
    success, sum,
};
use crate::support::{eventually, value};
use crate::world::{Partner, start, still};

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

/// When the pause after a throttle is over at the earliest.
#[derive(Clone, Copy)]
enum Ends {
    /// So long after the throttle.
    After(Duration),
    At(Instant),
}

/// What was asked after the one throttled request and before the pause is over, once that request has gone through and
/// the others are back at their pace.
async fn asked_in_pause(partner: &Partner, ends: Ends) -> usize {
    let requests = eventually("the throttled request goes through", || async {
        let requests = partner.handle.requests();
        let at = requests.iter().position(|request| request.status == 429)?;
        let requests = requests[at..].to_vec();
        let again = |request: &Request| request.path == requests[0].path && request.status == 200;
        (requests.iter().any(again) && requests.len() > 20).then_some(requests)
    })
    .await;
    let end = match ends {
        Ends::After(pause) => requests[0].at + pause,
        Ends::At(end) => end,
    };
    requests[1..].iter().filter(|request| request.at < end).count()
}

#[tokio::test]
async fn a_throttle_pauses_the_whole_host_and_slows_it() {
    // Eleven polls a second would go on, did the pause not hold for all of them. Those that were under way when the
    // throttle came may still arrive.
    const UNDER_WAY: usize = 4;
    fn date(from_now: i64) -> (String, Instant) {
        let now = jiff::Timestamp::now();
        let then = jiff::Timestamp::from_second(now.as_second() + from_now).unwrap();
        let wait = Duration::try_from(then.duration_since(now)).unwrap_or_default();
        (
            then.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string(),
            Instant::now() + wait,
        )
    }
    let seconds = |seconds| Ends::After(Duration::from_secs(seconds));
    let now = seconds(0);
    let (soon, then) = date(4);
    let cases = [
        ("seconds", Some("2"), seconds(2)),
        ("a date", Some(soon.as_str()), Ends::At(then)),
        ("a date gone by", Some("Sun, 06 Nov 1994 08:49:37 GMT"), now),
        ("nothing", None, seconds(1)),
        ("garbage", Some("soon"), seconds(1)),
        ("a negative number", Some("-5"), seconds(1)),
        ("zero", Some("0"), now),
    ];
    join_all(cases.map(|(name, retry_after, ends)| async move {
        let partner = start(still(10)).await;
        let two_at_once = [("ELEMENTS_API__MAX_CONCURRENCY", "2")];
        let exporter = Exporter::start(&partner.base, &["jobs"], &two_at_once).await;
        let before = exporter.settled().await;
        partner.handle.clear_requests();
        partner
            .handle
            .set_faults(vec![Fault::new(JOBS_V3, throttle(retry_after)).times(1)]);
        let asked = asked_in_pause(&partner, ends).await;
        assert!(asked <= UNDER_WAY, "{name}: {asked} requests");
        let after = exporter
            .until("the throttle is counted", |text| {
                sum(text, "elements_exporter_api_throttled_total") == 1.0 && is_settled(text)
            })
            .await;
        assert_eq!(
            sum(&after, "elements_exporter_api_errors_total"),
            0.0,
            "{name}: it went through later"
        );
        assert!(number(&after, RATE) < number(&before, RATE), "{name}");
    }))
    .await;
}

#[tokio::test]
async fn a_huge_wait_is_asked_for_and_not_a_failure() {
    let partner = start(still(2)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    exporter.settled().await;
    partner.handle.set_faults(vec![
        Fault::new(JOBS_V3, throttle(Some("99999999999999999999"))).times(1),
    ]);
    let throttled = "elements_exporter_api_throttled_total{endpoint=\"jobs\"}";
    let lag = "elements_exporter_poll_lag_seconds{collector=\"customers\"}";
    let text = exporter
        .until("everything waits", |text| {
            number(text, throttled) == 1.0 && number(text, lag) > 2.0
        })
        .await;
    assert_eq!(sum(&text, "elements_exporter_api_errors_total"), 0.0);
    assert_eq!(exporter.get("/-/healthy").await.0, 200);
}

#[tokio::test]
async fn a_throttle_without_end_slows_down_and_shows_as_lag() {
    let partner = start(still(5)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[("ELEMENTS_API__REQUESTS_PER_SECOND", "20")]).await;
    let before = exporter.settled().await;
    partner
        .handle
        .set_faults(vec![Fault::new("/partner/*", throttle(Some("0")))]);
    let lag = "elements_exporter_poll_lag_seconds{collector=\"jobs\"}";
    let text = exporter
        .until("slower and late", |text| {
            number(text, RATE) < 0.3 * number(&before, RATE) && number(text, lag) > 3.0
        })
        .await;
    assert!(number(&text, RATE) > 0.0);
}

#[tokio::test]
async fn an_error_of_the_server_in_passing_is_repeated_unseen() {
    join_all([500, 502, 503, 504, 408].map(|code| async move {
        let partner = start(still(2)).await;
        let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
        let before = exporter.settled().await;
        partner
            .handle
            .set_faults(vec![Fault::new(JOBS_V3, status(code)).times(2)]);
        let text = exporter
            .until(&format!("{code} is repeated"), |text| {
                number(text, retries()) >= number(&before, retries()) + 2.0 && is_settled(text)
            })
            .await;
        assert_eq!(sum(&text, "elements_exporter_api_errors_total"), 0.0, "{code}");
    }))
    .await;
}

#[tokio::test]
async fn an_error_of_the_server_that_stays_holds() {
    hold_each([
        case("500", status(500), "server_error"),
        case("503", status(503), "server_error"),
        case("408", status(408), "request_timeout"),
    ])
    .await;
}

#[tokio::test]
async fn an_outage_does_not_multiply_the_load() {
    let partner = start(still(20)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    exporter.settled().await;
    partner.handle.clear_requests();
    partner.handle.set_faults(vec![Fault::new("/partner/*", status(503))]);
    // The lists of twenty customers fail twice: forty polls and more, which in good times are as many requests.
    exporter
        .until("two rounds have failed", |text| {
            sum(text, "elements_exporter_api_errors_total{endpoint=\"jobs\"") >= 40.0
        })
        .await;
    let requests = partner.handle.requests();
    let failed = requests.iter().filter(|request| request.status == 503).count();
    assert!(failed <= 48, "{failed} requests");
    assert!(
        failed <= 30,
        "the breaker lets probes through and no more: {failed} requests"
    );
}

#[tokio::test]
async fn a_list_that_is_refused_in_passing_is_asked_for_again() {
    let partner = start(still(5)).await;
    partner
        .handle
        .set_faults(vec![Fault::new(LICENSES_V3, status(403)).times(1)]);
    let exporter = Exporter::start(&partner.base, &["licenses"], &[]).await;
    let each = |text: &str| number(text, &state("licenses", "fresh")) == 5.0;
    let text = exporter.until("each customer is asked about", each).await;
    assert_eq!(number(&text, &success("licenses", &ids(&partner)[0])), 1.0);
    let text = exporter
        .until("all are asked about at once", |text| {
            value(text, &success("licenses", "")) == Some(1.0)
        })
        .await;
    assert!(each(&text));
    assert_eq!(value(&text, &success("licenses", &ids(&partner)[0])), None);
    assert!(text.contains("elements_license_purchased_seats{"));
}

#[tokio::test]
async fn a_resource_that_is_down_for_everybody_leaves_the_others_alone() {
    for kind in [status(500), FaultKind::Hang] {
        let partner = start(still(20)).await;
        let more = [("ELEMENTS_API__TIMEOUT", "1s"), ("ELEMENTS_API__MAX_CONCURRENCY", "4")];
        let exporter = Exporter::start(&partner.base, &["jobs", "protected", "licenses"], &more).await;
        let before = exporter.settled().await;
        partner.handle.set_faults(vec![Fault::new(JOBS_V3, kind)]);
        exporter
            .until("no jobs are to be had", |text| {
                number(text, &state("jobs", "failed")) == 20.0
            })
            .await;
        // From here on nothing else may fail, and all of it goes on.
        let others = ["customers", "protected", "licenses", "token"];
        let failed = |text: &str| -> f64 {
            let errors = |endpoint| format!("elements_exporter_api_errors_total{{endpoint=\"{endpoint}\"");
            others.iter().map(|endpoint| sum(text, &errors(endpoint))).sum()
        };
        let asked = |text: &str| {
            sum(
                text,
                "elements_exporter_api_requests_total{endpoint=\"protected\",code=\"200\"}",
            )
        };
        let long = exporter
            .until("three more rounds of the others", |text| {
                asked(text) >= asked(&before) + 60.0
            })
            .await;
        assert_eq!(failed(&long), 0.0, "{long}");
        assert_eq!(number(&long, &state("protected", "fresh")), 20.0);
        assert_eq!(number(&long, &state("jobs", "failed")), 20.0);
        assert_eq!(number(&long, "elements_up"), 1.0);
        partner.handle.clear_faults();
        exporter.settled().await;
    }
}

#[tokio::test]
async fn refusals_are_not_repeated() {
    let cases = [
        (400, "bad_request"),
        (404, "not_found"),
        (405, "method_not_allowed"),
        (418, "unexpected_status"),
    ];
    join_all(cases.map(|(code, reason)| async move {
        let partner = start(still(2)).await;
        let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
        let id = ids(&partner)[0].clone();
        let failing = Failing {
            collector: "jobs",
            id: &id,
            endpoint: "jobs",
            reason,
        };
        let text = holds(&exporter, failing, reason, async || {
            partner.handle.set_faults(vec![Fault::new(JOBS_V3, status(code))]);
        })
        .await;
        assert_eq!(number(&text, retries()), 0.0, "{code}");
    }))
    .await;
}

#[tokio::test]
async fn one_customer_that_is_forbidden_is_shown_and_the_others_go_on() {
    let partner = start(still(3)).await;
    let exporter = Exporter::start(&partner.base, &["jobs", "protected"], &[]).await;
    let ids = ids(&partner);
    let failing = Failing {
        collector: "jobs",
        id: &ids[1],
        endpoint: "jobs",
        reason: "forbidden",
    };
    let text = holds(&exporter, failing, "403", async || {
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
async fn nothing_to_tell_is_an_empty_answer() {
    for (generation, path) in [("v1", JOBS_V1), ("v3", JOBS_V3)] {
        let partner = start(still(1)).await;
        let exporter = Exporter::start(&partner.base, &["jobs"], &[("ELEMENTS_API__VERSION", generation)]).await;
        let before = exporter.settled().await;
        assert!(before.contains("elements_job_status{"));
        partner.handle.set_faults(vec![Fault::new(path, status(204))]);
        let text = exporter
            .until("an empty answer", |text| !text.contains("elements_job_status{"))
            .await;
        assert_eq!(number(&text, &success("jobs", &ids(&partner)[0])), 1.0, "{generation}");
        assert_eq!(sum(&text, "elements_exporter_api_errors_total"), 0.0, "{generation}");
    }
}

#[tokio::test]
async fn a_redirect_is_refused_and_carries_nothing_away() {
    let elsewhere = Scripted::start(|_| json(200, "{}")).await;
    let redirect = |code, location: String| FaultKind::Redirect { code, location };
    let mut cases: Vec<Case> = [301, 302, 303, 307, 308]
        .map(|code| {
            case(
                "to another place",
                redirect(code, format!("{}/x", elsewhere.base)),
                "redirect",
            )
        })
        .into();
    cases.push(case(
        "to itself",
        redirect(307, "/partner/customers".to_owned()),
        "redirect",
    ));
    hold_each(cases).await;
    // The token endpoint's carries the secret, so it goes nowhere either.
    join_all([302, 307, 308].map(|code| {
        let location = format!("{}{TOKEN}", elsewhere.base);
        async move {
            let partner = start(still(1)).await;
            partner
                .handle
                .set_faults(vec![Fault::new(TOKEN, redirect(code, location))]);
            let exporter = Exporter::start(&partner.base, &[], &[]).await;
            let text = exporter
                .until("no token", |text| {
                    value(text, &errors("customers", "auth")) >= Some(1.0)
                })
                .await;
            assert_eq!(number(&text, "elements_up"), 0.0, "{code}");
        }
    }))
    .await;
    let asked = elsewhere.asked();
    assert!(asked.is_empty(), "{asked:?}");
}
