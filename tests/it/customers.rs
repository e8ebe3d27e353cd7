//! Customer lists: completeness, filters, missing names and tenants.
//!
//! The tests are in one long file, because they share the helpers for customer lists.

use std::collections::BTreeMap;

use elements_exporter::simulator::{Fault, FaultKind};

use crate::harness::canned::CannedServer;
use crate::harness::partner::{frozen_partner, start};
use crate::harness::program::Program;
use crate::harness::{config, poll_once, samples, value};

const A: &str = "aaaaaaaa-0000-4000-8000-000000000001";
const B: &str = "bbbbbbbb-0000-4000-8000-000000000002";

fn customer(id: &str, name: &str) -> String {
    format!(r#"{{"id":"{id}","organization":"{name}","jobStatus":"Working"}}"#)
}

fn services(ids: &[&str]) -> String {
    let row = |id: &&str| format!(r#"{{"customerId":"{id}","products":[{{"service":"S","purchasedUserSeats":"5"}}]}}"#);
    let rows: Vec<String> = ids.iter().map(row).collect();
    format!(r#"{{"value":[{}]}}"#, rows.join(","))
}

/// Returns settings for API v1 in which only the collectors `customers`, `jobs` and `licenses` are enabled.
fn v1_settings<'a>(overrides: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut settings = vec![
        ("ELEMENTS_API__VERSION", "v1"),
        ("ELEMENTS_COLLECTORS__PROTECTED__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__SCAN_PROFILES__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__SCAN_CHANGES__ENABLED", "false"),
    ];
    settings.extend_from_slice(overrides);
    settings
}

async fn canned_api(responses: &[(String, String)]) -> CannedServer {
    let canned = CannedServer::start(&[]).await;
    for (line, body) in responses {
        canned.set(line, 200, body);
    }
    canned
}

fn jobs_of(id: &str) -> (String, String) {
    (
        format!("GET /partner/customers/{id}/jobs"),
        r#"{"value":[]}"#.to_owned(),
    )
}

#[tokio::test]
async fn licences_are_polled_after_the_customer_list() {
    let list = format!(r#"{{"value":[{},{}]}}"#, customer(A, "One"), customer(B, "Two"));
    let canned = canned_api(&[
        ("GET /partner/customers".to_owned(), list),
        ("GET /partner/services".to_owned(), services(&[A, B])),
        jobs_of(A),
        jobs_of(B),
    ])
    .await;
    for _ in 0..5 {
        let (text, succeeded) = poll_once(&config(&canned.base, &v1_settings(&[]))).await;
        assert!(succeeded, "{text}");
        assert_eq!(samples(&text, "elements_license_purchased_seats").lines().count(), 2);
    }
}

#[tokio::test]
async fn excluded_customer_is_not_exported() {
    let include = format!("{A},{B}");
    let responses = [
        (format!("GET /partner/customers/{A}"), customer(A, "One")),
        (format!("GET /partner/customers/{B}"), customer(B, "Two")),
        (format!("GET /partner/services/{A}"), services(&[A])),
        (format!("GET /partner/services/{B}"), services(&[B])),
        jobs_of(A),
        jobs_of(B),
    ];
    for excluded in [B, "Tw*"] {
        let canned = canned_api(&responses).await;
        let filters = [
            ("ELEMENTS_CUSTOMERS__INCLUDE", include.as_str()),
            ("ELEMENTS_CUSTOMERS__EXCLUDE", excluded),
        ];
        let (text, succeeded) = poll_once(&config(&canned.base, &v1_settings(&filters))).await;
        assert!(succeeded, "{text}");
        assert!(!text.contains(B), "{text}");
        assert_eq!(samples(&text, "elements_license_purchased_seats").lines().count(), 1);
        let requested = canned
            .requests()
            .into_iter()
            .filter(|request| request.line.contains(B))
            .count();
        assert_eq!(
            requested,
            usize::from(excluded != B),
            "the customer must be requested only if its name is needed"
        );
    }
}

#[tokio::test]
async fn exporter_is_not_up_if_all_requests_are_forbidden() {
    let canned = canned_api(&[]).await;
    for status in [403, 404] {
        canned.set(&format!("GET /partner/customers/{A}"), status, "{}");
        let (text, succeeded) = poll_once(&config(
            &canned.base,
            &v1_settings(&[("ELEMENTS_CUSTOMERS__INCLUDE", A)]),
        ))
        .await;
        assert!(!succeeded);
        assert_eq!(value(&text, "elements_up"), Some(0.0), "{status}");
    }
}

#[tokio::test]
async fn id_in_another_case_is_the_same_customer() {
    let canned = canned_api(&[
        (
            format!("GET /partner/customers/{A}"),
            customer(&A.to_uppercase(), "One"),
        ),
        (format!("GET /partner/services/{A}"), services(&[&A.to_uppercase()])),
        jobs_of(A),
    ])
    .await;
    let (text, succeeded) = poll_once(&config(
        &canned.base,
        &v1_settings(&[("ELEMENTS_CUSTOMERS__INCLUDE", A)]),
    ))
    .await;
    assert!(succeeded, "{text}");
    assert_eq!(samples(&text, "elements_license_purchased_seats").lines().count(), 1);
}

#[tokio::test]
async fn licences_are_requested_per_customer_if_forbidden() {
    let list = format!(r#"{{"value":[{},{}]}}"#, customer(A, "One"), customer(B, "Two"));
    let canned = canned_api(&[
        ("GET /partner/customers".to_owned(), list),
        (format!("GET /partner/services/{A}"), services(&[A])),
        (format!("GET /partner/services/{B}"), services(&[B])),
        jobs_of(A),
        jobs_of(B),
    ])
    .await;
    canned.set("GET /partner/services", 403, "{}");
    let (text, succeeded) = poll_once(&config(&canned.base, &v1_settings(&[]))).await;
    assert!(succeeded, "licences must be requested per customer: {text}");
    assert_eq!(samples(&text, "elements_license_purchased_seats").lines().count(), 2);
    let fresh = r#"elements_exporter_customers{collector="licenses",state="fresh"}"#;
    assert_eq!(value(&text, fresh), Some(2.0));
}

#[tokio::test]
async fn empty_page_before_the_total_makes_the_list_incomplete() {
    let rows: Vec<String> = (0..100)
        .map(|n| format!(r#"{{"id":"customer-{n}","organization":"{n}"}}"#))
        .collect();
    let first = format!(r#"{{"data":[{}],"metadata":{{"totalCount":120}}}}"#, rows.join(","));
    let canned = CannedServer::start(&[]).await;
    let path = "POST /partner/external/v3/general/customers/batch";
    canned.set(&format!("{path}?pageIndex=1&pageSize=100"), 200, &first);
    canned.set(&format!("{path}?pageIndex=2&pageSize=100"), 204, "");
    let v3 = [
        ("ELEMENTS_API__VERSION", "v3"),
        ("ELEMENTS_COLLECTORS__JOBS__ENABLED", "false"),
    ];
    let (text, succeeded) = poll_once(&config(&canned.base, &v1_settings(&v3))).await;
    assert!(!succeeded);
    assert!(!text.contains("elements_customer_info{"));
    let errors = r#"elements_exporter_api_errors_total{endpoint="customers",reason="incomplete"}"#;
    assert_eq!(value(&text, errors), Some(1.0));
}

#[tokio::test]
async fn unlisted_configured_customer_is_a_failure() {
    let list = format!(r#"{{"data":[{}],"metadata":{{"totalCount":1}}}}"#, customer(A, "One"));
    let canned = canned_api(&[("POST /partner/external/v3/general/customers/batch".to_owned(), list)]).await;
    let include = format!("{A},{B}");
    let v3 = [
        ("ELEMENTS_API__VERSION", "v3"),
        ("ELEMENTS_COLLECTORS__JOBS__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__LICENSES__ENABLED", "false"),
        ("ELEMENTS_CUSTOMERS__INCLUDE", include.as_str()),
    ];
    let (text, succeeded) = poll_once(&config(&canned.base, &v1_settings(&v3))).await;
    assert!(!succeeded);
    let errors = r#"elements_exporter_api_errors_total{endpoint="customers",reason="not_found"}"#;
    assert_eq!(value(&text, errors), Some(1.0));
}

/// Overrides for [`v1_settings`] that select API v3 and leave only the customer list enabled.
const V3_CUSTOMERS_ONLY: [(&str, &str); 3] = [
    ("ELEMENTS_API__VERSION", "v3"),
    ("ELEMENTS_COLLECTORS__JOBS__ENABLED", "false"),
    ("ELEMENTS_COLLECTORS__LICENSES__ENABLED", "false"),
];

fn numbered_customers(numbers: impl IntoIterator<Item = usize>) -> String {
    let rows: Vec<String> = numbers
        .into_iter()
        .map(|n| format!(r#"{{"id":"customer-{n}","organization":"{n}","jobStatus":1}}"#))
        .collect();
    rows.join(",")
}

#[tokio::test]
async fn list_with_a_duplicate_customer_is_complete() {
    let path = "POST /partner/external/v3/general/customers/batch";
    for rest in [vec![0], (3..4).chain(100..110).collect()] {
        let canned = CannedServer::start(&[]).await;
        let total = 100 + rest.len();
        let page = |rows: String| format!(r#"{{"data":[{rows}],"metadata":{{"totalCount":{total}}}}}"#);
        canned.set(
            &format!("{path}?pageIndex=1&pageSize=100"),
            200,
            &page(numbered_customers(0..100)),
        );
        canned.set(
            &format!("{path}?pageIndex=2&pageSize=100"),
            200,
            &page(numbered_customers(rest.iter().copied())),
        );
        let (text, succeeded) = poll_once(&config(&canned.base, &v1_settings(&V3_CUSTOMERS_ONLY))).await;
        assert!(succeeded, "{text}");
        let customers = rest.iter().max().unwrap().max(&99) + 1;
        assert_eq!(samples(&text, "elements_customer_info").lines().count(), customers);
        let repeats = (total - customers) as f64;
        let duplicates = r#"elements_exporter_duplicate_rows_total{endpoint="customers"}"#;
        assert_eq!(value(&text, duplicates), Some(repeats));
    }
}

#[tokio::test]
async fn overlapping_pages_make_the_list_incomplete() {
    let path = "POST /partner/external/v3/general/customers/batch";
    let canned = CannedServer::start(&[]).await;
    let page = |rows: String| format!(r#"{{"data":[{rows}],"metadata":{{"totalCount":150}}}}"#);
    canned.set(
        &format!("{path}?pageIndex=1&pageSize=100"),
        200,
        &page(numbered_customers(0..100)),
    );
    canned.set(
        &format!("{path}?pageIndex=2&pageSize=100"),
        200,
        &page(numbered_customers(99..149)),
    );
    let (text, succeeded) = poll_once(&config(&canned.base, &v1_settings(&V3_CUSTOMERS_ONLY))).await;
    assert!(!succeeded, "a list that lacks a customer must be rejected");
    assert!(!text.contains("elements_customer_info{"));
}

#[tokio::test]
async fn empty_page_after_a_full_page_ends_a_list_without_total() {
    let path = "POST /partner/external/v3/general/customers/batch";
    for (rows, body) in [
        (50, format!("[{}]", numbered_customers(0..50))),
        (100, format!("[{}]", numbered_customers(0..100))),
        (100, format!(r#"{{"data":[{}]}}"#, numbered_customers(0..100))),
    ] {
        let canned = CannedServer::start(&[]).await;
        canned.set(&format!("{path}?pageIndex=1&pageSize=100"), 200, &body);
        canned.set(&format!("{path}?pageIndex=2&pageSize=100"), 204, "");
        let (text, succeeded) = poll_once(&config(&canned.base, &v1_settings(&V3_CUSTOMERS_ONLY))).await;
        assert!(succeeded, "{text}");
        assert_eq!(samples(&text, "elements_customer_info").lines().count(), rows);
    }
}

#[tokio::test]
async fn guid_in_another_case_is_the_same_customer_in_all_lists() {
    let list = format!(
        r#"{{"value":[{},{}]}}"#,
        customer(A, "One"),
        customer(&A.to_uppercase(), "One")
    );
    let canned = canned_api(&[
        ("GET /partner/customers".to_owned(), list),
        ("GET /partner/services".to_owned(), services(&[&A.to_uppercase()])),
        jobs_of(A),
    ])
    .await;
    let (text, succeeded) = poll_once(&config(&canned.base, &v1_settings(&[]))).await;
    assert!(succeeded, "{text}");
    assert_eq!(samples(&text, "elements_customer_info").lines().count(), 1);
    let seats = format!(r#"elements_license_purchased_seats{{customer_id="{A}",license="",service="S"}}"#);
    assert_eq!(value(&text, &seats), Some(5.0));
}

#[tokio::test]
async fn polling_once_starts_no_second_cycle() {
    let partner = start(frozen_partner(20)).await;
    partner
        .handle
        .set_faults(vec![Fault::new("/partner/*", FaultKind::Delay { ms: 50 })]);
    let second = [
        ("ELEMENTS_API__VERSION", "v3"),
        ("ELEMENTS_COLLECTORS__CUSTOMERS__INTERVAL", "1s"),
        ("ELEMENTS_COLLECTORS__JOBS__INTERVAL", "1s"),
        ("ELEMENTS_COLLECTORS__PROTECTED__INTERVAL", "1s"),
        ("ELEMENTS_API__MAX_CONCURRENCY", "1"),
    ];
    let (text, succeeded) = poll_once(&config(&partner.base, &second)).await;
    assert!(succeeded, "{text}");
    let mut requested: BTreeMap<String, usize> = BTreeMap::new();
    for request in partner.handle.requests() {
        // Two collectors request the list of scan profiles.
        if !request.path.contains("/scan-profiles/") {
            *requested.entry(request.path).or_default() += 1;
        }
    }
    assert!(requested.values().all(|times| *times == 1), "{requested:?}");
}

#[tokio::test]
async fn changing_total_makes_the_list_incomplete() {
    let path = "POST /partner/external/v3/general/customers/batch";
    let reported = |total: usize| format!(r#","metadata":{{"totalCount":{total}}}"#);
    for (rows, metadata) in [(100..130, reported(130)), (100..120, String::new())] {
        let canned = CannedServer::start(&[]).await;
        let first = format!(r#"{{"data":[{}]{}}}"#, numbered_customers(0..100), reported(150));
        let second = format!(r#"{{"data":[{}]{metadata}}}"#, numbered_customers(rows));
        canned.set(&format!("{path}?pageIndex=1&pageSize=100"), 200, &first);
        canned.set(&format!("{path}?pageIndex=2&pageSize=100"), 200, &second);
        let (text, succeeded) = poll_once(&config(&canned.base, &v1_settings(&V3_CUSTOMERS_ONLY))).await;
        assert!(!succeeded, "{metadata:?}");
        assert!(!text.contains("elements_customer_info{"), "{metadata:?}");
    }
}

#[tokio::test]
async fn full_page_is_not_the_last() {
    let path = "POST /partner/external/v3/general/customers/batch";
    let canned = CannedServer::start(&[]).await;
    for metadata in [r#"{"pageSize":20}"#, r#"{"pageIndex":1,"totalCount":null}"#] {
        let page = |rows| format!(r#"{{"data":[{}],"metadata":{metadata}}}"#, numbered_customers(rows));
        canned.set(&format!("{path}?pageIndex=1&pageSize=100"), 200, &page(0..20));
        canned.set(&format!("{path}?pageIndex=2&pageSize=100"), 200, &page(20..30));
        canned.set(&format!("{path}?pageIndex=3&pageSize=100"), 204, "");
        let (text, succeeded) = poll_once(&config(&canned.base, &v1_settings(&V3_CUSTOMERS_ONLY))).await;
        assert!(succeeded, "{text}");
        assert_eq!(samples(&text, "elements_customer_info").lines().count(), 30);
    }
}

#[tokio::test]
async fn repeated_v1_page_is_detected() {
    let jobs_off = [("ELEMENTS_COLLECTORS__JOBS__ENABLED", "false")];
    let page = |link: &str| {
        let rows = [customer(A, "One"), customer(B, "Two")].join(",");
        format!(r#"{{"value":[{rows}]{link}}}"#)
    };
    let links = [r#","@odata.nextLink":"/partner/customers?p=3""#, ""];
    for second in links {
        let canned = CannedServer::start(&[]).await;
        let first = page(r#","@odata.nextLink":"/partner/customers?p=2""#);
        canned.set("GET /partner/customers", 200, &first);
        canned.set("GET /partner/customers?p=2", 200, &page(second));
        canned.set("GET /partner/customers?p=3", 200, &page(""));
        let (text, succeeded) = poll_once(&config(&canned.base, &v1_settings(&jobs_off))).await;
        assert!(!succeeded, "{second:?}");
        let errors = r#"elements_exporter_api_errors_total{endpoint="customers",reason="incomplete"}"#;
        assert_eq!(value(&text, errors), Some(1.0));
    }
    // Links that differ only in their fragment refer to the same page.
    let canned = CannedServer::start(&[]).await;
    let endless = page(r##","@odata.nextLink":"#1""##);
    canned.set("GET /partner/customers", 200, &endless);
    let (_, succeeded) = poll_once(&config(&canned.base, &v1_settings(&jobs_off))).await;
    assert!(!succeeded);
    assert_eq!(canned.requests().len(), 1);
}

/// Returns a customer list with these ids. The second part of each pair is JSON text that is appended to the row.
fn customer_list(names: &[(&str, &str)]) -> String {
    let row = |(id, name): &(&str, &str)| format!(r#"{{"id":"{id}","jobStatus":"Working"{name}}}"#);
    let rows: Vec<String> = names.iter().map(row).collect();
    format!(r#"{{"value":[{}]}}"#, rows.join(","))
}

#[tokio::test]
async fn missing_name_keeps_the_last_known_name_across_restarts() {
    const LIST: &str = "GET /partner/customers";
    let present = customer_list(&[
        (A, r#","organization":"Contoso""#),
        (B, r#","organization":"Left out""#),
    ]);
    let canned = canned_api(&[(LIST.to_owned(), present), jobs_of(A), jobs_of(B)]).await;
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state").display().to_string();
    let mut settings = v1_settings(&[
        ("ELEMENTS_COLLECTORS__LICENSES__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__JOBS__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__CUSTOMERS__INTERVAL", "1s"),
        ("ELEMENTS_CUSTOMERS__EXCLUDE", "Left*"),
    ]);
    settings.push(("ELEMENTS_STATE__FILE", &state));
    let assert_name_kept = |text: &str| {
        assert!(
            !text.contains(B),
            "an excluded customer without a name is exported: {text}"
        );
        let info = samples(text, "elements_customer_info");
        assert!(
            info.contains(r#"organization="Contoso""#) && info.lines().count() == 1,
            "{info}"
        );
    };
    for restart in 0..2 {
        let program = Program::start(&canned.base, &[], &settings).await;
        let text = program
            .wait_until("the list is polled", |text| value(text, "elements_up") == Some(1.0))
            .await;
        assert_name_kept(&text);
        for without_name in [
            "",
            r#","organization":null"#,
            r#","organization":"""#,
            r#","organization":7"#,
            r#","organization":{"name":"x"}"#,
            r#","organization":"N/A""#,
        ] {
            canned.set(LIST, 200, &customer_list(&[(A, without_name), (B, without_name)]));
            let requested = canned.requests().len();
            program
                .wait_until("two lists without names", |_| canned.requests().len() >= requested + 2)
                .await;
            assert_name_kept(&program.metrics().await);
        }
        assert!(
            !program.stderr().contains("no organization name"),
            "{restart}: {}",
            program.stderr()
        );
        program.terminate().await;
    }
    canned.set(
        LIST,
        200,
        &customer_list(&[(A, r#","organization":"Contoso Ltd""#), (B, "")]),
    );
    let program = Program::start(&canned.base, &[], &settings).await;
    let text = program
        .wait_until("the new name is exported", |text| text.contains("Contoso Ltd"))
        .await;
    assert_eq!(samples(&text, "elements_customer_info").lines().count(), 1, "{text}");
}

#[tokio::test]
async fn customer_without_a_name_matches_by_id_and_warns_once() {
    const LIST: &str = "GET /partner/customers";
    let canned = canned_api(&[
        (LIST.to_owned(), customer_list(&[(A, ""), (B, "")])),
        jobs_of(A),
        jobs_of(B),
    ])
    .await;
    let include = format!("{A},*");
    let settings = v1_settings(&[
        ("ELEMENTS_COLLECTORS__LICENSES__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__JOBS__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__CUSTOMERS__INTERVAL", "1s"),
        ("ELEMENTS_CUSTOMERS__INCLUDE", &include),
    ]);
    let program = Program::start(&canned.base, &[], &settings).await;
    program
        .wait_until("three polls of the list", |_| {
            canned.requests().iter().filter(|request| request.line == LIST).count() >= 3
        })
        .await;
    let text = program.metrics().await;
    assert!(
        samples(&text, "elements_customer_info").contains(r#"organization="""#),
        "{text}"
    );
    assert!(text.contains(A) && !text.contains(B), "{text}");
    let printed = program.stderr();
    for id in [A, B] {
        let warnings = printed
            .lines()
            .filter(|line| line.contains("no organization name") && line.contains(id));
        assert_eq!(warnings.count(), 1, "{printed}");
    }
}

#[tokio::test]
async fn tenants_occur_once_when_the_api_version_changes() {
    let v1 = format!(r#"{{"value":[{{"customerId":"{A}","tenantId":"t1,t2","products":[]}}]}}"#);
    let v3 = format!(
        r#"{{"data":[{{"id":"{A}","organization":"One","jobStatus":1,"tenants":[{{"id":"t1","name":"T"}}]}}],
        "metadata":{{"totalCount":1}}}}"#
    );
    let canned = canned_api(&[
        (
            "GET /partner/customers".to_owned(),
            customer_list(&[(A, r#","organization":"One""#)]),
        ),
        ("GET /partner/services".to_owned(), v1),
        ("POST /partner/external/v3/general/customers/batch".to_owned(), v3),
    ])
    .await;
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state").display().to_string();
    let tenants = |text: &str| {
        (
            samples(text, "elements_customer_tenants"),
            samples(text, "elements_tenant_info"),
        )
    };
    for (generation, count) in [("v1", 2), ("v3", 1), ("v3", 1)] {
        let mut settings = v1_settings(&[
            ("ELEMENTS_COLLECTORS__JOBS__ENABLED", "false"),
            ("ELEMENTS_COLLECTORS__LICENSES__INTERVAL", "1h"),
            ("ELEMENTS_API__VERSION", generation),
        ]);
        settings.push(("ELEMENTS_STATE__FILE", &state));
        let program = Program::start(&canned.base, &[], &settings).await;
        let text = program
            .wait_until("the tenants are exported", |text| {
                value(text, "elements_up") == Some(1.0) && tenants(text).1.lines().count() == count
            })
            .await;
        let of_customer = format!("elements_customer_tenants{{customer_id=\"{A}\"}} {count}\n");
        assert_eq!(tenants(&text).0, of_customer, "{generation}: {text}");
        program.terminate().await;
    }
}
