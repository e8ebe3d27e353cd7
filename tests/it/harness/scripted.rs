//! A server with responses from a closure, for faults that do not need the simulated partner.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::http::{Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

/// A received request, such as `GET /path?query`.
#[derive(Clone, Debug)]
pub struct ScriptedRequest {
    pub line: String,
}

/// A server and its received requests.
pub struct ScriptedServer {
    pub base: String,
    requests: Arc<Mutex<Vec<ScriptedRequest>>>,
}

impl ScriptedServer {
    pub async fn start(response: impl Fn(&ScriptedRequest) -> Response<String> + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .await
            .unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let requests: Arc<Mutex<Vec<ScriptedRequest>>> = Arc::default();
        let (response, log) = (Arc::new(response), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (response, log) = (Arc::clone(&response), Arc::clone(&log));
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (response, log) = (Arc::clone(&response), Arc::clone(&log));
                    async move {
                        let received = read(request).await;
                        log.lock().unwrap().push(received.clone());
                        Ok::<_, Infallible>(response(&received))
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { base, requests }
    }

    pub fn requests(&self) -> Vec<ScriptedRequest> {
        self.requests.lock().unwrap().clone()
    }
}

async fn read(request: Request<hyper::body::Incoming>) -> ScriptedRequest {
    let (parts, body) = request.into_parts();
    // Read the body, so that the connection can be reused.
    let _ = to_bytes(Body::new(body), 1 << 20).await;
    ScriptedRequest {
        line: format!("{} {}", parts.method, parts.uri),
    }
}

pub fn json(status: u16, body: impl Into<String>) -> Response<String> {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(body.into())
        .unwrap()
}

pub fn token() -> Response<String> {
    json(
        200,
        r#"{"access_token":"scripted-token","expires_in":3600,"token_type":"Bearer"}"#,
    )
}
