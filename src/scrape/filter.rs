//! Filter of a scrape.

use std::collections::BTreeSet;

use crate::collector::{CollectorId, Target};
use crate::domain::Shard;

/// Filter of a scrape; empty for all series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrapeFilter {
    /// Only these parts.
    pub parts: Option<BTreeSet<Part>>,
    /// Only these customers. The partner represents data without a customer.
    pub customers: Option<BTreeSet<Target>>,
    /// Only customers of these shares, which all divide the customers into the same number. The first share also has
    /// all data without a customer.
    pub shards: Option<BTreeSet<Shard>>,
}

/// A part of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The exporter's own metrics.
    Exporter,
    /// The metrics of a collector.
    Collector(CollectorId),
}

impl Part {
    /// Returns the part of this name.
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
    /// Returns whether it admits everything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns whether data without a customer is admitted: the exporter's own metrics, and the freshness of bulk
    /// polls.
    pub(super) fn has_what_is_of_none(&self) -> bool {
        let names_it = |customers: &BTreeSet<Target>| customers.contains(&Target::Partner);
        let has_first = |shards: &BTreeSet<Shard>| shards.iter().any(|shard| shard.is_first());
        self.customers.as_ref().is_none_or(names_it) && self.shards.as_ref().is_none_or(has_first)
    }

    /// Returns whether the exporter's own metrics are admitted.
    pub(super) fn has_exporter(&self) -> bool {
        let is_selected = match &self.parts {
            None => self.customers.is_none(),
            Some(parts) => parts.contains(&Part::Exporter),
        };
        is_selected && self.has_what_is_of_none()
    }

    /// Returns whether only the exporter's own metrics are admitted.
    pub(super) fn is_just_exporter(&self) -> bool {
        self.parts
            .as_ref()
            .is_some_and(|parts| parts.iter().eq([&Part::Exporter]))
    }

    /// Returns the number of shares into which the customers are divided.
    pub fn shards_to_divide_into(&self) -> Option<u32> {
        self.shards.as_ref()?.first().map(|shard| shard.of())
    }
}
