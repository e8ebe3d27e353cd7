//! One look at a host without saying who we are: whether it has an address and answers, with which certificate, and what
//! time it is there. It is what a person would try first when nothing works.

use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::DATE;
use reqwest::tls::TlsInfo;
use url::Url;

use super::Error;
use super::exchange::{classify, client_builder, unix_now};
use super::pace::clock_skew;

/// How long names may take to resolve. A resolver tries three times within it.
const RESOLVE_LIMIT: Duration = Duration::from_secs(15);

/// What a host answered.
#[derive(Debug)]
pub struct Answer {
    /// The status; any is fine, since nothing in particular was asked for.
    pub status: u16,
    /// How long it took, connection included.
    pub took: Duration,
    /// By how many seconds its clock is ahead of ours, where it tells.
    pub skew: Option<i64>,
    /// When its certificate ends, in seconds since the epoch, where there is one.
    pub certificate_end: Option<i64>,
}

/// Resolves the host of a URL; how many addresses it has, and the first of them.
///
/// # Errors
/// What the system says.
pub async fn resolve(url: &Url) -> Result<(usize, String), String> {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or_default();
    let lookup = tokio::net::lookup_host((host, port));
    let addresses = match tokio::time::timeout(RESOLVE_LIMIT, lookup).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err("the resolver does not answer".to_owned()),
    };
    let mut addresses: Vec<String> = addresses.map(|address| address.ip().to_string()).collect();
    addresses.dedup();
    let first = addresses.first().cloned().ok_or("it has no address")?;
    Ok((addresses.len(), first))
}

/// Asks the root of a host, without credentials.
///
/// # Errors
/// What is between us and its answer.
pub async fn probe(
    url: &Url,
    proxy: Option<&Url>,
    authorities: &[reqwest::Certificate],
    timeout: Duration,
) -> Result<Answer, Error> {
    let client = client_builder(timeout, proxy, authorities).and_then(|builder| builder.tls_info(true).build());
    let client = client.map_err(|error| classify(error, timeout))?;
    let mut root = url.clone();
    root.set_path("/");
    root.set_query(None);
    let began = Instant::now();
    let sent = client.request(Method::HEAD, root).send().await;
    let answer = sent.map_err(|error| classify(error, timeout))?;
    let took = began.elapsed();
    let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
    let certificate = answer.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate);
    Ok(Answer {
        status: answer.status().as_u16(),
        took,
        skew: clock_skew(date, unix_now()),
        certificate_end: certificate.and_then(end_of),
    })
}

/// When a certificate ends.
fn end_of(certificate: &[u8]) -> Option<i64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}
