//! The section `api`: where the API is and how hard it may be asked.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::error::Error;
use super::keys;
use super::layers::Settings;
use super::setting::{SHORTEST, Setting};
use crate::domain::Gigabyte;

/// How long one request may take: long enough for a slow page, short enough for several tries within the shortest default
/// interval of five minutes.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest timeout that can be configured. A request that takes longer than two job intervals is lost, not slow.
pub const LONGEST_TIMEOUT: Duration = Duration::from_secs(600);

/// The ceiling of the request rate. No limit is published; five a second poll a thousand customers' jobs in under four minutes.
pub const DEFAULT_REQUESTS_PER_SECOND: f64 = 5.0;

/// The highest ceiling that can be configured: beyond it a typing error is likelier than a partner that large.
pub const MOST_REQUESTS_PER_SECOND: f64 = 1000.0;

/// How many requests may be under way at once: enough to reach the default rate while an answer takes a second and a half.
pub const DEFAULT_MAX_CONCURRENCY: usize = 8;

/// The most concurrency that can be configured: as many open connections as common file limits bear beside the scrapes.
pub const MOST_CONCURRENCY: usize = 256;

/// Where the first generation begins, as the current reference has it.
pub const DEFAULT_V1_BASE_PATH: &str = "/partner";

/// Where the API is and how hard it may be asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Api {
    /// The generation to speak.
    pub version: Version,
    /// The environment that the registration lives in.
    pub environment: Environment,
    /// The address of the API: `https`, or `http` to a loopback address; without credentials, query and fragment.
    pub base_url: Url,
    /// The address that issues tokens; of the same kind.
    pub token_url: Url,
    /// The proxy for both.
    pub proxy_url: Option<ProxyUrl>,
    /// A PEM file of certificate authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// How long one request may take as a whole; 1 s to 10 min.
    pub timeout: Duration,
    /// The ceiling of the request rate; above 0, at most 1000.
    pub requests_per_second: f64,
    /// The ceiling of requests under way; 1 to 256.
    pub max_concurrency: usize,
    /// How many bytes a gigabyte of the API has.
    pub gigabyte: Gigabyte,
    /// Where the first generation begins below `base_url`: empty, or a path that begins with a slash and does not end in one.
    pub v1_base_path: String,
}

/// The generation of the API to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// The first, under `/partner`.
    V1,
    /// The second, under `/partner/external/v3`.
    V3,
    /// The second where the registration holds its customers scope, else the first.
    #[default]
    Auto,
}

/// An AvePoint environment. Its addresses are from the vendor's page on authentication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Environment {
    /// The worldwide service.
    #[default]
    Commercial,
    /// The service for the government of the United States.
    UsGov,
    /// The environment that the vendor calls AOS 2.
    Aos2,
    /// The service under FedRAMP.
    Fedramp,
}

impl Environment {
    /// The word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Commercial => "commercial",
            Self::UsGov => "us-gov",
            Self::Aos2 => "aos2",
            Self::Fedramp => "fedramp",
        }
    }

    /// The published address that issues tokens.
    pub const fn token_url(self) -> &'static str {
        match self {
            Self::Commercial => "https://identity.avepointonlineservices.com/connect/token",
            Self::UsGov => "https://identity-gov.avepointonlineservices.com/connect/token",
            Self::Aos2 => "https://identity-aos2.avepointonlineservices.com/connect/token",
            Self::Fedramp => "https://identity.online15.net/connect/token",
        }
    }

    /// The address of the API, where it is published.
    pub const fn base_url(self) -> Option<&'static str> {
        match self {
            Self::Commercial => Some("https://graph.avepointonlineservices.com"),
            Self::UsGov | Self::Aos2 | Self::Fedramp => None,
        }
    }
}

/// The address of a proxy. It may hold credentials, so that its `Debug` shows only where the proxy is.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl(Url);

impl ProxyUrl {
    /// The whole address, credentials and all, for the HTTP client.
    pub fn expose(&self) -> &Url {
        &self.0
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.0.host_str().unwrap_or_default();
        write!(formatter, "ProxyUrl({}://{host}", self.0.scheme())?;
        if let Some(port) = self.0.port() {
            write!(formatter, ":{port}")?;
        }
        formatter.write_str(")")
    }
}

impl Api {
    pub(super) fn read(settings: &Settings) -> Result<Self, Error> {
        let environment = settings
            .read("api.environment", |setting| {
                setting.choice(&ENVIRONMENTS.map(|known| (known.as_str(), known)))
            })?
            .unwrap_or_default();
        Ok(Self {
            version: settings
                .read("api.version", |setting| setting.choice(&VERSIONS))?
                .unwrap_or_default(),
            environment,
            proxy_url: settings.read("api.proxy_url", Setting::proxy)?.map(ProxyUrl),
            ca_file: settings.read("api.ca_file", Setting::path)?,
            timeout: settings
                .read("api.timeout", |setting| setting.duration(SHORTEST..=LONGEST_TIMEOUT))?
                .unwrap_or(DEFAULT_TIMEOUT),
            requests_per_second: settings
                .read("api.requests_per_second", |setting| {
                    setting.positive_number(MOST_REQUESTS_PER_SECOND)
                })?
                .unwrap_or(DEFAULT_REQUESTS_PER_SECOND),
            max_concurrency: settings
                .read("api.max_concurrency", |setting| {
                    setting.whole_number(1..=MOST_CONCURRENCY)
                })?
                .unwrap_or(DEFAULT_MAX_CONCURRENCY),
            gigabyte: settings
                .read("api.gigabyte", |setting| setting.choice(&GIGABYTES))?
                .unwrap_or_default(),
            v1_base_path: settings
                .read("api.v1_base_path", v1_base_path)?
                .unwrap_or_else(|| DEFAULT_V1_BASE_PATH.to_owned()),
            token_url: endpoint(settings, "api.token_url", environment, Some(environment.token_url()))?,
            base_url: endpoint(settings, "api.base_url", environment, environment.base_url())?,
        })
    }
}

const ENVIRONMENTS: [Environment; 4] = [
    Environment::Commercial,
    Environment::UsGov,
    Environment::Aos2,
    Environment::Fedramp,
];

const VERSIONS: [(&str, Version); 3] = [("v1", Version::V1), ("v3", Version::V3), ("auto", Version::Auto)];

const GIGABYTES: [(&str, Gigabyte); 2] = [("binary", Gigabyte::Binary), ("decimal", Gigabyte::Decimal)];

fn endpoint(
    settings: &Settings,
    path: &'static str,
    environment: Environment,
    published: Option<&str>,
) -> Result<Url, Error> {
    if let Some(setting) = settings.get(path) {
        return setting.endpoint();
    }
    published
        .and_then(|url| Url::parse(url).ok())
        .ok_or_else(|| Error::Missing {
            key: path,
            because: format!(
                " with api.environment {}, whose API address is not published",
                environment.as_str()
            ),
            variable: keys::variable(path),
        })
}

fn v1_base_path(setting: &Setting) -> Result<String, Error> {
    let expected = "is not a path; expected something like /partner or /partner/api/V1.1";
    let path = setting.text()?;
    let is_plain = |character: char| character.is_ascii_graphic() && !matches!(character, '?' | '#' | '\\' | '%');
    if !path.starts_with('/') || !path.chars().all(is_plain) {
        return Err(setting.invalid(expected));
    }
    let segments = path.trim_matches('/').split('/');
    if path.trim_matches('/').is_empty() {
        return Ok(String::new());
    }
    if segments.clone().any(|name| matches!(name, "" | "." | "..")) {
        return Err(setting.invalid(expected));
    }
    Ok(path.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::tests::{from_file, message};

    fn api(lines: &str) -> Api {
        from_file(&format!(
            "auth: {{client_id: demo, client_secret: demo-secret}}\napi:\n{lines}"
        ))
        .unwrap()
        .api
    }

    #[test]
    fn environments_set_the_urls() {
        let commercial = api("  environment: commercial\n");
        assert_eq!(
            commercial.base_url.as_str(),
            "https://graph.avepointonlineservices.com/"
        );
        assert_eq!(commercial.token_url.as_str(), Environment::Commercial.token_url());
        for (environment, token_url) in [
            (
                "us-gov",
                "https://identity-gov.avepointonlineservices.com/connect/token",
            ),
            ("aos2", "https://identity-aos2.avepointonlineservices.com/connect/token"),
            ("fedramp", "https://identity.online15.net/connect/token"),
        ] {
            let read = api(&format!(
                "  environment: {environment}\n  base_url: https://graph.example.com\n"
            ));
            assert_eq!(read.token_url.as_str(), token_url);
            assert_eq!(read.base_url.as_str(), "https://graph.example.com/");
        }
    }

    #[test]
    fn other_environments_require_a_base_url() {
        let yaml = "auth: {client_id: demo, client_secret: demo-secret}\napi: {environment: us-gov}";
        assert_eq!(
            message(from_file(yaml)),
            "api.base_url is required with api.environment us-gov, whose API address is not published: \
             set it in the file or as ELEMENTS_API__BASE_URL"
        );
    }

    #[test]
    fn given_urls_override_the_environment() {
        let read = api("  token_url: http://localhost:1/connect/token\n  base_url: http://localhost:1\n");
        assert_eq!(read.token_url.as_str(), "http://localhost:1/connect/token");
        assert_eq!(read.base_url.as_str(), "http://localhost:1/");
    }

    #[test]
    fn base_paths_of_the_first_generation() {
        let path = |text: &str| api(&format!("  v1_base_path: \"{text}\"\n")).v1_base_path;
        assert_eq!(path("/partner/api/V1.1"), "/partner/api/V1.1");
        assert_eq!(path("/partner/"), "/partner");
        assert_eq!(path("/"), "");
        for text in ["partner", "/a?b", "/a#b", "/../a", "/a//b", "/a b", "/%2e%2e"] {
            let yaml = format!("api: {{v1_base_path: \"{text}\"}}");
            assert_eq!(
                message(from_file(&yaml)),
                format!(
                    "elements.yml: api.v1_base_path: \"{text}\" is not a path; expected something like /partner or /partner/api/V1.1"
                )
            );
        }
    }

    #[test]
    fn a_proxy_shows_no_credentials() {
        let proxy = api("  proxy_url: http://me:hunter2@proxy.example.com:3128\n")
            .proxy_url
            .unwrap();
        assert_eq!(format!("{proxy:?}"), "ProxyUrl(http://proxy.example.com:3128)");
        assert_eq!(proxy.expose().password(), Some("hunter2"));
    }
}
