//! What the tests share: configurations without the process environment, scrapes, and waiting for a condition.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::future::Future;
use std::time::{Duration, Instant};

use elements_exporter::app;
use elements_exporter::config::Config;
use tokio_util::sync::CancellationToken;

use crate::parser;

/// How long a condition may take to come true on a slow machine before the test gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Counts changed objects, which is off by default.
pub const OBJECTS: (&str, &str) = ("ELEMENTS_COLLECTORS__SCAN_CHANGES__OBJECTS", "true");

/// The environment of an exporter that asks the API at `base`, with `more` over it.
pub fn environment(base: &str, more: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    let token_url = format!("{base}/connect/token");
    let mut variables: BTreeMap<&str, &str> = BTreeMap::from([
        ("ELEMENTS_API__BASE_URL", base),
        ("ELEMENTS_API__TOKEN_URL", token_url.as_str()),
        ("ELEMENTS_API__REQUESTS_PER_SECOND", "1000"),
        ("ELEMENTS_API__MAX_CONCURRENCY", "8"),
        ("ELEMENTS_API__TIMEOUT", "5s"),
        ("ELEMENTS_AUTH__CLIENT_ID", "demo"),
        ("ELEMENTS_AUTH__CLIENT_SECRET", "demo-secret"),
    ]);
    variables.extend(more.iter().copied());
    variables
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// The configuration out of such an environment.
pub fn config(base: &str, more: &[(&str, &str)]) -> Config {
    app::load_config(None, environment(base, more)).unwrap()
}

/// One full poll: the exposition, read back by an independent parser, and whether every poll succeeded.
pub async fn once(config: &Config) -> (String, bool) {
    let (exposition, good) = app::once(config, CancellationToken::new()).await.unwrap();
    let text = String::from_utf8(exposition).unwrap();
    parser::accepts_text(&text);
    (text, good)
}

/// The samples of an exposition that begin with `prefix`, in their order, without comments.
pub fn samples(text: &str, prefix: &str) -> String {
    let wanted = |line: &&str| line.starts_with(prefix);
    text.lines()
        .filter(wanted)
        .fold(String::new(), |text, line| text + line + "\n")
}

/// What the exposition says about the remote world: everything but the exporter and its process.
pub fn about_customers(text: &str) -> String {
    let about = |line: &&str| {
        line.starts_with("elements_") && !line.starts_with("elements_exporter_") && !line.starts_with("elements_up")
    };
    text.lines()
        .filter(about)
        .fold(String::new(), |text, line| text + line + "\n")
}

/// The value of the one sample that begins with `series`.
pub fn value(text: &str, series: &str) -> Option<f64> {
    let mut values = text
        .lines()
        .filter_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    let value = values.next();
    assert!(values.next().is_none(), "{series} stands twice");
    value
}

/// The text that is expected, in a file beside this one. With `UPDATE_EXPECTED` set it is written instead.
pub fn expect(name: &str, text: &str) {
    let path = format!("{}/tests/it/expected/{name}.prom", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = text.lines().zip(expected.lines()).find(|(said, wanted)| said != wanted);
    assert!(
        text == expected,
        "{name} differs from what is expected, first in {differs:?}; UPDATE_EXPECTED=1 writes it anew"
    );
}

/// Waits until `condition` gives something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, condition: impl FnMut() -> F) -> T {
    within(PATIENCE, what, condition).await
}

/// The same where several programs have to play together, of which each waits a while by design.
pub async fn patiently<T, F: Future<Output = Option<T>>>(what: &str, condition: impl FnMut() -> F) -> T {
    within(PATIENCE * 6, what, condition).await
}

async fn within<T, F: Future<Output = Option<T>>>(
    patience: Duration,
    what: &str,
    mut condition: impl FnMut() -> F,
) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(began.elapsed() < patience, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
