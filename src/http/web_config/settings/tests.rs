use super::*;

const CERTIFICATE: &str = "tls_server_config:\n  cert_file: server.pem\n  key_file: /keys/server-key.pem\n";
const HASH: &str = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG";

fn parsed(text: &str) -> WebSettings {
    WebSettings::parse(Path::new("/etc/elements/web.yml"), text).unwrap()
}

fn error(text: &str) -> String {
    WebSettings::parse(Path::new("web.yml"), text).unwrap_err().to_string()
}

fn tls(more: &str) -> Tls {
    parsed(&format!("{CERTIFICATE}{more}")).tls.unwrap()
}

fn tls_error(more: &str) -> String {
    error(&format!("{CERTIFICATE}{more}"))
}

fn suites(tls: &Tls) -> Vec<&'static str> {
    tls.cipher_suites
        .iter()
        .map(|suite| suite.suite().as_str().unwrap())
        .collect()
}

#[test]
fn tls_section_must_not_be_empty() {
    for text in [
        "\ntls_server_config:\n",
        "\ntls_server_config: {}\n",
        "\ntls_server_config: ~\n",
    ] {
        let message = error(text);
        assert!(message.contains("web.yml:2: tls_server_config: is empty"), "{message}");
    }
}

#[test]
fn empty_file_has_no_requirements() {
    for text in [
        "",
        "{}",
        "basic_auth_users: {}\nhttp_server_config: {headers: }\nrate_limit:\n",
    ] {
        let settings = parsed(text);
        assert!(settings.tls.is_none() && settings.headers.is_empty() && settings.users.is_empty());
    }
}

#[test]
fn paths_are_relative_to_the_file() {
    let tls = tls("  client_ca_file: ../ca.pem\n  client_auth_type: RequireAndVerifyClientCert\n");
    let path = |pem_setting: &PemSetting| match &pem_setting.source {
        PemSource::File(path) => path.to_str().unwrap().to_owned(),
        PemSource::Inline(_) => panic!("the PEM text is inline"),
    };
    assert_eq!(path(&tls.certificate), "/etc/elements/server.pem");
    assert_eq!(path(&tls.key), "/keys/server-key.pem");
    assert_eq!(path(&tls.client_authorities.unwrap()), "/etc/elements/../ca.pem");
    assert_eq!(tls.client_auth, ClientAuth::RequireAndVerify);
}

#[test]
fn defaults_match_the_exporter_toolkit() {
    let tls = tls("");
    assert_eq!(tls.versions, [&TLS12, &TLS13]);
    assert_eq!(tls.client_auth, ClientAuth::None);
    assert!(tls.prefer_own_order);
    assert_eq!(tls.cipher_suites.len(), ring::DEFAULT_CIPHER_SUITES.len());
    assert_eq!(tls.groups.len(), 3);
}

#[test]
fn versions_suites_and_groups_are_restricted() {
    assert_eq!(tls("  min_version: TLS13\n").versions, [&TLS13]);
    assert_eq!(tls("  max_version: TLS12\n").versions, [&TLS12]);
    let chosen = tls(
        "  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256]\n  \
                      curve_preferences: [CurveP384, X25519]\n  prefer_server_cipher_suites: false\n",
    );
    assert_eq!(
        suites(&chosen),
        [
            "TLS13_AES_256_GCM_SHA384",
            "TLS13_AES_128_GCM_SHA256",
            "TLS13_CHACHA20_POLY1305_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"
        ]
    );
    assert!(!chosen.prefer_own_order);
    let groups: Vec<_> = chosen.groups.iter().map(|group| group.name()).collect();
    assert_eq!(groups, [rustls::NamedGroup::secp384r1, rustls::NamedGroup::X25519]);
    assert_eq!(tls("  cipher_suites: [TLS_AES_128_GCM_SHA256]\n").versions, [&TLS13]);
    assert_eq!(tls("  cipher_suites: []\n").versions.len(), 2);
}

#[test]
fn errors_contain_line_key_and_expected_values() {
    for (text, parts) in [
        (
            "  min_version: TLS11\n",
            ["web.yml:4", "tls_server_config.min_version", "TLS12 or TLS13"],
        ),
        (
            "  max_version: TLS10\n",
            ["web.yml:4", "\"TLS10\" is insecure", "TLS12 or TLS13"],
        ),
        ("  min_version: 1.2\n", ["web.yml:4", "\"1.2\"", "TLS12, TLS13"]),
        (
            "  min_version: TLS13\n  max_version: TLS12\n",
            ["tls_server_config.min_version", "above", "max_version"],
        ),
        (
            "\n  cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]\n",
            ["web.yml:5", "cipher_suites[0]", "TLS_ECDHE_ECDSA_WITH"],
        ),
        (
            "  cipher_suites: {TLS_AES_128_GCM_SHA256: }\n",
            ["web.yml:4", "cipher_suites", "not a list"],
        ),
        (
            "  cipher_suites:\n  - TLS_AES_128_GCM_SHA256\n  max_version: TLS12\n",
            ["web.yml:4", "no cipher suite", "TLS 1.2"],
        ),
        (
            "  curve_preferences:\n    - X25519\n    - CurveP521\n",
            ["web.yml:6", "curve_preferences[1]", "CurveP384"],
        ),
        (
            "  prefer_server_cipher_suites: 2\n",
            ["web.yml:4", "\"2\"", "true or false"],
        ),
        (
            "  client_auth_type: Require\n",
            ["web.yml:4", "\"Require\"", "RequireAndVerifyClientCert"],
        ),
        (
            "  client_auth_type: RequireAndVerifyClientCert\n",
            ["client_ca_file", "required", "client_ca"],
        ),
        (
            "  client_auth_type: VerifyClientCertIfGiven\n",
            ["client_ca_file", "required", "client_ca"],
        ),
        (
            "  client_ca_file: ca.pem\n",
            ["web.yml:4", "client_ca_file", "client_auth_type"],
        ),
        (
            "  client_allowed_sans: [a]\n",
            ["web.yml:4", "client_allowed_sans", "client_auth_type"],
        ),
        (
            "  client_auth_type: RequireAnyClientCert\n  client_allowed_sans: []\n",
            ["web.yml:5", "empty list", "remove the key"],
        ),
        (
            "  cert: pem\n",
            ["web.yml:4", "tls_server_config.cert", "conflicts with cert_file"],
        ),
        ("  client_ca: \"\"\n", ["web.yml:4", "client_ca", "empty"]),
    ] {
        let error = tls_error(text);
        assert!(error.starts_with("web.yml:"), "{error}");
        for part in parts {
            assert!(error.contains(part), "{error} lacks {part}");
        }
    }
}

#[test]
fn tls_without_a_certificate_is_not_plain_http() {
    for text in [
        "tls_server_config: {min_version: TLS13}",
        "tls_server_config: {key_file: key.pem}",
        "tls_server_config: {cert_file: , key_file: key.pem}",
    ] {
        let error = error(text);
        assert!(error.contains("tls_server_config.cert_file: is required"), "{error}");
    }
    let error = error("tls_server_config: {cert_file: a.pem}");
    assert!(error.contains("tls_server_config.key_file: is required"), "{error}");
}

#[test]
fn unknown_keys_are_rejected_with_a_suggestion() {
    for (text, line, key, hint) in [
        (
            "tls_config:\n  cert_file: a\n",
            2,
            "tls_config.cert_file",
            "\"tls_server_config.cert_file\"",
        ),
        (
            "http_server_config:\n  headers:\n    x-frame-options: deny\n",
            3,
            "http_server_config.headers.x-frame-options",
            "\"http_server_config.headers.X-Frame-Options\"",
        ),
        (
            "basic_auth_user:\n  a: b\n",
            1,
            "basic_auth_user",
            "\"basic_auth_users\"",
        ),
        (
            "zzz: 1\n",
            1,
            "zzz",
            "tls_server_config, http_server_config, basic_auth_users",
        ),
    ] {
        let error = error(text);
        assert!(
            error.starts_with(&format!("web.yml:{line}: unknown key \"{key}\"; ")),
            "{error}"
        );
        assert!(error.contains(hint), "{error} lacks {hint}");
    }
}

#[test]
fn malformed_files_are_rejected() {
    for (text, part) in [
        (
            "- a\n",
            "web.yml:1: must be a mapping, not a list; expected tls_server_config",
        ),
        ("rate_limit:\n  burst: 1\n", "web.yml:1: rate_limit: is not supported"),
        (
            "http_server_config:\n  http2: maybe\n",
            "web.yml:2: http_server_config.http2: \"maybe\" is not a boolean",
        ),
    ] {
        let error = error(text);
        assert!(error.contains(part), "{error} lacks {part}");
    }
}

#[test]
fn headers_match_the_exporter_toolkit() {
    let settings = parsed(
        "http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n    X-XSS-Protection: \"\"\n    \
         Content-Security-Policy: default-src 'self'\n",
    );
    let headers: Vec<_> = settings
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    assert_eq!(
        headers,
        [
            ("x-frame-options", "deny"),
            ("content-security-policy", "default-src 'self'")
        ]
    );
    let error = |line: &str| error(&format!("http_server_config:\n  headers:\n    {line}\n"));
    assert!(error("X-Content-Type-Options: sniff").contains("\"sniff\" is not allowed; expected nosniff"));
    assert!(error("X-Frame-Options: allow").contains("\"allow\" is not allowed; expected deny or sameorigin"));
    assert!(error("X-XSS-Protection: \"a\\nb\"").contains("expected one line"));
}

#[test]
fn users_are_parsed_and_errors_contain_no_hash() {
    let settings = parsed(&format!("basic_auth_users:\n  alice: {HASH}\n  1234: {HASH}\n"));
    let names: Vec<_> = settings.users.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["1234", "alice"]);
    for (user, problem) in [
        (
            "alice: hunter2".to_owned(),
            "web.yml:2: basic_auth_users.alice: is not a bcrypt hash",
        ),
        (
            format!("alice: {}", HASH.replace("$10$", "$31$")),
            "has a cost of 31; expected a cost from 4 to 16",
        ),
        (format!("alice: {}", HASH.replace("$10$", "$03$")), "has a cost of 3;"),
        ("alice:".to_owned(), "must be text, not null"),
        (format!("\"a:b\": {HASH}"), "contains a colon"),
    ] {
        let error = error(&format!("basic_auth_users:\n  {user}\n"));
        assert!(error.contains(problem), "{error}");
        assert!(!error.contains("hunter2") && !error.contains("X0h1gDsP"), "{error}");
    }
}

#[test]
fn debug_output_contains_no_secret() {
    let settings = parsed(&format!(
        "tls_server_config: {{cert: certificate, key: hunter2}}\nbasic_auth_users: {{alice: {HASH}}}\n"
    ));
    let shown = format!("{settings:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("X0h1gDsP"), "{shown}");
}
