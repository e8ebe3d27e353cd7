//! Connections: bounded in number and in the time that a request may take to come, and drained when it is time to go.

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
use tracing::{debug, warn};

use super::caller::Caller;
use super::handshake;
use super::web_config::{Guard, guarded};

/// How long the head of a request may take to come. Scrapers send it at once.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections at once. A handful of Prometheus servers and people need tens; past this a newcomer waits in the kernel.
const MAX_CONNECTIONS: usize = 512;

/// How long a reader may take nothing of its answer. Slow ones take something all the time; who takes nothing holds one
/// of [`MAX_CONNECTIONS`] for nothing.
const WRITE_STALL: Duration = Duration::from_secs(10);

/// How long answers under way may take to end when the exporter stops.
const DRAIN: Duration = Duration::from_secs(3);

/// The pause after a connection could not be accepted, as when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that listens.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Binds the first of `addresses` that can be bound.
    ///
    /// # Errors
    /// That of the last address.
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

    /// Where it listens.
    ///
    /// # Errors
    /// Where the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves until it is told to stop, then lets answers under way end for a short while. Where there is a guard, it
    /// stands before all routes.
    pub async fn serve(self, routes: Router, guard: Option<Arc<Guard>>, stop: CancellationToken) {
        let graceful = GracefulShutdown::new();
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let routes = match &guard {
            Some(guard) => guarded(routes, Arc::clone(guard)),
            None => routes,
        };
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.accept(&slots) => accepted,
            };
            let Some((stream, peer, slot)) = accepted else { continue };
            let (routes, guard, stop) = (routes.clone(), guard.clone(), stop.clone());
            let watcher = graceful.watcher();
            tokio::spawn(async move {
                connect(stream, peer, guard, routes, watcher, stop).await;
                drop(slot);
            });
        }
        drop(self.0);
        if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
            debug!("answers still under way are cut off");
        }
    }

    async fn accept(&self, slots: &Arc<Semaphore>) -> Option<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
        let slot = Arc::clone(slots).acquire_owned().await.ok()?;
        match self.0.accept().await {
            Ok((stream, peer)) => {
                // Frames are written whole, so there is nothing for the kernel to wait for.
                let _ = stream.set_nodelay(true);
                Some((stream, peer.ip(), slot))
            }
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
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
    // By the configuration of this handshake: one that is read later verifies nobody who is connected already.
    let caller = Caller::new(peer, in_force.is_some_and(|in_force| in_force.verifies_clients));
    let secured = tokio::select! {
        // Before there is a request there is no answer to let end.
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
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(caller);
        routes.call(request)
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_STALL));
    let connection = builder.serve_connection(TokioIo::new(Box::pin(stream)), service);
    if let Err(error) = watcher.watch(connection).await {
        debug!(%error, "a connection ended early");
    }
}
