//! Checks the health of the exporter on this machine, for container health checks.

use std::error::Error as StdError;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::StatusCode;
use rustls::AlertDescription;

use super::Error;
use crate::args::{DEFAULT_PORT, ListenAddress, Web};
use crate::http::web_config::{self, ServerTransport};

/// Timeout for the response. It is shorter than the timeout of 5 s that the Dockerfile and the Helm chart set for
/// health checks.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Reason why the exporter is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// The response does not have a success status, for example because the poll loop has stalled, the exporter is not
    /// ready, or another program responded.
    #[error("{url} returned status {status}")]
    Status {
        /// Requested URL.
        url: String,
        /// Status of the response.
        status: StatusCode,
    },
    /// There was no response.
    #[error("no response from {url}")]
    NoResponse {
        /// Requested URL.
        url: String,
        /// Reason why there was no response.
        #[source]
        source: reqwest::Error,
    },
}

/// Checks the health or readiness of the exporter at the first listen address in the flags.
///
/// A health check sends neither a password nor a certificate. If the server requires either, the exporter is evidently
/// running and counts as healthy. Its readiness cannot be determined, so it also counts as ready.
///
/// # Errors
/// Returns an error if the web configuration cannot be read. The inner result contains the reason why the exporter is
/// not healthy.
pub async fn healthcheck(web: &Web, ready: bool) -> Result<Result<(), Unhealthy>, Error> {
    let server_transport = match &web.config_file {
        Some(file) => web_config::server_transport(file)?,
        None => ServerTransport::Plain,
    };
    let scheme = if server_transport == ServerTransport::Plain {
        "http"
    } else {
        "https"
    };
    let target = Target::of(web.listen_addresses.first());
    let page = if ready { "ready" } else { "healthy" };
    let url = format!("{scheme}://{}{}/-/{page}", target.address, web.route_prefix());
    Ok(match request_status(&url, target.is_loopback).await {
        Ok(status) if status.is_success() || status == StatusCode::UNAUTHORIZED => Ok(()),
        Ok(status) => Err(Unhealthy::Status { url, status }),
        Err(error)
            if server_transport == ServerTransport::TlsWithClientCertificate && is_certificate_missing(&error) =>
        {
            Ok(())
        }
        Err(error) => Err(Unhealthy::NoResponse {
            url,
            source: error.without_url(),
        }),
    })
}

/// Address to which the request is sent.
struct Target {
    address: String,
    is_loopback: bool,
}

impl Target {
    fn of(listen: Option<&ListenAddress>) -> Self {
        let (ip, port) = match listen {
            Some(ListenAddress::Named(name, port)) => {
                return Self {
                    address: format!("{name}:{port}"),
                    is_loopback: name == "localhost",
                };
            }
            Some(ListenAddress::Socket(address)) => match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST.into(), address.port()),
                IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST.into(), address.port()),
                ip => (ip, address.port()),
            },
            Some(ListenAddress::All(port)) => (Ipv4Addr::LOCALHOST.into(), *port),
            None => (Ipv4Addr::LOCALHOST.into(), DEFAULT_PORT),
        };
        Self {
            address: SocketAddr::new(ip, port).to_string(),
            is_loopback: ip.is_loopback(),
        }
    }
}

async fn request_status(url: &str, is_loopback: bool) -> Result<StatusCode, reqwest::Error> {
    // Fails harmlessly if a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = reqwest::Client::builder();
    if !url.starts_with("https:") {
        // Plain HTTP needs no certificate authorities, and a container image may contain none.
        client = client.tls_certs_only([]);
    }
    let client = client
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(TIMEOUT)
        // The certificate is usually issued for the exporter's external name instead of 127.0.0.1. Accepting it is
        // safe, because loopback traffic does not leave the machine, and the request contains no secrets.
        .tls_danger_accept_invalid_certs(is_loopback)
        .build()?;
    Ok(client.get(url).send().await?.status())
}

/// Returns whether the server completed its part of the handshake, and then rejected the client because it has no
/// certificate.
fn is_certificate_missing(error: &reqwest::Error) -> bool {
    // With TLS 1.3, the rejection arrives after the handshake, so the request may fail with any error.
    let completed_handshake = !error.is_connect() && !error.is_timeout();
    let alert = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
    completed_handshake || tls_error(error) == Some(&alert)
}

fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    if let Some(error) = error.downcast_ref() {
        return Some(error);
    }
    // `source` of an I/O error skips its inner error, which is therefore examined here.
    match error.downcast_ref::<std::io::Error>() {
        Some(error) => tls_error(error.get_ref()?),
        None => tls_error(error.source()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_is_the_listen_address_of_the_exporter() {
        for (listen, address, is_loopback) in [
            (":10027", "127.0.0.1:10027", true),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("[::]:1", "[::1]:1", true),
            ("[::1]:1", "[::1]:1", true),
            ("127.0.0.2:1", "127.0.0.2:1", true),
            ("10.0.0.1:1", "10.0.0.1:1", false),
            ("localhost:1", "localhost:1", true),
            ("backups.example.com:1", "backups.example.com:1", false),
        ] {
            let target = Target::of(Some(&listen.parse().unwrap()));
            assert_eq!(
                (target.address.as_str(), target.is_loopback),
                (address, is_loopback),
                "{listen}"
            );
        }
    }
}
