//! TLS configuration from the settings, with the certificates and the key that were read.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};

use super::client_certificate::Verifier;
use super::settings::{ClientAuth, Material, Tls};
use crate::secret::Secret;
use crate::settings::Error;

/// PEM that the settings contain or name, as read once.
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
            client_authorities: settings.client_authorities.as_ref().map(Material::read).transpose()?,
        })
    }

    /// All of it, in a fixed order.
    pub(super) fn parts(&self) -> impl Iterator<Item = &str> {
        let authorities = self.client_authorities.as_ref();
        [&self.certificate, &self.key]
            .into_iter()
            .chain(authorities)
            .map(Secret::expose)
    }
}

/// Settings of a listener.
pub(super) fn server_config(settings: &Tls, pem: &Pem) -> Result<ServerConfig, Error> {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: settings.cipher_suites.clone(),
        kx_groups: settings.groups.clone(),
        ..ring::default_provider()
    });
    let refused = |error: rustls::Error| settings.certificate.unusable(error.to_string());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&settings.versions)
        .map_err(refused)?;
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
            "contains no private key; expected PEM"
        })
    })?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => settings.key.unusable("does not belong to the certificate"),
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
        (Some(material), Some(pem)) if settings.client_auth.verifies() => {
            Some(chain_verifier(material, pem, provider)?)
        }
        _ => None,
    };
    Ok(Some(Arc::new(Verifier {
        mandatory: settings.client_auth.is_mandatory(),
        chain,
        names: settings.client_names.clone(),
        provider: Arc::clone(provider),
    })))
}

fn chain_verifier(
    material: &Material,
    pem: &Secret,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(material, pem)? {
        roots
            .add(certificate)
            .map_err(|error| material.unusable(error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| material.unusable(error.to_string()))
}

fn certificates(material: &Material, pem: &Secret) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem.expose().as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| material.unusable("contains a damaged certificate; expected PEM"))?;
    if certificates.is_empty() {
        return Err(material.unusable("contains no certificate; expected PEM"));
    }
    Ok(certificates)
}
