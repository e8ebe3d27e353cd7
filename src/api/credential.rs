//! Credentials for the token endpoint: a client secret, or an assertion signed with the key of a certificate.
//!
//! Files are read for every token request, so that a rotated secret or certificate is used for the next token. The
//! files are small and local, so blocking reads are acceptable.

mod assertion;
mod certificate;
mod encrypted_key;
mod identity;

use std::{
    fmt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use ring::digest;

pub use self::certificate::Certificate;
use crate::secret::{Secret, SecretSource};
use crate::text_file;

/// Maximum size of a secret, key or certificate file. A PFX archive with a long certificate chain takes about 10 KiB.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Credential of the registration.
#[derive(Debug)]
pub enum Credential {
    /// A shared secret (`client_secret`).
    Secret(SecretSource),
    /// A certificate whose key signs assertions (RFC 7523).
    Certificate(Certificate),
}

impl SecretSource {
    fn file(&self) -> Option<&Path> {
        match self {
            Self::Value(_) => None,
            Self::File(path) => Some(path),
        }
    }

    fn read(&self) -> Result<Secret, CredentialError> {
        match self {
            Self::Value(secret) => Ok(secret.clone()),
            Self::File(path) => {
                let text = text_file::read_regular(path, MAX_FILE_BYTES)?;
                Ok(without_line_breaks(&text).to_owned().into())
            }
        }
    }

    /// Reads the client secret. Unlike a certificate password, it must not be empty.
    fn read_client_secret(&self) -> Result<Secret, CredentialError> {
        let secret = self.read()?;
        match self {
            _ if !secret.expose().is_empty() => Ok(secret),
            Self::Value(_) => Err(CredentialError::EmptySecret),
            Self::File(path) => Err(CredentialError::EmptyFile(path.clone())),
        }
    }
}

impl Credential {
    /// Returns a credential with a secret from the configuration.
    ///
    /// # Errors
    ///
    /// Returns [`CredentialError::EmptySecret`] if the secret is empty.
    pub fn secret(value: Secret) -> Result<Self, CredentialError> {
        let source = SecretSource::Value(without_line_breaks(value.expose()).to_owned().into());
        source.read_client_secret()?;
        Ok(Self::Secret(source))
    }

    /// Returns a credential whose secret is in a file. Reads the file once to check it.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, is empty, is not text, or is too large for a secret.
    pub fn secret_file(path: impl Into<PathBuf>) -> Result<Self, CredentialError> {
        let source = SecretSource::File(path.into());
        source.read_client_secret()?;
        Ok(Self::Secret(source))
    }

    /// Returns a credential with a certificate and its private key. `file` is a PFX archive, a PEM file with both, or a
    /// PEM certificate whose key is in `private_key`. The password decrypts the archive or a PKCS#8 key. All files are
    /// read together for each token request, so that they can be rotated together.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be read, or if the certificate and key cannot be used for signing.
    pub fn certificate(
        file: &Path,
        private_key: Option<&Path>,
        password: Option<SecretSource>,
    ) -> Result<Self, CredentialError> {
        Certificate::load(file, private_key, password).map(Self::Certificate)
    }

    /// Returns the form fields of a token request that authenticate the client. They are created for each attempt: a
    /// secret file is read again, and an assertion gets a new `jti`, because the endpoint rejects a repeated `jti`. The
    /// caller adds `client_id` and the other fields.
    ///
    /// # Errors
    ///
    /// Returns an error if a file can no longer be used, or if signing fails.
    pub fn proof(
        &self,
        client_id: &str,
        token_url: &str,
        now: SystemTime,
    ) -> Result<Vec<(&'static str, Secret)>, CredentialError> {
        match self {
            Self::Secret(source) => Ok(vec![("client_secret", source.read_client_secret()?)]),
            Self::Certificate(certificate) => {
                let identity = certificate.current()?;
                let assertion = assertion::sign(&identity, client_id, token_url, now)?;
                Ok(vec![
                    ("client_assertion_type", assertion::TYPE.to_owned().into()),
                    ("client_assertion", assertion),
                ])
            }
        }
    }

    /// Returns the expiry of the most recently used certificate, as Unix time. The expiry of a secret is unknown.
    pub fn expires(&self) -> Option<i64> {
        match self {
            Self::Secret(_) => None,
            Self::Certificate(certificate) => Some(certificate.expires()),
        }
    }

    /// Returns a fingerprint of the files that [`proof`](Self::proof) would read now. Callers that back off after a
    /// failure compare fingerprints to detect a changed file. Returns `None` if the secret is not in a file.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        match self {
            Self::Secret(source) => Some(Fingerprint::of_files([source.file()?])),
            Self::Certificate(certificate) => Some(Fingerprint::of_files(certificate.files())),
        }
    }
}

/// A digest of the contents of credential files, for comparison only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; digest::SHA256_OUTPUT_LEN]);

impl Fingerprint {
    /// Returns the fingerprint of these files. It also covers unreadable files, so that it changes when they become
    /// readable.
    fn of_files<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let contents: Vec<_> = paths
            .into_iter()
            .map(|path| text_file::read_bytes(path, MAX_FILE_BYTES).ok())
            .collect();
        Self::of_contents(contents.iter().map(Option::as_deref))
    }

    fn of_contents<'a>(contents: impl IntoIterator<Item = Option<&'a [u8]>>) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for content in contents {
            // Each file is hashed separately, so moving bytes from one file to the next changes the fingerprint.
            match content {
                Some(bytes) => context.update(digest::digest(&digest::SHA256, bytes).as_ref()),
                None => context.update(b"unreadable"),
            }
        }
        let mut hash = [0; digest::SHA256_OUTPUT_LEN];
        hash.copy_from_slice(context.finish().as_ref());
        Self(hash)
    }
}

/// Hides the digest, because a short secret can be guessed from it.
impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(hidden)")
    }
}

/// Reason why a credential cannot be used. At startup, each of these reasons is a configuration error.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The secret in the configuration is empty.
    #[error("the client secret is empty: use the value that Elements showed when the secret was created")]
    EmptySecret,
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] text_file::Error),
    /// The file is empty or contains only line breaks.
    #[error("{0} is empty; write the client secret into it")]
    EmptyFile(PathBuf),
    /// A block of a PEM file is truncated or not base64.
    #[error("{path} has a damaged PEM block: copy the file again")]
    DamagedPem {
        /// Path of the file.
        path: PathBuf,
        /// The error of the PEM parser.
        source: x509_parser::error::PEMError,
    },
    /// The file is neither PFX nor PEM.
    #[error("{0} is not a certificate: expected a PFX archive, or a PEM file with a CERTIFICATE block")]
    NotCertificate(PathBuf),
    /// A PFX archive is unreadable for a reason other than a wrong or missing password.
    #[error(
        "cannot read the PFX archive {path}: convert it with `openssl pkcs12 -in ARCHIVE -nodes -out FILE` and use FILE"
    )]
    UnreadableArchive {
        /// Path of the file.
        path: PathBuf,
        /// The error of the archive parser.
        source: Box<p12_keystore::error::Error>,
    },
    /// A key file is set, although a PFX archive contains its own key.
    #[error("{0} is a PFX archive, which contains its key: remove auth.private_key_file")]
    KeyBesideArchive(PathBuf),
    /// The file is encrypted, and no password is configured.
    #[error("{0} is encrypted: set auth.certificate_password or auth.certificate_password_file")]
    PasswordMissing(PathBuf),
    /// The configured password does not decrypt the file.
    #[error("wrong password for {0}: check auth.certificate_password or auth.certificate_password_file")]
    WrongPassword(PathBuf),
    /// The encryption of the key is not supported.
    #[error(
        "the encryption of the key in {0} is not supported: decrypt the key with `openssl pkey -in KEY -out PLAIN`"
    )]
    UnsupportedEncryption(PathBuf),
    /// A private key is missing.
    #[error("{0} contains no private key: set auth.private_key_file, or export the certificate with its key")]
    NoPrivateKey(PathBuf),
    /// The key or certificate does not use RSA.
    #[error("{0} does not use RSA: create an RSA certificate with a key of 2048 to 4096 bits")]
    NotRsa(PathBuf),
    /// The RSA key is too short to be secure, or too long to be supported.
    #[error("the RSA key of {path} has {bits} bits: create a key with 2048 to 4096 bits")]
    KeySize {
        /// Path of the certificate file.
        path: PathBuf,
        /// Length of the modulus, in bits.
        bits: usize,
    },
    /// The key is damaged, or its parameters are not accepted.
    #[error("the private key in {path} cannot be used ({reason}): export it again")]
    UnusableKey {
        /// Path of the file.
        path: PathBuf,
        /// Reason why the key was rejected.
        reason: String,
    },
    /// The key belongs to another certificate.
    #[error("the private key in {key} does not belong to the certificate in {certificate}: use a matching pair")]
    Mismatch {
        /// Path of the certificate file.
        certificate: PathBuf,
        /// The key file; equal to `certificate` if one file contains both.
        key: PathBuf,
    },
    /// The system provided no random numbers, or signing failed.
    #[error("cannot sign the client assertion")]
    Signing,
}

/// Returns a secret without the line breaks that editors and shells append.
fn without_line_breaks(text: &str) -> &str {
    text.trim_end_matches(['\r', '\n'])
}

#[cfg(test)]
mod tests {
    use std::{fs, time::SystemTime};

    use super::{Credential, CredentialError, MAX_FILE_BYTES};
    use crate::secret::Secret;
    use crate::text_file;

    fn client_secret(credential: &Credential) -> Result<String, CredentialError> {
        let fields = credential.proof("id", "https://token", SystemTime::now())?;
        let [(name, secret)] = fields.as_slice() else {
            panic!("expected one field");
        };
        assert_eq!(*name, "client_secret");
        Ok(secret.expose().to_owned())
    }

    fn from_file(content: impl AsRef<[u8]>) -> Result<String, CredentialError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        client_secret(&Credential::secret_file(file.path())?)
    }

    #[test]
    fn configured_secret_is_sent_unchanged() {
        let credential = Credential::secret(Secret::from(" s3~.cret \n".to_owned())).unwrap();
        assert_eq!(client_secret(&credential).unwrap(), " s3~.cret ");
        assert_eq!(credential.expires(), None);
        assert!(credential.fingerprint().is_none());
        assert!(!format!("{credential:?}").contains("s3"));
    }

    #[test]
    fn empty_secret_is_rejected() {
        let error = Credential::secret(Secret::from("\n".to_owned())).unwrap_err();
        assert!(matches!(error, CredentialError::EmptySecret));
    }

    #[test]
    fn line_breaks_and_byte_order_mark_of_a_secret_are_removed() {
        assert_eq!(from_file("abc").unwrap(), "abc");
        assert_eq!(from_file("abc\n").unwrap(), "abc");
        assert_eq!(from_file("\u{feff}abc \r\n\r\n").unwrap(), "abc ");
    }

    #[test]
    fn unusable_secret_files_have_different_errors() {
        let limit = usize::try_from(MAX_FILE_BYTES).unwrap();
        assert!(from_file(vec![b'x'; limit]).is_ok());
        assert!(matches!(
            from_file(vec![b'x'; limit + 1]),
            Err(CredentialError::File(text_file::Error::TooLarge { .. }))
        ));
        assert!(matches!(from_file("\r\n"), Err(CredentialError::EmptyFile { .. })));
        assert!(matches!(
            from_file(b"\xff\xfea\0"),
            Err(CredentialError::File(text_file::Error::NotUtf8 { .. }))
        ));
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(
            Credential::secret_file(directory.path()),
            Err(CredentialError::File(text_file::Error::NotRegular { .. }))
        ));
        let missing = Credential::secret_file(directory.path().join("absent")).unwrap_err();
        assert!(matches!(
            missing,
            CredentialError::File(text_file::Error::Unreadable { .. })
        ));
        assert!(missing.to_string().contains("absent"), "{missing}");
    }

    #[test]
    fn rotated_secret_is_used_by_the_next_request() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, "old\n").unwrap();
        let credential = Credential::secret_file(&path).unwrap();
        let old = credential.fingerprint();
        assert_eq!(client_secret(&credential).unwrap(), "old");
        assert!(old == credential.fingerprint());

        fs::remove_file(&path).unwrap();
        let missing = credential.fingerprint();
        assert!(missing.is_some() && missing != old);
        assert!(client_secret(&credential).is_err());

        fs::write(&path, "new\n").unwrap();
        assert!(credential.fingerprint() != old && credential.fingerprint() != missing);
        assert_eq!(client_secret(&credential).unwrap(), "new");
    }
}
