//! Whether the exporter that runs on this machine is healthy, as a container's health check asks.

use std::error::Error as StdError;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::StatusCode;
use rustls::AlertDescription;

use super::Error;
use crate::args::{DEFAULT_PORT, ListenAddress, Web};
use crate::http::web_config::{self, Door};

/// How long it waits for its answer: less than orchestrators wait for the health check.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Why the exporter is not called healthy.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// It says so itself, or it is something else that answers.
    #[error("{url} answers {status}")]
    Status {
        /// What was asked.
        url: String,
        /// What it answered.
        status: StatusCode,
    },
    /// There is no answer.
    #[error("{url}")]
    NoAnswer {
        /// What was asked.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
}

/// Asks the exporter that listens where the flags say whether it is healthy, or whether it is ready.
///
/// A health check has neither a password nor a certificate. That these are asked for is an answer, too: the server lives.
/// Whether it is ready it does not say then, and is taken for it, because nothing would ever tell.
///
/// # Errors
/// Where the web configuration cannot be read; within, why the exporter is not healthy.
pub async fn healthcheck(web: &Web, ready: bool) -> Result<Result<(), Unhealthy>, Error> {
    let door = match &web.config_file {
        Some(file) => web_config::door(file)?,
        None => Door::Plain,
    };
    let scheme = if door == Door::Plain { "http" } else { "https" };
    let target = Target::of(web.listen_addresses.first());
    let page = if ready { "ready" } else { "healthy" };
    let url = format!("{scheme}://{}{}/-/{page}", target.address, web.route_prefix);
    Ok(match ask(&url, target.is_loopback).await {
        Ok(status) if status.is_success() || status == StatusCode::UNAUTHORIZED => Ok(()),
        Ok(status) => Err(Unhealthy::Status { url, status }),
        Err(error) if door == Door::TlsWithClientCertificate && is_turned_away(&error) => Ok(()),
        Err(error) => Err(Unhealthy::NoAnswer {
            url,
            source: error.without_url(),
        }),
    })
}

/// Where to ask.
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

async fn ask(url: &str, is_loopback: bool) -> Result<StatusCode, reqwest::Error> {
    // It is installed already where another part of the process came first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(TIMEOUT)
        // The certificate bears the name under which the exporter is known to others, and rarely 127.0.0.1. What goes over
        // loopback does not leave the machine, nothing secret is sent, and nothing but a status is believed.
        .tls_danger_accept_invalid_certs(is_loopback)
        .build()?;
    Ok(client.get(url).send().await?.status())
}

/// Whether the server did its part of the handshake and then turned the client away for want of a certificate.
fn is_turned_away(error: &reqwest::Error) -> bool {
    // With TLS 1.3 that is after the client's part, too, when the request may be on its way and fail in any way.
    let shook_hands = !error.is_connect() && !error.is_timeout();
    let alert = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
    shook_hands || tls_error(error) == Some(&alert)
}

fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    if let Some(error) = error.downcast_ref() {
        return Some(error);
    }
    // The source of an I/O error that wraps another is the source of that one, which would be passed over.
    match error.downcast_ref::<std::io::Error>() {
        Some(error) => tls_error(error.get_ref()?),
        None => tls_error(error.source()?),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn asks_where_the_exporter_listens() {
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
