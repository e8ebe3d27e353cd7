//! Lists that come in pages, and not all of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use elements_exporter::simulator::{Fault, FaultKind, Settings};
use futures_util::future::join_all;
use serde_json::json;

use super::scripted::{Scripted, json as answer, token};
use super::{CUSTOMERS_V1, CUSTOMERS_V3, Exporter, Failing, errors, holds, ids, number, state, success, sum};
use crate::support::{eventually, value};
use crate::world::{Partner, start, still};

/// A list of customers that fails for this reason.
fn list(reason: &str) -> Failing<'_> {
    Failing {
        collector: "customers",
        id: "",
        endpoint: "customers",
        reason,
    }
}

/// Holds while the customer list has a fault, of an exporter that speaks a generation.
async fn list_holds(partner: &Partner, generation: &str, kind: FaultKind, reason: &str, case: &str) -> String {
    let path = if generation == "v1" { CUSTOMERS_V1 } else { CUSTOMERS_V3 };
    let exporter = Exporter::start(&partner.base, &[], &[("ELEMENTS_API__VERSION", generation)]).await;
    let text = holds(&exporter, list(reason), case, async || {
        // A rename that would show, were anything of the list taken in.
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
async fn a_link_to_another_place_gets_no_request() {
    let elsewhere = Scripted::start(|_| answer(200, r#"{"value":[]}"#)).await;
    let other = elsewhere.base.trim_start_matches("http://").to_owned();
    let links = |own: &str| {
        let own = own.trim_start_matches("http://");
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
    let partner = start(still(2)).await;
    let count = links(&partner.base).len();
    join_all((0..count).map(async |index| {
        let partner = start(still(2)).await;
        let url = links(&partner.base)[index].clone();
        let text = list_holds(
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
    let asked = elsewhere.asked();
    assert!(asked.is_empty(), "{asked:?}");
}

#[tokio::test]
async fn a_link_within_the_origin_is_followed() {
    let partner = start(Settings {
        v1_page_size: Some(2),
        ..still(7)
    })
    .await;
    let exporter = Exporter::start(&partner.base, &[], &[("ELEMENTS_API__VERSION", "v1")]).await;
    let text = exporter.settled().await;
    assert_eq!(text.matches("elements_customer_info{").count(), 7);
}

#[tokio::test]
async fn a_link_seen_before_ends_the_list_as_incomplete() {
    let partner = start(still(2)).await;
    let circle = |url: String| FaultKind::NextLink { url };
    let itself = circle(CUSTOMERS_V1.to_owned());
    list_holds(&partner, "v1", itself, "incomplete", "to itself").await;
    let partner = start(still(2)).await;
    let later = circle(format!("{}{CUSTOMERS_V1}?$skip=1", partner.base));
    list_holds(&partner, "v1", later, "incomplete", "to the second page for ever").await;
}

#[tokio::test]
async fn a_list_without_end_is_given_up() {
    let endless = Arc::new(AtomicBool::new(false));
    let on = Arc::clone(&endless);
    let server = Scripted::start(move |asked| {
        if asked.line.starts_with("POST") {
            return token();
        }
        let page: usize = asked
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
        answer(200, list.to_string())
    })
    .await;
    let more = [
        ("ELEMENTS_API__VERSION", "v1"),
        ("ELEMENTS_API__REQUESTS_PER_SECOND", "1000"),
    ];
    let exporter = Exporter::start(&server.base, &[], &more).await;
    exporter.settled().await;
    endless.store(true, Ordering::SeqCst);
    let incomplete = errors("customers", "incomplete");
    let text = exporter
        .until("it is given up", |text| value(text, &incomplete) >= Some(1.0))
        .await;
    assert_eq!(
        text.matches("elements_customer_info{").count(),
        1,
        "nothing of it was taken in"
    );
    assert_eq!(number(&text, &success("customers", "")), 0.0);
}

#[tokio::test]
async fn a_server_that_ignores_the_page_is_found_out() {
    let partner = start(still(250)).await;
    list_holds(
        &partner,
        "v3",
        FaultKind::IgnorePaging,
        "incomplete",
        "the first page for ever",
    )
    .await;
}

#[tokio::test]
async fn a_total_that_stays_wrong_is_incomplete() {
    join_all([0, 1, 4, 1_000_000].map(|n| async move {
        let partner = start(still(3)).await;
        list_holds(
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
async fn a_total_that_was_wrong_once_is_asked_for_again() {
    let partner = start(still(3)).await;
    let exporter = Exporter::start(&partner.base, &[], &[]).await;
    exporter.settled().await;
    let wrong = Fault::new(CUSTOMERS_V3, FaultKind::TotalCount { n: 1 }).times(1);
    partner.handle.clear_requests();
    partner.handle.set_faults(vec![wrong]);
    partner
        .handle
        .with_world(|world| world.customers[0].organization = "Renamed".to_owned());
    let text = exporter
        .until("the second walk counts", |text| text.contains("Renamed"))
        .await;
    assert_eq!(sum(&text, "elements_exporter_api_errors_total"), 0.0);
}

#[tokio::test]
async fn a_page_that_fails_costs_the_whole_list() {
    let partner = start(Settings {
        v1_page_size: Some(1),
        ..still(20)
    })
    .await;
    let exporter = Exporter::start(&partner.base, &[], &[("ELEMENTS_API__VERSION", "v1")]).await;
    let text = holds(&exporter, list("not_found"), "page 7", async || {
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
async fn a_list_that_shrinks_for_once_is_not_believed() {
    join_all([("sharply", 10), ("to nothing", 0)].map(|(case, kept)| async move {
        let partner = start(still(40)).await;
        let exporter = Exporter::start(
            &partner.base,
            &[],
            &[("ELEMENTS_COLLECTORS__CUSTOMERS__INTERVAL", "3s")],
        )
        .await;
        exporter.settled().await;
        let all = partner.handle.with_world(|world| {
            let all = world.customers.clone();
            world.customers.truncate(kept);
            all
        });
        let shrunk = errors("customers", "shrunk");
        let text = exporter
            .until("the list shrank", |text| value(text, &shrunk) >= Some(1.0))
            .await;
        partner.handle.with_world(|world| world.customers = all);
        assert_eq!(text.matches("elements_customer_info{").count(), 40, "{case}");
        assert_eq!(number(&text, &success("customers", "")), 0.0, "{case}");
        assert_eq!(number(&text, "elements_up"), 0.0, "{case}");
        let text = exporter.settled().await;
        assert_eq!(text.matches("elements_customer_info{").count(), 40, "{case}");
        assert_eq!(number(&text, &shrunk), 1.0, "{case}");
    }))
    .await;
}

#[tokio::test]
async fn a_list_that_shrinks_twice_is_believed() {
    let partner = start(still(40)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    exporter.settled().await;
    let gone = ids(&partner)[10..].iter().cloned().collect::<BTreeSet<_>>();
    partner.handle.with_world(|world| world.customers.truncate(10));
    let known = |text: &str| -> f64 {
        let states = ["fresh", "stale", "failed", "forbidden", "pending"];
        states.map(|name| number(text, &state("jobs", name))).iter().sum()
    };
    // A scrape in the very moment of the change may count what it no longer lists.
    let text = exporter
        .until("thirty are gone, and none of them is counted", |text| {
            text.matches("elements_customer_info{").count() == 10 && known(text) <= 10.0
        })
        .await;
    assert!(number(&text, &errors("customers", "shrunk")) >= 1.0, "but not at once");
    assert!(
        !gone.iter().any(|id| text.contains(id.as_str())),
        "and nothing is left of them"
    );
    assert_eq!(known(&text), 10.0);
    eventually("those that stay are polled", || async {
        let requests = partner.handle.requests();
        let newest = requests.iter().rev().take(30);
        let mut polled = newest.filter(|request| request.path.ends_with("/jobs/batch"));
        polled
            .all(|request| !gone.iter().any(|id| request.path.contains(id.as_str())))
            .then_some(())
    })
    .await;
}
