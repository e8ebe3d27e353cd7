//! Parameters that limit a scrape to some series.

use std::collections::BTreeSet;

use crate::collector::{CollectorId, Target};
use crate::domain::Shard;

/// Filter for a scrape. An empty filter selects all series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrapeFilter {
    /// Limits the scrape to these parts.
    pub parts: Option<BTreeSet<Part>>,
    /// Limits the scrape to these customers. `Target::Partner` stands for data that belongs to no customer.
    pub customers: Option<BTreeSet<Target>>,
    /// Limits the scrape to the customers in these shards. All shards belong to the same partition. The first shard
    /// also contains all data that belongs to no customer.
    pub shards: Option<BTreeSet<Shard>>,
}

/// A group of metrics that can be scraped separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The exporter's own metrics.
    Exporter,
    /// The metrics of a collector.
    Collector(CollectorId),
}

impl Part {
    /// Returns the part with this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "exporter" => Some(Self::Exporter),
            name => CollectorId::named(name).map(Self::Collector),
        }
    }

    pub(super) fn collector(self) -> Option<CollectorId> {
        match self {
            Self::Exporter => None,
            Self::Collector(id) => Some(id),
        }
    }
}

impl ScrapeFilter {
    /// Returns whether the filter selects everything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns whether `customers` and `shards` admit data that belongs to no customer, such as the freshness of bulk
    /// polls.
    pub(super) fn has_partner_data(&self) -> bool {
        let names_partner = |customers: &BTreeSet<Target>| customers.contains(&Target::Partner);
        let has_first = |shards: &BTreeSet<Shard>| shards.iter().any(|shard| shard.is_first());
        self.customers.as_ref().is_none_or(names_partner) && self.shards.as_ref().is_none_or(has_first)
    }

    /// Returns whether the exporter's own metrics are selected.
    pub(super) fn has_exporter(&self) -> bool {
        let is_selected = match &self.parts {
            None => self.customers.is_none(),
            Some(parts) => parts.contains(&Part::Exporter),
        };
        is_selected && self.has_partner_data()
    }

    /// Returns whether only the exporter's own metrics are selected.
    pub(super) fn is_only_exporter(&self) -> bool {
        self.parts
            .as_ref()
            .is_some_and(|parts| parts.iter().eq([&Part::Exporter]))
    }

    /// Returns the number of shards in the partition to which the selected shards belong, or `None` if no shard is
    /// selected.
    pub fn shard_count(&self) -> Option<u32> {
        self.shards.as_ref()?.first().map(|shard| shard.count())
    }
}
