//! Prometheus' HTTP service discovery: one target per customer, or per share of the customers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::http::uri::Authority;
use serde::Serialize;
use url::Url;

use crate::domain::{MAX_SHARDS, PerAttribute, Shard, shard_count};
use crate::scrape::KnownCustomer;

/// A group of targets, as parsed by Prometheus.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct TargetGroup<'a> {
    targets: [&'a str; 1],
    labels: BTreeMap<&'static str, Cow<'a, str>>,
}

/// `shards` in the query is not a valid number of shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shards: expected one whole number from 1 to {MAX_SHARDS}")]
pub(super) struct InvalidShards;

/// Returns the number of shares in a query; `None` if it selects customers.
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
pub(super) struct Place {
    /// Host and port.
    address: String,
    path: String,
    /// `https` if known; otherwise a proxy that terminates TLS may set it.
    scheme: Option<&'static str>,
}

impl Place {
    /// Returns the address at which a request reached the exporter: its host with the path of the exporter or, if it
    /// matches the external URL, with the path of that. `None` without a host.
    pub(super) fn of_request(
        host: &str,
        is_over_tls: bool,
        external: Option<&Url>,
        route_prefix: &str,
        telemetry_path: &str,
    ) -> Option<Self> {
        let authority: Authority = host.parse().ok()?;
        let has_port = authority.as_str().len() > authority.host().len();
        let is_sound = !authority.host().is_empty()
            && !authority.as_str().contains('@')
            && (!has_port || authority.port_u16().is_some());
        if !is_sound {
            return None;
        }
        let by_external = external.filter(|url| {
            let is_its_port = match authority.port_u16() {
                Some(port) => url.port_or_known_default() == Some(port),
                // A parsed URL has no port if it is the default of its scheme.
                None => url.port().is_none(),
            };
            let is_its_host = |named: &str| named.eq_ignore_ascii_case(authority.host());
            is_its_port && url.host_str().is_some_and(is_its_host)
        });
        let (prefix, is_https) = match by_external {
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

/// The labels of a customer's attributes.
const ATTRIBUTES: PerAttribute<&str> = PerAttribute {
    tier: "__meta_elements_tier",
    region: "__meta_elements_region",
    team: "__meta_elements_team",
};

/// Returns a target per customer, at the address of the request.
///
/// Targets have all labels that they need to be scraped without relabelling: the path, the parameter, and a unique
/// `instance`, without which the `up` series of the targets would be one.
pub(super) fn of_customers<'a>(place: &'a Place, customers: &'a [KnownCustomer]) -> Vec<TargetGroup<'a>> {
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
            ("instance", format!("{}?customer_id={id}", place.address).into()),
        ];
        let attributes = ATTRIBUTES.into_iter().zip(customer.attributes.values());
        let attributes = attributes.filter_map(|(name, value)| Some((name, Cow::Borrowed(value?))));
        place.target(labels.into_iter().chain(attributes))
    };
    customers.iter().map(group).collect()
}

/// Returns a target per share.
pub(super) fn of_shards(place: &Place, shards: u32) -> Vec<TargetGroup<'_>> {
    let group = |shard: Shard| {
        let shard = shard.to_string();
        let labels = [
            ("__meta_elements_shard", shard.clone().into()),
            ("instance", format!("{}?shard={shard}", place.address).into()),
            ("__param_shard", shard.into()),
        ];
        place.target(labels)
    };
    Shard::all(shards).map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_the_address_of_the_request() {
        let external = Url::parse("https://Proxy.example.com/elements/").ok();
        let place = |host: &str, is_over_tls| {
            let place = Place::of_request(host, is_over_tls, external.as_ref(), "/inside", "/m")?;
            Some((place.path, place.scheme))
        };
        let found = |path: &str, scheme| Some((path.to_owned(), scheme));
        assert_eq!(place("10.0.0.1:10027", false), found("/inside/m", None));
        assert_eq!(place("[::1]:10027", true), found("/inside/m", Some("https")));
        assert_eq!(place("proxy.example.com", false), found("/elements/m", Some("https")));
        assert_eq!(
            place("proxy.example.com:443", false),
            found("/elements/m", Some("https"))
        );
        assert_eq!(place("proxy.example.com:8443", false), found("/inside/m", None));
        for odd in ["", "a/b", "x y", "evil\"<>", "host:99999", "host:", "a@b", "[::1"] {
            assert_eq!(place(odd, false), None, "{odd}");
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
