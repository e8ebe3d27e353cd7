//! The list of all metrics, with their types, labels, help texts and stability. The metrics reference is generated from
//! this list, and tests check the documentation, dashboards and rules against it.

use std::collections::BTreeSet;

use crate::domain::Pattern;
use crate::exposition::{ExcludedMetrics, Metric};
use crate::{collector, health, scrape, store};

/// A metric with its label names and its collector.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Definition of the metric.
    pub metric: Metric,
    /// Label names, in exposition order.
    pub labels: Vec<&'static str>,
    /// Name of the collector; `None` for the exporter's own metrics.
    pub collector: Option<&'static str>,
}

/// Returns all metrics: those of the collectors, then the exporter's own.
pub fn metrics() -> Vec<Entry> {
    let mut seen = BTreeSet::new();
    let of_collectors = collector::ALL.iter().flat_map(|entry| {
        let metrics = entry.metrics().into_iter().flatten();
        metrics.map(|(metric, labels)| Entry {
            metric,
            labels,
            collector: Some(entry.name),
        })
    });
    let others = [store::COLLECTOR_SUCCESS, store::COLLECTOR_LAST_SUCCESS]
        .iter()
        .chain(health::REGISTERED)
        .chain(health::PROCESS);
    let about_the_exporter = scrape::metrics()
        .chain(others.map(|metric| (*metric, metric.labels.to_vec())))
        .map(|(metric, labels)| Entry {
            metric,
            labels,
            collector: None,
        });
    of_collectors
        .chain(about_the_exporter)
        .filter(|entry| seen.insert(entry.metric.name))
        .collect()
}

/// Returns the metrics whose names match any of the patterns.
pub fn matching(patterns: &[Pattern]) -> ExcludedMetrics {
    ExcludedMetrics::matching(patterns, metrics().into_iter().map(|entry| entry.metric))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::{Kind, Lifetime};

    #[test]
    fn metric_names_follow_the_conventions() {
        for Entry { metric, labels, .. } in metrics() {
            let name = metric.name;
            assert!(name.starts_with("elements_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            assert_eq!(name.ends_with("_info"), metric.kind == Kind::Info, "{name}");
            assert!(!metric.help.ends_with('.') && !metric.help.contains('\n'), "{name}");
            let unique: BTreeSet<_> = labels.iter().collect();
            assert_eq!(unique.len(), labels.len(), "{name}");
        }
    }

    #[test]
    fn dated_facts_are_timestamps_infos_and_objectives() {
        for entry in metrics().into_iter().filter(|entry| entry.collector.is_some()) {
            let name = entry.metric.name;
            let dated = name.ends_with("_timestamp_seconds")
                || name.ends_with("_info")
                || ["elements_job_rpo_seconds", "elements_job_abandoned"].contains(&name);
            assert_eq!(entry.metric.lifetime == Lifetime::Dated, dated, "{name}");
        }
    }
}
