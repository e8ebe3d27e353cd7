//! Helpers that the tests share. The helpers start partners and other servers, run the exporter in this process or as a
//! program, load configurations independently of the process's environment, and wait for conditions.

#![allow(dead_code, reason = "two test targets share this module; neither uses all of it")]

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

/// Timeout for everything that a test waits for: a condition, a server, a browser. With a shorter timeout, tests could
/// fail on a busy machine.
pub const TIMEOUT: Duration = Duration::from_secs(600);

/// Pause between two evaluations of a condition.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Enables `collectors.scan_changes.objects`, which is disabled by default.
pub const OBJECTS: (&str, &str) = ("ELEMENTS_COLLECTORS__SCAN_CHANGES__OBJECTS", "true");

/// Names of the default collectors in environment variables.
pub const COLLECTOR_KEYS: [&str; 6] = [
    "CUSTOMERS",
    "JOBS",
    "PROTECTED",
    "LICENSES",
    "SCAN_PROFILES",
    "SCAN_CHANGES",
];

/// Names of the default collectors other than `customers`.
pub const COLLECTORS: [&str; 5] = ["jobs", "protected", "licenses", "scan_profiles", "scan_changes"];

/// Returns the environment of an exporter that polls the API at `base`, with additional variables.
pub fn environment(base: &str, extra_env: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    let token_url = format!("{base}/connect/token");
    let mut variables: BTreeMap<&str, &str> = BTreeMap::from([
        ("ELEMENTS_API__BASE_URL", base),
        ("ELEMENTS_API__TOKEN_URL", token_url.as_str()),
        ("ELEMENTS_API__REQUESTS_PER_SECOND", "1000"),
        ("ELEMENTS_API__MAX_CONCURRENCY", "8"),
        // Requests must not time out on a busy machine. Tests of timeouts set their own.
        ("ELEMENTS_API__TIMEOUT", "5m"),
        ("ELEMENTS_AUTH__CLIENT_ID", "demo"),
        ("ELEMENTS_AUTH__CLIENT_SECRET", "demo-secret"),
        // The dates of fixtures and the simulator's clock are in the past, so by default all modules would count as
        // abandoned.
        ("ELEMENTS_RPO__ABANDONED_AFTER", "100years"),
    ]);
    variables.extend(extra_env.iter().copied());
    variables
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// Loads the configuration from the result of [`environment`] with these arguments.
pub fn config(base: &str, extra_env: &[(&str, &str)]) -> Config {
    config::load(None, environment(base, extra_env)).unwrap()
}

/// Polls every target once. Returns the exposition, validated by independent parsers, and whether every poll succeeded.
pub async fn poll_once_validated(config: &Config) -> (String, bool) {
    let (text, succeeded) = poll_once(config).await;
    parser::assert_text_format(&text);
    (text, succeeded)
}

/// Like [`poll_once_validated`], but without the parsers, which take longer than the polls.
pub async fn poll_once(config: &Config) -> (String, bool) {
    let (exposition, succeeded) = app::once(config, CancellationToken::new()).await.unwrap();
    (String::from_utf8(exposition).unwrap(), succeeded)
}

/// Returns the lines of an exposition that start with `prefix`.
pub fn samples(text: &str, prefix: &str) -> String {
    let is_selected = |line: &&str| line.starts_with(prefix);
    text.lines()
        .filter(is_selected)
        .fold(String::new(), |text, line| text + line + "\n")
}

/// Returns the samples about customers, without metrics about the exporter and its process.
pub fn about_customers(text: &str) -> String {
    let is_about_customers = |line: &&str| {
        line.starts_with("elements_") && !line.starts_with("elements_exporter_") && !line.starts_with("elements_up")
    };
    text.lines()
        .filter(is_about_customers)
        .fold(String::new(), |text, line| text + line + "\n")
}

/// Returns the value of a series, if it exists. Panics if it occurs twice.
pub fn value(text: &str, series: &str) -> Option<f64> {
    let mut values = text
        .lines()
        .filter_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    let value = values.next();
    assert!(values.next().is_none(), "{series} occurs twice");
    value
}

/// Compares `text` with a file in `tests/it/expected`. If `UPDATE_EXPECTED` is set, first writes the file.
pub fn assert_expected(name: &str, text: &str) {
    let path = format!("{}/tests/it/expected/{name}.prom", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let difference = text
        .lines()
        .zip(expected.lines())
        .find(|(actual, expected)| actual != expected);
    assert!(
        text == expected,
        "{name} differs from the expected text, first in {difference:?}; UPDATE_EXPECTED=1 updates it"
    );
}

/// Waits until `condition` returns a value.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut condition: impl FnMut() -> F) -> T {
    let polling = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    };
    with_timeout(what, polling).await
}

/// Awaits a future, and panics after the timeout.
pub async fn with_timeout<T>(what: &str, future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(TIMEOUT, future).await;
    result.unwrap_or_else(|_| panic!("timed out while waiting for: {what}"))
}

/// Returns a client that uses no proxy, follows no redirects and decompresses nothing, so that tests see the original
/// responses.
pub fn client() -> reqwest::Client {
    // Fails harmlessly if another test has already installed the provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // The server may close an idle connection just as it is reused. Unlike a scraper, this client does not retry, so it
    // opens a connection for each request.
    let builder = reqwest::Client::builder()
        .no_proxy()
        .no_gzip()
        .pool_max_idle_per_host(0);
    builder.redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

/// Returns the environment of an exporter in which the collector `customers` and the given collectors poll every
/// second.
pub fn every_second(api: &str, collectors: &[&str], extra_env: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    let mut variables = BTreeMap::from([("ELEMENTS_API__VERSION".to_owned(), "v3".to_owned())]);
    for collector in COLLECTORS.into_iter().chain(["customers"]) {
        let enabled = collector == "customers" || collectors.contains(&collector);
        let key = |key: &str| format!("ELEMENTS_COLLECTORS__{}__{key}", collector.to_uppercase());
        variables.insert(key("ENABLED"), enabled.to_string());
        variables.insert(key("INTERVAL"), "1s".to_owned());
        variables.insert(key("STALE_AFTER"), "1h".to_owned());
    }
    variables.extend(
        extra_env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    let extra_env: Vec<_> = variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    environment(api, &extra_env)
}

/// Returns the environment of an exporter in which every default collector polls every second. On a busy machine, polls
/// are late, so values expire after an hour instead of after three intervals.
pub fn every_second_all(api: &str, extra_env: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    let defaults = COLLECTOR_KEYS.iter().flat_map(|name| {
        [("INTERVAL", "1s"), ("STALE_AFTER", "1h")]
            .map(|(key, value)| (format!("ELEMENTS_COLLECTORS__{name}__{key}"), value))
    });
    let defaults: Vec<(String, &str)> = defaults.collect();
    let defaults = defaults.iter().map(|(name, value)| (name.as_str(), *value));
    let settings: Vec<(&str, &str)> = defaults.chain(extra_env.iter().copied()).collect();
    environment(api, &settings)
}

/// Returns the number of customers for which a collector has fresh data.
pub fn fresh(text: &str, collector: &str) -> Option<f64> {
    value(
        text,
        &format!("elements_exporter_customers{{collector=\"{collector}\",state=\"fresh\"}}"),
    )
}
