//! Parses the web configuration, without reading the PEM files to which it refers.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use axum::http::{HeaderName, HeaderValue};
use rustls::crypto::{SupportedKxGroup, ring};
use rustls::version::{TLS12, TLS13};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

use crate::error_chain::error_chain;
use crate::secret::Secret;
use crate::settings::{Error, FILE_LIMIT, Field, parse, reject_unknown_keys};
use crate::text_file;

/// Keys that the format allows. The keys below `basic_auth_users` are user names.
const KEYS: &[&str] = &[
    "tls_server_config.cert_file",
    "tls_server_config.key_file",
    "tls_server_config.cert",
    "tls_server_config.key",
    "tls_server_config.client_auth_type",
    "tls_server_config.client_ca_file",
    "tls_server_config.client_ca",
    "tls_server_config.client_allowed_sans",
    "tls_server_config.min_version",
    "tls_server_config.max_version",
    "tls_server_config.cipher_suites",
    "tls_server_config.prefer_server_cipher_suites",
    "tls_server_config.curve_preferences",
    "http_server_config.http2",
    "http_server_config.headers.Strict-Transport-Security",
    "http_server_config.headers.X-Content-Type-Options",
    "http_server_config.headers.X-Frame-Options",
    "http_server_config.headers.X-XSS-Protection",
    "http_server_config.headers.Content-Security-Policy",
    "basic_auth_users",
    "rate_limit",
];

/// Accepted costs of a bcrypt hash. The minimum that bcrypt allows is 4. Each step doubles the duration of a check. At
/// cost 16, a check takes a few seconds. At a higher cost, the first scrape could time out.
const COSTS: std::ops::RangeInclusive<u32> = 4..=16;

/// Headers that can be set, with their allowed values. If no values are listed, any value is allowed.
const HEADERS: &[(&str, &[&str])] = &[
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];

/// A parsed web configuration.
#[derive(Debug)]
pub(super) struct WebSettings {
    /// `None` for plain HTTP.
    pub(super) tls: Option<Tls>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Names and bcrypt hashes; if empty, no password is required.
    pub(super) users: Vec<(String, Secret)>,
}

/// TLS settings.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) certificate: PemSetting,
    pub(super) key: PemSetting,
    pub(super) client_auth: ClientAuth,
    pub(super) client_authorities: Option<PemSetting>,
    /// If not empty, a client certificate must contain one of these names.
    pub(super) client_names: Vec<String>,
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    pub(super) cipher_suites: Vec<SupportedCipherSuite>,
    pub(super) groups: Vec<&'static dyn SupportedKxGroup>,
    pub(super) prefer_own_order: bool,
}

/// Requirements for client certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientAuth {
    None,
    Request,
    RequireAny,
    VerifyIfGiven,
    RequireAndVerify,
}

impl ClientAuth {
    /// Returns whether a client certificate is required.
    pub(super) fn is_mandatory(self) -> bool {
        matches!(self, Self::RequireAny | Self::RequireAndVerify)
    }

    /// Returns whether every client must have a certificate signed by one of the authorities.
    pub(super) fn verifies_all(self) -> bool {
        self == Self::RequireAndVerify
    }

    /// Returns whether certificates must be signed by one of the authorities.
    pub(super) fn verifies(self) -> bool {
        matches!(self, Self::VerifyIfGiven | Self::RequireAndVerify)
    }
}

/// PEM text, given inline or in a file.
#[derive(Debug)]
pub(super) struct PemSetting {
    pub(super) location: String,
    pub(super) key: String,
    pub(super) source: PemSource,
}

#[derive(Debug)]
pub(super) enum PemSource {
    File(PathBuf),
    Inline(Secret),
}

impl PemSetting {
    pub(super) fn read(&self) -> Result<Secret, Error> {
        match &self.source {
            PemSource::Inline(pem) => Ok(pem.clone()),
            PemSource::File(path) => text_file::read_regular(path, FILE_LIMIT)
                .map(Secret::from)
                .map_err(|error| self.error(error_chain(&error))),
        }
    }

    /// Returns an error for unusable PEM text. If the text is in a file, the error contains the path.
    pub(super) fn unusable(&self, problem: impl AsRef<str>) -> Error {
        let problem = problem.as_ref();
        self.error(match &self.source {
            PemSource::File(path) => format!("{}: {problem}", path.display()),
            PemSource::Inline(_) => problem.to_owned(),
        })
    }

    fn error(&self, problem: String) -> Error {
        Error::Value {
            location: self.location.clone(),
            key: self.key.clone(),
            problem,
        }
    }
}

impl WebSettings {
    /// Parses the text of `file`. Paths in the text are relative to the file's directory.
    pub(super) fn parse(file: &Path, text: &str) -> Result<Self, Error> {
        let document = parse(file, text)?;
        let root = Field::root(&document);
        reject_unknown_keys(&root, KEYS)?;
        if let Some(limit) = root.at("rate_limit") {
            return Err(limit.error("is not supported; use a reverse proxy to limit requests"));
        }
        let directory = file.parent().unwrap_or(Path::new(""));
        let tls = root.entry("tls_server_config");
        Ok(Self {
            tls: tls.map(|section| Tls::read(&section, directory)).transpose()?,
            headers: root.read("http_server_config", http)?.unwrap_or_default(),
            users: root.read("basic_auth_users", users)?.unwrap_or_default(),
        })
    }
}

impl Tls {
    fn read(section: &Field<'_>, directory: &Path) -> Result<Self, Error> {
        if section.is_empty() {
            // An empty section is incomplete; it does not mean plain HTTP.
            return Err(section.error("is empty; expected cert_file and key_file (for plain HTTP, remove the section)"));
        }
        let pem = |file, inline| pem_setting(section, file, inline, directory);
        let missing = |name, other| {
            section.missing_key_error(
                name,
                &format!("is required for TLS, unless {other} is set; for plain HTTP, remove the section"),
            )
        };
        let client_auth = section.read("client_auth_type", client_auth)?;
        let client_authorities = pem("client_ca_file", "client_ca")?;
        let names = section.at("client_allowed_sans");
        let client_auth = consistent_client_auth(section, client_auth, client_authorities.as_ref(), names.as_ref())?;
        let (cipher_suites, versions) = suites_and_versions(section)?;
        Ok(Self {
            client_names: names.map_or(Ok(Vec::new()), |names| client_names(&names))?,
            groups: section
                .read("curve_preferences", groups)?
                .filter(|groups| !groups.is_empty())
                .unwrap_or_else(|| ring::DEFAULT_KX_GROUPS.to_vec()),
            prefer_own_order: section.read("prefer_server_cipher_suites", boolean)?.unwrap_or(true),
            certificate: pem("cert_file", "cert")?.ok_or_else(|| missing("cert_file", "cert"))?,
            key: pem("key_file", "key")?.ok_or_else(|| missing("key_file", "key"))?,
            client_auth,
            client_authorities,
            versions,
            cipher_suites,
        })
    }
}

fn pem_setting(section: &Field<'_>, file: &str, inline: &str, directory: &Path) -> Result<Option<PemSetting>, Error> {
    let (field, source) = match (section.at(file), section.at(inline)) {
        (Some(_), Some(field)) => return Err(field.conflict(file)),
        (Some(field), None) => {
            let path = directory.join(field.text()?);
            (field, PemSource::File(path))
        }
        (None, Some(field)) => {
            let pem = field.clone().secret().secret_text()?;
            (field, PemSource::Inline(pem))
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(PemSetting {
        location: field.location().to_owned(),
        key: field.key().to_owned(),
        source,
    }))
}

fn client_auth(field: &Field<'_>) -> Result<ClientAuth, Error> {
    field.choice(&[
        ("NoClientCert", ClientAuth::None),
        ("RequestClientCert", ClientAuth::Request),
        ("RequireAnyClientCert", ClientAuth::RequireAny),
        ("VerifyClientCertIfGiven", ClientAuth::VerifyIfGiven),
        ("RequireAndVerifyClientCert", ClientAuth::RequireAndVerify),
        // The toolkit still accepts this older name for RequireAnyClientCert.
        ("RequireClientCert", ClientAuth::RequireAny),
    ])
}

/// Returns the requirements for client certificates.
///
/// # Errors
/// Returns an error if the three keys for client certificates contradict each other.
fn consistent_client_auth(
    section: &Field<'_>,
    client_auth: Option<ClientAuth>,
    authorities: Option<&PemSetting>,
    names: Option<&Field<'_>>,
) -> Result<ClientAuth, Error> {
    let client_auth = client_auth.unwrap_or(ClientAuth::None);
    if client_auth.verifies() && authorities.is_none() {
        let problem = "is required to verify client certificates, unless client_ca is set";
        return Err(section.missing_key_error("client_ca_file", problem));
    }
    match (authorities, names) {
        (Some(authorities), _) if client_auth == ClientAuth::None => Err(Error::Value {
            location: authorities.location.clone(),
            key: authorities.key.clone(),
            problem: "has no effect, because client certificates are not requested; set client_auth_type to \
                      RequireAndVerifyClientCert"
                .to_owned(),
        }),
        (_, Some(names)) if !client_auth.is_mandatory() => Err(names.error(
            "requires the client_auth_type RequireAndVerifyClientCert or RequireAnyClientCert; \
             otherwise, a client without a certificate would be accepted",
        )),
        _ => Ok(client_auth),
    }
}

fn client_names(field: &Field<'_>) -> Result<Vec<String>, Error> {
    let names: Vec<String> = field
        .items()?
        .iter()
        .map(|item| item.text().map(str::to_owned))
        .collect::<Result<_, _>>()?;
    if names.is_empty() {
        return Err(field.error("is an empty list, which no certificate could match; add a name, or remove the key"));
    }
    Ok(names)
}

/// Returns the cipher suites, and the TLS versions that have at least one suite. As in the toolkit, the TLS 1.3 suites
/// are fixed.
fn suites_and_versions(
    section: &Field<'_>,
) -> Result<(Vec<SupportedCipherSuite>, Vec<&'static SupportedProtocolVersion>), Error> {
    let min = section.read("min_version", version)?.unwrap_or(&TLS12);
    let max = section.read("max_version", version)?.unwrap_or(&TLS13);
    let number = |version: &SupportedProtocolVersion| u16::from(version.version);
    if number(min) > number(max) {
        return Err(section.missing_key_error(
            "min_version",
            "is above max_version; expected the same or a lower version",
        ));
    }
    let mut versions = vec![&TLS12, &TLS13];
    versions.retain(|version| (number(min)..=number(max)).contains(&number(version)));

    let chosen = section.at("cipher_suites");
    let suites = match &chosen {
        Some(field) => cipher_suites(field)?,
        None => Vec::new(),
    };
    if suites.is_empty() {
        return Ok((ring::DEFAULT_CIPHER_SUITES.to_vec(), versions));
    }
    let is_of = |version: &SupportedProtocolVersion, suite: &SupportedCipherSuite| suite.version() == version;
    versions.retain(|version| **version == TLS13 || suites.iter().any(|suite| is_of(version, suite)));
    match chosen {
        Some(field) if versions.is_empty() => {
            Err(field.error("lists no cipher suite for TLS 1.2, although max_version is TLS12; expected at least one"))
        }
        _ => {
            let fixed = ring::ALL_CIPHER_SUITES
                .iter()
                .filter(|suite| is_of(&TLS13, suite))
                .copied();
            let chosen = suites.into_iter().filter(|suite| is_of(&TLS12, suite));
            Ok((fixed.chain(chosen).collect(), versions))
        }
    }
}

fn version(field: &Field<'_>) -> Result<&'static SupportedProtocolVersion, Error> {
    if let "TLS10" | "TLS11" = field.text()? {
        return Err(field.invalid("is insecure and not supported; expected TLS12 or TLS13"));
    }
    field.choice(&[("TLS12", &TLS12), ("TLS13", &TLS13)])
}

fn cipher_suites(field: &Field<'_>) -> Result<Vec<SupportedCipherSuite>, Error> {
    let known: Vec<(String, SupportedCipherSuite)> = ring::ALL_CIPHER_SUITES
        .iter()
        .filter_map(|suite| {
            // In rustls, the names of TLS 1.3 suites have a prefix that differs from the one in the toolkit and the
            // IANA registry.
            let name = suite.suite().as_str()?.replace("TLS13_", "TLS_");
            Some((name, *suite))
        })
        .collect();
    let known: Vec<(&str, SupportedCipherSuite)> = known.iter().map(|(name, suite)| (name.as_str(), *suite)).collect();
    field.items()?.iter().map(|item| item.choice(&known)).collect()
}

fn groups(field: &Field<'_>) -> Result<Vec<&'static dyn SupportedKxGroup>, Error> {
    let known: [(&str, &'static dyn SupportedKxGroup); 3] = [
        ("X25519", ring::kx_group::X25519),
        ("CurveP256", ring::kx_group::SECP256R1),
        ("CurveP384", ring::kx_group::SECP384R1),
    ];
    field.items()?.iter().map(|item| item.choice(&known)).collect()
}

fn boolean(field: &Field<'_>) -> Result<bool, Error> {
    // The toolkit reads YAML 1.1, which also has these booleans.
    match field.raw_text().unwrap_or_default().to_lowercase().as_str() {
        "yes" | "on" | "y" => Ok(true),
        "no" | "off" | "n" => Ok(false),
        _ => field.boolean(),
    }
}

fn http(section: &Field<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, Error> {
    // The value must be a boolean but has no effect: the server always uses HTTP/1.1.
    section.read("http2", boolean)?;
    let Some(headers) = section.at("headers") else {
        return Ok(Vec::new());
    };
    HEADERS
        .iter()
        .filter_map(|(name, values)| Some((name, values, headers.at(name)?)))
        .filter_map(|(name, values, field)| header(name, values, &field).transpose())
        .collect()
}

/// Parses a header. Returns `None` if its value is blank; the header then stays unset.
fn header(name: &str, values: &[&str], field: &Field<'_>) -> Result<Option<(HeaderName, HeaderValue)>, Error> {
    let value = field.raw_text()?.trim();
    if value.is_empty() {
        return Ok(None);
    }
    if !values.is_empty() && !values.contains(&value) {
        return Err(field.invalid(format!("is not allowed; expected {}", values.join(" or "))));
    }
    match (HeaderName::from_str(name), HeaderValue::from_str(value)) {
        (Ok(name), Ok(value)) => Ok(Some((name, value))),
        _ => Err(field.invalid("cannot be sent as a header; expected one line of ASCII characters")),
    }
}

fn users(section: &Field<'_>) -> Result<Vec<(String, Secret)>, Error> {
    let entries = section.entries()?.into_iter();
    entries.map(|(name, field)| user(name, &field.secret())).collect()
}

fn user(name: &str, field: &Field<'_>) -> Result<(String, Secret), Error> {
    if name.contains(':') {
        return Err(
            field.error("contains a colon, which basic authentication does not allow; expected a name without one")
        );
    }
    let hash = field.raw_text()?;
    let parts = bcrypt::HashParts::from_str(hash).map_err(|_| {
        field.error(
            "is not a bcrypt hash; expected the output of htpasswd -nBC 10 \"\" | tr -d ':\\n', which begins with $2y$",
        )
    })?;
    if !COSTS.contains(&parts.get_cost()) {
        return Err(field.error(format!(
            "has a cost of {}; expected a cost from {} to {}",
            parts.get_cost(),
            COSTS.start(),
            COSTS.end()
        )));
    }
    Ok((name.to_owned(), Secret::from(hash)))
}

#[cfg(test)]
mod tests;
