//! Prometheus' HTTP service discovery: every customer, or every share of them, as a target of its own.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::domain::{MAX_SHARDS, Shard};
use crate::scrape::KnownCustomer;

/// A group of targets as Prometheus reads them.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct TargetGroup<'a> {
    targets: [&'a str; 1],
    labels: BTreeMap<&'static str, Cow<'a, str>>,
}

/// `shards` of the query is not a number that there can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shards: expected a whole number from 1 to {MAX_SHARDS}")]
pub(super) struct InvalidShards;

/// How many shares a query asks for; `None` where it asks for customers.
pub(super) fn shards(query: Option<&str>) -> Result<Option<u32>, InvalidShards> {
    let mut pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let Some((_, value)) = pairs.find(|(name, _)| name == "shards") else {
        return Ok(None);
    };
    let number = value.parse().ok().filter(|number| (1..=MAX_SHARDS).contains(number));
    number.map(Some).ok_or(InvalidShards)
}

/// A target per customer, at the address under which the exporter was asked.
///
/// All labels that it needs to be scraped are there, so it works without relabelling: the path, the parameter, and an
/// `instance` of its own, without which the targets' `up` would be one series.
pub(super) fn of_customers<'a>(
    address: &'a str,
    path: &'a str,
    customers: &'a [KnownCustomer],
) -> Vec<TargetGroup<'a>> {
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
            ("__metrics_path__", Cow::Borrowed(path)),
            ("__param_customer_id", Cow::Borrowed(id)),
            ("instance", format!("{address}?customer_id={id}").into()),
        ];
        TargetGroup {
            targets: [address],
            labels: labels.into(),
        }
    };
    customers.iter().map(group).collect()
}

/// A target per share.
pub(super) fn of_shards<'a>(address: &'a str, path: &'a str, shards: u32) -> Vec<TargetGroup<'a>> {
    let group = |shard: Shard| {
        let shard = shard.to_string();
        let labels = [
            ("__meta_elements_shard", shard.clone().into()),
            ("__metrics_path__", Cow::Borrowed(path)),
            ("instance", format!("{address}?shard={shard}").into()),
            ("__param_shard", shard.into()),
        ];
        TargetGroup {
            targets: [address],
            labels: labels.into(),
        }
    };
    Shard::all(shards).map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_a_number_within_reason_or_not_asked_for() {
        assert_eq!(shards(None), Ok(None));
        assert_eq!(shards(Some("x=1")), Ok(None));
        assert_eq!(shards(Some("shards=3")), Ok(Some(3)));
        for query in ["shards=", "shards=0", "shards=1001", "shards=-1", "shards=many"] {
            assert_eq!(shards(Some(query)), Err(InvalidShards), "{query}");
        }
    }
}
