//! An API over a real socket with responses that a test defines.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::IntoResponse;

/// A received request.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Method and path with query, as in `GET /partner/customers`.
    pub line: String,
    /// The body.
    pub body: String,
}

/// A response: a status and a body.
pub type Answer = (u16, String);

#[derive(Default)]
struct Shared {
    answers: Mutex<BTreeMap<String, Answer>>,
    seen: Mutex<Vec<Seen>>,
}

/// The API.
pub struct Canned {
    /// Its base URL.
    pub base: String,
    shared: Arc<Shared>,
}

impl Canned {
    /// Starts an API that returns tokens for all scopes, and these bodies for these lines of method and path. A path
    /// with a query matches only with that query; a path without one matches with any.
    pub async fn start(answers: &[(&str, &str)]) -> Self {
        let shared = Arc::new(Shared::default());
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum_serve(listener, router).await });
        let canned = Self { base, shared };
        for (line, body) in answers {
            canned.set(line, 200, body);
        }
        canned
    }

    /// Sets the response for a line of method and path.
    pub fn set(&self, line: &str, status: u16, body: &str) {
        self.shared
            .answers
            .lock()
            .unwrap()
            .insert(line.to_owned(), (status, body.to_owned()));
    }

    /// Returns the requests so far, without those for tokens.
    pub fn seen(&self) -> Vec<Seen> {
        let seen = self.shared.seen.lock().unwrap().clone();
        seen.into_iter()
            .filter(|seen| !seen.line.ends_with("/connect/token"))
            .collect()
    }

    /// Returns the token requests so far.
    pub fn token_requests(&self) -> Vec<Seen> {
        let seen = self.shared.seen.lock().unwrap().clone();
        seen.into_iter()
            .filter(|seen| seen.line.ends_with("/connect/token"))
            .collect()
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    let whole = uri.path_and_query().map_or("", |path| path.as_str());
    let line = format!("{method} {whole}");
    shared.seen.lock().unwrap().push(Seen {
        line: line.clone(),
        body: String::from_utf8_lossy(&body).into_owned(),
    });
    let json = [("content-type", "application/json")];
    let answers = shared.answers.lock().unwrap();
    let found = answers
        .get(&line)
        .or_else(|| answers.get(&format!("{method} {}", uri.path())));
    if let Some((status, body)) = found {
        return (StatusCode::from_u16(*status).unwrap(), json, body.clone());
    }
    if uri.path() == "/connect/token" {
        let token = r#"{"access_token":"canned-token","expires_in":3600,"token_type":"Bearer"}"#;
        return (StatusCode::OK, json, token.to_owned());
    }
    let authorized = headers
        .get("authorization")
        .is_some_and(|value| value == "Bearer canned-token");
    let status = if authorized {
        StatusCode::NOT_FOUND
    } else {
        StatusCode::UNAUTHORIZED
    };
    (status, json, "{}".to_owned())
}

/// `axum::serve` needs a feature of axum that the exporter does not use.
pub async fn axum_serve(listener: tokio::net::TcpListener, router: Router) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        let io = hyper_util::rt::TokioIo::new(stream);
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
    }
}
