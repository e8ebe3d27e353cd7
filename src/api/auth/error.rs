//! Errors that prevent a token from being fetched, and the pause after each.

use std::time::Duration;

use crate::api::credential::CredentialError;

/// First and longest pause if the endpoint rejects the registration, or if the credential cannot be used. A wrong
/// secret does not become valid within seconds, and frequent failed requests can make the identity provider lock the
/// registration.
const REJECTED_BACKOFF: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(15 * 60));

/// First and longest pause after any other failure, such as an unreachable token endpoint or an invalid response. If
/// the endpoint requests a longer pause, that pause applies.
const UNREACHABLE_BACKOFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// A clock skew above this value is mentioned in errors as a possible cause. Assertions are valid from one minute
/// before to five minutes after they are signed.
const SIGNIFICANT_SKEW_SECONDS: i64 = 60;

/// All values of [`Error::reason`]. Their counters are initialized to zero at startup.
pub const REASONS: &[&str] = &[
    "invalid_client",
    "credential",
    "throttled",
    "server_error",
    "unexpected_status",
    "decode",
    "dns",
    "connect",
    "tls",
    "proxy",
    "timeout",
    "interrupted",
    "too_large",
];

/// Reason why no token could be fetched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client id, secret or certificate was rejected.
    #[error("the token endpoint rejected the client id, secret or certificate ({code}){}", skew_hint(*skew))]
    InvalidClient {
        /// The error code in the response, or a placeholder if the code is invalid.
        code: String,
        /// Seconds by which the server's clock is ahead of this machine's, if the response contains a date.
        skew: Option<i64>,
    },
    /// The secret or the certificate cannot be used.
    #[error("the credential cannot be used")]
    Credential(#[source] CredentialError),
    /// The token endpoint did not respond completely.
    #[error("no complete response from the token endpoint")]
    Unreachable(#[source] Box<crate::api::Error>),
    /// The token endpoint returned status 429, or status 503 with `Retry-After`. The value is the requested pause, if
    /// any.
    #[error("the token endpoint throttled the request")]
    Throttled(Option<Duration>),
    /// The token endpoint returned an error status unrelated to the credential.
    #[error("the token endpoint returned status {0}")]
    Status(u16),
    /// The response contains no valid token.
    #[error("the token response contains no token")]
    Malformed,
}

fn skew_hint(skew: Option<i64>) -> String {
    match skew {
        Some(skew) if skew.abs() > SIGNIFICANT_SKEW_SECONDS => {
            let side = if skew > 0 { "ahead of" } else { "behind" };
            let skew = humantime::format_duration(Duration::from_secs(skew.unsigned_abs()));
            format!("; the server's clock is {skew} {side} this machine's, which may be the cause")
        }
        _ => String::new(),
    }
}

impl Error {
    /// Returns the value of the label `reason`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidClient { .. } => "invalid_client",
            Self::Credential(_) => "credential",
            Self::Unreachable(error) => error.reason(),
            Self::Throttled(_) => "throttled",
            Self::Status(500..=599) => "server_error",
            Self::Status(_) => "unexpected_status",
            Self::Malformed => "decode",
        }
    }

    /// Returns the pause after this error, the last of `failures` consecutive errors.
    pub(super) fn pause(&self, failures: u32) -> Duration {
        let (first, longest) = self.backoff();
        let grown = (first * 2u32.saturating_pow(failures.clamp(1, 16) - 1)).min(longest);
        // The pause grows even if the endpoint always requests a pause of zero.
        match self {
            Self::Throttled(Some(wait)) => grown.max(*wait),
            _ => grown,
        }
    }

    fn backoff(&self) -> (Duration, Duration) {
        match self {
            Self::InvalidClient { .. } | Self::Credential(_) => REJECTED_BACKOFF,
            Self::Throttled(_) | Self::Unreachable(_) | Self::Status(_) | Self::Malformed => UNREACHABLE_BACKOFF,
        }
    }
}
