//! Accepts connections, even while there are no free file descriptors.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::log_throttle::LogThrottle;

/// Pause after a connection could not be accepted, for example without free file descriptors. Without it, the
/// connections that wait in the kernel would be tried continuously.
const PAUSE: Duration = Duration::from_millis(100);

/// Time without failures after which the outage is over. While the last descriptor becomes free and is used again,
/// attempts fail and succeed in turn.
const QUIET: Duration = Duration::from_secs(1);

/// Accepts connections, and logs failures with growing pauses.
#[derive(Debug)]
pub(super) struct Acceptor {
    began: Instant,
    throttle: LogThrottle,
    /// The outage, if a failure was logged.
    outage: Option<Outage>,
}

#[derive(Debug)]
struct Outage {
    failures: u64,
    over_at: Option<Instant>,
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
            let over_at = self.outage.as_ref().and_then(|outage| outage.over_at);
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = until(over_at) => {
                    self.recover();
                    continue;
                }
            };
            match accepted {
                Ok(accepted) => {
                    self.succeed();
                    return accepted;
                }
                // The client has closed the connection, which is not a problem of the exporter.
                Err(error) if is_of_connection(&error) => debug!(%error, "connection not accepted"),
                Err(error) => {
                    self.fail(&error);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn succeed(&mut self) {
        if let Some(outage) = &mut self.outage {
            outage.over_at.get_or_insert_with(|| Instant::now() + QUIET);
        }
    }

    fn fail(&mut self, error: &io::Error) {
        if let Some(outage) = &mut self.outage {
            outage.failures += 1;
            outage.over_at = None;
        }
        if let Some(silent) = self.throttle.raise("http", "accept", self.began.elapsed()) {
            warn!(%error, silent, "cannot accept connections");
            self.outage.get_or_insert(Outage {
                failures: 1,
                over_at: None,
            });
        }
    }

    fn recover(&mut self) {
        if let Some(outage) = self.outage.take() {
            info!(failures = outage.failures, "accepting connections again");
        }
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => pending().await,
    }
}

fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outage_is_over_after_some_time_without_failures() {
        let mut acceptor = Acceptor::new();
        let error = io::Error::from_raw_os_error(24);
        let ends = |acceptor: &Acceptor| acceptor.outage.as_ref().unwrap().over_at.is_some();
        for _ in 0..5 {
            acceptor.fail(&error);
        }
        assert!(!ends(&acceptor));
        // The outage continues while the last descriptor is freed and reused.
        acceptor.succeed();
        assert!(ends(&acceptor));
        acceptor.fail(&error);
        assert!(!ends(&acceptor));
        assert_eq!(acceptor.outage.as_ref().unwrap().failures, 6);
        acceptor.recover();
        // A second outage within the pause of the first is not logged, and neither is its recovery.
        acceptor.fail(&error);
        assert!(acceptor.outage.is_none());
    }
}
