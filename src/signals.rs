//! Catches signals as soon as the process starts. A signal stays pending until it is handled.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that the process handles.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// SIGXFSZ: caught so that a write beyond the file size limit returns an error instead of ending the process.
    _file_size: Signal,
}

impl Signals {
    /// Catches the signals. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// Returns an error if the system rejects a handler.
    pub fn catch() -> io::Result<Self> {
        let file_size = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
        Ok(Self {
            hang_up: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _file_size: signal(file_size)?,
        })
    }

    /// Waits for the next signal. Unless `with_reloads` is set, SIGHUP stays pending.
    pub async fn next(&mut self, with_reloads: bool) -> SignalAction {
        tokio::select! {
            _ = self.terminate.recv() => SignalAction::Stop,
            _ = self.interrupt.recv() => SignalAction::Stop,
            _ = self.hang_up.recv(), if with_reloads => SignalAction::Reload,
        }
    }
}

/// Action requested by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalAction {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}
