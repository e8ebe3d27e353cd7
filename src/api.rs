//! Client for the Elements API: credentials, transport, and both API versions.
//!
//! This module does not depend on metrics. It reports events to an [`Observer`] that `app` passes in. Each returned
//! [`Failure`] contains an [`Error`], and [`Error::reason`] is the value of the label `reason`.

pub mod auth;
mod body;
pub mod client;
pub mod credential;
mod envelope;
pub mod exchange;
pub mod probe;
pub mod rate_limiter;
mod request_id;
mod rows;
pub mod transport;
pub mod v1;
pub mod v3;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

pub use request_id::RequestId;
pub use rows::{MAX_LIST_BYTES, MAX_LIST_ROWS};

pub use crate::domain::Generation;
use crate::domain::{counted, labelled};

/// A client for one API version. Collectors that support both versions match on it.
#[derive(Clone, Debug)]
pub enum Api {
    /// The API under `partner/…`, which the vendor plans to deprecate.
    V1(v1::Client),
    /// The API under `partner/external/v3/…`.
    V3(v3::Client),
}

impl Api {
    /// Returns the observer that receives events.
    pub fn observer(&self) -> &Arc<dyn Observer> {
        self.transport().observer()
    }

    /// Returns the transport that sends requests.
    pub fn transport(&self) -> &transport::Transport {
        match self {
            Self::V1(client) => client.transport(),
            Self::V3(client) => client.transport(),
        }
    }

    /// Returns the API v3 client, for a resource that API v1 lacks.
    ///
    /// # Errors
    /// Returns [`Error::NotPermitted`] if this is a client for API v1.
    pub fn v3(&self, endpoint: Endpoint, scope: &'static str) -> Result<&v3::Client, Failure> {
        match self {
            Self::V1(_) => Err(Error::NotPermitted(scope).at(endpoint)),
            Self::V3(client) => Ok(client),
        }
    }

    /// Returns the API version.
    pub fn generation(&self) -> Generation {
        match self {
            Self::V1(_) => Generation::V1,
            Self::V3(_) => Generation::V3,
        }
    }
}

labelled! {
    /// An API resource, with the same name in both API versions. The name is the value of the label `endpoint`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Endpoint, as_str {
        /// The token endpoint.
        Token => "token",
        /// All customers.
        Customers => "customers",
        /// One customer.
        Customer => "customer",
        /// Subscriptions of all customers.
        Licenses => "licenses",
        /// Subscriptions of one customer.
        License => "license",
        /// Job runs of a customer.
        Jobs => "jobs",
        /// Protected data of a customer.
        Protected => "protected",
        /// Scan profiles of a customer.
        ScanProfiles => "scan_profiles",
        /// One scan profile.
        ScanProfile => "scan_profile",
        /// Counts in the daily scan report. In API v3, the report includes the objects.
        ScanChanges => "scan_changes",
        /// Objects in the daily scan report; API v1 only.
        ScanChangeObjects => "scan_change_objects",
        /// The objects in a job report.
        JobReport => "job_report",
        /// Seats per tenant.
        TenantSeats => "tenant_seats",
        /// The users of a tenant.
        Users => "users",
        /// A tenant's consent to a product's apps.
        AppConsent => "app_consent",
        /// Signs of ransomware in a tenant.
        Ransomware => "ransomware",
        /// Baselines of all tenants.
        Baselines => "baselines",
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Maximum number of times that a list is fetched if rows are missing or repeated. Rows can be added or removed between
/// the requests for two pages, but this rarely happens in two consecutive fetches.
const LIST_ATTEMPTS: usize = 2;

/// Reports the number of fetched rows to the observer, and returns the rows. If `rows` is an error, returns a failure
/// that contains `request_id`, the id of the latest attempt.
fn report_rows<R>(
    transport: &transport::Transport,
    endpoint: Endpoint,
    rows: Result<Vec<R>, Error>,
    request_id: Option<RequestId>,
) -> Result<Vec<R>, Failure> {
    let rows = rows.map_err(|error| Failure {
        request_id,
        ..error.at(endpoint)
    })?;
    transport.observer().rows(endpoint, rows.len());
    Ok(rows)
}

/// Receives events about API requests. Implementations must return quickly and never block.
pub trait Observer: std::fmt::Debug + Send + Sync {
    /// An attempt ended with this status. `None` means that there was no response, or that the attempt timed out.
    fn request(&self, endpoint: Endpoint, status: Option<u16>, took: Duration);
    /// A request is about to be retried.
    fn retry(&self, endpoint: Endpoint);
    /// The API throttled a request.
    fn throttled(&self, endpoint: Endpoint);
    /// This many rows were fetched, as a list, a page of a chained list, or an entity. The default implementation does
    /// nothing.
    fn rows(&self, endpoint: Endpoint, rows: usize) {
        let _ = (endpoint, rows);
    }
    /// A value could not be parsed. `shape` is the value with its letters and digits masked, or a description of the
    /// problem.
    fn decode_error(&self, endpoint: Endpoint, field: &'static str, shape: &str);
    /// The API returned a number or word that is missing from the vendor's reference.
    fn unknown_value(&self, endpoint: Endpoint, field: &'static str, value: &str);
    /// Rows were merged or dropped because other rows have the same labels.
    fn duplicate_rows(&self, endpoint: Endpoint, rows: u64);
    /// A token request failed.
    fn token_failure(&self, error: &auth::Error);
    /// A token with this lifetime was fetched.
    fn token(&self, expires_in: Duration);
}

/// All values of [`Error::reason`]. Their counters are initialized to zero at startup.
pub const REASONS: &[&str] = &[
    "auth",
    "not_permitted",
    "dns",
    "connect",
    "tls",
    "proxy",
    "timeout",
    "interrupted",
    "too_large",
    "bad_request",
    "unauthorized",
    "forbidden",
    "not_found",
    "method_not_allowed",
    "request_timeout",
    "server_error",
    "unexpected_status",
    "redirect",
    "throttled",
    "decode",
    "unreadable_rows",
    "incomplete",
    "foreign_link",
    "unusable_id",
    "unavailable",
];

/// Reason why a request failed, or why its response is incomplete.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no token for the request.
    #[error("no token")]
    Auth(#[source] Arc<auth::Error>),
    /// The permission that the request needs is missing.
    #[error("permission missing: {0}")]
    NotPermitted(&'static str),
    /// The host name cannot be resolved.
    #[error("cannot resolve the host name")]
    Dns(#[source] reqwest::Error),
    /// The connection failed.
    #[error("cannot connect")]
    Connect(#[source] reqwest::Error),
    /// The TLS handshake failed.
    #[error("TLS handshake failed")]
    Tls(#[source] reqwest::Error),
    /// The proxy is unreachable or rejected the request.
    #[error("cannot connect through the proxy")]
    Proxy(#[source] reqwest::Error),
    /// An attempt took longer than `api.timeout`.
    #[error("no complete response within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// The connection broke, the body ended early, or the response is not valid HTTP.
    #[error("the connection broke before the response was complete")]
    Interrupted(#[source] reqwest::Error),
    /// A response body, or all pages of a list together, exceeded the size limit.
    #[error("the response exceeds {0} bytes")]
    TooLarge(usize),
    /// The list exceeds the maximum number of rows.
    #[error("the list has more than {0} rows")]
    TooMany(usize),
    /// The API returned an error status or an unexpected status.
    #[error("status {0}")]
    Status(u16),
    /// The API returned a redirect. Redirects are never followed, because they could leak a token.
    #[error("status {0}: redirects are not followed")]
    Redirect(u16),
    /// The API throttled too many attempts.
    #[error("throttled")]
    Throttled,
    /// The body does not match the vendor's reference, or it reports a failure.
    #[error("the response is not {0}")]
    Decode(&'static str),
    /// Some rows cannot be parsed. The others are used.
    #[error("could not parse {} of the response", counted(*.0, "row", "rows"))]
    UnreadableRows(usize),
    /// A list is incomplete.
    #[error("incomplete list: {0}")]
    Incomplete(&'static str),
    /// A link in the response is invalid, contains credentials, or points to another scheme, host or port.
    #[error("the link to the next page does not point to the API, so it is not followed")]
    ForeignLink,
    /// An id in the response cannot be used in a URL path.
    #[error("the response contains an id that is not valid in a URL path")]
    UnusableId,
    /// The endpoint keeps failing, so only occasional probes are sent to it.
    #[error("the API keeps failing; next attempt in {}", humantime::format_duration(*.0))]
    Unavailable(Duration),
}

impl Error {
    /// Returns the value of the label `reason`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Auth(_) => "auth",
            Self::NotPermitted(_) => "not_permitted",
            Self::Dns(_) => "dns",
            Self::Connect(_) => "connect",
            Self::Tls(_) => "tls",
            Self::Proxy(_) => "proxy",
            Self::Timeout(_) => "timeout",
            Self::Interrupted(_) => "interrupted",
            Self::TooLarge(_) | Self::TooMany(_) => "too_large",
            Self::Status(400) => "bad_request",
            Self::Status(401) => "unauthorized",
            Self::Status(403) => "forbidden",
            Self::Status(404) => "not_found",
            Self::Status(405) => "method_not_allowed",
            Self::Status(408) => "request_timeout",
            Self::Status(500..=599) => "server_error",
            Self::Status(_) => "unexpected_status",
            Self::Redirect(_) => "redirect",
            Self::Throttled => "throttled",
            Self::Decode(_) => "decode",
            Self::UnreadableRows(_) => "unreadable_rows",
            Self::Incomplete(_) => "incomplete",
            Self::ForeignLink => "foreign_link",
            Self::UnusableId => "unusable_id",
            Self::Unavailable(_) => "unavailable",
        }
    }

    /// Returns whether the API rejected the request with status 403.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Status(403))
    }

    /// Returns whether the error means that the customer or tenant lacks the service to which the resource belongs.
    pub fn is_missing_service(&self) -> bool {
        matches!(self, Self::Status(403 | 404))
    }

    /// Returns whether the error affects only the requested resource. Other resources can then still be requested.
    pub fn is_resource_error(&self) -> bool {
        matches!(
            self,
            Self::Status(_) | Self::Decode(_) | Self::UnreadableRows(_) | Self::Incomplete(_)
        )
    }

    /// Returns whether the API may be down: it did not respond, or its response indicates an outage.
    pub fn is_outage(&self) -> bool {
        let has_no_response = matches!(self, Self::Tls(_) | Self::Proxy(_) | Self::Unavailable(_));
        has_no_response || self.is_transient()
    }

    /// Returns whether a retry may succeed: the connection failed, or the API has a temporary problem.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Connect(_) | Self::Dns(_) | Self::Timeout(_) | Self::Interrupted(_) | Self::Status(408 | 500..=599)
        )
    }
}

/// An error with its endpoint.
#[derive(Debug, thiserror::Error)]
#[error("{endpoint}: {error}")]
pub struct Failure {
    /// Endpoint of the request.
    pub endpoint: Endpoint,
    /// Cause of the failure.
    #[source]
    pub error: Error,
    /// Id of the latest attempt, if its response contains one.
    pub request_id: Option<RequestId>,
}

impl Error {
    /// Combines the error with the endpoint of the failed request.
    pub fn at(self, endpoint: Endpoint) -> Failure {
        Failure {
            endpoint,
            error: self,
            request_id: None,
        }
    }
}

/// Characters that are escaped in a path segment: all except ASCII letters, digits and `-_~.`. Dots need no escaping,
/// because [`url`] rejects the segments `.` and `..`.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~').remove(b'.');

/// Returns the URL of a resource under `base` and `base_path`. Each segment is escaped, so an id from a response cannot
/// change the path.
fn url(base: &Url, base_path: &str, segments: &[&str]) -> Result<Url, Error> {
    let mut path = format!(
        "{}{}",
        base.path().trim_end_matches('/'),
        base_path.trim_end_matches('/')
    );
    for segment in segments {
        // URL parsers resolve "." and ".." even if they are escaped.
        if segment.is_empty() || *segment == "." || *segment == ".." {
            return Err(Error::UnusableId);
        }
        path.push('/');
        path.extend(utf8_percent_encode(segment, SEGMENT));
    }
    let mut url = base.clone();
    url.set_path(&path);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_is_listed_once() {
        let failed = || reqwest::Proxy::all("").expect_err("not a URL");
        let time = Duration::from_secs(1);
        let mut errors = vec![
            Error::Auth(Arc::new(auth::Error::Malformed)),
            Error::NotPermitted(""),
            Error::Dns(failed()),
            Error::Connect(failed()),
            Error::Tls(failed()),
            Error::Proxy(failed()),
            Error::Timeout(time),
            Error::Interrupted(failed()),
            Error::TooLarge(1),
            Error::TooMany(1),
            Error::Redirect(302),
            Error::Throttled,
            Error::Decode(""),
            Error::UnreadableRows(1),
            Error::Incomplete(""),
            Error::ForeignLink,
            Error::UnusableId,
            Error::Unavailable(time),
        ];
        errors.extend((400..=599).map(Error::Status));
        let reasons: BTreeSet<&str> = errors.iter().map(Error::reason).collect();
        let listed: BTreeSet<&str> = REASONS.iter().copied().collect();
        assert_eq!(reasons, listed);
        assert_eq!(listed.len(), REASONS.len());
    }
}
