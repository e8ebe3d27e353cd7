//! Performs TLS handshakes.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

/// Time limit for a TLS handshake, and for receiving the head of a request.
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum time for which a connection stays open after a failed handshake, so that the client can read the error.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// Response to a client that does not use TLS. Go servers send the same text, so operators recognize it.
const PLAIN_HTTP: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n\
                            Client sent an HTTP request to an HTTPS server.\n";

/// Performs the handshake. Returns `None` if it fails. Before that, the client gets time to read the error, unless the
/// handshake timed out or its first byte could not be read.
pub(super) async fn accept(stream: TcpStream, acceptor: &TlsAcceptor) -> Option<TlsStream<TcpStream>> {
    let result = tokio::time::timeout(HEADER_TIMEOUT, try_accept(stream, acceptor)).await;
    let (error, stream) = match result {
        Ok(Ok(secured)) => return Some(secured),
        Ok(Err(failure)) => failure,
        Err(elapsed) => (io::Error::from(elapsed), None),
    };
    debug!(%error, "TLS handshake failed");
    if let Some(stream) = stream {
        linger(stream).await;
    }
    None
}

type Failure = (io::Error, Option<TcpStream>);

async fn try_accept(mut stream: TcpStream, acceptor: &TlsAcceptor) -> Result<TlsStream<TcpStream>, Failure> {
    let mut first = [0];
    if let Err(error) = stream.peek(&mut first).await {
        return Err((error, None));
    }
    let [first] = first;
    // The first byte of a TLS connection is not a letter.
    if first.is_ascii_alphabetic() {
        let sent = stream.write_all(PLAIN_HTTP).await;
        let error = sent
            .err()
            .unwrap_or_else(|| io::Error::other("the client does not use TLS"));
        return Err((error, Some(stream)));
    }
    let accepting = acceptor.accept(stream).into_fallible();
    accepting.await.map_err(|(error, stream)| (error, Some(stream)))
}

/// Closes the sending side and reads until the client closes its side. If data were left unread, the connection would
/// be reset, and the client might not receive the error.
async fn linger(mut stream: TcpStream) {
    let reading = async {
        stream.shutdown().await?;
        let mut ignored = [0; 4096];
        while stream.read(&mut ignored).await? > 0 {}
        io::Result::Ok(())
    };
    // Errors are ignored: the client may already have closed the connection.
    let _ = tokio::time::timeout(LINGER_TIME, reading).await;
}
