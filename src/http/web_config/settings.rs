//! A web configuration as types, before any file that it names is read.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use axum::http::{HeaderName, HeaderValue};
use rustls::crypto::{SupportedKxGroup, ring};
use rustls::version::{TLS12, TLS13};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

use super::document;
use super::error::{Error, Place};
use super::section::{Field, RATE_LIMIT, Section};
use crate::secret::Secret;

/// The largest file that is read, in bytes: the web configuration, which is a page or two, and chains of certificates,
/// which may be long. A path that names a device must not fill the memory.
const FILE_LIMIT: u64 = 1 << 20;

/// The costs of a bcrypt hash that are accepted. Below 4 there is no bcrypt. Each step doubles the time, and past 16, which
/// is some seconds, the first scrape would outlast its timeout.
const COSTS: std::ops::RangeInclusive<u32> = 4..=16;

/// The headers that can be set, and the values that each of them can take; any where there is none.
const HEADERS: &[(&str, &[&str])] = &[
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];

/// What a web configuration says.
#[derive(Debug)]
pub(super) struct Settings {
    /// `None` for plain HTTP.
    pub(super) tls: Option<Tls>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Names and bcrypt hashes; none where anybody may come in.
    pub(super) users: Vec<(String, Secret)>,
}

/// How TLS is to be served.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) certificate: Material,
    pub(super) key: Material,
    pub(super) client_auth: ClientAuth,
    pub(super) client_authorities: Option<Material>,
    /// One of these names has to be in a client's certificate, where there are any.
    pub(super) client_names: Vec<String>,
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    pub(super) cipher_suites: Vec<SupportedCipherSuite>,
    pub(super) groups: Vec<&'static dyn SupportedKxGroup>,
    pub(super) prefer_own_order: bool,
}

/// What is asked of a client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientAuth {
    None,
    Request,
    RequireAny,
    VerifyIfGiven,
    RequireAndVerify,
}

impl ClientAuth {
    /// Whether nobody comes in without a certificate.
    pub(super) fn is_mandatory(self) -> bool {
        matches!(self, Self::RequireAny | Self::RequireAndVerify)
    }

    /// Whether whoever comes in is known by a certificate that one of the authorities signed.
    pub(super) fn identifies(self) -> bool {
        self == Self::RequireAndVerify
    }

    /// Whether a certificate has to be signed by one of the authorities.
    pub(super) fn verifies(self) -> bool {
        matches!(self, Self::VerifyIfGiven | Self::RequireAndVerify)
    }
}

/// PEM that the configuration holds or names.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) place: Place,
    pub(super) key: String,
    pub(super) source: Source,
}

#[derive(Debug)]
pub(super) enum Source {
    File(PathBuf),
    Inline(Secret),
}

impl Material {
    /// The PEM as it is now.
    pub(super) fn read(&self) -> Result<Secret, Error> {
        match &self.source {
            Source::Inline(pem) => Ok(pem.clone()),
            Source::File(path) => read(path).map(Secret::from).map_err(|error| match error {
                Error::Read { source, .. } => self.unusable(source.to_string()),
                _ => self.unusable(format!("is larger than {FILE_LIMIT} bytes")),
            }),
        }
    }

    pub(super) fn unusable(&self, problem: impl Into<String>) -> Error {
        Error::Material {
            place: self.place.clone(),
            key: self.key.clone(),
            file: match &self.source {
                Source::File(path) => Some(path.clone()),
                Source::Inline(_) => None,
            },
            problem: problem.into(),
        }
    }
}

/// The text of a file.
pub(super) fn read(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(FILE_LIMIT + 1).read_to_string(&mut text))
        .map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
    if u64::try_from(text.len()).is_ok_and(|length| length <= FILE_LIMIT) {
        Ok(text)
    } else {
        Err(Error::TooLarge {
            path: path.to_owned(),
            limit: FILE_LIMIT,
        })
    }
}

impl Settings {
    /// Reads the text of `file`; the paths in it are relative to its directory.
    pub(super) fn parse(file: &Path, text: &str) -> Result<Self, Error> {
        let document = document::parse(text).map_err(|error| Error::Syntax {
            place: Place {
                path: file.to_owned(),
                line: error.line,
            },
            message: error.message,
        })?;
        let root = Section::root(file, &document)?;
        if let Some(limit) = root.get(RATE_LIMIT) {
            return Err(
                limit.invalid("is not supported; a scrape costs little here, and a proxy in front can limit more")
            );
        }
        let directory = file.parent().unwrap_or(Path::new(""));
        let tls = root.section("tls_server_config")?;
        if tls.is_none()
            && let Some(empty) = root.fields().find(|field| field.name == "tls_server_config")
        {
            // Whoever begins to write it does not expect to be served in the open.
            return Err(empty.invalid("holds nothing; expected cert_file and key_file, or no such section"));
        }
        Ok(Self {
            tls: tls.map(|section| Tls::read(&section, directory)).transpose()?,
            headers: root
                .section("http_server_config")?
                .map_or(Ok(Vec::new()), |section| http(&section))?,
            users: root
                .free_section("basic_auth_users")?
                .map_or(Ok(Vec::new()), |section| {
                    section.fields().map(|field| user(&field)).collect()
                })?,
        })
    }
}

impl Tls {
    fn read(section: &Section<'_>, directory: &Path) -> Result<Self, Error> {
        let material = |file, inline| material(section, file, inline, directory);
        let wanted = |name, other| {
            section.lacks(
                name,
                format!("is required for TLS, or {other} in its place; for plain HTTP leave the section out"),
            )
        };
        let client_auth = section.read("client_auth_type", client_auth)?;
        let client_authorities = material("client_ca_file", "client_ca")?;
        let names = section.get("client_allowed_sans");
        let client_auth = agreed(section, client_auth, client_authorities.as_ref(), names.as_ref())?;
        let (cipher_suites, versions) = suites_and_versions(section)?;
        Ok(Self {
            client_names: names.map_or(Ok(Vec::new()), |names| client_names(&names))?,
            groups: section
                .read("curve_preferences", groups)?
                .filter(|groups| !groups.is_empty())
                .unwrap_or_else(|| ring::DEFAULT_KX_GROUPS.to_vec()),
            prefer_own_order: section
                .read("prefer_server_cipher_suites", Field::boolean)?
                .unwrap_or(true),
            certificate: material("cert_file", "cert")?.ok_or_else(|| wanted("cert_file", "cert"))?,
            key: material("key_file", "key")?.ok_or_else(|| wanted("key_file", "key"))?,
            client_auth,
            client_authorities,
            versions,
            cipher_suites,
        })
    }
}

fn material(section: &Section<'_>, file: &str, inline: &str, directory: &Path) -> Result<Option<Material>, Error> {
    let (field, source) = match (section.get(file), section.get(inline)) {
        (Some(_), Some(field)) => return Err(field.invalid(format!("excludes {file}; set only one of them"))),
        (Some(field), None) => {
            let path = directory.join(field.some_text()?);
            (field, Source::File(path))
        }
        (None, Some(field)) => {
            let pem = Secret::from(field.some_text()?);
            (field, Source::Inline(pem))
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(Material {
        place: field.place(),
        key: field.key,
        source,
    }))
}

fn client_auth(field: &Field<'_>) -> Result<ClientAuth, Error> {
    choice(
        field,
        &[
            ("NoClientCert", ClientAuth::None),
            ("RequestClientCert", ClientAuth::Request),
            ("RequireAnyClientCert", ClientAuth::RequireAny),
            ("VerifyClientCertIfGiven", ClientAuth::VerifyIfGiven),
            ("RequireAndVerifyClientCert", ClientAuth::RequireAndVerify),
            // An older name of RequireAnyClientCert, which the toolkit still takes.
            ("RequireClientCert", ClientAuth::RequireAny),
        ],
    )
}

/// What is asked of clients, once what is said of it in three places agrees.
fn agreed(
    section: &Section<'_>,
    wanted: Option<ClientAuth>,
    authorities: Option<&Material>,
    names: Option<&Field<'_>>,
) -> Result<ClientAuth, Error> {
    let wanted = wanted.unwrap_or(ClientAuth::None);
    if wanted.verifies() && authorities.is_none() {
        let problem = "is required, or client_ca in its place, to verify certificates of clients";
        return Err(section.lacks("client_ca_file", problem));
    }
    match (authorities, names) {
        (Some(authorities), _) if wanted == ClientAuth::None => Err(Error::Invalid {
            place: authorities.place.clone(),
            key: authorities.key.clone(),
            problem: "is of no use without client_auth_type; expected RequireAndVerifyClientCert there".to_owned(),
        }),
        (_, Some(names)) if !wanted.is_mandatory() => Err(names.invalid(
            "needs client_auth_type to be RequireAndVerifyClientCert or RequireAnyClientCert; \
             otherwise a client without a certificate would pass",
        )),
        _ => Ok(wanted),
    }
}

fn client_names(field: &Field<'_>) -> Result<Vec<String>, Error> {
    let names: Vec<String> = field
        .items()?
        .iter()
        .map(|item| item.some_text().map(str::to_owned))
        .collect::<Result<_, _>>()?;
    if names.is_empty() {
        return Err(field.invalid("is an empty list, which no client could satisfy; leave the key out"));
    }
    Ok(names)
}

/// The suites on offer, and the versions that have any. Those of TLS 1.3 cannot be chosen, as in the toolkit.
fn suites_and_versions(
    section: &Section<'_>,
) -> Result<(Vec<SupportedCipherSuite>, Vec<&'static SupportedProtocolVersion>), Error> {
    let least = section.read("min_version", version)?.unwrap_or(&TLS12);
    let most = section.read("max_version", version)?.unwrap_or(&TLS13);
    let number = |version: &SupportedProtocolVersion| u16::from(version.version);
    if number(least) > number(most) {
        return Err(section.lacks("min_version", "is above max_version; expected at most that"));
    }
    let mut versions = vec![&TLS12, &TLS13];
    versions.retain(|version| (number(least)..=number(most)).contains(&number(version)));

    let chosen = section.get("cipher_suites");
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
        Some(field) if versions.is_empty() => Err(field.invalid("names no suite of TLS 1.2, and max_version is TLS12")),
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
    if let "TLS10" | "TLS11" = field.some_text()? {
        return Err(field.refused("is broken and not implemented here; expected TLS12 or TLS13"));
    }
    choice(field, &[("TLS12", &TLS12), ("TLS13", &TLS13)])
}

fn cipher_suites(field: &Field<'_>) -> Result<Vec<SupportedCipherSuite>, Error> {
    let known: Vec<(String, SupportedCipherSuite)> = ring::ALL_CIPHER_SUITES
        .iter()
        .filter_map(|suite| {
            // rustls marks the suites of TLS 1.3 in a way that the toolkit and the registry of names do not.
            let name = suite.suite().as_str()?.replace("TLS13_", "TLS_");
            Some((name, *suite))
        })
        .collect();
    let known: Vec<(&str, SupportedCipherSuite)> = known.iter().map(|(name, suite)| (name.as_str(), *suite)).collect();
    field.items()?.iter().map(|item| choice(item, &known)).collect()
}

fn groups(field: &Field<'_>) -> Result<Vec<&'static dyn SupportedKxGroup>, Error> {
    let known: [(&str, &'static dyn SupportedKxGroup); 3] = [
        ("X25519", ring::kx_group::X25519),
        ("CurveP256", ring::kx_group::SECP256R1),
        ("CurveP384", ring::kx_group::SECP384R1),
    ];
    field.items()?.iter().map(|item| choice(item, &known)).collect()
}

fn choice<T: Copy>(field: &Field<'_>, choices: &[(&str, T)]) -> Result<T, Error> {
    let written = field.text().unwrap_or_default();
    let found = choices.iter().find(|(name, _)| *name == written);
    found.map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        field.refused(format!("is not one of the choices; expected {}", names.join(", ")))
    })
}

fn http(section: &Section<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, Error> {
    // HTTP/1.1 is served either way; the value only has to be one.
    section.read("http2", Field::boolean)?;
    let Some(headers) = section.section("headers")? else {
        return Ok(Vec::new());
    };
    HEADERS
        .iter()
        .filter_map(|(name, values)| Some((name, values, headers.get(name)?)))
        .filter_map(|(name, values, field)| header(name, values, &field).transpose())
        .collect()
}

/// The header; `None` where its value is blank, which leaves it unset.
fn header(name: &str, values: &[&str], field: &Field<'_>) -> Result<Option<(HeaderName, HeaderValue)>, Error> {
    let value = field.text()?.trim();
    if value.is_empty() {
        return Ok(None);
    }
    if !values.is_empty() && !values.contains(&value) {
        return Err(field.refused(format!("is not one of the choices; expected {}", values.join(", "))));
    }
    match (HeaderName::from_str(name), HeaderValue::from_str(value)) {
        (Ok(name), Ok(value)) => Ok(Some((name, value))),
        _ => Err(field.refused("cannot be sent as a header; expected one line")),
    }
}

fn user(field: &Field<'_>) -> Result<(String, Secret), Error> {
    if field.name.contains(':') {
        return Err(field.invalid("is a name with a colon, which basic auth cannot send; expected one without"));
    }
    let hash = field.text()?;
    let parts = bcrypt::HashParts::from_str(hash).map_err(|_| {
        field.invalid(
            "is not a bcrypt hash; expected the output of htpasswd -nBC 10 \"\" | tr -d ':\\n', which begins with $2y$",
        )
    })?;
    if !COSTS.contains(&parts.get_cost()) {
        return Err(field.invalid(format!(
            "has the cost {}; expected one from {} to {}",
            parts.get_cost(),
            COSTS.start(),
            COSTS.end()
        )));
    }
    Ok((field.name.to_owned(), Secret::from(hash)))
}

#[cfg(test)]
mod tests;
