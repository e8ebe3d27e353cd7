//! `check`, as a support engineer runs it.

use std::io::{Read as _, Write as _};
use std::process::{Command, Output};

use elements_exporter::simulator::{Fault, FaultKind};
use serde_json::Value;
use tokio::task::block_in_place;

use crate::support::environment;
use crate::world::{Partner, start, still};

fn check(base: &str, arguments: &[&str], more: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_elements_exporter"))
        .arg("check")
        .args(arguments)
        .env_clear()
        .envs(environment(base, more))
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}

/// A partner whose first customer has nothing that cannot be understood.
async fn partner() -> Partner {
    let partner = start(still(8)).await;
    partner.handle.with_world(|world| {
        for customer in &mut world.customers {
            customer.products.clear();
        }
    });
    partner
}

fn line<'t>(text: &'t str, begins: &str) -> &'t str {
    text.lines()
        .find(|line| line.starts_with(begins))
        .unwrap_or_else(|| panic!("{begins}: {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_of_the_way_the_clock_each_permission_and_each_endpoint() {
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
        line(&report, &format!("HTTP {address}")).contains("answered "),
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
    assert!(report.contains("They can be kept."), "{report}");
    assert!(report.contains("everything works; requests: "), "{report}");
    assert!(!report.contains('\u{1b}'), "no colours in a pipe: {report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_are_for_terminals_and_json_for_programs() {
    let partner = partner().await;
    let (coloured, plain, output) = block_in_place(|| {
        (
            text(&check(&partner.base, &[], &[("CLICOLOR_FORCE", "1")])),
            text(&check(&partner.base, &[], &[("NO_COLOR", "1"), ("CLICOLOR", "1")])),
            check(&partner.base, &["--output=json"], &[("CLICOLOR_FORCE", "1")]),
        )
    });
    assert!(coloured.contains("\u{1b}[1m\u{1b}[32mok"), "{coloured:?}");
    assert!(!plain.contains('\u{1b}'));
    assert_eq!(output.status.code(), Some(0));
    let report = json(&output);
    assert_eq!(report["good"], true);
    assert_eq!(report["generation"], "v3");
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
    let seen = partner
        .handle
        .requests()
        .iter()
        .filter(|request| request.path.starts_with("/partner/"))
        .count();
    assert_eq!(
        3 * requests,
        u64::try_from(seen).unwrap(),
        "every request of each of the three runs is counted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_understood_is_shown_by_its_shape_alone() {
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
    let odd = &report["not_understood"][0];
    assert_eq!(
        (odd["endpoint"].as_str(), odd["field"].as_str()),
        (Some("jobs"), Some("startTime")),
        "{report}"
    );
    assert_eq!(odd["example"], "99.99.9999 aa aaaa");
    assert_eq!(report["fell_short"], serde_json::json!(["1 value not understood"]));
    assert_eq!(report["not_in_the_reference"][0]["field"], "jobStatus", "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn intervals_that_cannot_be_kept_fall_short() {
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
    let (tight, roomy) = block_in_place(|| {
        let mut tight = slow;
        tight[0].1 = "10";
        (
            check(&partner.base, &[], &tight),
            check(&partner.base, &["--output=json"], &slow[..1]),
        )
    });
    let report = text(&tight);
    assert_eq!(tight.status.code(), Some(1), "{report}");
    let sentence = line(&report, "They cannot be kept: ");
    assert!(sentence.contains("requests a second would be needed"), "{sentence}");
    assert!(line(&report, "fell short: ").starts_with("fell short: the intervals; requests: "));
    assert!(line(&report, "licenses").contains(" off "), "{report}");
    assert_eq!(json(&roomy)["budget"]["suffices"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_the_api_asks_for_is_said_at_once() {
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
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("the API asks for a pause (429)") && said.contains("endpoint=jobs"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_there_is_named_with_what_to_look_at() {
    // A port of our own that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let output = block_in_place(|| check(&format!("http://{free}"), &[], &[]));
    let report = text(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    let way = line(&report, &format!("HTTP {free}"));
    assert!(
        way.contains("failed") && way.contains("cannot connect") && way.contains("firewall"),
        "{way}"
    );
    assert!(
        line(&report, "token  ").ends_with("the token endpoint cannot be reached; see the connection above"),
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
async fn what_follows_from_a_failure_says_so_and_the_last_line_names_what_fell_short() {
    let partner = partner().await;
    let failing = FaultKind::Status { code: 404, body: None };
    partner
        .handle
        .set_faults(vec![Fault::new("/partner/*customers/batch", failing)]);
    let output = block_in_place(|| check(&partner.base, &[], &[]));
    let report = text(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    let customers = line(&report, "customers  ");
    assert!(customers.contains("status 404; see api.version"), "{customers}");
    for collector in ["jobs", "protected", "scan_profiles", "scan_changes"] {
        let told = line(&report, &format!("{collector} "));
        assert!(
            told.contains("not tried") && told.ends_with("no customer is known, because customers failed"),
            "{told}"
        );
    }
    let last = "fell short: customers; not tried: jobs, protected, scan_profiles, scan_changes; requests: ";
    assert!(line(&report, "fell short").starts_with(last), "{report}");

    // What was not answered costs nobody knows what.
    let jobs = Fault::new("/partner/*jobs*", FaultKind::Status { code: 500, body: None });
    partner.handle.set_faults(vec![jobs]);
    let report = text(&block_in_place(|| check(&partner.base, &[], &[])));
    assert!(
        line(&report, "The intervals need").starts_with("The intervals need at least "),
        "{report}"
    );
    assert!(report.contains("is not known: jobs could not be measured."), "{report}");

    partner.handle.set_faults(Vec::new());
    let nobody = [("ELEMENTS_CUSTOMERS__EXCLUDE", "*")];
    let report = text(&block_in_place(|| check(&partner.base, &[], &nobody)));
    let customers = line(&report, "customers  ");
    assert!(
        customers.contains("8 customers are listed, and customers.include"),
        "{customers}"
    );
    let jobs = line(&report, "jobs ");
    assert!(
        jobs.ends_with("there is no customer to try it with, see customers"),
        "{jobs}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_refused_is_told_once_and_so_is_where_to_look() {
    let partner = partner().await;
    for version in ["auto", "v1", "v3"] {
        let wrong = [
            ("ELEMENTS_AUTH__CLIENT_SECRET", "not-the-secret"),
            ("ELEMENTS_API__VERSION", version),
        ];
        let output = block_in_place(|| check(&partner.base, &[], &wrong));
        let report = text(&output);
        assert_eq!(output.status.code(), Some(1), "{report}");
        assert_eq!(report.matches("refused the client id").count(), 1, "{report}");
        assert!(
            report.contains("in Elements, Settings > API app registration"),
            "{report}"
        );
        assert!(!report.contains("no token: "), "{report}");
        assert!(
            report.contains("fell short: token; no collector was tried; requests: 1"),
            "{report}"
        );
    }
    partner.handle.set_scopes(Vec::new());
    let report = text(&block_in_place(|| check(&partner.base, &[], &[])));
    let told =
        "neither elements.customers.read.all nor, of the first generation, partner.customers.read.all is granted";
    assert!(line(&report, "token  ").ends_with(told), "{report}");
    assert!(line(&report, "To grant a permission").contains("Settings > API app registration"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_no_plural() {
    let partner = start(still(1)).await;
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

/// A proxy that says the same to whoever comes, for as long as the tests run.
fn proxy(says: &'static str) -> String {
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
            // Whoever has gone does not hear it.
            let _ = stream.write_all(says.as_bytes());
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_in_the_way_is_named_for_what_it_does() {
    let nobody_listens = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for (proxy, expected) in [
        (
            proxy("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"),
            "no connection through the proxy: it asks for a user name and a password; look at address",
        ),
        (
            proxy("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
            "no connection through the proxy: it refuses to connect to this host; look at address",
        ),
        (
            format!("http://{nobody_listens}"),
            "no connection through the proxy: Connection refused (os error 111); look at address",
        ),
        (
            "http://proxy.invalid:3128".to_owned(),
            "proxy.invalid:3128 has no address",
        ),
    ] {
        let proxied = [("ELEMENTS_API__PROXY_URL", proxy.as_str())];
        let report = text(&block_in_place(|| check("https://elements.example.com", &[], &proxied)));
        assert!(line(&report, "TLS elements.example.com").contains(expected), "{report}");
        assert!(!report.contains("api.proxy_url is not set"), "{report}");
        assert!(
            !report.contains("client error"),
            "the library's layers say nothing: {report}"
        );
        assert!(
            line(&report, "token  ").ends_with("the token endpoint cannot be reached; see the connection above"),
            "{report}"
        );
    }
}
