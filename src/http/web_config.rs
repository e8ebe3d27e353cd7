//! The web configuration, in the format of Prometheus' exporter toolkit: TLS, client certificates, passwords and
//! headers.
//!
//! | key | |
//! |---|---|
//! | `tls_server_config.cert_file`, `.key_file`, or `.cert`, `.key` in the file itself | certificate chain and key, as PEM; without them there is no TLS |
//! | `tls_server_config.client_auth_type` | `NoClientCert`, `RequestClientCert`, `RequireAnyClientCert`, `VerifyClientCertIfGiven`, `RequireAndVerifyClientCert` |
//! | `tls_server_config.client_ca_file`, or `.client_ca` | authorities that may sign client certificates |
//! | `tls_server_config.client_allowed_sans` | allowed names; a client certificate must contain at least one |
//! | `tls_server_config.min_version`, `.max_version` | `TLS12` or `TLS13` |
//! | `tls_server_config.cipher_suites`, `.curve_preferences`, `.prefer_server_cipher_suites` | as in the toolkit, limited to what is implemented here |
//! | `http_server_config.http2` | accepted; HTTP/1.1 is served in any case, which every scraper supports |
//! | `http_server_config.headers` | headers of every response, from the toolkit's list |
//! | `basic_auth_users` | names and bcrypt hashes of users |
//!
//! Paths are relative to the directory of the file. A [`Guard`] wraps all routes, including those for health, like the
//! toolkit. It rereads the file and the files that it names when they change.
//!
//! It is stricter than the toolkit in three ways. A key given both inline and as a file is rejected. A section
//! `tls_server_config` without a certificate does not mean plain HTTP. Protection cannot be removed without a restart,
//! so a half-written file cannot disable it. `rate_limit` is rejected, because no rate limit is implemented.

mod client_certificate;
mod guard;
mod settings;
mod tls;
mod users;

use std::path::{Path, PathBuf};

pub use self::guard::Guard;
pub(super) use self::guard::guarded;
use self::settings::Settings;
use crate::settings::FILE_LIMIT;
use crate::text_file;

/// Reason why a web configuration is rejected. Messages contain no password hash and no key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is invalid, or a file that it names is.
    #[error(transparent)]
    Settings(#[from] crate::settings::Error),
    /// The changed file protects less than the active configuration.
    #[error("{}: {key} was removed; restart to reduce protection", path.display())]
    Weaker {
        /// The file.
        path: PathBuf,
        /// The missing protection.
        key: &'static str,
    },
    /// The operating system provides no random numbers.
    #[error("cannot read random numbers from the system")]
    NoRandomness,
}

/// The text of a web configuration.
fn read(file: &Path) -> Result<String, Error> {
    Ok(text_file::read_regular(file, FILE_LIMIT).map_err(crate::settings::Error::from)?)
}

/// Transport on which the server accepts connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerTransport {
    /// HTTP without TLS.
    Plain,
    /// TLS without client certificates.
    Tls,
    /// TLS with a required client certificate.
    TlsWithClientCertificate,
}

/// Returns the transport that a web configuration selects. The files that it names are not read.
///
/// # Errors
/// If the file is invalid.
pub fn server_transport(file: &Path) -> Result<ServerTransport, Error> {
    let settings = Settings::parse(file, &read(file)?)?;
    Ok(match settings.tls {
        None => ServerTransport::Plain,
        Some(tls) if tls.client_auth.is_mandatory() => ServerTransport::TlsWithClientCertificate,
        Some(_) => ServerTransport::Tls,
    })
}
