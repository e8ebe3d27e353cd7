//! Who asks, as far as the connection and the web configuration tell. What a request says of itself, as in
//! `X-Forwarded-For`, is not listened to: anybody can write it.

use std::net::IpAddr;

use axum::http::header::ORIGIN;
use axum::http::{HeaderMap, StatusCode};

/// Whoever sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// The other end of the connection.
    address: IpAddr,
    /// Whether a password or a certificate that was verified says who it is.
    is_known: bool,
    /// Whether its connection ends its TLS here.
    is_over_tls: bool,
}

impl Caller {
    /// Whoever is at the other end of a connection, and whether its certificate was verified before the first request.
    pub(super) fn new(address: IpAddr, has_verified_certificate: bool) -> Self {
        Self {
            address,
            is_known: has_verified_certificate,
            is_over_tls: false,
        }
    }

    /// The same over TLS.
    pub(super) fn over_tls(self) -> Self {
        Self {
            is_over_tls: true,
            ..self
        }
    }

    /// Whether its connection ends its TLS here.
    pub(super) fn is_over_tls(self) -> bool {
        self.is_over_tls
    }

    /// Notes that the right password came with the request.
    pub(super) fn note_password(&mut self) {
        self.is_known = true;
    }

    /// Whether it is on this machine, also where an IPv4 address reaches a socket of IPv6.
    fn is_here(self) -> bool {
        self.address.to_canonical().is_loopback()
    }
}

/// Whether a request may do more than read; where it may not, what to do about that.
///
/// Without a caller, as behind a server that does not tell, nobody may.
pub(super) fn may_command(caller: Option<Caller>, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
    // A browser puts it on whatever a page has it send, and tools do not: a page of somebody else's that is read on this
    // machine, or after a password was given, must not command.
    if headers.contains_key(ORIGIN) {
        let message =
            "A web page cannot reload the configuration; send the POST by a tool such as curl, or send SIGHUP.\n";
        return Err((StatusCode::FORBIDDEN, message));
    }
    match caller {
        Some(caller) if caller.is_known || caller.is_here() => Ok(()),
        _ => {
            let message = "Without a password or a verified client certificate a reload is taken from this machine only; set \
                           basic_auth_users or RequireAndVerifyClientCert in --web.config.file, ask at a loopback address, or \
                           send SIGHUP.\n";
            Err((StatusCode::FORBIDDEN, message))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn asked_from(address: &str, is_known: bool, headers: &HeaderMap) -> bool {
        may_command(Some(Caller::new(address.parse().unwrap(), is_known)), headers).is_ok()
    }

    #[test]
    fn commands_are_taken_from_this_machine_and_from_who_is_known() {
        let none = HeaderMap::new();
        for here in [
            "127.0.0.1",
            "127.0.0.53",
            "127.255.255.255",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:127.9.9.9",
        ] {
            assert!(asked_from(here, false, &none), "{here}");
        }
        for elsewhere in [
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
            assert!(!asked_from(elsewhere, false, &none), "{elsewhere}");
            assert!(asked_from(elsewhere, true, &none), "{elsewhere}");
        }
        let (status, message) = may_command(None, &none).unwrap_err();
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(
            message.contains("SIGHUP") && message.contains("--web.config.file"),
            "{message}"
        );
    }

    #[test]
    fn what_a_request_says_of_itself_makes_nobody_known() {
        for name in ["x-forwarded-for", "forwarded", "x-real-ip", "x-client-ip", "host"] {
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), "127.0.0.1".parse().unwrap())]);
            assert!(!asked_from("10.0.0.1", false, &headers), "{name}");
        }
    }

    #[test]
    fn no_page_commands_whoever_reads_it() {
        for origin in ["https://example.com", "http://127.0.0.1:10027", "null"] {
            let headers = HeaderMap::from_iter([(ORIGIN, origin.parse().unwrap())]);
            assert!(!asked_from("127.0.0.1", true, &headers), "{origin}");
        }
    }

    #[test]
    fn a_password_makes_its_sender_known() {
        let mut caller = Caller::new("10.0.0.1".parse().unwrap(), false);
        caller.note_password();
        assert_eq!(may_command(Some(caller), &HeaderMap::new()), Ok(()));
    }
}
