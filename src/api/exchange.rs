//! HTTP client code shared by token requests and API requests: client construction, body reading and error
//! classification.

use rustls::pki_types::CertificateDer;
use std::error::Error as StdError;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::Response;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use url::Url;

use super::{Error, rate_limiter};
use crate::error_chain::sources;

/// Maximum connect timeout, even if `api.timeout` is longer. A connection that takes longer is unlikely to succeed.
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of idle connections per host.
const IDLE_CONNECTIONS: usize = 16;

/// Time during which an idle connection is kept. It is shorter than the idle timeout of common load balancers, which is
/// at least a minute.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// Builds the HTTP client for both the API and the token endpoint.
///
/// # Errors
/// Returns an error if the proxy or the certificate authorities cannot be used.
pub fn http_client(
    timeout: Duration,
    proxy: Option<&Url>,
    authorities: &[CertificateDer<'static>],
) -> Result<reqwest::Client, reqwest::Error> {
    client_builder(timeout, proxy, authorities)?.build()
}

/// Builds a client for plain HTTP URLs. Unlike the client that [`http_client`] builds, this client also works on
/// systems without certificate authorities.
///
/// # Errors
/// Returns an error if the proxy cannot be used.
pub fn plain_http_client(timeout: Duration, proxy: Option<&Url>) -> Result<reqwest::Client, reqwest::Error> {
    client_builder(timeout, proxy, &[])?.tls_certs_only([]).build()
}

/// Returns a client builder with the common settings.
pub(super) fn client_builder(
    timeout: Duration,
    proxy: Option<&Url>,
    authorities: &[CertificateDer<'static>],
) -> Result<reqwest::ClientBuilder, reqwest::Error> {
    let mut builder = reqwest::Client::builder()
        .user_agent(format!("elements_exporter/{}", crate::build_info::VERSION))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .connect_timeout(timeout.min(MAX_CONNECT_TIMEOUT))
        .timeout(timeout)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tls_version_min(reqwest::tls::Version::TLS_1_2);
    if let Some(proxy) = proxy {
        builder = builder.proxy(reqwest::Proxy::all(proxy.clone())?);
    }
    if !authorities.is_empty() {
        let authorities: Result<Vec<_>, _> = authorities
            .iter()
            .map(|der| reqwest::Certificate::from_der(der))
            .collect();
        builder = builder.tls_certs_merge(authorities?);
    }
    Ok(builder)
}

/// Returns the pause that a response requests. If `Retry-After` is a date, it is compared with the `Date` header of the
/// response, so clock skew does not matter. Without a valid `Date` header, it is compared with the local clock.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let header = headers.get(RETRY_AFTER)?.to_str().ok();
    let local_time = unix_now();
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let skew = rate_limiter::clock_skew(date, local_time).unwrap_or_default();
    rate_limiter::retry_after(header, local_time.saturating_add(skew))
}

pub(super) fn unix_now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// Reads a response body. Returns [`Error::TooLarge`] if it exceeds `cap` bytes after decompression.
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

/// Maps a `reqwest` error to an [`Error`]. Removes the URL from the error, because URLs contain customer ids and can
/// contain the proxy password.
pub(super) fn classify(error: reqwest::Error, timeout: Duration) -> Error {
    let error = error.without_url();
    // Connecting has a separate timeout, which is usually shorter.
    if error.is_timeout() && !error.is_connect() {
        return Error::Timeout(timeout);
    }
    if !error.is_connect() {
        return Error::Interrupted(error);
    }
    let causes: Vec<String> = causes(&error).collect();
    let mentions = |words: &[&str]| causes.iter().any(|cause| words.iter().any(|word| cause.contains(word)));
    if mentions(&["dns error", "failed to lookup"]) {
        Error::Dns(error)
    } else if mentions(&["proxy", "tunnel"]) {
        Error::Proxy(error)
    } else if has_cause::<rustls::Error>(&error) || mentions(&["certificate", "tls", "handshake", "corrupt message"]) {
        Error::Tls(error)
    } else {
        Error::Connect(error)
    }
}

fn causes(error: &(dyn StdError + 'static)) -> impl Iterator<Item = String> {
    sources(error).map(|cause| cause.to_string().to_ascii_lowercase())
}

fn has_cause<E: StdError + 'static>(error: &(dyn StdError + 'static)) -> bool {
    sources(error).any(|cause| {
        let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause.is::<E>() || inner.is_some_and(|inner| inner.is::<E>())
    })
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn wait(retry_after_header: &str, date: Option<&str>) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_str(retry_after_header).unwrap());
        if let Some(date) = date {
            headers.insert(DATE, HeaderValue::from_str(date).unwrap());
        }
        retry_after(&headers).map(|wait| wait.as_secs())
    }

    #[tokio::test]
    async fn connection_timeout_is_a_connection_error() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A listener does not respond to further connections while its queue of pending connections is full.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((std::net::Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..8 {
            waiting.spawn(tokio::net::TcpStream::connect(address));
        }
        let queued = [waiting.join_next().await, waiting.join_next().await];
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_millis(50))
            .timeout(Duration::from_secs(60))
            .build()
            .unwrap();
        let error = client.get(format!("http://{address}/")).send().await.unwrap_err();
        assert_eq!(classify(error, Duration::from_secs(30)).reason(), "connect");
        drop((queued, listener));
    }

    #[test]
    fn retry_after_date_is_relative_to_the_date_header() {
        let at = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(wait(at, Some("Sun, 06 Nov 1994 08:49:30 GMT")), Some(7));
        assert_eq!(wait(at, Some("Sun, 06 Nov 1994 08:50:00 GMT")), Some(0));
        assert_eq!(wait(at, Some("Sun, 06 Nov 1994 07:00:00 GMT")), Some(300), "clamped");
        assert_eq!(wait("7", Some("Sun, 06 Nov 1994 08:49:30 GMT")), Some(7));
        // According to the local clock, the date is in the past.
        assert_eq!(wait(at, None), Some(0));
        assert_eq!(wait(at, Some("yesterday")), Some(0));
        assert_eq!(wait("soon", Some(at)), None);
    }
}
