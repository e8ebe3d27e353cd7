//! Signals, caught from the start of the process. Early signals wait until they are handled.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The handled signals, whose default actions are replaced.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// A write beyond a file size limit then returns an error.
    _file_size: Signal,
}

impl Signals {
    /// Catches the signals. Must be called within a runtime.
    ///
    /// # Errors
    /// Returns an error if the system rejects it.
    pub fn catch() -> io::Result<Self> {
        let file_size = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
        Ok(Self {
            hang_up: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _file_size: signal(file_size)?,
        })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self, with_reloads: bool) -> Caught {
        tokio::select! {
            _ = self.terminate.recv() => Caught::Stop,
            _ = self.interrupt.recv() => Caught::Stop,
            _ = self.hang_up.recv(), if with_reloads => Caught::Reload,
        }
    }
}

/// Action requested by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caught {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}
