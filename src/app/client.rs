//! Builds the API client from the configuration, and keeps as much of the client's state as possible across reloads.

use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::Error;
use crate::api::auth::TokenSource;
use crate::api::client::ApiClient;
use crate::api::credential::{Credential, CredentialError};
use crate::api::exchange::{http_client, plain_http_client};
use crate::api::rate_limiter::RequestLimits;
use crate::api::transport::{Transport, TransportSettings};
use crate::api::{Generation, Observer};
use crate::collector::{PerCollector, Plan};
use crate::config::{self, Config};
use crate::domain::Gigabyte;
use crate::error_chain::error_chain;
use crate::secret::SecretSource;
use crate::text_file;

/// All inputs of a client. A reload that leaves all inputs unchanged keeps the client, including its tokens, missing
/// permissions, pauses and requests in flight.
#[derive(Clone, PartialEq)]
pub(super) struct ClientSource {
    api: config::Api,
    client_id: String,
    credential: config::Credential,
    authorities: Vec<CertificateDer<'static>>,
    /// OAuth scopes of the enabled collectors, first for v3 and then for v1.
    scopes: [Vec<&'static str>; 2],
}

impl ClientSource {
    /// Collects the inputs from the configuration, and reads `api.ca_file` if it is set.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or contains an invalid certificate.
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            api: config::Api {
                // The client does not depend on this key.
                gigabyte: Gigabyte::default(),
                ..config.api.clone()
            },
            client_id: config.auth.client_id.clone(),
            credential: config.auth.credential.clone(),
            authorities: authorities(config.api.ca_file.as_deref())?,
            scopes: [Generation::V3, Generation::V1].map(|generation| scopes(&config.plans, generation)),
        })
    }

    /// Returns the `earlier` client if its inputs are equal. Otherwise returns a new client, which takes over the state
    /// that is still valid.
    ///
    /// # Errors
    /// Returns an error if the inputs are invalid.
    pub(super) fn client(
        &self,
        observer: Arc<dyn Observer>,
        earlier: Option<&(Self, Arc<ApiClient>)>,
    ) -> Result<Arc<ApiClient>, Error> {
        match earlier {
            Some((source, client)) if source == self => Ok(Arc::clone(client)),
            Some((source, client)) => {
                let new = self.build(observer)?;
                if self.has_identity_of(source) {
                    new.transport().tokens().carry_over(client.transport().tokens());
                    if self.api.version == source.api.version && self.api.base_url == source.api.base_url {
                        new.carry_over(client);
                    }
                }
                Ok(Arc::new(new))
            }
            None => self.build(observer).map(Arc::new),
        }
    }

    /// Returns whether the tokens of another client are valid for this client.
    fn has_identity_of(&self, other: &Self) -> bool {
        self.client_id == other.client_id
            && self.credential == other.credential
            && self.api.token_url == other.api.token_url
    }

    fn build(&self, observer: Arc<dyn Observer>) -> Result<ApiClient, Error> {
        // Fails harmlessly if a provider is already installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let api = &self.api;
        let proxy = api.proxy_url.as_ref().map(config::ProxyUrl::expose);
        let mut urls = [&api.base_url, &api.token_url].into_iter().chain(proxy);
        let cause = |error: reqwest::Error| {
            let error = error.without_url();
            error.source().map_or_else(|| error.to_string(), error_chain)
        };
        // The demo must run without certificate authorities, for example in an empty container image.
        let client = if urls.any(|url| url.scheme() == "https") {
            http_client(api.timeout, proxy, &self.authorities).map_err(|error| Error::InvalidFile {
                key: "api.ca_file",
                problem: format!(
                    "cannot set up HTTPS: {}; expected certificate authorities on the system or in api.ca_file",
                    cause(error)
                ),
            })?
        } else {
            plain_http_client(api.timeout, proxy).map_err(|error| Error::InvalidFile {
                key: "api.proxy_url",
                problem: cause(error),
            })?
        };
        let tokens = TokenSource::new(
            client.clone(),
            api.token_url.clone(),
            self.client_id.clone(),
            credential(&self.credential)?,
            api.timeout,
            self.scopes.to_vec(),
            Arc::clone(&observer),
        );
        let settings = TransportSettings {
            base_url: api.base_url.clone(),
            timeout: api.timeout,
            limits: RequestLimits {
                requests_per_second: api.requests_per_second,
                max_concurrency: api.max_concurrency,
            },
        };
        let transport = Transport::new(client, Arc::new(tokens), settings, observer, None);
        Ok(ApiClient::new(transport, api.version, &api.v1_base_path))
    }
}

/// Returns the OAuth scopes of the enabled collectors, without duplicates.
pub(super) fn scopes(plans: &PerCollector<Plan>, generation: Generation) -> Vec<&'static str> {
    let mut scopes: Vec<&'static str> = Vec::new();
    let enabled = plans.iter().filter(|(_, plan)| plan.enabled);
    for scope in enabled.filter_map(|(collector, _)| collector.descriptor().scope(generation)) {
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    scopes
}

/// Maximum size of a file with certificate authorities. A file with all authorities that browsers trust is smaller than
/// a megabyte.
const MAX_CA_FILE_BYTES: u64 = 4 << 20;

/// Reads a file with certificate authorities. Returns an empty list if none is configured.
pub(super) fn authorities(file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, Error> {
    const KEY: &str = "api.ca_file";
    let Some(file) = file else { return Ok(Vec::new()) };
    let problem = |problem: String| Error::InvalidFile {
        key: KEY,
        problem: format!("{}: {problem}", file.display()),
    };
    let pem = text_file::read_bytes(file, MAX_CA_FILE_BYTES).map_err(|error| Error::InvalidFile {
        key: KEY,
        problem: error_chain(&error),
    })?;
    // In concatenated files, each part may begin with a byte order mark.
    let pem = text_file::without_marks(&pem);
    let mut certificates = Vec::new();
    for (number, der) in (1..).zip(CertificateDer::pem_slice_iter(&pem)) {
        let unusable = |error: &dyn std::error::Error| problem(format!("certificate {number}: {}", error_chain(error)));
        let der = der.map_err(|error| unusable(&error))?;
        // The HTTP client performs the same check, but its error names neither the file nor the certificate.
        let mut store = rustls::RootCertStore::empty();
        store.add(der.clone()).map_err(|error| unusable(&error))?;
        certificates.push(der.into_owned());
    }
    if certificates.is_empty() {
        return Err(problem("contains no certificate; expected PEM".to_owned()));
    }
    let announced = pem
        .windows(BEGIN_CERTIFICATE.len())
        .filter(|window| *window == BEGIN_CERTIFICATE)
        .count();
    if announced != certificates.len() {
        let read = certificates.len();
        return Err(problem(format!(
            "contains {announced} certificates, of which {read} can be read; each must begin on a new line"
        )));
    }
    Ok(certificates)
}

const BEGIN_CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

fn credential(configured: &config::Credential) -> Result<Credential, Error> {
    let material = |key| {
        move |error: CredentialError| Error::InvalidFile {
            key,
            problem: error_chain(&error),
        }
    };
    match configured {
        config::Credential::Secret(secret) => {
            Credential::secret(secret.clone()).map_err(material("auth.client_secret"))
        }
        config::Credential::SecretFile(path) => {
            Credential::secret_file(path).map_err(material("auth.client_secret_file"))
        }
        config::Credential::Certificate {
            file,
            private_key,
            password,
        } => Credential::certificate(file, private_key.as_deref(), password.clone()).map_err(|error| {
            let unreadable = match &error {
                CredentialError::File(error) => Some(error.path()),
                _ => None,
            };
            let key = match (unreadable, password) {
                (Some(path), Some(SecretSource::File(password))) if path == password => {
                    "auth.certificate_password_file"
                }
                (Some(path), _) if Some(path) == private_key.as_deref() => "auth.private_key_file",
                _ => "auth.certificate_file",
            };
            material(key)(error)
        }),
    }
}
