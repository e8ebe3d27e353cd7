//! Scrapes by Prometheus and curl with TLS and a password.

use std::process::{Command, Output};

use crate::harness::eventually;
use crate::harness::servers::Server;
use crate::web::{CLIENT_CERTIFICATE_REQUIRED, Site, TLS, fixture, users};

const PASSWORD: &str = "correct horse";

/// Starts an exporter with TLS and a password, and another that also requires a client certificate.
async fn sites() -> (Site, Site) {
    let users = users(PASSWORD);
    let with_password = Site::start(&format!("{TLS}{users}")).await;
    (
        with_password,
        Site::start(&format!("{TLS}{CLIENT_CERTIFICATE_REQUIRED}{users}")).await,
    )
}

/// Returns a scrape job for Prometheus' configuration.
fn job(name: &str, site: &Site, scheme: &str, password: &str, tls: &str) -> String {
    let address = &site.address;
    format!(
        "- job_name: {name}\n  scrape_interval: 1s\n  scheme: {scheme}\n  basic_auth: {{username: alice, password: \
         {password}}}\n  tls_config: {{{tls}}}\n  static_configs: [{{targets: ['{address}']}}]\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_scrapes_over_tls_with_password_and_certificate() {
    let (with_password, with_certificate) = sites().await;
    let file = |name: &str| fixture(name).display().to_string();
    let trusted_ca = format!("ca_file: {}", file("ca.pem"));
    let client_certificate = |name: &str| {
        let (certificate, key) = (file(&format!("{name}.pem")), file(&format!("{name}-key.pem")));
        format!("{trusted_ca}, cert_file: {certificate}, key_file: {key}")
    };
    let (scraper, untrusted) = (client_certificate("scraper"), client_certificate("untrusted"));
    let jobs = [
        ("right", &with_password, "https", PASSWORD, trusted_ca.as_str(), 1.0),
        ("wrong_password", &with_password, "https", "wrong", &trusted_ca, 0.0),
        ("untrusting", &with_password, "https", PASSWORD, "", 0.0),
        ("plain", &with_password, "http", PASSWORD, &trusted_ca, 0.0),
        ("certified", &with_certificate, "https", PASSWORD, &scraper, 1.0),
        (
            "certified_wrong_password",
            &with_certificate,
            "https",
            "wrong",
            &scraper,
            0.0,
        ),
        ("untrusted", &with_certificate, "https", PASSWORD, &untrusted, 0.0),
        (
            "without_certificate",
            &with_certificate,
            "https",
            PASSWORD,
            &trusted_ca,
            0.0,
        ),
    ];
    let configuration: String = jobs
        .iter()
        .map(|(name, site, scheme, password, tls, _)| job(name, site, scheme, password, tls))
        .collect();
    let directory = tempfile::tempdir().unwrap();
    let configuration = format!("scrape_configs:\n{configuration}");
    let prometheus = Server::prometheus(directory.path(), &configuration).await;
    for (name, .., up) in jobs {
        let query = format!("up{{job=\"{name}\"}}");
        let actual = eventually(name, || prometheus.value(&query)).await;
        assert_eq!(actual, up, "{name}");
        let reported = prometheus
            .value(&format!("elements_exporter_build_info{{job=\"{name}\"}}"))
            .await;
        assert_eq!(reported, (up > 0.0).then_some(1.0), "{name}");
    }
}

fn curl(arguments: &[&str]) -> Output {
    // The first flag makes curl ignore the user's configuration file.
    let base_arguments = [
        "--disable",
        "--silent",
        "--show-error",
        "--noproxy",
        "*",
        "--max-time",
        "60",
    ];
    Command::new("curl")
        .args(base_arguments)
        .args(arguments)
        .output()
        .expect("cannot run curl; tests/run installs it")
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_needs_all_credentials() {
    let (with_password, with_certificate) = sites().await;
    let ca = fixture("ca.pem");
    let ca = ca.to_str().unwrap();
    let credentials = format!("alice:{PASSWORD}");
    let url = with_password.url("https", "/metrics");
    let curl = |arguments: &[&str]| {
        let output = tokio::task::block_in_place(|| curl(&[&["--write-out", "\n%{http_code}"], arguments].concat()));
        let printed = String::from_utf8(output.stdout).unwrap();
        let (body, code) = printed.rsplit_once('\n').unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        (code.parse::<u16>().unwrap(), body.to_owned(), error)
    };
    let (code, body, error) = curl(&["--cacert", ca, "--user", &credentials, &url]);
    assert_eq!(code, 200, "{error}");
    assert!(body.contains("\nelements_up 0\n"), "{body}");
    let (code, body, _) = curl(&["--compressed", "--cacert", ca, "--user", &credentials, &url]);
    assert!(code == 200 && body.contains("\nelements_up 0\n"), "{body}");
    for user in [&["--user", "alice:wrong"][..], &["--user", "bob:wrong"], &[]] {
        let (code, body, _) = curl(&[&["--cacert", ca], user, &[&url]].concat());
        assert_eq!((code, body.as_str()), (401, "Unauthorized\n"), "{user:?}");
    }
    // curl rejects a server whose certificate authority it does not trust.
    let (code, _, error) = curl(&["--user", &credentials, &url]);
    assert_eq!(code, 0, "{error}");
    let (code, body, _) = curl(&["--user", &credentials, &with_password.url("http", "/metrics")]);
    assert_eq!(code, 400, "{body}");
    assert!(!body.contains("elements_"), "{body}");

    let url = with_certificate.url("https", "/metrics");
    let (code, _, error) = curl(&["--cacert", ca, "--user", &credentials, &url]);
    assert_eq!(code, 0, "{error}");
    for (name, expected) in [("scraper", 200), ("untrusted", 0)] {
        let (certificate, key) = (fixture(&format!("{name}.pem")), fixture(&format!("{name}-key.pem")));
        let client_certificate = [
            "--cert",
            certificate.to_str().unwrap(),
            "--key",
            key.to_str().unwrap(),
            "--cacert",
            ca,
        ];
        let (code, _, error) = curl(&[&client_certificate[..], &["--user", &credentials, &url]].concat());
        assert_eq!(code, expected, "{name}: {error}");
    }
}
