//! Checks a host's name resolution, reachability, certificate and clock, without sending credentials.

use rustls::pki_types::CertificateDer;
use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::DATE;
use reqwest::tls::TlsInfo;
use url::Url;

use super::Error;
use super::exchange::{classify, client_builder, unix_now};
use super::rate_limiter::clock_skew;

/// Timeout for name resolution. It allows for three attempts with the usual resolver timeout of 5 s.
const RESOLVE_LIMIT: Duration = Duration::from_secs(15);

/// Result of a probe.
#[derive(Debug)]
pub struct ProbeResult {
    /// Status of the response. Any status shows that the host responds.
    pub status: u16,
    /// Duration of the request, including connection setup.
    pub took: Duration,
    /// Seconds by which the host's clock is ahead of this machine's, if the response contains a date.
    pub skew: Option<i64>,
    /// Expiry of the host's certificate, as Unix time, if the host has one.
    pub certificate_expiry: Option<i64>,
}

/// Resolves the host of a URL. Returns the number of its addresses, and the first address.
///
/// # Errors
/// Returns an error if the name cannot be resolved or has no address, or if the resolver does not respond.
pub async fn resolve(url: &Url) -> Result<(usize, String), String> {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or_default();
    let lookup = tokio::net::lookup_host((host, port));
    let addresses = match tokio::time::timeout(RESOLVE_LIMIT, lookup).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err("the resolver did not respond".to_owned()),
    };
    let mut addresses: Vec<String> = addresses.map(|address| address.ip().to_string()).collect();
    addresses.dedup();
    let first = addresses.first().cloned().ok_or("the name has no address")?;
    Ok((addresses.len(), first))
}

/// Sends a `HEAD` request to the root of a host, without credentials.
///
/// # Errors
/// Returns the reason why there is no response.
pub async fn probe(
    url: &Url,
    proxy: Option<&Url>,
    authorities: &[CertificateDer<'static>],
    timeout: Duration,
) -> Result<ProbeResult, Error> {
    let is_encrypted = [Some(url), proxy]
        .into_iter()
        .flatten()
        .any(|url| url.scheme() == "https");
    let client = client_builder(timeout, proxy, authorities).and_then(|builder| match is_encrypted {
        true => builder.tls_info(true).build(),
        // This client also works on systems without certificate authorities.
        false => builder.tls_certs_only([]).build(),
    });
    let client = client.map_err(|error| classify(error, timeout))?;
    let mut root = url.clone();
    root.set_path("/");
    root.set_query(None);
    let began = Instant::now();
    let sent = client.request(Method::HEAD, root).send().await;
    let response = sent.map_err(|error| classify(error, timeout))?;
    let took = began.elapsed();
    let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
    let certificate = response
        .extensions()
        .get::<TlsInfo>()
        .and_then(TlsInfo::peer_certificate);
    Ok(ProbeResult {
        status: response.status().as_u16(),
        took,
        skew: clock_skew(date, unix_now()),
        certificate_expiry: certificate.and_then(certificate_expiry),
    })
}

/// Returns `notAfter` of a DER certificate, as Unix time.
fn certificate_expiry(certificate: &[u8]) -> Option<i64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}
