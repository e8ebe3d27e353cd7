//! Parses a certificate and its private key from a PFX archive or from PEM files.

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

use super::{CredentialError, Fingerprint, MAX_FILE_BYTES, encrypted_key};
use crate::secret::{Secret, SecretSource};
use crate::text_file;

/// The object identifier `rsaEncryption` (RFC 8017, appendix C).
const RSA_ENCRYPTION: &str = "1.2.840.113549.1.1.1";

/// Header of an encrypted key in OpenSSL's traditional format (RFC 1421, section 4.6.1.1).
const LEGACY_ENCRYPTION: &[u8] = b"Proc-Type: 4,ENCRYPTED";

/// RSA keys below 2048 bits are not secure, and `ring` does not sign with keys above 4096 bits.
const KEY_BITS: RangeInclusive<usize> = 2048..=4096;

/// The private key of a certificate, and the certificate's thumbprint and expiry.
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

    /// Returns the SHA-1 digest of the DER certificate, which identifies the certificate in the registration.
    pub(super) fn thumbprint(&self) -> &[u8] {
        &self.thumbprint
    }

    /// Returns the expiry of the certificate, as Unix time.
    pub(super) fn expires(&self) -> i64 {
        self.expires
    }
}

/// Paths of a certificate and its key, with the password.
#[derive(Debug)]
pub(super) struct Source {
    file: PathBuf,
    private_key: Option<PathBuf>,
    password: Option<SecretSource>,
}

impl Source {
    pub(super) fn new(file: &Path, private_key: Option<&Path>, password: Option<SecretSource>) -> Self {
        Self {
            file: file.to_owned(),
            private_key: private_key.map(Path::to_owned),
            password,
        }
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let password = self.password.as_ref().and_then(SecretSource::file);
        iter::once(self.file.as_path())
            .chain(self.private_key.as_deref())
            .chain(password)
    }

    pub(super) fn read(&self) -> Result<Contents, CredentialError> {
        Ok(Contents {
            file: read_file(&self.file)?,
            private_key: self.private_key.as_deref().map(read_file).transpose()?,
            password: self.password.as_ref().map(SecretSource::read).transpose()?,
        })
    }

    fn key_path(&self) -> &Path {
        self.private_key.as_deref().unwrap_or(&self.file)
    }

    fn password_error(&self, path: &Path) -> CredentialError {
        let path = path.to_owned();
        match self.password {
            None => CredentialError::PasswordMissing(path),
            Some(_) => CredentialError::WrongPassword(path),
        }
    }
}

/// Contents of the files of a [`Source`].
pub(super) struct Contents {
    file: Vec<u8>,
    private_key: Option<Vec<u8>>,
    password: Option<Secret>,
}

fn read_file(path: &Path) -> Result<Vec<u8>, CredentialError> {
    Ok(text_file::read_bytes(path, MAX_FILE_BYTES)?)
}

impl Contents {
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let password = self.password.as_ref().map(|password| password.expose().as_bytes());
        let others = [self.private_key.as_deref(), password];
        Fingerprint::of_contents(iter::once(Some(self.file.as_slice())).chain(others))
    }

    fn password(&self) -> &str {
        self.password.as_ref().map_or("", Secret::expose)
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
            Some(content) => private_key(&pem_blocks(content, source.key_path())?, self.password(), source)?,
            None => private_key(blocks, self.password(), source)?,
        };
        if !leaf.matches_key(&key) {
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
            return Err(CredentialError::KeyBesideArchive(path.clone()));
        }
        let archive =
            Pkcs12Archive::from_pkcs12(&self.file, self.password()).map_err(|error| archive_error(error, source))?;
        let key = archive
            .keys
            .first()
            .ok_or_else(|| no_private_key(path))
            .and_then(|bag| pkcs8_key(&bag.key, path))?;
        if archive.certs.is_empty() {
            return Err(not_certificate(path));
        }
        // An archive may contain the chain in any order. The leaf is the certificate that matches the key.
        for bag in &archive.certs {
            let leaf = Leaf::parse(bag.cert.as_der(), path)?;
            if leaf.matches_key(&key) {
                return Ok(leaf.identity(key));
            }
        }
        Err(mismatch(source))
    }
}

/// The parts of a certificate that an [`Identity`] requires.
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
            None => Err(CredentialError::NotRsa(path)),
            Some(bits) if !KEY_BITS.contains(&bits) => Err(CredentialError::KeySize { path, bits }),
            Some(_) => Ok(()),
        }
    }

    /// Returns whether the certificate belongs to this key. Compares the two public keys as DER-encoded
    /// `RSAPublicKey` structures, because each key has exactly one such encoding.
    fn matches_key(&self, key: &KeyPair) -> bool {
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
        return Err(CredentialError::UnsupportedEncryption(path.to_owned()));
    }
    Pem::iter_from_buffer(content)
        .collect::<Result<_, _>>()
        .map_err(|source| CredentialError::DamagedPem {
            path: path.to_owned(),
            source,
        })
}

/// Returns the first private key among the blocks. Supports the labels of RFC 7468 and of older OpenSSL versions.
fn private_key(blocks: &[Pem], password: &str, source: &Source) -> Result<KeyPair, CredentialError> {
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
            let key = encrypted_key::decrypt(&block.contents, password)
                .map_err(|error| encrypted_key_error(&error, source))?
                .ok_or_else(|| no_private_key(path))?;
            pkcs8_key(&key, path)
        }
        _ => Err(CredentialError::NotRsa(path.to_owned())),
    }
}

fn pkcs8_key(key: &PrivateKey, path: &Path) -> Result<KeyPair, CredentialError> {
    if key.oid().to_string() != RSA_ENCRYPTION {
        return Err(CredentialError::NotRsa(path.to_owned()));
    }
    KeyPair::from_pkcs8(key.as_der()).map_err(|error| unusable_key(path, &error))
}

/// Returns whether a file is a `SEQUENCE` that starts with 3, the version of a PFX. A certificate starts differently.
fn is_archive(content: &[u8]) -> bool {
    let Some((&[0x30, length], rest)) = content.split_first_chunk() else {
        return false;
    };
    // In the long form, this byte contains the number of length bytes that follow.
    let long_form = if length < 0x80 { 0 } else { length & 0x7f };
    rest.get(usize::from(long_form)..)
        .is_some_and(|body| body.starts_with(&[0x02, 0x01, 0x03]))
}

fn archive_error(error: ArchiveError, source: &Source) -> CredentialError {
    match error {
        // With a wrong password, the archive's MAC does not match. If there is no MAC, the decrypted padding is
        // invalid.
        ArchiveError::MacError(_) | ArchiveError::Pkcs5Error(_) | ArchiveError::UnpadError => {
            source.password_error(&source.file)
        }
        error => CredentialError::UnreadableArchive {
            path: source.file.clone(),
            source: Box::new(error),
        },
    }
}

fn encrypted_key_error(error: &ArchiveError, source: &Source) -> CredentialError {
    match error {
        // A key has no MAC. Decryption with a wrong password results in invalid padding or, rarely, in an invalid key.
        ArchiveError::Pkcs5Error(_) | ArchiveError::UnpadError | ArchiveError::InvalidPrivateKey => {
            source.password_error(source.key_path())
        }
        _ => CredentialError::UnsupportedEncryption(source.key_path().to_owned()),
    }
}

fn not_certificate(path: &Path) -> CredentialError {
    CredentialError::NotCertificate(path.to_owned())
}

fn no_private_key(path: &Path) -> CredentialError {
    CredentialError::NoPrivateKey(path.to_owned())
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
