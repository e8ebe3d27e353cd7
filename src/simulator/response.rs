//! Parsed requests, and responses that have not been sent yet.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, StatusCode, header};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::customer::Product;
use super::run::ABSENT;

/// Maximum size of a request body. The largest legitimate body is a filter with a few thousand ids.
const BODY_LIMIT: usize = 1 << 20;

/// A request with its complete body.
#[derive(Clone, Debug, Default)]
pub(crate) struct Call {
    pub(crate) method: String,
    /// Path as sent.
    pub(crate) path: String,
    /// Query as sent.
    pub(crate) query: String,
    /// Origin to which the request was sent, such as `http://127.0.0.1:10028`, from its `Host` header.
    pub(crate) origin: String,
    pub(crate) authorization: Option<String>,
    pub(crate) content_type: String,
    pub(crate) body: String,
}

/// A response: status, headers and content.
#[derive(Clone, Debug)]
pub(crate) struct ApiResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) content: Content,
}

/// Content of a response. JSON is encoded only when it is sent, so that faults can change it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    Empty,
    Json(Value),
    Text { content_type: String, text: String },
}

impl Call {
    /// Reads a request with its complete body. If the body is too large or incomplete, returns the error response.
    pub(crate) async fn read(request: Request<Incoming>) -> Result<Self, ApiResponse> {
        let (parts, body) = request.into_parts();
        let header = |name| {
            parts
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let body = to_bytes(Body::new(body), BODY_LIMIT)
            .await
            .map_err(|_| ApiResponse::error(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large or incomplete"))?;
        Ok(Self {
            method: parts.method.as_str().to_owned(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            origin: format!("http://{}", header(header::HOST).unwrap_or_default()),
            authorization: header(header::AUTHORIZATION),
            content_type: header(header::CONTENT_TYPE).unwrap_or_default(),
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    /// Returns the percent-decoded segments of the path.
    pub(crate) fn segments(&self) -> Vec<String> {
        self.path
            .trim_start_matches('/')
            .split('/')
            .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
            .collect()
    }

    /// Returns the first query parameter with this name.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(self.query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }
}

impl ApiResponse {
    pub(crate) fn json(value: Value) -> Self {
        Self {
            content: Content::Json(value),
            ..Self::empty(StatusCode::OK)
        }
    }

    pub(crate) fn text(text: impl Into<String>) -> Self {
        let content = Content::Text {
            content_type: "text/plain; charset=utf-8".to_owned(),
            text: text.into(),
        };
        Self {
            content,
            ..Self::empty(StatusCode::OK)
        }
    }

    pub(crate) fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: Vec::new(),
            content: Content::Empty,
        }
    }

    pub(crate) fn error(status: StatusCode, message: &str) -> Self {
        let code = status.canonical_reason().unwrap_or("Error");
        Self {
            status,
            ..Self::json(json!({"error": {"code": code, "message": message}}))
        }
    }

    pub(crate) fn not_found(resource: &str) -> Self {
        Self::error(StatusCode::NOT_FOUND, &format!("no such {resource}"))
    }

    /// Returns status 405 with the allowed methods.
    pub(crate) fn method_not_allowed(allowed: &str) -> Self {
        Self::error(
            StatusCode::METHOD_NOT_ALLOWED,
            "the resource does not support this method",
        )
        .with_header("allow", allowed)
    }

    #[must_use]
    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Returns the content type and the body as sent.
    pub(crate) fn body(&self) -> (Option<&str>, Bytes) {
        match &self.content {
            Content::Empty => (None, Bytes::new()),
            Content::Json(value) => (Some("application/json; charset=utf-8"), value.to_string().into()),
            Content::Text { content_type, text } => (Some(content_type), text.clone().into()),
        }
    }
}

/// Adds `fields` to an object, replacing existing fields with the same names.
pub(crate) fn with_fields(mut value: Value, fields: &BTreeMap<String, Value>) -> Value {
    if let Value::Object(object) = &mut value {
        object.extend(fields.iter().map(|(name, field)| (name.clone(), field.clone())));
    }
    value
}

/// Returns the row of a subscription, which is the same in both API versions.
pub(crate) fn product(product: &Product) -> Value {
    let own_fields = Product {
        raw_fields: BTreeMap::new(),
        ..product.clone()
    };
    with_fields(json!(own_fields), &product.raw_fields)
}

/// Formats a duration as the API does, for example as `17m39s`. Returns `N/A` if a time is missing or the end precedes
/// the start.
pub(crate) fn duration(start: Option<i64>, end: Option<i64>) -> String {
    let seconds = match (start, end) {
        (Some(start), Some(end)) if end >= start => end.saturating_sub(start),
        _ => return ABSENT.to_owned(),
    };
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) if rest == 0 => "0 S".to_owned(),
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

/// Formats a Unix time in whole seconds, for example as `2025-09-11T03:21:16Z`.
pub(crate) fn time(at: Option<i64>) -> String {
    format_time(at, "%Y-%m-%dT%H:%M:%SZ")
}

/// Formats a Unix time. Returns `N/A` if there is none, or if it is out of range.
pub(crate) fn format_time(at: Option<i64>, format: &str) -> String {
    at.and_then(|at| jiff::Timestamp::from_second(at).ok())
        .map_or_else(|| ABSENT.to_owned(), |at| at.strftime(format).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_whole_seconds() {
        assert_eq!(time(Some(1_757_560_876)), "2025-09-11T03:21:16Z");
        assert_eq!(time(None), "N/A");
    }

    #[test]
    fn durations_have_the_format_of_the_api() {
        assert_eq!(duration(Some(0), Some(1059)), "17m39s");
        assert_eq!(duration(Some(10), Some(10)), "0 S");
        assert_eq!(duration(Some(10), Some(48)), "38s");
        assert_eq!(duration(Some(0), Some(3600)), "1h0m0s");
        assert_eq!(duration(Some(5), Some(0)), "N/A");
        assert_eq!(duration(None, Some(0)), "N/A");
    }

    #[test]
    fn segments_are_decoded_separately() {
        let call = Call {
            path: "/partner/a%2Fb/Microsoft%20365".to_owned(),
            ..Call::default()
        };
        assert_eq!(call.segments(), ["partner", "a/b", "Microsoft 365"]);
    }

    #[test]
    fn fields_are_replaced_and_added() {
        let fields = BTreeMap::from([("a".to_owned(), json!(null)), ("c".to_owned(), json!(3))]);
        assert_eq!(
            with_fields(json!({"a": 1, "b": 2}), &fields),
            json!({"a": null, "b": 2, "c": 3})
        );
    }
}
