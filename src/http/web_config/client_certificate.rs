//! Verifies client certificates.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Requests a client certificate, and verifies its chain and names as configured. A client that sends a certificate
/// must always prove that it has the private key.
#[derive(Debug)]
pub(super) struct ClientCertificateVerifier {
    /// Whether a certificate is required.
    pub(super) mandatory: bool,
    /// Verifies the chain; `None` if a certificate from any authority is accepted.
    pub(super) chain: Option<Arc<dyn ClientCertVerifier>>,
    /// If not empty, the certificate must contain one of these names.
    pub(super) names: Vec<String>,
    pub(super) provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for ClientCertificateVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.as_ref().map_or(&[], |chain| chain.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(chain) = &self.chain {
            chain.verify_client_cert(end_entity, intermediates, now)?;
        }
        if self.names.is_empty() || has_any_name(end_entity, &self.names)? {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Returns whether a certificate has one of these subject alternative names: DNS names, IP addresses, email addresses
/// or URIs.
fn has_any_name(certificate: &CertificateDer<'_>, names: &[String]) -> Result<bool, Error> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let extension = certificate
        .subject_alternative_name()
        .map_err(|_| CertificateError::BadEncoding)?;
    let names_in_certificate = extension.iter().flat_map(|extension| &extension.value.general_names);
    Ok(names_in_certificate.into_iter().any(|name| match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => {
            names.iter().any(|allowed| allowed == text)
        }
        GeneralName::IPAddress(bytes) => {
            parse_address(bytes).is_some_and(|address| names.iter().any(|allowed| allowed.parse() == Ok(address)))
        }
        _ => false,
    }))
}

fn parse_address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
