//! Explains errors and suggests remedies.

use crate::api::{self, Failure};

/// Explains a collector's error, and suggests a remedy. Includes the endpoint if it is not the collector's main
/// endpoint.
pub(super) fn explain(failure: &Failure, collector: &str) -> String {
    let text = match &failure.error {
        api::Error::Auth(cause) => error_text(cause),
        error => error_text(error),
    };
    let text = match advice(&failure.error) {
        Some(advice) => format!("{text}; {advice}"),
        None => text,
    };
    match failure.endpoint.as_str() {
        endpoint if endpoint == collector => text,
        endpoint => format!("{endpoint}: {text}"),
    }
}

/// Returns a remedy for a failed poll, unless the error is self-explanatory.
fn advice(error: &api::Error) -> Option<&'static str> {
    Some(match error {
        api::Error::Dns(_) | api::Error::Connect(_) | api::Error::Tls(_) | api::Error::Proxy(_) => {
            "see the connection checks above"
        }
        api::Error::Timeout(_) => "the API or the network is slow; increase api.timeout",
        api::Error::Status(401) => {
            "the API rejected a new token; check that api.base_url and api.token_url belong to the same environment"
        }
        api::Error::Status(400 | 404 | 405) => {
            "check api.version and api.base_url; if the request was for one customer, that customer may no longer exist"
        }
        api::Error::Status(408 | 500..=599) | api::Error::Unavailable(_) => {
            "the API may be down; check the vendor's status page, and try again later"
        }
        api::Error::Throttled => {
            "the API throttled every attempt (429); try again later, or lower api.requests_per_second"
        }
        api::Error::Redirect(_) | api::Error::Decode(_) => {
            "the response may not be from the API (it may be a login page, for example); check api.base_url"
        }
        _ => return None,
    })
}

/// Returns a remedy for an unreachable host.
pub(super) fn remedy(error: &api::Error, is_proxied: bool) -> &'static str {
    match (error, is_proxied) {
        (api::Error::Dns(_), _) => dns_remedy(is_proxied),
        (api::Error::Tls(_), _) => {
            "if a proxy inspects TLS, add its CA to api.ca_file; otherwise, check that the port serves TLS"
        }
        (api::Error::Proxy(_), _) => {
            "check the address, user name and password in api.proxy_url, and the proxy's allow list"
        }
        (api::Error::Timeout(_) | api::Error::Connect(_), false) => {
            "a firewall may be blocking the connection, or api.proxy_url may need to be set"
        }
        (api::Error::Timeout(_) | api::Error::Connect(_), true) => {
            "the proxy or the host behind it does not respond; check api.proxy_url"
        }
        _ => "check the network path",
    }
}

/// Returns a remedy for a host name that cannot be resolved.
pub(super) fn dns_remedy(is_proxied: bool) -> &'static str {
    match is_proxied {
        false => "check DNS on this machine",
        true => "check the host name in api.proxy_url",
    }
}

/// Proxy errors of the HTTP library, with explanations.
const PROXY_ERRORS: [(&str, &str); 2] = [
    ("tunnel error: unsuccessful", "it refuses to connect to this host"),
    (
        "tunnel error: proxy authorization required",
        "it requires a user name and a password",
    ),
];

/// Formats an error with its causes. Includes only the innermost cause within the HTTP library, because the others add
/// no information.
pub(super) fn error_text(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(mut cause) = next {
        if cause.is::<reqwest::Error>() {
            while let Some(inner) = cause.source() {
                cause = inner;
            }
        }
        let message = cause.to_string();
        let known = PROXY_ERRORS.iter().find(|(text, _)| *text == message);
        text.push_str(": ");
        text.push_str(known.map_or(&message, |(_, means)| means));
        next = cause.source();
    }
    text
}
