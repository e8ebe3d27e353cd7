//! Requests as read and answers before they travel.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, StatusCode, header};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::customer::Product;

/// The largest request body that is read. The largest honest one is a filter of a few thousand ids.
const BODY_LIMIT: usize = 1 << 20;

/// A request, read whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Call {
    pub(crate) method: String,
    /// The path as sent.
    pub(crate) path: String,
    /// The query as sent.
    pub(crate) query: String,
    /// Where the client believes the server to be, such as `http://127.0.0.1:10028`.
    pub(crate) origin: String,
    pub(crate) authorization: Option<String>,
    pub(crate) content_type: String,
    pub(crate) body: String,
}

/// A status, headers and content.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) content: Content,
}

/// What an answer holds; JSON stays a value for as long as a fault may want to change it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    Empty,
    Json(Value),
    Text { content_type: String, text: String },
}

impl Call {
    /// Reads a request whole; the error is the answer to one that is too large or broke off.
    pub(crate) async fn read(request: Request<Incoming>) -> Result<Self, Answer> {
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
            .map_err(|_| Answer::error(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large or broke off"))?;
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

    /// The path's segments, percent-decoded.
    pub(crate) fn segments(&self) -> Vec<String> {
        self.path
            .trim_start_matches('/')
            .split('/')
            .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
            .collect()
    }

    /// The first query parameter of this name.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(self.query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }
}

impl Answer {
    pub(crate) fn json(value: Value) -> Self {
        Self {
            status: StatusCode::OK,
            headers: Vec::new(),
            content: Content::Json(value),
        }
    }

    pub(crate) fn text(text: impl Into<String>) -> Self {
        let content = Content::Text {
            content_type: "text/plain; charset=utf-8".to_owned(),
            text: text.into(),
        };
        Self {
            status: StatusCode::OK,
            headers: Vec::new(),
            content,
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

    pub(crate) fn not_found(what: &str) -> Self {
        Self::error(StatusCode::NOT_FOUND, &format!("no such {what}"))
    }

    /// 405, and which verb would have done.
    pub(crate) fn wrong_verb(allowed: &str) -> Self {
        Self::error(StatusCode::METHOD_NOT_ALLOWED, "the resource does not know this verb")
            .with_header("allow", allowed)
    }

    #[must_use]
    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The body as it goes out, and its content type.
    pub(crate) fn body(&self) -> (Option<&str>, Bytes) {
        match &self.content {
            Content::Empty => (None, Bytes::new()),
            Content::Json(value) => (Some("application/json; charset=utf-8"), value.to_string().into()),
            Content::Text { content_type, text } => (Some(content_type), text.clone().into()),
        }
    }
}

/// An object with fields that replace or join its own.
pub(crate) fn with_fields(mut value: Value, fields: &BTreeMap<String, Value>) -> Value {
    if let Value::Object(object) = &mut value {
        object.extend(fields.iter().map(|(name, field)| (name.clone(), field.clone())));
    }
    value
}

/// A subscription, which both generations write alike.
pub(crate) fn product(product: &Product) -> Value {
    let row = json!({
        "service": product.service,
        "subscriptionModel": product.subscription_model,
        "purchasedUserSeats": product.purchased_user_seats,
        "purchasedUnits": product.purchased_units,
        "microsoftLicenseAssigned": product.microsoft_license_assigned,
        "microsoftLicenseAvailable": product.microsoft_license_available,
        "purchasedCapacity": product.purchased_capacity,
        "protectedCapacity": product.protected_capacity,
        "storage": product.storage,
        "retention": product.retention,
        "consumedStorage": product.consumed_storage,
        "expirationDate": product.expiration_date,
        "change": product.change,
        "source": product.source,
        "paymentType": product.payment_type,
        "subscriptionName": product.subscription_name,
        "package": product.package,
        "contractEndDate": product.contract_end_date,
    });
    with_fields(row, &product.raw_fields)
}

/// A duration in the API's spelling, such as `17m39s`; `N/A` for a run without two ends in their order.
pub(crate) fn duration(start: Option<i64>, end: Option<i64>) -> String {
    let seconds = match (start, end) {
        (Some(start), Some(end)) if end >= start => end.saturating_sub(start),
        _ => return "N/A".to_owned(),
    };
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_spelled_as_the_api_does() {
        assert_eq!(duration(Some(0), Some(1059)), "17m39s");
        assert_eq!(duration(Some(10), Some(10)), "0s");
        assert_eq!(duration(Some(0), Some(3600)), "1h0m0s");
        assert_eq!(duration(Some(5), Some(0)), "N/A");
        assert_eq!(duration(None, Some(0)), "N/A");
    }

    #[test]
    fn segments_are_decoded_one_by_one() {
        let call = Call {
            path: "/partner/a%2Fb/Microsoft%20365".to_owned(),
            ..Call::default()
        };
        assert_eq!(call.segments(), ["partner", "a/b", "Microsoft 365"]);
    }

    #[test]
    fn fields_replace_and_join() {
        let fields = BTreeMap::from([("a".to_owned(), json!(null)), ("c".to_owned(), json!(3))]);
        assert_eq!(
            with_fields(json!({"a": 1, "b": 2}), &fields),
            json!({"a": null, "b": 2, "c": 3})
        );
    }
}
