//! The Elements API: who we are to it, how requests travel, and its two generations.
//!
//! Nothing in here knows of metrics. What happens is told to an [`Observer`], which `app` hands in; what goes wrong is
//! an [`Error`] whose [`Error::reason`] is also the bounded label value.

pub mod auth;
pub mod credential;
mod envelope;
pub mod exchange;
pub mod gateway;
pub mod pace;
pub mod probe;
mod rows;
pub mod transport;
pub mod v1;
pub mod v3;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

pub use rows::{MAX_LIST_BYTES, MAX_LIST_ROWS};

use crate::domain::{Gigabyte, counted};

/// A client of one generation of the API. Collectors match over it, so that each answers for both.
#[derive(Clone, Debug)]
pub enum Api {
    /// `partner/…`, slated for deprecation by the vendor.
    V1(v1::Client),
    /// `partner/external/v3/…`.
    V3(v3::Client),
}

impl Api {
    /// How many bytes the vendor's "GB" is taken for.
    pub fn gigabyte(&self) -> Gigabyte {
        self.transport().gigabyte()
    }

    /// Who is told about what happens.
    pub fn observer(&self) -> &Arc<dyn Observer> {
        self.transport().observer()
    }

    /// The way requests take.
    pub fn transport(&self) -> &transport::Transport {
        match self {
            Self::V1(client) => client.transport(),
            Self::V3(client) => client.transport(),
        }
    }

    /// The name of the generation as the configuration spells it.
    pub fn generation(&self) -> Generation {
        match self {
            Self::V1(_) => Generation::V1,
            Self::V3(_) => Generation::V3,
        }
    }
}

/// A generation of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The first.
    V1,
    /// The second, whose paths say `v3`.
    V3,
}

impl std::fmt::Display for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V3 => "v3",
        })
    }
}

/// What is asked for, under one name for both generations; also the value of the label `endpoint`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// The token.
    Token,
    /// All customers.
    Customers,
    /// One customer.
    Customer,
    /// Subscriptions of all customers.
    Licenses,
    /// Subscriptions of one customer.
    License,
    /// Jobs of a customer.
    Jobs,
    /// Protected data of a customer.
    Protected,
    /// Scan profiles of a customer.
    ScanProfiles,
    /// One scan profile.
    ScanProfile,
    /// Numbers of the daily scan report; in the second generation its objects too.
    ScanChanges,
    /// Objects of the daily scan report, first generation.
    ScanChangeObjects,
}

impl Endpoint {
    /// All of them, for tables and checks.
    pub const ALL: [Self; 11] = [
        Self::Token,
        Self::Customers,
        Self::Customer,
        Self::Licenses,
        Self::License,
        Self::Jobs,
        Self::Protected,
        Self::ScanProfiles,
        Self::ScanProfile,
        Self::ScanChanges,
        Self::ScanChangeObjects,
    ];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Customers => "customers",
            Self::Customer => "customer",
            Self::Licenses => "licenses",
            Self::License => "license",
            Self::Jobs => "jobs",
            Self::Protected => "protected",
            Self::ScanProfiles => "scan_profiles",
            Self::ScanProfile => "scan_profile",
            Self::ScanChanges => "scan_changes",
            Self::ScanChangeObjects => "scan_change_objects",
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Tells how many rows an answer held, and gives them on.
fn told_rows<R>(
    transport: &transport::Transport,
    endpoint: Endpoint,
    answer: Result<Vec<R>, Error>,
) -> Result<Vec<R>, Failure> {
    let rows = answer.map_err(|error| error.at(endpoint))?;
    transport.observer().rows(endpoint, rows.len());
    Ok(rows)
}

/// Told about everything that happens between us and the API. The calls are cheap and never block.
pub trait Observer: std::fmt::Debug + Send + Sync {
    /// One attempt was answered with this status, or not answered at all (`None`).
    fn request(&self, endpoint: Endpoint, status: Option<u16>, took: Duration);
    /// An attempt is about to be repeated.
    fn retry(&self, endpoint: Endpoint);
    /// The API asked for less.
    fn throttled(&self, endpoint: Endpoint);
    /// An answer held so many rows. By default nobody wants to know.
    fn rows(&self, endpoint: Endpoint, rows: usize) {
        let _ = (endpoint, rows);
    }
    /// A value was there and could not be understood. `shape` is the value with its letters and digits masked.
    fn decode_error(&self, endpoint: Endpoint, field: &'static str, shape: &str);
    /// A number or word is not in the reference.
    fn unknown_value(&self, endpoint: Endpoint, field: &'static str, value: &str);
    /// Rows would have made two samples of one series.
    fn duplicate_rows(&self, endpoint: Endpoint, rows: u64);
    /// A token could not be had.
    fn token_failure(&self, error: &auth::Error);
    /// A token was had; it expires in this time.
    fn token(&self, expires_in: Duration);
}

/// Every value of [`Error::reason`], so that counters can begin at zero.
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
    "shrunk",
    "series_limit",
    "deadline",
    "panicked",
];

/// Why a poll has no complete answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no token to ask with.
    #[error("no token")]
    Auth(#[source] Arc<auth::Error>),
    /// The scope that the request needs is not granted.
    #[error("the app registration does not hold the permission {0}")]
    NotPermitted(&'static str),
    /// The host name has no address.
    #[error("cannot resolve the host name")]
    Dns(#[source] reqwest::Error),
    /// No connection.
    #[error("cannot connect")]
    Connect(#[source] reqwest::Error),
    /// The TLS handshake failed.
    #[error("TLS handshake failed")]
    Tls(#[source] reqwest::Error),
    /// The proxy cannot be reached or refused.
    #[error("no connection through the proxy")]
    Proxy(#[source] reqwest::Error),
    /// The whole request took longer than `api.timeout`.
    #[error("no complete answer within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// The connection broke in the middle, or the body ended early.
    #[error("the answer broke off")]
    Interrupted(#[source] reqwest::Error),
    /// The body, or all bodies of a list together, are larger than any honest answer.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The list has more rows than any honest one.
    #[error("the list has more than {0} rows")]
    TooMany(usize),
    /// The API answered with a status that is no success.
    #[error("status {0}")]
    Status(u16),
    /// The API pointed to another place. Redirects are never followed: they could carry a token there.
    #[error("status {0} points elsewhere, which is never followed")]
    Redirect(u16),
    /// The API asked for a pause, again and again.
    #[error("throttled")]
    Throttled,
    /// The body is not what the reference says.
    #[error("the answer is not {0}")]
    Decode(&'static str),
    /// Some rows could not be read; the others count.
    #[error("{} of the answer could not be read", counted(u64::try_from(*.0).unwrap_or(u64::MAX), "row", "rows"))]
    UnreadableRows(usize),
    /// A list did not come in whole.
    #[error("the list is not complete: {0}")]
    Incomplete(&'static str),
    /// A link of the answer leads to another scheme, host or port.
    #[error("the next page is at another origin, which is never asked")]
    ForeignLink,
    /// An id from the answer cannot stand in a path.
    #[error("an id of the answer cannot stand in a path")]
    UnusableId,
    /// The host has been failing, so that it is only probed now and then.
    #[error("the API has been failing; it is asked again in {}", humantime::format_duration(*.0))]
    Unavailable(Duration),
    /// Far fewer customers than before; believed when the next list says the same.
    #[error("{missing} of {known} customers are missing; believed when the next list says the same")]
    Shrunk {
        /// How many known customers the list lacks.
        missing: usize,
        /// How many were known.
        known: usize,
    },
    /// The answer would take the exporter past `metrics.series_limit`.
    #[error("the answer would pass metrics.series_limit")]
    SeriesLimit,
    /// The poll took longer than any honest poll.
    #[error("the poll did not end within {}", humantime::format_duration(*.0))]
    Deadline(Duration),
    /// The poll panicked: a fault of the exporter.
    #[error("the poll panicked, which is a fault of the exporter")]
    Panicked,
}

impl Error {
    /// The value of the label `reason`.
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
            Self::Shrunk { .. } => "shrunk",
            Self::SeriesLimit => "series_limit",
            Self::Deadline(_) => "deadline",
            Self::Panicked => "panicked",
        }
    }

    /// Whether the API said that we may not see this.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Status(403))
    }

    /// Whether another attempt soon may well succeed: the fault lies between us and the API or in a bad moment of it.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Connect(_) | Self::Dns(_) | Self::Timeout(_) | Self::Interrupted(_) | Self::Status(408 | 500..=599)
        )
    }
}

/// An error with the endpoint that it came from.
#[derive(Debug, thiserror::Error)]
#[error("{endpoint}: {error}")]
pub struct Failure {
    /// What was asked for.
    pub endpoint: Endpoint,
    /// What went wrong.
    #[source]
    pub error: Error,
}

impl Error {
    /// The same error, saying what was asked for.
    pub fn at(self, endpoint: Endpoint) -> Failure {
        Failure { endpoint, error: self }
    }
}

/// The characters of a path segment that are not themselves: everything but letters, digits and `-_~`. The dot is
/// left to [`url`], which refuses the segments that would climb.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~').remove(b'.');

/// The address below `base` and `base_path`, each segment encoded, so that an id of the answer is never another path.
fn url(base: &Url, base_path: &str, segments: &[&str]) -> Result<Url, Error> {
    let mut path = format!(
        "{}{}",
        base.path().trim_end_matches('/'),
        base_path.trim_end_matches('/')
    );
    for segment in segments {
        // Even encoded, these two are read as "here" and "up" by everything that reads URLs.
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

/// How deep lists and objects may stand in each other. The deepest answer of the reference has five levels.
const MAX_DEPTH: usize = 64;

/// The body without the byte order mark that some servers put before JSON, and without white space around it.
///
/// # Errors
/// Where it is too deep. What nobody asks for is skipped unread, so that no parser would notice.
fn json(body: &[u8]) -> Result<&[u8], Error> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
    if is_too_deep(body) {
        return Err(Error::Decode("JSON of an honest depth"));
    }
    Ok(body)
}

/// Whether brackets and braces outside of strings stand deeper than [`MAX_DEPTH`]. Whether they fit is the parser's.
fn is_too_deep(body: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in body {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(json(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(json(nested(MAX_DEPTH + 1).as_bytes()).is_err());
        let side_by_side = format!("[{}1]", "[],".repeat(10 * MAX_DEPTH));
        assert!(json(side_by_side.as_bytes()).is_ok());
        let text = format!(r#"["{}\"{}"]"#, "[".repeat(1000), "{".repeat(1000));
        assert!(json(text.as_bytes()).is_ok());
    }

    #[test]
    fn a_byte_order_mark_and_white_space_are_left_out() {
        assert_eq!(json(b"\xef\xbb\xbf {} \n").unwrap(), b"{}");
    }
}
