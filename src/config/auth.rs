//! The section `auth`: identity and credential.

use std::path::{Path, PathBuf};

use super::keys;
use super::layers::Layers;
use crate::secret::{Secret, SecretSource};
use crate::settings::{Error, Field};

/// The exporter's identity and credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// The client id of the app registration.
    pub client_id: String,
    /// The configured credential.
    pub credential: Credential,
    /// Expiry of the client secret in seconds since the Unix epoch, as entered by the operator. Does not apply to a
    /// certificate.
    pub secret_expires: Option<i64>,
}

/// A credential. Files are read each time they are used, so that rotated files take effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A client secret.
    Secret(Secret),
    /// A file with a client secret.
    SecretFile(PathBuf),
    /// A certificate whose private key signs the client assertion in each token request.
    Certificate {
        /// A PFX file (`.pfx` or `.p12`), or a PEM file with any other extension.
        file: PathBuf,
        /// The PEM file with the private key; `None` for a PFX file, or for a PEM file that contains the key.
        private_key: Option<PathBuf>,
        /// The password of the PFX file or of the private key.
        password: Option<SecretSource>,
    },
}

const CLIENT_ID: &str = "auth.client_id";
const CLIENT_SECRET: &str = "auth.client_secret";
const CLIENT_SECRET_FILE: &str = "auth.client_secret_file";
const CERTIFICATE_FILE: &str = "auth.certificate_file";
const PRIVATE_KEY_FILE: &str = "auth.private_key_file";
const CERTIFICATE_PASSWORD: &str = "auth.certificate_password";
const CERTIFICATE_PASSWORD_FILE: &str = "auth.certificate_password_file";

/// Keys of which exactly one must be set.
const CREDENTIALS: [&str; 3] = [CLIENT_SECRET, CLIENT_SECRET_FILE, CERTIFICATE_FILE];

/// Keys that apply only to a certificate.
const CERTIFICATE_KEYS: [&str; 3] = [PRIVATE_KEY_FILE, CERTIFICATE_PASSWORD, CERTIFICATE_PASSWORD_FILE];

impl Auth {
    pub(super) fn read(layers: &Layers) -> Result<Self, Error> {
        let secret_expires = layers.read_optional("auth.client_secret_expires", Field::date)?;
        let credential = credential(layers)?;
        Ok(Self {
            client_id: layers.read_required(CLIENT_ID, |field| field.text().map(str::to_owned))?,
            credential: credential.ok_or_else(|| no_credential(layers))?,
            secret_expires,
        })
    }
}

/// Reads the credential; returns `None` if none is configured.
fn credential(layers: &Layers) -> Result<Option<Credential>, Error> {
    let secret = layers
        .read_optional(CLIENT_SECRET, Field::secret_text)?
        .map(Credential::Secret);
    let secret_file = layers
        .read_optional(CLIENT_SECRET_FILE, Field::path)?
        .map(Credential::SecretFile);
    let certificate = layers.read_optional(CERTIFICATE_FILE, Field::path)?;
    let private_key = layers.read_optional(PRIVATE_KEY_FILE, Field::path)?;
    let password = password(layers)?;

    let [of_secret, of_secret_file, of_certificate] = CREDENTIALS;
    reject_both(layers, of_secret, of_secret_file)?;
    reject_both(layers, of_secret, of_certificate)?;
    reject_both(layers, of_secret_file, of_certificate)?;
    let Some(file) = certificate else {
        for key in CERTIFICATE_KEYS {
            require_key(layers, key, CERTIFICATE_FILE)?;
        }
        return Ok(secret.or(secret_file));
    };
    if is_pfx(&file) {
        reject_both(layers, CERTIFICATE_FILE, PRIVATE_KEY_FILE)?;
    }
    Ok(Some(Credential::Certificate {
        file,
        private_key,
        password,
    }))
}

fn password(layers: &Layers) -> Result<Option<SecretSource>, Error> {
    reject_both(layers, CERTIFICATE_PASSWORD, CERTIFICATE_PASSWORD_FILE)?;
    let value = layers.read_optional(CERTIFICATE_PASSWORD, Field::secret_text)?;
    let file = layers.read_optional(CERTIFICATE_PASSWORD_FILE, Field::path)?;
    Ok(value.map(SecretSource::Value).or(file.map(SecretSource::File)))
}

/// Returns whether a file has the extension of a PFX file. A PFX file contains the private key.
fn is_pfx(file: &Path) -> bool {
    file.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| ["pfx", "p12"].iter().any(|known| known.eq_ignore_ascii_case(extension)))
}

fn reject_both(layers: &Layers, one: &str, other: &str) -> Result<(), Error> {
    match (layers.get(one), layers.get(other)) {
        (Some(one), Some(other)) => {
            let (key, location) = (other.key(), other.location());
            Err(one.conflict(&format!("{key} ({location})")))
        }
        _ => Ok(()),
    }
}

fn require_key(layers: &Layers, key: &str, required: &str) -> Result<(), Error> {
    match (layers.get(key), layers.get(required)) {
        (Some(field), None) => Err(field.error(format!(
            "has no effect without {required}; set {required} too, or remove the key"
        ))),
        _ => Ok(()),
    }
}

fn no_credential(layers: &Layers) -> Error {
    let [first, ..] = CREDENTIALS;
    let (keys, variables) = (CREDENTIALS.join(", "), CREDENTIALS.map(keys::variable).join(", "));
    layers.error(
        first,
        format!("is required, unless another credential is set; set one of {keys} in the file, or one of {variables}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{from_both, from_file, message};

    fn credential(keys: &str) -> Credential {
        from_file(&format!("auth: {{client_id: demo, {keys}}}"))
            .unwrap()
            .auth
            .credential
    }

    #[test]
    fn credentials_of_each_kind_are_loaded() {
        assert_eq!(
            credential("client_secret: hunter2"),
            Credential::Secret("hunter2".into())
        );
        assert_eq!(
            credential("client_secret_file: /run/secret"),
            Credential::SecretFile("/run/secret".into())
        );
        assert_eq!(
            credential("certificate_file: id.PFX, certificate_password: hunter2"),
            Credential::Certificate {
                file: "id.PFX".into(),
                private_key: None,
                password: Some(SecretSource::Value("hunter2".into())),
            }
        );
        assert_eq!(
            credential("certificate_file: id.pem, private_key_file: key.pem, certificate_password_file: /run/password"),
            Credential::Certificate {
                file: "id.pem".into(),
                private_key: Some("key.pem".into()),
                password: Some(SecretSource::File("/run/password".into())),
            }
        );
        assert_eq!(
            credential("certificate_file: both.pem"),
            Credential::Certificate {
                file: "both.pem".into(),
                private_key: None,
                password: None,
            }
        );
    }

    #[test]
    fn exactly_one_credential_is_required() {
        assert_eq!(
            message(from_file("auth: {client_id: demo}")),
            "elements.yml: auth.client_secret: is required, unless another credential is set; set one of auth.client_secret, auth.client_secret_file, auth.certificate_file in the file, \
             or one of ELEMENTS_AUTH__CLIENT_SECRET, ELEMENTS_AUTH__CLIENT_SECRET_FILE, ELEMENTS_AUTH__CERTIFICATE_FILE"
        );
        assert_eq!(
            message(from_both(
                "auth: {client_id: demo, client_secret: hunter2}",
                &[("ELEMENTS_AUTH__CLIENT_SECRET_FILE", "/run/secret")]
            )),
            "elements.yml:1: auth.client_secret: conflicts with auth.client_secret_file (ELEMENTS_AUTH__CLIENT_SECRET_FILE); \
             set only one of them"
        );
        for (keys, first, second) in [
            ("client_secret: x, certificate_file: y", CLIENT_SECRET, CERTIFICATE_FILE),
            (
                "client_secret_file: x, certificate_file: y",
                CLIENT_SECRET_FILE,
                CERTIFICATE_FILE,
            ),
            (
                "certificate_file: x, certificate_password: y, certificate_password_file: z",
                CERTIFICATE_PASSWORD,
                CERTIFICATE_PASSWORD_FILE,
            ),
            (
                "certificate_file: x.p12, private_key_file: y",
                CERTIFICATE_FILE,
                PRIVATE_KEY_FILE,
            ),
        ] {
            assert_eq!(
                message(from_file(&format!("auth: {{client_id: demo, {keys}}}"))),
                format!("elements.yml:1: {first}: conflicts with {second} (elements.yml:1); set only one of them")
            );
        }
    }

    #[test]
    fn certificate_keys_need_a_certificate() {
        for key in CERTIFICATE_KEYS {
            let name = key.strip_prefix("auth.").unwrap();
            let yaml = format!("auth: {{client_id: demo, client_secret: x, {name}: y}}");
            assert_eq!(
                message(from_file(&yaml)),
                format!(
                    "elements.yml:1: {key}: has no effect without auth.certificate_file; set auth.certificate_file too, or remove the key"
                )
            );
        }
    }

    #[test]
    fn client_id_is_required() {
        assert_eq!(
            message(from_file("")),
            "elements.yml: auth.client_id: is required; set it in the file or as ELEMENTS_AUTH__CLIENT_ID"
        );
    }
}
