//! Reads a certificate with its private key, from a PFX archive or from PEM.

use std::{
    iter,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use p12_keystore::{Pkcs12Archive, PrivateKey, error::Error as ArchiveError};
use ring::{
    digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA1_OUTPUT_LEN, digest},
    rsa::KeyPair,
};
use x509_parser::{parse_x509_certificate, pem::Pem, public_key::PublicKey};

use super::{CredentialError, Fingerprint, encrypted_key, read};
use crate::secret::Secret;

/// rsaEncryption (RFC 8017, appendix C).
const RSA_ENCRYPTION: &str = "1.2.840.113549.1.1.1";

/// How OpenSSL before 1.0 marked a key encrypted with a digest of its password (RFC 1421, section 4.6.1.1).
const LEGACY_ENCRYPTION: &[u8] = b"Proc-Type: 4,ENCRYPTED";

/// Below 2048 bits RSA is not safe; above 4096 `ring` does not sign.
const KEY_BITS: RangeInclusive<usize> = 2048..=4096;

/// A certificate's names for itself, and the key that it certifies.
#[derive(Debug)]
pub(super) struct Identity {
    key: KeyPair,
    thumbprint: [u8; SHA1_OUTPUT_LEN],
    expires: i64,
}

impl Identity {
    pub(super) fn key(&self) -> &KeyPair {
        &self.key
    }

    /// SHA-1 of the certificate's DER, by which the registration knows it.
    pub(super) fn thumbprint(&self) -> &[u8] {
        &self.thumbprint
    }

    /// End of the certificate's validity, in seconds since 1970.
    pub(super) fn expires(&self) -> i64 {
        self.expires
    }
}

/// Where a certificate and its key are, and what opens them.
#[derive(Debug)]
pub(super) struct Source {
    file: PathBuf,
    private_key: Option<PathBuf>,
    password: Option<Secret>,
}

impl Source {
    pub(super) fn new(file: &Path, private_key: Option<&Path>, password: Option<&str>) -> Self {
        Self {
            file: file.to_owned(),
            private_key: private_key.map(Path::to_owned),
            password: password.map(|password| password.to_owned().into()),
        }
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        iter::once(self.file.as_path()).chain(self.private_key.as_deref())
    }

    pub(super) fn read(&self) -> Result<Contents, CredentialError> {
        Ok(Contents {
            file: read(&self.file)?,
            private_key: self.private_key.as_deref().map(read).transpose()?,
        })
    }

    fn key_path(&self) -> &Path {
        self.private_key.as_deref().unwrap_or(&self.file)
    }

    fn password(&self) -> &str {
        self.password.as_ref().map_or("", Secret::expose)
    }

    fn password_refused(&self, path: &Path) -> CredentialError {
        let path = path.to_owned();
        match self.password {
            None => CredentialError::PasswordMissing { path },
            Some(_) => CredentialError::WrongPassword { path },
        }
    }
}

/// What the files of a source hold.
pub(super) struct Contents {
    file: Vec<u8>,
    private_key: Option<Vec<u8>>,
}

impl Contents {
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let private_key = self.private_key.as_deref().map(Some);
        Fingerprint::of_contents(iter::once(Some(self.file.as_slice())).chain(private_key))
    }

    pub(super) fn identity(&self, source: &Source) -> Result<Identity, CredentialError> {
        let blocks = pem_blocks(&self.file, &source.file)?;
        if blocks.is_empty() {
            self.read_archive(source)
        } else {
            self.read_pem(&blocks, source)
        }
    }

    fn read_pem(&self, blocks: &[Pem], source: &Source) -> Result<Identity, CredentialError> {
        let leaf = blocks
            .iter()
            .find(|block| block.label == "CERTIFICATE")
            .ok_or_else(|| not_certificate(&source.file))?;
        let leaf = Leaf::parse(&leaf.contents, &source.file)?;
        leaf.require_rsa(&source.file)?;
        let key = match &self.private_key {
            Some(content) => private_key(&pem_blocks(content, source.key_path())?, source)?,
            None => private_key(blocks, source)?,
        };
        if !leaf.certifies(&key) {
            return Err(mismatch(source));
        }
        Ok(leaf.identity(key))
    }

    fn read_archive(&self, source: &Source) -> Result<Identity, CredentialError> {
        let path = &source.file;
        if !is_archive(&self.file) {
            return Err(not_certificate(path));
        }
        if self.private_key.is_some() {
            return Err(CredentialError::KeyBesideArchive { path: path.clone() });
        }
        let archive =
            Pkcs12Archive::from_pkcs12(&self.file, source.password()).map_err(|error| archive_error(error, source))?;
        let key = archive
            .keys
            .first()
            .ok_or_else(|| no_private_key(path))
            .and_then(|bag| pkcs8_key(&bag.key, path))?;
        if archive.certs.is_empty() {
            return Err(not_certificate(path));
        }
        // An archive may hold the chain in any order; the leaf is the certificate of the key.
        for bag in &archive.certs {
            let leaf = Leaf::parse(bag.cert.as_der(), path)?;
            if leaf.certifies(&key) {
                return Ok(leaf.identity(key));
            }
        }
        Err(mismatch(source))
    }
}

/// What is needed of a certificate.
struct Leaf<'a> {
    der: &'a [u8],
    public_key: Vec<u8>,
    rsa_bits: Option<usize>,
    expires: i64,
}

impl<'a> Leaf<'a> {
    fn parse(der: &'a [u8], path: &Path) -> Result<Self, CredentialError> {
        let (_, certificate) = parse_x509_certificate(der).map_err(|_| not_certificate(path))?;
        let key = certificate.public_key();
        Ok(Self {
            der,
            public_key: key.subject_public_key.data.to_vec(),
            rsa_bits: match key.parsed() {
                Ok(PublicKey::RSA(key)) => Some(key.key_size()),
                _ => None,
            },
            expires: certificate.validity().not_after.timestamp(),
        })
    }

    fn require_rsa(&self, path: &Path) -> Result<(), CredentialError> {
        let path = path.to_owned();
        match self.rsa_bits {
            None => Err(CredentialError::NotRsa { path }),
            Some(bits) if !KEY_BITS.contains(&bits) => Err(CredentialError::KeySize { path, bits }),
            Some(_) => Ok(()),
        }
    }

    /// Both sides are the DER of an `RSAPublicKey`, which has one encoding only.
    fn certifies(&self, key: &KeyPair) -> bool {
        self.public_key == key.public().as_ref()
    }

    fn identity(&self, key: KeyPair) -> Identity {
        let mut thumbprint = [0; SHA1_OUTPUT_LEN];
        thumbprint.copy_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, self.der).as_ref());
        Identity {
            key,
            thumbprint,
            expires: self.expires,
        }
    }
}

fn pem_blocks(content: &[u8], path: &Path) -> Result<Vec<Pem>, CredentialError> {
    if content
        .windows(LEGACY_ENCRYPTION.len())
        .any(|window| window == LEGACY_ENCRYPTION)
    {
        return Err(CredentialError::UnsupportedEncryption { path: path.to_owned() });
    }
    Pem::iter_from_buffer(content)
        .collect::<Result<_, _>>()
        .map_err(|source| CredentialError::DamagedPem {
            path: path.to_owned(),
            source,
        })
}

/// The first private key among the blocks, whose labels RFC 7468 and, before it, OpenSSL gave.
fn private_key(blocks: &[Pem], source: &Source) -> Result<KeyPair, CredentialError> {
    let path = source.key_path();
    let block = blocks
        .iter()
        .find(|block| block.label.ends_with("PRIVATE KEY"))
        .ok_or_else(|| no_private_key(path))?;
    match block.label.as_str() {
        "PRIVATE KEY" => {
            let key = PrivateKey::from_der(&block.contents).map_err(|error| unusable_key(path, &error))?;
            pkcs8_key(&key, path)
        }
        "RSA PRIVATE KEY" => KeyPair::from_der(&block.contents).map_err(|error| unusable_key(path, &error)),
        "ENCRYPTED PRIVATE KEY" => {
            let key = encrypted_key::decrypt(&block.contents, source.password())
                .map_err(|error| encrypted_key_error(&error, source))?
                .ok_or_else(|| no_private_key(path))?;
            pkcs8_key(&key, path)
        }
        _ => Err(CredentialError::NotRsa { path: path.to_owned() }),
    }
}

fn pkcs8_key(key: &PrivateKey, path: &Path) -> Result<KeyPair, CredentialError> {
    if key.oid().to_string() != RSA_ENCRYPTION {
        return Err(CredentialError::NotRsa { path: path.to_owned() });
    }
    KeyPair::from_pkcs8(key.as_der()).map_err(|error| unusable_key(path, &error))
}

/// Whether this is a `SEQUENCE` that begins with the version of a PFX, 3. A bare certificate begins otherwise.
fn is_archive(content: &[u8]) -> bool {
    let Some((&[0x30, length], rest)) = content.split_first_chunk() else {
        return false;
    };
    // The long form says how many bytes of length follow.
    let long_form = if length < 0x80 { 0 } else { length & 0x7f };
    rest.get(usize::from(long_form)..)
        .is_some_and(|body| body.starts_with(&[0x02, 0x01, 0x03]))
}

fn archive_error(error: ArchiveError, source: &Source) -> CredentialError {
    match error {
        // An archive has a MAC, which tells a wrong password apart; one without it decrypts to nonsense.
        ArchiveError::MacError(_) | ArchiveError::Pkcs5Error(_) | ArchiveError::UnpadError => {
            source.password_refused(&source.file)
        }
        error => CredentialError::UnreadableArchive {
            path: source.file.clone(),
            source: Box::new(error),
        },
    }
}

fn encrypted_key_error(error: &ArchiveError, source: &Source) -> CredentialError {
    match error {
        // There is no MAC here: what a wrong password leaves is bad padding or, rarely, not a key.
        ArchiveError::Pkcs5Error(_) | ArchiveError::UnpadError | ArchiveError::InvalidPrivateKey => {
            source.password_refused(source.key_path())
        }
        _ => CredentialError::UnsupportedEncryption {
            path: source.key_path().to_owned(),
        },
    }
}

fn not_certificate(path: &Path) -> CredentialError {
    CredentialError::NotCertificate { path: path.to_owned() }
}

fn no_private_key(path: &Path) -> CredentialError {
    CredentialError::NoPrivateKey { path: path.to_owned() }
}

fn unusable_key(path: &Path, reason: &impl ToString) -> CredentialError {
    CredentialError::UnusableKey {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

fn mismatch(source: &Source) -> CredentialError {
    CredentialError::Mismatch {
        certificate: source.file.clone(),
        key: source.key_path().to_owned(),
    }
}
