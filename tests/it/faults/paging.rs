//! Paged lists: links to other origins, missing or inconsistent pages, wrong totals and shrunken lists.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use elements_exporter::simulator::{Fault, FaultKind, Settings};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{
    CUSTOMERS_V1, CUSTOMERS_V3, ExpectedFailure, Exporter, assert_poll_fails, errors, ids, number, state, success, sum,
};
use crate::harness::partner::{Partner, frozen_partner, start};
use crate::harness::scripted::{ScriptedServer, json as response, token};
use crate::harness::{eventually, value};

/// Checks that, with the given API version, polls fail for `reason` while the customer list has the fault.
async fn assert_list_fails(partner: &Partner, generation: &str, kind: FaultKind, reason: &str, case: &str) -> String {
    let path = if generation == "v1" { CUSTOMERS_V1 } else { CUSTOMERS_V3 };
    let exporter = Exporter::start(&partner.base, &[], &[("ELEMENTS_API__VERSION", generation)]).await;
    let text = assert_poll_fails(&exporter, ExpectedFailure::list(reason), case, async || {
        // If any part of the list were applied, the new name would be exposed.
        partner
            .handle
            .with_world(|world| world.customers[0].organization = "Renamed".to_owned());
        partner.handle.set_faults(vec![Fault::new(path, kind)]);
    })
    .await;
    assert!(!text.contains("Renamed"), "{case}");
    text
}

#[tokio::test]
async fn link_to_another_origin_is_not_requested() {
    let other_server = ScriptedServer::start(|_| response(200, r#"{"value":[]}"#)).await;
    let other = other_server.base.trim_start_matches("http://").to_owned();
    let links = |base: &str| {
        let own = base.trim_start_matches("http://");
        let port = own.rsplit_once(':').unwrap().1;
        vec![
            format!("http://{other}/partner/customers"),
            format!("https://{own}/partner/customers"),
            format!("//{other}/partner/customers"),
            format!("\\\\{other}\\partner\\customers"),
            format!("http://{own}@{other}/partner/customers"),
            format!("http://user:password@{own}/partner/customers"),
            format!("http://user@{own}/partner/customers"),
            format!("http://{own}.evil.example/partner/customers"),
            format!("http://localhost:{port}/partner/customers"),
            format!("ftp://{own}/partner/customers"),
            "file:///etc/passwd".to_owned(),
            "data:application/json,{\"value\":[]}".to_owned(),
            "http://".to_owned(),
        ]
    };
    let partner = start(frozen_partner(2)).await;
    let count = links(&partner.base).len();
    join_all((0..count).map(async |index| {
        let partner = start(frozen_partner(2)).await;
        let url = links(&partner.base)[index].clone();
        let text = assert_list_fails(
            &partner,
            "v1",
            FaultKind::NextLink { url: url.clone() },
            "foreign_link",
            &url,
        )
        .await;
        assert_eq!(number(&text, "elements_up"), 0.0, "{url}");
    }))
    .await;
    let requested = other_server.requests();
    assert!(requested.is_empty(), "{requested:?}");
}

#[tokio::test]
async fn link_within_the_origin_is_followed() {
    let partner = start(Settings {
        v1_page_size: Some(2),
        ..frozen_partner(7)
    })
    .await;
    let exporter = Exporter::start(&partner.base, &[], &[("ELEMENTS_API__VERSION", "v1")]).await;
    let text = exporter.wait_until_settled().await;
    assert_eq!(text.matches("elements_customer_info{").count(), 7);
}

#[tokio::test]
async fn repeated_link_makes_the_list_incomplete() {
    let partner = start(frozen_partner(2)).await;
    let next_link = |url: String| FaultKind::NextLink { url };
    let same_page = next_link(CUSTOMERS_V1.to_owned());
    assert_list_fails(&partner, "v1", same_page, "incomplete", "to itself").await;
    let partner = start(frozen_partner(2)).await;
    let second_page = next_link(format!("{}{CUSTOMERS_V1}?$skip=1", partner.base));
    assert_list_fails(
        &partner,
        "v1",
        second_page,
        "incomplete",
        "to the second page repeatedly",
    )
    .await;
}

#[tokio::test]
async fn endless_list_is_stopped() {
    let endless = Arc::new(AtomicBool::new(false));
    let on = Arc::clone(&endless);
    let server = ScriptedServer::start(move |request| {
        if request.line.starts_with("POST") {
            return token();
        }
        let page: usize = request
            .line
            .rsplit_once("page=")
            .map_or(0, |(_, page)| page.parse().unwrap());
        let id = if on.load(Ordering::SeqCst) {
            format!("c-{page}")
        } else {
            "c-0".to_owned()
        };
        let mut list = json!({"value": [{"id": id, "organization": "One"}]});
        if on.load(Ordering::SeqCst) {
            list["@odata.nextLink"] = json!(format!("/partner/customers?page={}", page + 1));
        }
        response(200, list.to_string())
    })
    .await;
    let extra_env = [
        ("ELEMENTS_API__VERSION", "v1"),
        ("ELEMENTS_API__REQUESTS_PER_SECOND", "1000"),
    ];
    let exporter = Exporter::start(&server.base, &[], &extra_env).await;
    let expected = ExpectedFailure::list("incomplete");
    assert_poll_fails(&exporter, expected, "an endless list", async || {
        endless.store(true, Ordering::SeqCst);
    })
    .await;
}

#[tokio::test]
async fn server_that_ignores_the_page_number_is_detected() {
    let partner = start(frozen_partner(250)).await;
    assert_list_fails(
        &partner,
        "v3",
        FaultKind::IgnorePaging,
        "incomplete",
        "the first page repeatedly",
    )
    .await;
}

#[tokio::test]
async fn persistent_wrong_total_makes_the_list_incomplete() {
    join_all([0, 1, 4, 1_000_000].map(|n| async move {
        let partner = start(frozen_partner(3)).await;
        assert_list_fails(
            &partner,
            "v3",
            FaultKind::TotalCount { n },
            "incomplete",
            &format!("a total of {n}"),
        )
        .await;
    }))
    .await;
}

#[tokio::test]
async fn wrong_total_is_requested_again() {
    let partner = start(frozen_partner(3)).await;
    let exporter = Exporter::start(&partner.base, &[], &[]).await;
    exporter.wait_until_settled().await;
    let wrong = Fault::new(CUSTOMERS_V3, FaultKind::TotalCount { n: 1 }).times(1);
    partner.handle.clear_requests();
    partner.handle.set_faults(vec![wrong]);
    partner
        .handle
        .with_world(|world| world.customers[0].organization = "Renamed".to_owned());
    let text = exporter
        .wait_until("the second attempt is applied", |text| text.contains("Renamed"))
        .await;
    assert_eq!(sum(&text, "elements_exporter_api_errors_total"), 0.0);
}

fn rows(range: std::ops::Range<usize>) -> serde_json::Value {
    range
        .map(|n| json!({"id": format!("c-{n}"), "organization": "One"}))
        .collect()
}

/// Starts an API with the given pages of the v3 customer list.
async fn pages(pages: Vec<serde_json::Value>) -> ScriptedServer {
    ScriptedServer::start(move |request| {
        let Some((_, index)) = request.line.split_once("pageIndex=") else {
            return token();
        };
        let index: usize = index.split('&').next().unwrap().parse().unwrap();
        response(200, pages[index - 1].to_string())
    })
    .await
}

#[tokio::test]
async fn total_missing_from_a_page_is_ignored() {
    let total = |n: usize| json!({"totalCount": n});
    let metadata = |first, second, third| {
        vec![
            json!({"data": rows(0..100), "metadata": first}),
            json!({"data": rows(100..200), "metadata": second}),
            json!({"data": rows(200..250), "metadata": third}),
        ]
    };
    let no_total = json!({"totalCount": null});
    for (case, pages_of) in [
        ("on the first page", metadata(total(250), json!({}), no_total.clone())),
        ("on the second page", metadata(json!({}), total(250), json!(null))),
        (
            "on the last page",
            metadata(no_total.clone(), no_total.clone(), total(250)),
        ),
    ] {
        let server = pages(pages_of).await;
        let exporter = Exporter::start(&server.base, &[], &[]).await;
        let text = exporter.wait_until_settled().await;
        assert_eq!(text.matches("elements_customer_info{").count(), 250, "{case}");
        assert_eq!(sum(&text, "elements_exporter_api_errors_total"), 0.0, "{case}");
    }
    for (case, pages_of) in [
        ("two totals", metadata(total(250), json!({}), total(251))),
        ("total too high", metadata(total(251), json!({}), json!({}))),
    ] {
        let mut pages_of = pages_of;
        pages_of.push(json!({"data": []}));
        let server = pages(pages_of).await;
        let exporter = Exporter::start(&server.base, &[], &[]).await;
        let incomplete = errors("customers", "incomplete");
        let text = exporter
            .wait_until(case, |text| value(text, &incomplete) >= Some(1.0))
            .await;
        assert!(!text.contains("elements_customer_info{"), "{case}");
    }
}

#[tokio::test]
async fn row_that_moves_between_pages_makes_a_list_incomplete() {
    let scope = |n: usize| {
        json!({
            "jobType": 12, "jobModule": 363, "name": format!("Scope {n}"), "status": 2, "jobId": format!("j-{n}"),
            "startTime": "2026-11-01T00:00:00Z", "endTime": "2026-11-01T01:00:00Z",
        })
    };
    for (generation, metadata) in [("v1", json!({})), ("v3", json!({})), ("v3", json!({"totalCount": 150}))] {
        let moves = Arc::new(AtomicUsize::new(1));
        let moved = Arc::clone(&moves);
        let server = ScriptedServer::start(move |request| {
            if request.line.contains("/connect/token") {
                return token();
            }
            if !request.line.contains("/jobs") {
                return response(200, json!({"data": rows(0..1), "value": rows(0..1)}).to_string());
            }
            let page = match request
                .line
                .rsplit_once("pageIndex=")
                .or(request.line.rsplit_once("skip="))
            {
                Some((_, index)) => index[..1].parse().unwrap(),
                None => 1,
            };
            let listed: Vec<Value> = match (page, moved.load(Ordering::SeqCst)) {
                (1, _) => (0..100).map(scope).collect(),
                (2, 0) => (100..150).map(scope).collect(),
                // A different row moves in each attempt.
                (2, n) => {
                    moved.store(n % 50 + 1, Ordering::SeqCst);
                    std::iter::once(n).chain(100..149).map(scope).collect()
                }
                _ => Vec::new(),
            };
            let list = json!({"data": listed, "value": listed, "metadata": metadata});
            let mut list = list.as_object().unwrap().clone();
            if page == 1 && request.line.starts_with("GET /partner/customers") {
                list.insert("odata.nextLink".to_owned(), json!("?skip=2"));
            }
            response(200, Value::from(list).to_string())
        })
        .await;
        let exporter = Exporter::start(&server.base, &["jobs"], &[("ELEMENTS_API__VERSION", generation)]).await;
        let incomplete = errors("jobs", "incomplete");
        let text = exporter
            .wait_until("an incomplete list", |text| value(text, &incomplete) >= Some(1.0))
            .await;
        assert_eq!(text.matches("elements_job_status{").count(), 0, "{generation}");
        moves.store(0, Ordering::SeqCst);
        exporter
            .wait_until("all scopes", |text| text.matches("elements_job_status{").count() == 150)
            .await;
    }
}

#[tokio::test]
async fn v1_count_above_the_rows_makes_the_list_incomplete() {
    let partner = start(frozen_partner(3)).await;
    let counted = |pointer: &str, n: usize| FaultKind::Replace {
        pointer: pointer.to_owned(),
        value: json!(n),
    };
    for name in ["@odata.count", "odata.count", "count", "totalCount"] {
        let pointer = format!("/{name}");
        let text = assert_list_fails(&partner, "v1", counted(&pointer, 4), "incomplete", name).await;
        assert!(text.contains("elements_customer_info{"), "{name}");
        partner
            .handle
            .set_faults(vec![Fault::new(CUSTOMERS_V1, counted(&pointer, 3))]);
        let exporter = Exporter::start(&partner.base, &[], &[("ELEMENTS_API__VERSION", "v1")]).await;
        exporter.wait_until_settled().await;
        partner.handle.clear_faults();
        partner
            .handle
            .with_world(|world| world.customers[0].organization = "Unchanged".to_owned());
    }
    let metadata = json!({"@odata.count": 4});
    let in_metadata = FaultKind::Replace {
        pointer: "/metadata".to_owned(),
        value: metadata,
    };
    assert_list_fails(&partner, "v1", in_metadata, "incomplete", "in metadata").await;
}

#[tokio::test]
async fn wrong_count_is_requested_again() {
    let wrong = Arc::new(AtomicBool::new(true));
    let server = ScriptedServer::start(move |request| {
        if request.line.starts_with("POST") {
            return token();
        }
        if request.line.contains("skip") {
            return response(200, json!({"value": rows(1..2)}).to_string());
        }
        let count = if wrong.swap(false, Ordering::SeqCst) { 3 } else { 2 };
        let link = "/partner/customers?skip=1";
        response(
            200,
            json!({"value": rows(0..1), "count": count, "odata.nextLink": link}).to_string(),
        )
    })
    .await;
    let exporter = Exporter::start(&server.base, &[], &[("ELEMENTS_API__VERSION", "v1")]).await;
    let text = exporter.wait_until_settled().await;
    assert_eq!(text.matches("elements_customer_info{").count(), 2);
    assert_eq!(sum(&text, "elements_exporter_api_errors_total"), 0.0);
    let second_pages = server
        .requests()
        .iter()
        .filter(|request| request.line.contains("skip"))
        .count();
    assert!(second_pages >= 2, "{second_pages}");
}

#[tokio::test]
async fn failed_page_fails_the_whole_list() {
    let partner = start(Settings {
        v1_page_size: Some(1),
        ..frozen_partner(20)
    })
    .await;
    let exporter = Exporter::start(&partner.base, &[], &[("ELEMENTS_API__VERSION", "v1")]).await;
    let text = assert_poll_fails(&exporter, ExpectedFailure::list("not_found"), "page 7", async || {
        partner
            .handle
            .with_world(|world| world.customers[0].organization = "Renamed".to_owned());
        let missing = FaultKind::Status { code: 404, body: None };
        partner
            .handle
            .set_faults(vec![Fault::new(CUSTOMERS_V1, missing).after(6)]);
    })
    .await;
    assert!(!text.contains("Renamed"));
}

#[tokio::test]
async fn shrunken_list_is_not_applied_at_first() {
    join_all(
        [("sharply", 10), ("to nothing", 0)].map(|(case, remaining)| async move {
            let partner = start(frozen_partner(40)).await;
            let exporter = Exporter::start(&partner.base, &[], &[("ELEMENTS_API__VERSION", "v1")]).await;
            exporter.wait_until_settled().await;
            let remaining: Vec<Value> = partner.handle.with_world(|world| {
                let remaining = world.customers.iter().take(remaining);
                remaining
                    .map(|customer| json!({"id": customer.id, "organization": customer.organization}))
                    .collect()
            });
            let shrunken = FaultKind::WrongBody {
                content_type: "application/json".to_owned(),
                body: json!({"value": remaining}).to_string(),
            };
            let unavailable = FaultKind::Status { code: 503, body: None };
            // Later requests for the list fail, so that no second list confirms the change.
            partner.handle.set_faults(vec![
                Fault::new(CUSTOMERS_V1, shrunken).times(1),
                Fault::new(CUSTOMERS_V1, unavailable),
            ]);
            let shrunk = errors("customers", "shrunk");
            let text = exporter
                .wait_until("the shrunken list fails the poll", |text| {
                    let failed = |series: &str| value(text, series) == Some(0.0);
                    value(text, &shrunk) >= Some(1.0) && failed(&success("customers", "")) && failed("elements_up")
                })
                .await;
            assert_eq!(text.matches("elements_customer_info{").count(), 40, "{case}");
            partner.handle.clear_faults();
            let text = exporter.wait_until_settled().await;
            assert_eq!(text.matches("elements_customer_info{").count(), 40, "{case}");
            assert_eq!(number(&text, &shrunk), 1.0, "{case}");
        }),
    )
    .await;
}

#[tokio::test]
async fn shrunken_list_is_applied_if_confirmed() {
    let partner = start(frozen_partner(40)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    exporter.wait_until_settled().await;
    let removed = ids(&partner)[10..].iter().cloned().collect::<BTreeSet<_>>();
    partner.handle.with_world(|world| world.customers.truncate(10));
    let customers = |text: &str| -> f64 {
        let states = ["fresh", "stale", "failed", "forbidden", "unlicensed", "pending"];
        states.map(|name| number(text, &state("jobs", name))).iter().sum()
    };
    // During the change, the counts in a scrape may differ from its series.
    let text = exporter
        .wait_until("thirty customers are removed from series and counts", |text| {
            text.matches("elements_customer_info{").count() == 10 && customers(text) <= 10.0
        })
        .await;
    assert!(
        number(&text, &errors("customers", "shrunk")) >= 1.0,
        "the first shrunken list was applied"
    );
    assert!(
        !removed.iter().any(|id| text.contains(id.as_str())),
        "series of removed customers remain"
    );
    assert_eq!(customers(&text), 10.0);
    eventually("the remaining customers are polled", || async {
        let requests = partner.handle.requests();
        let newest = requests.iter().rev().take(30);
        let mut polled = newest.filter(|request| request.path.ends_with("/jobs/batch"));
        polled
            .all(|request| !removed.iter().any(|id| request.path.contains(id.as_str())))
            .then_some(())
    })
    .await;
}
