//! What goes wrong below HTTP.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use elements_exporter::simulator::{Fault, FaultKind};
use futures_util::future::join_all;

use super::tls::{Certificate, TlsServer};
use super::{
    Exporter, Failing, JOBS_V3, TOKEN, case, errors, hold_each, holds, ids, is_settled, nowhere, number, set, state,
    success, sum,
};
use crate::support::{eventually, value};
use crate::world::{start, still};

/// A list of customers that fails for this reason.
fn list(reason: &str) -> Failing<'_> {
    Failing {
        collector: "customers",
        id: "",
        endpoint: "customers",
        reason,
    }
}

/// Points an exporter that knows its customers to another API with a reload, and holds that polls then fail.
async fn holds_at(case: &str, base: &str, reason: &str, more: &[(&str, &str)]) {
    let partner = start(still(2)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[("ELEMENTS_API__TIMEOUT", "1s")]).await;
    let after = holds(&exporter, list(reason), case, async || {
        let (status, said) = exporter
            .reload(|variables| {
                // The token endpoint stays where it was, so that it is the API that cannot be reached.
                set(variables, "ELEMENTS_API__BASE_URL", base);
                more.iter().for_each(|(name, value)| set(variables, name, value));
            })
            .await;
        assert_eq!(status, 200, "{said}");
    })
    .await;
    assert_eq!(number(&after, "elements_up"), 0.0, "{case}");
}

#[tokio::test]
async fn a_host_that_cannot_be_resolved_or_reached_holds() {
    let closed = nowhere();
    tokio::join!(
        holds_at("dns", "https://elements.invalid", "dns", &[]),
        holds_at("refused", &closed, "connect", &[]),
    );
}

#[tokio::test]
async fn a_tls_handshake_that_fails_holds() {
    let right = TlsServer::start(Certificate::Good);
    let cases = [
        ("a certificate of nobody known", Certificate::OtherAuthority),
        ("a certificate for another name", Certificate::OtherName),
        ("an expired certificate", Certificate::Expired),
    ];
    let ca = TlsServer::authority();
    let more = [("ELEMENTS_API__CA_FILE", ca.as_str())];
    let servers: Vec<_> = cases
        .map(|(name, certificate)| (name, TlsServer::start(certificate)))
        .into();
    join_all(servers.iter().map(async |(name, server)| {
        holds_at(name, &server.base, "tls", &more).await;
        assert!(
            server.requests().is_empty(),
            "{name}: nothing is said before the handshake is over"
        );
    }))
    .await;
    // The same with the right certificate goes through, to a server that has nothing.
    holds_at("the right certificate", &right.base, "not_found", &more).await;
    assert!(right.requests().iter().all(|request| request.contains("/partner/")));
    // And without the authority in the configuration it does not.
    holds_at("an authority that is not configured", &right.base, "tls", &[]).await;
}

#[tokio::test]
async fn a_proxy_that_refuses_is_never_bypassed() {
    let proxy = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let proxy_url = format!("http://{}", proxy.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in proxy.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            count.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(
                b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\ncontent-length: 0\r\n\
                connection: close\r\n\r\n",
            );
        }
    });
    let target = TlsServer::start(Certificate::Good);
    let ca = TlsServer::authority();
    let partner = start(still(2)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    let after = holds(
        &exporter,
        Failing {
            reason: "auth",
            ..list("")
        },
        "407",
        async || {
            let (status, said) = exporter
                .reload(|variables| {
                    set(variables, "ELEMENTS_API__BASE_URL", &target.base);
                    set(variables, "ELEMENTS_API__TOKEN_URL", &format!("{}{TOKEN}", target.base));
                    set(variables, "ELEMENTS_API__CA_FILE", &ca);
                    set(variables, "ELEMENTS_API__PROXY_URL", &proxy_url);
                })
                .await;
            assert_eq!(status, 200, "{said}");
        },
    )
    .await;
    assert!(number(&after, "elements_exporter_token_failures_total{reason=\"proxy\"}") >= 1.0);
    assert!(asked.load(Ordering::SeqCst) >= 1);
    assert_eq!(
        target.connections(),
        0,
        "what the proxy refuses is not asked for without it"
    );
}

#[tokio::test]
async fn a_connection_that_breaks_or_falls_silent_holds() {
    hold_each([
        case("closed without an answer", FaultKind::Reset, "interrupted"),
        case("no answer", FaultKind::Hang, "timeout"),
        case("headers and then silence", FaultKind::HangBody, "timeout"),
        // The deadline is for the whole request: each drop comes well within it, all of them do not.
        case("a body in drips", FaultKind::Drip { bytes: 1, ms: 20 }, "timeout"),
        case("late", FaultKind::Delay { ms: 3_000 }, "timeout"),
    ])
    .await;
}

#[tokio::test]
async fn a_stale_pooled_connection_is_not_noticed() {
    let partner = start(still(3)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    let before = exporter.settled().await;
    partner
        .handle
        .set_faults(vec![Fault::new(JOBS_V3, FaultKind::Reset).times(1)]);
    let retries = "elements_exporter_api_retries_total{endpoint=\"jobs\"}";
    let after = exporter
        .until("a retry", |text| {
            value(text, retries) > value(&before, retries) && is_settled(text)
        })
        .await;
    assert_eq!(sum(&after, "elements_exporter_api_errors_total"), 0.0, "no poll failed");
}

#[tokio::test]
async fn a_poll_that_hangs_holds_up_nobody() {
    let partner = start(still(4)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[("ELEMENTS_API__TIMEOUT", "5m")]).await;
    exporter.settled().await;
    let ids = ids(&partner);
    let stuck = JOBS_V3.replace('*', &ids[0]);
    partner.handle.set_faults(vec![Fault::new(&stuck, FaultKind::Hang)]);
    let hung = |request: &elements_exporter::simulator::Request| request.path == stuck && request.status == 0;
    eventually("the poll hangs", || async {
        partner.handle.requests().iter().any(hung).then_some(())
    })
    .await;
    partner.handle.clear_requests();
    eventually("the others go on", || async {
        let requests = partner.handle.requests();
        let polled = |id: &String| {
            requests
                .iter()
                .filter(|request| request.path.contains(id.as_str()))
                .count()
                >= 2
        };
        ids[1..].iter().all(polled).then_some(())
    })
    .await;
    assert!(
        !partner.handle.requests().iter().any(|request| request.path == stuck),
        "one flight at a time"
    );
    let lag = "elements_exporter_poll_lag_seconds{collector=\"jobs\"}";
    exporter.until("the lag shows it", |text| number(text, lag) > 1.0).await;
    assert_eq!(exporter.get("/-/healthy").await.0, 200);
}

#[tokio::test]
async fn an_outage_at_the_start_is_served_and_shown() {
    let base = nowhere();
    let exporter = Exporter::start(&base, &["jobs"], &[]).await;
    let text = exporter
        .until("it failed", |text| {
            value(text, &errors("customers", "auth")) >= Some(1.0)
        })
        .await;
    assert_eq!(number(&text, "elements_up"), 0.0);
    assert_eq!(number(&text, &success("customers", "")), 0.0);
    assert_eq!(number(&text, &state("customers", "fresh")), 0.0);
    assert!(!text.contains("elements_customer_info{"));
    assert_eq!(exporter.get("/-/healthy").await.0, 200);
    assert_eq!(exporter.get("/-/ready").await.0, 503);
    assert_eq!(exporter.get("/").await.0, 200);
}

#[tokio::test]
async fn customers_that_hang_do_not_take_every_place() {
    let partner = start(still(6)).await;
    let ids = ids(&partner);
    let hanging = ids.iter().take(2);
    let faults = hanging.map(|id| Fault::new(&format!("/partner/*{id}*"), FaultKind::Hang));
    partner.handle.set_faults(faults.collect());
    let collectors = ["jobs", "protected", "scan_profiles", "scan_changes"];
    let more = [("ELEMENTS_API__TIMEOUT", "30s"), ("ELEMENTS_API__MAX_CONCURRENCY", "4")];
    let exporter = Exporter::start(&partner.base, &collectors, &more).await;
    let text = exporter
        .until("the others are known", |text| {
            let known = |collector, id: &String| value(text, &success(collector, id)) == Some(1.0);
            let mut others = ids.iter().skip(2);
            others.all(|id| collectors.iter().all(|collector| known(collector, id)))
        })
        .await;
    assert_eq!(
        sum(&text, "elements_exporter_api_errors_total"),
        0.0,
        "before those that hang have given up"
    );
}
