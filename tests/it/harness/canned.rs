//! An API on a real socket, with responses that the test sets.

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
pub struct CannedRequest {
    /// Method and path, with the query if there is one, as in `GET /partner/customers`.
    pub line: String,
    pub body: String,
}

/// Status and body of a response.
pub type CannedResponse = (u16, String);

#[derive(Default)]
struct Shared {
    responses: Mutex<BTreeMap<String, CannedResponse>>,
    requests: Mutex<Vec<CannedRequest>>,
}

/// A running API with the responses set by the test.
pub struct CannedServer {
    pub base: String,
    shared: Arc<Shared>,
}

impl CannedServer {
    /// Starts an API that returns tokens for all scopes, and the given bodies for their methods and paths. A path with
    /// a query matches only that query; a path without one matches any query.
    pub async fn start(responses: &[(&str, &str)]) -> Self {
        let shared = Arc::new(Shared::default());
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(respond).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum_serve(listener, router).await });
        let canned = Self { base, shared };
        for (line, body) in responses {
            canned.set(line, 200, body);
        }
        canned
    }

    /// Sets the response for a method and path, such as `GET /partner/customers`.
    pub fn set(&self, line: &str, status: u16, body: &str) {
        self.shared
            .responses
            .lock()
            .unwrap()
            .insert(line.to_owned(), (status, body.to_owned()));
    }

    /// Returns the requests so far, except token requests.
    pub fn requests(&self) -> Vec<CannedRequest> {
        let requests = self.shared.requests.lock().unwrap().clone();
        requests
            .into_iter()
            .filter(|request| !request.line.ends_with("/connect/token"))
            .collect()
    }

    pub fn token_requests(&self) -> Vec<CannedRequest> {
        let requests = self.shared.requests.lock().unwrap().clone();
        requests
            .into_iter()
            .filter(|request| request.line.ends_with("/connect/token"))
            .collect()
    }
}

async fn respond(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    let target = uri.path_and_query().map_or("", |path| path.as_str());
    let line = format!("{method} {target}");
    shared.requests.lock().unwrap().push(CannedRequest {
        line: line.clone(),
        body: String::from_utf8_lossy(&body).into_owned(),
    });
    let json = [("content-type", "application/json")];
    let responses = shared.responses.lock().unwrap();
    let found = responses
        .get(&line)
        .or_else(|| responses.get(&format!("{method} {}", uri.path())));
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

/// Serves a router. `axum::serve` requires an axum feature that the exporter does not use.
pub async fn axum_serve(listener: tokio::net::TcpListener, router: Router) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        let io = hyper_util::rt::TokioIo::new(stream);
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
    }
}
