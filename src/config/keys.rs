//! The table of configuration keys: names, defaults, formats and descriptions.

use std::sync::LazyLock;
use std::time::Duration;

use super::ValueFormat;
use crate::collector::{self, CollectorDescriptor, CollectorId};
use crate::domain::DEFAULT_BACKUP_SERVICES;

/// Prefix of the environment variables.
pub const PREFIX: &str = "ELEMENTS_";

/// Maximum number of requests per second. A higher value is probably a typo, because no partner is large enough to need
/// it.
pub(super) const MAX_REQUESTS_PER_SECOND: f64 = 1000.0;

/// Maximum timeout: twice the default interval of `jobs`. An attempt that takes longer will probably never complete.
pub(super) const LONGEST_TIMEOUT: Duration = Duration::from_secs(600);

/// Maximum interval: 30 days.
pub(super) const LONGEST_INTERVAL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Maximum concurrency. Common limits on open files allow this many connections in addition to those that scrapes use.
pub(super) const MAX_CONCURRENCY: usize = 256;

/// A configuration key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Key {
    /// Dotted path, such as `api.requests_per_second`.
    pub path: &'static str,
    /// Value if the key is not set.
    pub default: KeyDefault,
    /// Format of the value.
    pub format: ValueFormat,
    /// Description for the reference and the JSON schema; ends with a full stop.
    pub description: &'static str,
    /// Whether the value must not appear in output.
    pub secret: bool,
}

/// Value or behaviour if a key is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyDefault {
    /// No default; the key is required.
    Required,
    /// A default, as written in the file.
    Value(&'static str),
    /// No default value; the text describes the behaviour.
    Described(&'static str),
}

impl KeyDefault {
    /// Returns the text for the configuration reference.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Value(text) | Self::Described(text) => text,
        }
    }
}

impl Key {
    /// Returns the environment variable that overrides the key, such as `ELEMENTS_API__REQUESTS_PER_SECOND`.
    pub fn variable(&self) -> String {
        variable(self.path)
    }
}

const NONE: KeyDefault = KeyDefault::Described("none");

/// All keys in the order of the reference. The keys that every collector has are derived from the table of collectors.
pub static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let of_collectors = collector::ALL.iter().flat_map(|descriptor| {
        let path = |key: &str| leak(format!("collectors.{}.{key}", descriptor.name));
        let default = leak(humantime::format_duration(descriptor.interval).to_string());
        [
            enabled(path("enabled"), descriptor),
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

/// Leaks a string, because keys are built once and never dropped.
fn leak(text: String) -> &'static str {
    text.leak()
}

const BEFORE_COLLECTORS: &[Key] = &[
    key(
        "api.version",
        KeyDefault::Value("auto"),
        ValueFormat::Choice(&["v1", "v3", "auto"]),
        "API version; `auto` selects v3 if the registration has the v3 permission for customers, otherwise v1.",
    ),
    key(
        "api.environment",
        KeyDefault::Value("commercial"),
        ValueFormat::Choice(&["commercial", "us-gov", "aos2", "fedramp"]),
        "AvePoint environment of the registration; determines the default API and token URLs.",
    ),
    key(
        "api.base_url",
        KeyDefault::Described("depends on `api.environment`"),
        ValueFormat::Text("an `https` URL, or plain `http` to a loopback address"),
        "URL of the API, or of one of its data centres.",
    ),
    key(
        "api.token_url",
        KeyDefault::Described("depends on `api.environment`"),
        ValueFormat::Text("an `https` URL, or plain `http` to a loopback address"),
        "URL of the token endpoint.",
    ),
    key(
        "api.v1_base_path",
        KeyDefault::Value("/partner"),
        ValueFormat::Text("a path that starts with `/`"),
        "Path of API v1, relative to the base URL; `/partner/api/V1.1` for the older path.",
    ),
    key(
        "api.proxy_url",
        NONE,
        ValueFormat::Text("an `http` or `https` URL, with or without credentials"),
        "Proxy for all requests to the API and to the token endpoint.",
    ),
    key(
        "api.ca_file",
        NONE,
        ValueFormat::Text("the path of a PEM file"),
        "Certificate authorities to trust in addition to the system's authorities.",
    ),
    key(
        "api.timeout",
        KeyDefault::Value("30s"),
        ValueFormat::DurationUpTo(LONGEST_TIMEOUT),
        "Timeout for each attempt of a request, from connecting to the last byte of the response.",
    ),
    key(
        "api.requests_per_second",
        KeyDefault::Value("5"),
        ValueFormat::Number(MAX_REQUESTS_PER_SECOND),
        "Maximum number of requests per second; the client sends fewer when the API throttles it.",
    ),
    key(
        "api.max_concurrency",
        KeyDefault::Value("8"),
        ValueFormat::Integer(1, Some(MAX_CONCURRENCY)),
        "Maximum number of requests in flight.",
    ),
    key(
        "api.gigabyte",
        KeyDefault::Value("binary"),
        ValueFormat::Choice(&["binary", "decimal"]),
        "Size of a GB in API values: 2³⁰ or 10⁹ bytes. The vendor's reference does not specify it.",
    ),
    key(
        "auth.client_id",
        KeyDefault::Required,
        ValueFormat::Text("text"),
        "Client id of the app registration.",
    ),
    secret("auth.client_secret", "Client secret of the app registration."),
    key(
        "auth.client_secret_file",
        NONE,
        ValueFormat::Text("the path of a file"),
        "File with the client secret; reread for every token.",
    ),
    key(
        "auth.client_secret_expires",
        NONE,
        ValueFormat::Date("a date such as 2027-01-31, or a timestamp"),
        "Expiry of the client secret, as Elements shows it when you create the secret; used only for warnings.",
    ),
    key(
        "auth.certificate_file",
        NONE,
        ValueFormat::Text("the path of a `.pfx`, `.p12` or PEM file"),
        "Certificate to use instead of a secret.",
    ),
    key(
        "auth.private_key_file",
        NONE,
        ValueFormat::Text("the path of a PEM file"),
        "Private key of the certificate, if `auth.certificate_file` does not contain it.",
    ),
    secret(
        "auth.certificate_password",
        "Password for the certificate or its private key.",
    ),
    key(
        "auth.certificate_password_file",
        NONE,
        ValueFormat::Text("the path of a file"),
        "File with the password for the certificate or its private key.",
    ),
    list(
        "customers.include",
        KeyDefault::Described("all"),
        "a list of customer ids, or of globs that match the organization's name",
        "Customers to monitor.",
    ),
    list(
        "customers.exclude",
        NONE,
        "a list of customer ids, or of globs that match the organization's name",
        "Customers to omit; takes precedence over `customers.include`.",
    ),
    key(
        "customers.attributes_file",
        NONE,
        ValueFormat::Text("the path of a CSV or YAML file"),
        "File that assigns a tier, a region and a team to customers, as labels for alerts and dashboards; reread when it changes.",
    ),
];

const AFTER_COLLECTORS: &[Key] = &[
    list(
        "collectors.jobs.job_types",
        KeyDefault::Described("all"),
        "a list of service names or numbers",
        "Services whose jobs are collected.",
    ),
    list(
        "collectors.jobs.job_modules",
        KeyDefault::Described("all"),
        "a list of module names or numbers",
        "Modules whose jobs are collected.",
    ),
    list(
        "collectors.licenses.services",
        KeyDefault::Described("all"),
        "a list of names or globs",
        "Products whose licences are collected.",
    ),
    list(
        "collectors.licenses.backup_services",
        KeyDefault::Value(DEFAULT_BACKUP_SERVICES),
        "a list of names or globs",
        "Products that count as backup licences in alerts and dashboards: `backup=\"true\"` on `elements_license_info`.",
    ),
    list(
        "collectors.app_consent.products",
        KeyDefault::Value(
            "[Office365Backup, PartnerTenantSettingManagement, PartnerWorkspaceOnboarding, PartnerAzureSecurityManagement]",
        ),
        "a list of product names",
        "Products whose app consent is polled; by default, the products for backup, settings, workspaces and Azure.",
    ),
    key(
        "collectors.scan_changes.objects",
        KeyDefault::Value("false"),
        ValueFormat::Boolean,
        "Whether to also count changed objects per container.",
    ),
    key(
        "rpo.default",
        KeyDefault::Value("26h"),
        ValueFormat::Duration("a duration"),
        "Maximum age of the latest restore point of a module.",
    ),
    key(
        "rpo.overrides",
        NONE,
        ValueFormat::Overrides(
            "a list of `{customer, tier, region, team, service, module, scope, rpo, until, reason}`",
        ),
        "RPOs that differ from `rpo.default`. Each field before `rpo` is an id, a name or a glob, and can be omitted. The first matching entry that has not expired applies; `rpo: none` exempts the matching modules.",
    ),
    key(
        "rpo.abandoned_after",
        KeyDefault::Value("90days"),
        ValueFormat::Duration("a duration"),
        "A module or backup scope whose newest run is older than this counts as abandoned, and has no RPO.",
    ),
    list(
        "metrics.exclude",
        NONE,
        "a list of globs that match metric names",
        "Metrics to omit from `/metrics`, `once` and the series count.",
    ),
    key(
        "metrics.owner_email",
        KeyDefault::Value("false"),
        ValueFormat::Boolean,
        "Whether the owner's email address is a label of `elements_customer_info`.",
    ),
    key(
        "metrics.series_limit",
        NONE,
        ValueFormat::Integer(1, None),
        "Maximum number of series; new series beyond it are rejected and counted. \
         Lowering the limit with a reload does not remove existing series.",
    ),
    key(
        "events.runs",
        KeyDefault::Value("false"),
        ValueFormat::Boolean,
        "Whether to log each completed job run, for example for Loki.",
    ),
    key(
        "state.file",
        NONE,
        ValueFormat::Text("the path of a file"),
        "File that keeps job runs and last known values across restarts.",
    ),
];

/// The keys of an `rpo.overrides` entry.
pub const OVERRIDE_KEYS: &[Key] = &[
    key(
        "customer",
        EVERY,
        ValueFormat::Text("a customer id, or a glob that matches the organization's name"),
        "Customers that the entry applies to.",
    ),
    key(
        "tier",
        EVERY,
        ValueFormat::Text("a value in `customers.attributes_file`, or a glob that matches it"),
        "Tiers of customers that the entry applies to.",
    ),
    key(
        "region",
        EVERY,
        ValueFormat::Text("a value in `customers.attributes_file`, or a glob that matches it"),
        "Regions of customers that the entry applies to.",
    ),
    key(
        "team",
        EVERY,
        ValueFormat::Text("a value in `customers.attributes_file`, or a glob that matches it"),
        "Teams of customers that the entry applies to.",
    ),
    key(
        "service",
        EVERY,
        ValueFormat::Text("a name, a glob or a number"),
        "Services that the entry applies to.",
    ),
    key(
        "module",
        EVERY,
        ValueFormat::Text("a name, a glob or a number"),
        "Modules that the entry applies to.",
    ),
    key(
        "scope",
        EVERY,
        ValueFormat::Text("a name or a glob"),
        "Backup scopes that the entry applies to.",
    ),
    key(
        "rpo",
        KeyDefault::Required,
        ValueFormat::DurationOr("[Nn][Oo][Nn][Ee]", "a duration, or `none` to exempt the modules"),
        "Maximum age of the latest restore point.",
    ),
    key(
        "until",
        KeyDefault::Described("no end"),
        ValueFormat::Date("the last day in UTC, such as 2027-01-31, or a timestamp"),
        "End of the entry, after which it no longer applies.",
    ),
    key(
        "reason",
        NONE,
        ValueFormat::Text("text"),
        "Reason for the entry; shown with the module.",
    ),
];

const EVERY: KeyDefault = KeyDefault::Described("all");

const fn key(path: &'static str, default: KeyDefault, format: ValueFormat, description: &'static str) -> Key {
    Key {
        path,
        default,
        format,
        description,
        secret: false,
    }
}

const fn list(path: &'static str, default: KeyDefault, phrase: &'static str, description: &'static str) -> Key {
    key(path, default, ValueFormat::List(phrase), description)
}

const fn secret(path: &'static str, description: &'static str) -> Key {
    Key {
        secret: true,
        ..key(path, NONE, ValueFormat::Text("text"), description)
    }
}

fn enabled(path: &'static str, descriptor: &CollectorDescriptor) -> Key {
    let (default, description) = if descriptor.is_optional {
        ("false", "Whether the collector runs; requires API v3.")
    } else if descriptor.name == CollectorId::CUSTOMERS.name() {
        ("true", "Must be `true`: every other collector needs the customers.")
    } else {
        ("true", "Whether the collector runs.")
    };
    key(path, KeyDefault::Value(default), ValueFormat::Boolean, description)
}

const fn interval(path: &'static str, default: &'static str) -> Key {
    key(
        path,
        KeyDefault::Value(default),
        ValueFormat::DurationUpTo(LONGEST_INTERVAL),
        "Interval between polls of a target.",
    )
}

const fn stale_after(path: &'static str) -> Key {
    key(
        path,
        KeyDefault::Described("3 × interval"),
        ValueFormat::Duration("a duration; if it is shorter than the interval, values expire between two polls"),
        "Age at which values expire.",
    )
}

pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

pub(super) fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "__").to_uppercase())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::api::{ENVIRONMENTS, GIGABYTES, VERSIONS};

    #[test]
    fn keys_are_unique_and_not_sections_of_others() {
        let paths: BTreeSet<_> = KEYS.iter().map(|key| key.path).collect();
        assert_eq!(paths.len(), KEYS.len());
        let is_section = |path: &str| paths.iter().any(|other| other.starts_with(&format!("{path}.")));
        assert!(!paths.iter().any(|path| is_section(path)));
    }

    #[test]
    fn list_keys_are_described_as_lists() {
        let is_described_as_list = |key: &Key| key.format.to_string().starts_with("a list of ");
        assert!(KEYS.iter().all(|key| key.format.is_list() == is_described_as_list(key)));
    }

    #[test]
    fn described_words_are_accepted() {
        let words = |path| match find(path).map(|key| key.format) {
            Some(ValueFormat::Choice(words)) => words,
            format => panic!("{path} has {format:?}"),
        };
        assert!(words("api.version").iter().eq(VERSIONS.iter().map(|(word, _)| word)));
        assert!(words("api.gigabyte").iter().eq(GIGABYTES.iter().map(|(word, _)| word)));
        assert_eq!(words("api.environment"), ENVIRONMENTS.map(|known| known.name));
    }

    #[test]
    fn variable_name_is_derived_from_the_path() {
        let key = find("collectors.jobs.interval").unwrap();
        assert_eq!(key.variable(), "ELEMENTS_COLLECTORS__JOBS__INTERVAL");
    }
}
