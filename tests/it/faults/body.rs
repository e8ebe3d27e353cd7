//! Bodies that are not what they should be.

use elements_exporter::simulator::{Fault, FaultKind};
use serde_json::{Value, json};

use super::{Case, Exporter, JOBS_V1, case, errors, hold_each, ids, last_success, number, success};
use crate::canned::Canned;
use crate::support::{config, value};
use crate::world::{start, still};

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
async fn a_body_that_breaks_off_is_discarded_whole() {
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
async fn a_body_that_is_no_list_is_never_an_empty_one() {
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
async fn a_login_page_is_no_answer() {
    let page = "<!doctype html><html><title>Sign in</title></html>";
    hold_each([
        case("login page", wrong("text/html", page), "decode"),
        case("login page called JSON", wrong("application/json", page), "decode"),
    ])
    .await;
}

#[tokio::test]
async fn a_body_too_deep_is_refused() {
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
async fn further_fields_are_accepted() {
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
        let (text, good) = super::polled_once(&config(&partner.base, &[("ELEMENTS_API__VERSION", generation)])).await;
        assert!(good, "{generation}: {text}");
        assert_eq!(super::sum(&text, "elements_exporter_decode_errors_total"), 0.0);
    }
}

#[tokio::test]
async fn a_field_of_another_type_is_read_where_it_can_be() {
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
        let (text, good) = super::polled_once(&config(&partner.base, &[("ELEMENTS_API__VERSION", "v1")])).await;
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
async fn a_row_that_cannot_be_read_leaves_the_others_and_the_poll_incomplete() {
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
    // One row loses what says which module it is, another changes.
    let changed = partner.handle.with_world(|world| {
        let modules = &mut world.customers[0].modules;
        let mut ran = modules.iter_mut().filter_map(|module| module.runs.last_mut());
        ran.next().unwrap().raw_fields.insert("jobModule".to_owned(), json!([]));
        let changed = ran.next().unwrap();
        changed.raw_fields.insert("status".to_owned(), json!("Rejected"));
        changed.raw_fields.insert("totalCount".to_owned(), json!("987654"));
        modules.len()
    });
    assert_eq!(changed, modules);
    let rows = errors("jobs", "unreadable_rows");
    let failed = exporter
        .until("unreadable rows", |text| value(text, &rows) >= Some(1.0))
        .await;
    let again = exporter
        .until("unreadable rows again", |text| {
            value(text, &rows) > value(&failed, &rows)
        })
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
        "the module that could not be read stands as it was"
    );
    partner
        .handle
        .set_faults(vec![Fault::new(JOBS_V1, replace("/value/-", json!("no row")))]);
    let more = exporter
        .until("a row that is no object", |text| {
            value(text, &rows) > value(&again, &rows)
        })
        .await;
    assert_eq!(shown(&more), modules);
}

#[tokio::test]
async fn what_a_partial_answer_tells_stays_current_and_the_rest_ages() {
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
        .until("what could not be read is old", |text| {
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
