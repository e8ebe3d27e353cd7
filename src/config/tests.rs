//! Tests of all sections: every key, every source of values, and invalid files.

pub(crate) mod samples;
mod schema;

use std::collections::BTreeSet;

use self::samples::samples;
use super::*;
use crate::collector::ids;

pub(crate) const CREDENTIALS: &str = "auth: {client_id: demo, client_secret: demo-secret}\n";

pub(crate) fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let text = result.unwrap_err().to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

pub(crate) fn from_file(yaml: &str) -> Result<Config, Error> {
    from_both(yaml, &[])
}

/// Loads the text of a file, preceded by [`CREDENTIALS`].
pub(crate) fn config_with(yaml: &str) -> Config {
    from_file(&format!("{CREDENTIALS}{yaml}")).unwrap()
}

pub(crate) fn from_environment(variables: &[(&str, &str)]) -> Result<Config, Error> {
    load(None, pairs(variables))
}

/// Loads the configuration from the text of a file called `elements.yml` and from environment variables.
pub(crate) fn from_both(yaml: &str, variables: &[(&str, &str)]) -> Result<Config, Error> {
    Config::read(&Layers::merge(
        Some((Path::new("elements.yml"), yaml)),
        pairs(variables),
    )?)
}

/// Loads a file with these bytes, and returns the error message without the directory.
fn message_of_file(bytes: &[u8]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("elements.yml");
    std::fs::write(&path, bytes).unwrap();
    message(load(Some(&path), [])).replace(&format!("{}/", directory.path().display()), "")
}

fn pairs(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// Returns the text of a file that sets `path` to `value`.
pub(crate) fn yaml_of(path: &str, value: &str) -> String {
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

/// Returns environment variables for the other keys that a key requires.
fn required_with(path: &str) -> Vec<(&'static str, &'static str)> {
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
    let sampled: BTreeSet<_> = samples().iter().map(|(path, _, _)| *path).collect();
    let known: BTreeSet<_> = KEYS.iter().map(|key| key.path).collect();
    assert_eq!(sampled, known);
}

#[test]
fn keys_take_effect_from_the_file() {
    for (path, value, took_effect) in samples() {
        let config = from_both(&yaml_of(path, value), &required_with(path));
        assert!(took_effect(&config.unwrap_or_else(|error| panic!("{error}"))), "{path}");
    }
}

#[test]
fn keys_take_effect_from_the_environment() {
    for (path, value, took_effect) in samples() {
        let variable = keys::variable(path);
        let mut variables = required_with(path);
        variables.push((&variable, value));
        let config = from_environment(&variables);
        assert!(took_effect(&config.unwrap_or_else(|error| panic!("{error}"))), "{path}");
    }
}

#[test]
fn empty_file_has_the_defaults() {
    let empty = config_with("");
    let mut all = vec![
        ("ELEMENTS_AUTH__CLIENT_ID", "demo"),
        ("ELEMENTS_AUTH__CLIENT_SECRET", "demo-secret"),
    ];
    let variables: Vec<_> = KEYS.iter().map(Key::variable).collect();
    for (key, variable) in KEYS.iter().zip(&variables) {
        if let KeyDefault::Value(default) = key.default {
            let config = from_both(&yaml_of(key.path, default), &required_with(key.path)[..2]);
            let config = config.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(config, empty, "{}", key.path);
            all.push((variable, default));
        }
    }
    assert_eq!(from_environment(&all).unwrap(), empty);
}

#[test]
fn environment_overrides_the_file() {
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
fn key_with_an_empty_value_is_not_set() {
    let yaml = format!("---\n{CREDENTIALS}api:\ncollectors:\n  jobs:\nmetrics:\n  series_limit:\nrpo: ~\n");
    assert_eq!(from_file(&yaml).unwrap(), config_with(""));
    let variables = [
        ("ELEMENTS_AUTH__CLIENT_ID", "demo"),
        ("ELEMENTS_AUTH__CLIENT_SECRET", "demo-secret"),
    ];
    for yaml in ["", "# api:\n", "---\n# api:\n", "{}"] {
        assert_eq!(from_both(yaml, &variables).unwrap(), config_with(""), "{yaml:?}");
    }
}

#[test]
fn unknown_keys_are_rejected() {
    for (yaml, problem) in [
        (
            "colectors: {jobs: {interval: 5m}}",
            "unknown key \"colectors.jobs.interval\"; did you mean \"collectors.jobs.interval\"?",
        ),
        (
            "telemetry: {}",
            "unknown key \"telemetry\"; expected api, auth, customers, collectors, rpo, metrics, events, state",
        ),
        (
            "7: x",
            "unknown key \"7\"; expected api, auth, customers, collectors, rpo, metrics, events, state",
        ),
        (
            "collectors: {jobs.interval: 5m}",
            "unknown key \"collectors.jobs.interval\"; did you mean \"interval:\" under \"collectors: jobs:\"?",
        ),
        (
            "collectors: {jobs: [x]}",
            "collectors.jobs: must be a mapping, not a list; expected enabled, interval, stale_after, job_types, job_modules",
        ),
    ] {
        assert_eq!(message(from_file(yaml)), format!("elements.yml:1: {problem}"));
    }
}

#[test]
fn unknown_variables_are_rejected_unless_kubernetes_sets_them() {
    assert_eq!(
        message(from_environment(&[("ELEMENTS_AUTH_CLIENT_ID", "demo")])),
        "ELEMENTS_AUTH_CLIENT_ID: unknown environment variable; did you mean ELEMENTS_AUTH__CLIENT_ID?"
    );
    assert_eq!(
        message(from_environment(&[("ELEMENTS_FROBNICATE", "1")])),
        "ELEMENTS_FROBNICATE: unknown environment variable; expected ELEMENTS_ followed by a key, such as ELEMENTS_API__TIMEOUT"
    );
    let injected = [
        ("PATH", "/bin"),
        ("ELEMENTS_PORT", "tcp://10.0.0.1:10027"),
        ("ELEMENTS_EXPORTER_SERVICE_HOST", "10.0.0.1"),
        ("ELEMENTS_EXPORTER_PORT_10027_TCP_ADDR", "10.0.0.1"),
    ];
    assert_eq!(from_both(CREDENTIALS, &injected).unwrap(), config_with(""));
}

#[cfg(unix)]
#[test]
fn variables_that_are_not_text_are_rejected() {
    use std::os::unix::ffi::OsStringExt as _;
    let environment = |name: &str| [(OsString::from(name), OsString::from_vec(vec![0xff]))];
    assert_eq!(
        message(load(None, environment("ELEMENTS_API__TIMEOUT"))),
        "ELEMENTS_API__TIMEOUT: api.timeout: is not valid UTF-8"
    );
    assert_eq!(message(load(None, environment("LS_COLORS"))), message(load(None, [])));
}

#[test]
fn errors_contain_file_and_line() {
    for (yaml, problem) in [
        (
            "api:\n  timeout: 5s\n  timeout: 6s\n",
            ":3: duplicate key \"timeout\", already set at elements.yml:2",
        ),
        ("api: [\n", ":2: is not YAML ("),
        ("api:\n\ttimeout: 5s\n", ":2: is not YAML ("),
        (
            "api:\n\n  timeout: soon\n",
            ":3: api.timeout: \"soon\" is not a duration",
        ),
        (
            "rpo:\n  overrides:\n    - rpo: 1h\n    - scope: x\n      rpo: soon\n",
            ":5: rpo.overrides[1].rpo: ",
        ),
        (
            "customers:\n  include:\n    - a\n    - '[b'\n",
            ":4: customers.include[1]: \"[b\" is not a glob (",
        ),
        (
            "api: {timeout: 5s}\n---\napi: {}\n",
            ":2: contains more than one YAML document; expected one",
        ),
    ] {
        let text = message(from_file(yaml));
        assert!(text.starts_with(&format!("elements.yml{problem}")), "{text}");
    }
}

#[test]
fn files_without_a_configuration_are_rejected() {
    assert_eq!(
        message(from_file("hunter2")),
        "elements.yml:1: must be a mapping, not text; expected api, auth, customers, collectors, rpo, metrics, events, state"
    );
    assert_eq!(
        message_of_file(&[b' '; (1 << 20) + 1]),
        "elements.yml is larger than 1048576 bytes; is it the right file?"
    );
    assert_eq!(
        message_of_file(&[0xff]),
        "elements.yml is not UTF-8 text; save it as UTF-8"
    );
    assert_eq!(
        message(load(Some(Path::new("no/such.yml")), [])),
        "cannot read no/such.yml"
    );
}

#[test]
fn invalid_values_are_reported_before_missing_ones() {
    for (yaml, start) in [
        ("nope: 1\napi: {timeout: soon}", "elements.yml:1: unknown key \"nope\""),
        (
            "api: {timeout: soon}",
            "elements.yml:1: api.timeout: \"soon\" is not a duration",
        ),
        (
            "auth: {client_secret_expires: soon}",
            "elements.yml:1: auth.client_secret_expires: \"soon\" is not a date",
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
fn debug_output_and_errors_contain_no_secret() {
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
fn unfilled_template_is_rejected_without_its_text() {
    assert_eq!(
        message(from_file("auth: {client_secret: {{ hunter2 }}}")),
        "elements.yml:1: has a key that is not text; put it in quotes"
    );
}

#[test]
fn file_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("elements.yml");
    for byte_order_mark in ["", "\u{feff}"] {
        std::fs::write(&path, format!("{byte_order_mark}{CREDENTIALS}")).unwrap();
        assert_eq!(load(Some(&path), []).unwrap(), config_with(""));
    }
}

#[test]
fn customer_list_cannot_be_disabled() {
    let message_text = message(from_file("collectors:\n  customers:\n    enabled: false\n"));
    assert!(
        message_text.contains("collectors.customers.enabled") && message_text.contains("expected true"),
        "{message_text}"
    );
}

#[test]
fn lists_are_parsed_from_the_environment() {
    let words = |text: &str| -> Result<Vec<String>, Error> {
        let config = from_both(CREDENTIALS, &[("ELEMENTS_CUSTOMERS__INCLUDE", text)])?;
        Ok(config
            .customers
            .include
            .iter()
            .map(|pattern| pattern.written().to_owned())
            .collect())
    };
    assert_eq!(words("one, other,,303").unwrap(), ["one", "other", "303"]);
    assert_eq!(words("[]").unwrap(), [""; 0]);
    assert_eq!(
        words("[\"Contoso, Ltd\",\n303, it's # comment\n]").unwrap(),
        ["Contoso, Ltd", "303", "it's"]
    );
    for text in ["[one, other", "[one], other: [two]"] {
        let shown = message(words(text));
        let start = format!("ELEMENTS_CUSTOMERS__INCLUDE: customers.include: \"{text}\" is not a list (");
        assert!(shown.starts_with(&start), "{shown}");
        assert!(shown.ends_with("); expected a list such as [a, b] or a,b"), "{shown}");
    }
}

#[test]
fn keys_do_not_accept_a_mapping() {
    for yaml in ["auth: {client_secret: {hunter2: hunter2}}", "api: {timeout: {}}"] {
        let text = message(from_file(yaml));
        assert!(
            text.contains(": a mapping is not allowed here; expected ") && !text.contains("hunter2"),
            "{text}"
        );
    }
}

#[test]
fn v3_collectors_are_rejected_with_v1() {
    for collector in ids().filter(|collector| collector.descriptor().is_optional) {
        let name = collector.name();
        let yaml = |version: &str| {
            format!("{CREDENTIALS}api: {{version: {version}}}\ncollectors: {{{name}: {{enabled: true}}}}\n")
        };
        assert_eq!(
            message(from_file(&yaml("v1"))),
            format!(
                "elements.yml:3: collectors.{name}.enabled: \"true\" requires API v3; expected false, \
                 or api.version: v3 or auto"
            )
        );
        for version in ["v3", "auto"] {
            let config = from_file(&yaml(version)).unwrap();
            assert!(config.plans.get(collector).enabled);
        }
        let off = config_with("api: {version: v1}\n");
        assert!(!off.plans.get(collector).enabled);
    }
}

#[test]
fn collector_is_rejected_without_its_prerequisite() {
    let yaml = "collectors:\n  jobs: {enabled: false}\n  job_reports: {enabled: true}\n";
    assert_eq!(
        message(from_file(yaml)),
        "elements.yml:2: collectors.jobs.enabled: \"false\" disables a collector that collectors.job_reports needs; expected true"
    );
}
