//! The section `auth`: who the exporter is and how it proves it.

use std::path::{Path, PathBuf};

use super::error::Error;
use super::keys;
use super::layers::Settings;
use super::setting::Setting;
use crate::secret::Secret;

/// Who the exporter is and how it proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// The client id of the app registration.
    pub client_id: String,
    /// The one proof that is configured.
    pub credential: Credential,
    /// When the client secret ends, in seconds since the Unix epoch, as the operator noted it. Says nothing of a certificate.
    pub secret_expires: Option<i64>,
}

/// The proof of an identity. Files are named here and read where they are used, so that a rotated one takes effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A client secret.
    Secret(Secret),
    /// A file that holds a client secret.
    SecretFile(PathBuf),
    /// A certificate whose key signs assertions.
    Certificate {
        /// A PFX (`.pfx`, `.p12`), or else a PEM file.
        file: PathBuf,
        /// The PEM file of the key; `None` with a PFX, and with a PEM file that holds the key itself.
        private_key: Option<PathBuf>,
        /// The password of the PFX or of the key.
        password: Option<Password>,
    },
}

/// A password, or where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// The password itself.
    Value(Secret),
    /// A file that holds it.
    File(PathBuf),
}

const CLIENT_ID: &str = "auth.client_id";
const CLIENT_SECRET: &str = "auth.client_secret";
const CLIENT_SECRET_FILE: &str = "auth.client_secret_file";
const CERTIFICATE_FILE: &str = "auth.certificate_file";
const PRIVATE_KEY_FILE: &str = "auth.private_key_file";
const CERTIFICATE_PASSWORD: &str = "auth.certificate_password";
const CERTIFICATE_PASSWORD_FILE: &str = "auth.certificate_password_file";

/// The keys of which exactly one must be set.
const CREDENTIALS: [&str; 3] = [CLIENT_SECRET, CLIENT_SECRET_FILE, CERTIFICATE_FILE];

/// The keys that are about a certificate.
const OF_CERTIFICATE: [&str; 3] = [PRIVATE_KEY_FILE, CERTIFICATE_PASSWORD, CERTIFICATE_PASSWORD_FILE];

impl Auth {
    pub(super) fn read(settings: &Settings) -> Result<Self, Error> {
        let secret_expires = settings.read("auth.client_secret_expires", Setting::date)?;
        let client_id = settings.read(CLIENT_ID, |setting| setting.text().map(str::to_owned))?;
        let credential = credential(settings)?;
        let Some(client_id) = client_id else {
            return Err(Error::Missing {
                key: CLIENT_ID,
                because: String::new(),
                variable: keys::variable(CLIENT_ID),
            });
        };
        Ok(Self {
            client_id,
            credential: credential.ok_or_else(no_credential)?,
            secret_expires,
        })
    }
}

/// `None` where nothing is configured.
fn credential(settings: &Settings) -> Result<Option<Credential>, Error> {
    let secret = settings.read(CLIENT_SECRET, Setting::secret)?.map(Credential::Secret);
    let secret_file = settings
        .read(CLIENT_SECRET_FILE, Setting::path)?
        .map(Credential::SecretFile);
    let certificate = settings.read(CERTIFICATE_FILE, Setting::path)?;
    let private_key = settings.read(PRIVATE_KEY_FILE, Setting::path)?;
    let password = password(settings)?;

    let [of_secret, of_secret_file, of_certificate] = CREDENTIALS;
    exclusive(settings, of_secret, of_secret_file)?;
    exclusive(settings, of_secret, of_certificate)?;
    exclusive(settings, of_secret_file, of_certificate)?;
    let Some(file) = certificate else {
        for key in OF_CERTIFICATE {
            useful(settings, key, CERTIFICATE_FILE)?;
        }
        return Ok(secret.or(secret_file));
    };
    if is_pfx(&file) {
        exclusive(settings, CERTIFICATE_FILE, PRIVATE_KEY_FILE)?;
    }
    Ok(Some(Credential::Certificate {
        file,
        private_key,
        password,
    }))
}

fn password(settings: &Settings) -> Result<Option<Password>, Error> {
    exclusive(settings, CERTIFICATE_PASSWORD, CERTIFICATE_PASSWORD_FILE)?;
    let value = settings.read(CERTIFICATE_PASSWORD, Setting::secret)?;
    let file = settings.read(CERTIFICATE_PASSWORD_FILE, Setting::path)?;
    Ok(value.map(Password::Value).or(file.map(Password::File)))
}

/// A PFX holds its key; the name is what tells it from a PEM file before it is read.
fn is_pfx(file: &Path) -> bool {
    file.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| ["pfx", "p12"].iter().any(|known| known.eq_ignore_ascii_case(extension)))
}

fn exclusive(settings: &Settings, one: &'static str, other: &'static str) -> Result<(), Error> {
    match (settings.get(one), settings.get(other)) {
        (Some(first), Some(second)) => Err(Error::Conflict {
            first_key: one,
            first: first.origin().clone(),
            second_key: other,
            second: second.origin().clone(),
        }),
        _ => Ok(()),
    }
}

fn useful(settings: &Settings, key: &'static str, needs: &'static str) -> Result<(), Error> {
    match (settings.get(key), settings.get(needs)) {
        (Some(setting), None) => Err(Error::Useless {
            origin: setting.origin().clone(),
            key,
            needs,
        }),
        _ => Ok(()),
    }
}

fn no_credential() -> Error {
    Error::NoCredential {
        keys: CREDENTIALS.join(", "),
        variables: CREDENTIALS.map(keys::variable).join(", "),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::tests::{from_both, from_file, message};

    fn credential(keys: &str) -> Credential {
        from_file(&format!("auth: {{client_id: demo, {keys}}}"))
            .unwrap()
            .auth
            .credential
    }

    #[test]
    fn each_kind_of_credential() {
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
                password: Some(Password::Value("hunter2".into())),
            }
        );
        assert_eq!(
            credential("certificate_file: id.pem, private_key_file: key.pem, certificate_password_file: /run/password"),
            Credential::Certificate {
                file: "id.pem".into(),
                private_key: Some("key.pem".into()),
                password: Some(Password::File("/run/password".into())),
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
    fn exactly_one_kind_of_credential() {
        assert_eq!(
            message(from_file("auth: {client_id: demo}")),
            "a credential is required: set one of auth.client_secret, auth.client_secret_file, auth.certificate_file in the file, \
             or one of ELEMENTS_AUTH__CLIENT_SECRET, ELEMENTS_AUTH__CLIENT_SECRET_FILE, ELEMENTS_AUTH__CERTIFICATE_FILE"
        );
        assert_eq!(
            message(from_both(
                "auth: {client_id: demo, client_secret: hunter2}",
                &[("ELEMENTS_AUTH__CLIENT_SECRET_FILE", "/run/secret")]
            )),
            "auth.client_secret (elements.yml) and auth.client_secret_file (ELEMENTS_AUTH__CLIENT_SECRET_FILE) \
             exclude each other; set only one of them"
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
                format!("{first} (elements.yml) and {second} (elements.yml) exclude each other; set only one of them")
            );
        }
    }

    #[test]
    fn what_is_about_a_certificate_needs_one() {
        for key in OF_CERTIFICATE {
            let name = key.strip_prefix("auth.").unwrap();
            let yaml = format!("auth: {{client_id: demo, client_secret: x, {name}: y}}");
            assert_eq!(
                message(from_file(&yaml)),
                format!("elements.yml: {key} is of no use without auth.certificate_file")
            );
        }
    }

    #[test]
    fn the_client_id_is_required() {
        assert_eq!(
            message(from_file("")),
            "auth.client_id is required: set it in the file or as ELEMENTS_AUTH__CLIENT_ID"
        );
    }
}
