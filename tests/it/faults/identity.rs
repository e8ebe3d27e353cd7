//! Tokens that cannot be had, or end, or are refused.

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
use elements_exporter::health::Health;
use elements_exporter::simulator::{Clock, Fault, FaultKind, Settings};
use futures_util::future::join_all;
use serde_json::Value;

use super::program::{Program, fixture};
use super::scripted::{Scripted, json};
use super::{Exporter, Failing, JOBS_V3, TOKEN, errors, holds, ids, number, state, success, sum};
use crate::canned::Canned;
use crate::support::{config, eventually, value};
use crate::world::{Partner, start, still};

const TIMEOUT: Duration = Duration::from_secs(5);

fn token_failures(reason: &str) -> String {
    format!("elements_exporter_token_failures_total{{reason=\"{reason}\"}}")
}

fn unix_now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// The failure of the customer list for want of a token.
const NO_TOKEN: Failing<'_> = Failing {
    collector: "customers",
    id: "",
    endpoint: "token",
    reason: "auth",
};

const LIST_WITHOUT_TOKEN: Failing<'_> = Failing {
    endpoint: "customers",
    ..NO_TOKEN
};

#[tokio::test]
async fn a_refused_client_holds_and_waits_until_the_secret_file_changes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    fs::write(&file, "demo-secret\n").unwrap();
    let partner = start(still(2)).await;
    let exporter = with_secret_file(&partner, &file).await;
    let after = holds(&exporter, LIST_WITHOUT_TOKEN, "invalid_client", async || {
        partner.handle.set_secret("another-secret".to_owned());
        partner.handle.revoke_tokens();
    })
    .await;
    assert_eq!(number(&after, "elements_up"), 0.0);
    let asked = partner.handle.token_requests();
    let failed = number(&after, &token_failures("invalid_client"));
    assert_eq!(failed, 1.0, "one attempt however many polls want a token");
    exporter
        .until("further polls fail", |text| {
            value(text, &errors("jobs", "auth")) > value(&after, &errors("jobs", "auth"))
        })
        .await;
    assert_eq!(
        partner.handle.token_requests(),
        asked,
        "nothing is asked during the pause"
    );
    // The pause is a minute at least, so that it is the change that makes the difference.
    fs::write(&file, "another-secret\n").unwrap();
    let recovered = exporter.settled().await;
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
async fn a_rotated_secret_is_used_at_the_next_refresh() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    fs::write(&file, "demo-secret\n").unwrap();
    let partner = start(still(2)).await;
    let exporter = with_secret_file(&partner, &file).await;
    exporter.settled().await;
    fs::write(&file, "rotated\n").unwrap();
    partner.handle.set_secret("rotated".to_owned());
    let asked = partner.handle.token_requests();
    partner.handle.revoke_tokens();
    eventually("a refresh", || async {
        (partner.handle.token_requests() > asked).then_some(())
    })
    .await;
    let text = exporter.settled().await;
    assert_eq!(sum(&text, "elements_exporter_token_failures_total"), 0.0);
    assert_eq!(sum(&text, "elements_exporter_api_errors_total"), 0.0);
}

#[tokio::test]
async fn a_scope_that_is_not_granted_costs_its_collector_alone() {
    let partner = start(still(2)).await;
    let kept = ["customers", "license", "cbprotected", "scanprofiles"];
    partner
        .handle
        .set_scopes(kept.map(|name| format!("elements.{name}.read.all")).into());
    let (text, good) = super::polled_once(&config(&partner.base, &[("ELEMENTS_API__VERSION", "v3")])).await;
    assert!(good, "what is not permitted is no failure: {text}");
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
async fn the_scope_that_is_not_granted_is_named() {
    let partner = start(still(1)).await;
    partner
        .handle
        .set_scopes(vec!["elements.customers.read.all".to_owned()]);
    let program = Program::watching(&partner.base, &["jobs"], &[]).await;
    program
        .until_metrics("jobs are off", |text| {
            value(text, "elements_exporter_collector_permitted{collector=\"jobs\"}") == Some(0.0)
        })
        .await;
    let output = program.terminate().await;
    let told: Vec<_> = output
        .stderr
        .lines()
        .filter(|line| line.contains("elements.jobs.read.all"))
        .collect();
    assert_eq!(told.len(), 1, "once: {}", output.stderr);
    assert!(told[0].contains("collector=jobs"), "{}", told[0]);
}

/// Scopes as long as those of the real API, and more of them than go into one request.
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
async fn a_scope_string_past_its_limit_is_split() {
    let partner = start(Settings {
        scopes: MANY_SCOPES.map(ToOwned::to_owned).into(),
        ..still(1)
    })
    .await;
    let tokens = tokens(&partner.base, &MANY_SCOPES);
    for scope in MANY_SCOPES {
        tokens.token(scope).await.unwrap();
        assert_eq!(tokens.permitted(scope), Some(true), "{scope}");
    }
    let asked: Vec<String> = partner
        .handle
        .requests()
        .iter()
        .map(|request| field(&request.body, "scope"))
        .collect();
    assert!(asked.iter().all(|scopes| scopes.chars().count() <= 300), "{asked:?}");
    assert!(
        (2..=4).contains(&asked.len()),
        "few requests for all of them: {asked:?}"
    );
}

/// A field of a form.
fn field(form: &str, name: &str) -> String {
    let mut pairs = url::form_urlencoded::parse(form.as_bytes());
    pairs.find(|(key, _)| key == name).unwrap().1.into_owned()
}

#[tokio::test]
async fn a_hundred_that_wait_for_a_token_share_one_request() {
    const SCOPE: &str = "elements.jobs.read.all";
    let partner = start(still(1)).await;
    let tokens = tokens(&partner.base, &[SCOPE]);
    let hundred = || join_all((0..100).map(|_| tokens.token(SCOPE)));
    let all: Vec<_> = hundred().await.into_iter().map(Result::unwrap).collect();
    assert_eq!(partner.handle.token_requests(), 1);
    // All of them are refused by the API at once, and each says so.
    for token in &all {
        tokens.reject(token);
    }
    assert!(hundred().await.into_iter().all(|token| token.is_ok()));
    assert_eq!(partner.handle.token_requests(), 2);
}

#[tokio::test]
async fn polls_go_on_over_the_end_of_a_token() {
    let partner = start(Settings {
        clock: Clock::Wall,
        token_lifetime: Duration::from_secs(2),
        ..still(20)
    })
    .await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    exporter.settled().await;
    eventually("three tokens", || async {
        (partner.handle.token_requests() >= 3).then_some(())
    })
    .await;
    let text = exporter.settled().await;
    assert_eq!(sum(&text, "elements_exporter_api_errors_total"), 0.0);
    assert!(
        partner.handle.token_requests() <= 5,
        "twenty polls a second share each token: {}",
        partner.handle.token_requests()
    );
}

#[tokio::test]
async fn a_revoked_token_costs_one_refresh_and_no_poll() {
    let partner = start(still(20)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    exporter.settled().await;
    let asked = partner.handle.token_requests();
    partner.handle.clear_requests();
    partner.handle.revoke_tokens();
    let refused = |request: &&elements_exporter::simulator::Request| request.status == 401;
    eventually("a round after it", || async {
        let requests = partner.handle.requests();
        let since = requests
            .iter()
            .rev()
            .take_while(|request| request.status == 200)
            .count();
        (requests.iter().any(|request| refused(&request)) && since > 60).then_some(())
    })
    .await;
    let text = exporter.metrics().await;
    assert_eq!(sum(&text, "elements_exporter_api_errors_total"), 0.0);
    assert_eq!(partner.handle.token_requests(), asked + 1);
}

#[tokio::test]
async fn a_refusal_that_stays_is_repeated_once() {
    let partner = start(still(1)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    let id = &ids(&partner)[0];
    let failing = Failing {
        collector: "jobs",
        id,
        endpoint: "jobs",
        reason: "unauthorized",
    };
    partner.handle.clear_requests();
    let after = holds(&exporter, failing, "401", async || {
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
    assert!(attempts <= 2.0 * polls + 2.0, "{attempts} attempts of {polls} polls");
}

#[tokio::test]
async fn a_token_endpoint_that_asks_for_no_pause_is_not_asked_without_one() {
    let waits = ["0", "Sun, 06 Nov 1994 08:49:37 GMT"];
    join_all(waits.map(|wait| async move {
        let partner = start(still(2)).await;
        let throttle = FaultKind::Throttle {
            retry_after: Some(wait.to_owned()),
            code: 429,
        };
        partner.handle.set_faults(vec![Fault::new(TOKEN, throttle)]);
        let _exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
        let asked = eventually("a third attempt", || async {
            Some(partner.handle.requests()).filter(|asked| asked.len() >= 3)
        })
        .await;
        // The pause is two seconds, and then four.
        assert!(asked[2].at - asked[0].at >= Duration::from_millis(5_900), "{wait}");
    }))
    .await;
}

#[tokio::test]
async fn a_token_endpoint_that_errs_is_no_empty_list() {
    let html = "<html><body>Service Unavailable</body></html>";
    let page = |code| FaultKind::Status {
        code,
        body: Some(html.to_owned()),
    };
    let wrong = |body: &str| FaultKind::WrongBody {
        content_type: "application/json".to_owned(),
        body: body.to_owned(),
    };
    let cases = [
        ("503", page(503), "server_error"),
        ("500", page(500), "server_error"),
        ("400 of a proxy", page(400), "unexpected_status"),
        ("404", page(404), "unexpected_status"),
        ("200 with a page", wrong(html), "decode"),
        ("200 without a token", wrong("{}"), "decode"),
        (
            "an empty token",
            wrong(r#"{"access_token":"","expires_in":3600}"#),
            "decode",
        ),
        ("reset", FaultKind::Reset, "interrupted"),
        ("silence", FaultKind::Hang, "timeout"),
    ];
    join_all(cases.map(|(name, kind, reason)| async move {
        let partner = start(still(2)).await;
        let exporter = Exporter::start(&partner.base, &["jobs"], &[("ELEMENTS_API__TIMEOUT", "1s")]).await;
        let after = holds(&exporter, LIST_WITHOUT_TOKEN, name, async || {
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
async fn nonsense_about_the_life_of_a_token_makes_no_refresh_loop() {
    let lives = [
        "",
        r#","expires_in":0"#,
        r#","expires_in":-5"#,
        r#","expires_in":"3600""#,
        r#","expires_in":"soon""#,
        r#","expires_in":null"#,
        r#","expires_in":1e300"#,
        r#","expires_in":{}"#,
    ];
    join_all(lives.map(|life| async move {
        let canned = Canned::start(&[
            (
                "POST /connect/token",
                &format!(r#"{{"access_token":"canned-token","token_type":"Bearer"{life}}}"#),
            ),
            (
                "GET /partner/customers",
                r#"{"value":[{"id":"c-1","organization":"One"}]}"#,
            ),
            ("GET /partner/customers/c-1/jobs", r#"{"value":[]}"#),
        ])
        .await;
        let exporter = Exporter::start(&canned.base, &["jobs"], &[("ELEMENTS_API__VERSION", "v1")]).await;
        eventually("a few rounds", || async { (canned.seen().len() >= 6).then_some(()) }).await;
        let text = exporter.settled().await;
        assert_eq!(canned.token_requests().len(), 1, "{life}");
        let expiry = number(&text, "elements_exporter_token_expiry_timestamp_seconds");
        let life_left = expiry - unix_now() as f64;
        assert!((60.0..=86_400.0).contains(&life_left), "{life}: {life_left}");
    }))
    .await;
}

/// A partner that knows the client by its certificate, and by what the settings say more.
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

fn config_with(base: &str, more: &[(&'static str, String)]) -> elements_exporter::config::Config {
    let mut variables = crate::support::environment(base, &[("ELEMENTS_API__VERSION", "v3")]);
    variables.retain(|(name, _)| name != "ELEMENTS_AUTH__CLIENT_SECRET");
    variables.extend(more.iter().map(|(name, value)| (name.into(), value.into())));
    app::load_config(None, variables).unwrap()
}

/// What the assertion in a request for a token claims.
fn claims(form: &str) -> Value {
    let assertion = field(form, "client_assertion");
    let claims = assertion.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

#[tokio::test]
async fn every_attempt_has_an_assertion_of_its_own() {
    let (partner, certificate) = with_certificate(Settings {
        clock: Clock::Wall,
        ..still(1)
    })
    .await;
    // What is refused for its scopes is asked for again, one scope at a time.
    partner
        .handle
        .set_scopes(vec!["elements.customers.read.all".to_owned()]);
    let (text, _) = super::polled_once(&config_with(&partner.base, &certificate)).await;
    assert_eq!(number(&text, "elements_up"), 1.0, "{text}");
    let requests = partner.handle.requests();
    let forms = requests
        .iter()
        .filter(|request| request.path == TOKEN)
        .map(|request| &request.body);
    let all: Vec<String> = forms
        .map(|form| claims(form)["jti"].as_str().unwrap().to_owned())
        .collect();
    let distinct: BTreeSet<_> = all.iter().collect();
    assert!(all.len() >= 3);
    assert_eq!(
        distinct.len(),
        all.len(),
        "the simulated endpoint refuses a second use, too"
    );
}

#[tokio::test]
async fn clocks_may_differ_by_minutes() {
    // The simulated endpoint tolerates a minute by itself; the rest is up to the assertion.
    for ahead in [-110, 0, 240] {
        let (partner, certificate) = with_certificate(Settings {
            clock: Clock::Manual(unix_now() + ahead),
            ..still(1)
        })
        .await;
        let (text, _) = super::polled_once(&config_with(&partner.base, &certificate)).await;
        assert_eq!(number(&text, "elements_up"), 1.0, "{ahead} s ahead");
        let claims = claims(&partner.handle.requests()[0].body);
        let claim = |name: &str| claims[name].as_i64().unwrap();
        assert_eq!((claim("iat") - claim("nbf"), claim("exp") - claim("iat")), (60, 300));
    }
}

#[tokio::test]
async fn a_clock_that_is_far_off_is_named() {
    let far = jiff::Timestamp::from_second(unix_now() + 1800).unwrap();
    let date = far.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let server = Scripted::start(move |_| {
        let mut refusal = json(400, r#"{"error":"invalid_client"}"#);
        refusal.headers_mut().insert("date", date.parse().unwrap());
        refusal
    })
    .await;
    let report = app::check(&config(&server.base, &[])).await.unwrap();
    assert!(!report.is_good());
    let report = report.text();
    assert!(
        report.contains("this machine is ") && report.contains(" behind; set its clock"),
        "{report}"
    );
    // A second may pass between the two clocks.
    let skewed = ["29m 59s ahead", "30m ahead", "30m 1s ahead"];
    assert!(skewed.iter().any(|skew| report.contains(skew)), "{report}");
    assert!(!report.contains("demo-secret"));
    let honest = Scripted::start(|_| json(400, r#"{"error":"invalid_client"}"#)).await;
    let report = app::check(&config(&honest.base, &[])).await.unwrap().text();
    assert!(
        report.contains("invalid_client") && !report.contains("ahead"),
        "{report}"
    );
}

#[tokio::test]
async fn a_key_that_is_not_the_certificates_is_bad_configuration() {
    let (partner, _) = with_certificate(still(1)).await;
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
    let output = Program::spawn(variables, &[]).ended().await;
    assert_eq!(output.code, Some(78), "{}", output.stderr);
    assert!(output.stderr.contains("auth.certificate_file"), "{}", output.stderr);
    assert!(partner.handle.requests().is_empty());
}
