//! Responses of the token endpoint.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Error;
use crate::api::body::json;

/// Lifetime of a token without a valid `expires_in`: short enough for any issuer, long enough to avoid a request loop.
const DEFAULT_LIFE: Duration = Duration::from_secs(300);

/// Longest accepted lifetime. A token with a longer one is renewed daily.
const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);

/// OAuth error codes that report a server problem.
pub(super) const TEMPORARY_CODES: [&str; 3] = ["server_error", "temporarily_unavailable", "slow_down"];

/// Parses a response; `None` if the scopes were denied.
pub(super) fn parse_response(
    status: StatusCode,
    body: &mut [u8],
    skew: Option<i64>,
) -> Result<Option<TokenAnswer>, Error> {
    let body = json(body).unwrap_or_default();
    if status == StatusCode::OK {
        return serde_json::from_slice::<TokenAnswer>(body)
            .ok()
            .filter(|answer| is_token(&answer.access_token))
            .map(Some)
            .ok_or(Error::Malformed);
    }
    if !matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
    ) {
        return Err(Error::Status(status.as_u16()));
    }
    match serde_json::from_slice::<ErrorAnswer>(body) {
        Ok(answer) if answer.error == "invalid_scope" => Ok(None),
        Ok(answer) if TEMPORARY_CODES.contains(&answer.error.as_str()) => Err(Error::Status(status.as_u16())),
        Ok(answer) => Err(Error::InvalidClient {
            code: bounded_code(&answer.error),
            skew,
        }),
        Err(_) => Err(Error::Status(status.as_u16())),
    }
}

/// Returns whether a text can be a token: visible ASCII, as a header allows.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Returns an OAuth error code. Other text is not logged, because it may contain anything.
fn bounded_code(code: &str) -> String {
    const MAX_CODE_CHARS: usize = 40;
    let is_valid = !code.is_empty()
        && code.len() <= MAX_CODE_CHARS
        && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if is_valid {
        code.to_owned()
    } else {
        "unknown code".to_owned()
    }
}

#[derive(Deserialize)]
pub(super) struct TokenAnswer {
    pub(super) access_token: String,
    /// Raw, because an out-of-range number must not fail the whole response.
    #[serde(default)]
    expires_in: Option<Box<RawValue>>,
    #[serde(default)]
    pub(super) scope: serde_json::Value,
}

impl TokenAnswer {
    /// Returns the token's lifetime: `expires_in` if it is a positive number of any type, otherwise a safe default.
    pub(super) fn life(&self) -> Duration {
        let text = self.expires_in.as_ref().map(|json| json.get().trim_matches('"').trim());
        let seconds = text.and_then(|text| text.parse::<f64>().ok());
        seconds
            .filter(|seconds| seconds.is_finite() && *seconds >= 1.0)
            .map_or(DEFAULT_LIFE, |seconds| {
                Duration::try_from_secs_f64(seconds).unwrap_or(MAX_LIFE).min(MAX_LIFE)
            })
    }
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
}
