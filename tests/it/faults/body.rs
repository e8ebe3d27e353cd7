//! Invalid bodies.

use elements_exporter::simulator::{Fault, FaultKind};
use serde_json::{Value, json};

use super::{Case, Exporter, Failing, JOBS_V1, case, errors, hold_each, holds, ids, last_success, number, success};
use crate::harness::canned::Canned;
use crate::harness::partner::{start, still};
use crate::harness::{config, eventually, samples, value};

fn replace(pointer: &str, value: Value) -> FaultKind {
    FaultKind::Replace {
        pointer: pointer.to_owned(),
        value,
    }
}

fn wrong(content_type: &str, body: impl Into<String>) -> FaultKind {
    FaultKind::WrongBody {
        content_type: content_type.to_owned(),
        body: body.into(),
    }
}

fn v1(case: Case) -> Case {
    Case {
        generation: "v1",
        ..case
    }
}

#[tokio::test]
async fn truncated_body_is_discarded_as_a_whole() {
    let truncated = |declared| FaultKind::Truncate { bytes: 200, declared };
    hold_each([
        case("broken off, length declared", truncated(true), "interrupted"),
        case("broken off, chunked", truncated(false), "interrupted"),
        case("cut to a declared length", FaultKind::ShortLength { by: -7 }, "decode"),
        case("shorter than declared", FaultKind::ShortLength { by: 7 }, "interrupted"),
    ])
    .await;
}

#[tokio::test]
async fn body_that_is_no_list_is_never_an_empty_one() {
    hold_each([
        case("not JSON", wrong("application/json", "sorry"), "decode"),
        case("nothing", wrong("application/json", ""), "decode"),
        case("null", wrong("application/json", "null"), "decode"),
        case(
            "two documents",
            wrong("application/json", r#"{"data":[]}{"data":[]}"#),
            "decode",
        ),
        case("data null", replace("/data", Value::Null), "decode"),
        case(
            "data missing",
            wrong("application/json", r#"{"metadata":{"totalCount":0}}"#),
            "decode",
        ),
        case("data an object", replace("/data", json!({})), "decode"),
        case(
            "an error with 200",
            wrong("application/json", r#"{"error":{"code":"Busy"}}"#),
            "decode",
        ),
        v1(case("value null", replace("/value", Value::Null), "decode")),
        v1(case(
            "value missing",
            wrong("application/json", r#"{"@odata.context":"x"}"#),
            "decode",
        )),
        v1(case("value a text", replace("/value", json!("[]")), "decode")),
    ])
    .await;
}

#[tokio::test]
async fn error_member_beside_a_list_is_a_failure() {
    hold_each([
        case("error", replace("/error", json!({"code": "Busy"})), "decode"),
        case("errors", replace("/Errors", json!(["busy"])), "decode"),
        case("in metadata", replace("/metadata/error", json!("busy")), "decode"),
        case("no success", replace("/isSuccess", json!(false)), "decode"),
        case(
            "an empty list",
            wrong("application/json", r#"{"data":[],"success":"False"}"#),
            "decode",
        ),
        v1(case("@odata.error", replace("/@odata.error", json!({})), "decode")),
        v1(case("no success in v1", replace("/success", json!(0)), "decode")),
    ])
    .await;
}

#[tokio::test]
async fn error_member_in_an_entity_is_a_failure() {
    for generation in ["v1", "v3"] {
        let partner = start(still(1)).await;
        let id = ids(&partner)[0].clone();
        let more = [("ELEMENTS_API__VERSION", generation)];
        let exporter = Exporter::start(&partner.base, &["scan_changes"], &more).await;
        let failing = Failing {
            collector: "scan_changes",
            id: &id,
            endpoint: "scan_changes",
            reason: "decode",
        };
        holds(&exporter, failing, generation, async || {
            let path = match generation {
                "v1" => "*/dailyNewSummary",
                _ => "*/changes",
            };
            let fault = Fault::new(path, replace("/error", json!({"code": "Busy"})));
            partner.handle.set_faults(vec![fault]);
        })
        .await;
    }
}

#[tokio::test]
async fn empty_error_member_is_ignored() {
    let partner = start(still(1)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    for (pointer, value) in [
        ("/error", Value::Null),
        ("/errors", json!([])),
        ("/error", json!("")),
        ("/isSuccess", json!(true)),
    ] {
        partner.handle.clear_requests();
        partner
            .handle
            .set_faults(vec![Fault::new("*/batch", replace(pointer, value))]);
        eventually("it is polled again", || async {
            (partner.handle.requests().len() > 4).then_some(())
        })
        .await;
    }
    let text = exporter.settled().await;
    assert_eq!(super::sum(&text, "elements_exporter_api_errors_total"), 0.0, "{text}");
}

#[tokio::test]
async fn lone_surrogate_affects_only_its_character() {
    let job = r#"{"jobType":7,"jobModule":303,"status":2,"jobId":"r-1","name":"N/A","\udc00":1,
        "backupSize":"0 GB","startTime":"2026-01-01T00:00:00Z","endTime":"2026-01-01T01:00:00Z","comment":"\ud83d"}"#;
    for (generation, customers, jobs, list) in [
        (
            "v1",
            "GET /partner/customers",
            "GET /partner/customers/c-1/jobs",
            "value",
        ),
        (
            "v3",
            "POST /partner/external/v3/general/customers/batch",
            "POST /partner/external/v3/general/customers/c-1/avpt-products/jobs/batch",
            "data",
        ),
    ] {
        let customer = r#"{"id":"c-1","organization":"a\ud800b","jobStatus":2,"ownerEmail":"\udfff"}"#;
        let api = Canned::start(&[
            (customers, &format!(r#"{{"\udbff":"\ud800","{list}":[{customer}]}}"#)),
            (jobs, &format!(r#"{{"{list}":[{job}]}}"#)),
        ])
        .await;
        let token = r#"{"access_token":"canned-token","expires_in":3600,"token_type":"\ud800","\ud800":1}"#;
        api.set("POST /connect/token", 200, token);
        let off = |collector: &str| (format!("ELEMENTS_COLLECTORS__{collector}__ENABLED"), "false".to_owned());
        let mut more: Vec<_> = ["PROTECTED", "LICENSES", "SCAN_PROFILES", "SCAN_CHANGES"]
            .map(off)
            .into();
        more.push(("ELEMENTS_API__VERSION".to_owned(), generation.to_owned()));
        let more: Vec<_> = more
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let (text, good) = crate::harness::polled_once(&config(&api.base, &more)).await;
        assert!(good, "{generation}: {text}");
        assert!(text.contains("organization=\"a\u{fffd}b\""), "{generation}: {text}");
        assert!(
            text.contains("elements_job_end_timestamp_seconds{"),
            "{generation}: {text}"
        );
        assert_eq!(
            super::sum(&text, "elements_exporter_decode_errors_total"),
            0.0,
            "{generation}"
        );
    }
}

#[tokio::test]
async fn login_page_is_a_failure() {
    let page = "<!doctype html><html><title>Sign in</title></html>";
    hold_each([
        case("login page", wrong("text/html", page), "decode"),
        case("login page called JSON", wrong("application/json", page), "decode"),
    ])
    .await;
}

#[tokio::test]
async fn body_nested_too_deeply_is_rejected() {
    let deep = |levels: usize| {
        let nested = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        wrong(
            "application/json",
            format!(r#"{{"data":[],"metadata":{{"totalCount":0}},"more":{nested}}}"#),
        )
    };
    let row = format!(r#"{{"value":[{}1{}]}}"#, r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
    hold_each([
        case("a hundred thousand levels", deep(100_000), "decode"),
        case("three hundred levels", deep(300), "decode"),
        v1(case("a deep row", wrong("application/json", row), "decode")),
    ])
    .await;
}

#[tokio::test]
async fn tenants_missing_in_a_row_keep_the_last_known_value() {
    let partner = start(still(2)).await;
    let exporter = Exporter::start(&partner.base, &[], &[]).await;
    let text = exporter.settled().await;
    let tenants = |text: &str| samples(text, "elements_tenant_info") + &samples(text, "elements_customer_tenants");
    let known = tenants(&text);
    assert!(known.contains("elements_tenant_info"), "{text}");
    for value in [Value::Null, json!("oops")] {
        partner
            .handle
            .set_faults(vec![Fault::new(super::CUSTOMERS_V3, replace("/data/0/tenants", value))]);
        partner.handle.clear_requests();
        eventually("two lists without them", || async {
            let requested = partner.handle.requests();
            let lists = requested.iter().filter(|request| request.path == super::CUSTOMERS_V3);
            (lists.count() > 2).then_some(())
        })
        .await;
        assert_eq!(tenants(&exporter.metrics().await), known);
    }
    let field = r#"elements_exporter_decode_errors_total{endpoint="customers",field="tenants"}"#;
    exporter
        .until("a value that is not a list is counted", |text| {
            value(text, field) >= Some(1.0)
        })
        .await;
}

#[tokio::test]
async fn additional_fields_are_accepted() {
    let partner = start(still(1)).await;
    let extra = || {
        [
            ("aNewField".to_owned(), json!({"with": [1, "2", null]})),
            ("another".to_owned(), json!(1e300)),
        ]
    };
    partner.handle.with_world(|world| {
        let customer = &mut world.customers[0];
        customer.raw_fields.extend(extra());
        customer
            .protected
            .iter_mut()
            .for_each(|row| row.raw_fields.extend(extra()));
        customer
            .products
            .iter_mut()
            .for_each(|product| product.raw_fields.extend(extra()));
        let runs = customer.modules.iter_mut().flat_map(|module| &mut module.runs);
        runs.for_each(|run| run.raw_fields.extend(extra()));
    });
    for generation in ["v1", "v3"] {
        let (text, good) =
            crate::harness::polled_once(&config(&partner.base, &[("ELEMENTS_API__VERSION", generation)])).await;
        assert!(good, "{generation}: {text}");
        assert_eq!(super::sum(&text, "elements_exporter_decode_errors_total"), 0.0);
    }
}

#[tokio::test]
async fn field_of_another_type_is_parsed_if_possible() {
    let partner = start(still(1)).await;
    let id = ids(&partner)[0].clone();
    let cases = [
        (json!("5"), Some(5.0), 0.0),
        (json!(5), Some(5.0), 0.0),
        (json!(5.0), Some(5.0), 0.0),
        (json!("1,234"), Some(1234.0), 0.0),
        (Value::Null, None, 0.0),
        (json!("N/A"), None, 0.0),
        (json!(""), None, 0.0),
        (json!("five"), None, 1.0),
        (json!([5]), None, 1.0),
        (json!({"count": 5}), None, 1.0),
    ];
    for (sent, read, counted) in cases {
        let (service, module) = partner.handle.with_world(|world| {
            let customer = &mut world.customers[0];
            customer.protected.truncate(1);
            let row = &mut customer.protected[0];
            row.raw_fields.insert("totalScannedObjects".to_owned(), sent.clone());
            row.raw_fields.insert("serviceType".to_owned(), json!("Microsoft 365"));
            row.raw_fields
                .insert("serviceModule".to_owned(), json!("Exchange Online"));
            ("Microsoft 365", "Exchange Online")
        });
        let (text, good) =
            crate::harness::polled_once(&config(&partner.base, &[("ELEMENTS_API__VERSION", "v1")])).await;
        assert!(good, "{sent}: {text}");
        let labels = format!(r#"{{customer_id="{id}",service="{service}",module="{module}"}}"#);
        assert_eq!(
            value(&text, &format!("elements_protected_scanned_objects{labels}")),
            read,
            "{sent}"
        );
        assert!(
            value(&text, &format!("elements_protected_objects{labels}")).is_some(),
            "{sent}: the rest counts"
        );
        let errors = super::sum(&text, "elements_exporter_decode_errors_total{endpoint=\"protected\"");
        assert_eq!(errors, counted, "{sent}");
    }
}

#[tokio::test]
async fn invalid_row_keeps_the_others_and_fails_the_poll() {
    let partner = start(still(2)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[("ELEMENTS_API__VERSION", "v1")]).await;
    let id = ids(&partner)[0].clone();
    let before = exporter.settled().await;
    let shown = |text: &str| {
        text.matches(&format!("elements_job_status{{customer_id=\"{id}\""))
            .count()
    };
    let modules = shown(&before);
    assert!(modules > 1);
    // One row loses the field that identifies its module, and another row changes.
    partner.handle.with_world(|world| {
        let backups = world.customers[0].modules.iter_mut();
        let backups = backups.filter(|module| ![0, 10].contains(&module.job_type));
        let mut ran = backups.filter_map(|module| module.runs.last_mut());
        ran.next().unwrap().raw_fields.insert("jobModule".to_owned(), json!([]));
        let changed = ran.next().unwrap();
        changed.raw_fields.insert("status".to_owned(), json!("Rejected"));
        changed.raw_fields.insert("totalCount".to_owned(), json!("987654"));
    });
    let rows = errors("jobs", "unreadable_rows");
    let failed = exporter
        .until("unreadable rows", |text| value(text, &rows) >= Some(1.0))
        .await;
    let again = exporter
        .until("invalid rows again", |text| value(text, &rows) > value(&failed, &rows))
        .await;
    assert_eq!(number(&again, &success("jobs", &id)), 0.0);
    assert_eq!(
        value(&again, &last_success("jobs", &id)),
        value(&failed, &last_success("jobs", &id))
    );
    assert!(again.lines().any(|line| {
        line.starts_with(&format!("elements_job_processed_objects{{customer_id=\"{id}\"")) && line.ends_with(" 987654")
    }));
    assert_eq!(
        shown(&again),
        modules,
        "the module with the invalid row keeps its values"
    );
    partner
        .handle
        .set_faults(vec![Fault::new(JOBS_V1, replace("/value/-", json!("no row")))]);
    let more = exporter
        .until("a row that is not an object", |text| {
            value(text, &rows) > value(&again, &rows)
        })
        .await;
    assert_eq!(shown(&more), modules);
}

#[tokio::test]
async fn rows_of_a_partial_response_are_fresh_and_others_age() {
    let customers = r#"{"value":[{"id":"one","organization":"One"},{"id":"two","organization":"Two"}]}"#;
    let services = |second: &str| {
        format!(
            r#"{{"value":[{{"customerId":"one","products":[{{"service":"A","purchasedUserSeats":5}},{second}]}},
            {{"customerId":"two","products":[{{"service":"A","purchasedUserSeats":6}}]}}]}}"#
        )
    };
    let jobs = |second: &str| {
        format!(
            r#"{{"value":[{{"jobType":"Microsoft 365","jobModule":"OneDrive","status":"Finished","jobId":"1",
            "endTime":"2026-01-01T00:00:00Z"}},{{"jobType":"Microsoft 365","jobModule":{second},"status":"Finished",
            "jobId":"2","endTime":"2026-01-01T00:00:00Z"}}]}}"#
        )
    };
    let api = Canned::start(&[
        ("GET /partner/customers", customers),
        (
            "GET /partner/services",
            &services(r#"{"service":"B","purchasedUserSeats":7}"#),
        ),
        ("GET /partner/customers/one/jobs", &jobs(r#""Exchange Online""#)),
        ("GET /partner/customers/two/jobs", r#"{"value":[]}"#),
    ])
    .await;
    let more = [
        ("ELEMENTS_API__VERSION", "v1"),
        ("ELEMENTS_COLLECTORS__LICENSES__STALE_AFTER", "2s"),
        ("ELEMENTS_COLLECTORS__JOBS__STALE_AFTER", "2s"),
    ];
    let exporter = Exporter::start(&api.base, &["licenses", "jobs"], &more).await;
    exporter.settled().await;
    api.set("GET /partner/services", 200, &services(r#"{"service":null}"#));
    api.set("GET /partner/customers/one/jobs", 200, &jobs("null"));
    let seats = |customer, service| {
        format!(r#"elements_license_purchased_seats{{customer_id="{customer}",license="",service="{service}"}}"#)
    };
    let status =
        |module| format!(r#"elements_job_status{{customer_id="one",service="Microsoft 365",module="{module}"}}"#);
    let aged = exporter
        .until("values of invalid rows are old", |text| {
            value(text, &seats("one", "B")).is_none() && value(text, &status("Exchange Online")).is_none()
        })
        .await;
    assert_eq!(number(&aged, &success("licenses", "")), 0.0);
    assert_eq!(number(&aged, &success("jobs", "one")), 0.0);
    let polls = |text: &str| number(text, &errors("licenses", "unreadable_rows"));
    let text = exporter
        .until("three more polls", |text| polls(text) >= polls(&aged) + 3.0)
        .await;
    assert_eq!(value(&text, &seats("one", "A")), Some(5.0));
    assert_eq!(value(&text, &seats("two", "A")), Some(6.0));
    assert_eq!(value(&text, &status("OneDrive")), Some(2.0));
    assert!(text.contains(r#"elements_license_info{customer_id="one",license="",service="B""#));
    let backup = r#"elements_job_last_backup_timestamp_seconds{customer_id="one",service="Microsoft 365",module="Exchange Online"}"#;
    assert!(value(&text, backup).is_some(), "a date stays");
}
