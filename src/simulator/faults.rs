//! Injected faults, and delivery of responses.

use std::io::Write as _;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{Stream, StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::response::{ApiResponse, Content};
use super::rng::SeededRng;

/// Pause before a connection is closed in the middle of a body, so that the first part is sent. Without the pause, the
/// server would discard the buffered data.
const FLUSH_PAUSE: Duration = Duration::from_millis(50);

/// Size of the chunks in which the content of a decompression bomb is compressed, so that the complete content is never
/// in memory.
const BOMB_CHUNK: u64 = 1 << 20;

/// A fault for requests whose path matches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Glob that must match the path as sent; `*` matches any characters.
    pub path: String,
    /// Method; `None` matches any.
    #[serde(default)]
    pub method: Option<String>,
    /// Effect of the fault.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// Maximum number of matches; `None` for no limit.
    #[serde(default)]
    pub times: Option<u32>,
    /// Number of matching requests that pass before the fault applies.
    #[serde(default)]
    pub skip: u32,
    /// Probability that the fault affects a matching request, from 0 to 1.
    #[serde(default = "certain_probability")]
    pub probability: f64,
}

/// Effect of a fault. In JSON, `kind` is the name of the variant in `snake_case`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FaultKind {
    /// A response with this status and body.
    Status {
        /// Status of the response.
        code: u16,
        /// Body of the response. Default: a short JSON body, or no body with status 204.
        #[serde(default)]
        body: Option<String>,
    },
    /// The correct response, delayed.
    Delay {
        /// Delay in milliseconds.
        ms: u64,
    },
    /// No response; the connection stays open.
    Hang,
    /// Status and headers without a body; the connection stays open.
    HangBody,
    /// The correct response, a few bytes at a time.
    Drip {
        /// Bytes per chunk, at least 1.
        bytes: usize,
        /// Milliseconds before each chunk.
        ms: u64,
    },
    /// The connection closes before the end of the body.
    Truncate {
        /// Number of bytes of the body that are sent.
        bytes: usize,
        /// Whether `Content-Length` declares the length of the complete body. Otherwise, the body is chunked.
        #[serde(default)]
        declared: bool,
    },
    /// A wrong `Content-Length`.
    ShortLength {
        /// Declared length minus actual length. If negative, the body is cut off at the declared length. If positive,
        /// the connection closes before the declared length is reached.
        by: i64,
    },
    /// The connection closes without a response.
    Reset,
    /// Status 200 with a body that is not from the API, such as a login page.
    WrongBody {
        /// Content type of the response.
        content_type: String,
        /// Body of the response.
        body: String,
    },
    /// A redirect.
    Redirect {
        /// Status of the response.
        #[serde(default = "default_redirect_status")]
        code: u16,
        /// Target of the redirect.
        location: String,
    },
    /// A throttled request.
    Throttle {
        /// Value of the `Retry-After` header, if any.
        #[serde(default)]
        retry_after: Option<String>,
        /// Status of the response.
        #[serde(default = "default_throttle_status")]
        code: u16,
    },
    /// A small gzip body that decompresses to a large amount of white space.
    GzipBomb {
        /// Decompressed size in bytes.
        bytes: u64,
    },
    /// The correct response with one value replaced.
    Replace {
        /// JSON pointer to the value. If the member is missing but its parent exists, the member is added.
        pointer: String,
        /// New value, which may be null.
        value: Value,
    },
    /// The correct response with this `@odata.nextLink`.
    NextLink {
        /// URL of the next page.
        url: String,
    },
    /// The correct response with an additional header.
    ExtraHeader {
        /// Name of the header.
        name: String,
        /// Value of the header.
        value: String,
    },
    /// The first page, whichever page is requested.
    IgnorePaging,
    /// The correct response with a different `metadata.totalCount`.
    TotalCount {
        /// Total in the response.
        n: u64,
    },
}

impl Fault {
    /// Creates a fault that affects every request to matching paths.
    #[must_use]
    pub fn new(path: &str, kind: FaultKind) -> Self {
        Self {
            path: path.to_owned(),
            method: None,
            kind,
            times: None,
            skip: 0,
            probability: certain_probability(),
        }
    }

    /// Limits the number of matches.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Lets `skip` matching requests pass first.
    #[must_use]
    pub fn after(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }

    /// Returns whether the fault affects a request. If so, counts the match.
    fn matches(&mut self, method: &str, path: &str, rng: &mut SeededRng) -> bool {
        let has_method = self
            .method
            .as_deref()
            .is_none_or(|expected| expected.eq_ignore_ascii_case(method));
        if !has_method || !glob_matches(&self.path, path) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if self.times == Some(0) || !rng.probably(self.probability) {
            return false;
        }
        self.times = self.times.map(|times| times - 1);
        true
    }
}

/// Returns the first fault that affects a request.
pub(crate) fn pick(faults: &mut [Fault], method: &str, path: &str, rng: &mut SeededRng) -> Option<FaultKind> {
    faults
        .iter_mut()
        .find_map(|fault| fault.matches(method, path, rng).then(|| fault.kind.clone()))
}

impl FaultKind {
    /// Returns the response with this fault. `correct` creates the correct response if it is needed; its argument says
    /// whether to ignore paging.
    pub(crate) fn apply(self, correct: impl FnOnce(bool) -> ApiResponse) -> ApiResponse {
        match self {
            Self::Status { code, body } => status_response(code, body),
            Self::Hang | Self::Reset => ApiResponse::empty(StatusCode::OK),
            Self::WrongBody { content_type, body } => ApiResponse {
                content: Content::Text {
                    content_type,
                    text: body,
                },
                ..ApiResponse::empty(StatusCode::OK)
            },
            Self::Redirect { code, location } => ApiResponse::empty(status(code)).with_header("location", &location),
            Self::Throttle { retry_after, code } => throttle(code, retry_after),
            Self::GzipBomb { .. } => ApiResponse::empty(StatusCode::OK)
                .with_header("content-type", "application/json")
                .with_header("content-encoding", "gzip"),
            Self::Replace { pointer, value } => replace_value(correct(false), &pointer, value),
            Self::NextLink { url } => replace_value(correct(false), "/@odata.nextLink", json!(url)),
            Self::ExtraHeader { name, value } => correct(false).with_header(&name, &value),
            Self::IgnorePaging => correct(true),
            Self::TotalCount { n } => replace_value(correct(false), "/metadata/totalCount", json!(n)),
            Self::Delay { .. }
            | Self::HangBody
            | Self::Drip { .. }
            | Self::Truncate { .. }
            | Self::ShortLength { .. } => correct(false),
        }
    }
}

/// How a response is delivered.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    /// Fault that affects the request, if any.
    pub(crate) fault: Option<FaultKind>,
    /// Pause before the response, unless the fault determines the delivery.
    pub(crate) latency: Option<Duration>,
}

impl Delivery {
    /// Returns whether the client receives a status.
    pub(crate) fn sends_status(&self) -> bool {
        !matches!(self.fault, Some(FaultKind::Hang | FaultKind::Reset))
    }

    /// Returns the response to send, or `None` to close the connection.
    pub(crate) async fn deliver(self, response: ApiResponse) -> Option<Response<Body>> {
        let (_, bytes) = response.body();
        let length = bytes.len();
        let (declared, body) = match self.fault {
            Some(FaultKind::Hang) => return std::future::pending().await,
            Some(FaultKind::Reset) => return None,
            Some(FaultKind::Delay { ms }) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                (None, Body::from(bytes))
            }
            Some(FaultKind::HangBody) => (Some(length), Body::from_stream(stream::pending::<Piece>())),
            Some(FaultKind::Drip { bytes: chunk_size, ms }) => {
                let chunks = paced_chunks(bytes, chunk_size.max(1), Duration::from_millis(ms));
                (None, Body::from_stream(chunks))
            }
            Some(FaultKind::Truncate { bytes: sent, declared }) => {
                let start = bytes.slice(..sent.min(length));
                (declared.then_some(length), Body::from_stream(interrupted(start)))
            }
            Some(FaultKind::ShortLength { by }) => {
                let declared = length.saturating_add_signed(isize::try_from(by).unwrap_or(0));
                // The server cannot determine the length of a stream, so it relies on the header and truncates a body
                // that is longer. A shorter body must end with an error.
                (Some(declared), Body::from_stream(interrupted(bytes)))
            }
            Some(FaultKind::GzipBomb { bytes }) => (None, Body::from_stream(bomb(bytes))),
            _ => {
                if let Some(pause) = self.latency {
                    tokio::time::sleep(pause).await;
                }
                (None, Body::from(bytes))
            }
        };
        Some(http_response(&response, declared, body))
    }
}

type Piece = Result<Bytes, std::io::Error>;

fn http_response(response: &ApiResponse, declared: Option<usize>, body: Body) -> Response<Body> {
    let mut http = Response::new(body);
    *http.status_mut() = response.status;
    let headers = http.headers_mut();
    if let Some(content_type) = response.body().0.and_then(|text| HeaderValue::from_str(text).ok()) {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    if let Some(declared) = declared {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(declared));
    }
    for (name, value) in &response.headers {
        // Invalid headers are omitted.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
    http
}

fn paced_chunks(bytes: Bytes, chunk_size: usize, pause: Duration) -> impl Stream<Item = Piece> + Send {
    stream::unfold(bytes, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(pause).await;
        let next = rest.split_to(chunk_size.min(rest.len()));
        Some((Ok(next), rest))
    })
}

fn interrupted(start: Bytes) -> impl Stream<Item = Piece> + Send {
    stream::iter([Ok(start)]).chain(stream::once(async {
        tokio::time::sleep(FLUSH_PAUSE).await;
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
    }))
}

fn bomb(bytes: u64) -> impl Stream<Item = Piece> + Send {
    let encoder = GzEncoder::new(Vec::new(), Compression::best());
    stream::unfold(Some((encoder, bytes)), |state| async {
        let (mut encoder, remaining) = state?;
        let now = remaining.min(BOMB_CHUNK);
        let space = vec![b' '; usize::try_from(now).unwrap_or(0)];
        if let Err(error) = encoder.write_all(&space) {
            return Some((Err(error), None));
        }
        if remaining == now {
            return Some((encoder.finish().map(Bytes::from), None));
        }
        let compressed = Bytes::from(std::mem::take(encoder.get_mut()));
        // Other tasks may run between two chunks.
        tokio::task::yield_now().await;
        Some((Ok(compressed), Some((encoder, remaining - now))))
    })
}

fn status_response(code: u16, body: Option<String>) -> ApiResponse {
    match body {
        None if code == 204 => ApiResponse::empty(status(code)),
        None => ApiResponse::error(status(code), "an injected fault"),
        Some(text) => ApiResponse {
            status: status(code),
            ..ApiResponse::text(text)
        },
    }
}

fn throttle(code: u16, retry_after: Option<String>) -> ApiResponse {
    let response = ApiResponse::error(status(code), "too many requests");
    match retry_after {
        Some(wait) => response.with_header("retry-after", &wait),
        None => response,
    }
}

/// Returns the status with this code, or 500 if the code is invalid.
fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Sets the value at a JSON pointer. Leaves the content unchanged if it is not JSON, or if the value does not exist and
/// cannot be added.
fn replace_value(mut response: ApiResponse, pointer: &str, value: Value) -> ApiResponse {
    let Content::Json(json) = &mut response.content else {
        return response;
    };
    if let Some(place) = json.pointer_mut(pointer) {
        *place = value;
        return response;
    }
    let Some((parent, name)) = pointer.rsplit_once('/') else {
        return response;
    };
    match json.pointer_mut(parent) {
        Some(Value::Object(object)) => {
            object.insert(name.replace("~1", "/").replace("~0", "~"), value);
        }
        Some(Value::Array(array)) if name == "-" => array.push(value),
        _ => {}
    }
    response
}

/// Returns whether a string matches a glob, in which `*` matches any characters, including `/`.
fn glob_matches(glob: &str, text: &str) -> bool {
    let mut pieces = glob.split('*');
    let Some(mut rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = pieces.next_back() else {
        return rest.is_empty();
    };
    for piece in pieces {
        let Some((_, after)) = rest.split_once(piece) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}

fn certain_probability() -> f64 {
    1.0
}

fn default_redirect_status() -> u16 {
    302
}

fn default_throttle_status() -> u16 {
    429
}

#[cfg(test)]
mod tests;
