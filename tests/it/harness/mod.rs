//! Shared parts of the tests: partners and other servers, the exporter in this process and as a program, configurations
//! without the process environment, and waiting for conditions.

#![allow(dead_code, reason = "two test targets share it, and neither uses all of it")]

pub mod canned;
pub mod exporter;
pub mod parser;
pub mod partner;
pub mod program;
pub mod scripted;
pub mod servers;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::future::Future;
use std::time::Duration;

use elements_exporter::app;
use elements_exporter::config::{self, Config};
use tokio_util::sync::CancellationToken;

/// Timeout of everything that a test waits for: a condition, a server, a browser. Tests have no shorter timeouts,
/// because a busy machine is slower than any bound that would detect a fault.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// Pause between two evaluations of a condition.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Counts changed objects, which is off by default.
pub const OBJECTS: (&str, &str) = ("ELEMENTS_COLLECTORS__SCAN_CHANGES__OBJECTS", "true");

/// Names of collectors in environment variables.
pub const COLLECTOR_KEYS: [&str; 6] = [
    "CUSTOMERS",
    "JOBS",
    "PROTECTED",
    "LICENSES",
    "SCAN_PROFILES",
    "SCAN_CHANGES",
];

/// Collectors of customers' data, by their configured names.
pub const COLLECTORS: [&str; 5] = ["jobs", "protected", "licenses", "scan_profiles", "scan_changes"];

/// Returns the environment of an exporter that polls the API at `base`, with `more` variables.
pub fn environment(base: &str, more: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    let token_url = format!("{base}/connect/token");
    let mut variables: BTreeMap<&str, &str> = BTreeMap::from([
        ("ELEMENTS_API__BASE_URL", base),
        ("ELEMENTS_API__TOKEN_URL", token_url.as_str()),
        ("ELEMENTS_API__REQUESTS_PER_SECOND", "1000"),
        ("ELEMENTS_API__MAX_CONCURRENCY", "8"),
        // Requests do not time out on a busy machine; tests of timeouts set their own.
        ("ELEMENTS_API__TIMEOUT", "5m"),
        ("ELEMENTS_AUTH__CLIENT_ID", "demo"),
        ("ELEMENTS_AUTH__CLIENT_SECRET", "demo-secret"),
        // The dates of fixtures and fixed worlds are long ago.
        ("ELEMENTS_RPO__ABANDONED_AFTER", "100years"),
    ]);
    variables.extend(more.iter().copied());
    variables
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// Returns the configuration from such an environment.
pub fn config(base: &str, more: &[(&str, &str)]) -> Config {
    config::load(None, environment(base, more)).unwrap()
}

/// Polls everything once. Returns the exposition, validated by independent parsers, and whether every poll succeeded.
pub async fn once(config: &Config) -> (String, bool) {
    let (text, good) = polled_once(config).await;
    parser::accepts_text(&text);
    (text, good)
}

/// Same as [`once`], without the parsers, which take longer than the poll.
pub async fn polled_once(config: &Config) -> (String, bool) {
    let (exposition, good) = app::once(config, CancellationToken::new()).await.unwrap();
    (String::from_utf8(exposition).unwrap(), good)
}

/// Returns the samples of an exposition that start with `prefix`, in order, without comments.
pub fn samples(text: &str, prefix: &str) -> String {
    let is_selected = |line: &&str| line.starts_with(prefix);
    text.lines()
        .filter(is_selected)
        .fold(String::new(), |text, line| text + line + "\n")
}

/// Returns the part of the exposition about customers, without metrics about the exporter and its process.
pub fn about_customers(text: &str) -> String {
    let about = |line: &&str| {
        line.starts_with("elements_") && !line.starts_with("elements_exporter_") && !line.starts_with("elements_up")
    };
    text.lines()
        .filter(about)
        .fold(String::new(), |text, line| text + line + "\n")
}

/// Returns the value of the only sample that starts with `series`.
pub fn value(text: &str, series: &str) -> Option<f64> {
    let mut values = text
        .lines()
        .filter_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    let value = values.next();
    assert!(values.next().is_none(), "{series} occurs twice");
    value
}

/// Compares a text with the expected one in a file beside this one. Writes the file instead if `UPDATE_EXPECTED` is
/// set.
pub fn expect(name: &str, text: &str) {
    let path = format!("{}/tests/it/expected/{name}.prom", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = text
        .lines()
        .zip(expected.lines())
        .find(|(actual, expected)| actual != expected);
    assert!(
        text == expected,
        "{name} differs from what is expected, first in {differs:?}; UPDATE_EXPECTED=1 updates it"
    );
}

/// Waits until `condition` returns a value.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut condition: impl FnMut() -> F) -> T {
    let holds = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    };
    patiently(what, holds).await
}

/// Awaits a future, and fails after the timeout.
pub async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(PATIENCE, future).await;
    ended.unwrap_or_else(|_| panic!("still not: {what}"))
}

/// Returns a client that shows responses unchanged: without proxy, redirects and decompression.
pub fn client() -> reqwest::Client {
    // Fails if another test has installed the provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // The other side may close an idle connection just when it is used again. Scrapers retry then. This client does
    // not, so it opens a connection for each request.
    let builder = reqwest::Client::builder()
        .no_proxy()
        .no_gzip()
        .pool_max_idle_per_host(0);
    builder.redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

/// Returns the environment of an exporter that polls the customers and these collectors every second.
pub fn every_second(api: &str, collectors: &[&str], more: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    let mut variables = BTreeMap::from([("ELEMENTS_API__VERSION".to_owned(), "v3".to_owned())]);
    for collector in COLLECTORS.into_iter().chain(["customers"]) {
        let enabled = collector == "customers" || collectors.contains(&collector);
        let key = |key: &str| format!("ELEMENTS_COLLECTORS__{}__{key}", collector.to_uppercase());
        variables.insert(key("ENABLED"), enabled.to_string());
        variables.insert(key("INTERVAL"), "1s".to_owned());
        variables.insert(key("STALE_AFTER"), "1h".to_owned());
    }
    variables.extend(
        more.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    let more: Vec<_> = variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    environment(api, &more)
}

/// Returns the environment of an exporter that polls every collector every second.
pub fn quick(api: &str, more: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    let short = COLLECTOR_KEYS.map(|name| (format!("ELEMENTS_COLLECTORS__{name}__INTERVAL"), "1s"));
    let mut settings: Vec<(&str, &str)> = short.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    settings.extend(more);
    environment(api, &settings)
}

/// Returns the number of fresh customers of a collector.
pub fn fresh(text: &str, collector: &str) -> Option<f64> {
    value(
        text,
        &format!("elements_exporter_customers{{collector=\"{collector}\",state=\"fresh\"}}"),
    )
}
