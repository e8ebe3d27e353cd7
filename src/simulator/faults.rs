//! What goes wrong on demand, and how answers travel.

use std::io::Write as _;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{Stream, StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answer::{Answer, Content};
use super::dice::Dice;

/// A pause before a body breaks off, so that what was sent before has left the machine. Without it the server
/// drops what it has buffered together with the connection.
const FLUSH_PAUSE: Duration = Duration::from_millis(50);

/// Decompressed bytes of a bomb that are compressed at a time, so that the bomb does not go off here.
const BOMB_CHUNK: u64 = 1 << 20;

/// Something that goes wrong with requests of a path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// A glob over the path as sent; `*` stands for any characters.
    pub path: String,
    /// The method; any if none.
    #[serde(default)]
    pub method: Option<String>,
    /// What happens.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// How often; for ever if none.
    #[serde(default)]
    pub times: Option<u32>,
    /// How many matching requests pass unharmed first.
    #[serde(default)]
    pub skip: u32,
    /// How likely it is each time, from 0 to 1.
    #[serde(default = "certain")]
    pub probability: f64,
}

/// What happens to a request; in JSON the name is in `kind`, in `snake_case`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FaultKind {
    /// Another status, with this body or a small JSON one.
    Status {
        /// The status.
        code: u16,
        /// The body.
        #[serde(default)]
        body: Option<String>,
    },
    /// The right answer, late.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// No answer, and the connection stays open.
    Hang,
    /// Status and headers, and then nothing.
    HangBody,
    /// The right answer, a few bytes at a time.
    Drip {
        /// Bytes at a time, at least 1.
        bytes: usize,
        /// Milliseconds before each.
        ms: u64,
    },
    /// The connection closes inside the body.
    Truncate {
        /// Bytes of the body that are sent.
        bytes: usize,
        /// Whether a Content-Length declares the whole body; otherwise it is chunked.
        #[serde(default)]
        declared: bool,
    },
    /// A Content-Length that is not that of the body.
    ShortLength {
        /// By how much: negative, and the body ends before it is complete; positive, and the connection closes
        /// before the body is as long as declared.
        by: i64,
    },
    /// The connection closes without an answer.
    Reset,
    /// 200 with a body that is not the API's, such as a login page.
    WrongBody {
        /// Its content type.
        content_type: String,
        /// The body.
        body: String,
    },
    /// A redirect.
    Redirect {
        /// The status.
        #[serde(default = "found")]
        code: u16,
        /// Where to.
        location: String,
    },
    /// A refusal for too many requests.
    Throttle {
        /// The `Retry-After` header as it is sent, if any.
        #[serde(default)]
        retry_after: Option<String>,
        /// The status.
        #[serde(default = "too_many_requests")]
        code: u16,
    },
    /// A small gzip body of white space that grows without end.
    GzipBomb {
        /// Bytes when decompressed.
        bytes: u64,
    },
    /// The right answer with another value in one place.
    Replace {
        /// A JSON pointer; a last member that is not there is added.
        pointer: String,
        /// The value, which may be null.
        value: Value,
    },
    /// The right answer with this `@odata.nextLink`.
    NextLink {
        /// The link as it is sent.
        url: String,
    },
    /// The right answer with a further header.
    ExtraHeader {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// The first page, whichever is asked for.
    IgnorePaging,
    /// The right answer with another `metadata.totalCount`.
    TotalCount {
        /// The count.
        n: u64,
    },
}

/// How an answer travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Whole,
    After(Duration),
    Never,
    Closed,
    SilentBody,
    Drip { bytes: usize, pause: Duration },
    Truncated { bytes: usize, declared: bool },
    Misdeclared { by: i64 },
    Bomb { bytes: u64 },
}

impl Fault {
    /// A fault of every request of these paths, for ever.
    #[must_use]
    pub fn new(path: &str, kind: FaultKind) -> Self {
        Self {
            path: path.to_owned(),
            method: None,
            kind,
            times: None,
            skip: 0,
            probability: certain(),
        }
    }

    /// At most so often.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Only after so many matching requests.
    #[must_use]
    pub fn after(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }

    /// Decides whether this request is hit, and counts.
    fn hits(&mut self, method: &str, path: &str, dice: &mut Dice) -> bool {
        let meant = self
            .method
            .as_deref()
            .is_none_or(|meant| meant.eq_ignore_ascii_case(method));
        if !meant || !glob_matches(&self.path, path) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if self.times == Some(0) || !dice.probably(self.probability) {
            return false;
        }
        self.times = self.times.map(|times| times - 1);
        true
    }
}

/// The first fault that hits a request.
pub(crate) fn pick(faults: &mut [Fault], method: &str, path: &str, dice: &mut Dice) -> Option<FaultKind> {
    faults
        .iter_mut()
        .find_map(|fault| fault.hits(method, path, dice).then(|| fault.kind.clone()))
}

impl FaultKind {
    /// What is answered instead of the right answer, which is only made where it is of use; its maker is told
    /// whether to ignore paging.
    pub(crate) fn spoil(self, right: impl FnOnce(bool) -> Answer) -> (Answer, Delivery) {
        match self {
            Self::Status { code, body } => (status_answer(code, body), Delivery::Whole),
            Self::Delay { ms } => (right(false), Delivery::After(Duration::from_millis(ms))),
            Self::Hang => (Answer::empty(StatusCode::OK), Delivery::Never),
            Self::HangBody => (right(false), Delivery::SilentBody),
            Self::Drip { bytes, ms } => (
                right(false),
                Delivery::Drip {
                    bytes: bytes.max(1),
                    pause: Duration::from_millis(ms),
                },
            ),
            Self::Truncate { bytes, declared } => (right(false), Delivery::Truncated { bytes, declared }),
            Self::ShortLength { by } => (right(false), Delivery::Misdeclared { by }),
            Self::Reset => (Answer::empty(StatusCode::OK), Delivery::Closed),
            Self::WrongBody { content_type, body } => {
                let content = Content::Text {
                    content_type,
                    text: body,
                };
                (
                    Answer {
                        content,
                        ..Answer::empty(StatusCode::OK)
                    },
                    Delivery::Whole,
                )
            }
            Self::Redirect { code, location } => (
                Answer::empty(status(code)).with_header("location", &location),
                Delivery::Whole,
            ),
            Self::Throttle { retry_after, code } => (throttle(code, retry_after), Delivery::Whole),
            Self::GzipBomb { bytes } => {
                let answer = Answer::empty(StatusCode::OK)
                    .with_header("content-type", "application/json")
                    .with_header("content-encoding", "gzip");
                (answer, Delivery::Bomb { bytes })
            }
            Self::Replace { pointer, value } => (replaced(right(false), &pointer, value), Delivery::Whole),
            Self::NextLink { url } => (replaced(right(false), "/@odata.nextLink", json!(url)), Delivery::Whole),
            Self::ExtraHeader { name, value } => (right(false).with_header(&name, &value), Delivery::Whole),
            Self::IgnorePaging => (right(true), Delivery::Whole),
            Self::TotalCount { n } => (
                replaced(right(false), "/metadata/totalCount", json!(n)),
                Delivery::Whole,
            ),
        }
    }
}

impl Delivery {
    /// Whether the client gets to see a status.
    pub(crate) fn answers(self) -> bool {
        !matches!(self, Self::Never | Self::Closed)
    }

    /// The answer on its way; none: the connection is to be closed.
    pub(crate) async fn deliver(self, answer: Answer) -> Option<Response<Body>> {
        let (_, bytes) = answer.body();
        let length = bytes.len();
        let (declared, body) = match self {
            Self::Never => return std::future::pending().await,
            Self::Closed => return None,
            Self::Whole => (None, Body::from(bytes)),
            Self::After(pause) => {
                tokio::time::sleep(pause).await;
                (None, Body::from(bytes))
            }
            Self::SilentBody => (Some(length), Body::from_stream(stream::pending::<Piece>())),
            Self::Drip {
                bytes: at_a_time,
                pause,
            } => (None, Body::from_stream(drops(bytes, at_a_time, pause))),
            Self::Truncated { bytes: sent, declared } => {
                let start = bytes.slice(..sent.min(length));
                (declared.then_some(length), Body::from_stream(broken_off(start)))
            }
            Self::Misdeclared { by } => {
                let declared = length.saturating_add_signed(isize::try_from(by).unwrap_or(0));
                // A stream's length is not known to the server, which therefore believes the header: it cuts
                // what is too long, and what is too short has to break off.
                (Some(declared), Body::from_stream(broken_off(bytes)))
            }
            Self::Bomb { bytes } => (None, Body::from_stream(bomb(bytes))),
        };
        Some(response(&answer, declared, body))
    }
}

type Piece = Result<Bytes, std::io::Error>;

fn response(answer: &Answer, declared: Option<usize>, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    if let Some(content_type) = answer.body().0.and_then(|text| HeaderValue::from_str(text).ok()) {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    if let Some(declared) = declared {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(declared));
    }
    for (name, value) in &answer.headers {
        // What cannot be a header is left out.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
    response
}

fn drops(bytes: Bytes, at_a_time: usize, pause: Duration) -> impl Stream<Item = Piece> + Send {
    stream::unfold(bytes, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(pause).await;
        let next = rest.split_to(at_a_time.min(rest.len()));
        Some((Ok(next), rest))
    })
}

fn broken_off(start: Bytes) -> impl Stream<Item = Piece> + Send {
    stream::iter([Ok(start)]).chain(stream::once(async {
        tokio::time::sleep(FLUSH_PAUSE).await;
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
    }))
}

fn bomb(bytes: u64) -> impl Stream<Item = Piece> + Send {
    let encoder = GzEncoder::new(Vec::new(), Compression::best());
    stream::unfold(Some((encoder, bytes)), |state| async {
        let (mut encoder, left) = state?;
        let now = left.min(BOMB_CHUNK);
        let space = vec![b' '; usize::try_from(now).unwrap_or(0)];
        if let Err(error) = encoder.write_all(&space) {
            return Some((Err(error), None));
        }
        if left == now {
            return Some((encoder.finish().map(Bytes::from), None));
        }
        let compressed = Bytes::from(std::mem::take(encoder.get_mut()));
        // Other tasks of the runtime get their turn between two chunks.
        tokio::task::yield_now().await;
        Some((Ok(compressed), Some((encoder, left - now))))
    })
}

fn status_answer(code: u16, body: Option<String>) -> Answer {
    match body {
        None if code == 204 => Answer::empty(status(code)),
        None => Answer::error(status(code), "a fault was asked for"),
        Some(text) => Answer {
            status: status(code),
            ..Answer::text(text)
        },
    }
}

fn throttle(code: u16, retry_after: Option<String>) -> Answer {
    let answer = Answer::error(status(code), "too many requests");
    match retry_after {
        Some(wait) => answer.with_header("retry-after", &wait),
        None => answer,
    }
}

/// A number that cannot be a status is taken for a fault of the server.
fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Puts a value at a JSON pointer; what is not JSON, or has no such place, stays as it is.
fn replaced(mut answer: Answer, pointer: &str, value: Value) -> Answer {
    let Content::Json(json) = &mut answer.content else {
        return answer;
    };
    if let Some(place) = json.pointer_mut(pointer) {
        *place = value;
        return answer;
    }
    let Some((parent, name)) = pointer.rsplit_once('/') else {
        return answer;
    };
    match json.pointer_mut(parent) {
        Some(Value::Object(object)) => {
            object.insert(name.replace("~1", "/").replace("~0", "~"), value);
        }
        Some(Value::Array(array)) if name == "-" => array.push(value),
        _ => {}
    }
    answer
}

/// Whether a text is what a glob says, `*` standing for any characters, `/` among them.
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

fn certain() -> f64 {
    1.0
}

fn found() -> u16 {
    302
}

fn too_many_requests() -> u16 {
    429
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn globs_match_whole_paths() {
        for (glob, text, matches) in [
            ("*", "/connect/token", true),
            ("/partner/customers", "/partner/customers", true),
            ("/partner/customers", "/partner/customers/1", false),
            ("/partner/customers/*/jobs", "/partner/customers/1/jobs", true),
            ("/partner/customers/*/jobs", "/partner/customers/1/jobs/2", false),
            ("*jobs*", "/partner/customers/1/jobs/2", true),
            ("a*a", "a", false),
            ("/a*b*c", "/a1c2b3c", true),
            ("/a*b*c", "/a1c2b3", false),
            ("", "/", false),
            ("a*b*", "axb", true),
            ("a**", "a", true),
        ] {
            assert_eq!(glob_matches(glob, text), matches, "{glob} {text}");
        }
    }

    #[test]
    fn faults_skip_count_and_give_way() {
        let mut dice = Dice::of(&[1]);
        let mut faults = vec![
            Fault::new("/a", FaultKind::Hang).times(1).after(1),
            Fault {
                method: Some("POST".to_owned()),
                ..Fault::new("*", FaultKind::Reset)
            },
        ];
        let mut hit = |method: &str, path: &str| pick(&mut faults, method, path, &mut dice);
        assert_eq!(hit("GET", "/a"), None);
        assert_eq!(hit("POST", "/a"), Some(FaultKind::Hang));
        assert_eq!(hit("POST", "/a"), Some(FaultKind::Reset));
        assert_eq!(hit("GET", "/a"), None);
    }

    #[test]
    fn improbable_faults_are_rare() {
        let mut dice = Dice::of(&[1]);
        let mut faults = vec![Fault {
            probability: 0.2,
            ..Fault::new("*", FaultKind::Hang)
        }];
        let hits = (0..1000)
            .filter(|_| pick(&mut faults, "GET", "/", &mut dice).is_some())
            .count();
        assert!((150..250).contains(&hits), "{hits}");
    }

    #[test]
    fn faults_are_read_from_flat_json() {
        let text = r#"[{"path": "/x", "kind": "throttle", "retry_after": "3", "times": 2},
                       {"path": "*", "kind": "replace", "pointer": "/value", "value": null},
                       {"path": "*", "method": "GET", "kind": "short_length", "by": -5, "probability": 0.5},
                       {"path": "*", "kind": "hang"}, {"path": "*", "kind": "redirect", "location": "/"}]"#;
        let faults: Vec<Fault> = serde_json::from_str(text).unwrap();
        let kinds: Vec<FaultKind> = faults.iter().map(|fault| fault.kind.clone()).collect();
        assert_eq!(
            kinds,
            [
                FaultKind::Throttle {
                    retry_after: Some("3".to_owned()),
                    code: 429
                },
                FaultKind::Replace {
                    pointer: "/value".to_owned(),
                    value: Value::Null
                },
                FaultKind::ShortLength { by: -5 },
                FaultKind::Hang,
                FaultKind::Redirect {
                    code: 302,
                    location: "/".to_owned()
                },
            ]
        );
        let again: Vec<Fault> = serde_json::from_str(&serde_json::to_string(&faults).unwrap()).unwrap();
        assert_eq!(faults, again);
        assert!(serde_json::from_str::<Fault>(r#"{"path": "*", "kind": "gremlins"}"#).is_err());
    }

    #[test]
    fn values_are_replaced_and_added() {
        let answer = || Answer::json(json!({"value": [{"id": "1"}], "metadata": {}}));
        let content = |pointer: &str, value: Value| replaced(answer(), pointer, value).content;
        assert_eq!(
            content("/value/0/id", json!(7)),
            Content::Json(json!({"value": [{"id": 7}], "metadata": {}}))
        );
        assert_eq!(
            content("/metadata/totalCount", json!(7)),
            Content::Json(json!({"value": [{"id": "1"}], "metadata": {"totalCount": 7}}))
        );
        assert_eq!(content("", Value::Null), Content::Json(Value::Null));
        assert_eq!(content("/nowhere/x", Value::Null), answer().content);
    }
}
