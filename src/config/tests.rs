//! The sections together: every key, every layer, every file.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use super::*;
use crate::domain::Gigabyte;
use std::collections::BTreeSet;

const CREDENTIALS: &str = "auth: {client_id: demo, client_secret: demo-secret}\n";

/// The names of a few numbers, spelled as the reference does and one shorter.
pub(crate) fn names() -> Names {
    Names {
        service: |name| match name {
            "Microsoft 365" => Some(7),
            "Salesforce" => Some(15),
            _ => None,
        },
        module: |name| match name {
            "Exchange Online" | "Exchange" => Some(303),
            "Power BI" => Some(310),
            _ => None,
        },
    }
}

pub(crate) fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let text = result.unwrap_err().to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

pub(crate) fn from_file(yaml: &str) -> Result<Config, Error> {
    from_both(yaml, &[])
}

pub(crate) fn from_environment(variables: &[(&str, &str)]) -> Result<Config, Error> {
    load(None, pairs(variables), names())
}

/// The configuration of a file called `elements.yml` under an environment.
pub(crate) fn from_both(yaml: &str, variables: &[(&str, &str)]) -> Result<Config, Error> {
    let mut settings = Settings::default();
    settings.add_text(Path::new("elements.yml"), yaml)?;
    settings.add_environment(pairs(variables))?;
    Config::read(&settings, names())
}

/// Loads through a real file, whose directory is left out of the message.
fn message_of_file(bytes: &[u8]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("elements.yml");
    std::fs::write(&path, bytes).unwrap();
    message(load(Some(&path), [], names())).replace(&format!("{}/", directory.path().display()), "")
}

fn pairs(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// The file that sets `path` to `value` and, where that is not it, the credentials.
fn yaml_of(path: &str, value: &str) -> String {
    let mut lines = String::new();
    let segments: Vec<_> = path.split('.').collect();
    for (depth, segment) in segments.iter().enumerate() {
        let end = if depth + 1 == segments.len() {
            format!(" {value}")
        } else {
            String::new()
        };
        lines.push_str(&format!("{}{segment}:{end}\n", "  ".repeat(depth)));
    }
    lines
}

type Sample = (&'static str, &'static str, fn(&Config) -> bool);

/// A value of every key that is not its default, and how to see that it took effect.
const SAMPLES: &[Sample] = &[
    ("api.version", "v3", |c| c.api.version == Version::V3),
    ("api.environment", "aos2", |c| c.api.environment == Environment::Aos2),
    ("api.base_url", "https://graph-us.example.com", |c| {
        c.api.base_url.as_str() == "https://graph-us.example.com/"
    }),
    ("api.token_url", "https://id.example.com/token", |c| {
        c.api.token_url.as_str() == "https://id.example.com/token"
    }),
    ("api.v1_base_path", "/partner/api/V1.1", |c| {
        c.api.v1_base_path == "/partner/api/V1.1"
    }),
    ("api.proxy_url", "http://proxy:3128", |c| {
        c.api.proxy_url.as_ref().unwrap().expose().as_str() == "http://proxy:3128/"
    }),
    ("api.ca_file", "ca.pem", |c| c.api.ca_file == Some("ca.pem".into())),
    ("api.timeout", "45s", |c| c.api.timeout.as_secs() == 45),
    ("api.requests_per_second", "2.5", |c| c.api.requests_per_second == 2.5),
    ("api.max_concurrency", "3", |c| c.api.max_concurrency == 3),
    ("api.gigabyte", "decimal", |c| c.api.gigabyte == Gigabyte::Decimal),
    ("auth.client_id", "other", |c| c.auth.client_id == "other"),
    ("auth.client_secret", "other", |c| {
        c.auth.credential == Credential::Secret("other".into())
    }),
    ("auth.client_secret_file", "secret", |c| {
        c.auth.credential == Credential::SecretFile("secret".into())
    }),
    ("auth.client_secret_expires", "1970-01-02", |c| {
        c.auth.secret_expires == Some(86_400)
    }),
    (
        "auth.certificate_file",
        "id.pem",
        |c| matches!(&c.auth.credential, Credential::Certificate { file, .. } if file == Path::new("id.pem")),
    ),
    (
        "auth.private_key_file",
        "key.pem",
        |c| matches!(&c.auth.credential, Credential::Certificate { private_key: Some(file), .. } if file == Path::new("key.pem")),
    ),
    ("auth.certificate_password", "pass", |c| {
        matches!(
            &c.auth.credential,
            Credential::Certificate {
                password: Some(Password::Value(_)),
                ..
            }
        )
    }),
    ("auth.certificate_password_file", "pass", |c| {
        matches!(
            &c.auth.credential,
            Credential::Certificate {
                password: Some(Password::File(_)),
                ..
            }
        )
    }),
    ("customers.include", "[Contoso]", |c| {
        !c.customers.admits("x", "Fabrikam")
    }),
    ("customers.exclude", "[Contoso]", |c| {
        !c.customers.admits("x", "Contoso")
    }),
    // Its other value is refused, because every other collector stands on this one.
    ("collectors.customers.enabled", "true", |c| {
        collector(c, "customers").enabled
    }),
    ("collectors.customers.interval", "2m", |c| {
        collector(c, "customers").interval.as_secs() == 120
    }),
    ("collectors.customers.stale_after", "1day", |c| {
        collector(c, "customers").stale_after.as_secs() == 86_400
    }),
    ("collectors.licenses.enabled", "false", |c| {
        !collector(c, "licenses").enabled
    }),
    ("collectors.licenses.interval", "2m", |c| {
        collector(c, "licenses").interval.as_secs() == 120
    }),
    ("collectors.licenses.stale_after", "1day", |c| {
        collector(c, "licenses").stale_after.as_secs() == 86_400
    }),
    ("collectors.jobs.enabled", "false", |c| !collector(c, "jobs").enabled),
    ("collectors.jobs.interval", "2m", |c| {
        collector(c, "jobs").interval.as_secs() == 120
    }),
    ("collectors.jobs.stale_after", "1day", |c| {
        collector(c, "jobs").stale_after.as_secs() == 86_400
    }),
    ("collectors.jobs.job_types", "[7]", |c| c.jobs.job_types == [7]),
    ("collectors.jobs.job_modules", "[Power BI]", |c| {
        c.jobs.job_modules == [310]
    }),
    ("collectors.protected.enabled", "false", |c| {
        !collector(c, "protected").enabled
    }),
    ("collectors.protected.interval", "2m", |c| {
        collector(c, "protected").interval.as_secs() == 120
    }),
    ("collectors.protected.stale_after", "1day", |c| {
        collector(c, "protected").stale_after.as_secs() == 86_400
    }),
    ("collectors.scan_profiles.enabled", "false", |c| {
        !collector(c, "scan_profiles").enabled
    }),
    ("collectors.scan_profiles.interval", "2m", |c| {
        collector(c, "scan_profiles").interval.as_secs() == 120
    }),
    ("collectors.scan_profiles.stale_after", "1day", |c| {
        collector(c, "scan_profiles").stale_after.as_secs() == 86_400
    }),
    ("collectors.scan_changes.enabled", "false", |c| {
        !collector(c, "scan_changes").enabled
    }),
    ("collectors.scan_changes.interval", "2m", |c| {
        collector(c, "scan_changes").interval.as_secs() == 120
    }),
    ("collectors.scan_changes.stale_after", "1day", |c| {
        collector(c, "scan_changes").stale_after.as_secs() == 86_400
    }),
    ("collectors.scan_changes.objects", "true", |c| c.scan_changes_objects),
    ("rpo.default", "30h", |c| c.rpo.default.as_secs() == 108_000),
    ("rpo.overrides", "[{rpo: none}]", |c| {
        c.rpo.objective("x", "", "", "").is_none()
    }),
    ("metrics.owner_email", "true", |c| c.metrics.owner_email),
    ("metrics.series_limit", "100000", |c| {
        c.metrics.series_limit == Some(100_000)
    }),
    ("state.file", "state.bin", |c| c.state_file == Some("state.bin".into())),
];

fn collector<'a>(config: &'a Config, name: &str) -> &'a Collector {
    config.collectors.get(name).unwrap()
}

/// What else must be set for a key to be accepted.
fn company_of(path: &str) -> Vec<(&'static str, &'static str)> {
    let secret = ("ELEMENTS_AUTH__CLIENT_SECRET", "demo-secret");
    let id = ("ELEMENTS_AUTH__CLIENT_ID", "demo");
    match path {
        "api.environment" => vec![id, secret, ("ELEMENTS_API__BASE_URL", "https://graph.example.com")],
        "auth.client_id" => vec![secret],
        "auth.client_secret" | "auth.client_secret_file" | "auth.certificate_file" => vec![id],
        "auth.private_key_file" | "auth.certificate_password" | "auth.certificate_password_file" => {
            vec![id, ("ELEMENTS_AUTH__CERTIFICATE_FILE", "id.pem")]
        }
        _ => vec![id, secret],
    }
}

#[test]
fn every_key_has_a_sample() {
    let sampled: BTreeSet<_> = SAMPLES.iter().map(|(path, _, _)| *path).collect();
    let known: BTreeSet<_> = KEYS.iter().map(|key| key.path).collect();
    assert_eq!(sampled, known);
}

#[test]
fn every_key_takes_effect_from_the_file() {
    for (path, value, took_effect) in SAMPLES {
        let config = from_both(&yaml_of(path, value), &company_of(path));
        assert!(took_effect(&config.unwrap_or_else(|error| panic!("{error}"))), "{path}");
    }
}

#[test]
fn every_key_takes_effect_from_the_environment() {
    for (path, value, took_effect) in SAMPLES {
        let variable = keys::variable(path);
        let mut variables = company_of(path);
        variables.push((&variable, value));
        let config = from_environment(&variables);
        assert!(took_effect(&config.unwrap_or_else(|error| panic!("{error}"))), "{path}");
    }
}

#[test]
fn every_default_is_what_an_empty_file_means() {
    let empty = from_file(CREDENTIALS).unwrap();
    let mut all = vec![
        ("ELEMENTS_AUTH__CLIENT_ID", "demo"),
        ("ELEMENTS_AUTH__CLIENT_SECRET", "demo-secret"),
    ];
    let variables: Vec<_> = KEYS.iter().map(Key::variable).collect();
    for (key, variable) in KEYS.iter().zip(&variables) {
        if let Preset::Value(default) = key.default {
            let config = from_both(&yaml_of(key.path, default), &company_of(key.path)[..2]);
            let config = config.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(config, empty, "{}", key.path);
            all.push((variable, default));
        }
    }
    assert_eq!(from_environment(&all).unwrap(), empty);
}

#[test]
fn the_environment_overrides_the_file() {
    let yaml = format!("{CREDENTIALS}api: {{timeout: 10s, max_concurrency: 2}}");
    let config = from_both(
        &yaml,
        &[("ELEMENTS_API__TIMEOUT", "20s"), ("ELEMENTS_AUTH__CLIENT_ID", "other")],
    )
    .unwrap();
    assert_eq!(config.api.timeout.as_secs(), 20);
    assert_eq!(config.api.max_concurrency, 2);
    assert_eq!(config.auth.client_id, "other");
    let unset = from_both(&yaml, &[("ELEMENTS_API__TIMEOUT", "")]).unwrap();
    assert_eq!(unset.api.timeout.as_secs(), 10);
}

#[test]
fn what_is_set_to_nothing_is_not_set() {
    let yaml = format!("---\n{CREDENTIALS}api:\ncollectors:\n  jobs:\nmetrics:\n  series_limit:\nrpo: ~\n");
    assert_eq!(from_file(&yaml).unwrap(), from_file(CREDENTIALS).unwrap());
    let variables = [
        ("ELEMENTS_AUTH__CLIENT_ID", "demo"),
        ("ELEMENTS_AUTH__CLIENT_SECRET", "demo-secret"),
    ];
    for yaml in ["", "# api:\n", "---\n# api:\n", "{}", "\u{feff}api:\n  timeout: 30s\n"] {
        assert_eq!(
            from_both(yaml, &variables).unwrap(),
            from_file(CREDENTIALS).unwrap(),
            "{yaml:?}"
        );
    }
}

#[test]
fn refuses_unknown_keys() {
    for (yaml, problem) in [
        (
            "colectors: {jobs: }",
            "unknown key \"colectors.jobs\"; did you mean \"collectors.jobs\"?",
        ),
        (
            "colectors: {jobs: {interval: 5m}}",
            "unknown key \"colectors.jobs.interval\"; did you mean \"collectors.jobs.interval\"?",
        ),
        (
            "client_id: demo",
            "unknown key \"client_id\"; did you mean \"auth.client_id\"?",
        ),
        ("telemetry: {sampling: 5}", "unknown key \"telemetry.sampling\""),
        ("telemetry: {}", "unknown key \"telemetry\""),
        ("7: x", "unknown key \"7\""),
        (
            "api.timeout: 5s",
            "unknown key \"api.timeout\"; did you mean \"timeout:\" below \"api:\"?",
        ),
        (
            "collectors: {jobs.interval: 5m}",
            "unknown key \"collectors.jobs.interval\"; did you mean \"interval:\" below \"collectors: jobs:\"?",
        ),
        (
            "auth: hunter2",
            "auth: text is not a section; expected keys below it, such as auth.client_id",
        ),
        (
            "collectors: {jobs: [x]}",
            "collectors.jobs: a list is not a section; expected keys below it, such as collectors.jobs.enabled",
        ),
    ] {
        assert_eq!(message(from_file(yaml)), format!("elements.yml: {problem}"));
    }
}

#[test]
fn refuses_unknown_variables_but_not_those_of_kubernetes() {
    assert_eq!(
        message(from_environment(&[("ELEMENTS_AUTH_CLIENT_ID", "demo")])),
        "unknown environment variable ELEMENTS_AUTH_CLIENT_ID; did you mean ELEMENTS_AUTH__CLIENT_ID?"
    );
    assert_eq!(
        message(from_environment(&[("ELEMENTS_FROBNICATE", "1")])),
        "unknown environment variable ELEMENTS_FROBNICATE"
    );
    let injected = [
        ("PATH", "/bin"),
        ("ELEMENTS_PORT", "tcp://10.0.0.1:10027"),
        ("ELEMENTS_EXPORTER_SERVICE_HOST", "10.0.0.1"),
        ("ELEMENTS_EXPORTER_PORT_10027_TCP_ADDR", "10.0.0.1"),
    ];
    assert_eq!(
        from_both(CREDENTIALS, &injected).unwrap(),
        from_file(CREDENTIALS).unwrap()
    );
}

#[cfg(unix)]
#[test]
fn refuses_a_variable_that_is_not_text() {
    use std::os::unix::ffi::OsStringExt as _;
    let environment = |name: &str| [(OsString::from(name), OsString::from_vec(vec![0xff]))];
    assert_eq!(
        message(load(None, environment("ELEMENTS_API__TIMEOUT"), names())),
        "ELEMENTS_API__TIMEOUT: the value is not valid UTF-8"
    );
    let other = load(None, environment("LS_COLORS"), names());
    assert!(matches!(other, Err(Error::Missing { .. })));
}

#[test]
fn names_the_file_the_line_and_the_column() {
    for (yaml, problem) in [
        (
            "api:\n  timeout: 5s\n  timeout: 6s\n",
            "line 3 column 12: duplicate key \"timeout\"",
        ),
        ("api: [\n", "line 2 column 1: "),
        ("api:\n\ttimeout: 5s\n", "line 2 column "),
        (
            "api: {timeout: 5s}\n---\napi: {}\n",
            "holds more than one YAML document; expected one",
        ),
    ] {
        let text = message(from_file(yaml));
        assert!(text.starts_with(&format!("elements.yml: {problem}")), "{text}");
    }
}

#[test]
fn refuses_files_that_are_no_configuration() {
    assert_eq!(
        message(from_file("hunter2")),
        "elements.yml: is not a mapping; expected sections such as auth: and api:"
    );
    assert_eq!(
        message_of_file(&[b' '; (1 << 20) + 1]),
        "elements.yml: is larger than 1048576 bytes; is this the configuration file?"
    );
    assert_eq!(message_of_file(&[0xff]), "elements.yml: cannot be read");
    assert_eq!(
        message(load(Some(Path::new("no/such.yml")), [], names())),
        "no/such.yml: cannot be read"
    );
}

#[test]
fn tells_what_is_wrong_before_what_is_missing() {
    for (yaml, start) in [
        ("nope: 1\napi: {timeout: soon}", "elements.yml: unknown key \"nope\""),
        (
            "api: {timeout: soon}",
            "elements.yml: api.timeout: \"soon\" is not a duration",
        ),
        (
            "auth: {client_secret_expires: soon}",
            "elements.yml: auth.client_secret_expires: \"soon\" is not a date",
        ),
    ] {
        let text = message(from_file(yaml));
        assert!(text.starts_with(start), "{text}");
    }
    let variables = [("ELEMENTS_METRICS__SERIES_LIMIT", "0")];
    assert_eq!(
        message(from_environment(&variables)),
        "ELEMENTS_METRICS__SERIES_LIMIT: metrics.series_limit: \"0\" is out of range; expected a whole number of at least 1"
    );
}

#[test]
fn shows_no_secret() {
    for yaml in [
        "auth: {client_id: demo, client_secret: [hunter2]}",
        "auth: {client_id: demo, client_secret: {hunter2: hunter2}}",
        "auth: {client_id: demo, certificate_file: x, certificate_password: {hunter2}}",
        "auth: [hunter2]",
        "api: {proxy_url: 'socks5://me:hunter2@proxy'}",
    ] {
        let error = from_file(yaml).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
    let yaml = "auth: {client_id: demo, client_secret: hunter2}\napi: {proxy_url: 'http://me:hunter2@proxy'}";
    let config = from_file(yaml).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn an_unfilled_template_is_refused_without_its_text() {
    assert_eq!(
        message(from_file("auth: {client_secret: {{ hunter2 }}}")),
        "elements.yml: holds a key or a number that cannot be read; put it in quotes"
    );
}

#[test]
fn loads_a_real_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("elements.yml");
    std::fs::write(&path, CREDENTIALS).unwrap();
    assert_eq!(load(Some(&path), [], names()).unwrap(), from_file(CREDENTIALS).unwrap());
}

#[test]
fn the_customer_list_cannot_be_switched_off() {
    let said = message(from_file("collectors:\n  customers:\n    enabled: false\n"));
    assert!(
        said.contains("collectors.customers.enabled") && said.contains("expected true"),
        "{said}"
    );
}
