//! Checks that each guarantee in `SECURITY.md` names existing tests, and tests guarantees that no other test covers.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::eventually;
use crate::harness::partner::{frozen_partner, start};
use crate::harness::program::Program;
use crate::web;

/// Number of connections that the exporter serves concurrently.
const MAX_CONNECTIONS: usize = 512;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the rows in the table of guarantees, each with the guarantee and its tests.
fn rows(page: &str) -> Vec<(String, String)> {
    let (_, table) = page.split_once("\n| guarantee | test |\n").unwrap();
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.trim_matches('|').split_once(" | ").unwrap());
    cells
        .map(|(property, tests)| (property.trim().to_owned(), tests.trim().to_owned()))
        .collect()
}

fn has_test(source: &str, name: &str) -> bool {
    let mut sections = source.split(&format!("fn {name}(")).collect::<Vec<_>>();
    sections.pop();
    // `before` ends with the attributes of the function, which follow the end of the previous item.
    sections.iter().any(|before| {
        let item = before.rsplit_once("}\n").map_or(*before, |(_, item)| item);
        item.contains("#[test]") || item.contains("#[tokio::test")
    })
}

#[test]
fn list_refers_to_existing_tests_and_programs() {
    let page = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let rows = rows(&page);
    assert!(rows.len() >= 13, "{rows:?}");
    for (property, tests) in &rows {
        // A code span that contains a space is a command, not the name of a test.
        let names = tests.split('`').skip(1).step_by(2).filter(|name| !name.contains(' '));
        let names: Vec<&str> = names.collect();
        assert!(!names.is_empty(), "{property}: no test");
        for name in names {
            let (file, test) = match name.split_once("::") {
                Some((file, test)) => (file, Some(test)),
                None => (name, None),
            };
            let path = root().join(file);
            let source = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{property}: {file}: {error}"));
            match test {
                Some(test) => {
                    let test = test.trim_start_matches("tests::");
                    assert!(has_test(&source, test), "{property}: {file} has no test {test}");
                }
                None => assert!(source.starts_with("#!"), "{property}: {file} cannot be run"),
            }
        }
    }
}

#[test]
fn flags_contain_no_secrets() {
    let program = || Command::new(crate::harness::program::PROGRAM);
    for command in ["", "demo", "simulate", "check", "once", "assets", "healthcheck"] {
        let mut help = program();
        help.args([command, "--help"].iter().filter(|argument| !argument.is_empty()));
        let help = String::from_utf8(help.output().unwrap().stdout).unwrap();
        let flags = help.lines().filter(|line| line.trim_start().starts_with("--"));
        for flag in flags.map(str::to_lowercase) {
            for word in ["secret", "password", "token", "key", "credential"] {
                assert!(!flag.contains(word), "{command}: {flag}");
            }
        }
    }
    let output = program()
        .arg("--auth.client_secret=hunter2")
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
}

/// The threshold `EXPOSURE` is in tenths of systemd's exposure level. `tests/deb` uses the same threshold for the
/// package.
#[test]
fn service_has_a_low_exposure_level() {
    const EXPOSURE: u32 = 15;
    let unit = root().join("deploy/systemd/elements_exporter.service");
    let text = fs::read_to_string(&unit).unwrap();
    assert!(text.lines().any(|line| line == "LimitCORE=0"));
    // The unit for several accounts must contain the same lines, except comments and lines with names.
    let template = fs::read_to_string(root().join("deploy/systemd/elements_exporter@.service")).unwrap();
    let is_shared =
        |line: &&str| !line.starts_with('#') && !line.contains("elements_exporter") && !line.contains("AvePoint");
    let missing: Vec<&str> = text
        .lines()
        .filter(is_shared)
        .filter(|line| !template.lines().any(|other| other == *line))
        .collect();
    assert!(missing.is_empty(), "elements_exporter@.service lacks {missing:?}");
    let analysis = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(format!("--threshold={EXPOSURE}"))
        .arg(unit)
        .output();
    // Without systemd, the exposure cannot be measured here. `tests/deb` requires systemd.
    let Ok(analysis) = analysis else { return };
    let printed = [analysis.stdout, analysis.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    assert!(analysis.status.success(), "{printed}");
    assert!(printed.contains("exposure level"), "{printed}");
}

/// If a request could choose an address, clients could reach hosts that otherwise only the exporter can reach.
#[tokio::test(flavor = "multi_thread")]
async fn requests_cannot_choose_a_target() {
    let partner = start(frozen_partner(2)).await;
    let external = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    external.set_nonblocking(true).unwrap();
    let target = external.local_addr().unwrap();
    let program = Program::start(&partner.base, &[], &[]).await;
    for path in ["/probe", "/-/probe", "/proxy", "/debug/pprof/", "/config", "/-/quit"] {
        let response = program.get(&format!("{path}?target=http://{target}/")).await;
        assert_eq!(response.status().as_u16(), 404, "{path}");
    }
    let response = program.get(&format!("/metrics?target=http://{target}/")).await;
    assert_eq!(response.status().as_u16(), 200);
    assert!(external.accept().is_err(), "a request was sent to the target");
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_needs_permission_and_a_post() {
    const RELOAD_TIME: &str = "elements_exporter_config_last_reload_success_timestamp_seconds";
    let partner = start(frozen_partner(2)).await;
    let client = crate::harness::client();
    for (flags, post_status) in [(&[][..], 403), (&["--web.enable-lifecycle"][..], 200)] {
        let program = Program::start(&partner.base, flags, &[]).await;
        let loaded = || async { crate::harness::value(&program.metrics().await, RELOAD_TIME).unwrap() };
        let before = loaded().await;
        let url = format!("{}/-/reload", program.base);
        // A web page can make a browser send some of these requests, such as a GET request for an image.
        for method in ["GET", "HEAD", "DELETE", "PATCH", "OPTIONS"] {
            let response = client.request(method.parse().unwrap(), &url).send().await.unwrap();
            assert_eq!(response.status().as_u16(), 405, "{method} {flags:?}");
        }
        assert_eq!(loaded().await.to_bits(), before.to_bits());
        let response = client.post(&url).send().await.unwrap();
        assert_eq!(response.status().as_u16(), post_status, "{flags:?}");
        assert_eq!(loaded().await > before, post_status == 200, "{flags:?}");
    }
}

/// Returns an address at which other machines could reach this machine, or `None` if there is no network.
fn external_address() -> Option<IpAddr> {
    // Connecting a UDP socket sends nothing, but determines its local address.
    let from = |to: &str, any: &str| {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((to, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let found = ["192.0.2.1", "203.0.113.1", "10.0.0.1"]
        .iter()
        .find_map(|to| from(to, "0.0.0.0"));
    found.filter(|address| !address.is_loopback())
}

/// Whether a reload is allowed depends on the caller's address and credentials, not on headers such as
/// `X-Forwarded-For`.
#[tokio::test(flavor = "multi_thread")]
async fn remote_reload_needs_an_authenticated_caller() {
    const REQUIRED: &str = "  client_ca_file: ca.pem\n  client_auth_type: ";
    // Without a network, only the tests in `src/http/caller.rs` cover this decision.
    let Some(external) = external_address() else { return };
    let anonymous = || web::client().tls_danger_accept_invalid_certs(true);
    let with = |name| web::with_certificate(name).tls_danger_accept_invalid_certs(true);
    let tls = |kind: &str| format!("{}{REQUIRED}{kind}\n", web::TLS);
    for (config, client, remote_status, local_status) in [
        (String::new(), anonymous(), 403, 200),
        (web::TLS.to_owned(), anonymous(), 403, 200),
        (tls("RequireAnyClientCert"), with("untrusted"), 403, 200),
        (tls("VerifyClientCertIfGiven"), with("scraper"), 403, 200),
        (tls("RequireAndVerifyClientCert"), with("scraper"), 200, 200),
        (web::users("correct horse"), anonymous(), 200, 200),
    ] {
        let site = web::Site::start_with(&config, &["--web.listen-address=:0", "--web.enable-lifecycle"]).await;
        let port = site.address.rsplit(':').next().unwrap();
        let scheme = if config.starts_with(web::TLS) { "https" } else { "http" };
        let client = client.build().unwrap();
        let reload = |host: &str, password: Option<&'static str>| {
            let request = client.post(format!("{scheme}://{host}:{port}/-/reload"));
            let request = request
                .header("x-forwarded-for", "127.0.0.1")
                .header("forwarded", "for=127.0.0.1");
            request
                .basic_auth("alice", password)
                .header("x-real-ip", "127.0.0.1")
                .send()
        };
        let response = reload(&external.to_string(), Some("correct horse")).await.unwrap();
        assert_eq!(response.status().as_u16(), remote_status, "{config}");
        let printed = response.text().await.unwrap();
        assert_eq!(
            printed.contains("--web.config.file"),
            remote_status == 403,
            "{config}: {printed}"
        );
        let response = reload("127.0.0.1", Some("correct horse")).await.unwrap();
        assert_eq!(response.status().as_u16(), local_status, "{config}");
        if config.contains("basic_auth_users") {
            for host in [external.to_string().as_str(), "127.0.0.1"] {
                assert_eq!(
                    reload(host, Some("wrong")).await.unwrap().status().as_u16(),
                    401,
                    "{host}"
                );
            }
        }
    }
}

/// A web page can make a browser on the exporter's machine send a POST request.
#[tokio::test(flavor = "multi_thread")]
async fn reload_from_a_web_page_is_rejected() {
    let site = web::Site::start_with("", &["--web.listen-address=127.0.0.1:0", "--web.enable-lifecycle"]).await;
    let post = || web::client().build().unwrap().post(site.url("http", "/-/reload"));
    for origin in ["https://example.com", "null", &site.url("http", "")] {
        let response = post().header("origin", origin).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 403, "{origin}");
    }
    assert_eq!(post().send().await.unwrap().status().as_u16(), 200);
}

/// The reproducibility check covers only builds with `deploy/build`.
#[test]
fn release_is_built_like_the_reproducible_build() {
    for file in [
        "tests/reproducible",
        "Dockerfile",
        ".github/workflows/release.yml",
        "README.md",
    ] {
        let text = fs::read_to_string(root().join(file)).unwrap();
        assert!(text.contains("deploy/build"), "{file} does not use deploy/build");
        assert!(!text.contains("cargo build"), "{file} uses cargo build");
    }
    let workflow = fs::read_to_string(root().join(".github/workflows/release.yml")).unwrap();
    let (comparison, released) = workflow.split_once("tests/reproducible compare").unwrap();
    assert!(comparison.contains("tests/reproducible first") && comparison.contains("tests/reproducible second"));
    assert!(
        released.contains("          deploy/build\n"),
        "the release differs from the compared build"
    );
}

/// Raises the limit on open files for the test process, which holds the client end of each connection.
#[cfg(unix)]
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let maximum_limit = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, maximum_limit).unwrap();
}

/// Sends a request over a connection, and returns whether a complete response with status 200 arrives.
async fn gets_response(stream: &mut TcpStream) -> bool {
    stream
        .write_all(b"GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut response = Vec::new();
    while !response.ends_with(b"\n") || response.ends_with(b"\r\n") {
        if !matches!(stream.read_buf(&mut response).await, Ok(1..)) {
            return false;
        }
    }
    response.starts_with(b"HTTP/1.1 200 OK")
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_wait() {
    allow_many_files();
    let partner = start(frozen_partner(2)).await;
    let program = Program::start(&partner.base, &[], &[]).await;
    let address: SocketAddr = program.base.trim_start_matches("http://").parse().unwrap();
    // A response on each connection proves that the exporter serves it. Otherwise, the connection might only be waiting
    // in the operating system's queue.
    let connections = (0..MAX_CONNECTIONS).map(|_| async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(gets_response(&mut stream).await);
        stream
    });
    let mut served = futures_util::future::join_all(connections).await;
    let mut additional = TcpStream::connect(address).await.unwrap();
    let response = tokio::spawn(async move { gets_response(&mut additional).await });
    // Meanwhile, other connections get responses.
    for stream in served.iter_mut().take(100) {
        assert!(gets_response(stream).await);
    }
    assert!(!response.is_finished(), "a connection beyond the limit is served");
    served.pop();
    assert!(response.await.unwrap(), "the additional connection must then be served");
    drop(served);
    eventually("a new connection is served", || async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        gets_response(&mut stream).await.then_some(())
    })
    .await;
}
