//! What proves to the token endpoint who is asking: a client secret, or an assertion signed with the key of a certificate.
//!
//! Files are read again for every proof, so that a rotated secret or certificate counts at the next token.
//! They are small and local, and are read blocking.

mod assertion;
mod certificate;
mod encrypted_key;
mod identity;

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    time::SystemTime,
};

use ring::digest;

pub use self::certificate::Certificate;
use crate::secret::Secret;

/// The most that a secret, key or certificate file may hold. A PFX with a long chain has some 10 KiB;
/// anything beyond this is the wrong file.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Identity of the exporter's app registration.
#[derive(Debug)]
pub enum Credential {
    /// A shared secret (`client_secret`).
    Secret(SecretSource),
    /// A certificate whose key signs assertions (RFC 7523).
    Certificate(Certificate),
}

/// Where a client secret comes from.
#[derive(Debug)]
pub enum SecretSource {
    /// Given in the configuration; never changes.
    Value(Secret),
    /// Read from this file for each proof.
    File(PathBuf),
}

impl Credential {
    /// A secret given in the configuration.
    ///
    /// # Errors
    ///
    /// [`CredentialError::EmptySecret`].
    pub fn secret(value: Secret) -> Result<Self, CredentialError> {
        let value = significant(value.expose());
        if value.is_empty() {
            return Err(CredentialError::EmptySecret);
        }
        Ok(Self::Secret(SecretSource::Value(value.to_owned().into())))
    }

    /// A secret kept in a file, which is read now to find out that it can be.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is empty, is not text, or is too large for a secret.
    pub fn secret_file(path: impl Into<PathBuf>) -> Result<Self, CredentialError> {
        let path = path.into();
        read_secret(&path)?;
        Ok(Self::Secret(SecretSource::File(path)))
    }

    /// A certificate and its private key: a PFX archive; a PEM file with both; or a PEM certificate in `file` and its
    /// key in `private_key`. The password opens the archive or an encrypted PKCS#8 key.
    ///
    /// # Errors
    ///
    /// Anything that makes the pair useless for signing; each error says what to do about it.
    pub fn certificate(
        file: &Path,
        private_key: Option<&Path>,
        password: Option<&str>,
    ) -> Result<Self, CredentialError> {
        Certificate::load(file, private_key, password).map(Self::Certificate)
    }

    /// The form fields of a token request that prove identity, made afresh for each attempt: a secret file is read
    /// again, and an assertion gets a new `jti`, for the endpoint refuses one that it has seen.
    /// `client_id` and the other fields of the request are the caller's.
    ///
    /// # Errors
    ///
    /// A file cannot be used any more, or signing failed.
    pub fn proof(
        &self,
        client_id: &str,
        token_url: &str,
        now: SystemTime,
    ) -> Result<Vec<(&'static str, Secret)>, CredentialError> {
        match self {
            Self::Secret(SecretSource::Value(secret)) => Ok(vec![("client_secret", secret.clone())]),
            Self::Secret(SecretSource::File(path)) => Ok(vec![("client_secret", read_secret(path)?)]),
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

    /// End of the validity of the certificate last used, in seconds since 1970. A secret does not know its own.
    pub fn expires(&self) -> Option<i64> {
        match self {
            Self::Secret(_) => None,
            Self::Certificate(certificate) => Some(certificate.expires()),
        }
    }

    /// What [`proof`](Self::proof) would read at this moment. A caller that backs off after `invalid_client` compares
    /// two of them to see that a file changed. `None` where nothing can change.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        match self {
            Self::Secret(SecretSource::Value(_)) => None,
            Self::Secret(SecretSource::File(path)) => Some(Fingerprint::of_files([path.as_path()])),
            Self::Certificate(certificate) => Some(Fingerprint::of_files(certificate.files())),
        }
    }
}

/// A digest of the contents of credential files, for comparison only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; digest::SHA256_OUTPUT_LEN]);

impl Fingerprint {
    /// A file that cannot be read has a fingerprint too, so that its coming back is a change.
    fn of_files<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let contents: Vec<_> = paths.into_iter().map(|path| read(path).ok()).collect();
        Self::of_contents(contents.iter().map(Option::as_deref))
    }

    fn of_contents<'a>(contents: impl IntoIterator<Item = Option<&'a [u8]>>) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for content in contents {
            // Each file is hashed for itself, so that moving bytes from one to the next is a change.
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

/// The digest of a short secret is nearly the secret, so it is not shown.
impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(hidden)")
    }
}

/// Why a credential cannot be used. At start all of these are errors of configuration.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The secret in the configuration has no characters.
    #[error("the client secret is empty: give the value that Elements showed when it was made")]
    EmptySecret,
    /// The operating system refuses the file.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A pipe, directory or device.
    #[error("{path} is not a regular file: it is read again for every token, which only a file allows")]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// More than a secret, key or certificate can have.
    #[error("{path} is larger than {MAX_FILE_BYTES} bytes: no secret, key or certificate is")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Nothing in the file but, perhaps, a line end.
    #[error("{path} is empty: write the client secret into it")]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// A secret file that is not UTF-8.
    #[error("{path} is not UTF-8 text: save the client secret as plain text")]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// A block of a PEM file is cut off or is not base64.
    #[error("{path} has a damaged PEM block: copy the file again")]
    DamagedPem {
        /// The file.
        path: PathBuf,
        /// What the reader of PEM met.
        source: x509_parser::error::PEMError,
    },
    /// Neither PFX nor PEM.
    #[error("{path} is not a certificate: expected a PFX archive, or PEM with a CERTIFICATE block")]
    NotCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A PFX archive that cannot be read for a reason other than its password.
    #[error(
        "cannot read the PFX archive {path}: convert it with `openssl pkcs12 -in ARCHIVE -nodes -out PEM` and use the PEM"
    )]
    UnreadableArchive {
        /// The file.
        path: PathBuf,
        /// What the reader of archives met.
        source: Box<p12_keystore::error::Error>,
    },
    /// A PFX archive, which has its key inside, along with a key file.
    #[error("{path} is a PFX archive, which holds its key: leave out the private key file")]
    KeyBesideArchive {
        /// The archive.
        path: PathBuf,
    },
    /// Encrypted, and no password was given.
    #[error("{path} is encrypted: give its password")]
    PasswordMissing {
        /// The file.
        path: PathBuf,
    },
    /// Encrypted, and the password given does not open it.
    #[error("the password does not open {path}: check the certificate password")]
    WrongPassword {
        /// The file.
        path: PathBuf,
    },
    /// A key encrypted in a way that is not supported.
    #[error(
        "the key in {path} is encrypted in a way that is not supported: decrypt it with `openssl pkey -in KEY -out PLAIN`"
    )]
    UnsupportedEncryption {
        /// The file.
        path: PathBuf,
    },
    /// No private key where one has to be.
    #[error("{path} holds no private key: name the key file, or export the certificate with its key")]
    NoPrivateKey {
        /// The file.
        path: PathBuf,
    },
    /// A key or certificate for another algorithm.
    #[error("{path} is not for RSA, which assertions are signed with: make an RSA certificate of 2048 bits or more")]
    NotRsa {
        /// The file.
        path: PathBuf,
    },
    /// An RSA key of a size that is not safe, or that cannot be signed with.
    #[error("the RSA key of {path} has {bits} bits: make one of 2048 to 4096")]
    KeySize {
        /// The certificate file.
        path: PathBuf,
        /// Length of the modulus.
        bits: usize,
    },
    /// The key is damaged or has parameters that are refused.
    #[error("the private key in {path} cannot be used ({reason}): export it again")]
    UnusableKey {
        /// The file.
        path: PathBuf,
        /// What the check found.
        reason: String,
    },
    /// The key belongs to another certificate.
    #[error(
        "the private key in {key} does not belong to the certificate in {certificate}: use the pair that was made together"
    )]
    Mismatch {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file; the same where one file holds both.
        key: PathBuf,
    },
    /// The system's random numbers or the signature failed.
    #[error("cannot sign the client assertion")]
    Signing,
}

/// Reads a whole file if it is a regular one of a credential's size.
fn read(path: &Path) -> Result<Vec<u8>, CredentialError> {
    let unreadable = |source| CredentialError::Unreadable {
        path: path.to_owned(),
        source,
    };
    // Asked before opening, for opening a pipe without a writer never returns.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(CredentialError::NotRegular { path: path.to_owned() });
    }
    let mut content = Vec::new();
    File::open(path)
        .map_err(unreadable)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut content)
        .map_err(unreadable)?;
    match u64::try_from(content.len()) {
        Ok(length) if length <= MAX_FILE_BYTES => Ok(content),
        _ => Err(CredentialError::TooLarge { path: path.to_owned() }),
    }
}

fn read_secret(path: &Path) -> Result<Secret, CredentialError> {
    let text = String::from_utf8(read(path)?).map_err(|_| CredentialError::NotText { path: path.to_owned() })?;
    let secret = significant(&text);
    if secret.is_empty() {
        return Err(CredentialError::EmptyFile { path: path.to_owned() });
    }
    Ok(secret.to_owned().into())
}

/// A secret without what editors and shells put around it: line ends, and the byte order mark of Windows.
fn significant(text: &str) -> &str {
    text.strip_prefix('\u{feff}')
        .unwrap_or(text)
        .trim_end_matches(['\r', '\n'])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

    use std::{fs, time::SystemTime};

    use super::{Credential, CredentialError, MAX_FILE_BYTES};
    use crate::secret::Secret;

    fn client_secret(credential: &Credential) -> Result<String, CredentialError> {
        let fields = credential.proof("id", "https://token", SystemTime::now())?;
        let [(name, secret)] = fields.as_slice() else {
            panic!("one field expected");
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
    fn a_configured_secret_is_sent_as_it_is() {
        let credential = Credential::secret(Secret::from(" s3~.cret \n".to_owned())).unwrap();
        assert_eq!(client_secret(&credential).unwrap(), " s3~.cret ");
        assert_eq!(credential.expires(), None);
        assert!(credential.fingerprint().is_none());
        assert!(!format!("{credential:?}").contains("s3"));
    }

    #[test]
    fn an_empty_secret_is_refused() {
        let error = Credential::secret(Secret::from("\n".to_owned())).unwrap_err();
        assert!(matches!(error, CredentialError::EmptySecret));
    }

    #[test]
    fn a_secret_file_is_stripped_of_line_ends_and_byte_order_mark() {
        assert_eq!(from_file("abc").unwrap(), "abc");
        assert_eq!(from_file("abc\n").unwrap(), "abc");
        assert_eq!(from_file("\u{feff}abc \r\n\r\n").unwrap(), "abc ");
    }

    #[test]
    fn unusable_secret_files_are_told_apart() {
        let limit = usize::try_from(MAX_FILE_BYTES).unwrap();
        assert!(from_file(vec![b'x'; limit]).is_ok());
        assert!(matches!(
            from_file(vec![b'x'; limit + 1]),
            Err(CredentialError::TooLarge { .. })
        ));
        assert!(matches!(from_file("\r\n"), Err(CredentialError::EmptyFile { .. })));
        assert!(matches!(
            from_file(b"\xff\xfea\0"),
            Err(CredentialError::NotText { .. })
        ));
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(
            Credential::secret_file(directory.path()),
            Err(CredentialError::NotRegular { .. })
        ));
        let missing = Credential::secret_file(directory.path().join("absent")).unwrap_err();
        assert!(matches!(missing, CredentialError::Unreadable { .. }));
        assert!(missing.to_string().contains("absent"), "{missing}");
    }

    #[test]
    fn a_rotated_secret_counts_at_the_next_proof() {
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
