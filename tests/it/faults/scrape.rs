//! Scrapes of the exporter in every state, by various clients.

use std::io::{ErrorKind, Read as _};

use elements_exporter::simulator::{Fault, FaultKind};
use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::meaning::{job, set_jobs, start_api};
use super::{COLLECTORS, Exporter, errors, every_second, is_settled, unreachable_api};
use crate::harness::parser;
use crate::harness::partner::{frozen_partner, start};
use crate::harness::program::Program;
use crate::harness::{eventually, value, with_timeout};

const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";

/// Scrapes both formats, each with a different encoding, and validates the text with independent parsers.
async fn assert_valid_scrapes(exporter: &Exporter, encodings: [&str; 2]) {
    let formats = [
        (
            OPENMETRICS,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
    ];
    for ((accept, content_type), encoding) in formats.into_iter().zip(encodings) {
        let request = exporter.client.get(format!("{}/metrics", exporter.base));
        let request = request.header("accept", accept).header("accept-encoding", encoding);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], content_type);
        let compressed = response.headers().contains_key("content-encoding");
        assert_eq!(compressed, encoding == "gzip");
        let bytes = response.bytes().await.unwrap();
        let text = if compressed {
            let mut text = String::new();
            flate2::read::GzDecoder::new(bytes.as_ref())
                .read_to_string(&mut text)
                .unwrap();
            text
        } else {
            String::from_utf8(bytes.to_vec()).unwrap()
        };
        if accept == OPENMETRICS {
            assert!(text.ends_with("\n# EOF\n"));
            parser::assert_openmetrics(&text);
        } else {
            parser::assert_text_format(&text);
        }
    }
}

#[tokio::test]
async fn scrape_is_complete_in_any_state() {
    // At first, the exporter has no data.
    let offline = Exporter::start(&unreachable_api(), &COLLECTORS, &[]).await;
    assert_valid_scrapes(&offline, ["identity", "gzip"]).await;
    offline
        .wait_until("a poll failed", |text| {
            value(text, &errors("customers", "auth")) >= Some(1.0)
        })
        .await;
    assert_valid_scrapes(&offline, ["gzip", "identity"]).await;
    // This exporter has complete data until the API becomes unreachable.
    let partner = start(frozen_partner(3)).await;
    let stale_after: Vec<String> = COLLECTORS
        .iter()
        .map(|name| format!("ELEMENTS_COLLECTORS__{}__STALE_AFTER", name.to_uppercase()))
        .collect();
    let stale_after: Vec<(&str, &str)> = stale_after.iter().map(|name| (name.as_str(), "1s")).collect();
    let exporter = Exporter::start(&partner.base, &COLLECTORS, &stale_after).await;
    exporter.wait_until_settled().await;
    assert_valid_scrapes(&exporter, ["identity", "gzip"]).await;
    partner
        .handle
        .set_faults(vec![Fault::new("/partner/*", FaultKind::Reset)]);
    exporter
        .wait_until("values expire", |text| !text.contains("\nelements_job_status{"))
        .await;
    assert_valid_scrapes(&exporter, ["gzip", "identity"]).await;
    for query in [
        "collector=jobs",
        "customer_id=nobody",
        "collector=nothing",
        "collector=jobs&collector=licenses",
    ] {
        let (status, text) = exporter.get(&format!("/metrics?{query}")).await;
        assert_eq!(status, 200, "{query}");
        if !text.is_empty() {
            parser::assert_openmetrics(&format!("{}# EOF\n", without_types(&text)));
        }
    }
}

/// Returns the samples, which are the same in both formats.
fn without_types(text: &str) -> String {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .fold(String::new(), |text, line| text + line + "\n")
}

#[tokio::test]
async fn scrape_during_a_poll_is_consistent() {
    const MODULES: [&str; 6] = [
        "Exchange Online",
        "SharePoint Online",
        "OneDrive",
        "Teams Chat",
        "Power BI",
        "Power Apps",
    ];
    let all = |status: &str, count: &str| -> Vec<_> {
        let row = |module: &&str| {
            job(
                module,
                json!({"jobModule": module, "status": status, "totalCount": count}),
            )
        };
        MODULES.iter().map(row).collect()
    };
    let job_lists = [all("Finished", "1"), all("Failed", "2")];
    let canned = start_api(&job_lists[0]).await;
    let exporter = Exporter::start(&canned.base, &["jobs"], &[("ELEMENTS_API__VERSION", "v1")]).await;
    exporter.wait_until_settled().await;
    let mut scrapes = [0, 0];
    for repetition in 0..4 {
        let index = repetition % 2;
        set_jobs(&canned, &job_lists[1 - index]);
        let expected = [2.0, 3.0][1 - index];
        exporter
            .wait_until("the other job list is exported", |text| {
                let values_of = |name: &str| -> Vec<f64> {
                    let lines = text.lines().filter(|line| line.starts_with(name));
                    lines
                        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
                        .collect()
                };
                let (status, count) = (
                    values_of("elements_job_status{"),
                    values_of("elements_job_processed_objects{"),
                );
                assert_eq!(status.len(), MODULES.len());
                let one = [(2.0, 1.0), (3.0, 2.0)]
                    .iter()
                    .position(|(a, b)| status.iter().all(|s| s == a) && count.iter().all(|c| c == b));
                assert!(one.is_some(), "{status:?} {count:?}");
                status[0] == expected
            })
            .await;
        scrapes[1 - index] += 1;
    }
    assert_eq!(scrapes, [2, 2]);
}

/// Opens a raw connection and sends `head`.
async fn connection(exporter: &Exporter, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(exporter.base.trim_start_matches("http://"))
        .await
        .unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn slow_scrapers_cause_no_api_requests_or_delays() {
    const ALL_COLLECTORS: [&str; 6] = [
        "customers",
        "jobs",
        "protected",
        "licenses",
        "scan_profiles",
        "scan_changes",
    ];
    let partner = start(frozen_partner(4)).await;
    let hours: Vec<String> = ALL_COLLECTORS
        .iter()
        .map(|name| format!("ELEMENTS_COLLECTORS__{}__INTERVAL", name.to_uppercase()))
        .collect();
    let hours: Vec<(&str, &str)> = hours.iter().map(|name| (name.as_str(), "1h")).collect();
    let exporter = Exporter::start(&partner.base, &COLLECTORS, &hours).await;
    let before = exporter.wait_until_settled().await;
    let requested = partner.handle.requests().len();
    let scrape = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";
    // Some clients do not read, some disconnect, and some never complete their headers.
    let mut slow = Vec::new();
    for _ in 0..20 {
        slow.push(connection(&exporter, scrape).await);
        let mut aborted = connection(&exporter, scrape).await;
        let mut piece = [0; 100];
        aborted.read_exact(&mut piece).await.unwrap();
        drop(aborted);
    }
    let mut slow_header_clients = slow_header_clients(&exporter).await;
    let samples = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    let expected = samples(&before);
    let texts = join_all((0..200).map(|_| exporter.metrics())).await;
    for text in &texts {
        // New series of request counters may appear in the meantime, but no sample may disappear.
        assert!(samples(text) >= expected, "incomplete response");
    }
    // A response that completes while all these connections are open has not waited for them.
    let is_open = |stream: &TcpStream| {
        let read = stream.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    let all_open = eventually("a scrape completes while slow clients are connected", || async {
        let slow_clients = self::slow_header_clients(&exporter).await;
        exporter.metrics().await;
        slow_clients.iter().all(is_open).then_some(slow_clients)
    });
    slow_header_clients.extend(all_open.await);
    assert_eq!(
        partner.handle.requests().len(),
        requested,
        "scrapes caused API requests"
    );
    for mut stream in slow_header_clients {
        let mut rest = Vec::new();
        let _ = with_timeout(
            "connections with slow headers are closed",
            stream.read_to_end(&mut rest),
        )
        .await;
    }
    drop(slow);
    exporter.stop().await;
}

/// Opens connections whose clients never complete their headers.
async fn slow_header_clients(exporter: &Exporter) -> Vec<TcpStream> {
    let mut slow_header_clients = Vec::new();
    for _ in 0..20 {
        slow_header_clients.push(connection(exporter, "GET /metrics HTTP/1.1\r\nhost: x\r\nx-slow: ").await);
    }
    slow_header_clients
}

#[tokio::test]
async fn client_that_does_not_read_is_disconnected() {
    let partner = start(frozen_partner(40)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    exporter.wait_until_settled().await;
    // The client requests more responses than the connection's buffers can hold.
    let scrape = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";
    let client = connection(&exporter, &scrape.repeat(100)).await;
    eventually("the client is disconnected", || {
        let write = client.try_write(b"GET");
        let is_open = write.is_ok() || write.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        async move { (!is_open).then_some(()) }
    })
    .await;
    assert!(is_settled(&exporter.metrics().await));
}

#[tokio::test]
async fn malformed_requests_get_a_response_and_are_harmless() {
    let partner = start(frozen_partner(2)).await;
    let exporter = Exporter::start(&partner.base, &["jobs"], &[]).await;
    exporter.wait_until_settled().await;
    let long_query = "collector=x&".repeat(4_000);
    for query in [
        long_query.as_str(),
        "%",
        "%00%ff%zz",
        "collector[]=jobs&customer_id=%22%7D%0a",
        "&&&===",
        "customer_id=../../etc/passwd",
    ] {
        assert_eq!(
            exporter.get(&format!("/metrics?{query}")).await.0,
            200,
            "{}",
            &query[..query.len().min(40)]
        );
    }
    for (name, value) in [
        ("accept", "q=,;;;version=\"".to_owned()),
        ("accept", "application/openmetrics-text;version=99".to_owned()),
        ("accept-encoding", ",;q=gzip;gzip;q=nan".to_owned()),
        ("accept", "a/b,".repeat(1_000)),
        ("x-prometheus-scrape-timeout-seconds", "-1e999".to_owned()),
    ] {
        let request = exporter
            .client
            .get(format!("{}/metrics", exporter.base))
            .header(name, value);
        assert_eq!(request.send().await.unwrap().status(), 200, "{name}");
    }
    let endless = connection(&exporter, "GET /metrics HTTP/1.1\r\nhost: x\r\n").await;
    let rejected = eventually("endless headers are rejected", || {
        let write = endless.try_write(format!("x-{}: y\r\n", "a".repeat(8_000)).as_bytes());
        async move {
            write
                .is_err_and(|error| error.kind() != ErrorKind::WouldBlock)
                .then_some(true)
        }
    });
    assert!(rejected.await);
    assert!(is_settled(&exporter.metrics().await));
}

/// Returns the body of a response with status 200, if it is complete according to the headers.
fn complete_body(response: &[u8]) -> Option<&[u8]> {
    let end = response.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, body) = (std::str::from_utf8(&response[..end]).ok()?, &response[end + 4..]);
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    };
    let is_complete = match header("content-length") {
        Some(length) => length.parse() == Ok(body.len()),
        None if header("transfer-encoding") == Some("chunked") => body.ends_with(b"0\r\n\r\n"),
        // In HTTP/1.0, the body ends when the connection closes. Its last byte shows whether it is truncated.
        None => head.starts_with("HTTP/1.0") && body.ends_with(b"\n"),
    };
    (head.split(' ').nth(1) == Some("200") && is_complete).then_some(body)
}

#[tokio::test(flavor = "multi_thread")]
async fn half_closed_client_gets_a_complete_response() {
    let partner = start(frozen_partner(40)).await;
    let exporter = Exporter::start(&partner.base, &COLLECTORS, &[]).await;
    exporter.wait_until_settled().await;
    for path in ["/", "/metrics", "/-/healthy", "/-/ready", "/dashboards/", "/rules/"] {
        for version in ["HTTP/1.0", "HTTP/1.1"] {
            for header in ["", "accept-encoding: gzip\r\n"] {
                let mut stream =
                    connection(&exporter, &format!("GET {path} {version}\r\nhost: x\r\n{header}\r\n")).await;
                stream.shutdown().await.unwrap();
                let mut response = Vec::new();
                stream.read_to_end(&mut response).await.unwrap();
                let is_complete = complete_body(&response).is_some_and(|body| !body.is_empty());
                let end = String::from_utf8_lossy(&response[response.len().saturating_sub(200)..]).into_owned();
                assert!(
                    is_complete || (version == "HTTP/1.0" && !header.is_empty() && !response.is_empty()),
                    "{path} {version} {header}: {} … {end}",
                    response.len()
                );
            }
        }
    }
    // A connection without a complete request is closed.
    for head in ["", "GET /metrics HTTP/1.1\r\nhost"] {
        let mut stream = connection(&exporter, head).await;
        stream.shutdown().await.unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await.unwrap();
        assert!(!String::from_utf8_lossy(&response).contains(" 200 "));
    }
    exporter.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_closed_tls_client_gets_a_complete_response() {
    use std::sync::Arc;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    let server = crate::web::Site::start(crate::web::TLS).await;
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(crate::web::fixture("ca.pem")).unwrap())
        .unwrap();
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    for path in ["/", "/metrics", "/dashboards/", "/-/healthy"] {
        let tcp = TcpStream::connect(&server.address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut stream = connector.connect(name, tcp).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await.unwrap();
        assert!(
            complete_body(&response).is_some_and(|body| !body.is_empty()),
            "{path}: {}",
            response.len()
        );
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn disconnected_clients_leave_no_descriptors_open() {
    let partner = start(frozen_partner(40)).await;
    let program = Program::start_collectors(&partner.base, &["jobs"], &[]).await;
    program.wait_until("every poll succeeded", is_settled).await;
    let open_descriptors = |program: &Program| std::fs::read_dir(format!("/proc/{}/fd", program.id())).unwrap().count();
    let before = open_descriptors(&program);
    for _ in 0..50 {
        for path in ["/", "/metrics"] {
            let mut stream = TcpStream::connect(program.address()).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
        }
    }
    // The program may temporarily have other open descriptors.
    eventually("connections are closed", || async {
        (open_descriptors(&program) < before + 20).then_some(())
    })
    .await;
    assert_eq!(program.terminate().await.code, Some(0));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn exhausted_descriptors_are_logged_once_until_available() {
    let variables = every_second(&unreachable_api(), &[], &[]);
    let arguments = ["--web.listen-address=127.0.0.1:0", "--log.level=info"];
    let program = Program::limited("-n 48", variables, &arguments)
        .wait_until_listening()
        .await;
    let mut connections = Vec::new();
    for _ in 0..96 {
        connections.push(TcpStream::connect(program.address()).await.unwrap());
    }
    let logged = |text: &str| program.stderr().matches(text).count();
    eventually("the failure is logged", || async {
        (logged("cannot accept connections") > 0).then_some(())
    })
    .await;
    // Accepting connections fails until idle connections are closed.
    eventually("the recovery is logged", || async {
        (logged("accepting connections again") > 0).then_some(())
    })
    .await;
    drop(connections);
    assert_eq!(program.status("/-/healthy").await, 200);
    let stderr = program.terminate().await.stderr;
    let lines: Vec<_> = stderr
        .lines()
        .filter(|line| line.contains("accept connections") || line.contains("accepting connections"))
        .collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    let failures = lines[1].split("failures=").nth(1).unwrap();
    assert!(failures.trim().parse::<u64>().unwrap() > 5, "{}", lines[1]);
}
