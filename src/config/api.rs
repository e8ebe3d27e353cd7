//! The section `api`: URLs and limits of the API.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use url::{Host, Url};

use super::keys::{LONGEST_TIMEOUT, MAX_CONCURRENCY, MAX_REQUESTS_PER_SECOND};
use super::layers::Layers;
use crate::domain::{Generation, GenerationChoice, Gigabyte};
use crate::settings::{Error, Field, MIN_DURATION};

/// URLs and limits of the API.
#[derive(Clone, Debug, PartialEq)]
pub struct Api {
    /// API version.
    pub version: GenerationChoice,
    /// Environment of the registration.
    pub environment: Environment,
    /// URL of the API: `https`, or `http` on a loopback address; without credentials, query or fragment.
    pub base_url: Url,
    /// URL of the token endpoint, with the same restrictions.
    pub token_url: Url,
    /// Proxy for requests to both URLs.
    pub proxy_url: Option<ProxyUrl>,
    /// PEM file with certificate authorities to trust in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// Timeout for an attempt; 1 s to 10 min.
    pub timeout: Duration,
    /// Maximum number of requests per second; above 0 and at most 1000.
    pub requests_per_second: f64,
    /// Maximum number of concurrent requests; 1 to 256.
    pub max_concurrency: usize,
    /// Meaning of a gigabyte in API values.
    pub gigabyte: Gigabyte,
    /// Base path of API v1, relative to `base_url`: empty, or a path that starts but does not end with a slash.
    pub v1_base_path: String,
}

/// An AvePoint environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Name in the configuration.
    pub name: &'static str,
    /// The published URL of the token endpoint.
    pub token_url: &'static str,
    /// The published URL of the API.
    pub base_url: &'static str,
}

/// All environments. The URLs are from the vendor's documentation on authentication.
pub(super) const ENVIRONMENTS: [Environment; 4] = [
    Environment {
        name: "commercial",
        token_url: "https://identity.avepointonlineservices.com/connect/token",
        base_url: "https://graph.avepointonlineservices.com",
    },
    Environment {
        name: "us-gov",
        token_url: "https://identity-gov.avepointonlineservices.com/connect/token",
        base_url: "https://graph-gov.avepointonlineservices.com",
    },
    Environment {
        name: "aos2",
        token_url: "https://identity-aos2.avepointonlineservices.com/connect/token",
        base_url: "https://graph-aos2.avepointonlineservices.com",
    },
    Environment {
        name: "fedramp",
        token_url: "https://identity.online15.net/connect/token",
        base_url: "https://graphusgovapi.online15.net",
    },
];

/// The URL of a proxy. It may contain credentials, so its `Debug` output shows only the scheme, host and port.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl(Url);

impl ProxyUrl {
    /// Returns the whole URL, including credentials, for the HTTP client.
    pub fn expose(&self) -> &Url {
        &self.0
    }

    /// Returns the scheme and the host, and the port unless it is the scheme's default.
    pub fn without_credentials(&self) -> String {
        self.0.origin().ascii_serialization()
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ProxyUrl({})", self.without_credentials())
    }
}

pub(super) fn read_version(layers: &Layers) -> Result<GenerationChoice, Error> {
    layers.read_required("api.version", |field| field.choice(&VERSIONS))
}

impl Api {
    pub(super) fn read(layers: &Layers) -> Result<Self, Error> {
        let environments = ENVIRONMENTS.map(|known| (known.name, known));
        let environment = layers.read_required("api.environment", |field| field.choice(&environments))?;
        Ok(Self {
            version: read_version(layers)?,
            environment,
            proxy_url: layers.read_optional("api.proxy_url", read_proxy)?.map(ProxyUrl),
            ca_file: layers.read_optional("api.ca_file", Field::path)?,
            timeout: layers.read_required("api.timeout", |field| field.duration(MIN_DURATION..=LONGEST_TIMEOUT))?,
            requests_per_second: layers.read_required("api.requests_per_second", |field| {
                field.positive_number(MAX_REQUESTS_PER_SECOND)
            })?,
            max_concurrency: layers
                .read_required("api.max_concurrency", |field| field.whole_number(1..=MAX_CONCURRENCY))?,
            gigabyte: layers.read_required("api.gigabyte", |field| field.choice(&GIGABYTES))?,
            v1_base_path: layers.read_required("api.v1_base_path", read_base_path)?,
            token_url: endpoint(layers, "api.token_url", environment.token_url)?,
            base_url: endpoint(layers, "api.base_url", environment.base_url)?,
        })
    }
}

pub(super) const VERSIONS: [(&str, GenerationChoice); 3] = [
    ("v1", GenerationChoice::Fixed(Generation::V1)),
    ("v3", GenerationChoice::Fixed(Generation::V3)),
    ("auto", GenerationChoice::Auto),
];

pub(super) const GIGABYTES: [(&str, Gigabyte); 2] = [("binary", Gigabyte::Binary), ("decimal", Gigabyte::Decimal)];

fn endpoint(layers: &Layers, path: &str, published: &str) -> Result<Url, Error> {
    if let Some(field) = layers.get(path) {
        return read_endpoint(&field);
    }
    // A test checks that the published URLs are valid.
    Url::parse(published).map_err(|_| layers.missing(path, "is required"))
}

/// Parses a URL to which secrets may be sent: `https`, or `http` to this machine.
fn read_endpoint(field: &Field<'_>) -> Result<Url, Error> {
    const EXAMPLE: &str = "expected something like https://graph.example.com";
    let field = hide_credentials(field);
    let url = read_url(&field, EXAMPLE)?;
    let problem = match url.scheme() {
        "http" if !is_loopback(&url) => {
            "would send secrets in the clear; expected https, or http to a loopback address"
        }
        "http" | "https" if !url.username().is_empty() || url.password().is_some() => {
            "contains credentials; they belong in the section auth"
        }
        "http" | "https" if url.query().is_some() || url.fragment().is_some() => {
            "contains a query or a fragment; expected neither"
        }
        "http" | "https" => return Ok(url),
        _ => return Err(field.invalid(format!("is not an https URL; {EXAMPLE}"))),
    };
    Err(field.invalid(problem))
}

/// Parses the URL of a proxy, which may contain credentials.
fn read_proxy(field: &Field<'_>) -> Result<Url, Error> {
    const EXAMPLE: &str = "expected something like http://proxy.example.com:3128";
    let field = hide_credentials(field);
    let url = read_url(&field, EXAMPLE)?;
    if matches!(url.scheme(), "http" | "https") && url.host().is_some() {
        Ok(url)
    } else {
        Err(field.invalid(format!("is not the URL of a proxy; {EXAMPLE}")))
    }
}

fn read_url(field: &Field<'_>, expected: &str) -> Result<Url, Error> {
    Url::parse(field.text()?).map_err(|problem| field.invalid(format!("is not a URL ({problem}); {expected}")))
}

/// Returns the field of a URL, marked as secret if the URL may contain credentials.
fn hide_credentials<'a>(field: &Field<'a>) -> Field<'a> {
    let field = field.clone();
    match field.raw_text() {
        Ok(text) if text.contains(['@', '?', '#']) => field.secret(),
        _ => field,
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn read_base_path(field: &Field<'_>) -> Result<String, Error> {
    let problem = "is not a path; expected something like /partner or /partner/api/V1.1";
    let path = field.text()?;
    let is_plain = |character: char| character.is_ascii_graphic() && !matches!(character, '?' | '#' | '\\' | '%');
    if !path.starts_with('/') || !path.chars().all(is_plain) {
        return Err(field.invalid(problem));
    }
    let path = path.trim_end_matches('/');
    if path.split('/').skip(1).any(|name| matches!(name, "" | "." | "..")) {
        return Err(field.invalid(problem));
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{config_with, from_file, message};

    fn api(lines: &str) -> Api {
        config_with(&format!("api:\n{lines}")).api
    }

    #[test]
    fn environment_key_sets_the_urls() {
        for (environment, token_url, base_url) in [
            (
                "commercial",
                "https://identity.avepointonlineservices.com/connect/token",
                "https://graph.avepointonlineservices.com/",
            ),
            (
                "us-gov",
                "https://identity-gov.avepointonlineservices.com/connect/token",
                "https://graph-gov.avepointonlineservices.com/",
            ),
            (
                "aos2",
                "https://identity-aos2.avepointonlineservices.com/connect/token",
                "https://graph-aos2.avepointonlineservices.com/",
            ),
            (
                "fedramp",
                "https://identity.online15.net/connect/token",
                "https://graphusgovapi.online15.net/",
            ),
        ] {
            let read = api(&format!("  environment: {environment}\n"));
            assert_eq!(read.token_url.as_str(), token_url);
            assert_eq!(read.base_url.as_str(), base_url);
            let read = api(&format!(
                "  environment: {environment}\n  base_url: https://graph.example.com\n"
            ));
            assert_eq!(read.token_url.as_str(), token_url);
            assert_eq!(read.base_url.as_str(), "https://graph.example.com/");
        }
    }

    #[test]
    fn configured_urls_override_the_environment_key() {
        let read = api("  token_url: http://localhost:1/connect/token\n  base_url: http://localhost:1\n");
        assert_eq!(read.token_url.as_str(), "http://localhost:1/connect/token");
        assert_eq!(read.base_url.as_str(), "http://localhost:1/");
    }

    #[test]
    fn base_path_of_v1_is_checked() {
        let path = |text: &str| api(&format!("  v1_base_path: \"{text}\"\n")).v1_base_path;
        assert_eq!(path("/partner/api/V1.1"), "/partner/api/V1.1");
        assert_eq!(path("/partner/"), "/partner");
        assert_eq!(path("/"), "");
        for text in [
            "partner",
            "/a?b",
            "/a#b",
            "/../a",
            "/a//b",
            "//partner",
            "/a b",
            "/%2e%2e",
        ] {
            let yaml = format!("api: {{v1_base_path: \"{text}\"}}");
            assert_eq!(
                message(from_file(&yaml)),
                format!(
                    "elements.yml:1: api.v1_base_path: \"{text}\" is not a path; expected something like /partner or /partner/api/V1.1"
                )
            );
        }
    }

    #[test]
    fn debug_output_of_a_proxy_has_no_credentials() {
        let proxy = api("  proxy_url: http://me:hunter2@proxy.example.com:3128/x\n");
        let proxy = proxy.proxy_url.unwrap();
        assert_eq!(proxy.without_credentials(), "http://proxy.example.com:3128");
        assert_eq!(format!("{proxy:?}"), "ProxyUrl(http://proxy.example.com:3128)");
        assert_eq!(proxy.expose().password(), Some("hunter2"));
    }

    fn read(key: &str, url: &str) -> Result<crate::config::Config, Error> {
        from_file(&format!(
            "api: {{{key}: '{url}'}}\nauth: {{client_id: demo, client_secret: x}}"
        ))
    }

    #[test]
    fn endpoints_use_https_or_loopback() {
        for text in [
            "https://graph.example.com",
            "https://graph.example.com:8443/elements",
            "http://127.0.0.1:10028",
            "http://127.9.9.9",
            "http://[::1]:10028",
            "http://localhost:10028",
        ] {
            assert!(read("base_url", text).is_ok(), "{text}");
        }
        for (text, problem) in [
            (
                "graph",
                "\"graph\" is not a URL (relative URL without a base); expected something like https://graph.example.com",
            ),
            (
                "ftp://graph.example.com",
                "\"ftp://graph.example.com\" is not an https URL; expected something like https://graph.example.com",
            ),
            (
                "http://graph.example.com",
                "\"http://graph.example.com\" would send secrets in the clear; expected https, or http to a loopback address",
            ),
            (
                "http://localhost.example.com",
                "\"http://localhost.example.com\" would send secrets in the clear; expected https, or http to a loopback address",
            ),
            (
                "https://me:hunter2@graph.example.com",
                "(hidden) contains credentials; they belong in the section auth",
            ),
            (
                "https://graph.example.com?key=hunter2",
                "(hidden) contains a query or a fragment; expected neither",
            ),
            (
                "https://graph.example.com#top",
                "(hidden) contains a query or a fragment; expected neither",
            ),
        ] {
            assert_eq!(
                message(read("base_url", text)),
                format!("elements.yml:1: api.base_url: {problem}")
            );
        }
    }

    #[test]
    fn proxy_credentials_do_not_appear_in_output() {
        assert!(read("proxy_url", "http://me:hunter2@proxy.example.com:3128").is_ok());
        assert!(read("proxy_url", "https://proxy.example.com").is_ok());
        assert_eq!(
            message(read("proxy_url", "proxy.example.com:3128")),
            "elements.yml:1: api.proxy_url: \"proxy.example.com:3128\" is not the URL of a proxy; expected something like http://proxy.example.com:3128"
        );
        for text in ["socks5://me:hunter2@proxy", "http://me:hunter2@proxy:port"] {
            let shown = message(read("proxy_url", text));
            assert!(shown.contains("(hidden)") && !shown.contains("hunter2"), "{shown}");
        }
    }
}
