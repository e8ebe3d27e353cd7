use std::fs;

use tempfile::TempDir;

use super::*;

const TLS: &str = "tls_server_config:\n  cert_file: server.pem\n  key_file: server-key.pem\n";
const CLIENTS: &str = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n";
const ANY_CLIENT: &str = "  client_auth_type: RequireAnyClientCert\n";
const NAMES: &str = "  client_allowed_sans: [prometheus.example]\n";
const USERS: &str = "basic_auth_users:\n  alice: $2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG\n";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/web")
        .join(name)
}

/// A directory with a web configuration and its PEM files.
struct Files(TempDir);

impl Files {
    fn new(text: &str) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        for name in ["server.pem", "server-key.pem", "ca.pem"] {
            files.put(name, name);
        }
        files.write(text);
        files
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("web.yml")
    }

    fn write(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
    }

    fn put(&self, name: &str, from: &str) {
        fs::copy(fixture(from), self.0.path().join(name)).unwrap();
    }

    fn error(&self) -> String {
        let Err(error) = Guard::load(&self.path()) else {
            panic!("the configuration was accepted")
        };
        error_chain(&error)
    }
}

/// Checks the files. Returns whether a new configuration is active, and the last error.
fn check_files(guard: &Guard) -> (bool, Option<String>) {
    let before = Arc::clone(&lock(&guard.state).active);
    guard.check_files();
    let state = lock(&guard.state);
    (!Arc::ptr_eq(&before, &state.active), state.last_error.clone())
}

#[test]
fn unchanged_configuration_stays_active() {
    let files = Files::new(&format!("{TLS}{CLIENTS}{USERS}"));
    let guard = Guard::load(&files.path()).unwrap();
    assert!(guard.serves_tls());
    assert_eq!(check_files(&guard), (false, None));
    files.put("server.pem", "server.pem");
    assert_eq!(check_files(&guard), (false, None));
}

#[test]
fn new_certificate_and_key_apply_together() {
    let files = Files::new(TLS);
    let guard = Guard::load(&files.path()).unwrap();
    files.put("server.pem", "renewed.pem");
    let (changed, error) = check_files(&guard);
    assert!(
        !changed
            && error
                .unwrap()
                .contains("server-key.pem: does not belong to the certificate")
    );
    files.put("server-key.pem", "renewed-key.pem");
    assert_eq!(check_files(&guard), (true, None));
    assert_eq!(check_files(&guard), (false, None));
}

#[test]
fn error_is_cleared_when_the_old_file_is_restored() {
    let files = Files::new(TLS);
    let guard = Guard::load(&files.path()).unwrap();
    fs::remove_file(files.0.path().join("server.pem")).unwrap();
    assert!(check_files(&guard).1.unwrap().contains("tls_server_config.cert_file"));
    files.put("server.pem", "server.pem");
    assert_eq!(check_files(&guard), (false, None));
}

#[test]
fn protection_can_be_added_but_not_removed() {
    let files = Files::new("");
    let guard = Guard::load(&files.path()).unwrap();
    for (text, gone) in [
        (USERS.to_owned(), "basic_auth_users"),
        (format!("{USERS}{TLS}"), "tls_server_config"),
        (format!("{USERS}{TLS}{ANY_CLIENT}"), "a mandatory client_auth_type"),
        (
            format!("{USERS}{TLS}{CLIENTS}"),
            "the verification of client certificates",
        ),
        (format!("{USERS}{TLS}{CLIENTS}{NAMES}"), "client_allowed_sans"),
    ] {
        let before = fs::read_to_string(files.path()).unwrap();
        files.write(&text);
        assert_eq!(check_files(&guard), (true, None), "{text}");
        files.write(&before);
        let (changed, error) = check_files(&guard);
        assert!(!changed && error.unwrap().contains(&format!("{gone} was removed")));
        files.write("");
        assert!(!check_files(&guard).0);
        files.write(&text);
        assert_eq!(check_files(&guard), (false, None));
    }
}

#[test]
fn unusable_certificates_and_keys_are_reported() {
    let key = |name: &str| format!("tls_server_config:\n  cert_file: server.pem\n  key_file: {name}\n");
    let files = Files::new("");
    files.put("encrypted-key.pem", "encrypted-key.pem");
    fs::write(
        files.0.path().join("damaged.pem"),
        "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    for (text, problem) in [
        (key("nowhere.pem"), "nowhere.pem: No such file"),
        (key("server.pem"), "contains no private key; expected one in PEM format"),
        (
            key("encrypted-key.pem"),
            "contains an encrypted key; expected one without a passphrase",
        ),
        (
            TLS.replace(": server.pem", ": server-key.pem"),
            "contains no certificate; expected one in PEM format",
        ),
        (
            TLS.replace(": server.pem", ": damaged.pem"),
            "contains a damaged certificate; expected valid PEM",
        ),
        (
            TLS.replace(": server.pem", ": ca.pem"),
            "does not belong to the certificate",
        ),
        (
            format!("{TLS}{}", CLIENTS.replace("ca.pem", "server-key.pem")),
            "server-key.pem: contains no certificate",
        ),
    ] {
        files.write(&text);
        let error = files.error();
        assert!(error.contains("web.yml:") && error.contains(problem), "{error}");
    }
    fs::remove_file(files.path()).unwrap();
    assert!(files.error().contains("web.yml: No such file"));
}

#[test]
fn pem_may_be_inline() {
    let indented = |name: &str| fs::read_to_string(fixture(name)).unwrap().replace('\n', "\n    ");
    let files = Files::new(&format!(
        "tls_server_config:\n  cert: |\n    {}\n  key: |\n    {}\n",
        indented("server.pem"),
        indented("server-key.pem")
    ));
    assert!(Guard::load(&files.path()).unwrap().serves_tls());
}
