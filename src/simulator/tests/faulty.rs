//! Tests of every kind of fault over real sockets.

use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::{Value, json};

use super::{Partner, V3, body, fixed_settings, rows};
use crate::simulator::{Fault, FaultKind, Settings};

#[tokio::test]
async fn faults_change_responses() {
    let partner = Partner::with_token(Settings {
        v1_page_size: Some(5),
        ..fixed_settings()
    })
    .await;
    let get = async || partner.get("/partner/customers").await;

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
    let repeated = body(partner.get("/partner/customers?$skip=5").await).await;
    partner.handle.clear_faults();
    assert_eq!(rows(&repeated), rows(&body(get().await).await));

    let batch = format!("{V3}/customers/batch");
    let second = async || partner.v3("/customers/batch?pageIndex=2&pageSize=9").await;
    let body_text = second().await;
    partner
        .handle
        .set_faults(vec![Fault::new(&batch, FaultKind::TotalCount { n: 3 }).times(1)]);
    assert_eq!(second().await["metadata"]["totalCount"], 3);
    assert_eq!(second().await, body_text);
    partner
        .handle
        .set_faults(vec![Fault::new(&batch, FaultKind::IgnorePaging)]);
    let first = second().await;
    assert_ne!(rows(&first), rows(&body_text));
    assert_eq!(first["metadata"]["pageIndex"], 1);
}

#[tokio::test]
async fn faults_break_the_transport() {
    let partner = Partner::with_token(fixed_settings()).await;
    let raw = async || partner.raw("/partner/customers").await;
    let complete = raw().await;
    let (_, body_text) = complete.split_once("\r\n\r\n").unwrap();

    partner.fault(FaultKind::Reset);
    assert_eq!(raw().await, "");
    assert!(partner.try_get(&partner.token, "/partner/customers").await.is_err());
    assert_eq!(partner.handle.requests().last().unwrap().status, 0);

    partner.fault(FaultKind::Truncate {
        bytes: 10,
        declared: false,
    });
    let broken = raw().await;
    assert!(
        broken.contains("transfer-encoding: chunked") && broken.contains(&body_text[..10]),
        "{broken}"
    );
    assert!(!broken.contains("\r\n0\r\n"));
    partner.fault(FaultKind::Truncate {
        bytes: 10,
        declared: true,
    });
    let broken = raw().await;
    assert!(broken.ends_with(&body_text[..10]) && broken.contains(&format!("content-length: {}", body_text.len())));

    partner.fault(FaultKind::ShortLength { by: -5 });
    let short = raw().await;
    assert!(short.ends_with(&body_text[..body_text.len() - 5]));
    assert!(short.contains(&format!("content-length: {}", body_text.len() - 5)));
    partner.fault(FaultKind::ShortLength { by: 5 });
    assert!(
        raw()
            .await
            .contains(&format!("content-length: {}", body_text.len() + 5))
    );
    let response = partner.get("/partner/customers").await;
    assert!(response.bytes().await.is_err());

    partner.fault(FaultKind::Drip {
        bytes: body_text.len() / 3,
        ms: 10,
    });
    let begun = Instant::now();
    assert_eq!(partner.get("/partner/customers").await.text().await.unwrap(), body_text);
    // The pauses alone take this long on any machine.
    assert!(begun.elapsed() >= Duration::from_millis(30));
    partner.fault(FaultKind::Delay { ms: 50 });
    let begun = Instant::now();
    assert_eq!(partner.get("/partner/customers").await.text().await.unwrap(), body_text);
    assert!(begun.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn gzip_bomb_is_small_until_decompressed() {
    let partner = Partner::with_token(fixed_settings()).await;
    partner.fault(FaultKind::GzipBomb { bytes: 10_000_000 });
    assert!(partner.raw("/partner/customers").await.len() < 100_000);
    let response = partner.get("/partner/customers").await;
    let opened = Client::builder().no_proxy().gzip(true).build().unwrap();
    assert_eq!(response.status(), 200);
    let response = opened
        .get(partner.url("/partner/customers"))
        .bearer_auth(&partner.token)
        .send()
        .await
        .unwrap();
    assert_eq!(response.bytes().await.unwrap().len(), 10_000_000);
}

#[tokio::test]
async fn hanging_faults_do_not_delay_the_shutdown() {
    let partner = Partner::with_token(fixed_settings()).await;
    partner.fault(FaultKind::HangBody);
    let response = partner.get("/partner/customers").await;
    assert_eq!(response.status(), 200);
    let silent_body = tokio::spawn(response.bytes());
    partner.fault(FaultKind::Hang);
    let request = partner
        .client
        .get(partner.url("/partner/customers"))
        .bearer_auth(&partner.token);
    let hanging = tokio::spawn(request.send());
    let requests = || partner.handle.requests();
    while requests()
        .iter()
        .filter(|request| request.path == "/partner/customers")
        .count()
        < 2
    {
        tokio::task::yield_now().await;
    }
    // Meanwhile, other requests are answered.
    for _ in 0..3 {
        partner.get("/elsewhere").await;
    }
    assert!(!silent_body.is_finished() && !hanging.is_finished());

    partner.shutdown.cancel();
    partner.running.await.unwrap();
    assert!(silent_body.await.unwrap().is_err());
    assert!(hanging.await.unwrap().is_err());
}

#[tokio::test]
async fn faults_apply_to_the_token_endpoint() {
    let partner = Partner::start(fixed_settings()).await;
    let kind = FaultKind::Status { code: 500, body: None };
    partner
        .handle
        .set_faults(vec![Fault::new("/connect/token", kind).times(1)]);
    assert_eq!(partner.request_token(&[]).await.0, 500);
    partner.token_for("").await;
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
    assert_eq!(partner.request_token(&form).await.1["expires_in"], "-1");
}
