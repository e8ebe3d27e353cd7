//! Hostile values: control characters, markup, path segments and oversized text.

use elements_exporter::simulator::{Fault, FaultKind};
use serde_json::json;

use super::{CUSTOMERS_V1, Exporter, errors, ids, number, success, sum};
use crate::harness::canned::CannedServer;
use crate::harness::parser;
use crate::harness::partner::{frozen_partner, start};
use crate::harness::{config, poll_once_validated, value};

/// Returns hostile names for organizations, profiles, modules and subscriptions.
fn names() -> Vec<String> {
    let plain = [
        "quotes \" and 'more'",
        "back\\slash \\\" \\n",
        "new\nline\r\nand more",
        "nul \0 and bell \u{7}",
        "bidi \u{202e}\u{2066} marks",
        "line \u{2028} and paragraph \u{2029}",
        "\"} 0\nfake 1",
        "x\",organization=\"y",
        "# HELP fake fake\n# TYPE fake gauge\nfake 1\n# EOF",
        "{{ $value }} {{ template \"x\" }}",
        "<script>alert(1)</script><img src=x onerror=alert(1)>",
        "\u{feff}byte order mark",
        "emoji 🦀 and é",
    ];
    plain
        .into_iter()
        .map(ToOwned::to_owned)
        .chain([
            "m".repeat(1 << 20),
            "\"".repeat(1 << 14),
            "\n".repeat(1 << 14),
            "🦀".repeat(1 << 14),
        ])
        .collect()
}

#[tokio::test]
async fn hostile_names_are_escaped_truncated_and_unique() {
    let names = names();
    let partner = start(frozen_partner(names.len())).await;
    partner.handle.with_world(|world| {
        for (customer, name) in world.customers.iter_mut().zip(&names) {
            customer.organization.clone_from(name);
            // Other names are shorter, because several metrics contain them.
            let name = &name.chars().take(2_000).collect::<String>();
            customer.country.clone_from(name);
            for profile in &mut customer.scan_profiles {
                profile.name.clone_from(name);
                profile.tenant_domain.clone_from(name);
            }
            for product in &mut customer.products {
                product.subscription_name.clone_from(name);
                product.package.clone_from(name);
            }
            for run in customer.modules.iter_mut().filter_map(|module| module.runs.last_mut()) {
                run.name.clone_from(name);
            }
        }
    });
    for generation in ["v1", "v3"] {
        // `poll_once_validated` runs independent parsers, which detect duplicate series.
        let (text, succeeded) =
            poll_once_validated(&config(&partner.base, &[("ELEMENTS_API__VERSION", generation)])).await;
        assert!(succeeded, "{generation}");
        assert_eq!(text.matches("\nelements_customer_info{").count(), names.len());
        assert!(
            !text.lines().any(|line| line.starts_with("fake")),
            "a name became a line of its own"
        );
        let longest = text.lines().map(str::len).max().unwrap();
        assert!(longest < 16 * 1024, "{longest} bytes in one line");
        assert!(!text.contains(['\0', '\u{7}', '\r', '\u{202e}', '\u{2066}', '\u{2028}']));
    }
}

#[tokio::test]
async fn hostile_modules_and_types_have_one_sample_each() {
    let names = names().into_iter().filter(|name| name.len() < 1024);
    let rows: Vec<_> = names
        .map(|name| super::meaning::job("A", json!({"jobType": name, "jobModule": name})))
        .collect();
    let text = super::meaning::exposition_of(&rows).await;
    assert!(!text.lines().any(|line| line.starts_with("fake")));
    assert!(text.lines().all(|line| line.len() < 16 * 1024));
    let exported = text.matches("\nelements_job_status{").count();
    assert_eq!(exported, rows.len(), "different names must result in separate series");
}

#[tokio::test]
async fn hostile_names_are_safe_in_openmetrics_and_on_the_page() {
    let names = names();
    let partner = start(frozen_partner(names.len())).await;
    partner.handle.with_world(|world| {
        for (customer, name) in world.customers.iter_mut().zip(&names) {
            customer.organization.clone_from(name);
        }
    });
    let exporter = Exporter::start(&partner.base, &[], &[]).await;
    exporter.wait_until_settled().await;
    let request = exporter.client.get(format!("{}/metrics", exporter.base));
    let request = request.header("accept", "application/openmetrics-text;version=1.0.0");
    let text = request.send().await.unwrap().text().await.unwrap();
    parser::assert_openmetrics(&text);
    let (status, page) = exporter.get("/").await;
    assert_eq!(status, 200);
    // The page contains no script but its own.
    assert_eq!(page.matches("<script").count(), 1, "{page}");
    assert!(!page.contains("<img"), "{page}");
}

#[tokio::test]
async fn id_with_path_characters_is_percent_encoded() {
    let id = "../../x?y#z";
    let partner = start(frozen_partner(2)).await;
    partner.handle.with_world(|world| world.customers[0].id = id.to_owned());
    for (generation, jobs) in [
        ("v1", "/partner/customers"),
        ("v3", "/partner/external/v3/general/customers"),
    ] {
        partner.handle.clear_requests();
        let (text, succeeded) =
            poll_once_validated(&config(&partner.base, &[("ELEMENTS_API__VERSION", generation)])).await;
        assert!(succeeded, "{text}");
        assert_eq!(number(&text, &success("jobs", id)), 1.0);
        let requests = partner.handle.requests();
        let customer_requests = requests.iter().filter(|request| request.path.contains("%3Fy%23z"));
        let paths: Vec<_> = customer_requests.map(|request| request.path.as_str()).collect();
        assert!(paths.iter().any(|path| path.contains("/jobs")), "{paths:?}");
        assert!(
            paths
                .iter()
                .all(|path| path.starts_with(&format!("{jobs}/..%2F..%2Fx%3Fy%23z/"))),
            "{paths:?}"
        );
        assert!(requests.iter().all(|request| request.status == 200), "a request failed");
    }
}

#[tokio::test]
async fn id_that_is_a_dot_segment_is_not_requested() {
    for id in [".", ".."] {
        let list = json!({"value": [{"id": id, "organization": "Dots"}, {"id": "c-1", "organization": "One"}]});
        let canned = CannedServer::start(&[
            ("GET /partner/customers", &list.to_string()),
            ("GET /partner/customers/c-1/jobs", r#"{"value":[]}"#),
        ])
        .await;
        let exporter = Exporter::start(&canned.base, &["jobs"], &[("ELEMENTS_API__VERSION", "v1")]).await;
        let text = exporter
            .wait_until("the id is rejected", |text| {
                value(text, &errors("jobs", "unusable_id")) >= Some(1.0) && value(text, &success("jobs", id)).is_some()
            })
            .await;
        assert_eq!(number(&text, &success("jobs", id)), 0.0);
        let requested = |line: &str| ["GET /partner/customers", "GET /partner/customers/c-1/jobs"].contains(&line);
        assert!(
            canned.requests().iter().all(|request| requested(&request.line)),
            "{:?}",
            canned.requests()
        );
    }
}

#[tokio::test]
async fn id_that_is_too_long_invalidates_its_row() {
    let partner = start(frozen_partner(2)).await;
    let exporter = Exporter::start(&partner.base, &[], &[("ELEMENTS_API__VERSION", "v1")]).await;
    let before = exporter.wait_until_settled().await;
    let row = json!({"id": "x".repeat(1 << 20), "organization": "Long"});
    let add = FaultKind::Replace {
        pointer: "/value/-".to_owned(),
        value: row,
    };
    partner.handle.set_faults(vec![Fault::new(CUSTOMERS_V1, add)]);
    let unreadable = errors("customers", "unreadable_rows");
    let text = exporter
        .wait_until("the invalid row is counted", |text| {
            value(text, &unreadable) >= Some(1.0)
        })
        .await;
    assert_eq!(text.matches("elements_customer_info{").count(), 2);
    assert!(text.len() < before.len() + 4096);
    assert_eq!(sum(&text, "elements_exporter_customers{collector=\"customers\""), 2.0);
    assert_eq!(ids(&partner).len(), 2);
}

#[tokio::test]
async fn lookalike_names_are_merged_and_ids_are_rejected() {
    let customers = r#"{"value":[{"id":"one","organization":"One"},{"id":"x\u202e","organization":"X"},
        {"id":"x\u202d","organization":"Y"}]}"#;
    let run = |module: &str, id: &str, status: u8| {
        format!(
            r#"{{"jobType":7,"jobModule":"{module}","jobId":"{id}","status":{status},
            "startTime":"2026-01-01T00:00:00Z","endTime":"2026-01-01T01:00:00Z"}}"#
        )
    };
    let jobs = format!(
        r#"{{"value":[{},{}]}}"#,
        run("A\\u0000", "a", 2),
        run("A\\u0001", "b", 3)
    );
    let api = CannedServer::start(&[
        ("GET /partner/customers", customers),
        ("GET /partner/customers/one/jobs", &jobs),
    ])
    .await;
    let exporter = Exporter::start(&api.base, &["jobs"], &[("ELEMENTS_API__VERSION", "v1")]).await;
    let text = exporter
        .wait_until("jobs are exported", |text| text.contains("elements_job_status{"))
        .await;
    parser::assert_text_format(&text);
    assert_eq!(text.matches("elements_customer_info{").count(), 1);
    assert!(number(&text, &errors("customers", "unreadable_rows")) >= 1.0);
    let status = "elements_job_status{customer_id=\"one\",service=\"Microsoft 365\",module=\"A\u{fffd}\"}";
    assert_eq!(value(&text, status), Some(3.0));
}
