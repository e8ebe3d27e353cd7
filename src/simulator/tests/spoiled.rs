//! Each kind of fault over a real socket.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::{Value, json};

use super::{Partner, V3, body, rows, still};
use crate::simulator::{Fault, FaultKind, Settings};

#[tokio::test]
async fn whole_answers_are_spoiled() {
    let partner = Partner::start(Settings {
        v1_page_size: Some(5),
        ..still()
    })
    .await;
    let token = partner.token().await;
    let get = async || partner.get(&token, "/partner/customers").await;

    partner.fault(FaultKind::Status {
        code: 503,
        body: Some("down".to_owned()),
    });
    let response = get().await;
    assert_eq!(
        (response.status().as_u16(), response.text().await.unwrap().as_str()),
        (503, "down")
    );
    partner.fault(FaultKind::Status { code: 204, body: None });
    let response = get().await;
    assert_eq!(
        (response.status().as_u16(), response.bytes().await.unwrap().len()),
        (204, 0)
    );
    partner.fault(FaultKind::WrongBody {
        content_type: "text/html".to_owned(),
        body: "<html>".to_owned(),
    });
    let response = get().await;
    assert_eq!(response.headers()["content-type"], "text/html");
    assert_eq!(response.text().await.unwrap(), "<html>");
    partner.fault(FaultKind::Redirect {
        code: 307,
        location: "http://127.0.0.1:1/".to_owned(),
    });
    let response = get().await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["location"]),
        (307, &"http://127.0.0.1:1/".parse().unwrap())
    );
    partner.fault(FaultKind::Throttle {
        retry_after: Some("soon".to_owned()),
        code: 429,
    });
    let response = get().await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (429, &"soon".parse().unwrap())
    );
    partner.fault(FaultKind::Throttle {
        retry_after: None,
        code: 503,
    });
    assert!(get().await.headers().get("retry-after").is_none());
    partner.fault(FaultKind::ExtraHeader {
        name: "x-odd".to_owned(),
        value: "1".to_owned(),
    });
    assert_eq!(get().await.headers()["x-odd"], "1");
    partner.fault(FaultKind::Replace {
        pointer: "/value/0/id".to_owned(),
        value: json!(null),
    });
    assert_eq!(rows(&body(get().await).await)[0]["id"], Value::Null);
    partner.fault(FaultKind::NextLink {
        url: "https://elsewhere.example/".to_owned(),
    });
    assert_eq!(body(get().await).await["@odata.nextLink"], "https://elsewhere.example/");
    partner.fault(FaultKind::IgnorePaging);
    let repeated = body(partner.get(&token, "/partner/customers?$skip=5").await).await;
    partner.handle.clear_faults();
    assert_eq!(rows(&repeated), rows(&body(get().await).await));

    let batch = format!("{V3}/customers/batch");
    let second = async || {
        body(
            partner
                .post(&token, &format!("{batch}?pageIndex=2&pageSize=9"), json!({}))
                .await,
        )
        .await
    };
    let right = second().await;
    partner
        .handle
        .set_faults(vec![Fault::new(&batch, FaultKind::TotalCount { n: 3 }).times(1)]);
    assert_eq!(second().await["metadata"]["totalCount"], 3);
    assert_eq!(second().await, right);
    partner
        .handle
        .set_faults(vec![Fault::new(&batch, FaultKind::IgnorePaging)]);
    let first = second().await;
    assert_ne!(rows(&first), rows(&right));
    assert_eq!(first["metadata"]["pageIndex"], 1);
}

#[tokio::test]
async fn transport_is_spoiled() {
    let partner = Partner::start(still()).await;
    let token = partner.token().await;
    let raw = async || partner.raw(&token, "/partner/customers").await;
    let whole = raw().await;
    let (_, right) = whole.split_once("\r\n\r\n").unwrap();

    partner.fault(FaultKind::Reset);
    assert_eq!(raw().await, "");
    assert!(partner.try_get(&token, "/partner/customers").await.is_err());
    assert_eq!(partner.handle.requests().last().unwrap().status, 0);

    partner.fault(FaultKind::Truncate {
        bytes: 10,
        declared: false,
    });
    let broken = raw().await;
    assert!(
        broken.contains("transfer-encoding: chunked") && broken.contains(&right[..10]),
        "{broken}"
    );
    assert!(!broken.contains("\r\n0\r\n"));
    partner.fault(FaultKind::Truncate {
        bytes: 10,
        declared: true,
    });
    let broken = raw().await;
    assert!(broken.ends_with(&right[..10]) && broken.contains(&format!("content-length: {}", right.len())));

    partner.fault(FaultKind::ShortLength { by: -5 });
    let short = raw().await;
    assert!(short.ends_with(&right[..right.len() - 5]));
    assert!(short.contains(&format!("content-length: {}", right.len() - 5)));
    partner.fault(FaultKind::ShortLength { by: 5 });
    assert!(raw().await.contains(&format!("content-length: {}", right.len() + 5)));
    let response = partner.get(&token, "/partner/customers").await;
    assert!(response.bytes().await.is_err());

    partner.fault(FaultKind::Drip {
        bytes: right.len() / 3,
        ms: 10,
    });
    let begun = Instant::now();
    assert_eq!(
        partner.get(&token, "/partner/customers").await.text().await.unwrap(),
        right
    );
    assert!(begun.elapsed() >= Duration::from_millis(30));
    partner.fault(FaultKind::Delay { ms: 50 });
    let begun = Instant::now();
    assert_eq!(
        partner.get(&token, "/partner/customers").await.text().await.unwrap(),
        right
    );
    assert!(begun.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn a_bomb_is_small_until_it_is_opened() {
    let partner = Partner::start(still()).await;
    let token = partner.token().await;
    partner.fault(FaultKind::GzipBomb { bytes: 10_000_000 });
    assert!(partner.raw(&token, "/partner/customers").await.len() < 100_000);
    let response = partner.get(&token, "/partner/customers").await;
    let opened = Client::builder().no_proxy().gzip(true).build().unwrap();
    assert_eq!(response.status(), 200);
    let response = opened
        .get(format!("{}/partner/customers", partner.base))
        .bearer_auth(&token)
        .send()
        .await
        .unwrap();
    assert_eq!(response.bytes().await.unwrap().len(), 10_000_000);
}

#[tokio::test]
async fn hanging_faults_hang_and_do_not_hold_up_the_shutdown() {
    let partner = Partner::start(still()).await;
    let token = partner.token().await;
    partner.fault(FaultKind::HangBody);
    let response = partner.get(&token, "/partner/customers").await;
    assert_eq!(response.status(), 200);
    let mut silent = tokio::spawn(response.bytes());
    partner.fault(FaultKind::Hang);
    let request = partner
        .client
        .get(format!("{}/partner/customers", partner.base))
        .bearer_auth(&token);
    let mut hanging = tokio::spawn(request.send());
    let patience = Duration::from_millis(100);
    assert!(tokio::time::timeout(patience, &mut silent).await.is_err());
    assert!(tokio::time::timeout(patience, &mut hanging).await.is_err());

    partner.shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(5), partner.running).await;
    ended.expect("the shutdown takes too long").unwrap().unwrap();
    assert!(silent.await.unwrap().is_err());
    assert!(hanging.await.unwrap().is_err());
}

#[tokio::test]
async fn faults_reach_the_token_endpoint_too() {
    let partner = Partner::start(still()).await;
    let kind = FaultKind::Status { code: 500, body: None };
    partner
        .handle
        .set_faults(vec![Fault::new("/connect/token", kind).times(1)]);
    assert_eq!(partner.ask_token(&[]).await.0, 500);
    partner.token().await;
    let kind = FaultKind::Replace {
        pointer: "/expires_in".to_owned(),
        value: json!("-1"),
    };
    partner.handle.set_faults(vec![Fault::new("/connect/token", kind)]);
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", "demo"),
        ("client_secret", "demo-secret"),
    ];
    assert_eq!(partner.ask_token(&form).await.1["expires_in"], "-1");
}
