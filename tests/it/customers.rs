//! Known and polled customers: new, configured by id, excluded, forbidden.
//!
//! This file is longer than others, because the cases share the customer lists built here.

use std::collections::BTreeMap;

use elements_exporter::simulator::{Fault, FaultKind};

use crate::harness::canned::Canned;
use crate::harness::partner::{start, still};
use crate::harness::program::Program;
use crate::harness::{config, polled_once, samples, value};

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

/// Enables only customers, jobs and licences, in the first generation.
fn settings<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut settings = vec![
        ("ELEMENTS_API__VERSION", "v1"),
        ("ELEMENTS_COLLECTORS__PROTECTED__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__SCAN_PROFILES__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__SCAN_CHANGES__ENABLED", "false"),
    ];
    settings.extend_from_slice(more);
    settings
}

async fn api(answers: &[(String, String)]) -> Canned {
    let canned = Canned::start(&[]).await;
    for (line, body) in answers {
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
async fn licences_wait_for_the_list_of_customers() {
    let list = format!(r#"{{"value":[{},{}]}}"#, customer(A, "One"), customer(B, "Two"));
    let canned = api(&[
        ("GET /partner/customers".to_owned(), list),
        ("GET /partner/services".to_owned(), services(&[A, B])),
        jobs_of(A),
        jobs_of(B),
    ])
    .await;
    for _ in 0..5 {
        let (text, good) = polled_once(&config(&canned.base, &settings(&[]))).await;
        assert!(good, "{text}");
        assert_eq!(samples(&text, "elements_license_purchased_seats").lines().count(), 2);
    }
}

#[tokio::test]
async fn customer_excluded_by_id_is_not_requested() {
    let include = format!("{A},{B}");
    let answers = [
        (format!("GET /partner/customers/{A}"), customer(A, "One")),
        (format!("GET /partner/customers/{B}"), customer(B, "Two")),
        (format!("GET /partner/services/{A}"), services(&[A])),
        (format!("GET /partner/services/{B}"), services(&[B])),
        jobs_of(A),
        jobs_of(B),
    ];
    for excluded in [B, "Tw*"] {
        let canned = api(&answers).await;
        let filters = [
            ("ELEMENTS_CUSTOMERS__INCLUDE", include.as_str()),
            ("ELEMENTS_CUSTOMERS__EXCLUDE", excluded),
        ];
        let (text, good) = polled_once(&config(&canned.base, &settings(&filters))).await;
        assert!(good, "{text}");
        assert!(!text.contains(B), "{text}");
        assert_eq!(samples(&text, "elements_license_purchased_seats").lines().count(), 1);
        let requested = canned.seen().into_iter().filter(|seen| seen.line.contains(B)).count();
        assert_eq!(
            requested,
            usize::from(excluded != B),
            "to match by name, the customer is requested once"
        );
    }
}

#[tokio::test]
async fn exporter_is_not_up_if_all_requests_are_forbidden() {
    let canned = api(&[]).await;
    for status in [403, 404] {
        canned.set(&format!("GET /partner/customers/{A}"), status, "{}");
        let (text, good) = polled_once(&config(&canned.base, &settings(&[("ELEMENTS_CUSTOMERS__INCLUDE", A)]))).await;
        assert!(!good);
        assert_eq!(value(&text, "elements_up"), Some(0.0), "{status}");
    }
}

#[tokio::test]
async fn id_in_another_case_is_the_same_customer() {
    let canned = api(&[
        (
            format!("GET /partner/customers/{A}"),
            customer(&A.to_uppercase(), "One"),
        ),
        (format!("GET /partner/services/{A}"), services(&[&A.to_uppercase()])),
        jobs_of(A),
    ])
    .await;
    let (text, good) = polled_once(&config(&canned.base, &settings(&[("ELEMENTS_CUSTOMERS__INCLUDE", A)]))).await;
    assert!(good, "{text}");
    assert_eq!(samples(&text, "elements_license_purchased_seats").lines().count(), 1);
}

#[tokio::test]
async fn licences_are_requested_per_customer_if_forbidden() {
    let list = format!(r#"{{"value":[{},{}]}}"#, customer(A, "One"), customer(B, "Two"));
    let canned = api(&[
        ("GET /partner/customers".to_owned(), list),
        (format!("GET /partner/services/{A}"), services(&[A])),
        (format!("GET /partner/services/{B}"), services(&[B])),
        jobs_of(A),
        jobs_of(B),
    ])
    .await;
    canned.set("GET /partner/services", 403, "{}");
    let (text, good) = polled_once(&config(&canned.base, &settings(&[]))).await;
    assert!(good, "a forbidden list is not final: {text}");
    assert_eq!(samples(&text, "elements_license_purchased_seats").lines().count(), 2);
    let fresh = r#"elements_exporter_customers{collector="licenses",state="fresh"}"#;
    assert_eq!(value(&text, fresh), Some(2.0));
}

#[tokio::test]
async fn empty_page_that_was_announced_makes_the_list_incomplete() {
    let rows: Vec<String> = (0..100)
        .map(|n| format!(r#"{{"id":"customer-{n}","organization":"{n}"}}"#))
        .collect();
    let first = format!(r#"{{"data":[{}],"metadata":{{"totalCount":120}}}}"#, rows.join(","));
    let canned = Canned::start(&[]).await;
    let path = "POST /partner/external/v3/general/customers/batch";
    canned.set(&format!("{path}?pageIndex=1&pageSize=100"), 200, &first);
    canned.set(&format!("{path}?pageIndex=2&pageSize=100"), 204, "");
    let v3 = [
        ("ELEMENTS_API__VERSION", "v3"),
        ("ELEMENTS_COLLECTORS__JOBS__ENABLED", "false"),
    ];
    let (text, good) = polled_once(&config(&canned.base, &settings(&v3))).await;
    assert!(!good);
    assert!(!text.contains("elements_customer_info{"));
    let errors = r#"elements_exporter_api_errors_total{endpoint="customers",reason="incomplete"}"#;
    assert_eq!(value(&text, errors), Some(1.0));
}

#[tokio::test]
async fn configured_customer_that_is_not_listed_is_a_failure() {
    let list = format!(r#"{{"data":[{}],"metadata":{{"totalCount":1}}}}"#, customer(A, "One"));
    let canned = api(&[("POST /partner/external/v3/general/customers/batch".to_owned(), list)]).await;
    let include = format!("{A},{B}");
    let v3 = [
        ("ELEMENTS_API__VERSION", "v3"),
        ("ELEMENTS_COLLECTORS__JOBS__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__LICENSES__ENABLED", "false"),
        ("ELEMENTS_CUSTOMERS__INCLUDE", include.as_str()),
    ];
    let (text, good) = polled_once(&config(&canned.base, &settings(&v3))).await;
    assert!(!good);
    let errors = r#"elements_exporter_api_errors_total{endpoint="customers",reason="not_found"}"#;
    assert_eq!(value(&text, errors), Some(1.0));
}

/// Enables only the customer list, in the second generation.
const V3_CUSTOMERS_ALONE: [(&str, &str); 3] = [
    ("ELEMENTS_API__VERSION", "v3"),
    ("ELEMENTS_COLLECTORS__JOBS__ENABLED", "false"),
    ("ELEMENTS_COLLECTORS__LICENSES__ENABLED", "false"),
];

fn numbered(numbers: impl IntoIterator<Item = usize>) -> String {
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
        let canned = Canned::start(&[]).await;
        let total = 100 + rest.len();
        let page = |rows: String| format!(r#"{{"data":[{rows}],"metadata":{{"totalCount":{total}}}}}"#);
        canned.set(
            &format!("{path}?pageIndex=1&pageSize=100"),
            200,
            &page(numbered(0..100)),
        );
        canned.set(
            &format!("{path}?pageIndex=2&pageSize=100"),
            200,
            &page(numbered(rest.iter().copied())),
        );
        let (text, good) = polled_once(&config(&canned.base, &settings(&V3_CUSTOMERS_ALONE))).await;
        assert!(good, "{text}");
        let customers = rest.iter().max().unwrap().max(&99) + 1;
        assert_eq!(samples(&text, "elements_customer_info").lines().count(), customers);
        let repeats = (total - customers) as f64;
        let duplicates = r#"elements_exporter_duplicate_rows_total{endpoint="customers"}"#;
        assert_eq!(value(&text, duplicates), Some(repeats));
    }
}

#[tokio::test]
async fn pages_that_overlap_are_not_a_complete_list() {
    let path = "POST /partner/external/v3/general/customers/batch";
    let canned = Canned::start(&[]).await;
    let page = |rows: String| format!(r#"{{"data":[{rows}],"metadata":{{"totalCount":150}}}}"#);
    canned.set(
        &format!("{path}?pageIndex=1&pageSize=100"),
        200,
        &page(numbered(0..100)),
    );
    canned.set(
        &format!("{path}?pageIndex=2&pageSize=100"),
        200,
        &page(numbered(99..149)),
    );
    let (text, good) = polled_once(&config(&canned.base, &settings(&V3_CUSTOMERS_ALONE))).await;
    assert!(!good, "a customer is missing");
    assert!(!text.contains("elements_customer_info{"));
}

#[tokio::test]
async fn empty_page_after_a_full_page_ends_a_list_without_total() {
    let path = "POST /partner/external/v3/general/customers/batch";
    for (rows, body) in [
        (50, format!("[{}]", numbered(0..50))),
        (100, format!("[{}]", numbered(0..100))),
        (100, format!(r#"{{"data":[{}]}}"#, numbered(0..100))),
    ] {
        let canned = Canned::start(&[]).await;
        canned.set(&format!("{path}?pageIndex=1&pageSize=100"), 200, &body);
        canned.set(&format!("{path}?pageIndex=2&pageSize=100"), 204, "");
        let (text, good) = polled_once(&config(&canned.base, &settings(&V3_CUSTOMERS_ALONE))).await;
        assert!(good, "{text}");
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
    let canned = api(&[
        ("GET /partner/customers".to_owned(), list),
        ("GET /partner/services".to_owned(), services(&[&A.to_uppercase()])),
        jobs_of(A),
    ])
    .await;
    let (text, good) = polled_once(&config(&canned.base, &settings(&[]))).await;
    assert!(good, "{text}");
    assert_eq!(samples(&text, "elements_customer_info").lines().count(), 1);
    let seats = format!(r#"elements_license_purchased_seats{{customer_id="{A}",license="",service="S"}}"#);
    assert_eq!(value(&text, &seats), Some(5.0));
}

#[tokio::test]
async fn polling_once_begins_no_second_cycle() {
    let partner = start(still(20)).await;
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
    let (text, good) = polled_once(&config(&partner.base, &second)).await;
    assert!(good, "{text}");
    let mut requested: BTreeMap<String, usize> = BTreeMap::new();
    for request in partner.handle.requests() {
        // Two collectors request the list of profiles.
        if !request.path.contains("/scan-profiles/") {
            *requested.entry(request.path).or_default() += 1;
        }
    }
    assert!(requested.values().all(|times| *times == 1), "{requested:?}");
}

#[tokio::test]
async fn total_that_changes_between_pages_is_incomplete() {
    let path = "POST /partner/external/v3/general/customers/batch";
    let reported = |total: usize| format!(r#","metadata":{{"totalCount":{total}}}"#);
    for (rows, metadata) in [(100..130, reported(130)), (100..120, String::new())] {
        let canned = Canned::start(&[]).await;
        let first = format!(r#"{{"data":[{}]{}}}"#, numbered(0..100), reported(150));
        let second = format!(r#"{{"data":[{}]{metadata}}}"#, numbered(rows));
        canned.set(&format!("{path}?pageIndex=1&pageSize=100"), 200, &first);
        canned.set(&format!("{path}?pageIndex=2&pageSize=100"), 200, &second);
        let (text, good) = polled_once(&config(&canned.base, &settings(&V3_CUSTOMERS_ALONE))).await;
        assert!(!good, "{metadata:?}");
        assert!(!text.contains("elements_customer_info{"), "{metadata:?}");
    }
}

#[tokio::test]
async fn page_with_its_full_size_is_not_the_last() {
    let path = "POST /partner/external/v3/general/customers/batch";
    let canned = Canned::start(&[]).await;
    for metadata in [r#"{"pageSize":20}"#, r#"{"pageIndex":1,"totalCount":null}"#] {
        let page = |rows| format!(r#"{{"data":[{}],"metadata":{metadata}}}"#, numbered(rows));
        canned.set(&format!("{path}?pageIndex=1&pageSize=100"), 200, &page(0..20));
        canned.set(&format!("{path}?pageIndex=2&pageSize=100"), 200, &page(20..30));
        canned.set(&format!("{path}?pageIndex=3&pageSize=100"), 204, "");
        let (text, good) = polled_once(&config(&canned.base, &settings(&V3_CUSTOMERS_ALONE))).await;
        assert!(good, "{text}");
        assert_eq!(samples(&text, "elements_customer_info").lines().count(), 30);
    }
}

#[tokio::test]
async fn v1_page_that_repeats_is_detected() {
    let jobs_off = [("ELEMENTS_COLLECTORS__JOBS__ENABLED", "false")];
    let page = |link: &str| {
        let rows = [customer(A, "One"), customer(B, "Two")].join(",");
        format!(r#"{{"value":[{rows}]{link}}}"#)
    };
    let links = [r#","@odata.nextLink":"/partner/customers?p=3""#, ""];
    for second in links {
        let canned = Canned::start(&[]).await;
        let first = page(r#","@odata.nextLink":"/partner/customers?p=2""#);
        canned.set("GET /partner/customers", 200, &first);
        canned.set("GET /partner/customers?p=2", 200, &page(second));
        canned.set("GET /partner/customers?p=3", 200, &page(""));
        let (text, good) = polled_once(&config(&canned.base, &settings(&jobs_off))).await;
        assert!(!good, "{second:?}");
        let errors = r#"elements_exporter_api_errors_total{endpoint="customers",reason="incomplete"}"#;
        assert_eq!(value(&text, errors), Some(1.0));
    }
    // Links that differ only in a fragment lead to the same page.
    let canned = Canned::start(&[]).await;
    let endless = page(r##","@odata.nextLink":"#1""##);
    canned.set("GET /partner/customers", 200, &endless);
    let (_, good) = polled_once(&config(&canned.base, &settings(&jobs_off))).await;
    assert!(!good);
    assert_eq!(canned.seen().len(), 1);
}

/// Returns a list with these pieces of JSON as names.
fn named(names: &[(&str, &str)]) -> String {
    let row = |(id, name): &(&str, &str)| format!(r#"{{"id":"{id}","jobStatus":"Working"{name}}}"#);
    let rows: Vec<String> = names.iter().map(row).collect();
    format!(r#"{{"value":[{}]}}"#, rows.join(","))
}

#[tokio::test]
async fn missing_name_keeps_the_last_known_one_over_restarts() {
    const LIST: &str = "GET /partner/customers";
    let present = named(&[
        (A, r#","organization":"Contoso""#),
        (B, r#","organization":"Left out""#),
    ]);
    let canned = api(&[(LIST.to_owned(), present), jobs_of(A), jobs_of(B)]).await;
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state").display().to_string();
    let mut settings = settings(&[
        ("ELEMENTS_COLLECTORS__LICENSES__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__JOBS__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__CUSTOMERS__INTERVAL", "1s"),
        ("ELEMENTS_CUSTOMERS__EXCLUDE", "Left*"),
    ]);
    settings.push(("ELEMENTS_STATE__FILE", &state));
    let expected = |text: &str| {
        assert!(
            !text.contains(B),
            "an excluded customer was added without its name: {text}"
        );
        let info = samples(text, "elements_customer_info");
        assert!(
            info.contains(r#"organization="Contoso""#) && info.lines().count() == 1,
            "{info}"
        );
    };
    for round in 0..2 {
        let program = Program::start(&canned.base, &[], &settings).await;
        let text = program
            .until("the list is known", |text| value(text, "elements_up") == Some(1.0))
            .await;
        expected(&text);
        for lacking in [
            "",
            r#","organization":null"#,
            r#","organization":"""#,
            r#","organization":7"#,
            r#","organization":{"name":"x"}"#,
            r#","organization":"N/A""#,
        ] {
            canned.set(LIST, 200, &named(&[(A, lacking), (B, lacking)]));
            let requested = canned.seen().len();
            program
                .until("two lists without names", |_| canned.seen().len() >= requested + 2)
                .await;
            expected(&program.metrics().await);
        }
        assert!(
            !program.stderr().contains("no organization name"),
            "{round}: {}",
            program.stderr()
        );
        program.terminate().await;
    }
    canned.set(LIST, 200, &named(&[(A, r#","organization":"Contoso Ltd""#), (B, "")]));
    let program = Program::start(&canned.base, &[], &settings).await;
    let text = program
        .until("the new name is shown", |text| text.contains("Contoso Ltd"))
        .await;
    assert_eq!(samples(&text, "elements_customer_info").lines().count(), 1, "{text}");
}

#[tokio::test]
async fn customer_without_a_name_matches_by_id_and_warns_once() {
    const LIST: &str = "GET /partner/customers";
    let canned = api(&[(LIST.to_owned(), named(&[(A, ""), (B, "")])), jobs_of(A), jobs_of(B)]).await;
    let include = format!("{A},*");
    let settings = settings(&[
        ("ELEMENTS_COLLECTORS__LICENSES__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__JOBS__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__CUSTOMERS__INTERVAL", "1s"),
        ("ELEMENTS_CUSTOMERS__INCLUDE", &include),
    ]);
    let program = Program::start(&canned.base, &[], &settings).await;
    program
        .until("three lists", |_| {
            canned.seen().iter().filter(|seen| seen.line == LIST).count() >= 3
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
async fn tenants_occur_once_when_the_generation_changes() {
    let v1 = format!(r#"{{"value":[{{"customerId":"{A}","tenantId":"t1,t2","products":[]}}]}}"#);
    let v3 = format!(
        r#"{{"data":[{{"id":"{A}","organization":"One","jobStatus":1,"tenants":[{{"id":"t1","name":"T"}}]}}],
        "metadata":{{"totalCount":1}}}}"#
    );
    let canned = api(&[
        (
            "GET /partner/customers".to_owned(),
            named(&[(A, r#","organization":"One""#)]),
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
        let mut settings = settings(&[
            ("ELEMENTS_COLLECTORS__JOBS__ENABLED", "false"),
            ("ELEMENTS_COLLECTORS__LICENSES__INTERVAL", "1h"),
            ("ELEMENTS_API__VERSION", generation),
        ]);
        settings.push(("ELEMENTS_STATE__FILE", &state));
        let program = Program::start(&canned.base, &[], &settings).await;
        let text = program
            .until("the tenants are known", |text| {
                value(text, "elements_up") == Some(1.0) && tenants(text).1.lines().count() == count
            })
            .await;
        let of_customer = format!("elements_customer_tenants{{customer_id=\"{A}\"}} {count}\n");
        assert_eq!(tenants(&text).0, of_customer, "{generation}: {text}");
        program.terminate().await;
    }
}
