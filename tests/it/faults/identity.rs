//! Tokens that cannot be fetched, have expired, or are rejected.
//!
//! The tests are in one long file, because they share the helpers for tokens and certificates.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use elements_exporter::api::auth::TokenSource;
use elements_exporter::api::credential::Credential;
use elements_exporter::api::exchange::http_client;
use elements_exporter::app;
use elements_exporter::config;
use elements_exporter::health::Health;
use elements_exporter::simulator::{Clock, Fault, FaultKind, Settings};
use futures_util::future::join_all;
use serde_json::Value;

use super::{ExpectedFailure, Exporter, JOBS_V3, TOKEN, assert_poll_fails, errors, ids, number, state, success, sum};
use crate::harness::canned::CannedServer;
use crate::harness::partner::{Partner, frozen_partner, start};
use crate::harness::program::{Program, fixture};
use crate::harness::scripted::{ScriptedServer, json};
use crate::harness::{TIMEOUT, config, eventually, value};

fn token_failures(reason: &str) -> String {
    format!("elements_exporter_token_failures_total{{reason=\"{reason}\"}}")
}

fn unix_now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// Expected failure of a poll of the customer list without a token.
const NO_TOKEN: ExpectedFailure<'_> = ExpectedFailure {
    collector: "customers",
    id: "",
    endpoint: "token",
    reason: "auth",
};

const LIST_WITHOUT_TOKEN: ExpectedFailure<'_> = ExpectedFailure {
    endpoint: "customers",
    ..NO_TOKEN
};

#[tokio::test]
async fn rejected_client_retries_when_the_secret_file_changes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    fs::write(&file, "demo-secret\n").unwrap();
    let partner = start(frozen_partner(2)).await;
    let exporter = with_secret_file(&partner, &file).await;
    let after = assert_poll_fails(&exporter, LIST_WITHOUT_TOKEN, "invalid_client", async || {
        partner.handle.set_secret("another-secret".to_owned());
        partner.handle.revoke_tokens();
    })
    .await;
    assert_eq!(number(&after, "elements_up"), 0.0);
    let requested = partner.handle.token_requests();
    let failed = number(&after, &token_failures("invalid_client"));
    assert_eq!(failed, 1.0, "all polls that need a token must share one attempt");
    exporter
        .wait_until("further polls fail", |text| {
            value(text, &errors("jobs", "auth")) > value(&after, &errors("jobs", "auth"))
        })
        .await;
    assert_eq!(
        partner.handle.token_requests(),
        requested,
        "a token was requested during the pause"
    );
    // The pause lasts at least a minute, so an earlier request shows that the changed file was detected.
    fs::write(&file, "another-secret\n").unwrap();
    let recovered = exporter.wait_until_settled().await;
    assert_eq!(number(&recovered, "elements_up"), 1.0);
    assert_eq!(number(&recovered, &token_failures("invalid_client")), failed);
}

async fn with_secret_file(partner: &Partner, file: &std::path::Path) -> Exporter {
    let mut variables = super::every_second(&partner.base, &["jobs"], &[]);
    variables.retain(|(name, _)| name != "ELEMENTS_AUTH__CLIENT_SECRET");
    super::set(
        &mut variables,
        "ELEMENTS_AUTH__CLIENT_SECRET_FILE",
        file.to_str().unwrap(),
    );
    Exporter::load(variables).await
}

#[tokio::test]
async fn throttled_request_is_sent_with_a_new_token() {
    let partner = start(Settings {
        clock: Clock::Wall,
        token_lifetime: Duration::from_secs(8),
        ..frozen_partner(2)
    })
    .await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    exporter.wait_until_settled().await;
    partner.handle.clear_requests();
    // The request's token expires during this pause.
    let pause = FaultKind::Throttle {
        retry_after: Some("10".to_owned()),
        code: 429,
    };
    partner.handle.set_faults(vec![Fault::new(JOBS_V3, pause).times(1)]);
    let requests = eventually("the throttled request succeeds", || async {
        let requests = partner.handle.requests();
        let at = requests.iter().position(|request| request.status == 429)?;
        let path = &requests[at].path;
        let succeeded = requests[at + 1..].iter().any(|request| request.path == *path);
        (succeeded && requests.len() > at + 10).then_some(requests)
    })
    .await;
    let unauthorized = requests.iter().filter(|request| request.status == 401).count();
    assert_eq!(unauthorized, 0, "an expired token was sent");
}

#[tokio::test]
async fn rotated_secret_is_used_at_the_next_renewal() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    fs::write(&file, "demo-secret\n").unwrap();
    let partner = start(frozen_partner(2)).await;
    let exporter = with_secret_file(&partner, &file).await;
    exporter.wait_until_settled().await;
    fs::write(&file, "rotated\n").unwrap();
    partner.handle.set_secret("rotated".to_owned());
    let requested = partner.handle.token_requests();
    partner.handle.revoke_tokens();
    eventually("a refresh", || async {
        (partner.handle.token_requests() > requested).then_some(())
    })
    .await;
    let text = exporter.wait_until_settled().await;
    assert_eq!(sum(&text, "elements_exporter_token_failures_total"), 0.0);
    assert_eq!(sum(&text, "elements_exporter_api_errors_total"), 0.0);
}

#[tokio::test]
async fn missing_permission_affects_only_its_collector() {
    let partner = start(frozen_partner(2)).await;
    let granted = ["customers", "license", "cbprotected", "scanprofiles"];
    partner
        .handle
        .set_scopes(granted.map(|name| format!("elements.{name}.read.all")).into());
    let (text, succeeded) = crate::harness::poll_once(&config(&partner.base, &[("ELEMENTS_API__VERSION", "v3")])).await;
    assert!(succeeded, "a missing permission must not count as a failure: {text}");
    let permitted = |collector: &str| format!("elements_exporter_collector_permitted{{collector=\"{collector}\"}}");
    assert_eq!(number(&text, &permitted("jobs")), 0.0);
    assert_eq!(number(&text, &state("jobs", "forbidden")), 2.0);
    assert_eq!(number(&text, &success("jobs", &ids(&partner)[0])), 0.0);
    for collector in ["customers", "licenses", "protected", "scan_profiles", "scan_changes"] {
        assert_eq!(number(&text, &permitted(collector)), 1.0, "{collector}");
        assert_eq!(number(&text, &state(collector, "fresh")), 2.0, "{collector}");
    }
    assert!(
        !partner
            .handle
            .requests()
            .iter()
            .any(|request| request.path.ends_with("/jobs/batch"))
    );
}

#[tokio::test]
async fn missing_permission_is_logged_with_its_name() {
    let partner = start(frozen_partner(1)).await;
    partner
        .handle
        .set_scopes(vec!["elements.customers.read.all".to_owned()]);
    let program = Program::start_collectors(&partner.base, &["jobs"], &[]).await;
    program
        .wait_until("the permission is missing", |text| {
            value(text, "elements_exporter_collector_permitted{collector=\"jobs\"}") == Some(0.0)
        })
        .await;
    let output = program.terminate().await;
    let reported: Vec<_> = output
        .stderr
        .lines()
        .filter(|line| line.contains("elements.jobs.read.all"))
        .collect();
    assert_eq!(reported.len(), 1, "must be logged once: {}", output.stderr);
    assert!(reported[0].contains("collector=jobs"), "{}", reported[0]);
}

/// Scopes that are as long as those of the real API. Together, they are too long for one request.
const MANY_SCOPES: [&str; 14] = [
    "elements.customers.read.all",
    "elements.licenses.read.all",
    "elements.jobs-a.read.all",
    "elements.jobs-b.read.all",
    "elements.jobs-c.read.all",
    "elements.jobs-d.read.all",
    "elements.jobs-e.read.all",
    "elements.jobs-f.read.all",
    "elements.jobs-g.read.all",
    "elements.jobs-h.read.all",
    "elements.jobs-i.read.all",
    "elements.jobs-j.read.all",
    "elements.jobs-k.read.all",
    "elements.jobs-l.read.all",
];

fn tokens(base: &str, scopes: &[&'static str]) -> TokenSource {
    let _ = rustls::crypto::ring::default_provider().install_default();
    TokenSource::new(
        http_client(TIMEOUT, None, &[]).unwrap(),
        format!("{base}{TOKEN}").parse().unwrap(),
        "demo".to_owned(),
        Credential::secret("demo-secret".to_owned().into()).unwrap(),
        TIMEOUT,
        vec![scopes.to_vec()],
        Arc::new(Health::new()),
    )
}

#[tokio::test]
async fn scope_string_beyond_its_limit_is_split() {
    let partner = start(Settings {
        scopes: MANY_SCOPES.map(ToOwned::to_owned).into(),
        ..frozen_partner(1)
    })
    .await;
    let tokens = tokens(&partner.base, &MANY_SCOPES);
    for scope in MANY_SCOPES {
        tokens.token(scope).await.unwrap();
        assert_eq!(tokens.permitted(scope), Some(true), "{scope}");
    }
    let requested: Vec<String> = partner
        .handle
        .requests()
        .iter()
        .map(|request| field(&request.body, "scope"))
        .collect();
    assert!(
        requested.iter().all(|scopes| scopes.chars().count() <= 300),
        "{requested:?}"
    );
    assert!(
        (2..=4).contains(&requested.len()),
        "unexpected number of requests: {requested:?}"
    );
}

fn field(form: &str, name: &str) -> String {
    let mut pairs = url::form_urlencoded::parse(form.as_bytes());
    pairs.find(|(key, _)| key == name).unwrap().1.into_owned()
}

#[tokio::test]
async fn waiting_polls_share_one_token_request() {
    const SCOPE: &str = "elements.jobs.read.all";
    let partner = start(frozen_partner(1)).await;
    let tokens = tokens(&partner.base, &[SCOPE]);
    let request_tokens = || join_all((0..100).map(|_| tokens.token(SCOPE)));
    let results: Vec<_> = request_tokens().await.into_iter().map(Result::unwrap).collect();
    assert_eq!(partner.handle.token_requests(), 1);
    // Every poll reports that the API rejected its token.
    for token in &results {
        tokens.reject(token);
    }
    assert!(request_tokens().await.into_iter().all(|token| token.is_ok()));
    assert_eq!(partner.handle.token_requests(), 2);
}

#[tokio::test]
async fn polls_continue_when_a_token_expires() {
    let partner = start(Settings {
        clock: Clock::Wall,
        token_lifetime: Duration::from_secs(2),
        ..frozen_partner(20)
    })
    .await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    exporter.wait_until_settled().await;
    eventually("three tokens", || async {
        (partner.handle.token_requests() >= 3).then_some(())
    })
    .await;
    let text = exporter.wait_until_settled().await;
    assert_eq!(sum(&text, "elements_exporter_api_errors_total"), 0.0);
    let polls = sum(&text, "elements_exporter_api_requests_total{endpoint=\"jobs\"");
    let tokens = partner.handle.token_requests();
    assert!(polls >= 5.0 * tokens as f64, "{polls} polls share {tokens} tokens");
}

#[tokio::test]
async fn revoked_token_is_renewed_once_and_no_poll_fails() {
    let partner = start(frozen_partner(20)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    exporter.wait_until_settled().await;
    let requested = partner.handle.token_requests();
    partner.handle.clear_requests();
    partner.handle.revoke_tokens();
    let unauthorized = |request: &&elements_exporter::simulator::Request| request.status == 401;
    eventually("the next cycle", || async {
        let requests = partner.handle.requests();
        let since = requests
            .iter()
            .rev()
            .take_while(|request| request.status == 200)
            .count();
        (requests.iter().any(|request| unauthorized(&request)) && since > 60).then_some(())
    })
    .await;
    let text = exporter.metrics().await;
    assert_eq!(sum(&text, "elements_exporter_api_errors_total"), 0.0);
    assert_eq!(partner.handle.token_requests(), requested + 1);
}

#[tokio::test]
async fn persistent_rejection_is_retried_once_per_poll() {
    let partner = start(frozen_partner(1)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    let id = &ids(&partner)[0];
    let expected = ExpectedFailure {
        collector: "jobs",
        id,
        endpoint: "jobs",
        reason: "unauthorized",
    };
    partner.handle.clear_requests();
    let after = assert_poll_fails(&exporter, expected, "401", async || {
        partner.handle.clear_requests();
        let status = FaultKind::Status { code: 401, body: None };
        partner.handle.set_faults(vec![Fault::new(JOBS_V3, status)]);
    })
    .await;
    let polls = number(&after, &errors("jobs", "unauthorized"));
    let attempts = sum(
        &after,
        "elements_exporter_api_requests_total{endpoint=\"jobs\",code=\"401\"}",
    );
    assert!(attempts <= 2.0 * polls + 2.0, "{attempts} attempts in {polls} polls");
}

#[tokio::test]
async fn token_requests_pause_even_without_a_retry_delay() {
    let waits = ["0", "Sun, 06 Nov 1994 08:49:37 GMT"];
    join_all(waits.map(|wait| async move {
        let partner = start(frozen_partner(2)).await;
        let throttle = FaultKind::Throttle {
            retry_after: Some(wait.to_owned()),
            code: 429,
        };
        partner.handle.set_faults(vec![Fault::new(TOKEN, throttle)]);
        let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
        // Pauses become longer, and polls during a pause fail without a request.
        exporter
            .wait_until(&format!("{wait}: polls without a token request"), |text| {
                let requested = partner.handle.requests().len();
                requested >= 3 && value(text, &errors("customers", "auth")) >= Some((requested + 3) as f64)
            })
            .await;
    }))
    .await;
}

#[tokio::test]
async fn token_endpoint_error_is_not_an_empty_list() {
    let html = "<html><body>Service Unavailable</body></html>";
    let page = |code| FaultKind::Status {
        code,
        body: Some(html.to_owned()),
    };
    let wrong_body = |body: &str| FaultKind::WrongBody {
        content_type: "application/json".to_owned(),
        body: body.to_owned(),
    };
    let cases = [
        ("503", page(503), "server_error"),
        ("500", page(500), "server_error"),
        ("400 from a proxy", page(400), "unexpected_status"),
        ("404", page(404), "unexpected_status"),
        ("200 with a page", wrong_body(html), "decode"),
        ("200 without a token", wrong_body("{}"), "decode"),
        (
            "an empty token",
            wrong_body(r#"{"access_token":"","expires_in":3600}"#),
            "decode",
        ),
        ("reset", FaultKind::Reset, "interrupted"),
        ("silence", FaultKind::Hang, "timeout"),
    ];
    join_all(cases.map(|(name, kind, reason)| async move {
        let partner = start(frozen_partner(2)).await;
        let exporter = Exporter::start(&partner.base, &["jobs"], &[("ELEMENTS_API__TIMEOUT", "1s")]).await;
        let after = assert_poll_fails(&exporter, LIST_WITHOUT_TOKEN, name, async || {
            partner.handle.set_faults(vec![Fault::new(TOKEN, kind)]);
            partner.handle.revoke_tokens();
        })
        .await;
        assert_eq!(number(&after, "elements_up"), 0.0, "{name}");
        assert!(number(&after, &token_failures(reason)) >= 1.0, "{name}");
        assert_eq!(after.matches("elements_customer_info{").count(), 2, "{name}");
    }))
    .await;
}

#[tokio::test]
async fn invalid_token_lifetime_causes_no_renewal_loop() {
    let lifetimes = [
        "",
        r#","expires_in":0"#,
        r#","expires_in":-5"#,
        r#","expires_in":"3600""#,
        r#","expires_in":"soon""#,
        r#","expires_in":null"#,
        r#","expires_in":1e300"#,
        r#","expires_in":{}"#,
    ];
    join_all(lifetimes.map(|lifetime| async move {
        let canned = CannedServer::start(&[
            (
                "POST /connect/token",
                &format!(r#"{{"access_token":"canned-token","token_type":"Bearer"{lifetime}}}"#),
            ),
            (
                "GET /partner/customers",
                r#"{"value":[{"id":"c-1","organization":"One"}]}"#,
            ),
            ("GET /partner/customers/c-1/jobs", r#"{"value":[]}"#),
        ])
        .await;
        let exporter = Exporter::start(&canned.base, &["jobs"], &[("ELEMENTS_API__VERSION", "v1")]).await;
        eventually("several cycles", || async {
            (canned.requests().len() >= 6).then_some(())
        })
        .await;
        let text = exporter.wait_until_settled().await;
        assert_eq!(canned.token_requests().len(), 1, "{lifetime}");
        let expiry = number(&text, "elements_exporter_token_expiry_timestamp_seconds");
        let remaining = expiry - unix_now() as f64;
        assert!((60.0..=86_400.0).contains(&remaining), "{lifetime}: {remaining}");
    }))
    .await;
}

/// Starts a partner with which the client's certificate is registered.
async fn with_certificate(settings: Settings) -> (Partner, Vec<(&'static str, String)>) {
    let partner = start(Settings {
        certificate_pem: Some(fs::read_to_string(fixture("simulator/client.pem")).unwrap()),
        ..settings
    })
    .await;
    let certificate = vec![
        ("ELEMENTS_AUTH__CERTIFICATE_FILE", fixture("simulator/client.pem")),
        ("ELEMENTS_AUTH__PRIVATE_KEY_FILE", fixture("simulator/client-key.pem")),
    ];
    (partner, certificate)
}

fn config_with(base: &str, extra_env: &[(&'static str, String)]) -> elements_exporter::config::Config {
    let mut variables = crate::harness::environment(base, &[("ELEMENTS_API__VERSION", "v3")]);
    variables.retain(|(name, _)| name != "ELEMENTS_AUTH__CLIENT_SECRET");
    variables.extend(extra_env.iter().map(|(name, value)| (name.into(), value.into())));
    config::load(None, variables).unwrap()
}

/// Returns the claims in a token request's assertion.
fn claims(form: &str) -> Value {
    let assertion = field(form, "client_assertion");
    let claims = assertion.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

#[tokio::test]
async fn attempts_have_separate_assertions() {
    let (partner, certificate) = with_certificate(Settings {
        clock: Clock::Wall,
        ..frozen_partner(1)
    })
    .await;
    // After a token request is rejected, its scopes are requested one by one.
    partner
        .handle
        .set_scopes(vec!["elements.customers.read.all".to_owned()]);
    let (text, _) = crate::harness::poll_once(&config_with(&partner.base, &certificate)).await;
    assert_eq!(number(&text, "elements_up"), 1.0, "{text}");
    let requests = partner.handle.requests();
    let forms = requests
        .iter()
        .filter(|request| request.path == TOKEN)
        .map(|request| &request.body);
    let assertion_ids: Vec<String> = forms
        .map(|form| claims(form)["jti"].as_str().unwrap().to_owned())
        .collect();
    let distinct: BTreeSet<_> = assertion_ids.iter().collect();
    assert!(assertion_ids.len() >= 3);
    assert_eq!(
        distinct.len(),
        assertion_ids.len(),
        "an assertion must not be reused; the simulated endpoint rejects that too"
    );
}

#[tokio::test]
async fn clocks_may_differ_by_minutes() {
    // The simulated endpoint tolerates one minute of clock skew. The assertion's validity period
    // covers the remaining skew.
    for ahead in [-110, 0, 240] {
        let (partner, certificate) = with_certificate(Settings {
            clock: Clock::Manual(unix_now() + ahead),
            ..frozen_partner(1)
        })
        .await;
        let (text, _) = crate::harness::poll_once(&config_with(&partner.base, &certificate)).await;
        assert_eq!(number(&text, "elements_up"), 1.0, "{ahead} s ahead");
        let claims = claims(&partner.handle.requests()[0].body);
        let claim = |name: &str| claims[name].as_i64().unwrap();
        assert_eq!((claim("iat") - claim("nbf"), claim("exp") - claim("iat")), (60, 300));
    }
}

#[tokio::test]
async fn clock_skew_is_reported() {
    let far = jiff::Timestamp::from_second(unix_now() + 1800).unwrap();
    let date = far.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let server = ScriptedServer::start(move |_| {
        let mut response = json(400, r#"{"error":"invalid_client"}"#);
        response.headers_mut().insert("date", date.parse().unwrap());
        response
    })
    .await;
    let report = app::check(&config(&server.base, &[])).await.unwrap();
    assert!(!report.passed());
    let report = report.text();
    assert!(
        report.contains("this machine's clock is ") && report.contains(" behind; correct it"),
        "{report}"
    );
    // Up to a second may pass between the two readings of the clock.
    let skewed = ["29m 59s ahead", "30m ahead", "30m 1s ahead"];
    assert!(skewed.iter().any(|skew| report.contains(skew)), "{report}");
    assert!(!report.contains("demo-secret"));
    let synchronized = ScriptedServer::start(|_| json(400, r#"{"error":"invalid_client"}"#)).await;
    let report = app::check(&config(&synchronized.base, &[])).await.unwrap().text();
    assert!(
        report.contains("invalid_client") && !report.contains("ahead"),
        "{report}"
    );
}

#[tokio::test]
async fn key_of_another_certificate_is_a_configuration_error() {
    let (partner, _) = with_certificate(frozen_partner(1)).await;
    let mut variables = super::every_second(&partner.base, &[], &[]);
    variables.retain(|(name, _)| name != "ELEMENTS_AUTH__CLIENT_SECRET");
    super::set(
        &mut variables,
        "ELEMENTS_AUTH__CERTIFICATE_FILE",
        &fixture("credentials/cert.pem"),
    );
    super::set(
        &mut variables,
        "ELEMENTS_AUTH__PRIVATE_KEY_FILE",
        &fixture("credentials/other-key.pem"),
    );
    let output = Program::spawn(variables, &[]).wait().await;
    assert_eq!(output.code, Some(78), "{}", output.stderr);
    assert!(output.stderr.contains("auth.certificate_file"), "{}", output.stderr);
    assert!(partner.handle.requests().is_empty());
}
