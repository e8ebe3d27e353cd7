//! Builds the TLS configuration from the settings and the PEM contents.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};

use super::client_certificate::ClientCertificateVerifier;
use super::settings::{ClientAuth, PemSetting, Tls};
use crate::secret::Secret;
use crate::settings::Error;

/// Contents of the PEM settings.
pub(super) struct Pem {
    certificate: Secret,
    key: Secret,
    client_authorities: Option<Secret>,
}

impl Pem {
    pub(super) fn read(settings: &Tls) -> Result<Self, Error> {
        Ok(Self {
            certificate: settings.certificate.read()?,
            key: settings.key.read()?,
            client_authorities: settings.client_authorities.as_ref().map(PemSetting::read).transpose()?,
        })
    }

    /// Returns all contents in a fixed order.
    pub(super) fn parts(&self) -> impl Iterator<Item = &str> {
        let authorities = self.client_authorities.as_ref();
        [&self.certificate, &self.key]
            .into_iter()
            .chain(authorities)
            .map(Secret::expose)
    }
}

/// Returns the server's TLS configuration.
pub(super) fn server_config(settings: &Tls, pem: &Pem) -> Result<ServerConfig, Error> {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: settings.cipher_suites.clone(),
        kx_groups: settings.groups.clone(),
        ..ring::default_provider()
    });
    let unusable = |error: rustls::Error| settings.certificate.unusable(error.to_string());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&settings.versions)
        .map_err(unusable)?;
    let builder = match client_verifier(settings, pem, &provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let certified = certified_key(settings, pem, &provider)?;
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.ignore_client_order = settings.prefer_own_order;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certified_key(settings: &Tls, pem: &Pem, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
    let chain = certificates(&settings.certificate, &pem.certificate)?;
    let text = pem.key.expose();
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| {
        settings.key.unusable(if text.contains("ENCRYPTED") {
            "contains an encrypted key; expected one without a passphrase"
        } else {
            "contains no private key; expected one in PEM format"
        })
    })?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => settings
            .key
            .unusable("does not belong to the certificate; expected a matching pair"),
        rustls::Error::InvalidCertificate(_) => settings.certificate.unusable(error.to_string()),
        error => settings.key.unusable(error.to_string()),
    })
}

fn client_verifier(
    settings: &Tls,
    pem: &Pem,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, Error> {
    if settings.client_auth == ClientAuth::None {
        return Ok(None);
    }
    let chain = match (&settings.client_authorities, &pem.client_authorities) {
        (Some(pem_setting), Some(pem)) if settings.client_auth.verifies() => {
            Some(chain_verifier(pem_setting, pem, provider)?)
        }
        _ => None,
    };
    Ok(Some(Arc::new(ClientCertificateVerifier {
        mandatory: settings.client_auth.is_mandatory(),
        chain,
        names: settings.client_names.clone(),
        provider: Arc::clone(provider),
    })))
}

fn chain_verifier(
    pem_setting: &PemSetting,
    pem: &Secret,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem_setting, pem)? {
        roots
            .add(certificate)
            .map_err(|error| pem_setting.unusable(error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| pem_setting.unusable(error.to_string()))
}

fn certificates(pem_setting: &PemSetting, pem: &Secret) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem.expose().as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| pem_setting.unusable("contains a damaged certificate; expected valid PEM"))?;
    if certificates.is_empty() {
        return Err(pem_setting.unusable("contains no certificate; expected one in PEM format"));
    }
    Ok(certificates)
}
