//! Servers with the certificates in `tests/fixtures/tls`. They respond to every request with status 404.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};

use crate::harness::program::fixture;

/// Kind of server certificate.
#[derive(Clone, Copy)]
pub(super) enum Certificate {
    Valid,
    OtherAuthority,
    OtherName,
    Expired,
}

impl Certificate {
    fn file(self) -> &'static str {
        match self {
            Self::Valid => "tls/valid.pem",
            Self::OtherAuthority => "tls/other-authority.pem",
            Self::OtherName => "tls/other-name.pem",
            Self::Expired => "tls/expired.pem",
        }
    }
}

pub(super) struct TlsServer {
    pub(super) base: String,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl TlsServer {
    /// Returns the certificate file of the authority that signed all certificates except
    /// [`Certificate::OtherAuthority`].
    pub(super) fn authority() -> String {
        fixture("tls/ca.pem")
    }

    pub(super) fn start(certificate: Certificate) -> Self {
        let chain = CertificateDer::pem_file_iter(fixture(certificate.file())).unwrap();
        let key = PrivateKeyDer::from_pem_file(fixture("tls/key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let base = format!("https://{}", listener.local_addr().unwrap());
        let (connections, requests) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (count, log) = (Arc::clone(&connections), Arc::clone(&requests));
        thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let (config, log) = (Arc::clone(&config), Arc::clone(&log));
                thread::spawn(move || serve(config, stream.unwrap(), &log));
            }
        });
        Self {
            base,
            connections,
            requests,
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(config: Arc<ServerConfig>, mut stream: TcpStream, log: &Mutex<Vec<String>>) {
    let mut connection = ServerConnection::new(config).unwrap();
    let mut tls = Stream::new(&mut connection, &mut stream);
    let mut head = [0; 8192];
    // A client that rejects the certificate disconnects here.
    let Ok(length) = tls.read(&mut head) else { return };
    log.lock()
        .unwrap()
        .push(String::from_utf8_lossy(&head[..length]).into_owned());
    let _ = tls.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
    tls.conn.send_close_notify();
    let _ = tls.flush();
}
