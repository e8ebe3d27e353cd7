//! What one exchange over HTTP is made of, for tokens and for the API: the client, reading a body, naming what broke.

use std::error::Error as StdError;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::Response;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use url::Url;

use super::{Error, pace};

/// The longest wait for a connection, where `api.timeout` allows more: a host that does not answer a SYN for so long
/// is not going to.
const MAX_CONNECT: Duration = Duration::from_secs(10);

/// How many idle connections are kept; more than ever run at once would be idle for nothing.
const IDLE_CONNECTIONS: usize = 16;

/// How long an idle connection is kept. Front ends commonly drop them after a minute or more.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// Builds the HTTP client for both the API and the token endpoint.
///
/// # Errors
/// When the proxy or the certificate authorities cannot be used.
pub fn http_client(
    timeout: Duration,
    proxy: Option<&Url>,
    authorities: &[reqwest::Certificate],
) -> Result<reqwest::Client, reqwest::Error> {
    client_builder(timeout, proxy, authorities)?.build()
}

/// The same client with whatever else it is to do.
pub(super) fn client_builder(
    timeout: Duration,
    proxy: Option<&Url>,
    authorities: &[reqwest::Certificate],
) -> Result<reqwest::ClientBuilder, reqwest::Error> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("elements_exporter/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .connect_timeout(timeout.min(MAX_CONNECT))
        .timeout(timeout)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tls_version_min(reqwest::tls::Version::TLS_1_2);
    if let Some(proxy) = proxy {
        builder = builder.proxy(reqwest::Proxy::all(proxy.clone())?);
    }
    if !authorities.is_empty() {
        builder = builder.tls_certs_merge(authorities.iter().cloned());
    }
    Ok(builder)
}

/// The pause that an answer asks for.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let header = headers.get(RETRY_AFTER)?.to_str().ok();
    pace::retry_after(header, unix_now())
}

pub(super) fn unix_now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// Reads a body up to a cap that holds after decompression.
pub(super) async fn read_body(mut response: Response, cap: usize, timeout: Duration) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Ok(body),
            Ok(Some(chunk)) if body.len() + chunk.len() > cap => return Err(Error::TooLarge(cap)),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Err(error) => return Err(classify(error, timeout)),
        }
    }
}

/// Names what went wrong below HTTP. URLs are taken off: they carry ids, and a proxy's carries a password.
pub(super) fn classify(error: reqwest::Error, timeout: Duration) -> Error {
    let error = error.without_url();
    if error.is_timeout() {
        return Error::Timeout(timeout);
    }
    if !error.is_connect() {
        return Error::Interrupted(error);
    }
    let causes: Vec<String> = causes(&error).collect();
    let says = |words: &[&str]| causes.iter().any(|cause| words.iter().any(|word| cause.contains(word)));
    if says(&["dns error", "failed to lookup"]) {
        Error::Dns(error)
    } else if says(&["proxy", "tunnel"]) {
        Error::Proxy(error)
    } else if has_cause::<rustls::Error>(&error) || says(&["certificate", "tls", "handshake", "corrupt message"]) {
        Error::Tls(error)
    } else {
        Error::Connect(error)
    }
}

/// The errors behind an error, nearest first.
fn chain<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

fn causes(error: &(dyn StdError + 'static)) -> impl Iterator<Item = String> {
    chain(error).map(|cause| cause.to_string().to_ascii_lowercase())
}

fn has_cause<E: StdError + 'static>(error: &(dyn StdError + 'static)) -> bool {
    chain(error).any(|cause| {
        let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause.is::<E>() || inner.is_some_and(|inner| inner.is::<E>())
    })
}
