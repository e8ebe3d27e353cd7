//! The web configuration, in the format of the Prometheus exporter toolkit: TLS, client certificates, passwords and
//! headers.
//!
//! | key | |
//! |---|---|
//! | `tls_server_config.cert_file`, `.key_file`, or `.cert`, `.key` in the file itself | certificate chain and key, as PEM; required in this section. Without the section, TLS is off. |
//! | `tls_server_config.client_auth_type` | `NoClientCert`, `RequestClientCert`, `RequireAnyClientCert`, `VerifyClientCertIfGiven`, `RequireAndVerifyClientCert` |
//! | `tls_server_config.client_ca_file`, or `.client_ca` | authorities that may sign client certificates |
//! | `tls_server_config.client_allowed_sans` | allowed names; a client certificate must contain at least one |
//! | `tls_server_config.min_version`, `.max_version` | `TLS12` or `TLS13` |
//! | `tls_server_config.cipher_suites`, `.curve_preferences`, `.prefer_server_cipher_suites` | as in the toolkit, but only the values that this implementation supports |
//! | `http_server_config.http2` | accepted but ignored: the exporter always serves HTTP/1.1, which every scraper supports |
//! | `http_server_config.headers` | headers for every response; only those in the toolkit's list |
//! | `basic_auth_users` | names and bcrypt hashes of users |
//!
//! Paths are relative to the directory of the file. A [`Guard`] protects all routes, including the health endpoints, as
//! in the toolkit. The guard reloads the configuration when the file, or a file to which it refers, has changed.
//!
//! This implementation is stricter than the toolkit. It rejects a setting that is given both inline and as a file, and
//! a `tls_server_config` section without a certificate. Only a restart applies a file that removes TLS, the requirement
//! for a client certificate, or all users, so a partially written file cannot disable them. `rate_limit` is rejected,
//! because it is not implemented.

mod client_certificate;
mod guard;
mod settings;
mod tls;
mod users;

use std::path::{Path, PathBuf};

pub use self::guard::Guard;
pub(super) use self::guard::guarded;
use self::settings::WebSettings;
use crate::settings::FILE_LIMIT;
use crate::text_file;

/// Reason why a web configuration is rejected. Messages contain no password hashes or keys.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file, or a file to which it refers, is invalid or cannot be read.
    #[error(transparent)]
    Settings(#[from] crate::settings::Error),
    /// The changed file would remove TLS, the requirement for a client certificate, or all users.
    #[error("{}: {key} was removed; restart the exporter to apply this change", path.display())]
    Weaker {
        /// Path of the file.
        path: PathBuf,
        /// The missing protection.
        key: &'static str,
    },
    /// The operating system provides no random numbers.
    #[error("cannot read random numbers from the system")]
    NoRandomness,
}

fn read_text(file: &Path) -> Result<String, Error> {
    Ok(text_file::read_regular(file, FILE_LIMIT).map_err(crate::settings::Error::from)?)
}

/// Transport over which the server accepts connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerTransport {
    /// HTTP without TLS.
    Plain,
    /// TLS; a client certificate is not required.
    Tls,
    /// TLS; a client certificate is required.
    TlsWithClientCertificate,
}

/// Returns the transport that a web configuration selects, without reading the files to which it refers.
///
/// # Errors
/// Returns an error if the file is invalid or cannot be read.
pub fn server_transport(file: &Path) -> Result<ServerTransport, Error> {
    let settings = WebSettings::parse(file, &read_text(file)?)?;
    Ok(match settings.tls {
        None => ServerTransport::Plain,
        Some(tls) if tls.client_auth.is_mandatory() => ServerTransport::TlsWithClientCertificate,
        Some(_) => ServerTransport::Tls,
    })
}
