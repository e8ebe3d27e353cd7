//! The web configuration, tested over real sockets: TLS, client certificates, passwords and headers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use elements_exporter::args::{self, Web};
use elements_exporter::{app::App, config};
use reqwest::tls::TlsInfo;
use reqwest::{Certificate, Client, ClientBuilder, Identity};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::harness::{environment, eventually};

pub const TLS: &str = "tls_server_config:\n  cert_file: server.pem\n  key_file: server-key.pem\n";
pub const CLIENT_CERTIFICATE_REQUIRED: &str =
    "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n";

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/web")
        .join(name)
}

fn pem(name: &str) -> Vec<u8> {
    fs::read(fixture(name)).unwrap()
}

pub fn users(password: &str) -> String {
    // The lowest bcrypt cost is the fastest.
    format!("basic_auth_users:\n  alice: {}\n", bcrypt::hash(password, 4).unwrap())
}

/// An exporter with a web configuration but without an API.
pub struct Site {
    directory: TempDir,
    pub address: String,
    _stop: DropGuard,
}

impl Site {
    pub async fn start(text: &str) -> Self {
        Self::start_with(text, &["--web.listen-address=127.0.0.1:0"]).await
    }

    /// Starts an exporter with these flags, which must include the listen address.
    pub async fn start_with(text: &str, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["server.pem", "server-key.pem", "ca.pem"] {
            fs::copy(fixture(name), directory.path().join(name)).unwrap();
        }
        fs::write(directory.path().join("web.yml"), text).unwrap();
        let load = || config::load(None, environment("http://127.0.0.1:1", &[]));
        let app = App::bind(Arc::new(load), None, web(directory.path(), flags), String::new())
            .await
            .unwrap();
        let address = app.addresses()[0].to_string();
        let stop = CancellationToken::new();
        tokio::spawn(app.run(stop.clone()));
        Self {
            directory,
            address,
            _stop: stop.drop_guard(),
        }
    }

    fn replace(&self, name: &str, content: &[u8]) {
        fs::write(self.directory.path().join(name), content).unwrap();
    }

    pub fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://{}{path}", self.address)
    }

    /// Requests a path over TLS. Returns the status, or `None` if there is no response.
    async fn status(&self, client: &Client, path: &str) -> Option<u16> {
        let response = client.get(self.url("https", path)).send().await;
        response.ok().map(|response| response.status().as_u16())
    }

    fn healthcheck(&self) -> Output {
        self.healthcheck_with(&[])
    }

    /// Runs the program's health check, as a container does.
    fn healthcheck_with(&self, options: &[&str]) -> Output {
        let address = format!("--web.listen-address={}", self.address);
        let file = format!("--web.config.file={}", self.directory.path().join("web.yml").display());
        command(&[&["healthcheck", &address, &file], options].concat())
    }
}

fn web(directory: &Path, flags: &[&str]) -> Web {
    let file = format!("--web.config.file={}", directory.join("web.yml").display());
    let flags = [&["elements_exporter", &file], flags].concat();
    args::parse(flags).unwrap().web
}

fn command(arguments: &[&str]) -> Output {
    let mut command = Command::new(crate::harness::program::PROGRAM);
    command
        .args(arguments)
        .env_clear()
        .envs(environment("http://127.0.0.1:1", &[]))
        .output()
        .unwrap()
}

/// Returns a client that trusts the tests' certificate authority and performs a new handshake for every request.
pub fn client() -> ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .tls_certs_only([Certificate::from_pem(&pem("ca.pem")).unwrap()])
        .pool_max_idle_per_host(0)
        .tls_info(true)
}

pub fn with_certificate(name: &str) -> ClientBuilder {
    let identity = [pem(&format!("{name}.pem")), pem(&format!("{name}-key.pem"))].concat();
    client().identity(Identity::from_pem(&identity).unwrap())
}

fn client_as(name: &str) -> Client {
    with_certificate(name).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_served_over_tls_with_configured_headers() {
    let headers = "http_server_config:\n  http2: true\n  headers:\n    X-Frame-Options: deny\n    \
                   Strict-Transport-Security: max-age=60\n    Content-Security-Policy: default-src 'self'\n";
    let site = Site::start(&format!("{TLS}{headers}")).await;
    let client = client().build().unwrap();
    for (path, status) in [("/metrics", 200), ("/-/healthy", 200), ("/nothing", 404)] {
        let response = client.get(site.url("https", path)).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{path}");
        assert_eq!(response.version(), reqwest::Version::HTTP_11);
        assert_eq!(response.headers()["x-frame-options"], "deny");
        assert_eq!(response.headers()["strict-transport-security"], "max-age=60");
        assert_eq!(response.headers()["content-security-policy"], "default-src 'self'");
    }
    let discovered = client.get(site.url("https", "/sd?shards=1")).send().await.unwrap();
    let discovered = discovered.text().await.unwrap();
    assert!(discovered.contains(r#""__scheme__":"https""#), "{discovered}");
    // The configured headers are added to those of the pages, but do not replace them.
    let page = client.get(site.url("https", "/")).send().await.unwrap();
    assert_eq!(page.headers()["strict-transport-security"], "max-age=60");
    assert_eq!(page.headers()["x-frame-options"], "DENY");
    let policies: Vec<_> = page.headers().get_all("content-security-policy").iter().collect();
    assert_eq!(policies.len(), 1);
    assert!(
        policies[0]
            .to_str()
            .unwrap()
            .starts_with("default-src 'none'; style-src 'sha256-")
    );
    let tls12_client = client_of(reqwest::tls::Version::TLS_1_2);
    assert_eq!(site.status(&tls12_client, "/metrics").await, Some(200));
    assert!(site.healthcheck().status.success());
}

fn client_of(version: reqwest::tls::Version) -> Client {
    client().tls_version_max(version).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_below_the_minimum_are_rejected() {
    let site = Site::start(&format!("{TLS}  min_version: TLS13\n")).await;
    assert_eq!(site.status(&client().build().unwrap(), "/metrics").await, Some(200));
    let tls12_client = client_of(reqwest::tls::Version::TLS_1_2);
    assert_eq!(site.status(&tls12_client, "/metrics").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_to_a_tls_port_gets_an_error() {
    let site = Site::start(TLS).await;
    let response = reqwest::Client::builder()
        .build()
        .unwrap()
        .get(site.url("http", "/metrics"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status().as_u16(), 400);
    assert!(
        response
            .text()
            .await
            .unwrap()
            .contains("HTTP request to an HTTPS server")
    );
    // If a client sends neither TLS nor HTTP, the exporter closes the connection with a TLS alert.
    let mut stream = tokio::net::TcpStream::connect(&site.address).await.unwrap();
    stream.write_all(&[0; 16]).await.unwrap();
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response).await;
    assert!(!response.starts_with(b"HTTP"));
}

#[tokio::test(flavor = "multi_thread")]
async fn password_protects_every_route() {
    let site = Site::start(&users("correct horse")).await;
    let client = client().build().unwrap();
    let get = |path: &str| client.get(site.url("http", path));
    for path in [
        "/",
        "/metrics",
        "/-/healthy",
        "/-/ready",
        "/-/reload",
        "/dashboards/",
        "/nothing",
    ] {
        for request in [
            get(path),
            get(path).basic_auth("alice", Some("wrong")),
            get(path).basic_auth("alice", None::<&str>),
            get(path).basic_auth("bob", Some("correct horse")),
            get(path).bearer_auth("correct horse"),
        ] {
            let response = request.send().await.unwrap();
            assert_eq!(response.status().as_u16(), 401, "{path}");
            assert!(
                response.headers()["www-authenticate"]
                    .to_str()
                    .unwrap()
                    .starts_with("Basic realm=")
            );
            assert_eq!(response.text().await.unwrap(), "Unauthorized\n");
        }
    }
    for (path, status) in [("/metrics", 200), ("/-/healthy", 200), ("/nothing", 404)] {
        let response = get(path)
            .basic_auth("alice", Some("correct horse"))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), status, "{path}");
    }
    assert!(
        site.healthcheck().status.success(),
        "a server that requires a password must count as healthy"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn new_password_replaces_the_old_one() {
    let site = Site::start(&users("old")).await;
    let client = client().build().unwrap();
    let status = async |password| {
        let request = client
            .get(site.url("http", "/metrics"))
            .basic_auth("alice", Some(password));
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!((status("old").await, status("new").await), (200, 401));
    site.replace("web.yml", b"");
    site.replace("web.yml", users("new").as_bytes());
    eventually("the new password is active", || async {
        (status("new").await == 200).then_some(())
    })
    .await;
    assert_eq!(status("old").await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_need_an_allowed_certificate() {
    let names = "  client_allowed_sans: [other.example.com, scraper.example.com]\n";
    for (options, scraper) in [
        ("", Some(200)),
        (names, Some(200)),
        ("  max_version: TLS12\n", Some(200)),
        ("  client_allowed_sans: [192.0.2.1]\n", Some(200)),
        ("  client_allowed_sans: ['spiffe://example.com/scraper']\n", Some(200)),
        ("  client_allowed_sans: [other.example.com]\n", None),
    ] {
        let site = Site::start(&format!("{TLS}{CLIENT_CERTIFICATE_REQUIRED}{options}")).await;
        assert_eq!(
            site.status(&client_as("scraper"), "/metrics").await,
            scraper,
            "{options}"
        );
        assert!(site.healthcheck().status.success(), "{options}");
        assert_eq!(
            site.status(&client_as("untrusted"), "/metrics").await,
            None,
            "{options}"
        );
        assert_eq!(
            site.status(&client().build().unwrap(), "/metrics").await,
            None,
            "{options}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_auth_types_match_the_exporter_toolkit() {
    for (kind, anonymous_status, untrusted_status) in [
        ("RequestClientCert", Some(200), Some(200)),
        ("RequireAnyClientCert", None, Some(200)),
        ("VerifyClientCertIfGiven", Some(200), None),
        ("RequireAndVerifyClientCert", None, None),
    ] {
        let site = Site::start(&format!("{TLS}  client_auth_type: {kind}\n  client_ca_file: ca.pem\n")).await;
        assert_eq!(
            site.status(&client().build().unwrap(), "/metrics").await,
            anonymous_status,
            "{kind}"
        );
        assert_eq!(
            site.status(&client_as("untrusted"), "/metrics").await,
            untrusted_status,
            "{kind}"
        );
        assert_eq!(
            site.status(&client_as("scraper"), "/metrics").await,
            Some(200),
            "{kind}"
        );
        let output = site.healthcheck();
        assert!(
            output.status.success(),
            "{kind}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_certificate_is_loaded_unless_it_is_invalid() {
    let site = Site::start(TLS).await;
    let client = client().build().unwrap();
    let served_certificate = async || {
        let response = client.get(site.url("https", "/-/healthy")).send().await.unwrap();
        let info = response.extensions().get::<TlsInfo>().unwrap();
        info.peer_certificate().unwrap().to_vec()
    };
    let first = served_certificate().await;
    // A certificate is loaded only together with a valid key that matches it.
    site.replace("server.pem", &pem("renewed.pem"));
    assert_eq!(served_certificate().await, first);
    site.replace("server-key.pem", b"nonsense");
    assert_eq!(served_certificate().await, first);
    site.replace("server-key.pem", &pem("renewed-key.pem"));
    let renewed = eventually("the renewed certificate is active", || async {
        let now = served_certificate().await;
        (now != first).then_some(now)
    })
    .await;
    site.replace("server.pem", b"nonsense");
    assert_eq!(served_certificate().await, renewed);
}

#[test]
fn invalid_web_configuration_exits_with_78_and_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("web.yml");
    let flag = format!("--web.config.file={}", file.display());
    let missing = "cannot read ";
    for (text, part) in [
        (None, missing),
        (Some("tls_server_config: ["), "web.yml:2: "),
        (
            Some("\nbasic_auth_user: {}\n"),
            "web.yml:2: unknown key \"basic_auth_user\"; did you mean \"basic_auth_users\"?",
        ),
        (
            Some("basic_auth_users:\n  alice: secret\n"),
            "web.yml:2: basic_auth_users.alice: is not a bcrypt hash",
        ),
        (Some(TLS), "web.yml:2: tls_server_config.cert_file: "),
        (
            Some("\ntls_server_config: {}\n"),
            "web.yml:2: tls_server_config: is empty",
        ),
        (
            Some("tls_server_config:\n# cert_file: x\n"),
            "web.yml:1: tls_server_config: is empty",
        ),
    ] {
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        let output = command(&["--web.listen-address=127.0.0.1:0", &flag]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{error}");
        assert!(error.contains(part), "{error} lacks {part}");
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    }
}

/// Without an API, the exporter is healthy but not ready. A server that requires credentials counts as ready, because
/// the health check cannot determine its readiness.
#[tokio::test(flavor = "multi_thread")]
async fn health_check_distinguishes_healthy_and_ready() {
    let with_client_certificate = format!("{TLS}{CLIENT_CERTIFICATE_REQUIRED}");
    for (config, ready) in [
        ("", 1),
        (TLS, 1),
        (users("correct horse").as_str(), 0),
        (with_client_certificate.as_str(), 0),
    ] {
        let site = Site::start(config).await;
        assert!(site.healthcheck().status.success(), "{config}");
        let output = site.healthcheck_with(&["--ready"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(ready), "{config}: {error}");
        assert_eq!(
            error.contains("/-/ready returned status 503"),
            ready == 1,
            "{config}: {error}"
        );
    }
}

#[test]
fn health_check_without_an_exporter_fails() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for options in [&[][..], &["--ready"]] {
        let address = format!("--web.listen-address={free}");
        let output = command(&[&["healthcheck", &address], options].concat());
        assert_eq!(output.status.code(), Some(1), "{options:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn example_web_configuration_works() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/config/web.yml");
    let site = Site::start(&fs::read_to_string(example).unwrap()).await;
    let client = client().build().unwrap();
    let request = client.get(site.url("https", "/metrics"));
    let response = request
        .basic_auth("prometheus", Some("change me"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    assert_eq!(site.status(&client, "/metrics").await, Some(401));
}
