//! Describes the client of a request: its address, and whether it is authenticated and uses TLS. Headers such as
//! `X-Forwarded-For` are ignored, because any client can set them.

use std::net::IpAddr;

use axum::http::header::ORIGIN;
use axum::http::{HeaderMap, StatusCode};

/// The client of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// Address of the client.
    address: IpAddr,
    /// Whether the client was authenticated by a password or a verified certificate.
    is_authenticated: bool,
    /// Whether the connection uses TLS.
    is_over_tls: bool,
}

impl Caller {
    /// Returns the client of a connection. It is authenticated if its certificate was verified during the handshake.
    pub(super) fn new(address: IpAddr, has_verified_certificate: bool) -> Self {
        Self {
            address,
            is_authenticated: has_verified_certificate,
            is_over_tls: false,
        }
    }

    /// Returns this client, marked as connected over TLS.
    pub(super) fn over_tls(self) -> Self {
        Self {
            is_over_tls: true,
            ..self
        }
    }

    /// Returns whether the connection uses TLS.
    pub(super) fn is_over_tls(self) -> bool {
        self.is_over_tls
    }

    /// Records that the request contained a valid password.
    pub(super) fn note_password(&mut self) {
        self.is_authenticated = true;
    }

    /// Returns whether the client connected from a loopback address. Also recognizes IPv4-mapped IPv6 addresses.
    fn is_local(self) -> bool {
        self.address.to_canonical().is_loopback()
    }
}

/// Checks whether a request may change state. The client must be authenticated or connect from a loopback address, and
/// the request must not come from a web page.
///
/// # Errors
/// Returns the response that rejects the request.
pub(super) fn may_change_state(caller: Option<Caller>, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
    // Browsers send this header with requests from web pages; tools do not. Another site's page must not change state,
    // even if the browser runs on this machine or has stored the password.
    if headers.contains_key(ORIGIN) {
        let message = "A web page cannot reload the configuration; use a tool such as curl, or send SIGHUP.\n";
        return Err((StatusCode::FORBIDDEN, message));
    }
    match caller {
        Some(caller) if caller.is_authenticated || caller.is_local() => Ok(()),
        _ => {
            let message = "A reload without a password or a verified client certificate is accepted only from this machine; \
                           set basic_auth_users or RequireAndVerifyClientCert in --web.config.file, use a loopback \
                           address, or send SIGHUP.\n";
            Err((StatusCode::FORBIDDEN, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_trusted(address: &str, is_authenticated: bool, headers: &HeaderMap) -> bool {
        may_change_state(Some(Caller::new(address.parse().unwrap(), is_authenticated)), headers).is_ok()
    }

    #[test]
    fn state_changes_need_a_local_or_authenticated_client() {
        let none = HeaderMap::new();
        for local in [
            "127.0.0.1",
            "127.0.0.53",
            "127.255.255.255",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:127.9.9.9",
        ] {
            assert!(is_trusted(local, false, &none), "{local}");
        }
        for remote in [
            "10.0.0.1",
            "192.168.1.2",
            "126.255.255.255",
            "128.0.0.1",
            "0.0.0.0",
            "169.254.0.1",
            "203.0.113.9",
            "::",
            "::2",
            "::127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0.0.0.0",
            "fe80::1",
            "fd00::1",
            "2001:db8::1",
            "64:ff9b::7f00:1",
        ] {
            assert!(!is_trusted(remote, false, &none), "{remote}");
            assert!(is_trusted(remote, true, &none), "{remote}");
        }
        let (status, message) = may_change_state(None, &none).unwrap_err();
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(
            message.contains("SIGHUP") && message.contains("--web.config.file"),
            "{message}"
        );
    }

    #[test]
    fn request_headers_do_not_authenticate() {
        for name in ["x-forwarded-for", "forwarded", "x-real-ip", "x-client-ip", "host"] {
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), "127.0.0.1".parse().unwrap())]);
            assert!(!is_trusted("10.0.0.1", false, &headers), "{name}");
        }
    }

    #[test]
    fn web_page_cannot_change_state() {
        for origin in ["https://example.com", "http://127.0.0.1:10027", "null"] {
            let headers = HeaderMap::from_iter([(ORIGIN, origin.parse().unwrap())]);
            assert!(!is_trusted("127.0.0.1", true, &headers), "{origin}");
        }
    }

    #[test]
    fn password_authenticates_the_client() {
        let mut caller = Caller::new("10.0.0.1".parse().unwrap(), false);
        caller.note_password();
        assert_eq!(may_change_state(Some(caller), &HeaderMap::new()), Ok(()));
    }
}
