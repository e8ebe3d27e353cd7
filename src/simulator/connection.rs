//! Serves one connection.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::response::Call;
use super::{Handle, faults};

/// How long requests in progress may continue after shutdown begins. If faults keep requests hanging, the shutdown
/// takes about this long.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(300);

/// Serves a connection until either side closes it, or until shortly after shutdown begins.
pub(super) async fn serve(stream: TcpStream, handle: Handle, shutdown: CancellationToken) {
    let abort = CancellationToken::new();
    let service = service_fn(|request| exchange(&handle, &abort, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // Connection errors are ignored. Dropping the connection closes it without a response.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = abort.cancelled() => return,
        () = shutdown.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(SHUTDOWN_GRACE, connection).await;
}

async fn exchange(
    handle: &Handle,
    abort: &CancellationToken,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (response, delivery) = match Call::read(request).await {
        Ok(call) => handle.state().respond(&call),
        Err(error_response) => (error_response, faults::Delivery::default()),
    };
    match delivery.deliver(response).await {
        Some(response) => Ok(response),
        None => {
            abort.cancel();
            std::future::pending().await
        }
    }
}
