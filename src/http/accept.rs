//! Accepts connections, and tolerates a shortage of file descriptors.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::log_throttle::LogThrottle;

/// Pause after a failure to accept a connection, for example because there is no free file descriptor. Without this
/// pause, the exporter would retry in a busy loop.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Time without failures after which an [`Outage`] is considered over. This time starts with the first connection that
/// is accepted after a failure. During an outage, accepting can alternately succeed and fail, because the last
/// descriptor is repeatedly freed and reused.
const RECOVERY_TIME: Duration = Duration::from_secs(1);

/// Accepts connections, and logs failures at a limited rate.
#[derive(Debug)]
pub(super) struct Acceptor {
    began: Instant,
    throttle: LogThrottle,
    /// The current outage, if it was logged.
    outage: Option<Outage>,
}

/// A period in which not all connections can be accepted.
#[derive(Debug)]
struct Outage {
    failures: u64,
    /// Time at which the outage ends unless there is another failure; `None` until a connection is accepted.
    ends_at: Option<Instant>,
}

impl Acceptor {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            throttle: LogThrottle::default(),
            outage: None,
        }
    }

    /// Waits for the next connection.
    pub(super) async fn accept(&mut self, listener: &TcpListener) -> (TcpStream, SocketAddr) {
        loop {
            let ends_at = self.outage.as_ref().and_then(|outage| outage.ends_at);
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sleep_until(ends_at) => {
                    self.recover();
                    continue;
                }
            };
            match accepted {
                Ok(accepted) => {
                    self.succeed();
                    return accepted;
                }
                // The client closed the connection, so no pause is needed.
                Err(error) if is_client_error(&error) => debug!(%error, "connection not accepted"),
                Err(error) => {
                    self.fail(&error);
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    fn succeed(&mut self) {
        if let Some(outage) = &mut self.outage {
            outage.ends_at.get_or_insert_with(|| Instant::now() + RECOVERY_TIME);
        }
    }

    fn fail(&mut self, error: &io::Error) {
        if let Some(outage) = &mut self.outage {
            outage.failures += 1;
            outage.ends_at = None;
        }
        if let Some(suppressed) = self.throttle.permit("http", "accept", self.began.elapsed()) {
            warn!(%error, suppressed, "cannot accept connections");
            self.outage.get_or_insert(Outage {
                failures: 1,
                ends_at: None,
            });
        }
    }

    fn recover(&mut self) {
        if let Some(outage) = self.outage.take() {
            info!(failures = outage.failures, "accepting connections again");
            self.throttle.relax("http");
        }
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => pending().await,
    }
}

fn is_client_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outage_ends_after_some_time_without_failures() {
        let mut acceptor = Acceptor::new();
        let error = io::Error::from_raw_os_error(24);
        let is_ending = |acceptor: &Acceptor| acceptor.outage.as_ref().unwrap().ends_at.is_some();
        for _ in 0..5 {
            acceptor.fail(&error);
        }
        assert!(!is_ending(&acceptor));
        // The outage continues while the last descriptor is freed and reused.
        acceptor.succeed();
        assert!(is_ending(&acceptor));
        acceptor.fail(&error);
        assert!(!is_ending(&acceptor));
        assert_eq!(acceptor.outage.as_ref().unwrap().failures, 6);
        acceptor.recover();
        // If another outage begins soon afterwards, the throttle suppresses the warning. The end of that outage is then
        // not logged either.
        acceptor.fail(&error);
        assert!(acceptor.outage.is_none());
    }
}
