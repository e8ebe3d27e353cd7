//! The `check` command.
//!
//! The tests are in one long file, because they share the helpers that run the command.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::process::{Command, Output};

use elements_exporter::simulator::{Fault, FaultKind};
use serde_json::Value;
use tokio::task::block_in_place;

use crate::harness::environment;
use crate::harness::partner::{Partner, frozen_partner, start};

fn check(base: &str, arguments: &[&str], extra_env: &[(&str, &str)]) -> Output {
    Command::new(crate::harness::program::PROGRAM)
        .arg("check")
        .args(arguments)
        .env_clear()
        .envs(environment(base, extra_env))
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}

/// Starts a partner without subscriptions. Some simulated subscriptions have invalid values, which `check` reports.
async fn partner() -> Partner {
    let partner = start(frozen_partner(8)).await;
    partner.handle.with_world(|world| {
        for customer in &mut world.customers {
            customer.products.clear();
        }
    });
    partner
}

fn line<'t>(text: &'t str, prefix: &str) -> &'t str {
    text.lines()
        .find(|line| line.starts_with(prefix))
        .unwrap_or_else(|| panic!("{prefix}: {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reports_hosts_clock_permissions_and_endpoints() {
    let partner = partner().await;
    let output = block_in_place(|| check(&partner.base, &[], &[]));
    let report = text(&output);
    assert_eq!(output.status.code(), Some(0), "{report}");
    let address = partner.base.strip_prefix("http://").unwrap();
    assert!(
        line(&report, &format!("DNS {address}")).contains("127.0.0.1"),
        "{report}"
    );
    assert!(
        line(&report, &format!("HTTP {address}")).contains("responded in "),
        "{report}"
    );
    assert!(
        line(&report, &format!("clock {address}")).contains(" s apart"),
        "{report}"
    );
    for scope in ["customers", "jobs", "cbprotected", "license", "scanprofiles"] {
        let permission = line(&report, &format!("elements.{scope}.read.all"));
        assert!(permission.ends_with("granted"), "{permission}");
    }
    let customers = line(&report, "customers  ");
    let words: Vec<&str> = customers.split_whitespace().collect();
    assert_eq!(words[..4], ["customers", "ok", "8", "1"], "{customers}");
    assert!(report.contains("The intervals fit the limits."), "{report}");
    assert!(report.contains("everything works; requests: "), "{report}");
    assert!(
        !report.contains('\u{1b}'),
        "output to a pipe must not contain colours: {report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_and_json_are_selected_by_the_caller() {
    let partner = partner().await;
    // Collectors that are disabled by default are checked too.
    let optional = elements_exporter::collector::ALL
        .iter()
        .filter(|entry| entry.is_optional);
    let optional = optional.map(|entry| format!("ELEMENTS_COLLECTORS__{}__ENABLED", entry.name.to_uppercase()));
    let optional: Vec<String> = optional.collect();
    let switches = optional.iter().map(|switch| (switch.as_str(), "true"));
    let with = |extra_env: &[(&'static str, &'static str)]| -> Vec<(&str, &str)> {
        switches.clone().chain(extra_env.iter().copied()).collect()
    };
    let (coloured, plain, output) = block_in_place(|| {
        (
            text(&check(&partner.base, &[], &with(&[("CLICOLOR_FORCE", "1")]))),
            text(&check(
                &partner.base,
                &[],
                &with(&[("NO_COLOR", "1"), ("CLICOLOR", "1")]),
            )),
            check(&partner.base, &["--output=json"], &with(&[("CLICOLOR_FORCE", "1")])),
        )
    });
    assert!(coloured.contains("\u{1b}[1m\u{1b}[32mok"), "{coloured:?}");
    assert!(!plain.contains('\u{1b}'));
    assert_eq!(output.status.code(), Some(0));
    let report = json(&output);
    assert_eq!(report["passed"], true);
    assert_eq!(report["api_version"], "v3");
    let collectors = report["collectors"].as_array().unwrap();
    let names: Vec<&str> = collectors
        .iter()
        .map(|finding| finding["name"].as_str().unwrap())
        .collect();
    let expected: Vec<&str> = elements_exporter::collector::ALL
        .iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(names, expected);
    assert!(collectors.iter().all(|finding| finding["outcome"] == "ok"), "{report}");
    assert_eq!(report["customers"], 8);
    let requests: u64 = collectors
        .iter()
        .map(|finding| finding["requests"].as_u64().unwrap())
        .sum();
    let sent = partner
        .handle
        .requests()
        .iter()
        .filter(|request| request.path.starts_with("/partner/"))
        .count();
    assert_eq!(
        3 * requests,
        u64::try_from(sent).unwrap(),
        "every request of the three runs must be counted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_shape_of_an_invalid_value_is_reported() {
    let partner = partner().await;
    partner.handle.with_world(|world| {
        for customer in &mut world.customers {
            customer
                .raw_fields
                .insert("jobStatus".to_owned(), "Verbose secret 42".into());
        }
    });
    partner.handle.set_faults(vec![Fault::new(
        "/partner/*jobs/batch",
        FaultKind::Replace {
            pointer: "/data/0/startTime".to_owned(),
            value: "31.12.2025 at noon".into(),
        },
    )]);
    let output = block_in_place(|| check(&partner.base, &["--output=json"], &[]));
    let report = json(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    let invalid = &report["invalid_values"][0];
    assert_eq!(
        (invalid["endpoint"].as_str(), invalid["field"].as_str()),
        (Some("jobs"), Some("startTime")),
        "{report}"
    );
    assert_eq!(invalid["example"], "99.99.9999 aa aaaa");
    assert_eq!(report["failed"], serde_json::json!(["1 invalid value"]));
    assert_eq!(report["unknown_values"][0]["field"], "jobStatus", "{report}");
    let page = include_str!("../../docs/command-line.md");
    let keys = keys(&report);
    let missing: Vec<&String> = keys.iter().filter(|key| !page.contains(&format!("`{key}`"))).collect();
    assert!(keys.len() > 20 && missing.is_empty(), "not documented: {missing:?}");
}

/// Returns the keys of all objects in a JSON document.
fn keys(document: &Value) -> BTreeSet<String> {
    let names = document.as_object().into_iter().flatten().map(|(key, _)| key.clone());
    let objects = document.as_object().into_iter().flat_map(|object| object.values());
    let values = objects.chain(document.as_array().into_iter().flatten());
    names.chain(values.flat_map(keys)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn intervals_that_exceed_the_limits_are_reported() {
    let partner = partner().await;
    let slow = [
        ("ELEMENTS_API__REQUESTS_PER_SECOND", "50"),
        ("ELEMENTS_COLLECTORS__JOBS__INTERVAL", "1s"),
        ("ELEMENTS_COLLECTORS__PROTECTED__INTERVAL", "1s"),
        ("ELEMENTS_COLLECTORS__SCAN_PROFILES__INTERVAL", "1s"),
        ("ELEMENTS_COLLECTORS__SCAN_CHANGES__INTERVAL", "1s"),
        ("ELEMENTS_COLLECTORS__CUSTOMERS__INTERVAL", "1s"),
        ("ELEMENTS_COLLECTORS__LICENSES__ENABLED", "false"),
    ];
    let (tight, sufficient) = block_in_place(|| {
        let mut tight = slow;
        tight[0].1 = "10";
        (
            check(&partner.base, &[], &tight),
            check(&partner.base, &["--output=json"], &slow[..1]),
        )
    });
    let report = text(&tight);
    assert_eq!(tight.status.code(), Some(1), "{report}");
    let sentence = line(&report, "The intervals do not fit the limits: ");
    assert!(sentence.contains("set api.requests_per_second to "), "{sentence}");
    assert!(
        line(&report, "The first limit reached is ").contains("api.requests_per_second"),
        "{report}"
    );
    assert!(line(&report, "failed: ").starts_with("failed: the intervals; requests: "));
    assert!(line(&report, "licenses").contains(" off "), "{report}");
    assert_eq!(json(&sufficient)["budget"]["suffices"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_responses_exceed_the_concurrency_budget() {
    let partner = partner().await;
    let late = FaultKind::Delay { ms: 1_500 };
    partner.handle.set_faults(vec![Fault::new("/partner/*overview*", late)]);
    let narrow = [
        ("ELEMENTS_API__REQUESTS_PER_SECOND", "1000"),
        ("ELEMENTS_API__MAX_CONCURRENCY", "1"),
        ("ELEMENTS_COLLECTORS__PROTECTED__INTERVAL", "5s"),
    ];
    let output = block_in_place(|| check(&partner.base, &["--output=json"], &narrow));
    let report = json(&output);
    assert_eq!(report["budget"]["binding"], "concurrency", "{report}");
    assert_eq!(report["budget"]["suffices"], false, "{report}");
    assert_eq!(report["failed"], serde_json::json!(["the intervals"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_requested_by_the_api_is_reported_immediately() {
    let partner = partner().await;
    let throttle = FaultKind::Throttle {
        retry_after: Some("1".to_owned()),
        code: 429,
    };
    partner
        .handle
        .set_faults(vec![Fault::new("/partner/*jobs/batch", throttle).times(1)]);
    let output = block_in_place(|| check(&partner.base, &[], &[]));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains(", throttled: 1"));
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(
        printed.contains("throttled (429)") && printed.contains("endpoint=jobs"),
        "{printed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_host_is_reported_with_advice() {
    // No server is listening on this local port.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let output = block_in_place(|| check(&format!("http://{free}"), &[], &[]));
    let report = text(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    let connection = line(&report, &format!("HTTP {free}"));
    assert!(
        connection.contains("failed") && connection.contains("cannot connect") && connection.contains("firewall"),
        "{connection}"
    );
    assert!(
        line(&report, "token  ")
            .ends_with("no complete response from the token endpoint; see the connection checks above"),
        "{report}"
    );
    let proxied = [("ELEMENTS_API__PROXY_URL", format!("http://user:hunter2@{free}"))];
    let proxied = proxied.each_ref().map(|(name, value)| (*name, value.as_str()));
    let output = block_in_place(|| check("https://elements.example.com", &[], &proxied));
    let report = text(&output);
    assert!(line(&report, "proxy").contains(&format!("http://{free}")), "{report}");
    assert!(line(&report, "TLS elements.example.com").contains("failed"), "{report}");
    assert!(!report.contains("hunter2") && !String::from_utf8(output.stderr).unwrap().contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn summary_lists_failures_and_skipped_checks() {
    let partner = partner().await;
    let failing = FaultKind::Status { code: 404, body: None };
    partner
        .handle
        .set_faults(vec![Fault::new("/partner/*customers/batch", failing)]);
    let output = block_in_place(|| check(&partner.base, &[], &[]));
    let report = text(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    let customers = line(&report, "customers  ");
    assert!(customers.contains("status 404; check api.version"), "{customers}");
    for collector in ["jobs", "protected", "scan_profiles", "scan_changes"] {
        let reported = line(&report, &format!("{collector} "));
        assert!(
            reported.contains("skipped")
                && reported.ends_with("customer list not fetched; see the result of the collector `customers`"),
            "{reported}"
        );
    }
    let last = "failed: customers; skipped: jobs, protected, scan_profiles, scan_changes; requests: ";
    assert!(line(&report, "failed: ").starts_with(last), "{report}");

    // If the polls fail, the number of requests per poll is unknown.
    let jobs = Fault::new("/partner/*jobs*", FaultKind::Status { code: 500, body: None });
    partner.handle.set_faults(vec![jobs]);
    let report = text(&block_in_place(|| check(&partner.base, &[], &[])));
    assert!(
        line(&report, "The intervals need").starts_with("The intervals need at least "),
        "{report}"
    );
    assert!(
        report.contains("It is unknown whether the intervals fit the limits: jobs could not be measured."),
        "{report}"
    );

    partner.handle.set_faults(Vec::new());
    let no_customers = [("ELEMENTS_CUSTOMERS__EXCLUDE", "*")];
    let report = text(&block_in_place(|| check(&partner.base, &[], &no_customers)));
    let customers = line(&report, "customers  ");
    assert!(
        customers.contains("8 customers are listed, but customers.include"),
        "{customers}"
    );
    let jobs = line(&report, "jobs ");
    assert!(
        jobs.ends_with("no customer available; see the result of the collector `customers`"),
        "{jobs}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_secret_is_reported_once_with_advice() {
    let partner = partner().await;
    for version in ["auto", "v1", "v3"] {
        let wrong = [
            ("ELEMENTS_AUTH__CLIENT_SECRET", "not-the-secret"),
            ("ELEMENTS_API__VERSION", version),
        ];
        let output = block_in_place(|| check(&partner.base, &[], &wrong));
        let report = text(&output);
        assert_eq!(output.status.code(), Some(1), "{report}");
        assert_eq!(report.matches("rejected the client id").count(), 1, "{report}");
        assert!(
            report.contains("in Elements, Settings > API app registration"),
            "{report}"
        );
        assert!(!report.contains("no token: "), "{report}");
        assert!(
            report.contains("failed: token; no collector was polled; requests: 1"),
            "{report}"
        );
    }
    partner.handle.set_scopes(Vec::new());
    let report = text(&block_in_place(|| check(&partner.base, &[], &[])));
    let reported = "neither elements.customers.read.all (v3) nor partner.customers.read.all (v1) is granted";
    assert!(line(&report, "token  ").ends_with(reported), "{report}");
    assert!(line(&report, "To grant a permission").contains("Settings > API app registration"));
}

#[tokio::test(flavor = "multi_thread")]
async fn report_uses_the_singular_for_one() {
    let partner = start(frozen_partner(1)).await;
    partner.handle.with_world(|world| world.customers[0].products.clear());
    let report = text(&block_in_place(|| check(&partner.base, &[], &[])));
    assert!(line(&report, "customers  ").contains(" 1 customer, "), "{report}");
    assert!(
        line(&report, "The intervals need").contains(" an hour for 1 customer;"),
        "{report}"
    );
    for plural in [" 1 customers", " 1 requests", " 1 samples"] {
        assert!(!report.contains(plural), "{plural}: {report}");
    }
}

/// Starts a proxy that sends the same response to every client until the tests end.
fn proxy(response: &'static str) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = Vec::new();
            let mut buffer = [0; 1024];
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(read) if read > 0 => head.extend_from_slice(&buffer[..read]),
                    _ => break,
                }
            }
            // The client may have disconnected.
            let _ = stream.write_all(response.as_bytes());
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_proxy_is_reported_with_its_problem() {
    let unused_address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for (proxy, expected) in [
        (
            proxy("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"),
            "cannot connect through the proxy: it requires a user name and a password; check the address",
        ),
        (
            proxy("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
            "cannot connect through the proxy: it refuses to connect to this host; check the address",
        ),
        (
            format!("http://{unused_address}"),
            "cannot connect through the proxy: Connection refused (os error 111); check the address",
        ),
        (
            "http://proxy.invalid:3128".to_owned(),
            "cannot resolve proxy.invalid:3128",
        ),
    ] {
        let proxied = [("ELEMENTS_API__PROXY_URL", proxy.as_str())];
        let report = text(&block_in_place(|| check("https://elements.example.com", &[], &proxied)));
        assert!(line(&report, "TLS elements.example.com").contains(expected), "{report}");
        assert!(!report.contains("api.proxy_url may need to be set"), "{report}");
        assert!(
            !report.contains("client error"),
            "library messages must not appear: {report}"
        );
        assert!(
            line(&report, "token  ")
                .ends_with("no complete response from the token endpoint; see the connection checks above"),
            "{report}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unmatched_pattern_is_reported_with_the_nearest_name() {
    let partner = partner().await;
    let name = partner
        .handle
        .with_world(|world| world.customers[0].organization.clone());
    let mistyped = format!("{}*", name.replacen(|letter: char| letter.is_lowercase(), "", 1));
    let include = format!("[\"{name}\", \"{mistyped}\"]");
    let overrides = format!("[{{customer: \"{name}\", rpo: 1h}}, {{customer: \"*zzz\", rpo: 1h}}]");
    let extra_env = [
        ("ELEMENTS_CUSTOMERS__INCLUDE", include.as_str()),
        ("ELEMENTS_RPO__OVERRIDES", overrides.as_str()),
    ];
    let output = block_in_place(|| check(&partner.base, &[], &extra_env));
    let report = text(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    let include = line(&report, "customers.include[1]");
    assert!(
        include.contains(&mistyped) && include.contains(&format!("nearest: {name:?}")),
        "{report}"
    );
    assert!(
        line(&report, "rpo.overrides[1].customer").contains("no similar name"),
        "{report}"
    );
    assert!(
        !report.contains("customers.include[0]") && !report.contains("rpo.overrides[0]"),
        "{report}"
    );
    assert!(
        report.contains("failed: customers.include[1], rpo.overrides[1].customer"),
        "{report}"
    );
    let output = block_in_place(|| check(&partner.base, &["--output=json"], &extra_env));
    assert_eq!(json(&output)["patterns"][0]["result"], "matches nothing");
}

/// Runs the offline check, and asserts that it opens no connection to the API, the token endpoint or the proxy.
fn offline(yaml: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("elements.yml");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let api = format!("api: {{base_url: '{base}', token_url: '{base}/token', proxy_url: '{base}'}}\n");
    std::fs::write(&file, format!("{api}{yaml}")).unwrap();
    let output = Command::new(crate::harness::program::PROGRAM)
        .args(["check", "--offline"])
        .arg(format!("--config.file={}", file.display()))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    // A connection would be waiting in the listener's queue.
    listener.set_nonblocking(true).unwrap();
    let connected = listener.accept().map(|(_, from)| from);
    assert_eq!(connected.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    output
}

#[test]
fn offline_check_reads_files_and_sends_nothing() {
    let fixture = |name: &str| crate::harness::program::fixture(&format!("credentials/{name}"));
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(at("secret"), "s3cret").unwrap();
    std::fs::write(at("attributes.csv"), "customer,tier\nContoso,gold\n,bronze\n").unwrap();
    let valid = format!(
        "auth: {{client_id: a, client_secret_file: '{}'}}\nstate: {{file: '{}'}}\nrpo: {{overrides: [{{module: 'Exchange*', rpo: 4h}}]}}\n",
        at("secret"),
        at("state")
    );
    let output = offline(&valid, &[], &[]);
    let report = text(&output);
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert!(line(&report, "auth.client_secret_file").contains("valid"), "{report}");
    assert!(
        line(&report, "the configuration is valid").contains("requests: 0"),
        "{report}"
    );
    assert!(
        !std::path::Path::new(&at("state")).exists(),
        "the check must not create the state file"
    );
    assert_eq!(
        json(&offline(&valid, &["--output=json"], &[]))["passed"],
        Value::Bool(true)
    );

    // Each of these problems is reported with its configuration key or file, and the exit code is 78.
    let certificate = format!(
        "auth: {{client_id: a, certificate_file: '{}', private_key_file: '{}'}}\n",
        fixture("cert.pem"),
        fixture("other-key.pem")
    );
    let web = format!("--web.config.file={}", at("missing.yml"));
    for (yaml, argument, key) in [
        (
            valid.replace("/secret'", "/absent'"),
            "--output=text",
            "auth.client_secret_file",
        ),
        (certificate, "--output=text", "auth.certificate_file"),
        (valid.replace("/state'", "/secret'"), "--output=text", "state.file"),
        (valid.replace("rpo:", "rpos:"), "--output=text", "rpos"),
        (valid.replace("4h", "soon"), "--output=text", "rpo.overrides[0].rpo"),
        (
            valid.replace("Exchange*", "{Exchange"),
            "--output=text",
            "rpo.overrides[0].module",
        ),
        (valid.clone(), web.as_str(), "missing.yml"),
        (
            format!("{valid}customers: {{attributes_file: '{}'}}\n", at("attributes.csv")),
            "--output=text",
            "attributes.csv:3",
        ),
    ] {
        let output = offline(&yaml, &[argument], &[]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{yaml}: {error}");
        assert!(error.contains(key), "{key}: {error}");
    }
}

#[test]
fn offline_check_finds_unmatched_patterns_and_expired_secrets() {
    let yaml = "auth: {client_id: a, client_secret_expires: 2020-01-31}\n\
                customers: {include: [Contoso]}\nrpo: {overrides: [{module: Exchange Onlin, customer: x, rpo: 4h}]}\n\
                metrics: {exclude: [elements_up, no_such_*]}\n";
    let secret = [("ELEMENTS_AUTH__CLIENT_SECRET", "x")];
    let output = offline(yaml, &[], &secret);
    let report = text(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert!(
        line(&report, "rpo.overrides[0].module").contains("Exchange Online"),
        "{report}"
    );
    assert!(
        line(&report, "auth.client_secret_expires").contains("expired"),
        "{report}"
    );
    let expected = "failed: auth.client_secret_expires, rpo.overrides[0].module, metrics.exclude; requests: 0";
    assert_eq!(
        line(&report, "failed: "),
        expected,
        "patterns for customers must not be checked offline"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn collector_without_requests_is_reported_as_not_needed() {
    let partner = partner().await;
    partner.handle.with_world(|world| {
        for customer in &mut world.customers {
            customer.modules.clear();
        }
    });
    let on = [("ELEMENTS_COLLECTORS__JOB_REPORTS__ENABLED", "true")];
    let report = json(&block_in_place(|| check(&partner.base, &["--output=json"], &on)));
    let collectors = report["collectors"].as_array().unwrap();
    let found = collectors
        .iter()
        .find(|finding| finding["name"] == "job_reports")
        .unwrap();
    assert_eq!(found["result"], "not needed");
    assert_eq!((&found["requests"], &found["outcome"]), (&0.into(), &"ok".into()));
    assert_eq!(report["passed"], true);
}
