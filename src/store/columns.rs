//! Metrics of the store, and their locations in a [`Snapshot`](crate::exposition::Snapshot).

use super::{COLLECTOR_LAST_SUCCESS, COLLECTOR_SUCCESS};
use crate::collector::{ALL, CollectorId, ids};
use crate::exposition::{Metric, Source, shape_columns};

/// Returns every metric of the store with its location in a snapshot: first the metrics of the collectors' records, and
/// then those of their freshness.
pub fn columns() -> Vec<(Metric, Source)> {
    let mut columns = Vec::new();
    for collector in ids() {
        let [group, _] = groups_of(collector);
        columns.extend(shape_columns(group, collector.descriptor().metrics()));
    }
    for (column, metric) in [COLLECTOR_SUCCESS, COLLECTOR_LAST_SUCCESS].into_iter().enumerate() {
        for collector in ids() {
            let [_, group] = groups_of(collector);
            columns.push((
                metric,
                Source {
                    group,
                    shape: 0,
                    column,
                },
            ));
        }
    }
    columns
}

/// Returns the groups of a snapshot that belong to a collector: its records and its freshness.
pub fn groups_of(collector: CollectorId) -> [usize; 2] {
    [collector.position(), ALL.len() + collector.position()]
}
