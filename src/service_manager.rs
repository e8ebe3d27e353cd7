//! Notifications to systemd, or to another service manager that sets `NOTIFY_SOCKET`.

use std::io;
use std::os::unix::net::UnixDatagram;

use sd_notify::NotifyState;
use tracing::debug;

/// Reports that the sockets are bound, or that a reload is complete.
pub(crate) fn notify_ready() {
    notify(&[NotifyState::Ready]);
}

/// Reports that the configuration is being reloaded. The caller must call [`notify_ready`] afterwards.
pub(crate) fn notify_reloading() {
    // Services of type `notify-reload` must also send the monotonic time.
    let now = NotifyState::monotonic_usec_now();
    let states: Vec<_> = std::iter::once(NotifyState::Reloading).chain(now).collect();
    notify(&states);
}

/// Reports that the process is about to end.
pub(crate) fn notify_stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = send(states) {
        debug!(%error, "service manager not notified");
    }
}

/// Sends without blocking, so that a manager that does not read its socket cannot delay startup or shutdown.
fn send(states: &[NotifyState<'_>]) -> io::Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let message: String = states.iter().map(|state| format!("{state}\n")).collect();
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    #[cfg(target_os = "linux")]
    if let Some(name) = path.as_encoded_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt as _;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        return socket.send_to_addr(message.as_bytes(), &address).map(drop);
    }
    socket.send_to(message.as_bytes(), path).map(drop)
}
