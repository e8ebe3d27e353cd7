//! Failures below HTTP.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use elements_exporter::simulator::{Fault, FaultKind};
use futures_util::future::join_all;

use super::tls::{Certificate, TlsServer};
use super::{
    ExpectedFailure, Exporter, JOBS_V3, TOKEN, assert_each_fails, assert_poll_fails, case, errors, ids, is_settled,
    number, set, state, success, sum, unreachable_api,
};
use crate::harness::partner::{Partner, frozen_partner, start};
use crate::harness::program::Program;
use crate::harness::{eventually, value};

/// Changes the API URL of an exporter that has already polled, and checks that polls fail.
async fn assert_url_fails(case: &str, base: &str, reason: &str, extra_env: &[(&str, &str)]) {
    let partner = start(frozen_partner(2)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[("ELEMENTS_API__TIMEOUT", "1s")]).await;
    let after = assert_poll_fails(&exporter, ExpectedFailure::list(reason), case, async || {
        let (status, printed) = exporter
            .reload(|variables| {
                // The token endpoint is unchanged, so that only the API is unreachable.
                set(variables, "ELEMENTS_API__BASE_URL", base);
                extra_env.iter().for_each(|(name, value)| set(variables, name, value));
            })
            .await;
        assert_eq!(status, 200, "{printed}");
    })
    .await;
    assert_eq!(number(&after, "elements_up"), 0.0, "{case}");
}

/// Returns whether each of the given customers was requested at least `times` times.
fn are_polled(partner: &Partner, ids: &[String], times: usize) -> bool {
    let requests = partner.handle.requests();
    let polls = |id: &String| {
        requests
            .iter()
            .filter(|request| request.path.contains(id.as_str()))
            .count()
    };
    ids.iter().all(|id| polls(id) >= times)
}

#[tokio::test]
async fn unreachable_host_keeps_the_last_known_values() {
    let closed = unreachable_api();
    tokio::join!(
        assert_url_fails("dns", "https://elements.invalid", "dns", &[]),
        assert_url_fails("refused", &closed, "connect", &[]),
    );
}

#[tokio::test]
async fn failed_tls_handshake_keeps_the_last_known_values() {
    let valid_server = TlsServer::start(Certificate::Valid);
    let cases = [
        ("a certificate of an unknown authority", Certificate::OtherAuthority),
        ("a certificate for another name", Certificate::OtherName),
        ("an expired certificate", Certificate::Expired),
    ];
    let ca = TlsServer::authority();
    let extra_env = [("ELEMENTS_API__CA_FILE", ca.as_str())];
    let servers: Vec<_> = cases
        .map(|(name, certificate)| (name, TlsServer::start(certificate)))
        .into();
    join_all(servers.iter().map(async |(name, server)| {
        assert_url_fails(name, &server.base, "tls", &extra_env).await;
        assert!(
            server.requests().is_empty(),
            "{name}: a request was sent before the handshake completed"
        );
    }))
    .await;
    // With a valid certificate, requests reach the server, which returns status 404 for all of them.
    assert_url_fails("a valid certificate", &valid_server.base, "not_found", &extra_env).await;
    assert!(
        valid_server
            .requests()
            .iter()
            .all(|request| request.contains("/partner/"))
    );
    // If the authority is not configured, the handshake fails.
    assert_url_fails("an authority that is not configured", &valid_server.base, "tls", &[]).await;
}

#[tokio::test]
async fn proxy_that_denies_requests_is_not_bypassed() {
    let proxy = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let proxy_url = format!("http://{}", proxy.local_addr().unwrap());
    let requested = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requested);
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
    let target = TlsServer::start(Certificate::Valid);
    let ca = TlsServer::authority();
    let partner = start(frozen_partner(2)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    let after = assert_poll_fails(
        &exporter,
        ExpectedFailure {
            reason: "auth",
            ..ExpectedFailure::list("")
        },
        "407",
        async || {
            let (status, printed) = exporter
                .reload(|variables| {
                    set(variables, "ELEMENTS_API__BASE_URL", &target.base);
                    set(variables, "ELEMENTS_API__TOKEN_URL", &format!("{}{TOKEN}", target.base));
                    set(variables, "ELEMENTS_API__CA_FILE", &ca);
                    set(variables, "ELEMENTS_API__PROXY_URL", &proxy_url);
                })
                .await;
            assert_eq!(status, 200, "{printed}");
        },
    )
    .await;
    assert!(number(&after, "elements_exporter_token_failures_total{reason=\"proxy\"}") >= 1.0);
    assert!(requested.load(Ordering::SeqCst) >= 1);
    assert_eq!(
        target.connections(),
        0,
        "a request that the proxy denies was sent directly"
    );
}

#[tokio::test]
async fn broken_connection_keeps_the_last_known_values() {
    assert_each_fails([
        case("closed without a response", FaultKind::Reset, "interrupted"),
        case("no response", FaultKind::Hang, "timeout"),
        case("headers without a body", FaultKind::HangBody, "timeout"),
        // The timeout applies to the whole request: each chunk arrives in time, but the complete body does not.
        case("a slow body", FaultKind::Drip { bytes: 1, ms: 20 }, "timeout"),
        case("late", FaultKind::Delay { ms: 3_000 }, "timeout"),
    ])
    .await;
}

#[tokio::test]
async fn stale_pooled_connection_is_retried() {
    let partner = start(frozen_partner(3)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    let before = exporter.wait_until_settled().await;
    partner
        .handle
        .set_faults(vec![Fault::new(JOBS_V3, FaultKind::Reset).times(1)]);
    let retries = "elements_exporter_api_retries_total{endpoint=\"jobs\"}";
    let after = exporter
        .wait_until("a retry", |text| {
            value(text, retries) > value(&before, retries) && is_settled(text)
        })
        .await;
    assert_eq!(sum(&after, "elements_exporter_api_errors_total"), 0.0, "a poll failed");
}

#[tokio::test]
async fn hanging_poll_does_not_delay_others() {
    let partner = start(frozen_partner(4)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[("ELEMENTS_API__TIMEOUT", "5m")]).await;
    exporter.wait_until_settled().await;
    let ids = ids(&partner);
    let hanging_path = JOBS_V3.replace('*', &ids[0]);
    partner
        .handle
        .set_faults(vec![Fault::new(&hanging_path, FaultKind::Hang)]);
    let hung = |request: &elements_exporter::simulator::Request| request.path == hanging_path && request.status == 0;
    eventually("the poll hangs", || async {
        partner.handle.requests().iter().any(hung).then_some(())
    })
    .await;
    partner.handle.clear_requests();
    eventually("the other polls continue", || async {
        are_polled(&partner, &ids[1..], 2).then_some(())
    })
    .await;
    assert!(
        !partner
            .handle
            .requests()
            .iter()
            .any(|request| request.path == hanging_path),
        "the hanging poll was repeated"
    );
    let lag = "elements_exporter_poll_lag_seconds{collector=\"jobs\"}";
    exporter
        .wait_until("the lag increases", |text| number(text, lag) > 1.0)
        .await;
    assert_eq!(exporter.get("/-/healthy").await.0, 200);
}

#[tokio::test]
async fn hanging_resource_leaves_slots_to_others() {
    let partner = start(frozen_partner(20)).await;
    partner
        .handle
        .set_faults(vec![Fault::new("*/cloud-backup-m365/overview", FaultKind::Hang)]);
    let extra_env = [("ELEMENTS_API__TIMEOUT", "5m"), ("ELEMENTS_API__MAX_CONCURRENCY", "8")];
    let exporter = Exporter::start(&partner.base, &["protected", "jobs"], &extra_env).await;
    let ids = ids(&partner);
    exporter
        .wait_until("the jobs of all customers are polled", |text| {
            ids.iter().all(|id| value(text, &success("jobs", id)) == Some(1.0))
        })
        .await;
    let hanging = || {
        let requests = partner.handle.requests();
        requests
            .iter()
            .filter(|request| request.path.ends_with("/overview"))
            .count()
    };
    eventually("the resource uses its maximum number of slots", || async {
        (hanging() >= 6).then_some(())
    })
    .await;
    partner.handle.clear_requests();
    eventually("the polls of `jobs` continue at their interval", || async {
        are_polled(&partner, &ids, 3).then_some(())
    })
    .await;
    assert_eq!(hanging(), 0, "the resource used more than three quarters of the slots");
}

#[tokio::test]
async fn invalid_authority_is_reported_with_its_file_and_key() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("authorities.pem");
    let certificate = std::fs::read_to_string(TlsServer::authority()).unwrap();
    let invalid = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (content, number) in [
        (format!("{certificate}{invalid}"), "certificate 2"),
        (invalid.to_owned(), "certificate 1"),
    ] {
        std::fs::write(&file, content).unwrap();
        let extra_env = [("ELEMENTS_API__CA_FILE", file.to_str().unwrap())];
        let program = Program::spawn(super::every_second("https://127.0.0.1:1", &[], &extra_env), &[]);
        let output = program.wait().await;
        assert_eq!(output.code, Some(78), "{}", output.stderr);
        for part in ["api.ca_file", file.to_str().unwrap(), number] {
            assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
        }
    }
    // A byte order mark before the first certificate is ignored.
    std::fs::write(&file, format!("\u{feff}{certificate}")).unwrap();
    let server = TlsServer::start(Certificate::Valid);
    let extra_env = [("ELEMENTS_API__CA_FILE", file.to_str().unwrap())];
    assert_url_fails("a byte order mark", &server.base, "not_found", &extra_env).await;
}

#[tokio::test]
async fn urls_without_tls_need_no_certificate_authorities() {
    let empty = tempfile::tempdir().unwrap();
    let authorities = empty.path().join("authorities.pem");
    let variables = vec![
        ("SSL_CERT_DIR".into(), empty.path().into()),
        ("SSL_CERT_FILE".into(), authorities.into()),
    ];
    let arguments = [
        "demo",
        "--web.listen-address=127.0.0.1:0",
        "--simulator.listen-address=127.0.0.1:0",
    ];
    let demo = Program::spawn(variables.clone(), &arguments);
    // The demo restores its state only after it has polled the simulated customers.
    eventually("the demo has customers", || async {
        demo.stderr().contains("state restored").then_some(())
    })
    .await;
    // With TLS, the error names the configuration key.
    let mut encrypted = super::every_second("https://127.0.0.1:1", &[], &[]);
    encrypted.extend(variables.clone());
    for arguments in [&[][..], &["check"], &["once"]] {
        let output = Program::spawn(encrypted.clone(), arguments).wait().await;
        assert_eq!(output.code, Some(78), "{arguments:?}: {}", output.stderr);
        let names_key = output.stderr.contains("api.ca_file: ") && !output.stderr.contains("builder error");
        assert!(names_key, "{arguments:?}: {}", output.stderr);
    }
    let arguments = ["healthcheck", "--web.listen-address=192.0.2.1:1"];
    let output = Program::spawn(variables, &arguments).wait().await;
    assert_eq!(output.code, Some(1));
    assert!(!output.stderr.contains("builder error"), "{}", output.stderr);
}

#[tokio::test]
async fn outage_at_startup_is_reported() {
    let base = unreachable_api();
    let exporter = Exporter::start(&base, &["jobs"], &[]).await;
    let text = exporter
        .wait_until("the poll of the customer list failed", |text| {
            value(text, &success("customers", "")) == Some(0.0)
                && value(text, &errors("customers", "auth")) >= Some(1.0)
        })
        .await;
    assert_eq!(number(&text, "elements_up"), 0.0);
    assert_eq!(number(&text, &state("customers", "fresh")), 0.0);
    assert!(!text.contains("elements_customer_info{"));
    assert_eq!(exporter.get("/-/healthy").await.0, 200);
    assert_eq!(exporter.get("/-/ready").await.0, 503);
    assert_eq!(exporter.get("/").await.0, 200);
}

#[tokio::test]
async fn hanging_customers_do_not_use_every_slot() {
    let partner = start(frozen_partner(6)).await;
    let ids = ids(&partner);
    let hanging = ids.iter().take(2);
    let faults = hanging.map(|id| Fault::new(&format!("/partner/*{id}*"), FaultKind::Hang));
    partner.handle.set_faults(faults.collect());
    let collectors = ["jobs", "protected", "scan_profiles", "scan_changes"];
    let extra_env = [("ELEMENTS_API__TIMEOUT", "30s"), ("ELEMENTS_API__MAX_CONCURRENCY", "4")];
    let exporter = Exporter::start(&partner.base, &collectors, &extra_env).await;
    let text = exporter
        .wait_until("the other customers are polled", |text| {
            let is_polled = |collector, id: &String| value(text, &success(collector, id)) == Some(1.0);
            let mut others = ids.iter().skip(2);
            others.all(|id| collectors.iter().all(|collector| is_polled(collector, id)))
        })
        .await;
    assert_eq!(
        sum(&text, "elements_exporter_api_errors_total"),
        0.0,
        "a hanging poll timed out first"
    );
}
