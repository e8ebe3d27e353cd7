//! Invalid, incomplete and unusual response bodies.

use elements_exporter::simulator::{Fault, FaultKind};
use serde_json::{Value, json};

use super::{
    Case, ExpectedFailure, Exporter, JOBS_V1, assert_each_fails, assert_poll_fails, case, errors, ids, last_success,
    number, success,
};
use crate::harness::canned::CannedServer;
use crate::harness::partner::{frozen_partner, start};
use crate::harness::{config, eventually, samples, value};

fn replace(pointer: &str, value: Value) -> FaultKind {
    FaultKind::Replace {
        pointer: pointer.to_owned(),
        value,
    }
}

fn wrong_body(content_type: &str, body: impl Into<String>) -> FaultKind {
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
async fn truncated_body_is_discarded_completely() {
    let truncated = |declared| FaultKind::Truncate { bytes: 200, declared };
    assert_each_fails([
        case("interrupted, length declared", truncated(true), "interrupted"),
        case("interrupted, chunked", truncated(false), "interrupted"),
        case("cut to a declared length", FaultKind::ShortLength { by: -7 }, "decode"),
        case("shorter than declared", FaultKind::ShortLength { by: 7 }, "interrupted"),
    ])
    .await;
}

#[tokio::test]
async fn body_without_a_list_is_a_failure() {
    assert_each_fails([
        case("not JSON", wrong_body("application/json", "sorry"), "decode"),
        case("nothing", wrong_body("application/json", ""), "decode"),
        case("null", wrong_body("application/json", "null"), "decode"),
        case(
            "two documents",
            wrong_body("application/json", r#"{"data":[]}{"data":[]}"#),
            "decode",
        ),
        case("data is null", replace("/data", Value::Null), "decode"),
        case(
            "data is missing",
            wrong_body("application/json", r#"{"metadata":{"totalCount":0}}"#),
            "decode",
        ),
        case("data is an object", replace("/data", json!({})), "decode"),
        case(
            "an error with 200",
            wrong_body("application/json", r#"{"error":{"code":"Busy"}}"#),
            "decode",
        ),
        v1(case("value is null", replace("/value", Value::Null), "decode")),
        v1(case(
            "value is missing",
            wrong_body("application/json", r#"{"@odata.context":"x"}"#),
            "decode",
        )),
        v1(case("value is a string", replace("/value", json!("[]")), "decode")),
    ])
    .await;
}

#[tokio::test]
async fn error_member_beside_a_list_is_a_failure() {
    assert_each_fails([
        case("error", replace("/error", json!({"code": "Busy"})), "decode"),
        case("errors", replace("/Errors", json!(["busy"])), "decode"),
        case("in metadata", replace("/metadata/error", json!("busy")), "decode"),
        case("isSuccess is false", replace("/isSuccess", json!(false)), "decode"),
        case(
            "an empty list",
            wrong_body("application/json", r#"{"data":[],"success":"False"}"#),
            "decode",
        ),
        v1(case("@odata.error", replace("/@odata.error", json!({})), "decode")),
        v1(case("success is 0 in v1", replace("/success", json!(0)), "decode")),
    ])
    .await;
}

#[tokio::test]
async fn error_member_in_an_entity_is_a_failure() {
    for generation in ["v1", "v3"] {
        let partner = start(frozen_partner(1)).await;
        let id = ids(&partner)[0].clone();
        let extra_env = [("ELEMENTS_API__VERSION", generation)];
        let exporter = Exporter::start(&partner.base, &["scan_changes"], &extra_env).await;
        let expected = ExpectedFailure {
            collector: "scan_changes",
            id: &id,
            endpoint: "scan_changes",
            reason: "decode",
        };
        assert_poll_fails(&exporter, expected, generation, async || {
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
    let partner = start(frozen_partner(1)).await;
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
        eventually("more polls", || async {
            (partner.handle.requests().len() > 4).then_some(())
        })
        .await;
    }
    let text = exporter.wait_until_settled().await;
    assert_eq!(super::sum(&text, "elements_exporter_api_errors_total"), 0.0, "{text}");
}

#[tokio::test]
async fn lone_surrogate_is_replaced() {
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
        let api = CannedServer::start(&[
            (customers, &format!(r#"{{"\udbff":"\ud800","{list}":[{customer}]}}"#)),
            (jobs, &format!(r#"{{"{list}":[{job}]}}"#)),
        ])
        .await;
        let token = r#"{"access_token":"canned-token","expires_in":3600,"token_type":"\ud800","\ud800":1}"#;
        api.set("POST /connect/token", 200, token);
        let off = |collector: &str| (format!("ELEMENTS_COLLECTORS__{collector}__ENABLED"), "false".to_owned());
        let mut extra_env: Vec<_> = ["PROTECTED", "LICENSES", "SCAN_PROFILES", "SCAN_CHANGES"]
            .map(off)
            .into();
        extra_env.push(("ELEMENTS_API__VERSION".to_owned(), generation.to_owned()));
        let extra_env: Vec<_> = extra_env
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let (text, succeeded) = crate::harness::poll_once(&config(&api.base, &extra_env)).await;
        assert!(succeeded, "{generation}: {text}");
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
    assert_each_fails([
        case("login page", wrong_body("text/html", page), "decode"),
        case(
            "login page declared as JSON",
            wrong_body("application/json", page),
            "decode",
        ),
    ])
    .await;
}

#[tokio::test]
async fn body_nested_too_deeply_is_rejected() {
    let deep = |levels: usize| {
        let nested = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        wrong_body(
            "application/json",
            format!(r#"{{"data":[],"metadata":{{"totalCount":0}},"more":{nested}}}"#),
        )
    };
    let row = format!(r#"{{"value":[{}1{}]}}"#, r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
    assert_each_fails([
        case("a hundred thousand levels", deep(100_000), "decode"),
        case("three hundred levels", deep(300), "decode"),
        v1(case("a deep row", wrong_body("application/json", row), "decode")),
    ])
    .await;
}

#[tokio::test]
async fn tenants_missing_from_a_row_keep_the_last_known_value() {
    let partner = start(frozen_partner(2)).await;
    let exporter = Exporter::start(&partner.base, &[], &[]).await;
    let text = exporter.wait_until_settled().await;
    let tenants = |text: &str| samples(text, "elements_tenant_info") + &samples(text, "elements_customer_tenants");
    let expected = tenants(&text);
    assert!(expected.contains("elements_tenant_info"), "{text}");
    for value in [Value::Null, json!("oops")] {
        partner
            .handle
            .set_faults(vec![Fault::new(super::CUSTOMERS_V3, replace("/data/0/tenants", value))]);
        partner.handle.clear_requests();
        eventually("two lists without tenants", || async {
            let requested = partner.handle.requests();
            let lists = requested.iter().filter(|request| request.path == super::CUSTOMERS_V3);
            (lists.count() > 2).then_some(())
        })
        .await;
        assert_eq!(tenants(&exporter.metrics().await), expected);
    }
    let field = r#"elements_exporter_decode_errors_total{endpoint="customers",field="tenants"}"#;
    exporter
        .wait_until("a value that is not a list is counted", |text| {
            value(text, field) >= Some(1.0)
        })
        .await;
}

#[tokio::test]
async fn additional_fields_are_accepted() {
    let partner = start(frozen_partner(1)).await;
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
        let (text, succeeded) =
            crate::harness::poll_once(&config(&partner.base, &[("ELEMENTS_API__VERSION", generation)])).await;
        assert!(succeeded, "{generation}: {text}");
        assert_eq!(super::sum(&text, "elements_exporter_decode_errors_total"), 0.0);
    }
}

#[tokio::test]
async fn field_of_another_type_is_parsed_if_possible() {
    let partner = start(frozen_partner(1)).await;
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
    for (sent, parsed, expected_errors) in cases {
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
        let (text, succeeded) =
            crate::harness::poll_once(&config(&partner.base, &[("ELEMENTS_API__VERSION", "v1")])).await;
        assert!(succeeded, "{sent}: {text}");
        let labels = format!(r#"{{customer_id="{id}",service="{service}",module="{module}"}}"#);
        assert_eq!(
            value(&text, &format!("elements_protected_scanned_objects{labels}")),
            parsed,
            "{sent}"
        );
        assert!(
            value(&text, &format!("elements_protected_objects{labels}")).is_some(),
            "{sent}: other fields must be parsed"
        );
        let errors = super::sum(&text, "elements_exporter_decode_errors_total{endpoint=\"protected\"");
        assert_eq!(errors, expected_errors, "{sent}");
    }
}

#[tokio::test]
async fn invalid_row_fails_the_poll_and_keeps_other_rows() {
    let partner = start(frozen_partner(2)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[("ELEMENTS_API__VERSION", "v1")]).await;
    let id = ids(&partner)[0].clone();
    let before = exporter.wait_until_settled().await;
    let count_modules = |text: &str| {
        text.matches(&format!("elements_job_status{{customer_id=\"{id}\""))
            .count()
    };
    let modules = count_modules(&before);
    assert!(modules > 1);
    // The field that identifies one row's module becomes invalid, and two values in another row change.
    partner.handle.with_world(|world| {
        let backups = world.customers[0].modules.iter_mut();
        let backups = backups.filter(|module| ![0, 10].contains(&module.job_type));
        let mut runs = backups.filter_map(|module| module.runs.last_mut());
        runs.next()
            .unwrap()
            .raw_fields
            .insert("jobModule".to_owned(), json!([]));
        let changed = runs.next().unwrap();
        changed.raw_fields.insert("status".to_owned(), json!("Rejected"));
        changed.raw_fields.insert("totalCount".to_owned(), json!("987654"));
    });
    let rows = errors("jobs", "unreadable_rows");
    let failed = exporter
        .wait_until("unreadable rows", |text| value(text, &rows) >= Some(1.0))
        .await;
    let later = exporter
        .wait_until("more unreadable rows", |text| {
            value(text, &rows) > value(&failed, &rows)
        })
        .await;
    assert_eq!(number(&later, &success("jobs", &id)), 0.0);
    assert_eq!(
        value(&later, &last_success("jobs", &id)),
        value(&failed, &last_success("jobs", &id))
    );
    assert!(later.lines().any(|line| {
        line.starts_with(&format!("elements_job_processed_objects{{customer_id=\"{id}\"")) && line.ends_with(" 987654")
    }));
    assert_eq!(
        count_modules(&later),
        modules,
        "the module with the invalid row must keep its values"
    );
    partner
        .handle
        .set_faults(vec![Fault::new(JOBS_V1, replace("/value/-", json!("no row")))]);
    let text = exporter
        .wait_until("a row that is not an object", |text| {
            value(text, &rows) > value(&later, &rows)
        })
        .await;
    assert_eq!(count_modules(&text), modules);
}

#[tokio::test]
async fn partial_response_keeps_its_rows_fresh_and_others_expire() {
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
    let api = CannedServer::start(&[
        ("GET /partner/customers", customers),
        (
            "GET /partner/services",
            &services(r#"{"service":"B","purchasedUserSeats":7}"#),
        ),
        ("GET /partner/customers/one/jobs", &jobs(r#""Exchange Online""#)),
        ("GET /partner/customers/two/jobs", r#"{"value":[]}"#),
    ])
    .await;
    let extra_env = [
        ("ELEMENTS_API__VERSION", "v1"),
        ("ELEMENTS_COLLECTORS__LICENSES__STALE_AFTER", "2s"),
        ("ELEMENTS_COLLECTORS__JOBS__STALE_AFTER", "2s"),
    ];
    let exporter = Exporter::start(&api.base, &["licenses", "jobs"], &extra_env).await;
    exporter.wait_until_settled().await;
    api.set("GET /partner/services", 200, &services(r#"{"service":null}"#));
    api.set("GET /partner/customers/one/jobs", 200, &jobs("null"));
    let seats = |customer, service| {
        format!(r#"elements_license_purchased_seats{{customer_id="{customer}",license="",service="{service}"}}"#)
    };
    let status =
        |module| format!(r#"elements_job_status{{customer_id="one",service="Microsoft 365",module="{module}"}}"#);
    let expired = exporter
        .wait_until("values of invalid rows expire", |text| {
            value(text, &seats("one", "B")).is_none() && value(text, &status("Exchange Online")).is_none()
        })
        .await;
    assert_eq!(number(&expired, &success("licenses", "")), 0.0);
    assert_eq!(number(&expired, &success("jobs", "one")), 0.0);
    let polls = |text: &str| number(text, &errors("licenses", "unreadable_rows"));
    let text = exporter
        .wait_until("three more polls", |text| polls(text) >= polls(&expired) + 3.0)
        .await;
    assert_eq!(value(&text, &seats("one", "A")), Some(5.0));
    assert_eq!(value(&text, &seats("two", "A")), Some(6.0));
    assert_eq!(value(&text, &status("OneDrive")), Some(2.0));
    assert!(text.contains(r#"elements_license_info{customer_id="one",license="",service="B""#));
    let backup = r#"elements_job_last_backup_timestamp_seconds{customer_id="one",service="Microsoft 365",module="Exchange Online"}"#;
    assert!(value(&text, backup).is_some(), "a dated fact must not expire");
}
