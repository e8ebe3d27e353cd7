//! Serves HTTP connections. Limits the number of connections, the time for receiving the head of a request, and the
//! time for which a client may stop reading. Drains connections at shutdown.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::accept::Acceptor;
use super::caller::Caller;
use super::handshake::{self, HEADER_TIMEOUT};
use super::web_config::{Guard, guarded};

/// Maximum number of connections. A few Prometheus servers and browsers need a few dozen. Connections beyond the
/// maximum wait in the kernel.
const MAX_CONNECTIONS: usize = 512;

/// Maximum time for which a client may stop reading its response. During this time, the client occupies one of
/// the [`MAX_CONNECTIONS`] slots. Slow clients that read continuously are not affected.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit for unfinished responses at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// A listening socket.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Binds the first of `addresses` that can be bound.
    ///
    /// # Errors
    /// If no address can be bound, returns the error for the last one. Also returns an error if there are no addresses.
    pub async fn bind(addresses: &[String]) -> io::Result<Self> {
        let mut last_error = io::Error::new(io::ErrorKind::InvalidInput, "no address to listen on");
        for address in addresses {
            match TcpListener::bind(address).await {
                Ok(listener) => return Ok(Self(listener)),
                Err(error) => last_error = error,
            }
        }
        Err(last_error)
    }

    /// Returns the local address.
    ///
    /// # Errors
    /// Returns an error if the system does not return the address.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves connections until `stop` is cancelled, and then waits briefly for unfinished responses. The guard
    /// protects all routes.
    pub async fn serve(self, routes: Router, guard: Option<Arc<Guard>>, stop: CancellationToken) {
        let graceful = GracefulShutdown::new();
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let routes = match &guard {
            Some(guard) => guarded(routes, Arc::clone(guard)),
            None => routes,
        };
        let mut acceptor = Acceptor::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.accept(&mut acceptor, &slots) => accepted,
            };
            let Some((stream, peer, slot)) = accepted else { break };
            let (routes, guard, stop) = (routes.clone(), guard.clone(), stop.clone());
            let watcher = graceful.watcher();
            tokio::spawn(async move {
                handle_connection(stream, peer, guard, routes, watcher, stop).await;
                drop(slot);
            });
        }
        drop(self.0);
        if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
            debug!("closing connections with unfinished responses");
        }
    }

    /// Waits for a free slot and then for a connection. Returns `None` if the semaphore is closed.
    async fn accept(
        &self,
        acceptor: &mut Acceptor,
        slots: &Arc<Semaphore>,
    ) -> Option<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
        let slot = Arc::clone(slots).acquire_owned().await.ok()?;
        let (stream, peer) = acceptor.accept(&self.0).await;
        // Each part of a response is written in one piece, so delaying small packets has no advantage.
        let _ = stream.set_nodelay(true);
        Some((stream, peer.ip(), slot))
    }
}

async fn handle_connection(
    stream: TcpStream,
    peer: IpAddr,
    guard: Option<Arc<Guard>>,
    routes: Router,
    watcher: Watcher,
    stop: CancellationToken,
) {
    let active = match guard {
        Some(guard) => Some(guard.current().await),
        None => None,
    };
    let Some(acceptor) = active.as_ref().and_then(|active| active.tls.clone()) else {
        return serve_requests(stream, Caller::new(peer, false), routes, watcher).await;
    };
    // A connection keeps the TLS settings that were active when it was accepted. Changed settings affect only new
    // connections.
    let caller = Caller::new(peer, active.is_some_and(|active| active.verifies_clients));
    let secured = tokio::select! {
        // No request has been received yet, so there is no response to finish.
        () = stop.cancelled() => None,
        secured = handshake::accept(stream, &acceptor) => secured,
    };
    if let Some(secured) = secured {
        serve_requests(secured, caller.over_tls(), routes, watcher).await;
    }
}

async fn serve_requests(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    caller: Caller,
    routes: Router,
    watcher: Watcher,
) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    // A client may close its sending side after its request. If the client has closed the whole connection, writing the
    // response fails.
    builder.half_close(true);
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(caller);
        routes.call(request)
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let connection = builder.serve_connection(TokioIo::new(Box::pin(stream)), service);
    if let Err(error) = watcher.watch(connection).await {
        debug!(%error, "connection closed early");
    }
}
