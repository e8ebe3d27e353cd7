//! The one place that knows the keys: their names, their environment variables, what they take and what they are for.

use std::fmt::Write as _;
use std::sync::LazyLock;

use crate::collector;

use crate::spelling::nearest;

/// What every environment variable of the exporter begins with.
pub const PREFIX: &str = "ELEMENTS_";

/// One key of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The dotted path, as in `api.requests_per_second`.
    pub path: &'static str,
    /// What holds where the key is not set.
    pub default: Preset,
    /// What the key takes, as a phrase.
    pub takes: &'static str,
    /// What the key is for, as a sentence.
    pub about: &'static str,
    /// Whether its value must never be shown.
    pub secret: bool,
}

/// What holds where a key is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Nothing: the key must be set.
    Required,
    /// This value, as it would be written in the file.
    Value(&'static str),
    /// No value of the key, but what these words say.
    Otherwise(&'static str),
}

impl Preset {
    /// The words for a reference.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Value(text) | Self::Otherwise(text) => text,
        }
    }
}

impl Key {
    /// The environment variable that overrides the key, as in `ELEMENTS_API__REQUESTS_PER_SECOND`.
    pub fn variable(&self) -> String {
        variable(self.path)
    }
}

const NONE: Preset = Preset::Otherwise("none");

/// Every key, in the order of the reference: those of the collectors come from the table of collectors.
pub static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let of_collectors = collector::ALL.iter().flat_map(|entry| {
        let path = |key: &str| spelled(format!("collectors.{}.{key}", entry.name));
        let default = spelled(humantime::format_duration(entry.interval).to_string());
        [
            enabled(path("enabled")),
            interval(path("interval"), default),
            stale_after(path("stale_after")),
        ]
    });
    let before = BEFORE_COLLECTORS.iter().copied();
    before
        .chain(of_collectors)
        .chain(AFTER_COLLECTORS.iter().copied())
        .collect()
});

/// A text that lives as long as the process, as the keys do, which are made once.
fn spelled(text: String) -> &'static str {
    text.leak()
}

const BEFORE_COLLECTORS: &[Key] = &[
    key(
        "api.version",
        Preset::Value("auto"),
        "`v1`, `v3` or `auto`",
        "The generation of the API to speak; `auto` is v3 where the registration holds its customers scope, else v1.",
    ),
    key(
        "api.environment",
        Preset::Value("commercial"),
        "`commercial`, `us-gov`, `aos2` or `fedramp`",
        "The AvePoint environment that the registration lives in; it sets the token URL.",
    ),
    key(
        "api.base_url",
        Preset::Otherwise("by environment"),
        "an `https` URL, or plain `http` to a loopback address",
        "The address of the API; required outside `commercial`, whose address alone is published.",
    ),
    key(
        "api.token_url",
        Preset::Otherwise("by environment"),
        "an `https` URL, or plain `http` to a loopback address",
        "The address that issues access tokens.",
    ),
    key(
        "api.v1_base_path",
        Preset::Value("/partner"),
        "a path that starts with `/`",
        "Where the first generation begins below the base URL; `/partner/api/V1.1` for the older path.",
    ),
    key(
        "api.proxy_url",
        NONE,
        "an `http` or `https` URL, with or without credentials",
        "The proxy for every request to the API and for tokens.",
    ),
    key(
        "api.ca_file",
        NONE,
        "the path of a PEM file",
        "Certificate authorities to trust besides the system's.",
    ),
    key(
        "api.timeout",
        Preset::Value("30s"),
        "a duration from 1s to 10m",
        "How long one request may take, from connecting to the last byte of the answer.",
    ),
    key(
        "api.requests_per_second",
        Preset::Value("5"),
        "a number above 0, at most 1000",
        "The ceiling of the request rate; below it the client adapts to throttling by itself.",
    ),
    key(
        "api.max_concurrency",
        Preset::Value("8"),
        "a whole number from 1 to 256",
        "How many requests may be under way at once.",
    ),
    key(
        "api.gigabyte",
        Preset::Value("binary"),
        "`binary` or `decimal`",
        "Whether a GB of the API is 2³⁰ or 10⁹ bytes, which its reference leaves open.",
    ),
    key(
        "auth.client_id",
        Preset::Required,
        "text",
        "The client id of the app registration.",
    ),
    secret("auth.client_secret", "The client secret of the app registration."),
    key(
        "auth.client_secret_file",
        NONE,
        "the path of a file",
        "A file that holds the client secret; read again whenever a token is needed.",
    ),
    key(
        "auth.client_secret_expires",
        NONE,
        "a date such as 2027-01-31, or a timestamp",
        "When the client secret ends, as Elements showed it when the secret was made; for alerts only.",
    ),
    key(
        "auth.certificate_file",
        NONE,
        "the path of a `.pfx`, `.p12` or PEM file",
        "The certificate that proves the identity in place of a secret.",
    ),
    key(
        "auth.private_key_file",
        NONE,
        "the path of a PEM file",
        "The certificate's private key, where a PEM certificate does not hold it itself.",
    ),
    secret(
        "auth.certificate_password",
        "The password of the certificate or of its private key.",
    ),
    key(
        "auth.certificate_password_file",
        NONE,
        "the path of a file",
        "A file that holds the password of the certificate or of its private key.",
    ),
    key(
        "customers.include",
        Preset::Otherwise("everything"),
        "a list of customer ids, or globs over the organization's name",
        "The customers to watch.",
    ),
    key(
        "customers.exclude",
        Preset::Otherwise("nothing"),
        "a list of customer ids, or globs over the organization's name",
        "The customers to leave out; wins over `customers.include`.",
    ),
];

const AFTER_COLLECTORS: &[Key] = &[
    key(
        "collectors.jobs.job_types",
        Preset::Otherwise("all"),
        "a list of names or numbers of services",
        "The services whose jobs to ask for.",
    ),
    key(
        "collectors.jobs.job_modules",
        Preset::Otherwise("all"),
        "a list of names or numbers of modules",
        "The modules whose jobs to ask for.",
    ),
    key(
        "collectors.scan_changes.objects",
        Preset::Value("false"),
        "`true` or `false`",
        "Whether to count changed objects per container, too.",
    ),
    key(
        "rpo.default",
        Preset::Value("26h"),
        "a duration",
        "How old the newest restore point of a module may be.",
    ),
    key(
        "rpo.overrides",
        NONE,
        "a list of `{customer, service, module, rpo}`",
        "Other objectives for some: each of the first three is an id, name or glob, or left out; the first that fits counts; `rpo: none` exempts.",
    ),
    key(
        "metrics.owner_email",
        Preset::Value("false"),
        "`true` or `false`",
        "Whether the owner's address is a label of `elements_customer_info`.",
    ),
    key(
        "metrics.series_limit",
        NONE,
        "a whole number above 0",
        "How many series to expose at most; beyond it new ones are refused and counted. \
         Lowered by a reload, it takes nothing away that is held.",
    ),
    key(
        "state.file",
        NONE,
        "the path of a file",
        "Where runs and last values are remembered across restarts.",
    ),
];

const fn key(path: &'static str, default: Preset, takes: &'static str, about: &'static str) -> Key {
    Key {
        path,
        default,
        takes,
        about,
        secret: false,
    }
}

const fn secret(path: &'static str, about: &'static str) -> Key {
    Key {
        path,
        default: NONE,
        takes: "text",
        about,
        secret: true,
    }
}

const fn enabled(path: &'static str) -> Key {
    key(
        path,
        Preset::Value("true"),
        "`true` or `false`",
        "Whether the collector runs.",
    )
}

const fn interval(path: &'static str, default: &'static str) -> Key {
    key(
        path,
        Preset::Value(default),
        "a duration from 1s to 30days",
        "How often the collector polls.",
    )
}

const fn stale_after(path: &'static str) -> Key {
    key(
        path,
        Preset::Otherwise("3 × interval"),
        "a duration; where it is shorter than the interval, values go between two polls",
        "How long values outlive the last good poll.",
    )
}

/// The keys as a Markdown table, for the documentation.
pub fn reference() -> String {
    let mut table = String::from("| key | environment | default | takes | meaning |\n|---|---|---|---|---|\n");
    for key in KEYS.iter() {
        let default = match key.default {
            Preset::Value(text) => format!("`{text}`"),
            other => other.text().to_owned(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| `{}` | `{}` | {default} | {} | {} |",
            key.path,
            key.variable(),
            key.takes,
            key.about
        );
    }
    table
}

/// The key with this dotted path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// A key of the section with this dotted path, if it is a section.
pub(super) fn example_below(section: &str) -> Option<&'static str> {
    KEYS.iter()
        .map(|key| key.path)
        .find(|path| path.strip_prefix(section).is_some_and(|rest| rest.starts_with('.')))
}

pub(super) fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "__").to_uppercase())
}

/// The key or section that was probably meant.
pub(super) fn suggest(path: &str) -> Option<&'static str> {
    nearest(path, KEYS.iter().map(|key| key.path).chain(sections()))
}

/// The environment variable that was probably meant.
pub(super) fn suggest_variable(name: &str) -> Option<String> {
    let path = name
        .strip_prefix(PREFIX)
        .unwrap_or(name)
        .to_lowercase()
        .replace("__", ".");
    nearest(&path, KEYS.iter().map(|key| key.path)).map(variable)
}

fn sections() -> impl Iterator<Item = &'static str> + Clone {
    KEYS.iter()
        .flat_map(|key| key.path.match_indices('.').filter_map(|(end, _)| key.path.get(..end)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_are_unique_and_no_key_is_a_section_of_another() {
        let paths: BTreeSet<_> = KEYS.iter().map(|key| key.path).collect();
        assert_eq!(paths.len(), KEYS.len());
        assert!(paths.iter().all(|path| example_below(path).is_none()));
    }

    #[test]
    fn names_the_variable_of_a_key() {
        let key = find("collectors.jobs.interval").unwrap();
        assert_eq!(key.variable(), "ELEMENTS_COLLECTORS__JOBS__INTERVAL");
    }

    #[test]
    fn suggests_what_was_meant() {
        for (written, meant) in [
            ("colectors.jobs", Some("collectors.jobs")),
            ("api.timout", Some("api.timeout")),
            ("API.Timeout", Some("api.timeout")),
            ("client_id", Some("auth.client_id")),
            ("auth.secret", Some("auth.client_secret")),
            ("collectors.job.interval", Some("collectors.jobs.interval")),
            ("telemetry.sampling", None),
        ] {
            assert_eq!(suggest(written), meant, "{written}");
        }
    }

    #[test]
    fn suggests_the_variable_that_was_meant() {
        for (written, meant) in [
            ("ELEMENTS_AUTH_CLIENT_ID", Some("ELEMENTS_AUTH__CLIENT_ID")),
            ("ELEMENTS_CLIENT_ID", Some("ELEMENTS_AUTH__CLIENT_ID")),
            ("ELEMENTS_API__TIMEOUTS", Some("ELEMENTS_API__TIMEOUT")),
            ("ELEMENTS_XYZ", None),
        ] {
            assert_eq!(suggest_variable(written).as_deref(), meant, "{written}");
        }
    }

    #[test]
    fn reference_is_a_table_with_a_row_for_every_key() {
        let table = reference();
        assert_eq!(table.lines().count(), KEYS.len() + 2);
        assert!(table.lines().all(|line| line.matches('|').count() == 6));
        assert!(table.contains(
            "| `api.requests_per_second` | `ELEMENTS_API__REQUESTS_PER_SECOND` | `5` | a number above 0, at most 1000 |"
        ));
        assert!(table.contains("| `auth.client_id` | `ELEMENTS_AUTH__CLIENT_ID` | required |"));
    }
}
