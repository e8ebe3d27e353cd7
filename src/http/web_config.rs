//! The web configuration, in the format of Prometheus' exporter toolkit: TLS, client certificates, passwords and headers.
//!
//! | key | |
//! |---|---|
//! | `tls_server_config.cert_file`, `.key_file`, or `.cert`, `.key` in the file itself | certificate chain and key, as PEM; without them there is no TLS |
//! | `tls_server_config.client_auth_type` | `NoClientCert`, `RequestClientCert`, `RequireAnyClientCert`, `VerifyClientCertIfGiven`, `RequireAndVerifyClientCert` |
//! | `tls_server_config.client_ca_file`, or `.client_ca` | who may sign certificates of clients |
//! | `tls_server_config.client_allowed_sans` | the names, of which a client's certificate has to bear one |
//! | `tls_server_config.min_version`, `.max_version` | `TLS12` or `TLS13` |
//! | `tls_server_config.cipher_suites`, `.curve_preferences`, `.prefer_server_cipher_suites` | as in the toolkit, out of what is implemented here |
//! | `http_server_config.http2` | accepted; HTTP/1.1 is served either way, which every scraper speaks |
//! | `http_server_config.headers` | headers of every answer, of the toolkit's list |
//! | `basic_auth_users` | names and bcrypt hashes of who may come in |
//!
//! Paths are relative to the directory of the file. A [`Guard`] stands before all routes, those for health included, as in
//! the toolkit. It reads the file, and those that it names, again when they change.
//!
//! It differs from the toolkit where that would be lenient: a key given twice, inline and as a file, is refused; a section
//! `tls_server_config` without a certificate does not mean plain HTTP; and what protects cannot be taken away without a
//! restart, so that a file that was caught half written opens nothing. `rate_limit` is refused: there is no limit to set.

mod client_certificate;
mod document;
mod error;
mod guard;
mod section;
mod settings;
mod tls;
mod users;

use std::path::Path;

pub use self::error::{Error, Place};
pub use self::guard::Guard;
pub(super) use self::guard::guarded;
use self::settings::Settings;

/// What a client meets first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// HTTP without TLS.
    Plain,
    /// TLS, for whoever comes.
    Tls,
    /// TLS, for clients that have a certificate.
    TlsWithClientCertificate,
}

/// What a client meets first, by a web configuration. The files that it names are not looked at.
///
/// # Errors
/// What is wrong with the file.
pub fn door(file: &Path) -> Result<Door, Error> {
    let settings = Settings::parse(file, &settings::read(file)?)?;
    Ok(match settings.tls {
        None => Door::Plain,
        Some(tls) if tls.client_auth.is_mandatory() => Door::TlsWithClientCertificate,
        Some(_) => Door::Tls,
    })
}
