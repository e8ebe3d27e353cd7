use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    digest,
    signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey},
};
use serde_json::Value;
use x509_parser::pem::Pem;

use crate::api::credential::{Credential, CredentialError};
use crate::secret::SecretSource;

const PASSWORD: &str = "correct horse";
const TOKEN_URL: &str = "https://identity.example/connect/token";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/credentials")
        .join(name)
}

fn load(certificate: &str, key: Option<&str>, password: Option<&str>) -> Result<Credential, CredentialError> {
    let password = password.map(|password| SecretSource::Value(password.into()));
    Credential::certificate(&fixture(certificate), key.map(fixture).as_deref(), password)
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_700_000_000_900)
}

fn assertion(credential: &Credential) -> String {
    let fields = credential.proof("client-1", TOKEN_URL, now()).unwrap();
    assert_eq!(fields.len(), 2);
    assert_eq!(fields[0].0, "client_assertion_type");
    assert_eq!(
        fields[0].1.expose(),
        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    );
    assert_eq!(fields[1].0, "client_assertion");
    fields[1].1.expose().to_owned()
}

/// Returns the header and claims of an assertion, after verifying its signature with the certificate in a PEM fixture.
fn verified(assertion: &str, certificate: &str) -> (Value, Value) {
    let pem = fs::read(fixture(certificate)).unwrap();
    let pem = Pem::iter_from_buffer(&pem).next().unwrap().unwrap();
    let certificate = pem.parse_x509().unwrap();
    let public_key = &certificate.public_key().subject_public_key.data;
    let (message, signature) = assertion.rsplit_once('.').unwrap();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public_key)
        .verify(message.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap())
        .expect("the signature must match the certificate");

    let (header, claims) = message.split_once('.').unwrap();
    let decode =
        |segment: &str| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(segment).unwrap()).unwrap() };
    let (header, claims) = (decode(header), decode(claims));

    let thumbprint = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &pem.contents);
    let x5t = URL_SAFE_NO_PAD.decode(header["x5t"].as_str().unwrap());
    assert_eq!(x5t.unwrap(), thumbprint.as_ref());
    (header, claims)
}

#[test]
fn assertion_has_the_claims_of_the_reference() {
    let credential = load("cert.pem", Some("key.pem"), None).unwrap();
    let (header, claims) = verified(&assertion(&credential), "cert.pem");

    assert_eq!(header["alg"], "RS256");
    assert_eq!(header["typ"], "JWT");
    let kid = header["kid"].as_str().unwrap();
    let x5t = URL_SAFE_NO_PAD.decode(header["x5t"].as_str().unwrap()).unwrap();
    assert_eq!(kid.len(), 40);
    for (hex, byte) in kid.as_bytes().chunks(2).zip(x5t) {
        assert_eq!(hex, format!("{byte:02X}").as_bytes());
    }

    assert_eq!(claims["iss"], "client-1");
    assert_eq!(claims["sub"], "client-1");
    assert_eq!(claims["aud"], TOKEN_URL);
    assert_eq!(claims["nbf"], 1_699_999_940);
    assert_eq!(claims["iat"], 1_700_000_000);
    assert_eq!(claims["exp"], 1_700_000_300);
}

#[test]
fn assertions_have_different_jti() {
    let credential = load("cert.pem", Some("key.pem"), None).unwrap();
    let ids: HashSet<String> = (0..5)
        .map(|_| verified(&assertion(&credential), "cert.pem").1["jti"].to_string())
        .collect();
    assert_eq!(ids.len(), 5);
    for id in ids {
        let bytes = URL_SAFE_NO_PAD.decode(id.trim_matches('"')).unwrap();
        assert_eq!(bytes.len(), 16);
    }
}

#[test]
fn key_pair_signs_from_every_supported_format() {
    for (certificate, key, password) in [
        ("cert.pem", Some("key.pem"), None),
        ("cert.pem", Some("key.pem"), Some("not needed")),
        ("cert.pem", Some("key-pkcs1.pem"), None),
        ("cert.pem", Some("key-encrypted.pem"), Some(PASSWORD)),
        ("cert.pem", Some("key-encrypted-pbes1.pem"), Some(PASSWORD)),
        ("modern.pfx", None, Some(PASSWORD)),
        ("legacy.pfx", None, Some(PASSWORD)),
        ("chain.pfx", None, Some(PASSWORD)),
        ("nopassword.pfx", None, Some("")),
        ("nopassword.pfx", None, None),
    ] {
        let credential =
            load(certificate, key, password).unwrap_or_else(|error| panic!("{certificate} {key:?}: {error:?}"));
        verified(&assertion(&credential), "cert.pem");
    }
}

#[test]
fn pem_may_contain_key_certificate_and_chain_in_any_order() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let [key, leaf, chain] = ["key.pem", "cert.pem", "other-cert.pem"].map(|name| fs::read(fixture(name)).unwrap());
    for parts in [[&key, &leaf, &chain], [&leaf, &chain, &key]] {
        let parts = parts.map(|part| part.as_slice());
        fs::write(file.path(), parts.join(&b"Bag Attributes: <none>\r\n"[..])).unwrap();
        let credential = Credential::certificate(file.path(), None, None).unwrap();
        verified(&assertion(&credential), "cert.pem");
    }
}

#[test]
fn certificate_expiry_is_parsed() {
    let credential = load("modern.pfx", None, Some(PASSWORD)).unwrap();
    let pem = fs::read(fixture("cert.pem")).unwrap();
    let pem = Pem::iter_from_buffer(&pem).next().unwrap().unwrap();
    let expected = pem.parse_x509().unwrap().validity().not_after.timestamp();
    assert_eq!(credential.expires(), Some(expected));
}

#[test]
fn debug_output_has_no_password_or_key() {
    let credential = load("modern.pfx", None, Some(PASSWORD)).unwrap();
    let shown = format!("{credential:?}");
    assert!(!shown.contains(PASSWORD), "{shown}");
    assert!(!shown.contains("private_exponent"), "{shown}");
}

/// Asserts that loading fails with an error of this variant, whose message contains the last argument.
macro_rules! assert_rejected {
    ($certificate:expr, $key:expr, $password:expr, $variant:ident, $names:expr) => {{
        let error = load($certificate, $key, $password).unwrap_err();
        assert!(matches!(error, CredentialError::$variant { .. }), "{error:?}");
        assert!(error.to_string().contains($names), "{error}");
    }};
}

#[test]
fn wrong_and_missing_passwords_have_different_errors() {
    for archive in ["modern.pfx", "legacy.pfx"] {
        assert_rejected!(archive, None, Some("wrong"), WrongPassword, archive);
        assert_rejected!(archive, None, None, PasswordMissing, archive);
    }
    for key in ["key-encrypted.pem", "key-encrypted-pbes1.pem"] {
        assert_rejected!("cert.pem", Some(key), Some("wrong"), WrongPassword, key);
        assert_rejected!("cert.pem", Some(key), None, PasswordMissing, key);
    }
    assert_rejected!(
        "cert.pem",
        Some("key-encrypted-pkcs1.pem"),
        Some(PASSWORD),
        UnsupportedEncryption,
        "key-encrypted-pkcs1.pem"
    );
}

#[test]
fn unusable_keys_have_different_errors() {
    assert_rejected!("cert.pem", Some("other-key.pem"), None, Mismatch, "other-key.pem");
    assert_rejected!("ec-cert.pem", Some("ec-key.pem"), None, NotRsa, "ec-cert.pem");
    assert_rejected!("cert.pem", Some("ec-key.pem"), None, NotRsa, "ec-key.pem");
    assert_rejected!("cert.pem", Some("ec-key-sec1.pem"), None, NotRsa, "ec-key-sec1.pem");
    assert_rejected!("small-cert.pem", Some("small-key.pem"), None, KeySize, "1024");
    assert_rejected!("cert.pem", Some("small-key.pem"), None, UnusableKey, "small-key.pem");
    assert_rejected!("cert.pem", None, None, NoPrivateKey, "cert.pem");
    assert_rejected!("cert.pem", Some("cert.pem"), None, NoPrivateKey, "cert.pem");
    assert_rejected!("keyless.pfx", None, Some(PASSWORD), NoPrivateKey, "keyless.pfx");
    assert_rejected!(
        "modern.pfx",
        Some("key.pem"),
        Some(PASSWORD),
        KeyBesideArchive,
        "modern.pfx"
    );
}

#[test]
fn files_without_a_certificate_are_rejected() {
    assert_rejected!("key.pem", None, None, NotCertificate, "key.pem");
    assert_rejected!("make", None, None, NotCertificate, "make");
    assert_rejected!("absent.pem", None, None, File, "absent.pem");
    assert_rejected!("cert.pem", Some("absent.pem"), None, File, "absent.pem");

    let file = tempfile::NamedTempFile::new().unwrap();
    let pem = fs::read(fixture("cert.pem")).unwrap();
    let der = Pem::iter_from_buffer(&pem).next().unwrap().unwrap().contents;
    let load = |content: &[u8]| {
        fs::write(file.path(), content).unwrap();
        Credential::certificate(file.path(), None, None).unwrap_err()
    };
    assert!(matches!(load(b""), CredentialError::NotCertificate { .. }));
    assert!(matches!(load(&der), CredentialError::NotCertificate { .. }));
    assert!(matches!(
        load(&pem[..pem.len() / 2]),
        CredentialError::DamagedPem { .. }
    ));
    let archive = fs::read(fixture("modern.pfx")).unwrap();
    assert!(matches!(
        load(&archive[..archive.len() / 2]),
        CredentialError::UnreadableArchive { .. }
    ));
}

#[test]
fn byte_order_mark_before_certificate_or_key_is_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let marked = |name: &str| {
        let path = directory.path().join(name);
        fs::write(
            &path,
            [b"\xef\xbb\xbf", fs::read(fixture(name)).unwrap().as_slice()].concat(),
        )
        .unwrap();
        path
    };
    let password = directory.path().join("password");
    fs::write(&password, format!("\u{feff}{PASSWORD}\r\n")).unwrap();
    let credential = Credential::certificate(
        &marked("cert.pem"),
        Some(&marked("key-encrypted.pem")),
        Some(SecretSource::File(password)),
    );
    verified(&assertion(&credential.unwrap()), "cert.pem");
}

#[test]
fn certificate_and_its_password_are_rotated_together() {
    let directory = tempfile::tempdir().unwrap();
    let [file, key, password] = ["cert", "key", "password"].map(|name| directory.path().join(name));
    let put = |name: &str, to: &Path| fs::copy(fixture(name), to).unwrap();
    put("cert.pem", &file);
    put("key.pem", &key);
    fs::write(&password, "not needed yet\n").unwrap();
    let source = || Some(SecretSource::File(password.clone()));
    let credential = Credential::certificate(&file, Some(&key), source()).unwrap();
    let first = credential.fingerprint();

    put("key-encrypted.pem", &key);
    let second = credential.fingerprint();
    assert!(second != first);
    let error = credential.proof("client-1", TOKEN_URL, now()).unwrap_err();
    assert!(matches!(error, CredentialError::WrongPassword { .. }));

    fs::write(&password, PASSWORD).unwrap();
    assert!(credential.fingerprint() != second, "a changed password must be tried");
    verified(&assertion(&credential), "cert.pem");

    // The archive has no password, and the password file contains only a line break.
    put("nopassword.pfx", &file);
    fs::write(&password, "\n").unwrap();
    let credential = Credential::certificate(&file, None, source()).unwrap();
    verified(&assertion(&credential), "cert.pem");
}

#[test]
fn rotated_pair_is_used_when_both_files_match() {
    let directory = tempfile::tempdir().unwrap();
    let [certificate, key] = ["cert", "key"].map(|name| directory.path().join(name));
    let put = |name: &str, to: &Path| fs::copy(fixture(name), to).unwrap();
    put("cert.pem", &certificate);
    put("key.pem", &key);
    let credential = Credential::certificate(&certificate, Some(&key), None).unwrap();
    let first = credential.fingerprint();
    assert!(first.is_some() && first == credential.fingerprint());

    put("other-cert.pem", &certificate);
    assert!(credential.fingerprint() != first);
    let error = credential.proof("client-1", TOKEN_URL, now()).unwrap_err();
    assert!(matches!(error, CredentialError::Mismatch { .. }));

    put("other-key.pem", &key);
    verified(&assertion(&credential), "other-cert.pem");
}
