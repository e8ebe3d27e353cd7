//! A server that does what a closure says, for faults that need no world behind them.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::http::{Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

/// A request as it came: `GET /path?query`.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) line: String,
}

/// A server and what it was asked.
pub(super) struct Scripted {
    pub(super) base: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Scripted {
    pub(super) async fn start(answer: impl Fn(&Asked) -> Response<String> + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .await
            .unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (answer, log) = (Arc::new(answer), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                    async move {
                        let asked = read(request).await;
                        log.lock().unwrap().push(asked.clone());
                        Ok::<_, Infallible>(answer(&asked))
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { base, asked }
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn read(request: Request<hyper::body::Incoming>) -> Asked {
    let (parts, body) = request.into_parts();
    // Read, so that the connection can be used again.
    let _ = to_bytes(Body::new(body), 1 << 20).await;
    Asked {
        line: format!("{} {}", parts.method, parts.uri),
    }
}

/// An answer of JSON.
pub(super) fn json(status: u16, body: impl Into<String>) -> Response<String> {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(body.into())
        .unwrap()
}

/// A token for whoever asks.
pub(super) fn token() -> Response<String> {
    json(
        200,
        r#"{"access_token":"scripted-token","expires_in":3600,"token_type":"Bearer"}"#,
    )
}
