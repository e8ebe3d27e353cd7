//! Who is known, and who is asked about: joining, named by id, left out, refused.

use std::collections::BTreeMap;

use elements_exporter::simulator::{Fault, FaultKind};

use crate::canned::Canned;
use crate::support::{config, once, samples, value};
use crate::world::{start, still};

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

/// Only customers, jobs and licences, of the first generation.
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
        let (text, good) = once(&config(&canned.base, &settings(&[]))).await;
        assert!(good, "{text}");
        assert_eq!(samples(&text, "elements_license_purchased_seats").lines().count(), 2);
    }
}

#[tokio::test]
async fn who_is_named_by_id_and_excluded_is_not_asked_about() {
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
        let (text, good) = once(&config(&canned.base, &settings(&filters))).await;
        assert!(good, "{text}");
        assert!(!text.contains(B), "{text}");
        assert_eq!(samples(&text, "elements_license_purchased_seats").lines().count(), 1);
        let asked = canned.seen().into_iter().filter(|seen| seen.line.contains(B)).count();
        assert_eq!(
            asked,
            usize::from(excluded != B),
            "by name it must be asked for once to know its name"
        );
    }
}

#[tokio::test]
async fn refusals_alone_do_not_make_it_up() {
    let canned = api(&[]).await;
    for status in [403, 404] {
        canned.set(&format!("GET /partner/customers/{A}"), status, "{}");
        let (text, good) = once(&config(&canned.base, &settings(&[("ELEMENTS_CUSTOMERS__INCLUDE", A)]))).await;
        assert!(!good);
        assert_eq!(value(&text, "elements_up"), Some(0.0), "{status}");
    }
}

#[tokio::test]
async fn an_id_in_another_case_is_the_same_customer() {
    let canned = api(&[
        (
            format!("GET /partner/customers/{A}"),
            customer(&A.to_uppercase(), "One"),
        ),
        (format!("GET /partner/services/{A}"), services(&[&A.to_uppercase()])),
        jobs_of(A),
    ])
    .await;
    let (text, good) = once(&config(&canned.base, &settings(&[("ELEMENTS_CUSTOMERS__INCLUDE", A)]))).await;
    assert!(good, "{text}");
    assert_eq!(samples(&text, "elements_license_purchased_seats").lines().count(), 1);
}

#[tokio::test]
async fn a_registration_that_is_refused_the_list_of_licences_asks_for_each() {
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
    let (text, good) = once(&config(&canned.base, &settings(&[]))).await;
    assert!(good, "the refusal is not the last word: {text}");
    assert_eq!(samples(&text, "elements_license_purchased_seats").lines().count(), 2);
    let fresh = r#"elements_exporter_customers{collector="licenses",state="fresh"}"#;
    assert_eq!(value(&text, fresh), Some(2.0));
}

#[tokio::test]
async fn a_page_that_is_announced_and_empty_makes_the_list_incomplete() {
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
    let (text, good) = once(&config(&canned.base, &settings(&v3))).await;
    assert!(!good);
    assert!(!text.contains("elements_customer_info{"));
    let errors = r#"elements_exporter_api_errors_total{endpoint="customers",reason="incomplete"}"#;
    assert_eq!(value(&text, errors), Some(1.0));
}

#[tokio::test]
async fn a_customer_that_is_named_and_not_listed_is_no_success() {
    let list = format!(r#"{{"data":[{}],"metadata":{{"totalCount":1}}}}"#, customer(A, "One"));
    let canned = api(&[("POST /partner/external/v3/general/customers/batch".to_owned(), list)]).await;
    let include = format!("{A},{B}");
    let v3 = [
        ("ELEMENTS_API__VERSION", "v3"),
        ("ELEMENTS_COLLECTORS__JOBS__ENABLED", "false"),
        ("ELEMENTS_COLLECTORS__LICENSES__ENABLED", "false"),
        ("ELEMENTS_CUSTOMERS__INCLUDE", include.as_str()),
    ];
    let (text, good) = once(&config(&canned.base, &settings(&v3))).await;
    assert!(!good);
    let errors = r#"elements_exporter_api_errors_total{endpoint="customers",reason="not_found"}"#;
    assert_eq!(value(&text, errors), Some(1.0));
}

/// Only the list of customers, of the second generation.
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
async fn a_list_that_holds_a_customer_twice_is_complete_and_says_so() {
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
        let (text, good) = once(&config(&canned.base, &settings(&V3_CUSTOMERS_ALONE))).await;
        assert!(good, "{text}");
        let customers = rest.iter().max().unwrap().max(&99) + 1;
        assert_eq!(samples(&text, "elements_customer_info").lines().count(), customers);
        let repeats = (total - customers) as f64;
        let duplicates = r#"elements_exporter_duplicate_rows_total{endpoint="customers"}"#;
        assert_eq!(value(&text, duplicates), Some(repeats));
    }
}

#[tokio::test]
async fn pages_that_overlap_are_no_complete_list() {
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
    let (text, good) = once(&config(&canned.base, &settings(&V3_CUSTOMERS_ALONE))).await;
    assert!(!good, "a customer is missing");
    assert!(!text.contains("elements_customer_info{"));
}

#[tokio::test]
async fn nothing_after_a_full_page_without_a_total_is_its_end() {
    let path = "POST /partner/external/v3/general/customers/batch";
    for (rows, body) in [
        (50, format!("[{}]", numbered(0..50))),
        (100, format!("[{}]", numbered(0..100))),
        (100, format!(r#"{{"data":[{}]}}"#, numbered(0..100))),
    ] {
        let canned = Canned::start(&[]).await;
        canned.set(&format!("{path}?pageIndex=1&pageSize=100"), 200, &body);
        canned.set(&format!("{path}?pageIndex=2&pageSize=100"), 204, "");
        let (text, good) = once(&config(&canned.base, &settings(&V3_CUSTOMERS_ALONE))).await;
        assert!(good, "{text}");
        assert_eq!(samples(&text, "elements_customer_info").lines().count(), rows);
    }
}

#[tokio::test]
async fn a_guid_in_another_case_is_the_same_customer_in_every_list() {
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
    let (text, good) = once(&config(&canned.base, &settings(&[]))).await;
    assert!(good, "{text}");
    assert_eq!(samples(&text, "elements_customer_info").lines().count(), 1);
    let seats = format!(r#"elements_license_purchased_seats{{customer_id="{A}",license="",service="S"}}"#);
    assert_eq!(value(&text, &seats), Some(5.0));
}

#[tokio::test]
async fn a_poll_of_everything_once_begins_no_second_round() {
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
    let (text, good) = once(&config(&partner.base, &second)).await;
    assert!(good, "{text}");
    let mut asked: BTreeMap<String, usize> = BTreeMap::new();
    for request in partner.handle.requests() {
        // The list of profiles is asked for by two collectors.
        if !request.path.contains("/scan-profiles/") {
            *asked.entry(request.path).or_default() += 1;
        }
    }
    assert!(asked.values().all(|times| *times == 1), "{asked:?}");
}

#[tokio::test]
async fn a_total_that_changes_or_goes_while_it_is_walked_is_no_complete_list() {
    let path = "POST /partner/external/v3/general/customers/batch";
    let told = |total: usize| format!(r#","metadata":{{"totalCount":{total}}}"#);
    for (rows, metadata) in [(100..130, told(130)), (100..120, String::new())] {
        let canned = Canned::start(&[]).await;
        let first = format!(r#"{{"data":[{}]{}}}"#, numbered(0..100), told(150));
        let second = format!(r#"{{"data":[{}]{metadata}}}"#, numbered(rows));
        canned.set(&format!("{path}?pageIndex=1&pageSize=100"), 200, &first);
        canned.set(&format!("{path}?pageIndex=2&pageSize=100"), 200, &second);
        let (text, good) = once(&config(&canned.base, &settings(&V3_CUSTOMERS_ALONE))).await;
        assert!(!good, "{metadata:?}");
        assert!(!text.contains("elements_customer_info{"), "{metadata:?}");
    }
}

#[tokio::test]
async fn a_page_as_full_as_it_says_is_not_the_last() {
    let path = "POST /partner/external/v3/general/customers/batch";
    let canned = Canned::start(&[]).await;
    for metadata in [r#"{"pageSize":20}"#, r#"{"pageIndex":1,"totalCount":null}"#] {
        let page = |rows| format!(r#"{{"data":[{}],"metadata":{metadata}}}"#, numbered(rows));
        canned.set(&format!("{path}?pageIndex=1&pageSize=100"), 200, &page(0..20));
        canned.set(&format!("{path}?pageIndex=2&pageSize=100"), 200, &page(20..30));
        canned.set(&format!("{path}?pageIndex=3&pageSize=100"), 204, "");
        let (text, good) = once(&config(&canned.base, &settings(&V3_CUSTOMERS_ALONE))).await;
        assert!(good, "{text}");
        assert_eq!(samples(&text, "elements_customer_info").lines().count(), 30);
    }
}

#[tokio::test]
async fn a_first_generation_that_gives_one_page_again_and_again_is_found_out() {
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
        let (text, good) = once(&config(&canned.base, &settings(&jobs_off))).await;
        assert!(!good, "{second:?}");
        let errors = r#"elements_exporter_api_errors_total{endpoint="customers",reason="incomplete"}"#;
        assert_eq!(value(&text, errors), Some(1.0));
    }
    // Links that differ in what is never sent lead to one page.
    let canned = Canned::start(&[]).await;
    let endless = page(r##","@odata.nextLink":"#1""##);
    canned.set("GET /partner/customers", 200, &endless);
    let (_, good) = once(&config(&canned.base, &settings(&jobs_off))).await;
    assert!(!good);
    assert_eq!(canned.seen().len(), 1);
}
