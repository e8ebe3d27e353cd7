//! The list of `SECURITY.md`, and what of it no other test holds.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::program::Program;
use crate::support::eventually;
use crate::web;
use crate::world::{start, still};

/// As many connections as the exporter serves at once.
const MAX_CONNECTIONS: usize = 512;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The rows of the table with this heading: what holds, and what holds it to that.
fn rows(page: &str) -> Vec<(String, String)> {
    let (_, table) = page.split_once("\n| what holds | held by |\n").unwrap();
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.trim_matches('|').split_once(" | ").unwrap());
    cells
        .map(|(what, by)| (what.trim().to_owned(), by.trim().to_owned()))
        .collect()
}

/// Whether a source has a test with this name.
fn has_test(source: &str, name: &str) -> bool {
    let mut sections = source.split(&format!("fn {name}(")).collect::<Vec<_>>();
    sections.pop();
    // What stands before the name, back to the end of what came before it.
    sections.iter().any(|before| {
        let item = before.rsplit_once("}\n").map_or(*before, |(_, item)| item);
        item.contains("#[test]") || item.contains("#[tokio::test")
    })
}

#[test]
fn the_list_names_tests_and_programs_that_are_there() {
    let page = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let rows = rows(&page);
    assert!(rows.len() >= 13, "{rows:?}");
    for (what, by) in &rows {
        // What has a space in it is a command, and not a name.
        let names = by.split('`').skip(1).step_by(2).filter(|name| !name.contains(' '));
        let names: Vec<&str> = names.collect();
        assert!(!names.is_empty(), "{what}: nothing holds it");
        for name in names {
            let (file, test) = match name.split_once("::") {
                Some((file, test)) => (file, Some(test)),
                None => (name, None),
            };
            let path = root().join(file);
            let source = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{what}: {file}: {error}"));
            match test {
                Some(test) => {
                    let test = test.trim_start_matches("tests::");
                    assert!(has_test(&source, test), "{what}: {file} has no test {test}");
                }
                None => assert!(source.starts_with("#!"), "{what}: {file} cannot be run"),
            }
        }
    }
}

#[test]
fn no_flag_takes_a_secret() {
    let program = || Command::new(env!("CARGO_BIN_EXE_elements_exporter"));
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

/// As systemd measures it, times ten; the package is held to the same by `tests/deb`.
#[test]
fn the_service_is_exposed_to_little() {
    const EXPOSURE: u32 = 15;
    let unit = root().join("deploy/systemd/elements_exporter.service");
    let text = fs::read_to_string(&unit).unwrap();
    assert!(text.lines().any(|line| line == "LimitCORE=0"));
    let analysis = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(format!("--threshold={EXPOSURE}"))
        .arg(unit)
        .output();
    // Where there is no systemd there is nothing to measure it with; tests/deb insists on it.
    let Ok(analysis) = analysis else { return };
    let said = [analysis.stdout, analysis.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(analysis.status.success(), "{said}");
    assert!(said.contains("exposure level"), "{said}");
}

/// An exporter that asks whatever address its scraper names could be used to reach what only it can reach.
#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_probe_and_no_request_chooses_where_to_ask() {
    let partner = start(still(2)).await;
    let elsewhere = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let target = elsewhere.local_addr().unwrap();
    let program = Program::start(&partner.base, &[], &[]).await;
    for path in ["/probe", "/-/probe", "/proxy", "/debug/pprof/", "/config", "/-/quit"] {
        let answer = program.get(&format!("{path}?target=http://{target}/")).await;
        assert_eq!(answer.status().as_u16(), 404, "{path}");
    }
    let answer = program.get(&format!("/metrics?target=http://{target}/")).await;
    assert_eq!(answer.status().as_u16(), 200);
    let asked = tokio::time::timeout(Duration::from_millis(200), elsewhere.accept()).await;
    assert!(asked.is_err(), "nothing was asked there");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reloads_unless_that_was_allowed_and_nobody_by_a_link() {
    const AT: &str = "elements_exporter_config_last_reload_success_timestamp_seconds";
    let partner = start(still(2)).await;
    let client = crate::faults::client();
    for (flags, by_post) in [(&[][..], 403), (&["--web.enable-lifecycle"][..], 200)] {
        let program = Program::start(&partner.base, flags, &[]).await;
        let loaded = || async { crate::support::value(&program.metrics().await, AT).unwrap() };
        let before = loaded().await;
        let url = format!("{}/-/reload", program.base);
        // A page that a browser opens can have it fetch a link.
        for method in ["GET", "HEAD", "DELETE", "PATCH", "OPTIONS"] {
            let answer = client.request(method.parse().unwrap(), &url).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 405, "{method} {flags:?}");
        }
        assert_eq!(loaded().await.to_bits(), before.to_bits());
        let answer = client.post(&url).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), by_post, "{flags:?}");
        assert_eq!(loaded().await > before, by_post == 200, "{flags:?}");
    }
}

/// An address of this machine that another could reach it at; `None` where it has no network.
fn own_address() -> Option<IpAddr> {
    // Nothing is sent: a socket that is connected has been told from where it would send.
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

/// A peer is taken for who it is by its connection, and by nothing that it says.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_elsewhere_reloads_unless_the_web_configuration_says_who_asks() {
    const REQUIRED: &str = "  client_ca_file: ca.pem\n  client_auth_type: ";
    // Without a network, src/http/caller.rs has the tests of what is decided.
    let Some(elsewhere) = own_address() else { return };
    let nobody = || web::client().tls_danger_accept_invalid_certs(true);
    let with = |name| web::with_certificate(name).tls_danger_accept_invalid_certs(true);
    let tls = |kind: &str| format!("{}{REQUIRED}{kind}\n", web::TLS);
    for (config, client, from_elsewhere, from_here) in [
        (String::new(), nobody(), 403, 200),
        (web::TLS.to_owned(), nobody(), 403, 200),
        (tls("RequireAnyClientCert"), with("stranger"), 403, 200),
        (tls("VerifyClientCertIfGiven"), with("scraper"), 403, 200),
        (tls("RequireAndVerifyClientCert"), with("scraper"), 200, 200),
        (web::users("correct horse"), nobody(), 200, 200),
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
        let answer = reload(&elsewhere.to_string(), Some("correct horse")).await.unwrap();
        assert_eq!(answer.status().as_u16(), from_elsewhere, "{config}");
        let said = answer.text().await.unwrap();
        assert_eq!(
            said.contains("--web.config.file"),
            from_elsewhere == 403,
            "{config}: {said}"
        );
        let answer = reload("127.0.0.1", Some("correct horse")).await.unwrap();
        assert_eq!(answer.status().as_u16(), from_here, "{config}");
        if config.contains("basic_auth_users") {
            for host in [elsewhere.to_string().as_str(), "127.0.0.1"] {
                assert_eq!(
                    reload(host, Some("wrong")).await.unwrap().status().as_u16(),
                    401,
                    "{host}"
                );
            }
        }
    }
}

/// A page that a browser on the machine of the exporter opens can have it send a POST.
#[tokio::test(flavor = "multi_thread")]
async fn no_web_page_reloads() {
    let site = web::Site::start_with("", &["--web.listen-address=127.0.0.1:0", "--web.enable-lifecycle"]).await;
    let post = || web::client().build().unwrap().post(site.url("http", "/-/reload"));
    for origin in ["https://example.com", "null", &site.url("http", "")] {
        let answer = post().header("origin", origin).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 403, "{origin}");
    }
    assert_eq!(post().send().await.unwrap().status().as_u16(), 200);
}

/// A program that was built in another way is not what was shown to be reproducible.
#[test]
fn what_is_released_is_built_as_is_shown_to_be_reproducible() {
    for file in [
        "tests/reproducible",
        "Dockerfile",
        ".github/workflows/release.yml",
        "README.md",
    ] {
        let text = fs::read_to_string(root().join(file)).unwrap();
        assert!(text.contains("deploy/build"), "{file} builds in another way");
        assert!(!text.contains("cargo build"), "{file} builds in another way as well");
    }
    let workflow = fs::read_to_string(root().join(".github/workflows/release.yml")).unwrap();
    let (shown, released) = workflow.split_once("tests/reproducible compare").unwrap();
    assert!(shown.contains("tests/reproducible first") && shown.contains("tests/reproducible second"));
    assert!(
        released.contains("          deploy/build\n"),
        "what is released is not what was compared"
    );
}

/// Lets this process have as many files as it may: half of the sockets of the test are its own.
#[cfg(unix)]
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, most).unwrap();
}

/// Asks over a connection that is open already, and says whether an answer comes.
async fn is_answered(stream: &mut TcpStream) -> bool {
    stream
        .write_all(b"GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).await.is_ok() && answer == *b"HTTP/1.1 200 OK"
}

#[tokio::test(flavor = "multi_thread")]
async fn past_as_many_connections_as_are_served_a_newcomer_waits_for_a_place() {
    allow_many_files();
    let partner = start(still(2)).await;
    let program = Program::start(&partner.base, &[], &[]).await;
    let address: SocketAddr = program.base.trim_start_matches("http://").parse().unwrap();
    // Each is asked something, so that it is known to be served and not just in the queue of the system.
    let connections = (0..MAX_CONNECTIONS).map(|_| async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(is_answered(&mut stream).await);
        stream
    });
    let mut served = futures_util::future::join_all(connections).await;
    let mut newcomer = TcpStream::connect(address).await.unwrap();
    let mut answer = tokio::spawn(async move { is_answered(&mut newcomer).await });
    let soon = tokio::time::timeout(Duration::from_millis(500), &mut answer).await;
    assert!(soon.is_err(), "one more than may be is served");
    served.pop();
    assert!(answer.await.unwrap(), "there is a place again");
    drop(served);
    eventually("everybody is served again", || async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        is_answered(&mut stream).await.then_some(())
    })
    .await;
}
