//! Parses responses from the token endpoint.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Error;
use crate::api::body::json;

/// Lifetime of a token without a valid `expires_in`: short enough to be safe with any issuer, and long enough to avoid
/// constant requests.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);

/// Maximum lifetime of a token. Longer lifetimes are reduced to this value.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// OAuth error codes that report a temporary problem unrelated to the credential.
pub(super) const TEMPORARY_CODES: [&str; 3] = ["server_error", "temporarily_unavailable", "slow_down"];

/// Parses a response. Returns `None` if the endpoint rejected the scopes.
pub(super) fn parse_response(
    status: StatusCode,
    body: &mut [u8],
    skew: Option<i64>,
) -> Result<Option<TokenResponse>, Error> {
    let body = json(body).unwrap_or_default();
    if status == StatusCode::OK {
        return serde_json::from_slice::<TokenResponse>(body)
            .ok()
            .filter(|response| is_token(&response.access_token))
            .map(Some)
            .ok_or(Error::Malformed);
    }
    if !matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
    ) {
        return Err(Error::Status(status.as_u16()));
    }
    match serde_json::from_slice::<ErrorResponse>(body) {
        Ok(response) if response.error == "invalid_scope" => Ok(None),
        Ok(response) if TEMPORARY_CODES.contains(&response.error.as_str()) => Err(Error::Status(status.as_u16())),
        Ok(response) => Err(Error::InvalidClient {
            code: bounded_code(&response.error),
            skew,
        }),
        Err(_) => Err(Error::Status(status.as_u16())),
    }
}

/// Returns whether a string is valid as a token in a header: visible ASCII, and not empty.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Returns an OAuth error code unchanged. Any other text is replaced, because the result is logged and the text
/// could contain secrets.
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
pub(super) struct TokenResponse {
    pub(super) access_token: String,
    /// Raw JSON, so that an out-of-range number does not invalidate the whole response.
    #[serde(default)]
    expires_in: Option<Box<RawValue>>,
    #[serde(default)]
    pub(super) scope: serde_json::Value,
}

impl TokenResponse {
    /// Returns the token's lifetime, at most [`MAX_LIFETIME`]: `expires_in` if it is a number or a numeric string of at
    /// least 1, and [`DEFAULT_LIFETIME`] otherwise.
    pub(super) fn lifetime(&self) -> Duration {
        let text = self.expires_in.as_ref().map(|json| json.get().trim_matches('"').trim());
        let seconds = text.and_then(|text| text.parse::<f64>().ok());
        seconds
            .filter(|seconds| seconds.is_finite() && *seconds >= 1.0)
            .map_or(DEFAULT_LIFETIME, |seconds| {
                Duration::try_from_secs_f64(seconds)
                    .unwrap_or(MAX_LIFETIME)
                    .min(MAX_LIFETIME)
            })
    }
}

#[derive(Deserialize)]
struct ErrorResponse {
    error: String,
}
