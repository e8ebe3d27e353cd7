//! Connections: limited in number and in the time that a request may take to arrive, and drained at shutdown.

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
use super::handshake;
use super::web_config::{Guard, guarded};

/// Time limit for the head of a request. Scrapers send it at once.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of connections. A handful of Prometheus servers and people need tens; further ones wait in the
/// kernel.
const MAX_CONNECTIONS: usize = 512;

/// Maximum time in which a client may read nothing of its response. Slow clients read continuously; one that reads
/// nothing occupies one of [`MAX_CONNECTIONS`].
const WRITE_STALL: Duration = Duration::from_secs(10);

/// Time limit for running responses at shutdown.
const DRAIN: Duration = Duration::from_secs(3);

/// A listening socket.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Binds the first of `addresses` that can be bound.
    ///
    /// # Errors
    /// The error of the last address.
    pub async fn bind(addresses: &[String]) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no address to listen on");
        for address in addresses {
            match TcpListener::bind(address).await {
                Ok(listener) => return Ok(Self(listener)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Returns the local address.
    ///
    /// # Errors
    /// If the system does not return it.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves until it is stopped, then gives running responses a short time to finish. A guard wraps all routes.
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
                connect(stream, peer, guard, routes, watcher, stop).await;
                drop(slot);
            });
        }
        drop(self.0);
        if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
            debug!("closing connections with unfinished responses");
        }
    }

    /// Waits for a free slot and then for a connection; `None` if no slots remain.
    async fn accept(
        &self,
        acceptor: &mut Acceptor,
        slots: &Arc<Semaphore>,
    ) -> Option<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
        let slot = Arc::clone(slots).acquire_owned().await.ok()?;
        let (stream, peer) = acceptor.accept(&self.0).await;
        // Frames are written whole, so waiting for more data gains nothing.
        let _ = stream.set_nodelay(true);
        Some((stream, peer.ip(), slot))
    }
}

async fn connect(
    stream: TcpStream,
    peer: IpAddr,
    guard: Option<Arc<Guard>>,
    routes: Router,
    watcher: Watcher,
    stop: CancellationToken,
) {
    let in_force = match guard {
        Some(guard) => Some(guard.current().await),
        None => None,
    };
    let Some(acceptor) = in_force.as_ref().and_then(|in_force| in_force.tls.clone()) else {
        return answer(stream, Caller::new(peer, false), routes, watcher).await;
    };
    // The configuration of this handshake: a later one does not verify existing connections.
    let caller = Caller::new(peer, in_force.is_some_and(|in_force| in_force.verifies_clients));
    let secured = tokio::select! {
        // Without a request there is no response to finish.
        () = stop.cancelled() => None,
        secured = handshake::accept(stream, &acceptor) => secured,
    };
    if let Some(secured) = secured {
        answer(secured, caller.over_tls(), routes, watcher).await;
    }
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    caller: Caller,
    routes: Router,
    watcher: Watcher,
) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    // A client may close its half after its request. A closed connection is noticed when the response is written.
    builder.half_close(true);
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(caller);
        routes.call(request)
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_STALL));
    let connection = builder.serve_connection(TokioIo::new(Box::pin(stream)), service);
    if let Err(error) = watcher.watch(connection).await {
        debug!(%error, "connection closed early");
    }
}
