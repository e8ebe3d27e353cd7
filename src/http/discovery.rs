//! HTTP service discovery for Prometheus: one target per customer or per shard.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::http::uri::Authority;
use serde::Serialize;
use url::Url;

use crate::domain::{MAX_SHARDS, PerAttribute, Shard, shard_count};
use crate::scrape::KnownCustomer;

/// A target group, in the format that Prometheus expects.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct TargetGroup<'a> {
    targets: [&'a str; 1],
    labels: BTreeMap<&'static str, Cow<'a, str>>,
}

/// The query parameter `shards` is not a valid number of shards, or is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shards: expected one whole number from 1 to {MAX_SHARDS}")]
pub(super) struct InvalidShards;

/// Returns the number of shards that a query requests, or `None` if the query requests one target per customer.
pub(super) fn shards(query: Option<&str>) -> Result<Option<u32>, InvalidShards> {
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let mut values = pairs.filter(|(name, _)| name == "shards").map(|(_, value)| value);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => shard_count(&value).map(Some).ok_or(InvalidShards),
        (Some(_), Some(_)) => Err(InvalidShards),
    }
}

/// Address at which targets are scraped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TargetAddress {
    /// Host and port.
    address: String,
    path: String,
    /// `https` if the address uses TLS. If `None`, the scrape configuration sets the scheme.
    scheme: Option<&'static str>,
}

impl TargetAddress {
    /// Returns the address at which a request reached the exporter, or `None` if the host is invalid. If the external
    /// URL has the same host and port, it determines the path prefix and the scheme. Otherwise, `route_prefix` and
    /// `is_over_tls` determine them.
    pub(super) fn from_request(
        host: &str,
        is_over_tls: bool,
        external_url: Option<&Url>,
        route_prefix: &str,
        telemetry_path: &str,
    ) -> Option<Self> {
        let authority: Authority = host.parse().ok()?;
        let has_port = authority.as_str().len() > authority.host().len();
        let is_valid = !authority.host().is_empty()
            && !authority.as_str().contains('@')
            && (!has_port || authority.port_u16().is_some());
        if !is_valid {
            return None;
        }
        let external_match = external_url.filter(|url| {
            let has_same_port = match authority.port_u16() {
                Some(port) => url.port_or_known_default() == Some(port),
                // `Url::port` returns `None` for the scheme's default port.
                None => url.port().is_none(),
            };
            let has_same_host = |named: &str| named.eq_ignore_ascii_case(authority.host());
            has_same_port && url.host_str().is_some_and(has_same_host)
        });
        let (prefix, is_https) = match external_match {
            Some(url) => (url.path().trim_end_matches('/'), url.scheme() == "https"),
            None => (route_prefix, is_over_tls),
        };
        Some(Self {
            address: host.to_owned(),
            path: format!("{prefix}{telemetry_path}"),
            scheme: is_https.then_some("https"),
        })
    }

    fn target<'a>(&'a self, labels: impl IntoIterator<Item = (&'static str, Cow<'a, str>)>) -> TargetGroup<'a> {
        let mut labels: BTreeMap<&'static str, Cow<'a, str>> = labels.into_iter().collect();
        labels.insert("__metrics_path__", Cow::Borrowed(self.path.as_str()));
        if let Some(scheme) = self.scheme {
            labels.insert("__scheme__", Cow::Borrowed(scheme));
        }
        TargetGroup {
            targets: [self.address.as_str()],
            labels,
        }
    }
}

/// Labels for a customer's attributes.
const ATTRIBUTES: PerAttribute<&str> = PerAttribute {
    tier: "__meta_elements_tier",
    region: "__meta_elements_region",
    team: "__meta_elements_team",
};

/// Returns one target per customer.
///
/// Each target has all labels that are needed to scrape it without relabelling: the path, the scheme if it is `https`,
/// the parameter `customer_id` and a unique `instance`. Without a unique `instance`, all targets would share one `up`
/// series.
pub(super) fn of_customers<'a>(address: &'a TargetAddress, customers: &'a [KnownCustomer]) -> Vec<TargetGroup<'a>> {
    let group = |customer: &'a KnownCustomer| {
        let id = customer.id.as_str();
        let labels = [
            ("__meta_elements_customer_id", Cow::Borrowed(id)),
            (
                "__meta_elements_organization",
                Cow::Borrowed(customer.organization.as_str()),
            ),
            ("__meta_elements_country", Cow::Borrowed(customer.country.as_str())),
            (
                "__meta_elements_management_mode",
                Cow::Borrowed(customer.management_mode),
            ),
            ("__param_customer_id", Cow::Borrowed(id)),
            ("instance", format!("{}?customer_id={id}", address.address).into()),
        ];
        let attributes = ATTRIBUTES.into_iter().zip(customer.attributes.values());
        let attributes = attributes.filter_map(|(name, value)| Some((name, Cow::Borrowed(value?))));
        address.target(labels.into_iter().chain(attributes))
    };
    customers.iter().map(group).collect()
}

/// Returns one target per shard.
pub(super) fn of_shards(address: &TargetAddress, shards: u32) -> Vec<TargetGroup<'_>> {
    let group = |shard: Shard| {
        let shard = shard.to_string();
        let labels = [
            ("__meta_elements_shard", shard.clone().into()),
            ("instance", format!("{}?shard={shard}", address.address).into()),
            ("__param_shard", shard.into()),
        ];
        address.target(labels)
    };
    Shard::all(shards).map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_the_address_of_the_request() {
        let external = Url::parse("https://Proxy.example.com/elements/").ok();
        let address = |host: &str, is_over_tls| {
            let address = TargetAddress::from_request(host, is_over_tls, external.as_ref(), "/inside", "/m")?;
            Some((address.path, address.scheme))
        };
        let found = |path: &str, scheme| Some((path.to_owned(), scheme));
        assert_eq!(address("10.0.0.1:10027", false), found("/inside/m", None));
        assert_eq!(address("[::1]:10027", true), found("/inside/m", Some("https")));
        assert_eq!(address("proxy.example.com", false), found("/elements/m", Some("https")));
        assert_eq!(
            address("proxy.example.com:443", false),
            found("/elements/m", Some("https"))
        );
        assert_eq!(address("proxy.example.com:8443", false), found("/inside/m", None));
        for invalid in ["", "a/b", "x y", "evil\"<>", "host:99999", "host:", "a@b", "[::1"] {
            assert_eq!(address(invalid, false), None, "{invalid}");
        }
    }

    #[test]
    fn shards_must_be_a_valid_number() {
        assert_eq!(shards(None), Ok(None));
        assert_eq!(shards(Some("x=1")), Ok(None));
        assert_eq!(shards(Some("shards=3")), Ok(Some(3)));
        for query in [
            "shards=3&shards=4",
            "shards=%2B3",
            "shards=03",
            "shards=",
            "shards=0",
            "shards=1001",
            "shards=-1",
            "shards=many",
        ] {
            assert_eq!(shards(Some(query)), Err(InvalidShards), "{query}");
        }
    }
}
